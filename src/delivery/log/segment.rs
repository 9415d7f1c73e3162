//! The form of a segment, and how to read one that may be damaged.
//!
//! ```text
//! segment  header at 0, the same again at 512, base from 1024 on, records from `records_at` on
//! header   magic[8] version:u32 0:u32 log:u64 salt:u64 first:u64 records_at:u64 prior_first:u64 prior_end:u64 prior_last:u64
//!          crc32c:u32 0:u32
//! record   length:u32 crc32c(payload):u32 seq:u64 kind:u8 part:u24 crc32c(salt, the 20 bytes before):u32 payload 0[to 8]
//! payload  items, one after another: tag:u8 and what belongs to it; numbers are LEB128, texts are length and bytes
//! ```
//! All else is little-endian. The base is the state at the segment's beginning: records of kind *base*, all of them with the
//! segment's first seq, the last of which ends in their count. After it the seq goes up by one a record. What is too much for
//! one record is several parts and a final one, counted from 0, and is there only as a whole: a disk may lose any of them.
//!
//! The salt is a secret of the segment: what an event says cannot be taken for a record, however a file is damaged.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::ops::Range;

use detectors::bytes::{put_number, take_number};
use detectors::event::time::Nanos;
use uuid::Uuid;

use crate::delivery::fs::{File, SECTOR, read_exact_at};

/// Begins every segment, in every version. The version follows, in every version.
const MAGIC: [u8; 8] = *b"LAPWLOG\x1A";
const VERSION: u32 = 1;
/// Length of a header.
const HEADER: usize = 80;
/// Where the header stands again: a sector that is lost takes one of them with it.
const COPY: u64 = 512;
/// Where the base begins.
pub(super) const BASE_AT: u64 = 1024;
/// Length of what stands before a payload.
pub(super) const HEAD: usize = 24;
/// Records are flushed when their payload is longer than this.
pub(super) const PART: usize = if cfg!(test) { 512 } else { 1 << 20 };
/// One item of a record may be so long.
pub(super) const MAX_ITEM: usize = 32 << 20;
const MAX_PAYLOAD: usize = PART + MAX_ITEM + 64;

/// A part of the state at the segment's beginning.
pub(super) const BASE: u8 = 1;
/// A part of a record that goes on.
pub(super) const PARTIAL: u8 = 2;
/// All of a record, or its last part.
pub(super) const FINAL: u8 = 3;
/// There are alerts in it.
pub(super) const ALERTS: u8 = 0x80;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The log that it belongs to: another one counts anew.
    pub(super) log: u64,
    /// Part of every checksum.
    pub(super) salt: u64,
    /// The seq of its base, and what it is named after.
    pub(super) first: u64,
    /// Where the base ends.
    pub(super) records_at: u64,
    /// The segment before it, 0 if there was none...
    pub(super) prior_first: u64,
    /// ...what of it is valid, in bytes...
    pub(super) prior_end: u64,
    /// ...and the last seq in these.
    pub(super) prior_last: u64,
}

/// What stands at the beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// A segment.
    Fine(Header),
    /// A segment of a later version of Lapwing.
    Newer(u32),
    /// Nothing that can be read.
    Bad,
}

/// A number that nobody can guess.
pub(super) fn secret() -> u64 {
    // The standard library's hasher is keyed by the system's random numbers.
    RandomState::new().hash_one(MAGIC)
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        #[rustfmt::skip]
        let Header { log, salt, first, records_at, prior_first, prior_end, prior_last } = self;
        for (at, number) in
            [log, salt, first, records_at, prior_first, prior_end, prior_last].into_iter().enumerate()
        {
            bytes[16 + at * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c(&bytes[..72]);
        bytes[72..76].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER]) -> Opened {
        let version = u32_at(bytes, 8);
        if bytes[..8] != MAGIC {
            Opened::Bad
        } else if version > VERSION {
            Opened::Newer(version)
        } else if version != VERSION || u32_at(bytes, 72) != crc32c::crc32c(&bytes[..72]) {
            Opened::Bad
        } else {
            let number = |at: usize| u64_at(bytes, 16 + at * 8);
            Opened::Fine(Header {
                log: number(0),
                salt: number(1),
                first: number(2),
                records_at: number(3),
                prior_first: number(4),
                prior_end: number(5),
                prior_last: number(6),
            })
        }
    }

    /// Writes the header and its copy.
    pub(super) fn write(self, file: &dyn File) -> io::Result<()> {
        let bytes = self.to_bytes();
        file.write_at(&bytes, 0)?;
        file.write_at(&bytes, COPY)
    }

    /// Reads the header, or its copy.
    pub(super) fn read(file: &dyn File) -> Opened {
        let mut best = Opened::Bad;
        for at in [0, COPY] {
            let mut bytes = [0; HEADER];
            if read_exact_at(file, &mut bytes, at).is_ok() {
                match Header::from_bytes(&bytes) {
                    Opened::Bad => {}
                    Opened::Newer(version) => best = Opened::Newer(version),
                    fine @ Opened::Fine(_) => return fine,
                }
            }
        }
        best
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were taken"))
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    length: u32,
    sum: u32,
    pub(super) seq: u64,
    kind: u8,
    /// Parts of the same record before this one.
    pub(super) part: u32,
}

impl Head {
    fn to_bytes(self, salt: u64) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.sum.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.part << 8 | u32::from(self.kind)).to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &bytes[..20]);
        bytes[20..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HEAD], salt: u64) -> Option<Head> {
        let head = Head {
            length: u32_at(bytes, 0),
            sum: u32_at(bytes, 4),
            seq: u64_at(bytes, 8),
            kind: bytes[16],
            part: u32_at(bytes, 16) >> 8,
        };
        (head.length as usize <= MAX_PAYLOAD && head.to_bytes(salt) == *bytes).then_some(head)
    }

    /// What kind of record it is, without its marks.
    pub(super) fn kind(self) -> u8 {
        self.kind & !ALERTS
    }

    pub(super) fn has_alerts(self) -> bool {
        self.kind & ALERTS != 0
    }

    /// Bytes that the record takes.
    fn size(self) -> u64 {
        (HEAD as u64 + u64::from(self.length)).next_multiple_of(8)
    }
}

