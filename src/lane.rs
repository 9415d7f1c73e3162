//! The one path of a live run: read, detect, make durable, acknowledge.
//!
//! Guarantees:
//!
//! - A batch's alerts, its steps and its input's position are appended to the log together; only then is it acknowledged.
//! - Without a state directory, a batch from a topic is acknowledged once every output has what it caused: the topic keeps it
//!   until then.
//! - While the log cannot be written, or the spool of an output is full, nothing is acknowledged and nothing more is read:
//!   the channel from the sources fills up, and they wait. (A topic is read and judged up to 256 MiB ahead of that.)
//! - An alert that the log has had lately is not appended again: input that comes twice causes no second alert.
//! - No clock decides what is found. The clock says when positions are written although nothing was found.
//!
//! Stop is a value: the sources are told to stop, their ends of the channel close, and the lane has ended when it has handled
//! what they left. Completion is the closed channel.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use detectors::correlate::record::{Codec, Record as Match};
use detectors::correlate::{Correlator, Stats};
use detectors::engine::{Emitted, Engine, Found, Step, Worker};
use detectors::event::time::{self, Nanos};
use detectors::integrity::{self, Incident};
use detectors::level::Level;
use detectors::tally::{Format, Tally};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::delivery::dead::{Dead, Rejected};
use crate::delivery::log::{Log, RuleTag};
use crate::delivery::spool::Spools;
use crate::delivery::{Entry, Record};
use crate::live::{Input, Live};
use crate::matches::{Matches, Role};
use crate::pulse::Pulse;
use crate::recent::Recent;
use crate::server::{Heartbeat, Readiness};
use crate::sink;
use crate::source::{Batch, Content, Delivery, Handled, Messages, Notice, What};
use crate::stream::{DEAD_LETTERS, Judged, Stream};
use crate::telemetry::Telemetry;
use crate::text;

mod fleet;

/// Positions are written this often although nothing was found.
const COMMIT: Duration = Duration::from_secs(5);
/// Or after so many records.
const COMMIT_RECORDS: u64 = 50_000;
/// What is judged before it is made durable: of what waits, so that a backlog takes few syncs, and what comes now takes no delay.
const GATHER: usize = 4 << 20;
/// The memory of the correlations' windows.
const WINDOWS: usize = 24 << 20;
/// The same where the events of a fleet are counted.
const WIDE_WINDOWS: usize = 128 << 20;
/// How many batches may wait until outputs have what they caused.
const MOST_OWED: usize = 10_000;
/// How often it is looked whether they have.
const OWED: Duration = Duration::from_millis(20);
/// The first pause before another try to write the log.
const SHORTEST: Duration = Duration::from_millis(20);
/// The longest.
const PATIENCE: Duration = Duration::from_secs(5);
/// An input of which nothing has come for so long holds back no clock.
const IDLE: Duration = Duration::from_secs(30);
/// Why a member of a fleet does not take other correlations.
const OTHER_LOGIC: &str = "correlations, their logic or the fields that they show have changed: all members of a fleet need the \
                           same, so stop those that detect, wait until nobody lags behind, and start all anew";
/// Alerts about the run itself are raised once in this time for each input or output and kind.
const INCIDENTS: Duration = Duration::from_secs(60);

/// What the lane is told by others than sources.
pub(crate) enum Order {
    /// Judge with other detectors from the next batch on.
    Reload(Box<Judging>, oneshot::Sender<io::Result<()>>),
    /// Raise an alert about the run.
    Raise(Raised),
    /// These are the outputs, and there are no others. The log remembers it, so that one whose cursor is lost is not taken for
    /// a new one.
    Outputs(Vec<String>),
}

/// Something about the run that an operator must know.
#[derive(Debug, Clone)]
pub(crate) struct Raised {
    /// `integrity/<what>`.
    pub(crate) detector: &'static str,
    /// The input or a part of it, or the output.
    pub(crate) of: String,
    /// One sentence.
    pub(crate) message: String,
    /// What tells it from others of its kind.
    pub(crate) identity: String,
}

/// How events are judged.
pub(crate) struct Judging {
    /// The detectors.
    pub(crate) engine: Arc<Engine>,
    /// Alerts below this level are not forwarded.
    pub(crate) min_level: Option<Level>,
}

