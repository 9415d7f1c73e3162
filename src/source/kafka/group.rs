//! What a member knows of its group: which partitions it has, how far they are handled, and what is committed.
//!
//! Callbacks come on the member's own thread, while it polls.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use rdkafka::metadata::MetadataTopic;

use super::history::Search;
use super::pattern::Topics;
use super::{Config, From, Purpose, assign_anew, stream, wait_for_stops};
use crate::kafka::{self, Sasl};
use crate::server::Readiness;
use crate::source::{Handled, Notice, What};
use crate::telemetry::Telemetry;
use crate::text::for_terminal;

#[cfg(test)]
mod tests;

/// How long a question to the broker may take.
const ASK: Duration = Duration::from_secs(10);
/// And all that is asked at once: far less than the broker waits for a member that does not poll. What is not answered by then
/// is asked again later.
const ALL: Duration = Duration::from_secs(60);
/// And what is only asked to tell it.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// While so many notices wait for the lane, trouble with brokers makes no more of them.
const MOST: usize = 64;
/// The pause before a question is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// The pause between two looks at what is not handled yet.
const LOOK: Duration = Duration::from_millis(5);
/// A partition that the broker has denied so often in a row is not there any more.
const DENIALS: u32 = 12;
/// What stands before the time since which the group reads a topic, in what is committed with its positions.
const SINCE: &str = "lapwing: since ";
/// How far the clocks of those who write messages, of members and of brokers may differ, in milliseconds.
const APART: i64 = 10_000;

/// How far the clocks of those who write messages may differ from those of the events in them, and how old what follows usually is
/// at most when a partition is given to the member.
const SKEW: Nanos = 300 * 1_000_000_000;

/// What of a partition is handled, to be committed.
struct Position {
    topic: String,
    number: i32,
    /// The offset that follows.
    next: i64,
    /// As of its partition.
    since: u64,
}

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
    /// The consumer was told to read it from this offset on.
    assigned: i64,
    /// For windows it was read from this offset on, where messages of this time and later are.
    from: i64,
    covered: Nanos,
    /// When it was given to the member, as [`Group::given`] counts.
    since: u64,
    /// So often in a row the broker has said that there is no such partition.
    denied: u32,
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
    /// Partitions that the member has had, and where it began in those of which no position has been committed.
    had: HashMap<Arc<str>, Option<i64>>,
    /// By topic, when the group began to read it, in milliseconds since 1970: it is committed with the positions.
    since: HashMap<String, i64>,
    /// How many partitions the group reads, all members together, if that is known.
    all: Option<usize>,
    waiting: VecDeque<Waiting>,
    notices: Vec<Notice>,
    /// Partitions have been given, whose first positions are to be committed.
    begun: bool,
    /// Partitions have changed since it was asked.
    changed: bool,
    /// Partitions that were given since it was asked, in which there is something to be read. Those behind a gap with the
    /// position there, which is committed once the lane has what was told before.
    fresh: Vec<(Arc<str>, Option<i64>)>,
}

/// Whether a group reads a topic.
enum Reads {
    /// It has no position in any partition.
    Nothing,
    /// Since then, in milliseconds since 1970.
    Since(i64),
    /// Nobody has noted since when.
    ForLong,
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
    /// How often partitions were given or taken. What was read of a partition before it was given the last time is not committed.
    given: AtomicU64,
    /// How many partitions topics had when the member came. What is made later is read from its beginning.
    before: Mutex<Option<HashMap<String, i32>>>,
    /// The member leaves the group.
    leaving: AtomicBool,
    /// Held while positions are committed, which happens in order.
    committing: Mutex<()>,
    topics: Topics,
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
            given: AtomicU64::new(0),
            before: Mutex::default(),
            leaving: AtomicBool::new(false),
            committing: Mutex::default(),
            topics: Topics::new(config.names()),
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

    /// True if a partition is the member's.
    pub(super) fn has(&self, stream: &str) -> bool {
        self.state().partitions.contains_key(stream)
    }

    /// How often partitions were given or taken.
    pub(super) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Notes that a partition has been read up to an offset. It is of no matter if it was given to the member anew since.
    pub(super) fn read(&self, stream: &str, next: i64, given: u64) {
        if let Some(partition) = self.state().partitions.get_mut(stream)
            && given >= partition.since
        {
            partition.read = partition.read.max(next);
        }
    }

