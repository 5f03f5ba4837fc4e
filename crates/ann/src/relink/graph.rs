//! Making a graph of archived links and rows.

use super::Links;
use crate::error::Result;
use crate::hnsw::build::{Arena, Codes, Graph, Node, Order, Scratch};
use crate::hnsw::near::{Near, Visited};
use crate::ivf::kmeans::{Job, Work};
use crate::page::NONE;
use crate::shape::Shape;

/// Nodes that a thread takes at a time.
const PIECE: usize = 256;
/// Nodes that are linked one by one where there is nothing to link them to yet.
const ALONE: usize = 256;
/// Most candidates for the neighbors of one node.
const MOST_CANDIDATES: usize = 512;
/// Most dropped elements that are looked through for the neighbors of one node, beyond its own.
const MOST_STEPS: usize = 256;
/// Of the archived elements at least one in so many must be there: else linking through them saves little, and finds less.
/// Measured with 60,000 rows: of two fifths it takes 1.2 s of CPU instead of 2.0, and recall is 1.6 points lower at `ef`
/// 40; of a tenth 0.4 s instead of 0.5, and recall is 1.3 points lower. Of seven tenths it is the same.
const ONE_IN: usize = 2;
/// How often nodes out of reach are linked, at most: each may cut off others.
const ROUNDS: usize = 3;

/// Which nodes archived elements became.
pub struct Mapping {
    /// For each ordinal; [`NONE`]: dropped. Several may be one node: their rows have one code today.
    nodes: Vec<Node>,
    /// For each node the first ordinal that became it; [`NONE`]: none did.
    owners: Vec<u32>,
}

impl Mapping {
    /// No element became a node yet.
    pub fn new(elements: u32) -> Self {
        Self { nodes: vec![NONE; elements as usize], owners: Vec::new() }
    }

    /// Bytes that so many elements take, each of which is a node.
    pub fn bytes(elements: u32) -> usize {
        8 * elements as usize
    }

    /// A row of the element is a row of the node. Nodes are as they come: each is known already, or the next number.
    /// Elements that do not exist are left out.
    pub fn add(&mut self, ordinal: u32, node: Node) {
        let is_free = self.nodes.get(ordinal as usize) == Some(&NONE);
        if node as usize >= self.owners.len() {
            self.owners.resize(node as usize + 1, NONE);
        }
        if is_free {
            self.nodes[ordinal as usize] = node;
            let owner = &mut self.owners[node as usize];
            *owner = if *owner == NONE { ordinal } else { *owner };
        }
    }

    /// Nodes.
    pub fn nodes(&self) -> usize {
        self.owners.len()
    }

    /// Elements that became nodes.
    pub fn kept(&self) -> usize {
        self.nodes.iter().filter(|&&node| node != NONE).count()
    }

    /// Nodes that have an element's place.
    pub fn owned_nodes(&self) -> usize {
        self.owners.iter().filter(|&&owner| owner != NONE).count()
    }

    /// The node that has this element's place.
    pub(super) fn owned(&self, ordinal: u32) -> Option<Node> {
        let node = *self.nodes.get(ordinal as usize)?;
        (node != NONE && self.owners[node as usize] == ordinal).then_some(node)
    }
}

impl<A: Arena> Graph<A> {
    /// A graph of the nodes of `codes` with the links of an archived one. Where elements are gone, those that they linked
    /// are linked to each other; nodes that nothing leads to, and those that the archive does not know, are inserted. Where
    /// most elements are gone the graph is built afresh. Work counts nodes.
    ///
    /// # Errors
    /// What the arena fails with; those of `work`'s poll; [`Error::Stopped`](crate::error::Error::Stopped).
    ///
    /// # Panics
    /// If `mapping` is not of these links and codes.
    pub fn from_structure(
        arena: &mut A,
        (shape, ef_construction, seed): (&Shape, usize, u64),
        codes: Codes<A>,
        (links, mapping): (&Links<A>, &Mapping),
        work: &mut Work,
    ) -> Result<Self> {
        assert_eq!((mapping.nodes.len(), mapping.owners.len()), (links.len(), codes.len()), "a mapping of other links");
        let level = |(node, &owner): (usize, &u32)| match owner {
            NONE => Self::level_for(node as Node, seed, shape),
            owner => links.level(owner),
        };
        let levels = mapping.owners.iter().enumerate().map(level).collect();
        let graph = Self::with_levels(arena, shape, ef_construction, codes, levels)?;
        if mapping.owned_nodes() * ONE_IN < links.len() {
            let poll = |done| (work.poll)(done as u64);
            graph.link_all((work.pool, work.threads), work.stop, poll)?;
            return Ok(graph);
        }
        let relinked = Relinked { graph: &graph, links, mapping, enough: ef_construction.max(2 * shape.m) };
        if let Some(entry) = relinked.entry() {
            graph.raise_entry(entry, graph.level(entry));
        }
        work.drive(|job| {
            relinked.link_through(job)?;
            let mut before = usize::MAX;
            for _ in 0..ROUNDS {
                let lost = relinked.out_of_reach(job)?;
                // Where many stay out of reach (inner product, small vectors), they would in any graph.
                if lost.is_empty() || lost.len() > before / 2 {
                    break;
                }
                relinked.insert(&lost, job)?;
                before = lost.len();
            }
            Ok(())
        })?;
        Ok(graph)
    }
}

/// A graph that is made of archived links.
struct Relinked<'a, A: Arena> {
    graph: &'a Graph<A>,
    links: &'a Links<A>,
    mapping: &'a Mapping,
    /// Candidates for neighbors from which on no further dropped element is looked through.
    enough: usize,
}

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    build: Scratch,
    /// Dropped elements that were met.
    seen: Visited,
    dropped: Vec<u32>,
    nodes: Vec<Node>,
}

