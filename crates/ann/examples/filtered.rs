//! What filtered searches cost: walking until enough rows pass, reading all elements in sequence, and what a scan
//! chooses; with recall, for several shares of passing rows, spread evenly or near the query only.
//!
//! `cargo run --release -p ann --example filtered -- DIR METRIC [ROWS]`, with files as for the example `graph`. CPU times
//! of one thread over a store in memory.

use ann::distance::Metric;
use ann::hnsw::build::{Graph, HeapArena, Stop};
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::hnsw::probe::{Probe, normalize};
use ann::hnsw::read::{Ranked, Segment};
use ann::hnsw::scan::{Limits, Scan};
use ann::hnsw::search::{Accept, Beam, Filtered, descend};
use ann::index::{Head, SegmentEntry, SegmentKind, Shapes};
use ann::keys::{Condition, Filter, Keys, Row};
use ann::memory::MemoryStore;
use ann::page::NONE;
use ann::shape::{HeapTid, Shape};
use ann::sq8;
use half::f16;
use std::time::{Duration, Instant};

const EF: usize = 40;
const K: usize = 10;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, metric, rest @ ..] = args.as_slice() else { panic!("arguments: DIR METRIC [ROWS]") };
    let (metric, suffix) = if metric == "cos" { (Metric::Cosine, "cos") } else { (Metric::L2, "l2") };
    let read = |name: &str| std::fs::read(format!("{dir}/{name}")).expect(name);
    let truth = read(&format!("gt_{suffix}.i32")).len() / 400;
    let queries: Vec<f32> = read("queries.f32").chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let dimensions = queries.len() / truth;
    let mut base: Vec<f32> = read("base.f16").chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    if let Some(rows) = rest.first() {
        base.truncate(rows.parse::<usize>().expect("ROWS is a number") * dimensions);
    }
    let n = base.len() / dimensions;

    // Key 0: by chance, 0..1000. Key 1: rank of the row by its product with one direction, 0..1000: rows that are alike.
    let direction = &queries[queries.len() - dimensions..];
    let mut by_direction: Vec<(f32, usize)> = base
        .chunks(dimensions)
        .enumerate()
        .map(|(i, row)| (row.iter().zip(direction).map(|(a, b)| a * b).sum::<f32>(), i))
        .collect();
    by_direction.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut keys = vec![(0i64, 0i64); n];
    for (at, &(_, i)) in by_direction.iter().enumerate() {
        keys[i] = (((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as i64 % 1000, (at * 1000 / n) as i64);
    }

    let shape = Shape::new(metric, dimensions, 16, 2);
    let mut arena = HeapArena;
    let mut rows = Rows::<HeapArena>::new(dimensions, 2);
    let mut code = vec![0; dimensions];
    for (i, row) in base.chunks(dimensions).enumerate() {
        let row = normalize(metric, row).expect("no zero vectors");
        let params = sq8::encode(&row, &mut code);
        let keys = Keys::new(&[Some(keys[i].0), Some(keys[i].1)]);
        let row = Row { tid: HeapTid { block: i as u32, offset: 1 }, keys };
        rows.push(&mut arena, &params, &code, &row).expect("fits");
    }
    let (codes, lists) = rows.finish();
    let graph = Graph::new(&mut arena, &shape, 64, codes, 1).expect("fits");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let poll = |_| {
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    graph.link_all((&pool, 2), &Stop::new(), poll).expect("not cancelled");
    let store = MemoryStore::new();
    let blocks: Vec<u32> = (0..pages_needed(&graph, &lists, &shape) as u32).collect();
    write_segment(&graph, &lists, &shape, (1, &blocks), &Head::new(0), |_, page| {
        store.append(page);
        Ok(())
    })
    .expect("fits");
    drop(graph);
    let segment = Segment { store: &store, shape: &shape, id: 1, head: 0 };
    let head = segment.read_head().expect("a head");
    println!("{n} rows, {} bytes an element", shape.element.size);
    let queries: Vec<Probe> = queries
        .chunks(dimensions)
        .take(100)
        .map(|q| Probe::new(metric, &normalize(metric, q).expect("no zero vectors")))
        .collect();
    println!("   share | walk: us  visited recall | flat: us | scan: us recall");
    for (column, name) in [(0, "spread evenly"), (1, "alike")] {
        println!("{name}");
        for passing in [1000, 500, 200, 100, 50, 20, 10, 5, 2, 1] {
            let mut filter = Filter::none();
            filter.and(Condition { column, min: 0, max: passing - 1, null: false });
            measure(segment, &head, &queries, &filter, passing as f64 / 1000.0);
        }
    }
}

/// The first `K` rows by rank.
fn top(mut found: Vec<Ranked>) -> Vec<f32> {
    found.sort_by(|a, b| a.rank.total_cmp(&b.rank));
    found.iter().take(K).map(|r| r.rank).collect()
}

fn flat(segment: Segment<MemoryStore>, head: &Head, probe: &Probe, filter: &Filter) -> Vec<Ranked> {
    let (mut block, mut places, mut out, mut all) = (head.first_element(), Vec::new(), Vec::new(), Vec::new());
    while block != NONE {
        block = segment.rank_page(Some(probe), filter, block, &mut places, &mut out).expect("sound");
        all.append(&mut out);
    }
    all
}

fn measure(segment: Segment<MemoryStore>, head: &Head, probes: &[Probe], filter: &Filter, share: f64) {
    let (mut walked, mut visited, mut read, mut scanned) = (Duration::ZERO, 0, Duration::ZERO, Duration::ZERO);
    let (mut walk_hits, mut scan_hits, mut wanted) = (0, 0, 0);
    let shapes = Shapes { flat: segment.shape.without_neighbors(), graph: *segment.shape };
    let entry = SegmentEntry { id: 1, kind: SegmentKind::Hnsw, active: true, head: 0, created: 0 };
    for probe in probes {
        let start = Instant::now();
        let exact = flat(segment, head, probe, filter);
        read += start.elapsed();
        let exact = top(exact);
        let Some(&worst) = exact.last() else { continue };
        wanted += exact.len();

        let start = Instant::now();
        let mut beam = Beam::new(Accept::Live);
        let (near, _) = descend(segment, head, probe, 0).expect("sound").expect("not empty");
        beam.enter_filtered(segment, probe, filter, near.slot()).expect("sound");
        let filtered = Filtered { filter, elements: u64::MAX >> 1 };
        let results = beam.round_filtered(segment, probe, filtered, EF).expect("sound").expect("never gives up");
        walked += start.elapsed();
        visited += beam.visited();
        walk_hits += top(results).iter().filter(|&&rank| rank <= worst).count();
    }
    for (i, probe) in probes.iter().enumerate() {
        let probe = probe.clone();
        let limits = Limits { ef_search: EF, memory: 8 << 20, max_tuples: 0, probes: 0 };
        let start = Instant::now();
        let mut scan = Scan::new(Some(probe), filter.clone(), &[entry], limits);
        let mut rows = Vec::new();
        while rows.len() < K + 3
            && let Some(hit) = scan.next(segment.store, &shapes).expect("sound")
        {
            rows.push(hit.tid.block);
        }
        scanned += start.elapsed();
        let exact = top_rows(segment, head, &probes[i], filter);
        scan_hits += rows.iter().filter(|row| exact.contains(row)).count();
    }
    let us = |time: Duration| time.as_micros() as f64 / probes.len() as f64;
    println!(
        "{share:8.4} | {:8.1} {:8} {:6.4} | {:8.1} | {:8.1} {:6.4}",
        us(walked),
        visited / probes.len(),
        walk_hits as f64 / wanted as f64,
        us(read),
        us(scanned),
        scan_hits as f64 / wanted as f64
    );
}

fn top_rows(segment: Segment<MemoryStore>, head: &Head, probe: &Probe, filter: &Filter) -> Vec<u32> {
    let mut all = flat(segment, head, probe, filter);
    all.sort_by(|a, b| a.rank.total_cmp(&b.rank));
    let mut rows = Vec::new();
    for ranked in all.iter().take(K) {
        segment.rows(ranked.slot, &mut rows).expect("sound");
    }
    rows.retain(|row| filter.passes(&row.keys));
    rows.iter().map(|row| row.tid.block).collect()
}
