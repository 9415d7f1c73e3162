//! The log against a naive model of it, on a disk that keeps no more than its promises.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::delivery::Entry;
use crate::delivery::fs::simulated::{Fault, Plan, Simulated};
use crate::delivery::fs::{Disk, Memory};

const RECENT: usize = 8;
const REACH: Nanos = 100;

/// Lists of rules: in another order, with one of them gone, with another logic.
const RULES: [&[(&str, u8)]; 4] =
    [&[("a", 1), ("b", 1)], &[("b", 1), ("a", 1)], &[("b", 1)], &[("a", 2), ("b", 1)]];

fn options(rules: usize) -> Options {
    let tag =
        |&(name, logic): &(&str, u8)| RuleTag { name: name.to_owned(), logic: [logic; 32], reach: REACH };
    Options {
        segment_bytes: 1500,
        recent: RECENT,
        ..Options::durable(RULES[rules].iter().map(tag).collect())
    }
}

#[derive(Debug, Clone)]
enum Do {
    /// Appends so many alerts of this size, and so many steps; tried again so many times.
    Append { alerts: usize, size: usize, steps: usize, retries: usize },
    /// Other rules.
    Rules(usize),
    /// The clock goes on.
    Clock(Nanos),
    /// A sink reads so many records; it acknowledges all but so many alerts of the last.
    Read { sink: usize, records: usize, left: usize },
    /// Segments that all sinks have passed may go.
    Pass,
    /// Operations fail from so many on.
    Fault(Fault, u64, u64),
    /// The process ends, and the next one opens the log, with or without trouble.
    Kill(Option<(Fault, u64)>),
    /// The power goes.
    Power,
}

/// A step, as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    rule: (&'static str, u8),
    time: Nanos,
    body: u64,
    /// The log may have dropped it.
    may_be_gone: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    positions: BTreeMap<String, String>,
    alerts: Vec<Uuid>,
    steps: Vec<Taken>,
}

/// How a sink is doing: its place, and the number of alerts before it.
#[derive(Debug, Clone, Copy, Default)]
struct Sink {
    place: Place,
    passed: usize,
}

