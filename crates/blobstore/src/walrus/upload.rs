//! An upload: gathers objects until a container is full, sends two containers at a time, and the manifest last.

use super::known::Known;
use super::place::Place;
use super::send::{Container, Delivered, Piece, no_publisher};
use super::{COIN, Inner, USUAL_NAME};
use crate::http::sleep;
use crate::names::check_object;
use crate::{Context, Error, Hash, Object, Placed, Price, Receipt, Result, Upload};
use ::walrus::pack::{self, Item};
use ::walrus::{BlobId, price};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// Containers that are sent at a time. Each is held in memory, besides the one that is being filled.
const AT_ONCE: usize = 2;

/// Bytes by which the manifest may be longer than the one with provisional places.
const MANIFEST_SLACK: u64 = 4096;

/// An object that was put.
struct Slot {
    name: String,
    hash: Hash,
    length: u64,
    state: State,
}

enum State {
    /// Not in a container yet.
    Waiting,
    /// In a container that is under way or stored.
    Placed(Place),
    Reused(Place),
    /// The same object as that of an earlier slot.
    Twin(usize),
}

/// An object whose container is not yet decided.
struct Waiting {
    slot: usize,
    bytes: Bytes,
}

type Worker = JoinHandle<Result<Finished>>;

/// A container that is stored.
struct Finished {
    slots: Vec<usize>,
    id: BlobId,
    quilt: bool,
    units: u64,
    delivered: Delivered,
}

#[derive(Default)]
struct Totals {
    units: u64,
    coins: u64,
    requests: u64,
    sent: u64,
    units_singly: u64,
    /// The earliest end of all containers.
    end: Option<u64>,
    warnings: Vec<String>,
}

pub(super) struct Sending<'a> {
    inner: &'a Arc<Inner>,
    context: Context,
    known: Known,
    slots: Vec<Slot>,
    by_hash: HashMap<Hash, usize>,
    waiting: Vec<Waiting>,
    workers: Vec<Worker>,
    totals: Totals,
    failed: Option<Error>,
}

/// Whether containers should be sent before more is taken. Something always stays behind, for the manifest to ride with.
pub(super) fn is_full(inner: &Inner, items: &[Item]) -> bool {
    let bytes: u64 = items.iter().map(|item| item.length).sum();
    items.len() > 1 && (bytes > inner.options.quilt_bytes || items.len() > inner.shards.most_patches())
}

/// The containers that are worth sending now: the largest of the plan, and others that are at least half full, but not all.
/// The rest may share a container with what comes. Their units come first.
///
/// # Errors
/// As [`pack::plan`].
pub(super) fn first_containers(
    inner: &Inner,
    items: &[Item],
) -> std::result::Result<(u64, Vec<pack::Container>), usize> {
    let mut containers = pack::plan(inner.shards, items, &inner.limits(0))?.containers;
    let bytes = |container: &pack::Container| container.items().iter().map(|&item| items[item].length).sum::<u64>();
    containers.sort_by_key(|container| std::cmp::Reverse(bytes(container)));
    let count = containers.iter().filter(|container| bytes(container) >= inner.options.quilt_bytes / 2).count();
    let most = containers.len().saturating_sub(1).max(1);
    containers.truncate(count.clamp(1, most));
    let units = |container: &pack::Container| match container {
        pack::Container::Blob(item) => price::blob_units(inner.shards, items[*item].length).unwrap_or(0),
        pack::Container::Quilt(list) => {
            pack::quilt_units(inner.shards, list.iter().map(|item| items[*item])).unwrap_or(0)
        }
    };
    Ok((containers.iter().map(units).sum(), containers))
}

impl<'a> Sending<'a> {
    pub fn begin(inner: &'a Arc<Inner>, context: &Context) -> Result<Self> {
        if inner.options.publisher.is_none() {
            return Err(no_publisher());
        }
        let known = Known::read(inner)?;
        Ok(Self {
            inner,
            context: context.clone(),
            known,
            slots: Vec::new(),
            by_hash: HashMap::new(),
            waiting: Vec::new(),
            workers: Vec::new(),
            totals: Totals::default(),
            failed: None,
        })
    }

    fn items(&self) -> Vec<Item> {
        let item = |waiting: &Waiting| Item {
            identifier: self.slots[waiting.slot].name.len(),
            length: waiting.bytes.len() as u64,
        };
        self.waiting.iter().map(item).collect()
    }

