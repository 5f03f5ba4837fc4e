//! Scans under a filter: against a search of all rows, over built and inserted segments, walking and reading.

use crate::data::{Rng, clustered, with_queries};
use crate::harness::*;
use ann::distance::Metric;
use ann::hnsw::build::{Graph, HeapArena, Stop, level_of};
use ann::hnsw::insert::NewRow;
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::hnsw::probe::{Probe, encode_row};
use ann::hnsw::scan::{Hit, Limits, Scan};
use ann::index::{self, Directory, Head, Parameters};
use ann::keys::{Condition, Filter, KeySummary, Keys, Row};
use ann::memory::MemoryStore;
use ann::page::{Kind, PageStore, Tag, Unit};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A row with keys; rows are numbered by their places.
type Keyed = (Vec<f32>, Keys);

fn keyed(metric: Metric, dimensions: usize) -> Parameters {
    Parameters { keys: 2, ..parameters(metric, dimensions, 6, 24) }
}

/// Column 0 counts up with the rows, as time does; column 1 is one of ten values or NULL.
fn with_keys(vectors: Vec<Vec<f32>>) -> Vec<Keyed> {
    let mut rng = Rng::new(9);
    let key = |i, rng: &mut Rng| Keys::new(&[Some(i as i64), (!rng.chance(10)).then(|| rng.below(10) as i64)]);
    vectors.into_iter().enumerate().map(|(i, vector)| (vector, key(i, &mut rng))).collect()
}

fn insert_keyed(store: &MemoryStore, parameters: &Parameters, row: u32, (vector, keys): &Keyed) {
    let mut code = vec![0; vector.len()];
    let (stored, params) = encode_row(parameters.metric, vector, &mut code).expect("no zero vectors");
    let probe = Probe::new(parameters.metric, &stored);
    let row = Row { tid: tid(row), keys: *keys };
    let level = level_of(u64::from(row.tid.block) << 20 | u64::from(row.tid.offset), parameters.m);
    index::insert(store, &NewRow { row, params: &params, code: &code, probe: &probe, level }, 0).expect("sound");
}

/// The first rows built, the others inserted, into a segment of their own if `seal` says so.
fn index_of(parameters: &Parameters, rows: &[Keyed], built: usize, seal_between: bool) -> MemoryStore {
    let (mut arena, shape) = (HeapArena, parameters.shape());
    let mut gathered = Rows::<HeapArena>::new(parameters.dimensions, parameters.keys);
    let mut code = vec![0; parameters.dimensions];
    for (i, (vector, keys)) in rows[..built].iter().enumerate() {
        let (_, params) = encode_row(parameters.metric, vector, &mut code).expect("no zero vectors");
        gathered.push(&mut arena, &params, &code, &Row { tid: tid(i as u32), keys: *keys }).expect("fits");
    }
    let (codes, lists) = gathered.finish();
    let graph = Graph::new(&mut arena, &shape, parameters.ef_construction, codes, 7).expect("fits");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("threads");
    graph.link_all((&pool, 1), &Stop::new(), |_| Ok(())).expect("not cancelled");
    let store = MemoryStore::new();
    let [meta, directory, _] = index::empty_index(parameters, 0);
    store.append(&meta);
    store.append(&directory);
    let blocks: Vec<u32> = (2..2 + pages_needed(&graph, &lists, &shape) as u32).collect();
    write_segment(&graph, &lists, &shape, (1, &blocks), &Head::new(0), |_, page| {
        store.append(page);
        Ok(())
    })
    .expect("fits");
    if seal_between {
        seal(&store).expect("sound");
    }
    for (i, row) in rows.iter().enumerate().skip(built) {
        insert_keyed(&store, parameters, i as u32, row);
    }
    store
}

fn between(column: usize, min: i64, max: i64) -> Filter {
    let mut filter = Filter::none();
    filter.and(Condition { column, min, max, null: false });
    filter
}

