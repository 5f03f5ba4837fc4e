//! Building a graph in memory, on many threads, and laying it out on pages.
//!
//! All codes are there before the first link is made; links are atomic words, so threads share the graph without
//! unsafe code. Each list is ordered by distance and carries, for every neighbor, that distance and whether the
//! neighbor is *diverse*: not nearer to a nearer diverse neighbor than to the list's owner (Malkov & Yashunin 2018,
//! algorithm 4). Slots that diversity leaves free are filled with the nearest others ("keep pruned").

use super::near::{Frontier, Near, Visited};
use super::probe::Scaling;
use super::read::rank_pair;
use super::select::choose;
use crate::distance::{Metric, prefetch, prefetch_line};
use crate::error::{Error, Result};
use crate::shape::{MAX_LEVEL, Shape};
use crate::sq8::Params;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Number of an element in the order it was added.
pub type Node = u32;

/// Memory that a build asks for; the caller decides where it lies (in memory or in a file).
pub trait Arena {
    /// Bytes of codes; zero at first.
    type Bytes: std::ops::DerefMut<Target = [u8]> + Send + Sync;
    /// Words of lists, which threads share; zero at first.
    type Words: std::ops::Deref<Target = [AtomicU32]> + Send + Sync;

    /// `len` zero bytes.
    fn bytes(&mut self, len: usize) -> Result<Self::Bytes>;

    /// `len` zero words.
    fn words(&mut self, len: usize) -> Result<Self::Words>;

    /// Says that the build keeps `len` bytes elsewhere, in ordinary memory.
    fn charge(&mut self, _len: usize) {}
}

/// Bytes of [`Params`] before each code.
const PARAMS_SIZE: usize = 24;
/// Bytes of a row's heap TID, level and place in the table of codes.
const SMALL_PARTS: usize = 24;
/// Rows share an allocation in powers of two near this many bytes.
const CHUNK_BYTES: usize = 16 << 20;

/// The codes of a segment to be built, in chunks that never move.
pub struct Codes<A: Arena> {
    dimensions: usize,
    stride: usize,
    shift: u32,
    chunks: Vec<A::Bytes>,
    len: usize,
}

impl<A: Arena> Codes<A> {
    /// No codes yet; each will have one byte a dimension.
    pub fn new(dimensions: usize) -> Self {
        let stride = (PARAMS_SIZE + dimensions).next_multiple_of(8);
        let shift = (CHUNK_BYTES / stride).max(1).ilog2();
        Self { dimensions, stride, shift, chunks: Vec::new(), len: 0 }
    }

