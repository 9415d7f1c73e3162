//! Who reads what next, and in which order results count.
//!
//! All threads are alike: each takes the next piece of work from the board, does it and comes back. A plain file is cut into
//! parts that many threads read at once. A stream is passed from hand to hand: whoever holds it cuts the next block and
//! puts it back before judging the block, so that decoding never waits for judging; so is the reader of a partition, of whose
//! messages each is judged by itself. An input that turns out not to be JSON lines is read on by one thread alone.
//!
//! Results count in the order of the input: a part stands once all before it stand. What comes after the place where an
//! input stopped being JSON lines is dropped, so that the outcome does not depend on who was how fast.
//!
//! Memory is bounded: so many parts of an input are begun at once, and when too many results wait, only the first unfinished
//! input is worked on.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pipeline::{Batch, Message};
use super::profile::Counts;
use super::read::{Block, Opened, Plain, Source, Stream};
use crate::source::kafka::history::Reader;

/// The board. Its lock is held for bookkeeping only, never while reading or judging.
pub(super) struct Board<'r> {
    state: Mutex<State>,
    changed: Condvar,
    rules: Rules<'r>,
}

/// What the board goes by.
pub(super) struct Rules<'r> {
    /// How many inputs there are.
    pub(super) inputs: usize,
    /// How many threads there are.
    pub(super) threads: usize,
    /// Batches are handed over input by input.
    pub(super) in_order: bool,
    /// Bytes of a plain file's part.
    pub(super) part: u64,
    /// Bytes of results that may wait.
    pub(super) waiting: usize,
    /// Set when no more work is to be begun.
    pub(super) interrupted: &'r AtomicBool,
}

/// A piece of work.
pub(super) enum Task {
    /// Open the input.
    Open(usize),
    /// Judge the lines that begin in a part of a plain file.
    Part {
        /// The input.
        input: usize,
        /// The part's number.
        number: u64,
        /// The file.
        file: Arc<Plain>,
        /// Where the part lies.
        range: Range<u64>,
    },
    /// Cut the next block of a stream, put the stream back, judge the block.
    Block {
        /// The input.
        input: usize,
        /// The block's number.
        number: u64,
        /// The stream.
        stream: Box<Stream>,
    },
    /// Take the next messages of a partition, put its reader back, judge the messages.
    Messages {
        /// The input.
        input: usize,
        /// The number of this piece.
        number: u64,
        /// The reader.
        reader: Box<Reader>,
    },
    /// Read the input on, record by record.
    Alone {
        /// The input.
        input: usize,
        /// The input's bytes.
        source: Source,
        /// From where on.
        from: u64,
        /// Blocks of a stream that have been cut already.
        backlog: VecDeque<Block>,
        /// How often it was read alone for want of many lines in a row.
        attempt: u32,
    },
}

/// How a part ended.
#[derive(Default)]
pub(super) struct Outcome {
    /// What was found in it, apart from what was handed over already.
    pub(super) batch: Batch,
    /// Where the input stops being JSON lines.
    pub(super) leaves: Option<u64>,
    /// The block, if it was one: its bytes are needed if an earlier one leaves.
    pub(super) block: Option<Block>,
    /// The input, if it is not put back, because no piece like this one follows: it has ended, or its next line is too long.
    pub(super) last: Option<Opened>,
}

/// What is left of parts that stand.
#[derive(Default)]
pub(super) struct Settled {
    /// Their counts, to be merged.
    pub(super) counts: Vec<Counts>,
    /// A buffer that one of them no longer needs.
    pub(super) buffer: Option<Vec<u8>>,
}

struct State {
    /// The next input to open.
    next: usize,
    active: BTreeMap<usize, Active>,
    /// Bytes of results that were sent and not yet taken.
    sent: usize,
    /// Bytes of results that wait for others before them.
    kept: usize,
    stopped: bool,
}

/// An input that is being read.
struct Active {
    phase: Phase,
    source: Option<Opened>,
    /// Where the lines begin that are read in parts.
    base: u64,
    /// Parts given out, parts that came back, parts that stand.
    begun: u64,
    ended: u64,
    stands: u64,
    /// How many parts there are, if it is known.
    parts: Option<u64>,
    /// Parts that came back before those in front of them.
    early: BTreeMap<u64, Outcome>,
    backlog: VecDeque<Block>,
    attempt: u32,
    /// Is or was decoded, or fetched from brokers: it holds the memory that this needs.
    decoding: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    /// Read in parts or blocks of lines.
    Lines,
    /// Not JSON lines from there on; the parts behind are still out.
    Leaving(u64),
    /// Read by one thread.
    Alone,
}

/// If lines were read for so long before an input had to be read alone, that counts as an accident.
const LONG_STRETCH: u64 = 64 << 20;

