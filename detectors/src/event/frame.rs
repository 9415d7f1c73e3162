//! Finds the records of an input that is not JSON lines, in one pass and with bounded memory.
//!
//! What counts as a record:
//!
//! - a value at the top, over any number of lines, several on a line, commas between them or not;
//! - each item of a list, however long the list: a top-level array, or an object with members `items` (or `Items`) that
//!   are arrays; if there are several, the items of all. Only items are framed one by one: what else such an object holds is passed over;
//! - a line at the top that begins with no bracket, whole (text, or a log prefix with a value behind it), and a run of
//!   NULs, which is what a crash leaves of a file.
//!
//! A torn record must not swallow what follows. So three things end an open value, and the list around it; what was open
//! is emitted as a fragment:
//!
//! - a line that begins with `{` in its first column, is one complete object, and holds nothing else but blanks (within a
//!   list, and a comma). Between the items of a list such a line is just an item;
//! - a `{` in the first column, if the first line after the beginning of the value or list was indented;
//! - eight NULs in a row.
//!
//! A list that is ended before its closing bracket, between two items, is told by an empty fragment. After a `{` in the
//! first column between two items its closing bracket may still come: some writers indent everything but the items.
//!
//! A raw newline ends a string, because JSON allows none in it.
//!
//! Records that are pieces of a line, which a container runtime had split, are joined ([`super::pieces`]).
//!
//! Guarantees: every byte is looked at once; the frames are the same however the input is cut into blocks; no more than
//! [`MAX_RECORD`] bytes are held, besides the head and the tail of a longer record. Brackets are counted, not matched.

use memchr::{memchr, memchr3};

use super::pieces::Joiner;
use crate::engine::Extent;

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

/// How many lines in a row must be records of their own before the input counts as JSON lines again.
const SETTLED: u32 = 64;

/// The framer. Feed it the input block by block, then finish it.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    /// Offset of the first byte of the block that is being fed.
    base: u64,
    place: Place,
    /// The list that a `{` in the first column ended between two items, as long as its closing bracket may come.
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
    /// The present line, if it may turn out to be a complete object amid an open value.
    line: Option<Line>,
    /// The next byte is the first of a line.
    line_begins: bool,
    /// Whether the second line of the present value or list at the top is indented, once it has begun.
    indented: Option<bool>,
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

const KEY_LENGTH: usize = "items".len();

/// A line in the midst of an open value that began with `{` in its first column.
#[derive(Debug, Clone, Copy)]
struct Line {
    start: u64,
    /// The depth that it began at.
    depth: u64,
    /// Where its object was closed: all that follows must be blank.
    closed: Option<u64>,
    comma: bool,
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

/// What a byte outside strings means.
static CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    classes[b'"' as usize] = QUOTE;
    classes[b'{' as usize] = OPEN;
    classes[b'[' as usize] = OPEN;
    classes[b'}' as usize] = CLOSE;
    classes[b']' as usize] = CLOSE;
    classes[b'\n' as usize] = NEWLINE;
    classes
};

