//! Frames: raw chunks as they are stored, compressed and perhaps encrypted.

use crate::bytes::{Reader, hex, put_u32};
use crate::crypt::{Key, KeyId, NONCE_BYTES, TAG_BYTES};
use crate::error::{Error, Result};
use crate::object::{Kind, ObjectRef, object_name};
use crate::{Hash, LARGEST_STORED};

/// A byte that is no text, three letters, and line ends that a transfer as text would change.
const MAGIC: [u8; 8] = *b"\x89HVA\r\n\x1a\n";
pub(crate) const VERSION: u8 = 1;
const COMPRESSED: u8 = 1;
const ENCRYPTED: u8 = 2;
/// Bytes before the payload: of every frame, and further ones if it is encrypted.
const HEAD: usize = 20;
const KEY_ID_BYTES: usize = 16;
/// What the seal of a frame that is not encrypted is a hash for.
const FOR_SEALS: &str = "hybridvec archive 1: seal of a frame";
/// Zstandard's own default.
pub const DEFAULT_LEVEL: i32 = 3;

/// An object ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub name: String,
    pub bytes: Vec<u8>,
    /// BLAKE3 of the raw chunk.
    pub content: Hash,
    /// BLAKE3 of `bytes`.
    pub stored: Hash,
    pub raw_length: u64,
}

impl Packed {
    /// As a manifest names it once it is at `locator`.
    pub fn reference(&self, locator: &str) -> ObjectRef {
        ObjectRef {
            name: self.name.clone(),
            locator: locator.to_owned(),
            content: self.content,
            stored: self.stored,
            stored_length: self.bytes.len() as u64,
            raw_length: self.raw_length,
        }
    }
}

/// What a frame says of itself to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    pub kind: Kind,
    pub raw_length: u64,
    /// The key that it is encrypted with.
    pub key: Option<KeyId>,
}

/// Makes an object of a raw chunk, with Zstandard's default level. The same chunk under the same key makes the same
/// object, as long as the library of Zstandard is the same; [`Packed::content`] tells what was archived before even if
/// it is not.
///
/// # Errors
/// [`Error::TooLarge`] if the chunk is longer than its kind allows.
pub fn pack(kind: Kind, raw: &[u8], key: Option<&Key>) -> Result<Packed> {
    pack_with(kind, raw, key, DEFAULT_LEVEL)
}

/// As [`pack`], with a level of Zstandard's; what does not get shorter is stored as it is.
///
/// # Errors
/// As [`pack`].
pub fn pack_with(kind: Kind, raw: &[u8], key: Option<&Key>, level: i32) -> Result<Packed> {
    let too_large =
        |what: String, size: usize, limit: usize| Err(Error::TooLarge { what, size: size as u64, limit: limit as u64 });
    if raw.len() > kind.largest_raw() {
        return too_large(format!("a {} chunk", kind.word()), raw.len(), kind.largest_raw());
    }
    let compressed = zstd::bulk::compress(raw, level).ok().filter(|compressed| compressed.len() < raw.len());
    let payload = compressed.as_deref().unwrap_or(raw);
    let flags = if compressed.is_some() { COMPRESSED } else { 0 } | if key.is_some() { ENCRYPTED } else { 0 };
    let mut bytes = Vec::with_capacity(HEAD + KEY_ID_BYTES + NONCE_BYTES + payload.len() + TAG_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, kind as u8, flags, 0]);
    put_u32(&mut bytes, raw.len() as u32);
    put_u32(&mut bytes, payload.len() as u32);
    let seal = match key {
        None => {
            bytes.extend_from_slice(payload);
            seal(&bytes)
        }
        Some(key) => {
            bytes.extend_from_slice(&key.id());
            let nonce = key.nonce(&bytes, payload);
            bytes.extend_from_slice(&nonce);
            let associated = bytes.len();
            bytes.extend_from_slice(payload);
            let (head, payload) = bytes.split_at_mut(associated);
            key.seal(&nonce, head, payload)?
        }
    };
    bytes.extend_from_slice(&seal);
    if bytes.len() > LARGEST_STORED {
        return too_large(format!("a {} object", kind.word()), bytes.len(), LARGEST_STORED);
    }
    let [content, stored] = [raw, &bytes].map(|bytes| *blake3::hash(bytes).as_bytes());
    Ok(Packed { name: object_name(kind, &stored), bytes, content, stored, raw_length: raw.len() as u64 })
}

fn seal(bytes: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(FOR_SEALS);
    let mut seal = [0; TAG_BYTES];
    hasher.update(bytes).finalize_xof().fill(&mut seal);
    seal
}

/// What a frame says of itself, without a look at the rest. For messages and for the choice of a key; nothing of it is
/// checked against the seal.
///
/// # Errors
/// [`Error::Damaged`] if it is no frame or not whole, [`Error::Newer`].
pub fn peek(bytes: &[u8]) -> Result<Peeked> {
    Frame::read(bytes).map(|frame| Peeked {
        kind: frame.kind,
        raw_length: frame.raw_length as u64,
        key: frame.encryption.map(|(key, _)| key),
    })
}

