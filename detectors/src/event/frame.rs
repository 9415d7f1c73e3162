//! Finds the records of an input that is not JSON lines, in bounded time and memory.
//!
//! What counts as a record:
//!
//! - a value at the top, over any number of lines, several on a line, commas between them or not;
//! - each item of a list, however long the list: a top-level array, or an object with members `items` (or `Items`) that
//!   are arrays; if there are several, the items of all. Only items are framed one by one: what else such an object holds is passed over;
//! - a line at the top that begins with no bracket, whole (text, or a log prefix with a value behind it), and a run of
//!   NULs, which is what a crash leaves of a file.
//!
//! A torn record must not swallow what follows. What ends an open value, and the list around it, because JSON has no place
//! for it there:
//!
//! - a bracket that opens in the first column where no value may stand, which is anywhere but after a `[`, after a `:` and, in
//!   an array, after a comma;
//! - a line that a container runtime has written (`2026-03-01T10:00:00.1Z stdout F ...`);
//! - the record separator of RFC 7464 outside strings, or in a string that is not closed in its line;
//! - eight NULs in a row.
//!
//! Where a value may stand, a bracket in the first column is taken for a part of the open value. That is right for a document
//! without indentation, and wrong if the record was torn just there. It shows in the end: what follows a value that was
//! swallowed has no place in JSON, or the input ends, or the value gets too long. Then the open value ends before the first
//! such bracket, and the input is read again from there. (If the open value has no indentation itself, such brackets may be
//! its own, and only a whole value right before the place where it showed is read again.)
//!
//! What was open is emitted as a fragment. A list that is ended before its closing bracket, between two items, is told by an
//! empty fragment; where nothing but a comma was missing between two items, the bracket may still come.
//!
//! A raw newline ends a string, because JSON allows none in it.
//!
//! Records that are pieces of a line, which a container runtime had split, are joined ([`super::pieces`]).
//!
//! Guarantees: the frames are the same however the input is cut into blocks; no more than [`MAX_RECORD`] bytes are held,
//! besides the head and the tail of a longer record; at most four times the input's length is read again, and once
//! more what is then split at every bracket in the first column. Brackets are counted, not matched.

use memchr::{memchr, memchr3};

use super::pieces::{self, Joiner};
use crate::engine::Extent;
use crate::scan::unescape;

/// Records that are longer are framed as their head and their tail. This is the limit of one item, not of a list.
pub const MAX_RECORD: usize = 16 << 20;

/// How much of the beginning of an oversize record is kept. The API server writes who and what first.
pub const HEAD: usize = 256 << 10;

/// How much of the end of an oversize record is kept. The API server writes the times and annotations last.
pub const TAIL: usize = 4 << 10;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it begins in the input.
    pub offset: u64,
    /// Its bytes, or its head and tail. None if all that is left of it is that a list was cut off between two items.
    pub bytes: &'a [u8],
    /// How much of it the bytes hold.
    pub extent: Extent,
    /// True for an item of a list.
    pub listed: bool,
    /// True for what a container said in one line and its runtime had split: the bytes are the text alone, joined, and the
    /// offset is that of the first piece.
    pub joined: bool,
}

/// How many NULs in a row are a hole in the file and not just odd text.
const HOLE: usize = 8;

/// How long at most what stands before the text is in a line of a container runtime, or a number at the head of an array.
const PREFIX: usize = 256;

/// How many times the input's length may be read again, in all, to find where torn records end.
const REREADS: u64 = 4;

/// How many lines in a row must be records of their own before the input counts as JSON lines again.
const SETTLED: u32 = 64;

/// The framer. Feed it the input block by block, then finish it.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    /// Offset of the first byte of the block that is being fed.
    base: u64,
    place: Place,
    /// The list that was left between two items, as long as its closing bracket may come.
    left: Place,
    state: State,
    /// Where the record begins that `state` is about.
    start: u64,
    /// Brackets open, lists around the record included.
    depth: u64,
    in_string: bool,
    /// The last byte of the previous block was a backslash in a string.
    escaped: bool,
    /// Where the string began that was opened last, after its quote.
    string: u64,
    key: Key,
    /// The next byte is the first of a line.
    line_begins: bool,
    open: Open,
    /// Where the first item began of what may be an array of numbers.
    scalar: Option<u64>,
    again: Again,
    held: Held,
    /// The last bytes before `base`.
    before: [u8; KEY_LENGTH],
    /// How many NULs stand directly before `base`, counted up to [`HOLE`].
    nuls_before: usize,
    lines: Lines,
    pieces: Joiner,
}

/// The limits, smaller in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) record: usize,
    pub(super) head: usize,
    pub(super) tail: usize,
}