/// Blank within a line. The record separator of RFC 7464 counts as blank.
fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x1E)
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
            line: None,
            line_begins: true,
            indented: None,
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

    /// Takes the next bytes of the input. Returns `None` when it took all of them; otherwise how many, at the start of a line
    /// from which on the input may be read as JSON lines.
    pub fn feed(&mut self, block: &[u8], emit: Sink<'_>) -> Option<usize> {
        let mut at = 0;
        let mut hole = self.next_hole(block, 0);
        while at < block.len() {
            let edge = hole.map_or(block.len(), |end| end.saturating_sub(HOLE));
            let block_to_hole = &block[..edge];
            at = match self.state {
                State::Between => self.between(block, at, emit),
                State::Nuls => self.nuls(block, at, emit),
                _ if at == edge => {
                    let end = hole.expect("the edge of a block is its end or a hole");
                    self.end_by_hole(block, end, emit);
                    end
                }
                State::Bracket => self.bracket(block_to_hole, at, emit),
                State::Value | State::Rest => self.value(block_to_hole, at, emit),
                State::Text => self.text(block_to_hole, at, emit),
            };
            if hole.is_some_and(|end| end <= at) {
                hole = self.next_hole(block, at);
            }
            let settled = self.lines.streak >= SETTLED && self.base + at as u64 >= self.lines.not_before;
            let between = self.state == State::Between && self.place == Place::Top && !self.pieces.is_open();
            if settled && self.line_begins && between {
                self.end_left_list(self.base + at as u64, emit);
                return Some(at);
            }
        }
        self.keep(block);
        None
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
        match self.state {
            State::Value | State::Rest if self.line_is_record() => self.end_by_line(&[], emit),
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
        if self.starts_anew(block[at]) {
            self.end_left_list(self.base + at as u64, emit);
            self.left = std::mem::replace(&mut self.place, Place::Top);
        }
        self.line_begins = false;
        match block[at] {
            b'\n' => self.newline(),
            b',' => {}
            byte if blank(byte) => {}
            b'[' if self.place == Place::Top => self.begin(State::Bracket, at, 0),
            b'{' | b'[' => self.begin(State::Value, at, 1),
            b'"' if self.place != Place::Top => {
                self.begin(State::Value, at, 0);
                self.in_string = true;
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

    fn begin(&mut self, state: State, at: usize, brackets: u64) {
        self.state = state;
        self.start = self.base + at as u64;
        self.depth = self.place.depth() + brackets;
        self.lines.any = true;
        if self.place == Place::Top {
            self.indented = None;
        }
    }

    fn end_list(&mut self) {
        let wrapped = self.place == Place::Items;
        self.place = Place::Top;
        self.state = if wrapped { State::Rest } else { State::Between };
        self.depth = u64::from(wrapped);
    }

    /// True if `byte` is a `{` in the first column where only indented lines belong.
    fn starts_anew(&mut self, byte: u8) -> bool {
        let within = self.state != State::Between || self.place != Place::Top;
        if !self.line_begins || !within || matches!(byte, b'\n' | b'\r') {
            return false;
        }
        *self.indented.get_or_insert(matches!(byte, b' ' | b'\t')) && byte == b'{'
    }

    /// Decides whether `[` opens a list or is just text (`[INFO] ready`).
    fn bracket(&mut self, block: &[u8], at: usize, emit: Sink<'_>) -> usize {
        match block[at] {
            byte if blank(byte) => return at + 1,
            b'{' | b'[' | b']' | b'"' | b'\n' => {
                self.end_left_list(self.start, emit);
                self.place = Place::Array;
                self.state = State::Between;
                self.held.clear();
            }
            _ => self.state = State::Text,
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
        end.map_or(block.len(), |length| self.end(block, at + length, Extent::Whole, emit))
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
            if self.starts_anew(block[at]) {
                self.end_by_indentation(block, at, emit);
                return at;
            }
            let watch =
                self.key != Key::Other || self.line_begins || self.line.is_some_and(|l| l.closed.is_some());
            if watch && self.watch(block[at], at) {
                at += 1;
                if self.state == State::Between {
                    self.end_left_list(self.start, emit);
                    return at; // a list begins
                }
                continue;
            }
            let class = loop {
                match block.get(at).map(|byte| CLASSES[usize::from(*byte)]) {
                    Some(OTHER) => at += 1,
                    Some(class) => break class,
                    None => return at,
                }
            };
            at += 1;
            match class {
                QUOTE => {
                    self.in_string = true;
                    self.string = self.base + at as u64;
                }
                OPEN => self.depth += 1,
                CLOSE => {
                    self.depth -= 1;
                    if self.depth == self.place.depth() {
                        return self.end(block, at, Extent::Whole, emit);
                    }
                    self.close_line(at);
                }
                _ if self.line_is_record() => {
                    self.end_by_line(block, emit);
                    return at - 1; // the newline is one between records
                }
                _ => self.newline(),
            }
        }
        at
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
                    return at;
                }
            }
        }
        block.len()
    }

    /// Notes that the string which ends at `at` is `items`, in the place where a list's key would be.
    fn note_key(&mut self, block: &[u8], at: usize) {
        let end = self.base + at as u64;
        if self.place == Place::Top && self.depth == 1 && end - self.string == KEY_LENGTH as u64 {
            let mut name = [0; KEY_LENGTH];
            let here = &block[at.saturating_sub(KEY_LENGTH)..at];
            let there = &self.before[here.len()..];
            name[..there.len()].copy_from_slice(there);
            name[there.len()..].copy_from_slice(here);
            if name == *b"items" || (name[0] == b'I' && name.eq_ignore_ascii_case(b"items")) {
                self.key = Key::Items;
            }
        }
    }

    /// Looks at a byte where the very next one matters: at the start of a line, after a key `items`, after a line's object.
    /// True if that is all there is to do about it.
    fn watch(&mut self, byte: u8, at: usize) -> bool {
        if std::mem::take(&mut self.line_begins) && byte == b'{' {
            self.line =
                Some(Line { start: self.base + at as u64, depth: self.depth, closed: None, comma: false });
        }
        if blank(byte) || byte == 0 {
            return true;
        }
        if byte == b'\n' && self.key != Key::Other {
            self.newline();
            return true;
        }
        match (byte, self.key) {
            (b':', Key::Items) => {
                self.key = Key::Colon;
                return true;
            }
            (b'[', Key::Colon) => {
                self.key = Key::Other;
                self.line = None;
                self.place = Place::Items;
                self.state = State::Between;
                self.held.clear();
                return true;
            }
            _ => self.key = Key::Other,
        }
        let listed = self.place != Place::Top;
        if let Some(line) = &mut self.line
            && line.closed.is_some()
            && byte != b'\n'
        {
            if byte == b',' && listed && !line.comma {
                line.comma = true;
                return true;
            }
            self.drop_line();
        }
        false
    }

    /// A bracket was closed before `at`: it may be the end of the line's object.
    fn close_line(&mut self, at: usize) {
        if let Some(line) = &mut self.line
            && line.depth == self.depth
        {
            line.closed = Some(self.base + at as u64);
        }
    }

    fn drop_line(&mut self) {
        self.line = None;
        if self.state == State::Rest {
            self.held.clear();
        }
    }

    /// True if the line that ends here is a complete object and nothing else.
    fn line_is_record(&self) -> bool {
        self.line.is_some_and(|line| {
            line.closed.is_some_and(|closed| closed - line.start <= self.limits.record as u64)
        })
    }

    /// A complete line has ended the open value: emits both.
    fn end_by_line(&mut self, block: &[u8], emit: Sink<'_>) {
        let Some(Line { start, closed: Some(closed), .. }) = self.line else { return };
        if self.state == State::Value {
            // If the line reached past the limit, part of the value may be lost already.
            let cut = closed - self.start > self.limits.record as u64;
            let extent = if cut { Extent::Oversize { tail: 0, length: 0 } } else { Extent::Fragment };
            self.emit(block, self.start, start - 1, extent, emit);
        } else {
            self.cut_list(start - 1, emit);
        }
        self.place = Place::Top;
        self.emit(block, start, closed, Extent::Whole, emit);
        self.reset();
    }

    /// A record has begun at `at` before the open value was closed.
    fn end_by_indentation(&mut self, block: &[u8], at: usize, emit: Sink<'_>) {
        if self.state == State::Value {
            self.emit(block, self.start, self.base + at as u64 - 1, Extent::Fragment, emit);
        } else {
            self.cut_list(self.base + at as u64 - 1, emit);
        }
        self.place = Place::Top;
        self.reset();
        self.lines.from_top = true;
    }

    /// A hole that is long enough at `end` has ended whatever was open.
    fn end_by_hole(&mut self, block: &[u8], end: usize, emit: Sink<'_>) {
        let hole = self.base + end as u64 - HOLE as u64;
        match self.state {
            State::Value | State::Rest if self.line_is_record() => self.end_by_line(block, emit),
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
        if self.line.is_some() {
            self.drop_line();
        }
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
        self.line = None;
        self.line_begins = false;
        self.held.clear();
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
        if let Some(line) = self.line
            && line.closed.unwrap_or(end) - line.start > limit
        {
            self.drop_line();
        }
        let from = match self.state {
            State::Between => None,
            State::Rest => self.line.map(|line| line.start),
            State::Bracket | State::Value | State::Text | State::Nuls => Some(self.start),
        };
        if let Some(from) = from {
            if self.held.bytes.is_empty() {
                self.held.start = from;
            }
            self.held.take_up_to(end, block, self.base);
            let known = self.line.and_then(|line| line.closed).unwrap_or(end);
            // A newline, or NULs that turn out to be a hole, are no part of the record.
            if known - from > limit + HOLE as u64 {
                let needed = self.line.map_or(end, |line| line.start);
                self.held.cut(needed, self.limits.head, self.limits.tail + HOLE);
            }
        }
        let mut recent = self.before.to_vec();
        recent.extend_from_slice(&block[block.len().saturating_sub(KEY_LENGTH)..]);
        self.before.copy_from_slice(&recent[recent.len() - KEY_LENGTH..]);
        self.base = end;
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
