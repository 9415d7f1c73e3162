//! What the configuration says, what a message becomes, and what a member does about a lane that takes nothing. The rest of how
//! a member behaves is held by the fault suite, against a cluster.

use detectors::engine::Engine;
use detectors::rules::{self, Tuning};
use detectors::settings::Settings;
use detectors::tally::Format;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::{mpsc, watch};

use super::*;

pub(super) fn config(yaml: &str) -> Result<Config> {
    let config: Config = yaml_serde::from_str(yaml)?;
    config.check().map(|()| config)
}

pub(super) fn engine() -> Arc<Engine> {
    let settings = Settings::default();
    Arc::new(rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap())
}

fn pack(text: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

#[test]
fn options_are_named_as_people_paste_them() {
    let config = config(
        "{bootstrap_servers: 'a:9092,b:9092', topics: ['^k8s-.*'], group_id: g, auto_offset_reset: earliest, \
         session_timeout_ms: 20000, commit_interval_ms: 1000, drain_timeout_ms: 500, \
         sasl: {enabled: true, mechanism: SCRAM-SHA-256, username: u, password: s}, \
         tls: {enabled: true, verify_certificate: false}, librdkafka_options: {fetch.min.bytes: '1000', \
         partition.assignment.strategy: range}}",
    )
    .unwrap();
    assert_eq!(config.from, From::Start);
    let client = config.client().unwrap();
    for (key, value) in [
        ("bootstrap.servers", "a:9092,b:9092"),
        ("group.id", "g"),
        ("session.timeout.ms", "20000"),
        ("heartbeat.interval.ms", "3000"),
        ("auto.offset.reset", "error"),
        ("enable.auto.commit", "false"),
        ("check.crcs", "true"),
        ("isolation.level", "read_committed"),
        ("security.protocol", "sasl_ssl"),
        ("fetch.min.bytes", "1000"),
        ("partition.assignment.strategy", "range"),
    ] {
        assert_eq!(client.get(key), Some(value), "{key}");
    }
}

#[test]
fn mistakes_are_told() {
    let check = |yaml: &str, expected: &str| {
        let error = format!("{:#}", config(yaml).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("{bootstrap_servers: 'a:1', topics: []}", "input `kafka` names no topic");
    check("{bootstrap_servers: '', topics: [t]}", "bootstrap_servers: no broker is named");
    check("{bootstrap_servers: 'u:hunt,er@a:1', topics: [t]}", "bootstrap_servers: `@` has no place there");
    check("{bootstrap_servers: '${LAPWING_NO_SUCH:-a:99999}', topics: [t]}", "`99999` is no port");
    check("{bootstrap_servers: 'a:1', topics: ['']}", "input `kafka`: topics: one is empty: write");
    check("{bootstrap_servers: 'a:1', topics: [t, 'k8s-.*']}", "if it is a pattern, write `^k8s-.*`");
    check(
        "{bootstrap_servers: 'a:1', topics: [t], group_id: ''}",
        "input `kafka`: group_id is empty: write `group_id: lapwing`",
    );
    check("{bootstrap_servers: 'a:1', topics: ['^(']}", "input `kafka`: topics: `^(`");
    check("{bootstrap_servers: 'a:1', topics: [t], since: yesterday}", "since: `yesterday` is no time");
    check("{bootstrap_servers: 'a:1', topics: [t], from: middle}", "unknown variant `middle`");
    check(
        "{bootstrap_servers: 'a:1', topics: [t], librdkafka_options: {auto.offset.reset: latest}}",
        "librdkafka_options.auto.offset.reset: Lapwing sets this itself",
    );
    check("{bootstrap_servers: 'a:1', topics: [t], topic: t}", "unknown field `topic`");
    check(
        "{bootstrap_servers: 'a:1', topics: ['^audit-\\d+']}",
        "input `kafka`: topics: `^audit-\\d+`: patterns of",
    );
    check("{bootstrap_servers: 'a:1', topics: ['^a[[:word:]]']}", "refuses the topics ^a[[:word:]]");
    check(
        "{bootstrap_servers: 'a:1', topics: [t, u, t]}",
        "refuses the topics t, u, t: is one empty, named twice,",
    );
}

#[test]
fn what_a_member_needs_to_be_one_is_not_passed_through() {
    let check = |setting: &str, expected: &str| {
        let yaml = format!("{{bootstrap_servers: 'a:1', topics: [t], {setting}}}");
        let said = config(&yaml).err().map_or_else(String::new, |error| format!("{error:#}"));
        assert!(said.is_empty() == expected.is_empty() && said.contains(expected), "{setting}: {said}");
    };
    check(
        "librdkafka_options: {statistics.interval.ms: 0}",
        "/readyz and the lag are made of these statistics",
    );
    check(
        "session_timeout_ms: 9000, librdkafka_options: {heartbeat.interval.ms: 4500}",
        "input `kafka`: librdkafka_options.heartbeat.interval.ms: 4500 is too long for session_timeout_ms, which is 9000: one \
         heartbeat that is late would cost the member its partitions; write at most a third, 3000, or leave it out",
    );
    check("session_timeout_ms: 9000, librdkafka_options: {heartbeat.interval.ms: 4499}", "");
    check("session_timeout_ms: 9001, librdkafka_options: {heartbeat.interval.ms: 4500}", "");
    check(
        "librdkafka_options: {heartbeat.interval.ms: often}",
        "librdkafka refuses the option heartbeat.interval.ms",
    );
    check(
        "session_timeout_ms: 4294977296",
        "librdkafka refuses the option session.timeout.ms: 4294977296 is outside of 1..3600000",
    );
}

/// What librdkafka refuses is known before anything is read, and a secret that was put in the wrong place is not shown.
#[test]
fn what_librdkafka_refuses_is_told() {
    let check = |setting: &str, expected: &str| {
        let yaml = format!("{{bootstrap_servers: 'a:1', topics: [t], name: in, {setting}}}");
        let error = format!("{:#}", config(&yaml).unwrap_err());
        assert!(error.contains("input `in`: librdkafka refuses") && error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    };
    let unknown = "the option sasl.pasword: No such configuration property";
    check("librdkafka_options: {sasl.pasword: hunter2}", unknown);
    check("librdkafka_options: {fetch.wait.max.ms: '-1'}", "the option fetch.wait.max.ms: ");
    check(
        "librdkafka_options: {max.partition.fetch.bytes: many}",
        "fetch.message.max.bytes (or max.partition.fetch.bytes)",
    );
    check("librdkafka_options: {sasl.jaas.config: hunter2}", "the option sasl.jaas.config: Java");
    check(
        "librdkafka_options: {fetch.max.bytes: '1000'}",
        "`fetch.max.bytes` must be >= `message.max.bytes`",
    );
    check("session_timeout_ms: 400000", "`max.poll.interval.ms`must be >= `session.timeout.ms`");
    check("tls: {ca_file: /dev/null}", "ssl.ca.location");
}

#[test]
fn packed_payloads_are_unpacked_as_far_as_they_can_be() {
    let check = |payload: &[u8], expected: &[u8]| {
        let mut bytes = b"before".to_vec();
        unpack(payload, &mut bytes);
        assert_eq!(bytes, [b"before", expected].concat());
    };
    check(&pack(b"{}"), b"{}");
    check(&[pack(b"{}"), pack(b"[]")].concat(), b"{}[]");
    let damaged = |inside: &[u8], what: &str, payload: &[u8]| {
        [inside, format!("\n\x1e{what} {}", STANDARD.encode(payload)).as_bytes()].concat()
    };
    let trailing = [pack(b"{}"), b"more".to_vec()].concat();
    check(&trailing, &damaged(b"{}", "damaged gzip", &trailing));
    let packed = pack(b"{}");
    let cut = &packed[..packed.len() - 4];
    check(cut, &damaged(b"{}", "damaged gzip", cut));
    let head = &packed[..5];
    check(head, &damaged(b"", "damaged gzip", head));
    let bomb = pack(&vec![b' '; LARGEST as usize + 9]);
    let most = vec![b' '; LARGEST as usize];
    check(&bomb, &damaged(&most, "gzip of more than 16 MiB", &bomb));
}

/// What is found, seen and rejected goes with the partition that it was read of.
#[test]
fn what_is_judged_is_told_of_its_partition() {
    let event = concat!(
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseStarted","#,
        r#""requestURI":"/api/v1/namespaces/prod/pods/web/exec?command=sh&stdin=true&tty=true","verb":"create","#,
        r#""user":{"username":"jane"},"objectRef":{"resource":"pods","namespace":"prod","name":"web","#,
        r#""apiVersion":"v1","subresource":"exec"},"responseStatus":{"code":101}}"#
    );
    let engine = engine();
    let (_in_force, engines) = watch::channel(Arc::clone(&engine));
    let mut bench = Bench::new(&engine, engines);
    let (mut one, mut other) = (bench.content(), bench.content());
    let judge = |bench: &mut Bench<'_>, content: &mut Content, stream, offset, payload: &[u8]| {
        let Content::Judged(_, judged) = content else { panic!("a bench judges") };
        bench.judge(("k", stream), offset, payload, judged)
    };
    let (bytes, weight) = judge(&mut bench, &mut one, "t/0", 7, event.as_bytes());
    assert_eq!(bytes, event.len());
    assert!(weight > bytes, "what was found counts, too: {weight}");
    let (bytes, _) = judge(&mut bench, &mut one, "t/0", 8, &pack(format!("{event}\n{{\n").as_bytes()));
    assert_eq!(bytes, event.len() + 3);
    let (bytes, weight) = judge(&mut bench, &mut one, "t/0", 9, b"{\"no\": \"event\"}");
    assert!(bytes == 15 && weight > bytes, "what is rejected counts, too: {weight}");
    bench.close(&mut one);
    judge(&mut bench, &mut other, "t/1", 3, b"none");
    bench.close(&mut other);

    let told = |content: &Content| {
        let Content::Judged(_, judged) = content else { panic!("a bench judges") };
        let events = judged.tally.formats.get(&Format::Audit).copied().unwrap_or(0);
        let rejected: Vec<_> = judged
            .rejected
            .iter()
            .map(|bad| format!("{} {} {}", bad.stream, bad.offset, String::from_utf8_lossy(&bad.bytes)))
            .collect();
        (events, judged.emitted.len(), rejected)
    };
    let (events, found, rejected) = told(&one);
    assert_eq!(events, 2);
    assert!(found >= 2 && found.is_multiple_of(2), "both are the same: {found}");
    assert_eq!(rejected, [format!("t/0@8 {} {{\n", event.len() + 1), "t/0 9 {\"no\": \"event\"}".to_owned()]);
    assert_eq!(told(&other), (0, 0, vec!["t/1@3 0 none".to_owned()]));
}

/// What waits for the lane keeps what was seen in it, however often nothing more comes, and what comes later is not of it.
#[test]
fn what_waits_for_the_lane_is_counted_once() {
    let engine = engine();
    let (_in_force, engines) = watch::channel(Arc::clone(&engine));
    let mut bench = Some(Bench::new(&engine, engines));
    let mut read = VecDeque::new();
    for (offset, payload) in [(0, "{}"), (1, "none"), (2, "{}")] {
        let time = rdkafka::Timestamp::NotAvailable;
        let message = OwnedMessage::new(Some(payload.into()), None, "t".to_owned(), time, 0, offset, None);
        let taken = stretch(&mut read, "t", 0, 1, &mut bench).take("k", &message, false, &mut bench);
        assert!(taken.is_some());
        if offset == 1 {
            read.back_mut().unwrap().close(bench.as_mut().unwrap());
        }
    }
    for _ in 0..2 {
        read.back_mut().unwrap().close(bench.as_mut().unwrap());
    }
    let seen = read.iter().map(|stretch| match &stretch.content {
        Content::Judged(_, judged) => (judged.tally.records(), judged.rejected.len(), stretch.next),
        Content::Payloads(_) => panic!("a bench judges"),
    });
    assert_eq!(seen.collect::<Vec<_>>(), [(2, 2, Some(2)), (1, 1, Some(3))]);
}

/// A member that reads all of a topic `t`, and its lane.
fn member(servers: &str, engines: &Engines) -> (Member, mpsc::Receiver<Delivery>) {
    let config = config(&format!("{{bootstrap_servers: '{servers}', topics: [t], from: start}}")).unwrap();
    let (sender, lane) = mpsc::channel(1);
    let outlet = Outlet::new(sender, Room::new(1), Stop::new().unwrap(), Telemetry::new()).unwrap();
    let consumer = consumer(&config, &Purpose::Part(engines.clone()), &outlet, Readiness::new()).unwrap();
    (Member::new(&config, consumer, outlet), lane)
}

/// Many small messages, or messages without a payload, do not keep a member from all else that is due.
#[test]
fn not_too_many_messages_are_read_at_once() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    for _ in 0..1_000 {
        producer.send(BaseRecord::<(), str>::to("t").partition(0)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    let engine = engine();
    let (_in_force, engines) = watch::channel(Arc::clone(&engine));
    let (mut member, _lane) = member(&servers, &engines);
    let mut bench = Some(Bench::new(&engine, engines));
    let began = Instant::now();
    let mut next = |member: &mut Member| {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is read");
        assert!(member.read(&mut bench).is_ok());
        member.read.back().and_then(|last| last.next)
    };
    let first = loop {
        if let Some(first) = next(&mut member) {
            break first;
        }
    };
    thread::sleep(Duration::from_secs(1)); // all are there then
    assert_eq!(next(&mut member), Some(1_000.min(first + (JUDGED / EACH) as i64)));
}

/// As when a quiet topic has a message after a reload.
#[test]
fn a_message_that_comes_after_a_reload_is_judged_by_what_is_in_force_then() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let (old, new) = (engine(), engine());
    let (in_force, mut engines) = watch::channel(Arc::clone(&old));
    let (mut member, _lane) = member(&servers, &engines);
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let mut bench = Some(Bench::new(&old, engines.clone()));
    in_force.send(Arc::clone(&new)).unwrap();
    producer.send(BaseRecord::<(), str>::to("t").payload("{}")).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    let began = Instant::now();
    while member.carried.is_none() {
        assert!(
            began.elapsed() < Duration::from_secs(60) && member.read.is_empty(),
            "it is judged by the old"
        );
        assert!(member.read(&mut bench).is_ok());
    }
    let engine = Arc::clone(&engines.borrow_and_update());
    assert!(member.read(&mut Some(Bench::new(&engine, engines.clone()))).is_ok());
    let Some(Stretch { content: Content::Judged(by, _), next: Some(1), .. }) = member.read.front() else {
        panic!("it is not judged");
    };
    assert!(Arc::ptr_eq(by, &new));
}

/// Two partitions, and a member whose lane has room for one message.
#[test]
fn a_partition_that_was_taken_while_it_was_paused_is_read_when_it_comes_again() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let of =
        |yaml: &str| config(&format!("{{bootstrap_servers: '{servers}', topics: [t], {yaml}}}")).unwrap();
    let config = of("from: start, session_timeout_ms: 6000");
    let (sender, mut lane) = mpsc::channel(1);
    let engine = engine();
    let (_in_force, engines) = watch::channel(Arc::clone(&engine));
    let outlet = Outlet::new(sender, Room::new(1), Stop::new().unwrap(), Telemetry::new()).unwrap();
    let consumer = consumer(&config, &Purpose::Part(engines.clone()), &outlet, Readiness::new()).unwrap();
    let mut member = Member::new(&config, consumer, outlet);
    let mut bench = Some(Bench::new(&engine, engines));
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let write = |partition| {
        producer
            .send(BaseRecord::<(), str>::to("t").partition(partition).payload("{}"))
            .map_err(|e| e.0)
            .unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    };
    write(0);
    write(1);
    write(0);
    let mut until = |member: &mut Member, what: &str, holds: &mut dyn FnMut(&mut Member) -> bool| {
        let began = Instant::now();
        while !holds(member) {
            assert!(began.elapsed() < Duration::from_secs(60), "this did not come about: {what}");
            assert!(member.turn(&mut bench).is_ok());
        }
    };
    until(&mut member, "all is paused", &mut |member| member.paused);
    let assigned = |member: &Member| member.consumer.assignment().unwrap().count();
    assert_eq!(assigned(&member), 2);

    let other: BaseConsumer =
        of("from: end").client().unwrap().set("session.timeout.ms", "6000").create().unwrap();
    other.subscribe(&["t"]).unwrap();
    until(&mut member, "one is the other's", &mut |member| {
        other.poll(Duration::from_millis(10));
        assigned(member) == 1 && other.assignment().unwrap().count() == 1
    });
    let drain = |lane: &mut mpsc::Receiver<Delivery>| {
        let mut streams = Vec::new();
        while let Ok(delivery) = lane.try_recv() {
            let Delivery::Messages(Messages { stream, bytes, .. }) = delivery else { continue };
            streams.extend((bytes > 0).then(|| stream.to_string()));
        }
        streams
    };
    until(&mut member, "the rest goes on", &mut |member| {
        drain(&mut lane);
        other.poll(Duration::from_millis(10));
        !member.paused
    });
    drop(other);
    until(&mut member, "both are the member's again", &mut |member| {
        drain(&mut lane);
        assigned(member) == 2
    });
    write(0);
    write(1);
    let mut came = Vec::new();
    until(&mut member, "both are read", &mut |_| {
        came.extend(drain(&mut lane));
        ["t/0", "t/1"].iter().all(|stream| came.iter().any(|came| came == stream))
    });
}

/// Not before the group has taken it in, and not while no broker is reached.
#[test]
fn an_input_is_ready_while_its_group_has_it_and_a_broker_is_reached() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let config = config(&format!(
        "{{bootstrap_servers: '{}', topics: [t], name: in, session_timeout_ms: 60000}}",
        cluster.bootstrap_servers()
    ))
    .unwrap();
    cluster.broker_down(1).unwrap();
    let (readiness, telemetry, stop) = (Readiness::new(), Telemetry::new(), Stop::new().unwrap());
    readiness.reasons().into_iter().for_each(|reason| readiness.set(reason, true));
    let (sender, _lane) = mpsc::channel(100);
    let (room, counters) = (Room::new(1 << 20), Arc::clone(&telemetry));
    let (_in_force, engines) = watch::channel(engine());
    let member =
        start(&config, Purpose::Part(engines), sender, room, stop.clone(), counters, readiness.clone())
            .unwrap();
    let soon = |expected: &[&str]| {
        let began = Instant::now();
        while readiness.reasons() != expected {
            // Long before the group would take its partitions from it.
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", readiness.reasons());
            thread::sleep(Duration::from_millis(10));
        }
    };
    let waits = ["in reads nothing: see its group"];
    assert_eq!(readiness.reasons(), waits);
    cluster.broker_up(1).unwrap();
    soon(&[]);
    let told = telemetry.encode(std::time::SystemTime::now());
    assert!(told.contains("lapwing_kafka_assigned_partitions{input=\"in\"} 2\n"), "{told}");
    for _ in 0..2 {
        cluster.broker_down(1).unwrap();
        soon(&waits);
        cluster.broker_up(1).unwrap();
        soon(&[]);
    }
    stop.say();
    member.join().unwrap();
}
