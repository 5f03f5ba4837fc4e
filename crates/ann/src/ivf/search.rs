//! Searching IVF segments: nearest lists first, elements ranked only where their codes say that they may be near.

use super::bits::{BLOCK, Coder, Query};
use super::layout::{At, BLOCK_ROWS, Factors, Forms};
use super::lists::{Near as NearList, Piece, Ranking, each_piece};
use crate::distance::Metric;
use crate::error::{Error, Result};
use crate::hnsw::near::Near;
use crate::hnsw::probe::Probe;
use crate::hnsw::read::{Ranked, Segment};
use crate::index::Head;
use crate::keys::Filter;
use crate::page::{Circle, NONE, PageStore};
use crate::shape::{Shape, Slot};
use hashbrown::HashSet;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};

const _: () = assert!(BLOCK == BLOCK_ROWS);

/// What ranking a centroid, reading a block of postings, and ranking an element of a list in sequence cost, in elements
/// reached by links.
const CENTROID: f64 = 0.1;
const POSTINGS: f64 = 0.5;
const IN_SEQUENCE: f64 = 0.125;
/// Lists that the first round reads when nobody says how many: this, times the sum of the square roots of the segments'
/// numbers of lists. The nearest rows are spread over all segments, so each one adds its share.
const PROBES_BY_ROOT: f64 = 1.2;
/// Candidates that are ranked together.
const BATCH: usize = 8;
/// Postings that pass the filter for each result asked for, below which a round reads on.
const POSTINGS_PER_RESULT: usize = 8;
/// The nearest rows that pass a filter lie in more lists than the nearest of all: a round reads on until as many postings
/// pass as its lists have without a filter, but no more than so many times the lists.
const MORE_LISTS: usize = 16;

/// An element that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// As [`Probe::lower_bound`] gives it.
    pub bound: f64,
    /// Which of the scan's segments has it.
    pub source: u32,
    /// Which element it is.
    pub slot: Slot,
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bound.total_cmp(&other.bound).then_with(|| (self.source, self.slot).cmp(&(other.source, other.slot)))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Nearest first.
type Queue<T> = BinaryHeap<Reverse<T>>;

/// A search of the IVF segments of a scan, in rounds: each reads twice as many lists as the one before, from the nearest
/// on, and hands out what no round before did, in order of bounds.
pub struct Search {
    forms: Forms,
    /// None under L1, which has no codes: elements of lists are ranked one and all.
    query: Option<Query>,
    ranking: Ranking,
    /// Lists that the next round reads; 0 before the first: by the roots.
    probes: usize,
    /// The sum over the segments of the square root of the number of lists.
    roots: f64,
    /// Handed out.
    returned: HashSet<(u32, Slot)>,
    cost: f64,
    share: f64,
    done: bool,
    /// What this round's postings leave to be ranked.
    candidates: Queue<Candidate>,
    /// Elements ranked in this round.
    known: HashSet<(u32, Slot)>,
    /// Of those, the ones that may be handed out.
    ranked: Queue<Found>,
    /// How many more this round hands out.
    left: usize,
    /// Candidates that a round keeps at least.
    keep: usize,
    /// What the distances of postings are hardly ever below that were left out, as there were `keep` better ones.
    left_out: Option<f64>,
    lists_read: usize,
}

/// The segments of a scan by number, the query, and what rows pass.
pub struct Asked<'q, F> {
    /// The segment with this number.
    pub segment_of: F,
    /// The query.
    pub probe: &'q Probe,
    /// What rows must pass.
    pub filter: &'q Filter,
}

impl Search {
    /// A search that knows no lists yet. `probes` of them are read in the first round; 0: by their number.
    pub fn new(probe: &Probe, shape: &Shape, probes: usize) -> Self {
        let coder = (shape.metric != Metric::L1).then(|| coder(shape.metric, shape.dimensions));
        let query = coder.as_ref().map(|coder| {
            let mut rotated = vec![0.0; coder.width()];
            coder.rotate(probe.values(), &mut rotated);
            coder.query(&rotated, probe.norm2() as f32)
        });
        Self {
            forms: Forms::new(shape, coder.as_ref().map_or(0, |coder| coder.groups())),
            query,
            ranking: Ranking::default(),
            probes,
            roots: 0.0,
            returned: HashSet::new(),
            cost: 0.0,
            share: 1.0,
            done: false,
            candidates: Queue::new(),
            known: HashSet::new(),
            ranked: Queue::new(),
            left: 0,
            keep: 0,
            left_out: None,
            lists_read: 0,
        }
    }

