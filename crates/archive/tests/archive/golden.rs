//! Files in `tests/golden` were written by version 1. Every later release reads them, and this one writes them.
//!
//! Raw chunks and the CBOR of manifests are compared byte for byte. Frames are read; written are those without
//! compression, as what Zstandard makes of the same bytes may change with its releases.

use crate::data::archive;
use archive::{Key, Kind, Manifest, Packed, pack, peek, unpack};
use std::path::PathBuf;

const KEY: [u8; 32] = [42; 32];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// One object of each kind, raw and as stored, in the clear and encrypted; none of 40 bytes gets shorter by
/// compression.
fn files() -> Vec<(String, Vec<u8>)> {
    let (key, mut files) = (Key::new(&KEY), Vec::new());
    let ((manifest, objects), (secret_manifest, secret)) = (archive(None), archive(Some(&key)));
    for ((object, secret), reference) in objects.iter().zip(&secret).zip(manifest.objects()) {
        let kind = Kind::of_name(&object.name).unwrap();
        files.push((format!("{}.raw.bin", kind.word()), unpack(&object.bytes, reference, None).unwrap()));
        files.push((format!("{}.bin", kind.word()), object.bytes.clone()));
        files.push((format!("{}.encrypted.bin", kind.word()), secret.bytes.clone()));
    }
    files.push(("manifest.raw.bin".into(), manifest.encode().unwrap()));
    files.push(("manifest.bin".into(), manifest.pack(None).unwrap().bytes));
    files.push(("manifest.encrypted.bin".into(), secret_manifest.pack(Some(&key)).unwrap().bytes));
    let short: [u8; 40] = std::array::from_fn(|i| (i as u8).wrapping_mul(31));
    files.push(("short.bin".into(), pack(Kind::Rows, &short, None).unwrap().bytes));
    files.push(("short.encrypted.bin".into(), pack(Kind::Rows, &short, Some(&key)).unwrap().bytes));
    files
}

/// Writes the files. To be run once for each version, before it is released.
#[test]
#[ignore = "writes tests/golden"]
fn write() {
    for (name, bytes) in files() {
        std::fs::write(path(&name), bytes).unwrap();
    }
}

#[test]
fn this_release_writes_them() {
    let files = files();
    assert_eq!(files.len(), 3 * Kind::ALL.len() + 2);
    for (name, bytes) in files {
        let golden = std::fs::read(path(&name)).unwrap();
        let compressed = |bytes: &[u8]| peek(bytes).is_ok() && bytes[10] & 1 != 0;
        if compressed(&bytes) || compressed(&golden) {
            assert_eq!(peek(&bytes), peek(&golden), "{name}");
        } else {
            assert!(bytes == golden, "{name} is written differently");
        }
    }
}

#[test]
fn this_release_reads_them() {
    let key = Key::new(&KEY);
    for kind in Kind::ALL {
        let read = |form: &str| std::fs::read(path(&format!("{}{form}.bin", kind.word()))).unwrap();
        let (raw, clear, encrypted) = (read(".raw"), read(""), read(".encrypted"));
        if kind == Kind::Manifest {
            let [clear, encrypted] = [(clear, None), (encrypted, Some(&key))]
                .map(|(bytes, key)| Manifest::unpack("golden", &bytes, key).unwrap());
            assert_eq!((clear.encode().unwrap(), clear), (raw, archive(None).0));
            assert_eq!(encrypted.encryption, Some(key.id()));
            continue;
        }
        for (bytes, key) in [(clear, None), (encrypted, Some(&key))] {
            let stored = *blake3::hash(&bytes).as_bytes();
            let name = archive::object_name(kind, &stored);
            let (content, raw_length) = (*blake3::hash(&raw).as_bytes(), raw.len() as u64);
            let packed = Packed { name, bytes, content, stored, raw_length };
            assert_eq!(unpack(&packed.bytes, &packed.reference("x"), key).unwrap(), raw);
        }
    }
}
