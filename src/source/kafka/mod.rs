//! Topics of a Kafka cluster, read as a member of a consumer group.
//!
//! Guarantees:
//!
//! - *An offset is committed once everything before it is handled and that is durable*, partition by partition, and never
//!   beyond. What a crash leaves uncommitted comes again; its alerts have the same uuids.
//! - *A lost position is told.* What the broker has deleted before it was read is a gap with its offsets and their number, and
//!   reading goes on at the oldest message that is left. A first start begins where the configuration says, and is no gap.
//! - *A slow lane slows nobody down.* Partitions are paused then, and polling goes on, so that the group does not take the
//!   member for dead.
//! - *One bad message stops nothing.* It goes to the dead letters with topic, partition and offset; one without a payload is
//!   counted and passed over. Messages that are damaged at the broker are passed over, and are a gap.
//!
//! The thread of an input is a [`Member`]; what the broker tells of the group comes to its [`group::Group`].

use std::collections::VecDeque;
use std::io::Read as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::outlet::{Outlet, Stop, Stopped};
use super::{Content, Delivery, Engines, Message, Messages, Notice, Room, Sender, What};
use crate::kafka::options::Options;
use crate::kafka::{Cluster, Sasl, Tls, place, refusal, try_consumer};
use crate::server::Readiness;
use crate::telemetry::Telemetry;
use crate::units::Text;
use bench::Bench;
use detectors::event::time::Nanos;
use group::{Group, Place, SOON, Waiting};
use history::Search;

pub(crate) mod address;
mod bench;
mod group;
pub(crate) mod history;
mod pattern;
#[cfg(test)]
mod tests;

/// Messages are handed over in batches of about this many bytes, which a core's cache holds.
const BATCH: usize = 256 << 10;
/// What is found in this many bytes is handed over at once, so that a backlog takes few syncs.
const JUDGED: usize = if cfg!(test) { 64 << 10 } else { 16 << 20 };
/// A message counts for so many bytes at least: of small ones, and of those without a payload, not too many are read at once.
const EACH: usize = 256;
/// Of what was judged, one byte in so many waits for room: while the lane is held up, not all of a topic is read ahead.
const AHEAD: usize = 16;
/// Payloads that begin so are packed.
const PACKED: &[u8] = &[0x1f, 0x8b];
/// One message, unpacked, is at most so large: what one event may be.
const LARGEST: u64 = 16 << 20;
/// How long to wait for messages at once.
const WAIT: Duration = Duration::from_millis(100);
/// And while a batch waits for the lane.
const HELD: Duration = Duration::from_millis(10);
/// For so long a busy lane is just waited for: what a paused partition has fetched ahead is thrown away, and fetched again.
const SHORT: Duration = Duration::from_secs(1);
/// The pause between two offers meanwhile.
const PAUSE: Duration = Duration::from_millis(1);
/// So often it is looked which messages are damaged before it is told that this cannot be found out.
const TRIES: u32 = 6;
/// So often, in milliseconds, librdkafka tells how the group, the brokers and the lag are. Tests do not wait that long.
const STATISTICS: &str = if cfg!(test) { "100" } else { "5000" };
/// The pause before it is looked again whether a partition can be read that is set aside.
const ASIDE: Duration = Duration::from_secs(60);
/// The pause before another try to join after the broker said that it is no use to go on.
const AGAIN: Duration = Duration::from_secs(10);

/// Topics of a Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `bootstrap_servers` and `topics`")]
pub(crate) struct Config {
    /// What alerts and metrics call the input.
    #[serde(default = "name")]
    pub(crate) name: String,
    /// Brokers to begin with: `host:port`, several with commas between.
    #[serde(deserialize_with = "place::servers")]
    pub(crate) bootstrap_servers: Text,
    /// Topics, or patterns over their names: POSIX extended regular expressions that begin with `^`.
    pub(crate) topics: Vec<Text>,
    /// The consumer group. All members of it share the partitions.
    #[serde(default = "group_id")]
    pub(crate) group_id: Text,
    /// Static membership: a name of this member that no other has at the same time, such as the pod's. Its partitions are kept
    /// for it over a restart.
    #[serde(default)]
    pub(crate) group_instance_id: Option<Text>,
    /// Where to begin in a partition of which the group has no position: `end` or `start`, or as Kafka calls them, `latest` or
    /// `earliest`.
    #[serde(default, alias = "auto_offset_reset")]
    pub(crate) from: From,
    /// Begin at the first message of this time or later (RFC 3339), where the group has no position.
    #[serde(default)]
    pub(crate) since: Option<Text>,
    /// Offsets are committed this often, in milliseconds.
    #[serde(default = "commit_interval_ms")]
    pub(crate) commit_interval_ms: u64,
    /// A member of which the broker has heard nothing for so long, in milliseconds, loses its partitions.
    #[serde(default = "session_timeout_ms")]
    pub(crate) session_timeout_ms: u64,
    /// How long a partition that is taken away may be held until what was read of it is handled, in milliseconds.
    #[serde(default)]
    pub(crate) drain_timeout_ms: Option<u64>,
    /// Who we are, to the broker.
    #[serde(default)]
    pub(crate) sasl: Option<Sasl>,
    /// TLS to the broker.
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
    /// Options of librdkafka, passed through.
    #[serde(default)]
    pub(crate) librdkafka_options: Options,
    /// The cluster that the events are of. Default: the configuration's.
    #[serde(default)]
    pub(crate) cluster: Option<Text>,
}

