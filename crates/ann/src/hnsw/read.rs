//! Reading elements of one segment: ranks to a probe, whole codes, neighbors.

use super::probe::{Probe, Scaling};
use crate::error::{Error, Result};
use crate::keys::{Filter, Row};
use crate::page::{BlockNumber, Circle, Kind, NONE, Page, PageStore, Place};
use crate::shape::{Element, Shape, Slot, Slots, UpperNeighbor, read_chunk, read_upper};

/// One HNSW segment of an index.
pub struct Segment<'a, S> {
    /// Where the pages are.
    pub store: &'a S,
    /// The form of the index's elements.
    pub shape: &'a Shape,
    /// As in the directory, and on every page of the segment.
    pub id: u32,
    /// The head page.
    pub head: BlockNumber,
}

impl<S> Clone for Segment<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Segment<'_, S> {}

/// What a search learns of an element it touches.
#[derive(Clone, Copy, Debug)]
pub struct Ranked {
    /// Which element.
    pub slot: Slot,
    /// Distance to the decoded vector, in the form that [`Probe::rank`] tells.
    pub rank: f32,
    /// Has rows that may pass the filter; else it only routes.
    pub live: bool,
    /// Squared norm of the decoded vector.
    pub norm2: f32,
    /// Distance of the true vector to the decoded one, rounded up.
    pub residual: f32,
}

/// A code with what a distance to it needs.
pub type CodeRef<'a> = (&'a [u8], Scaling, u32);

/// Copies of stored codes.
pub struct CodeBlock {
    dimensions: usize,
    bytes: Vec<u8>,
    parts: Vec<(Slot, Scaling, u32)>,
}

impl CodeBlock {
    /// Codes in the block.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The element whose code is the `i`-th.
    pub fn slot(&self, i: usize) -> Slot {
        self.parts[i].0
    }

    /// The `i`-th code.
    pub fn get(&self, i: usize) -> CodeRef<'_> {
        let (_, scaling, sum) = self.parts[i];
        (&self.bytes[i * self.dimensions..][..self.dimensions], scaling, sum)
    }
}

fn check(page: &Page, block: BlockNumber, segment: u32, kind: Kind, index: u32) -> Result<()> {
    let tag = page.expect(block, segment, kind)?;
    if index >= u32::from(tag.used) {
        return Err(Error::corrupt(block, format!("has {} slots, something points to slot {index}", tag.used)));
    }
    Ok(())
}

fn scaling(e: Element) -> Scaling {
    Scaling { scale: e.scale(), offset: e.offset(), norm2: e.norm2() }
}

impl<'a, S: PageStore> Segment<'a, S> {
    /// Shows an element.
    pub fn element<R>(&self, slot: Slot, look: impl FnOnce(Element) -> R) -> Result<R> {
        let mut look = Some(look);
        let mut result = Err(Error::Stopped);
        self.store.read_each(&[self.shape.neighbors_place(slot)], |_, page| {
            let element = self.shape.view(page, slot);
            if !element.belongs_to(self.id) {
                result = Err(self.stray(page, slot));
            } else if let Some(look) = look.take() {
                result = Ok(look(element));
            }
        })?;
        result
    }

    /// What is wrong with a slot that something took for an element.
    #[cold]
    fn stray(&self, page: &Page, slot: Slot) -> Error {
        let (slots, block) = (self.shape.element, self.shape.element.block(slot));
        match check(page, block, self.id, Kind::Element, slots.index(slot)) {
            Err(error) => error,
            Ok(()) => Error::corrupt(block, format!("has a damaged element in slot {}", slots.index(slot))),
        }
    }

    /// Shows a slot of another kind of page.
    fn slot<R>(&self, kind: Kind, slots: Slots, slot: Slot, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let block = slots.block(slot);
        self.store.read(block, |page| {
            check(page, block, self.id, kind, slots.index(slot))?;
            Ok(look(slots.get(page, slot)))
        })?
    }

    /// Ranks `slots` into `out`, in order; `places` is scratch. Elements with rows are live.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a slot is no element of this segment.
    pub fn rank(&self, probe: &Probe, slots: &[Slot], places: &mut Vec<Place>, out: &mut Vec<Ranked>) -> Result<()> {
        const ALL: &Filter = &Filter::none();
        self.rank_filtered(probe, ALL, slots, places, out)
    }

    /// As [`Self::rank`]; elements are live that have rows which may pass.
    pub fn rank_filtered(
        &self,
        probe: &Probe,
        filter: &Filter,
        slots: &[Slot],
        places: &mut Vec<Place>,
        out: &mut Vec<Ranked>,
    ) -> Result<()> {
        let shape = self.shape;
        let len = shape.distance_len();
        places.clear();
        places.extend(slots.iter().map(|&s| shape.element.place(s, len)));
        out.clear();
        let mut bad = None;
        // With tails the head's part of the sum waits in `rank` until the tails are read.
        let mut sums: Vec<(f64, Scaling)> = Vec::new();
        self.store.read_each(places, |i, page| {
            let slot = slots[i];
            let e = shape.view(page, slot);
            if !e.belongs_to(self.id) {
                bad.get_or_insert_with(|| self.stray(page, slot));
                return;
            }
            let scaling = scaling(e);
            let sum = probe.part(0..shape.head_code, e.head_code(), scaling);
            let rank = if shape.tails == 0 { probe.rank(sum, scaling) } else { 0.0 };
            if shape.tails > 0 {
                sums.push((sum, scaling));
            }
            out.push(Ranked { slot, rank, live: e.passes(filter), norm2: e.norm2(), residual: e.residual() });
        })?;
        if let Some(error) = bad {
            return Err(error);
        }
        for (ranked, (sum, scaling)) in out.iter_mut().zip(sums) {
            ranked.rank = probe.rank(sum + self.tail_sum(probe, ranked.slot, scaling)?, scaling);
        }
        Ok(())
    }

