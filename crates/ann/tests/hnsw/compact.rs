//! Pending lists and compaction: no row is lost or doubled by a crash after any unit, none is missed or repeated by a
//! scan that runs meanwhile, and no page is lost for good.

use crate::data::Mixture;
use crate::harness::*;
use crate::strict::Strict;
use ann::compact::{Action, Help, Known, Report, Step, history, plan, relieve, run};
use ann::distance::Metric;
use ann::error::{Error, Result};
use ann::hnsw::build::{HeapArena, Stop};
use ann::hnsw::scan::Limits;
use ann::index::{AgeKey, Backlog, Directory, Head, Meta, Parameters, SegmentKind, free_stray_directory};
use ann::keys::{Keys, Row};
use ann::memory::MemoryStore;
use ann::page::{Kind, META_BLOCK, NONE, PageStore};
use ann::shape::Shape;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

static POOL: LazyLock<rayon::ThreadPool> =
    LazyLock::new(|| rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads"));

pub struct Helper {
    stop: Stop,
    now: i64,
    /// Somebody wants the lock when this was asked so often.
    patience: Cell<u64>,
}

impl Helper {
    pub fn at(now: i64) -> Self {
        Self { stop: Stop::new(), now, patience: Cell::new(u64::MAX) }
    }

    fn impatient(now: i64, patience: u64) -> Self {
        Self { patience: Cell::new(patience), ..Self::at(now) }
    }
}

impl Help for Helper {
    type Arena = HeapArena;

    fn arena(&self) -> HeapArena {
        HeapArena
    }

    fn pool(&self) -> (&rayon::ThreadPool, usize) {
        (&POOL, 2)
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn progress(&self, _done: u64) -> Result<()> {
        Ok(())
    }

    fn wait(&self, _done: u64) -> Result<()> {
        std::thread::sleep(Duration::from_micros(50));
        Ok(())
    }

    fn wanted(&self) -> bool {
        self.patience.set(self.patience.get().saturating_sub(1));
        self.patience.get() == 0
    }

    fn now(&self) -> i64 {
        self.now
    }
}

pub fn due(store: &impl PageStore, now: i64) -> Result<Option<Step>> {
    let (meta, directory) = Directory::read(store)?;
    plan(store, &meta, &directory, now)
}

/// Steps until nothing is due.
pub fn compact(store: &impl PageStore, now: i64) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    while let Some(step) = due(store, now)? {
        reports.extend(run(store, &step, &Helper::at(now))?);
        assert!(reports.len() < 200, "compaction does not end: {:?}", &reports[190..]);
    }
    Ok(reports)
}

/// What VACUUM does about pages when it is through with TIDs.
fn free_pages(store: &MemoryStore) {
    let known = Known::read(store).expect("sound");
    for block in 1..store.block_count() {
        known.free_orphan(store, block).expect("sound");
        free_stray_directory(store, block).expect("sound");
    }
    store.note_free();
}

/// Pages that the directory leads to, dropped segments aside.
fn pages_in_use(store: &MemoryStore) -> BTreeSet<u32> {
    let (meta, directory) = Directory::read(store).expect("sound");
    let mut pages = BTreeSet::from([META_BLOCK, meta.root, meta.history]);
    for s in &directory.segments {
        pages.insert(s.head);
        for mut block in Head::read(store, s).expect("sound").first {
            while block != NONE {
                assert!(pages.insert(block), "page {block} is in use twice");
                block = store.read(block, |page| page.tag()).expect("in range").expect("ours").next;
            }
        }
    }
    pages
}

/// Every page is in use or free, but for directory pages if they are `strays` of a crash.
#[track_caller]
fn assert_no_page_lost(store: &MemoryStore, strays: bool) {
    let used = pages_in_use(store);
    for block in 1..store.block_count() {
        let tag = store.read(block, |page| page.tag()).expect("in range");
        let Some(tag) = tag.filter(|tag| tag.kind != Kind::Free) else { continue };
        let stray = strays && tag.kind == Kind::Directory;
        assert!(stray || used.contains(&block), "page {block} is lost: {tag:?}");
    }
}

fn kinds(store: &MemoryStore) -> Vec<(SegmentKind, bool)> {
    Directory::read(store).expect("sound").1.segments.iter().map(|s| (s.kind, s.active)).collect()
}

const DAY: i64 = 86_400_000_000;

struct Case {
    parameters: Parameters,
    rows: Vec<Vec<f32>>,
}

impl Case {
    /// One row in three has a vector of its own, the others share one.
    fn new(parameters: Parameters, n: usize) -> Self {
        let mut mixture = Mixture::new(31, parameters.dimensions, 4);
        let popular = mixture.fresh();
        let mut rows = mixture.rows(n);
        rows.iter_mut().enumerate().filter(|(i, _)| i % 3 != 0).for_each(|(_, row)| row.clone_from(&popular));
        Self { parameters, rows }
    }

    /// Each row has a vector of its own.
    fn distinct(parameters: Parameters, n: usize) -> Self {
        let rows = Mixture::new(32, parameters.dimensions, 4).rows(n);
        Self { parameters, rows }
    }

    fn shape(&self) -> Shape {
        self.parameters.shape()
    }

    /// The row's age key, if there is one, is its number in days.
    fn row(&self, i: usize) -> Row {
        let keys = if self.parameters.keys > 0 { Keys::new(&[Some(i as i64 * DAY)]) } else { Keys::default() };
        Row { tid: tid(i as u32), keys }
    }

    fn insert(&self, store: &impl PageStore, rows: std::ops::Range<usize>) -> Backlog {
        let mut last = Backlog::Small;
        for i in rows {
            last = insert_row(store, &self.parameters, &self.row(i), &self.rows[i], i as i64).expect("sound");
        }
        last
    }

    fn store(&self, rows: usize) -> MemoryStore {
        let store = empty(&self.parameters);
        store.set_xids(10, 10);
        self.insert(&store, 0..rows);
        store
    }

    #[track_caller]
    fn assert_rows(&self, store: &impl PageStore, rows: impl IntoIterator<Item = usize>) {
        assert_sound(store, &self.shape());
        let expected: BTreeMap<u32, u32> = rows.into_iter().map(|row| (row as u32, 1)).collect();
        assert_eq!(rows_of(store, &self.shape()), expected);
    }

    /// Runs one step with a stop after every unit; every state has every row once, and compaction goes on from it.
    #[track_caller]
    fn crash_everywhere(&self, start: &MemoryStore, rows: usize, now: i64, action: Action) {
        let step = due(start, now).expect("sound").expect("something is due");
        assert_eq!(step.action(), action);
        let mut units = 0;
        loop {
            let store = start.clone();
            store.stop_after(units);
            let result = run(&Strict::new(&store), &step, &Helper::at(now));
            store.restart();
            self.assert_rows(&store, 0..rows);
            if result.is_ok() {
                assert!(units > 1, "{action:?} took {units} units");
                return;
            }
            assert_eq!(result, Err(Error::Stopped), "after {units} units");
            if units % 5 < 2 {
                self.insert(&store, rows..rows + 1);
                compact(&Strict::new(&store), now).expect("goes on");
                self.assert_rows(&store, 0..=rows);
                self.release_all(&store, now);
                self.assert_rows(&store, 0..=rows);
            }
            units += 1;
        }
    }

    /// Transactions end, compaction gives pages up, VACUUM finds the rest; then no page is lost.
    #[track_caller]
    fn release_all(&self, store: &MemoryStore, now: i64) {
        compact(store, now).expect("sound");
        store.set_xids(1000, 1000);
        compact(store, now).expect("sound");
        free_pages(store);
        assert_eq!(Directory::read(store).expect("sound").1.dropped, []);
        assert_no_page_lost(store, false);
    }
}

fn pending(metric: Metric, dimensions: usize, pending_rows: u32) -> Parameters {
    Parameters { pending_rows, ..parameters(metric, dimensions, 2, 8) }
}

/// The first key column is the age, in microseconds; rows are old from ten days on.
fn by_age(dimensions: usize, pending_rows: u32) -> Parameters {
    Parameters {
        keys: 1,
        age_key: Some(AgeKey { column: 0, in_days: false }),
        recent_threshold: 10 * DAY,
        ..pending(Metric::L2, dimensions, pending_rows)
    }
}

#[test]
fn inserts_append_to_a_pending_list_and_ask_for_a_flush() {
    let case = Case::new(pending(Metric::L2, 20, 30), 600);
    let store = case.store(0);
    assert_eq!(kinds(&store), [(SegmentKind::Hnsw, true)], "no page is spent on a list before a row comes");
    for i in 0..600 {
        let before = store.commits();
        let backlog = case.insert(&Strict::new(&store), i..i + 1);
        assert!(i == 0 || store.commits() - before == 1, "row {i} took {} units", store.commits() - before);
        let expected = if i + 1 < 30 { Backlog::Small } else { Backlog::Due };
        assert!(backlog == expected || i + 1 >= 480 && backlog == Backlog::Full, "row {i}: {backlog:?}");
    }
    assert_eq!(kinds(&store), [(SegmentKind::Hnsw, true), (SegmentKind::Pending, true)]);
    case.assert_rows(&store, 0..600);
    // Full is told once a page: whoever can does something about it.
    let per_page = case.shape().without_neighbors().element.per_page as usize;
    let mut rows = Case::new(pending(Metric::L2, 20, 30), 800);
    rows.rows.truncate(800);
    let full = (600..800).filter(|&i| rows.insert(&store, i..i + 1) == Backlog::Full).count();
    assert_eq!(full, (600..800).filter(|i| i % per_page == 0).count());
    assert!(full > 0);
}

#[test]
fn a_relieving_insert_moves_as_many_rows_as_it_has_patience_for() {
    let case = Case::new(pending(Metric::L2, 20, 10), 200);
    let store = case.store(200);
    let report = relieve(&Strict::new(&store), &Helper::impatient(0, 8)).expect("sound").expect("something was done");
    assert_eq!((report.rows, report.inputs.len()), (7, 0));
    case.assert_rows(&store, 0..200);
    let report = relieve(&Strict::new(&store), &Helper::at(0)).expect("sound").expect("something was done");
    assert_eq!((report.rows, report.inputs.len()), (193, 1));
    case.assert_rows(&store, 0..200);
    assert_eq!(relieve(&store, &Helper::at(0)), Ok(None), "nothing is left to do");
}

#[test]
fn a_flush_may_crash_at_any_unit() {
    for parameters in [
        pending(Metric::Cosine, 300, 20),
        Parameters { segment_rows: 8, ..pending(Metric::L2, 600, 20) },
        Parameters { segment_rows: 4, ..pending(Metric::L1, 9000, 12) },
        by_age(40, 20),
    ] {
        let case = Case::new(parameters, 61);
        let rows = case.parameters.pending_rows as usize;
        // Into an empty graph, then into one that has rows already.
        let store = case.store(rows);
        case.crash_everywhere(&store, rows, 0, Action::Flush);
        compact(&store, 0).expect("sound");
        case.insert(&store, rows..3 * rows);
        case.crash_everywhere(&store, 3 * rows, 0, Action::Flush);
    }
}

/// Rows of a pending list are committed: searches must find them at any moment of the move, also after a crash.
#[test]
fn a_row_leaves_the_list_only_when_paths_lead_to_it_in_the_graph() {
    // Lists with room for all, so none is out of reach because of others.
    let parameters = Parameters { m: 16, ..pending(Metric::L2, 300, 10) };
    let case = Case::distinct(parameters, 30);
    let start = case.store(25);
    let step = due(&start, 0).expect("sound").expect("due");
    for units in 0.. {
        let store = start.clone();
        store.stop_after(units);
        let result = run(&Strict::new(&store), &step, &Helper::at(0));
        store.restart();
        let mut rows = 0;
        each_segment(&store, &case.shape(), |segment| {
            let counts = segment.count()?;
            let is_graph = segment.shape.m > 0;
            assert!(!is_graph || counts.unreachable == 0, "after {units} units");
            rows += counts.rows;
            Ok(())
        })
        .expect("sound");
        assert_eq!(rows, 25);
        if result.is_ok() {
            return;
        }
    }
}

#[test]
fn a_flush_of_old_rows_builds_an_old_partition_and_may_crash_at_any_unit() {
    let case = Case::new(by_age(40, 40), 61);
    let (store, now) = (case.store(40), 100 * DAY);
    assert_eq!(due(&store, now).expect("sound").expect("due").target(), Some(SegmentKind::Ivf));
    assert_eq!(
        due(&store, 20 * DAY).expect("sound").expect("due").target(),
        Some(SegmentKind::Hnsw),
        "half are recent"
    );
    case.crash_everywhere(&store, 40, now, Action::Flush);
    compact(&store, now).expect("sound");
    assert_eq!(kinds(&store), [(SegmentKind::Hnsw, true), (SegmentKind::Ivf, false), (SegmentKind::Pending, true)]);
}

#[test]
fn a_large_backlog_goes_into_a_segment_of_its_own() {
    for (threshold, target) in [(i64::MAX, SegmentKind::Hnsw), (DAY, SegmentKind::Ivf)] {
        let parameters = Parameters { recent_threshold: threshold, ..pending(Metric::L2, 4, 1000) };
        let case = Case::new(parameters, 4200);
        let store = case.store(4200);
        let step = due(&store, 0).expect("sound").expect("due");
        assert_eq!((step.action(), step.target()), (Action::Flush, Some(target)));
        let report = run(&Strict::new(&store), &step, &Helper::at(0)).expect("sound").expect("done");
        assert_eq!((report.rows, report.inputs.len()), (4200, 1));
        assert!(kinds(&store).contains(&(target, false)));
        case.assert_rows(&store, 0..4200);
    }
}

/// Flushes the rows of each range, and seals the graph after it.
fn graphs(case: &Case, ranges: &[std::ops::Range<usize>]) -> MemoryStore {
    let store = case.store(0);
    for range in ranges {
        case.insert(&store, range.clone());
        relieve(&store, &Helper::at(range.end as i64)).expect("sound");
        let (meta, directory) = Directory::read(&store).expect("sound");
        ann::index::seal(&store, &meta, &directory, range.end as i64).expect("sound");
    }
    store
}

#[test]
fn graphs_that_are_old_migrate_and_may_crash_at_any_unit() {
    let case = Case::distinct(by_age(40, 10), 81);
    let store = graphs(&case, &[0..30, 30..60, 60..80]);
    let now = 45 * DAY;
    let step = due(&store, now).expect("sound").expect("due");
    let oldest = Directory::read(&store).expect("sound").1.segments[0].id;
    assert_eq!((step.action(), step.inputs(), step.target()), (Action::Migrate, &[oldest][..], Some(SegmentKind::Ivf)));
    case.crash_everywhere(&store, 80, now, Action::Migrate);
    compact(&store, now).expect("sound");
    let partitions = kinds(&store).iter().filter(|k| k.0 == SegmentKind::Ivf).count();
    assert_eq!((partitions, kinds(&store).len()), (1, 5));
    // 95 of 100 rows old are enough: rows from the future do not keep the others back.
    assert!(due(&store, 68 * DAY).expect("sound").is_none());
    assert_eq!(due(&store, 69 * DAY + 1).expect("sound").map(|s| s.action()), Some(Action::Migrate));
}

#[test]
fn graphs_beyond_the_newest_rows_migrate() {
    let parameters = Parameters { recent_threshold: 1, recent_rows: 40, ..pending(Metric::L2, 8, 10) };
    let case = Case::distinct(parameters, 100);
    let store = graphs(&case, &[0..30, 30..60, 60..80]);
    let ids: Vec<u32> = Directory::read(&store).expect("sound").1.segments.iter().map(|s| s.id).collect();
    assert_eq!(due(&store, 0).expect("sound").expect("due").inputs(), [ids[0]], "50 rows are newer");
    compact(&store, 0).expect("sound");
    case.assert_rows(&store, 0..80);
    assert_eq!(kinds(&store).iter().filter(|k| k.0 == SegmentKind::Ivf).count(), 1);
}

#[test]
fn nothing_stays_in_graphs_where_no_row_is_recent() {
    let parameters = Parameters { recent_rows: 0, recent_threshold: 1, ..pending(Metric::L2, 8, 10) };
    let case = Case::new(parameters, 60);
    let store = case.store(0);
    for i in 0..6 {
        case.insert(&store, i * 10..i * 10 + 10);
        compact(&store, 0).expect("sound");
    }
    case.assert_rows(&store, 0..60);
    let kinds = kinds(&store);
    assert!(kinds.iter().all(|k| k.0 == SegmentKind::Ivf || k.1), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|k| k.0 == SegmentKind::Ivf).count(), 3, "of six four were merged");
}