/// What records lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing.
    Top,
    /// A top-level array.
    Array,
    /// The `items` of a top-level object.
    Items,
}

impl Place {
    /// How many brackets are open around a record.
    fn depth(self) -> u64 {
        self as u64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between records.
    Between,
    /// After a bracket at the top that opens a list, unless text follows it.
    Bracket,
    /// Inside a JSON value.
    Value,
    /// Inside an object after its `items`.
    Rest,
    /// Inside text: to the end of the line or, in a list, of the item.
    Text,
    /// Inside a run of NULs.
    Nuls,
}

/// How much of `"items": [` has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Other,
    Items,
    Colon,
}

/// The longest spelling of `items`: all of it escaped.
const KEY_LENGTH: usize = r"\u0069\u0074\u0065\u006d\u0073".len();

/// What tells that the open value is torn, and where the next record began in it.
#[derive(Debug, Default)]
struct Open {
    /// It begins in the first column.
    at_margin: bool,
    /// Which of its brackets that are open are square ones; the lowest bit is the innermost.
    arrays: u128,
    /// The last byte before the present line that is not blank, and `"` if a string was not closed. Between the items of a
    /// list only a comma counts, and the list's own bracket.
    last: u8,
    /// The present line ended in a string.
    unclosed: bool,
    /// It has no indentation: its second line begins in the first column, and not with a bracket that opens.
    flush: Option<bool>,
    /// Where in it, if it is torn, the next record may have begun at the earliest.
    next: Option<u64>,
    /// The same for each depth, of the brackets that are open and of those that were closed last.
    siblings: Vec<Sibling>,
    /// The least depth since the last of them began.
    least: u64,
    /// The present line, if it may be a container runtime's.
    dated: Option<Dated>,
}

/// A value in the first column amid an open one, the first of its neighbours.
#[derive(Debug, Clone, Copy)]
struct Sibling {
    depth: u64,
    start: u64,
}

/// How many depths are looked after.
const SIBLINGS: usize = 64;

/// A line amid an open value that begins with a digit.
#[derive(Debug, Clone, Copy)]
struct Dated {
    start: u64,
    /// As it was before the line.
    last: u8,
}

/// What is read again, and how often.
#[derive(Debug)]
struct Again {
    /// Where the input began.
    origin: u64,
    /// How many bytes were read again.
    bytes: u64,
    /// Before here every bracket in the first column begins a record: it has been read again often enough.
    split_until: u64,
    /// Bytes from earlier blocks that are to be read before the present block, which is to be read again.
    pending: Vec<u8>,
}

/// How far reading a block got.
enum Scan {
    /// To its end.
    All,
    /// To where the input may be read as JSON lines.
    Settled(usize),
    /// Bytes before it must be read again, and it as well.
    Again,
}

/// Whether the input has come to be JSON lines (again).
#[derive(Debug, Clone, Copy)]
struct Lines {
    /// Lines in a row that were records of their own.
    streak: u32,
    /// The present line began at the top between records.
    from_top: bool,
    /// The present line holds something.
    any: bool,
    /// No earlier than here may the framer leave the rest to others.
    not_before: u64,
}

/// Bytes of the open record from earlier blocks; of an oversize one the head and the latest part.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// Offset of the first byte.
    start: u64,
    /// How many bytes are missing after the head.
    gap: u64,
}

/// Takes the records.
pub type Sink<'s> = &'s mut dyn FnMut(Frame<'_>);

const OTHER: u8 = 0;
const QUOTE: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const NEWLINE: u8 = 4;
const MARK: u8 = 5;

/// The record separator of RFC 7464, which stands before each record.
const SEPARATOR: u8 = 0x1E;

/// What a byte outside strings means.
static CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    classes[b'"' as usize] = QUOTE;
    classes[b'{' as usize] = OPEN;
    classes[b'[' as usize] = OPEN;
    classes[b'}' as usize] = CLOSE;
    classes[b']' as usize] = CLOSE;
    classes[b'\n' as usize] = NEWLINE;
    classes[SEPARATOR as usize] = MARK;
    classes
};

/// Blank within a line.
fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | SEPARATOR)
}

/// True for a JSON value that is no text and has no brackets.
fn is_scalar(bytes: &[u8]) -> bool {
    let number = || bytes.first().is_some_and(|byte| matches!(byte, b'-' | b'0'..=b'9'));
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    matches!(text, "true" | "false" | "null") || number() && text.parse::<f64>().is_ok()
}

impl Framer {
    /// A framer of input that begins at `offset`, which is the start of a line or, in a line, of a value.
    pub fn new(offset: u64) -> Self {
        Self::with_limits(offset, Limits { record: MAX_RECORD, head: HEAD, tail: TAIL })
    }

