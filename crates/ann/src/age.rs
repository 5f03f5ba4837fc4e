//! Which rows are recent and which are old.

use crate::index::{AgeKey, Parameters};
use crate::keys::Keys;

impl Parameters {
    /// Which rows are recent.
    pub fn recency(&self) -> Recency {
        match self.age_key {
            _ if self.recent_rows == 0 => Recency::None,
            _ if self.recent_threshold == i64::MAX => Recency::All,
            Some(age) => Recency::ByAge { age, threshold: self.recent_threshold },
            None => Recency::ByArrival(self.recent_rows),
        }
    }

    /// Whether an active graph is to be sealed: it has so many elements, and is open since `created`.
    ///
    /// By the clock and never by the range of keys: one odd key would seal a graph of one row.
    pub fn is_full(&self, elements: u64, created: i64, now: i64) -> bool {
        let (most, age) = match self.recency() {
            Recency::ByArrival(rows) => (self.segment_rows.min((rows / 4).max(1)), i64::MAX),
            Recency::ByAge { threshold, .. } => (self.segment_rows, threshold / 2),
            Recency::All | Recency::None => (self.segment_rows, i64::MAX),
        };
        elements >= most || elements >= SEALED_BY_AGE && now.saturating_sub(created) > age
    }
}

/// Elements that a graph has at least when its age seals it.
const SEALED_BY_AGE: u64 = 10_000;

/// Which rows are recent. Where a row lives is a matter of speed only, so none of this needs to be exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recency {
    /// All: everything stays in graphs.
    All,
    /// None: everything goes to IVF segments.
    None,
    /// Those whose age key is less than `threshold` microseconds before the clock, or after it. NULL is old.
    ByAge {
        /// Which key column.
        age: AgeKey,
        /// Microseconds.
        threshold: i64,
    },
    /// So many of those that came last.
    ByArrival(u64),
}

/// A moment that splits rows by their age key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeCut {
    /// Which key column.
    pub column: usize,
    /// Values below are old.
    pub value: i64,
}

impl AgeCut {
    /// Between old and recent at `now`, microseconds since 2000-01-01.
    pub fn new(age: AgeKey, threshold: i64, now: i64) -> Self {
        let cut = now.saturating_sub(threshold);
        Self { column: age.column, value: if age.in_days { cut.div_euclid(MICROSECONDS_A_DAY) } else { cut } }
    }

    /// Whether a row is old.
    pub fn is_old(self, keys: &Keys) -> bool {
        keys.get(self.column).is_none_or(|value| value < self.value)
    }
}

/// Microseconds.
pub const MICROSECONDS_A_DAY: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_old_and_the_future_is_recent() {
        let now = 100 * MICROSECONDS_A_DAY + 5;
        for (in_days, unit) in [(false, MICROSECONDS_A_DAY), (true, 1)] {
            let cut = AgeCut::new(AgeKey { column: 1, in_days }, 10 * MICROSECONDS_A_DAY, now);
            let is_old = |age: Option<i64>| cut.is_old(&Keys::new(&[Some(0), age]));
            assert!(is_old(None) && is_old(Some(89 * unit)) && is_old(Some(i64::MIN)));
            assert!(!is_old(Some(91 * unit)) && !is_old(Some(500 * unit)) && !is_old(Some(i64::MAX)));
        }
        // A day is old when its last moment is.
        let days = AgeCut::new(AgeKey { column: 0, in_days: true }, 10 * MICROSECONDS_A_DAY, now);
        assert!(days.is_old(&Keys::new(&[Some(89)])) && !days.is_old(&Keys::new(&[Some(90)])));
        let before_2000 = AgeCut::new(AgeKey { column: 0, in_days: true }, MICROSECONDS_A_DAY, 0);
        assert_eq!(before_2000.value, -1);
        let clock_at_the_edge = AgeCut::new(AgeKey { column: 0, in_days: false }, 7, i64::MIN);
        assert!(!clock_at_the_edge.is_old(&Keys::new(&[Some(i64::MIN)])));
    }
}