/// What a lane works with.
pub(crate) struct Parts {
    /// Which part of the work it does.
    pub(crate) role: Role,
    /// Where matches go that others count, unless it counts itself.
    pub(crate) matches: Option<Matches>,
    /// What sources say.
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
    /// What others say.
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Told which detectors are in force.
    pub(crate) engines: watch::Sender<Arc<Engine>>,
    /// Set when no more time is to be spent on what cannot be made durable.
    pub(crate) stop: watch::Receiver<bool>,
    /// Where it all goes.
    pub(crate) log: Log,
    /// It outlives the process.
    pub(crate) durable: bool,
    /// Where bad records go.
    pub(crate) dead: Arc<Dead>,
    /// How far the outputs are.
    pub(crate) spools: Spools,
    /// The uuids of the last alerts in the log.
    pub(crate) recent: Recent,
    /// Told the latest event time.
    pub(crate) latest: watch::Sender<Nanos>,
    /// Counters.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Touched as long as the lane turns.
    pub(crate) heartbeat: Heartbeat,
    /// Told what keeps the lane from its work.
    pub(crate) readiness: Readiness,
}

/// What a lane has to know of its inputs.
pub(crate) struct Inputs {
    /// How many there are.
    open: usize,
    /// Those that have positions.
    positioned: Vec<Arc<str>>,
    /// Those of which the log knows one.
    known: HashSet<Arc<str>>,
}

impl Inputs {
    /// The inputs of a live run, and the positions in the log.
    pub(crate) fn of(live: &Live, positions: &BTreeMap<String, String>) -> Inputs {
        let files = live.inputs.iter().filter(|input| matches!(input, Input::File(_)));
        Inputs {
            open: live.inputs.len(),
            positioned: files.map(|input| Arc::from(input.name())).collect(),
            known: positions.keys().map(|input| Arc::from(input.as_str())).collect(),
        }
    }
}

/// The lane.
pub(crate) struct Lane {
    parts: Parts,
    /// What matches are to others.
    codec: Codec,
    /// Streams on which a value has begun and not ended, or that are framed.
    streams: HashMap<(Arc<str>, Arc<str>), Stream>,
    /// Positions that are not yet in the log.
    positions: BTreeMap<Arc<str>, String>,
    /// Records since positions were written, and when that was.
    since: u64,
    committed: Instant,
    /// The latest event time of the last batch of each input.
    latest: HashMap<Arc<str>, Nanos>,
    /// The same of each input that is read in order, which is a partition of a topic or all else of an input, and when that was.
    clocks: HashMap<Arc<str>, (Nanos, Instant)>,
    /// Inputs whose position is in the log.
    known: HashSet<Arc<str>>,
    /// Inputs that have positions and of which none is in the log yet: the run is ready once it knows where they begin.
    positioned: Vec<Arc<str>>,
    /// Something could not be made durable before the time to end had come: nothing may be acknowledged any more.
    given_up: bool,
    /// Batches that are acknowledged once every output has what they caused: the number of their record, and their replies.
    owed: VecDeque<(u64, Vec<Reply>)>,
    /// When what was raised last, and how often it happened since.
    raised: HashMap<(&'static str, String), (Instant, u64)>,
    /// What the correlator has gone through, as it was told last.
    stats: Stats,
    /// When something came of each input.
    pulses: HashMap<Arc<str>, Pulse>,
    /// Inputs that have not ended by themselves.
    open: usize,
    /// The state directory was where it belongs when it was looked at last.
    in_place: bool,
}

/// How a batch was handled, and who waits for it.
type Reply = (oneshot::Sender<Handled>, Handled);

/// What a gathered stretch of input came to.
#[derive(Default)]
struct Yield {
    /// Steps that others take.
    matches: Vec<Match>,
    record: Record,
    replies: Vec<Reply>,
    /// Those of topics, which can be read again for as long as they are not acknowledged.
    patient: Vec<Reply>,
    rejected: Vec<Rejected>,
    /// The room that the bytes take until what they caused is durable.
    rooms: Vec<OwnedSemaphorePermit>,
}

/// What a stretch of input is of.
struct Of<'i> {
    input: &'i Arc<str>,
    /// What is read in order: the input, or a partition of it.
    clock: &'i Arc<str>,
    cluster: Option<&'i Arc<str>>,
    bytes: usize,
}

/// Why something is appended to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Something was found.
    Found,
    /// Positions are due.
    Due,
    /// The run has something to say of itself.
    Raised,
}

/// Why the lane stopped judging with an engine.
enum Next {
    Reload(Box<Judging>, oneshot::Sender<io::Result<()>>),
    End,
}

impl Lane {
    /// A lane for these inputs.
    pub(crate) fn new(parts: Parts, inputs: Inputs) -> Lane {
        let Inputs { open, positioned, known } = inputs;
        for input in &positioned {
            parts.readiness.set(Readiness::position(input), false);
        }
        Lane {
            parts,
            codec: Codec::new(std::iter::empty()),
            streams: HashMap::new(),
            positions: BTreeMap::new(),
            since: 0,
            committed: Instant::now(),
            latest: HashMap::new(),
            clocks: HashMap::new(),
            known,
            positioned,
            given_up: false,
            owed: VecDeque::new(),
            raised: HashMap::new(),
            stats: Stats::default(),
            pulses: HashMap::new(),
            open,
            in_place: true,
        }
    }

