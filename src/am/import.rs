//! Building an index with what an archive has of its structure: rows that the archive knows are relinked, others take
//! the usual way. See docs/relink.md.

use super::or_raise;
use crate::error::{Fault, raise};
use crate::pg::arena::BuildArena;
use crate::pg::relation::Index;
use crate::pg::settings::maintenance_work_mem;
use ann::distance::Metric;
use ann::error::{Error, Result};
use ann::hnsw::build::{Arena, Node};
use ann::index::Parameters;
use ann::keys::Row;
use ann::relink::{
    CentroidCodes, Claimed, Fingerprint, Fingerprints, Gathered, GraphElement, GraphHeader, ListElement, ListsHeader,
    Source, each_graph_row, each_list_row,
};
use ann::sq8::Params;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::cell::RefCell;
use std::ops::Range;

/// The structure of an archived segment.
pub enum Structure {
    /// A graph.
    Graph { header: GraphHeader, source: Source<'static, GraphElement> },
    /// Lists around centroids.
    Lists { header: ListsHeader, centroids: CentroidCodes, source: Source<'static, ListElement> },
}

/// An archived segment.
pub struct Archived {
    /// What messages call it.
    pub name: String,
    /// When the segment was made: microseconds since 2000-01-01.
    pub created: i64,
    pub structure: Structure,
}

impl Archived {
    /// Elements.
    pub fn elements(&self) -> u32 {
        match &self.structure {
            Structure::Graph { header, .. } => header.elements,
            Structure::Lists { header, .. } => header.elements,
        }
    }
}

/// The same source, which lets a cancel happen.
pub(super) fn interruptible<'a, E: 'a>(source: &'a mut Source<'static, E>) -> Source<'a, E> {
    Box::new(|visit| {
        source(&mut |ordinal, element| {
            if ordinal.is_multiple_of(1024) {
                pgrx::check_for_interrupts!();
            }
            visit(ordinal, element)
        })
    })
}

/// What must be the same in the index that was archived and in the one that is built.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    pub metric: Metric,
    pub dimensions: usize,
    pub m: usize,
    /// Key columns.
    pub keys: usize,
}

impl Fit {
    /// Of an index.
    pub fn of(parameters: &Parameters) -> Self {
        let Parameters { metric, dimensions, m, keys, .. } = *parameters;
        Self { metric, dimensions, m, keys }
    }

    /// Why the index does not fit, for a person; `None`: it does.
    pub fn misfit(&self, index: &Self) -> Option<String> {
        let differ = |what, archived: usize, here: usize| {
            (archived != here).then(|| format!("the archive is of {what} = {archived}, the index of {what} = {here}"))
        };
        let metric = || format!("the archive is of metric {:?}, the index of {:?}", self.metric, index.metric);
        differ("dimensions", self.dimensions, index.dimensions)
            .or_else(|| (self.metric != index.metric).then(metric))
            .or_else(|| differ("m", self.m, index.m))
            .or_else(|| differ("key columns", self.keys, index.keys))
    }
}

/// What a build that does not fit its plan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// Raises 22023, before anything is read of the table.
    Refuse,
    /// Builds the index as if there were no plan; [`Imported::refused`] says why.
    Build,
}

/// An archive that is ready to be imported: checked as far as can be done without the table.
pub struct ImportPlan {
    fit: Fit,
    misfit: Misfit,
    segments: Vec<Archived>,
    prints: Fingerprints,
}

impl ImportPlan {
    /// Reads all segments once, for their fingerprints: 28 bytes a row.
    ///
    /// # Errors
    /// Those of the sources; [`Error::Structure`] where a segment cannot be; [`Error::Limit`] where memory is short.
    ///
    /// # Panics
    /// If `fit` is out of range.
    pub fn new(fit: Fit, misfit: Misfit, mut segments: Vec<Archived>) -> Result<Self> {
        let shape = ann::shape::Shape::new(fit.metric, fit.dimensions, fit.m, fit.keys);
        let mut prints = Fingerprints::default();
        for (number, segment) in (0..).zip(&mut segments) {
            let mut add = |ordinal, rows: &[_]| rows.iter().try_for_each(|print| prints.add(number, ordinal, *print));
            match &mut segment.structure {
                Structure::Graph { header, source } => {
                    each_graph_row(header, &shape, &mut interruptible(source), &mut add)?;
                }
                Structure::Lists { header, centroids, source } => {
                    each_list_row(header, &shape, centroids, &mut interruptible(source), &mut add)?;
                }
            }
        }
        prints.sort()?;
        Ok(Self { fit, misfit, segments, prints })
    }

    /// What it is of.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }
}

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// A build took the plan.
    pub used: bool,
    /// Rows in archived segments that were made again.
    pub linked: u64,
    /// Rows that were built the usual way.
    pub inserted: u64,
    /// Archived elements without a row in the table.
    pub dropped: u64,
    /// Segments that were made again.
    pub segments: u64,
    /// Why the plan or a segment of it was not used; its rows were built the usual way.
    pub refused: Vec<String>,
}

