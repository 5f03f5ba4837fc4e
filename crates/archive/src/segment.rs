//! What chunks of graphs and of lists have in common: a head, and the rows of elements.

use crate::bytes::{Fingerprints, Reader, put_u32, put_varint};
use crate::error::{Error, Result};
use crate::{Fingerprint, ROWS_A_PUSH};

/// Rows of the elements of a chunk under way.
#[derive(Default)]
pub(crate) struct Rows {
    /// Rows at the beginning, of the element before the first one of the chunk.
    more: u32,
    /// Rows of each element that begins in the chunk.
    counts: Vec<u32>,
    rows: Vec<Fingerprint>,
}

impl Rows {
    /// An element with these rows begins.
    pub(crate) fn begin(&mut self, rows: &[Fingerprint]) {
        self.counts.push(rows.len() as u32);
        self.rows.extend_from_slice(rows);
    }

    /// The last element has these rows, too.
    pub(crate) fn extend(&mut self, rows: &[Fingerprint]) {
        *self.counts.last_mut().unwrap_or(&mut self.more) += rows.len() as u32;
        self.rows.extend_from_slice(rows);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.rows.is_empty()
    }

    /// About how many bytes this takes in the chunk, at most.
    pub(crate) fn len(&self) -> usize {
        Head::BYTES + self.counts.len() + 16 * self.rows.len()
    }

    /// The beginning of the chunk, when `next` is the element after it.
    pub(crate) fn head(&self, next: u32) -> Vec<u8> {
        let count = self.counts.len() as u32;
        let mut out = Vec::with_capacity(self.len() + self.len() / 2);
        [next - count, count, self.more].into_iter().for_each(|number| put_u32(&mut out, number));
        out
    }

    /// Appends how many rows each element has.
    pub(crate) fn counts_to(&mut self, out: &mut Vec<u8>) {
        self.counts.drain(..).for_each(|count| put_varint(out, count));
    }

    /// Appends the fingerprints, and starts anew.
    pub(crate) fn rows_to(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.rows.as_flattened());
        *self = Self::default();
    }
}

/// The beginning of a chunk.
pub(crate) struct Head {
    /// Elements that begin in the chunk.
    pub(crate) count: u32,
    /// Rows of the element before them.
    more: u32,
}

impl Head {
    const BYTES: usize = 12;

    /// # Errors
    /// If the chunk does not begin with the element `expected`, or goes beyond `all`.
    pub(crate) fn read(reader: &mut Reader, expected: u32, all: u32) -> Result<Self> {
        let [first, count, more] = [reader.u32()?, reader.u32()?, reader.u32()?];
        if first != expected {
            return Err(Error::damaged(format!("it begins with element {first} where {expected} should be")));
        }
        if first.checked_add(count).is_none_or(|end| end > all) {
            return Err(Error::damaged(format!("it has {count} elements from {first} on, of {all} in all")));
        }
        if more > 0 && first == 0 {
            return Err(Error::damaged("it begins with rows of no element"));
        }
        Ok(Self { count, more })
    }

    /// Rows of each element, and in all.
    pub(crate) fn row_counts(&self, reader: &mut Reader) -> Result<(Vec<u32>, u64)> {
        // At least a byte each: a count beyond that allocates nothing.
        if self.count as usize > reader.left() {
            return Err(Error::damaged("it is cut off"));
        }
        let counts = (0..self.count).map(|_| reader.varint()).collect::<Result<Vec<_>>>()?;
        let all = u64::from(self.more) + counts.iter().map(|&count| u64::from(count)).sum::<u64>();
        Ok((counts, all))
    }

    /// Gives the rows that belong to the element before `first` to `each`, if there are any.
    pub(crate) fn each_more(
        &self,
        first: u32,
        rows: &mut Fingerprints,
        each: impl FnOnce(u32, Vec<Fingerprint>) -> Result<()>,
    ) -> Result<()> {
        match (self.more, first.checked_sub(1)) {
            (1.., Some(before)) => each(before, rows.next(self.more)?),
            _ => Ok(()),
        }
    }
}

/// Whether so many rows of the next element, or of the last one, fit a segment of `all` elements of which `next` were
/// given.
pub(crate) fn check_push(further: bool, rows: usize, (next, all): (u32, u32)) -> Result<()> {
    if rows > ROWS_A_PUSH {
        return Err(Error::unfit(format!("an element came with {rows} rows at once; {ROWS_A_PUSH} may come at once")));
    }
    if further && next == 0 {
        return Err(Error::unfit("further rows came before the first element"));
    }
    if !further && next >= all {
        return Err(Error::unfit(format!("more elements came than the {all} of the header")));
    }
    Ok(())
}

/// Whether all elements were given.
pub(crate) fn check_end(next: u32, all: u32) -> Result<()> {
    if next == all { Ok(()) } else { Err(Error::unfit(format!("{next} elements came of the {all} of the header"))) }
}
