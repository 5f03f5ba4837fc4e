//! Fetching what is in a store: manifests, and the objects that they name.

use super::fault;
use super::server::OpenServer;
use super::thread::Stream;
use crate::error::Fault;
use archive::{Key, Manifest, ObjectRef};
use blobstore::{Context, Expected, Store};
use pgrx::PgSqlErrorCode as Code;

/// Objects that are fetched at the same time.
const AT_A_TIME: usize = 4;
/// Bytes that are fetched before somebody takes them.
const AHEAD: usize = 32 << 20;

/// What went wrong with an archive: with the store, with what it holds, or with its use.
#[derive(Debug)]
pub(super) enum Failure {
    Store(blobstore::Error),
    Archive(archive::Error),
    /// With the index that is archived.
    Index(ann::error::Error),
    /// The archive is sound and not fit for this.
    Unfit(String),
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

impl From<blobstore::Error> for Failure {
    fn from(error: blobstore::Error) -> Self {
        Self::Store(error)
    }
}

impl From<archive::Error> for Failure {
    fn from(error: archive::Error) -> Self {
        Self::Archive(error)
    }
}

impl Failure {
    /// An error to be raised about the store behind a server.
    pub fn fault(&self, server: &str) -> Fault {
        let (code, hint) = match self {
            Self::Store(error) => return fault::fault(server, error),
            Self::Archive(archive::Error::Newer { .. }) => {
                (Code::ERRCODE_FEATURE_NOT_SUPPORTED, "Install a newer release of hybridvec.")
            }
            Self::Archive(archive::Error::Key { .. }) => (
                Code::ERRCODE_INVALID_PASSWORD,
                "Set the option key or key_file in the user mapping of the server to the key that it was exported with.",
            ),
            Self::Archive(archive::Error::Unfit { .. } | archive::Error::TooLarge { .. }) => {
                (Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "An archive has limits; see docs/archive-format.md.")
            }
            Self::Index(ann::error::Error::Structure(_)) | Self::Archive(_) => {
                (Code::ERRCODE_DATA_CORRUPTED, "Nothing was changed. Use another archive, or export again.")
            }
            Self::Index(_) => (Code::ERRCODE_INDEX_CORRUPTED, "REINDEX builds the index anew from the table."),
            Self::Unfit(_) => {
                (Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "hybrid_archive_list shows what each archive is of.")
            }
        };
        let message = match self {
            Self::Archive(error) => format!("server \"{server}\": {error}"),
            Self::Index(error) => format!("server \"{server}\": {error}"),
            Self::Unfit(what) => what.clone(),
            Self::Store(_) => unreachable!("handled above"),
        };
        Fault::new(code, message).hint(hint)
    }

    /// For a WARNING or a row of a result.
    pub fn message(&self) -> String {
        match self {
            Self::Store(error) => error.to_string(),
            Self::Archive(error) => error.to_string(),
            Self::Index(error) => error.to_string(),
            Self::Unfit(what) => what.clone(),
        }
    }
}

/// Unwraps, or raises what went wrong.
pub(super) fn or_raise<T>(server: &OpenServer, result: Result<T>) -> T {
    result.unwrap_or_else(|failure| failure.fault(&server.name).raise())
}

/// A manifest from a store, on a helper's thread.
pub(super) fn manifest_from(
    store: &dyn Store,
    locator: &str,
    key: Option<&Key>,
    context: &Context,
) -> Result<Manifest> {
    let bytes = store.fetch_manifest(locator, archive::LARGEST_MANIFEST, context)?;
    // What was written in the clear is read without a key; the hash in its name says that it is what was written.
    let key = key.filter(|_| archive::peek(&bytes).is_ok_and(|peeked| peeked.key.is_some()));
    Ok(Manifest::unpack(locator, &bytes, key)?)
}

impl OpenServer {
    /// Fetches and reads a manifest.
    pub fn manifest(&self, locator: &str) -> Result<Manifest> {
        if locator.is_empty() || locator.len() > 1024 || !locator.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::Unfit("a manifest is named by printable ASCII without spaces".into()));
        }
        let (locator, key) = (locator.to_string(), self.read_key().cloned());
        // The helper's errors are the store's; those of the archive come as a value.
        self.session.run(move |store, context| match manifest_from(store, &locator, key.as_ref(), context) {
            Err(Failure::Store(error)) => Err(error),
            other => Ok(other),
        })?
    }

    /// Fetches objects of a manifest, several at a time, ahead of whoever takes them.
    pub fn objects(&self, (locator, manifest): (&str, &Manifest), objects: &[ObjectRef]) -> Objects<'_> {
        let key = self.read_key().filter(|_| manifest.encryption.is_some()).cloned();
        let (wanted, manifest) = (objects.to_vec(), locator.to_string());
        let stream = self.session.stream(AHEAD, move |store, sink| {
            for some in wanted.chunks(AT_A_TIME) {
                for chunk in fetch_some(store, some, &manifest, key.as_ref(), sink.context) {
                    let size = chunk.as_ref().map_or(0, Vec::len);
                    let failed = chunk.is_err();
                    sink.push(size, chunk)?;
                    if failed {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        Objects { stream }
    }
}

/// Raw chunks of objects, in the order in which they were asked for.
pub(super) struct Objects<'s> {
    stream: Stream<'s, Result<Vec<u8>>>,
}

impl Objects<'_> {
    /// The next one. The caller holds no page, and does not ask for more than there are.
    pub fn next(&mut self) -> Result<Vec<u8>> {
        match self.stream.next()? {
            Some(chunk) => chunk,
            None => Err(Failure::Archive(archive::Error::Stopped { why: "there are no more objects".into() })),
        }
    }
}

/// Objects fetched and unpacked at the same time, in order.
fn fetch_some(
    store: &dyn Store,
    objects: &[ObjectRef],
    manifest: &str,
    key: Option<&Key>,
    context: &Context,
) -> Vec<Result<Vec<u8>>> {
    std::thread::scope(|scope| {
        let fetch = |object: &ObjectRef| -> Result<Vec<u8>> {
            let expected = Expected { hash: object.stored, length: object.stored_length };
            let bytes = store.fetch(&object.locator, Some(manifest), &expected, context)?;
            Ok(archive::unpack(&bytes, object, key)?)
        };
        let threads: Vec<_> = objects.iter().map(|object| scope.spawn(move || fetch(object))).collect();
        let failed = |_| Err(Failure::Archive(archive::Error::Stopped { why: "a thread failed".into() }));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect()
    })
}
