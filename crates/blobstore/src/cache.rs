//! Fetched objects, kept on disk for all sessions and in memory for one store.
//!
//! A file of the cache is named by the BLAKE3 of what it holds, and checked when it is read: what is damaged is
//! removed, and counts as absent. So nothing that happens to the files can do more than cost a fetch, and they are not
//! fsynced. A file's modification time is when it was used last.
//!
//! `usage` has the bytes of all files. Bytes are booked there before a file appears, and the lock of `usage` is held
//! until it has: a crash may leave too many, never too few. Once they exceed the limit, files are counted anew and the
//! least recently used ones go.

use crate::{Abilities, Context, Expected, Hash, Health, Listed, Price, Result, Store, Upload};
use lru::LruCache;
use std::fs::{DirBuilder, File, FileTimes, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Of a file that was never given its name: it is dead when it is older.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// What is let go at once when the limit is exceeded: an eighth.
const SHARE_LET_GO: u64 = 8;

/// A cache on disk with a small one in memory before it. Failures of the disk are never a caller's: the cache then
/// holds nothing.
pub struct Cache {
    directory: PathBuf,
    limit: u64,
    memory: Mutex<Memory>,
}

struct Memory {
    objects: LruCache<Hash, Arc<[u8]>>,
    bytes: usize,
    limit: usize,
}

impl Memory {
    fn get(&mut self, hash: &Hash) -> Option<Arc<[u8]>> {
        self.objects.get(hash).cloned()
    }

    fn put(&mut self, hash: Hash, bytes: &[u8]) {
        if bytes.len() > self.limit / 2 {
            return;
        }
        self.bytes += bytes.len();
        if let Some((_, old)) = self.objects.push(hash, bytes.into()) {
            self.bytes -= old.len();
        }
        while self.bytes > self.limit {
            let Some((_, old)) = self.objects.pop_lru() else { break };
            self.bytes -= old.len();
        }
    }
}

/// Bytes of all files, as written in the file `usage`, which is locked.
struct Usage {
    file: File,
    bytes: u64,
}

impl Usage {
    fn write(&mut self) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.bytes.to_le_bytes())
    }
}

impl Cache {
    /// `limit`: bytes of all files together. `memory`: bytes in memory. Nothing is touched before the first use.
    pub fn new(directory: PathBuf, limit: u64, memory: usize) -> Self {
        let memory = Memory { objects: LruCache::unbounded(), bytes: 0, limit: memory };
        Self { directory, limit, memory: Mutex::new(memory) }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        let digits = blake3::Hash::from_bytes(*hash).to_hex();
        self.directory.join(&digits[..2]).join(&digits[2..])
    }

