//! The bytes of one live stream, as they come, to records: JSON lines the fast way, anything else through the framer.
//!
//! Guarantees: what is judged does not depend on how the stream is cut into batches; a record on which the judge dies is
//! counted and passed over, and its neighbours are judged.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use detectors::engine::{Emitted, Origin, Worker};
use detectors::event::frame::{Frame, Framer};
use detectors::tally::{Sample, Tally};
use memchr::{memchr, memrchr};

use crate::delivery::dead::Rejected;
use crate::source::{Batch, part};

/// How many records that are no events are kept of a stretch of input; the rest is only counted.
pub(crate) const DEAD_LETTERS: usize = 1_000;

/// What judges records: the engine's worker, and stand-ins in tests.
pub(crate) trait Judge {
    /// As [`Worker::lines`].
    fn lines(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> Option<usize>;
    /// As [`Worker::line`].
    fn line(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> bool;
    /// As [`Worker::nuls_are_bad`].
    fn nuls_are_bad(&mut self, yes: bool);
    /// As [`Worker::record`].
    fn record(&mut self, input: &str, frame: Frame<'_>, out: &mut Vec<Emitted>);
}

impl Judge for Worker<'_> {
    fn lines(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> Option<usize> {
        self.lines(origin, bytes, out)
    }

    fn line(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> bool {
        self.line(origin, bytes, out)
    }

    fn nuls_are_bad(&mut self, yes: bool) {
        self.nuls_are_bad(yes);
    }

    fn record(&mut self, input: &str, frame: Frame<'_>, out: &mut Vec<Emitted>) {
        self.record(input, frame, out);
    }
}

/// What a stretch of input came to.
#[derive(Default)]
pub(crate) struct Judged {
    /// What was found.
    pub(crate) emitted: Vec<Emitted>,
    /// What was seen. Its samples are among the rejected.
    pub(crate) tally: Tally,
    /// Records that are no events, at most [`DEAD_LETTERS`].
    pub(crate) rejected: Vec<Rejected>,
    /// How many records the judge died on.
    pub(crate) died: u64,
}

impl Judged {
    /// Keeps what is no event: samples, and records on which the judge died. `bytes` tells those of a record by its stream, its
    /// offset there and its length.
    pub(crate) fn put_aside<'b>(
        &mut self,
        input: &str,
        samples: Vec<Sample>,
        died: Vec<Died>,
        bytes: impl Fn(&str, u64, u64) -> Option<&'b [u8]>,
    ) {
        self.died += died.len() as u64;
        let samples = samples.into_iter().map(|sample| {
            let reason = if sample.keys.is_empty() { "not an event" } else { "JSON that is no event" };
            (sample.input, sample.offset, sample.length, reason, Some(sample.sha256))
        });
        let died =
            died.into_iter().map(|died| (died.input, died.offset, died.length, "internal error", None));
        let room = DEAD_LETTERS.saturating_sub(self.rejected.len());
        self.rejected.extend(samples.chain(died).take(room).map(
            |(stream, offset, length, reason, sha256)| Rejected {
                input: input.to_owned(),
                bytes: bytes(&stream, offset, length).unwrap_or_default().to_vec(),
                stream,
                offset,
                length,
                reason: Cow::Borrowed(reason),
                sha256,
            },
        ));
    }
}

/// Where a stream stands between two batches.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// What is not JSON lines is framed, from the place on where it stops being that.
    framer: Option<Framer>,
    /// Offset of the byte that is expected next, while it is framed.
    next: u64,
    /// Lines are judged one by one, because the judge is known to die on one of them.
    careful: bool,
}

/// A stretch of a stream.
#[derive(Debug, Clone, Copy)]
struct Chunk<'b> {
    /// The stream, as evidence names it.
    stream: &'b str,
    /// Offset of the first byte.
    offset: u64,
    bytes: &'b [u8],
    /// The stream ends with these bytes.
    last: bool,
}

/// A record on which the judge died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Died {
    /// The stream.
    pub(crate) input: String,
    /// Where it begins in the stream.
    pub(crate) offset: u64,
    /// Its length, or that of what was left of the batch.
    pub(crate) length: u64,
}

impl Stream {
    /// A stream whose lines are judged one by one, so that what comes before a line on which the judge dies counts once.
    pub(crate) fn careful() -> Stream {
        Stream { careful: true, ..Stream::default() }
    }

    /// True if a record has begun and not ended: a restart has to read it again from its beginning.
    pub(crate) fn is_open(&self) -> bool {
        self.framer.as_ref().is_some_and(|framer| !framer.is_idle())
    }

    /// True if the stream is framed, so that it must be remembered.
    pub(crate) fn is_framed(&self) -> bool {
        self.framer.is_some()
    }

