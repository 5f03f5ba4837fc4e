//! Inserts, scans and compaction at the same time.

use super::*;

/// Between any two steps of `work` on a copy of `start`, `other` happens.
fn everywhere(start: &MemoryStore, work: impl Fn(&Strict), other: impl Fn(&MemoryStore), check: impl Fn(&MemoryStore)) {
    let alone = start.clone();
    let strict = Strict::new(&alone);
    work(&strict);
    let steps = strict.steps();
    // Where threads are waited for, the number of steps varies a little.
    for step in 0..steps {
        let store = start.clone();
        work(&Strict::with_hook(&store, step, &other));
        check(&store);
    }
}

#[test]
fn inserts_that_race_with_a_flush_are_all_there() {
    for parameters in [pending(Metric::L2, 300, 12), pending(Metric::L2, 9000, 6), by_age(40, 20)] {
        let n = parameters.pending_rows as usize;
        let case = Case::new(parameters, n + 3);
        for now in [0, 100 * DAY] {
            let start = case.store(n);
            let step = || due(&start, now).expect("sound").expect("due");
            let flush = |store: &MemoryStore| _ = run(store, &step(), &Helper::at(now)).expect("sound");
            everywhere(&start, |store| _ = case.insert(store, n..n + 1), flush, |store| case.assert_rows(store, 0..=n));
            everywhere(
                &start,
                |store| _ = run(store, &step(), &Helper::at(now)).expect("sound"),
                |store| _ = case.insert(store, n..n + 2),
                |store| case.assert_rows(store, 0..n + 2),
            );
        }
    }
}

/// Inserts straight into the graph, as a relieving session's flush does, race with its being sealed and rewritten.
#[test]
fn inserts_that_race_with_migration_of_their_graph_are_all_there() {
    let parameters = Parameters { pending_rows: 0, recent_rows: 0, recent_threshold: 1, ..by_age(300, 0) };
    let case = Case::new(parameters, 30);
    let start = case.store(20);
    let migrate = |store: &MemoryStore| {
        let (meta, directory) = Directory::read(store).expect("sound");
        ann::index::seal(store, &meta, &directory, 0).expect("sound");
        compact(store, 0).expect("sound");
    };
    everywhere(
        &start,
        |store| _ = case.insert(store, 20..21),
        migrate,
        |store| {
            case.assert_rows(store, 0..21);
            // Back-links into a graph that is no longer listed harm nobody.
            case.release_all(store, 0);
            case.assert_rows(store, 0..21);
        },
    );
}

#[track_caller]
fn assert_scan_sees(case: &Case, store: &impl PageStore, query: &[f32], old: usize, limits: Limits) {
    let metric = case.parameters.metric;
    let (hits, dropped) = scan_all(store, &case.shape(), Some(probe(metric, query)), limits).expect("sound");
    assert_ordered(metric, query, &hits, |row| case.rows[row as usize].clone());
    let seen = hits.iter().filter(|hit| (id(hit.tid) as usize) < old).count() as u64;
    assert!(seen + dropped >= old as u64, "{seen} of {old} rows, {dropped} dropped");
}

#[test]
fn scans_that_race_with_compaction_repeat_no_row_and_miss_none() {
    for (parameters, n) in [
        (pending(Metric::L2, 300, 12), 30),
        (Parameters { segment_rows: 6, ..pending(Metric::Cosine, 600, 8) }, 20),
        (by_age(40, 20), 60),
    ] {
        let case = Case::new(parameters, n + 12);
        // Some rows in graphs, some in partitions, some in a list that is half empty, the rest in a list.
        let start = graphs(&case, &[0..n / 3, n / 3..n / 2]);
        case.insert(&start, n / 2..3 * n / 4);
        relieve(&start, &Helper::impatient(0, 4)).expect("sound");
        case.insert(&start, 3 * n / 4..n);
        case.assert_rows(&start, 0..n);
        for (now, ef_search) in [(0, 1), (0, 40), (1000 * DAY, 1), (1000 * DAY, 40)] {
            let limits = Limits { ef_search, ..WIDE };
            for query in [0, 1] {
                everywhere(
                    &start,
                    |store| assert_scan_sees(&case, store, &case.rows[query], n, limits),
                    |store| {
                        compact(store, now).expect("sound");
                        case.insert(store, n..n + 12);
                        relieve(store, &Helper::at(now)).expect("sound");
                        compact(store, now).expect("sound");
                    },
                    |store| case.assert_rows(store, 0..n + 12),
                );
            }
            // Without a query, as for a NULL one.
            everywhere(
                &start,
                |store| {
                    let (hits, _) = scan_all(store, &case.shape(), None, limits).expect("sound");
                    let mut rows: Vec<u32> = hits.iter().map(|hit| id(hit.tid)).filter(|&r| r < n as u32).collect();
                    rows.sort_unstable();
                    assert!(rows.into_iter().eq(0..n as u32));
                },
                |store| _ = compact(store, now).expect("sound"),
                |store| case.assert_rows(store, 0..n),
            );
        }
    }
}