struct World {
    disk: Simulated,
    log: Log,
    rules: usize,
    clock: Nanos,
    model: Model,
    /// What was not acknowledged since the last that was: one of these may be there after a crash.
    failed: Vec<(Record, Model)>,
    /// What the log knew before the last record, if that was not acknowledged.
    doubtful: Option<Model>,
    sinks: [Sink; 2],
    records: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = Simulated::new(seed);
        let (log, state) = Log::open(Arc::new(disk.clone()), options(0)).unwrap();
        assert_eq!(state, State::default());
        World {
            disk,
            log,
            rules: 0,
            clock: 0,
            model: Model::default(),
            failed: Vec::new(),
            doubtful: None,
            sinks: Default::default(),
            records: 0,
        }
    }

    fn run(&mut self, script: &[Do]) {
        for what in script {
            self.act(what);
            if self.disk.is_down() {
                self.disk.restart();
                self.reopen();
            }
        }
    }

    fn act(&mut self, what: &Do) {
        match *what {
            Do::Append { alerts, size, steps, retries } => self.append(alerts, size, steps, retries),
            Do::Rules(rules) => {
                self.rules = rules;
                let _ = self.log.rules_changed(options(rules).rules);
                self.age();
            }
            Do::Clock(by) => {
                self.clock += by;
                self.log.set_clock(self.clock);
                self.age();
            }
            Do::Read { sink, records, left } => self.read(sink, records, left),
            Do::Pass => {
                let _ =
                    self.log.pass(self.sinks.map(|sink| sink.place.consumed()).into_iter().min().unwrap());
            }
            Do::Fault(fault, from, count) => {
                self.disk.plan(Some(Plan { operations: from..from + count, fault }));
            }
            Do::Kill(trouble) => {
                self.disk.kill();
                if let Some((fault, at)) = trouble {
                    self.disk.plan(Some(Plan { operations: at..at + 2, fault }));
                }
                if let Some((Fault::Crash, _)) = trouble {
                    drop(Log::open(Arc::new(self.disk.clone()), options(self.rules)));
                    self.disk.restart();
                }
                self.reopen();
            }
            Do::Power => {
                self.disk.restart();
                self.reopen();
            }
        }
    }

    /// Marks the steps that the log may drop.
    fn age(&mut self) {
        let (rules, clock) = (RULES[self.rules], self.clock);
        let models = self.failed.iter_mut().map(|(_, model)| model).chain(&mut self.doubtful);
        for model in models.chain([&mut self.model]) {
            for step in &mut model.steps {
                step.may_be_gone |= !rules.contains(&step.rule) || step.time < clock - REACH;
            }
        }
    }

    fn append(&mut self, alerts: usize, size: usize, steps: usize, retries: usize) {
        self.records += 1;
        let number = self.records;
        let mut model = self.model.clone();
        let mut record = Record::default();
        let input = format!("input-{}", number % 3);
        record.positions.insert(input.clone(), number.to_string());
        model.positions.insert(input, number.to_string());
        for at in 0..alerts {
            let uuid = Uuid::from_u64_pair(number, at as u64);
            record.alerts.push(Entry { uuid, json: "x".repeat(size) });
            model.alerts.push(uuid);
        }
        for at in 0..steps {
            let rule = at % RULES[self.rules].len();
            let (time, body) = (self.clock - at as Nanos, number << 8 | at as u64);
            let mut bytes = vec![rule as u8];
            bytes.extend_from_slice(&body.to_le_bytes());
            record.steps.push(Step { time, bytes });
            model.steps.push(Taken { rule: RULES[self.rules][rule], time, body, may_be_gone: false });
        }
        for _ in 0..=retries {
            if self.log.append(&record).is_ok() {
                self.model = model;
                self.failed.clear();
                self.doubtful = None;
                return;
            }
            self.failed.push((record.clone(), model.clone()));
        }
    }

    fn read(&mut self, sink: usize, records: usize, left: usize) {
        let Sink { mut place, mut passed } = self.sinks[sink];
        let mut reader = Reader::new(self.log.tail(), place);
        for at in 1..=records {
            let Ok(Some(chunk)) = reader.next() else {
                place = place.max(reader.place());
                break;
            };
            let uuids: Vec<Uuid> = chunk.entries.iter().map(|entry| entry.uuid).collect();
            assert_eq!(uuids, self.model.alerts[passed..passed + uuids.len()], "in order, from the place on");
            let acknowledged = uuids.len() - if at == records { left.min(uuids.len()) } else { 0 };
            place = chunk.after(acknowledged);
            passed += acknowledged;
        }
        assert_eq!(reader.take_damage(), []);
        self.sinks[sink] = Sink { place, passed };
    }

    /// Opens the log again and compares what it says with what must be there.
    fn reopen(&mut self) {
        let (log, state) = Log::open(Arc::new(self.disk.clone()), options(self.rules)).unwrap();
        self.log = log;
        self.log.set_clock(self.clock);
        assert_eq!(state.damage, []);
        let failed = std::mem::take(&mut self.failed);
        let settled = self.model.clone();
        let models = failed.into_iter().map(|(_, model)| model).chain(self.doubtful.take());
        let found = models.into_iter().find(|model| model.positions == state.positions);
        if let Some(found) = found.filter(|_| self.model.positions != state.positions) {
            let grown = found.positions.values().flat_map(|n| n.parse::<u64>()).max()
                > settled.positions.values().flat_map(|n| n.parse::<u64>()).max();
            // What came with a crash may go with the next.
            self.doubtful = grown.then_some(settled);
            self.model = found;
        }
        self.age();
        self.compare(&state);
        for sink in 0..self.sinks.len() {
            let Sink { place, passed } = &mut self.sinks[sink];
            *place = (*place).min(self.log.tail().end());
            *passed = (*passed).min(self.model.alerts.len());
            self.read(sink, usize::MAX, 0);
            assert_eq!(self.sinks[sink].passed, self.model.alerts.len(), "nothing is lost to a sink");
        }
    }

    fn compare(&self, state: &State) {
        assert_eq!(state.positions, self.model.positions);
        let from = self.model.alerts.len().saturating_sub(RECENT);
        assert_eq!(state.recent, self.model.alerts[from..]);
        let mut got = Vec::new();
        self.log
            .steps(&mut |step| {
                let rule = RULES[self.rules][usize::from(step.bytes[0])];
                got.push((rule, step.time, u64::from_le_bytes(step.bytes[1..].try_into().unwrap())));
            })
            .unwrap();
        let mut got = got.into_iter().peekable();
        for Taken { rule, time, body, may_be_gone } in &self.model.steps {
            if got.next_if_eq(&(*rule, *time, *body)).is_none() {
                assert!(may_be_gone, "a step that matters is gone");
            }
        }
        assert_eq!(got.next(), None, "a step that was never taken");
    }

    /// All of it once more: whatever happened, the log can be appended to, and is right after the power goes.
    fn finish(mut self) {
        self.disk.plan(None);
        for _ in 0..=PATIENCE {
            self.append(1, 10, 1, 0);
        }
        assert!(self.failed.is_empty(), "the disk is fine, and the log is not");
        self.disk.restart();
        self.reopen();
    }
}