/// What messages are read for.
#[derive(Clone)]
pub(crate) enum Purpose {
    /// They are events, and matches are counted in this process.
    Whole(Engines),
    /// They are events, and matches are counted elsewhere.
    Part(Engines),
    /// They fill windows.
    Windows(LookBack),
}

impl Purpose {
    /// The detectors that judge them.
    fn engines(&self) -> Option<Engines> {
        match self {
            Purpose::Whole(engines) | Purpose::Part(engines) => Some(engines.clone()),
            Purpose::Windows(_) => None,
        }
    }
}

/// Windows are filled anew when a partition is given to the member: with the messages before the group's position that they can
/// reach back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookBack {
    /// How far a window of a message reaches back before the message's own time.
    pub(crate) reach: Nanos,
    /// The time of a message by its payload, which is no later than when it was written.
    pub(crate) time_of: fn(&[u8]) -> Option<Nanos>,
}

fn name() -> String {
    "kafka".to_owned()
}

fn group_id() -> Text {
    Text("lapwing".to_owned())
}

fn commit_interval_ms() -> u64 {
    5_000
}

fn session_timeout_ms() -> u64 {
    10_000
}

/// Where to begin without a position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum From {
    /// At the oldest message that is there.
    #[serde(alias = "earliest", alias = "smallest", alias = "beginning")]
    Start,
    /// After the newest.
    #[default]
    #[serde(alias = "latest", alias = "largest", alias = "checkpoint")]
    End,
}

impl Config {
    /// One topic, and the defaults.
    pub(crate) fn new(name: &str, bootstrap_servers: &Text, topic: &Text, group_id: &Text) -> Config {
        Config {
            name: name.to_owned(),
            bootstrap_servers: bootstrap_servers.clone(),
            topics: vec![topic.clone()],
            group_id: group_id.clone(),
            group_instance_id: None,
            from: From::default(),
            since: None,
            commit_interval_ms: commit_interval_ms(),
            session_timeout_ms: session_timeout_ms(),
            drain_timeout_ms: None,
            sasl: None,
            tls: None,
            librdkafka_options: Options::default(),
            cluster: None,
        }
    }

    /// Says what is wrong with it. Files that it names are read.
    ///
    /// # Errors
    /// What, and what to write instead.
    pub(crate) fn check(&self) -> Result<()> {
        let of = || format!("input `{}`", self.name);
        let client = self.client().with_context(of)?;
        self.since_millis().with_context(of)?;
        ensure!(!self.topics.is_empty(), "{} names no topic: write `topics: [k8s-audit]`", of());
        for topic in self.names() {
            pattern::check_topic(topic).with_context(|| format!("{}: topics", of()))?;
        }
        ensure!(!self.group_id.0.trim().is_empty(), "{}: group_id is empty: write `group_id: lapwing`", of());
        self.check_heartbeat().with_context(of)?;
        try_consumer(&client, &self.names().collect::<Vec<_>>()).with_context(of)
    }

    /// A member that says too seldom that it lives loses its partitions, again and again.
    fn check_heartbeat(&self) -> Result<()> {
        let interval = self.librdkafka_options.get("heartbeat.interval.ms");
        // What is no number, librdkafka refuses.
        let interval: Option<u64> = interval.and_then(|interval| interval.trim().parse().ok());
        let Some(interval) = interval.filter(|interval| *interval >= self.session_timeout_ms.div_ceil(2))
        else {
            return Ok(());
        };
        bail!(
            "librdkafka_options.heartbeat.interval.ms: {interval} is too long for session_timeout_ms, which is {}: one heartbeat \
             that is late would cost the member its partitions; write at most a third, {}, or leave it out",
            self.session_timeout_ms,
            self.session_timeout_ms / 3
        )
    }

