//! Open indexes and tables.

use super::buffer::EXCLUSIVE;
use super::key::KeyColumns;
use super::unit::init_page;
use super::varlena::VectorRef;
use crate::error::{Fault, raise};
use ann::distance::Metric;
use ann::keys::Row;
use ann::page::{BlockNumber, HEADER_SIZE, PAGE_SIZE, Page};
use ann::shape::HeapTid;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::ffi::CStr;

/// An index that is open and locked by somebody: an access method callback's caller, or an [`OpenIndex`].
///
/// Invariant: the relation stays open as long as any copy of this is used.
#[derive(Clone, Copy)]
pub struct Index(pg_sys::Relation);

impl Index {
    /// # Safety
    /// `relation` is an open index that stays open while the value or a copy of it is used.
    pub unsafe fn from_ptr(relation: pg_sys::Relation) -> Self {
        Self(relation)
    }

    pub fn as_ptr(self) -> pg_sys::Relation {
        self.0
    }

    fn class(self) -> &'static pg_sys::FormData_pg_class {
        // SAFETY: the relation is open, so its pg_class row is there; callers do not keep the reference.
        unsafe { &*(*self.0).rd_rel }
    }

    pub fn name(self) -> String {
        // SAFETY: a relation's name ends with a zero byte.
        super::encoding::from_server_lossy(unsafe { CStr::from_ptr(self.class().relname.data.as_ptr()) })
    }

    pub fn oid(self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*self.0).rd_id }
    }

    /// Whether other processes may work on it: not if it is temporary, or not committed yet.
    pub fn is_seen_by_workers(self) -> bool {
        // SAFETY: the relation is open.
        !self.is_temporary() && unsafe { (*self.0).rd_createSubid == 0 }
    }

    /// What pg_index says of it.
    fn state(self) -> &'static pg_sys::FormData_pg_index {
        // SAFETY: an open index has its pg_index row; callers do not keep the reference.
        unsafe { &*(*self.0).rd_index }
    }

    /// Whether the index is built, so that inserts go to it.
    fn is_built(self) -> bool {
        self.state().indisready && self.state().indislive
    }

    pub fn is_temporary(self) -> bool {
        self.class().relpersistence == pg_sys::RELPERSISTENCE_TEMP as std::ffi::c_char
    }

    /// Tablespace, database and relation number of the storage.
    pub fn storage_key(self) -> (u32, u32, u32) {
        let l = self.locator();
        #[cfg(feature = "pg15")]
        return (l.spcNode.to_u32(), l.dbNode.to_u32(), l.relNode.to_u32());
        #[cfg(not(feature = "pg15"))]
        return (l.spcOid.to_u32(), l.dbOid.to_u32(), l.relNumber.to_u32());
    }

    #[cfg(feature = "pg15")]
    pub(super) fn locator(self) -> pg_sys::RelFileNode {
        // SAFETY: the relation is open.
        unsafe { (*self.0).rd_node }
    }

    #[cfg(not(feature = "pg15"))]
    pub(super) fn locator(self) -> pg_sys::RelFileLocator {
        // SAFETY: the relation is open.
        unsafe { (*self.0).rd_locator }
    }

    /// Database and relation as locks know them.
    pub(super) fn lock_key(self) -> (u32, u32) {
        // SAFETY: the relation is open.
        let id = unsafe { (*self.0).rd_lockInfo.lockRelId };
        (id.dbId.to_u32(), id.relId.to_u32())
    }

    /// Whether a REINDEX builds it anew now.
    pub fn is_reindexed(self) -> bool {
        // SAFETY: reads the state of this process.
        unsafe { pg_sys::ReindexIsProcessingIndex(self.oid()) }
    }

    pub fn block_count(self) -> BlockNumber {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// The metric of the operator class, from its support function.
    pub fn metric(self) -> Metric {
        // SAFETY: the index has a first column; an ERROR if its operator class has no support function 1.
        let info = unsafe { pg_sys::index_getprocinfo(self.0, 1, 1) };
        // SAFETY: the lookup entry lives with the open relation.
        if !super::validate::tells_metric(unsafe { (*info).fn_oid }) {
            let message = format!("the operator class of index \"{}\" does not tell its metric", self.name());
            raise(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, message);
        }
        // SAFETY: the function takes nothing and returns int4, as was just checked.
        let number = unsafe { pg_sys::FunctionCall0Coll(info, pg_sys::InvalidOid).value() as i32 };
        match number {
            1 => Metric::L2,
            2 => Metric::InnerProduct,
            3 => Metric::Cosine,
            4 => Metric::L1,
            other => raise(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, format!("unknown metric {other}")),
        }
    }

    /// Declared dimensions of the indexed column or expression; `None` if it has none.
    pub fn declared_dimensions(self) -> Option<usize> {
        // SAFETY: the index is open and has a first column.
        let typmod = unsafe { (*tuple_attribute((*self.0).rd_att, 0)).atttypmod };
        usize::try_from(typmod).ok().filter(|&d| d > 0)
    }

    /// Columns: the vector, and keys.
    pub fn column_count(self) -> usize {
        // SAFETY: the relation is open.
        unsafe { (*(*self.0).rd_att).natts as usize }
    }

    /// The type that the operator class of a column is for.
    pub(super) fn input_type(self, column: usize) -> pg_sys::Oid {
        assert!(column < self.column_count(), "column {column}");
        // SAFETY: an open index has an operator class for each of its columns, none of which is an INCLUDE column.
        unsafe { *(*self.0).rd_opcintype.add(column) }
    }

    /// Tells the free space map that a page may be taken.
    pub fn record_free_page(self, block: BlockNumber) {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RecordFreeIndexPage(self.0, block) };
    }

    /// Makes the free space map's upper levels tell of free pages.
    pub fn vacuum_free_space_map(self) {
        // SAFETY: the relation is open.
        unsafe { pg_sys::IndexFreeSpaceMapVacuum(self.0) };
    }

    /// Adds a zero page and pins it.
    pub(super) fn extend(self) -> (BlockNumber, pg_sys::Buffer) {
        let [added] = self.extend_by();
        added
    }

    /// Adds some zero pages, one after the other, and pins them.
    pub(super) fn extend_by<const N: usize>(self) -> [(BlockNumber, pg_sys::Buffer); N] {
        // SAFETY: the relation is open; the extension lock is held over the extension, as P_NEW asks.
        unsafe {
            let local = self.is_temporary();
            if !local {
                pg_sys::LockRelationForExtension(self.0, pg_sys::ExclusiveLock as i32);
            }
            let added = std::array::from_fn(|_| {
                let buffer = pg_sys::ReadBuffer(self.0, pg_sys::InvalidBlockNumber);
                (pg_sys::BufferGetBlockNumber(buffer), buffer)
            });
            if !local {
                pg_sys::UnlockRelationForExtension(self.0, pg_sys::ExclusiveLock as i32);
            }
            added
        }
    }

    /// Appends a page to a relation that nobody else sees yet, without WAL: the builder logs the whole range at its end.
    pub fn append_unlogged(self, page: &Page) -> BlockNumber {
        let (block, buffer) = self.extend();
        self.overwrite(buffer, page);
        block
    }

    /// Replaces a page of a relation that nobody else sees yet, without WAL.
    pub fn write_unlogged(self, block: BlockNumber, page: &Page) {
        // SAFETY: the relation is open.
        let buffer = unsafe { pg_sys::ReadBuffer(self.0, block) };
        self.overwrite(buffer, page);
    }

    fn overwrite(self, buffer: pg_sys::Buffer, page: &Page) {
        // SAFETY: the buffer is pinned; exclusively locked it may be written, then is marked dirty and let go.
        unsafe {
            pg_sys::LockBuffer(buffer, EXCLUSIVE);
            let target = &mut *pg_sys::BufferGetPage(buffer).cast::<Page>();
            init_page(target);
            target.0[HEADER_SIZE..PAGE_SIZE].copy_from_slice(&page.0[HEADER_SIZE..]);
            pg_sys::MarkBufferDirty(buffer);
            pg_sys::UnlockReleaseBuffer(buffer);
        }
    }

    /// Writes all pages to the WAL, if the relation needs WAL.
    pub fn log_all_pages(self) {
        // SAFETY: the relation is open; its pages are complete and nobody changes them.
        unsafe {
            if needs_wal(self.0) {
                let blocks = self.block_count();
                pg_sys::log_newpage_range(self.0, pg_sys::ForkNumber::MAIN_FORKNUM, 0, blocks, true);
            }
        }
    }

    /// Writes the init fork of an unlogged index: these pages, logged.
    pub fn write_init_fork(self, pages: &[Box<Page>]) {
        for page in pages {
            // SAFETY: the relation is open and its init fork is ours alone while it is made; P_NEW needs no lock here, but
            // takes it as everywhere. The page is logged in full before the lock goes.
            unsafe {
                pg_sys::LockRelationForExtension(self.0, pg_sys::ExclusiveLock as i32);
                let buffer = pg_sys::ReadBufferExtended(
                    self.0,
                    pg_sys::ForkNumber::INIT_FORKNUM,
                    pg_sys::InvalidBlockNumber,
                    pg_sys::ReadBufferMode::RBM_NORMAL,
                    std::ptr::null_mut(),
                );
                pg_sys::UnlockRelationForExtension(self.0, pg_sys::ExclusiveLock as i32);
                pg_sys::LockBuffer(buffer, EXCLUSIVE);
                let target = &mut *pg_sys::BufferGetPage(buffer).cast::<Page>();
                let critical = Critical::enter();
                init_page(target);
                target.0[HEADER_SIZE..PAGE_SIZE].copy_from_slice(&page.0[HEADER_SIZE..]);
                pg_sys::MarkBufferDirty(buffer);
                pg_sys::log_newpage_buffer(buffer, true);
                drop(critical);
                pg_sys::UnlockReleaseBuffer(buffer);
            }
        }
    }

    /// Counts a scan in pg_stat_user_indexes.
    pub fn count_scan(self) {
        // SAFETY: the relation is open; the statistics entry is attached on demand, as pgstat_count_index_scan does.
        unsafe {
            let relation = &mut *self.0;
            if relation.pgstat_info.is_null() && relation.pgstat_enabled {
                pg_sys::pgstat_assoc_relation(self.0);
            }
            if let Some(info) = relation.pgstat_info.as_mut() {
                #[cfg(feature = "pg15")]
                {
                    info.t_counts.t_numscans += 1;
                }
                #[cfg(not(feature = "pg15"))]
                {
                    info.counts.numscans += 1;
                }
            }
        }
    }
}

