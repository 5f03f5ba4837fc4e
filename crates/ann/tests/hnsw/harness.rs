//! Making, changing and questioning an index in memory.

use ann::distance::Metric;
use ann::error::Result;
use ann::hnsw::build::{Graph, HeapArena, Stop, level_of};
use ann::hnsw::insert::NewRow;
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::hnsw::probe::{Probe, normalize};
use ann::hnsw::read::Segment;
use ann::hnsw::scan::{Hit, Limits, Scan};
use ann::hnsw::sweep::Swept;
use ann::index::{self, Backlog, Directory, Head, Parameters, Shapes};
use ann::keys::{Filter, Row};
use ann::memory::MemoryStore;
use ann::page::PageStore;
use ann::shape::{HeapTid, Shape};
use ann::sq8;
use std::collections::BTreeMap;
use std::time::Duration;

pub const METRICS: [Metric; 4] = [Metric::L2, Metric::InnerProduct, Metric::Cosine, Metric::L1];

/// Limits that never bind.
pub const WIDE: Limits = Limits { ef_search: 40, memory: 64 << 20, max_tuples: 0, probes: 0 };

pub fn parameters(metric: Metric, dimensions: usize, m: usize, ef_construction: usize) -> Parameters {
    Parameters {
        metric,
        dimensions,
        m,
        ef_construction,
        segment_rows: u64::MAX,
        recent_rows: 100_000,
        pending_rows: 0,
        lists: 0,
        recent_threshold: i64::MAX,
        partition_interval: i64::MAX,
        rerank: 0,
        keys: 0,
        age_key: None,
    }
}

/// The heap TID of row `id`.
pub fn tid(id: u32) -> HeapTid {
    HeapTid { block: id / 100, offset: (id % 100) as u16 + 1 }
}

/// The row of a heap TID; some row if the TID is none of ours.
pub fn id(tid: HeapTid) -> u32 {
    tid.block.wrapping_mul(100).wrapping_add(u32::from(tid.offset)).wrapping_sub(1)
}

pub fn empty(parameters: &Parameters) -> MemoryStore {
    let store = MemoryStore::new();
    index::empty_index(parameters, 0).iter().for_each(|page| {
        store.append(page);
    });
    store
}

pub fn probe(metric: Metric, query: &[f32]) -> Probe {
    Probe::new(metric, &normalize(metric, query).expect("no zero vectors"))
}

pub fn insert(store: &impl PageStore, parameters: &Parameters, row: u32, vector: &[f32]) -> Result<()> {
    insert_row(store, parameters, &Row::of_tid(tid(row)), vector, 0).map(|_| ())
}

/// Inserts a row of any keys at a time by the clock.
pub fn insert_row(
    store: &impl PageStore,
    parameters: &Parameters,
    row: &Row,
    vector: &[f32],
    now: i64,
) -> Result<Backlog> {
    let vector = normalize(parameters.metric, vector).expect("no zero vectors");
    let mut code = vec![0; vector.len()];
    let params = sq8::encode(&vector, &mut code);
    let probe = Probe::new(parameters.metric, &vector);
    let level = level_of(u64::from(id(row.tid)) << 20, parameters.m);
    index::insert(store, &NewRow { row: *row, params: &params, code: &code, probe: &probe, level }, now)
}

/// An index of inserted rows, numbered from 0.
pub fn inserted(parameters: &Parameters, rows: &[Vec<f32>]) -> MemoryStore {
    let store = empty(parameters);
    for (i, row) in rows.iter().enumerate() {
        insert(&store, parameters, i as u32, row).expect("sound");
    }
    store
}

/// Rows ready to be linked.
pub fn graph<'a>(
    parameters: &Parameters,
    rows: impl IntoIterator<Item = (u32, &'a Vec<f32>)>,
) -> (Graph<HeapArena>, ann::hnsw::layout::RowLists) {
    let mut arena = HeapArena;
    let mut gathered = Rows::<HeapArena>::new(parameters.dimensions, parameters.keys);
    let mut code = vec![0; parameters.dimensions];
    for (i, row) in rows {
        let row = normalize(parameters.metric, row).expect("no zero vectors");
        let params = sq8::encode(&row, &mut code);
        gathered.push(&mut arena, &params, &code, &Row::of_tid(tid(i))).expect("fits");
    }
    let (codes, lists) = gathered.finish();
    let graph = Graph::new(&mut arena, &parameters.shape(), parameters.ef_construction, codes, 7).expect("fits");
    (graph, lists)
}

