//! What the loader says about files, and what it makes of them.

use super::*;
use crate::level::Level;
use crate::program::Template;

/// The problems of a file, as shown.
fn problems(yaml: &str, strict: bool) -> Vec<String> {
    let rules = load(yaml, Options { strict, ..Options::default() });
    rules.problems.iter().map(ToString::to_string).collect()
}

/// One problem in a detection, of which the reason contains `expected`; lines count from `detection:` on, which is 3.
fn refused(detection: &str, line: u32, expected: &str) {
    let found = problems(&rule(detection), false);
    assert_eq!(found.len(), 1, "{detection}\n{found:#?}");
    let start = format!("dir/test.yml:{line}: error: ");
    assert!(found[0].starts_with(&start) && found[0].contains(expected), "{detection}\n{}", found[0]);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_line() {
    for (item, expected) in [
        ("verb|conatins: x", "Unknown modifier 'conatins'"),
        ("verb|not: x", "`not` is not a value modifier"),
        ("verb|contains|startswith: x", "`contains` and `startswith` exclude each other"),
        ("verb|re|contains: x", "`re` and `contains` exclude each other"),
        ("verb|i: x", "`i` belongs after `re`"),
        ("verb|re|cased: x", "`cased` and `re` exclude each other"),
        ("verb|base64|base64: x", "nothing can be encoded after"),
        ("verb|wide|utf16be|base64: x", "UTF-16 only once"),
        ("verb|base64|re: x", "an encoded text cannot be compared with `re`"),
        ("verb|base64: 'x*'", "a text with wildcards cannot be encoded"),
        ("verb|utf16: x", "is no text; add `base64`"),
        ("verb|exists: maybe", "`exists` takes true or false"),
        ("verb|exists|all: [true, false]", "`all` and `exists` exclude each other"),
        ("verb|gt: many", "many is no number"),
        ("verb|gt|neq: 1", "`neq` and `gt` exclude each other"),
        ("verb|windash|re: x", "`windash` and `re` exclude each other"),
        ("verb|hour|contains: 1", "a part of a time cannot be compared with `contains`"),
        ("verb|hour|minute: 1", "one part at a time"),
        ("verb|hour: noon", "noon is no number"),
        ("verb|cidr: 10.0.0.0/33", "neither an IP address nor a CIDR block"),
        ("verb|re: '(a'", "is no regular expression: unclosed group"),
        ("verb|re: '(?=a)'", "look-around"),
        ("verb|re: '(\\w{500}){500}'", "too large"),
        ("verb|contains: null", "null can only be compared for equality"),
        ("verb|fieldref: [a, b]", "the name of one field"),
        ("verb|fieldref|cidr: stage", "`fieldref` and `cidr` exclude each other"),
        ("verb|expand: create", "finds no %name%"),
        ("verb: {a: b}", "the value is a map"),
        ("verb: [[a]]", "the value is a list"),
        ("verb: []", "an empty list of values"),
        ("5: x", "a field's name must be text"),
        ("'.': x", "is not supported"),
    ] {
        let line = if item.starts_with("5:") { 4 } else { 5 };
        refused(&format!("s:\n    {item}\ncondition: s"), line, expected);
    }
}

#[test]
fn conditions_that_cannot_be_used() {
    for (condition, expected) in [
        ("selction", "there is no selection `selction`; did you mean `selection`?"),
        ("selection and", "is no condition at column"),
        ("NOT selection", "is no condition at column"),
        ("(selection", "is no condition at column"),
        ("1 of selectoin*", "no selection has such a name"),
        ("all of nothing", "no selection has such a name"),
        ("selection | count() > 5", "write a correlation rule"),
        ("1 of filter_*", "`1 of filter_*`: no selection has such a name"),
        ("3 of them", "there are only 1 such selections"),
        ("0 of them", "this always holds"),
        ("5", "a condition is a text"),
        ("{a: b}", "a condition is a text"),
        ("[]", "a condition is a text"),
    ] {
        let found = problems(&rule(&format!("selection: {{verb: get}}\ncondition: {condition}")), false);
        let error = found.iter().find(|p| p.starts_with("dir/test.yml:5: error: "));
        assert!(error.is_some_and(|p| p.contains(expected)), "{condition}\n{found:#?}");
    }
    refused("s: {verb: get}\ntimeframe: 5m\ncondition: s", 5, "`timeframe` is no longer Sigma");
    refused("s: []\ncondition: s", 4, "an empty list selects nothing");
    refused("s: {}\ncondition: s", 4, "an empty map selects everything");
    refused("s: [[a]]\ncondition: s", 4, "a list within a list");
    refused("s: {verb: get}", 3, "a `condition` is missing");
}

#[test]
fn documents_that_cannot_be_used() {
    let logsource = "logsource: {product: kubernetes}";
    for (yaml, expected) in [
        ("title: [", "dir/test.yml:2: error: not YAML"),
        ("- a\n- b\n", "dir/test.yml:1: error: a rule is a mapping"),
        ("title: t\ntitle: u\n", "dir/test.yml:1: error: not YAML: duplicate entry with key \"title\""),
        ("title: t\ndetection: {s: {verb: get}, condition: s}\n", "a rule needs a `logsource`"),
        (&format!("title: t\n{logsource}\n"), "a rule needs a `detection`"),
        (&format!("{logsource}\ndetection: {{s: {{verb: get}}, condition: s}}\n"), "a rule needs a `title`"),
        (
            &format!("title: t\nlevel: hihg\n{logsource}\ndetection: {{s: {{verb: get}}, condition: s}}\n"),
            "test.yml:2: error: unknown level `hihg`",
        ),
        (
            &format!(
                "title: t\nsigma-version: 4\n{logsource}\ndetection: {{s: {{verb: get}}, condition: s}}\n"
            ),
            "only versions up to 3",
        ),
        (
            &format!("title: t\n{logsource}\ndetection: {{s: {{verb: get}}, condition: s}}\ngrade: high\n"),
            "`grade` is a list of",
        ),
        (
            &format!(
                "title: t\n{logsource}\ndetection: {{s: {{verb: get}}, condition: s}}\ngrade: [{{when: t, level: low}}]\n"
            ),
            "there is no selection `t`",
        ),
        (
            &format!(
                "title: t\n{logsource}\ndetection: {{s: {{verb: get}}, condition: s}}\nmessage: 'a {{verb'\n"
            ),
            "a `{` without `}`",
        ),
    ] {
        let found = problems(yaml, false);
        assert!(found.iter().any(|p| p.contains(expected)), "{yaml}\n{found:#?}");
        assert!(load(yaml, Options::default()).detectors.is_empty());
    }
}

#[test]
fn our_own_catalogue_is_held_to_its_names() {
    let yaml = "title: t\nstatus: stabel\nmesage: x\nlogsource: {product: kubernetes}\nmessage: '{actor.nmae} {{x}}'\ndetection:\n  s:\n    pod.privilegd: true\n    pod.privileged: 'yes'\n    objectReff.name: x\n    falco.rule: x\n  unused: {verb: get}\n  condition: s\n";
    let expected = [
        (3, "unknown key `mesage`; did you mean `message`?"),
        (2, "`stabel` is none of stable, test, experimental, deprecated, unsupported"),
        (5, "there is no fact `actor.nmae`; did you mean `actor.name`?"),
        (8, "there is no fact `pod.privilegd`; did you mean `pod.privileged`?"),
        (9, "pod.privileged is true or false: this value can never match"),
        (10, "`objectReff.name` is neither a fact nor a path from a key of the event"),
        (11, "`falco.rule` is not known of audit events"),
        (12, "no condition uses the selection `unused`"),
    ];
    for (strict, severity) in [(true, "error"), (false, "warning")] {
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, reason)| {
                let severity = if reason.starts_with("no condition") { "warning" } else { severity };
                format!("dir/test.yml:{line}: {severity}: {reason}")
            })
            .collect();
        assert_eq!(problems(yaml, strict), expected);
    }
}

