//! Numbers as bytes and bits: what all chunks are made of. Little-endian throughout.

use crate::Fingerprint;
use crate::error::{Error, Result};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// LEB128: seven bits a byte, low ones first, the top bit of all but the last byte set; no longer than need be.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bits that a number below `values` takes, at least one.
pub(crate) fn width_below(values: u32) -> u32 {
    (u32::BITS - values.saturating_sub(1).leading_zeros()).max(1)
}

/// Collects numbers of some bits each, low bits first.
#[derive(Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    waiting: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `width` bits of `value`, at most 32; the others are zero.
    pub(crate) fn put(&mut self, value: u32, width: u32) {
        self.waiting |= u64::from(value) << self.count;
        self.count += width;
        while self.count >= 8 {
            self.bytes.push(self.waiting as u8);
            self.waiting >>= 8;
            self.count -= 8;
        }
    }

    /// Bytes so far, the last one perhaps not full.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + usize::from(self.count > 0)
    }

    /// Appends all to `out`, filled up with zero bits, and starts anew.
    pub(crate) fn drain_to(&mut self, out: &mut Vec<u8>) {
        if self.count > 0 {
            self.bytes.push(self.waiting as u8);
        }
        out.append(&mut self.bytes);
        (self.waiting, self.count) = (0, 0);
    }
}

/// Reads what [`BitWriter`] wrote; bits beyond the end are zero, so lengths are checked before.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    waiting: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    /// # Errors
    /// If `bytes` are not as many as so many bits take.
    pub(crate) fn new(bytes: &'a [u8], bits: u64) -> Result<Self> {
        if bytes.len() as u64 != bits.div_ceil(8) {
            return Err(Error::damaged("its packed numbers have another length than its counts say"));
        }
        Ok(Self { bytes, waiting: 0, count: 0 })
    }

    pub(crate) fn take(&mut self, width: u32) -> u32 {
        while self.count < width {
            let (next, rest) = self.bytes.split_first().map_or((0, self.bytes), |(&next, rest)| (next, rest));
            self.waiting |= u64::from(next) << self.count;
            self.bytes = rest;
            self.count += 8;
        }
        let value = self.waiting & ((1 << width) - 1);
        self.waiting >>= width;
        self.count -= width;
        value as u32
    }

    /// # Errors
    /// If the bits that fill the last byte are not zero.
    pub(crate) fn finish(self) -> Result<()> {
        if self.waiting == 0 && self.bytes.is_empty() {
            Ok(())
        } else {
            Err(Error::damaged("bits are set after its packed numbers"))
        }
    }
}

/// Reads a chunk from its beginning to its end.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| Error::damaged("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The one form of a number that [`put_varint`] writes.
    pub(crate) fn varint(&mut self) -> Result<u32> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(Error::damaged("a number is longer than need be"));
                }
                return u32::try_from(value).map_err(|_| Error::damaged("a number is too large"));
            }
        }
        Err(Error::damaged("a number is too long"))
    }

    /// The rest as fingerprints; exactly so many.
    pub(crate) fn fingerprints(&mut self, count: u64) -> Result<Fingerprints<'a>> {
        if count.checked_mul(16) != Some(self.rest.len() as u64) {
            return Err(Error::damaged("its fingerprints are not as many as its counts say"));
        }
        Ok(Fingerprints(std::mem::take(&mut self.rest).as_chunks().0))
    }
}

/// Fingerprints that were counted before.
pub(crate) struct Fingerprints<'a>(&'a [Fingerprint]);

impl Fingerprints<'_> {
    /// The next `count`.
    pub(crate) fn next(&mut self, count: u32) -> Result<Vec<Fingerprint>> {
        let (taken, rest) = self.0.split_at_checked(count as usize).ok_or_else(|| Error::damaged("it is cut off"))?;
        self.0 = rest;
        Ok(taken.to_vec())
    }
}

/// Bytes of fixed length, a byte string in CBOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fixed<const N: usize>;
        impl<const N: usize> Visitor<'_> for Fixed<N> {
            type Value = Bytes<N>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> std::result::Result<Self::Value, E> {
                bytes.try_into().map(Bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Fixed)
    }
}

/// For fields of arrays of bytes: `#[serde(with = "bytes::fixed")]`.
pub(crate) mod fixed {
    use super::{Bytes, Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
        Bytes(*bytes).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[u8; N], D::Error> {
        Bytes::deserialize(d).map(|bytes| bytes.0)
    }
}

/// As [`fixed`], for fields that may be null.
pub(crate) mod fixed_or_null {
    use super::{Bytes, Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &Option<[u8; N]>, s: S) -> Result<S::Ok, S::Error> {
        bytes.map(Bytes).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<Option<[u8; N]>, D::Error> {
        Option::<Bytes<N>>::deserialize(d).map(|bytes| bytes.map(|bytes| bytes.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_and_bits_come_back(values in proptest::collection::vec(any::<u32>(), 0..50), width in 1u32..=32) {
            let (mut bytes, mut bits) = (Vec::new(), BitWriter::default());
            for &value in &values {
                put_varint(&mut bytes, value);
                bits.put((u64::from(value) & ((1 << width) - 1)) as u32, width);
            }
            let mut packed = Vec::new();
            prop_assert_eq!(bits.len(), (values.len() * width as usize).div_ceil(8));
            bits.drain_to(&mut packed);
            let mut reader = Reader::new(&bytes);
            let mut unpack = BitReader::new(&packed, values.len() as u64 * u64::from(width)).unwrap();
            for &value in &values {
                prop_assert_eq!(reader.varint().unwrap(), value);
                prop_assert_eq!(u64::from(unpack.take(width)), u64::from(value) & ((1 << width) - 1));
            }
            prop_assert_eq!(reader.left(), 0);
            unpack.finish().unwrap();
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for bytes in [&[0x80, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80; 6], &[0x80], &[]] {
            Reader::new(bytes).varint().unwrap_err();
        }
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(), Ok(u32::MAX));
        assert_eq!([0, 1, 2, 3, 4, 5, u32::MAX].map(width_below), [1, 1, 1, 2, 2, 3, 32]);
    }
}
