//! Random histories against a list of what should be there.

use crate::data::Mixture;
use crate::harness::*;
use crate::strict::Strict;
use ann::distance::Metric;
use ann::error::Error;
use ann::hnsw::scan::Limits;
use ann::memory::MemoryStore;
use ann::shape::Shape;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Action {
    /// A row with this vector of the pool.
    Insert(usize),
    /// The same, but the server stops after so many units.
    Crash(usize, u64),
    /// Deletes every live row whose number has this remainder by 5.
    Delete(u32),
    /// The same, row by row of one vector.
    DeleteVector(usize),
    Vacuum,
    Seal,
    Search(usize),
}

const POOL: usize = 40;

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (0..POOL).prop_map(Action::Insert),
        // One vector that many rows share.
        20 => Just(Action::Insert(0)),
        3 => (0..POOL, 0u64..12).prop_map(|(v, units)| Action::Crash(v, units)),
        2 => (0u32..5).prop_map(Action::Delete),
        3 => (0..POOL).prop_map(Action::DeleteVector),
        2 => Just(Action::Vacuum),
        1 => Just(Action::Seal),
        2 => (0..POOL).prop_map(Action::Search),
    ]
}

struct Model {
    store: MemoryStore,
    metric: Metric,
    shape: Shape,
    pool: Vec<Vec<f32>>,
    /// Vector of each row that was ever inserted.
    vectors: Vec<usize>,
    /// Must be found.
    live: BTreeMap<u32, u32>,
    /// Deleted, and not vacuumed since.
    dead: BTreeMap<u32, u32>,
    /// Interrupted by a crash: may be there, and is dead for everybody.
    torn: Vec<u32>,
}

impl Model {
    fn act(&mut self, action: &Action) {
        let parameters = parameters(self.metric, self.shape.dimensions, self.shape.m, 12);
        match *action {
            Action::Insert(v) => {
                let row = self.next_row(v);
                insert(&Strict::new(&self.store), &parameters, row, &self.pool[v]).expect("sound");
                self.live.insert(row, 1);
            }
            Action::Crash(v, units) => {
                let row = self.next_row(v);
                self.store.stop_after(units);
                match insert(&self.store, &parameters, row, &self.pool[v]) {
                    Ok(()) => _ = self.live.insert(row, 1),
                    Err(error) => {
                        assert_eq!(error, Error::Stopped);
                        self.torn.push(row);
                    }
                }
                self.store.restart();
            }
            Action::Delete(rest) => self.delete(|row, _| row % 5 == rest),
            Action::DeleteVector(v) => self.delete(|_, vector| vector == v),
            Action::Vacuum => {
                let gone = |row: u32| self.dead.contains_key(&row) || self.torn.contains(&row);
                let swept = vacuum(&Strict::new(&self.store), &self.shape, gone).expect("sound");
                assert_eq!(swept.live, self.live.len() as u64);
                self.dead.clear();
                self.torn.clear();
            }
            Action::Seal => seal(&Strict::new(&self.store)).expect("sound"),
            Action::Search(v) => self.search(v),
        }
    }

    fn next_row(&mut self, vector: usize) -> u32 {
        self.vectors.push(vector);
        self.vectors.len() as u32 - 1
    }

    fn delete(&mut self, which: impl Fn(u32, usize) -> bool) {
        let (dead, live) = std::mem::take(&mut self.live)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|&(row, _)| which(row, self.vectors[row as usize]));
        self.live = live;
        self.dead.extend(dead);
    }

    /// Rows are exactly the live ones and those that vacuum has not seen; torn ones may be there.
    fn assert_rows(&self, mut found: BTreeMap<u32, u32>) {
        for row in &self.torn {
            assert!(found.remove(row).is_none_or(|times| times == 1), "row {row} is doubled");
        }
        let expected: BTreeMap<u32, u32> = self.live.iter().chain(&self.dead).map(|(&row, &n)| (row, n)).collect();
        assert_eq!(found, expected);
    }

    /// A search asked for everything gives everything, by graph or flat.
    fn search(&self, v: usize) {
        for ef_search in [1, 40] {
            let limits = Limits { ef_search, ..WIDE };
            let query = &self.pool[v];
            let probe = probe(self.metric, query);
            let (hits, dropped) = scan_all(&Strict::new(&self.store), &self.shape, Some(probe), limits).expect("sound");
            assert_ordered(self.metric, query, &hits, |row| self.pool[self.vectors[row as usize]].clone());
            if dropped == 0 {
                self.assert_rows(hits.iter().map(|hit| (id(hit.tid), 1)).collect());
            }
        }
    }
}

fn run(metric: Metric, dimensions: usize, actions: &[Action]) {
    let pool = Mixture::new(11, dimensions, 5).rows(POOL);
    let shape = Shape::new(metric, dimensions, 2, 0);
    let store = empty(&parameters(metric, dimensions, 2, 12));
    let (vectors, live, dead, torn) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut model = Model { store, metric, shape, pool, vectors, live, dead, torn };
    actions.iter().for_each(|action| model.act(action));
    assert_sound(&model.store, &shape);
    model.assert_rows(rows_of(&model.store, &shape));
    model.search(0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_leaves_a_sound_index_with_the_right_rows(
        metric in prop::sample::select(METRICS.to_vec()),
        // Many elements on a page, and one on a page with tails elsewhere.
        dimensions in prop::sample::select(vec![3usize, 3, 16, 9000]),
        actions in prop::collection::vec(action(), 1..160),
    ) {
        let n = if dimensions > 1000 { actions.len().min(40) } else { actions.len() };
        run(metric, dimensions, &actions[..n]);
    }
}