    /// Bytes of a code.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Codes added.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Forgets the codes from `len` on.
    pub fn truncate(&mut self, len: Node) {
        self.len = self.len.min(len as usize);
        self.chunks.truncate(self.len.div_ceil(1 << self.shift));
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a code of as many bytes as there are dimensions.
    ///
    /// # Errors
    /// [`Error::Full`] after 2^32 codes, and what the arena fails with.
    pub fn push(&mut self, arena: &mut A, params: &Params, code: &[u8]) -> Result<Node> {
        let node = Node::try_from(self.len).map_err(|_| Error::Full)?;
        if self.len >> self.shift == self.chunks.len() {
            arena.charge(SMALL_PARTS << self.shift);
            self.chunks.push(arena.bytes(self.stride << self.shift)?);
        }
        let at = (self.len & ((1 << self.shift) - 1)) * self.stride;
        let chunk = self.chunks.last_mut().expect("a chunk was just made");
        let row = &mut chunk[at..at + self.stride];
        for (i, word) in [
            params.scale.to_bits(),
            params.offset.to_bits(),
            params.norm2.to_bits(),
            params.sum,
            params.residual_l2.to_bits(),
            params.residual_l1.to_bits(),
        ]
        .into_iter()
        .enumerate()
        {
            row[4 * i..4 * i + 4].copy_from_slice(&word.to_ne_bytes());
        }
        row[PARAMS_SIZE..][..self.dimensions].copy_from_slice(code);
        self.len += 1;
        Ok(node)
    }

    #[inline]
    fn row(&self, node: Node) -> &[u8] {
        let node = node as usize;
        let at = (node & ((1 << self.shift) - 1)) * self.stride;
        &self.chunks[node >> self.shift][at..at + self.stride]
    }

    /// The code of a node, one byte a dimension.
    #[inline]
    pub fn code(&self, node: Node) -> &[u8] {
        &self.row(node)[PARAMS_SIZE..][..self.dimensions]
    }

    /// What belongs to the code of a node.
    pub fn params(&self, node: Node) -> Params {
        let row = self.row(node);
        let word = |i: usize| u32::from_ne_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]]);
        Params {
            scale: f32::from_bits(word(0)),
            offset: f32::from_bits(word(1)),
            norm2: f32::from_bits(word(2)),
            sum: word(3),
            residual_l2: f32::from_bits(word(4)),
            residual_l1: f32::from_bits(word(5)),
        }
    }

    /// Whether the node's code and scaling are these.
    pub fn equals(&self, node: Node, params: &Params, code: &[u8]) -> bool {
        let own = self.params(node);
        own.scale == params.scale && own.offset == params.offset && self.code(node) == code
    }

    /// Widens a node's residuals for a row that joins it.
    pub fn widen(&mut self, node: Node, params: &Params) {
        let own = self.params(node);
        let at = (node as usize & ((1 << self.shift) - 1)) * self.stride;
        let row = &mut self.chunks[node as usize >> self.shift][at..];
        row[16..20].copy_from_slice(&own.residual_l2.max(params.residual_l2).to_ne_bytes());
        row[20..24].copy_from_slice(&own.residual_l1.max(params.residual_l1).to_ne_bytes());
    }

    #[inline]
    pub(crate) fn parts(&self, node: Node) -> (&[u8], Scaling, u32) {
        let (params, rest) = self.row(node).split_at(PARAMS_SIZE);
        let params: &[u8; PARAMS_SIZE] = params.try_into().expect("a row starts with its parameters");
        let word =
            |i: usize| u32::from_ne_bytes([params[4 * i], params[4 * i + 1], params[4 * i + 2], params[4 * i + 3]]);
        let scaling =
            Scaling { scale: f32::from_bits(word(0)), offset: f32::from_bits(word(1)), norm2: f32::from_bits(word(2)) };
        (&rest[..self.dimensions], scaling, word(3))
    }
}

/// The level of an element, from a seed of its own: `-ln(u) / ln(m)` rounded down, `u` uniform (Malkov & Yashunin 2018,
/// section 4.1), so one element in `m` is above level 0, and one in `m * m` above level 1. At most [`MAX_LEVEL`].
pub fn level_of(seed: u64, m: usize) -> u8 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    let uniform = ((x >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    (-uniform.ln() / (m as f64).ln()).min(f64::from(MAX_LEVEL)) as u8
}

/// How many candidates ahead of the one being ranked the cache is asked for.
const PREFETCH_AHEAD: usize = 4;

/// Top bit of a list's count: somebody is changing the list.
const LOCKED: u32 = 1 << 31;
/// The bit below: the list has ids only, in any order.
const UNRANKED: u32 = 1 << 30;
/// Lowest bit of a distance's f32 bits: the neighbor is diverse.
const DIVERSE: u32 = 1;

/// Neighbor lists of equal capacity.
pub(crate) struct Lists<A: Arena> {
    pub(crate) capacity: usize,
    shift: u32,
    /// Per list: count, ids, distances.
    chunks: Vec<A::Words>,
}

/// One neighbor in a list being changed.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    node: Node,
    /// NaN in a list of ids only.
    distance: f32,
    diverse: bool,
}

impl<A: Arena> Lists<A> {
    fn new(arena: &mut A, lists: usize, capacity: usize) -> Result<Self> {
        let stride = 1 + 2 * capacity;
        let shift = (CHUNK_BYTES / 4 / stride).max(1).ilog2();
        let chunks = (0..lists.div_ceil(1 << shift))
            .map(|c| arena.words((lists - (c << shift)).min(1 << shift) * stride))
            .collect::<Result<_>>()?;
        Ok(Self { capacity, shift, chunks })
    }

    #[inline]
    fn list(&self, i: usize) -> &[AtomicU32] {
        let stride = 1 + 2 * self.capacity;
        let at = (i & ((1 << self.shift) - 1)) * stride;
        &self.chunks[i >> self.shift][at..at + stride]
    }

    /// Starts loading a list that will be read soon.
    #[inline]
    fn prefetch(&self, i: usize) {
        let list = self.list(i);
        (0..=self.capacity).step_by(16).for_each(|at| prefetch_line(list[at..].as_ptr().cast()));
    }

