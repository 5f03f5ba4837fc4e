//! Elements and upper neighbor lists as bytes: where each field lies for given dimensions and `m`.
//!
//! `docs/page-format.md` is the description for people; a test compares the two.

use crate::distance::Metric;
use crate::error::{Error, Result};
use crate::keys::{Filter, MAX_KEYS, Row};
use crate::page::{
    BODY_SIZE, BlockNumber, HEADER_SIZE, NONE, Page, Place, get_f32, get_u16, get_u32, put_f32, put_u16, put_u32,
};
use crate::sq8::Params;

/// Number of an element: `block * slots per page + slot`. Also numbers upper records, overflow chunks and code tails.
pub type Slot = u32;

/// Where a row is in the heap: block and offset number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeapTid {
    /// Block of the table.
    pub block: u32,
    /// Line pointer on that block, from 1.
    pub offset: u16,
}

/// Bytes of a heap TID on a page.
pub const TID_SIZE: usize = 6;

/// As many as the type `vector` allows.
pub const MAX_DIMENSIONS: usize = 16_000;
/// Elements have up to `2m` neighbors at level 0 and `m` above (Malkov & Yashunin 2018, section 4.1).
pub const MIN_M: u16 = 2;
/// See [`MIN_M`].
pub const MAX_M: u16 = 100;
/// Levels are drawn from an exponential distribution; more than this many never help.
pub const MAX_LEVEL: u8 = 15;

/// Rows inside an element; further ones go to overflow chunks.
pub const INLINE_ROWS: usize = 2;

/// Field offsets in an element, from the start of its slot; docs/page-format.md tells what the fields are.
pub mod at {
    pub const MARK: usize = 0;
    pub const VERSION: usize = 4;
    pub const ROW_COUNT: usize = 8;
    pub const LEVEL: usize = 12;
    pub const INLINE_COUNT: usize = 13;
    pub const NEIGHBOR_COUNT: usize = 14;
    pub const SCALE: usize = 16;
    pub const OFFSET: usize = 20;
    pub const NORM2: usize = 24;
    pub const SUM: usize = 28;
    pub const RESIDUAL: usize = 32;
    pub const UPPER: usize = 36;
    pub const OVERFLOW: usize = 40;
    pub const ROWS: usize = 44;
}

/// Slots of one size, counted through the pages that hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Bytes of a slot.
    pub size: usize,
    /// Slots in a page.
    pub per_page: u32,
}

impl Slots {
    /// As many slots of `size` bytes as a page holds.
    pub const fn new(size: usize) -> Self {
        Self { size, per_page: (BODY_SIZE / size) as u32 }
    }

    /// The page that a slot is on.
    pub fn block(self, slot: Slot) -> BlockNumber {
        slot / self.per_page
    }

    /// Which slot of its page it is, from 0.
    pub fn index(self, slot: Slot) -> u32 {
        slot % self.per_page
    }

    /// The slot with this index on a page.
    ///
    /// # Errors
    /// [`Error::Full`] where the block is beyond what numbers of slots of this size can name.
    pub fn slot(self, block: BlockNumber, index: u32) -> Result<Slot> {
        block.checked_mul(self.per_page).and_then(|s| s.checked_add(index)).filter(|&s| s != NONE).ok_or(Error::Full)
    }

    /// Byte offset of a slot in the body of its page.
    pub fn offset(self, slot: Slot) -> usize {
        self.index(slot) as usize * self.size
    }

    /// The slot's bytes. Whether the slot is in use, the page's tag or the element's mark tells.
    pub fn get(self, page: &Page, slot: Slot) -> &[u8] {
        &page.body()[self.offset(slot)..][..self.size]
    }

    /// As [`Self::get`].
    pub fn get_mut(self, page: &mut Page, slot: Slot) -> &mut [u8] {
        let offset = self.offset(slot);
        &mut page.body_mut()[offset..][..self.size]
    }

    /// What reading `len` bytes of the slot touches.
    pub fn place(self, slot: Slot, len: usize) -> Place {
        Place { block: self.block(slot), offset: (HEADER_SIZE + self.offset(slot)) as u16, len: len as u16 }
    }
}

/// Rows in an overflow chunk; before them `next` chunk and count.
pub const CHUNK_ROWS: usize = 20;