    /// Adds the lists of a segment; before the first round.
    pub fn add<S: PageStore>(
        &mut self,
        source: u32,
        segment: Segment<S>,
        head: &Head,
        query: (&Probe, &Filter),
    ) -> Result<()> {
        self.cost += f64::from(head.lists) * CENTROID;
        self.roots += f64::from(head.lists).sqrt();
        self.ranking.add(source, segment, head, &self.forms, query)
    }

    /// What was read so far, in elements reached by links.
    pub fn cost(&self) -> f64 {
        self.cost
    }

    /// The share of what was read that passed the filter.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Whether a round handed out the element.
    pub fn has_returned(&self, source: u32, slot: Slot) -> bool {
        self.returned.contains(&(source, slot))
    }

    /// Whether the round ended because nothing was left.
    pub fn exhausted(&self) -> bool {
        self.ranked.is_empty() && self.candidates.is_empty()
    }

    /// Whether this round reads all lists.
    pub fn done(&self) -> bool {
        self.done
    }

    /// Starts a round that looks for the best `ef`, and will hand out the first `count` of them: reads lists.
    pub fn start_round<'a, S: PageStore + 'a>(
        &mut self,
        asked: &Asked<impl Fn(u32) -> Segment<'a, S>>,
        ef: usize,
        count: usize,
    ) -> Result<()> {
        let all = self.ranking.len();
        if self.probes == 0 {
            self.probes = (self.roots * PROBES_BY_ROOT).ceil() as usize;
        }
        // Each element may have two postings, so the ef-th best of those not returned is among these.
        self.keep = 2 * (ef + self.returned.len());
        self.left = count;
        self.lists_read = self.probes.min(all);
        self.read(asked)?;
        self.done = self.lists_read >= all;
        self.probes = self.probes.saturating_mul(2).max(self.lists_read);
        Ok(())
    }

    /// Reads the lists of this round, or a few more where hardly a row passes.
    fn read<'a, S: PageStore + 'a>(&mut self, asked: &Asked<impl Fn(u32) -> Segment<'a, S>>) -> Result<()> {
        let enough = (self.keep / 2).saturating_mul(POSTINGS_PER_RESULT);
        let mut round = Reading {
            forms: &self.forms,
            asked,
            keep: self.keep,
            candidates: Vec::new(),
            limits: BinaryHeap::new(),
            pruned: false,
            read: 0,
            passing: 0,
            found: Vec::new(),
            cost: 0.0,
        };
        self.lists_read = match &self.query {
            Some(query) => round.read_codes(query, &mut self.ranking, self.lists_read, enough)?,
            None => round.read_elements(&mut self.ranking, self.lists_read, enough)?,
        };
        let (limit, before) = (round.limit(), round.candidates.len());
        round.candidates.retain(|candidate| candidate.bound.distance() <= limit);
        round.pruned |= round.candidates.len() < before;
        self.cost += round.cost;
        self.share = round.passing.max(1) as f64 / round.read.max(1) as f64;
        self.left_out = round.pruned.then(|| asked.probe.distance(limit));
        let Reading { candidates, mut found, .. } = round;
        found.retain(|found| !self.returned.contains(&(found.source, found.slot)));
        self.candidates = candidates.into_iter().map(Reverse).collect::<Vec<_>>().into();
        self.ranked = found.into_iter().map(Reverse).collect::<Vec<_>>().into();
        self.known.clear();
        Ok(())
    }

    /// Hands out the next elements in order of bounds, up to `most`, into `out`. Whether the round has more.
    pub fn more<'a, S: PageStore + 'a>(
        &mut self,
        asked: &Asked<impl Fn(u32) -> Segment<'a, S>>,
        most: usize,
        out: &mut Vec<Found>,
    ) -> Result<bool> {
        let end = out.len() + most.min(self.left);
        while out.len() < end {
            let bound = self.ranked.peek().map_or(f64::INFINITY, |Reverse(found)| found.bound);
            let next = self.candidates.peek().map(|c| asked.probe.distance(c.0.bound.distance()));
            if next.is_some_and(|next| next < bound || self.ranked.is_empty()) {
                self.rank_some(asked)?;
            } else if self.left_out.is_some_and(|next| next < bound || self.ranked.is_empty()) {
                // Elements without rows crowded out others: once more, with more room.
                self.keep = self.keep.saturating_mul(4);
                self.read(asked)?;
            } else if let Some(Reverse(found)) = self.ranked.pop() {
                self.returned.insert((found.source, found.slot));
                self.left -= 1;
                out.push(found);
            } else {
                self.left = 0;
                return Ok(false);
            }
        }
        Ok(self.left > 0)
    }

