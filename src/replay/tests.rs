use uuid::Uuid;

use super::*;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use detectors::alert::{Alert, Evidence};
use detectors::engine::{Emitted, Extent, Origin};
use detectors::event::frame::Frame;
use detectors::event::pieces::Piece;
use detectors::rules;
use detectors::scan::Marks;
use detectors::settings::Settings;
use detectors::tally::Format;
use proptest::prelude::*;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::source::kafka::address::Address;
use crate::source::kafka::history::Wanted;
use crate::source::plan::{self, Named};
use crate::stream;

/// Says of every record where it lies, and dies of some.
#[derive(Default)]
struct Witness {
    tally: Tally,
    actors: BTreeMap<String, u64>,
}

impl Witness {
    fn saw(&mut self, input: &str, offset: u64, bytes: &[u8], extent: Extent, out: &mut Vec<Emitted>) {
        assert!(!bytes.windows(5).any(|window| window == b"PANIC"), "asked to");
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let time = (hasher.finish() % 1_000_000_000_000) as Nanos;
        *self.tally.formats.entry(Format::Audit).or_default() += 1;
        let minute = self.tally.minutes.entry(time / 60_000_000_000).or_insert((time, time));
        *minute = (minute.0.min(time), minute.1.max(time));
        let sample =
            Sample { input: input.to_string(), offset, length: 0, keys: Vec::new(), sha256: String::new() };
        if self.tally.samples.len() < MAX_SAMPLES {
            self.tally.samples.push(sample);
        }
        *self.actors.entry((bytes.len() % 7).to_string()).or_default() += 1;
        let place = format!("{input} {offset} {} {extent:?}", bytes.len());
        // An event that reads the same elsewhere is the same event.
        let text =
            if bytes.starts_with(b"{\"same\"") { String::from_utf8_lossy(bytes).into() } else { place };
        let found = Found {
            time,
            detector: (bytes.len() % 3) as u32,
            alert: alert(input, offset, bytes.len() as u64, &text),
        };
        out.push(Emitted::Alert(Box::new(found)));
        out.push(Emitted::Step(Step { time, bytes: text.into_bytes() }));
    }
}

fn alert(input: &str, offset: u64, length: u64, text: &str) -> Alert {
    Alert {
        uuid: Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()),
        time: String::new(),
        rule: "Seen".to_string(),
        priority: "Notice".to_string(),
        level: Level::Low,
        source: "k8s_audit".to_string(),
        output: text.to_string(),
        output_fields: BTreeMap::new(),
        tags: Vec::new(),
        schema: "lapwing/v1".to_string(),
        detector: "test/seen".to_string(),
        cluster: None,
        k8s: None,
        evidence: vec![Evidence {
            input: input.to_string(),
            offset,
            length,
            sha256: String::new(),
            time: String::new(),
            audit_id: None,
        }],
        hostname: None,
        partial: None,
        approximate: None,
        steps: None,
        group: None,
        count: None,
    }
}

/// True if the line opens a value and does not close it, or goes on in another line.
fn is_open(line: &[u8]) -> bool {
    if Piece::of_cri(line).is_some_and(|piece| piece.begins(&mut Marks::new())) {
        return true;
    }
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for byte in line {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth -= 1,
            _ => {}
        }
    }
    matches!(line.first(), Some(b'{' | b'[')) && (depth > 0 || in_string)
}

impl stream::Judge for Witness {
    fn lines(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> Option<usize> {
        let mut start = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if is_open(line) {
                return Some(start);
            }
            let end = line.len() - usize::from(line.ends_with(b"\n"));
            if end > 0 {
                self.saw(origin.input, origin.offset + start as u64, &line[..end], Extent::Whole, out);
            }
            start += line.len();
        }
        None
    }

