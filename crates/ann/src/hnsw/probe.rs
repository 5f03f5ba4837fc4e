//! A query vector prepared for distances to codes, and the bounds that make the order exact.

use crate::distance::{Metric, kernels};
use crate::sq8;
use std::borrow::Cow;
use std::ops::Range;

/// Unit roundoff of f32.
const U: f64 = 1.0 / (1 << 24) as f64;
/// Distance of f32's subnormal numbers: what a product may lose, however small it is.
const TINY: f64 = 1.401_298_464_324_817e-45;
/// Sums up to this, in any order, do not overflow in f32.
const HUGE: f64 = (1u128 << 127) as f64;

/// What a distance to one element is computed from, apart from its code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Value `i` is decoded as `offset + scale * code[i]`.
    pub scale: f32,
    /// See [`Self::scale`].
    pub offset: f32,
    /// Squared Euclidean norm of the decoded vector.
    pub norm2: f32,
}

/// A query vector.
///
/// Distances inside the graph are *ranks*: squared distance for L2, `1 - q·x` of unit vectors for cosine,
/// `-q·x` for inner product, the distance itself for L1; all to the decoded vector.
pub struct Probe {
    metric: Metric,
    query: sq8::Query,
    /// For L1, whose kernel works on floats.
    values: Vec<f32>,
    norm2: f64,
    norm: f64,
    l1_norm: f64,
    /// False: no distance to this query can be bounded.
    bounded: bool,
}

/// `vector` as the index stores it: scaled to length one for cosine. `None` if it is a zero vector under cosine.
pub fn normalize(metric: Metric, vector: &[f32]) -> Option<Cow<'_, [f32]>> {
    if metric != Metric::Cosine {
        return Some(vector.into());
    }
    let norm = squared_norm(vector).sqrt();
    (norm > 0.0).then(|| vector.iter().map(|&x| (f64::from(x) / norm) as f32).collect::<Vec<_>>().into())
}

/// A row's vector as the index stores it, with its code, which goes to `code`. `None` as in [`normalize`].
pub fn encode_row<'a>(metric: Metric, vector: &'a [f32], code: &mut [u8]) -> Option<(Cow<'a, [f32]>, sq8::Params)> {
    let stored = normalize(metric, vector)?;
    let mut params = sq8::encode(&stored, code);
    if !has_angle(metric, vector) {
        params.residual_l2 = f32::INFINITY;
    }
    Some((stored, params))
}

fn squared_norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x).powi(2)).sum()
}

/// Whether the SQL function's f32 sums tell the vector's angle to others: squares neither overflow nor vanish. If not,
/// its cosine distances may be anything, and nothing bounds them.
fn has_angle(metric: Metric, vector: &[f32]) -> bool {
    let least = vector.len() as f64 * TINY / U;
    metric != Metric::Cosine || (least..=HUGE).contains(&squared_norm(vector))
}

impl Probe {
    /// Prepares a query of finite values. `None` if it is a zero vector under cosine.
    pub fn of_query(metric: Metric, vector: &[f32]) -> Option<Self> {
        let probe = Self::new(metric, &normalize(metric, vector)?);
        Some(Self { bounded: has_angle(metric, vector), ..probe })
    }

    /// Prepares a vector that [`normalize`] returned.
    pub fn new(metric: Metric, vector: &[f32]) -> Self {
        let norm2 = squared_norm(vector);
        Self {
            metric,
            query: sq8::Query::new(vector),
            values: vector.to_vec(),
            norm2,
            norm: norm2.sqrt(),
            l1_norm: vector.iter().map(|&x| f64::from(x.abs())).sum(),
            bounded: true,
        }
    }

    /// The vector.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Its squared norm.
    pub fn norm2(&self) -> f64 {
        self.norm2
    }

    /// What part of a code, dimensions `range`, adds to the sum that [`Self::rank`] takes.
    pub fn part(&self, range: Range<usize>, code: &[u8], scaling: Scaling) -> f64 {
        match self.metric {
            Metric::L1 => f64::from((kernels().l1_sq8)(code, scaling.scale, scaling.offset, &self.values[range])),
            _ => self.query.integer_dot(code, range.start) as f64,
        }
    }