/// The raw chunk of an object, after all that `expected` says was checked.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Key`], [`Error::Newer`], each naming the object.
pub fn unpack(bytes: &[u8], expected: &ObjectRef, key: Option<&Key>) -> Result<Vec<u8>> {
    let check = || {
        if bytes.len() as u64 != expected.stored_length {
            return Err(Error::damaged(format!("it has {} bytes, not {}", bytes.len(), expected.stored_length)));
        }
        if *blake3::hash(bytes).as_bytes() != expected.stored {
            return Err(Error::damaged("its hash is another than the manifest says"));
        }
        let kind = Kind::of_name(&expected.name).ok_or_else(|| Error::damaged("its name is none of an object"))?;
        let raw = open(bytes, kind, key)?;
        if raw.len() as u64 != expected.raw_length || *blake3::hash(&raw).as_bytes() != expected.content {
            return Err(Error::damaged("its content is another than the manifest says"));
        }
        Ok(raw)
    };
    check().map_err(|error| error.of(&expected.name))
}

/// The raw chunk of a frame of this kind, as far as the frame itself can be trusted.
pub(crate) fn open(bytes: &[u8], kind: Kind, key: Option<&Key>) -> Result<Vec<u8>> {
    let frame = Frame::read(bytes)?;
    if frame.kind != kind {
        return Err(Error::damaged(format!("it is a {} object, not a {} object", frame.kind.word(), kind.word())));
    }
    let refused = |what| Err(Error::Key { object: String::new(), what });
    let decrypted;
    let payload = match (&frame.encryption, key) {
        (None, _) if seal(frame.sealed) != frame.seal => {
            return Err(Error::damaged("its seal is not that of its bytes"));
        }
        (None, None) => frame.payload,
        (None, Some(key)) => {
            return refused(format!("it is not encrypted, and should be, with the key {}", hex(&key.id())));
        }
        (Some((id, _)), None) => {
            return refused(format!("it is encrypted with the key {}, and no key is given", hex(id)));
        }
        (Some((id, _)), Some(key)) if *id != key.id() => {
            return refused(format!(
                "it is encrypted with the key {}, and the key given is {}",
                hex(id),
                hex(&key.id())
            ));
        }
        (Some((_, nonce)), Some(key)) => {
            let mut bytes = frame.payload.to_vec();
            key.open(nonce, frame.head, &mut bytes, &frame.seal)?;
            decrypted = bytes;
            &decrypted
        }
    };
    frame.decompress(payload)
}

/// A frame taken apart.
struct Frame<'a> {
    kind: Kind,
    compressed: bool,
    raw_length: usize,
    encryption: Option<(KeyId, [u8; NONCE_BYTES])>,
    /// All before the payload.
    head: &'a [u8],
    payload: &'a [u8],
    /// All before the seal.
    sealed: &'a [u8],
    seal: [u8; TAG_BYTES],
}

impl<'a> Frame<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array().is_ok_and(|magic: [u8; 8]| magic != MAGIC) {
            return Err(Error::damaged("it is no object of an archive"));
        }
        let version = reader.u8()?;
        if version != VERSION {
            let newer = Error::Newer { object: String::new(), version: u64::from(version) };
            return Err(if version > VERSION { newer } else { Error::damaged("its version is 0") });
        }
        let [kind, flags, zero] = reader.array()?;
        let kind = Kind::from_byte(kind).ok_or_else(|| Error::damaged(format!("its kind is {kind}")))?;
        if flags > COMPRESSED | ENCRYPTED || zero != 0 {
            return Err(Error::damaged(format!("its flags are {flags} and {zero}")));
        }
        let (raw_length, payload_length) = (reader.u32()? as usize, reader.u32()? as usize);
        if raw_length > kind.largest_raw() {
            return Err(Error::damaged(format!("it would have {raw_length} bytes of {}", kind.word())));
        }
        let encryption = match flags & ENCRYPTED {
            0 => None,
            _ => Some((reader.array()?, reader.array()?)),
        };
        let head = &bytes[..bytes.len() - reader.left()];
        if reader.left() != payload_length.saturating_add(TAG_BYTES) {
            let whole = head.len().saturating_add(payload_length).saturating_add(TAG_BYTES);
            return Err(Error::damaged(format!("it has {} bytes of {whole}", bytes.len())));
        }
        let payload = reader.take(payload_length)?;
        let sealed = &bytes[..bytes.len() - reader.left()];
        let compressed = flags & COMPRESSED != 0;
        Ok(Self { kind, compressed, raw_length, encryption, head, payload, sealed, seal: reader.array()? })
    }

    /// Takes the memory that the head declares, which is bounded by the kind, and never more.
    fn decompress(&self, payload: &[u8]) -> Result<Vec<u8>> {
        let wrong = || Error::damaged("its payload does not decompress to the length it should have");
        let raw = match self.compressed {
            true => zstd::bulk::decompress(payload, self.raw_length).map_err(|_| wrong())?,
            false => payload.to_vec(),
        };
        if raw.len() == self.raw_length { Ok(raw) } else { Err(wrong()) }
    }
}
