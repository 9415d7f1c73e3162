//! The history of a topic: that a replay finds in it what it finds in the same events in a file and what a live run finds in
//! the topic, that it ends, and that nobody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::client;
use crate::cluster::{ASK, Cluster, FLIP, FORMAT, LONG, PARTITIONS, STRAY, ZERO, remember};
use crate::events::Events;
use crate::house::House;
use crate::kafka::house;
use crate::oracle::{self, Alerts};
use crate::process::PATIENCE;

/// Replays a topic.
fn replay(cluster: &Cluster, topic: &str, query: &str, flags: &[&str]) -> Output {
    let address = format!("kafka://{}/{topic}{query}", cluster.servers);
    let always = ["replay", &address, "--output", "jsonl", "--summary", "json"];
    Command::new(env!("CARGO_BIN_EXE_lapwing")).args(always).args(flags).output().unwrap()
}

fn said(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The alerts and the summary of a replay that ended with this code.
fn outcome(output: &Output, code: i32) -> (Alerts, Value) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    let alerts = oracle::alerts(std::str::from_utf8(&output.stdout).unwrap());
    (alerts, serde_json::from_str(said(output)).unwrap())
}

fn uuids(alerts: &Alerts) -> BTreeSet<&str> {
    alerts.keys().map(String::as_str).collect()
}

/// Payloads by what evidence calls a message, and its offset.
fn payloads(cluster: &Cluster, topic: &str, expected: usize) -> BTreeMap<(String, u64), Vec<u8>> {
    let messages = cluster.read(topic, expected).into_iter();
    messages
        .map(|message| {
            let place = (format!("{topic}/{}", message.partition()), message.offset() as u64);
            (place, message.payload().unwrap_or_default().to_vec())
        })
        .collect()
}

#[test]
fn a_topic_tells_what_its_file_tells() {
    let (house, mut cluster, topic, mut events) = house("kafka-history");
    cluster.feed(&house, &topic, &events.take(3000));
    let expected = house.expected();
    assert!(expected.len() > 300, "there is enough to find");
    let first = replay(&cluster, &topic, "", &["--threads", "1"]);
    let (alerts, summary) = outcome(&first, 0);
    assert_eq!(uuids(&alerts), uuids(&expected));
    assert_eq!(
        (summary["files"].as_i64(), summary["records"].as_u64()),
        (Some(i64::from(PARTITIONS)), Some(3000))
    );
    for threads in ["2", "5"] {
        let again = replay(&cluster, &topic, "", &["--threads", threads]);
        assert!(again.stdout == first.stdout, "{threads} threads say something else");
    }
    let found = replay(&cluster, &topic, "", &["--order", "input"]);
    assert_eq!(uuids(&outcome(&found, 0).0), uuids(&expected));
    outcome(&replay(&cluster, &topic, "", &["--fail-on", "low"]), 1);

    let payloads = payloads(&cluster, &topic, 3000);
    for evidence in alerts.values().flat_map(|alert| alert["evidence"].as_array().unwrap()) {
        let place = (evidence["input"].as_str().unwrap().to_owned(), evidence["offset"].as_u64().unwrap());
        let payload = payloads.get(&place).unwrap_or_else(|| panic!("{evidence} is no message"));
        assert_eq!(evidence["sha256"].as_str(), Some(&*hash(payload)), "{evidence}");
    }
}

