//! The id of a blob: what the encoder of a publisher arrives at for the same bytes (encoding type RS2).
//!
//! The n x n matrix of symbols is never held. Rows are extended first (half the blob's size again), then columns are
//! extended in groups, hashed, and forgotten; of a group only the roots of its columns stay, and for each row the root of
//! the subtree over the group. Groups are as long as a power of two, so these subtrees are nodes of the row's own tree.

use crate::{BlobId, Result, Shards};
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use rayon::prelude::*;
use reed_solomon_simd::ReedSolomonEncoder;

type Hash = [u8; 32];

/// The byte of the encoding type RS2.
const ENCODING: u8 = 1;

/// Columns that are encoded at a time.
const GROUP: usize = 64;

/// The id of `blob` for a network of so many shards. Needs memory for about 1.6 times the blob (2.6 if its length is not a
/// multiple of the matrix) and 4 MiB, and one to two seconds of one core at 1000 shards.
///
/// # Errors
/// [`crate::Error::TooLarge`].
pub fn blob_id(shards: Shards, blob: &[u8]) -> Result<BlobId> {
    Ok(id_of_root(blob.len() as u64, root(shards, blob)?))
}

/// The Merkle root over all pairs of slivers, the part of the id that depends on the content.
///
/// # Errors
/// [`crate::Error::TooLarge`].
pub fn root(shards: Shards, blob: &[u8]) -> Result<Hash> {
    let symbol = shards.symbol(blob.len() as u64)?;
    let whole = shards.cells() * symbol;
    let padded;
    let source = if blob.len() == whole {
        blob
    } else {
        let mut copy = Vec::with_capacity(whole);
        copy.extend_from_slice(blob);
        copy.resize(whole, 0);
        padded = copy;
        &padded
    };
    let matrix = Matrix { shards, symbol, source, right: extend_rows(shards, symbol, source) };
    let (primary, secondary) = matrix.sliver_roots();
    let n = shards.count();
    let pairs = (0..n).map(|pair| leaf(&[&primary[pair], &secondary[n - 1 - pair]])).collect();
    Ok(tree(pairs, usize::MAX)[0])
}

pub fn id_of_root(length: u64, root: Hash) -> BlobId {
    BlobId(hash(&[&[ENCODING], &length.to_le_bytes(), &root]))
}

/// The rows of a blob with their recovery symbols.
struct Matrix<'a> {
    shards: Shards,
    symbol: usize,
    /// rows x columns symbols, row by row.
    source: &'a [u8],
    /// rows x (n - columns) symbols, row by row.
    right: Vec<u8>,
}

/// Recovery symbols of every row.
fn extend_rows(shards: Shards, symbol: usize, source: &[u8]) -> Vec<u8> {
    let recovered = shards.count() - shards.columns();
    let mut right = vec![0; shards.rows() * recovered * symbol];
    let rows = source.par_chunks_exact(shards.columns() * symbol).zip(right.par_chunks_exact_mut(recovered * symbol));
    rows.for_each_init(
        || encoder(shards.columns(), recovered, symbol),
        |encoder, (row, out)| extend(encoder, row.chunks_exact(symbol), out.chunks_exact_mut(symbol)),
    );
    right
}

fn encoder(originals: usize, recovered: usize, symbol: usize) -> ReedSolomonEncoder {
    ReedSolomonEncoder::new(originals, recovered, symbol)
        .expect("every number of shards that `Shards` lets through, and every even symbol, has a code")
}

/// Encodes `originals`; `encoder` was made for their number and that of `recovered`.
fn extend<'a>(
    encoder: &mut ReedSolomonEncoder,
    originals: impl Iterator<Item = &'a [u8]>,
    recovered: impl Iterator<Item = &'a mut [u8]>,
) {
    for original in originals {
        encoder.add_original_shard(original).expect("as many symbols of the right size as the encoder was made for");
    }
    let result = encoder.encode().expect("all symbols have been added");
    for (out, symbol) in recovered.zip(result.recovery_iter()) {
        out.copy_from_slice(symbol);
    }
}

impl Matrix<'_> {
    /// Roots over the n rows (primary slivers) and over the n columns (secondary slivers) of the extended matrix.
    fn sliver_roots(&self) -> (Vec<Hash>, Vec<Hash>) {
        let n = self.shards.count();
        let mut secondary = Vec::with_capacity(n);
        let mut subtrees = vec![Vec::with_capacity(n.div_ceil(GROUP)); n];
        let levels = if n <= GROUP { usize::MAX } else { GROUP.ilog2() as usize };
        for first in (0..n).step_by(GROUP) {
            let columns: Vec<Vec<Hash>> = (first..n.min(first + GROUP))
                .into_par_iter()
                .map_init(|| Column::new(self), |column, at| column.leaves(self, at))
                .collect();
            secondary.par_extend(columns.par_iter().map(|leaves| tree(leaves.clone(), usize::MAX)[0]));
            subtrees.par_iter_mut().enumerate().for_each(|(row, nodes)| {
                nodes.extend(tree(columns.iter().map(|leaves| leaves[row]).collect(), levels));
            });
        }
        let primary = subtrees.into_par_iter().map(|nodes| tree(nodes, usize::MAX)[0]).collect();
        (primary, secondary)
    }

    fn symbol_at(&self, row: usize, column: usize) -> &[u8] {
        let (cells, width, column) = if column < self.shards.columns() {
            (self.source, self.shards.columns(), column)
        } else {
            (self.right.as_slice(), self.shards.count() - self.shards.columns(), column - self.shards.columns())
        };
        &cells[(row * width + column) * self.symbol..][..self.symbol]
    }

    /// The source symbols of a column of the rows' extension.
    fn column(&self, column: usize) -> impl Iterator<Item = &[u8]> {
        (0..self.shards.rows()).map(move |row| self.symbol_at(row, column))
    }
}

/// What a thread needs to encode columns.
struct Column {
    encoder: ReedSolomonEncoder,
    recovered: Vec<u8>,
}

impl Column {
    fn new(matrix: &Matrix) -> Self {
        let recovered = matrix.shards.count() - matrix.shards.rows();
        Self {
            encoder: encoder(matrix.shards.rows(), recovered, matrix.symbol),
            recovered: vec![0; recovered * matrix.symbol],
        }
    }

    /// Leaf hashes of the n symbols of a column.
    fn leaves(&mut self, matrix: &Matrix, column: usize) -> Vec<Hash> {
        extend(&mut self.encoder, matrix.column(column), self.recovered.chunks_exact_mut(matrix.symbol));
        let all = matrix.column(column).chain(self.recovered.chunks_exact(matrix.symbol));
        all.map(|symbol| leaf(&[symbol])).collect()
    }
}

/// Replaces nodes by their parents, `levels` times or until one is left. A level of odd length gets a node of zeros; so
/// does a single node when levels are left, since the tree that it belongs to goes on beside it.
fn tree(mut nodes: Vec<Hash>, levels: usize) -> Vec<Hash> {
    let mut level = 0;
    while level < levels && (nodes.len() > 1 || levels != usize::MAX) {
        if nodes.len() % 2 == 1 {
            nodes.push([0; 32]);
        }
        nodes = nodes.chunks_exact(2).map(|pair| hash(&[&[1], &pair[0], &pair[1]])).collect();
        level += 1;
    }
    nodes
}

fn leaf(parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2b::<U32>::new();
    hasher.update([0]);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2b::<U32>::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}
