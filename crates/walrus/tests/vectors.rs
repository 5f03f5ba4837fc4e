//! Vectors made with the public JavaScript packages of Walrus; see `about` and `conventions` in vectors.json.

use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use walrus::quilt::{Reader, Tags};
use walrus::{BlobId, Patch, PatchId, Quilt, Shards, blob, price, quilt};

#[derive(Deserialize)]
struct Vectors {
    blobs: Vec<BlobVector>,
    quilts: Vec<QuiltVector>,
}

#[derive(Deserialize)]
struct BlobVector {
    name: String,
    n_shards: u16,
    input_hex: Option<String>,
    input_len: usize,
    symbol_size: usize,
    encoded_length: u64,
    blob_id: String,
    blob_id_hex: String,
    merkle_root_hex: String,
}

#[derive(Deserialize)]
struct QuiltVector {
    name: String,
    n_shards: u16,
    symbol_size: usize,
    quilt_len: usize,
    quilt_sha256: String,
    quilt_hex: Option<String>,
    index_prefix_and_bcs_hex: Option<String>,
    index_prefix_and_bcs_sha256: Option<String>,
    encoded_length: u64,
    blob_id: String,
    /// A list, or text where they follow a rule.
    input_patches: serde_json::Value,
    stored_patches: Vec<StoredPatch>,
    stored_patches_total: Option<usize>,
    all_quilt_patch_ids_joined_by_newline_sha256: Option<String>,
}

#[derive(Deserialize)]
struct InputPatch {
    identifier: String,
    tags: Tags,
    contents_hex: Option<String>,
    contents_len: usize,
}

