//! Chunks of an IVF segment: lists and the fingerprints of rows, element by element in the order of the primary list.

use crate::bytes::{BitReader, BitWriter, Reader, put_u32, put_varint, width_below};
use crate::error::{Error, Result};
use crate::segment::{Head, Rows, check_end, check_push};
use crate::{CHUNK_BYTES, Fingerprint};
use serde::{Deserialize, Serialize};

/// Most dimensions of a vector.
pub(crate) const MAX_DIMENSIONS: u16 = 16_000;
/// Most lists of a segment: bounds what a header alone makes anybody allocate.
pub(crate) const MAX_LISTS: u32 = 1 << 20;

/// What all chunks of an IVF segment have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListsHeader {
    /// Elements in all chunks; ordinals are below it.
    pub elements: u32,
    /// Lists, and centroids; at most 2^20. Only a segment without elements has none.
    pub lists: u32,
    /// Values of a centroid: 1 to 16,000.
    pub dimensions: u16,
}

impl ListsHeader {
    /// # Errors
    /// [`Error::Damaged`] if the fields are out of range.
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_DIMENSIONS).contains(&self.dimensions) {
            return Err(Error::damaged(format!("its vectors have {} dimensions", self.dimensions)));
        }
        if self.lists > MAX_LISTS || (self.lists == 0 && self.elements > 0) {
            return Err(Error::damaged(format!("it has {} lists for {} elements", self.lists, self.elements)));
        }
        Ok(())
    }
}

/// An element, or further rows of the element before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListElement {
    /// The list that it belongs to; never smaller than that of the element before.
    pub list: u32,
    /// The other list that has its posting.
    pub second: Option<u32>,
    /// One for each row, in the order of the index; may be none.
    pub rows: Vec<Fingerprint>,
    /// Not an element, but further rows of the one that came before (`list` and `second` say nothing): of an element
    /// with very many rows, chunks hold some each.
    pub further: bool,
}

/// Makes chunks of the elements of lists. The same elements make the same chunks.
pub struct ListsEncoder {
    header: ListsHeader,
    /// Ordinal of the next element.
    next: u32,
    /// List of the last element.
    last: u32,
    chunk: Rows,
    /// List of the chunk's first element, and how many elements are in it and those that follow.
    list: u32,
    runs: Vec<u32>,
    seconds: BitWriter,
}

impl ListsEncoder {
    /// # Errors
    /// If the header is out of range.
    pub fn new(header: ListsHeader) -> Result<Self> {
        header.check().map_err(Error::into_unfit)?;
        let (chunk, runs, seconds) = (Rows::default(), Vec::new(), BitWriter::default());
        Ok(Self { header, next: 0, last: 0, chunk, list: 0, runs, seconds })
    }

    /// Takes the next element, or up to [`ROWS_A_PUSH`](crate::ROWS_A_PUSH) further rows of the last one; returns a raw
    /// chunk when one is full.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the element does not belong there; the encoder is then as before.
    pub fn push(&mut self, element: &ListElement) -> Result<Option<Vec<u8>>> {
        self.check(element)?;
        if element.further {
            self.chunk.extend(&element.rows);
        } else {
            if self.runs.is_empty() {
                self.list = element.list;
            }
            self.runs.resize((element.list - self.list) as usize + 1, 0);
            if let Some(run) = self.runs.last_mut() {
                *run += 1;
            }
            self.seconds.put(element.second.map_or(0, |list| list + 1), width_below(self.header.lists + 1));
            self.chunk.begin(&element.rows);
            (self.last, self.next) = (element.list, self.next + 1);
        }
        let bytes = 4 + self.runs.len() + self.seconds.len() + self.chunk.len();
        Ok((bytes >= CHUNK_BYTES).then(|| self.take_chunk()))
    }

    fn check(&self, element: &ListElement) -> Result<()> {
        let (header, next) = (self.header, self.next);
        check_push(element.further, element.rows.len(), (next, header.elements))?;
        if element.further {
            return Ok(());
        }
        if element.list < self.last {
            return Err(Error::unfit(format!(
                "element {next} of list {} comes after list {}",
                element.list, self.last
            )));
        }
        if [Some(element.list), element.second].into_iter().flatten().any(|list| list >= header.lists) {
            return Err(Error::unfit(format!("element {next} is in a list beyond the {} there are", header.lists)));
        }
        Ok(())
    }

    fn take_chunk(&mut self) -> Vec<u8> {
        let mut out = self.chunk.head(self.next);
        put_u32(&mut out, self.list);
        self.runs.drain(..).for_each(|run| put_varint(&mut out, run));
        self.chunk.counts_to(&mut out);
        self.seconds.drain_to(&mut out);
        self.chunk.rows_to(&mut out);
        self.list = 0;
        out
    }

    /// The last chunk, if something is left for it.
    ///
    /// # Errors
    /// [`Error::Unfit`] if elements are missing.
    pub fn finish(mut self) -> Result<Option<Vec<u8>>> {
        check_end(self.next, self.header.elements)?;
        Ok((!self.chunk.is_empty()).then(|| self.take_chunk()))
    }
}

/// As [`decode_graph`](crate::decode_graph), for lists: `each` is given elements in ascending order of their lists
/// within a chunk, all lists being below [`ListsHeader::lists`]. That the next chunk goes on where this one ended is
/// for the caller to see to, if it matters there.
///
/// # Errors
/// [`Error::Damaged`], before any call of `each` where lengths and counts are wrong; those of `each`.
pub fn decode_lists(
    header: &ListsHeader,
    first: u32,
    chunk: &[u8],
    each: &mut dyn FnMut(u32, ListElement) -> Result<()>,
) -> Result<u32> {
    header.check()?;
    let mut reader = Reader::new(chunk);
    let head = Head::read(&mut reader, first, header.elements)?;
    let runs = read_runs(&mut reader, head.count, header.lists)?;
    let (row_counts, all_rows) = head.row_counts(&mut reader)?;
    let width = width_below(header.lists + 1);
    let bits = u64::from(head.count) * u64::from(width);
    let mut packed = BitReader::new(reader.take(bits.div_ceil(8) as usize)?, bits)?;
    let mut rows = reader.fingerprints(all_rows)?;
    head.each_more(first, &mut rows, |ordinal, rows| {
        each(ordinal, ListElement { rows, further: true, ..Default::default() })
    })?;

    let lists = runs.iter().flat_map(|&(list, run)| std::iter::repeat_n(list, run as usize));
    for ((ordinal, list), row_count) in (first..).zip(lists).zip(row_counts) {
        let second = packed.take(width);
        if second > header.lists {
            return Err(Error::damaged(format!("element {ordinal} is in list {} of {}", second - 1, header.lists)));
        }
        let element = ListElement { list, second: second.checked_sub(1), rows: rows.next(row_count)?, further: false };
        each(ordinal, element)?;
    }
    packed.finish()?;
    Ok(head.count)
}

/// Lists in ascending order and how many of the chunk's elements each has; none is without.
fn read_runs(reader: &mut Reader, count: u32, lists: u32) -> Result<Vec<(u32, u32)>> {
    let (mut list, mut left, mut runs) = (reader.u32()?, count, Vec::new());
    if count == 0 && list != 0 {
        return Err(Error::damaged("it names a list for no elements"));
    }
    while left > 0 {
        let run = reader.varint()?;
        if list >= lists || run > left || (run == 0 && runs.is_empty()) {
            return Err(Error::damaged(format!("it has {run} elements in list {list} of {lists}, and {left} in all")));
        }
        if run > 0 {
            runs.push((list, run));
        }
        left -= run;
        list += 1;
    }
    Ok(runs)
}
