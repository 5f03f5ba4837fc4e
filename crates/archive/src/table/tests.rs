use super::*;
use proptest::prelude::*;

fn builtin(name: &str) -> TypeName {
    TypeName { schema: "pg_catalog".into(), name: name.into(), extension: None, arguments: vec![], dimensions: 0 }
}

fn column(name: &str, of: TypeName) -> Column {
    Column {
        name: name.into(),
        of,
        not_null: false,
        collation: None,
        storage: None,
        compression: None,
        numbering: None,
        default: None,
        comment: None,
    }
}

fn class(name: &str) -> ObjectName {
    ObjectName { schema: "pg_catalog".into(), name: name.into(), extension: None }
}

fn hybrid() -> Index {
    let vector = TypeName { arguments: vec!["384".into()], ..builtin("vector") };
    Index {
        name: "docs_v_idx".into(),
        table_schema: "public".into(),
        table: "docs".into(),
        method: "hybrid".into(),
        vector: Indexed::Column("v".into()),
        vector_type: vector,
        opclass: class("vector_cosine_ops"),
        keys: vec![KeyColumn {
            key: Indexed::Column("id".into()),
            of: builtin("int8"),
            opclass: class("hybrid_int8_ops"),
        }],
        predicate: None,
        options: vec![Parameter { name: "m".into(), value: "16".into() }],
    }
}

fn docs() -> Table {
    let numbering = Numbering {
        kind: NumberingKind::Always,
        width: Width::Int8,
        start: 1,
        increment: 1,
        minimum: 1,
        maximum: i64::MAX,
        cache: 1,
        cycle: false,
        position: Some(Position { last_value: 7, is_called: true }),
    };
    Table {
        schema: "public".into(),
        name: "docs".into(),
        unlogged: false,
        columns: vec![
            Column { numbering: Some(numbering), not_null: true, ..column("id", builtin("int8")) },
            column("v", TypeName { arguments: vec!["384".into()], ..builtin("vector") }),
        ],
        options: vec![Parameter { name: "fillfactor".into(), value: "70".into() }],
        constraints: vec![Unique {
            name: "docs_pkey".into(),
            primary: true,
            columns: vec!["id".into()],
            include: vec![],
            nulls_not_distinct: false,
            deferrable: false,
            initially_deferred: false,
            options: vec![],
        }],
        plain_indexes: vec![PlainIndex {
            name: "docs_id_idx".into(),
            method: "btree".into(),
            unique: false,
            nulls_not_distinct: false,
            columns: vec![IndexColumn {
                name: "id".into(),
                opclass: class("int8_ops"),
                collation: None,
                descending: true,
                nulls_first: true,
            }],
            include: vec!["v".into()],
            options: vec![],
        }],
        hybrid_indexes: vec![hybrid()],
        owner: Some("app".into()),
        comment: None,
        not_carried: vec!["check constraint \"c\": CHECK (id > 0)".into()],
    }
}

#[test]
fn a_good_description_passes_and_survives_encoding() {
    let table = docs();
    table.check().expect("good");
    let bytes = serde_cbor::to_vec(&table).expect("encodes");
    assert_eq!(serde_cbor::from_slice::<Table>(&bytes).expect("decodes"), table);
    assert_eq!(serde_cbor::to_vec(&docs()).expect("encodes"), bytes, "the same description, the same bytes");
}

#[test]
fn fields_that_are_not_known_are_refused() {
    let mut value = serde_cbor::value::to_value(docs()).expect("a value");
    let serde_cbor::Value::Map(map) = &mut value else { panic!("a map") };
    map.insert(serde_cbor::Value::Text("before_create".into()), serde_cbor::Value::Text("DROP TABLE x".into()));
    assert!(serde_cbor::value::from_value::<Table>(value).is_err());
}

