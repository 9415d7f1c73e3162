//! A Kafka cluster, and topics in it.
//!
//! By default librdkafka's mock cluster, which needs nothing. With `LAPWING_TEST_KAFKA=host:port` a real one, such as
//! `tests/kafka/broker.sh start` runs. The mock answers no look-up by time, so nothing is read again there when partitions move,
//! and it has no limits for the size of messages: tests that need these say that they are skipped.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::message::OwnedMessage;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::house::House;
use crate::process::{PATIENCE, soon, until};

/// Partitions of every topic here.
pub(crate) const PARTITIONS: i32 = 3;
/// Longest wait for an answer of the broker.
pub(crate) const ASK: Duration = Duration::from_secs(10);

/// Held by all that work with the real brokers, and alone by who restarts them.
static BROKERS: RwLock<()> = RwLock::new(());

/// How the brokers are held.
enum Hold {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()>, directory: String },
}

/// What is done to a batch on a broker's disk.
pub(crate) type Spoil = fn(&mut [u8]);

/// A bit of the last message flips.
pub(crate) const FLIP: Spoil = |batch| batch[batch.len() - 9] ^= 1;
/// It has a format that nobody knows.
pub(crate) const FORMAT: Spoil = |batch| batch[16] = 7;
/// It is zeros, but for offset and length.
pub(crate) const ZERO: Spoil = |batch| batch[12..].fill(0);
/// It says that it is 64 further on, or further back.
pub(crate) const STRAY: Spoil = |batch| batch[7] ^= 64;
/// It says that it is longer than the whole log.
pub(crate) const LONG: Spoil = |batch| batch[8] = 0x3f;

/// A cluster.
pub(crate) struct Cluster {
    /// Its brokers, as clients name them.
    pub(crate) servers: String,
    /// It, if it is none of real brokers.
    pub(crate) mock: Option<MockCluster<'static, DefaultProducerContext>>,
    /// What sends to it.
    pub(crate) producer: BaseProducer,
    rng: fastrand::Rng,
    hold: Hold,
}

impl Cluster {
    /// The mock, or the real one if the suite was given one.
    pub(crate) fn new(seed: u64) -> Cluster {
        let guard = BROKERS.read().unwrap_or_else(PoisonError::into_inner);
        Cluster::held(seed, Hold::Shared { _guard: guard })
    }

    /// The real one, if the suite was given one. With `why` it is said what is skipped without.
    pub(crate) fn real(seed: u64, why: &str) -> Option<Cluster> {
        let real = std::env::var_os("LAPWING_TEST_KAFKA").is_some();
        if !real {
            println!("skipped: LAPWING_TEST_KAFKA is not set, and {why}");
        }
        real.then(|| Cluster::new(seed))
    }

    /// A real one whose brokers are restarted here, while no other test works with them.
    pub(crate) fn alone(seed: u64) -> Option<Cluster> {
        let directory = std::env::var("LAPWING_TEST_KAFKA_DIR").ok();
        if directory.is_none() || std::env::var_os("LAPWING_TEST_KAFKA").is_none() {
            println!(
                "skipped: it needs LAPWING_TEST_KAFKA, and LAPWING_TEST_KAFKA_DIR, the --dir of broker.sh"
            );
        }
        std::env::var_os("LAPWING_TEST_KAFKA")?;
        let guard = BROKERS.write().unwrap_or_else(PoisonError::into_inner);
        Some(Cluster::held(seed, Hold::Alone { _guard: guard, directory: directory? }))
    }

    fn held(seed: u64, hold: Hold) -> Cluster {
        let real = std::env::var("LAPWING_TEST_KAFKA").ok();
        let mock = real.is_none().then(|| MockCluster::new(1).unwrap());
        let servers = real.unwrap_or_else(|| mock.as_ref().unwrap().bootstrap_servers());
        let producer = producer(&servers);
        Cluster { servers, mock, producer, rng: fastrand::Rng::with_seed(seed), hold }
    }

    /// True if it is one of real brokers.
    pub(crate) fn is_real(&self) -> bool {
        self.mock.is_none()
    }

