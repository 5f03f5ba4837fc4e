//! What goes into chunks of structure comes out, and what does not belong there is refused.

use crate::data::{Random, centroids, full_element, graph, graph_chunks, lists, lists_chunks, vectors};
use archive::{
    CHUNK_BYTES, Error, GraphElement, GraphEncoder, GraphHeader, LARGEST_RAW, ListElement, ListsEncoder, ListsHeader,
    ROWS_A_PUSH, Result, decode_centroids, decode_graph, decode_lists, decode_tombstones, decode_vectors,
    encode_centroids, encode_tombstones,
};
use proptest::prelude::*;

fn read_graph(header: &GraphHeader, chunks: &[Vec<u8>]) -> Result<Vec<GraphElement>> {
    let (mut all, mut first) = (Vec::<GraphElement>::new(), 0);
    for chunk in chunks {
        assert!(chunk.len() <= LARGEST_RAW);
        first += decode_graph(header, first, chunk, &mut |ordinal, element| {
            if element.neighbors.is_empty() {
                assert_eq!(ordinal as usize + 1, all.len());
                all.last_mut().unwrap().rows.extend(element.rows);
            } else {
                assert_eq!(ordinal as usize, all.len());
                all.push(element);
            }
            Ok(())
        })?;
    }
    Ok(all)
}

