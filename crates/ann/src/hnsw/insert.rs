//! Inserting a row into the active segment, in place, while others search and insert.
//!
//! 1. Search, without any lock that outlives a page visit.
//! 2. Publish: under the head's share lock, which proves that the segment is still active, write the element.
//! 3. Back-links, optimistically: read a list with its version, choose outside any lock, write if the version is the
//!    same, else again. A crash between 2 and 3 leaves an element that few or no others point to, never a dangling
//!    pointer.
//!
//! A row that comes from a pending list ([`Origin`]) is committed and must be found all the time: its element is published
//! without it and linked, then one unit gives the row to the element and takes it from the list. A crash before that leaves
//! an element that only routes, which the row joins the next time.
//!
//! Code tails and upper records are written before the element that points to them; a crash between leaks slots.

use super::near::Near;
use super::probe::{Probe, Scaling};
use super::read::{CodeBlock, CodeRef, Segment, rank_pair};
use super::search::{Accept, Beam, beam_upper, descend};
use super::select::choose;
use crate::error::{Error, Result};
use crate::index::{Head, chain_index};
use crate::keys::{KeySummary, Row};
use crate::page::{BlockNumber, Kind, MAX_UNIT_PAGES, NONE, PageStore, Tag, Unit};
use crate::shape::{
    CHUNK_ROWS, HeapTid, NewElement, Shape, Slot, Slots, UpperNeighbor, read_chunk, read_upper, write_chunk,
    write_upper,
};
use crate::sq8::Params;

/// A row to insert.
pub struct NewRow<'a> {
    /// Its place in the heap, and its keys.
    pub row: Row,
    /// With [`Self::code`], what [`super::probe::encode_row`] made of the row's vector.
    pub params: &'a Params,
    /// One byte a dimension.
    pub code: &'a [u8],
    /// The row's vector as a query.
    pub probe: &'a Probe,
    /// Level for the element, if the row needs one of its own.
    pub level: u8,
}

/// The element of a sealed pending list that a row comes from. Nobody else changes it: the maintenance lock is held.
pub(crate) struct Origin<'a> {
    /// The form of the list's elements.
    pub(crate) shape: &'a Shape,
    /// The list.
    pub(crate) segment: u32,
    /// The element.
    pub(crate) slot: Slot,
    /// Its row.
    pub(crate) tid: HeapTid,
}

impl Origin<'_> {
    fn block(&self) -> BlockNumber {
        self.shape.element.block(self.slot)
    }

    /// Locks the element's page if it comes before `block` in the order of locks.
    fn lock_before<U: Unit>(this: Option<&Self>, unit: &mut U, block: BlockNumber) -> Result<()> {
        match this {
            Some(origin) if origin.block() < block => unit.page(origin.block()).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Empties the element. Other element pages that the unit changes are locked already.
    fn empty<U: Unit>(this: Option<&Self>, unit: &mut U) -> Result<()> {
        let Some(origin) = this else { return Ok(()) };
        let block = origin.block();
        let page = unit.page(block)?;
        page.expect(block, origin.segment, Kind::Element)?;
        let mut element = origin.shape.view_mut(page, origin.slot);
        if element.as_ref().row_count() != 1 || element.retain_inline(|tid| tid == origin.tid) != 1 {
            return Err(Error::corrupt(block, "is of a pending list that somebody else changes"));
        }
        element.set_row_count(0);
        Ok(())
    }
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The row has an entry.
    Inserted,
    /// The segment takes no inserts any more: read the directory and start over. Nothing was inserted.
    Sealed,
}

/// What linking one level starts from.
struct Found {
    near: Near,
    /// The element's record at the level; [`NONE`] at level 0.
    record: Slot,
}

/// The element being inserted.
struct Own<'a> {
    slot: Slot,
    code: CodeRef<'a>,
}

/// A neighbor list to be written if its version is still the same.
struct Plan {
    near: Near,
    version: u32,
    list: Vec<Slot>,
}

/// Tries to update a neighbor list that others keep changing; then the back-link is given up. It costs reachability,
/// which `hybrid_stats` shows, and never correctness.
const LINK_TRIES: usize = 32;