    /// What a batch will be known by at the lane.
    pub(super) fn waiting(
        &self,
        stream: Arc<str>,
        next: i64,
        given: u64,
        handled: oneshot::Receiver<Handled>,
    ) -> Waiting {
        self.read(&stream, next, given);
        Waiting { stream, next, handled, given, empty: false }
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

    /// Commits what is handled, and waits for the broker's word.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Group>) {
        let _in_order = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let handled = self.take_handled();
        match self.try_commit(consumer, &handled) {
            // One of them, and nobody says which.
            Err(error) if is_denial(&error) => {
                for one in handled.chunks(1) {
                    // That takes a while, in which partitions may have been given anew, from elsewhere.
                    if self.state().of(&one[0]).is_none() {
                        continue;
                    }
                    if let Err(error) = self.try_commit(consumer, one) {
                        self.not_committed(one, &error);
                    }
                }
            }
            Err(error) => self.not_committed(&handled, &error),
            Ok(()) => {}
        }
    }

    /// What is handled and not committed yet.
    fn take_handled(&self) -> Vec<Position> {
        let of = |one: &mut Partition| {
            let next = one.handled.take()?;
            Some(Position { topic: one.topic.clone(), number: one.number, next, since: one.since })
        };
        self.state().partitions.values_mut().filter_map(of).collect()
    }