#[test]
fn other_products_are_skipped() {
    for (logsource, ours) in [
        ("{product: kubernetes, service: audit}", true),
        ("{product: kubernetes, category: application, service: audit}", true),
        ("{product: Kubernetes}", true),
        ("{service: audit}", true),
        ("{product: falco}", true),
        ("{product: kubernetes, service: kubelet}", false),
        ("{product: windows, category: process_creation}", false),
        ("{product: linux, service: audit}", false),
        ("{product: aws, service: cloudtrail}", false),
    ] {
        let yaml =
            format!("title: t\nlogsource: {logsource}\ndetection: {{s: {{'a|no': 1}}, condition: s}}\n");
        let rules = load(&yaml, Options::default());
        assert_eq!(
            (rules.skipped.len(), rules.problems.is_empty()),
            (usize::from(!ours), !ours),
            "{logsource}"
        );
    }
    let rules =
        load("title: W\nlogsource: {product: windows, category: process_creation}\n", Options::default());
    assert_eq!((&*rules.skipped[0].title, &*rules.skipped[0].logsource), ("W", "windows/process_creation"));
}

const PLAIN: &str = "logsource: {product: kubernetes}\ndetection: {s: {verb: get}, condition: s}\n";

#[test]
fn names_of_rules() {
    let yaml = format!(
        "title: a\n{PLAIN}---\ntitle: b\nname: fam/b\n{PLAIN}---\ntitle: c\n{PLAIN}---\ntitle: d\nname: fam/_d\n{PLAIN}"
    );
    let rules = load(&yaml, Options::default());
    let names: Vec<_> =
        rules.detectors.iter().map(|d| (d.about.name.as_str(), d.about.line, d.about.hidden)).collect();
    assert_eq!(
        names,
        [("sigma/test", 1, false), ("fam/b", 5, false), ("sigma/test-3", 10, false), ("fam/_d", 14, true)]
    );
}