    fn line(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> bool {
        let alone = bytes.iter().position(|byte| *byte == b'\n').is_none_or(|at| at + 1 == bytes.len());
        alone && self.lines(origin, bytes, out).is_none()
    }

    fn nuls_are_bad(&mut self, _: bool) {}

    fn record(&mut self, input: &str, frame: Frame<'_>, out: &mut Vec<Emitted>) {
        self.saw(input, frame.offset, frame.bytes, frame.extent, out);
    }
}

impl Judge for Witness {
    fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn drain_profile(&mut self, add: &mut dyn FnMut(Dimension, &str, u64)) {
        for (name, events) in std::mem::take(&mut self.actors) {
            add(Dimension::Actor, &name, events);
        }
    }
}

fn plan(paths: &[&Path]) -> Plan {
    plan::plan(paths.iter().map(|path| Named::Path(path.as_os_str())), &AtomicBool::new(false))
}

/// The outcome of a replay: what was emitted, and the report as text without what may differ.
type Outcome = (Vec<String>, String);

fn correlator() -> Correlator {
    Correlator::new(Vec::new(), 1 << 20).unwrap()
}

fn replay(paths: &[&Path], threads: usize, order: Order, tuning: Tuning) -> Outcome {
    replay_plan(plan(paths), threads, order, tuning)
}

fn replay_plan(plan: Plan, threads: usize, order: Order, tuning: Tuning) -> Outcome {
    let progress = Progress::default();
    let replay = Replay {
        options: &Options { threads, order },
        keep: &|_| true,
        progress: &progress,
        interrupted: &AtomicBool::new(false),
        tuning,
    };
    let mut emitted = Vec::new();
    let mut emit = |found: &Found| {
        emitted.push(format!("{} {}", found.time, found.alert.output));
        Ok(())
    };
    let mut report = replay.run(plan, &Witness::default, correlator(), &mut emit).unwrap();
    report.elapsed = Duration::ZERO;
    let done = progress.done.load(Ordering::Relaxed);
    (emitted, format!("{done} {report:#?}"))
}

fn small(block: usize) -> Tuning {
    Tuning {
        block,
        part: 3 * block as u64,
        slice: block / 2,
        line: 200,
        batch: 300,
        waiting: 1000,
        alone: 300,
    }
}

/// Fails with the first line that differs.
fn assert_same(outcome: &Outcome, expected: &Outcome, how: &str) {
    let lines = |outcome: &Outcome| -> Vec<String> {
        outcome.0.iter().cloned().chain(outcome.1.lines().map(ToString::to_string)).collect()
    };
    let (outcome, expected) = (lines(outcome), lines(expected));
    let differs = outcome.iter().zip(&expected).position(|(a, b)| a != b);
    if let Some(at) = differs {
        panic!("{how}: line {at} is {}, not {}", outcome[at], expected[at]);
    }
    assert_eq!(outcome.len(), expected.len(), "{how}");
}

/// All ways of reading must give what the first gives. Returns that.
fn check(paths: &[&Path]) -> Outcome {
    let expected = replay(paths, 1, Order::Time, small(200));
    for (threads, block) in [(1, 200), (1, 7), (2, 1), (3, 2), (4, 50), (8, 200)] {
        let outcome = replay(paths, threads, Order::Time, small(block));
        assert_same(&outcome, &expected, &format!("{threads} threads, blocks of {block}"));
    }
    let in_order = replay(paths, 1, Order::Input, small(200));
    for (threads, block) in [(2, 3), (4, 50)] {
        let outcome = replay(paths, threads, Order::Input, small(block));
        assert_same(&outcome, &in_order, &format!("in order, {threads} threads, blocks of {block}"));
    }
    let (mut by_time, mut by_input) = (expected.0.clone(), in_order.0);
    by_time.sort();
    by_input.sort();
    assert_eq!(by_time.len(), by_input.len());
    expected
}

fn numbered(key: &str, range: std::ops::Range<usize>) -> String {
    let lines: Vec<_> = range.map(|n| format!("{{\"{key}\":{n}}}\n")).collect();
    lines.concat()
}

fn lines(range: std::ops::Range<usize>) -> String {
    numbered("n", range)
}

/// Lines of a container, each split into that many pieces, of two streams that are interleaved.
fn pieces(count: usize) -> String {
    let piece = |place: usize, stream: &str| {
        let (tag, text) = if place + 1 < count { ("P", "[") } else { ("F", "]") };
        let text = if place == 0 { "[" } else { text };
        format!("2026-03-01T10:00:00Z {stream} {tag} {text}\n")
    };
    (0..3)
        .flat_map(|_| (0..count).flat_map(|place| [piece(place, "stdout"), piece(place, "stderr")]))
        .collect()
}

/// Texts with everything that can happen to a file.
fn texts() -> Vec<(&'static str, String)> {
    let long = format!("{{\"long\":\"{}\"}}\n", "x".repeat(300));
    let pretty = "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n".repeat(30);
    let list = format!("{{\"items\":[{}]}}\n", ["{\"i\":1}"; 50].join(","));
    let torn = "{\"torn\":\"abc\n";
    vec![
        ("empty", String::new()),
        ("lines", lines(0..300)),
        ("unterminated", lines(0..20).trim_end().to_string()),
        ("torn-end", format!("{}{}", lines(0..20), "{\"torn\":")),
        ("torn-middle", [&lines(0..150), torn, &lines(150..400)].concat()),
        ("torn-often", [&lines(0..100), torn, &lines(100..200), torn, torn, &lines(200..600)].concat()),
        ("long", [&lines(0..50), &*long, &lines(50..250), &*long, &*long, &lines(250..300)].concat()),
        ("long-first", [&*long, &lines(0..200)].concat()),
        ("long-end", [&lines(0..20), long.trim_end()].concat()),
        ("list", [&lines(0..20), &*list, &lines(20..200)].concat()),
        ("pretty", pretty.clone()),
        ("pretty-then-lines", [&*pretty, &lines(0..400)].concat()),
        ("bom", ["\u{feff}", &lines(0..50)].concat()),
        ("blank", "\n\n\n".repeat(100)),
        ("text", "no json here\n".repeat(50)),
        ("pieces", [&lines(0..90), &*pieces(30), &lines(90..200), &*pieces(2), &lines(200..400)].concat()),
        ("pieces-without-end", [&lines(0..20), "2026-03-01T10:00:00Z stdout P {\"a\":\n"].concat()),
        ("holes", [&lines(0..20), "{\"a\":\"", &"\0".repeat(500), &lines(20..200)].concat()),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn threads_and_blocks_do_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in texts() {
        let path = directory.path().join(name);
        std::fs::write(&path, &text).unwrap();
        let (emitted, report) = check(&[&path]);
        let wanted = text.lines().filter(|line| line.starts_with("{\"n\":") && line.ends_with('}')).count();
        let found = emitted.iter().filter(|line| line.ends_with("Whole")).count();
        assert!(found >= wanted, "{name}: {found} of {wanted} records\n{report}");
        assert!(report.contains("damaged: Notes {\n        list: [],"), "{report}");
    }
}

#[test]
fn archives_give_what_plain_files_give() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in texts() {
        let path = directory.path().join("same-name");
        std::fs::write(&path, &text).unwrap();
        let (plain, _) = replay(&[&path], 2, Order::Time, small(50));
        let (first, second) = text.as_bytes().split_at(text.len() / 3);
        for archive in [[gzip(first), gzip(second)].concat(), zstd::encode_all(text.as_bytes(), 1).unwrap()] {
            std::fs::write(&path, archive).unwrap();
            let (emitted, _) = check(&[&path]);
            assert_eq!(emitted, plain, "{name}");
        }
    }
}

#[test]
fn many_inputs() {
    let directory = tempfile::tempdir().unwrap();
    for (index, (name, text)) in texts().into_iter().enumerate() {
        let bytes = if index % 3 == 0 { gzip(text.as_bytes()) } else { text.into_bytes() };
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    check(&[directory.path()]);
    check(&[&directory.path().join("text"), directory.path()]);
}

#[test]
fn pipes_are_read_as_they_come() {
    use std::os::fd::AsRawFd;
    for compressed in [false, true] {
        let (reader, mut writer) = io::pipe().unwrap();
        let text = lines(0..300);
        let bytes = if compressed { gzip(text.as_bytes()) } else { text.into_bytes() };
        let writing = std::thread::spawn(move || {
            for piece in bytes.chunks(100) {
                writer.write_all(piece).unwrap();
            }
        });
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let (emitted, report) = replay(&[Path::new(&path)], 2, Order::Time, small(100));
        writing.join().unwrap();
        assert_eq!(emitted.len(), 300, "{report}");
    }
}

#[test]
fn input_order_is_the_order_of_the_plan() {
    let directory = tempfile::tempdir().unwrap();
    let paths: Vec<_> = ["b", "a", "c"].iter().map(|name| directory.path().join(name)).collect();
    for path in &paths {
        std::fs::write(path, lines(0..300)).unwrap();
    }
    let paths: Vec<_> = paths.iter().map(std::path::PathBuf::as_path).collect();
    let (emitted, _) = replay(&paths, 4, Order::Input, small(20));
    let place = |line: &String| {
        let words: Vec<_> = line.split(' ').collect();
        let input = paths.iter().position(|path| path.to_str() == Some(words[1])).unwrap();
        (input, words[2].parse::<u64>().unwrap())
    };
    assert!(emitted.is_sorted_by_key(place));
    assert_eq!(emitted.len(), 900);
}

#[test]
fn duplicates_come_out_once() {
    let directory = tempfile::tempdir().unwrap();
    let same = numbered("same", 0..100);
    std::fs::write(directory.path().join("a"), &same).unwrap();
    std::fs::write(directory.path().join("b"), gzip(same.as_bytes())).unwrap();
    let (emitted, report) = check(&[directory.path()]);
    assert_eq!(emitted.len(), 100);
    assert!(report.contains("duplicates: 100,"), "{report}");
}

#[test]
fn a_damaged_archive_yields_what_decodes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.gz");
    let whole = gzip(lines(0..5000).as_bytes());
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let (emitted, report) = check(&[&path]);
    assert!(emitted.len() > 4000, "{}", emitted.len());
    assert!(report.contains("truncated archive"), "{report}");
    std::fs::write(&path, gzip(&gzip(b"{}"))).unwrap();
    let (emitted, report) = check(&[&path]);
    assert!(emitted.is_empty() && report.contains("unpack the outer one first"), "{report}");
}

#[test]
fn what_is_not_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    write("a.log", lines(0..10).as_bytes());
    write("a.log.gz", &gzip(lines(0..10).as_bytes()));
    write("b.log", lines(0..10).as_bytes());
    write("b.log.gz", &gzip(lines(0..11).as_bytes()));
    write("c.log", b"\xFF\xFE{\0}\0");
    let (emitted, report) = check(&[directory.path()]);
    assert_eq!(emitted.len(), 10 + 10 + 11);
    assert!(report.contains("files: 3,"), "{report}");
    assert!(report.contains("a copy of"), "{report}");
    assert!(report.contains("UTF-16"), "{report}");
}

