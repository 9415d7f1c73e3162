//! The correlator against a naive model that sees all steps at once, and its bounds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::event::time::SECOND;
use crate::level::Level;
use crate::value::Value;

mod apart;

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
        silent: false,
        logic_hash: [1; 32],
        level: Level::High,
        grades: Vec::new(),
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

/// A cheap stream of numbers, the same in every run.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    }
}

#[test]
fn the_matches_that_are_tried_make_every_rule_fire() {
    let rules = all_rules();
    let mut fired = BTreeSet::new();
    for seed in 0..50 {
        let mut next = numbers(seed);
        let mut number = |below| next(below) as u8;
        let matches: Vec<Match> = (0..60)
            .map(|_| Match {
                detector: u32::from(number(3)),
                at: i64::from(number(200)) * 2,
                request: number(40),
                actor: number(3),
                target: number(5),
            })
            .collect();
        fired.extend(run(&rules, &matches, BUDGET).0.into_iter().map(|f| f.alert.detector));
    }
    assert_eq!(fired.len(), rules.len(), "{fired:?}");
}

/// Matches of detectors at seconds, of different requests and targets, by one actor.
fn at(times: &[(u32, i64)]) -> Vec<Match> {
    let of = |(i, (detector, seconds)): (usize, &(u32, i64))| Match {
        detector: *detector,
        at: seconds * 10,
        request: i as u8,
        actor: 0,
        target: i as u8,
    };
    times.iter().enumerate().map(of).collect()
}

fn check(kind: Kind, members: u32, condition: Condition, times: &[(u32, i64)], alerts: usize) {
    let rules = [rule("it", kind, (0..members).map(detector).collect(), 10, condition)];
    let (found, _) = run(&rules, &at(times), BUDGET);
    assert_eq!(found.len(), alerts, "{:?} {times:?}", rules[0].kind);
    let reversed: Vec<_> = at(times).into_iter().rev().collect();
    assert_eq!(ids(&run(&rules, &reversed, BUDGET).0), ids(&found));
}

#[test]
fn windows_end_at_an_event_and_exclude_their_beginning() {
    let three = || count(Op::Gte, 3);
    check(Kind::EventCount, 1, three(), &[(0, 1), (0, 2), (0, 3)], 1);
    check(Kind::EventCount, 1, three(), &[(0, 5), (0, 9), (0, 14)], 1);
    check(Kind::EventCount, 1, three(), &[(0, 5), (0, 9), (0, 15)], 0);
    check(Kind::EventCount, 1, count(Op::Gt, 3), &[(0, 1), (0, 2), (0, 3)], 0);
    check(Kind::EventCount, 1, three(), &[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)], 1);
    check(Kind::EventCount, 1, three(), &[(0, 1), (0, 2), (0, 3), (0, 21), (0, 22), (0, 23)], 2);
    check(values(), 1, three(), &[(0, 1), (0, 1), (0, 1)], 1);
}

#[test]
fn temporal_kinds_take_ties_and_mind_order() {
    let all = || Condition::AllMembers;
    check(Kind::Temporal, 2, all(), &[(1, 1), (0, 10)], 1);
    check(Kind::Temporal, 2, all(), &[(1, 1), (0, 11)], 0);
    check(Kind::Temporal, 3, count(Op::Gte, 2), &[(2, 1), (2, 2), (0, 4)], 1);
    check(Kind::TemporalOrdered, 2, all(), &[(0, 1), (1, 2)], 1);
    check(Kind::TemporalOrdered, 2, all(), &[(0, 2), (1, 2)], 1);
    check(Kind::TemporalOrdered, 2, all(), &[(1, 1), (0, 2)], 0);
    check(Kind::TemporalOrdered, 2, all(), &[(0, 5), (1, 9), (0, 12)], 1);
    check(Kind::TemporalOrdered, 3, all(), &[(0, 1), (2, 2), (1, 3)], 0);
    check(Kind::TemporalOrdered, 3, all(), &[(0, 1), (1, 9), (0, 10), (2, 12)], 0);
    check(Kind::TemporalOrdered, 3, all(), &[(0, 1), (0, 8), (1, 9), (2, 12)], 1);
}