#[test]
fn many_graphs_are_merged_and_may_crash_at_any_unit() {
    let case = Case::new(pending(Metric::InnerProduct, 40, 10), 91);
    let ranges: Vec<_> = (0..7).map(|i| i * 10..i * 10 + 10).collect();
    let store = graphs(&case, &ranges);
    case.crash_everywhere(&store, 70, 0, Action::Merge);
    compact(&store, 0).expect("sound");
    assert_eq!(kinds(&store).iter().filter(|k| **k == (SegmentKind::Hnsw, false)).count(), 1);
}

#[test]
fn partitions_are_merged_within_their_interval_and_may_crash_at_any_unit() {
    let case = Case::new(Parameters { partition_interval: 30 * DAY, ..by_age(40, 10) }, 121);
    let store = case.store(0);
    let now = 1000 * DAY;
    let mut merged = 0;
    for i in 0..9 {
        case.insert(&store, i * 8..i * 8 + 10 - 2);
        relieve(&store, &Helper::at(0)).expect("sound");
        let (meta, directory) = Directory::read(&store).expect("sound");
        ann::index::seal(&store, &meta, &directory, 0).expect("sound");
        while let Some(step) = due(&store, now).expect("sound") {
            if step.action() == Action::Merge && merged == 0 {
                case.crash_everywhere(&store, i * 8 + 8, now, Action::Merge);
            }
            merged += usize::from(step.action() == Action::Merge);
            run(&store, &step, &Helper::at(now)).expect("sound");
        }
    }
    // Rows 24 to 31 and 56 to 63 cross an interval's border: five of nine segments do not.
    assert_eq!(merged, 0, "no interval has four segments of its own");
    case.assert_rows(&store, 0..72);
    let case = Case::new(Parameters { partition_interval: i64::MAX, ..case.parameters }, 121);
    let store = case.store(0);
    for i in 0..4 {
        case.insert(&store, i * 8..i * 8 + 8);
        relieve(&store, &Helper::at(0)).expect("sound");
        let (meta, directory) = Directory::read(&store).expect("sound");
        ann::index::seal(&store, &meta, &directory, 0).expect("sound");
        while let Some(step) = due(&store, now).expect("sound").filter(|s| s.action() != Action::Merge) {
            run(&store, &step, &Helper::at(now)).expect("sound");
        }
    }
    case.crash_everywhere(&store, 32, now, Action::Merge);
    compact(&store, now).expect("sound");
    assert_eq!(kinds(&store).iter().filter(|k| k.0 == SegmentKind::Ivf).count(), 1);
}

