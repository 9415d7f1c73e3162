//! Standard input as a live source.
//!
//! Lines are handed over as soon as they have come, many at a time when many have. A slow lane makes us read no further, and
//! so the writer wait. What was read is gone from the pipe, so there is no position: what a crash leaves unhandled is lost,
//! and so standard input is for writers that send again or for use without a need of guarantees.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use memchr::memrchr;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outlet::{Outlet, Stop, Stopped};
use super::pipe::Pipe;
use super::{Batch, Delivery, Notice, Room, Sender, What};
use crate::telemetry::Telemetry;
use crate::units::Text;

/// The largest batch, and the longest part of a line that waits for its end.
const BATCH: usize = 1 << 20;
/// Not waiting at all.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Standard input.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map")]
pub(crate) struct Config {
    /// What alerts and metrics call the input.
    pub(crate) name: String,
    /// The cluster that the events are of. Default: the configuration's.
    pub(crate) cluster: Option<Text>,
}

impl Default for Config {
    fn default() -> Config {
        Config { name: "stdin".to_owned(), cluster: None }
    }
}

/// Begins to read standard input on a thread of its own, until it ends or `stop` is said.
///
/// # Errors
/// Standard input is closed, or the system gives no thread.
pub(crate) fn start(
    config: &Config,
    sender: Sender,
    room: Room,
    stop: Stop,
    telemetry: Arc<Telemetry>,
) -> Result<JoinHandle<()>> {
    let file = Pipe::stdin().context("cannot read standard input")?;
    let outlet = Outlet::new(sender, room, stop, telemetry)?;
    let reader = Reader::new(config, outlet);
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            // That it was stopped is all that there is to say, and who said it knows.
            let _ = reader.run(file);
        })
        .context("cannot start the thread of standard input")
}

struct Reader {
    input: Arc<str>,
    stream: Arc<str>,
    cluster: Option<Arc<str>>,
    outlet: Outlet,
    /// Room for one batch. What has been read and not handed over stands in its first `filled` bytes.
    buffer: Vec<u8>,
    filled: usize,
    /// Offset of the first byte of the buffer.
    offset: u64,
}

impl Reader {
    fn new(config: &Config, outlet: Outlet) -> Reader {
        Reader {
            input: config.name.as_str().into(),
            stream: "stdin".into(),
            cluster: config.cluster.as_ref().map(|name| name.0.as_str().into()),
            outlet,
            buffer: vec![0; BATCH],
            filled: 0,
            offset: 0,
        }
    }

    /// Reads to the end.
    fn run(mut self, mut file: File) -> Result<(), Stopped> {
        loop {
            self.wait(&file)?;
            let ended = match self.read(&mut file) {
                Ok(ended) => ended,
                Err(error) => {
                    self.broken(&error)?;
                    true
                }
            };
            if ended {
                self.hand_over(self.filled, true)?;
                return self.outlet.send(Delivery::End { input: Arc::clone(&self.input) });
            }
            match memrchr(b'\n', &self.buffer[..self.filled]) {
                Some(newline) => self.hand_over(newline + 1, false)?,
                None if self.filled == BATCH => self.hand_over(BATCH, false)?,
                None => {}
            }
        }
    }

    /// Waits until something can be read.
    fn wait(&self, file: &File) -> Result<(), Stopped> {
        let mut wanted = [PollFd::new(file, PollFlags::IN), PollFd::new(&self.outlet.stop, PollFlags::IN)];
        // A failure to wait shows itself in the read as well.
        let _ = poll(&mut wanted, None);
        if self.outlet.stop.is_said() { Err(Stopped) } else { Ok(()) }
    }

    /// Reads what there is, as far as there is room for it, without waiting for more than the first of it. True at the end.
    fn read(&mut self, file: &mut File) -> io::Result<bool> {
        loop {
            match file.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Ok(true),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            let mut wanted = [PollFd::new(&*file, PollFlags::IN)];
            if self.filled == BATCH || !poll(&mut wanted, Some(&NOW)).is_ok_and(|ready| ready > 0) {
                return Ok(false);
            }
        }
    }