/// A critical section: an ERROR inside it would be a PANIC.
pub(super) struct Critical;

impl Critical {
    /// # Safety
    /// What follows, until the drop, raises nothing and does not unwind.
    pub(super) unsafe fn enter() -> Self {
        // SAFETY: a counter of this process's only thread that uses it.
        unsafe { pg_sys::CritSectionCount += 1 };
        Self
    }
}

impl Drop for Critical {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::CritSectionCount -= 1 };
    }
}

/// `RelationNeedsWAL`.
///
/// # Safety
/// The relation is open.
pub unsafe fn needs_wal(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let r = &*relation;
        let permanent = (*r.rd_rel).relpersistence == pg_sys::RELPERSISTENCE_PERMANENT as std::ffi::c_char;
        #[cfg(feature = "pg15")]
        let created = r.rd_createSubid == 0 && r.rd_firstRelfilenodeSubid == 0;
        #[cfg(not(feature = "pg15"))]
        let created = r.rd_createSubid == 0 && r.rd_firstRelfilelocatorSubid == 0;
        permanent && (pg_sys::wal_level > pg_sys::WalLevel::WAL_LEVEL_MINIMAL as i32 || created)
    }
}

/// An attribute of a tuple descriptor.
///
/// # Safety
/// The descriptor has that many attributes.
pub unsafe fn tuple_attribute(desc: pg_sys::TupleDesc, i: usize) -> *const pg_sys::FormData_pg_attribute {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the caller's promise.
    return unsafe { (*desc).attrs.as_ptr().add(i) };
    #[cfg(feature = "pg18")]
    // SAFETY: the caller's promise.
    return unsafe { pg_sys::TupleDescAttr(desc, i as i32) };
}

