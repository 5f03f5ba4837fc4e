//! `INSERT`: one row into the active segment.

use super::{check_dimensions, check_keys, or_raise};
use crate::pg::buffer::IndexStore;
use crate::pg::relation::Index;
use crate::pg::settings::now;
use ann::hnsw::build::level_of;
use ann::hnsw::insert::NewRow;
use ann::hnsw::probe::{Probe, encode_row};
use ann::index::{self, Meta};
use ann::keys::Row;

/// Indexes a row. Zero vectors are not indexed under cosine distance, which is NaN for them.
pub fn insert(index: Index, vector: &[f32], row: Row) {
    let store = IndexStore::new(index);
    let parameters = or_raise(index, Meta::read(&store)).parameters;
    check_keys(index, &parameters);
    check_dimensions(parameters.dimensions, vector.len());
    let mut code = vec![0; vector.len()];
    let Some((stored, params)) = encode_row(parameters.metric, vector, &mut code) else { return };
    let probe = Probe::new(parameters.metric, &stored);
    let tid = row.tid;
    // Where a row lies in the heap has nothing to do with its vector: it serves as the random number.
    let level = level_of(u64::from(tid.block) << 16 | u64::from(tid.offset), parameters.m);
    let row = NewRow { row, params: &params, code: &code, probe: &probe, level };
    or_raise(index, index::insert(&store, &row, now()));
}
