//! Reading the structure of a segment, page by page. Elements get ordinals in the order of their slots along the chain of
//! pages, so a sealed segment has the same ordinals whenever it is read.

use super::{CentroidCodes, GraphHeader, ListsHeader};
use crate::error::{Error, Result};
use crate::hnsw::read::Segment;
use crate::index::{Head, Meta, SegmentEntry, SegmentKind, Shapes, chain_index};
use crate::ivf::check::forms;
use crate::ivf::layout::{At, Forms, Stream};
use crate::ivf::lists::{Piece, each_list, each_piece};
use crate::keys::Row;
use crate::page::{BlockNumber, Circle, Kind, NONE, PageStore};
use crate::shape::{MAX_LEVEL, Slot};

/// An element of a graph as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadElement {
    /// Its number, from 0.
    pub ordinal: u32,
    /// Highest level.
    pub level: u8,
    /// Ordinals of its neighbors, for each level from 0 to `level`.
    pub neighbors: Vec<Vec<u32>>,
    /// Its rows; none if it is dead.
    pub rows: Vec<Row>,
}

/// An element of lists as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadListed {
    /// Its number, from 0.
    pub ordinal: u32,
    /// List of the nearest centroid.
    pub list: u32,
    /// Its other list; none if there is one list only, or lists have no postings (L1).
    pub second: Option<u32>,
    /// Its rows; none if it is dead.
    pub rows: Vec<Row>,
}

/// Which slots the elements of a segment are, as of one moment: what is added later is not seen.
struct Pages {
    per_page: u32,
    /// Pages in the order of their chain: block, first ordinal, elements.
    chain: Vec<(BlockNumber, u32, u32)>,
    /// Places in `chain` by block.
    by_block: ByBlock,
    elements: u32,
}

/// Places in a chain of pages by block: looked up where the blocks lie close together, else searched for.
enum ByBlock {
    /// From this block on; [`NONE`]: of another segment.
    Close(BlockNumber, Vec<u32>),
    /// In the order of blocks.
    Apart(Vec<u32>),
}

impl ByBlock {
    /// Blocks for each page of the chain up to which they are close.
    const CLOSE: usize = 4;

    fn new(chain: &[(BlockNumber, u32, u32)]) -> Self {
        let blocks = || chain.iter().map(|page| page.0);
        let (least, most) = (blocks().min().unwrap_or(0), blocks().max().unwrap_or(0));
        let span = (most - least) as usize + 1;
        if span > Self::CLOSE * chain.len() + 64 {
            let mut order: Vec<u32> = (0..chain.len() as u32).collect();
            order.sort_unstable_by_key(|&i| chain[i as usize].0);
            return Self::Apart(order);
        }
        let mut places = vec![NONE; span];
        (0u32..).zip(blocks()).for_each(|(i, block)| places[(block - least) as usize] = i);
        Self::Close(least, places)
    }

    fn get(&self, chain: &[(BlockNumber, u32, u32)], block: BlockNumber) -> Option<usize> {
        let place = match self {
            Self::Close(least, places) => {
                *places.get(block.checked_sub(*least)? as usize).filter(|&&place| place != NONE)?
            }
            Self::Apart(order) => order[order.binary_search_by_key(&block, |&i| chain[i as usize].0).ok()?],
        };
        Some(place as usize)
    }
}

impl Pages {
    /// Reads the tags of all pages; `look` sees the level of each element, in order.
    fn read<S: PageStore>(segment: Segment<S>, mut look: impl FnMut(u8)) -> Result<Self> {
        let (mut chain, mut elements) = (Vec::new(), 0u32);
        let mut block = segment.read_head()?.first_element();
        let mut circle = Circle::default();
        while block != NONE {
            segment.store.check_interrupts()?;
            circle.step(block, block)?;
            let mut here = 0;
            let next = segment.elements_of(block, |_, e| {
                look(e.level());
                here += 1;
            })?;
            chain.push((block, elements, here));
            elements = elements.checked_add(here).filter(|&n| n < NONE).ok_or(Error::Full)?;
            block = next;
        }
        let by_block = ByBlock::new(&chain);
        Ok(Self { per_page: segment.shape.element.per_page, chain, by_block, elements })
    }

