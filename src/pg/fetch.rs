//! Rows of a table by the heap TIDs that an index has them under.

use super::key::KeyColumns;
use super::relation::{Index, OpenTable, tid_into};
use super::varlena::VectorRef;
use ann::keys::Keys;
use ann::shape::HeapTid;
use pgrx::pg_sys;

/// Columns that an index of ours has at most: the vector and its keys are checked to be fewer.
const MAX_COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// Fetches rows that a snapshot of its own sees, taken when this is made. Index expressions are evaluated: the caller is the table's owner then, by
/// [`OpenTable::as_owner`].
pub struct RowFetch<'a> {
    table: &'a OpenTable,
    keys: KeyColumns,
    info: *mut pg_sys::IndexInfo,
    estate: *mut pg_sys::EState,
    slot: *mut pg_sys::TupleTableSlot,
    fetch: *mut pg_sys::IndexFetchTableData,
    snapshot: pg_sys::Snapshot,
}

impl<'a> RowFetch<'a> {
    /// For the rows of `table`, which `index` is on. Both stay open while this is used.
    pub fn new(table: &'a OpenTable, index: Index) -> Self {
        let relation = table.as_ptr();
        // SAFETY: both relations are open. What is made here lives in the current context or the executor state until the
        // drop; an ERROR leaves it to the contexts and resource owners.
        unsafe {
            let info = pg_sys::BuildIndexInfo(index.as_ptr());
            let estate = pg_sys::CreateExecutorState();
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            let begin = (*(*relation).rd_tableam).index_fetch_begin;
            let begin = begin.expect("a table access method can fetch rows for indexes");
            let fetch = pg_sys::ffi::pg_guard_ffi_boundary(|| begin(relation));
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot());
            Self { table, keys: KeyColumns::of(index), info, estate, slot, fetch, snapshot }
        }
    }

    /// Shows the vector and the keys of the row that the snapshot sees under a TID of the index, through its HOT chain.
    /// `None`: it sees none, or its vector is NULL.
    pub fn fetch<R>(&mut self, tid: HeapTid, look: impl FnOnce(&[f32], &Keys) -> R) -> Option<R> {
        if !self.find(tid) {
            return None;
        }
        let (mut values, mut isnull) = ([pg_sys::Datum::null(); MAX_COLUMNS], [false; MAX_COLUMNS]);
        // SAFETY: the slot holds a row of the table, which the executor state's context is told of; the arrays have room for
        // all columns. The first is of type `vector`; detoasting uses the per-tuple context, reset after each row.
        unsafe {
            let context = match (*self.estate).es_per_tuple_exprcontext {
                context if context.is_null() => pg_sys::MakePerTupleExprContext(self.estate),
                context => context,
            };
            (*context).ecxt_scantuple = self.slot;
            let old = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            pg_sys::FormIndexDatum(self.info, self.slot, self.estate, values.as_mut_ptr(), isnull.as_mut_ptr());
            let result = (!isnull[0]).then(|| {
                let vector = VectorRef::from_datum(values[0]);
                look(vector.as_slice(), &self.keys.values(values.as_ptr(), isnull.as_ptr()))
            });
            pg_sys::MemoryContextSwitchTo(old);
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            self.clear();
            result
        }
    }

    /// Whether the snapshot sees a row there; it is in the slot then.
    fn find(&mut self, tid: HeapTid) -> bool {
        pgrx::check_for_interrupts!();
        let mut pointer = pg_sys::ItemPointerData::default();
        tid_into(tid, &mut pointer);
        let (mut call_again, mut all_dead) = (false, false);
        // SAFETY: the fetch is of this table, and the snapshot is registered. With an MVCC snapshot one call goes through the
        // whole chain.
        unsafe {
            let fetch = (*(*self.table.as_ptr()).rd_tableam).index_fetch_tuple;
            let fetch = fetch.expect("a table access method can fetch rows for indexes");
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                fetch(self.fetch, &mut pointer, self.snapshot, self.slot, &mut call_again, &mut all_dead)
            })
        }
    }

    /// Empties the slot: it keeps no pin.
    fn clear(&mut self) {
        // SAFETY: a slot of the table, made by `new`.
        unsafe {
            let clear = (*(*self.slot).tts_ops).clear.expect("every kind of slot can be cleared");
            pg_sys::ffi::pg_guard_ffi_boundary(|| clear(self.slot));
        }
    }
}

impl Drop for RowFetch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // SAFETY: made by `new`, ended once.
        unsafe {
            let end = (*(*self.table.as_ptr()).rd_tableam).index_fetch_end;
            let end = end.expect("a table access method can fetch rows for indexes");
            pg_sys::ffi::pg_guard_ffi_boundary(|| end(self.fetch));
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::UnregisterSnapshot(self.snapshot);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::pfree(self.info.cast());
        }
    }
}
