//! The Walrus store while publishers, aggregators and the network misbehave, and sessions end in the middle.

mod contract;
mod walrus_setup;

use blobstore::http::Wallclock;
use blobstore::options::{Environment, open};
use blobstore::{Context, Error, Expected, Object};
use contract::{manifest, upload};
use emulators::Settings;
use emulators::faults::{Fault, Kind};
use emulators::walrus::{Config, JwtRules, Walrus};
use std::sync::atomic::Ordering;
use std::time::Duration;
use walrus::Shards;
use walrus_setup::{PUT, Setup, objects};

/// Faults of a publisher, each before a store or after it, and after none of them is anything paid twice.
#[test]
fn nothing_is_paid_twice_whatever_the_publisher_does() {
    let internal = r#"{"error":{"status":"INTERNAL","code":500,"message":"x","details":[{"@type":"ErrorInfo","reason":"INTERNAL_ERROR","domain":"daemon.walrus.space","metadata":{}}]}}"#;
    let confirmations = internal.replace("INTERNAL_ERROR", "INSUFFICIENT_CONFIRMATIONS");
    let expired = internal.replace("INTERNAL_ERROR", "EXPIRED_SIGNATURE");
    let kinds = [
        ("reset", Kind::Reset),
        ("reset in the body", Kind::ResetUpload { after_bytes: 50_000 }),
        ("busy", Kind::busy(0)),
        ("internal error", Kind::json(500, internal)),
        ("no confirmations", Kind::json(504, &confirmations)),
        ("expired token", Kind::json(504, &expired)),
        ("page of a proxy", Kind::html(502)),
        ("page of a proxy, 200", Kind::html(200)),
        ("nonsense", Kind::json(200, "{}")),
        ("lost answer", Kind::Lost),
        ("cut answer", Kind::Truncate { keep: 10 }),
        ("short answer", Kind::Shorten { keep: 10 }),
        ("error in 200", Kind::special("error-200")),
        ("late", Kind::special("late")),
        ("no patches", Kind::special("no-patches")),
        ("delay", Kind::Delay { ms: 50 }),
        ("trickle", Kind::Trickle { piece: 100, pause_ms: 5 }),
    ];
    std::thread::scope(|scope| {
        for permanent in ["true", "false"] {
            for (name, kind) in &kinds {
                scope.spawn(move || {
                    let mut setup = Setup::with(Config::default(), 10);
                    setup.set("permanent", permanent);
                    let objects = objects(3, 30_000);
                    setup.fault(Fault::on(PUT, kind.clone()).method("PUT"));
                    let receipt = setup.upload(&objects).unwrap_or_else(|error| panic!("{name}, {permanent}: {error}"));
                    setup.verify(&receipt, &objects);
                    let ledger = setup.walrus.ledger();
                    assert_eq!(ledger.len(), 1, "{name}, permanent {permanent}: {ledger:?}");
                    assert_eq!(receipt.expires.map_or(39, |expires| expires.epoch), 39, "{name}");
                    assert_eq!(receipt.price.as_ref().unwrap().coins, ledger[0].cost, "{name}, permanent {permanent}");
                    assert!(setup.walrus.faults().left().is_empty(), "{name} was met");
                    let again = setup.upload(&objects).unwrap();
                    assert!(again.objects.iter().all(|placed| placed.reused), "{name}");
                });
            }
        }
    });
}

#[test]
fn what_a_publisher_refuses_is_told() {
    let setup = Setup::new();
    for (status, body) in [(400, "Failed to deserialize"), (401, "no"), (403, "no"), (413, "length limit"), (451, "no")]
    {
        setup.fault(Fault::on(PUT, Kind::text(status, body)));
        let error = setup.upload(&objects(2, 100)).unwrap_err();
        assert!(matches!(error, Error::Refused { status: Some(given), .. } if given == status), "{error}");
    }
    assert_eq!(setup.puts(), 5, "no refusal is repeated");
    assert_eq!(setup.walrus.ledger(), []);
    assert_eq!(setup.upload(&objects(2, 100)).unwrap().price.unwrap().requests, 1);
}

