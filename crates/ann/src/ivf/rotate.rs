//! A random rotation that costs O(n log n): passes of random signs and fast Hadamard transforms.
//!
//! A width that is no power of two is covered by two transforms that overlap, the second one followed by a step between
//! the halves, since the overlap may be small.
//!
//! Part of the format: codes in old indexes are of vectors rotated like this, so nothing here may ever change.

const SEED: u64 = 0x6879_6272_6964_7631;

/// A fixed random rotation of vectors with `dimensions` values, padded with zeros to [`Self::width`].
pub struct Rotation {
    dimensions: usize,
    width: usize,
    /// The largest power of two that is not above the width.
    power: usize,
    /// For each pass and value, its sign times what keeps the pass's length at one.
    factors: Vec<f32>,
}

impl Rotation {
    /// The rotation for this number of dimensions.
    pub fn new(dimensions: usize) -> Self {
        let width = dimensions.max(1).next_multiple_of(64);
        let power = 1 << width.ilog2();
        let whole = 1.0 / (power as f64).sqrt();
        let mut random = Random(SEED);
        let passes = if power == width { 3 } else { 6 };
        let mut factors = Vec::with_capacity(passes * width);
        for pass in 0..passes {
            let halves = if Self::joins(pass, width, power) { 0.5f64.sqrt() } else { 1.0 };
            let window = Self::window(pass, width, power);
            for i in 0..width {
                let size = halves * if window.contains(&i) { whole } else { 1.0 };
                factors.push(if random.next() >> 63 == 0 { size as f32 } else { -size as f32 });
            }
        }
        Self { dimensions, width, power, factors }
    }

    /// Values of a rotated vector: a multiple of 64.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rotates `vector` into `out`, of [`Self::width`] values. Lengths near what f32 holds at most may come out infinite
    /// or NaN.
    pub fn apply(&self, vector: &[f32], out: &mut [f32]) {
        assert_eq!((vector.len(), out.len()), (self.dimensions, self.width), "lengths of a vector and its rotation");
        out[..vector.len()].copy_from_slice(vector);
        out[vector.len()..].fill(0.0);
        for (pass, factors) in self.factors.chunks_exact(self.width).enumerate() {
            out.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
            hadamard(&mut out[Self::window(pass, self.width, self.power)]);
            if Self::joins(pass, self.width, self.power) {
                let (low, high) = out.split_at_mut(self.width / 2);
                butterfly(low, high);
            }
        }
    }

    /// What the transform of a pass covers: in turn the first and the last values.
    fn window(pass: usize, width: usize, power: usize) -> std::ops::Range<usize> {
        if pass.is_multiple_of(2) { 0..power } else { width - power..width }
    }

    /// Whether the halves are joined after a pass.
    fn joins(pass: usize, width: usize, power: usize) -> bool {
        power < width && !pass.is_multiple_of(2)
    }
}

/// The Hadamard transform, not scaled, of a power of two of values, at least 64.
fn hadamard(values: &mut [f32]) {
    for chunk in values.as_chunks_mut::<16>().0 {
        small::<1>(chunk);
        small::<2>(chunk);
        small::<4>(chunk);
        small::<8>(chunk);
    }
    let mut step = 16;
    while step < values.len() {
        for pair in values.chunks_exact_mut(2 * step) {
            let (low, high) = pair.split_at_mut(step);
            butterfly(low, high);
        }
        step *= 2;
    }
}

/// One step of the transform within 16 values.
#[inline]
fn small<const STEP: usize>(values: &mut [f32; 16]) {
    let before = *values;
    for i in 0..16 {
        values[i] = if i & STEP == 0 { before[i] + before[i ^ STEP] } else { before[i ^ STEP] - before[i] };
    }
}

fn butterfly(low: &mut [f32], high: &mut [f32]) {
    for (x, y) in low.iter_mut().zip(high) {
        (*x, *y) = (*x + *y, *x - *y);
    }
}

/// SplitMix64 (Steele et al., OOPSLA 2014).
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not zero; the bias is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn lengths_and_angles_stay(pairs in prop::collection::vec((-1f32..1.0, -1f32..1.0), 1..1200)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let rotation = Rotation::new(a.len());
            let (mut ra, mut rb) = (vec![f32::NAN; rotation.width()], vec![f32::NAN; rotation.width()]);
            rotation.apply(&a, &mut ra);
            rotation.apply(&b, &mut rb);
            let size = (dot(&a, &a) * dot(&b, &b)).sqrt();
            prop_assert!((dot(&ra, &ra) - dot(&a, &a)).abs() <= 1e-5 * dot(&a, &a));
            prop_assert!((dot(&ra, &rb) - dot(&a, &b)).abs() <= 1e-5 * size);
        }
    }

    /// A single value spreads over all: no value of the rotated vector holds much of it.
    #[test]
    fn unit_vectors_spread() {
        for dimensions in [64, 100, 384, 700, 768, 1536] {
            let rotation = Rotation::new(dimensions);
            let mut out = vec![0.0; rotation.width()];
            for i in 0..dimensions {
                let mut vector = vec![0.0; dimensions];
                vector[i] = 1.0;
                rotation.apply(&vector, &mut out);
                let largest = out.iter().fold(0f32, |m, x| m.max(x.abs()));
                let l1: f32 = out.iter().map(|x| x.abs()).sum();
                let width = rotation.width() as f32;
                assert!(largest < 6.0 / width.sqrt(), "{dimensions}, {i}: {largest}");
                assert!(l1 > 0.6 * width.sqrt(), "{dimensions}, {i}: {l1}");
            }
        }
    }

    /// The rotation is part of the format.
    #[test]
    fn the_rotation_never_changes() {
        let hash = |dimensions: usize| {
            let rotation = Rotation::new(dimensions);
            let vector: Vec<f32> = (0..dimensions).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut out = vec![0.0; rotation.width()];
            rotation.apply(&vector, &mut out);
            out.iter().enumerate().map(|(i, &x)| f64::from(x) * (i % 13) as f64).sum::<f64>()
        };
        for (dimensions, expected) in [(3, PINS[0]), (100, PINS[1]), (384, PINS[2]), (1024, PINS[3])] {
            assert!((hash(dimensions) - expected).abs() < 1e-2, "{dimensions}: {}", hash(dimensions));
        }
    }

    const PINS: [f64; 4] = [-34.625, -47.497685, 384.667793, 29.677612];
}