fn check(seed: u64, script: &[Do]) {
    let mut world = World::new(seed);
    world.run(script);
    world.finish();
}

/// Some of everything, with several segments.
fn script() -> Vec<Do> {
    let append = |alerts, size, steps| Do::Append { alerts, size, steps, retries: 2 };
    vec![
        append(1, 100, 1),
        append(0, 0, 2),
        Do::Read { sink: 0, records: 2, left: 0 },
        append(3, 300, 0),
        append(12, 200, 9),
        Do::Read { sink: 0, records: 3, left: 1 },
        append(0, 0, 0),
        append(2, 700, 3),
        Do::Rules(1),
        append(1, 10, 2),
        Do::Read { sink: 1, records: 9, left: 2 },
        Do::Pass,
        Do::Clock(150),
        append(2, 900, 1),
        append(2, 900, 1),
        Do::Rules(2),
        append(1, 1000, 4),
        Do::Read { sink: 0, records: 99, left: 0 },
        Do::Read { sink: 1, records: 99, left: 0 },
        Do::Pass,
        append(1, 100, 1),
    ]
}

#[test]
fn an_undisturbed_log_is_like_the_model() {
    check(1, &script());
}

/// Operations that the script takes.
fn operations() -> u64 {
    let mut world = World::new(1);
    world.disk.plan(None);
    world.run(&script());
    world.disk.operations()
}

#[test]
fn any_operation_may_be_the_last() {
    for at in 0..=operations() {
        for seed in 0..6 {
            let mut all = vec![Do::Fault(Fault::Crash, at, 1)];
            all.extend(script());
            check(seed, &all);
        }
    }
}

#[test]
fn any_operation_may_fail_for_a_while() {
    for at in 0..=operations() {
        for (fault, count) in
            [Fault::Full, Fault::Broken].into_iter().flat_map(|f| [1, 2, 5, 40].map(|n| (f, n)))
        {
            let mut all = vec![Do::Fault(fault, at, count)];
            all.extend(script());
            check(at, &all);
            // And then the process ends, before or after it was over.
            all.push(Do::Kill(None));
            all.extend(script());
            check(at, &all);
        }
    }
}

