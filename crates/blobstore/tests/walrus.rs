//! The Walrus store against the emulator, over real sockets. The emulator's ledger proves what was paid.

mod contract;
mod walrus_setup;

use blobstore::http::Wallclock;
use blobstore::options::{Environment, open};
use blobstore::{Context, Error, Object};
use contract::{contract, manifest, object};
use emulators::walrus::Config;
use std::time::Duration;
use walrus::{Shards, pack, price};
use walrus_setup::{Setup, objects};

#[test]
fn the_contract() {
    let setup = Setup::new();
    contract(&|| setup.open());
}

#[test]
fn the_contract_with_deletable_blobs() {
    let mut setup = Setup::new();
    setup.set("permanent", "false");
    contract(&|| setup.open());
}

#[test]
fn an_archive_is_one_quilt_and_its_price_is_known_before() {
    let setup = Setup::new();
    let objects = objects(20, 10_000);
    let lengths: Vec<u64> = objects.iter().map(|object| object.bytes.len() as u64).collect();
    let before = setup.open().price(&lengths, 2000).unwrap();
    let receipt = setup.upload(&objects).unwrap();
    setup.verify(&receipt, &objects);
    setup.paid_once(&receipt);
    let [payment] = &setup.walrus.ledger()[..] else { panic!("one quilt") };
    assert!(payment.quilt && !payment.deletable);
    let price = receipt.price.as_ref().unwrap();
    assert_eq!((price.coins, price.units, price.requests), (before.coins, before.units, 1));
    assert!(price.coins_singly > price.coins);
    assert!(receipt.objects.iter().all(|placed| placed.locator.starts_with("./")));
    let expires = receipt.expires.unwrap();
    assert_eq!(expires.epoch, 39);
    assert!(expires.at.is_some());
    assert_eq!(receipt.warnings, Vec::<String>::new());
}

#[test]
fn a_manifest_alone_is_a_blob() {
    let setup = Setup::new();
    let receipt = setup.upload(&[]).unwrap();
    assert!(!setup.walrus.ledger()[0].quilt);
    assert!(receipt.manifest.locator.contains("/blob/manifest-"), "{}", receipt.manifest.locator);
    setup.verify(&receipt, &[]);
}

#[test]
fn containers_are_cut_where_memory_and_cliffs_say() {
    // 100 shards: 67 columns. 34 equal patches have one column each, and almost half of the quilt would be empty.
    let mut setup = Setup::with(Config::default(), 100);
    setup.set("quilt_bytes", "1MB");
    let objects = objects(40, 31_000);
    let receipt = setup.upload(&objects).unwrap();
    setup.verify(&receipt, &objects);
    setup.paid_once(&receipt);
    let ledger = setup.walrus.ledger();
    let shards = Shards::new(100).unwrap();
    let units = |count: u64| {
        let items = (0..count).map(|n| pack::Item { identifier: 44, length: 31_000 + n });
        pack::quilt_units(shards, items).unwrap()
    };
    assert!(units(34) > units(33) + 3, "there is a cliff");
    assert_eq!(ledger[0].cost, units(33) * 520_000);
    assert!(receipt.price.as_ref().unwrap().units < units(34));
    assert_eq!(ledger.len(), 2);
    // The last container, which has the manifest, was paid last.
    assert!(receipt.manifest.locator.starts_with(&ledger.last().unwrap().blob));
}

#[test]
fn what_is_stored_is_not_sent_again() {
    let setup = Setup::new();
    let mut objects = objects(5, 1000);
    let first = setup.upload(&objects).unwrap();
    objects.push(object(7));
    let second = setup.upload(&objects).unwrap();
    setup.verify(&second, &objects);
    assert_eq!(second.objects.iter().filter(|placed| !placed.reused).count(), 1);
    let third = setup.upload(&objects).unwrap();
    let puts = setup.puts();
    let fourth = setup.upload(&objects).unwrap();
    assert_eq!(setup.puts(), puts, "even the manifest is there");
    assert_eq!((fourth.sent, fourth.price.as_ref().unwrap().coins), (0, 0));
    assert_eq!(fourth.manifest.locator, third.manifest.locator);
    assert_eq!(setup.walrus.ledger().len(), 3);
    assert_eq!(first.expires.unwrap().epoch, fourth.expires.unwrap().epoch);
}

