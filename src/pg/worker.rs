//! The background worker: who starts it, and the process itself.
//!
//! A dynamic worker, so nothing is preloaded. An insert notes that something is due, and so does a search that finds rows
//! come of age where nobody inserts any more; the end of its transaction (or, in a long one, a later insert) starts a
//! worker, if there is none. The worker looks after all indexes of its database.

use super::lock::{self, is_database_wanted};
use super::relation::{Index, OpenIndex, OpenTable, hybrid_am};
use crate::guc;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_guard, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::sync::Once;
use std::time::{Duration, Instant};

// The handlers themselves, not pg_sys' guarded calls of them.
#[allow(clashing_extern_declarations, reason = "the same functions as pg_sys declares, behind its guards")]
unsafe extern "C-unwind" {
    fn die(signal: std::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
}

/// How long a session does not ask again for the same index.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// How long a session that only searches does not look again whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After how long a transaction does not wait for its end to ask.
const ASK_WITHIN: Duration = Duration::from_millis(100);

/// What became of the wish for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It starts, or there are as many as there may be: they come to this index, too.
    Yes,
    /// The server has no room for one more, or the settings want none.
    No,
}

#[derive(Default)]
struct Wishes {
    /// Indexes where something is due, and since when this transaction knows.
    due: RefCell<HashMap<pg_sys::Oid, Instant>>,
    /// When this session last asked for a worker for an index.
    asked: RefCell<HashMap<pg_sys::Oid, Instant>>,
    /// When this session last looked at an index that it searched.
    looked: RefCell<HashMap<pg_sys::Oid, Instant>>,
    /// Whether `due` may have something in it.
    any: Cell<bool>,
}

thread_local! {
    static WISHES: Wishes = Wishes::default();
}

static AT_COMMIT: Once = Once::new();

/// Whether this session should look if something is due at an index that it only reads: now and then.
pub fn may_look(index: Index) -> bool {
    WISHES.with(|wishes| {
        let now = Instant::now();
        let mut looked = wishes.looked.borrow_mut();
        if looked.get(&index.oid()).is_some_and(|&at| now - at < LOOK_EVERY) {
            return false;
        }
        looked.retain(|_, at| now - *at < LOOK_EVERY);
        looked.insert(index.oid(), now);
        true
    })
}

/// Notes that compaction is due for an index, into which a row was just inserted or which was searched.
pub fn note_due(index: Index) {
    if guc::compaction_workers() == 0 || !index.is_seen_by_workers() || is_parallel_worker() {
        return;
    }
    AT_COMMIT.call_once(|| {
        // SAFETY: registers a function that lives as long as the library, which is never unloaded.
        unsafe { pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut()) };
    });
    WISHES.with(|wishes| {
        let now = Instant::now();
        if is_recent(&wishes.asked.borrow(), index.oid(), now) {
            return;
        }
        let since = *wishes.due.borrow_mut().entry(index.oid()).or_insert(now);
        wishes.any.set(true);
        if now - since > ASK_WITHIN {
            wishes.ask();
        }
    });
}

fn is_recent(asked: &HashMap<pg_sys::Oid, Instant>, index: pg_sys::Oid, now: Instant) -> bool {
    asked.get(&index).is_some_and(|&at| now - at < ASK_EVERY)
}

impl Wishes {
    /// Starts a worker for what is due; one will do.
    fn ask(&self) {
        let now = Instant::now();
        let mut asked = self.asked.borrow_mut();
        asked.retain(|_, at| now - *at < ASK_EVERY);
        let due: Vec<_> = self.due.borrow_mut().drain().map(|(index, _)| index).collect();
        self.any.set(false);
        if let Some(&first) = due.first() {
            asked.extend(due.iter().map(|&index| (index, now)));
            start(first);
        }
    }