#[test]
fn a_name_stands_once_in_a_folder() {
    let settings = settings();
    let load = |folders: [&str; 2], title: &str| {
        let mut loader = Loader::new(&settings, Options::default());
        loader.add_below(folders[0], "a.yml", &format!("title: one\nname: x\n{PLAIN}"));
        loader.add_below(folders[1], "b.yml", &format!("title: {title}\nname: x\n{PLAIN}"));
        let problems: Vec<_> = loader.finish().problems.iter().map(ToString::to_string).collect();
        problems.join("; ")
    };
    assert_eq!(load(["ours", "theirs"], "two"), "");
    assert_eq!(load(["ours", "ours"], "one"), "");
    let clash = "b.yml:1: error: the name `x` is used in a.yml:1 too, in the same folder";
    assert_eq!(load(["ours", "ours"], "two"), clash);
}

#[test]
fn the_same_name_replaces_and_the_same_id_is_odd() {
    let settings = settings();
    let mut loader = Loader::new(&settings, Options::default());
    loader.add("a.yml", &format!("title: one\nname: x\nid: i\n{PLAIN}---\ntitle: two\nname: y\n{PLAIN}"));
    loader.add("b.yml", &format!("title: three\nname: x\nlevel: high\n{PLAIN}---\ntitle: four\nname: z\nid: j\n{PLAIN}---\ntitle: five\nname: z\n{PLAIN}"));
    loader.add("c.yml", &format!("title: six\nid: j\n{PLAIN}"));
    let rules = loader.finish();
    let titles: Vec<_> = rules.detectors.iter().map(|d| d.about.title.as_str()).collect();
    assert_eq!(titles, ["three", "two", "four", "six"]);
    assert_eq!(rules.replaced, [("x".to_owned(), "a.yml".into())]);
    let problems: Vec<_> = rules.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        ["b.yml:13: error: the name `z` is used twice in this file", "c.yml:1: warning: `z` has the same id"]
    );
}

