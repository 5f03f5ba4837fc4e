//! Distance kernels, one implementation per CPU feature, chosen once at run time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod prefetch;
mod scalar;
#[cfg(test)]
mod tests;

pub use prefetch::{prefetch, prefetch_line};

use half::f16;
use std::sync::LazyLock;

/// What "near" means. The numbers are stored in index pages: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Metric {
    /// Euclidean distance, `<->`.
    L2 = 1,
    /// Negative inner product, `<#>`.
    InnerProduct = 2,
    /// 1 - cosine similarity, `<=>`.
    Cosine = 3,
    /// Sum of absolute differences, `<+>`.
    L1 = 4,
}

/// `(a·b, a·a, b·b)`.
pub type CosineParts = (f32, f32, f32);

/// One value for each vector of a panel, or each row of a block.
pub type Lanes = [f32; 32];

/// A code with its scale and its offset.
pub type ScaledCode<'a> = (&'a [u8], f32, f32);

/// The kernels of one instruction set. Slices of one call should have the same length; if not, the shortest counts.
pub struct Kernels {
    /// Name of the instruction set, for `hybrid_stats` and bug reports.
    pub name: &'static str,
    /// Sum of squared differences.
    pub l2_squared: fn(&[f32], &[f32]) -> f32,
    /// Inner product.
    pub dot: fn(&[f32], &[f32]) -> f32,
    /// `(a·b, a·a, b·b)` in one pass.
    pub cosine_parts: fn(&[f32], &[f32]) -> CosineParts,
    /// Sum of absolute differences.
    pub l1: fn(&[f32], &[f32]) -> f32,
    /// Sum of squared differences of half-precision values.
    pub l2_squared_f16: fn(&[f16], &[f16]) -> f32,
    /// Inner product of half-precision values.
    pub dot_f16: fn(&[f16], &[f16]) -> f32,
    /// `(a·b, a·a, b·b)` of half-precision values.
    pub cosine_parts_f16: fn(&[f16], &[f16]) -> CosineParts,
    /// Sum of absolute differences of half-precision values.
    pub l1_f16: fn(&[f16], &[f16]) -> f32,
    /// Exact integer inner product of two `sq8` codes, each value 0..=255.
    pub dot_u8: fn(&[u8], &[u8]) -> u64,
    /// Exact integer inner product of an `sq8` code with a 15-bit query: `sum(code[i] * (256 * hi[i] + lo[i]))`.
    /// No `hi` is -128.
    pub dot_u8_i15: fn(&[u8], &[i8], &[i8]) -> i64,
    /// `sum(|query[i] - (offset + scale * code[i])|)`; arguments are code, scale, offset, query.
    pub l1_sq8: fn(&[u8], f32, f32, &[f32]) -> f32,
    /// `sum(|(ao + as * a[i]) - (bo + bs * b[i])|)`; arguments are (a, as, ao), (b, bs, bo).
    pub l1_sq8_pair: fn(ScaledCode, ScaledCode) -> f32,
    /// Adds to the sums of 32 rows what groups of 4 bits look up: arguments are codes, tables, sums. Group `g` has 16
    /// bytes of codes, whose byte `j` holds row `j` in its low half and row `j + 16` in its high half, and 16 bytes of
    /// table (FastScan: André et al., VLDB 2015). Only whole groups that both slices hold count.
    pub fast_scan: fn(&[u8], &[u8], &mut [u32; 32]),
    /// Inner products of vectors with a panel of 32 others: arguments are rows (each of `dimensions` values), dimensions,
    /// panel (32 values for each dimension), out (32 for each row).
    pub dot_panel: fn(&[f32], usize, &[f32], &mut [Lanes]),
    /// Offers each row the vectors of a panel by `norms2 - 2 * dots`: arguments are the panel's number, its squared norms,
    /// the rows' inner products, their least scores so far.
    pub least_distance: fn(u32, &Lanes, &[Lanes], &mut [Least]),
    /// Offers a row the vectors of a panel by `norms2 - 2 * dots + weight * (along - dots + pairs)^2`: arguments are the
    /// panel's number, its squared norms, the row's inner products, those of the row's nearest vector, along, weight, the
    /// least scores so far.
    pub least_second: fn(u32, [&Lanes; 3], f32, f32, &mut Least),
    /// Estimates of 32 rows, and bounds below them: arguments are the terms, the rows' sums (below 2^31), their
    /// scales and errors (bfloat16), their bases, estimates, bounds.
    pub estimate: EstimateKernel,
}