    /// Works until the sources have gone. Returns the log, which outputs may still have to read.
    pub(crate) async fn run(mut self, first: Judging) -> io::Result<Log> {
        let mut judging = first;
        let mut correlator = self.restored(&judging.engine)?;
        loop {
            self.stats = correlator.stats();
            self.codec = Codec::new(judging.engine.correlations());
            self.parts.telemetry.detectors(judging.engine.detectors());
            self.parts.engines.send_if_modified(|known| {
                !Arc::ptr_eq(&std::mem::replace(known, Arc::clone(&judging.engine)), &judging.engine)
            });
            self.parts.readiness.set(Readiness::DETECTORS, true);
            self.tell_ready();
            match self.judge_with(&judging, &mut correlator).await {
                Next::End => {
                    self.end(&judging, &mut correlator).await;
                    return Ok(self.parts.log);
                }
                // Whoever asked has given up waiting, and goes on with what was before.
                Next::Reload(_, reply) if reply.is_closed() => {}
                // One member must not change what others count, and windows are read from the topic at a start only.
                Next::Reload(new, reply)
                    if self.parts.role != Role::All && !new.engine.adapt(&mut correlator) =>
                {
                    let _ = reply.send(Err(io::Error::other(OTHER_LOGIC))); // nothing has changed
                }
                Next::Reload(new, reply) if self.parts.role == Role::Correlate => {
                    judging = *new;
                    let _ = reply.send(Ok(())); // the outcome is what it was anyway
                }
                Next::Reload(new, reply) => {
                    let changed = self.changed(&new.engine).and_then(|()| self.restored(&new.engine));
                    match changed {
                        // It counts only if whoever asked still waits for it, and so will know.
                        Ok(restored) => {
                            if reply.send(Ok(())).is_ok() {
                                (judging, correlator) = (*new, restored);
                            } else {
                                self.back_to(&judging.engine);
                            }
                        }
                        Err(error) => {
                            self.back_to(&judging.engine);
                            let _ = reply.send(Err(error)); // the outcome is what it was anyway
                        }
                    }
                }
            }
        }
    }

    /// A correlator as it was: the steps in the log, without what they fired then.
    fn restored(&self, engine: &Engine) -> io::Result<Correlator> {
        let mut correlator = match self.parts.role {
            Role::Correlate => return Ok(engine.correlator(WIDE_WINDOWS).partial()),
            Role::All | Role::Detect => engine.correlator(WINDOWS),
        };
        let mut fired = Vec::new();
        self.parts.log.steps(&mut |step| {
            correlator.push(&step, &mut fired);
            fired.clear();
        })?;
        Ok(correlator)
    }

    /// The old detectors stay in force. The next append tries again what the log cannot do now.
    fn back_to(&mut self, engine: &Engine) {
        if let Err(error) = self.changed(engine) {
            self.parts.telemetry.durability_error("the log", &error);
        }
    }

    /// Begins a segment of the log for other detectors.
    fn changed(&mut self, engine: &Engine) -> io::Result<()> {
        self.parts.log.rules_changed(rule_tags(engine))
    }

    async fn judge_with(&mut self, judging: &Judging, correlator: &mut Correlator) -> Next {
        let mut worker = judging.engine.worker().with_samples(DEAD_LETTERS).without_profile();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.parts.stop.clone();
        let mut held = None;
        loop {
            if self.given_up {
                return Next::End;
            }
            let delivery = match held.take() {
                Some(delivery) => delivery,
                None => tokio::select! {
                    biased;
                    Some(order) = self.parts.orders.recv() => match order {
                        Order::Reload(new, reply) => return Next::Reload(new, reply),
                        Order::Outputs(names) => {
                            self.outputs(&names).await;
                            continue;
                        }
                        Order::Raise(raised) => {
                            self.raise(judging, raised).await;
                            continue;
                        }
                    },
                    () = stopped(&mut stop) => {
                        self.given_up = true; // a source does not end
                        continue;
                    }
                    () = tokio::time::sleep(OWED), if !self.owed.is_empty() => {
                        self.settle(usize::MAX).await;
                        continue;
                    }
                    _ = tick.tick() => {
                        self.tick(judging, correlator).await;
                        continue;
                    }
                    delivery = self.parts.deliveries.recv() => match delivery {
                        Some(delivery) => delivery,
                        None => return Next::End,
                    },
                },
            };
            match delivery {
                first @ (Delivery::Batch(_) | Delivery::Messages(_)) => {
                    held = self.batches(judging, correlator, &mut worker, first).await;
                }
                Delivery::Notice(notice) => self.notice(judging, &notice).await,
                Delivery::End { input } => {
                    tracing::info!(%input, "the input has ended");
                    self.pulses.remove(&input);
                    self.open = self.open.saturating_sub(1);
                }
            }
        }
    }