fn scan(
    store: &MemoryStore,
    parameters: &Parameters,
    query: Option<&[f32]>,
    filter: &Filter,
    limits: Limits,
) -> (Vec<Hit>, u64) {
    let (_, directory) = Directory::read(store).expect("sound");
    let query = query.map(|query| probe(parameters.metric, query));
    let mut scan = Scan::new(query, filter.clone(), &directory.segments, limits);
    let mut hits = Vec::new();
    while let Some(hit) = scan.next(store, &parameters.shapes()).expect("sound") {
        hits.push(hit);
    }
    (hits, scan.dropped())
}

fn passing(rows: &[Keyed], filter: &Filter) -> BTreeSet<u32> {
    (0..).zip(rows).filter(|(_, row)| filter.passes(&row.1)).map(|(i, _)| i).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Scans to the end return the rows that pass, each once, in order, whatever the shares, widths and memory.
    #[test]
    fn a_scan_to_the_end_returns_the_rows_that_pass(
        seed in 0u64..1000,
        metric in prop::sample::select(METRICS.to_vec()),
        (built, inserted) in (0usize..500, 0usize..120),
        seal_between in any::<bool>(),
        conditions in prop::collection::vec((0usize..2, -50i64..600, 0i64..600, any::<bool>()), 1..4),
        ef_search in prop::sample::select(vec![1usize, 4, 40]),
        memory in prop::sample::select(vec![0usize, 1 << 20]),
        twins in any::<bool>(),
    ) {
        let parameters = keyed(metric, 6);
        let mut vectors = clustered(seed, built + inserted, 6);
        if twins {
            // Many rows share elements, and have other keys.
            let n = vectors.len();
            (0..n).for_each(|i| vectors[i] = vectors[i % 17].clone());
        }
        let rows = with_keys(vectors);
        prop_assume!(!rows.is_empty());
        let store = index_of(&parameters, &rows, built, seal_between);
        let mut filter = Filter::none();
        for (column, min, length, null) in conditions {
            let min = if column == 1 { min % 10 } else { min };
            filter.and(Condition { column, min, max: min + length, null });
        }
        let expected = passing(&rows, &filter);
        let limits = Limits { ef_search, memory, ..WIDE };
        for query in [Some(rows[0].0.as_slice()), Some(&rows[rows.len() / 2].0), None] {
            let (hits, dropped) = scan(&store, &parameters, query, &filter, limits);
            let found: BTreeSet<u32> = hits.iter().map(|hit| id(hit.tid)).collect();
            prop_assert_eq!(found.len(), hits.len(), "a row came twice");
            prop_assert!(found.is_subset(&expected));
            // What came too late is counted by elements, whose rows may be several where vectors are equal.
            let missing = (expected.len() - found.len()) as u64;
            prop_assert!(if twins { missing == 0 || dropped > 0 } else { missing <= dropped }, "{missing} rows missing");
            if let Some(query) = query {
                assert_ordered(metric, query, &hits, |row| rows[row as usize].0.clone());
            }
        }
        assert_sound(&store, &parameters.shape());
    }
}

/// The part of the true ten nearest among the rows that pass.
fn recall(store: &MemoryStore, parameters: &Parameters, rows: &[Keyed], queries: &[Vec<f32>], filter: &Filter) -> f64 {
    let (mut hits, mut wanted) = (0, 0);
    for query in queries {
        let exact = |row: u32| distance(parameters.metric, query, &rows[row as usize].0);
        let mut nearest: Vec<f64> = passing(rows, filter).into_iter().map(exact).collect();
        nearest.sort_by(f64::total_cmp);
        nearest.truncate(10);
        let limits = Limits { ef_search: 12, max_tuples: 14, ..WIDE };
        let (found, _) = scan(store, parameters, Some(query), filter, limits);
        wanted += nearest.len();
        hits += found.iter().filter(|hit| exact(id(hit.tid)) <= nearest[nearest.len() - 1]).count().min(nearest.len());
    }
    hits as f64 / wanted as f64
}

