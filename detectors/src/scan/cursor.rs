//! The cursor: values, members and items found through the marks.
//!
//! A value is a span. Its end is found once, when the walk over its parent reaches it: the next quote for a string, the
//! place where the depth comes back for an object or array, the next delimiter for the rest. The usual form of a member,
//! `,"key":value` without blanks, has a straight path; anything else (blanks, damage, the end) goes through `next_slow`,
//! which is also where resynchronisation lives: a string at this depth counts as a key when a colon follows it, and all
//! else is passed over.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter::FusedIterator;

use super::Marks;
use super::kernel::{BLOCK, Block};
use super::text::{is_number, unescape};

/// One marked document.
#[derive(Clone, Copy, Debug)]
pub struct Doc<'a> {
    bytes: &'a [u8],
    blocks: &'a [Block],
}

/// What a value is, by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `{...}`, whole or cut off.
    Object,
    /// `[...]`, whole or cut off.
    Array,
    /// `"..."`, whole or cut off.
    String,
    /// A number as JSON spells it, of any size.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
    /// Nothing that JSON knows; may be empty.
    Invalid,
}

impl<'a> Doc<'a> {
    /// The document `bytes`, of which `marks` holds the marks: the same bytes that [`Marks::mark`] saw, or the line that
    /// [`Marks::mark_line`] found. Marks of other bytes give senseless spans, but nothing worse.
    pub fn new(bytes: &'a [u8], marks: &'a Marks) -> Self {
        Self { bytes: &bytes[..bytes.len().min(marks.length)], blocks: marks.blocks() }
    }

    /// The document's bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The first value after whitespace; `None` if there is nothing else. What follows the value isn't looked at.
    pub fn root(self) -> Option<Node<'a>> {
        let start = self.skip_blanks(0);
        (start < self.bytes.len()).then(|| self.value(start))
    }

    /// The first value at or after `from`, past whitespace; `from` must lie outside strings.
    pub fn value_from(self, from: u32) -> Option<Node<'a>> {
        let start = self.skip_blanks(from as usize);
        (start < self.bytes.len()).then(|| self.value(start))
    }

    /// The value with this span, which a [`Node`] of this document had. Any other span gives some node within the
    /// document.
    pub fn node_at(self, start: u32, end: u32) -> Node<'a> {
        let end = end.min(self.bytes.len() as u32);
        Node { doc: self, start: start.min(end), end }
    }

    /// The first unescaped quote at or after `from`.
    #[inline]
    pub(super) fn quote_from(self, from: usize) -> Option<usize> {
        let mut index = from / BLOCK;
        let rest = self.blocks.get(index)?.quotes >> (from % BLOCK);
        if rest != 0 {
            return Some(from + rest.trailing_zeros() as usize);
        }
        loop {
            index += 1;
            let quotes = self.blocks.get(index)?.quotes;
            if quotes != 0 {
                return Some(index * BLOCK + quotes.trailing_zeros() as usize);
            }
        }
    }

    /// The first quote or bracket at or after `from`, or the end.
    fn mark_from(self, from: usize) -> usize {
        let all = |block: &Block| block.quotes | block.opens | block.closes;
        let mut past = from % BLOCK;
        for (index, block) in self.blocks.iter().enumerate().skip(from / BLOCK) {
            let rest = all(block) >> past << past;
            if rest != 0 {
                return index * BLOCK + rest.trailing_zeros() as usize;
            }
            past = 0;
        }
        self.bytes.len()
    }

    /// The offset after the bracket that closes the one at `open`, or the end.
    #[inline]
    fn container_end(self, open: usize) -> Option<usize> {
        let index = open / BLOCK;
        let block = self.blocks.get(index)?;
        let shift = open % BLOCK;
        let depth = match close_in(block.opens >> shift, block.closes >> shift, 0) {
            Ok(place) => return Some(open + place + 1),
            Err(depth) => depth,
        };
        // Depths are counted from the document's start, so that one comparison tells whether a block can matter.
        let rest = self.blocks.get(index + 1..)?;
        let outside = rest.first()?.depth - depth;
        for (past, block) in rest.iter().enumerate() {
            if block.floor <= outside
                && let Ok(place) = close_in(block.opens, block.closes, block.depth - outside)
            {
                return Some((index + 1 + past) * BLOCK + place + 1);
            }
        }
        None
    }

    /// The first byte at or after `from` that isn't whitespace.
    pub(super) fn skip_blanks(self, from: usize) -> usize {
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        from + self.bytes.iter().skip(from).take_while(blank).count()
    }

    /// The end of the number, literal or garbage at `start`.
    #[inline]
    pub(super) fn scalar_end(self, start: usize) -> usize {
        let mut end = start;
        while let Some(&byte) = self.bytes.get(end)
            && !is_delimiter(byte)
        {
            end += 1;
        }
        end
    }

    /// The value at `start`, which lies outside strings.
    #[inline]
    fn value(self, start: usize) -> Node<'a> {
        let end = match self.bytes.get(start) {
            Some(b'"') => self.quote_from(start + 1).map(|close| close + 1),
            Some(b'{' | b'[') => self.container_end(start),
            _ => Some(self.scalar_end(start)),
        };
        // Marks of other bytes may point past the end.
        let end = end.unwrap_or(usize::MAX).min(self.bytes.len());
        Node { doc: self, start: start as u32, end: end as u32 }
    }

    fn has_quote(self, at: usize) -> bool {
        self.blocks.get(at / BLOCK).is_some_and(|block| block.quotes >> (at % BLOCK) & 1 == 1)
    }
}

