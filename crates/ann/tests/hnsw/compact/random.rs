//! Random histories.

use super::*;
use proptest::prelude::*;

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
