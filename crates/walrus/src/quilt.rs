//! QuiltV1: many patches in one blob.
//!
//! The blob's matrix is filled down its columns: the index from column 0, then each patch from the next free column, in
//! the order of their identifiers' bytes. The stored bytes are the matrix row by row.
//!
//! ```text
//! index  0x01, u32 length, BCS: count, then for each patch u16 end column, string identifier, map of tags
//! patch  0x01, u32 length of all that follows the mask, u8 mask (bit 0: has tags),
//!        u16 length, string identifier, [u16 length, map of tags,] data
//! ```
//! Integers are little-endian; counts and string lengths of BCS are ULEB128; entries of a map are ordered by the bytes of
//! their encoded keys, so shorter keys come first.

use crate::{BlobId, Error, LARGEST_SYMBOL, PatchId, Result, Shards};
use std::collections::{BTreeMap, BTreeSet};

/// Tags of a patch, by name.
pub type Tags = BTreeMap<String, String>;

const VERSION: u8 = 1;
/// Version and length of the index.
const INDEX_PREFIX: usize = 5;
/// Version, length, mask.
const PATCH_HEADER: usize = 6;
const HAS_TAGS: u8 = 1;
/// Columns that the index may span.
const INDEX_COLUMNS: usize = 10;
/// Bytes of the longest identifier: its encoding has a length of two bytes.
const LONGEST_IDENTIFIER: usize = 65_531;

/// A patch to be put into a quilt.
#[derive(Clone, Debug)]
pub struct Patch<'a> {
    pub identifier: &'a str,
    pub tags: &'a Tags,
    pub data: &'a [u8],
}

/// Where a patch lies in a quilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub identifier: String,
    pub tags: Tags,
    /// Columns `start..end`.
    pub start: u16,
    pub end: u16,
}

impl Placed {
    pub fn id(&self, quilt: BlobId) -> PatchId {
        PatchId { quilt, start: self.start, end: self.end }
    }
}

/// A quilt: its bytes, a multiple of the matrix, and its patches in stored order.
#[derive(Clone, Debug)]
pub struct Quilt {
    pub bytes: Vec<u8>,
    pub symbol: usize,
    pub patches: Vec<Placed>,
}

/// Bytes that a patch takes in its columns.
pub fn patch_size(identifier: &str, tags: &Tags, data: u64) -> u64 {
    let tags = if tags.is_empty() { 0 } else { 2 + map_length(tags) as u64 };
    (PATCH_HEADER + 2 + string_length(identifier)) as u64 + tags + data
}

/// Bytes that a patch takes in the index.
pub fn index_entry_size(identifier: &str, tags: &Tags) -> usize {
    2 + string_length(identifier) + map_length(tags)
}

/// Bytes of an index of so many patches whose entries take `entries` bytes together.
pub fn index_size(patches: usize, entries: usize) -> u64 {
    (INDEX_PREFIX + uleb_length(patches) + entries) as u64
}

/// Bytes of a symbol of a quilt with an index of `index` bytes and patches of `sizes` bytes; `None` if there is no such
/// quilt: no patch, more than columns, or more bytes than a blob has.
pub fn symbol(shards: Shards, index: u64, sizes: &[u64]) -> Option<usize> {
    if sizes.is_empty() || sizes.len() > shards.most_patches() {
        return None;
    }
    let rows = shards.rows() as u64;
    let fits = |symbol: u64| {
        let column = rows * symbol;
        let mut left = (shards.columns() as u64).checked_sub(index.div_ceil(column));
        for size in sizes {
            left = left.and_then(|left| left.checked_sub(size.div_ceil(column)));
        }
        left.is_some()
    };
    let least = index.div_ceil(INDEX_COLUMNS as u64 * rows).max((INDEX_PREFIX as u64).div_ceil(rows)).max(1);
    let total = sizes.iter().fold(index, |sum, size| sum.saturating_add(*size));
    let (mut low, mut high) = (least.max(total.div_ceil(shards.cells() as u64)), LARGEST_SYMBOL as u64);
    if low > high || !fits(high) {
        return None;
    }
    while low < high {
        let middle = low.midpoint(high);
        if fits(middle) { high = middle } else { low = middle + 1 }
    }
    Some(low.next_multiple_of(2) as usize)
}

