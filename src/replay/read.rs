//! Bytes in, whole lines out: of a part of a plain file, or of a stream that can only be read forwards. Partitions of topics
//! have readers of their own, from which messages come.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memchr::{memchr, memrchr};

use super::Tuning;
use crate::source::archive::{self, Container, Decoder, HEAD};
use crate::source::kafka::history::Reader;
use crate::source::pipe::Pipe;
use crate::source::plan::{Input, Place};

/// An input that has been opened.
pub(super) enum Opened {
    /// Bytes.
    Bytes(Source),
    /// Messages, each of which is a stream of its own.
    Messages(Box<Reader>),
}

/// Where bytes come from.
pub(super) enum Source {
    /// A file that can be read anywhere.
    Plain(Arc<Plain>),
    /// An archive or a pipe.
    Stream(Box<Stream>),
}

/// A plain regular file.
pub(super) struct Plain {
    file: File,
    /// Where the text begins: after a byte order mark.
    pub(super) start: u64,
    /// Its length when it was opened: what is appended later is not read.
    pub(super) length: u64,
}

/// Why an input is not read.
pub(super) enum Refusal {
    /// There is no need to.
    Skipped(String),
    /// It can't be.
    Unreadable(String),
}

/// Opens an input and looks what it is.
pub(super) fn open(input: &Input, stop: &AtomicBool) -> Result<Opened, Refusal> {
    if let (Place::Path(path), Some(twin)) = (&input.place, &input.twin)
        && archive::is_copy(path, twin, stop).unwrap_or(false)
    {
        return Err(Refusal::Skipped(format!("a copy of {}", twin.display())));
    }
    let file = match &input.place {
        Place::Path(path) => File::open(path),
        Place::Stdin => Pipe::stdin(),
        Place::Partition(partition) => return Ok(Opened::Messages(Box::new(Reader::new(partition)))),
    };
    open_file(file, stop).map(Opened::Bytes)
}

fn open_file(file: io::Result<File>, stop: &AtomicBool) -> Result<Source, Refusal> {
    let unreadable = |error: io::Error| Refusal::Unreadable(crate::source::plan::reason(&error));
    let mut file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let regular = metadata.is_file() && file.stream_position().is_ok_and(|position| position == 0);
    if regular {
        let head = archive::read_up_to(&mut file, HEAD).map_err(unreadable)?;
        match archive::sniff(&head) {
            Container::Plain { skip } => {
                let (start, length) = (skip as u64, metadata.len());
                return Ok(Source::Plain(Arc::new(Plain { file, start, length })));
            }
            Container::Foreign(reason) => return Err(Refusal::Unreadable(reason.to_string())),
            container => Stream::new(container, io::Cursor::new(head).chain(file)),
        }
    } else {
        let mut pipe = Pipe::new(file);
        let head = patient_head(&mut pipe, stop).map_err(unreadable)?;
        match archive::sniff(&head) {
            Container::Foreign(reason) => return Err(Refusal::Unreadable(reason.to_string())),
            container => Stream::new(container, io::Cursor::new(head).chain(pipe)),
        }
    }
    .map(|stream| Source::Stream(Box::new(stream)))
    .map_err(unreadable)
}

