//! Several correlators that share the groups, as members of a consumer group share partitions.

use std::ops::Range;

use prop::sample::Index;

use super::super::record::{Codec, Record, Stray, time_of};
use super::*;
use crate::engine::RuleTag;

/// Partitions of the topic.
const PARTITIONS: usize = 3;
/// Members of the group.
const MEMBERS: usize = 2;

/// What happens to the group.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// The owner of a partition takes some records more.
    Read { partition: usize, records: usize },
    /// What it has taken is committed.
    Commit { partition: usize },
    /// A partition becomes another member's.
    Move { partition: usize, to: usize },
    /// A member forgets everything.
    Kill { member: usize },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..PARTITIONS, 1_usize..12)
            .prop_map(|(partition, records)| Happening::Read { partition, records }),
        2 => (0..PARTITIONS).prop_map(|partition| Happening::Commit { partition }),
        1 => (0..PARTITIONS, 0..MEMBERS).prop_map(|(partition, to)| Happening::Move { partition, to }),
        1 => (0..MEMBERS).prop_map(|member| Happening::Kill { member }),
    ]
}

/// The rules that need no watermark and neither do those that they are built on.
fn growing() -> Vec<Rule> {
    let all = all_rules();
    let mut kept: Vec<usize> = Vec::new();
    for (at, rule) in all.iter().enumerate() {
        let sound =
            |m: &Member| !matches!(m.source, Source::Correlation(of) if !kept.contains(&(of as usize)));
        if !rule.closes() && rule.members.iter().all(sound) {
            kept.push(at);
        }
    }
    let number = |of: u32| kept.iter().position(|at| *at == of as usize).expect("it is kept") as u32;
    let mut rules: Vec<Rule> = kept.iter().map(|at| all[*at].clone()).collect();
    for member in rules.iter_mut().flat_map(|rule| &mut rule.members) {
        if let Source::Correlation(of) = &mut member.source {
            *of = number(*of);
        }
    }
    rules
}

fn codec(rules: &[Rule]) -> Codec {
    Codec::new(rules.iter().map(|rule| RuleTag { name: rule.name.clone(), logic: rule.logic_hash }))
}

/// A topic and a group that reads it.
struct Fleet {
    rules: Vec<Rule>,
    codec: Codec,
    topic: Vec<Vec<Vec<u8>>>,
    /// By partition: its owner, how far that has come, and what is committed.
    owners: [usize; PARTITIONS],
    read: [usize; PARTITIONS],
    committed: [usize; PARTITIONS],
    members: Vec<Correlator>,
    found: Vec<Found>,
}

impl Fleet {
    fn new(rules: Vec<Rule>) -> Fleet {
        let mut fleet = Fleet {
            codec: codec(&rules),
            rules,
            topic: vec![Vec::new(); PARTITIONS],
            owners: [0, 1, 0],
            read: [0; PARTITIONS],
            committed: [0; PARTITIONS],
            members: Vec::new(),
            found: Vec::new(),
        };
        fleet.members = (0..MEMBERS).map(|_| fleet.correlator()).collect();
        fleet
    }

    fn correlator(&self) -> Correlator {
        Correlator::new(self.rules.clone(), BUDGET).expect("good rules").partial()
    }

    fn write(&mut self, step: &Step) {
        let Record { key, value } = self.codec.pack(step).expect("a step of ours");
        let partition = key.iter().map(|byte| usize::from(*byte)).sum::<usize>() % PARTITIONS;
        self.topic[partition].push(value);
    }

    fn read(&mut self, partition: usize, records: usize) {
        let owner = self.owners[partition];
        for _ in 0..records.min(self.topic[partition].len() - self.read[partition]) {
            let step =
                self.codec.unpack(&self.topic[partition][self.read[partition]]).expect("a step of ours");
            self.members[owner].push(&step, &mut self.found);
            let derived: Vec<Step> = self.members[owner].take_derived().collect();
            for step in &derived {
                self.write(step);
            }
            self.read[partition] += 1;
        }
    }

