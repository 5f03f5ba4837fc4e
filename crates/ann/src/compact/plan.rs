//! What compaction should do next.

use super::history::MAX_INPUTS;
use super::{Action, Step, Work, release};
use crate::age::{AgeCut, MICROSECONDS_A_DAY, Recency};
use crate::error::Result;
use crate::hnsw::read::Segment;
use crate::index::{Directory, Head, MAX_SEGMENTS, Meta, Parameters};
use crate::index::{SegmentEntry, SegmentKind};
use crate::keys::Keys;
use crate::page::{PageStore, Unit};

/// Times `pending_rows`: rows from which on a flush builds a segment, instead of inserting row by row.
const BULK: u64 = 4;
/// Rows that are worth a segment of their own.
const LEAST_SEGMENT: u64 = 4096;
/// Sealed graphs that searches walk one by one.
const MOST_GRAPHS: usize = 6;
/// IVF segments from which on merging them comes before flushes.
const MANY_PARTITIONS: usize = 32;
/// Segments of like size that are merged at once.
const MERGED: usize = 4;
/// Rows that a merge makes at most.
const MOST_MERGED: u64 = 10_000_000;
/// Rows that a migration takes at most, unless one segment has more: the lock is held that long.
const MOST_MIGRATED: u64 = 1_000_000;
/// Recent rows in 100 that may go along when a graph migrates.
const RECENT_PERCENT: usize = 5;
/// Pages of elements up to which a segment is counted, not estimated.
const COUNTED_PAGES: u32 = 4;

/// A segment and how large it is.
#[derive(Clone, Copy)]
struct Sized {
    entry: SegmentEntry,
    head: Head,
    elements: u64,
    /// Elements without rows: as VACUUM last counted.
    routers: u64,
}

impl Sized {
    fn live(&self) -> u64 {
        self.elements.saturating_sub(self.routers)
    }
}

/// What is due next, the most urgent and cheapest first; `None`: nothing. `now` is the clock, in microseconds since
/// 2000-01-01.
///
/// Reads the heads of all segments; the rows of pending lists that are due; and those of a sealed graph once, to learn
/// and remember how old they are. The caller holds the maintenance lock.
///
/// # Errors
/// [`Error::Corrupt`](crate::error::Error::Corrupt); those of the store.
pub fn plan(store: &impl PageStore, meta: &Meta, directory: &Directory, now: i64) -> Result<Option<Step>> {
    if release::is_due(store, directory) {
        return Ok(Some(Step { action: Action::Free, work: Work::Free, inputs: Vec::new() }));
    }
    let (segments, has_room) = (sizes(store, meta, directory)?, directory.has_room());
    let plan = Plan { store, parameters: &meta.parameters, now, segments, has_room };
    // With a full directory nothing can be sealed: merges come first.
    if !has_room && let Some(step) = plan.merge_partitions(true) {
        return Ok(Some(step));
    }
    if let Some(step) = plan.overdue_merge() {
        return Ok(Some(step));
    }
    if let Some(step) = plan.flush()? {
        return Ok(Some(step));
    }
    let step = plan.clean_up().or_else(|| plan.merge_graphs());
    match step {
        Some(step) => Ok(Some(step)),
        None => Ok(plan.migrate()?.or_else(|| plan.merge_partitions(directory.segments.len() > MAX_SEGMENTS / 2))),
    }
}

/// Whether age makes a migration due, as far as the heads of segments tell: a sealed graph whose rows [`plan`] has not looked
/// at yet may turn out to be too young, once. Reads no rows, but those of very small segments, and changes nothing.
///
/// # Errors
/// As [`plan`].
pub fn some_came_of_age(store: &impl PageStore, meta: &Meta, directory: &Directory, now: i64) -> Result<bool> {
    let Recency::ByAge { age, threshold } = meta.parameters.recency() else { return Ok(false) };
    let (segments, has_room) = (sizes(store, meta, directory)?, directory.has_room());
    let plan = Plan { store, parameters: &meta.parameters, now, segments, has_room };
    let cut = AgeCut::new(age, threshold, now);
    let mut graphs = plan.of(SegmentKind::Hnsw).filter(|s| s.live() > 0);
    Ok(graphs.any(|graph| plan.is_past(graph, cut).unwrap_or(true)))
}

