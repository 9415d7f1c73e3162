//! What a member knows of its group: which partitions it has, how far they are handled, and what is committed.
//!
//! Callbacks come on the member's own thread, while it polls.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use detectors::event::time::Nanos;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::{Config, From, Purpose, stream};
use crate::kafka::{self, Sasl};
use crate::server::Readiness;
use crate::source::{Handled, Notice, What};
use crate::telemetry::Telemetry;
use crate::text::for_terminal;

/// How long a question to the broker may take.
const ASK: Duration = Duration::from_secs(10);
/// How often one that was not answered is asked again before a partition is taken as the broker thinks best.
const ATTEMPTS: u32 = 3;
/// While so many notices wait for the lane, trouble with brokers makes no more of them.
const MOST: usize = 64;
/// The pause between two looks at what is not handled yet.
const LOOK: Duration = Duration::from_millis(5);

/// How far the clocks of those who write messages may differ from those of the events in them, and how old what follows usually is
/// at most when a partition is given to the member.
const SKEW: Nanos = 300 * 1_000_000_000;

/// A partition that the member has.
#[derive(Debug)]
struct Partition {
    topic: String,
    number: i32,
    /// The offset that follows what has been read.
    read: i64,
    /// The offset that follows what is handled, if it is not the one that is committed.
    handled: Option<i64>,
    /// The highest that was either.
    top: i64,
    /// What is before this offset was handled before, and is read for the windows only.
    known: i64,
    /// For windows it was read from this offset on, where messages of this time and later are.
    from: i64,
    covered: Nanos,
    /// When it was given to the member, as [`State::given`] counts.
    since: u64,
}

/// A batch at the lane.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The partition, and the offset that follows.
    stream: Arc<str>,
    next: i64,
    handled: oneshot::Receiver<Handled>,
    /// It was read when the member had been given partitions so many times.
    given: u64,
    /// Nothing in it has to be handled.
    empty: bool,
}

/// What changes.
#[derive(Debug, Default)]
struct State {
    partitions: HashMap<Arc<str>, Partition>,
    waiting: VecDeque<Waiting>,
    notices: Vec<Notice>,
    /// How often partitions were given or taken. What was read of a partition before it was given the last time is not committed.
    given: u64,
    /// Partitions have been given, whose first positions are to be committed.
    begun: bool,
    /// Partitions have changed since it was asked.
    changed: bool,
    /// Partitions that were given since it was asked, in which there is something to be read. Those behind a gap with the
    /// position there, which is committed once the lane has what was told before.
    fresh: Vec<(Arc<str>, Option<i64>)>,
}

/// Where a message stands.
#[derive(Debug)]
pub(super) enum Place {
    /// It is to be handled.
    New,
    /// It was, and is read again for the windows.
    Again,
    /// It comes once more, after what its windows reach back to: the partition is read from further back.
    Later,
    /// The partition cannot be read from further back.
    Nowhere(KafkaError),
}

/// The group, as one member sees it.
pub(super) struct Group {
    input: Arc<str>,
    purpose: Purpose,
    sasl: Option<Sasl>,
    from: From,
    since: Option<i64>,
    drain: Duration,
    telemetry: Arc<Telemetry>,
    readiness: Readiness,
    state: Mutex<State>,
    /// The member leaves the group.
    leaving: AtomicBool,
}

impl Group {
    pub(super) fn new(
        config: &Config,
        purpose: Purpose,
        telemetry: Arc<Telemetry>,
        readiness: Readiness,
    ) -> Result<Group> {
        let half = Duration::from_millis(config.session_timeout_ms / 2);
        Ok(Group {
            input: config.name.as_str().into(),
            purpose,
            sasl: config.sasl.clone(),
            from: config.from,
            since: config.since_millis()?,
            drain: config.drain_timeout_ms.map_or(half, Duration::from_millis),
            telemetry,
            readiness,
            state: Mutex::default(),
            leaving: AtomicBool::new(false),
        })
    }