    fn with_limits(offset: u64, limits: Limits) -> Self {
        Framer {
            limits,
            base: offset,
            place: Place::Top,
            left: Place::Top,
            state: State::Between,
            start: offset,
            depth: 0,
            in_string: false,
            escaped: false,
            string: 0,
            key: Key::Other,
            line_begins: true,
            open: Open::default(),
            scalar: None,
            again: Again { origin: offset, bytes: 0, split_until: offset, pending: Vec::new() },
            held: Held::default(),
            before: [0; KEY_LENGTH],
            nuls_before: 0,
            lines: Lines { streak: 0, from_top: true, any: false, not_before: u64::MAX },
            pieces: Joiner::new(limits),
        }
    }

    /// Lets [`Framer::feed`] stop once it is past `offset` and the input has come to be JSON lines.
    #[must_use]
    pub fn until_lines_after(mut self, offset: u64) -> Self {
        self.lines.not_before = offset;
        self
    }

    /// How many bytes of unfinished records are held.
    pub fn held(&self) -> usize {
        self.held.bytes.len() + self.pieces.held()
    }

    /// True if nothing is open: the input could be framed anew from the next byte on.
    pub fn is_idle(&self) -> bool {
        let between = self.state == State::Between && self.place == Place::Top && self.left == Place::Top;
        between && !self.pieces.is_open()
    }

    /// Takes the next bytes of the input. Returns `None` when it took all of them; otherwise how many, at the start of a line
    /// from which on the input may be read as JSON lines.
    pub fn feed(&mut self, block: &[u8], emit: Sink<'_>) -> Option<usize> {
        let mut longer = Vec::new();
        loop {
            let bytes = if longer.is_empty() { block } else { &longer[..] };
            match self.scan(bytes, emit) {
                Scan::All => {
                    self.keep(bytes);
                    return None;
                }
                // What was read before the block lies before the place from which on this may happen.
                Scan::Settled(at) => return Some(at - (bytes.len() - block.len())),
                Scan::Again => {
                    let mut pending = std::mem::take(&mut self.again.pending);
                    pending.extend_from_slice(bytes);
                    longer = pending;
                }
            }
        }
    }

    fn scan(&mut self, block: &[u8], emit: Sink<'_>) -> Scan {
        let mut at = 0;
        let mut hole = self.next_hole(block, 0);
        while at < block.len() {
            let to_hole = hole.map_or(block.len(), |end| end.saturating_sub(HOLE));
            // A hole that is not long enough yet when patience ends counts for nothing, however much of it is at hand.
            let patience = self.patience().map(|offset| (offset - self.base) as usize);
            let edge = patience.filter(|end| hole.is_none_or(|hole| *end < hole));
            let edge = edge.map_or(to_hole, |end| end.min(block.len()));
            at = match self.state {
                State::Between => self.between(block, at, emit),
                State::Nuls => self.nuls(block, at, emit),
                _ if self.patience() == Some(self.base + at as u64) => self.lose_patience(block, at, emit),
                _ if at == edge => {
                    let end = hole.expect("the edge of a block is its end or a hole");
                    self.end_by_hole(block, end, emit)
                }
                State::Bracket => self.bracket(&block[..edge], at, emit),
                State::Value | State::Rest => self.value(&block[..edge], at, emit),
                State::Text => self.text(&block[..edge], at, emit),
            };
            if !self.again.pending.is_empty() {
                return Scan::Again;
            }
            if hole.is_some_and(|end| end <= at) {
                hole = self.next_hole(block, at);
            }
            let settled = self.lines.streak >= SETTLED && self.base + at as u64 >= self.lines.not_before;
            let between = self.state == State::Between && self.place == Place::Top && !self.pieces.is_open();
            if settled && self.line_begins && between {
                self.end_left_list(self.base + at as u64, emit);
                return Scan::Settled(at);
            }
        }
        Scan::All
    }

    /// Where the next hole has got long enough to be one, at or after `at`.
    fn next_hole(&self, block: &[u8], mut at: usize) -> Option<usize> {
        let mut run = if at == 0 { self.nuls_before } else { 0 };
        loop {
            while block.get(at) == Some(&0) {
                run += 1;
                at += 1;
                if run >= HOLE {
                    return Some(at);
                }
            }
            run = 0;
            at += memchr(0, block.get(at..)?)?;
        }
    }

