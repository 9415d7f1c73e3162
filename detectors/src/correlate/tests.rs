//! The correlator against a naive model that sees all steps at once, and its bounds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::event::time::SECOND;
use crate::level::Level;
use crate::value::Value;

/// One match: member detector, second, request, group value, counted value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    detector: u32,
    /// In tenths of a second.
    at: i64,
    request: u8,
    actor: u8,
    target: u8,
}

impl Match {
    fn time(self) -> Nanos {
        1_772_359_200 * SECOND + self.at * SECOND / 10
    }

    fn identity(self) -> Identity {
        let mut identity = [self.request; 16];
        identity[0] = 0;
        identity
    }

    fn field(self, name: &str) -> Value<'static> {
        let text = match name {
            "actor.name" | "user" => format!("actor-{}", self.actor),
            "target.name" => format!("target-{}", self.target),
            "none" => return Value::Absent,
            _ => return Value::Unknown,
        };
        Value::Text(text.into())
    }

    fn step(self, rules: &[Rule], rule: u32, member: u8) -> Option<Step> {
        let place = Place {
            input: "audit.log",
            offset: u64::from(self.request),
            length: 10,
            sha256: [self.request; 32],
            audit_id: Some("id"),
        };
        let fields = rules[rule as usize].fields_for(usize::from(member));
        StepBuilder::new(rules, rule, member)
            .build(self.time(), &self.identity(), &place, |i| self.field(fields[i]))
    }
}

fn detector(index: u32) -> Member {
    Member { source: Source::Detector(index), title: format!("Detector {index}"), aliases: Vec::new() }
}

fn correlation(index: u32) -> Member {
    Member { source: Source::Correlation(index), title: format!("Correlation {index}"), aliases: Vec::new() }
}

fn rule(name: &str, kind: Kind, members: Vec<Member>, seconds: i64, condition: Condition) -> Rule {
    Rule {
        name: format!("test/{name}"),
        index: 7,
        title: name.to_owned(),
        kind,
        members,
        group_by: vec!["actor.name".to_owned()],
        timespan: seconds * SECOND,
        condition,
        fields: Vec::new(),
        generate: None,
        silent: false,
        logic_hash: [1; 32],
        level: Level::High,
        tags: vec!["attack.t1110".to_owned()],
        message: None,
    }
}

fn count(op: Op, limit: u64) -> Condition {
    Condition::Count(vec![(op, limit)])
}

fn values() -> Kind {
    Kind::ValueCount { fields: vec!["target.name".to_owned()] }
}

/// The steps of matches, in the matches' order.
fn steps(rules: &[Rule], matches: &[Match]) -> Vec<Step> {
    let mut steps = Vec::new();
    let subscriptions: BTreeMap<_, _> = subscriptions(rules).into_iter().collect();
    for m in matches {
        for (rule, member) in subscriptions.get(&m.detector).into_iter().flatten() {
            steps.extend(m.step(rules, *rule, *member));
        }
    }
    steps
}

fn run(rules: &[Rule], matches: &[Match], budget: usize) -> (Vec<Found>, Stats) {
    let mut correlator = Correlator::new(rules.to_vec(), budget).expect("good rules");
    let mut out = Vec::new();
    for step in steps(rules, matches) {
        correlator.push(&step, &mut out);
    }
    correlator.finish(&mut out);
    assert!(correlator.store.weighed());
    (out, correlator.stats())
}

fn ids(found: &[Found]) -> Vec<Uuid> {
    let mut ids: Vec<_> = found.iter().map(|f| f.alert.uuid).collect();
    ids.sort_unstable();
    ids
}

/// What the model knows of a step of a rule: group, time, member, what is counted.
type Known = BTreeSet<(Vec<u8>, Nanos, u8, u64)>;

