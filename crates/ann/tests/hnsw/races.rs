//! Two sessions without threads: while one works, between any two of its steps, another does something whole.

use crate::data::Mixture;
use crate::harness::*;
use crate::strict::Strict;
use ann::distance::Metric;
use ann::hnsw::build::level_of;
use ann::index::{Directory, Parameters};
use ann::memory::MemoryStore;

/// Rows of a race: the first `BASE` are there before it.
struct Race {
    parameters: Parameters,
    rows: Vec<Vec<f32>>,
    base: usize,
}

/// Rows that others insert meanwhile.
const OTHERS: usize = 3;

impl Race {
    /// `base` rows, then the racing row, then those of others: very near to it, equal to it, far from it.
    fn new(parameters: Parameters, base: usize) -> Self {
        let mut mixture = Mixture::new(21, parameters.dimensions, 3);
        let mut rows = mixture.rows(base + 1 + OTHERS);
        let mut near = rows[base].clone();
        near[0] += 0.05;
        rows[base + 1] = near;
        rows[base + 2] = rows[base].clone();
        Self { parameters, rows, base }
    }

    fn row(&self, store: &impl ann::page::PageStore, row: usize) {
        insert(store, &self.parameters, row as u32, &self.rows[row]).expect("sound");
    }

    /// Runs `work` on a copy of `start` once for each of its steps, with `other` before that step.
    fn everywhere(
        &self,
        start: &MemoryStore,
        work: impl Fn(&Strict),
        other: impl Fn(&MemoryStore),
        check: impl Fn(&MemoryStore),
    ) {
        let alone = start.clone();
        let strict = Strict::new(&alone);
        work(&strict);
        let steps = strict.steps();
        assert!(steps > 1, "{steps} steps");
        for step in 0..steps {
            let store = start.clone();
            let ran = std::cell::Cell::new(false);
            work(&Strict::with_hook(&store, step, |store| {
                ran.set(true);
                other(store);
            }));
            assert!(ran.get(), "step {step} of {steps} never came");
            assert_sound(&store, &self.parameters.shape());
            check(&store);
        }
    }

    /// Every row of `rows` is there once, no others.
    fn assert_rows(&self, store: &MemoryStore, rows: impl IntoIterator<Item = usize>) {
        let found = rows_of(store, &self.parameters.shape());
        let expected: std::collections::BTreeMap<u32, u32> = rows.into_iter().map(|row| (row as u32, 1)).collect();
        assert_eq!(found, expected);
    }

    /// The racing row's insert against something else.
    fn insert_against(&self, start: &MemoryStore, others: &[usize], other: impl Fn(&MemoryStore)) {
        let all = || (0..=self.base).chain(others.iter().copied());
        self.everywhere(start, |store| self.row(store, self.base), other, |store| self.assert_rows(store, all()));
    }
}

/// Shapes that differ in what an insert writes, each with numbers of rows to start from: many upper records (m = 2),
/// and code tails.
fn shapes() -> [(Parameters, [usize; 3]); 2] {
    [(parameters(Metric::L2, 300, 2, 8), [0, 1, 30]), (parameters(Metric::Cosine, 9000, 2, 4), [0, 1, 6])]
}

#[test]
fn inserts_that_race_with_inserts_are_all_there() {
    for (parameters, bases) in shapes() {
        for base in bases {
            let race = Race::new(parameters.clone(), base);
            let start = inserted(&race.parameters, &race.rows[..base]);
            for other in base + 1..race.rows.len() {
                race.insert_against(&start, &[other], |store| race.row(store, other));
            }
            let all: Vec<usize> = (base + 1..race.rows.len()).collect();
            race.insert_against(&start, &all, |store| all.iter().for_each(|&row| race.row(store, row)));
        }
    }
}

#[test]
fn inserts_that_race_with_sealing_go_to_a_listed_segment() {
    for (parameters, bases) in shapes() {
        for base in bases {
            let race = Race::new(parameters.clone(), base);
            let start = inserted(&race.parameters, &race.rows[..base]);
            race.insert_against(&start, &[], |store| seal(store).expect("sound"));
            race.insert_against(&start, &[base + 2], |store| {
                seal(store).expect("sound");
                race.row(store, base + 2);
                seal(store).expect("sound");
            });
        }
    }
}

/// The twin's element gets further rows while its chunk fills, empties and fills again.
#[test]
fn rows_that_join_an_element_race_with_rows_and_vacuum() {
    let parameters = parameters(Metric::Cosine, 40, 4, 12);
    // Two rows in the element, chunks of twenty: the racing row joins a new, a full or an open chunk.
    for equal in [1, 2, 3, 22, 23, 42] {
        let mut race = Race::new(parameters.clone(), equal + 10);
        let twin = race.rows[race.base].clone();
        race.rows[..equal].fill(twin);
        let start = inserted(&race.parameters, &race.rows[..race.base]);
        race.insert_against(&start, &[race.base + 2], |store| race.row(store, race.base + 2));
        let dead = |row: u32| row.is_multiple_of(2) && (row as usize) < equal;
        race.everywhere(
            &start,
            |store| race.row(store, race.base),
            |store| _ = vacuum(store, &race.parameters.shape(), dead).expect("sound"),
            |store| race.assert_rows(store, (0..=race.base).filter(|&row| !dead(row as u32))),
        );
    }
}

