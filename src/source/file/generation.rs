//! One generation of a file: what was written from its creation, or its truncation, until the next.
//!
//! It is read by offset, never by a cursor, so that a half line costs nothing but reading it again. Every read begins with
//! the bytes before the position, fetched by the same system call: if they are not what they were, somebody has written
//! another generation over this one, however large it has grown meanwhile.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use memchr::{memchr, memmem, memrchr};
use rustix::fs::SeekFrom;
use rustix::io::{Errno, pread};
use tokio::sync::OwnedSemaphorePermit;

use super::identity::{ANCHOR, Body, HEAD, Inode, Known, Mark, Print, is_blank, read_at_most};
use crate::source::outlet::{Outlet, Stopped};

/// The largest batch, and the longest part of a line that waits for its end.
pub(super) const BATCH: usize = 1 << 20;

/// A byte order mark, which is no part of the first line.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// A generation that is open.
pub(super) struct Generation {
    /// Where it was last seen.
    pub(super) path: PathBuf,
    /// What evidence calls it.
    pub(super) stream: Arc<str>,
    pub(super) inode: Inode,
    body: Body,
    head: Print,
    /// Offset of the next byte to be read. Behind the mark only inside a line that is longer than a batch.
    read: u64,
    /// What stands before `read`.
    before: Vec<u8>,
    mark: Mark,
    /// Size and times when everything had been read.
    exhausted: Option<Stamp>,
    /// The last known size on disk.
    pub(super) size: u64,
    /// When it was last modified, in milliseconds since 1970.
    modified: i64,
    /// The file was empty or only a hole, and looked like that then: nothing tells yet which generation will stand in it.
    blank: Option<Stamp>,
    /// What it looked like when it was noted that it is not as it was then.
    filled: Option<Stamp>,
    /// The path is no longer its own; reading ends when nothing came until then.
    pub(super) rotated: Option<Instant>,
    /// Bytes were handed over under the present name of the stream.
    pub(super) begun: bool,
    /// Why it cannot be read at the moment.
    pub(super) failed: Option<String>,
    /// Bytes that were passed over because they were never written, and have not been told of.
    pub(super) hole: u64,
}

/// What a file looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When it was last modified, in milliseconds since 1970.
    fn millis(&self) -> i64 {
        self.modified.0.saturating_mul(1000).saturating_add(self.modified.1 / 1_000_000)
    }
}

/// Bytes of a generation.
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    pub(super) room: OwnedSemaphorePermit,
}

/// What a look into a generation found.
pub(super) enum Found {
    /// Whole lines, or a part of a very long one.
    Piece(Piece),
    /// Bytes that were never written; they have been passed over.
    Hole,
    /// No more for now.
    Nothing,
    /// Another generation stands in the same file.
    Overwritten,
    /// It cannot be read.
    Failed(String),
}

impl Generation {
    /// A generation that is read from its beginning.
    pub(super) fn new(path: &Path, inode: Inode, body: Body) -> io::Result<Generation> {
        Generation::at(path, inode, body, Print::default(), Mark::default())
    }

    /// A generation of which a part has been read.
    pub(super) fn resumed(path: &Path, inode: Inode, body: Body, known: &Known) -> io::Result<Generation> {
        Generation::at(path, inode, body, known.head.clone(), known.mark.clone())
    }

    fn at(path: &Path, inode: Inode, body: Body, head: Print, mark: Mark) -> io::Result<Generation> {
        let metadata = body.file().metadata()?;
        let mut generation = Generation {
            path: path.to_path_buf(),
            stream: path.to_string_lossy().into(),
            inode,
            body,
            head,
            read: 0,
            before: Vec::new(),
            mark,
            exhausted: None,
            size: metadata.len(),
            modified: millis(&metadata),
            blank: None,
            filled: None,
            rotated: None,
            begun: false,
            failed: None,
            hole: 0,
        };
        generation.rewind()?;
        generation.grow_head()?;
        generation.set_blank(Stamp::of(&metadata));
        Ok(generation)
    }

    /// Notes that it is blank, if it is, and what it looks like.
    fn set_blank(&mut self, stamp: Stamp) {
        self.blank = Some(stamp).filter(|_| is_blank(&self.head, &self.mark));
    }

    /// Passes over what is there already, up to the beginning of the last line.
    pub(super) fn skip_to_end(&mut self) -> io::Result<()> {
        let Body::Plain(file) = &self.body else { return Ok(()) };
        let size = file.metadata()?.len();
        let from = size.saturating_sub(BATCH as u64);
        let tail = read_at_most(file, from, (size - from) as usize)?;
        let line = memrchr(b'\n', &tail).map_or(0, |newline| newline + 1);
        // A line that is longer than that is not waited for: its beginning is as far away as that of the file.
        let begin = if line == 0 && from > 0 { size } else { from + line as u64 };
        self.settle(begin)
    }

