//! What a scan promises: order, bounds, every row once, over graphs, sweeps and flat passes.

use crate::data::{Rng, clustered};
use crate::harness::*;
use ann::distance::Metric;
use ann::hnsw::scan::{Limits, Scan};
use ann::index::{Directory, Parameters};
use ann::keys::Filter;
use ann::memory::MemoryStore;
use std::collections::BTreeSet;

/// Walks narrowly, and keeps so little that reading everything takes several passes.
const NARROW: Limits = Limits { ef_search: 2, memory: 0, max_tuples: 0, probes: 0 };

/// A large built segment, a small inserted one, an empty one.
fn three_segments(parameters: &Parameters, rows: &[Vec<f32>], small: usize) -> MemoryStore {
    let large = rows.len() - small;
    let store = built(parameters, numbered(&rows[..large]), 1);
    seal(&store).expect("sound");
    for (row, vector) in numbered(rows).skip(large) {
        insert(&store, parameters, row, vector).expect("sound");
    }
    seal(&store).expect("sound");
    store
}

/// Runs a scan to its end; it returns every row of `0..n` but those it says it dropped.
fn assert_complete(
    store: &MemoryStore,
    parameters: &Parameters,
    rows: &[Vec<f32>],
    query: &[f32],
    limits: Limits,
) -> u64 {
    let metric = parameters.metric;
    let (hits, dropped) = scan_all(store, &parameters.shape(), Some(probe(metric, query)), limits).expect("sound");
    assert_ordered(metric, query, &hits, |row| rows[row as usize].clone());
    assert_eq!(hits.len() as u64 + dropped, rows.len() as u64, "{metric:?}: {} rows, {dropped} dropped", hits.len());
    dropped
}

#[test]
fn a_scan_to_the_end_returns_every_row_once_from_all_kinds_of_segments() {
    for metric in METRICS {
        let parameters = parameters(metric, 8, 4, 16);
        let rows = clustered(31, 2600, 8);
        let store = three_segments(&parameters, &rows, 60);
        let mut dropped = 0;
        for i in [0, 7, 1300, 2599] {
            dropped += assert_complete(&store, &parameters, &rows, &rows[i], NARROW);
            // Wide enough to read every segment whole: nothing comes late.
            let wide = Limits { ef_search: 100, ..NARROW };
            assert_eq!(assert_complete(&store, &parameters, &rows, &rows[i], wide), 0);
        }
        // Under inner products rows of small norm are nobody's neighbors: only a flat pass comes upon them, late.
        let share = if metric == Metric::InnerProduct { 10 } else { 20 };
        assert!(dropped * share < 4 * rows.len() as u64, "{metric:?}: {dropped} of {} rows dropped", 4 * rows.len());
    }
}

/// Thousands of rows whose bounds are all the same: passes must neither repeat nor skip within a tie.
#[test]
fn rows_with_equal_bounds_come_once_each_over_many_passes() {
    let parameters = parameters(Metric::L2, 16, 4, 16);
    let mut rng = Rng::new(2);
    // Codes with a scale of one and a query in steps of 1/128 hold these vectors exactly. Half the rows differ from the
    // query by 3 in each dimension, half of these up and half down: distances, norms and bounds are all the same.
    let row = |rest: &mut dyn FnMut(usize) -> f32| -> Vec<f32> {
        [0.0, 255.0].into_iter().chain((0..14).map(|i| 100.0 + rest(i))).collect()
    };
    let signs = (0..1u32 << 14).filter(|mask| mask.count_ones() == 7).take(1300);
    let rows: Vec<Vec<f32>> = signs
        .flat_map(|mask| {
            [row(&mut |i| if mask >> i & 1 == 1 { 3.0 } else { -3.0 }), row(&mut |_| 12.0 * (rng.uniform() - 0.5))]
        })
        .collect();
    let mut query = row(&mut |_| 0.0);
    query[1] = 250.0;
    let store = three_segments(&parameters, &rows, 40);
    let (hits, _) = scan_all(&store, &parameters.shape(), Some(probe(Metric::L2, &query)), NARROW).expect("sound");
    let bound = hits.iter().find(|hit| id(hit.tid).is_multiple_of(2)).expect("ties").bound;
    let ties = hits.iter().filter(|hit| hit.bound == bound).count();
    assert!(bound > 0.0 && ties > 1100, "{ties} rows with the bound {bound}");
    assert_complete(&store, &parameters, &rows, &query, NARROW);
    assert_complete(&store, &parameters, &rows, &rows[1], NARROW);
}

#[test]
fn a_scan_without_a_query_returns_every_row_in_passes() {
    let parameters = parameters(Metric::L2, 6, 4, 16);
    let rows = clustered(32, 3000, 6);
    let store = three_segments(&parameters, &rows, 30);
    let (hits, dropped) = scan_all(&store, &parameters.shape(), None, NARROW).expect("sound");
    let found: BTreeSet<u32> = hits.iter().map(|hit| id(hit.tid)).collect();
    assert_eq!((found.len(), hits.len(), dropped), (3000, 3000, 0));
}

#[test]
fn an_empty_index_has_no_rows() {
    let parameters = parameters(Metric::Cosine, 5, 4, 16);
    for store in [empty(&parameters), built(&parameters, [], 1)] {
        for probe in [None, Some(probe(Metric::Cosine, &[1.0; 5]))] {
            assert_eq!(scan_all(&store, &parameters.shape(), probe, NARROW), Ok((Vec::new(), 0)));
        }
        assert_sound(&store, &parameters.shape());
        assert_eq!(vacuum(&store, &parameters.shape(), |_| true), Ok(Default::default()));
    }
}

