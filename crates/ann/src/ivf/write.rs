//! Making an IVF segment: lists for the rows, and the pages.

use super::assign::{Centroids, NO_LIST, assign};
use super::bits::Coder;
use super::kmeans::{Vectors, Work, lists_for, train};
use super::layout::{BLOCK_ROWS, Forms, ListEntry, Posting, StreamRun, StreamWriter, write_factors};
use crate::distance::Metric;
use crate::error::{Error, Result};
use crate::hnsw::build::{Arena, Codes, Node};
use crate::hnsw::layout::{Bodies, RowLists, cut};
use crate::hnsw::probe::Scaling;
use crate::index::{Head, chain_index};
use crate::keys::{KeySummary, Keys};
use crate::page::{BlockNumber, Kind, NONE, PAGE_SIZE, Page, Tag};
use crate::relink::CentroidCodes;
use crate::shape::Shape;
use std::ops::Range;

/// About how many bytes of postings are made before they are written.
const BATCH_BYTES: usize = 8 << 20;

/// The vectors that codes stand for.
impl<A: Arena> Vectors for Codes<A> {
    fn len(&self) -> usize {
        Codes::len(self)
    }

    fn read(&self, i: usize, out: &mut [f32]) {
        let params = self.params(i as Node);
        for (value, &code) in out.iter_mut().zip(self.code(i as Node)) {
            // Rounding may lift the largest f32 over the edge.
            *value = (params.offset + params.scale * f32::from(code)).clamp(f32::MIN, f32::MAX);
        }
    }
}

/// Some of the codes.
struct Part<'a, A: Arena> {
    codes: &'a Codes<A>,
    nodes: &'a [Node],
}

impl<A: Arena> Vectors for Part<'_, A> {
    fn len(&self) -> usize {
        self.nodes.len()
    }

    fn read(&self, i: usize, out: &mut [f32]) {
        self.codes.read(self.nodes[i] as usize, out);
    }
}

/// Nodes of all lists, list by list.
struct Members {
    nodes: Vec<Node>,
    /// Where each list ends in `nodes`.
    ends: Vec<usize>,
}

impl Members {
    /// Nodes by the list that `list_of` names, by number within a list.
    fn new(lists: usize, assignment: &[[u32; 2]], which: usize) -> Self {
        let list_of = |lists: &[u32; 2]| Some(lists[which] as usize).filter(|_| lists[which] != NO_LIST);
        let mut ends = vec![0; lists + 1];
        assignment.iter().filter_map(list_of).for_each(|list| ends[list + 1] += 1);
        (0..lists).for_each(|list| ends[list + 1] += ends[list]);
        let mut nodes = vec![0; ends[lists]];
        for (node, list) in assignment.iter().enumerate().filter_map(|(i, lists)| Some((i as Node, list_of(lists)?))) {
            nodes[ends[list]] = node;
            ends[list] += 1;
        }
        ends.truncate(lists);
        Self { nodes, ends }
    }

    fn range(&self, list: usize) -> Range<usize> {
        if list == 0 { 0..self.ends[0] } else { self.ends[list - 1]..self.ends[list] }
    }

    fn of(&self, list: usize) -> &[Node] {
        &self.nodes[self.range(list)]
    }
}

/// The lists of a segment to be written. Takes 12 bytes a row besides the centroids, 20 while it is made.
pub struct Plan<'a, A: Arena> {
    codes: &'a Codes<A>,
    rows: &'a RowLists,
    shape: &'a Shape,
    centroids: Centroids,
    /// None under L1: lists have no postings.
    coder: Option<Coder>,
    forms: Forms,
    /// Nodes by the list of the nearest centroid: the order of the elements.
    first: Members,
    /// Nodes by their other list.
    second: Members,
    /// For each node, where it comes in `first`.
    place: Vec<u32>,
}

