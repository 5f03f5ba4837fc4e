//! docs/page-format.md tells the truth: its tables are compared with what the code writes, and reads again.
//!
//! A table that a test uses has its name in a comment before it. Fields get values whose bytes all differ, so a field
//! that lies elsewhere, or has another size, is found.

use ann::compact::{Action, HISTORY_RECORDS, MAX_INPUTS, Report, history, note};
use ann::distance::Metric;
use ann::hnsw::probe::Scaling;
use ann::index::{
    AgeKey, CHAINS, Directory, DroppedEntry, FORMATS, Head, MAX_ENTRIES, MAX_SEGMENTS, Meta, Parameters, SegmentEntry,
    SegmentKind, chain_index,
};
use ann::ivf::bits::Coder;
use ann::ivf::check::forms;
use ann::ivf::layout::{
    At, BLOCK_ROWS, Factors, Forms, GROUP, ListEntry, Posting, STREAM_BYTES, at as centroid_at, block_at, write_factors,
};
use ann::keys::{KeySummary, Keys, MAX_KEYS, Row};
use ann::memory::MemoryStore;
use ann::page::{BODY_SIZE, HEADER_SIZE, Kind, META_BLOCK, NONE, PAGE_SIZE, Page, TRAILER_SIZE, Tag};
use ann::shape::{
    CHUNK_ROWS, HeapTid, INLINE_ROWS, MAX_DIMENSIONS, MAX_LEVEL, MAX_M, MIN_M, NewElement, Shape, Slot, TID_SIZE,
    UpperNeighbor, at, get_tid, put_tid, read_chunk, read_upper, write_chunk, write_upper,
};
use ann::sq8::Params;

const DOCUMENT: &str = include_str!("../../../docs/page-format.md");

/// The cells of a table's rows, without its head.
fn table(name: &str) -> Vec<Vec<&'static str>> {
    let comment = format!("<!-- table: {name} -->");
    let mut found = DOCUMENT.split(comment.as_str());
    let text = found.nth(1).unwrap_or_else(|| panic!("the document has no table \"{name}\""));
    assert!(found.next().is_none(), "the document has two tables \"{name}\"");
    let lines = text.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
    let rows: Vec<Vec<&str>> = lines.map(|line| cells(line).collect()).collect();
    assert!(!rows.is_empty(), "table \"{name}\" is empty");
    rows
}

fn number(cell: &str) -> usize {
    let digits = cell.split_whitespace().next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("\"{cell}\" does not start with a number"))
}

/// The value in a table of two columns.
fn value(name: &str, what: &str) -> usize {
    let row = table(name).into_iter().find(|row| row[0] == what);
    number(row.unwrap_or_else(|| panic!("table \"{name}\" does not tell \"{what}\""))[1])
}

struct Field {
    offset: usize,
    size: usize,
    name: &'static str,
}

/// The fields of a structure, which follow each other without gaps.
fn fields(table_name: &str) -> Vec<Field> {
    let mut end = 0;
    table(table_name)
        .into_iter()
        .map(|row| {
            let field = Field { offset: number(row[0]), size: number(row[1]), name: row[2] };
            assert_eq!(field.offset, end, "{table_name}: {} follows what is before it", field.name);
            end = field.offset + field.size;
            field
        })
        .collect()
}

fn field(table_name: &str, name: &str) -> Field {
    let found = fields(table_name).into_iter().find(|f| f.name == name);
    found.unwrap_or_else(|| panic!("table \"{table_name}\" has no field \"{name}\""))
}

/// Parts that repeat; their own tables tell what is in them.
const PARTS: [&str; 7] = ["entry", "neighbor", "rows", "value", "columns", "record", "input"];

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b))
}

/// `bytes` hold these values where the table says, zeros where it says "unused", and the table knows no other fields.
fn assert_holds(table_name: &str, bytes: &[u8], values: &[(&str, u64)]) {
    let fields = fields(table_name);
    for f in fields.iter().filter(|f| !PARTS.contains(&f.name)) {
        let bytes = &bytes[f.offset..f.offset + f.size];
        if f.name == "unused" {
            assert!(bytes.iter().all(|&b| b == 0), "{table_name}: unused bytes at {} are {bytes:?}", f.offset);
            continue;
        }
        let expected = values.iter().find(|v| v.0 == f.name);
        let &(_, expected) = expected.unwrap_or_else(|| panic!("{table_name}: the code knows no field \"{}\"", f.name));
        assert_eq!(little_endian(bytes), expected, "{table_name}: {} at {}", f.name, f.offset);
    }
    for (name, _) in values {
        assert!(fields.iter().any(|f| f.name == *name), "{table_name}: the document does not tell of \"{name}\"");
    }
}

