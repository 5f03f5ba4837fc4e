//! Copying what some segments have into one new segment, and putting that in their place.

use super::{Action, Help, Report, flush, release};
use crate::error::{Error, Result};
use crate::hnsw::build::Graph;
use crate::hnsw::layout::{Rows, pages_needed, write_segment};
use crate::hnsw::read::Segment;
use crate::index::{self, Directory, DroppedEntry, Flip, Head, Meta, Parameters, SegmentEntry, SegmentKind};
use crate::ivf::kmeans::Work;
use crate::ivf::write::Plan;
use crate::keys::{KeySummary, Row};
use crate::page::{BlockNumber, Circle, META_BLOCK, NONE, Page, PageStore, Unit};
use crate::shape::Slot;
use crate::sq8::Params;
use std::cell::Cell;

/// An element that has rows, copied.
pub(super) struct Copied {
    pub(super) slot: Slot,
    /// Both residuals are that of the metric: an element has no other.
    pub(super) params: Params,
    pub(super) code: Vec<u8>,
    pub(super) rows: Vec<Row>,
}

/// The elements of a page that have rows. Returns the next page, too.
pub(super) fn gather<S: PageStore>(segment: Segment<S>, block: BlockNumber) -> Result<(Vec<Copied>, BlockNumber)> {
    let (mut found, mut chained) = (Vec::new(), Vec::new());
    let next = segment.elements_of(block, |slot, e| {
        if e.row_count() == 0 {
            return;
        }
        if e.overflow() != NONE {
            chained.push(found.len());
        }
        let params = Params {
            scale: e.scale(),
            offset: e.offset(),
            norm2: e.norm2(),
            sum: e.sum(),
            residual_l2: e.residual(),
            residual_l1: e.residual(),
        };
        found.push(Copied { slot, params, code: e.head_code().to_vec(), rows: e.inline_rows().collect() });
    })?;
    for i in chained {
        found[i].rows.clear();
        segment.rows(found[i].slot, &mut found[i].rows)?;
    }
    if segment.shape.tails > 0 {
        let codes = segment.codes(&found.iter().map(|e| e.slot).collect::<Vec<_>>())?;
        found.iter_mut().enumerate().for_each(|(i, e)| e.code = codes.get(i).0.to_vec());
    }
    Ok((found, next))
}

/// Rows of all inputs, and the ranges of their keys.
struct Gathered<H: Help> {
    arena: H::Arena,
    rows: Rows<H::Arena>,
    summary: KeySummary,
}

/// Writes the rows of `inputs` (of all pending lists, where that is empty) as one new segment of a kind, and swaps it for
/// them.
pub(super) fn rewrite<H: Help>(
    store: &impl PageStore,
    action: Action,
    kind: SegmentKind,
    inputs: &[u32],
    help: &H,
) -> Result<Option<Report>> {
    let started = help.now();
    let Some(inputs) = sealed_inputs(store, inputs, help)? else { return Ok(None) };
    let parameters = Meta::read(store)?.parameters;
    let Some(gathered) = read_all(store, &parameters, &inputs, help)? else { return Ok(None) };
    let count = gathered.rows.len() as u64;
    let created = inputs.iter().map(|s| s.created).max().unwrap_or(started);
    let output = if count == 0 {
        None
    } else {
        let Some(head) = write(store, &parameters, kind, gathered, created, help)? else { return Ok(None) };
        Some(head)
    };
    let ids: Vec<u32> = inputs.iter().map(|s| s.id).collect();
    let finished = help.now();
    let report = Report { action, inputs: ids, output: output.map(|s| s.id), rows: count, started, finished };
    swap(store, &report.inputs, output, &report)?;
    Ok(Some(report))
}

/// The segments to read, sealed. `None`: some are not there any more.
fn sealed_inputs(store: &impl PageStore, inputs: &[u32], help: &impl Help) -> Result<Option<Vec<SegmentEntry>>> {
    if inputs.is_empty() {
        let lists = flush::sealed_lists(store, help, true)?;
        return Ok((!lists.is_empty()).then_some(lists));
    }
    loop {
        let (meta, directory) = Directory::read(store)?;
        let found: Vec<SegmentEntry> = directory.segments.iter().copied().filter(|s| inputs.contains(&s.id)).collect();
        if found.len() < inputs.len() {
            return Ok(None);
        }
        let Some(open) = found.iter().find(|s| s.active) else { return Ok(Some(found)) };
        if !directory.has_room() {
            return Ok(None);
        }
        index::open(store, &meta, &directory, open.kind, help.now())?;
    }
}

/// `None`: somebody wants the lock.
fn read_all<H: Help>(
    store: &impl PageStore,
    parameters: &Parameters,
    inputs: &[SegmentEntry],
    help: &H,
) -> Result<Option<Gathered<H>>> {
    let shapes = parameters.shapes();
    let mut all = Gathered::<H> {
        arena: help.arena(),
        rows: Rows::new(parameters.dimensions, parameters.keys),
        summary: KeySummary::default(),
    };
    for input in inputs {
        let segment = Segment { store, shape: shapes.of(input.kind), id: input.id, head: input.head };
        let mut block = segment.read_head()?.first_element();
        let mut circle = Circle::default();
        while block != NONE {
            store.check_interrupts()?;
            if help.wanted() {
                return Ok(None);
            }
            circle.step(block, block)?;
            let (elements, next) = gather(segment, block)?;
            for element in elements {
                for row in &element.rows {
                    all.rows.push(&mut all.arena, &element.params, &element.code, row)?;
                    all.summary.add(&row.keys, parameters.keys);
                }
            }
            help.progress(all.rows.len() as u64)?;
            block = next;
        }
    }
    Ok(Some(all))
}

