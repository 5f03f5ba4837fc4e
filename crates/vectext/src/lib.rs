//! The text form `[1,2,3]` and the binary form of the `vector` type, and the rules that every vector obeys.
//!
//! Owns: what is a well-formed vector and how each fault is worded. Knows nothing of PostgreSQL, so that all of it can
//! be tested and fuzzed without a server.

#![forbid(unsafe_code)]

pub mod binary;
mod error;
pub mod fuzz;
mod number;
pub mod text;

pub use error::{Error, Kind};

/// Most dimensions that a vector may have.
pub const MAX_DIM: usize = 16_000;

/// Refuses a number of dimensions outside `1..=MAX_DIM`.
///
/// # Errors
/// [`Error::Empty`] and [`Error::TooManyDimensions`].
pub fn check_dim(dim: usize) -> Result<(), Error> {
    match dim {
        0 => Err(Error::Empty),
        1..=MAX_DIM => Ok(()),
        _ => Err(Error::TooManyDimensions),
    }
}

/// Refuses a vector whose dimensions are not those that the column declares; `None` declares nothing.
///
/// # Errors
/// [`Error::UnexpectedDimensions`].
pub fn check_expected(expected: Option<i32>, dim: usize) -> Result<(), Error> {
    match expected {
        Some(expected) if usize::try_from(expected) != Ok(dim) => Err(Error::UnexpectedDimensions { expected, dim }),
        _ => Ok(()),
    }
}

/// Refuses NaN and the infinities.
///
/// # Errors
/// [`Error::NotANumber`] and [`Error::Infinite`].
#[inline]
pub fn check_element(value: f32) -> Result<(), Error> {
    if value.is_finite() {
        Ok(())
    } else if value.is_nan() {
        Err(Error::NotANumber)
    } else {
        Err(Error::Infinite)
    }
}

/// [`check_element`] for a whole vector.
///
/// # Errors
/// The fault of the first element that has one.
pub fn check_elements(values: &[f32]) -> Result<(), Error> {
    values.iter().try_for_each(|&value| check_element(value))
}
