//! How fast does a directory take objects of 4 MiB, and give them back? `cargo run --release --example directory PATH MIB`

use blobstore::directory::Directory;
use blobstore::names::name_of;
use blobstore::{Context, Expected, Object, Store};
use std::path::PathBuf;
use std::time::Instant;

const LENGTH: usize = 4 << 20;

fn object(number: u64) -> Object {
    let mut bytes = vec![0; LENGTH];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    of(bytes, "segment", "bin")
}

fn of(bytes: Vec<u8>, kind: &str, extension: &str) -> Object {
    Object { name: name_of(kind, extension, blake3::hash(&bytes).as_bytes()), bytes }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("no path")?);
    let count = arguments.next().map_or(Ok(64), |mib| mib.parse::<u64>())? * (1 << 20) / LENGTH as u64;
    let store = Directory::open(&path, None)?;
    let context = Context::default();
    let megabytes = (count * LENGTH as u64) as f64 / 1e6;
    let objects: Vec<Object> = (0..count).map(object).collect();
    for round in ["stored", "reused"] {
        let begin = Instant::now();
        let mut upload = store.upload(&context)?;
        for object in &objects {
            upload.put(object.clone())?;
        }
        let receipt = upload.finish(&mut |placed| of(format!("{placed:?}").into_bytes(), "manifest", "cbor"))?;
        println!("{round}: {:.0} MB/s, {} bytes sent", megabytes / begin.elapsed().as_secs_f64(), receipt.sent);
        let begin = Instant::now();
        for placed in &receipt.objects {
            store.fetch(&placed.locator, None, &Expected { hash: placed.hash, length: placed.length }, &context)?;
        }
        println!("fetched: {:.0} MB/s", megabytes / begin.elapsed().as_secs_f64());
    }
    Ok(())
}
