//! Index pages in the buffer manager: [`ann::page::PageStore`] over a relation.
//!
//! A search touches a thousand pages, and what costs is finding each in the buffer mapping and waiting for its bytes.
//! So every backend remembers, per relation, in which buffer it last saw a block. `ReadRecentBuffer` pins that buffer
//! if it still holds the block (it compares the tag under the pin), so a stale hint costs time and nothing else. The
//! hint also says where the bytes probably are before any pin: the cache is asked for all of a batch first.

use super::relation::{Index, OpenTable};
use super::unit::GenericUnit;
use super::xid;
use ann::distance::prefetch_line;
use ann::error::{Error, Result};
use ann::page::{BlockNumber, PAGE_SIZE, Page, PageStore, Place, Tag, Unit};
use pgrx::pg_sys;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

// The calls of the read path without pgrx's guard around each: a whole batch runs inside one guard.
#[allow(clashing_extern_declarations, reason = "the same functions as pg_sys declares, behind its guards")]
unsafe extern "C-unwind" {
    #[cfg(feature = "pg15")]
    fn ReadRecentBuffer(
        locator: pg_sys::RelFileNode,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
        recent: pg_sys::Buffer,
    ) -> bool;
    #[cfg(not(feature = "pg15"))]
    fn ReadRecentBuffer(
        locator: pg_sys::RelFileLocator,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
        recent: pg_sys::Buffer,
    ) -> bool;
    fn ReadBuffer(relation: pg_sys::Relation, block: pg_sys::BlockNumber) -> pg_sys::Buffer;
    fn LockBuffer(buffer: pg_sys::Buffer, mode: std::ffi::c_int);
    fn UnlockReleaseBuffer(buffer: pg_sys::Buffer);
}

pub(super) const SHARE: i32 = pg_sys::BUFFER_LOCK_SHARE as i32;
pub(super) const EXCLUSIVE: i32 = pg_sys::BUFFER_LOCK_EXCLUSIVE as i32;

/// Hints of one relation: block -> buffer, 0 for none.
type Hints = RefCell<Vec<pg_sys::Buffer>>;

/// Blocks of all relations that a backend keeps hints for: 16 MB of them cover 32 GB of index.
const MAX_HINTS: usize = 4 << 20;

/// How many places ahead of the one being read the cache is asked for.
const PREFETCH_AHEAD: usize = 4;

/// What a relation's storage is called: tablespace, database, relation.
type StorageKey = (u32, u32, u32);

thread_local! {
    static HINTS: RefCell<HashMap<StorageKey, Rc<Hints>>> = RefCell::default();
    static HINTED_BLOCKS: Cell<usize> = const { Cell::new(0) };
}

fn hints_of(key: StorageKey, blocks: usize) -> Rc<Hints> {
    let blocks = blocks.min(MAX_HINTS);
    HINTS.with_borrow_mut(|all| {
        let known = all.get(&key).map_or(0, |hints| hints.borrow().len());
        if HINTED_BLOCKS.get() + blocks.saturating_sub(known) > MAX_HINTS {
            all.clear();
            HINTED_BLOCKS.set(0);
        }
        let hints = all.entry(key).or_default().clone();
        let known = hints.borrow().len();
        if known < blocks {
            hints.borrow_mut().resize(blocks, 0);
            HINTED_BLOCKS.set(HINTED_BLOCKS.get() + blocks - known);
        }
        hints
    })
}

/// The pages of an index.
pub struct IndexStore {
    index: Index,
    /// The index's table, where it is known: tells which transactions may still need its pages.
    table: Option<pg_sys::Relation>,
    hints: Rc<Hints>,
    /// Blocks that the relation has at least: it never shrinks.
    blocks: Cell<BlockNumber>,
}

impl IndexStore {
    pub fn new(index: Index) -> Self {
        let blocks = index.block_count();
        // A temporary relation's buffers are numbered otherwise and are few: no hints.
        let hinted = if index.is_temporary() { 0 } else { blocks as usize };
        Self { index, table: None, hints: hints_of(index.storage_key(), hinted), blocks: Cell::new(blocks) }
    }

