//! Chunks of the centroids of an IVF segment, as the index keeps them: a byte for each value, with scale and offset.

use crate::bytes::{Reader, put_u32};
use crate::error::{Error, Result};
use crate::lists::ListsHeader;
use crate::{CHUNK_BYTES, LARGEST_RAW};

/// A centroid; value `i` is about `offset + scale * code[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Centroid {
    /// Finite, not negative.
    pub scale: f32,
    /// Finite.
    pub offset: f32,
    /// As long as the segment's vectors.
    pub code: Vec<u8>,
}

impl Centroid {
    fn check(&self) -> Result<()> {
        let Self { scale, offset, .. } = self;
        // Not-a-number is not at least zero.
        if scale.is_finite() && *scale >= 0.0 && offset.is_finite() {
            Ok(())
        } else {
            Err(Error::damaged(format!("a centroid has scale {scale} and offset {offset}")))
        }
    }
}

/// Bytes of a centroid before its code.
const HEAD: usize = 8;

/// Centroids that a chunk holds; all but the last are full.
fn a_chunk(header: &ListsHeader) -> usize {
    const { assert!(CHUNK_BYTES + HEAD + 16_000 < LARGEST_RAW) };
    CHUNK_BYTES / (HEAD + usize::from(header.dimensions))
}

/// Raw chunks of the centroids of all lists, in order.
///
/// # Errors
/// [`Error::Unfit`] if they are not as many as the header says, or one is not a centroid.
pub fn encode_centroids(header: &ListsHeader, centroids: impl IntoIterator<Item = Centroid>) -> Result<Vec<Vec<u8>>> {
    header.check().map_err(Error::into_unfit)?;
    let (mut chunks, mut chunk, mut count) = (Vec::new(), Vec::new(), 0u32);
    for centroid in centroids {
        centroid.check().map_err(Error::into_unfit)?;
        if centroid.code.len() != usize::from(header.dimensions) || count >= header.lists {
            let (len, lists) = (centroid.code.len(), header.lists);
            return Err(Error::unfit(format!("centroid {count} has {len} values, in a segment of {lists} lists")));
        }
        if (count as usize).is_multiple_of(a_chunk(header)) {
            if count > 0 {
                chunks.push(std::mem::take(&mut chunk));
            }
            put_u32(&mut chunk, count);
        }
        let Centroid { scale, offset, code } = centroid;
        [scale, offset].into_iter().for_each(|number| chunk.extend_from_slice(&number.to_le_bytes()));
        chunk.extend_from_slice(&code);
        count += 1;
    }
    if count != header.lists {
        return Err(Error::unfit(format!("{count} centroids came for {} lists", header.lists)));
    }
    if count > 0 {
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// Calls `each` with the number of each list and its centroid; `first` is 0 for the first chunk, and further by what
/// this returns for each chunk. Returns the number of centroids in the chunk.
///
/// # Errors
/// [`Error::Damaged`]; those of `each`.
pub fn decode_centroids(
    header: &ListsHeader,
    first: u32,
    chunk: &[u8],
    each: &mut dyn FnMut(u32, Centroid) -> Result<()>,
) -> Result<u32> {
    header.check()?;
    let mut reader = Reader::new(chunk);
    let began = reader.u32()?;
    if began != first {
        return Err(Error::damaged(format!("it begins with list {began} where {first} should be")));
    }
    let size = HEAD + usize::from(header.dimensions);
    let count = reader.left() / size;
    let due = (header.lists.saturating_sub(first) as usize).min(a_chunk(header));
    if !reader.left().is_multiple_of(size) || count != due || count == 0 {
        return Err(Error::damaged(format!("it has {} bytes of centroids where {due} should be", reader.left())));
    }
    for list in first..first + count as u32 {
        let [scale, offset] = [reader.array()?, reader.array()?].map(f32::from_le_bytes);
        let code = reader.take(usize::from(header.dimensions))?.to_vec();
        let centroid = Centroid { scale, offset, code };
        centroid.check()?;
        each(list, centroid)?;
    }
    Ok(count as u32)
}