/// A piece of what a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// An input's position.
    Position { input: &'a str, json: &'a str },
    /// A step of a correlation.
    Step { time: Nanos, bytes: &'a [u8] },
    /// An alert.
    Alert { uuid: Uuid, json: &'a str },
    /// The rule that steps call by this number, of so many.
    Rule { index: u64, of: u64, name: &'a str, logic: [u8; 32] },
    /// Ids of alerts, sixteen bytes each, oldest first.
    Recent(&'a [u8]),
    /// The number of records that the base consists of, with this one.
    Count(u64),
}

impl<'a> Item<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Item::Position { input, json } => {
                out.push(1);
                put_bytes(out, input.as_bytes());
                put_bytes(out, json.as_bytes());
            }
            Item::Step { time, bytes } => {
                out.push(2);
                out.extend_from_slice(&time.to_le_bytes());
                put_bytes(out, bytes);
            }
            Item::Alert { uuid, json } => {
                out.push(3);
                out.extend_from_slice(uuid.as_bytes());
                put_bytes(out, json.as_bytes());
            }
            Item::Rule { index, of, name, logic } => {
                out.push(4);
                put_number(out, index);
                put_number(out, of);
                put_bytes(out, name.as_bytes());
                out.extend_from_slice(&logic);
            }
            Item::Recent(uuids) => {
                out.push(5);
                put_bytes(out, uuids);
            }
            Item::Count(count) => {
                out.push(6);
                put_number(out, count);
            }
        }
    }

    fn take(from: &mut &'a [u8]) -> Option<Item<'a>> {
        let (tag, rest) = from.split_first()?;
        *from = rest;
        Some(match tag {
            1 => Item::Position { input: take_text(from)?, json: take_text(from)? },
            2 => Item::Step { time: Nanos::from_le_bytes(take_array(from)?), bytes: take_bytes(from)? },
            3 => Item::Alert { uuid: Uuid::from_bytes(take_array(from)?), json: take_text(from)? },
            4 => Item::Rule {
                index: take_number(from)?,
                of: take_number(from)?,
                name: take_text(from)?,
                logic: take_array(from)?,
            },
            5 => Item::Recent(take_bytes(from)?),
            6 => Item::Count(take_number(from)?),
            _ => return None,
        })
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

fn take_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(from)?).ok()
}

fn take_array<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*bytes)
}

/// The items of a payload. Its checksum was right, so an item that cannot be read is a mistake of ours: the rest is left out.
pub(super) fn items(mut payload: &[u8]) -> impl Iterator<Item = Item<'_>> {
    std::iter::from_fn(move || Item::take(&mut payload))
}

/// Writes records, one after another.
pub(super) struct Pen<'f> {
    file: &'f dyn File,
    salt: u64,
    /// Where the next record goes.
    pub(super) at: u64,
    /// Its seq.
    pub(super) seq: u64,
    /// Records written.
    pub(super) written: u64,
    part: u32,
    buffer: Vec<u8>,
    alerts: bool,
}

