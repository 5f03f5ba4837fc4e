//! A store in memory, for tests: it can stop after any committed unit, as a crash would.

use crate::error::{Error, Result};
use crate::page::{BlockNumber, HEADER_SIZE, Kind, MAX_UNIT_PAGES, Page, PageStore, Tag, Unit};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Pages in memory. Clones share pages until they change them.
#[derive(Clone, Default)]
pub struct MemoryStore {
    pages: RefCell<Vec<Rc<Page>>>,
    free: RefCell<Vec<BlockNumber>>,
    /// Units that may still be committed; the next one fails with [`Error::Stopped`].
    units_left: Cell<Option<u64>>,
    commits: Cell<u64>,
    /// Pages handed out by `reserve` and not written yet.
    reserved: RefCell<BTreeSet<BlockNumber>>,
    /// The next transaction id, and the first that may still run.
    xids: Cell<(u64, u64)>,
    /// Transaction ids told to standbys.
    told: RefCell<Vec<u64>>,
}

impl MemoryStore {
    /// A store without pages.
    pub fn new() -> Self {
        Self::default()
    }

    /// After `units` more commits every commit fails: what is in the store then is what a crash would leave.
    pub fn stop_after(&self, units: u64) {
        self.units_left.set(Some(units));
    }

    /// Lifts [`Self::stop_after`], as a restart does. Pages that were reserved and not written are lost until
    /// [`Self::note_free`].
    pub fn restart(&self) {
        self.units_left.set(None);
        self.reserved.borrow_mut().clear();
    }

    /// Puts all free pages, also zero ones, where they are found again, as VACUUM does.
    pub fn note_free(&self) {
        let pages = self.pages.borrow();
        let free = |page: &Page| page.is_zero() || page.tag().is_some_and(|tag| tag.kind == Kind::Free);
        *self.free.borrow_mut() = (0..pages.len()).filter(|&i| free(&pages[i])).map(|i| i as BlockNumber).collect();
    }

    /// Counts a commit, unless the store is to stop before it.
    fn count_commit(&self) -> Result<()> {
        match self.units_left.get() {
            Some(0) => return Err(Error::Stopped),
            left => self.units_left.set(left.map(|n| n - 1)),
        }
        self.commits.set(self.commits.get() + 1);
        Ok(())
    }

    /// Sets the clock of transaction ids: the next one, and the oldest that somebody still runs.
    pub fn set_xids(&self, next: u64, oldest: u64) {
        self.xids.set((next, oldest));
    }

    /// What standbys were told before pages were used again.
    pub fn told(&self) -> Vec<u64> {
        self.told.borrow().clone()
    }

    /// Units committed so far, and pages written aside.
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }

    /// Appends a page image, as a build does.
    pub fn append(&self, page: &Page) -> BlockNumber {
        let mut pages = self.pages.borrow_mut();
        pages.push(Rc::new(Page(page.0)));
        pages.len() as BlockNumber - 1
    }

    fn get(&self, block: BlockNumber) -> Result<Rc<Page>> {
        let pages = self.pages.borrow();
        pages.get(block as usize).cloned().ok_or_else(|| Error::corrupt(block, "is beyond the end of the index"))
    }
}

impl PageStore for MemoryStore {
    type Unit<'a> = MemoryUnit<'a>;

    fn read<R>(&self, block: BlockNumber, look: impl FnOnce(&Page) -> R) -> Result<R> {
        Ok(look(&*self.get(block)?))
    }

    fn unit(&self) -> MemoryUnit<'_> {
        MemoryUnit { store: self, changed: Vec::new(), shared: Vec::new() }
    }

    fn release(&self, block: BlockNumber) -> Result<()> {
        let mut unit = self.unit();
        unit.page(block)?.set_tag(Tag::new(0, Kind::Free));
        unit.commit()?;
        self.free.borrow_mut().push(block);
        Ok(())
    }

    fn reserve(&self, pages: u32) -> Result<Vec<BlockNumber>> {
        let mut free = self.free.borrow_mut();
        let mut blocks: Vec<BlockNumber> = Vec::new();
        while blocks.len() < pages as usize {
            let zero = Page([0; crate::page::PAGE_SIZE]);
            blocks.push(free.pop().unwrap_or_else(|| self.append(&zero)));
        }
        blocks.sort_unstable();
        self.reserved.borrow_mut().extend(&blocks);
        Ok(blocks)
    }

    fn write_new(&self, block: BlockNumber, page: &Page) -> Result<()> {
        assert!(self.reserved.borrow_mut().remove(&block), "page {block} is written as new and was not reserved");
        self.count_commit()?;
        let mut copy = Page(page.0);
        copy.0[..HEADER_SIZE].fill(0xEE);
        self.pages.borrow_mut()[block as usize] = Rc::new(copy);
        Ok(())
    }

    fn next_xid(&self) -> u64 {
        self.xids.get().0
    }

    fn is_removable(&self, xid: u64) -> bool {
        xid < self.xids.get().1
    }

    fn log_reuse(&self, xid: u64) -> Result<()> {
        self.told.borrow_mut().push(xid);
        Ok(())
    }

    fn block_count(&self) -> BlockNumber {
        self.pages.borrow().len() as BlockNumber
    }

    fn check_interrupts(&self) -> Result<()> {
        Ok(())
    }
}

/// A unit: its pages are copies until it is committed.
pub struct MemoryUnit<'a> {
    store: &'a MemoryStore,
    changed: Vec<(BlockNumber, Box<Page>)>,
    shared: Vec<Rc<Page>>,
}

impl MemoryUnit<'_> {
    fn add(&mut self, block: BlockNumber, page: Page) -> &mut Page {
        assert!(self.changed.len() < MAX_UNIT_PAGES, "a unit changes at most {MAX_UNIT_PAGES} pages");
        self.changed.push((block, Box::new(page)));
        &mut self.changed.last_mut().expect("just pushed").1
    }
}

impl Unit for MemoryUnit<'_> {
    fn shared(&mut self, block: BlockNumber) -> Result<&Page> {
        self.shared.push(self.store.get(block)?);
        Ok(self.shared.last().expect("just pushed"))
    }

    fn page(&mut self, block: BlockNumber) -> Result<&mut Page> {
        if let Some(i) = self.changed.iter().position(|(b, _)| *b == block) {
            return Ok(&mut self.changed[i].1);
        }
        let page = Page(self.store.get(block)?.0);
        Ok(self.add(block, page))
    }

    fn allocate(&mut self, tag: Tag) -> Result<(BlockNumber, &mut Page)> {
        let mut page = Page([0; crate::page::PAGE_SIZE]);
        page.0[..HEADER_SIZE].fill(0xEE);
        page.set_tag(tag);
        let block = match self.store.free.borrow_mut().pop() {
            Some(block) => block,
            None => self.store.append(&Page([0; crate::page::PAGE_SIZE])),
        };
        Ok((block, self.add(block, page)))
    }

    fn commit(self) -> Result<()> {
        self.store.count_commit()?;
        let mut pages = self.store.pages.borrow_mut();
        for (block, page) in self.changed {
            pages[block as usize] = Rc::new(*page);
        }
        Ok(())
    }
}