/// Where in a block `depth` falls to zero, or the depth that the block ends with.
#[inline]
fn close_in(opens: u64, closes: u64, mut depth: i32) -> Result<usize, i32> {
    let mut both = opens | closes;
    while both != 0 {
        let bit = both & both.wrapping_neg();
        depth += if opens & bit != 0 { 1 } else { -1 };
        if depth <= 0 {
            return Ok(both.trailing_zeros() as usize);
        }
        both ^= bit;
    }
    Err(depth)
}

#[inline]
fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b':' | b'"' | b'{' | b'[')
}

pub(super) fn is_literal(raw: &[u8]) -> bool {
    matches!(raw, b"true" | b"false" | b"null")
}

/// A value: a span of the document.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    doc: Doc<'a>,
    start: u32,
    end: u32,
}

impl<'a> Node<'a> {
    /// What the value is. Brackets and strings go by their first byte, the rest by its full spelling.
    pub fn kind(self) -> Kind {
        match self.raw() {
            [b'{', ..] => Kind::Object,
            [b'[', ..] => Kind::Array,
            [b'"', ..] => Kind::String,
            b"true" => Kind::True,
            b"false" => Kind::False,
            b"null" => Kind::Null,
            raw if is_number(raw) => Kind::Number,
            _ => Kind::Invalid,
        }
    }

