//! Cost of a search: what the first row takes, and what each further one adds.

use crate::guc;
use crate::pg::buffer::IndexStore;
use crate::pg::reloptions::Options;
use ann::index::Directory;

/// What the estimate needs of an index.
pub struct Facts {
    pub ef_search: usize,
    pub m: usize,
    pub segments: usize,
    pub dimensions: usize,
}

pub struct Prices {
    pub random_page: f64,
    pub operator: f64,
    pub index_tuple: f64,
}

pub struct Estimate {
    pub startup: f64,
    pub total: f64,
}

/// Reads the facts. An index that cannot be read is costed as an empty one; the scan will say what is wrong.
pub fn facts(store: &IndexStore) -> Facts {
    let options = Options::of(store.index());
    let ef_search = guc::ef_search(options.ef_search);
    match Directory::read(store) {
        Ok((meta, directory)) => Facts {
            ef_search,
            m: meta.parameters.m,
            segments: directory.segments.len(),
            dimensions: meta.parameters.dimensions,
        },
        Err(_) => Facts { ef_search, m: options.m, segments: 1, dimensions: 1 },
    }
}

/// Part of the elements' neighbors that a search has not met before.
const FRESH: f64 = 0.55;

/// `tuples` and `pages` are the index's; the planner adds the table's pages itself.
///
/// The first row costs a search: `ef` steps that rank the fresh part of `2m` neighbors each, in every segment, never
/// more than ranking everything. A page touch is priced as a small part of a random read, as inner pages of a btree are
/// that stay in memory. Later rows cost the same share of a wider search, up to everything.
pub fn estimate(facts: &Facts, tuples: f64, pages: f64, prices: &Prices) -> Estimate {
    let tuples = tuples.max(1.0);
    let per_rank = prices.operator * (1.0 + facts.dimensions as f64 / 256.0);
    let levels = (tuples.ln() / (facts.m as f64).ln()).max(0.0);
    let steps = facts.ef_search as f64 + levels;
    let ranked = (steps * 2.0 * facts.m as f64 * FRESH * facts.segments as f64).min(tuples);
    // Pages of a search that are read and not found in memory: never more than there are, and few of those ranked.
    let read = (ranked / 64.0).min(pages.max(1.0));
    let startup = ranked * per_rank + read * prices.random_page;
    let share = (ranked / tuples).min(1.0);
    let rest = (tuples - ranked * share).max(0.0) * (per_rank + prices.index_tuple) + pages * prices.random_page;
    Estimate { startup, total: startup + rest }
}
