//! Threads: those of an index build, and helpers that wait for stores. They see Rust-owned memory only and never call
//! PostgreSQL. And how the session waits for them.

use crate::error::raise;
use ann::hnsw::build::Stop;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Once;
use std::time::Duration;

/// What stops the threads of this backend's build. Static: an exiting backend (FATAL does not unwind) stops them too.
static STOP: Stop = Stop::new();
static AT_EXIT: Once = Once::new();

/// Threads for one build, joined when it is dropped.
pub struct Pool {
    pool: rayon::ThreadPool,
    threads: usize,
}

impl Pool {
    /// A pool of `1 + max_parallel_maintenance_workers` threads, no more than there are processors.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        // SAFETY: a setting, read by the main thread.
        let workers = unsafe { pg_sys::max_parallel_maintenance_workers };
        let threads = (1 + usize::try_from(workers).unwrap_or(0)).min(processors);
        AT_EXIT.call_once(|| {
            // SAFETY: registers a callback that lives as long as the library, which is never unloaded.
            unsafe { pg_sys::before_shmem_exit(Some(stop_threads), pg_sys::Datum::from(0)) };
        });
        let masked = SignalMask::block_all();
        let built = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("hybridvec build {i}"))
            .build();
        drop(masked);
        let pool = built.unwrap_or_else(|error| {
            raise(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, format!("could not start threads: {error}"))
        });
        Self { pool, threads }
    }

    pub fn rayon(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    pub fn stop(&self) -> &'static Stop {
        &STOP
    }

    /// What stops the threads of whatever pool this process has.
    pub fn stop_flag() -> &'static Stop {
        &STOP
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stop_threads(_code: i32, _arg: pg_sys::Datum) {
    // A thread looks at the flag after each element, which takes well under a millisecond.
    STOP.stop_and_wait(Duration::from_secs(2));
}

/// All signals blocked in this thread, so in the threads it starts, until dropped.
struct SignalMask(libc::sigset_t);

impl SignalMask {
    fn block_all() -> Self {
        let (mut all, mut old) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both sets are written before they are read.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
            Self(old.assume_init())
        }
    }
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        // SAFETY: the mask that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Sleeps some milliseconds, or less if something happened, and lets a cancel happen.
pub fn wait_a_moment() {
    wait(Duration::from_millis(5));
}

/// Sleeps, or less if something happened, and lets a cancel happen.
pub(super) fn wait(duration: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch of this process; only the main thread comes here.
    unsafe {
        let timeout = duration.as_millis() as std::ffi::c_long;
        let happened = pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, timeout, pg_sys::PG_WAIT_EXTENSION);
        if happened & pg_sys::WL_LATCH_SET as i32 != 0 {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
    }
    pgrx::check_for_interrupts!();
}

/// Sleeps until `bell` can be read, something happened to this session, or time passed; lets a cancel happen.
///
/// # Errors
/// Raises an ERROR if the session is canceled, and XX000 where it could not be: while a page lock is held.
pub fn wait_for_bell(bell: BorrowedFd<'_>, duration: Duration) {
    check_may_wait();
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_SOCKET_READABLE | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch of this process, and a descriptor that is open during the call; only the main thread comes here.
    unsafe {
        let timeout = duration.as_millis() as std::ffi::c_long;
        let wait = pg_sys::PG_WAIT_EXTENSION;
        let happened = pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events as i32, bell.as_raw_fd(), timeout, wait);
        if happened & pg_sys::WL_LATCH_SET as i32 != 0 {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
    }
    pgrx::check_for_interrupts!();
}

/// Refuses to wait while interrupts are held off: whoever holds a page lock or is in a critical section would keep it,
/// deaf to a cancel, for as long as a store takes.
///
/// # Errors
/// Raises XX000.
pub fn check_may_wait() {
    // SAFETY: counters of this process.
    let held = unsafe { pg_sys::InterruptHoldoffCount > 0 || pg_sys::CritSectionCount > 0 };
    if held {
        raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "waiting for a store while a lock on a page is held");
    }
}

/// Starts a thread in which all signals are blocked, as in those that it starts.
///
/// # Errors
/// As the system.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let masked = SignalMask::block_all();
    let spawned = std::thread::Builder::new().name(name.to_string()).spawn(work);
    drop(masked);
    spawned.map(drop)
}

static AT_END: Once = Once::new();

/// Has `work` called when this process ends, before it leaves shared memory.
pub fn at_exit(work: fn()) {
    static WORK: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();
    #[pg_guard]
    unsafe extern "C-unwind" fn end(_code: i32, _arg: pg_sys::Datum) {
        if let Some(work) = WORK.get() {
            work();
        }
    }
    WORK.get_or_init(|| work);
    AT_END.call_once(|| {
        // SAFETY: registers a callback that lives as long as the library, which is never unloaded.
        unsafe { pg_sys::before_shmem_exit(Some(end), pg_sys::Datum::from(0)) };
    });
}
