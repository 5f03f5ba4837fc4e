//! Whether a segment is sound, and how much of it searches can reach.

use super::read::Segment;
use crate::error::{Error, Result};
use crate::ivf;
use crate::keys::Row;
use crate::page::{BlockNumber, Kind, NONE, PageStore};
use crate::shape::{Slot, Slots};
use hashbrown::HashSet;

/// A fault of the structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The page that is wrong or points to what is.
    pub block: BlockNumber,
    /// Goes on after "block n", in words for a person.
    pub what: String,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows.
    pub rows: u64,
    /// Elements, with rows or without.
    pub elements: u64,
    /// Elements without rows.
    pub routers: u64,
    /// Elements that no path from the entry point, or no list, leads to.
    pub unreachable: u64,
    /// Links at level 0.
    pub links: u64,
}

impl<S: PageStore> Segment<'_, S> {
    /// Counts rows and elements; `unreachable` stays 0.
    pub fn tally(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        self.elements(|_, e| {
            counts.rows += u64::from(e.row_count());
            counts.elements += 1;
            counts.routers += u64::from(e.row_count() == 0);
            counts.links += e.neighbor_count() as u64;
        })?;
        Ok(counts)
    }

    /// Counts rows, elements, and those that have rows and are out of reach. Keeps the slots of all elements in memory.
    pub fn count(&self) -> Result<Counts> {
        let mut live = HashSet::new();
        self.elements(|slot, e| {
            if e.row_count() > 0 {
                live.insert(slot);
            }
        })?;
        for slot in self.reachable()? {
            live.remove(&slot);
        }
        Ok(Counts { unreachable: live.len() as u64, ..self.tally()? })
    }

    /// All elements that a path from the entry point leads to, over all levels, or a list.
    fn reachable(&self) -> Result<HashSet<Slot>> {
        let head = self.read_head()?;
        if head.lists > 0 {
            return ivf::check::reachable(*self, &head);
        }
        let mut seen = HashSet::new();
        if self.shape.m == 0 {
            // Nothing but reading it leads to what is in a pending list.
            self.elements(|slot, _| _ = seen.insert(slot))?;
            return Ok(seen);
        }
        if head.entry == NONE {
            return Ok(seen);
        }
        seen.insert(head.entry);
        let mut level = head.entry_level;
        while level > 0 {
            let mut queue: Vec<Slot> = Vec::new();
            for &slot in &seen {
                if self.element(slot, |e| e.level())? >= level {
                    queue.push(self.record_at(slot, level)?);
                }
            }
            while let Some(record) = queue.pop() {
                self.store.check_interrupts()?;
                let fresh = self.upper(record)?.2.into_iter().filter(|n| seen.insert(n.element));
                queue.extend(fresh.map(|n| n.record));
            }
            level -= 1;
        }
        let mut queue: Vec<Slot> = seen.iter().copied().collect();
        let mut neighbors = Vec::new();
        while let Some(slot) = queue.pop() {
            self.store.check_interrupts()?;
            self.neighbors(slot, &mut neighbors)?;
            queue.extend(neighbors.iter().copied().filter(|&n| seen.insert(n)));
        }
        Ok(seen)
    }

    /// Faults of the structure; `rows` receives all rows. Tails are not looked at.
    ///
    /// # Errors
    /// Where the head page cannot be read. What is wrong elsewhere is in the result.
    pub fn check(&self, rows: &mut Vec<Row>) -> Result<Vec<Problem>> {
        let head = self.read_head()?;
        let mut checker = Checker { segment: self, problems: Vec::new() };
        let start = rows.len();
        if head.entry != NONE {
            let level = checker.slot(self.head, "entry point", Kind::Element, self.shape.element, head.entry)?;
            if level && self.element(head.entry, |e| e.level())? != head.entry_level {
                checker.report(self.head, "has an entry point of another level than it says".into());
            }
        }
        let (mut block, mut pages) = (head.first_element(), 0u32);
        while block != NONE && pages <= self.store.block_count() {
            self.store.check_interrupts()?;
            pages += 1;
            block = match checker.page(block, rows) {
                Ok(next) => next,
                Err(error) => {
                    checker.report(block, error.to_string());
                    NONE
                }
            };
        }
        // Inserts may have added pages since, and widened the summary before they added rows.
        let now = self.read_head()?;
        let outside = |row: &&Row| now.summary.is_some_and(|summary| !summary.covers(&row.keys, self.shape.keys));
        if let Some(row) = rows[start..].iter().find(outside) {
            let what = format!("has not the keys of row ({},{}) in its range", row.tid.block, row.tid.offset);
            checker.report(self.head, what);
        }
        let most = now.element_pages;
        if !(head.element_pages..=most).contains(&pages) {
            let what = format!("counts {} pages of elements, the chain has {pages}", head.element_pages);
            checker.report(self.head, what);
        }
        let mut problems = checker.problems;
        if head.lists > 0 && problems.is_empty() {
            problems = match ivf::check::check(*self, &head) {
                Err(Error::Corrupt { block, what }) => vec![Problem { block, what }],
                found => found?,
            };
        }
        Ok(problems)
    }
}

