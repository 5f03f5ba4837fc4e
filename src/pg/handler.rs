//! The access method's callbacks as PostgreSQL calls them: raw pointers in, calls of `crate::am` with safe types out.

use super::buffer::PageSweep;
use super::key::{KeyColumns, key_type, stored};
use super::relation::{Index, OpenTable, tid_from, tid_into};
use super::varlena::VectorRef;
use super::{planner, reloptions};
use crate::am;
use crate::am::keys::{self, Comparison};
use crate::error::raise;
use ann::keys::{Filter, Row};
use ann::shape::HeapTid;
use pgrx::{PgBox, PgMemoryContexts, PgSqlErrorCode, pg_extern, pg_guard, pg_sys};
use std::{ptr, slice};

#[pg_extern(sql = false)]
fn hybrid_handler(_call: pg_sys::FunctionCallInfo) -> PgBox<pg_sys::IndexAmRoutine> {
    // SAFETY: allocates a node of this type.
    let mut am = unsafe { PgBox::<pg_sys::IndexAmRoutine>::alloc_node(pg_sys::NodeTag::T_IndexAmRoutine) };
    // Strategy 1 of a vector is its distance; 1 to 5 of a key are comparisons.
    am.amstrategies = 5;
    am.amsupport = 1;
    am.amcanorderbyop = true;
    // Queries need no condition on the first column; the cost estimate forbids plans without ORDER BY.
    am.amoptionalkey = true;
    am.amcanmulticol = true;
    am.amsearchnulls = true;
    am.amusemaintenanceworkmem = false;
    am.amparallelvacuumoptions =
        (pg_sys::VACUUM_OPTION_PARALLEL_BULKDEL | pg_sys::VACUUM_OPTION_PARALLEL_CLEANUP) as u8;
    am.amkeytype = pg_sys::InvalidOid;
    am.ambuild = Some(ambuild);
    am.ambuildempty = Some(ambuildempty);
    am.aminsert = Some(aminsert);
    am.ambulkdelete = Some(ambulkdelete);
    am.amvacuumcleanup = Some(amvacuumcleanup);
    am.amcostestimate = Some(planner::amcostestimate);
    am.amoptions = Some(reloptions::parse);
    am.ambuildphasename = Some(ambuildphasename);
    am.amvalidate = Some(super::validate::amvalidate);
    am.ambeginscan = Some(ambeginscan);
    am.amrescan = Some(amrescan);
    am.amgettuple = Some(amgettuple);
    am.amendscan = Some(amendscan);
    am.into_pg_boxed()
}

#[pg_guard]
unsafe extern "C-unwind" fn ambuild(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    // SAFETY: PostgreSQL passes open relations; they stay open while the build runs.
    let (index, table) = unsafe { (Index::from_ptr(index), OpenTable::borrowed(heap)) };
    let built = am::build::build(index, |row| table.build_scan(index, info, row));
    // SAFETY: allocates a zeroed result in the caller's context.
    let mut result = unsafe { PgBox::<pg_sys::IndexBuildResult>::alloc0() };
    result.heap_tuples = built.heap_tuples;
    result.index_tuples = built.index_tuples as f64;
    result.into_pg()
}

#[pg_guard]
unsafe extern "C-unwind" fn ambuildempty(index: pg_sys::Relation) {
    // SAFETY: PostgreSQL passes an open index.
    let index = unsafe { Index::from_ptr(index) };
    index.write_init_fork(&am::build::empty_pages(index));
}

/// The vector of a row; `None` if it is NULL.
///
/// # Safety
/// `values` and `isnull` have a first element, of type `vector`, which outlives `'a`.
unsafe fn vector_of<'a>(values: *mut pg_sys::Datum, isnull: *mut bool) -> Option<VectorRef<'a>> {
    // SAFETY: the caller's promise.
    unsafe { (!*isnull).then(|| VectorRef::from_datum(*values)) }
}

#[allow(clippy::too_many_arguments, reason = "PostgreSQL's signature")]
#[pg_guard]
unsafe extern "C-unwind" fn aminsert(
    index: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    isnull: *mut bool,
    heap_tid: pg_sys::ItemPointer,
    _heap: pg_sys::Relation,
    _check_unique: pg_sys::IndexUniqueCheck::Type,
    _index_unchanged: bool,
    _info: *mut pg_sys::IndexInfo,
) -> bool {
    // SAFETY: PostgreSQL passes an open index, a row of its columns and a valid heap TID.
    unsafe {
        if let Some(vector) = vector_of(values, isnull) {
            let index = Index::from_ptr(index);
            let keys = KeyColumns::of(index).values(values, isnull);
            am::insert::insert(index, vector.as_slice(), Row { tid: tid_from(&*heap_tid), keys });
        }
    }
    // Not a unique index.
    false
}

/// PostgreSQL's question whether a heap TID is dead.
struct DeadCheck {
    callback: pg_sys::IndexBulkDeleteCallback,
    state: *mut std::ffi::c_void,
}

