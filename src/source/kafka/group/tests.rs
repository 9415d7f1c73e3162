//! What becomes of partitions that are given to a member while brokers do not answer what it asks: nothing is lost, and no window
//! is silently empty. The mock cluster finds no message by its time, so what is read again here is read for want of an answer.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::types::RDKafkaApiKey as Api;
use tokio::sync::mpsc;

use super::super::tests::{config, engine};
use super::super::*;
use super::*;
use crate::source::outlet::Stop;

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
/// One that librdkafka does not ask again after.
const REFUSED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
/// The messages of the topic, a minute apart, of which the last is of now.
const MESSAGES: i64 = 10;
/// How far the group has come.
const COMMITTED: i64 = 6;
const MINUTE: Nanos = 60 * 1_000_000_000;

/// A topic `t` with messages, a group, and what its member tells the lane.
struct Rig {
    cluster: MockCluster<'static, DefaultProducerContext>,
    config: Config,
    outlet: Option<Outlet>,
    lane: mpsc::Receiver<Delivery>,
}

impl Rig {
    fn new(committed: Option<i64>) -> Rig {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let config =
            config(&format!("{{bootstrap_servers: '{servers}', topics: [t], from: start}}")).unwrap();
        let producer: BaseProducer =
            rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        for nth in 1..=MESSAGES {
            let time = (nanos_now() - (MESSAGES - nth) * MINUTE).to_string();
            producer
                .send(BaseRecord::<(), str>::to("t").partition(0).payload(&time))
                .map_err(|(error, _)| error)
                .unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        if let Some(committed) = committed {
            let group: BaseConsumer = config.client().unwrap().create().unwrap();
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset("t", 0, Offset::Offset(committed)).unwrap();
            group.commit(&offsets, CommitMode::Sync).unwrap();
        }
        let (sender, lane) = mpsc::channel(1_000);
        let outlet = Outlet::new(sender, Room::new(1 << 20), Stop::new().unwrap(), Telemetry::new());
        Rig { cluster, config, outlet: Some(outlet.unwrap()), lane }
    }

    /// A member that counts matches, whose windows reach back for an hour.
    fn purpose() -> Purpose {
        let time_of = |payload: &[u8]| std::str::from_utf8(payload).ok()?.parse().ok();
        Purpose::Windows(LookBack { reach: 60 * MINUTE, time_of })
    }

    /// A member that joins the group.
    fn member(&mut self) -> Member {
        let outlet = self.outlet.take().unwrap();
        let consumer = consumer(&self.config, &Rig::purpose(), &outlet, Readiness::new()).unwrap();
        Member::new(&self.config, consumer, outlet)
    }

    /// What came of messages: their offsets, and whether they are read again. Until as many have come as there are expected, and
    /// a little longer.
    fn come(&mut self, member: &mut Member, expected: usize) -> Vec<(u64, bool)> {
        let (mut came, began) = (Vec::new(), Instant::now());
        let mut enough = None;
        while enough.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(300)) {
            assert!(began.elapsed() < Duration::from_secs(30), "{came:?}");
            assert!(member.turn(&mut None).is_ok(), "{came:?}");
            while let Ok(delivery) = self.lane.try_recv() {
                let Delivery::Messages(Messages { content: Content::Payloads(gathered), reply, .. }) =
                    delivery
                else {
                    continue;
                };
                let messages = gathered.messages;
                came.extend(messages.iter().map(|message| (message.offset, message.again)));
                // Whoever leaves the group waits for what is not handled.
                let handled = Handled { records: messages.len() as u64, bad: 0 };
                reply.map(|reply| reply.send(handled));
            }
            if came.len() >= expected {
                enough = enough.or(Some(Instant::now()));
            }
        }
        came
    }
}

/// Offsets that are read again, and those that are new.
fn reading(again: i64, new: Range<i64>) -> Vec<(u64, bool)> {
    let again = (again..new.start).map(|offset| (offset as u64, true));
    again.chain(new.clone().map(|offset| (offset as u64, false))).collect()
}