    /// Copies the neighbors. While another thread changes the list the copy may miss or repeat some.
    #[inline]
    fn read(&self, i: usize, out: &mut Vec<Node>) {
        let list = self.list(i);
        let count = (list[0].load(Acquire) & !(LOCKED | UNRANKED)) as usize;
        out.clear();
        out.extend(list[1..=count].iter().map(|w| w.load(Relaxed)));
    }

    /// Lets `change` edit the list while nobody else does.
    fn update(&self, i: usize, links: &mut Vec<Link>, change: impl FnOnce(&mut Vec<Link>) -> bool) {
        let list = self.list(i);
        let mut count = list[0].load(Relaxed) & !LOCKED;
        while let Err(seen) = list[0].compare_exchange_weak(count, count | LOCKED, Acquire, Relaxed) {
            count = seen & !LOCKED;
            if seen & LOCKED != 0 {
                std::hint::spin_loop();
            }
        }
        let is_ranked = count & UNRANKED == 0;
        links.clear();
        links.extend((0..(count & !UNRANKED) as usize).map(|k| {
            let bits = list[1 + self.capacity + k].load(Relaxed);
            Link {
                node: list[1 + k].load(Relaxed),
                distance: if is_ranked { f32::from_bits(bits & !DIVERSE) } else { f32::NAN },
                diverse: is_ranked && bits & DIVERSE != 0,
            }
        }));
        if change(links) {
            for (k, link) in links.iter().enumerate() {
                list[1 + k].store(link.node, Relaxed);
                list[1 + self.capacity + k]
                    .store(link.distance.to_bits() & !DIVERSE | u32::from(link.diverse), Relaxed);
            }
            count = links.len() as u32;
        }
        list[0].store(count, Release);
    }

    /// Fills a list that nobody else knows with ids, of which no distance is known.
    pub(crate) fn fill(&self, i: usize, nodes: &[Node]) {
        let list = self.list(i);
        assert!(nodes.len() <= self.capacity, "{} neighbors", nodes.len());
        list[1..].iter().zip(nodes).for_each(|(word, &node)| word.store(node, Relaxed));
        list[0].store(nodes.len() as u32 | UNRANKED, Release);
    }
}

/// The graph of one segment while it is built, and after that until its pages are written.
pub struct Graph<A: Arena> {
    metric: Metric,
    ef_construction: usize,
    codes: Codes<A>,
    levels: Vec<u8>,
    ground: Lists<A>,
    /// First upper list of each node that has some; a node of level `l` has `l` lists in a row.
    upper_start: hashbrown::HashMap<Node, u32>,
    upper: Lists<A>,
    entry: RwLock<Option<(Node, u8)>>,
}

/// The order in which nodes are linked: far from each other in the table one after the other.
///
/// Rows that lie side by side in a table are often alike. Two that threads link at the same time do not see each other;
/// were they neighbors, the heuristic would drop links to one that only the other could replace.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    nodes: u64,
    /// Has no divisor in common with `nodes`, so every node comes once.
    step: u64,
}

impl Order {
    pub(crate) fn of(nodes: usize) -> Self {
        let nodes = nodes.max(1) as u64;
        let gcd = |mut a: u64, mut b: u64| {
            while b > 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        // The golden ratio keeps all short sums of steps far from zero.
        let start = (nodes as f64 * 0.618_033_988_749_895) as u64;
        let step = (start.max(1)..).find(|&step| gcd(step, nodes) == 1).unwrap_or(1);
        Self { nodes, step }
    }

    pub(crate) fn node(self, i: usize) -> Node {
        (i as u64 * self.step % self.nodes) as Node
    }
}

/// Working memory of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) visited: Visited,
    frontier: Frontier,
    results: BinaryHeap<Near>,
    pub(crate) found: Vec<Near>,
    neighbors: Vec<Node>,
    pub(crate) links: Vec<Link>,
}

impl<A: Arena> Graph<A> {
    /// A graph without links. Levels are drawn from `seed`.
    pub fn new(arena: &mut A, shape: &Shape, ef_construction: usize, codes: Codes<A>, seed: u64) -> Result<Self> {
        let levels = (0..codes.len()).map(|i| Self::level_for(i as Node, seed, shape)).collect();
        Self::with_levels(arena, shape, ef_construction, codes, levels)
    }

    /// The level that a build gives a node.
    pub(crate) fn level_for(node: Node, seed: u64, shape: &Shape) -> u8 {
        level_of(seed ^ u64::from(node) << 20, shape.m)
    }

