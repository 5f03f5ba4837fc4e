//! Entry points for a fuzzer: each takes any bytes and panics if a decoder breaks a promise.
//!
//! The promises: an answer, not a panic; no more of anything than the bytes have room for; and one form only, so what
//! is taken is encoded as the same bytes again.

use crate::{
    Centroid, GraphElement, GraphEncoder, GraphHeader, Kind, ListElement, ListsEncoder, ListsHeader, Manifest,
    RowsDecoder, RowsEncoder, VectorsEncoder, decode_centroids, decode_graph, decode_lists, decode_tombstones,
    decode_vectors, encode_centroids, encode_tombstones, frame,
};

/// A number at the front of the data, and the rest.
fn number(data: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = data.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// Chunks of a graph. The data: elements, m, and the chunk.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_graph(data: &[u8]) {
    let Some((elements, data)) = number(data) else { return };
    let Some((m, chunk)) = number(data) else { return };
    let header = GraphHeader { elements, m: m as u16, entry: (elements > 0).then_some(0) };
    let first = number(chunk).map_or(0, |(first, _)| first);
    let (mut all, mut room) = (Vec::new(), 0);
    let result = decode_graph(&header, first, chunk, &mut |ordinal, element| {
        assert!(ordinal < elements);
        assert!(element.neighbors.iter().flatten().all(|&neighbor| neighbor < elements));
        room += 16 * element.rows.len() + element.neighbors.iter().map(|list| list.len() / 8).sum::<usize>();
        all.push(element);
        Ok(())
    });
    assert!(room <= chunk.len());
    if let (Ok(count), 0) = (result, first)
        && count == elements
        && all.iter().all(|element: &GraphElement| element.rows.len() <= crate::ROWS_A_PUSH)
    {
        let mut encoder = GraphEncoder::new(header).expect("a header that was decoded with");
        let mut again: Vec<u8> =
            all.iter().filter_map(|element| encoder.push(element).expect("it fits")).flatten().collect();
        again.extend(encoder.finish().expect("all came").unwrap_or_default());
        assert!(elements == 0 || again == chunk, "a graph has two forms");
    }
}

/// Chunks of lists. The data: elements, lists, and the chunk.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_lists(data: &[u8]) {
    let Some((elements, data)) = number(data) else { return };
    let Some((lists, chunk)) = number(data) else { return };
    let header = ListsHeader { elements, lists, dimensions: 1 };
    let first = number(chunk).map_or(0, |(first, _)| first);
    let (mut all, mut room) = (Vec::new(), 0);
    let result = decode_lists(&header, first, chunk, &mut |ordinal, element| {
        assert!(ordinal < elements);
        assert!(element.further || (element.list < lists && element.second.is_none_or(|list| list < lists)));
        room += 16 * element.rows.len() + usize::from(!element.further);
        all.push(element);
        Ok(())
    });
    assert!(room <= chunk.len());
    if let (Ok(count), 0) = (result, first)
        && count == elements
        && all.iter().all(|element: &ListElement| element.rows.len() <= crate::ROWS_A_PUSH)
    {
        let mut encoder = ListsEncoder::new(header).expect("a header that was decoded with");
        let mut again: Vec<u8> =
            all.iter().filter_map(|element| encoder.push(element).expect("it fits")).flatten().collect();
        again.extend(encoder.finish().expect("all came").unwrap_or_default());
        assert!(elements == 0 || again == chunk, "lists have two forms");
    }
}

/// Chunks of centroids. The data: lists, dimensions, and the chunk.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_centroids(data: &[u8]) {
    let Some((lists, data)) = number(data) else { return };
    let Some((dimensions, chunk)) = number(data) else { return };
    let header = ListsHeader { elements: 0, lists, dimensions: dimensions as u16 };
    let mut all: Vec<Centroid> = Vec::new();
    let result = decode_centroids(&header, 0, chunk, &mut |_, centroid| {
        all.push(centroid);
        Ok(())
    });
    assert!(all.iter().map(|centroid| 8 + centroid.code.len()).sum::<usize>() <= chunk.len());
    if result == Ok(lists) {
        assert_eq!(encode_centroids(&header, all).expect("they fit").concat(), chunk, "centroids have two forms");
    }
}

/// Chunks of tombstones. The data: elements and the chunk.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_tombstones(data: &[u8]) {
    let Some((elements, chunk)) = number(data) else { return };
    let mut all = Vec::new();
    let result = decode_tombstones(elements, 0, chunk, &mut |ordinal| {
        all.push(ordinal);
        Ok(())
    });
    assert!(all.len() <= chunk.len());
    if result.is_ok() {
        assert_eq!(encode_tombstones(elements, all).expect("they fit").concat(), chunk, "tombstones have two forms");
    }
}

/// Chunks of vectors. The data: dimensions and the chunk.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_vectors(data: &[u8]) {
    let Some((dimensions, chunk)) = number(data) else { return };
    let dimensions = dimensions as u16;
    let mut all: Vec<Vec<f32>> = Vec::new();
    let result = decode_vectors(dimensions, 0, chunk, &mut |_, vector| {
        all.push(vector.to_vec());
        Ok(())
    });
    assert!(4 * all.iter().map(Vec::len).sum::<usize>() <= chunk.len());
    if result.is_ok() {
        let mut encoder = VectorsEncoder::new(dimensions).expect("dimensions that were decoded with");
        let mut again: Vec<u8> =
            all.iter().filter_map(|vector| encoder.push(vector).expect("it fits")).flatten().collect();
        again.extend(encoder.finish().unwrap_or_default());
        assert_eq!(again, chunk, "vectors have two forms");
    }
}

/// Chunks of rows, two halves of the data one after the other.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_rows(data: &[u8]) {
    let (mut decoder, mut encoder) = (RowsDecoder::new(), RowsEncoder::new());
    let (one, two) = data.split_at(data.len() / 2);
    for chunk in [one, two] {
        let Ok(rows) = decoder.chunk(chunk) else { return };
        assert_eq!(rows.text.iter().filter(|&&byte| byte == b'\n').count(), rows.lines as usize);
        assert_eq!(encoder.chunk(rows.text).expect("it was decoded"), chunk, "rows have two forms");
    }
}

/// Frames of every kind.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_frame(data: &[u8]) {
    let peeked = crate::peek(data);
    for kind in Kind::ALL {
        if let Ok(raw) = frame::open(data, kind, None) {
            assert!(raw.len() <= kind.largest_raw());
            assert!(peeked.as_ref().is_ok_and(|peeked| peeked.kind == kind && peeked.raw_length == raw.len() as u64));
        }
    }
}

/// Manifests in CBOR.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz_manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        assert_eq!(manifest.encode().expect("it was decoded"), data, "a manifest has two forms");
    }
}
