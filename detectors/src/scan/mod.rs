//! A flat JSON scanner in two steps: a kernel marks quotes and brackets, a cursor walks the marks.
//!
//! The first step ([`Marks`]) reads every byte once, 64 at a time, and keeps bitmaps of the unescaped quotes and of
//! the brackets outside strings. The second ([`Doc`], [`Node`], [`Members`], [`Items`]) finds keys and values through
//! the bitmaps, so that a nested object that nobody asks for costs a few cycles for 64 bytes. Nothing is decoded
//! before it is asked for.
//!
//! Guarantees, for any bytes whatever:
//!
//! - nothing panics, recurses or loops without end; one walk over a container is linear in its length;
//! - a value's span lies within its parent's, and siblings don't overlap;
//! - on a well-formed document the walk gives the same members, in the same order, as any strict parser; on a damaged
//!   one it gives what can be recovered and says so (`damaged`, `complete`, [`Kind::Invalid`]).
//!
//! Limits: brackets are counted, not matched, so `{"a":[1}` makes `[1}` one value (its items are `damaged`); a backslash
//! escapes the next quote outside strings too, where neither belongs; a document is cut at 2 GiB; the marks take half
//! the space of the longest document, which is kept for the next.
//!
//! ```
//! use detectors::scan::{Doc, Marks};
//!
//! let lines = b"{\"verb\":\"create\",\"user\":{\"username\":\"dana\"}}\n{\"verb\":\"get\"}\n";
//! let mut marks = Marks::new();
//! let (end, health) = marks.mark_line(lines, 0);
//! assert!(!health.open_string);
//! let event = Doc::new(&lines[..end], &marks).root().expect("the line is not blank");
//! let user = event.get("user").and_then(|user| user.get("username"));
//! assert_eq!(user.and_then(|name| name.text()).as_deref(), Some("dana"));
//! ```

mod cursor;
mod kernel;
mod text;

pub use cursor::{Doc, Expected, Items, Key, Kind, Members, Node};
pub use text::unescape;

use kernel::{BLOCK, Block, Kernel, State};

/// Bytes that one document may have: depths are `i32` and offsets `u32`.
const LONGEST: usize = i32::MAX as usize;

/// Blocks that the buffer begins with: 4 KiB of JSON.
const FIRST_BLOCKS: usize = 64;

/// What the kernel notices on its way through a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Some byte is 0x80 or above, so that UTF-8 has to be checked.
    pub non_ascii: bool,
    /// Some byte below 0x20 stands raw inside a string, which JSON forbids.
    pub control: bool,
    /// The document ends inside a string.
    pub open_string: bool,
}

/// The marks of one document at a time; the buffer is kept and grows to the longest document met.
#[derive(Debug)]
pub struct Marks {
    kernel: Kernel,
    /// Only the blocks that `length` bytes need, and one empty block after them, are of the present document.
    blocks: Vec<Block>,
    length: usize,
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}

impl Marks {
    /// An empty buffer, and the fastest kernel for this processor.
    pub fn new() -> Self {
        Self { kernel: Kernel::detect(), blocks: Vec::new(), length: 0 }
    }

    /// Marks the line that begins at `start`: up to the first raw newline, which can't be part of a string, or else to
    /// the end of `bytes`. Returns the line's end (the newline's own offset in `bytes`) and its health. The marks count
    /// from `start`: they belong to `bytes[start..end]`.
    pub fn mark_line(&mut self, bytes: &[u8], start: usize) -> (usize, Health) {
        let start = start.min(bytes.len());
        let health = self.run::<true>(&bytes[start..]);
        (start + self.length, health)
    }

    /// Marks all of `bytes` as one document, in which a raw newline is whitespace like any other.
    pub fn mark(&mut self, bytes: &[u8]) -> Health {
        self.run::<false>(bytes)
    }

    fn run<const LINE: bool>(&mut self, bytes: &[u8]) -> Health {
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        let mut state = State::new();
        self.length = self.mark_blocks::<LINE>(bytes, &mut state);
        let end = self.length.div_ceil(BLOCK);
        self.grow(end);
        self.blocks[end] = state.empty_block();
        state.finish()
    }

    /// Marks block after block and returns the document's length.
    fn mark_blocks<const LINE: bool>(&mut self, bytes: &[u8], state: &mut State) -> usize {
        let (chunks, tail) = bytes.as_chunks::<BLOCK>();
        let mut done = 0;
        while done < chunks.len() {
            self.grow(done);
            done += self.kernel.run::<LINE>(&chunks[done..], &mut self.blocks[done..], state);
            if let Some(newline) = state.newline {
                return (done - 1) * BLOCK + newline as usize;
            }
        }
        if !tail.is_empty() {
            self.grow(done);
            // Blanks mark nothing, so that the kernel need not know where the tail ends.
            let mut last = [b' '; BLOCK];
            last[..tail.len()].copy_from_slice(tail);
            self.kernel.run::<LINE>(&[last], &mut self.blocks[done..], state);
            if let Some(newline) = state.newline {
                return done * BLOCK + newline as usize;
            }
        }
        bytes.len()
    }

    /// Makes room for at least one block after `done`.
    fn grow(&mut self, done: usize) {
        if done == self.blocks.len() {
            self.blocks.resize((done * 2).max(FIRST_BLOCKS), Block::default());
        }
    }

    /// The blocks of the present document, and an empty one after them.
    fn blocks(&self) -> &[Block] {
        self.blocks.get(..=self.length.div_ceil(BLOCK)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
