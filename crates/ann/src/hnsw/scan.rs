//! Rows of a whole index in order of certain lower bounds, as many as are asked for.
//!
//! Pending lists are read whole, before anything else. Each graph is searched by a beam that widens with every round,
//! the lists of all IVF segments by one search that reads more of them with every round. Once that costs more than
//! reading everything, or where a segment is small, the scan goes flat: it reads all elements in sequence and returns
//! the rest in exact order of bounds, in passes whose memory is bounded.
//!
//! While a scan runs, rows move: from pending lists into a graph or an IVF segment, never the other way. Invariant: a
//! row is published where it goes before it leaves where it was. So what a scan did not see in a pending list is in a
//! segment that the directory lists *after* that, and the scan takes that directory; what it did see, it remembers with
//! its heap TID, since the row may have moved when its turn comes. It may then be met twice: each TID is returned once.

use super::probe::Probe;
use super::read::{Ranked, Segment};
use super::search::{Accept, Beam, Filtered, descend, price};
use crate::error::Result;
use crate::index::{Directory, Head, SegmentEntry, SegmentKind, Shapes};
use crate::ivf::search::{Asked, Search};
use crate::keys::Filter;
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
    /// Was read whole in the first round; the bound up to which all of its elements are known.
    swept: Option<f64>,
}

impl Source {
    fn new(entry: &SegmentEntry) -> Self {
        Self { entry: *entry, beam: Beam::new(Accept::Live), swept: None }
    }

    fn segment<'a, S>(&self, store: &'a S, shapes: &'a Shapes) -> Segment<'a, S> {
        Segment { store, shape: shapes.of(self.entry.kind), id: self.entry.id, head: self.entry.head }
    }
}

/// A row of a pending list.
struct Early {
    entry: Entry,
    tid: HeapTid,
}

impl Early {
    fn element(&self) -> (u32, Slot) {
        (self.entry.segment, self.entry.slot)
    }
}

/// Tells rows that come a second time: those that a flush moved from a list after the scan had read it.
#[derive(Default)]
struct Repeats {
    /// What was returned; once there is `listed`, only what is in both.
    seen: HashSet<HeapTid>,
    /// All rows of lists, once more were returned than it pays to remember.
    listed: Option<HashSet<HeapTid>>,
    /// The rows being returned are those of a list, as the scan remembers it.
    from_list: bool,
}

impl Repeats {
    /// Whether a row is to be returned. Invariant: each row of a list comes once as `from_list`, sooner or later.
    fn is_new(&mut self, tid: HeapTid, early: &[Early]) -> bool {
        if self.listed.is_none() && self.seen.len() >= early.len().max(MOST_SEEN) {
            let listed: HashSet<HeapTid> = early.iter().map(|early| early.tid).collect();
            self.seen.retain(|tid| listed.contains(tid));
            self.listed = Some(listed);
        }
        match &self.listed {
            None => self.seen.insert(tid),
            Some(_) if self.from_list => !self.seen.contains(&tid),
            Some(listed) => !listed.contains(&tid),
        }
    }
}

/// Rows returned from which on a scan remembers no more than the rows of lists.
const MOST_SEEN: usize = 256;

enum Phase {
    /// Pending lists, and segments that the filter excludes, are still among the sources.
    Start,
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
    /// Rows of pending lists that pass, by element.
    early: Vec<Early>,
    /// Where rows may be met twice.
    repeats: Option<Repeats>,
    /// The lists of IVF segments that are not small.
    ivf: Option<Search>,
    /// The lists have more in this round.
    streaming: bool,
    /// The bound up to which this round's beams and sweeps found everything.
    beams: f64,
    phase: Phase,
    /// Found and not yet returned.
    pool: BinaryHeap<Reverse<Entry>>,
    /// The bound up to which no entry is missing in the pool.
    reach: f64,
    /// Rows of the entry being returned.
    rows: Vec<HeapTid>,
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
/// Elements that are taken from lists at a time: what a query for a few rows needs.
const STREAMED: usize = 8;
/// About what graph rounds remember of each element they have ranked.
const VISITED_BYTES: f64 = 48.0;

impl Scan {
    /// Rows that pass `filter`. Without a probe they come in any order.
    pub fn new(probe: Option<Probe>, filter: Filter, segments: &[SegmentEntry], limits: Limits) -> Self {
        Self {
            probe,
            filter,
            limits,
            sources: segments.iter().map(Source::new).collect(),
            early: Vec::new(),
            repeats: None,
            ivf: None,
            streaming: false,
            beams: f64::INFINITY,
            phase: Phase::Start,
            pool: BinaryHeap::new(),
            reach: f64::NEG_INFINITY,
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
            if let Some(tid) = self.rows.pop() {
                if self.repeats.as_mut().is_some_and(|repeats| !repeats.is_new(tid, &self.early)) {
                    continue;
                }
                self.emitted += 1;
                return Ok(Some(Hit { tid, bound: self.bound }));
            }
            if let Some(entry) = self.pop() {
                // The executor asks on and on while rows are dead, without a look at interrupts of its own.
                store.check_interrupts()?;
                self.bound = entry.bound;
                self.last = Some(entry);
                self.take_rows(store, shapes, entry)?;
                continue;
            }
            if self.streaming {
                self.stream(store, shapes)?;
                continue;
            }
            match self.phase {
                Phase::Start => self.start(store, shapes)?,
                Phase::Graph(ef) => self.graph_round(store, shapes, ef)?,
                Phase::Flat => self.flat_pass(store, shapes)?,
                Phase::Done => return Ok(None),
            }
        }
    }

