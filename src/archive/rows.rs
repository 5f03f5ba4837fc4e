//! The rows of a table as chunks of COPY text, and back.
//!
//! Invariant: a chunk depends on the rows of its range of blocks only. So a range in which nothing changed gives the same
//! bytes, which need not be stored twice. Cuts inside a range fall on blocks whose numbers are multiples of
//! [`STEP_BLOCKS`] where rows are small, so that they seldom move when a row grows.

#[cfg(any(test, feature = "pg_test"))]
mod tests;

use super::sql::with_fixed_settings;
use crate::error::{Fault, raise};
use crate::pg::copy::{Source, copy_from};
use crate::pg::relation::OpenTable;
use crate::pg::rights::check_may_read;
use crate::pg::rows::RowVisitor;
use crate::pg::snapshot::Snapshot;
use ann::shape::HeapTid;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use std::ops::Range;

/// Blocks of a range: a chunk never has rows of two ranges.
pub const RANGE_BLOCKS: u32 = 1024;
/// A full chunk is cut where a multiple of this begins.
pub const STEP_BLOCKS: u32 = 32;
/// Bytes from which a chunk is full.
const FULL: usize = 3 << 20;
/// Bytes of the largest chunk: at this a row is cut in two.
pub const LARGEST_CHUNK: usize = 4 << 20;
/// Bytes of the longest line that COPY reads, `MaxAllocSize` less what its buffer needs.
pub const LONGEST_LINE: usize = 0x3fff_ffff - 1024;

/// Some rows as COPY text in UTF-8: lines that end with a newline, values separated by tabs, `\N` for NULL.
///
/// Chunks are parts of one stream. A row longer than [`LARGEST_CHUNK`] spans several, so only the stream as a whole is
/// certain to be lines; a chunk of ordinary rows is whole lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The blocks that the rows are in; what is between the ranges of two chunks has no visible rows.
    pub blocks: Range<u32>,
    /// Rows that end in this chunk.
    pub rows: u64,
    pub bytes: Vec<u8>,
}

/// Hands out the visible rows of a table in chunks, in the order of the heap. In memory: a chunk and a value.
///
/// columns: those to read, in this order, by name; what `describe` lists.
/// Returns the number of rows.
///
/// # Errors
/// 42501 if the caller may not read every row, 40001 if a column went since the snapshot, 54000 for a row that COPY
/// could not read back.
pub fn read_rows(table: Oid, columns: &[String], snapshot: &Snapshot, each: &mut dyn FnMut(Chunk)) -> u64 {
    let opened = OpenTable::open(table);
    check_may_read(table);
    let there = opened.columns();
    let positions: Vec<(usize, Oid)> = columns
        .iter()
        .map(|column| {
            let found = there.iter().find(|(_, name, _)| name == column);
            let Some((position, _, of)) = found else {
                let message = format!("column \"{column}\" is not in the table any more");
                raise(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message)
            };
            (*position, *of)
        })
        .collect();
    let mut cutter = Cutter::new(each);
    with_fixed_settings(|| opened.scan_texts(snapshot, &positions, &mut cutter));
    cutter.finish()
}

/// Inserts rows as the calling user. `next` hands out the chunks' bytes in order, and nothing at the end.
/// Returns the number of rows.
///
/// # Errors
/// Those of [`copy_from`].
pub fn load_rows(table: Oid, columns: &[String], next: &mut Source) -> u64 {
    with_fixed_settings(|| copy_from(table, columns, next))
}

/// Writes rows as COPY text and cuts it into chunks.
struct Cutter<'a> {
    each: &'a mut dyn FnMut(Chunk),
    bytes: Vec<u8>,
    /// First block with a row in the chunk, and the block of its last row.
    blocks: Option<(u32, u32)>,
    rows: u64,
    total: u64,
    tid: HeapTid,
    /// Bytes and values of the row so far.
    line: usize,
    values: usize,
}

impl<'a> Cutter<'a> {
    fn new(each: &'a mut dyn FnMut(Chunk)) -> Self {
        let tid = HeapTid { block: 0, offset: 0 };
        Self { each, bytes: Vec::new(), blocks: None, rows: 0, total: 0, tid, line: 0, values: 0 }
    }

    /// Hands out what there is.
    fn cut(&mut self) {
        if let Some((first, last)) = self.blocks.take() {
            let bytes = std::mem::take(&mut self.bytes);
            (self.each)(Chunk { blocks: first..last + 1, rows: std::mem::take(&mut self.rows), bytes });
        }
    }

    /// Whether the chunk ends before a row in this block.
    fn ends_before(&self, block: u32) -> bool {
        let Some((_, last)) = self.blocks else { return false };
        let full = self.bytes.len() >= FULL && last / STEP_BLOCKS != block / STEP_BLOCKS;
        full || last / RANGE_BLOCKS != block / RANGE_BLOCKS
    }

    /// Adds bytes of the row, cutting it where the chunk is as large as one may be.
    fn push(&mut self, mut bytes: &[u8]) {
        self.line += bytes.len();
        if self.line > LONGEST_LINE {
            let HeapTid { block, offset } = self.tid;
            Fault::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the row at ({block},{offset}) is longer than 1 GB as text"),
            )
            .detail("PostgreSQL's COPY cannot read such a row, so it is not backed up.")
            .raise();
        }
        while self.bytes.len() + bytes.len() > LARGEST_CHUNK {
            let (now, later) = bytes.split_at(LARGEST_CHUNK - self.bytes.len());
            self.bytes.extend_from_slice(now);
            self.cut();
            self.blocks = Some((self.tid.block, self.tid.block));
            bytes = later;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends the stream; returns how many rows it had.
    fn finish(mut self) -> u64 {
        self.cut();
        self.total
    }
}

impl RowVisitor for Cutter<'_> {
    fn begin(&mut self, tid: HeapTid) {
        if self.ends_before(tid.block) {
            self.cut();
        }
        let first = self.blocks.map_or(tid.block, |(first, _)| first);
        self.blocks = Some((first, tid.block));
        (self.tid, self.line, self.values) = (tid, 0, 0);
    }

    fn value(&mut self, text: Option<&[u8]>) {
        if self.values > 0 {
            self.push(b"\t");
        }
        self.values += 1;
        match text {
            Some(text) => escape(text, &mut |part| self.push(part)),
            None => self.push(b"\\N"),
        }
    }

    fn end(&mut self) {
        self.push(b"\n");
        self.rows += 1;
        self.total += 1;
    }
}

/// What COPY writes for a byte that it does not write as it is.
fn escaped(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'\\' => Some(b"\\\\"),
        b'\t' => Some(b"\\t"),
        b'\n' => Some(b"\\n"),
        b'\r' => Some(b"\\r"),
        0x08 => Some(b"\\b"),
        0x0b => Some(b"\\v"),
        0x0c => Some(b"\\f"),
        _ => None,
    }
}

/// Shows the parts of which a value's text consists in COPY's text format.
fn escape(text: &[u8], part: &mut dyn FnMut(&[u8])) {
    let mut rest = text;
    while let Some((at, escape)) = rest.iter().enumerate().find_map(|(i, &byte)| Some((i, escaped(byte)?))) {
        if at > 0 {
            part(&rest[..at]);
        }
        part(escape);
        rest = &rest[at + 1..];
    }
    if !rest.is_empty() {
        part(rest);
    }
}
