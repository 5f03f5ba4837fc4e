//! Stores of immutable objects, one trait for all: a directory, memory, Walrus, S5.
//!
//! An archive is some objects and one manifest that names them. The objects go first, the manifest last, so that whoever
//! finds a manifest finds all that it names. Names come from the content, so storing an object twice changes nothing.
//!
//! Nothing here knows PostgreSQL. Calls block; they are made on threads that may be left behind, so they hold nothing
//! that a session needs, and they look at [`Context::check`] at least ten times a second while they wait.

pub mod cache;
pub mod directory;
pub mod error;
pub mod http;
pub mod memory;
pub mod names;
pub mod options;
pub mod receipts;
pub mod redact;
pub mod s5;
pub mod walrus;

pub use error::{Error, Result};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// BLAKE3-256 of the stored bytes.
pub type Hash = [u8; 32];

/// Bytes of the largest object that may be given to a store: what every kind of store takes in one request.
pub const LARGEST_OBJECT: usize = 8 << 20;

/// An object to be stored. Never empty, at most [`LARGEST_OBJECT`] bytes.
#[derive(Clone, Debug)]
pub struct Object {
    /// `[a-z0-9][a-z0-9._-]*`, at most 100 bytes, ending in `.bin` or `.cbor`, and containing the first 32 hexadecimal
    /// digits of the hash; the same name always means the same bytes.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Where an object is. `locator` is for the store that returned it and opaque to everybody else: printable ASCII
/// without spaces. One that begins with `./` lies in the container of the manifest and is resolved against the
/// manifest's own locator (see [`Store::fetch`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub name: String,
    pub hash: Hash,
    pub length: u64,
    pub locator: String,
    /// Nothing was sent: it was there.
    pub reused: bool,
}

/// The locator of an object that a manifest names as `locator`, as any other manifest may name it: what begins with `./`
/// lies where the manifest itself lies.
pub fn resolve(locator: &str, manifest: &str) -> String {
    match locator.strip_prefix("./") {
        Some(name) => format!("{}{name}", &manifest[..manifest.rfind('/').map_or(0, |slash| slash + 1)]),
        None => locator.to_string(),
    }
}

/// What a finished upload did.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub manifest: Placed,
    /// All objects but the manifest, in the order in which they were put.
    pub objects: Vec<Placed>,
    /// Bytes sent, without those of failed attempts.
    pub sent: u64,
    /// What was paid, where the store has a price.
    pub price: Option<Price>,
    /// When the store lets the archive go: epoch number, and time in microseconds since 2000-01-01 UTC where it can be told.
    pub expires: Option<Expiry>,
    /// For a person, one line each.
    pub warnings: Vec<String>,
}

impl Receipt {
    /// The receipt of a store without prices and expiry.
    pub fn of(manifest: Placed, objects: Vec<Placed>, warnings: Vec<String>) -> Self {
        let sent = objects.iter().chain([&manifest]).filter(|placed| !placed.reused).map(|placed| placed.length).sum();
        Self { manifest, objects, sent, price: None, expires: None, warnings }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub epoch: u64,
    pub at: Option<i64>,
}

/// A price, estimated or paid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Price {
    /// Units of the store (Walrus: encoded MiB).
    pub units: u64,
    /// Smallest coins (Walrus: FROST).
    pub coins: u64,
    /// Name of the coin.
    pub coin: String,
    /// What objects stored one by one would have cost, in the same coins.
    pub coins_singly: u64,
    /// Requests that carry objects.
    pub requests: u64,
}

/// What a kind of store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// `directory`, `memory`, `walrus`, `s5`.
    pub kind: &'static str,
    /// What is stored can be read by anybody.
    pub public: bool,
    pub can_delete: bool,
    /// [`Store::manifests`] finds manifests without being told of them.
    pub can_list: bool,
    pub has_price: bool,
}

/// A manifest that a store found by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub locator: String,
    pub length: u64,
    /// Microseconds since 2000-01-01 UTC.
    pub stored_at: Option<i64>,
}

/// Answer of [`Store::check`].
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Milliseconds of the fastest request of the round trip.
    pub latency_ms: f64,
    /// What the other side says of itself, if anything.
    pub version: Option<String>,
    /// For a person: what was tried, one line each, e.g. "wrote, read and removed an object of 1 kB".
    pub steps: Vec<String>,
}

