//! Traces, messages, and what part of an event decides.

use super::*;
use crate::facts::Parts;
use crate::program::Template;

#[test]
fn a_trace_says_why() {
    let yaml = rule(
        "made: {verb: [create, update], user.groups|contains: dev}\nbody:\n  - {responseObject.x: 5}\n  - {requestObject.spec.hostPID: 'on'}\nodd: {objectRef.name: null, userAgent|startswith: kube}\ncondition: made and not body or 2 of them",
    );
    let rules = load(&yaml, Options::default());
    let trace = with_event(POD, Stream::Audit, |event| {
        rules.tests.explain(&rules.detectors[0].condition, event, &mut Memo::default())
    });
    let expected = "\
true    any of
  unknown all of
    true    made
      true    verb: [create, update]    is \"create\"
      true    user.groups|contains: dev    is \"devs,system:authenticated\"
    unknown not
      unknown body
        unknown any of
          unknown responseObject.x: 5    is (unknown)
          false   requestObject.spec.hostPID: on    is \"true\"
  true    2 of
    true    made
      true    verb: [create, update]    is \"create\"
      true    user.groups|contains: dev    is \"devs,system:authenticated\"
    unknown body
      unknown any of
        unknown responseObject.x: 5    is (unknown)
        false   requestObject.spec.hostPID: on    is \"true\"
    true    odd
      true    objectRef.name: null    is (absent)
      true    userAgent|startswith: kube    is \"kubectl/v1.30\"
";
    assert_eq!(trace.render(), expected);
    let json = serde_json::to_value(&trace.children[0].children[0].children[0]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"text": "verb: [create, update]", "result": "true", "actual": "\"create\""})
    );
}

#[test]
fn a_trace_shows_both_fields() {
    let rules = load(&rule("s: {verb|fieldref: objectRef.name}\ncondition: s"), Options::default());
    let trace = with_event(POD, Stream::Audit, |event| {
        rules.tests.explain(&rules.detectors[0].condition, event, &mut Memo::default())
    });
    assert_eq!(trace.children[0].actual.as_deref(), Some("\"create\", the other (absent)"));
}

#[test]
fn a_trace_is_bounded_and_cannot_be_forged() {
    let rules = load(&rule("s: {userAgent: x}\ncondition: s"), Options::default());
    let event = format!(r#"{{"userAgent":"a\ntrue \u001b[0m{}"}}"#, "y".repeat(1000));
    let trace = with_event(&event, Stream::Audit, |event| {
        rules.tests.explain(&rules.detectors[0].condition, event, &mut Memo::default())
    });
    let text = trace.render();
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("a\\ntrue \\u{1b}[0myyy") && text.len() < 400, "{text}");
}

