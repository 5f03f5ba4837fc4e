//! What a scan promises, over IVF segments of all forms.

use crate::data::{Rng, clustered};
use crate::harness::*;
use ann::distance::Metric;
use ann::hnsw::scan::Limits;
use ann::index::Parameters;
use ann::keys::{Filter, Keys};
use ann::memory::MemoryStore;

fn with_ivf(parameters: &Parameters, rows: &[TableRow], lists: u32) -> MemoryStore {
    let store = empty(parameters);
    add_ivf(&store, parameters, rows, lists);
    assert_sound(&store);
    store
}

/// Rows with keys: a small number, or NULL, in each column.
fn keyed(mut rows: Vec<TableRow>, keys: usize) -> Vec<TableRow> {
    let mut rng = Rng::new(rows.len() as u64);
    for row in &mut rows {
        let columns: Vec<Option<i64>> =
            (0..keys).map(|_| (!rng.chance(5)).then(|| rng.below(100) as i64 - 50)).collect();
        row.keys = Keys::new(&columns);
    }
    rows
}

#[test]
fn a_scan_to_the_end_returns_every_row_once() {
    for metric in METRICS {
        for (dimensions, keys, n) in [(1, 0, 200), (2, 1, 300), (7, 8, 400), (64, 2, 300), (100, 0, 600), (199, 3, 200)]
        {
            let parameters = parameters(metric, dimensions, keys);
            let rows = keyed(table(0, clustered(7, n, dimensions)), keys);
            let store = with_ivf(&parameters, &rows, 12);
            for query in [0, n / 2] {
                for limits in [NARROW, Limits { probes: 4, ef_search: 3, ..NARROW }, Limits { probes: 100, ..NARROW }] {
                    assert_complete(&store, &rows, &rows[query].vector, &Filter::none(), limits);
                }
            }
            assert_eq!(rows_of(&store).len(), n);
        }
    }
}

#[test]
fn codes_and_records_go_on_across_pages() {
    for (metric, dimensions, keys) in [
        (Metric::L2, 384, 8),
        (Metric::Cosine, 1000, 1),
        (Metric::InnerProduct, 1536, 0),
        (Metric::L2, 5000, 2),
        (Metric::L1, 5000, 0),
        (Metric::Cosine, 16_000, 8),
    ] {
        let parameters = parameters(metric, dimensions, keys);
        let rows = keyed(table(0, clustered(8, 90, dimensions)), keys);
        let store = with_ivf(&parameters, &rows, 7);
        assert_complete(&store, &rows, &rows[5].vector, &Filter::none(), Limits { probes: 2, ..NARROW });
    }
}

/// What lists cannot tell is found by reading everything, in order: nothing is late where the first round reads all.
#[test]
fn reading_all_lists_returns_nearly_all_in_order() {
    for metric in METRICS {
        let parameters = parameters(metric, 100, 0);
        let rows = table(0, clustered(9, 1000, 100));
        let store = with_ivf(&parameters, &rows, 20);
        let limits = Limits { ef_search: 10, probes: 20, ..WIDE };
        let dropped: u64 =
            (0..10).map(|i| assert_complete(&store, &rows, &rows[i * 90].vector, &Filter::none(), limits)).sum();
        assert!(dropped < 40, "{metric:?}: {dropped} of 10000 came late");
    }
}

#[test]
fn segments_without_rows_or_with_one() {
    for metric in METRICS {
        let parameters = parameters(metric, 5, 1);
        let store = with_ivf(&parameters, &[], 0);
        let row = vec![0.5, -1.0, 2.0, 0.25, 4.0];
        assert_eq!(scan_all(&store, Some(&row), &Filter::none(), NARROW), Ok((Vec::new(), 0)));
        assert_eq!(scan_all(&store, None, &Filter::none(), NARROW), Ok((Vec::new(), 0)));
        let rows = table(17, vec![row.clone()]);
        let store = with_ivf(&parameters, &rows, 0);
        assert_eq!(assert_complete(&store, &rows, &row, &Filter::none(), NARROW), 0);
        vacuum(&store, |_| true).expect("sound");
        assert_eq!(scan_all(&store, Some(&row), &Filter::none(), NARROW), Ok((Vec::new(), 0)));
        assert_sound(&store);
    }
}

