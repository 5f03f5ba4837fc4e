//! Making and questioning an index with IVF segments in memory.

use ann::distance::Metric;
use ann::error::Result;
use ann::hnsw::build::{HeapArena, Stop, level_of};
use ann::hnsw::insert::{NewRow, Outcome};
use ann::hnsw::layout::Rows;
use ann::hnsw::probe::{Probe, normalize};
use ann::hnsw::read::Segment;
use ann::hnsw::scan::{Hit, Limits, Scan};
use ann::index::{self, Directory, Head, Meta, Parameters, SegmentEntry, SegmentKind, chain_index};
use ann::ivf::kmeans::Work;
use ann::ivf::write::Plan;
use ann::keys::{Filter, Keys, Row};
use ann::memory::MemoryStore;
use ann::page::{Kind, META_BLOCK, NONE, Page, PageStore, Tag, Unit};
use ann::shape::{HeapTid, NewElement};
use ann::sq8;
use std::collections::BTreeMap;
use std::time::Duration;

pub const METRICS: [Metric; 4] = [Metric::L2, Metric::InnerProduct, Metric::Cosine, Metric::L1];

/// Reads lists in several rounds, and keeps so little that reading everything takes several passes.
pub const NARROW: Limits = Limits { ef_search: 1, memory: 0, max_tuples: 0, probes: 1 };
/// What a server would allow.
pub const WIDE: Limits = Limits { ef_search: 40, memory: 64 << 20, max_tuples: 0, probes: 0 };

pub fn parameters(metric: Metric, dimensions: usize, keys: usize) -> Parameters {
    Parameters {
        metric,
        dimensions,
        m: 4,
        ef_construction: 16,
        segment_rows: u64::MAX,
        recent_rows: 0,
        pending_rows: 0,
        lists: 0,
        recent_threshold: 0,
        partition_interval: i64::MAX,
        rerank: 0,
        keys,
        age_key: None,
    }
}

/// A row of the table; its number is its heap TID.
#[derive(Clone)]
pub struct TableRow {
    pub id: u32,
    pub vector: Vec<f32>,
    pub keys: Keys,
}

impl TableRow {
    pub fn row(&self) -> Row {
        Row { tid: tid(self.id), keys: self.keys }
    }
}

/// Rows numbered from `first` on, without keys.
pub fn table(first: u32, vectors: Vec<Vec<f32>>) -> Vec<TableRow> {
    (first..).zip(vectors).map(|(id, vector)| TableRow { id, vector, keys: Keys::default() }).collect()
}

pub fn tid(id: u32) -> HeapTid {
    HeapTid { block: id / 100, offset: (id % 100) as u16 + 1 }
}

/// The row of a heap TID; some row if the TID is none of ours.
pub fn id(tid: HeapTid) -> u32 {
    tid.block.wrapping_mul(100).wrapping_add(u32::from(tid.offset)).wrapping_sub(1)
}

pub fn probe(metric: Metric, query: &[f32]) -> Probe {
    Probe::of_query(metric, query).expect("no zero vectors")
}

/// An index with an empty graph.
pub fn empty(parameters: &Parameters) -> MemoryStore {
    let store = MemoryStore::new();
    index::empty_index(parameters, 0).iter().for_each(|page| _ = store.append(page));
    store
}

fn write(store: &MemoryStore, block: u32, change: impl FnOnce(&mut Page)) {
    let mut unit = store.unit();
    change(unit.page(block).expect("in range"));
    unit.commit().expect("not stopped");
}

/// Lists a segment that `make` writes, given its id; it returns the head page.
fn add(store: &MemoryStore, kind: SegmentKind, make: impl FnOnce(u32) -> u32) -> SegmentEntry {
    let (mut meta, mut directory) = Directory::read(store).expect("sound");
    let id = meta.next_segment;
    let entry = SegmentEntry { id, kind, active: false, head: make(id), created: 0 };
    directory.segments.insert(0, entry);
    meta.next_segment += 1;
    meta.generation += 1;
    directory.generation += 1;
    write(store, meta.root, |page| directory.encode(page));
    write(store, META_BLOCK, |page| meta.encode(page));
    entry
}

/// Takes a segment out of the directory; its pages stay.
pub fn unlist(store: &MemoryStore, id: u32) {
    let (mut meta, mut directory) = Directory::read(store).expect("sound");
    directory.segments.retain(|s| s.id != id);
    meta.generation += 1;
    directory.generation += 1;
    write(store, meta.root, |page| directory.encode(page));
    write(store, META_BLOCK, |page| meta.encode(page));
}

