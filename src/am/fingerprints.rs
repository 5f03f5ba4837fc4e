//! Fingerprints of rows that an index points to: what an export writes of them.

use super::pipeline::{LOT_BYTES, Pipeline};
use crate::pg::fetch::RowFetch;
use crate::pg::relation::{Index, OpenTable};
use crate::pg::thread::Pool;
use ann::keys::Keys;
use ann::relink::{Fingerprint, fingerprint};
use ann::shape::HeapTid;

/// Rows as they were read, with their places among those asked for.
struct Lot {
    vectors: Vec<f32>,
    rows: Vec<(usize, Keys)>,
}

impl Lot {
    fn new(dimensions: usize) -> Self {
        Self { vectors: Vec::with_capacity(LOT_BYTES / size_of::<f32>() + dimensions), rows: Vec::new() }
    }

    fn is_full(&self) -> bool {
        size_of_val(&self.vectors[..]) >= LOT_BYTES
    }

    fn fingerprints(self) -> Vec<(usize, Fingerprint)> {
        let dimensions = self.vectors.len() / self.rows.len().max(1);
        let vectors = self.vectors.chunks_exact(dimensions.max(1));
        self.rows.iter().zip(vectors).map(|((at, keys), vector)| (*at, fingerprint(vector, keys))).collect()
    }
}

/// Fingerprints that are being computed.
pub struct Hashing {
    found: Vec<Option<Fingerprint>>,
    pipeline: Pipeline<Lot, Vec<(usize, Fingerprint)>>,
}

impl Hashing {
    /// Reads the rows under these TIDs of the index in the order of the table's blocks, and has the threads of `pool` hash
    /// them. `see` is shown each vector with its place in `tids`. Expressions of the index are evaluated as the table's
    /// owner. All vectors are kept until they are hashed.
    pub fn begin(
        index: Index,
        table: &OpenTable,
        tids: &[HeapTid],
        pool: &Pool,
        mut see: impl FnMut(usize, &[f32]),
    ) -> Self {
        let mut order: Vec<usize> = (0..tids.len()).collect();
        order.sort_unstable_by_key(|&i| tids[i]);
        let mut this = Self { found: vec![None; tids.len()], pipeline: Pipeline::new(Lot::fingerprints, usize::MAX) };
        let mut lot = Lot::new(0);
        table.as_owner(|| {
            let mut rows = RowFetch::new(table, index);
            for i in order {
                rows.fetch(tids[i], |vector, keys| {
                    see(i, vector);
                    lot.vectors.extend_from_slice(vector);
                    lot.rows.push((i, *keys));
                });
                if lot.is_full() {
                    let next = Lot::new(lot.vectors.len() / lot.rows.len());
                    let hashed = this.pipeline.put(pool, std::mem::replace(&mut lot, next));
                    this.keep(hashed);
                }
            }
        });
        let hashed = this.pipeline.put(pool, lot);
        this.keep(hashed);
        this
    }

    fn keep(&mut self, hashed: Option<Vec<(usize, Fingerprint)>>) {
        hashed.into_iter().flatten().for_each(|(at, fingerprint)| self.found[at] = Some(fingerprint));
    }

    /// The fingerprints in the order of the TIDs; `None` where a snapshot taken at the beginning saw no row.
    pub fn finish(mut self) -> Vec<Option<Fingerprint>> {
        while let Some(hashed) = self.pipeline.next() {
            self.keep(Some(hashed));
        }
        self.found
    }
}
