//! PostgreSQL behind safe names. Invariant: `unsafe` appears in this folder only, each block with its proof.

pub mod arena;
pub mod array;
mod aside;
pub mod attempt;
pub mod buffer;
pub mod catalog;
pub mod copy;
pub mod encoding;
pub mod fdw;
pub mod fetch;
pub mod fmgr;
pub mod handler;
pub mod identity;
pub mod key;
pub mod lock;
mod planner;
pub mod progress;
pub mod relation;
pub mod reloptions;
pub mod rights;
pub mod rows;
pub mod settings;
pub mod snapshot;
pub mod temporary;
pub mod thread;
pub mod unit;
mod validate;
pub mod varlena;
pub mod worker;
mod xid;

/// OID of the database of this session.
pub fn database() -> pgrx::pg_sys::Oid {
    // SAFETY: set when the session began.
    unsafe { pgrx::pg_sys::MyDatabaseId }
}

/// Random bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: fills so many bytes.
    let filled = unsafe { pgrx::pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) };
    if !filled {
        crate::error::raise(pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "could not generate random bytes");
    }
    bytes
}
