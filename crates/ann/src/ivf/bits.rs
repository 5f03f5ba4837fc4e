//! RaBitQ: codes of one or two bits a dimension, estimates of distances from them, and how far off those may be.
//!
//! Gao & Long, "RaBitQ", SIGMOD 2024; Gao et al., "Practical and asymptotically optimal quantization ..", SIGMOD 2025 for
//! more than one bit. A row x in the list of centroid c is coded as *levels* l, one of -1, +1 (or -1.5, -0.5, +0.5,
//! +1.5) for each value of the rotated residual R(x - c), chosen to point in its direction as well as they can. With
//! r = |x - c|, a = `<l, R(x - c)>` / (|l| r) and k = r² / `<l, R(x - c)>`,
//!
//! `<x - c, q - c>` is estimated without bias by `k <l, R(q - c)> = k <l, Rq> - k <l, Rc>`, and off by more than
//! epsilon * r * |q - c| * sqrt((1 - a²) / (a² (D - 1))) only with a probability that falls as exp(-c epsilon²).
//!
//! The term with c goes into [`Factors::base`], so that one table of `<l, Rq>` serves all lists of a query. Distances
//! follow by |x - q|² = r² + |q - c|² - 2 `<x - c, q - c>` and `<x, q> = <c, q> + <x - c, c> + <x - c, q - c>`.

use super::rotate::Rotation;
use crate::distance::{Estimate, Metric, kernels};

/// How many times the expected error a bound allows for. Measured: smaller values cap recall, larger ones only cost
/// reranks.
const EPSILON: f64 = 1.9;
/// Below this many dimensions a code has two bits for each.
const ONE_BIT_FROM: usize = 200;
/// Rows of one block.
pub const BLOCK: usize = 32;
/// Squares of lengths up to this are computed with in f32.
const LARGE: f64 = 1e30;

/// Makes codes of rows, and tables of queries.
pub struct Coder {
    metric: Metric,
    rotation: Rotation,
    bits: usize,
}

/// What belongs to a code. The estimated rank is [`List::add`] + `base` + `scale` * `<levels, rotated query>`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// See [`Factors`].
    pub base: f32,
    /// See [`Factors`]; a value that 16 bits hold.
    pub scale: f32,
    /// How far the estimate may be off, in units of the distance from the query to the centroid. A value that 16 bits
    /// hold; infinite where nothing is known of the row.
    pub error: f32,
}

impl Factors {
    /// Where squares do not fit f32.
    const UNKNOWN: Self = Self { base: 0.0, scale: 0.0, error: f32::INFINITY };

    /// The scale as it is stored: bfloat16.
    pub fn scale_bits(&self) -> u16 {
        nearest_bf16(self.scale)
    }

    /// The error as it is stored: bfloat16.
    pub fn error_bits(&self) -> u16 {
        bf16_not_below(self.error)
    }
}

/// The value of a stored scale or error.
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `x`, finite, to the nearest bfloat16, ties to even.
fn nearest_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The smallest bfloat16 that is not below `x`, which is not negative.
fn bf16_not_below(x: f32) -> u16 {
    (x.to_bits().div_ceil(1 << 16)) as u16
}

/// What a query adds to all estimates of one list.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// See [`Factors`].
    pub add: f32,
    /// Distance from the query to the centroid.
    pub error: f32,
}

impl Coder {
    /// The coder of an index. L1 has no codes.
    pub fn new(metric: Metric, dimensions: usize) -> Self {
        assert_ne!(metric, Metric::L1, "inner products say nothing of L1 distances");
        let bits = if dimensions < ONE_BIT_FROM { 2 } else { 1 };
        Self { metric, rotation: Rotation::new(dimensions), bits }
    }

    /// Values of a rotated vector.
    pub fn width(&self) -> usize {
        self.rotation.width()
    }

    /// Bytes of one row's code, a multiple of 8.
    pub fn code_len(&self) -> usize {
        self.width() * self.bits / 8
    }

    /// Groups of 16 bytes of one block of 32 rows: 4 bits of each row.
    pub fn groups(&self) -> usize {
        2 * self.code_len()
    }

