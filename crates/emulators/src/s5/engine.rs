//! Blobs in a directory, stored by the crates of S5.

use axum::body::Bytes;
use s5_core::blob::BlobStore;
use s5_core::{BlobId, BlobsRead, BlobsWrite, Hash};
use s5_store_local::LocalStore;
use std::io;
use std::path::Path;

pub struct Engine {
    blobs: BlobStore,
    /// Removed with the engine.
    _temporary: Option<tempfile::TempDir>,
}

impl Engine {
    /// Blobs in `directory/blobs`, or in a temporary directory.
    pub fn open(directory: Option<&Path>) -> io::Result<Self> {
        let (root, temporary) = match directory {
            Some(directory) => (directory.join("blobs"), None),
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&root)?;
        Ok(Self { blobs: BlobStore::new(LocalStore::new(root)), _temporary: temporary })
    }

    pub async fn put(&self, bytes: Bytes) -> Result<BlobId, String> {
        self.blobs.blob_upload_bytes(bytes).await.map_err(|error| error.to_string())
    }

    /// The bytes, checked by the engine; `None` if they are not there (any more) or damaged.
    pub async fn get(&self, hash: Hash) -> Option<Bytes> {
        self.blobs.blob_download(hash).await.ok()
    }

    pub async fn contains(&self, hash: Hash) -> bool {
        self.blobs.blob_contains(hash).await.unwrap_or(false)
    }

    pub async fn remove(&self, hash: Hash) -> Result<(), String> {
        self.blobs.delete(hash).await.map_err(|error| error.to_string())
    }

    pub async fn wipe(&self) -> Result<(), String> {
        for hash in self.blobs.list_hashes().await.map_err(|error| error.to_string())? {
            self.remove(hash).await?;
        }
        Ok(())
    }

    pub async fn count(&self) -> usize {
        self.blobs.list_hashes().await.map_or(0, |hashes| hashes.len())
    }
}

/// Waits for a future of the engine; for tests, outside of any runtime.
pub fn wait<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