fn hash(bytes: &[u8]) -> String {
    detectors::bytes::hex(&Sha256::digest(bytes))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Sends events in all the forms in which messages hold them, with what is no event in between. All go to one partition: of two
/// records of a request a live run shows the one that came first. Returns how many messages
/// have no payload, and how many hold no event.
fn send_mixed(house: &House, cluster: &mut Cluster, topic: &str, lines: &[String]) -> (u64, u64) {
    remember(house, lines);
    let (mut empty, mut bad) = (0, 0);
    for (nth, three) in lines.chunks(3).enumerate() {
        let poison: Option<&[u8]> = match nth % 6 {
            0 => None,
            1 => Some(b"{\"no\": \"event\"}"),
            2 => Some(b"\xff\x00 garbage"),
            3 => Some(b"\x1f\x8b\x08 torn"),
            4 => Some(b"{\"torn\": ["),
            _ => Some(b""),
        };
        match poison {
            None | Some(b"") => empty += 1,
            Some(_) => bad += 1,
        }
        cluster.send(topic, Some(1), poison);
        let [one, two, three] = three else { panic!("lines come in threes") };
        let pretty: Value = serde_json::from_str(one).unwrap();
        let carried = serde_json::json!({"log": one, "stream": "stdout"});
        let all = [one.as_str(), two, three].concat();
        let lines = [one.clone(), two.clone(), three.clone()];
        let payloads = match nth % 5 {
            0 => vec![gzip(one.as_bytes()), gzip(format!("{two}{three}").as_bytes())],
            1 => {
                vec![serde_json::to_vec_pretty(&pretty).unwrap(), two.clone().into(), three.trim_end().into()]
            }
            2 => vec![client::event_list(&lines)],
            3 => vec![all.into_bytes()],
            _ => vec![serde_json::to_vec(&carried).unwrap(), gzip(&client::event_list(&lines[1..]))],
        };
        for payload in payloads {
            cluster.send(topic, Some(1), Some(&payload));
        }
    }
    cluster.producer.flush(ASK).unwrap();
    (empty, bad)
}

#[test]
fn whatever_a_message_holds_it_tells_what_a_live_run_tells() {
    let (mut house, mut cluster, topic, mut events) = house("kafka-history-forms");
    let (empty, bad) = send_mixed(&house, &mut cluster, &topic, &events.take(1500));
    let expected = house.expected();
    let first = replay(&cluster, &topic, "", &["--threads", "1"]);
    let (alerts, summary) = outcome(&first, 0);
    assert_eq!(uuids(&alerts), uuids(&expected));
    assert_eq!(replay(&cluster, &topic, "", &["--threads", "3"]).stdout, first.stdout);
    outcome(&replay(&cluster, &topic, "", &["--strict"]), 5);
    assert_eq!(summary["blind"]["empty_messages"].as_u64(), Some(empty));
    let unrecognized = summary["formats"]["unrecognized"].as_u64().unwrap();
    assert_eq!(summary["bad"].as_u64().unwrap() + unrecognized, bad, "{summary}");
    let samples = summary["blind"]["unrecognized"].as_array().unwrap();
    assert!(
        samples.iter().all(|sample| sample["input"].as_str().unwrap().starts_with(&topic)),
        "{samples:?}"
    );

    let lapwing = house.start();
    house.all_come(&expected);
    let evidence = |alert: &Value| (alert["source"] == "k8s_audit").then(|| alert["evidence"].clone());
    let mut live = BTreeMap::new();
    for taken in house.receiver.taken() {
        live.insert(taken.uuid.clone(), evidence(&taken.alert));
    }
    let mut inside = 0;
    for (uuid, alert) in &alerts {
        let evidence = evidence(alert);
        assert_eq!(Some(&evidence), live.get(uuid), "{alert}");
        let inputs = evidence.iter().flat_map(|all| all.as_array().unwrap());
        inside += inputs.filter(|one| one["input"].as_str().unwrap().contains('@')).count();
    }
    assert!(inside > 20, "some stand inside of messages");
    let stopping = lapwing.stop();
    house.judge(&expected, 0, stopping);
}

#[test]
fn it_ends_while_the_topic_grows() {
    let (house, mut cluster, topic, mut events) = house("kafka-history-grows");
    let lines = events.take(300);
    cluster.feed(&house, &topic, &lines);
    let summary = house.path().join("summary.json");
    let address = format!("kafka://{}/{topic}", cluster.servers);
    let mut replay = Command::new(env!("CARGO_BIN_EXE_lapwing"))
        .args(["replay", &address, "--summary", "json", "--output", "jsonl"])
        .stdout(Stdio::null())
        .stderr(File::create(&summary).unwrap())
        .spawn()
        .unwrap();
    let mut sent = 300;
    let mut code = None;
    let began = Instant::now();
    // It goes on for longer than the replay lasts.
    while code.is_none() && began.elapsed() < PATIENCE {
        for line in &lines[..50] {
            cluster.send(&topic, None, Some(line.trim_end().as_bytes()));
        }
        cluster.producer.flush(ASK).unwrap();
        sent += 50;
        code = replay.try_wait().unwrap();
    }
    let _ = replay.kill(); // if it did not end
    replay.wait().unwrap();
    assert_eq!(code.and_then(|status| status.code()), Some(0), "it ends");
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(&summary).unwrap()).unwrap();
    let records = summary["records"].as_u64().unwrap();
    assert!((300..=sent).contains(&records), "{records} of {sent}");
}

