//! VACUUM: heap TIDs of dead rows leave the index; pages that nobody uses become free.

use super::or_raise;
use crate::pg::buffer::{IndexStore, PageSweep};
use crate::pg::lock::Maintenance;
use crate::pg::relation::{Index, OpenTable};
use ann::compact::Known;
use ann::hnsw::read::Segment;
use ann::hnsw::sweep::Swept;
use ann::index::{self, Directory, Meta};
use ann::page::{Kind, META_BLOCK, PageStore};
use ann::shape::HeapTid;

/// Removes the heap TIDs that `dead` names from all segments.
pub fn bulk_delete(index: Index, mut dead: impl FnMut(HeapTid) -> bool, mut delay: impl FnMut()) -> Swept {
    // Entries must not move between segments while these are read one after the other.
    let _lock = Maintenance::acquire(index);
    let store = IndexStore::new(index);
    let (meta, directory) = or_raise(index, Directory::read(&store));
    let shapes = meta.parameters.shapes();
    let mut total = Swept::default();
    for entry in &directory.segments {
        let segment = Segment { store: &store, shape: shapes.of(entry.kind), id: entry.id, head: entry.head };
        let swept = or_raise(index, segment.vacuum(&mut dead, &mut delay));
        total.removed += swept.removed;
        total.live += swept.live;
        total.routers += swept.routers;
    }
    total
}

/// The end of a vacuum, if no compaction runs: pages that nobody needs any more become free; how many are free. `swept`:
/// whether vacuum has been through the index, so that looking at all pages is the smaller part of it.
pub fn clean_up(index: Index, sweep: &PageSweep, swept: bool, delay: impl FnMut()) -> u32 {
    let table = OpenTable::of_index(index);
    let Some(lock) = Maintenance::try_acquire(index) else { return 0 };
    let store = IndexStore::with_table(index, &table);
    let due = super::compact::free_dropped(index, &store, &lock).is_some();
    let (meta, directory) = or_raise(index, Directory::read(&store));
    let free = if swept || may_have_orphans(&meta, &directory) { free_pages(index, &store, sweep, delay) } else { 0 };
    index.vacuum_free_space_map();
    drop(lock);
    if due {
        super::compact::after_vacuum(index, &table);
    }
    free
}

/// Whether a step of compaction may have been broken off: some has run, or one was about to write the newest segment.
fn may_have_orphans(meta: &Meta, directory: &Directory) -> bool {
    meta.history != META_BLOCK || directory.segments.iter().all(|s| s.id + 1 < meta.next_segment)
}

/// Gives up what was left of crashes and of steps that were broken off, and tells the free space map of all free pages;
/// how many. The caller holds the maintenance lock, so no page is reserved, and no segment is being written.
fn free_pages(index: Index, store: &IndexStore, sweep: &PageSweep, mut delay: impl FnMut()) -> u32 {
    let known = or_raise(index, Known::read(store));
    let mut free = 0;
    for block in META_BLOCK + 1..store.block_count() {
        delay();
        let unused = match sweep.look(index, block) {
            Ok(tag) if tag.kind == Kind::Directory => or_raise(index, index::free_stray_directory(store, block)),
            Ok(tag) if tag.is_free() => true,
            Ok(tag) if tag.kind == Kind::Free => {
                or_raise(index, store.release(block));
                true
            }
            Ok(tag) => known.is_orphan(tag) && or_raise(index, known.free_orphan(store, block)),
            Err(zero) => zero,
        };
        if unused {
            index.record_free_page(block);
            free += 1;
        }
    }
    free
}
