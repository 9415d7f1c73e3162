//! The cursor: values, members and items found through the marks.
//!
//! A value is a span. Its end is found once, when the walk over its parent reaches it: the next quote for a string, the
//! place where the depth comes back for an object or array, the next delimiter for the rest. The usual form of a member,
//! `,"key":value` without blanks, has a straight path; anything else (blanks, damage, the end) goes through `next_slow`,
//! which is also where resynchronisation lives: a string at this depth counts as a key when a colon follows it, and all
//! else is passed over.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::iter::FusedIterator;

use super::Marks;
use super::kernel::{BLOCK, Block};
use super::text::{is_number, unescape};

/// One marked document.
#[derive(Clone, Copy)]
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

/// Without the content, which has no business in a log.
impl fmt::Debug for Doc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doc").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
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
        self.value_from(0)
    }

    /// The first value at or after `from`, past whitespace; `from` must lie outside strings.
    pub fn value_from(self, from: u32) -> Option<Node<'a>> {
        let start = self.skip_blanks(from as usize);
        // A walk over the value needs no end, so the end waits until somebody asks.
        (start < self.bytes.len()).then_some(Node { doc: self, start: start as u32, end: UNKNOWN })
    }

    /// The value with this span, which a [`Node`] of this document had. Any other span gives some node within the
    /// document.
    pub fn node_at(self, start: u32, end: u32) -> Node<'a> {
        let end = end.min(self.bytes.len() as u32);
        Node { doc: self, start: start.min(end), end }
    }

    /// The quotes of the 64 bytes from `from` on.
    #[inline]
    fn quotes(self, from: usize) -> Option<u64> {
        // The marks end with an empty block, so that there is always a next one.
        let [block, next] = self.blocks.get(from / BLOCK..)?.first_chunk()?;
        let shift = from % BLOCK;
        Some(block.quotes >> shift | next.quotes << 1 << (BLOCK - 1 - shift))
    }

    /// The first unescaped quote at or after `from`.
    #[inline]
    fn quote_from(self, from: usize) -> Option<usize> {
        let near = self.quotes(from)?;
        if near != 0 { Some(from + near.trailing_zeros() as usize) } else { self.far_quote(from / BLOCK + 1) }
    }

    /// The first unescaped quote from block `index` on.
    fn far_quote(self, index: usize) -> Option<usize> {
        let rest = self.blocks.get(index..)?;
        let past = rest.iter().position(|block| block.quotes != 0)?;
        Some((index + past) * BLOCK + rest[past].quotes.trailing_zeros() as usize)
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

    /// Opens less closes before `at`.
    #[inline]
    fn depth_at(self, at: usize) -> i32 {
        let Some(block) = self.blocks.get(at / BLOCK) else { return 0 };
        let before = (1 << (at % BLOCK)) - 1;
        block.depth + (block.opens & before).count_ones() as i32 - (block.closes & before).count_ones() as i32
    }

    /// The first byte at or after `from` that isn't whitespace.
    #[inline]
    fn skip_blanks(self, mut from: usize) -> usize {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(from) {
            from += 1;
        }
        from
    }

    /// The end of the number, literal or garbage at `start`.
    #[inline]
    fn scalar_end(self, start: usize) -> usize {
        let mut end = start;
        while let Some(&byte) = self.bytes.get(end)
            && !is_delimiter(byte)
        {
            end += 1;
        }
        end
    }

    /// The end of the value at `start`, which lies outside strings at depth `outside`.
    #[inline]
    fn value_end(self, start: usize, outside: i32) -> usize {
        let end = match self.bytes.get(start) {
            Some(b'"') => self.quote_from(start + 1).map(|close| close + 1),
            Some(b'{' | b'[') => container_end(self.blocks, start, outside),
            _ => Some(self.scalar_end(start)),
        };
        end.unwrap_or(self.bytes.len())
    }

    fn has_quote(self, at: usize) -> bool {
        self.blocks.get(at / BLOCK).is_some_and(|block| block.quotes >> (at % BLOCK) & 1 == 1)
    }
}

