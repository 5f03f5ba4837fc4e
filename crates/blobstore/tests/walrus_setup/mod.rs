//! A Walrus daemon and a database directory, for the tests of the Walrus store.

#![allow(dead_code, reason = "each test file uses what it needs")]

use crate::contract::{object, upload, verify};
use blobstore::http::Wallclock;
use blobstore::options::{Environment, open};
use blobstore::{Context, Object, Receipt, Result, Store};
use emulators::Settings;
use emulators::faults::Fault;
use emulators::walrus::{Config, Walrus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use walrus::Shards;

/// A daemon, the data directory of a database, and a clock that the test sets.
pub struct Setup {
    pub walrus: Walrus,
    pub data: TempDir,
    pub options: Vec<(String, String)>,
    pub mapping: Vec<(String, String)>,
    pub later: Arc<AtomicU64>,
}

impl Setup {
    pub fn new() -> Self {
        Self::with(Config::default(), 100)
    }

    pub fn with(config: Config, shards: u16) -> Self {
        let config = Config { shards: Shards::new(shards).unwrap(), ..config };
        let walrus = Walrus::start(&Settings::default(), config).unwrap();
        let url = walrus.url();
        let mut setup = Self {
            walrus,
            data: tempfile::tempdir().unwrap(),
            options: Vec::new(),
            mapping: Vec::new(),
            later: Arc::default(),
        };
        setup.set("type", "walrus");
        setup.set("publisher", &url);
        setup.set("aggregator", &url);
        setup.set("shards", &shards.to_string());
        setup.set("retries", "2");
        setup.set("epoch_seconds", "86400");
        setup
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.options.retain(|(other, _)| other != name);
        self.options.push((name.to_owned(), value.to_owned()));
    }

    pub fn open(&self) -> Arc<dyn Store> {
        let later = Arc::clone(&self.later);
        let clock = move || SystemTime::now() + Duration::from_secs(later.load(Ordering::Relaxed));
        let environment = Environment {
            data_directory: self.data.path().to_owned(),
            cache: None,
            wallclock: Wallclock(Arc::new(clock)),
        };
        open("testnet", &self.options, &self.mapping, &environment).unwrap()
    }

    pub fn wait(&self, time: Duration) {
        self.later.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    pub fn upload(&self, objects: &[Object]) -> Result<Receipt> {
        upload(&*self.open(), objects, &Context::default())
    }

    pub fn verify(&self, receipt: &Receipt, objects: &[Object]) {
        verify(&|| self.open(), receipt, objects);
    }

    pub fn fault(&self, fault: Fault) {
        self.walrus.faults().add(fault);
    }

    pub fn puts(&self) -> usize {
        self.walrus.server().requests().iter().filter(|request| request.method == "PUT").count()
    }

    /// No blob has more than one living object, and the receipt says what the ledger says.
    pub fn paid_once(&self, receipt: &Receipt) {
        let ledger = self.walrus.ledger();
        let mut blobs: Vec<&str> = ledger.iter().map(|payment| payment.blob.as_str()).collect();
        blobs.sort_unstable();
        let count = blobs.len();
        blobs.dedup();
        assert_eq!(blobs.len(), count, "something was paid twice: {ledger:?}");
        let paid: u64 = ledger.iter().map(|payment| payment.cost).sum();
        assert_eq!(receipt.price.as_ref().unwrap().coins, paid);
    }
}

pub fn objects(count: usize, length: usize) -> Vec<Object> {
    (0..count).map(|n| object(length + n)).collect()
}

pub const PUT: &str = "/v1/quilts";
