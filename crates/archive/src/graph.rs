//! Chunks of an HNSW segment: levels, neighbors and the fingerprints of rows, element by element.

use crate::bytes::{BitReader, BitWriter, Reader, width_below};
use crate::error::{Error, Result};
use crate::segment::{Head, Rows, check_end, check_push};
use crate::{CHUNK_BYTES, Fingerprint};
use serde::{Deserialize, Serialize};

/// Highest level of an element.
pub(crate) const MAX_LEVEL: u8 = 15;
/// Most neighbors of an element above level 0; twice as many at level 0.
pub(crate) const MAX_M: u16 = 100;

/// What all chunks of a graph have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphHeader {
    /// Elements in all chunks; ordinals are below it.
    pub elements: u32,
    /// Most neighbors of an element above level 0: 1 to 100; twice as many at level 0.
    pub m: u16,
    /// Ordinal of the entry point; none if there are no elements, or none of them is preferred.
    pub entry: Option<u32>,
}

impl GraphHeader {
    /// # Errors
    /// [`Error::Damaged`] if the fields are out of range.
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_M).contains(&self.m) {
            return Err(Error::damaged(format!("m is {}", self.m)));
        }
        if let Some(entry) = self.entry.filter(|&entry| entry >= self.elements) {
            return Err(Error::damaged(format!("the entry point is {entry} of {} elements", self.elements)));
        }
        Ok(())
    }

    fn most_neighbors(&self, level: usize) -> usize {
        usize::from(self.m) * if level == 0 { 2 } else { 1 }
    }
}

/// An element, or further rows of the element before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphElement {
    /// At most 15.
    pub level: u8,
    /// One for each row, in the order of the index. None for an element without rows that holds the graph together.
    pub rows: Vec<Fingerprint>,
    /// For each level from 0 to `level`, ordinals in the order of the index. **No lists at all**: not an element, but
    /// further rows of the one that came before; of an element with very many rows, chunks hold some each.
    pub neighbors: Vec<Vec<u32>>,
}

/// Makes chunks of a graph's elements, given in the order of their ordinals. The same elements make the same chunks.
pub struct GraphEncoder {
    header: GraphHeader,
    /// Ordinal of the next element.
    next: u32,
    chunk: Rows,
    levels: Vec<u8>,
    neighbor_counts: Vec<u8>,
    neighbors: BitWriter,
}

impl GraphEncoder {
    /// # Errors
    /// If the header is out of range.
    pub fn new(header: GraphHeader) -> Result<Self> {
        header.check().map_err(Error::into_unfit)?;
        let (levels, neighbor_counts) = (Vec::new(), Vec::new());
        Ok(Self { header, next: 0, chunk: Rows::default(), levels, neighbor_counts, neighbors: BitWriter::default() })
    }

    /// Takes the next element, or up to [`ROWS_A_PUSH`](crate::ROWS_A_PUSH) further rows of the last one; returns a raw
    /// chunk when one is full.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the element does not belong there; the encoder is then as before.
    pub fn push(&mut self, element: &GraphElement) -> Result<Option<Vec<u8>>> {
        self.check(element)?;
        if element.neighbors.is_empty() {
            self.chunk.extend(&element.rows);
        } else {
            let width = width_below(self.header.elements);
            self.levels.push(element.level);
            for list in &element.neighbors {
                self.neighbor_counts.push(list.len() as u8);
                list.iter().for_each(|&neighbor| self.neighbors.put(neighbor, width));
            }
            self.chunk.begin(&element.rows);
            self.next += 1;
        }
        let bytes = self.levels.len() + self.neighbor_counts.len() + self.neighbors.len() + self.chunk.len();
        Ok((bytes >= CHUNK_BYTES).then(|| self.take_chunk()))
    }