/// Nothing is written after the fields of the table.
fn assert_ends(table_name: &str, bytes: &[u8]) {
    let last = fields(table_name).pop().expect("not empty");
    let end = last.offset + last.size;
    assert!(bytes[end..].iter().all(|&b| b == 0), "{table_name}: something follows byte {end}");
}

#[test]
fn constants() {
    let constants: &[(&str, usize)] = &[
        ("bytes of a page", PAGE_SIZE),
        ("bytes of the header", HEADER_SIZE),
        ("bytes of the body", BODY_SIZE),
        ("bytes of the trailer", TRAILER_SIZE),
        ("oldest format read", usize::from(*FORMATS.start())),
        ("newest format read, format written", usize::from(*FORMATS.end())),
        ("entries in a directory, at most", MAX_ENTRIES),
        ("segments up to which new ones are opened", MAX_SEGMENTS),
        ("records in the history", HISTORY_RECORDS),
        ("inputs in a record", MAX_INPUTS),
        ("dimensions, at most", MAX_DIMENSIONS),
        ("m, at least", usize::from(MIN_M)),
        ("m, at most", usize::from(MAX_M)),
        ("level, at most", usize::from(MAX_LEVEL)),
        ("rows inside an element", INLINE_ROWS),
        ("rows in an overflow chunk", CHUNK_ROWS),
        ("key columns, at most", MAX_KEYS),
        ("bytes of a group of a stream", GROUP),
        ("bytes of a stream on a page", STREAM_BYTES),
        ("postings in a block", BLOCK_ROWS),
        ("NONE", NONE as usize),
    ];
    for &(what, expected) in constants {
        assert_eq!(value("constants", what), expected, "{what}");
    }
    assert_eq!(table("constants").len(), constants.len());
}

#[test]
fn kinds() {
    let listed: Vec<(usize, &str)> = table("kinds").iter().map(|row| (number(row[0]), row[1])).collect();
    let known = (0..=u8::MAX).filter_map(|b| Some((usize::from(b), Kind::from_byte(b)?.name())));
    assert_eq!(listed, known.collect::<Vec<_>>());
}

#[test]
fn metrics() {
    let listed: Vec<(usize, &str)> = table("metrics").iter().map(|row| (number(row[0]), row[1])).collect();
    let known = [(Metric::L2, "<->"), (Metric::InnerProduct, "<#>"), (Metric::Cosine, "<=>"), (Metric::L1, "<+>")];
    assert_eq!(listed, known.map(|(metric, operator)| (metric as usize, operator)));
}

#[test]
fn trailer() {
    let tag = Tag { segment: 0x0102_0304, kind: Kind::Upper, used: 0x0506, next: 0x0708_090A };
    let mut page = Page::zeroed();
    page.set_tag(tag);
    let mark = 0xD7;
    assert!(page.0[..PAGE_SIZE - TRAILER_SIZE].iter().all(|&b| b == 0));
    assert_holds(
        "trailer",
        &page.0[PAGE_SIZE - TRAILER_SIZE..],
        &[("segment", 0x0102_0304), ("kind", 6), ("mark", mark), ("used", 0x0506), ("next", 0x0708_090A)],
    );
    assert_eq!(page.tag(), Some(tag));
    // The document tells the mark, too.
    assert!(table("trailer").iter().any(|row| row[2] == "mark" && row[3].contains(&mark.to_string())));
}

fn parameters() -> Parameters {
    Parameters {
        metric: Metric::Cosine,
        dimensions: 0x1A2B,
        m: 0x4C,
        ef_construction: 0x030D,
        segment_rows: 0x1112_1314_1516_1718,
        recent_rows: 0x2122_2324_2526_2728,
        pending_rows: 0x3132_3334,
        lists: 0x4142_4344,
        recent_threshold: 0x5152_5354_5556_5758,
        partition_interval: 0x6162_6364_6566_6768,
        rerank: 2,
        keys: 5,
        age_key: Some(AgeKey { column: 3, in_days: true }),
    }
}

#[test]
fn metapage() {
    let meta = Meta {
        parameters: parameters(),
        generation: 0x7172_7374_7576_7778,
        root: 0x0102_0304,
        next_segment: 0x0506_0708,
        history: 0x0708_090A,
    };
    let mut page = Page::zeroed();
    page.set_tag(Tag::new(0, Kind::Meta));
    meta.encode(&mut page);
    let magic = number(field_meaning("metapage", "magic")) as u64;
    assert_holds(
        "metapage",
        page.body(),
        &[
            ("magic", magic),
            ("format", u64::from(*FORMATS.end())),
            ("metric", 3),
            ("rerank", 2),
            ("dimensions", 0x1A2B),
            ("m", 0x4C),
            ("ef_construction", 0x030D),
            ("generation", 0x7172_7374_7576_7778),
            ("root", 0x0102_0304),
            ("next_segment", 0x0506_0708),
            ("segment_rows", 0x1112_1314_1516_1718),
            ("recent_rows", 0x2122_2324_2526_2728),
            ("pending_rows", 0x3132_3334),
            ("lists", 0x4142_4344),
            ("recent_threshold", 0x5152_5354_5556_5758),
            ("partition_interval", 0x6162_6364_6566_6768),
            ("keys", 5),
            ("age_key", 4),
            ("age_in_days", 1),
            ("history", 0x0708_090A),
        ],
    );
    assert_ends("metapage", page.body());
    let store = MemoryStore::new();
    assert_eq!(store.append(&page), META_BLOCK);
    assert_eq!(Meta::read(&store), Ok(meta));
}

