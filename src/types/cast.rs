//! Casts: between vectors and arrays, and to a declared number of dimensions.

use super::{declared, or_raise};
use crate::error::raise;
use crate::pg::array::{ArrayBuf, ArrayRef};
use crate::pg::varlena::{VectorBuf, VectorRef};
use pgrx::prelude::*;

/// The cast to `vector(n)`, which checks the dimensions.
#[pg_extern(sql = false)]
fn vector_to_vector(vector: VectorRef<'_>, typmod: i32, _explicit: bool) -> VectorRef<'_> {
    or_raise(vectext::check_expected(declared(typmod), vector.dim()));
    vector
}

#[pg_extern(sql = false)]
fn vector_to_float4(vector: VectorRef<'_>, _typmod: i32, _explicit: bool) -> ArrayBuf<f32> {
    ArrayBuf::copy_of(vector.as_slice())
}

/// From `integer[]`, `real[]`, `double precision[]` or `numeric[]`.
#[pg_extern(sql = false)]
fn array_to_vector(array: ArrayRef<'_>, typmod: i32, _explicit: bool) -> VectorBuf {
    check_array(&array);
    or_raise(vectext::check_dim(array.len()));
    or_raise(vectext::check_expected(declared(typmod), array.len()));
    let mut vector = VectorBuf::zeroed(array.len());
    fill(vector.as_mut_slice(), &array);
    or_raise(vectext::check_elements(vector.as_mut_slice()));
    vector
}

fn check_array(array: &ArrayRef<'_>) {
    if array.dimensions() > 1 {
        raise(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, "array must be 1-D");
    }
    if array.contains_nulls() {
        raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "array must not contain nulls");
    }
}

fn fill(vector: &mut [f32], array: &ArrayRef<'_>) {
    if let Some(values) = array.elements::<f32>() {
        vector.copy_from_slice(values);
    } else if let Some(values) = array.elements::<f64>() {
        vector.iter_mut().zip(values).for_each(|(element, &value)| *element = value as f32);
    } else if let Some(values) = array.elements::<i32>() {
        vector.iter_mut().zip(values).for_each(|(element, &value)| *element = value as f32);
    } else if array.element_type() == pg_sys::NUMERICOID {
        vector.copy_from_slice(&array.numerics_as_f32());
    } else {
        raise(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, "unsupported array type");
    }
}
