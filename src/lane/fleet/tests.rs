//! Each half of a lane by itself, without brokers.

use detectors::rules::{self, File, Tuning};
use detectors::settings::Settings;

use super::super::*;
use crate::delivery::fs::{Fs, Memory};
use crate::delivery::log::Options;
use crate::source::Message;

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
    Judging { engine, min_level: None }
}

/// What a lane hears from.
struct Ends {
    deliveries: mpsc::Sender<Delivery>,
    orders: mpsc::Sender<Order>,
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
    let telemetry = Telemetry::new();
    let parts = Parts {
        role,
        matches: None,
        deliveries: delivered,
        orders: ordered,
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
    (lane, Ends { deliveries, orders, telemetry, _stop: stop })
}

/// Messages of a partition. None: it has just been given to the member.
fn batch(stream: &str, payloads: &[Vec<u8>]) -> Batch {
    let mut start = 0;
    let message = |(offset, payload): (u64, &Vec<u8>)| {
        let end = start + payload.len() as u32;
        Message { offset, start: std::mem::replace(&mut start, end), end, again: false }
    };
    Batch {
        input: "matches".into(),
        stream: stream.into(),
        offset: 0,
        messages: Some((0..).zip(payloads).map(message).collect()),
        bytes: payloads.concat().into(),
        last: true,
        cluster: None,
        position: None,
        reply: None,
        room: None,
    }
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
    let (mut worker, mut done) = (judging.engine.worker(), Yield::default());
    let mut correlator = judging.engine.correlator(WINDOWS);
    lane.detect(judging, &mut correlator, &mut worker, &batch("t/0", looks), &mut done);
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
        let handled = lane.correlate(&judging, &mut correlator, &batch(stream, payloads), &mut done);
        assert_eq!(handled, Handled { records: payloads.len() as u64, bad: 0 });
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
async fn handle(ends: &Ends, payloads: &[Vec<u8>]) -> Handled {
    let (reply, handled) = oneshot::channel();
    let batch = Batch { reply: Some(reply), ..batch("t/0", payloads) };
    assert!(ends.deliveries.send(Delivery::Batch(batch)).await.is_ok());
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
        let asked = async {
            assert_eq!(handle(&ends, &payloads[..2]).await, Handled { records: 2, bad: 0 });
            for (nth, other) in others.iter().enumerate() {
                let done = reload(&ends, &with_seen(other), &Tuning::default()).await;
                let refused = if role == Role::All { Ok(()) } else { Err(OTHER_LOGIC.to_owned()) };
                assert_eq!(done, refused, "{role:?}, {nth}");
            }
            assert_eq!(handle(&ends, &payloads[2..4]).await, Handled { records: 2, bad: 0 }, "{role:?}");
            let before = raised(&ends);
            assert_eq!(reload(&ends, &with_seen(&graver), &quiet).await, Ok(()), "{role:?}");
            assert_eq!(handle(&ends, &payloads[4..]).await, Handled { records: 3, bad: 0 }, "{role:?}");
            let all = [before, raised(&ends)];
            assert!(expected.is_none_or(|expected| expected == all), "{role:?}, {all:?}");
            drop(ends);
        };
        let (ended, ()) = tokio::join!(lane.run(first), asked);
        ended.unwrap();
    }
}
