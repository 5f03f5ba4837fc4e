//! AVX-512 kernels; tails are masked loads, never scalar loops.

use super::{Estimate, Kernels, Least, scalar, table};
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

/// Groups of 4 bits whose 16-bit sums do not overflow: 255 for each.
const GROUP_SPAN: usize = 256;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn fast_scan(codes: &[u8], tables: &[u8], sums: &mut [u32; 32]) {
    let len = codes.len().min(tables.len()) & !15;
    for (codes, tables) in codes[..len].chunks(16 * GROUP_SPAN).zip(tables[..len].chunks(16 * GROUP_SPAN)) {
        let (nibble, zero) = (_mm512_set1_epi8(15), _mm512_setzero_si512());
        // Bytes as they are, and the odd ones alone, for either half of the rows; 4 groups side by side.
        let (mut low, mut low_odd, mut high, mut high_odd) = (zero, zero, zero, zero);
        let mut add = |codes: __m512i, tables: __m512i| {
            let first = _mm512_shuffle_epi8(tables, _mm512_and_si512(codes, nibble));
            let second = _mm512_shuffle_epi8(tables, _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble));
            low = _mm512_add_epi16(low, first);
            low_odd = _mm512_add_epi16(low_odd, _mm512_srli_epi16::<8>(first));
            high = _mm512_add_epi16(high, second);
            high_odd = _mm512_add_epi16(high_odd, _mm512_srli_epi16::<8>(second));
        };
        let ((codes, codes_tail), (tables, tables_tail)) = (codes.as_chunks::<64>(), tables.as_chunks::<64>());
        for (codes, tables) in codes.iter().zip(tables) {
            add(load_whole(codes), load_whole(tables));
        }
        if !codes_tail.is_empty() {
            add(load_bytes(codes_tail), load_bytes(tables_tail));
        }
        let (first, second) = sums.split_at_mut(16);
        add_sums(low, low_odd, first);
        add_sums(high, high_odd, second);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn load_whole(x: &[u8; 64]) -> __m512i {
    // SAFETY: `x` is as long as the register, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// Adds sums of 16 rows: `all` holds even rows with the odd ones 256 times on top, modulo 65,536.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn add_sums(all: __m512i, odd: __m512i, sums: &mut [u32]) {
    let even = _mm512_sub_epi16(all, _mm512_slli_epi16::<8>(odd));
    let fold = |x: __m512i| {
        let half = _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
        _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    };
    let (even, odd) = (fold(even), fold(odd));
    let rows = _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd));
    let sums = &mut sums[..16];
    // SAFETY: 16 sums are as long as the register, and neither load nor store needs alignment.
    unsafe {
        let before = _mm512_loadu_si512(sums.as_ptr().cast());
        _mm512_storeu_si512(sums.as_mut_ptr().cast(), _mm512_add_epi32(before, _mm512_cvtepu16_epi32(rows)));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn dot_panel(rows: &[f32], dimensions: usize, panel: &[f32], out: &mut [[f32; 32]]) {
    let dimensions = dimensions.max(1);
    let count = (rows.len() / dimensions).min(out.len());
    let mut at = 0;
    while at < count {
        let (rows, out) = (&rows[at * dimensions..], &mut out[at..count]);
        at += match count - at {
            12.. => dot_rows::<12>(rows, dimensions, panel, out),
            4.. => dot_rows::<4>(rows, dimensions, panel, out),
            _ => dot_rows::<1>(rows, dimensions, panel, out),
        };
    }
}

/// `ROWS` rows at once, so that each value of the panel is loaded once for all of them; returns `ROWS`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn dot_rows<const ROWS: usize>(rows: &[f32], dimensions: usize, panel: &[f32], out: &mut [[f32; 32]]) -> usize {
    let rows = &rows[..ROWS * dimensions];
    let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
    for (i, values) in panel.as_chunks::<32>().0[..dimensions].iter().enumerate() {
        // SAFETY: 32 values are two registers, and the loads need no alignment.
        let panel = unsafe { [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16))] };
        for (row, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row < ROWS and i < dimensions, and `rows` has ROWS * dimensions values.
            let x = _mm512_set1_ps(unsafe { *rows.get_unchecked(row * dimensions + i) });
            acc[0] = _mm512_fmadd_ps(x, panel[0], acc[0]);
            acc[1] = _mm512_fmadd_ps(x, panel[1], acc[1]);
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        // SAFETY: 32 values are two registers, and the stores need no alignment.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), acc[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), acc[1]);
        }
    }
    ROWS
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn least_distance(panel: u32, norms2: &[f32; 32], dots: &[[f32; 32]], least: &mut [Least]) {
    scalar::least_distance(panel, norms2, dots, least);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
fn least_second(panel: u32, values: [&[f32; 32]; 3], along: f32, weight: f32, least: &mut Least) {
    scalar::least_second(panel, values, along, weight, least);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,bmi2")]
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