/// The form of all elements of an index; fixed when it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Decides which residual an element has.
    pub metric: Metric,
    /// Bytes of a code.
    pub dimensions: usize,
    /// Most neighbors above level 0; 0 where elements have none.
    pub m: usize,
    /// Key columns.
    pub keys: usize,
    /// Bytes of a row: heap TID and keys.
    pub row_size: usize,
    /// Where the code begins in an element.
    pub code_at: usize,
    /// Slots of elements.
    pub element: Slots,
    /// Bytes of the code that lie in the element; the rest lies in tails.
    pub head_code: usize,
    /// Tails of each element.
    pub tails: usize,
    /// Slots of tails; of no meaning where elements have none.
    pub tail: Slots,
    /// Slots of upper records.
    pub upper: Slots,
    /// Slots of overflow chunks.
    pub chunk: Slots,
}

impl Shape {
    /// The form of elements of a graph, with so many dimensions, this `m`, and so many key columns.
    ///
    /// # Panics
    /// If one of them is out of range: options are checked where they enter.
    pub fn new(metric: Metric, dimensions: usize, m: usize, keys: usize) -> Self {
        assert!((MIN_M as usize..=MAX_M as usize).contains(&m), "m {m}");
        Self::with(metric, dimensions, m, keys)
    }

    /// The form of elements that have no neighbors, for the same index.
    pub fn without_neighbors(&self) -> Self {
        Self::with(self.metric, self.dimensions, 0, self.keys)
    }

    fn with(metric: Metric, dimensions: usize, m: usize, keys: usize) -> Self {
        assert!((1..=MAX_DIMENSIONS).contains(&dimensions), "dimensions {dimensions}");
        assert!(keys <= MAX_KEYS, "{keys} key columns");
        let row_size = Row::size(keys);
        let code_at = at::ROWS + INLINE_ROWS * row_size;
        let (head_code, element_size, tail_size, tails) = split(code_at, dimensions, m);
        Self {
            metric,
            dimensions,
            m,
            keys,
            row_size,
            code_at,
            element: Slots::new(element_size),
            head_code,
            tails,
            tail: Slots::new(tail_size),
            upper: Slots::new(8 + 8 * m),
            chunk: Slots::new(8 + CHUNK_ROWS * row_size),
        }
    }

    /// Most neighbors of an element at `level`.
    pub fn max_neighbors(&self, level: u8) -> usize {
        if level == 0 { 2 * self.m } else { self.m }
    }

    fn tail_ids_at(&self) -> usize {
        self.code_at + self.head_code.next_multiple_of(4)
    }

    fn neighbors_at(&self) -> usize {
        self.tail_ids_at() + 4 * self.tails
    }

    /// Bytes of an element that a distance needs.
    pub fn distance_len(&self) -> usize {
        self.code_at + self.head_code
    }

    /// The element in a slot. The page is one of elements: [`Element::belongs_to`] tells.
    pub fn view<'a>(&'a self, page: &'a Page, slot: Slot) -> Element<'a> {
        Element { shape: self, bytes: self.element.get(page, slot) }
    }

    /// As [`Self::view`], to change it.
    pub fn view_mut<'a>(&'a self, page: &'a mut Page, slot: Slot) -> ElementMut<'a> {
        ElementMut { shape: self, bytes: self.element.get_mut(page, slot) }
    }

    /// Range of the code that the `i`-th tail holds.
    pub fn tail_range(&self, i: usize) -> std::ops::Range<usize> {
        let start = self.head_code + i * self.tail.size;
        start..(start + self.tail.size).min(self.dimensions)
    }

    /// Where the neighbors of an element lie, for prefetching.
    pub fn neighbors_place(&self, slot: Slot) -> Place {
        let mut place = self.element.place(slot, at::SCALE);
        place.offset += self.neighbors_at() as u16;
        place.len = (8 * self.m).max(1) as u16;
        place
    }
}

/// Sizes (head code, element, tail, tails) that waste little of each page.
///
/// An element that fits pages well stays whole. Others leave as much of their code on tail pages as makes both
/// kinds of page full: 1 page and less than twice the pages for every dimension.
fn split(code_at: usize, dimensions: usize, m: usize) -> (usize, usize, usize, usize) {
    let size = |head_code: usize, tails: usize| {
        (code_at + head_code.next_multiple_of(4) + 4 * tails + 8 * m).next_multiple_of(8)
    };
    let whole = size(dimensions, 0);
    if whole <= BODY_SIZE && (BODY_SIZE / whole) * whole * 10 >= BODY_SIZE * 7 {
        return (dimensions, whole, 8, 0);
    }
    let fixed = size(0, 1);
    let mut best = (f64::INFINITY, (0, 0, 0, 0));
    for per_page in 1..=4 {
        let element = BODY_SIZE / per_page / 8 * 8;
        for tails in 1..=3usize {
            let Some(head_code) = (element - 4 * (tails - 1)).checked_sub(fixed) else { continue };
            let head_code = (head_code / 4 * 4).min(dimensions - 1);
            let tail = (dimensions - head_code).div_ceil(tails).next_multiple_of(8);
            if tail > BODY_SIZE || head_code + (tails - 1) * tail >= dimensions {
                continue;
            }
            let pages = 1.0 / per_page as f64 + tails as f64 / (BODY_SIZE / tail) as f64;
            // A further tail is a further page touch: it must save a twentieth.
            let cost = pages * (1.0 + 0.05 * tails as f64);
            if cost < best.0 {
                best = (cost, (head_code, size(head_code, tails), tail, tails));
            }
        }
    }
    if whole <= BODY_SIZE && best.0 >= 1.0 / (BODY_SIZE / whole) as f64 { (dimensions, whole, 8, 0) } else { best.1 }
}

