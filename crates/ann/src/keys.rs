//! Key columns: values that are kept beside a row's heap TID, conditions on them, and the range that a segment or a
//! list has of them.
//!
//! Values are `i64` that sort as the column does; what they stand for, the caller knows.

use crate::page::{get_u64, put_u64};
use crate::shape::{HeapTid, TID_SIZE, get_tid, put_tid};

/// Key columns that an index has at most.
pub const MAX_KEYS: usize = 8;

/// Values of a row's key columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keys {
    /// Bit `i`: column `i` is NULL. The value of such a column is 0.
    nulls: u8,
    values: [i64; MAX_KEYS],
}

impl Keys {
    /// Of the columns in order.
    ///
    /// # Panics
    /// If there are more than [`MAX_KEYS`].
    pub fn new(columns: &[Option<i64>]) -> Self {
        let mut keys = Self::default();
        for (i, &value) in columns.iter().enumerate() {
            keys.values[i] = value.unwrap_or(0);
            keys.nulls |= u8::from(value.is_none()) << i;
        }
        keys
    }

    /// The byte of NULLs, then all values, little-endian: the same for the same values, on any machine.
    pub fn to_bytes(&self) -> [u8; 1 + 8 * MAX_KEYS] {
        let mut bytes = [0; 1 + 8 * MAX_KEYS];
        bytes[0] = self.nulls;
        for (to, value) in bytes[1..].chunks_exact_mut(8).zip(&self.values) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Value of a column; `None` is NULL.
    pub fn get(&self, column: usize) -> Option<i64> {
        (self.nulls >> column & 1 == 0).then(|| self.values[column])
    }
}

/// A row as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Where the row is in the heap.
    pub tid: HeapTid,
    /// Values of the key columns.
    pub keys: Keys,
}

impl Row {
    /// A row of an index without key columns.
    pub fn of_tid(tid: HeapTid) -> Self {
        Self { tid, keys: Keys::default() }
    }

    /// Bytes of a row with so many key columns on a page.
    pub const fn size(keys: usize) -> usize {
        if keys == 0 { TID_SIZE } else { 8 + 8 * keys }
    }

    /// Reads [`Self::size`] bytes.
    pub fn read(b: &[u8], keys: usize) -> Self {
        let mut row = Self::of_tid(get_tid(b));
        if keys > 0 {
            row.keys.nulls = b[TID_SIZE];
            for (i, value) in row.keys.values[..keys].iter_mut().enumerate() {
                *value = get_u64(b, 8 + 8 * i) as i64;
            }
        }
        row
    }

    /// Writes [`Self::size`] bytes.
    pub fn write(&self, b: &mut [u8], keys: usize) {
        put_tid(b, self.tid);
        if keys > 0 {
            b[TID_SIZE] = self.keys.nulls;
            b[TID_SIZE + 1] = 0;
            for (i, &value) in self.keys.values[..keys].iter().enumerate() {
                put_u64(b, 8 + 8 * i, value as u64);
            }
        }
    }
}

/// Rows in their form on pages, one after the other: a row without keys takes 6 bytes and not 80.
pub struct PackedRows {
    keys: usize,
    bytes: Vec<u8>,
}

impl PackedRows {
    /// No rows yet, with so many key columns each.
    pub fn new(keys: usize) -> Self {
        Self { keys, bytes: Vec::new() }
    }

    /// Rows added.
    pub fn len(&self) -> usize {
        self.bytes.len() / Row::size(self.keys)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Key columns of each row.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Forgets the rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len * Row::size(self.keys));
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: &Row) {
        let start = self.bytes.len();
        self.bytes.resize(start + Row::size(self.keys), 0);
        row.write(&mut self.bytes[start..], self.keys);
    }

    /// The `i`-th row.
    pub fn get(&self, i: usize) -> Row {
        let size = Row::size(self.keys);
        Row::read(&self.bytes[i * size..][..size], self.keys)
    }
}