    /// The owner goes on at what is committed, with what comes before in its windows.
    fn begin(&mut self, partition: usize) {
        self.read[partition] = self.committed[partition];
        let owner = self.owners[partition];
        for value in &self.topic[partition][..self.committed[partition]] {
            let step = self.codec.unpack(value).expect("a step of ours");
            self.members[owner].push(&step, &mut Vec::new());
            self.members[owner].take_derived().for_each(drop);
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Read { partition, records } => self.read(partition, records),
            Happening::Commit { partition } => self.committed[partition] = self.read[partition],
            Happening::Move { partition, to } => {
                self.owners[partition] = to;
                self.begin(partition);
            }
            Happening::Kill { member } => {
                self.members[member] = self.correlator();
                let its = (0..PARTITIONS).filter(|partition| self.owners[*partition] == member);
                its.collect::<Vec<_>>().into_iter().for_each(|partition| self.begin(partition));
            }
        }
    }

    /// Reads until nothing is left, and yields what was found, each once.
    fn finish(mut self) -> Vec<Uuid> {
        while (0..PARTITIONS).any(|at| self.read[at] < self.topic[at].len()) {
            (0..PARTITIONS).for_each(|partition| self.read(partition, 7));
        }
        let mut ids = ids(&self.found);
        ids.dedup();
        ids
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_the_members_all_is_found(
        (matches, happenings) in (prop::collection::vec(a_match(90), 0..60), prop::collection::vec(happening(), 0..40)),
    ) {
        let rules = growing();
        let mut fleet = Fleet::new(rules.clone());
        let mut left = happenings.into_iter();
        for steps in steps(&rules, &matches).chunks(5) {
            for step in steps {
                fleet.write(step);
            }
            left.next().into_iter().for_each(|happening| fleet.happens(happening));
        }
        left.for_each(|happening| fleet.happens(happening));
        prop_assert_eq!(fleet.finish(), model(&rules, &matches));
    }

    #[test]
    fn any_record_is_harmless(value: Vec<u8>) {
        prop_assert_eq!(codec(&growing()).unpack(&value), Err(Stray::Damaged));
        prop_assert_eq!(time_of(&value), None);
    }

    /// What is taken of them is a step that can be written again, and that a correlator counts or passes over.
    #[test]
    fn records_that_were_harmed_are_harmless(
        matches in prop::collection::vec(a_match(3), 1..20),
        lies in prop::collection::vec(lie(), 4),
        harms in prop::collection::vec(harm(), 16),
    ) {
        let rules = growing();
        let codec = codec(&rules);
        let mut correlator = Correlator::new(rules.clone(), BUDGET).expect("good rules").partial();
        let mut found = Vec::new();
        for (nth, step) in steps(&rules, &matches).iter().enumerate() {
            let mut value = codec.pack(&told(&lies, step)).expect("a step of ours").value;
            // Some come whole, and those of one length alike, so that windows are completed by what was harmed.
            let some = harms.iter().skip(value.len() % 8).step_by(8).take(nth % 3);
            some.for_each(|harm| harm.befall(&mut value));
            let time = time_of(&value);
            match codec.unpack(&value) {
                Ok(step) => {
                    prop_assert_eq!(time, Some(step.time));
                    let again = codec.pack(&step).expect("a step of ours").value;
                    prop_assert_eq!(&again[LOGIC], &value[LOGIC]);
                    prop_assert_eq!(codec.unpack(&again), Ok(step.clone()));
                    correlator.push(&step, &mut found);
                    for derived in correlator.take_derived() {
                        prop_assert!(codec.pack(&derived).is_some());
                    }
                }
                Err(Stray::Unknown(name)) => {
                    let ours = rules.iter().any(|rule| rule.name == name && rule.step_hash() == value[LOGIC]);
                    prop_assert!(!ours && time.is_some(), "{}", name);
                }
                Err(Stray::Damaged) => {}
            }
        }
        for found in &found {
            prop_assert!(rules.iter().any(|rule| rule.name == found.alert.detector));
        }
    }
}

/// What a process that means it badly, or has other rules, says in a record that is whole.
#[derive(Debug, Clone)]
struct Lie {
    member: Option<u8>,
    groups: Option<usize>,
    shown: Option<usize>,
}

fn lie() -> impl Strategy<Value = Lie> {
    let often = |most: usize| prop::option::weighted(0.3, 0..most);
    (prop::option::weighted(0.3, 0_u8..128), often(4), often(4)).prop_map(|(member, groups, shown)| Lie {
        member,
        groups,
        shown,
    })
}

/// What is told of a step instead of the truth: the same of all steps of a rule.
fn told(lies: &[Lie], step: &Step) -> Step {
    let packed = step::Packed::read(&step.bytes).expect("a step");
    let lie = &lies[packed.rule as usize % lies.len()];
    let mut note = step::Note::read(packed.note).expect("a step's note");
    note.shown = lie.shown.map_or(note.shown, |shown| vec![Some("shown"); shown]);
    let group = lie.groups.map_or(packed.group.to_vec(), |n| step::pack_group(vec!["group"; n].into_iter()));
    let member = lie.member.unwrap_or(packed.member);
    Step {
        bytes: step::Packed { member, group: &group, note: &note.write(), ..packed }.write(),
        ..step.clone()
    }
}

/// Where the logic stands in a record.
const LOGIC: Range<usize> = 21..53;

/// What befalls the bytes of a record.
#[derive(Debug, Clone)]
enum Harm {
    /// A bit is turned.
    Flip { at: Index, bit: u8 },
    /// It ends early.
    Cut { at: Index },
    /// Some bytes come twice.
    Repeat { at: Index, length: usize },
    /// Some bytes are not there.
    Lose { at: Index, length: usize },
    /// Others stand in their place: numbers and times that are out of all range.
    Write { at: Index, bytes: Vec<u8> },
}

impl Harm {
    fn befall(&self, value: &mut Vec<u8>) {
        if value.is_empty() {
            return;
        }
        let part = |at: &Index, length: usize| {
            let at = at.index(value.len());
            at..value.len().min(at + length)
        };
        match self {
            Harm::Flip { at, bit } => {
                let at = at.index(value.len());
                value[at] ^= 1 << bit;
            }
            Harm::Cut { at } => value.truncate(at.index(value.len())),
            Harm::Repeat { at, length } => {
                let part = part(at, *length);
                let bytes = value[part.clone()].to_vec();
                value.splice(part.start..part.start, bytes);
            }
            Harm::Lose { at, length } => {
                let part = part(at, *length);
                value.drain(part);
            }
            Harm::Write { at, bytes } => {
                let part = part(at, bytes.len());
                value.splice(part, bytes.iter().copied());
            }
        }
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    let wild = prop::sample::select(vec![
        vec![0xff; 10],
        [vec![0xff; 9], vec![1]].concat(),
        [vec![0x80; 9], vec![0]].concat(),
        vec![0xff, 0xff, 0xff, 0xff, 0x0f],
        i64::MIN.to_le_bytes().to_vec(),
        i64::MAX.to_le_bytes().to_vec(),
        vec![0; 9],
        vec![0xc3, 0x28],
    ]);
    prop_oneof![
        4 => (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Harm::Flip { at, bit }),
        1 => any::<Index>().prop_map(|at| Harm::Cut { at }),
        1 => (any::<Index>(), 1_usize..60).prop_map(|(at, length)| Harm::Repeat { at, length }),
        1 => (any::<Index>(), 1_usize..60).prop_map(|(at, length)| Harm::Lose { at, length }),
        3 => (any::<Index>(), wild).prop_map(|(at, bytes)| Harm::Write { at, bytes }),
    ]
}

/// Matches of one member: three in every bucket of a day, of which the last is a day late.
#[test]
fn a_group_may_have_all_buckets_of_a_day() {
    let mut rule = growing().remove(0);
    rule.timespan = 60 * SECOND;
    let rules = vec![rule];
    let matches: Vec<Match> = [0, 1, 2]
        .into_iter()
        .flat_map(|nth| (0..23 * 60).map(move |minute| (nth, minute)))
        .map(|(nth, minute)| Match {
            detector: 0,
            at: minute * 600 + nth,
            request: nth as u8,
            actor: 0,
            target: 0,
        })
        .collect();
    let expected = model(&rules, &matches);
    let mut correlator = Correlator::new(rules.clone(), 64 << 20).expect("good rules").partial();
    let mut found = Vec::new();
    for step in &steps(&rules, &matches) {
        correlator.push(step, &mut found);
    }
    assert_eq!(expected.len(), 23 * 60);
    assert_eq!(ids(&found), expected);
    assert!(found.iter().all(|found| found.alert.approximate != Some(true)));
}

/// Bursts of three, 15 seconds apart: those of one strand, then those of another, 20 hours before.
fn strands() -> Vec<Match> {
    let strand = |from: i64| {
        (0..120_u8).map(move |nth| Match {
            detector: 0,
            at: from + i64::from(nth / 3) * 150 + i64::from(nth % 3),
            request: nth,
            actor: 0,
            target: 0,
        })
    };
    // First what begins the bursts, then what goes on with them, then what completes them.
    let mut late: Vec<Match> = strand(0).collect();
    late.sort_by_key(|m| m.request % 3);
    strand(20 * 36_000).chain(late).collect()
}

#[test]
fn members_may_be_hours_behind_one_another() {
    let rules = vec![growing().remove(0)];
    let found = |mut correlator: Correlator| {
        let mut found = Vec::new();
        for step in &steps(&rules, &strands()) {
            correlator.push(step, &mut found);
        }
        ids(&found)
    };
    let expected = model(&rules, &strands());
    let correlator = || Correlator::new(rules.clone(), BUDGET).expect("good rules");
    assert_eq!(found(correlator().partial()), expected);
    assert!(found(correlator()).len() < expected.len(), "one that sees all keeps no such history");
}

#[test]
fn other_titles_are_taken_and_other_logic_is_not() {
    let rules = growing();
    let mut correlator = Correlator::new(rules.clone(), BUDGET).expect("good rules").partial();
    let matches: Vec<Match> =
        (0..3).map(|at| Match { detector: 0, at: i64::from(at), request: at, actor: 0, target: 0 }).collect();
    let steps = steps(&rules[..1], &matches);
    let mut found = Vec::new();
    for step in &steps[..2] {
        correlator.push(step, &mut found);
    }
    let mut changed = rules.clone();
    changed[1].logic_hash = [9; 32];
    assert!(!correlator.adapt(changed) && !correlator.adapt(rules[1..].to_vec()));
    let mut titled = rules;
    "another title".clone_into(&mut titled[0].title);
    assert!(correlator.adapt(titled));
    correlator.push(&steps[2], &mut found);
    assert_eq!(found.iter().map(|f| f.alert.rule.as_str()).collect::<Vec<_>>(), ["another title"]);
}

#[test]
fn there_are_chains_among_the_rules() {
    let rules = growing();
    let chained = |rule: &&Rule| rule.members.iter().any(|m| matches!(m.source, Source::Correlation(_)));
    assert!(rules.len() > 10 && rules.iter().filter(chained).count() >= 4, "{}", rules.len());
}

#[test]
fn members_whose_rules_stand_in_another_order_understand_one_another() {
    let rules: Vec<Rule> = growing().into_iter().take(4).collect();
    let mut turned = rules.clone();
    turned.reverse();
    for step in steps(&rules, &[Match { detector: 0, at: 5, request: 1, actor: 2, target: 3 }]) {
        let record = codec(&rules).pack(&step).unwrap();
        assert_eq!(time_of(&record.value), Some(step.time));
        let there = codec(&turned).unpack(&record.value).unwrap();
        assert_ne!(there, step, "the rule has another number there");
        assert_eq!(codec(&turned).pack(&there), Some(record));
    }
}

#[test]
fn steps_of_another_logic_are_not_taken() {
    let mut rules = growing();
    let step = &steps(&rules, &[Match { detector: 0, at: 5, request: 1, actor: 2, target: 3 }])[0];
    let record = codec(&rules).pack(step).unwrap();
    rules[0].logic_hash = [2; 32];
    assert_eq!(codec(&rules).unpack(&record.value), Err(Stray::Unknown("test/burst".to_owned())));
    for cut in 0..record.value.len() {
        assert_eq!(codec(&growing()).unpack(&record.value[..cut]), Err(Stray::Damaged), "{cut}");
    }
}

#[test]
fn keys_and_records_hold_nothing_that_is_hidden() {
    let rules = growing();
    let builder = StepBuilder::new(&rules, 0, 0);
    let place = Place { input: "audit.log", offset: 1, length: 1, sha256: [0; 32], audit_id: None };
    let build =
        |value: &str| builder.build(0, &[1; 16], &place, |_| Value::Text(value.to_owned().into())).unwrap();
    let hidden = build(&builder.veiled(0, "jane@example.com", "[redacted]"));
    let record = codec(&rules).pack(&hidden).unwrap();
    for bytes in [&record.key, &record.value] {
        assert!(memchr::memmem::find(bytes, b"jane").is_none());
    }
    let open = build("jane@example.com");
    let group = |step: &Step| step::Packed::read(&step.bytes).unwrap().group.to_vec();
    assert_eq!(report::uuid(&rules[0], &group(&hidden), 7), report::uuid(&rules[0], &group(&open), 7));
}