    /// Rotates a vector as [`Self::encode`] and [`Self::query`] take it.
    pub fn rotate(&self, vector: &[f32], out: &mut [f32]) {
        self.rotation.apply(vector, out);
    }

    /// Codes `row`, relative to `centroid` (both rotated), into `code`, of [`Self::code_len`] bytes: value i of the row
    /// has bit i, or bits 2i and 2i + 1.
    pub fn encode(&self, row: &[f32], centroid: &[f32], code: &mut [u8]) -> Factors {
        assert_eq!((row.len(), centroid.len(), code.len()), (self.width(), self.width(), self.code_len()));
        if self.bits == 1 {
            self.factors(encode_signs(row, centroid, code))
        } else {
            let threshold = threshold(row, centroid);
            self.factors(encode_levels(row, centroid, threshold, code))
        }
    }

    fn factors(&self, s: Sums) -> Factors {
        let r2 = s.residual2;
        // Not a number, too large, or a residual that has no direction.
        if !(r2 <= LARGE && s.centroid_residual.abs() <= LARGE && s.centroid_levels.abs() <= LARGE) {
            return Factors::UNKNOWN;
        }
        if s.residual_levels <= 0.0 {
            return Factors { base: 0.0, scale: 0.0, error: 0.0 };
        }
        let k = r2 / s.residual_levels;
        let unit = if self.metric == Metric::L2 { 2.0 } else { 1.0 };
        let scale = from_bf16(nearest_bf16((-unit * k) as f32));
        let stored_k = -f64::from(scale) / unit;
        let own = if self.metric == Metric::L2 { r2 } else { -s.centroid_residual };
        let base = own + unit * stored_k * s.centroid_levels;
        // a², which rounding may lift above 1.
        let cosine2 = (s.residual_levels * s.residual_levels / (s.levels2 * r2)).min(1.0);
        let spread = ((1.0 - cosine2) / (cosine2 * (self.width() - 1) as f64)).sqrt();
        let rounded = (stored_k - k).abs() * s.levels2.sqrt();
        let error = unit * (EPSILON * r2.sqrt() * spread + rounded);
        let error = from_bf16(bf16_not_below((error as f32).next_up()));
        if base.abs() > 1e36 || !error.is_finite() {
            Factors::UNKNOWN
        } else {
            Factors { base: base as f32, scale, error }
        }
    }

    /// Lays out up to 32 codes as one block of [`Self::groups`] * 16 bytes; rows that are not there are zeros.
    pub fn pack(&self, codes: &[u8], block: &mut [u8]) {
        assert!(codes.len() <= BLOCK * self.code_len() && codes.len().is_multiple_of(self.code_len()));
        assert_eq!(block.len(), self.groups() * 16);
        block.fill(0);
        for (row, code) in codes.chunks_exact(self.code_len()).enumerate() {
            let (at, shift) = (row % 16, row / 16 * 4);
            for (byte, groups) in code.iter().zip(block.as_chunks_mut::<32>().0) {
                groups[at] |= (byte & 15) << shift;
                groups[at + 16] |= (byte >> 4) << shift;
            }
        }
    }

    /// Takes the code of row `i` out of a block.
    pub fn unpack(&self, block: &[u8], i: usize, code: &mut [u8]) {
        assert_eq!((block.len(), code.len()), (self.groups() * 16, self.code_len()));
        let (at, shift) = (i % 16, i / 16 * 4);
        for (byte, groups) in code.iter_mut().zip(block.as_chunks::<32>().0) {
            *byte = (groups[at] >> shift & 15) | (groups[at + 16] >> shift & 15) << 4;
        }
    }

    /// Prepares a query: rotated, with the squared norm of what [`Probe`](crate::hnsw::probe::Probe) takes.
    pub fn query(&self, rotated: &[f32], norm2: f32) -> Query {
        assert_eq!(rotated.len(), self.width());
        let mut query = Query {
            metric: self.metric,
            norm2: f64::from(norm2),
            tables: vec![0; self.groups() * 16],
            step: 0.0,
            offset: 0.0,
            error: 0.0,
            known: f64::from(norm2) <= LARGE && rotated.iter().all(|x| x.is_finite()),
        };
        if query.known {
            query.fill(rotated, self.bits);
        }
        query
    }
}

