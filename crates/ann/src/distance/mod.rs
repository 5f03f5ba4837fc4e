//! Distance kernels, one implementation per CPU feature, chosen once at run time.

mod prefetch;
mod scalar;

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

/// The kernels of one instruction set. Both slices of a call must have the same length.
pub struct Kernels {
    /// Name of the instruction set, for `hybrid_stats` and bug reports.
    pub name: &'static str,
    /// Sum of squared differences.
    pub l2_squared: fn(&[f32], &[f32]) -> f32,
    /// Inner product.
    pub dot: fn(&[f32], &[f32]) -> f32,
    /// `(a·b, a·a, b·b)` in one pass.
    pub cosine_parts: fn(&[f32], &[f32]) -> (f32, f32, f32),
    /// Sum of absolute differences.
    pub l1: fn(&[f32], &[f32]) -> f32,
    /// Sum of squared differences of half-precision values.
    pub l2_squared_f16: fn(&[f16], &[f16]) -> f32,
    /// Inner product of half-precision values.
    pub dot_f16: fn(&[f16], &[f16]) -> f32,
    /// `(a·b, a·a, b·b)` of half-precision values.
    pub cosine_parts_f16: fn(&[f16], &[f16]) -> (f32, f32, f32),
    /// Sum of absolute differences of half-precision values.
    pub l1_f16: fn(&[f16], &[f16]) -> f32,
    /// Exact integer inner product of two `sq8` codes, each value 0..=255.
    pub dot_u8: fn(&[u8], &[u8]) -> u64,
    /// Exact integer inner product of an `sq8` code with a 15-bit query: `sum(code[i] * (256 * hi[i] + lo[i]))`.
    pub dot_u8_i15: fn(&[u8], &[i8], &[i8]) -> i64,
    /// `sum(|query[i] - (offset + scale * code[i])|)`; arguments are code, scale, offset, query.
    pub l1_sq8: fn(&[u8], f32, f32, &[f32]) -> f32,
    /// `sum(|(ao + as * a[i]) - (bo + bs * b[i])|)`; arguments are (a, as, ao), (b, bs, bo).
    pub l1_sq8_pair: fn((&[u8], f32, f32), (&[u8], f32, f32)) -> f32,
}

static KERNELS: LazyLock<&'static Kernels> = LazyLock::new(|| &scalar::KERNELS);

/// The fastest kernels that this machine runs.
pub fn kernels() -> &'static Kernels {
    *KERNELS
}
