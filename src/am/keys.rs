//! Key columns: the types they may have, and conditions of a query as ranges of stored values.
//!
//! A stored value is an `i64` that sorts as the column does: an integer itself, `bool` as 0 and 1, `date` as days and
//! timestamps as microseconds since 2000-01-01. The infinities of PostgreSQL's dates and times are its smallest and
//! largest values, so they sort where they belong.

use crate::pg::key;
use ann::index::AgeKey;
use ann::keys::Condition;

/// Type of a key column, or of what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Int2,
    Int4,
    Int8,
    Bool,
    Date,
    Timestamp,
    Timestamptz,
}

/// A comparison, `column OPERATOR argument`. The numbers are those of the operator classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Less = 1,
    LessOrEqual = 2,
    Equal = 3,
    GreaterOrEqual = 4,
    Greater = 5,
}

impl Comparison {
    pub const ALL: [Self; 5] = [Self::Less, Self::LessOrEqual, Self::Equal, Self::GreaterOrEqual, Self::Greater];

    pub fn of_strategy(strategy: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&comparison| comparison as u16 == strategy)
    }
}

/// What types have in common that may be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Integer,
    Bool,
    Datetime,
}

const DAY: i128 = 86_400_000_000;
/// Beyond all values: infinity, while values of different types are compared.
const INFINITY: i128 = 1 << 100;

impl KeyType {
    pub const ALL: [Self; 7] =
        [Self::Int2, Self::Int4, Self::Int8, Self::Bool, Self::Date, Self::Timestamp, Self::Timestamptz];

    fn family(self) -> Family {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => Family::Integer,
            Self::Bool => Family::Bool,
            Self::Date | Self::Timestamp | Self::Timestamptz => Family::Datetime,
        }
    }

    /// Whether an operator class may have operators between the two.
    pub fn compares_with(self, other: Self) -> bool {
        self.family() == other.family()
    }

    /// Smallest and largest value: for dates and times, the infinities.
    fn ends(self) -> (i64, i64) {
        if self == Self::Date { (i64::from(i32::MIN), i64::from(i32::MAX)) } else { (i64::MIN, i64::MAX) }
    }

    /// Units in which all types of the family are counted, for one of this type's values.
    fn unit(self) -> i128 {
        if self == Self::Date { DAY } else { 1 }
    }

    /// A value, counted so that all types of the family compare.
    fn position(self, value: i64) -> i128 {
        match (self.family(), self.ends()) {
            (Family::Datetime, (least, _)) if value == least => -INFINITY,
            (Family::Datetime, (_, most)) if value == most => INFINITY,
            _ => i128::from(value) * self.unit(),
        }
    }

    /// The values of this type whose positions lie in a range; `None` if there are none.
    fn values(self, from: i128, to: i128) -> Option<(i64, i64)> {
        let ((least, most), unit) = (self.ends(), self.unit());
        let (mut first, mut last) =
            (from.div_euclid(unit) + i128::from(from.rem_euclid(unit) > 0), to.div_euclid(unit));
        if self.family() == Family::Datetime {
            if from > INFINITY || to < -INFINITY {
                return None;
            }
            // The ends stand for infinity: a range takes them in only if it ends there.
            first = if from <= -INFINITY { i128::from(least) } else { first.max(i128::from(least) + 1) };
            last = if to >= INFINITY { i128::from(most) } else { last.min(i128::from(most) - 1) };
            // Finite positions of another type may lie beyond all finite values of this one.
            first = first.min(i128::from(most));
            last = last.max(i128::from(least));
        }
        let (first, last) = (first.max(i128::from(least)), last.min(i128::from(most)));
        (first <= last).then_some((first as i64, last as i64))
    }
}

/// What an argument of a comparison stands for.
struct Argument {
    /// In the order of the column's family.
    position: i128,
    /// How far from there the values may be that compare as equal.
    slack: i128,
    /// Whether a comparison of a stored value with the argument must be done again by the server.
    recheck: bool,
}

impl Argument {
    /// Where the time zone decides, the argument is taken to the column's side, as the server's comparison does it for
    /// columns with time zone. Those without are themselves what the server converts, with an offset that is not that of
    /// the argument's time, but differs from it by a day at most.
    fn new(of: KeyType, argument_type: KeyType, value: i64) -> Self {
        match (of, argument_type) {
            (KeyType::Timestamptz, KeyType::Date | KeyType::Timestamp) => {
                let (instant, overflow) = key::instant(argument_type, value);
                let position = match overflow {
                    // Later than every finite time, and earlier than infinity; likewise before them.
                    1.. => INFINITY - 1,
                    ..0 => 1 - INFINITY,
                    0 => KeyType::Timestamptz.position(instant),
                };
                Self { position, slack: 0, recheck: true }
            }
            (KeyType::Date | KeyType::Timestamp, KeyType::Timestamptz) => match key::local_time(value) {
                Some(local) => Self { position: KeyType::Timestamp.position(local), slack: 2 * DAY, recheck: true },
                // POSIX allows for offsets of up to a week.
                None => Self { position: argument_type.position(value), slack: 10 * DAY, recheck: true },
            },
            _ => Self { position: argument_type.position(value), slack: 0, recheck: false },
        }
    }
}

/// The condition that rows pass for which `column OPERATOR argument` holds, and whether the server must ask again for
/// each row that passes: it must where the time zone decides.
pub fn condition(
    column: usize,
    of: KeyType,
    comparison: Comparison,
    argument_type: KeyType,
    argument: i64,
) -> (Condition, bool) {
    let Argument { position: at, slack, recheck } = Argument::new(of, argument_type, argument);
    let (from, to) = match comparison {
        Comparison::Less => (-INFINITY, at - 1 + slack),
        Comparison::LessOrEqual => (-INFINITY, at + slack),
        Comparison::Equal => (at - slack, at + slack),
        Comparison::GreaterOrEqual => (at - slack, INFINITY),
        Comparison::Greater => (at + 1 - slack, INFINITY),
    };
    let (min, max) = of.values(from, to).unwrap_or(NOTHING);
    (Condition { column, min, max, null: false }, recheck)
}

/// A range that holds no value.
const NOTHING: (i64, i64) = (i64::MAX, i64::MIN);

/// `column IS NULL`.
pub fn is_null(column: usize) -> Condition {
    Condition { column, min: NOTHING.0, max: NOTHING.1, null: true }
}

/// `column IS NOT NULL`.
pub fn is_not_null(column: usize) -> Condition {
    Condition { column, min: i64::MIN, max: i64::MAX, null: false }
}

/// A comparison with NULL, which no row passes.
pub fn never(column: usize) -> Condition {
    Condition { column, min: NOTHING.0, max: NOTHING.1, null: false }
}

/// The key column that tells a row's age: the first of a date or timestamp type.
pub fn age_key(types: &[KeyType]) -> Option<AgeKey> {
    let column = types.iter().position(|of| of.family() == Family::Datetime)?;
    Some(AgeKey { column, in_days: types[column] == KeyType::Date })
}