fn sizes(store: &impl PageStore, meta: &Meta, directory: &Directory) -> Result<Vec<Sized>> {
    let shapes = meta.parameters.shapes();
    let mut sizes = Vec::new();
    for &entry in &directory.segments {
        let segment = Segment { store, shape: shapes.of(entry.kind), id: entry.id, head: entry.head };
        let head = segment.read_head()?;
        let (mut elements, mut routers) =
            (u64::from(head.element_pages) * u64::from(segment.shape.element.per_page), head.routers);
        if head.element_pages <= COUNTED_PAGES {
            let counts = segment.tally()?;
            (elements, routers) = (counts.elements, counts.routers);
        }
        sizes.push(Sized { entry, head, elements, routers });
    }
    Ok(sizes)
}

struct Plan<'a, S> {
    store: &'a S,
    parameters: &'a Parameters,
    now: i64,
    segments: Vec<Sized>,
    has_room: bool,
}

impl<S: PageStore> Plan<'_, S> {
    fn of(&self, kind: SegmentKind) -> impl Iterator<Item = &Sized> {
        self.segments.iter().filter(move |s| s.entry.kind == kind)
    }

    fn flush(&self) -> Result<Option<Step>> {
        let lists = || self.of(SegmentKind::Pending);
        let limit = u64::from(self.parameters.pending_rows);
        let backlog: u64 = lists().map(|s| s.elements).sum();
        let is_due = |s: &Sized| !s.entry.active || s.elements >= limit && self.has_room;
        if !lists().any(is_due) {
            return Ok(None);
        }
        let large = backlog >= (BULK * limit).max(LEAST_SEGMENT);
        let target = match self.parameters.recency() {
            Recency::None => Some(SegmentKind::Ivf),
            Recency::All => large.then_some(SegmentKind::Hnsw),
            Recency::ByArrival(_) => large.then_some(SegmentKind::Ivf),
            Recency::ByAge { age, threshold } => {
                let cut = AgeCut::new(age, threshold, self.now);
                (large || self.are_mostly_old(cut)?).then_some(SegmentKind::Ivf)
            }
        };
        let work = target.map_or(Work::Trickle, Work::Rewrite);
        Ok(Some(Step { action: Action::Flush, work, inputs: Vec::new() }))
    }

    /// Shows the rows that lie inside the elements of a segment: mostly all of them.
    fn each_row(&self, s: &Sized, mut look: impl FnMut(&Keys)) -> Result<()> {
        let shapes = self.parameters.shapes();
        let shape = shapes.of(s.entry.kind);
        let segment = Segment { store: self.store, shape, id: s.entry.id, head: s.entry.head };
        segment.elements(|_, e| e.inline_rows().for_each(|row| look(&row.keys)))
    }

    /// Whether most of the rows that wait are old.
    fn are_mostly_old(&self, cut: AgeCut) -> Result<bool> {
        let (mut old, mut rows) = (0u64, 0u64);
        for list in self.of(SegmentKind::Pending) {
            self.each_row(list, |keys| {
                old += u64::from(cut.is_old(keys));
                rows += 1;
            })?;
        }
        Ok(old * 2 > rows)
    }

    /// See [`Head::typical_age`]. Read once and remembered: the rows of a sealed graph do not change, but for those that
    /// VACUUM removes.
    fn typical_age(&self, graph: &Sized, column: usize) -> Result<i64> {
        if let Some(known) = graph.head.typical_age {
            return Ok(known);
        }
        let mut values = Vec::new();
        self.each_row(graph, |keys| values.push(keys.get(column).unwrap_or(i64::MIN)))?;
        let at = (values.len() * (100 - RECENT_PERCENT)).div_ceil(100);
        let value = match values.len() {
            0 => i64::MIN,
            n => *values.select_nth_unstable(at.clamp(1, n) - 1).1,
        };
        let mut unit = self.store.unit();
        let page = unit.page(graph.entry.head)?;
        let mut head = Head::decode(page, graph.entry.head, graph.entry.id)?;
        head.typical_age = Some(value);
        head.encode(page);
        unit.commit()?;
        Ok(value)
    }

    /// A segment of which more than a third is dead.
    fn clean_up(&self) -> Option<Step> {
        let dead = self.segments.iter().find(|s| {
            let many = s.routers * 3 > s.elements || !s.entry.active && s.elements == 0;
            let kept = s.entry.kind == SegmentKind::Pending
                || s.entry.active && (s.elements < LEAST_SEGMENT || !self.has_room);
            many && !kept
        })?;
        Some(self.rewrite(Action::CleanUp, dead.entry.kind, &[dead]))
    }

    fn rewrite(&self, action: Action, kind: SegmentKind, inputs: &[&Sized]) -> Step {
        Step { action, work: Work::Rewrite(kind), inputs: inputs.iter().map(|s| s.entry.id).collect() }
    }

    /// Under a stream of inserts a flush is always due: merges come before it where many segments have piled up.
    fn overdue_merge(&self) -> Option<Step> {
        let graphs = self.of(SegmentKind::Hnsw).count() > 2 * MOST_GRAPHS;
        let partitions = self.of(SegmentKind::Ivf).count() > MANY_PARTITIONS;
        let merge = if graphs { self.merge_graphs() } else { None };
        merge.or_else(|| if partitions { self.merge_partitions(false) } else { None })
    }

    /// The smallest sealed graphs, where there are too many. Larger ones wait until as much has come together, so that a
    /// row is copied a logarithmic number of times.
    fn merge_graphs(&self) -> Option<Step> {
        let mut graphs: Vec<&Sized> = self.of(SegmentKind::Hnsw).filter(|s| !s.entry.active).collect();
        if graphs.len() <= MOST_GRAPHS {
            return None;
        }
        graphs.sort_by_key(|s| s.live());
        let mut sum = graphs[0].live() + graphs[1].live();
        let alike = graphs[2..].iter().take(MAX_INPUTS - 2).take_while(|s| {
            let fits = s.live() <= sum;
            sum += s.live();
            fits
        });
        let count = 2 + alike.count();
        Some(self.rewrite(Action::Merge, SegmentKind::Hnsw, &graphs[..count]))
    }

    /// Old graphs, the oldest first.
    fn migrate(&self) -> Result<Option<Step>> {
        let mut graphs: Vec<&Sized> = self.of(SegmentKind::Hnsw).filter(|s| s.live() > 0).collect();
        graphs.sort_by_key(|s| (s.entry.created, s.entry.id));
        let (mut inputs, mut rows) = (Vec::new(), 0u64);
        for graph in graphs {
            if inputs.len() == MAX_INPUTS || !inputs.is_empty() && rows + graph.live() > MOST_MIGRATED {
                break;
            }
            if self.is_old(graph)? {
                rows += graph.live();
                inputs.push(graph);
            }
        }
        Ok((!inputs.is_empty()).then(|| self.rewrite(Action::Migrate, SegmentKind::Ivf, &inputs)))
    }

    fn is_old(&self, graph: &Sized) -> Result<bool> {
        let open = graph.entry.active;
        if open && !self.has_room {
            return Ok(false);
        }
        match self.parameters.recency() {
            Recency::All => Ok(false),
            Recency::None => Ok(!open || graph.elements >= LEAST_SEGMENT),
            Recency::ByArrival(recent) => {
                let newer = |s: &&Sized| s.entry.active || s.entry.created > graph.entry.created;
                let rows: u64 = self.segments.iter().filter(newer).map(|s| s.live()).sum();
                Ok(!open && rows >= recent)
            }
            Recency::ByAge { age, threshold } => {
                let cut = AgeCut::new(age, threshold, self.now);
                match self.is_past(graph, cut) {
                    Some(past) => Ok(past),
                    None => Ok(self.typical_age(graph, cut.column)? < cut.value),
                }
            }
        }
    }

    /// Whether nearly all rows of a graph are old, by its head; `None`: only the rows tell.
    fn is_past(&self, graph: &Sized, cut: AgeCut) -> Option<bool> {
        let open = graph.entry.active;
        if open && !(self.has_room && self.parameters.is_full(graph.elements, graph.entry.created, self.now)) {
            return Some(false);
        }
        let Some(column) = graph.head.summary.map(|s| s.column(cut.column)) else { return Some(false) };
        if column.max < cut.value {
            return Some(true);
        }
        if open || column.min >= cut.value && !column.has_null {
            return Some(false);
        }
        graph.head.typical_age.map(|age| age < cut.value)
    }

    /// IVF segments of like size and of one interval of time; where the directory is `crowded` any that lie side by side.
    fn merge_partitions(&self, crowded: bool) -> Option<Step> {
        let mut partitions: Vec<(&Sized, i64)> =
            self.of(SegmentKind::Ivf).filter(|s| !s.entry.active).map(|s| (s, self.time_of(s))).collect();
        partitions.sort_by_key(|&(s, time)| (time, s.entry.created, s.entry.id));
        let sorted: Vec<&Sized> = partitions.into_iter().map(|p| p.0).collect();
        let inputs = if crowded { smallest_window(&sorted) } else { self.like_each_other(&sorted) }?;
        Some(self.rewrite(Action::Merge, SegmentKind::Ivf, &inputs))
    }

    /// Where a segment lies in time: the end of its rows.
    fn time_of(&self, s: &Sized) -> i64 {
        let column = self.parameters.age_key.zip(s.head.summary).map(|(age, summary)| summary.column(age.column));
        column.map_or(s.entry.created, |c| c.max)
    }

    fn like_each_other<'s>(&self, sorted: &[&'s Sized]) -> Option<Vec<&'s Sized>> {
        sorted.iter().find_map(|first| {
            let class = self.class(first);
            let mut sum = 0;
            let alike: Vec<&Sized> = sorted
                .iter()
                .copied()
                .filter(|s| self.class(s) == class)
                .take(MERGED)
                .take_while(|s| {
                    sum += s.live();
                    sum <= MOST_MERGED
                })
                .collect();
            (alike.len() == MERGED).then_some(alike)
        })
    }

    /// Segments that may be merged have this in common: the interval that their rows lie in, where it is one, and the
    /// power of four of their size.
    fn class(&self, s: &Sized) -> (Option<i64>, u32) {
        let interval = self.parameters.partition_interval;
        let bucket = self.parameters.age_key.zip(s.head.summary).and_then(|(age, summary)| {
            let column = summary.column(age.column);
            let unit = if age.in_days { MICROSECONDS_A_DAY } else { 1 };
            let of = |value: i64| value.saturating_mul(unit).div_euclid(interval.max(1));
            (interval < i64::MAX && column.min <= column.max && of(column.min) == of(column.max))
                .then(|| of(column.min))
        });
        (bucket, (s.live() / LEAST_SEGMENT).max(1).ilog(MERGED as u64))
    }
}

/// The run of segments that has the fewest rows, as long as a step may take.
fn smallest_window<'s>(sorted: &[&'s Sized]) -> Option<Vec<&'s Sized>> {
    let rows = |window: &[&Sized]| window.iter().map(|s| s.live()).sum::<u64>();
    (2..=MAX_INPUTS.min(sorted.len()))
        .rev()
        .filter_map(|n| sorted.windows(n).min_by_key(|w| rows(w)))
        .find(|w| rows(w) <= MOST_MERGED)
        .map(<[_]>::to_vec)
}
