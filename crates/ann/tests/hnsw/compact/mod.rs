//! Pending lists and compaction: no row is lost or doubled by a crash after any unit, none is missed or repeated by a
//! scan that runs meanwhile, and no page is lost for good.

mod races;
mod random;
mod steps;

use crate::data::Mixture;
use crate::harness::*;
use crate::strict::Strict;
use ann::age::Recency;
use ann::compact::{Action, Help, Known, Report, Step, history, plan, relieve, run, some_came_of_age};
use ann::distance::Metric;
use ann::error::{Error, Result};
use ann::hnsw::build::{HeapArena, Stop};
use ann::hnsw::scan::Limits;
use ann::index::{AgeKey, Backlog, Directory, Head, Meta, Parameters, SegmentKind, free_stray_directory};
use ann::keys::{Keys, Row};
use ann::memory::MemoryStore;
use ann::page::{Kind, META_BLOCK, NONE, PageStore};
use ann::shape::Shape;

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
    let came_of_age = some_came_of_age(store, &meta, &directory, now)?;
    let step = plan(store, &meta, &directory, now)?;
    let migrates = step.as_ref().is_some_and(|step| step.action() == Action::Migrate);
    let by_age = matches!(meta.parameters.recency(), Recency::ByAge { .. });
    assert!(came_of_age || !migrates || !by_age, "a search would not have seen that it is due");
    Ok(step)
}

/// Steps until nothing is due.
pub fn compact(store: &impl PageStore, now: i64) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    while let Some(step) = due(store, now)? {
        reports.extend(run(store, &step, &Helper::at(now))?);
        assert!(reports.len() < 200, "compaction does not end: {:?}", &reports[190..]);
    }
    let (meta, directory) = Directory::read(store)?;
    assert!(!some_came_of_age(store, &meta, &directory, now)?, "nothing is due, and searches would ask for a worker");
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