/// What an element of a segment starts with. Segment ids are never reused, and no other page has this number there.
fn element_mark(segment: u32) -> u32 {
    segment.wrapping_mul(0x9E37_79B1) ^ 0xE1E3_D7A5
}

/// An element on a page.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    shape: &'a Shape,
    bytes: &'a [u8],
}

impl<'a> Element<'a> {
    /// Whether this is an element of that segment: searches look here and not at the page's trailer, which would be one
    /// more cache miss for each element.
    pub fn belongs_to(self, segment: u32) -> bool {
        get_u32(self.bytes, at::MARK) == element_mark(segment)
    }

    /// Changes whenever the neighbors do.
    pub fn version(self) -> u32 {
        get_u32(self.bytes, at::VERSION)
    }

    /// Rows, overflow included. Zero: the element only routes.
    pub fn row_count(self) -> u32 {
        get_u32(self.bytes, at::ROW_COUNT)
    }

    /// Highest level that the element lives on.
    pub fn level(self) -> u8 {
        self.bytes[at::LEVEL]
    }

    /// The rows inside the element.
    pub fn inline_rows(self) -> impl Iterator<Item = Row> + use<'a> {
        let (keys, size) = (self.shape.keys, self.shape.row_size);
        let rows = &self.bytes[at::ROWS..][..self.inline_count() * size];
        rows.chunks_exact(size).map(move |b| Row::read(b, keys))
    }

    /// Whether the element has a row that passes, as far as the element itself tells: rows in overflow chunks may.
    #[inline]
    pub fn passes(self, filter: &Filter) -> bool {
        let count = self.row_count() as usize;
        if filter.is_none() || count == 0 {
            return count > 0;
        }
        let (inline, size) = (self.inline_count(), self.shape.row_size);
        let rows = &self.bytes[at::ROWS..][..inline * size];
        count > inline || rows.chunks_exact(size).any(|row| filter.passes_bytes(row))
    }

    /// How many rows are inside the element.
    pub fn inline_count(self) -> usize {
        usize::from(self.bytes[at::INLINE_COUNT]).min(INLINE_ROWS)
    }

    /// First overflow chunk, or [`NONE`].
    pub fn overflow(self) -> Slot {
        get_u32(self.bytes, at::OVERFLOW)
    }

    /// Neighbors at level 1, or [`NONE`].
    pub fn upper(self) -> Slot {
        get_u32(self.bytes, at::UPPER)
    }

    /// Value `i` is decoded as `offset + scale * code[i]`.
    pub fn scale(self) -> f32 {
        get_f32(self.bytes, at::SCALE)
    }

    /// See [`Self::scale`].
    pub fn offset(self) -> f32 {
        get_f32(self.bytes, at::OFFSET)
    }

    /// Squared Euclidean norm of the decoded vector.
    pub fn norm2(self) -> f32 {
        get_f32(self.bytes, at::NORM2)
    }

    /// Sum of the code's bytes.
    pub fn sum(self) -> u32 {
        get_u32(self.bytes, at::SUM)
    }

    /// Distance of the true vector to the decoded one, rounded up: L1 norm under L1, L2 norm else.
    pub fn residual(self) -> f32 {
        get_f32(self.bytes, at::RESIDUAL)
    }

    /// The part of the code that lies in the element.
    pub fn head_code(self) -> &'a [u8] {
        &self.bytes[self.shape.code_at..][..self.shape.head_code]
    }

    /// Slot of the `i`-th tail.
    pub fn tail(self, i: usize) -> Slot {
        get_u32(self.bytes, self.shape.tail_ids_at() + 4 * i)
    }

    /// Neighbors at level 0.
    pub fn neighbor_count(self) -> usize {
        usize::from(get_u16(self.bytes, at::NEIGHBOR_COUNT)).min(2 * self.shape.m)
    }

    /// Neighbors at level 0: slots of elements.
    pub fn neighbors(self) -> impl Iterator<Item = Slot> + use<'a> {
        let start = self.shape.neighbors_at();
        self.bytes[start..][..4 * self.neighbor_count()].chunks_exact(4).map(|b| get_u32(b, 0))
    }
}