    /// A graph without links, of nodes of these levels.
    pub(crate) fn with_levels(
        arena: &mut A,
        shape: &Shape,
        ef_construction: usize,
        codes: Codes<A>,
        levels: Vec<u8>,
    ) -> Result<Self> {
        let mut upper_start = hashbrown::HashMap::new();
        let mut uppers = 0u32;
        for (node, &level) in levels.iter().enumerate().filter(|&(_, &l)| l > 0) {
            upper_start.insert(node as Node, uppers);
            uppers += u32::from(level);
        }
        Ok(Self {
            metric: shape.metric,
            ef_construction,
            ground: Lists::new(arena, codes.len(), 2 * shape.m)?,
            upper: Lists::new(arena, uppers as usize, shape.m)?,
            codes,
            levels,
            upper_start,
            entry: RwLock::new(None),
        })
    }

    /// The codes that the graph links.
    pub fn codes(&self) -> &Codes<A> {
        &self.codes
    }

    /// Highest level of a node.
    pub fn level(&self, node: Node) -> u8 {
        self.levels[node as usize]
    }

    /// The entry point and its level.
    pub fn entry(&self) -> Option<(Node, u8)> {
        *self.entry.read().expect("no thread panics while it holds the entry point")
    }

    /// Upper lists of all nodes.
    pub fn upper_count(&self) -> usize {
        self.upper_start.iter().map(|(&n, _)| usize::from(self.level(n))).sum()
    }

    /// Index of a node's list at `level` (1 or more) among all upper lists.
    pub fn upper_index(&self, node: Node, level: u8) -> u32 {
        self.upper_start[&node] + u32::from(level) - 1
    }

    /// Copies a node's neighbors at `level`.
    pub fn neighbors(&self, node: Node, level: u8, out: &mut Vec<Node>) {
        match level {
            0 => self.ground.read(node as usize, out),
            _ => self.upper.read(self.upper_index(node, level) as usize, out),
        }
    }