    /// Positions are whole even after a panic, so a poisoned lock is none.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member leaves the group: of partitions that are given to it yet, nothing is asked. The client answers no questions any
    /// more then, and the end would wait for them.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// What is to be told of the input.
    pub(super) fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.state().notices)
    }

    /// Partitions that were given to the member since it was asked last, in which there is something to be read, and the
    /// positions of those behind a gap.
    pub(super) fn take_given(&self) -> Vec<(Arc<str>, Option<i64>)> {
        std::mem::take(&mut self.state().fresh)
    }

    /// True once after partitions have been given or taken.
    pub(super) fn take_changed(&self) -> bool {
        std::mem::take(&mut self.state().changed)
    }

    /// True once after partitions were given of which the group had no position.
    pub(super) fn has_begun(&self) -> bool {
        std::mem::take(&mut self.state().begun)
    }

    /// What a batch will be known by at the lane.
    pub(super) fn waiting(
        &self,
        stream: Arc<str>,
        next: i64,
        handled: oneshot::Receiver<Handled>,
    ) -> Waiting {
        let mut state = self.state();
        if let Some(partition) = state.partitions.get_mut(&stream) {
            partition.read = partition.read.max(next);
        }
        Waiting { stream, next, handled, given: state.given, empty: false }
    }

    /// The lane has a batch.
    pub(super) fn handed(&self, waiting: Option<Waiting>) {
        self.state().waiting.extend(waiting);
    }

    /// Notes what the lane has handled, in the order in which it was given. With `wait` until it has answered all, or ended.
    pub(super) fn settle(&self, wait: bool) {
        loop {
            let mut state = self.state();
            while state.waiting.front_mut().is_some_and(Waiting::is_handled) {
                let Some(done) = state.waiting.pop_front() else { break };
                state.handled(&done);
            }
            // What the lane has dropped is not handled, and neither is what follows it.
            let given_up = state.waiting.front_mut().is_some_and(Waiting::is_given_up);
            if !wait || state.waiting.is_empty() || given_up {
                return;
            }
            drop(state);
            std::thread::sleep(LOOK);
        }
    }

    /// Commits what is handled.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Group>) {
        let offsets = {
            let mut state = self.state();
            let mut offsets = TopicPartitionList::new();
            for partition in state.partitions.values_mut() {
                if let Some(handled) = partition.handled.take() {
                    // It can only be refused for what no offset is.
                    let offset = Offset::Offset(handled);
                    let _ = offsets.add_partition_offset(&partition.topic, partition.number, offset);
                }
            }
            offsets
        };
        if offsets.count() == 0 {
            return;
        }
        match consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) => self.telemetry.committed(&self.input, true),
            Err(error) => self.not_committed(&offsets, &error),
        }
    }

    /// What was not committed is committed another time, unless more has been handled meanwhile.
    fn not_committed(&self, offsets: &TopicPartitionList, error: &KafkaError) {
        self.telemetry.committed(&self.input, false);
        tracing::warn!(input = %self.input, %error, "offsets were not committed; they are committed later");
        let mut state = self.state();
        for one in offsets.elements() {
            let name = stream(one.topic(), one.partition());
            if let (Some(partition), Offset::Offset(offset)) =
                (state.partitions.get_mut(&*name), one.offset())
            {
                partition.handled = Some(partition.handled.map_or(offset, |handled| handled.max(offset)));
            }
        }
    }

    /// Partitions are given to the member: from where the group is, or where a first start begins.
    fn begin(&self, consumer: &BaseConsumer<Group>, given: &mut TopicPartitionList) {
        let committed = self.committed(consumer, given);
        for mut one in given.elements() {
            let (topic, number) = (one.topic().to_owned(), one.partition());
            let committed = committed.as_ref().and_then(|all| all.get(&(topic.clone(), number)).copied());
            let ends = consumer.fetch_watermarks(&topic, number, ASK).ok();
            let begin = match committed {
                Some(Offset::Offset(committed)) => Some(self.resumed(&topic, number, committed, ends)),
                // The broker did not answer: it is asked again when the first message is fetched.
                None => None,
                Some(_) => ends.and_then(|ends| self.first(consumer, &topic, number, ends)),
            };
            let (from, covered) = match (begin, ends) {
                (Some(begin), Some((low, _))) => self.look_back(consumer, &topic, number, low, begin),
                _ => (begin.unwrap_or(-1), Nanos::MIN),
            };
            let offset = begin.map_or(Offset::Stored, |_| Offset::Offset(from));
            if let Err(error) = one.set_offset(offset) {
                tracing::warn!(input = %self.input, %error, "a position cannot be set");
            }
            let fresh = !matches!(committed, Some(Offset::Offset(_)));
            let behind = begin.filter(|begin| !fresh && committed != Some(Offset::Offset(*begin)));
            let mut state = self.state();
            state.begun |= fresh && begin.is_some();
            let read = begin.unwrap_or(-1);
            let partition = Partition {
                topic: topic.clone(),
                number,
                read,
                handled: begin.filter(|_| fresh),
                top: behind.map_or(read, |behind| behind - 1),
                known: read,
                from,
                covered,
                since: state.given + 1,
            };
            let name: Arc<str> = stream(&topic, number).into();
            if behind.is_some() || begin.zip(ends).is_some_and(|(begin, (_, high))| begin < high) {
                state.fresh.push((Arc::clone(&name), behind));
            }
            state.partitions.insert(name, partition);
        }
    }

    /// From which offset on a partition has to be read for the windows of what follows `begin`, and the time since when all of
    /// it is read then.
    fn look_back(
        &self,
        consumer: &BaseConsumer<Group>,
        topic: &str,
        number: i32,
        low: i64,
        begin: i64,
    ) -> (i64, Nanos) {
        let Purpose::Windows(look_back) = self.purpose else { return (begin, Nanos::MIN) };
        // Most of what follows is of now, or was written a moment ago. What is older makes itself known.
        let since = nanos_now().saturating_sub(look_back.reach).saturating_sub(SKEW);
        self.written_since(consumer, topic, number, (low, begin), since)
    }

    /// Where messages of this time and later begin, within these offsets, and the time since when all are behind that. Clocks
    /// differ: a message may have been written a little before its own time.
    fn written_since(
        &self,
        consumer: &BaseConsumer<Group>,
        topic: &str,
        number: i32,
        (low, most): (i64, i64),
        since: Nanos,
    ) -> (i64, Nanos) {
        match offset_of(consumer, topic, number, since.saturating_sub(SKEW).div_euclid(1_000_000)) {
            Ok(Some(offset)) if offset > low => (offset.min(most), since),
            Ok(None) => (most, since),
            // Nothing older is there. The same if the broker does not say: then all is read.
            Ok(Some(_)) => (low.min(most), Nanos::MIN),
            Err(error) => {
                self.telemetry.broker_error(&self.input, &error.to_string());
                (low.min(most), Nanos::MIN)
            }
        }
    }

    /// Where a message stands. If its windows reach further back than the partition was read, it is read again from there on.
    pub(super) fn place(&self, consumer: &BaseConsumer<Group>, message: &BorrowedMessage<'_>) -> Place {
        let Purpose::Windows(look_back) = self.purpose else { return Place::New };
        let (topic, number, offset) = (message.topic(), message.partition(), message.offset());
        let name = stream(topic, number);
        let (known, from, covered) = match self.state().partitions.get(&*name) {
            Some(partition) => (partition.known, partition.from, partition.covered),
            None => return Place::New,
        };
        if offset < known {
            self.telemetry.message_again(&self.input);
            return Place::Again;
        }
        let time = message.payload().and_then(look_back.time_of).unwrap_or(Nanos::MAX);
        let needed = time.saturating_sub(look_back.reach);
        if needed >= covered {
            return Place::New;
        }
        // Twice as far, so that it is not done often.
        let since = needed.saturating_sub(covered.saturating_sub(needed));
        let low = match consumer.fetch_watermarks(topic, number, ASK) {
            Ok((low, _)) => low,
            Err(error) => return Place::Nowhere(error),
        };
        let (start, covered) = self.written_since(consumer, topic, number, (low, from), since);
        let further = start < from;
        if further && let Err(error) = consumer.seek(topic, number, Offset::Offset(start), ASK) {
            return Place::Nowhere(error);
        }
        if let Some(partition) = self.state().partitions.get_mut(&*name) {
            (partition.from, partition.covered) = (start, covered);
            if further {
                partition.known = offset;
            }
        }
        if further { Place::Later } else { Place::New }
    }

    /// The positions of the group. `None` if the broker does not say.
    fn committed(
        &self,
        consumer: &BaseConsumer<Group>,
        given: &TopicPartitionList,
    ) -> Option<HashMap<(String, i32), Offset>> {
        for _ in 0..ATTEMPTS {
            let mut wanted = TopicPartitionList::new();
            for one in given.elements() {
                wanted.add_partition(one.topic(), one.partition());
            }
            match consumer.committed_offsets(wanted, ASK) {
                Ok(committed) => {
                    let sound = committed.elements().iter().all(|one| one.error().is_ok());
                    if sound {
                        return Some(committed.to_topic_map());
                    }
                }
                Err(error) => self.telemetry.broker_error(&self.input, &error.to_string()),
            }
        }
        None
    }

    /// Where to go on: where the group was, or at the oldest message that is left, if that was deleted.
    fn resumed(&self, topic: &str, number: i32, committed: i64, ends: Option<(i64, i64)>) -> i64 {
        let Some((low, high)) = ends else { return committed };
        if (low..=high).contains(&committed) {
            return committed;
        }
        let name = stream(topic, number);
        let message = if committed < low {
            self.telemetry.retention_gap(&self.input, (low - committed) as u64);
            format!(
                "{name}: {} messages, {committed} to {}, were deleted before they were read: keep them longer than the \
                 longest outage",
                low - committed,
                low - 1
            )
        } else {
            format!(
                "{name}: the group is at {committed} and the partition ends at {high}: it was made anew; it is read from its \
                 beginning"
            )
        };
        let identity = format!("kafka:{name}:{committed}:{low}");
        self.state().notices.push(Notice {
            input: Arc::clone(&self.input),
            part: Some(name),
            what: What::Gap,
            message,
            identity,
        });
        low
    }

    /// Where a first start begins.
    fn first(
        &self,
        consumer: &BaseConsumer<Group>,
        topic: &str,
        number: i32,
        (low, high): (i64, i64),
    ) -> Option<i64> {
        match (self.since, self.from) {
            (None, From::Start) => Some(low),
            (None, From::End) => Some(high),
            (Some(since), _) => {
                let offset = offset_of(consumer, topic, number, since);
                offset.ok().map(|offset| offset.unwrap_or(high))
            }
        }
    }

    /// A position has turned out not to be there any more.
    pub(super) fn reset(&self, consumer: &BaseConsumer<Group>) {
        let known: Vec<(String, i32, i64, i64)> = {
            let state = self.state();
            let of = |one: &Partition| (one.topic.clone(), one.number, one.read, one.from);
            state.partitions.values().map(of).collect()
        };
        let positions = consumer.position().map(|all| all.to_topic_map()).unwrap_or_default();
        for (topic, number, read, from) in known {
            let Ok(ends) = consumer.fetch_watermarks(&topic, number, ASK) else { continue };
            let (low, _) = ends;
            let at = match positions.get(&(topic.clone(), number)) {
                Some(Offset::Offset(at)) => *at,
                _ => from,
            };
            let anew = if read < 0 {
                self.first(consumer, &topic, number, ends)
            } else {
                Some(self.resumed(&topic, number, read, Some(ends))).filter(|begin| *begin != read)
            };
            // What is gone and was wanted for windows only is no loss: nothing older is there for anybody.
            let Some(begin) = anew.or((at < low).then_some(low)) else { continue };
            match consumer.seek(&topic, number, Offset::Offset(begin), ASK) {
                Ok(()) => {
                    let name: Arc<str> = stream(&topic, number).into();
                    let mut state = self.state();
                    state.begun |= anew.is_some() && read < 0;
                    if anew.is_some() && read >= 0 {
                        state.fresh.push((Arc::clone(&name), Some(begin)));
                    }
                    if let Some(partition) = state.partitions.get_mut(&*name) {
                        partition.sought(begin, anew.is_some());
                    }
                }
                Err(error) => self.telemetry.broker_error(&self.input, &error.to_string()),
            }
        }
    }

    /// Partitions are taken from the member: what was read of them is handled and committed first, if there is time.
    fn end(&self, consumer: &BaseConsumer<Group>, taken: &TopicPartitionList) {
        if consumer.assignment_lost() {
            // Others have them already: a commit could only set them back.
            tracing::warn!(input = %self.input, "partitions were lost: others read on from what was committed");
        } else {
            let until = Instant::now() + self.drain;
            loop {
                self.settle(false);
                if self.state().waiting.is_empty() || Instant::now() >= until {
                    break;
                }
                std::thread::sleep(LOOK);
            }
            self.commit(consumer);
        }
        let mut state = self.state();
        for one in taken.elements() {
            let name = stream(one.topic(), one.partition());
            state.partitions.remove(&*name);
            self.telemetry.partition_gone(&self.input, &name);
        }
    }

    /// Tells the metrics which partitions the member has.
    fn tell(&self) {
        let mut state = self.state();
        state.given += 1;
        state.changed = true;
        self.telemetry.rebalanced(&self.input, state.partitions.len());
        self.readiness.group(&self.input, format!("{} partitions", state.partitions.len()));
    }
}

