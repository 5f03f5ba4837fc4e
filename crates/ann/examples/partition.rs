//! Makes an IVF segment of one of the vector sets and prints time, size, and recall and time of searches in memory.
//!
//! `cargo run --release -p ann --example partition -- DIR METRIC [LISTS [EF_SEARCH]]`, where DIR holds `base.f16`, `queries.f32`,
//! `gt_cos.i32` / `gt_l2.i32`, METRIC is `cos` or `l2`, and LISTS is 0 for as many as suit the rows.

use ann::distance::{Metric, kernels};
use ann::hnsw::build::{HeapArena, Stop};
use ann::hnsw::layout::Rows;
use ann::hnsw::probe::{Probe, normalize};
use ann::hnsw::scan::{Limits, Scan};
use ann::index::{Head, SegmentEntry, SegmentKind, Shapes};
use ann::ivf::kmeans::Work;
use ann::ivf::write::Plan;
use ann::keys::{Filter, Row};
use ann::memory::MemoryStore;
use ann::shape::{HeapTid, Shape};
use ann::sq8;
use half::f16;
use std::time::{Duration, Instant};

const K: usize = 10;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, metric, rest @ ..] = args.as_slice() else { panic!("arguments: DIR METRIC [LISTS [EF_SEARCH]]") };
    let numbers: Vec<u32> = rest.iter().map(|s| s.parse().expect("a number")).collect();
    let (lists, ef_search) = (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(40));
    let (metric, suffix) = if metric == "cos" { (Metric::Cosine, "cos") } else { (Metric::L2, "l2") };
    let read = |name: &str| std::fs::read(format!("{dir}/{name}")).expect(name);
    let truth: Vec<i32> =
        read(&format!("gt_{suffix}.i32")).chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    let queries: Vec<f32> = read("queries.f32").chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let dimensions = queries.len() / (truth.len() / 100);
    let base: Vec<f32> = read("base.f16").chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();

    let graph = Shape::new(metric, dimensions, 16, 0);
    let shapes = Shapes { flat: graph.without_neighbors(), graph };
    let mut arena = HeapArena;
    let mut rows = Rows::<HeapArena>::new(dimensions, 0);
    let mut code = vec![0; dimensions];
    for (i, row) in base.chunks(dimensions).enumerate() {
        let row = normalize(metric, row).expect("no zero vectors");
        let params = sq8::encode(&row, &mut code);
        rows.push(&mut arena, &params, &code, &Row::of_tid(HeapTid { block: i as u32, offset: 1 })).expect("fits");
    }
    let (codes, row_lists) = rows.finish();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let mut poll = |_| {
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    let mut work = Work { pool: &pool, threads: 2, stop: &Stop::new(), poll: &mut poll };
    let start = Instant::now();
    let plan = Plan::new((&codes, &row_lists, &shapes.flat), lists, 1, &mut work).expect("fits");
    println!("{} rows, {} elements, {} lists in {:?}", row_lists.len(), codes.len(), plan.lists(), start.elapsed());
    let (store, start) = (MemoryStore::new(), Instant::now());
    let blocks: Vec<u32> = (0..plan.pages_needed() as u32).collect();
    let append = |_, page: &_| {
        store.append(page);
        Ok(())
    };
    plan.write((1, &blocks), &Head::new(0), &mut work, append).expect("fits");
    let bytes = blocks.len() * 8192 * dimensions / base.len();
    println!("{} pages, {bytes} bytes a row, written in {:?}", blocks.len(), start.elapsed());

    let segments = [SegmentEntry { id: 1, kind: SegmentKind::Ivf, active: false, head: 0, created: 0 }];
    for probes in [0, 8, 16, 24, 32, 48, 64, 128] {
        let limits = Limits { ef_search: ef_search as usize, memory: 64 << 20, max_tuples: 0, probes };
        let (mut found, mut pulled, start) = (0, 0, cpu_time());
        for (q, query) in queries.chunks(dimensions).enumerate() {
            // As an executor does: rows until the next one cannot be among the best.
            let mut best = Vec::<(f64, u32)>::new();
            let probe = Probe::of_query(metric, query);
            let mut scan = Scan::new(probe, Filter::none(), &segments, limits);
            while let Some(hit) = scan.next(&store, &shapes).expect("sound") {
                if best.len() == K && hit.bound > best[K - 1].0 {
                    break;
                }
                let row = &base[hit.tid.block as usize * dimensions..][..dimensions];
                let distance = distance(metric, query, row);
                best.insert(best.partition_point(|b| b.0 <= distance), (distance, hit.tid.block));
                best.truncate(K);
                pulled += 1;
            }
            let truth = &truth[q * 100..q * 100 + K];
            found += best.iter().filter(|(_, row)| truth.contains(&(*row as i32))).count();
        }
        let n = queries.len() / dimensions;
        println!(
            "probes {probes:4}: recall {:.4}, {:6.1} us, {:.1} rows pulled",
            found as f64 / (K * n) as f64,
            (cpu_time() - start).as_nanos() as f64 / 1e3 / n as f64,
            pulled as f64 / n as f64
        );
    }
}

/// What this thread has spent so far: other programs run here too.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number"))
}

fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    if metric == Metric::L2 {
        return f64::from((kernels().l2_squared)(a, b)).sqrt();
    }
    let (dot, a2, b2) = (kernels().cosine_parts)(a, b);
    1.0 - f64::from(dot) / (f64::from(a2) * f64::from(b2)).sqrt()
}
