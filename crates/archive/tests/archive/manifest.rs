//! Manifests have one form, and are refused in any other.

use crate::data::{archive, index, source};
use archive::{Error, LARGEST_MANIFEST, Manifest, ManifestKind};
use serde_cbor::Value;

fn refused(bytes: &[u8]) -> String {
    match Manifest::decode(bytes) {
        Err(Error::Damaged { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn manifests_come_back() {
    let (backup, _) = archive(None);
    let export = Manifest {
        kind: ManifestKind::Export,
        source: source(Some("docs_embedding_idx")),
        table: None,
        rows: vec![],
        parent: None,
        ..backup.clone()
    };
    for manifest in [backup, export] {
        let encoded = manifest.encode().unwrap();
        assert_eq!(encoded, manifest.encode().unwrap());
        let decoded = Manifest::decode(&encoded).unwrap();
        assert_eq!(decoded, manifest);
        assert_eq!(decoded.indexes[0].definition.definition_hash(), index().definition_hash());
        let packed = manifest.pack(None).unwrap();
        assert!(packed.name.starts_with("manifest-") && packed.name.ends_with(".cbor"));
        assert_eq!(Manifest::unpack(&packed.name, &packed.bytes, None).unwrap(), manifest);
    }
}

#[test]
fn locators_are_filled_in() {
    let (mut manifest, _) = archive(None);
    manifest.objects_mut().enumerate().for_each(|(i, object)| object.locator = format!("blob/{i}"));
    assert!(manifest.objects().enumerate().all(|(i, object)| object.locator == format!("blob/{i}")));
    assert_eq!(manifest.objects().count(), 6);
}

#[test]
fn what_is_no_manifest_is_not_encoded() {
    let change = |change: &dyn Fn(&mut Manifest)| {
        let (mut manifest, _) = archive(None);
        change(&mut manifest);
        assert!(matches!(manifest.encode(), Err(Error::Unfit { .. })));
        // As it would arrive from somebody who encodes it anyway.
        let value = serde_cbor::value::to_value(&manifest).unwrap();
        refused(&serde_cbor::to_vec(&value).unwrap());
    };
    change(&|manifest| manifest.version = 0);
    change(&|manifest| manifest.kind = ManifestKind::Export);
    change(&|manifest| manifest.table = None);
    change(&|manifest| manifest.indexes[0].segments[0].objects.clear());
    change(&|manifest| manifest.indexes[0].segments[1].centroids.clear());
    change(&|manifest| manifest.rows[0].object.locator = "two words".into());
    change(&|manifest| manifest.rows[0].object.locator.clear());
    change(&|manifest| manifest.rows[0].object.name = "../../etc/passwd".into());
    change(&|manifest| manifest.rows[0].object.stored[0] ^= 1);
    change(&|manifest| manifest.rows[0].object.stored_length = 1 << 40);
    change(&|manifest| manifest.rows[0].object.raw_length = 1 << 40);
    change(&|manifest| manifest.source.index = Some("zero\0byte".into()));
    change(&|manifest| manifest.indexes[0].definition.name.clear());
}

/// A manifest as a value, to be changed in ways that the types do not allow.
fn value() -> Value {
    serde_cbor::from_slice(&archive(None).0.encode().unwrap()).unwrap()
}

fn encode(value: &Value) -> Vec<u8> {
    serde_cbor::to_vec(value).unwrap()
}

fn with(key: &str, part: Option<Value>) -> Vec<u8> {
    let Value::Map(mut map) = value() else { unreachable!() };
    match part {
        Some(part) => _ = map.insert(Value::Text(key.into()), part),
        None => _ = map.remove(&Value::Text(key.into())).unwrap(),
    }
    encode(&Value::Map(map))
}

#[test]
fn newer_versions_are_told_from_damage() {
    let newer = with("version", Some(Value::Integer(2)));
    assert_eq!(Manifest::decode(&newer), Err(Error::Newer { object: String::new(), version: 2 }));
    // Whatever else it may look like.
    let newer = encode(&Value::Map([(Value::Text("version".into()), Value::Integer(1 << 40))].into()));
    assert_eq!(Manifest::decode(&newer), Err(Error::Newer { object: String::new(), version: 1 << 40 }));
    refused(&with("version", Some(Value::Integer(-1))));
    refused(&with("version", None));
}

#[test]
fn unknown_and_missing_parts_are_refused() {
    refused(&with("zzz", Some(Value::Null)));
    for key in ["kind", "created", "identity", "source", "indexes", "rows", "tags"] {
        refused(&with(key, None));
        refused(&with(key, Some(Value::Bool(true))));
    }
    // What may be null is written as null.
    for key in ["table", "parent", "encryption"] {
        refused(&with(key, None));
    }
    refused(&with("created", Some(Value::Float(1.0))));
    refused(&with("encryption", Some(Value::Bytes(vec![1; 15]))));
}

#[test]
fn other_forms_of_the_same_are_refused() {
    let good = archive(None).0.encode().unwrap();
    assert_eq!(good[0], 0xad, "a map of 13");
    let mut indefinite = good.clone();
    indefinite[0] = 0xbf;
    indefinite.push(0xff);
    assert!(refused(&indefinite).contains("an indefinite length"));
    let longer = [&[0xb8, 13][..], &good[1..]].concat();
    assert!(refused(&longer).contains("longer than need be"));
    assert!(refused(&[&good[..], &[0]].concat()).contains("bytes follow the end"));
    let tagged = [&[0xd9, 0xd9, 0xf7][..], &good].concat();
    assert!(refused(&tagged).contains("a tag"));

    // The first pair of the map once more.
    let Value::Map(map) = value() else { unreachable!() };
    let (key, first) = map.iter().next().unwrap();
    let pair = [encode(key), encode(first)].concat();
    assert!(good[1..].starts_with(&pair));
    let repeated = [&[0xae], &pair[..], &good[1..]].concat();
    assert!(refused(&repeated).contains("keys are repeated or out of order"));
    let moved = [&[0xad], &good[1 + pair.len()..], &pair[..]].concat();
    assert!(refused(&moved).contains("keys are repeated or out of order"));
}

#[test]
fn hostile_cbor_ends_soon() {
    for bytes in [
        vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0],
        vec![0x81; 100_000],
        [vec![0x9a, 0, 0x20, 0, 0], vec![0; 1 << 21]].concat(),
        vec![0; LARGEST_MANIFEST + 1],
        vec![],
        vec![0x61, 0xff],
        vec![0xf9, 0, 0],
        vec![0xf8, 20],
        vec![0xa1, 0, 0],
    ] {
        refused(&bytes);
    }
}

#[test]
fn the_largest_manifest_is_named_when_it_is_passed() {
    let (mut manifest, _) = archive(None);
    manifest.not_carried = vec!["x".repeat(1 << 20); 33];
    let error = manifest.encode().unwrap_err().to_string();
    assert!(
        error.starts_with("the manifest would have ") && error.ends_with("an archive holds at most 33554432"),
        "{error}"
    );
}
