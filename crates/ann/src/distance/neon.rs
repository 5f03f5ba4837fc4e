//! NEON kernels, with nothing beyond what every 64-bit ARM CPU has. The last few values of a slice go to the scalar
//! kernels.

use super::{Estimate, Kernels, Least, scalar, split, table};
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;

/// This set's kernels, where the CPU has every feature that they are compiled for.
pub(super) fn detect() -> Option<&'static Kernels> {
    std::arch::is_aarch64_feature_detected!("neon").then_some(&KERNELS)
}

static KERNELS: Kernels = table!("neon");

/// Integer kernels sum in 32 bits over this many values: each of 4 lanes gets at most 256 products of 255 and
/// 256 * 127 + 127, and 256 * 255 * 32,640 < 2^31.
const I32_SPAN: usize = 1_024;

/// Feeds the pieces of `a` and `b` to `step`, through four independent accumulators.
#[inline]
#[target_feature(enable = "neon")]
fn fold<A, B, T: Copy>(a: &[A], b: &[B], zero: T, step: impl Fn(T, &A, &B) -> T) -> [T; 4] {
    let ((a_groups, a_rest), (b_groups, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut acc = [zero; 4];
    for (a, b) in a_groups.iter().zip(b_groups) {
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = step(*acc, &a[i], &b[i]);
        }
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        acc[0] = step(acc[0], a, b);
    }
    acc
}

#[inline]
#[target_feature(enable = "neon")]
fn load_f32(x: &[f32; 4]) -> float32x4_t {
    // SAFETY: `x` is as long as the register, and the load needs no more alignment than f32.
    unsafe { vld1q_f32(x.as_ptr()) }
}

/// In assembly, since the intrinsic needs the unstable type `f16`.
#[inline]
#[target_feature(enable = "neon")]
fn load_f16(x: &[f16; 4]) -> float32x4_t {
    // SAFETY: `x` is as long as the register, and f16 is a transparent u16.
    let bits = unsafe { vld1_u16(x.as_ptr().cast()) };
    let wide: float32x4_t;
    // SAFETY: reads and writes nothing but its two registers; part of baseline NEON.
    unsafe { asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) bits, options(pure, nomem, nostack)) };
    wide
}

