//! Searching one segment: greedy through the upper levels, then a resumable beam through level 0.

use super::near::{Frontier, Near, Visited};
use super::probe::Probe;
use super::read::{Ranked, Segment};
use crate::error::Result;
use crate::index::Head;
use crate::keys::Filter;
use crate::page::{NONE, PageStore, Place};
use crate::shape::{Slot, UpperNeighbor};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Walks down to level `target`, always to the nearest neighbor. Returns the element reached with its record at that
/// level ([`NONE`] at level 0), or `None` in an empty segment.
pub fn descend<S: PageStore>(
    segment: Segment<S>,
    head: &Head,
    probe: &Probe,
    target: u8,
) -> Result<Option<(Near, Slot)>> {
    if head.entry == NONE {
        return Ok(None);
    }
    let (mut places, mut ranked) = (Vec::new(), Vec::new());
    segment.rank(probe, &[head.entry], &mut places, &mut ranked)?;
    let mut best = Near::new(ranked[0].rank, head.entry);
    let mut record = if head.entry_level > 0 { segment.record_at(head.entry, head.entry_level)? } else { NONE };
    let mut level = head.entry_level;
    while level > target {
        best = greedy(segment, probe, best, record)?;
        level -= 1;
        record = if level == 0 { NONE } else { segment.record_at(best.slot(), level)? };
    }
    Ok(Some((best, record)))
}

/// The nearest element that steps to nearer neighbors reach on one upper level.
fn greedy<S: PageStore>(segment: Segment<S>, probe: &Probe, start: Near, start_record: Slot) -> Result<Near> {
    let (mut best, mut record) = (start, start_record);
    let (mut slots, mut places, mut ranked) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        segment.store.check_interrupts()?;
        let (_, _, neighbors) = segment.upper(record)?;
        slots.clear();
        slots.extend(neighbors.iter().map(|n| n.element));
        segment.rank(probe, &slots, &mut places, &mut ranked)?;
        let nearest = ranked.iter().zip(&neighbors).min_by_key(|(r, _)| Near::new(r.rank, r.slot));
        match nearest {
            Some((r, n)) if r.rank < best.distance() => {
                best = Near::new(r.rank, r.slot);
                record = n.record;
            }
            _ => return Ok(best),
        }
    }
}

/// A beam of width `ef` over one upper level, for linking: nearest first, with their records.
pub fn beam_upper<S: PageStore>(
    segment: Segment<S>,
    probe: &Probe,
    entries: &[(Near, Slot)],
    ef: usize,
) -> Result<Vec<(Near, Slot)>> {
    let mut visited = Visited::default();
    let mut records: hashbrown::HashMap<Slot, Slot> = hashbrown::HashMap::new();
    let mut frontier = Frontier::new();
    let mut results: BinaryHeap<Near> = BinaryHeap::new();
    for &(near, record) in entries {
        visited.insert(near.slot());
        records.insert(near.slot(), record);
        frontier.push(Reverse(near));
        results.push(near);
    }
    let (mut slots, mut places, mut ranked) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(Reverse(near)) = frontier.pop() {
        if results.len() >= ef && results.peek().is_some_and(|&worst| near > worst) {
            break;
        }
        segment.store.check_interrupts()?;
        let (_, _, mut neighbors) = segment.upper(records[&near.slot()])?;
        neighbors.retain(|n: &UpperNeighbor| visited.insert(n.element));
        slots.clear();
        slots.extend(neighbors.iter().map(|n| n.element));
        segment.rank(probe, &slots, &mut places, &mut ranked)?;
        for (r, n) in ranked.iter().zip(&neighbors) {
            let near = Near::new(r.rank, r.slot);
            if results.len() < ef || results.peek().is_some_and(|&worst| near < worst) {
                records.insert(n.element, n.record);
                frontier.push(Reverse(near));
                results.push(near);
                if results.len() > ef {
                    results.pop();
                }
            }
        }
    }
    let mut found: Vec<(Near, Slot)> =
        results.into_sorted_vec().into_iter().map(|near| (near, records[&near.slot()])).collect();
    found.truncate(ef);
    Ok(found)
}

/// Which elements a beam returns. All of them route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Those that have rows: searching.
    Live,
    /// Every one: linking.
    All,
}