fn read_lists(header: &ListsHeader, chunks: &[Vec<u8>]) -> Result<Vec<ListElement>> {
    let (mut all, mut first) = (Vec::<ListElement>::new(), 0);
    for chunk in chunks {
        assert!(chunk.len() <= LARGEST_RAW);
        first += decode_lists(header, first, chunk, &mut |ordinal, element| {
            if element.further {
                assert_eq!(ordinal as usize + 1, all.len());
                all.last_mut().unwrap().rows.extend(element.rows);
            } else {
                assert_eq!(ordinal as usize, all.len());
                all.push(element);
            }
            Ok(())
        })?;
    }
    Ok(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn graphs_come_back(elements in 0u32..200, m in 1u16..=100, seed: u64) {
        let (header, all) = graph(elements, m, seed);
        let chunks = graph_chunks(header, &all);
        prop_assert_eq!(&chunks, &graph_chunks(header, &all));
        prop_assert_eq!(read_graph(&header, &chunks).unwrap(), all);
    }

    #[test]
    fn lists_come_back(elements in 0u32..300, count in 1u32..400, seed: u64) {
        let (header, all) = lists(elements, count, seed);
        let chunks = lists_chunks(header, &all);
        prop_assert_eq!(read_lists(&header, &chunks).unwrap(), all);
    }

    #[test]
    fn centroids_come_back(count in 1u32..40, dimensions in 1u16..50, seed: u64) {
        let header = ListsHeader { elements: 0, lists: count, dimensions };
        let all = centroids(&header, seed);
        let chunks = encode_centroids(&header, all.clone()).unwrap();
        let mut again = Vec::new();
        decode_centroids(&header, 0, &chunks[0], &mut |list, centroid| {
            assert_eq!(list as usize, again.len());
            again.push(centroid);
            Ok(())
        }).unwrap();
        prop_assert_eq!(again, all);
    }

    #[test]
    fn tombstones_come_back(ordinals in proptest::collection::btree_set(0u32..5000, 0..200)) {
        let chunks = encode_tombstones(5000, ordinals.iter().copied()).unwrap();
        let mut again = Vec::new();
        let mut push = |ordinal| { again.push(ordinal); Ok(()) };
        chunks.iter().fold(0, |least, chunk| decode_tombstones(5000, least, chunk, &mut push).unwrap());
        prop_assert!(ordinals.into_iter().eq(again));
    }
}

#[test]
fn long_graphs_take_several_chunks() {
    let header = GraphHeader { elements: 90_000, m: 16, entry: Some(0) };
    let mut random = Random(5);
    let all: Vec<_> = (0..header.elements).map(|_| full_element(&mut random, &header)).collect();
    let chunks = graph_chunks(header, &all);
    assert!(chunks.len() > 1);
    let first = chunks.split_last().unwrap().1;
    assert!(first.iter().all(|chunk| (CHUNK_BYTES..CHUNK_BYTES + 4096).contains(&chunk.len())));
    assert_eq!(read_graph(&header, &chunks).unwrap(), all);

    let error = read_graph(&header, &chunks[1..]).unwrap_err().of("graph-x.bin").to_string();
    assert!(error.starts_with("object \"graph-x.bin\" is damaged: it begins with element "), "{error}");
}

#[test]
fn an_element_may_have_more_rows_than_a_chunk() {
    let mut random = Random(6);
    let rows: Vec<_> = (0..700_000).map(|_| random.fingerprint()).collect();
    let (head, pieces) = rows.split_at(ROWS_A_PUSH);
    let last = random.fingerprint();

    let header = GraphHeader { elements: 2, m: 4, entry: Some(1) };
    let mut encoder = GraphEncoder::new(header).unwrap();
    let mut chunks = Vec::new();
    let whole = GraphElement { level: 0, rows: head.to_vec(), neighbors: vec![vec![1]] };
    let more = |rows: &[_]| GraphElement { rows: rows.to_vec(), ..Default::default() };
    let end = GraphElement { level: 0, rows: vec![last], neighbors: vec![vec![]] };
    let pushes = std::iter::once(whole).chain(pieces.chunks(50_000).map(more)).chain([end]);
    pushes.for_each(|element| chunks.extend(encoder.push(&element).unwrap()));
    chunks.extend(encoder.finish().unwrap());
    assert!(chunks.len() >= 3);
    let all = read_graph(&header, &chunks).unwrap();
    assert_eq!((&all[0].rows, &all[1].rows), (&rows, &vec![last]));

    let header = ListsHeader { elements: 2, lists: 3, dimensions: 4 };
    let mut encoder = ListsEncoder::new(header).unwrap();
    let mut chunks = Vec::new();
    let whole = ListElement { list: 1, second: Some(0), rows: head.to_vec(), further: false };
    let more = |rows: &[_]| ListElement { rows: rows.to_vec(), further: true, ..Default::default() };
    let end = ListElement { list: 2, second: None, rows: vec![last], further: false };
    let pushes = std::iter::once(whole).chain(pieces.chunks(50_000).map(more)).chain([end]);
    pushes.for_each(|element| chunks.extend(encoder.push(&element).unwrap()));
    chunks.extend(encoder.finish().unwrap());
    let all = read_lists(&header, &chunks).unwrap();
    assert_eq!((&all[0].rows, all[1].list, &all[1].rows), (&rows, 2, &vec![last]));
}

#[test]
fn large_centroids_and_vectors_take_several_chunks() {
    let header = ListsHeader { elements: 0, lists: 600, dimensions: 16_000 };
    let all = centroids(&header, 4);
    let chunks = encode_centroids(&header, all.clone()).unwrap();
    assert!(chunks.len() == 3 && chunks.iter().all(|chunk| chunk.len() <= LARGEST_RAW));
    let (mut again, mut first) = (Vec::new(), 0);
    for chunk in &chunks {
        first += decode_centroids(&header, first, chunk, &mut |_, centroid| {
            again.push(centroid);
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(again, all);
    decode_centroids(&header, 0, &chunks[1], &mut |_, _| Ok(())).unwrap_err();

    let chunks = vectors(200, 16_000);
    assert!(chunks.len() == 4 && chunks.iter().all(|chunk| chunk.len() <= LARGEST_RAW));
    let mut first = 0;
    for chunk in &chunks {
        first += decode_vectors(16_000, first, chunk, &mut |row, vector| {
            assert_eq!((vector[0], vector[15_999]), (row as f32 + 0.5, (row as f32 + 0.5) / 16_000.0));
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(first, 200);
}

#[test]
fn many_tombstones_take_several_chunks() {
    let chunks = encode_tombstones(9_000_000, 0..9_000_000).unwrap();
    assert_eq!(chunks.len(), 3);
    let mut count = 0;
    let mut each = |ordinal| {
        assert_eq!(ordinal, count);
        count += 1;
        Ok(())
    };
    let least = chunks.iter().fold(0, |least, chunk| decode_tombstones(9_000_000, least, chunk, &mut each).unwrap());
    assert_eq!((least, count), (9_000_000, 9_000_000));
    decode_tombstones(9_000_000, 0, &chunks[1], &mut |_| Ok(())).unwrap_err();
}

#[test]
fn what_does_not_belong_is_refused() {
    let unfit = |result: Result<Option<Vec<u8>>>| assert!(matches!(result, Err(Error::Unfit { .. })), "{result:?}");
    let header = GraphHeader { elements: 2, m: 2, entry: Some(0) };
    let element = |level, neighbors| GraphElement { level, rows: vec![[1; 16]], neighbors };
    let mut encoder = GraphEncoder::new(header).unwrap();
    unfit(encoder.push(&element(0, vec![])));
    unfit(encoder.push(&element(0, vec![vec![2]])));
    unfit(encoder.push(&element(0, vec![vec![1; 5]])));
    unfit(encoder.push(&element(1, vec![vec![1], vec![1; 3]])));
    unfit(encoder.push(&element(1, vec![vec![1]])));
    unfit(encoder.push(&element(16, vec![vec![]; 17])));
    unfit(encoder.push(&GraphElement { rows: vec![[1; 16]; ROWS_A_PUSH + 1], ..element(0, vec![vec![]]) }));
    assert_eq!(encoder.push(&element(0, vec![vec![1]])), Ok(None));
    assert_eq!(encoder.push(&element(0, vec![vec![0]])), Ok(None));
    unfit(encoder.push(&element(0, vec![vec![1]])));
    encoder.finish().unwrap().unwrap();
    unfit(GraphEncoder::new(header).unwrap().finish());
    for (m, entry) in [(0, Some(0)), (101, Some(0)), (2, Some(2))] {
        assert!(GraphEncoder::new(GraphHeader { m, entry, ..header }).is_err());
    }

    let header = ListsHeader { elements: 3, lists: 2, dimensions: 3 };
    let element = |list, second| ListElement { list, second, ..Default::default() };
    let mut encoder = ListsEncoder::new(header).unwrap();
    unfit(encoder.push(&ListElement { further: true, ..element(0, None) }));
    unfit(encoder.push(&element(2, None)));
    unfit(encoder.push(&element(0, Some(2))));
    assert_eq!(encoder.push(&element(1, Some(0))), Ok(None));
    unfit(encoder.push(&element(0, None)));
    unfit(encoder.finish());

    let all = centroids(&header, 1);
    assert!(encode_centroids(&header, all[..1].to_vec()).is_err());
    assert!(encode_centroids(&header, [&all[..], &all].concat()).is_err());
    for broken in [f32::NAN, f32::INFINITY, -1.0] {
        let mut all = all.clone();
        all[1].scale = broken;
        assert!(encode_centroids(&header, all).is_err());
    }
    assert!(encode_tombstones(4, [1, 1]).is_err() && encode_tombstones(4, [4]).is_err());
}