impl Partition {
    /// It is read from here on, without what was before. With `anew` this is where the group is, too: at once if it had no
    /// position, else once the gap is told.
    fn sought(&mut self, begin: i64, anew: bool) {
        (self.from, self.covered) = (begin, Nanos::MIN);
        if anew {
            let first = self.read < 0;
            self.handled = first.then_some(begin);
            self.top = if first { begin } else { begin - 1 };
            (self.read, self.known) = (begin, begin);
        }
    }
}

impl Waiting {
    /// There is nothing in it for the lane.
    pub(super) fn empty(self) -> Waiting {
        Waiting { empty: true, ..self }
    }

    fn is_handled(&mut self) -> bool {
        self.empty
            || self.handled.try_recv().is_ok_and(|_| {
                self.empty = true;
                true
            })
    }

    fn is_given_up(&mut self) -> bool {
        !self.empty && matches!(self.handled.try_recv(), Err(TryRecvError::Closed))
    }
}

impl State {
    fn handled(&mut self, done: &Waiting) {
        if let Some(partition) = self.partitions.get_mut(&done.stream)
            && done.given >= partition.since
            && done.next > partition.top
        {
            (partition.handled, partition.top) = (Some(done.next), done.next);
        }
    }
}

impl ClientContext for Group {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(&self.input, level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        for (topic, about) in &statistics.topics {
            for (number, partition) in &about.partitions {
                if *number >= 0 && partition.consumer_lag >= 0 {
                    self.telemetry.partition_lag(
                        &self.input,
                        &stream(topic, *number),
                        partition.consumer_lag,
                    );
                }
            }
        }
        let all = statistics.topics.values().flat_map(|about| about.partitions.keys());
        let all = all.filter(|number| **number >= 0).count();
        if let Some(group) = statistics.cgrp {
            let mine = self.state().partitions.len();
            self.readiness.group(&self.input, format!("{mine} of {all} partitions, {}", group.join_state));
            let counted = matches!(self.purpose, Purpose::Whole);
            self.telemetry.scope(&self.input, counted && mine > 0 && mine < all);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.telemetry.broker_error(&self.input, &format!("{error}: {reason}"));
        // librdkafka tries on; but an operator must know.
        let shut_out = [
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::Authentication,
            RDKafkaErrorCode::SaslAuthenticationFailed,
        ];
        if error.rdkafka_error_code().is_some_and(|code| shut_out.contains(&code)) {
            let message = format!("no broker can be read from: {error}: {}", for_terminal(reason));
            let identity = format!("kafka:{}:{error}", self.input);
            let input = Arc::clone(&self.input);
            let mut state = self.state();
            // They come for as long as it lasts; the lane says it once in a while.
            if state.notices.len() < MOST {
                state.notices.push(Notice { input, part: None, what: What::Unreadable, message, identity });
            }
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.sasl.as_ref().ok_or("no token is configured")?.oauth_token()
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Group>,
        what: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                if !self.leaving.load(Ordering::Relaxed) {
                    self.begin(consumer, partitions);
                }
                if cooperative {
                    consumer.incremental_assign(partitions)
                } else {
                    consumer.assign(partitions)
                }
            }
            _ => {
                self.end(consumer, partitions);
                if cooperative { consumer.incremental_unassign(partitions) } else { consumer.unassign() }
            }
        };
        if let Err(error) = done {
            self.telemetry.broker_error(&self.input, &error.to_string());
        }
        self.tell();
    }
}

/// The first offset that was written at this time, in milliseconds since 1970, or later. `None`: all were before.
fn offset_of(
    consumer: &BaseConsumer<Group>,
    topic: &str,
    number: i32,
    millis: i64,
) -> Result<Option<i64>, KafkaError> {
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, number, Offset::Offset(millis.max(0)))?;
    let found = consumer.offsets_for_times(times, ASK)?;
    let found = found.elements();
    let Some(found) = found.first() else { return Ok(None) };
    found.error()?;
    Ok(if let Offset::Offset(offset) = found.offset() { Some(offset) } else { None })
}

/// The time of the system.
fn nanos_now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}
