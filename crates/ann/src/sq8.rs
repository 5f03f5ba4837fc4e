//! `sq8`: one byte a dimension with a scale and an offset per vector, and queries prepared for it.

use crate::distance::kernels;

/// What belongs to one code: value `i` is decoded as `offset + scale * code[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Zero where all values are equal.
    pub scale: f32,
    /// The smallest value.
    pub offset: f32,
    /// Squared Euclidean norm of the decoded vector, rounded; infinite or zero where f32 does not hold it.
    pub norm2: f32,
    /// Sum of the code's bytes.
    pub sum: u32,
    /// Euclidean norm of (vector - decoded vector), rounded up: never smaller than the true value.
    pub residual_l2: f32,
    /// Sum of |vector - decoded vector|, rounded up; infinite where f32 does not hold it.
    pub residual_l1: f32,
}

/// Encodes `vector` (finite values, as long as `code`) into `code`.
///
/// All arithmetic is in f64, which holds the range and the squares of every f32.
pub fn encode(vector: &[f32], code: &mut [u8]) -> Params {
    assert_eq!(vector.len(), code.len(), "a code has one byte for each dimension");
    let (min, max) = range(vector);
    let width = f64::from(max) - f64::from(min);
    let scale = (width / 255.0) as f32;
    let scale = if scale.is_normal() { scale } else { 0.0 };
    let errors = quantize(vector, code, min, scale);
    let sum = code.iter().map(|&c| u32::from(c)).sum();
    // An error is computed as (x - offset) - scale * code. The product is exact, the first difference is off by at
    // most 2^-53 * width, and the second by 2^-53 of itself.
    let len = vector.len() as f64;
    let residual_l2 = at_most(errors.squares.sqrt(), len, len.sqrt() * width);
    let residual_l1 = at_most(errors.magnitudes, len, len * width);
    Params {
        scale,
        offset: min,
        norm2: norm2(code, scale, min, sum) as f32,
        sum,
        residual_l2: round_up(residual_l2),
        residual_l1: round_up(residual_l1),
    }
}

/// What belongs to a code with this scaling, of a vector that is exactly what it decodes to.
pub fn params_of(code: &[u8], scale: f32, offset: f32) -> Params {
    let sum = code.iter().map(|&c| u32::from(c)).sum();
    Params { scale, offset, norm2: norm2(code, scale, offset, sum) as f32, sum, residual_l2: 0.0, residual_l1: 0.0 }
}

/// Inner product of two decoded vectors of the same length.
pub fn dot_pair((a, a_params): (&[u8], &Params), (b, b_params): (&[u8], &Params)) -> f64 {
    let [a_scale, a_offset, b_scale, b_offset] =
        [a_params.scale, a_params.offset, b_params.scale, b_params.offset].map(f64::from);
    a_offset * b_offset * a.len().min(b.len()) as f64
        + a_offset * b_scale * f64::from(b_params.sum)
        + b_offset * a_scale * f64::from(a_params.sum)
        + a_scale * b_scale * (kernels().dot_u8)(a, b) as f64
}