    /// The rank of an element whose parts add up to `sum`; infinite where f32 does not hold it.
    pub fn rank(&self, sum: f64, s: Scaling) -> f32 {
        match self.metric {
            Metric::L1 => sum as f32,
            Metric::L2 => (self.norm2 + f64::from(s.norm2) - 2.0 * self.dot(sum, s)) as f32,
            Metric::Cosine => (1.0 - self.dot(sum, s)) as f32,
            Metric::InnerProduct => -self.dot(sum, s) as f32,
        }
    }

    /// The SQL distance that a rank stands for.
    pub fn distance(&self, rank: f32) -> f64 {
        match self.metric {
            Metric::L2 => f64::from(rank).max(0.0).sqrt(),
            _ => f64::from(rank),
        }
    }

    fn dot(&self, sum: f64, s: Scaling) -> f64 {
        self.query.combine(sum as i64, s.scale, s.offset)
    }

    /// A value that the SQL distance of no row of this element is below, given its rank and residual.
    ///
    /// Triangle inequality for L2 and cosine, Cauchy-Schwarz for inner product and cosine; `slack` covers the 15-bit
    /// query, the rounding of norms and rank to f32, and the SQL function's own f32 sums in any order (Higham 2002,
    /// section 4.2: relative error below `n u / (1 - n u)` of the sum of magnitudes), which may also underflow by
    /// `TINY` a dimension, and overflow.
    pub fn lower_bound(&self, rank: f32, norm2: f32, residual: f32) -> f64 {
        let (rank, norm2, residual) = (f64::from(rank), f64::from(norm2), f64::from(residual));
        // Not below the decoded vector's norm, whose square was rounded to f32.
        let norm = (norm2 * (1.0 + 2.0 * U) + TINY).sqrt();
        let gamma = 1.01 * U * (self.values.len() + 16) as f64;
        let query_error = self.query.error * norm;
        let tiny = TINY * (self.values.len() + 16) as f64;
        let bound = match self.metric {
            Metric::L2 => {
                let slack = 2.0 * query_error + 32.0 * U * (self.norm2 + norm2) + tiny;
                let distance = ((rank - slack).max(0.0).sqrt() - residual).max(0.0) * (1.0 - gamma);
                (distance * distance - tiny).max(0.0).sqrt() * (1.0 - U)
            }
            Metric::Cosine => {
                // The rank is 1 - q·x; for unit q the squared distance is 1 + |x|² - 2 q·x.
                let slack = query_error + 32.0 * U * (1.0 + norm);
                let squared = 2.0 * (rank - slack) + norm2 * (1.0 - 32.0 * U) - 1.0 - 32.0 * U;
                let triangle = (squared.max(0.0).sqrt() - residual).max(0.0).powi(2) / 2.0;
                triangle.max(rank - slack - residual * (1.0 + 32.0 * U)) - 2.0 * gamma - 64.0 * U
            }
            Metric::InnerProduct => {
                let slack = query_error + 4.0 * U * rank.abs() + tiny;
                if self.norm * (norm + residual) > HUGE {
                    return f64::NEG_INFINITY;
                }
                rank - slack - self.norm * residual * (1.0 + 32.0 * U) - gamma * self.norm * (norm + residual)
            }
            Metric::L1 => {
                let magnitude = self.l1_norm + (norm2 * self.values.len() as f64).sqrt() + residual;
                (rank - residual) * (1.0 - gamma) - gamma * rank - 8.0 * U * magnitude
            }
        };
        match self.metric {
            Metric::InnerProduct if bound.is_nan() => f64::NEG_INFINITY,
            Metric::InnerProduct => bound,
            _ if !self.bounded => 0.0,
            // f64::max drops a NaN: infinite ranks and norms bound nothing.
            _ if bound.is_infinite() => 0.0,
            _ => bound.max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The SQL functions, in f64: what a bound must stay below.
    fn exact(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        let pairs = || a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let dot: f64 = pairs().map(|(x, y)| x * y).sum();
        match metric {
            Metric::L2 => pairs().map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt(),
            Metric::InnerProduct => -dot,
            Metric::L1 => pairs().map(|(x, y)| (x - y).abs()).sum(),
            Metric::Cosine => {
                let norms = pairs().map(|(x, _)| x * x).sum::<f64>() * pairs().map(|(_, y)| y * y).sum::<f64>();
                1.0 - dot / norms.sqrt()
            }
        }
    }

    /// The SQL functions as they are: sums in f32, which may overflow and underflow. NaN sorts last.
    fn as_computed(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        let distance = match metric {
            Metric::L2 => f64::from((kernels().l2_squared)(a, b)).sqrt(),
            Metric::InnerProduct => -f64::from((kernels().dot)(a, b)),
            Metric::L1 => f64::from((kernels().l1)(a, b)),
            Metric::Cosine => {
                let (dot, a2, b2) = (kernels().cosine_parts)(a, b);
                1.0 - (f64::from(dot) / (f64::from(a2) * f64::from(b2)).sqrt()).clamp(-1.0, 1.0)
            }
        };
        if distance.is_nan() { f64::INFINITY } else { distance }
    }

    fn bound(metric: Metric, query: &[f32], row: &[f32]) -> Option<f64> {
        let mut code = vec![0; row.len()];
        let (_, params) = encode_row(metric, row, &mut code)?;
        let probe = Probe::of_query(metric, query)?;
        let scaling = Scaling { scale: params.scale, offset: params.offset, norm2: params.norm2 };
        let rank = probe.rank(probe.part(0..code.len(), &code, scaling), scaling);
        Some(probe.lower_bound(rank, params.norm2, crate::shape::residual(metric, &params)))
    }

    const METRICS: [Metric; 4] = [Metric::L2, Metric::InnerProduct, Metric::Cosine, Metric::L1];

    proptest! {
        #[test]
        fn bounds_never_exceed_the_distance(
            pairs in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..200),
            shift in prop::sample::select(vec![0f32, 1.0, 1e4]),
            near in any::<bool>(),
        ) {
            let query: Vec<f32> = pairs.iter().map(|p| p.0 + shift).collect();
            let row: Vec<f32> = pairs.iter().map(|p| if near { p.0 + p.1 * 1e-6 } else { p.1 } + shift).collect();
            for metric in METRICS {
                if let Some(bound) = bound(metric, &query, &row) {
                    let exact = exact(metric, &query, &row);
                    prop_assert!(bound <= exact.max(0.0) || metric == Metric::InnerProduct && bound <= exact,
                        "{metric:?}: bound {bound} above {exact}");
                }
            }
        }
    }

    /// A vector of ordinary values, scaled to anywhere in the range of f32.
    fn scaled(len: usize) -> impl Strategy<Value = Vec<f32>> {
        (prop::collection::vec(-1f32..1.0, len), -46..39).prop_map(|(vector, power)| {
            let factor = 10f64.powi(power);
            vector.into_iter().map(|x| ((f64::from(x) * factor) as f32).clamp(f32::MIN, f32::MAX)).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        // "index returned tuples in wrong order": squares of 1e20 overflow, those of 1e-22 vanish, and what SQL then
        // calls a distance is far from the real one.
        #[test]
        fn bounds_never_exceed_what_sql_computes_at_any_size(
            (query, row) in (1usize..40).prop_flat_map(|len| (scaled(len), scaled(len))),
            related in 0..4,
        ) {
            let row = match related {
                0 => query.iter().map(|x| -x).collect(),
                1 => query.iter().zip(&row).map(|(x, y)| x + y * 1e-3).map(|x| x.clamp(f32::MIN, f32::MAX)).collect(),
                _ => row,
            };
            for metric in METRICS {
                if let Some(bound) = bound(metric, &query, &row) {
                    let computed = as_computed(metric, &query, &row);
                    prop_assert!(bound <= computed, "{metric:?}: bound {bound:e} above {computed:e}");
                }
            }
        }
    }

    #[test]
    fn bounds_are_tight_enough_to_be_useful() {
        let row: Vec<f32> = (0..384).map(|i| ((i * 31 % 97) as f32 / 97.0) - 0.5).collect();
        let query: Vec<f32> = (0..384).map(|i| ((i * 57 % 89) as f32 / 89.0) - 0.5).collect();
        for metric in METRICS {
            let (bound, exact) = (bound(metric, &query, &row).unwrap(), exact(metric, &query, &row));
            // 11.1 is |query| |row|, what an inner product is a part of.
            assert!(exact - bound < 0.02 * exact.abs().max(11.1), "{metric:?}: {bound} for {exact}");
        }
    }

    #[test]
    fn extreme_values_bound_nothing_but_stay_numbers() {
        for metric in METRICS {
            for (a, b) in [(3e38, -3e38), (1e-40, 1e-38), (0.0, 3e38), (1e20, 1e20)] {
                if let Some(bound) = bound(metric, &[a, -a, a], &[b, b, 1.0]) {
                    assert!(!bound.is_nan() && bound < f64::INFINITY, "{metric:?} {a} {b}: {bound}");
                }
            }
        }
    }
}
