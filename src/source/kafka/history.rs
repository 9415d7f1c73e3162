//! A topic's history: what is in its partitions now, read to its end and no further.
//!
//! Guarantees:
//!
//! - *Nobody is disturbed.* Partitions are assigned, by number and offset. No group is joined and nothing is committed.
//! - *It ends.* A partition ends where it ended when the brokers were asked, though more is written to it meanwhile, and though
//!   its last offsets hold nothing that a reader is given. Brokers that do not answer are waited for, for a time.
//! - *What cannot be read is told*: with partition and offset, and with the number of messages if they were deleted.
//!
//! A partition that is being read has a consumer; so many are at work as partitions are read at once, and one that is done
//! with its partition goes on with the next. So memory does not grow with the number of partitions.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::address::Address;
use super::{Config, Gathered, assign_anew, payload, stream};
use crate::kafka::{Sasl, refusal, try_consumer};
use crate::source::plan::Note;
use crate::text::for_terminal;
use crate::units::Text;

/// librdkafka wants the name of a group, which it asks brokers about. It is not joined.
const GROUP: &str = "lapwing-replay";
/// How long brokers have for their first answers.
const REACH: Duration = Duration::from_secs(20);
/// How long one question waits for its answer, at first and at most: in between it is looked what the brokers had to say.
const ASK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// How long nothing may come of a partition that is not at its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same when it is known that it is no use to wait.
const SHORT: Duration = Duration::from_secs(5);
/// How long to wait for messages at once.
const WAIT: Duration = Duration::from_millis(100);
/// And for more of them, when some have come.
const MORE: Duration = Duration::from_millis(2);
/// How long to listen to what librdkafka has to say.
const HEAR: Duration = Duration::from_millis(5);
/// An error counts for so much waiting at least.
const LEAST: Duration = Duration::from_millis(1);
/// How many messages are gathered at once.
const MOST: usize = 8 << 10;
/// So silent a partition is listened to more closely.
const LISTEN: Duration = Duration::from_secs(2);
/// How many bytes of a partition are looked through at once for the end of what is damaged.
const WIDE: u32 = 8 << 20;
/// So often the broker gives nothing until it is believed, and what is said then.
const EMPTY: u32 = 20;
const NOTHING: &str = "the broker has them, and gives nothing of them";
/// What is said of batches whose offset is wrong.
const ASTRAY: &str = "the offset of a batch is damaged";
/// So many places are tried one batch after the other; then the search takes longer and longer steps.
const PLACES: u32 = 1_000;

/// A topic whose history is wanted.
pub(crate) struct Wanted {
    /// Which, and what of it.
    pub(crate) address: Address,
    client: ClientConfig,
    sasl: Option<Sasl>,
    cluster: Option<String>,
}

/// What there is of it.
#[derive(Default)]
pub(crate) struct Listing {
    /// Its partitions.
    pub(crate) partitions: Vec<Partition>,
    /// Those that cannot be read.
    pub(crate) unreadable: Vec<Note>,
}

/// A partition, from the first message that is wanted to the last.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    topic: Arc<Topic>,
    number: i32,
    range: Range<i64>,
    /// Where it ends for those who do not mind whether transactions are committed.
    open: i64,
}

/// A topic, for all who read its partitions.
struct Topic {
    name: Arc<str>,
    client: ClientConfig,
    sasl: Option<Sasl>,
    cluster: Option<String>,
    /// How long nothing may come of a partition.
    patience: Duration,
    /// Nothing came of a partition for that long, and nothing has come of any since.
    silent: AtomicBool,
    /// Consumers that nobody uses.
    idle: Mutex<Vec<Consumer>>,
}

type Consumer = BaseConsumer<Ear>;

/// Hears what librdkafka has to say.
struct Ear {
    topic: Arc<str>,
    sasl: Option<Sasl>,
    trouble: Mutex<Option<Trouble>>,
    /// Why nothing comes. Of this librdkafka speaks in its log alone, where a searcher listens.
    quiet: Mutex<Quiet>,
    closely: bool,
}

/// Answers of which nothing comes to who reads.
#[derive(Debug, Default)]
struct Quiet {
    /// How often one began with a batch whose format is unknown, and what was said of it.
    unknown: u32,
    said: String,
    /// How often there was nothing in one, and where the partition ended by the last.
    empty: u32,
    end: i64,
}

/// What went wrong last.
#[derive(Debug, Clone)]
struct Trouble {
    code: Code,
    reason: String,
}

