//! CBOR in its one deterministic form (RFC 8949, 4.2.1), and less: of all a manifest could say, one way to say it.

use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep arrays and maps lie in each other, at most.
const MAX_DEPTH: u32 = 24;
/// Values, keys, arrays and maps in all. What becomes of one takes less than 200 bytes of memory.
const MAX_ITEMS: u32 = 1 << 20;

/// Types of items, the upper three bits of their first byte.
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const OTHER: u8 = 7;

/// # Errors
/// [`Error::Unfit`] if the value holds what is not allowed, such as a float.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    // Maps of `Value` are sorted in the order of their encoded keys.
    let encoded = serde_cbor::value::to_value(value).and_then(|value| serde_cbor::to_vec(&value));
    let encoded = encoded.map_err(|error| Error::unfit(error.to_string()))?;
    check(&encoded).map_err(Error::into_unfit)?;
    Ok(encoded)
}

/// # Errors
/// [`Error::Damaged`] if the bytes are not the ones that the value would be encoded as.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    check(bytes)?;
    let value = parse(bytes)?;
    if encode(&value)? != bytes {
        return Err(Error::damaged("it has parts that this release does not know, or lacks parts"));
    }
    Ok(value)
}

/// A value from bytes that [`check`] passed, parts that it does not know aside.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_cbor::from_slice(bytes).map_err(|error| Error::damaged(format!("its CBOR does not fit: {error}")))
}

/// Whether the bytes are one item of deterministic CBOR: integers, bytes, text, arrays, maps with text as keys,
/// booleans and null; all lengths definite, all numbers as short as can be, keys in order and without repeats. Takes no
/// memory.
///
/// # Errors
/// [`Error::Damaged`] with the byte where it goes wrong.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    let mut scanner = Scanner { bytes, at: 0, items: 0 };
    scanner.item(0)?;
    if scanner.at == bytes.len() { Ok(()) } else { scanner.wrong("bytes follow the end") }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    items: u32,
}

impl<'a> Scanner<'a> {
    fn wrong<T>(&self, what: &str) -> Result<T> {
        Err(Error::damaged(format!("its CBOR is not deterministic: {what} at byte {}", self.at)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        match end.and_then(|end| Some((end, self.bytes.get(self.at..end)?))) {
            Some((end, taken)) => {
                self.at = end;
                Ok(taken)
            }
            None => self.wrong("it is cut off"),
        }
    }

    /// Type and number of an item's head.
    fn head(&mut self) -> Result<(u8, u64)> {
        self.items += 1;
        if self.items > MAX_ITEMS {
            return self.wrong("there are too many items");
        }
        let first = self.take(1)?[0];
        let (kind, short) = (first >> 5, first & 0x1f);
        let (number, least) = match short {
            0..=23 => return Ok((kind, u64::from(short))),
            24..=27 if kind != OTHER => {
                let bytes = self.take(1 << (short - 24))?;
                let number = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
                (number, [24, 1 << 8, 1 << 16, 1 << 32][usize::from(short) - 24])
            }
            _ if kind == OTHER => return self.wrong("a float or an unknown simple value"),
            _ => return self.wrong("an indefinite length"),
        };
        if number < least { self.wrong("a number is longer than need be") } else { Ok((kind, number)) }
    }

    fn text(&mut self, len: u64) -> Result<()> {
        match std::str::from_utf8(self.take(len)?) {
            Ok(text) if !text.contains('\0') => Ok(()),
            _ => self.wrong("text is not UTF-8, or holds a zero byte"),
        }
    }

    fn item(&mut self, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            return self.wrong("it is nested too deep");
        }
        match self.head()? {
            (..=NEGATIVE, _) => Ok(()),
            (BYTES, len) => self.take(len).map(|_| ()),
            (TEXT, len) => self.text(len),
            // Each has a byte at least, so a hostile count ends where the bytes do.
            (ARRAY, count) => (0..count).try_for_each(|_| self.item(depth + 1)),
            (MAP, count) => self.map(count, depth + 1),
            (TAG, _) => self.wrong("a tag"),
            (_, 20..=22) => Ok(()),
            _ => self.wrong("an unknown simple value"),
        }
    }

    fn map(&mut self, count: u64, depth: u32) -> Result<()> {
        let mut before: &[u8] = &[];
        for _ in 0..count {
            let start = self.at;
            match self.head()? {
                (TEXT, len) => self.text(len)?,
                _ => return self.wrong("a key is no text"),
            }
            let key = &self.bytes[start..self.at];
            if key <= before {
                return self.wrong("keys are repeated or out of order");
            }
            before = key;
            self.item(depth)?;
        }
        Ok(())
    }
}