    /// Takes objects out of the queue and sends them as one container.
    fn dispatch(&mut self, container: &pack::Container) -> Result<()> {
        while self.workers.len() >= AT_ONCE {
            self.collect(AT_ONCE - 1)?;
        }
        let quilted = matches!(container, pack::Container::Quilt(_));
        let mut slots = Vec::new();
        let mut pieces = Vec::new();
        for &position in container.items() {
            let Waiting { slot, bytes } = &self.waiting[position];
            let Slot { name, hash, .. } = &self.slots[*slot];
            slots.push(*slot);
            pieces.push(Piece { name: name.clone(), hash: *hash, bytes: bytes.clone() });
        }
        // Encoded here and not by the worker: buffers of this size, allocated by ever new threads, are not returned.
        let container = Container::seal(self.inner.shards, quilted, pieces)?;
        let (inner, context) = (Arc::clone(self.inner), self.context.clone());
        let work = move || {
            let delivered = inner.deliver(&container, &context)?;
            let units = container.units(inner.shards);
            Ok(Finished { slots, id: container.id, quilt: container.quilt, units, delivered })
        };
        let worker = std::thread::Builder::new().name("walrus upload".to_owned()).spawn(work);
        let failed = |error: std::io::Error| Error::Unreachable { message: format!("no thread: {error}") };
        self.workers.push(worker.map_err(failed)?);
        Ok(())
    }

    /// Dispatches these containers and keeps what is in none of them.
    fn dispatch_all(&mut self, containers: &[pack::Container]) -> Result<()> {
        for container in containers {
            self.dispatch(container)?;
        }
        let gone: HashSet<usize> = containers.iter().flat_map(|container| container.items().to_vec()).collect();
        let waiting = std::mem::take(&mut self.waiting);
        let kept = waiting.into_iter().enumerate().filter(|(position, _)| !gone.contains(position));
        self.waiting = kept.map(|(_, waiting)| waiting).collect();
        Ok(())
    }