    /// Its topics and patterns.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|topic| topic.0.as_str())
    }

    /// The time from which on messages are wanted, in milliseconds since 1970.
    fn since_millis(&self) -> Result<Option<i64>> {
        let Some(since) = &self.since else { return Ok(None) };
        match chrono::DateTime::parse_from_rfc3339(&since.0) {
            Ok(time) => Ok(Some(time.timestamp_millis())),
            Err(_) => bail!("since: `{}` is no time: write 2026-03-01T10:00:00Z", since.0),
        }
    }

    /// What a member of the group tells librdkafka.
    fn client(&self) -> Result<rdkafka::ClientConfig> {
        let mut ours = vec![
            ("group.id", self.group_id.0.clone()),
            ("session.timeout.ms", self.session_timeout_ms.to_string()),
            ("enable.partition.eof", "false".to_owned()),
        ];
        if let Some(instance) = &self.group_instance_id {
            ours.push(("group.instance.id", instance.0.clone()));
        }
        self.reader(
            ours,
            &[
                ("heartbeat.interval.ms", &(self.session_timeout_ms / 3).clamp(1, 3_000).to_string()),
                ("partition.assignment.strategy", "cooperative-sticky"),
                ("max.poll.interval.ms", "300000"),
                ("statistics.interval.ms", STATISTICS),
            ],
        )
    }

    /// What everybody who reads tells librdkafka, with `ours`, on which guarantees rest, and what else is not passed through.
    fn reader(
        &self,
        mut ours: Vec<(&str, String)>,
        others: &[(&str, &str)],
    ) -> Result<rdkafka::ClientConfig> {
        ours.extend([
            // Nothing is committed by itself: a position is true only when what is before it is durable.
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            // A position that is gone is an error, which we tell, and not a silent jump.
            ("auto.offset.reset", "error".to_owned()),
            // Damage is told, and not judged.
            ("check.crcs", "true".to_owned()),
        ]);
        let cluster = Cluster {
            bootstrap_servers: self.bootstrap_servers.clone(),
            sasl: self.sasl.clone(),
            tls: self.tls.clone(),
            options: self.librdkafka_options.clone(),
        };
        ensure!(
            !self.librdkafka_options.has("statistics.interval.ms"),
            "librdkafka_options.statistics.interval.ms: Lapwing sets this itself, /readyz and the lag are made of these \
             statistics: leave it out"
        );
        let mut client = cluster.client(&ours)?;
        let all = [
            ("isolation.level", "read_committed"),
            ("queued.max.messages.kbytes", "8192"),
            // By default a broker may answer with 50 MB at once. What comes in pieces that caches hold is taken faster; a message
            // that is larger comes all the same.
            ("fetch.max.bytes", "2097152"),
            ("fetch.message.max.bytes", "1048576"),
            // A full queue is looked at again this soon; by default fetching rests for a second.
            ("fetch.queue.backoff.ms", "1"),
            ("allow.auto.create.topics", "false"),
            // What the client would measure for the broker costs a lock a message.
            ("enable.metrics.push", "false"),
            ("topic.metadata.refresh.interval.ms", "30000"),
        ];
        for (key, value) in all.iter().chain(others) {
            if self.librdkafka_options.get(key).is_none() {
                client.set(*key, *value);
            }
        }
        Ok(client)
    }
}

/// Joins the group on a thread of its own. The thread ends when `stop` is said, after the lane has ended or handled what it was
/// given; it commits that, and leaves the group.
///
/// # Errors
/// The configuration is wrong, or the system gives no thread.
pub(crate) fn start(
    config: &Config,
    purpose: Purpose,
    sender: Sender,
    room: Room,
    stop: Stop,
    telemetry: Arc<Telemetry>,
    readiness: Readiness,
) -> Result<JoinHandle<()>> {
    config.check()?;
    telemetry.member(&config.name);
    readiness.group(&config.name, "not yet a member".to_owned(), Some(false));
    let outlet = Outlet::new(sender, room, stop, telemetry)?;
    let config = config.clone();
    thread::Builder::new()
        .name("kafka".to_owned())
        .spawn(move || stay(&config, &purpose, outlet, &readiness))
        .context("cannot start the thread of a Kafka input")
}

/// Joins again when the broker has put the member out for good.
fn stay(config: &Config, purpose: &Purpose, mut outlet: Outlet, readiness: &Readiness) {
    let _gone = Gone(&config.name, readiness);
    loop {
        let reason = match consumer(config, purpose, &outlet, readiness.clone()) {
            Ok(consumer) => match Member::new(config, consumer, outlet).run(purpose.engines()) {
                None => return,
                Some((error, back)) => {
                    outlet = back;
                    error.to_string()
                }
            },
            Err(error) => format!("{error:#}"),
        };
        readiness.group(&config.name, "not a member".to_owned(), Some(false));
        let input: Arc<str> = config.name.as_str().into();
        let identity = format!("kafka:{}:{reason}", config.name);
        let message = format!("{reason}; another try is made in {} seconds", AGAIN.as_secs());
        let told = outlet.notify(Notice { input, part: None, what: What::Unreadable, message, identity });
        if told.is_err() || outlet.stop.pause(AGAIN) {
            return;
        }
    }
}

