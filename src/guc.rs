//! Settings.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static EF_SEARCH: GucSetting<i32> = GucSetting::<i32>::new(0);
static PROBES: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_SCAN_TUPLES: GucSetting<i32> = GucSetting::<i32>::new(0);

/// Width of a search where neither the session nor the index says.
const DEFAULT_EF_SEARCH: usize = 40;

pub(crate) fn register() {
    GucRegistry::define_int_guc(
        c"hybrid.ef_search",
        c"Width of the search in HNSW segments.",
        c"More finds more and takes longer. 0 means the index's own value, else 40.",
        &EF_SEARCH,
        0,
        10_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"hybrid.probes",
        c"Lists of old partitions that a search reads.",
        c"More finds more and takes longer. 0 means the index's own value, else by the number of lists.",
        &PROBES,
        0,
        1_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"hybrid.max_scan_tuples",
        c"Rows after which a filtered scan gives up looking.",
        c"0 means never.",
        &MAX_SCAN_TUPLES,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    crate::pg::settings::reserve_prefix(c"hybrid");
}

/// The width in force, given that of the index (0 = none).
pub(crate) fn ef_search(of_index: usize) -> usize {
    match (EF_SEARCH.get(), of_index) {
        (0, 0) => DEFAULT_EF_SEARCH,
        (0, of_index) => of_index,
        (session, _) => session as usize,
    }
}

/// Lists to read, given those of the index; 0 = by their number.
pub(crate) fn probes(of_index: usize) -> usize {
    match PROBES.get() {
        0 => of_index,
        session => session as usize,
    }
}

/// Rows after which a scan ends; 0 = never.
pub(crate) fn max_scan_tuples() -> u64 {
    MAX_SCAN_TUPLES.get() as u64
}