/// What some rows have in one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSummary {
    /// Smallest value; above [`Self::max`] where all are NULL.
    pub min: i64,
    /// Largest value.
    pub max: i64,
    /// Whether some are NULL.
    pub has_null: bool,
}

/// The ranges of some rows' keys. Rows may have gone since: a summary never excludes a row that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySummary {
    columns: [ColumnSummary; MAX_KEYS],
}

impl Default for KeySummary {
    /// Of no rows.
    fn default() -> Self {
        Self { columns: [ColumnSummary { min: i64::MAX, max: i64::MIN, has_null: false }; MAX_KEYS] }
    }
}

impl KeySummary {
    /// Bytes of a summary of so many columns on a page.
    pub const fn size(keys: usize) -> usize {
        if keys == 0 { 0 } else { 8 + 16 * keys }
    }

    /// What the rows have in a column.
    pub fn column(&self, column: usize) -> ColumnSummary {
        self.columns[column]
    }

    /// Takes a row in; whether that changed anything. Columns that the index does not have do not matter.
    pub fn add(&mut self, keys: &Keys, columns: usize) -> bool {
        let before = *self;
        for (i, column) in self.columns[..columns].iter_mut().enumerate() {
            match keys.get(i) {
                Some(value) => {
                    column.min = column.min.min(value);
                    column.max = column.max.max(value);
                }
                None => column.has_null = true,
            }
        }
        *self != before
    }

    /// Whether the row lies within the summary.
    pub fn covers(&self, keys: &Keys, columns: usize) -> bool {
        let mut with = *self;
        !with.add(keys, columns)
    }

    /// Takes in what another summary covers.
    pub fn join(&mut self, other: &Self) {
        for (mine, its) in self.columns.iter_mut().zip(&other.columns) {
            mine.min = mine.min.min(its.min);
            mine.max = mine.max.max(its.max);
            mine.has_null |= its.has_null;
        }
    }

    /// Reads [`Self::size`] bytes.
    pub fn read(b: &[u8], keys: usize) -> Self {
        let mut summary = Self::default();
        for (i, column) in summary.columns[..keys].iter_mut().enumerate() {
            column.has_null = b[0] >> i & 1 == 1;
            column.min = get_u64(b, 8 + 16 * i) as i64;
            column.max = get_u64(b, 16 + 16 * i) as i64;
        }
        summary
    }

    /// Writes [`Self::size`] bytes.
    pub fn write(&self, b: &mut [u8], keys: usize) {
        if keys == 0 {
            return;
        }
        b[..8].fill(0);
        for (i, column) in self.columns[..keys].iter().enumerate() {
            b[0] |= u8::from(column.has_null) << i;
            put_u64(b, 8 + 16 * i, column.min as u64);
            put_u64(b, 16 + 16 * i, column.max as u64);
        }
    }
}

/// What rows pass in one column: values from `min` to `max`, NULL if `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which column.
    pub column: usize,
    /// Smallest value that passes; above [`Self::max`] where none does.
    pub min: i64,
    /// Largest value that passes.
    pub max: i64,
    /// Whether NULL passes.
    pub null: bool,
}

/// Conditions that a row must all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One a column at most.
    conditions: Vec<Condition>,
}

impl Filter {
    /// No conditions: every row passes.
    pub const fn none() -> Self {
        Self { conditions: Vec::new() }
    }

