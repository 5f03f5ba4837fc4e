//! An archived graph in memory, checked.

use super::{Fingerprint, GraphElement, GraphHeader, Source, unsound};
use crate::error::Result;
use crate::hnsw::build::Arena;
use crate::shape::{MAX_LEVEL, Shape};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Words that share an allocation.
const CHUNK_WORDS: u64 = 4 << 20;
/// Lists above level 0 beyond what chance gives.
const MORE_LISTS: u64 = 1024;

/// The links of an archived graph. Invariant: every link leads to another element that lives on its level, no list
/// names one twice or is longer than lists of its level may be, and the entry point is of the highest level.
pub struct Links<A: Arena> {
    header: GraphHeader,
    levels: Vec<u8>,
    top: u8,
    lists: Lists<A>,
}

/// Neighbors of all elements in a row, for each level a word with their number before them.
struct Lists<A: Arena> {
    /// Of [`CHUNK_WORDS`], but for the last one. No element's lists cross from one to the next.
    chunks: Vec<A::Words>,
    /// Where those of each element begin, counted through full chunks.
    starts: Vec<u64>,
    /// Where the next ones begin.
    end: u64,
    /// Words to come.
    left: u64,
}

impl<A: Arena> Lists<A> {
    fn new(words: u64) -> Self {
        Self { chunks: Vec::new(), starts: Vec::new(), end: 0, left: words }
    }

    fn push(&mut self, arena: &mut A, element: &GraphElement) -> Result<()> {
        let words: u64 = element.neighbors.iter().map(|list| 1 + list.len() as u64).sum();
        let whole = self.chunks.len() as u64 * CHUNK_WORDS;
        if words > whole - self.end {
            self.end = whole;
            self.chunks.push(arena.words(self.left.min(CHUNK_WORDS).max(words) as usize)?);
        }
        let chunk = &self.chunks[(self.end / CHUNK_WORDS) as usize];
        let room = chunk.get((self.end % CHUNK_WORDS) as usize..).unwrap_or_default();
        let values =
            element.neighbors.iter().flat_map(|list| std::iter::once(list.len() as u32).chain(list.iter().copied()));
        if (room.len() as u64) < words {
            return Err(unsound("a graph is not the same when it is read again"));
        }
        room.iter().zip(values).for_each(|(word, value)| word.store(value, Relaxed));
        self.starts.push(self.end);
        (self.end, self.left) = (self.end + words, self.left.saturating_sub(words));
        Ok(())
    }

    fn of(&self, ordinal: u32, level: u8) -> &[AtomicU32] {
        let start = self.starts[ordinal as usize];
        let mut lists = &self.chunks[(start / CHUNK_WORDS) as usize][(start % CHUNK_WORDS) as usize..];
        for _ in 0..level {
            lists = &lists[1 + lists[0].load(Relaxed) as usize..];
        }
        &lists[1..][..lists[0].load(Relaxed) as usize]
    }
}

/// The levels of an archived graph's elements, and what else shows while they come by one by one.
pub(super) struct Levels {
    pub levels: Vec<u8>,
    lists: u64,
    words: u64,
}

impl Levels {
    /// Looks at all elements; `look` sees each.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::error::Error::Structure), but for what a single pass cannot tell: whether links lead
    /// to elements of their level.
    pub fn read(
        header: &GraphHeader,
        shape: &Shape,
        source: &mut Source<GraphElement>,
        mut look: impl FnMut(u32, &GraphElement) -> Result<()>,
    ) -> Result<Self> {
        if usize::from(header.m) != shape.m {
            return Err(unsound(format!("a graph has m = {}, the index {}", header.m, shape.m)));
        }
        if header.elements == u32::MAX || header.entry.is_some_and(|entry| entry >= header.elements) {
            return Err(unsound(format!("a graph of {} elements has entry point {:?}", header.elements, header.entry)));
        }
        let mut seen = Self { levels: Vec::new(), lists: 0, words: 0 };
        source(&mut |ordinal, element| {
            seen.add(header, shape, ordinal, &element)?;
            look(ordinal, &element)
        })?;
        if seen.levels.len() != header.elements as usize {
            return Err(unsound(format!("a graph has {} elements, not {}", seen.levels.len(), header.elements)));
        }
        let top = seen.levels.iter().copied().max().unwrap_or(0);
        if header.entry.is_some_and(|entry| seen.levels[entry as usize] != top) {
            return Err(unsound("the entry point of a graph is not of the highest level"));
        }
        Ok(seen)
    }

