//! Snapshots that outlive the query that took them.

use pgrx::pg_sys;

/// A registered snapshot: what it sees does not change, and is not vacuumed away.
pub struct Snapshot(pg_sys::Snapshot);

impl Snapshot {
    /// The snapshot of the statement that runs, the same for all that the statement does.
    pub fn active() -> Self {
        // SAFETY: a function called by SQL has an active snapshot; it is registered with the current resource owner.
        Self(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot()) })
    }

    /// What a statement that begins now would see, with all that this transaction did so far.
    #[cfg_attr(
        not(any(test, feature = "pg_test")),
        expect(dead_code, reason = "tests write and read in one statement")
    )]
    pub fn latest() -> Self {
        // SAFETY: inside a transaction; under REPEATABLE READ it is the transaction's own.
        unsafe {
            pg_sys::CommandCounterIncrement();
            Self(pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()))
        }
    }

    pub(super) fn as_ptr(&self) -> pg_sys::Snapshot {
        self.0
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // After an ERROR the resource owner lets go of it.
        if !std::thread::panicking() {
            // SAFETY: registered by us, once.
            unsafe { pg_sys::UnregisterSnapshot(self.0) };
        }
    }
}

/// Whether this transaction reads all by its first snapshot, whatever others have committed since.
pub fn is_fixed() -> bool {
    // SAFETY: a setting of the transaction, read by the main thread.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// The active snapshot while it lives: one that sees all that this transaction did so far.
pub struct LatestSnapshot;

impl LatestSnapshot {
    pub fn push() -> Self {
        // SAFETY: inside a transaction; popped in `drop`, or by the abort.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Self
    }
}

impl Drop for LatestSnapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the one that `push` pushed: what came after it is popped.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