/// Rows go to graphs that the directory did not list when the scan began.
#[test]
fn scans_that_race_with_a_flush_into_new_graphs_miss_no_row() {
    let case = Case::distinct(Parameters { segment_rows: 4, ..pending(Metric::L2, 600, 40) }, 40);
    let start = case.store(40);
    everywhere(
        &start,
        |store| assert_scan_sees(&case, store, &case.rows[0], 40, WIDE),
        |store| {
            relieve(store, &Helper::at(0)).expect("sound");
            assert!(kinds(store).len() > 3, "{:?}", kinds(store));
        },
        |store| case.assert_rows(store, 0..40),
    );
}

/// One row after the other is moved while a scan goes on: at each of its steps the flush makes one.
#[test]
fn a_scan_through_a_whole_migration_repeats_no_row_and_misses_none() {
    for parameters in [pending(Metric::L2, 300, 40), by_age(300, 40)] {
        let case = Case::new(parameters, 80);
        for (at, patience, now) in (0..40).flat_map(|at| [(at, 2, 0), (at, 9, 0), (at, 3, 1000 * DAY)]) {
            let store = graphs(&case, std::slice::from_ref(&(0..20)));
            case.insert(&store, 20..80);
            let (_, directory) = Directory::read(&store).expect("sound");
            let query = &case.rows[at];
            let metric = case.parameters.metric;
            let limits = Limits { ef_search: 2, ..WIDE };
            let mut scan = ann::hnsw::scan::Scan::new(
                Some(probe(metric, query)),
                ann::keys::Filter::none(),
                &directory.segments,
                limits,
            );
            let mut hits = Vec::new();
            while let Some(hit) = scan.next(&store, &case.parameters.shapes()).expect("sound") {
                hits.push(hit);
                match due(&store, now).expect("sound") {
                    Some(step) => _ = run(&store, &step, &Helper::impatient(now, patience)).expect("sound"),
                    None => _ = relieve(&store, &Helper::impatient(now, patience)).expect("sound"),
                }
            }
            assert_ordered(metric, query, &hits, |row| case.rows[row as usize].clone());
            assert_eq!(hits.len() as u64 + scan.dropped(), 80);
            case.assert_rows(&store, 0..80);
        }
    }
}

/// Long enough for the scan to stop remembering every row, and all kinds of row after that: still in the list, moved
/// and met before, moved and met after.
#[test]
fn a_long_scan_repeats_no_row_and_misses_none() {
    let case = Case::distinct(pending(Metric::L2, 3, 200), 900);
    for patience in [2, 3, 10] {
        let store = graphs(&case, std::slice::from_ref(&(0..500)));
        case.insert(&store, 500..900);
        let (_, directory) = Directory::read(&store).expect("sound");
        let limits = Limits { ef_search: 1, memory: 0, ..WIDE };
        let probe = probe(case.parameters.metric, &case.rows[3]);
        let mut scan = ann::hnsw::scan::Scan::new(Some(probe), ann::keys::Filter::none(), &directory.segments, limits);
        let mut hits = Vec::new();
        while let Some(hit) = scan.next(&store, &case.parameters.shapes()).expect("sound") {
            hits.push(hit);
            relieve(&store, &Helper::impatient(0, patience)).expect("sound");
        }
        assert_ordered(case.parameters.metric, &case.rows[3], &hits, |row| case.rows[row as usize].clone());
        assert_eq!(hits.len(), 900, "{} dropped", scan.dropped());
    }
}