fn field_meaning(table_name: &str, name: &str) -> &'static str {
    table(table_name).into_iter().find(|row| row[2] == name).expect("the field is there")[3]
}

#[test]
fn directory() {
    let generation = 0x0102_0304_0506_0708;
    let entry = |id, active, head, created| SegmentEntry { id, kind: SegmentKind::Hnsw, active, head, created };
    let segments = vec![
        entry(0x1112_1314, false, 0x1516_1718, 0x2122_2324_2526_2728),
        entry(0x3132_3334, true, 0x3536_3738, 0x4142_4344_4546_4748),
    ];
    let gone =
        DroppedEntry { id: 0x5152_5354, kind: SegmentKind::Ivf, head: 0x5556_5758, safexid: 0x6162_6364_6566_6768 };
    let directory = Directory { generation, segments, dropped: vec![gone] };
    let mut page = Page::zeroed();
    page.set_tag(Tag::new(0, Kind::Directory));
    directory.encode(&mut page);
    let first = field("directory", "entry");
    assert_holds("directory", page.body(), &[("generation", generation), ("count", 2), ("dropped", 1)]);
    for (i, s) in directory.segments.iter().enumerate() {
        let bytes = &page.body()[first.offset + i * first.size..][..first.size];
        let values = [
            ("id", u64::from(s.id)),
            ("kind", 1),
            ("active", u64::from(s.active)),
            ("head", u64::from(s.head)),
            ("created", s.created as u64),
        ];
        assert_holds("directory entry", bytes, &values);
    }
    let bytes = &page.body()[first.offset + 2 * first.size..][..first.size];
    let values = [("id", u64::from(gone.id)), ("kind", 3), ("head", u64::from(gone.head)), ("safexid", gone.safexid)];
    assert_holds("dropped entry", bytes, &values);
    assert!(page.body()[first.offset + 3 * first.size..].iter().all(|&b| b == 0));
    assert_eq!((BODY_SIZE - first.offset) / first.size, MAX_ENTRIES);

    let store = MemoryStore::new();
    let mut meta_page = Page::zeroed();
    meta_page.set_tag(Tag::new(0, Kind::Meta));
    let meta = Meta { parameters: parameters(), generation, root: 1, next_segment: 9, history: META_BLOCK };
    meta.encode(&mut meta_page);
    store.append(&meta_page);
    store.append(&page);
    assert_eq!(Directory::read(&store), Ok((meta, directory)));
}

#[test]
fn segment_head() {
    let head = Head {
        active: true,
        entry: 0x0102_0304,
        entry_level: 0x0F,
        first: std::array::from_fn(|i| 0x1112_1314 + i as u32),
        last: std::array::from_fn(|i| 0x2122_2324 + i as u32),
        element_pages: 0x6162_6364,
        lists: 0x6566_6768,
        created: 0x7172_7374_7576_7778,
        rows: 0x8182_8384_8586_8788,
        routers: 0x9192_9394_9596_9798,
        typical_age: Some(0x0102_0304_0506_0708),
        behind: Some((0xA1A2_A3A4, 0xB1B2_B3B4)),
        summary: Some(KeySummary::default()),
    };
    let mut page = Page::zeroed();
    page.set_tag(Tag::new(7, Kind::SegmentHead));
    head.encode(&mut page);
    assert_holds(
        "segment head",
        page.body(),
        &[
            ("entry", 0x0102_0304),
            ("entry_level", 0x0F),
            ("active", 1),
            ("has_summary", 1),
            ("has_typical_age", 1),
            ("element_pages", 0x6162_6364),
            ("lists", 0x6566_6768),
            ("created", 0x7172_7374_7576_7778),
            ("rows_written", 0x8182_8384_8586_8788),
            ("first_element", 0x1112_1314),
            ("first_upper", 0x1112_1315),
            ("first_overflow", 0x1112_1316),
            ("first_tail", 0x1112_1317),
            ("first_centroid", 0x1112_1318),
            ("first_posting", 0x1112_1319),
            ("last_element", 0x2122_2324),
            ("last_upper", 0x2122_2325),
            ("last_overflow", 0x2122_2326),
            ("last_tail", 0x2122_2327),
            ("last_centroid", 0x2122_2328),
            ("last_posting", 0x2122_2329),
            ("has_null", 0),
            ("routers", 0x9192_9394_9596_9798),
            ("behind_id", 0xA1A2_A3A4),
            ("behind_head", 0xB1B2_B3B4),
            ("typical_age", 0x0102_0304_0506_0708),
        ],
    );
    assert_ends("segment head", page.body());
    assert_eq!(Head::decode(&page, 5, 7), Ok(head));
    let kinds = [Kind::Element, Kind::Upper, Kind::Overflow, Kind::Tail, Kind::Centroid, Kind::Posting];
    assert_eq!(kinds.len(), CHAINS);
    let names = ["element", "upper", "overflow", "tail", "centroid", "posting"];
    for (kind, name) in kinds.into_iter().zip(names) {
        for (chain, blocks) in [("first", head.first), ("last", head.last)] {
            let f = field("segment head", &format!("{chain}_{name}"));
            let block = u64::from(blocks[chain_index(kind)]);
            assert_eq!(little_endian(&page.body()[f.offset..][..f.size]), block, "{chain} {name}");
        }
    }
}