impl DeadCheck {
    fn is_dead(&self, tid: HeapTid) -> bool {
        let (Some(callback), state) = (self.callback, self.state) else { return false };
        let mut pointer = pg_sys::ItemPointerData::default();
        tid_into(tid, &mut pointer);
        // SAFETY: the callback and its state come from the running vacuum; nothing here has a destructor.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| callback(&mut pointer, state)) }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn ambulkdelete(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
    callback: pg_sys::IndexBulkDeleteCallback,
    callback_state: *mut std::ffi::c_void,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: PostgreSQL passes a vacuum's description, and null or what the last call returned.
    unsafe {
        let index = Index::from_ptr((*info).index);
        let check = DeadCheck { callback, state: callback_state };
        let swept = am::vacuum::bulk_delete(index, |tid| check.is_dead(tid), delay);
        let stats = stats_of(stats);
        (*stats).tuples_removed += swept.removed as f64;
        (*stats).num_index_tuples = swept.live as f64;
        (*stats).num_pages = index.block_count();
        (*stats).estimated_count = false;
        stats
    }
}

/// # Safety
/// `stats` is null or a valid result.
unsafe fn stats_of(stats: *mut pg_sys::IndexBulkDeleteResult) -> *mut pg_sys::IndexBulkDeleteResult {
    if !stats.is_null() {
        return stats;
    }
    // SAFETY: allocates a zeroed result in the caller's context.
    unsafe { PgBox::<pg_sys::IndexBulkDeleteResult>::alloc0() }.into_pg()
}

/// Sleeps if vacuum's cost settings say so.
fn delay() {
    // SAFETY: called between pages, without locks.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        pg_sys::vacuum_delay_point();
    }
    // SAFETY: as above.
    #[cfg(feature = "pg18")]
    unsafe {
        pg_sys::vacuum_delay_point(false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn amvacuumcleanup(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: PostgreSQL passes a vacuum's description, and null or what ambulkdelete returned.
    unsafe {
        if (*info).analyze_only {
            return stats;
        }
        let index = Index::from_ptr((*info).index);
        let swept_before = !stats.is_null();
        let stats = stats_of(stats);
        let sweep = PageSweep::new((*info).strategy);
        (*stats).pages_free = am::vacuum::clean_up(index, &sweep, swept_before, delay);
        (*stats).num_pages = index.block_count();
        if !swept_before {
            // Nothing was deleted since: the table's count is as good as ours, and costs nothing.
            (*stats).num_index_tuples = (*info).num_heap_tuples;
            (*stats).estimated_count = true;
        }
        stats
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn ambuildphasename(phase: i64) -> *mut std::ffi::c_char {
    let name = match phase {
        1 => c"initializing",
        2 => c"loading tuples",
        3 => c"linking elements",
        4 => c"writing pages",
        5 => c"writing WAL",
        6 => c"computing lists",
        7 => c"relinking archived segments",
        _ => return ptr::null_mut(),
    };
    // SAFETY: copies a C string into the caller's context.
    unsafe { pg_sys::pstrdup(name.as_ptr()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn ambeginscan(index: pg_sys::Relation, keys: i32, order_bys: i32) -> pg_sys::IndexScanDesc {
    // SAFETY: PostgreSQL passes an open index; the arrays are in the context of the scan, as it is itself.
    unsafe {
        let scan = pg_sys::RelationGetIndexScan(index, keys, order_bys);
        let n = usize::try_from(order_bys).unwrap_or(0);
        (*scan).xs_orderbyvals = pg_sys::palloc0(n.max(1) * size_of::<pg_sys::Datum>()).cast();
        (*scan).xs_orderbynulls = pg_sys::palloc0(n.max(1)).cast();
        let state = am::scan::ScanState::new(Index::from_ptr(index));
        (*scan).opaque = PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(state).cast();
        scan
    }
}

/// # Safety
/// `scan` was made by `ambeginscan` and nobody else uses its state now.
unsafe fn state_of<'a>(scan: pg_sys::IndexScanDesc) -> &'a mut am::scan::ScanState {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*scan).opaque.cast::<am::scan::ScanState>() }
}

#[pg_guard]
unsafe extern "C-unwind" fn amrescan(
    scan: pg_sys::IndexScanDesc,
    keys: pg_sys::ScanKey,
    nkeys: i32,
    order_bys: pg_sys::ScanKey,
    norder_bys: i32,
) {
    // SAFETY: PostgreSQL passes as many keys as it says, and arrays of that size are in the scan.
    unsafe {
        if !keys.is_null() && nkeys > 0 {
            ptr::copy(keys, (*scan).keyData, nkeys as usize);
        }
        if !order_bys.is_null() && norder_bys > 0 {
            ptr::copy(order_bys, (*scan).orderByData, norder_bys as usize);
        }
        if (*scan).numberOfOrderBys != 1 {
            let message = "a hybrid index is searched by exactly one ORDER BY distance";
            raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
        }
        let key = &*(*scan).orderByData;
        let is_null = key.sk_flags & pg_sys::SK_ISNULL as i32 != 0;
        let query = (!is_null).then(|| VectorRef::from_datum(key.sk_argument));
        let keys = match (*scan).numberOfKeys {
            0 => &[],
            n => slice::from_raw_parts((*scan).keyData, n as usize),
        };
        let state = state_of(scan);
        let (filter, recheck) = filter_of(state.index(), keys);
        state.restart(query.as_ref().map(|q| q.as_slice()), filter, recheck);
    }
}

/// What the conditions of a scan are together, and whether the executor must ask them again for each row.
///
/// # Safety
/// The keys are of a scan of this index, whose arguments are of the types that they say.
unsafe fn filter_of(index: Index, scan_keys: &[pg_sys::ScanKeyData]) -> (Filter, bool) {
    let columns = KeyColumns::of(index);
    let (mut filter, mut recheck) = (Filter::none(), false);
    for key in scan_keys {
        let flag = |flag: u32| key.sk_flags & flag as i32 != 0;
        let Some(column) = usize::try_from(key.sk_attno - 2).ok() else {
            // The vector itself: rows without one are not in the index.
            if flag(pg_sys::SK_SEARCHNOTNULL) {
                continue;
            }
            let message = "a hybrid index does not hold rows whose vector is NULL";
            raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
        };
        let of = columns.types()[column];
        let condition = if flag(pg_sys::SK_SEARCHNULL) {
            keys::is_null(column)
        } else if flag(pg_sys::SK_SEARCHNOTNULL) {
            keys::is_not_null(column)
        } else if flag(pg_sys::SK_ISNULL) {
            keys::never(column)
        } else {
            let argument_type = if key.sk_subtype == pg_sys::InvalidOid { Some(of) } else { key_type(key.sk_subtype) };
            let comparison = Comparison::of_strategy(key.sk_strategy);
            let (Some(argument_type), Some(comparison)) = (argument_type, comparison) else {
                let message = format!("operator of strategy {} is not one of a key column", key.sk_strategy);
                raise(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, message)
            };
            let argument = stored(argument_type, key.sk_argument);
            let (condition, again) = keys::condition(column, of, comparison, argument_type, argument);
            recheck |= again;
            condition
        };
        filter.and(condition);
    }
    (filter, recheck)
}

/// Counts a search for EXPLAIN ANALYZE, which shows them from version 18 on.
fn count_search(_scan: &mut pg_sys::IndexScanDescData) {
    #[cfg(feature = "pg18")]
    // SAFETY: PostgreSQL lets it point at the plan node's counters, or nowhere.
    if let Some(counters) = unsafe { _scan.instrument.as_mut() } {
        counters.nsearches += 1;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn amgettuple(scan: pg_sys::IndexScanDesc, direction: pg_sys::ScanDirection::Type) -> bool {
    // SAFETY: PostgreSQL passes a scan made by `ambeginscan`, its snapshot included.
    unsafe {
        if direction != pg_sys::ScanDirection::ForwardScanDirection {
            raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "a hybrid index is scanned forward only");
        }
        let s = &mut *scan;
        let snapshot = (*s.xs_snapshot).snapshot_type;
        // A heap TID may be reused while we hold it: only MVCC snapshots do not see the new row.
        if snapshot != pg_sys::SnapshotType::SNAPSHOT_MVCC && snapshot != pg_sys::SnapshotType::SNAPSHOT_HISTORIC_MVCC {
            raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "a hybrid index is scanned with MVCC snapshots only");
        }
        let state = state_of(scan);
        if !state.is_running() {
            count_search(s);
        }
        let Some(row) = state.next() else { return false };
        tid_into(row.tid, &mut s.xs_heaptid);
        s.xs_recheck = state.must_recheck();
        match row.distance {
            am::scan::Distance::AtLeast(bound) => {
                *s.xs_orderbyvals = pgrx::IntoDatum::into_datum(bound).unwrap_or(pg_sys::Datum::from(0));
                *s.xs_orderbynulls = false;
                s.xs_recheckorderby = true;
            }
            am::scan::Distance::NotANumber => {
                *s.xs_orderbyvals = pgrx::IntoDatum::into_datum(f64::NAN).unwrap_or(pg_sys::Datum::from(0));
                *s.xs_orderbynulls = false;
                s.xs_recheckorderby = false;
            }
            am::scan::Distance::Null => {
                *s.xs_orderbyvals = pg_sys::Datum::from(0);
                *s.xs_orderbynulls = true;
                s.xs_recheckorderby = false;
            }
        }
        true
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn amendscan(scan: pg_sys::IndexScanDesc) {
    // SAFETY: PostgreSQL passes a scan made by `ambeginscan`; the state itself goes with its context.
    unsafe { state_of(scan).finish() }
}
