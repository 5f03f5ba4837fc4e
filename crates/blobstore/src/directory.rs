//! A store in a directory, which several servers may share.
//!
//! ```text
//! <path>/objects/ab/<name>      objects; ab: the first two digits of the hash in the name
//! <path>/manifests/<name>       manifests
//! <path>/incoming/<random>      files being written; locked by who writes them
//! <path>/lock                   share-locked by uploads, locked by who removes
//! ```
//!
//! A file appears under its name only when it is whole and on disk; then its directory is fsynced. A manifest appears
//! after all its objects. Who dies in between leaves a file in `incoming`, which the next upload removes: nobody holds
//! its lock.
//!
//! Invariant: every file is reached from the root of the file system one component at a time, without following a link.

mod tree;

use crate::names::{check_bytes, check_content, check_object, digits, is_name, name_of};
use crate::{
    Abilities, Context, Error, Expected, Hash, Health, LARGEST_OBJECT, Listed, Object, Placed, Price, Receipt,
    RemovalLock, Result, Store, Upload,
};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};
use tree::Tree;

/// Microseconds from 1970 to 2000.
const EPOCH_2000: i64 = 946_684_800_000_000;

#[derive(Debug)]
pub struct Directory {
    tree: Tree,
}

/// Where a file lies below the root.
struct Place<'a> {
    directories: Vec<&'a str>,
    name: &'a str,
}

impl<'a> Place<'a> {
    fn object(name: &'a str) -> Option<Self> {
        let fan = digits(name).filter(|_| is_name(name))?;
        Some(Self { directories: vec!["objects", &fan[..2]], name })
    }

    fn manifest(name: &'a str) -> Option<Self> {
        is_name(name).then(|| Self { directories: vec!["manifests"], name })
    }

    /// `objects/ab/<name>`; `<name>` or `manifests/<name>` for a manifest; `./<name>` for an object that lies where the
    /// manifest lies.
    ///
    /// # Errors
    /// [`Error::NotFound`] for anything else: no such file was ever made by a store.
    fn of(locator: &'a str, manifest: Option<&str>) -> Result<Self> {
        let place = if let Some(name) = locator.strip_prefix("./") {
            manifest.and_then(|_| Self::object(name))
        } else if let Some(rest) = locator.strip_prefix("objects/") {
            rest.split_once('/').and_then(|(fan, name)| Self::object(name).filter(|place| place.directories[1] == fan))
        } else {
            Self::manifest(locator.strip_prefix("manifests/").unwrap_or(locator))
        };
        place.ok_or_else(|| Error::NotFound { object: locator.to_owned() })
    }

    fn locator(&self) -> String {
        match self.directories[..] {
            ["objects", fan] => format!("objects/{fan}/{}", self.name),
            _ => self.name.to_owned(),
        }
    }
}

impl Directory {
    /// Opens an existing directory, given by an absolute path without `..` and links. `data_directory`: PostgreSQL's;
    /// nothing may be stored inside of it.
    ///
    /// # Errors
    /// [`Error::Option`] for a path that may not be used, [`Error::File`] for one that cannot be opened.
    pub fn open(path: &Path, data_directory: Option<&Path>) -> Result<Self> {
        Ok(Self { tree: Tree::open(path, data_directory)? })
    }

    fn read(&self, place: &Place<'_>, locator: &str, limit: u64, context: &Context) -> Result<Vec<u8>> {
        context.check()?;
        let missing = || Error::NotFound { object: locator.to_owned() };
        let directory = self.tree.directory(&place.directories, false)?.ok_or_else(missing)?;
        let mut file = self.tree.existing(&directory, &place.directories, place.name)?.ok_or_else(missing)?;
        self.tree.read(&mut file, limit, context)?.ok_or_else(|| {
            let what = format!("it has more than {limit} bytes");
            Error::Corrupt { object: locator.to_owned(), what }
        })
    }

    /// Writes an object, unless it is there and whole.
    fn put(&self, place: &Place<'_>, object: &Object, hash: Hash, context: &Context) -> Result<Placed> {
        let length = object.bytes.len() as u64;
        let reused = self.is_whole(place, &Expected { hash, length }, context)?;
        if !reused {
            self.tree.write(&place.directories, place.name, &object.bytes, context)?;
            context.progress.bytes.fetch_add(length, Ordering::Relaxed);
        }
        context.progress.objects.fetch_add(1, Ordering::Relaxed);
        Ok(Placed { name: object.name.clone(), hash, length, locator: place.locator(), reused })
    }

    /// Whether a file of this length is there; what it holds is not read.
    fn is_there(&self, placed: &Placed, context: &Context) -> Result<bool> {
        context.check()?;
        let Ok(place) = Place::of(&placed.locator, None) else { return Ok(false) };
        let Some(directory) = self.tree.directory(&place.directories, false)? else { return Ok(false) };
        let file = self.tree.existing(&directory, &place.directories, place.name)?;
        Ok(file.and_then(|file| file.metadata().ok()).is_some_and(|metadata| metadata.len() == placed.length))
    }

