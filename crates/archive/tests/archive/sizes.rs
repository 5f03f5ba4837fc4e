//! How many bytes a row takes, at worst: random neighbors, as many as allowed, and random fingerprints.

use crate::data::{Random, full_element};
use archive::{
    Centroid, GraphEncoder, GraphHeader, Kind, ListElement, ListsEncoder, ListsHeader, encode_centroids, pack,
};

/// Stored bytes of a chunk for each of its elements.
fn bytes_a_row(kind: Kind, chunk: &[u8], elements: f64) -> f64 {
    pack(kind, chunk, None).unwrap().bytes.len() as f64 / elements
}

/// Of the first chunks of a graph with so many elements, all with 32 neighbors at level 0 and 16 above.
fn graph(elements: u32) -> f64 {
    let header = GraphHeader { elements, m: 16, entry: Some(0) };
    let (mut random, mut encoder) = (Random(u64::from(elements)), GraphEncoder::new(header).unwrap());
    let (mut most, mut chunks, mut before) = (0f64, 0, 0);
    for pushed in 1..=100_000u32 {
        if let Some(chunk) = encoder.push(&full_element(&mut random, &header)).unwrap() {
            most = most.max(bytes_a_row(Kind::Graph, &chunk, f64::from(pushed - before)));
            (before, chunks) = (pushed, chunks + 1);
        }
    }
    assert!(chunks >= 2);
    most
}

#[test]
fn graphs_take_at_most_120_bytes_a_row() {
    let sizes = [200_000, 10_000_000].map(graph);
    println!("bytes a row of a full graph of 200,000 and of 10,000,000 elements: {sizes:.1?}");
    assert!(sizes[0] <= 96.0 && sizes[1] <= 120.0, "{sizes:?}");
}

/// All of an IVF segment with as many lists as are made for so many rows, with every second list filled in.
fn lists(elements: u32, lists: u32, dimensions: u16) -> f64 {
    let header = ListsHeader { elements, lists, dimensions };
    let (mut random, mut encoder) = (Random(u64::from(elements)), ListsEncoder::new(header).unwrap());
    let centroids =
        (0..lists).map(|_| Centroid { scale: 0.001, offset: -0.1, code: random.bytes(usize::from(dimensions)) });
    let chunks = encode_centroids(&header, centroids).unwrap();
    let mut bytes: f64 = chunks.iter().map(|chunk| bytes_a_row(Kind::Centroids, chunk, 1.0)).sum();
    for i in 0..elements {
        let list = (u64::from(i) * u64::from(lists) / u64::from(elements)) as u32;
        let element =
            ListElement { list, second: Some(random.below(lists)), rows: vec![random.fingerprint()], further: false };
        bytes += encoder.push(&element).unwrap().map_or(0.0, |chunk| bytes_a_row(Kind::Lists, &chunk, 1.0));
    }
    bytes += encoder.finish().unwrap().map_or(0.0, |chunk| bytes_a_row(Kind::Lists, &chunk, 1.0));
    bytes / f64::from(elements)
}

#[test]
fn lists_take_at_most_24_bytes_a_row() {
    // About twice the square root of the rows, as the index makes them.
    let sizes =
        [(200_000, 894, 384), (1_000_000, 2000, 1536)].map(|(rows, count, dimensions)| lists(rows, count, dimensions));
    println!("bytes a row of lists of 200,000 x 384 and of 1,000,000 x 1536: {sizes:.1?}");
    assert!(sizes.iter().all(|&size| size <= 24.0), "{sizes:?}");
}

/// What the document says of the largest archive.
#[test]
fn an_object_takes_about_120_bytes_of_a_manifest() {
    let ((mut manifest, _), mut random) = (crate::data::archive(None), Random(1));
    let row = manifest.rows.remove(0);
    let size = |manifest: &archive::Manifest| manifest.pack(None).unwrap().bytes.len() as f64;
    let before = size(&manifest);
    manifest.rows = (0..20_000u32)
        .map(|i| {
            let mut row = row.clone();
            [row.object.content, row.object.stored] = [(); 2].map(|()| std::array::from_fn(|_| random.next() as u8));
            row.object.name = archive::object_name(Kind::Rows, &row.object.stored);
            row.object.locator = format!("./{}", row.object.name);
            row.object.stored_length = 1_500_000 + u64::from(random.below(500_000));
            row.object.raw_length = 3_000_000 + u64::from(random.below(1_000_000));
            (row.rows, row.blocks) = (5000 + u64::from(random.below(500)), (400 * i, 400 * i + 399));
            row
        })
        .collect();
    let each = (size(&manifest) - before) / 20_000.0;
    println!("bytes of a manifest for each object: {each:.1}");
    assert!((100.0..125.0).contains(&each), "{each}");
}