    fn forget(&self) {
        self.due.borrow_mut().clear();
        self.any.set(false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    WISHES.with(|wishes| {
        if !wishes.any.get() {
            return;
        }
        if event == pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT {
            wishes.ask();
        } else {
            // Rolled back or prepared: rows of a transaction that is not over would be the only ones to flush.
            wishes.forget();
        }
    });
}

fn is_parallel_worker() -> bool {
    // SAFETY: set once, when the process starts.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Starts a worker that begins with this index, unless the database has as many as it may have.
pub fn start(index: pg_sys::Oid) -> Started {
    let places = guc::compaction_workers();
    if places == 0 {
        return Started::No;
    }
    if !lock::has_free_place(hybrid_am(), places) {
        return Started::Yes;
    }
    // SAFETY: set once, when the process connects.
    let database = unsafe { pg_sys::MyDatabaseId };
    let started = BackgroundWorkerBuilder::new("hybridvec compaction")
        .set_library("$libdir/hybridvec")
        .set_function("hybrid_compaction_main")
        .set_extra(&format!("{} {}", database.to_u32(), index.to_u32()))
        .enable_spi_access()
        .load_dynamic();
    if started.is_ok() { Started::Yes } else { Started::No }
}

/// The process. It ends with FATAL when it is told to (SIGTERM), which `CHECK_FOR_INTERRUPTS` notices.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn hybrid_compaction_main(_arg: pg_sys::Datum) {
    let mut numbers = BackgroundWorker::get_extra().split(' ').filter_map(|n| n.parse::<u32>().ok());
    let (Some(database), Some(index)) = (numbers.next(), numbers.next()) else { return };
    // SAFETY: the first thing that this process does; pgrx's own handlers would not let a lock wait be interrupted.
    unsafe {
        handle_signal(libc::SIGHUP, SignalHandlerForConfigReload);
        handle_signal(libc::SIGTERM, die);
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database.into(), pg_sys::InvalidOid, 0);
        if pg_sys::RecoveryInProgress() {
            return;
        }
    }
    let placed = transaction(|| {
        let access_method = hybrid_am();
        access_method != pg_sys::InvalidOid && take_place(access_method)
    });
    if placed {
        crate::am::compact::look_after_database(index.into());
    }
}

/// Takes one of the places for workers. A session that looks whether one is free holds it for a moment.
fn take_place(access_method: pg_sys::Oid) -> bool {
    (0..5).any(|attempt| {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        lock::take_place(access_method, guc::compaction_workers())
    })
}

/// # Safety
/// The handler may run at any time from now on.
unsafe fn handle_signal(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Runs `work` in a transaction with a snapshot.
pub fn transaction<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: a worker's process, outside of a transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        // Whatever the default is: the snapshot must not stay for the whole transaction.
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let result = work();
    // SAFETY: ends what was begun above; `without_snapshot` has put things back.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_stat(true);
    }
    result
}

/// As [`transaction`]; an ERROR is logged, undone, and `None`.
pub fn try_transaction<R>(work: impl FnOnce() -> R) -> Option<R> {
    let work = AssertUnwindSafe(work);
    let result = PgTryBuilder::new(move || {
        let AssertUnwindSafe(work) = { work };
        Some(transaction(work))
    })
    .catch_others(|cause| {
        log_error(&cause);
        None
    })
    .execute();
    if result.is_none() {
        // SAFETY: the transaction failed; this releases what it held and resets user and settings.
        unsafe { pg_sys::AbortOutOfAnyTransaction() };
    }
    result
}

fn log_error(cause: &CaughtError) {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = cause;
    pgrx::log!("hybridvec compaction: {}", report.message());
}

/// Runs `work` without the snapshot of [`transaction`]: what lasts must not keep VACUUM from removing rows.
pub fn without_snapshot<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: the snapshot is the one that `transaction` pushed. Work on pages needs none: the maintenance lock keeps others
    // from giving pages up.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::InvalidateCatalogSnapshot();
    }
    let result = work();
    // SAFETY: in a transaction.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    result
}

/// An index that the worker may work on, and its table; both locked to the end of the transaction.
pub struct Claimed {
    // The index is closed before the table.
    opened: OpenIndex,
    table: OpenTable,
    table_oid: pg_sys::Oid,
}

impl Claimed {
    /// Opens an index, if it is there and its locks are to be had without waiting.
    pub fn open(oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: a lookup that may fail.
        let table_oid = unsafe { pg_sys::IndexGetRelation(oid, true) };
        if table_oid == pg_sys::InvalidOid {
            return None;
        }
        // The table first, as all others do. Nothing that conflicts with VACUUM.
        let table = OpenTable::try_open(table_oid)?;
        let opened = OpenIndex::try_open(oid, table_oid)?;
        Some(Self { opened, table, table_oid })
    }

    pub fn index(&self) -> Index {
        self.opened.index()
    }

    pub fn table(&self) -> &OpenTable {
        &self.table
    }

    /// Whether somebody waits for what we hold here.
    pub fn is_in_the_way(&self) -> bool {
        lock::is_ddl_waiting(self.table_oid) || lock::is_ddl_waiting(self.index().oid()) || is_database_wanted()
    }

    /// Runs `work` as the table's owner, with what VACUUM, too, allows itself then.
    pub fn as_owner<R>(&self, work: impl FnOnce() -> R) -> R {
        self.table.as_owner(work)
    }
}

/// Says in pg_stat_activity what this worker does; `None`: nothing.
pub fn report_activity(what: Option<&str>) {
    let text = what.and_then(|what| CString::new(what).ok());
    let state = if text.is_some() { pg_sys::BackendState::STATE_RUNNING } else { pg_sys::BackendState::STATE_IDLE };
    // SAFETY: copies the text.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr())) };
}

/// Sleeps, handles signals, reads changed settings. Whether the worker should go on.
pub fn pause(duration: Duration) -> bool {
    super::thread::wait(duration);
    // SAFETY: a flag that a signal handler sets; the settings are read outside of a transaction.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
    guc::compaction_workers() > 0 && transaction(|| !is_database_wanted())
}
