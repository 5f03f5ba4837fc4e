//! Portals: the Dart node and Lume (emulated; the blob engine is the one of S5).

mod contract;
mod s5_common;

use blobstore::redact::Secret;
use blobstore::s5::cid::{Base, BlobId};
use blobstore::s5::portal::PortalStore;
use blobstore::{Error, Object, Store};
use contract::{contract, expected, object, upload, verify};
use emulators::faults::{Fault, Kind};
use emulators::s5::Portal;
use emulators::s5::portal::{Ids, Profile, Settings};
use s5_common::{PHRASE, context, count, portal_options, portal_store, start, with_seed};
use std::path::Path;
use std::sync::Arc;

fn open(portal: &Portal, receipts: &Path) -> Arc<dyn Store> {
    Arc::new(portal_store(portal, receipts))
}

fn contract_of(settings: Settings) {
    let portal = start(settings);
    let folder = tempfile::tempdir().unwrap();
    contract(&|| {
        let options = with_seed(portal_options(&portal, folder.path()), PHRASE);
        Arc::new(PortalStore::new(options).expect("a store"))
    });
}

#[test]
fn contract_emulated_node() {
    contract_of(Settings::default());
}

#[test]
fn contract_emulated_node_with_accounts() {
    contract_of(Settings { accounts: true, ..Settings::default() });
}

#[test]
fn contract_emulated_lume() {
    contract_of(Settings { profile: Profile::Lume, ids: Ids::Both, accounts: true, ..Settings::default() });
}

#[test]
fn contract_emulated_portal_of_new_identifiers() {
    contract_of(Settings { ids: Ids::New, ..Settings::default() });
}

/// All uploads by pieces.
#[test]
fn contract_emulated_node_by_tus() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    contract(&|| {
        let options = portal_options(&portal, folder.path());
        Arc::new(PortalStore::with_simple_limit(options, 0).expect("a store"))
    });
    assert_eq!(count(&portal.requests(), "POST", "/s5/upload/tus"), count(&portal.requests(), "POST", "/s5/upload"));
}

#[test]
fn legacy_identifiers_are_tried_first() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    let store = open(&portal, folder.path());
    let receipt = upload(&*store, &[object(100)], &context()).unwrap();
    let one = &receipt.objects[0];
    let id = BlobId::parse(&one.locator).expect("the locator is an identifier");
    assert_eq!(id, BlobId::new(one.hash, one.length));
    store.fetch(&one.locator, None, &expected(one), &context()).unwrap();
    let asked: Vec<String> = portal.requests().into_iter().filter(|r| r.method == "GET").map(|r| r.path).collect();
    assert_eq!(asked, [format!("/s5/blob/{}", id.legacy_text(Base::Base58))]);
    let manifest = BlobId::parse(&receipt.manifest.locator).unwrap();
    for base in [Base::Base32, Base::Base58, Base::Base64Url, Base::Hex] {
        for text in [manifest.text(base), manifest.legacy_text(base)] {
            assert!(store.fetch_manifest(&text, 1 << 20, &context()).is_ok(), "{text}");
        }
    }
}

#[test]
fn an_unknown_blob_is_not_found() {
    for profile in [Profile::Dart, Profile::Lume] {
        let portal = start(Settings { profile, ..Settings::default() });
        let folder = tempfile::tempdir().unwrap();
        let locator = BlobId::of(b"nobody has this").text(Base::Base32);
        let error = open(&portal, folder.path()).fetch_manifest(&locator, 1 << 20, &context()).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{profile:?}: {error:?}");
        assert!(portal.requests().len() <= 3, "a search of a minute is not repeated");
    }
}

