//! The incident-response command: reads what there is, as fast as the machine can, and tells what was found.
//!
//! Threads read and judge ([`pipeline`]); what they find comes here packed. In the order of time it is sorted twice, first to
//! drop what was met twice, then for the output; correlations judge their steps in between. Memory stays flat whatever the
//! input: what does not fit is sorted on disk, in files that no longer have a name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use detectors::correlate::{Correlator, Stats};
use detectors::engine::{Engine, Found, Step};
use detectors::event::time::Nanos;
use detectors::level::Level;
use detectors::tally::{Dimension, MAX_SAMPLES, Sample, Tally};

use coverage::Coverage;
use pipeline::{Batch, Judge, Message, Scan};
use profile::{Profile, Top};
use sorter::{Sorted, Sorter};

use crate::recent::Recent;
use crate::source::kafka::history::Partition;
use crate::source::plan::{Input, Note, Plan};

mod board;
mod codec;
mod coverage;
mod packed;
mod pipeline;
mod profile;
pub(crate) mod progress;
mod read;
mod sorter;
pub(crate) mod summary;

/// Memory for the sorting of alerts by uuid, of steps, and of alerts by time.
const BUDGETS: [usize; 3] = [12 << 20, 6 << 20, 14 << 20];

/// Memory for correlations.
const CORRELATOR_BUDGET: usize = 16 << 20;

/// How many of the busiest names are reported.
const TOP: usize = 10;

/// How many notes of each kind are kept; the rest are counted.
const MAX_NOTES: usize = 1000;

/// In which order alerts come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// By event time, then uuid, when all is read.
    Time,
    /// As found, in the order of the input; alerts of correlations at the end.
    Input,
}

/// How to replay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Threads that read and judge; at least one.
    pub(crate) threads: usize,
    /// The order of the output.
    pub(crate) order: Order,
}

/// Sizes, in bytes. The outcome does not depend on any of them but `line` and `alone`.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    /// What is read at once.
    block: usize,
    /// What a thread takes of a plain file at once.
    part: u64,
    /// What is judged at once.
    slice: usize,
    /// The longest line that is read as a line; more than `block` by half at least. Longer ones go to the framer.
    line: usize,
    /// What is packed at once.
    batch: usize,
    /// What may wait to be taken.
    waiting: usize,
    /// How far an input is read alone, at least, before it is read by lines again.
    alone: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            block: 256 << 10,
            part: 4 << 20,
            slice: 64 << 10,
            line: 1 << 20,
            batch: 1 << 20,
            waiting: 4 << 20,
            alone: 1 << 20,
        }
    }
}

/// How far a replay has come. Written while it runs, for others to look at.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes on disk that are to be read; standard input and pipes don't count.
    pub(crate) total: AtomicU64,
    /// Bytes on disk that have been read.
    pub(crate) done: AtomicU64,
    /// Messages of partitions that are to be read.
    pub(crate) messages_total: AtomicU64,
    /// Messages that have been read.
    pub(crate) messages: AtomicU64,
    /// Decoded bytes that have been read.
    pub(crate) decoded: AtomicU64,
    /// Records seen.
    pub(crate) records: AtomicU64,
    /// Alerts found, duplicates among them.
    pub(crate) alerts: AtomicU64,
}

/// Things to tell about inputs.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The first of them, in the order of the inputs.
    pub(crate) list: Vec<Note>,
    /// How many there are.
    pub(crate) total: u64,
}