#[test]
fn nobody_notices() {
    let (house, mut cluster, topic, mut events) = house("kafka-history-quiet");
    cluster.feed(&house, &topic, &events.take(300));
    let group = cluster.client(&topic);
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        offsets.add_partition_offset(&topic, partition, Offset::Offset(i64::from(partition) + 1)).unwrap();
    }
    group.commit(&offsets, CommitMode::Sync).unwrap();
    outcome(&replay(&cluster, &topic, "", &[]), 0);
    for partition in 0..PARTITIONS {
        let (_, _, committed) = cluster.offsets(&topic, &topic, partition);
        assert_eq!(committed, Some(i64::from(partition) + 1));
        assert_eq!(cluster.offsets("lapwing-replay", &topic, partition).2, None);
    }
    if cluster.is_real() {
        let groups = group.fetch_group_list(None, ASK).unwrap();
        assert!(groups.groups().iter().all(|group| group.name() != "lapwing-replay"));
    }
}

#[test]
fn a_time_chooses_messages() {
    let (_, cluster, topic, mut events) = house("kafka-history-since");
    if !cluster.is_real() {
        eprintln!("passed over: the mock cluster knows no times");
        return;
    }
    // A message a minute, for the last two hours, in each partition; what is older, brokers soon delete.
    let begin = (chrono::DateTime::from(std::time::SystemTime::now()).timestamp() - 7200) / 60 * 60;
    for (nth, line) in events.take(360).iter().enumerate() {
        let millis = (begin + nth as i64 / 3 * 60) * 1_000;
        let partition = nth as i32 % PARTITIONS;
        let record: BaseRecord<'_, (), str> =
            BaseRecord::to(&topic).partition(partition).payload(line.as_str()).timestamp(millis);
        cluster.producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    cluster.producer.flush(ASK).unwrap();
    let count = |query: &str, flags: &[&str]| {
        let output = replay(&cluster, &topic, query, flags);
        let summary: Value = serde_json::from_str(said(&output)).unwrap();
        summary["records"].as_u64().unwrap()
    };
    let at = |minute: i64| begin + minute * 60;
    let clock = |minute: i64| chrono::DateTime::from_timestamp(at(minute), 0).unwrap().to_rfc3339();
    assert_eq!(count("", &[]), 360);
    assert_eq!(count(&format!("?since={}", clock(60)), &[]), 180);
    assert_eq!(count(&format!("?since={}&until={}", at(60), clock(90).replace('+', "%2B")), &[]), 90);
    assert_eq!(count(&format!("?until={}&partition=1", at(0) + 30), &[]), 1);
    assert_eq!(count("?since=now", &[]), 0);
    assert_eq!(count("?until=-3h", &[]), 0);
    // The flag is about the times of events, which are those of the API server.
    assert_eq!(count("", &["--since", "2026-03-01T11:00:00Z"]), 360);
}

#[test]
fn what_was_deleted_before_it_began_is_no_damage() {
    let (house, mut cluster, topic, mut events) = house("kafka-history-deleted");
    if !cluster.is_real() {
        eprintln!("passed over: the mock cluster deletes nothing when it is asked to");
        return;
    }
    cluster.feed(&house, &topic, &events.take(600));
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(&topic, 0, Offset::Offset(7)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(cluster.admin().delete_records(&until, &AdminOptions::new())).unwrap();
    let (_, summary) = outcome(&replay(&cluster, &topic, "", &["--strict"]), 0);
    assert_eq!(summary["records"].as_u64(), Some(593));
}

#[test]
fn transactions_count_when_they_are_committed() {
    let (house, mut cluster, topic, mut events) = house("kafka-history-transactions");
    if !cluster.is_real() {
        eprintln!("passed over: the mock cluster hides no message of a transaction");
        return;
    }
    let transactional: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &cluster.servers)
        .set("transactional.id", &topic)
        .create()
        .unwrap();
    transactional.init_transactions(ASK).unwrap();
    let within = |lines: &[String]| {
        transactional.begin_transaction().unwrap();
        for line in lines {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic).partition(0).payload(line.as_str());
            transactional.send(record).map_err(|(error, _)| error).unwrap();
        }
        transactional.flush(ASK).unwrap();
    };
    let lines = events.take(40);
    remember(&house, &lines);
    within(&lines);
    transactional.commit_transaction(ASK).unwrap();
    within(&events.take(30));
    transactional.abort_transaction(ASK).unwrap();
    let (alerts, summary) = outcome(&replay(&cluster, &topic, "", &["--strict"]), 0);
    assert_eq!(summary["records"].as_u64(), Some(40));
    assert_eq!(uuids(&alerts), uuids(&house.expected()));

    within(&events.take(20));
    for line in &events.take(10) {
        cluster.send(&topic, Some(0), Some(line.trim_end().as_bytes()));
    }
    cluster.producer.flush(ASK).unwrap();
    let (_, summary) = outcome(&replay(&cluster, &topic, "", &["--strict"]), 5);
    assert_eq!(summary["records"].as_u64(), Some(40));
    // Each of the two that ended left a mark.
    let reason = summary["blind"]["damaged"]["list"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("at offset 72: 30 messages to 101 are not read: a transaction"), "{reason}");
    transactional.abort_transaction(ASK).unwrap();
}

