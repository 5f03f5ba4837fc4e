//! Searching one segment: greedy through the upper levels, then a resumable beam through level 0.

use super::near::{Frontier, Near, Visited};
use super::probe::Probe;
use super::read::{Ranked, Segment};
use crate::error::Result;
use crate::index::Head;
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

/// A resumable search of level 0 (Malkov & Yashunin 2018, algorithm 2, that keeps what it passes over).
pub struct Beam {
    accept: Accept,
    visited: Visited,
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
        self.frontier.clear();
        self.later.clear();
        self.spare.clear();
    }

    /// Elements ranked so far.
    pub fn visited(&self) -> usize {
        self.visited.count()
    }

    /// Whether everything reachable was returned.
    pub fn exhausted(&self) -> bool {
        self.frontier.is_empty() && self.later.is_empty() && self.spare.is_empty()
    }

    /// Adds an entry point.
    pub fn enter<S: PageStore>(&mut self, segment: Segment<S>, probe: &Probe, slot: Slot) -> Result<()> {
        if self.visited.insert(slot) {
            segment.rank(probe, &[slot], &mut self.places, &mut self.ranked)?;
            let ranked = self.ranked[0];
            self.frontier.push(Reverse(Near::new(ranked.rank, slot)));
            if self.accepts(&ranked) {
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
            self.frontier.pop();
            segment.store.check_interrupts()?;
            segment.neighbors(near.slot(), &mut neighbors)?;
            if let Some(&Reverse(next)) = self.frontier.peek() {
                segment.store.prefetch(segment.shape.neighbors_place(next.slot()));
            }
            neighbors.retain(|&slot| self.visited.insert(slot));
            let mut ranked = std::mem::take(&mut self.ranked);
            segment.rank(probe, &neighbors, &mut self.places, &mut ranked)?;
            for r in &ranked {
                let near = Near::new(r.rank, r.slot);
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
        Ok(results.entries)
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
