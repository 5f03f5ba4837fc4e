//! Index options: registration, parsing, and the values in force.

use super::encoding::from_server_lossy;
use crate::archive::Source;
use crate::error::{Fault, raise};
use pgrx::{PgSqlErrorCode, direct_function_call, pg_guard, pg_sys};
use std::ffi::{CStr, c_char};
use std::mem::offset_of;
use std::ptr;
use std::sync::OnceLock;

use super::relation::Index;

/// What PostgreSQL parses `WITH (...)` into. Strings are offsets from the start.
#[repr(C)]
struct RawOptions {
    vl_len: i32,
    m: i32,
    ef_construction: i32,
    lists: i32,
    recent_rows: i32,
    segment_rows: i32,
    pending_rows: i32,
    ef_search: i32,
    probes: i32,
    rerank: i32,
    recent_threshold: i32,
    partition_interval: i32,
    auto_compact: bool,
    source: i32,
}

/// Options of an index, defaults included.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub m: usize,
    pub ef_construction: usize,
    pub lists: u32,
    pub recent_rows: u64,
    pub segment_rows: u64,
    pub pending_rows: u32,
    /// 0 = not set.
    pub ef_search: usize,
    /// 0 = not set.
    pub probes: usize,
    /// 0 `sq8`, 1 `f16`, 2 `f32`.
    pub rerank: u8,
    /// Microseconds; `i64::MAX` is infinity.
    pub recent_threshold: i64,
    /// Microseconds.
    pub partition_interval: i64,
    pub auto_compact: bool,
    /// For CREATE INDEX: the archive to build from.
    pub source: Option<Source>,
}

const DAY: i64 = 86_400_000_000;
const MONTH: i64 = 30 * DAY;

impl Default for Options {
    fn default() -> Self {
        Self {
            m: 16,
            ef_construction: 64,
            lists: 0,
            recent_rows: 100_000,
            segment_rows: 1_000_000,
            pending_rows: 4096,
            ef_search: 0,
            probes: 0,
            rerank: 0,
            recent_threshold: 7 * DAY,
            partition_interval: MONTH,
            auto_compact: true,
            source: None,
        }
    }
}

impl Options {
    /// The options that an index has now.
    pub fn of(index: Index) -> Self {
        // SAFETY: the relation is open, and its options, if it has any, were made by `parse`.
        unsafe {
            let raw = (*index.as_ptr()).rd_options.cast::<RawOptions>();
            if raw.is_null() { Self::default() } else { Self::from_raw(raw) }
        }
    }

    /// # Safety
    /// `raw` was made by `parse`.
    unsafe fn from_raw(raw: *const RawOptions) -> Self {
        // SAFETY: the caller's promise; string options are offsets to C strings in the same chunk, 0 for the default.
        unsafe {
            let o = &*raw;
            let text = |offset: i32| (offset > 0).then(|| CStr::from_ptr(raw.cast::<c_char>().add(offset as usize)));
            let defaults = Self::default();
            Self {
                m: o.m as usize,
                ef_construction: o.ef_construction as usize,
                lists: o.lists as u32,
                recent_rows: o.recent_rows as u64,
                segment_rows: o.segment_rows as u64,
                pending_rows: o.pending_rows as u32,
                ef_search: o.ef_search as usize,
                probes: o.probes as usize,
                rerank: o.rerank as u8,
                recent_threshold: text(o.recent_threshold).map_or(defaults.recent_threshold, microseconds),
                partition_interval: text(o.partition_interval).map_or(defaults.partition_interval, microseconds),
                auto_compact: o.auto_compact,
                source: text(o.source).and_then(|source| Source::parse(&from_server_lossy(source))),
            }
        }
    }
}

/// Options that are set and mean something only where there is an age key.
pub fn for_age_key(index: Index) -> Vec<&'static str> {
    let options = Options::of(index);
    // SAFETY: as in `Options::of`.
    let raw = unsafe { (*index.as_ptr()).rd_options.cast::<RawOptions>().as_ref() };
    let set = |offset: fn(&RawOptions) -> i32| raw.is_some_and(|raw| offset(raw) > 0);
    let mut names = Vec::new();
    if set(|raw| raw.recent_threshold) && options.recent_threshold != i64::MAX {
        names.push("recent_threshold");
    }
    if set(|raw| raw.partition_interval) {
        names.push("partition_interval");
    }
    names
}

