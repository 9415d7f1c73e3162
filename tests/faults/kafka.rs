//! Events from topics, alerts to topics: members that are killed, stopped and suspended, brokers that go away, messages that
//! are deleted before they are read.
//!
//! By default against librdkafka's mock cluster, which needs nothing. With `LAPWING_TEST_KAFKA=host:port` against a real one,
//! such as `tests/kafka/broker.sh start` runs.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use rustix::process::Signal;
use serde_json::Value;

use crate::client;
use crate::events::Events;
use crate::house::House;
use crate::oracle::{self, Alerts};
use crate::process::{PATIENCE, scaled, soon, until};

/// Partitions of every topic here.
pub(crate) const PARTITIONS: i32 = 3;
/// Longest wait for an answer of the broker.
pub(crate) const ASK: Duration = Duration::from_secs(10);

/// A cluster.
pub(crate) struct Cluster {
    /// Where it is reached.
    pub(crate) servers: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    /// What sends to it.
    pub(crate) producer: BaseProducer,
    rng: fastrand::Rng,
}

impl Cluster {
    /// A mock cluster, or the real one if there is one.
    pub(crate) fn new(seed: u64) -> Cluster {
        let real = std::env::var("LAPWING_TEST_KAFKA").ok();
        let mock = real.is_none().then(|| MockCluster::new(1).unwrap());
        let servers = real.unwrap_or_else(|| mock.as_ref().unwrap().bootstrap_servers());
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &servers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .create()
            .unwrap();
        Cluster { servers, mock, producer, rng: fastrand::Rng::with_seed(seed) }
    }

    /// True if it is no mock.
    pub(crate) fn is_real(&self) -> bool {
        self.mock.is_none()
    }

    /// A consumer.
    pub(crate) fn client(&self, group: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap()
    }

    /// What rules it.
    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap()
    }

    /// A new topic with a name of its own.
    pub(crate) fn topic(&self, name: &str) -> String {
        let topic = format!("{name}-{:08x}", fastrand::u32(..));
        match &self.mock {
            Some(mock) => mock.create_topic(&topic, PARTITIONS, 1).unwrap(),
            None => {
                let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(-1));
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let made = runtime.block_on(self.admin().create_topics([&new], &AdminOptions::new()));
                made.unwrap().remove(0).unwrap();
            }
        }
        topic
    }

    /// Sends a message to a partition, or to any.
    pub(crate) fn send(&mut self, topic: &str, partition: Option<i32>, payload: Option<&[u8]>) {
        let partition = partition.unwrap_or_else(|| self.rng.i32(0..PARTITIONS));
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition);
        record.payload = payload;
        while let Err((error, again)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
            self.producer.poll(Duration::from_millis(10));
            record = again;
        }
    }

    /// Sends events, an event a message, and keeps them for the oracle.
    pub(crate) fn feed(&mut self, house: &House, topic: &str, events: &[String]) {
        remember(house, events);
        for event in events {
            self.send(topic, None, Some(event.trim_end().as_bytes()));
        }
        self.producer.flush(ASK).unwrap();
    }

    /// First and last offsets of a partition, and what the group has committed.
    pub(crate) fn offsets(&self, group: &str, topic: &str, partition: i32) -> (i64, i64, Option<i64>) {
        let client = self.client(group);
        let (low, high) = client.fetch_watermarks(topic, partition, ASK).unwrap();
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition);
        let committed = client.committed_offsets(wanted, ASK).unwrap();
        let committed = match committed.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        (low, high, committed)
    }

    /// Everything in a topic.
    pub(crate) fn read(&self, topic: &str, expected: usize) -> Vec<rdkafka::message::OwnedMessage> {
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

/// Keeps events for the oracle.
pub(crate) fn remember(house: &House, events: &[String]) {
    let clean = house.path().join("clean.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).open(clean).unwrap();
    file.write_all(events.concat().as_bytes()).unwrap();
}

/// A house that reads a topic, and the topic.
pub(crate) fn house(name: &'static str) -> (House, Cluster, String, Events) {
    let mut house = House::new(name);
    let cluster = Cluster::new(house.seed);
    let topic = cluster.topic(name);
    house.file = None;
    house.config = input(&cluster, &topic);
    let events = Events::new(house.seed, 200);
    (house, cluster, topic, events)
}

fn input(cluster: &Cluster, topic: &str) -> String {
    format!(
        "inputs:\n- {{type: kafka, bootstrap_servers: \"{}\", topics: [{topic}], group_id: {topic}, from: start, \
         commit_interval_ms: 200, session_timeout_ms: 6000}}\n",
        cluster.servers
    )
}

/// Nothing is committed that is not there, and in the end everything.
fn all_is_committed(cluster: &Cluster, topic: &str) {
    for partition in 0..PARTITIONS {
        let (_, high, committed) = cluster.offsets(topic, topic, partition);
        assert!(
            committed == Some(high) || high == 0,
            "{topic}/{partition} ends at {high}, and committed is {committed:?}"
        );
    }
}

#[test]
fn killed_while_a_topic_is_read() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-kill");
    let mut rng = fastrand::Rng::with_seed(house.seed);
    let mut lapwing = house.start();
    lapwing.ready();
    for _ in 0..scaled(5, 60) {
        cluster.feed(&house, &topic, &events.take(100));
        thread::sleep(Duration::from_millis(rng.u64(0..1500)));
        house.kill(lapwing);
        cluster.feed(&house, &topic, &events.take(20));
        lapwing = house.start();
    }
    house.most_duplicates = Some(usize::MAX);
    house.finish(lapwing, 0);
    all_is_committed(&cluster, &topic);
}

#[test]
fn stopped_and_started_nothing_comes_twice() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-stop");
    for _ in 0..scaled(3, 20) {
        let lapwing = house.start();
        cluster.feed(&house, &topic, &events.take(200));
        let expected = house.expected();
        house.all_come(&expected);
        lapwing.stop();
        all_is_committed(&cluster, &topic);
    }
    let lapwing = house.start();
    house.finish(lapwing, 0);
}

