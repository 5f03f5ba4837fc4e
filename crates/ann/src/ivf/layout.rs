//! Centroids and postings as bytes, and the streams of pages that hold them.
//!
//! `docs/page-format.md` is the description for people; a test compares the two.

use crate::error::{Error, Result};
use crate::hnsw::probe::Scaling;
use crate::hnsw::read::Segment;
use crate::keys::{Filter, KeySummary, Keys};
use crate::page::{
    BODY_SIZE, BlockNumber, Circle, HEADER_SIZE, Kind, NONE, PAGE_SIZE, Page, PageStore, Place, Tag, get_f32, get_u16,
    get_u32, get_u64, put_f32, put_u16, put_u32, put_u64,
};
use crate::shape::{Shape, Slot};

/// Streams are made of groups of so many bytes, none of which crosses a page border.
pub const GROUP: usize = 16;
/// Bytes of a stream on a page.
pub const STREAM_BYTES: usize = BODY_SIZE / GROUP * GROUP;
/// Postings in a block.
pub const BLOCK_ROWS: usize = 32;

/// Field offsets in a centroid's record; docs/page-format.md tells what the fields are.
pub mod at {
    pub const SCALE: usize = 0;
    pub const OFFSET: usize = 4;
    pub const NORM2: usize = 8;
    pub const POSTING_BLOCK: usize = 12;
    pub const POSTING_OFFSET: usize = 16;
    pub const POSTINGS: usize = 20;
    pub const FIRST_ELEMENT: usize = 24;
    pub const ELEMENTS: usize = 28;
    pub const SUMMARY: usize = 32;
}

/// Byte offsets in a block of postings, after the codes.
pub mod block_at {
    pub const BASE: usize = 0;
    pub const SCALE: usize = 128;
    pub const ERROR: usize = 192;
    pub const SLOT: usize = 256;
    pub const KEYS: usize = 384;
}

/// Bytes of one key column in a block: a value for each posting.
const COLUMN_BYTES: usize = 8 * BLOCK_ROWS;

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The page; [`NONE`]: nowhere.
    pub block: BlockNumber,
    /// Bytes from the start of its body, a multiple of [`GROUP`].
    pub offset: u32,
}

/// What a centroid's record says of its list, apart from the centroid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListEntry {
    /// With it and the code a distance to the centroid is computed.
    pub scaling: Scaling,
    /// The first block of postings.
    pub start: At,
    /// Postings; blocks are full but for the last one.
    pub postings: u32,
    /// The first of the elements whose nearest centroid this is, which follow each other in their chain; [`NONE`] if
    /// there are none.
    pub first: Slot,
    /// How many these are.
    pub elements: u32,
    /// Ranges of the keys of all rows in the list.
    pub summary: KeySummary,
}

/// Where things are in the records and blocks of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms {
    dimensions: usize,
    keys: usize,
    /// Bytes of the codes of a block; 0: lists have no postings.
    pub code_bytes: usize,
}

impl Forms {
    /// Of lists whose blocks have so many groups of codes; 0 where there are no codes.
    pub fn new(shape: &Shape, groups: usize) -> Self {
        Self { dimensions: shape.dimensions, keys: shape.keys, code_bytes: groups * GROUP }
    }

    /// Where the code begins in a record.
    pub fn code_at(&self) -> usize {
        at::SUMMARY + KeySummary::size(self.keys)
    }

    /// Bytes of a record.
    pub fn record_size(&self) -> usize {
        (self.code_at() + self.dimensions).next_multiple_of(GROUP)
    }

    /// Bytes of a block after its codes.
    pub fn factor_bytes(&self) -> usize {
        match self.keys {
            0 => block_at::KEYS,
            keys => block_at::KEYS + keys * COLUMN_BYTES + (4 * (keys + 1)).next_multiple_of(GROUP),
        }
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> usize {
        self.code_bytes + self.factor_bytes()
    }

    /// Bytes of a list of so many postings.
    pub fn list_bytes(&self, postings: usize) -> usize {
        if self.code_bytes == 0 { 0 } else { postings.div_ceil(BLOCK_ROWS) * self.block_size() }
    }

    /// Reads the fields of a record that come before the code: [`Self::code_at`] bytes.
    pub fn read_entry(&self, b: &[u8]) -> ListEntry {
        ListEntry {
            scaling: self.scaling(b),
            start: self.start(b),
            postings: get_u32(b, at::POSTINGS),
            first: get_u32(b, at::FIRST_ELEMENT),
            elements: get_u32(b, at::ELEMENTS),
            summary: self.summary(b),
        }
    }

    /// Reads [`ListEntry::scaling`] of a record.
    #[inline]
    pub fn scaling(&self, b: &[u8]) -> Scaling {
        Scaling { scale: get_f32(b, at::SCALE), offset: get_f32(b, at::OFFSET), norm2: get_f32(b, at::NORM2) }
    }

    /// Reads [`ListEntry::start`] of a record.
    pub fn start(&self, b: &[u8]) -> At {
        At { block: get_u32(b, at::POSTING_BLOCK), offset: get_u32(b, at::POSTING_OFFSET) }
    }

    /// Reads [`ListEntry::summary`] of a record.
    pub fn summary(&self, b: &[u8]) -> KeySummary {
        KeySummary::read(&b[at::SUMMARY..], self.keys)
    }

    /// Writes a whole record: [`Self::record_size`] bytes.
    pub fn write_record(&self, entry: &ListEntry, code: &[u8], b: &mut [u8]) {
        b.fill(0);
        put_f32(b, at::SCALE, entry.scaling.scale);
        put_f32(b, at::OFFSET, entry.scaling.offset);
        put_f32(b, at::NORM2, entry.scaling.norm2);
        put_u32(b, at::POSTING_BLOCK, entry.start.block);
        put_u32(b, at::POSTING_OFFSET, entry.start.offset);
        put_u32(b, at::POSTINGS, entry.postings);
        put_u32(b, at::FIRST_ELEMENT, entry.first);
        put_u32(b, at::ELEMENTS, entry.elements);
        entry.summary.write(&mut b[at::SUMMARY..], self.keys);
        b[self.code_at()..][..code.len()].copy_from_slice(code);
    }
}

/// What one posting says, apart from its code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posting {
    /// f32; see the factors of a code.
    pub base: f32,
    /// bf16.
    pub scale: u16,
    /// bf16.
    pub error: u16,
    /// The element.
    pub slot: Slot,
    /// Keys of its first row.
    pub keys: Keys,
    /// The element had further rows: only itself can tell whether one passes a filter.
    pub several: bool,
}

