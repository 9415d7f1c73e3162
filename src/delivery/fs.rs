//! The files of the state directory, behind a trait small enough to be simulated.
//!
//! What the rest of this room relies on, and the simulation takes away wherever a real disk may:
//!
//! - What was written is safe when [`File::sync`] has returned, and not before. A sync that failed proves that the data is
//!   *not* safe, whatever a later one says: the kernel may have dropped it.
//! - A name that was created, renamed or removed is so after [`Fs::sync_dir`], and not before.
//! - [`Fs::rename`] puts a whole file in the place of another, or does nothing.
//!
//! Nothing is mapped into memory: a disk that is full would end the process with a signal.

use std::collections::BTreeMap;
use std::fmt;
use std::fs as std_fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, OFlags, flock};

#[cfg(test)]
pub(crate) mod simulated;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reading what is there.
    Read,
    /// Reading and writing; it is made if it is not there.
    Write,
    /// Reading and writing; what was there is gone.
    Create,
}

/// A directory without directories in it.
pub(crate) trait Fs: Send + Sync + fmt::Debug {
    /// Opens a file.
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>>;
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Gives a file another name. What had that name is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Whoever has it open goes on.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// What a person calls the file.
    fn path(&self, name: &str) -> String;
    /// False if the directory was removed, emptied or replaced under our hands, which only a real one can be.
    fn is_in_place(&self) -> bool {
        true
    }
}

/// An open file.
pub(crate) trait File: Send + Sync + fmt::Debug {
    /// Reads what there is, at most as much as fits; nothing at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it. After an error any part of it may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the content durable, and as much of the rest as is needed to read it again.
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or fills it up with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;
}

/// What files are copied by.
const CHUNK: usize = 64 << 10;

/// Fills the buffer from the file, or says that the file ends before.
pub(crate) fn read_exact_at(file: &dyn File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match file.read_at(into, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                into = &mut into[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the first bytes of a file anew, to another place of the disk, under the same name: what remains to be done after a
/// sync that failed, in this process or an earlier one. Whoever has the file open goes on with the old one. `lenient`: what
/// cannot be read becomes zeros.
pub(crate) fn rewrite(fs: &dyn Fs, name: &str, length: u64, lenient: bool) -> io::Result<()> {
    let fresh_name = format!("{name}{TEMPORARY}");
    let old = fs.open(name, Mode::Read)?;
    let fresh = fs.open(&fresh_name, Mode::Create)?;
    copy(&*old, &*fresh, length, lenient)
        .and_then(|()| fresh.sync())
        .and_then(|()| fs.rename(&fresh_name, name))
        .inspect_err(|_| {
            // What it takes may be what is missing.
            let _ = fs.remove(&fresh_name);
        })?;
    fs.sync_dir()
}

fn copy(old: &dyn File, fresh: &dyn File, length: u64, lenient: bool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        let part = &mut buffer[..usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK)];
        match read_exact_at(old, part, at) {
            Err(_) if lenient => {
                for (sector, offset) in part.chunks_mut(SECTOR).zip((at..).step_by(SECTOR)) {
                    if read_exact_at(old, sector, offset).is_err() {
                        sector.fill(0);
                    }
                }
            }
            read => read?,
        }
        fresh.write_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// What a disk reads or writes as a whole, at least.
pub(crate) const SECTOR: usize = 512;

/// What the names of unfinished files end in. They mean nothing to the next run.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Whether the disk said that there is no room, which time or an operator may change.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A directory that belongs to this process alone.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
    handle: std_fs::File,
    /// Locked as long as it is open.
    lock: std_fs::File,
}

/// The file that says by its lock that a process works here.
const LOCK: &str = "LOCK";

impl Disk {
    /// Makes the directory if it is not there, for its owner's eyes only, and takes it.
    ///
    /// # Errors
    /// Another process has it, or it cannot be made or written.
    pub(crate) fn open(directory: &Path) -> io::Result<Disk> {
        let about = |doing: &str, error: io::Error| {
            let shown = directory.display();
            io::Error::new(error.kind(), format!("cannot {doing} the state directory {shown}: {error}"))
        };
        std_fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| about("make", error))?;
        let handle = std_fs::File::open(directory).map_err(|error| about("open", error))?;
        let lock =
            options(Mode::Write).open(directory.join(LOCK)).map_err(|error| about("write to", error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!(
                    "another process has the state directory {}: stop it, or give this one a state_dir of its own",
                    directory.display()
                );
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
            }
            Err(error) => return Err(about("lock", error.into())),
        }
        Ok(Disk { directory: directory.to_owned(), handle, lock })
    }
}

fn options(mode: Mode) -> std_fs::OpenOptions {
    let mut options = std_fs::OpenOptions::new();
    options
        .read(true)
        .write(mode != Mode::Read)
        .create(mode != Mode::Read)
        .truncate(mode == Mode::Create)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

impl Fs for Disk {
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>> {
        let file = options(mode).open(self.directory.join(name))?;
        if file.metadata()?.is_file() {
            Ok(Box::new(file))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std_fs::read_dir(&self.directory)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std_fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std_fs::remove_file(self.directory.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Whoever removes or empties the directory takes the lock file away as well.
    fn is_in_place(&self) -> bool {
        let there = std_fs::symlink_metadata(self.directory.join(LOCK));
        let same = |held: std_fs::Metadata| {
            there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino()))
        };
        self.lock.metadata().is_ok_and(same)
    }
}

impl File for std_fs::File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        std_fs::File::set_len(self, length)
    }
}

/// Files that end with the process, for runs without a state directory. They take no more memory than they may: beyond, the
/// disk is full.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: u64,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    names: BTreeMap<String, Content>,
    bytes: u64,
}