#[test]
fn what_a_rule_says_of_itself() {
    let yaml = format!(
        "title: T\nid: 7\nauthor: me\nstatus: test\nlevel: critical\ntags: [a, b]\nreferences: r\nfields: [verb]\ndescription: |\n  D.\nfalsepositives: [f]\ntests:\n- event: &e {{a: 1}}\n- event: {{<<: *e, b: 2}}\nmessage: '{{verb}}'\n{PLAIN}"
    );
    let rules = load(&yaml, Options { strict: true, prose: true, tests: true });
    let about = &rules.detectors[0].about;
    assert_eq!(rules.detectors[0].fields.iter().map(|f| rules.tests.name(*f)).collect::<Vec<_>>(), ["verb"]);
    assert_eq!((&*about.title, about.id.as_deref(), about.author.as_deref()), ("T", Some("7"), Some("me")));
    assert_eq!((about.level, about.status.as_deref()), (Level::Critical, Some("test")));
    assert_eq!((about.tags.len(), about.references.len(), about.falsepositives.len()), (2, 1, 1));
    assert_eq!(about.description, "D.\n");
    let second = &about.tests.as_ref().unwrap()[1]["event"];
    assert_eq!((second["a"].as_u64(), second["b"].as_u64()), (Some(1), Some(2)));
    let lean = &load(&yaml, Options::default()).detectors[0].about;
    assert_eq!((lean.description.as_str(), lean.tests.is_none(), lean.logic), ("", true, about.logic));
    assert_eq!(
        load(&format!("title: t\n{PLAIN}"), Options::default()).detectors[0].about.level,
        Level::Medium
    );
}

#[test]
fn grades_are_conditions_too() {
    let yaml = format!(
        "{}level: high\ngrade:\n  - {{when: not s, level: low}}\n  - {{when: t, level: critical}}\n",
        rule("s: {verb: create}\nt: {responseObject.x: 1}\ncondition: s")
    );
    let rules = load(&yaml, Options { strict: true, ..Options::default() });
    assert_eq!(rules.problems, []);
    let grades = &rules.detectors[0].grades;
    assert_eq!((grades[0].level, grades[1].level), (Level::Low, Level::Critical));
    with_event(POD, Stream::Audit, |event| {
        let mut memo = Memo::default();
        let results: Vec<_> =
            grades.iter().map(|grade| rules.tests.eval(&grade.when, event, &mut memo)).collect();
        assert_eq!(results, [False, Unknown]);
    });
}

fn logic(detection: &str) -> LogicHash {
    load(&rule(detection), Options::default()).detectors[0].about.logic
}

#[test]
fn logic_is_what_a_detection_says() {
    let one = logic("a: {verb: get, stage: x}\nb: {verb: [list]}\ncondition: a and not b");
    for same in [
        "b: {verb: list}\na: {stage: x, verb: get}\ncondition: (a) and (not  b)",
        "condition: >-\n  a and\n  not b\na:\n  verb: get\n  stage: x\nb:\n  verb:\n    - list",
    ] {
        assert_eq!(one, logic(same), "{same}");
    }
    for other in [
        "a: {verb: get, stage: x}\nb: {verb: [list]}\ncondition: a or not b",
        "a: {verb: get, stage: y}\nb: {verb: [list]}\ncondition: a and not b",
        "a: {verb|cased: get, stage: x}\nb: {verb: [list]}\ncondition: a and not b",
        "a: {verb: get, stage: x}\nb: {verb: [list, watch]}\ncondition: a and not b",
    ] {
        assert_ne!(one, logic(other), "{other}");
    }
    assert_ne!(logic("a: {verb: 1}\ncondition: a"), logic("a: {verb: '1'}\ncondition: a"));
}

