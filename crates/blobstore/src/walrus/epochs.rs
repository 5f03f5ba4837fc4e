//! Which epoch it is. No HTTP interface tells it; every paid store does, and between two of them the clock.

use crate::Expiry;
use crate::receipts::Entry;

/// 2000-01-01 in microseconds since 1970.
const Y2000: i64 = 946_684_800_000_000;

/// Keys of [`crate::receipts::Outcome::details`]: the epoch in which a container was stored, and when (microseconds since 1970).
pub(super) const EPOCH: &str = "epoch";
pub(super) const STORED: &str = "stored";

/// What answers of the network have told. Times in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// Length of an epoch, if an option tells it.
    length: Option<i64>,
    seen: Option<Seen>,
}

/// The latest epoch that was seen. It began after `after` and not after `by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    epoch: u64,
    after: Option<i64>,
    by: i64,
    /// Last time at which it was seen.
    last: i64,
}

impl Clock {
    pub fn new(epoch_seconds: Option<u64>, entries: &[Entry]) -> Self {
        let length = epoch_seconds.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1_000_000));
        let mut clock = Self { length, seen: None };
        let number = |entry: &Entry, key: &str| entry.outcome.as_ref()?.details.get(key)?.parse::<i64>().ok();
        let mut seen: Vec<(i64, i64)> =
            entries.iter().filter_map(|entry| Some((number(entry, STORED)?, number(entry, EPOCH)?))).collect();
        seen.sort_unstable();
        for (at, epoch) in seen {
            clock.see(u64::try_from(epoch).unwrap_or(0), at);
        }
        clock
    }

    /// An answer at `at` told that it was `epoch`. The last one is believed: a network may begin anew.
    pub fn see(&mut self, epoch: u64, at: i64) {
        let after = match self.seen {
            Some(seen) if seen.epoch == epoch => {
                self.seen = Some(Seen { last: seen.last.max(at), by: seen.by.min(at), ..seen });
                return;
            }
            Some(seen) if seen.epoch.checked_add(1) == Some(epoch) => Some(seen.last),
            _ => None,
        };
        self.seen = Some(Seen { epoch, after, by: at, last: at });
    }

    /// When the epoch that was seen began, at the earliest.
    fn earliest(&self, seen: Seen) -> Option<i64> {
        let one_before = self.length.map(|length| seen.by.saturating_sub(length));
        match (one_before, seen.after) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        }
    }

    /// The lowest number that the epoch at `time` may have.
    pub fn at_least(&self, time: i64) -> Option<u64> {
        let seen = self.seen?;
        let passed = self.length.map_or(0, |length| time.saturating_sub(seen.by).div_euclid(length));
        Some(seen.epoch.saturating_add_signed(passed))
    }

    /// The highest number that the epoch at `time` may have.
    pub fn at_most(&self, time: i64) -> Option<u64> {
        let seen = self.seen?;
        match (self.length, self.earliest(seen)) {
            (Some(length), Some(earliest)) => {
                Some(seen.epoch.saturating_add_signed(time.saturating_sub(earliest).div_euclid(length)))
            }
            _ => Some(seen.epoch),
        }
    }

    /// When `epoch` begins, at the earliest; the archive that ends then should be renewed before.
    pub fn expiry(&self, epoch: u64) -> Expiry {
        let at = self.length.zip(self.seen).and_then(|(length, seen)| {
            let epochs = i64::try_from(epoch).ok()?.checked_sub(i64::try_from(seen.epoch).ok()?)?;
            self.earliest(seen)?.checked_add(length.checked_mul(epochs)?)?.checked_sub(Y2000)
        });
        Expiry { epoch, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn clock(days: &[(u64, i64)]) -> Clock {
        let mut clock = Clock { length: Some(DAY), seen: None };
        days.iter().for_each(|(epoch, at)| clock.see(*epoch, *at));
        clock
    }

    #[test]
    fn nothing_seen_nothing_known() {
        let clock = clock(&[]);
        assert_eq!((clock.at_least(5), clock.at_most(5), clock.expiry(3).at), (None, None, None));
    }

    #[test]
    fn one_answer_leaves_a_day_of_doubt() {
        let clock = clock(&[(34, 100 * DAY)]);
        assert_eq!((clock.at_least(100 * DAY), clock.at_most(100 * DAY)), (Some(34), Some(35)));
        assert_eq!((clock.at_least(102 * DAY - 1), clock.at_most(102 * DAY - 1)), (Some(35), Some(36)));
        assert_eq!(clock.expiry(36).at, Some(101 * DAY - Y2000));
        assert_eq!(clock.at_least(99 * DAY), Some(33));
    }

    #[test]
    fn answers_on_both_sides_of_a_boundary_narrow_it() {
        let clock = clock(&[(34, 100 * DAY), (35, 100 * DAY + 10), (35, 100 * DAY + 50)]);
        assert_eq!((clock.at_least(101 * DAY), clock.at_most(101 * DAY)), (Some(35), Some(36)));
        assert_eq!((clock.at_least(101 * DAY + 10), clock.at_most(101 * DAY - 1)), (Some(36), Some(35)));
    }

    #[test]
    fn a_network_that_begins_anew() {
        let clock = clock(&[(400, 100 * DAY), (3, 101 * DAY)]);
        assert_eq!(clock.at_least(101 * DAY), Some(3));
    }
}