#[test]
fn a_segment_of_dead_rows_is_cleaned_up_and_may_crash_at_any_unit() {
    let case = Case::new(pending(Metric::L2, 40, 10), 81);
    let store = graphs(&case, &[0..60, 60..80]);
    vacuum(&store, &case.shape(), |row| (20..60).contains(&row)).expect("sound");
    assert_eq!(due(&store, 0).expect("sound").map(|s| s.action()), Some(Action::CleanUp));
    let live = || (0..20).chain(60..80);
    let step = due(&store, 0).expect("sound").expect("due");
    for units in 0.. {
        let crashed = store.clone();
        crashed.stop_after(units);
        let result = run(&Strict::new(&crashed), &step, &Helper::at(0));
        crashed.restart();
        case.assert_rows(&crashed, live());
        case.release_all(&crashed, 0);
        case.assert_rows(&crashed, live());
        if result.is_ok() {
            break;
        }
    }
    vacuum(&store, &case.shape(), |_| true).expect("sound");
    case.release_all(&store, 0);
    case.assert_rows(&store, []);
    assert_eq!(kinds(&store), [(SegmentKind::Pending, true), (SegmentKind::Hnsw, true)], "what is empty goes");
}

#[test]
fn pages_wait_for_whoever_may_read_them_and_giving_them_up_may_crash_at_any_unit() {
    let case = Case::new(pending(Metric::Cosine, 9000, 6), 41);
    let store = graphs(&case, &[0..6, 6..12, 12..18, 18..24, 24..30, 30..36, 36..40]);
    store.set_xids(50, 20);
    compact(&store, 0).expect("sound");
    let dropped = Directory::read(&store).expect("sound").1.dropped;
    assert!(dropped.len() >= 4 && dropped.iter().all(|d| d.safexid == 10 || d.safexid == 50), "{dropped:?}");
    let pages = store.block_count();
    assert!(due(&store, 0).expect("sound").is_none(), "somebody of before the flip may still read");
    store.set_xids(60, 51);
    case.crash_everywhere(&store, 40, 0, Action::Free);
    for units in 0.. {
        let crashed = store.clone();
        crashed.stop_after(units);
        let result = compact(&crashed, 0);
        crashed.restart();
        compact(&crashed, 0).expect("goes on");
        // Without a VACUUM.
        assert_no_page_lost(&crashed, true);
        if result.is_ok() {
            break;
        }
    }
    let step = due(&store, 0).expect("sound").expect("due");
    run(&store, &step, &Helper::at(0)).expect("sound");
    assert_eq!(store.told().last(), Some(&50), "standbys are told before pages are used again");
    assert_no_page_lost(&store, false);
    // The pages are used again.
    case.insert(&store, 40..41);
    relieve(&store, &Helper::at(0)).expect("sound");
    assert!(store.block_count() <= pages + 1, "{} pages, {pages} before", store.block_count());
}

