//! Graphs out of an archive: the same as before where the rows are the same, as good as fresh ones where some are gone,
//! sound whatever the archive says.

use crate::data::{Rng, clustered, with_queries};
use crate::harness::*;
use crate::recall::{Table, fresh, recall};
use ann::distance::Metric;
use ann::error::{Error, Result};
use ann::hnsw::build::{Graph, HeapArena, Stop};
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::hnsw::probe::normalize;
use ann::index::{self, Directory, Head, Parameters};
use ann::ivf::kmeans::Work;
use ann::keys::{Keys, Row};
use ann::memory::MemoryStore;
use ann::relink::{
    Fingerprint, Fingerprints, Gathered, GraphElement, GraphHeader, GraphReader, Links, Mapping, Source, dead_elements,
    fingerprint,
};
use ann::sq8;
use proptest::prelude::*;
use std::time::Duration;

/// A graph as an archive has it.
#[derive(Clone, Debug, PartialEq)]
struct Archived {
    header: GraphHeader,
    elements: Vec<GraphElement>,
}

impl Archived {
    /// The first segment of an index.
    fn of(store: &MemoryStore, mut print: impl FnMut(&Row) -> Fingerprint) -> Self {
        let (meta, directory) = Directory::read(store).expect("sound");
        let reader = GraphReader::open(store, &meta, &directory.segments[0]).expect("sound");
        let mut elements = Vec::new();
        let read: Result<()> = reader.each(|e| {
            assert_eq!(e.ordinal as usize, elements.len());
            let rows = e.rows.iter().map(&mut print).collect();
            elements.push(GraphElement { level: e.level, rows, neighbors: e.neighbors });
            Ok(())
        });
        read.expect("sound");
        let dead = (0u32..).zip(&elements).filter(|(_, e)| e.rows.is_empty()).map(|(ordinal, _)| ordinal).collect();
        let counted = dead_elements(store, &meta, &directory.segments[0]).expect("sound");
        assert_eq!(counted, (elements.len() as u32, dead));
        Self { header: reader.header(), elements }
    }

    fn source(&self) -> Source<'_, GraphElement> {
        Box::new(|visit| (0..).zip(&self.elements).try_for_each(|(ordinal, element)| visit(ordinal, element.clone())))
    }
}

fn no_keys(vector: &[f32]) -> Fingerprint {
    fingerprint(vector, &Keys::default())
}

/// An index whose first segment is the archived graph with those rows of the table that it knows; the others are inserted.
/// How many are linked, too.
fn import(
    parameters: &Parameters,
    archived: &Archived,
    table: impl IntoIterator<Item = (Row, Vec<f32>)>,
) -> Result<(MemoryStore, usize)> {
    let (shape, mut arena) = (parameters.shape(), HeapArena);
    let mut prints = Fingerprints::default();
    for (ordinal, element) in (0..).zip(&archived.elements) {
        element.rows.iter().for_each(|print| prints.add(0, ordinal, *print).expect("room"));
    }
    prints.sort().expect("room");
    let mut gathered = Gathered::<HeapArena>::new(parameters.dimensions, parameters.keys);
    let (mut code, mut rest) = (vec![0; parameters.dimensions], Vec::new());
    for (row, vector) in table {
        if prints.claim(&fingerprint(&vector, &row.keys), gathered.len() as u32) {
            let params = sq8::encode(&normalize(parameters.metric, &vector).expect("no zero vectors"), &mut code);
            gathered.push(&mut arena, &params, &code, &row)?;
        } else {
            rest.push((row, vector));
        }
    }
    let linked = gathered.len();
    let links = Links::read(&mut arena, &shape, &archived.header, &mut archived.source())?;
    let (rows, mapping): (Rows<HeapArena>, Mapping) =
        gathered.segment(&prints.finish(), archived.header.elements, &mut arena)?;
    let (codes, lists) = rows.finish();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let mut poll = |_| {
        std::thread::sleep(Duration::from_micros(100));
        Ok(())
    };
    let mut work = Work { pool: &pool, threads: 2, stop: &Stop::new(), poll: &mut poll };
    let settings = (&shape, parameters.ef_construction, 7);
    let graph = Graph::from_structure(&mut arena, settings, codes, (&links, &mapping), &mut work)?;
    let store = MemoryStore::new();
    index::empty_index(parameters, 0)[..2].iter().for_each(|page| _ = store.append(page));
    let blocks: Vec<u32> = (2..).take(pages_needed(&graph, &lists, &shape)).collect();
    write_segment(&graph, &lists, &shape, (1, &blocks), &Head::new(0), |_, page| {
        store.append(page);
        Ok(())
    })?;
    for (row, vector) in rest {
        insert_row(&store, parameters, &row, &vector, 0)?;
    }
    Ok((store, linked))
}

