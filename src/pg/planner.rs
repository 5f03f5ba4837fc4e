//! What a plan with a hybrid index costs.

use super::buffer::IndexStore;
use super::relation::Index;
use crate::am;
use pgrx::{pg_guard, pg_sys};
use std::mem::MaybeUninit;

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
        if order_bys.is_null() || (*order_bys).length != 1 {
            // Without ORDER BY, rows whose vector is NULL would be missing; by two, the order would be wrong.
            *startup = f64::INFINITY;
            *total = f64::INFINITY;
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
        let costs = am::cost::Prices {
            random_page: generic.spc_random_page_cost,
            operator: pg_sys::cpu_operator_cost,
            index_tuple: pg_sys::cpu_index_tuple_cost,
        };
        let estimate = am::cost::estimate(&facts, index_info.tuples, f64::from(index_info.pages), &costs);
        *startup = estimate.startup;
        *total = estimate.total;
        *selectivity = 1.0;
        *pages = generic.numIndexPages;
    }
}
