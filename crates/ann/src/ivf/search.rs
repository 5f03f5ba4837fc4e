//! Searching IVF segments: nearest lists first, elements ranked only where their codes say that they may be near.

use super::bits::{BLOCK, Coder, Query};
use super::layout::{At, BLOCK_ROWS, Factors, Forms, Stream};
use super::lists::{Near as NearList, Ranking};
use crate::distance::Metric;
use crate::error::{Error, Result};
use crate::hnsw::near::Near;
use crate::hnsw::probe::Probe;
use crate::hnsw::read::{Ranked, Segment};
use crate::index::Head;
use crate::keys::Filter;
use crate::page::{Circle, Kind, NONE, PageStore};
use crate::shape::{Shape, Slot};
use hashbrown::HashSet;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const _: () = assert!(BLOCK == BLOCK_ROWS);

/// What ranking a centroid, reading a block of postings, and ranking an element of a list in sequence cost, in elements
/// reached by links.
const CENTROID: f64 = 0.1;
const POSTINGS: f64 = 0.5;
const IN_SEQUENCE: f64 = 0.125;
/// Fewest lists that a round reads when nobody says how many.
const LEAST_PROBES: usize = 4;
/// Postings that pass the filter for each result asked for, below which a round reads on.
const POSTINGS_PER_RESULT: usize = 8;

/// Something that was found: which of the scan's segments, and what.
pub type Found = (u32, Ranked);

/// A resumable search of the IVF segments of a scan.
pub struct Search {
    forms: Forms,
    /// None under L1, which has no codes: elements of lists are ranked one and all.
    query: Option<Query>,
    ranking: Ranking,
    /// Lists that the next round reads, from the nearest on.
    probes: usize,
    /// Found by earlier rounds.
    delivered: HashSet<(u32, Slot)>,
    cost: f64,
    share: f64,
    done: bool,
}

impl Search {
    /// A search that knows no lists yet. `probes` of them are read in the first round; 0: by their number.
    pub fn new(probe: &Probe, shape: &Shape, probes: usize) -> Self {
        let coder = (shape.metric != Metric::L1).then(|| Coder::new(shape.metric, shape.dimensions));
        let query = coder.as_ref().map(|coder| {
            let mut rotated = vec![0.0; coder.width()];
            coder.rotate(probe.values(), &mut rotated);
            coder.query(&rotated, probe.norm2() as f32)
        });
        Self {
            forms: Forms::new(shape, coder.map_or(0, |coder| coder.groups())),
            query,
            ranking: Ranking::default(),
            probes,
            delivered: HashSet::new(),
            cost: 0.0,
            share: 1.0,
            done: false,
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

    /// Whether a round returned the element.
    pub fn has_returned(&self, source: u32, slot: Slot) -> bool {
        self.delivered.contains(&(source, slot))
    }

    /// Whether the last round read all lists.
    pub fn done(&self) -> bool {
        self.done
    }

    /// The best `ef` that no earlier round returned, of twice as many lists as the round before read.
    pub fn round<'a, S: PageStore + 'a>(
        &mut self,
        segment_of: &impl Fn(u32) -> Segment<'a, S>,
        (probe, filter): (&Probe, &Filter),
        ef: usize,
    ) -> Result<Vec<Found>> {
        let all = self.ranking.len();
        if self.probes == 0 {
            self.probes = ((all as f64).sqrt() as usize).max(LEAST_PROBES);
        }
        let known = self.delivered.len();
        let mut round = Round {
            forms: &self.forms,
            segment_of,
            probe,
            filter,
            ef,
            // Each element may have two postings, so the ef-th best of those not returned is among these.
            keep: 2 * (ef + known),
            delivered: &self.delivered,
            candidates: Vec::new(),
            limits: BinaryHeap::new(),
            pruned: false,
            passing: 0,
            read: 0,
            results: Results::new(ef),
            cost: 0.0,
        };
        let mut target = self.probes.min(all);
        let found = loop {
            let enough = round.ef.saturating_add(known).saturating_mul(POSTINGS_PER_RESULT);
            let read = match &self.query {
                Some(query) => round.read_codes(query, &mut self.ranking, target, enough)?,
                None => round.read_elements(&mut self.ranking, target, enough)?,
            };
            round.rerank()?;
            if round.results.len() >= ef || !round.pruned {
                target = read;
                break round.results.into_vec();
            }
            // Elements without rows crowded out others: once more, with more room.
            round.again();
        };
        self.done = target >= all;
        self.cost += round.cost;
        self.share = round.passing.max(1) as f64 / round.read.max(1) as f64;
        self.probes = self.probes.saturating_mul(2).max(target);
        self.delivered.extend(found.iter().map(|&(source, r)| (source, r.slot)));
        Ok(found)
    }
}

/// A posting that may be near.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// What its rank is hardly ever below.
    bound: Near,
    source: u32,
}

struct Round<'r, F> {
    forms: &'r Forms,
    segment_of: &'r F,
    probe: &'r Probe,
    filter: &'r Filter,
    ef: usize,
    keep: usize,
    delivered: &'r HashSet<(u32, Slot)>,
    candidates: Vec<Candidate>,
    /// The least values that ranks are hardly ever above.
    limits: BinaryHeap<Near>,
    /// Some postings were left out, as there were `keep` better ones.
    pruned: bool,
    /// Postings that pass.
    passing: usize,
    /// All of them.
    read: usize,
    results: Results,
    cost: f64,
}