#[test]
fn thousands_of_equal_rows_are_one_element() {
    for (metric, distinct) in [(Metric::Cosine, 0), (Metric::L2, 300), (Metric::L1, 300)] {
        let parameters = parameters(metric, 24, 1);
        let mut vectors = clustered(10, 1 + distinct, 24);
        let popular = vectors[0].clone();
        vectors.extend(std::iter::repeat_n(popular.clone(), 2500));
        let rows = keyed(table(0, vectors), 1);
        let store = with_ivf(&parameters, &rows, 9);
        each_segment(&store, |segment| {
            let counts = segment.count()?;
            assert!(counts.elements == 0 || counts.elements == 1 + distinct as u64, "{counts:?}");
            Ok(())
        })
        .expect("sound");
        assert_complete(&store, &rows, &popular, &Filter::none(), NARROW);
        vacuum(&store, |row| row % 2 == 0).expect("sound");
        assert_sound(&store);
        let left: Vec<TableRow> = rows.into_iter().filter(|row| row.id % 2 == 1).collect();
        assert_complete(&store, &left, &popular, &Filter::none(), NARROW);
    }
}

/// All rows of a list may be gone: what is left is found although better codes crowd it out.
#[test]
fn rows_are_found_among_removed_ones() {
    for metric in METRICS {
        let parameters = parameters(metric, 32, 0);
        let rows = table(0, clustered(11, 1500, 32));
        let store = with_ivf(&parameters, &rows, 20);
        let query = &rows[3].vector;
        let mut order: Vec<&TableRow> = rows.iter().collect();
        order.sort_by(|a, b| distance(metric, query, &a.vector).total_cmp(&distance(metric, query, &b.vector)));
        let removed: std::collections::HashSet<u32> = order[..600].iter().map(|row| row.id).collect();
        vacuum(&store, |row| removed.contains(&row)).expect("sound");
        assert_sound(&store);
        let left: Vec<TableRow> = order[600..].iter().map(|&row| row.clone()).collect();
        let limits = Limits { ef_search: 10, probes: 20, ..WIDE };
        let (hits, _) = scan_all(&store, Some(query), &Filter::none(), limits).expect("sound");
        let best: std::collections::HashSet<u32> = hits[..20].iter().map(|hit| id(hit.tid)).collect();
        let found = left[..10].iter().filter(|row| best.contains(&row.id)).count();
        assert!(found >= 9, "{metric:?}: {found} of the 10 nearest that are left");
        assert_complete(&store, &left, query, &Filter::none(), limits);
        assert_complete(&store, &left, query, &Filter::none(), NARROW);
    }
}

#[test]
fn a_scan_ends_after_as_many_rows_as_it_may_return() {
    let parameters = parameters(Metric::L2, 16, 0);
    let rows = table(0, clustered(12, 500, 16));
    let store = with_ivf(&parameters, &rows, 10);
    for max_tuples in [1, 7, 40, 41, 499, 1000] {
        let limits = Limits { max_tuples, ..WIDE };
        let (hits, _) = scan_all(&store, Some(&rows[0].vector), &Filter::none(), limits).expect("sound");
        assert_eq!(hits.len() as u64, max_tuples.min(500));
    }
}

/// Squares that overflow or vanish: codes say nothing of such rows, so they are ranked themselves.
#[test]
fn vectors_of_any_size_are_found() {
    for metric in METRICS {
        let parameters = parameters(metric, 10, 0);
        let mut vectors = clustered(13, 300, 10);
        for (i, vector) in vectors.iter_mut().enumerate() {
            let size = [1.0, 1e-25, 1e22, 1.0, 3e37, 1e-38][i % 6];
            vector.iter_mut().for_each(|x| *x *= size);
        }
        let rows = table(0, vectors);
        let store = with_ivf(&parameters, &rows, 8);
        for query in [0, 1, 2, 4] {
            let (hits, dropped) = scan_all(&store, Some(&rows[query].vector), &Filter::none(), NARROW).expect("sound");
            assert!(hits.len() as u64 + dropped >= 300, "{metric:?}: {} rows, {dropped} dropped", hits.len());
        }
    }
}