    /// Judges the next bytes of the stream.
    pub(crate) fn judge(
        &mut self,
        worker: &mut Worker<'_>,
        batch: &Batch,
        out: &mut Vec<Emitted>,
        died: &mut Vec<Died>,
    ) {
        let Batch { stream, offset, bytes, last, .. } = batch;
        self.chunk(worker, Chunk { stream, offset: *offset, bytes, last: *last }, out, died);
    }

    /// Judges a message of a partition into `judged`: the bytes, unpacked if they were packed, at an offset of the partition.
    pub(crate) fn whole_message(
        worker: &mut Worker<'_>,
        (input, stream): (&str, &str),
        offset: u64,
        bytes: &[u8],
        judged: &mut Judged,
    ) {
        let mut died = Vec::new();
        Stream::default().message(worker, stream, offset, bytes, &mut judged.emitted, &mut died);
        let samples = worker.take_samples();
        if !samples.is_empty() || !died.is_empty() {
            // What stands by itself in a message is at the message's offset, all else at its own inside.
            let start = |of: &str, offset: u64| if of == stream { 0 } else { offset };
            judged
                .put_aside(input, samples, died, |of, offset, length| part(bytes, start(of, offset), length));
        }
    }

    /// Judges a message of a partition, which is a stream of its own. Its only record stands at the message's offset; of
    /// several, evidence tells where they stand in the message.
    pub(crate) fn message<J: Judge>(
        &mut self,
        worker: &mut J,
        stream: &str,
        offset: u64,
        bytes: &[u8],
        out: &mut Vec<Emitted>,
        died: &mut Vec<Died>,
    ) {
        let emitted = out.len();
        let origin = Origin { input: stream, offset };
        match catch_unwind(AssertUnwindSafe(|| worker.line(origin, bytes, out))) {
            Ok(true) => {}
            Ok(false) => {
                out.truncate(emitted);
                // What evidence calls the inside of the message: `k8s-audit/3@1234`, in which offsets count bytes.
                let stream = format!("{stream}@{offset}");
                // No crash leaves NULs in a message: somebody has written them.
                worker.nuls_are_bad(true);
                self.chunk(worker, Chunk { stream: &stream, offset: 0, bytes, last: true }, out, died);
                worker.nuls_are_bad(false);
            }
            Err(_) => {
                out.truncate(emitted);
                died.push(Died { input: stream.to_owned(), offset, length: bytes.len() as u64 });
            }
        }
    }

    fn chunk<J: Judge>(
        &mut self,
        worker: &mut J,
        batch: Chunk<'_>,
        out: &mut Vec<Emitted>,
        died: &mut Vec<Died>,
    ) {
        if self.framer.is_some() && self.next != batch.offset {
            self.finish(worker, batch, out, died); // a hole was skipped: what was open will not go on
        }
        self.next = batch.offset + batch.bytes.len() as u64;
        let bytes = batch.bytes;
        // A line that does not end in this batch is not judged as one.
        let lines = if batch.last { bytes.len() } else { memrchr(b'\n', bytes).map_or(0, |at| at + 1) };
        let mut at = 0;
        while at < bytes.len() {
            at += if self.framer.is_some() {
                self.frame(worker, batch, at, out, died)
            } else if at < lines {
                self.lines(worker, batch, at..lines, out, died)
            } else {
                self.framer = Some(Framer::new(batch.offset + at as u64).until_lines_after(0));
                0
            };
        }
        if batch.last {
            self.finish(worker, batch, out, died);
        }
    }

    /// Judges what is open as a fragment.
    fn finish<J: Judge>(
        &mut self,
        worker: &mut J,
        batch: Chunk<'_>,
        out: &mut Vec<Emitted>,
        died: &mut Vec<Died>,
    ) {
        let Some(mut framer) = self.framer.take() else { return };
        framer.finish(&mut |frame| {
            let emitted = out.len();
            let whole = AssertUnwindSafe(|| worker.record(batch.stream, frame, out));
            if catch_unwind(whole).is_err() {
                out.truncate(emitted);
                died.push(Died {
                    input: batch.stream.to_owned(),
                    offset: frame.offset,
                    length: frame.bytes.len() as u64,
                });
            }
        });
    }

    /// Judges lines until they end or are none any more. Returns how many bytes that were.
    fn lines<J: Judge>(
        &mut self,
        worker: &mut J,
        batch: Chunk<'_>,
        range: std::ops::Range<usize>,
        out: &mut Vec<Emitted>,
        died: &mut Vec<Died>,
    ) -> usize {
        let origin = |at: usize| Origin { input: batch.stream, offset: batch.offset + at as u64 };
        let (start, emitted) = (range.start, out.len());
        let all = &batch.bytes[range.clone()];
        let at_once = || catch_unwind(AssertUnwindSafe(|| worker.lines(origin(start), all, out))).ok();
        let stop = match (!self.careful).then(at_once).flatten() {
            Some(stop) => stop,
            None => {
                out.truncate(emitted);
                let (mut at, mut stop) = (0, None);
                while at < all.len() && stop.is_none() {
                    let end = memchr(b'\n', &all[at..]).map_or(all.len(), |newline| at + newline + 1);
                    let one = &all[at..end];
                    match catch_unwind(AssertUnwindSafe(|| worker.lines(origin(start + at), one, out))) {
                        Ok(leaves) => stop = leaves.map(|leaves| at + leaves),
                        Err(_) => {
                            let (input, offset) = (batch.stream.to_owned(), origin(start + at).offset);
                            died.push(Died { input, offset, length: one.len() as u64 });
                        }
                    }
                    at = end;
                }
                stop
            }
        };
        if let Some(stop) = stop {
            let from = origin(start + stop).offset;
            self.framer = Some(Framer::new(from).until_lines_after(from));
        }
        stop.unwrap_or(all.len())
    }