/// [`Kernels::estimate`].
pub type EstimateKernel = fn(&Estimate, &[u32; 32], [&[u16; 32]; 2], &Lanes, &mut Lanes, &mut Lanes);

/// What all rows of a block have in common: the estimate is `add + base + scale * (step * sum + offset)`, the bound
/// `error * distance + |scale| * table_error` below it.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the formula says it all")]
pub struct Estimate {
    pub add: f32,
    pub distance: f32,
    pub step: f32,
    pub offset: f32,
    pub table_error: f32,
}

/// The least scores by lane of panels, and in which panel each was found first. NaN is never the least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Least {
    /// Infinite where there is none yet.
    pub score: [f32; 32],
    /// Numbers of panels.
    pub panel: [u32; 32],
}

impl Least {
    /// Nothing was offered yet.
    pub const NONE: Self = Self { score: [f32::INFINITY; 32], panel: [0; 32] };

    /// Offers a score to each lane; without branches, so that compilers make it vector instructions.
    #[inline(always)]
    fn offer(&mut self, panel: u32, scores: &[f32; 32]) {
        for ((best, best_panel), &score) in self.score.iter_mut().zip(&mut self.panel).zip(scores) {
            let less = score < *best;
            let mask = if less { u32::MAX } else { 0 };
            *best = if less { score } else { *best };
            *best_panel = panel & mask | *best_panel & !mask;
        }
    }
}

static KERNELS: LazyLock<&'static Kernels> = LazyLock::new(|| all_kernels()[0]);

/// The fastest kernels that this machine runs.
pub fn kernels() -> &'static Kernels {
    *KERNELS
}

/// Every set of kernels that this machine runs, fastest first.
pub fn all_kernels() -> Vec<&'static Kernels> {
    [
        #[cfg(target_arch = "x86_64")]
        avx512::detect(),
        #[cfg(target_arch = "x86_64")]
        avx2::detect(),
        #[cfg(target_arch = "aarch64")]
        neon::detect(),
        Some(&scalar::KERNELS),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The table of the calling module's `#[target_feature]` functions, named as in [`Kernels`].
///
/// The module hands its table out from `detect` only, so the functions run only where their features were found.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! table {
    ($name:literal) => {
        table!($name; l2_squared(a, b), dot(a, b), cosine_parts(a, b), l1(a, b), l2_squared_f16(a, b), dot_f16(a, b),
            cosine_parts_f16(a, b), l1_f16(a, b), dot_u8(a, b), dot_u8_i15(code, hi, lo),
            l1_sq8(code, scale, offset, query), fast_scan(codes, tables, sums),
            dot_panel(rows, dimensions, panel, out), least_distance(panel, norms2, dots, least),
            least_second(panel, values, along, weight, least),
            estimate(terms, sums, scale_error, base, est, bound))
    };
    ($name:literal; $($kernel:ident($($argument:ident),*)),*) => {
        $crate::distance::Kernels {
            name: $name,
            // SAFETY: `detect` found the CPU features before anyone could get hold of this table.
            $($kernel: |$($argument),*| unsafe { $kernel($($argument),*) },)*
            // Not as two tuples, which would travel through memory.
            l1_sq8_pair: |(a, a_scale, a_offset), (b, b_scale, b_offset)| {
                // SAFETY: as above.
                unsafe { l1_sq8_pair(a, a_scale, a_offset, b, b_scale, b_offset) }
            },
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use table;

/// Whole pieces of `W` values, then what is left.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Pieces<'a, T, const W: usize> = (&'a [[T; W]], &'a [T]);

/// The pieces of both slices, cut to the same length first.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
fn split<'a, A, B, const W: usize>(a: &'a [A], b: &'a [B]) -> (Pieces<'a, A, W>, Pieces<'a, B, W>) {
    let len = a.len().min(b.len());
    (a[..len].as_chunks(), b[..len].as_chunks())
}