/// Makes a quilt; the order of `patches` does not matter.
///
/// # Errors
/// [`Error::Patches`], [`Error::Identifier`], [`Error::Tags`], [`Error::TooLarge`].
pub fn encode(shards: Shards, patches: &[Patch]) -> Result<Quilt> {
    let patches = in_order(patches)?;
    let most = shards.most_patches();
    if patches.is_empty() || patches.len() > most {
        return Err(Error::Patches { count: patches.len(), most });
    }
    let entries = patches.iter().map(|patch| index_entry_size(patch.identifier, patch.tags)).sum();
    let index_size = index_size(patches.len(), entries);
    let sizes: Vec<u64> =
        patches.iter().map(|patch| patch_size(patch.identifier, patch.tags, patch.data.len() as u64)).collect();
    let length = sizes.iter().fold(index_size, |sum, size| sum.saturating_add(*size));
    let too_large = Error::TooLarge { length, most: shards.longest_blob() };
    if sizes.iter().any(|size| u32::try_from(*size).is_err()) {
        return Err(too_large);
    }
    let symbol = symbol(shards, index_size, &sizes).ok_or(too_large)?;
    let column = (shards.rows() * symbol) as u64;
    let mut next = index_size.div_ceil(column) as u16;
    let mut placed = Vec::with_capacity(patches.len());
    for (patch, size) in patches.iter().zip(&sizes) {
        let end = next + size.div_ceil(column) as u16;
        let identifier = patch.identifier.to_string();
        placed.push(Placed { identifier, tags: patch.tags.clone(), start: next, end });
        next = end;
    }
    let mut cells = Cells::new(shards, symbol);
    cells.write(0, &[&index_bytes(&placed)]);
    for (patch, place) in patches.iter().zip(&placed) {
        cells.write(usize::from(place.start), &[&patch_head(patch), patch.data]);
    }
    Ok(Quilt { bytes: cells.bytes, symbol, patches: placed })
}

/// Sorted by identifier, and checked.
fn in_order<'a, 'b>(patches: &'b [Patch<'a>]) -> Result<Vec<&'b Patch<'a>>> {
    let mut seen = BTreeSet::new();
    for patch in patches {
        check_identifier(patch.identifier)?;
        if !seen.insert(patch.identifier) {
            return Err(wrong(patch.identifier, "it occurs twice"));
        }
        if map_length(patch.tags) > usize::from(u16::MAX) {
            return Err(Error::Tags { identifier: patch.identifier.to_string() });
        }
    }
    let mut order: Vec<&Patch> = patches.iter().collect();
    order.sort_by_key(|patch| patch.identifier.as_bytes());
    Ok(order)
}

/// What a publisher accepts.
///
/// # Errors
/// [`Error::Identifier`].
pub fn check_identifier(identifier: &str) -> Result<()> {
    if identifier.is_empty() {
        return Err(wrong(identifier, "it is empty"));
    }
    if identifier.len() > LONGEST_IDENTIFIER {
        return Err(wrong(&identifier[..identifier.floor_char_boundary(40)], "it is too long"));
    }
    if identifier.chars().any(char::is_control) {
        return Err(wrong(identifier, "it has a control character"));
    }
    if identifier.ends_with(char::is_whitespace) {
        return Err(wrong(identifier, "it ends with a space"));
    }
    Ok(())
}

fn wrong(identifier: &str, why: &'static str) -> Error {
    Error::Identifier { identifier: identifier.to_string(), why }
}

fn index_bytes(placed: &[Placed]) -> Vec<u8> {
    let mut bcs = Vec::new();
    put_uleb(&mut bcs, placed.len());
    for place in placed {
        bcs.extend_from_slice(&place.end.to_le_bytes());
        put_string(&mut bcs, &place.identifier);
        put_map(&mut bcs, &place.tags);
    }
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&(bcs.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&bcs);
    bytes
}

/// All of a patch but its data.
fn patch_head(patch: &Patch) -> Vec<u8> {
    let size = patch_size(patch.identifier, patch.tags, patch.data.len() as u64);
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&((size as usize - PATCH_HEADER) as u32).to_le_bytes());
    bytes.push(if patch.tags.is_empty() { 0 } else { HAS_TAGS });
    bytes.extend_from_slice(&(string_length(patch.identifier) as u16).to_le_bytes());
    put_string(&mut bytes, patch.identifier);
    if !patch.tags.is_empty() {
        bytes.extend_from_slice(&(map_length(patch.tags) as u16).to_le_bytes());
        put_map(&mut bytes, patch.tags);
    }
    bytes
}

/// A matrix that is written down its columns.
struct Cells {
    rows: usize,
    columns: usize,
    symbol: usize,
    bytes: Vec<u8>,
}

impl Cells {
    fn new(shards: Shards, symbol: usize) -> Self {
        let bytes = vec![0; shards.cells() * symbol];
        Self { rows: shards.rows(), columns: shards.columns(), symbol, bytes }
    }

    /// Writes `parts` one after the other, from the top of `column`. They must fit.
    fn write(&mut self, column: usize, parts: &[&[u8]]) {
        let mut position = column * self.rows * self.symbol;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let (cell, within) = (position / self.symbol, position % self.symbol);
                let (column, row) = (cell / self.rows, cell % self.rows);
                let length = rest.len().min(self.symbol - within);
                let at = (row * self.columns + column) * self.symbol + within;
                self.bytes[at..at + length].copy_from_slice(&rest[..length]);
                rest = &rest[length..];
                position += length;
            }
        }
    }
}