    /// The pages of an index of this table, which stays open as long as the store is used.
    pub fn with_table(index: Index, table: &OpenTable) -> Self {
        Self { table: Some(table.as_ptr()), ..Self::new(index) }
    }

    pub fn index(&self) -> Index {
        self.index
    }

    /// Whether the relation has the block. Asked before the buffer manager is, which would add a page for a damaged
    /// pointer that happens to be `P_NEW`, and speak of segment files for others.
    pub(super) fn has(&self, block: BlockNumber) -> bool {
        if block >= self.blocks.get() {
            self.blocks.set(self.index.block_count());
        }
        block < self.blocks.get()
    }

    fn check_has(&self, block: BlockNumber) -> Result<()> {
        if self.has(block) { Ok(()) } else { Err(Error::corrupt(block, "is beyond the end of the index")) }
    }

    pub(super) fn pin(&self, block: BlockNumber) -> Result<pg_sys::Buffer> {
        self.check_has(block)?;
        let mut hints = self.hints.borrow_mut();
        let hint = hints.get(block as usize).copied().unwrap_or(0);
        let index = self.index;
        // SAFETY: the relation is open; nothing in the closure has a destructor, so an ERROR may jump out of it.
        let buffer = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| pin(index, block, hint)) };
        if let Some(slot) = hints.get_mut(block as usize) {
            *slot = buffer;
        }
        Ok(buffer)
    }

    /// Asks the cache for the bytes of a place, if we know where they were.
    fn prefetch_hinted(hint: pg_sys::Buffer, place: Place) {
        if hint <= 0 {
            return;
        }
        // SAFETY: addresses are computed with wrapping arithmetic and only prefetched, which never faults.
        let (descriptors, blocks) = unsafe { (pg_sys::BufferDescriptors.cast::<u8>(), pg_sys::BufferBlocks) };
        let number = (hint - 1) as usize;
        prefetch_line(descriptors.wrapping_add(number * 64));
        let start = blocks.cast::<u8>().wrapping_add(number * PAGE_SIZE + usize::from(place.offset));
        for line in (0..usize::from(place.len)).step_by(64) {
            prefetch_line(start.wrapping_add(line));
        }
        prefetch_line(start.wrapping_add(usize::from(place.len) - 1));
    }
}

/// A look at many pages, each once, that leaves the cache as it is.
pub struct PageSweep(pg_sys::BufferAccessStrategy);

impl PageSweep {
    /// # Safety
    /// `strategy` is null, or lives as long as the value.
    pub unsafe fn new(strategy: pg_sys::BufferAccessStrategy) -> Self {
        Self(strategy)
    }

    /// The tag of a page that is there, or whether it is all zero.
    pub fn look(&self, index: Index, block: BlockNumber) -> std::result::Result<Tag, bool> {
        let (fork, mode) = (pg_sys::ForkNumber::MAIN_FORKNUM, pg_sys::ReadBufferMode::RBM_NORMAL);
        // SAFETY: the relation is open and has the block; the page is looked at while its buffer is pinned and share-locked.
        unsafe {
            let buffer = pg_sys::ReadBufferExtended(index.as_ptr(), fork, block, mode, self.0);
            pg_sys::LockBuffer(buffer, SHARE);
            let page = page_of(buffer);
            let result = page.tag().ok_or_else(|| page.is_zero());
            pg_sys::UnlockReleaseBuffer(buffer);
            result
        }
    }
}

/// Pins a block, by the hint if that is right.
///
/// # Safety
/// The relation is open; an ERROR may jump out.
#[inline]
unsafe fn pin(index: Index, block: BlockNumber, hint: pg_sys::Buffer) -> pg_sys::Buffer {
    // SAFETY: the relation is open (the caller); `ReadRecentBuffer` takes any buffer number that once was valid.
    unsafe {
        if hint != 0 && ReadRecentBuffer(index.locator(), pg_sys::ForkNumber::MAIN_FORKNUM, block, hint) {
            return hint;
        }
        ReadBuffer(index.as_ptr(), block)
    }
}

