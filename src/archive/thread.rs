//! Work on stores, on helper threads; the session waits for it, and a cancel finds it waiting.
//!
//! - Invariant: a helper holds nothing of the session. What it is given is its own (`'static`, `Send`), so it may be left
//!   behind: it never calls PostgreSQL, and sees neither shared buffers nor palloc'ed memory.
//! - Invariant: nobody waits here while a page is locked or pinned by an access method of ours. A locked page is refused
//!   (`check_may_wait`); of pins PostgreSQL does not tell, so callers copy what they read and let the page go.
//! - A session that is canceled sets [`Context::stop`], waits [`PATIENCE`], and leaves the helper to itself. So does a
//!   process that ends. A helper that is left ends by itself, at the latest when the store's time limit passes.

use super::queue::{Bell, Queue, lock};
use crate::error::{Fault, raise};
use crate::pg::thread as pg;
use blobstore::{Abilities, Context, Error, Object, Placed, Progress, Receipt, Result, Store};
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

/// How long a session that is canceled waits for a helper to notice.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a process that ends waits for its helpers.
const LAST_PATIENCE: Duration = Duration::from_millis(200);
/// Longest time between two looks at interrupts. A cancel is noticed at once, as it wakes the session.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Helpers left behind beyond which a session starts no more.
const MOST_LEFT: usize = 16;
/// Bytes of objects that wait for a helper, or for the session.
pub(crate) const QUEUE_BYTES: usize = 64 << 20;
/// How often a session that waits says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Helpers that nobody waits for any more.
static LEFT: AtomicUsize = AtomicUsize::new(0);
/// What stops the helpers of this process.
static STOPS: Mutex<Vec<Weak<AtomicBool>>> = Mutex::new(Vec::new());
/// Helpers that run.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A store in the hands of a session.
///
/// The store is made, used and dropped on helper threads: a client of HTTP starts threads and may wait for them when it
/// is dropped.
pub(crate) struct Session {
    store: Held,
    abilities: Abilities,
    progress: Arc<Progress>,
    /// When the person was last told, or the session began.
    told: Cell<Instant>,
    server: String,
}

/// A store that is dropped on a thread of its own, as that may take a while.
struct Held(Option<Arc<dyn Store>>);

impl Held {
    /// For a helper, which may drop it.
    fn share(&self) -> Arc<dyn Store> {
        Arc::clone(self.0.as_ref().expect("there until it is dropped"))
    }
}

impl Drop for Held {
    /// Also runs while an ERROR unwinds: nothing here calls PostgreSQL. If there is no thread to be had, the store stays
    /// until the process ends.
    fn drop(&mut self) {
        if let Some(store) = self.0.take().map(ManuallyDrop::new) {
            _ = pg::spawn("hybridvec store end", move || drop(ManuallyDrop::into_inner(store)));
        }
    }
}

/// What a helper came to.
enum Outcome<T> {
    Running,
    Done(Result<T>),
    /// A fault of ours.
    Panicked,
    /// The session does not wait any more.
    Left,
}

struct Shared<T> {
    outcome: Mutex<Outcome<T>>,
    done: Condvar,
    bell: Bell,
}

impl<T> Shared<T> {
    fn is_done(&self) -> bool {
        !matches!(*lock(&self.outcome), Outcome::Running)
    }

    /// The helper's last act on what it shares with the session.
    fn end(&self, outcome: Outcome<T>) {
        let before = std::mem::replace(&mut *lock(&self.outcome), outcome);
        if matches!(before, Outcome::Left) {
            LEFT.fetch_sub(1, Relaxed);
        }
        self.done.notify_all();
        self.bell.ring();
    }
}