impl<'f> Pen<'f> {
    pub(super) fn new(file: &'f dyn File, salt: u64, at: u64, seq: u64) -> Pen<'f> {
        Pen { file, salt, at, seq, written: 0, part: 0, buffer: vec![0; HEAD], alerts: false }
    }

    /// Adds an item; what is enough for a record becomes one of this kind.
    pub(super) fn put(&mut self, item: &Item<'_>, kind: u8) -> io::Result<()> {
        if self.buffer.len() > PART {
            self.flush(kind)?;
        }
        item.put(&mut self.buffer);
        self.alerts |= matches!(item, Item::Alert { .. });
        Ok(())
    }

    /// Writes what there is as a record of this kind.
    pub(super) fn flush(&mut self, kind: u8) -> io::Result<()> {
        let payload = &self.buffer[HEAD..];
        let marks = if self.alerts { ALERTS } else { 0 };
        let head = Head {
            length: payload.len() as u32,
            sum: crc32c::crc32c(payload),
            seq: self.seq,
            kind: kind | marks,
            part: self.part,
        };
        self.buffer[..HEAD].copy_from_slice(&head.to_bytes(self.salt));
        self.buffer.resize(head.size() as usize, 0);
        self.file.write_at(&self.buffer, self.at)?;
        self.at += head.size();
        self.seq += u64::from(kind != BASE);
        self.part = if kind == PARTIAL { self.part + 1 } else { 0 };
        self.written += 1;
        self.buffer.truncate(HEAD);
        self.alerts = false;
        Ok(())
    }
}

/// What comes next in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A record. Its payload is in the scanner, if it was wanted.
    Record(Head),
    /// These bytes are no records; a record follows. So many are lost.
    Damaged(Range<u64>, u64),
    /// No record begins here or further on.
    End,
}

/// Reads a segment from somewhere to somewhere.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Box<dyn File>,
    salt: u64,
    /// Where the next record begins.
    pub(super) at: u64,
    /// Its seq, if nothing is damaged.
    pub(super) next: u64,
    payload: Vec<u8>,
    /// Sectors that cannot be read are damage, not an error.
    pub(super) lenient: bool,
}

/// How far damage is searched at a time. A multiple of 8.
const STRIDE: usize = 64 << 10;

impl Scanner {
    pub(super) fn new(file: Box<dyn File>, salt: u64, at: u64, next: u64) -> Scanner {
        Scanner { file, salt, at, next, payload: Vec::new(), lenient: false }
    }

    /// The payload of the record found last.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What comes next before `end`, with a seq of at most `last`. The payload is read, and checked, if it is wanted.
    ///
    /// # Errors
    /// The file cannot be read. The next call tries again.
    pub(super) fn find(&mut self, end: u64, last: u64, wanted: &dyn Fn(Head) -> bool) -> io::Result<Found> {
        if self.at >= end || self.next > last {
            return Ok(Found::End);
        }
        if let Some(head) = self.record_at(self.at, end, wanted)?.filter(|head| head.seq == self.next) {
            self.at += head.size();
            self.next = head.seq + u64::from(head.kind() != BASE);
            return Ok(Found::Record(head));
        }
        let from = self.at;
        // A head that is right says where the next one is.
        let head = self.record_at(from, end, &|_| false)?.filter(|head| head.seq == self.next);
        let behind = from + head.map_or(8, Head::size);
        let Some((to, head)) = self.search(behind, end, last)? else { return Ok(Found::End) };
        let lost = head.seq - self.next;
        (self.at, self.next) = (to, head.seq);
        Ok(Found::Damaged(from..to, lost))
    }

    /// The record that begins there, if one does.
    fn record_at(&mut self, at: u64, end: u64, wanted: &dyn Fn(Head) -> bool) -> io::Result<Option<Head>> {
        let mut bytes = [0; HEAD];
        if at + HEAD as u64 > end || !self.read(&mut bytes, at)? {
            return Ok(None);
        }
        let Some(head) = Head::from_bytes(&bytes, self.salt).filter(|head| at + head.size() <= end) else {
            return Ok(None);
        };
        if !wanted(head) {
            return Ok(Some(head));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        payload.resize(head.length as usize, 0);
        let read = self.read(&mut payload, at + HEAD as u64);
        self.payload = payload;
        Ok((read? && crc32c::crc32c(&self.payload) == head.sum).then_some(head))
    }

    /// Reads, or says that it cannot be.
    fn read(&self, into: &mut [u8], at: u64) -> io::Result<bool> {
        match read_exact_at(&*self.file, into, at) {
            Ok(()) => Ok(true),
            Err(error) if self.lenient || error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Looks for the next whole record after damage. Records have a least size, so that a seq that is too high for where it
    /// stands is none of ours.
    fn search(&mut self, mut from: u64, end: u64, last: u64) -> io::Result<Option<(u64, Head)>> {
        let mut window = vec![0; STRIDE + HEAD];
        let mut stride = STRIDE;
        while from + HEAD as u64 <= end {
            let length = (stride + HEAD).min((end - from) as usize);
            let window = &mut window[..length];
            if !self.read(window, from)? {
                if stride == SECTOR {
                    from = (from + 1).next_multiple_of(SECTOR as u64);
                }
                stride = SECTOR;
                continue;
            }
            for offset in (0..=length - HEAD).step_by(8) {
                let bytes = window[offset..].first_chunk().expect("the loop ends before");
                let at = from + offset as u64;
                let most = last.min(self.next.saturating_add((at - self.at) / HEAD as u64 + 1));
                let plausible = |head: &Head| head.seq >= self.next && head.seq <= most;
                if Head::from_bytes(bytes, self.salt).as_ref().is_some_and(plausible)
                    && let Some(head) = self.record_at(at, end, &|_| true)?
                {
                    return Ok(Some((at, head)));
                }
            }
            from += stride as u64;
        }
        Ok(None)
    }
}
