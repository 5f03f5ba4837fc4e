//! `sq8`: one byte a dimension with a scale and an offset per vector, and queries prepared for it.

use crate::distance::kernels;

/// What belongs to one code: value `i` is decoded as `offset + scale * code[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    pub scale: f32,
    pub offset: f32,
    /// Squared Euclidean norm of the decoded vector, rounded; infinite where f32 does not hold it.
    pub norm2: f32,
    /// Sum of the code's bytes.
    pub sum: u32,
    /// Euclidean norm of (vector - decoded vector), rounded up: never smaller than the true value.
    pub residual_l2: f32,
    /// Sum of |vector - decoded vector|, rounded up.
    pub residual_l1: f32,
}

/// Encodes `vector` (finite values, as long as `code`) into `code`.
pub fn encode(vector: &[f32], code: &mut [u8]) -> Params {
    assert_eq!(vector.len(), code.len(), "a code has one byte for each dimension");
    let (min, max) = vector.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &x| (lo.min(x), hi.max(x)));
    // In f64, since max - min may exceed f32's range.
    let scale = (((f64::from(max) - f64::from(min)) / 255.0) as f32).max(0.0);
    let scale = if scale.is_normal() { scale } else { 0.0 };
    let inverse = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
    let (mut norm2, mut sum, mut l2, mut l1) = (0f64, 0u32, 0f64, 0f64);
    for (&x, c) in vector.iter().zip(code.iter_mut()) {
        *c = ((f64::from(x) - f64::from(min)) * inverse).round().clamp(0.0, 255.0) as u8;
        let decoded = f64::from(min) + f64::from(scale) * f64::from(*c);
        norm2 += decoded * decoded;
        sum += u32::from(*c);
        let error = (f64::from(x) - decoded).abs();
        l2 += error * error;
        l1 += error;
    }
    Params { scale, offset: min, norm2: norm2 as f32, sum, residual_l2: round_up(l2.sqrt()), residual_l1: round_up(l1) }
}

/// The next f32 above `x` after a margin for the rounding of sums in f64 over 16,000 dimensions.
fn round_up(x: f64) -> f32 {
    let padded = x * (1.0 + 1e-11);
    let rounded = padded as f32;
    if f64::from(rounded) < padded { rounded.next_up() } else { rounded }
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
    pub fn new(values: &[f32]) -> Self {
        let max = values.iter().fold(0f32, |m, x| m.max(x.abs()));
        let step = f64::from(max) / 32_000.0;
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let mut query = Self {
            hi: Vec::with_capacity(values.len()),
            lo: Vec::with_capacity(values.len()),
            step,
            sum: 0.0,
            error: 0.0,
        };
        for &x in values {
            let q = (f64::from(x) * inverse).round().clamp(-32_000.0, 32_000.0) as i32;
            let hi = (q + 128) >> 8;
            query.hi.push(hi as i8);
            query.lo.push((q - 256 * hi) as i8);
            query.sum += step * f64::from(q);
            query.error += (f64::from(x) - step * f64::from(q)).powi(2);
        }
        query.error = query.error.sqrt() * (1.0 + 1e-11);
        query
    }

    /// Inner product of the 15-bit query with the decoded vector.
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

    #[test]
    fn decoding_stays_within_the_residual() {
        let vector: Vec<f32> = (0..100).map(|i| ((i * 37) % 101) as f32 / 7.0 - 3.0).collect();
        let mut code = vec![0; vector.len()];
        let params = encode(&vector, &mut code);
        let error: f64 = vector
            .iter()
            .zip(&code)
            .map(|(&x, &c)| (f64::from(x) - f64::from(params.offset) - f64::from(params.scale) * f64::from(c)).powi(2))
            .sum();
        assert!(error.sqrt() <= f64::from(params.residual_l2), "{} > {}", error.sqrt(), params.residual_l2);
        assert!(params.residual_l2 < 0.2, "residual {}", params.residual_l2);
    }

    #[test]
    fn dot_of_a_prepared_query_is_the_dot_of_the_decoded_vector() {
        let vector: Vec<f32> = (0..384).map(|i| ((i * 31) % 97) as f32 / 97.0 - 0.4).collect();
        let query: Vec<f32> = (0..384).map(|i| ((i * 17) % 89) as f32 / 89.0 - 0.6).collect();
        let mut code = vec![0; vector.len()];
        let params = encode(&vector, &mut code);
        let expected: f64 = query
            .iter()
            .zip(&code)
            .map(|(&q, &c)| f64::from(q) * (f64::from(params.offset) + f64::from(params.scale) * f64::from(c)))
            .sum();
        let prepared = Query::new(&query);
        let got = prepared.dot(&code, params.scale, params.offset);
        let bound = prepared.error * f64::from(params.norm2).sqrt() + 1e-9;
        assert!((got - expected).abs() <= bound, "{got} is not within {bound} of {expected}");
    }
}
