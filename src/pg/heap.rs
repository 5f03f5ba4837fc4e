//! Rows of a table by the TIDs that an index has them under.

use super::key::KeyColumns;
use super::relation::{Index, OpenTable, tid_into};
use super::varlena::VectorRef;
use ann::keys::Keys;
use ann::shape::HeapTid;
use pgrx::pg_sys;

/// Most columns of an index that FormIndexDatum fills.
const COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// Reads rows as the snapshot that was active when it was made sees them, and computes what the index has of them.
pub struct RowReader<'a> {
    _table: &'a OpenTable,
    info: *mut pg_sys::IndexInfo,
    estate: *mut pg_sys::EState,
    slot: *mut pg_sys::TupleTableSlot,
    fetch: *mut pg_sys::IndexFetchTableData,
    snapshot: pg_sys::Snapshot,
    keys: KeyColumns,
}

impl<'a> RowReader<'a> {
    /// For the rows of this index, which is one of this table.
    pub fn new(table: &'a OpenTable, index: Index) -> Self {
        // SAFETY: both relations are open. The snapshot is registered, so it lives until it is unregistered in `drop`, or until an
        // abort. What is made here lives in the transaction's memory at most and is given back in `drop`.
        unsafe {
            let relation = table.as_ptr();
            let estate = pg_sys::CreateExecutorState();
            let slot = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, pg_sys::table_slot_callbacks(relation));
            let context = pg_sys::MakePerTupleExprContext(estate);
            (*context).ecxt_scantuple = slot;
            let begin = (*(*relation).rd_tableam).index_fetch_begin.expect("a table access method has it");
            Self {
                _table: table,
                info: pg_sys::BuildIndexInfo(index.as_ptr()),
                estate,
                slot,
                fetch: begin(relation),
                snapshot: pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot()),
                keys: KeyColumns::of(index),
            }
        }
    }

    /// Calls `each` with the place in `tids`, the vector and the keys of every row that the snapshot sees, block by block. No page is
    /// locked meanwhile; one of the table is pinned.
    pub fn each(&mut self, tids: &[HeapTid], mut each: impl FnMut(usize, &[f32], &Keys)) {
        let mut order: Vec<usize> = (0..tids.len()).collect();
        order.sort_unstable_by_key(|&i| (tids[i].block, tids[i].offset));
        for i in order {
            pgrx::check_for_interrupts!();
            // SAFETY: the table is open and the scan over it begun; TIDs of an index of the table lead to rows of the table, which
            // cannot become other rows while the snapshot is registered, as VACUUM keeps what it may see.
            unsafe { self.one(tids[i], |vector, keys| each(i, vector, keys)) };
        }
        // SAFETY: as above; lets the last page go.
        unsafe {
            self.end_tuple();
            let reset = (*(*(*self.fetch).rel).rd_tableam).index_fetch_reset.expect("a table access method has it");
            reset(self.fetch);
        }
    }

    /// # Safety
    /// See [`Self::each`].
    unsafe fn one(&mut self, tid: HeapTid, see: impl FnOnce(&[f32], &Keys)) {
        let mut pointer = pg_sys::ItemPointerData::default();
        tid_into(tid, &mut pointer);
        let (mut call_again, mut all_dead) = (false, false);
        // SAFETY: the caller's promise; `values` and `isnull` have room for all columns that an index may have.
        unsafe {
            let fetch = (*(*(*self.fetch).rel).rd_tableam).index_fetch_tuple.expect("a table access method has it");
            if !fetch(self.fetch, &mut pointer, self.snapshot, self.slot, &mut call_again, &mut all_dead) {
                return;
            }
            let context = (*self.estate).es_per_tuple_exprcontext;
            let old = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            let (mut values, mut isnull) = ([pg_sys::Datum::null(); COLUMNS], [true; COLUMNS]);
            pg_sys::FormIndexDatum(self.info, self.slot, self.estate, values.as_mut_ptr(), isnull.as_mut_ptr());
            if !isnull[0] {
                let vector = VectorRef::from_datum(values[0]);
                see(vector.as_slice(), &self.keys.values(values.as_ptr(), isnull.as_ptr()));
            }
            pg_sys::MemoryContextSwitchTo(old);
            self.end_tuple();
        }
    }

    /// # Safety
    /// Nothing of the row is used any more.
    unsafe fn end_tuple(&mut self) {
        // SAFETY: the caller's promise; the slot and the context are ours.
        unsafe {
            let context = (*self.estate).es_per_tuple_exprcontext;
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            if let Some(clear) = (*(*self.slot).tts_ops).clear {
                clear(self.slot);
            }
        }
    }
}

impl Drop for RowReader<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The abort gives everything back.
            return;
        }
        // SAFETY: made in `new`, each given back once.
        unsafe {
            let end = (*(*(*self.fetch).rel).rd_tableam).index_fetch_end.expect("a table access method has it");
            end(self.fetch);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::UnregisterSnapshot(self.snapshot);
        }
    }
}
