//! Chunks of the ordinals of dead elements: elements none of whose rows lives.

use crate::CHUNK_BYTES;
use crate::bytes::{Reader, put_u32, put_varint};
use crate::error::{Error, Result};

/// Raw chunks of ascending ordinals below `elements`; none if there are no ordinals.
///
/// # Errors
/// [`Error::Unfit`] if they do not ascend, or one is not below `elements`.
pub fn encode_tombstones(elements: u32, ordinals: impl IntoIterator<Item = u32>) -> Result<Vec<Vec<u8>>> {
    let (mut chunks, mut chunk, mut least) = (Vec::new(), Vec::new(), 0);
    for ordinal in ordinals {
        if ordinal < least || ordinal >= elements {
            return Err(Error::unfit(format!("dead element {ordinal} comes where {least} to {elements} may")));
        }
        if chunk.is_empty() {
            put_u32(&mut chunk, least);
        }
        put_varint(&mut chunk, ordinal - least);
        least = ordinal + 1;
        if chunk.len() >= CHUNK_BYTES {
            chunks.push(std::mem::take(&mut chunk));
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// Calls `each` with each ordinal. `least` is the smallest ordinal that may come: 0 for the first chunk, then what this
/// returns for the chunk before.
///
/// # Errors
/// [`Error::Damaged`]; those of `each`.
pub fn decode_tombstones(
    elements: u32,
    mut least: u32,
    chunk: &[u8],
    each: &mut dyn FnMut(u32) -> Result<()>,
) -> Result<u32> {
    let mut reader = Reader::new(chunk);
    let began = reader.u32()?;
    if began != least || reader.left() == 0 {
        return Err(Error::damaged(format!("it begins at element {began} where {least} should be")));
    }
    while reader.left() > 0 {
        let ordinal = least.checked_add(reader.varint()?).filter(|&ordinal| ordinal < elements);
        let ordinal = ordinal.ok_or_else(|| Error::damaged(format!("a dead element is beyond the {elements}")))?;
        each(ordinal)?;
        least = ordinal + 1;
    }
    Ok(least)
}