#[derive(Default)]
struct Slot {
    plan: Option<ImportPlan>,
    imported: Imported,
}

thread_local! {
    /// Of the backend's only thread that builds.
    static SLOT: RefCell<Slot> = RefCell::default();
}

/// Empties the slot, however it is left.
struct Clear;

impl Drop for Clear {
    fn drop(&mut self) {
        SLOT.with_borrow_mut(|slot| *slot = Slot::default());
    }
}

/// Runs `build`, in which the first index that is built takes the plan. What became of it.
pub fn with_plan<R>(plan: ImportPlan, build: impl FnOnce() -> R) -> (R, Imported) {
    SLOT.with_borrow_mut(|slot| *slot = Slot { plan: Some(plan), imported: Imported::default() });
    let clear = Clear;
    let result = build();
    let imported = SLOT.with_borrow_mut(|slot| std::mem::take(&mut slot.imported));
    drop(clear);
    (result, imported)
}

/// Says what became of the plan: to the caller of [`with_plan`] where it `asked`, else to the person.
pub(super) fn report(index: Index, imported: Imported, asked: bool) {
    if asked {
        SLOT.with_borrow_mut(|slot| slot.imported = imported);
        return;
    }
    let (name, Imported { linked, inserted, dropped, refused, .. }) = (index.name(), imported);
    // Asked for by a setting or an option, so it is told whatever client_min_messages says, as dumps set it.
    let done = format!("index \"{name}\": {linked} rows linked as archived, {inserted} inserted, {dropped} dropped");
    Fault::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, done).report(PgLogLevel::INFO);
    for why in refused {
        let missing = format!("index \"{name}\" was built without a part of the archive: {why}");
        Fault::new(PgSqlErrorCode::ERRCODE_WARNING, missing).report(PgLogLevel::WARNING);
    }
}

/// Memory that each of three may take: rows that the archive knows, all others, and the segment that is being made.
pub(super) fn share_of_memory() -> usize {
    maintenance_work_mem() / 3
}

/// Whether a plan waits for a build.
#[cfg(any(test, feature = "pg_test"))]
pub fn is_waiting() -> bool {
    SLOT.with_borrow(|slot| slot.plan.is_some())
}

/// An import under way.
pub(super) struct Import {
    pub segments: Vec<Archived>,
    pub gathered: Gathered<BuildArena>,
    prints: Fingerprints,
    pub arena: BuildArena,
    pub imported: Imported,
    /// By [`with_plan`].
    pub asked: bool,
}

impl Import {
    /// The plan that waits for this index, if there is one.
    ///
    /// # Errors
    /// 22023 if it does not fit, where that is to be refused.
    pub fn take(index: Index, parameters: &Parameters) -> Option<Self> {
        let plan = SLOT.with_borrow_mut(|slot| slot.plan.take())?;
        let (fit, misfit) = (&plan.fit, plan.misfit);
        if let Some(why) = fit.misfit(&Fit::of(parameters)) {
            if misfit == Misfit::Refuse {
                let message = format!("archive does not fit index \"{}\": {why}", index.name());
                raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message);
            }
            report(index, Imported { refused: vec![why], ..Imported::default() }, true);
            return None;
        }
        Some(Self { asked: true, ..Self::new(plan, parameters) })
    }

    /// Begins the import of a plan that fits the index.
    pub fn new(plan: ImportPlan, parameters: &Parameters) -> Self {
        let ImportPlan { segments, prints, .. } = plan;
        let mut arena = BuildArena::new(share_of_memory());
        arena.charge(prints.len() * Fingerprints::ROW_BYTES);
        let gathered = Gathered::new(parameters.dimensions, parameters.keys);
        let imported = Imported { used: true, ..Imported::default() };
        Self { segments, gathered, prints, arena, imported, asked: false }
    }

    /// Keeps a row that the archive knows; whether it does.
    pub fn claim(&mut self, index: Index, row: &Row, print: Fingerprint, (params, code): (&Params, &[u8])) -> bool {
        let node = or_raise(index, Node::try_from(self.gathered.len()).map_err(|_| Error::Full));
        if !self.prints.claim(&print, node) {
            return false;
        }
        or_raise(index, self.gathered.push(&mut self.arena, params, code, row));
        true
    }

    /// Ends the gathering: what was claimed, by segment and element, and the range of each segment in it.
    pub fn claims(&mut self) -> (Vec<Claimed>, Vec<Range<usize>>) {
        let claimed = std::mem::take(&mut self.prints).finish();
        let mut start = 0;
        let ranges = (0..self.segments.len() as u32).map(|number| {
            let end = start + claimed[start..].partition_point(|claim| claim.segment == number);
            std::mem::replace(&mut start, end)..end
        });
        let ranges = ranges.collect();
        (claimed, ranges)
    }
}