/// Batches of ten that are damaged on the broker's disk: what else there is is read.
#[test]
fn damaged_batches_are_told_exactly() {
    let house = House::new("kafka-history-batches");
    let Some(cluster) = Cluster::alone(house.seed) else { return };
    let names = ["kafka-history-batches", "kafka-history-stray", "kafka-history-long"];
    let [topic, other, long] = names.map(|name| cluster.topic(name));
    let events = Events::new(house.seed, 200).take(60);
    for topic in [&topic, &other, &long] {
        for partition in 0..PARTITIONS {
            cluster.feed_batches(topic, partition, 10, &events);
        }
    }
    cluster.spoil(&topic, &[(0, &[0, 1, 3, 4], FLIP), (1, &[2, 3, 5], FORMAT), (2, &[2], ZERO)]);
    let began = Instant::now();
    let (_, summary) = outcome(&replay(&cluster, &topic, "", &["--strict"]), 5);
    assert!(began.elapsed() < PATIENCE / 2, "it takes {:?}", began.elapsed());
    assert_eq!(summary["records"].as_u64(), Some(20 + 30 + 50), "{summary}");
    let mut told = damage(&summary);
    told.sort();
    let expected = [
        ("/0", "at offset 0: messages to 19 are damaged and passed over"),
        ("/0", "at offset 30: messages to 49 are damaged and passed over"),
        ("/1", "at offset 20: messages to 39 are damaged and passed over"),
        ("/1", "at offset 50: messages to 59 are damaged and passed over"),
        ("/2", "at offset 20: messages to 29 are damaged and passed over"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((input, reason), (partition, begins)) in told.iter().zip(expected) {
        assert!(input.ends_with(partition) && reason.starts_with(begins), "{input}: {reason}");
    }
    // Such a batch is found by who reads from its middle, too.
    let (_, summary) = outcome(&replay(&cluster, &topic, "?partition=1", &["--strict"]), 5);
    assert_eq!(summary["records"].as_u64(), Some(30));

    cluster.spoil(&other, &[(0, &[2], STRAY), (1, &[1, 2], STRAY), (2, &[2, 5], STRAY)]);
    let began = Instant::now();
    let (_, summary) = outcome(&replay(&cluster, &other, "", &["--strict"]), 5);
    assert!(began.elapsed() < PATIENCE / 2, "it takes {:?}", began.elapsed());
    assert_eq!(summary["records"].as_u64(), Some(180), "all are judged: {summary}");
    let told = damage(&summary);
    let tells = |partition: &str, begins: &str| {
        let found = told.iter().any(|(input, why)| input.ends_with(partition) && why.starts_with(begins));
        assert!(found, "{begins}: {told:?}");
    };
    tells("/0", "at offset 20: messages say that they are at 84 and beyond, where none are");
    tells("/1", "at offset 10: messages say that they are at 74 and beyond, where none are");
    // The broker takes the end from the last batch.
    tells("/2", "at offset 30: this offset comes behind 93");

    // The broker gives nothing that it does not find by its index.
    cluster.spoil(&long, &[(0, &[2], LONG)]);
    let (_, summary) = outcome(&replay(&cluster, &long, "?partition=0", &["--strict"]), 5);
    let told = &damage(&summary)[0].1;
    let last = told.strip_prefix("at offset 20: messages to ").and_then(|rest| rest.split(' ').next());
    let last: u64 = last.unwrap_or_else(|| panic!("{told}")).parse().unwrap();
    assert!((29..60).contains(&last), "{told}");
    assert_eq!(summary["records"].as_u64(), Some(60 - (last - 19)), "{summary}");
}

/// Which input is damaged, and how.
fn damage(summary: &Value) -> Vec<(String, String)> {
    let all = summary["blind"]["damaged"]["list"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.iter().map(|one| (text(&one["input"]), text(&one["reason"]))).collect()
}

#[test]
fn what_cannot_be_read_is_told() {
    let (house, mut cluster, topic, mut events) = house("kafka-history-missing");
    cluster.feed(&house, &topic, &events.take(60));
    let file = house.path().join("clean.jsonl");
    let file = file.to_str().unwrap();
    let (alerts, summary) = outcome(&replay(&cluster, "no-such-topic", "", &[file]), 4);
    assert_eq!(uuids(&alerts), uuids(&house.expected()), "the file is read all the same");
    let unreadable = &summary["blind"]["unreadable"]["list"][0];
    assert!(unreadable["input"].as_str().unwrap().ends_with("/no-such-topic"), "{unreadable}");
    assert!(unreadable["reason"].as_str().unwrap().starts_with("there is no such topic"), "{unreadable}");
    let (_, summary) = outcome(&replay(&cluster, &topic, "?partition=0,9", &[]), 4);
    assert_eq!(summary["files"].as_u64(), Some(1));
    assert_eq!(summary["blind"]["unreadable"]["list"][0]["input"].as_str(), Some(&*format!("{topic}/9")));
    let nothing = format!("kafka://{}/{}", cluster.servers, cluster.topic("nothing"));
    let output = Command::new(env!("CARGO_BIN_EXE_lapwing")).args(["replay", &nothing]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(said(&output).contains("error: there were no messages: the topic is empty"), "{}", said(&output));
    for (query, says) in [("?from=start", "unknown key `from`"), ("/x", "an address names one topic")] {
        let output = replay(&cluster, &topic, query, &[]);
        assert_eq!(output.status.code(), Some(3));
        assert!(said(&output).contains(says), "{}", said(&output));
    }
}