    fn try_commit(&self, consumer: &BaseConsumer<Group>, handled: &[Position]) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::new();
        for Position { topic, number, next, .. } in handled {
            let mut one = offsets.add_partition(topic, *number);
            // It can only be refused for what no offset is.
            let _ = one.set_offset(Offset::Offset(*next));
            if let Some(since) = self.state().since.get(topic) {
                one.set_metadata(format!("{SINCE}{since}"));
            }
        }
        if offsets.count() == 0 {
            return Ok(());
        }
        consumer.commit(&offsets, CommitMode::Sync)?;
        self.telemetry.committed(&self.input, true);
        let mut state = self.state();
        for position in handled {
            if let Some(partition) = state.of(position) {
                partition.denied = 0;
            }
            state.had.insert(stream(&position.topic, position.number).into(), None);
        }
        Ok(())
    }

    /// What was not committed is committed another time, unless more has been handled meanwhile, or its partition is gone.
    fn not_committed(&self, handled: &[Position], error: &KafkaError) {
        self.telemetry.committed(&self.input, false);
        tracing::warn!(input = %self.input, %error, "offsets were not committed; they are committed later");
        let denied = u32::from(is_denial(error));
        for position in handled {
            let mut state = self.state();
            let Some(partition) = state.of(position) else { continue };
            partition.denied += denied;
            if partition.denied < DENIALS {
                partition.handled = partition.handled.max(Some(position.next));
            } else {
                self.telemetry.partition_gone(&self.input, &stream(&position.topic, position.number));
            }
        }
    }

    /// Notes which partitions there are before the member has any.
    pub(super) fn look_around(&self, consumer: &BaseConsumer<Group>, time: Duration) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_none() {
            match consumer.fetch_metadata(None, time) {
                Ok(all) => {
                    let size =
                        |topic: &MetadataTopic| (topic.name().to_owned(), topic.partitions().len() as i32);
                    *before = Some(all.topics().iter().map(size).collect());
                }
                Err(error) => self.telemetry.broker_error(&self.input, &error.to_string()),
            }
        }
    }

    /// True if a partition was made while the member was there.
    fn is_new(&self, topic: &str, number: i32) -> bool {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.as_ref().is_some_and(|before| before.get(topic).is_none_or(|partitions| number >= *partitions))
    }

    /// Partitions are given to the member: from where the group is, or where a first start begins.
    fn begin(&self, consumer: &BaseConsumer<Group>, given: &mut TopicPartitionList) {
        let until = Instant::now() + ALL;
        self.look_around(consumer, ASK);
        let committed = self.committed(consumer, given, until);
        for mut one in given.elements() {
            let (topic, number) = (one.topic().to_owned(), one.partition());
            let was = committed.as_ref().and_then(|all| all.get(&(topic.clone(), number)).copied());
            let ends = consumer.fetch_watermarks(&topic, number, left(until)).ok();
            let offset = self.adopt(consumer, (&topic, number), was, ends, until);
            if let Err(error) = one.set_offset(offset) {
                tracing::warn!(input = %self.input, %error, "a position cannot be set");
            }
        }
    }

    /// Takes a partition that has been read up to an offset, as far as is known, and ends there and there. Returns from where on
    /// it is to be read.
    fn adopt(
        &self,
        consumer: &BaseConsumer<Group>,
        (topic, number): (&str, i32),
        was: Option<Offset>,
        ends: Option<(i64, i64)>,
        until: Instant,
    ) -> Offset {
        let begin = match was {
            Some(Offset::Offset(read)) => Some(self.resumed(topic, number, read, ends)),
            // The broker did not answer: it is asked again when the first message is fetched.
            None => None,
            Some(_) => ends.and_then(|ends| self.first(consumer, topic, number, ends, until)),
        };
        let (from, covered) = match (begin, ends) {
            (Some(begin), Some((low, _))) => self.look_back(consumer, topic, number, (low, begin), until),
            // Nothing is known of what is before: the first message makes known what it needs.
            _ => (begin.unwrap_or(-1), nanos_now().saturating_add(SKEW)),
        };
        let fresh = !matches!(was, Some(Offset::Offset(_)));
        let behind = begin.filter(|begin| !fresh && was != Some(Offset::Offset(*begin)));
        let mut state = self.state();
        state.begun |= fresh && begin.is_some();
        let read = begin.unwrap_or(-1);
        let partition = Partition {
            topic: topic.to_owned(),
            number,
            read,
            handled: begin.filter(|_| fresh),
            top: behind.map_or(read, |behind| behind - 1),
            known: read,
            assigned: from,
            from,
            covered,
            since: self.given() + 1,
            denied: 0,
        };
        let name: Arc<str> = stream(topic, number).into();
        if behind.is_some() || begin.zip(ends).is_some_and(|(begin, (_, high))| begin < high) {
            state.fresh.push((Arc::clone(&name), behind));
        }
        if let Some(begin) = begin {
            state.had.insert(Arc::clone(&name), fresh.then_some(begin));
        }
        state.partitions.insert(name, partition);
        begin.map_or(Offset::Stored, |_| Offset::Offset(from))
    }

    /// From which offset on a partition has to be read for the windows of what follows `begin`, and the time since when all of
    /// it is read then.
    fn look_back(
        &self,
        consumer: &BaseConsumer<Group>,
        topic: &str,
        number: i32,
        (low, begin): (i64, i64),
        until: Instant,
    ) -> (i64, Nanos) {
        let Purpose::Windows(look_back) = &self.purpose else { return (begin, Nanos::MIN) };
        // Most of what follows is of now, or was written a moment ago. What is older makes itself known.
        let since = nanos_now().saturating_sub(look_back.reach).saturating_sub(SKEW);
        self.written_since(consumer, topic, number, (low, begin), since, until)
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
        until: Instant,
    ) -> (i64, Nanos) {
        match offset_of(consumer, topic, number, since.saturating_sub(SKEW).div_euclid(1_000_000), until) {
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
        let Purpose::Windows(look_back) = &self.purpose else { return Place::New };
        let (topic, number, offset) = (message.topic(), message.partition(), message.offset());
        let name = stream(topic, number);
        let (known, from, covered) = match self.state().partitions.get(&*name) {
            // Where it began is not known if the broker has not said.
            Some(one) => (one.known, if one.from < 0 { offset } else { one.from }, one.covered),
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
        let until = Instant::now() + ASK;
        let low = match consumer.fetch_watermarks(topic, number, ASK) {
            Ok((low, _)) => low,
            Err(error) => return Place::Nowhere(error),
        };
        let (start, covered) = self.written_since(consumer, topic, number, (low, from), since, until);
        let further = start < from;
        if further && let Err(error) = consumer.seek(topic, number, Offset::Offset(start), ASK) {
            return Place::Nowhere(error);
        }
        if let Some(partition) = self.state().partitions.get_mut(&*name) {
            (partition.from, partition.covered) = (start, covered);
            if further {
                (partition.known, partition.assigned) = (offset, start);
            }
        }
        if further { Place::Later } else { Place::New }
    }

    /// The positions of the group. `None` if the broker does not say.
    fn committed(
        &self,
        consumer: &BaseConsumer<Group>,
        given: &TopicPartitionList,
        until: Instant,
    ) -> Option<HashMap<(String, i32), Offset>> {
        while Instant::now() < until {
            let mut wanted = TopicPartitionList::new();
            for one in given.elements() {
                wanted.add_partition(one.topic(), one.partition());
            }
            match consumer.committed_offsets(wanted, left(until)) {
                Ok(committed) => {
                    let sound = committed.elements().iter().all(|one| one.error().is_ok());
                    self.learn(&committed);
                    if sound {
                        return Some(committed.to_topic_map());
                    }
                }
                Err(error) => self.telemetry.broker_error(&self.input, &error.to_string()),
            }
            std::thread::sleep(AGAIN.min(left(until)));
        }
        None
    }

    /// Learns from positions since when the group reads their topics.
    fn learn(&self, committed: &TopicPartitionList) {
        for one in committed.elements() {
            // Whoever may commit may write there what is no text, which the client takes for impossible.
            let text = catch_unwind(AssertUnwindSafe(|| one.metadata().to_owned())).unwrap_or_default();
            if let Some(since) = text.strip_prefix(SINCE).and_then(|since| since.parse().ok()) {
                let mut state = self.state();
                let known = state.since.entry(one.topic().to_owned()).or_insert(since);
                *known = since.min(*known);
            }
        }
    }

    /// Whether the group reads a topic of which it has no position in one partition. `None`: the broker does not say.
    fn reads(&self, consumer: &BaseConsumer<Group>, topic: &str, until: Instant) -> Option<Reads> {
        // A pattern's topics are read since the first of them was.
        let pattern = self.topics.is_by_pattern(topic);
        let all = consumer.fetch_metadata((!pattern).then_some(topic), left(until)).ok()?;
        let mut others = TopicPartitionList::new();
        for one in
            all.topics().iter().filter(|one| one.name() == topic || self.topics.is_by_pattern(one.name()))
        {
            for partition in one.partitions() {
                others.add_partition(one.name(), partition.id());
            }
        }
        let committed = consumer.committed_offsets(others, left(until)).ok()?;
        self.learn(&committed);
        let read: Vec<_> = committed
            .elements()
            .into_iter()
            .filter(|one| matches!(one.offset(), Offset::Offset(_)))
            .collect();
        let state = self.state();
        Some(match read.iter().filter_map(|one| state.since.get(one.topic()).copied()).min() {
            Some(since) => Reads::Since(since),
            None if read.is_empty() => Reads::Nothing,
            None => Reads::ForLong,
        })
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
                "{name}: {} offsets, {committed} to {}, were deleted before they were read: keep them longer than the \
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
        until: Instant,
    ) -> Option<i64> {
        let at = |millis| {
            let offset = offset_of(consumer, topic, number, millis, until);
            offset.ok().map(|offset| offset.unwrap_or(high))
        };
        let had = self.state().had.get(&*stream(topic, number)).copied();
        match (self.since, self.from, had) {
            (Some(since), ..) => at(since),
            // It was begun, and that could not be committed.
            (None, From::End, Some(Some(begun))) => Some(begun.clamp(low, high.max(low))),
            // The group had a position, which is gone: the partition was made anew.
            (None, From::Start, _) | (None, From::End, Some(None)) => Some(low),
            (None, From::End, None) if self.is_new(topic, number) => Some(low),
            (None, From::End, None) => match self.reads(consumer, topic, until)? {
                // Other partitions are read: this one was made since.
                Reads::Since(since) => at(since.saturating_sub(APART)),
                Reads::ForLong => Some(low),
                Reads::Nothing => {
                    self.state().since.entry(topic.to_owned()).or_insert(nanos_now() / 1_000_000);
                    Some(high)
                }
            },
        }
    }

    /// A position has turned out not to be there any more. Its partition is read no further then, and nobody says which it is: all
    /// are given to the consumer anew, each where it has to go on. False if that has to be tried again.
    pub(super) fn reset(&self, consumer: &BaseConsumer<Group>) -> bool {
        let until = Instant::now() + ALL;
        let mut unknown = TopicPartitionList::new();
        let known = self.standing(consumer);
        for (topic, number, ..) in known.iter().filter(|(.., read, _)| *read < 0) {
            unknown.add_partition(topic, *number);
        }
        let asked = unknown.count() > 0;
        let committed =
            asked.then(|| self.committed(consumer, &unknown, until)).flatten().unwrap_or_default();
        let mut given = TopicPartitionList::new();
        for (topic, number, read, at) in known {
            let of = (topic, number);
            let ends = consumer.fetch_watermarks(&of.0, number, left(until)).ok();
            let lost = read < 0 || ends.is_some_and(|(low, high)| !(low..=high).contains(&read));
            let offset = if lost {
                let was = if read < 0 { committed.get(&of).copied() } else { Some(Offset::Offset(read)) };
                self.adopt(consumer, (&of.0, number), was, ends, until)
            } else {
                // What is gone and was wanted for windows only is no loss: nothing older is there for anybody.
                let at = ends.map_or(at, |(low, _)| at.max(low));
                if let Some(partition) = self.state().partitions.get_mut(&*stream(&of.0, number)) {
                    partition.assigned = at;
                }
                Offset::Offset(at)
            };
            // It can only be refused for what no offset is.
            let _ = given.add_partition_offset(&of.0, number, offset);
        }
        self.given.fetch_add(1, Ordering::Relaxed);
        let done = if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            take_and_give(consumer, &given)
        } else {
            assign_anew(consumer, &given)
        };
        if let Err(error) = &done {
            self.telemetry.broker_error(&self.input, &error.to_string());
        }
        done.is_ok()
    }

    /// Partitions, up to which offset each was read, and the offset at which the consumer is.
    fn standing(&self, consumer: &BaseConsumer<Group>) -> Vec<(String, i32, i64, i64)> {
        let positions = consumer.position().map(|all| all.to_topic_map()).unwrap_or_default();
        let of = |one: &Partition| {
            let at = match positions.get(&(one.topic.clone(), one.number)) {
                Some(Offset::Offset(at)) => (*at).max(one.assigned),
                _ => one.assigned,
            };
            (one.topic.clone(), one.number, one.read, at.min(one.read))
        };
        self.state().partitions.values().map(of).collect()
    }

    /// Looks which partitions stand at damaged messages. These are a gap, and their partitions go on behind them once they are
    /// given to the consumer anew ([`Group::reset`]). Returns how many there are, and those of which it cannot be found out: topic,
    /// number, offset, and why.
    pub(super) fn pass_over(
        &self,
        consumer: &BaseConsumer<Group>,
        damaged: impl Fn(&str, i32, Range<i64>) -> Search,
    ) -> (usize, Vec<(String, i32, i64, String)>) {
        let until = Instant::now() + ALL;
        let (mut found, mut unknown) = (0, Vec::new());
        for (topic, number, _, at) in self.standing(consumer) {
            let high = consumer.fetch_watermarks(&topic, number, left(until)).map_or(at, |(_, high)| high);
            if !(0 <= at && at < high && Instant::now() < until) {
                continue;
            }
            match damaged(&topic, number, at..high) {
                Search::Sound => {}
                Search::Damaged(end, reason) => {
                    found += 1;
                    self.passed_over(&stream(&topic, number), at..end, &reason);
                }
                Search::Unknown(reason) => unknown.push((topic, number, at, reason)),
            }
        }
        (found, unknown)
    }

    /// A partition goes on behind messages that are damaged.
    pub(super) fn passed_over(&self, name: &str, offsets: Range<i64>, reason: &str) {
        let Range { start, end } = offsets;
        let mut state = self.state();
        let Some(partition) = state.partitions.get_mut(name) else { return };
        let lost = (end - start.max(partition.read)).max(0);
        partition.assigned = end;
        if end > partition.read {
            (partition.read, partition.top, partition.since) = (end, end - 1, self.given() + 1);
            state.fresh.push((name.into(), Some(end)));
        }
        self.telemetry.retention_gap(&self.input, lost as u64);
        state.notices.push(Notice {
            input: Arc::clone(&self.input),
            part: Some(name.to_owned()),
            what: What::Gap,
            message: format!("{name}, at offset {start}: {reason}"),
            identity: format!("kafka:{name}:damaged:{start}:{end}"),
        });
    }

    /// Asks how far partitions go that are read no further for a while.
    pub(super) fn ask_lag(&self, consumer: &BaseConsumer<Group>) {
        let until = Instant::now() + SOON;
        let read: Vec<(Arc<str>, String, i32, i64)> = {
            let state = self.state();
            let of = |(name, one): (&Arc<str>, &Partition)| {
                (Arc::clone(name), one.topic.clone(), one.number, one.read)
            };
            state.partitions.iter().map(of).filter(|(.., read)| *read >= 0).collect()
        };
        for (name, topic, number, read) in read {
            if let Ok((_, high)) = consumer.fetch_watermarks(&topic, number, left(until)) {
                self.telemetry.partition_lag(&self.input, &name, (high - read).max(0));
            }
        }
    }

    /// Partitions are taken from the member: what was handed over of them is handled and committed first, if there is time.
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

    /// Asks how many partitions there are for all members together.
    fn count(&self, consumer: &BaseConsumer<Group>) {
        if let Ok(all) = consumer.fetch_metadata(None, SOON) {
            let ours = all.topics().iter().filter(|topic| self.topics.has(topic.name()));
            self.state().all = Some(ours.map(|topic| topic.partitions().len()).sum());
        }
    }

    /// Tells the metrics which partitions the member has.
    fn tell(&self) {
        let mut state = self.state();
        self.given.fetch_add(1, Ordering::Relaxed);
        state.changed = true;
        self.telemetry.rebalanced(&self.input, state.partitions.len());
        let mine = state.partitions.len();
        self.readiness.group(&self.input, format!("{mine} partitions"), (mine > 0).then_some(true));
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
    /// The partition of a position, if it has not been given anew since.
    fn of(&mut self, position: &Position) -> Option<&mut Partition> {
        let partition = self.partitions.get_mut(&*stream(&position.topic, position.number));
        partition.filter(|partition| partition.since == position.since)
    }

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
                let name = stream(topic, *number);
                // Of those that others have by now, old figures are kept.
                let ours = self.state().partitions.get(&*name).is_some_and(|one| one.denied < DENIALS);
                if partition.consumer_lag >= 0 && ours {
                    self.telemetry.partition_lag(&self.input, &name, partition.consumer_lag);
                }
            }
        }
        let known = statistics.topics.values().flat_map(|about| about.partitions.keys());
        let known = known.filter(|number| **number >= 0).count();
        // The client knows the topics of which it has partitions.
        let (mine, all) = {
            let state = self.state();
            (state.partitions.len(), state.all.unwrap_or(known).max(state.partitions.len()))
        };
        if let Some(group) = statistics.cgrp {
            let up = statistics.brokers.values().any(|broker| broker.state == "UP");
            let reads = up && (mine > 0 || group.join_state == "steady");
            let connected = if up { "" } else { ", no broker is reached" };
            let state = format!("{mine} of {all} partitions, {}{connected}", group.join_state);
            self.readiness.group(&self.input, state, Some(reads));
            let counted = matches!(self.purpose, Purpose::Whole(_));
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
                    self.count(consumer);
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

/// Partitions that the consumer has are taken, and all are given to it, where it is to read each.
fn take_and_give(consumer: &BaseConsumer<Group>, given: &TopicPartitionList) -> Result<(), KafkaError> {
    let had = consumer.assignment()?;
    let mut taken = TopicPartitionList::new();
    for one in given.elements() {
        if had.find_partition(one.topic(), one.partition()).is_some() {
            taken.add_partition(one.topic(), one.partition());
        }
    }
    if taken.count() > 0 {
        consumer.incremental_unassign(&taken)?;
        wait_for_stops(consumer);
    }
    consumer.incremental_assign(given)
}

/// The first offset that was written at this time, in milliseconds since 1970, or later. `None`: all were before.
fn offset_of(
    consumer: &BaseConsumer<Group>,
    topic: &str,
    number: i32,
    millis: i64,
    until: Instant,
) -> Result<Option<i64>, KafkaError> {
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, number, Offset::Offset(millis.max(0)))?;
    let found = consumer.offsets_for_times(times, left(until))?;
    let found = found.elements();
    let Some(found) = found.first() else { return Ok(None) };
    found.error()?;
    Ok(if let Offset::Offset(offset) = found.offset() { Some(offset) } else { None })
}

/// The broker says that there is no such partition.
fn is_denial(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| {
        matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
    })
}

/// How long a question may take that is to be answered until then.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), ASK)
}

/// The time of the system.
fn nanos_now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}
