//! A random writer against the follower: what is written is what is handed over.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use fastrand::Rng;

use super::tests::{Bench, meanwhile};
use super::{From, Turn, look, turn};

/// How the log is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    Lumberjack,
    Numbers,
    CopyTruncate,
    /// The writer goes on at its old offset.
    CopyTruncateHoles,
}

impl Rotation {
    fn copies(self) -> bool {
        matches!(self, Rotation::CopyTruncate | Rotation::CopyTruncateHoles)
    }
}

/// Writes lines that tell their generation and their number in it, and remembers them.
struct Writer {
    random: Rng,
    rotation: Rotation,
    compress: bool,
    generation: usize,
    /// Lines of every generation, in order.
    written: Vec<Vec<String>>,
    /// What of a line is not written yet.
    half: Option<String>,
    /// Rotated files, oldest first.
    rotated: Vec<String>,
    /// The clock of the names.
    clock: i64,
    /// Where the writer is, if it does not append.
    offset: u64,
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let mut random = Rng::with_seed(seed);
        let rotations =
            [Rotation::Lumberjack, Rotation::Numbers, Rotation::CopyTruncate, Rotation::CopyTruncateHoles];
        let rotation = *random.choice(&rotations).unwrap();
        let compress = random.bool();
        let clock = now();
        let (written, half, rotated) = (vec![Vec::new()], None, Vec::new());
        Writer { random, rotation, compress, generation: 0, written, half, rotated, clock, offset: 0 }
    }

    fn line(&mut self) -> String {
        let longest = if self.random.u8(..20) == 0 { 600_000 } else { 2_000 };
        let lines = &mut self.written[self.generation];
        let padding = "x".repeat(self.random.usize(..longest));
        let line = format!("{}:{}:{padding}", self.generation, lines.len());
        lines.push(line.clone());
        line + "\n"
    }

    fn append(&mut self, bench: &Bench) {
        let mut text = self.half.take().unwrap_or_default();
        for _ in 0..self.random.usize(..4) {
            text += &self.line();
        }
        self.write(bench, &text);
    }

    fn write(&mut self, bench: &Bench, text: &str) {
        if self.rotation == Rotation::CopyTruncateHoles {
            bench.write_at("audit.log", self.offset, text);
            self.offset += text.len() as u64;
        } else {
            bench.append("audit.log", text);
        }
    }

    fn append_half(&mut self, bench: &Bench) {
        self.append(bench);
        let mut line = self.line();
        let rest = line.split_off(self.random.usize(1..line.len()));
        self.write(bench, &line);
        self.half = Some(rest);
    }

    /// The log becomes another file, and a new one begins. A half line stays as it is where the file is renamed.
    fn rotate(&mut self, bench: &Bench) {
        if self.rotation.copies() {
            self.append(bench);
        }
        if let Some(rest) = self.half.take()
            && let Some(line) = self.written[self.generation].last_mut()
        {
            line.truncate(line.len() + 1 - rest.len());
        }
        let name = if self.rotation == Rotation::Lumberjack {
            self.clock = now().max(self.clock + 1);
            let time = chrono::DateTime::from_timestamp_millis(self.clock).unwrap();
            format!("audit-{}.log", time.format("%Y-%m-%dT%H-%M-%S%.3f"))
        } else {
            self.renumber(bench);
            "audit.log.1".to_owned()
        };
        if !bench.path("audit.log").exists() {
            bench.append("audit.log", "");
        }
        if self.rotation.copies() {
            bench.copy("audit.log", &name);
            bench.truncate("audit.log");
        } else {
            bench.rename("audit.log", &name);
        }
        self.rotated.push(name);
        self.generation += 1;
        self.written.push(Vec::new());
        if self.random.bool() {
            self.append(bench);
        }
    }

    fn renumber(&mut self, bench: &Bench) {
        let count = self.rotated.len();
        for (at, name) in self.rotated.iter_mut().enumerate() {
            let ending = if name.contains(".gz") { ".gz" } else { "" };
            let next = format!("audit.log.{}{ending}", count - at + 1);
            bench.rename(name, &next);
            *name = next;
        }
    }

    fn pack(&mut self, bench: &Bench) {
        let plain: Vec<usize> =
            (0..self.rotated.len()).filter(|at| !self.rotated[*at].contains(".gz")).collect();
        if let Some(at) = self.random.choice(plain).filter(|_| self.compress) {
            bench.pack(&self.rotated[at]);
            self.rotated[at] += ".gz";
        }
    }
}

fn now() -> i64 {
    chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).timestamp_millis()
}

/// What came since the last restart: for each generation the numbers of its lines.
#[derive(Default)]
struct Reader {
    /// A generation may come again from its beginning: its archive, of which nothing tells that it is one.
    again: bool,
    seen: HashSet<String>,
    since: BTreeMap<usize, usize>,
    open: BTreeMap<String, Vec<u8>>,
    positions: Vec<String>,
}