#[test]
fn what_would_end_too_early_is_stored_again() {
    let setup = Setup::new();
    let objects = objects(5, 1000);
    setup.upload(&objects).unwrap();
    setup.walrus.set_epoch(35);
    setup.wait(Duration::from_secs(2 * 86_400));
    let receipt = setup.upload(&objects).unwrap();
    assert!(receipt.objects.iter().all(|placed| !placed.reused));
    assert_eq!(receipt.expires.unwrap().epoch, 40);
    assert_eq!(setup.walrus.ledger().len(), 2);
    let again = setup.upload(&objects).unwrap();
    assert!(again.objects.iter().all(|placed| placed.reused));
}

#[test]
fn what_has_ended_is_not_found_and_stored_again() {
    let mut setup = Setup::new();
    setup.options.retain(|(name, _)| name != "epoch_seconds");
    let objects = objects(3, 1000);
    let first = setup.upload(&objects).unwrap();
    assert_eq!(first.expires.unwrap().at, None, "without the length of an epoch no date is told");
    setup.walrus.set_epoch(39);
    setup.wait(Duration::from_secs(86_400));
    let fetched = setup.open().fetch_manifest(&first.manifest.locator, 1 << 20, &Context::default());
    assert!(matches!(fetched, Err(Error::NotFound { .. })), "{fetched:?}");
    let second = setup.upload(&objects).unwrap();
    assert!(second.objects.iter().all(|placed| !placed.reused));
    setup.verify(&second, &objects);
    assert_eq!(second.expires.unwrap().epoch, 44);
}

#[test]
fn a_network_that_forgot_is_believed() {
    let setup = Setup::new();
    let objects = objects(3, 1000);
    setup.upload(&objects).unwrap();
    setup.walrus.blobs().into_iter().for_each(|blob| setup.walrus.forget(blob));
    setup.wait(Duration::from_secs(3600));
    let receipt = setup.upload(&objects).unwrap();
    assert!(receipt.objects.iter().all(|placed| !placed.reused));
    setup.verify(&receipt, &objects);
}

#[test]
fn one_epoch_may_end_at_once_and_the_receipt_warns() {
    let mut setup = Setup::new();
    setup.set("epochs", "1");
    let receipt = setup.upload(&objects(2, 100)).unwrap();
    assert!(receipt.warnings.iter().any(|warning| warning.contains("epoch 35")), "{:?}", receipt.warnings);
}

#[test]
fn a_check_pays_once() {
    let setup = Setup::new();
    for _ in 0..3 {
        let health = setup.open().check(&Context::default()).unwrap();
        assert!(health.latency_ms.is_finite() && !health.steps.is_empty());
    }
    let ledger = setup.walrus.ledger();
    let units = price::blob_units(Shards::new(100).unwrap(), 44).unwrap();
    assert_eq!((ledger.len(), ledger[0].cost), (1, units * 520_000));
}

#[test]
fn prices_follow_what_an_upload_does() {
    let mut setup = Setup::with(Config::default(), 10);
    setup.set("quilt_bytes", "1MB");
    let objects: Vec<Object> = [900_000, 10, 20, 400_000, 400_000, 399_999, 5000, 700_000].map(object).into();
    let lengths: Vec<u64> = objects.iter().map(|object| object.bytes.len() as u64).collect();
    let before = setup.open().price(&lengths, 1000).unwrap();
    let receipt = setup.upload(&objects).unwrap();
    let after = receipt.price.unwrap();
    assert!(before.units.abs_diff(after.units) <= 1, "{before:?} {after:?}");
    assert_eq!(before.requests, after.requests);
}

/// Peak memory of an upload of 256 MiB in objects of 4 MiB. Run by hand, against a publisher in another process:
/// `WALRUS_URL=.. cargo test --release -p blobstore --test walrus peak_memory -- --ignored --nocapture`
#[test]
#[ignore = "a figure, not a check"]
fn peak_memory() {
    let Ok(url) = std::env::var("WALRUS_URL") else { return };
    let data = tempfile::tempdir().unwrap();
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = [option("type", "walrus"), option("publisher", &url), option("aggregator", &url)];
    let environment = Environment { data_directory: data.path().into(), cache: None, wallclock: Wallclock::default() };
    let store = open("testnet", &options, &[], &environment).unwrap();
    let mut upload = store.upload(&Context::default()).unwrap();
    (0..64).for_each(|_| upload.put(object(4 << 20)).unwrap());
    let receipt = upload.finish(&mut manifest).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!("{peak}, price {:?}", receipt.price);
}

/// Ids of 1000 shards, as the networks have them.
#[test]
fn a_thousand_shards() {
    let setup = Setup::with(Config::default(), 1000);
    let objects = objects(3, 100_000);
    let receipt = setup.upload(&objects).unwrap();
    setup.verify(&receipt, &objects);
    assert_eq!(setup.walrus.ledger()[0].cost, 63 * 520_000);
}