/// However the thread of an input ends, the input reads nothing any more.
struct Gone<'a>(&'a str, &'a Readiness);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.1.group(self.0, "not a member".to_owned(), Some(false));
    }
}

/// A consumer that has subscribed, and what commits for it.
fn consumer(
    config: &Config,
    purpose: &Purpose,
    outlet: &Outlet,
    readiness: Readiness,
) -> Result<(Arc<BaseConsumer<Group>>, Committer)> {
    let group = Group::new(config, purpose.clone(), Arc::clone(&outlet.telemetry), readiness)?;
    let consumer: BaseConsumer<Group> = config.client()?.create_with_context(group).map_err(refusal)?;
    consumer.subscribe(&config.names().collect::<Vec<_>>()).context("cannot subscribe to the topics")?;
    consumer.context().look_around(&consumer, SOON);
    let consumer = Arc::new(consumer);
    let committer = Committer::start(&consumer).context("cannot start the thread that commits")?;
    Ok((consumer, committer))
}

/// Commits on a thread of its own: a broker that does not answer must not keep the member from polling.
struct Committer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Committer {
    fn start(consumer: &Arc<BaseConsumer<Group>>) -> std::io::Result<Committer> {
        let consumer = Arc::clone(consumer);
        let (wake, woken) = sync_channel(1);
        let work = move || {
            while woken.recv().is_ok() {
                consumer.context().commit(&consumer);
            }
        };
        let thread = thread::Builder::new().name("kafka-commit".to_owned()).spawn(work)?;
        Ok(Committer { wake, thread })
    }

    /// Has it commit what is handled, once it has done what it is at.
    fn wake(&self) {
        // If that cannot be said it was said already.
        let _ = self.wake.try_send(());
    }

    /// Waits for what it is at.
    fn end(self) {
        drop(self.wake);
        // That it died is told by the hook for panics, and what it did not commit comes again.
        let _ = self.thread.join();
    }
}

/// Why a member ends.
enum End {
    /// It was told to.
    Stopped,
    /// The broker, or librdkafka, will have nothing more to do with it.
    Fatal(KafkaError),
}

impl std::convert::From<Stopped> for End {
    fn from(_: Stopped) -> End {
        End::Stopped
    }
}

/// Messages of a partition, one behind the other.
#[derive(Default)]
pub(crate) struct Gathered {
    /// Their payloads.
    pub(crate) bytes: Vec<u8>,
    /// Where each stands in them.
    pub(crate) messages: Vec<Message>,
}

/// What is read of a partition, until it is handed over.
struct Stretch {
    /// Topic and partition, as evidence names them.
    stream: Arc<str>,
    /// Topic and partition. None if the partition has just been given to us, which the lane is to know although nothing is in it.
    of: Option<(String, i32)>,
    content: Content,
    /// How many bytes were read.
    bytes: usize,
    /// The offset that follows, if there is one to be committed.
    next: Option<i64>,
    /// It is read since partitions were given to the member so many times.
    given: u64,
    /// Nothing more is judged into it.
    closed: bool,
}

/// A partition that cannot be read, and holds up no others.
struct Aside {
    topic: String,
    number: i32,
    /// Where it stands.
    at: i64,
    /// When it was looked at last.
    since: Instant,
    /// It is being looked at.
    search: Option<JoinHandle<Search>>,
}

/// One member of the group.
struct Member {
    config: Config,
    input: Arc<str>,
    cluster: Option<Arc<str>>,
    consumer: Arc<BaseConsumer<Group>>,
    committer: Committer,
    outlet: Outlet,
    /// A message that came when other detectors were in force already, and how often partitions had been given then.
    carried: Option<(OwnedMessage, u64)>,
    /// What has been read. Messages of another partition than the last one's begin another.
    read: VecDeque<Stretch>,
    /// What the lane has not been told yet.
    notices: VecDeque<Notice>,
    /// What the lane has not taken yet, and how many bytes wait with it.
    held: Option<(Messages, usize, Option<Waiting>)>,
    /// When none was held last.
    held_since: Instant,
    paused: bool,
    /// A position is lost, and the partition not read since.
    adrift: bool,
    /// Messages of a partition are damaged, and it is not read since.
    damaged: Option<RDKafkaErrorCode>,
    /// When it was not found out which, and how often.
    searched: Option<(Instant, u32)>,
    /// Partitions that are not read now.
    aside: Vec<Aside>,
    commit_every: Duration,
    committed: Instant,
}

