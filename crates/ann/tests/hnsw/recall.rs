//! Recall of what executors get: rows by exact distance, pulled until the next bound is beyond the k-th distance.

use crate::data::with_queries;
use crate::harness::*;
use ann::distance::Metric;
use ann::hnsw::scan::{Limits, Scan};
use ann::index::{Directory, Parameters};
use ann::keys::Filter;
use ann::memory::MemoryStore;
use std::collections::BTreeMap;

const K: usize = 10;

/// Rows by number.
pub type Table = BTreeMap<u32, Vec<f32>>;

/// Distances of the `K` rows that a query returns.
fn top(store: &MemoryStore, parameters: &Parameters, table: &Table, query: &[f32], ef_search: usize) -> Vec<f64> {
    let (_, directory) = Directory::read(store).expect("sound");
    let limits = Limits { ef_search, ..WIDE };
    let metric = parameters.metric;
    let mut scan = Scan::new(Some(probe(metric, query)), Filter::none(), &directory.segments, limits);
    let mut best: Vec<f64> = Vec::new();
    while let Some(hit) = scan.next(store, &parameters.shapes()).expect("sound") {
        if best.len() == K && hit.bound > best[K - 1] {
            break;
        }
        let exact = distance(metric, query, &table[&id(hit.tid)]);
        let at = best.partition_point(|&d| d <= exact);
        best.insert(at, exact);
        best.truncate(K);
    }
    best
}

/// The part of the true `K` nearest that queries return.
pub fn recall(
    store: &MemoryStore,
    parameters: &Parameters,
    table: &Table,
    queries: &[Vec<f32>],
    ef_search: usize,
) -> f64 {
    let mut found = 0;
    for query in queries {
        let mut exact: Vec<f64> = table.values().map(|row| distance(parameters.metric, query, row)).collect();
        exact.sort_unstable_by(f64::total_cmp);
        let worst = exact[K - 1];
        found += top(store, parameters, table, query, ef_search).into_iter().filter(|&d| d <= worst).count();
    }
    found as f64 / (K * queries.len()) as f64
}

pub fn fresh(parameters: &Parameters, table: &Table) -> MemoryStore {
    built(parameters, table.iter().map(|(&row, vector)| (row, vector)), 1)
}

/// Follows one set of rows through the life of an index; at every age recall is that of a graph built afresh.
///
/// Rows and levels are fixed and nothing runs on two threads: the figures are the same on every run. Over other seeds
/// fresh graphs differ by up to 0.01 among themselves.
fn ages(metric: Metric) {
    let parameters = parameters(metric, 16, 8, 40);
    let shape = parameters.shape();
    let (rows, queries) = with_queries(42, 1400, 16, 100);
    let table: Table = numbered(&rows).map(|(row, vector)| (row, vector.clone())).collect();
    let half: Table = table.iter().filter(|(row, _)| **row < 700).map(|(&row, v)| (row, v.clone())).collect();
    let updated: Table = table.iter().map(|(row, vector)| (row + 20_000, vector.clone())).collect();
    // Just wide enough to walk the graph: 64 * 10 elements would be read whole.
    let recall = |store: &MemoryStore, table: &Table| recall(store, &parameters, table, &queries, 10);

    let fresh_recall = recall(&fresh(&parameters, &table), &table);
    let store = inserted(&parameters, &rows);
    let inserted_recall = recall(&store, &table);
    let fresh_half = recall(&fresh(&parameters, &half), &half);
    vacuum(&store, &shape, |row| row >= 700).expect("sound");
    let vacuumed_half = recall(&store, &half);
    for round in 1..=2 {
        for (row, vector) in &table {
            insert(&store, &parameters, round * 10_000 + row, vector).expect("sound");
        }
        vacuum(&store, &shape, |row| row < round * 10_000).expect("sound");
    }
    let updated_recall = recall(&store, &updated);
    assert_sound(&store, &shape);
    println!(
        "{metric:?}: fresh {fresh_recall:.3}, inserted {inserted_recall:.3}, updated {updated_recall:.3}; \
         half: fresh {fresh_half:.3}, vacuumed {vacuumed_half:.3}"
    );
    // Graphs of inner products differ more among themselves: a row is not its own nearest.
    let noise = if metric == Metric::InnerProduct { 0.02 } else { 0.01 };
    assert!(fresh_recall > 0.95, "{fresh_recall}");
    assert!(inserted_recall > fresh_recall - noise, "inserted: {inserted_recall}, fresh {fresh_recall}");
    assert!(vacuumed_half > fresh_half - noise, "vacuumed: {vacuumed_half}, fresh {fresh_half}");
    assert!(updated_recall > fresh_recall - noise, "updated: {updated_recall}, fresh {fresh_recall}");
    if metric != Metric::InnerProduct {
        each_segment(&store, &shape, |segment| {
            let counts = segment.count()?;
            assert_eq!(
                (counts.elements, counts.routers, counts.unreachable),
                (1400, 0, 0),
                "equal rows share elements"
            );
            Ok(())
        })
        .expect("sound");
    }
}

#[test]
fn l2_recall_lasts() {
    ages(Metric::L2);
}

#[test]
fn inner_product_recall_lasts() {
    ages(Metric::InnerProduct);
}

#[test]
fn cosine_recall_lasts() {
    ages(Metric::Cosine);
}

#[test]
fn l1_recall_lasts() {
    ages(Metric::L1);
}