/// Rows of another table: the same vectors elsewhere.
fn moved(rows: &[Vec<f32>], keep: impl Fn(usize) -> bool) -> Vec<(Row, Vec<f32>)> {
    let kept = rows.iter().enumerate().filter(|(i, _)| keep(*i));
    let moved = kept.map(|(i, row)| (Row::of_tid(tid((rows.len() - i) as u32 + 7000)), row.clone()));
    moved.rev().collect()
}

fn unreachable(store: &MemoryStore, parameters: &Parameters) -> u64 {
    let mut sum = 0;
    each_segment(store, &parameters.shape(), |segment| {
        sum += segment.count()?.unreachable;
        Ok(())
    })
    .expect("sound");
    sum
}

#[test]
fn a_graph_comes_back_as_it_was() {
    for metric in METRICS {
        let parameters = parameters(metric, 12, 6, 32);
        let rows = clustered(11, 1500, 12);
        for store in [built(&parameters, numbered(&rows), 2), inserted(&parameters, &rows)] {
            let archived = Archived::of(&store, |row| no_keys(&rows[id(row.tid) as usize]));
            assert_eq!(archived, Archived::of(&store, |row| no_keys(&rows[id(row.tid) as usize])), "read twice");
            let (again, linked) = import(&parameters, &archived, moved(&rows, |_| true)).expect("sound");
            assert_eq!(linked, rows.len());
            assert_sound(&again, &parameters.shape());
            let back = |row: u32| rows.len() - (row as usize - 7000);
            let after = Archived::of(&again, |row| no_keys(&rows[back(id(row.tid))]));
            // What nothing led to is linked now.
            if unreachable(&store, &parameters) == 0 {
                assert_eq!(after, archived, "{metric:?}");
            }
            for query in clustered(12, 20, 12) {
                let top = |store: &MemoryStore| {
                    let hits =
                        scan_all(store, &parameters.shape(), Some(probe(metric, &query)), WIDE).expect("sound").0;
                    hits.into_iter().map(|hit| (hit.bound, id(hit.tid))).take(100).collect::<Vec<_>>()
                };
                let mapped = top(&again).into_iter().map(|(bound, row)| (bound, back(row) as u32));
                assert_eq!(mapped.collect::<Vec<_>>(), top(&store), "{metric:?}");
            }
        }
    }
}

#[test]
fn ordinals_and_links_stay_when_rows_die() {
    let parameters = parameters(Metric::L2, 8, 4, 16);
    let rows = clustered(13, 700, 8);
    let store = inserted(&parameters, &rows);
    seal(&store).expect("sound");
    let print = |row: &Row| no_keys(&rows[id(row.tid) as usize]);
    let before = Archived::of(&store, print);
    vacuum(&store, &parameters.shape(), |row| row % 3 == 0).expect("sound");
    let after = Archived::of(&store, print);
    assert_eq!(before.header, after.header);
    for (before, after) in before.elements.iter().zip(&after.elements) {
        assert_eq!((before.level, &before.neighbors), (after.level, &after.neighbors));
        assert!(after.rows.is_empty() || after.rows == before.rows);
    }
    assert!(after.elements.iter().any(|e| e.rows.is_empty()));
}

/// Equal vectors share an element; with other keys they are other rows. Rows that the archive has once too often stay
/// away, rows that it lacks are inserted.
#[test]
fn equal_rows_are_counted() {
    let parameters = Parameters { keys: 1, ..parameters(Metric::Cosine, 9, 4, 16) };
    let vectors = clustered(14, 60, 9);
    let row = |i: u32| {
        let keys = Keys::new(&[if i.is_multiple_of(5) { None } else { Some(i64::from(i % 4)) }]);
        (Row { tid: tid(i), keys }, vectors[i as usize % 60].clone())
    };
    let store = empty(&parameters);
    for i in 0..600 {
        let (row, vector) = row(i);
        insert_row(&store, &parameters, &row, &vector, 0).expect("sound");
    }
    let archived = Archived::of(&store, |of| fingerprint(&row(id(of.tid)).1, &of.keys));
    assert_eq!(archived.elements.len(), 60);
    assert_eq!(archived.elements.iter().map(|e| e.rows.len()).sum::<usize>(), 600);
    vacuum(&store, &parameters.shape(), |row| row % 60 < 5 || row % 60 == 7 && row > 7).expect("sound");
    let after = Archived::of(&store, |of| fingerprint(&row(id(of.tid)).1, &of.keys));
    assert_eq!(after.elements.iter().filter(|e| e.rows.is_empty()).count(), 5, "elements with rows apart, too");
    // Rows 0 to 99 are gone; 600 to 699 are equal to some that are there.
    let table = (100..700).rev().map(row);
    let (again, linked) = import(&parameters, &archived, table).expect("sound");
    assert_eq!(linked, 600, "i + 600 has the vector and the keys of i");
    assert_sound(&again, &parameters.shape());
    assert!(rows_of(&again, &parameters.shape()).into_iter().eq((100..700).map(|row| (row, 1))));
    // The same vectors under other keys are unknown.
    let table = (0..600).map(|i| (Row { keys: Keys::new(&[Some(9)]), ..row(i).0 }, row(i).1));
    let (again, linked) = import(&parameters, &archived, table).expect("sound");
    assert_eq!(linked, 0);
    assert_sound(&again, &parameters.shape());
    assert!(rows_of(&again, &parameters.shape()).into_iter().eq((0..600).map(|row| (row, 1))));
}

