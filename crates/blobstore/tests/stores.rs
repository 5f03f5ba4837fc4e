//! The contract, for the stores that need no server: memory, directory, and both behind a cache.

mod contract;

use blobstore::cache::{Cache, Cached};
use blobstore::directory::Directory;
use blobstore::memory::Memory;
use blobstore::options::{Environment, open};
use blobstore::{Context, Store};
use contract::contract;
use std::path::Path;
use std::sync::Arc;

fn directory(path: &Path) -> Arc<dyn Store> {
    Arc::new(Directory::open(path, None).expect("a directory"))
}

#[test]
fn memory() {
    let memory = Arc::new(Memory::default());
    contract(&|| memory.clone());
}

#[test]
fn directory_alone() {
    let folder = tempfile::tempdir().unwrap();
    contract(&|| directory(folder.path()));
}

#[test]
fn directory_behind_a_cache_of_two_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let cached = || {
        let cache = Cache::new(cache.path().join("cache"), 3 << 20, 1 << 20);
        Arc::new(Cached::new(directory(folder.path()), cache)) as Arc<dyn Store>
    };
    contract(&cached);
    let mut kept = 0;
    for entry in std::fs::read_dir(cache.path().join("cache")).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            kept += std::fs::read_dir(entry.path())
                .unwrap()
                .flatten()
                .map(|file| file.metadata().unwrap().len())
                .sum::<u64>();
        }
    }
    assert!(kept > 0 && kept <= 3 << 20, "{kept} bytes are kept");
}

#[test]
fn opened_by_options() {
    let folder = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let text = |text: &str| text.to_owned();
    let path = folder.path().to_str().unwrap();
    let server = [(text("type"), text("directory")), (text("path"), text(path)), (text("cache"), text("true"))];
    let store = open("attic", &server, &[], &Environment::new(data.path())).unwrap();
    assert_eq!(store.abilities().kind, "directory");
    let receipt = contract::upload(&*store, &[contract::object(10)], &Context::default()).unwrap();
    let one = &receipt.objects[0];
    store.fetch(&one.locator, None, &contract::expected(one), &Context::default()).unwrap();
    assert!(data.path().join("pg_hybrid/cache/usage").exists(), "the cache is in its usual place");
}