/// The smallest and the largest value, by lanes that the compiler turns into vector instructions.
fn range(vector: &[f32]) -> (f32, f32) {
    let first = vector.first().copied().unwrap_or(0.0);
    let (mut lows, mut highs) = ([first; 16], [first; 16]);
    let mut widen = |i: usize, x: f32| {
        lows[i] = if x < lows[i] { x } else { lows[i] };
        highs[i] = if x > highs[i] { x } else { highs[i] };
    };
    let (groups, rest) = vector.as_chunks::<16>();
    for group in groups {
        for (i, &x) in group.iter().enumerate() {
            widen(i, x);
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        widen(i, x);
    }
    (lows.into_iter().fold(first, f32::min), highs.into_iter().fold(first, f32::max))
}

/// Sums over the differences between a vector and its code.
struct Errors {
    squares: f64,
    magnitudes: f64,
}

/// Values that go through one step of an encoding loop together.
const GROUP: usize = 8;

/// Writes the codes, each the level nearest to its value.
fn quantize(vector: &[f32], code: &mut [u8], offset: f32, scale: f32) -> Errors {
    let (offset_wide, scale_wide) = (f64::from(offset), f64::from(scale));
    let inverse = if scale > 0.0 { 1.0 / scale_wide } else { 0.0 };
    let (mut squares, mut magnitudes) = ([0f64; GROUP], [0f64; GROUP]);
    let mut step = |values: &[f32; GROUP], codes: &mut [u8; GROUP]| {
        for i in 0..GROUP {
            let above = f64::from(values[i]) - offset_wide;
            // At most 255: the largest value is within 255 * (1 + 2^-23) levels.
            let (level, integer) = round(above * inverse);
            codes[i] = integer as u8;
            let error = above - scale_wide * level;
            squares[i] += error * error;
            magnitudes[i] += error.abs();
        }
    };
    let (groups, rest) = vector.as_chunks::<GROUP>();
    let (code_groups, code_rest) = code.as_chunks_mut::<GROUP>();
    for (values, codes) in groups.iter().zip(code_groups) {
        step(values, codes);
    }
    // The padding is encoded without error.
    let (mut values, mut codes) = ([offset; GROUP], [0; GROUP]);
    values[..rest.len()].copy_from_slice(rest);
    step(&values, &mut codes);
    code_rest.copy_from_slice(&codes[..rest.len()]);
    Errors { squares: squares.iter().sum(), magnitudes: magnitudes.iter().sum() }
}

/// Squared norm of the decoded vector: len * offset^2 + 2 * offset * scale * sum(code) + scale^2 * sum(code^2).
///
/// What a negative offset cancels costs no precision that matters: the codes hold a 0 and, unless all are equal, a 255,
/// so the terms are together at most 6 * len times the result, and the relative error is below 30 * len * 2^-53.
fn norm2(code: &[u8], scale: f32, offset: f32, sum: u32) -> f64 {
    let (scale, offset) = (f64::from(scale), f64::from(offset));
    let squares = (kernels().dot_u8)(code, code) as f64;
    code.len() as f64 * offset * offset + 2.0 * offset * scale * f64::from(sum) + scale * scale * squares
}

/// The integer nearest to `x`, ties to even, for |x| < 2^31. Unlike `f64::round` it needs no SSE4.1.
fn round(x: f64) -> (f64, i32) {
    /// 1.5 * 2^52: beside it, a double has no bits for a fraction, and its low bits are the integer.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let shifted = x + SHIFT;
    (shifted - SHIFT, shifted.to_bits() as i32)
}

/// An upper bound for a norm over `len` differences, computed in f64 as `norm`: `scale` is the norm of what each
/// difference was computed from, hence 2^-53 of it bounds their rounding, and the sum adds less than `len` roundings.
/// Twice the need, for the rounding here.
fn at_most(norm: f64, len: f64, scale: f64) -> f64 {
    norm * (1.0 + (len + 8.0) * f64::EPSILON) + scale * f64::EPSILON
}

/// The smallest f32 that is not below `x`.
fn round_up(x: f64) -> f32 {
    let rounded = x as f32;
    if f64::from(rounded) < x { rounded.next_up() } else { rounded }
}

/// A query as 15-bit integers in two planes: value `i` is about `step * (256 * hi[i] + lo[i])`.
#[derive(Clone, Debug)]
pub struct Query {
    hi: Vec<i8>,
    lo: Vec<i8>,
    step: f64,
    sum: f64,
    /// Euclidean norm of (query - its 15-bit form), rounded up.
    pub error: f64,
}

impl Query {
    /// Prepares `values`, which are finite.
    pub fn new(values: &[f32]) -> Self {
        let (low, high) = range(values);
        let max = f64::from(high.max(-low));
        let step = max / 32_000.0;
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let (mut hi, mut lo) = (vec![0; values.len()], vec![0; values.len()]);
        let (mut sum, mut squares) = (0i64, 0f64);
        for ((&x, hi), lo) in values.iter().zip(&mut hi).zip(&mut lo) {
            let (level, integer) = round(f64::from(x) * inverse);
            // The low byte as -128..=127 and what is left of 256s: at most 125 of them.
            *lo = integer as i8;
            *hi = ((integer + 128) >> 8) as i8;
            sum += i64::from(integer);
            squares += (f64::from(x) - step * level).powi(2);
        }
        let len = values.len() as f64;
        Self { hi, lo, step, sum: step * sum as f64, error: at_most(squares.sqrt(), len, len.sqrt() * max) }
    }

    /// Inner product of the 15-bit query with the decoded vector.
    ///
    /// Off from the query's own inner product by at most `error` times the norm of the decoded vector, and 2^-50 of
    /// (|offset| * sum of |query| + scale * sum of |query * code|) for rounding.
    pub fn dot(&self, code: &[u8], scale: f32, offset: f32) -> f64 {
        self.combine(self.integer_dot(code, 0), scale, offset)
    }

    /// The integer part of [`Self::dot`] for a part of a code that starts at dimension `start`; parts add up.
    pub fn integer_dot(&self, part: &[u8], start: usize) -> i64 {
        let end = start + part.len();
        (kernels().dot_u8_i15)(part, &self.hi[start..end], &self.lo[start..end])
    }

    /// The inner product whose integer part is `integer`.
    pub fn combine(&self, integer: i64, scale: f32, offset: f32) -> f64 {
        f64::from(offset) * self.sum + f64::from(scale) * self.step * integer as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    fn decode(params: &Params, c: u8) -> f64 {
        f64::from(params.offset) + f64::from(params.scale) * f64::from(c)
    }

    /// `a + b` and the rounding error of that sum, exactly.
    fn two_sum(a: f64, b: f64) -> (f64, f64) {
        let sum = a + b;
        let b_part = sum - a;
        (sum, (a - (sum - b_part)) + (b - b_part))
    }

    /// vector - decoded vector, with twice the precision of f64.
    fn difference(x: f32, params: &Params, c: u8) -> f64 {
        let (above, lost) = two_sum(f64::from(x), -f64::from(params.offset));
        let (error, lost_again) = two_sum(above, -f64::from(params.scale) * f64::from(c));
        error + (lost_again + lost)
    }

    fn check_encoding(vector: &[f32]) -> Result<(Vec<u8>, Params), TestCaseError> {
        let mut code = vec![0; vector.len()];
        let params = encode(vector, &mut code);
        let errors = || vector.iter().zip(&code).map(|(&x, &c)| difference(x, &params, c));
        let l2 = errors().map(|e| e * e).sum::<f64>().sqrt() * (1.0 - 1e-11);
        let l1 = errors().map(f64::abs).sum::<f64>() * (1.0 - 1e-11);
        prop_assert!(l2 <= f64::from(params.residual_l2), "l2 {l2:e} > {:e}", params.residual_l2);
        prop_assert!(l1 <= f64::from(params.residual_l1), "l1 {l1:e} > {:e}", params.residual_l1);
        prop_assert_eq!(params.sum, code.iter().map(|&c| u32::from(c)).sum::<u32>());
        let norm2: f64 = code.iter().map(|&c| decode(&params, c).powi(2)).sum();
        if norm2 > f64::from(f32::MAX) * (1.0 + 1e-7) {
            prop_assert_eq!(params.norm2, f32::INFINITY);
        } else if norm2 < f64::from(f32::MAX) {
            let error = (f64::from(params.norm2) - norm2).abs();
            prop_assert!(error <= 1e-6 * norm2 + 2e-45, "norm2 {:e}, exactly {norm2:e}", params.norm2);
        }
        for (i, e) in errors().enumerate() {
            let nearest = 0.5001 * f64::from(params.scale);
            let flat = if params.scale == 0.0 { 255.0 * f64::from(f32::MIN_POSITIVE) } else { 0.0 };
            prop_assert!(e.abs() <= nearest + flat, "value {i} is off by {e:e} with the scale {:e}", params.scale);
        }
        Ok((code, params))
    }

    fn check_dot(query: &[f32], vector: &[f32]) -> Result<(), TestCaseError> {
        let (code, params) = check_encoding(vector)?;
        let (other_code, other) = check_encoding(query)?;
        let prepared = Query::new(query);
        let (offset, scale) = (f64::from(params.offset), f64::from(params.scale));
        let expected: f64 = query.iter().zip(&code).map(|(&q, &c)| f64::from(q) * decode(&params, c)).sum();
        let norm = code.iter().map(|&c| decode(&params, c).powi(2)).sum::<f64>().sqrt();
        let size: f64 =
            query.iter().zip(&code).map(|(&q, &c)| f64::from(q).abs() * (offset.abs() + scale * f64::from(c))).sum();
        let got = prepared.dot(&code, params.scale, params.offset);
        // The expected value is itself a sum in f64, of which each term and partial sum is rounded.
        let rounding = size * (2f64.powi(-50) + (query.len() + 3) as f64 * f64::EPSILON);
        let bound = prepared.error * norm + rounding;
        prop_assert!((got - expected).abs() <= bound, "{got:e} is not within {bound:e} of {expected:e}");
        let pair: f64 = other_code.iter().zip(&code).map(|(&o, &c)| decode(&other, o) * decode(&params, c)).sum();
        let got = dot_pair((&other_code, &other), (&code, &params));
        let magnitude = |p: &Params| f64::from(p.offset).abs() + 255.0 * f64::from(p.scale);
        let bound = 4.0 * magnitude(&params) * magnitude(&other) * (query.len() as f64).powi(2) * f64::EPSILON;
        prop_assert!((got - pair).abs() <= bound, "{got:e} is not within {bound:e} of {pair:e}");
        Ok(())
    }

    /// Mostly ordinary values, and the borders of what f32 holds.
    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => -1f32..1.0,
            1 => any::<f32>().prop_filter("finite", |x| x.is_finite()),
            1 => prop::sample::select(vec![0.0, -0.0, 1e-45, -1e-45, 1e38, -1e38, f32::MAX, f32::MIN, 1.5e-38]),
        ]
    }

    fn vector(len: usize) -> impl Strategy<Value = Vec<f32>> {
        let plain = proptest::collection::vec(-1f32..1.0, len);
        let scaled = (plain.clone(), -44..38).prop_map(|(v, power)| {
            let factor = 10f64.powi(power);
            v.into_iter().map(|x| (f64::from(x) * factor) as f32).collect()
        });
        let shifted = (plain.clone(), -1e6f32..1e6).prop_map(|(v, by)| v.into_iter().map(|x| x + by).collect());
        let constant = value().prop_map(move |x| vec![x; len]);
        prop_oneof![3 => plain, 2 => scaled, 2 => shifted, 1 => constant,
            2 => proptest::collection::vec(value(), len)]
    }

    proptest! {
        #[test]
        fn bounds_hold_for_vectors_of_every_size(
            (query, vector) in prop_oneof![3 => 1usize..20, 3 => 20usize..600]
                .prop_flat_map(|len| (vector(len), vector(len))),
        ) {
            check_dot(&query, &vector)?;
        }
    }

    #[test]
    fn bounds_hold_at_the_extremes() {
        let vectors: [&[f32]; 8] = [
            &[-0.0, 0.0, -0.0],
            &[f32::MAX, f32::MIN, 0.0],
            &[1e-45, -1e-45, 0.0],
            &[f32::MIN_POSITIVE, 0.0, 1e-40],
            &[1e38, 1e38, 1e38],
            &[16_777_216.0, 16_777_217.0, 16_777_218.0],
            &[1e30, 1e-30, -1e-30],
            &[-1.0, 1.0, 0.0],
        ];
        for a in vectors {
            check_dot(&a[..1], &a[..1]).unwrap();
            vectors.iter().for_each(|b| check_dot(a, b).unwrap());
        }
        let long: Vec<f32> = (0..16_000).map(|i| if i % 3 == 0 { f32::MAX } else { f32::MIN / 3.0 }).collect();
        check_dot(&long, &long).unwrap();
        assert_eq!(encode(&[], &mut []).norm2, 0.0);
    }

    #[test]
    fn the_residual_is_tight() {
        let vector: Vec<f32> = (0..100).map(|i| ((i * 37) % 101) as f32 / 7.0 - 3.0).collect();
        let (_, params) = check_encoding(&vector).unwrap();
        assert!(params.residual_l2 < 0.2, "residual {}", params.residual_l2);
        assert!(params.residual_l1 < 1.5, "residual {}", params.residual_l1);
        let (_, constant) = check_encoding(&[0.3; 100]).unwrap();
        assert_eq!((constant.residual_l2, constant.residual_l1, constant.scale), (0.0, 0.0, 0.0));
    }
}