/// An index that an SQL function opened by its OID, with AccessShareLock until the end of the transaction.
pub struct OpenIndex {
    index: Index,
}

impl OpenIndex {
    /// Opens an index of our access method.
    ///
    /// # Errors
    /// 42809 if it is something else, or partitioned.
    pub fn open(oid: pg_sys::Oid) -> Self {
        Self::open_locked(oid, pg_sys::AccessShareLock)
    }

    /// Opens an index of our access method to write to it, and its table, which is locked first.
    ///
    /// # Errors
    /// As [`Self::open`]; 55000 if the index is not built.
    pub fn open_to_write(oid: pg_sys::Oid) -> (Self, OpenTable) {
        // SAFETY: a lookup that may fail.
        let table_oid = unsafe { pg_sys::IndexGetRelation(oid, true) };
        if table_oid == pg_sys::InvalidOid {
            let opened = Self::open(oid);
            let message = format!("\"{}\" is not a hybrid index", opened.index.name());
            raise(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, message);
        }
        // SAFETY: waits for the lock; a table that is gone by then is noticed below.
        unsafe { pg_sys::LockRelationOid(table_oid, pg_sys::AccessShareLock as i32) };
        let opened = Self::open_locked(oid, pg_sys::RowExclusiveLock);
        if opened.table() != table_oid || !opened.index.is_built() {
            let message = format!("index \"{}\" is not ready", opened.index.name());
            raise(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message);
        }
        (opened, OpenTable::open(table_oid))
    }

