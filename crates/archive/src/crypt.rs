//! Encryption of objects: XChaCha20-Poly1305 with a nonce that follows from what is encrypted, so that the same content
//! under the same key is the same object, and a nonce never serves two contents.

use crate::Hash;
use crate::bytes::hex;
use crate::error::{Error, Result};
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use std::fmt;

/// Names a key and reveals nothing of it.
pub type KeyId = [u8; 16];

pub(crate) const NONCE_BYTES: usize = 24;
pub(crate) const TAG_BYTES: usize = 16;

/// What a key of a person's is for, one derived key each (BLAKE3's derive_key).
const FOR_ENCRYPTION: &str = "hybridvec archive 1: encryption of objects";
const FOR_NONCES: &str = "hybridvec archive 1: nonces";
const FOR_ID: &str = "hybridvec archive 1: key id";

/// 256 bits that a person keeps.
#[derive(Clone)]
pub struct Key {
    encryption: Hash,
    nonces: Hash,
    id: KeyId,
}

/// Never shows the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", hex(&self.id))
    }
}

impl Key {
    /// From 32 bytes, which are taken from a source of random bytes: a key made of words could be guessed.
    pub fn new(secret: &[u8; 32]) -> Self {
        let [encryption, nonces, id] =
            [FOR_ENCRYPTION, FOR_NONCES, FOR_ID].map(|purpose| blake3::derive_key(purpose, secret));
        let mut short = [0; 16];
        short.copy_from_slice(&id[..16]);
        Self { encryption, nonces, id: short }
    }

    /// From text, as in a file or a user mapping: 64 hexadecimal digits, with white space around.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it is anything else; the text is not in the message.
    pub fn from_text(text: &str) -> Result<Self> {
        let digits = text.trim().as_bytes();
        let mut secret = [0; 32];
        if digits.len() != 64 {
            return Err(Error::unfit("a key has 64 hexadecimal digits"));
        }
        for (byte, pair) in secret.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let (high, low) = high.zip(low).ok_or_else(|| Error::unfit("a key has 64 hexadecimal digits"))?;
            *byte = (high << 4 | low) as u8;
        }
        Ok(Self::new(&secret))
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The nonce for this plaintext with this associated data. Both are hashed with the length of the latter, so that
    /// one nonce never serves two pairs.
    pub(crate) fn nonce(&self, associated: &[u8], plaintext: &[u8]) -> [u8; NONCE_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.nonces);
        hasher.update(&(associated.len() as u64).to_le_bytes()).update(associated).update(plaintext);
        let mut nonce = [0; NONCE_BYTES];
        hasher.finalize_xof().fill(&mut nonce);
        nonce
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        bytes: &mut [u8],
    ) -> Result<[u8; TAG_BYTES]> {
        let cipher = XChaCha20Poly1305::new(&self.encryption.into());
        let tag = cipher.encrypt_in_place_detached(XNonce::from_slice(nonce), associated, bytes);
        tag.map(Into::into).map_err(|_| Error::unfit("an object that is too long to be encrypted"))
    }

    /// Decrypts in place.
    ///
    /// # Errors
    /// If the tag is not that of the bytes; they are as before then.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        bytes: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<()> {
        let cipher = XChaCha20Poly1305::new(&self.encryption.into());
        cipher
            .decrypt_in_place_detached(XNonce::from_slice(nonce), associated, bytes, Tag::from_slice(tag))
            .map_err(|_| Error::damaged("its bytes are not those that were encrypted"))
    }
}