/// The page in a pinned buffer.
///
/// # Safety
/// The buffer is pinned and share-locked for `'a`.
pub(super) unsafe fn page_of<'a>(buffer: pg_sys::Buffer) -> &'a Page {
    let start = if buffer > 0 {
        // SAFETY: a pinned shared buffer has a page in the pool.
        unsafe { pg_sys::BufferBlocks.cast::<u8>().add((buffer - 1) as usize * PAGE_SIZE) }
    } else {
        // SAFETY: a pinned local buffer has a block.
        unsafe { (*pg_sys::LocalBufferBlockPointers.add((-buffer - 1) as usize)).cast::<u8>() }
    };
    // SAFETY: `Page` is PAGE_SIZE bytes of any content; the lock keeps writers away.
    unsafe { &*start.cast::<Page>() }
}

impl PageStore for IndexStore {
    type Unit<'a> = GenericUnit<'a>;

    fn read<R>(&self, block: BlockNumber, look: impl FnOnce(&Page) -> R) -> Result<R> {
        let mut result = None;
        let mut look = Some(look);
        self.read_each(&[Place { block, offset: 24, len: 64 }], |_, page| {
            if let Some(look) = look.take() {
                result = Some(look(page));
            }
        })?;
        result.ok_or(Error::Stopped)
    }

    fn read_each(&self, places: &[Place], mut look: impl FnMut(usize, &Page)) -> Result<()> {
        places.iter().try_for_each(|place| self.check_has(place.block))?;
        let mut hints = self.hints.borrow_mut();
        for place in places.iter().take(PREFETCH_AHEAD) {
            Self::prefetch_hinted(hints.get(place.block as usize).copied().unwrap_or(0), *place);
        }
        let mut panic: Option<Box<dyn Any + Send>> = None;
        let (index, hints, panic_slot, look) = (self.index, &mut *hints, &mut panic, &mut look);
        // SAFETY: the closure owns nothing with a destructor, so an ERROR may jump out of it; a panic of `look` is caught
        // inside it. Each buffer is pinned and share-locked while `look` sees its page.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                for (i, place) in places.iter().enumerate() {
                    if let Some(later) = places.get(i + PREFETCH_AHEAD) {
                        Self::prefetch_hinted(hints.get(later.block as usize).copied().unwrap_or(0), *later);
                    }
                    let slot = hints.as_mut_ptr().wrapping_add(place.block as usize);
                    let known = (place.block as usize) < hints.len();
                    let buffer = pin(index, place.block, if known { *slot } else { 0 });
                    if known {
                        *slot = buffer;
                    }
                    LockBuffer(buffer, SHARE);
                    let outcome = catch_unwind(AssertUnwindSafe(|| look(i, page_of(buffer))));
                    UnlockReleaseBuffer(buffer);
                    if let Err(payload) = outcome {
                        *panic_slot = Some(payload);
                        return;
                    }
                }
            });
        }
        match panic {
            Some(payload) => resume_unwind(payload),
            None => Ok(()),
        }
    }

    fn prefetch(&self, place: Place) {
        let hint = self.hints.borrow().get(place.block as usize).copied().unwrap_or(0);
        Self::prefetch_hinted(hint, place);
    }

    fn unit(&self) -> GenericUnit<'_> {
        GenericUnit::new(self)
    }

    fn release(&self, block: BlockNumber) -> Result<()> {
        let mut unit = self.unit();
        unit.page(block)?.set_tag(Tag::new(0, ann::page::Kind::Free));
        unit.commit()?;
        self.index.record_free_page(block);
        Ok(())
    }

    fn reserve(&self, pages: u32) -> Result<Vec<BlockNumber>> {
        self.reserve_pages(pages)
    }

    fn write_new(&self, block: BlockNumber, page: &Page) -> Result<()> {
        self.write_reserved(block, page)
    }

    fn next_xid(&self) -> u64 {
        xid::next()
    }

    fn is_removable(&self, xid: u64) -> bool {
        xid::is_removable(self.table, xid)
    }

    fn log_reuse(&self, xid: u64) -> Result<()> {
        xid::log_reuse(self.index, xid);
        Ok(())
    }

    fn block_count(&self) -> BlockNumber {
        self.index.block_count()
    }

    fn check_interrupts(&self) -> Result<()> {
        pgrx::check_for_interrupts!();
        Ok(())
    }
}