#[test]
fn filters_keep_recall() {
    let parameters = keyed(Metric::L2, 16);
    let (vectors, queries) = with_queries(77, 4000, 16, 40);
    let rows = with_keys(vectors);
    let store = index_of(&parameters, &rows, 4000, false);
    let all = recall(&store, &parameters, &rows, &queries, &Filter::none());
    for filter in [between(1, 0, 4), between(1, 3, 3), between(0, 0, 1999), between(0, 3900, 4100), between(0, 7, 9)] {
        let found = recall(&store, &parameters, &rows, &queries, &filter);
        assert!(found >= all - 0.01, "{:?}: recall {found}, without a filter {all}", filter.conditions());
    }
}

/// The excluded segment's elements are destroyed: who reads them fails.
#[test]
fn segments_that_the_filter_excludes_are_not_read() {
    let parameters = keyed(Metric::Cosine, 6);
    let rows = with_keys(clustered(5, 900, 6));
    let store = index_of(&parameters, &rows, 700, true);
    let (_, directory) = Directory::read(&store).expect("sound");
    let old = directory.segments[0];
    let head = Head::read(&store, &old).expect("sound");
    let column = head.summary.expect("graphs keep a summary").column(0);
    assert_eq!((column.min, column.max, column.has_null), (0, 699, false));
    let mut unit = store.unit();
    unit.page(head.first_element()).expect("in range").set_tag(Tag::new(0, Kind::Free));
    unit.commit().expect("commits");
    let (hits, _) = scan(&store, &parameters, Some(&rows[3].0), &between(0, 700, i64::MAX), WIDE);
    assert_eq!(hits.len(), 200);
    let (_, directory) = Directory::read(&store).expect("sound");
    let mut all =
        Scan::new(Some(probe(parameters.metric, &rows[3].0)), between(0, 699, 900), &directory.segments, WIDE);
    assert!(all.next(&store, &parameters.shapes()).is_err(), "row 699 lies in the damaged segment");
}

/// The summary covers a row before the row is published: a crash between leaves a summary that is too wide.
#[test]
fn summaries_are_widened_before_rows_are_published() {
    let parameters = keyed(Metric::L2, 6);
    let rows = with_keys(clustered(6, 60, 6));
    let store = index_of(&parameters, &rows[..40], 30, false);
    for units in 0..6 {
        let crashed = store.clone();
        crashed.stop_after(units);
        let far = (rows[50].0.clone(), Keys::new(&[Some(1_000_000), None]));
        let mut code = vec![0; 6];
        let (stored, params) = encode_row(parameters.metric, &far.0, &mut code).expect("no zero vectors");
        let probe = Probe::new(parameters.metric, &stored);
        let row =
            NewRow { row: Row { tid: tid(99), keys: far.1 }, params: &params, code: &code, probe: &probe, level: 0 };
        let done = index::insert(&crashed, &row, 0).is_ok();
        crashed.restart();
        let (_, directory) = Directory::read(&crashed).expect("sound");
        let summary = Head::read(&crashed, &directory.segments[0]).expect("sound").summary.expect("kept");
        let published = rows_of(&crashed, &parameters.shape()).contains_key(&99);
        assert!(!published || summary.covers(&far.1, 2), "after {units} units");
        assert!(!done || published);
        assert_eq!(summary.covers(&far.1, 2), units > 0, "the first unit widens");
        assert_sound(&crashed, &parameters.shape());
    }
}

/// A check tells of rows outside of the summary.
#[test]
fn rows_outside_of_the_summary_are_a_fault() {
    let parameters = keyed(Metric::L2, 6);
    let rows = with_keys(clustered(8, 50, 6));
    let store = index_of(&parameters, &rows, 50, false);
    let (_, directory) = Directory::read(&store).expect("sound");
    let entry = directory.segments[0];
    let mut unit = store.unit();
    let page = unit.page(entry.head).expect("in range");
    let mut head = Head::decode(page, entry.head, entry.id).expect("a head");
    let mut narrow = KeySummary::default();
    narrow.add(&rows[0].1, 2);
    head.summary = Some(narrow);
    head.encode(page);
    unit.commit().expect("commits");
    let mut seen = Vec::new();
    each_segment(&store, &parameters.shape(), |segment| {
        let problems = segment.check(&mut seen)?;
        assert_eq!(problems.len(), 1, "{problems:?}");
        Ok(())
    })
    .expect("readable");
}