#[test]
fn a_judge_that_dies_costs_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        [&lines(0..50), "{\"PANIC\":1}\n", &lines(50..150), "{\"torn\n{\"PANIC\":2}\n", &lines(150..300)]
            .concat();
    let (plain, archive) = (directory.path().join("plain"), directory.path().join("archive"));
    std::fs::write(&plain, &text).unwrap();
    std::fs::write(&archive, gzip(text.as_bytes())).unwrap();
    for path in [plain, archive] {
        let (emitted, report) = check(&[&path]);
        assert_eq!(emitted.len(), 301);
        assert!(report.contains("bad: 2,") && report.contains("records: 303,"), "{report}");
        assert_eq!(report.matches("could not be judged").count(), 2, "{report}");
    }
}

#[test]
fn a_message_is_judged_by_itself() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 3, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &servers).set("linger.ms", "0").create().unwrap();
    let payload = |nth: usize| match nth % 10 {
        0 => lines(nth..nth + 3),
        1 => "{\"PANIC\":1}".to_owned(),
        2 => [&lines(nth..nth + 2), "{\"PANIC\":2}\n", &lines(nth..nth + 2)].concat(),
        3 => "{\"torn\":".to_owned(),
        4 => "{\n\"a\": 1\n}\n".to_owned(),
        _ => format!("{{\"n\":{nth}}}"),
    };
    for nth in 0..600 {
        let payload = payload(nth);
        let record: BaseRecord<'_, (), str> =
            BaseRecord::to("t").partition(nth as i32 % 3).payload(payload.as_str());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    let address = format!("kafka://{servers}/t");
    let address = Address::parse(std::ffi::OsStr::new(&address), 0).unwrap().unwrap();
    let outcome = |threads, order, block| {
        let wanted = Wanted::new(address.clone(), None).unwrap();
        let plan = plan::plan([Named::Topic(Box::new(wanted))], &AtomicBool::new(false));
        replay_plan(plan, threads, order, small(block))
    };
    let expected = outcome(1, Order::Time, 200);
    let (emitted, report) = &expected;
    assert_eq!(emitted.len(), 60 * (3 + 4 + 1 + 1 + 5));
    for says in ["bad: 120,", "records: 960,", "partitions: 3,", "at offset 7: internal error"] {
        assert!(report.contains(says), "{says} is not in {report}");
    }
    assert!(emitted.iter().any(|line| line.contains(" t/0@0 8 7 ")), "{emitted:?}");
    for (threads, block) in [(1, 1), (2, 50), (4, 7)] {
        assert_same(&outcome(threads, Order::Time, block), &expected, &format!("{threads} threads"));
    }
    let in_order = outcome(1, Order::Input, 200);
    assert_same(&outcome(3, Order::Input, 20), &in_order, "in order");
}