#[derive(Deserialize)]
struct StoredPatch {
    identifier: String,
    range: (u16, u16),
    #[serde(rename = "quiltPatchId")]
    id: String,
    header_hex: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn contents(hex: Option<&str>, length: usize) -> Vec<u8> {
    let bytes = match hex {
        Some(hex) => HEXLOWER.decode(hex.as_bytes()).unwrap(),
        None => (0..length).map(|i| (7 * i + 13) as u8).collect(),
    };
    assert_eq!(bytes.len(), length);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[test]
fn blobs() {
    let vectors = vectors().blobs;
    assert_eq!(vectors.len(), 17);
    for vector in vectors {
        let shards = Shards::new(vector.n_shards).unwrap();
        let bytes = contents(vector.input_hex.as_deref(), vector.input_len);
        let length = bytes.len() as u64;
        assert_eq!(shards.symbol(length), Ok(vector.symbol_size), "{}", vector.name);
        assert_eq!(price::encoded_length(shards, length), Ok(vector.encoded_length), "{}", vector.name);
        let root = blob::root(shards, &bytes).unwrap();
        assert_eq!(HEXLOWER.encode(&root), vector.merkle_root_hex, "{}", vector.name);
        let id = blob::blob_id(shards, &bytes).unwrap();
        assert_eq!(id.to_string(), vector.blob_id, "{}", vector.name);
        assert_eq!(HEXLOWER.encode(&id.0), vector.blob_id_hex, "{}", vector.name);
        assert_eq!(vector.blob_id.parse::<BlobId>(), Ok(id), "{}", vector.name);
    }
}

fn inputs(vector: &QuiltVector) -> Vec<(String, Tags, Vec<u8>)> {
    if vector.input_patches.is_string() {
        return (0..666).map(|i| (format!("p{i:04}"), Tags::new(), contents(None, i))).collect();
    }
    let patches: Vec<InputPatch> = serde_json::from_value(vector.input_patches.clone()).unwrap();
    let read = |patch: InputPatch| {
        let data = contents(patch.contents_hex.as_deref(), patch.contents_len);
        (patch.identifier, patch.tags, data)
    };
    patches.into_iter().map(read).collect()
}

#[test]
fn quilts() {
    let vectors = vectors().quilts;
    assert_eq!(vectors.len(), 7);
    for vector in vectors {
        let shards = Shards::new(vector.n_shards).unwrap();
        let inputs = inputs(&vector);
        let patches: Vec<Patch> =
            inputs.iter().map(|(identifier, tags, data)| Patch { identifier, tags, data }).collect();
        let made = quilt::encode(shards, &patches).unwrap();
        assert_eq!(made.symbol, vector.symbol_size, "{}", vector.name);
        assert_eq!(made.bytes.len(), vector.quilt_len, "{}", vector.name);
        if let Some(hex) = &vector.quilt_hex {
            assert_eq!(&HEXLOWER.encode(&made.bytes), hex, "{}", vector.name);
        }
        assert_eq!(sha256(&made.bytes), vector.quilt_sha256, "{}", vector.name);
        let length = price::encoded_length(shards, made.bytes.len() as u64);
        assert_eq!(length, Ok(vector.encoded_length), "{}", vector.name);
        let id = blob::blob_id(shards, &made.bytes).unwrap();
        assert_eq!(id.to_string(), vector.blob_id, "{}", vector.name);
        check_index(&vector, shards, &made);
        check_patches(&vector, shards, &made, id, &inputs);
    }
}

/// The index as bytes, read down the columns.
fn check_index(vector: &QuiltVector, shards: Shards, made: &Quilt) {
    let cell = |k: usize| {
        let (q, within) = (k / made.symbol, k % made.symbol);
        let (column, row) = (q / shards.rows(), q % shards.rows());
        made.bytes[(row * shards.columns() + column) * made.symbol + within]
    };
    let length = u32::from_le_bytes([cell(1), cell(2), cell(3), cell(4)]) as usize;
    let index: Vec<u8> = (0..5 + length).map(cell).collect();
    if let Some(hex) = &vector.index_prefix_and_bcs_hex {
        assert_eq!(&HEXLOWER.encode(&index), hex, "{}", vector.name);
    }
    if let Some(hash) = &vector.index_prefix_and_bcs_sha256 {
        assert_eq!(&sha256(&index), hash, "{}", vector.name);
    }
}

fn check_patches(vector: &QuiltVector, shards: Shards, made: &Quilt, id: BlobId, inputs: &[(String, Tags, Vec<u8>)]) {
    let total = vector.stored_patches_total.unwrap_or(vector.stored_patches.len());
    assert_eq!(made.patches.len(), total, "{}", vector.name);
    for expected in &vector.stored_patches {
        let placed = made.patches.iter().find(|placed| placed.identifier == expected.identifier).unwrap();
        assert_eq!((placed.start, placed.end), expected.range, "{} {}", vector.name, placed.identifier);
        assert_eq!(placed.id(id).to_string(), expected.id, "{} {}", vector.name, placed.identifier);
        assert_eq!(expected.id.parse::<PatchId>(), Ok(placed.id(id)));
        let input = inputs.iter().find(|input| input.0 == placed.identifier).unwrap();
        let size = quilt::patch_size(&input.0, &input.1, input.2.len() as u64) as u32 - 6;
        let mask = u8::from(!input.1.is_empty());
        let header = [&[1][..], &size.to_le_bytes(), &[mask]].concat();
        assert_eq!(HEXLOWER.encode(&header), expected.header_hex, "{} {}", vector.name, placed.identifier);
    }
    if let Some(hash) = &vector.all_quilt_patch_ids_joined_by_newline_sha256 {
        let ids: Vec<String> = made.patches.iter().map(|placed| placed.id(id).to_string()).collect();
        assert_eq!(&sha256(ids.join("\n").as_bytes()), hash, "{}", vector.name);
    }
    let reader = Reader::new(shards, &made.bytes).unwrap();
    assert_eq!(reader.patches().unwrap(), made.patches, "{}", vector.name);
    for placed in &made.patches {
        let input = inputs.iter().find(|input| input.0 == placed.identifier).unwrap();
        assert_eq!(&reader.patch(placed.start).unwrap(), input, "{}", vector.name);
    }
}
