//! Identifiers of S5 blobs: the new "blob identifier" (`5b 82`), the legacy raw CID (`26 1f`), and multihashes.
//!
//! Two texts name the same blob exactly when their hashes are the same; forms, bases and even sizes may differ (some
//! clients send size 0 when they do not know it). So whatever is keyed by a blob is keyed by its hash.
//!
//! Sources: s5.js `src/identifier`, lib5 `lib/src/model/cid.dart`, s5-rs `s5_core/src/blob/identifier.rs`.

use crate::Hash;
use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE, Specification};
use std::sync::LazyLock;

const BLOB: [u8; 2] = [0x5b, 0x82];
const LEGACY_RAW: u8 = 0x26;
/// Multihash byte of BLAKE3 in new identifiers.
const BLAKE3: u8 = 0x1e;
/// The same in legacy identifiers, and on the wire of the nodes.
const BLAKE3_LEGACY: u8 = 0x1f;
const SHA256: u8 = 0x12;
/// Longest text that is looked at: 43 bytes in hexadecimal are 87 characters.
const LONGEST: usize = 96;

/// RFC 4648 base32, lower case, unpadded: multibase `b`.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

/// What the hash of an identifier is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Blake3,
    /// Foreign blobs only.
    Sha256,
}

/// A multibase: how the bytes of an identifier are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Base32,
    Base58,
    Base64Url,
    Hex,
}

/// A blob: the hash of its bytes, and its length in bytes as far as its identifier knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobId {
    pub function: Function,
    pub hash: Hash,
    pub size: u64,
}

impl BlobId {
    pub fn new(hash: Hash, size: u64) -> Self {
        Self { function: Function::Blake3, hash, size }
    }

    /// The identifier of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::new(*blake3::hash(bytes).as_bytes(), bytes.len() as u64)
    }

    /// New form: `5b 82`, function, hash, size in as few little-endian bytes as hold it, at least one.
    pub fn bytes(&self) -> Vec<u8> {
        let function = match self.function {
            Function::Blake3 => BLAKE3,
            Function::Sha256 => SHA256,
        };
        [&BLOB[..], &[function], &self.hash, &size_bytes(self.size)].concat()
    }

    /// Legacy form: `26 1f`, hash, size as in the new form.
    pub fn legacy_bytes(&self) -> Vec<u8> {
        [&[LEGACY_RAW, BLAKE3_LEGACY][..], &self.hash, &size_bytes(self.size)].concat()
    }

    pub fn text(&self, base: Base) -> String {
        write(base, &self.bytes())
    }

    pub fn legacy_text(&self, base: Base) -> String {
        write(base, &self.legacy_bytes())
    }

    /// Hash with the multihash byte of the nodes (`1f`), base64url: the key of locations and of ETags.
    pub fn multihash(&self) -> String {
        BASE64URL_NOPAD.encode(&[&[BLAKE3_LEGACY][..], &self.hash].concat())
    }

    /// Value of the header `Upload-Metadata` of a TUS upload. The multihash is encoded twice.
    pub fn tus_metadata(&self) -> String {
        format!("hash {}", BASE64.encode(self.multihash().as_bytes()))
    }

    /// Reads either form; `1e` and `1f` are taken for each other, as s5.js mixes them. `None` if it is no identifier of a
    /// blob.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (function, rest) = match bytes {
            [0x5b, 0x82, function, rest @ ..] | [LEGACY_RAW, function, rest @ ..] => (*function, rest),
            _ => return None,
        };
        let function = match function {
            BLAKE3 | BLAKE3_LEGACY => Function::Blake3,
            SHA256 => Function::Sha256,
            _ => return None,
        };
        let (hash, size) = rest.split_first_chunk::<32>()?;
        if size.len() > 8 {
            return None;
        }
        let size = size.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(Self { function, hash: *hash, size })
    }

    /// Reads the text of either form in any multibase. `None` if it is no identifier of a blob.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(&read(text)?)
    }
}

/// The hash in a multihash of BLAKE3 (33 bytes) as base64url text. `None` if it is none.
pub fn parse_multihash(text: &str) -> Option<Hash> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    match bytes.split_first_chunk::<1>()? {
        ([BLAKE3 | BLAKE3_LEGACY], hash) => hash.try_into().ok(),
        _ => None,
    }
}

fn size_bytes(size: u64) -> Vec<u8> {
    let length = 8 - size.leading_zeros() as usize / 8;
    size.to_le_bytes().into_iter().take(length.max(1)).collect()
}

fn write(base: Base, bytes: &[u8]) -> String {
    match base {
        Base::Base32 => format!("b{}", BASE32.encode(bytes)),
        Base::Base58 => format!("z{}", bs58::encode(bytes).into_string()),
        Base::Base64Url => format!("u{}", BASE64URL_NOPAD.encode(bytes)),
        Base::Hex => format!("f{}", HEXLOWER.encode(bytes)),
    }
}

fn read(text: &str) -> Option<Vec<u8>> {
    if text.len() > LONGEST {
        return None;
    }
    let (base, digits) = text.split_at_checked(1)?;
    match base {
        "b" => BASE32.decode(digits.as_bytes()).ok(),
        "z" => bs58::decode(digits).into_vec().ok(),
        "u" => BASE64URL_NOPAD.decode(digits.as_bytes()).ok(),
        "f" => HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok(),
        _ => None,
    }
}