/// The part of a block of postings after the codes.
#[derive(Clone, Copy)]
pub struct Factors<'a> {
    keys: usize,
    bytes: &'a [u8],
}

impl<'a> Factors<'a> {
    /// `bytes` are [`Forms::factor_bytes`] long.
    pub fn new(forms: &Forms, bytes: &'a [u8]) -> Self {
        Self { keys: forms.keys, bytes }
    }

    /// All bases.
    #[inline]
    pub fn bases(self) -> [f32; BLOCK_ROWS] {
        std::array::from_fn(|i| get_f32(&self.bytes[block_at::BASE..block_at::SCALE], 4 * i))
    }

    /// All scales, bf16.
    #[inline]
    pub fn scales(self) -> [u16; BLOCK_ROWS] {
        std::array::from_fn(|i| get_u16(&self.bytes[block_at::SCALE..block_at::ERROR], 2 * i))
    }

    /// All errors, bf16.
    #[inline]
    pub fn errors(self) -> [u16; BLOCK_ROWS] {
        std::array::from_fn(|i| get_u16(&self.bytes[block_at::ERROR..block_at::SLOT], 2 * i))
    }

    /// The element of the `i`-th posting; [`NONE`] beyond the last one.
    #[inline]
    pub fn slot(self, i: usize) -> Slot {
        get_u32(self.bytes, block_at::SLOT + 4 * i)
    }

    fn word(self, i: usize) -> u32 {
        get_u32(self.bytes, block_at::KEYS + self.keys * COLUMN_BYTES + 4 * i)
    }

    /// Bit `i`: the `i`-th element had several rows.
    pub fn several(self) -> u32 {
        if self.keys == 0 { 0 } else { self.word(self.keys) }
    }

    /// Bit `i`: the first row of the `i`-th element passes.
    pub fn passing(self, filter: &Filter) -> u32 {
        let mut passing = u32::MAX;
        for c in filter.conditions().iter().filter(|c| c.column < self.keys) {
            let values = &self.bytes[block_at::KEYS + c.column * COLUMN_BYTES..][..COLUMN_BYTES];
            let mut inside = 0;
            for (i, value) in values.as_chunks::<8>().0.iter().enumerate() {
                inside |= u32::from((c.min..=c.max).contains(&i64::from_le_bytes(*value))) << i;
            }
            let nulls = self.word(c.column);
            passing &= inside & !nulls | if c.null { nulls } else { 0 };
        }
        passing
    }

    /// Keys of the first row of the `i`-th element.
    pub fn keys(self, i: usize) -> Keys {
        let mut columns = [None; crate::keys::MAX_KEYS];
        for (c, column) in columns[..self.keys].iter_mut().enumerate() {
            let value = get_u64(self.bytes, block_at::KEYS + c * COLUMN_BYTES + 8 * i) as i64;
            *column = (self.word(c) >> i & 1 == 0).then_some(value);
        }
        Keys::new(&columns[..self.keys])
    }
}

