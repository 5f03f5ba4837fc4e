//! Rows of a whole index in order of certain lower bounds, as many as are asked for.
//!
//! Each segment is searched by a beam that widens with every round. Once that costs more than reading everything, or
//! where a segment is small, the scan goes flat: it reads all elements in sequence and returns the rest in exact
//! order of bounds, in passes whose memory is bounded.

use super::probe::Probe;
use super::read::{Ranked, Segment};
use super::search::{Accept, Beam, descend};
use crate::error::Result;
use crate::index::{Head, SegmentEntry, Shapes};
use crate::keys::{Filter, Row};
use crate::page::{Circle, NONE, PageStore, Place};
use crate::shape::{HeapTid, Slot};
use hashbrown::HashSet;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a scan may spend.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Width of the first round's beams; each further round is twice as wide.
    pub ef_search: usize,
    /// Bytes that graph rounds may remember, and the entries of a flat pass take.
    pub memory: usize,
    /// Rows after which the scan ends; 0 = never.
    pub max_tuples: u64,
    /// Lists of IVF segments that the first round reads; each further round reads twice as many. 0 = by their number.
    pub probes: usize,
}

/// A row and a value that its distance is not below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Where the row is in the heap. It may be dead by now: the snapshot decides.
    pub tid: HeapTid,
    /// As the SQL function returns distances: not squared, inner products negative.
    pub bound: f64,
}

/// An element with its bound, in the order of emission.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    bound: f64,
    segment: u32,
    slot: Slot,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bound.total_cmp(&other.bound).then_with(|| (self.segment, self.slot).cmp(&(other.segment, other.slot)))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A segment being scanned.
struct Source {
    entry: SegmentEntry,
    beam: Beam,
    /// Small: was read whole in the first round.
    swept: bool,
}

impl Source {
    fn segment<'a, S>(&self, store: &'a S, shapes: &'a Shapes) -> Segment<'a, S> {
        Segment { store, shape: shapes.of(self.entry.kind), id: self.entry.id, head: self.entry.head }
    }
}

enum Phase {
    /// Beams, with the next round's width.
    Graph(usize),
    Flat,
    Done,
}

/// A stream of rows.
pub struct Scan {
    probe: Option<Probe>,
    filter: Filter,
    limits: Limits,
    sources: Vec<Source>,
    phase: Phase,
    /// Found, but rows of another segment may come before them.
    pool: BinaryHeap<Reverse<Entry>>,
    /// Entries to return, the last one first.
    ready: Vec<Entry>,
    rows: Vec<Row>,
    bound: f64,
    /// Elements returned by graph rounds: flat passes leave them out.
    returned: HashSet<(u32, Slot)>,
    last: Option<Entry>,
    emitted: u64,
    /// Elements found too late to be returned in order.
    dropped: u64,
    flat_passes: u32,
}

/// Elements for each unit of beam width below which reading all of them costs no more than walking, and is exact.
const SMALL: u64 = 64;
/// Reading an element in sequence costs about this part of reaching it by a link.
const SEQUENTIAL_GAIN: u64 = 8;
/// About what graph rounds remember of each element they have ranked.
const VISITED_BYTES: u64 = 48;

impl Scan {
    /// Rows that pass `filter`. Without a probe they come in any order.
    pub fn new(probe: Option<Probe>, filter: Filter, segments: &[SegmentEntry], limits: Limits) -> Self {
        let phase = if probe.is_some() { Phase::Graph(limits.ef_search) } else { Phase::Flat };
        let source = |&entry: &SegmentEntry| Source { entry, beam: Beam::new(Accept::Live), swept: false };
        Self {
            probe,
            filter,
            limits,
            sources: segments.iter().map(source).collect(),
            phase,
            pool: BinaryHeap::new(),
            ready: Vec::new(),
            rows: Vec::new(),
            bound: f64::NEG_INFINITY,
            returned: HashSet::new(),
            last: None,
            emitted: 0,
            dropped: 0,
            flat_passes: 0,
        }
    }

    /// Elements found too late to be returned in order.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next row; bounds never fall.
    pub fn next(&mut self, store: &impl PageStore, shapes: &Shapes) -> Result<Option<Hit>> {
        loop {
            if self.limits.max_tuples > 0 && self.emitted >= self.limits.max_tuples {
                return Ok(None);
            }
            if let Some(Row { tid, .. }) = self.rows.pop() {
                self.emitted += 1;
                return Ok(Some(Hit { tid, bound: self.bound }));
            }
            if let Some(entry) = self.ready.pop() {
                // The executor asks on and on while rows are dead, without a look at interrupts of its own.
                store.check_interrupts()?;
                self.bound = entry.bound;
                self.last = Some(entry);
                let source = self.sources.iter().find(|s| s.entry.id == entry.segment);
                let segment = source.expect("entries come from the scan's segments").segment(store, shapes);
                segment.rows(entry.slot, &mut self.rows)?;
                self.rows.retain(|row| self.filter.passes(&row.keys));
                continue;
            }
            match self.phase {
                Phase::Graph(ef) => self.graph_round(store, shapes, ef)?,
                Phase::Flat => self.flat_pass(store, shapes)?,
                Phase::Done => return Ok(None),
            }
        }
    }