    /// The object, if it is here and whole.
    pub fn get(&self, expected: &Expected) -> Option<Vec<u8>> {
        if let Some(bytes) = self.memory().get(&expected.hash) {
            return (bytes.len() as u64 == expected.length).then(|| bytes.to_vec());
        }
        let path = self.path(&expected.hash);
        let file = OpenOptions::new().read(true).open(&path).ok()?;
        let mut bytes = Vec::new();
        let whole = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == expected.length)
            && (&file).take(expected.length + 1).read_to_end(&mut bytes).is_ok()
            && *blake3::hash(&bytes).as_bytes() == expected.hash;
        if !whole {
            let _ = std::fs::remove_file(&path);
            return None;
        }
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        self.memory().put(expected.hash, &bytes);
        Some(bytes)
    }

    /// Keeps an object whose hash this is, unless that fails.
    pub fn put(&self, hash: &Hash, bytes: &[u8]) {
        debug_assert_eq!(blake3::hash(bytes).as_bytes(), hash);
        self.memory().put(*hash, bytes);
        let _ = self.keep(hash, bytes);
    }

    fn keep(&self, hash: &Hash, bytes: &[u8]) -> std::io::Result<()> {
        let length = bytes.len() as u64;
        let path = self.path(hash);
        if length > self.limit || path.exists() {
            return Ok(());
        }
        // Held until the file is there: who counts the files meanwhile would not see it.
        let _booked = self.make_room(length)?;
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        let unfinished = self.directory.join(unfinished_name());
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(bytes)?;
            std::fs::rename(&unfinished, &path)
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
    }

    /// Books `length` bytes, and lets files go if that is too much.
    fn make_room(&self, length: u64) -> std::io::Result<Usage> {
        make_directory(&self.directory)?;
        let mut usage = self.usage()?;
        usage.bytes = usage.bytes.saturating_add(length);
        if usage.bytes > self.limit {
            let target = (self.limit - self.limit / SHARE_LET_GO).saturating_sub(length);
            usage.bytes = self.shrink(target)?.saturating_add(length);
        }
        usage.write()?;
        Ok(usage)
    }

    fn usage(&self) -> std::io::Result<Usage> {
        let path = self.directory.join("usage");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        // Held for as long as it takes to list the files and to write one, at most.
        file.lock()?;
        let mut bytes = [0; 8];
        let known = file.read_exact(&mut bytes).is_ok();
        // A new or torn one: whatever there is, is counted.
        Ok(Usage { file, bytes: if known { u64::from_le_bytes(bytes) } else { self.limit } })
    }

    /// Removes the least recently used files until at most `target` bytes are left. Returns the bytes left.
    fn shrink(&self, target: u64) -> std::io::Result<u64> {
        let mut files = Vec::new();
        let now = SystemTime::now();
        for entry in std::fs::read_dir(&self.directory)?.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && name.len() == 2 {
                files.extend(cached_files(&path));
            } else if kind.is_file() && name.as_encoded_bytes().starts_with(UNFINISHED_PREFIX.as_bytes()) {
                let age = entry.metadata()?.modified().ok().and_then(|modified| now.duration_since(modified).ok());
                if age.is_some_and(|age| age > UNFINISHED) {
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
        files.sort();
        let mut left: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if left <= target {
                break;
            }
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                _ => left -= length,
            }
        }
        Ok(left)
    }
}

/// When they were used last, their bytes, and their paths.
fn cached_files(directory: &Path) -> Vec<(SystemTime, u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let file = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().ok()?;
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        metadata.is_file().then(|| (used, metadata.len(), entry.path()))
    };
    entries.flatten().filter_map(file).collect()
}

const UNFINISHED_PREFIX: &str = "unfinished-";

/// A name that no other session and no other thread uses.
fn unfinished_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{UNFINISHED_PREFIX}{}-{number}-{:016x}", std::process::id(), rand::random::<u64>())
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A store whose fetched objects are kept in a cache. Manifests are always fetched: what a person names may change.
pub struct Cached {
    inner: Arc<dyn Store>,
    cache: Cache,
}

impl Cached {
    pub fn new(inner: Arc<dyn Store>, cache: Cache) -> Self {
        Self { inner, cache }
    }
}

impl Store for Cached {
    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>> {
        self.inner.upload(context)
    }

    fn fetch(&self, locator: &str, manifest: Option<&str>, expected: &Expected, context: &Context) -> Result<Vec<u8>> {
        context.check()?;
        if let Some(bytes) = self.cache.get(expected) {
            return Ok(bytes);
        }
        let bytes = self.inner.fetch(locator, manifest, expected, context)?;
        self.cache.put(&expected.hash, &bytes);
        Ok(bytes)
    }

    fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
        self.inner.fetch_manifest(locator, limit, context)
    }

    fn present(&self, objects: &[crate::Placed], context: &Context) -> Result<Vec<bool>> {
        self.inner.present(objects, context)
    }

    fn remove(&self, locator: &str, context: &Context) -> Result<bool> {
        self.inner.remove(locator, context)
    }

    fn manifests(&self, context: &Context) -> Result<Vec<Listed>> {
        self.inner.manifests(context)
    }

    fn price(&self, lengths: &[u64], manifest: u64) -> Option<Price> {
        self.inner.price(lengths, manifest)
    }

    fn check(&self, context: &Context) -> Result<Health> {
        self.inner.check(context)
    }

    fn lock_for_removal(&self, context: &Context) -> Result<Option<crate::RemovalLock>> {
        self.inner.lock_for_removal(context)
    }
}