#[test]
fn fields_of_public_rules() {
    // Look-alikes of what public rules for the audit log use although no event has it.
    let rbac = r#"{"verb":"create","objectRef":{"resource":"roles","apiGroup":"rbac.authorization.k8s.io"}}"#;
    check("{verb: create, objectRef.resource: roles, apiGroup: rbac.authorization.k8s.io}", rbac, True);
    check("{apiGroup|startswith: apps}", rbac, False);
    let pod = r#"{"level":"Request","verb":"create","responseStatus":{"code":201},"objectRef":{"resource":"pods"},
        "annotations":{"authorization.k8s.io/decision":"allow"},"requestObject":{"spec":{"volumes":[{"name":"v","hostPath":{"path":"/etc"}}],
        "containers":[{"name":"c","securityContext":{"capabilities":{"add":["SYS_ADMIN"]}}}]}}}"#;
    check("{verb: create, hostPath: '*'}", pod, True);
    check("hostPath: /etc", pod, True);
    check("{objectRef.resource: pods, capabilities: '*'}", pod, True);
    check("capabilities: [NET_RAW, SYS_ADMIN]", pod, True);
    check(
        "hostPath: '*'",
        r#"{"level":"Metadata","verb":"create","objectRef":{"resource":"pods"},"responseStatus":{"code":201}}"#,
        Unknown,
    );
    check("responseStatus.code: ALLOW", pod, True);
    check("responseStatus.code: FORBID", pod, False);
    check("responseStatus.code: [403, allow]", pod, True);
    check("responseStatus.code: [201, forbid]", pod, True);
    let exec = r#"{"verb":"get","objectRef":{"resource":"pods","subresource":"exec"},"responseStatus":{"code":101}}"#;
    check("{verb: create, objectRef.resource: pods, objectRef.subresource: exec}", exec, True);
    check("{verb: create, objectRef.resource: pods/exec}", exec, True);
    check("{verb: [create], objectRef.resource: [pods/attach, pods/exec]}", exec, True);
    check("{verb: create, objectRef.resource: [nodes, pods/exec]}", exec, True);
    check("{verb: create, objectRef.resource: pods, objectRef.subresource: log}", exec, False);
    check("{verb: delete, objectRef.resource: pods, objectRef.subresource: exec}", exec, False);
    check("{verb|neq: create, objectRef.subresource: exec}", exec, True);
    check("{verb: create, objectRef.resource: pods}", exec, False);
}

const BASE: &str = "title: base\nname: base\nid: 11\nlogsource: {product: kubernetes}\ndetection: {s: {verb: create}, condition: s}\n---\n";

#[test]
fn filters_narrow_the_rules_that_they_name() {
    let filter = |rules: &str| {
        format!(
            "{BASE}title: not dana\nlogsource: {{product: kubernetes, service: audit}}\nfilter:\n  rules: {rules}\n  dana: {{user.username: dana}}\n  condition: not dana\n"
        )
    };
    for (rules, expected) in
        [("[base]", False), ("base", False), ("['11']", False), ("any", False), ("[]", False)]
    {
        assert_eq!(judge(&filter(rules), POD, Stream::Audit), expected, "{rules}");
        assert_eq!(judge(&filter(rules), &POD.replace("Dana", "Eve"), Stream::Audit), True, "{rules}");
        let plain = load(BASE, Options::default()).detectors[0].about.logic;
        assert_ne!(load(&filter(rules), Options::default()).detectors[0].about.logic, plain);
    }
    let several = filter("[base]")
        .replace("  condition: not dana", "  ops: {user.groups: ops}\n  condition: not 1 of them");
    assert_eq!(judge(&several, POD, Stream::Audit), False);
    assert_eq!(judge(&several, &POD.replace("Dana", "Eve"), Stream::Audit), True);
    assert_eq!(judge(&filter("[other]"), POD, Stream::Audit), True);
    assert_eq!(
        problems(&filter("[other]"), false),
        ["dir/test.yml:10: warning: no rule is called as this filter says"]
    );
    let windows = filter("[base]").replace("{product: kubernetes, service: audit}", "{product: windows}");
    assert_eq!(judge(&windows, POD, Stream::Audit), True);
    let listed = filter("[base]").replace("user.username: dana", "user.username|expand: '%absent%'");
    assert_eq!(load(&listed, Options::default()).detectors[0].silent, ["absent"]);
}

