//! The metapage, the segment directory and segment heads: what ties an index's segments together.
//!
//! Structural changes are copy-on-write: fresh directory page, then one unit flips the metapage's `root` and
//! `generation`. A reader that finds a directory page of another generation re-reads the metapage.

use crate::distance::Metric;
use crate::error::{Error, Result};
use crate::hnsw::insert::{NewRow, Origin, Outcome};
use crate::hnsw::read::Segment;
use crate::keys::{KeySummary, MAX_KEYS};
use crate::page::{
    BODY_SIZE, BlockNumber, Kind, META_BLOCK, NONE, Page, PageStore, Tag, Unit, get_u16, get_u32, get_u64, put_u16,
    put_u32, put_u64,
};
use crate::shape::{MAX_DIMENSIONS, MAX_M, MIN_M, Shape, Slot};

const MAGIC: u32 = 0x4842_5956;
/// Oldest and newest on-disk format that this library reads; it writes the newest.
pub const FORMATS: std::ops::RangeInclusive<u16> = 1..=1;

/// What an index was built with. Later `ALTER INDEX .. SET` does not change these.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// What "near" means.
    pub metric: Metric,
    /// 1 to [`MAX_DIMENSIONS`].
    pub dimensions: usize,
    /// [`MIN_M`] to [`MAX_M`]; level 0 has twice as many neighbors.
    pub m: usize,
    /// Width of the search that links an element.
    pub ef_construction: usize,
    /// Elements at which the active segment is sealed.
    pub segment_rows: u64,
    /// Stored only, as are the fields below.
    pub recent_rows: u64,
    pub pending_rows: u32,
    pub lists: u32,
    /// Microseconds; `i64::MAX` is infinity.
    pub recent_threshold: i64,
    /// Microseconds.
    pub partition_interval: i64,
    /// 0 `sq8`, 1 `f16`, 2 `f32`.
    pub rerank: u8,
    /// Key columns, at most [`MAX_KEYS`].
    pub keys: usize,
    /// The key column that tells a row's age.
    pub age_key: Option<AgeKey>,
}

/// The key column that tells a row's age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeKey {
    /// Which key column, from 0.
    pub column: usize,
    /// Its values are days since 2000-01-01, not microseconds.
    pub in_days: bool,
}

impl Parameters {
    /// The form of elements of a graph.
    ///
    /// # Panics
    /// If dimensions, `m` or `keys` are out of range.
    pub fn shape(&self) -> Shape {
        Shape::new(self.metric, self.dimensions, self.m, self.keys)
    }

    /// The forms of elements in each kind of segment; panics as [`Self::shape`].
    pub fn shapes(&self) -> Shapes {
        let graph = self.shape();
        Shapes { flat: graph.without_neighbors(), graph }
    }
}

/// The forms of an index's elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Shapes {
    /// In HNSW segments.
    pub graph: Shape,
    /// In others, where elements have no neighbors.
    pub flat: Shape,
}

impl Shapes {
    /// The form in a kind of segment.
    pub fn of(&self, kind: SegmentKind) -> &Shape {
        if kind == SegmentKind::Hnsw { &self.graph } else { &self.flat }
    }
}

/// The metapage.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// What the index was built with.
    pub parameters: Parameters,
    /// Counts structural changes.
    pub generation: u64,
    /// The directory.
    pub root: BlockNumber,
    /// Id of the next segment; ids are never used again.
    pub next_segment: u32,
    /// What compaction did; [`META_BLOCK`]: nothing yet.
    pub history: BlockNumber,
}

impl Meta {
    /// Reads and checks the metapage.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::TooNew`] where a newer release wrote it.
    pub fn read(store: &impl PageStore) -> Result<Self> {
        store.read(META_BLOCK, Self::decode)?
    }