#[test]
fn any_number_of_dropped_segments_may_wait() {
    let case = Case::new(pending(Metric::L2, 8, 2), 700);
    let store = case.store(0);
    // Somebody has been reading from before the first row on.
    for i in 0..300 {
        case.insert(&store, i * 2..i * 2 + 2);
        store.set_xids(10 + i as u64, 10);
        compact(&store, 0).expect("sound");
    }
    case.assert_rows(&store, 0..600);
    let (_, directory) = Directory::read(&store).expect("sound");
    assert!(directory.dropped.len() < 20 && directory.has_room(), "{} wait", directory.dropped.len());
    let known = Known::read(&store).expect("sound");
    let orphans = (1..store.block_count())
        .filter(|&b| store.read(b, |p| p.tag()).expect("in range").is_some_and(|tag| known.is_orphan(tag)));
    assert_eq!(orphans.count(), 0, "dropped segments are not taken for orphans");
    store.set_xids(5000, 4000);
    case.crash_everywhere(&store, 600, 0, Action::Free);
    compact(&store, 0).expect("sound");
    assert_eq!(Directory::read(&store).expect("sound").1.dropped, []);
    assert_no_page_lost(&store, false);
}

/// A flush is due at each plan.
#[test]
fn a_stream_of_inserts_does_not_keep_merges_from_being_done() {
    let case = Case::distinct(Parameters { recent_rows: 0, recent_threshold: 1, ..pending(Metric::L2, 3, 2) }, 300);
    let store = case.store(0);
    let mut merges = 0;
    for i in 0..150 {
        case.insert(&store, 2 * i..2 * i + 2);
        let step = due(&store, 0).expect("sound").expect("due");
        merges += usize::from(step.action() == Action::Merge);
        run(&store, &step, &Helper::at(0)).expect("sound");
    }
    assert!(merges > 9 && kinds(&store).len() < 40, "{merges} merges, {} segments", kinds(&store).len());
    case.assert_rows(&store, 0..300);
}