    /// Handles a batch and those that wait behind it. Returns what is no batch.
    async fn batches(
        &mut self,
        judging: &Judging,
        correlator: &mut Correlator,
        worker: &mut Worker<'_>,
        first: Delivery,
    ) -> Option<Delivery> {
        let began = Instant::now();
        let mut done = Yield::default();
        let mut gathered = 0;
        let mut next = Some(first);
        loop {
            match next {
                Some(Delivery::Batch(batch)) => {
                    gathered += batch.bytes.len();
                    self.judge(judging, correlator, worker, batch, &mut done);
                }
                Some(Delivery::Messages(messages)) => {
                    gathered += messages.content.weight();
                    self.messages(judging, correlator, messages, &mut done);
                }
                _ => break,
            }
            next = if gathered < GATHER { self.parts.deliveries.try_recv().ok() } else { None };
        }
        if let Some(raised) = self.put_aside(std::mem::take(&mut done.rejected)).await {
            let alert = self.incident(judging, &raised);
            done.record.alerts.extend(alert);
        }
        let matches = std::mem::take(&mut done.matches);
        if self.given_up || !self.write(matches).await {
            return None; // what was not put aside, or not written, must be read again
        }
        // Where an input begins must be known at once: an end that is forgotten would be another one at the next start.
        let new = self.positions.keys().any(|input| !self.known.contains(input));
        let due = new || self.since >= COMMIT_RECORDS || self.committed.elapsed() >= COMMIT;
        if self.append(&mut done.record, if due { Why::Due } else { Why::Found }).await {
            self.parts.telemetry.processed(began.elapsed());
            answer(done.replies);
            if self.parts.durable {
                answer(done.patient);
            } else if !done.patient.is_empty() {
                self.owed.push_back((self.parts.log.tail().seq(), done.patient));
                self.settle(MOST_OWED).await;
            }
        }
        next
    }

    /// Judges a batch: alerts and steps go to the record, positions are remembered.
    fn judge(
        &mut self,
        judging: &Judging,
        correlator: &mut Correlator,
        worker: &mut Worker<'_>,
        mut batch: Batch,
        done: &mut Yield,
    ) {
        let key = (Arc::clone(&batch.input), Arc::clone(&batch.stream));
        let mut stream = self.streams.remove(&key).unwrap_or_default();
        let (mut judged, mut died) = (Judged::default(), Vec::new());
        stream.judge(worker, &batch, &mut judged.emitted, &mut died);
        if !batch.last && stream.is_framed() {
            self.streams.insert(key, stream);
        }
        judged.tally = worker.take_tally();
        let samples = std::mem::take(&mut judged.tally.samples);
        judged.put_aside(&batch.input, samples, died, |_, offset, length| batch.part(offset, length));
        let Batch { input, cluster, bytes, .. } = &batch;
        let of = Of { input, clock: input, cluster: cluster.as_ref(), bytes: bytes.len() };
        let handled = self.take(judging, correlator, &of, &judging.engine, judged, done);
        if let Some(position) = batch.position.take()
            && !self.is_open(&batch.input)
        {
            self.positions.insert(Arc::clone(&batch.input), position);
        }
        done.rooms.extend(batch.room.take());
        done.replies.extend(batch.reply.take().map(|reply| (reply, handled)));
    }

    /// Takes what was read of a partition.
    fn messages(
        &mut self,
        judging: &Judging,
        correlator: &mut Correlator,
        messages: Messages,
        done: &mut Yield,
    ) {
        let Messages { input, stream, cluster, bytes, content, reply, room } = messages;
        let of = Of { input: &input, clock: &stream, cluster: cluster.as_ref(), bytes };
        if bytes == 0 {
            // What follows in a partition that has just been given to us is not late.
            self.clocks.insert(Arc::clone(&stream), (Nanos::MIN, Instant::now()));
        }
        let handled = match content {
            Content::Judged(by, judged) => self.take(judging, correlator, &of, &by, *judged, done),
            Content::Payloads(gathered) => self.correlate(judging, correlator, &of, &gathered, done),
        };
        done.rooms.extend(room);
        done.patient.extend(reply.map(|reply| (reply, handled)));
    }