#[test]
fn faults_of_a_moment_are_survived() {
    let moments: Vec<(&str, &str, Vec<Kind>)> = vec![
        ("POST", "/s5/upload", vec![Kind::Delay { ms: 100 }]),
        ("POST", "/s5/upload", vec![Kind::Reset, Kind::ResetUpload { after_bytes: 1000 }]),
        ("POST", "/s5/upload", vec![Kind::Lost]),
        ("POST", "/s5/upload", vec![Kind::text(502, "bad gateway"), Kind::text(503, "later"), Kind::html(504)]),
        ("POST", "/s5/upload", vec![Kind::busy(0), Kind::text(500, "oops")]),
        ("POST", "/s5/upload", vec![Kind::json(200, r#"{"unexpected":true}"#)]),
        ("GET", "/s5/blob", vec![Kind::Reset, Kind::text(502, "bad gateway"), Kind::busy(0)]),
        ("GET", "/s5/blob", vec![Kind::text(404, "404 not found")]),
    ];
    for (method, path, kinds) in moments {
        let portal = start(Settings::default());
        let folder = tempfile::tempdir().unwrap();
        let objects = [object(5000), object(6000)];
        // Where the fault replaces the upload, the blob is there from before.
        let other = tempfile::tempdir().unwrap();
        upload(&*open(&portal, other.path()), &objects, &context()).unwrap();
        for kind in &kinds {
            portal.faults().add(Fault::on(path, kind.clone()).method(method));
        }
        let receipt = upload(&*open(&portal, folder.path()), &objects, &context());
        let receipt = receipt.unwrap_or_else(|error| panic!("{method} {kinds:?}: {error}"));
        verify(&|| open(&portal, folder.path()), &receipt, &objects);
    }
    for kind in [
        Kind::Truncate { keep: 3000 },
        Kind::Shorten { keep: 3000 },
        Kind::Flip { byte: 2222 },
        Kind::Reset,
        Kind::text(503, "later"),
        Kind::text(404, "gone from this place"),
        Kind::Trickle { piece: 1000, pause_ms: 1 },
    ] {
        let portal = start(Settings::default());
        let folder = tempfile::tempdir().unwrap();
        let objects = [object(5000)];
        let receipt = upload(&*open(&portal, folder.path()), &objects, &context()).unwrap();
        portal.store_faults().add(Fault::on("/1/", kind));
        verify(&|| open(&portal, folder.path()), &receipt, &objects);
    }
}

#[test]
fn lasting_damage_is_told() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    let store = open(&portal, folder.path());
    let receipt = upload(&*store, &[object(5000)], &context()).unwrap();
    let one = &receipt.objects[0];
    portal.store_faults().add(Fault::on("", Kind::Flip { byte: 9 }).always());
    let error = store.fetch(&one.locator, None, &expected(one), &context()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { object, .. } if *object == one.locator), "{error:?}");
    portal.store_faults().clear();
    portal.store_faults().add(Fault::on("", Kind::text(200, &"x".repeat(9_000_000))).always());
    let error = store.fetch(&one.locator, None, &expected(one), &context()).unwrap_err();
    assert!(matches!(&error, Error::Protocol { .. } | Error::Corrupt { .. }), "an endless body: {error:?}");
}

#[test]
fn lost_data_is_found_and_sent_again() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    let objects = [object(1000), object(2000), object(3000)];
    let receipt = upload(&*open(&portal, folder.path()), &objects, &context()).unwrap();
    portal.lose(receipt.objects[1].hash).unwrap();
    let again = upload(&*open(&portal, folder.path()), &objects, &context()).unwrap();
    let reused: Vec<bool> = again.objects.iter().map(|placed| placed.reused).collect();
    assert_eq!(reused, [true, false, true]);
    verify(&|| open(&portal, folder.path()), &again, &objects);
    portal.wipe().unwrap();
    let again = upload(&*open(&portal, folder.path()), &objects, &context()).unwrap();
    assert!(again.objects.iter().all(|placed| !placed.reused));
    verify(&|| open(&portal, folder.path()), &again, &objects);
}

#[test]
fn a_wrong_cid_is_not_believed() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    portal.faults().add(Fault::on("", Kind::special("wrong-cid")).always());
    let error = upload(&*open(&portal, folder.path()), &[object(1000)], &context()).unwrap_err();
    assert!(matches!(&error, Error::Protocol { message } if message.contains("other bytes")), "{error:?}");
}