    /// Ends the input: what is open is emitted as a fragment.
    pub fn finish(&mut self, emit: Sink<'_>) {
        self.lines.not_before = u64::MAX;
        while matches!(self.state, State::Value | State::Rest) {
            let line = self.runtimes_line(&[], self.base);
            let Some(next) = self.swallowed().or(line) else { break };
            self.tear(&[], self.base, (next - 1, next), emit);
            let rest = std::mem::take(&mut self.again.pending);
            self.feed(&rest, emit);
        }
        match self.state {
            State::Value | State::Bracket => self.emit(&[], self.start, self.base, Extent::Fragment, emit),
            State::Text | State::Nuls => self.emit(&[], self.start, self.base, Extent::Whole, emit),
            State::Rest => self.cut_list(self.base, emit),
            State::Between => {}
        }
        if matches!(self.state, State::Between | State::Nuls) && self.place != Place::Top {
            self.cut_list(self.base, emit);
        }
        self.end_left_list(self.base, emit);
        self.reset();
        self.pieces.finish(emit);
    }

    /// Moves past blanks and commas to the next record or the end of the list.
    fn between(&mut self, block: &[u8], at: usize, emit: Sink<'_>) -> usize {
        self.open.at_margin = self.line_begins;
        if block[at] == SEPARATOR {
            self.open.last = SEPARATOR;
            return at + 1;
        }
        self.line_begins = false;
        if self.open.at_margin && matches!(block[at], b'{' | b'[') && !matches!(self.open.last, b',' | b'[') {
            self.leave_list(self.base + at as u64, emit);
        }
        match block[at] {
            b'\n' => self.newline(),
            b',' => self.open.last = b',',
            byte if blank(byte) => {}
            b'[' if self.place == Place::Top => self.begin(State::Bracket, at, 0),
            byte @ (b'{' | b'[') => {
                self.begin(State::Value, at, 1);
                self.open.arrays = u128::from(byte == b'[');
            }
            b'"' if self.place != Place::Top => {
                self.begin(State::Value, at, 0);
                self.in_string = true;
                self.string = self.start + 1;
            }
            b'}' | b']' if self.place != Place::Top => self.end_list(),
            b']' if self.left != Place::Top => {
                self.place = std::mem::replace(&mut self.left, Place::Top);
                self.end_list();
            }
            0 => self.begin(State::Nuls, at, 0),
            _ => self.begin(State::Text, at, 0),
        }
        at + 1
    }

    /// Leaves the list, if there is one, for what begins at `offset` and is none of its items.
    fn leave_list(&mut self, offset: u64, emit: Sink<'_>) {
        if self.place != Place::Top {
            self.end_left_list(offset, emit);
            self.left = std::mem::replace(&mut self.place, Place::Top);
        }
    }

    fn begin(&mut self, state: State, at: usize, brackets: u64) {
        self.state = state;
        self.start = self.base + at as u64;
        self.depth = self.place.depth() + brackets;
        self.lines.any = true;
        self.scalar = None;
        self.open.flush = None;
    }

    fn begin_list(&mut self, place: Place, emit: Sink<'_>) {
        self.end_left_list(self.start, emit);
        self.place = place;
        self.reset();
        self.open.last = b'[';
    }

    fn end_list(&mut self) {
        let wrapped = self.place == Place::Items;
        self.place = Place::Top;
        self.state = if wrapped { State::Rest } else { State::Between };
        self.depth = u64::from(wrapped);
        self.open.arrays = 0;
        self.open.flush = None;
    }

    /// Decides whether `[` opens a list or is just text (`[INFO] ready`).
    fn bracket(&mut self, block: &[u8], at: usize, emit: Sink<'_>) -> usize {
        let offset = self.base + at as u64;
        match (block[at], self.scalar) {
            (byte, None) if blank(byte) => return at + 1,
            (b'{' | b'[' | b']' | b'"' | b'\n', None) => self.begin_list(Place::Array, emit),
            (b'{' | b'[' | b']' | b'"' | b'\n', Some(_)) => self.state = State::Text,
            (b',', Some(scalar)) => {
                let item = self.bytes(block, scalar, offset).trim_ascii_end();
                let end = scalar + item.len() as u64;
                if !is_scalar(item) {
                    self.state = State::Text;
                    return at;
                }
                self.end_left_list(self.start, emit);
                self.place = Place::Array;
                self.emit(block, scalar, end, Extent::Whole, emit);
                self.begin_list(Place::Array, emit);
            }
            _ if !self.is_short(self.start, offset) => self.state = State::Text,
            (_, scalar) => {
                self.scalar = scalar.or(Some(offset));
                return at + 1;
            }
        }
        at
    }

    fn text(&mut self, block: &[u8], at: usize, emit: Sink<'_>) -> usize {
        let ends = |byte: &u8| matches!(byte, b',' | b'"' | b'{' | b'}' | b'[' | b']' | b'\n');
        let rest = &block[at..];
        let end = match self.place {
            Place::Top => memchr(b'\n', rest),
            Place::Array | Place::Items => rest.iter().position(ends),
        };
        let Some(end) = end.map(|length| at + length) else { return block.len() };
        let listed = self.place != Place::Top;
        if listed && self.open.at_margin && self.is_runtimes(block, self.start, self.base + end as u64) {
            self.leave_list(self.start, emit);
            return end;
        }
        self.end(block, end, Extent::Whole, emit)
    }

