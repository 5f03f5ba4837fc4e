//! `hybrid_check`: structure, and with `heap` whether each visible row has exactly one entry.

use super::Inspected;
use crate::pg::relation::OpenTable;
use ann::hnsw::probe::normalize;
use ann::index::SegmentKind;
use ann::keys::Row;
use ann::page::META_BLOCK;
use ann::shape::HeapTid;
use pgrx::prelude::*;

/// Faults of one kind that are listed singly; the rest are counted.
const LISTED: usize = 100;

#[pg_extern(sql = false)]
fn hybrid_check(index: pg_sys::Oid, heap: bool) -> TableIterator<'static, (name!(block, i64), name!(problem, String))> {
    let mut inspected = Inspected::open(index);
    // The table first: what its snapshot sees has its entry by now, and vacuum leaves it alone while we look.
    let visible = heap.then(|| visible_rows(&inspected));
    // Rows that came meanwhile may lie in a segment that came meanwhile.
    inspected.refresh();
    let (mut problems, mut waiting, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let active = inspected.directory.segments.iter().filter(|s| s.active && s.kind == SegmentKind::Hnsw).count();
    if active != 1 {
        problems.push((i64::from(META_BLOCK), format!("lists {active} active graphs")));
    }
    let (dimensions, declared) = (inspected.meta.parameters.dimensions, inspected.opened.index().declared_dimensions());
    if declared.is_some_and(|declared| declared != dimensions) {
        problems
            .push((i64::from(META_BLOCK), format!("has vectors of {dimensions} dimensions, not those of the column")));
    }
    // Flushes move rows one by one from pending lists to a graph: read in this order no row is missed.
    let (lists, others): (Vec<_>, Vec<_>) =
        inspected.directory.segments.iter().partition(|s| s.kind == SegmentKind::Pending);
    for (entries, rows) in [(&lists, &mut waiting), (&others, &mut rows)] {
        for entry in entries {
            match inspected.segment(entry).check(rows) {
                Ok(found) => problems.extend(found.into_iter().map(|p| (i64::from(p.block), p.what))),
                Err(error) => problems.push((i64::from(entry.head), error.to_string())),
            }
        }
    }
    if let Some(visible) = visible {
        let mut still = Vec::new();
        for entry in &lists {
            // What is wrong with them was found above.
            _ = inspected.segment(entry).check(&mut still);
        }
        compare(&visible, entries_of([waiting, rows, still].map(tids)), &mut problems);
    }
    TableIterator::new(problems)
}

/// Heap TIDs that the index should have, in order.
fn visible_rows(inspected: &Inspected) -> Vec<HeapTid> {
    let table = OpenTable::open(inspected.opened.table());
    let metric = inspected.meta.parameters.metric;
    let mut rows = Vec::new();
    table.visible_rows(inspected.opened.index(), &mut |tid, vector| {
        if normalize(metric, vector).is_some() {
            rows.push(tid);
        }
    });
    rows.sort_unstable();
    rows
}

fn tids(rows: Vec<Row>) -> Vec<HeapTid> {
    let mut tids: Vec<_> = rows.into_iter().map(|row| row.tid).collect();
    tids.sort_unstable();
    tids
}

/// The entries of an index whose pending lists were read first, then its other segments, then the lists once more: what
/// was in the lists, is in a segment, and is not in the lists any more, has been moved.
fn entries_of([waiting, mut others, still]: [Vec<HeapTid>; 3]) -> Vec<HeapTid> {
    let moved = |tid: &HeapTid| others.binary_search(tid).is_ok() && still.binary_search(tid).is_err();
    let stayed: Vec<_> = waiting.into_iter().filter(|tid| !moved(tid)).collect();
    others.extend(stayed);
    others
}

fn compare(visible: &[HeapTid], mut entries: Vec<HeapTid>, problems: &mut Vec<(i64, String)>) {
    entries.sort_unstable();
    let mut faults = Vec::new();
    for &tid in visible {
        let start = entries.partition_point(|&e| e < tid);
        match entries[start..].iter().take_while(|&&e| e == tid).count() {
            1 => {}
            0 => faults.push(format!("row ({},{}) has no entry", tid.block, tid.offset)),
            n => faults.push(format!("row ({},{}) has {n} entries", tid.block, tid.offset)),
        }
    }
    let more = faults.len().saturating_sub(LISTED);
    problems.extend(faults.into_iter().take(LISTED).map(|what| (i64::from(META_BLOCK), what)));
    if more > 0 {
        problems.push((i64::from(META_BLOCK), format!("{more} more rows without exactly one entry")));
    }
}
