//! Each half of a lane by itself, without brokers.

use detectors::rules::{self, File, Tuning};
use detectors::settings::Settings;

use super::super::*;
use crate::delivery::fs::{Fs, Memory};
use crate::delivery::log::Options;
use crate::source::Engines;
use crate::source::kafka::Gathered;

/// Three looks of one actor within a minute.
const RULES: &str = "
title: A look
name: test/_look
status: test
logsource: {product: kubernetes, service: audit}
detection:
  look: {verb: get}
  condition: look
---
title: Looks
name: test/looks
status: test
level: low
correlation:
  type: event_count
  rules: [test/_look]
  group-by: [actor.name]
  timespan: 1m
  condition: {gte: 3}
";
const SECOND: Nanos = 1_000_000_000;
/// 2026-03-01T10:00:00Z.
const BEGIN: Nanos = 1_772_359_200 * SECOND;
const DAY: i64 = 86_400;

fn judging(yaml: &str, tuning: &Tuning) -> Judging {
    let (settings, file) =
        (Settings::default(), File { name: "test.yml".to_owned(), yaml: yaml.to_owned(), folder: None });
    let engine = rules::assemble(rules::read(&[file], &settings), settings, tuning).unwrap();
    Judging { engine: Arc::new(engine), min_level: None }
}

/// What a lane hears from.
struct Ends {
    deliveries: mpsc::Sender<Delivery>,
    orders: mpsc::Sender<Order>,
    engines: Engines,
    telemetry: Arc<Telemetry>,
    _stop: watch::Sender<bool>,
}

/// A lane of one Kafka input, which keeps everything in memory.
fn lane(role: Role, judging: &Judging) -> (Lane, Ends) {
    let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 24));
    let options = Options::in_memory(rule_tags(&judging.engine));
    let (deliveries, delivered) = mpsc::channel(16);
    let (orders, ordered) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(false);
    let (in_force, engines) = watch::channel(Arc::clone(&judging.engine));
    let telemetry = Telemetry::new();
    let parts = Parts {
        role,
        matches: None,
        deliveries: delivered,
        orders: ordered,
        engines: in_force,
        stop: stopped,
        log: Log::open(Arc::clone(&fs), options).unwrap().0,
        durable: true,
        dead: Arc::new(Dead::open(fs, 1 << 20)),
        spools: Spools::default(),
        recent: Recent::default(),
        latest: watch::channel(0).0,
        telemetry: Arc::clone(&telemetry),
        heartbeat: Heartbeat::new(),
        readiness: Readiness::new(),
    };
    let inputs = Inputs { open: 1, positioned: Vec::new(), known: HashSet::new() };
    let mut lane = Lane::new(parts, inputs);
    lane.codec = Codec::new(judging.engine.correlations());
    (lane, Ends { deliveries, orders, engines, telemetry, _stop: stop })
}

/// Messages of a partition, and the answer to them. None: it has just been given to the member.
fn messages(stream: &str, payloads: &[Vec<u8>], content: Content) -> (Messages, oneshot::Receiver<Handled>) {
    let (reply, handled) = oneshot::channel();
    let messages = Messages {
        input: "matches".into(),
        stream: stream.into(),
        cluster: None,
        bytes: payloads.iter().map(Vec::len).sum(),
        content,
        reply: Some(reply),
        room: None,
    };
    (messages, handled)
}

fn gathered(payloads: &[Vec<u8>]) -> Content {
    let mut gathered = Gathered::default();
    for (offset, payload) in (0..).zip(payloads) {
        gathered.take(offset, payload, false);
    }
    Content::Payloads(gathered)
}

/// What detectors have found in messages.
fn judged(engine: &Arc<Engine>, payloads: &[Vec<u8>]) -> Content {
    let (mut worker, mut judged) = (engine.worker(), Judged::default());
    for (offset, payload) in (0..).zip(payloads) {
        Stream::whole_message(&mut worker, ("in", "t/0"), offset, payload, &mut judged);
    }
    judged.tally = worker.take_tally();
    Content::Judged(Arc::clone(engine), Box::new(judged))
}

/// A look so many seconds after the beginning.
fn look(actor: &str, second: i64) -> Vec<u8> {
    let at = time::format(BEGIN + second * SECOND);
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"{actor}-{second}\",\
         \"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/namespaces/a/configmaps/b\",\"verb\":\"get\",\
         \"user\":{{\"username\":\"{actor}\"}},\"objectRef\":{{\"resource\":\"configmaps\",\"namespace\":\"a\",\"name\":\"b\"}},\
         \"responseStatus\":{{\"code\":200}},\"requestReceivedTimestamp\":\"{at}\",\"stageTimestamp\":\"{at}\"}}"
    )
    .into_bytes()
}

