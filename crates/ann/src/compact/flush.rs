//! Moving rows one by one from a sealed pending list into the active graph.

use super::rewrite::{Copied, gather, swap};
use super::{Action, Help, Report};
use crate::error::{Error, Result};
use crate::hnsw::build::level_of;
use crate::hnsw::insert::{NewRow, Origin};
use crate::hnsw::probe::Probe;
use crate::hnsw::read::Segment;
use crate::index::{self, Directory, Head, SegmentEntry, SegmentKind, Shapes};
use crate::keys::KeySummary;
use crate::page::{Circle, NONE, PageStore};

/// Empties the sealed pending lists, sealing the open one first if there is none. `None`: nothing was moved.
///
/// Restartable at every unit: a row is in the list or in the graph, and an empty list is dropped.
pub(super) fn trickle<H: Help>(store: &impl PageStore, help: &H) -> Result<Option<Report>> {
    let started = help.now();
    let mut report =
        Report { action: Action::Flush, inputs: Vec::new(), output: None, rows: 0, started, finished: started };
    let (meta, _) = Directory::read(store)?;
    let shapes = meta.parameters.shapes();
    for list in sealed_lists(store, help, false)? {
        if !move_rows(store, &shapes, list, help, &mut report.rows)? {
            break;
        }
        report.inputs.push(list.id);
        report.finished = help.now();
        let dropped = Report { inputs: vec![list.id], ..report.clone() };
        swap(store, &[list.id], None, &dropped)?;
    }
    report.finished = help.now();
    Ok((report.rows > 0 || !report.inputs.is_empty()).then_some(report))
}

/// The pending lists that take no rows any more, oldest first. Seals the open one if it has rows, and `all` are asked for
/// or no other is sealed.
pub(super) fn sealed_lists(store: &impl PageStore, help: &impl Help, all: bool) -> Result<Vec<SegmentEntry>> {
    let (meta, directory) = Directory::read(store)?;
    let lists = |directory: &Directory| -> Vec<SegmentEntry> {
        directory.segments.iter().copied().filter(|s| s.kind == SegmentKind::Pending && !s.active).collect()
    };
    let sealed = lists(&directory);
    match directory.active_of(SegmentKind::Pending) {
        Some(open) if (all || sealed.is_empty()) && Head::read(store, &open)?.first_element() != NONE => {
            index::open(store, &meta, &directory, SegmentKind::Pending, help.now())?;
            Ok(lists(&Directory::read(store)?.1))
        }
        _ => Ok(sealed),
    }
}

/// Whether the list is empty now; if not, somebody wants the lock.
fn move_rows<H: Help>(
    store: &impl PageStore,
    shapes: &Shapes,
    list: SegmentEntry,
    help: &H,
    moved: &mut u64,
) -> Result<bool> {
    let segment = Segment { store, shape: &shapes.flat, id: list.id, head: list.head };
    let mut block = segment.read_head()?.first_element();
    let mut circle = Circle::default();
    while block != NONE {
        circle.step(block, block)?;
        let (elements, next) = gather(segment, block)?;
        cover(store, shapes, &elements)?;
        for element in &elements {
            if help.wanted() {
                return Ok(false);
            }
            move_row(store, shapes, segment, element, help.now())?;
            *moved += 1;
            help.progress(*moved)?;
        }
        block = next;
    }
    Ok(true)
}

/// Widens the active graph's summary for a page of rows at once: rows that grow with time would else widen it each.
fn cover(store: &impl PageStore, shapes: &Shapes, elements: &[Copied]) -> Result<()> {
    let active = Directory::read(store)?.1.active()?;
    let graph = Segment { store, shape: &shapes.graph, id: active.id, head: active.head };
    let keys = shapes.graph.keys;
    let mut rows = KeySummary::default();
    elements.iter().flat_map(|e| &e.rows).for_each(|row| _ = rows.add(&row.keys, keys));
    let Some(mut summary) = graph.read_head()?.summary else { return Ok(()) };
    let before = summary;
    summary.join(&rows);
    // Sealed meanwhile: each row will see to it.
    if summary != before {
        graph.widen(&rows)?;
    }
    Ok(())
}

fn move_row<S: PageStore>(store: &S, shapes: &Shapes, list: Segment<S>, element: &Copied, now: i64) -> Result<()> {
    let &[row] = &element.rows[..] else {
        let what = format!("is of a pending list and has an element of {} rows", element.rows.len());
        return Err(Error::corrupt(shapes.flat.element.block(element.slot), what));
    };
    let decoded: Vec<f32> =
        element.code.iter().map(|&byte| element.params.offset + element.params.scale * f32::from(byte)).collect();
    let probe = Probe::new(shapes.graph.metric, &decoded);
    let level = level_of(u64::from(row.tid.block) << 16 | u64::from(row.tid.offset), shapes.graph.m);
    let new = NewRow { row, params: &element.params, code: &element.code, probe: &probe, level };
    let origin = Origin { shape: list.shape, segment: list.id, slot: element.slot, tid: row.tid };
    loop {
        store.check_interrupts()?;
        let (meta, directory) = Directory::read(store)?;
        if index::insert_linked(store, &meta, &directory, &new, Some(&origin), now)?.is_some() {
            return Ok(());
        }
        if Directory::read(store)?.0.generation == meta.generation {
            return Err(Error::corrupt(meta.root, "lists a sealed segment as the active one"));
        }
    }
}
