//! Rows gathered for a new segment, and the pages of a built graph.

use super::build::{Arena, Codes, Graph, Node};
use crate::error::Result;
use crate::index::{Head, chain_index};
use crate::keys::{PackedRows, Row};
use crate::page::{BlockNumber, Kind, NONE, PAGE_SIZE, Page, Tag};
use crate::shape::{CHUNK_ROWS, INLINE_ROWS, NewElement, Shape, Slot, Slots, UpperNeighbor, write_chunk, write_upper};
use crate::sq8::Params;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Rows of a segment to be built; rows with equal codes share an element.
pub struct Rows<A: Arena> {
    /// One code for each element.
    pub codes: Codes<A>,
    /// The first row of each element.
    first: PackedRows,
    /// Further rows of an element.
    more: Vec<(Node, Row)>,
    by_code: HashTable<Node>,
    hasher: DefaultHashBuilder,
}

impl<A: Arena> Rows<A> {
    /// No rows yet.
    pub fn new(dimensions: usize, keys: usize) -> Self {
        Self {
            codes: Codes::new(dimensions),
            first: PackedRows::new(keys),
            more: Vec::new(),
            by_code: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Rows added.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Adds a row. A row whose code is known already joins that element, and widens its residual.
    pub fn push(&mut self, arena: &mut A, params: &Params, code: &[u8], row: &Row) -> Result<()> {
        let hash = self.hasher.hash_one(code);
        let codes = &mut self.codes;
        if let Some(&node) = self.by_code.find(hash, |&node| codes.equals(node, params, code)) {
            codes.widen(node, params);
            self.more.push((node, *row));
            return Ok(());
        }
        let node = codes.push(arena, params, code)?;
        self.first.push(row);
        let hasher = &self.hasher;
        self.by_code.insert_unique(hash, node, |&node| hasher.hash_one(self.codes.code(node)));
        Ok(())
    }

    /// Ends gathering: the codes to build a graph of, and the rows to write with it.
    pub fn finish(mut self) -> (Codes<A>, RowLists) {
        self.more.sort_unstable();
        (self.codes, RowLists { first: self.first, more: self.more })
    }
}

/// Rows of the nodes of a graph.
pub struct RowLists {
    first: PackedRows,
    /// Sorted by node.
    more: Vec<(Node, Row)>,
}

impl RowLists {
    /// Rows of all nodes.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Rows of a node, at least one.
    pub fn of(&self, node: Node) -> impl ExactSizeIterator<Item = Row> {
        let start = self.more.partition_point(|&(n, _)| n < node);
        let end = start + self.more[start..].partition_point(|&(n, _)| n == node);
        let rest = &self.more[start..end];
        (0..rest.len() + 1).map(move |i| if i == 0 { self.first.get(node as usize) } else { rest[i - 1].1 })
    }

    /// Chunks that the rows of a node take beyond its element.
    fn chunks(&self, node: Node) -> usize {
        self.of(node).len().saturating_sub(INLINE_ROWS).div_ceil(CHUNK_ROWS)
    }
}

/// Slots in pages of one kind. Their blocks ascend, but need not follow each other: a live index reuses free pages.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    slots: Slots,
    blocks: &'a [BlockNumber],
    count: usize,
}

impl<'a> Run<'a> {
    /// Pages that so many slots take.
    pub(crate) fn pages(slots: Slots, count: usize) -> usize {
        count.div_ceil(slots.per_page as usize)
    }

    /// Takes the blocks of so many slots from the front of `blocks`.
    ///
    /// # Panics
    /// If there are not enough.
    pub(crate) fn take(blocks: &mut &'a [BlockNumber], slots: Slots, count: usize) -> Self {
        let (mine, rest) = blocks.split_at(Self::pages(slots, count));
        *blocks = rest;
        Self { slots, blocks: mine, count }
    }

    /// The `i`-th slot.
    pub(crate) fn slot(self, i: usize) -> Result<Slot> {
        let per_page = self.slots.per_page as usize;
        self.slots.slot(self.blocks[i / per_page], (i % per_page) as u32)
    }

    /// Says in the head where the chain begins and ends.
    pub(crate) fn enter(self, head: &mut Head, kind: Kind) {
        head.first[chain_index(kind)] = self.blocks.first().copied().unwrap_or(NONE);
        head.last[chain_index(kind)] = self.blocks.last().copied().unwrap_or(NONE);
    }

