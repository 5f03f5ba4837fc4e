//! A store that holds its users to the contract of `PageStore`, counts their steps, and lets others act between them.

use ann::error::{Error, Result};
use ann::memory::{MemoryStore, MemoryUnit};
use ann::page::{BlockNumber, Kind, Page, PageStore, Tag, Unit};
use std::cell::{Cell, RefCell};

type Hook<'a> = Box<dyn FnOnce(&MemoryStore) + 'a>;

/// What PostgreSQL would punish by a deadlock here panics: using the store while a page is locked, and locking pages
/// in another order than `Unit` says.
pub struct Strict<'a> {
    inner: &'a MemoryStore,
    locked: Cell<bool>,
    steps: Cell<u64>,
    /// Runs before this step.
    hook: RefCell<Option<(u64, Hook<'a>)>>,
    budget: u64,
    /// Pages are what they say, so the order of locks can be told.
    orderly: bool,
}

impl<'a> Strict<'a> {
    pub fn new(inner: &'a MemoryStore) -> Self {
        let (locked, steps) = (Cell::new(false), Cell::new(0));
        Self { inner, locked, steps, hook: RefCell::new(None), budget: u64::MAX, orderly: true }
    }

    /// `act` happens before step `step`, the first being 0.
    pub fn with_hook(inner: &'a MemoryStore, step: u64, act: impl FnOnce(&MemoryStore) + 'a) -> Self {
        let strict = Self::new(inner);
        *strict.hook.borrow_mut() = Some((step, Box::new(act)));
        strict
    }

    /// For damaged pages: fails with [`Error::Stopped`] after `budget` steps.
    pub fn with_budget(inner: &'a MemoryStore, budget: u64) -> Self {
        Self { budget, orderly: false, ..Self::new(inner) }
    }

    /// Times that the store was asked for something with no page locked.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    fn step(&self) -> Result<()> {
        assert!(!self.locked.get(), "the store is used while a page is locked");
        let step = self.steps.replace(self.steps.get() + 1);
        let due = self.hook.borrow_mut().take_if(|(at, _)| *at == step);
        if let Some((_, act)) = due {
            act(self.inner);
        }
        if step >= self.budget { Err(Error::Stopped) } else { Ok(()) }
    }
}

impl PageStore for Strict<'_> {
    type Unit<'b>
        = StrictUnit<'b>
    where
        Self: 'b;

    fn read<R>(&self, block: BlockNumber, look: impl FnOnce(&Page) -> R) -> Result<R> {
        self.step()?;
        self.inner.read(block, |page| {
            self.locked.set(true);
            let result = look(page);
            self.locked.set(false);
            result
        })
    }

    fn unit(&self) -> StrictUnit<'_> {
        let spent = self.step().is_err();
        StrictUnit {
            inner: Some(self.inner.unit()),
            locked: &self.locked,
            orderly: self.orderly,
            spent,
            held: Vec::new(),
        }
    }

    fn release(&self, block: BlockNumber) -> Result<()> {
        self.step()?;
        self.inner.release(block)
    }

    fn reserve(&self, pages: u32) -> Result<Vec<BlockNumber>> {
        self.step()?;
        self.inner.reserve(pages)
    }

    fn write_new(&self, block: BlockNumber, page: &Page) -> Result<()> {
        self.step()?;
        self.inner.write_new(block, page)
    }

    fn next_xid(&self) -> u64 {
        assert!(!self.locked.get(), "the store is used while a page is locked");
        self.inner.next_xid()
    }

    fn is_removable(&self, xid: u64) -> bool {
        assert!(!self.locked.get(), "the store is used while a page is locked");
        self.inner.is_removable(xid)
    }

    fn log_reuse(&self, xid: u64) -> Result<()> {
        self.step()?;
        self.inner.log_reuse(xid)
    }

    fn block_count(&self) -> BlockNumber {
        assert!(!self.locked.get(), "the store is used while a page is locked");
        self.inner.block_count()
    }

    fn check_interrupts(&self) -> Result<()> {
        self.step()
    }
}

struct Held {
    block: BlockNumber,
    shared: bool,
    /// Where this page's kind stands in the order of locks; `None`: it was allocated here.
    rank: Option<(usize, BlockNumber)>,
}

pub struct StrictUnit<'a> {
    inner: Option<MemoryUnit<'a>>,
    locked: &'a Cell<bool>,
    orderly: bool,
    spent: bool,
    held: Vec<Held>,
}

impl<'a> StrictUnit<'a> {
    fn hold(&mut self, block: BlockNumber, shared: bool, kind: Option<Kind>) {
        use Kind::*;
        let order = [Meta, History, SegmentHead, Element, Upper, Overflow, Tail];
        // Element pages among themselves are locked by block number; of other kinds a unit locks one existing page.
        let within = if kind == Some(Element) { block } else { 0 };
        let rank = kind.and_then(|kind| order.iter().position(|&k| k == kind)).map(|rank| (rank, within));
        let clash = self.held.iter().find(|h| h.rank.is_some() && h.rank >= rank);
        assert!(!self.orderly || clash.is_none(), "block {block} ({kind:?}) is locked out of order");
        self.held.push(Held { block, shared, rank });
        self.locked.set(true);
    }

    fn inner(&mut self) -> &mut MemoryUnit<'a> {
        self.inner.as_mut().expect("not committed")
    }
}

impl Unit for StrictUnit<'_> {
    fn shared(&mut self, block: BlockNumber) -> Result<&Page> {
        if self.spent {
            return Err(Error::Stopped);
        }
        assert!(self.held.iter().all(|h| h.block != block), "block {block} is locked twice by one unit");
        let kind = self.inner().shared(block)?.tag().map(|t| t.kind);
        self.hold(block, true, kind);
        self.inner().shared(block)
    }

    fn page(&mut self, block: BlockNumber) -> Result<&mut Page> {
        if self.spent {
            return Err(Error::Stopped);
        }
        let held = self.held.iter().find(|h| h.block == block);
        assert!(!held.is_some_and(|h| h.shared), "block {block} is share-locked by the unit that wants to change it");
        if held.is_none() {
            let kind = self.inner().page(block)?.tag().map(|t| t.kind);
            self.hold(block, false, kind);
        }
        self.inner().page(block)
    }

    fn allocate(&mut self, tag: Tag) -> Result<(BlockNumber, &mut Page)> {
        self.locked.set(true);
        let (block, _) = self.inner().allocate(tag)?;
        self.held.push(Held { block, shared: false, rank: None });
        Ok((block, self.inner().page(block)?))
    }

    fn commit(mut self) -> Result<()> {
        self.inner.take().expect("not committed").commit()
    }
}

impl Drop for StrictUnit<'_> {
    fn drop(&mut self) {
        self.locked.set(false);
    }
}