    pub(crate) fn decode(page: &Page) -> Result<Self> {
        page.expect(META_BLOCK, 0, Kind::Meta)?;
        let b = page.body();
        if get_u32(b, 0) != MAGIC {
            return Err(Error::corrupt(META_BLOCK, "has no hybrid index mark"));
        }
        let format = get_u16(b, 4);
        if format > *FORMATS.end() {
            return Err(Error::TooNew { found: format, newest: *FORMATS.end() });
        }
        if !FORMATS.contains(&format) {
            return Err(Error::corrupt(META_BLOCK, format!("has format {format}, which never was")));
        }
        let metric = match b[6] {
            1 => Metric::L2,
            2 => Metric::InnerProduct,
            3 => Metric::Cosine,
            4 => Metric::L1,
            other => return Err(Error::corrupt(META_BLOCK, format!("has metric {other}"))),
        };
        let parameters = Parameters {
            metric,
            dimensions: usize::from(get_u16(b, 8)),
            m: usize::from(get_u16(b, 10)),
            ef_construction: usize::from(get_u16(b, 12)),
            segment_rows: get_u64(b, 32),
            recent_rows: get_u64(b, 40),
            pending_rows: get_u32(b, 48),
            lists: get_u32(b, 52),
            recent_threshold: get_u64(b, 56) as i64,
            partition_interval: get_u64(b, 64) as i64,
            rerank: b[7],
            keys: usize::from(b[72]),
            age_key: (b[73] > 0).then(|| AgeKey { column: usize::from(b[73]) - 1, in_days: b[74] == 1 }),
        };
        if !(1..=MAX_DIMENSIONS).contains(&parameters.dimensions)
            || !(MIN_M as usize..=MAX_M as usize).contains(&parameters.m)
        {
            return Err(Error::corrupt(
                META_BLOCK,
                format!("has {} dimensions and m = {}", parameters.dimensions, parameters.m),
            ));
        }
        if parameters.keys > MAX_KEYS || parameters.age_key.is_some_and(|age| age.column >= parameters.keys) {
            let what = format!("has {} key columns, and column {} tells the age", parameters.keys, b[73]);
            return Err(Error::corrupt(META_BLOCK, what));
        }
        if parameters.ef_construction == 0 {
            return Err(Error::corrupt(META_BLOCK, "has ef_construction = 0"));
        }
        Ok(Self {
            parameters,
            generation: get_u64(b, 16),
            root: get_u32(b, 24),
            next_segment: get_u32(b, 28),
            history: get_u32(b, 76),
        })
    }

    /// Writes the metapage's content into a page whose tag is set.
    pub fn encode(&self, page: &mut Page) {
        let p = &self.parameters;
        let b = page.body_mut();
        put_u32(b, 0, MAGIC);
        put_u16(b, 4, *FORMATS.end());
        b[6] = p.metric as u8;
        b[7] = p.rerank;
        put_u16(b, 8, p.dimensions as u16);
        put_u16(b, 10, p.m as u16);
        put_u16(b, 12, p.ef_construction as u16);
        put_u64(b, 16, self.generation);
        put_u32(b, 24, self.root);
        put_u32(b, 28, self.next_segment);
        put_u64(b, 32, p.segment_rows);
        put_u64(b, 40, p.recent_rows);
        put_u32(b, 48, p.pending_rows);
        put_u32(b, 52, p.lists);
        put_u64(b, 56, p.recent_threshold as u64);
        put_u64(b, 64, p.partition_interval as u64);
        b[72] = p.keys as u8;
        (b[73], b[74]) = p.age_key.map_or((0, 0), |age| (age.column as u8 + 1, u8::from(age.in_days)));
        put_u32(b, 76, self.history);
    }

    /// Takes the id of a new segment.
    pub(crate) fn take_segment(&mut self) -> Result<u32> {
        let id = self.next_segment;
        self.next_segment = id
            .checked_add(1)
            .ok_or_else(|| Error::corrupt(META_BLOCK, "counts more segments than there are numbers"))?;
        Ok(id)
    }
}

/// What a segment is made of. Numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SegmentKind {
    /// An HNSW graph.
    Hnsw = 1,
    /// Rows just inserted, in no order.
    Pending = 2,
    /// Lists around centroids.
    Ivf = 3,
}