    /// Emits the pages, with `fill` for each slot in order: page, slot, its number from 0.
    pub(crate) fn write(
        self,
        (segment, kind): (u32, Kind),
        mut fill: impl FnMut(&mut Page, Slot, usize) -> Result<()>,
        emit: &mut impl FnMut(BlockNumber, &Page) -> Result<()>,
    ) -> Result<()> {
        let per_page = self.slots.per_page as usize;
        for (i, &block) in self.blocks.iter().enumerate() {
            let first = i * per_page;
            let used = per_page.min(self.count - first);
            let next = self.blocks.get(i + 1).copied().unwrap_or(NONE);
            let mut page = Page([0; PAGE_SIZE]);
            page.set_tag(Tag { segment, kind, used: used as u16, next });
            for at in first..first + used {
                fill(&mut page, self.slot(at)?, at)?;
            }
            emit(block, &page)?;
        }
        Ok(())
    }
}

/// Overflow chunks of all nodes.
fn chunk_count<A: Arena>(graph: &Graph<A>, rows: &RowLists) -> usize {
    if rows.more.is_empty() { 0 } else { (0..graph.codes().len() as Node).map(|node| rows.chunks(node)).sum() }
}

/// Pages that [`write_segment`] will emit, the head included.
pub fn pages_needed<A: Arena>(graph: &Graph<A>, rows: &RowLists, shape: &Shape) -> usize {
    let n = graph.codes().len();
    1 + Run::pages(shape.element, n)
        + Run::pages(shape.tail, n * shape.tails)
        + Run::pages(shape.upper, graph.upper_count())
        + Run::pages(shape.chunk, chunk_count(graph, rows))
}

/// Writes a built graph as the segment `segment` to `blocks`: ascending, as many as [`pages_needed`] says. The first is
/// the segment's head. Pages are emitted in the order of `blocks`.
pub fn write_segment<A: Arena>(
    graph: &Graph<A>,
    rows: &RowLists,
    shape: &Shape,
    (segment, blocks): (u32, &[BlockNumber]),
    head: &Head,
    mut emit: impl FnMut(BlockNumber, &Page) -> Result<()>,
) -> Result<()> {
    let n = graph.codes().len();
    let chunk_start: Vec<(Node, usize)> = (0..n as Node)
        .filter(|&node| !rows.more.is_empty() && rows.chunks(node) > 0)
        .scan(0, |sum, node| {
            let start = *sum;
            *sum += rows.chunks(node);
            Some((node, start))
        })
        .collect();
    let chunks = chunk_start.last().map_or(0, |&(node, start)| start + rows.chunks(node));
    let (start, mut rest) = (blocks[0], &blocks[1..]);
    let elements = Run::take(&mut rest, shape.element, n);
    let tails = Run::take(&mut rest, shape.tail, n * shape.tails);
    let uppers = Run::take(&mut rest, shape.upper, graph.upper_count());
    let overflow = Run::take(&mut rest, shape.chunk, chunks);
    let layout = Layout { graph, rows, shape, chunk_start, elements, tails, uppers, overflow };

    let mut page = Page([0; PAGE_SIZE]);
    page.set_tag(Tag::new(segment, Kind::SegmentHead));
    layout.head(head)?.encode(&mut page);
    emit(start, &page)?;
    for (kind, run) in layout.runs() {
        let mut filler = Filler::new(&layout, segment, kind);
        run.write((segment, kind), |page, slot, at| filler.fill(page, slot, at), &mut emit)?;
    }
    Ok(())
}

struct Layout<'a, A: Arena> {
    graph: &'a Graph<A>,
    rows: &'a RowLists,
    shape: &'a Shape,
    /// Nodes with overflow chunks, with the number of their first.
    chunk_start: Vec<(Node, usize)>,
    elements: Run<'a>,
    tails: Run<'a>,
    uppers: Run<'a>,
    overflow: Run<'a>,
}

impl<'a, A: Arena> Layout<'a, A> {
    /// In the order of their pages.
    fn runs(&self) -> [(Kind, Run<'a>); 4] {
        [
            (Kind::Element, self.elements),
            (Kind::Tail, self.tails),
            (Kind::Upper, self.uppers),
            (Kind::Overflow, self.overflow),
        ]
    }

    fn head(&self, template: &Head) -> Result<Head> {
        let mut head = *template;
        if let Some((node, level)) = self.graph.entry() {
            head.entry = self.elements.slot(node as usize)?;
            head.entry_level = level;
        }
        for (kind, run) in self.runs() {
            run.enter(&mut head, kind);
        }
        head.element_pages = self.elements.blocks.len() as u32;
        head.rows = self.rows.len() as u64;
        Ok(head)
    }
}

/// Fills slots of one kind in order.
struct Filler<'a, A: Arena> {
    layout: &'a Layout<'a, A>,
    segment: u32,
    kind: Kind,
    /// (node, level) of each upper list, in the order of the lists.
    upper_owners: Vec<(Node, u8)>,
    nodes: Vec<Node>,
}