    /// The ordinal of a slot.
    fn ordinal(&self, slot: Slot) -> Option<u32> {
        let (block, index) = (slot / self.per_page, slot % self.per_page);
        let (_, first, count) = self.chain[self.by_block.get(&self.chain, block)?];
        (index < count).then_some(first + index)
    }
}

/// An element copied from its page.
struct Seen {
    slot: Slot,
    upper: Slot,
    neighbors: Vec<Slot>,
    rows: Vec<Row>,
    chained: bool,
}

/// The elements of a page, `count` at most, with all their rows.
fn elements_of<S: PageStore>(segment: Segment<S>, block: BlockNumber, count: u32) -> Result<Vec<Seen>> {
    let mut seen: Vec<Seen> = Vec::with_capacity(count as usize);
    segment.elements_of(block, |slot, e| {
        if seen.len() < count as usize {
            let (upper, neighbors, rows) = (e.upper(), e.neighbors().collect(), e.inline_rows().collect());
            seen.push(Seen { slot, upper, neighbors, rows, chained: e.overflow() != NONE });
        }
    })?;
    for element in seen.iter_mut().filter(|e| e.chained) {
        element.rows.clear();
        segment.rows(element.slot, &mut element.rows)?;
    }
    Ok(seen)
}

/// Shows the segment that an entry of the directory stands for, if it is of that kind.
fn segment<'a, S: PageStore>(
    store: &'a S,
    shapes: &'a Shapes,
    entry: &SegmentEntry,
    kind: SegmentKind,
) -> Result<Segment<'a, S>> {
    if entry.kind != kind {
        let what = format!("is the head of a segment of kind {}, not {}", entry.kind.name(), kind.name());
        return Err(Error::corrupt(entry.head, what));
    }
    Ok(Segment { store, shape: shapes.of(kind), id: entry.id, head: entry.head })
}

/// How many elements a segment of a graph or of lists has, and the ordinals of those without rows, ascending. Reads the
/// pages of elements once, and no others but where rows of an element lie apart.
///
/// # Errors
/// Those of the store; [`Error::Corrupt`].
pub fn dead_elements<S: PageStore>(store: &S, meta: &Meta, entry: &SegmentEntry) -> Result<(u32, Vec<u32>)> {
    let shapes = meta.parameters.shapes();
    let segment = segment(store, &shapes, entry, entry.kind)?;
    let (mut elements, mut dead, mut chained, mut rows) = (0u32, Vec::new(), Vec::new(), Vec::new());
    let mut block = segment.read_head()?.first_element();
    let mut circle = Circle::default();
    while block != NONE {
        store.check_interrupts()?;
        circle.step(block, block)?;
        block = segment.elements_of(block, |slot, e| {
            if e.overflow() != NONE {
                chained.push((elements, slot));
            } else if e.inline_rows().next().is_none() {
                dead.push(elements);
            }
            elements = elements.saturating_add(1);
        })?;
        for (ordinal, slot) in chained.drain(..) {
            rows.clear();
            segment.rows(slot, &mut rows)?;
            if rows.is_empty() {
                dead.push(ordinal);
            }
        }
    }
    if elements == NONE {
        return Err(Error::Full);
    }
    dead.sort_unstable();
    Ok((elements, dead))
}

/// Reads a graph. Takes 1 byte an element and 16 a page.
pub struct GraphReader<'a, S> {
    store: &'a S,
    shapes: Shapes,
    entry: SegmentEntry,
    pages: Pages,
    levels: Vec<u8>,
    header: GraphHeader,
}