#[test]
fn an_interruption_ends_early_with_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    std::fs::write(&path, lines(0..10_000)).unwrap();
    for order in [Order::Time, Order::Input] {
        let interrupted = AtomicBool::new(false);
        let replay = Replay {
            options: &Options { threads: 3, order },
            keep: &|_| {
                interrupted.store(true, Ordering::Relaxed);
                true
            },
            progress: &Progress::default(),
            interrupted: &interrupted,
            tuning: small(50),
        };
        let mut emitted = 0;
        let mut emit = |_: &Found| {
            emitted += 1;
            Ok(())
        };
        let plan = plan(&[&path]);
        let report = replay.run(plan, &Witness::default, correlator(), &mut emit).unwrap();
        assert!(report.interrupted);
        assert!(emitted > 0 && emitted < 1000, "{emitted}");
    }
}

#[test]
fn a_failing_output_ends_the_replay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    std::fs::write(&path, lines(0..10_000)).unwrap();
    for order in [Order::Time, Order::Input] {
        for (kind, quiet) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            let replay = Replay {
                options: &Options { threads: 3, order },
                keep: &|_| true,
                progress: &Progress::default(),
                interrupted: &AtomicBool::new(false),
                tuning: small(50),
            };
            let mut emit = |_: &Found| Err(kind.into());
            let plan = plan(&[&path]);
            let result = replay.run(plan, &Witness::default, correlator(), &mut emit);
            assert_eq!(result.is_ok(), quiet);
        }
    }
}