impl<S: PageStore> Segment<'_, S> {
    /// Inserts a row, whose code has as many bytes as the shape has dimensions.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Full`] and [`Error::Limit`] where numbers of slots or rows run out; those of the
    /// store. What was written before the error harms nobody (docs/concurrency.md).
    pub fn insert(&self, ef_construction: usize, row: &NewRow) -> Result<Outcome> {
        self.insert_from(ef_construction, row, None)
    }

    /// As [`Self::insert`], for a row that leaves a pending list by that.
    pub(crate) fn insert_from(&self, ef_construction: usize, row: &NewRow, origin: Option<&Origin>) -> Result<Outcome> {
        loop {
            let head = self.store.read(self.head, |page| Head::decode(page, self.head, self.id))??;
            if !head.active {
                return Ok(Outcome::Sealed);
            }
            if head.summary.is_some_and(|summary| !summary.covers(&row.row.keys, self.shape.keys)) {
                let mut summary = KeySummary::default();
                summary.add(&row.row.keys, self.shape.keys);
                if !self.widen(&summary)? {
                    return Ok(Outcome::Sealed);
                }
            }
            let outcome = if head.entry == NONE {
                self.insert_first(row, origin)?
            } else {
                self.insert_linked(&head, ef_construction, row, origin)?
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
    }

    /// The first element becomes the entry point in the same unit; `None` if another session was faster.
    fn insert_first(&self, row: &NewRow, origin: Option<&Origin>) -> Result<Option<Outcome>> {
        let Some((tails, records)) = self.put_parts(row, &[])? else { return Ok(Some(Outcome::Sealed)) };
        let mut unit = self.store.unit();
        let mut head = Head::decode(unit.page(self.head)?, self.head, self.id)?;
        if !head.active {
            return Ok(Some(Outcome::Sealed));
        }
        if head.entry != NONE {
            return Ok(None);
        }
        Origin::empty(origin, &mut unit)?;
        let tag = Tag { used: 1, ..Tag::new(self.id, Kind::Element) };
        let (block, page) = unit.allocate(tag)?;
        let slot = self.shape.element.slot(block, 0)?;
        write_element((self.shape, self.id), page, slot, row, &tails, &records, &[]);
        push_row(self.shape, page, slot, row);
        head.entry = slot;
        head.entry_level = row.level;
        head.first[chain_index(Kind::Element)] = block;
        head.last[chain_index(Kind::Element)] = block;
        head.element_pages = 1;
        head.encode(unit.page(self.head)?);
        unit.commit()?;
        Ok(Some(Outcome::Inserted))
    }

    fn insert_linked(
        &self,
        head: &Head,
        ef_construction: usize,
        row: &NewRow,
        origin: Option<&Origin>,
    ) -> Result<Option<Outcome>> {
        let levels = self.candidates(head, ef_construction, row)?;
        let codes = self.codes(&levels[0].iter().map(|f| f.near.slot()).collect::<Vec<_>>())?;
        if let Some(twin) = (0..codes.len()).find(|&i| same(codes.get(i), row)) {
            return self.add_row(codes.slot(twin), row, origin).map(Some);
        }
        let chosen = self.choose_all(&levels, &codes)?;
        let Some((tails, records)) = self.put_parts(row, &chosen)? else { return Ok(Some(Outcome::Sealed)) };
        let neighbors: Vec<Slot> = chosen[0].iter().map(|f| f.near.slot()).collect();
        let Some((slot, _)) = self.put(Kind::Element, self.shape.element, |page, slot| {
            write_element((self.shape, self.id), page, slot, row, &tails, &records, &neighbors);
            if origin.is_none() {
                push_row(self.shape, page, slot, row);
            }
        })?
        else {
            return Ok(Some(Outcome::Sealed));
        };
        let own = Own { slot, code: (row.code, scaling(row.params), row.params.sum) };
        for level in (1..chosen.len()).rev() {
            for found in &chosen[level] {
                self.store.check_interrupts()?;
                self.link_back_upper(found, &own, records[level - 1])?;
            }
        }
        self.link_all_back(&chosen[0], &own)?;
        if row.level > head.entry_level {
            self.raise_entry(slot, row.level)?;
        }
        match origin {
            Some(_) => self.add_row(slot, row, origin).map(Some),
            None => Ok(Some(Outcome::Inserted)),
        }
    }

    /// Nearest elements of each level that the row will live on and that exists already; level 0 first.
    fn candidates(&self, head: &Head, ef_construction: usize, row: &NewRow) -> Result<Vec<Vec<Found>>> {
        let top = row.level.min(head.entry_level);
        let entry = descend(*self, head, row.probe, top)?.expect("a segment with an entry point is not empty");
        let mut entries = vec![entry];
        let mut levels = Vec::new();
        for level in (1..=top).rev() {
            entries = beam_upper(*self, row.probe, &entries, ef_construction)?;
            levels.push(entries.iter().map(|&(near, record)| Found { near, record }).collect());
            for entry in &mut entries {
                entry.1 = if level > 1 { self.record_at(entry.0.slot(), level - 1)? } else { NONE };
            }
        }
        let mut beam = Beam::new(Accept::All);
        for (near, _) in &entries {
            beam.enter(*self, row.probe, near.slot())?;
        }
        let mut ground: Vec<Near> =
            beam.round(*self, row.probe, ef_construction)?.iter().map(|r| Near::new(r.rank, r.slot)).collect();
        ground.sort_unstable();
        levels.push(ground.into_iter().map(|near| Found { near, record: NONE }).collect());
        levels.reverse();
        Ok(levels)
    }

    /// Applies the heuristic to each level; `ground_codes` are the codes of level 0's candidates.
    fn choose_all(&self, levels: &[Vec<Found>], ground_codes: &CodeBlock) -> Result<Vec<Vec<Found>>> {
        levels
            .iter()
            .enumerate()
            .map(|(level, found)| {
                let upper_codes;
                let codes = if level == 0 {
                    ground_codes
                } else {
                    upper_codes = self.codes(&found.iter().map(|f| f.near.slot()).collect::<Vec<_>>())?;
                    &upper_codes
                };
                let distances: Vec<f32> = found.iter().map(|f| f.near.distance()).collect();
                let chosen = choose(&distances, self.shape.max_neighbors(level as u8), |i, j| {
                    self.pair(codes.get(i), codes.get(j))
                });
                Ok(chosen.into_iter().map(|(i, _)| Found { near: found[i].near, record: found[i].record }).collect())
            })
            .collect()
    }

    fn pair(&self, a: CodeRef, b: CodeRef) -> f32 {
        rank_pair(self.shape.metric, a, b)
    }

    /// Writes what the element will point to: its tails and its upper records, lowest level first. `None`: sealed.
    fn put_parts(&self, row: &NewRow, chosen: &[Vec<Found>]) -> Result<Option<(Vec<Slot>, Vec<Slot>)>> {
        let mut tails = Vec::with_capacity(self.shape.tails);
        for i in 0..self.shape.tails {
            let part = &row.code[self.shape.tail_range(i)];
            let slots = self.shape.tail;
            let put = self.put(Kind::Tail, slots, |page, slot| {
                slots.get_mut(page, slot)[..part.len()].copy_from_slice(part);
            })?;
            let Some((slot, _)) = put else { return Ok(None) };
            tails.push(slot);
        }
        let mut records = Vec::with_capacity(usize::from(row.level));
        let mut up = NONE;
        for level in (1..=usize::from(row.level)).rev() {
            let neighbors: Vec<UpperNeighbor> = chosen
                .get(level)
                .map(|found| found.iter().map(|f| UpperNeighbor { element: f.near.slot(), record: f.record }).collect())
                .unwrap_or_default();
            let slots = self.shape.upper;
            let put = self.put(Kind::Upper, slots, |page, slot| {
                write_upper(slots.get_mut(page, slot), up, 0, &neighbors);
            })?;
            let Some((slot, _)) = put else { return Ok(None) };
            records.push(slot);
            up = slot;
        }
        records.reverse();
        Ok(Some((tails, records)))
    }

    /// Appends a row to a pending list, as an element of its own. The list's elements up to this one, and whether a page
    /// was added for it. `None`: the list is sealed.
    pub(crate) fn append(&self, row: &NewRow) -> Result<Option<(u64, bool)>> {
        let row = &NewRow { level: 0, ..*row };
        let Some((tails, _)) = self.put_parts(row, &[])? else { return Ok(None) };
        let slots = self.shape.element;
        let put = self.put(Kind::Element, slots, |page, slot| {
            write_element((self.shape, self.id), page, slot, row, &tails, &[], &[]);
            push_row(self.shape, page, slot, row);
        })?;
        Ok(put.map(|(slot, pages)| {
            let index = slots.index(slot);
            (u64::from(pages.saturating_sub(1)) * u64::from(slots.per_page) + u64::from(index) + 1, index == 0)
        }))
    }

    /// Takes a free slot of a kind and lets `write` fill it. The slot, and the segment's pages of elements. `None`: the
    /// segment is sealed.
    fn put(
        &self,
        kind: Kind,
        slots: Slots,
        mut write: impl FnMut(&mut crate::page::Page, Slot),
    ) -> Result<Option<(Slot, u32)>> {
        loop {
            let mut unit = self.store.unit();
            let head = Head::decode(unit.shared(self.head)?, self.head, self.id)?;
            if !head.active {
                return Ok(None);
            }
            let block = head.last[chain_index(kind)];
            if block != NONE {
                self.not_the_head(block)?;
                let page = unit.page(block)?;
                let mut tag = page.expect(block, self.id, kind)?;
                if u32::from(tag.used) < slots.per_page {
                    let slot = slots.slot(block, u32::from(tag.used))?;
                    tag.used += 1;
                    page.set_tag(tag);
                    write(page, slot);
                    unit.commit()?;
                    return Ok(Some((slot, head.element_pages)));
                }
            }
            drop(unit);
            if let Some(put) = self.put_on_new_page(kind, slots, block, &mut write)? {
                return Ok(Some(put));
            }
        }
    }

    /// A unit that holds the head page must not lock it again, as a damaged pointer would have it.
    fn not_the_head(&self, block: BlockNumber) -> Result<()> {
        if block == self.head { Err(Error::corrupt(block, "is pointed to as if it were no head page")) } else { Ok(()) }
    }

    /// Appends a page of a kind after `last`. `None`: another session did so, or the segment was sealed.
    fn put_on_new_page(
        &self,
        kind: Kind,
        slots: Slots,
        last: u32,
        write: &mut impl FnMut(&mut crate::page::Page, Slot),
    ) -> Result<Option<(Slot, u32)>> {
        let mut unit = self.store.unit();
        let mut head = Head::decode(unit.page(self.head)?, self.head, self.id)?;
        if !head.active || head.last[chain_index(kind)] != last {
            return Ok(None);
        }
        if last != NONE {
            unit.page(last)?.expect(last, self.id, kind)?;
        }
        let (block, page) = unit.allocate(Tag { used: 1, ..Tag::new(self.id, kind) })?;
        let slot = slots.slot(block, 0)?;
        write(page, slot);
        if last != NONE {
            let page = unit.page(last)?;
            let tag = page.expect(last, self.id, kind)?;
            page.set_tag(Tag { next: block, ..tag });
        }
        head.last[chain_index(kind)] = block;
        if kind == Kind::Element {
            head.element_pages = head.element_pages.saturating_add(1);
        }
        if head.first[chain_index(kind)] == NONE {
            head.first[chain_index(kind)] = block;
        }
        head.encode(unit.page(self.head)?);
        unit.commit()?;
        Ok(Some((slot, head.element_pages)))
    }

    fn raise_entry(&self, slot: Slot, level: u8) -> Result<()> {
        let mut unit = self.store.unit();
        let page = unit.page(self.head)?;
        let mut head = Head::decode(page, self.head, self.id)?;
        if level > head.entry_level {
            head.entry = slot;
            head.entry_level = level;
            head.encode(page);
            unit.commit()?;
        }
        Ok(())
    }

    /// Offers the new element to the level-0 lists of its neighbors: plans are made outside any lock, and as many as
    /// fit are written as one unit.
    fn link_all_back(&self, neighbors: &[Found], own: &Own) -> Result<()> {
        let mut waiting: Vec<Near> = neighbors.iter().map(|f| f.near).collect();
        // One page after the other, so that lists on one page share a unit.
        waiting.sort_unstable_by_key(|near| near.slot());
        for _ in 0..LINK_TRIES {
            let mut again = Vec::new();
            let mut plans: Vec<Plan> = Vec::new();
            for near in waiting {
                self.store.check_interrupts()?;
                let Some(plan) = self.plan_back_link(near, own)? else { continue };
                if self.pages_of(&plans, &plan) > MAX_UNIT_PAGES {
                    self.write_plans(std::mem::take(&mut plans), &mut again)?;
                }
                plans.push(plan);
            }
            self.write_plans(plans, &mut again)?;
            if again.is_empty() {
                return Ok(());
            }
            waiting = again;
        }
        Ok(())
    }

    /// Pages that a unit of these plans would change. Plans come in the order of their pages.
    fn pages_of(&self, plans: &[Plan], next: &Plan) -> usize {
        let mut blocks: Vec<u32> =
            plans.iter().chain([next]).map(|p| self.shape.element.block(p.near.slot())).collect();
        blocks.dedup();
        blocks.len()
    }

    /// The list of a neighbor with the new element in it; `None` if it has no place there.
    fn plan_back_link(&self, near: Near, own: &Own) -> Result<Option<Plan>> {
        let mut list = Vec::new();
        let version = self.neighbors(near.slot(), &mut list)?;
        if list.contains(&own.slot) {
            return Ok(None);
        }
        list.push(own.slot);
        if list.len() > self.shape.max_neighbors(0) {
            let Some(kept) = self.prune(near, &list, own)? else { return Ok(None) };
            list = kept;
        }
        Ok(Some(Plan { near, version, list }))
    }

    /// Writes lists that nobody has changed since they were read; the others go to `again`.
    fn write_plans(&self, plans: Vec<Plan>, again: &mut Vec<Near>) -> Result<()> {
        let (mut unit, mut any) = (self.store.unit(), false);
        for plan in plans {
            let slot = plan.near.slot();
            let block = self.shape.element.block(slot);
            let page = unit.page(block)?;
            page.expect(block, self.id, Kind::Element)?;
            let mut element = self.shape.view_mut(page, slot);
            if element.as_ref().version() == plan.version {
                element.set_neighbors(&plan.list);
                any = true;
            } else {
                again.push(plan.near);
            }
        }
        if any { unit.commit() } else { Ok(()) }
    }

    /// The list that is left when the heuristic drops one of `list`, whose last is `own`; `None` if it drops `own`.
    fn prune(&self, to: Near, list: &[Slot], own: &Own) -> Result<Option<Vec<Slot>>> {
        let others = list.len() - 1;
        let mut slots = list.to_vec();
        slots[others] = to.slot();
        let codes = self.codes(&slots)?;
        let owner = codes.get(others);
        let code = |i: usize| if i == others { own.code } else { codes.get(i) };
        let mut order: Vec<(Near, usize)> =
            (0..list.len()).map(|i| (Near::new(self.pair(owner, code(i)), list[i]), i)).collect();
        order.sort_unstable();
        let distances: Vec<f32> = order.iter().map(|(near, _)| near.distance()).collect();
        let chosen = choose(&distances, others, |i, j| self.pair(code(order[i].1), code(order[j].1)));
        let kept: Vec<Slot> = chosen.into_iter().map(|(i, _)| order[i].0.slot()).collect();
        Ok(kept.contains(&own.slot).then_some(kept))
    }

    /// Offers the new element to a list above level 0.
    fn link_back_upper(&self, to: &Found, own: &Own, own_record: Slot) -> Result<()> {
        let slots = self.shape.upper;
        let block = slots.block(to.record);
        for _ in 0..LINK_TRIES {
            let (_, version, mut list) = self.upper(to.record)?;
            if list.iter().any(|n| n.element == own.slot) {
                return Ok(());
            }
            list.push(UpperNeighbor { element: own.slot, record: own_record });
            if list.len() > self.shape.m {
                let elements: Vec<Slot> = list.iter().map(|n| n.element).collect();
                let Some(kept) = self.prune(to.near, &elements, own)? else { return Ok(()) };
                list.retain(|n| kept.contains(&n.element));
                // A damaged list may name an element twice.
                list.truncate(self.shape.m);
            }
            let mut unit = self.store.unit();
            let page = unit.page(block)?;
            page.expect(block, self.id, Kind::Upper)?;
            let bytes = slots.get_mut(page, to.record);
            let (up, current, _) = read_upper(self.shape, bytes);
            if current == version {
                write_upper(bytes, up, version.wrapping_add(1), &list);
                return unit.commit();
            }
        }
        Ok(())
    }

    /// Gives a row to an element that has the same code.
    fn add_row(&self, slot: Slot, row: &NewRow, origin: Option<&Origin>) -> Result<Outcome> {
        let block = self.shape.element.block(slot);
        let mut spare = None;
        loop {
            let mut unit = self.store.unit();
            let head = Head::decode(unit.shared(self.head)?, self.head, self.id)?;
            if !head.active {
                return Ok(Outcome::Sealed);
            }
            Origin::lock_before(origin, &mut unit, block)?;
            unit.page(block)?.expect(block, self.id, Kind::Element)?;
            Origin::empty(origin, &mut unit)?;
            let page = unit.page(block)?;
            let mut element = self.shape.view_mut(page, slot);
            element.widen_residual(row.params);
            if element.push_inline(&row.row) {
                unit.commit()?;
                return Ok(Outcome::Inserted);
            }
            let (count, chunk) = (element.as_ref().row_count(), element.as_ref().overflow());
            let Some(count) = count.checked_add(1) else {
                return Err(Error::Limit("more than 4294967294 rows have this vector".into()));
            };
            element.set_row_count(count);
            let filled = match spare {
                Some(spare) => {
                    element.set_overflow(spare);
                    self.fill_chunk(&mut unit, spare, |_| Some((chunk, vec![row.row])))?
                }
                None if chunk == NONE => false,
                None => self.fill_chunk(&mut unit, chunk, |(next, mut rows)| {
                    rows.push(row.row);
                    (rows.len() <= CHUNK_ROWS).then_some((next, rows))
                })?,
            };
            if filled {
                unit.commit()?;
                return Ok(Outcome::Inserted);
            }
            drop(unit);
            let put = self.put(Kind::Overflow, self.shape.chunk, |page, slot| {
                write_chunk(self.shape, self.shape.chunk.get_mut(page, slot), NONE, &[]);
            })?;
            let Some((slot, _)) = put else { return Ok(Outcome::Sealed) };
            spare = Some(slot);
        }
    }

    fn fill_chunk<U: Unit>(
        &self,
        unit: &mut U,
        chunk: Slot,
        change: impl FnOnce((Slot, Vec<Row>)) -> Option<(Slot, Vec<Row>)>,
    ) -> Result<bool> {
        let block = self.shape.chunk.block(chunk);
        self.not_the_head(block)?;
        let page = unit.page(block)?;
        page.expect(block, self.id, Kind::Overflow)?;
        let bytes = self.shape.chunk.get_mut(page, chunk);
        let Some((next, rows)) = change(read_chunk(self.shape, bytes)) else { return Ok(false) };
        write_chunk(self.shape, bytes, next, &rows);
        Ok(true)
    }
}

fn scaling(params: &Params) -> Scaling {
    Scaling { scale: params.scale, offset: params.offset, norm2: params.norm2 }
}

fn same((code, scaling, _): CodeRef, row: &NewRow) -> bool {
    scaling.scale == row.params.scale && scaling.offset == row.params.offset && code == row.code
}

/// Gives a new element its row.
fn push_row(shape: &Shape, page: &mut crate::page::Page, slot: Slot, row: &NewRow) {
    assert!(shape.view_mut(page, slot).push_inline(&row.row), "a new element has room for a row");
}

/// Writes an element without rows.
fn write_element(
    (shape, segment): (&Shape, u32),
    page: &mut crate::page::Page,
    slot: Slot,
    row: &NewRow,
    tails: &[Slot],
    records: &[Slot],
    neighbors: &[Slot],
) {
    let mut element = shape.view_mut(page, slot);
    let upper = records.first().copied().unwrap_or(NONE);
    element
        .write(segment, &NewElement { level: row.level, upper, params: row.params, code: row.code, tails, neighbors });
}
