//! Filters: rows that pass and no others, at about the recall that a search without a filter has.

use crate::data::{Rng, with_queries};
use crate::harness::*;
use crate::recall::recall;
use crate::strict::Strict;
use ann::distance::Metric;
use ann::hnsw::scan::Limits;
use ann::index::Parameters;
use ann::keys::{Condition, Filter, Keys};
use ann::memory::MemoryStore;

/// Rows with a time that grows, a number of 0 to 99, and NULL in a fifth of the third column.
fn keyed(vectors: Vec<Vec<f32>>) -> Vec<TableRow> {
    let mut rng = Rng::new(5);
    let mut rows = table(0, vectors);
    for row in &mut rows {
        let number = rng.below(100) as i64;
        row.keys = Keys::new(&[Some(i64::from(row.id) * 1000), Some(number), (!rng.chance(5)).then_some(-number)]);
    }
    rows
}

fn condition(column: usize, min: i64, max: i64, null: bool) -> Filter {
    let mut filter = Filter::none();
    filter.and(Condition { column, min, max, null });
    filter
}

fn index(metric: Metric, vectors: Vec<Vec<f32>>) -> (Parameters, Vec<TableRow>, MemoryStore) {
    let parameters = parameters(metric, vectors[0].len(), 3);
    let rows = keyed(vectors);
    let store = empty(&parameters);
    let half = rows.len() / 2;
    add_ivf(&store, &parameters, &rows[..half], 0);
    add_ivf(&store, &parameters, &rows[half..], 0);
    (parameters, rows, store)
}

#[test]
fn only_rows_that_pass_and_all_of_them() {
    for metric in METRICS {
        let (vectors, queries) = with_queries(31, 1200, 20, 3);
        let (_, rows, store) = index(metric, vectors);
        assert_sound(&store);
        let mut both = condition(1, 10, 40, false);
        both.and(Condition { column: 2, min: i64::MIN, max: -20, null: true });
        let filters = [
            condition(0, 100_000, 250_000, false),
            condition(1, 7, 7, false),
            condition(2, 1, 0, true),
            condition(2, -50, -40, true),
            condition(0, i64::MIN, -1, false),
            condition(1, 5, 4, false),
            both,
        ];
        for (filter, query) in filters.iter().flat_map(|filter| queries.iter().map(move |query| (filter, query))) {
            for limits in [NARROW, WIDE, Limits { ef_search: 3, probes: 2, ..WIDE }] {
                assert_complete(&store, &rows, query, filter, limits);
            }
            let (hits, _) = scan_all(&store, None, filter, NARROW).expect("sound");
            assert_eq!(hits.len(), rows.iter().filter(|row| filter.passes(&row.keys)).count());
        }
    }
}

/// Keys of the postings are those of the first of several rows: the others must be asked for.
#[test]
fn rows_that_share_an_element_pass_one_by_one() {
    for metric in METRICS {
        let (vectors, _) = with_queries(32, 400, 12, 1);
        let vectors: Vec<Vec<f32>> = (0..1600).map(|i| vectors[i % 400].clone()).collect();
        let parameters = parameters(metric, 12, 3);
        let rows = keyed(vectors);
        let store = empty(&parameters);
        add_ivf(&store, &parameters, &rows, 9);
        assert_sound(&store);
        for filter in [condition(1, 3, 3, false), condition(0, 1_200_000, 1_300_000, false)] {
            assert_complete(&store, &rows, &rows[0].vector, &filter, NARROW);
            assert_complete(&store, &rows, &rows[0].vector, &filter, Limits { ef_search: 5, ..WIDE });
        }
        vacuum(&store, |row| row < 800).expect("sound");
        assert_sound(&store);
        let filter = condition(0, 0, 900_000, false);
        assert_complete(&store, &rows[800..], &rows[0].vector, &filter, NARROW);
    }
}

#[test]
fn recall_holds_under_filters_of_any_share() {
    for metric in METRICS {
        let (vectors, queries) = with_queries(33, 8000, 32, 40);
        let (_, rows, store) = index(metric, vectors);
        for (share, filter) in [
            (0.5, condition(1, 0, 49, false)),
            (0.1, condition(1, 0, 9, false)),
            (0.01, condition(1, 42, 42, false)),
            (0.02, condition(0, 3_900_000, 4_060_000, false)),
        ] {
            let recall = recall(&store, &rows, &queries, &filter, WIDE);
            println!("{metric:?}, share {share}: {recall:.3}");
            assert!(recall > 0.95, "{metric:?}, share {share}: {recall}");
        }
    }
}

/// Segments whose ranges exclude the filter are not read.
#[test]
fn what_cannot_pass_is_not_read() {
    let (vectors, queries) = with_queries(34, 6000, 32, 1);
    let (_, rows, store) = index(Metric::L2, vectors);
    let steps = |filter: &Filter| {
        let strict = Strict::new(&store);
        let (hits, _) = scan_all(&strict, Some(&queries[0]), filter, WIDE).expect("sound");
        (hits.len(), strict.steps())
    };
    let (hits, all) = steps(&Filter::none());
    assert_eq!(hits, rows.len());
    let (hits, half) = steps(&condition(0, 0, 2_900_000, false));
    assert_eq!(hits, 2901);
    let (hits, nothing) = steps(&condition(0, 6_000_000, 7_000_000, false));
    assert_eq!(hits, 0);
    assert!(nothing < 10 && half < all * 3 / 4, "{nothing} steps for nothing, {half} for a half, {all} for all");
}