/// The matches of looks, as a member that detects writes them.
fn matches(judging: &Judging, looks: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut lane, _ends) = lane(Role::Detect, judging);
    let (mut correlator, mut done) = (judging.engine.correlator(WINDOWS), Yield::default());
    let (messages, _) = messages("t/0", looks, judged(&judging.engine, looks));
    lane.messages(judging, &mut correlator, messages, &mut done);
    let ours = done.matches.into_iter().filter(|record| record.key.starts_with(b"test/looks"));
    let values: Vec<Vec<u8>> = ours.map(|record| record.value).collect();
    assert_eq!(values.len(), looks.len());
    values
}

/// One partition is three days behind another, and has bursts of three looks in 40 minutes: first the first of each, then the
/// second, then the third. If the clock went with the other, the first would be forgotten before the third came.
#[test]
fn a_partition_that_is_behind_holds_the_clock() {
    let judging = judging(RULES, &Tuning::default());
    let bursts: Vec<_> =
        (0..3).flat_map(|nth| (0..40).map(move |minute| look("behind", minute * 60 + nth))).collect();
    let ahead: Vec<_> = (0..160).map(|nth| look("ahead", 3 * DAY + nth * 600)).collect();
    let (bursts, ahead) = (matches(&judging, &bursts), matches(&judging, &ahead));
    let (mut lane, _ends) = lane(Role::Correlate, &judging);
    let (mut correlator, mut done) = (judging.engine.correlator(WIDE_WINDOWS).partial(), Yield::default());
    let mut take = |lane: &mut Lane, stream: &str, payloads: &[Vec<u8>]| {
        let (messages, mut reply) = messages(stream, payloads, gathered(payloads));
        lane.messages(&judging, &mut correlator, messages, &mut done);
        answer(std::mem::take(&mut done.patient));
        assert_eq!(reply.try_recv(), Ok(Handled { records: payloads.len() as u64, bad: 0 }));
        (correlator.now(), correlator.stats().late, done.record.alerts.len())
    };
    take(&mut lane, "t/0", &[]);
    take(&mut lane, "t/1", &[]);
    // Nothing has come of the first yet.
    take(&mut lane, "t/1", &ahead[..60]);
    for (behind, ahead) in bursts.chunks(10).zip(ahead[60..].chunks(5)) {
        take(&mut lane, "t/0", behind);
        take(&mut lane, "t/1", ahead);
    }
    let last = BEGIN + (39 * 60 + 2) * SECOND;
    let (now, late, alerts) = take(&mut lane, "t/1", &ahead[120..130]);
    assert!(now.is_some_and(|now| now <= last), "{now:?} is later than {last}");
    assert_eq!((late, alerts), (0, 40));
    // Of one that is idle nothing is waited for.
    lane.clocks.get_mut("t/0").unwrap().1 = Instant::now().checked_sub(IDLE).unwrap();
    let (now, ..) = take(&mut lane, "t/1", &ahead[130..]);
    assert!(now.is_some_and(|now| now > BEGIN + 3 * DAY * SECOND), "{now:?}");
}

/// Asks a lane to judge with other detectors.
async fn reload(ends: &Ends, yaml: &str, tuning: &Tuning) -> Result<(), String> {
    let (reply, done) = oneshot::channel();
    let sent = ends.orders.send(Order::Reload(Box::new(judging(yaml, tuning)), reply)).await;
    assert!(sent.is_ok());
    done.await.unwrap().map_err(|error| error.to_string())
}

/// Has a lane handle messages.
async fn handle(ends: &Ends, payloads: &[Vec<u8>], content: Content) -> Handled {
    let (messages, handled) = messages("t/0", payloads, content);
    assert!(ends.deliveries.send(Delivery::Messages(messages)).await.is_ok());
    handled.await.unwrap()
}

/// How many alerts of the levels low and high there were.
fn raised(ends: &Ends) -> [u64; 2] {
    let told = ends.telemetry.encode(std::time::SystemTime::now());
    ["low", "high"].map(|level| {
        let series = format!("lapwing_alerts_total{{level=\"{level}\"}} ");
        let count = told.lines().find_map(|line| line.strip_prefix(&series));
        count.map_or(0, |count| count.parse().unwrap())
    })
}