#[test]
fn ten_thousand_intervals_do_not_fill_the_directory() {
    let case = Case::distinct(Parameters { partition_interval: DAY / 10, ..by_age(3, 1) }, 160);
    let store = case.store(0);
    for i in 0..160 {
        case.insert(&store, i..i + 1);
        store.set_xids(10 + i as u64, 10 + i as u64);
        compact(&store, 1000 * DAY).expect("sound");
    }
    case.assert_rows(&store, 0..160);
    assert!(kinds(&store).len() <= 102, "{} segments", kinds(&store).len());
    let summary = |s| Head::read(&store, s).expect("sound").summary.expect("kept").column(0);
    let (_, directory) = Directory::read(&store).expect("sound");
    let partitions = directory.segments.iter().filter(|s| s.kind == SegmentKind::Ivf);
    // Neighbors in time were merged: no two overlap.
    let mut ranges: Vec<(i64, i64)> = partitions.map(|s| (summary(s).min, summary(s).max)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|w| w[0].1 < w[1].0), "{ranges:?}");
}

#[test]
fn vacuum_finds_the_pages_of_a_segment_that_was_never_finished() {
    let case = Case::new(by_age(40, 40), 41);
    let (store, now) = (case.store(40), 100 * DAY);
    let step = due(&store, now).expect("sound").expect("due");
    store.stop_after(6);
    assert_eq!(run(&store, &step, &Helper::at(now)), Err(Error::Stopped));
    store.restart();
    let orphans = || {
        let known = Known::read(&store).expect("sound");
        let tags = (1..store.block_count()).filter_map(|b| store.read(b, |p| p.tag()).expect("in range"));
        tags.filter(|&tag| known.is_orphan(tag)).count()
    };
    assert!(orphans() > 0, "the crash came too early");
    free_pages(&store);
    assert_eq!(orphans(), 0);
    case.assert_rows(&store, 0..40);
    case.release_all(&store, now);
    case.assert_rows(&store, 0..40);
}