/// Answers to questions, and what a member of a group that has come so far reads with them.
type Case<'c> = (Option<i64>, &'c [(Api, &'c [RDKafkaRespErr])], Vec<(u64, bool)>);

/// All at once: each waits for three seconds for the group to come together.
fn check(cases: &[Case<'_>]) {
    std::thread::scope(|scope| {
        for (committed, answers, expected) in cases {
            scope.spawn(move || {
                let mut rig = Rig::new(*committed);
                for (question, answers) in *answers {
                    rig.cluster.request_errors(*question, answers);
                }
                let mut member = rig.member();
                assert_eq!(rig.come(&mut member, expected.len()), *expected, "{committed:?} {answers:?}");
            });
        }
    });
}

#[test]
fn what_windows_need_is_read_if_nobody_says_where_it_begins() {
    let all = || reading(0, COMMITTED..MESSAGES);
    check(&[
        // It is said that nothing is as young as that.
        (Some(COMMITTED), &[], reading(COMMITTED, COMMITTED..MESSAGES)),
        // First the two ends of the partition are asked for, then the offset by time.
        (Some(COMMITTED), &[(Api::ListOffsets, &[NO_ERROR, NO_ERROR, REFUSED])], all()),
        // The ends are not said when the partition is given, but when the first message comes.
        (Some(COMMITTED), &[(Api::ListOffsets, &[REFUSED, REFUSED, NO_ERROR, NO_ERROR, REFUSED])], all()),
    ]);
}

#[test]
fn positions_that_are_not_said_at_once_are_asked_for_again() {
    let refused = &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 3];
    let by_time = &[NO_ERROR, NO_ERROR, REFUSED];
    check(&[
        (Some(COMMITTED), &[(Api::OffsetFetch, refused)], reading(COMMITTED, COMMITTED..MESSAGES)),
        (
            Some(COMMITTED),
            &[(Api::OffsetFetch, refused), (Api::ListOffsets, by_time)],
            reading(0, COMMITTED..MESSAGES),
        ),
        // A first start begins where it would have begun.
        (None, &[(Api::ListOffsets, &[REFUSED, REFUSED])], reading(0, 0..MESSAGES)),
        (None, &[(Api::OffsetFetch, refused)], reading(0, 0..MESSAGES)),
    ]);
}

/// As after a minute without an answer: librdkafka finds the position by itself, and the first message what its windows need.
#[test]
fn a_position_that_is_never_said_is_found_with_the_first_message() {
    let mut rig = Rig::new(Some(COMMITTED));
    let outlet = rig.outlet.take().unwrap();
    let group =
        Group::new(&rig.config, Rig::purpose(), Arc::clone(&outlet.telemetry), Readiness::new()).unwrap();
    let consumer: BaseConsumer<Group> = rig.config.client().unwrap().create_with_context(group).unwrap();
    let offset = consumer.context().adopt(&consumer, ("t", 0), None, Some((0, MESSAGES)), Instant::now());
    assert_eq!(offset, Offset::Stored);
    let mut given = TopicPartitionList::new();
    given.add_partition_offset("t", 0, offset).unwrap();
    consumer.assign(&given).unwrap();
    consumer.context().tell();
    rig.cluster.request_errors(Api::ListOffsets, &[NO_ERROR, NO_ERROR, REFUSED]);
    let consumer = Arc::new(consumer);
    let committer = Committer::start(&consumer).unwrap();
    let mut member = Member::new(&rig.config, (consumer, committer), outlet);
    let expected = reading(0, COMMITTED..MESSAGES);
    assert_eq!(rig.come(&mut member, expected.len()), expected);
}

/// The member leaves the group then, and what it could not place is not committed.
#[test]
fn a_message_whose_windows_cannot_be_filled_is_not_taken() {
    let mut rig = Rig::new(Some(COMMITTED));
    rig.cluster.request_errors(Api::ListOffsets, &[REFUSED; 4]);
    let mut member = rig.member();
    let began = Instant::now();
    let end = loop {
        match member.turn(&mut None) {
            Ok(()) => assert!(began.elapsed() < Duration::from_secs(30), "it goes on without windows"),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, End::Fatal(_)));
    assert!(rig.lane.try_recv().is_err(), "the lane has something");
    member.consumer.context().commit(&member.consumer);
    let mut asked = TopicPartitionList::new();
    asked.add_partition("t", 0);
    let committed = member.consumer.committed_offsets(asked, Duration::from_secs(10)).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(COMMITTED));
}

/// There are fewer partitions than members, and one that has none is as good as the others.
#[test]
fn a_member_without_partitions_is_ready_once_it_is_one() {
    let mut rig = Rig::new(None);
    let servers = rig.cluster.bootstrap_servers();
    rig.config = config(&format!("{{bootstrap_servers: '{servers}', topics: [t]}}")).unwrap();
    let join = || {
        let (sender, lane) = mpsc::channel(1_000);
        let outlet = Outlet::new(sender, Room::new(1 << 20), Stop::new().unwrap(), Telemetry::new()).unwrap();
        let readiness = Readiness::new();
        for reason in readiness.reasons() {
            readiness.set(reason, true);
        }
        // As `start` has it.
        readiness.group("kafka", String::new(), Some(false));
        let consumer = consumer(&rig.config, &Rig::purpose(), &outlet, readiness.clone()).unwrap();
        (Member::new(&rig.config, consumer, outlet), lane, readiness)
    };
    let (mut one, _lane, first) = join();
    let (mut other, _lane, second) = join();
    let partitions = |member: &Member| member.consumer.assignment().unwrap().count();
    let began = Instant::now();
    let ready = |readiness: &Readiness| readiness.reasons().is_empty();
    while !(ready(&first) && ready(&second)) {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?} {:?}", first.reasons(), second.reasons());
        assert!(one.turn(&mut None).is_ok() && other.turn(&mut None).is_ok());
    }
    assert_eq!(partitions(&one) + partitions(&other), 1);
}

