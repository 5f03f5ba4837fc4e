//! Changes of a few pages as one Generic WAL record.
//!
//! Commit is a verb: dropping a unit changes nothing. While an ERROR unwinds (PostgreSQL has reset its lock counters by
//! then) a unit keeps its hands off: the transaction's abort releases locks and pins.

use super::buffer::{EXCLUSIVE, IndexStore, SHARE, page_of};
use ann::error::{Error, Result};
use ann::page::{BlockNumber, MAX_UNIT_PAGES, PAGE_SIZE, Page, TRAILER_SIZE, Tag, Unit};
use pgrx::pg_sys;
use std::ptr;

const _: () = assert!(MAX_UNIT_PAGES == pg_sys::MAX_GENERIC_XLOG_PAGES as usize);

/// A page of a unit: its private copy, until commit.
struct Changed {
    block: BlockNumber,
    copy: *mut Page,
}

/// A unit over an index.
pub struct GenericUnit<'a> {
    store: &'a IndexStore,
    state: *mut pg_sys::GenericXLogState,
    changed: Vec<Changed>,
    /// Pinned and locked, changed or not.
    locked: Vec<(BlockNumber, pg_sys::Buffer)>,
}

impl<'a> GenericUnit<'a> {
    pub(super) fn new(store: &'a IndexStore) -> Self {
        Self { store, state: ptr::null_mut(), changed: Vec::new(), locked: Vec::new() }
    }

    fn register(&mut self, buffer: pg_sys::Buffer, block: BlockNumber, flags: u32) -> &mut Page {
        assert!(self.changed.len() < MAX_UNIT_PAGES, "a unit changes at most {MAX_UNIT_PAGES} pages");
        if self.state.is_null() {
            // SAFETY: the relation is open.
            self.state = unsafe { pg_sys::GenericXLogStart(self.store.index().as_ptr()) };
        }
        // SAFETY: the buffer is pinned and exclusively locked, and not yet registered.
        let copy = unsafe { pg_sys::GenericXLogRegisterBuffer(self.state, buffer, flags as i32) };
        self.changed.push(Changed { block, copy: copy.cast() });
        // SAFETY: the copy is a page that belongs to the state, which `self` owns until commit.
        unsafe { &mut *copy.cast::<Page>() }
    }

    fn lock(&mut self, block: BlockNumber, mode: i32) -> Result<pg_sys::Buffer> {
        // Only a damaged pointer leads here; a second lock would wait for the first for ever.
        if self.locked.iter().any(|&(held, _)| held == block) {
            return Err(Error::corrupt(block, "is pointed to as two different pages"));
        }
        let buffer = self.store.pin(block)?;
        // SAFETY: the buffer is pinned.
        unsafe { pg_sys::LockBuffer(buffer, mode) };
        self.locked.push((block, buffer));
        Ok(buffer)
    }

    /// Unlocks and unpins everything.
    fn release(&mut self) {
        for (_, buffer) in self.locked.drain(..).rev() {
            // SAFETY: pinned and locked by this unit.
            unsafe { pg_sys::UnlockReleaseBuffer(buffer) };
        }
    }

    /// A page given up, from the free space map, locked; pages found in use are skipped.
    fn reuse(&mut self) -> Result<Option<(BlockNumber, pg_sys::Buffer)>> {
        let found = self.store.lock_free_page()?;
        self.locked.extend(found);
        Ok(found)
    }

    fn extend(&mut self) -> (BlockNumber, pg_sys::Buffer) {
        loop {
            let (block, buffer) = self.store.index().extend();
            // SAFETY: the buffer is pinned.
            unsafe { pg_sys::LockBuffer(buffer, EXCLUSIVE) };
            // Before we had the lock, vacuum may have put the zero page into the map and another session taken it.
            // SAFETY: pinned and locked.
            if unsafe { page_of(buffer) }.is_zero() {
                self.locked.push((block, buffer));
                return (block, buffer);
            }
            // SAFETY: pinned and locked above.
            unsafe { pg_sys::UnlockReleaseBuffer(buffer) };
        }
    }
}

impl Unit for GenericUnit<'_> {
    fn shared(&mut self, block: BlockNumber) -> Result<&Page> {
        let buffer = self.lock(block, SHARE)?;
        // SAFETY: pinned and share-locked until the unit ends, which the borrow of `self` does not outlive.
        Ok(unsafe { page_of(buffer) })
    }

    fn page(&mut self, block: BlockNumber) -> Result<&mut Page> {
        if let Some(changed) = self.changed.iter().find(|c| c.block == block) {
            // SAFETY: the copy belongs to the state, which `self` owns until commit; `&mut self` makes it unique.
            return Ok(unsafe { &mut *changed.copy });
        }
        let buffer = self.lock(block, EXCLUSIVE)?;
        Ok(self.register(buffer, block, 0))
    }

    fn allocate(&mut self, tag: Tag) -> Result<(BlockNumber, &mut Page)> {
        let (block, buffer) = match self.reuse()? {
            Some(found) => found,
            None => self.extend(),
        };
        if block == pg_sys::InvalidBlockNumber {
            return Err(Error::Full);
        }
        let page = self.register(buffer, block, pg_sys::GENERIC_XLOG_FULL_IMAGE);
        init_page(page);
        page.set_tag(tag);
        Ok((block, page))
    }

    fn commit(mut self) -> Result<()> {
        if !self.state.is_null() {
            let state = std::mem::replace(&mut self.state, ptr::null_mut());
            // SAFETY: the state is started, its buffers are locked, and it is not used again.
            unsafe { pg_sys::GenericXLogFinish(state) };
        }
        self.release();
        Ok(())
    }
}

impl Drop for GenericUnit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if !self.state.is_null() {
            // SAFETY: started and neither finished nor aborted.
            unsafe { pg_sys::GenericXLogAbort(self.state) };
        }
        self.release();
    }
}

/// An empty page with our trailer. All of the body counts as used, so no full-page image leaves it out as a hole.
pub(super) fn init_page(page: &mut Page) {
    let raw: *mut Page = page;
    // SAFETY: a page of PAGE_SIZE bytes; `PageInit` writes its header and zeroes the rest.
    unsafe {
        pg_sys::PageInit(raw.cast(), PAGE_SIZE, TRAILER_SIZE);
        let header = raw.cast::<pg_sys::PageHeaderData>();
        (*header).pd_lower = (*header).pd_upper;
    }
}