/// Other correlations, or the same ones that show other fields, come to none of the two roles while it runs, and nothing that comes
/// with them; what belongs to one member alone does.
#[tokio::test]
async fn a_reload_changes_no_correlation_of_a_fleet() {
    let others = [
        RULES.replace("gte: 3", "gte: 2"),
        RULES.replace("timespan: 1m", "timespan: 2m"),
        format!("{RULES}fields: [target.name]\n"),
        RULES.split("---").next().unwrap().to_owned(),
        format!("{RULES}---{}", RULES.split("---").nth(1).unwrap().replace("test/looks", "test/more")),
    ];
    let seen = RULES.split("---").next().unwrap().replace("test/_look", "test/seen\nlevel: low");
    let with_seen = |rules: &str| format!("{rules}---{seen}");
    let graver = RULES.replace("title: Looks", "title: Many looks").replace("level: low", "level: high");
    let quiet = Tuning { disable: vec!["exec/attach".to_owned()], ..Tuning::default() };
    let first = judging(RULES, &Tuning::default());
    let looks: Vec<_> = (0..4).chain(60..63).map(|second| look("u", second)).collect();
    let matches = matches(&first, &looks);
    for (role, payloads, expected) in [
        (Role::All, &looks, None),
        (Role::Detect, &looks, Some([[0, 0], [3, 0]])),
        (Role::Correlate, &matches, Some([[1, 0], [1, 1]])),
    ] {
        let first = judging(RULES, &Tuning::default());
        let (lane, ends) = lane(role, &first);
        let content = |payloads: &[Vec<u8>]| match role {
            Role::Correlate => gathered(payloads),
            Role::All | Role::Detect => judged(&ends.engines.borrow(), payloads),
        };
        let asked = async {
            let handle = |payloads| handle(&ends, payloads, content(payloads));
            assert_eq!(handle(&payloads[..2]).await, Handled { records: 2, bad: 0 });
            for (nth, other) in others.iter().enumerate() {
                let done = reload(&ends, &with_seen(other), &Tuning::default()).await;
                let refused = if role == Role::All { Ok(()) } else { Err(OTHER_LOGIC.to_owned()) };
                assert_eq!(done, refused, "{role:?}, {nth}");
            }
            assert_eq!(handle(&payloads[2..4]).await, Handled { records: 2, bad: 0 }, "{role:?}");
            let before = raised(&ends);
            assert_eq!(reload(&ends, &with_seen(&graver), &quiet).await, Ok(()), "{role:?}");
            assert_eq!(handle(&payloads[4..]).await, Handled { records: 3, bad: 0 }, "{role:?}");
            let all = [before, raised(&ends)];
            assert!(expected.is_none_or(|expected| expected == all), "{role:?}, {all:?}");
        };
        tokio::select! {
            _ = lane.run(first) => panic!("it ends"),
            () = asked => {}
        }
    }
}

/// What was judged by detectors that were replaced meanwhile: steps count for their rules, whatever their numbers are now, and those
/// of rules that are gone, or have another logic, do not.
#[tokio::test]
async fn what_other_detectors_have_found_counts_for_the_same_rules() {
    let look_rule = RULES.split("---").next().unwrap();
    let before =
        RULES.split("---").nth(1).unwrap().replace("test/looks", "test/another").replace("gte: 3", "gte: 9");
    let (more, gone) =
        (format!("{look_rule}---{before}---{}", RULES.split("---").nth(1).unwrap()), look_rule);
    let old = judging(RULES, &Tuning::default());
    let number = |engine: &Engine| engine.correlations().position(|tag| tag.name == "test/looks");
    assert_ne!(
        number(&old.engine),
        number(&judging(&more, &Tuning::default()).engine),
        "it has another number"
    );
    let looks: Vec<_> = (0..3).map(|second| look("u", second)).collect();
    for (rules, expected) in [(&*more, 1), (&*RULES.replace("gte: 3", "gte: 2"), 0), (gone, 0)] {
        let (first, engine) = (judging(RULES, &Tuning::default()), Arc::clone(&old.engine));
        let (lane, ends) = lane(Role::All, &first);
        let asked = async {
            handle(&ends, &looks[..2], judged(&engine, &looks[..2])).await;
            assert_eq!(reload(&ends, rules, &Tuning::default()).await, Ok(()));
            handle(&ends, &looks[2..], judged(&engine, &looks[2..])).await;
            assert_eq!(raised(&ends), [expected, 0], "{rules}");
        };
        tokio::select! {
            _ = lane.run(first) => panic!("it ends"),
            () = asked => {}
        }
    }
}