impl SegmentKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Hnsw, Self::Pending, Self::Ivf].into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The word that `hybrid_segments` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hnsw => "hnsw",
            Self::Pending => "pending",
            Self::Ivf => "ivf",
        }
    }
}

/// A segment as the directory lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Never used again in this index.
    pub id: u32,
    /// What the segment is made of.
    pub kind: SegmentKind,
    /// Takes inserts; one segment of a kind at most.
    pub active: bool,
    /// Its head page.
    pub head: BlockNumber,
    /// Microseconds since 2000-01-01, by the clock.
    pub created: i64,
}

/// A segment that no directory lists any more, whose pages somebody may still read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedEntry {
    /// As it was listed.
    pub id: u32,
    /// As it was listed.
    pub kind: SegmentKind,
    /// As it was listed. Its page may name a further dropped segment: [`Head::behind`].
    pub head: BlockNumber,
    /// The next transaction id at some time after the segment left the list; 0: not looked up yet.
    pub safexid: u64,
}

const ENTRY_SIZE: usize = 32;
/// Entries that a directory holds, of segments and dropped ones.
pub const MAX_ENTRIES: usize = (BODY_SIZE - 16) / ENTRY_SIZE;
/// Segments up to which new ones are opened. While there are more the active ones grow. What is left of the directory is
/// for compaction, whose steps need entries before they save some.
pub const MAX_SEGMENTS: usize = 200;

/// The list of segments, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// That of the metapage which points here.
    pub generation: u64,
    /// With the dropped ones at most [`MAX_ENTRIES`].
    pub segments: Vec<SegmentEntry>,
    /// In the order in which they were dropped.
    pub dropped: Vec<DroppedEntry>,
}

