//! Temporary files.

use crate::error::raise;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;
use std::fs::File;

/// A temporary file, made by PostgreSQL: where the transaction fails it goes with it.
pub struct TemporaryFile {
    handle: pg_sys::File,
    file: File,
}

impl TemporaryFile {
    /// # Errors
    /// Raises 58030 if there can be none.
    pub fn create() -> Self {
        // SAFETY: makes a file that an abort closes and removes; its path is copied at once.
        let (handle, path) = unsafe {
            let handle = pg_sys::OpenTemporaryFile(false);
            (handle, CStr::from_ptr(pg_sys::FilePathName(handle)).to_string_lossy().into_owned())
        };
        let open = File::options().read(true).write(true).open(&path);
        let file = open.unwrap_or_else(|error| {
            raise(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not open temporary file \"{path}\": {error}"))
        });
        Self { handle, file }
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // The end of a failed transaction closes it.
        if !std::thread::panicking() {
            // SAFETY: opened by `create` in this transaction, closed once.
            unsafe { pg_sys::FileClose(self.handle) };
        }
    }
}
