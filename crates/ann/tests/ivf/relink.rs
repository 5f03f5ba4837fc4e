//! Lists out of an archive: the same as before where the rows are the same, as good as fresh ones where some are gone,
//! sound whatever the archive says.

use crate::data::{Rng, clustered, with_queries};
use crate::harness::*;
use crate::recall::recall;
use ann::distance::Metric;
use ann::error::{Error, Result};
use ann::hnsw::build::{HeapArena, Stop};
use ann::hnsw::probe::normalize;
use ann::hnsw::scan::Limits;
use ann::index::{Directory, Parameters};
use ann::ivf::kmeans::Work;
use ann::ivf::write::Plan;
use ann::keys::{Filter, Keys};
use ann::memory::MemoryStore;
use ann::relink::{
    CentroidCodes, Fingerprints, Gathered, ListElement, ListsHeader, ListsReader, Source, assignment, dead_elements,
    each_list_row, fingerprint,
};
use ann::sq8;
use proptest::prelude::*;
use std::time::Duration;

/// Lists as an archive has them.
#[derive(Clone, Debug, PartialEq)]
struct Archived {
    header: ListsHeader,
    centroids: CentroidCodes,
    elements: Vec<ListElement>,
}

impl Archived {
    /// The first segment of an index of these rows.
    fn of(store: &MemoryStore, rows: &[TableRow]) -> Self {
        let (meta, directory) = Directory::read(store).expect("sound");
        let reader = ListsReader::open(store, &meta, &directory.segments[0]).expect("sound");
        let mut elements = Vec::new();
        let read: Result<()> = reader.each(|e| {
            assert_eq!(e.ordinal as usize, elements.len());
            let print = |id: u32| {
                let row = &rows[rows.partition_point(|row| row.id < id)];
                fingerprint(&row.vector, &row.keys)
            };
            let rows = e.rows.iter().map(|row| print(id(row.tid))).collect();
            elements.push(ListElement { list: e.list, second: e.second, rows, further: false });
            Ok(())
        });
        read.expect("sound");
        let dead = (0u32..).zip(&elements).filter(|(_, e)| e.rows.is_empty()).map(|(ordinal, _)| ordinal).collect();
        let counted = dead_elements(store, &meta, &directory.segments[0]).expect("sound");
        assert_eq!(counted, (elements.len() as u32, dead));
        Self { header: reader.header(), centroids: reader.centroids().expect("sound"), elements }
    }

    fn source(&self) -> Source<'_, ListElement> {
        Box::new(|visit| (0..).zip(&self.elements).try_for_each(|(ordinal, element)| visit(ordinal, element.clone())))
    }
}

/// An index of one segment: the archived one with those rows of the table that it knows. Which these are, too.
fn import(parameters: &Parameters, archived: &Archived, table: &[TableRow]) -> Result<(MemoryStore, Vec<TableRow>)> {
    let (shape, mut arena) = (parameters.shapes().flat, HeapArena);
    let mut prints = Fingerprints::default();
    each_list_row(&archived.header, &shape, &archived.centroids, &mut archived.source(), |ordinal, rows| {
        rows.iter().try_for_each(|print| prints.add(0, ordinal, *print))
    })?;
    prints.sort()?;
    let mut gathered = Gathered::<HeapArena>::new(parameters.dimensions, parameters.keys);
    let (mut code, mut known) = (vec![0; parameters.dimensions], Vec::new());
    for row in table {
        if prints.claim(&fingerprint(&row.vector, &row.keys), gathered.len() as u32) {
            let params = sq8::encode(&normalize(parameters.metric, &row.vector).expect("no zero vectors"), &mut code);
            gathered.push(&mut arena, &params, &code, &row.row())?;
            known.push(row.clone());
        }
    }
    known.sort_by_key(|row| row.id);
    let (rows, mapping) = gathered.segment(&prints.finish(), archived.header.elements, &mut arena)?;
    let assigned = assignment(&archived.header, &mut archived.source(), &mapping)?;
    let (codes, lists) = rows.finish();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let mut poll = |_| {
        std::thread::sleep(Duration::from_micros(100));
        Ok(())
    };
    let mut work = Work { pool: &pool, threads: 2, stop: &Stop::new(), poll: &mut poll };
    let plan = Plan::from_structure((&codes, &lists, &shape), &archived.centroids, assigned, &mut work)?;
    let store = empty(parameters);
    add_plan(&store, &plan, &mut work);
    Ok((store, known))
}