#[inline]
#[target_feature(enable = "neon")]
fn load_u8(x: &[u8; 16]) -> uint8x16_t {
    // SAFETY: `x` is as long as the register.
    unsafe { vld1q_u8(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_i8(x: &[i8; 16]) -> int8x16_t {
    // SAFETY: `x` is as long as the register.
    unsafe { vld1q_s8(x.as_ptr()) }
}

/// Four codes as f32.
#[inline]
#[target_feature(enable = "neon")]
fn load_codes(x: &[u8; 4]) -> float32x4_t {
    let bytes = vcreate_u8(u64::from(u32::from_le_bytes(*x)));
    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
}

#[inline]
#[target_feature(enable = "neon")]
fn sum_f32([p, q, r, s]: [float32x4_t; 4]) -> f32 {
    vaddvq_f32(vaddq_f32(vaddq_f32(p, q), vaddq_f32(r, s)))
}

/// The four float kernels of one element type.
macro_rules! float_kernels {
    ($t:ty, $load:ident, $l2_squared:ident, $dot:ident, $cosine_parts:ident, $l1:ident) => {
        #[target_feature(enable = "neon")]
        fn $l2_squared(a: &[$t], b: &[$t]) -> f32 {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc = fold(a, b, vdupq_n_f32(0.0), |acc, a, b| {
                let difference = vsubq_f32($load(a), $load(b));
                vfmaq_f32(acc, difference, difference)
            });
            sum_f32(acc) + (scalar::KERNELS.$l2_squared)(a_tail, b_tail)
        }

        #[target_feature(enable = "neon")]
        fn $dot(a: &[$t], b: &[$t]) -> f32 {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc = fold(a, b, vdupq_n_f32(0.0), |acc, a, b| vfmaq_f32(acc, $load(a), $load(b)));
            sum_f32(acc) + (scalar::KERNELS.$dot)(a_tail, b_tail)
        }

        #[target_feature(enable = "neon")]
        fn $cosine_parts(a: &[$t], b: &[$t]) -> (f32, f32, f32) {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc = fold(a, b, [vdupq_n_f32(0.0); 3], |[ab, aa, bb], a, b| {
                let (a, b) = ($load(a), $load(b));
                [vfmaq_f32(ab, a, b), vfmaq_f32(aa, a, a), vfmaq_f32(bb, b, b)]
            });
            let (ab, aa, bb) = (scalar::KERNELS.$cosine_parts)(a_tail, b_tail);
            (
                sum_f32(acc.map(|[ab, _, _]| ab)) + ab,
                sum_f32(acc.map(|[_, aa, _]| aa)) + aa,
                sum_f32(acc.map(|[_, _, bb]| bb)) + bb,
            )
        }

        #[target_feature(enable = "neon")]
        fn $l1(a: &[$t], b: &[$t]) -> f32 {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc = fold(a, b, vdupq_n_f32(0.0), |acc, a, b| vaddq_f32(acc, vabdq_f32($load(a), $load(b))));
            sum_f32(acc) + (scalar::KERNELS.$l1)(a_tail, b_tail)
        }
    };
}

float_kernels!(f32, load_f32, l2_squared, dot, cosine_parts, l1);
float_kernels!(f16, load_f16, l2_squared_f16, dot_f16, cosine_parts_f16, l1_f16);

#[target_feature(enable = "neon")]
fn dot_u8(a: &[u8], b: &[u8]) -> u64 {
    let mut total = 0;
    for (a, b) in a.chunks(I32_SPAN).zip(b.chunks(I32_SPAN)) {
        let ((a, a_tail), (b, b_tail)) = split(a, b);
        let [p, q, r, s] = fold(a, b, vdupq_n_u32(0), |acc, a, b| {
            let (a, b) = (load_u8(a), load_u8(b));
            let acc = vpadalq_u16(acc, vmull_u8(vget_low_u8(a), vget_low_u8(b)));
            vpadalq_u16(acc, vmull_high_u8(a, b))
        });
        let sum = vaddlvq_u32(vaddq_u32(vaddq_u32(p, q), vaddq_u32(r, s)));
        total += sum + (scalar::KERNELS.dot_u8)(a_tail, b_tail);
    }
    total
}

#[target_feature(enable = "neon")]
fn dot_u8_i15(code: &[u8], hi: &[i8], lo: &[i8]) -> i64 {
    let mut total = 0;
    for ((code, hi), lo) in code.chunks(I32_SPAN).zip(hi.chunks(I32_SPAN)).zip(lo.chunks(I32_SPAN)) {
        let len = code.len().min(hi.len()).min(lo.len());
        let ((code, code_tail), (hi, hi_tail)) = (code[..len].as_chunks(), hi[..len].as_chunks());
        let (lo, lo_tail) = lo[..len].as_chunks();
        let mut acc = [vdupq_n_s32(0); 4];
        for ((code, hi), lo) in code.iter().zip(hi).zip(lo) {
            acc = add_i15(acc, load_u8(code), load_i8(hi), load_i8(lo));
        }
        let [p, q, r, s] = acc;
        let sum = vaddlvq_s32(vaddq_s32(vaddq_s32(p, q), vaddq_s32(r, s)));
        total += sum + (scalar::KERNELS.dot_u8_i15)(code_tail, hi_tail, lo_tail);
    }
    total
}

/// Adds one product of 16 to each of the 16 lanes.
#[inline]
#[target_feature(enable = "neon")]
fn add_i15([p, q, r, s]: [int32x4_t; 4], code: uint8x16_t, hi: int8x16_t, lo: int8x16_t) -> [int32x4_t; 4] {
    let low_code = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(code)));
    let high_code = vreinterpretq_s16_u16(vmovl_high_u8(code));
    let low_query = vaddw_s8(vshlq_n_s16::<8>(vmovl_s8(vget_low_s8(hi))), vget_low_s8(lo));
    let high_query = vaddw_high_s8(vshlq_n_s16::<8>(vmovl_high_s8(hi)), lo);
    [
        vmlal_s16(p, vget_low_s16(low_code), vget_low_s16(low_query)),
        vmlal_high_s16(q, low_code, low_query),
        vmlal_s16(r, vget_low_s16(high_code), vget_low_s16(high_query)),
        vmlal_high_s16(s, high_code, high_query),
    ]
}

#[target_feature(enable = "neon")]
fn l1_sq8(code: &[u8], scale: f32, offset: f32, query: &[f32]) -> f32 {
    let ((code, code_tail), (query, query_tail)) = split(code, query);
    let (scales, offsets) = (vdupq_n_f32(scale), vdupq_n_f32(offset));
    let acc = fold(code, query, vdupq_n_f32(0.0), |acc, code, query| {
        let decoded = vfmaq_f32(offsets, scales, load_codes(code));
        vaddq_f32(acc, vabdq_f32(load_f32(query), decoded))
    });
    sum_f32(acc) + (scalar::KERNELS.l1_sq8)(code_tail, scale, offset, query_tail)
}

#[target_feature(enable = "neon")]
fn l1_sq8_pair(a: &[u8], a_scale: f32, a_offset: f32, b: &[u8], b_scale: f32, b_offset: f32) -> f32 {
    let ((a, a_tail), (b, b_tail)) = split(a, b);
    let (a_scales, a_offsets) = (vdupq_n_f32(a_scale), vdupq_n_f32(a_offset));
    let (b_scales, b_offsets) = (vdupq_n_f32(b_scale), vdupq_n_f32(b_offset));
    let acc = fold(a, b, vdupq_n_f32(0.0), |acc, a, b| {
        let a_value = vfmaq_f32(a_offsets, a_scales, load_codes(a));
        let b_value = vfmaq_f32(b_offsets, b_scales, load_codes(b));
        vaddq_f32(acc, vabdq_f32(a_value, b_value))
    });
    sum_f32(acc) + (scalar::KERNELS.l1_sq8_pair)((a_tail, a_scale, a_offset), (b_tail, b_scale, b_offset))
}

/// Groups of 4 bits whose 16-bit sums do not overflow: 255 for each.
const GROUP_SPAN: usize = 256;

#[target_feature(enable = "neon")]
fn fast_scan(codes: &[u8], tables: &[u8], sums: &mut [u32; 32]) {
    let len = codes.len().min(tables.len()) & !15;
    for (codes, tables) in codes[..len].chunks(16 * GROUP_SPAN).zip(tables[..len].chunks(16 * GROUP_SPAN)) {
        let mut acc = [vdupq_n_u16(0); 4];
        for (codes, table) in codes.as_chunks::<16>().0.iter().zip(tables.as_chunks::<16>().0) {
            let (codes, table) = (load_u8(codes), load_u8(table));
            let first = vqtbl1q_u8(table, vandq_u8(codes, vdupq_n_u8(15)));
            let second = vqtbl1q_u8(table, vshrq_n_u8::<4>(codes));
            acc[0] = vaddw_u8(acc[0], vget_low_u8(first));
            acc[1] = vaddw_high_u8(acc[1], first);
            acc[2] = vaddw_u8(acc[2], vget_low_u8(second));
            acc[3] = vaddw_high_u8(acc[3], second);
        }
        for (sums, acc) in sums.as_chunks_mut::<8>().0.iter_mut().zip(acc) {
            // SAFETY: 8 sums are two registers.
            unsafe {
                let (low, high) = (vld1q_u32(sums.as_ptr()), vld1q_u32(sums.as_ptr().add(4)));
                vst1q_u32(sums.as_mut_ptr(), vaddw_u16(low, vget_low_u16(acc)));
                vst1q_u32(sums.as_mut_ptr().add(4), vaddw_high_u16(high, acc));
            }
        }
    }
}

#[target_feature(enable = "neon")]
fn dot_panel(rows: &[f32], dimensions: usize, panel: &[f32], out: &mut [[f32; 32]]) {
    let dimensions = dimensions.max(1);
    let count = (rows.len() / dimensions).min(out.len());
    for half in 0..2 {
        let mut at = 0;
        while at < count {
            let (rows, out) = (&rows[at * dimensions..], &mut out[at..count]);
            at += match count - at {
                6.. => dot_rows::<6>(rows, dimensions, panel, half, out),
                _ => dot_rows::<1>(rows, dimensions, panel, half, out),
            };
        }
    }
}

/// `ROWS` rows at once, so that each value of half the panel is loaded once for all of them; returns `ROWS`.
#[inline]
#[target_feature(enable = "neon")]
fn dot_rows<const ROWS: usize>(
    rows: &[f32],
    dimensions: usize,
    panel: &[f32],
    half: usize,
    out: &mut [[f32; 32]],
) -> usize {
    let rows = &rows[..ROWS * dimensions];
    let mut acc = [[vdupq_n_f32(0.0); 4]; ROWS];
    for (i, values) in panel.as_chunks::<32>().0[..dimensions].iter().enumerate() {
        let values = &values.as_chunks::<4>().0[4 * half..4 * half + 4];
        let panel = [load_f32(&values[0]), load_f32(&values[1]), load_f32(&values[2]), load_f32(&values[3])];
        for (row, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row < ROWS and i < dimensions, and `rows` has ROWS * dimensions values.
            let x = unsafe { *rows.get_unchecked(row * dimensions + i) };
            for (acc, &panel) in acc.iter_mut().zip(&panel) {
                *acc = vfmaq_n_f32(*acc, panel, x);
            }
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        for (acc, out) in acc.iter().zip(&mut out.as_chunks_mut::<4>().0[4 * half..4 * half + 4]) {
            // SAFETY: 4 values are as long as the register.
            unsafe { vst1q_f32(out.as_mut_ptr(), *acc) };
        }
    }
    ROWS
}

#[target_feature(enable = "neon")]
fn least_distance(panel: u32, norms2: &[f32; 32], dots: &[[f32; 32]], least: &mut [Least]) {
    scalar::least_distance(panel, norms2, dots, least);
}

#[target_feature(enable = "neon")]
fn least_second(panel: u32, values: [&[f32; 32]; 3], along: f32, weight: f32, least: &mut Least) {
    scalar::least_second(panel, values, along, weight, least);
}

#[target_feature(enable = "neon")]
fn estimate(
    terms: &Estimate,
    sums: &[u32; 32],
    scale_error: [&[u16; 32]; 2],
    base: &[f32; 32],
    est: &mut [f32; 32],
    bound: &mut [f32; 32],
) {
    scalar::estimate(terms, sums, scale_error, base, est, bound);
}