impl Directory {
    /// Reads the metapage and the directory that it points to, both of one generation.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::TooNew`].
    pub fn read(store: &impl PageStore) -> Result<(Meta, Self)> {
        // A structural change between the two reads sends us back; one is seldom, ten in a row mean corruption.
        for _ in 0..10 {
            let meta = Meta::read(store)?;
            match store.read(meta.root, |page| Self::decode(page, meta.root))? {
                Ok(directory) if directory.generation == meta.generation => return Ok((meta, directory)),
                Ok(_) | Err(_) if Meta::read(store)?.generation != meta.generation => continue,
                Ok(directory) => {
                    let what = format!("has generation {}, the metapage {}", directory.generation, meta.generation);
                    return Err(Error::corrupt(meta.root, what));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::corrupt(META_BLOCK, "points to directory pages that keep changing"))
    }

    fn decode(page: &Page, block: BlockNumber) -> Result<Self> {
        page.expect(block, 0, Kind::Directory)?;
        let b = page.body();
        let (count, gone) = (usize::from(get_u16(b, 8)), usize::from(get_u16(b, 10)));
        if count + gone > MAX_ENTRIES {
            return Err(Error::corrupt(block, format!("lists {count} segments and {gone} dropped ones")));
        }
        let (mut segments, mut dropped) = (Vec::with_capacity(count), Vec::with_capacity(gone));
        for (i, e) in b[16..].chunks_exact(ENTRY_SIZE).take(count + gone).enumerate() {
            let Some(kind) = SegmentKind::from_byte(e[4]) else {
                return Err(Error::corrupt(block, format!("lists a segment of kind {}", e[4])));
            };
            let (id, head) = (get_u32(e, 0), get_u32(e, 8));
            if i < count {
                let (active, created) = (e[5] == 1, get_u64(e, 16) as i64);
                segments.push(SegmentEntry { id, kind, active, head, created });
            } else {
                dropped.push(DroppedEntry { id, kind, head, safexid: get_u64(e, 16) });
            }
        }
        Ok(Self { generation: get_u64(b, 0), segments, dropped })
    }

    /// Writes the directory into a page of zeros whose tag is set.
    pub fn encode(&self, page: &mut Page) {
        let b = page.body_mut();
        put_u64(b, 0, self.generation);
        put_u16(b, 8, self.segments.len() as u16);
        for (i, s) in self.segments.iter().enumerate() {
            let e = &mut b[16 + i * ENTRY_SIZE..][..ENTRY_SIZE];
            put_u32(e, 0, s.id);
            e[4] = s.kind as u8;
            e[5] = u8::from(s.active);
            put_u32(e, 8, s.head);
            put_u64(e, 16, s.created as u64);
        }
        put_u16(b, 10, self.dropped.len() as u16);
        for (i, d) in self.dropped.iter().enumerate() {
            let e = &mut b[16 + (self.segments.len() + i) * ENTRY_SIZE..][..ENTRY_SIZE];
            put_u32(e, 0, d.id);
            e[4] = d.kind as u8;
            put_u32(e, 8, d.head);
            put_u64(e, 16, d.safexid);
        }
    }

    /// The graph that takes inserts.
    pub fn active(&self) -> Result<SegmentEntry> {
        self.active_of(SegmentKind::Hnsw).ok_or_else(|| Error::corrupt(META_BLOCK, "lists no active segment"))
    }

    /// The segment of a kind that takes inserts.
    pub fn active_of(&self, kind: SegmentKind) -> Option<SegmentEntry> {
        self.segments.iter().copied().find(|s| s.active && s.kind == kind)
    }

    /// Whether a segment may be opened.
    pub fn has_room(&self) -> bool {
        self.segments.len() < MAX_SEGMENTS && self.segments.len() + self.dropped.len() + 8 <= MAX_ENTRIES
    }
}

/// The head page of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Takes inserts.
    pub active: bool,
    /// Where searches start, or [`NONE`] while the segment is empty.
    pub entry: Slot,
    /// Level of that element.
    pub entry_level: u8,
    /// First page of each kind, in the order of [`chain_index`]; the others follow by their tags' `next`.
    pub first: [BlockNumber; CHAINS],
    /// Last page of each kind. Those with slots may have room.
    pub last: [BlockNumber; CHAINS],
    /// Pages of elements.
    pub element_pages: u32,
    /// Lists of an IVF segment.
    pub lists: u32,
    /// Microseconds since 2000-01-01.
    pub created: i64,
    /// Rows when the segment was written.
    pub rows: u64,
    /// Elements without rows, as VACUUM last counted them.
    pub routers: u64,
    /// Of a sealed graph: the value of the age key that 95 of 100 rows do not exceed (NULL counts as the smallest);
    /// `None`: not looked up yet.
    pub typical_age: Option<i64>,
    /// Of a dropped segment: id and head of the dropped segment that is given up before it, where it stands for several.
    pub behind: Option<(u32, BlockNumber)>,
    /// Ranges of the rows' keys, where they are kept: not for pending lists.
    pub summary: Option<KeySummary>,
}

/// Kinds of pages that a segment chains.
pub const CHAINS: usize = 6;

/// Index into [`Head::first`] and [`Head::last`].
///
/// # Panics
/// For kinds that segments do not chain.
pub fn chain_index(kind: Kind) -> usize {
    match kind {
        Kind::Element => 0,
        Kind::Upper => 1,
        Kind::Overflow => 2,
        Kind::Tail => 3,
        Kind::Centroid => 4,
        Kind::Posting => 5,
        other => unreachable!("{} pages are not chained", other.name()),
    }
}

impl Head {
    /// The head of an empty segment that takes inserts.
    pub fn new(created: i64) -> Self {
        Self {
            active: true,
            entry: NONE,
            entry_level: 0,
            first: [NONE; CHAINS],
            last: [NONE; CHAINS],
            element_pages: 0,
            lists: 0,
            created,
            rows: 0,
            routers: 0,
            typical_age: None,
            behind: None,
            summary: Some(KeySummary::default()),
        }
    }

    /// The head of an empty segment of a kind that takes inserts.
    pub fn of_kind(kind: SegmentKind, created: i64) -> Self {
        match kind {
            SegmentKind::Pending => Self { summary: None, ..Self::new(created) },
            _ => Self::new(created),
        }
    }

    /// First page of elements, or [`NONE`].
    pub fn first_element(&self) -> BlockNumber {
        self.first[chain_index(Kind::Element)]
    }

