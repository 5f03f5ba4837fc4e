//! Compaction: who runs the steps that [`ann::compact`] plans, when, and until who waits.
//!
//! Each step runs under the maintenance lock. `hybrid_compact` waits for it; the worker and VACUUM take it if it is free.

use super::or_raise;
use crate::guc;
use crate::pg::arena::BuildArena;
use crate::pg::buffer::IndexStore;
use crate::pg::lock::Maintenance;
use crate::pg::relation::{Index, OpenTable};
use crate::pg::reloptions::Options;
use crate::pg::settings::{maintenance_work_mem, now};
use crate::pg::thread::{Pool, wait_a_moment};
use crate::pg::worker::{self, Claimed, Started};
use ann::compact::{self, Action, Help, Report, Step};
use ann::error::{Error, Result};
use ann::hnsw::build::Stop;
use ann::index::Directory;
use pgrx::pg_sys;
use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long VACUUM waits for a worker's step before that is given up, and what it did so far with it. Where a step was
/// given up the next one is not, or VACUUM could keep it from ever being done.
const VACUUM_WAITS: Duration = Duration::from_secs(10);
/// How often a step looks whether somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long an insert may help with a flush.
const INSERT_HELPS: Duration = Duration::from_millis(20);
/// How often an idle worker looks whether something is due.
const IDLE_PAUSE: Duration = Duration::from_millis(250);
/// How long a worker stays without anything to do. No shorter than sessions take to ask for one again.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// How often a worker looks through all indexes of its database.
const LIST_EVERY: Duration = Duration::from_secs(10);

/// What a step needs of this process.
struct Helper<'a> {
    lock: &'a Maintenance,
    pool: OnceCell<Pool>,
    ways: Ways<'a>,
    started: Instant,
    looked: Cell<Instant>,
    /// Since when somebody waits for the maintenance lock.
    wanted_since: Cell<Option<Instant>>,
    is_in_the_way: Cell<bool>,
    /// Says how far the step is, for pg_stat_activity.
    tell: &'a dyn Fn(u64),
}

/// When a step is given up.
#[derive(Clone, Copy)]
struct Ways<'a> {
    /// Whether somebody waits for other locks of ours: then at once.
    is_in_the_way: &'a dyn Fn() -> bool,
    /// After how long others have waited for the maintenance lock; `None`: not before the step is done.
    patience: Option<Duration>,
    /// After how long the step stops at the next good place.
    limit: Option<Duration>,
}

/// Only by a cancel.
const TO_THE_END: Ways<'static> = Ways { is_in_the_way: &|| false, patience: None, limit: None };

impl<'a> Helper<'a> {
    fn new(lock: &'a Maintenance, ways: Ways<'a>, tell: &'a dyn Fn(u64)) -> Self {
        Self {
            lock,
            pool: OnceCell::new(),
            ways,
            started: Instant::now(),
            looked: Cell::new(Instant::now()),
            wanted_since: Cell::new(None),
            is_in_the_way: Cell::new(false),
            tell,
        }
    }

    /// Looks who waits, if it did not do so a moment ago. Whether it did.
    fn look(&self) -> bool {
        let now = Instant::now();
        if now - self.looked.get() < LOOK_EVERY {
            return false;
        }
        self.looked.set(now);
        let since = self.wanted_since.get().unwrap_or(now);
        self.wanted_since.set(self.lock.is_wanted().then_some(since));
        self.is_in_the_way.set((self.ways.is_in_the_way)());
        true
    }

