//! The parallel scan: inputs in, batches of what was found out, in an order that does not depend on the threads.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use detectors::engine::{Emitted, Found, Origin, Worker};
use detectors::event::frame::{Frame, Framer};
use detectors::tally::{Dimension, Tally};
use memchr::{memchr, memrchr};

use super::Tuning;
use super::board::{Board, Outcome, Rules, Task};
use super::packed::Packed;
use super::profile::{Counts, Profile};
use super::read::{Cut, Lines, Opened, PartReader, Plain, Refusal, Rest, Source, Stream, open};
use crate::source::kafka::Gathered;
use crate::source::kafka::history::{Partition, Reader, Told};
use crate::source::plan::Input;
use crate::stream;

/// What judges events and counts them: the engine's worker, and a stand-in in tests.
pub(super) trait Judge: stream::Judge {
    /// As [`Worker::take_tally`].
    fn take_tally(&mut self) -> Tally;
    /// As [`Worker::drain_profile`].
    fn drain_profile(&mut self, add: &mut dyn FnMut(Dimension, &str, u64));
}

impl Judge for Worker<'_> {
    fn take_tally(&mut self) -> Tally {
        self.take_tally()
    }

    fn drain_profile(&mut self, add: &mut dyn FnMut(Dimension, &str, u64)) {
        self.drain_profile(add);
    }
}

/// What was found in a stretch of an input.
#[derive(Default)]
pub(super) struct Batch {
    /// Alerts and steps.
    pub(super) packed: Packed,
    /// What was seen.
    pub(super) tally: Tally,
    /// Who was active; taken out before the batch is sent.
    pub(super) counts: Counts,
    /// Decoded bytes that were read.
    pub(super) bytes: u64,
    /// What was read and will not be read again.
    pub(super) taken: Taken,
}

/// How far an input has been read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// Messages of a partition, or the gaps between their offsets.
    pub(super) messages: u64,
    /// Messages without a payload.
    pub(super) empty: u64,
}

impl Batch {
    /// Bytes of memory, roughly.
    pub(super) fn size(&self) -> usize {
        self.packed.size() + self.counts.size() + 2048
    }
}

/// What the scan tells. All but notes come in the order of an input; `Done` comes last.
pub(super) enum Message {
    /// What was found.
    Batch(usize, Box<Batch>),
    /// The input has been read.
    Done(usize),
    /// The input is not read, and need not be.
    Skipped(usize, String),
    /// The input can't be read.
    Unreadable(usize, String),
    /// Something is wrong with the input, perhaps at that offset; what could be read was.
    Damaged(usize, Option<u64>, String),
}

impl Message {
    fn input(&self) -> usize {
        match self {
            Message::Batch(input, _)
            | Message::Done(input)
            | Message::Skipped(input, _)
            | Message::Unreadable(input, _)
            | Message::Damaged(input, ..) => *input,
        }
    }

    fn size(&self) -> usize {
        if let Message::Batch(_, batch) = self { batch.size() } else { 0 }
    }
}

/// A scan to be done.
pub(super) struct Scan<'r> {
    /// What to read.
    pub(super) inputs: &'r [Input],
    /// How many threads read and judge.
    pub(super) threads: usize,
    /// Messages come input by input.
    pub(super) in_order: bool,
    /// Which alerts are wanted.
    pub(super) keep: &'r (dyn Fn(&Found) -> bool + Sync),
    /// Where activity is counted.
    pub(super) profile: &'r Profile,
    /// Set when the scan is to end early.
    pub(super) interrupted: &'r AtomicBool,
    /// Sizes.
    pub(super) tuning: Tuning,
}