impl<'r> Board<'r> {
    /// A board on which nothing is done yet.
    pub(super) fn new(rules: Rules<'r>) -> Board<'r> {
        let state = State { next: 0, active: BTreeMap::new(), sent: 0, kept: 0, stopped: false };
        Board { state: Mutex::new(state), changed: Condvar::new(), rules }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panics with the lock held is a bug; the others must still come to an end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, though not for long: an interruption makes no sound.
    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let waited = self.changed.wait_timeout(state, Duration::from_millis(100));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// True if no more work is to be begun.
    pub(super) fn stopping(&self) -> bool {
        self.rules.interrupted.load(Ordering::Relaxed) || self.lock().stopped
    }

    /// Ends all work as soon as can be: nobody wants the results.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// The next piece of work; `None` when there is none left or it was interrupted.
    pub(super) fn claim(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.stopped || self.rules.interrupted.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(task) = state.next_task(&self.rules) {
                return Some(task);
            }
            if state.next == self.rules.inputs && state.active.is_empty() {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// An input has been opened; `None` if it is not to be read.
    pub(super) fn opened(&self, input: usize, source: Option<Opened>, out: &Sender<Message>) {
        let mut state = self.lock();
        match source {
            Some(source) => {
                let base = if let Opened::Bytes(Source::Plain(file)) = &source { file.start } else { 0 };
                state.active.insert(input, Active::new(Phase::Lines, Some(source), base, 0, &self.rules));
            }
            None => state.finish(input, out),
        }
        self.changed.notify_all();
    }

    /// The next block has been cut, the next messages have been taken: another may go on.
    pub(super) fn put_back(&self, input: usize, source: Opened) {
        if let Some(active) = self.lock().active.get_mut(&input) {
            active.source = Some(source);
        }
        self.changed.notify_all();
    }

    /// Hands over what a part has yielded so far. Waits until everything before it stands. Returns its counts; `None` if the
    /// part will not stand, so that the work on it is in vain.
    pub(super) fn hand_over(
        &self,
        input: usize,
        number: u64,
        batch: Batch,
        out: &Sender<Message>,
    ) -> Option<Counts> {
        let mut state = self.lock();
        loop {
            let active = state.active.get(&input)?;
            if active.phase != Phase::Lines || state.stopped {
                return None;
            }
            if active.stands == number && state.has_room(input, &self.rules) {
                return Some(state.send(input, batch, out));
            }
            state = self.wait(state);
        }
    }

    /// Hands over what an input that is read alone has yielded so far. Waits for room unless that could last for ever, because
    /// others wait for something that the caller holds. Returns its counts.
    pub(super) fn hand_over_alone(
        &self,
        input: usize,
        batch: Batch,
        patient: bool,
        out: &Sender<Message>,
    ) -> Counts {
        let mut state = self.lock();
        while patient && !state.has_room(input, &self.rules) {
            state = self.wait(state);
        }
        state.send(input, batch, out)
    }

    /// A part has been judged.
    pub(super) fn end(&self, input: usize, number: u64, outcome: Outcome, out: &Sender<Message>) -> Settled {
        let mut state = self.lock();
        let settled = state.end(input, number, outcome, out);
        self.changed.notify_all();
        settled
    }

    /// An input that was read alone has ended, or its rest can be read by lines again.
    pub(super) fn end_alone(
        &self,
        input: usize,
        rest: Option<(Source, u64)>,
        attempt: u32,
        out: &Sender<Message>,
    ) {
        let mut state = self.lock();
        match rest {
            Some((source, base)) => {
                let decoding = matches!(source, Source::Stream(_));
                let source = Some(Opened::Bytes(source));
                let active = Active::new(Phase::Lines, source, base, attempt, &self.rules);
                state.active.insert(input, Active { decoding, ..active });
            }
            None => state.finish(input, out),
        }
        self.changed.notify_all();
    }

    /// A batch has been taken; it is kept if others come first.
    pub(super) fn taken(&self, size: usize, kept: bool) {
        let mut state = self.lock();
        state.sent -= size;
        state.kept += if kept { size } else { 0 };
        self.changed.notify_all();
    }

    /// A batch that was kept is gone.
    pub(super) fn released(&self, size: usize) {
        self.lock().kept -= size;
        self.changed.notify_all();
    }
}

impl State {
    /// The first input that is not finished.
    fn head(&self) -> usize {
        self.active.keys().next().copied().unwrap_or(self.next)
    }

    /// True if results of the input may be added to those that wait.
    fn has_room(&self, input: usize, rules: &Rules<'_>) -> bool {
        let stopping = self.stopped || rules.interrupted.load(Ordering::Relaxed);
        let kept = self.kept < rules.waiting || !rules.in_order || input == self.head();
        stopping || self.sent < rules.waiting && kept
    }

    fn next_task(&mut self, rules: &Rules<'_>) -> Option<Task> {
        let head = self.head();
        let room = self.sent + self.kept < rules.waiting;
        let decoding = self.active.values().filter(|active| active.decoding).count();
        for (&input, active) in &mut self.active {
            if !room && input != head {
                break;
            }
            if let Some(task) = active.next_task(input, rules, decoding < rules.threads) {
                return Some(task);
            }
        }
        let begin = room && self.active.len() < 2 * rules.threads + 2 || self.active.is_empty();
        if !begin || self.next == rules.inputs {
            return None;
        }
        let input = self.next;
        self.next += 1;
        self.active.insert(input, Active::new(Phase::Opening, None, 0, 0, rules));
        Some(Task::Open(input))
    }

    fn end(&mut self, input: usize, number: u64, mut outcome: Outcome, out: &Sender<Message>) -> Settled {
        let Some(active) = self.active.get_mut(&input) else { return Settled::default() };
        active.ended += 1;
        if let Some(source) = outcome.last.take() {
            active.source = Some(source);
            active.parts = Some(number + 1);
        }
        if let Phase::Leaving(_) = active.phase {
            active.backlog.extend(outcome.block);
            active.backlog.make_contiguous().sort_unstable_by_key(|block| block.offset);
            return Settled::default();
        }
        if outcome.leaves.is_some() {
            active.parts = Some(active.parts.map_or(number + 1, |parts| parts.min(number + 1)));
        }
        self.kept += outcome.batch.size();
        active.early.insert(number, outcome);
        self.settle(input, out)
    }

    /// Hands over the parts of which all before them stand.
    fn settle(&mut self, input: usize, out: &Sender<Message>) -> Settled {
        let mut settled = Settled::default();
        while let Some(active) = self.active.get_mut(&input) {
            let Some(outcome) = active.early.remove(&active.stands) else { break };
            active.stands += 1;
            self.kept -= outcome.batch.size();
            if let Some(from) = outcome.leaves {
                active.phase = Phase::Leaving(from);
                let vain = std::mem::take(&mut active.early);
                self.kept -= vain.values().map(|outcome| outcome.batch.size()).sum::<usize>();
                let blocks = vain.into_values().filter_map(|outcome| outcome.block);
                active.backlog = outcome.block.into_iter().chain(blocks).collect();
            } else {
                settled.buffer = outcome.block.map(|block| block.bytes).or(settled.buffer);
            }
            let last = active.phase == Phase::Lines && active.parts == Some(active.stands);
            settled.counts.push(self.send(input, outcome.batch, out));
            if last {
                self.finish(input, out);
            }
        }
        settled
    }

    /// Sends a batch, without its counts, which are returned.
    fn send(&mut self, input: usize, mut batch: Batch, out: &Sender<Message>) -> Counts {
        let counts = std::mem::take(&mut batch.counts);
        self.sent += batch.size();
        // Nobody listens any more after the output has failed.
        let _ = out.send(Message::Batch(input, Box::new(batch)));
        counts
    }

    fn finish(&mut self, input: usize, out: &Sender<Message>) {
        self.active.remove(&input);
        let _ = out.send(Message::Done(input));
    }
}

impl Active {
    fn new(phase: Phase, source: Option<Opened>, base: u64, attempt: u32, rules: &Rules<'_>) -> Active {
        let parts = match &source {
            // Even an empty file has a part, with which it ends.
            Some(Opened::Bytes(Source::Plain(file))) => {
                Some(file.length.saturating_sub(base).div_ceil(rules.part).max(1))
            }
            Some(Opened::Bytes(Source::Stream(_)) | Opened::Messages(_)) | None => None,
        };
        Active {
            phase,
            source,
            base,
            begun: 0,
            ended: 0,
            stands: 0,
            parts,
            early: BTreeMap::new(),
            backlog: VecDeque::new(),
            attempt,
            decoding: false,
        }
    }

    /// What there is to do for this input now. A new stream is begun only if `decode` allows.
    fn next_task(&mut self, input: usize, rules: &Rules<'_>, decode: bool) -> Option<Task> {
        match self.phase {
            Phase::Opening | Phase::Alone => None,
            Phase::Leaving(from) => {
                if self.begun != self.ended {
                    return None;
                }
                let Some(Opened::Bytes(source)) = self.source.take() else { return None };
                self.phase = Phase::Alone;
                let attempt = if from - self.base >= LONG_STRETCH { 0 } else { self.attempt };
                let backlog = std::mem::take(&mut self.backlog);
                Some(Task::Alone { input, source, from, backlog, attempt })
            }
            Phase::Lines => self.next_part(input, rules, decode),
        }
    }

    fn next_part(&mut self, input: usize, rules: &Rules<'_>, decode: bool) -> Option<Task> {
        let number = self.begun;
        if self.parts.is_some_and(|parts| number >= parts) {
            return None;
        }
        let waiting = number - self.stands;
        let more = waiting <= rules.threads as u64 && (decode || self.decoding);
        match self.source.take() {
            Some(Opened::Bytes(Source::Plain(file))) => {
                self.source = Some(Opened::Bytes(Source::Plain(file.clone())));
                if waiting > 2 * rules.threads as u64 {
                    return None;
                }
                self.begun += 1;
                let start = self.base + number * rules.part;
                let range = start..(start + rules.part).min(file.length);
                Some(Task::Part { input, number, file, range })
            }
            Some(Opened::Bytes(Source::Stream(stream))) if more => {
                self.begun += 1;
                self.decoding = true;
                Some(Task::Block { input, number, stream })
            }
            Some(Opened::Messages(reader)) if more => {
                self.begun += 1;
                self.decoding = true;
                Some(Task::Messages { input, number, reader })
            }
            other => {
                self.source = other;
                None
            }
        }
    }
}
