//! What every kind of store must do. Each test file that has a store calls [`contract`] with a function that opens it.
//!
//! The function is called often; each call opens the same storage anew, as another session would. Objects are random,
//! so that nothing of an earlier run is in the way.

#![allow(dead_code, reason = "each test file uses what it needs")]

use blobstore::names::name_of;
use blobstore::{Context, Error, Expected, LARGEST_OBJECT, Object, Placed, Receipt, Result, Store};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub type Open<'a> = &'a (dyn Fn() -> Arc<dyn Store> + Sync);

/// Everything below, with some hundred objects.
pub fn contract(open: Open<'_>) {
    type Check = fn(Open<'_>);
    let checks: [(&str, Check); 15] = [
        ("round trip", round_trip),
        ("bad objects", bad_objects),
        ("reuse", reuse),
        ("twice the same", twice_the_same),
        ("locators", locators),
        ("wrong expectations", wrong_expectations),
        ("hostile locators", hostile_locators),
        ("interrupted", interrupted),
        ("removal", removal),
        ("list", list),
        ("cancel", cancel),
        ("deadline", deadline),
        ("at once", at_once),
        ("health", health),
        ("many", |open| many(open, 300)),
    ];
    for (name, check) in checks {
        eprintln!("contract: {name}");
        check(open);
    }
}

/// An object of random bytes.
pub fn object(length: usize) -> Object {
    let mut bytes = vec![0; length];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    of_bytes("segment", "bin", bytes)
}

pub fn of_bytes(kind: &str, extension: &str, bytes: Vec<u8>) -> Object {
    Object { name: name_of(kind, extension, blake3::hash(&bytes).as_bytes()), bytes }
}

/// A manifest that names these places, so that it changes whenever they do.
pub fn manifest(placed: &[Placed]) -> Object {
    let lines: Vec<String> = placed.iter().map(|placed| format!("{} {}\n", placed.name, placed.locator)).collect();
    of_bytes("manifest", "cbor", format!("{} objects\n{}", placed.len(), lines.concat()).into_bytes())
}

pub fn expected(placed: &Placed) -> Expected {
    Expected { hash: placed.hash, length: placed.length }
}

/// Uploads these objects, and checks what the receipt says of them.
pub fn upload(store: &dyn Store, objects: &[Object], context: &Context) -> Result<Receipt> {
    let mut upload = store.upload(context)?;
    for object in objects {
        upload.put(object.clone())?;
    }
    let mut last = Vec::new();
    let mut written = None;
    let receipt = upload.finish(&mut |placed| {
        last = placed.to_vec();
        let object = manifest(placed);
        written = Some(object.clone());
        object
    })?;
    assert_eq!(receipt.objects.len(), objects.len(), "a place for each object");
    for (placed, object) in receipt.objects.iter().zip(objects) {
        assert_eq!(placed.name, object.name, "places are in the order of the puts");
        assert_eq!(placed.hash, *blake3::hash(&object.bytes).as_bytes());
        assert_eq!(placed.length, object.bytes.len() as u64);
        let plain = placed.locator.bytes().all(|c| c.is_ascii_graphic());
        assert!(plain && !placed.locator.is_empty(), "{:?}", placed.locator);
    }
    let places = |placed: &[Placed]| placed.iter().map(|placed| placed.locator.clone()).collect::<Vec<_>>();
    assert_eq!(places(&last), places(&receipt.objects), "the last manifest had the final places");
    assert_eq!(receipt.manifest.name, written.expect("the manifest was asked for").name);
    Ok(receipt)
}

/// Fetches the manifest and all objects through another session.
pub fn verify(open: Open<'_>, receipt: &Receipt, objects: &[Object]) {
    let (store, context) = (open(), Context::default());
    let locator = &receipt.manifest.locator;
    let bytes = store.fetch_manifest(locator, 1 << 20, &context).expect("the manifest");
    assert_eq!(blake3::hash(&bytes).as_bytes(), &receipt.manifest.hash);
    for (placed, object) in receipt.objects.iter().zip(objects) {
        let bytes = store.fetch(&placed.locator, Some(locator), &expected(placed), &context);
        assert!(bytes.expect("a stored object") == object.bytes, "{} comes back as it was", placed.name);
    }
}

pub fn round_trip(open: Open<'_>) {
    let objects: Vec<Object> = [1, 2, 1000, 65_536, 300_001].map(object).into();
    let context = Context::default();
    let receipt = upload(&*open(), &objects, &context).expect("an upload");
    assert!(receipt.sent >= 366_540, "{} bytes were sent", receipt.sent);
    assert!(receipt.objects.iter().all(|placed| !placed.reused));
    assert!(context.progress.objects.load(Ordering::Relaxed) >= 5);
    assert!(context.progress.bytes.load(Ordering::Relaxed) >= 366_540);
    verify(open, &receipt, &objects);
    let largest = [object(LARGEST_OBJECT)];
    verify(open, &upload(&*open(), &largest, &context).expect("the largest object"), &largest);
    verify(open, &upload(&*open(), &[], &context).expect("a manifest alone"), &[]);
    let limited = open().fetch_manifest(&receipt.manifest.locator, 10, &context);
    assert!(limited.is_err(), "a manifest longer than the limit is refused");
}

pub fn bad_objects(open: Open<'_>) {
    let (store, context) = (open(), Context::default());
    let digits = "0123456789abcdef0123456789abcdef";
    let good = object(10);
    let named = |name: &str| Object { name: name.to_owned(), bytes: good.bytes.clone() };
    for bad in [
        of_bytes("segment", "bin", Vec::new()),
        of_bytes("segment", "bin", vec![7; LARGEST_OBJECT + 1]),
        named(&format!("segment-{digits}.bin")),
        named(&format!("../{}", good.name)),
        named(&format!("x/{}", good.name)),
        named(&good.name.replace(".bin", ".json")),
        named(&good.name.to_uppercase()),
        named(""),
    ] {
        let mut upload = store.upload(&context).expect("an upload");
        assert!(upload.put(bad.clone()).is_err(), "{:?} with {} bytes is refused", bad.name, bad.bytes.len());
    }
    let upload = store.upload(&context).expect("an upload");
    let empty = upload.finish(&mut |_| of_bytes("manifest", "cbor", Vec::new()));
    assert!(empty.is_err(), "an empty manifest is refused");
}

pub fn reuse(open: Open<'_>) {
    let context = Context::default();
    let mut objects: Vec<Object> = [100, 5000, 40_000].map(object).into();
    upload(&*open(), &objects, &context).expect("an upload");
    objects.insert(1, object(77));
    let receipt = upload(&*open(), &objects, &context).expect("a second upload");
    let reused: Vec<bool> = receipt.objects.iter().map(|placed| placed.reused).collect();
    assert_eq!(reused, [true, false, true, true], "only the new object is sent");
    assert!(receipt.sent >= 77 && receipt.sent < 77 + 40_000, "{} bytes were sent", receipt.sent);
    verify(open, &receipt, &objects);
}

pub fn twice_the_same(open: Open<'_>) {
    let one = object(1234);
    let objects = [one.clone(), object(5), one];
    let receipt = upload(&*open(), &objects, &Context::default()).expect("an upload");
    verify(open, &receipt, &objects);
}

/// Places that depend on the manifest cannot be read without it.
pub fn locators(open: Open<'_>) {
    let (store, context) = (open(), Context::default());
    let receipt = upload(&*store, &[object(2000), object(3000)], &context).expect("an upload");
    for placed in receipt.objects.iter().filter(|placed| placed.locator.starts_with("./")) {
        assert!(store.fetch(&placed.locator, None, &expected(placed), &context).is_err(), "{}", placed.locator);
    }
}

pub fn wrong_expectations(open: Open<'_>) {
    let (store, context) = (open(), Context::default());
    let receipt = upload(&*store, &[object(2000), object(2000)], &context).expect("an upload");
    let [one, two] = &receipt.objects[..] else { panic!("two objects") };
    let manifest = Some(&*receipt.manifest.locator);
    for wrong in [
        Expected { hash: two.hash, length: one.length },
        Expected { hash: one.hash, length: one.length + 1 },
        Expected { hash: one.hash, length: one.length - 1 },
    ] {
        let fetched = store.fetch(&one.locator, manifest, &wrong, &context);
        let named = matches!(&fetched, Err(Error::Corrupt { object, .. }) if !object.is_empty());
        assert!(named, "{:?}", fetched.map(|bytes| bytes.len()));
    }
}

pub fn hostile_locators(open: Open<'_>) {
    let (store, context) = (open(), Context::default());
    let receipt = upload(&*store, &[object(20)], &context).expect("an upload");
    let manifest = Some(&*receipt.manifest.locator);
    let name = &receipt.objects[0].name;
    let long = "a".repeat(100_000);
    for locator in [
        "",
        ".",
        "..",
        "./",
        "./..",
        "../",
        "/",
        "/etc/passwd",
        "./../../etc/passwd",
        "objects/../../../etc/passwd",
        "http://192.0.2.1/",
        "https://user:pw@192.0.2.1/x",
        "fs5://x",
        "%2e%2e/%2e%2e/x",
        "a b",
        "\0",
        "\r\nHost: x",
        "ü",
        "?x=1",
        "#",
        &long,
        &format!("../{name}"),
        &format!("./../{name}"),
        &format!("objects/zz/{name}"),
    ] {
        let shown = &locator[..locator.len().min(40)];
        let expected = expected(&receipt.objects[0]);
        assert!(store.fetch(locator, manifest, &expected, &context).is_err(), "{shown:?} is no object");
        assert!(store.fetch_manifest(locator, 1 << 20, &context).is_err(), "{shown:?} is no manifest");
        assert!(!matches!(store.remove(locator, &context), Ok(true)), "{shown:?} cannot be removed");
    }
}

/// An upload that ends in the middle leaves nothing that hinders the next.
pub fn interrupted(open: Open<'_>) {
    let objects: Vec<Object> = (0..10).map(|n| object(1000 + n)).collect();
    let before = listed(open);
    {
        let store = open();
        let mut upload = store.upload(&Context::default()).expect("an upload");
        for object in &objects[..6] {
            upload.put(object.clone()).expect("a put");
        }
    }
    assert_eq!(listed(open), before, "no manifest, no archive");
    let receipt = upload(&*open(), &objects, &Context::default()).expect("the next upload");
    verify(open, &receipt, &objects);
    let again = upload(&*open(), &objects, &Context::default()).expect("a third");
    assert!(again.objects.iter().all(|placed| placed.reused), "all of it is there");
}

fn listed(open: Open<'_>) -> Option<Vec<String>> {
    let manifests = open().manifests(&Context::default()).ok()?;
    let mut names: Vec<String> = manifests.into_iter().map(|listed| listed.name).collect();
    names.sort();
    Some(names)
}

pub fn removal(open: Open<'_>) {
    let (store, context) = (open(), Context::default());
    let objects = [object(500), object(600)];
    let receipt = upload(&*store, &objects, &context).expect("an upload");
    let one = &receipt.objects[0];
    if !store.abilities().can_delete {
        let removed = store.remove(&receipt.manifest.locator, &context);
        assert!(matches!(removed, Err(Error::Unsupported { .. })), "{removed:?}");
        return;
    }
    let lock = store.lock_for_removal(&context).expect("the lock");
    assert_eq!(store.remove(&one.locator, &context), Ok(true));
    assert_eq!(store.remove(&one.locator, &context), Ok(false), "it is gone");
    drop(lock);
    let fetched = open().fetch(&one.locator, Some(&receipt.manifest.locator), &expected(one), &context);
    assert!(matches!(fetched, Err(Error::NotFound { .. })), "{fetched:?}");
    let again = upload(&*open(), &objects, &context).expect("a second upload");
    assert_eq!([again.objects[0].reused, again.objects[1].reused], [false, true], "what was removed is sent again");
    verify(open, &again, &objects);
    assert_eq!(store.remove(&again.manifest.locator, &context), Ok(true));
    assert!(open().fetch_manifest(&again.manifest.locator, 1 << 20, &context).is_err());
}

pub fn list(open: Open<'_>) {
    let (store, context) = (open(), Context::default());
    let receipt = upload(&*store, &[object(50)], &context).expect("an upload");
    match (store.manifests(&context), store.abilities().can_list) {
        (Ok(manifests), true) => {
            let found = manifests.iter().find(|listed| listed.name == receipt.manifest.name).expect("it is listed");
            assert_eq!(found.length, receipt.manifest.length);
            assert!(store.fetch_manifest(&found.locator, 1 << 20, &context).is_ok());
        }
        (Err(Error::Unsupported { .. }), false) => {}
        (other, can_list) => panic!("{other:?} where can_list is {can_list}"),
    }
}

pub fn cancel(open: Open<'_>) {
    let store = open();
    let objects = [object(500), object(600)];
    let receipt = upload(&*store, &objects, &Context::default()).expect("an upload");
    let context = Context::default();
    context.stop.store(true, Ordering::Relaxed);
    refuses_all(&*store, &receipt, &context, &Error::Cancelled);

    let context = Context::default();
    let mut upload_half = store.upload(&context).expect("an upload");
    upload_half.put(object(700)).expect("a put");
    context.stop.store(true, Ordering::Relaxed);
    assert_eq!(upload_half.put(object(800)).err(), Some(Error::Cancelled));
    assert_eq!(upload_half.finish(&mut manifest).err(), Some(Error::Cancelled));
    verify(open, &upload(&*store, &objects, &Context::default()).expect("an upload"), &objects);
}

fn refuses_all(store: &dyn Store, receipt: &Receipt, context: &Context, error: &Error) {
    let one = &receipt.objects[0];
    let locator = &receipt.manifest.locator;
    assert_eq!(store.upload(context).err().as_ref(), Some(error));
    assert_eq!(store.fetch(&one.locator, Some(locator), &expected(one), context).err().as_ref(), Some(error));
    assert_eq!(store.fetch_manifest(locator, 1 << 20, context).err().as_ref(), Some(error));
    assert_eq!(store.check(context).err().as_ref(), Some(error));
    if store.abilities().can_delete {
        assert_eq!(store.remove(&one.locator, context).err().as_ref(), Some(error));
    }
    if store.abilities().can_list {
        assert_eq!(store.manifests(context).err().as_ref(), Some(error));
    }
}

pub fn deadline(open: Open<'_>) {
    let store = open();
    let receipt = upload(&*store, &[object(500)], &Context::default()).expect("an upload");
    let context = Context { deadline: Some(Instant::now()), ..Context::default() };
    refuses_all(&*store, &receipt, &context, &Error::TimedOut);
    let context = Context { deadline: Some(Instant::now() + Duration::from_secs(600)), ..Context::default() };
    assert!(upload(&*store, &[object(500)], &context).is_ok(), "a far deadline is no hindrance");
}

/// Four sessions store the same at once.
pub fn at_once(open: Open<'_>) {
    let objects: Vec<Object> = (0..8).map(|n| object(10_000 + n)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let receipt = upload(&*open(), &objects, &Context::default()).expect("an upload among others");
                verify(open, &receipt, &objects);
            });
        }
    });
}

pub fn health(open: Open<'_>) {
    let health = open().check(&Context::default()).expect("a healthy store");
    assert!(health.latency_ms >= 0.0);
}

pub fn many(open: Open<'_>, count: usize) {
    let objects: Vec<Object> = (0..count).map(|n| object(20 + n)).collect();
    let receipt = upload(&*open(), &objects, &Context::default()).expect("an upload of many");
    verify(open, &receipt, &objects);
    let again = upload(&*open(), &objects, &Context::default()).expect("a second upload of many");
    assert!(again.objects.iter().all(|placed| placed.reused));
}