impl Scan<'_> {
    /// Reads and judges everything. `take` gets the messages on the calling thread; an error of it ends the scan.
    pub(super) fn run<J: Judge>(
        &self,
        judge: &(dyn Fn() -> J + Sync),
        take: &mut dyn FnMut(Message) -> Result<()>,
    ) -> Result<()> {
        let board = Board::new(Rules {
            inputs: self.inputs.len(),
            threads: self.threads,
            in_order: self.in_order,
            part: self.tuning.part,
            waiting: self.tuning.waiting,
            interrupted: self.interrupted,
        });
        let room = Mutex::new(());
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                let out = sender.clone();
                let (board, room) = (&board, &room);
                scope.spawn(move || {
                    let _stop = StopOnPanic(board);
                    Hand::new(self, board, room, judge, out).work();
                });
            }
            drop(sender);
            let result = self.deliver(&board, &receiver, take);
            if result.is_err() {
                board.stop();
            }
            result
        })
    }

    /// Takes messages until all threads have ended.
    fn deliver(
        &self,
        board: &Board<'_>,
        receiver: &Receiver<Message>,
        take: &mut dyn FnMut(Message) -> Result<()>,
    ) -> Result<()> {
        let mut head = 0;
        let mut waiting: BTreeMap<usize, VecDeque<Message>> = BTreeMap::new();
        for message in receiver {
            let (input, size) = (message.input(), message.size());
            if self.in_order && input != head {
                board.taken(size, true);
                waiting.entry(input).or_default().push_back(message);
                continue;
            }
            let done = matches!(message, Message::Done(_));
            take(message)?;
            board.taken(size, false);
            if done {
                head += 1;
                self.deliver_waiting(board, &mut head, &mut waiting, take)?;
            }
        }
        // After an interruption some inputs have no end.
        waiting.into_values().flatten().try_for_each(take)
    }

    fn deliver_waiting(
        &self,
        board: &Board<'_>,
        head: &mut usize,
        waiting: &mut BTreeMap<usize, VecDeque<Message>>,
        take: &mut dyn FnMut(Message) -> Result<()>,
    ) -> Result<()> {
        while self.in_order
            && let Some(messages) = waiting.remove(head)
        {
            for message in messages {
                let (size, done) = (message.size(), matches!(message, Message::Done(_)));
                take(message)?;
                board.released(size);
                *head += usize::from(done);
            }
        }
        Ok(())
    }
}

/// Ends the other threads when one dies.
struct StopOnPanic<'b, 'r>(&'b Board<'r>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// How judging a piece went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// To its end.
    All,
    /// To that offset, from which on the input is not JSON lines.
    Leaves(u64),
    /// Somebody else found that it does not count.
    InVain,
    /// The judge died.
    Died,
}

/// One thread.
struct Hand<'s, J> {
    scan: &'s Scan<'s>,
    board: &'s Board<'s>,
    /// Held while a record takes much memory: there may be one such record at a time.
    room: &'s Mutex<()>,
    make: &'s (dyn Fn() -> J + Sync),
    judge: J,
    out: Sender<Message>,
    /// The input that is being judged, and its part.
    input: usize,
    number: u64,
    batch: Batch,
    /// What is read counts on disk as it does here.
    plain: bool,
    /// Everything before this offset has been handed over.
    handed: u64,
    /// Judge line by line, because the judge died on one of them.
    careful: bool,
    emitted: Vec<Emitted>,
    buffer: Vec<u8>,
}

impl<'s, J: Judge> Hand<'s, J> {
    fn new(
        scan: &'s Scan<'s>,
        board: &'s Board<'s>,
        room: &'s Mutex<()>,
        make: &'s (dyn Fn() -> J + Sync),
        out: Sender<Message>,
    ) -> Self {
        Hand {
            scan,
            board,
            room,
            make,
            judge: make(),
            out,
            input: 0,
            number: 0,
            batch: Batch::default(),
            plain: false,
            handed: 0,
            careful: false,
            emitted: Vec::new(),
            buffer: Vec::new(),
        }
    }

    fn work(mut self) {
        while let Some(task) = self.board.claim() {
            match task {
                Task::Open(input) => self.open(input),
                Task::Part { input, number, file, range } => {
                    (self.input, self.number) = (input, number);
                    self.part(&file, range);
                }
                Task::Block { input, number, stream } => {
                    (self.input, self.number) = (input, number);
                    self.block(stream);
                }
                Task::Messages { input, number, reader } => {
                    (self.input, self.number) = (input, number);
                    self.messages(reader);
                }
                Task::Alone { input, source, from, backlog, attempt } => {
                    self.input = input;
                    self.alone(Rest::new(source, from, backlog), from, attempt);
                }
            }
        }
    }

    fn tell(&self, message: Message) {
        // Nobody listens any more after the output has failed.
        let _ = self.out.send(message);
    }

