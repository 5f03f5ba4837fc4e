//! `hybrid_check`: structure, and with `heap` whether each visible row has exactly one entry.

use super::Inspected;
use crate::pg::relation::OpenTable;
use ann::hnsw::probe::normalize;
use ann::index::SegmentKind;
use ann::keys::Row;
use ann::page::META_BLOCK;
use ann::shape::HeapTid;
use pgrx::prelude::*;
use std::hash::{DefaultHasher, Hash, Hasher};

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
    let (keys, columns) = (inspected.meta.parameters.keys, inspected.opened.index().column_count() - 1);
    if keys != columns {
        problems.push((i64::from(META_BLOCK), format!("is of an index with {keys} key columns, not {columns}")));
        return TableIterator::new(problems);
    }
    // Flushes move rows one by one from pending lists to a graph: read in this order no row is missed.
    let (lists, others): (Vec<_>, Vec<_>) =
        inspected.directory.segments.iter().partition(|s| s.kind == SegmentKind::Pending);
    for (entries, rows) in [(&lists, &mut waiting), (&others, &mut rows)] {
        for entry in entries {
            let mut here = Vec::new();
            match inspected.segment(entry).check(&mut here) {
                Ok(found) => problems.extend(found.into_iter().map(|p| (i64::from(p.block), p.what))),
                Err(error) => problems.push((i64::from(entry.head), error.to_string())),
            }
            if heap {
                rows.extend(here.iter().map(Seen::new));
            }
        }
    }
    if let Some(visible) = visible {
        let mut still = Vec::new();
        for entry in &lists {
            // What is wrong with them was found above.
            _ = inspected.segment(entry).check(&mut still);
        }
        let still = still.iter().map(Seen::new).collect();
        compare(&visible, entries_of([waiting, rows, still]), &mut problems);
    }
    TableIterator::new(problems)
}

/// A row, in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    tid: HeapTid,
    /// Hash of the keys.
    keys: u64,
}

impl Seen {
    fn new(row: &Row) -> Self {
        let mut hasher = DefaultHasher::new();
        row.keys.hash(&mut hasher);
        Self { tid: row.tid, keys: hasher.finish() }
    }
}

/// Rows that the index should have, in the order of their heap TIDs. Expressions of the index are evaluated as the table's
/// owner.
fn visible_rows(inspected: &Inspected) -> Vec<Seen> {
    let table = OpenTable::open(inspected.opened.table());
    let metric = inspected.meta.parameters.metric;
    let mut rows = Vec::new();
    table.as_owner(|| {
        table.visible_rows(inspected.opened.index(), &mut |row, vector| {
            if normalize(metric, vector).is_some() {
                rows.push(Seen::new(&row));
            }
        });
    });
    rows.sort_unstable();
    rows
}

/// The entries of an index whose pending lists were read first, then its other segments, then the lists once more: what
/// was in the lists, is in a segment, and is not in the lists any more, has been moved.
fn entries_of([waiting, mut others, mut still]: [Vec<Seen>; 3]) -> Vec<Seen> {
    others.sort_unstable();
    still.sort_unstable();
    let moved = |row: &Seen| others.binary_search(row).is_ok() && still.binary_search(row).is_err();
    let stayed: Vec<_> = waiting.into_iter().filter(|row| !moved(row)).collect();
    others.extend(stayed);
    others
}

fn compare(visible: &[Seen], mut entries: Vec<Seen>, problems: &mut Vec<(i64, String)>) {
    entries.sort_unstable();
    let mut faults = Vec::new();
    for &Seen { tid, keys } in visible {
        let start = entries.partition_point(|e| e.tid < tid);
        match entries[start..].iter().take_while(|e| e.tid == tid).count() {
            1 if entries[start].keys == keys => {}
            1 => faults.push(format!("row ({},{}) has other keys than its entry", tid.block, tid.offset)),
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
