//! Partitions one of the vector sets into lists and prints build time, recall and work of searches, in memory and
//! without pages.
//!
//! `cargo run --release -p ann --example ivf -- DIR METRIC [LISTS]`, where DIR holds `base.f16`, `queries.f32`,
//! `gt_cos.i32` / `gt_l2.i32` and METRIC is `cos` or `l2`. What is returned are the 40 best by `sq8` rank, put in exact
//! order, as the executor's recheck does.

use ann::distance::Metric;
use ann::hnsw::build::Stop;
use ann::hnsw::probe::{Probe, Scaling, normalize};
use ann::ivf::assign::{Centroids, NO_LIST, assign};
use ann::ivf::bits::{BLOCK, Coder};
use ann::ivf::kmeans::{Vectors, Work, lists_for, train};
use ann::sq8;
use half::f16;
use std::time::{Duration, Instant};

/// Rows as codes.
struct Codes {
    dimensions: usize,
    codes: Vec<u8>,
    params: Vec<sq8::Params>,
}

impl Codes {
    fn code(&self, i: usize) -> &[u8] {
        &self.codes[i * self.dimensions..(i + 1) * self.dimensions]
    }

    fn rank(&self, probe: &Probe, i: usize) -> f32 {
        rank(probe, self.code(i), &self.params[i])
    }
}

fn rank(probe: &Probe, code: &[u8], p: &sq8::Params) -> f32 {
    let scaling = Scaling { scale: p.scale, offset: p.offset, norm2: p.norm2 };
    probe.rank(probe.part(0..code.len(), code, scaling), scaling)
}

impl Vectors for Codes {
    fn len(&self) -> usize {
        self.params.len()
    }

    fn read(&self, i: usize, out: &mut [f32]) {
        let p = &self.params[i];
        out.iter_mut().zip(self.code(i)).for_each(|(x, &c)| *x = p.offset + p.scale * f32::from(c));
    }
}

/// 32 postings.
struct Block {
    codes: Vec<u8>,
    base: [f32; BLOCK],
    scale: [u16; BLOCK],
    error: [u16; BLOCK],
    rows: Vec<u32>,
}

/// Wall-clock and CPU time (of all threads, where the system tells) since it was made.
struct Clock(Instant, f64);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), Self::cpu())
    }

    fn cpu() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        stat.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2?} ({:.2} s of CPU)", self.0.elapsed(), Self::cpu() - self.1)
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, metric, rest @ ..] = args.as_slice() else { panic!("arguments: DIR METRIC [LISTS]") };
    let (metric, suffix) = if metric == "cos" { (Metric::Cosine, "cos") } else { (Metric::L2, "l2") };
    let read = |name: &str| std::fs::read(format!("{dir}/{name}")).expect(name);
    let truth: Vec<i32> =
        read(&format!("gt_{suffix}.i32")).chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    let queries: Vec<f32> = read("queries.f32").chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let dimensions = queries.len() / (truth.len() / 100);
    let base: Vec<f32> = read("base.f16").chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    let base: Vec<f32> =
        base.chunks(dimensions).flat_map(|row| normalize(metric, row).expect("no zero vectors").into_owned()).collect();
    let mut rows = Codes { dimensions, codes: vec![0; base.len()], params: Vec::new() };
    for (row, code) in base.chunks(dimensions).zip(rows.codes.chunks_mut(dimensions)) {
        rows.params.push(sq8::encode(row, code));
    }
    let lists = rest.first().map_or(lists_for(rows.len() as u64), |s| s.parse().expect("LISTS is a number"));

    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let mut poll = |_| {
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    };
    let mut work = Work { pool: &pool, threads: 2, stop: &Stop::new(), poll: &mut poll };
    let start = Clock::start();
    let values = train(&rows, dimensions, lists, metric, 1, &mut work).expect("not stopped");
    println!("{} rows, {lists} lists, k-means {start}", rows.len());
    let coder = Coder::new(metric, dimensions);
    let centroids = Centroids::new(&values, dimensions, Some(&coder));
    let start = Clock::start();
    let assigned = assign(&rows, &centroids, &mut work).expect("not stopped");
    println!("assigned in {start}");
    for both in [false, true] {
        let start = Clock::start();
        let partition = encode(&rows, &centroids, &coder, &assigned, both);
        println!("{} lists a row, encoded in {start} on one thread", 1 + usize::from(both));
        for probes in [8, 16, 32, 64, 128, 256] {
            search(&rows, &base, metric, (&centroids, &coder), &partition, (&queries, &truth), probes);
        }
    }
}

