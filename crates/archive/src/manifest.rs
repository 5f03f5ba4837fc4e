//! Manifests: what an archive is of, and which objects it is made of.

use crate::bytes::{fixed, fixed_or_null};
use crate::crypt::{Key, KeyId};
use crate::error::{Error, Result};
use crate::frame::{Packed, open, pack};
use crate::graph::GraphHeader;
use crate::lists::ListsHeader;
use crate::object::{Kind, ObjectRef};
use crate::{LARGEST_MANIFEST, cbor, table};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// The version that this release writes, and the newest that it reads.
pub const MANIFEST_VERSION: u32 = 1;

/// What an archive is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestKind {
    /// One index.
    Export,
    /// A table: its rows, its description, its indexes.
    Backup,
}

/// Whose archive it is: nobody else may prune it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Of the cluster, as in its control file.
    pub system_identifier: u64,
    pub timeline: u32,
    /// Drawn for the database at its first export.
    #[serde(with = "fixed")]
    pub set: [u8; 16],
}

/// What was archived, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub database: String,
    pub schema: String,
    pub table: String,
    /// Of an export.
    pub index: Option<String>,
}

/// How a segment is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Structure {
    Graph(GraphHeader),
    Lists(ListsHeader),
}

impl Structure {
    /// Elements of the segment.
    pub fn elements(&self) -> u32 {
        match self {
            Self::Graph(header) => header.elements,
            Self::Lists(header) => header.elements,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Graph(_) => Kind::Graph,
            Self::Lists(_) => Kind::Lists,
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Graph(header) => header.check(),
            Self::Lists(header) => header.check(),
        }
    }
}

/// The objects of a segment, each kind in the order of its chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentObjects {
    pub structure: Structure,
    /// Tells the segment from all others of all indexes everywhere, if it does not change any more: one that comes again
    /// is not read again.
    #[serde(with = "fixed_or_null")]
    pub origin: Option<[u8; 16]>,
    /// When it was made, in microseconds since 2000-01-01 UTC.
    pub created: i64,
    /// Fingerprints in `objects`.
    pub rows: u64,
    /// Graph or lists chunks.
    pub objects: Vec<ObjectRef>,
    /// Of lists.
    pub centroids: Vec<ObjectRef>,
    /// Elements of which no row lived when the archive was made; a hint.
    pub tombstones: Vec<ObjectRef>,
    /// Of all rows, if they were asked for.
    pub vectors: Vec<ObjectRef>,
}

impl SegmentObjects {
    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = &ObjectRef> {
        self.parts().into_iter().flat_map(|(_, objects)| objects)
    }

    fn parts(&self) -> [(Kind, &[ObjectRef]); 4] {
        [
            (self.structure.kind(), &self.objects),
            (Kind::Centroids, &self.centroids),
            (Kind::Tombstones, &self.tombstones),
            (Kind::Vectors, &self.vectors),
        ]
    }

    fn check(&self) -> Result<()> {
        self.structure.check()?;
        if self.objects.is_empty() != (self.structure.elements() == 0) {
            return Err(Error::damaged("a segment has elements and no objects, or objects and no elements"));
        }
        let lists = matches!(self.structure, Structure::Lists(header) if header.lists > 0);
        if self.centroids.is_empty() == lists {
            return Err(Error::damaged("a segment has lists and no centroids, or centroids and no lists"));
        }
        self.parts().iter().try_for_each(|(kind, objects)| objects.iter().try_for_each(|object| object.check(*kind)))
    }
}

/// An index of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedIndex {
    pub definition: table::Index,
    pub segments: Vec<SegmentObjects>,
}

/// Rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsChunk {
    pub object: ObjectRef,
    /// Lines that end in it.
    pub rows: u64,
    /// First and last block of the table that its rows came from. For people: rows are loaded by their text alone.
    pub blocks: (u32, u32),
}

/// In a manifest: `[object, rows, first block, last block]`.
impl Serialize for RowsChunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (&self.object, self.rows, self.blocks.0, self.blocks.1).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RowsChunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (object, rows, first, last) = Deserialize::deserialize(deserializer)?;
        Ok(Self { object, rows, blocks: (first, last) })
    }
}

