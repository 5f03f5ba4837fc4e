//! Order: by the first element that differs, then by dimensions, as PostgreSQL orders arrays.

use crate::pg::varlena::VectorRef;
use pgrx::prelude::*;
use std::cmp::Ordering;

#[pg_extern(sql = false)]
fn vector_lt(a: VectorRef<'_>, b: VectorRef<'_>) -> bool {
    compare(&a, &b).is_lt()
}

#[pg_extern(sql = false)]
fn vector_le(a: VectorRef<'_>, b: VectorRef<'_>) -> bool {
    compare(&a, &b).is_le()
}

#[pg_extern(sql = false)]
fn vector_eq(a: VectorRef<'_>, b: VectorRef<'_>) -> bool {
    compare(&a, &b).is_eq()
}

#[pg_extern(sql = false)]
fn vector_ne(a: VectorRef<'_>, b: VectorRef<'_>) -> bool {
    compare(&a, &b).is_ne()
}

#[pg_extern(sql = false)]
fn vector_ge(a: VectorRef<'_>, b: VectorRef<'_>) -> bool {
    compare(&a, &b).is_ge()
}

#[pg_extern(sql = false)]
fn vector_gt(a: VectorRef<'_>, b: VectorRef<'_>) -> bool {
    compare(&a, &b).is_gt()
}

#[pg_extern(sql = false)]
fn vector_cmp(a: VectorRef<'_>, b: VectorRef<'_>) -> i32 {
    compare(&a, &b) as i32
}

/// A total order, with -0 equal to 0, because no element is NaN.
fn compare(a: &VectorRef<'_>, b: &VectorRef<'_>) -> Ordering {
    a.as_slice().partial_cmp(b.as_slice()).unwrap_or(Ordering::Equal)
}