#[test]
fn after_any_failure_the_process_may_end_and_then_the_power_go() {
    let troubles = [None, Some((Fault::Broken, 0)), Some((Fault::Broken, 1)), Some((Fault::Full, 0))];
    for at in 0..=operations() {
        for (fault, trouble) in
            [Fault::Full, Fault::Broken].into_iter().flat_map(|f| troubles.map(|t| (f, t)))
        {
            for seed in 0..4 {
                let mut world = World::new(seed);
                world.act(&Do::Fault(fault, at, 2));
                for what in script() {
                    world.act(&what);
                    if world.disk.operations() > at {
                        break;
                    }
                }
                world.act(&Do::Kill(trouble));
                if seed % 2 == 0 {
                    // What the first one failed to write the third one cannot know.
                    world.act(&Do::Kill(None));
                }
                world.append(1, 10, 1, 2);
                world.act(&Do::Power);
                world.finish();
            }
        }
    }
}

#[test]
fn any_operation_of_an_opening_may_fail() {
    for before in 1..script().len() {
        for (fault, at) in
            [Fault::Crash, Fault::Broken, Fault::Full].into_iter().flat_map(|f| (0..6).map(move |n| (f, n)))
        {
            let mut all = script();
            all.insert(before, Do::Kill(Some((fault, at))));
            check(at, &all);
        }
    }
}

