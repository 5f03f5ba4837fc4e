//! Faults of a vector, in pgvector's words: clients match on these messages, so they never change.

use std::fmt;

/// What sort of fault, from which the caller picks its SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 22000, data exception.
    Data,
    /// 22P02, invalid text representation.
    Text,
    /// 22003, numeric value out of range.
    Range,
    /// 54000, program limit exceeded.
    Limit,
    /// 08P01, protocol violation.
    Protocol,
}

/// Why something is not a vector, or not the vector that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The text is not of the form `[1,2,3]`.
    Syntax {
        /// The whole text.
        literal: String,
        /// What exactly is wrong, where that is known.
        detail: Option<&'static str>,
    },
    /// A number in the text is too large for a `f32`.
    OutOfRange {
        /// The number as written.
        number: String,
    },
    /// No dimensions at all.
    Empty,
    /// More than [`crate::MAX_DIM`] dimensions.
    TooManyDimensions,
    /// Not the dimensions that the column declares.
    UnexpectedDimensions {
        /// As declared.
        expected: i32,
        /// As found.
        dim: usize,
    },
    /// An element is NaN.
    NotANumber,
    /// An element is an infinity.
    Infinite,
    /// The reserved field of the binary form is in use.
    UnusedInUse(i16),
    /// The binary form ends too early.
    Truncated,
}

impl Error {
    /// The sort of fault.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Syntax { .. } => Kind::Text,
            Self::OutOfRange { .. } => Kind::Range,
            Self::TooManyDimensions => Kind::Limit,
            Self::Truncated => Kind::Protocol,
            Self::Empty
            | Self::UnexpectedDimensions { .. }
            | Self::NotANumber
            | Self::Infinite
            | Self::UnusedInUse(_) => Kind::Data,
        }
    }

    /// The sentence that goes below the message, if there is one.
    #[must_use]
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            Self::Syntax { detail, .. } => *detail,
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { literal, .. } => write!(f, "invalid input syntax for type vector: \"{literal}\""),
            Self::OutOfRange { number } => write!(f, "\"{number}\" is out of range for type vector"),
            Self::Empty => write!(f, "vector must have at least 1 dimension"),
            Self::TooManyDimensions => write!(f, "vector cannot have more than {} dimensions", crate::MAX_DIM),
            Self::UnexpectedDimensions { expected, dim } => write!(f, "expected {expected} dimensions, not {dim}"),
            Self::NotANumber => write!(f, "NaN not allowed in vector"),
            Self::Infinite => write!(f, "infinite value not allowed in vector"),
            Self::UnusedInUse(value) => write!(f, "expected unused to be 0, not {value}"),
            Self::Truncated => write!(f, "insufficient data left in message"),
        }
    }
}

impl std::error::Error for Error {}
