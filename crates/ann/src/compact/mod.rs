//! Compaction: the only thing that moves rows between segments.
//!
//! [`plan`] says what is due, [`run`] does one step of it. The caller holds the maintenance lock around both, so there is
//! one compaction at a time, and none while VACUUM removes TIDs.
//!
//! A step either moves rows one by one from a pending list to the active graph ([`flush`]), or copies all that some
//! sealed segments have into one new segment, which takes their place in one unit ([`rewrite`]). Segments that are no
//! longer listed keep their pages until nobody can still read them ([`release`]).
//!
//! Invariant: rows move by what the index has of them. The heap is never read, codes are copied as they are.

mod flush;
mod history;
mod plan;
mod release;
mod rewrite;

pub use history::{HISTORY_RECORDS, MAX_INPUTS, history, note};
pub use plan::{plan, some_came_of_age};
pub use release::Known;

use crate::error::Result;
use crate::hnsw::build::{Arena, Stop};
use crate::index::SegmentKind;
use crate::page::PageStore;

/// What a step does. Numbers are on disk, in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// Rows of pending lists go on.
    Flush = 1,
    /// Rows of graphs that are old go to an IVF segment.
    Migrate = 2,
    /// Segments of like size become one.
    Merge = 3,
    /// A segment is written again without its dead elements.
    CleanUp = 4,
    /// Pages of dropped segments are given up.
    Free = 5,
}

impl Action {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        use Action::*;
        [Flush, Migrate, Merge, CleanUp, Free].into_iter().find(|action| *action as u8 == byte)
    }

    /// The word that `hybrid_history` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Migrate => "migrate",
            Self::Merge => "merge",
            Self::CleanUp => "clean up",
            Self::Free => "free",
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    action: Action,
    work: Work,
    /// Empty for flushes, which take all pending lists, and for giving up pages.
    inputs: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Row by row from pending lists into the active graph.
    Trickle,
    /// All rows of some segments into one new segment of a kind.
    Rewrite(SegmentKind),
    /// Pages of dropped segments.
    Free,
}

impl Step {
    /// What it does.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Ids of the segments that it reads; none for flushes, which take all pending lists.
    pub fn inputs(&self) -> &[u32] {
        &self.inputs
    }

    /// Kind of the segment that rows go to.
    pub fn target(&self) -> Option<SegmentKind> {
        match self.work {
            Work::Trickle => Some(SegmentKind::Hnsw),
            Work::Rewrite(kind) => Some(kind),
            Work::Free => None,
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it was.
    pub action: Action,
    /// Ids of the segments that it read and that are gone now; the history keeps [`MAX_INPUTS`] of them.
    pub inputs: Vec<u32>,
    /// Id of the segment that the rows went to, if it is a new one.
    pub output: Option<u32>,
    /// Rows moved; pages given up.
    pub rows: u64,
    /// Microseconds since 2000-01-01, as [`Self::finished`].
    pub started: i64,
    pub finished: i64,
}

/// What compaction needs of its caller. `&self` throughout: several are used at once.
pub trait Help {
    /// Memory for codes and lists of a segment being made.
    type Arena: Arena;

    /// An empty arena; the one before is not used any more.
    fn arena(&self) -> Self::Arena;

    /// Threads for linking and k-means, and how many to use.
    fn pool(&self) -> (&rayon::ThreadPool, usize);

    /// Stops the threads from outside.
    fn stop(&self) -> &Stop;

    /// `done` rows or elements of the step are through. Called often, also while no thread runs.
    ///
    /// # Errors
    /// Those end the step, which leaves nothing half done.
    fn progress(&self, done: u64) -> Result<()>;

    /// As [`Self::progress`], while threads work: waits a moment.
    fn wait(&self, done: u64) -> Result<()>;

    /// Whether the step should stop at the next good place: somebody waits for the maintenance lock.
    fn wanted(&self) -> bool;

    /// The clock: microseconds since 2000-01-01.
    fn now(&self) -> i64;
}

/// Does one step. `None`: nothing was done, because the directory has changed since [`plan`], or because somebody else
/// wants the lock. In the latter case a flush may also have done only a part; the next one goes on.
///
/// # Errors
/// [`Error::Corrupt`](crate::error::Error::Corrupt); those of the store and of `help`. What was written before the error
/// harms nobody (docs/concurrency.md).
pub fn run(store: &impl PageStore, step: &Step, help: &impl Help) -> Result<Option<Report>> {
    match step.work {
        Work::Trickle => flush::trickle(store, help),
        Work::Rewrite(kind) => rewrite::rewrite(store, step.action, kind, &step.inputs, help),
        Work::Free => release::free(store, help),
    }
}

/// What an insert does that met [`Backlog::Full`](crate::index::Backlog::Full) and got the maintenance lock: moves rows
/// from pending lists to the active graph until [`Help::wanted`] says that it took long enough.
///
/// # Errors
/// As [`run`].
pub fn relieve(store: &impl PageStore, help: &impl Help) -> Result<Option<Report>> {
    flush::trickle(store, help)
}