    /// The next entry that nothing can come before. The pool may be large, and few entries wanted: it is not sorted.
    fn pop(&mut self) -> Option<Entry> {
        let Reverse(entry) = *self.pool.peek().filter(|next| next.0.bound <= self.reach)?;
        self.pool.pop();
        if !self.flat_before() {
            self.returned.insert((entry.segment, entry.slot));
        }
        Some(entry)
    }

    /// Reads the rows of an element that is to be returned.
    fn take_rows(&mut self, store: &impl PageStore, shapes: &Shapes, entry: Entry) -> Result<()> {
        let element = (entry.segment, entry.slot);
        let early = self.early.partition_point(|early| early.element() < element);
        let early = self.early[early..].iter().take_while(|early| early.element() == element);
        self.rows.extend(early.map(|early| early.tid));
        if let Some(repeats) = &mut self.repeats {
            repeats.from_list = !self.rows.is_empty();
        }
        let source = self.sources.iter().find(|s| s.entry.id == entry.segment);
        if let Some(source) = source.filter(|_| self.rows.is_empty()) {
            let mut rows = Vec::new();
            source.segment(store, shapes).rows(entry.slot, &mut rows)?;
            // Rows of one element have keys of their own.
            self.rows.extend(rows.iter().filter(|row| self.filter.passes(&row.keys)).map(|row| row.tid));
        }
        Ok(())
    }

    /// Reads the pending lists, and leaves them out; after that the sources are those of a directory read later.
    fn sweep_pending(&mut self, store: &impl PageStore, shapes: &Shapes) -> Result<()> {
        let mut swept = HashSet::new();
        loop {
            let is_pending = |source: &&Source| source.entry.kind == SegmentKind::Pending;
            let pending = self.sources.iter().filter(is_pending).find(|source| swept.insert(source.entry.id));
            let Some(source) = pending else { break };
            let segment = source.segment(store, shapes);
            sweep_early(segment, self.probe.as_ref(), &self.filter, &mut self.early)?;
            if !self.sources.iter().filter(is_pending).any(|source| !swept.contains(&source.entry.id)) {
                self.sources = Directory::read(store)?.1.segments.iter().map(Source::new).collect();
            }
        }
        if !swept.is_empty() {
            self.sources.retain(|source| source.entry.kind != SegmentKind::Pending);
            self.repeats = Some(Repeats::default());
            self.early.sort_unstable_by_key(Early::element);
            if self.probe.is_some() {
                let elements = self.early.chunk_by(|a, b| a.element() == b.element());
                self.pool.extend(elements.map(|rows| Reverse(rows[0].entry)));
            }
        }
        Ok(())
    }

    /// Reads pending lists, and leaves out the segments that the filter excludes.
    fn start(&mut self, store: &impl PageStore, shapes: &Shapes) -> Result<()> {
        self.phase = if self.probe.is_some() { Phase::Graph(self.limits.ef_search) } else { Phase::Flat };
        if self.filter.is_impossible() {
            self.phase = Phase::Done;
            return Ok(());
        }
        self.sweep_pending(store, shapes)?;
        if self.filter.is_none() {
            return Ok(());
        }
        let mut sources = Vec::with_capacity(self.sources.len());
        for source in self.sources.drain(..) {
            // A row that the snapshot sees was published before, and the summary widened before that.
            let summary = source.segment(store, shapes).read_head()?.summary;
            if summary.is_none_or(|summary| self.filter.may_pass(&summary)) {
                sources.push(source);
            }
        }
        self.sources = sources;
        Ok(())
    }

    /// Entries that a flat pass or a sweep keeps.
    fn capacity(&self) -> usize {
        (self.limits.memory / size_of::<Entry>()).max(1024)
    }