fn encode(parameters: &Parameters, vector: &[f32]) -> (Vec<f32>, Vec<u8>, sq8::Params) {
    let vector = normalize(parameters.metric, vector).expect("no zero vectors").into_owned();
    let mut code = vec![0; vector.len()];
    let params = sq8::encode(&vector, &mut code);
    (vector, code, params)
}

/// Adds an IVF segment, whose pages lie among others.
pub fn add_ivf(store: &MemoryStore, parameters: &Parameters, rows: &[TableRow], lists: u32) -> SegmentEntry {
    let (mut arena, shape) = (HeapArena, *parameters.shapes().of(SegmentKind::Ivf));
    let mut gathered = Rows::<HeapArena>::new(parameters.dimensions, parameters.keys);
    for row in rows {
        let (_, code, params) = encode(parameters, &row.vector);
        gathered.push(&mut arena, &params, &code, &row.row()).expect("fits");
    }
    let (codes, row_lists) = gathered.finish();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let mut poll = |_| {
        std::thread::sleep(Duration::from_micros(100));
        Ok(())
    };
    let mut work = Work { pool: &pool, threads: 2, stop: &Stop::new(), poll: &mut poll };
    let plan = Plan::new((&codes, &row_lists, &shape), lists, 5, &mut work).expect("not stopped");
    add_plan(store, &plan, &mut work)
}

/// Adds the segment of a plan, whose pages lie among others.
pub fn add_plan(store: &MemoryStore, plan: &Plan<HeapArena>, work: &mut Work) -> SegmentEntry {
    let start = store.block_count();
    // Every third block is somebody else's.
    let blocks: Vec<u32> = (start..).filter(|block| block % 3 > 0).take(plan.pages_needed()).collect();
    add(store, SegmentKind::Ivf, |id| {
        plan.write((id, &blocks), &Head::new(0), work, |block, page| {
            while store.block_count() < block {
                store.append(&Page::zeroed());
            }
            assert_eq!(store.append(page), block, "pages come in order");
            Ok(())
        })
        .expect("not stopped");
        blocks[0]
    })
}

/// Adds a sealed pending list.
pub fn add_pending(store: &MemoryStore, parameters: &Parameters, rows: &[TableRow]) -> SegmentEntry {
    let shape = *parameters.shapes().of(SegmentKind::Pending);
    assert_eq!(shape.tails, 0);
    add(store, SegmentKind::Pending, |id| {
        let mut head = Head { active: false, summary: None, ..Head::new(0) };
        let block = store.append(&Page::zeroed());
        let per_page = shape.element.per_page as usize;
        for (i, rows) in rows.chunks(per_page).enumerate() {
            let mut page = Page::zeroed();
            let here = block + 1 + i as u32;
            let next = if (i + 1) * per_page < rows.len() { here + 1 } else { NONE };
            page.set_tag(Tag { segment: id, kind: Kind::Element, used: rows.len() as u16, next });
            for (index, row) in rows.iter().enumerate() {
                let (_, code, params) = encode(parameters, &row.vector);
                let mut element = shape.view_mut(&mut page, shape.element.slot(here, index as u32).expect("fits"));
                let new =
                    NewElement { level: 0, upper: NONE, params: &params, code: &code, tails: &[], neighbors: &[] };
                element.write(id, &new);
                assert!(element.push_inline(&row.row()));
            }
            assert_eq!(store.append(&page), here);
        }
        // Chained afterwards: how many pages there are is known by now.
        let pages = rows.len().div_ceil(per_page) as u32;
        for here in block + 1..block + 1 + pages {
            write(store, here, |page| {
                let tag = page.tag().expect("ours");
                page.set_tag(Tag { next: if here == block + pages { NONE } else { here + 1 }, ..tag });
            });
        }
        if pages > 0 {
            head.first[chain_index(Kind::Element)] = block + 1;
            head.last[chain_index(Kind::Element)] = block + pages;
            head.element_pages = pages;
        }
        write(store, block, |page| {
            page.set_tag(Tag::new(id, Kind::SegmentHead));
            head.encode(page);
        });
        block
    })
}