#[test]
fn a_wrong_id_is_not_believed_and_not_paid_again() {
    let setup = Setup::new();
    let objects = objects(3, 1000);
    setup.fault(Fault::on("", Kind::special("wrong-id")));
    let error = setup.upload(&objects).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    let receipt = setup.upload(&objects).unwrap();
    assert!(receipt.objects.iter().all(|placed| placed.reused), "the aggregator has what was paid for");
    setup.verify(&receipt, &objects);
    let quilts = setup.walrus.ledger().into_iter().filter(|payment| payment.quilt).count();
    assert_eq!(quilts, 1);
}

#[test]
fn what_the_network_marked_invalid_is_refused() {
    let setup = Setup::new();
    setup.fault(Fault::on("", Kind::special("marked-invalid")).always());
    let error = setup.upload(&objects(3, 1000)).unwrap_err();
    assert!(matches!(&error, Error::Refused { message, .. } if message.contains("invalid")), "{error}");
    assert_eq!(setup.puts(), 1);
    // A blob is answered with status 500 instead.
    assert!(setup.upload(&[]).is_err());
    assert_eq!(setup.walrus.ledger(), []);
}

#[test]
fn a_publisher_that_stores_something_else_is_told_of() {
    let setup = Setup::new();
    setup.fault(Fault::on("", Kind::special("deletable")));
    let receipt = setup.upload(&objects(2, 100)).unwrap();
    assert!(receipt.warnings[0].contains("deletable"), "{:?}", receipt.warnings);
    setup.fault(Fault::on("", Kind::special("short")));
    let receipt = setup.upload(&objects(2, 100)).unwrap();
    assert!(receipt.warnings[0].contains("until epoch 35, not 39"), "{:?}", receipt.warnings);
    assert_eq!(receipt.expires.unwrap().epoch, 35);
}

#[test]
fn a_fresh_token_for_every_attempt() {
    let rules = JwtRules { secret: vec![1, 2, 0xff], expiring_sec: 60, verify_upload: true };
    let mut setup = Setup::with(Config { jwt: Some(rules), ..Config::default() }, 100);
    let refused = setup.upload(&objects(2, 100)).unwrap_err();
    assert!(matches!(refused, Error::Refused { status: Some(400), .. }), "{refused}");
    setup.mapping = vec![("jwt_secret".to_owned(), "0x0102fe".to_owned())];
    let refused = setup.upload(&objects(2, 100)).unwrap_err();
    assert!(matches!(refused, Error::Refused { status: Some(401), .. }), "{refused}");
    setup.mapping = vec![("jwt_secret".to_owned(), "0x0102ff".to_owned())];
    for count in [3, 60] {
        let objects = objects(count, 50);
        setup.fault(Fault::on(PUT, Kind::special("error-200")));
        let receipt = setup.upload(&objects).unwrap();
        setup.verify(&receipt, &objects);
    }
    assert!(setup.open().check(&Context::default()).is_ok(), "a blob");
}

#[test]
fn reads_go_to_the_next_aggregator() {
    let mut setup = Setup::new();
    let objects = objects(4, 5000);
    let receipt = setup.upload(&objects).unwrap();
    let url = setup.walrus.url();
    let bad =
        Walrus::start(&Settings::default(), Config { shards: Shards::new(100).unwrap(), ..Config::default() }).unwrap();
    // One that refuses connections, one that knows nothing, and one that works.
    setup.set("aggregator", &format!("http://127.0.0.1:9, {}, {url}", bad.url()));
    setup.verify(&receipt, &objects);
    bad.faults().add(Fault::on("/v1", Kind::html(200)).always());
    setup.verify(&receipt, &objects);
    bad.faults().clear();
    bad.faults().add(Fault::on("/v1", Kind::Stall).always());
    setup.set("timeout", "1s");
    setup.verify(&receipt, &objects[..1]);
}