    fn check(&self, done: u64) -> Result<()> {
        if self.look() {
            (self.tell)(done);
        }
        if self.must_give_up() { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Whether others have waited for too long.
    fn must_give_up(&self) -> bool {
        let waited = self.wanted_since.get().map(|since| since.elapsed());
        let too_long = waited.zip(self.ways.patience).is_some_and(|(waited, patience)| waited > patience);
        too_long || self.is_in_the_way.get()
    }
}

impl Help for Helper<'_> {
    type Arena = BuildArena;

    fn arena(&self) -> BuildArena {
        BuildArena::new(maintenance_work_mem())
    }

    fn pool(&self) -> (&rayon::ThreadPool, usize) {
        let pool = self.pool.get_or_init(Pool::new);
        (pool.rayon(), pool.threads())
    }

    fn stop(&self) -> &Stop {
        Pool::stop_flag()
    }

    fn progress(&self, done: u64) -> Result<()> {
        pgrx::check_for_interrupts!();
        self.check(done)
    }

    fn wait(&self, done: u64) -> Result<()> {
        wait_a_moment();
        self.check(done)
    }

    fn wanted(&self) -> bool {
        self.look();
        let over = self.ways.limit.is_some_and(|limit| self.started.elapsed() > limit);
        over || self.must_give_up()
    }

    fn now(&self) -> i64 {
        now()
    }
}

/// What is due.
fn plan(index: Index, store: &IndexStore) -> Option<Step> {
    let (meta, directory) = or_raise(index, Directory::read(store));
    or_raise(index, compact::plan(store, &meta, &directory, now()))
}

/// Does a step; `None`: it was given up, or there was nothing to do.
fn run(index: Index, store: &IndexStore, step: &Step, helper: &Helper) -> Option<Report> {
    let report = match compact::run(store, step, helper) {
        Err(Error::Stopped) => None,
        result => or_raise(index, result),
    };
    report.inspect(|report| log(index, report))
}

/// What pg_stat_activity shows.
fn describe(index: Index, step: &Step, done: u64) -> String {
    let of = if step.inputs().is_empty() { String::new() } else { format!(" of segments {}", list(step.inputs())) };
    format!("hybridvec: {}{of} in \"{}\", {done} done", step.action().name(), index.name())
}

/// Says nothing.
const SILENT: &dyn Fn(u64) = &|_| ();

fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn log(index: Index, report: &Report) {
    let took = report.finished - report.started;
    if guc::log_compaction_from().is_some_and(|from| took >= from) {
        let output = report.output.map_or(String::new(), |id| format!(" to {id}"));
        pgrx::log!(
            "hybridvec compaction of index \"{}\": {}, segments {}{output}, {} {}, {} ms",
            index.name(),
            report.action.name(),
            list(&report.inputs),
            report.rows,
            if report.action == Action::Free { "pages" } else { "rows" },
            took / 1000
        );
    }
}

/// Does all that is due, waiting for the maintenance lock before each step.
pub fn compact_all(index: Index, table: &OpenTable) -> Vec<Report> {
    let store = IndexStore::with_table(index, table);
    let mut reports = Vec::new();
    loop {
        pgrx::check_for_interrupts!();
        // Taken anew for each step, so that VACUUM, which waits in line, comes in between.
        let lock = Maintenance::acquire(index);
        let Some(step) = plan(index, &store) else { return reports };
        reports.extend(run(index, &store, &step, &Helper::new(&lock, TO_THE_END, SILENT)));
    }
}

/// What an insert does that finds too many rows in pending lists: moves some on, if nobody else is at it.
pub fn relieve(index: Index) {
    let Some(lock) = Maintenance::try_acquire(index) else { return };
    let ways = Ways { limit: Some(INSERT_HELPS), ..TO_THE_END };
    or_raise(index, compact::relieve(&IndexStore::new(index), &Helper::new(&lock, ways, SILENT)));
}

/// Frees what dropped segments held, if nobody can need it any more; says what else is due. The caller holds the
/// maintenance lock.
pub fn free_dropped(index: Index, store: &IndexStore, lock: &Maintenance) -> Option<Step> {
    loop {
        let step = plan(index, store)?;
        if step.action() != Action::Free || run(index, store, &step, &Helper::new(lock, TO_THE_END, SILENT)).is_none() {
            return Some(step);
        }
    }
}

/// What VACUUM does where something is due: has a worker do it, or does a step of it itself if none is to be had. The
/// caller does not hold the maintenance lock.
pub fn after_vacuum(index: Index, table: &OpenTable) {
    let by_worker = || index.is_seen_by_workers() && worker::start(index.oid()) == Started::Yes;
    if !Options::of(index).auto_compact || by_worker() {
        return;
    }
    let store = IndexStore::with_table(index, table);
    if let Some(lock) = Maintenance::try_acquire(index)
        && let Some(step) = plan(index, &store).filter(is_for_now)
    {
        run(index, &store, &step, &Helper::new(&lock, TO_THE_END, SILENT));
    }
}

/// Outside of quiet hours only what keeps inserts and searches fast.
fn is_for_now(step: &Step) -> bool {
    matches!(step.action(), Action::Flush | Action::Free) || guc::is_quiet()
}

/// What a worker found at an index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Did,
    /// Nothing is due, or others are at it.
    Nothing,
    /// A step was given up because others waited.
    GaveUp,
    /// An ERROR, which is in the log.
    Failed,
}

