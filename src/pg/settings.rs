//! Settings of the server, and the prefix of ours.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

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

/// What tells whether a text may be a setting's value, and why not.
type TextCheck = fn(&str) -> Result<(), &'static CStr>;

/// The check of the one setting that is a text.
static TEXT_CHECK: OnceLock<TextCheck> = OnceLock::new();

/// Defines a setting that is a text, which superusers change. There is one, as its hook cannot tell which it is for.
pub fn define_text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    check: TextCheck,
) {
    TEXT_CHECK.get_or_init(|| check);
    let flags = GucFlags::default();
    // SAFETY: the hook is guarded.
    unsafe {
        let (hook, context) = (Some(check_text as _), GucContext::Suset);
        GucRegistry::define_string_guc_with_hooks(name, short, long, setting, context, flags, hook, None, None);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_text(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    let Some(check) = TEXT_CHECK.get() else { return true };
    // SAFETY: PostgreSQL passes a pointer to the new value, a C string or null.
    let text = unsafe { (*value).as_ref().map(|v| CStr::from_ptr(v).to_string_lossy()) };
    match check(&text.unwrap_or_default()) {
        Ok(()) => true,
        Err(detail) => {
            // SAFETY: PostgreSQL reads it right after a check that failed.
            unsafe { pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(detail.as_ptr()) };
            false
        }
    }
}

/// Minutes since midnight by the session's time zone.
pub fn minute_of_day() -> u32 {
    // SAFETY: the session's time zone is always set; the result is a static of the library, read at once.
    unsafe {
        let now = pg_sys::timestamptz_to_time_t(now());
        let local = pg_sys::pg_localtime(&now, pg_sys::session_timezone);
        local.as_ref().map_or(0, |t| (t.tm_hour * 60 + t.tm_min) as u32)
    }
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