/// Writes a sealed segment aside. Until it is listed its pages are orphans.
fn write<H: Help>(
    store: &impl PageStore,
    parameters: &Parameters,
    kind: SegmentKind,
    gathered: Gathered<H>,
    created: i64,
    help: &H,
) -> Result<Option<SegmentEntry>> {
    let Gathered { mut arena, rows, summary } = gathered;
    let (codes, lists) = rows.finish();
    let id = take_segment(store)?;
    let head = Head { active: false, summary: Some(summary), ..Head::new(created) };
    let entry = |blocks: &[BlockNumber]| SegmentEntry { id, kind, active: false, head: blocks[0], created };
    let mut written = 0u64;
    let mut emit = |block: BlockNumber, page: &Page| {
        store.check_interrupts()?;
        written += 1;
        help.progress(written)?;
        store.write_new(block, page)
    };
    let shapes = parameters.shapes();
    if kind == SegmentKind::Ivf {
        let (mut wanted, writing) = (false, Cell::new(false));
        let written = (|| {
            let (pool, threads) = help.pool();
            // What is being written is soon done; to give up now would leave orphans.
            let poll = &mut |done| if writing.get() { help.wait(done) } else { wait(help, done, &mut wanted) };
            let mut work = Work { pool, threads, stop: help.stop(), poll };
            let plan = Plan::new((&codes, &lists, &shapes.flat), parameters.lists, u64::from(id), &mut work)?;
            let blocks = reserve(store, plan.pages_needed())?;
            writing.set(true);
            plan.write((id, &blocks), &head, &mut work, &mut emit)?;
            Ok(entry(&blocks))
        })();
        return if wanted { Ok(None) } else { written.map(Some) };
    }
    let graph = Graph::new(&mut arena, &shapes.graph, parameters.ef_construction, codes, u64::from(id))?;
    if !link(&graph, help)? {
        return Ok(None);
    }
    let blocks = reserve(store, pages_needed(&graph, &lists, &shapes.graph))?;
    write_segment(&graph, &lists, &shapes.graph, (id, &blocks), &head, &mut emit)?;
    Ok(Some(entry(&blocks)))
}

/// Links all nodes. False: somebody wants the lock.
fn link<H: Help>(graph: &Graph<H::Arena>, help: &H) -> Result<bool> {
    let mut wanted = false;
    let linked = graph.link_all(help.pool(), help.stop(), |done| wait(help, done as u64, &mut wanted));
    if wanted { Ok(false) } else { linked.map(|()| true) }
}

/// Waits for threads; ends their work if somebody wants the lock.
fn wait(help: &impl Help, done: u64, wanted: &mut bool) -> Result<()> {
    help.wait(done)?;
    *wanted = help.wanted();
    if *wanted { Err(Error::Stopped) } else { Ok(()) }
}

fn reserve(store: &impl PageStore, pages: usize) -> Result<Vec<BlockNumber>> {
    store.reserve(u32::try_from(pages).map_err(|_| Error::Full)?)
}

/// Takes the id of a segment to be written aside, in a unit of its own: so no other segment ever has it.
fn take_segment(store: &impl PageStore) -> Result<u32> {
    let mut unit = store.unit();
    let page = unit.page(META_BLOCK)?;
    let mut meta = Meta::decode(page)?;
    let id = meta.take_segment()?;
    meta.encode(page);
    unit.commit()?;
    Ok(id)
}

/// One unit: `output` takes the place of `inputs`, which are dropped, and the history tells of it.
pub(super) fn swap(
    store: &impl PageStore,
    inputs: &[u32],
    output: Option<SegmentEntry>,
    report: &Report,
) -> Result<()> {
    loop {
        let (meta, mut directory) = Directory::read(store)?;
        let Some(mut flip) = Flip::begin(store, &meta)? else { continue };
        let at = directory.segments.iter().position(|s| inputs.contains(&s.id));
        let (gone, mut stay): (Vec<SegmentEntry>, Vec<SegmentEntry>) =
            directory.segments.iter().partition(|s| inputs.contains(&s.id));
        if gone.len() != inputs.len() {
            return Err(Error::corrupt(META_BLOCK, "lost a segment while it was being compacted"));
        }
        if let Some((output, at)) = output.zip(at) {
            stay.insert(at, output);
        }
        directory.segments = stay;
        directory.dropped.extend(gone.iter().map(|s| DroppedEntry {
            id: s.id,
            kind: s.kind,
            head: s.head,
            safexid: 0,
        }));
        history_of(&mut flip, report)?;
        let old = flip.commit(directory)?;
        store.release(old)?;
        return release::look_up(store);
    }
}

fn history_of<U: Unit>(flip: &mut Flip<U>, report: &Report) -> Result<()> {
    super::history::add(flip, report)
}