    /// One beam in each graph, and one round in the lists of all IVF segments; returns what no unfinished segment can come
    /// before.
    fn graph_round(&mut self, store: &impl PageStore, shapes: &Shapes, ef: usize) -> Result<()> {
        let capacity = self.capacity();
        let probe = self.probe.as_ref().expect("graph rounds have a probe");
        let mut round = Round {
            probe,
            filter: &self.filter,
            capacity,
            ef,
            first: ef == self.limits.ef_search,
            nothing_returned: self.last.is_none(),
            found: Vec::new(),
            flat: 0.0,
            visited: 0.0,
            threshold: f64::INFINITY,
            all_swept: true,
            gave_up: false,
        };
        let (mut search, mut lists_left) = (self.ivf.take(), false);
        for (i, source) in self.sources.iter_mut().enumerate() {
            let segment = source.segment(store, shapes);
            let head = segment.read_head()?;
            let here = u64::from(head.element_pages) * u64::from(segment.shape.element.per_page);
            match (source.swept, source.entry.kind) {
                (Some(reach), _) => round.was_swept(here, reach),
                (None, SegmentKind::Ivf) => {
                    let search = Lists { of_scan: &mut search, number: i as u32, probes: self.limits.probes };
                    round.lists(source, segment, &head, here, search)?;
                }
                (None, _) => round.graph(source, segment, &head, here)?,
            }
        }
        let Round { found, flat, mut visited, threshold, all_swept, gave_up, nothing_returned: first, .. } = round;
        if let Some(search) = search.as_mut().filter(|search| !search.done() && !gave_up) {
            let sources = &self.sources;
            let segment_of = |i: u32| sources[i as usize].segment(store, shapes);
            // As of a beam, the first round returns all it found, and later ones keep the further half back.
            let count = if first { ef } else { ef.div_ceil(2) };
            search.start_round(&Asked { segment_of, probe, filter: &self.filter }, ef, count)?;
            visited += search.cost();
            lists_left = true;
        }
        self.ivf = search;
        for entry in found {
            match self.last {
                Some(last) if entry.bound < last.bound => self.dropped += 1,
                _ => self.pool.push(Reverse(entry)),
            }
        }
        (self.beams, self.streaming) = (threshold, lists_left);
        self.reach = if lists_left { f64::NEG_INFINITY } else { threshold };
        let next = ef.saturating_mul(2);
        let walk_on = visited.max(next as f64) < flat && visited * VISITED_BYTES < self.limits.memory as f64;
        let cut = self.sources.iter().any(|source| source.swept.is_some_and(f64::is_finite));
        self.phase = if all_swept && !gave_up && !cut {
            Phase::Done
        } else if walk_on && (threshold.is_finite() || lists_left) && !cut {
            Phase::Graph(next)
        } else {
            Phase::Flat
        };
        Ok(())
    }

    /// Takes what the lists of IVF segments have next.
    fn stream(&mut self, store: &impl PageStore, shapes: &Shapes) -> Result<()> {
        let (Some(probe), Some(search)) = (&self.probe, &mut self.ivf) else { return Ok(()) };
        let sources = &self.sources;
        let segment_of = |i: u32| sources[i as usize].segment(store, shapes);
        let mut found = Vec::new();
        self.streaming = search.more(&Asked { segment_of, probe, filter: &self.filter }, STREAMED, &mut found)?;
        let last = found.last().map_or(f64::NEG_INFINITY, |found| found.bound);
        for found in found {
            let entry =
                Entry { bound: found.bound, segment: sources[found.source as usize].entry.id, slot: found.slot };
            match self.last {
                Some(last) if entry.bound < last.bound => self.dropped += 1,
                _ => self.pool.push(Reverse(entry)),
            }
        }
        let all = !self.streaming && search.exhausted();
        // What comes next waits for the beams' next round anyway.
        self.streaming &= last < self.beams;
        self.reach = if all { self.beams } else { self.beams.min(last) };
        Ok(())
    }

