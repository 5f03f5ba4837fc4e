//! The directory store: what attackers, crashes and other sessions may do to it.

mod contract;

use blobstore::directory::Directory;
use blobstore::{Context, Error, Object, Placed, Store};
use contract::{expected, manifest, object, upload, verify};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(Directory::open(path, None).expect("a directory"))
}

/// Message of the error for a path.
fn refused(path: &Path, data_directory: Option<&Path>) -> String {
    Directory::open(path, data_directory).expect_err("it is refused").to_string()
}

/// All files below a directory.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}

#[test]
fn only_plain_directories_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let store = root.join("store");
    std::fs::create_dir_all(store.join("deep")).unwrap();
    Directory::open(&store, None).unwrap();
    Directory::open(&store.join("deep"), Some(&root.join("store/deep/..").join("deep/../../data"))).unwrap_err();

    symlink(&store, root.join("link")).unwrap();
    symlink("store", root.join("relative")).unwrap();
    symlink("/nonexistent", root.join("broken")).unwrap();
    for path in ["link", "relative", "link/deep", "broken"] {
        let message = refused(&root.join(path), None);
        assert!(message.contains("symbolic link") && message.contains("path"), "{message}");
    }
    std::fs::write(root.join("file"), "x").unwrap();
    assert!(refused(&root.join("file"), None).contains("file"));
    assert!(matches!(Directory::open(&root.join("missing"), None), Err(Error::File { .. })));
    for path in ["store", "", "/..", "/tmp/../tmp"] {
        assert!(matches!(Directory::open(Path::new(path), None), Err(Error::Option { .. })), "{path}");
    }
    assert!(refused(Path::new("/"), None).contains("root"));
    assert!(!root.join("store/objects").exists(), "opening makes nothing");
}

#[test]
fn the_data_directory_is_no_place_for_archives() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("data/base/1")).unwrap();
    std::fs::create_dir_all(root.join("data2")).unwrap();
    symlink(root.join("data"), root.join("alias")).unwrap();
    for data in ["data", "alias"] {
        for path in ["data", "data/base/1", "data/"] {
            let message = refused(&root.join(path), Some(&root.join(data)));
            assert!(message.contains("inside the data directory"), "{message}");
        }
        Directory::open(&root.join("data2"), Some(&root.join(data))).unwrap();
        Directory::open(&root, Some(&root.join(data))).unwrap();
    }
}

#[test]
fn others_who_may_write_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, warned) in [(0o700, false), (0o755, false), (0o775, true), (0o777, true)] {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let store = open(folder.path());
        let receipt = upload(&*store, &[object(10)], &Context::default()).unwrap();
        assert_eq!(receipt.warnings.len(), usize::from(warned), "{mode:o}: {:?}", receipt.warnings);
        assert_eq!(store.check(&Context::default()).unwrap().steps.len(), 1 + usize::from(warned));
    }
    for file in files(folder.path()) {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
}

/// Links where the store expects files and directories lead nowhere.
#[test]
fn links_inside_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let stored = object(100);
    std::fs::write(outside.path().join("bait"), &stored.bytes).unwrap();
    let place = |root: &Path, placed: &Placed| root.join(&placed.locator);

    let folder = tempfile::tempdir().unwrap();
    let receipt = upload(&*open(folder.path()), std::slice::from_ref(&stored), &Context::default()).unwrap();
    let one = &receipt.objects[0];
    let path = place(folder.path(), one);
    std::fs::remove_file(&path).unwrap();
    symlink(outside.path().join("bait"), &path).unwrap();
    let store = open(folder.path());
    let fetched = store.fetch(&one.locator, None, &expected(one), &Context::default());
    assert!(matches!(fetched, Err(Error::File { .. })), "a link to the right bytes is still a link: {fetched:?}");
    assert!(
        upload(&*store, std::slice::from_ref(&stored), &Context::default()).is_err(),
        "and nothing to write through"
    );
    assert_eq!(store.remove(&one.locator, &Context::default()), Ok(true), "the link goes, not its target");
    assert!(outside.path().join("bait").exists());

    for planted in ["objects", "manifests", "incoming", "lock", "objects/fan"] {
        let folder = tempfile::tempdir().unwrap();
        let fan = place(folder.path(), one).parent().unwrap().to_owned();
        let at = if planted == "objects/fan" { fan } else { folder.path().join(planted) };
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(outside.path(), &at).unwrap();
        let outcome = upload(&*open(folder.path()), std::slice::from_ref(&stored), &Context::default());
        assert!(matches!(outcome, Err(Error::File { .. })), "{planted}: {outcome:?}");
        assert_eq!(files(outside.path()).len(), 1, "{planted}: nothing was written outside");
    }
}

#[test]
fn other_things_than_files_are_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let receipt = upload(&*store, &[object(100)], &Context::default()).unwrap();
    let one = &receipt.objects[0];
    let path = folder.path().join(&one.locator);
    std::fs::remove_file(&path).unwrap();
    // Opening a pipe for reading would wait for a writer.
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let fetched = store.fetch(&one.locator, None, &expected(one), &Context::default());
    assert!(matches!(fetched, Err(Error::File { .. })), "{fetched:?}");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(store.fetch(&one.locator, None, &expected(one), &Context::default()), Err(Error::File { .. })));
}