impl Wanted {
    /// The topic of an address. How one logs in there, `config` says.
    ///
    /// # Errors
    /// The configuration cannot be used: which key, and what to write instead.
    pub(crate) fn new(address: Address, config: Option<Config>) -> Result<Wanted> {
        let servers = Text(address.bootstrap());
        let config = match config {
            Some(config) => Config { bootstrap_servers: servers, ..config },
            None => Config::new(GROUP, &servers, &Text(address.topic.clone()), &Text(GROUP.to_owned())),
        };
        let client = client(&config)?;
        try_consumer(&client, &[&address.topic])?;
        let cluster = config.cluster.map(|cluster| cluster.0);
        Ok(Wanted { address, client, sasl: config.sasl, cluster })
    }

    /// Asks the brokers which partitions there are, and where each begins and ends. Gives up when `stop` is set.
    ///
    /// # Errors
    /// Why they cannot be read, and what to do about it.
    pub(crate) fn ask(&self, stop: &AtomicBool) -> Result<Listing, String> {
        let topic = Arc::new(Topic::of(self));
        let asked = Asked::new(&topic, topic.consumer().map_err(|error| format!("{error:#}"))?, stop);
        let there = asked.partitions()?;
        let mut listing = Listing::default();
        let (mut chosen, missing) = self.address.choose(0..there.len() as i32);
        let unreadable = |number: i32, reason: String| Note { input: stream(&topic.name, number), reason };
        let last = there.len().saturating_sub(1);
        let absent = || format!("there is no such partition: the topic has 0 to {last}");
        listing.unreadable.extend(missing.into_iter().map(|number| unreadable(number, absent())));
        chosen.retain(|number| match there[*number as usize] {
            None => true,
            Some(code) => {
                let reason = format!("{code}: no broker leads it now; read it once it has a leader again");
                listing.unreadable.push(unreadable(*number, reason));
                false
            }
        });
        if chosen.is_empty() {
            return Ok(listing);
        }
        let first = asked.offsets(&chosen, Offset::Beginning)?;
        let last = asked.offsets(&chosen, Offset::End)?;
        let at = |time: Option<i64>| time.map(|time| asked.offsets(&chosen, Offset::Offset(time.max(0))));
        let since = at(self.address.since).transpose()?.unwrap_or_default();
        let until = at(self.address.until).transpose()?.unwrap_or_default();
        let open = asked.open(&chosen)?;
        for number in chosen {
            let of = |offsets: &HashMap<i32, i64>| offsets.get(&number).copied();
            let (Some(first), Some(last)) = (of(&first), of(&last)) else {
                listing.unreadable.push(unreadable(number, "the broker does not say where it begins".into()));
                continue;
            };
            let last = last.max(first);
            let end = of(&until).unwrap_or(last).clamp(first, last);
            let begin = match self.address.since {
                Some(_) => of(&since).unwrap_or(end).clamp(first, end),
                None => first,
            };
            // What is cut off at the end is not waited for either.
            let open = of(&open).filter(|_| end == last).unwrap_or(end).max(end);
            listing.partitions.push(Partition { topic: Arc::clone(&topic), number, range: begin..end, open });
        }
        topic.give_back(asked.consumer);
        Ok(listing)
    }
}

/// How an input's brokers are read by one that joins no group.
fn client(config: &Config) -> Result<ClientConfig> {
    let ours = [("group.id", GROUP), ("enable.partition.eof", "true")];
    let ours = ours.map(|(key, value)| (key, value.to_owned()));
    config.reader(ours.into(), &[("fetch.wait.max.ms", "10"), ("statistics.interval.ms", "0")])
}

/// What stands at the beginning of a range of offsets.
#[derive(Debug)]
pub(super) enum Search {
    /// A message that is sound, or none.
    Sound,
    /// Messages that are damaged, to before this offset, and what is wrong.
    Damaged(i64, String),
    /// Why that cannot be found out.
    Unknown(String),
}

/// Looks whether messages are damaged from the beginning of a range of offsets on, and to where. It takes [`REACH`] at most.
pub(super) fn damaged(config: &Config, topic: &str, number: i32, range: Range<i64>) -> Search {
    let client = match client(config) {
        Ok(client) => client,
        Err(error) => return Search::Unknown(format!("{error:#}")),
    };
    let topic = Topic {
        name: topic.into(),
        client,
        sasl: config.sasl.clone(),
        cluster: None,
        patience: SHORT,
        silent: AtomicBool::new(false),
        idle: Mutex::default(),
    };
    let open = range.end;
    let mut reader = Reader::new(&Partition { topic: Arc::new(topic), number, range, open });
    let until = Instant::now() + REACH;
    loop {
        reader.read(1);
        if let Some((end, reason)) = reader.over {
            return Search::Damaged(end, reason);
        }
        let told = reader.take_told();
        if let Some(reason) = told.refused {
            return Search::Unknown(reason);
        }
        // A search for the end passes some, too.
        if reader.skip.is_none() && told.passed > 0 || reader.ended {
            return Search::Sound;
        }
        if Instant::now() >= until {
            let seconds = REACH.as_secs();
            let what = reader.skip.map_or("nothing has come", |_| "the end of what is damaged is not found");
            return Search::Unknown(format!("{what} after {seconds} seconds"));
        }
    }
}

