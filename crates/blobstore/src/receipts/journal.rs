//! A file of records that survives crashes, shared by processes.
//!
//! ```text
//! offset  bytes
//! 0       22      "hybridvec receipts 1\n" and a zero byte
//! then for each record:
//! 0       4       "rcpt"
//! 4       4       length of the payload, little-endian, at most 64 MiB
//! 8       8       first bytes of BLAKE3(length as above, payload)
//! 16      length  payload
//! ```
//!
//! A record counts once its checksum is right. Behind the last one that counts there may be the torn beginning of
//! another, which the next writer cuts. Damage in the middle costs the records that it lies in: reading goes on at the
//! next record that counts.

use crate::http::sleep;
use crate::{Context, Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAGIC: &[u8; 22] = b"hybridvec receipts 1\n\0";
const MARK: &[u8; 4] = b"rcpt";
const HEADER: usize = 16;
const LONGEST: usize = 64 << 20;

/// Records that were not read before.
pub(super) struct Read {
    pub records: Vec<Vec<u8>>,
    /// The file was replaced: these are all records, not only new ones.
    pub from_start: bool,
}

/// The right to write, and the file. Released when dropped.
pub(super) struct Lock {
    _held: File,
    file: File,
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[derive(Clone)]
pub(super) struct Journal {
    directory: PathBuf,
    path: PathBuf,
    lock_path: PathBuf,
    /// Device and inode of the file that was read up to `end`.
    identity: Option<(u64, u64)>,
    /// Behind the last record that counts.
    end: u64,
}

impl Journal {
    pub fn new(directory: &Path, name: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            path: directory.join(format!("{name}.journal")),
            lock_path: directory.join(format!("{name}.lock")),
            identity: None,
            end: 0,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn length(&self) -> u64 {
        self.end
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::File { path: self.path.display().to_string(), message: error.to_string() }
    }

    /// New records, without a lock.
    pub fn read(&mut self) -> Result<Read> {
        match File::open(&self.path) {
            Ok(mut file) => self.read_file(&mut file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let from_start = self.identity.take().is_some();
                self.end = 0;
                Ok(Read { records: Vec::new(), from_start })
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// New records, and the torn tail cut off.
    pub fn read_locked(&mut self, lock: &mut Lock) -> Result<Read> {
        let read = self.read_file(&mut lock.file)?;
        let length = lock.file.metadata().map_err(|error| self.failed(&error))?.len();
        if length > self.end {
            lock.file.set_len(self.end).map_err(|error| self.failed(&error))?;
        }
        Ok(read)
    }

    fn read_file(&mut self, file: &mut File) -> Result<Read> {
        let metadata = file.metadata().map_err(|error| self.failed(&error))?;
        let identity = (metadata.dev(), metadata.ino());
        let from_start = self.identity != Some(identity) || metadata.len() < self.end;
        let had_records = self.end > 0;
        if from_start {
            self.end = 0;
            self.identity = Some(identity);
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.end)).map_err(|error| self.failed(&error))?;
        file.read_to_end(&mut bytes).map_err(|error| self.failed(&error))?;
        let mut at = 0;
        if self.end == 0 {
            if !MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) {
                let message = "is not a journal of receipts, or damaged at its beginning".to_owned();
                return Err(Error::File { path: self.path.display().to_string(), message });
            }
            if bytes.len() < MAGIC.len() {
                return Ok(Read { records: Vec::new(), from_start: had_records });
            }
            at = MAGIC.len();
        }
        let mut records = Vec::new();
        let mut counted = at;
        while let Some((payload, next)) = next_record(&bytes, at) {
            records.push(payload.to_vec());
            (at, counted) = (next, next);
        }
        self.end += counted as u64;
        Ok(Read { records, from_start: from_start && had_records })
    }

    /// Waits for the right to write; makes the directory and the file if need be.
    pub fn lock(&self, context: &Context) -> Result<Lock> {
        let held = self.hold(&self.lock_path, context)?;
        let file = open(&self.path).map_err(|error| self.failed(&error))?;
        Ok(Lock { _held: held, file })
    }

    /// Waits for its turn at the place of the journal.
    pub fn turn(&self, context: &Context) -> Result<File> {
        self.hold(&self.lock_path.with_extension("turn"), context)
    }

    /// Waits for a lock file, which is made if need be. Closing it lets it go, also if a process dies.
    fn hold(&self, path: &Path, context: &Context) -> Result<File> {
        let failed = |error: std::io::Error| self.failed(&error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(failed)?;
        let held = open(path).map_err(failed)?;
        loop {
            match held.try_lock() {
                Ok(()) => return Ok(held),
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(5), context)?,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Adds a record. It is on disk afterwards. `read_locked` came before.
    pub fn append(&mut self, lock: &mut Lock, payload: &[u8]) -> Result<()> {
        if payload.len() > LONGEST {
            let message = "a receipt is too long".to_owned();
            return Err(Error::File { path: self.path.display().to_string(), message });
        }
        let new = self.end == 0;
        let mut bytes = if new { MAGIC.to_vec() } else { Vec::new() };
        bytes.extend(frame(payload));
        let file = &mut lock.file;
        let written = file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_data())
            .and_then(|()| if new { sync_directory(&self.directory) } else { Ok(()) });
        if let Err(error) = written {
            // What is there of it does not count, unless it is whole: then it must not be found later.
            let _ = file.set_len(self.end);
            return Err(self.failed(&error));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Puts these records in place of all; readers find the old file or the new one.
    pub fn replace(&mut self, lock: Lock, payloads: impl Iterator<Item = Vec<u8>>) -> Result<()> {
        let failed = |error: std::io::Error| self.failed(&error);
        let new_path = self.path.with_extension("new");
        let mut bytes = MAGIC.to_vec();
        for payload in payloads {
            bytes.extend(frame(&payload));
        }
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new_path).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new_path, &self.path).map_err(failed)?;
        sync_directory(&self.directory).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        self.identity = Some((metadata.dev(), metadata.ino()));
        self.end = bytes.len() as u64;
        drop(lock);
        Ok(())
    }
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(MARK);
    bytes.extend(length);
    bytes.extend(checksum(length, payload));
    bytes.extend(payload);
    bytes
}

fn checksum(length: [u8; 4], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

/// The first record that counts at or after `at`, and where it ends.
fn next_record(bytes: &[u8], mut at: usize) -> Option<(&[u8], usize)> {
    loop {
        let offset = bytes.get(at..)?.windows(MARK.len()).position(|window| window == MARK)?;
        let begin = at + offset;
        if let Some(payload) = record_at(bytes, begin) {
            return Some((payload, begin + HEADER + payload.len()));
        }
        at = begin + 1;
    }
}

fn record_at(bytes: &[u8], begin: usize) -> Option<&[u8]> {
    let length: [u8; 4] = bytes.get(begin + 4..begin + 8)?.try_into().ok()?;
    let sum: [u8; 8] = bytes.get(begin + 8..begin + HEADER)?.try_into().ok()?;
    let count = u32::from_le_bytes(length) as usize;
    if count > LONGEST {
        return None;
    }
    let payload = bytes.get(begin + HEADER..begin + HEADER + count)?;
    (checksum(length, payload) == sum).then_some(payload)
}