/// What a replay did.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Inputs that were read, damaged ones among them.
    pub(crate) files: u64,
    /// Those of them that are partitions of topics.
    pub(crate) partitions: u64,
    /// Inputs that were left out on purpose.
    pub(crate) skipped: Notes,
    /// Inputs that could not be read.
    pub(crate) unreadable: Notes,
    /// What is wrong with inputs that were read as far as could be.
    pub(crate) damaged: Notes,
    /// Records of every format, and bad ones.
    pub(crate) records: u64,
    /// Decoded bytes.
    pub(crate) bytes: u64,
    /// Messages without a payload.
    pub(crate) empty: u64,
    /// What was seen. `minutes` is empty: it went into `range` and `gaps`.
    pub(crate) tally: Tally,
    /// Alerts that were found again.
    pub(crate) duplicates: u64,
    /// The first and last event times.
    pub(crate) range: Option<(Nanos, Nanos)>,
    /// Silences of more than five minutes: the last event before and the first after each.
    pub(crate) gaps: Vec<(Nanos, Nanos)>,
    /// True if the times were so scattered that some gaps may not be real.
    pub(crate) gaps_approximate: bool,
    /// The busiest actors.
    pub(crate) actors: Top,
    /// The busiest sources.
    pub(crate) sources: Top,
    /// The busiest namespaces.
    pub(crate) namespaces: Top,
    /// Alerts that came out, by level.
    pub(crate) by_level: BTreeMap<Level, u64>,
    /// Alerts that came out, by detector (an index into [`Engine::detectors`]).
    pub(crate) by_detector: BTreeMap<(u32, Level), u64>,
    /// What the correlations went through.
    pub(crate) correlation: Stats,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// It was ended before all was read.
    pub(crate) interrupted: bool,
}

/// Takes an alert.
pub(crate) type Emit<'e> = &'e mut dyn FnMut(&Found) -> io::Result<()>;

/// Which alerts are wanted.
pub(crate) type Keep<'k> = &'k (dyn Fn(&Found) -> bool + Sync);

/// Reads what the plan names and emits the alerts that `keep` keeps. When `interrupted` is set, what was found until then
/// still comes out. A closed pipe behind `emit` ends the replay quietly.
///
/// # Errors
/// `emit` failed, or a temporary file could not be written or read.
pub(crate) fn run(
    plan: Plan,
    engine: &Engine,
    options: &Options,
    keep: Keep<'_>,
    progress: &Progress,
    interrupted: &AtomicBool,
    emit: Emit<'_>,
) -> Result<Report> {
    let replay = Replay { options, keep, progress, interrupted, tuning: Tuning::default() };
    replay.run(plan, &|| engine.worker(), engine.correlator(CORRELATOR_BUDGET), emit)
}

/// A replay by any judge.
struct Replay<'r> {
    options: &'r Options,
    keep: Keep<'r>,
    progress: &'r Progress,
    interrupted: &'r AtomicBool,
    tuning: Tuning,
}

impl Replay<'_> {
    fn run<J: Judge>(
        &self,
        plan: Plan,
        judge: &(dyn Fn() -> J + Sync),
        correlator: Correlator,
        emit: Emit<'_>,
    ) -> Result<Report> {
        let begun = Instant::now();
        let total = plan.inputs.iter().map(|input| input.size).sum();
        self.progress.total.store(total, Ordering::Relaxed);
        let messages = plan.inputs.iter().filter_map(Input::partition).map(Partition::messages);
        let messages = messages.fold(0, u64::saturating_add);
        self.progress.messages_total.store(messages, Ordering::Relaxed);
        let profile = Profile::default();
        let scan = Scan {
            inputs: &plan.inputs,
            threads: self.options.threads.max(1),
            in_order: self.options.order == Order::Input,
            keep: self.keep,
            profile: &profile,
            interrupted: self.interrupted,
            tuning: self.tuning,
        };
        let mut collector = Collector::new(self, emit);
        let result = scan
            .run(judge, &mut |message| collector.take(message))
            .and_then(|()| collector.correlate(correlator))
            .and_then(|()| collector.emit_sorted());
        let mut report = collector.report(plan);
        report.actors = profile.top(Dimension::Actor, TOP);
        report.sources = profile.top(Dimension::Source, TOP);
        report.namespaces = profile.top(Dimension::Namespace, TOP);
        report.elapsed = begun.elapsed();
        report.interrupted = self.interrupted.load(Ordering::Relaxed);
        match result {
            Err(error) if closed(&error) => Ok(report),
            Err(error) => Err(error),
            Ok(()) => Ok(report),
        }
    }
}

