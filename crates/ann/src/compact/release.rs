//! Giving up the pages of segments that are no longer listed.
//!
//! A scan may read a segment as long as it has the directory that listed it. So the next transaction id is looked up
//! after the segment has left the list; when everybody who could have begun before that is gone, the pages are free.

use super::{Action, Help, Report};
use crate::error::{Error, Result};
use crate::index::{Directory, DroppedEntry, Flip, Head};
use crate::page::{BlockNumber, Circle, Kind, NONE, PageStore, Tag, Unit};
use hashbrown::HashSet;

/// Dropped segments that the directory lists one by one. Beyond, the oldest are listed as one.
const SINGLE: usize = 16;

/// Whether there is something to do about dropped segments.
pub(super) fn is_due(store: &impl PageStore, directory: &Directory) -> bool {
    let dropped = &directory.dropped;
    dropped.iter().any(|d| d.safexid == 0 || store.is_removable(d.safexid)) || dropped.len() > SINGLE
}

/// Sets the transaction ids of segments that were dropped before this call.
pub(super) fn look_up(store: &impl PageStore) -> Result<()> {
    loop {
        let (meta, mut directory) = Directory::read(store)?;
        if directory.dropped.iter().all(|d| d.safexid > 0) {
            return Ok(());
        }
        let next = store.next_xid();
        let Some(flip) = Flip::begin(store, &meta)? else { continue };
        directory.dropped.iter_mut().filter(|d| d.safexid == 0).for_each(|d| d.safexid = next);
        let old = flip.commit(directory)?;
        return store.release(old);
    }
}

/// Gives up what nobody can read any more.
pub(super) fn free(store: &impl PageStore, help: &impl Help) -> Result<Option<Report>> {
    let started = help.now();
    look_up(store)?;
    let (mut pages, mut inputs) = (0, Vec::new());
    let due: Vec<DroppedEntry> =
        Directory::read(store)?.1.dropped.into_iter().filter(|d| store.is_removable(d.safexid)).collect();
    if let Some(newest) = due.iter().map(|d| d.safexid).max() {
        store.log_reuse(newest)?;
    }
    for entry in due {
        if !free_all(store, entry, help, &mut pages)? {
            break;
        }
        remove(store, entry.id)?;
        inputs.push(entry.id);
    }
    fold(store)?;
    let finished = help.now();
    Ok(Some(Report { action: Action::Free, inputs, output: None, rows: pages, started, finished }))
}

/// Gives up all pages of a dropped segment, and of those that it stands for. False: somebody wants the lock.
///
/// From the end of each chain to its front, and the head last: after a crash what is left is still found from the head.
fn free_all(store: &impl PageStore, entry: DroppedEntry, help: &impl Help, pages: &mut u64) -> Result<bool> {
    for (id, block, head) in heads_of(store, entry)?.into_iter().rev() {
        for first in head.first {
            for page in chain(store, id, first)?.into_iter().rev() {
                store.check_interrupts()?;
                if help.wanted() {
                    return Ok(false);
                }
                store.release(page)?;
                *pages += 1;
                help.progress(*pages)?;
            }
        }
        store.release(block)?;
        *pages += 1;
    }
    Ok(true)
}

/// The dropped segments that an entry stands for: id, head block, head; as many as still have their heads.
fn heads_of(store: &impl PageStore, entry: DroppedEntry) -> Result<Vec<(u32, BlockNumber, Head)>> {
    let (mut heads, mut circle) = (Vec::new(), Circle::default());
    let mut next = Some((entry.id, entry.head));
    while let Some((id, block)) = next {
        store.check_interrupts()?;
        circle.step(id, block)?;
        let found = store.read(block, |page| page.tag() == Some(Tag::new(id, Kind::SegmentHead)))?;
        if !found {
            break;
        }
        let head = store.read(block, |page| Head::decode(page, block, id))??;
        next = head.behind;
        heads.push((id, block, head));
    }
    Ok(heads)
}

/// The pages of a chain, up to the first that is not the segment's.
fn chain(store: &impl PageStore, segment: u32, first: BlockNumber) -> Result<Vec<BlockNumber>> {
    let (mut blocks, mut block, mut circle) = (Vec::new(), first, Circle::default());
    while block != NONE {
        store.check_interrupts()?;
        circle.step(block, block)?;
        match store.read(block, |page| page.tag())? {
            Some(tag) if tag.segment == segment && tag.kind != Kind::SegmentHead => {
                blocks.push(block);
                block = tag.next;
            }
            _ => break,
        }
    }
    Ok(blocks)
}

fn remove(store: &impl PageStore, id: u32) -> Result<()> {
    loop {
        let (meta, mut directory) = Directory::read(store)?;
        let Some(flip) = Flip::begin(store, &meta)? else { continue };
        directory.dropped.retain(|d| d.id != id);
        let old = flip.commit(directory)?;
        return store.release(old);
    }
}

/// Lets the second oldest dropped segment stand for the oldest, too, until few are left: transactions that last for
/// hours keep any number of dropped segments waiting, and the directory is one page.
fn fold(store: &impl PageStore) -> Result<()> {
    loop {
        let (meta, mut directory) = Directory::read(store)?;
        let &[oldest, second, ..] = &directory.dropped[..] else { return Ok(()) };
        if directory.dropped.len() <= SINGLE || oldest.safexid == 0 || second.safexid == 0 {
            return Ok(());
        }
        let Some(mut flip) = Flip::begin(store, &meta)? else { continue };
        let page = flip.unit.page(second.head)?;
        let mut head = Head::decode(page, second.head, second.id)?;
        if head.behind.is_some() {
            return Err(Error::corrupt(second.head, "stands for other dropped segments, and is not the oldest"));
        }
        head.behind = Some((oldest.id, oldest.head));
        head.encode(page);
        directory.dropped[1].safexid = second.safexid.max(oldest.safexid);
        directory.dropped.remove(0);
        let old = flip.commit(directory)?;
        store.release(old)?;
    }
}

/// Which segments there are, listed or dropped. What VACUUM needs to find pages that a crash left.
///
/// Invariant: the maintenance lock is held as long as this is used. Others may open segments meanwhile, with ids from
/// `next` on.
pub struct Known {
    ids: HashSet<u32>,
    next: u32,
}

impl Known {
    /// From the directory, and the heads of dropped segments.
    pub fn read(store: &impl PageStore) -> Result<Self> {
        let (meta, directory) = Directory::read(store)?;
        let mut ids: HashSet<u32> = directory.segments.iter().map(|s| s.id).collect();
        for &entry in &directory.dropped {
            ids.insert(entry.id);
            ids.extend(heads_of(store, entry)?.iter().map(|h| h.0));
        }
        Ok(Self { ids, next: meta.next_segment })
    }

    /// Whether a page belongs to a segment that was never finished, or that is gone.
    pub fn is_orphan(&self, tag: Tag) -> bool {
        tag.segment != 0 && tag.segment < self.next && !self.ids.contains(&tag.segment)
    }

    /// Gives a page up if it is an orphan. Whether it was one; then the caller tells the free space map.
    pub fn free_orphan(&self, store: &impl PageStore, block: BlockNumber) -> Result<bool> {
        let mut unit = store.unit();
        let page = unit.page(block)?;
        if !page.tag().is_some_and(|tag| self.is_orphan(tag)) {
            return Ok(false);
        }
        page.set_tag(Tag::new(0, Kind::Free));
        unit.commit()?;
        Ok(true)
    }
}