/// Every id that the rules must yield, by brute force over the set of all matches.
fn model(rules: &[Rule], matches: &[Match]) -> Vec<Uuid> {
    let plans = rule::compile(rules.to_vec()).expect("good rules");
    let mut known: Vec<Known> = vec![Known::new(); rules.len()];
    for step in steps(rules, matches) {
        let p = step::Packed::read(&step.bytes).expect("a step");
        let counted = matches!(rules[p.rule as usize].kind, Kind::ValueCount { .. });
        let id = if counted { p.counted } else { fold(&p.identity) };
        known[p.rule as usize].insert((p.group.to_vec(), step.time, p.member, id));
    }
    let mut order: Vec<usize> = (0..rules.len()).collect();
    order.sort_by_key(|i| plans[*i].depth);
    let mut ids = BTreeSet::new();
    for i in order {
        for (group, time, bucket) in fired(&rules[i], &known[i]) {
            let uuid = report::uuid(&rules[i], &group, bucket);
            if !rules[i].silent {
                ids.insert(uuid);
            }
            for feed in &plans[i].feeds {
                let values = step::group_values(&group);
                let mut counted = step::Values::default();
                feed.counted.iter().for_each(|i| counted.add(values[*i]));
                let id = if feed.counted.is_empty() { fold(uuid.as_bytes()) } else { counted.hash() };
                let group = step::pack_group(feed.group.iter().map(|i| values[*i]));
                known[feed.rule as usize].insert((group, time, feed.member, id));
            }
        }
    }
    ids.into_iter().collect()
}

/// Group, completing time and bucket of all firings of a rule.
fn fired(rule: &Rule, known: &Known) -> Vec<(Vec<u8>, Nanos, i64)> {
    let mut fired = Vec::new();
    for (group, time, member, _) in known {
        let bucket = time.div_euclid(rule.timespan);
        let window: Vec<_> = known
            .iter()
            .filter(|(g, t, ..)| {
                let sliding = *t > time - rule.timespan && t <= time;
                g == group && if rule.closes() { t.div_euclid(rule.timespan) == bucket } else { sliding }
            })
            .map(|(_, t, m, id)| (*t, *m, *id))
            .collect();
        let last = window.iter().map(|(t, ..)| *t).max().expect("it is in its own window");
        if holds(rule, &window, *time, *member) {
            fired.push((group.clone(), if rule.closes() { last } else { *time }, bucket));
        }
    }
    fired
}

fn holds(rule: &Rule, window: &[(Nanos, u8, u64)], time: Nanos, member: u8) -> bool {
    match rule.kind {
        Kind::EventCount | Kind::ValueCount { .. } => {
            let ids: BTreeSet<_> = window.iter().map(|(_, _, id)| id).collect();
            rule.condition.holds_count(ids.len() as u64)
        }
        Kind::Temporal => {
            let present = window.iter().fold(0, |mask, (_, m, _)| mask | 1 << m);
            rule.condition.holds_members(present, rule.members.len())
        }
        Kind::TemporalOrdered => usize::from(member) == rule.members.len() - 1 && chain(window, member, time),
    }
}

/// True if a chain of members 0 to `member` ends at `time`.
fn chain(window: &[(Nanos, u8, u64)], member: u8, time: Nanos) -> bool {
    member == 0 || window.iter().any(|(t, m, _)| *m + 1 == member && *t <= time && chain(window, *m, *t))
}