    /// A damaged file is as good as none: it is written anew.
    fn is_whole(&self, place: &Place<'_>, expected: &Expected, context: &Context) -> Result<bool> {
        match self.read(place, place.name, expected.length, context) {
            Ok(bytes) => Ok(check_bytes(place.name, &bytes, expected).is_ok()),
            Err(Error::NotFound { .. } | Error::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Store for Directory {
    fn abilities(&self) -> Abilities {
        Abilities { kind: "directory", public: false, can_delete: true, can_list: true, has_price: false }
    }

    fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>> {
        context.check()?;
        let lock = self.tree.lock(false, context)?;
        self.tree.remove_dead(context)?;
        Ok(Box::new(Writes { store: self, context: context.clone(), placed: Vec::new(), _lock: lock }))
    }

    fn fetch(&self, locator: &str, manifest: Option<&str>, expected: &Expected, context: &Context) -> Result<Vec<u8>> {
        let place = Place::of(locator, manifest)?;
        let bytes = self.read(&place, locator, expected.length.min(LARGEST_OBJECT as u64), context)?;
        check_bytes(locator, &bytes, expected)?;
        Ok(bytes)
    }

    fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
        let place = Place::of(locator, None)?;
        let bytes = self.read(&place, locator, limit as u64, context)?;
        check_content(place.name, blake3::hash(&bytes).as_bytes())?;
        Ok(bytes)
    }

    fn present(&self, objects: &[Placed], context: &Context) -> Result<Vec<bool>> {
        objects.iter().map(|placed| self.is_there(placed, context)).collect()
    }

    fn remove(&self, locator: &str, context: &Context) -> Result<bool> {
        context.check()?;
        let place = Place::of(locator, None)?;
        self.tree.remove(&place.directories, place.name)
    }

    fn manifests(&self, context: &Context) -> Result<Vec<Listed>> {
        context.check()?;
        let mut listed = Vec::new();
        for (name, metadata) in self.tree.files(&["manifests"], context)? {
            if !is_name(&name) {
                continue;
            }
            let since_1970 = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            let stored_at =
                since_1970.and_then(|time| i64::try_from(time.as_micros()).ok()).map(|time| time - EPOCH_2000);
            listed.push(Listed { locator: name.clone(), name, length: metadata.len(), stored_at });
        }
        listed.sort_by(|a, b| b.stored_at.cmp(&a.stored_at).then_with(|| a.name.cmp(&b.name)));
        Ok(listed)
    }

    fn price(&self, _lengths: &[u64], _manifest: u64) -> Option<Price> {
        None
    }

    fn lock_for_removal(&self, context: &Context) -> Result<Option<RemovalLock>> {
        Ok(Some(Box::new(self.tree.lock(true, context)?)))
    }

    fn check(&self, context: &Context) -> Result<Health> {
        let mut bytes = b"hybridvec tries this store: ".to_vec();
        bytes.extend(rand::random::<[u8; 16]>());
        let hash = blake3::hash(&bytes).into();
        let object = Object { name: name_of("check", "bin", &hash), bytes };
        let missing = || Error::NotFound { object: object.name.clone() };
        let place = Place::object(&object.name).ok_or_else(missing)?;
        let begin = Instant::now();
        let placed = self.put(&place, &object, hash, context)?;
        let read = self.fetch(&placed.locator, None, &Expected { hash, length: placed.length }, context);
        let removed = self.remove(&placed.locator, context)?;
        let latency_ms = begin.elapsed().as_secs_f64() * 1000.0;
        read?;
        if !removed {
            return Err(missing());
        }
        let mut steps = vec![format!("wrote, read and removed an object of {} bytes", placed.length)];
        steps.extend(self.tree.warning().map(ToOwned::to_owned));
        Ok(Health { latency_ms, version: None, steps })
    }
}

struct Writes<'a> {
    store: &'a Directory,
    context: Context,
    placed: Vec<Placed>,
    _lock: File,
}

impl Writes<'_> {
    fn write(&self, object: &Object, place: Option<Place<'_>>) -> Result<Placed> {
        self.context.check()?;
        let hash = check_object(object)?;
        let place = place.ok_or_else(|| Error::NotFound { object: object.name.clone() })?;
        self.store.put(&place, object, hash, &self.context)
    }
}

impl Upload for Writes<'_> {
    fn put(&mut self, object: Object) -> Result<()> {
        let placed = self.write(&object, Place::object(&object.name))?;
        self.placed.push(placed);
        Ok(())
    }

    fn finish(self: Box<Self>, manifest: &mut dyn FnMut(&[Placed]) -> Object) -> Result<Receipt> {
        let object = manifest(&self.placed);
        let placed = self.write(&object, Place::manifest(&object.name))?;
        let warnings = self.store.tree.warning().map(ToOwned::to_owned).into_iter().collect();
        Ok(Receipt::of(placed, self.placed, warnings))
    }
}