    fn nuls(&mut self, block: &[u8], at: usize, emit: Sink<'_>) -> usize {
        let end = block[at..].iter().position(|byte| *byte != 0);
        end.map_or(block.len(), |length| self.end(block, at + length, Extent::Whole, emit))
    }

    /// Walks through a value, or through the rest of an object that held a list, until it ends.
    fn value(&mut self, block: &[u8], mut at: usize, emit: Sink<'_>) -> usize {
        while at < block.len() {
            if self.in_string {
                at = self.in_string(block, at);
                if !self.in_string && self.depth == self.place.depth() {
                    return self.end(block, at, Extent::Whole, emit);
                }
                continue;
            }
            if std::mem::take(&mut self.line_begins) {
                let here = self.base + at as u64;
                if self.begins_record(block[at], at) {
                    return self.tear(block, here, (here - 1, here), emit);
                }
                if self.open.next == Some(here) {
                    return at; // from now on there is a limit to how far the value may reach
                }
            }
            if self.key != Key::Other && self.watch(block[at]) {
                if self.key == Key::Other {
                    self.begin_list(Place::Items, emit);
                    return at + 1;
                }
                at += 1;
                continue;
            }
            let class = loop {
                match block.get(at).map(|byte| CLASSES[usize::from(*byte)]) {
                    Some(OTHER) => at += 1,
                    Some(class) => break class,
                    None => return at,
                }
            };
            let here = self.base + at as u64;
            if let Some(line) = self.runtimes_line(block, here) {
                return self.tear(block, here, (line - 1, line), emit);
            }
            at += 1;
            match class {
                QUOTE => {
                    self.in_string = true;
                    self.string = here + 1;
                }
                OPEN => {
                    self.depth += 1;
                    self.open.arrays = self.open.arrays << 1 | u128::from(block[at - 1] == b'[');
                }
                CLOSE => {
                    self.depth -= 1;
                    self.open.least = self.open.least.min(self.depth);
                    if self.depth == self.place.depth() {
                        return self.end(block, at, Extent::Whole, emit);
                    }
                    // What is deeper than is noted counts as an array: there, less is out of place.
                    self.open.arrays = self.open.arrays >> 1 | 1 << (u128::BITS - 1);
                }
                MARK => {
                    self.open.note_last(&block[..at - 1]);
                    return self.tear(block, here, (here, here), emit);
                }
                _ => {
                    if let Some(mark) = self.end_of_line(block, at - 1) {
                        return self.tear(block, here, (mark, mark), emit);
                    }
                }
            }
        }
        at
    }

    /// The line that ends at `at` is done with, unless a record separator stands in a string that it did not close.
    fn end_of_line(&mut self, block: &[u8], at: usize) -> Option<u64> {
        let mark = self.separator(block, self.base + at as u64);
        if mark.is_none() {
            self.open.note_last(&block[..at]);
            self.newline();
        }
        mark
    }

    /// Looks at the first byte of a line amid an open value. True if a record begins with it that is no part of the value.
    fn begins_record(&mut self, byte: u8, at: usize) -> bool {
        let here = self.base + at as u64;
        if !matches!(byte, b'\n' | b'\r' | SEPARATOR) {
            self.open.flush.get_or_insert(!matches!(byte, b' ' | b'\t' | b'{' | b'['));
        }
        match byte {
            SEPARATOR => return true,
            b'0'..=b'9' => self.open.dated = Some(Dated { start: here, last: self.open.last }),
            b'{' | b'[' => {
                let in_place = match self.open.last {
                    b'[' | b':' => true,
                    b',' => self.open.arrays & 1 == 1,
                    _ => false,
                };
                // What has got too long cannot be read again.
                let patient = self.state == State::Rest || here - self.start < self.limits.record as u64;
                if !in_place || !patient || here < self.again.split_until {
                    return true;
                }
                self.open.note_sibling(Sibling { depth: self.depth, start: here });
            }
            _ => {}
        }
        false
    }

    /// Where the next record began in the open value, if it turns out to be torn. Without indentation a value in the first
    /// column may well be a part of it, unless it is whole and what follows has no place in JSON.
    fn swallowed(&mut self) -> Option<u64> {
        if self.open.flush != Some(true) {
            return self.open.next;
        }
        self.open.keep_siblings();
        let whole = !self.in_string && !self.open.unclosed && matches!(self.open.last, b'}' | b']');
        self.open.siblings.last().filter(|last| whole && last.depth == self.depth).map(|last| last.start)
    }

