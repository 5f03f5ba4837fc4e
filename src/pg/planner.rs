//! What a plan with a hybrid index costs.

use super::buffer::IndexStore;
use super::relation::Index;
use crate::am;
use pgrx::{PgList, pg_guard, pg_sys};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

/// Whether the executor still knows the TID of a row after it put rows in order of distance.
///
/// Releases before November 2026 (15.18, 17.11 and 18.6 are known) forget it: `ctid` is wrong, and `FOR UPDATE` adds a
/// damaged page to the table. The executor's own function is asked, so that no list of releases is needed.
fn executor_keeps_tids() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // SAFETY: stores a tuple of no columns in a slot of its kind, looks at the slot's TID, and frees both.
    *ANSWER.get_or_init(|| unsafe {
        let desc = pg_sys::CreateTemplateTupleDesc(0);
        let tuple = pg_sys::heap_form_tuple(desc, ptr::null_mut(), ptr::null_mut());
        (*tuple).t_self.ip_posid = 1;
        let slot = pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsBufferHeapTuple);
        pg_sys::ExecForceStoreHeapTuple(tuple, slot, false);
        let kept = (*slot).tts_tid.ip_posid == 1;
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::heap_freetuple(tuple);
        pg_sys::FreeTupleDesc(desc);
        kept
    })
}

/// Whether a query wants the TIDs of a table's rows: `ctid`, or row locks.
///
/// # Safety
/// `table` is being planned.
unsafe fn wants_tids(table: *mut pg_sys::RelOptInfo) -> bool {
    let mut attributes = ptr::null_mut();
    // SAFETY: the planner's lists of a table's wanted expressions and of its conditions, which are RestrictInfo nodes.
    unsafe {
        pg_sys::pull_varattnos((*(*table).reltarget).exprs.cast(), (*table).relid, &mut attributes);
        for condition in PgList::<pg_sys::RestrictInfo>::from_pg((*table).baserestrictinfo).iter_ptr() {
            pg_sys::pull_varattnos((*condition).clause.cast(), (*table).relid, &mut attributes);
        }
        let tid = pg_sys::SelfItemPointerAttributeNumber - pg_sys::FirstLowInvalidHeapAttributeNumber;
        pg_sys::bms_is_member(tid, attributes)
    }
}

/// Whether a path has a condition that the index cannot answer: it holds no rows whose vector is NULL.
///
/// # Safety
/// `path` is an index path.
unsafe fn asks_for_null_vectors(path: *mut pg_sys::IndexPath) -> bool {
    // SAFETY: the list has IndexClause nodes, each with the condition that it was made of.
    unsafe {
        PgList::<pg_sys::IndexClause>::from_pg((*path).indexclauses).iter_ptr().any(|clause| {
            let node = (*(*clause).rinfo).clause.cast::<pg_sys::Node>();
            (*clause).indexcol == 0
                && (*node).type_ == pg_sys::NodeTag::T_NullTest
                && (*node.cast::<pg_sys::NullTest>()).nulltesttype == pg_sys::NullTestType::IS_NULL
        })
    }
}

/// Cost of a plan that must not be. Not infinity: joins subtract costs from each other, and infinity less infinity is not
/// a number, which compares with nothing.
const FORBIDDEN: f64 = 1e100;

#[allow(clippy::too_many_arguments, reason = "PostgreSQL's signature")]
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amcostestimate(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loop_count: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: PostgreSQL passes a path of one of our indexes and places for the results.
    unsafe {
        let index_info = &*(*path).indexinfo;
        let order_bys = (*path).indexorderbys;
        *correlation = 0.0;
        let ordered = !order_bys.is_null() && (*order_bys).length == 1;
        let unfit = !ordered || asks_for_null_vectors(path);
        if unfit || wants_tids((*path).path.parent) && !executor_keeps_tids() {
            // Without ORDER BY, rows whose vector is NULL would be missing; by two, the order would be wrong.
            *startup = FORBIDDEN;
            *total = FORBIDDEN;
            *selectivity = 0.0;
            *pages = 0.0;
            #[cfg(feature = "pg18")]
            {
                (*path).path.disabled_nodes = 2;
            }
            return;
        }
        let mut generic = MaybeUninit::<pg_sys::GenericCosts>::zeroed().assume_init();
        pg_sys::genericcostestimate(root, path, loop_count, &mut generic);
        let relation = pg_sys::index_open(index_info.indexoid, pg_sys::NoLock as i32);
        let facts = am::cost::facts(&IndexStore::new(Index::from_ptr(relation)));
        pg_sys::index_close(relation, pg_sys::NoLock as i32);
        let (mut random_page, mut sequential_page) = (0.0, 0.0);
        pg_sys::get_tablespace_page_costs(index_info.reltablespace, &mut random_page, &mut sequential_page);
        let prices = am::cost::Prices {
            random_page,
            sequential_page,
            operator: pg_sys::cpu_operator_cost,
            index_tuple: pg_sys::cpu_index_tuple_cost,
        };
        let work = am::cost::Work {
            tuples: index_info.tuples,
            pages: f64::from(index_info.pages),
            share: generic.numIndexTuples / index_info.tuples.max(1.0),
            filtered: PgList::<pg_sys::IndexClause>::from_pg((*path).indexclauses)
                .iter_ptr()
                .any(|clause| (*clause).indexcol > 0),
        };
        let estimate = am::cost::estimate(&facts, &work, &prices);
        *startup = estimate.startup;
        *total = estimate.total;
        *selectivity = generic.indexSelectivity;
        *pages = generic.numIndexPages;
    }
}
