//! Memory for index builds: ordinary memory up to a budget, then a temporary file that is mapped.
//!
//! What goes to the file stays one graph in one address space; the kernel writes pages back and drops them when
//! memory is short, as it does with any temporary file. The file's blocks are allocated before they are mapped, so a
//! full disk is an ERROR here and not a SIGBUS later.

use super::temporary::TemporaryFile;
use crate::error::{Fault, raise};
use ann::error::Result;
use ann::hnsw::build::Arena;
use memmap2::{MmapMut, MmapOptions};
use pgrx::PgSqlErrorCode;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;

/// Memory of one build.
pub struct BuildArena {
    budget: usize,
    used: usize,
    spill: Option<Spill>,
}

/// A temporary file that is mapped piece by piece.
struct Spill {
    file: TemporaryFile,
    len: u64,
}

impl BuildArena {
    /// `budget`: bytes of ordinary memory.
    pub fn new(budget: usize) -> Self {
        Self { budget, used: 0, spill: None }
    }

    /// Bytes that went to the file.
    pub fn spilled(&self) -> u64 {
        self.spill.as_ref().map_or(0, |s| s.len)
    }

    /// Bytes asked for: a budget of this many would have held all.
    pub fn requested(&self) -> u64 {
        self.used as u64 + self.spilled()
    }

    /// Forgets what was used, and removes the file: everything from this arena was dropped.
    pub fn reset(&mut self) {
        self.used = 0;
        self.spill = None;
    }

    fn fits(&mut self, len: usize) -> bool {
        let fits = len <= self.budget.saturating_sub(self.used);
        self.used += if fits { len } else { 0 };
        fits
    }

    fn map(&mut self, len: usize) -> MmapMut {
        let spill = self.spill.get_or_insert_with(Spill::create);
        spill.map(len)
    }
}

impl Spill {
    fn create() -> Self {
        Self { file: TemporaryFile::create(), len: 0 }
    }

    fn map(&mut self, len: usize) -> MmapMut {
        let page = 4096;
        let len = len.next_multiple_of(page);
        TemporaryFile::check_limit(self.len + len as u64);
        let code = self.allocate(len);
        if code != 0 {
            let error = std::io::Error::from_raw_os_error(code);
            Fault::new(PgSqlErrorCode::ERRCODE_DISK_FULL, format!("could not extend temporary file: {error}"))
                .hint("Raise maintenance_work_mem, or free space where temp_tablespaces are.")
                .raise();
        }
        // SAFETY: the file is ours alone (made by OpenTemporaryFile, opened by nobody else) and its blocks are allocated.
        let mapped = unsafe { MmapOptions::new().offset(self.len).len(len).map_mut(self.file.file()) };
        self.len += len as u64;
        mapped.unwrap_or_else(|error| {
            raise(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("could not map temporary file: {error}"))
        })
    }

    /// Gives the file `len` more bytes; 0 or an error number.
    fn allocate(&self, len: usize) -> i32 {
        loop {
            // SAFETY: the descriptor is open.
            match unsafe { libc::posix_fallocate(self.file.file().as_raw_fd(), self.len as i64, len as i64) } {
                // Some file systems stop at any signal, and PostgreSQL sends many.
                libc::EINTR => {
                    pgrx::check_for_interrupts!();
                }
                code => return code,
            }
        }
    }
}

/// Bytes in memory or in the file.
pub enum Bytes {
    Memory(Vec<u8>),
    Mapped(MmapMut),
}

impl Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// Shared words in memory or in the file.
pub enum Words {
    Memory(Vec<AtomicU32>),
    Mapped(MmapMut),
}

impl Deref for Words {
    type Target = [AtomicU32];

    #[inline]
    fn deref(&self) -> &[AtomicU32] {
        match self {
            Self::Memory(words) => words,
            // SAFETY: a map is page-aligned and holds whole words of any content; it is only ever reached as atomics.
            Self::Mapped(map) => unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), map.len() / 4) },
        }
    }
}

/// Asks for huge pages: a build jumps about in its memory, and the address translation would cost as much as the reads.
fn want_huge_pages(start: *const u8, len: usize) {
    const PAGE: usize = 4096;
    let from = (start as usize).next_multiple_of(PAGE);
    let to = (start as usize + len) / PAGE * PAGE;
    #[cfg(target_os = "linux")]
    if to > from {
        // SAFETY: whole pages inside an allocation of ours; advice changes no content, and failing does no harm.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
    }
}

fn reserve<T>(len: usize) -> Vec<T> {
    let mut memory = Vec::new();
    if memory.try_reserve_exact(len).is_err() {
        let bytes = len * size_of::<T>();
        raise(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("out of memory: {bytes} bytes for an index build"));
    }
    memory
}

impl Arena for BuildArena {
    type Bytes = Bytes;
    type Words = Words;

    fn bytes(&mut self, len: usize) -> Result<Bytes> {
        if !self.fits(len) {
            return Ok(Bytes::Mapped(self.map(len)));
        }
        let mut memory = reserve(len);
        want_huge_pages(memory.as_ptr(), len);
        memory.resize(len, 0);
        Ok(Bytes::Memory(memory))
    }

    fn charge(&mut self, len: usize) {
        self.used = self.used.saturating_add(len);
    }

    fn words(&mut self, len: usize) -> Result<Words> {
        if !self.fits(len * 4) {
            return Ok(Words::Mapped(self.map(len * 4)));
        }
        let mut memory: Vec<AtomicU32> = reserve(len);
        want_huge_pages(memory.as_ptr().cast(), len * 4);
        memory.resize_with(len, || AtomicU32::new(0));
        Ok(Words::Memory(memory))
    }
}