impl Member {
    fn new(
        config: &Config,
        (consumer, committer): (Arc<BaseConsumer<Group>>, Committer),
        outlet: Outlet,
    ) -> Member {
        Member {
            config: config.clone(),
            input: config.name.as_str().into(),
            cluster: config.cluster.as_ref().map(|cluster| cluster.0.as_str().into()),
            consumer,
            committer,
            outlet,
            carried: None,
            read: VecDeque::new(),
            notices: VecDeque::new(),
            held: None,
            held_since: Instant::now(),
            paused: false,
            adrift: false,
            damaged: None,
            searched: None,
            aside: Vec::new(),
            commit_every: Duration::from_millis(config.commit_interval_ms.max(1)),
            committed: Instant::now(),
        }
    }

    /// Reads until the end. Returns why, and the way to the lane, unless it was told to stop.
    fn run(mut self, mut engines: Option<Engines>) -> Option<(KafkaError, Outlet)> {
        let end = loop {
            let turned = match &mut engines {
                Some(engines) => self.judge(engines),
                None => self.turn(&mut None),
            };
            if let Err(end) = turned {
                break end;
            }
        };
        let Member { consumer, committer, outlet, .. } = self;
        let again = match end {
            // The lane ends once nobody can hand it more; until then it answers, or drops what it does not handle.
            End::Stopped => {
                drop(outlet);
                None
            }
            End::Fatal(error) => Some((error, outlet)),
        };
        consumer.context().settle(true);
        committer.end();
        consumer.context().commit(&consumer);
        consumer.context().leave();
        again
    }

    /// Reads and judges until other detectors are in force.
    fn judge(&mut self, engines: &mut Engines) -> Result<(), End> {
        let engine = Arc::clone(&engines.borrow_and_update());
        let mut bench = Some(Bench::new(&engine, engines.clone()));
        while !bench.as_ref().is_some_and(Bench::is_old) {
            self.turn(&mut bench)?;
        }
        Ok(())
    }

    /// Reads a while, and does what is due.
    fn turn(&mut self, bench: &mut Option<Bench<'_>>) -> Result<(), End> {
        if self.outlet.stop.is_said() {
            return Err(End::Stopped);
        }
        self.consumer.context().settle(false);
        if self.committed.elapsed() >= self.commit_every || self.consumer.context().has_begun() {
            self.committed = Instant::now();
            self.committer.wake();
            if self.paused {
                self.consumer.context().ask_lag(&self.consumer);
            }
        }
        if self.damaged.is_some() && self.searched.is_none_or(|(at, _)| at.elapsed() >= AGAIN) {
            self.pass_over();
        }
        self.look_aside();
        if self.adrift {
            self.tell_read();
            self.carried = None; // it comes again
            self.adrift = !self.consumer.context().reset(&self.consumer);
        }
        self.tell()?;
        let given = self.consumer.context().given();
        for (stream, next) in self.consumer.context().take_given() {
            self.read.push_back(Stretch { next, ..Stretch::new(stream, None, given, bench.as_ref()) });
        }
        self.offer()?;
        if self.held.is_none() {
            self.held_since = Instant::now();
        } else if self.held_since.elapsed() < SHORT {
            self.outlet.stop.pause(PAUSE);
            return Ok(());
        }
        self.keep_pace();
        let done = self.read(bench);
        if let (Some(last), Some(bench)) = (self.read.back_mut(), bench) {
            last.close(bench);
        }
        if self.consumer.context().given() != given {
            self.drop_what_was_taken();
        }
        done?;
        while self.held.is_none() && !self.read.is_empty() {
            self.hand_over();
            self.offer()?;
        }
        Ok(())
    }

    /// What was read of partitions that were taken from the member is others' to read, and was not committed.
    fn drop_what_was_taken(&mut self) {
        let group = self.consumer.context();
        self.read.retain(|read| group.has(&read.stream));
        self.held.take_if(|(messages, ..)| !group.has(&messages.stream));
    }