/// The same rows at other places.
fn moved(rows: &[TableRow], keep: impl Fn(usize) -> bool) -> Vec<TableRow> {
    let kept = rows.iter().enumerate().filter(|(i, _)| keep(*i)).rev();
    kept.map(|(i, row)| TableRow { id: 9000 - i as u32, ..row.clone() }).collect()
}

#[test]
fn lists_come_back_as_they_were() {
    for (metric, keys) in METRICS.into_iter().zip([0, 1, 2, 0]) {
        let parameters = parameters(metric, 24, keys);
        let mut rows = table(0, clustered(31, 1500, 24));
        rows.iter_mut().for_each(|row| row.keys = Keys::new(&[Some(i64::from(row.id % 7)), None][..keys]));
        // Several rows an element, of different keys.
        (1200..1500).for_each(|i| rows[i].vector = rows[i - 1200].vector.clone());
        let store = empty(&parameters);
        add_ivf(&store, &parameters, &rows, 0);
        let archived = Archived::of(&store, &rows);
        assert_eq!(archived, Archived::of(&store, &rows), "read twice");
        assert_eq!(archived.elements.iter().any(|e| e.second.is_some()), metric != Metric::L1);
        let table = moved(&rows, |_| true);
        let (again, known) = import(&parameters, &archived, &table).expect("sound");
        assert_eq!(known.len(), rows.len());
        assert_sound(&again);
        let after = Archived::of(&again, &known);
        assert_eq!((after.header, &after.centroids), (archived.header, &archived.centroids), "{metric:?}");
        for (before, after) in archived.elements.iter().zip(&after.elements) {
            let sorted = |element: &ListElement| {
                let mut rows = element.rows.clone();
                rows.sort_unstable();
                rows
            };
            assert_eq!((before.list, before.second, sorted(before)), (after.list, after.second, sorted(after)));
        }
        for query in clustered(32, 20, 24) {
            let top = |store: &MemoryStore| {
                let hits = scan_all(store, Some(&query), &Filter::none(), WIDE).expect("sound").0;
                hits.into_iter().map(|hit| hit.bound).take(60).collect::<Vec<_>>()
            };
            assert_eq!(top(&again), top(&store), "{metric:?}");
        }
    }
}

#[test]
fn lists_stay_when_rows_die() {
    let parameters = parameters(Metric::L2, 16, 0);
    let rows = table(0, clustered(33, 900, 16));
    let store = empty(&parameters);
    add_ivf(&store, &parameters, &rows, 12);
    let before = Archived::of(&store, &rows);
    vacuum(&store, |row| row % 3 == 0).expect("sound");
    let after = Archived::of(&store, &rows);
    assert_eq!((before.header, &before.centroids), (after.header, &after.centroids));
    for (before, after) in before.elements.iter().zip(&after.elements) {
        assert_eq!((before.list, before.second), (after.list, after.second));
        assert!(after.rows.is_empty() || after.rows == before.rows);
    }
    assert!(after.elements.iter().any(|e| e.rows.is_empty()));
}

#[test]
fn recall_of_lists_stays_when_elements_are_dropped() {
    let parameters = parameters(Metric::Cosine, 48, 0);
    let (vectors, queries) = with_queries(44, 6000, 48, 60);
    let rows = table(0, vectors);
    let store = empty(&parameters);
    add_ivf(&store, &parameters, &rows, 0);
    let archived = Archived::of(&store, &rows);
    for percent in [1, 30, 90] {
        let mut rng = Rng::new(percent);
        let table: Vec<TableRow> = rows.iter().filter(|_| rng.below(100) >= percent as usize).cloned().collect();
        let (again, known) = import(&parameters, &archived, &table).expect("sound");
        assert_eq!(known.len(), table.len());
        assert_sound(&again);
        let fresh = empty(&parameters);
        add_ivf(&fresh, &parameters, &table, 0);
        let [imported, fresh] = [&again, &fresh].map(|store| recall(store, &table, &queries, &Filter::none(), WIDE));
        println!("{percent} % dropped: {imported:.3}, fresh {fresh:.3}");
        assert!(imported > fresh - 0.02, "{percent} % dropped: {imported}, fresh {fresh}");
    }
}

/// Values at which arithmetic goes wrong.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(f32::NAN),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
        Just(f32::MAX),
        Just(f32::MIN),
        Just(1e30),
        Just(-1e30),
        Just(1e-45),
        Just(0.0),
        Just(-1.0),
        -10f32..10.0,
    ]
}

