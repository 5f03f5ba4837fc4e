//! Heavyweight locks of ours, and the question whether somebody waits for what we hold.
//!
//! The **maintenance lock** of an index is its page lock on block 0. Who moves rows between segments, gives pages of
//! segments up, or must see every entry exactly once holds it. Reads and inserts never ask for it.

use super::relation::Index;
use ann::page::META_BLOCK;
use pgrx::pg_sys;

const EXCLUSIVE: i32 = pg_sys::ExclusiveLock as i32;

/// The maintenance lock of an index, held.
pub struct Maintenance {
    index: Index,
}

impl Maintenance {
    /// Waits for the lock; interruptible, and seen by the deadlock detector.
    pub fn acquire(index: Index) -> Self {
        // SAFETY: the relation is open.
        unsafe { pg_sys::LockPage(index.as_ptr(), META_BLOCK, EXCLUSIVE) };
        Self { index }
    }

    /// Takes the lock if nobody has it.
    pub fn try_acquire(index: Index) -> Option<Self> {
        // SAFETY: the relation is open.
        let taken = unsafe { pg_sys::ConditionalLockPage(index.as_ptr(), META_BLOCK, EXCLUSIVE) };
        // Not `then_some`: dropping one unlocks.
        taken.then(|| Self { index })
    }

    /// Whether somebody waits for the lock.
    pub fn is_wanted(&self) -> bool {
        let (database, relation) = self.index.lock_key();
        let tag = Tag::page(database, relation, META_BLOCK);
        // SAFETY: this process holds the lock that the tag names, in the main lock table: page locks have no fast path.
        unsafe { pg_sys::LockHasWaiters(&tag.0, EXCLUSIVE, false) }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        // After an ERROR the transaction's abort releases it.
        if !std::thread::panicking() {
            // SAFETY: the relation is open, and this process holds the lock.
            unsafe { pg_sys::UnlockPage(self.index.as_ptr(), META_BLOCK, EXCLUSIVE) };
        }
    }
}

/// What a lock is on.
#[derive(Clone, Copy)]
pub struct Tag(pg_sys::LOCKTAG);

impl Tag {
    fn new(kind: pg_sys::LockTagType::Type, fields: [u32; 3], last: u16) -> Self {
        Self(pg_sys::LOCKTAG {
            locktag_field1: fields[0],
            locktag_field2: fields[1],
            locktag_field3: fields[2],
            locktag_field4: last,
            locktag_type: kind as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        })
    }

    fn page(database: u32, relation: u32, block: u32) -> Self {
        Self::new(pg_sys::LockTagType::LOCKTAG_PAGE, [database, relation, block], 0)
    }

    /// A table or index of this database.
    pub fn relation(oid: pg_sys::Oid) -> Self {
        Self::new(pg_sys::LockTagType::LOCKTAG_RELATION, [this_database(), oid.to_u32(), 0], 0)
    }

    /// This database as an object: what CREATE, ALTER and DROP DATABASE lock, and a session while it connects.
    fn database() -> Self {
        let class = pg_sys::DatabaseRelationId.to_u32();
        Self::new(pg_sys::LockTagType::LOCKTAG_OBJECT, [0, class, this_database()], 0)
    }

    /// The place of one of the workers of this database, from 1. Of the method that advisory locks have: those of a session
    /// outlast an ERROR, and go when the process ends. PostgreSQL's own do the reverse.
    fn worker(access_method: pg_sys::Oid, place: u16) -> Self {
        let class = pg_sys::AccessMethodRelationId.to_u32();
        let fields = [this_database(), class, access_method.to_u32()];
        let mut tag = Self::new(pg_sys::LockTagType::LOCKTAG_OBJECT, fields, place);
        tag.0.locktag_lockmethodid = pg_sys::USER_LOCKMETHOD as u8;
        tag
    }

    /// Takes the lock if it is to be had at once.
    ///
    /// # Safety
    /// The mode fits the kind of lock, and the caller knows when it ends: with the transaction, or with the session.
    unsafe fn try_lock(&self, mode: u32, for_session: bool) -> bool {
        // SAFETY: the tag is complete; the caller's promise.
        let outcome = unsafe { pg_sys::LockAcquire(&self.0, mode as i32, for_session, true) };
        outcome != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }

    /// Whether a lock in this mode could be had now. Not if somebody waits for a conflicting one.
    fn is_available(&self, mode: u32) -> bool {
        // SAFETY: taken for the transaction, and let go at once.
        unsafe { self.try_lock(mode, false) && pg_sys::LockRelease(&self.0, mode as i32, false) }
    }
}

fn this_database() -> u32 {
    // SAFETY: set once, when the process connects.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// Whether somebody waits to change or drop a relation on which we hold AccessShareLock or RowExclusiveLock.
///
/// Those two are fast-path locks that `LockHasWaiters` knows nothing of. Up to version 16 a third is tried, which the others
/// in the queue keep us from.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub fn is_ddl_waiting(relation: pg_sys::Oid) -> bool {
    !Tag::relation(relation).is_available(pg_sys::RowShareLock)
}

/// Whether somebody waits to change or drop a relation on which we hold AccessShareLock or RowExclusiveLock.
///
/// Those two are fast-path locks that `LockHasWaiters` knows nothing of. And from version 17 on a third is granted past the
/// queue, as those who wait there wait for us. So the processes are asked what they wait for.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub fn is_ddl_waiting(relation: pg_sys::Oid) -> bool {
    let Tag(wanted) = Tag::relation(relation);
    let key = |tag: &pg_sys::LOCKTAG| {
        let fields = [tag.locktag_field1, tag.locktag_field2, tag.locktag_field3];
        (fields, tag.locktag_field4, tag.locktag_type, tag.locktag_lockmethodid)
    };
    // SAFETY: the array of processes and all locks are in shared memory, which is neither moved nor given back. What another
    // process writes is copied once, and not followed. A value that is out of date is corrected by the next look.
    unsafe {
        let processes = &raw const *pg_sys::ProcGlobal;
        let count = (&raw const (*processes).allProcCount).read() as usize;
        let all = (&raw const (*processes).allProcs).read();
        (0..count).any(|i| {
            let process = all.add(i);
            let lock = (&raw const (*process).waitLock).read_volatile();
            let mode = (&raw const (*process).waitLockMode).read_volatile();
            // The modes that conflict with RowShareLock.
            mode >= pg_sys::ExclusiveLock as pg_sys::LOCKMODE
                && !lock.is_null()
                && key(&(&raw const (*lock).tag).read_volatile()) == key(&wanted)
        })
    }
}

/// Whether somebody drops, renames, moves or copies this database, and waits for its sessions to end.
pub fn is_database_wanted() -> bool {
    !Tag::database().is_available(pg_sys::RowExclusiveLock)
}

/// Whether one of `places` for workers is free.
pub fn has_free_place(access_method: pg_sys::Oid, places: u16) -> bool {
    (1..=places).any(|place| Tag::worker(access_method, place).is_available(pg_sys::ShareLock))
}

/// Takes one of `places` for workers until the process ends.
pub fn take_place(access_method: pg_sys::Oid, places: u16) -> bool {
    // SAFETY: a lock of the session.
    (1..=places).any(|place| unsafe { Tag::worker(access_method, place).try_lock(pg_sys::ExclusiveLock, true) })
}
