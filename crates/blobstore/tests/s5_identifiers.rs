//! Identifiers against the vectors of the reference (`s5-vectors.json`): every form, base and size.

use blobstore::s5::cid::{Base, BlobId, Function, parse_multihash};
use data_encoding::HEXLOWER;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("s5-vectors.json")).expect("vectors are JSON")
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("{key} in {vector}"))
}

/// The bytes that a vector of `blob_ids` describes in words.
fn input(vector: &Value) -> Vec<u8> {
    let size = usize::try_from(vector["size"].as_u64().unwrap()).unwrap();
    match text(vector, "name") {
        "hello world" => b"hello world".to_vec(),
        "Hello, world!" => b"Hello, world!".to_vec(),
        "262145 pattern" => (0..size).map(|i| (i % 251) as u8).collect(),
        _ => vec![0; size],
    }
}

#[test]
fn every_form_and_base_of_every_blob() {
    let vectors = vectors();
    let blobs = vectors["blob_ids"].as_array().unwrap();
    assert_eq!(blobs.len(), 10);
    for vector in blobs {
        let id = BlobId::of(&input(vector));
        assert_eq!(id.size, vector["size"].as_u64().unwrap());
        assert_eq!(HEXLOWER.encode(&id.hash), text(vector, "blake3"));
        assert_eq!(HEXLOWER.encode(&id.bytes()), text(vector, "blob_id_hex"));
        assert_eq!(HEXLOWER.encode(&id.legacy_bytes()), text(vector, "legacy_raw_hex"));
        for (base, new, legacy) in [
            (Base::Base32, Some("base32"), None),
            (Base::Base58, Some("base58btc"), Some("legacy_base58btc")),
            (Base::Base64Url, Some("base64url"), Some("legacy_base64url")),
            (Base::Hex, None, None),
        ] {
            for (written, key) in [(id.text(base), new), (id.legacy_text(base), legacy)] {
                if let Some(key) = key {
                    assert_eq!(written, text(vector, key), "{key}");
                }
                assert_eq!(BlobId::parse(&written), Some(id), "{written}");
            }
        }
        assert_eq!(id.multihash(), text(vector, "multihash_1f_b64url"));
        assert_eq!(parse_multihash(text(vector, "multihash_1e_b64url")), Some(id.hash));
        assert_eq!(parse_multihash(text(vector, "multihash_1f_b64url")), Some(id.hash));
        assert_eq!(id.tus_metadata(), text(vector, "tus_upload_metadata_1f"));
    }
}

#[test]
fn size_zero_has_two_forms() {
    let vectors = vectors();
    let empty = BlobId::of(b"");
    assert_eq!(BlobId::parse(text(&vectors["blob_ids"][0], "s5_core_form_base32")), Some(empty));
    let bytes = HEXLOWER.decode(text(&vectors["blob_ids"][0], "s5_core_form_hex").as_bytes()).unwrap();
    assert_eq!(bytes.len(), 35);
    assert_eq!(BlobId::from_bytes(&bytes), Some(empty));
    assert_eq!(empty.bytes().len(), 36);
}

#[test]
fn sizes_of_one_to_eight_bytes() {
    for vector in vectors()["blob_id_layout_only"].as_array().unwrap() {
        let id = BlobId::new([0x11; 32], text(vector, "size").parse().unwrap());
        assert_eq!(HEXLOWER.encode(&id.bytes()), text(vector, "hex"));
        assert_eq!(id.text(Base::Base32), text(vector, "base32"));
        assert_eq!(BlobId::parse(text(vector, "base32")), Some(id));
        assert_eq!(BlobId::from_bytes(&id.legacy_bytes()), Some(id));
    }
}

#[test]
fn variants_that_other_clients_send_name_the_same_hash() {
    let vectors = vectors();
    let hello = BlobId::of(b"hello world");
    let miss = &vectors["blob_id_variants"]["s5js_p2p_miss_fallback_form"];
    let parsed = BlobId::parse(text(miss, "base58btc")).unwrap();
    assert_eq!((parsed.hash, parsed.size), (hello.hash, 0));
    assert_eq!(BlobId::parse(&format!("f{}", text(miss, "hex"))), Some(parsed));
    let server = &vectors["blob_id_variants"]["server_ts_upload_form"];
    assert_eq!(BlobId::parse(text(server, "base32")), Some(hello));
}

#[test]
fn foreign_blobs_keep_their_function() {
    let id = BlobId { function: Function::Sha256, hash: [7; 32], size: 300 };
    assert_eq!(id.bytes()[2], 0x12);
    assert_eq!(BlobId::parse(&id.text(Base::Hex)), Some(id));
}

#[test]
fn what_is_no_identifier_is_refused() {
    let hello = BlobId::of(b"hello world");
    let base32 = hello.text(Base::Base32);
    let too_long = [hello.bytes(), vec![1; 9]].concat();
    for text in [
        "",
        "b",
        "z",
        "blobb",
        "s5://mock_2cf24dba5fb0a30e26e83b2ac5b9e29e",
        "x5b82",
        "z0OIl",
        "\u{e9}",
        &base32[..base32.len() - 12],
        &base32.to_uppercase(),
        &format!("f{}", HEXLOWER.encode(&too_long)),
        &format!("f5b821d{}", "11".repeat(33)),
        &format!("f5d1e{}", "11".repeat(32)),
        &"z1".repeat(5000),
    ] {
        assert_eq!(BlobId::parse(text), None, "{text}");
    }
    assert_eq!(parse_multihash("Hw"), None);
    assert_eq!(parse_multihash(""), None);
    assert_eq!(parse_multihash(&"A".repeat(44)), None);
}