/// The offset after the bracket that closes the one at `open`, which is where the depth falls to `outside` again.
#[inline(never)]
fn container_end(blocks: &[Block], open: usize, outside: i32) -> Option<usize> {
    let index = open / BLOCK;
    let block = blocks.get(index)?;
    let past_open = u64::MAX << 1 << (open % BLOCK);
    if let Some(place) = fall(block.opens & past_open, block.closes & past_open, 1) {
        return Some(index * BLOCK + place + 1);
    }
    // Depths are counted from the document's start, so one comparison tells whether the end can be in a block.
    for (past, block) in blocks.get(index + 1..)?.iter().enumerate() {
        if block.floor <= outside
            && let Some(place) = fall(block.opens, block.closes, block.depth - outside)
        {
            return Some((index + 1 + past) * BLOCK + place + 1);
        }
    }
    None
}

/// Where in a block the depth, `depth` at its beginning, falls to zero.
#[inline]
fn fall(opens: u64, mut closes: u64, depth: i32) -> Option<usize> {
    // From depth n it takes n closes at least, so only the n-th can be the one; the opens before it tell how many
    // more it takes.
    let mut missing = depth;
    let mut passed = 0;
    loop {
        for _ in 1..missing {
            if closes == 0 {
                break;
            }
            closes &= closes - 1;
        }
        if closes == 0 {
            return None;
        }
        passed += missing;
        let close = closes & closes.wrapping_neg();
        missing = depth + (opens & (close - 1)).count_ones() as i32 - passed;
        if missing <= 0 {
            return Some(close.trailing_zeros() as usize);
        }
        closes ^= close;
    }
}

/// The offset of the first bit, when bit 0 is byte `from`.
#[inline]
fn first_of(bits: u64, from: usize) -> Option<usize> {
    (bits != 0).then(|| from + bits.trailing_zeros() as usize)
}

#[inline]
fn without_first(bits: u64) -> u64 {
    bits & bits.wrapping_sub(1)
}

#[inline]
fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b':' | b'"' | b'{' | b'[')
}

/// An end that nobody has asked for yet.
const UNKNOWN: u32 = u32::MAX;

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
        match self.first() {
            Some(b'{') => return Kind::Object,
            Some(b'[') => return Kind::Array,
            Some(b'"') => return Kind::String,
            _ => {}
        }
        match self.raw() {
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
        if self.end == UNKNOWN { self.find_end() } else { self.end }
    }

    #[cold]
    fn find_end(self) -> u32 {
        let start = self.start as usize;
        self.doc.value_end(start, self.doc.depth_at(start)).min(self.doc.bytes.len()) as u32
    }

    #[inline]
    fn first(self) -> Option<u8> {
        let empty = self.start == self.end;
        self.doc.bytes.get(self.start as usize).copied().filter(|_| !empty)
    }

    /// False if the document ends inside this value. A number at the very end counts as cut off unless it is the root.
    #[inline]
    pub fn complete(self) -> bool {
        (self.end() as usize) < self.doc.bytes.len() || self.is_last_complete()
    }

    /// [`Node::complete`], of a value that reaches to the document's end.
    #[cold]
    fn is_last_complete(self) -> bool {
        let start = self.start as usize;
        match self.kind() {
            Kind::Object | Kind::Array => {
                container_end(self.doc.blocks, start, self.doc.depth_at(start)).is_some()
            }
            Kind::String => self.doc.quote_from(start + 1).is_some(),
            Kind::True | Kind::False | Kind::Null => true,
            Kind::Number => self.doc.skip_blanks(0) == start,
            Kind::Invalid => false,
        }
    }

    /// The value's bytes, quotes or brackets included.
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        self.doc.bytes.get(self.start as usize..self.end() as usize).unwrap_or_default()
    }

    /// The members of an object, in order, duplicates included; nothing if the value is no object.
    #[inline]
    pub fn members(self) -> Members<'a> {
        Members(Walk::over(self, b'{'))
    }

    /// The members of an object whose first ones are written as its writer usually writes them.
    #[inline]
    pub fn expected(self) -> Expected<'a> {
        let at = self.start as usize;
        Expected { node: self, at, depth: self.doc.depth_at(at) + 1 }
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

    /// What stands between the quotes of a string, still escaped. `None` for a string that is cut off: its beginning could
    /// be taken for something else (`system:anonymou`, `40`).
    #[inline]
    pub fn str_raw(self) -> Option<&'a [u8]> {
        let inside = self.raw().strip_prefix(b"\"")?;
        self.complete().then(|| &inside[..inside.len().saturating_sub(1)])
    }

    /// A string decoded: see [`unescape`]. `None` for a string that is cut off.
    pub fn text(self) -> Option<Cow<'a, str>> {
        self.str_raw().map(unescape)
    }

    /// As much of a string as there is, decoded.
    pub fn text_so_far(self) -> Option<Cow<'a, str>> {
        let inside = self.raw().strip_prefix(b"\"")?;
        Some(unescape(if self.complete() { &inside[..inside.len().saturating_sub(1)] } else { inside }))
    }

    /// A number without fraction and exponent that fits.
    pub fn as_i64(self) -> Option<i64> {
        self.number()?.parse().ok()
    }

    /// A whole number, also as a writer without integers spells it (`201.0`, `2.01e2`).
    pub fn as_whole(self) -> Option<i64> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let double = || self.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
        self.as_i64().or_else(|| double().map(|number| number as i64))
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
        std::str::from_utf8(self.raw()).ok().filter(|raw| is_number(raw.as_bytes()) && self.complete())
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
        // An escape is longer than what it stands for, so that most keys need no look at their bytes.
        match self.raw.len().cmp(&name.len()) {
            Ordering::Less => false,
            Ordering::Equal => self.raw == name.as_bytes() && (!self.has_escape() || self.text() == name),
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
    /// The depth between the brackets.
    depth: i32,
}

