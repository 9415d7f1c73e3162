//! Is a document well-formed? A walk over every token, with one bit of stack for each open bracket.

use super::cursor::{Doc, is_literal};
use super::text::{has_known_escapes, is_number};

/// True if the document is one JSON value and nothing else, as `serde_json` would have it when it ignores the value:
/// brackets that match, strings with known escapes and no raw control bytes, commas, colons, literals and numbers. UTF-8
/// and the pairing of surrogates are not looked at. Depth costs one bit a level.
pub fn is_well_formed(doc: Doc<'_>) -> bool {
    // Outside strings a backslash is wrong anyway, so that one pass over the document does for all strings.
    has_known_escapes(doc.bytes()) && walk(doc, has_control(doc.bytes())).is_some()
}

fn has_control(bytes: &[u8]) -> bool {
    // Unlike a search, a minimum has no way out early, and so is a matter of vectors.
    bytes.iter().fold(u8::MAX, |least, &byte| least.min(byte)) < 0x20
}

/// `None` at the first fault. `control` tells whether strings may hold control bytes.
fn walk(doc: Doc<'_>, control: bool) -> Option<()> {
    let bytes = doc.bytes();
    let mut nesting = Nesting::default();
    let mut at = doc.skip_blanks(0);
    loop {
        at = match bytes.get(at)? {
            b'"' => string(doc, control, at)?,
            &open @ (b'{' | b'[') => {
                let inside = doc.skip_blanks(at + 1);
                if bytes.get(inside) == Some(&closing(open == b'{')) {
                    inside + 1
                } else {
                    nesting.push(open == b'{');
                    at = if open == b'{' { key(doc, control, inside)? } else { inside };
                    continue;
                }
            }
            _ => scalar(doc, at)?,
        };
        // A value has ended: close what closes here, up to a comma or the end.
        loop {
            at = doc.skip_blanks(at);
            let Some(object) = nesting.top() else {
                return (at == bytes.len()).then_some(());
            };
            match *bytes.get(at)? {
                b',' => {
                    at = doc.skip_blanks(at + 1);
                    if object {
                        at = key(doc, control, at)?;
                    }
                    break;
                }
                close if close == closing(object) => {
                    nesting.pop();
                    at += 1;
                }
                _ => return None,
            }
        }
    }
}

fn closing(object: bool) -> u8 {
    if object { b'}' } else { b']' }
}

/// The offset after the string at `at`.
fn string(doc: Doc<'_>, control: bool, at: usize) -> Option<usize> {
    let close = doc.quote_from(at + 1)?;
    let sound = !control || !has_control(doc.bytes().get(at..close)?);
    sound.then_some(close + 1)
}

/// The offset of the value that belongs to the key at `at`.
fn key(doc: Doc<'_>, control: bool, at: usize) -> Option<usize> {
    if doc.bytes().get(at) != Some(&b'"') {
        return None;
    }
    let colon = doc.skip_blanks(string(doc, control, at)?);
    (doc.bytes().get(colon) == Some(&b':')).then(|| doc.skip_blanks(colon + 1))
}

/// The offset after the number or literal at `at`.
fn scalar(doc: Doc<'_>, at: usize) -> Option<usize> {
    let end = doc.scalar_end(at);
    let raw = &doc.bytes()[at..end];
    (is_literal(raw) || is_number(raw)).then_some(end)
}

/// A stack of bits: true for an object, false for an array.
#[derive(Default)]
struct Nesting {
    words: Vec<u64>,
    depth: usize,
}

impl Nesting {
    fn push(&mut self, object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.words.len() {
            self.words.push(0);
        }
        self.words[word] = self.words[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
    }

    fn top(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        Some(self.words[last / 64] >> (last % 64) & 1 == 1)
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }
}
