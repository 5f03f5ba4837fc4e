//! The lists of IVF segments, and which of them are near a query.

use super::layout::{At, BLOCK_ROWS, Factors, Forms, GROUP, ListEntry, STREAM_BYTES, Stream};
use crate::error::{Error, Result};
use crate::hnsw::probe::Probe;
use crate::hnsw::read::Segment;
use crate::index::{Head, chain_index};
use crate::keys::{Filter, KeySummary, MAX_KEYS};
use crate::page::{Kind, PageStore};
use crate::shape::Slot;

/// Longest part of a record before its code.
const MAX_ENTRY: usize = super::layout::at::SUMMARY + KeySummary::size(MAX_KEYS);

/// Shows each list's record, in order, with the rank of its centroid: of those that may have rows that pass, if there
/// is a probe; else of all, with a rank of 0.
///
/// # Errors
/// [`Error::Corrupt`], also where the chain of centroids is too short for the lists that the head counts.
pub fn each_list<S: PageStore>(
    segment: Segment<S>,
    head: &Head,
    forms: &Forms,
    query: Option<(&Probe, &Filter)>,
    mut look: impl FnMut(&ListEntry, f32) -> Result<()>,
) -> Result<()> {
    let (code_at, code_end) = (forms.code_at(), forms.code_at() + segment.shape.dimensions);
    let mut stream =
        Stream::new(segment, Kind::Centroid, At { block: head.first[chain_index(Kind::Centroid)], offset: 0 });
    let mut bytes_before = [0; MAX_ENTRY];
    let (mut done, mut sum, mut left) = (0, 0.0, head.lists);
    let mut current: Option<ListEntry> = None;
    while left > 0 {
        stream.page(None, |mut page| {
            while !page.is_empty() && left > 0 {
                let end = if done < code_at {
                    code_at
                } else if done < code_end {
                    code_end
                } else {
                    forms.record_size()
                };
                let (now, later) = page.split_at(page.len().min(end - done));
                if done < code_at {
                    bytes_before[done..][..now.len()].copy_from_slice(now);
                } else if let (Some(entry), Some((probe, filter))) = (&current, query)
                    && done < code_end
                    && filter.may_pass(&entry.summary)
                {
                    sum += probe.part(done - code_at..done - code_at + now.len(), now, entry.scaling);
                }
                (done, page) = (done + now.len(), later);
                if done == code_at && current.is_none() {
                    current = Some(forms.read_entry(&bytes_before[..code_at]));
                }
                if done == forms.record_size()
                    && let Some(entry) = current.take()
                {
                    match query {
                        Some((probe, filter)) if filter.may_pass(&entry.summary) => {
                            look(&entry, probe.rank(sum, entry.scaling))?;
                        }
                        Some(_) => {}
                        None => look(&entry, 0.0)?,
                    }
                    (done, sum, left) = (0, 0.0, left - 1);
                }
            }
            Ok::<_, Error>(())
        })??;
    }
    Ok(())
}

/// What a list's stream of postings is made of.
pub enum Piece<'a> {
    /// Whole groups of a block's codes, and how many of its groups came before.
    Codes(&'a [u8], usize),
    /// What follows the codes of a block, and how many postings the block has.
    Factors(Factors<'a>, usize),
}

/// Shows all blocks of a list, piece by piece; `after` is where the caller will read next.
///
/// # Errors
/// [`Error::Corrupt`], also where the chain of postings is too short for the list.
#[inline]
pub fn each_piece<S: PageStore>(
    segment: Segment<S>,
    forms: &Forms,
    (start, postings): (At, u32),
    after: Option<At>,
    mut look: impl FnMut(Piece),
) -> Result<()> {
    let (codes, size) = (forms.code_bytes, forms.block_size());
    let mut stream = Stream::new(segment, Kind::Posting, start);
    // `done` bytes of a block were seen; `crossing` has what lies on the pages before of what follows its codes.
    let (mut done, mut left, mut crossing) = (0, postings as usize, Vec::new());
    while left > 0 {
        let bytes_left = left.div_ceil(BLOCK_ROWS).saturating_mul(size) - done;
        // A guess that is wrong where the list begins far down on its first page, and costs little.
        let ahead = if bytes_left <= STREAM_BYTES { after } else { None };
        stream.page(ahead, |mut page| {
            while !page.is_empty() && left > 0 {
                if done < codes {
                    let (now, later) = page.split_at(page.len().min(codes - done));
                    look(Piece::Codes(now, done / GROUP));
                    (done, page) = (done + now.len(), later);
                    continue;
                }
                let (now, later) = page.split_at(page.len().min(size - done));
                (done, page) = (done + now.len(), later);
                let whole = if now.len() == size - codes {
                    now
                } else {
                    crossing.extend_from_slice(now);
                    &crossing
                };
                if done == size {
                    let count = left.min(BLOCK_ROWS);
                    look(Piece::Factors(Factors::new(forms, whole), count));
                    crossing.clear();
                    (done, left) = (0, left - count);
                }
            }
        })?;
    }
    Ok(())
}

/// A list and how far its centroid is from the query.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    /// Of the centroid, as [`Probe::rank`] gives it.
    pub rank: f32,
    /// Squared norm of the centroid.
    pub norm2: f32,
    /// Which of the scan's segments it belongs to.
    pub source: u32,
    /// The first block of postings.
    pub start: At,
    /// Postings.
    pub postings: u32,
    /// The first of the list's elements.
    pub first: Slot,
    /// How many these are.
    pub elements: u32,
}

/// Lists of several segments, nearest first, sorted as far as they were asked for.
#[derive(Default)]
pub struct Ranking {
    lists: Vec<Near>,
    sorted: usize,
}

impl Ranking {
    /// Adds the lists of a segment, but those without rows that pass.
    pub fn add<S: PageStore>(
        &mut self,
        source: u32,
        segment: Segment<S>,
        head: &Head,
        forms: &Forms,
        (probe, filter): (&Probe, &Filter),
    ) -> Result<()> {
        self.sorted = 0;
        each_list(segment, head, forms, Some((probe, filter)), |entry, rank| {
            if entry.postings > 0 || entry.elements > 0 {
                let ListEntry { scaling, start, postings, first, elements, .. } = *entry;
                self.lists.push(Near { rank, norm2: scaling.norm2, source, start, postings, first, elements });
            }
            Ok(())
        })
    }

    /// Lists in all.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The `count` nearest lists, nearest first; fewer if there are fewer.
    pub fn nearest(&mut self, count: usize) -> &[Near] {
        let count = count.min(self.lists.len());
        if count > self.sorted {
            let rest = &mut self.lists[self.sorted..];
            let more = count - self.sorted;
            let by_rank = |a: &Near, b: &Near| a.rank.total_cmp(&b.rank);
            if more < rest.len() {
                rest.select_nth_unstable_by(more, by_rank);
            }
            rest[..more].sort_unstable_by(by_rank);
            self.sorted = count;
        }
        &self.lists[..count]
    }
}