    /// Polls until there is enough to be handed over, or nothing more is there.
    fn read(&mut self, bench: &mut Option<Bench<'_>>) -> Result<(), End> {
        let mut wait = if self.held.is_some() { HELD } else { WAIT };
        let enough = if bench.is_some() { JUDGED } else { BATCH };
        let mut weight = 0;
        if let Some((message, given)) = self.carried.take() {
            weight += self.take(&message, false, given, bench).max(EACH);
            wait = Duration::ZERO;
        }
        // The message is the consumer's, and the rest of the member is changed meanwhile.
        let consumer = Arc::clone(&self.consumer);
        while weight < enough && (self.held.is_none() || !wait.is_zero()) {
            match consumer.poll(wait) {
                Some(Ok(message)) => {
                    let again = match consumer.context().place(&consumer, &message) {
                        Place::New => false,
                        Place::Again => true,
                        Place::Later => break,
                        Place::Nowhere(error) => return Err(End::Fatal(error)),
                    };
                    let given = consumer.context().given();
                    if bench.as_ref().is_some_and(Bench::is_old) {
                        self.carried = Some((message.detach(), given));
                        break;
                    }
                    weight += self.take(&message, again, given, bench).max(EACH);
                }
                Some(Err(error)) => {
                    self.failed(error)?;
                    break;
                }
                None => break,
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Takes a message. Returns for how many bytes it counts.
    fn take(
        &mut self,
        message: &impl rdkafka::Message,
        again: bool,
        given: u64,
        bench: &mut Option<Bench<'_>>,
    ) -> usize {
        let stretch = stretch(&mut self.read, message.topic(), message.partition(), given, bench);
        let taken = stretch.take(&self.input, message, again, bench);
        if taken.is_none() {
            self.outlet.telemetry.null_message(&self.input);
        }
        taken.unwrap_or(0)
    }

    /// Tells the lane what there is to be told, as far as it can listen now.
    fn tell(&mut self) -> Result<(), End> {
        self.notices.extend(self.consumer.context().take_notices());
        while let Some(notice) = self.notices.pop_front() {
            if let Some(Delivery::Notice(notice)) = self.outlet.offer(Delivery::Notice(notice))? {
                self.notices.push_front(notice);
                break;
            }
        }
        Ok(())
    }

    /// What has been read of a partition goes to the lane.
    fn hand_over(&mut self) {
        let Some(read) = self.read.pop_front() else { return };
        let Stretch { stream, of, content, bytes, next, given, closed: _ } = read;
        let weight = content.weight() + bytes / AHEAD;
        let (reply, handled) = oneshot::channel();
        let group = self.consumer.context();
        let waiting = next.map(|next| group.waiting(Arc::clone(&stream), next, given, handled));
        if bytes == 0 && of.is_some() {
            // Nothing but positions; dropping the reply would say that they are not handled.
            return group.handed(waiting.map(Waiting::empty));
        }
        let messages = Messages {
            input: Arc::clone(&self.input),
            stream,
            cluster: self.cluster.clone(),
            bytes,
            content,
            reply: next.map(|_| reply),
            room: None,
        };
        self.held = Some((messages, weight, waiting));
    }

    /// Offers what is held to the lane, without waiting for it. What there is to be told goes before: a position behind a gap is
    /// committed only once the gap is told.
    fn offer(&mut self) -> Result<(), End> {
        if !self.notices.is_empty() {
            return Ok(());
        }
        let Some((mut messages, weight, waiting)) = self.held.take() else { return Ok(()) };
        if messages.room.is_none() {
            messages.room = self.outlet.try_take(weight);
        }
        if messages.room.is_none() {
            self.held = Some((messages, weight, waiting));
            return Ok(());
        }
        match self.outlet.offer(Delivery::Messages(messages))? {
            None => self.consumer.context().handed(waiting),
            Some(Delivery::Messages(messages)) => self.held = Some((messages, weight, waiting)),
            Some(_) => {}
        }
        Ok(())
    }

    /// Pauses all partitions while the lane is busy, and lets them go on afterwards.
    fn keep_pace(&mut self) {
        // Nothing behind damaged messages is read before it is known where they end.
        let busy = self.held.is_some() || self.damaged.is_some();
        // A partition that was taken while it was paused is paused still when it comes again.
        let changed = self.consumer.context().take_changed();
        if busy == self.paused && !changed {
            return;
        }
        let Ok(assignment) = self.consumer.assignment() else { return };
        self.aside.retain(|one| assignment.find_partition(&one.topic, one.number).is_some());
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for one in assignment.elements() {
            let aside = self.aside.iter().any(|aside| aside.is(one.topic(), one.partition()));
            let list = if busy || aside { &mut pause } else { &mut resume };
            list.add_partition(one.topic(), one.partition());
        }
        let done = self.consumer.pause(&pause).and_then(|()| self.consumer.resume(&resume));
        match done {
            Ok(()) => self.paused = busy,
            Err(error) => {
                self.paused = !busy;
                tracing::debug!(input = %self.input, %error, "partitions cannot be paused or resumed now");
            }
        }
    }

    /// The group is told how far partitions have been read, though not all of that has been handed over.
    fn tell_read(&self) {
        for read in &self.read {
            if let Some(next) = read.next {
                self.consumer.context().read(&read.stream, next, read.given);
            }
        }
    }

    /// Finds which messages are damaged, so that what follows them is read.
    fn pass_over(&mut self) {
        let Some(code) = self.damaged else { return };
        self.tell_read();
        let (config, aside) = (&self.config, &self.aside);
        let damaged = |topic: &str, number: i32, range: Range<i64>| {
            if aside.iter().any(|one| one.is(topic, number)) {
                return Search::Sound; // it is known, and not read
            }
            history::damaged(config, topic, number, range)
        };
        let (found, unknown) = self.consumer.context().pass_over(&self.consumer, damaged);
        (self.damaged, self.adrift) = (None, true);
        if found > 0 || !unknown.is_empty() {
            self.searched = None;
            for (topic, number, at, reason) in unknown {
                self.set_aside(topic, number, at, &reason);
            }
            return;
        }
        let times = self.searched.map_or(0, |(_, times)| times) + 1;
        self.searched = Some((Instant::now(), times));
        if times.is_multiple_of(TRIES) {
            let message = format!("messages are damaged ({code}), and it cannot be found out which");
            self.unreadable(message, format!("kafka:{}:{code}", self.input));
        }
    }

    /// A partition is not read for a while, so that the others are.
    fn set_aside(&mut self, topic: String, number: i32, at: i64, reason: &str) {
        let name = stream(&topic, number);
        let message = format!(
            "{name}, at offset {at}: {reason}; nothing of it is read, and it is looked at again every {} seconds",
            ASIDE.as_secs()
        );
        self.notices.push_back(Notice {
            input: Arc::clone(&self.input),
            part: Some(name.clone()),
            what: What::Unreadable,
            message,
            identity: format!("kafka:{name}:aside:{at}"),
        });
        self.aside.push(Aside { topic, number, at, since: Instant::now(), search: None });
        self.paused = true; // so that it is looked anew which are
    }

    /// Looks whether partitions that are set aside can be read, on threads of their own: it takes a while.
    fn look_aside(&mut self) {
        let mut aside = std::mem::take(&mut self.aside);
        aside.retain_mut(|one| {
            match one.search.take_if(|search| search.is_finished()).map(JoinHandle::join) {
                None => {
                    if one.search.is_none() && one.since.elapsed() >= ASIDE {
                        one.look(&self.config, &self.consumer);
                    }
                    return true;
                }
                Some(Ok(Search::Sound)) => {}
                Some(Ok(Search::Damaged(end, reason))) => {
                    let name = stream(&one.topic, one.number);
                    self.consumer.context().passed_over(&name, one.at..end, &reason);
                }
                Some(Ok(Search::Unknown(_)) | Err(_)) => {
                    one.since = Instant::now();
                    return true;
                }
            }
            // It is given to the consumer anew, and goes on then.
            (self.adrift, self.paused) = (true, true);
            false
        });
        self.aside = aside;
    }

    /// Has it told that something cannot be read, once for all that wait to be told.
    fn unreadable(&mut self, message: String, identity: String) {
        let input = Arc::clone(&self.input);
        let notice = Notice { input, part: None, what: What::Unreadable, message, identity };
        if !self.notices.contains(&notice) {
            self.notices.push_back(notice);
        }
    }

    /// An error instead of a message.
    fn failed(&mut self, error: KafkaError) -> Result<(), End> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => return Err(End::Fatal(error)),
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.adrift = true,
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => {
                self.outlet.telemetry.broker_error(&self.input, &error.to_string());
                let message =
                    format!("nothing can be read: {error}: the user needs the ACLs READ and DESCRIBE");
                self.unreadable(message, format!("kafka:{}:{error}", self.input));
            }
            KafkaError::MessageConsumption(code) if history::is_damage(code) => {
                self.outlet.telemetry.broker_error(&self.input, &error.to_string());
                self.damaged = Some(code);
            }
            // librdkafka goes on by itself.
            error => self.outlet.telemetry.broker_error(&self.input, &error.to_string()),
        }
        Ok(())
    }
}

impl Aside {
    fn is(&self, topic: &str, number: i32) -> bool {
        self.number == number && self.topic == topic
    }

