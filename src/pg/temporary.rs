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

    /// Refuses a file of so many bytes if `temp_file_limit` does: PostgreSQL does not see what is written here.
    ///
    /// # Errors
    /// 53400.
    pub fn check_limit(length: u64) {
        // SAFETY: a setting, read by the main thread.
        let limit = unsafe { pg_sys::temp_file_limit };
        if limit >= 0 && length > limit as u64 * 1024 {
            let message = format!("temporary file size exceeds temp_file_limit ({limit}kB)");
            raise(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message);
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // The end of a failed transaction closes it. So does FATAL, which does not unwind: the process then drops what its
        // thread-local variables hold when PostgreSQL has closed the file already.
        // SAFETY: a flag, read by the main thread.
        let closed = std::thread::panicking() || unsafe { pg_sys::proc_exit_inprogress };
        if !closed {
            // SAFETY: opened by `create` in this transaction, closed once.
            unsafe { pg_sys::FileClose(self.handle) };
        }
    }
}