fn encode(rows: &Codes, centroids: &Centroids, coder: &Coder, assigned: &[[u32; 2]], both: bool) -> Vec<Vec<Block>> {
    let mut members = vec![Vec::new(); centroids.len()];
    for (row, lists) in assigned.iter().enumerate() {
        let lists = lists.iter().take(if both { 2 } else { 1 });
        lists.filter(|&&list| list != NO_LIST).for_each(|&list| members[list as usize].push(row as u32));
    }
    let (mut value, mut rotated) = (vec![0.0; rows.dimensions], vec![0.0; coder.width()]);
    let mut encode_block = |list: usize, members: &[u32]| {
        let mut codes = vec![0; members.len() * coder.code_len()];
        let mut block = Block {
            codes: vec![0; coder.groups() * 16],
            base: [0.0; BLOCK],
            scale: [0; BLOCK],
            error: [0; BLOCK],
            rows: members.to_vec(),
        };
        for (i, (&row, code)) in members.iter().zip(codes.chunks_exact_mut(coder.code_len())).enumerate() {
            rows.read(row as usize, &mut value);
            coder.rotate(&value, &mut rotated);
            let factors = coder.encode(&rotated, centroids.rotated(list), code);
            (block.base[i], block.scale[i], block.error[i]) =
                (factors.base, factors.scale_bits(), factors.error_bits());
        }
        coder.pack(&codes, &mut block.codes);
        block
    };
    let lists = members.iter().enumerate();
    lists.map(|(list, members)| members.chunks(BLOCK).map(|members| encode_block(list, members)).collect()).collect()
}

fn search(
    rows: &Codes,
    base: &[f32],
    metric: Metric,
    (centroids, coder): (&Centroids, &Coder),
    partition: &[Vec<Block>],
    (queries, truth): (&[f32], &[i32]),
    probes: usize,
) {
    const KEEP: usize = 40;
    let (d, n) = (rows.dimensions, queries.len() / rows.dimensions);
    let (mut scanned, mut reranked, mut found, mut found_exact) = (0, 0, 0, 0);
    let (mut rotated, mut marks) = (vec![0.0; coder.width()], vec![u32::MAX; rows.len()]);
    let (mut spent, mut spent_scanning) = (Duration::ZERO, Duration::ZERO);
    for (q, query) in queries.chunks(d).enumerate() {
        let start = Instant::now();
        let query = normalize(metric, query).expect("no zero vectors");
        let probe = Probe::new(metric, &query);
        coder.rotate(&query, &mut rotated);
        let table = coder.query(&rotated, query.iter().map(|x| x * x).sum());
        let mut order: Vec<(f32, usize)> =
            (0..centroids.len()).map(|i| (rank(&probe, centroids.code(i), centroids.params(i)), i)).collect();
        let probes = probes.min(order.len());
        order.select_nth_unstable_by(probes - 1, |a, b| a.0.total_cmp(&b.0));
        let mut candidates: Vec<(f32, u32)> = Vec::new();
        // The KEEP-th best estimate so far is not below the KEEP-th best bound: candidates are cut at bounds above it.
        let scan_start = Instant::now();
        for &(centroid_rank, list) in &order[..probes] {
            let terms = table.list(centroid_rank, centroids.params(list).norm2);
            for block in &partition[list] {
                let (mut sums, mut est, mut bound) = ([0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
                table.accumulate(&block.codes, 0, &mut sums);
                table.estimate(&sums, &block.base, &block.scale, &block.error, terms, &mut est, &mut bound);
                scanned += block.rows.len();
                candidates.extend(bound.iter().copied().zip(block.rows.iter().copied()));
            }
        }
        spent_scanning += scan_start.elapsed();
        let mut best: Vec<(f32, u32)> = Vec::new();
        let mut sorted = std::collections::BinaryHeap::from(
            candidates.into_iter().map(|(bound, row)| std::cmp::Reverse((Ordered(bound), row))).collect::<Vec<_>>(),
        );
        while let Some(std::cmp::Reverse((Ordered(bound), row))) = sorted.pop() {
            if best.len() >= 10 && bound > best[9].0 {
                break;
            }
            if std::mem::replace(&mut marks[row as usize], q as u32) == q as u32 {
                continue;
            }
            reranked += 1;
            let rank = rows.rank(&probe, row as usize);
            let at = best.partition_point(|b| b.0 <= rank);
            best.insert(at, (rank, row));
            best.truncate(KEEP);
        }
        spent += start.elapsed();
        let truth = &truth[q * 100..q * 100 + 10];
        let hits = |best: &[(f32, u32)]| best.iter().take(10).filter(|b| truth.contains(&(b.1 as i32))).count();
        found += hits(&best);
        let exact = |row: u32| {
            let row = &base[row as usize * d..(row as usize + 1) * d];
            if metric == Metric::L2 {
                query.iter().zip(row).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() as f32
            } else {
                -query.iter().zip(row).map(|(x, y)| f64::from(x * y)).sum::<f64>() as f32
            }
        };
        best.iter_mut().for_each(|b| b.0 = exact(b.1));
        best.sort_by(|a, b| a.0.total_cmp(&b.0));
        found_exact += hits(&best);
    }
    let recall = |found: usize| found as f64 / (10 * n) as f64;
    println!(
        "probes {probes:4}: recall {:.4} (exact {:.4}), {:6} scanned, {:4} reranked, {:6.1} us, {:6.1} us of that scanning",
        recall(found),
        recall(found_exact),
        scanned / n,
        reranked / n,
        spent.as_nanos() as f64 / 1e3 / n as f64,
        spent_scanning.as_nanos() as f64 / 1e3 / n as f64,
    );
}

/// By `total_cmp`.
#[derive(PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
