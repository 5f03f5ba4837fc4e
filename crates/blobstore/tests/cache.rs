//! The cache: damage, limits, sessions at once, files that are no files.

mod contract;

use blobstore::cache::{Cache, Cached};
use blobstore::memory::Memory;
use blobstore::{Context, Error, Expected, Object, Store};
use contract::{expected, object, upload};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Without memory, so that the disk is what is tried.
fn disk(path: &Path, limit: u64) -> Cache {
    Cache::new(path.to_owned(), limit, 0)
}

fn wanted(object: &Object) -> Expected {
    Expected { hash: blake3::hash(&object.bytes).into(), length: object.bytes.len() as u64 }
}

fn keep(cache: &Cache, object: &Object) {
    cache.put(&wanted(object).hash, &object.bytes);
}

fn kept(path: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(path).into_iter().flatten().flatten();
    let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
    folders.flat_map(|entry| std::fs::read_dir(entry.path()).unwrap().flatten().map(|file| file.path())).collect()
}

fn bytes_kept(path: &Path) -> u64 {
    kept(path).iter().map(|file| std::fs::metadata(file).map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn survives_sessions_and_notices_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pg_hybrid/cache");
    let one = object(5000);
    assert!(disk(&path, 1 << 20).get(&wanted(&one)).is_none());
    assert!(!path.exists(), "asking makes nothing");
    keep(&disk(&path, 1 << 20), &one);
    assert!(disk(&path, 1 << 20).get(&wanted(&one)).is_some_and(|bytes| bytes == one.bytes), "another session has it");

    let file = kept(&path).remove(0);
    let flipped: Vec<u8> = one.bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 4999)).collect();
    for bytes in [&flipped[..], &one.bytes[..4999], b"", &[&one.bytes[..], b"x"].concat(), &object(5000).bytes] {
        std::fs::write(&file, bytes).unwrap();
        assert!(disk(&path, 1 << 20).get(&wanted(&one)).is_none(), "damage counts as absence");
        assert!(!file.exists(), "and goes");
        keep(&disk(&path, 1 << 20), &one);
        assert!(disk(&path, 1 << 20).get(&wanted(&one)).is_some());
    }
    let lie = Expected { length: 4999, ..wanted(&one) };
    assert!(disk(&path, 1 << 20).get(&lie).is_none(), "the length counts too");
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let cache = disk(folder.path(), 100_000);
    let objects: Vec<Object> = (0..9).map(|_| object(10_000)).collect();
    for (number, object) in objects.iter().enumerate() {
        keep(&cache, object);
        for file in kept(folder.path()) {
            let old = SystemTime::now() - Duration::from_secs(1000 - number as u64);
            let file = std::fs::File::options().write(true).open(file).unwrap();
            if file.metadata().unwrap().modified().unwrap() > old + Duration::from_secs(100) {
                file.set_modified(old).unwrap();
            }
        }
    }
    assert!(cache.get(&wanted(&objects[0])).is_some(), "using it makes it young");
    keep(&cache, &object(15_000));
    assert!(bytes_kept(folder.path()) <= 100_000);
    let left: Vec<bool> = objects.iter().map(|object| cache.get(&wanted(object)).is_some()).collect();
    assert_eq!(left, [true, false, false, true, true, true, true, true, true]);
    keep(&cache, &object(100_001));
    assert!(bytes_kept(folder.path()) <= 100_000, "what is larger than the cache is not kept");
}

#[test]
fn the_limit_holds_for_sessions_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = Cache::new(folder.path().to_owned(), 60_000, 10_000);
                for _ in 0..60 {
                    let object = object(3000);
                    keep(&cache, &object);
                    assert!(cache.get(&wanted(&object)).is_none_or(|bytes| bytes == object.bytes));
                    // While nobody changes anything.
                    let usage = std::fs::File::open(folder.path().join("usage")).unwrap();
                    usage.lock().unwrap();
                    assert!(bytes_kept(folder.path()) <= 60_000);
                }
            });
        }
    });
    assert!(bytes_kept(folder.path()) >= 30_000, "and it is used");
}

/// Lost or wrong books cost a count, nothing else; unfinished files of the dead go with it.
#[test]
fn usage_is_counted_anew_when_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let cache = disk(folder.path(), 50_000);
    for _ in 0..4 {
        keep(&cache, &object(10_000));
    }
    for usage in [None, Some(&b"torn"[..]), Some(&[0xff; 8])] {
        match usage {
            None => std::fs::remove_file(folder.path().join("usage")).unwrap(),
            Some(bytes) => std::fs::write(folder.path().join("usage"), bytes).unwrap(),
        }
        let dead = folder.path().join("unfinished-1-2-3");
        std::fs::write(&dead, "x").unwrap();
        let file = std::fs::File::options().write(true).open(&dead).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        let new = object(1000);
        keep(&cache, &new);
        assert!(cache.get(&wanted(&new)).is_some() && bytes_kept(folder.path()) > 30_000);
        assert!(!dead.exists());
        let booked = u64::from_le_bytes(std::fs::read(folder.path().join("usage")).unwrap().try_into().unwrap());
        assert_eq!(booked, bytes_kept(folder.path()));
    }
}

#[test]
fn a_cache_that_cannot_be_used_hinders_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    let memory = Arc::new(Memory::default());
    let store = Cached::new(memory, disk(&file.join("cache"), 1 << 20));
    let receipt = upload(&store, &[object(100)], &Context::default()).unwrap();
    let one = &receipt.objects[0];
    assert!(store.fetch(&one.locator, None, &expected(one), &Context::default()).is_ok());
}

/// Memory is asked first, bounded, and holds what the disk lost.
#[test]
fn memory_is_in_front() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 1 << 20, 10_000);
    let objects: Vec<Object> = (0..4).map(|_| object(3000)).collect();
    objects.iter().for_each(|object| keep(&cache, object));
    for file in kept(folder.path()) {
        std::fs::remove_file(file).unwrap();
    }
    let left: Vec<bool> = objects.iter().map(|object| cache.get(&wanted(object)).is_some()).collect();
    assert_eq!(left, [false, true, true, true]);
}

#[test]
fn what_is_cached_is_not_fetched_and_damage_of_the_store_is_not_cached() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::default());
    let session = || Cached::new(memory.clone(), disk(folder.path(), 1 << 20));
    let receipt = upload(&session(), &[object(100), object(200)], &Context::default()).unwrap();
    let [one, two] = &receipt.objects[..] else { panic!("two objects") };
    let fetch =
        |placed: &blobstore::Placed| session().fetch(&placed.locator, None, &expected(placed), &Context::default());
    fetch(one).unwrap();
    memory.change(&one.locator, |bytes| bytes[0] ^= 1);
    memory.change(&two.locator, |bytes| bytes[0] ^= 1);
    assert!(fetch(one).is_ok(), "from the cache");
    assert!(matches!(fetch(two), Err(Error::Corrupt { .. })));
    memory.change(&two.locator, |bytes| bytes[0] ^= 1);
    assert!(fetch(two).is_ok(), "nothing bad was kept");
}