#[test]
fn messages() {
    let render = |template: &str| {
        let mut tests = Tests::default();
        let template = Template::new(template, &mut tests).unwrap();
        with_event(POD, Stream::Audit, |event| template.render(&tests, event, &mut Memo::default()))
    };
    assert_eq!(
        render("{actor.name} did {verb} as {actor.groups}"),
        "Dana did create as devs,system:authenticated"
    );
    assert_eq!(
        render("{objectRef.name}/{responseObject.x} {{verb}} {requestObject.spec}"),
        "-/? {verb} {...}"
    );
    assert_eq!(render("{annotations.authorization.k8s.io/reason}{requestObject.metadata.none}"), "--");
    let long = format!(r#"{{"userAgent":"{}"}}"#, "ä".repeat(600));
    let mut tests = Tests::default();
    let template = Template::new("{userAgent}", &mut tests).unwrap();
    let shown =
        with_event(&long, Stream::Audit, |event| template.render(&tests, event, &mut Memo::default()));
    assert_eq!(shown.chars().count(), 513);
    for bad in ["{", "}", "{}", "a { b", "{a{b}}"] {
        assert!(Template::new(bad, &mut tests).is_err(), "{bad}");
    }
}

#[test]
fn part_of_an_event_refutes_only_what_it_decides() {
    let detection = "s: {verb: create, userAgent: x}\nt: {verb: get, requestObject.x: 1}\nu: {annotations.a|exists: true, verb: create}\nk: [dana]\n";
    for (condition, shape, all) in [
        ("s", Unknown, False),
        ("t", False, False),
        ("not t", True, True),
        ("u", Unknown, False),
        ("s or t", Unknown, False),
        ("k and t", False, False),
        ("k", Unknown, True),
    ] {
        let rules = load(&rule(&format!("{detection}condition: {condition}")), Options::default());
        let condition = &rules.detectors[0].condition;
        with_event(POD, Stream::Audit, |event| {
            event.lens.set(Parts::SHAPE);
            let mut memo = Memo::default();
            assert_eq!(rules.tests.eval(condition, event, &mut memo), shape, "{condition:?}");
            event.lens.set(Parts::ALL);
            memo = memo.renew();
            assert_eq!(rules.tests.eval(condition, event, &mut memo), all, "{condition:?}");
        });
    }
}

#[test]
fn a_memo_serves_event_after_event() {
    let rules = load(&rule("s: {verb: create}\ncondition: s"), Options::default());
    let condition = &rules.detectors[0].condition;
    let mut memo = Memo::default();
    for (event, expected) in [(POD, True), (r#"{"verb":"get"}"#, False), (POD, True)] {
        memo = with_event(event, Stream::Audit, |event| {
            let mut memo = std::mem::take(&mut memo).renew();
            assert_eq!(rules.tests.eval(condition, event, &mut memo), expected);
            memo.renew()
        });
    }
}

/// Selections over raw paths, some true of [`POD`] and some false.
const SELECTIONS: &[&str] = &[
    "verb: create",
    "user.username: dan",
    "user.username|neq: dana",
    "user.groups: ops",
    "user.groups|contains|all: [dev, auth]",
    "sourceIPs|cidr: 10.0.0.0/8",
    "sourceIPs|fieldref: user.groups",
    "userAgent|startswith: kubectl/v1",
    "objectRef.name|exists: false",
    "objectRef.subresource: null",
    "responseStatus.code: 20",
    "responseStatus.code|gte: 200",
    "annotations.authorization.k8s.io/decision: allow",
    "annotations.authorization.k8s.io/reason: ''",
    "requestReceivedTimestamp|hour: 22",
    "requestObject.metadata.labels.app.kubernetes.io/name: Web",
    "requestObject.metadata.none: null",
    "requestObject.spec.hostPID: true",
    "requestObject.spec.hostIPC: null",
    "requestObject.spec.f|lt: 1.3",
    "requestObject.spec.containers.ports: 44",
    "requestObject.spec.containers.args|endswith: '/bar'",
    "requestObject.spec.containers.image|exists: true",
    "requestObject.spec|exists: true",
    "'|all': [dana, web]",
    "nothing",
];

/// A rule of one selection.
fn only(selection: &str) -> Rules {
    let item = if selection.contains(": ") { format!("{{{selection}}}") } else { format!("[{selection}]") };
    load(&rule(&format!("s: {item}\ncondition: s")), Options::default())
}

#[test]
fn a_cut_never_changes_an_answer() {
    for selection in SELECTIONS {
        let rules = only(selection);
        assert_eq!(rules.problems, [], "{selection}");
        let judge = |json: &str| {
            let condition = &rules.detectors[0].condition;
            with_event(json, Stream::Audit, |event| rules.tests.eval(condition, event, &mut Memo::default()))
        };
        let whole = judge(POD);
        for cut in 1..POD.len() {
            let found = judge(&POD[..cut]);
            assert!(found == whole || found == Unknown, "{selection}: {found:?} of {}", &POD[..cut]);
        }
    }
}

#[test]
fn hiding_a_part_never_changes_an_answer() {
    for selection in SELECTIONS {
        let rules = only(selection);
        let condition = &rules.detectors[0].condition;
        with_event(POD, Stream::Audit, |event| {
            let whole = rules.tests.eval(condition, event, &mut Memo::default());
            for parts in 0..=255 {
                event.lens.set(Parts(parts));
                let found = rules.tests.eval(condition, event, &mut Memo::default());
                assert!(found == whole || found == Unknown, "{selection} with parts {parts}");
            }
        });
    }
}