impl<'a, S: PageStore + 'a, F: Fn(u32) -> Segment<'a, S>> Round<'_, F> {
    fn again(&mut self) {
        self.keep = self.keep.saturating_mul(4);
        self.candidates.clear();
        self.limits.clear();
        self.results = Results::new(self.ef);
        (self.pruned, self.passing, self.read) = (false, 0, 0);
    }

    /// Reads the postings of `target` lists, and of more while fewer than `enough` pass. How many lists that were.
    fn read_codes(&mut self, query: &Query, ranking: &mut Ranking, target: usize, enough: usize) -> Result<usize> {
        let (mut read, mut target) = (0, target);
        loop {
            let lists = ranking.nearest(target);
            for (i, list) in lists.iter().enumerate().skip(read) {
                self.read_list(query, list, lists.get(i + 1).map(|next| next.start))?;
            }
            read = target;
            if target >= ranking.len() || self.passing >= enough {
                return Ok(read);
            }
            target = (target + target.div_ceil(4)).min(ranking.len());
        }
    }

    fn read_list(&mut self, query: &Query, list: &NearList, after: Option<At>) -> Result<()> {
        let (codes, rest) = (self.forms.code_bytes, self.forms.factor_bytes());
        let of_list = query.list(list.rank, list.norm2);
        let mut stream = Stream::new((self.segment_of)(list.source), Kind::Posting, list.start);
        let (mut sums, mut done, mut postings) = ([0; BLOCK], 0, list.postings as usize);
        let mut crossing = Vec::new();
        self.cost += f64::from(list.postings.div_ceil(BLOCK as u32)) * POSTINGS;
        while postings > 0 {
            let left = postings.div_ceil(BLOCK).saturating_mul(codes + rest) - done;
            // A guess that is wrong where the list begins far down on its first page, and costs little.
            let ahead = if left <= super::layout::STREAM_BYTES { after } else { None };
            stream.page(ahead, |mut page| {
                while !page.is_empty() && postings > 0 {
                    if done < codes {
                        let (now, later) = page.split_at(page.len().min(codes - done));
                        query.accumulate(now, done / super::layout::GROUP, &mut sums);
                        (done, page) = (done + now.len(), later);
                        continue;
                    }
                    let (now, later) = page.split_at(page.len().min(codes + rest - done));
                    (done, page) = (done + now.len(), later);
                    let whole = if now.len() == rest {
                        now
                    } else {
                        crossing.extend_from_slice(now);
                        if crossing.len() < rest {
                            continue;
                        }
                        &crossing
                    };
                    let count = postings.min(BLOCK);
                    self.offer(query, of_list, list.source, &sums, Factors::new(self.forms, whole), count);
                    crossing.clear();
                    (sums, done, postings) = ([0; BLOCK], 0, postings - count);
                }
            })?;
        }
        Ok(())
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
        if !self.filter.is_none() {
            ask = factors.several() & used;
            passing = factors.passing(self.filter) & used;
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
                self.limits.push(Near::new(most, slot));
                if self.limits.len() > self.keep {
                    self.limits.pop();
                }
            }
        }
    }

    fn limit(&self) -> f32 {
        if self.limits.len() < self.keep {
            f32::INFINITY
        } else {
            self.limits.peek().map_or(f32::INFINITY, |n| n.distance())
        }
    }

    /// Ranks candidates, the most promising first, until none can be among the best any more.
    fn rerank(&mut self) -> Result<()> {
        let mut candidates = BinaryHeap::from_iter(std::mem::take(&mut self.candidates).into_iter().map(Reverse));
        let (mut seen, mut batch) = (HashSet::new(), Vec::new());
        let (mut slots, mut places, mut ranked) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let room = self.ef.saturating_sub(self.results.len()).clamp(8, 64);
            batch.clear();
            while batch.len() < room
                && let Some(&Reverse(candidate)) = candidates.peek()
                && candidate.bound.distance() <= self.results.worst()
            {
                candidates.pop();
                let element = (candidate.source, candidate.bound.slot());
                if !self.delivered.contains(&element) && seen.insert(element) {
                    batch.push(candidate);
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            batch.sort_by_key(|candidate| candidate.source);
            for of_source in batch.chunk_by(|a, b| a.source == b.source) {
                let segment = (self.segment_of)(of_source[0].source);
                slots.clear();
                slots.extend(of_source.iter().map(|candidate| candidate.bound.slot()));
                segment.rank_filtered(self.probe, self.filter, &slots, &mut places, &mut ranked)?;
                self.cost += ranked.len() as f64;
                ranked.iter().filter(|r| r.live).for_each(|r| self.results.offer(of_source[0].source, *r));
            }
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
        let segment = (self.segment_of)(list.source);
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
            block = segment.rank_page(Some(self.probe), self.filter, block, &mut places, &mut ranked)?;
            self.cost += IN_SEQUENCE * f64::from(slots.per_page);
            self.read += within.len();
            for r in ranked.iter().filter(|r| within.contains(&slots.index(r.slot))) {
                self.passing += 1;
                if !self.delivered.contains(&(list.source, r.slot)) {
                    self.results.offer(list.source, *r);
                }
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

/// The best `ef` so far.
struct Results {
    ef: usize,
    order: BinaryHeap<(Near, usize)>,
    entries: Vec<Found>,
}

impl Results {
    fn new(ef: usize) -> Self {
        Self { ef, order: BinaryHeap::new(), entries: Vec::new() }
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    /// The rank that one must not be above to get in.
    fn worst(&self) -> f32 {
        if self.len() < self.ef {
            f32::INFINITY
        } else {
            self.order.peek().map_or(f32::INFINITY, |(n, _)| n.distance())
        }
    }

    fn offer(&mut self, source: u32, ranked: Ranked) {
        let rank = if ranked.rank.is_nan() { f32::NEG_INFINITY } else { ranked.rank };
        let near = Near::new(rank, ranked.slot);
        if self.len() < self.ef {
            self.order.push((near, self.len()));
            self.entries.push((source, ranked));
        } else if let Some(&(worst, at)) = self.order.peek()
            && near < worst
        {
            self.order.pop();
            self.order.push((near, at));
            self.entries[at] = (source, ranked);
        }
    }

    fn into_vec(self) -> Vec<Found> {
        self.entries
    }
}
