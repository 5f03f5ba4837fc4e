//! Accounts at portals: keys and signatures against the vectors, login and registration at the emulator.

mod contract;
mod s5_common;

use blobstore::redact::Secret;
use blobstore::s5::account::{Purpose, public_key, response};
use blobstore::s5::phrase;
use blobstore::s5::portal::PortalStore;
use blobstore::{Error, Store};
use contract::{object, upload};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::SigningKey;
use emulators::faults::{Fault, Kind};
use emulators::s5::portal::{Profile, Registration, Settings};
use s5_common::{PHRASE, context, count, portal_options, start, with_seed};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("s5-vectors.json")).expect("vectors are JSON")
}

fn hash(value: &Value) -> [u8; 32] {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap().try_into().unwrap()
}

#[test]
fn phrase_to_seeds() {
    let identity = &vectors()["identity"];
    let words: Vec<&str> = identity["phrase"].as_str().unwrap().split(' ').collect();
    let seed = phrase::entropy(&words).unwrap();
    assert_eq!(HEXLOWER.encode(&seed), identity["seed16"].as_str().unwrap());
    let root = *blake3::hash(&seed).as_bytes();
    assert_eq!(root, hash(&identity["root"]));
    assert_eq!(phrase::portal_accounts(&root), hash(&identity["portal_account_seed"]));
}

#[test]
fn challenges_are_answered_as_in_the_vectors() {
    let vectors = vectors();
    let accounts = hash(&vectors["identity"]["portal_account_seed"]);
    for vector in vectors["account_challenge"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let key = phrase::account_key(&accounts, &hash(&vector["account_seed"]));
        assert_eq!(key.to_bytes(), hash(&vector["ed25519_secret_seed"]));
        assert_eq!(public_key(&key), text("pubKey"));
        let purpose = if text("kind") == "login" { Purpose::Login } else { Purpose::Register };
        let challenge = BASE64URL_NOPAD.decode(text("challenge").as_bytes()).unwrap().try_into().unwrap();
        let (message, signature) = response(&key, purpose, &challenge, text("authority"));
        assert_eq!((message.as_str(), signature.as_str()), (text("response"), text("signature")));
        let seed = format!("{PHRASE} {}", text("account_seed"));
        assert_eq!(phrase::key(&seed, "ignored").unwrap(), key, "15 words and the account seed");
        assert_eq!(phrase::key(text("ed25519_secret_seed"), "ignored").unwrap(), key);
    }
}

#[test]
fn bad_seeds_are_refused_without_repeating_them() {
    let wrong_sum = PHRASE.replace("love", "also");
    let long = format!("{PHRASE} {PHRASE}");
    for seed in ["", "fault", "0102", &wrong_sum, &long, &PHRASE.replace("wear", "qqqq"), &format!("{PHRASE} 00")] {
        let error = phrase::key(seed, "h").expect_err("no seed");
        assert!(!error.contains("twenty"), "{error}");
    }
    let other = PHRASE.replace("appear", "zounds");
    assert!(phrase::key(&other, "h").is_err(), "the 13th word is one of the first 256");
    let one = phrase::key(PHRASE, "one.example").unwrap();
    assert_eq!(one, phrase::key(&PHRASE.to_uppercase(), "one.example").unwrap());
    assert_ne!(one, phrase::key(PHRASE, "two.example").unwrap(), "an account for each portal");
    let _: SigningKey = one;
}

fn accounts(profile: Profile) -> Settings {
    Settings { profile, accounts: true, ..Settings::default() }
}

#[test]
fn registers_once_and_logs_in_afterwards() {
    for profile in [Profile::Dart, Profile::Lume] {
        let portal = start(accounts(profile));
        let folder = tempfile::tempdir().unwrap();
        for round in 0..2 {
            let store = PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
            upload(&store, &[object(100)], &context()).expect("an upload with an account");
            assert_eq!(count(&portal.requests(), "POST", "/s5/account/register"), 1, "{profile:?} round {round}");
        }
        assert_eq!(count(&portal.requests(), "POST", "/s5/account/login"), 1, "{profile:?}");
    }
}

