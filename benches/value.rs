//! Parses every line of a file into a `serde_json::Value` and does nothing with it: the price of a tree for each event, to
//! hold the engine against.
//!
//! ```text
//! cargo run --release --example value -- /tmp/mixed.log
//! ```
//!
//! It reads as the engine does, in blocks of 1 MiB into one buffer, on one thread. What it found is printed, so that nothing
//! can be left out: lines, lines that are no JSON, and members of the objects on top.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::process::ExitCode;

use memchr::memchr;
use serde_json::Value;

const BLOCK: usize = 1 << 20;

#[derive(Default)]
struct Seen {
    lines: u64,
    broken: u64,
    members: usize,
}

impl Seen {
    fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        match serde_json::from_slice::<Value>(line) {
            Ok(value) => self.members += value.as_object().map_or(0, serde_json::Map::len),
            Err(_) => self.broken += 1,
        }
    }
}

fn run(path: &str) -> io::Result<Seen> {
    let mut file = BufReader::with_capacity(BLOCK, File::open(path)?);
    let mut seen = Seen::default();
    // The beginning of a line whose end is in the next block.
    let mut carried = Vec::new();
    loop {
        let block = file.fill_buf()?;
        let (mut rest, length) = (block, block.len());
        if length == 0 {
            break;
        }
        while let Some(end) = memchr(b'\n', rest) {
            if carried.is_empty() {
                seen.line(&rest[..end]);
            } else {
                carried.extend_from_slice(&rest[..end]);
                seen.line(&carried);
                carried.clear();
            }
            rest = &rest[end + 1..];
        }
        carried.extend_from_slice(rest);
        file.consume(length);
    }
    if !carried.is_empty() {
        seen.line(&carried);
    }
    Ok(seen)
}

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: value FILE");
        return ExitCode::from(3);
    };
    match run(&path) {
        Ok(Seen { lines, broken, members }) => {
            println!("{lines} lines, {broken} broken, {members} members");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("value: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}
