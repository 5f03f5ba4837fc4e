//! Rows of the table that an archive knows, until their segments are made.

use super::{Claimed, Mapping};
use crate::error::Result;
use crate::hnsw::build::{Arena, Codes, Node};
use crate::hnsw::layout::Rows;
use crate::keys::{PackedRows, Row};
use crate::sq8::Params;

/// Encoded rows of all archived segments, each with a code of its own.
pub struct Gathered<A: Arena> {
    codes: Codes<A>,
    rows: PackedRows,
}

impl<A: Arena> Gathered<A> {
    /// No rows yet.
    pub fn new(dimensions: usize, keys: usize) -> Self {
        Self { codes: Codes::new(dimensions), rows: PackedRows::new(keys) }
    }

    /// Rows added.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Adds a row, whose number is the length before.
    ///
    /// # Errors
    /// [`Error::Full`](crate::error::Error::Full) after 2^32 rows, and what the arena fails with.
    pub fn push(&mut self, arena: &mut A, params: &Params, code: &[u8], row: &Row) -> Result<Node> {
        let node = self.codes.push(arena, params, code)?;
        self.rows.push(row);
        Ok(node)
    }

    /// A row, and what belongs to its code.
    pub fn get(&self, node: Node) -> (Params, &[u8], Row) {
        (self.codes.params(node), self.codes.code(node), self.rows.get(node as usize))
    }

    /// The rows of one segment in the order of its elements, and which of these they are. Rows with equal codes share an
    /// element as in any build, so archived elements may become one, or two.
    ///
    /// # Errors
    /// What the arena fails with.
    pub fn segment(&self, claimed: &[Claimed], elements: u32, arena: &mut A) -> Result<(Rows<A>, Mapping)> {
        let mut rows = Rows::new(self.codes.dimensions(), self.rows.keys());
        let mut mapping = Mapping::new(elements);
        arena.charge(Mapping::bytes(elements));
        for claim in claimed {
            let (params, code, row) = self.get(claim.node);
            mapping.add(claim.ordinal, rows.push(arena, &params, code, &row)?);
        }
        Ok((rows, mapping))
    }
}