    fn add(&mut self, header: &GraphHeader, shape: &Shape, ordinal: u32, element: &GraphElement) -> Result<()> {
        let level = element.level;
        if element.neighbors.is_empty() && ordinal as usize + 1 == self.levels.len() {
            return Ok(());
        }
        if ordinal as usize != self.levels.len() || ordinal >= header.elements {
            return Err(unsound(format!("element {ordinal} of a graph comes out of order")));
        }
        if level > MAX_LEVEL || element.neighbors.len() != usize::from(level) + 1 {
            let what = format!("element {ordinal} has level {level} and {} lists", element.neighbors.len());
            return Err(unsound(what));
        }
        // One list in `m` elements is above level 0, one in `m * m` above level 1, and so on: more would cost memory.
        self.lists += u64::from(level);
        if self.lists > 4 * u64::from(header.elements) / (shape.m as u64 - 1).max(1) + MORE_LISTS {
            return Err(unsound("too many elements of a graph are above level 0"));
        }
        for (list, at) in element.neighbors.iter().zip(0..) {
            if list.len() > shape.max_neighbors(at) {
                return Err(unsound(format!("element {ordinal} has {} neighbors at level {at}", list.len())));
            }
            for (i, &n) in list.iter().enumerate() {
                if n >= header.elements || n == ordinal || list[..i].contains(&n) {
                    return Err(unsound(format!(
                        "element {ordinal} has neighbor {n} twice, or is its own, or has none"
                    )));
                }
            }
            self.words += 1 + list.len() as u64;
        }
        self.levels.push(level);
        Ok(())
    }
}

impl<A: Arena> Links<A> {
    /// Reads all links.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::error::Error::Structure) where the graph cannot be; what the arena fails with.
    pub fn read(arena: &mut A, shape: &Shape, header: &GraphHeader, source: &mut Source<GraphElement>) -> Result<Self> {
        // Two passes: only the second one knows the level of whatever a link leads to.
        let Levels { levels, words, .. } = Levels::read(header, shape, source, |_, _| Ok(()))?;
        arena.charge(9 * levels.len());
        let mut lists = Lists::new(words);
        Levels::read(header, shape, source, |ordinal, element| {
            if element.neighbors.is_empty() {
                return Ok(());
            }
            if levels.get(ordinal as usize) != Some(&element.level) {
                return Err(unsound("a graph is not the same when it is read again"));
            }
            for (list, level) in element.neighbors.iter().zip(0u8..) {
                if let Some(n) = list.iter().find(|&&n| levels[n as usize] < level) {
                    return Err(unsound(format!(
                        "element {ordinal} has neighbor {n} at level {level}, where it is not"
                    )));
                }
            }
            lists.push(arena, element)
        })?;
        Ok(Self { header: *header, top: levels.iter().copied().max().unwrap_or(0), levels, lists })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.levels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Highest level of an element.
    pub fn level(&self, ordinal: u32) -> u8 {
        self.levels[ordinal as usize]
    }

    /// Highest level of all.
    pub fn top(&self) -> u8 {
        self.top
    }

    /// Where searches start.
    pub fn entry(&self) -> Option<u32> {
        self.header.entry
    }

    /// Neighbors of an element at a level that it lives on.
    pub fn neighbors(&self, ordinal: u32, level: u8) -> impl Iterator<Item = u32> {
        self.lists.of(ordinal, level).iter().map(|word| word.load(Relaxed))
    }
}

/// Looks at all of an archived graph and shows the rows of its elements, a part of an element's rows at a time.
///
/// # Errors
/// [`Error::Structure`](crate::error::Error::Structure), but for links to elements that are not on the link's level, which
/// [`Links::read`] finds; those of `each`.
pub fn each_graph_row(
    header: &GraphHeader,
    shape: &Shape,
    source: &mut Source<GraphElement>,
    mut each: impl FnMut(u32, &[Fingerprint]) -> Result<()>,
) -> Result<()> {
    Levels::read(header, shape, source, |ordinal, element| each(ordinal, &element.rows)).map(|_| ())
}