    /// Goes on after `offset`, the beginning of a line.
    fn settle(&mut self, offset: u64) -> io::Result<()> {
        let Body::Plain(file) = &self.body else { return Ok(()) };
        let from = offset.saturating_sub(ANCHOR as u64);
        self.before = read_at_most(file, from, (offset - from) as usize)?;
        self.read = offset;
        self.mark = Mark { offset, anchor: Print::of(&self.before) };
        Ok(())
    }

    /// Goes back to the mark.
    fn rewind(&mut self) -> io::Result<()> {
        self.read = self.mark.offset;
        self.exhausted = None;
        if let Body::Plain(file) = &self.body {
            let length = u64::from(self.mark.anchor.length);
            self.before = read_at_most(file, self.read.saturating_sub(length), length as usize)?;
        }
        Ok(())
    }

    /// Gives it another name, and tells the stream of the old name and its end if that is to be closed. The stream of the
    /// new name begins with a line.
    pub(super) fn rename(&mut self, path: &Path, stream: &str) -> Option<(Arc<str>, u64)> {
        path.clone_into(&mut self.path);
        if *self.stream == *stream {
            return None;
        }
        let old = (std::mem::replace(&mut self.stream, stream.into()), self.read);
        if self.read != self.mark.offset && !self.is_archive() && self.rewind().is_err() {
            // The next read tells why; without what stands before it, it goes on inside the line.
            self.read = old.1;
        }
        std::mem::take(&mut self.begun).then_some(old)
    }

    /// Notes whether something has happened to a file that was blank. Then a generation may have been written to it and copied
    /// away, whatever it holds now: the files beside it have to be looked at.
    pub(super) fn note(&mut self) {
        let Some(blank) = self.blank else { return };
        self.filled = self.body.file().metadata().ok().map(|now| Stamp::of(&now)).filter(|now| *now != blank);
    }

