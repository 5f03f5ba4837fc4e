//! A store as SQL names it: a foreign server of the wrapper `hybrid_store`, with the caller's user mapping.

use super::fault::or_raise;
use super::thread::Session;
use crate::error::Fault;
use crate::guc::archive_cache_size;
use crate::pg::encoding::{Shown, from_server, shown};
use crate::pg::fdw::{Server, data_directory};
use archive::Key;
use blobstore::options::{CacheSettings, Environment};
use blobstore::{Abilities, Error, Result, options};
use pgrx::prelude::*;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::ffi::CStr;
use std::path::Path;

/// Bytes of fetched objects that one session keeps in memory.
const CACHE_IN_MEMORY: usize = 32 << 20;

/// A server that the caller may use, with its store open.
pub(crate) struct OpenServer {
    pub name: String,
    pub session: Session,
    encrypts: bool,
    key: Option<Key>,
}

/// Whether fetched objects may come from the cache on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    Allowed,
    /// What the store itself holds is wanted.
    Forbidden,
}

/// Opens the store behind a server.
///
/// # Errors
/// Raises 42704 if there is no such server, 42501 without USAGE on it, 42809 if it is no store, and what is wrong with its
/// options or with the store.
pub(crate) fn open(name: &str, caching: Caching) -> OpenServer {
    or_raise(name, try_open(name, caching))
}

/// As [`open`], but returns what is wrong with options or store.
fn try_open(name: &str, caching: Caching) -> Result<OpenServer> {
    let server = Server::find(name);
    let mapping = server.mapping();
    let environment = environment(caching)?;
    // Files of secrets are read by the helper, too: on a file system that hangs, say.
    let (session, encryption) = Session::open(name, move || {
        let encryption = options::settings(&server.options, &mapping)?.encryption;
        let store = options::open(&server.name, &server.options, &mapping, &environment)?;
        Ok((store, encryption))
    })?;
    let key = encryption.key.as_ref().map(Key::new);
    Ok(OpenServer { name: name.to_string(), session, encrypts: encryption.write, key })
}

impl OpenServer {
    pub fn abilities(&self) -> Abilities {
        self.session.abilities()
    }

    /// With which objects and manifests are written; `None`: in the clear.
    pub fn write_key(&self) -> Option<&Key> {
        self.key.as_ref().filter(|_| self.encrypts)
    }

    /// With which encrypted objects and manifests are read.
    pub fn read_key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Says that what is exported now can be read by anybody, if so. Who exports calls it once.
    pub fn warn_if_public_and_clear(&self) {
        if !self.abilities().public || self.write_key().is_some() {
            return;
        }
        let message = format!("what is exported to server \"{}\" can be read by anybody", self.name);
        Fault::new(PgSqlErrorCode::ERRCODE_WARNING, message)
            .detail("Embeddings tell much of the texts or pictures that they were made of.")
            .hint("To encrypt it, set the option key or key_file in the user mapping of the server.")
            .report(PgLogLevel::WARNING);
    }
}

/// Directories of ours in the data directory, made if they are not there; nobody else may look into them.
fn environment(caching: Caching) -> Result<Environment> {
    let mut environment = Environment::new(data_directory());
    let ours = environment.data_directory.join("pg_hybrid");
    let bytes = archive_cache_size();
    let directory = ours.join("cache");
    for path in [&ours, &ours.join("receipts"), &directory] {
        make_directory(path)?;
    }
    let wanted = caching == Caching::Allowed && bytes > 0;
    environment.cache = wanted.then_some(CacheSettings { directory, bytes, memory: CACHE_IN_MEMORY });
    Ok(environment)
}

/// Makes a directory with mode 0700, if it is not there.
fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::File { path: path.display().to_string(), message: error.to_string() })
        }
        _ => Ok(()),
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_server_check(
    server: &CStr,
) -> TableIterator<
    'static,
    (name!(reachable, bool), name!(latency_ms, Option<f64>), name!(version, Option<String>), name!(steps, Vec<Shown>)),
> {
    let name = from_server(server);
    let checked = try_open(&name, Caching::Forbidden)
        .and_then(|opened| opened.session.run(|store, context| store.check(context)));
    let row = match checked {
        Ok(health) => (true, Some(health.latency_ms), health.version, shown(health.steps)),
        Err(error @ (Error::Cancelled | Error::Option { .. })) => or_raise(&name, Err(error)),
        Err(error) => (false, None, None, vec![error.to_string().into()]),
    };
    TableIterator::once(row)
}