#[test]
fn redirects_to_hosts_not_named_are_refused() {
    let (portal, other) = (start(Settings::default()), start(Settings::default()));
    let folder = tempfile::tempdir().unwrap();
    let receipt = upload(&*open(&portal, folder.path()), &[object(100)], &context()).unwrap();
    let one = &receipt.objects[0];
    let mut options = portal_options(&portal, folder.path());
    options.network.redirect_hosts.clear();
    let strict = PortalStore::new(options).unwrap();
    let error = strict.fetch(&one.locator, None, &expected(one), &context()).unwrap_err();
    assert!(matches!(&error, Error::Refused { message, .. } if message.contains("redirect_hosts")), "{error:?}");
    for place in [format!("{}/x", other.url()), "http://192.0.2.1/x".to_owned(), "file:///etc/passwd".to_owned()] {
        let mut redirect = Kind::text(307, "");
        if let Kind::Answer { headers, .. } = &mut redirect {
            headers.push(("location".to_owned(), place.clone()));
        }
        portal.faults().add(Fault::on("/s5/blob", redirect));
        let store = open(&portal, folder.path());
        let error = store.fetch(&one.locator, None, &expected(one), &context()).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{place}: {error:?}");
    }
    assert!(other.requests().is_empty(), "nobody else was asked");
}

/// The other server can tell whether it was sent a token: it would call it invalid.
#[test]
fn the_token_is_not_sent_to_other_hosts() {
    let (portal, other) = (start(Settings::default()), start(Settings { accounts: true, ..Settings::default() }));
    let folder = tempfile::tempdir().unwrap();
    let id = BlobId::of(b"elsewhere");
    let place = format!("{}/s5/download/{}", other.url(), id.legacy_text(Base::Base58));
    let mut redirect = Kind::text(307, "");
    if let Kind::Answer { headers, .. } = &mut redirect {
        headers.push(("location".to_owned(), place));
    }
    portal.faults().add(Fault::on("/s5/blob", redirect));
    let mut options = portal_options(&portal, folder.path());
    options.network.redirect_hosts = vec![other.url().replace("http://", "")];
    options.token = Some(Secret::new("S5Atoken-of-the-first-portal-only-0123456789"));
    let store = PortalStore::new(options).unwrap();
    let error = store.fetch_manifest(&id.text(Base::Base32), 1 << 20, &context()).unwrap_err();
    assert!(matches!(&error, Error::Refused { message, .. } if message.contains("No auth token found")), "{error:?}");
    assert_eq!(other.requests().len(), 1);
}