#[test]
fn conditions_that_can_become_false_are_judged_on_a_bucket() {
    check(Kind::EventCount, 1, count(Op::Lt, 3), &[(0, 1), (0, 9), (0, 10)], 2);
    check(Kind::EventCount, 1, count(Op::Eq, 2), &[(0, 1), (0, 9), (0, 10)], 1);
    check(Kind::EventCount, 1, count(Op::Neq, 2), &[(0, 1), (0, 9), (0, 10)], 1);
    check(Kind::EventCount, 1, count(Op::Lte, 2), &[(0, 1), (0, 2), (0, 3), (0, 4)], 0);
    let b_without_a = Expr::All(vec![Expr::Member(1), Expr::Not(Box::new(Expr::Member(0)))]);
    check(Kind::Temporal, 2, Condition::Members(b_without_a), &[(1, 1), (1, 11), (0, 12)], 1);
}

#[test]
fn grades_follow_a_count_that_is_final() {
    let mut range = rule("few", Kind::EventCount, vec![detector(0)], 10, count(Op::Lt, 3));
    range.condition = Condition::Count(vec![(Op::Gte, 1), (Op::Lt, 3)]);
    range.grades = vec![(vec![(Op::Gte, 9)], Level::Critical), (vec![(Op::Eq, 1)], Level::Low)];
    let levels = |rule: &Rule, times: &[(u32, i64)]| {
        let (found, _) = run(std::slice::from_ref(rule), &at(times), BUDGET);
        found.into_iter().map(|f| (f.alert.level, f.alert.priority)).collect::<Vec<_>>()
    };
    assert_eq!(levels(&range, &[(0, 1)]), [(Level::Low, "Notice".to_owned())]);
    assert_eq!(levels(&range, &[(0, 1), (0, 2)]), [(Level::High, "Error".to_owned())]);
    // The count goes on as far as a grade asks for, although the condition is decided long before.
    range.condition = count(Op::Neq, 1);
    assert_eq!(levels(&range, &(0..9).map(|t| (0, t)).collect::<Vec<_>>())[0].0, Level::Critical);
    range.condition = count(Op::Gte, 1);
    assert!(Correlator::new(vec![range], BUDGET).is_err(), "the first event completes it");
}

#[test]
fn waiting_ends_with_the_watermark() {
    let rules = [rule("few", Kind::EventCount, vec![detector(0)], 10, count(Op::Lt, 3))];
    let mut correlator = Correlator::new(rules.to_vec(), BUDGET).expect("good rules");
    let mut out = Vec::new();
    let base = at(&[(0, 5)])[0];
    correlator.push(&steps(&rules, &[base])[0], &mut out);
    for second in 6..70 {
        correlator.advance(base.time() + (second - 5) * SECOND, &mut out);
    }
    assert_eq!(out.len(), 0);
    correlator.advance(base.time() + 65 * SECOND, &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].alert.count, Some(1));
    correlator.push(&steps(&rules, &at(&[(0, 6)]))[0], &mut out);
    correlator.finish(&mut out);
    assert_eq!((out.len(), correlator.stats().late), (1, 1));
}

#[test]
fn unknown_actors_are_not_one_actor() {
    let mut by_none = rule("it", Kind::EventCount, vec![detector(0)], 10, count(Op::Gte, 1));
    by_none.group_by.push("none".to_owned());
    let mut of_none = rule(
        "it",
        Kind::ValueCount { fields: vec!["none".to_owned()] },
        vec![detector(0)],
        10,
        count(Op::Gte, 1),
    );
    for rule in [&by_none, &of_none] {
        assert_eq!(steps(std::slice::from_ref(rule), &at(&[(0, 1)])), []);
    }
    of_none.kind = Kind::ValueCount { fields: vec!["none".to_owned(), "target.name".to_owned()] };
    assert_eq!(steps(&[of_none], &at(&[(0, 1)])).len(), 1);
}

