//! Names of blobs and patches.

use crate::{Error, Result};
use data_encoding::BASE64URL_NOPAD;
use std::fmt;
use std::str::FromStr;

/// The id of a blob or quilt: 32 bytes, as text 43 characters of URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for BlobId {
    type Err = Error;

    /// Accepts the one canonical form: bits after the last byte must be zero.
    fn from_str(text: &str) -> Result<Self> {
        decode::<32>(text).map(Self).ok_or_else(|| Error::Id { text: text.to_string(), what: "blob id" })
    }
}

/// Where a patch is: the quilt, and its columns `start..end`. As text 50 characters.
///
/// ```text
/// byte 0..32 id of the quilt, 32 version (1), 33..35 start, 35..37 end (u16, little-endian)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatchId {
    pub quilt: BlobId,
    pub start: u16,
    pub end: u16,
}

const PATCH_VERSION: u8 = 1;

impl PatchId {
    pub fn to_bytes(self) -> [u8; 37] {
        let mut bytes = [0; 37];
        bytes[..32].copy_from_slice(&self.quilt.0);
        bytes[32] = PATCH_VERSION;
        bytes[33..35].copy_from_slice(&self.start.to_le_bytes());
        bytes[35..].copy_from_slice(&self.end.to_le_bytes());
        bytes
    }
}

impl fmt::Display for PatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.to_bytes()))
    }
}

impl FromStr for PatchId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Id { text: text.to_string(), what: "patch id" };
        let bytes = decode::<37>(text).ok_or_else(wrong)?;
        let mut quilt = [0; 32];
        quilt.copy_from_slice(&bytes[..32]);
        let start = u16::from_le_bytes([bytes[33], bytes[34]]);
        let end = u16::from_le_bytes([bytes[35], bytes[36]]);
        if bytes[32] != PATCH_VERSION || start >= end {
            return Err(wrong());
        }
        Ok(Self { quilt: BlobId(quilt), start, end })
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // The length goes first, so that a long text is not decoded for nothing.
    if text.len() != (N * 4).div_ceil(3) {
        return None;
    }
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_is_an_id() {
        let text = "M4hsZGQ1oCktdzegB6HnI6Mi28S2nqOPHxK-W7_4BUk";
        assert_eq!(text.parse::<BlobId>().unwrap().to_string(), text);
        for wrong in
            ["", "M4hs", "M4hsZGQ1oCktdzegB6HnI6Mi28S2nqOPHxK-W7_4BUl", "M4hsZGQ1oCktdzegB6HnI6Mi28S2nqOPHxK+W7/4BUk"]
        {
            assert!(wrong.parse::<BlobId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_patch_id_has_its_columns() {
        let text = "MHFI9WTWTGMThonMSC5pQkQKBzAVvGKYLthc3eRvMoABAQACAA";
        let id: PatchId = text.parse().unwrap();
        assert_eq!((id.start, id.end), (1, 2));
        assert_eq!(id.to_string(), text);
        let empty = PatchId { end: 1, ..id }.to_string();
        assert!(empty.parse::<PatchId>().is_err());
    }
}