    fn look(&mut self, config: &Config, consumer: &BaseConsumer<Group>) {
        self.since = Instant::now();
        let Ok((_, high)) = consumer.fetch_watermarks(&self.topic, self.number, SOON) else { return };
        let (config, topic, number, at) = (config.clone(), self.topic.clone(), self.number, self.at);
        let look = move || history::damaged(&config, &topic, number, at..high);
        // Without a thread now, there may be one later.
        self.search = thread::Builder::new().name("kafka-search".to_owned()).spawn(look).ok();
    }
}

/// What messages of a partition are read into: the last one, or another.
fn stretch<'r>(
    all: &'r mut VecDeque<Stretch>,
    topic: &str,
    partition: i32,
    given: u64,
    bench: &mut Option<Bench<'_>>,
) -> &'r mut Stretch {
    let of = |last: &Stretch| {
        !last.closed
            && last.given == given
            && last.of.as_ref().is_some_and(|of| of.1 == partition && of.0 == topic)
    };
    if !all.back().is_some_and(of) {
        if let (Some(last), Some(bench)) = (all.back_mut(), bench.as_mut()) {
            last.close(bench);
        }
        let of = Some((topic.to_owned(), partition));
        all.push_back(Stretch::new(stream(topic, partition).into(), of, given, bench.as_ref()));
    }
    all.back_mut().expect("one is there, or was added")
}

