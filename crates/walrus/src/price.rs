//! Sizes after encoding, and what they cost.

use crate::{Result, Shards};

/// Bytes of a unit of storage.
const UNIT: u64 = 1 << 20;

/// FROST per unit. The network's nodes vote on them; no HTTP interface tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Per unit and epoch.
    pub storage: u64,
    /// Per unit, once.
    pub write: u64,
}

impl Default for Prices {
    /// The sample of the public documentation.
    fn default() -> Self {
        Self { storage: 100_000, write: 20_000 }
    }
}

impl Prices {
    /// FROST for so many units and epochs.
    pub fn cost(self, units: u64, epochs: u64) -> u64 {
        let unit = self.storage.saturating_mul(epochs).saturating_add(self.write);
        units.saturating_mul(unit)
    }
}

/// Bytes that a symbol size occupies on all shards together, metadata included.
pub fn encoded_of_symbol(shards: Shards, symbol: usize) -> u64 {
    let n = shards.count() as u64;
    n * (64 * n + 32) + n * (shards.rows() + shards.columns()) as u64 * symbol as u64
}

/// Bytes that a blob of `length` bytes occupies on all shards together.
///
/// # Errors
/// [`crate::Error::TooLarge`].
pub fn encoded_length(shards: Shards, length: u64) -> Result<u64> {
    Ok(encoded_of_symbol(shards, shards.symbol(length)?))
}

/// Units that are paid for so many encoded bytes.
pub fn units(encoded: u64) -> u64 {
    encoded.div_ceil(UNIT)
}

/// Units of a blob of `length` bytes.
///
/// # Errors
/// [`crate::Error::TooLarge`].
pub fn blob_units(shards: Shards, length: u64) -> Result<u64> {
    Ok(units(encoded_length(shards, length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_answer_of_the_documentation() {
        let encoded = encoded_length(Shards::NETWORK, 17).unwrap();
        assert_eq!(encoded, 66_034_000);
        assert_eq!(Prices::default().cost(units(encoded), 5), 32_760_000);
    }

    #[test]
    fn units_of_single_blobs() {
        for (mib, expected) in [(1, 67), (10, 107), (100, 512)] {
            assert_eq!(blob_units(Shards::NETWORK, mib << 20), Ok(expected));
        }
    }
}
