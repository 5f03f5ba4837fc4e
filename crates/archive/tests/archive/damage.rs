//! Objects that are not what they should be are refused, by name.

use crate::data::{archive, graph_chunks};
use archive::{
    CHUNK_BYTES, Error, GraphHeader, Key, Kind, LARGEST_RAW, Manifest, Packed, decode_centroids, decode_graph,
    decode_lists, decode_tombstones, decode_vectors, object_name, pack, pack_with, peek, unpack,
};

fn keys() -> [Option<Key>; 2] {
    [None, Some(Key::new(&[7; 32]))]
}

/// The text of an error that names `name` and is no panic.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, name: &str) -> String {
    let text = result.unwrap_err().to_string();
    assert!(text.contains(&format!("\"{name}\"")), "{text}");
    text
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    for key in keys() {
        let (manifest, mut objects) = archive(key.as_ref());
        objects.push(manifest.pack(key.as_ref()).unwrap());
        for object in &objects {
            let expected = object.reference("x");
            let mut bytes = object.bytes.clone();
            // The frame refuses by itself, as where a manifest is all that is known of it, and by what the manifest
            // says.
            let read = |bytes: &[u8]| {
                if object.name.starts_with("manifest") {
                    Manifest::unpack(&object.name, bytes, key.as_ref()).map(|_| ())
                } else {
                    let alone =
                        Packed { bytes: bytes.to_vec(), stored: *blake3::hash(bytes).as_bytes(), ..object.clone() };
                    unpack(bytes, &alone.reference("x"), key.as_ref()).map(|_| ())
                }
            };
            read(&bytes).unwrap();
            let step = 1 + bytes.len() / 1500;
            for at in (0..bytes.len().min(200)).chain((200..bytes.len()).step_by(step)) {
                bytes[at] ^= 1 << (at % 8);
                refused(read(&bytes), &object.name);
                refused(unpack(&bytes, &expected, key.as_ref()), &object.name);
                bytes[at] ^= 1 << (at % 8);
            }
            for cut in (0..bytes.len()).step_by(step) {
                refused(read(&bytes[..cut]), &object.name);
                refused(unpack(&bytes[..cut], &expected, key.as_ref()), &object.name);
            }
            bytes.push(0);
            refused(read(&bytes), &object.name);
        }
    }
}

#[test]
fn swapped_objects_are_refused() {
    for key in keys() {
        let (manifest, objects) = archive(key.as_ref());
        for (i, expected) in manifest.objects().enumerate() {
            for (j, object) in objects.iter().enumerate() {
                let result = unpack(&object.bytes, expected, key.as_ref());
                if i == j { _ = result.unwrap() } else { _ = refused(result, &expected.name) }
            }
        }
        // Even by a manifest that lies about the hash, a kind does not pass for another.
        let (graph, lists) = (&objects[0], &objects[2]);
        let mut lie = lists.reference("x");
        lie.name = object_name(Kind::Graph, &lie.stored);
        assert!(
            refused(unpack(&lists.bytes, &lie, key.as_ref()), &lie.name)
                .ends_with("a lists object, not a graph object")
        );
        refused(Manifest::unpack("m", &graph.bytes, key.as_ref()), "m");
    }
}

#[test]
fn keys_are_told_apart() {
    let [clear, Some(key)] = keys() else { unreachable!() };
    let other = Key::new(&[8; 32]);
    let (manifest, objects) = archive(Some(&key));
    let (object, expected) = (&objects[0], manifest.objects().next().unwrap());
    assert_eq!(peek(&object.bytes).unwrap().key, Some(key.id()));
    let text = refused(unpack(&object.bytes, expected, clear.as_ref()), &object.name);
    assert!(text.contains("cannot be decrypted: it is encrypted with the key "), "{text}");
    refused(unpack(&object.bytes, expected, Some(&other)), &object.name);

    let (plain_manifest, plain) = archive(None);
    assert_eq!(peek(&plain[0].bytes).unwrap().key, None);
    let text = refused(unpack(&plain[0].bytes, &plain[0].reference("x"), Some(&key)), &plain[0].name);
    assert!(text.contains("is not encrypted, and should be"), "{text}");
    assert!(matches!(plain_manifest.pack(Some(&key)), Err(Error::Key { .. })));
    assert!(matches!(manifest.pack(None), Err(Error::Key { .. })));
    let packed = manifest.pack(Some(&key)).unwrap();
    assert_eq!(Manifest::unpack("m", &packed.bytes, Some(&key)).unwrap(), manifest);
    refused(Manifest::unpack("m", &packed.bytes, Some(&other)), "m");
}