impl Stretch {
    fn new(stream: Arc<str>, of: Option<(String, i32)>, given: u64, bench: Option<&Bench<'_>>) -> Stretch {
        let content = match bench {
            Some(bench) => bench.content(),
            // With room for the message that fills it up.
            None => Content::Payloads(Gathered {
                bytes: Vec::with_capacity(BATCH + BATCH / 4),
                messages: Vec::new(),
            }),
        };
        Stretch { stream, of, content, bytes: 0, next: None, given, closed: false }
    }

    /// What was seen goes with it, and what comes later begins another: it may wait for the lane while other detectors come.
    fn close(&mut self, bench: &mut Bench<'_>) {
        if !std::mem::replace(&mut self.closed, true) {
            bench.close(&mut self.content);
        }
    }

    /// Takes a message. Returns for how many bytes it counts; `None` if it has no payload.
    fn take(
        &mut self,
        input: &str,
        message: &impl rdkafka::Message,
        again: bool,
        bench: &mut Option<Bench<'_>>,
    ) -> Option<usize> {
        let offset = message.offset();
        self.next = Some(offset + 1);
        let payload = payload(message)?;
        let (bytes, weight) = match (&mut self.content, bench) {
            (Content::Judged(_, judged), Some(bench)) => {
                bench.judge((input, &self.stream), offset as u64, payload, judged)
            }
            (Content::Judged(..), None) => unreachable!("what is judged has a bench"),
            (Content::Payloads(gathered), _) => {
                let bytes = gathered.take(offset as u64, payload, again);
                (bytes, bytes + size_of::<Message>())
            }
        };
        self.bytes += bytes;
        Some(weight)
    }
}

impl Gathered {
    /// Takes a message: its payload, unpacked if it is packed, and its offset. Returns how many bytes that were.
    pub(crate) fn take(&mut self, offset: u64, payload: &[u8], again: bool) -> usize {
        let start = self.bytes.len();
        if payload.starts_with(PACKED) {
            unpack(payload, &mut self.bytes);
        } else {
            self.bytes.extend_from_slice(payload);
        }
        let end = self.bytes.len();
        self.messages.push(Message { offset, start: start as u32, end: end as u32, again });
        end - start
    }
}

/// What a message holds, if that is anything.
fn payload(message: &impl rdkafka::Message) -> Option<&[u8]> {
    message.payload().filter(|payload| !payload.is_empty())
}

/// Appends what is in a packed payload. Of one that is damaged, or too large inside, that is what can be unpacked, and then a
/// line that is no event, so that the damage is counted and the payload is a dead letter: a record separator (RFC 7464),
/// which ends whatever is open, what is wrong, and the payload in base64, which is one record and ends no list early.
fn unpack(payload: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    let mut inside = MultiGzDecoder::new(payload).take(LARGEST + 1);
    let unpacked = inside.read_to_end(into);
    let what = match unpacked {
        Ok(length) if length as u64 <= LARGEST => return,
        Ok(_) => "gzip of more than 16 MiB",
        Err(_) => "damaged gzip",
    };
    into.truncate(start + LARGEST as usize);
    into.extend_from_slice(format!("\n\x1e{what} {}", STANDARD.encode(payload)).as_bytes());
}

/// Has the consumer read other partitions, or the same ones from elsewhere.
fn assign_anew<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &TopicPartitionList,
) -> Result<(), KafkaError> {
    consumer.unassign()?;
    wait_for_stops(consumer);
    consumer.assign(partitions)
}

/// Waits until partitions that were taken from the consumer have stopped. One that is given and taken again before that ends the
/// process (an assertion in `rd_kafka_assignment_partition_stopped`, as of librdkafka 2.12). Its main thread answers questions in
/// order: the first stands behind the orders to stop, the second behind the word that this is done.
fn wait_for_stops<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    for _ in 0..2 {
        // Only that it answers is of interest.
        let _ = consumer.assignment();
    }
}

/// What evidence and metrics call a partition.
fn stream(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}