    /// Frames until the stream is JSON lines again. Returns how many bytes that were.
    fn frame<J: Judge>(
        &mut self,
        worker: &mut J,
        batch: Chunk<'_>,
        at: usize,
        out: &mut Vec<Emitted>,
        died: &mut Vec<Died>,
    ) -> usize {
        let Some(framer) = &mut self.framer else { return 0 };
        let rest = &batch.bytes[at..];
        let settled = framer.feed(rest, &mut |frame| {
            let emitted = out.len();
            let whole = AssertUnwindSafe(|| worker.record(batch.stream, frame, out));
            if catch_unwind(whole).is_err() {
                out.truncate(emitted);
                died.push(Died {
                    input: batch.stream.to_owned(),
                    offset: frame.offset,
                    length: frame.bytes.len() as u64,
                });
            }
        });
        if settled.is_some() {
            self.framer = None;
        }
        settled.unwrap_or(rest.len())
    }
}

#[cfg(test)]
mod tests {
    use detectors::rules::{self, Tuning};
    use detectors::settings::Settings;
    use detectors::tally::Format;

    use super::*;

    const EVENT: &str = concat!(
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","#,
        r#""stage":"ResponseComplete","requestURI":"/","verb":"get","user":{"username":"u"}}"#
    );

    /// How many events a message holds, and where records stand in it that are none and what they are.
    fn judged(payload: &[u8]) -> (u64, Vec<(u64, Vec<u8>)>) {
        let settings = Settings::default();
        let engine = rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap();
        let (mut worker, mut judged) = (engine.worker(), Judged::default());
        Stream::whole_message(&mut worker, ("k", "t/0"), 7, payload, &mut judged);
        let tally = worker.take_tally();
        let formats = [Format::Audit, Format::AuditList];
        let events = formats.iter().filter_map(|format| tally.formats.get(format)).sum();
        assert_eq!(tally.bad, judged.rejected.len() as u64);
        (events, judged.rejected.into_iter().map(|bad| (bad.offset, bad.bytes)).collect())
    }

    #[test]
    fn nuls_in_a_message_are_a_bad_record() {
        let check = |payload: &[&[u8]], events: u64, bad: &[(u64, &[u8])]| {
            let bad = bad.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
            assert_eq!(judged(&payload.concat()), (events, bad));
        };
        let event = EVENT.as_bytes();
        let end = event.len() as u64;
        check(&[&[0; 1000]], 0, &[(0, &[0; 1000])]);
        check(&[&[0; 3]], 0, &[(0, &[0; 3])]);
        check(&[&[0; 50], event], 1, &[(0, &[0; 50])]);
        check(&[event, &[0; 5]], 1, &[(end, &[0; 5])]);
        check(&[event, b"\n", &[0; 20], b"\n", event], 2, &[(end + 1, &[0; 20])]);
        check(&[b"[", event, b",\n", event, b"]\n", &[0; 20]], 2, &[(2 * end + 5, &[0; 20])]);
        check(&[event, b"\n"], 1, &[]);
        check(&[event, b" \r\n\n"], 1, &[]);
    }

    #[test]
    fn what_was_unpacked_of_a_damaged_message_is_judged() {
        let mark = "\n\x1edamaged gzip H4sIAAAAAAAA/w==";
        for unpacked in [
            String::new(),
            EVENT.to_owned(),
            format!("{EVENT}\n"),
            format!("{EVENT}\n{EVENT}"),
            format!("[{EVENT},{EVENT}"),
            format!("[{EVENT},"),
            format!(r#"{{"kind":"EventList","items":[{EVENT},{EVENT}"#),
            EVENT.replace(',', ",\n  "),
            EVENT[..EVENT.len() - 5].to_owned(),
            EVENT.replace(',', ",\n  ")[..EVENT.len() - 5].to_owned(),
        ] {
            let (events, bad) = judged(format!("{unpacked}{mark}").as_bytes());
            assert_eq!(events, unpacked.matches("auditID").count() as u64, "{unpacked}");
            let [(_, bytes)] = &*bad else { panic!("{unpacked}: {bad:?}") };
            assert!(bytes.ends_with(&mark.as_bytes()[2..]), "{unpacked}: {bad:?}");
        }
    }
}