    /// Hands over the first `length` bytes of the buffer, in memory of their own: most batches are small.
    fn hand_over(&mut self, length: usize, last: bool) -> Result<(), Stopped> {
        let room = self.outlet.take(length)?;
        let bytes = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.copy_within(length..self.filled, 0);
        self.filled -= length;
        let offset = self.offset;
        self.offset += length as u64;
        self.outlet.send(Delivery::Batch(Batch {
            input: Arc::clone(&self.input),
            stream: Arc::clone(&self.stream),
            offset,
            bytes,
            last,
            cluster: self.cluster.clone(),
            position: None,
            reply: None,
            room: Some(room),
        }))
    }

    fn broken(&self, error: &io::Error) -> Result<(), Stopped> {
        let input = Arc::clone(&self.input);
        let message = format!("standard input broke off after byte {}: {error}", self.offset);
        let identity = format!("broken:{}", self.offset);
        self.outlet.notify(Notice { input, part: None, what: What::Unreadable, message, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeWriter, Write as _};
    use std::os::fd::OwnedFd;

    use tokio::sync::mpsc;

    /// A reader of a pipe on a thread of its own, the pipe's other end, and the lane.
    fn follow(stop: &Stop) -> (PipeWriter, mpsc::Receiver<Delivery>, JoinHandle<Result<(), Stopped>>) {
        let (pipe, writer) = io::pipe().unwrap();
        let (sender, lane) = mpsc::channel(64);
        let outlet = Outlet::new(sender, Room::new(8 << 20), stop.clone(), Telemetry::new()).unwrap();
        let reader = Reader::new(&Config::default(), outlet);
        let thread = thread::spawn(move || reader.run(File::from(OwnedFd::from(pipe))));
        (writer, lane, thread)
    }

    fn batch(lane: &mut mpsc::Receiver<Delivery>) -> Batch {
        match lane.blocking_recv().unwrap() {
            Delivery::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_come_at_once_and_half_ones_when_they_are_whole() {
        let (mut writer, mut lane, thread) = follow(&Stop::new().unwrap());
        writer.write_all(b"one\ntw").unwrap();
        assert_eq!(batch(&mut lane).bytes, "one\n");
        writer.write_all(b"o\nthree").unwrap();
        let second = batch(&mut lane);
        assert_eq!((second.offset, &*second.bytes, second.last), (4, &b"two\n"[..], false));
        drop(writer);
        let third = batch(&mut lane);
        assert_eq!((third.offset, &*third.bytes, third.last), (8, &b"three"[..], true));
        assert!(matches!(lane.blocking_recv(), Some(Delivery::End { .. })));
        assert_eq!(thread.join().unwrap(), Ok(()));
    }

    #[test]
    fn what_comes_fast_comes_in_large_batches_that_are_whole() {
        let (mut writer, mut lane, thread) = follow(&Stop::new().unwrap());
        let text = "a line\n".repeat(2_000_000) + &"x".repeat(3 << 20);
        let expected = text.clone();
        let writing = thread::spawn(move || writer.write_all(text.as_bytes()).unwrap());
        let mut bytes = Vec::new();
        loop {
            let batch = batch(&mut lane);
            assert_eq!(batch.offset, bytes.len() as u64);
            assert!(batch.bytes.len() <= BATCH);
            bytes.extend_from_slice(&batch.bytes);
            if batch.last {
                break;
            }
        }
        assert!(bytes == expected.as_bytes());
        writing.join().unwrap();
        drop(lane);
        let _ = thread.join().unwrap();
    }

    #[test]
    fn it_stops_while_it_waits() {
        let stop = Stop::new().unwrap();
        let (writer, _lane, thread) = follow(&stop);
        stop.say();
        assert_eq!(thread.join().unwrap(), Err(Stopped));
        drop(writer);
    }
}