/// Work under way on a helper thread. Dropping it stops the work.
struct Task<T> {
    shared: Arc<Shared<T>>,
    stop: Arc<AtomicBool>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work` on a thread of its own.
    fn start(progress: &Arc<Progress>, work: impl FnOnce(&Context, &dyn Fn()) -> Result<T> + Send + 'static) -> Self {
        pg::check_may_wait();
        pg::at_exit(stop_all);
        if LEFT.load(Relaxed) >= MOST_LEFT {
            Fault::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
                format!("this session has {MOST_LEFT} requests that were canceled and have not ended yet"),
            )
            .hint("Try again in a minute.")
            .raise();
        }
        let bell = Bell::new().unwrap_or_else(|error| no_resources(&error));
        let shared = Arc::new(Shared { outcome: Mutex::new(Outcome::Running), done: Condvar::new(), bell });
        let stop = Arc::new(AtomicBool::new(false));
        {
            let mut stops = lock(&STOPS);
            stops.retain(|stop| stop.strong_count() > 0);
            stops.push(Arc::downgrade(&stop));
        }
        let context = Context { stop: Arc::clone(&stop), deadline: None, progress: Arc::clone(progress) };
        let theirs = Arc::clone(&shared);
        RUNNING.fetch_add(1, Relaxed);
        let spawned = pg::spawn("hybridvec store", move || {
            let _running = Running;
            let ring = || theirs.bell.ring();
            let result = catch_unwind(AssertUnwindSafe(|| work(&context, &ring)));
            theirs.end(result.map_or(Outcome::Panicked, Outcome::Done));
        });
        if let Err(error) = spawned {
            RUNNING.fetch_sub(1, Relaxed);
            no_resources(&error);
        }
        Self { shared, stop }
    }

    /// Lets a moment pass: until the helper rings, something happens to the session, or [`LOOK_EVERY`] is over.
    ///
    /// # Errors
    /// Raises an ERROR if the session is canceled.
    fn wait_a_moment(&self) {
        pg::wait_for_bell(self.shared.bell.ear(), LOOK_EVERY);
        self.shared.bell.hush();
    }

    /// What came of it, if it has ended. Once.
    fn take(&self) -> Option<Result<T>> {
        let mut outcome = lock(&self.shared.outcome);
        if matches!(*outcome, Outcome::Running) {
            return None;
        }
        match std::mem::replace(&mut *outcome, Outcome::Left) {
            Outcome::Done(result) => Some(result),
            _ => {
                drop(outcome);
                raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a helper thread failed; the server's log has more")
            }
        }
    }
}

impl<T> Drop for Task<T> {
    /// Also runs while an ERROR unwinds: nothing here calls PostgreSQL.
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let mut outcome = lock(&self.shared.outcome);
        let end = Instant::now() + PATIENCE;
        while matches!(*outcome, Outcome::Running) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                *outcome = Outcome::Left;
                LEFT.fetch_add(1, Relaxed);
                return;
            }
            outcome =
                self.shared.done.wait_timeout(outcome, left).map_or_else(|e| e.into_inner().0, |(guard, _)| guard);
        }
    }
}

/// Counts a helper while it runs.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
    }
}

/// Tells all helpers of a process that ends to stop, and gives them a moment: files that they write are whole or not there
/// in any case.
fn stop_all() {
    for stop in lock(&STOPS).iter().filter_map(Weak::upgrade) {
        stop.store(true, Relaxed);
    }
    let end = Instant::now() + LAST_PATIENCE;
    while RUNNING.load(Relaxed) > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cold]
fn no_resources(error: &std::io::Error) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, format!("could not start a thread: {error}"))
}

impl Session {
    /// Makes a store on a helper thread, and what else comes of its options. `server` is what messages call it.
    ///
    /// # Errors
    /// As `make`. Raises an ERROR if the session is canceled meanwhile.
    pub fn open<T: Send + 'static>(
        server: &str,
        make: impl FnOnce() -> Result<(Arc<dyn Store>, T)> + Send + 'static,
    ) -> Result<(Self, T)> {
        let progress = Arc::new(Progress::default());
        let task = Task::start(&progress, move |_, _| make().map(|(store, more)| (Held(Some(store)), more)));
        let (store, more) = loop {
            match task.take() {
                Some(result) => break result?,
                None => task.wait_a_moment(),
            }
        };
        let (abilities, told) = (store.share().abilities(), Cell::new(Instant::now()));
        Ok((Self { store, abilities, progress, told, server: server.to_string() }, more))
    }

    pub fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Objects and bytes that passed so far, and requests that were repeated.
    pub fn progress(&self) -> (u64, u64, u64) {
        let Progress { objects, bytes, retries } = &*self.progress;
        (objects.load(Relaxed), bytes.load(Relaxed), retries.load(Relaxed))
    }

    /// Does `work` with the store on a helper thread, and waits for it. The work may start further threads: they are deaf
    /// to signals, too, and must end before it does.
    ///
    /// # Errors
    /// As `work`. Raises an ERROR if the session is canceled meanwhile.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store, &Context) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.share();
        let task = Task::start(&self.progress, move |context, _| work(&*store, context));
        self.wait(&task)
    }

    fn wait<T: Send + 'static>(&self, task: &Task<T>) -> Result<T> {
        loop {
            if let Some(result) = task.take() {
                return result;
            }
            task.wait_a_moment();
            self.tell();
        }
    }

    /// Tells a person who waits long how far it is.
    fn tell(&self) {
        if self.told.get().elapsed() < TELL_EVERY {
            return;
        }
        self.told.set(Instant::now());
        let (objects, bytes, retries) = self.progress();
        let repeated = if retries > 0 { format!(", {retries} requests repeated") } else { String::new() };
        let message = format!("server \"{}\": {objects} objects, {} MB{repeated}", self.server, bytes >> 20);
        Fault::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message).report(PgLogLevel::NOTICE);
    }

    /// Begins an upload: objects are made by the session's thread, and sent by a helper.
    pub fn upload(&self) -> Upload<'_> {
        let (store, queue) = (self.store.share(), Arc::new(Queue::new(QUEUE_BYTES)));
        let theirs = Arc::clone(&queue);
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let task = Task::start(&self.progress, move |context, ring| {
            let upload = store.upload(context)?;
            begins.store(true, Relaxed);
            ring();
            send(upload, &theirs, context, ring)
        });
        Upload { session: self, queue, task, begun }
    }

    /// Begins a download: `work` fetches on a helper thread what the session takes from the stream, `limit` bytes ahead
    /// at most.
    pub fn stream<T: Send + 'static>(
        &self,
        limit: usize,
        work: impl FnOnce(&dyn Store, &Sink<'_, T>) -> Result<()> + Send + 'static,
    ) -> Stream<'_, T> {
        let (store, queue) = (self.store.share(), Arc::new(Queue::new(limit)));
        let theirs = Arc::clone(&queue);
        let task =
            Task::start(&self.progress, move |context, ring| work(&*store, &Sink { queue: &theirs, context, ring }));
        Stream { session: self, queue, task: Some(task) }
    }
}

/// Makes the manifest's object of the places of all others.
type MakeManifest = Box<dyn FnMut(&[Placed]) -> Object + Send>;

enum Message {
    Object(Object),
    Finish(MakeManifest),
}

/// What the helper of an upload does.
fn send(
    mut upload: Box<dyn blobstore::Upload + '_>,
    queue: &Queue<Message>,
    context: &Context,
    ring: &dyn Fn(),
) -> Result<Receipt> {
    while let Some(message) = queue.pop(context)? {
        ring();
        match message {
            Message::Object(object) => upload.put(object)?,
            Message::Finish(mut manifest) => return upload.finish(&mut *manifest),
        }
    }
    Err(Error::Cancelled)
}

/// An upload under way. Dropping it, also by an ERROR, ends it: what is stored stays, and is found by the next one.
pub(crate) struct Upload<'s> {
    session: &'s Session,
    queue: Arc<Queue<Message>>,
    task: Task<Receipt>,
    begun: Arc<AtomicBool>,
}

impl Upload<'_> {
    /// Waits until the store has begun the upload: what it has then stays until the upload ends.
    ///
    /// # Errors
    /// As the store. Raises an ERROR if the session is canceled.
    pub fn begun(&mut self) -> Result<()> {
        while !self.begun.load(Relaxed) {
            if let Some(result) = self.task.take() {
                return Err(result.err().unwrap_or(Error::Cancelled));
            }
            self.task.wait_a_moment();
        }
        Ok(())
    }

    /// Hands an object over; waits while [`QUEUE_BYTES`] wait for the helper. The caller holds no page.
    ///
    /// # Errors
    /// What the store said of an object before. Raises an ERROR if the session is canceled.
    pub fn put(&mut self, object: Object) -> Result<()> {
        let size = object.bytes.len();
        self.push(size, Message::Object(object))
    }

    fn push(&mut self, size: usize, message: Message) -> Result<()> {
        let mut message = message;
        loop {
            // Before the helper ends it takes messages; what it ended with is told at the first put after that.
            if let Some(result) = self.task.take() {
                return Err(result.err().unwrap_or(Error::Cancelled));
            }
            match self.queue.try_push(size, message) {
                Ok(()) => {
                    pgrx::check_for_interrupts!();
                    self.session.tell();
                    return Ok(());
                }
                Err(back) => message = back,
            }
            self.task.wait_a_moment();
        }
    }

    /// Sends what is left, then the manifest that `manifest` makes of the places of all objects, in the order of the puts.
    /// It runs on the helper's thread, maybe more than once, so it holds no reference to what is the session's.
    ///
    /// # Errors
    /// As the store. Raises an ERROR if the session is canceled.
    pub fn finish(mut self, manifest: impl FnMut(&[Placed]) -> Object + Send + 'static) -> Result<Receipt> {
        self.push(0, Message::Finish(Box::new(manifest)))?;
        self.session.wait(&self.task)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Where the helper of a stream puts what it fetched.
pub(crate) struct Sink<'a, T> {
    queue: &'a Queue<T>,
    pub context: &'a Context,
    ring: &'a dyn Fn(),
}

impl<T> Sink<'_, T> {
    /// Hands over an item of so many bytes; waits while the session is behind.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the session does not want more.
    pub fn push(&self, size: usize, item: T) -> Result<()> {
        self.queue.push(size, item, self.context)?;
        (self.ring)();
        Ok(())
    }
}

/// A download under way. Dropping it, also by an ERROR, ends it.
pub(crate) struct Stream<'s, T: Send + 'static> {
    session: &'s Session,
    queue: Arc<Queue<T>>,
    /// `None` once its end was told.
    task: Option<Task<()>>,
}

impl<T: Send + 'static> Stream<'_, T> {
    /// The next item; `None` at the end. The caller holds no page.
    ///
    /// # Errors
    /// As the helper's work, after all that it handed over. Raises an ERROR if the session is canceled.
    pub fn next(&mut self) -> Result<Option<T>> {
        loop {
            let ended = self.task.as_ref().is_none_or(|task| task.shared.is_done());
            if let Some(item) = self.queue.try_pop() {
                pgrx::check_for_interrupts!();
                self.session.tell();
                return Ok(Some(item));
            }
            let Some(task) = &self.task else { return Ok(None) };
            if !ended {
                task.wait_a_moment();
                self.session.tell();
            } else if let Some(result) = task.take() {
                self.task = None;
                result?;
            }
        }
    }
}

impl<T: Send + 'static> Drop for Stream<'_, T> {
    fn drop(&mut self) {
        self.queue.close();
    }
}
