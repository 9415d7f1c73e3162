//! Lines that a container runtime split, joined again.
//!
//! A runtime writes what a container says in pieces of 16 KB. CRI runtimes mark each piece but the last of a line with `P`
//! and the last with `F`; in Docker's json-file a piece goes on if its `log` does not end in a newline. Pieces are joined by
//! stream, because standard output and standard error of a container stand interleaved in one file.
//!
//! Guarantees: no piece is lost. A joint that something else ends (a line that is no piece, the end of the input, a piece
//! that is a complete object by itself) is given out as the fragment that it is; pieces in it that may have been records of
//! their own are given out as those. No more than the limit of a record is held for each stream; what is longer keeps its
//! head and its tail.

use std::borrow::Cow;
use std::ops::Range;

use super::frame::{Frame, Limits, Sink};
use super::record;
use crate::engine::Extent;
use crate::scan::{Doc, Marks, Node, unescape};

/// Docker splits after so many bytes, neither more nor less.
const DOCKER_PIECE: usize = 16 << 10;

/// What Docker writes for each byte of a character that it has split.
const SPLIT: &[u8] = "\u{fffd}".as_bytes();

/// What a container said in one line of its log file.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Which of [`STREAMS`] it was said on.
    stream: usize,
    /// What was said.
    text: Cow<'a, [u8]>,
    /// What goes on in the next piece.
    goes_on: GoesOn,
}

/// Whether a line goes on in the next piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoesOn {
    /// It does: the runtime says so.
    Yes,
    /// There is no newline at its end, which shippers take away too.
    Perhaps,
    No,
}

/// The streams of a container.
const STREAMS: [&[u8]; 2] = [b"stdout", b"stderr"];