#[test]
fn what_compaction_did() {
    let report = |i: u32| Report {
        action: Action::CleanUp,
        inputs: (0..10).map(|k| 0x0102_0300 + k + i).collect(),
        output: Some(0x1112_1314 + i),
        rows: 0x2122_2324_2526_2728,
        started: 0x3132_3334_3536_3738,
        finished: 0x4142_4344_4546_4748,
    };
    let mut page = Page::zeroed();
    page.set_tag(Tag::new(0, Kind::History));
    (0..130).for_each(|i| note(&mut page, &report(i)));
    assert_holds("history", page.body(), &[("written", 130)]);
    let first = field("history", "record");
    let record = &page.body()[first.offset + (129 % HISTORY_RECORDS) * first.size..][..first.size];
    let newest = report(129);
    assert_holds(
        "history record",
        record,
        &[
            ("action", 4),
            ("count", 8),
            ("output", u64::from(newest.output.expect("some"))),
            ("rows", newest.rows),
            ("started", newest.started as u64),
            ("finished", newest.finished as u64),
        ],
    );
    let input = field("history record", "input");
    for (i, &id) in newest.inputs[..MAX_INPUTS].iter().enumerate() {
        assert_eq!(little_endian(&record[input.offset + i * input.size..][..input.size]), u64::from(id));
    }
    assert_eq!(input.offset + MAX_INPUTS * input.size, first.size);
    let store = MemoryStore::new();
    let mut meta_page = Page::zeroed();
    meta_page.set_tag(Tag::new(0, Kind::Meta));
    Meta { parameters: parameters(), generation: 1, root: 2, next_segment: 9, history: 1 }.encode(&mut meta_page);
    store.append(&meta_page);
    store.append(&page);
    let read = history(&store).expect("sound");
    assert_eq!(read.len(), HISTORY_RECORDS);
    let kept = |i| Report { inputs: report(i).inputs[..MAX_INPUTS].to_vec(), ..report(i) };
    assert!(read.into_iter().eq((3..130).map(kept)));
}

#[test]
fn summary() {
    let mut summary = KeySummary::default();
    summary.add(&Keys::new(&[Some(0x0102_0304_0506_0708), None]), 2);
    summary.add(&Keys::new(&[Some(0x1112_1314_1516_1718), None]), 2);
    let head = Head { summary: Some(summary), ..Head::new(0) };
    let mut page = Page::zeroed();
    page.set_tag(Tag::new(7, Kind::SegmentHead));
    head.encode(&mut page);
    let (nulls, columns) = (field("segment head", "has_null"), field("segment head", "columns"));
    let size = columns.size / MAX_KEYS;
    assert_eq!(little_endian(&page.body()[nulls.offset..][..nulls.size]), 2);
    let empty = [("min", i64::MAX as u64), ("max", i64::MIN as u64)];
    let filled = [("min", 0x0102_0304_0506_0708), ("max", 0x1112_1314_1516_1718)];
    for (i, values) in [filled, empty].iter().enumerate() {
        assert_holds("summary column", &page.body()[columns.offset + i * size..][..size], values);
    }
    assert_eq!(Head::decode(&page, 5, 7), Ok(head));
}