/// What the factors of a code are computed from.
#[derive(Default)]
struct Sums {
    /// |x - c|².
    residual2: f64,
    /// `<l, R(x - c)>`.
    residual_levels: f64,
    /// `<l, Rc>`.
    centroid_levels: f64,
    /// `<x - c, c>`.
    centroid_residual: f64,
    /// |l|².
    levels2: f64,
}

/// Values that are summed side by side.
const LANES: usize = 8;

/// Sums over all values, whose levels `level` tells from residuals.
#[inline(always)]
fn sums(row: &[f32], centroid: &[f32], level: impl Fn(f32) -> f32) -> Sums {
    let mut lanes = [[0f64; LANES]; 5];
    for (xs, cs) in row.as_chunks::<LANES>().0.iter().zip(centroid.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            let (c, residual) = (f64::from(cs[i]), f64::from(xs[i]) - f64::from(cs[i]));
            let level = f64::from(level(xs[i] - cs[i]));
            lanes[0][i] += residual * residual;
            lanes[1][i] += residual * level;
            lanes[2][i] += c * level;
            lanes[3][i] += c * residual;
            lanes[4][i] += level * level;
        }
    }
    let [residual2, residual_levels, centroid_levels, centroid_residual, levels2] = lanes.map(|l| l.iter().sum());
    Sums { residual2, residual_levels, centroid_levels, centroid_residual, levels2 }
}

fn encode_signs(row: &[f32], centroid: &[f32], code: &mut [u8]) -> Sums {
    for ((xs, cs), byte) in row.as_chunks::<8>().0.iter().zip(centroid.as_chunks::<8>().0).zip(code) {
        *byte = (0..8).fold(0, |byte, i| byte | u8::from(xs[i] - cs[i] >= 0.0) << i);
    }
    sums(row, centroid, |residual| if residual >= 0.0 { 1.0 } else { -1.0 })
}

fn encode_levels(row: &[f32], centroid: &[f32], threshold: f32, code: &mut [u8]) -> Sums {
    for ((xs, cs), byte) in row.as_chunks::<4>().0.iter().zip(centroid.as_chunks::<4>().0).zip(code) {
        *byte = (0..4).fold(0, |byte, i| {
            let residual = xs[i] - cs[i];
            let (above, outer) = (residual >= 0.0, residual.abs() > threshold);
            // 0, 1, 2, 3 for -1.5, -0.5, 0.5, 1.5.
            byte | (u8::from(above) << 1 | u8::from(above == outer)) << (2 * i)
        });
    }
    sums(row, centroid, |residual| {
        let size = if residual.abs() > threshold { 1.5 } else { 0.5 };
        if residual >= 0.0 { size } else { -size }
    })
}

/// The residual above which a level is 1.5, so that the angle between residual and levels is least.
///
/// Lifting one level from 0.5 to 1.5 adds the residual to `<l, residual>` and 2 to |l|²; it pays where the residual is
/// above `<l, residual>` / |l|², up to terms that vanish as the dimensions grow. That fixed point is found in a few rounds.
fn threshold(row: &[f32], centroid: &[f32]) -> f32 {
    let residual = |(x, c): (&f32, &f32)| (x - c).abs();
    let total: f32 = row.iter().zip(centroid).map(residual).sum();
    let mut threshold = total / row.len() as f32;
    let mut best = (0f32, threshold);
    for _ in 0..8 {
        let (mut above, mut count) = ([0f32; LANES], [0f32; LANES]);
        for (xs, cs) in row.as_chunks::<LANES>().0.iter().zip(centroid.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let size = (xs[i] - cs[i]).abs();
                above[i] += if size > threshold { size } else { 0.0 };
                count[i] += if size > threshold { 1.0 } else { 0.0 };
            }
        }
        let dot = 0.5 * total + above.iter().sum::<f32>();
        let norm2 = 0.25 * row.len() as f32 + 2.0 * count.iter().sum::<f32>();
        let cosine = dot / norm2.sqrt();
        if cosine <= best.0 {
            break;
        }
        best = (cosine, threshold);
        threshold = dot / norm2;
    }
    best.1
}

