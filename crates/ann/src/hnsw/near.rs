//! Small structures of a graph search: ordered candidates and the set of visited slots.

use crate::page::NONE;
use crate::shape::Slot;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A slot and its distance in one integer that sorts by distance, then slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Near(u64);

impl Near {
    /// `distance` is not NaN; -0 sorts before 0.
    pub fn new(distance: f32, slot: Slot) -> Self {
        let bits = distance.to_bits();
        // Flips all bits of negative numbers and the sign of positive ones: then integers sort as floats do.
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(ordered) << 32 | u64::from(slot))
    }

    /// The distance, every bit of it.
    pub fn distance(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
    }

    /// The slot.
    pub fn slot(self) -> Slot {
        self.0 as u32
    }
}

/// Nearest first.
pub type Frontier = BinaryHeap<Reverse<Near>>;

/// Slots already seen: open addressing, as small as the search.
pub struct Visited {
    table: Vec<Slot>,
    len: usize,
}

impl Default for Visited {
    fn default() -> Self {
        Self { table: vec![NONE; 4096], len: 0 }
    }
}

impl Visited {
    /// Slots in the set.
    pub fn count(&self) -> usize {
        self.len
    }

    /// Whether nothing was inserted yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.table.fill(NONE);
        self.len = 0;
    }

    /// Whether the slot was not in the set.
    pub fn insert(&mut self, slot: Slot) -> bool {
        if self.len * 2 >= self.table.len() {
            self.grow();
        }
        let fresh = Self::put(&mut self.table, slot);
        self.len += usize::from(fresh);
        fresh
    }

    fn put(table: &mut [Slot], slot: Slot) -> bool {
        let mask = table.len() - 1;
        let mut at = (slot.wrapping_mul(0x9E37_79B1) >> 7) as usize & mask;
        loop {
            if table[at] == slot {
                return false;
            }
            if table[at] == NONE {
                table[at] = slot;
                return true;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let mut table = vec![NONE; self.table.len() * 2];
        for &slot in self.table.iter().filter(|&&s| s != NONE) {
            Self::put(&mut table, slot);
        }
        self.table = table;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_sort_by_distance_then_slot() {
        let mut all: Vec<Near> = [(1.5, 3), (-2.0, 9), (0.0, 1), (1.5, 2), (f32::INFINITY, 0), (-0.5, 7)]
            .map(|(d, s)| Near::new(d, s))
            .to_vec();
        all.sort();
        let slots: Vec<Slot> = all.iter().map(|n| n.slot()).collect();
        assert_eq!(slots, [9, 7, 1, 2, 3, 0]);
        assert_eq!(all[0].distance(), -2.0);
        assert_eq!(all[5].distance(), f32::INFINITY);
    }

    #[test]
    fn visited_remembers_through_growth() {
        let mut visited = Visited::default();
        assert!((0..10_000).all(|i| visited.insert(i * 7)));
        assert!(!(0..10_000).any(|i| visited.insert(i * 7)));
        assert_eq!(visited.count(), 10_000);
    }
}
