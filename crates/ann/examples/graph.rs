//! Builds a graph over one of the vector sets and prints build time, recall and time of searches in memory.
//!
//! `cargo run --release -p ann --example graph -- DIR METRIC [EF_CONSTRUCTION]`, where DIR holds `base.f16`,
//! `queries.f32`, `gt_cos.i32` / `gt_l2.i32` and METRIC is `cos` or `l2`.

use ann::distance::Metric;
use ann::hnsw::build::{Graph, HeapArena, Stop};
use ann::hnsw::layout::{Rows, pages_needed, write_segment};
use ann::hnsw::probe::{Probe, normalize};
use ann::hnsw::read::Segment;
use ann::hnsw::search::{Accept, Beam, descend};
use ann::index::Head;
use ann::keys::Row;
use ann::memory::MemoryStore;
use ann::page::PageStore;
use ann::shape::{HeapTid, Shape};
use ann::sq8;
use half::f16;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, metric, rest @ ..] = args.as_slice() else { panic!("arguments: DIR METRIC [EF_CONSTRUCTION]") };
    let ef_construction = rest.first().map_or(64, |s| s.parse().expect("EF_CONSTRUCTION is a number"));
    let (metric, suffix) = if metric == "cos" { (Metric::Cosine, "cos") } else { (Metric::L2, "l2") };
    let read = |name: &str| std::fs::read(format!("{dir}/{name}")).expect(name);
    let truth: Vec<i32> =
        read(&format!("gt_{suffix}.i32")).chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    let queries: Vec<f32> = read("queries.f32").chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let dimensions = queries.len() / (truth.len() / 100);
    let base: Vec<f32> = read("base.f16").chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();

    let shape = Shape::new(metric, dimensions, 16, 0);
    let (mut arena, start) = (HeapArena, Instant::now());
    let mut rows = Rows::<HeapArena>::new(dimensions, 0);
    let mut code = vec![0; dimensions];
    for (i, row) in base.chunks(dimensions).enumerate() {
        let row = normalize(metric, row).expect("no zero vectors");
        let params = sq8::encode(&row, &mut code);
        rows.push(&mut arena, &params, &code, &Row::of_tid(HeapTid { block: i as u32, offset: 1 })).expect("fits");
    }
    let (codes, lists) = rows.finish();
    println!("{} rows, {} elements, encoded in {:?}", base.len() / dimensions, codes.len(), start.elapsed());
    let graph = Graph::new(&mut arena, &shape, ef_construction, codes, 1).expect("fits");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let start = Instant::now();
    let poll = |_| {
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    graph.link_all((&pool, 2), &Stop::new(), poll).expect("not cancelled");
    println!("linked in {:?} on 2 threads", start.elapsed());
    let store = MemoryStore::new();
    let head = Head::new(0);
    let start = Instant::now();
    let blocks: Vec<u32> = (0..pages_needed(&graph, &lists, &shape) as u32).collect();
    write_segment(&graph, &lists, &shape, (1, &blocks), &head, |_, page| {
        store.append(page);
        Ok(())
    })
    .expect("fits");
    println!(
        "{} pages, {} bytes a row, written in {:?}",
        blocks.len(),
        blocks.len() * 8192 * dimensions / base.len(),
        start.elapsed()
    );
    let segment = Segment { store: &store, shape: &shape, id: 1, head: 0 };
    let head = store.read(0, |page| Head::decode(page, 0, 1)).expect("in range").expect("a head");
    for ef in [20, 40, 80, 160, 320] {
        let (mut found, mut ranked, start) = (0, 0, Instant::now());
        let mut beam = Beam::new(Accept::Live);
        for (q, query) in queries.chunks(dimensions).enumerate() {
            let probe = Probe::new(metric, &normalize(metric, query).expect("no zero vectors"));
            beam.clear();
            let (entry, _) = descend(segment, &head, &probe, 0).expect("sound").expect("not empty");
            beam.enter(segment, &probe, entry.slot()).expect("sound");
            let mut hits = beam.round(segment, &probe, ef).expect("sound");
            ranked += beam.visited();
            hits.sort_by(|a, b| a.rank.total_cmp(&b.rank));
            let mut rows = Vec::new();
            for hit in hits.iter().take(10) {
                segment.rows(hit.slot, &mut rows).expect("sound");
            }
            let truth = &truth[q * 100..q * 100 + 10];
            found += rows.iter().take(10).filter(|row| truth.contains(&(row.tid.block as i32))).count();
        }
        let n = queries.len() / dimensions;
        println!(
            "ef {ef:4}: recall {:.4}, {:6.1} us, {} ranked",
            found as f64 / (10 * n) as f64,
            start.elapsed().as_micros() as f64 / n as f64,
            ranked / n
        );
    }
}