/// The look-up tables of one query, for the lists of every centroid.
pub struct Query {
    metric: Metric,
    norm2: f64,
    /// For each group, what the 16 values of its 4 bits add, in steps above the least.
    tables: Vec<u8>,
    step: f32,
    offset: f32,
    /// How far `<l, Rq>` may be off because the tables hold bytes.
    error: f32,
    /// False: nothing can be said of any distance.
    known: bool,
}

/// For each of the 4 bits, its factor in each of the 16 sums; one bit a dimension.
const SIGNS: [[f32; 16]; 4] = patterns(4);
/// For each of 2 dimensions, its level in each of the 16 sums; two bits a dimension.
const LEVELS: [[f32; 16]; 4] = patterns(2);

const fn patterns(dimensions: usize) -> [[f32; 16]; 4] {
    let mut patterns = [[0.0; 16]; 4];
    let mut i = 0;
    while i < dimensions * 16 {
        let (dimension, sum) = (i / 16, i % 16);
        patterns[dimension][sum] = if dimensions == 4 {
            if sum >> dimension & 1 == 1 { 1.0 } else { -1.0 }
        } else {
            (sum >> (2 * dimension) & 3) as f32 - 1.5
        };
        i += 1;
    }
    patterns
}

impl Query {
    fn fill(&mut self, rotated: &[f32], bits: usize) {
        let dimensions = 4 / bits;
        let largest_level = if bits == 1 { 1.0 } else { 1.5 };
        let size = |group: &[f32]| largest_level * group.iter().map(|x| x.abs()).sum::<f32>();
        let widest = rotated.chunks_exact(dimensions).map(|group| 2.0 * size(group)).fold(0f32, f32::max);
        let step = widest / 255.0;
        let inverse = if step.is_normal() { 1.0 / step } else { 0.0 };
        let patterns = if bits == 1 { &SIGNS } else { &LEVELS };
        let mut offset = 0f64;
        for (group, table) in rotated.chunks_exact(dimensions).zip(self.tables.as_chunks_mut::<16>().0) {
            let least = -size(group);
            offset += f64::from(least);
            let mut sums = [-least; 16];
            for (&x, pattern) in group.iter().zip(patterns) {
                for (sum, level) in sums.iter_mut().zip(pattern) {
                    *sum += x * level;
                }
            }
            for (entry, sum) in table.iter_mut().zip(sums) {
                // Beside 2^23 a float has no fraction: its low bits are the nearest integer, at most 255.
                *entry = (sum * inverse + 8_388_608.0).to_bits() as u8;
            }
        }
        let groups = (rotated.len() / dimensions) as f64;
        // Each entry is off by up to half a step, evenly; and everything is rounded to f32.
        let rounding = f64::from(f32::EPSILON) * (rotated.len() as f64 * self.norm2).sqrt();
        (self.step, self.offset) = (step, offset as f32);
        self.error = (EPSILON * f64::from(step) * (groups / 12.0).sqrt() + rounding) as f32;
    }