impl<'a> Piece<'a> {
    /// A CRI log line: `2026-03-01T10:00:00.1Z stdout F {...}`.
    pub fn of_cri(line: &'a [u8]) -> Option<Piece<'a>> {
        let (stream, goes_on, text) = cri(line)?;
        Some(Piece { stream, text: Cow::Borrowed(text), goes_on })
    }

    /// A record of Docker's json-file: `{"log":"...\n","stream":"stdout","time":"..."}`.
    pub fn of_docker(record: Node<'a>) -> Option<Piece<'a>> {
        let (mut log, mut stream) = (None, None);
        for (key, value) in record.members() {
            match key.raw() {
                b"log" => log = Some(value),
                b"stream" => stream = value.str_raw(),
                _ => {}
            }
        }
        let stream = STREAMS.iter().position(|name| Some(*name) == stream)?;
        let raw = log?.str_raw()?;
        let (raw, goes_on) = if may_go_on(raw) {
            (raw, GoesOn::Perhaps)
        } else {
            (&raw[..raw.len() - "\\n".len()], GoesOn::No)
        };
        let text = match unescape(raw) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Some(Piece { stream, text, goes_on })
    }

    /// True if the line cannot be judged without the pieces that follow: it goes on and, where that is not sure, it begins a
    /// value that it does not end.
    pub fn begins(&self, marks: &mut Marks) -> bool {
        match self.goes_on {
            GoesOn::Yes => true,
            GoesOn::Perhaps => {
                let payload = record::payload(&self.text).filter(|text| !is_bracketed_text(text));
                payload.is_some_and(|text| value_end(text, marks).is_none())
            }
            GoesOn::No => false,
        }
    }

    /// True if it is an event by itself, so that it does not continue another. What ends a value has a bracket more than it
    /// opened; only of a piece from the middle, which the sender of a request may shape, that is not so.
    fn stands_alone(&self, marks: &mut Marks) -> bool {
        let from_the_middle = match self.goes_on {
            GoesOn::Yes => true,
            GoesOn::Perhaps => has_docker_length(&self.text),
            GoesOn::No => false,
        };
        !from_the_middle && self.text.first() == Some(&b'{') && is_whole(&self.text, marks)
    }

    /// True if it may be an event by itself although it has the length of a piece from the middle.
    fn may_stand_alone(&self) -> bool {
        let object = self.text.first() == Some(&b'{') && self.text.trim_ascii_end().last() == Some(&b'}');
        object && self.goes_on == GoesOn::Perhaps
    }
}

/// True if Docker may have ended a piece after this text because it had got long enough. Of a character that a piece's end
/// splits, each byte has become a character of three.
fn has_docker_length(text: &[u8]) -> bool {
    let Some(surplus) = text.len().checked_sub(DOCKER_PIECE) else { return false };
    let mut inner = text;
    let mut split = 0;
    while let Some(rest) =
        inner.strip_prefix(SPLIT).or_else(|| inner.strip_suffix(SPLIT)).filter(|_| split < 6)
    {
        (inner, split) = (rest, split + 1);
    }
    surplus % (SPLIT.len() - 1) == 0 && surplus / (SPLIT.len() - 1) <= split
}

/// True for a text such as `[INFO] ready`: what follows the bracket begins neither a record nor a list of them.
fn is_bracketed_text(text: &[u8]) -> bool {
    let inside = text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    inside.is_some_and(|inside| !matches!(inside.first(), None | Some(b'{' | b'[' | b']' | b'"')))
}

/// Stream, tag and text of a CRI log line.
fn cri(line: &[u8]) -> Option<(usize, GoesOn, &[u8])> {
    let mut words = line.splitn(4, |b| *b == b' ');
    let (time, stream, tags, text) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let stream = STREAMS.iter().position(|name| *name == stream)?;
    let goes_on = match tags.split(|b| *b == b':').next()? {
        b"P" => GoesOn::Yes,
        b"F" => GoesOn::No,
        _ => return None,
    };
    let dated = time.first()?.is_ascii_digit() && time.contains(&b'T');
    dated.then_some((stream, goes_on, text.strip_suffix(b"\r").unwrap_or(text)))
}

/// What was said in a CRI log line.
pub(super) fn cri_text(line: &[u8]) -> Option<&[u8]> {
    cri(line).map(|(.., text)| text)
}

/// True if the undecoded text of a `log` does not end in a newline.
pub fn may_go_on(log: &[u8]) -> bool {
    let Some(rest) = log.strip_suffix(b"n") else { return true };
    // A backslash before the backslash makes it one of the text's own.
    rest.iter().rev().take_while(|byte| **byte == b'\\').count().is_multiple_of(2)
}

/// Where the value ends that the text begins with, unless the text ends first.
fn value_end(text: &[u8], marks: &mut Marks) -> Option<usize> {
    marks.mark(text);
    let root = Doc::new(text, marks).root()?;
    root.complete().then(|| root.end() as usize)
}

/// True if the text is one value.
fn is_whole(text: &[u8], marks: &mut Marks) -> bool {
    value_end(text, marks).is_some_and(|end| text[end..].trim_ascii().is_empty())
}

/// Joins pieces. Everything else goes through.
#[derive(Debug)]
pub(super) struct Joiner {
    limits: Limits,
    /// One for each stream.
    open: [Option<Joint>; STREAMS.len()],
    /// Of the record at hand, and of the text in it.
    marks: Marks,
    carried: Marks,
}

/// What has been joined of a line.
#[derive(Debug)]
struct Joint {
    /// Where its first piece begins.
    offset: u64,
    /// The text or, of one that is too long, its head and its latest part.
    bytes: Vec<u8>,
    /// The text's true length.
    length: u64,
    /// Pieces that may be records of their own: where they begin in the input, and where they lie in the text.
    doubtful: Vec<(u64, Range<usize>)>,
}

impl Joiner {
    pub(super) fn new(limits: Limits) -> Joiner {
        Joiner { limits, open: [None, None], marks: Marks::new(), carried: Marks::new() }
    }

    /// True if a line has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> usize {
        self.open.iter().flatten().map(|joint| joint.bytes.len()).sum()
    }

    /// Takes a record of the input and gives out what is known of it and of those before.
    pub(super) fn take(&mut self, frame: Frame<'_>, emit: Sink<'_>) {
        let Some(piece) = piece(frame, &mut self.marks) else {
            self.finish(emit);
            return emit(frame);
        };
        let (open, marks, limits) = (&mut self.open, &mut self.carried, self.limits);
        let joint = &mut open[piece.stream];
        if let Some(open) = joint.take_if(|_| piece.stands_alone(marks)) {
            open.emit(limits, marks, emit);
        }
        // What gets too long loses its middle: before that, such pieces are looked at.
        if let Some(open) = joint.take_if(|open| open.is_doubtful_past(piece.text.len(), limits)) {
            open.emit(limits, marks, emit);
        }
        match joint {
            Some(open) => open.add(&piece, frame.offset, limits),
            None if piece.begins(marks) => {
                let mut open =
                    Joint { offset: frame.offset, bytes: Vec::new(), length: 0, doubtful: Vec::new() };
                open.add(&piece, frame.offset, limits);
                *joint = Some(open);
            }
            None => return emit(frame),
        }
        if let Some(open) = joint.take_if(|_| piece.goes_on == GoesOn::No) {
            open.emit(limits, marks, emit);
        }
    }

    /// Gives out what is open, in the order of the input.
    pub(super) fn finish(&mut self, emit: Sink<'_>) {
        self.open.sort_by_key(|joint| joint.as_ref().map(|joint| joint.offset));
        for joint in &mut self.open {
            if let Some(joint) = joint.take() {
                joint.emit(self.limits, &mut self.carried, emit);
            }
        }
    }
}

/// What a record is a piece of, if it can be one.
fn piece<'a>(frame: Frame<'a>, marks: &'a mut Marks) -> Option<Piece<'a>> {
    if frame.listed || frame.extent != Extent::Whole {
        return None;
    }
    match frame.bytes.first()? {
        b'0'..=b'9' => Piece::of_cri(frame.bytes),
        b'{' if memchr::memmem::find(frame.bytes, b"\"log\"").is_some() => {
            marks.mark(frame.bytes);
            Piece::of_docker(Doc::new(frame.bytes, marks).root()?)
        }
        _ => None,
    }
}

impl Joint {
    fn add(&mut self, piece: &Piece<'_>, offset: u64, limits: Limits) {
        let start = self.bytes.len();
        self.length += piece.text.len() as u64;
        self.bytes.extend_from_slice(&piece.text);
        if start > 0 && piece.may_stand_alone() {
            self.doubtful.push((offset, start..self.bytes.len()));
        }
        if self.length > limits.record as u64 {
            let end = self.bytes.len().saturating_sub(limits.tail);
            self.bytes.drain(limits.head.min(end)..end);
        }
    }

