//! The set of a database outside of its tables: `pg_hybrid/sets/<OID>` in the data directory.
//!
//! What a store has is not taken back by a ROLLBACK or a crash, but the row that says whose it is would be. So a set is
//! written and fsynced here before anything is sent under it, and begun once only.

use crate::error::raise;
use crate::pg::fdw::data_directory;
use crate::pg::{database, identity, random_bytes};
use pgrx::PgSqlErrorCode;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::record::{hex, set_of};

fn directory() -> PathBuf {
    data_directory().join("pg_hybrid").join("sets")
}

/// The set that this database began as this system on this timeline, if it did.
pub(super) fn set() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string(directory().join(database().to_u32().to_string())).ok()?;
    let mut words = text.split_ascii_whitespace();
    let set = words.next().and_then(set_of)?;
    words.eq(ours().split_ascii_whitespace()).then_some(set)
}

/// System and timeline, as a set is kept with them.
fn ours() -> String {
    format!("{} {}", identity::system_identifier(), identity::timeline())
}

/// The set of this database, begun if there is none.
///
/// # Errors
/// Raises 58030 if it cannot be written.
pub(super) fn set_or_new() -> [u8; 16] {
    begin().unwrap_or_else(|error| {
        raise(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not write to \"{}\": {error}", directory().display()))
    })
}

fn begin() -> Result<[u8; 16]> {
    let directory = directory();
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join("lock"))?;
    // Held for as long as it takes to write one line.
    lock.lock()?;
    if let Some(set) = set() {
        return Ok(set);
    }
    let set = random_bytes();
    let (new, name) = (directory.join("new"), directory.join(database().to_u32().to_string()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{} {}", hex(&set), ours())?;
    file.sync_all()?;
    std::fs::rename(&new, &name)?;
    File::open(&directory)?.sync_all()?;
    Ok(set)
}