impl<'a, S: PageStore> GraphReader<'a, S> {
    /// Looks at all pages of elements: what is inserted later is not shown.
    ///
    /// # Errors
    /// Those of the store; [`Error::Corrupt`], also where the entry is of a segment of another kind.
    pub fn open(store: &'a S, meta: &Meta, entry: &SegmentEntry) -> Result<Self> {
        let shapes = meta.parameters.shapes();
        let graph = segment(store, &shapes, entry, SegmentKind::Hnsw)?;
        // Read first: an element that becomes the entry point later may be on pages not seen yet.
        let head = graph.read_head()?;
        // What a crash left above the entry point's level nobody can reach.
        let top = if head.entry == NONE { MAX_LEVEL } else { head.entry_level.min(MAX_LEVEL) };
        let mut levels = Vec::new();
        let pages = Pages::read(graph, |level| levels.push(level.min(top)))?;
        let entry_point = if head.entry == NONE {
            // So it may be left by a crash in the first insert.
            (0..pages.elements).max_by_key(|&o| (levels[o as usize], std::cmp::Reverse(o)))
        } else {
            let found = pages.ordinal(head.entry).filter(|&o| levels[o as usize] == top);
            let what = || Error::corrupt(entry.head, format!("has entry point {}, which is none", head.entry));
            Some(found.ok_or_else(what)?)
        };
        let header = GraphHeader { elements: pages.elements, m: meta.parameters.m as u16, entry: entry_point };
        Ok(Self { store, shapes, entry: *entry, pages, levels, header })
    }

    /// What holds for the graph as a whole.
    pub fn header(&self) -> GraphHeader {
        self.header
    }

    /// Shows all elements in the order of their ordinals, while nothing is locked. Links that lead nowhere, that come
    /// twice, or to an element itself are left out.
    ///
    /// # Errors
    /// Those of `each` and of the store; [`Error::Corrupt`].
    pub fn each<E: From<Error>>(
        &self,
        mut each: impl FnMut(ReadElement) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let graph = segment(self.store, &self.shapes, &self.entry, SegmentKind::Hnsw)?;
        for &(block, first, count) in &self.pages.chain {
            self.store.check_interrupts()?;
            for (ordinal, seen) in (first..).zip(elements_of(graph, block, count)?) {
                let level = self.levels[ordinal as usize];
                let mut neighbors = vec![self.known(ordinal, 0, &mut seen.neighbors.iter().copied())];
                let mut record = seen.upper;
                for above in 1..=level {
                    if record == NONE {
                        let what = format!("has element {} with records for less than {level} levels", seen.slot);
                        return Err(Error::corrupt(block, what).into());
                    }
                    let (up, _, links) = graph.upper(record)?;
                    neighbors.push(self.known(ordinal, above, &mut links.iter().map(|link| link.element)));
                    record = up;
                }
                each(ReadElement { ordinal, level, neighbors, rows: seen.rows })?;
            }
        }
        Ok(())
    }

    /// Ordinals of neighbors at a level.
    fn known(&self, own: u32, level: u8, slots: &mut dyn Iterator<Item = Slot>) -> Vec<u32> {
        let mut known: Vec<u32> = Vec::with_capacity(slots.size_hint().0);
        for ordinal in slots.filter_map(|slot| self.pages.ordinal(slot)) {
            if ordinal != own && self.levels[ordinal as usize] >= level && !known.contains(&ordinal) {
                known.push(ordinal);
            }
        }
        known
    }
}

/// Reads lists. Takes 4 bytes an element, 16 a page and 4 a list, 16 more while it is opened.
pub struct ListsReader<'a, S> {
    store: &'a S,
    shapes: Shapes,
    entry: SegmentEntry,
    head: Head,
    forms: Forms,
    pages: Pages,
    /// Where the stretch of each list ends.
    ends: Vec<u32>,
    /// The second list of each element, or [`NONE`].
    second: Vec<u32>,
}