fn actions() -> impl Strategy<Value = Do> {
    let fault = prop_oneof![Just(Fault::Crash), Just(Fault::Full), Just(Fault::Broken)];
    prop_oneof![
        8 => (0_usize..6, 0_usize..900, 0_usize..6, 0_usize..3)
            .prop_map(|(alerts, size, steps, retries)| Do::Append { alerts, size, steps, retries }),
        1 => (0..RULES.len()).prop_map(Do::Rules),
        1 => (0_i64..80).prop_map(Do::Clock),
        3 => (0_usize..2, 1_usize..8, 0_usize..4).prop_map(|(sink, records, left)| Do::Read { sink, records, left }),
        2 => Just(Do::Pass),
        3 => (fault.clone(), 0_u64..30, 1_u64..12).prop_map(|(fault, from, count)| Do::Fault(fault, from, count)),
        1 => proptest::option::of((fault, 0_u64..6)).prop_map(Do::Kill),
        1 => Just(Do::Power),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_like_the_model(seed: u64, script in proptest::collection::vec(actions(), 1..60)) {
        check(seed, &script);
    }
}

/// A log of several segments, and what is in it.
fn written() -> World {
    let mut world = World::new(1);
    for _ in 0..2 {
        world.run(&script());
    }
    world.disk.restart();
    world.reopen();
    world
}

/// All alerts that are still to be had.
fn alerts_of(log: &Log) -> (Vec<Uuid>, Vec<Damage>) {
    let mut reader = Reader::new(log.tail(), Place::START);
    let mut alerts = Vec::new();
    while let Some(chunk) = reader.next().unwrap() {
        alerts.extend(chunk.entries.iter().map(|entry| entry.uuid));
    }
    (alerts, reader.take_damage())
}

/// Opens what is left. Nothing is invented, what was said is in order, and the log goes on.
fn survives(disk: &Simulated, model: &Model) -> (Log, State) {
    let (mut log, state) = Log::open(Arc::new(disk.clone()), options(0)).unwrap();
    let known: BTreeSet<Uuid> = model.alerts.iter().copied().collect();
    let (before, _) = alerts_of(&log);
    assert!(before.is_sorted_by(|a, b| a < b) && before.iter().all(|uuid| known.contains(uuid)));
    assert!(state.recent.is_sorted_by(|a, b| a < b) && state.recent.iter().all(|uuid| known.contains(uuid)));
    let newest: u64 = model.positions.values().map(|n| n.parse::<u64>().unwrap()).max().unwrap();
    assert!(state.positions.values().all(|n| n.parse::<u64>().unwrap() <= newest));
    log.steps(&mut |step| {
        let body = u64::from_le_bytes(step.bytes[1..].try_into().unwrap());
        assert!(model.steps.iter().any(|known| known.body == body && known.time == step.time));
    })
    .unwrap();
    let end = log.tail().end();
    let uuid = Uuid::from_u64_pair(u64::MAX, 0);
    let entry = Entry { uuid, json: String::new() };
    log.append(&Record { alerts: vec![entry], ..Record::default() }).unwrap();
    let fresh = Reader::new(log.tail(), end).next().unwrap().unwrap();
    assert_eq!(fresh.entries[0].uuid, uuid);
    assert_eq!(alerts_of(&log).0.len(), before.len() + 1);
    (log, state)
}

#[test]
fn a_byte_that_changes_invents_nothing() {
    let World { disk, model, .. } = written();
    let (files, newest) = (disk.files(), disk.files().into_keys().max().unwrap());
    let whole = survives(&Simulated::with(&files, 1), &model).1;
    assert_eq!(whole.positions, model.positions);
    for (name, bytes) in &files {
        for at in 0..bytes.len() {
            let mut damaged = files.clone();
            damaged.get_mut(name).unwrap()[at] ^= [1, 0x80, 0xFF][at % 3];
            let (log, state) = survives(&Simulated::with(&damaged, 1), &model);
            // One sector of the newest segment's head or base costs nothing at all.
            let records_at = log.chain().first().map_or(0, |extent| extent.records_at);
            if *name != newest || at < records_at as usize && records_at == whole_base(&files, &newest) {
                assert_eq!(state.positions, model.positions, "{name} {at}");
            }
        }
    }
}

/// Where the records of a segment begin.
fn whole_base(files: &BTreeMap<String, Vec<u8>>, name: &str) -> u64 {
    let file = Simulated::with(files, 1).open(name, Mode::Read).unwrap();
    match Header::read(&*file) {
        segment::Opened::Fine(header) => header.records_at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_are_cut_filled_or_gone_are_survived() {
    let World { disk, model, .. } = written();
    let files = disk.files();
    for (name, bytes) in &files {
        for at in (0..bytes.len()).step_by(7) {
            let mut cut = files.clone();
            cut.get_mut(name).unwrap().truncate(at);
            survives(&Simulated::with(&cut, 1), &model);
            let mut zeros = files.clone();
            let end = (at + 512).min(bytes.len());
            zeros.get_mut(name).unwrap()[at..end].fill(0);
            survives(&Simulated::with(&zeros, 1), &model);
        }
        let mut gone = files.clone();
        gone.remove(name);
        survives(&Simulated::with(&gone, 1), &model);
    }
}

#[test]
fn damage_in_the_middle_is_said_and_counted_by_all_who_meet_it() {
    let mut world = World::new(1);
    for _ in 0..3 {
        world.append(1, 40, 0, 0);
    }
    let before = alerts_of(&world.log).0;
    let at = world.disk.files()[&file_name(1)].windows(40).position(|part| part == [b'x'; 40]).unwrap();
    world.disk.damage(&file_name(1), |bytes| bytes[at] = b'y');
    let (alerts, damage) = alerts_of(&world.log);
    assert_eq!((alerts.as_slice(), damage[0].lost), (&before[1..], Some(1)));
    let (log, state) = Log::open(Arc::new(world.disk.clone()), options(0)).unwrap();
    assert_eq!(state.damage.len(), 1);
    assert_eq!(state.damage[0].lost, Some(1));
    assert_eq!(state.positions["input-0"], "3", "what comes later stands");
    assert_eq!(alerts_of(&log).0, before[1..]);
}

#[test]
fn what_was_lost_is_read_again() {
    let mut world = World::new(1);
    for number in 1..=7 {
        world.append(1, 40 + number, 0, 0);
    }
    let fourth = [b'x'; 44];
    let at = world.disk.files()[&file_name(1)].windows(44).position(|part| part == fourth).unwrap();
    world.disk.damage(&file_name(1), |bytes| bytes[at] = b'y');
    let (log, state) = Log::open(Arc::new(world.disk.clone()), options(0)).unwrap();
    let positions: Vec<_> = state.positions.values().map(String::as_str).collect();
    assert_eq!(positions, ["3", "1", "2"], "each input goes on from before the lost record");
    drop(log);
    let (_, again) = Log::open(Arc::new(world.disk.clone()), options(0)).unwrap();
    assert_eq!(again.positions, state.positions);
}

#[test]
fn when_the_state_is_lost_all_is_read_again() {
    let mut world = World::new(1);
    for number in 1..=3 {
        world.append(1, 40 + number, 0, 0);
    }
    world.disk.damage(&file_name(1), |bytes| bytes[BASE_AT as usize + 40] ^= 1);
    let (_, state) = Log::open(Arc::new(world.disk.clone()), options(0)).unwrap();
    assert!(state.again && state.recent.is_empty(), "{:?}", state.damage);
    let positions: Vec<_> = state.positions.values().map(String::as_str).collect();
    assert_eq!(positions, ["3", "1", "2"]);
    world.disk.damage(&file_name(1), Vec::clear);
    let (_, state) = Log::open(Arc::new(world.disk.clone()), options(0)).unwrap();
    assert!(state.again, "{:?}", state.damage);
}

#[test]
fn a_sector_that_cannot_be_read_stops_nobody() {
    let mut world = World::new(1);
    for _ in 0..4 {
        world.append(1, 100, 1, 0);
    }
    let before = alerts_of(&world.log).0;
    let at = world.disk.files()[&file_name(1)].windows(100).position(|part| part == [b'x'; 100]).unwrap();
    world.disk.lose(&file_name(1), at..at + 50);
    let mut reader = Reader::new(world.log.tail(), Place::START);
    for _ in 0..PATIENCE {
        assert!(reader.next().is_err(), "it may be back in a moment");
    }
    let next = reader.next().unwrap().unwrap();
    assert_eq!(next.entries[0].uuid, before[1]);
    assert_eq!(reader.take_damage()[0].lost, Some(1));
    for _ in 0..PATIENCE {
        assert!(world.log.rules_changed(options(1).rules).is_err());
    }
    world.log.rules_changed(options(1).rules).unwrap();
    let (log, state) = Log::open(Arc::new(world.disk.clone()), options(1)).unwrap();
    assert_eq!((state.positions, state.recent), (world.model.positions, before));
    let mut steps = 0;
    log.steps(&mut |_| steps += 1).unwrap();
    assert_eq!(steps, 3);
}

#[test]
fn what_cannot_be_read_is_set_aside_and_its_numbers_are_not_given_again() {
    let World { disk, model, log: old, .. } = written();
    let newest = disk.files().into_keys().max().unwrap();
    disk.damage(&newest, |bytes| bytes[..1024].fill(0));
    let (log, state) = survives(&disk, &model);
    assert!(state.damage.iter().any(|damage| damage.place.ends_with(&newest)), "{:?}", state.damage);
    assert!(disk.files().contains_key(&format!("{newest}{BAD}")));
    assert!(log.from > old.last, "what a cursor may have seen is not given to another record");
    assert!(!state.positions.is_empty(), "the segment before it is still there");
}

#[test]
fn a_later_version_is_left_alone() {
    let World { disk, model, log: old, .. } = written();
    for name in disk.files().keys() {
        disk.damage(name, |bytes| [8, 520].map(|at| bytes[at] = 9).fill(()));
    }
    let before = disk.files();
    let (log, state) = survives(&disk, &model);
    assert_eq!(state.positions, BTreeMap::new());
    assert_eq!(state.damage.len(), before.len());
    assert!(state.damage[0].what.contains("newer"), "{:?}", state.damage[0]);
    let after = disk.files();
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
    assert_eq!(after.len(), before.len() + 1);
    assert!(alerts_of(&log).0.len() == 1 && log.from > old.last);
}

#[test]
fn an_event_cannot_speak_for_the_log() {
    let mut world = World::new(1);
    world.append(1, 8, 0, 0);
    // A whole segment, as the payload of a step.
    let inside = world.disk.files()[&file_name(1)].clone();
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&inside);
    let other = World::new(2);
    let (mut log, disk) = (other.log, other.disk);
    let record = Record { steps: vec![Step { time: 0, bytes }], ..Record::default() };
    for _ in 0..3 {
        log.append(&record).unwrap();
    }
    for at in 0..disk.files()[&file_name(1)].len() {
        let damaged = Simulated::with(&disk.files(), 1);
        damaged.damage(&file_name(1), |bytes| bytes[at] ^= 1);
        let (log, state) = Log::open(Arc::new(damaged), options(0)).unwrap();
        assert_eq!(state.positions, BTreeMap::new());
        assert!(alerts_of(&log).0.is_empty());
    }
}

#[test]
fn steps_have_their_room_and_the_oldest_go() {
    let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 20));
    let small = Options { max_step_bytes: 100, ..options(0) };
    let (mut log, _) = Log::open(fs, small.clone()).unwrap();
    for number in 0..30_u8 {
        let step = Step { time: 0, bytes: vec![0, number, 0, 0, 0, 0, 0, 0, 0, 0] };
        log.append(&Record { steps: vec![step], ..Record::default() }).unwrap();
    }
    log.rules_changed(small.rules).unwrap();
    let mut left = Vec::new();
    log.steps(&mut |step| left.push(step.bytes[1])).unwrap();
    assert_eq!(left, (20..30).collect::<Vec<u8>>());
    assert_eq!(log.dropped_steps(), 20);
}