/// An element on a page being changed.
pub struct ElementMut<'a> {
    shape: &'a Shape,
    bytes: &'a mut [u8],
}

/// What a new element is made of.
pub struct NewElement<'a> {
    /// Highest level.
    pub level: u8,
    /// Its upper record at level 1, or [`NONE`].
    pub upper: Slot,
    /// What belongs to the code.
    pub params: &'a Params,
    /// The whole code; the caller has written its tails.
    pub code: &'a [u8],
    /// As many as the shape has.
    pub tails: &'a [Slot],
    /// At level 0, at most `2m`.
    pub neighbors: &'a [Slot],
}

impl ElementMut<'_> {
    /// To read it.
    pub fn as_ref(&self) -> Element<'_> {
        Element { shape: self.shape, bytes: self.bytes }
    }

    /// Fills the whole slot; no rows yet.
    pub fn write(&mut self, segment: u32, new: &NewElement) {
        let b = &mut *self.bytes;
        b.fill(0);
        put_u32(b, at::MARK, element_mark(segment));
        b[at::LEVEL] = new.level;
        put_f32(b, at::SCALE, new.params.scale);
        put_f32(b, at::OFFSET, new.params.offset);
        put_f32(b, at::NORM2, new.params.norm2);
        put_u32(b, at::SUM, new.params.sum);
        put_f32(b, at::RESIDUAL, residual(self.shape.metric, new.params));
        put_u32(b, at::UPPER, new.upper);
        put_u32(b, at::OVERFLOW, NONE);
        b[self.shape.code_at..][..self.shape.head_code].copy_from_slice(&new.code[..self.shape.head_code]);
        for (i, &tail) in new.tails.iter().enumerate() {
            put_u32(b, self.shape.tail_ids_at() + 4 * i, tail);
        }
        self.set_neighbors(new.neighbors);
        put_u32(self.bytes, at::VERSION, 0);
    }

    /// Replaces the neighbors at level 0, and makes a new version.
    ///
    /// # Panics
    /// If there are more than `2m`.
    pub fn set_neighbors(&mut self, neighbors: &[Slot]) {
        assert!(neighbors.len() <= 2 * self.shape.m, "{} neighbors", neighbors.len());
        let start = self.shape.neighbors_at();
        put_u16(self.bytes, at::NEIGHBOR_COUNT, neighbors.len() as u16);
        for (i, &n) in neighbors.iter().enumerate() {
            put_u32(self.bytes, start + 4 * i, n);
        }
        let version = get_u32(self.bytes, at::VERSION);
        put_u32(self.bytes, at::VERSION, version.wrapping_add(1));
    }

    /// Sets the first overflow chunk.
    pub fn set_overflow(&mut self, chunk: Slot) {
        put_u32(self.bytes, at::OVERFLOW, chunk);
    }

    /// Sets the number of rows, overflow included.
    pub fn set_row_count(&mut self, count: u32) {
        put_u32(self.bytes, at::ROW_COUNT, count);
    }

    /// Whether the row fitted inside the element; it is counted then.
    pub fn push_inline(&mut self, row: &Row) -> bool {
        let count = self.as_ref().inline_count();
        if count == INLINE_ROWS {
            return false;
        }
        row.write(&mut self.bytes[at::ROWS + count * self.shape.row_size..], self.shape.keys);
        self.bytes[at::INLINE_COUNT] = count as u8 + 1;
        let total = self.as_ref().row_count();
        self.set_row_count(total.saturating_add(1));
        true
    }

    /// Drops the inline rows that are dead; how many. The total is not changed.
    pub fn retain_inline(&mut self, mut dead: impl FnMut(HeapTid) -> bool) -> u32 {
        let kept: Vec<Row> = self.as_ref().inline_rows().filter(|row| !dead(row.tid)).collect();
        let dropped = self.as_ref().inline_count() - kept.len();
        for (i, row) in kept.iter().enumerate() {
            row.write(&mut self.bytes[at::ROWS + i * self.shape.row_size..], self.shape.keys);
        }
        self.bytes[at::INLINE_COUNT] = kept.len() as u8;
        dropped as u32
    }

    /// Widens the residual, when a row with an equal code but another vector joins.
    pub fn widen_residual(&mut self, params: &Params) {
        let widest = self.as_ref().residual().max(residual(self.shape.metric, params));
        put_f32(self.bytes, at::RESIDUAL, widest);
    }
}