/// Rules of every kind, and chains of them.
fn all_rules() -> Vec<Rule> {
    let grow = |n| count(Op::Gte, n);
    let expr = Expr::All(vec![Expr::Member(2), Expr::Any(vec![Expr::Member(0), Expr::Member(1)])]);
    let not = Expr::All(vec![Expr::Member(0), Expr::Not(Box::new(Expr::Member(1)))]);
    let three = || vec![detector(0), detector(1), detector(2)];
    let mut counted = rule("values-of-actors", values(), vec![detector(0), detector(1)], 7, grow(3));
    counted.group_by.clear();
    let mut wide = rule("bursts-anywhere", Kind::EventCount, vec![correlation(0)], 30, grow(2));
    wide.group_by.clear();
    let mut actors = rule(
        "actors-with-bursts",
        Kind::ValueCount { fields: vec!["actor.name".to_owned()] },
        vec![correlation(0)],
        20,
        grow(2),
    );
    actors.group_by.clear();
    vec![
        rule("burst", Kind::EventCount, vec![detector(0)], 5, grow(3)),
        rule("either", Kind::EventCount, vec![detector(0), detector(1)], 10, count(Op::Gt, 3)),
        rule("values", values(), vec![detector(1)], 10, grow(3)),
        counted,
        rule("all", Kind::Temporal, three(), 8, Condition::AllMembers),
        rule("two", Kind::Temporal, three(), 4, grow(2)),
        rule("expression", Kind::Temporal, three(), 6, Condition::Members(expr)),
        rule("in-order", Kind::TemporalOrdered, three(), 10, Condition::AllMembers),
        rule("few", Kind::EventCount, vec![detector(2)], 10, count(Op::Lt, 3)),
        rule("range", values(), vec![detector(0)], 6, Condition::Count(vec![(Op::Gte, 2), (Op::Lte, 3)])),
        rule("not", Kind::Temporal, three(), 12, Condition::Members(not)),
        rule(
            "burst-then",
            Kind::TemporalOrdered,
            vec![correlation(0), detector(1)],
            10,
            Condition::AllMembers,
        ),
        rule(
            "burst-and-few",
            Kind::Temporal,
            vec![correlation(0), correlation(8)],
            15,
            Condition::AllMembers,
        ),
        wide,
        actors,
        rule("deep", Kind::TemporalOrdered, vec![detector(2), correlation(11)], 20, Condition::AllMembers),
        rule("few-bursts", Kind::EventCount, vec![correlation(0)], 20, count(Op::Eq, 1)),
        rule("few-of-few", Kind::EventCount, vec![correlation(8)], 25, count(Op::Lte, 1)),
    ]
}

fn a_match(seconds: i64) -> impl Strategy<Value = Match> {
    (0_u32..3, 0..seconds * 10, 0_u8..40, 0_u8..3, 0_u8..5)
        .prop_map(|(detector, at, request, actor, target)| Match { detector, at, request, actor, target })
}

/// Matches as they happened, and in an order in which they may arrive when none is late by more than a minute.
fn delayed(seconds: i64, most: usize) -> impl Strategy<Value = (Vec<Match>, Vec<Match>)> {
    prop::collection::vec((a_match(seconds), 0_i64..600), 0..most).prop_map(|mut matches| {
        matches.sort_by_key(|(m, _)| m.at);
        let sorted = matches.iter().map(|(m, _)| *m).collect();
        matches.sort_by_key(|(m, delay)| m.at + delay);
        (sorted, matches.into_iter().map(|(m, _)| m).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_order_yields_what_the_model_yields(matches in prop::collection::vec(a_match(40), 0..60)) {
        let rules = all_rules();
        let (found, stats) = run(&rules, &matches, BUDGET);
        prop_assert_eq!(ids(&found), model(&rules, &matches));
        prop_assert_eq!((stats.late, stats.evicted, stats.damaged), (0, 0, 0));
    }

    #[test]
    fn delays_within_lateness_change_nothing((sorted, arrived) in delayed(900, 150)) {
        let rules = all_rules();
        let (live, stats) = run(&rules, &arrived, BUDGET);
        let (replay, _) = run(&rules, &sorted, BUDGET);
        prop_assert_eq!(ids(&live), ids(&replay));
        prop_assert_eq!(ids(&live), model(&rules, &sorted));
        prop_assert_eq!(stats.late, 0);
    }

    #[test]
    fn redelivery_changes_nothing((_, arrived) in delayed(120, 40), again in prop::collection::vec((0_usize..40, 0_usize..80), 0..40)) {
        let rules = all_rules();
        let (once, _) = run(&rules, &arrived, BUDGET);
        let mut repeated = arrived.clone();
        for (from, to) in again {
            if let Some(copy) = arrived.get(from) {
                let first = repeated.iter().position(|m| m == copy).expect("it is there");
                repeated.insert(to.clamp(first, repeated.len()), *copy);
            }
        }
        let (twice, _) = run(&rules, &repeated, BUDGET);
        let set = |found: &[Found]| ids(found).into_iter().collect::<BTreeSet<_>>();
        prop_assert_eq!(set(&once), set(&twice));
    }
}
