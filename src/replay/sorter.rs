//! Sorts more records than memory holds: sorted runs go to an unlinked temporary file and are merged at the end.
//!
//! A record is a key and a body, both bytes. Records come out by key, then by body, so that the order of pushing does not
//! matter. Nothing is written to disk while the records fit the budget.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// How many runs are merged at once.
const FAN_IN: usize = 64;

/// A run is read in pieces of this size.
const PIECE: usize = 32 << 10;

/// Length of what stands before each record: the lengths of its key and its body.
const HEADER: usize = 8;

/// A growing set of records.
#[derive(Debug)]
pub(crate) struct Sorter {
    budget: usize,
    batch: Batch,
    file: Option<File>,
    runs: Vec<Run>,
}

/// Records in memory, each with its header.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    index: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first eight bytes of the key, which decide most comparisons.
    prefix: u64,
    at: u32,
}

/// A sorted run in a file.
#[derive(Debug, Clone)]
struct Run {
    file: Rc<File>,
    start: u64,
    end: u64,
}

impl Sorter {
    /// A sorter that uses about `budget` bytes of memory, at most 2 GiB.
    pub(crate) fn new(budget: usize) -> Sorter {
        Sorter { budget: budget.min(1 << 31), batch: Batch::default(), file: None, runs: Vec::new() }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The temporary file can't be made or written.
    pub(crate) fn push(&mut self, key: &[u8], body: &[u8]) -> io::Result<()> {
        let size = HEADER + key.len() + body.len();
        if self.batch.size() + size > self.budget && !self.batch.index.is_empty() {
            self.spill()?;
        }
        self.batch.push(key, body, self.budget);
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile()?,
        };
        let mut writer = Writer::new(file.try_clone()?)?;
        self.batch.sort();
        for entry in &self.batch.index {
            let (key, body) = self.batch.record(*entry);
            writer.write(key, body)?;
        }
        self.batch.clear();
        self.runs.push(writer.finish()?);
        self.file = Some(file);
        Ok(())
    }

    /// Ends the input and begins the output.
    ///
    /// # Errors
    /// The temporary file can't be read or written.
    pub(crate) fn finish(mut self) -> io::Result<Sorted> {
        if self.runs.is_empty() {
            self.batch.sort();
            return Ok(Sorted::Memory { batch: self.batch, next: 0 });
        }
        if !self.batch.index.is_empty() {
            self.spill()?;
        }
        let mut runs = self.runs;
        while runs.len() > FAN_IN {
            let file = tempfile::tempfile()?;
            let mut merged = Vec::new();
            for group in runs.chunks(FAN_IN) {
                let mut writer = Writer::new(file.try_clone()?)?;
                let mut merge = Merge::new(group)?;
                while let Some((key, body)) = merge.next()? {
                    writer.write(key, body)?;
                }
                merged.push(writer.finish()?);
            }
            runs = merged;
        }
        Ok(Sorted::Merge(Merge::new(&runs)?))
    }
}

impl Batch {
    fn size(&self) -> usize {
        self.bytes.len() + self.index.len() * size_of::<Entry>()
    }

    /// Adds a record, growing no further than `budget` if that can be helped.
    fn push(&mut self, key: &[u8], body: &[u8], budget: usize) {
        let needed = self.bytes.len() + HEADER + key.len() + body.len();
        if needed > self.bytes.capacity() {
            let doubled = (self.bytes.capacity() * 2).min(budget);
            self.bytes.reserve_exact(needed.max(doubled) - self.bytes.len());
        }
        self.index.push(Entry { prefix: prefix(key), at: self.bytes.len() as u32 });
        self.bytes.extend_from_slice(&header(key, body));
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(body);
    }

    fn record(&self, entry: Entry) -> (&[u8], &[u8]) {
        split(&self.bytes[entry.at as usize..])
    }

    fn sort(&mut self) {
        let Batch { bytes, index } = self;
        index.sort_unstable_by(|a, b| {
            let full = || split(&bytes[a.at as usize..]).cmp(&split(&bytes[b.at as usize..]));
            a.prefix.cmp(&b.prefix).then_with(full)
        });
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
    }
}

fn prefix(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = key.len().min(8);
    first[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(first)
}

fn header(key: &[u8], body: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
    header[4..].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header
}

/// The lengths in a header.
fn lengths(header: &[u8]) -> (usize, usize) {
    let length = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")) as usize;
    (length(0), length(4))
}

/// Key and body of the record that `bytes` begin with.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (key, body) = lengths(bytes);
    let bytes = &bytes[HEADER..];
    (&bytes[..key], &bytes[key..key + body])
}

/// Writes one run at the end of a file.
struct Writer {
    file: BufWriter<File>,
    start: u64,
}

impl Writer {
    fn new(mut file: File) -> io::Result<Writer> {
        let start = file.seek(io::SeekFrom::End(0))?;
        Ok(Writer { file: BufWriter::with_capacity(PIECE, file), start })
    }

