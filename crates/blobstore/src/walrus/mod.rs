//! Walrus: objects are patches of quilts, or blobs of their own where that costs less.
//!
//! What is stored is paid for, cannot be removed over HTTP, and can be read by anybody. So the care here goes into never
//! paying twice:
//!
//! - The id of a container is computed before it is sent, and what a publisher answers is compared with it.
//! - A container is announced in the receipts before it is sent; what came of it is written before it is believed.
//! - After an answer that was lost the aggregator is asked whether the container is there; see [`send`].
//! - Objects that the receipts know, that last as long as is asked for, and that an aggregator still finds, are not sent.
//!
//! Locators: `<quilt id>/<name>` for a patch, `<blob id>/blob/<name>` for a blob, `./<name>` for a patch of the manifest's
//! own quilt.

mod api;
mod check;
mod epochs;
mod known;
mod place;
mod read;
mod send;
mod token;
mod upload;

use crate::http::Client;
use crate::names::{check_bytes, check_content};
use crate::options::WalrusOptions;
use crate::{Abilities, Context, Error, Expected, Health, Listed, Price, Result, Store, Upload};
use ::walrus::pack::{Item, Limits};
use ::walrus::{BlobId, Prices, Shards, pack};
use place::Place;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The coin of prices; 10^9 of them are a WAL.
const COIN: &str = "FROST";

/// Bytes of the name of an object, for prices of objects that have none yet.
const USUAL_NAME: usize = 44;

/// # Errors
/// [`Error::Option`] if the options describe no network or the certificates cannot be read.
pub fn open(options: WalrusOptions) -> Result<Arc<dyn Store>> {
    let shards = Shards::new(options.shards).map_err(|error| Error::Option {
        option: "shards".to_owned(),
        message: error.to_string(),
        hint: Some("Mainnet and Testnet have 1000 shards.".to_owned()),
    })?;
    let client = Client::new(options.network.clone())?;
    let inner = Inner { options, shards, client, aggregator: AtomicUsize::new(0), fresh: Mutex::default() };
    Ok(Arc::new(Walrus { inner: Arc::new(inner) }))
}

/// What a store and the threads of its uploads share.
struct Inner {
    options: WalrusOptions,
    shards: Shards,
    client: Client,
    /// The aggregator that answered last.
    aggregator: AtomicUsize,
    /// Containers that were stored through this value, and when: an aggregator may not know them yet.
    fresh: Mutex<HashMap<BlobId, Instant>>,
}

impl Inner {
    fn fresh(&self) -> MutexGuard<'_, HashMap<BlobId, Instant>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prices(&self) -> Prices {
        Prices { storage: self.options.storage_price, write: self.options.write_price }
    }

    fn cost(&self, units: u64) -> u64 {
        self.prices().cost(units, u64::from(self.options.epochs))
    }

    /// `extra`: bytes by which a quilt may be longer than the options say; for the manifest.
    fn limits(&self, extra: u64) -> Limits {
        Limits {
            quilt_data: self.options.quilt_bytes.saturating_add(extra),
            quilt_body: self.options.max_quilt_bytes,
            blob_body: self.options.max_blob_bytes,
        }
    }

    /// Microseconds since 1970.
    fn now(&self) -> i64 {
        micros((self.options.network.wallclock.0)())
    }
}

fn micros(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Containers that are being sent by this process.
static UNDER_WAY: Mutex<Option<HashSet<String>>> = Mutex::new(None);

struct Walrus {
    inner: Arc<Inner>,
}

impl Store for Walrus {
    fn abilities(&self) -> Abilities {
        Abilities { kind: "walrus", public: true, can_delete: false, can_list: false, has_price: true }
    }

    fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>> {
        context.check()?;
        Ok(Box::new(upload::Sending::begin(&self.inner, context)?))
    }

    fn fetch(&self, locator: &str, manifest: Option<&str>, expected: &Expected, context: &Context) -> Result<Vec<u8>> {
        context.check()?;
        let place = Place::parse(locator, manifest)?;
        let limit = usize::try_from(expected.length).unwrap_or(usize::MAX).saturating_add(1 << 16);
        self.inner.read(&place, limit, context, &|bytes| check_bytes(&place.name, bytes, expected))
    }

    fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
        context.check()?;
        let place = Place::parse(locator, None)?;
        self.inner.read(&place, limit, context, &|bytes| check_content(&place.name, blake3::hash(bytes).as_bytes()))
    }

    fn present(&self, objects: &[crate::Placed], context: &Context) -> Result<Vec<bool>> {
        context.check()?;
        let mut known = known::Known::read(&self.inner)?;
        let is_present = |placed: &crate::Placed| -> Result<bool> {
            let found = known.find(&self.inner, &placed.hash, context)?;
            Ok(found.is_some_and(|found| found.place.to_string() == placed.locator))
        };
        objects.iter().map(is_present).collect()
    }

    fn remove(&self, _locator: &str, _context: &Context) -> Result<bool> {
        Err(Error::Unsupported { what: "remove objects: that takes the wallet that owns them" })
    }

    fn manifests(&self, _context: &Context) -> Result<Vec<Listed>> {
        Err(Error::Unsupported { what: "list what it holds" })
    }

    fn price(&self, lengths: &[u64], manifest: u64) -> Option<Price> {
        self.inner.price(lengths, manifest)
    }

    fn check(&self, context: &Context) -> Result<Health> {
        context.check()?;
        self.inner.health(context)
    }
}

impl Inner {
    /// Plays an upload with lengths alone.
    fn price(&self, lengths: &[u64], manifest: u64) -> Option<Price> {
        let item = |length: u64| Item { identifier: USUAL_NAME, length };
        let mut price = Price { coin: COIN.to_owned(), ..Price::default() };
        let mut take = |units: u64, containers: usize| {
            price.units = price.units.saturating_add(units);
            price.requests += containers as u64;
        };
        let mut pending: Vec<Item> = Vec::new();
        for length in lengths {
            pending.push(item(*length));
            while upload::is_full(self, &pending) {
                let (units, sent) = upload::first_containers(self, &pending).ok()?;
                take(units, sent.len());
                let gone: HashSet<usize> = sent.iter().flat_map(|container| container.items().to_vec()).collect();
                let mut position = 0;
                pending.retain(|_| {
                    position += 1;
                    !gone.contains(&(position - 1))
                });
            }
        }
        pending.push(item(manifest));
        let plan = pack::plan(self.shards, &pending, &self.limits(manifest)).ok()?;
        take(plan.units, plan.containers.len());
        let all: Vec<Item> = lengths.iter().copied().chain([manifest]).map(item).collect();
        price.coins = self.cost(price.units);
        price.coins_singly = self.cost(pack::units_singly(self.shards, &all));
        Some(price)
    }
}