/// Two elements with one code become one, however their rows came about.
#[test]
fn elements_that_are_one_today_become_one() {
    let parameters = parameters(Metric::L2, 6, 3, 16);
    let rows = clustered(15, 300, 6);
    let store = built(&parameters, numbered(&rows), 1);
    let mut archived = Archived::of(&store, |row| no_keys(&rows[id(row.tid) as usize]));
    // A third of the elements claim to be rows of their neighbor in the order.
    for i in (0..297).step_by(3) {
        archived.elements[i].rows = archived.elements[i + 1].rows.clone();
    }
    let mut table: Vec<(Row, Vec<f32>)> = numbered(&rows).map(|(i, row)| (Row::of_tid(tid(i)), row.clone())).collect();
    table.extend(numbered(&rows).map(|(i, row)| (Row::of_tid(tid(i + 1000)), row.clone())));
    let (again, linked) = import(&parameters, &archived, table).expect("sound");
    assert_eq!(linked, 300);
    assert_sound(&again, &parameters.shape());
    // Inserts cut off some, at m = 3.
    assert!(unreachable(&again, &parameters) * 50 < 300);
    assert!(rows_of(&again, &parameters.shape()).into_iter().eq((0..300).chain(1000..1300).map(|row| (row, 1))));
}

/// Graphs differ by up to 0.01 among themselves, at this width of search.
#[test]
fn recall_stays_when_elements_are_dropped() {
    for metric in METRICS {
        let parameters = parameters(metric, 16, 8, 40);
        let (rows, queries) = with_queries(43, 6000, 16, 200);
        let store = built(&parameters, numbered(&rows), 1);
        let archived = Archived::of(&store, |row| no_keys(&rows[id(row.tid) as usize]));
        for percent in [1, 30, 60, 90] {
            let mut rng = Rng::new(percent);
            let kept: Vec<bool> = rows.iter().map(|_| rng.below(100) >= percent as usize).collect();
            let table: Table =
                numbered(&rows).filter(|(i, _)| kept[*i as usize]).map(|(i, row)| (i, row.clone())).collect();
            let imported = table.iter().map(|(&i, row)| (Row::of_tid(tid(i)), row.clone()));
            let (again, linked) = import(&parameters, &archived, imported).expect("sound");
            assert_eq!(linked, table.len());
            assert_sound(&again, &parameters.shape());
            // So narrow that the graph is walked: 64 times as many elements would be read whole.
            let ef = (table.len() / 70).clamp(8, 20);
            let fresh = fresh(&parameters, &table);
            let [imported, built] = [&again, &fresh].map(|store| recall(store, &parameters, &table, &queries, ef));
            let [out, usual] = [&again, &fresh].map(|store| unreachable(store, &parameters));
            println!(
                "{metric:?}, {percent} % dropped: recall {imported:.4}, of a build {built:.4}; \
                 {out} of {} out of reach, of a build {usual}",
                table.len()
            );
            assert!(imported > built - 0.02, "{metric:?}, {percent} % dropped: {imported}, of a build {built}");
            assert!(
                out * 4 <= usual * 5 + table.len() as u64 / 100,
                "{metric:?}, {percent} % dropped: {out} out of reach, of a build {usual}"
            );
        }
    }
}

