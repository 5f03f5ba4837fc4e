//! Chunks of a table's rows: a stream of lines in COPY's text format, cut where whoever reads the table wants it cut.

use crate::LARGEST_RAW;
use crate::bytes::{Reader, put_u32};
use crate::error::{Error, Result};

/// Flag of a chunk: its first line began in the chunk before.
const BEGINS_WITHIN: u8 = 1;
/// Flag of a chunk: its last line goes on in the next chunk.
const ENDS_WITHIN: u8 = 2;
/// Bytes before the text.
const HEAD: usize = 8;
/// What COPY takes for the end of all lines.
const END_MARK: &[u8] = br"\.";

/// Where a stream of lines is cut.
#[derive(Default)]
struct Stream {
    /// How the line begins that goes on in the next chunk: enough of it to know the mark of the end.
    begun: Option<Vec<u8>>,
}

impl Stream {
    /// Goes on by a chunk's text; returns the chunk's flags and how many lines end in it.
    fn step(&mut self, text: &[u8]) -> Result<(u8, u32)> {
        if text.is_empty() {
            return Err(Error::damaged("it has no rows"));
        }
        let mut flags = if self.begun.is_some() { BEGINS_WITHIN } else { 0 };
        let (mut begun, mut lines) = (self.begun.take().unwrap_or_default(), 0);
        for piece in text.split_inclusive(|&byte| byte == b'\n') {
            let line = piece.strip_suffix(b"\n");
            let room = (END_MARK.len() + 1).saturating_sub(begun.len());
            begun.extend(line.unwrap_or(piece).iter().take(room));
            match line {
                Some(_) if begun == END_MARK => return Err(Error::damaged("a row is COPY's mark of the end")),
                Some(_) => {
                    begun.clear();
                    lines += 1;
                }
                None => {
                    flags |= ENDS_WITHIN;
                    self.begun = Some(std::mem::take(&mut begun));
                }
            }
        }
        Ok((flags, lines))
    }

    fn finish(self) -> Result<()> {
        if self.begun.is_none() { Ok(()) } else { Err(Error::damaged("the last row is cut off")) }
    }
}

/// Makes chunks of the pieces of a stream of lines, each with its newline. The same pieces make the same chunks.
#[derive(Default)]
pub struct RowsEncoder {
    stream: Stream,
}

impl RowsEncoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// A raw chunk of the next piece, of at most about 4 MiB. A piece may end within a line, where that is longer than a
    /// chunk.
    ///
    /// # Errors
    /// [`Error::Unfit`] if a line is COPY's mark of the end `\.`, or the piece is empty; [`Error::TooLarge`].
    pub fn chunk(&mut self, text: &[u8]) -> Result<Vec<u8>> {
        if text.len() > LARGEST_RAW - HEAD {
            let (size, limit) = (text.len() as u64, (LARGEST_RAW - HEAD) as u64);
            return Err(Error::TooLarge { what: "a chunk of rows".into(), size, limit });
        }
        let (flags, lines) = self.stream.step(text).map_err(Error::into_unfit)?;
        let mut raw = Vec::with_capacity(HEAD + text.len());
        raw.extend_from_slice(&[flags, 0, 0, 0]);
        put_u32(&mut raw, lines);
        raw.extend_from_slice(text);
        Ok(raw)
    }

    /// # Errors
    /// [`Error::Unfit`] if the last line has no end.
    pub fn finish(self) -> Result<()> {
        self.stream.finish().map_err(Error::into_unfit)
    }
}

/// A piece of a stream of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsText<'a> {
    /// As it was given to the encoder.
    pub text: &'a [u8],
    /// Lines that end in it.
    pub lines: u32,
}

/// Reads chunks of rows in order.
#[derive(Default)]
pub struct RowsDecoder {
    stream: Stream,
}

impl RowsDecoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next piece of the stream: what COPY reads next.
    ///
    /// # Errors
    /// [`Error::Damaged`], also where the chunk does not go on where the one before ended.
    pub fn chunk<'a>(&mut self, raw: &'a [u8]) -> Result<RowsText<'a>> {
        let mut reader = Reader::new(raw);
        let [flags, zeros @ ..] = reader.array::<4>()?;
        let lines = reader.u32()?;
        let text = reader.take(reader.left())?;
        if flags > BEGINS_WITHIN | ENDS_WITHIN || zeros != [0; 3] {
            return Err(Error::damaged("its head is none of a chunk of rows"));
        }
        if (flags & BEGINS_WITHIN != 0) != self.stream.begun.is_some() {
            return Err(Error::damaged("it does not go on where the chunk before ended"));
        }
        if self.stream.step(text)? != (flags, lines) {
            return Err(Error::damaged(format!("it does not have the {lines} rows that it should have")));
        }
        Ok(RowsText { text, lines })
    }

    /// # Errors
    /// [`Error::Damaged`] if a line goes on beyond the last chunk.
    pub fn finish(self) -> Result<()> {
        self.stream.finish()
    }
}