/// Where a sample stands in its input. A record of several in a message is called by the message: `k8s-audit/3@1234`.
fn place(sample: &Sample) -> (u64, u64) {
    let message = sample.input.rsplit_once('@').and_then(|(_, message)| message.parse().ok());
    message.map_or((sample.offset, 0), |message| (message, sample.offset))
}

/// True if the reader of our output has gone.
fn closed(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Everything that the threads found comes here.
struct Collector<'r, 'e> {
    replay: &'r Replay<'r>,
    emit: Emit<'e>,
    report: Report,
    coverage: Coverage,
    /// Samples by input and place in it, of which the first are kept.
    samples: BTreeMap<(usize, u64, u64), Sample>,
    skipped: BTreeMap<usize, String>,
    unreadable: BTreeMap<usize, String>,
    damaged: BTreeSet<(usize, Option<u64>, String)>,
    /// Inputs that have come to their end.
    done: Vec<usize>,
    /// Alerts by uuid, then time and place.
    first: Sorter,
    steps: Sorter,
    /// Alerts by time, then uuid.
    output: Sorter,
    recent: Recent,
}

/// What to say when sorting on disk fails.
const TEMPORARY: &str = "a temporary file failed; set TMPDIR to a directory with more room";

impl<'r, 'e> Collector<'r, 'e> {
    fn new(replay: &'r Replay<'r>, emit: Emit<'e>) -> Self {
        let [first, steps, output] = BUDGETS.map(Sorter::new);
        Collector {
            replay,
            emit,
            report: Report::default(),
            coverage: Coverage::default(),
            samples: BTreeMap::new(),
            skipped: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            damaged: BTreeSet::new(),
            done: Vec::new(),
            first,
            steps,
            output,
            recent: Recent::default(),
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Batch(input, batch) => return self.batch(input, *batch),
            Message::Done(input) => self.done.push(input),
            Message::Skipped(input, reason) => {
                self.skipped.insert(input, reason);
            }
            Message::Unreadable(input, reason) => {
                self.unreadable.insert(input, reason);
            }
            Message::Damaged(input, offset, reason) => {
                self.damaged.insert((input, offset, reason));
                if self.damaged.len() > MAX_NOTES {
                    self.damaged.pop_last();
                    self.report.damaged.total += 1;
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self, input: usize, batch: Batch) -> Result<()> {
        let Batch { packed, mut tally, bytes, taken, .. } = batch;
        let progress = self.replay.progress;
        progress.done.fetch_add(taken.bytes, Ordering::Relaxed);
        progress.messages.fetch_add(taken.messages, Ordering::Relaxed);
        progress.decoded.fetch_add(bytes, Ordering::Relaxed);
        progress.records.fetch_add(tally.records(), Ordering::Relaxed);
        progress.alerts.fetch_add(packed.count, Ordering::Relaxed);
        self.report.bytes += bytes;
        self.report.empty += taken.empty;
        for (first, last) in std::mem::take(&mut tally.minutes).into_values() {
            self.coverage.add(first, last);
        }
        for sample in std::mem::take(&mut tally.samples) {
            let (first, second) = place(&sample);
            self.samples.insert((input, first, second), sample);
        }
        while self.samples.len() > MAX_SAMPLES {
            self.samples.pop_last();
        }
        self.report.tally.merge(tally);
        for (key, body) in packed.steps() {
            // A step's bytes are part of its key: equal times need an order too.
            self.steps.push(&[key, body].concat(), &[]).context(TEMPORARY)?;
        }
        for (key, body) in packed.alerts() {
            match self.replay.options.order {
                Order::Time => self.first.push(key, body).context(TEMPORARY)?,
                Order::Input if self.recent.insert(packed::uuid_of(key)) => {
                    let found = packed::unpack(packed::time_of(&key[16..]), body)?;
                    self.emit(&found)?;
                }
                Order::Input => self.report.duplicates += 1,
            }
        }
        Ok(())
    }

    fn emit(&mut self, found: &Found) -> Result<()> {
        (self.emit)(found).context("cannot write alerts")?;
        *self.report.by_level.entry(found.alert.level).or_default() += 1;
        *self.report.by_detector.entry((found.detector, found.alert.level)).or_default() += 1;
        Ok(())
    }

    /// Puts the steps before the correlations in the order of time.
    fn correlate(&mut self, mut correlator: Correlator) -> Result<()> {
        let mut steps = std::mem::replace(&mut self.steps, Sorter::new(0)).finish().context(TEMPORARY)?;
        let mut found = Vec::new();
        while let Some((key, _)) = steps.next().context(TEMPORARY)? {
            let (time, bytes) = key.split_at(8);
            correlator.push(&Step { time: packed::time_of(time), bytes: bytes.to_vec() }, &mut found);
            self.correlated(&mut found)?;
        }
        correlator.finish(&mut found);
        self.correlated(&mut found)?;
        self.report.correlation = correlator.stats();
        Ok(())
    }

    fn correlated(&mut self, alerts: &mut Vec<Found>) -> Result<()> {
        for found in alerts.drain(..).filter(|found| (self.replay.keep)(found)) {
            self.replay.progress.alerts.fetch_add(1, Ordering::Relaxed);
            let mut body = Vec::new();
            packed::pack(&found, &mut body);
            let key = packed::output_key(found.time, found.alert.uuid.as_bytes());
            self.output.push(&key, &body).context(TEMPORARY)?;
        }
        Ok(())
    }

    /// Drops duplicates and emits in the order of time.
    fn emit_sorted(&mut self) -> Result<()> {
        let mut first = self.take_sorted(|collector| &mut collector.first)?;
        let mut last = None;
        while let Some((key, body)) = first.next().context(TEMPORARY)? {
            let uuid = packed::uuid_of(key);
            if last.replace(uuid) == Some(uuid) {
                self.report.duplicates += 1;
            } else {
                self.output.push(&packed::output_key_of(key), body).context(TEMPORARY)?;
            }
        }
        drop(first);
        let mut output = self.take_sorted(|collector| &mut collector.output)?;
        while let Some((key, body)) = output.next().context(TEMPORARY)? {
            let found = packed::unpack(packed::time_of(key), body)?;
            self.emit(&found)?;
        }
        Ok(())
    }

    fn take_sorted(&mut self, which: impl Fn(&mut Self) -> &mut Sorter) -> Result<Sorted> {
        std::mem::replace(which(self), Sorter::new(0)).finish().context(TEMPORARY)
    }

    fn report(self, plan: Plan) -> Report {
        let mut report = self.report;
        let Plan { inputs, skipped, unreadable } = plan;
        let name = |input: usize| inputs[input].name.clone();
        let note = |(input, reason)| Note { input: name(input), reason };
        let read = |input: &usize| !self.skipped.contains_key(input) && !self.unreadable.contains_key(input);
        let read: Vec<usize> = self.done.into_iter().filter(read).collect();
        let is_partition = |input: &usize| inputs[*input].partition().is_some();
        report.files = read.len() as u64;
        report.partitions = read.iter().filter(|input| is_partition(input)).count() as u64;
        report.skipped = Notes::new(skipped.into_iter().chain(self.skipped.into_iter().map(note)));
        report.unreadable = Notes::new(unreadable.into_iter().chain(self.unreadable.into_iter().map(note)));
        let more = report.damaged.total;
        report.damaged = Notes::new(self.damaged.into_iter().map(|(input, offset, reason)| {
            let unit = if is_partition(&input) { "offset" } else { "byte" };
            let place = offset.map(|offset| format!("at {unit} {offset}: ")).unwrap_or_default();
            Note { input: name(input), reason: format!("{place}{reason}") }
        }));
        report.damaged.total += more;
        report.tally.samples = self.samples.into_values().collect();
        report.records = report.tally.records();
        report.range = self.coverage.range();
        report.gaps = self.coverage.gaps();
        report.gaps_approximate = self.coverage.approximate();
        report
    }
}

impl Notes {
    fn new(notes: impl Iterator<Item = Note>) -> Notes {
        let mut all = Notes::default();
        for note in notes {
            all.total += 1;
            if all.list.len() < MAX_NOTES {
                all.list.push(note);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
