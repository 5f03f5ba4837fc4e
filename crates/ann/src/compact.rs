//! Compaction: the only thing that moves rows between segments.
//!
//! [`plan`] says what is due, [`run`] does one step of it. The caller holds the maintenance lock around both.

use crate::error::Result;
use crate::hnsw::build::{Arena, Stop};
use crate::index::{Directory, Meta};
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

/// One thing to do, of bounded length but for the writing of its output segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    action: Action,
    inputs: Vec<u32>,
}

impl Step {
    /// What it does.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Ids of the segments that it reads.
    pub fn inputs(&self) -> &[u32] {
        &self.inputs
    }
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it was.
    pub action: Action,
    /// Ids of the segments that it read.
    pub inputs: Vec<u32>,
    /// Id of the segment that the rows went to.
    pub output: Option<u32>,
    /// Rows moved.
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

/// What is due next, the most urgent and cheapest first; `None`: nothing. `now` is the clock.
pub fn plan(_store: &impl PageStore, _meta: &Meta, _directory: &Directory, _now: i64) -> Result<Option<Step>> {
    Ok(None)
}

/// Does one step. Where somebody else wanted the lock it may have done less; the next plan goes on.
///
/// # Errors
/// [`Error::Corrupt`](crate::error::Error::Corrupt); those of the store and of `help`.
pub fn run(_store: &impl PageStore, step: Step, help: &impl Help) -> Result<Report> {
    let now = help.now();
    Ok(Report { action: step.action, inputs: step.inputs, output: None, rows: 0, started: now, finished: now })
}
