//! Names of objects, and what a manifest says of each.

use crate::bytes::{Bytes, hex};
use crate::error::{Error, Result};
use crate::{Hash, LARGEST_MANIFEST, LARGEST_RAW, LARGEST_STORED};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an object holds. Numbers are part of the format and never used for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Manifest = 0,
    Graph = 1,
    Lists = 2,
    Centroids = 3,
    Tombstones = 4,
    Vectors = 5,
    Rows = 6,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Manifest, Self::Graph, Self::Lists, Self::Centroids, Self::Tombstones, Self::Vectors, Self::Rows];

    /// How names of such objects begin.
    pub fn word(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Graph => "graph",
            Self::Lists => "lists",
            Self::Centroids => "centroids",
            Self::Tombstones => "tombstones",
            Self::Vectors => "vectors",
            Self::Rows => "rows",
        }
    }

    fn ending(self) -> &'static str {
        if self == Self::Manifest { "cbor" } else { "bin" }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The kind that a name says.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            name.strip_prefix(kind.word()).and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| {
                rest.strip_suffix(kind.ending()).and_then(|digits| digits.strip_suffix('.')).is_some_and(is_half_hash)
            })
        })
    }

    /// Raw bytes, at most.
    pub fn largest_raw(self) -> usize {
        if self == Self::Manifest { LARGEST_MANIFEST } else { LARGEST_RAW }
    }
}

fn is_half_hash(digits: &str) -> bool {
    digits.len() == 32 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// `<kind>-<first 32 hexadecimal digits of the hash of the stored bytes>.bin`; manifests end in `.cbor`.
pub fn object_name(kind: Kind, stored: &Hash) -> String {
    format!("{}-{}.{}", kind.word(), hex(&stored[..16]), kind.ending())
}

/// An object as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// See [`object_name`].
    pub name: String,
    /// For the store only: printable ASCII without spaces.
    pub locator: String,
    /// BLAKE3 of the raw chunk.
    pub content: Hash,
    /// BLAKE3 of the stored bytes.
    pub stored: Hash,
    pub stored_length: u64,
    pub raw_length: u64,
}

impl ObjectRef {
    /// # Errors
    /// [`Error::Damaged`] if this cannot be an object of this kind.
    pub(crate) fn check(&self, kind: Kind) -> Result<()> {
        if self.name != object_name(kind, &self.stored) {
            return Err(Error::damaged(format!("it names \"{}\" where a {} object should be", self.name, kind.word())));
        }
        let printable = self.locator.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || self.locator.is_empty() || self.locator.len() > MAX_LOCATOR {
            return Err(Error::damaged(format!("its place of \"{}\" is none", self.name)));
        }
        let (stored, raw) = (self.stored_length, self.raw_length);
        if stored == 0 || stored > LARGEST_STORED as u64 || raw > kind.largest_raw() as u64 {
            return Err(Error::damaged(format!(
                "\"{}\" would have {stored} bytes, and {raw} when unpacked",
                self.name
            )));
        }
        Ok(())
    }
}

/// Bytes of a locator, at most.
const MAX_LOCATOR: usize = 1024;

/// In a manifest: `[name, locator, content, stored, stored_length, raw_length]`.
type Form = (String, String, Bytes<32>, Bytes<32>, u64, u64);

impl Serialize for ObjectRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Self { name, locator, content, stored, stored_length, raw_length } = self;
        (name, locator, Bytes(*content), Bytes(*stored), stored_length, raw_length).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (name, locator, Bytes(content), Bytes(stored), stored_length, raw_length) =
            Form::deserialize(deserializer)?;
        Ok(Self { name, locator, content, stored, stored_length, raw_length })
    }
}