/// Inserts into the active graph.
pub fn insert(store: &impl PageStore, parameters: &Parameters, row: &TableRow) {
    let (vector, code, params) = encode(parameters, &row.vector);
    let probe = Probe::new(parameters.metric, &vector);
    let level = level_of(u64::from(row.id) << 20, parameters.m);
    let active = Directory::read(store).expect("sound").1.active().expect("there is one");
    let segment = Segment { store, shape: &parameters.shape(), id: active.id, head: active.head };
    let new = NewRow { row: row.row(), params: &params, code: &code, probe: &probe, level };
    assert_eq!(segment.insert(parameters.ef_construction, &new), Ok(Outcome::Inserted));
}

pub fn seal(store: &impl PageStore) {
    let (meta, directory) = Directory::read(store).expect("sound");
    index::seal(store, &meta, &directory, 1).expect("sound");
}

pub fn each_segment<S: PageStore>(store: &S, mut visit: impl FnMut(Segment<S>) -> Result<()>) -> Result<()> {
    let (meta, directory) = Directory::read(store)?;
    let shapes = meta.parameters.shapes();
    directory
        .segments
        .iter()
        .try_for_each(|s| visit(Segment { store, shape: shapes.of(s.kind), id: s.id, head: s.head }))
}

pub fn vacuum(store: &impl PageStore, mut dead: impl FnMut(u32) -> bool) -> Result<()> {
    each_segment(store, |segment| segment.vacuum(|tid| dead(id(tid)), || ()).map(|_| ()))
}

/// All hits of a scan, in order, and how many came too late.
pub fn scan_all(
    store: &impl PageStore,
    query: Option<&[f32]>,
    filter: &Filter,
    limits: Limits,
) -> Result<(Vec<Hit>, u64)> {
    let (meta, directory) = Directory::read(store)?;
    let probe = query.map(|query| probe(meta.parameters.metric, query));
    let mut scan = Scan::new(probe, filter.clone(), &directory.segments, limits);
    let (mut hits, shapes) = (Vec::new(), meta.parameters.shapes());
    while let Some(hit) = scan.next(store, &shapes)? {
        hits.push(hit);
    }
    Ok((hits, scan.dropped()))
}

/// How often each row is in the index.
pub fn rows_of(store: &impl PageStore) -> BTreeMap<u32, u32> {
    let mut rows = BTreeMap::new();
    for hit in scan_all(store, None, &Filter::none(), WIDE).expect("sound").0 {
        *rows.entry(id(hit.tid)).or_default() += 1;
    }
    rows
}

/// Every listed segment is sound, all of it can be reached but in graphs, and its check sees the rows that a scan sees.
#[track_caller]
pub fn assert_sound(store: &impl PageStore) {
    let mut rows = Vec::new();
    each_segment(store, |segment| {
        let problems = segment.check(&mut rows)?;
        assert!(problems.is_empty(), "segment {}: {problems:?}", segment.id);
        // Graphs leave some elements out of reach.
        let unreachable = segment.count()?.unreachable;
        assert!(unreachable == 0 || segment.shape.m > 0, "segment {}: {unreachable} out of reach", segment.id);
        Ok(())
    })
    .expect("readable");
    let mut checked = BTreeMap::new();
    rows.into_iter().for_each(|row| *checked.entry(id(row.tid)).or_default() += 1);
    assert_eq!(checked, rows_of(store), "check and scan see different rows");
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

/// A scan to the end returns every row of `rows` that passes, once, but for those it says it dropped; in order of
/// bounds, which are not above distances. How many it dropped.
#[track_caller]
pub fn assert_complete(
    store: &impl PageStore,
    rows: &[TableRow],
    query: &[f32],
    filter: &Filter,
    limits: Limits,
) -> u64 {
    let metric = Meta::read(store).expect("sound").parameters.metric;
    let (hits, dropped) = scan_all(store, Some(query), filter, limits).expect("sound");
    let mut expected: BTreeMap<u32, &TableRow> =
        rows.iter().filter(|row| filter.passes(&row.keys)).map(|row| (row.id, row)).collect();
    let all = expected.len();
    let mut last = f64::NEG_INFINITY;
    for hit in &hits {
        let Some(row) = expected.remove(&id(hit.tid)) else {
            panic!("{metric:?}: row {} came twice, or should not have come", id(hit.tid))
        };
        let exact = distance(metric, query, &row.vector);
        assert!(hit.bound <= exact, "{metric:?}: row {} has bound {} above {exact}", row.id, hit.bound);
        assert!(last <= hit.bound, "{metric:?}: a bound fell from {last} to {}", hit.bound);
        last = hit.bound;
    }
    assert!(hits.len() as u64 + dropped >= all as u64, "{metric:?}: {} of {all}, {dropped} dropped", hits.len());
    dropped
}