    fn write(&mut self, key: &[u8], body: &[u8]) -> io::Result<()> {
        self.file.write_all(&header(key, body))?;
        self.file.write_all(key)?;
        self.file.write_all(body)
    }

    fn finish(self) -> io::Result<Run> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let end = file.stream_position()?;
        Ok(Run { file: Rc::new(file), start: self.start, end })
    }
}

/// Records in order.
pub(crate) enum Sorted {
    /// They fitted.
    Memory {
        /// The records, sorted.
        batch: Batch,
        /// The next one's place in the index.
        next: usize,
    },
    /// They come from a file.
    Merge(Merge),
}

impl Sorted {
    /// The next record: key and body.
    ///
    /// # Errors
    /// The temporary file can't be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        match self {
            Sorted::Memory { batch, next } => {
                let Some(entry) = batch.index.get(*next) else { return Ok(None) };
                *next += 1;
                Ok(Some(batch.record(*entry)))
            }
            Sorted::Merge(merge) => merge.next(),
        }
    }
}

/// Several runs read side by side.
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    /// The cursor whose record was handed out last.
    current: Option<usize>,
}

impl Merge {
    fn new(runs: &[Run]) -> io::Result<Merge> {
        let mut cursors = Vec::with_capacity(runs.len());
        for run in runs {
            let mut cursor = Cursor { run: run.clone(), buffer: Vec::new(), at: 0, prefix: 0, over: false };
            cursor.advance(0)?;
            cursors.push(cursor);
        }
        Ok(Merge { cursors, current: None })
    }

    fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        if let Some(current) = self.current.take() {
            let cursor = &mut self.cursors[current];
            let (key, body) = lengths(&cursor.buffer[cursor.at..]);
            cursor.advance(HEADER + key + body)?;
        }
        let open = self.cursors.iter().enumerate().filter(|(_, cursor)| !cursor.over);
        let Some((index, _)) = open.min_by(|(_, a), (_, b)| a.compare(b)) else { return Ok(None) };
        self.current = Some(index);
        Ok(Some(self.cursors[index].record()))
    }
}

/// A place in a run.
struct Cursor {
    run: Run,
    /// Read but not yet passed, from `at` on; begins with a whole record unless the run is over.
    buffer: Vec<u8>,
    at: usize,
    prefix: u64,
    over: bool,
}

impl Cursor {
    fn record(&self) -> (&[u8], &[u8]) {
        split(&self.buffer[self.at..])
    }

    fn compare(&self, other: &Cursor) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.record().cmp(&other.record()))
    }

    /// Passes `length` bytes and reads until a whole record is there.
    fn advance(&mut self, length: usize) -> io::Result<()> {
        self.at += length;
        if !self.fill(HEADER)? {
            self.over = true;
            return Ok(());
        }
        let (key, body) = lengths(&self.buffer[self.at..]);
        if !self.fill(HEADER + key + body)? {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a temporary file was cut short"));
        }
        self.prefix = prefix(self.record().0);
        Ok(())
    }

    /// Sees to it that `wanted` bytes are there. False at the end of the run.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() - self.at < wanted {
            self.buffer.drain(..self.at);
            self.at = 0;
            let left = self.run.end - self.run.start;
            let piece = (wanted - self.buffer.len()).max(PIECE).min(usize::try_from(left).unwrap_or(PIECE));
            if piece == 0 {
                return Ok(false);
            }
            let filled = self.buffer.len();
            self.buffer.resize(filled + piece, 0);
            self.run.file.read_exact_at(&mut self.buffer[filled..], self.run.start)?;
            self.run.start += piece as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(records: &[(Vec<u8>, Vec<u8>)], budget: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut sorter = Sorter::new(budget);
        for (key, body) in records {
            sorter.push(key, body).unwrap();
        }
        let mut sorted = sorter.finish().unwrap();
        let mut result = Vec::new();
        while let Some((key, body)) = sorted.next().unwrap() {
            result.push((key.to_vec(), body.to_vec()));
        }
        result
    }

    proptest! {
        #[test]
        fn agrees_with_sorting_in_memory(
            records in prop::collection::vec(
                (prop::collection::vec(0_u8..4, 0..12), prop::collection::vec(any::<u8>(), 0..30)),
                0..300,
            ),
            budget in prop_oneof![Just(1_usize), Just(100), Just(1000), Just(1 << 20)],
        ) {
            let mut expected = records.clone();
            expected.sort();
            prop_assert_eq!(sorted(&records, budget), expected);
        }
    }

    #[test]
    fn more_runs_than_are_merged_at_once() {
        let records: Vec<_> = (0..10_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec(), vec![7; (n % 50) as usize]))
            .collect();
        let mut expected = records.clone();
        expected.sort();
        assert!(sorted(&records, 1000) == expected);
    }

    #[test]
    fn records_longer_than_a_piece() {
        let records: Vec<_> = (0..20_u8).rev().map(|n| (vec![n], vec![n; 100_000])).collect();
        let mut expected = records.clone();
        expected.sort();
        assert!(sorted(&records, 150_000) == expected);
    }
}