    /// Acknowledges what all outputs have, until no more than so many are owed that.
    async fn settle(&mut self, most: usize) {
        let mut stop = self.parts.stop.clone();
        loop {
            let passed = self.parts.spools.passed().unwrap_or(u64::MAX);
            while let Some((_, replies)) = self.owed.pop_front_if(|(seq, _)| *seq <= passed) {
                answer(replies);
            }
            if self.owed.len() <= most {
                return;
            }
            self.parts.heartbeat.touch();
            self.parts.telemetry.backpressure(OWED);
            tokio::select! {
                () = stopped(&mut stop) => {
                    self.given_up = true;
                    return;
                }
                () = tokio::time::sleep(OWED) => {}
            }
        }
    }

    /// Takes what these detectors have found in events. Their matches are counted here, or become records for those who count.
    fn take(
        &mut self,
        judging: &Judging,
        correlator: &mut Correlator,
        of: &Of<'_>,
        by: &Arc<Engine>,
        judged: Judged,
        done: &mut Yield,
    ) -> Handled {
        let latest = latest(&judged.tally);
        self.heard(of, judged.tally.records(), latest);
        correlator.hold(self.behind());
        let handled = self.account(of, by, &judged);
        done.rejected.extend(judged.rejected);
        // Others have come into force meanwhile: the rules that steps refer to may be gone, or have other numbers.
        let other = (!Arc::ptr_eq(by, &judging.engine)).then(|| Codec::new(by.correlations()));
        let mut alerts = Vec::new();
        for emitted in judged.emitted {
            match emitted {
                Emitted::Alert(mut found) => {
                    if let Some(cluster) = of.cluster {
                        found.alert.cluster = Some(cluster.to_string());
                    }
                    alerts.push(*found);
                }
                Emitted::Step(step) => {
                    let Some(step) = self.todays(step, other.as_ref()) else { continue };
                    if self.parts.role == Role::Detect {
                        done.matches.extend(self.codec.pack(&step));
                    } else {
                        correlator.push(&step, &mut alerts);
                        done.record.steps.push(step);
                    }
                }
            }
        }
        if let Some(latest) = latest {
            // The batch's own time, once: the clock believes what most agree on, and nobody may be heard twice.
            correlator.advance(latest, &mut alerts);
        }
        for found in &alerts {
            self.keep(judging, found, &mut done.record);
        }
        handled
    }

    /// A step of other rules as one of today's, if its rule is among them.
    fn todays(&self, step: Step, other: Option<&Codec>) -> Option<Step> {
        let Some(other) = other else { return Some(step) };
        self.codec.unpack(&other.pack(&step)?.value).ok()
    }

    /// Notes that something has come of an input, and how far that is.
    fn heard(&mut self, of: &Of<'_>, records: u64, latest: Option<Nanos>) {
        self.since += records;
        let now = Instant::now();
        if records > 0 {
            self.pulses.entry(Arc::clone(of.input)).or_insert_with(|| Pulse::new(now)).beat(now);
        }
        if let Some(latest) = latest {
            self.latest.insert(Arc::clone(of.input), latest);
            self.parts.telemetry.last_event(of.input, latest);
            self.clocks.insert(Arc::clone(of.clock), (latest, now));
        }
    }

    fn is_open(&self, input: &Arc<str>) -> bool {
        self.streams.iter().any(|((of, _), stream)| of == input && stream.is_open())
    }

    /// Puts an alert in the record unless it is not wanted or was there lately.
    fn keep(&mut self, judging: &Judging, found: &Found, record: &mut Record) {
        let alert = &found.alert;
        let telemetry = &self.parts.telemetry;
        if judging.min_level.is_some_and(|least| alert.level < least) {
            return telemetry.suppressed("min_level", 1);
        }
        if !self.parts.recent.insert(alert.uuid) {
            return telemetry.suppressed("duplicate", 1);
        }
        telemetry.alert(&alert.detector, alert.level);
        record.alerts.push(Entry { uuid: alert.uuid, json: sink::native(alert) });
    }

    /// Counts what a stretch of input held.
    fn account(&self, of: &Of<'_>, by: &Engine, judged: &Judged) -> Handled {
        let (telemetry, tally) = (&self.parts.telemetry, &judged.tally);
        for (format, records) in &tally.formats {
            telemetry.records(of.input, format.name(), *records);
        }
        telemetry.bytes(of.input, of.bytes as u64);
        telemetry.partial(of.input, tally.partial);
        for (detector, events) in &tally.blind {
            telemetry.blind(&by.detectors()[*detector as usize].name, *events);
        }
        let unrecognized = tally.formats.get(&Format::Unrecognized).copied().unwrap_or(0);
        let bad = tally.bad + judged.died + unrecognized;
        telemetry.bad(of.input, bad);
        if judged.rejected.len() >= DEAD_LETTERS {
            let kept = judged.rejected.len() as u64;
            telemetry.input_dead_letters_dropped(of.input, bad.saturating_sub(kept));
        }
        Handled { records: tally.records() - tally.bad - unrecognized, bad }
    }

