//! `pg_stat_progress_create_index`.

use pgrx::pg_sys;

/// Phases of a build; `ambuildphasename` names them.
#[derive(Clone, Copy)]
#[repr(i64)]
pub enum Phase {
    Load = 2,
    Link = 3,
    Write = 4,
    Log = 5,
    Cluster = 6,
    Relink = 7,
}

fn set(parameter: u32, value: i64) {
    // SAFETY: writes a number of this backend's own progress entry.
    unsafe { pg_sys::pgstat_progress_update_param(parameter as i32, value) };
}

pub fn phase(phase: Phase) {
    set(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, phase as i64);
    tuples_total(0);
    tuples_done(0);
}

pub fn tuples_total(tuples: u64) {
    set(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, tuples as i64);
}

pub fn tuples_done(tuples: u64) {
    set(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE, tuples as i64);
}
