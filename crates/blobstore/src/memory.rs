//! A store in memory, for tests: what it holds lives as long as the value.

use crate::names::{check_bytes, check_content, check_object, is_name};
use crate::{
    Abilities, Context, Error, Expected, Hash, Health, Listed, Object, Placed, Price, Receipt, Result, Store, Upload,
};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Objects under `object/<name>`, manifests under `<name>`.
#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Memory {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is stored, for tests that damage it.
    pub fn change(&self, locator: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.objects().get_mut(locator) {
            change(bytes);
        }
    }

    fn get(&self, locator: &str, context: &Context) -> Result<Vec<u8>> {
        context.check()?;
        self.objects().get(locator).cloned().ok_or_else(|| Error::NotFound { object: locator.to_owned() })
    }

    fn put(&self, locator: String, object: Object, hash: Hash, context: &Context) -> Result<Placed> {
        context.check()?;
        let length = object.bytes.len() as u64;
        let reused = self.objects().get(&locator).is_some_and(|bytes| *bytes == object.bytes);
        if !reused {
            self.objects().insert(locator.clone(), object.bytes);
            context.progress.bytes.fetch_add(length, Ordering::Relaxed);
        }
        context.progress.objects.fetch_add(1, Ordering::Relaxed);
        Ok(Placed { name: object.name, hash, length, locator, reused })
    }
}

impl Store for Memory {
    fn abilities(&self) -> Abilities {
        Abilities { kind: "memory", public: false, can_delete: true, can_list: true, has_price: false }
    }

    fn upload(&self, context: &Context) -> Result<Box<dyn Upload + '_>> {
        context.check()?;
        Ok(Box::new(Puts { store: self, context: context.clone(), placed: Vec::new() }))
    }

    fn fetch(&self, locator: &str, manifest: Option<&str>, expected: &Expected, context: &Context) -> Result<Vec<u8>> {
        let full = match (locator.strip_prefix("./"), manifest) {
            (Some(name), Some(_)) => format!("object/{name}"),
            _ => locator.to_owned(),
        };
        let bytes = self.get(&full, context)?;
        check_bytes(locator, &bytes, expected)?;
        Ok(bytes)
    }

    fn fetch_manifest(&self, locator: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
        if !is_name(locator) {
            return Err(Error::NotFound { object: locator.to_owned() });
        }
        let bytes = self.get(locator, context)?;
        if bytes.len() > limit {
            let what = format!("it has more than {limit} bytes");
            return Err(Error::Corrupt { object: locator.to_owned(), what });
        }
        check_content(locator, blake3::hash(&bytes).as_bytes())?;
        Ok(bytes)
    }

    fn present(&self, objects: &[Placed], context: &Context) -> Result<Vec<bool>> {
        context.check()?;
        let ours = self.objects();
        let has = |placed: &Placed| ours.get(&placed.locator).is_some_and(|bytes| bytes.len() as u64 == placed.length);
        Ok(objects.iter().map(has).collect())
    }

    fn remove(&self, locator: &str, context: &Context) -> Result<bool> {
        context.check()?;
        Ok(self.objects().remove(locator).is_some())
    }

    fn manifests(&self, context: &Context) -> Result<Vec<Listed>> {
        context.check()?;
        let objects = self.objects();
        let manifests = objects.iter().filter(|(locator, _)| !locator.contains('/'));
        Ok(manifests
            .map(|(locator, bytes)| Listed {
                name: locator.clone(),
                locator: locator.clone(),
                length: bytes.len() as u64,
                stored_at: None,
            })
            .collect())
    }

    fn price(&self, _lengths: &[u64], _manifest: u64) -> Option<Price> {
        None
    }

    fn check(&self, context: &Context) -> Result<Health> {
        context.check()?;
        Ok(Health { latency_ms: 0.0, version: None, steps: Vec::new() })
    }
}

struct Puts<'a> {
    store: &'a Memory,
    context: Context,
    placed: Vec<Placed>,
}

impl Upload for Puts<'_> {
    fn put(&mut self, object: Object) -> Result<()> {
        let hash = check_object(&object)?;
        let locator = format!("object/{}", object.name);
        self.placed.push(self.store.put(locator, object, hash, &self.context)?);
        Ok(())
    }

    fn finish(self: Box<Self>, manifest: &mut dyn FnMut(&[Placed]) -> Object) -> Result<Receipt> {
        let object = manifest(&self.placed);
        let hash = check_object(&object)?;
        let manifest = self.store.put(object.name.clone(), object, hash, &self.context)?;
        Ok(Receipt::of(manifest, self.placed, Vec::new()))
    }
}