    /// Remembers in the log which outputs there are.
    async fn outputs(&mut self, names: &[String]) {
        let keys: HashSet<Arc<str>> = names.iter().map(|name| Arc::from(output_key(name))).collect();
        for gone in self.known.iter().filter(|key| key.starts_with(OUTPUT) && !keys.contains(*key)) {
            self.positions.insert(Arc::clone(gone), GONE.to_owned());
        }
        for key in keys {
            self.positions.insert(key, HERE.to_owned());
        }
        self.append(&mut Record::default(), Why::Due).await;
    }

    /// Writes records that are no events to the dead letters. Returns what is to be said of it.
    async fn put_aside(&mut self, rejected: Vec<Rejected>) -> Option<Raised> {
        let first = rejected.first()?;
        let raised = Raised {
            detector: "integrity/dead-letter",
            of: first.input.clone(),
            message: format!(
                "{} at offset {}: {}; it is in the dead letters",
                first.stream, first.offset, first.reason
            ),
            identity: format!("{}\0{}\0{:?}", first.stream, first.offset, first.sha256),
        };
        for one in &rejected {
            self.parts.telemetry.input_dead_letter(&one.input);
        }
        let (mut pause, mut stop) = (SHORTEST, self.parts.stop.clone());
        while let Err(error) = self.parts.dead.reject_records(&rejected) {
            self.parts.telemetry.durability_error("the dead letters", &error);
            self.parts.heartbeat.touch();
            tokio::select! {
                () = stopped(&mut stop) => {
                    self.given_up = true;
                    return None;
                }
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PATIENCE),
            }
            self.trim();
        }
        Some(raised)
    }

    /// Makes a record durable, however long that takes. False if the run ends first. What the run says of itself needs no
    /// room in the spools: it is little, and tells of the want.
    async fn append(&mut self, record: &mut Record, why: Why) -> bool {
        let found = !record.alerts.is_empty() || !record.steps.is_empty();
        // What is raised says nothing of how far the inputs are handled.
        if why == Why::Due || why == Why::Found && found {
            let moved = std::mem::take(&mut self.positions);
            record.positions = moved.into_iter().map(|(input, at)| (input.to_string(), at)).collect();
            (self.since, self.committed) = (0, Instant::now());
        }
        let (mut waited, mut pause, mut stop) = (Instant::now(), SHORTEST, self.parts.stop.clone());
        while !self.try_append(record, why) {
            self.parts.heartbeat.touch();
            self.tell_spools();
            self.parts.telemetry.backpressure(waited.elapsed());
            waited = Instant::now();
            tokio::select! {
                () = stopped(&mut stop) => {
                    self.given_up = true;
                    return false;
                }
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PATIENCE),
            }
            self.trim();
        }
        if pause > SHORTEST {
            self.parts.telemetry.backpressure(waited.elapsed());
            let now = Instant::now();
            // Nobody could be heard.
            self.pulses.values_mut().for_each(|pulse| pulse.excuse(now));
            self.clocks.values_mut().for_each(|(_, at)| *at = now);
        }
        self.known.extend(record.positions.keys().map(|input| Arc::from(input.as_str())));
        self.tell_ready();
        self.parts.spools.grown(&record.alerts);
        true
    }

    /// Tells the metrics what waits for each output, and the log what keeps all of them waiting.
    fn tell_spools(&self) {
        for (output, bytes, alerts) in self.parts.spools.waiting() {
            self.parts.telemetry.spool(&output, alerts, bytes);
        }
        for output in self.parts.spools.full() {
            self.parts.telemetry.spool_full(&output);
        }
    }

    /// A run that was killed right after it said that it was ready must know at the next start where it began.
    fn tell_ready(&mut self) {
        let Lane { positioned, known, parts, .. } = self;
        positioned.retain(|input| {
            let begun = known.contains(input);
            parts.readiness.set(Readiness::position(input), begun);
            !begun
        });
    }

    /// Appends a record if there is room for it and the disk takes it, and tells of what keeps it from that.
    fn try_append(&mut self, record: &Record, why: Why) -> bool {
        let Parts { log, spools, telemetry, readiness, .. } = &mut self.parts;
        let room = why == Why::Raised || record.alerts.is_empty() || spools.have_room();
        readiness.set(Readiness::SPOOL, room);
        if !room {
            return false;
        }
        let mut appended = log.append(record);
        let full = appended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
        if full && spools.passed().is_none_or(|passed| passed >= log.tail().seq()) {
            // Nobody needs what the log holds: a fresh segment takes less room than the present one.
            appended = log.renew().and_then(|()| log.append(record));
        }
        readiness.set(Readiness::DISK, appended.is_ok());
        appended.inspect_err(|error| telemetry.durability_error("the log", error)).is_ok()
    }

    /// What is to be done now and then.
    async fn tick(&mut self, judging: &Judging, correlator: &Correlator) {
        self.parts.heartbeat.touch();
        let now = correlator.stats();
        self.parts.telemetry.correlation(&self.stats, &now);
        let before = std::mem::replace(&mut self.stats, now);
        if let Some(raised) = forgotten(before.evicted, now.evicted) {
            self.raise(judging, raised).await;
        }
        self.look_at_state(judging).await;
        self.parts.telemetry.steps_dropped(self.parts.log.dropped_steps());
        self.parts.telemetry.dead_letters_fallen(self.parts.dead.fallen());
        self.tell_spools();
        for notice in self.silences() {
            self.notice(judging, &notice).await;
        }
        for spool in self.parts.spools.filling() {
            let raised = Raised {
                detector: "integrity/spool-full",
                of: spool.output.clone(),
                message: format!(
                    "the spool of {} is nearly full: its receiver does not take alerts",
                    spool.output
                ),
                identity: format!("{}\0{}", spool.output, spool.passed()),
            };
            self.raise(judging, raised).await;
        }
        if self.committed.elapsed() >= COMMIT && !self.positions.is_empty() {
            self.append(&mut Record::default(), Why::Due).await;
        }
        if let Some(time) = self.time(correlator) {
            self.parts.log.set_clock(time);
            self.parts.latest.send_if_modified(|known| std::mem::replace(known, time) != time);
        }
        self.trim();
    }

    /// Tells, once, that the state directory is not there any more. What is open goes on, and this process forgets nothing;
    /// the next one would know nothing.
    async fn look_at_state(&mut self, judging: &Judging) {
        let in_place = self.parts.log.is_in_place();
        self.parts.readiness.set(Readiness::STATE, in_place);
        if std::mem::replace(&mut self.in_place, in_place) == in_place {
            return;
        }
        self.parts.telemetry.state_in_place(in_place);
        if !in_place {
            let raised = Raised {
                detector: "integrity/state-damaged",
                of: "state_dir".to_owned(),
                message: "the state directory was removed or replaced while it was in use".to_owned(),
                identity: format!("removed\0{}", text::now()),
            };
            self.raise(judging, raised).await;
        }
    }

    /// Lets go of what no output needs any more.
    fn trim(&mut self) {
        let passed = self.parts.spools.passed().unwrap_or_else(|| self.parts.log.tail().seq());
        if let Err(error) = self.parts.log.pass(passed) {
            self.parts.telemetry.durability_error("removing old segments of the log", &error);
        }
    }

    /// The time by the events: that of the input that is furthest behind, of those that are not idle.
    fn time(&self, correlator: &Correlator) -> Option<Nanos> {
        let believed = correlator.now()?;
        Some(self.behind().map_or(believed, |behind| behind.min(believed)))
    }

    /// How far the input is that is furthest behind, of those of which something has come lately.
    fn behind(&self) -> Option<Nanos> {
        let now = Instant::now();
        let busy = self.clocks.values().filter(|(_, at)| now.saturating_duration_since(*at) < IDLE);
        busy.map(|(latest, _)| *latest).min()
    }

    /// Inputs that have fallen silent.
    fn silences(&mut self) -> Vec<Notice> {
        let now = Instant::now();
        let silent = self.pulses.iter_mut().filter_map(|(input, pulse)| {
            let latest = self.latest.get(input).copied().unwrap_or_default();
            let minutes = pulse.silence(now)?.as_secs() / 60;
            Some(Notice {
                input: Arc::clone(input),
                part: None,
                what: What::Silent,
                message: format!(
                    "nothing has come of {input} for {minutes} minutes, much longer than ever before; the last event is of {}",
                    time::format(latest)
                ),
                identity: format!("{input}\0{latest}"),
            })
        });
        silent.collect()
    }

    async fn notice(&mut self, judging: &Judging, notice: &Notice) {
        self.parts.telemetry.notice(notice);
        let raised = Raised {
            detector: notice.what.detector(),
            of: notice.part.clone().unwrap_or_else(|| notice.input.to_string()),
            message: notice.message.clone(),
            identity: match notice.what {
                // It may happen again, and is the same only as long as it lasts.
                What::Unreadable => format!("{}\0{}", notice.identity, text::now()),
                What::Gap | What::Truncated | What::Silent => notice.identity.clone(),
            },
        };
        self.raise(judging, raised).await;
    }

    /// Raises an alert about the run, unless one of its kind was raised a moment ago.
    async fn raise(&mut self, judging: &Judging, raised: Raised) {
        let mut record = Record::default();
        record.alerts.extend(self.incident(judging, &raised));
        self.append(&mut record, Why::Raised).await;
    }

    /// The alert about the run, unless one of its kind was raised a moment ago.
    fn incident(&mut self, judging: &Judging, raised: &Raised) -> Option<Entry> {
        let key = (raised.detector, raised.of.clone());
        let again = self.raised.entry(key).or_insert((Instant::now(), 0));
        again.1 += 1;
        // Each gap is told, with what it lacks.
        let limited = raised.detector != What::Gap.detector();
        if limited && again.1 > 1 && again.0.elapsed() < INCIDENTS {
            self.parts.telemetry.suppressed("rate_limit", 1);
            return None;
        }
        let times = std::mem::replace(again, (Instant::now(), 1)).1.to_string();
        let incident = Incident {
            detector: raised.detector,
            message: &raised.message,
            facts: &[("of", &raised.of), ("times", &times)],
            identity: &raised.identity,
            time: text::now(),
        };
        let found = integrity::incident(&judging.engine, &incident)?;
        let mut record = Record::default();
        self.keep(judging, &found, &mut record);
        record.alerts.pop()
    }

    /// Ends the run: if the inputs ended by themselves, what waits for more is judged on what has come.
    async fn end(&mut self, judging: &Judging, correlator: &mut Correlator) {
        if self.given_up {
            return; // a position would pass over what was not made durable
        }
        let mut record = Record::default();
        if self.open == 0 {
            let mut found = Vec::new();
            correlator.finish(&mut found);
            for found in &found {
                self.keep(judging, found, &mut record);
            }
        }
        if self.append(&mut record, Why::Due).await {
            self.settle(0).await;
        }
    }
}