    /// Tells `broker.sh` to do something with the brokers, which must be held alone.
    pub(crate) fn brokers(&self, command: &str, arguments: &[&str]) {
        let Hold::Alone { directory, .. } = &self.hold else { panic!("the brokers are others' too") };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/broker.sh");
        let done = Command::new(script).args([command, "--dir", directory]).args(arguments).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Flips a bit of a text that stands in the middle of what a broker has of a partition, while the brokers, held alone, are down.
    pub(crate) fn damage(&self, topic: &str, partition: i32, text: &str) {
        let Hold::Alone { directory, .. } = &self.hold else { panic!("the brokers are others' too") };
        self.brokers("stop", &["--keep"]);
        let log = format!("{directory}/broker-1/data/{topic}-{partition}/00000000000000000000.log");
        let mut bytes = std::fs::read(&log).unwrap();
        let middle = bytes.len() / 2;
        let at = bytes[middle..].windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
        bytes[middle + at] ^= 1;
        std::fs::write(&log, bytes).unwrap();
        self.brokers("start", &[]);
    }

    /// Changes batches of partitions, by their numbers, in what a broker has on its disk, while the brokers, held alone, are down.
    pub(crate) fn spoil(&self, topic: &str, what: &[(i32, &[usize], Spoil)]) {
        let Hold::Alone { directory, .. } = &self.hold else { panic!("the brokers are others' too") };
        self.brokers("stop", &["--keep"]);
        for (partition, batches, spoil) in what {
            let log = format!("{directory}/broker-1/data/{topic}-{partition}/00000000000000000000.log");
            let mut bytes = std::fs::read(&log).unwrap();
            let (mut at, mut nth) = (0, 0);
            // Of a batch, the offset is in the first eight bytes, and its length without these and itself in the next four.
            while at + 12 <= bytes.len() {
                let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
                let next = at + 12 + length;
                if batches.contains(&nth) {
                    spoil(&mut bytes[at..next]);
                }
                (at, nth) = (next, nth + 1);
            }
            std::fs::write(&log, bytes).unwrap();
        }
        self.brokers("start", &[]);
    }

    /// Sends events to a partition in batches of this size.
    pub(crate) fn feed_batches(&self, topic: &str, partition: i32, size: usize, events: &[String]) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("linger.ms", "2000")
            .set("batch.num.messages", size.to_string())
            .create()
            .unwrap();
        for events in events.chunks(size) {
            for event in events {
                let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition);
                producer.send(record.payload(event.trim_end())).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(PATIENCE).unwrap();
        }
    }