/// What a fetch must return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub hash: Hash,
    pub length: u64,
}

/// Counters that another thread may show to a person while the work goes on.
#[derive(Debug, Default)]
pub struct Progress {
    pub objects: AtomicU64,
    pub bytes: AtomicU64,
    pub retries: AtomicU64,
}

/// What a call is given besides its arguments.
#[derive(Clone, Default)]
pub struct Context {
    /// Set by the session that wants the work to end.
    pub stop: Arc<AtomicBool>,
    /// The work fails at this time.
    pub deadline: Option<Instant>,
    pub progress: Arc<Progress>,
}

impl Context {
    /// # Errors
    /// [`Error::Cancelled`] if the session wants the work to end, [`Error::TimedOut`] after the deadline.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::TimedOut),
            _ => Ok(()),
        }
    }
}

/// While it lives, no upload of anybody begins or ends in the store. See [`Store::lock_for_removal`].
pub type RemovalLock = Box<dyn std::any::Any + Send>;

/// A store. One value serves one session; it may be used from several threads.
pub trait Store: Send + Sync {
    fn abilities(&self) -> Abilities;

    /// Begins an upload. Objects that are stored already, alive, and as long as the store's options ask for, are not
    /// sent again.
    ///
    /// # Errors
    /// As the store.
    fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>>;

    /// The bytes of an object, checked against `expected`. `manifest` is the locator of the manifest that names it, for
    /// locators that begin with `./`; `None` when the manifest itself is fetched.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Corrupt`] (after repeats, where a repeat may help), and as the store.
    fn fetch(&self, locator: &str, manifest: Option<&str>, expected: &Expected, context: &Context) -> Result<Vec<u8>>;

    /// The bytes of a manifest that a person named, at most `limit`. What is known of its content is in the locator: the store
    /// checks it as far as that goes, and returns an error that names the locator otherwise.
    ///
    /// # Errors
    /// As [`Store::fetch`].
    fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>>;

    /// Which of these objects, of earlier archives, a new archive may name without sending them again: those that are in
    /// the store, as far as it can tell without fetching them, and will be for as long as its options ask. Their locators
    /// do not begin with `./` (see [`resolve`]). A store that cannot tell says `false`.
    ///
    /// # Errors
    /// As the store.
    fn present(&self, objects: &[Placed], context: &Context) -> Result<Vec<bool>> {
        context.check()?;
        Ok(vec![false; objects.len()])
    }

    /// Removes an object or a manifest; `false` if it was not there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the store cannot, and as the store.
    fn remove(&self, locator: &str, context: &Context) -> Result<bool>;

    /// Manifests in the store, newest first where times are known.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the store cannot, and as the store.
    fn manifests(&self, context: &Context) -> Result<Vec<Listed>>;

    /// What an upload of objects of these lengths and a manifest of `manifest` bytes would cost if none was there.
    /// `None` where the store has no price.
    fn price(&self, lengths: &[u64], manifest: u64) -> Option<Price>;

    /// Keeps uploads out while objects are removed. An upload that reuses an object relies on it before any manifest
    /// names it; so whoever removes what no manifest names takes this lock, then lists the manifests, then removes.
    /// Waits for uploads under way. `None`: the store knows no locks, and objects that were stored or reused lately
    /// must be left alone.
    ///
    /// # Errors
    /// As the store.
    fn lock_for_removal(&self, context: &Context) -> Result<Option<RemovalLock>> {
        context.check()?;
        Ok(None)
    }

    /// Tries the store with a small object.
    ///
    /// # Errors
    /// The first failure, saying which step failed.
    fn check(&self, context: &Context) -> Result<Health>;
}

/// An upload under way. Dropping it leaves stored objects where they are; the next upload finds them.
pub trait Upload: Send {
    /// Takes an object; it may be sent now, with others, or at [`Upload::finish`]. Holds at most some tens of MiB.
    ///
    /// # Errors
    /// As the store.
    fn put(&mut self, object: Object) -> Result<()>;

    /// Sends what is left, then the manifest that `manifest` makes of the places of all objects, in the order of the
    /// puts. It is called once or more (places of the last container may be settled late): the last call counts.
    ///
    /// # Errors
    /// As the store. Stored objects stay, and are found by the next upload.
    fn finish(self: Box<Self>, manifest: &mut dyn FnMut(&[Placed]) -> Object) -> Result<Receipt>;
}
