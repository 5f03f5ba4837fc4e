//! Element-wise arithmetic and what makes one vector from another. Overflow is an error, as everywhere in SQL.

use super::{check_same_dim, or_raise, raise_overflow, raise_underflow};
use crate::pg::fmgr::BitBuf;
use crate::pg::varlena::{VectorBuf, VectorRef};
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn vector_add(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
    element_wise(&a, &b, |x, y| x + y)
}

#[pg_extern(sql = false)]
fn vector_sub(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
    element_wise(&a, &b, |x, y| x - y)
}

#[pg_extern(sql = false)]
fn vector_mul(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
    let mut product = element_wise(&a, &b, |x, y| x * y);
    let vanished = |((&product, &x), &y): ((&f32, &f32), &f32)| product == 0.0 && x != 0.0 && y != 0.0;
    if product.as_mut_slice().iter().zip(a.as_slice()).zip(b.as_slice()).any(vanished) {
        raise_underflow();
    }
    product
}

fn element_wise(a: &VectorRef<'_>, b: &VectorRef<'_>, operation: impl Fn(f32, f32) -> f32) -> VectorBuf {
    check_same_dim(a, b);
    let mut result = VectorBuf::zeroed(a.dim());
    let operands = a.as_slice().iter().zip(b.as_slice());
    for (element, (&x, &y)) in result.as_mut_slice().iter_mut().zip(operands) {
        *element = operation(x, y);
    }
    without_overflow(result)
}

fn without_overflow(mut vector: VectorBuf) -> VectorBuf {
    if vector.as_mut_slice().iter().any(|element| element.is_infinite()) {
        raise_overflow();
    }
    vector
}

#[pg_extern(sql = false)]
fn vector_concat(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
    or_raise(vectext::check_dim(a.dim() + b.dim()));
    let mut result = VectorBuf::zeroed(a.dim() + b.dim());
    let (first, second) = result.as_mut_slice().split_at_mut(a.dim());
    first.copy_from_slice(a.as_slice());
    second.copy_from_slice(b.as_slice());
    result
}

#[pg_extern(sql = false)]
fn vector_dims(vector: VectorRef<'_>) -> i32 {
    vector.dim() as i32
}

#[pg_extern(sql = false)]
fn vector_norm(vector: VectorRef<'_>) -> f64 {
    norm(vector.as_slice())
}

/// The zero vector stays as it is.
#[pg_extern(sql = false)]
fn l2_normalize(vector: VectorRef<'_>) -> VectorBuf {
    let norm = norm(vector.as_slice());
    let mut result = VectorBuf::zeroed(vector.dim());
    if norm > 0.0 {
        for (element, &x) in result.as_mut_slice().iter_mut().zip(vector.as_slice()) {
            *element = (f64::from(x) / norm) as f32;
        }
    }
    without_overflow(result)
}

/// Summed in double precision: the square of a `f32` never overflows there.
fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// A bit for each element: set if the element is positive.
#[pg_extern(sql = false)]
fn binary_quantize(vector: VectorRef<'_>) -> BitBuf {
    BitBuf::from_bits(vector.as_slice().iter().map(|&x| x > 0.0))
}

/// Counts from 1 and keeps what of the range lies within the vector, as `substring` does.
#[pg_extern(sql = false)]
fn subvector(vector: VectorRef<'_>, start: i32, count: i32) -> VectorBuf {
    let dim = vector.dim() as i64;
    let (start, count) = (i64::from(start), i64::from(count));
    let first = start.max(1);
    let end = (start + count.max(0)).min(dim + 1);
    if count < 1 || first > dim || end <= first {
        or_raise(Err(vectext::Error::Empty))
    }
    VectorBuf::copy_of(&vector.as_slice()[first as usize - 1..end as usize - 1])
}