/// No separator: the walk is over.
const OVER: u8 = 0;

/// Set in the place of a walk that is over because it met the closing bracket: beyond any document, so that nothing is read
/// there.
const CLOSED: usize = 1 << (usize::BITS - 1);

impl<'a> Walk<'a> {
    #[inline]
    fn over(node: Node<'a>, open: u8) -> Self {
        let doc = node.doc;
        if node.first() == Some(open) {
            let at = node.start as usize;
            Self { doc, at, before: open, damaged: false, depth: doc.depth_at(at) + 1 }
        } else {
            Self { doc, at: doc.bytes.len(), before: OVER, damaged: false, depth: 0 }
        }
    }

    /// The two bytes at `at`, if the document has them.
    #[inline]
    fn pair(&self, at: usize) -> Option<&'a [u8; 2]> {
        self.doc.bytes.get(at..at + 2)?.first_chunk()
    }

    /// The value from `start`, and the walk moved past it to `end`.
    #[inline]
    fn take(&mut self, start: usize, end: usize) -> Node<'a> {
        // Marks of other bytes may point past the end.
        self.at = end.min(self.doc.bytes.len());
        self.before = b',';
        Node { doc: self.doc, start: start as u32, end: self.at as u32 }
    }

    /// The value at `start`, and the walk moved past it.
    #[inline]
    fn take_value(&mut self, start: usize) -> Node<'a> {
        let end = self.doc.value_end(start, self.depth);
        self.damaged |= start == end;
        self.take(start, end)
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
                Some(&bracket @ (b'}' | b']')) => {
                    self.damaged |= bracket != close || commas != 0;
                    self.at = (self.at + 1) | CLOSED;
                    self.before = OVER;
                    return None;
                }
                None => {
                    self.damaged = true;
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
            container_end(self.doc.blocks, self.at, self.depth).unwrap_or(self.doc.bytes.len())
        } else {
            self.doc.mark_from(self.at + 1)
        };
    }
}

/// Steps over members that are written as expected, one after the other: twice as fast as [`Members`], which takes over
/// where anything else stands. See [`Node::expected`].
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    node: Node<'a>,
    /// The offset after the last value; at first, the opening bracket's own.
    at: usize,
    /// The depth between the brackets.
    depth: i32,
}

impl<'a> Expected<'a> {
    /// The span of the next member's value if it is a text and `before` is all that stands before it: from the opening
    /// bracket or the comma to the text's opening quote, both included.
    #[inline]
    pub fn text<const N: usize>(&mut self, before: &[u8; N]) -> Option<(u32, u32)> {
        let open = self.stands(before)?;
        let close = self.node.doc.quote_from(open)?;
        self.take(open, close + 1)
    }

