//! Prints nanoseconds per call of every kernel of every instruction set that this machine runs.
//!
//! `cargo run --release -p ann --example kernels`

use ann::distance::{Kernels, all_kernels};
use ann::sq8;
use half::f16;
use std::hint::black_box;
use std::time::Instant;

const DIMENSIONS: [usize; 4] = [100, 384, 768, 1536];

fn main() {
    println!("{:<8} {:<18} {}", "set", "kernel", DIMENSIONS.map(|d| format!("{d:>9}")).concat());
    for set in all_kernels() {
        let columns = DIMENSIONS.map(|dimensions| measure(set, dimensions));
        for row in 0..columns[0].len() {
            let cells: String = columns.iter().map(|column| format!("{:>9.1}", column[row].1)).collect();
            println!("{:<8} {:<18} {cells}", set.name, columns[0][row].0);
        }
    }
    let columns = DIMENSIONS.map(measure_sq8);
    for row in 0..columns[0].len() {
        let cells: String = columns.iter().map(|column| format!("{:>9.1}", column[row].1)).collect();
        println!("{:<8} {:<18} {cells}", "sq8", columns[0][row].0);
    }
}

type Timings = Vec<(&'static str, f64)>;

/// The best of several rounds, in nanoseconds per call.
fn time<T>(mut call: impl FnMut() -> T) -> f64 {
    let round = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        call();
        start.elapsed().as_nanos() as f64 / 2_000.0
    };
    let mut calls = || {
        for _ in 0..2_000 {
            black_box(call());
        }
    };
    (0..40).map(|_| round(&mut calls)).fold(f64::INFINITY, f64::min)
}

fn wave(dimensions: usize, step: usize) -> Vec<f32> {
    (0..dimensions).map(|i| ((i * step) % 101) as f32 / 50.0 - 1.0).collect()
}

/// `black_box` of a slice inside a tuple costs a failed store forwarding, some 20 ns; of a reference it does not.
fn opaque(x: &Vec<u8>) -> &[u8] {
    black_box(x).as_slice()
}

fn measure(set: &Kernels, dimensions: usize) -> Timings {
    let (a, b) = (wave(dimensions, 37), wave(dimensions, 53));
    let half = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
    let (ha, hb) = (half(&a), half(&b));
    let bytes = |x: &[f32]| x.iter().map(|&x| (x * 127.0 + 127.0) as u8).collect::<Vec<_>>();
    let (ca, cb) = (bytes(&a), bytes(&b));
    let (hi, lo): (Vec<i8>, Vec<i8>) = ca.iter().map(|&c| ((c / 2) as i8, (c / 3) as i8)).unzip();
    vec![
        ("l2_squared", time(|| (set.l2_squared)(black_box(&a), black_box(&b)))),
        ("dot", time(|| (set.dot)(black_box(&a), black_box(&b)))),
        ("cosine_parts", time(|| (set.cosine_parts)(black_box(&a), black_box(&b)))),
        ("l1", time(|| (set.l1)(black_box(&a), black_box(&b)))),
        ("l2_squared_f16", time(|| (set.l2_squared_f16)(black_box(&ha), black_box(&hb)))),
        ("dot_f16", time(|| (set.dot_f16)(black_box(&ha), black_box(&hb)))),
        ("cosine_parts_f16", time(|| (set.cosine_parts_f16)(black_box(&ha), black_box(&hb)))),
        ("l1_f16", time(|| (set.l1_f16)(black_box(&ha), black_box(&hb)))),
        ("dot_u8", time(|| (set.dot_u8)(black_box(&ca), black_box(&cb)))),
        ("dot_u8_i15", time(|| (set.dot_u8_i15)(black_box(&ca), black_box(&hi), black_box(&lo)))),
        ("l1_sq8", time(|| (set.l1_sq8)(black_box(&ca), 0.01, -1.0, black_box(&b)))),
        ("l1_sq8_pair", time(|| (set.l1_sq8_pair)((opaque(&ca), 0.01, -1.0), (opaque(&cb), 0.02, -1.1)))),
    ]
}

fn measure_sq8(dimensions: usize) -> Timings {
    let (a, b) = (wave(dimensions, 37), wave(dimensions, 53));
    let mut code = vec![0; dimensions];
    let params = sq8::encode(&a, &mut code);
    let query = sq8::Query::new(&b);
    vec![
        ("encode", time(|| sq8::encode(black_box(&a), &mut code))),
        ("Query::new", time(|| sq8::Query::new(black_box(&b)))),
        ("Query::dot", time(|| query.dot(black_box(&code), params.scale, params.offset))),
    ]
}
