//! Rows gathered for a new segment, and the pages of a built graph.

use super::build::{Arena, Codes, Graph, Node};
use crate::error::Result;
use crate::index::{Head, chain_index};
use crate::keys::{KeySummary, PackedRows, Row};
use crate::page::{BlockNumber, Kind, NONE, PAGE_SIZE, Page, Tag};
use crate::shape::{CHUNK_ROWS, INLINE_ROWS, NewElement, Shape, Slot, Slots, UpperNeighbor, write_chunk, write_upper};
use crate::sq8::Params;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
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

    /// Adds a row. A row whose code is known already joins that element, and widens its residual. Which element it is.
    pub fn push(&mut self, arena: &mut A, params: &Params, code: &[u8], row: &Row) -> Result<Node> {
        let hash = self.hasher.hash_one(code);
        let codes = &mut self.codes;
        if let Some(&node) = self.by_code.find(hash, |&node| codes.equals(node, params, code)) {
            codes.widen(node, params);
            self.more.push((node, *row));
            return Ok(node);
        }
        let node = codes.push(arena, params, code)?;
        self.first.push(row);
        let hasher = &self.hasher;
        self.by_code.insert_unique(hash, node, |&node| hasher.hash_one(self.codes.code(node)));
        Ok(node)
    }

    /// Takes the elements from `at` on out, in their order, into rows of their own.
    ///
    /// # Errors
    /// What the arena fails with.
    pub fn split_off(&mut self, arena: &mut A, at: Node) -> Result<Self> {
        let mut tail = Self::new(self.codes.dimensions(), self.first.keys());
        for node in at..self.codes.len() as Node {
            let row = self.first.get(node as usize);
            tail.push(arena, &self.codes.params(node), self.codes.code(node), &row)?;
        }
        self.by_code.retain(|&mut node| node < at);
        self.codes.truncate(at);
        self.first.truncate(at as usize);
        self.more.retain(|&(node, row)| {
            if node >= at {
                tail.more.push((node - at, row));
            }
            node < at
        });
        Ok(tail)
    }

    /// The first row of each element.
    pub fn firsts(&self) -> impl Iterator<Item = (Node, Row)> {
        (0..self.first.len()).map(|i| (i as Node, self.first.get(i)))
    }

    /// Copies some elements with all their rows, in the order of `nodes`.
    ///
    /// # Errors
    /// What the arena fails with.
    pub fn copy_to(&self, nodes: &[Node], arena: &mut A, to: &mut Self) -> Result<()> {
        let mut copies: HashMap<Node, Node> = HashMap::new();
        for &node in nodes {
            copies.insert(node, to.codes.len() as Node);
            to.push(arena, &self.codes.params(node), self.codes.code(node), &self.first.get(node as usize))?;
        }
        to.more.extend(self.more.iter().filter_map(|(node, row)| Some((*copies.get(node)?, *row))));
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

    /// The ranges of the rows' keys.
    pub fn summary(&self, keys: usize) -> KeySummary {
        let mut summary = KeySummary::default();
        if keys > 0 {
            (0..self.first.len()).for_each(|i| _ = summary.add(&self.first.get(i).keys, keys));
            self.more.iter().for_each(|(_, row)| _ = summary.add(&row.keys, keys));
        }
        summary
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

/// Elements with their rows, tails and overflow chunks: what every segment has that is built at once.
pub(crate) struct Bodies<'a, A: Arena> {
    codes: &'a Codes<A>,
    rows: &'a RowLists,
    shape: &'a Shape,
    /// Nodes in the order of their elements; `None`: by number.
    order: Option<&'a [Node]>,
    /// Elements with overflow chunks, by their place in the order, with the number of their first.
    chunk_start: Vec<(u32, usize)>,
    pub(crate) elements: Run<'a>,
    pub(crate) tails: Run<'a>,
    pub(crate) overflow: Run<'a>,
}

impl<'a, A: Arena> Bodies<'a, A> {
    /// Pages of elements, tails and overflow chunks.
    pub(crate) fn pages(codes: &Codes<A>, rows: &RowLists, shape: &Shape) -> [usize; 3] {
        let n = codes.len();
        let chunks = if rows.more.is_empty() { 0 } else { (0..n as Node).map(|node| rows.chunks(node)).sum() };
        [Run::pages(shape.element, n), Run::pages(shape.tail, n * shape.tails), Run::pages(shape.chunk, chunks)]
    }

    /// Bodies on as many of the three lists of blocks as [`Self::pages`] says.
    pub(crate) fn new(
        (codes, rows, shape): (&'a Codes<A>, &'a RowLists, &'a Shape),
        order: Option<&'a [Node]>,
        [mut elements, mut tails, mut overflow]: [&'a [BlockNumber]; 3],
    ) -> Self {
        let (n, mut chunks, mut chunk_start) = (codes.len(), 0, Vec::new());
        if !rows.more.is_empty() {
            for i in 0..n {
                let more = rows.chunks(order.map_or(i as Node, |order| order[i]));
                if more > 0 {
                    chunk_start.push((i as u32, chunks));
                    chunks += more;
                }
            }
        }
        Self {
            codes,
            rows,
            shape,
            order,
            chunk_start,
            elements: Run::take(&mut elements, shape.element, n),
            tails: Run::take(&mut tails, shape.tail, n * shape.tails),
            overflow: Run::take(&mut overflow, shape.chunk, chunks),
        }
    }

    fn node(&self, i: usize) -> Node {
        self.order.map_or(i as Node, |order| order[i])
    }

    /// Writes the `i`-th element with its rows; tails and codes of `new` are filled in here.
    pub(crate) fn fill_element(
        &self,
        page: &mut Page,
        slot: Slot,
        i: usize,
        (segment, level, upper, neighbors): (u32, u8, Slot, &[Slot]),
    ) -> Result<()> {
        let (shape, node, parts) = (self.shape, self.node(i), i * self.shape.tails);
        let tails = (parts..parts + shape.tails).map(|t| self.tails.slot(t)).collect::<Result<Vec<_>>>()?;
        let (params, code) = (self.codes.params(node), self.codes.code(node));
        let mut element = shape.view_mut(page, slot);
        element.write(segment, &NewElement { level, upper, params: &params, code, tails: &tails, neighbors });
        let rows = self.rows.of(node);
        let count = rows.len() as u32;
        rows.take(INLINE_ROWS).for_each(|row| assert!(element.push_inline(&row), "a new element has room"));
        element.set_row_count(count);
        if let Ok(found) = self.chunk_start.binary_search_by_key(&(i as u32), |c| c.0) {
            element.set_overflow(self.overflow.slot(self.chunk_start[found].1)?);
        }
        Ok(())
    }

    /// Writes the `at`-th tail.
    pub(crate) fn fill_tail(&self, page: &mut Page, slot: Slot, at: usize) {
        let (node, part) = (self.node(at / self.shape.tails), at % self.shape.tails);
        let code = &self.codes.code(node)[self.shape.tail_range(part)];
        self.shape.tail.get_mut(page, slot)[..code.len()].copy_from_slice(code);
    }

    /// Writes the `at`-th overflow chunk.
    pub(crate) fn fill_chunk(&self, page: &mut Page, slot: Slot, at: usize) -> Result<()> {
        let (i, start) = self.chunk_start[self.chunk_start.partition_point(|c| c.1 <= at) - 1];
        let (node, skipped) = (self.node(i as usize), INLINE_ROWS + (at - start) * CHUNK_ROWS);
        let rows: Vec<Row> = self.rows.of(node).skip(skipped).take(CHUNK_ROWS).collect();
        let next = if at + 1 < start + self.rows.chunks(node) { self.overflow.slot(at + 1)? } else { NONE };
        write_chunk(self.shape, self.shape.chunk.get_mut(page, slot), next, &rows);
        Ok(())
    }
}

/// Pages of the head, elements, tails, upper records and overflow chunks.
fn parts<A: Arena>(graph: &Graph<A>, rows: &RowLists, shape: &Shape) -> [usize; 5] {
    let [elements, tails, overflow] = Bodies::pages(graph.codes(), rows, shape);
    [1, elements, tails, Run::pages(shape.upper, graph.upper_count()), overflow]
}

/// Pages that [`write_segment`] will emit, the head included.
pub fn pages_needed<A: Arena>(graph: &Graph<A>, rows: &RowLists, shape: &Shape) -> usize {
    parts(graph, rows, shape).iter().sum()
}

/// Cuts `blocks` into lists of these lengths.
pub(crate) fn cut<const N: usize>(mut blocks: &[BlockNumber], lengths: [usize; N]) -> [&[BlockNumber]; N] {
    lengths.map(|length| {
        let (mine, rest) = blocks.split_at(length);
        blocks = rest;
        mine
    })
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
    let [start, elements, tails, mut uppers, overflow] = cut(blocks, parts(graph, rows, shape));
    let bodies = Bodies::new((graph.codes(), rows, shape), None, [elements, tails, overflow]);
    let uppers = Run::take(&mut uppers, shape.upper, graph.upper_count());
    let layout = Layout { graph, shape, bodies, uppers };

    let mut page = Page([0; PAGE_SIZE]);
    page.set_tag(Tag::new(segment, Kind::SegmentHead));
    layout.head(head)?.encode(&mut page);
    emit(start[0], &page)?;
    for (kind, run) in layout.runs() {
        let mut filler = Filler::new(&layout, segment, kind);
        run.write((segment, kind), |page, slot, at| filler.fill(page, slot, at), &mut emit)?;
    }
    Ok(())
}

struct Layout<'a, A: Arena> {
    graph: &'a Graph<A>,
    shape: &'a Shape,
    bodies: Bodies<'a, A>,
    uppers: Run<'a>,
}

impl<'a, A: Arena> Layout<'a, A> {
    /// In the order of their pages.
    fn runs(&self) -> [(Kind, Run<'a>); 4] {
        [
            (Kind::Element, self.bodies.elements),
            (Kind::Tail, self.bodies.tails),
            (Kind::Upper, self.uppers),
            (Kind::Overflow, self.bodies.overflow),
        ]
    }

    fn head(&self, template: &Head) -> Result<Head> {
        let mut head = *template;
        if let Some((node, level)) = self.graph.entry() {
            head.entry = self.bodies.elements.slot(node as usize)?;
            head.entry_level = level;
        }
        for (kind, run) in self.runs() {
            run.enter(&mut head, kind);
        }
        head.element_pages = self.bodies.elements.blocks.len() as u32;
        head.rows = self.bodies.rows.len() as u64;
        head.summary = Some(self.bodies.rows.summary(self.shape.keys));
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
            Kind::Upper => self.fill_upper(page, slot, at),
            Kind::Tail => {
                self.layout.bodies.fill_tail(page, slot, at);
                Ok(())
            }
            _ => self.layout.bodies.fill_chunk(page, slot, at),
        }
    }

    fn fill_element(&mut self, page: &mut Page, slot: Slot, node: Node) -> Result<()> {
        let l = self.layout;
        l.graph.neighbors(node, 0, &mut self.nodes);
        let slot_of = |&n: &Node| l.bodies.elements.slot(n as usize);
        let neighbors = self.nodes.iter().map(slot_of).collect::<Result<Vec<_>>>()?;
        let level = l.graph.level(node);
        let upper = if level == 0 { NONE } else { l.uppers.slot(l.graph.upper_index(node, 1) as usize)? };
        l.bodies.fill_element(page, slot, node as usize, (self.segment, level, upper, &neighbors))
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
                Ok(UpperNeighbor { element: l.bodies.elements.slot(n as usize)?, record })
            })
            .collect::<Result<Vec<_>>>()?;
        let up = if level < l.graph.level(node) { l.uppers.slot(at + 1)? } else { NONE };
        write_upper(l.shape.upper.get_mut(page, slot), up, 0, &neighbors);
        Ok(())
    }
}
