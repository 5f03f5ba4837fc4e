//! The server stops after any committed unit. What is on the pages then must be sound and hold every row whose
//! insert returned.

use crate::data::{Mixture, Rng};
use crate::harness::*;
use crate::strict::Strict;
use ann::distance::Metric;
use ann::error::Error;
use ann::index::{Directory, Parameters};
use ann::memory::MemoryStore;

struct History {
    parameters: Parameters,
    rows: Vec<Vec<f32>>,
}

impl History {
    /// Rows of which two in three repeat one vector: its TIDs fill more than a chunk in each segment.
    fn new(parameters: Parameters, n: usize) -> Self {
        let mut mixture = Mixture::new(5, parameters.dimensions, 4);
        let popular = mixture.fresh();
        let mut rows = mixture.rows(n);
        rows.iter_mut().enumerate().filter(|(i, _)| i % 3 != 0).for_each(|(_, row)| row.clone_from(&popular));
        Self { parameters, rows }
    }

    fn insert(&self, store: &MemoryStore, row: usize) -> ann::error::Result<()> {
        insert(&Strict::new(store), &self.parameters, row as u32, &self.rows[row])
    }

    /// Inserts all rows and hands `visit` every store that a crash within one of them would leave, with that row.
    fn crash_everywhere(&self, mut visit: impl FnMut(MemoryStore, usize)) -> MemoryStore {
        let store = empty(&self.parameters);
        for row in 0..self.rows.len() {
            let before = store.clone();
            self.insert(&store, row).expect("not stopped");
            for units in 0..store.commits() - before.commits() {
                let crashed = before.clone();
                crashed.stop_after(units);
                assert_eq!(self.insert(&crashed, row), Err(Error::Stopped), "row {row} after {units} units");
                crashed.restart();
                visit(crashed, row);
            }
        }
        store
    }

    /// Rows before `interrupted` are there once, that one at most once, no others.
    fn assert_complete(&self, store: &MemoryStore, interrupted: usize) {
        let shape = self.parameters.shape();
        assert_sound(store, &shape);
        let mut found = rows_of(store, &shape);
        assert!(found.remove(&(interrupted as u32)).is_none_or(|times| times == 1), "row {interrupted} is doubled");
        assert!(found.into_iter().eq((0..interrupted as u32).map(|row| (row, 1))), "before row {interrupted}");
    }

    /// The index works on: the interrupted row comes again with another TID, as a client's retry would bring it.
    fn assert_usable(&self, store: &MemoryStore, interrupted: usize) {
        let shape = self.parameters.shape();
        let retry = self.rows.len() as u32;
        insert(store, &self.parameters, retry, &self.rows[interrupted]).expect("usable");
        assert_eq!(rows_of(store, &shape).get(&retry), Some(&1));
        let metric = self.parameters.metric;
        let query = &self.rows[interrupted / 2];
        let (hits, dropped) = scan_all(store, &shape, Some(probe(metric, query)), WIDE).expect("sound");
        assert_ordered(metric, query, &hits, |id| {
            self.rows[if id == retry { interrupted } else { id as usize }].clone()
        });
        assert!(dropped == 0 && hits.len() > interrupted, "{} hits, {dropped} dropped", hits.len());
    }
}

fn crash_and_check(parameters: Parameters, n: usize, segments: usize) {
    let history = History::new(parameters, n);
    let mut crashes = 0;
    let store = history.crash_everywhere(|crashed, row| {
        history.assert_complete(&crashed, row);
        if crashes % 4 == 0 {
            history.assert_usable(&crashed, row);
        }
        crashes += 1;
    });
    history.assert_complete(&store, n);
    assert_eq!(Directory::read(&store).expect("sound").1.segments.len(), segments);
    assert!(crashes > 2 * n, "only {crashes} crashes");
}

#[test]
fn no_insert_is_lost_by_a_crash_at_any_unit() {
    let parameters = Parameters { segment_rows: 10, ..parameters(Metric::L2, 600, 2, 8) };
    crash_and_check(parameters, 120, 4);
}

#[test]
fn no_insert_is_lost_by_a_crash_where_codes_have_tails() {
    let parameters = Parameters { segment_rows: 4, ..parameters(Metric::Cosine, 9000, 2, 6) };
    assert!(parameters.shape().tails > 0);
    crash_and_check(parameters, 24, 3);
}

#[test]
fn vacuum_may_crash_at_any_unit_and_run_again() {
    let parameters = Parameters { segment_rows: 60, ..parameters(Metric::L2, 32, 2, 8) };
    let shape = parameters.shape();
    let history = History::new(parameters, 200);
    let store = inserted(&history.parameters, &history.rows);
    let dead = |id: u32| id % 5 < 2;
    let live: Vec<(u32, u32)> = (0..200).filter(|&id| !dead(id)).map(|id| (id, 1)).collect();
    let mut units = 0;
    loop {
        let crashed = store.clone();
        crashed.stop_after(units);
        let result = vacuum(&Strict::new(&crashed), &shape, dead);
        crashed.restart();
        assert_sound(&crashed, &shape);
        let mut found = rows_of(&crashed, &shape);
        found.retain(|&id, _| !dead(id));
        assert!(found.into_iter().eq(live.iter().copied()), "a live row is gone after {units} units");
        let swept = vacuum(&crashed, &shape, dead).expect("usable");
        assert_eq!(swept.live, live.len() as u64);
        assert!(rows_of(&crashed, &shape).into_iter().eq(live.iter().copied()), "vacuum left a dead row");
        if result.is_ok() {
            assert!(units > 5, "{units} units");
            return;
        }
        assert_eq!(result, Err(Error::Stopped));
        units += 1;
    }
}

#[test]
fn sealing_may_crash_at_any_unit() {
    let parameters = parameters(Metric::L1, 8, 4, 16);
    let shape = parameters.shape();
    let mut rng = Rng::new(1);
    let rows: Vec<Vec<f32>> = (0..30).map(|_| (0..8).map(|_| rng.normal()).collect()).collect();
    for units in 0..2 {
        let store = inserted(&parameters, &rows[..20]);
        store.stop_after(units);
        assert_eq!(seal(&Strict::new(&store)), Err(Error::Stopped));
        store.restart();
        assert_eq!(Directory::read(&store).expect("sound").1.segments.len() as u64, 1 + units);
        for (i, row) in rows.iter().enumerate().skip(20) {
            insert(&store, &parameters, i as u32, row).expect("usable");
        }
        seal(&store).expect("usable");
        assert_sound(&store, &shape);
        assert!(rows_of(&store, &shape).into_iter().eq((0..30).map(|row| (row, 1))));
    }
}
