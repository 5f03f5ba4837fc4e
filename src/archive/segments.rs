//! Objects of an index: the structure of its segments, with the fingerprints of their rows.
//!
//! Invariant: what a sealed segment was exported as once is exported as that again, as long as the store has it. So the
//! fingerprints of rows that died since stay where they are, and only the list of dead elements is new.

use super::read::{Failure, Result};
use crate::am::fingerprints::Hashing;
use crate::pg::relation::{Index, OpenTable};
use crate::pg::thread::Pool;
use ann::index::{Meta, SegmentEntry, SegmentKind};
use ann::keys::Row;
use ann::page::PageStore;
use ann::relink::{Fingerprint, GraphReader, ListsReader, ReadElement, ReadListed, dead_elements};
use archive::{
    Centroid, GraphElement, GraphEncoder, GraphHeader, Key, Kind, ListElement, ListsEncoder, ListsHeader, ObjectRef,
    Packed, ROWS_A_PUSH, SegmentObjects, Structure, VectorsEncoder, encode_centroids, encode_tombstones, pack,
};

/// Rows that are looked up in the table together, at most.
const BATCH: usize = 16_384;
/// Bytes of their vectors. Two batches are in memory, twice each where vectors are archived.
const BATCH_BYTES: usize = 24 << 20;

/// Takes objects as they are made. The caller holds no page.
pub(super) trait Out {
    fn put(&mut self, packed: Packed) -> Result<()>;
}

/// How objects are made of an index.
pub(super) struct Maker<'a, S> {
    pub store: &'a S,
    pub meta: &'a Meta,
    pub index: Index,
    pub table: &'a OpenTable,
    pub pool: &'a Pool,
    pub out: &'a mut dyn Out,
    pub key: Option<&'a Key>,
    pub vectors: bool,
}

impl From<ann::error::Error> for Failure {
    fn from(error: ann::error::Error) -> Self {
        Self::Index(error)
    }
}

/// An element with its rows, of whichever kind of segment.
struct Element<E> {
    element: E,
    rows: Vec<Row>,
}

/// Elements that wait for the fingerprints of their rows.
struct Batch<E> {
    elements: Vec<Element<E>>,
    rows: usize,
}

/// A batch whose rows are being hashed.
struct Looked<E> {
    elements: Vec<Element<E>>,
    hashing: Hashing,
    /// Vectors of the rows, where they are archived.
    values: Vec<f32>,
}

/// Encodes one kind of element.
trait Encode {
    type Element;

    /// Takes an element with the fingerprints of its rows, or, where `further`, more of them for the one before. What is
    /// needed once only may be taken out of the element.
    fn push(&mut self, element: &mut Self::Element, rows: &[Fingerprint], further: bool) -> Result<Option<Vec<u8>>>;

    fn finish(self) -> Result<Option<Vec<u8>>>;
}

struct Graphs(GraphEncoder);

impl Encode for Graphs {
    type Element = (u8, Vec<Vec<u32>>);

    fn push(&mut self, (level, lists): &mut Self::Element, rows: &[Fingerprint], _: bool) -> Result<Option<Vec<u8>>> {
        // Further rows come without neighbors.
        let neighbors = std::mem::take(lists);
        Ok(self.0.push(&GraphElement { level: *level, rows: rows.to_vec(), neighbors })?)
    }

    fn finish(self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.finish()?)
    }
}

struct Lists(ListsEncoder);

impl Encode for Lists {
    type Element = (u32, Option<u32>);

    fn push(
        &mut self,
        &mut (list, second): &mut Self::Element,
        rows: &[Fingerprint],
        further: bool,
    ) -> Result<Option<Vec<u8>>> {
        Ok(self.0.push(&ListElement { list, second, rows: rows.to_vec(), further })?)
    }

    fn finish(self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.finish()?)
    }
}

/// What is being made of a segment.
struct Segment<C: Encode> {
    encoder: C,
    /// The batch before the one that is read now.
    looked: Option<Looked<C::Element>>,
    kind: Kind,
    vectors: Option<VectorsEncoder>,
    /// Elements none of whose rows lives.
    dead: Vec<u32>,
    next: u32,
    made: SegmentObjects,
}