fn correlation(body: &str) -> String {
    format!("{BASE}title: c\nname: c\ncorrelation:\n{}", indented(body))
}

#[test]
fn correlations() {
    let yaml = correlation(
        "type: value_count\nrules: [base, '11']\ngroup-by: [who, objectRef.namespace]\ntimespan: 2h\ncondition: {gte: 3, lt: 9, field: [actor.name, who]}\naliases:\n  who: {base: user.username, '11': sourceIPs}",
    );
    let rules = load(
        &format!(
            "{yaml}message: '{{who}} {{count}} {{window}}'\nfields: [verb, who, count]\ngrade: [{{when: {{gte: 5}}, level: high}}]\n"
        ),
        Options { strict: true, ..Options::default() },
    );
    assert_eq!(rules.problems, []);
    let c = &rules.correlations[0];
    assert_eq!(
        (c.kind, c.timespan, c.rules.as_slice()),
        (Kind::ValueCount, 7200, &[Referred::Detector(0); 2][..])
    );
    let names = |keys: &[Key]| -> Vec<Vec<String>> {
        keys.iter().map(|key| key.fields.iter().map(|f| rules.tests.name(*f).to_owned()).collect()).collect()
    };
    assert_eq!(names(&c.group_by), [["user.username", "sourceIPs"], ["objectRef.namespace"; 2]]);
    assert_eq!(names(&c.values), [["actor.name"; 2], ["user.username", "sourceIPs"]]);
    assert_eq!(names(&c.shown), [vec!["user.username", "sourceIPs"], vec!["verb"; 2]]);
    let bounds: Vec<_> = c.condition.iter().map(|t| (t.operator, t.count)).collect();
    assert_eq!(bounds, [(ConditionOperator::Gte, 3), (ConditionOperator::Lt, 9)]);
    assert!(rules.detectors[0].about.hidden, "a base rule in the same file does not alert");
    assert_eq!(c.grades[0].when, [Threshold { operator: ConditionOperator::Gte, count: 5 }]);
    assert_eq!(c.about.message.as_ref().map(Template::text), Some("{who} {count} {window}"));
    let generating = load(&format!("{yaml}generate: true\n"), Options::default());
    assert!(!generating.detectors[0].about.hidden);
}

