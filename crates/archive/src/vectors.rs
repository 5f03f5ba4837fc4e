//! Chunks of the vectors of a segment's rows, in the order in which the fingerprints come in the chunks of its
//! structure.

use crate::CHUNK_BYTES;
use crate::bytes::{Reader, put_u32};
use crate::error::{Error, Result};
use crate::lists::MAX_DIMENSIONS;

/// Makes chunks of vectors. The same vectors make the same chunks.
pub struct VectorsEncoder {
    dimensions: u16,
    /// Values of whole vectors.
    values: Vec<f32>,
    /// Vectors in the chunks before.
    before: u64,
}

impl VectorsEncoder {
    /// # Errors
    /// If vectors cannot have so many dimensions.
    pub fn new(dimensions: u16) -> Result<Self> {
        check(dimensions).map_err(Error::into_unfit)?;
        Ok(Self { dimensions, values: Vec::new(), before: 0 })
    }

    /// Takes the vector of the next row; returns a raw chunk when one is full.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it has other dimensions or a value that is not finite.
    pub fn push(&mut self, vector: &[f32]) -> Result<Option<Vec<u8>>> {
        if vector.len() != usize::from(self.dimensions) || !vector.iter().all(|value| value.is_finite()) {
            return Err(Error::unfit(format!("a vector of {} values, or with one that is not finite", vector.len())));
        }
        self.values.extend_from_slice(vector);
        Ok((self.values.len() == a_chunk(self.dimensions) * vector.len()).then(|| self.take_chunk()))
    }

    fn take_chunk(&mut self) -> Vec<u8> {
        let count = self.values.len() / usize::from(self.dimensions);
        let mut out = Vec::with_capacity(12 + 4 * self.values.len());
        out.extend_from_slice(&self.before.to_le_bytes());
        put_u32(&mut out, count as u32);
        for plane in 0..4 {
            out.extend(self.values.iter().map(|value| value.to_le_bytes()[plane]));
        }
        self.values.clear();
        self.before += count as u64;
        out
    }

    /// The last chunk, if something is left for it.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        (!self.values.is_empty()).then(|| self.take_chunk())
    }
}

fn check(dimensions: u16) -> Result<()> {
    if (1..=MAX_DIMENSIONS).contains(&dimensions) {
        Ok(())
    } else {
        Err(Error::damaged(format!("its vectors have {dimensions} dimensions")))
    }
}

/// Vectors that a chunk holds; all but the last are full.
fn a_chunk(dimensions: u16) -> usize {
    CHUNK_BYTES / (4 * usize::from(dimensions))
}

/// Calls `each` with the number of each row, from `first` on, and its vector. `first` is 0 for the first chunk of a
/// segment, and further by what this returns for each chunk.
///
/// # Errors
/// [`Error::Damaged`]; those of `each`.
pub fn decode_vectors(
    dimensions: u16,
    first: u64,
    chunk: &[u8],
    each: &mut dyn FnMut(u64, &[f32]) -> Result<()>,
) -> Result<u64> {
    check(dimensions)?;
    let mut reader = Reader::new(chunk);
    let (began, count) = (u64::from_le_bytes(reader.array()?), reader.u32()?);
    if began != first {
        return Err(Error::damaged(format!("it begins with row {began} where {first} should be")));
    }
    let values = u64::from(count) * u64::from(dimensions);
    if count == 0 || count as usize > a_chunk(dimensions) || reader.left() as u64 != 4 * values {
        return Err(Error::damaged(format!("it has {} bytes for {count} vectors", reader.left())));
    }
    let mut plane = || reader.take(values as usize);
    let planes = [plane()?, plane()?, plane()?, plane()?];
    let mut vector = vec![0.0; usize::from(dimensions)];
    for row in 0..count {
        let start = row as usize * vector.len();
        for (i, value) in vector.iter_mut().enumerate() {
            *value = f32::from_le_bytes(planes.map(|plane| plane[start + i]));
        }
        if !vector.iter().all(|value| value.is_finite()) {
            return Err(Error::damaged(format!(
                "the vector of row {} has a value that is not finite",
                began + u64::from(row)
            )));
        }
        each(first.saturating_add(u64::from(row)), &vector)?;
    }
    Ok(u64::from(count))
}