#[test]
fn reads_survive_faults_and_never_return_wrong_bytes() {
    let setup = Setup::new();
    let objects = objects(1, 5000);
    let receipt = setup.upload(&objects).unwrap();
    for kind in [
        Kind::Reset,
        Kind::Lost,
        Kind::Truncate { keep: 100 },
        Kind::Shorten { keep: 100 },
        Kind::Flip { byte: 77 },
        Kind::busy(0),
        Kind::html(503),
        Kind::html(200),
        Kind::text(500, "oops"),
        Kind::Trickle { piece: 1000, pause_ms: 1 },
    ] {
        setup.fault(Fault::on("/v1/blobs", kind));
        setup.verify(&receipt, &objects);
        assert!(setup.walrus.faults().left().is_empty());
    }
    setup.fault(Fault::on("/v1/blobs", Kind::Flip { byte: 77 }).always());
    let placed = &receipt.objects[0];
    let expected = Expected { hash: placed.hash, length: placed.length };
    let locator = Some(&*receipt.manifest.locator);
    let fetched = setup.open().fetch(&placed.locator, locator, &expected, &Context::default());
    assert!(matches!(fetched, Err(Error::Corrupt { .. })), "{fetched:?}");
    let fetched = setup.open().fetch_manifest(&receipt.manifest.locator, 1 << 20, &Context::default());
    assert!(matches!(fetched, Err(Error::Corrupt { .. })), "{fetched:?}");
}

#[test]
fn a_stale_404_is_repeated_only_after_our_own_store() {
    let setup = Setup::with(Config { stale_404: 2, ..Config::default() }, 100);
    let objects = objects(2, 100);
    let receipt = setup.upload(&objects).unwrap();
    let missing = r#"{"error":{"status":"NOT_FOUND","code":404,"message":"x","details":[{"@type":"ErrorInfo","reason":"BLOB_NOT_FOUND","domain":"daemon.walrus.space","metadata":{}}]}}"#;
    setup.fault(Fault::on("/v1/blobs/by-quilt-id", Kind::json(404, missing)).times(1));
    setup.verify(&receipt, &objects);
    let gets = || setup.walrus.server().requests().iter().filter(|request| request.method == "GET").count();
    setup.wait(Duration::from_secs(3600));
    setup.fault(Fault::on("/v1/blobs/by-quilt-id", Kind::json(404, missing)).times(1));
    let before = gets();
    let fetched = setup.open().fetch_manifest(&receipt.manifest.locator, 1 << 20, &Context::default());
    assert!(matches!(fetched, Err(Error::NotFound { .. })), "{fetched:?}");
    assert_eq!(gets(), before + 1, "what was stored long ago is asked for once");
}

#[test]
fn a_cancelled_upload_is_found_by_the_next() {
    for permanent in ["true", "false"] {
        let mut setup = Setup::new();
        setup.set("permanent", permanent);
        let objects = objects(5, 2000);
        // The store has happened, and the answer is on its way, when the session ends.
        setup.fault(Fault::on(PUT, Kind::Trickle { piece: 1, pause_ms: 100 }));
        let context = Context::default();
        std::thread::scope(|scope| {
            let under_way = scope.spawn(|| upload(&*setup.open(), &objects, &context));
            while setup.walrus.ledger().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            context.stop.store(true, Ordering::Relaxed);
            assert_eq!(under_way.join().unwrap().unwrap_err(), Error::Cancelled);
        });
        let receipt = setup.upload(&objects).unwrap();
        assert!(receipt.objects.iter().all(|placed| placed.reused), "permanent {permanent}");
        setup.verify(&receipt, &objects);
        let quilts = setup.walrus.ledger().into_iter().filter(|payment| payment.quilt).count();
        assert_eq!(quilts, 1);
    }
}