/// Every kind of damage is found, named, and mended by the next upload.
#[test]
fn damage_is_found_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let objects = [object(3000), object(3000)];
    let receipt = upload(&*store, &objects, &Context::default()).unwrap();
    let paths: Vec<PathBuf> = receipt.objects.iter().map(|placed| folder.path().join(&placed.locator)).collect();
    let swapped = objects[1].bytes.clone();
    let flipped: Vec<u8> = objects[0].bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 2999)).collect();
    let long = [&objects[0].bytes[..], b"x"].concat();
    for bytes in [&swapped[..], &flipped, &long, &objects[0].bytes[..2999], b""] {
        std::fs::write(&paths[0], bytes).unwrap();
        let one = &receipt.objects[0];
        let error = store.fetch(&one.locator, None, &expected(one), &Context::default()).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { object, .. } if *object == one.locator), "{error}");
        let again = upload(&*store, &objects, &Context::default()).unwrap();
        assert_eq!([again.objects[0].reused, again.objects[1].reused], [false, true]);
        verify(&|| open(folder.path()), &again, &objects);
    }
    let path = folder.path().join("manifests").join(&receipt.manifest.name);
    std::fs::write(&path, "another manifest").unwrap();
    let error = store.fetch_manifest(&receipt.manifest.locator, 1 << 20, &Context::default()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// Between write and rename there is a file in `incoming`; when its writer is dead, the next upload removes it.
#[test]
fn unfinished_files_of_the_dead_go_and_those_of_the_living_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    upload(&*store, &[object(10)], &Context::default()).unwrap();
    let incoming = folder.path().join("incoming");
    std::fs::write(incoming.join("dead"), "half of an obj").unwrap();
    std::fs::write(incoming.join("living"), "half of an obj").unwrap();
    let living = std::fs::File::open(incoming.join("living")).unwrap();
    living.lock().unwrap();
    upload(&*store, &[object(10)], &Context::default()).unwrap();
    assert_eq!(files(&incoming), [incoming.join("living")]);
    drop(living);
    upload(&*store, &[], &Context::default()).unwrap();
    assert!(files(&incoming).is_empty());
}

const CHILD: &str = "BLOBSTORE_TEST_CHILD";

/// The objects that the child uploads, the same in every process.
fn fixed_objects() -> Vec<Object> {
    let bytes = |n: u32| blake3::hash(&n.to_le_bytes()).as_bytes().repeat(3000);
    (0..40).map(|n| contract::of_bytes("segment", "bin", bytes(n))).collect()
}

/// Not a test of its own: the process that [`killed_at_any_moment`] kills.
#[test]
fn child() {
    if let Ok(path) = std::env::var(CHILD) {
        upload(&*open(Path::new(&path)), &fixed_objects(), &Context::default()).unwrap();
    }
}

/// Whenever the process dies: what has a name is whole, no manifest names what is missing, and the next upload sends
/// only what is missing.
#[test]
fn killed_at_any_moment() {
    let objects = fixed_objects();
    for count in [0, 1, 3, 10, 25, 39, 40] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = || folder.path().join("incoming").exists();
        while child.try_wait().unwrap().is_none() && !(begun() && files(&folder.path().join("objects")).len() >= count)
        {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();

        let named = files(&folder.path().join("objects"));
        let finished = !files(&folder.path().join("manifests")).is_empty();
        assert!(!finished || named.len() == objects.len(), "a manifest comes after all objects");
        let receipt = upload(&*open(folder.path()), &objects, &Context::default()).unwrap();
        let reused = receipt.objects.iter().filter(|placed| placed.reused).count();
        assert_eq!(reused, named.len(), "all that has a name is whole, and not sent again");
        verify(&|| open(folder.path()), &receipt, &objects);
        assert!(files(&folder.path().join("incoming")).is_empty());
    }
}

#[test]
fn removal_waits_for_uploads_and_uploads_for_removal() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(folder.path()), open(folder.path()));
    let soon = || Context { deadline: Some(Instant::now() + Duration::from_millis(60)), ..Context::default() };
    let under_way = one.upload(&Context::default()).unwrap();
    drop(two.upload(&Context::default()).expect("uploads do not wait for each other"));
    assert_eq!(two.lock_for_removal(&soon()).err(), Some(Error::TimedOut));
    under_way.finish(&mut manifest).unwrap();
    let lock = two.lock_for_removal(&Context::default()).unwrap();
    assert!(lock.is_some());
    assert_eq!(one.upload(&soon()).err(), Some(Error::TimedOut));
    let context = Context::default();
    context.stop.store(true, Ordering::Relaxed);
    assert_eq!(one.upload(&context).err(), Some(Error::Cancelled));
    drop(lock);
    one.upload(&soon()).unwrap();
}

/// A directory that may only be read can be restored from.
#[test]
fn reading_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let objects = [object(100)];
    let receipt = upload(&*open(folder.path()), &objects, &Context::default()).unwrap();
    let before = files(folder.path()).len();
    std::fs::remove_file(folder.path().join("lock")).unwrap();
    std::fs::remove_dir(folder.path().join("incoming")).unwrap();
    verify(&|| open(folder.path()), &receipt, &objects);
    open(folder.path()).manifests(&Context::default()).unwrap();
    assert_eq!(files(folder.path()).len(), before - 1);
}