/// A partition that is gone is committed no more, and all others are.
#[test]
fn what_is_denied_again_and_again_is_committed_no_more() {
    let mut rig = Rig::new(Some(COMMITTED));
    let mut member = rig.member();
    rig.come(&mut member, (MESSAGES - COMMITTED) as usize);
    let (consumer, group) = (&member.consumer, member.consumer.context());
    let handled = |next| {
        group.state().partitions.get_mut("t/0").unwrap().handled = next;
    };
    let waits = || group.state().partitions.get("t/0").unwrap().handled;
    // More than there are tries, librdkafka's own among them.
    let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART; 1_000];
    rig.cluster.request_errors(Api::OffsetCommit, &denied);
    handled(Some(MESSAGES));
    for nth in 1..=DENIALS {
        group.commit(consumer);
        assert_eq!(waits(), (nth < DENIALS).then_some(MESSAGES), "after {nth} times");
    }
    // It is there again.
    rig.cluster.clear_request_errors(Api::OffsetCommit);
    handled(Some(MESSAGES));
    group.commit(consumer);
    let mut asked = TopicPartitionList::new();
    asked.add_partition("t", 0);
    let committed = consumer.committed_offsets(asked, Duration::from_secs(10)).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(MESSAGES));
    assert_eq!(group.state().partitions.get("t/0").unwrap().denied, 0);
}

/// Topics of which a member has no partition count, too.
#[test]
fn a_member_knows_how_many_partitions_all_topics_have() {
    let rig = Rig::new(None);
    rig.cluster.create_topic("u", 3, 1).unwrap();
    let servers = rig.cluster.bootstrap_servers();
    let config = config(&format!("{{bootstrap_servers: '{servers}', topics: [t, '^u']}}")).unwrap();
    let join = || {
        let (sender, lane) = mpsc::channel(1_000);
        let telemetry = Telemetry::new();
        let outlet =
            Outlet::new(sender, Room::new(1 << 20), Stop::new().unwrap(), Arc::clone(&telemetry)).unwrap();
        let purpose = Purpose::Whole(tokio::sync::watch::channel(engine()).1);
        let consumer = consumer(&config, &purpose, &outlet, Readiness::new()).unwrap();
        (Member::new(&config, consumer, outlet), lane, telemetry)
    };
    let partial = |telemetry: &Telemetry, is: u8| {
        telemetry
            .encode(std::time::SystemTime::now())
            .contains(&format!("lapwing_correlation_scope_partial{{input=\"kafka\"}} {is}\n"))
    };
    let began = Instant::now();
    let (mut one, _lane, first) = join();
    while !partial(&first, 0) || one.consumer.assignment().unwrap().count() < 4 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", first.encode(std::time::SystemTime::now()));
        assert!(one.turn(&mut None).is_ok());
    }
    let others: Vec<_> = (0..3).map(|_| join()).collect();
    let mut all = vec![(one, first)];
    let mut lanes = Vec::new();
    for (member, lane, telemetry) in others {
        lanes.push(lane);
        all.push((member, telemetry));
    }
    // Each has one, of one of the topics.
    while !all.iter().all(|(_, telemetry)| partial(telemetry, 1)) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{:?}",
            all.iter().map(|one| one.1.encode(std::time::SystemTime::now())).last()
        );
        for (member, _) in &mut all {
            assert!(member.turn(&mut None).is_ok());
        }
    }
}