impl<S: PageStore> Maker<'_, S> {
    /// Makes the objects of a segment; `None` for one of no rows, and for pending lists, which have no structure.
    pub fn segment(&mut self, entry: &SegmentEntry) -> Result<Option<SegmentObjects>> {
        match entry.kind {
            SegmentKind::Pending => Ok(None),
            SegmentKind::Hnsw => self.graph(entry),
            SegmentKind::Ivf => self.lists(entry),
        }
    }

    fn graph(&mut self, entry: &SegmentEntry) -> Result<Option<SegmentObjects>> {
        let reader = GraphReader::open(self.store, self.meta, entry)?;
        let header = reader.header();
        if header.elements == 0 || header.entry.is_none() {
            return Ok(None);
        }
        let header = GraphHeader { elements: header.elements, m: header.m, entry: header.entry };
        let encoder = Graphs(GraphEncoder::new(header)?);
        let mut segment = self.begin(encoder, Structure::Graph(header), Kind::Graph)?;
        let mut batch = Batch { elements: Vec::new(), rows: 0 };
        reader.each(|ReadElement { level, neighbors, rows, .. }| {
            self.add(&mut segment, &mut batch, Element { element: (level, neighbors), rows })
        })?;
        self.end(segment, batch).map(Some)
    }

    fn lists(&mut self, entry: &SegmentEntry) -> Result<Option<SegmentObjects>> {
        let reader = ListsReader::open(self.store, self.meta, entry)?;
        let header = reader.header();
        if header.elements == 0 {
            return Ok(None);
        }
        let header = ListsHeader { elements: header.elements, lists: header.lists, dimensions: header.dimensions };
        let encoder = Lists(ListsEncoder::new(header)?);
        let mut segment = self.begin(encoder, Structure::Lists(header), Kind::Lists)?;
        let centroids = reader.centroids()?;
        let centroids = (0..centroids.len()).map(|i| {
            let (scale, offset, code) = centroids.get(i);
            Centroid { scale, offset, code: code.to_vec() }
        });
        for chunk in encode_centroids(&header, centroids)? {
            segment.made.centroids.push(self.put(Kind::Centroids, &chunk)?);
        }
        let mut batch = Batch { elements: Vec::new(), rows: 0 };
        reader.each(|ReadListed { list, second, rows, .. }| {
            self.add(&mut segment, &mut batch, Element { element: (list, second), rows })
        })?;
        self.end(segment, batch).map(Some)
    }

    fn begin<C: Encode>(&self, encoder: C, structure: Structure, kind: Kind) -> Result<Segment<C>> {
        let dimensions = self.meta.parameters.dimensions as u16;
        Ok(Segment {
            encoder,
            looked: None,
            kind,
            vectors: if self.vectors { Some(VectorsEncoder::new(dimensions)?) } else { None },
            dead: Vec::new(),
            next: 0,
            made: SegmentObjects {
                structure,
                origin: None,
                created: 0,
                rows: 0,
                objects: Vec::new(),
                centroids: Vec::new(),
                tombstones: Vec::new(),
                vectors: Vec::new(),
            },
        })
    }

    fn add<C: Encode>(
        &mut self,
        segment: &mut Segment<C>,
        batch: &mut Batch<C::Element>,
        element: Element<C::Element>,
    ) -> Result<()> {
        batch.rows += element.rows.len();
        batch.elements.push(element);
        let most = (BATCH_BYTES / (size_of::<f32>() * self.meta.parameters.dimensions)).clamp(1, BATCH);
        if batch.rows.max(batch.elements.len()) >= most { self.flush(segment, batch) } else { Ok(()) }
    }

    /// Looks up the rows of a batch, and encodes the batch before, which threads have hashed meanwhile.
    fn flush<C: Encode>(&mut self, segment: &mut Segment<C>, batch: &mut Batch<C::Element>) -> Result<()> {
        let elements = std::mem::take(&mut batch.elements);
        batch.rows = 0;
        let tids: Vec<_> = elements.iter().flat_map(|e| e.rows.iter().map(|row| row.tid)).collect();
        let (dimensions, wants) = (self.meta.parameters.dimensions, segment.vectors.is_some());
        let mut values = vec![0f32; if wants { tids.len() * dimensions } else { 0 }];
        let hashing = Hashing::begin(self.index, self.table, &tids, self.pool, |i, vector| {
            if wants {
                values[i * dimensions..][..dimensions].copy_from_slice(vector);
            }
        });
        match segment.looked.replace(Looked { elements, hashing, values }) {
            Some(before) => self.encode(segment, before),
            None => Ok(()),
        }
    }

    fn encode<C: Encode>(&mut self, segment: &mut Segment<C>, looked: Looked<C::Element>) -> Result<()> {
        let Looked { elements, hashing, values } = looked;
        let (dimensions, found) = (self.meta.parameters.dimensions, hashing.finish());
        let mut at = 0;
        for Element { mut element, rows } in elements {
            let here = at..at + rows.len();
            at = here.end;
            let live: Vec<Fingerprint> = found[here.clone()].iter().flatten().copied().collect();
            if live.is_empty() {
                segment.dead.push(segment.next);
            }
            segment.next += 1;
            segment.made.rows += live.len() as u64;
            let (first, more) = live.split_at(live.len().min(ROWS_A_PUSH));
            let mut chunks = vec![segment.encoder.push(&mut element, first, false)?];
            for rows in more.chunks(ROWS_A_PUSH) {
                chunks.push(segment.encoder.push(&mut element, rows, true)?);
            }
            for chunk in chunks.into_iter().flatten() {
                segment.made.objects.push(self.put(segment.kind, &chunk)?);
            }
            if let Some(encoder) = &mut segment.vectors {
                for i in here.filter(|&i| found[i].is_some()) {
                    if let Some(chunk) = encoder.push(&values[i * dimensions..][..dimensions])? {
                        segment.made.vectors.push(self.put(Kind::Vectors, &chunk)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn end<C: Encode>(&mut self, mut segment: Segment<C>, mut batch: Batch<C::Element>) -> Result<SegmentObjects> {
        self.flush(&mut segment, &mut batch)?;
        if let Some(last) = segment.looked.take() {
            self.encode(&mut segment, last)?;
        }
        let Segment { encoder, kind, vectors, dead, mut made, .. } = segment;
        if let Some(chunk) = encoder.finish()? {
            made.objects.push(self.put(kind, &chunk)?);
        }
        if let Some(chunk) = vectors.and_then(VectorsEncoder::finish) {
            made.vectors.push(self.put(Kind::Vectors, &chunk)?);
        }
        made.tombstones = self.tombstones(made.structure.elements(), dead)?;
        Ok(made)
    }

    fn tombstones(&mut self, elements: u32, dead: Vec<u32>) -> Result<Vec<ObjectRef>> {
        encode_tombstones(elements, dead)?.iter().map(|chunk| self.put(Kind::Tombstones, chunk)).collect()
    }

    /// A segment that was exported before: its objects of then, with the elements that are dead now. `None` if it is not
    /// as it was.
    pub fn again(&mut self, entry: &SegmentEntry, before: &SegmentObjects) -> Result<Option<SegmentObjects>> {
        let same_kind = matches!(
            (entry.kind, before.structure),
            (SegmentKind::Hnsw, Structure::Graph(_)) | (SegmentKind::Ivf, Structure::Lists(_))
        );
        if !same_kind {
            return Ok(None);
        }
        let (elements, dead) = dead_elements(self.store, self.meta, entry)?;
        if elements != before.structure.elements() {
            return Ok(None);
        }
        let tombstones = self.tombstones(before.structure.elements(), dead)?;
        Ok(Some(SegmentObjects { tombstones, ..before.clone() }))
    }

    fn put(&mut self, kind: Kind, raw: &[u8]) -> Result<ObjectRef> {
        let packed = pack(kind, raw, self.key)?;
        let reference = packed.reference(UNPLACED);
        self.out.put(packed)?;
        Ok(reference)
    }
}

/// Where an object is until the store says.
pub(super) const UNPLACED: &str = "?";