    /// Opens an index of this table that is valid and no session's own, if its lock is to be had at once.
    pub(super) fn try_open(oid: pg_sys::Oid, table: pg_sys::Oid) -> Option<Self> {
        let relation = try_open(oid, pg_sys::RowExclusiveLock)?;
        // SAFETY: just opened.
        let index = unsafe { Index::from_ptr(relation) };
        let opened = Self { index };
        let ours = index.class().relkind as u8 == pg_sys::RELKIND_INDEX && index.class().relam == hybrid_am();
        let usable = ours && index.is_built() && index.state().indisvalid && opened.table() == table;
        (usable && !index.is_temporary()).then_some(opened)
    }

    fn open_locked(oid: pg_sys::Oid, lock: u32) -> Self {
        // SAFETY: raises an ERROR if there is no such relation.
        let relation = unsafe { pg_sys::relation_open(oid, lock as i32) };
        // SAFETY: just opened.
        let index = unsafe { Index::from_ptr(relation) };
        let opened = Self { index };
        let kind = index.class().relkind as u8;
        if kind == pg_sys::RELKIND_PARTITIONED_INDEX {
            Fault::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{}\" is a partitioned index", index.name()),
            )
            .hint("Call the function for the index of each partition.")
            .raise();
        }
        if kind != pg_sys::RELKIND_INDEX || index.class().relam != hybrid_am() {
            let message = format!("\"{}\" is not a hybrid index", index.name());
            raise(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, message);
        }
        opened
    }

    pub fn index(&self) -> Index {
        self.index
    }

    /// OID of the table.
    pub fn table(&self) -> pg_sys::Oid {
        self.index.state().indrelid
    }

    /// Closes what [`Self::open`] opened and lets go of its lock, for who is going to take a stronger one: two that keep
    /// theirs would wait for each other.
    pub fn unlock(self) {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: opened by us with this lock; nobody uses it any more.
        unsafe { pg_sys::relation_close(this.index.0, pg_sys::AccessShareLock as i32) };
    }
}

impl Drop for OpenIndex {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us. The lock is kept to the end of the transaction.
            unsafe { pg_sys::relation_close(self.index.0, 0) };
        }
    }
}

/// Opens a relation that is there and whose lock is to be had at once; the lock stays to the end of the transaction.
fn try_open(oid: pg_sys::Oid, lock: u32) -> Option<pg_sys::Relation> {
    // SAFETY: both calls take any OID; the second finds that it is gone, or that we hold the lock.
    let relation = unsafe {
        let locked = pg_sys::ConditionalLockRelationOid(oid, lock as i32);
        if locked { pg_sys::try_relation_open(oid, pg_sys::NoLock as i32) } else { std::ptr::null_mut() }
    };
    (!relation.is_null()).then_some(relation)
}

/// OID of the access method `hybrid`; invalid where the extension is not created.
pub(super) fn hybrid_am() -> pg_sys::Oid {
    // SAFETY: a lookup by name that may fail.
    unsafe { pg_sys::get_index_am_oid(c"hybrid".as_ptr(), true) }
}

/// A heap TID from PostgreSQL's form.
pub fn tid_from(pointer: &pg_sys::ItemPointerData) -> HeapTid {
    let block = u32::from(pointer.ip_blkid.bi_hi) << 16 | u32::from(pointer.ip_blkid.bi_lo);
    HeapTid { block, offset: pointer.ip_posid }
}

/// A heap TID in PostgreSQL's form.
pub fn tid_into(tid: HeapTid, pointer: &mut pg_sys::ItemPointerData) {
    pointer.ip_blkid = pg_sys::BlockIdData { bi_hi: (tid.block >> 16) as u16, bi_lo: tid.block as u16 };
    pointer.ip_posid = tid.offset;
}

/// A table that is open.
pub struct OpenTable {
    relation: pg_sys::Relation,
    owned: bool,
}

/// What a build scan calls for each row: heap TID with keys, and vector.
type RowVisitor<'a> = &'a mut dyn FnMut(Row, &[f32]);

