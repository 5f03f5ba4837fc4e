//! `avg(vector)`: the state is a `double precision[]` of the count and then the sums; without sums it has seen nothing.

use super::{or_raise, raise_overflow};
use crate::error::raise;
use crate::pg::array::{ArrayBuf, ArrayRef, InAggregate};
use crate::pg::varlena::{VectorBuf, VectorRef};
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn vector_accum(state: ArrayRef<'_>, vector: VectorRef<'_>, in_aggregate: InAggregate) -> ArrayBuf<f64> {
    let (count, sums) = parts(&state, "vector_accum");
    let terms = vector.as_slice();
    if sums.is_empty() {
        return first_state(count, terms);
    }
    or_raise(vectext::check_expected(Some(sums.len() as i32), terms.len()));
    add(state, 1.0, terms.iter().map(|&x| f64::from(x)), in_aggregate)
}

fn first_state(count: f64, terms: &[f32]) -> ArrayBuf<f64> {
    let mut state = ArrayBuf::zeroed(terms.len() + 1);
    let (head, sums) = state.as_mut_slice().split_at_mut(1);
    head[0] = count + 1.0;
    sums.iter_mut().zip(terms).for_each(|(sum, &x)| *sum = f64::from(x));
    state
}

#[pg_extern(sql = false)]
fn vector_combine(state: ArrayRef<'_>, other: ArrayRef<'_>, in_aggregate: InAggregate) -> ArrayBuf<f64> {
    let (count, sums) = parts(&state, "vector_combine");
    let (other_count, other_sums) = parts(&other, "vector_combine");
    if count == 0.0 {
        return copy_of(&other);
    }
    if other_count == 0.0 {
        return copy_of(&state);
    }
    or_raise(vectext::check_expected(Some(sums.len() as i32), other_sums.len()));
    add(state, other_count, other_sums.iter().copied(), in_aggregate)
}

/// NULL if there was nothing to average.
#[pg_extern(sql = false)]
fn vector_avg(state: ArrayRef<'_>) -> Option<VectorBuf> {
    let (count, sums) = parts(&state, "vector_avg");
    if count == 0.0 {
        return None;
    }
    or_raise(vectext::check_dim(sums.len()));
    let mut average = VectorBuf::zeroed(sums.len());
    for (element, &sum) in average.as_mut_slice().iter_mut().zip(sums) {
        *element = (sum / count) as f32;
    }
    or_raise(vectext::check_elements(average.as_mut_slice()));
    Some(average)
}

/// Adds to the count and to each sum.
fn add(state: ArrayRef<'_>, count: f64, terms: impl Iterator<Item = f64>, in_aggregate: InAggregate) -> ArrayBuf<f64> {
    let mut state = state.into_state::<f64>(in_aggregate).expect("`parts` has checked the element type");
    for (sum, term) in state.as_mut_slice().iter_mut().zip(std::iter::once(count).chain(terms)) {
        *sum += term;
        if sum.is_infinite() {
            raise_overflow();
        }
    }
    state
}

fn copy_of(state: &ArrayRef<'_>) -> ArrayBuf<f64> {
    ArrayBuf::copy_of(state.elements().unwrap_or_default())
}

/// Count and sums. The functions can be called with any array, so nothing is taken on trust.
fn parts<'a>(state: &'a ArrayRef<'_>, caller: &str) -> (f64, &'a [f64]) {
    if state.dimensions() != 1 || state.contains_nulls() {
        raise_not_a_state(caller);
    }
    match state.elements::<f64>() {
        Some([count, sums @ ..]) => (*count, sums),
        _ => raise_not_a_state(caller),
    }
}

#[cold]
fn raise_not_a_state(caller: &str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, format!("{caller}: expected state array"))
}