/// Brokers that are asked.
struct Asked<'a> {
    topic: &'a Topic,
    consumer: Consumer,
    stop: &'a AtomicBool,
    until: Instant,
}

impl<'a> Asked<'a> {
    fn new(topic: &'a Topic, consumer: Consumer, stop: &'a AtomicBool) -> Asked<'a> {
        Asked { topic, consumer, stop, until: Instant::now() + REACH }
    }

    /// Asks until there is an answer, it is no use, or the time is up.
    fn answer<T>(&self, ask: impl Fn(&Consumer, Duration) -> KafkaResult<T>) -> Result<T, String> {
        let (mut wait, longest) = ASK;
        loop {
            self.listen();
            let began = Instant::now();
            let left = self.until.saturating_duration_since(began);
            let error = match ask(&self.consumer, wait.min(left).max(LEAST)) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.listen();
            let trouble = self.consumer.context().trouble();
            let told = [error.rdkafka_error_code(), trouble.as_ref().map(|trouble| trouble.code)];
            if self.stop.load(Ordering::Relaxed) {
                return Err("interrupted before the brokers answered".to_owned());
            }
            if let Some(code) = told.into_iter().flatten().find(|code| is_final(*code)) {
                return Err(worded(code, trouble, UNKNOWN));
            }
            if Instant::now() >= self.until {
                let code = error.rdkafka_error_code().unwrap_or(Code::OperationTimedOut);
                return Err(worded(code, trouble, UNKNOWN));
            }
            thread::sleep(WAIT.saturating_sub(began.elapsed()));
            wait = (wait * 2).min(longest);
        }
    }

    /// Serves what librdkafka wants to know, such as tokens, and hears of errors. There are no messages.
    fn listen(&self) {
        while self.consumer.poll(HEAR).is_some() {}
    }

    /// The partitions of the topic, in order, and why they cannot be read.
    fn partitions(&self) -> Result<Vec<Option<Code>>, String> {
        let name = &*self.topic.name;
        let partitions = self.answer(|consumer, wait| {
            let metadata = consumer.fetch_metadata(Some(name), wait)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            let topic = topic.ok_or(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition))?;
            if let Some(error) = topic.error() {
                return Err(KafkaError::MetadataFetch(error.into()));
            }
            let mut all: Vec<_> = topic.partitions().iter().collect();
            all.sort_unstable_by_key(|partition| partition.id());
            // A replica that is away is no trouble as long as there is a leader.
            let error = |code: Option<Code>, leader| code.filter(|_| leader < 0);
            Ok(all.iter().map(|one| error(one.error().map(Into::into), one.leader())).collect())
        })?;
        Ok(partitions)
    }

    /// Offsets of partitions: an end of each, or what was first written at a time or later.
    fn offsets(&self, partitions: &[i32], at: Offset) -> Result<HashMap<i32, i64>, String> {
        self.answer(|consumer, wait| {
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for number in partitions {
                list.add_partition_offset(&self.topic.name, *number, at)?;
            }
            let list = consumer.offsets_for_times(list, wait)?;
            let mut offsets = HashMap::new();
            for one in list.elements() {
                one.error()?;
                if let Offset::Offset(offset @ 0..) = one.offset() {
                    offsets.insert(one.partition(), offset);
                }
            }
            Ok(offsets)
        })
    }

    /// Where partitions end for those who do not mind whether transactions are committed.
    fn open(&self, partitions: &[i32]) -> Result<HashMap<i32, i64>, String> {
        if self.topic.client.get("isolation.level") != Some("read_committed") {
            return Ok(HashMap::new());
        }
        let mut client = self.topic.client.clone();
        client.set("isolation.level", "read_uncommitted");
        let consumer =
            client.create_with_context(self.topic.ear()).map_err(|error| format!("{:#}", refusal(error)))?;
        Asked::new(self.topic, consumer, self.stop).offsets(partitions, Offset::End)
    }
}

/// True if trying again is no use.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
    )
}

/// True if messages came that are damaged.
pub(super) fn is_damage(code: Code) -> bool {
    matches!(code, Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::NotImplemented)
}

/// What to do about brokers that never answered.
const UNKNOWN: &str =
    "check the address, and whether they want TLS or a login, which the file that -c names can give";

