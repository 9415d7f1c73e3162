//! Events from topics, alerts to topics: members that are killed, stopped and suspended, brokers that go away, messages that
//! are deleted before they are read.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rdkafka::Message as _;
use rdkafka::message::Headers as _;
use rustix::process::Signal;
use serde_json::Value;

use crate::client;
use crate::cluster::{Cluster, FLIP, FORMAT, PARTITIONS, ZERO, remember};
use crate::events::Events;
use crate::house::House;
use crate::oracle::{self, Alerts};
use crate::process::{Lapwing, scaled, soon, until};

/// An event that raises nothing.
const QUIET: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/livez","verb":"get","user":{"username":"system:apiserver"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-03-01T10:00:00.000000Z","stageTimestamp":"2026-03-01T10:00:00.000000Z"}"#;

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

/// Events behind a gap come, and in the end everything is committed.
fn what_follows_comes(house: House, cluster: &mut Cluster, topic: &str, lapwing: Lapwing, events: &[String]) {
    cluster.feed(&house, topic, events);
    let expected = house.singles();
    house.all_come(&expected);
    let stopping = lapwing.stop();
    house.judge_singles(&expected, 0, stopping);
    all_is_committed(cluster, topic);
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
    // More at once than one batch keeps of what is no event.
    for _ in 0..3_000 {
        cluster.send(&topic, Some(0), Some(b"nothing that anybody knows"));
    }
    cluster.flush();
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
    cluster.flush();
    let expected = house.expected();
    house.all_come(&expected);
    until("null messages are counted", || lapwing.metric("lapwing_kafka_null_messages_total") as u64 == 50);
    until("all that is no event is kept", || {
        lapwing.metric("lapwing_input_dlq_records_total") as u64 == 3_000 + 3 * 50
    });
    assert_eq!(lapwing.metric("lapwing_input_dlq_dropped_total") as u64, 0);
    let stopping = lapwing.stop();
    let told = letters(&house);
    for partition in 0..PARTITIONS {
        let stream = format!("{topic}/{partition}");
        let of = |letter: &&Value| letter["stream"].as_str().is_some_and(|name| name.starts_with(&stream));
        assert!(told.iter().any(|letter| of(&letter)), "dead letters name topic and partition");
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
    for event in &lost {
        cluster.send(&topic, None, Some(event.trim_end().as_bytes()));
    }
    cluster.flush();
    cluster.delete_all(&topic);
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

/// What is deleted before a member that reads comes to it: every message is judged or told as lost, whichever it was.
#[test]
fn what_is_deleted_under_a_member_is_told_exactly() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-overtaken");
    house.has_gaps = true;
    let mut lapwing = house.start();
    lapwing.ready();
    for _ in 0..scaled(2, 20) {
        cluster.feed(&house, &topic, &events.take(100));
        let expected = house.singles();
        house.all_come(&expected);
        let before = lapwing.metric("lapwing_kafka_gap_messages_total") as usize;
        lapwing.signal(Signal::STOP);
        for _ in 0..3_000 {
            cluster.send(&topic, None, Some(QUIET));
        }
        cluster.flush();
        cluster.delete_all(&topic);
        lapwing.signal(Signal::CONT);
        let all = cluster.written(&topic);
        until("every message is judged or told as lost", || {
            let lost = lapwing.metric("lapwing_kafka_gap_messages_total") as usize;
            let judged = lapwing.metric("lapwing_input_records_total") as usize;
            assert!(judged + lost <= all, "{judged} are judged and {lost} lost of {all}");
            lost > before && judged + lost == all
        });
    }
    // A gap is committed once it is told.
    until("all is committed", || cluster.is_read(&topic, &topic));
    let expected = house.singles();
    let stopping = lapwing.stop();
    house.judge_singles(&expected, 0, stopping);
}

#[test]
fn messages_that_are_damaged_at_the_broker_are_passed_over() {
    let mut house = House::new("kafka-damage");
    let Some(mut cluster) = Cluster::alone(house.seed) else { return };
    let topic = cluster.topic("kafka-damage");
    house.file = None;
    house.config = input(&cluster, &topic);
    house.has_gaps = true;
    let mut events = Events::new(house.seed, 200);
    let lapwing = house.start();
    cluster.feed(&house, &topic, &events.take(100));
    let expected = house.singles();
    house.all_come(&expected);
    lapwing.stop();
    for _ in 0..20 {
        for _ in 0..50 {
            cluster.send(&topic, None, Some(QUIET));
        }
        cluster.flush();
    }
    cluster.damage(&topic, 1, "/livez");
    let lapwing = house.start();
    let mut lost = 0;
    until("every message is judged or told as damaged", || {
        lost = lapwing.metric("lapwing_kafka_gap_messages_total") as usize;
        let judged = lapwing.metric("lapwing_input_records_total") as usize;
        judged + lost == 1_000
    });
    assert!((1..200).contains(&lost), "{lost} are lost, of some 20 in a batch");
    what_follows_comes(house, &mut cluster, &topic, lapwing, &events.take(100));
}

/// What is sound between damaged batches is judged, whatever the damage, and what is told is what was not.
#[test]
fn damaged_batches_are_told_exactly() {
    let mut house = House::new("kafka-batches");
    let Some(mut cluster) = Cluster::alone(house.seed) else { return };
    let topic = cluster.topic("kafka-batches");
    house.file = None;
    house.config = input(&cluster, &topic);
    house.has_gaps = true;
    let mut events = Events::new(house.seed, 200);
    let quiet = vec![String::from_utf8(QUIET.to_vec()).unwrap(); 60];
    for partition in 0..PARTITIONS {
        cluster.feed_batches(&topic, partition, 10, &quiet);
    }
    cluster.spoil(&topic, &[(0, &[0, 1, 3, 4], FLIP), (1, &[2], FORMAT), (2, &[2], ZERO)]);
    let lapwing = house.start();
    let numbers = || {
        let judged = lapwing.metric("lapwing_input_records_total") as usize;
        (judged, lapwing.metric("lapwing_kafka_gap_messages_total") as usize)
    };
    until("120 are judged, and 60 told as damaged", || numbers() == (120, 60));
    for told in ["/0, at offset 0: messages to 19 ", "/0, at offset 30: messages to 49 "]
        .into_iter()
        .chain(["/1, at offset 20: messages to 29 ", "/2, at offset 20: messages to 29 "])
    {
        let told = format!("{topic}{told}are damaged and passed over");
        until(&told, || house.receiver.taken().iter().any(|taken| taken.alert.to_string().contains(&told)));
    }
    what_follows_comes(house, &mut cluster, &topic, lapwing, &events.take(100));
}

#[test]
fn a_topic_that_is_made_anew_is_read_from_its_beginning() {
    let mut house = House::new("kafka-anew");
    let Some(mut cluster) = Cluster::real(house.seed, "the mock cluster deletes no topic") else { return };
    let topic = cluster.topic("kafka-anew");
    house.file = None;
    house.config = input(&cluster, &topic);
    house.has_gaps = true;
    let mut events = Events::new(house.seed, 200);
    let lapwing = house.start();
    // Less each time: a position that is there in the new topic too is taken for one of it.
    for take in [900, 300, 90] {
        cluster.feed(&house, &topic, &events.take(take));
        let expected = house.singles();
        house.all_come(&expected);
        until("all is committed", || cluster.is_read(&topic, &topic));
        cluster.make_anew(&topic);
    }
    what_follows_comes(house, &mut cluster, &topic, lapwing, &events.take(30));
}

/// A group that begins at the end passes over what was there when it began, and nothing that comes later: neither in partitions
/// that are made while nobody reads, nor in those that are made while a member does.
#[test]
fn partitions_that_come_later_are_read_from_their_beginning() {
    let mut house = House::new("kafka-grown");
    let Some(mut cluster) = Cluster::real(house.seed, "the mock cluster makes no partitions") else { return };
    let topic = cluster.topic("kafka-grown");
    house.file = None;
    let soon = "from: end, librdkafka_options: {topic.metadata.refresh.interval.ms: 500}";
    house.config = input(&cluster, &topic).replace("from: start", soon);
    let mut events = Events::new(house.seed, 200);
    for event in events.take(100) {
        cluster.send(&topic, None, Some(event.trim_end().as_bytes())); // would raise alerts that nobody expects
    }
    cluster.flush();
    let lapwing = house.start();
    until("all partitions have begun", || cluster.is_read(&topic, &topic));
    cluster.feed(&house, &topic, &events.take(100));
    let expected = house.expected();
    house.all_come(&expected);
    lapwing.stop();
    let later = |house: &House, cluster: &mut Cluster, partition: i32, events: &[String]| {
        cluster.grow(&topic, partition + 1);
        remember(house, events);
        for event in events {
            cluster.send(&topic, Some(partition), Some(event.trim_end().as_bytes()));
        }
        cluster.flush();
    };
    later(&house, &mut cluster, PARTITIONS, &events.take(100));
    let lapwing = house.start();
    house.all_come(&house.expected());
    later(&house, &mut cluster, PARTITIONS + 1, &events.take(100));
    let expected = house.expected();
    house.all_come(&expected);
    let stopping = lapwing.stop();
    house.judge(&expected, 0, stopping);
    for partition in PARTITIONS..PARTITIONS + 2 {
        let (low, high, committed) = cluster.offsets(&topic, &topic, partition);
        assert_eq!((low, committed), (0, Some(high)), "partition {partition}");
    }
}

/// Not before the group has taken it in and not while no broker is reached; which input it is, and how its group is, is told.
#[test]
fn ready_while_its_group_has_it_and_a_broker_is_reached() {
    let mut house = House::new("kafka-ready");
    let Some(mut cluster) = Cluster::alone(house.seed) else { return };
    let topic = cluster.topic("kafka-ready");
    house.file = None;
    let named = "{type: kafka, name: the-topic,";
    house.config = input(&cluster, &topic).replace("{type: kafka,", named);
    let mut events = Events::new(house.seed, 200);
    let mut told = Value::Null;
    let mut is = |lapwing: &Lapwing, status: u16, group: &str| {
        let Some((answered, text)) = client::get(lapwing.server, "/readyz") else { return false };
        told = serde_json::from_str(&text).unwrap();
        answered == status && told["groups"]["the-topic"].as_str().is_some_and(|said| said.contains(group))
    };
    cluster.brokers("stop", &["--keep"]);
    let mut lapwing = house.start();
    until("it waits for the group", || is(&lapwing, 503, "no broker is reached"));
    assert!(!soon(Duration::from_secs(1), || is(&lapwing, 200, "")), "no group has it");
    cluster.brokers("start", &[]);
    lapwing.ready();
    until("it is told which partitions it has", || is(&lapwing, 200, "3 of 3 partitions, steady"));
    cluster.feed(&house, &topic, &events.take(100));
    house.all_come(&house.expected());
    cluster.brokers("stop", &["--keep"]);
    until("it is not ready without brokers", || is(&lapwing, 503, "no broker is reached"));
    assert_eq!(told["reasons"], serde_json::json!(["the-topic reads nothing: see its group"]));
    cluster.brokers("start", &[]);
    lapwing.ready();
    cluster.feed(&house, &topic, &events.take(100));
    house.most_duplicates = Some(usize::MAX);
    house.finish(lapwing, 0);
}

/// While positions wait to be committed: the broker takes what is sent to it, and does not answer.
#[test]
fn a_broker_that_freezes_is_told() {
    let mut house = House::new("kafka-frozen");
    let Some(mut cluster) = Cluster::alone(house.seed) else { return };
    let topic = cluster.topic("kafka-frozen");
    house.file = None;
    house.config = input(&cluster, &topic).replace("commit_interval_ms: 200", "commit_interval_ms: 4000");
    let mut events = Events::new(house.seed, 200);
    let mut lapwing = house.start();
    lapwing.ready();
    cluster.feed(&house, &topic, &events.take(100));
    until("positions are committed", || cluster.is_read(&topic, &topic));
    cluster.feed(&house, &topic, &events.take(100));
    house.all_come(&house.expected());
    cluster.brokers("pause", &["--broker", "1"]);
    let is = |status| client::get(lapwing.server, "/readyz").is_some_and(|(answered, _)| answered == status);
    until("it is not ready while the broker is frozen", || is(503));
    cluster.brokers("resume", &["--broker", "1"]);
    until("it is ready again", || is(200));
    cluster.feed(&house, &topic, &events.take(100));
    house.most_duplicates = Some(usize::MAX);
    house.finish(lapwing, 0);
    all_is_committed(&cluster, &topic);
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
    until("what waits in the log is committed", || cluster.is_read(&topic, &topic));
    house.receiver.set(crate::receiver::Mode::Accept);
    house.finish(lapwing, 0);
}

#[test]
fn without_a_state_directory_the_topic_keeps_what_no_output_has() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-stateless");
    house.config += "shutdown_grace: 2s\n";
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
    let lapwing = house.start();
    until("an output is tried again", || lapwing.metric("lapwing_output_failed_total") > 0.0);
    lapwing.stop();
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

/// Alerts that fit come as they are, though many of them together would not; those that are too large come with short texts,
/// and those of which even that is too large are dead letters.
#[test]
fn alerts_that_are_too_large_for_the_topic() {
    const MOST: usize = 2_500;
    let mut house = House::new("kafka-large");
    let why = "the mock cluster takes messages of any size";
    let Some(mut cluster) = Cluster::real(house.seed, why) else { return };
    let (topic, alerts) = (cluster.topic("kafka-large"), format!("small-{:08x}", fastrand::u32(..)));
    cluster.make(&alerts, &[("max.message.bytes", &MOST.to_string())]);
    house.file = None;
    let output = format!(
        "outputs:\n- {{type: kafka, bootstrap_servers: \"{}\", topic: {alerts}, compression: none}}\n",
        cluster.servers
    );
    house.config = input(&cluster, &topic) + &output;
    let mut events = Events::new(house.seed, 300);
    let mut lines = events.take(600);
    let long = "x".repeat(3_000);
    for (nth, line) in lines.iter_mut().enumerate() {
        match nth % 6 {
            // A client with a long name, which can be cut.
            0 | 1 => *line = line.replace("kubectl/", &format!("kubectl/{long}")),
            // Who did it is not.
            2 => *line = line.replace("@example.com", &format!("{long}@example.com")),
            _ => {}
        }
    }
    cluster.feed(&house, &topic, &lines);
    let lapwing = house.start();
    let expected = house.expected();
    house.all_come(&expected);
    let all = || cluster.written(&alerts) + letters(&house).len() >= expected.len();
    until("all are in the topic or dead letters", all);
    let mut came = Alerts::new();
    for message in cluster.read(&alerts, cluster.written(&alerts)) {
        let alert: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        came.insert(alert["uuid"].as_str().unwrap().to_owned(), alert);
    }
    let dead: Alerts = letters(&house)
        .into_iter()
        .map(|letter| (letter["alert"]["uuid"].as_str().unwrap().to_owned(), letter["alert"].clone()))
        .collect();
    let (mut whole, mut short) = (0, 0);
    for taken in house.receiver.taken() {
        let size = taken.alert.to_string().len();
        let as_it_is = came.get(&taken.uuid) == Some(&taken.alert);
        if size + 500 < MOST {
            assert!(as_it_is, "{size} bytes are not too large");
        }
        let there = (came.contains_key(&taken.uuid), dead.contains_key(&taken.uuid));
        assert!(there == (true, false) || there == (false, true), "it is in one place: {there:?}");
        whole += u32::from(as_it_is);
        short += u32::from(there.0 && !as_it_is);
    }
    assert!(
        whole > 20 && short > 0 && !dead.is_empty(),
        "{whole} came as they are, {short} with short texts, {} not",
        dead.len()
    );
    for (key, value) in [("whole", whole), ("shortened", short), ("dead_letters", dead.len() as u32)] {
        house.figures.insert(key.to_owned(), value.into());
    }
    house.finish(lapwing, 0);
}

/// The dead letters of the program.
fn letters(house: &House) -> Vec<Value> {
    let file = std::fs::read_to_string(house.state.join("dead-letters.ndjson")).unwrap_or_default();
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