impl<A: Arena> Relinked<'_, A> {
    /// The archived entry point; where it is gone, another node of the highest level that is left.
    fn entry(&self) -> Option<Node> {
        let owned = |ordinal: u32| self.mapping.owned(ordinal);
        if let Some(node) = self.links.entry().and_then(owned) {
            return Some(node);
        }
        let all = (0..self.mapping.owners.len() as Node).filter(|&n| self.mapping.owners[n as usize] != NONE);
        all.max_by_key(|&node| (self.graph.level(node), std::cmp::Reverse(node)))
    }

    /// Fills the lists of all nodes that the archive knows.
    fn link_through(&self, job: &Job) -> Result<()> {
        let nodes = self.mapping.owners.len();
        job.each(&mut vec![(); nodes.div_ceil(PIECE)], 1, Buffers::default, |buffers, piece, _| {
            let piece = piece * PIECE..nodes.min((piece + 1) * PIECE);
            for node in piece.clone().filter(|&node| self.mapping.owners[node] != NONE) {
                let node = node as Node;
                (0..=self.graph.level(node)).for_each(|level| self.link(node, level, buffers));
            }
            job.count(piece.len());
        })
    }

    /// Fills one list.
    fn link(&self, node: Node, level: u8, b: &mut Buffers) {
        b.nodes.clear();
        b.dropped.clear();
        self.gather(node, self.mapping.owners[node as usize], level, b);
        let lists = self.graph.lists(level);
        if b.dropped.is_empty() {
            return lists.fill(self.graph.list_index(node, level), &b.nodes);
        }
        // Neighbors of neighbors that are gone; if they are gone, too, theirs.
        let (own, kept) = (b.dropped.len(), b.nodes.len());
        b.seen.clear();
        b.dropped.iter().for_each(|&ordinal| _ = b.seen.insert(ordinal));
        b.build.visited.clear();
        b.nodes.iter().for_each(|&n| _ = b.build.visited.insert(n));
        let mut next = 0;
        while next < b.dropped.len() && b.nodes.len() < MOST_CANDIDATES {
            if next >= own && (b.nodes.len() >= self.enough || next >= own + MOST_STEPS) {
                break;
            }
            self.look_through(node, b.dropped[next], level, b);
            next += 1;
        }
        let code = self.graph.codes().parts(node);
        let mut near: Vec<Near> = b.nodes.iter().map(|&n| Near::new(self.graph.distance(code, n), n)).collect();
        // The nearest of what is new, and all that was there: links that lead far off are few and of use.
        near[kept..].sort_unstable();
        near.truncate(kept + self.enough);
        near.sort_unstable();
        self.graph.choose_neighbors(node, level, &near, &mut b.build.links);
    }

    /// Neighbors of an element: nodes, and elements that are gone.
    fn gather(&self, node: Node, ordinal: u32, level: u8, b: &mut Buffers) {
        for neighbor in self.links.neighbors(ordinal, level) {
            match self.mapping.nodes[neighbor as usize] {
                NONE => b.dropped.push(neighbor),
                // Of several elements that became one node, that one has the level of the first.
                n if n != node && self.graph.level(n) >= level && !b.nodes.contains(&n) => b.nodes.push(n),
                _ => {}
            }
        }
    }

    /// Adds the neighbors of an element that is gone.
    fn look_through(&self, node: Node, ordinal: u32, level: u8, b: &mut Buffers) {
        for neighbor in self.links.neighbors(ordinal, level) {
            match self.mapping.nodes[neighbor as usize] {
                NONE if b.seen.insert(neighbor) => b.dropped.push(neighbor),
                NONE => {}
                n if n != node && self.graph.level(n) >= level && b.build.visited.insert(n) => b.nodes.push(n),
                _ => {}
            }
        }
    }

    /// Nodes that no path from the entry point leads to, over all levels.
    fn out_of_reach(&self, job: &Job) -> Result<Vec<Node>> {
        let nodes = self.mapping.owners.len();
        let Some((entry, top)) = self.graph.entry() else { return Ok((0..nodes as Node).collect()) };
        let mut is_seen = vec![false; nodes];
        is_seen[entry as usize] = true;
        // What is seen on a level is where the next one begins.
        let (mut seen, mut neighbors) = (vec![entry], Vec::new());
        for level in (0..=top).rev() {
            let mut next = 0;
            while next < seen.len() {
                if next.is_multiple_of(4096) {
                    job.go_on()?;
                }
                if self.graph.level(seen[next]) >= level {
                    self.graph.neighbors(seen[next], level, &mut neighbors);
                    seen.extend(neighbors.iter().filter(|&&n| !std::mem::replace(&mut is_seen[n as usize], true)));
                }
                next += 1;
            }
        }
        Ok((0..nodes as Node).filter(|&node| !is_seen[node as usize]).collect())
    }

    /// Links nodes that nothing leads to.
    fn insert(&self, lost: &[Node], job: &Job) -> Result<()> {
        let alone = if lost.len() + ALONE > self.mapping.owners.len() { lost.len().min(ALONE) } else { 0 };
        let (first, rest) = lost.split_at(alone);
        let mut scratch = Scratch::default();
        for &node in first {
            job.go_on()?;
            self.graph.insert(node, &mut scratch);
        }
        let order = Order::of(rest.len());
        job.each(&mut vec![(); rest.len()], 1, Scratch::default, |scratch, i, _| {
            self.graph.insert(rest[order.node(i) as usize], scratch);
        })
    }
}