    fn damaged(&self, offset: u64, reason: String) {
        self.tell(Message::Damaged(self.input, Some(offset), reason));
    }

    /// Several threads may meet the same error in different places: it is the file's.
    fn failed(&self, error: &io::Error) {
        self.tell(Message::Damaged(self.input, None, error.to_string()));
    }

    fn open(&mut self, input: usize) {
        let source = match open(&self.scan.inputs[input], self.scan.interrupted) {
            Ok(source) => Some(source),
            Err(refusal) => {
                self.tell(match refusal {
                    Refusal::Skipped(reason) => Message::Skipped(input, reason),
                    Refusal::Unreadable(reason) => Message::Unreadable(input, reason),
                });
                None
            }
        };
        self.board.opened(input, source, &self.out);
    }

    /// Judges a part of a plain file.
    fn part(&mut self, file: &Arc<Plain>, range: std::ops::Range<u64>) {
        (self.handed, self.plain) = (range.start, true);
        let mut start = self.number == 0;
        let judged = loop {
            match self.read_part(file, self.handed..range.end, start) {
                Judged::Died => {
                    start |= self.handed != range.start;
                    self.begin_again();
                }
                judged => break judged,
            }
        };
        self.end(judged, Outcome::default());
    }

    fn read_part(&mut self, file: &Plain, range: std::ops::Range<u64>, start: bool) -> Judged {
        let mut buffer = std::mem::take(&mut self.buffer);
        let scan = self.scan;
        let mut reader = PartReader::new(file, &scan.tuning, &mut buffer, range, start);
        let judged = loop {
            match reader.next() {
                Ok(Lines::Whole(offset, bytes)) => match self.lines(offset, bytes) {
                    Judged::All => {}
                    judged => break judged,
                },
                Ok(Lines::Long(offset)) => break Judged::Leaves(offset),
                Ok(Lines::End) => break Judged::All,
                Err(error) => {
                    self.failed(&error);
                    break Judged::All;
                }
            }
        };
        self.buffer = buffer;
        judged
    }

    /// Cuts a block of a stream and judges it.
    fn block(&mut self, mut stream: Box<Stream>) {
        self.plain = false;
        let cut = stream.cut(std::mem::take(&mut self.buffer), &self.scan.tuning);
        if let Some(reason) = stream.refused.take() {
            self.tell(Message::Unreadable(self.input, reason.to_string()));
        }
        if let Some((offset, reason)) = stream.damage.take() {
            self.damaged(offset, reason);
        }
        self.batch.taken.bytes = stream.taken();
        let block = match cut {
            Cut::Block(block) => block,
            Cut::Idle => {
                self.board.put_back(self.input, Opened::Bytes(Source::Stream(stream)));
                return self.end(Judged::All, Outcome::default());
            }
            Cut::Long => {
                let offset = stream.offset;
                let last = Some(Opened::Bytes(Source::Stream(stream)));
                return self.end(Judged::Leaves(offset), Outcome { last, ..Outcome::default() });
            }
            Cut::End => {
                let last = Some(Opened::Bytes(Source::Stream(stream)));
                return self.end(Judged::All, Outcome { last, ..Outcome::default() });
            }
        };
        self.board.put_back(self.input, Opened::Bytes(Source::Stream(stream)));
        self.handed = block.offset;
        let judged = loop {
            let from = (self.handed - block.offset) as usize;
            match self.lines(self.handed, &block.bytes[from..]) {
                Judged::Died => self.begin_again(),
                judged => break judged,
            }
        };
        self.end(judged, Outcome { block: Some(block), ..Outcome::default() });
    }

    /// Takes messages of a partition and judges them.
    fn messages(&mut self, mut reader: Box<Reader>) {
        self.plain = false;
        let (name, gathered) = (reader.stream(), reader.read(self.scan.tuning.block));
        let Told { passed, empty, refused, damage } = reader.take_told();
        for (offset, reason) in damage {
            self.damaged(offset, reason);
        }
        if let Some(reason) = refused {
            self.tell(Message::Unreadable(self.input, reason));
        }
        self.batch.taken = Taken { bytes: 0, messages: passed, empty };
        let mut outcome = Outcome::default();
        if reader.has_ended() {
            outcome.last = Some(Opened::Messages(reader));
        } else {
            self.board.put_back(self.input, Opened::Messages(reader));
        }
        self.handed = 0;
        let judged = loop {
            match self.gathered(&name, &gathered) {
                Judged::Died => self.begin_again(),
                judged => break judged,
            }
        };
        self.end(judged, outcome);
    }