#[test]
fn aliases_name_different_fields() {
    let mut second = detector(1);
    second.aliases = vec![("actor.name".to_owned(), "user".to_owned())];
    let rules = [rule("it", Kind::Temporal, vec![detector(0), second], 10, Condition::AllMembers)];
    assert_eq!(rules[0].fields_for(0), ["actor.name"]);
    assert_eq!(rules[0].fields_for(1), ["user"]);
    let (found, _) = run(&rules, &at(&[(0, 1), (1, 2)]), BUDGET);
    assert_eq!(found[0].alert.output_fields["actor.name"], "actor-0");
}

#[test]
fn an_alert_tells_what_happened() {
    let mut burst = rule("Many targets", values(), vec![detector(0)], 300, count(Op::Gte, 3));
    burst.message = Some(
        "{actor.name} read {count} targets in {window}, the last one {target.name} {{odd}} {x}".to_owned(),
    );
    burst.fields = vec!["x".to_owned()];
    let rules = [burst];
    let mut correlator =
        Correlator::new(rules.to_vec(), BUDGET).expect("good").with_cluster(Some("prod".to_owned()));
    let mut out = Vec::new();
    for step in steps(&rules, &at(&[(0, 1), (0, 3), (0, 2)])) {
        correlator.push(&step, &mut out);
    }
    let alert = serde_json::to_value(&out[0].alert).expect("alerts are JSON");
    let evidence = |request: u8, second: u8| {
        serde_json::json!({
            "input": "audit.log", "offset": request, "length": 10, "sha256": format!("{request:02x}").repeat(32),
            "time": format!("2026-03-01T10:00:0{second}.000000000Z"), "audit_id": "id",
        })
    };
    let expected = serde_json::json!({
        "uuid": report::uuid(&rules[0], &step::pack_group(["actor-0"].into_iter()), 1_772_359_200 / 300),
        "time": "2026-03-01T10:00:03.000000000Z",
        "rule": "Many targets", "priority": "Error", "level": "high", "source": "lapwing",
        "output": "actor-0 read 3 targets in 5m, the last one target-1 {odd} unknown",
        "output_fields": {
            "actor.name": "actor-0", "target.name": "target-0,target-2,target-1", "count": "3", "window": "5m",
            "first_seen": "2026-03-01T10:00:01.000000000Z", "last_seen": "2026-03-01T10:00:03.000000000Z",
        },
        "tags": ["attack.t1110"], "schema": "lapwing/v1", "detector": "test/Many targets", "cluster": "prod", "k8s": null,
        "evidence": [evidence(0, 1), evidence(2, 2), evidence(1, 3)],
        "count": 3,
    });
    assert_eq!(alert, expected);
}

#[test]
fn a_temporal_alert_lists_its_steps() {
    let rules =
        [rule("Chain", Kind::TemporalOrdered, vec![detector(0), detector(1)], 60, Condition::AllMembers)];
    let (found, _) = run(&rules, &at(&[(0, 1), (0, 2), (0, 9), (1, 5)]), BUDGET);
    let alert = &found[0].alert;
    assert_eq!(
        alert.steps.as_deref(),
        Some(
            &[
                "2026-03-01T10:00:02.000000000Z Detector 0".to_owned(),
                "2026-03-01T10:00:05.000000000Z Detector 1".to_owned()
            ][..]
        )
    );
    assert_eq!(alert.output, "Chain (actor.name=actor-0 window=1m)");
    assert_eq!((alert.count, alert.evidence.len()), (None, 3));
}

