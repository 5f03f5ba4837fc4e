//! AVX2 kernels with FMA and F16C. The last few values of a slice go to the scalar kernels.

use super::{Estimate, Kernels, Least, scalar, split, table};
use half::f16;
use std::arch::x86_64::*;

/// This set's kernels, where the CPU has every feature that they are compiled for.
pub(super) fn detect() -> Option<&'static Kernels> {
    let present =
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    present.then_some(&KERNELS)
}

static KERNELS: Kernels = table!("avx2");

/// Integer kernels sum in `i32` over this many values: each of 8 lanes gets at most 256 products of 255 and
/// 256 * 127 + 127, and 256 * 255 * 32,640 < 2^31.
const I32_SPAN: usize = 2_048;

/// Feeds the pieces of `a` and `b` to `step`, through four independent accumulators.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
fn load_f32(x: &[f32; 8]) -> __m256 {
    // SAFETY: `x` is as long as the register, and the load needs no alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_f16(x: &[f16; 8]) -> __m256 {
    // SAFETY: `x` is as long as the register, the load needs no alignment, and f16 is a transparent u16.
    let bits = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
    _mm256_cvtph_ps(bits)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_codes(x: &[u8; 8]) -> __m256 {
    let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(*x));
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
}

/// 16 unsigned bytes as 16-bit integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_u8(x: &[u8; 16]) -> __m256i {
    // SAFETY: `x` is as long as the register, and the load needs no alignment.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

