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

/// The index's share of a query.
pub struct Work {
    /// Rows in the index.
    pub tuples: f64,
    /// Pages of the index; the planner adds the table's itself.
    pub pages: f64,
    /// Part of the index's rows that meets the conditions on key columns.
    pub share: f64,
    /// Whether there are such conditions.
    pub filtered: bool,
}

pub struct Prices {
    pub random_page: f64,
    pub sequential_page: f64,
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

/// The first row costs a search: `ef` steps that rank the fresh part of `2m` neighbors each, in every segment, never
/// more than ranking everything. A page touch is priced as a small part of a random read, as inner pages of a btree are
/// that stay in memory. Later rows cost the same share of a wider search, up to everything.
///
/// Under a filter the search is as much wider as fewer rows pass, or it reads all elements in sequence, and ranks those
/// that pass: whichever costs less, as the scan itself does it. What segments the filter excludes is not known here.
pub fn estimate(facts: &Facts, work: &Work, prices: &Prices) -> Estimate {
    let (tuples, pages) = (work.tuples.max(1.0), work.pages);
    let share = work.share.clamp(1.0 / tuples, 1.0);
    let per_rank = prices.operator * (1.0 + facts.dimensions as f64 / 256.0);
    let levels = (tuples.ln() / (facts.m as f64).ln()).max(0.0);
    let steps = facts.ef_search as f64 + levels;
    let ranked = (steps * 2.0 * facts.m as f64 * FRESH * facts.segments as f64 / share).min(tuples);
    // Pages of a search that are read and not found in memory: never more than there are, and few of those ranked.
    let read = (ranked / 64.0).min(pages.max(1.0));
    let walk = ranked * per_rank + read * prices.random_page;
    let matches = tuples * share;
    let flat = tuples * prices.operator + matches * per_rank + pages * prices.sequential_page;
    if work.filtered && flat < walk {
        return Estimate { startup: flat, total: flat + matches * prices.index_tuple };
    }
    let done = (ranked / tuples).min(1.0);
    let page = if work.filtered { prices.sequential_page } else { prices.random_page };
    let rest = (matches - ranked * share * done).max(0.0) * (per_rank + prices.index_tuple) + pages * page;
    Estimate { startup: walk, total: walk + rest }
}