/// The first bytes of a pipe, however long they take to come.
fn patient_head(pipe: &mut Pipe, stop: &AtomicBool) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while head.len() < HEAD && !stop.load(Ordering::Relaxed) {
        match pipe.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

/// What a reader of lines found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lines<'b> {
    /// Whole lines (the very last one may lack its newline), and the offset of the first.
    Whole(u64, &'b [u8]),
    /// The line that begins there is too long to be read as a line.
    Long(u64),
    /// There are no more.
    End,
}

impl Plain {
    /// Reads into `buffer` from `offset` on; fewer bytes only at the end of the file.
    fn read(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let mut total = 0;
        while !buffer.is_empty() {
            match self.file.read_at(buffer, offset) {
                Ok(0) => break,
                Ok(n) => {
                    buffer = &mut buffer[n..];
                    offset += n as u64;
                    total += n;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Reads up to `wanted` bytes from `offset` on, none past the length that the file had when it was opened, into `buffer`
    /// after its first `filled` bytes. The buffer is made longer where that is needed.
    pub(super) fn fill(
        &self,
        buffer: &mut Vec<u8>,
        filled: usize,
        offset: u64,
        wanted: usize,
    ) -> io::Result<usize> {
        let wanted = (self.length.saturating_sub(offset)).min(wanted as u64) as usize;
        if buffer.len() < filled + wanted {
            buffer.resize(filled + wanted, 0);
        }
        let read = self.read(&mut buffer[filled..filled + wanted], offset)?;
        if read < wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut while it was read"));
        }
        Ok(read)
    }
}

/// Reads the lines that begin in a part of a plain file, even where they end beyond it.
pub(super) struct PartReader<'f, 'b> {
    file: &'f Plain,
    tuning: &'f Tuning,
    buffer: &'b mut Vec<u8>,
    /// What has been read and not passed stands in the buffer from `begin` to `filled`.
    begin: usize,
    filled: usize,
    /// The offset of the byte at `begin`.
    at: u64,
    /// Where the part ends.
    to: u64,
    /// How much of the buffer has been handed out.
    handed: usize,
    /// The first line begins after the next newline.
    amid: bool,
}

/// Bytes that are read at once to find the end of a part's last line.
const OVERLAP: usize = 16 << 10;

impl<'f, 'b> PartReader<'f, 'b> {
    /// A reader of the part from `from` to `to`. Unless `from` is known to be the `start` of a line, what stands before the
    /// first newline belongs to the part before.
    pub(super) fn new(
        file: &'f Plain,
        tuning: &'f Tuning,
        buffer: &'b mut Vec<u8>,
        part: std::ops::Range<u64>,
        start: bool,
    ) -> Self {
        // The byte before tells whether a line begins right at `from`.
        let at = if start { part.start } else { part.start - 1 };
        PartReader { file, tuning, buffer, begin: 0, filled: 0, at, to: part.end, handed: 0, amid: !start }
    }

    /// The next lines.
    pub(super) fn next(&mut self) -> io::Result<Lines<'_>> {
        self.pass(self.handed);
        self.handed = 0;
        if self.amid {
            self.pass_newline()?;
        }
        if self.at >= self.to {
            return Ok(Lines::End);
        }
        let mut searched = 0;
        loop {
            if let Some(end) = self.cut(searched) {
                if end > self.tuning.line {
                    // Unless it is the first line that is so long, the lines before it come first.
                    let first = memchr(b'\n', &self.held()[..end]).map_or(end, |newline| newline + 1);
                    if first > self.tuning.line {
                        return Ok(Lines::Long(self.at));
                    }
                }
                self.handed = end;
                return Ok(Lines::Whole(self.at, &self.buffer[self.begin..self.begin + end]));
            }
            searched = self.held().len();
            if searched > self.tuning.line {
                return Ok(Lines::Long(self.at));
            }
            if self.fill(searched)? == 0 {
                return Ok(Lines::End);
            }
        }
    }

    /// What has been read and not passed.
    fn held(&self) -> &[u8] {
        &self.buffer[self.begin..self.filled]
    }

    /// Where the lines that are held end that belong to the part, if there are any whole ones. No newline is among the first
    /// `searched` bytes.
    fn cut(&self, searched: usize) -> Option<usize> {
        let bytes = self.held();
        // The first newline at or after the part's last byte ends its last line.
        let last = ((self.to - 1).saturating_sub(self.at) as usize).max(searched);
        if let Some(newline) = bytes.get(last..).and_then(|rest| memchr(b'\n', rest)) {
            return Some(last + newline + 1);
        }
        if let Some(newline) = memrchr(b'\n', &bytes[searched..]) {
            return Some(searched + newline + 1);
        }
        (self.at + bytes.len() as u64 >= self.file.length && !bytes.is_empty()).then_some(bytes.len())
    }

    /// Reads on: to the end of the part, then a little further; more the longer the line is.
    fn fill(&mut self, line: usize) -> io::Result<usize> {
        self.buffer.copy_within(self.begin..self.filled, 0);
        (self.begin, self.filled) = (0, self.filled - self.begin);
        let next = self.at + self.filled as u64;
        let overlap = OVERLAP.min(self.tuning.block).max(line);
        let left = self.to.saturating_sub(next).max(overlap as u64);
        let wanted = left.min(self.tuning.block.max(line) as u64) as usize;
        let read = self.file.fill(self.buffer, self.filled, next, wanted)?;
        self.filled += read;
        Ok(read)
    }

    /// Drops the first bytes of what is held.
    fn pass(&mut self, length: usize) {
        self.begin += length;
        self.at += length as u64;
    }

    /// Moves to the first line that begins in the part.
    fn pass_newline(&mut self) -> io::Result<()> {
        self.amid = false;
        while self.at < self.to {
            if self.fill(0)? == 0 {
                self.to = self.at;
            }
            if let Some(newline) = memchr(b'\n', self.held()) {
                self.pass(newline + 1);
                return Ok(());
            }
            self.pass(self.held().len());
        }
        Ok(())
    }
}

/// An archive or a pipe, read forwards.
pub(super) struct Stream {
    decoder: Decoder<Box<dyn Read + Send>>,
    archive: bool,
    fresh: bool,
    /// Read but not handed out yet.
    carry: Vec<u8>,
    /// Offset of the carry's first byte in the decoded text.
    pub(super) offset: u64,
    /// Nothing comes after the carry.
    ended: bool,
    /// Why what was decoded cannot be read.
    pub(super) refused: Option<&'static str>,
    /// What is wrong with it, and the offset where that was met.
    pub(super) damage: Option<(u64, String)>,
    /// Bytes taken from disk since this was last asked.
    taken: Arc<AtomicU64>,
}

/// Lines that were cut from a stream.
pub(super) struct Block {
    /// Offset of the first byte in the decoded text.
    pub(super) offset: u64,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
}

/// What a stream gave.
pub(super) enum Cut {
    /// Whole lines.
    Block(Block),
    /// The next line is too long to be read as a line.
    Long,
    /// Nothing came for a while.
    Idle,
    /// There are no more.
    End,
}

/// Counts the bytes that are read through it.
struct Counted<R> {
    source: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Stream {
    /// A stream of that kind.
    pub(super) fn new(container: Container, source: impl Read + Send + 'static) -> io::Result<Stream> {
        let taken = Arc::new(AtomicU64::new(0));
        let source: Box<dyn Read + Send> = Box::new(Counted { source, taken: taken.clone() });
        Ok(Stream {
            decoder: Decoder::new(container, source)?,
            archive: !matches!(container, Container::Plain { .. }),
            fresh: true,
            carry: Vec::new(),
            offset: 0,
            ended: false,
            refused: None,
            damage: None,
            taken,
        })
    }

    /// Cuts the next block of whole lines, into `buffer`.
    pub(super) fn cut(&mut self, mut buffer: Vec<u8>, tuning: &Tuning) -> Cut {
        buffer.clear();
        buffer.append(&mut self.carry);
        let mut searched = 0;
        let cut = loop {
            // Without a newline there is nothing to hand out, so the search goes over each byte once.
            let newline = memrchr(b'\n', &buffer[searched..]).map(|newline| searched + newline + 1);
            if let Some(end) = newline.filter(|_| buffer.len() >= tuning.block || self.ended) {
                break end;
            }
            if newline.is_none() {
                searched = buffer.len();
                if buffer.len() > tuning.line {
                    self.carry = buffer;
                    return Cut::Long;
                }
            }
            if self.ended {
                break buffer.len();
            }
            let wanted =
                tuning.block.saturating_sub(buffer.len()).max(OVERLAP.min(tuning.block)).max(searched);
            let fresh = self.fresh;
            let patient = self.read(&mut buffer, wanted);
            if fresh {
                searched = 0; // a byte order mark may have gone
            }
            if !patient {
                if let Some(end) = newline {
                    break end;
                }
                self.carry = buffer;
                return Cut::Idle;
            }
        };
        self.hand_out(buffer, cut, tuning)
    }

    /// Hands out the first `end` bytes, unless their first line is too long.
    fn hand_out(&mut self, mut buffer: Vec<u8>, mut end: usize, tuning: &Tuning) -> Cut {
        self.fresh = false;
        if end == 0 {
            return Cut::End;
        }
        if self.ended && end < buffer.len() && buffer.len() - end <= tuning.line {
            end = buffer.len(); // the last line, without a newline
        }
        if memchr(b'\n', &buffer[..end]).map_or(end, |newline| newline + 1) > tuning.line {
            self.carry = buffer;
            return Cut::Long;
        }
        self.carry.extend_from_slice(&buffer[end..]);
        buffer.truncate(end);
        let offset = self.offset;
        self.offset += end as u64;
        Cut::Block(Block { offset, bytes: buffer })
    }

    /// Appends about `wanted` bytes. False if none came for a while.
    fn read(&mut self, buffer: &mut Vec<u8>, wanted: usize) -> bool {
        let filled = buffer.len();
        buffer.resize(filled + wanted, 0);
        let mut end = filled;
        let mut patient = true;
        while end < buffer.len() && !self.ended && patient {
            match self.decoder.read(&mut buffer[end..]) {
                Ok(0) => self.ended = true,
                Ok(n) => end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => patient = false,
                Err(error) => {
                    self.damage = Some((self.offset + end as u64, error.to_string()));
                    self.ended = true;
                }
            }
        }
        buffer.truncate(end);
        if self.fresh && (end >= HEAD || self.ended) {
            self.fresh = false;
            self.begin(buffer);
        }
        patient
    }

    /// Looks at the first bytes of the text.
    fn begin(&mut self, text: &mut Vec<u8>) {
        let foreign = match archive::sniff(text) {
            Container::Plain { skip } => {
                text.drain(..skip);
                self.offset = skip as u64;
                return;
            }
            _ if !self.archive => return,
            Container::Gzip | Container::Zstd => "an archive inside an archive, unpack the outer one first",
            Container::Foreign(reason) => reason,
        };
        text.clear();
        self.ended = true;
        self.refused = Some(foreign);
    }

    /// Bytes taken from disk since the last call.
    pub(super) fn taken(&self) -> u64 {
        self.taken.swap(0, Ordering::Relaxed)
    }
}

/// Reads an input on from some offset, not line by line.
pub(super) struct Rest {
    source: Source,
    /// Offset of the next byte.
    offset: u64,
    /// Blocks that were cut from the stream and go first.
    backlog: VecDeque<Block>,
}

impl Rest {
    /// Reads on from `offset`. `backlog` has the blocks that were cut from a stream from there on, in order; the first may
    /// begin earlier.
    pub(super) fn new(source: Source, offset: u64, mut backlog: VecDeque<Block>) -> Rest {
        if let Some(first) = backlog.front_mut() {
            first.bytes.drain(..(offset - first.offset) as usize);
            first.offset = offset;
        }
        Rest { source, offset, backlog }
    }

    /// Reads the next bytes into `buffer`. None come when none come for a while; `false` at the end.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, wanted: usize) -> io::Result<bool> {
        let more = match &mut self.source {
            Source::Plain(file) => {
                let read = file.fill(buffer, 0, self.offset, wanted)?;
                buffer.truncate(read);
                read > 0
            }
            Source::Stream(stream) => {
                if let Some(block) = self.backlog.pop_front() {
                    *buffer = block.bytes;
                } else if stream.carry.is_empty() && !stream.ended {
                    buffer.clear();
                    stream.read(buffer, wanted);
                    stream.offset += buffer.len() as u64;
                } else {
                    *buffer = std::mem::take(&mut stream.carry);
                    stream.offset += buffer.len() as u64;
                }
                !buffer.is_empty() || !stream.ended
            }
        };
        self.offset += buffer.len() as u64;
        Ok(more)
    }

    /// What is wrong with the stream.
    pub(super) fn damage(&mut self) -> Option<(u64, String)> {
        match &mut self.source {
            Source::Plain(_) => None,
            Source::Stream(stream) => stream.damage.take(),
        }
    }

    /// Bytes taken from disk since the last call; of a plain file `read` of them, which the caller knows.
    pub(super) fn taken(&self, read: usize) -> u64 {
        match &self.source {
            Source::Plain(_) => read as u64,
            Source::Stream(stream) => stream.taken(),
        }
    }

    /// Gives the input back to be read by lines, from the start of a line: the last `unused` bytes of `buffer`, which was read
    /// last, go first.
    pub(super) fn give_back(self, buffer: &[u8], unused: usize) -> (Source, u64) {
        let from = self.offset - unused as u64;
        let mut source = self.source;
        if let Source::Stream(stream) = &mut source {
            let mut carry = buffer[buffer.len() - unused..].to_vec();
            for block in &self.backlog {
                carry.extend_from_slice(&block.bytes);
            }
            carry.append(&mut stream.carry);
            stream.carry = carry;
            stream.offset = from;
        }
        (source, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that has nothing to give every other time, and then little.
    struct Hesitant {
        rest: VecDeque<u8>,
        ready: bool,
    }

    impl Read for Hesitant {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.ready = !self.ready;
            if !self.ready {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut few = self.rest.iter().copied().take(7.min(buffer.len())).collect::<Vec<_>>();
            self.rest.drain(..few.len());
            buffer[..few.len()].swap_with_slice(&mut few);
            Ok(few.len())
        }
    }

    /// The blocks of a stream that comes haltingly: all of the text, cut at newlines.
    fn check(container: Container, bytes: Vec<u8>, text: &[u8]) {
        let tuning = Tuning { block: 50, line: 200, ..Tuning::default() };
        let mut stream = Stream::new(container, Hesitant { rest: bytes.into(), ready: false }).unwrap();
        let mut read = Vec::new();
        loop {
            match stream.cut(Vec::new(), &tuning) {
                Cut::Block(block) => {
                    assert_eq!(block.offset, read.len() as u64);
                    assert!(block.bytes.ends_with(b"\n"));
                    read.extend_from_slice(&block.bytes);
                }
                Cut::Idle => {}
                Cut::Long => panic!("no line is long"),
                Cut::End => break,
            }
        }
        assert_eq!(read, text);
    }

    #[test]
    fn streams_that_halt_are_cut_at_newlines() {
        let lines: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        let text = lines.concat().into_bytes();
        check(Container::Plain { skip: 0 }, text.clone(), &text);
        let mut encoder = flate2::read::GzEncoder::new(&text[..], flate2::Compression::fast());
        let mut archive = Vec::new();
        encoder.read_to_end(&mut archive).unwrap();
        check(Container::Gzip, archive, &text);
        check(Container::Zstd, zstd::encode_all(&text[..], 1).unwrap(), &text);
    }
}