    /// Judges messages, those first that were handed over already.
    fn gathered(&mut self, name: &str, gathered: &Gathered) -> Judged {
        let mut died = Vec::new();
        for (nth, message) in gathered.messages.iter().enumerate().skip(self.handed as usize) {
            let mut stream = if self.careful { stream::Stream::careful() } else { stream::Stream::default() };
            let bytes = &gathered.bytes[message.range()];
            stream.message(&mut self.judge, name, message.offset, bytes, &mut self.emitted, &mut died);
            if !died.is_empty() && !self.careful {
                return Judged::Died;
            }
            self.pack(Some(message.offset));
            for _ in died.drain(..) {
                // The counters are plain numbers: they can be saved even so.
                let _ = catch_unwind(AssertUnwindSafe(|| self.collect()));
                self.died(message.offset);
            }
            self.batch.bytes += bytes.len() as u64;
            if self.careful {
                self.collect();
            }
            if self.batch.packed.size() > self.scan.tuning.batch {
                let batch = self.take_batch();
                let Some(counts) = self.board.hand_over(self.input, self.number, batch, &self.out) else {
                    return Judged::InVain;
                };
                counts.merge_into(self.scan.profile);
                self.handed = nth as u64 + 1;
            }
        }
        Judged::All
    }

    /// Judges whole lines, a slice at a time.
    fn lines(&mut self, mut offset: u64, mut bytes: &[u8]) -> Judged {
        while !bytes.is_empty() {
            let size = if self.careful { 1 } else { self.scan.tuning.slice };
            let (slice, rest) = bytes.split_at(slice_end(bytes, size));
            match self.slice(offset, slice) {
                Judged::All => {}
                judged => return judged,
            }
            offset += slice.len() as u64;
            bytes = rest;
            if self.batch.packed.size() > self.scan.tuning.batch {
                let batch = self.take_batch();
                let Some(counts) = self.board.hand_over(self.input, self.number, batch, &self.out) else {
                    return Judged::InVain;
                };
                counts.merge_into(self.scan.profile);
                self.handed = offset;
            }
        }
        Judged::All
    }

    fn slice(&mut self, offset: u64, slice: &[u8]) -> Judged {
        let input = &self.scan.inputs[self.input].name;
        let (judge, emitted) = (&mut self.judge, &mut self.emitted);
        let judging = || judge.lines(Origin { input, offset }, slice, emitted);
        let judged = match catch_unwind(AssertUnwindSafe(judging)) {
            Ok(None) => {
                self.batch.bytes += slice.len() as u64;
                Judged::All
            }
            Ok(Some(stop)) => {
                self.batch.bytes += stop as u64;
                Judged::Leaves(offset + stop as u64)
            }
            Err(_) if self.careful => {
                self.died(offset);
                self.batch.bytes += slice.len() as u64;
                return Judged::All;
            }
            Err(_) => return Judged::Died,
        };
        self.pack(None);
        if self.careful {
            self.collect();
        }
        judged
    }

    /// The judge died on the record at `offset`, of which nothing is known but that it is there.
    fn died(&mut self, offset: u64) {
        self.emitted.clear();
        self.judge = (self.make)();
        self.batch.tally.bad += 1;
        self.damaged(offset, "internal error: this record could not be judged".to_string());
    }

    /// After the judge died on one of many lines: forgets what was not handed over yet, to judge it again line by line.
    fn begin_again(&mut self) {
        self.emitted.clear();
        self.judge = (self.make)();
        let taken = self.batch.taken;
        self.batch = Batch { taken, ..Batch::default() };
        self.careful = true;
    }

    /// Packs what was emitted, of a message at that offset.
    fn pack(&mut self, message: Option<u64>) {
        let cluster = self.scan.inputs[self.input].partition().and_then(Partition::cluster);
        for emitted in self.emitted.drain(..) {
            match emitted {
                Emitted::Alert(mut found) if (self.scan.keep)(&found) => {
                    if let Some(cluster) = cluster {
                        found.alert.cluster = Some(cluster.to_owned());
                    }
                    self.batch.packed.push_alert(&found, self.input, message);
                }
                Emitted::Alert(_) => {}
                Emitted::Step(step) => self.batch.packed.push_step(&step),
            }
        }
    }

