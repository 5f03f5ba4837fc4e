//! Which archived element a row of the table is, by its fingerprint.

use super::Fingerprint;
use crate::error::{Error, Result};
use crate::hnsw::build::Node;
use crate::page::NONE;
use hashbrown::HashMap;

/// A row of an archived segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    fingerprint: Fingerprint,
    segment: u32,
    ordinal: u32,
}

/// Archived rows by fingerprint: a multiset, so of equal rows each is claimed once. Takes 28 bytes a row, and a little
/// more for fingerprints that several rows have.
#[derive(Default)]
pub struct Fingerprints {
    entries: Vec<Entry>,
    /// Which of the table's rows claimed each; [`NONE`]: nobody.
    claims: Vec<Node>,
    /// By the first of several entries with equal fingerprints: how many of them are claimed.
    taken: HashMap<u32, u32>,
}

/// A row of the table that is a row of an archived element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimed {
    /// Number of the segment.
    pub segment: u32,
    /// Number of the element in it.
    pub ordinal: u32,
    /// What [`Fingerprints::claim`] was told.
    pub node: Node,
}

impl Fingerprints {
    /// Bytes that a row takes.
    pub const ROW_BYTES: usize = size_of::<Entry>() + size_of::<Node>();

    /// Adds a row of an archived element.
    ///
    /// # Errors
    /// [`Error::Limit`] where there is no memory for it.
    pub fn add(&mut self, segment: u32, ordinal: u32, fingerprint: Fingerprint) -> Result<()> {
        if self.entries.len() == self.entries.capacity() {
            let more = (self.entries.len() / 2).max(1024);
            let reserved = self.entries.try_reserve_exact(more);
            reserved.map_err(|_| Error::Limit("not enough memory for the fingerprints of an archive".into()))?;
        }
        if self.entries.len() == NONE as usize {
            return Err(Error::Limit("an archive has more rows than an index can".into()));
        }
        self.entries.push(Entry { fingerprint, segment, ordinal });
        Ok(())
    }

    /// Gets ready for [`Self::claim`]; nothing is added any more.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sort(&mut self) -> Result<()> {
        self.entries.sort_unstable();
        let reserved = self.claims.try_reserve_exact(self.entries.len());
        reserved.map_err(|_| Error::Limit("not enough memory for the fingerprints of an archive".into()))?;
        self.claims.resize(self.entries.len(), NONE);
        Ok(())
    }

    /// Rows that were added.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives a row of the table to an archived row with this fingerprint that nobody has yet; whether there is one. `node`
    /// is not [`NONE`].
    pub fn claim(&mut self, fingerprint: &Fingerprint, node: Node) -> bool {
        let first = self.entries.partition_point(|entry| entry.fingerprint < *fingerprint);
        let is_same = |i: usize| self.entries.get(i).is_some_and(|entry| entry.fingerprint == *fingerprint);
        if !is_same(first) {
            return false;
        }
        let mut at = first;
        if self.claims[first] != NONE {
            let taken = self.taken.get(&(first as u32)).copied().unwrap_or(1);
            at += taken as usize;
            if !is_same(at) {
                return false;
            }
            self.taken.insert(first as u32, taken + 1);
        }
        self.claims[at] = node;
        true
    }

    /// What was claimed, by segment, ordinal and node.
    pub fn finish(self) -> Vec<Claimed> {
        let claims = self.entries.iter().zip(&self.claims).filter(|(_, node)| **node != NONE);
        let claimed = claims.map(|(e, &node)| Claimed { segment: e.segment, ordinal: e.ordinal, node });
        let mut claimed: Vec<Claimed> = claimed.collect();
        claimed.sort_unstable();
        claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_rows_each_is_claimed_once() {
        let mut table = Fingerprints::default();
        for (segment, ordinal, byte) in [(1, 7, 5), (0, 3, 5), (0, 9, 5), (0, 1, 200), (1, 1, 0)] {
            table.add(segment, ordinal, [byte; 16]).expect("room");
        }
        table.sort().expect("room");
        let claims = [(5, true), (5, true), (9, false), (5, true), (5, false), (0, true), (0, false), (255, false)];
        for (node, (byte, found)) in (10..).zip(claims) {
            assert_eq!(table.claim(&[byte; 16], node), found, "row {node}");
        }
        let claimed = |segment, ordinal, node| Claimed { segment, ordinal, node };
        assert_eq!(table.finish(), [claimed(0, 3, 10), claimed(0, 9, 11), claimed(1, 1, 15), claimed(1, 7, 13)]);
    }

    #[test]
    fn nothing_is_claimed_of_nothing() {
        let mut table = Fingerprints::default();
        table.sort().expect("room");
        assert!(!table.claim(&[0; 16], 0));
        assert!(table.finish().is_empty());
    }
}