impl<'a, A: Arena> Plan<'a, A> {
    /// Trains `lists` centroids (0: as many as suit the rows) and puts each element in two lists. `shape` is that of
    /// elements without neighbors.
    ///
    /// # Errors
    /// Those of `work`'s poll; [`Error::Stopped`](crate::error::Error::Stopped).
    pub fn new(
        (codes, rows, shape): (&'a Codes<A>, &'a RowLists, &'a Shape),
        lists: u32,
        seed: u64,
        work: &mut Work,
    ) -> Result<Self> {
        assert_eq!(shape.m, 0, "elements of IVF segments have no neighbors");
        let coder = (shape.metric != Metric::L1).then(|| Coder::new(shape.metric, shape.dimensions));
        let lists = if lists == 0 { lists_for(codes.len() as u64) } else { lists };
        let values = if codes.is_empty() {
            Vec::new()
        } else {
            train(codes, shape.dimensions, lists, shape.metric, seed, work)?
        };
        let centroids = Centroids::new(&values, shape.dimensions, coder.as_ref());
        drop(values);
        let assignment = if codes.is_empty() { Vec::new() } else { assign(codes, &centroids, work)? };
        Ok(Self::with((codes, rows, shape), centroids, coder, &assignment))
    }

    /// Takes the centroids as they are given, and the two lists of each node; nodes whose lists are not there, or are one
    /// and the same, are assigned anew.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::error::Error::Structure) where centroids are missing, not finite, or of other dimensions;
    /// those of `work`'s poll; [`Error::Stopped`](crate::error::Error::Stopped).
    pub fn from_structure(
        (codes, rows, shape): (&'a Codes<A>, &'a RowLists, &'a Shape),
        centroids: &CentroidCodes,
        mut assignment: Vec<[u32; 2]>,
        work: &mut Work,
    ) -> Result<Self> {
        assert_eq!(shape.m, 0, "elements of IVF segments have no neighbors");
        let lists = centroids.len() as u32;
        if centroids.dimensions() != shape.dimensions || lists == 0 && !codes.is_empty() {
            let what = format!("lists have {lists} centroids of {} dimensions", centroids.dimensions());
            return Err(Error::Structure(what));
        }
        let coder = (shape.metric != Metric::L1).then(|| Coder::new(shape.metric, shape.dimensions));
        let (centroid_codes, params) = centroids.checked()?;
        let centroids = Centroids::from_codes(centroid_codes, params, shape.dimensions, coder.as_ref());
        // Lists without postings have no use for a second list.
        let one = lists == 1 || coder.is_none();
        assignment.resize(codes.len(), [NO_LIST; 2]);
        assignment.iter_mut().filter(|_| one).for_each(|lists| lists[1] = NO_LIST);
        let is_known = |&[first, second]: &[u32; 2]| first < lists && (one || second < lists && second != first);
        let nodes: Vec<Node> = (0..codes.len() as Node).filter(|&n| !is_known(&assignment[n as usize])).collect();
        if !nodes.is_empty() {
            let found = assign(&Part { codes, nodes: &nodes }, &centroids, work)?;
            nodes.iter().zip(found).for_each(|(&node, lists)| assignment[node as usize] = lists);
        }
        Ok(Self::with((codes, rows, shape), centroids, coder, &assignment))
    }

    fn with(
        (codes, rows, shape): (&'a Codes<A>, &'a RowLists, &'a Shape),
        centroids: Centroids,
        coder: Option<Coder>,
        assignment: &[[u32; 2]],
    ) -> Self {
        let first = Members::new(centroids.len(), assignment, 0);
        // Without codes a second list would be the elements themselves once more.
        let others: &[[u32; 2]] = if coder.is_some() { assignment } else { &[] };
        let second = Members::new(centroids.len(), others, 1);
        let mut place = vec![0; first.nodes.len()];
        first.nodes.iter().enumerate().for_each(|(i, &node)| place[node as usize] = i as u32);
        let forms = Forms::new(shape, coder.as_ref().map_or(0, Coder::groups));
        Self { codes, rows, shape, centroids, coder, forms, first, second, place }
    }

    /// Pages that [`Self::write`] will emit.
    pub fn pages_needed(&self) -> usize {
        self.parts().iter().sum()
    }

    /// Lists of the segment.
    pub fn lists(&self) -> usize {
        self.centroids.len()
    }

    /// Pages of the head, centroids, postings, elements, tails and overflow chunks.
    fn parts(&self) -> [usize; 6] {
        let centroids = StreamRun::pages(self.lists() * self.forms.record_size());
        let postings = StreamRun::pages((0..self.lists()).map(|list| self.list_bytes(list)).sum());
        let [elements, tails, overflow] = Bodies::pages(self.codes, self.rows, self.shape);
        [1, centroids, postings, elements, tails, overflow]
    }

    /// Postings of a list.
    fn postings(&self, list: usize) -> usize {
        if self.coder.is_none() { 0 } else { self.first.range(list).len() + self.second.range(list).len() }
    }

    fn list_bytes(&self, list: usize) -> usize {
        self.forms.list_bytes(self.postings(list))
    }

    /// Nodes of a list.
    fn members(&self, list: usize) -> impl Iterator<Item = Node> {
        self.first.of(list).iter().chain(self.second.of(list)).copied()
    }

    /// Writes the segment to `blocks`: ascending, as many as [`Self::pages_needed`] says. The first is the segment's head,
    /// for which `head` is the template. Pages are emitted in the order of `blocks`.
    ///
    /// # Errors
    /// Those of `emit` and of `work`'s poll; [`Error::Full`](crate::error::Error::Full).
    pub fn write(
        &self,
        (segment, blocks): (u32, &[BlockNumber]),
        head: &Head,
        work: &mut Work,
        mut emit: impl FnMut(BlockNumber, &Page) -> Result<()>,
    ) -> Result<()> {
        let [start, centroids, postings, elements, tails, overflow] = cut(blocks, self.parts());
        let bodies =
            Bodies::new((self.codes, self.rows, self.shape), Some(&self.first.nodes), [elements, tails, overflow]);
        let mut head = Head {
            active: false,
            lists: self.lists() as u32,
            rows: self.rows.len() as u64,
            element_pages: elements.len() as u32,
            summary: Some(self.rows.summary(self.shape.keys)),
            ..*head
        };
        for (kind, blocks) in [(Kind::Centroid, centroids), (Kind::Posting, postings)] {
            head.first[chain_index(kind)] = blocks.first().copied().unwrap_or(NONE);
            head.last[chain_index(kind)] = blocks.last().copied().unwrap_or(NONE);
        }
        let runs = [(Kind::Element, bodies.elements), (Kind::Tail, bodies.tails), (Kind::Overflow, bodies.overflow)];
        runs.iter().for_each(|(kind, run)| run.enter(&mut head, *kind));
        let mut page = Page([0; PAGE_SIZE]);
        page.set_tag(Tag::new(segment, Kind::SegmentHead));
        head.encode(&mut page);
        emit(start[0], &page)?;

        self.write_centroids(segment, (StreamRun(centroids), StreamRun(postings)), &bodies, &mut emit)?;
        self.write_postings(segment, StreamRun(postings), &bodies, work, &mut emit)?;
        for (kind, run) in runs {
            let fill = |page: &mut Page, slot, i| match kind {
                Kind::Element => bodies.fill_element(page, slot, i, (segment, 0, NONE, &[])),
                Kind::Tail => {
                    bodies.fill_tail(page, slot, i);
                    Ok(())
                }
                _ => bodies.fill_chunk(page, slot, i),
            };
            run.write((segment, kind), fill, &mut emit)?;
        }
        Ok(())
    }

    fn write_centroids(
        &self,
        segment: u32,
        (centroids, postings): (StreamRun, StreamRun),
        bodies: &Bodies<A>,
        emit: &mut impl FnMut(BlockNumber, &Page) -> Result<()>,
    ) -> Result<()> {
        let mut stream = StreamWriter::new((segment, Kind::Centroid), centroids, emit);
        let (mut record, mut byte) = (vec![0; self.forms.record_size()], 0);
        for list in 0..self.lists() {
            let (params, own) = (self.centroids.params(list), self.first.range(list));
            let entry = ListEntry {
                scaling: Scaling { scale: params.scale, offset: params.offset, norm2: params.norm2 },
                start: postings.at(byte),
                postings: self.postings(list) as u32,
                first: if own.is_empty() { NONE } else { bodies.elements.slot(own.start)? },
                elements: own.len() as u32,
                summary: self.summary(list),
            };
            self.forms.write_record(&entry, self.centroids.code(list), &mut record);
            stream.push(&record)?;
            byte += self.list_bytes(list);
        }
        stream.finish()
    }

    fn summary(&self, list: usize) -> KeySummary {
        let mut summary = KeySummary::default();
        if self.shape.keys > 0 {
            let rows = self.members(list).flat_map(|node| self.rows.of(node));
            rows.for_each(|row| _ = summary.add(&row.keys, self.shape.keys));
        }
        summary
    }

    fn write_postings(
        &self,
        segment: u32,
        run: StreamRun,
        bodies: &Bodies<A>,
        work: &mut Work,
        emit: &mut impl FnMut(BlockNumber, &Page) -> Result<()>,
    ) -> Result<()> {
        let Some(coder) = &self.coder else { return Ok(()) };
        let mut stream = StreamWriter::new((segment, Kind::Posting), run, emit);
        let mut list = 0;
        while list < self.lists() {
            let (first, mut bytes) = (list, 0);
            while list < self.lists() && (bytes < BATCH_BYTES || list == first) {
                bytes += self.list_bytes(list);
                list += 1;
            }
            let mut batch = vec![Ok(Vec::new()); list - first];
            work.drive(|job| {
                job.each(
                    &mut batch,
                    1,
                    || Encoder::new(self, coder, bodies),
                    |encoder, i, out| {
                        out[0] = encoder.list(first + i);
                        job.count(self.postings(first + i));
                    },
                )
            })?;
            batch.into_iter().try_for_each(|bytes| stream.push(&bytes?))?;
        }
        stream.finish()
    }
}

/// Makes the postings of lists, on one thread.
struct Encoder<'a, A: Arena> {
    plan: &'a Plan<'a, A>,
    coder: &'a Coder,
    bodies: &'a Bodies<'a, A>,
    vector: Vec<f32>,
    rotated: Vec<f32>,
    codes: Vec<u8>,
    postings: Vec<Posting>,
}

impl<'a, A: Arena> Encoder<'a, A> {
    fn new(plan: &'a Plan<'a, A>, coder: &'a Coder, bodies: &'a Bodies<'a, A>) -> Self {
        Self {
            plan,
            coder,
            bodies,
            vector: vec![0.0; plan.shape.dimensions],
            rotated: vec![0.0; coder.width()],
            codes: vec![0; BLOCK_ROWS * coder.code_len()],
            postings: Vec::with_capacity(BLOCK_ROWS),
        }
    }

    /// All blocks of a list.
    fn list(&mut self, list: usize) -> Result<Vec<u8>> {
        let (plan, mut out) = (self.plan, vec![0; self.plan.list_bytes(list)]);
        let mut members = plan.members(list);
        for block in out.chunks_exact_mut(plan.forms.block_size()) {
            self.postings.clear();
            for node in members.by_ref().take(BLOCK_ROWS) {
                let posting = self.posting(list, node)?;
                self.postings.push(posting);
            }
            let (codes, factors) = block.split_at_mut(plan.forms.code_bytes);
            self.coder.pack(&self.codes[..self.postings.len() * self.coder.code_len()], codes);
            write_factors(&plan.forms, &self.postings, factors);
        }
        Ok(out)
    }

    fn posting(&mut self, list: usize, node: Node) -> Result<Posting> {
        let (plan, len) = (self.plan, self.coder.code_len());
        plan.codes.read(node as usize, &mut self.vector);
        self.coder.rotate(&self.vector, &mut self.rotated);
        let code = &mut self.codes[self.postings.len() * len..][..len];
        let factors = self.coder.encode(&self.rotated, plan.centroids.rotated(list), code);
        let (mut keys, mut several) = (Keys::default(), false);
        if plan.shape.keys > 0 {
            let mut rows = plan.rows.of(node);
            several = rows.len() > 1;
            keys = rows.next().map_or(keys, |row| row.keys);
        }
        Ok(Posting {
            base: factors.base,
            scale: factors.scale_bits(),
            error: factors.error_bits(),
            slot: self.bodies.elements.slot(plan.place[node as usize] as usize)?,
            keys,
            several,
        })
    }
}
