//! Going through all elements of a segment: flat search, vacuum, checks.

use super::probe::{Probe, Scaling};
use super::read::{Ranked, Segment};
use crate::distance::prefetch;
use crate::error::{Error, Result};
use crate::index::Head;
use crate::keys::{Filter, KeySummary, Row};
use crate::page::{BlockNumber, Circle, Kind, NONE, Page, PageStore, Place, Unit};
use crate::shape::{Element, HeapTid, Slot, read_chunk, write_chunk};

/// What vacuum did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows removed.
    pub removed: u64,
    /// Rows left.
    pub live: u64,
    /// Elements that only route.
    pub routers: u64,
}

impl<S: PageStore> Segment<'_, S> {
    /// Reads the head page.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the page is not the head of this segment.
    pub fn read_head(&self) -> Result<Head> {
        self.store.read(self.head, |page| Head::decode(page, self.head, self.id))?
    }

    /// Shows the elements of one page, in order. Returns the next page.
    pub fn elements_of(&self, block: BlockNumber, mut look: impl FnMut(Slot, Element)) -> Result<BlockNumber> {
        self.store.read(block, |page| {
            let tag = page.expect(block, self.id, Kind::Element)?;
            let used = u32::from(tag.used).min(self.shape.element.per_page);
            self.prefetch_rows(page, used);
            for index in 0..used {
                let slot = self.shape.element.slot(block, index)?;
                look(slot, self.shape.view(page, slot));
            }
            Ok(tag.next)
        })?
    }

    /// Shows all elements, page after page.
    pub fn elements(&self, mut look: impl FnMut(Slot, Element)) -> Result<()> {
        let mut block = self.read_head()?.first_element();
        let mut circle = Circle::default();
        while block != NONE {
            self.store.check_interrupts()?;
            circle.step(block, block)?;
            block = self.elements_of(block, &mut look)?;
        }
        Ok(())
    }

    /// Ranks those elements of one page into `out` that have rows which may pass; without a probe all ranks are 0.
    /// Returns the next page.
    pub fn rank_page(
        &self,
        probe: Option<&Probe>,
        filter: &Filter,
        block: BlockNumber,
        places: &mut Vec<Place>,
        out: &mut Vec<Ranked>,
    ) -> Result<BlockNumber> {
        out.clear();
        if let Some(probe) = probe.filter(|_| self.shape.tails > 0) {
            let mut slots = Vec::new();
            let next = self.elements_of(block, |slot, e| {
                if e.passes(filter) {
                    slots.push(slot);
                }
            })?;
            self.rank_filtered(probe, filter, &slots, places, out)?;
            return Ok(next);
        }
        self.store.read(block, |page| {
            let tag = page.expect(block, self.id, Kind::Element)?;
            let used = u32::from(tag.used).min(self.shape.element.per_page);
            self.prefetch_rows(page, used);
            for index in 0..used {
                let slot = self.shape.element.slot(block, index)?;
                let e = self.shape.view(page, slot);
                if e.passes(filter) {
                    prefetch(e.head_code());
                    out.push(Ranked { slot, rank: 0.0, live: true, norm2: e.norm2(), residual: e.residual() });
                }
            }
            let Some(probe) = probe else { return Ok(tag.next) };
            for ranked in out.iter_mut() {
                let e = self.shape.view(page, ranked.slot);
                let scaling = Scaling { scale: e.scale(), offset: e.offset(), norm2: e.norm2() };
                ranked.rank = probe.rank(probe.part(0..self.shape.head_code, e.head_code(), scaling), scaling);
            }
            Ok(tag.next)
        })?
    }

    /// Asks for what tells an element's rows. Who looks at these only leaves most of a page unread, in steps too wide for
    /// the processor to foresee.
    fn prefetch_rows(&self, page: &Page, used: u32) {
        let elements = page.body().chunks_exact(self.shape.element.size).take(used as usize);
        elements.for_each(|element| prefetch(&element[..self.shape.code_at]));
    }

    /// Shows all rows, in no order.
    pub fn each_row(&self, mut look: impl FnMut(&Row)) -> Result<()> {
        let mut chained = Vec::new();
        self.elements(|slot, e| {
            if e.row_count() as usize > e.inline_count() {
                chained.push(slot);
            } else {
                e.inline_rows().for_each(|row| look(&row));
            }
        })?;
        let mut rows = Vec::new();
        for slot in chained {
            rows.clear();
            self.rows(slot, &mut rows)?;
            rows.iter().for_each(&mut look);
        }
        Ok(())
    }

    /// Makes the head's summary cover `summary`, if the head keeps one: a unit of its own, before a row outside of it is
    /// published. Whether the segment is active.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the page is not the head of this segment.
    pub fn widen(&self, summary: &KeySummary) -> Result<bool> {
        let mut unit = self.store.unit();
        let page = unit.page(self.head)?;
        let mut head = Head::decode(page, self.head, self.id)?;
        if let Some(own) = head.summary.as_mut().filter(|_| head.active) {
            own.join(summary);
            head.encode(page);
            unit.commit()?;
        }
        Ok(head.active)
    }

    /// Removes the rows whose heap TIDs `dead` names. The element stays and routes.
    pub fn vacuum(&self, mut dead: impl FnMut(HeapTid) -> bool, mut delay: impl FnMut()) -> Result<Swept> {
        let (mut swept, mut circle) = (Swept::default(), Circle::default());
        let mut block = self.read_head()?.first_element();
        while block != NONE {
            self.store.check_interrupts()?;
            circle.step(block, block)?;
            delay();
            block = self.vacuum_page(block, &mut dead, &mut swept)?;
        }
        self.note_routers(swept.routers)?;
        Ok(swept)
    }

    /// Lets compaction know how much of the segment is dead.
    fn note_routers(&self, routers: u64) -> Result<()> {
        let mut unit = self.store.unit();
        let page = unit.page(self.head)?;
        let mut head = Head::decode(page, self.head, self.id)?;
        if head.routers == routers {
            return Ok(());
        }
        head.routers = routers;
        head.encode(page);
        unit.commit()
    }

    fn vacuum_page(
        &self,
        block: BlockNumber,
        dead: &mut impl FnMut(HeapTid) -> bool,
        swept: &mut Swept,
    ) -> Result<BlockNumber> {
        let (mut any, mut chained) = (false, Vec::new());
        let next = self.elements_of(block, |slot, e| {
            any |= e.inline_rows().any(|row| dead(row.tid));
            if e.overflow() != NONE {
                chained.push(slot);
            }
        })?;
        if any {
            let mut unit = self.store.unit();
            let page = unit.page(block)?;
            let used = page.expect(block, self.id, Kind::Element)?.used;
            for index in 0..u32::from(used).min(self.shape.element.per_page) {
                let mut element = self.shape.view_mut(page, self.shape.element.slot(block, index)?);
                let dropped = element.retain_inline(&mut *dead);
                let left = element.as_ref().row_count().saturating_sub(dropped);
                element.set_row_count(left);
                swept.removed += u64::from(dropped);
            }
            unit.commit()?;
        }
        for slot in chained {
            swept.removed += self.vacuum_chain(slot, dead)?;
        }
        self.elements_of(block, |_, e| {
            swept.live += u64::from(e.row_count());
            swept.routers += u64::from(e.row_count() == 0);
        })?;
        Ok(next)
    }

    fn vacuum_chain(&self, slot: Slot, dead: &mut impl FnMut(HeapTid) -> bool) -> Result<u64> {
        let (mut removed, mut circle) = (0, Circle::default());
        let mut chunk = self.element(slot, |e| e.overflow())?;
        while chunk != NONE {
            self.store.check_interrupts()?;
            let block = self.shape.chunk.block(chunk);
            circle.step(chunk, block)?;
            let (next, rows) = self.store.read(block, |page| {
                page.expect(block, self.id, Kind::Overflow)?;
                Ok::<_, Error>(read_chunk(self.shape, self.shape.chunk.get(page, chunk)))
            })??;
            if rows.iter().any(|row| dead(row.tid)) {
                removed += self.vacuum_chunk(slot, chunk, dead)?;
            }
            chunk = next;
        }
        Ok(removed)
    }

    fn vacuum_chunk(&self, slot: Slot, chunk: Slot, dead: &mut impl FnMut(HeapTid) -> bool) -> Result<u64> {
        let mut unit = self.store.unit();
        let block = self.shape.element.block(slot);
        unit.page(block)?.expect(block, self.id, Kind::Element)?;
        let page = unit.page(self.shape.chunk.block(chunk))?;
        page.expect(self.shape.chunk.block(chunk), self.id, Kind::Overflow)?;
        let bytes = self.shape.chunk.get_mut(page, chunk);
        let (next, mut rows) = read_chunk(self.shape, bytes);
        let before = rows.len();
        rows.retain(|row| !dead(row.tid));
        write_chunk(self.shape, bytes, next, &rows);
        let dropped = (before - rows.len()) as u32;
        let mut element = self.shape.view_mut(unit.page(block)?, slot);
        let left = element.as_ref().row_count().saturating_sub(dropped);
        element.set_row_count(left);
        unit.commit()?;
        Ok(u64::from(dropped))
    }
}