#[test]
fn row_with_keys() {
    let row = Row { tid: TIDS[0], keys: Keys::new(&[Some(0x0102_0304_0506_0708), None, Some(-1)]) };
    let mut bytes = vec![0xAA; Row::size(3)];
    row.write(&mut bytes, 3);
    let values = [("block", 0x3132_3334), ("offset", 0x3536), ("nulls", 2)];
    assert_holds("row", &bytes, &values);
    let first = field("row", "value");
    let words: Vec<u64> = bytes[first.offset..].chunks(first.size).map(little_endian).collect();
    assert_eq!(words, [0x0102_0304_0506_0708, 0, u64::MAX]);
    assert_eq!(Row::read(&bytes, 3), row);
}

#[test]
fn sizes() {
    for row in table("sizes") {
        let [dimensions, m, element, per_page, head_code, tails, tail, tails_per_page, bytes] =
            row.iter().map(|cell| number(cell)).collect::<Vec<_>>().try_into().expect("nine columns");
        let shape = Shape::new(Metric::L2, dimensions, m, 0);
        assert_eq!((element, per_page), (shape.element.size, shape.element.per_page as usize), "{dimensions}");
        assert_eq!((head_code, tails), (shape.head_code, shape.tails), "{dimensions}");
        assert_eq!((tail, tails_per_page), (shape.tail.size, shape.tail.per_page as usize), "{dimensions}");
        let share = |slots: ann::shape::Slots| PAGE_SIZE as f64 / f64::from(slots.per_page);
        let upper = share(shape.upper) / (m - 1) as f64;
        let expected = share(shape.element) + tails as f64 * share(shape.tail) + upper;
        assert_eq!(bytes, expected.round() as usize, "bytes a row at {dimensions} dimensions");
    }
}

const SEGMENT: u32 = 0x0A0B_0C0D;
const PARAMS: Params = Params {
    scale: f32::from_bits(0x3F01_0203),
    offset: f32::from_bits(0x3F04_0506),
    norm2: f32::from_bits(0x3F07_0809),
    sum: 0x1112_1314,
    residual_l2: f32::from_bits(0x3F21_2223),
    residual_l1: f32::from_bits(0x3F24_2526),
};
const TIDS: [HeapTid; 2] =
    [HeapTid { block: 0x3132_3334, offset: 0x3536 }, HeapTid { block: 0x4142_4344, offset: 0x4546 }];

/// An element with a value in every field, on a page.
struct Written {
    shape: Shape,
    slot: Slot,
    code: Vec<u8>,
    tails: Vec<Slot>,
    neighbors: Vec<Slot>,
    page: Box<Page>,
}

const CHANGES: u32 = 0x0102;
const UPPER: Slot = 0x5152_5354;
const OVERFLOW: Slot = 0x6162_6364;
const ROW_COUNT: u32 = 0x7172_7374;
const LEVEL: u8 = 0x0E;

fn written(metric: Metric, dimensions: usize, m: usize) -> Written {
    let shape = Shape::new(metric, dimensions, m, 0);
    let slot = 10 * shape.element.per_page + shape.element.per_page - 1;
    let code: Vec<u8> = (0..dimensions).map(|i| (i % 251) as u8 + 1).collect();
    let tails: Vec<Slot> = (0..shape.tails as u32).map(|i| 0x8182_8384 + i).collect();
    let neighbors: Vec<Slot> = (0..2 * m as u32).map(|i| 0x9192_9394 + i).collect();
    let mut page = Page::zeroed();
    let mut e = shape.view_mut(&mut page, slot);
    let new = NewElement { level: LEVEL, upper: UPPER, params: &PARAMS, code: &code, tails: &tails, neighbors: &[] };
    e.write(SEGMENT, &new);
    (0..CHANGES).for_each(|_| e.set_neighbors(&neighbors));
    assert!(TIDS.iter().all(|&tid| e.push_inline(&Row::of_tid(tid))));
    e.set_row_count(ROW_COUNT);
    e.set_overflow(OVERFLOW);
    Written { shape, slot, code, tails, neighbors, page }
}

fn element_bytes(w: &Written) -> &[u8] {
    w.shape.element.get(&w.page, w.slot)
}

fn tid_number(tid: HeapTid) -> u64 {
    u64::from(tid.block) | u64::from(tid.offset) << 32
}

