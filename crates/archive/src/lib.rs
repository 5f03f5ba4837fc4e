//! What an archive is made of: objects that hold the structure of segments and rows of tables, and manifests that name
//! them. Nothing here does I/O or knows PostgreSQL. `docs/archive-format.md` describes every byte.
//!
//! An object is a *raw chunk* (made by the encoders here, about 4 MiB) in a *frame* (compressed, perhaps encrypted; see
//! [`pack`]). Whatever a decoder is given, it answers within time and memory bounded by the length of its input and
//! [`LARGEST_RAW`].

mod bytes;
mod cbor;
mod centroids;
mod crypt;
pub mod error;
mod frame;
pub mod fuzz;
mod graph;
mod lists;
mod manifest;
mod object;
pub mod policy;
mod read;
mod rows;
mod segment;
pub mod table;
mod tombstones;
mod vectors;

pub use centroids::{Centroid, decode_centroids, encode_centroids};
pub use crypt::{Key, KeyId};
pub use error::{Error, Result};
pub use frame::{DEFAULT_LEVEL, Packed, Peeked, pack, pack_with, peek, unpack};
pub use graph::{GraphElement, GraphEncoder, GraphHeader, decode_graph};
pub use lists::{ListElement, ListsEncoder, ListsHeader, decode_lists};
pub use manifest::{
    ArchivedIndex, Identity, MANIFEST_VERSION, Manifest, ManifestKind, RowsChunk, SegmentObjects, Source, Structure,
};
pub use object::{Kind, ObjectRef, object_name};
pub use read::Fetch;
pub use rows::{RowsDecoder, RowsEncoder, RowsText};
pub use tombstones::{decode_tombstones, encode_tombstones};
pub use vectors::{VectorsEncoder, decode_vectors};

/// BLAKE3-256.
pub type Hash = [u8; 32];

/// 128 bits of BLAKE3 over an indexed value and its keys: by this a row is known again.
pub type Fingerprint = [u8; 16];

/// Encoders end a chunk when it has so many bytes.
pub const CHUNK_BYTES: usize = 4 << 20;

/// Raw bytes of an object, at most; a manifest may have [`LARGEST_MANIFEST`].
pub const LARGEST_RAW: usize = 6 << 20;

/// Bytes of a manifest's CBOR, at most.
pub const LARGEST_MANIFEST: usize = 32 << 20;

/// Stored bytes of an object, at most: what every kind of store takes in one request.
pub const LARGEST_STORED: usize = 8 << 20;

/// Rows of one element that [`GraphEncoder::push`] and [`ListsEncoder::push`] take at a time.
pub const ROWS_A_PUSH: usize = 1 << 16;