#[test]
fn whatever_a_message_holds_the_others_are_judged() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-poison");
    let lapwing = house.start();
    let lines = events.take(400);
    remember(&house, &lines);
    for (nth, line) in lines.iter().enumerate() {
        match nth % 8 {
            0 => cluster.send(&topic, None, None),
            1 => cluster.send(&topic, None, Some(b"{\"no\": \"event\"}")),
            2 => cluster.send(&topic, None, Some(b"\xff\x00 garbage")),
            3 => cluster.send(&topic, None, Some(b"{\"torn\": [")),
            _ => {}
        }
        let event: Value = serde_json::from_str(line).unwrap();
        let payload = match nth % 5 {
            0 => {
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(line.as_bytes()).unwrap();
                packed.finish().unwrap()
            }
            1 => serde_json::to_vec_pretty(&event).unwrap(),
            2 => client::event_list(&lines[nth..=nth]),
            3 => serde_json::to_vec(&serde_json::json!({"log": line, "stream": "stdout"})).unwrap(),
            _ => line.trim_end().as_bytes().to_vec(),
        };
        cluster.send(&topic, None, Some(&payload));
    }
    cluster.producer.flush(ASK).unwrap();
    let expected = house.expected();
    house.all_come(&expected);
    until("null messages are counted", || lapwing.metric("lapwing_kafka_null_messages_total") as u64 == 50);
    let letters = house.state.join("dead-letters");
    let stopping = lapwing.stop();
    let letters: String = std::fs::read_dir(&letters)
        .unwrap_or_else(|_| std::fs::read_dir(&house.state).unwrap())
        .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
        .collect();
    for partition in 0..PARTITIONS {
        assert!(letters.contains(&format!("{topic}/{partition}")), "dead letters name topic and partition");
    }
    all_is_committed(&cluster, &topic);
    house.judge(&expected, 0, stopping);
}

#[test]
fn what_was_deleted_before_it_was_read_is_told_exactly() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-gap");
    let lapwing = house.start();
    cluster.feed(&house, &topic, &events.take(200));
    let expected = house.expected();
    house.all_come(&expected);
    lapwing.stop();
    let committed: Vec<i64> =
        (0..PARTITIONS).map(|n| cluster.offsets(&topic, &topic, n).2.unwrap_or(0)).collect();
    let lost = events.take(600);
    if cluster.is_real() {
        for event in &lost {
            cluster.send(&topic, None, Some(event.trim_end().as_bytes()));
        }
        cluster.producer.flush(ASK).unwrap();
        let mut until = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let high = cluster.offsets(&topic, &topic, partition).1;
            until.add_partition_offset(&topic, partition, Offset::Offset(high)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deleted = runtime.block_on(cluster.admin().delete_records(&until, &AdminOptions::new()));
        deleted.unwrap();
    } else {
        // The mock cluster keeps 5 MiB of a partition.
        let large = "x".repeat(60_000);
        for nth in 0..400 {
            let line = format!("{{\"number\": {nth}, \"large\": \"{large}\"}}");
            cluster.send(&topic, Some(nth % PARTITIONS), Some(line.as_bytes()));
        }
        cluster.producer.flush(ASK).unwrap();
    }
    let gap: i64 = (0..PARTITIONS)
        .map(|number| (cluster.offsets(&topic, &topic, number).0 - committed[number as usize]).max(0))
        .sum();
    assert!(gap > 0, "something is gone");
    let mut lapwing = house.start();
    lapwing.ready();
    until("the gap is counted", || lapwing.metric("lapwing_kafka_gap_messages_total") as i64 == gap);
    cluster.feed(&house, &topic, &events.take(200));
    house.has_gaps = true;
    let expected = house.singles();
    house.all_come(&expected);
    let stopping = lapwing.stop();
    house.judge_singles(&expected, 0, stopping);
}

