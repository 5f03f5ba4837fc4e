//! The binary form, big-endian: `int16 dim, int16 unused = 0, float4[dim]`.

use crate::error::Error;
use crate::{check_dim, check_element, check_expected};

/// Bytes before the first element.
const HEADER_LEN: usize = 4;

/// Bytes that the binary form of so many dimensions takes.
#[must_use]
pub fn encoded_len(dim: usize) -> usize {
    HEADER_LEN + 4 * dim
}

/// Reads a vector from the start of `message`, which may go on after it: the vector takes [`encoded_len`] bytes.
///
/// # Errors
/// The first fault found from left to right.
pub fn decode(message: &[u8], expected: Option<i32>) -> Result<Vec<f32>, Error> {
    let (header, body) = message.split_first_chunk::<HEADER_LEN>().ok_or(Error::Truncated)?;
    let [dim, unused] = [[header[0], header[1]], [header[2], header[3]]].map(i16::from_be_bytes);
    let dim = usize::try_from(dim).unwrap_or(0);
    check_dim(dim)?;
    check_expected(expected, dim)?;
    if unused != 0 {
        return Err(Error::UnusedInUse(unused));
    }
    elements(body, dim)
}

/// Invariant: allocates for what is there, never for what the header claims.
fn elements(body: &[u8], dim: usize) -> Result<Vec<f32>, Error> {
    let (chunks, _) = body.as_chunks::<4>();
    let mut values = Vec::with_capacity(dim.min(chunks.len()));
    for chunk in chunks.iter().take(dim) {
        let value = f32::from_be_bytes(*chunk);
        check_element(value)?;
        values.push(value);
    }
    if values.len() == dim { Ok(values) } else { Err(Error::Truncated) }
}

/// The binary form of a vector of at most [`crate::MAX_DIM`] dimensions.
#[must_use]
pub fn encode(values: &[f32]) -> Vec<u8> {
    let mut message = Vec::with_capacity(encoded_len(values.len()));
    message.extend_from_slice(&(values.len() as u16).to_be_bytes());
    message.extend_from_slice(&[0, 0]);
    message.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_big_endian() {
        assert_eq!(encode(&[1.0, -2.0]), [0, 2, 0, 0, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]);
        assert_eq!(decode(&[0, 1, 0, 0, 0x3f, 0x80, 0, 0, 9, 9], None), Ok(vec![1.0]));
    }

    #[test]
    fn names_the_fault() {
        assert_eq!(decode(&[0, 1, 0], None), Err(Error::Truncated));
        assert_eq!(decode(&[0, 0, 0, 0], None), Err(Error::Empty));
        assert_eq!(decode(&[0xff, 0xff, 0, 0], None), Err(Error::Empty));
        assert_eq!(decode(&[0x3e, 0x81, 0, 0], None), Err(Error::TooManyDimensions));
        assert_eq!(decode(&[0, 2, 0, 1], Some(3)), Err(Error::UnexpectedDimensions { expected: 3, dim: 2 }));
        assert_eq!(decode(&[0, 2, 0xff, 0xff], None), Err(Error::UnusedInUse(-1)));
        assert_eq!(decode(&[0, 2, 0, 0, 0, 0, 0, 0, 0], None), Err(Error::Truncated));
        assert_eq!(decode(&[0, 2, 0, 0, 0x7f, 0xc0, 0, 0], None), Err(Error::NotANumber));
        assert_eq!(decode(&[0, 1, 0, 0, 0xff, 0x80, 0, 0], None), Err(Error::Infinite));
    }

    proptest! {
        #[test]
        fn round_trips(values in prop::collection::vec(-1e38f32..1e38, 1..100)) {
            prop_assert_eq!(decode(&encode(&values), Some(values.len() as i32)), Ok(values));
        }
    }
}