#[test]
fn a_portal_that_does_not_delete_says_so() {
    let portal = start(Settings { delete: false, ..Settings::default() });
    let folder = tempfile::tempdir().unwrap();
    let store = open(&portal, folder.path());
    let receipt = upload(&*store, &[object(100)], &context()).unwrap();
    let error = store.remove(&receipt.manifest.locator, &context()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    let health = store.check(&context()).unwrap();
    assert!(health.steps[0].contains("stays"), "{health:?}");
    assert_eq!(health.version.as_deref(), Some("node 1.0.0-pre.1"));
}

#[test]
fn blobs_above_the_limit_of_the_portal_go_by_pieces() {
    let portal = start(Settings { upload_limit_mb: 1, ..Settings::default() });
    let folder = tempfile::tempdir().unwrap();
    let objects = [object(1_500_000), object(900_000)];
    let receipt = upload(&*open(&portal, folder.path()), &objects, &context()).unwrap();
    assert_eq!(count(&portal.requests(), "POST", "/s5/upload/tus"), 1);
    verify(&|| open(&portal, folder.path()), &receipt, &objects);
}

fn by_pieces(portal: &Portal, receipts: &Path) -> Arc<dyn Store> {
    let options = with_seed(portal_options(portal, receipts), PHRASE);
    Arc::new(PortalStore::with_simple_limit(options, 1000).expect("a store"))
}

/// Uploads `bytes` bytes by pieces, with faults at the pieces; the number of uploads begun and pieces sent.
fn interrupted_upload(settings: Settings, bytes: usize, faults: &[Fault]) -> (usize, Vec<u64>) {
    let portal = start(settings);
    let folder = tempfile::tempdir().unwrap();
    let objects = [object(bytes)];
    for fault in faults {
        portal.faults().add(fault.clone());
    }
    let store = by_pieces(&portal, folder.path());
    let receipt = upload(&*store, &objects, &context());
    let receipt = receipt.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
    verify(&|| by_pieces(&portal, folder.path()), &receipt, &objects);
    let requests = portal.requests();
    let pieces = requests.iter().filter(|request| request.method == "PATCH").map(|request| request.length).collect();
    (count(&requests, "POST", "/s5/upload/tus"), pieces)
}

#[test]
fn interrupted_uploads_are_resumed() {
    let piece = |kind| Fault::on("/s5/upload/tus/", kind).method("PATCH");
    for settings in [
        Settings::default(),
        Settings { accounts: true, ..Settings::default() },
        Settings { profile: Profile::Lume, ids: Ids::Both, accounts: true, ..Settings::default() },
    ] {
        let run = |faults: &[Fault]| interrupted_upload(settings.clone(), 2_000_000, faults);
        assert_eq!(run(&[]), (1, vec![2_000_000]));
        let (begun, pieces) = run(&[piece(Kind::CutUpload { after_bytes: 700_000 })]);
        assert_eq!((begun, pieces), (1, vec![2_000_000, 1_300_000]), "what arrived is not sent again");
        let twice = [piece(Kind::CutUpload { after_bytes: 700_000 }), piece(Kind::CutUpload { after_bytes: 400_000 })];
        assert_eq!(run(&twice).1, [2_000_000, 1_300_000, 900_000]);
        let all = run(&[piece(Kind::CutUpload { after_bytes: 2_000_000 })]);
        assert_eq!(all, (1, vec![2_000_000, 0]), "all arrived: only the end is asked for");
        assert_eq!(run(&[piece(Kind::Reset), piece(Kind::text(503, "later"))]).0, 1);
        assert_eq!(run(&[piece(Kind::text(500, "Invalid offset"))]).0, 1);
        assert_eq!(run(&[piece(Kind::text(409, "conflict"))]).0, 1);
        assert_eq!(run(&[piece(Kind::text(404, ""))]).0, 2, "a portal that restarted: begun again");
        assert_eq!(run(&[piece(Kind::text(500, "Invalid hash found"))]).0, 2);
        let (begun, pieces) = run(&[piece(Kind::Lost)]);
        assert_eq!((begun, pieces.len()), (2, 1), "it was stored: the second beginning says so");
    }
}

#[test]
fn an_upload_that_never_ends_is_given_up() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    portal.faults().add(Fault::on("/s5/upload/tus/", Kind::Reset).method("PATCH").always());
    let error = upload(&*by_pieces(&portal, folder.path()), &[object(5000)], &context()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[test]
fn a_blob_that_the_portal_has_is_pinned() {
    for profile in [Profile::Dart, Profile::Lume] {
        let settings = Settings { profile, ids: Ids::Both, accounts: true, ..Settings::default() };
        let portal = start(settings);
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let objects: [Object; 1] = [object(5000)];
        upload(&*by_pieces(&portal, one.path()), &objects, &context()).unwrap();
        // Another account, another database server: no receipts.
        let secret = "07".repeat(32);
        let options = with_seed(portal_options(&portal, two.path()), &secret);
        let other = PortalStore::with_simple_limit(options, 1000).unwrap();
        let receipt = upload(&other, &objects, &context()).unwrap();
        assert_eq!(count(&portal.requests(), "POST", "/s5/pin/"), 1);
        // It stays when the first account lets it go.
        let hash = receipt.objects[0].hash;
        assert_eq!(by_pieces(&portal, one.path()).remove(&receipt.objects[0].locator, &context()), Ok(true));
        assert!(portal.holds(hash).unwrap() && portal.pins(hash), "{profile:?}");
        assert_eq!(other.remove(&receipt.objects[0].locator, &context()), Ok(true));
        assert!(!portal.holds(hash).unwrap() && !portal.pins(hash), "{profile:?}");
    }
}

#[test]
fn the_state_outlives_the_emulator() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = || Settings { state: Some(state.path().to_owned()), accounts: true, ..Settings::default() };
    let objects = [object(100), object(200)];
    let open = |portal: &Portal| -> Arc<dyn Store> {
        Arc::new(PortalStore::new(with_seed(portal_options(portal, folder.path()), &"05".repeat(32))).unwrap())
    };
    let portal = start(settings());
    let receipt = upload(&*open(&portal), &objects, &context()).unwrap();
    drop(portal);
    let portal = start(settings());
    verify(&|| open(&portal), &receipt, &objects);
    assert_eq!(count(&portal.requests(), "POST", "/s5/account/register"), 0, "the account is known");
}
