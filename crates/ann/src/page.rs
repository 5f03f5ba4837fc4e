//! Pages, their identity, and the storage that graphs live in.
//!
//! A page is a PostgreSQL page: 24 bytes of header that belong to the server, a body, and 16 bytes of trailer (the
//! "special space") that say what the page is. Every read checks the trailer, so a stale pointer is found and not
//! followed.

use crate::error::{Error, Result};

/// Bytes of a page: PostgreSQL's default block size, the only one that is supported.
pub const PAGE_SIZE: usize = 8192;
/// Bytes before the body; they belong to PostgreSQL.
pub const HEADER_SIZE: usize = 24;
/// Bytes after the body.
pub const TRAILER_SIZE: usize = 16;
/// Bytes of a page that hold content.
pub const BODY_SIZE: usize = PAGE_SIZE - HEADER_SIZE - TRAILER_SIZE;
/// The metapage.
pub const META_BLOCK: BlockNumber = 0;
/// No block; also "no element" and "no slot", which share the number space.
pub const NONE: u32 = u32::MAX;
/// Marks a page as ours in its trailer.
const PAGE_MARK: u8 = 0xD7;

/// Number of a page in its index, from 0.
pub type BlockNumber = u32;

/// What a page holds. Numbers are on disk: never renumber, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Given up; may be taken for anything, unless it is reserved.
    Free = 1,
    /// The index as a whole; block 0.
    Meta = 2,
    /// The list of segments.
    Directory = 3,
    /// What one segment is.
    SegmentHead = 4,
    /// Rows with equal codes, and their neighbors at level 0 where the segment is a graph.
    Element = 5,
    /// Neighbors above level 0.
    Upper = 6,
    /// Rows that did not fit into their element.
    Overflow = 7,
    /// Rests of codes that did not fit into their element.
    Tail = 8,
    /// Centroids of an IVF segment's lists.
    Centroid = 9,
    /// Codes of an IVF segment's lists.
    Posting = 10,
    /// What compaction did.
    History = 11,
}

impl Kind {
    /// The kind with this number on disk.
    pub fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Free, Meta, Directory, SegmentHead, Element, Upper, Overflow, Tail, Centroid, Posting, History]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }

    /// The word that `hybrid_page` and error messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Meta => "meta",
            Self::Directory => "directory",
            Self::SegmentHead => "segment head",
            Self::Element => "element",
            Self::Upper => "upper neighbors",
            Self::Overflow => "overflow TIDs",
            Self::Tail => "code tail",
            Self::Centroid => "centroids",
            Self::Posting => "postings",
            Self::History => "history",
        }
    }
}

/// A page's trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Segment that owns the page; 0 for pages of the index itself. Segment ids are never reused.
    pub segment: u32,
    /// What the page holds.
    pub kind: Kind,
    /// Slots in use, counted from the first; for pages made of slots.
    pub used: u16,
    /// Next page of the same kind in the segment, or [`NONE`].
    pub next: BlockNumber,
}

impl Tag {
    /// A page without slots in use and without a next page.
    pub fn new(segment: u32, kind: Kind) -> Self {
        Self { segment, kind, used: 0, next: NONE }
    }

    /// A free page that is kept for somebody until it is written.
    pub fn reserved() -> Self {
        Self { used: 1, ..Self::new(0, Kind::Free) }
    }

    /// A page that may be taken for anything.
    pub fn is_free(&self) -> bool {
        self.kind == Kind::Free && self.used == 0
    }
}

/// One page's bytes.
#[repr(transparent)]
pub struct Page(pub [u8; PAGE_SIZE]);

const TRAILER: usize = PAGE_SIZE - TRAILER_SIZE;

impl Page {
    /// A page of zeros: no kind, no content.
    pub fn zeroed() -> Box<Self> {
        Box::new(Self([0; PAGE_SIZE]))
    }

    /// What lies between header and trailer: [`BODY_SIZE`] bytes.
    pub fn body(&self) -> &[u8] {
        &self.0[HEADER_SIZE..TRAILER]
    }

    /// As [`Self::body`].
    pub fn body_mut(&mut self) -> &mut [u8] {
        &mut self.0[HEADER_SIZE..TRAILER]
    }

    /// The trailer, or `None` where the page is not one of ours (all zero, say).
    pub fn tag(&self) -> Option<Tag> {
        let t = &self.0[TRAILER..];
        if t[5] != PAGE_MARK {
            return None;
        }
        Some(Tag { segment: get_u32(t, 0), kind: Kind::from_byte(t[4])?, used: get_u16(t, 6), next: get_u32(t, 8) })
    }

    /// Writes the trailer.
    pub fn set_tag(&mut self, tag: Tag) {
        let t = &mut self.0[TRAILER..];
        put_u32(t, 0, tag.segment);
        t[4] = tag.kind as u8;
        t[5] = PAGE_MARK;
        put_u16(t, 6, tag.used);
        put_u32(t, 8, tag.next);
        put_u32(t, 12, 0);
    }

    /// Whether nothing was ever written here: what a crash between extension and first write leaves.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }

    /// The tag, if this page is of that segment and kind.
    pub fn expect(&self, block: BlockNumber, segment: u32, kind: Kind) -> Result<Tag> {
        match self.tag() {
            Some(tag) if tag.segment == segment && tag.kind == kind => Ok(tag),
            Some(tag) => Err(Error::corrupt(
                block,
                format!(
                    "is a page of kind \"{}\" of segment {}, expected \"{}\" of segment {segment}",
                    tag.kind.name(),
                    tag.segment,
                    kind.name()
                ),
            )),
            None => Err(Error::corrupt(block, format!("is not a hybrid page, expected \"{}\"", kind.name()))),
        }
    }
}

/// Finds circles in what pages chain together, which damage can make: compares each place with the one seen at the
/// last power of two of steps (Brent 1980).
#[derive(Default)]
pub(crate) struct Circle {
    steps: u64,
    mark: Option<u32>,
}

impl Circle {
    /// Fails when `place`, which lies in `block`, was met before, soon after that.
    pub(crate) fn step(&mut self, place: u32, block: BlockNumber) -> Result<()> {
        if self.mark == Some(place) {
            return Err(Error::corrupt(block, "is part of a chain that goes round in a circle"));
        }
        self.steps += 1;
        if self.steps.is_power_of_two() {
            self.mark = Some(place);
        }
        Ok(())
    }
}

pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(get_u32(bytes, at)) | u64::from(get_u32(bytes, at + 4)) << 32
}

pub(crate) fn get_f32(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(get_u32(bytes, at))
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_f32(bytes: &mut [u8], at: usize, value: f32) {
    put_u32(bytes, at, value.to_bits());
}

/// Bytes that a caller is about to read: a hint for the cache, and the page to visit.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The page.
    pub block: BlockNumber,
    /// From the start of the page.
    pub offset: u16,
    /// Bytes, at least one.
    pub len: u16,
}

/// Where an index's pages live. `&self` throughout: a store is shared by readers and writers.
pub trait PageStore {
    /// A change of pages.
    type Unit<'a>: Unit
    where
        Self: 'a;

    /// Shows the page to `look` while it is share-locked. `look` must be short and must not use the store.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is no such page.
    fn read<R>(&self, block: BlockNumber, look: impl FnOnce(&Page) -> R) -> Result<R>;

    /// Shows each place's page to `look`, in order, with the bytes of all places on their way into the cache.
    fn read_each(&self, places: &[Place], mut look: impl FnMut(usize, &Page)) -> Result<()> {
        for (i, place) in places.iter().enumerate() {
            self.read(place.block, |page| look(i, page))?;
        }
        Ok(())
    }

    /// Says that these bytes will be read soon.
    fn prefetch(&self, _place: Place) {}

    /// Starts a change of some pages that happens wholly or not at all.
    fn unit(&self) -> Self::Unit<'_>;

    /// Gives a page up. Nothing may point to it any more.
    fn release(&self, block: BlockNumber) -> Result<()>;

    /// Pages for a segment to be written aside: free ones first, then new ones; ascending. They are [`Tag::reserved`]
    /// until [`Self::write_new`], so nobody else is given them meanwhile. The caller holds the maintenance lock; what a
    /// crash leaves reserved is free for who holds it next.
    ///
    /// # Errors
    /// [`Error::Full`] where the relation has no more block numbers.
    fn reserve(&self, pages: u32) -> Result<Vec<BlockNumber>>;

    /// Writes a whole page that [`Self::reserve`] returned, durably, in no unit; only trailer and body count.
    fn write_new(&self, block: BlockNumber, page: &Page) -> Result<()>;

    /// A transaction id that no transaction has had yet.
    fn next_xid(&self) -> u64;

    /// Whether nobody is left, here or on a standby that tells us, who could have begun before `xid` was the next.
    fn is_removable(&self, xid: u64) -> bool;

    /// Tells standbys, before pages are used again, that queries which began before `xid` must not need them.
    fn log_reuse(&self, xid: u64) -> Result<()>;

    /// Pages in the store.
    fn block_count(&self) -> BlockNumber;

    /// Gives a cancel its chance. Never called while a page is locked.
    fn check_interrupts(&self) -> Result<()>;
}

/// Most pages that one unit changes (Generic WAL's limit).
pub const MAX_UNIT_PAGES: usize = 4;

/// A change of at most [`MAX_UNIT_PAGES`] pages. Dropping it without `commit` changes nothing.
///
/// Lock order: metapage, segment head, element pages by block number, upper page, overflow page, tail page.
pub trait Unit {
    /// Locks the page for others' writes and shows it, without changing it, until the unit ends.
    fn shared(&mut self, block: BlockNumber) -> Result<&Page>;

    /// Locks the page and hands out a private copy to change.
    fn page(&mut self, block: BlockNumber) -> Result<&mut Page>;

    /// A page nobody else knows of, with this tag and a zero body.
    ///
    /// # Errors
    /// [`Error::Full`] where the relation has no more block numbers.
    fn allocate(&mut self, tag: Tag) -> Result<(BlockNumber, &mut Page)>;

    /// Makes the change visible and durable.
    fn commit(self) -> Result<()>;
}