    fn check(&self, element: &GraphElement) -> Result<()> {
        let GraphElement { level, rows, neighbors } = element;
        let (header, next) = (self.header, self.next);
        check_push(neighbors.is_empty(), rows.len(), (next, header.elements))?;
        if *level > MAX_LEVEL || !(neighbors.is_empty() || neighbors.len() == usize::from(*level) + 1) {
            return Err(Error::unfit(format!("element {next} has {} lists at level {level}", neighbors.len())));
        }
        for (at, list) in neighbors.iter().enumerate() {
            if list.len() > header.most_neighbors(at) {
                return Err(Error::unfit(format!("element {next} has {} neighbors at level {at}", list.len())));
            }
            if let Some(beyond) = list.iter().find(|&&neighbor| neighbor >= header.elements) {
                return Err(Error::unfit(format!("element {next} has the neighbor {beyond} of {}", header.elements)));
            }
        }
        Ok(())
    }

    fn take_chunk(&mut self) -> Vec<u8> {
        let mut out = self.chunk.head(self.next);
        out.append(&mut self.levels);
        self.chunk.counts_to(&mut out);
        out.append(&mut self.neighbor_counts);
        self.neighbors.drain_to(&mut out);
        self.chunk.rows_to(&mut out);
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

/// Calls `each` with the elements of a raw chunk and their ordinals, which begin at `first`: 0 for the first chunk of a
/// segment, and further by what this returns for each chunk. A chunk may begin with further rows of the element `first
/// - 1`, given as an element without lists. Returns how many elements begin in the chunk.
///
/// What is given to `each` is in range: at most `level` 15, ordinals below `elements`, as many neighbors as `m` allows.
/// Whether the graph makes sense (neighbors that are at the level where they are named, no repeats) is for the caller
/// to see to.
///
/// # Errors
/// [`Error::Damaged`], before any call of `each` where lengths and counts are wrong; those of `each`.
pub fn decode_graph(
    header: &GraphHeader,
    first: u32,
    chunk: &[u8],
    each: &mut dyn FnMut(u32, GraphElement) -> Result<()>,
) -> Result<u32> {
    header.check()?;
    let mut reader = Reader::new(chunk);
    let head = Head::read(&mut reader, first, header.elements)?;
    let levels = reader.take(head.count as usize)?;
    if let Some(level) = levels.iter().find(|&&level| level > MAX_LEVEL) {
        return Err(Error::damaged(format!("an element has level {level}")));
    }
    let (row_counts, all_rows) = head.row_counts(&mut reader)?;
    let lists: usize = levels.iter().map(|&level| usize::from(level) + 1).sum();
    let neighbor_counts = reader.take(lists)?;
    let neighbors: u64 = neighbor_counts.iter().map(|&count| u64::from(count)).sum();
    let width = width_below(header.elements);
    let bits = neighbors * u64::from(width);
    let mut packed = BitReader::new(reader.take(bits.div_ceil(8) as usize)?, bits)?;
    let mut rows = reader.fingerprints(all_rows)?;
    head.each_more(first, &mut rows, |ordinal, rows| each(ordinal, GraphElement { rows, ..Default::default() }))?;

    let mut neighbor_counts = neighbor_counts.iter();
    for (i, (&level, row_count)) in levels.iter().zip(row_counts).enumerate() {
        let mut neighbors = Vec::with_capacity(usize::from(level) + 1);
        for (at, &count) in neighbor_counts.by_ref().take(usize::from(level) + 1).enumerate() {
            if usize::from(count) > header.most_neighbors(at) {
                return Err(Error::damaged(format!("element {} has {count} neighbors", first + i as u32)));
            }
            let list: Vec<u32> = (0..count).map(|_| packed.take(width)).collect();
            if let Some(beyond) = list.iter().find(|&&neighbor| neighbor >= header.elements) {
                return Err(Error::damaged(format!("element {} has the neighbor {beyond}", first + i as u32)));
            }
            neighbors.push(list);
        }
        each(first + i as u32, GraphElement { level, rows: rows.next(row_count)?, neighbors })?;
    }
    packed.finish()?;
    Ok(head.count)
}