/// What is wrong, and what to do about it; about brokers that do not answer, `silence` says that.
fn worded(code: Code, trouble: Option<Trouble>, silence: &str) -> String {
    let (what, advice) = match code {
        Code::Authentication | Code::SaslAuthenticationFailed => {
            ("the brokers refuse the login", "check `sasl` of the input in the file that -c names")
        }
        Code::SSL => ("TLS fails", "check `tls` of the input in the file that -c names"),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            ("the brokers do not let this user read the topic", "give it Read on the topic")
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            ("there is no such topic, or none that this user may know of", "check its name")
        }
        _ => ("the brokers do not answer", silence),
    };
    let reason = trouble.map_or_else(|| code.to_string(), |trouble| trouble.reason);
    format!("{what} ({reason}): {advice}")
}

impl Topic {
    fn of(wanted: &Wanted) -> Topic {
        Topic {
            name: wanted.address.topic.as_str().into(),
            client: wanted.client.clone(),
            sasl: wanted.sasl.clone(),
            cluster: wanted.cluster.clone(),
            patience: PATIENCE,
            silent: AtomicBool::new(false),
            idle: Mutex::default(),
        }
    }

    fn ear(&self) -> Ear {
        Ear {
            topic: Arc::clone(&self.name),
            sasl: self.sasl.clone(),
            trouble: Mutex::default(),
            quiet: Mutex::default(),
            closely: false,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Consumer>> {
        // A list of consumers is whole even after a panic.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A consumer that nobody uses, or a new one.
    fn consumer(&self) -> Result<Consumer> {
        if let Some(consumer) = self.idle().pop() {
            return Ok(consumer);
        }
        self.client.create_with_context(self.ear()).map_err(refusal)
    }

    /// One that is given more at once, and tells of what is passed over in silence.
    fn searcher(&self) -> Result<Consumer> {
        let mut client = self.client.clone();
        client.set("debug", "msg").set("fetch.error.backoff.ms", "1").set_log_level(RDKafkaLogLevel::Debug);
        // Answers are no larger than the user allows.
        if client.get("receive.message.max.bytes").is_none() {
            let wide = WIDE.to_string();
            client.set("fetch.message.max.bytes", &wide).set("fetch.max.bytes", &wide);
        }
        client.create_with_context(Ear { closely: true, ..self.ear() }).map_err(refusal)
    }

    fn give_back(&self, consumer: Consumer) {
        // What cannot be left is not used again.
        if consumer.unassign().is_ok() {
            consumer.context().forget();
            self.idle().push(consumer);
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Partition {
    /// What evidence calls it: `k8s-audit/3`.
    pub(crate) fn name(&self) -> String {
        stream(&self.topic.name, self.number)
    }

    /// How many messages are to be read; fewer if there are gaps between their offsets.
    pub(crate) fn messages(&self) -> u64 {
        (self.range.end - self.range.start) as u64
    }

    /// The cluster that the events are of, if the input knows it better than the configuration.
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.topic.cluster.as_deref()
    }
}

/// Reads a partition from the first message that is wanted to the last.
pub(crate) struct Reader {
    partition: Partition,
    stream: Arc<str>,
    /// The offset that follows what has been read.
    next: i64,
    /// The offset up to which it was told how far we are.
    passed: i64,
    /// The end of damaged messages is being looked for.
    skip: Option<Skip>,
    /// The consumer is a searcher.
    wide: bool,
    /// The offset that came last from the place where the consumer was put.
    last: Option<i64>,
    /// It is one that the partition does not have.
    astray: bool,
    /// Where those ended that were found last, and what was wrong with them.
    over: Option<(i64, String)>,
    consumer: Option<Consumer>,
    /// How long nothing has come although it was waited for.
    waited: Duration,
    ended: bool,
    told: Told,
}

/// What there is to tell of a partition since it was asked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Offsets that are behind us, whether a message stood there or not.
    pub(crate) passed: u64,
    /// Messages without a payload.
    pub(crate) empty: u64,
    /// Why nothing at all of it can be read.
    pub(crate) refused: Option<String>,
    /// What is wrong, and the offset where that is.
    pub(crate) damage: Vec<(u64, String)>,
}

/// How reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// There is more.
    More,
    /// There is more, with another consumer.
    Other,
    /// All is read.
    Done,
    /// Nothing more comes.
    GivenUp,
}

impl Reader {
    /// A reader that has read nothing yet and is connected to nobody.
    pub(crate) fn new(partition: &Partition) -> Reader {
        Reader {
            partition: partition.clone(),
            stream: partition.name().into(),
            next: partition.range.start,
            passed: partition.range.start,
            skip: None,
            wide: false,
            last: None,
            astray: false,
            over: None,
            consumer: None,
            waited: Duration::ZERO,
            ended: false,
            told: Told::default(),
        }
    }

    /// The next messages, about `most` bytes of them. None are, when none came for a while.
    pub(crate) fn read(&mut self, most: usize) -> Gathered {
        let mut gathered = Gathered::default();
        if self.next >= self.partition.range.end {
            self.done();
        } else if !self.ended {
            match self.consumer.take().map_or_else(|| self.begin(), Ok) {
                Ok(consumer) => match self.gather(&consumer, most, &mut gathered) {
                    Then::More => self.consumer = Some(consumer),
                    Then::Done => {
                        if !self.wide {
                            self.partition.topic.give_back(consumer);
                        }
                        self.done();
                    }
                    Then::Other | Then::GivenUp => {}
                },
                Err(error) => _ = self.give_up(&format!("{error:#}")),
            }
        }
        self.told.passed += self.next.saturating_sub(self.passed).max(0) as u64;
        self.passed = self.passed.max(self.next);
        gathered
    }

    /// Topic and partition, as evidence names them.
    pub(crate) fn stream(&self) -> Arc<str> {
        Arc::clone(&self.stream)
    }

    /// True if nothing more will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// What there is to tell since the last call.
    pub(crate) fn take_told(&mut self) -> Told {
        std::mem::take(&mut self.told)
    }

    /// A consumer at the partition's next message.
    fn begin(&mut self) -> Result<Consumer> {
        (self.last, self.astray) = (None, false);
        let topic = &self.partition.topic;
        let consumer = if self.wide { topic.searcher() } else { topic.consumer() }?;
        self.assign(&consumer).context("the partition cannot be assigned")?;
        Ok(consumer)
    }

    fn assign(&self, consumer: &Consumer) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(self.next);
        list.add_partition_offset(&self.partition.topic.name, self.partition.number, offset)?;
        assign_anew(consumer, &list)
    }

    fn gather(&mut self, consumer: &Consumer, most: usize, gathered: &mut Gathered) -> Then {
        if self.skip.is_some() || self.wide {
            return self.probe(consumer);
        }
        let mut wait = WAIT;
        for _ in 0..MOST {
            let asked = Instant::now();
            match consumer.poll(wait) {
                // Of what this consumer was assigned before.
                Some(Ok(message)) if !self.is_ours(&message) => {}
                Some(Ok(message)) => {
                    self.hear(consumer);
                    if self.take(consumer, &message, gathered) {
                        return Then::Done;
                    }
                }
                Some(Err(error)) => {
                    self.waited += asked.elapsed().max(LEAST);
                    return self.failed(consumer, &error);
                }
                None if wait == MORE => break,
                None => {
                    self.waited += asked.elapsed();
                    return self.patient(consumer);
                }
            }
            if gathered.bytes.len() >= most {
                break;
            }
            wait = MORE;
        }
        Then::More
    }

    /// Something has come.
    fn hear(&mut self, consumer: &Consumer) {
        if !self.waited.is_zero() {
            self.waited = Duration::ZERO;
            self.partition.topic.silent.store(false, Ordering::Relaxed);
            consumer.context().forget();
        }
    }

    /// Waits for what comes from a place where a search looks.
    fn probe(&mut self, consumer: &Consumer) -> Then {
        let asked = Instant::now();
        match consumer.poll(if self.wide { MORE } else { WAIT }) {
            Some(Ok(message)) if !self.is_ours(&message) => Then::More,
            Some(Ok(message)) if self.is_astray(consumer, message.offset()) => {
                (self.last, self.astray) = (Some(message.offset()), true);
                Then::More
            }
            Some(Ok(message)) => {
                self.hear(consumer);
                self.seen(consumer, Some(message.offset()))
            }
            Some(Err(KafkaError::PartitionEOF(number))) if number == self.partition.number => {
                self.seen(consumer, Some(self.partition.range.end))
            }
            Some(Err(error)) => {
                self.waited += asked.elapsed().max(LEAST);
                self.failed(consumer, &error)
            }
            None => {
                self.waited += asked.elapsed();
                let Some(said) = consumer.context().quiet().answer(self.next) else {
                    return self.patient(consumer);
                };
                let skip = self.skip.get_or_insert_with(|| Skip::new(self.next, said.clone()));
                skip.vague |= said == NOTHING;
                if skip.heard.is_empty() {
                    skip.heard.push(said);
                }
                self.seen(consumer, None)
            }
        }
    }

    fn is_ours(&self, message: &BorrowedMessage<'_>) -> bool {
        // Once one has come from where the consumer was put, all are from there.
        message.partition() == self.partition.number && (message.offset() >= self.next || self.last.is_some())
    }

    /// True if the partition has no such offset, though a batch says that it is there.
    fn is_astray(&self, consumer: &Consumer, offset: i64) -> bool {
        if offset < self.partition.range.end || offset == self.next {
            return false;
        }
        let follows = self.astray && self.last == Some(offset - 1);
        follows || self.ends(consumer).is_ok_and(|(_, high)| high <= offset)
    }

    /// Takes a message. True if no other is wanted.
    ///
    /// Checksums do not cover the offset of a batch. Where it is wrong, offsets go back, or beyond the end; the messages are judged
    /// all the same.
    fn take(&mut self, consumer: &Consumer, message: &BorrowedMessage<'_>, gathered: &mut Gathered) -> bool {
        let (offset, end) = (message.offset(), self.partition.range.end);
        let was = self.astray;
        self.astray = self.is_astray(consumer, offset);
        let last = self.last.replace(offset).filter(|last| *last >= offset);
        if self.astray && !was {
            let reason =
                format!("messages say that they are at {offset} and beyond, where none are: {ASTRAY}");
            self.told.damage.push((self.next as u64, reason));
        } else if let Some(last) = last.filter(|_| !was) {
            let reason = format!("this offset comes behind {last}: {ASTRAY}");
            self.told.damage.push((offset as u64, reason));
        }
        if offset >= end && !self.astray {
            self.next = end;
            return true;
        }
        match payload(message) {
            Some(payload) => _ = gathered.take(offset as u64, payload, false),
            None => self.told.empty += 1,
        }
        if !self.astray {
            self.next = offset + 1;
        }
        self.next >= end
    }

    /// An event that is no message.
    fn failed(&mut self, consumer: &Consumer, error: &KafkaError) -> Then {
        match error {
            KafkaError::PartitionEOF(number) if *number == self.partition.number => {
                // It ends at what is committed, and that is behind our end, unless it has lost messages.
                if let Ok((low, high)) = self.ends(consumer)
                    && high < self.partition.range.end
                {
                    return self.shorter(low, high);
                }
                self.next = self.partition.range.end;
                Then::Done
            }
            KafkaError::MessageConsumption(Code::AutoOffsetReset) => self.reset(consumer),
            KafkaError::MessageConsumption(code) if is_damage(*code) => {
                let reason = consumer.context().trouble().map_or_else(|| code.to_string(), |it| it.reason);
                let skip = self.skip.get_or_insert_with(|| Skip::new(self.next, reason.clone()));
                // What follows comes by itself, from the same answer of the broker. If nothing does, the answer comes once more.
                let again = skip.heard.contains(&reason);
                if !again {
                    let unknown = consumer.context().quiet().said.clone();
                    let said = *code == Code::NotImplemented && !unknown.is_empty();
                    skip.heard.push(if said { unknown } else { reason });
                    // The broker's own word is about no batch.
                    skip.vague |= *code == Code::InvalidMessage;
                }
                // Behind what it cannot read at all, librdkafka reads no answer any further.
                if again || *code == Code::NotImplemented {
                    return self.seen(consumer, None);
                }
                self.patient(consumer)
            }
            _ => self.patient(consumer),
        }
    }

    fn ends(&self, consumer: &Consumer) -> KafkaResult<(i64, i64)> {
        consumer.fetch_watermarks(&self.partition.topic.name, self.partition.number, SHORT)
    }

    /// The next message is not there any more.
    fn reset(&mut self, consumer: &Consumer) -> Then {
        let end = self.partition.range.end;
        match self.ends(consumer) {
            Ok((low, _)) if low > self.next => {
                let gone = low.min(end) - self.next;
                let last = self.next + gone - 1;
                let reason =
                    format!("{gone} messages, {} to {last}, were deleted before they were read", self.next);
                self.told.damage.push((self.next as u64, reason));
                self.next += gone;
                self.waited = Duration::ZERO;
                if self.next >= end {
                    return Then::Done;
                }
            }
            Ok((low, high)) if high < end => return self.shorter(low, high),
            // It was led beyond the end.
            Ok(_) if self.astray => {
                let skip = self.skip.get_or_insert_with(|| Skip::new(self.next, ASTRAY.to_owned()));
                skip.vague = true;
                if self.wide {
                    skip.heard = vec![ASTRAY.to_owned()];
                    return self.seen(consumer, None);
                }
                self.wide = true;
                return Then::Other;
            }
            Ok(_) => {}
            Err(_) => self.waited += SHORT,
        }
        self.go_on(consumer)
    }

    /// Notes what came first from where we are, if anything that is sound did. Goes on there, or looks somewhere else.
    fn seen(&mut self, consumer: &Consumer, first: Option<i64>) -> Then {
        self.waited = Duration::ZERO; // it is an answer
        let Some(skip) = &mut self.skip else {
            self.wide = false;
            return Then::Other;
        };
        if first.is_some() || self.wide {
            skip.saw(self.next, first);
        }
        skip.heard.clear();
        match skip.look(self.partition.range.end) {
            Look::At(offset) => self.next = offset,
            Look::Found(offset) => {
                let roughly = if skip.is_rough() { " (perhaps not all of them)" } else { "" };
                let Skip { from, reason, .. } = skip;
                if offset > *from {
                    let last = offset - 1;
                    let damage = format!("messages to {last} are damaged{roughly} and passed over: {reason}");
                    self.over = Some((offset, damage.clone()));
                    self.told.damage.push((*from as u64, damage));
                }
                self.skip = None;
                self.next = offset;
                if offset >= self.partition.range.end {
                    return Then::Done;
                }
            }
        }
        let wide = self.skip.is_some();
        if wide != self.wide {
            self.wide = wide;
            return Then::Other;
        }
        self.go_on(consumer)
    }

    /// Reads on at another place.
    fn go_on(&mut self, consumer: &Consumer) -> Then {
        match self.assign(consumer) {
            Ok(()) => {
                (self.last, self.astray) = (None, false);
                *consumer.context().quiet() = Quiet::default();
                self.patient(consumer)
            }
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    /// The partition ends before the end that it had.
    fn shorter(&mut self, low: i64, high: i64) -> Then {
        let end = self.partition.range.end;
        let reason = format!(
            "the partition ended at {end} when the replay began, and is from {low} to {high} now: it was made anew, or has lost \
             messages"
        );
        self.told.damage.push((self.next as u64, reason));
        self.next = end;
        Then::Done
    }

    /// Nothing came. It is waited for, but not for ever.
    fn patient(&mut self, consumer: &Consumer) -> Then {
        let topic = &self.partition.topic;
        let trouble = consumer.context().trouble();
        let no_use = trouble.as_ref().is_some_and(|trouble| is_final(trouble.code));
        let most = if no_use || topic.silent.load(Ordering::Relaxed) { SHORT } else { topic.patience };
        if self.waited < most.min(topic.patience) {
            if self.waited >= LISTEN && !self.wide && trouble.is_none() {
                self.wide = true;
                return Then::Other;
            }
            return Then::More;
        }
        topic.silent.store(true, Ordering::Relaxed);
        if let Some(skip) = &self.skip {
            let reason = format!("it is damaged, and where that ends is not found: {}", skip.reason);
            return self.give_up(&reason);
        }
        if trouble.is_none() && self.ends(consumer).is_ok_and(|(_, high)| high > self.next) {
            return self.give_up("the brokers answer, and give nothing of it: look at what they log of it");
        }
        let code = trouble.as_ref().map_or(Code::OperationTimedOut, |trouble| trouble.code);
        let silence =
            format!("read the partition again once they do, with `partition={}`", self.partition.number);
        self.give_up(&worded(code, trouble, &silence))
    }

    fn give_up(&mut self, reason: &str) -> Then {
        let Range { start, end } = self.partition.range;
        if let Some(skip) = self.skip.take() {
            self.next = skip.from;
        }
        if self.next == start {
            self.told.refused = Some(reason.to_owned());
        } else {
            let reason = format!("from here on to {} nothing was read: {reason}", end - 1);
            self.told.damage.push((self.next as u64, reason));
        }
        self.next = end;
        self.ended = true;
        Then::GivenUp
    }

    fn done(&mut self) {
        let (end, open) = (self.partition.range.end, self.partition.open);
        if open > end && !self.ended {
            let reason = format!(
                "{} messages to {} are not read: a transaction that is not committed stands before them; try later, or read \
                 them all the same with `librdkafka_options: {{isolation.level: read_uncommitted}}`",
                open - end,
                open - 1
            );
            self.told.damage.push((end as u64, reason));
        }
        self.ended = true;
    }
}

/// A search for the end of messages that the broker has and that are damaged.
///
/// They come in batches of unknown length. Whoever asks for a message of one is given all of it and what follows, and told of
/// each that is damaged; so the first that is sound is seen, unless what is damaged is more than one answer holds ([`WIDE`]), or
/// such that librdkafka reads the answer no further. Then it goes answer by answer: an offset of which is said what was said in
/// the last is in one of its batches. This is exact for [`PLACES`] places, and only behind those does it pass over what is sound.
#[derive(Debug)]
struct Skip {
    /// The first that is damaged, and how.
    from: i64,
    reason: String,
    /// The last that is known to be, and what is said of its batch and of those that follow it.
    bad: i64,
    said: Vec<String>,
    /// One behind it that is in none of these.
    over: Option<(i64, Batch)>,
    /// How far to go next.
    step: i64,
    /// How many places have been tried.
    tried: u32,
    /// What is said tells no batch from another.
    vague: bool,
    /// What was said of batches where we are.
    heard: Vec<String>,
}

/// What there is at an offset.
#[derive(Debug, PartialEq, Eq)]
enum Batch {
    /// A message that is sound: this one is the first.
    Sound(i64),
    /// What is damaged, and what is said of it.
    Damaged(Vec<String>),
}

/// What a search says.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Try there.
    At(i64),
    /// From there on messages are sound.
    Found(i64),
}

impl Skip {
    fn new(from: i64, reason: String) -> Skip {
        let heard = Vec::new();
        Skip {
            from,
            reason,
            bad: from - 1,
            said: Vec::new(),
            over: None,
            step: 1,
            tried: 0,
            vague: false,
            heard,
        }
    }

    /// So much is damaged that not each batch is tried.
    fn is_rough(&self) -> bool {
        self.tried > PLACES || self.vague
    }

    /// Notes what there is at an offset: what was heard, and the first message that is sound, if one came.
    fn saw(&mut self, at: i64, first: Option<i64>) {
        self.tried += 1;
        let heard = std::mem::take(&mut self.heard);
        let same = heard.first().is_some_and(|batch| self.said.contains(batch));
        match first {
            // What stands before it is damaged from here to there.
            Some(first) if same => self.over = Some((self.bad + 1, Batch::Sound(first))),
            Some(first) => self.over = Some((at, Batch::Sound(first))),
            None if same || self.is_rough() => {
                (self.bad, self.said, self.step) = (self.bad.max(at), heard, self.step.saturating_mul(2));
            }
            None => self.over = Some((at, Batch::Damaged(heard))),
        }
        if let Some((at, Batch::Damaged(said))) = &mut self.over {
            if *at == self.bad + 1 {
                (self.bad, self.said, self.step) = (*at, std::mem::take(said), 1);
                self.over = None;
            } else if *at <= self.bad || self.tried > PLACES || self.vague {
                self.over = None;
            }
        }
    }

    /// Where to look: farther and farther, then in the middle, until the end of a batch is found.
    fn look(&self, end: i64) -> Look {
        match self.over {
            Some((at, Batch::Sound(first))) if at <= self.bad + 1 => Look::Found(first.min(end)),
            Some((at, _)) => Look::At(self.bad + (at - self.bad) / 2),
            None if self.bad + 1 >= end => Look::Found(end),
            None => Look::At(self.bad.saturating_add(self.step).min(end - 1)),
        }
    }
}

impl Quiet {
    /// Takes what librdkafka writes into its log: `MAGICBYTE` of a batch, `FETCH` of an answer.
    fn hear(&mut self, facility: &str, message: &str) {
        if facility == "MAGICBYTE" {
            let said = message.rsplit_once("]: ").map_or(message, |(_, said)| said);
            (self.unknown, self.said) = (self.unknown + 1, said.to_owned());
        } else if message.contains("MessageSet size 0, error \"Success\"") {
            let end = message.split_once("LSO ").map_or("", |(_, end)| end);
            let end = end.split(',').next().and_then(|end| end.parse().ok());
            (self.empty, self.end) = (self.empty + 1, end.unwrap_or(0));
        }
    }

    /// Why nothing will come from an offset, once that is certain: what was on its way when we came may be heard still.
    fn answer(&self, next: i64) -> Option<String> {
        match self {
            Quiet { unknown: 2.., said, .. } => Some(said.clone()),
            Quiet { empty: EMPTY.., end, .. } if *end > next => Some(NOTHING.to_owned()),
            _ => None,
        }
    }
}

impl Ear {
    fn heard(&self) -> MutexGuard<'_, Option<Trouble>> {
        // A text and a number are whole even after a panic.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quiet(&self) -> MutexGuard<'_, Quiet> {
        // Counts and a text are whole even after a panic.
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> Option<Trouble> {
        self.heard().clone()
    }

    fn forget(&self) {
        *self.heard() = None;
    }
}

impl ClientContext for Ear {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it comes as an error too, and is told with what it kept us from; but for brokers that hang up.
        let message = for_terminal(message);
        if self.closely && matches!(level, RDKafkaLogLevel::Debug) {
            return self.quiet().hear(facility, &message);
        }
        tracing::debug!(of = %self.topic, ?level, facility, "librdkafka: {message}");
        if facility == "FAIL" {
            let reason = message.split_once("]: ").map_or(&*message, |(_, reason)| reason).to_owned();
            self.heard().get_or_insert(Trouble { code: Code::BrokerTransportFailure, reason });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        tracing::debug!(of = %self.topic, %error, reason = %for_terminal(reason), "librdkafka tries on");
        let mut heard = self.heard();
        match code {
            // We have nothing to do with groups.
            Code::GroupAuthorizationFailed | Code::CoordinatorNotAvailable | Code::PartitionEOF => {}
            // It says less than what was before it.
            Code::AllBrokersDown if heard.is_some() => {}
            code => *heard = Some(Trouble { code, reason: for_terminal(reason).into_owned() }),
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.sasl.as_ref().ok_or("no token is configured")?.oauth_token()
    }
}

impl ConsumerContext for Ear {}

#[cfg(test)]
mod tests;
