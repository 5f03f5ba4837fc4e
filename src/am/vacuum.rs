//! VACUUM: heap TIDs of dead rows leave the index; pages that nobody uses become free.

use super::or_raise;
use crate::pg::buffer::IndexStore;
use crate::pg::relation::Index;
use ann::hnsw::read::Segment;
use ann::hnsw::sweep::Swept;
use ann::index::{self, Directory, Meta};
use ann::page::{Kind, META_BLOCK, PageStore};
use ann::shape::HeapTid;

/// Removes the heap TIDs that `dead` names from all segments.
pub fn bulk_delete(index: Index, mut dead: impl FnMut(HeapTid) -> bool, mut delay: impl FnMut()) -> Swept {
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

/// Tells the free space map of pages that a crash left zero or that were given up; how many. Only where vacuum has
/// been through the index anyway.
pub fn clean_up(index: Index, swept_before: bool, mut delay: impl FnMut()) -> u32 {
    if !swept_before {
        return 0;
    }
    let store = IndexStore::new(index);
    let root = or_raise(index, Meta::read(&store)).root;
    let mut free = 0;
    for block in META_BLOCK + 1..store.block_count() {
        delay();
        let tag_or_zero = store.read(block, |page| page.tag().ok_or(page.is_zero()));
        let unused = match or_raise(index, tag_or_zero) {
            Ok(tag) if tag.kind == Kind::Directory && block != root => {
                or_raise(index, index::free_stray_directory(&store, block))
            }
            Ok(tag) => tag.kind == Kind::Free,
            Err(zero) => zero,
        };
        if unused {
            index.record_free_page(block);
            free += 1;
        }
    }
    index.vacuum_free_space_map();
    free
}