impl<'a, S: PageStore> ListsReader<'a, S> {
    /// Looks at all pages of elements and of postings.
    ///
    /// # Errors
    /// Those of the store; [`Error::Corrupt`], also where the entry is of a segment of another kind.
    pub fn open(store: &'a S, meta: &Meta, entry: &SegmentEntry) -> Result<Self> {
        let shapes = meta.parameters.shapes();
        let lists = segment(store, &shapes, entry, SegmentKind::Ivf)?;
        let (head, forms) = (lists.read_head()?, forms(lists.shape));
        let pages = Pages::read(lists, |_| ())?;
        let (mut postings, mut ends, mut end) = (Vec::new(), Vec::new(), 0u32);
        each_list(lists, &head, &forms, |list| {
            end = end.saturating_add(list.elements);
            ends.push(end);
            postings.push((list.start, list.postings));
        })?;
        if end != pages.elements {
            let what = format!("has {} elements, its lists count {end}", pages.elements);
            return Err(Error::corrupt(entry.head, what));
        }
        let mut second = vec![NONE; pages.elements as usize];
        for (list, postings) in (0u32..).zip(postings) {
            each_piece(lists, &forms, postings, None, |piece| {
                let Piece::Factors(factors, count) = piece else { return };
                for ordinal in (0..count).filter_map(|i| pages.ordinal(factors.slot(i))) {
                    if ends.partition_point(|&end| end <= ordinal) as u32 != list {
                        second[ordinal as usize] = list;
                    }
                }
            })?;
        }
        Ok(Self { store, shapes, entry: *entry, head, forms, pages, ends, second })
    }

    /// What holds for the lists as a whole.
    pub fn header(&self) -> ListsHeader {
        let (elements, lists) = (self.pages.elements, self.ends.len() as u32);
        ListsHeader { elements, lists, dimensions: self.shapes.flat.dimensions as u16 }
    }

    /// The centroids as they are kept.
    pub fn centroids(&self) -> Result<CentroidCodes> {
        let lists = segment(self.store, &self.shapes, &self.entry, SegmentKind::Ivf)?;
        let start = At { block: self.head.first[chain_index(Kind::Centroid)], offset: 0 };
        let mut stream = Stream::new(lists, Kind::Centroid, start);
        let (mut record, size) = (Vec::new(), self.forms.record_size());
        let mut centroids = CentroidCodes::new(self.shapes.flat.dimensions);
        while centroids.len() < self.ends.len() {
            stream.page(None, |mut page| {
                while !page.is_empty() && centroids.len() < self.ends.len() {
                    let (now, later) = page.split_at(page.len().min(size - record.len()));
                    record.extend_from_slice(now);
                    page = later;
                    if record.len() == size {
                        let scaling = self.forms.scaling(&record);
                        let code = &record[self.forms.code_at()..][..self.shapes.flat.dimensions];
                        centroids.push(scaling.scale, scaling.offset, code);
                        record.clear();
                    }
                }
            })?;
        }
        Ok(centroids)
    }

    /// Shows all elements in the order of their ordinals, list by list, while nothing is locked.
    ///
    /// # Errors
    /// Those of `each` and of the store; [`Error::Corrupt`].
    pub fn each<E: From<Error>>(
        &self,
        mut each: impl FnMut(ReadListed) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let lists = segment(self.store, &self.shapes, &self.entry, SegmentKind::Ivf)?;
        let mut list = 0;
        for &(block, first, count) in &self.pages.chain {
            self.store.check_interrupts()?;
            for (ordinal, seen) in (first..).zip(elements_of(lists, block, count)?) {
                while self.ends.get(list).is_some_and(|&end| end <= ordinal) {
                    list += 1;
                }
                let second = Some(self.second[ordinal as usize]).filter(|&second| second != NONE);
                each(ReadListed { ordinal, list: list as u32, second, rows: seen.rows })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_close_together_and_apart() {
        for spread in [1u32, 3, 1000] {
            let chain: Vec<_> = (0..100u32).map(|i| (7 + (i * 37 % 100) * spread, i, 1)).collect();
            let places = ByBlock::new(&chain);
            assert_eq!(matches!(places, ByBlock::Close(..)), spread < 1000);
            for (i, page) in chain.iter().enumerate() {
                assert_eq!(places.get(&chain, page.0), Some(i));
            }
            for absent in [0, 6, 7 + 100 * spread, u32::MAX] {
                assert_eq!(places.get(&chain, absent), None, "{absent} at {spread}");
            }
        }
    }
}