#[derive(Clone, Debug)]
enum Damage {
    Elements(u32),
    Lists(u32),
    Dimensions(u16),
    Centroid(usize, f32, f32, u8),
    Lose,
    Assign(usize, u32, Option<u32>),
    All(u32, Option<u32>),
    Rows(usize, usize),
    Further(usize),
    Remove(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let n = 150usize;
    let list = || prop_oneof![0..9u32, Just(u32::MAX), Just(1000u32)];
    prop_oneof![
        prop_oneof![Just(0), Just(u32::MAX), 0..160u32].prop_map(Damage::Elements),
        list().prop_map(Damage::Lists),
        (0..9u16).prop_map(Damage::Dimensions),
        (0..7usize, number(), number(), any::<u8>()).prop_map(|(i, a, b, c)| Damage::Centroid(i, a, b, c)),
        Just(Damage::Lose),
        (0..n, list(), proptest::option::of(list())).prop_map(|(i, a, b)| Damage::Assign(i, a, b)),
        (list(), proptest::option::of(list())).prop_map(|(a, b)| Damage::All(a, b)),
        (0..n, 0..n).prop_map(|(a, b)| Damage::Rows(a, b)),
        (0..n).prop_map(Damage::Further),
        (0..n).prop_map(Damage::Remove),
    ]
}

fn apply(archived: &mut Archived, damage: Damage) {
    let n = archived.elements.len();
    match damage {
        Damage::Elements(elements) => archived.header.elements = elements,
        Damage::Lists(lists) => archived.header.lists = lists,
        Damage::Dimensions(dimensions) => archived.header.dimensions = dimensions,
        Damage::Centroid(at, scale, offset, byte) => {
            let mut changed = CentroidCodes::new(archived.centroids.dimensions());
            for i in 0..archived.centroids.len() {
                let (own_scale, own_offset, code) = archived.centroids.get(i);
                match i == at {
                    true => changed.push(scale, offset, &vec![byte; code.len()]),
                    false => changed.push(own_scale, own_offset, code),
                }
            }
            archived.centroids = changed;
        }
        Damage::Lose => archived.centroids = CentroidCodes::new(archived.centroids.dimensions()),
        Damage::Assign(i, list, second) => {
            archived.elements[i % n].list = list;
            archived.elements[i % n].second = second;
        }
        Damage::All(list, second) => archived.elements.iter_mut().for_each(|e| (e.list, e.second) = (list, second)),
        Damage::Rows(a, b) => archived.elements[a % n].rows = archived.elements[b % n].rows.clone(),
        Damage::Further(i) => archived.elements[i % n].further = true,
        Damage::Remove(i) => _ = archived.elements.remove(i % n),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an archive says, it is refused, or the index is sound, and a scan to the end returns all rows.
    #[test]
    fn hostile_lists_are_refused_or_made_sound(
        damages in proptest::collection::vec(damage(), 1..4),
        metric in 0..4usize,
        drop in 0..3usize,
    ) {
        let parameters = parameters(METRICS[metric], 6, 0);
        let rows = table(0, clustered(34, 150, 6));
        let store = empty(&parameters);
        add_ivf(&store, &parameters, &rows, 7);
        let mut archived = Archived::of(&store, &rows);
        damages.into_iter().for_each(|damage| apply(&mut archived, damage));
        match import(&parameters, &archived, &moved(&rows, |i| drop == 0 || i % (drop + 1) > 0)) {
            Err(Error::Structure(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok((store, known)) => {
                assert_sound(&store);
                for query in clustered(35, 3, 6) {
                    assert_complete(&store, &known, &query, &Filter::none(), WIDE);
                    assert_complete(&store, &known, &query, &Filter::none(), Limits { probes: 1, ..WIDE });
                }
            }
        }
    }
}

#[test]
fn centroids_from_values_are_those_values() {
    let rows = clustered(36, 20, 30);
    let values: Vec<f32> = rows.iter().flatten().copied().collect();
    let centroids = CentroidCodes::from_values(&values, 30).expect("finite");
    let again = CentroidCodes::from_values(&centroids.values(), 30).expect("finite");
    let off = |a: &CentroidCodes, b: &[f32]| a.values().iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(off(&centroids, &values) < 0.05 && off(&again, &centroids.values()) < 1e-5);
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(CentroidCodes::from_values(&[bad, 1.0], 2).is_err());
    }
    assert!(CentroidCodes::from_values(&[1.0; 3], 2).is_err());
}
