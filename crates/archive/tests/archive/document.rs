//! docs/archive-format.md says what the code does: its tables of numbers and its examples in hexadecimal are read here.

use archive::{
    CHUNK_BYTES, GraphElement, GraphEncoder, GraphHeader, Kind, LARGEST_MANIFEST, LARGEST_RAW, LARGEST_STORED,
    ListElement, ListsEncoder, ListsHeader, MANIFEST_VERSION, ROWS_A_PUSH, encode_tombstones, pack,
};

const DOCUMENT: &str = include_str!("../../../../docs/archive-format.md");

/// What follows the comment `<!-- what: name -->`, up to the next empty line.
fn part(what: &str, name: &str) -> impl Iterator<Item = &'static str> {
    let (_, rest) = DOCUMENT.split_once(&format!("<!-- {what}: {name} -->\n")).unwrap_or_else(|| panic!("no {name}"));
    rest.trim_start().lines().take_while(|line| !line.is_empty())
}

/// Cells of a table without its head.
fn table(name: &str) -> Vec<Vec<&'static str>> {
    part("table", name).skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Bytes of an example: two digits each, up to the text after three spaces.
fn bytes(name: &str) -> Vec<u8> {
    let lines = part("bytes", name).filter(|line| !line.starts_with("```"));
    let digits = lines.flat_map(|line| line.split("   ").next().unwrap_or_default().split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn constants() {
    let expected = [
        ("bytes after which an encoder ends a chunk", CHUNK_BYTES),
        ("raw bytes of an object, at most", LARGEST_RAW),
        ("raw bytes of a manifest, at most", LARGEST_MANIFEST),
        ("stored bytes of an object or manifest, at most", LARGEST_STORED),
        ("version of frames", usize::from(pack(Kind::Rows, b"", None).unwrap().bytes[8])),
        ("version of manifests", MANIFEST_VERSION as usize),
        ("rows of one element that an encoder takes at a time", ROWS_A_PUSH),
    ];
    let written: Vec<(&str, usize)> = table("constants").iter().map(|row| (row[0], row[1].parse().unwrap())).collect();
    assert_eq!(written, expected);
}

#[test]
fn kinds() {
    let written: Vec<(u8, &str)> = table("kinds").iter().map(|row| (row[0].parse().unwrap(), row[1])).collect();
    assert_eq!(written, Kind::ALL.map(|kind| (kind as u8, kind.word())));
}

#[test]
fn examples() {
    let rows = [[0x11; 16], [0x22; 16], [0x33; 16]];
    let elements = [
        GraphElement { level: 1, rows: rows[..1].to_vec(), neighbors: vec![vec![1, 2], vec![2]] },
        GraphElement { level: 0, rows: vec![], neighbors: vec![vec![0, 2]] },
        GraphElement { level: 1, rows: rows[1..].to_vec(), neighbors: vec![vec![1], vec![0]] },
    ];
    let mut encoder = GraphEncoder::new(GraphHeader { elements: 3, m: 2, entry: Some(2) }).unwrap();
    elements.iter().for_each(|element| assert_eq!(encoder.push(element).unwrap(), None));
    assert_eq!(encoder.finish().unwrap().unwrap(), bytes("graph"));

    let mut encoder = ListsEncoder::new(ListsHeader { elements: 3, lists: 4, dimensions: 2 }).unwrap();
    for (i, (list, second)) in [(1, Some(3)), (1, None), (3, Some(0))].into_iter().enumerate() {
        let element = ListElement { list, second, rows: rows[i..=i].to_vec(), further: false };
        assert_eq!(encoder.push(&element).unwrap(), None);
    }
    assert_eq!(encoder.finish().unwrap().unwrap(), bytes("lists"));

    assert_eq!(encode_tombstones(1000, [3, 4, 304]).unwrap(), [bytes("tombstones")]);
    assert_eq!(include_bytes!("../golden/rows.bin"), &bytes("frame")[..]);
}