#[test]
fn of_an_archive_without_a_known_row_nothing_is_left() {
    let parameters = parameters(Metric::L2, 5, 4, 16);
    let rows = clustered(16, 200, 5);
    let store = built(&parameters, numbered(&rows), 1);
    let archived = Archived::of(&store, |_| [0; 16]);
    let (again, linked) = import(&parameters, &archived, moved(&rows, |_| true)).expect("sound");
    assert_eq!(linked, 0);
    assert_sound(&again, &parameters.shape());
    let nothing = Archived { header: GraphHeader { elements: 0, m: 4, entry: None }, elements: Vec::new() };
    assert_sound(&import(&parameters, &nothing, moved(&rows, |_| true)).expect("sound").0, &parameters.shape());
}

/// One way to damage an archive.
#[derive(Clone, Debug)]
enum Damage {
    Entry(Option<u32>),
    Elements(u32),
    M(u16),
    Level(usize, u8),
    /// An element's list at a level becomes this.
    List(usize, usize, Vec<u32>),
    /// Empties all lists.
    Cut,
    /// All lists lead to one element.
    Star(u32),
    Swap(usize, usize),
    Rows(usize, usize),
    /// An element goes.
    Remove(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let n = 130usize;
    let any = 0..140u32;
    prop_oneof![
        proptest::option::of(any.clone()).prop_map(Damage::Entry),
        prop_oneof![Just(0), Just(u32::MAX), any.clone()].prop_map(Damage::Elements),
        (0..9u16).prop_map(Damage::M),
        (0..n, 0..20u8).prop_map(|(i, level)| Damage::Level(i, level)),
        (0..n, 0..3usize, proptest::collection::vec(any.clone(), 0..10))
            .prop_map(|(i, l, list)| Damage::List(i, l, list)),
        Just(Damage::Cut),
        any.prop_map(Damage::Star),
        (0..n, 0..n).prop_map(|(a, b)| Damage::Swap(a, b)),
        (0..n, 0..n).prop_map(|(a, b)| Damage::Rows(a, b)),
        (0..n).prop_map(Damage::Remove),
    ]
}

fn apply(archived: &mut Archived, damage: Damage) {
    let n = archived.elements.len();
    match damage {
        Damage::Entry(entry) => archived.header.entry = entry,
        Damage::Elements(elements) => archived.header.elements = elements,
        Damage::M(m) => archived.header.m = m,
        Damage::Level(i, level) => {
            // Half of the time the lists go with the level.
            if level.is_multiple_of(2) {
                archived.elements[i % n].neighbors.resize(usize::from(level) + 1, Vec::new());
            }
            archived.elements[i % n].level = level;
        }
        Damage::List(i, level, list) => {
            let lists = &mut archived.elements[i % n].neighbors;
            let level = level.min(lists.len().saturating_sub(1));
            lists.get_mut(level).into_iter().for_each(|to| *to = list.clone());
        }
        Damage::Cut => archived.elements.iter_mut().flat_map(|e| &mut e.neighbors).for_each(Vec::clear),
        Damage::Star(to) => {
            let lists = archived.elements.iter_mut().enumerate().filter(|(i, _)| *i != to as usize);
            lists.for_each(|(_, e)| e.neighbors.iter_mut().for_each(|list| *list = vec![to]));
        }
        Damage::Swap(a, b) => archived.elements.swap(a % n, b % n),
        Damage::Rows(a, b) => archived.elements[a % n].rows = archived.elements[b % n].rows.clone(),
        Damage::Remove(i) => _ = archived.elements.remove(i % n),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an archive says, it is refused, or the index is sound and has its rows, nearly all within reach.
    #[test]
    fn a_hostile_graph_is_refused_or_made_sound(
        damages in proptest::collection::vec(damage(), 1..4),
        drop in 0..4usize,
    ) {
        let parameters = parameters(Metric::L2, 4, 3, 12);
        let rows = clustered(17, 130, 4);
        let store = built(&parameters, numbered(&rows), 1);
        let mut archived = Archived::of(&store, |row| no_keys(&rows[id(row.tid) as usize]));
        damages.into_iter().for_each(|damage| apply(&mut archived, damage));
        let table = moved(&rows, |i| drop == 0 || i % (drop + 1) > 0);
        let expected: Vec<(u32, u32)> = {
            let mut ids: Vec<u32> = table.iter().map(|(row, _)| id(row.tid)).collect();
            ids.sort_unstable();
            ids.into_iter().map(|row| (row, 1)).collect()
        };
        match import(&parameters, &archived, table) {
            Err(Error::Structure(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok((store, _)) => {
                assert_sound(&store, &parameters.shape());
                let rows = expected.len();
                prop_assert!(rows_of(&store, &parameters.shape()).into_iter().eq(expected));
                // At m = 3 an insert may cut off others, as in any graph.
                prop_assert!(unreachable(&store, &parameters) * 20 <= rows as u64);
            }
        }
    }
}