    /// True if that was so when it was noted.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.is_some()
    }

    /// Takes the beginning of what stands in it now, though it may not be the next generation that was written to it.
    pub(super) fn take_head(&mut self) {
        // If it cannot be read, the next read tells.
        let _ = self.grow_head();
    }

    /// All that was written to it up to what was noted is accounted for.
    pub(super) fn accept(&mut self) {
        if let Some(noted) = self.filled.take() {
            self.set_blank(noted);
        }
    }

    /// An archive may have been made long after what stands in it was written.
    pub(super) fn set_written(&mut self, millis: i64) {
        if self.is_archive() {
            self.modified = millis;
        }
    }

    /// True if another generation stands in the same file by now.
    pub(super) fn is_overwritten(&self) -> bool {
        let Body::Plain(file) = &self.body else { return false };
        if self.in_hole() && !self.has_head(file).unwrap_or(true) {
            return true;
        }
        let before = self.before.len();
        let from = self.read - before as u64;
        // What cannot be read now is found out by the next read.
        read_at_most(file, from, before).is_ok_and(|bytes| bytes != self.before)
            || file.metadata().is_ok_and(|metadata| metadata.len() < self.read)
    }

    /// True if what stands before the position tells nothing: it is the beginning, or a hole.
    fn in_hole(&self) -> bool {
        self.before.iter().all(|byte| *byte == 0)
    }

    /// True if it begins as it did.
    fn has_head(&self, file: &File) -> io::Result<bool> {
        Ok(self.head.is_of(&read_at_most(file, 0, self.head.length as usize)?))
    }

    /// True if it is not to be read further, once nothing more was found in it: it was rotated away and nothing has come for
    /// long enough, or it is an archive.
    pub(super) fn is_finished(&self, now: Instant) -> bool {
        self.rotated.is_some_and(|until| now >= until) || (self.is_archive() && self.failed.is_none())
    }

    /// What is to be remembered of it.
    pub(super) fn known(&self) -> Known {
        // The size is asked for anew: it may have grown since the last read.
        let read = || self.body.file().metadata().is_ok_and(|metadata| metadata.len() <= self.mark.offset);
        Known {
            path: self.path.to_string_lossy().into_owned(),
            inode: self.inode,
            head: self.head.clone(),
            mark: self.mark.clone(),
            modified: self.blank.map_or(self.modified, |blank| blank.millis()),
            done: self.rotated.is_some() && !self.is_archive() && self.failed.is_none() && read(),
        }
    }

    /// Offset of the next byte to be handed over.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Offset of the next byte that is not known to be handed over.
    pub(super) fn position(&self) -> u64 {
        self.mark.offset
    }

    /// How many bytes there are by now; of an archive how many have been read.
    pub(super) fn length(&self) -> u64 {
        match &self.body {
            Body::Plain(file) => file.metadata().map_or(self.read, |metadata| metadata.len()),
            Body::Archive(_) => self.read,
        }
    }

    /// True if no name leads to the file any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.body.file().metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// True for an archive, which grows no more and is finished when it is at its end.
    pub(super) fn is_archive(&self) -> bool {
        matches!(self.body, Body::Archive(_))
    }

    /// When the file was last written or renamed, as long ago as the clock says.
    pub(super) fn age(&self, wall: SystemTime) -> Duration {
        let Ok(metadata) = self.body.file().metadata() else { return Duration::ZERO };
        let changed = Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec() as u32);
        wall.duration_since(SystemTime::UNIX_EPOCH + changed).unwrap_or(Duration::ZERO)
    }

    /// The next bytes.
    pub(super) fn next(&mut self, outlet: &Outlet) -> Result<Found, Stopped> {
        let found = match &self.body {
            Body::Plain(file) => {
                let file = Arc::clone(file);
                self.next_plain(&file, outlet)
            }
            Body::Archive(_) => self.next_unpacked(outlet),
        };
        found.or_else(|trouble| match trouble {
            Trouble::Stopped => Err(Stopped),
            Trouble::Io(error) => Ok(Found::Failed(error.to_string())),
        })
    }

    fn next_plain(&mut self, file: &File, outlet: &Outlet) -> Result<Found, Trouble> {
        let stamp = self.stamp()?;
        if self.exhausted == Some(stamp) {
            return Ok(Found::Nothing);
        }
        if stamp.size < self.read {
            return Ok(Found::Overwritten);
        }
        let kept = self.before.len();
        let wanted = kept + (stamp.size - self.read).min(BATCH as u64) as usize;
        let room = outlet.take(wanted).map_err(|Stopped| Trouble::Stopped)?;
        let buffer = self.fetch(file, wanted)?;
        let same = buffer.get(..kept) == Some(&self.before[..]);
        if !same || (self.in_hole() && !self.has_head(file)?) {
            return Ok(Found::Overwritten);
        }
        let fresh = &buffer[kept..];
        let at_line_start = self.read == self.mark.offset;
        let fresh = match hole(fresh) {
            Some(0) if at_line_start => return self.skip_hole(file, fresh, stamp),
            Some(hole) if hole > 0 => &fresh[..hole],
            _ => fresh,
        };
        let begin = if self.read == 0 && fresh.starts_with(BOM) { BOM.len() } else { 0 };
        let (end, whole) = match memrchr(b'\n', fresh) {
            Some(newline) => (newline + 1, true),
            None if fresh.len() == BATCH => (BATCH, false),
            None => {
                self.exhausted = Some(stamp);
                return Ok(Found::Nothing);
            }
        };
        let offset = self.read + begin as u64;
        self.read += end as u64;
        let past = &buffer[..kept + end];
        self.before = past[past.len().saturating_sub(ANCHOR)..].to_vec();
        self.passed(whole);
        self.blank = None;
        self.grow_head()?;
        let bytes = Bytes::from(buffer).slice(kept + begin..kept + end);
        Ok(Found::Piece(Piece { offset, bytes, room }))
    }

    /// What stands before the position and what comes after it, `wanted` bytes if there are so many.
    fn fetch(&self, file: &File, wanted: usize) -> io::Result<Vec<u8>> {
        let from = self.read - self.before.len() as u64;
        // The capacity is never 0, which reading into spare capacity does not take.
        let mut buffer = Vec::with_capacity(wanted.max(1));
        while buffer.len() < wanted {
            let at = from + buffer.len() as u64;
            match pread(file, rustix::buffer::spare_capacity(&mut buffer), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room than was asked for.
        buffer.truncate(wanted);
        Ok(buffer)
    }

    /// Passes over NULs where a line should begin: without reading them where the file system knows that they were never
    /// written.
    fn skip_hole(&mut self, file: &File, fresh: &[u8], stamp: Stamp) -> Result<Found, Trouble> {
        let data = match rustix::fs::seek(file, SeekFrom::Data(self.read)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => {
                self.exhausted = Some(stamp);
                return Ok(Found::Nothing);
            }
            // A file system that does not know its holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.read,
            Err(error) => return Err(Trouble::Io(error.into())),
        };
        let nuls = fresh.iter().position(|byte| *byte != 0).unwrap_or(fresh.len());
        let next = data.max(self.read + nuls as u64);
        self.hole += next - self.read;
        self.settle(next)?;
        self.set_blank(stamp);
        Ok(Found::Hole)
    }

    fn next_unpacked(&mut self, outlet: &Outlet) -> Result<Found, Trouble> {
        let Body::Archive(unpacker) = &mut self.body else { return Ok(Found::Nothing) };
        if unpacker.ended().is_some() && memchr(b'\n', unpacker.peek(BATCH)).is_none() {
            return Ok(self.unpacked_end());
        }
        let room = outlet.take(2 * BATCH).map_err(|Stopped| Trouble::Stopped)?;
        let ahead = unpacker.peek(BATCH);
        let nuls = ahead.iter().position(|byte| *byte != 0).unwrap_or(ahead.len());
        if nuls > 0 && self.read == self.mark.offset {
            let nuls = unpacker.take(nuls);
            self.hole += nuls.len() as u64;
            self.advance(&nuls, true);
            return Ok(Found::Hole);
        }
        let (end, whole) = match memrchr(b'\n', ahead) {
            Some(newline) => (newline + 1, true),
            None if ahead.len() == BATCH => (BATCH, false),
            None => return Ok(self.unpacked_end()),
        };
        let bytes = unpacker.take(end);
        let offset = self.read;
        self.advance(&bytes, whole);
        Ok(Found::Piece(Piece { offset, bytes: bytes.into(), room }))
    }

    fn unpacked_end(&self) -> Found {
        match &self.body {
            Body::Archive(unpacker) => match unpacker.ended() {
                Some(Err(reason)) => Found::Failed(reason.to_owned()),
                _ => Found::Nothing,
            },
            Body::Plain(_) => Found::Nothing,
        }
    }

    /// Decodes a damaged archive anew if it has changed: it may have been read while it was being written.
    pub(super) fn retry(&mut self) -> io::Result<()> {
        let stamp = self.stamp()?;
        if self.exhausted.replace(stamp) == Some(stamp) {
            return Ok(());
        }
        let Body::Archive(unpacker) = &mut self.body else { return Ok(()) };
        self.before = unpacker.again(self.mark.offset, self.mark.anchor.length as usize)?;
        self.read = self.mark.offset;
        Ok(())
    }

    /// What is left once the generation is finished: a last line without a newline.
    pub(super) fn rest(
        &mut self,
        outlet: &Outlet,
    ) -> Result<(u64, Bytes, Option<OwnedSemaphorePermit>), Stopped> {
        let offset = self.read;
        let (bytes, room) = match &mut self.body {
            Body::Plain(file) => {
                let size = file.metadata().map_or(self.read, |metadata| metadata.len());
                let wanted = size.saturating_sub(self.read).min(BATCH as u64) as usize;
                if wanted == 0 {
                    return Ok((offset, Bytes::new(), None));
                }
                let room = outlet.take(wanted)?;
                // If it cannot be read now it will not be later either; that was told before.
                (read_at_most(file, self.read, wanted).unwrap_or_default(), room)
            }
            Body::Archive(unpacker) => {
                let room = outlet.take(BATCH)?;
                (unpacker.take(BATCH), room)
            }
        };
        self.advance(&bytes, true);
        Ok((offset, bytes.into(), Some(room)))
    }

    /// Notes that `bytes` have been read on.
    fn advance(&mut self, bytes: &[u8], whole: bool) {
        self.read += bytes.len() as u64;
        self.before.extend_from_slice(&bytes[bytes.len().saturating_sub(ANCHOR)..]);
        self.before.drain(..self.before.len().saturating_sub(ANCHOR));
        self.passed(whole);
    }

    /// Notes that everything before `read` has been handed over; `whole` says that a line ends there.
    fn passed(&mut self, whole: bool) {
        if whole {
            self.mark = Mark { offset: self.read, anchor: Print::of(&self.before) };
        }
    }

    /// Takes more of the beginning as the mark of the generation, until there is enough of it.
    fn grow_head(&mut self) -> io::Result<()> {
        if self.head.length as usize >= HEAD {
            return Ok(());
        }
        match &mut self.body {
            Body::Plain(file) => self.head = Print::of(&read_at_most(file, 0, HEAD)?),
            Body::Archive(unpacker) if self.read == 0 => self.head = Print::of(unpacker.peek(HEAD)),
            Body::Archive(_) => {}
        }
        Ok(())
    }

    fn stamp(&mut self) -> io::Result<Stamp> {
        let metadata = self.body.file().metadata()?;
        let stamp = Stamp::of(&metadata);
        self.size = stamp.size;
        if !self.is_archive() {
            self.modified = stamp.millis();
        }
        Ok(stamp)
    }
}

/// Why a read gave nothing.
enum Trouble {
    Stopped,
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

/// Where NULs stand at the beginning of a line. No event holds a NUL, so most often one quick search is all.
fn hole(bytes: &[u8]) -> Option<usize> {
    match memchr(0, bytes)? {
        0 => Some(0),
        _ => memmem::find(bytes, b"\n\0").map(|newline| newline + 1),
    }
}

/// When it was last modified, in milliseconds since 1970.
pub(super) fn millis(metadata: &Metadata) -> i64 {
    Stamp::of(metadata).millis()
}