/// An index of which all rows were built at once.
pub fn built<'a>(
    parameters: &Parameters,
    rows: impl IntoIterator<Item = (u32, &'a Vec<f32>)>,
    threads: usize,
) -> MemoryStore {
    let (graph, lists) = graph(parameters, rows);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let poll = |_| {
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    };
    graph.link_all((&pool, threads), &Stop::new(), poll).expect("not cancelled");
    let store = MemoryStore::new();
    let [meta, directory, _] = index::empty_index(parameters, 0);
    store.append(&meta);
    store.append(&directory);
    let blocks: Vec<u32> = (2..).take(pages_needed(&graph, &lists, &parameters.shape())).collect();
    write_segment(&graph, &lists, &parameters.shape(), (1, &blocks), &Head::new(0), |block, page| {
        assert_eq!(store.append(page), block, "pages come in order");
        Ok(())
    })
    .expect("fits");
    store
}

/// Numbers the rows of `rows` from 0.
pub fn numbered(rows: &[Vec<f32>]) -> impl Iterator<Item = (u32, &Vec<f32>)> {
    rows.iter().enumerate().map(|(i, row)| (i as u32, row))
}

pub fn each_segment<S: PageStore>(
    store: &S,
    shape: &Shape,
    mut visit: impl FnMut(Segment<S>) -> Result<()>,
) -> Result<()> {
    let shapes = Shapes { flat: shape.without_neighbors(), graph: *shape };
    for s in Directory::read(store)?.1.segments {
        visit(Segment { store, shape: shapes.of(s.kind), id: s.id, head: s.head })?;
    }
    Ok(())
}

pub fn vacuum(store: &impl PageStore, shape: &Shape, mut dead: impl FnMut(u32) -> bool) -> Result<Swept> {
    let mut sum = Swept::default();
    each_segment(store, shape, |segment| {
        let swept = segment.vacuum(|tid| dead(id(tid)), || ())?;
        sum.removed += swept.removed;
        sum.live += swept.live;
        sum.routers += swept.routers;
        Ok(())
    })?;
    Ok(sum)
}

pub fn seal(store: &impl PageStore) -> Result<()> {
    let (meta, directory) = Directory::read(store)?;
    index::seal(store, &meta, &directory, 1)
}

/// All hits of a scan, in order.
pub fn scan_all(
    store: &impl PageStore,
    shape: &Shape,
    probe: Option<Probe>,
    limits: Limits,
) -> Result<(Vec<Hit>, u64)> {
    let (_, directory) = Directory::read(store)?;
    let mut scan = Scan::new(probe, Filter::none(), &directory.segments, limits);
    let mut hits = Vec::new();
    let shapes = Shapes { flat: shape.without_neighbors(), graph: *shape };
    while let Some(hit) = scan.next(store, &shapes)? {
        hits.push(hit);
    }
    Ok((hits, scan.dropped()))
}

/// How often each row is in the index.
pub fn rows_of(store: &impl PageStore, shape: &Shape) -> BTreeMap<u32, u32> {
    let mut rows = BTreeMap::new();
    for hit in scan_all(store, shape, None, WIDE).expect("sound").0 {
        *rows.entry(id(hit.tid)).or_default() += 1;
    }
    rows
}

/// Every listed segment is sound, and its check sees the rows that a scan sees.
#[track_caller]
pub fn assert_sound(store: &impl PageStore, shape: &Shape) {
    let mut rows = Vec::new();
    each_segment(store, shape, |segment| {
        let problems = segment.check(&mut rows)?;
        assert!(problems.is_empty(), "segment {}: {problems:?}", segment.id);
        segment.count().map(|_| ())
    })
    .expect("readable");
    let mut checked = BTreeMap::new();
    rows.into_iter().for_each(|row| *checked.entry(id(row.tid)).or_default() += 1);
    assert_eq!(checked, rows_of(store, shape), "check and scan see different rows");
}

/// The SQL function, in f64.
pub fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
    let dot: f64 = pairs().map(|(x, y)| x * y).sum();
    match metric {
        Metric::L2 => pairs().map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt(),
        Metric::InnerProduct => -dot,
        Metric::L1 => pairs().map(|(x, y)| (x - y).abs()).sum(),
        Metric::Cosine => {
            let norms = pairs().map(|(x, _)| x * x).sum::<f64>() * pairs().map(|(_, y)| y * y).sum::<f64>();
            (1.0 - dot / norms.sqrt()).max(0.0)
        }
    }
}

/// Bounds never fall, none is above the distance of its row, and no row comes twice.
#[track_caller]
pub fn assert_ordered(metric: Metric, query: &[f32], hits: &[Hit], vector: impl Fn(u32) -> Vec<f32>) {
    let mut seen = std::collections::HashSet::new();
    for pair in hits.windows(2) {
        assert!(pair[0].bound <= pair[1].bound, "{metric:?}: a bound fell from {} to {}", pair[0].bound, pair[1].bound);
    }
    for hit in hits {
        let exact = distance(metric, query, &vector(id(hit.tid)));
        assert!(hit.bound <= exact, "{metric:?}: row {} has bound {} above {exact}", id(hit.tid), hit.bound);
        assert!(seen.insert(hit.tid), "row {} came twice", id(hit.tid));
    }
}