    /// Deletes a topic of real brokers, and makes it again.
    pub(crate) fn make_anew(&self, topic: &str) {
        let deleted = waiting(self.admin().delete_topics(&[topic], &AdminOptions::new()));
        deleted.unwrap().remove(0).unwrap();
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1));
        until("the topic can be made again", || {
            let made = waiting(self.admin().create_topics([&new], &AdminOptions::new()));
            made.unwrap().remove(0).is_ok()
        });
    }

    pub(crate) fn client(&self, group: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap()
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap()
    }

    /// A new topic with a name of its own.
    pub(crate) fn topic(&self, name: &str) -> String {
        let topic = format!("{name}-{:08x}", fastrand::u32(..));
        self.make(&topic, &[]);
        topic
    }

    /// Gives a topic of real brokers more partitions, until it has so many, and waits until they can be written to.
    pub(crate) fn grow(&mut self, topic: &str, partitions: i32) {
        let new = NewPartitions::new(topic, partitions as usize);
        let made = waiting(self.admin().create_partitions([&new], &AdminOptions::new()));
        made.unwrap().remove(0).unwrap();
        until("the partitions are there", || {
            let client = self.client(topic);
            (0..partitions).all(|partition| client.fetch_watermarks(topic, partition, ASK).is_ok())
        });
        // What sends has to look again how many there are.
        self.producer = producer(&self.servers);
    }

    /// Makes a topic, with settings, which the mock does not have.
    pub(crate) fn make(&self, topic: &str, settings: &[(&str, &str)]) {
        if let Some(mock) = &self.mock {
            return mock.create_topic(topic, PARTITIONS, 1).unwrap();
        }
        let mut new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let made = waiting(self.admin().create_topics([&new], &AdminOptions::new()));
        made.unwrap().remove(0).unwrap();
    }

    /// Deletes all that is in a topic by now, as retention does. The mock keeps 5 MiB of a partition: there it is pushed out.
    pub(crate) fn delete_all(&mut self, topic: &str) {
        if self.is_real() {
            let mut until = TopicPartitionList::new();
            for partition in 0..PARTITIONS {
                let high = self.offsets(topic, topic, partition).1;
                until.add_partition_offset(topic, partition, Offset::Offset(high)).unwrap();
            }
            waiting(self.admin().delete_records(&until, &AdminOptions::new())).unwrap();
            return;
        }
        let large = "x".repeat(60_000);
        for nth in 0..400 {
            let line = format!("{{\"number\": {nth}, \"large\": \"{large}\"}}");
            self.send(topic, Some(nth % PARTITIONS), Some(line.as_bytes()));
        }
        self.flush();
    }

    /// Sends a message, to any partition if none is given.
    pub(crate) fn send(&mut self, topic: &str, partition: Option<i32>, payload: Option<&[u8]>) {
        let partition = partition.unwrap_or_else(|| self.rng.i32(0..PARTITIONS));
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition);
        record.payload = payload;
        self.produce(record);
    }

    /// Sends a message as if it had been written at this time, in milliseconds since 1970.
    pub(crate) fn send_of(&mut self, topic: &str, partition: i32, payload: &[u8], time: i64) {
        let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition);
        self.produce(record.payload(payload).timestamp(time));
    }

    fn produce(&mut self, mut record: BaseRecord<'_, (), [u8]>) {
        while let Err((error, again)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            self.producer.poll(Duration::from_millis(10));
            record = again;
        }
    }

    /// Waits until the brokers have what was sent.
    pub(crate) fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }

    /// Sends events, an event a message, and keeps them for the oracle.
    pub(crate) fn feed(&mut self, house: &House, topic: &str, events: &[String]) {
        remember(house, events);
        for event in events {
            self.send(topic, None, Some(event.trim_end().as_bytes()));
        }
        self.flush();
    }

    /// First and last offsets of a partition, and what the group has committed.
    pub(crate) fn offsets(&self, group: &str, topic: &str, partition: i32) -> (i64, i64, Option<i64>) {
        let mut answer = None;
        // Brokers that have just been started do not know all yet.
        until("the brokers say what offsets there are", || {
            answer = self.ask_offsets(group, topic, partition).ok();
            answer.is_some()
        });
        answer.unwrap()
    }

    fn ask_offsets(&self, group: &str, topic: &str, partition: i32) -> KafkaResult<(i64, i64, Option<i64>)> {
        let client = self.client(group);
        let (low, high) = client.fetch_watermarks(topic, partition, ASK)?;
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition);
        let committed = client.committed_offsets(wanted, ASK)?;
        let committed = match committed.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok((low, high, committed))
    }

    /// How many messages were ever written to a topic.
    pub(crate) fn written(&self, topic: &str) -> usize {
        (0..PARTITIONS).map(|partition| self.offsets(topic, topic, partition).1 as usize).sum()
    }

    /// True if a group has committed all that is in a topic.
    pub(crate) fn is_read(&self, group: &str, topic: &str) -> bool {
        (0..PARTITIONS).all(|partition| {
            let (_, high, committed) = self.offsets(group, topic, partition);
            committed == Some(high) || high == 0
        })
    }

    /// The group has handled all that is in a topic by now, as far as the brokers know.
    pub(crate) fn commit_all(&self, group: &str, topic: &str) {
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let high = self.offsets(group, topic, partition).1;
            all.add_partition_offset(topic, partition, Offset::Offset(high)).unwrap();
        }
        self.client(group).commit(&all, CommitMode::Sync).unwrap();
    }

    /// Everything in a topic, which is so many messages or more.
    pub(crate) fn read(&self, topic: &str, expected: usize) -> Vec<OwnedMessage> {
        let client = self.client("reader");
        let mut all = TopicPartitionList::new();
        all.add_partition_range(topic, 0, PARTITIONS - 1);
        all.set_all_offsets(Offset::Beginning).unwrap();
        client.assign(&all).unwrap();
        let mut messages = Vec::new();
        soon(PATIENCE, || {
            while let Some(message) = client.poll(Duration::from_millis(100)) {
                messages.push(message.unwrap().detach());
            }
            messages.len() >= expected
        });
        messages
    }
}

fn producer(servers: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .unwrap()
}

/// Waits for an answer to a question of an administrator.
fn waiting<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(answer)
}

/// Keeps events for the oracle.
pub(crate) fn remember(house: &House, events: &[String]) {
    let clean = house.path().join("clean.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).open(clean).unwrap();
    file.write_all(events.concat().as_bytes()).unwrap();
}