    /// Ranks some candidates, the most promising first.
    fn rank_some<'a, S: PageStore + 'a>(&mut self, asked: &Asked<impl Fn(u32) -> Segment<'a, S>>) -> Result<()> {
        let mut batch: Vec<(u32, Slot)> = Vec::with_capacity(BATCH);
        while batch.len() < BATCH
            && let Some(Reverse(candidate)) = self.candidates.pop()
        {
            let element = (candidate.source, candidate.bound.slot());
            if !self.returned.contains(&element) && self.known.insert(element) {
                batch.push(element);
            }
        }
        batch.sort_unstable();
        let (mut slots, mut places, mut ranked) = (Vec::new(), Vec::new(), Vec::new());
        for of_source in batch.chunk_by(|a, b| a.0 == b.0) {
            let source = of_source[0].0;
            slots.clear();
            slots.extend(of_source.iter().map(|element| element.1));
            let segment = (asked.segment_of)(source);
            segment.rank_filtered(asked.probe, asked.filter, &slots, &mut places, &mut ranked)?;
            self.cost += ranked.len() as f64;
            let live = ranked.iter().filter(|r| r.live);
            self.ranked.extend(live.map(|r| Reverse(found(asked.probe, source, r))));
        }
        Ok(())
    }
}

/// A coder of the process: making one takes longer than rotating a query, and queries of one index follow each other.
fn coder(metric: Metric, dimensions: usize) -> Arc<Coder> {
    static LAST: Mutex<Option<(Metric, usize, Arc<Coder>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match &*last {
        Some((m, d, coder)) if (*m, *d) == (metric, dimensions) => coder.clone(),
        _ => {
            let coder = Arc::new(Coder::new(metric, dimensions));
            *last = Some((metric, dimensions, coder.clone()));
            coder
        }
    }
}

fn found(probe: &Probe, source: u32, r: &Ranked) -> Found {
    Found { bound: probe.lower_bound(r.rank, r.norm2, r.residual), source, slot: r.slot }
}

/// A posting that may be near.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// What its rank is hardly ever below.
    bound: Near,
    source: u32,
}

/// Lists being read.
struct Reading<'r, 'q, F> {
    forms: &'r Forms,
    asked: &'r Asked<'q, F>,
    keep: usize,
    candidates: Vec<Candidate>,
    /// The least values that ranks are hardly ever above.
    limits: BinaryHeap<Near>,
    /// Some postings were left out, as there were `keep` better ones.
    pruned: bool,
    /// Postings read.
    read: usize,
    /// Those of them that pass.
    passing: usize,
    /// Under L1.
    found: Vec<Found>,
    cost: f64,
}