    /// The document that the value is in.
    #[inline]
    pub fn doc(self) -> Doc<'a> {
        self.doc
    }

    /// Where the value begins in its document.
    #[inline]
    pub fn start(self) -> u32 {
        self.start
    }

    /// The offset after the value; the document's end if the value is cut off.
    #[inline]
    pub fn end(self) -> u32 {
        self.end
    }

    /// False if the document ends inside this value. A number at the very end counts as cut off unless it is the root.
    pub fn complete(self) -> bool {
        let (start, end) = (self.start as usize, self.end as usize);
        if end < self.doc.bytes.len() {
            return true;
        }
        match self.kind() {
            Kind::Object | Kind::Array => self.doc.container_end(start).is_some(),
            Kind::String => self.doc.quote_from(start + 1).is_some(),
            Kind::True | Kind::False | Kind::Null => true,
            Kind::Number => self.doc.skip_blanks(0) == start,
            Kind::Invalid => false,
        }
    }

    /// The value's bytes, quotes or brackets included.
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        self.doc.bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The members of an object, in order, duplicates included; nothing if the value is no object.
    #[inline]
    pub fn members(self) -> Members<'a> {
        Members(Walk::over(self, b'{'))
    }

    /// The items of an array; nothing if the value is no array.
    #[inline]
    pub fn items(self) -> Items<'a> {
        Items(Walk::over(self, b'['))
    }

    /// The value of the last member with this key.
    pub fn get(self, key: &str) -> Option<Node<'a>> {
        self.members().filter(|(name, _)| name.is(key)).last().map(|(_, value)| value)
    }

    /// What stands between the quotes of a string, still escaped.
    pub fn str_raw(self) -> Option<&'a [u8]> {
        let inside = self.raw().strip_prefix(b"\"")?;
        Some(if self.complete() { &inside[..inside.len().saturating_sub(1)] } else { inside })
    }

    /// A string decoded: see [`unescape`].
    pub fn text(self) -> Option<Cow<'a, str>> {
        self.str_raw().map(unescape)
    }

    /// A number without fraction and exponent that fits.
    pub fn as_i64(self) -> Option<i64> {
        self.number()?.parse().ok()
    }

    /// A number as the nearest double; `None` if it is too large for one.
    pub fn as_f64(self) -> Option<f64> {
        self.number()?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// `true` or `false`.
    pub fn as_bool(self) -> Option<bool> {
        match self.raw() {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// True if the value is `null`.
    pub fn is_null(self) -> bool {
        self.raw() == b"null"
    }

    fn number(self) -> Option<&'a str> {
        std::str::from_utf8(self.raw()).ok().filter(|raw| is_number(raw.as_bytes()))
    }
}

/// The key of a member.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    raw: &'a [u8],
}

impl<'a> Key<'a> {
    /// What stands between the quotes, still escaped.
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// True if the key, its escapes decoded, is `name`.
    #[inline]
    pub fn is(self, name: &str) -> bool {
        // An escape is longer than what it stands for, so a key that is not longer than the name has none or isn't it.
        match self.raw.len().cmp(&name.len()) {
            Ordering::Less => false,
            Ordering::Equal => self.raw == name.as_bytes() && !(self.has_escape() && self.text() != name),
            Ordering::Greater => self.has_escape() && self.text() == name,
        }
    }

    #[inline]
    fn has_escape(self) -> bool {
        memchr::memchr(b'\\', self.raw).is_some()
    }

    /// The key decoded: see [`unescape`].
    pub fn text(self) -> Cow<'a, str> {
        unescape(self.raw)
    }
}

/// Where a walk over a container stands.
#[derive(Clone, Copy, Debug)]
struct Walk<'a> {
    doc: Doc<'a>,
    /// The offset after the last value; at first, the opening bracket's own.
    at: usize,
    /// What stands before the next element: the opening bracket, and after it a comma. `OVER` when nothing comes.
    before: u8,
    damaged: bool,
}

/// No separator: the walk is over.
const OVER: u8 = 0;

impl<'a> Walk<'a> {
    #[inline]
    fn over(node: Node<'a>, open: u8) -> Self {
        let at = node.start as usize;
        if node.raw().first() == Some(&open) {
            Self { doc: node.doc, at, before: open, damaged: false }
        } else {
            Self { doc: node.doc, at: node.doc.bytes.len(), before: OVER, damaged: false }
        }
    }

    /// Two bytes, if the document has them.
    #[inline]
    fn pair(&self, at: usize) -> Option<[u8; 2]> {
        self.doc.bytes.get(at..)?.first_chunk().copied()
    }

