//! Relinking: the structure of segments apart from their rows, read out for an archive and put to use again.
//!
//! An archive knows rows by [`fingerprint`]s only. What a segment made of it says of vectors, keys and heap TIDs comes
//! from the rows of the table: a wrong structure can cost recall, never truth.

mod gather;
mod graph;
mod links;
mod lists;
mod matching;
mod read;

pub use gather::Gathered;
pub use graph::Mapping;
pub use links::{Links, each_graph_row};
pub use lists::{CentroidCodes, assignment, each_list_row};
pub use matching::{Claimed, Fingerprints};
pub use read::{GraphReader, ListsReader, ReadElement, ReadListed, dead_elements};

use crate::error::{Error, Result};
use crate::keys::Keys;

/// 128 bits that tell a row's vector and keys.
pub type Fingerprint = [u8; 16];

/// Version of the fingerprints: a part of what is hashed.
const FINGERPRINT_VERSION: u8 = 1;

/// The fingerprint of a row: the first 16 bytes of BLAKE3 over version (1 byte), dimensions (u32), values (f32, -0.0 as
/// 0.0), a byte whose bit `i` says that key column `i` is NULL, and eight key values (i64; 0 for NULL and for columns that
/// the index does not have). Numbers are little-endian.
pub fn fingerprint(vector: &[f32], keys: &Keys) -> Fingerprint {
    const VALUES: usize = 256;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = [0; 4 * VALUES];
    bytes[0] = FINGERPRINT_VERSION;
    bytes[1..5].copy_from_slice(&(vector.len() as u32).to_le_bytes());
    hasher.update(&bytes[..5]);
    for values in vector.chunks(VALUES) {
        for (to, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            // -0.0 + 0.0 is 0.0.
            *to = (value + 0.0).to_le_bytes();
        }
        hasher.update(&bytes[..4 * values.len()]);
    }
    hasher.update(&keys.to_bytes());
    let mut fingerprint = [0; 16];
    hasher.finalize_xof().fill(&mut fingerprint);
    fingerprint
}

/// What an archive says of a graph as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphHeader {
    /// Elements; their ordinals are below.
    pub elements: u32,
    /// Most neighbors above level 0; level 0 has twice as many.
    pub m: u16,
    /// Where searches start: an element of the highest level. `None`: any such.
    pub entry: Option<u32>,
}

/// An element of an archived graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphElement {
    /// Highest level, at most [`MAX_LEVEL`](crate::shape::MAX_LEVEL).
    pub level: u8,
    /// Its rows; none if it was dead when it was archived first.
    pub rows: Vec<Fingerprint>,
    /// Ordinals of its neighbors, for each level from 0 to `level`. None at all: not an element, but further rows of the
    /// one before.
    pub neighbors: Vec<Vec<u32>>,
}

/// What an archive says of lists as a whole, but for their centroids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListsHeader {
    /// Elements; their ordinals are below.
    pub elements: u32,
    /// Lists.
    pub lists: u32,
    /// Values of a centroid.
    pub dimensions: u16,
}

/// An element of archived lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListElement {
    /// List of the nearest centroid.
    pub list: u32,
    /// Its other list.
    pub second: Option<u32>,
    /// As in [`GraphElement::rows`].
    pub rows: Vec<Fingerprint>,
    /// Not an element, but further rows of the one before.
    pub further: bool,
}

/// Shows all elements of an archived segment in the order of their ordinals, which it is called with (further rows with
/// that of their element); may be called again. What is wrong with the archive is an [`Error::Structure`].
pub type Source<'a, E> = Box<dyn FnMut(&mut dyn FnMut(u32, E) -> Result<()>) -> Result<()> + 'a>;

/// [`Error::Structure`].
pub(crate) fn unsound(what: impl Into<String>) -> Error {
    Error::Structure(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_what_matters() {
        let keys = |columns: &[Option<i64>]| Keys::new(columns);
        let of = |vector: &[f32], columns: &[Option<i64>]| fingerprint(vector, &keys(columns));
        assert_eq!(of(&[0.0, 1.0], &[]), of(&[-0.0, 1.0], &[]));
        let all = [
            of(&[0.0, 1.0], &[]),
            of(&[1.0, 0.0], &[]),
            of(&[0.0, 1.0, 0.0], &[]),
            of(&[0.0, 1.0], &[None]),
            of(&[0.0, 1.0], &[Some(1)]),
            of(&[0.0, 1.0], &[Some(0), Some(1)]),
            of(&[0.0, 1.0], &[Some(0), None]),
            of(&[0.0, f32::from_bits(1)], &[]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b), "number {i}");
        }
    }

    /// An archive of one release is read by the next.
    #[test]
    fn fingerprints_stay_as_they_are() {
        let mut bytes = vec![1, 3, 0, 0, 0];
        [1.5f32, 0.0, -2.0].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes.push(0b10);
        [7i64, 0, 0, 0, 0, 0, 0, 0].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        let keys = Keys::new(&[Some(7), None]);
        assert_eq!(fingerprint(&[1.5, -0.0, -2.0], &keys), blake3::hash(&bytes).as_bytes()[..16]);
        // Long vectors are hashed in pieces.
        let long: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let mut bytes = vec![1, 0xE8, 3, 0, 0];
        long.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes.extend([0; 65]);
        assert_eq!(fingerprint(&long, &Keys::default()), blake3::hash(&bytes).as_bytes()[..16]);
    }
}