impl Reader {
    /// Takes what has come. Lines come in order within their generation, none twice, and none that was not written.
    fn take(&mut self, bench: &mut Bench, written: &[Vec<String>]) {
        for batch in bench.batches.drain(..) {
            let mut bytes = self.open.remove(&*batch.stream).unwrap_or_default();
            bytes.extend_from_slice(&batch.bytes);
            let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            let rest = lines.pop().unwrap_or_default();
            if batch.last && !rest.is_empty() {
                lines.push(rest);
            } else if !rest.is_empty() {
                self.open.insert(batch.stream.to_string(), rest.to_vec());
            }
            for line in lines {
                self.line(std::str::from_utf8(line).unwrap(), written);
            }
            self.positions.extend(batch.position);
        }
    }

    fn line(&mut self, line: &str, written: &[Vec<String>]) {
        let mut parts = line.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
        let known = match (number(), number()) {
            (Some(generation), Some(number)) => {
                let next = self.since.get(&generation).copied();
                let again = self.again && number == 0;
                assert!(
                    again || next.is_none_or(|next| number == next),
                    "line {number} of {generation} out of order"
                );
                self.since.insert(generation, number + 1);
                written[generation].get(number).is_some_and(|written| written == line)
            }
            // A fragment of so short a half line that its number is not in it.
            _ => written.iter().any(|lines| lines.last().is_some_and(|last| last == line)),
        };
        assert!(known, "a line that nobody wrote: {line:.40}");
        self.seen.insert(line.to_owned());
    }

    fn restart(&mut self, bench: &mut Bench, random: &mut Rng) {
        self.since.clear();
        self.open.clear();
        // The last few may not have become durable.
        let back = random.usize(..3).min(self.positions.len().saturating_sub(1));
        self.positions.truncate(self.positions.len() - back);
        bench.position = self.positions.last().cloned();
        bench.restart();
    }
}

/// Writes, rotates, packs, deletes, reads and crashes at random. Nothing may be missing in the end.
fn check(seed: u64) {
    let mut bench = Bench::new(From::Start);
    let mut writer = Writer::new(seed);
    let again = writer.rotation == Rotation::CopyTruncateHoles && writer.compress;
    let mut reader = Reader { again, ..Reader::default() };
    let mut story = format!("{seed}: {:?}", writer.rotation);
    bench.read();
    reader.take(&mut bench, &writer.written);
    for _ in 0..60 {
        let step = writer.random.u8(..100);
        let _ = write!(story, " {step}");
        match step {
            0..30 => writer.append(&bench),
            30..40 => writer.append_half(&bench),
            40..50 => writer.rotate(&bench),
            50..55 => {
                bench.meanwhile(|| writer.rotate(&bench));
                if writer.random.bool() {
                    reader.restart(&mut bench, &mut writer.random);
                }
                bench.read();
                meanwhile();
            }
            55..62 => writer.pack(&bench),
            62..67 => {
                // What is deleted was read, and is remembered to have been.
                bench.read();
                reader.take(&mut bench, &writer.written);
                if !writer.rotated.is_empty() && writer.half.is_none() {
                    bench.wait();
                    bench.remove(&writer.rotated.remove(0));
                    reader.take(&mut bench, &writer.written);
                    let last = reader.positions.pop();
                    reader.positions = last.into_iter().collect();
                }
            }
            67..75 => reader.restart(&mut bench, &mut writer.random),
            75..85 => {
                look(&bench.context, &mut bench.trails, bench.now, true).unwrap();
                for _ in 0..writer.random.u8(..4) {
                    let found = turn(&bench.context, &mut bench.trails, bench.now).unwrap();
                    if matches!(found, Turn::Nothing) {
                        break;
                    }
                }
                bench.collect();
            }
            85..90 => bench.wait(),
            _ => bench.read(),
        }
        reader.take(&mut bench, &writer.written);
    }
    writer.append(&bench);
    let line = writer.line();
    writer.write(&bench, &line);
    bench.read();
    bench.wait();
    reader.take(&mut bench, &writer.written);
    for line in writer.written.iter().flatten() {
        assert!(reader.seen.contains(line), "{story}\nmissing {line:.40}");
    }
    let holes = writer.rotation == Rotation::CopyTruncateHoles;
    bench.notices.retain(|notice| !(holes && notice.message.contains("a hole of")));
    assert!(bench.notices.is_empty(), "{story}\n{:?}", bench.notices);
}

#[test]
fn whatever_a_writer_does_every_line_comes() {
    // More of them, or one: LAPWING_MODEL=from-to.
    let range = std::env::var("LAPWING_MODEL").unwrap_or_default();
    let (from, to) = range.split_once('-').unwrap_or(("0", "60"));
    let failed: Vec<u64> = (from.parse().unwrap()..to.parse().unwrap())
        .filter(|seed| std::panic::catch_unwind(|| check(*seed)).is_err())
        .collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}