    /// Adds the judge's counters to the batch.
    fn collect(&mut self) {
        let (judge, counts) = (&mut self.judge, &mut self.batch.counts);
        self.batch.tally.merge(judge.take_tally());
        judge.drain_profile(&mut |dimension, name, events| counts.add(dimension, name, events));
    }

    fn take_batch(&mut self) -> Batch {
        self.collect();
        if self.plain {
            self.batch.taken.bytes = self.batch.bytes;
        }
        std::mem::take(&mut self.batch)
    }

    /// Ends a part or block.
    fn end(&mut self, judged: Judged, outcome: Outcome) {
        let mut batch = self.take_batch();
        if judged == Judged::InVain {
            batch = Batch::default();
        }
        self.careful = false;
        let leaves = if let Judged::Leaves(offset) = judged { Some(offset) } else { None };
        let outcome = Outcome { batch, leaves, ..outcome };
        let settled = self.board.end(self.input, self.number, outcome, &self.out);
        for counts in settled.counts {
            counts.merge_into(self.scan.profile);
        }
        if let Some(buffer) = settled.buffer {
            self.buffer = buffer;
        }
    }

    /// Reads an input on from `from`, record by record, until it ends or has come to be JSON lines.
    fn alone(&mut self, mut rest: Rest, from: u64, attempt: u32) {
        self.plain = false;
        let stretch = self.scan.tuning.alone << (2 * attempt.min(16));
        let mut framer = Framer::new(from).until_lines_after(from.saturating_add(stretch));
        let mut buffer = Vec::new();
        let mutex = self.room;
        let mut room: Option<MutexGuard<'_, ()>> = None;
        while !self.board.stopping() {
            match rest.read(&mut buffer, self.scan.tuning.block) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.failed(&error);
                    break;
                }
            }
            if framer.held() > self.scan.tuning.line && room.is_none() {
                room = Some(mutex.lock().unwrap_or_else(PoisonError::into_inner));
            }
            let settled = framer.feed(&buffer, &mut |frame| self.record(frame));
            let used = settled.unwrap_or(buffer.len());
            self.batch.bytes += used as u64;
            self.batch.taken.bytes += rest.taken(used);
            if framer.held() <= self.scan.tuning.line {
                room = None;
            }
            self.hand_over_alone(room.is_none());
            if settled.is_some() {
                let (source, base) = rest.give_back(&buffer, buffer.len() - used);
                return self.board.end_alone(self.input, Some((source, base)), attempt + 1, &self.out);
            }
        }
        if !self.board.stopping() {
            framer.finish(&mut |frame| self.record(frame));
        }
        drop(room);
        if let Some((offset, reason)) = rest.damage() {
            self.damaged(offset, reason);
        }
        self.hand_over_alone(true);
        self.board.end_alone(self.input, None, 0, &self.out);
    }

    fn hand_over_alone(&mut self, patient: bool) {
        let batch = self.take_batch();
        let counts = self.board.hand_over_alone(self.input, batch, patient, &self.out);
        counts.merge_into(self.scan.profile);
    }

    /// Judges one record.
    fn record(&mut self, frame: Frame<'_>) {
        let input = &self.scan.inputs[self.input].name;
        let (judge, emitted) = (&mut self.judge, &mut self.emitted);
        if catch_unwind(AssertUnwindSafe(|| judge.record(input, frame, emitted))).is_ok() {
            return self.pack(None);
        }
        // The counters are plain numbers: they can be saved even so.
        if catch_unwind(AssertUnwindSafe(|| self.collect())).is_err() {
            self.emitted.clear();
        }
        self.died(frame.offset);
    }
}

/// Where a slice of whole lines ends that is about `size` long.
fn slice_end(bytes: &[u8], size: usize) -> usize {
    if bytes.len() <= size {
        return bytes.len();
    }
    let within = memrchr(b'\n', &bytes[..size]);
    let newline = within.or_else(|| memchr(b'\n', &bytes[size..]).map(|newline| size + newline));
    newline.map_or(bytes.len(), |newline| newline + 1)
}