    /// Waits until at most `left` containers are under way.
    fn collect(&mut self, left: usize) -> Result<()> {
        while self.workers.len() > left {
            let Some(position) = self.workers.iter().position(JoinHandle::is_finished) else {
                sleep(Duration::from_millis(20), &self.context)?;
                continue;
            };
            let result = self.workers.swap_remove(position).join();
            let broken = || Error::Protocol { message: "a thread of the upload failed".to_owned() };
            match result.unwrap_or_else(|_| Err(broken())) {
                Ok(finished) => self.note(finished),
                // Containers that are under way go on: they may be paid for already.
                Err(error) => self.failed = Some(self.failed.take().unwrap_or(error)),
            }
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn note(&mut self, finished: Finished) {
        let Finished { slots, id, quilt, units, delivered } = finished;
        for slot in slots {
            let place = Place { container: id, patch: quilt, name: self.slots[slot].name.clone() };
            let length = self.slots[slot].length;
            // What another session stored while this one prepared it was not sent from here.
            self.slots[slot].state = if delivered.sent > 0 { State::Placed(place) } else { State::Reused(place) };
            self.count(length);
        }
        self.add(units, delivered);
    }

    fn count(&self, length: u64) {
        self.context.progress.objects.fetch_add(1, Ordering::Relaxed);
        self.context.progress.bytes.fetch_add(length, Ordering::Relaxed);
    }

    fn add(&mut self, units: u64, delivered: Delivered) {
        let totals = &mut self.totals;
        if delivered.sent > 0 {
            totals.requests += 1;
            totals.sent += delivered.sent;
        }
        if delivered.coins > 0 {
            totals.units += units;
            totals.coins = totals.coins.saturating_add(delivered.coins);
        }
        totals.warnings.extend(delivered.warnings);
        if let Some(epoch) = delivered.epoch {
            self.known.clock.see(epoch, self.inner.now());
        }
        self.ends(delivered.end);
    }

    fn ends(&mut self, end: Option<u64>) {
        self.totals.end = match (self.totals.end, end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Where all objects are; those that still wait are said to be in `container`.
    fn places(&self, waiting: impl Fn(&str) -> String) -> Vec<Placed> {
        let place = |slot: &Slot| {
            let original = match slot.state {
                State::Twin(earlier) => &self.slots[earlier],
                _ => slot,
            };
            let (locator, reused) = match &original.state {
                State::Placed(place) => (place.to_string(), false),
                State::Reused(place) => (place.to_string(), true),
                State::Waiting | State::Twin(_) => (waiting(&slot.name), false),
            };
            Placed { name: slot.name.clone(), hash: slot.hash, length: slot.length, locator, reused }
        };
        self.slots.iter().map(place).collect()
    }

    /// The containers of what is left: those without the manifest, and what shares the manifest's container.
    fn last_containers(&self, manifest: u64) -> Result<(Vec<pack::Container>, pack::Container)> {
        let mut items = self.items();
        let own = items.len();
        items.push(Item { identifier: USUAL_NAME, length: manifest + MANIFEST_SLACK });
        let limits = self.inner.limits(manifest + MANIFEST_SLACK);
        let plan = pack::plan(self.inner.shards, &items, &limits).map_err(|item| self.too_long(item))?;
        let (with, without): (Vec<_>, Vec<_>) =
            plan.containers.into_iter().partition(|container| container.items().contains(&own));
        let last = with.into_iter().next().unwrap_or(pack::Container::Blob(own));
        Ok((without, last))
    }

    fn too_long(&self, item: usize) -> Error {
        let name = self.waiting.get(item).map_or("manifest", |waiting| &self.slots[waiting.slot].name);
        let message = format!("object \"{name}\" is longer than max_blob_bytes and max_quilt_bytes");
        Error::Refused { status: None, message }
    }

    /// Stores the manifest with what shares its container.
    fn send_last(&mut self, object: Object, hash: Hash, quilted: bool) -> Result<Placed> {
        let length = object.bytes.len() as u64;
        let name = object.name.clone();
        if self.waiting.is_empty()
            && let Some(found) = self.known.find(self.inner, &hash, &self.context)?
        {
            self.ends(found.end);
            return Ok(Placed { name, hash, length, locator: found.place.to_string(), reused: true });
        }
        let mut pieces = vec![Piece { name: name.clone(), hash, bytes: object.bytes.into() }];
        let waiting = std::mem::take(&mut self.waiting);
        for Waiting { slot, bytes } in &waiting {
            let Slot { name, hash, .. } = &self.slots[*slot];
            pieces.push(Piece { name: name.clone(), hash: *hash, bytes: bytes.clone() });
        }
        let container = Container::seal(self.inner.shards, quilted, pieces)?;
        let delivered = self.inner.deliver(&container, &self.context)?;
        let reused = delivered.sent == 0;
        for Waiting { slot, .. } in waiting {
            self.count(self.slots[slot].length);
        }
        self.add(container.units(self.inner.shards), delivered);
        self.totals.units_singly += price::blob_units(self.inner.shards, length).unwrap_or(0);
        Ok(Placed { locator: container.place(&name).to_string(), name, hash, length, reused })
    }

    fn receipt(self, manifest: Placed, objects: Vec<Placed>) -> Receipt {
        let Totals { units, coins, requests, sent, units_singly, end, mut warnings } = self.totals;
        let now = self.known.clock.at_most(self.inner.now());
        if let (Some(end), Some(now)) = (end, now)
            && end <= now.saturating_add(1)
        {
            warnings.push(format!("the archive ends with the beginning of epoch {end}, which may be soon"));
        }
        Receipt {
            manifest,
            objects,
            sent,
            price: Some(Price {
                units,
                coins,
                coin: COIN.to_owned(),
                coins_singly: self.inner.cost(units_singly),
                requests,
            }),
            expires: end.map(|end| self.known.clock.expiry(end)),
            warnings,
        }
    }
}

impl Upload for Sending<'_> {
    fn put(&mut self, object: Object) -> Result<()> {
        self.context.check()?;
        let hash = check_object(&object)?;
        let slot = self.slots.len();
        let length = object.bytes.len() as u64;
        let mut state = State::Waiting;
        if let Some(&earlier) = self.by_hash.get(&hash) {
            state = State::Twin(earlier);
        } else if let Some(found) = self.known.find(self.inner, &hash, &self.context)? {
            self.ends(found.end);
            self.context.progress.objects.fetch_add(1, Ordering::Relaxed);
            state = State::Reused(found.place);
        } else {
            self.totals.units_singly += price::blob_units(self.inner.shards, length).unwrap_or(0);
            self.waiting.push(Waiting { slot, bytes: object.bytes.into() });
        }
        self.by_hash.entry(hash).or_insert(slot);
        self.slots.push(Slot { name: object.name, hash, length, state });
        while is_full(self.inner, &self.items()) {
            let (_, containers) = first_containers(self.inner, &self.items()).map_err(|item| self.too_long(item))?;
            self.dispatch_all(&containers)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, manifest: &mut dyn FnMut(&[Placed]) -> Object) -> Result<Receipt> {
        self.context.check()?;
        // Places are as long as they will be.
        let anywhere =
            |name: &str| Place { container: BlobId([0; 32]), patch: false, name: name.to_owned() }.to_string();
        let provisional = manifest(&self.places(anywhere));
        check_object(&provisional)?;
        let (others, last) = self.last_containers(provisional.bytes.len() as u64)?;
        self.dispatch_all(&others)?;
        self.collect(0)?;
        let object = manifest(&self.places(|name| format!("./{name}")));
        let hash = check_object(&object)?;
        let quilted = matches!(last, pack::Container::Quilt(_));
        let objects = self.places(|name| format!("./{name}"));
        let placed = self.send_last(object, hash, quilted)?;
        Ok(self.receipt(placed, objects))
    }
}