/// Reads quilts, well-formed or not.
pub struct Reader<'a> {
    rows: usize,
    columns: usize,
    symbol: usize,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// # Errors
    /// [`Error::NotAQuilt`] if the length is none of a quilt's.
    pub fn new(shards: Shards, bytes: &'a [u8]) -> Result<Self> {
        let symbol = bytes.len() / shards.cells();
        if symbol == 0 || symbol > LARGEST_SYMBOL || symbol * shards.cells() != bytes.len() {
            return Err(Error::NotAQuilt("its length does not fit the matrix"));
        }
        Ok(Self { rows: shards.rows(), columns: shards.columns(), symbol, bytes })
    }

    /// `length` bytes from `offset` bytes below the top of `column`.
    fn read(&self, column: usize, offset: usize, length: usize) -> Result<Vec<u8>> {
        let capacity = self.rows * self.symbol;
        let mut position = column * capacity + offset;
        if column >= self.columns || length > self.columns * capacity || position + length > self.columns * capacity {
            return Err(Error::NotAQuilt("it says that something ends after its last column"));
        }
        let mut out = Vec::with_capacity(length);
        while out.len() < length {
            let (cell, within) = (position / self.symbol, position % self.symbol);
            let (column, row) = (cell / self.rows, cell % self.rows);
            let part = (length - out.len()).min(self.symbol - within);
            let at = (row * self.columns + column) * self.symbol + within;
            out.extend_from_slice(&self.bytes[at..at + part]);
            position += part;
        }
        Ok(out)
    }

    /// The patches, in stored order.
    ///
    /// # Errors
    /// [`Error::NotAQuilt`].
    pub fn patches(&self) -> Result<Vec<Placed>> {
        let prefix = self.read(0, 0, INDEX_PREFIX)?;
        if prefix[0] != VERSION {
            return Err(Error::NotAQuilt("its version is unknown"));
        }
        let length = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let capacity = self.rows * self.symbol;
        if length > INDEX_COLUMNS * capacity {
            return Err(Error::NotAQuilt("its index is too long"));
        }
        let bcs = self.read(0, INDEX_PREFIX, length)?;
        let mut input = Input { bytes: &bcs };
        let count = input.uleb()?;
        let mut start = (INDEX_PREFIX + length).div_ceil(capacity) as u16;
        let mut patches = Vec::new();
        for _ in 0..count {
            let end = u16::from_le_bytes(input.array()?);
            if end < start || usize::from(end) > self.columns {
                return Err(Error::NotAQuilt("its columns are not in order"));
            }
            let identifier = input.string()?;
            patches.push(Placed { identifier, tags: input.map()?, start, end });
            start = end;
        }
        Ok(patches)
    }

    /// Identifier, tags and data of the patch whose first column is `start`.
    ///
    /// # Errors
    /// [`Error::NotAQuilt`] if no patch begins there.
    pub fn patch(&self, start: u16) -> Result<(String, Tags, Vec<u8>)> {
        let header = self.read(usize::from(start), 0, PATCH_HEADER)?;
        if header[0] != VERSION {
            return Err(Error::NotAQuilt("no patch begins in this column"));
        }
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let bytes = self.read(usize::from(start), PATCH_HEADER, length)?;
        let mut input = Input { bytes: &bytes };
        input.array::<2>()?;
        let identifier = input.string()?;
        let mut tags = Tags::new();
        if header[5] & HAS_TAGS != 0 {
            input.array::<2>()?;
            tags = input.map()?;
        }
        Ok((identifier, tags, input.bytes.to_vec()))
    }
}

/// Bytes that are read as BCS.
struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(Error::NotAQuilt("it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn uleb(&mut self) -> Result<usize> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value)
                    .map(|value| value as usize)
                    .map_err(|_| Error::NotAQuilt("a length is wrong"));
            }
        }
        Err(Error::NotAQuilt("a length is wrong"))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.uleb()?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::NotAQuilt("a text is not UTF-8"))
    }

    fn map(&mut self) -> Result<Tags> {
        let count = self.uleb()?;
        let mut map = Tags::new();
        for _ in 0..count {
            let key = self.string()?;
            map.insert(key, self.string()?);
        }
        Ok(map)
    }
}

fn uleb_length(value: usize) -> usize {
    (value.max(1).ilog2() / 7 + 1) as usize
}

fn string_length(text: &str) -> usize {
    uleb_length(text.len()) + text.len()
}

fn map_length(map: &Tags) -> usize {
    let entries: usize = map.iter().map(|(key, value)| string_length(key) + string_length(value)).sum();
    uleb_length(map.len()) + entries
}

fn put_uleb(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_uleb(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_map(out: &mut Vec<u8>, map: &Tags) {
    put_uleb(out, map.len());
    let encoded = |key: &str| {
        let mut bytes = Vec::new();
        put_string(&mut bytes, key);
        bytes
    };
    let mut entries: Vec<(Vec<u8>, &String)> = map.iter().map(|(key, value)| (encoded(key), value)).collect();
    entries.sort();
    for (key, value) in entries {
        out.extend_from_slice(&key);
        put_string(out, value);
    }
}
