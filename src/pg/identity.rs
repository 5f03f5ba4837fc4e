//! What tells this server from others.

use pgrx::pg_sys;

/// Given to the cluster by initdb; a physical copy has the same.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory that does not change.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// The timeline: a copy that was promoted, or recovered to a point in time, has another.
pub fn timeline() -> u32 {
    // SAFETY: each function is called in the state that it is for.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            let mut timeline = 0;
            pg_sys::GetXLogReplayRecPtr(&mut timeline);
            timeline
        } else {
            pg_sys::GetWALInsertionTimeLine()
        }
    }
}