/// A change to a description, and a part of what is said of it.
type Damage = (fn(&mut Table), &'static str);

#[test]
fn damaged_descriptions_are_refused() {
    let damages: Vec<Damage> = vec![
        (|t| t.name.clear(), "table is empty"),
        (|t| t.name = "x".repeat(64), "64 bytes"),
        (|t| t.schema = "a\0b".into(), "zero byte"),
        (|t| t.columns[1].name = "id".into(), "\"id\" is there twice"),
        (|t| t.columns = vec![column("c", builtin("int4")); 1601], "1601 columns"),
        (|t| t.columns[1].of.name.clear(), "type is empty"),
        (|t| t.columns[1].of.dimensions = 7, "7 dimensions"),
        (|t| t.columns[1].of.arguments = vec!["1".into(); 33], "33 arguments"),
        (|t| t.columns[1].default = Some("x".repeat(MAX_TEXT + 1)), "1048577 bytes"),
        (|t| t.columns[0].default = Some("1".into()), "cannot number"),
        (|t| t.columns[0].numbering.as_mut().expect("there").increment = 0, "contradict"),
        (|t| t.columns[0].numbering.as_mut().expect("there").width = Width::Int2, "contradict"),
        (|t| t.columns[0].numbering.as_mut().expect("there").minimum = 8, "contradict"),
        (|t| t.options.push(t.options[0].clone()), "\"fillfactor\" is there twice"),
        (|t| t.constraints[0].columns = vec!["nothing".into()], "\"nothing\", which there is not"),
        (|t| t.constraints[0].columns.clear(), "has no column"),
        (|t| t.constraints[0].initially_deferred = true, "not deferrable"),
        (|t| t.constraints.push(Unique { name: "second".into(), ..t.constraints[0].clone() }), "more than one primary"),
        (|t| t.plain_indexes[0].name = "docs_pkey".into(), "\"docs_pkey\" is there twice"),
        (|t| t.plain_indexes[0].include = vec!["id".into(); 32], "33 columns of an index"),
        (|t| t.hybrid_indexes[0].vector = Indexed::Expression("now()".into()), "not on plain columns"),
        (|t| t.hybrid_indexes[0].predicate = Some("true".into()), "not on plain columns"),
        (|t| t.hybrid_indexes[0].method = "btree".into(), "not a hybrid index"),
        (|t| t.hybrid_indexes[0].keys[0].key = Indexed::Column("gone".into()), "\"gone\", which there is not"),
        (|t| t.not_carried = vec![String::new(); 10_001], "10001 lines"),
    ];
    for (damage, said) in damages {
        let mut table = docs();
        damage(&mut table);
        let message = table.check().expect_err(said).to_string();
        assert!(message.contains(said), "{message:?} does not say {said:?}");
    }
}

#[test]
fn the_hash_is_of_what_the_index_holds() {
    let hash = hybrid().definition_hash();
    let mut same = hybrid();
    (same.name, same.table, same.table_schema) = ("i".into(), "t".into(), "s".into());
    same.opclass.schema = "elsewhere".into();
    same.vector_type.schema = "elsewhere".into();
    same.options.clear();
    assert_eq!(same.definition_hash(), hash);
    let changes: [fn(&mut Index); 9] = [
        |i| i.vector = Indexed::Column("w".into()),
        |i| i.vector = Indexed::Expression("v".into()),
        |i| i.vector_type.arguments = vec!["385".into()],
        |i| i.vector_type.arguments = vec!["38".into(), "4".into()],
        |i| i.opclass.name = "vector_l2_ops".into(),
        |i| i.keys.clear(),
        |i| i.keys.push(i.keys[0].clone()),
        |i| i.keys[0].of.name = "int4".into(),
        |i| i.predicate = Some(String::new()),
    ];
    let mut seen = std::collections::HashSet::from([hash]);
    for change in changes {
        let mut index = hybrid();
        change(&mut index);
        assert!(seen.insert(index.definition_hash()), "{index:?} has the hash of another");
    }
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex, "736e0c67f490c7fe2727f8b992a722fcd143ff4f5f4a90e4f2fd337e1f3661d5",
        "archives of released versions have it"
    );
}

proptest! {
    /// Flipped and cut bytes decode to nothing or to a description that is checked without a panic.
    #[test]
    fn damaged_bytes_do_no_harm(at in any::<prop::sample::Index>(), flip in 1..=255u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = serde_cbor::to_vec(&docs()).expect("encodes");
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(table) = serde_cbor::from_slice::<Table>(bytes) {
                let _ = table.check();
                let _hashes: Vec<_> = table.hybrid_indexes.iter().map(Index::definition_hash).collect();
            }
        }
    }
}
