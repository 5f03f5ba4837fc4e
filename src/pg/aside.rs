//! Pages of a segment that is written aside: reserved first, then written whole, each in a WAL record of its own.
//!
//! A reserved page says so in its trailer, in the WAL too. Otherwise a session that got the same block from the free
//! space map a moment ago, and waits for its lock, would find it free and take it.

use super::buffer::{EXCLUSIVE, IndexStore, page_of};
use super::relation::{Critical, needs_wal};
use super::unit::init_page;
use ann::error::{Error, Result};
use ann::page::{BlockNumber, HEADER_SIZE, PAGE_SIZE, Page, PageStore, TRAILER_SIZE, Tag};
use pgrx::pg_sys;

/// Pages added to the file under one hold of the extension lock; as many are pinned.
const EXTEND_BY: usize = 32;

impl IndexStore {
    /// A free page from the free space map, pinned and exclusively locked; pages found in use are skipped.
    pub(super) fn lock_free_page(&self) -> Result<Option<(BlockNumber, pg_sys::Buffer)>> {
        loop {
            // SAFETY: the relation is open.
            let block = unsafe { pg_sys::GetFreeIndexPage(self.index().as_ptr()) };
            if block == pg_sys::InvalidBlockNumber {
                return Ok(None);
            }
            // The map is not logged: after a crash or in a backup it may know more blocks than there are.
            if !self.has(block) {
                continue;
            }
            let buffer = self.pin(block)?;
            // SAFETY: the buffer is pinned. Not waiting: somebody else may hold it and wait for us.
            if !unsafe { pg_sys::ConditionalLockBuffer(buffer) } {
                // SAFETY: pinned above.
                unsafe { pg_sys::ReleaseBuffer(buffer) };
                continue;
            }
            // SAFETY: pinned and locked.
            let page = unsafe { page_of(buffer) };
            if page.is_zero() || page.tag().is_some_and(|tag| tag.is_free()) {
                return Ok(Some((block, buffer)));
            }
            // SAFETY: pinned and locked above.
            unsafe { pg_sys::UnlockReleaseBuffer(buffer) };
        }
    }

    /// See [`PageStore::reserve`].
    pub(super) fn reserve_pages(&self, pages: u32) -> Result<Vec<BlockNumber>> {
        let pages = pages as usize;
        let mut blocks: Vec<BlockNumber> = Vec::new();
        while blocks.len() < pages {
            self.check_interrupts()?;
            let Some((block, buffer)) = self.lock_free_page()? else { break };
            self.overwrite_locked(buffer, write_reservation);
            blocks.push(block);
        }
        while blocks.len() < pages {
            self.check_interrupts()?;
            if pages - blocks.len() < EXTEND_BY {
                self.reserve_added(self.index().extend_by::<1>(), &mut blocks);
            } else {
                self.reserve_added(self.index().extend_by::<EXTEND_BY>(), &mut blocks);
            }
        }
        blocks.sort_unstable();
        Ok(blocks)
    }

    /// Reserves pages just added to the file and unpins them. One that somebody has taken meanwhile is left out: the map
    /// may have listed it before it was there.
    fn reserve_added<const N: usize>(&self, added: [(BlockNumber, pg_sys::Buffer); N], blocks: &mut Vec<BlockNumber>) {
        for (block, buffer) in added {
            // SAFETY: the buffer is pinned.
            unsafe { pg_sys::LockBuffer(buffer, EXCLUSIVE) };
            // SAFETY: pinned and locked.
            if unsafe { page_of(buffer) }.is_zero() {
                self.overwrite_locked(buffer, write_reservation);
                blocks.push(block);
            } else {
                // SAFETY: pinned and locked above.
                unsafe { pg_sys::UnlockReleaseBuffer(buffer) };
            }
        }
    }

    /// See [`PageStore::write_new`].
    pub(super) fn write_reserved(&self, block: BlockNumber, page: &Page) -> Result<()> {
        let buffer = self.pin(block)?;
        // SAFETY: the buffer is pinned.
        unsafe { pg_sys::LockBuffer(buffer, EXCLUSIVE) };
        // SAFETY: pinned and locked.
        if unsafe { page_of(buffer) }.tag() != Some(Tag::reserved()) {
            // SAFETY: pinned and locked above.
            unsafe { pg_sys::UnlockReleaseBuffer(buffer) };
            return Err(Error::corrupt(block, "was to be written and is not reserved"));
        }
        self.overwrite_locked(buffer, |target| {
            init_page(target);
            target.0[HEADER_SIZE..].copy_from_slice(&page.0[HEADER_SIZE..]);
        });
        Ok(())
    }

    /// Writes and logs a page whose buffer is pinned and exclusively locked, and lets go of it. `write` raises nothing.
    fn overwrite_locked(&self, buffer: pg_sys::Buffer, write: impl FnOnce(&mut Page)) {
        // SAFETY: pinned and exclusively locked (the caller), so the page is ours; between the first change and the record
        // nothing is raised. The page's header tells the hole that the record leaves out.
        unsafe {
            let target = &mut *pg_sys::BufferGetPage(buffer).cast::<Page>();
            let critical = Critical::enter();
            write(target);
            pg_sys::MarkBufferDirty(buffer);
            if needs_wal(self.index().as_ptr()) {
                pg_sys::log_newpage_buffer(buffer, true);
            }
            drop(critical);
            pg_sys::UnlockReleaseBuffer(buffer);
        }
    }
}

/// An empty page, its body a hole that no WAL record holds, reserved.
fn write_reservation(page: &mut Page) {
    // SAFETY: a page of PAGE_SIZE bytes; `PageInit` writes its header and zeroes the rest.
    unsafe { pg_sys::PageInit((&raw mut *page).cast(), PAGE_SIZE, TRAILER_SIZE) };
    page.set_tag(Tag::reserved());
}
