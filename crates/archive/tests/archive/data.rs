//! Made segments.

use archive::table::{Column, Index, Indexed, ObjectName, Parameter, Table, TypeName};
use archive::{
    ArchivedIndex, Centroid, Fingerprint, GraphElement, GraphEncoder, GraphHeader, Identity, Kind, ListElement,
    ListsEncoder, ListsHeader, Manifest, ManifestKind, ObjectRef, Packed, RowsChunk, SegmentObjects, Source, Structure,
    encode_centroids, encode_tombstones, pack,
};
use std::collections::BTreeMap;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub fn fingerprint(&mut self) -> Fingerprint {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_le_bytes()
    }
}

/// An element with random neighbors, as many as allowed, at a level drawn as HNSW does for `m`.
pub fn full_element(random: &mut Random, header: &GraphHeader) -> GraphElement {
    let m = u32::from(header.m);
    let level = (0..15).find(|_| random.below(m) > 0).unwrap_or(15);
    let mut list = |count: u32| (0..count).map(|_| random.below(header.elements)).collect();
    let neighbors = (0..=level).map(|level| list(if level == 0 { 2 * m } else { m })).collect();
    GraphElement { level: level as u8, rows: vec![random.fingerprint()], neighbors }
}

/// A small graph with all that elements may have.
pub fn graph(elements: u32, m: u16, seed: u64) -> (GraphHeader, Vec<GraphElement>) {
    let mut random = Random(seed);
    let header = GraphHeader { elements, m, entry: (elements > 0).then(|| random.below(elements)) };
    let all = (0..elements).map(|_| {
        let mut element = full_element(&mut random, &header);
        element.neighbors.iter_mut().for_each(|list| list.truncate(random.below(list.len() as u32 + 1) as usize));
        element.rows = (0..random.below(4)).map(|_| random.fingerprint()).collect();
        element
    });
    (header, all.collect())
}

pub fn graph_chunks(header: GraphHeader, elements: &[GraphElement]) -> Vec<Vec<u8>> {
    let mut encoder = GraphEncoder::new(header).unwrap();
    let mut chunks: Vec<_> = elements.iter().filter_map(|element| encoder.push(element).unwrap()).collect();
    chunks.extend(encoder.finish().unwrap());
    chunks
}

/// Elements in lists of which every third is empty.
pub fn lists(elements: u32, lists: u32, seed: u64) -> (ListsHeader, Vec<ListElement>) {
    let mut random = Random(seed);
    let mut own: Vec<u32> = (0..elements).map(|_| random.below(lists) / 3 * 3).collect();
    own.sort_unstable();
    let element = |list| {
        let second = Some(random.below(lists)).filter(|&second| second != list);
        let rows = (0..random.below(4)).map(|_| random.fingerprint()).collect();
        ListElement { list, second, rows, further: false }
    };
    (ListsHeader { elements, lists, dimensions: 5 }, own.into_iter().map(element).collect())
}

pub fn lists_chunks(header: ListsHeader, elements: &[ListElement]) -> Vec<Vec<u8>> {
    let mut encoder = ListsEncoder::new(header).unwrap();
    let mut chunks: Vec<_> = elements.iter().filter_map(|element| encoder.push(element).unwrap()).collect();
    chunks.extend(encoder.finish().unwrap());
    chunks
}

pub fn centroids(header: &ListsHeader, seed: u64) -> Vec<Centroid> {
    let mut random = Random(seed);
    let mut value = move || random.next();
    let centroid = |i| Centroid {
        scale: 0.25 * i as f32,
        offset: -1.5,
        code: (0..header.dimensions).map(|_| value() as u8).collect(),
    };
    (0..header.lists).map(centroid).collect()
}