#[test]
fn the_real_engine() {
    let settings = Settings::default();
    let rules = rules::read(&[], &settings);
    let engine = rules::assemble(rules, settings, &rules::Tuning::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let event = "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"a-1\",\"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/namespaces/shop/pods/web/exec?command=sh\",\"verb\":\"create\",\"user\":{\"username\":\"dana\"},\"sourceIPs\":[\"203.0.113.9\"],\"objectRef\":{\"resource\":\"pods\",\"namespace\":\"shop\",\"name\":\"web\",\"apiVersion\":\"v1\",\"subresource\":\"exec\"},\"responseStatus\":{\"code\":101},\"requestReceivedTimestamp\":\"2026-03-01T10:00:00.000001Z\",\"stageTimestamp\":\"2026-03-01T10:00:01.000001Z\"}\n";
    std::fs::write(&path, event.repeat(2)).unwrap();
    let mut uuids = Vec::new();
    let report = run(
        plan(&[&path]),
        &engine,
        &Options { threads: 2, order: Order::Time },
        &|_| true,
        &Progress::default(),
        &AtomicBool::new(false),
        &mut |found| {
            uuids.push(found.alert.uuid);
            Ok(())
        },
    )
    .unwrap();
    assert!(!uuids.is_empty());
    assert_eq!((report.records, report.duplicates), (2, uuids.len() as u64));
    assert_eq!(report.actors.names, [("dana".to_string(), 2)]);
    assert_eq!(report.bytes, std::fs::metadata(&path).unwrap().size());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_any_cut(
        pieces in prop::collection::vec(
            prop_oneof![
                (1_usize..120).prop_map(|n| lines(0..n)),
                (1_usize..400).prop_map(|n| format!("{{\"x\":\"{}\"}}\n", "y".repeat(n))),
                Just("{\"torn\":[\n".to_string()),
                Just("{\n  \"a\": 1\n}\n".to_string()),
                Just("{\"items\": [\n {\"i\":1},\n {\"i\":2}\n]}\n".to_string()),
                Just("text\n".to_string()),
                (2_usize..80).prop_map(pieces),
                Just("2026-03-01T10:00:00Z stdout P x".to_string()),
                Just("\0".repeat(20)),
                "[\\[\\]{}\",:a \n\\\\]{0,20}",
            ],
            0..10,
        ),
        threads in 1_usize..5,
        block in 1_usize..=200,
        archived: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let text = pieces.concat();
        std::fs::write(&path, &text).unwrap();
        let expected = replay(&[&path], 1, Order::Time, small(200));
        if archived {
            std::fs::write(&path, gzip(text.as_bytes())).unwrap();
            prop_assert_eq!(replay(&[&path], threads, Order::Time, small(block)).0, expected.0);
        } else {
            assert_same(&replay(&[&path], threads, Order::Time, small(block)), &expected, "cut otherwise");
        }
    }
}