/// What reading elements in sequence costs, in elements reached by links.
///
/// Measured by the example `filtered` on glove100 and debminilm, and in a server: looking at the keys takes 0.03 to 0.07, a
/// rank 0.1 at 100 dimensions and 0.4 at 384. Where both ways cost the same, reading is better: it is exact.
pub mod price {
    /// Looking at the keys of an element.
    pub const CHECK: f64 = 0.06;
    /// Ranking an element that passes.
    pub const RANK: f64 = 0.4;
    /// Ranking all elements, without a filter.
    pub const RANK_ALL: f64 = 0.125;

    /// Reading a segment, of whose elements a share passes the filter.
    pub fn flat(elements: u64, share: f64) -> f64 {
        elements as f64 * (CHECK + share * RANK)
    }

    /// Reading a segment without a filter.
    pub fn flat_all(elements: u64) -> f64 {
        elements as f64 * RANK_ALL
    }
}

/// What a search for rows that pass a filter is told.
#[derive(Clone, Copy)]
pub struct Filtered<'a> {
    /// Elements without a row that passes only route.
    pub filter: &'a Filter,
    /// Elements of the segment, about: where walking will cost more than reading them all in sequence, it ends.
    pub elements: u64,
}

/// Elements that are ranked before their share of passing ones says something.
const ENOUGH: usize = 256;

/// A resumable search of level 0 (Malkov & Yashunin 2018, algorithm 2, that keeps what it passes over).
pub struct Beam {
    accept: Accept,
    visited: Visited,
    /// Elements whose neighbors were ranked.
    expanded: usize,
    /// Elements ranked that were accepted.
    accepted: usize,
    /// Results asked for, over all rounds.
    wanted: usize,
    frontier: Frontier,
    /// Reached, but further than the worst result at that time.
    later: Vec<Near>,
    /// Results that a later round may still want.
    spare: Vec<Ranked>,
    slots: Vec<Slot>,
    places: Vec<Place>,
    ranked: Vec<Ranked>,
}

impl Beam {
    /// Nothing visited yet: [`Self::enter`] comes next.
    pub fn new(accept: Accept) -> Self {
        Self {
            accept,
            visited: Visited::default(),
            expanded: 0,
            accepted: 0,
            wanted: 0,
            frontier: Frontier::new(),
            later: Vec::new(),
            spare: Vec::new(),
            slots: Vec::new(),
            places: Vec::new(),
            ranked: Vec::new(),
        }
    }

    /// Forgets everything but its allocations.
    pub fn clear(&mut self) {
        self.visited.clear();
        (self.expanded, self.accepted, self.wanted) = (0, 0, 0);
        self.frontier.clear();
        self.later.clear();
        self.spare.clear();
    }

    /// Elements ranked so far.
    pub fn visited(&self) -> usize {
        self.visited.count()
    }

    /// Share of the elements ranked that were accepted.
    pub fn share(&self) -> f64 {
        self.accepted.max(1) as f64 / self.visited.count().max(1) as f64
    }

    /// Whether going on until so many were found as are wanted will cost more than reading the segment in sequence.
    ///
    /// The beam ends when it has expanded about as many elements as it would to find that many of all, over the share
    /// of those that pass. Rows that pass may lie anywhere, so the share is taken from what was met near the query.
    fn hopeless(&self, elements: u64) -> bool {
        let (visited, share) = (self.visited() as f64, self.share());
        let fan_out = visited / self.expanded.max(1) as f64;
        let all = (self.wanted as f64 / share * fan_out).min(elements as f64);
        all - visited > price::flat(elements, share)
    }

    /// Whether everything reachable was returned.
    pub fn exhausted(&self) -> bool {
        self.frontier.is_empty() && self.later.is_empty() && self.spare.is_empty()
    }

    /// Adds an entry point.
    pub fn enter<S: PageStore>(&mut self, segment: Segment<S>, probe: &Probe, slot: Slot) -> Result<()> {
        self.enter_filtered(segment, probe, &Filter::none(), slot)
    }