#[test]
fn element() {
    for (metric, residual) in [(Metric::L2, 0x3F21_2223), (Metric::Cosine, 0x3F21_2223), (Metric::L1, 0x3F24_2526)] {
        let w = written(metric, 384, 16);
        let mark = SEGMENT.wrapping_mul(2_654_435_761) ^ 3_789_805_477;
        assert_holds(
            "element",
            element_bytes(&w),
            &[
                ("mark", u64::from(mark)),
                ("version", u64::from(CHANGES)),
                ("row_count", u64::from(ROW_COUNT)),
                ("level", u64::from(LEVEL)),
                ("inline_count", 2),
                ("neighbor_count", 32),
                ("scale", 0x3F01_0203),
                ("offset", 0x3F04_0506),
                ("norm2", 0x3F07_0809),
                ("sum", 0x1112_1314),
                ("residual", residual),
                ("upper", u64::from(UPPER)),
                ("overflow", u64::from(OVERFLOW)),
                ("tid1", tid_number(TIDS[0])),
                ("tid2", tid_number(TIDS[1])),
            ],
        );
        let e = w.shape.view(&w.page, w.slot);
        assert!(e.belongs_to(SEGMENT) && !e.belongs_to(SEGMENT + 1));
        assert_eq!((e.version(), e.row_count(), e.level()), (CHANGES, ROW_COUNT, LEVEL));
        assert_eq!((e.upper(), e.overflow(), e.sum()), (UPPER, OVERFLOW, PARAMS.sum));
        assert_eq!((e.scale(), e.offset(), e.norm2()), (PARAMS.scale, PARAMS.offset, PARAMS.norm2));
        assert_eq!(e.residual().to_bits(), residual as u32);
        assert_eq!(e.inline_rows().map(|row| row.tid).collect::<Vec<_>>(), TIDS);
        assert_eq!(e.neighbors().collect::<Vec<_>>(), w.neighbors);
    }
    let mark = field_meaning("element", "mark");
    assert!(mark.contains("2654435761") && mark.contains("3789805477"), "the mark is told as: {mark}");
}

#[test]
fn element_offsets() {
    let offsets: &[(&str, usize)] = &[
        ("mark", at::MARK),
        ("version", at::VERSION),
        ("row_count", at::ROW_COUNT),
        ("level", at::LEVEL),
        ("inline_count", at::INLINE_COUNT),
        ("neighbor_count", at::NEIGHBOR_COUNT),
        ("scale", at::SCALE),
        ("offset", at::OFFSET),
        ("norm2", at::NORM2),
        ("sum", at::SUM),
        ("residual", at::RESIDUAL),
        ("upper", at::UPPER),
        ("overflow", at::OVERFLOW),
        ("tid1", at::ROWS),
        ("tid2", at::ROWS + TID_SIZE),
    ];
    for &(name, offset) in offsets {
        assert_eq!(field("element", name).offset, offset, "{name}");
    }
    let last = fields("element").pop().expect("not empty");
    assert_eq!(last.offset + last.size, Shape::new(Metric::L2, 3, 16, 0).code_at);
}

/// What the document says follows the fixed fields: code, slots of tails at T, neighbors at N.
#[test]
fn element_of_every_shape() {
    for (dimensions, m) in [(1, 2), (3, 16), (384, 16), (1023, 5), (4096, 16), (5000, 16), (16_000, 2), (16_000, 100)] {
        let w = written(Metric::L2, dimensions, m);
        let (bytes, h, t) = (element_bytes(&w), w.shape.head_code, w.shape.tails);
        let tails_at = (w.shape.code_at + h).next_multiple_of(4);
        let neighbors_at = tails_at + 4 * t;
        assert_eq!(&bytes[w.shape.code_at..][..h], &w.code[..h], "{dimensions}: code");
        let words = |at: usize, n: usize| -> Vec<u32> {
            bytes[at..][..4 * n].chunks(4).map(|b| little_endian(b) as u32).collect()
        };
        assert_eq!(words(tails_at, t), w.tails, "{dimensions}: tails");
        assert_eq!(words(neighbors_at, 2 * m), w.neighbors, "{dimensions}: neighbors");
        assert!(neighbors_at + 8 * m <= bytes.len(), "{dimensions}: the neighbors end in the slot");
        for i in 0..t {
            let size = w.shape.tail.size;
            assert_eq!(w.shape.tail_range(i), h + i * size..(h + (i + 1) * size).min(dimensions), "{dimensions}");
        }
    }
}

#[test]
fn heap_tid() {
    let mut bytes = [0; TID_SIZE];
    put_tid(&mut bytes, TIDS[0]);
    assert_holds("heap TID", &bytes, &[("block", 0x3132_3334), ("offset", 0x3536)]);
    assert_eq!(get_tid(&bytes), TIDS[0]);
}

#[test]
fn upper_record() {
    let shape = Shape::new(Metric::L2, 384, 16, 0);
    assert_eq!(shape.upper.size, 8 + 8 * shape.m);
    let neighbors = [(0x1112_1314, 0x2122_2324), (0x3132_3334, 0x4142_4344)]
        .map(|(element, record)| UpperNeighbor { element, record });
    let mut bytes = vec![0; shape.upper.size];
    write_upper(&mut bytes, 0x0102_0304, 0x0506, &neighbors);
    let first = field("upper record", "neighbor");
    assert_holds("upper record", &bytes, &[("up", 0x0102_0304), ("version", 0x0506), ("count", 2)]);
    for (i, n) in neighbors.iter().enumerate() {
        let values = [("element", u64::from(n.element)), ("record", u64::from(n.record))];
        assert_holds("upper neighbor", &bytes[first.offset + i * first.size..][..first.size], &values);
    }
    assert_eq!(read_upper(&shape, &bytes), (0x0102_0304, 0x0506, neighbors.to_vec()));
}

