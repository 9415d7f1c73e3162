//! What a reader makes of a partition: against librdkafka's mock cluster.

use std::ffi::OsStr;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::*;

/// Longest wait for an answer of the cluster.
const SOON: Duration = Duration::from_secs(10);

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Cluster {
    /// A cluster with the topic `t` of two partitions.
    fn new() -> Cluster {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 2, 1).unwrap();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", mock.bootstrap_servers()).set("linger.ms", "0");
        Cluster { producer: client.create().unwrap(), mock }
    }

    fn send(&self, partition: i32, payload: Option<&[u8]>) {
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to("t").partition(partition);
        record.payload = payload;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn flush(&self) {
        self.producer.flush(SOON).unwrap();
    }

    fn wanted(&self, query: &str) -> Wanted {
        let typed = format!("kafka://{}/t{query}", self.mock.bootstrap_servers());
        let address = Address::parse(OsStr::new(&typed), 0).unwrap().unwrap();
        Wanted::new(address, None).unwrap()
    }

    /// The partitions, of which something must come in time.
    fn partitions(&self, query: &str, patience: Duration) -> Vec<Partition> {
        let wanted = self.wanted(query);
        let mut partitions = wanted.ask(&AtomicBool::new(false)).unwrap().partitions;
        let topic = Arc::new(Topic { patience, ..Topic::of(&wanted) });
        for partition in &mut partitions {
            partition.topic = Arc::clone(&topic);
        }
        partitions
    }
}

/// What came of a partition: offsets and payloads, and what is told of it.
fn read(partition: &Partition) -> (Vec<(u64, Vec<u8>)>, Told) {
    let mut reader = Reader::new(partition);
    let (mut messages, mut all) = (Vec::new(), Told::default());
    while !reader.has_ended() {
        let gathered = reader.read(1_000);
        assert_eq!(*reader.stream(), *partition.name());
        for message in &gathered.messages {
            messages.push((message.offset, gathered.bytes[message.range()].to_vec()));
        }
        let told = reader.take_told();
        all.passed += told.passed;
        all.empty += told.empty;
        all.damage.extend(told.damage);
        all.refused = all.refused.or(told.refused);
    }
    assert!(reader.read(1_000).messages.is_empty(), "it has ended");
    (messages, all)
}

#[test]
fn a_partition_is_read_to_where_it_ended() {
    let cluster = Cluster::new();
    for number in 0..500 {
        cluster.send(0, Some(format!("{number}").as_bytes()));
    }
    cluster.send(0, None);
    cluster.send(0, Some(b""));
    cluster.flush();
    let partitions = cluster.partitions("", SOON);
    for _ in 0..100 {
        cluster.send(0, Some(b"later"));
        cluster.send(1, Some(b"later"));
    }
    cluster.flush();
    let names: Vec<_> = partitions.iter().map(|one| (one.name(), one.messages())).collect();
    assert_eq!(names, [("t/0".to_owned(), 502), ("t/1".to_owned(), 0)]);
    let (messages, told) = read(&partitions[0]);
    let expected: Vec<_> = (0..500).map(|number| (number, number.to_string().into_bytes())).collect();
    assert_eq!(messages, expected);
    assert_eq!(told, Told { passed: 502, empty: 2, ..Told::default() });
    assert_eq!(read(&partitions[1]), (Vec::new(), Told::default()));
    // The consumer goes on with another partition, and leaves what it had of the first.
    let more = cluster.partitions("?partition=1", SOON);
    let again = Partition { topic: Arc::clone(&partitions[0].topic), ..more[0].clone() };
    assert_eq!(read(&again).0.len(), 100);
}