    /// As [`Self::enter`], for [`Self::round_filtered`].
    pub fn enter_filtered<S: PageStore>(
        &mut self,
        segment: Segment<S>,
        probe: &Probe,
        filter: &Filter,
        slot: Slot,
    ) -> Result<()> {
        if self.visited.insert(slot) {
            segment.rank_filtered(probe, filter, &[slot], &mut self.places, &mut self.ranked)?;
            let ranked = self.ranked[0];
            self.frontier.push(Reverse(Near::new(ranked.rank, slot)));
            if self.accepts(&ranked) {
                self.accepted += 1;
                self.spare.push(ranked);
            }
        }
        Ok(())
    }

    fn accepts(&self, ranked: &Ranked) -> bool {
        self.accept == Accept::All || ranked.live
    }

    /// The next `ef` results, in no order. Fewer only when the reachable part of the graph is exhausted.
    pub fn round<S: PageStore>(&mut self, segment: Segment<S>, probe: &Probe, ef: usize) -> Result<Vec<Ranked>> {
        let all = Filtered { filter: &Filter::none(), elements: 0 };
        Ok(self.round_filtered(segment, probe, all, ef)?.expect("only searches with a filter are given up"))
    }

    /// As [`Self::round`], of elements with rows that pass. `None`: reading the segment in sequence costs less than going
    /// on; the beam is of no use any more.
    pub fn round_filtered<S: PageStore>(
        &mut self,
        segment: Segment<S>,
        probe: &Probe,
        Filtered { filter, elements }: Filtered,
        ef: usize,
    ) -> Result<Option<Vec<Ranked>>> {
        self.wanted = self.wanted.saturating_add(ef);
        let (may_give_up, mut look_again) = (!filter.is_none(), self.visited().max(ENOUGH));
        let mut results = Results::new(ef);
        for ranked in std::mem::take(&mut self.spare) {
            results.offer(ranked, &mut self.spare);
        }
        self.frontier.extend(self.later.drain(..).map(Reverse));
        let mut neighbors = std::mem::take(&mut self.slots);
        while let Some(&Reverse(near)) = self.frontier.peek() {
            if results.full() && near > results.worst() {
                break;
            }
            if may_give_up && self.visited() >= look_again {
                if self.hopeless(elements) {
                    return Ok(None);
                }
                look_again = self.visited() * 2;
            }
            self.frontier.pop();
            self.expanded += 1;
            segment.store.check_interrupts()?;
            segment.neighbors(near.slot(), &mut neighbors)?;
            if let Some(&Reverse(next)) = self.frontier.peek() {
                segment.store.prefetch(segment.shape.neighbors_place(next.slot()));
            }
            neighbors.retain(|&slot| self.visited.insert(slot));
            let mut ranked = std::mem::take(&mut self.ranked);
            segment.rank_filtered(probe, filter, &neighbors, &mut self.places, &mut ranked)?;
            for r in &ranked {
                let near = Near::new(r.rank, r.slot);
                self.accepted += usize::from(self.accepts(r));
                if results.full() && near > results.worst() {
                    self.later.push(near);
                    if self.accepts(r) {
                        self.spare.push(*r);
                    }
                } else {
                    self.frontier.push(Reverse(near));
                    if self.accepts(r) {
                        results.offer(*r, &mut self.spare);
                    }
                }
            }
            self.ranked = ranked;
        }
        self.slots = neighbors;
        Ok(Some(results.entries))
    }
}

/// The best `ef` so far.
struct Results {
    ef: usize,
    order: BinaryHeap<(Near, usize)>,
    entries: Vec<Ranked>,
}

impl Results {
    fn new(ef: usize) -> Self {
        Self { ef, order: BinaryHeap::with_capacity(ef + 1), entries: Vec::with_capacity(ef) }
    }

    fn full(&self) -> bool {
        self.entries.len() >= self.ef
    }

    fn worst(&self) -> Near {
        self.order.peek().map_or(Near::new(f32::INFINITY, NONE), |&(near, _)| near)
    }

    /// Takes it, or what it displaces goes to `spare`.
    fn offer(&mut self, ranked: Ranked, spare: &mut Vec<Ranked>) {
        let near = Near::new(ranked.rank, ranked.slot);
        if !self.full() {
            self.order.push((near, self.entries.len()));
            self.entries.push(ranked);
        } else if near < self.worst() {
            let (_, at) = self.order.pop().expect("full results are not empty");
            spare.push(std::mem::replace(&mut self.entries[at], ranked));
            self.order.push((near, at));
        } else {
            spare.push(ranked);
        }
    }
}
