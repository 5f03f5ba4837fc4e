//! Files below one directory, reached without following a link.

use crate::http::sleep;
use crate::options::plain_path;
use crate::{Context, Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::{File, Metadata, TryLockError};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Bytes between two looks at the context.
const STEP: usize = 1 << 20;

/// How often a file is written again after somebody took its unfinished form for dead.
const ATTEMPTS: usize = 3;

/// Directories from the root of the file system to a store, at most.
const DEEPEST: usize = 200;

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    warning: Option<String>,
}

impl Tree {
    /// See [`super::Directory::open`].
    pub fn open(path: &Path, data_directory: Option<&Path>) -> Result<Self> {
        let refused = |message: String, hint: &str| Error::Option {
            option: "path".to_owned(),
            message,
            hint: Some(hint.to_owned()),
        };
        plain_path(path).map_err(|what| refused(what, "Write an absolute path."))?;
        let mut root = openat(rustix::fs::CWD, "/", way_flags(), Mode::empty()).map_err(|errno| failed(path, errno))?;
        let mut reached = PathBuf::from("/");
        let components: Vec<_> = path
            .components()
            .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
            .collect();
        for (index, name) in components.iter().enumerate() {
            reached.push(name);
            let last = index + 1 == components.len();
            let flags = if last { directory_flags() } else { way_flags() };
            root = match openat(&root, *name, flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::LOOP | Errno::NOTDIR) if is_link(&root, name) => {
                    let message = format!("\"{}\" is a symbolic link", reached.display());
                    return Err(refused(message, "Write the path without links, as realpath shows it."));
                }
                Err(errno) => return Err(failed(&reached, errno)),
            };
        }
        if components.is_empty() {
            return Err(refused("is the root of the file system".to_owned(), "Write the path of a directory."));
        }
        if let Some(data_directory) = data_directory
            && is_inside(&root, data_directory).map_err(|errno| failed(data_directory, errno))?
        {
            return Err(refused("is inside the data directory".to_owned(), "Write a path outside of it."));
        }
        let mode = fstat(&root).map_err(|errno| failed(path, errno))?.st_mode;
        let warning =
            (mode & 0o022 != 0).then(|| format!("others than the owner may write to directory \"{}\"", path.display()));
        Ok(Self { root, path: path.to_owned(), warning })
    }

    /// For a person, if the directory is less safe than it could be.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn failed(&self, directories: &[&str], name: &str, error: impl Into<std::io::Error>) -> Error {
        let mut path = self.path.clone();
        path.extend(directories);
        path.push(name);
        failed(&path, error)
    }

    /// A directory below the root; `None` if it is not there and not to be made.
    pub fn directory(&self, names: &[&str], make: bool) -> Result<Option<OwnedFd>> {
        let mut directory = self.root.try_clone().map_err(|error| self.failed(&[], "", error))?;
        for (depth, name) in names.iter().enumerate() {
            let failed = |errno: Errno| self.failed(&names[..depth], name, errno);
            let mut opened = openat(&directory, *name, directory_flags(), Mode::empty());
            if make && matches!(opened, Err(Errno::NOENT)) {
                match mkdirat(&directory, *name, Mode::from_raw_mode(0o700)) {
                    // The name is to be as lasting as what will lie below it.
                    Ok(()) => rustix::fs::fsync(&directory).map_err(failed)?,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                opened = openat(&directory, *name, directory_flags(), Mode::empty());
            }
            directory = match opened {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(failed(errno)),
            };
        }
        Ok(Some(directory))
    }

    fn made(&self, names: &[&str]) -> Result<OwnedFd> {
        let gone = || self.failed(names, "", std::io::Error::from(std::io::ErrorKind::NotFound));
        self.directory(names, true)?.ok_or_else(gone)
    }

    /// A file that is there, to be read. Never waits, e.g. for the writer of a pipe.
    pub fn existing(&self, directory: &OwnedFd, directories: &[&str], name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed(directories, name, errno)),
        };
        let metadata = file.metadata().map_err(|error| self.failed(directories, name, error))?;
        if !metadata.is_file() {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file");
            return Err(self.failed(directories, name, error));
        }
        Ok(Some(file))
    }

    /// The content; `None` if it is longer than `limit` bytes.
    pub fn read(&self, file: &mut File, limit: u64, context: &Context) -> Result<Option<Vec<u8>>> {
        let error = |error| self.failed(&[], "", error);
        let length = file.metadata().map_err(error)?.len();
        if length > limit {
            return Ok(None);
        }
        // The file may change while it is read, so neither its length nor the limit is believed.
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).min(16 << 20));
        loop {
            context.check()?;
            let left = limit.saturating_add(1) - bytes.len() as u64;
            let step = file.take(left.min(STEP as u64)).read_to_end(&mut bytes).map_err(error)?;
            match bytes.len() as u64 > limit {
                true => return Ok(None),
                false if step < STEP.min(usize::try_from(left).unwrap_or(STEP)) => return Ok(Some(bytes)),
                false => {}
            }
        }
    }

    /// Makes a file. It has its name only when all of it is on disk, and keeps it through a crash when this returns.
    pub fn write(&self, directories: &[&str], name: &str, bytes: &[u8], context: &Context) -> Result<()> {
        let target = self.made(directories)?;
        let incoming = self.made(&["incoming"])?;
        for _ in 0..ATTEMPTS {
            let temporary = format!("{:032x}", rand::random::<u128>());
            let failed = |error: std::io::Error| self.failed(&["incoming"], &temporary, error);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&incoming, &temporary, flags, Mode::from_raw_mode(0o600))
                .map_err(|errno| failed(errno.into()))?;
            let file = File::from(file);
            // Whoever got the lock first took the file for dead.
            if file.try_lock().is_err() {
                continue;
            }
            if let Err(error) = fill(&file, bytes, context, &failed) {
                let _ = unlinkat(&incoming, &temporary, AtFlags::empty());
                return Err(error);
            }
            match renameat(&incoming, &temporary, &target, name) {
                Ok(()) => {}
                Err(Errno::NOENT) => continue,
                Err(errno) => {
                    let _ = unlinkat(&incoming, &temporary, AtFlags::empty());
                    return Err(self.failed(directories, name, errno));
                }
            }
            return rustix::fs::fsync(&target).map_err(|errno| self.failed(directories, name, errno));
        }
        let error = std::io::Error::other("somebody removes files while they are written");
        Err(self.failed(directories, name, error))
    }

    /// `false` if there was none.
    pub fn remove(&self, directories: &[&str], name: &str) -> Result<bool> {
        let Some(directory) = self.directory(directories, false)? else { return Ok(false) };
        match unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(self.failed(directories, name, errno)),
        }
        rustix::fs::fsync(&directory).map_err(|errno| self.failed(directories, name, errno))?;
        Ok(true)
    }

    /// Names of the files in a directory, and what is known of them. Links and other things are passed over.
    pub fn files(&self, directories: &[&str], context: &Context) -> Result<Vec<(String, Metadata)>> {
        let Some(directory) = self.directory(directories, false)? else { return Ok(Vec::new()) };
        let failed = |errno: Errno| self.failed(directories, "", errno);
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory).map_err(failed)? {
            context.check()?;
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown)
                && let Ok(Some(file)) = self.existing(&directory, directories, name)
                && let Ok(metadata) = file.metadata()
            {
                files.push((name.to_owned(), metadata));
            }
        }
        Ok(files)
    }

    /// Removes what dead writers left: files in `incoming` whose lock nobody holds.
    pub fn remove_dead(&self, context: &Context) -> Result<()> {
        let Some(incoming) = self.directory(&["incoming"], false)? else { return Ok(()) };
        for (name, _) in self.files(&["incoming"], context)? {
            if let Ok(Some(file)) = self.existing(&incoming, &["incoming"], &name)
                && file.try_lock().is_ok()
            {
                let _ = unlinkat(&incoming, &name, AtFlags::empty());
            }
        }
        Ok(())
    }

    /// Waits for the lock of the store, shared or exclusive, held until the file is closed.
    pub fn lock(&self, exclusive: bool, context: &Context) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.root, "lock", flags, Mode::from_raw_mode(0o600));
        let file = File::from(file.map_err(|errno| self.failed(&[], "lock", errno))?);
        loop {
            let locked = if exclusive { file.try_lock() } else { file.try_lock_shared() };
            match locked {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(20), context)?,
                Err(TryLockError::Error(error)) => return Err(self.failed(&[], "lock", error)),
            }
        }
    }
}

