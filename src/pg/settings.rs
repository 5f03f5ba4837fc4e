//! Settings of the server, and the prefix of ours.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Makes unknown settings with this prefix an error.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: the name lives forever; called while the library is loaded.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}

/// `maintenance_work_mem` in bytes.
pub fn maintenance_work_mem() -> usize {
    // SAFETY: a setting, read by the main thread.
    unsafe { pg_sys::maintenance_work_mem as usize * 1024 }
}

/// `work_mem * hash_mem_multiplier` in bytes.
pub fn hash_memory() -> usize {
    // SAFETY: settings, read by the main thread.
    unsafe { (f64::from(pg_sys::work_mem) * pg_sys::hash_mem_multiplier * 1024.0) as usize }
}

/// The clock, in microseconds since 2000-01-01.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