#[test]
fn rules_that_cannot_be_judged_are_refused() {
    let good = || rule("it", Kind::EventCount, vec![detector(0)], 10, count(Op::Gte, 3));
    let refuse = |rules: Vec<Rule>, why: &str| {
        let error = Correlator::new(rules, BUDGET).expect_err(why);
        assert!(error.starts_with("correlation `test/it`: ") && error.contains(why), "{error}");
    };
    refuse(vec![Rule { members: Vec::new(), ..good() }], "refers to 0 rules");
    refuse(vec![Rule { timespan: 5, ..good() }], "timespan");
    refuse(vec![Rule { kind: Kind::ValueCount { fields: Vec::new() }, ..good() }], "`field`");
    refuse(vec![Rule { condition: Condition::AllMembers, ..good() }], "needs a condition");
    refuse(vec![Rule { condition: count(Op::Gte, 1_000_000), ..good() }], "100000");
    refuse(vec![Rule { kind: Kind::TemporalOrdered, ..good() }], "takes no condition");
    refuse(vec![Rule { members: vec![correlation(3)], ..good() }], "does not exist");
    let beyond = Condition::Members(Expr::Member(1));
    refuse(vec![Rule { kind: Kind::Temporal, condition: beyond, ..good() }], "not among its rules");
    refuse(vec![Rule { members: vec![correlation(0)], ..good() }], "itself");
    let mut outer = Rule { members: vec![correlation(1)], ..good() };
    outer.group_by = vec!["target.name".to_owned()];
    refuse(vec![outer, good()], "`target.name` is not among the group-by fields");
}

#[test]
fn damaged_steps_are_counted() {
    let rules = [rule("it", Kind::EventCount, vec![detector(0)], 10, count(Op::Gte, 1))];
    let step = steps(&rules, &at(&[(0, 1)])).remove(0);
    let mut correlator = Correlator::new(rules.to_vec(), BUDGET).expect("good rules");
    let mut out = Vec::new();
    for cut in 0..step.bytes.len() {
        correlator.push(&Step { time: 0, bytes: step.bytes[..cut].to_vec() }, &mut out);
    }
    assert_eq!((correlator.stats().damaged, out.len()), (step.bytes.len() as u64, 0));
}

/// A step of member 0 of a rule for any actor, at milliseconds.
fn flood_step(rules: &[Rule], rule: u32, member: u8, millis: i64, actor: u64, request: u64) -> Step {
    let mut identity = [0; 16];
    identity[..8].copy_from_slice(&request.to_le_bytes());
    let place = Place { input: "audit.log", offset: 0, length: 1, sha256: [0; 32], audit_id: None };
    let time = 1_772_359_200 * SECOND + millis * 1_000_000;
    let value = |_| Value::Text(format!("actor-{actor}").into());
    StepBuilder::new(rules, rule, member).build(time, &identity, &place, value).expect("all values are there")
}

#[test]
fn a_flood_of_keys_stays_within_the_budget_and_displaces_only_itself() {
    let rules = [
        rule("flooded", Kind::EventCount, vec![detector(0)], 3600, count(Op::Gte, 3)),
        rule("quiet", Kind::Temporal, vec![detector(1), detector(2)], 3600, Condition::AllMembers),
        rule("waiting", Kind::EventCount, vec![detector(0)], 3600, count(Op::Eq, 1)),
    ];
    let budget = 4 << 20;
    let mut correlator = Correlator::new(rules.to_vec(), budget).expect("good rules");
    let mut out = Vec::new();
    correlator.push(&flood_step(&rules, 0, 0, 0, 0, 1), &mut out);
    correlator.push(&flood_step(&rules, 0, 0, 0, 0, 2), &mut out);
    correlator.push(&flood_step(&rules, 1, 0, 0, 0, 3), &mut out);
    for n in 0..500_000_u64 {
        for rule in [0, 2] {
            correlator.push(&flood_step(&rules, rule, 0, n as i64, 10 + n, 10 + n), &mut out);
        }
        assert!(correlator.store.memory() <= budget);
    }
    assert!(correlator.store.weighed());
    assert!(correlator.stats().evicted > 900_000, "{:?}", correlator.stats());
    assert!(correlator.due.len() < 10_000);
    correlator.push(&flood_step(&rules, 0, 0, 500_000, 0, 4), &mut out);
    correlator.push(&flood_step(&rules, 1, 1, 500_000, 0, 5), &mut out);
    let told: Vec<_> = out.iter().map(|f| (f.alert.rule.as_str(), f.alert.approximate)).collect();
    assert_eq!(told, [("flooded", Some(true)), ("quiet", None)]);
}