impl<'a, S: PageStore + 'a, F: Fn(u32) -> Segment<'a, S>> Reading<'_, '_, F> {
    /// Reads the postings of `target` lists, and of more while fewer than `enough` pass. How many lists that were.
    fn read_codes(&mut self, query: &Query, ranking: &mut Ranking, target: usize, enough: usize) -> Result<usize> {
        let (mut read, mut target, most) = (0, target, target.saturating_mul(MORE_LISTS));
        let mut asked_for = None;
        loop {
            let lists = ranking.nearest(target);
            for (i, list) in lists.iter().enumerate().skip(read) {
                self.read_list(query, list, lists.get(i + 1).map(|next| next.start))?;
            }
            read = target;
            let asked_for = *asked_for.get_or_insert(self.read);
            let like_unfiltered = self.passing >= asked_for || target >= most;
            if target >= ranking.len() || self.passing >= enough && like_unfiltered {
                return Ok(read);
            }
            target = (target + target.div_ceil(4)).min(ranking.len());
        }
    }

    fn read_list(&mut self, query: &Query, list: &NearList, after: Option<At>) -> Result<()> {
        let of_list = query.list(list.rank, list.norm2);
        let (segment, mut sums) = ((self.asked.segment_of)(list.source), [0; BLOCK]);
        self.cost += f64::from(list.postings.div_ceil(BLOCK as u32)) * POSTINGS;
        each_piece(segment, self.forms, (list.start, list.postings), after, |piece| match piece {
            Piece::Codes(codes, first_group) => query.accumulate(codes, first_group, &mut sums),
            Piece::Factors(factors, count) => {
                self.offer(query, of_list, list.source, &sums, factors, count);
                sums = [0; BLOCK];
            }
        })
    }

    /// Takes the postings of a block that may be among the best.
    #[inline]
    fn offer(
        &mut self,
        query: &Query,
        list: super::bits::List,
        source: u32,
        sums: &[u32; BLOCK],
        factors: Factors,
        count: usize,
    ) {
        let used = u32::MAX >> (BLOCK - count);
        let (mut passing, mut ask) = (used, 0);
        if !self.asked.filter.is_none() {
            ask = factors.several() & used;
            passing = factors.passing(self.asked.filter) & used;
            ask &= !passing;
        }
        self.read += count;
        self.passing += passing.count_ones() as usize;
        if passing | ask == 0 {
            return;
        }
        let (mut estimates, mut bounds) = ([0.0; BLOCK], [0.0; BLOCK]);
        let (bases, scales, errors) = (factors.bases(), factors.scales(), factors.errors());
        query.estimate(sums, &bases, &scales, &errors, list, &mut estimates, &mut bounds);
        let limit = self.limit();
        let mut near = 0u32;
        for (i, &bound) in bounds.iter().enumerate() {
            // Not a number, which damage may make, is near.
            near |= u32::from(bound <= limit || bound.is_nan()) << i;
        }
        self.pruned |= (passing | ask) & !near != 0;
        let mut wanted = (passing | ask) & near;
        while wanted != 0 {
            let i = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            let (slot, bound) = (factors.slot(i), bounds[i]);
            let bound = if bound.is_nan() { f32::NEG_INFINITY } else { bound };
            self.candidates.push(Candidate { bound: Near::new(bound, slot), source });
            let most = 2.0 * estimates[i] - bound;
            // Only the element can tell whether one of several rows passes.
            if ask >> i & 1 == 0 && most < f32::INFINITY {
                self.lower_limit(Near::new(most, slot));
            }
        }
    }

    fn lower_limit(&mut self, most: Near) {
        if self.limits.len() < self.keep {
            self.limits.push(most);
        } else if let Some(mut largest) = self.limits.peek_mut()
            && most < *largest
        {
            *largest = most;
        }
    }

    fn limit(&self) -> f32 {
        if self.limits.len() < self.keep {
            f32::INFINITY
        } else {
            self.limits.peek().map_or(f32::INFINITY, |n| n.distance())
        }
    }

    /// Ranks all elements of `target` lists, and of more while fewer than `enough` pass. How many lists that were.
    fn read_elements(&mut self, ranking: &mut Ranking, target: usize, enough: usize) -> Result<usize> {
        let mut read = 0;
        while read < ranking.len() && (read < target || self.passing < enough) {
            let list = ranking.nearest(read + 1)[read];
            self.rank_list(&list)?;
            read += 1;
        }
        Ok(read)
    }

    fn rank_list(&mut self, list: &NearList) -> Result<()> {
        let segment = (self.asked.segment_of)(list.source);
        let (mut places, mut ranked, mut circle) = (Vec::new(), Vec::new(), Circle::default());
        let slots = segment.shape.element;
        let mut block = if list.elements > 0 { slots.block(list.first) } else { NONE };
        for within in Spans::new(segment.shape, list.first, list.elements) {
            segment.store.check_interrupts()?;
            if block == NONE {
                let what = "is the head of a segment whose chain of elements ends too early";
                return Err(Error::corrupt(segment.head, what));
            }
            circle.step(block, block)?;
            block = segment.rank_page(Some(self.asked.probe), self.asked.filter, block, &mut places, &mut ranked)?;
            self.cost += IN_SEQUENCE * f64::from(slots.per_page);
            self.read += within.len();
            for r in ranked.iter().filter(|r| within.contains(&slots.index(r.slot))) {
                self.passing += 1;
                self.found.push(found(self.asked.probe, list.source, r));
            }
        }
        Ok(())
    }
}

/// Indexes of a list's elements on the pages that hold them, page after page.
pub(super) struct Spans {
    per_page: u32,
    start: u32,
    left: u32,
}

impl Spans {
    pub(super) fn new(shape: &Shape, first: Slot, elements: u32) -> Self {
        Self { per_page: shape.element.per_page, start: shape.element.index(first), left: elements }
    }
}

impl Iterator for Spans {
    type Item = std::ops::Range<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        let here = self.left.min(self.per_page - self.start);
        let span = self.start..self.start + here;
        (self.start, self.left) = (0, self.left - here);
        (here > 0).then_some(span)
    }
}