#[test]
fn vacuum_that_races_with_inserts_and_sealing_removes_the_dead_and_no_others() {
    let parameters = Parameters { segment_rows: 20, ..parameters(Metric::L2, 300, 2, 8) };
    let mut race = Race::new(parameters, 90);
    let popular = race.rows[90].clone();
    race.rows[..45].fill(popular);
    let start = inserted(&race.parameters, &race.rows[..90]);
    assert!(Directory::read(&start).expect("sound").1.segments.len() > 1);
    let dead = |row: u32| row.is_multiple_of(3) && row < 90;
    race.everywhere(
        &start,
        |store| _ = vacuum(store, &race.parameters.shape(), dead).expect("sound"),
        |store| {
            race.row(store, 90);
            race.row(store, 91);
            seal(store).expect("sound");
            race.row(store, 92);
        },
        |store| race.assert_rows(store, (0..93).filter(|&row| !dead(row as u32))),
    );
}

/// Of two sessions that find the segment full, one seals it.
#[test]
fn sealing_that_races_with_sealing_happens_once() {
    let race = Race::new(parameters(Metric::L2, 8, 2, 8), 10);
    let start = inserted(&race.parameters, &race.rows[..10]);
    let (meta, directory) = Directory::read(&start).expect("sound");
    race.everywhere(
        &start,
        |store| ann::index::seal(store, &meta, &directory, 5).expect("sound"),
        |store| ann::index::seal(store, &meta, &directory, 6).expect("sound"),
        |store| {
            assert_eq!(Directory::read(store).expect("sound").1.segments.len(), 2);
            race.assert_rows(store, 0..10);
        },
    );
}

/// A search sees every row that was there before it began, whatever happens meanwhile.
#[test]
fn scans_that_race_with_inserts_and_sealing_see_what_was_there() {
    let race = Race::new(parameters(Metric::InnerProduct, 300, 2, 8), 50);
    let start = inserted(&race.parameters, &race.rows[..50]);
    let query = &race.rows[7];
    race.everywhere(
        &start,
        |store| {
            let limits = ann::hnsw::scan::Limits { ef_search: 1, ..WIDE };
            let probe = probe(race.parameters.metric, query);
            let (hits, dropped) = scan_all(store, &race.parameters.shape(), Some(probe), limits).expect("sound");
            assert_ordered(race.parameters.metric, query, &hits, |row| race.rows[row as usize].clone());
            let old = hits.iter().filter(|hit| id(hit.tid) < 50).count() as u64;
            assert!(old + dropped >= 50, "{old} rows that were there before, {dropped} dropped");
        },
        |store| {
            race.row(store, 50);
            seal(store).expect("sound");
            race.row(store, 51);
        },
        |store| race.assert_rows(store, 0..52),
    );
}

/// Lists with room for everybody: each row that was there links to both rows that raced, on both of its levels.
#[test]
fn no_back_link_is_overwritten() {
    let parameters = parameters(Metric::L2, 30, 6, 16);
    let shape = parameters.shape();
    let rows = Mixture::new(22, 30, 1).rows(6);
    // Numbers of rows that live on level 1 as well.
    let ids: Vec<u32> = (0..).filter(|&id| level_of(u64::from(id) << 20, 6) == 1).take(6).collect();
    let start = empty(&parameters);
    (0..4).for_each(|i| insert(&start, &parameters, ids[i], &rows[i]).expect("sound"));
    let mut old = Vec::new();
    each_segment(&start, &shape, |segment| segment.elements(|slot, _| old.push(slot))).expect("sound");
    let race = Race { parameters: parameters.clone(), rows: rows.clone(), base: 4 };
    race.everywhere(
        &start,
        |store| insert(store, &parameters, ids[4], &rows[4]).expect("sound"),
        |store| insert(store, &parameters, ids[5], &rows[5]).expect("sound"),
        |store| {
            let mut all = Vec::new();
            each_segment(store, &shape, |segment| segment.elements(|slot, _| all.push(slot))).expect("sound");
            assert_eq!(all.len(), 6);
            each_segment(store, &shape, |segment| {
                for &slot in &old {
                    let (mut ground, upper) = (Vec::new(), segment.upper(segment.record_at(slot, 1)?)?.2);
                    segment.neighbors(slot, &mut ground)?;
                    let others = || all.iter().copied().filter(|&other| other != slot);
                    assert!(
                        others().all(|other| ground.contains(&other)),
                        "element {slot} lost a neighbor: {ground:?}"
                    );
                    assert!(others().all(|other| upper.iter().any(|n| n.element == other)), "{slot}: {upper:?}");
                }
                Ok(())
            })
            .expect("sound");
        },
    );
}