    /// What is added for the list of a centroid, given its rank (as of [`Probe::rank`](crate::hnsw::probe::Probe::rank))
    /// and its squared norm.
    pub fn list(&self, centroid_rank: f32, centroid_norm2: f32) -> List {
        let (rank, norm2) = (f64::from(centroid_rank), f64::from(centroid_norm2));
        let distance2 = match self.metric {
            Metric::L2 => rank,
            Metric::Cosine => self.norm2 + norm2 - 2.0 * (1.0 - rank),
            _ => self.norm2 + norm2 + 2.0 * rank,
        };
        // Rank and norms were rounded to f32.
        let distance2 = distance2.max(0.0) + 1e-6 * (self.norm2 + norm2);
        // Neither infinite nor zero, which would make a NaN with an infinite or zero factor of a row.
        let error = (distance2.sqrt() as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
        let error = if error.is_nan() { f32::MAX } else { error };
        List { add: if rank.is_nan() { f32::MIN } else { centroid_rank.clamp(-1e38, 1e38) }, error }
    }

    /// Adds to the sums of a block's rows what its groups from `first_group` on look up. `codes`, whole groups of 16
    /// bytes, may be any part of a block; parts add up, from sums of zero.
    pub fn accumulate(&self, codes: &[u8], first_group: usize, sums: &mut [u32; BLOCK]) {
        (kernels().fast_scan)(codes, &self.tables[first_group * 16..], sums);
    }

    /// Estimated ranks of a block's rows, and what they are hardly ever below: in the units of
    /// [`Probe::rank`](crate::hnsw::probe::Probe::rank), never NaN for factors that [`Coder::encode`] made.
    #[expect(clippy::too_many_arguments, reason = "columns of a block")]
    pub fn estimate(
        &self,
        sums: &[u32; BLOCK],
        base: &[f32; BLOCK],
        scale: &[u16; BLOCK],
        error: &[u16; BLOCK],
        list: List,
        est: &mut [f32; BLOCK],
        bound: &mut [f32; BLOCK],
    ) {
        if !self.known {
            est.fill(list.add);
            bound.fill(f32::NEG_INFINITY);
            return;
        }
        let terms = Estimate {
            add: list.add,
            distance: list.error,
            step: self.step,
            offset: self.offset,
            table_error: self.error,
        };
        (kernels().estimate)(&terms, sums, [scale, error], base, est, bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hnsw::probe::{Probe, Scaling};
    use crate::ivf::rotate::Random;
    use crate::sq8;
    use proptest::prelude::*;

    const METRICS: [Metric; 3] = [Metric::L2, Metric::Cosine, Metric::InnerProduct];

    fn normal(random: &mut Random) -> f32 {
        ((0..12).map(|_| random.unit()).sum::<f64>() - 6.0) as f32
    }

    fn vector(random: &mut Random, len: usize) -> Vec<f32> {
        (0..len).map(|_| normal(random)).collect()
    }

    fn near(random: &mut Random, center: &[f32], spread: f32) -> Vec<f32> {
        center.iter().map(|x| x + spread * normal(random)).collect()
    }

    fn unit(metric: Metric, vector: Vec<f32>) -> Vec<f32> {
        crate::hnsw::probe::normalize(metric, &vector).expect("not zero").into_owned()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    }

    fn rank(metric: Metric, query: &[f32], row: &[f32]) -> f64 {
        match metric {
            Metric::L2 => query.iter().zip(row).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum(),
            Metric::Cosine => 1.0 - dot(query, row),
            _ => -dot(query, row),
        }
    }

    fn rotated(coder: &Coder, vector: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; coder.width()];
        coder.rotate(vector, &mut out);
        out
    }

    /// Codes rows in blocks and estimates them all: (estimate, bound) of each.
    fn estimates(metric: Metric, query: &[f32], centroid: &[f32], rows: &[Vec<f32>]) -> Vec<(f32, f32)> {
        let coder = Coder::new(metric, query.len());
        let center = rotated(&coder, centroid);
        let norm2 = |v: &[f32]| dot(v, v) as f32;
        let prepared = coder.query(&rotated(&coder, query), norm2(query));
        let list = prepared.list(rank(metric, query, centroid) as f32, norm2(centroid));
        let mut all = Vec::new();
        for rows in rows.chunks(BLOCK) {
            let mut codes = vec![0; rows.len() * coder.code_len()];
            let (mut base, mut scale, mut error) = ([0.0; BLOCK], [0; BLOCK], [0; BLOCK]);
            for (i, (row, code)) in rows.iter().zip(codes.chunks_exact_mut(coder.code_len())).enumerate() {
                let factors = coder.encode(&rotated(&coder, row), &center, code);
                (base[i], scale[i], error[i]) = (factors.base, factors.scale_bits(), factors.error_bits());
                assert_eq!((from_bf16(scale[i]), from_bf16(error[i])), (factors.scale, factors.error));
            }
            let mut block = vec![0; coder.groups() * 16];
            coder.pack(&codes, &mut block);
            let mut sums = [0; BLOCK];
            prepared.accumulate(&block, 0, &mut sums);
            let (mut est, mut bound) = ([0.0; BLOCK], [0.0; BLOCK]);
            prepared.estimate(&sums, &base, &scale, &error, list, &mut est, &mut bound);
            all.extend(est.into_iter().zip(bound).take(rows.len()));
        }
        all
    }

    /// The promise of the codes, for rows and queries as they lie in real lists: estimates are right on average, and
    /// bounds hold. Errors are nearly normal, so 1.9 of them hold in 97.1 % on one side.
    #[test]
    fn estimates_are_unbiased_and_bounds_hold() {
        for metric in METRICS {
            for (dimensions, shift) in
                [(32, 0.0), (100, 0.0), (100, 3.0), (199, 0.0), (200, 0.0), (384, 1.0), (1000, 0.0)]
            {
                let mut random = Random(dimensions as u64);
                let (mut held, mut total, mut bias, mut square, mut slack) = (0, 0, 0.0, 0.0, 0.0);
                for _ in 0..20 {
                    let mut centroid = vector(&mut random, dimensions);
                    centroid.iter_mut().for_each(|x| *x += shift);
                    let centroid = unit(metric, centroid);
                    let size = if metric == Metric::Cosine { 1.0 / (dimensions as f32).sqrt() } else { 1.0 };
                    let query = unit(metric, near(&mut random, &centroid, 0.7 * size));
                    let rows: Vec<_> =
                        (0..100).map(|_| unit(metric, near(&mut random, &centroid, 0.5 * size))).collect();
                    for (row, (est, bound)) in rows.iter().zip(estimates(metric, &query, &centroid, &rows)) {
                        let exact = rank(metric, &query, row);
                        let error = f64::from(est) - exact;
                        (bias, square) = (bias + error, square + error * error);
                        held += usize::from(f64::from(bound) <= exact);
                        slack += f64::from(est - bound);
                        total += 1;
                    }
                }
                let (n, name) = (f64::from(total), format!("{metric:?}, {dimensions} dimensions, shift {shift}"));
                let deviation = (square / n).sqrt();
                assert!((bias / n).abs() < 4.0 * deviation / n.sqrt(), "{name}: bias {:e} of {deviation:e}", bias / n);
                assert!(held as f64 >= 0.965 * n, "{name}: {held} bounds of {total} hold");
                // Not wider than promised either.
                assert!(slack / n < 2.6 * deviation, "{name}: slack {:e} for errors of {deviation:e}", slack / n);
            }
        }
    }

    #[test]
    fn two_bits_are_twice_as_sharp_as_one() {
        let deviation = |dimensions: usize| {
            let mut random = Random(7);
            let centroid = vector(&mut random, dimensions);
            let query = near(&mut random, &centroid, 1.0);
            let rows: Vec<_> = (0..2000).map(|_| near(&mut random, &centroid, 1.0)).collect();
            let all = estimates(Metric::L2, &query, &centroid, &rows);
            let square: f64 =
                rows.iter().zip(all).map(|(r, (e, _))| (f64::from(e) - rank(Metric::L2, &query, r)).powi(2)).sum();
            (square / 2000.0 / dimensions as f64).sqrt()
        };
        let (two, one) = (deviation(192), deviation(256));
        assert!(two < 0.6 * one, "{two} with two bits, {one} with one");
    }

    #[test]
    fn a_row_on_the_centroid_is_exact() {
        for metric in METRICS {
            for dimensions in [3, 100, 384] {
                let mut random = Random(3);
                let centroid = unit(metric, vector(&mut random, dimensions));
                let query = unit(metric, vector(&mut random, dimensions));
                let expected = rank(metric, &query, &centroid) as f32;
                for (est, bound) in estimates(metric, &query, &centroid, std::slice::from_ref(&centroid)) {
                    assert_eq!((est, bound), (expected, expected), "{metric:?}, {dimensions} dimensions");
                }
            }
        }
    }

    #[test]
    fn a_probe_gives_the_rank_of_a_centroid() {
        let mut random = Random(5);
        for metric in METRICS {
            let (query, row) = (unit(metric, vector(&mut random, 384)), unit(metric, vector(&mut random, 384)));
            let mut code = vec![0; 384];
            let params = sq8::encode(&row, &mut code);
            let decoded: Vec<f32> = code.iter().map(|&c| params.offset + params.scale * f32::from(c)).collect();
            let probe = Probe::new(metric, &query);
            let scaling = Scaling { scale: params.scale, offset: params.offset, norm2: params.norm2 };
            let got = probe.rank(probe.part(0..384, &code, scaling), scaling);
            let coder = Coder::new(metric, 384);
            let list = coder.query(&rotated(&coder, &query), dot(&query, &query) as f32).list(got, params.norm2);
            let distance = rank(Metric::L2, &query, &decoded).sqrt();
            assert!((f64::from(list.error) - distance).abs() < 1e-3 * distance, "{metric:?}");
        }
    }

    fn extreme() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -1f32..1.0,
            1 => any::<f32>().prop_filter("finite", |x| x.is_finite()),
            1 => prop::sample::select(vec![0.0, -0.0, 1e-45, 1e30, -1e30, f32::MAX, f32::MIN, 1e15, 1e-20]),
        ]
    }