#[test]
fn suspended_for_longer_than_its_session() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-suspended");
    let mut lapwing = house.start();
    lapwing.ready();
    for _ in 0..scaled(1, 5) {
        cluster.feed(&house, &topic, &events.take(100));
        lapwing.signal(Signal::STOP);
        cluster.feed(&house, &topic, &events.take(100));
        thread::sleep(Duration::from_secs(8));
        lapwing.signal(Signal::CONT);
        cluster.feed(&house, &topic, &events.take(100));
    }
    house.most_duplicates = Some(usize::MAX);
    house.finish(lapwing, 0);
    all_is_committed(&cluster, &topic);
}

#[test]
fn an_output_that_takes_nothing_delays_no_commit() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-outage");
    house.receiver.set(crate::receiver::Mode::Refuse);
    let lapwing = house.start();
    cluster.feed(&house, &topic, &events.take(300));
    until("what waits in the log is committed", || {
        (0..PARTITIONS).all(|number| {
            let (_, high, committed) = cluster.offsets(&topic, &topic, number);
            committed == Some(high)
        })
    });
    house.receiver.set(crate::receiver::Mode::Accept);
    house.finish(lapwing, 0);
}

#[test]
fn without_a_state_directory_the_topic_keeps_what_no_output_has() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-stateless");
    house.state = "/proc/there-is-no-place-here".into();
    house.receiver.set(crate::receiver::Mode::Refuse);
    let lapwing = house.start();
    cluster.feed(&house, &topic, &events.take(300));
    until("an output is tried", || lapwing.metric("lapwing_output_failed_total") > 0.0);
    thread::sleep(Duration::from_secs(1)); // five commits
    let kept = |number| {
        let (_, high, committed) = cluster.offsets(&topic, &topic, number);
        committed.unwrap_or(0) < high
    };
    assert!((0..PARTITIONS).any(kept), "everything is committed, and no output has anything");
    house.kill(lapwing);
    house.receiver.set(crate::receiver::Mode::Accept);
    let lapwing = house.start();
    let expected = house.singles();
    house.all_come(&expected);
    let stopping = lapwing.stop();
    house.judge_singles(&expected, 0, stopping);
    all_is_committed(&cluster, &topic);
}

#[test]
fn alerts_come_to_a_topic_by_detector_and_actor() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-alerts");
    let alerts = cluster.topic("alerts");
    let output = format!(
        "outputs:\n- {{type: kafka, bootstrap_servers: \"{}\", topic: {alerts}, timeout: 2s}}\n",
        cluster.servers
    );
    house.config += &output;
    let mut lapwing = house.start();
    lapwing.ready();
    cluster.feed(&house, &topic, &events.take(200));
    if let Some(mock) = &cluster.mock {
        mock.broker_down(1).unwrap();
        thread::sleep(Duration::from_secs(3));
        mock.broker_up(1).unwrap();
    }
    cluster.feed(&house, &topic, &events.take(200));
    let expected: Alerts = house.expected();
    house.all_come(&expected);
    let stopping = lapwing.stop();
    let mut came = Alerts::new();
    for message in cluster.read(&alerts, expected.len()) {
        let alert: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        if oracle::is_of_the_run(&alert) {
            continue;
        }
        let headers = message.headers().unwrap();
        let header =
            |name: &str| headers.iter().find(|header| header.key == name).and_then(|header| header.value);
        assert_eq!(header("uuid"), alert["uuid"].as_str().map(str::as_bytes));
        assert_eq!(header("detector"), alert["detector"].as_str().map(str::as_bytes));
        assert_eq!(header("level"), alert["level"].as_str().map(str::as_bytes));
        assert_eq!(header("content-type"), Some(&b"application/json"[..]));
        assert!(message.key().unwrap().starts_with(header("detector").unwrap()));
        came.insert(alert["uuid"].as_str().unwrap().to_owned(), alert);
    }
    let missing: Vec<_> = expected.keys().filter(|uuid| !came.contains_key(*uuid)).collect();
    assert!(missing.is_empty() && came.len() == expected.len(), "{missing:?}");
    house.judge(&expected, 0, stopping);
}