    /// Reads a head page, which is `block`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the page is not the head of `segment`.
    pub fn decode(page: &Page, block: BlockNumber, segment: u32) -> Result<Self> {
        page.expect(block, segment, Kind::SegmentHead)?;
        let b = page.body();
        Ok(Self {
            entry: get_u32(b, 0),
            entry_level: b[4],
            active: b[5] == 1,
            element_pages: get_u32(b, 8),
            lists: get_u32(b, 12),
            created: get_u64(b, 16) as i64,
            rows: get_u64(b, 24),
            first: std::array::from_fn(|i| get_u32(b, 32 + 4 * i)),
            last: std::array::from_fn(|i| get_u32(b, 56 + 4 * i)),
            summary: (b[6] == 1).then(|| KeySummary::read(&b[80..], MAX_KEYS)),
            routers: get_u64(b, 216),
            typical_age: (b[7] == 1).then(|| get_u64(b, 232) as i64),
            behind: (get_u32(b, 224) > 0).then(|| (get_u32(b, 224), get_u32(b, 228))),
        })
    }

    /// Writes all fields into a page whose tag is set.
    pub fn encode(&self, page: &mut Page) {
        let b = page.body_mut();
        put_u32(b, 0, self.entry);
        b[4] = self.entry_level;
        b[5] = u8::from(self.active);
        b[6] = u8::from(self.summary.is_some());
        put_u32(b, 8, self.element_pages);
        put_u32(b, 12, self.lists);
        put_u64(b, 16, self.created as u64);
        put_u64(b, 24, self.rows);
        for i in 0..CHAINS {
            put_u32(b, 32 + 4 * i, self.first[i]);
            put_u32(b, 56 + 4 * i, self.last[i]);
        }
        self.summary.unwrap_or_default().write(&mut b[80..], MAX_KEYS);
        put_u64(b, 216, self.routers);
        b[7] = u8::from(self.typical_age.is_some());
        put_u64(b, 232, self.typical_age.unwrap_or(0) as u64);
        let (id, head) = self.behind.unwrap_or((0, 0));
        put_u32(b, 224, id);
        put_u32(b, 228, head);
    }

    /// Reads the head of a segment that the directory lists.
    pub fn read(store: &impl PageStore, segment: &SegmentEntry) -> Result<Self> {
        store.read(segment.head, |page| Self::decode(page, segment.head, segment.id))?
    }
}

/// A structural change under way: the metapage is locked, and of the generation that the change starts from.
pub(crate) struct Flip<U> {
    /// For the further pages that change with it: not more than two.
    pub(crate) unit: U,
    /// As it will be.
    pub(crate) meta: Meta,
}

impl<U: Unit> Flip<U> {
    /// `None`: there was another change since `expected` was read.
    pub(crate) fn begin<'a, S: PageStore<Unit<'a> = U> + 'a>(store: &'a S, expected: &Meta) -> Result<Option<Self>> {
        let mut unit = store.unit();
        let mut meta = Meta::decode(unit.page(META_BLOCK)?)?;
        if meta.generation != expected.generation {
            return Ok(None);
        }
        meta.generation = meta
            .generation
            .checked_add(1)
            .ok_or_else(|| Error::corrupt(META_BLOCK, "counts more changes than there are numbers"))?;
        Ok(Some(Self { unit, meta }))
    }

    /// Makes `directory` the one that counts. Returns the page of the old one, which the caller releases.
    pub(crate) fn commit(mut self, mut directory: Directory) -> Result<BlockNumber> {
        if directory.segments.len() + directory.dropped.len() > MAX_ENTRIES {
            return Err(Error::Limit("the index has more segments than its directory holds".into()));
        }
        directory.generation = self.meta.generation;
        let (root, page) = self.unit.allocate(Tag::new(0, Kind::Directory))?;
        directory.encode(page);
        let old = std::mem::replace(&mut self.meta.root, root);
        self.meta.encode(self.unit.page(META_BLOCK)?);
        self.unit.commit()?;
        Ok(old)
    }
}