    /// Where a record separator stands in the string that the present line, which ends at `end`, did not close.
    fn separator(&mut self, block: &[u8], end: u64) -> Option<u64> {
        let torn = self.open.unclosed && end - self.start <= self.limits.record as u64;
        if !torn || self.state == State::Rest || self.open.next.is_some() {
            return None;
        }
        let string = self.string;
        memchr(SEPARATOR, self.bytes(block, string, end)).map(|mark| string + mark as u64)
    }

    /// Where the present line began, if up to `to` it is what a container runtime writes before the text.
    fn runtimes_line(&mut self, block: &[u8], to: u64) -> Option<u64> {
        let Dated { start, last } = self.open.dated.take()?;
        if self.is_runtimes(block, start, to) {
            self.open.last = last;
            return Some(start);
        }
        self.forget();
        None
    }

    /// True if the stretch is what a container runtime writes before the text.
    fn is_runtimes(&mut self, block: &[u8], from: u64, to: u64) -> bool {
        self.is_short(from, to) && pieces::cri_text(self.bytes(block, from, to)).is_some()
    }

    fn is_short(&self, from: u64, to: u64) -> bool {
        to - from <= PREFIX.min(self.limits.record) as u64
    }

    /// Moves to the end of a string, or of the line that it stands on.
    fn in_string(&mut self, block: &[u8], mut at: usize) -> usize {
        if std::mem::take(&mut self.escaped) && block[at] != b'\n' {
            at += 1;
        }
        while let Some(found) = memchr3(b'"', b'\\', b'\n', block.get(at..).unwrap_or_default()) {
            at += found;
            match block[at] {
                b'\\' => match block.get(at + 1) {
                    Some(b'\n') => at += 1,
                    Some(_) => at += 2,
                    None => {
                        self.escaped = true;
                        return block.len();
                    }
                },
                b'"' => {
                    self.in_string = false;
                    self.note_key(block, at);
                    return at + 1;
                }
                _ => {
                    // The newline itself is left to the value's walk.
                    self.in_string = false;
                    self.open.unclosed = true;
                    return at;
                }
            }
        }
        block.len()
    }

    /// Notes that the string which ends at `at` is `items`, in the place where a list's key would be.
    fn note_key(&mut self, block: &[u8], at: usize) {
        let length = (self.base + at as u64 - self.string) as usize;
        if self.place != Place::Top || self.depth != 1 || !("items".len()..=KEY_LENGTH).contains(&length) {
            return;
        }
        let mut name = [0; KEY_LENGTH];
        let here = &block[at.saturating_sub(KEY_LENGTH)..at];
        let there = &self.before[here.len()..];
        name[..there.len()].copy_from_slice(there);
        name[there.len()..].copy_from_slice(here);
        let name = unescape(&name[KEY_LENGTH - length..]);
        if name == "items" || (name.starts_with('I') && name.eq_ignore_ascii_case("items")) {
            self.key = Key::Items;
        }
    }

    /// Looks at a byte after a key `items`. True if that is all there is to do about it; if the key is done with then, a list
    /// begins.
    fn watch(&mut self, byte: u8) -> bool {
        match (byte, self.key) {
            (b'\n', _) => return false,
            (byte, _) if blank(byte) || byte == 0 => {}
            (b':', Key::Items) => self.key = Key::Colon,
            (b'[', Key::Colon) => self.key = Key::Other,
            _ => {
                self.key = Key::Other;
                return false;
            }
        }
        true
    }

    /// The open value turns out to be torn, as was met at `met`. It ends before `to`, or before where the next record may have
    /// begun in it; and from `next` or from there on the input is read, perhaps again. Returns where in the block that is.
    fn tear(&mut self, block: &[u8], met: u64, (to, next): (u64, u64), emit: Sink<'_>) -> usize {
        let (to, next) = self.swallowed().map_or((to, next), |next| (next - 1, next));
        if self.state == State::Value {
            self.emit(block, self.start, to, Extent::Fragment, emit);
        } else {
            self.cut_list(to, emit);
        }
        self.place = Place::Top;
        self.read_again(block, met, next)
    }

    /// How far the open value may reach before something must be done about it: to the limit of a record, if a record may
    /// have begun in it, or if it may be a list that was taken for an item of one.
    fn patience(&self) -> Option<u64> {
        let limit = self.limits.record as u64;
        match self.state {
            State::Value if self.may_be_no_item() || self.open.next.is_some() => Some(self.start + limit),
            State::Rest => self.open.next.map(|next| next + limit),
            _ => None,
        }
    }