#[test]
fn a_step_gives_way_at_any_time() {
    let case = Case::new(by_age(40, 40), 41);
    let store = case.store(40);
    for now in [0, 100 * DAY] {
        let step = due(&store, now).expect("sound").expect("due");
        let mut done = false;
        for patience in 1.. {
            let store = store.clone();
            let report = run(&Strict::new(&store), &step, &Helper::impatient(now, patience)).expect("sound");
            case.assert_rows(&store, 0..40);
            done = report.is_some_and(|r| !r.inputs.is_empty());
            if done || patience > 10_000 {
                break;
            }
        }
        assert!(done, "never had enough patience");
    }
}

#[test]
fn the_history_tells_what_was_done() {
    let case = Case::new(by_age(40, 10), 200);
    let store = case.store(20);
    assert_eq!(history(&store), Ok(Vec::new()));
    let mut reports = compact(&store, 0).expect("sound");
    assert_eq!(history(&store).expect("sound"), reports);
    case.insert(&store, 20..40);
    reports.extend(compact(&store, 1000 * DAY).expect("sound"));
    let kept = history(&store).expect("sound");
    assert_eq!(kept, reports);
    assert_eq!(kept.last().expect("some").action, Action::Flush);
}

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

#[derive(Clone, Debug)]
enum Act {
    Insert(usize),
    Crash(u64),
    Vacuum(u32),
    Seal,
    Relieve(u64),
    /// One step at this day; a crash after so many units.
    Compact(i64, Option<u64>),
    FreePages,
    EndTransactions,
    Search(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (1usize..12).prop_map(Act::Insert),
        2 => (0u64..6).prop_map(Act::Crash),
        2 => (0u32..4).prop_map(Act::Vacuum),
        1 => Just(Act::Seal),
        2 => (1u64..20).prop_map(Act::Relieve),
        6 => (prop::sample::select(vec![0i64, 50, 100, 400]), prop::option::weighted(0.5, 0u64..40))
            .prop_map(|(day, crash)| Act::Compact(day, crash)),
        1 => Just(Act::FreePages),
        1 => Just(Act::EndTransactions),
        2 => (0usize..40).prop_map(Act::Search),
    ]
}