struct Checker<'a, S> {
    segment: &'a Segment<'a, S>,
    problems: Vec<Problem>,
}

/// An element as the checker sees it.
struct Seen {
    slot: Slot,
    level: u8,
    upper: Slot,
    neighbors: Vec<Slot>,
}

impl<S: PageStore> Checker<'_, S> {
    fn report(&mut self, block: BlockNumber, what: String) {
        self.problems.push(Problem { block, what });
    }

    /// Whether a slot exists; reports if it does not.
    fn slot(&mut self, from: BlockNumber, name: &str, kind: Kind, slots: Slots, slot: Slot) -> Result<bool> {
        let block = slots.block(slot);
        if block >= self.segment.store.block_count() {
            self.report(from, format!("has {name} {slot} in block {block}, beyond the end of the index"));
            return Ok(false);
        }
        let id = self.segment.id;
        let found = self.segment.store.read(block, |page| page.expect(block, id, kind))?;
        let what = match found {
            Ok(tag) if slots.index(slot) < u32::from(tag.used) => return Ok(true),
            Ok(tag) => format!("has {name} {slot}, but block {block} has only {} slots in use", tag.used),
            Err(error) => format!("has {name} {slot}, but {error}"),
        };
        self.report(from, what);
        Ok(false)
    }

    fn page(&mut self, block: BlockNumber, rows: &mut Vec<Row>) -> Result<BlockNumber> {
        let mut seen = Vec::new();
        let next = self.segment.elements_of(block, |slot, e| {
            let (level, upper) = (e.level(), e.upper());
            seen.push(Seen { slot, level, upper, neighbors: e.neighbors().collect() });
        })?;
        for element in seen {
            self.element(block, &element, rows)?;
        }
        Ok(next)
    }

    fn element(&mut self, block: BlockNumber, e: &Seen, rows: &mut Vec<Row>) -> Result<()> {
        let shape = self.segment.shape;
        let mut known = HashSet::new();
        for &n in &e.neighbors {
            self.slot(block, "neighbor", Kind::Element, shape.element, n)?;
            if n == e.slot || !known.insert(n) {
                self.report(block, format!("element {} has neighbor {n} twice or is its own", e.slot));
            }
        }
        let (mut record, mut level) = (e.upper, 0);
        while record != NONE && level < e.level && self.slot(block, "record", Kind::Upper, shape.upper, record)? {
            level += 1;
            let (up, _, neighbors) = self.segment.upper(record)?;
            for n in neighbors {
                if self.slot(block, "upper neighbor", Kind::Element, shape.element, n.element)? {
                    self.slot(block, "record of a neighbor", Kind::Upper, shape.upper, n.record)?;
                }
            }
            record = up;
        }
        if level != e.level || record != NONE {
            self.report(block, format!("element {} has records for {level} levels, its level is {}", e.slot, e.level));
        }
        if let Some((counted, found)) = self.rows_of(e.slot, rows)? {
            self.report(block, format!("element {} counts {counted} rows and lists {found}", e.slot));
        }
        Ok(())
    }

    /// Appends the rows of an element. Counted and found, where they differ.
    fn rows_of(&self, slot: Slot, rows: &mut Vec<Row>) -> Result<Option<(usize, usize)>> {
        let start = rows.len();
        let count = || self.segment.element(slot, |e| e.row_count() as usize);
        let mut before = count()?;
        // Inserts and vacuums may pass between the reads, so a difference must stay to be a fault.
        for _ in 0..10 {
            rows.truncate(start);
            self.segment.rows(slot, rows)?;
            let (found, after) = (rows.len() - start, count()?);
            if found == before || found == after {
                return Ok(None);
            }
            before = after;
        }
        Ok(Some((before, rows.len() - start)))
    }
}
