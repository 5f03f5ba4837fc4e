//! Graphs, pending lists and IVF segments in one directory, and rows that move from one to the other meanwhile.

use crate::data::{Rng, clustered};
use crate::harness::*;
use crate::strict::Strict;
use ann::distance::Metric;
use ann::hnsw::read::Segment;
use ann::hnsw::scan::Limits;
use ann::index::{Parameters, SegmentEntry, SegmentKind};
use ann::keys::{Condition, Filter, Keys};
use ann::memory::MemoryStore;
use std::cell::Cell;

struct Mixed {
    parameters: Parameters,
    rows: Vec<TableRow>,
    store: MemoryStore,
    pending: SegmentEntry,
}

/// A large and a small IVF segment, two pending lists of 40 rows each, a sealed graph and an active one.
fn mixed(metric: Metric) -> Mixed {
    let parameters = parameters(metric, 16, 1);
    let mut rows = table(0, clustered(41, 1300, 16));
    let mut rng = Rng::new(1);
    rows.iter_mut().for_each(|row| row.keys = Keys::new(&[Some(rng.below(10) as i64)]));
    let store = empty(&parameters);
    rows[..300].iter().for_each(|row| insert(&store, &parameters, row));
    seal(&store);
    rows[300..500].iter().for_each(|row| insert(&store, &parameters, row));
    add_ivf(&store, &parameters, &rows[500..1170], 14);
    add_ivf(&store, &parameters, &rows[1170..1220], 0);
    let pending = add_pending(&store, &parameters, &rows[1220..1260]);
    add_pending(&store, &parameters, &rows[1260..]);
    Mixed { parameters, rows, store, pending }
}

#[test]
fn every_row_comes_once_from_all_kinds_of_segments() {
    let mut some = Filter::none();
    some.and(Condition { column: 0, min: 2, max: 4, null: false });
    for metric in METRICS {
        let m = mixed(metric);
        assert_sound(&m.store);
        assert_eq!(rows_of(&m.store).len(), 1300);
        for (i, filter) in [(0, &Filter::none()), (600, &some), (1230, &some), (1250, &Filter::none())] {
            for limits in [NARROW, WIDE, Limits { ef_search: 5, probes: 3, ..WIDE }] {
                assert_complete(&m.store, &m.rows, &m.rows[i].vector, filter, limits);
            }
        }
    }
}

/// Moves some rows of the pending list into the active graph, as a flush does.
fn flush(m: &Mixed, store: &MemoryStore, rows: &[TableRow]) {
    let shapes = m.parameters.shapes();
    let pending = Segment { store, shape: shapes.of(SegmentKind::Pending), id: m.pending.id, head: m.pending.head };
    for row in rows {
        insert(store, &m.parameters, row);
        pending.vacuum(|tid| id(tid) == row.id, || ()).expect("sound");
    }
}

/// Whenever a flush comes, and whether it ends in a graph that the scan knows or in a new one: each row comes once, the
/// moved ones among them.
#[test]
fn rows_that_move_while_a_scan_runs_come_once() {
    for (metric, sealed, all) in
        [(Metric::L2, false, false), (Metric::Cosine, true, true), (Metric::InnerProduct, true, false)]
    {
        let m = mixed(metric);
        let moved = if all { &m.rows[1220..1260] } else { &m.rows[1225..1235] };
        for (query, limits) in [(Some(1230), WIDE), (Some(10), NARROW), (None, NARROW)] {
            let steps = {
                let strict = Strict::new(&m.store);
                run(&m, &strict, query, limits, &[]);
                strict.steps()
            };
            for step in (0..12).chain((12..steps).step_by((steps / 25).max(1) as usize)) {
                let store = m.store.clone();
                let happened = Cell::new(false);
                let strict = Strict::with_hook(&store, step, |store| {
                    if sealed {
                        seal(store);
                    }
                    flush(&m, store, moved);
                    if all {
                        unlist(store, m.pending.id);
                    }
                    happened.set(true);
                });
                run(&m, &strict, query, limits, moved);
                assert!(happened.get(), "{metric:?}: step {step} of {steps} did not come");
            }
        }
    }
}

#[track_caller]
fn run(m: &Mixed, store: &Strict, query: Option<usize>, limits: Limits, moved: &[TableRow]) {
    let vector = query.map(|i| m.rows[i].vector.as_slice());
    let (hits, dropped) = scan_all(store, vector, &Filter::none(), limits).expect("sound");
    let mut seen = vec![0; m.rows.len()];
    hits.iter().for_each(|hit| seen[id(hit.tid) as usize] += 1);
    assert!(seen.iter().all(|&n| n < 2), "a row came twice");
    let missing: Vec<usize> = (0..seen.len()).filter(|&row| seen[row] == 0).collect();
    assert!(missing.len() as u64 <= dropped, "{missing:?} are missing, {dropped} dropped");
    for row in moved {
        assert_eq!(seen[row.id as usize], 1, "row {} moved and was lost", row.id);
    }
}