    /// Links all nodes on `threads` threads of `pool`; the caller's thread only polls.
    ///
    /// `poll` is called again and again with the number of nodes done; it waits a little, and stops the build by an
    /// error or a panic. Threads are joined however this returns.
    ///
    /// # Errors
    /// Those of `poll`; [`Error::Stopped`] where `stop` ended the threads.
    pub fn link_all(
        &self,
        (pool, threads): (&rayon::ThreadPool, usize),
        stop: &Stop,
        mut poll: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let n = self.codes.len();
        // The first nodes see each other only when they come one by one.
        let alone = n.min(256);
        let mut scratch = Scratch::default();
        let order = Order::of(n);
        (0..alone).for_each(|i| self.insert(order.node(i), &mut scratch));
        let (next, done) = (AtomicUsize::new(alone), AtomicUsize::new(alone));
        stop.cancel.store(false, Relaxed);
        pool.in_place_scope(|scope| {
            // Set on unwind too: the scope joins its threads before the panic goes on.
            let _cancel = CancelOnDrop(&stop.cancel);
            for _ in 0..threads {
                let running = Running::new(stop);
                let (next, done) = (&next, &done);
                scope.spawn(move |_| {
                    let _running = running;
                    self.link_some(order, next, done, &stop.cancel);
                });
            }
            // A thread that panics ends without its share; joining brings its panic here.
            while done.load(Relaxed) < n && stop.running.load(Relaxed) > 0 {
                poll(done.load(Relaxed))?;
            }
            Ok(())
        })?;
        // Without an error of the leader: stopped from outside.
        if done.into_inner() < n { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Links nodes until none is left.
    fn link_some(&self, order: Order, next: &AtomicUsize, done: &AtomicUsize, cancel: &AtomicBool) {
        let (n, mut scratch) = (self.codes.len(), Scratch::default());
        loop {
            let i = next.fetch_add(1, Relaxed);
            if i >= n || cancel.load(Relaxed) {
                return;
            }
            self.insert(order.node(i), &mut scratch);
            done.fetch_add(1, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn distance(&self, a: (&[u8], Scaling, u32), b: Node) -> f32 {
        rank_pair(self.metric, a, self.codes.parts(b))
    }

    /// Links a node that cannot be reached.
    pub(crate) fn insert(&self, node: Node, scratch: &mut Scratch) {
        let level = self.level(node);
        let own = self.codes.parts(node);
        let Some((entry, top)) = self.entry() else {
            self.raise_entry(node, level);
            return;
        };
        let mut nearest = Near::new(self.distance(own, entry), entry);
        for l in (level + 1..=top).rev() {
            nearest = self.greedy(own, nearest, l, scratch);
        }
        scratch.found.clear();
        scratch.found.push(nearest);
        let mut chosen = Vec::with_capacity(usize::from(level.min(top)) + 1);
        for l in (0..=level.min(top)).rev() {
            self.beam(own, node, l, scratch);
            chosen.push((l, self.select(&scratch.found, self.lists(l).capacity)));
        }
        // Invariant: who meets a node on some level finds its neighbors on that level and all below. Else another
        // thread would come down through it and find nobody there.
        for (l, links) in chosen.into_iter().rev() {
            self.connect(node, own, l, links, scratch);
        }
        if level > top {
            self.raise_entry(node, level);
        }
    }

    pub(crate) fn raise_entry(&self, node: Node, level: u8) {
        let mut entry = self.entry.write().expect("no thread panics while it holds the entry point");
        if entry.is_none_or(|(_, top)| level > top) {
            *entry = Some((node, level));
        }
    }

    fn greedy(&self, own: (&[u8], Scaling, u32), start: Near, level: u8, scratch: &mut Scratch) -> Near {
        let mut best = start;
        loop {
            self.neighbors(best.slot(), level, &mut scratch.neighbors);
            let nearest = scratch.neighbors.iter().map(|&n| Near::new(self.distance(own, n), n)).min();
            match nearest {
                Some(near) if near < best => best = near,
                _ => return best,
            }
        }
    }

    /// From `scratch.found` to the `ef_construction` nearest of a level, nearest first, without the node itself.
    fn beam(&self, own: (&[u8], Scaling, u32), node: Node, level: u8, s: &mut Scratch) {
        s.visited.clear();
        s.frontier.clear();
        s.results.clear();
        s.visited.insert(node);
        for &near in s.found.iter().filter(|n| s.visited.insert(n.slot())) {
            s.frontier.push(Reverse(near));
            s.results.push(near);
        }
        while let Some(Reverse(near)) = s.frontier.pop() {
            if s.results.len() >= self.ef_construction && s.results.peek().is_some_and(|&worst| near > worst) {
                break;
            }
            self.neighbors(near.slot(), level, &mut s.neighbors);
            if level == 0
                && let Some(&Reverse(next)) = s.frontier.peek()
            {
                self.ground.prefetch(next.slot() as usize);
            }
            s.neighbors.retain(|&n| s.visited.insert(n));
            s.neighbors.iter().take(PREFETCH_AHEAD).for_each(|&n| prefetch(self.codes.row(n)));
            for (i, &n) in s.neighbors.iter().enumerate() {
                if let Some(&later) = s.neighbors.get(i + PREFETCH_AHEAD) {
                    prefetch(self.codes.row(later));
                }
                let near = Near::new(self.distance(own, n), n);
                if s.results.len() < self.ef_construction {
                    s.results.push(near);
                } else if s.results.peek().is_some_and(|&worst| near < worst) {
                    s.results.pop();
                    s.results.push(near);
                } else {
                    continue;
                }
                s.frontier.push(Reverse(near));
            }
        }
        s.found.clear();
        s.found.extend(s.results.drain());
        s.found.sort_unstable();
    }

    pub(crate) fn lists(&self, level: u8) -> &Lists<A> {
        if level == 0 { &self.ground } else { &self.upper }
    }

    pub(crate) fn list_index(&self, node: Node, level: u8) -> usize {
        if level == 0 { node as usize } else { self.upper_index(node, level) as usize }
    }

    /// Links `node`, which nobody knows on this level yet, both ways.
    fn connect(&self, node: Node, own: (&[u8], Scaling, u32), level: u8, chosen: Vec<Link>, scratch: &mut Scratch) {
        let lists = self.lists(level);
        lists.update(self.list_index(node, level), &mut scratch.links, |links| {
            links.clone_from(&chosen);
            true
        });
        if level == 0 {
            chosen.iter().for_each(|link| self.ground.prefetch(link.node as usize));
        }
        for link in chosen {
            lists.update(self.list_index(link.node, level), &mut scratch.links, |links| {
                self.rank(link.node, links);
                self.add_back(links, lists.capacity, node, own, link.distance)
            });
        }
    }

    /// Replaces the neighbors of a node, which nobody else changes, by the best of `candidates`, sorted.
    pub(crate) fn choose_neighbors(&self, node: Node, level: u8, candidates: &[Near], scratch: &mut Vec<Link>) {
        let lists = self.lists(level);
        let chosen = self.select(candidates, lists.capacity);
        lists.update(self.list_index(node, level), scratch, |links| {
            links.clone_from(&chosen);
            true
        });
    }

    /// Finds out the distances in a list that has none.
    fn rank(&self, owner: Node, links: &mut [Link]) {
        if links.first().is_none_or(|link| !link.distance.is_nan()) {
            return;
        }
        let own = self.codes.parts(owner);
        links.iter_mut().for_each(|link| link.distance = self.distance(own, link.node));
        links.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance));
        for i in 0..links.len() {
            let (before, this) = (&links[..i], links[i]);
            let code = self.codes.parts(this.node);
            let is_near = |link: &Link| self.distance(code, link.node) < this.distance;
            links[i].diverse = !before.iter().filter(|link| link.diverse).any(is_near);
        }
    }

    fn select(&self, candidates: &[Near], capacity: usize) -> Vec<Link> {
        let distances: Vec<f32> = candidates.iter().map(|n| n.distance()).collect();
        let pair = |i: usize, j: usize| self.distance(self.codes.parts(candidates[i].slot()), candidates[j].slot());
        choose(&distances, capacity, pair)
            .into_iter()
            .map(|(i, diverse)| Link { node: candidates[i].slot(), distance: distances[i], diverse })
            .collect()
    }

    /// Offers `node` to a list; whether the list changed. A full list gives up its furthest neighbor that is not
    /// diverse, else its furthest.
    fn add_back(
        &self,
        links: &mut Vec<Link>,
        capacity: usize,
        node: Node,
        own: (&[u8], Scaling, u32),
        distance: f32,
    ) -> bool {
        if links.iter().any(|l| l.node == node) {
            return false;
        }
        let at = links.partition_point(|l| l.distance <= distance);
        let diverse = links[..at].iter().filter(|l| l.diverse).all(|l| self.distance(own, l.node) >= distance);
        if diverse {
            for link in links[at..].iter_mut().filter(|l| l.diverse) {
                link.diverse = self.distance(own, link.node) >= link.distance;
            }
        }
        links.insert(at, Link { node, distance, diverse });
        if links.len() > capacity {
            let victim = links.iter().rposition(|l| !l.diverse).unwrap_or(capacity);
            links.remove(victim);
        }
        true
    }
}

/// Stops a build's threads from outside. One build at a time may use it.
pub struct Stop {
    pub(crate) cancel: AtomicBool,
    pub(crate) running: AtomicUsize,
}

impl Stop {
    /// Nothing to stop yet.
    pub const fn new() -> Self {
        Self { cancel: AtomicBool::new(false), running: AtomicUsize::new(0) }
    }

    /// Tells the threads to stop and waits until they did, at most `patience`.
    pub fn stop_and_wait(&self, patience: std::time::Duration) {
        self.cancel.store(true, Relaxed);
        let start = std::time::Instant::now();
        while self.running.load(Acquire) > 0 && start.elapsed() < patience {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Counts a thread that works.
pub(crate) struct Running<'a>(&'a Stop);

impl<'a> Running<'a> {
    pub(crate) fn new(stop: &'a Stop) -> Self {
        stop.running.fetch_add(1, Acquire);
        Self(stop)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Release);
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells the other threads to stop when the leader leaves, however it leaves.
pub(crate) struct CancelOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// An arena in ordinary memory.
#[derive(Default)]
pub struct HeapArena;

impl Arena for HeapArena {
    type Bytes = Vec<u8>;
    type Words = Vec<AtomicU32>;

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>> {
        Ok(vec![0; len])
    }

    fn words(&mut self, len: usize) -> Result<Vec<AtomicU32>> {
        Ok((0..len).map(|_| AtomicU32::new(0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_comes_once_and_neighbors_come_apart() {
        for n in [1usize, 2, 3, 4, 100, 255, 256, 1000, 4096, 12_000, 65_537] {
            let order = Order::of(n);
            let mut seen = vec![false; n];
            (0..n).for_each(|i| assert!(!std::mem::replace(&mut seen[order.node(i) as usize], true)));
            let apart = |d: usize| order.node(d).min(n as Node - order.node(d));
            assert!(n < 1000 || (1..=8).all(|d| apart(d) as usize > n / 40), "of {n} nodes");
        }
    }
}
