//! AVX-512 kernels; tails are masked loads, never scalar loops.

use super::scalar::{dot_panel, fast_scan};
use super::{Kernels, table};
use half::f16;
use std::arch::x86_64::*;

/// This set's kernels, where the CPU has every feature that they are compiled for.
pub(super) fn detect() -> Option<&'static Kernels> {
    let present = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("bmi2");
    present.then_some(&KERNELS)
}

static KERNELS: Kernels = table!("avx512");

/// Integer kernels sum in `i32` over this many bytes: 65,536 * 255 * 128 < 2^31.
const I32_SPAN: usize = 65_536;

/// Feeds `a` and `b` to `step` in pieces of `W` values, the last one shorter, through four independent accumulators.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn fold<A, B, T: Copy, const W: usize>(a: &[A], b: &[B], zero: T, step: impl Fn(T, &[A], &[B]) -> T) -> [T; 4] {
    let len = a.len().min(b.len());
    let (a_groups, b_groups) = (a[..len].chunks_exact(4 * W), b[..len].chunks_exact(4 * W));
    let (a_rest, b_rest) = (a_groups.remainder(), b_groups.remainder());
    let mut acc = [zero; 4];
    for (a, b) in a_groups.zip(b_groups) {
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = step(*acc, &a[i * W..(i + 1) * W], &b[i * W..(i + 1) * W]);
        }
    }
    if !a_rest.is_empty() {
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = step(*acc, piece::<_, W>(a_rest, i), piece::<_, W>(b_rest, i));
        }
    }
    acc
}

/// Piece `i` of `W` values, shorter or empty where `x` ends.
#[inline]
fn piece<T, const W: usize>(x: &[T], i: usize) -> &[T] {
    &x[x.len().min(i * W)..x.len().min((i + 1) * W)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn mask16<T>(x: &[T]) -> __mmask16 {
    _bzhi_u32(0xffff, x.len() as u32) as __mmask16
}

/// Up to 16 values, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn load_f32(x: &[f32]) -> __m512 {
    // SAFETY: the mask has a bit for each value of `x` and no other; masked lanes are not read.
    unsafe { _mm512_maskz_loadu_ps(mask16(x), x.as_ptr()) }
}

/// Up to 16 values, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn load_f16(x: &[f16]) -> __m512 {
    // SAFETY: the mask has a bit for each value of `x` and no other; f16 is a transparent u16.
    let bits = unsafe { _mm256_maskz_loadu_epi16(mask16(x), x.as_ptr().cast()) };
    _mm512_cvtph_ps(bits)
}

/// Up to 16 codes as f32, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn load_codes(x: &[u8]) -> __m512 {
    // SAFETY: the mask has a bit for each value of `x` and no other; masked lanes are not read.
    let bytes = unsafe { _mm_maskz_loadu_epi8(mask16(x), x.as_ptr().cast()) };
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
}

/// Up to 64 bytes, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn load_bytes<T: Byte>(x: &[T]) -> __m512i {
    let mask = _bzhi_u64(u64::MAX, x.len() as u32);
    // SAFETY: the mask has a bit for each byte of `x` and no other; masked lanes are not read.
    unsafe { _mm512_maskz_loadu_epi8(mask, x.as_ptr().cast()) }
}

/// One byte long.
trait Byte {}
impl Byte for u8 {}
impl Byte for i8 {}

/// Sums `step` over both slices, 16 lanes at a time.
macro_rules! sum {
    ($a:expr, $b:expr, $step:expr) => {{
        let [p, q, r, s] = fold::<_, _, _, 16>($a, $b, _mm512_setzero_ps(), $step);
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(p, q), _mm512_add_ps(r, s)))
    }};
}

/// The four float kernels of one element type.
macro_rules! float_kernels {
    ($t:ty, $load:ident, $l2_squared:ident, $dot:ident, $cosine_parts:ident, $l1:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
        fn $l2_squared(a: &[$t], b: &[$t]) -> f32 {
            sum!(a, b, |acc, a, b| {
                let difference = _mm512_sub_ps($load(a), $load(b));
                _mm512_fmadd_ps(difference, difference, acc)
            })
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
        fn $dot(a: &[$t], b: &[$t]) -> f32 {
            sum!(a, b, |acc, a, b| _mm512_fmadd_ps($load(a), $load(b), acc))
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
        fn $cosine_parts(a: &[$t], b: &[$t]) -> (f32, f32, f32) {
            let acc = fold::<_, _, _, 16>(a, b, [_mm512_setzero_ps(); 3], |[ab, aa, bb], a, b| {
                let (a, b) = ($load(a), $load(b));
                [_mm512_fmadd_ps(a, b, ab), _mm512_fmadd_ps(a, a, aa), _mm512_fmadd_ps(b, b, bb)]
            });
            let [p, q, r, s] = acc;
            let part =
                |i: usize| _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(p[i], q[i]), _mm512_add_ps(r[i], s[i])));
            (part(0), part(1), part(2))
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
        fn $l1(a: &[$t], b: &[$t]) -> f32 {
            sum!(a, b, |acc, a, b| _mm512_add_ps(acc, _mm512_abs_ps(_mm512_sub_ps($load(a), $load(b)))))
        }
    };
}

float_kernels!(f32, load_f32, l2_squared, dot, cosine_parts, l1);
float_kernels!(f16, load_f16, l2_squared_f16, dot_f16, cosine_parts_f16, l1_f16);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn sum_i32([p, q, r, s]: [__m512i; 4]) -> i64 {
    i64::from(_mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_add_epi32(p, q), _mm512_add_epi32(r, s))))
}