    /// One beam in each segment; returns what no unfinished segment can come before.
    fn graph_round(&mut self, store: &impl PageStore, shapes: &Shapes, ef: usize) -> Result<()> {
        let probe = self.probe.as_ref().expect("graph rounds have a probe");
        let mut found = Vec::new();
        let (mut elements, mut visited, mut threshold, mut all_swept) = (0u64, 0u64, f64::INFINITY, true);
        let first = self.last.is_none();
        for source in &mut self.sources {
            let segment = source.segment(store, shapes);
            let head = segment.read_head()?;
            let here = u64::from(head.element_pages) * u64::from(segment.shape.element.per_page);
            elements += here;
            let fresh = source.beam.visited() == 0;
            if source.swept {
                continue;
            }
            if fresh && here <= SMALL * ef as u64 {
                sweep(segment, &head, probe, &mut found)?;
                source.swept = true;
                continue;
            }
            all_swept = false;
            if fresh && let Some((near, _)) = descend(segment, &head, probe, 0)? {
                source.beam.enter(segment, probe, near.slot())?;
            }
            let start = found.len();
            let results = source.beam.round(segment, probe, ef)?;
            found.extend(results.iter().map(|r| entry(probe, source.entry.id, r)));
            visited += source.beam.visited() as u64;
            let exhausted = source.beam.exhausted();
            threshold = threshold.min(if exhausted { f64::INFINITY } else { reach(&mut found[start..], first) });
        }
        for entry in found {
            match self.last {
                Some(last) if entry.bound < last.bound => self.dropped += 1,
                _ => self.pool.push(Reverse(entry)),
            }
        }
        while let Some(&Reverse(entry)) = self.pool.peek().filter(|e| e.0.bound <= threshold) {
            self.pool.pop();
            self.returned.insert((entry.segment, entry.slot));
            self.ready.push(entry);
        }
        self.ready.reverse();
        let next = ef.saturating_mul(2);
        let walk_on = visited.max(next as u64) * SEQUENTIAL_GAIN < elements
            && visited.saturating_mul(VISITED_BYTES) < self.limits.memory as u64;
        self.phase = if all_swept {
            Phase::Done
        } else if walk_on && threshold.is_finite() {
            Phase::Graph(next)
        } else {
            Phase::Flat
        };
        Ok(())
    }

    /// The next entries in order of bounds, as many as memory allows, of all elements not yet returned.
    fn flat_pass(&mut self, store: &impl PageStore, shapes: &Shapes) -> Result<()> {
        self.pool.clear();
        let capacity = (self.limits.memory / size_of::<Entry>()).max(1024);
        let mut best: BinaryHeap<Entry> = BinaryHeap::new();
        let (mut places, mut out): (Vec<Place>, Vec<Ranked>) = (Vec::new(), Vec::new());
        let (mut late, mut left_out) = (0, false);
        for source in &self.sources {
            let segment = source.segment(store, shapes);
            let (mut block, mut circle) = (segment.read_head()?.first_element(), Circle::default());
            while block != NONE {
                store.check_interrupts()?;
                circle.step(block, block)?;
                block = self.rank_page(segment, block, &mut places, &mut out)?;
                for ranked in out.iter().filter(|r| r.live) {
                    let found = match &self.probe {
                        Some(probe) => entry(probe, source.entry.id, ranked),
                        None => Entry { bound: 0.0, segment: source.entry.id, slot: ranked.slot },
                    };
                    if self.last.is_some_and(|last| found.bound < last.bound) {
                        late += u64::from(!self.returned.contains(&(found.segment, found.slot)));
                        continue;
                    }
                    let seen = self.last.is_some_and(|last| found.bound == last.bound && found <= last);
                    if seen && self.flat_before() || self.returned.contains(&(found.segment, found.slot)) {
                        continue;
                    }
                    best.push(found);
                    if best.len() > capacity {
                        best.pop();
                        left_out = true;
                    }
                }
            }
        }
        self.dropped = if self.flat_before() { self.dropped } else { late };
        self.phase = if left_out { Phase::Flat } else { Phase::Done };
        self.flat_passes += 1;
        self.ready = best.into_sorted_vec();
        self.ready.reverse();
        Ok(())
    }

    /// Whether `last` came from a flat pass: then everything up to it was returned or is late.
    fn flat_before(&self) -> bool {
        self.flat_passes > 0
    }

    fn rank_page<S: PageStore>(
        &self,
        segment: Segment<S>,
        block: u32,
        places: &mut Vec<Place>,
        out: &mut Vec<Ranked>,
    ) -> Result<u32> {
        if let Some(probe) = &self.probe {
            return segment.rank_page(probe, block, places, out);
        }
        out.clear();
        segment.elements_of(block, |slot, e| {
            out.push(Ranked { slot, rank: 0.0, live: e.row_count() > 0, norm2: 0.0, residual: 0.0 });
        })
    }
}

/// The bound up to which a beam's results may be returned before the next round.
///
/// The first round returns all it found: that is what `ef_search` asks for. Later rounds keep back the further half,
/// since the next one finds rows that belong between them, which could not be returned any more.
fn reach(results: &mut [Entry], first: bool) -> f64 {
    if results.is_empty() {
        return f64::INFINITY;
    }
    let at = if first { results.len() - 1 } else { results.len() / 2 };
    results.select_nth_unstable(at).1.bound
}

fn entry(probe: &Probe, segment: u32, r: &Ranked) -> Entry {
    Entry { bound: probe.lower_bound(r.rank, r.norm2, r.residual), segment, slot: r.slot }
}

/// Reads a whole segment.
fn sweep<S: PageStore>(segment: Segment<S>, head: &Head, probe: &Probe, found: &mut Vec<Entry>) -> Result<()> {
    let (mut places, mut out) = (Vec::new(), Vec::new());
    let (mut block, mut circle) = (head.first_element(), Circle::default());
    while block != NONE {
        segment.store.check_interrupts()?;
        circle.step(block, block)?;
        block = segment.rank_page(probe, block, &mut places, &mut out)?;
        found.extend(out.iter().filter(|r| r.live).map(|r| entry(probe, segment.id, r)));
    }
    Ok(())
}
