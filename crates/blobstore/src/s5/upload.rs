//! An upload: objects go to one or more writers, then the manifest.

use crate::names::check_object;
use crate::{Context, Error, Object, Placed, Receipt, Result, Upload};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Object,
    Manifest,
}

/// Where objects go.
pub trait Place: Send + Sync + 'static {
    /// Objects that may be stored at the same time.
    const WRITERS: usize;

    /// Stores an object, unless it is there.
    fn place(&self, object: Object, role: Role, context: &Context) -> Result<Placed>;
}

/// Invariant: at most `2 * WRITERS` objects are held, as many under way as waiting.
pub struct Uploader<P: Place> {
    place: Arc<P>,
    context: Context,
    jobs: Option<SyncSender<(usize, Object)>>,
    writers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// Number of each name; a name that is put again is the same object.
    numbers: HashMap<String, usize>,
    order: Vec<usize>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    placed: BTreeMap<usize, Placed>,
    error: Option<Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first failure of any writer.
    fn check(&self) -> Result<()> {
        self.lock().error.clone().map_or(Ok(()), Err)
    }
}

impl<P: Place> Uploader<P> {
    pub fn new(place: Arc<P>, context: &Context) -> Result<Self> {
        context.check()?;
        let (jobs, receiver) = sync_channel(P::WRITERS);
        let receiver = Arc::new(Mutex::new(receiver));
        let shared = Arc::new(Shared::default());
        let mut writers = Vec::new();
        for _ in 0..P::WRITERS {
            let (place, context) = (Arc::clone(&place), context.clone());
            let (receiver, shared) = (Arc::clone(&receiver), Arc::clone(&shared));
            let thread = std::thread::Builder::new().name("blobstore s5".to_owned());
            let writer = thread.spawn(move || write(&*place, &context, &receiver, &shared));
            writers.push(writer.map_err(|error| Error::Unreachable { message: format!("no thread: {error}") })?);
        }
        let (numbers, order) = (HashMap::new(), Vec::new());
        Ok(Self { place, context: context.clone(), jobs: Some(jobs), writers, shared, numbers, order })
    }
}

/// Stores objects until there are no more. After a failure, the rest is passed over.
fn write<P: Place>(place: &P, context: &Context, jobs: &Mutex<Receiver<(usize, Object)>>, shared: &Shared) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, object)) = job else { return };
        if shared.check().is_err() {
            continue;
        }
        let outcome = place.place(object, Role::Object, context);
        let mut state = shared.lock();
        match outcome {
            Ok(placed) => {
                count(&placed, context);
                state.placed.insert(number, placed);
            }
            Err(error) => {
                state.error.get_or_insert(error);
            }
        }
    }
}

fn count(placed: &Placed, context: &Context) {
    context.progress.objects.fetch_add(1, Ordering::Relaxed);
    if !placed.reused {
        context.progress.bytes.fetch_add(placed.length, Ordering::Relaxed);
    }
}

impl<P: Place> Upload for Uploader<P> {
    fn put(&mut self, object: Object) -> Result<()> {
        self.context.check()?;
        check_object(&object)?;
        self.shared.check()?;
        let next = self.numbers.len();
        let number = *self.numbers.entry(object.name.clone()).or_insert(next);
        self.order.push(number);
        if number < next {
            return Ok(());
        }
        let ended = || Error::Unreachable { message: "the writers ended".to_owned() };
        let sent = self.jobs.as_ref().ok_or_else(ended)?.send((number, object));
        sent.map_err(|_| ended())
    }

    fn finish(mut self: Box<Self>, manifest: &mut dyn FnMut(&[Placed]) -> Object) -> Result<Receipt> {
        drop(self.jobs.take());
        for writer in self.writers.drain(..) {
            if writer.join().is_err() {
                return Err(Error::Unreachable { message: "a writer broke down".to_owned() });
            }
        }
        self.shared.check()?;
        self.context.check()?;
        let placed = std::mem::take(&mut self.shared.lock().placed);
        let mut seen = vec![false; placed.len()];
        let mut objects = Vec::with_capacity(self.order.len());
        for number in &self.order {
            let missing = || Error::Unreachable { message: "an object was passed over".to_owned() };
            let mut object = placed.get(number).cloned().ok_or_else(missing)?;
            if let Some(seen) = seen.get_mut(*number) {
                object.reused |= std::mem::replace(seen, true);
            }
            objects.push(object);
        }
        let manifest = self.place.place(manifest(&objects), Role::Manifest, &self.context)?;
        count(&manifest, &self.context);
        Ok(Receipt::of(manifest, objects, Vec::new()))
    }
}
