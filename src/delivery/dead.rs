//! Dead letters: what will never be accepted, kept for a person. One JSON object a line.
//!
//! Guarantees: what was rejected is durable when the call returns. The files take no more room than they may; the oldest
//! half goes to make room, and what goes is counted. Lines hold raw bytes of events: the files are for their owner's eyes only.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use detectors::bytes::hex;
use detectors::event::time;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::fs::{File, Fs, Mode, read_exact_at, rewrite};

/// The file that is appended to.
const NAME: &str = "dead-letters.ndjson";
/// The one before it.
const OLDER: &str = "dead-letters.ndjson.1";
/// So much of what an input sent is kept.
const MAX_BYTES: usize = 64 << 10;
/// So much is written at once.
const FLUSH: usize = 1 << 20;
/// A reason is no longer.
const MAX_REASON: usize = 1 << 10;

/// The dead letters, for all sinks and inputs.
#[derive(Debug)]
pub(crate) struct Dead {
    fs: Arc<dyn Fs>,
    /// What one of the two files may take.
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Box<dyn File>>,
    /// The end of the last whole line.
    end: u64,
    /// There may be something behind it.
    torn: bool,
    /// A sync has failed.
    suspect: bool,
    fallen: u64,
}

/// A record of an input that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// The input.
    pub(crate) input: String,
    /// What the record is a part of.
    pub(crate) stream: String,
    /// Where it begins there.
    pub(crate) offset: u64,
    /// Its length.
    pub(crate) length: u64,
    /// Why it is no event.
    pub(crate) reason: Cow<'static, str>,
    /// SHA-256 of it, if somebody has it.
    pub(crate) sha256: Option<String>,
    /// As much of it as is at hand.
    pub(crate) bytes: Vec<u8>,
}

#[derive(Serialize)]
struct Letter<'a> {
    time: String,
    of: &'a str,
    reason: &'a str,
    attempts: u32,
    #[serde(flatten)]
    bytes: Option<Bytes<'a>>,
}

#[derive(Serialize)]
struct Bytes<'a> {
    stream: &'a str,
    offset: u64,
    length: u64,
    sha256: String,
    #[serde(rename = "bytes_base64")]
    base64: String,
    truncated: bool,
}

impl Dead {
    /// The dead letters in this directory, of at most so many bytes and one letter. Nothing is written before there is one.
    pub(crate) fn open(fs: Arc<dyn Fs>, limit: u64) -> Dead {
        Dead { fs, limit: limit / 2, state: Mutex::default() }
    }

    /// Keeps an alert that a sink's receiver will never accept.
    ///
    /// # Errors
    /// It is not durable: the alert is not to be passed over.
    pub(crate) fn reject_alert(&self, of: &str, reason: &str, attempts: u32, json: &str) -> io::Result<()> {
        let mut line = letter(of, reason, attempts, None)?;
        line.truncate(line.trim_end_matches('}').len());
        line.push_str(",\"alert\":");
        let whole = serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok();
        if whole && !json.contains(['\n', '\r']) {
            line.push_str(json);
        } else {
            line.push_str(&serde_json::to_string(json)?);
        }
        line.push('}');
        self.append(line)
    }

    /// Keeps records of inputs that are no events: of each the first 64 KiB.
    ///
    /// # Errors
    /// They are not durable: the records are not to be passed over.
    pub(crate) fn reject_records(&self, records: &[Rejected]) -> io::Result<()> {
        let mut lines = String::new();
        for record in records {
            let kept = &record.bytes[..record.bytes.len().min(MAX_BYTES)];
            let about = Bytes {
                stream: &record.stream,
                offset: record.offset,
                length: record.length,
                sha256: record.sha256.clone().unwrap_or_else(|| hex(&Sha256::digest(&record.bytes))),
                base64: STANDARD.encode(kept),
                truncated: (kept.len() as u64) < record.length,
            };
            if !lines.is_empty() {
                lines.push('\n');
            }
            lines.push_str(&letter(&record.input, &record.reason, 1, Some(about))?);
            if lines.len() > FLUSH {
                self.append(std::mem::take(&mut lines))?;
            }
        }
        if lines.is_empty() { Ok(()) } else { self.append(lines) }
    }

    /// Letters that had to go to make room for others.
    pub(crate) fn fallen(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).fallen
    }

    fn append(&self, mut line: String) -> io::Result<()> {
        line.push('\n');
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.suspect {
            rewrite(&*self.fs, NAME, state.end, false)?;
            (state.file, state.suspect) = (None, false);
        }
        if state.file.is_none() {
            state.open(&*self.fs)?;
        }
        if state.end > 0 && state.end + line.len() as u64 > self.limit {
            state.rotate(&*self.fs)?;
        }
        let Some(file) = &state.file else { return Err(io::ErrorKind::NotFound.into()) };
        if state.torn {
            file.set_len(state.end)?;
        }
        state.torn = true;
        file.write_at(line.as_bytes(), state.end)?;
        file.sync().inspect_err(|_| state.suspect = true)?;
        state.torn = false;
        state.end += line.len() as u64;
        Ok(())
    }
}

