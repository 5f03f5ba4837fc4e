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

/// Runs `work` with settings changed, and changes them back. After an ERROR the transaction's end does that.
pub fn with_settings<R>(settings: &[(&'static CStr, &'static CStr)], work: impl FnOnce() -> R) -> R {
    // SAFETY: opens a nesting level of settings; closed below.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    for (name, value) in settings {
        // SAFETY: names and values are C strings; the settings are the user's to set.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
    let result = work();
    // SAFETY: the level opened above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    result
}

/// A time as SQL has it; out-of-range numbers become infinity.
pub fn timestamp(microseconds: i64) -> pgrx::datum::TimestampWithTimeZone {
    pgrx::datum::TimestampWithTimeZone::try_from(microseconds)
        .unwrap_or_else(|_| pgrx::datum::TimestampWithTimeZone::positive_infinity())
}