type Content = Arc<Mutex<Vec<u8>>>;

#[derive(Debug)]
struct MemoryFile {
    limit: u64,
    held: Arc<Mutex<Held>>,
    content: Content,
}

impl Memory {
    /// No files, and room for so many bytes.
    pub(crate) fn new(limit: u64) -> Memory {
        Memory { limit, held: Arc::default() }
    }
}

/// What a panic left behind is still bytes, and every reader checks those.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Forgets a file's bytes. Whoever has it open may hold them a little longer.
    fn forget(&mut self, content: Option<Content>) {
        let bytes = content.map_or(0, |content| lock(&content).len() as u64);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Fs for Memory {
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>> {
        let mut held = lock(&self.held);
        if mode == Mode::Create {
            let old = held.names.remove(name);
            held.forget(old);
        }
        let content = match held.names.get(name) {
            Some(content) => Arc::clone(content),
            None if mode == Mode::Read => return Err(io::ErrorKind::NotFound.into()),
            None => Arc::clone(held.names.entry(name.to_owned()).or_default()),
        };
        Ok(Box::new(MemoryFile { limit: self.limit, held: Arc::clone(&self.held), content }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.held).names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut held = lock(&self.held);
        let content = held.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        let old = held.names.insert(to.to_owned(), content);
        held.forget(old);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut held = lock(&self.held);
        let content = held.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        held.forget(Some(content));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("{name} (in memory)")
    }
}

impl MemoryFile {
    /// Changes the content to so many bytes at least, or exactly, if the limit allows it. Locks are taken in this order everywhere.
    fn change(&self, length: u64, exactly: bool, then: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut held = lock(&self.held);
        let mut content = lock(&self.content);
        let old = content.len() as u64;
        let new = if exactly { length } else { length.max(old) };
        let bytes = (held.bytes + new).saturating_sub(old);
        if new > old && bytes > self.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        held.bytes = bytes;
        content.resize(new as usize, 0);
        then(&mut content);
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = lock(&self.content);
        let from = content.get(offset as usize..).unwrap_or_default();
        let read = from.len().min(into.len());
        into[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.change(end, false, |content| content[offset as usize..end as usize].copy_from_slice(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(length, true, |_| {})
    }
}