/// A worker's rounds. Comes back when there was nothing to do for a while, or the worker should end.
pub fn look_after_database(first: pg_sys::Oid) {
    let mut rounds = Rounds { busy: vec![first], ..Rounds::default() };
    let mut last_work = Instant::now();
    let mut last_list: Option<Instant> = None;
    loop {
        let mut did = rounds.visit_busy();
        if last_list.is_none_or(|at| at.elapsed() > LIST_EVERY) {
            did |= rounds.visit_all();
            last_list = Some(Instant::now());
        }
        if !did {
            worker::report_activity(None);
        }
        if did || std::mem::take(&mut rounds.left_off) {
            last_work = Instant::now();
        }
        let idle = last_work.elapsed() > IDLE_FOR;
        if idle || !worker::pause(if did { Duration::ZERO } else { IDLE_PAUSE }) {
            return;
        }
    }
}

#[derive(Default)]
struct Rounds {
    /// Indexes where there was something to do, or somebody said so.
    busy: Vec<pg_sys::Oid>,
    /// Not visited again by this process.
    failed: HashSet<pg_sys::Oid>,
    /// Where a step was given up.
    gave_up: HashSet<pg_sys::Oid>,
    /// Whether one was given up in this round.
    left_off: bool,
}

impl Rounds {
    fn visit_busy(&mut self) -> bool {
        let mut did = false;
        for index in self.busy.clone() {
            did |= self.visit(index);
        }
        did
    }

    fn visit_all(&mut self) -> bool {
        let all = worker::try_transaction(crate::admin::hybrid_indexes).unwrap_or_default();
        let mut did = false;
        for index in all {
            if !self.busy.contains(&index) && self.visit(index) {
                self.busy.push(index);
                did = true;
            }
        }
        did
    }

    fn visit(&mut self, index: pg_sys::Oid) -> bool {
        pgrx::check_for_interrupts!();
        if self.failed.contains(&index) {
            return false;
        }
        let patience = (!self.gave_up.contains(&index)).then_some(VACUUM_WAITS);
        match worker::try_transaction(|| visit(index, patience)).unwrap_or(Visit::Failed) {
            Visit::Did => {
                self.gave_up.remove(&index);
                return true;
            }
            Visit::Nothing => {}
            Visit::GaveUp => {
                self.gave_up.insert(index);
                self.left_off = true;
            }
            Visit::Failed => _ = self.failed.insert(index),
        }
        false
    }
}

/// One step at one index, in a transaction of its own.
fn visit(oid: pg_sys::Oid, patience: Option<Duration>) -> Visit {
    let Some(claimed) = Claimed::open(oid) else { return Visit::Nothing };
    let index = claimed.index();
    if !Options::of(index).auto_compact {
        return Visit::Nothing;
    }
    claimed.as_owner(|| {
        let store = IndexStore::with_table(index, claimed.table());
        let Some(lock) = Maintenance::try_acquire(index) else { return Visit::Nothing };
        let Some(step) = plan(index, &store).filter(is_for_now) else { return Visit::Nothing };
        let is_in_the_way = || claimed.is_in_the_way();
        let ways = Ways { is_in_the_way: &is_in_the_way, patience, limit: None };
        let tell = |done| worker::report_activity(Some(&describe(index, &step, done)));
        tell(0);
        let helper = Helper::new(&lock, ways, &tell);
        match worker::without_snapshot(|| run(index, &store, &step, &helper)) {
            Some(_) => Visit::Did,
            None if helper.must_give_up() => Visit::GaveUp,
            None => Visit::Nothing,
        }
    })
}