#[test]
fn an_expired_token_is_replaced_once() {
    let portal = start(accounts(Profile::Dart));
    let folder = tempfile::tempdir().unwrap();
    let store = PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
    let receipt = upload(&store, &[object(100)], &context()).unwrap();
    portal.forget_tokens();
    let one = &receipt.objects[0];
    assert_eq!(store.remove(&one.locator, &context()), Ok(true), "logged in again");
    assert_eq!(count(&portal.requests(), "POST", "/s5/account/login"), 1);
    portal.forget_tokens();
    let objects: Vec<_> = (0..12).map(|n| object(500 + n)).collect();
    upload(&store, &objects, &context()).expect("three writers, one more login");
    assert_eq!(count(&portal.requests(), "POST", "/s5/account/login"), 2);
}

/// A portal keeps the last challenge of an account only; sessions that log in at the same time spoil each other's.
#[test]
fn challenges_spoiled_by_another_session_are_asked_for_again() {
    let portal = start(accounts(Profile::Dart));
    let folder = tempfile::tempdir().unwrap();
    for purpose in ["register", "login"] {
        let route = format!("/s5/account/{purpose}");
        portal.faults().add(Fault::on(&route, Kind::text(500, "Invalid challenge")).method("POST").times(3));
        let store = PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
        upload(&store, &[object(100)], &context()).expect("logged in after all");
    }
    let open = || PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| upload(&open(), &[object(100)], &context()).expect("one of six"));
        }
    });
}

#[test]
fn a_refusal_in_the_middle_of_an_upload_is_survived() {
    let portal = start(accounts(Profile::Dart));
    let folder = tempfile::tempdir().unwrap();
    let store = PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
    let refusal = Kind::json(401, r#"{"error":"Invalid auth token"}"#);
    portal.faults().add(Fault::on("/s5/upload", refusal.clone()).after(5));
    let objects: Vec<_> = (0..9).map(|n| object(500 + n)).collect();
    upload(&store, &objects, &context()).expect("logged in again");
    assert_eq!(count(&portal.requests(), "POST", "/s5/account/login"), 1);
    portal.faults().add(Fault::on("/s5/upload", refusal).always());
    let error = upload(&store, &[object(7)], &context()).unwrap_err();
    assert!(matches!(error, Error::Refused { status: Some(401), .. }), "{error:?}");
    assert_eq!(count(&portal.requests(), "POST", "/s5/account/login"), 2, "once for a request");
}

#[test]
fn a_token_that_is_refused_stays_refused() {
    let portal = start(accounts(Profile::Dart));
    let folder = tempfile::tempdir().unwrap();
    let mut options = portal_options(&portal, folder.path());
    options.token = Some(Secret::new("S5Athis-token-is-not-known-to-the-portal"));
    let store = PortalStore::new(options).unwrap();
    let error = upload(&store, &[object(100)], &context()).unwrap_err();
    assert!(matches!(error, Error::Refused { status: Some(401), .. }), "{error:?}");
    assert_eq!(count(&portal.requests(), "POST", "/s5/upload"), 1, "not repeated");
}

#[test]
fn registration_may_be_closed() {
    let portal = start(Settings { registration: Registration::Closed, ..accounts(Profile::Dart) });
    let folder = tempfile::tempdir().unwrap();
    let store = PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
    let error = upload(&store, &[object(100)], &context()).unwrap_err();
    assert!(
        matches!(&error, Error::Refused { status: Some(401), message } if message.contains("not register")),
        "{error:?}"
    );
}

#[test]
fn a_restricted_account_is_told_so() {
    let portal = start(Settings { storage_limit: 100, ..accounts(Profile::Dart) });
    let folder = tempfile::tempdir().unwrap();
    let store = PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
    let error = upload(&store, &[object(200), object(300)], &context()).unwrap_err();
    assert!(matches!(&error, Error::Refused { message, .. } if message.contains("restricted")), "{error:?}");
}

#[test]
fn a_portal_without_accounts_needs_none() {
    let portal = start(Settings::default());
    let folder = tempfile::tempdir().unwrap();
    let store = PortalStore::new(with_seed(portal_options(&portal, folder.path()), PHRASE)).unwrap();
    upload(&store, &[object(100)], &context()).expect("an upload");
}
