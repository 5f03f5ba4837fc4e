//! S5: a [`portal`] (HTTP node) and [`path`] services, on a genuine S5 blob engine.
//!
//! No server with an HTTP interface of S5 can be installed from a package index, so both are emulated; the identifiers,
//! the hashing and the storage of blobs are those of the crates of S5 itself (`s5_core`, `s5_store_local`).
//!
//! Besides the routes of every emulator (see the crate), both answer:
//!
//! | route | what it does |
//! |---|---|
//! | `POST /_emulator/wipe` | forgets everything, as a restart with loss of data would |
//! | `POST /_emulator/lose/NAME` | loses the bytes of a blob (portal: any identifier of it; path service: its path), while everything that names it stays |

mod engine;
mod id;
pub mod path;
pub mod portal;

pub use path::PathService;
pub use portal::Portal;

use std::io;
use std::path::Path;

/// Reads a state that an earlier process saved; the default if there is none.
fn load<T: serde::de::DeserializeOwned + Default>(file: Option<&Path>) -> io::Result<T> {
    match file.map(std::fs::read) {
        Some(Ok(bytes)) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(T::default()),
    }
}

/// Replaces the saved state; a reader sees the old or the new one.
fn save<T: serde::Serialize>(file: Option<&Path>, state: &T) -> io::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(state)?)?;
    std::fs::rename(&new, file)
}

/// Milliseconds since 1970-01-01 UTC.
fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// 32 bytes that differ at each call and that nobody outside the process can guess; enough for an emulator.
fn fresh() -> [u8; 32] {
    use std::hash::{BuildHasher, RandomState};
    let mut hasher = blake3::Hasher::new();
    for _ in 0..4 {
        hasher.update(&RandomState::new().hash_one(now_ms()).to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}
