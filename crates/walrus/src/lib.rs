//! Walrus without a network: blob ids, quilts, sizes and prices.
//!
//! Walrus cuts a blob into a matrix of symbols, extends it by Reed-Solomon codes to n x n symbols for n shards, and names
//! it by a Merkle root over them ([`blob::blob_id`]). A quilt is a blob that holds many patches, each in columns of its
//! own, so that a patch can be read alone ([`quilt`]). What is paid depends on the encoded size, which has a large fixed
//! part per blob or quilt ([`price`]); [`pack`] therefore decides which objects share a quilt.
//!
//! No input and no output: what is written here holds for every publisher and aggregator.

pub mod blob;
pub mod id;
pub mod pack;
pub mod price;
pub mod quilt;

pub use blob::blob_id;
pub use id::{BlobId, PatchId};
pub use price::Prices;
pub use quilt::{Patch, Quilt};

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What cannot be encoded or read. Every number in it comes from the caller's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A number of shards that has no code.
    Shards(u16),
    /// More bytes than a blob may have.
    TooLarge { length: u64, most: u64 },
    /// More patches than a quilt has columns for, or none.
    Patches { count: usize, most: usize },
    /// An identifier that a quilt may not have, and why.
    Identifier { identifier: String, why: &'static str },
    /// Tags longer than their length field can say.
    Tags { identifier: String },
    /// Bytes that are no quilt.
    NotAQuilt(&'static str),
    /// Text that is no blob id or patch id.
    Id { text: String, what: &'static str },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shards(n) => write!(f, "{n} shards: there must be from 4 to {MOST_SHARDS}"),
            Self::TooLarge { length, most } => write!(f, "{length} bytes: a blob has at most {most}"),
            Self::Patches { count, most } => write!(f, "{count} patches: a quilt has from 1 to {most}"),
            Self::Identifier { identifier, why } => write!(f, "identifier {identifier:?}: {why}"),
            Self::Tags { identifier } => write!(f, "the tags of {identifier:?} are longer than 65535 bytes"),
            Self::NotAQuilt(why) => write!(f, "not a quilt: {why}"),
            Self::Id { text, what } => write!(f, "{text:?} is no {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// Shards that this crate can encode for. Mainnet and Testnet have 1000.
pub const MOST_SHARDS: u16 = 2000;

/// Bytes of the largest symbol: its size is a u16 and even.
pub const LARGEST_SYMBOL: usize = 65_534;

/// The number of shards of a network and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    n: u16,
}

impl Shards {
    /// Mainnet and Testnet.
    pub const NETWORK: Self = Self { n: 1000 };

    /// # Errors
    /// [`Error::Shards`] for fewer than 4, where no shard may fail, and for more than [`MOST_SHARDS`].
    pub fn new(n: u16) -> Result<Self> {
        if (4..=MOST_SHARDS).contains(&n) { Ok(Self { n }) } else { Err(Error::Shards(n)) }
    }

    pub fn count(self) -> usize {
        usize::from(self.n)
    }

    fn faulty(self) -> usize {
        (self.count() - 1) / 3
    }

    /// Rows of a blob's matrix: source symbols of the primary code.
    pub fn rows(self) -> usize {
        self.count() - 2 * self.faulty()
    }

    /// Columns of a blob's matrix: source symbols of the secondary code.
    pub fn columns(self) -> usize {
        self.count() - self.faulty()
    }

    /// Symbols of a blob before encoding.
    pub fn cells(self) -> usize {
        self.rows() * self.columns()
    }

    /// Most patches of a quilt: one column is the index.
    pub fn most_patches(self) -> usize {
        self.columns() - 1
    }

    /// Bytes of the longest blob.
    pub fn longest_blob(self) -> u64 {
        self.cells() as u64 * LARGEST_SYMBOL as u64
    }

    /// Bytes of a symbol of a blob of `length` bytes; even.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn symbol(self, length: u64) -> Result<usize> {
        if length > self.longest_blob() {
            return Err(Error::TooLarge { length, most: self.longest_blob() });
        }
        let least = (length.div_ceil(self.cells() as u64) as usize).max(1);
        Ok(least.next_multiple_of(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_network() {
        let shards = Shards::NETWORK;
        assert_eq!((shards.rows(), shards.columns(), shards.cells()), (334, 667, 222_778));
        assert_eq!(shards.most_patches(), 666);
        assert_eq!(shards.longest_blob(), 14_599_533_452);
        assert_eq!(shards.symbol(0), Ok(2));
        assert_eq!(shards.symbol(445_556), Ok(2));
        assert_eq!(shards.symbol(445_557), Ok(4));
        assert!(shards.symbol(14_599_533_453).is_err());
    }

    #[test]
    fn few_shards() {
        assert_eq!(Shards::new(3), Err(Error::Shards(3)));
        let shards = Shards::new(10).unwrap();
        assert_eq!((shards.rows(), shards.columns(), shards.most_patches()), (4, 7, 6));
    }
}
