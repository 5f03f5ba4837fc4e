//! Settings.

use crate::archive::Source;
use crate::pg::encoding::from_server_lossy;
use crate::pg::settings::{SetBy, define_text, minute_of_day};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;

static EF_SEARCH: GucSetting<i32> = GucSetting::<i32>::new(0);
static PROBES: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_SCAN_TUPLES: GucSetting<i32> = GucSetting::<i32>::new(0);
static COMPACTION_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static LOG_COMPACTION_MIN_DURATION: GucSetting<i32> = GucSetting::<i32>::new(600_000);
static QUIET_HOURS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static IMPORT_FROM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static ARCHIVE_CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1 << 20);

/// Width of a search where neither the session nor the index says.
const DEFAULT_EF_SEARCH: usize = 40;

pub(crate) fn register() {
    GucRegistry::define_int_guc(
        c"hybrid.ef_search",
        c"Width of the search in HNSW segments.",
        c"More finds more and takes longer. 0 means the index's own value, else 40.",
        &EF_SEARCH,
        0,
        10_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"hybrid.probes",
        c"Lists of old partitions that a search reads.",
        c"More finds more and takes longer. 0 means the index's own value, else by the number of lists.",
        &PROBES,
        0,
        1_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"hybrid.max_scan_tuples",
        c"Rows after which a filtered scan gives up looking.",
        c"0 means never.",
        &MAX_SCAN_TUPLES,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"hybrid.compaction_workers",
        c"Background workers that compact the indexes of a database.",
        c"0 means none: VACUUM then does a step of it each time.",
        &COMPACTION_WORKERS,
        0,
        64,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"hybrid.log_compaction_min_duration",
        c"Time from which a step of compaction is logged.",
        c"0 logs all steps, -1 none.",
        &LOG_COMPACTION_MIN_DURATION,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    define_text(
        0,
        [
            c"hybrid.quiet_hours",
            c"Hours to which background compaction is confined, but for flushes.",
            c"As in 22:00-06:00, in the server's time zone. Empty means any time.",
        ],
        &QUIET_HOURS,
        SetBy::Superuser,
        |text| match QuietHours::parse(text) {
            Some(_) => Ok(()),
            None => Err(c"Write two times of day, as in 22:00-06:00, or nothing."),
        },
    );
    register_archive();
    crate::pg::settings::reserve_prefix(c"hybrid");
}

fn register_archive() {
    define_text(
        1,
        [
            c"hybrid.import_from",
            c"Server whose archives CREATE INDEX looks through before it builds.",
            c"The name of a server of hybrid_store, or such a name, a space and a manifest. Empty means none.",
        ],
        &IMPORT_FROM,
        SetBy::User,
        |text| match text.trim().is_empty() || Source::parse(text).is_some() {
            true => Ok(()),
            false => Err(c"Write the name of a server, or a name, a space and a manifest, or nothing."),
        },
    );
    GucRegistry::define_int_guc(
        c"hybrid.archive_cache_size",
        c"Size of the cache of fetched objects in the data directory.",
        c"All sessions share it. 0 means none.",
        &ARCHIVE_CACHE_SIZE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
}

/// Two times of day, in minutes after midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QuietHours {
    from: u32,
    /// Not included. Before `from` where midnight lies between; the same: the whole day.
    to: u32,
}

impl QuietHours {
    /// `Some(None)`: empty. `None`: not two times of day.
    fn parse(text: &str) -> Option<Option<Self>> {
        if text.trim().is_empty() {
            return Some(None);
        }
        let (from, to) = text.split_once('-')?;
        Some(Some(Self { from: time_of_day(from)?, to: time_of_day(to)? % (24 * 60) }))
    }

    fn contain(self, minute: u32) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// Minutes after midnight of `22:00`; `24:00` is midnight.
fn time_of_day(text: &str) -> Option<u32> {
    let number = |digits: &str| {
        let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten()
    };
    let (hour, minute) = text.trim().split_once(':')?;
    let (hour, minute) = (number(hour)?, number(minute).filter(|_| minute.len() == 2)?);
    (hour < 24 && minute < 60 || hour == 24 && minute == 0).then_some(hour * 60 + minute)
}

/// Workers that a database may have.
pub(crate) fn compaction_workers() -> u16 {
    COMPACTION_WORKERS.get() as u16
}

/// Microseconds from which a step of compaction is logged.
pub(crate) fn log_compaction_from() -> Option<i64> {
    u32::try_from(LOG_COMPACTION_MIN_DURATION.get()).ok().map(|ms| i64::from(ms) * 1000)
}

/// Whether background compaction may do more than flushes now.
pub(crate) fn is_quiet() -> bool {
    let text = QUIET_HOURS.get().unwrap_or_default();
    let hours = QuietHours::parse(&text.to_string_lossy()).flatten();
    hours.is_none_or(|hours| hours.contain(minute_of_day()))
}

/// Where CREATE INDEX may look for an archive.
pub(crate) fn import_from() -> Option<Source> {
    Source::parse(&from_server_lossy(&IMPORT_FROM.get()?))
}

/// Bytes of the cache of fetched objects.
pub(crate) fn archive_cache_size() -> u64 {
    u64::try_from(ARCHIVE_CACHE_SIZE.get()).unwrap_or(0) << 10
}

/// The width in force, given that of the index (0 = none).
pub(crate) fn ef_search(of_index: usize) -> usize {
    match (EF_SEARCH.get(), of_index) {
        (0, 0) => DEFAULT_EF_SEARCH,
        (0, of_index) => of_index,
        (session, _) => session as usize,
    }
}

/// Lists to read, given those of the index; 0 = by their number.
pub(crate) fn probes(of_index: usize) -> usize {
    match PROBES.get() {
        0 => of_index,
        session => session as usize,
    }
}

/// Rows after which a scan ends; 0 = never.
pub(crate) fn max_scan_tuples() -> u64 {
    MAX_SCAN_TUPLES.get() as u64
}

#[cfg(test)]
mod quiet_hours_tests {
    use super::QuietHours;

    #[test]
    fn times_of_day() {
        let parse = |text| QuietHours::parse(text).map(|hours| hours.map(|h| (h.from, h.to)));
        assert_eq!(parse(""), Some(None));
        assert_eq!(parse("22:00-06:00"), Some(Some((1320, 360))));
        assert_eq!(parse(" 8:30 - 24:00 "), Some(Some((510, 0))));
        for wrong in
            ["22-6", "22:00", "24:01-06:00", "22:60-06:00", "-1:00-06:00", "22:0-06:00", "a:00-06:00", "1:00-2:00-3:00"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn midnight_may_lie_between() {
        let contains = |text, minute| QuietHours::parse(text).flatten().is_some_and(|h| h.contain(minute));
        assert!(contains("22:00-06:00", 23 * 60) && contains("22:00-06:00", 0) && !contains("22:00-06:00", 6 * 60));
        assert!(contains("08:00-09:00", 8 * 60) && !contains("08:00-09:00", 9 * 60));
        assert!(contains("20:00-24:00", 1439) && !contains("20:00-24:00", 0));
        assert!(contains("00:00-24:00", 0) && contains("00:00-24:00", 1439));
    }
}
