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

/// Who may set a setting that is a text.
#[derive(Clone, Copy)]
pub enum SetBy {
    Superuser,
    User,
}

/// The checks of settings that are texts. A hook cannot tell which setting it is for, so each has one of its own.
static TEXT_CHECKS: [OnceLock<TextCheck>; 2] = [OnceLock::new(), OnceLock::new()];

/// Defines the setting of this number that is a text.
pub fn define_text(
    number: usize,
    names: [&'static CStr; 3],
    setting: &'static GucSetting<Option<CString>>,
    by: SetBy,
    check: TextCheck,
) {
    let hook: pg_sys::GucStringCheckHook = match number {
        0 => Some(check_text_0),
        _ => Some(check_text_1),
    };
    TEXT_CHECKS[number].get_or_init(|| check);
    let context = match by {
        SetBy::Superuser => GucContext::Suset,
        SetBy::User => GucContext::Userset,
    };
    let ([name, short, long], flags) = (names, GucFlags::default());
    // SAFETY: the hooks are guarded.
    unsafe { GucRegistry::define_string_guc_with_hooks(name, short, long, setting, context, flags, hook, None, None) };
}

#[pg_guard]
unsafe extern "C-unwind" fn check_text_0(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL's promise.
    unsafe { check_text(0, value) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_text_1(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL's promise.
    unsafe { check_text(1, value) }
}

/// # Safety
/// `value` points to a setting's new value, a C string or null.
unsafe fn check_text(number: usize, value: *mut *mut c_char) -> bool {
    let Some(check) = TEXT_CHECKS[number].get() else { return true };
    // SAFETY: the caller's promise.
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