    /// As [`Expected::text`], of an object or an array: `before` ends with its opening bracket.
    #[inline]
    pub fn container<const N: usize>(&mut self, before: &[u8; N]) -> Option<(u32, u32)> {
        let open = self.stands(before)?;
        let end = container_end(self.node.doc.blocks, open - 1, self.depth)?;
        self.take(open, end)
    }

    /// The offset after `before`, if that is what stands here.
    #[inline]
    fn stands<const N: usize>(&self, before: &[u8; N]) -> Option<usize> {
        let end = self.at + N;
        (self.node.doc.bytes.get(self.at..end)? == before).then_some(end)
    }

    /// The value whose first byte stands before `inside`, and the walk moved past it.
    #[inline]
    fn take(&mut self, inside: usize, end: usize) -> Option<(u32, u32)> {
        if end > self.node.doc.bytes.len() {
            return None;
        }
        self.at = end;
        Some((inside as u32 - 1, end as u32))
    }

    /// The offset after the object if it ends here.
    #[inline]
    pub fn end(self) -> Option<u32> {
        let over = self.at > self.node.start as usize && self.node.doc.bytes.get(self.at) == Some(&b'}');
        over.then_some(self.at as u32 + 1)
    }

    /// The members that follow.
    #[inline]
    pub fn rest(self) -> Members<'a> {
        let mut walk = Walk::over(self.node, b'{');
        if self.at > self.node.start as usize {
            (walk.at, walk.before) = (self.at, b',');
        }
        Members(walk)
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

    /// Once the walk is over: the offset after the object's closing bracket, unless the document ended before it.
    pub fn end(&self) -> Option<u32> {
        (self.0.at & CLOSED != 0).then_some((self.0.at & !CLOSED) as u32)
    }

    /// A member that is not written in the usual form, or the end. By value, so that the walk of the usual form can
    /// live in registers.
    #[cold]
    #[inline(never)]
    fn next_slow(mut walk: Walk<'a>) -> (Walk<'a>, Option<(Key<'a>, Node<'a>)>) {
        while let Some(byte) = walk.next_start(b'}') {
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
                let value = walk.take_value(start);
                return (walk, Some((key, value)));
            }
            walk.damaged = true;
        }
        (walk, None)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Key<'a>, Node<'a>);

    #[expect(clippy::inline_always, reason = "kept in registers, the walk takes three quarters of the time")]
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let walk = &mut self.0;
        let at = walk.at;
        let open = at + 2;
        if let Some([before, b'"']) = walk.pair(at)
            && *before == walk.before
            && let Some(quotes) = walk.doc.quotes(open)
            && let Some(close) = first_of(quotes, open).or_else(|| walk.doc.quote_from(open))
            && let Some([b':', first]) = walk.pair(close + 1)
            && *first > b' '
            && let Some(raw) = walk.doc.bytes.get(open..close)
        {
            let key = Key { raw };
            // When key and value stand within 64 bytes, the value's end is known by now.
            let third = without_first(without_first(quotes));
            if *first == b'"'
                && let Some(end) = first_of(third, open)
            {
                return Some((key, walk.take(close + 2, end + 1)));
            }
            return Some((key, walk.take_value(close + 2)));
        }
        let (walk, member) = Self::next_slow(self.0);
        self.0 = walk;
        member
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
    fn next_slow(mut walk: Walk<'a>) -> (Walk<'a>, Option<Node<'a>>) {
        while let Some(byte) = walk.next_start(b']') {
            // A colon begins no value, nor does a quote that a backslash before it escapes.
            if byte == b':' || (byte == b'"' && !walk.doc.has_quote(walk.at)) {
                walk.damaged = true;
                walk.before = b',';
                walk.at += 1;
                continue;
            }
            let value = walk.take_value(walk.at);
            return (walk, Some(value));
        }
        (walk, None)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Node<'a>;

    #[expect(clippy::inline_always, reason = "kept in registers, the walk takes three quarters of the time")]
    #[inline(always)]
    fn next(&mut self) -> Option<Node<'a>> {
        let walk = &mut self.0;
        if let Some(&[before, first]) = walk.pair(walk.at)
            && before == walk.before
            && (matches!(first, b'"' | b'{' | b'[') || !is_delimiter(first))
        {
            return Some(walk.take_value(walk.at + 1));
        }
        let (walk, item) = Self::next_slow(self.0);
        self.0 = walk;
        item
    }
}

impl FusedIterator for Items<'_> {}