#[test]
fn what_was_deleted_is_told_with_its_offsets() {
    let cluster = Cluster::new();
    for number in 0..10 {
        cluster.send(0, Some(format!("{number}").as_bytes()));
    }
    cluster.flush();
    // The mock cluster keeps 5 MiB of a partition.
    let before = cluster.partitions("?partition=0", SOON).remove(0);
    let large = vec![b'x'; 60_000];
    for _ in 0..100 {
        cluster.send(0, Some(&large));
    }
    cluster.flush();
    let now = cluster.partitions("?partition=0", SOON).remove(0);
    let (low, high) = (now.range.start, now.range.end);
    assert!(low > 10 && high == 110, "{low} to {high}");

    let (messages, told) = read(&before);
    assert_eq!(messages, []);
    let reason = "10 messages, 0 to 9, were deleted before they were read".to_owned();
    assert_eq!(told, Told { passed: 10, damage: vec![(0, reason)], ..Told::default() });

    let (messages, told) = read(&Partition { range: 5..high, ..now.clone() });
    assert_eq!((messages[0].0, messages.len()), (low as u64, (high - low) as usize));
    let reason = format!("{} messages, 5 to {}, were deleted before they were read", low - 5, low - 1);
    assert_eq!(told, Told { passed: 105, damage: vec![(5, reason)], ..Told::default() });

    let (messages, told) = read(&Partition { range: high - 1..high + 50, ..now.clone() });
    assert_eq!(messages.len(), 1);
    assert!(told.damage[0].1.contains("made anew, or has lost messages"), "{told:?}");
    let (messages, told) = read(&Partition { range: high + 5..high + 50, ..now });
    assert_eq!((messages.len(), told.passed), (0, 45));
    assert!(told.damage[0].1.contains("made anew, or has lost messages"), "{told:?}");
}

#[test]
fn brokers_that_go_away_are_waited_for_for_a_time() {
    let cluster = Cluster::new();
    for number in 0..200 {
        cluster.send(0, Some(format!("{number:01000}").as_bytes()));
        cluster.send(1, Some(b"{}"));
    }
    cluster.flush();
    let patience = Duration::from_millis(400);
    let partitions = cluster.partitions("", patience);
    // One goes away and comes back.
    let mut reader = Reader::new(&partitions[0]);
    while reader.next == 0 {
        reader.read(1);
    }
    let first = reader.next;
    cluster.mock.broker_down(1).unwrap();
    cluster.mock.broker_up(1).unwrap();
    // And goes away for good.
    cluster.mock.broker_down(1).unwrap();
    let mut messages = first;
    while !reader.has_ended() {
        messages += reader.read(1_000).messages.len() as i64;
    }
    let told = reader.take_told();
    // What had been fetched by then was still read.
    if messages < 200 {
        let (offset, reason) = &told.damage[0];
        assert_eq!(*offset, messages as u64);
        assert!(
            reason.starts_with("from here on to 199 nothing was read: the brokers do not answer"),
            "{reason}"
        );
    }
    assert_eq!(told.passed, 200);
    let (messages, told) = read(&partitions[1]);
    let refused = told.refused.unwrap();
    assert!(messages.is_empty() && refused.contains("with `partition=1`"), "{refused}");
    assert!(told.damage.is_empty());
}

#[test]
fn what_is_not_there_is_told() {
    let cluster = Cluster::new();
    let stop = AtomicBool::new(false);
    let listing = cluster.wanted("?partition=1,5").ask(&stop).unwrap();
    assert_eq!(listing.partitions.len(), 1);
    assert_eq!(listing.unreadable[0].input, "t/5");
    assert_eq!(listing.unreadable[0].reason, "there is no such partition: the topic has 0 to 1");

    let mut wanted = cluster.wanted("");
    wanted.address.topic = "u".to_owned();
    let reason = wanted.ask(&stop).err().unwrap();
    assert!(reason.starts_with("there is no such topic"), "{reason}");

    let wanted = cluster.wanted("");
    drop(cluster);
    let topic = Topic::of(&wanted);
    let until = Instant::now() + Duration::from_millis(500);
    let asked = Asked { topic: &topic, consumer: topic.consumer().unwrap(), stop: &stop, until };
    let reason = asked.partitions().err().unwrap();
    assert!(reason.starts_with("the brokers do not answer (") && reason.contains("-c"), "{reason}");
    stop.store(true, Ordering::Relaxed);
    let reason = asked.partitions().err().unwrap();
    assert!(reason.starts_with("interrupted"), "{reason}");
}