#[test]
fn overflow_chunk() {
    let shape = Shape::new(Metric::L2, 384, 16, 0);
    let rows = TIDS.map(Row::of_tid);
    let mut bytes = vec![0; shape.chunk.size];
    write_chunk(&shape, &mut bytes, 0x0102_0304, &rows);
    let tids = field("overflow chunk", "rows");
    assert_eq!((tids.offset + tids.size, tids.size), (shape.chunk.size, CHUNK_ROWS * TID_SIZE));
    assert_holds("overflow chunk", &bytes, &[("next", 0x0102_0304), ("count", 2)]);
    for (i, &tid) in TIDS.iter().enumerate() {
        assert_eq!(little_endian(&bytes[tids.offset + i * TID_SIZE..][..TID_SIZE]), tid_number(tid));
    }
    assert_eq!(read_chunk(&shape, &bytes), (0x0102_0304, rows.to_vec()));
}

#[test]
fn centroid() {
    let shape = Shape::new(Metric::L2, 37, 16, 2).without_neighbors();
    let forms = forms(&shape);
    let mut summary = KeySummary::default();
    summary.add(&Keys::new(&[Some(0x0102_0304_0506_0708), None]), 2);
    let entry = ListEntry {
        scaling: Scaling {
            scale: f32::from_bits(0x3F01_0203),
            offset: f32::from_bits(0x3F04_0506),
            norm2: f32::from_bits(0x3F07_0809),
        },
        start: At { block: 0x1112_1314, offset: 0x1516_1718 },
        postings: 0x2122_2324,
        first: 0x2526_2728,
        elements: 0x3132_3334,
        summary,
    };
    let code: Vec<u8> = (1..=37).collect();
    let mut bytes = vec![0xAA; forms.record_size()];
    forms.write_record(&entry, &code, &mut bytes);
    let fixed = [
        ("scale", centroid_at::SCALE, 0x3F01_0203),
        ("offset", centroid_at::OFFSET, 0x3F04_0506),
        ("norm2", centroid_at::NORM2, 0x3F07_0809),
        ("posting_block", centroid_at::POSTING_BLOCK, 0x1112_1314),
        ("posting_offset", centroid_at::POSTING_OFFSET, 0x1516_1718),
        ("postings", centroid_at::POSTINGS, 0x2122_2324),
        ("first_element", centroid_at::FIRST_ELEMENT, 0x2526_2728),
        ("elements", centroid_at::ELEMENTS, 0x3132_3334),
    ];
    let rows = table("centroid");
    assert_eq!(rows.len(), fixed.len() + 2);
    for (row, (name, at, value)) in rows.iter().zip(fixed) {
        assert_eq!((row[2], number(row[0]), number(row[1])), (name, at, 4));
        assert_eq!(little_endian(&bytes[at..at + 4]), value, "{name}");
    }
    assert_eq!((rows[8][2], number(rows[8][0])), ("summary", centroid_at::SUMMARY));
    assert_eq!(forms.code_at(), centroid_at::SUMMARY + 8 + 16 * 2);
    assert_eq!(little_endian(&bytes[centroid_at::SUMMARY..][..8]), 2, "has_null");
    assert_eq!(little_endian(&bytes[centroid_at::SUMMARY + 8..][..8]), 0x0102_0304_0506_0708, "min");
    assert_eq!(&bytes[forms.code_at()..][..37], code);
    assert!(bytes[forms.code_at() + 37..].iter().all(|&b| b == 0) && bytes.len().is_multiple_of(GROUP));
    assert_eq!(forms.read_entry(&bytes), entry);
}