impl State {
    fn open(&mut self, fs: &dyn Fs) -> io::Result<()> {
        let file = fs.open(NAME, Mode::Write)?;
        fs.sync_dir()?;
        self.end = file.len()?;
        let mut last = [b'\n'];
        if self.end > 0 {
            read_exact_at(&*file, &mut last, self.end - 1)?;
        }
        if last != *b"\n" {
            // A line that the last run did not finish is nobody's, and must not spoil the next.
            file.write_at(b"\n", self.end)?;
            self.end += 1;
        }
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self, fs: &dyn Fs) -> io::Result<()> {
        let fallen = match fs.open(OLDER, Mode::Read) {
            Ok(file) => lines(&*file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if self.torn
            && let Some(file) = &self.file
        {
            file.set_len(self.end)?;
        }
        self.file = None;
        fs.rename(NAME, OLDER)?;
        self.fallen += fallen;
        self.torn = false;
        self.open(fs)
    }
}

fn letter(of: &str, reason: &str, attempts: u32, bytes: Option<Bytes<'_>>) -> io::Result<String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = time::format(since.as_nanos() as time::Nanos);
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    Ok(serde_json::to_string(&Letter { time, of, reason, attempts, bytes })?)
}

/// Counts lines.
fn lines(file: &dyn File) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let (mut at, mut lines) = (0, 0);
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64;
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::delivery::fs::simulated::{Fault, Plan, Simulated};

    fn record(stream: &str, offset: u64, bytes: &[u8]) -> Vec<Rejected> {
        vec![Rejected {
            input: "audit".to_owned(),
            stream: stream.to_owned(),
            offset,
            length: bytes.len() as u64,
            reason: "no event".into(),
            sha256: None,
            bytes: bytes.to_vec(),
        }]
    }

    /// The letters on a disk, without their times. Lines that are none are left out.
    fn letters(disk: &Simulated) -> Vec<Value> {
        let files = disk.files();
        let text =
            [OLDER, NAME].iter().filter_map(|name| files.get(*name)).flatten().copied().collect::<Vec<u8>>();
        text.split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
            .map(|mut letter| {
                let time = letter.as_object_mut().unwrap().remove("time").unwrap();
                assert!(time::parse(time.as_str().unwrap().as_bytes()).is_some());
                letter
            })
            .collect()
    }

    fn check(reject: impl FnOnce(&Dead) -> io::Result<()>, expected: &Value) {
        let disk = Simulated::new(1);
        reject(&Dead::open(Arc::new(disk.clone()), 1 << 20)).unwrap();
        disk.restart();
        assert_eq!(letters(&disk), std::slice::from_ref(expected));
    }

    #[test]
    fn letters_say_what_was_rejected_and_why() {
        check(
            |dead| dead.reject_alert("slack", "400 \"no\"\n", 3, r#"{"rule":"x"}"#),
            &json!({"of": "slack", "reason": "400 \"no\"\n", "attempts": 3, "alert": {"rule": "x"}}),
        );
        check(
            |dead| dead.reject_alert("slack", &"é".repeat(1000), 1, "{\n"),
            &json!({"of": "slack", "reason": "é".repeat(512), "attempts": 1, "alert": "{\n"}),
        );
        check(
            |dead| dead.reject_records(&record("/a.log", 7, b"ab\xFF")),
            &json!({
                "of": "audit", "reason": "no event", "attempts": 1, "stream": "/a.log", "offset": 7, "length": 3,
                "sha256": hex(&Sha256::digest(b"ab\xFF")), "bytes_base64": "YWL/", "truncated": false,
            }),
        );
        let long = vec![b'x'; MAX_BYTES + 1];
        check(
            |dead| dead.reject_records(&record("/a.log", 0, &long)),
            &json!({
                "of": "audit", "reason": "no event", "attempts": 1, "stream": "/a.log", "offset": 0,
                "length": MAX_BYTES + 1, "sha256": hex(&Sha256::digest(&long)),
                "bytes_base64": STANDARD.encode(&long[..MAX_BYTES]), "truncated": true,
            }),
        );
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let disk = Simulated::new(1);
        let dead = Dead::open(Arc::new(disk.clone()), 2000);
        for attempts in 0..100 {
            dead.reject_alert("slack", "no", attempts, "{}").unwrap();
        }
        disk.restart();
        let kept = letters(&disk);
        assert_eq!(kept.len() as u64 + dead.fallen(), 100);
        assert!(kept.len() > 10 && disk.files().values().map(Vec::len).sum::<usize>() <= 2000);
        assert_eq!(kept.last().unwrap()["attempts"], 99);
    }

    /// Whatever fails: what was said to be durable is there, in order, and what is there was written.
    #[test]
    fn nothing_that_was_kept_is_lost() {
        for fault in [Fault::Crash, Fault::Full, Fault::Broken] {
            for at in 0..60 {
                let disk = Simulated::new(at);
                let (mut dead, mut kept) = (Dead::open(Arc::new(disk.clone()), 1200), Vec::new());
                disk.plan(Some(Plan { operations: at..at + 3, fault }));
                for attempts in 0..16_u32 {
                    if dead.reject_alert("slack", "no", attempts, "{}").is_ok() {
                        kept.push(u64::from(attempts));
                    } else if disk.is_down() {
                        disk.restart();
                        dead = Dead::open(Arc::new(disk.clone()), 1200);
                    }
                }
                disk.restart();
                let numbers: Vec<u64> =
                    letters(&disk).iter().map(|letter| letter["attempts"].as_u64().unwrap()).collect();
                assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
                // The file before the last one but one has gone.
                let first = numbers[0];
                assert!(
                    kept.iter().filter(|n| **n >= first).all(|n| numbers.contains(n)),
                    "{kept:?} {numbers:?}"
                );
                assert!(numbers.len() >= 6, "{numbers:?}");
            }
        }
    }
}