#[test]
fn encryption_is_deterministic_and_hides() {
    let (key, other) = (Key::new(&[7; 32]), Key::new(&[8; 32]));
    let raw = b"what is to be hidden, what is to be hidden".repeat(3);
    let [one, again] = [(); 2].map(|()| pack(Kind::Rows, &raw, Some(&key)).unwrap());
    assert_eq!(one, again);
    let elsewhere = pack(Kind::Rows, &raw, Some(&other)).unwrap();
    assert_eq!((one.content, one.bytes.len()), (elsewhere.content, elsewhere.bytes.len()));
    assert_ne!(one.stored, elsewhere.stored);
    // Another kind, or another content: another nonce.
    let nonce = |packed: &Packed| packed.bytes[36..60].to_vec();
    let nonces = [&one, &elsewhere, &pack(Kind::Graph, &raw, Some(&key)).unwrap()].map(nonce);
    assert!(nonces[0] != nonces[1] && nonces[0] != nonces[2] && nonces[1] != nonces[2]);
    // Nothing of the plaintext's hash is in the clear.
    let shows = |packed: &Packed, part: &[u8]| packed.bytes.windows(part.len()).any(|window| window == part);
    assert!(!shows(&one, &one.content[..8]) && !shows(&one, b"hidden"));
    assert_eq!(format!("{key:?}"), format!("Key({})", hex(&key.id())));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn keys_are_read_from_text() {
    let text = "0123456789abcdefABCDEF0123456789ffffffffffffffff0000000000000000";
    let key = Key::from_text(&format!(" {text}\r\n")).unwrap();
    let mut secret = [0; 32];
    (0..32).for_each(|i| secret[i] = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap());
    assert_eq!(key.id(), Key::new(&secret).id());
    for wrong in [
        "",
        &text[1..],
        &format!("{text}00"),
        &text.replace('f', "g"),
        &text.replace("ab", "é"),
        "+1".repeat(32).as_str(),
    ] {
        let error = Key::from_text(wrong).unwrap_err().to_string();
        assert!(error.ends_with("a key has 64 hexadecimal digits"), "{error}");
    }
}

/// A frame made by hand, with what head a liar would give it.
fn frame(kind: u8, flags: u8, raw_length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x89HVA\r\n\x1a\n\x01".to_vec();
    bytes.extend_from_slice(&[kind, flags, 0]);
    bytes.extend_from_slice(&raw_length.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    let mut hasher = blake3::Hasher::new_derive_key("hybridvec archive 1: seal of a frame");
    let mut seal = [0; 16];
    hasher.update(&bytes).finalize_xof().fill(&mut seal);
    bytes.extend_from_slice(&seal);
    bytes
}

#[test]
fn frames_by_hand_are_refused_for_what_they_claim() {
    let read = |bytes: &[u8], raw_length: u64| {
        let stored = *blake3::hash(bytes).as_bytes();
        let name = object_name(Kind::Graph, &stored);
        let packed = Packed { name, bytes: bytes.to_vec(), content: *blake3::hash(b"").as_bytes(), stored, raw_length };
        unpack(bytes, &packed.reference("x"), None).map_err(|error| error.to_string())
    };
    assert_eq!(read(&frame(1, 0, 0, b""), 0), Ok(vec![]));
    let gigabyte = zstd::bulk::compress(&vec![0; 1 << 30], 1).unwrap();
    assert!(gigabyte.len() < 100_000);
    let bomb = read(&frame(1, 1, LARGEST_RAW as u32, &gigabyte), LARGEST_RAW as u64).unwrap_err();
    assert!(bomb.ends_with("its payload does not decompress to the length it should have"), "{bomb}");
    for (bytes, what) in [
        (frame(1, 1, 1 << 30, &gigabyte), "it would have 1073741824 bytes of graph"),
        (frame(1, 1, 10, b""), "its payload does not decompress to the length it should have"),
        (frame(1, 1, 10, &zstd::bulk::compress(&[1; 11], 1).unwrap()), "decompress to the length it should have"),
        (frame(1, 1, 12, &zstd::bulk::compress(&[1; 11], 1).unwrap()), "decompress to the length it should have"),
        (frame(1, 0, 12, &[1; 11]), "decompress to the length it should have"),
        (frame(7, 0, 0, b""), "its kind is 7"),
        (frame(1, 4, 0, b""), "its flags are 4 and 0"),
        (b"<html>not found</html>".to_vec(), "it is no object of an archive"),
        (b"".to_vec(), "it is cut off"),
    ] {
        let error = read(&bytes, 10).unwrap_err();
        assert!(error.ends_with(what), "{error}");
    }
    let mut newer = frame(1, 0, 0, b"");
    newer[8] = 2;
    let error = read(&newer, 0).unwrap_err();
    assert!(error.ends_with(" was written by a newer release: its format has version 2"), "{error}");
}

#[test]
fn what_is_too_large_is_not_packed() {
    let raw = vec![1; LARGEST_RAW + 1];
    assert!(matches!(pack(Kind::Rows, &raw, None), Err(Error::TooLarge { .. })));
    let largest = pack_with(Kind::Rows, &raw[1..], None, 19).unwrap();
    assert_eq!(unpack(&largest.bytes, &largest.reference("x"), None).unwrap(), raw[1..]);
    const { assert!(CHUNK_BYTES + (1 << 20) + 16 * 400 < LARGEST_RAW) };
}

/// Heads with counts that no chunk has room for end at once, and allocate nothing for them.
#[test]
fn huge_counts_are_refused() {
    let graph = GraphHeader { elements: u32::MAX, m: 100, entry: Some(0) };
    let lists = archive::ListsHeader { elements: u32::MAX, lists: 1 << 20, dimensions: 16_000 };
    for rest in [&[][..], &[0xff; 40], &[0; 40]] {
        for head in
            [[0, u32::MAX, 0], [0, u32::MAX - 1, u32::MAX], [0, 1, u32::MAX], [1, 0, u32::MAX], [1, u32::MAX, 9]]
        {
            let chunk: Vec<u8> =
                head.iter().flat_map(|number| number.to_le_bytes()).chain(rest.iter().copied()).collect();
            for first in [0, 1] {
                decode_graph(&graph, first, &chunk, &mut |_, _| Ok(())).unwrap_err();
                decode_lists(&lists, first, &chunk, &mut |_, _| Ok(())).unwrap_err();
                decode_centroids(&lists, first, &chunk, &mut |_, _| Ok(())).unwrap_err();
                decode_vectors(16_000, u64::from(first), &chunk, &mut |_, _| Ok(())).unwrap_err();
            }
        }
    }
    decode_tombstones(u32::MAX, u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0], &mut |_| Ok(())).unwrap_err();
}

/// A caller that had enough is obeyed at once.
#[test]
fn callers_may_stop() {
    let (header, elements) = crate::data::graph(20, 4, 1);
    let mut seen = 0;
    let stop = Error::Stopped { why: "enough".into() };
    let result = decode_graph(&header, 0, &graph_chunks(header, &elements)[0], &mut |_, _| {
        seen += 1;
        if seen == 3 { Err(stop.clone()) } else { Ok(()) }
    });
    assert_eq!((result, seen), (Err(stop), 3));
}