#[test]
fn a_dead_publisher_is_told_and_costs_nothing() {
    let mut setup = Setup::new();
    setup.set("publisher", "http://127.0.0.1:9");
    let error = setup.upload(&objects(2, 100)).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    setup.options.retain(|(name, _)| name != "publisher");
    let error = setup.open().upload(&Context::default()).err();
    assert!(matches!(&error, Some(Error::Option { option, .. }) if option == "publisher"), "{error:?}");
}

#[test]
fn a_deletable_store_is_not_repeated_while_nobody_can_tell() {
    let mut setup = Setup::new();
    setup.set("permanent", "false");
    let objects = objects(3, 1000);
    setup.fault(Fault::on(PUT, Kind::Lost));
    setup.fault(Fault::on("/v1/blobs", Kind::html(503)).method("GET").times(60));
    setup.upload(&objects).unwrap_err();
    assert_eq!(setup.puts(), 1);
    setup.walrus.faults().clear();
    // The aggregator failed so often that it is left alone for a while.
    let receipt = loop {
        match setup.upload(&objects) {
            Ok(receipt) => break receipt,
            Err(Error::Unreachable { message }) if message.contains("left alone") => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(receipt.objects.iter().all(|placed| placed.reused));
    let quilts = setup.walrus.ledger().into_iter().filter(|payment| payment.quilt).count();
    assert_eq!(quilts, 1, "the lost one was found");
}

/// A process that is killed in the middle of an upload; see `killed_client`.
#[test]
fn a_killed_client_has_paid_for_something() {
    let setup = Setup::with(Config { ..Config::default() }, 100);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["killed_client", "--exact", "--ignored"])
        .env("WALRUS_URL", setup.walrus.url())
        .env("WALRUS_DATA", setup.data.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The answer takes long; the store has happened.
    setup.fault(Fault::on(PUT, Kind::Trickle { piece: 1, pause_ms: 1000 }).always());
    while setup.walrus.ledger().is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "it must not end by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    setup.walrus.faults().clear();
    let objects = of_the_killed();
    let receipt = setup.upload(&objects).unwrap();
    setup.verify(&receipt, &objects);
    assert!(receipt.objects.iter().all(|placed| placed.reused));
    let quilts = setup.walrus.ledger().into_iter().filter(|payment| payment.quilt).count();
    assert_eq!(quilts, 1);
}

fn of_the_killed() -> Vec<Object> {
    (1..6_u8).map(|n| contract::of_bytes("segment", "bin", vec![n; 3000])).collect()
}

#[test]
#[ignore = "runs as a process of its own"]
fn killed_client() {
    let (Ok(url), Ok(data)) = (std::env::var("WALRUS_URL"), std::env::var("WALRUS_DATA")) else { return };
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = [
        option("type", "walrus"),
        option("publisher", &url),
        option("aggregator", &url),
        option("shards", "100"),
        option("epoch_seconds", "86400"),
    ];
    let environment = Environment { data_directory: data.into(), cache: None, wallclock: Wallclock::default() };
    let store = open("testnet", &options, &[], &environment).unwrap();
    let mut upload = store.upload(&Context::default()).unwrap();
    of_the_killed().into_iter().for_each(|object| upload.put(object).unwrap());
    upload.finish(&mut manifest).unwrap();
}

/// Sessions of one process, each with a store of its own.
#[test]
fn sessions_that_store_the_same_at_once_pay_once() {
    for permanent in ["true", "false"] {
        let mut setup = Setup::new();
        setup.set("permanent", permanent);
        let objects = objects(4, 3000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| setup.upload(&objects).unwrap());
            }
        });
        let quilts = setup.walrus.ledger().into_iter().filter(|payment| payment.quilt).count();
        assert_eq!(quilts, 1, "permanent {permanent}");
    }
}