#[test]
fn one_row_is_found_until_it_is_removed() {
    for metric in METRICS {
        let parameters = parameters(metric, 5, 4, 16);
        let store = empty(&parameters);
        let row = vec![0.5, -1.0, 2.0, 0.25, 4.0];
        insert(&store, &parameters, 17, &row).expect("sound");
        let scan = || scan_all(&store, &parameters.shape(), Some(probe(metric, &row)), NARROW).expect("sound").0;
        assert_eq!(scan().into_iter().map(|hit| id(hit.tid)).collect::<Vec<_>>(), [17]);
        vacuum(&store, &parameters.shape(), |_| true).expect("sound");
        assert_eq!(scan(), []);
        insert(&store, &parameters, 18, &row).expect("sound");
        assert_eq!(scan().into_iter().map(|hit| id(hit.tid)).collect::<Vec<_>>(), [18]);
    }
}

#[test]
fn thousands_of_equal_rows_are_one_element() {
    let parameters = parameters(Metric::Cosine, 7, 4, 16);
    let rows = vec![vec![0.5, 0.25, 3.0, 1.0, -1.0, 0.125, 2.0]; 2500];
    let stores = [inserted(&parameters, &rows), built(&parameters, numbered(&rows), 2)];
    for store in stores {
        let shape = parameters.shape();
        assert_eq!(assert_complete(&store, &parameters, &rows, &rows[0], NARROW), 0);
        each_segment(&store, &shape, |segment| {
            assert_eq!(segment.count()?.elements, 1);
            Ok(())
        })
        .expect("sound");
        let swept = vacuum(&store, &shape, |row| row % 2 == 0).expect("sound");
        assert_eq!((swept.removed, swept.live, swept.routers), (1250, 1250, 0));
        assert!(rows_of(&store, &shape).into_iter().eq((0..2500).filter(|row| row % 2 == 1).map(|row| (row, 1))));
        let swept = vacuum(&store, &shape, |_| true).expect("sound");
        assert_eq!((swept.removed, swept.live, swept.routers), (1250, 0, 1));
        assert_sound(&store, &shape);
        insert(&store, &parameters, 9, &rows[0]).expect("sound");
        assert!(rows_of(&store, &shape).into_iter().eq([(9, 1)]));
    }
}

/// Rows that share an element once came all, whatever the limit.
#[test]
fn max_tuples_counts_rows_also_within_an_element() {
    let parameters = parameters(Metric::L2, 4, 4, 16);
    let mut rows = clustered(33, 200, 4);
    let popular = rows[0].clone();
    rows[..100].fill(popular);
    let store = built(&parameters, numbered(&rows), 1);
    for max_tuples in [1, 3, 50, 100, 150, 200, 1000] {
        let limits = Limits { max_tuples, ..NARROW };
        let probe = probe(Metric::L2, &rows[0]);
        let (hits, _) = scan_all(&store, &parameters.shape(), Some(probe), limits).expect("sound");
        assert_eq!(hits.len() as u64, max_tuples.min(200));
    }
}

/// Rows that are there from before the scan to its end come, whatever is inserted, removed and sealed meanwhile.
#[test]
fn a_scan_goes_on_while_rows_come_and_go() {
    for (metric, ef_search) in [(Metric::L2, 2), (Metric::InnerProduct, 2), (Metric::Cosine, 40), (Metric::L1, 2)] {
        let parameters = parameters(metric, 8, 4, 12);
        let shape = parameters.shape();
        let rows = clustered(34, 2200, 8);
        let store = three_segments(&parameters, &rows[..2000], 50);
        let (_, directory) = Directory::read(&store).expect("sound");
        let query = &rows[2100];
        let mut scan =
            Scan::new(Some(probe(metric, query)), Filter::none(), &directory.segments, Limits { ef_search, ..NARROW });
        let (mut hits, mut next_row) = (Vec::new(), 2000);
        while let Some(hit) = scan.next(&store, &parameters.shapes()).expect("sound") {
            hits.push(hit);
            if hits.len() % 10 == 0 && next_row < 2200 {
                insert(&store, &parameters, next_row, &rows[next_row as usize]).expect("sound");
                next_row += 1;
            }
            if hits.len() % 300 == 0 {
                let dead = |row: u32| row < 2000 && row % 7 == hits.len() as u32 / 300;
                vacuum(&store, &shape, dead).expect("sound");
            }
            if hits.len() == 450 {
                seal(&store).expect("sound");
            }
        }
        assert_ordered(metric, query, &hits, |row| rows[row as usize].clone());
        let found: BTreeSet<u32> = hits.iter().map(|hit| id(hit.tid)).collect();
        let stayed: BTreeSet<u32> = rows_of(&store, &shape).into_keys().filter(|&row| row < 2000).collect();
        assert!(stayed.len() < 1800, "vacuum did remove rows: {}", stayed.len());
        let missing = stayed.difference(&found).count() as u64;
        assert!(missing <= scan.dropped(), "{metric:?}: {missing} rows missing, {} dropped", scan.dropped());
        assert!(missing < 40, "{metric:?}: {missing} rows missing");
    }
}