    /// Whether every row passes.
    pub fn is_none(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether no row can pass, whatever its keys.
    pub fn is_impossible(&self) -> bool {
        self.conditions.iter().any(|c| c.min > c.max && !c.null)
    }

    /// The conditions, one a column at most.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Adds a condition; with one on the same column rows must pass both.
    pub fn and(&mut self, condition: Condition) {
        match self.conditions.iter_mut().find(|c| c.column == condition.column) {
            Some(known) => {
                known.min = known.min.max(condition.min);
                known.max = known.max.min(condition.max);
                known.null &= condition.null;
            }
            None => self.conditions.push(condition),
        }
    }

    /// Whether a row passes.
    #[inline]
    pub fn passes(&self, keys: &Keys) -> bool {
        self.conditions.iter().all(|c| match keys.get(c.column) {
            Some(value) => (c.min..=c.max).contains(&value),
            None => c.null,
        })
    }

    /// Whether a row passes whose [`Row::size`] bytes on a page these are; the index has the columns of the conditions.
    #[inline]
    pub fn passes_bytes(&self, row: &[u8]) -> bool {
        self.conditions.iter().all(|c| {
            if row[TID_SIZE] >> c.column & 1 == 1 {
                return c.null;
            }
            let value = get_u64(row, 8 + 8 * c.column) as i64;
            c.min <= value && value <= c.max
        })
    }

    /// Whether a row that the summary covers can pass.
    pub fn may_pass(&self, summary: &KeySummary) -> bool {
        self.conditions.iter().all(|c| {
            let has = summary.column(c.column);
            c.null && has.has_null || c.min.max(has.min) <= c.max.min(has.max)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Keys> {
        prop::collection::vec(prop::option::weighted(0.8, -5i64..5), 3).prop_map(|columns| Keys::new(&columns))
    }

    fn condition() -> impl Strategy<Value = Condition> {
        (0usize..3, -6i64..6, -6i64..6, any::<bool>()).prop_map(|(column, min, max, null)| Condition {
            column,
            min,
            max,
            null,
        })
    }

    proptest! {
        #[test]
        fn a_row_that_passes_is_never_excluded_by_a_summary(
            rows in prop::collection::vec(keys(), 1..6),
            conditions in prop::collection::vec(condition(), 0..5),
        ) {
            let (mut filter, mut summary) = (Filter::none(), KeySummary::default());
            conditions.iter().for_each(|&c| filter.and(c));
            for row in &rows {
                summary.add(row, 3);
            }
            for row in &rows {
                let each = conditions.iter().all(|c| row.get(c.column).map_or(c.null, |v| c.min <= v && v <= c.max));
                prop_assert_eq!(filter.passes(row), each);
                let mut bytes = vec![0xAA; Row::size(3)];
                Row { tid: HeapTid { block: u32::MAX, offset: u16::MAX }, keys: *row }.write(&mut bytes, 3);
                prop_assert_eq!(filter.passes_bytes(&bytes), each);
                prop_assert!(!each || !filter.is_impossible());
                prop_assert!(summary.covers(row, 3));
                prop_assert!(!each || filter.may_pass(&summary));
            }
        }

        #[test]
        fn rows_and_summaries_are_read_as_written(rows in prop::collection::vec(keys(), 1..6)) {
            let (mut packed, mut summary) = (PackedRows::new(3), KeySummary::default());
            for (i, keys) in rows.iter().enumerate() {
                packed.push(&Row { tid: HeapTid { block: 7, offset: i as u16 }, keys: *keys });
                summary.add(keys, 3);
            }
            prop_assert_eq!(packed.len(), rows.len());
            for (i, keys) in rows.iter().enumerate() {
                let row = packed.get(i);
                prop_assert_eq!((row.tid.offset, row.keys), (i as u16, *keys));
            }
            let mut bytes = vec![0xAA; KeySummary::size(3)];
            summary.write(&mut bytes, 3);
            prop_assert_eq!(KeySummary::read(&bytes, 3), summary);
        }
    }

    #[test]
    fn a_summary_of_nulls_has_no_values() {
        let mut summary = KeySummary::default();
        assert!(summary.add(&Keys::new(&[None]), 1));
        assert!(!summary.add(&Keys::new(&[None]), 1));
        let all = Condition { column: 0, min: i64::MIN, max: i64::MAX, null: false };
        let mut filter = Filter::none();
        filter.and(all);
        assert!(!filter.may_pass(&summary));
        assert!(!filter.may_pass(&KeySummary::default()));
    }
}