struct Model {
    case: Case,
    store: MemoryStore,
    next: usize,
    /// Live rows; those that a crash interrupted may be there.
    live: BTreeMap<u32, u32>,
    torn: Vec<u32>,
    xid: u64,
}

impl Model {
    fn row(&self, i: usize) -> (Row, &[f32]) {
        (self.case.row(i), &self.case.rows[i % self.case.rows.len()])
    }

    fn insert(&mut self, units: Option<u64>) {
        let i = self.next;
        self.next += 1;
        if let Some(units) = units {
            self.store.stop_after(units);
        }
        let (row, vector) = self.row(i);
        let result = insert_row(&Strict::new(&self.store), &self.case.parameters, &row, vector, i as i64);
        self.store.restart();
        match result {
            Ok(_) => _ = self.live.insert(i as u32, 1),
            Err(error) => {
                assert_eq!(error, Error::Stopped);
                self.torn.push(i as u32);
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Insert(rows) => (0..rows).for_each(|_| self.insert(None)),
            Act::Crash(units) => self.insert(Some(units)),
            Act::Vacuum(rest) => {
                let torn = std::mem::take(&mut self.torn);
                let dead = |row: u32| row % 4 == rest || torn.contains(&row);
                vacuum(&Strict::new(&self.store), &self.case.shape(), dead).expect("sound");
                self.live.retain(|&row, _| !dead(row));
            }
            Act::Seal => seal(&Strict::new(&self.store)).expect("sound"),
            Act::Relieve(patience) => {
                relieve(&Strict::new(&self.store), &Helper::impatient(0, patience)).map(|_| ()).expect("sound");
            }
            Act::Compact(day, crash) => {
                let now = day * DAY;
                let Some(step) = due(&self.store, now).expect("sound") else { return };
                if let Some(units) = crash {
                    self.store.stop_after(units);
                }
                let result = run(&Strict::new(&self.store), &step, &Helper::at(now));
                self.store.restart();
                assert!(matches!(result, Ok(_) | Err(Error::Stopped)), "{result:?}");
            }
            Act::FreePages => free_pages(&self.store),
            Act::EndTransactions => {
                self.xid += 1;
                self.store.set_xids(self.xid, self.xid);
            }
            Act::Search(v) => {
                let metric = self.case.parameters.metric;
                let query = &self.case.rows[v];
                let limits = Limits { ef_search: 3, ..WIDE };
                let (hits, _) =
                    scan_all(&Strict::new(&self.store), &self.case.shape(), Some(probe(metric, query)), limits)
                        .expect("sound");
                assert_ordered(metric, query, &hits, |row| self.row(row as usize).1.to_vec());
            }
        }
    }

    fn assert_rows(&self) {
        assert_sound(&self.store, &self.case.shape());
        let mut found = rows_of(&self.store, &self.case.shape());
        for row in &self.torn {
            assert!(found.remove(row).is_none_or(|times| times == 1), "row {row} is doubled");
        }
        assert_eq!(found, self.live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_of_compaction_leaves_a_sound_index_with_the_right_rows(
        dimensions in prop::sample::select(vec![3usize, 16, 300, 9000]),
        kind in 0..4,
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut parameters = Parameters { segment_rows: 25, partition_interval: 30 * DAY, ..by_age(dimensions, 8) };
        match kind {
            0 => parameters.recent_threshold = i64::MAX,
            1 => (parameters.keys, parameters.age_key, parameters.recent_rows) = (0, None, 60),
            2 => parameters.recent_rows = 0,
            _ => {}
        }
        let n = if dimensions > 1000 { acts.len().min(20) } else { acts.len() };
        let case = Case::new(parameters, 40);
        let store = case.store(0);
        let mut model = Model { case, store, next: 0, live: BTreeMap::new(), torn: Vec::new(), xid: 10 };
        for act in &acts[..n] {
            model.act(act);
        }
        model.assert_rows();
        model.case.release_all(&model.store, 500 * DAY);
        model.assert_rows();
        prop_assert_eq!(Meta::read(&model.store).map(|meta| meta.parameters), Ok(model.case.parameters));
    }
}