    /// The next entries in order of bounds, as many as memory allows, of all elements not yet returned.
    fn flat_pass(&mut self, store: &impl PageStore, shapes: &Shapes) -> Result<()> {
        self.pool.clear();
        let capacity = self.capacity();
        let mut best: BinaryHeap<Entry> = BinaryHeap::new();
        let (mut places, mut out): (Vec<Place>, Vec<Ranked>) = (Vec::new(), Vec::new());
        let (mut late, mut left_out) = (0, false);
        let flat_before = self.flat_before();
        let mut offer = |found: Entry| {
            let returned = || self.returned.contains(&(found.segment, found.slot));
            if self.last.is_some_and(|last| found.bound < last.bound) {
                late += u64::from(!returned());
                return;
            }
            let seen = self.last.is_some_and(|last| found.bound == last.bound && found <= last);
            if seen && flat_before || returned() {
                return;
            }
            best.push(found);
            if best.len() > capacity {
                best.pop();
                left_out = true;
            }
        };
        self.early.chunk_by(|a, b| a.element() == b.element()).for_each(|rows| offer(rows[0].entry));
        for source in &self.sources {
            let segment = source.segment(store, shapes);
            let (mut block, mut circle) = (segment.read_head()?.first_element(), Circle::default());
            while block != NONE {
                store.check_interrupts()?;
                circle.step(block, block)?;
                block = segment.rank_page(self.probe.as_ref(), &self.filter, block, &mut places, &mut out)?;
                for ranked in out.iter().filter(|r| r.live) {
                    offer(entry_of(self.probe.as_ref(), source.entry.id, ranked));
                }
            }
        }
        self.dropped = if self.flat_before() { self.dropped } else { late };
        self.phase = if left_out { Phase::Flat } else { Phase::Done };
        self.flat_passes += 1;
        self.pool = best.into_vec().into_iter().map(Reverse).collect();
        self.reach = f64::INFINITY;
        Ok(())
    }

    /// Whether `last` came from a flat pass: then everything up to it was returned or is late.
    fn flat_before(&self) -> bool {
        self.flat_passes > 0
    }
}

/// One round of beams and sweeps over the segments of a scan.
struct Round<'s> {
    probe: &'s Probe,
    filter: &'s Filter,
    /// Entries that a sweep keeps.
    capacity: usize,
    /// Width of the beams.
    ef: usize,
    /// The first round of the scan.
    first: bool,
    nothing_returned: bool,
    found: Vec<Entry>,
    /// What reading everything would cost, and what was spent, in elements reached by links.
    flat: f64,
    visited: f64,
    /// The bound up to which graphs and sweeps found everything.
    threshold: f64,
    all_swept: bool,
    /// A graph's beam says that reading everything is cheaper.
    gave_up: bool,
}

/// The search of all IVF segments, and which of the scan's segments is meant.
struct Lists<'s> {
    of_scan: &'s mut Option<Search>,
    number: u32,
    probes: usize,
}