#[test]
fn segments_go_when_all_have_passed_them() {
    let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 20));
    let (mut log, _) = Log::open(Arc::clone(&fs), options(0)).unwrap();
    let mut reader = Reader::new(log.tail(), log.tail().end());
    assert_eq!(reader.next().unwrap(), None);
    for number in 0..40 {
        let entry = Entry { uuid: Uuid::from_u64_pair(0, number), json: "x".repeat(500) };
        log.append(&Record { alerts: vec![entry], ..Record::default() }).unwrap();
    }
    log.pass(0).unwrap();
    let (all, backlog) = (fs.list().unwrap().len(), reader.backlog());
    assert!(all > 5 && backlog > 20_000 && backlog < log.bytes());
    while let Some(chunk) = reader.next().unwrap() {
        log.pass(chunk.after(1).consumed()).unwrap();
    }
    assert_eq!(reader.backlog(), 0);
    assert_eq!(fs.list().unwrap().len(), 2);
    assert!(log.bytes() < 10_000);
}

#[test]
fn a_full_memory_is_a_full_disk() {
    let fs: Arc<dyn Fs> = Arc::new(Memory::new(20_000));
    let (mut log, _) =
        Log::open(fs, Options { segment_bytes: 1000, ..Options::in_memory(Vec::new()) }).unwrap();
    let mut reader = Reader::new(log.tail(), log.tail().end());
    let entry = Entry { uuid: Uuid::nil(), json: "x".repeat(500) };
    let record = Record { alerts: vec![entry], ..Record::default() };
    let error = loop {
        if let Err(error) = log.append(&record) {
            break error;
        }
    };
    assert!(is_full(&error));
    while reader.next().unwrap().is_some() {}
    log.pass(reader.place().consumed()).unwrap();
    log.append(&record).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().entries.len(), 1);
}