    /// True if the record is an item of a list only because the list around it may not have been closed.
    fn may_be_no_item(&self) -> bool {
        self.place != Place::Top && self.open.at_margin && self.start >= self.again.split_until
    }

    /// The open value has got too long for what it was taken for.
    fn lose_patience(&mut self, block: &[u8], at: usize, emit: Sink<'_>) -> usize {
        let met = self.base + at as u64;
        if !self.may_be_no_item() {
            self.open.flush = None; // whatever it is, it must be read from somewhere
            return self.tear(block, met, (met, met), emit);
        }
        self.leave_list(self.start, emit);
        self.read_again(block, met, self.start)
    }

    /// Goes back from `met` to `next`, where a line at the top begins.
    fn read_again(&mut self, block: &[u8], met: u64, next: u64) -> usize {
        if next < met {
            self.again.bytes += met - next;
            if self.again.bytes > REREADS * (met - self.again.origin) {
                self.again.split_until = met;
            }
            self.lines.not_before = self.lines.not_before.max(met);
        }
        if next < self.base {
            self.again.pending = self.bytes(block, next, self.base).to_vec();
            self.base = next;
            self.nuls_before = 0;
        }
        self.reset();
        self.line_begins = true;
        self.lines.from_top = true;
        self.lines.any = false;
        (next - self.base) as usize
    }

    /// A hole that is long enough at `end` has ended whatever was open. Returns where to read on.
    fn end_by_hole(&mut self, block: &[u8], end: usize, emit: Sink<'_>) -> usize {
        let hole = self.base + end as u64 - HOLE as u64;
        if !self.in_string {
            self.open.note_last(&block[..end.saturating_sub(HOLE)]);
        }
        if matches!(self.state, State::Value | State::Rest) && self.swallowed().is_some() {
            return self.tear(block, hole, (hole, hole), emit);
        }
        match self.state {
            State::Value => self.emit(block, self.start, hole, Extent::Fragment, emit),
            State::Text | State::Bracket => self.emit(block, self.start, hole, Extent::Whole, emit),
            State::Rest => self.cut_list(hole, emit),
            State::Between | State::Nuls => {}
        }
        self.place = Place::Top;
        self.reset();
        self.state = State::Nuls;
        self.start = hole;
        if hole < self.base {
            self.held.start = hole;
            self.held.bytes.resize((self.base - hole) as usize, 0);
        }
        end
    }

    /// The list around was not closed, and nothing else shows it.
    fn cut_list(&mut self, offset: u64, emit: Sink<'_>) {
        let cut = Frame { offset, bytes: &[], extent: Extent::Fragment, listed: false, joined: false };
        self.pieces.take(cut, emit);
    }

    /// The closing bracket of the list that was left is not to come any more.
    fn end_left_list(&mut self, offset: u64, emit: Sink<'_>) {
        if std::mem::replace(&mut self.left, Place::Top) != Place::Top {
            self.cut_list(offset, emit);
        }
    }

    /// A newline outside text.
    fn newline(&mut self) {
        let top = self.state == State::Between && self.place == Place::Top;
        if !top {
            self.lines.streak = 0;
        } else if self.lines.from_top && self.lines.any {
            self.lines.streak += 1;
        }
        self.lines.from_top = top;
        self.lines.any = false;
        self.line_begins = true;
    }

    /// Emits the record that ends before `end`, or leaves the object that held a list.
    fn end(&mut self, block: &[u8], end: usize, extent: Extent, emit: Sink<'_>) -> usize {
        if self.state != State::Rest {
            self.emit(block, self.start, self.base + end as u64, extent, emit);
        }
        self.reset();
        end
    }

    /// Back to between records.
    fn reset(&mut self) {
        self.state = State::Between;
        self.depth = self.place.depth();
        self.in_string = false;
        self.escaped = false;
        self.key = Key::Other;
        self.line_begins = false;
        self.open.clear();
        self.held.clear();
    }

    /// Forgets what was held of a line that is no record after all.
    fn forget(&mut self) {
        if self.state == State::Rest && self.open.next.is_none() {
            self.held.clear();
        }
    }

    /// A stretch of the input, of which what lies before the block is held.
    fn bytes<'b>(&'b mut self, block: &'b [u8], from: u64, to: u64) -> &'b [u8] {
        if self.held.bytes.is_empty() {
            return &block[(from - self.base) as usize..(to - self.base) as usize];
        }
        self.held.take_up_to(to, block, self.base);
        self.held.between(from, to)
    }