#[test]
fn correlations_that_cannot_be_used() {
    for (body, line, expected) in [
        (
            "type: value_sum\nrules: [base]\ntimespan: 1m\ncondition: {gte: 3, field: x}",
            10,
            "`value_sum` is not supported; use event_count",
        ),
        (
            "type: event_count\nrules: [bas]\ntimespan: 1m\ncondition: {gte: 3}",
            11,
            "there is no rule `bas`, or it cannot be used; did you mean `base`?",
        ),
        ("type: event_count\nrules: []\ntimespan: 1m\ncondition: {gte: 3}", 9, "needs a name in `rules`"),
        ("type: temporal\nrules: [base]\ntimespan: 1m", 9, "two or more names"),
        (
            "type: event_count\nrules: [base]\ntimespan: 1 minute\ncondition: {gte: 3}",
            12,
            "is no time such as 30s",
        ),
        ("type: event_count\nrules: [base]\ntimespan: 1m", 9, "needs a condition"),
        ("type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: -3}", 13, "takes a whole number"),
        ("type: event_count\nrules: [base]\ntimespan: 20y\ncondition: {gte: 3}", 12, "longer than 18 years"),
        ("type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: 100001}", 13, "more than 100000"),
        ("type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: 0}", 13, "this always holds"),
        ("type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {eq: 0}", 13, "this never holds"),
        ("type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {lt: 1}", 13, "this never holds"),
        ("type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {gt: 5, lt: 6}", 13, "this never holds"),
        ("type: temporal\nrules: [base, '11']\ntimespan: 1m\ncondition: {gt: 2}", 13, "this never holds"),
        (
            "type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {atleast: 3, gte: 1}",
            13,
            "`atleast` is not supported here",
        ),
        (
            "type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: 3, field: verb}",
            13,
            "counts no values",
        ),
        ("type: value_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: 3}", 13, "needs the `field`"),
        (
            "type: event_count\nrules: [base]\ntimespan: 1m\nwindow: tumbling\ncondition: {gte: 3}",
            13,
            "window `tumbling` is not supported",
        ),
        (
            "type: event_count\nrules: [base]\ntimespan: 1m\ngroup_by: [verb]\ncondition: {gte: 3}",
            13,
            "`group_by` is not supported in a correlation; did you mean `group-by`?",
        ),
        (
            "type: temporal_ordered\nrules: [base, '11']\ntimespan: 1m\ncondition: base or 11",
            13,
            "takes no condition over rules",
        ),
        (
            "type: temporal\nrules: [base, '11']\ntimespan: 1m\ncondition: base or other",
            13,
            "`other` is none of the correlation's rules",
        ),
        ("type: event_count\nrules: [c]\ntimespan: 1m\ncondition: {gte: 3}", 11, "in a circle"),
        (
            "type: value_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: 3, field: who}\naliases: {who: {other: verb}}",
            14,
            "names no field for the rule `base`",
        ),
    ] {
        let found = problems(&correlation(body), false);
        let start = format!("dir/test.yml:{line}: error: ");
        assert!(found.iter().any(|p| p.starts_with(&start) && p.contains(expected)), "{body}\n{found:#?}");
    }
}

#[test]
fn grades_of_correlations_compare_a_final_count() {
    let graded = |kind: &str, condition: &str, grade: &str| {
        let body = format!("type: {kind}\nrules: [base, '11']\ntimespan: 1m\n{condition}");
        problems(&format!("{}grade: {grade}\n", correlation(&body)), false)
    };
    let high = "[{when: {gte: 50}, level: high}]";
    assert_eq!(graded("event_count", "condition: {gte: 3, lt: 100}", high), [""; 0]);
    for (kind, condition, grade, expected) in [
        ("event_count", "condition: {gte: 3}", high, "so that `grade` sees no higher count"),
        ("temporal", "", high, "`temporal` has no count"),
        ("temporal_ordered", "", high, "`temporal_ordered` has no count"),
        ("event_count", "condition: {lt: 9}", "high", "`grade` of a correlation is a list of"),
        (
            "event_count",
            "condition: {lt: 9}",
            "[{when: s, level: high}]",
            "`grade` of a correlation is a list of",
        ),
        (
            "event_count",
            "condition: {lt: 9}",
            "[{when: {gte: 5}, level: hihg}]",
            "`grade` of a correlation is a list of",
        ),
        ("event_count", "condition: {lt: 9}", "[{when: {gte: 0}, level: high}]", "this always holds"),
    ] {
        let found = graded(kind, condition, grade);
        let line = if condition.is_empty() { 13 } else { 14 };
        let start = format!("dir/test.yml:{line}: error: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&start) && found[0].contains(expected),
            "{kind}\n{found:#?}"
        );
    }
}

#[test]
fn a_chain_groups_by_what_the_inner_rule_groups_by() {
    let inner = "title: i\nname: i\ncorrelation: {type: event_count, rules: [base], group-by: [actor.name], timespan: 1m, condition: {gte: 3}}\n---\n";
    let outer = |by: &str| {
        let body = format!(
            "type: event_count\nrules:\n  - i\ngroup-by: [{by}]\ntimespan: 1h\ncondition: {{gte: 2}}"
        );
        problems(&format!("{inner}{}", correlation(&body)), false)
    };
    assert_eq!(outer("actor.name"), [""; 0]);
    let reason = "`actor.ip` is not among the group-by fields of the correlation `i`";
    assert_eq!(outer("actor.ip"), [format!("dir/test.yml:15: error: {reason}")]);
}