#[test]
fn active_keys_cannot_fill_the_budget_for_good() {
    let rules = [rule("it", Kind::EventCount, vec![detector(0)], 3600, count(Op::Gte, 3))];
    let mut correlator = Correlator::new(rules.to_vec(), 1 << 20).expect("good rules");
    let mut out = Vec::new();
    for n in 0..40_000 {
        correlator.push(&flood_step(&rules, 0, 0, n, n as u64 / 2, n as u64), &mut out);
    }
    for n in 0..3 {
        for actor in 0..100 {
            let request = 1_000_000 + n * 100 + actor;
            correlator.push(&flood_step(&rules, 0, 0, 40_000, 1_000_000 + actor, request), &mut out);
        }
    }
    assert_eq!(out.len(), 100);
}

#[test]
fn a_flood_in_one_group_is_thinned_and_still_found() {
    let ordered =
        rule("ordered", Kind::TemporalOrdered, vec![detector(0), detector(1)], 3600, Condition::AllMembers);
    let inner = rule("inner", Kind::EventCount, vec![detector(0)], 3600, count(Op::Gte, 50));
    let outer =
        rule("outer", Kind::TemporalOrdered, vec![correlation(1), detector(1)], 3600, Condition::AllMembers);
    let plain = rule("plain", Kind::EventCount, vec![detector(0)], 3600, count(Op::Gte, 50));
    let rules = [ordered, inner, outer, plain];
    let mut correlator = Correlator::new(rules.to_vec(), BUDGET).expect("good rules");
    let mut out = Vec::new();
    for n in 0..50_000 {
        for rule in [0, 1, 3] {
            correlator.push(&flood_step(&rules, rule, 0, n * 10, 0, n as u64), &mut out);
        }
    }
    assert!(correlator.store.memory() < 1 << 20, "{}", correlator.store.memory());
    correlator.push(&flood_step(&rules, 0, 1, 600_000, 0, 0), &mut out);
    correlator.push(&flood_step(&rules, 2, 1, 600_000, 0, 0), &mut out);
    let told: Vec<_> = out.iter().map(|f| (f.alert.rule.as_str(), f.alert.approximate)).collect();
    let expected = [("inner", None), ("plain", None), ("ordered", Some(true)), ("outer", Some(true))];
    assert_eq!(told, expected);
}

#[test]
fn old_events_delivered_again_displace_nothing() {
    let rules = [rule("it", Kind::EventCount, vec![detector(0)], 60, count(Op::Gte, 3))];
    let mut correlator = Correlator::new(rules.to_vec(), BUDGET).expect("good rules");
    let mut out = Vec::new();
    let step = |n: u64| flood_step(&rules, 0, 0, n as i64 * 59_000, 0, n);
    for n in 0..40 {
        correlator.push(&step(n), &mut out);
    }
    for n in (0..10).chain([40]) {
        correlator.push(&step(n), &mut out);
    }
    assert_eq!(out.len(), 0);
    correlator.push(&flood_step(&rules, 0, 0, 40 * 59_000, 0, 41), &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn forged_times_displace_nothing() {
    let rules = [rule("it", Kind::EventCount, vec![detector(0)], 60, count(Op::Gte, 3))];
    let year = 365 * 86_400_000;
    let mut correlator = Correlator::new(rules.to_vec(), BUDGET).expect("good rules");
    let mut out = Vec::new();
    for n in 0..200_u64 {
        correlator.push(&flood_step(&rules, 0, 0, n as i64 * 1000, n % 2, n), &mut out);
        if n % 3 == 0 {
            correlator.push(&flood_step(&rules, 0, 0, year * (1 + n as i64 / 9), n % 2, 1000 + n), &mut out);
        }
    }
    let normal = out.iter().filter(|f| *f.alert.time < *"2026-04").count();
    assert_eq!((normal, correlator.stats().late), (8, 0));
    assert!(correlator.stats().future > 50);
}