/// What is to be said when the correlator had to forget groups since it was looked at last.
fn forgotten(before: u64, now: u64) -> Option<Raised> {
    let groups = now.saturating_sub(before);
    (groups > 0).then(|| Raised {
        detector: "integrity/state-pressure",
        of: "correlations".to_owned(),
        message: format!(
            "{groups} groups were forgotten before their windows were over: counts are approximate"
        ),
        identity: text::now().to_string(),
    })
}

fn answer(replies: Vec<Reply>) {
    for (reply, handled) in replies {
        // A client that has gone sends it again, and it is known then.
        let _ = reply.send(handled);
    }
}

/// Waits for the word that no more time is to be spent.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // If whoever says it has gone, nobody waits for us either.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Begins what stands among the positions for an output.
const OUTPUT: &str = "\u{1}output ";
/// The output is there, or was once.
const HERE: &str = "here";
const GONE: &str = "gone";

fn output_key(name: &str) -> String {
    format!("{OUTPUT}{name}")
}

/// True if the log knows of an output that alerts may wait for.
pub(crate) fn knows_output(positions: &BTreeMap<String, String>, name: &str) -> bool {
    positions.get(&output_key(name)).is_some_and(|state| state == HERE)
}

/// What tells the log which correlations its steps belong to, and for how long they matter.
pub(crate) fn rule_tags(engine: &Engine) -> Vec<RuleTag> {
    let tags = engine.correlations().zip(engine.look_back());
    tags.map(|(tag, reach)| RuleTag { name: tag.name, logic: tag.logic, reach }).collect()
}

/// The latest event time of a batch.
fn latest(tally: &Tally) -> Option<Nanos> {
    tally.minutes.last_key_value().map(|(_, (_, last))| *last)
}

#[cfg(test)]
mod tests {
    use detectors::rules::{self, Tuning};
    use detectors::settings::Settings;

    use super::*;

    #[test]
    fn forgotten_groups_are_an_alert() {
        assert!(forgotten(3, 3).is_none());
        let raised = forgotten(3, 5).unwrap();
        assert!(raised.message.starts_with("2 groups were forgotten"), "{}", raised.message);
        let settings = Settings::default();
        let engine = rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap();
        let Raised { detector, of, message, identity } = &raised;
        let incident = Incident { detector, message, facts: &[("of", of)], identity, time: 0 };
        let found = integrity::incident(&engine, &incident).expect("there is a detector of this name");
        assert_eq!(found.alert.level, Level::Medium);
    }
}