#[test]
fn block_of_postings() {
    let posting = |i: usize| Posting {
        base: f32::from_bits(0x4000_0000 + i as u32),
        scale: 0x0100 + i as u16,
        error: 0x0200 + i as u16,
        slot: 0x5152_5300 + i as u32,
        keys: Keys::new(&[Some(0x0102_0304_0506_0700 + i as i64), (i != 3).then_some(-(i as i64))]),
        several: i == 4,
    };
    let postings: Vec<Posting> = (0..29).map(posting).collect();
    let forms = forms(&Shape::new(Metric::L2, 384, 16, 2).without_neighbors());
    let mut bytes = vec![0; forms.factor_bytes()];
    write_factors(&forms, &postings, &mut bytes);
    // The offsets in the document where k = 2.
    let rows = table("block");
    let told = |name: &str| rows.iter().find(|row| row[2] == name).map(|row| row[0]).expect("a row");
    let fixed =
        [("base", block_at::BASE), ("scale", block_at::SCALE), ("error", block_at::ERROR), ("slot", block_at::SLOT)];
    fixed.iter().for_each(|&(name, at)| assert_eq!(number(told(name)), at, "{name}"));
    assert_eq!(number(told("keys")), block_at::KEYS);
    assert_eq!((told("nulls"), told("several")), ("384 + 256 * k", "384 + 260 * k"));
    for (i, p) in postings.iter().enumerate() {
        assert_eq!(little_endian(&bytes[4 * i..][..4]) as u32, p.base.to_bits());
        assert_eq!(little_endian(&bytes[128 + 2 * i..][..2]) as u16, p.scale);
        assert_eq!(little_endian(&bytes[192 + 2 * i..][..2]) as u16, p.error);
        assert_eq!(little_endian(&bytes[256 + 4 * i..][..4]) as u32, p.slot);
        assert_eq!(little_endian(&bytes[384 + 8 * i..][..8]) as i64, p.keys.get(0).expect("not NULL"));
        assert_eq!(little_endian(&bytes[640 + 8 * i..][..8]) as i64, p.keys.get(1).unwrap_or(0));
        let factors = Factors::new(&forms, &bytes);
        assert_eq!((factors.bases()[i], factors.scales()[i], factors.errors()[i]), (p.base, p.scale, p.error));
        assert_eq!((factors.slot(i), factors.keys(i), factors.several() >> i & 1 == 1), (p.slot, p.keys, p.several));
    }
    let words: Vec<u64> = bytes[384 + 512..].chunks(4).map(little_endian).collect();
    assert_eq!(words, [0, 1 << 3, 1 << 4, 0]);
    assert!(bytes[256 + 4 * 29..384].iter().all(|&b| b == 0xFF), "NONE beyond the last posting");
}

#[test]
fn ivf_sizes() {
    for row in table("ivf sizes") {
        let [dimensions, codes, record, block, record_2, block_2] =
            row.iter().map(|cell| number(cell)).collect::<Vec<_>>().try_into().expect("six columns");
        let of = |keys| forms(&Shape::new(Metric::L2, dimensions, 16, keys).without_neighbors());
        let sizes = |forms: Forms| (forms.code_bytes, forms.record_size(), forms.block_size());
        assert_eq!(sizes(of(0)), (codes, record, block), "{dimensions}");
        assert_eq!(sizes(of(2)), (codes, record_2, block_2), "{dimensions}, two keys");
    }
}

/// Byte `j` of group `g` has bits `4 * g` on of postings `j` and `j + 16`.
#[test]
fn codes_of_a_block() {
    let coder = Coder::new(Metric::L2, 384);
    let codes: Vec<u8> = (0..BLOCK_ROWS * coder.code_len()).map(|i| (i * 37 % 251) as u8).collect();
    let mut block = vec![0; coder.groups() * GROUP];
    coder.pack(&codes, &mut block);
    let nibble = |posting: usize, g: usize| codes[posting * coder.code_len() + g / 2] >> (g % 2 * 4) & 15;
    for (g, group) in block.chunks(GROUP).enumerate() {
        for (j, &byte) in group.iter().enumerate() {
            assert_eq!((byte & 15, byte >> 4), (nibble(j, g), nibble(j + 16, g)), "group {g}, byte {j}");
        }
    }
}

#[test]
fn examples() {
    let shape = Shape::new(Metric::Cosine, 384, 16, 0);
    let example = |what| value("example 384", what);
    let slot = shape.element.slot(example("block") as u32, example("index") as u32).expect("in range");
    assert_eq!(slot, 145);
    assert_eq!((shape.element.block(slot), shape.element.index(slot)), (10, 5));
    let start = HEADER_SIZE + shape.element.offset(slot);
    assert_eq!(example("the element starts at"), start);
    assert_eq!(example("its code starts at"), start + shape.code_at);
    assert_eq!(example("its neighbors start at"), usize::from(shape.neighbors_place(slot).offset));
    assert_eq!(example("the next element starts at"), HEADER_SIZE + shape.element.offset(slot + 1));

    let w = written(Metric::L2, 5000, 16);
    let example = |what| value("example 5000", what);
    assert_eq!((example("element"), example("h"), example("t")), (w.shape.element.size, w.shape.head_code, 1));
    assert_eq!((example("tail"), example("tails on a page")), (w.shape.tail.size, w.shape.tail.per_page as usize));
    let bytes = element_bytes(&w);
    let word = |at: usize| little_endian(&bytes[at..at + 4]) as u32;
    assert_eq!(word(example("the slot of the tail is at")), w.tails[0]);
    assert_eq!(word(example("the neighbors start at")), w.neighbors[0]);
}
