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

/// How long VACUUM waits for a step before the step is given up, and what it did so far with it. A step that was given
/// up once is not given up again, or VACUUM could keep it from ever being done.
const VACUUM_WAITS: Duration = Duration::from_secs(30);
/// How often a step looks whether somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);
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
    /// Whether the step must be given up, whatever it cost so far.
    is_in_the_way: &'a dyn Fn() -> bool,
    /// How long others may wait for the lock; `None`: until the step is done.
    patience: Option<Duration>,
    looked: Cell<Instant>,
    wanted_since: Cell<Option<Instant>>,
    /// Says what the step does, for pg_stat_activity.
    tell: &'a dyn Fn(u64),
}

impl Helper<'_> {
    fn look(&self, done: u64) -> Result<()> {
        let now = Instant::now();
        if now - self.looked.get() < LOOK_EVERY {
            return Ok(());
        }
        self.looked.set(now);
        (self.tell)(done);
        let since = self.lock.is_wanted().then(|| self.wanted_since.get().unwrap_or(now));
        self.wanted_since.set(since);
        let waited = since.is_some_and(|since| self.patience.is_some_and(|patience| now - since > patience));
        if waited || (self.is_in_the_way)() { Err(Error::Stopped) } else { Ok(()) }
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
        self.look(done)
    }

    fn wait(&self, done: u64) -> Result<()> {
        wait_a_moment();
        self.look(done)
    }

    fn wanted(&self) -> bool {
        self.wanted_since.get().is_some()
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

/// Whose step it is, which decides for whom it is given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Person,
    Vacuum,
    Worker,
}

/// Does a step; `None`: it was given up.
fn run(index: Index, store: &IndexStore, step: Step, lock: &Maintenance, ways: Ways) -> Option<Report> {
    let (action, inputs) = (step.action().name(), list(step.inputs()));
    let name = index.name();
    let tell = |done: u64| {
        if ways.caller == Caller::Worker {
            worker::report_activity(Some(&format!(
                "hybridvec: {action} of \"{name}\", segments {inputs}: {done} rows"
            )));
        }
    };
    tell(0);
    let helper = Helper {
        lock,
        pool: OnceCell::new(),
        is_in_the_way: ways.is_in_the_way,
        patience: ways.patience,
        looked: Cell::new(Instant::now()),
        wanted_since: Cell::new(None),
        tell: &tell,
    };
    let report = match compact::run(store, step, &helper) {
        Err(Error::Stopped) => return None,
        result => or_raise(index, result),
    };
    log(index, &report);
    Some(report)
}

/// When a step is given up.
#[derive(Clone, Copy)]
struct Ways<'a> {
    caller: Caller,
    is_in_the_way: &'a dyn Fn() -> bool,
    patience: Option<Duration>,
}

/// Never but for a cancel.
fn to_the_end(caller: Caller) -> Ways<'static> {
    Ways { caller, is_in_the_way: &|| false, patience: None }
}

fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn log(index: Index, report: &Report) {
    let took = report.finished - report.started;
    if guc::log_compaction_from().is_some_and(|from| took >= from) {
        let output = report.output.map_or(String::new(), |id| format!(" to {id}"));
        pgrx::log!(
            "hybridvec compaction of index \"{}\": {}, segments {}{output}, {} rows, {} ms",
            index.name(),
            report.action.name(),
            list(&report.inputs),
            report.rows,
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
        reports.extend(run(index, &store, step, &lock, to_the_end(Caller::Person)));
    }
}

/// What VACUUM does at its end besides freeing pages: has a worker do what is due, or does a step of it itself where
/// none is to be had. The caller does not hold the maintenance lock.
pub fn after_vacuum(index: Index, table: &OpenTable) {
    if !Options::of(index).auto_compact {
        return;
    }
    let store = IndexStore::with_table(index, table);
    if plan(index, &store).is_none() || index.is_seen_by_workers() && worker::start(index.oid()) == Started::Yes {
        return;
    }
    if let Some(lock) = Maintenance::try_acquire(index)
        && let Some(step) = plan(index, &store).filter(is_for_now)
    {
        run(index, &store, step, &lock, to_the_end(Caller::Vacuum));
    }
}

/// Frees what dropped segments held. The caller holds the maintenance lock.
pub fn free_dropped(index: Index, store: &IndexStore, lock: &Maintenance) {
    while let Some(step) = plan(index, store).filter(|step| step.action() == Action::Free) {
        let report = run(index, store, step, lock, to_the_end(Caller::Vacuum));
        if report.is_none_or(|report| report.rows == 0) {
            return;
        }
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
    /// A step was given up because VACUUM waited.
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
        if did {
            last_work = Instant::now();
        } else {
            worker::report_activity(None);
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
            Visit::GaveUp => _ = self.gave_up.insert(index),
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
        let ways = Ways { caller: Caller::Worker, is_in_the_way: &is_in_the_way, patience };
        match worker::without_snapshot(|| run(index, &store, step, &lock, ways)) {
            Some(_) => Visit::Did,
            None => Visit::GaveUp,
        }
    })
}