/// An interval in microseconds; `infinity` is `i64::MAX`.
fn microseconds(text: &CStr) -> i64 {
    if text.to_bytes().trim_ascii().eq_ignore_ascii_case(b"infinity") {
        return i64::MAX;
    }
    // SAFETY: interval_in takes a C string, a type OID and a typmod, and returns a pointer to an interval.
    unsafe {
        let arguments =
            [Some(pg_sys::Datum::from(text.as_ptr())), Some(pg_sys::Datum::from(0)), Some(pg_sys::Datum::from(-1i32))];
        let interval = direct_function_call::<pg_sys::Datum>(pg_sys::interval_in, &arguments);
        let interval = &*interval.expect("interval_in returns a value").cast_mut_ptr::<pg_sys::Interval>();
        let days = i64::from(interval.day).saturating_add(i64::from(interval.month).saturating_mul(30));
        interval.time.saturating_add(days.saturating_mul(DAY))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn validate_threshold(value: *const c_char) {
    // SAFETY: PostgreSQL passes a C string, or null for the default of another option.
    if let Some(text) = unsafe { value.as_ref() }.map(|v| unsafe { CStr::from_ptr(v) })
        && microseconds(text) < 0
    {
        refuse("recent_threshold", text, "An age must not be negative.");
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn validate_partition_interval(value: *const c_char) {
    // SAFETY: PostgreSQL passes a C string, or null for the default of another option.
    if let Some(text) = unsafe { value.as_ref() }.map(|v| unsafe { CStr::from_ptr(v) }) {
        let microseconds = microseconds(text);
        if microseconds < DAY / 24 || microseconds == i64::MAX {
            refuse("partition_interval", text, "An old partition covers an hour or more, and not infinity.");
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn validate_source(value: *const c_char) {
    // SAFETY: PostgreSQL passes a C string, or null for the default of another option.
    if let Some(text) = unsafe { value.as_ref() }.map(|v| unsafe { CStr::from_ptr(v) })
        && Source::parse(&from_server_lossy(text)).is_none_or(|source| source.manifest.is_none())
    {
        refuse("source", text, "Write the name of a server, a space, and a manifest.");
    }
}

fn refuse(option: &str, value: &CStr, detail: &str) -> ! {
    let message = format!("invalid value for option \"{option}\": {}", from_server_lossy(value));
    Fault::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message).detail(detail).raise()
}

static KIND: OnceLock<pg_sys::relopt_kind::Type> = OnceLock::new();

struct RerankMembers([pg_sys::relopt_enum_elt_def; 4]);

/// Integer options: name, description, default, smallest, largest, offset.
type IntOption = (&'static CStr, &'static CStr, i32, i32, i32, usize);

const INT_OPTIONS: [IntOption; 8] = [
    (
        c"m",
        c"Neighbors of an HNSW element above level 0; twice as many at level 0",
        16,
        2,
        100,
        offset_of!(RawOptions, m),
    ),
    (
        c"ef_construction",
        c"Width of the search that links an HNSW element",
        64,
        4,
        1000,
        offset_of!(RawOptions, ef_construction),
    ),
    (c"lists", c"Lists of an old partition; 0 = by size", 0, 0, 1_000_000, offset_of!(RawOptions, lists)),
    (
        c"recent_rows",
        c"Without an age key, how many of the newest rows are recent",
        100_000,
        0,
        i32::MAX,
        offset_of!(RawOptions, recent_rows),
    ),
    (
        c"segment_rows",
        c"Rows at which the active segment is sealed",
        1_000_000,
        1000,
        100_000_000,
        offset_of!(RawOptions, segment_rows),
    ),
    (
        c"pending_rows",
        c"Rows that wait in the pending list before a flush",
        4096,
        0,
        1_000_000,
        offset_of!(RawOptions, pending_rows),
    ),
    (c"ef_search", c"Width of searches in this index; 0 = not set", 0, 0, 10_000, offset_of!(RawOptions, ef_search)),
    (
        c"probes",
        c"Lists visited by searches in this index; 0 = by size",
        0,
        0,
        1_000_000,
        offset_of!(RawOptions, probes),
    ),
];

/// Registers the options; once, when the library is loaded.
pub fn register() {
    let lock = pg_sys::ShareUpdateExclusiveLock as i32;
    let member =
        |name: &'static CStr, value| pg_sys::relopt_enum_elt_def { string_val: name.as_ptr(), symbol_val: value };
    let end = pg_sys::relopt_enum_elt_def { string_val: std::ptr::null(), symbol_val: 0 };
    let members = RerankMembers([member(c"sq8", 0), member(c"f16", 1), member(c"f32", 2), end]);
    let members = Box::leak(Box::new(members)).0.as_mut_ptr();
    // SAFETY: names and members live forever; called once, while the library is loaded.
    unsafe {
        let kind = pg_sys::add_reloption_kind();
        for (name, description, default, min, max, _) in INT_OPTIONS {
            pg_sys::add_int_reloption(kind, name.as_ptr(), description.as_ptr(), default, min, max, lock);
        }
        pg_sys::add_enum_reloption(
            kind,
            c"rerank".as_ptr(),
            c"Precision kept in the index for reranking".as_ptr(),
            members,
            0,
            c"Valid values are \"sq8\", \"f16\" and \"f32\".".as_ptr(),
            lock,
        );
        pg_sys::add_string_reloption(
            kind,
            c"recent_threshold".as_ptr(),
            c"Age from which a row is old; infinity = never".as_ptr(),
            ptr::null(),
            Some(validate_threshold),
            lock,
        );
        pg_sys::add_string_reloption(
            kind,
            c"partition_interval".as_ptr(),
            c"Time range of one old partition".as_ptr(),
            ptr::null(),
            Some(validate_partition_interval),
            lock,
        );
        pg_sys::add_bool_reloption(
            kind,
            c"auto_compact".as_ptr(),
            c"Compaction by background worker and vacuum".as_ptr(),
            true,
            lock,
        );
        pg_sys::add_string_reloption(
            kind,
            c"source".as_ptr(),
            c"Archive that CREATE INDEX builds from: server, space, manifest".as_ptr(),
            ptr::null(),
            Some(validate_source),
            lock,
        );
        KIND.get_or_init(|| kind);
    }
}

fn element(name: &'static CStr, kind: pg_sys::relopt_type::Type, offset: usize) -> pg_sys::relopt_parse_elt {
    pg_sys::relopt_parse_elt {
        optname: name.as_ptr(),
        opttype: kind,
        offset: offset as i32,
        #[cfg(feature = "pg18")]
        isset_offset: 0,
    }
}

/// `amoptions`.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn parse(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    use pg_sys::relopt_type::{RELOPT_TYPE_BOOL, RELOPT_TYPE_ENUM, RELOPT_TYPE_INT, RELOPT_TYPE_STRING};
    let mut elements: Vec<_> = INT_OPTIONS.iter().map(|o| element(o.0, RELOPT_TYPE_INT, o.5)).collect();
    elements.extend([
        element(c"rerank", RELOPT_TYPE_ENUM, offset_of!(RawOptions, rerank)),
        element(c"recent_threshold", RELOPT_TYPE_STRING, offset_of!(RawOptions, recent_threshold)),
        element(c"partition_interval", RELOPT_TYPE_STRING, offset_of!(RawOptions, partition_interval)),
        element(c"auto_compact", RELOPT_TYPE_BOOL, offset_of!(RawOptions, auto_compact)),
        element(c"source", RELOPT_TYPE_STRING, offset_of!(RawOptions, source)),
    ]);
    let kind = *KIND.get().expect("options are registered when the library is loaded");
    // SAFETY: the elements describe fields of `RawOptions`.
    let parsed = unsafe {
        pg_sys::build_reloptions(
            options,
            validate,
            kind,
            size_of::<RawOptions>(),
            elements.as_ptr(),
            elements.len() as i32,
        )
    };
    if validate && !parsed.is_null() {
        // SAFETY: just made.
        let options = unsafe { Options::from_raw(parsed.cast()) };
        if options.recent_rows == 0 && options.recent_threshold == i64::MAX {
            let message = "\"recent_rows\" = 0 and \"recent_threshold\" = infinity contradict each other";
            Fault::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
                .detail("The first says that no row is recent, the second that every row is.")
                .raise();
        }
        if options.ef_construction < 2 * options.m {
            let message = "ef_construction must be greater than or equal to 2 * m";
            raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message);
        }
    }
    parsed.cast()
}