fn fill(mut file: &File, bytes: &[u8], context: &Context, failed: &dyn Fn(std::io::Error) -> Error) -> Result<()> {
    for step in bytes.chunks(STEP) {
        context.check()?;
        file.write_all(step).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// For directories on the way, which need not be readable.
fn way_flags() -> OFlags {
    let access = if cfg!(target_os = "linux") { OFlags::PATH } else { OFlags::RDONLY };
    access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn is_link(directory: &OwnedFd, name: &std::ffi::OsStr) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Whether `root` is `other` or lies below it, whatever the paths look like.
fn is_inside(root: &OwnedFd, other: &Path) -> rustix::io::Result<bool> {
    let other = rustix::fs::stat(other)?;
    let mut here = openat(root, ".", way_flags(), Mode::empty())?;
    for _ in 0..DEEPEST {
        let stat = fstat(here.as_fd())?;
        if (stat.st_dev, stat.st_ino) == (other.st_dev, other.st_ino) {
            return Ok(true);
        }
        let above = openat(&here, "..", way_flags(), Mode::empty())?;
        let parent = fstat(above.as_fd())?;
        if (stat.st_dev, stat.st_ino) == (parent.st_dev, parent.st_ino) {
            return Ok(false);
        }
        here = above;
    }
    Err(Errno::NAMETOOLONG)
}

fn failed(path: &Path, error: impl Into<std::io::Error>) -> Error {
    Error::File { path: path.display().to_string(), message: error.into().to_string() }
}