#[test]
fn conditions_over_rules_and_chains() {
    let second = "title: b\nname: fam/b\nlogsource: {product: kubernetes}\ndetection: {s: {verb: get}, condition: s}\n---\n";
    let yaml = format!(
        "{second}{}",
        correlation(
            "type: temporal\nrules: [fam/b, base]\ntimespan: 1m\ncondition: base and not (fam/b or 1 of them)"
        )
    );
    let rules = load(&yaml, Options::default());
    assert_eq!(rules.problems, []);
    let either =
        Presence::Any(vec![Presence::Rule(0), Presence::Any(vec![Presence::Rule(0), Presence::Rule(1)])]);
    let expected = Presence::All(vec![Presence::Rule(1), Presence::Not(Box::new(either))]);
    assert_eq!(rules.correlations[0].presence, Some(expected));

    let outer =
        "title: o\nname: o\ncorrelation: {type: temporal_ordered, rules: [c, base], timespan: 1m}\n---\n";
    let chain = format!(
        "{outer}{}",
        correlation("type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: 3}")
    );
    let rules = load(&chain, Options::default());
    assert_eq!(rules.problems, []);
    let names: Vec<_> = rules.correlations.iter().map(|c| (c.about.name.as_str(), c.rules.clone())).collect();
    assert_eq!(
        names,
        [("c", vec![Referred::Detector(0)]), ("o", vec![Referred::Correlation(0), Referred::Detector(0)])]
    );
    let other = load(&chain.replace("gte: 3", "gte: 4"), Options::default());
    assert_ne!(
        rules.correlations[1].about.logic, other.correlations[1].about.logic,
        "logic includes what it refers to"
    );
}

#[test]
fn correlations_of_skipped_and_silent_rules() {
    let body = "type: event_count\nrules: [base]\ntimespan: 1m\ncondition: {gte: 3}";
    let skipped =
        load(&correlation(body).replace("{product: kubernetes}", "{product: linux}"), Options::default());
    assert_eq!((skipped.skipped.len(), skipped.correlations.len(), skipped.problems.len()), (2, 0, 0));
    let silent =
        load(&correlation(body).replace("verb: create", "verb|expand: '%absent%'"), Options::default());
    assert_eq!(silent.correlations[0].silent, ["absent"]);
}

#[test]
fn exceptions() {
    let mut tests = Tests::default();
    let mut compile = |when: &str| exception(&yaml_serde::from_str(when).unwrap(), &mut tests, &settings());
    let dana = compile("{user.username|startswith: dan, verb: [create, update]}").unwrap();
    let either = compile("- {verb: get}\n- {actor.groups: devs}").unwrap();
    for (when, expected) in [
        ("{actor.nmae: x}", "did you mean `actor.name`?"),
        ("{verb|expand: '%absent%'}", "the list `absent` is not configured"),
        ("{verb|cidr: x}", "`verb|cidr`: `x` is neither"),
        ("[a, b]", "`when` is a map"),
        ("{}", "an empty map"),
    ] {
        let error = compile(when).unwrap_err();
        assert!(error.contains(expected), "{when}: {error}");
    }
    with_event(POD, Stream::Audit, |event| {
        let mut memo = Memo::default();
        assert_eq!(tests.eval(&dana, event, &mut memo), True);
        assert_eq!(tests.eval(&either, event, &mut memo), True);
    });
}

#[test]
fn equal_tests_are_one() {
    let rules = load(
        &format!(
            "{}---\n{}",
            rule("s: {verb: get, stage: x}\ncondition: s"),
            rule("t: {verb: get}\nu: {verb: '1'}\nv: {verb: 1}\ncondition: 1 of them")
        ),
        Options::default(),
    );
    assert_eq!(rules.tests.len(), 4);
}
