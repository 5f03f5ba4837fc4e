//! `COPY .. FROM` with our own source of bytes.

use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

/// What hands out the bytes of a COPY: some at a time, nothing at the end.
pub type Source<'a> = dyn FnMut() -> Option<Vec<u8>> + 'a;

/// A source with what it handed out last.
struct Reader<'a> {
    source: &'a mut Source<'a>,
    bytes: Vec<u8>,
    used: usize,
}

impl Reader<'_> {
    /// Fills the beginning of `buffer`; 0 at the end. A source that handed out nothing is not asked again.
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        while self.used == self.bytes.len() {
            let Some(bytes) = (self.source)() else { return 0 };
            (self.bytes, self.used) = (bytes, 0);
        }
        let length = buffer.len().min(self.bytes.len() - self.used);
        buffer[..length].copy_from_slice(&self.bytes[self.used..self.used + length]);
        self.used += length;
        length
    }
}

thread_local! {
    /// The reader of the COPY that runs: PostgreSQL's callback has no argument for it.
    static READER: Cell<Option<NonNull<c_void>>> = const { Cell::new(None) };
}

/// Makes a reader the one that the callback reads, until it is dropped, which happens when an ERROR unwinds too.
struct Current(Option<NonNull<c_void>>);

impl Current {
    fn set(reader: &mut Reader) -> Self {
        Self(READER.replace(Some(NonNull::from(reader).cast())))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        READER.set(self.0);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn read(buffer: *mut c_void, _least: c_int, most: c_int) -> c_int {
    let Some(reader) = READER.get() else { return 0 };
    // SAFETY: PostgreSQL passes a buffer of `most` bytes, which are overwritten, not read. The reader is alive and nobody
    // else uses it: `copy_from` lends it out for the time of the COPY. A COPY inside the source, or in a trigger, has set
    // a reader of its own.
    unsafe {
        let buffer = std::slice::from_raw_parts_mut(buffer.cast::<u8>(), usize::try_from(most).unwrap_or(0));
        let reader = &mut *reader.cast::<Reader>().as_ptr();
        reader.read(buffer) as c_int
    }
}

/// Inserts rows in COPY's text format, in UTF-8, into these columns of a table, as the calling user. Values of identity
/// columns are taken as they are. Returns how many rows there were.
///
/// # Errors
/// 42501 without INSERT on the table, 0A000 with row security in force, 25006 in a read-only transaction, and what
/// COPY and the table's constraints raise.
pub fn copy_from(table: pg_sys::Oid, columns: &[String], source: &mut Source) -> u64 {
    super::rights::check_may_insert(table);
    let mut reader = Reader { source, bytes: Vec::new(), used: 0 };
    // SAFETY: as the apply worker of logical replication does it: the table is open and locked as COPY locks it, and is
    // the first entry of the range table; rights were checked above. All lists are made in the current context, which
    // outlives the COPY.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"COPY FROM".as_ptr());
        pg_sys::PreventCommandIfParallelMode(c"COPY FROM".as_ptr());
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let state = pg_sys::make_parsestate(null_mut());
        let lock = pg_sys::RowExclusiveLock as c_int;
        pg_sys::addRangeTableEntryForRelation(state, relation, lock, null_mut(), false, false);
        let current = Current::set(&mut reader);
        let (names, options) = (name_list(columns), in_utf8());
        let copy = pg_sys::BeginCopyFrom(state, relation, null_mut(), null(), false, Some(read), names, options);
        let rows = pg_sys::CopyFrom(copy);
        pg_sys::EndCopyFrom(copy);
        drop(current);
        pg_sys::free_parsestate(state);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        pg_sys::CommandCounterIncrement();
        rows
    }
}

/// # Safety
/// Allocates in the current context.
unsafe fn name_list(columns: &[String]) -> *mut pg_sys::List {
    columns.iter().fold(null_mut(), |list, column| {
        let Ok(name) = super::encoding::to_server(column) else {
            crate::error::raise(PgSqlErrorCode::ERRCODE_INVALID_NAME, "a column's name contains a zero byte");
        };
        // SAFETY: copies of a C string; the list grows in the current context.
        unsafe { pg_sys::lappend(list, pg_sys::makeString(pg_sys::pstrdup(name.as_ptr())).cast()) }
    })
}

/// `ENCODING 'UTF8'`.
///
/// # Safety
/// Allocates in the current context.
unsafe fn in_utf8() -> *mut pg_sys::List {
    // SAFETY: copies of C strings; nodes and list in the current context.
    unsafe {
        let value = pg_sys::makeString(pg_sys::pstrdup(c"UTF8".as_ptr()));
        let option = pg_sys::makeDefElem(pg_sys::pstrdup(c"encoding".as_ptr()), value.cast(), -1);
        pg_sys::lappend(null_mut(), option.cast())
    }
}
