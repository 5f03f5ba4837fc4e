//! Portable kernels: the definition that every SIMD kernel is tested against.

use super::{Estimate, Kernels, Least};
use half::f16;

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    l2_squared: |a, b| sum(a, b, |x, y| (x - y) * (x - y)),
    dot: |a, b| sum(a, b, |x, y| x * y),
    cosine_parts: |a, b| {
        let len = a.len().min(b.len());
        let (a, b) = (&a[..len], &b[..len]);
        (sum(a, b, |x, y| x * y), sum(a, a, |x, y| x * y), sum(b, b, |x, y| x * y))
    },
    l1: |a, b| sum(a, b, |x, y| (x - y).abs()),
    l2_squared_f16: |a, b| sum_f16(a, b, |x, y| (x - y) * (x - y)),
    dot_f16: |a, b| sum_f16(a, b, |x, y| x * y),
    cosine_parts_f16: |a, b| {
        let len = a.len().min(b.len());
        let (a, b) = (&a[..len], &b[..len]);
        (sum_f16(a, b, |x, y| x * y), sum_f16(a, a, |x, y| x * y), sum_f16(b, b, |x, y| x * y))
    },
    l1_f16: |a, b| sum_f16(a, b, |x, y| (x - y).abs()),
    dot_u8: |a, b| a.iter().zip(b).map(|(&x, &y)| u64::from(x) * u64::from(y)).sum(),
    dot_u8_i15: |code, hi, lo| {
        code.iter()
            .zip(hi.iter().zip(lo))
            .map(|(&c, (&h, &l))| i64::from(c) * (256 * i64::from(h) + i64::from(l)))
            .sum()
    },
    l1_sq8: |code, scale, offset, query| {
        code.iter().zip(query).map(|(&c, &q)| (q - (offset + scale * f32::from(c))).abs()).sum()
    },
    l1_sq8_pair: |(a, a_scale, a_offset), (b, b_scale, b_offset)| {
        let value = |c: u8, scale: f32, offset: f32| offset + scale * f32::from(c);
        a.iter().zip(b).map(|(&x, &y)| (value(x, a_scale, a_offset) - value(y, b_scale, b_offset)).abs()).sum()
    },
    fast_scan,
    dot_panel,
    least_distance,
    least_second,
    estimate,
};

/// Compiled again in each set of kernels.
#[inline(always)]
pub(super) fn estimate(
    terms: &Estimate,
    sums: &[u32; 32],
    [scale, error]: [&[u16; 32]; 2],
    base: &[f32; 32],
    est: &mut [f32; 32],
    bound: &mut [f32; 32],
) {
    let wide = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    for i in 0..32 {
        let (scale, error) = (wide(scale[i]), wide(error[i]));
        let value = terms.add + base[i] + scale * (terms.step * sums[i] as i32 as f32 + terms.offset);
        est[i] = value;
        bound[i] = value - (error * terms.distance + scale.abs() * terms.table_error);
    }
}

/// Compiled again in each set of kernels.
#[inline(always)]
pub(super) fn least_distance(panel: u32, norms2: &[f32; 32], dots: &[[f32; 32]], least: &mut [Least]) {
    for (least, dots) in least.iter_mut().zip(dots) {
        let scores = std::array::from_fn(|lane| norms2[lane] - 2.0 * dots[lane]);
        least.offer(panel, &scores);
    }
}

/// Compiled again in each set of kernels.
#[inline(always)]
pub(super) fn least_second(
    panel: u32,
    [norms2, dots, pairs]: [&[f32; 32]; 3],
    along: f32,
    weight: f32,
    least: &mut Least,
) {
    let scores = std::array::from_fn(|lane| {
        let along = along - dots[lane] + pairs[lane];
        norms2[lane] - 2.0 * dots[lane] + weight * (along * along)
    });
    least.offer(panel, &scores);
}

fn fast_scan(codes: &[u8], tables: &[u8], sums: &mut [u32; 32]) {
    for (codes, table) in codes.as_chunks::<16>().0.iter().zip(tables.as_chunks::<16>().0) {
        for (j, &code) in codes.iter().enumerate() {
            sums[j] += u32::from(table[usize::from(code & 15)]);
            sums[j + 16] += u32::from(table[usize::from(code >> 4)]);
        }
    }
}

fn dot_panel(rows: &[f32], dimensions: usize, panel: &[f32], out: &mut [[f32; 32]]) {
    for (row, out) in rows.chunks_exact(dimensions.max(1)).zip(out) {
        *out = [0.0; 32];
        for (&x, values) in row.iter().zip(panel.as_chunks::<32>().0) {
            for (sum, &y) in out.iter_mut().zip(values) {
                *sum += x * y;
            }
        }
    }
}

fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    a.iter().zip(b).map(|(&x, &y)| term(x, y)).sum()
}

fn sum_f16(a: &[f16], b: &[f16], term: impl Fn(f32, f32) -> f32) -> f32 {
    a.iter().zip(b).map(|(x, y)| term(x.to_f32(), y.to_f32())).sum()
}
