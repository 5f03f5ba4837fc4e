//! Fingerprints of rows that an index points to: what an export writes of them.

use crate::pg::fetch::RowFetch;
use crate::pg::relation::{Index, OpenTable};
use ann::relink::{Fingerprint, fingerprint};
use ann::shape::HeapTid;

/// Fingerprints of the rows under these TIDs of the index, in their order; `None` where a snapshot taken now sees no row.
/// `see` is shown each vector with its place in `tids`. The table is read in the order of its blocks. Expressions of the
/// index are evaluated as the table's owner.
pub fn of_rows(
    index: Index,
    table: &OpenTable,
    tids: &[HeapTid],
    mut see: impl FnMut(usize, &[f32]),
) -> Vec<Option<Fingerprint>> {
    let mut order: Vec<usize> = (0..tids.len()).collect();
    order.sort_unstable_by_key(|&i| tids[i]);
    let mut found = vec![None; tids.len()];
    table.as_owner(|| {
        let mut rows = RowFetch::new(table, index);
        for i in order {
            found[i] = rows.fetch(tids[i], |vector, keys| {
                see(i, vector);
                fingerprint(vector, keys)
            });
        }
    });
    found
}
