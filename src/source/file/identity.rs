//! What tells one generation of a file from another.
//!
//! A path is no identity (it is given to the next file), an inode is none (it is used again), and a first line is none
//! (it may be the same in all). A generation is known by its inode together with what stands at its beginning and what
//! stands right before the place up to which it was read. A copy or an archive is known by the two texts alone.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::archive::Unpacker;
use crate::source::archive::{Container, HEAD as MAGIC, sniff};

/// How many first bytes tell a generation. Fewer are taken as long as there are fewer.
pub(super) const HEAD: usize = 4 << 10;
/// How many bytes before the position tell that they are still the same.
pub(super) const ANCHOR: usize = 1 << 10;

/// Where a file lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Inode {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl Inode {
    /// The inode behind `metadata`.
    pub(super) fn of(metadata: &Metadata) -> Inode {
        Inode { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// A digest of some bytes, with their number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Print {
    pub(super) length: u32,
    sha256: String,
}

impl Print {
    /// The digest of `bytes`: half of a SHA-256, which keeps positions small.
    pub(super) fn of(bytes: &[u8]) -> Print {
        let digest = Sha256::digest(bytes);
        let mut sha256 = String::with_capacity(32);
        for byte in &digest[..16] {
            sha256.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            sha256.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        Print { length: bytes.len() as u32, sha256 }
    }

    /// True if it is the digest of `bytes`.
    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        self.length as usize == bytes.len() && (bytes.is_empty() || *self == Print::of(bytes))
    }

    /// True if it is of nothing but NULs, of which no generation can be told: of a hole, or of nothing at all.
    fn is_nul(&self) -> bool {
        let length = self.length as usize;
        length <= HEAD && self.is_of(&[0; HEAD][..length])
    }

    /// Its hexadecimal digits.
    pub(super) fn hex(&self) -> &str {
        &self.sha256
    }
}

/// A place in a generation from which reading can go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Offset of the next byte in the (decompressed) stream: the beginning of a line.
    pub(super) offset: u64,
    /// What stands before it.
    pub(super) anchor: Print,
}

/// A generation as positions keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The last path that it was seen under.
    pub(super) path: String,
    #[serde(flatten)]
    pub(super) inode: Inode,
    pub(super) head: Print,
    #[serde(flatten)]
    pub(super) mark: Mark,
    /// When it was last modified, as far as was seen; milliseconds since 1970.
    pub(super) modified: i64,
    /// It had been rotated away and everything in it had been read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) done: bool,
}

/// True if nothing tells a generation from others, because it was empty, or only its hole had been seen: even in the same
/// inode a whole generation may have come and been copied away since.
pub(super) fn is_blank(head: &Print, mark: &Mark) -> bool {
    head.is_nul() && mark.anchor.is_nul()
}

/// How a file compares with a generation that is known.
pub(super) enum Verdict {
    /// It is that generation, and can be read from the mark on.
    Same(Body),
    /// It begins like it and ends before the mark: a copy from which nothing is to be had any more.
    Shorter,
    /// It is another.
    Other,
}

/// How a generation's bytes are got at.
pub(super) enum Body {
    /// As they are.
    Plain(Arc<File>),
    /// Out of an archive.
    Archive(Box<Unpacker>),
}

impl Body {
    /// A file that is read from its beginning; the reason if it is nothing that can be read.
    pub(super) fn open(file: File) -> io::Result<Result<Body, &'static str>> {
        let head = read_at_most(&file, 0, MAGIC)?;
        Ok(match sniff(&head) {
            Container::Plain { .. } => Ok(Body::Plain(Arc::new(file))),
            Container::Foreign(reason) => Err(reason),
            container => Ok(Body::Archive(Box::new(Unpacker::new(Arc::new(file), container)?))),
        })
    }

    /// True if there are exactly so many bytes. An archive is read to its end for it.
    pub(super) fn has_length(&mut self, length: u64) -> bool {
        match self {
            Body::Plain(file) => file.metadata().is_ok_and(|metadata| metadata.len() == length),
            Body::Archive(unpacker) => unpacker.advance(length, 0).is_some() && unpacker.peek(1).is_empty(),
        }
    }

    /// The file on disk.
    pub(super) fn file(&self) -> &File {
        match self {
            Body::Plain(file) => file,
            Body::Archive(unpacker) => unpacker.file(),
        }
    }
}

impl Known {
    /// As [`is_blank`].
    pub(super) fn is_blank(&self) -> bool {
        is_blank(&self.head, &self.mark)
    }

    /// True if this generation, blank or not, may stand in a file.
    pub(super) fn may_be(&self, file: File) -> bool {
        matches!(self.compare_body(file), Ok(Verdict::Same(_)))
    }

    /// Compares a file with this generation. A blank one is none of those that are there.
    pub(super) fn compare(&self, file: File) -> io::Result<Verdict> {
        if self.is_blank() { Ok(Verdict::Other) } else { self.compare_body(file) }
    }

    fn compare_body(&self, file: File) -> io::Result<Verdict> {
        match Body::open(file)? {
            Ok(Body::Plain(file)) => self.compare_plain(file),
            Ok(Body::Archive(unpacker)) => Ok(self.compare_archive(unpacker)),
            Err(_) => Ok(Verdict::Other),
        }
    }

    fn compare_plain(&self, file: Arc<File>) -> io::Result<Verdict> {
        let (mark, anchor) = (self.mark.offset, u64::from(self.mark.anchor.length));
        if !self.head.is_of(&read_at_most(&file, 0, self.head.length as usize)?) {
            return Ok(Verdict::Other);
        }
        if file.metadata()?.len() < mark {
            return Ok(Verdict::Shorter);
        }
        let before = read_at_most(&file, mark.saturating_sub(anchor), anchor as usize)?;
        Ok(if self.mark.anchor.is_of(&before) { Verdict::Same(Body::Plain(file)) } else { Verdict::Other })
    }

    fn compare_archive(&self, mut unpacker: Box<Unpacker>) -> Verdict {
        let (mark, anchor) = (self.mark.offset, u64::from(self.mark.anchor.length));
        let head = unpacker.peek(self.head.length as usize);
        if !self.head.is_of(head) {
            return Verdict::Other;
        }
        match unpacker.advance(mark, anchor as usize) {
            Some(before) if self.mark.anchor.is_of(&before) => Verdict::Same(Body::Archive(unpacker)),
            None if unpacker.ended() == Some(Ok(())) => Verdict::Shorter,
            // Also one that is damaged before the mark: it may hold more once it is repaired.
            _ => Verdict::Other,
        }
    }
}

/// Reads up to `length` bytes at `offset`; fewer only at the end of the file.
pub(super) fn read_at_most(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