/// Seals the active graph and opens a fresh one, as [`open`] does.
pub fn seal(store: &impl PageStore, meta: &Meta, directory: &Directory, now: i64) -> Result<()> {
    directory.active()?;
    open(store, meta, directory, SegmentKind::Hnsw, now)
}

/// Opens a segment of a kind for inserts and seals the one that took them, unless somebody else changed the directory
/// since `meta` was read.
///
/// One unit: metapage, sealed head, fresh head, fresh directory page. Then the old directory page is given up.
/// Where the directory is full nothing happens.
pub fn open(store: &impl PageStore, meta: &Meta, directory: &Directory, kind: SegmentKind, now: i64) -> Result<()> {
    if !directory.has_room() {
        return Ok(());
    }
    let Some(mut flip) = Flip::begin(store, meta)? else { return Ok(()) };
    let id = flip.meta.take_segment()?;
    if let Some(old) = directory.active_of(kind) {
        let page = flip.unit.page(old.head)?;
        let sealed = Head { active: false, ..Head::decode(page, old.head, old.id)? };
        sealed.encode(page);
    }
    let (head, page) = flip.unit.allocate(Tag::new(id, Kind::SegmentHead))?;
    Head::of_kind(kind, now).encode(page);
    let mut fresh = directory.clone();
    fresh.segments.iter_mut().filter(|s| s.kind == kind).for_each(|s| s.active = false);
    fresh.segments.push(SegmentEntry { id, kind, active: true, head, created: now });
    let old = flip.commit(fresh)?;
    store.release(old)
}

/// How many rows wait in pending lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Fewer than `pending_rows`.
    Small,
    /// A flush is due: the caller asks a worker for it.
    Due,
    /// So many that searches suffer. The caller takes the maintenance lock, if it is free, and runs
    /// [`compact::relieve`](crate::compact::relieve) for as long as an insert may take.
    Full,
}

/// Times `pending_rows`: rows in pending lists from which on inserts help with the flush.
const FULL: u64 = 16;

/// Inserts a row into the index: at the end of the pending list, or where there is none to be into the active graph,
/// sealing that where it is full.
///
/// `now` is the clock, in microseconds since 2000-01-01.
///
/// # Errors
/// As [`Segment::insert`] and [`Directory::read`].
pub fn insert(store: &impl PageStore, row: &NewRow, now: i64) -> Result<Backlog> {
    let mut refused = None;
    loop {
        store.check_interrupts()?;
        let (meta, directory) = Directory::read(store)?;
        // Sealing changes the directory and the head in one unit.
        if refused == Some(meta.generation) {
            return Err(Error::corrupt(meta.root, "lists a sealed segment as the active one"));
        }
        let pending = directory.active_of(SegmentKind::Pending);
        if meta.parameters.pending_rows > 0 && pending.is_none() && directory.has_room() {
            open(store, &meta, &directory, SegmentKind::Pending, now)?;
            continue;
        }
        let inserted = match pending {
            Some(list) => append(store, &meta.parameters, &directory, list, row)?,
            None => insert_linked(store, &meta, &directory, row, None, now)?.map(|()| Backlog::Small),
        };
        if let Some(backlog) = inserted {
            return Ok(backlog);
        }
        refused = Some(meta.generation);
    }
}

/// Appends a row to a pending list. `None`: it is sealed by now.
fn append(
    store: &impl PageStore,
    parameters: &Parameters,
    directory: &Directory,
    list: SegmentEntry,
    row: &NewRow,
) -> Result<Option<Backlog>> {
    let shape = parameters.shapes().flat;
    let Some((rows, new_page)) = (Segment { store, shape: &shape, id: list.id, head: list.head }).append(row)? else {
        return Ok(None);
    };
    let limit = u64::from(parameters.pending_rows);
    if rows < limit {
        return Ok(Some(Backlog::Small));
    }
    // The lists that are being flushed are looked at once a page.
    let mut sum = rows;
    if new_page {
        for entry in directory.segments.iter().filter(|s| s.kind == SegmentKind::Pending && !s.active) {
            sum += u64::from(Head::read(store, entry)?.element_pages) * u64::from(shape.element.per_page);
        }
    }
    Ok(Some(if new_page && sum >= FULL * limit { Backlog::Full } else { Backlog::Due }))
}

