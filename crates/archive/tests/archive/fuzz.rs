//! Drives the fuzz entry points from a fixed generator: noise, and valid input with a few bytes changed, cut, or
//! repeated.

use crate::data::{Random, archive, centroids, graph, graph_chunks, lists, lists_chunks, vectors};
use archive::fuzz::{
    fuzz_centroids, fuzz_frame, fuzz_graph, fuzz_lists, fuzz_manifest, fuzz_rows, fuzz_tombstones, fuzz_vectors,
};
use archive::{RowsEncoder, encode_centroids, encode_tombstones};

const CASES: usize = 6000;

/// Bytes that are likely to matter: ends of varints and of CBOR heads.
const EDGES: [u8; 12] = [0, 1, 0x17, 0x18, 0x1b, 0x3b, 0x5f, 0x7f, 0x80, 0xbf, 0xfe, 0xff];

fn changed(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u32) as usize;
        match random.below(6) {
            0 => bytes[at] = EDGES[random.below(12) as usize],
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at + 1),
            3 => bytes.insert(at, EDGES[random.below(12) as usize]),
            4 if bytes.len() > 1 => _ = bytes.remove(at),
            _ => {
                let part = bytes[at..(at + 9).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Noise after the numbers that a target wants first, and changed forms of `seeds`.
fn drive(seed: u64, seeds: &[Vec<u8>], target: fn(&[u8])) {
    let mut random = Random(seed);
    seeds.iter().for_each(|seed| target(seed));
    for case in 0..CASES {
        let len = random.below(60) as usize;
        target(&random.bytes(len));
        let seed = &seeds[case % seeds.len()];
        target(&changed(&mut random, seed));
    }
}

fn with_numbers(numbers: &[u32], chunk: &[u8]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).chain(chunk.iter().copied()).collect()
}

#[test]
fn graphs_keep_their_promises() {
    let seeds = [(1, 1), (3, 2), (40, 4)].map(|(elements, m)| {
        let (header, all) = graph(elements, m, u64::from(elements));
        with_numbers(&[elements, u32::from(m)], &graph_chunks(header, &all)[0])
    });
    drive(1, &seeds, fuzz_graph);
}

#[test]
fn lists_keep_their_promises() {
    let seeds = [(1, 1), (3, 2), (40, 9)].map(|(elements, count)| {
        let (header, all) = lists(elements, count, u64::from(elements));
        with_numbers(&[elements, count], &lists_chunks(header, &all)[0])
    });
    drive(2, &seeds, fuzz_lists);
}

#[test]
fn centroids_keep_their_promises() {
    let (header, _) = lists(1, 3, 1);
    let chunk = encode_centroids(&header, centroids(&header, 1)).unwrap().remove(0);
    drive(3, &[with_numbers(&[3, 5], &chunk)], fuzz_centroids);
}

#[test]
fn tombstones_keep_their_promises() {
    let chunk = encode_tombstones(1000, [0, 5, 300, 999]).unwrap().remove(0);
    drive(4, &[with_numbers(&[1000], &chunk)], fuzz_tombstones);
}

#[test]
fn vectors_keep_their_promises() {
    drive(5, &[with_numbers(&[4], &vectors(3, 4)[0]), with_numbers(&[1], &vectors(1, 1)[0])], fuzz_vectors);
}

#[test]
fn rows_keep_their_promises() {
    let ends_within = [&[2, 0, 0, 0, 1, 0, 0, 0][..], b"one\ntw"].concat();
    let goes_on = [&[1, 0, 0, 0, 1, 0, 0, 0][..], b"o\n\n..."].concat();
    assert_eq!(ends_within.len(), goes_on.len());
    drive(
        6,
        &[RowsEncoder::new().chunk(b"one\n\nthree\n").unwrap().repeat(2), [ends_within, goes_on].concat()],
        fuzz_rows,
    );
}

#[test]
fn frames_keep_their_promises() {
    let (manifest, objects) = archive(None);
    let mut seeds: Vec<_> = objects.into_iter().map(|object| object.bytes).collect();
    seeds.push(manifest.pack(None).unwrap().bytes);
    drive(7, &seeds, fuzz_frame);
}

#[test]
fn manifests_keep_their_promises() {
    drive(8, &[archive(None).0.encode().unwrap()], fuzz_manifest);
}
