//! Distances: called for each row of an exact scan, so nothing here allocates.

use super::check_same_dim;
use crate::pg::varlena::VectorRef;
use ann::distance::kernels;
use pgrx::prelude::*;
use std::f64::consts::PI;

#[pg_extern(sql = false)]
fn l2_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
    l2_squared(&a, &b).sqrt()
}

#[pg_extern(sql = false)]
fn vector_l2_squared_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
    l2_squared(&a, &b)
}

#[pg_extern(sql = false)]
fn inner_product(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
    dot(&a, &b)
}

#[pg_extern(sql = false)]
fn vector_negative_inner_product(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
    -dot(&a, &b)
}

/// NaN if either vector is zero.
#[pg_extern(sql = false)]
fn cosine_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
    check_same_dim(&a, &b);
    let (dot, a_squared, b_squared) = (kernels().cosine_parts)(a.as_slice(), b.as_slice());
    let similarity = f64::from(dot) / (f64::from(a_squared) * f64::from(b_squared)).sqrt();
    1.0 - similarity.clamp(-1.0, 1.0)
}

/// Angle between two unit vectors, in units of pi; the lengths are not checked.
#[pg_extern(sql = false)]
fn vector_spherical_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
    dot(&a, &b).clamp(-1.0, 1.0).acos() / PI
}

#[pg_extern(sql = false)]
fn l1_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
    check_same_dim(&a, &b);
    f64::from((kernels().l1)(a.as_slice(), b.as_slice()))
}

#[inline]
fn l2_squared(a: &VectorRef<'_>, b: &VectorRef<'_>) -> f64 {
    check_same_dim(a, b);
    f64::from((kernels().l2_squared)(a.as_slice(), b.as_slice()))
}

#[inline]
fn dot(a: &VectorRef<'_>, b: &VectorRef<'_>) -> f64 {
    check_same_dim(a, b);
    f64::from((kernels().dot)(a.as_slice(), b.as_slice()))
}