    fn emit(&mut self, block: &[u8], from: u64, to: u64, extent: Extent, emit: Sink<'_>) {
        let listed = self.place != Place::Top;
        let Limits { record, head, tail } = self.limits;
        let length = to - from;
        let bytes = if self.held.bytes.is_empty() {
            &block[(from - self.base) as usize..(to - self.base) as usize]
        } else {
            self.held.take_up_to(to, block, self.base);
            self.held.between(from, to)
        };
        let oversize = length > record as u64 || matches!(extent, Extent::Oversize { .. });
        if !oversize || length <= (head + tail) as u64 {
            let extent = if oversize { Extent::Fragment } else { extent };
            return self.pieces.take(Frame { offset: from, bytes, extent, listed, joined: false }, emit);
        }
        let mut joint = bytes[..head].to_vec();
        joint.extend_from_slice(&bytes[bytes.len() - tail..]);
        let extent = Extent::Oversize { tail: head, length };
        self.pieces.take(Frame { offset: from, bytes: &joint, extent, listed, joined: false }, emit);
    }

    /// Keeps what the next blocks will need of this one.
    fn keep(&mut self, block: &[u8]) {
        let end = self.base + block.len() as u64;
        let limit = self.limits.record as u64;
        let nuls = block.iter().rev().take_while(|byte| **byte == 0).count();
        self.nuls_before = if nuls == block.len() { self.nuls_before + nuls } else { nuls }.min(HOLE);
        if self.open.dated.is_some_and(|line| !self.is_short(line.start, end)) {
            self.open.dated = None;
            self.forget();
        }
        let from = match self.state {
            State::Between => None,
            State::Rest => self.open.next.or(self.open.dated.map(|line| line.start)),
            State::Bracket | State::Value | State::Text | State::Nuls => Some(self.start),
        };
        if matches!(self.state, State::Value | State::Rest) && !self.in_string {
            self.open.note_last(block);
        }
        if let Some(from) = from {
            if self.held.bytes.is_empty() {
                self.held.start = from;
            }
            self.held.take_up_to(end, block, self.base);
            let needed = self.open.dated.map_or(end, |line| line.start);
            // A newline, or NULs that turn out to be a hole, are no part of the record.
            if needed - from > limit + HOLE as u64 {
                self.held.cut(needed, self.limits.head, self.limits.tail + HOLE);
            }
        }
        let mut recent = self.before.to_vec();
        recent.extend_from_slice(&block[block.len().saturating_sub(KEY_LENGTH)..]);
        self.before.copy_from_slice(&recent[recent.len() - KEY_LENGTH..]);
        self.base = end;
    }
}

impl Open {
    /// Forgets everything.
    fn clear(&mut self) {
        let mut siblings = std::mem::take(&mut self.siblings);
        siblings.clear();
        *self = Open { siblings, ..Open::default() };
    }

    /// Notes a value in the first column.
    fn note_sibling(&mut self, sibling: Sibling) {
        self.next.get_or_insert(sibling.start);
        self.keep_siblings();
        let first = self.siblings.last().is_none_or(|last| last.depth < sibling.depth);
        if first && self.siblings.len() < SIBLINGS {
            self.siblings.push(sibling);
        }
        self.least = sibling.depth;
    }

    /// Drops those in brackets that have been closed.
    fn keep_siblings(&mut self) {
        while self.siblings.pop_if(|last| last.depth > self.least).is_some() {}
    }

    /// Notes the last byte of a line that is not blank; of a line that is blank, nothing.
    fn note_last(&mut self, line: &[u8]) {
        if std::mem::take(&mut self.unclosed) {
            self.last = b'"';
        } else if let Some(last) = line.iter().rfind(|byte| !blank(**byte) && **byte != 0)
            && *last != b'\n'
        {
            self.last = *last;
        }
    }
}

impl Held {
    /// Forgets everything, and gives back what a long record took.
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
        self.gap = 0;
    }

    /// Offset after the last byte.
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64 + self.gap
    }

    /// Adds the bytes of `block`, which begins at `base`, up to `to`.
    fn take_up_to(&mut self, to: u64, block: &[u8], base: u64) {
        let from = self.end().max(base);
        if to > from {
            self.bytes.extend_from_slice(&block[(from - base) as usize..(to - base) as usize]);
        }
    }

    /// The bytes from one offset to another; those in the gap are missing.
    fn between(&self, from: u64, to: u64) -> &[u8] {
        let place = |offset: u64| {
            let past = offset - self.start;
            if past == 0 { 0 } else { (past - self.gap) as usize }
        };
        &self.bytes[place(from)..place(to)]
    }

    /// Drops what lies between the head and the last `tail` bytes before `needed`.
    fn cut(&mut self, needed: u64, head: usize, tail: usize) {
        let end = ((needed - self.start - self.gap) as usize).saturating_sub(tail);
        if end > head {
            self.bytes.drain(head..end);
            self.gap += (end - head) as u64;
        }
    }
}

#[cfg(test)]
mod tests;