struct BuildScan<'a> {
    visit: RowVisitor<'a>,
    keys: KeyColumns,
    context: pg_sys::MemoryContext,
}

impl OpenTable {
    /// # Safety
    /// `relation` is an open table that stays open while the value is used.
    pub unsafe fn borrowed(relation: pg_sys::Relation) -> Self {
        Self { relation, owned: false }
    }

    /// Opens the table with AccessShareLock, kept to the end of the transaction.
    pub fn open(oid: pg_sys::Oid) -> Self {
        // SAFETY: raises an ERROR if there is no such table.
        Self { relation: unsafe { pg_sys::table_open(oid, pg_sys::AccessShareLock as i32) }, owned: true }
    }

    /// The table of an index, which the caller has locked.
    pub fn of_index(index: Index) -> Self {
        // SAFETY: the table cannot go while its index is open and locked; somebody up the stack holds its lock.
        Self { relation: unsafe { pg_sys::RelationIdGetRelation(index.state().indrelid) }, owned: true }
    }

    /// Opens the table with AccessShareLock, if it is there and the lock is to be had at once.
    pub(super) fn try_open(oid: pg_sys::Oid) -> Option<Self> {
        try_open(oid, pg_sys::AccessShareLock).map(|relation| Self { relation, owned: true })
    }

    /// Whether the table has no blocks.
    pub fn is_empty(&self) -> bool {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM) == 0 }
    }

    pub(super) fn owner(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*(*self.relation).rd_rel).relowner }
    }

    /// Runs `work` as the table's owner, with what VACUUM, too, allows itself then.
    pub fn as_owner<R>(&self, work: impl FnOnce() -> R) -> R {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: the transaction's abort puts user and settings back after an ERROR.
        let level = unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            let restricted = context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            pg_sys::SetUserIdAndSecContext(self.owner(), restricted);
            let level = pg_sys::NewGUCNestLevel();
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            pg_sys::RestrictSearchPath();
            level
        };
        let result = work();
        // SAFETY: what was in force above.
        unsafe {
            pg_sys::AtEOXact_GUC(false, level);
            pg_sys::SetUserIdAndSecContext(user, context);
        }
        result
    }

    pub(super) fn as_ptr(&self) -> pg_sys::Relation {
        self.relation
    }

    /// Shows the rows that an index build must index, NULL vectors left out. Returns how many rows the table has.
    pub fn build_scan(&self, index: Index, info: *mut pg_sys::IndexInfo, visit: RowVisitor) -> f64 {
        // SAFETY: both relations are open, `info` describes the index; the callback gets the state passed here.
        unsafe {
            let context = pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                c"hybrid index row".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let mut scan = BuildScan { visit, keys: KeyColumns::of(index), context };
            let state = (&raw mut scan).cast();
            let null = std::ptr::null_mut();
            let rows = pg_sys::table_index_build_scan(
                self.relation,
                index.as_ptr(),
                info,
                true,
                true,
                Some(build_row),
                state,
                null,
            );
            pg_sys::MemoryContextDelete(context);
            rows
        }
    }

    /// Shows the rows that the current snapshot sees and the index should have, by the TIDs that it has them under.
    pub fn visible_rows(&self, index: Index, visit: RowVisitor) {
        // SAFETY: the index is open. A concurrent build's scan uses an MVCC snapshot, which is what is wanted.
        let info = unsafe {
            let info = pg_sys::BuildIndexInfo(index.as_ptr());
            (*info).ii_Concurrent = true;
            info
        };
        self.build_scan(index, info, visit);
    }
}

impl Drop for OpenTable {
    fn drop(&mut self) {
        if self.owned && !std::thread::panicking() {
            // SAFETY: opened by us.
            unsafe { pg_sys::table_close(self.relation, 0) };
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn build_row(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    isnull: *mut bool,
    _alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: `build_scan` passes its state, PostgreSQL a row of the index's columns, the first of type `vector`.
    unsafe {
        if *isnull {
            return;
        }
        let scan = &mut *state.cast::<BuildScan>();
        let old = pg_sys::MemoryContextSwitchTo(scan.context);
        {
            let vector = VectorRef::from_datum(*values);
            let row = Row { tid: tid_from(&*tid), keys: scan.keys.values(values, isnull) };
            (scan.visit)(row, vector.as_slice());
        }
        pg_sys::MemoryContextSwitchTo(old);
        pg_sys::MemoryContextReset(scan.context);
    }
}