impl<'a, A: Arena> Filler<'a, A> {
    fn new(layout: &'a Layout<'a, A>, segment: u32, kind: Kind) -> Self {
        let mut upper_owners = Vec::new();
        if kind == Kind::Upper {
            let nodes = 0..layout.graph.codes().len() as Node;
            upper_owners.extend(nodes.flat_map(|n| (1..=layout.graph.level(n)).map(move |level| (n, level))));
        }
        Self { layout, segment, kind, upper_owners, nodes: Vec::new() }
    }

    fn fill(&mut self, page: &mut Page, slot: Slot, at: usize) -> Result<()> {
        match self.kind {
            Kind::Element => self.fill_element(page, slot, at as Node),
            Kind::Tail => {
                let (node, part) = (at / self.layout.shape.tails, at % self.layout.shape.tails);
                let range = self.layout.shape.tail_range(part);
                let code = &self.layout.graph.codes().code(node as Node)[range];
                self.layout.shape.tail.get_mut(page, slot)[..code.len()].copy_from_slice(code);
                Ok(())
            }
            Kind::Upper => self.fill_upper(page, slot, at),
            _ => self.fill_chunk(page, slot, at),
        }
    }

    fn fill_element(&mut self, page: &mut Page, slot: Slot, node: Node) -> Result<()> {
        let l = self.layout;
        l.graph.neighbors(node, 0, &mut self.nodes);
        let neighbors = self.nodes.iter().map(|&n| l.elements.slot(n as usize)).collect::<Result<Vec<_>>>()?;
        let parts = node as usize * l.shape.tails;
        let tails = (parts..parts + l.shape.tails).map(|t| l.tails.slot(t)).collect::<Result<Vec<_>>>()?;
        let level = l.graph.level(node);
        let upper = if level == 0 { NONE } else { l.uppers.slot(l.graph.upper_index(node, 1) as usize)? };
        let params = l.graph.codes().params(node);
        let mut element = l.shape.view_mut(page, slot);
        let code = l.graph.codes().code(node);
        element.write(
            self.segment,
            &NewElement { level, upper, params: &params, code, tails: &tails, neighbors: &neighbors },
        );
        let rows = l.rows.of(node);
        let count = rows.len() as u32;
        rows.take(INLINE_ROWS).for_each(|row| assert!(element.push_inline(&row), "a new element has room"));
        element.set_row_count(count);
        if let Ok(i) = l.chunk_start.binary_search_by_key(&node, |c| c.0) {
            element.set_overflow(l.overflow.slot(l.chunk_start[i].1)?);
        }
        Ok(())
    }

    fn fill_upper(&mut self, page: &mut Page, slot: Slot, at: usize) -> Result<()> {
        let l = self.layout;
        let (node, level) = self.upper_owners[at];
        l.graph.neighbors(node, level, &mut self.nodes);
        let neighbors = self
            .nodes
            .iter()
            .map(|&n| {
                let record = l.uppers.slot(l.graph.upper_index(n, level) as usize)?;
                Ok(UpperNeighbor { element: l.elements.slot(n as usize)?, record })
            })
            .collect::<Result<Vec<_>>>()?;
        let up = if level < l.graph.level(node) { l.uppers.slot(at + 1)? } else { NONE };
        write_upper(l.shape.upper.get_mut(page, slot), up, 0, &neighbors);
        Ok(())
    }

    fn fill_chunk(&mut self, page: &mut Page, slot: Slot, at: usize) -> Result<()> {
        let l = self.layout;
        let owner = l.chunk_start.partition_point(|c| c.1 <= at) - 1;
        let (node, start) = l.chunk_start[owner];
        let rows: Vec<Row> = l.rows.of(node).skip(INLINE_ROWS + (at - start) * CHUNK_ROWS).take(CHUNK_ROWS).collect();
        let next = if at + 1 < start + l.rows.chunks(node) { l.overflow.slot(at + 1)? } else { NONE };
        write_chunk(l.shape, l.shape.chunk.get_mut(page, slot), next, &rows);
        Ok(())
    }
}