    /// The value at `start`, and the walk moved past it.
    #[inline]
    fn take(&mut self, start: usize) -> Node<'a> {
        let value = self.doc.value(start);
        self.at = value.end as usize;
        self.before = b',';
        self.damaged |= value.start == value.end;
        value
    }

    /// Moves to the first byte of the next element, past blanks and the comma. `None` ends the walk, at the closing
    /// bracket `close` or, damaged, at any other end.
    fn next_start(&mut self, close: u8) -> Option<u8> {
        if self.before == OVER {
            return None;
        }
        let first = self.before != b',';
        let mut commas = 0;
        if first {
            self.at += 1;
        }
        loop {
            self.at = self.doc.skip_blanks(self.at);
            match self.doc.bytes.get(self.at) {
                Some(b',') => {
                    self.at += 1;
                    commas += 1;
                }
                Some(b'}' | b']') | None => {
                    self.damaged |= self.doc.bytes.get(self.at) != Some(&close) || commas != 0;
                    self.at = self.doc.bytes.len();
                    self.before = OVER;
                    return None;
                }
                Some(&byte) => {
                    self.damaged |= commas != usize::from(!first);
                    return Some(byte);
                }
            }
        }
    }

    /// Moves past what is no key: up to the next quote or closing bracket at this depth.
    fn pass_garbage(&mut self, byte: u8) {
        self.damaged = true;
        self.at = if matches!(byte, b'{' | b'[') {
            self.doc.container_end(self.at).unwrap_or(self.doc.bytes.len())
        } else {
            self.doc.mark_from(self.at + 1)
        };
    }
}

/// The members of an object: see [`Node::members`].
#[derive(Clone, Debug)]
pub struct Members<'a>(Walk<'a>);

impl<'a> Members<'a> {
    /// True if the walk met damage so far: a missing or surplus comma or colon, a missing value, garbage between
    /// members, the wrong closing bracket or none. Whether a value itself is sound is for the value to say.
    pub fn damaged(&self) -> bool {
        self.0.damaged
    }

    /// A member that is not written in the usual form, or the end.
    #[cold]
    #[inline(never)]
    fn next_slow(&mut self) -> Option<(Key<'a>, Node<'a>)> {
        let walk = &mut self.0;
        loop {
            let byte = walk.next_start(b'}')?;
            // Whatever comes next, a comma has been seen to or missed.
            walk.before = b',';
            if byte != b'"' || !walk.doc.has_quote(walk.at) {
                walk.pass_garbage(byte);
                continue;
            }
            let open = walk.at + 1;
            let Some(close) = walk.doc.quote_from(open) else {
                walk.at = walk.doc.bytes.len();
                continue;
            };
            walk.at = walk.doc.skip_blanks(close + 1);
            if walk.doc.bytes.get(walk.at) == Some(&b':') {
                let key = Key { raw: walk.doc.bytes.get(open..close).unwrap_or_default() };
                let start = walk.doc.skip_blanks(walk.at + 1);
                return Some((key, walk.take(start)));
            }
            walk.damaged = true;
        }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Key<'a>, Node<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let walk = &mut self.0;
        if let Some([before, b'"']) = walk.pair(walk.at)
            && before == walk.before
            && let Some(close) = walk.doc.quote_from(walk.at + 2)
            && let Some([b':', first]) = walk.pair(close + 1)
            && first > b' '
            && let Some(raw) = walk.doc.bytes.get(walk.at + 2..close)
        {
            return Some((Key { raw }, walk.take(close + 2)));
        }
        self.next_slow()
    }
}

impl FusedIterator for Members<'_> {}

/// The items of an array: see [`Node::items`].
#[derive(Clone, Debug)]
pub struct Items<'a>(Walk<'a>);

impl<'a> Items<'a> {
    /// True if the walk met damage so far: a missing or surplus comma, garbage between items, the wrong closing bracket
    /// or none. Whether an item itself is sound is for the item to say.
    pub fn damaged(&self) -> bool {
        self.0.damaged
    }

    /// An item that is not written in the usual form, or the end.
    #[cold]
    #[inline(never)]
    fn next_slow(&mut self) -> Option<Node<'a>> {
        let walk = &mut self.0;
        while let b':' | b'"' = walk.next_start(b']')?
            && !walk.doc.has_quote(walk.at)
        {
            walk.damaged = true;
            walk.before = b',';
            walk.at += 1;
        }
        Some(walk.take(walk.at))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Node<'a>;

    #[inline]
    fn next(&mut self) -> Option<Node<'a>> {
        let walk = &mut self.0;
        if let Some([before, first]) = walk.pair(walk.at)
            && before == walk.before
            && (matches!(first, b'"' | b'{' | b'[') || !is_delimiter(first))
        {
            return Some(walk.take(walk.at + 1));
        }
        self.next_slow()
    }
}

impl FusedIterator for Items<'_> {}