#[test]
fn a_piece_that_is_too_large_is_refused() {
    let (mut log, _) = Log::open(Arc::new(Memory::new(1 << 30)), options(0)).unwrap();
    let entry = Entry { uuid: Uuid::nil(), json: "x".repeat(MAX_ITEM + 1) };
    let error = log.append(&Record { alerts: vec![entry], ..Record::default() }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn readers_wait_for_more() {
    let (mut log, _) = Log::open(Arc::new(Memory::new(1 << 20)), options(0)).unwrap();
    let mut reader = Reader::new(log.tail(), log.tail().end());
    assert_eq!(reader.next().unwrap(), None);
    let waiting = tokio::spawn(async move {
        let alive = reader.wait().await;
        let chunk = loop {
            match reader.next().unwrap() {
                Some(chunk) => break chunk,
                None => assert!(reader.wait().await),
            }
        };
        (alive, chunk.entries.len(), reader.wait().await)
    });
    tokio::task::yield_now().await;
    let entry = Entry { uuid: Uuid::nil(), json: String::new() };
    log.append(&Record { alerts: vec![entry], ..Record::default() }).unwrap();
    tokio::task::yield_now().await;
    drop(log);
    assert_eq!(waiting.await.unwrap(), (true, 1, false));
}

#[test]
fn a_directory_is_one_process_s_and_nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    let disk = Disk::open(&path).unwrap();
    let error = Disk::open(&path).unwrap_err().to_string();
    assert!(error.contains("another process") && error.contains("a/b"), "{error}");
    let entry = Entry { uuid: Uuid::nil(), json: "{}".to_owned() };
    let record = Record { alerts: vec![entry], ..Record::default() };
    let (mut log, _) = Log::open(Arc::new(disk), options(0)).unwrap();
    let place = log.tail().end();
    log.append(&record).unwrap();
    log.rules_changed(options(1).rules).unwrap();
    log.append(&record).unwrap();
    drop(log);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in path.read_dir().unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let (log, state) = Log::open(Arc::new(Disk::open(&path).unwrap()), options(1)).unwrap();
    assert_eq!((state.recent.len(), state.damage), (2, Vec::new()));
    let mut reader = Reader::new(log.tail(), place);
    assert!(reader.next().unwrap().is_some() && reader.next().unwrap().is_some());
    assert_eq!(reader.next().unwrap(), None);
}

/// `cargo test --release -- --ignored --nocapture appends_a_second`, with `TMPDIR` on the disk that is to be measured.
#[test]
#[ignore = "a measurement"]
fn appends_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(Disk::open(folder.path()).unwrap());
    let durable = Options::durable(options(0).rules);
    let (mut log, _) = Log::open(Arc::clone(&fs), durable.clone()).unwrap();
    let mut reader = Reader::new(log.tail(), log.tail().end());
    let mut times = Vec::new();
    for number in 0..20_000_u64 {
        let entry = Entry { uuid: Uuid::from_u64_pair(0, number), json: "x".repeat(1500) };
        let step = Step { time: 0, bytes: vec![0; 300] };
        let positions = BTreeMap::from([("audit".to_owned(), "p".repeat(200))]);
        let record = Record { positions, steps: vec![step], alerts: vec![entry] };
        let start = std::time::Instant::now();
        log.append(&record).unwrap();
        times.push(start.elapsed());
    }
    let total: std::time::Duration = times.iter().sum();
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize - 1];
    println!(
        "{:.0} appends/s of 2 KB; p50 {:?} p99 {:?} p99.9 {:?} max {:?}",
        times.len() as f64 / total.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    let start = std::time::Instant::now();
    let mut read = 0;
    while let Some(chunk) = reader.next().unwrap() {
        read += chunk.entries.len();
    }
    println!("{:.0} alerts/s read", read as f64 / start.elapsed().as_secs_f64());
    let bytes = log.bytes();
    drop(log);
    let start = std::time::Instant::now();
    let (log, state) = Log::open(fs, durable).unwrap();
    let mut steps = 0;
    log.steps(&mut |_| steps += 1).unwrap();
    println!(
        "opened {} MiB with {} ids and {steps} steps in {:?}",
        bytes >> 20,
        state.recent.len(),
        start.elapsed()
    );
}