/// The residual that bounds this metric.
pub fn residual(metric: Metric, params: &Params) -> f32 {
    if metric == Metric::L1 { params.residual_l1 } else { params.residual_l2 }
}

/// Reads a heap TID: [`TID_SIZE`] bytes.
pub fn get_tid(b: &[u8]) -> HeapTid {
    HeapTid { block: get_u32(b, 0), offset: get_u16(b, 4) }
}

/// Writes a heap TID.
pub fn put_tid(b: &mut [u8], tid: HeapTid) {
    put_u32(b, 0, tid.block);
    put_u16(b, 4, tid.offset);
}

/// A neighbor above level 0: the element, and its own record at that level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperNeighbor {
    /// The neighbor.
    pub element: Slot,
    /// The neighbor's own record at this level.
    pub record: Slot,
}

/// Reads an upper record: (record of the next higher level or [`NONE`], version, neighbors).
pub fn read_upper(shape: &Shape, bytes: &[u8]) -> (Slot, u16, Vec<UpperNeighbor>) {
    let count = usize::from(get_u16(bytes, 6)).min(shape.m);
    let neighbors = bytes[8..][..8 * count]
        .chunks_exact(8)
        .map(|b| UpperNeighbor { element: get_u32(b, 0), record: get_u32(b, 4) })
        .collect();
    (get_u32(bytes, 0), get_u16(bytes, 4), neighbors)
}

/// Writes an upper record: at most `m` neighbors.
pub fn write_upper(bytes: &mut [u8], up: Slot, version: u16, neighbors: &[UpperNeighbor]) {
    put_u32(bytes, 0, up);
    put_u16(bytes, 4, version);
    put_u16(bytes, 6, neighbors.len() as u16);
    for (i, n) in neighbors.iter().enumerate() {
        put_u32(bytes, 8 + 8 * i, n.element);
        put_u32(bytes, 12 + 8 * i, n.record);
    }
}

/// An overflow chunk: next chunk and rows.
pub fn read_chunk(shape: &Shape, bytes: &[u8]) -> (Slot, Vec<Row>) {
    let count = usize::from(get_u16(bytes, 4)).min(CHUNK_ROWS);
    let rows = bytes[8..].chunks_exact(shape.row_size).take(count);
    (get_u32(bytes, 0), rows.map(|b| Row::read(b, shape.keys)).collect())
}

/// Writes an overflow chunk: at most [`CHUNK_ROWS`] rows.
pub fn write_chunk(shape: &Shape, bytes: &mut [u8], next: Slot, rows: &[Row]) {
    put_u32(bytes, 0, next);
    put_u16(bytes, 4, rows.len() as u16);
    for (i, row) in rows.iter().enumerate() {
        row.write(&mut bytes[8 + i * shape.row_size..], shape.keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dimension_fits_and_none_wastes_half_its_pages() {
        for (m, keys) in [(2, 0), (16, 0), (16, 2), (100, 8), (0, 0), (0, 8)] {
            for dimensions in 1..=MAX_DIMENSIONS {
                let shape = Shape::with(Metric::L2, dimensions, m, keys);
                assert!(shape.element.per_page >= 1 && (shape.tails == 0 || shape.tail.per_page >= 1), "{shape:?}");
                let covered = shape.head_code + shape.tails * shape.tail.size;
                assert!(covered >= dimensions, "{dimensions} dimensions: {shape:?} holds {covered}");
                assert!(shape.neighbors_at() + 8 * m <= shape.element.size, "{shape:?}");
                let pages = 1.0 / f64::from(shape.element.per_page)
                    + shape.tails as f64 / if shape.tails > 0 { f64::from(shape.tail.per_page) } else { 1.0 };
                let bytes = (shape.code_at + dimensions + 8 * m) as f64;
                assert!(
                    pages * 8192.0 < 1.5 * bytes + 60.0,
                    "{dimensions} dimensions, m {m}, {keys} keys: {pages} pages each"
                );
            }
        }
    }

    #[test]
    fn a_row_of_384_dimensions_takes_under_700_bytes() {
        let shape = Shape::new(Metric::Cosine, 384, 16, 0);
        assert_eq!((shape.tails, shape.element.per_page), (0, 14));
        let flat = shape.without_neighbors();
        assert_eq!((flat.tails, flat.element.per_page), (0, 18));
    }
}