/// `vpdpbusd` takes one signed operand: a*b = a*(b - 128) + 128*a.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn dot_u8(a: &[u8], b: &[u8]) -> u64 {
    let mut total = 0;
    for (a, b) in a.chunks(I32_SPAN).zip(b.chunks(I32_SPAN)) {
        let zero = [_mm512_setzero_si512(); 2];
        let acc = fold::<_, _, _, 64>(a, b, zero, |[products, sums], a, b| {
            let (a, b) = (load_bytes(a), load_bytes(b));
            let b = _mm512_xor_si512(b, _mm512_set1_epi8(i8::MIN));
            [_mm512_dpbusd_epi32(products, a, b), _mm512_dpbusd_epi32(sums, a, _mm512_set1_epi8(1))]
        });
        total += sum_i32(acc.map(|[products, _]| products)) + 128 * sum_i32(acc.map(|[_, sums]| sums));
    }
    total as u64
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn dot_u8_i15(code: &[u8], hi: &[i8], lo: &[i8]) -> i64 {
    let len = code.len().min(hi.len()).min(lo.len());
    let (code, hi, lo) = (&code[..len], &hi[..len], &lo[..len]);
    let mut total = 0;
    for ((code, hi), lo) in code.chunks(I32_SPAN).zip(hi.chunks(I32_SPAN)).zip(lo.chunks(I32_SPAN)) {
        let (mut highs, mut lows) = ([_mm512_setzero_si512(); 4], [_mm512_setzero_si512(); 4]);
        let mut add = |i: usize, code: &[u8], hi: &[i8], lo: &[i8]| {
            let code = load_bytes(code);
            highs[i] = _mm512_dpbusd_epi32(highs[i], code, load_bytes(hi));
            lows[i] = _mm512_dpbusd_epi32(lows[i], code, load_bytes(lo));
        };
        let (codes, his, los) = (code.chunks_exact(256), hi.chunks_exact(256), lo.chunks_exact(256));
        let rest = (codes.remainder(), his.remainder(), los.remainder());
        for ((code, hi), lo) in codes.zip(his).zip(los) {
            for i in 0..4 {
                add(i, &code[i * 64..(i + 1) * 64], &hi[i * 64..(i + 1) * 64], &lo[i * 64..(i + 1) * 64]);
            }
        }
        if !rest.0.is_empty() {
            for i in 0..4 {
                add(i, piece::<_, 64>(rest.0, i), piece::<_, 64>(rest.1, i), piece::<_, 64>(rest.2, i));
            }
        }
        total += 256 * sum_i32(highs) + sum_i32(lows);
    }
    total
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn l1_sq8(code: &[u8], scale: f32, offset: f32, query: &[f32]) -> f32 {
    let (scale, offset) = (_mm512_set1_ps(scale), _mm512_set1_ps(offset));
    sum!(code, query, |acc, code, query| {
        let decoded = _mm512_fmadd_ps(scale, load_codes(code), offset);
        let difference = _mm512_maskz_sub_ps(mask16(code), load_f32(query), decoded);
        _mm512_add_ps(acc, _mm512_abs_ps(difference))
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn l1_sq8_pair(a: &[u8], a_scale: f32, a_offset: f32, b: &[u8], b_scale: f32, b_offset: f32) -> f32 {
    let (a_scale, a_offset) = (_mm512_set1_ps(a_scale), _mm512_set1_ps(a_offset));
    let (b_scale, b_offset) = (_mm512_set1_ps(b_scale), _mm512_set1_ps(b_offset));
    sum!(a, b, |acc, a, b| {
        let a_value = _mm512_fmadd_ps(a_scale, load_codes(a), a_offset);
        let b_value = _mm512_fmadd_ps(b_scale, load_codes(b), b_offset);
        _mm512_add_ps(acc, _mm512_abs_ps(_mm512_maskz_sub_ps(mask16(a), a_value, b_value)))
    })
}
