//! Whether the lists of an IVF segment are sound, and which elements they lead to.

use super::bits::Coder;
use super::layout::{BLOCK_ROWS, Forms, ListEntry};
use super::lists::{Piece, each_list, each_piece};
use crate::distance::Metric;
use crate::error::{Error, Result};
use crate::hnsw::check::Problem;
use crate::hnsw::read::Segment;
use crate::index::Head;
use crate::keys::Keys;
use crate::page::{NONE, PageStore};
use crate::shape::{Shape, Slot};
use hashbrown::HashSet;

/// The form of an index's lists.
pub fn forms(shape: &Shape) -> Forms {
    let groups = if shape.metric == Metric::L1 { 0 } else { Coder::new(shape.metric, shape.dimensions).groups() };
    Forms::new(shape, groups)
}

/// A posting as the checks see it.
struct Named {
    slot: Slot,
    keys: Keys,
    several: bool,
}

fn entries<S: PageStore>(segment: Segment<S>, head: &Head, forms: &Forms) -> Result<Vec<ListEntry>> {
    let mut entries = Vec::new();
    each_list(segment, head, forms, None, |entry, _| {
        entries.push(*entry);
        Ok(())
    })?;
    Ok(entries)
}

fn postings<S: PageStore>(segment: Segment<S>, forms: &Forms, entry: &ListEntry) -> Result<Vec<Named>> {
    let mut named = Vec::new();
    each_piece(segment, forms, (entry.start, entry.postings), None, |piece| {
        if let Piece::Factors(factors, count) = piece {
            let several = factors.several();
            let of = |i| Named { slot: factors.slot(i), keys: factors.keys(i), several: several >> i & 1 == 1 };
            named.extend((0..count).map(of));
            // Nobody reads these; what is there would be read if the list's count were wrong.
            named.extend((count..BLOCK_ROWS).filter(|&i| factors.slot(i) != NONE).map(of));
        }
    })?;
    Ok(named)
}

/// Slots of all elements that the lists lead to.
pub fn reachable<S: PageStore>(segment: Segment<S>, head: &Head) -> Result<HashSet<Slot>> {
    let (forms, mut slots, mut in_lists) = (forms(segment.shape), HashSet::new(), 0u64);
    for entry in entries(segment, head, &forms)? {
        slots.extend(postings(segment, &forms, &entry)?.iter().map(|named| named.slot));
        in_lists += u64::from(entry.elements);
    }
    if forms.code_bytes == 0 {
        // Lists are stretches of the chain of elements, which follow each other.
        segment.elements(|slot, _| {
            if (slots.len() as u64) < in_lists {
                slots.insert(slot);
            }
        })?;
    }
    Ok(slots)
}

/// Faults of the lists. The chain of elements is sound: without that this fails.
pub fn check<S: PageStore>(segment: Segment<S>, head: &Head) -> Result<Vec<Problem>> {
    let forms = forms(segment.shape);
    let mut checker = Checker { segment, forms, chain: Vec::new(), live: HashSet::new(), problems: Vec::new() };
    segment.elements(|slot, e| {
        checker.chain.push(slot);
        if e.row_count() > 0 {
            checker.live.insert(slot);
        }
    })?;
    let known: HashSet<Slot> = checker.chain.iter().copied().collect();
    let mut missing = checker.live.clone();
    let (entries, mut at) = match entries(segment, head, &forms) {
        Ok(entries) => (entries, 0),
        Err(error) => {
            checker.fail(&error);
            return Ok(checker.problems);
        }
    };
    for (list, entry) in entries.iter().enumerate() {
        segment.store.check_interrupts()?;
        at = checker.stretch(list, entry, at);
        match postings(segment, &forms, entry) {
            Ok(named) => checker.postings(list, entry, &named, &known, &mut missing)?,
            Err(error) => checker.fail(&error),
        }
    }
    if at != checker.chain.len() {
        let what = format!("has {} elements, its lists count {at}", checker.chain.len());
        checker.report(segment.head, what);
    }
    if forms.code_bytes > 0 && !missing.is_empty() {
        let some = missing.iter().min().copied().unwrap_or(NONE);
        let what = format!("has {} elements with rows that no list names, the first is {some}", missing.len());
        checker.report(segment.shape.element.block(some), what);
    }
    Ok(checker.problems)
}

struct Checker<'a, S> {
    segment: Segment<'a, S>,
    forms: Forms,
    /// All elements in order.
    chain: Vec<Slot>,
    /// Those with rows.
    live: HashSet<Slot>,
    problems: Vec<Problem>,
}

impl<S: PageStore> Checker<'_, S> {
    fn report(&mut self, block: u32, what: String) {
        self.problems.push(Problem { block, what });
    }

    fn fail(&mut self, error: &Error) {
        match error {
            Error::Corrupt { block, what } => self.report(*block, what.clone()),
            other => self.report(self.segment.head, other.to_string()),
        }
    }

    /// The elements of a list are the next ones of the chain. Where the next list begins.
    fn stretch(&mut self, list: usize, entry: &ListEntry, at: usize) -> usize {
        let next = self.chain.get(at).copied().unwrap_or(NONE);
        if entry.elements > 0 && entry.first != next || entry.elements == 0 && entry.first != NONE {
            let what = format!("has list {list} begin with element {}, the chain goes on with {next}", entry.first);
            self.report(self.segment.head, what);
        }
        at.saturating_add(entry.elements as usize)
    }

    fn postings(
        &mut self,
        list: usize,
        entry: &ListEntry,
        named: &[Named],
        known: &HashSet<Slot>,
        missing: &mut HashSet<Slot>,
    ) -> Result<()> {
        let (keys, mut here) = (self.segment.shape.keys, HashSet::new());
        if self.forms.code_bytes == 0 && entry.postings > 0 || named.len() != entry.postings as usize {
            let what = format!("has list {list} with {} postings, it counts {}", named.len(), entry.postings);
            self.report(entry.start.block, what);
        }
        for posting in named {
            missing.remove(&posting.slot);
            if !known.contains(&posting.slot) || !here.insert(posting.slot) {
                let what = format!("has list {list} name element {}, which is none or named twice", posting.slot);
                self.report(entry.start.block, what);
                continue;
            }
            if keys == 0 || !self.live.contains(&posting.slot) {
                continue;
            }
            let mut rows = Vec::new();
            self.segment.rows(posting.slot, &mut rows)?;
            // A vacuum may have taken some of several rows.
            let differ = !posting.several && (rows.len() > 1 || rows.iter().any(|row| row.keys != posting.keys));
            if differ || rows.iter().any(|row| !entry.summary.covers(&row.keys, keys)) {
                let what = format!("has list {list} with other keys for element {} than it has", posting.slot);
                self.report(entry.start.block, what);
            }
        }
        Ok(())
    }
}