/// Inserts a row into the active graph; if that is full it is sealed. `origin` is emptied by the unit that publishes the
/// row. `None`: start over with a fresh directory.
pub(crate) fn insert_linked(
    store: &impl PageStore,
    meta: &Meta,
    directory: &Directory,
    row: &NewRow,
    origin: Option<&Origin>,
    now: i64,
) -> Result<Option<()>> {
    let shape = meta.parameters.shape();
    let active = directory.active()?;
    let segment = Segment { store, shape: &shape, id: active.id, head: active.head };
    let head = segment.read_head()?;
    let elements = u64::from(head.element_pages.saturating_sub(1)) * u64::from(shape.element.per_page);
    if head.active && meta.parameters.is_full(elements, head.created, now) && directory.has_room() {
        seal(store, meta, directory, now)?;
        return Ok(None);
    }
    let outcome = segment.insert_from(meta.parameters.ef_construction, row, origin)?;
    Ok((outcome == Outcome::Inserted).then_some(()))
}

/// Gives up a directory page that the metapage does not point to: a crash between [`seal`]'s unit and the release of
/// the old page left it. Whether it was one.
pub fn free_stray_directory(store: &impl PageStore, block: BlockNumber) -> Result<bool> {
    let mut unit = store.unit();
    let meta = Meta::decode(unit.page(META_BLOCK)?)?;
    let page = unit.page(block)?;
    if block == meta.root || page.tag().is_none_or(|tag| tag.kind != Kind::Directory) {
        return Ok(false);
    }
    page.set_tag(Tag::new(0, Kind::Free));
    unit.commit()?;
    Ok(true)
}

/// The three pages of an empty index: metapage, directory, head of the first graph. The first insert opens a pending
/// list, if there is to be one: so builds and empty indexes need no page for it.
pub fn empty_index(parameters: &Parameters, now: i64) -> [Box<Page>; 3] {
    let mut pages = [Page::zeroed(), Page::zeroed(), Page::zeroed()];
    let first = SegmentEntry { id: 1, kind: SegmentKind::Hnsw, active: true, head: 2, created: now };
    pages[0].set_tag(Tag::new(0, Kind::Meta));
    Meta { parameters: parameters.clone(), generation: 1, root: 1, next_segment: 2, history: META_BLOCK }
        .encode(&mut pages[0]);
    pages[1].set_tag(Tag::new(0, Kind::Directory));
    Directory { generation: 1, segments: vec![first], dropped: Vec::new() }.encode(&mut pages[1]);
    pages[2].set_tag(Tag::new(1, Kind::SegmentHead));
    Head::new(now).encode(&mut pages[2]);
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    fn parameters() -> Parameters {
        Parameters {
            metric: Metric::L2,
            dimensions: 4,
            m: 4,
            ef_construction: 16,
            segment_rows: 1000,
            recent_rows: 100_000,
            pending_rows: 4096,
            lists: 0,
            recent_threshold: i64::MAX,
            partition_interval: i64::MAX - 1,
            rerank: 0,
            keys: 0,
            age_key: None,
        }
    }

    #[test]
    fn vacuum_finds_the_directory_page_that_a_crash_in_sealing_leaves() {
        let store = MemoryStore::new();
        for page in empty_index(&parameters(), 0) {
            store.append(&page);
        }
        let (meta, directory) = Directory::read(&store).expect("sound");
        store.stop_after(1);
        assert_eq!(seal(&store, &meta, &directory, 1), Err(Error::Stopped));
        store.restart();
        let (sealed, _) = Directory::read(&store).expect("sound");
        assert_ne!(sealed.root, meta.root);
        assert_eq!(free_stray_directory(&store, meta.root), Ok(true));
        assert_eq!(free_stray_directory(&store, meta.root), Ok(false), "it is free already");
        assert_eq!(free_stray_directory(&store, sealed.root), Ok(false), "it is in use");
        assert!(Directory::read(&store).is_ok());
    }
}
