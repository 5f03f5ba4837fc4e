//! Work that may fail without its transaction failing.

use crate::error::Fault;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe};

/// Does `work` in a subtransaction; if it raises an ERROR, what it did is undone, and the message is returned. A cancel
/// and the end of the session are not caught.
pub fn attempt<R>(work: impl FnOnce() -> R + UnwindSafe + RefUnwindSafe) -> Result<R, String> {
    // SAFETY: as PL/pgSQL runs a block with an exception clause: the subtransaction is ended on either way out, and the
    // memory context and resource owner of before are set again.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let back = move || {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        };
        PgTryBuilder::new(move || {
            let result = work();
            pg_sys::ReleaseCurrentSubTransaction();
            back();
            Ok(result)
        })
        .catch_others(move |caught| {
            let (code, message) = match &caught {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                    (report.sql_error_code(), report.message().to_string())
                }
                CaughtError::RustPanic { ereport, .. } => (ereport.sql_error_code(), ereport.message().to_string()),
            };
            if matches!(code, PgSqlErrorCode::ERRCODE_QUERY_CANCELED | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN) {
                caught.rethrow()
            }
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            back();
            Err(message)
        })
        .execute()
    }
}

/// Does `work`; where it raises an ERROR of this code, another one is raised, made of its message.
pub fn instead_of<R>(code: PgSqlErrorCode, other: impl Fn(&str) -> Fault, work: impl FnOnce() -> R) -> R {
    let other = AssertUnwindSafe(other);
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_when(code, move |caught| {
            let AssertUnwindSafe(other) = &other;
            match &caught {
                CaughtError::PostgresError(report) => other(report.message()).raise(),
                _ => caught.rethrow(),
            }
        })
        .execute()
}