#[test]
fn a_configuration_cannot_make_it_join_or_commit() {
    let address = Address::parse(OsStr::new("kafka://b/t"), 0).unwrap().unwrap();
    let wanted = |options: &str| {
        let config = format!(
            "{{bootstrap_servers: 'a,b', topics: [t], group_id: live, cluster: prod, librdkafka_options: {{{options}}}}}"
        );
        Wanted::new(address.clone(), Some(yaml_serde::from_str(&config).unwrap()))
    };
    let client = wanted("client.rack: r, fetch.wait.max.ms: '300'").unwrap();
    assert_eq!(client.cluster.as_deref(), Some("prod"));
    for (key, value) in [
        ("bootstrap.servers", "b:9092"),
        ("group.id", GROUP),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("check.crcs", "true"),
        ("queued.max.messages.kbytes", "8192"),
        ("client.rack", "r"),
        ("fetch.wait.max.ms", "300"),
    ] {
        assert_eq!(client.client.get(key), Some(value), "{key}");
    }
    let error = format!("{:#}", wanted("fetch.wait.max: '1'").err().unwrap());
    assert!(error.contains("refuses the option fetch.wait.max: No such"), "{error}");
    for option in ["group.id: x", "enable.auto.commit: 'true'", "auto.offset.reset: latest"] {
        let error = format!("{:#}", wanted(option).err().unwrap());
        assert!(error.contains("Lapwing sets this itself"), "{error}");
    }
}

/// What there is in a batch of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Sound,
    /// Its checksum is wrong.
    Damaged,
    /// Its format is unknown: librdkafka reads no answer further.
    Unknown,
}

/// Where a search says that damage ends which begins at offset 0, and how many places it looked at. A batch is its length and what
/// it is, and an answer holds so many of them.
fn found(batches: &[(i64, Is)], answer: usize) -> (Look, u32) {
    let starts: Vec<i64> = batches
        .iter()
        .scan(0, |next, (length, _)| {
            *next += length;
            Some(*next - length)
        })
        .collect();
    let end = batches.iter().map(|(length, _)| length).sum();
    let mut skip = Skip::new(0, String::new());
    loop {
        let Look::At(at) = skip.look(end) else { return (skip.look(end), skip.tried) };
        assert!((0..end).contains(&at) && at > skip.bad, "{skip:?}");
        let nth = starts.partition_point(|start| *start <= at) - 1;
        let mut first = None;
        for (start, (_, is)) in starts.iter().zip(batches).skip(nth).take(answer) {
            match is {
                Is::Sound => first = Some(at.max(*start)),
                _ => skip.heard.push(format!("{is:?} at {start}")),
            }
            if *is != Is::Damaged {
                break;
            }
        }
        skip.saw(at, first);
        assert!(skip.tried < 3 * PLACES, "{skip:?}");
    }
}

#[test]
fn the_end_of_damage_is_found_exactly() {
    use Is::{Damaged, Sound, Unknown};
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..500 {
        let longest = [1, 2, 10, 5_000][round % 4];
        let mut batches: Vec<_> = (0..rng.usize(1..30))
            .map(|_| (rng.i64(1..=longest), [Damaged, Unknown, Sound][rng.usize(0..3)]))
            .collect();
        batches[0].1 = [Damaged, Unknown][rng.usize(0..2)];
        let damaged = batches.iter().take_while(|(_, is)| *is != Sound).map(|(length, _)| length).sum();
        for answer in [1, 3, 100] {
            let (look, tried) = found(&batches, answer);
            assert_eq!(look, Look::Found(damaged), "{answer}: {batches:?}");
            assert!(tried < 30 * 30, "{tried} places");
        }
    }
    // With the end in the same answer, one place is enough.
    assert_eq!(found(&[(10, Damaged), (10, Damaged), (10, Sound), (10, Damaged)], 100), (Look::Found(20), 1));
    // A million batches are not tried one by one, and it is known then that some may be sound.
    let mut many = vec![(1, Unknown); 1 << 20];
    many.push((1, Sound));
    let (look, tried) = found(&many, 1);
    assert!(look == Look::Found(1 << 20) && tried < PLACES + 100, "{look:?} after {tried}");
}