/// 16 signed bytes as 16-bit integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_i8(x: &[i8; 16]) -> __m256i {
    // SAFETY: `x` is as long as the register, and the load needs no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn abs(x: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_f32([p, q, r, s]: [__m256; 4]) -> f32 {
    let eight = _mm256_add_ps(_mm256_add_ps(p, q), _mm256_add_ps(r, s));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_i32([p, q, r, s]: [__m256i; 4]) -> i64 {
    let eight = _mm256_add_epi32(_mm256_add_epi32(p, q), _mm256_add_epi32(r, s));
    let (low, high) = (_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let four = _mm256_add_epi64(_mm256_cvtepi32_epi64(low), _mm256_cvtepi32_epi64(high));
    let two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
    _mm_cvtsi128_si64(two) + _mm_extract_epi64::<1>(two)
}

/// The four float kernels of one element type.
macro_rules! float_kernels {
    ($t:ty, $load:ident, $l2_squared:ident, $dot:ident, $cosine_parts:ident, $l1:ident) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $l2_squared(a: &[$t], b: &[$t]) -> f32 {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc = fold(a, b, _mm256_setzero_ps(), |acc, a, b| {
                let difference = _mm256_sub_ps($load(a), $load(b));
                _mm256_fmadd_ps(difference, difference, acc)
            });
            sum_f32(acc) + (scalar::KERNELS.$l2_squared)(a_tail, b_tail)
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        fn $dot(a: &[$t], b: &[$t]) -> f32 {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc = fold(a, b, _mm256_setzero_ps(), |acc, a, b| _mm256_fmadd_ps($load(a), $load(b), acc));
            sum_f32(acc) + (scalar::KERNELS.$dot)(a_tail, b_tail)
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        fn $cosine_parts(a: &[$t], b: &[$t]) -> (f32, f32, f32) {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc = fold(a, b, [_mm256_setzero_ps(); 3], |[ab, aa, bb], a, b| {
                let (a, b) = ($load(a), $load(b));
                [_mm256_fmadd_ps(a, b, ab), _mm256_fmadd_ps(a, a, aa), _mm256_fmadd_ps(b, b, bb)]
            });
            let (ab, aa, bb) = (scalar::KERNELS.$cosine_parts)(a_tail, b_tail);
            (
                sum_f32(acc.map(|[ab, _, _]| ab)) + ab,
                sum_f32(acc.map(|[_, aa, _]| aa)) + aa,
                sum_f32(acc.map(|[_, _, bb]| bb)) + bb,
            )
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        fn $l1(a: &[$t], b: &[$t]) -> f32 {
            let ((a, a_tail), (b, b_tail)) = split(a, b);
            let acc =
                fold(a, b, _mm256_setzero_ps(), |acc, a, b| _mm256_add_ps(acc, abs(_mm256_sub_ps($load(a), $load(b)))));
            sum_f32(acc) + (scalar::KERNELS.$l1)(a_tail, b_tail)
        }
    };
}

float_kernels!(f32, load_f32, l2_squared, dot, cosine_parts, l1);
float_kernels!(f16, load_f16, l2_squared_f16, dot_f16, cosine_parts_f16, l1_f16);

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_u8(a: &[u8], b: &[u8]) -> u64 {
    let mut total = 0;
    for (a, b) in a.chunks(I32_SPAN).zip(b.chunks(I32_SPAN)) {
        let ((a, a_tail), (b, b_tail)) = split(a, b);
        let acc = fold(a, b, _mm256_setzero_si256(), |acc, a, b| {
            _mm256_add_epi32(acc, _mm256_madd_epi16(load_u8(a), load_u8(b)))
        });
        total += sum_i32(acc) as u64 + (scalar::KERNELS.dot_u8)(a_tail, b_tail);
    }
    total
}

/// Widened to 16 bits: `vpmaddubsw` would saturate.
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_u8_i15(code: &[u8], hi: &[i8], lo: &[i8]) -> i64 {
    let mut total = 0;
    for ((code, hi), lo) in code.chunks(I32_SPAN).zip(hi.chunks(I32_SPAN)).zip(lo.chunks(I32_SPAN)) {
        let len = code.len().min(hi.len()).min(lo.len());
        let ((code, code_tail), (hi, hi_tail)) = (code[..len].as_chunks(), hi[..len].as_chunks());
        let (lo, lo_tail) = lo[..len].as_chunks();
        let mut acc = [_mm256_setzero_si256(); 4];
        let mut add = |i: usize, code: &[u8; 16], hi: &[i8; 16], lo: &[i8; 16]| {
            let query = _mm256_add_epi16(_mm256_slli_epi16::<8>(load_i8(hi)), load_i8(lo));
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(load_u8(code), query));
        };
        let ((codes, code), (his, hi), (los, lo)) = (code.as_chunks::<4>(), hi.as_chunks::<4>(), lo.as_chunks::<4>());
        for ((code, hi), lo) in codes.iter().zip(his).zip(los) {
            for i in 0..4 {
                add(i, &code[i], &hi[i], &lo[i]);
            }
        }
        for ((code, hi), lo) in code.iter().zip(hi).zip(lo) {
            add(0, code, hi, lo);
        }
        total += sum_i32(acc) + (scalar::KERNELS.dot_u8_i15)(code_tail, hi_tail, lo_tail);
    }
    total
}

#[target_feature(enable = "avx2,fma,f16c")]
fn l1_sq8(code: &[u8], scale: f32, offset: f32, query: &[f32]) -> f32 {
    let ((code, code_tail), (query, query_tail)) = split(code, query);
    let (scales, offsets) = (_mm256_set1_ps(scale), _mm256_set1_ps(offset));
    let acc = fold(code, query, _mm256_setzero_ps(), |acc, code, query| {
        let decoded = _mm256_fmadd_ps(scales, load_codes(code), offsets);
        _mm256_add_ps(acc, abs(_mm256_sub_ps(load_f32(query), decoded)))
    });
    sum_f32(acc) + (scalar::KERNELS.l1_sq8)(code_tail, scale, offset, query_tail)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn l1_sq8_pair(a: &[u8], a_scale: f32, a_offset: f32, b: &[u8], b_scale: f32, b_offset: f32) -> f32 {
    let ((a, a_tail), (b, b_tail)) = split(a, b);
    let (a_scales, a_offsets) = (_mm256_set1_ps(a_scale), _mm256_set1_ps(a_offset));
    let (b_scales, b_offsets) = (_mm256_set1_ps(b_scale), _mm256_set1_ps(b_offset));
    let acc = fold(a, b, _mm256_setzero_ps(), |acc, a, b| {
        let a_value = _mm256_fmadd_ps(a_scales, load_codes(a), a_offsets);
        let b_value = _mm256_fmadd_ps(b_scales, load_codes(b), b_offsets);
        _mm256_add_ps(acc, abs(_mm256_sub_ps(a_value, b_value)))
    });
    sum_f32(acc) + (scalar::KERNELS.l1_sq8_pair)((a_tail, a_scale, a_offset), (b_tail, b_scale, b_offset))
}

/// Groups of 4 bits whose 16-bit sums do not overflow: 255 for each.
const GROUP_SPAN: usize = 256;

#[target_feature(enable = "avx2,fma,f16c")]
fn fast_scan(codes: &[u8], tables: &[u8], sums: &mut [u32; 32]) {
    let len = codes.len().min(tables.len()) & !15;
    for (codes, tables) in codes[..len].chunks(16 * GROUP_SPAN).zip(tables[..len].chunks(16 * GROUP_SPAN)) {
        let (nibble, zero) = (_mm256_set1_epi8(15), _mm256_setzero_si256());
        // Bytes as they are, and the odd ones alone, for either half of the rows; 2 groups side by side.
        let (mut low, mut low_odd, mut high, mut high_odd) = (zero, zero, zero, zero);
        let mut add = |codes: __m256i, tables: __m256i| {
            let first = _mm256_shuffle_epi8(tables, _mm256_and_si256(codes, nibble));
            let second = _mm256_shuffle_epi8(tables, _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble));
            low = _mm256_add_epi16(low, first);
            low_odd = _mm256_add_epi16(low_odd, _mm256_srli_epi16::<8>(first));
            high = _mm256_add_epi16(high, second);
            high_odd = _mm256_add_epi16(high_odd, _mm256_srli_epi16::<8>(second));
        };
        let ((codes, codes_tail), (tables, tables_tail)) = (codes.as_chunks::<32>(), tables.as_chunks::<32>());
        for (codes, tables) in codes.iter().zip(tables) {
            add(load_32(codes), load_32(tables));
        }
        if let (Some(codes), Some(tables)) = (codes_tail.first_chunk::<16>(), tables_tail.first_chunk::<16>()) {
            add(load_16(codes), load_16(tables));
        }
        let (first, second) = sums.split_at_mut(16);
        add_sums(low, low_odd, first);
        add_sums(high, high_odd, second);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_32(x: &[u8; 32]) -> __m256i {
    // SAFETY: `x` is as long as the register, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// 16 bytes, then zeros.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_16(x: &[u8; 16]) -> __m256i {
    // SAFETY: `x` is as long as the load, which needs no alignment.
    _mm256_zextsi128_si256(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

/// Adds sums of 16 rows: `all` holds even rows with the odd ones 256 times on top, modulo 65,536.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_sums(all: __m256i, odd: __m256i, sums: &mut [u32]) {
    let even = _mm256_sub_epi16(all, _mm256_slli_epi16::<8>(odd));
    let fold = |x: __m256i| _mm_add_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let (even, odd) = (fold(even), fold(odd));
    let rows = [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)];
    for (sums, rows) in sums.as_chunks_mut::<8>().0.iter_mut().zip(rows) {
        // SAFETY: 8 sums are as long as the register, and neither load nor store needs alignment.
        unsafe {
            let before = _mm256_loadu_si256(sums.as_ptr().cast());
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_add_epi32(before, _mm256_cvtepu16_epi32(rows)));
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<const ROWS: usize>(
    rows: &[f32],
    dimensions: usize,
    panel: &[f32],
    half: usize,
    out: &mut [[f32; 32]],
) -> usize {
    let rows = &rows[..ROWS * dimensions];
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    for (i, values) in panel.as_chunks::<32>().0[..dimensions].iter().enumerate() {
        let values = &values.as_chunks::<8>().0[2 * half..2 * half + 2];
        let panel = [load_f32(&values[0]), load_f32(&values[1])];
        for (row, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row < ROWS and i < dimensions, and `rows` has ROWS * dimensions values.
            let x = _mm256_set1_ps(unsafe { *rows.get_unchecked(row * dimensions + i) });
            acc[0] = _mm256_fmadd_ps(x, panel[0], acc[0]);
            acc[1] = _mm256_fmadd_ps(x, panel[1], acc[1]);
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        for (acc, out) in acc.iter().zip(&mut out.as_chunks_mut::<8>().0[2 * half..2 * half + 2]) {
            // SAFETY: 8 values are as long as the register, and the store needs no alignment.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *acc) };
        }
    }
    ROWS
}

#[target_feature(enable = "avx2,fma,f16c")]
fn least_distance(panel: u32, norms2: &[f32; 32], dots: &[[f32; 32]], least: &mut [Least]) {
    scalar::least_distance(panel, norms2, dots, least);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn least_second(panel: u32, values: [&[f32; 32]; 3], along: f32, weight: f32, least: &mut Least) {
    scalar::least_second(panel, values, along, weight, least);
}

#[target_feature(enable = "avx2,fma,f16c")]
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