impl Round<'_> {
    /// What reading `elements` in sequence costs, where `share` of them pass.
    fn price(&self, elements: u64, share: f64) -> f64 {
        if self.filter.is_none() { price::flat_all(elements) } else { price::flat(elements, share) }
    }

    fn was_swept(&mut self, elements: u64, reach: f64) {
        self.flat += self.price(elements, 0.0);
        self.threshold = self.threshold.min(reach);
    }

    /// Reads a segment whole, but for elements to skip.
    fn sweep<S: PageStore>(
        &mut self,
        source: &mut Source,
        segment: Segment<S>,
        head: &Head,
        skip: impl Fn(Slot) -> bool,
    ) -> Result<()> {
        let reach = sweep(segment, head, (self.probe, self.filter), self.capacity, skip, &mut self.found)?;
        self.threshold = self.threshold.min(reach);
        source.swept = Some(reach);
        Ok(())
    }

    /// An IVF segment: reads it whole if it is small, or if all its lists were read; otherwise the search has its lists.
    fn lists<S: PageStore>(
        &mut self,
        source: &mut Source,
        segment: Segment<S>,
        head: &Head,
        elements: u64,
        lists: Lists,
    ) -> Result<()> {
        let search = lists.of_scan.as_ref();
        if search.is_some_and(|search| search.done()) || self.first && elements <= SMALL * self.ef as u64 {
            // What codes could not tell is found by reading all elements, once all lists were read.
            let skip = |slot| search.is_some_and(|search| search.has_returned(lists.number, slot));
            return self.sweep(source, segment, head, skip);
        }
        self.all_swept = false;
        let search = lists.of_scan.get_or_insert_with(|| Search::new(self.probe, segment.shape, lists.probes));
        if self.first {
            search.add(lists.number, segment, head, (self.probe, self.filter))?;
        }
        self.flat += self.price(elements, search.share());
        Ok(())
    }

    /// A graph: a beam, or all of it where that costs no more.
    fn graph<S: PageStore>(
        &mut self,
        source: &mut Source,
        segment: Segment<S>,
        head: &Head,
        elements: u64,
    ) -> Result<()> {
        let fresh = source.beam.visited() == 0;
        let mut results = None;
        if !fresh || elements > SMALL * self.ef as u64 {
            if fresh && let Some((near, _)) = descend(segment, head, self.probe, 0)? {
                source.beam.enter_filtered(segment, self.probe, self.filter, near.slot())?;
            }
            let filtered = Filtered { filter: self.filter, elements };
            results = source.beam.round_filtered(segment, self.probe, filtered, self.ef)?;
        }
        let Some(results) = results else {
            if fresh {
                return self.sweep(source, segment, head, |_| false);
            }
            // What was returned of this segment, a flat pass knows to leave out.
            self.gave_up = true;
            self.threshold = f64::NEG_INFINITY;
            return Ok(());
        };
        self.all_swept = false;
        let start = self.found.len();
        self.found.extend(results.iter().map(|r| entry(self.probe, source.entry.id, r)));
        self.visited += source.beam.visited() as f64;
        self.flat += self.price(elements, source.beam.share());
        let exhausted = source.beam.exhausted();
        let reach = if exhausted { f64::INFINITY } else { reach(&mut self.found[start..], self.nothing_returned) };
        self.threshold = self.threshold.min(reach);
        Ok(())
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

/// Without a probe all bounds are 0.
fn entry_of(probe: Option<&Probe>, segment: u32, r: &Ranked) -> Entry {
    probe.map_or(Entry { bound: 0.0, segment, slot: r.slot }, |probe| entry(probe, segment, r))
}

fn entry(probe: &Probe, segment: u32, r: &Ranked) -> Entry {
    Entry { bound: probe.lower_bound(r.rank, r.norm2, r.residual), segment, slot: r.slot }
}

/// Reads a whole segment, and adds its first `capacity` entries, but for those to skip. Returns the bound up to which these
/// are all.
fn sweep<S: PageStore>(
    segment: Segment<S>,
    head: &Head,
    (probe, filter): (&Probe, &Filter),
    capacity: usize,
    skip: impl Fn(Slot) -> bool,
    found: &mut Vec<Entry>,
) -> Result<f64> {
    let (mut places, mut out) = (Vec::new(), Vec::new());
    let (mut block, mut circle) = (head.first_element(), Circle::default());
    let (mut best, mut left_out): (BinaryHeap<Entry>, bool) = (BinaryHeap::new(), false);
    while block != NONE {
        segment.store.check_interrupts()?;
        circle.step(block, block)?;
        block = segment.rank_page(Some(probe), filter, block, &mut places, &mut out)?;
        for ranked in out.iter().filter(|r| r.live && !skip(r.slot)) {
            let fresh = entry(probe, segment.id, ranked);
            if best.len() < capacity {
                best.push(fresh);
                continue;
            }
            left_out = true;
            if let Some(mut worst) = best.peek_mut().filter(|worst| fresh < **worst) {
                *worst = fresh;
            }
        }
    }
    let reach = if left_out { best.peek().map_or(f64::NEG_INFINITY, |worst| worst.bound) } else { f64::INFINITY };
    found.extend(best);
    Ok(reach)
}

/// Reads a whole pending list: all rows that pass.
fn sweep_early<S: PageStore>(
    segment: Segment<S>,
    probe: Option<&Probe>,
    filter: &Filter,
    early: &mut Vec<Early>,
) -> Result<()> {
    let (mut places, mut out, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let (mut block, mut circle) = (segment.read_head()?.first_element(), Circle::default());
    while block != NONE {
        segment.store.check_interrupts()?;
        circle.step(block, block)?;
        // Rows first: those that leave before their element is ranked are known without it.
        let (mut here, mut chained) = (Vec::new(), Vec::new());
        let next = segment.elements_of(block, |slot, e| {
            if e.overflow() != NONE {
                chained.push(slot);
            } else if e.passes(filter) {
                here.extend(e.inline_rows().map(|row| (slot, row)));
            }
        })?;
        for slot in chained {
            segment.rows(slot, &mut rows)?;
            here.extend(rows.drain(..).map(|row| (slot, row)));
        }
        here.retain(|(_, row)| filter.passes(&row.keys));
        let slots: Vec<Slot> = here.iter().map(|&(slot, _)| slot).collect();
        match probe {
            Some(probe) => segment.rank(probe, &slots, &mut places, &mut out)?,
            None => {
                out = slots
                    .iter()
                    .map(|&slot| Ranked { slot, rank: 0.0, live: true, norm2: 0.0, residual: 0.0 })
                    .collect()
            }
        }
        let entries = out.iter().zip(&here).map(|(r, (_, row))| (entry_of(probe, segment.id, r), row.tid));
        early.extend(entries.map(|(entry, tid)| Early { entry, tid }));
        block = next;
    }
    Ok(())
}
