//! Recall of what executors get: rows by exact distance, pulled until the next bound is beyond the k-th distance.

use crate::data::with_queries;
use crate::harness::*;
use ann::distance::Metric;
use ann::hnsw::scan::{Limits, Scan};
use ann::index::{Directory, Meta};
use ann::keys::Filter;
use ann::memory::MemoryStore;

const K: usize = 10;

/// The part of the true `K` nearest that queries return.
pub fn recall(store: &MemoryStore, rows: &[TableRow], queries: &[Vec<f32>], filter: &Filter, limits: Limits) -> f64 {
    let parameters = Meta::read(store).expect("sound").parameters;
    let (metric, shapes) = (parameters.metric, parameters.shapes());
    let (mut found, mut wanted) = (0, 0);
    for query in queries {
        let mut exact: Vec<f64> = rows
            .iter()
            .filter(|row| filter.passes(&row.keys))
            .map(|row| distance(metric, query, &row.vector))
            .collect();
        exact.sort_unstable_by(f64::total_cmp);
        exact.truncate(K);
        let Some(&worst) = exact.last() else { continue };
        let segments = Directory::read(store).expect("sound").1.segments;
        let mut scan = Scan::new(Some(probe(metric, query)), filter.clone(), &segments, limits);
        let mut best: Vec<f64> = Vec::new();
        while let Some(hit) = scan.next(store, &shapes).expect("sound") {
            if best.len() == K && hit.bound > best[K - 1] {
                break;
            }
            let row = &rows[rows.partition_point(|row| row.id < id(hit.tid))];
            let distance = distance(metric, query, &row.vector);
            best.insert(best.partition_point(|&d| d <= distance), distance);
            best.truncate(K);
        }
        found += best.iter().filter(|&&d| d <= worst).count();
        wanted += exact.len();
    }
    found as f64 / wanted as f64
}

#[test]
fn a_share_of_the_lists_finds_nearly_all() {
    for (metric, least) in METRICS.into_iter().zip([0.97, 0.95, 0.97, 0.97]) {
        let parameters = parameters(metric, 48, 0);
        let (vectors, queries) = with_queries(21, 6000, 48, 60);
        let rows = table(0, vectors);
        let store = empty(&parameters);
        add_ivf(&store, &parameters, &rows, 0);
        let few = recall(&store, &rows, &queries, &Filter::none(), WIDE);
        let all = recall(&store, &rows, &queries, &Filter::none(), Limits { probes: 1000, ..WIDE });
        println!("{metric:?}: {few:.3} by default, {all:.3} of all lists");
        assert!(few > least, "{metric:?}: {few}");
        assert!(all > 0.995, "{metric:?}: {all} of all lists");
    }
}

/// The nearest rows are spread over as many segments as there are intervals of time: each needs lists of its own.
#[test]
fn many_segments_lose_no_recall() {
    let parameters = parameters(Metric::Cosine, 48, 0);
    let (vectors, queries) = with_queries(22, 24_000, 48, 60);
    let rows = table(0, vectors);
    let (one, many) = (empty(&parameters), empty(&parameters));
    add_ivf(&one, &parameters, &rows, 0);
    rows.chunks(3000).for_each(|rows| _ = add_ivf(&many, &parameters, rows, 0));
    let limits = Limits { ef_search: 20, ..WIDE };
    let (of_one, of_many) = [&one, &many].map(|s| recall(s, &rows, &queries, &Filter::none(), limits)).into();
    println!("{of_one:.3} of one segment, {of_many:.3} of eight");
    assert!(of_many > 0.97 && of_many > of_one - 0.005, "{of_one} of one segment, {of_many} of eight");
}