/// Writes the part of a block after the codes: [`Forms::factor_bytes`] zero bytes.
///
/// # Panics
/// If there are more than [`BLOCK_ROWS`] postings.
pub fn write_factors(forms: &Forms, postings: &[Posting], b: &mut [u8]) {
    assert!(postings.len() <= BLOCK_ROWS, "{} postings in a block", postings.len());
    b[block_at::SLOT..block_at::KEYS].fill(0xFF);
    let words = block_at::KEYS + forms.keys * COLUMN_BYTES;
    for (i, posting) in postings.iter().enumerate() {
        put_f32(b, block_at::BASE + 4 * i, posting.base);
        put_u16(b, block_at::SCALE + 2 * i, posting.scale);
        put_u16(b, block_at::ERROR + 2 * i, posting.error);
        put_u32(b, block_at::SLOT + 4 * i, posting.slot);
        let set = |b: &mut [u8], word: usize| {
            let word = words + 4 * word;
            let bits = get_u32(b, word) | 1 << i;
            put_u32(b, word, bits);
        };
        for column in 0..forms.keys {
            match posting.keys.get(column) {
                Some(value) => put_u64(b, block_at::KEYS + column * COLUMN_BYTES + 8 * i, value as u64),
                None => set(b, column),
            }
        }
        if posting.several && forms.keys > 0 {
            set(b, forms.keys);
        }
    }
}

/// A stream being read, page by page.
pub struct Stream<'a, S> {
    segment: Segment<'a, S>,
    kind: Kind,
    at: At,
    circle: Circle,
}

impl<'a, S: PageStore> Stream<'a, S> {
    /// From a place on.
    pub fn new(segment: Segment<'a, S>, kind: Kind, at: At) -> Self {
        Self { segment, kind, at, circle: Circle::default() }
    }

    /// The page that comes next; [`NONE`] after the last one.
    pub fn block(&self) -> BlockNumber {
        self.at.block
    }

    /// Shows the bytes from here to the end of the page, at least one group, and goes on to the next page. Asks the
    /// store for `ahead`, or the page that most likely follows, first.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is no such page.
    pub fn page<R>(&mut self, ahead: Option<At>, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let At { block, offset } = self.at;
        self.segment.store.check_interrupts()?;
        if block == NONE {
            let what = format!("is the head of a segment whose chain of {} ends too early", self.kind.name());
            return Err(Error::corrupt(self.segment.head, what));
        }
        self.circle.step(block, block)?;
        let ahead = ahead.unwrap_or(At { block: block.wrapping_add(1), offset: 0 });
        self.segment.store.prefetch(place(ahead));
        let (result, next) = self.segment.store.read(block, |page| {
            let tag = page.expect(block, self.segment.id, self.kind)?;
            let end = (usize::from(tag.used) * GROUP).min(STREAM_BYTES);
            match page.body().get(offset as usize..end) {
                Some(bytes) if !bytes.is_empty() && (offset as usize).is_multiple_of(GROUP) => {
                    Ok((look(bytes), tag.next))
                }
                _ => Err(Error::corrupt(block, format!("has {end} bytes, something points to byte {offset}"))),
            }
        })??;
        self.at = At { block: next, offset: 0 };
        Ok(result)
    }
}

fn place(at: At) -> Place {
    let offset = (at.offset as usize).min(STREAM_BYTES - GROUP);
    Place { block: at.block, offset: (HEADER_SIZE + offset) as u16, len: (STREAM_BYTES - offset) as u16 }
}

/// Blocks of a stream whose length is known: where each of its bytes goes.
#[derive(Clone, Copy)]
pub(crate) struct StreamRun<'a>(pub &'a [BlockNumber]);

impl StreamRun<'_> {
    /// Pages of a stream of so many bytes.
    pub(crate) fn pages(bytes: usize) -> usize {
        bytes.div_ceil(STREAM_BYTES)
    }

    /// Where the byte with this number is; nowhere if it is beyond the end.
    pub(crate) fn at(self, byte: usize) -> At {
        match self.0.get(byte / STREAM_BYTES) {
            Some(&block) => At { block, offset: (byte % STREAM_BYTES) as u32 },
            None => At { block: NONE, offset: 0 },
        }
    }
}

/// Writes a stream: pages are emitted when they are full.
pub(crate) struct StreamWriter<'a, F> {
    tag: (u32, Kind),
    blocks: &'a [BlockNumber],
    page: Box<Page>,
    used: usize,
    emit: F,
}

impl<'a, F: FnMut(BlockNumber, &Page) -> Result<()>> StreamWriter<'a, F> {
    pub(crate) fn new(tag: (u32, Kind), run: StreamRun<'a>, emit: F) -> Self {
        Self { tag, blocks: run.0, page: Page::zeroed(), used: 0, emit }
    }

    /// Appends whole groups.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(STREAM_BYTES - self.used));
            self.page.body_mut()[self.used..][..now.len()].copy_from_slice(now);
            self.used += now.len();
            bytes = later;
            if self.used == STREAM_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Emits the last page.
    ///
    /// # Panics
    /// If the stream has another length than its blocks were taken for.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.used > 0 {
            self.flush()?;
        }
        assert!(self.blocks.is_empty(), "{} pages too many", self.blocks.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (&block, rest) = self.blocks.split_first().expect("as many blocks as the stream takes");
        let (segment, kind) = self.tag;
        let next = rest.first().copied().unwrap_or(NONE);
        self.page.set_tag(Tag { segment, kind, used: (self.used / GROUP) as u16, next });
        (self.emit)(block, &self.page)?;
        self.page.0 = [0; PAGE_SIZE];
        (self.blocks, self.used) = (rest, 0);
        Ok(())
    }
}
