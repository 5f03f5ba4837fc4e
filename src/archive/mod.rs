//! Archives: stores of them behind foreign servers, and what this database put there.

mod admin;
mod backup;
mod export;
mod fault;
pub(crate) mod import;
mod kept;
mod queue;
mod read;
mod record;
#[cfg(any(test, feature = "pg_test"))]
mod roundtrip;
mod rows;
mod segments;
mod server;
mod source;
mod sql;
mod table;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod thread;
mod validator;

pub(crate) use source::Source;

/// Whose an archive is, as a manifest has it.
fn identity_of(identity: &record::Identity) -> archive::Identity {
    let record::Identity { system_identifier, timeline, set } = *identity;
    archive::Identity { system_identifier, timeline, set }
}

/// Whose an archive is, as `hybrid_archives` has it.
fn record_identity(identity: &archive::Identity) -> record::Identity {
    let archive::Identity { system_identifier, timeline, set } = *identity;
    record::Identity { system_identifier, timeline, set }
}

pgrx::extension_sql_file!("../../sql/archive.sql", name = "archive", requires = ["admin"]);