    proptest! {
        #[test]
        fn finite_vectors_never_make_nan(
            (vectors, power) in (1usize..260).prop_flat_map(|len| {
                (prop::collection::vec(prop::collection::vec(extreme(), len), 3), -45..39)
            }),
            plain in any::<bool>(),
        ) {
            let scale = |v: &Vec<f32>| -> Vec<f32> {
                let factor = 10f64.powi(power);
                v.iter().map(|&x| (f64::from(x) * factor).clamp(-3e38, 3e38) as f32).collect()
            };
            let vectors = if plain { vectors } else { vectors.iter().map(scale).collect::<Vec<_>>() };
            for metric in METRICS {
                let rows = [vectors[2].clone(), vectors[1].clone(), vec![0.0; vectors[0].len()]];
                for centroid in [&vectors[1], &rows[2]] {
                    for (est, bound) in estimates(metric, &vectors[0], centroid, &rows) {
                        prop_assert!(!est.is_nan() && !bound.is_nan() && bound <= est, "{metric:?}: {est} {bound}");
                    }
                }
            }
        }

        #[test]
        fn blocks_hold_their_codes(
            (dimensions, rows, seed) in (1usize..600, 0usize..=32, any::<u64>()),
        ) {
            let (coder, mut random) = (Coder::new(Metric::L2, dimensions), Random(seed));
            let codes: Vec<u8> = (0..rows * coder.code_len()).map(|_| random.next() as u8).collect();
            let mut block = vec![255; coder.groups() * 16];
            coder.pack(&codes, &mut block);
            let mut code = vec![0; coder.code_len()];
            for i in 0..32 {
                coder.unpack(&block, i, &mut code);
                let expected = codes.chunks_exact(coder.code_len()).nth(i);
                prop_assert!(expected.map_or(code.iter().all(|&b| b == 0), |e| e == code), "row {i}");
            }
        }

        #[test]
        fn pieces_add_up(dimensions in 1usize..600, cuts in prop::collection::vec(0usize..160, 0..5), seed in any::<u64>()) {
            let (coder, mut random) = (Coder::new(Metric::L2, dimensions), Random(seed));
            let block: Vec<u8> = (0..coder.groups() * 16).map(|_| random.next() as u8).collect();
            let query = coder.query(&vector(&mut random, coder.width()), 1.0);
            let mut whole = [0; BLOCK];
            query.accumulate(&block, 0, &mut whole);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(coder.groups())).collect();
            cuts.extend([0, coder.groups()]);
            cuts.sort_unstable();
            let mut sums = [0; BLOCK];
            for pair in cuts.windows(2) {
                query.accumulate(&block[pair[0] * 16..pair[1] * 16], pair[0], &mut sums);
            }
            prop_assert_eq!(whole, sums);
        }
    }
}
