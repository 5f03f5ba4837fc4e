//! The access method `hybrid`: one file per concern of the interface.

pub mod build;
pub mod compact;
pub mod cost;
pub mod fingerprints;
pub mod import;
pub mod insert;
pub mod keys;
mod metric;
mod pipeline;
pub mod scan;
pub mod vacuum;

use crate::error::Fault;
use crate::pg::relation::Index;
use ann::error::Error;
use ann::index::Parameters;
use ann::page::META_BLOCK;
use pgrx::PgSqlErrorCode;

pgrx::extension_sql_file!("../../sql/access_method.sql", name = "access_method", requires = ["operators"]);

/// Unwraps, or raises what went wrong with the index.
pub(crate) fn or_raise<T>(index: Index, result: ann::error::Result<T>) -> T {
    result.unwrap_or_else(|error| raise_for(index, &error))
}

#[cold]
fn raise_for(index: Index, error: &Error) -> ! {
    let name = index.name();
    match error {
        Error::Corrupt { .. } => {
            Fault::new(PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" is damaged: {error}"))
                .hint(format!("REINDEX INDEX \"{name}\" builds it anew from the table."))
                .raise()
        }
        Error::TooNew { .. } => {
            Fault::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, format!("index \"{name}\": {error}"))
                .hint("Install the newer hybridvec library, or REINDEX with this one.")
                .raise()
        }
        Error::Structure(_) => {
            let message = format!("archive of index \"{name}\" is damaged: {error}");
            Fault::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, message)
                .hint("Nothing was changed. Use another archive, or build the index without one.")
                .raise()
        }
        Error::Full | Error::Limit(_) => {
            Fault::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, format!("index \"{name}\": {error}")).raise()
        }
        Error::Stopped => Fault::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "index build was stopped").raise(),
    }
}

/// Refuses an index whose pages are not of its columns: rows and conditions would be misread.
pub(crate) fn check_keys(index: Index, parameters: &Parameters) {
    let keys = index.column_count() - 1;
    if parameters.keys != keys {
        let what = format!("is of an index with {} key columns, not {keys}", parameters.keys);
        or_raise(index, Err(Error::corrupt(META_BLOCK, what)))
    }
}

/// Refuses a vector of other dimensions than the index has.
pub(crate) fn check_dimensions(expected: usize, found: usize) {
    if expected != found {
        let message = format!("expected {expected} dimensions, not {found}");
        Fault::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, message).raise();
    }
}
