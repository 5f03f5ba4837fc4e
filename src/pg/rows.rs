//! The rows of a table as text, value by value, in the order of the heap.

use super::encoding::{from_server, not_utf8, utf8};
use super::relation::{OpenTable, tid_from, tuple_attribute};
use super::snapshot::Snapshot;
use crate::error::raise;
use ann::shape::HeapTid;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

/// What a scan calls: `begin`, then `value` for each column, then `end`, for each row.
pub trait RowVisitor {
    fn begin(&mut self, tid: HeapTid);
    /// The text form in UTF-8, as the type's output function makes it; `None` for NULL.
    fn value(&mut self, text: Option<&[u8]>);
    fn end(&mut self);
}

/// A column to read: where it is, and its type's output function.
struct Output {
    position: usize,
    function: pg_sys::FmgrInfo,
    is_bytea: bool,
}

/// A memory context of our own, gone with the value; after an ERROR its parent takes it along.
struct Context(pg_sys::MemoryContext);

impl Context {
    fn new(name: &'static CStr) -> Self {
        // SAFETY: a child of the current context; the name lives forever.
        Self(unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                name.as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ours, and not the current one.
            unsafe { pg_sys::MemoryContextDelete(self.0) };
        }
    }
}

/// Bytes of a bytea whose text form, two digits a byte, PostgreSQL can still make (`MaxAllocSize`).
const LONGEST_BYTEA: usize = (0x3fff_ffff - 8) / 2;

impl OpenTable {
    /// Where a column is, counted from 0, and its type; dropped columns are left out.
    pub fn columns(&self) -> Vec<(usize, String, pg_sys::Oid)> {
        // SAFETY: the relation is open, the descriptor has `natts` attributes, a name ends with a zero byte.
        unsafe {
            let descriptor = (*self.as_ptr()).rd_att;
            (0..(*descriptor).natts as usize)
                .map(|i| (i, &*tuple_attribute(descriptor, i)))
                .filter(|(_, attribute)| !attribute.attisdropped)
                .map(|(i, a)| (i, from_server(CStr::from_ptr(a.attname.data.as_ptr())), a.atttypid))
                .collect()
        }
    }

    /// Shows the rows that the snapshot sees in the order of their TIDs, these columns of them. One value is in memory at a
    /// time. The caller has fixed the settings that text forms depend on.
    ///
    /// # Errors
    /// 54000 for a bytea whose text form is larger than PostgreSQL can make; 22021 for text that is not UTF-8; whatever output
    /// functions raise.
    pub fn scan_texts(&self, snapshot: &Snapshot, columns: &[(usize, pg_sys::Oid)], visitor: &mut dyn RowVisitor) {
        let mut outputs: Vec<Output> = columns.iter().map(|&(position, of)| Output::new(position, of)).collect();
        let context = Context::new(c"hybrid row as text");
        // SAFETY: the relation is open and locked, the snapshot is registered. Without synchronized scans the order is that
        // of the blocks. The slot is of the table's own kind.
        let (scan, slot) = unsafe {
            let no_keys = std::ptr::null_mut();
            let scan = pg_sys::table_beginscan_strat(self.as_ptr(), snapshot.as_ptr(), 0, no_keys, true, false);
            (scan, pg_sys::table_slot_create(self.as_ptr(), std::ptr::null_mut()))
        };
        // SAFETY: the scan is open, the slot fits it.
        while unsafe { pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) } {
            pgrx::check_for_interrupts!();
            // SAFETY: the slot holds a row; afterwards its arrays have a value for each attribute of the table.
            let tid = unsafe {
                pg_sys::slot_getallattrs(slot);
                tid_from(&(*slot).tts_tid)
            };
            visitor.begin(tid);
            for output in &mut outputs {
                // SAFETY: `position` is an attribute of the table.
                let (datum, is_null) =
                    unsafe { (*(*slot).tts_values.add(output.position), *(*slot).tts_isnull.add(output.position)) };
                output.show((!is_null).then_some(datum), tid, &context, visitor);
            }
            visitor.end();
        }
        // SAFETY: opened above.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::table_endscan(scan);
        }
    }
}

impl Output {
    fn new(position: usize, of: pg_sys::Oid) -> Self {
        let mut function = pg_sys::FmgrInfo::default();
        // SAFETY: the type of a column exists and has an output function; the lookup lives as long as the current context.
        unsafe {
            let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
            pg_sys::getTypeOutputInfo(of, &raw mut output, &raw mut is_varlena);
            pg_sys::fmgr_info(output, &raw mut function);
        }
        Self { position, function, is_bytea: of == pg_sys::BYTEAOID }
    }

    /// Shows a value, and frees what that took.
    fn show(&mut self, datum: Option<pg_sys::Datum>, tid: HeapTid, context: &Context, visitor: &mut dyn RowVisitor) {
        let Some(datum) = datum else { return visitor.value(None) };
        // SAFETY: a bytea is a varlena.
        if self.is_bytea && unsafe { pg_sys::toast_raw_datum_size(datum) } > LONGEST_BYTEA {
            let message =
                format!("a value of type bytea at ({},{}) is too long for its text form", tid.block, tid.offset);
            raise(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message);
        }
        // SAFETY: the value is of the function's type, and not null. The text is a C string in the context, read before the
        // context is reset; nothing else is in there.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo(context.0);
            let text = pg_sys::OutputFunctionCall(&raw mut self.function, datum);
            let text = utf8(CStr::from_ptr(text));
            pg_sys::MemoryContextSwitchTo(old);
            let text =
                text.unwrap_or_else(|bytes| not_utf8(&format!("the row at ({},{})", tid.block, tid.offset), &bytes));
            visitor.value(Some(text));
            pg_sys::MemoryContextReset(context.0);
        }
    }
}
