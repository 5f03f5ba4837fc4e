//! Chunks of a table's rows, as lines of COPY's text format. Chunks end where the content says, so that rows that come,
//! go or change make new chunks near them only.

use crate::CHUNK_BYTES;
use crate::bytes::{Reader, put_u32};
use crate::error::{Error, Result};

/// Flag of a chunk: its first line began in the chunk before.
const BEGINS_WITHIN: u8 = 1;
/// Flag of a chunk: its last line goes on in the next chunk.
const ENDS_WITHIN: u8 = 2;
/// Bytes before the lines.
const HEAD: usize = 8;
/// A chunk has at least so many bytes before the content may end it.
const LEAST: usize = CHUNK_BYTES / 2;
/// Beyond that, the content ends it after so many bytes on average.
const MORE: u64 = CHUNK_BYTES as u64 / 4;
/// Bytes of a line, at most: PostgreSQL sends no longer ones.
const LONGEST_LINE: usize = 1 << 30;

/// A raw chunk of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinesChunk {
    pub raw: Vec<u8>,
    /// Lines that end in it.
    pub lines: u32,
}

/// Makes chunks of lines. The same lines make the same chunks; a line that comes, goes or changes, other chunks from
/// there to at most a few further on.
pub struct RowsEncoder {
    chunk: Vec<u8>,
    lines: u32,
    flags: u8,
}

impl Default for RowsEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl RowsEncoder {
    pub fn new() -> Self {
        Self { chunk: Vec::new(), lines: 0, flags: 0 }
    }

    /// Takes a line without its newline, and gives the chunks that are full to `each`: seldom more than one, and of a
    /// very long line all but the last.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the line holds a newline, is COPY's mark of the end `\.`, or is too long; those of `each`.
    pub fn push(&mut self, line: &[u8], each: &mut dyn FnMut(LinesChunk) -> Result<()>) -> Result<()> {
        check_line(line).map_err(Error::into_unfit)?;
        if !self.chunk.is_empty() && self.chunk.len() + line.len() >= CHUNK_BYTES {
            each(self.take_chunk(0))?;
        }
        let mut rest = line;
        while rest.len() >= CHUNK_BYTES {
            let (piece, later) = rest.split_at(CHUNK_BYTES);
            self.chunk.extend_from_slice(piece);
            rest = later;
            each(self.take_chunk(ENDS_WITHIN))?;
            self.flags = BEGINS_WITHIN;
        }
        self.chunk.extend_from_slice(rest);
        self.chunk.push(b'\n');
        self.lines += 1;
        if self.chunk.len() >= LEAST && ends_chunk(line) {
            each(self.take_chunk(0))?;
        }
        Ok(())
    }

    /// Ends the chunk here, as where the caller goes on to another range of blocks.
    pub fn flush(&mut self) -> Option<LinesChunk> {
        (!self.chunk.is_empty()).then(|| self.take_chunk(0))
    }

    fn take_chunk(&mut self, flags: u8) -> LinesChunk {
        let mut raw = Vec::with_capacity(HEAD + self.chunk.len());
        raw.extend_from_slice(&[self.flags | flags, 0, 0, 0]);
        put_u32(&mut raw, self.lines);
        raw.append(&mut self.chunk);
        let lines = std::mem::take(&mut self.lines);
        self.flags = 0;
        LinesChunk { raw, lines }
    }
}

/// Decided by the line alone; the longer it is, the likelier, so that chunks have about the same length for short lines
/// and long.
fn ends_chunk(line: &[u8]) -> bool {
    let hash = blake3::hash(line);
    let (draw, _) = hash.as_bytes().split_at(8);
    let draw = draw.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    draw / (u64::MAX / MORE) <= line.len() as u64
}

fn check_line(line: &[u8]) -> Result<()> {
    if line.contains(&b'\n') {
        return Err(Error::damaged("a line holds a newline"));
    }
    check_whole(line)
}

fn check_whole(line: &[u8]) -> Result<()> {
    if line == br"\." {
        return Err(Error::damaged("a line is the mark of the end"));
    }
    if line.len() > LONGEST_LINE {
        return Err(Error::damaged(format!("a line has more than {LONGEST_LINE} bytes")));
    }
    Ok(())
}

/// Reads chunks of lines in order, and joins lines that go over several.
#[derive(Default)]
pub struct RowsDecoder {
    /// What came of a line that goes on.
    begun: Option<Vec<u8>>,
}

impl RowsDecoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `each` with each line that ends in the chunk, without its newline. Returns how many. Holds a line of 1 GiB
    /// at most.
    ///
    /// # Errors
    /// [`Error::Damaged`]; those of `each`.
    pub fn chunk(&mut self, raw: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u32> {
        let mut reader = Reader::new(raw);
        let [flags, zeros @ ..] = reader.array::<4>()?;
        let lines = reader.u32()?;
        let mut text = reader.take(reader.left())?;
        if flags > BEGINS_WITHIN | ENDS_WITHIN || zeros != [0; 3] || text.is_empty() {
            return Err(Error::damaged("its head is none of a chunk of rows"));
        }
        if (flags & BEGINS_WITHIN != 0) != self.begun.is_some() {
            return Err(Error::damaged("it does not go on where the chunk before ended"));
        }
        if (flags & ENDS_WITHIN != 0) == text.ends_with(b"\n") {
            return Err(Error::damaged("it ends within a line"));
        }
        if text.iter().filter(|&&byte| byte == b'\n').count() != lines as usize {
            return Err(Error::damaged(format!("it does not have the {lines} lines that it should have")));
        }
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&text[..end], &text[end + 1..]);
            text = rest;
            match self.begun.take() {
                Some(begun) => {
                    let whole = join(begun, line)?;
                    check_whole(&whole)?;
                    each(&whole)?;
                }
                None => {
                    check_whole(line)?;
                    each(line)?;
                }
            }
        }
        if !text.is_empty() {
            self.begun = Some(join(self.begun.take().unwrap_or_default(), text)?);
        }
        Ok(lines)
    }

    /// # Errors
    /// [`Error::Damaged`] if a line goes on beyond the last chunk.
    pub fn finish(self) -> Result<()> {
        if self.begun.is_none() { Ok(()) } else { Err(Error::damaged("the last line is cut off")) }
    }
}

fn join(mut begun: Vec<u8>, piece: &[u8]) -> Result<Vec<u8>> {
    if begun.len() + piece.len() > LONGEST_LINE {
        return Err(Error::damaged(format!("a line has more than {LONGEST_LINE} bytes")));
    }
    begun.extend_from_slice(piece);
    Ok(begun)
}