    fn tail_sum(&self, probe: &Probe, slot: Slot, scaling: Scaling) -> Result<f64> {
        let mut sum = 0.0;
        for (i, tail) in self.tails(slot)?.into_iter().enumerate() {
            let range = self.shape.tail_range(i);
            let len = range.len();
            sum += self.slot(Kind::Tail, self.shape.tail, tail, |b| probe.part(range, &b[..len], scaling))?;
        }
        Ok(sum)
    }

    fn tails(&self, slot: Slot) -> Result<Vec<Slot>> {
        self.element(slot, |e| (0..self.shape.tails).map(|i| e.tail(i)).collect())
    }

    /// Copies the codes of `slots`.
    pub fn codes(&self, slots: &[Slot]) -> Result<CodeBlock> {
        let shape = self.shape;
        let places: Vec<Place> = slots.iter().map(|&s| shape.element.place(s, shape.distance_len())).collect();
        let mut block = CodeBlock {
            dimensions: shape.dimensions,
            bytes: vec![0; slots.len() * shape.dimensions],
            parts: Vec::with_capacity(slots.len()),
        };
        let mut bad = None;
        self.store.read_each(&places, |i, page| {
            let e = shape.view(page, slots[i]);
            if !e.belongs_to(self.id) {
                bad.get_or_insert_with(|| self.stray(page, slots[i]));
                return;
            }
            block.bytes[i * shape.dimensions..][..shape.head_code].copy_from_slice(e.head_code());
            block.parts.push((slots[i], scaling(e), e.sum()));
        })?;
        if let Some(error) = bad {
            return Err(error);
        }
        if shape.tails > 0 {
            for (i, &slot) in slots.iter().enumerate() {
                self.copy_tails(slot, &mut block.bytes[i * shape.dimensions..][..shape.dimensions])?;
            }
        }
        Ok(block)
    }

    fn copy_tails(&self, slot: Slot, code: &mut [u8]) -> Result<()> {
        for (i, tail) in self.tails(slot)?.into_iter().enumerate() {
            let part = &mut code[self.shape.tail_range(i)];
            let len = part.len();
            self.slot(Kind::Tail, self.shape.tail, tail, |b| part.copy_from_slice(&b[..len]))?;
        }
        Ok(())
    }

    /// Neighbors at level 0, with the version they were read at.
    pub fn neighbors(&self, slot: Slot, out: &mut Vec<Slot>) -> Result<u32> {
        out.clear();
        self.element(slot, |e| {
            out.extend(e.neighbors());
            e.version()
        })
    }

    /// An upper record: (record one level up, version, neighbors).
    pub fn upper(&self, record: Slot) -> Result<(Slot, u16, Vec<UpperNeighbor>)> {
        self.slot(Kind::Upper, self.shape.upper, record, |b| read_upper(self.shape, b))
    }

    /// The record of an element at `level` (1 or more).
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the element does not live on that level.
    pub fn record_at(&self, element: Slot, level: u8) -> Result<Slot> {
        let mut record = self.element(element, |e| e.upper())?;
        for _ in 1..level {
            record = if record == NONE { NONE } else { self.upper(record)?.0 };
        }
        if record == NONE {
            let what = format!("element {element} has no neighbors at level {level}");
            return Err(Error::corrupt(self.shape.element.block(element), what));
        }
        Ok(record)
    }

    /// Appends all rows of an element.
    pub fn rows(&self, slot: Slot, out: &mut Vec<Row>) -> Result<()> {
        let mut next = self.element(slot, |e| {
            out.extend(e.inline_rows());
            e.overflow()
        })?;
        let mut circle = Circle::default();
        while next != NONE {
            self.store.check_interrupts()?;
            circle.step(next, self.shape.chunk.block(next))?;
            next = self.slot(Kind::Overflow, self.shape.chunk, next, |b| {
                let (next, rows) = read_chunk(self.shape, b);
                out.extend(rows);
                next
            })?;
        }
        Ok(())
    }
}

/// `-dot`, squared distance or L1 between two stored codes: ranks as [`Probe::rank`] gives, between elements.
#[inline]
pub fn rank_pair(metric: crate::distance::Metric, a: CodeRef, b: CodeRef) -> f32 {
    use crate::distance::{Metric, kernels};
    let (ca, sa, suma) = a;
    let (cb, sb, sumb) = b;
    if metric == Metric::L1 {
        return (kernels().l1_sq8_pair)((ca, sa.scale, sa.offset), (cb, sb.scale, sb.offset));
    }
    let integer = (kernels().dot_u8)(ca, cb) as f64;
    let (ao, bo, a_s, b_s) = (f64::from(sa.offset), f64::from(sb.offset), f64::from(sa.scale), f64::from(sb.scale));
    let dot = ao * bo * ca.len() as f64 + ao * b_s * f64::from(sumb) + bo * a_s * f64::from(suma) + a_s * b_s * integer;
    match metric {
        Metric::L2 => (f64::from(sa.norm2) + f64::from(sb.norm2) - 2.0 * dot) as f32,
        Metric::Cosine => (1.0 - dot) as f32,
        _ => -dot as f32,
    }
}
