//! The `vector` type: what SQL calls. sql/types.sql and sql/operators.sql declare it; crates/vectext owns its forms.
//!
//! Invariant: every fault of a user's data is raised here or in crates/vectext, with pgvector's message and SQLSTATE.

mod aggregate;
mod arithmetic;
mod cast;
mod compare;
mod distance;
mod io;

use crate::error::{Fault, raise};
use crate::pg::varlena::VectorRef;
use pgrx::PgSqlErrorCode;

pgrx::extension_sql_file!("../../sql/types.sql", name = "types");
pgrx::extension_sql_file!("../../sql/operators.sql", name = "operators", requires = ["types"]);

/// Unwraps, or raises the fault.
fn or_raise<T>(result: Result<T, vectext::Error>) -> T {
    result.unwrap_or_else(|error| raise_invalid(&error))
}

#[cold]
fn raise_invalid(error: &vectext::Error) -> ! {
    let code = match error.kind() {
        vectext::Kind::Data => PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        vectext::Kind::Text => PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
        vectext::Kind::Range => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        vectext::Kind::Limit => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        vectext::Kind::Protocol => PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
    };
    let fault = Fault::new(code, error.to_string());
    match error.detail() {
        Some(detail) => fault.detail(detail).raise(),
        None => fault.raise(),
    }
}

/// The dimensions that a type modifier declares; -1 declares nothing.
fn declared(typmod: i32) -> Option<i32> {
    (typmod != -1).then_some(typmod)
}

/// Refuses two vectors of different dimensions.
#[inline]
fn check_same_dim(a: &VectorRef<'_>, b: &VectorRef<'_>) {
    if a.dim() != b.dim() {
        let message = format!("different vector dimensions {} and {}", a.dim(), b.dim());
        raise(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, message);
    }
}

#[cold]
fn raise_overflow() -> ! {
    raise(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow")
}

#[cold]
fn raise_underflow() -> ! {
    raise(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: underflow")
}
