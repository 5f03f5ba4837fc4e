//! VACUUM: heap TIDs of dead rows leave the index; pages that nobody uses become free.

use super::or_raise;
use crate::pg::buffer::IndexStore;
use crate::pg::lock::Maintenance;
use crate::pg::relation::{Index, OpenTable};
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

/// The end of a vacuum, if no compaction runs: pages that nobody needs any more become free; how many are. `swept`:
/// whether vacuum has been through the index, which is when all pages are looked at.
pub fn clean_up(index: Index, swept: bool, delay: impl FnMut()) -> u32 {
    let table = OpenTable::of_index(index);
    let free = Maintenance::try_acquire(index).map_or(0, |lock| {
        let store = IndexStore::with_table(index, &table);
        super::compact::free_dropped(index, &store, &lock);
        let free = if swept { free_pages(index, &store, delay) } else { 0 };
        index.vacuum_free_space_map();
        free
    });
    super::compact::after_vacuum(index, &table);
    free
}

/// Gives up what crashes left, and tells the free space map of all free pages; how many. The caller holds the
/// maintenance lock, so no page is reserved, and no segment is being written.
fn free_pages(index: Index, store: &IndexStore, mut delay: impl FnMut()) -> u32 {
    let mut known = or_raise(index, Directory::read(store));
    let mut free = 0;
    for block in META_BLOCK + 1..store.block_count() {
        delay();
        let tag_or_zero = or_raise(index, store.read(block, |page| page.tag().ok_or(page.is_zero())));
        let unused = match tag_or_zero {
            Ok(tag) if tag.kind == Kind::Directory => or_raise(index, index::free_stray_directory(store, block)),
            Ok(tag) if tag.is_free() => true,
            Ok(tag) if tag.kind == Kind::Free || is_orphan(index, store, &mut known, tag.segment) => {
                or_raise(index, store.release(block));
                true
            }
            Ok(_) => false,
            Err(zero) => zero,
        };
        if unused {
            index.record_free_page(block);
            free += 1;
        }
    }
    free
}

/// Whether pages of this segment are what a step of compaction left that did not come to its end: the directory does not
/// know the segment. Inserts may have opened it since the directory was read, so that is read again.
fn is_orphan(index: Index, store: &IndexStore, known: &mut (Meta, Directory), segment: u32) -> bool {
    if segment == 0 || is_listed(&known.1, segment) {
        return false;
    }
    *known = or_raise(index, Directory::read(store));
    segment < known.0.next_segment && !is_listed(&known.1, segment)
}

fn is_listed(directory: &Directory, segment: u32) -> bool {
    directory.segments.iter().any(|s| s.id == segment)
}