/// An archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    pub kind: ManifestKind,
    /// Microseconds since 2000-01-01 UTC.
    pub created: i64,
    pub identity: Identity,
    pub source: Source,
    /// Of the release that wrote it.
    pub extension_version: String,
    /// One of an export; any number of a backup.
    pub indexes: Vec<ArchivedIndex>,
    /// Of a backup.
    pub table: Option<table::Table>,
    /// Of a backup, in order.
    pub rows: Vec<RowsChunk>,
    /// What the table has and the archive does not carry, one line each, for people.
    pub not_carried: Vec<String>,
    pub tags: BTreeMap<String, String>,
    /// Locator of the manifest of the archive that this one follows.
    pub parent: Option<String>,
    /// The key that all objects are encrypted with, and the manifest itself.
    #[serde(with = "fixed_or_null")]
    pub encryption: Option<KeyId>,
}

/// What manifests of every version have.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

impl Manifest {
    /// The one form of the manifest in CBOR.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it is no manifest, [`Error::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check().map_err(Error::into_unfit)?;
        let encoded = cbor::encode(self)?;
        if encoded.len() > LARGEST_MANIFEST {
            let (size, limit) = (encoded.len() as u64, LARGEST_MANIFEST as u64);
            return Err(Error::TooLarge { what: "the manifest".into(), size, limit });
        }
        Ok(encoded)
    }

    /// Takes what [`Self::encode`] makes and nothing else.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > LARGEST_MANIFEST {
            return Err(Error::damaged(format!(
                "it has {} bytes; a manifest has at most {LARGEST_MANIFEST}",
                bytes.len()
            )));
        }
        cbor::check(bytes)?;
        let Version { version } = cbor::parse(bytes)?;
        if version > u64::from(MANIFEST_VERSION) {
            return Err(Error::Newer { object: String::new(), version });
        }
        let manifest: Self = cbor::decode(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as it is stored, encrypted with the key that it names.
    ///
    /// # Errors
    /// As [`Self::encode`]; [`Error::Key`] if `key` is not the one that it names.
    pub fn pack(&self, key: Option<&Key>) -> Result<Packed> {
        self.check_key(key)?;
        pack(Kind::Manifest, &self.encode()?, key)
    }

    /// The manifest that is stored as `bytes`; `name` is what messages call it.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Key`], [`Error::Newer`], each naming it.
    pub fn unpack(name: &str, bytes: &[u8], key: Option<&Key>) -> Result<Self> {
        let read = || {
            let manifest = Self::decode(&open(bytes, Kind::Manifest, key)?)?;
            manifest.check_key(key)?;
            Ok(manifest)
        };
        read().map_err(|error: Error| error.of(name))
    }

    fn check_key(&self, key: Option<&Key>) -> Result<()> {
        if self.encryption == key.map(Key::id) {
            return Ok(());
        }
        Err(Error::Key { object: String::new(), what: "it names another key than it is encrypted with".into() })
    }

    /// All objects, the manifest aside, in the order in which it names them.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        let segments = self.indexes.iter().flat_map(|index| &index.segments);
        segments.flat_map(SegmentObjects::all).chain(self.rows.iter().map(|chunk| &chunk.object))
    }

    /// As [`Self::objects`], to write locators into.
    pub fn objects_mut(&mut self) -> impl Iterator<Item = &mut ObjectRef> {
        let segments = self.indexes.iter_mut().flat_map(|index| &mut index.segments);
        segments
            .flat_map(|SegmentObjects { objects, centroids, tombstones, vectors, .. }| {
                objects.iter_mut().chain(centroids).chain(tombstones).chain(vectors)
            })
            .chain(self.rows.iter_mut().map(|chunk| &mut chunk.object))
    }

    fn check(&self) -> Result<()> {
        if self.version != MANIFEST_VERSION {
            return Err(Error::damaged(format!("its version is {}", self.version)));
        }
        let whole = match self.kind {
            ManifestKind::Export => self.indexes.len() == 1 && self.source.index.is_some() && self.rows.is_empty(),
            ManifestKind::Backup => self.table.is_some() && self.source.index.is_none(),
        };
        if !whole {
            return Err(Error::damaged("it has not the parts that an archive of its kind has"));
        }
        let invalid = |error: table::Invalid| Error::damaged(error.to_string());
        self.table.iter().try_for_each(|table| table.check().map_err(invalid))?;
        for index in &self.indexes {
            index.definition.check().map_err(invalid)?;
            index.segments.iter().try_for_each(SegmentObjects::check)?;
        }
        self.rows.iter().try_for_each(|chunk| chunk.object.check(Kind::Rows))
    }
}