    /// True if so many bytes more would make it too long while pieces of it may be records of their own.
    fn is_doubtful_past(&self, more: usize, limits: Limits) -> bool {
        !self.doubtful.is_empty() && self.length + more as u64 > limits.record as u64
    }

    fn emit(self, limits: Limits, marks: &mut Marks, emit: Sink<'_>) {
        let Joint { offset, bytes, length, doubtful } = self;
        let mut give = |offset, bytes, extent| {
            emit(Frame { offset, bytes, extent, listed: false, joined: true });
        };
        if length > limits.record as u64 {
            return give(offset, &bytes, Extent::Oversize { tail: limits.head, length });
        }
        if is_whole(&bytes, marks) {
            return give(offset, &bytes, Extent::Whole);
        }
        // Between pieces that are records, what is left are fragments.
        let (mut offset, mut at) = (offset, 0);
        for (place, Range { start, end }) in doubtful {
            if is_whole(&bytes[start..end], marks) {
                if at < start {
                    give(offset, &bytes[at..start], Extent::Fragment);
                }
                give(place, &bytes[start..end], Extent::Whole);
                (offset, at) = (place, end);
            }
        }
        if at < bytes.len() {
            give(offset, &bytes[at..], Extent::Fragment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::frame::Framer;

    /// Frames `input` in blocks of many sizes and compares with `expected`: one frame each with its offset, `+` before what
    /// was joined, `~` before a fragment.
    fn check(input: &str, expected: &[&str]) {
        for size in (1..40).chain([input.len().max(1)]) {
            let mut shown = Vec::new();
            let mut emit = |frame: Frame<'_>| {
                let Frame { offset, bytes, extent, joined, .. } = frame;
                let (joined, cut) =
                    (if joined { "+" } else { "" }, if extent == Extent::Fragment { "~" } else { "" });
                shown.push(format!("{offset} {joined}{cut}{}", String::from_utf8_lossy(bytes)));
            };
            let mut framer = Framer::new(0);
            for block in input.as_bytes().chunks(size) {
                assert_eq!(framer.feed(block, &mut emit), None);
            }
            framer.finish(&mut emit);
            assert_eq!(shown, expected, "in blocks of {size}");
        }
    }

    fn cri(stream: &str, tag: &str, text: &str) -> String {
        format!("2026-03-01T10:00:00.1Z {stream} {tag} {text}\n")
    }

    fn docker(stream: &str, text: &str) -> String {
        let text = serde_json::to_string(text).unwrap();
        format!("{{\"log\":{text},\"stream\":\"{stream}\",\"time\":\"2026-03-01T10:00:00.1Z\"}}\n")
    }

    #[test]
    fn cri_pieces_are_joined_by_stream() {
        let first = cri("stdout", "P", "{\"a\": ");
        let lines = [
            &*first,
            &cri("stderr", "P", "{\"b\""),
            &cri("stdout", "P", "\"x y"),
            &cri("stdout", "F", "\"}"),
            &cri("stderr", "F:tag", ":1}"),
            &cri("stdout", "F", "{\"c\":1}"),
        ];
        let whole = cri("stdout", "F", "{\"c\":1}");
        let offset = lines.concat().len() - whole.len();
        check(
            &lines.concat(),
            &[
                "0 +{\"a\": \"x y\"}",
                &format!("{} +{{\"b\":1}}", first.len()),
                &format!("{offset} {}", whole.trim_end()),
            ],
        );
        check(&[cri("stdout", "P", "just "), cri("stdout", "F", "text\r")].concat(), &["0 +~just text"]);
    }

    #[test]
    fn docker_pieces_are_joined_up_to_the_newline() {
        let first = docker("stdout", "{\"a\": \"x\\n");
        let lines = [&*first, &docker("stderr", "E\n"), &docker("stdout", "y"), &docker("stdout", "\"}\n")];
        let other = docker("stderr", "E\n");
        check(&lines.concat(), &[&format!("{} {}", first.len(), other.trim_end()), "0 +{\"a\": \"x\\ny\"}"]);
        // Shippers take the newline away.
        for whole in
            [docker("stdout", "{\"a\":1}"), docker("stdout", "text"), docker("stdout", "{\"a\":1}\n")]
        {
            check(&whole, &[&format!("0 {}", whole.trim_end())]);
        }
    }

    #[test]
    fn what_ends_a_line_too_early_loses_nothing() {
        let (cut, end) = (cri("stdout", "P", "{\"a\":"), cri("stdout", "F", "1}"));
        check(&cut, &["0 +~{\"a\":"]);
        for other in ["text\n", "{\"b\":2}\n", "{\"message\":\"{}\"}\n"] {
            let expected = [
                "0 +~{\"a\":".to_owned(),
                format!("{} {}", cut.len(), other.trim_end()),
                format!("{} {}", cut.len() + other.len(), end.trim_end()),
            ];
            check(&[&*cut, other, &end].concat(), &expected.each_ref().map(String::as_str));
        }
        for (cut, other) in [
            (cut, cri("stdout", "F", "{\"b\":2}")),
            (docker("stdout", "{\"a\":"), docker("stdout", "{\"b\":2}\n")),
            (docker("stdout", "{\"a\":"), docker("stdout", "{\"b\":2}")),
        ] {
            check(
                &[&*cut, &*other].concat(),
                &["0 +~{\"a\":", &format!("{} {}", cut.len(), other.trim_end())],
            );
        }
    }

    /// A piece from the middle is of the sender's making: it is no event because it looks like one.
    #[test]
    fn pieces_from_the_middle_are_no_events() {
        let lines =
            [cri("stdout", "P", "{\"a\":["), cri("stdout", "P", "{\"b\":2}"), cri("stdout", "F", "]}")];
        check(&lines.concat(), &["0 +{\"a\":[{\"b\":2}]}"]);
        let middle = format!("{{\"b\":\"{}\"}}", "x".repeat(DOCKER_PIECE - 8));
        let lines = [docker("stdout", "{\"a\":["), docker("stdout", &middle), docker("stdout", "]}\n")];
        check(&lines.concat(), &[&format!("0 +{{\"a\":[{middle}]}}")]);
    }

    /// Docker's lines without their newlines, as shippers leave them.
    #[test]
    fn what_only_looked_like_the_beginning_of_a_line_swallows_nothing() {
        let text = "[\u{1b}[31mERR\u{1b}[0m starting";
        let event = |length: usize| format!("{{\"b\":\"{}\"}}", "x".repeat(length - 8));
        // Neither is a piece from the middle: the text begins nothing, and the event is longer than any piece.
        for (first, length) in [(text, 17_000), (text, DOCKER_PIECE), ("{\"a\":[", 17_000)] {
            let lines = [docker("stdout", first), docker("stdout", &event(length))];
            let fragment = if first == text { lines[0].trim_end() } else { "+~{\"a\":[" };
            let expected = [format!("0 {fragment}"), format!("{} {}", lines[0].len(), lines[1].trim_end())];
            check(&lines.concat(), &expected.each_ref().map(String::as_str));
        }
        // They may be pieces from the middle, but what they are in the middle of is no record.
        let (lines, event) =
            ([docker("stdout", "{\"a\":["), docker("stdout", &event(DOCKER_PIECE))], event(DOCKER_PIECE));
        let second = lines[0].len();
        let third = second + lines[1].len();
        let input = [&*lines[0], &lines[1], &lines[1], &docker("stdout", "x")].concat();
        let events = [format!("{second} +{event}"), format!("{third} +{event}"), format!("{third} +~x")];
        check(&input, &["0 +~{\"a\":[", &events[0], &events[1], &events[2]]);
    }

    #[test]
    fn pieces_of_docker_have_one_length() {
        let piece = |begin: &str, end: &str, length: usize| {
            let filling = "x".repeat(length - begin.len() - end.len());
            has_docker_length(format!("{begin}{filling}{end}").as_bytes())
        };
        assert!(piece("{", "}", DOCKER_PIECE));
        assert!(!piece("{", "}", DOCKER_PIECE + 1) && !piece("{", "}", DOCKER_PIECE - 1));
        // A character of three bytes, of which the piece has the last two; and one of which it has the first.
        assert!(piece("\u{fffd}\u{fffd}", "", DOCKER_PIECE + 4));
        assert!(piece("\u{fffd}\u{fffd}", "\u{fffd}", DOCKER_PIECE + 6));
        assert!(!piece("\u{fffd}", "", DOCKER_PIECE + 4));
    }

    #[test]
    fn long_lines_keep_head_and_tail() {
        let limits = Limits { record: 64, head: 16, tail: 8 };
        let mut joiner = Joiner::new(limits);
        let mut seen = Vec::new();
        for n in 0..50 {
            let line = cri("stdout", if n < 49 { "P" } else { "F" }, &format!("{n:02}........"));
            let frame = Frame {
                offset: n,
                bytes: line.trim_end().as_bytes(),
                extent: Extent::Whole,
                listed: false,
                joined: false,
            };
            joiner.take(frame, &mut |frame| seen.push((frame.offset, frame.bytes.to_vec(), frame.extent)));
            assert!(joiner.held() <= limits.record + 10);
        }
        let extent = Extent::Oversize { tail: 16, length: 500 };
        assert_eq!(seen, [(0, b"00........01............".to_vec(), extent)]);
    }

    #[test]
    fn newlines_are_told_from_letters() {
        for (log, goes_on) in
            [("a\\n", false), ("a\\\\n", true), ("a\\\\\\n", false), ("n", true), ("", true)]
        {
            assert_eq!(may_go_on(log.as_bytes()), goes_on, "{log}");
        }
    }
}