/// All objects of small segments, in the order of a manifest's, and a backup's manifest that names them.
pub fn archive(key: Option<&archive::Key>) -> (Manifest, Vec<Packed>) {
    let mut objects = Vec::new();
    let mut put = |kind, chunks: Vec<Vec<u8>>| -> Vec<ObjectRef> {
        let packed: Vec<Packed> = chunks.iter().map(|chunk| pack(kind, chunk, key).unwrap()).collect();
        let references = packed.iter().map(|packed| packed.reference(&format!("./{}", packed.name))).collect();
        objects.extend(packed);
        references
    };
    let (graph_header, elements) = graph(40, 4, 1);
    let graph = SegmentObjects {
        structure: Structure::Graph(graph_header),
        origin: Some([3; 16]),
        created: 814_000_000_000_000,
        rows: elements.iter().map(|element| element.rows.len() as u64).sum(),
        objects: put(Kind::Graph, graph_chunks(graph_header, &elements)),
        centroids: vec![],
        tombstones: put(Kind::Tombstones, encode_tombstones(40, [0, 1, 7, 39]).unwrap()),
        vectors: vec![],
    };
    let (lists_header, elements) = lists(50, 9, 2);
    let rows = elements.iter().map(|element| element.rows.len()).sum::<usize>();
    let lists = SegmentObjects {
        structure: Structure::Lists(lists_header),
        origin: None,
        created: 813_000_000_000_000,
        rows: rows as u64,
        objects: put(Kind::Lists, lists_chunks(lists_header, &elements)),
        centroids: put(Kind::Centroids, encode_centroids(&lists_header, centroids(&lists_header, 3)).unwrap()),
        tombstones: vec![],
        vectors: put(Kind::Vectors, vectors(rows, 5)),
    };
    let rows = archive::RowsEncoder::new().chunk(b"1\tone\n2\t\\N\n3\t[0,0.5,1]\n").unwrap();
    let rows = put(Kind::Rows, vec![rows]).remove(0);
    let manifest = Manifest {
        version: archive::MANIFEST_VERSION,
        kind: ManifestKind::Backup,
        created: 815_000_000_123_456,
        identity: Identity { system_identifier: 7_300_000_000_000_000_001, timeline: 1, set: [9; 16] },
        source: source(None),
        extension_version: "0.1.0".into(),
        indexes: vec![ArchivedIndex { definition: index(), segments: vec![graph, lists] }],
        table: Some(table()),
        rows: vec![RowsChunk { object: rows, rows: 3, blocks: (0, 0) }],
        not_carried: vec!["trigger \"audit\"".into()],
        tags: BTreeMap::from([("reason".to_string(), "nightly".to_string())]),
        parent: Some("manifest-00000000000000000000000000000000.cbor".into()),
        encryption: key.map(archive::Key::id),
    };
    (manifest, objects)
}

pub fn source(index: Option<&str>) -> Source {
    let [database, schema, table] = ["shop", "public", "docs"].map(String::from);
    Source { database, schema, table, index: index.map(String::from) }
}

fn builtin(name: &str, arguments: &[&str]) -> TypeName {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    TypeName { schema: "pg_catalog".into(), name: name.into(), extension: None, arguments, dimensions: 0 }
}

pub fn index() -> Index {
    let class =
        |name: &str| ObjectName { schema: "public".into(), name: name.into(), extension: Some("hybridvec".into()) };
    let vector = TypeName { schema: "public".into(), extension: Some("hybridvec".into()), ..builtin("vector", &["5"]) };
    Index {
        name: "docs_embedding_idx".into(),
        table_schema: "public".into(),
        table: "docs".into(),
        method: "hybrid".into(),
        vector: Indexed::Column("embedding".into()),
        vector_type: vector,
        opclass: class("vector_cosine_ops"),
        keys: vec![],
        predicate: None,
        options: vec![Parameter { name: "m".into(), value: "4".into() }],
    }
}

pub fn table() -> Table {
    let column = |name: &str, of: TypeName| Column {
        name: name.into(),
        of,
        not_null: false,
        collation: None,
        storage: None,
        compression: None,
        numbering: None,
        default: None,
        comment: None,
    };
    Table {
        schema: "public".into(),
        name: "docs".into(),
        unlogged: false,
        columns: vec![column("id", builtin("int8", &[])), column("embedding", index().vector_type)],
        options: vec![],
        constraints: vec![],
        plain_indexes: vec![],
        hybrid_indexes: vec![index()],
        owner: Some("shop_owner".into()),
        comment: None,
        not_carried: vec!["trigger \"audit\"".into()],
    }
}

pub fn vectors(rows: usize, dimensions: u16) -> Vec<Vec<u8>> {
    let mut encoder = archive::VectorsEncoder::new(dimensions).unwrap();
    let vector = |row| (0..dimensions).map(|i| (row as f32 + 0.5) / f32::from(i + 1)).collect::<Vec<_>>();
    let mut chunks: Vec<_> = (0..rows).filter_map(|row| encoder.push(&vector(row)).unwrap()).collect();
    chunks.extend(encoder.finish());
    chunks
}
