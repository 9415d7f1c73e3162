use super::*;
use crate::event::{Event, Stream};
use crate::program::Memo;
use crate::scan::{Doc, Marks};
use crate::value::Tri::{self, False, True, Unknown};

mod explaining;
mod loading;

fn settings() -> Settings {
    let list = |items: &[&str]| items.iter().map(ToString::to_string).collect();
    let lists = [
        ("gitops", list(&["argocd", "flux-*"])),
        ("nets", list(&["10.0.0.0/8", "fd00::/8"])),
        ("none", list(&[])),
    ];
    let lists = lists.into_iter().map(|(name, items)| (name.to_owned(), items)).collect();
    Settings::new(None, lists).unwrap()
}

/// Loads one file; `sigma/test` is its name.
fn load(yaml: &str, options: Options) -> Rules {
    let settings = settings();
    let mut loader = Loader::new(&settings, options);
    loader.add("dir/test.yml", yaml);
    loader.finish()
}

fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}

/// A rule with this `detection` map.
fn rule(detection: &str) -> String {
    format!(
        "title: t\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n{}",
        indented(detection)
    )
}

fn with_event<T>(json: &str, stream: Stream, work: impl FnOnce(&Event<'_>) -> T) -> T {
    let settings = settings();
    let mut marks = Marks::new();
    marks.mark(json.as_bytes());
    let mut event = Event::skim(Doc::new(json.as_bytes(), &marks).root().unwrap(), &settings);
    event.stream = stream;
    work(&event)
}

/// The result of a rule's condition.
fn judge(yaml: &str, json: &str, stream: Stream) -> Tri {
    let rules = load(yaml, Options::default());
    let problems: Vec<_> = rules.problems.iter().filter(|p| p.severity == Severity::Error).collect();
    assert!(problems.is_empty(), "{yaml}\n{problems:?}");
    with_event(json, stream, |event| {
        rules.tests.eval(&rules.detectors[0].condition, event, &mut Memo::default())
    })
}

/// One selection against one event.
fn check(selection: &str, json: &str, expected: Tri) {
    let yaml = rule(&format!("s:\n{}condition: s", indented(selection)));
    assert_eq!(judge(&yaml, json, Stream::Audit), expected, "{selection}\n{json}");
}

pub(super) const POD: &str = r#"{"kind":"Event","level":"Request","auditID":"1","verb":"create","stage":"ResponseComplete",
 "user":{"username":"Dana","groups":["devs","system:authenticated"]},"sourceIPs":["203.0.113.9","10.1.2.3"],
 "userAgent":"kubectl/v1.30","objectRef":{"resource":"pods","namespace":"Shop","apiGroup":""},"responseStatus":{"code":201},
 "requestReceivedTimestamp":"2026-03-01T22:07:00.000001Z",
 "annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},
 "requestObject":{"metadata":{"labels":{"app":"x","app.kubernetes.io/name":"Web"},"none":null},
  "spec":{"hostPID":true,"n":"17","f":1.5,"containers":[{"name":"a","image":"reg/x:1","ports":[80,443]},{"name":"b","args":["--foo","/bar"]}]}}}"#;

#[test]
fn text_is_compared_without_regard_to_case() {
    check("verb: CREATE", POD, True);
    check("verb: create", &POD.replace("\"create\"", "\"CReate\""), True);
    check("user.username: dana", POD, True);
    check("user.username|cased: dana", POD, False);
    check("user.username|cased: Dana", POD, True);
    check("user.username: DÄNA", &POD.replace("Dana", "däna"), True);
    check("actor.name: dana", POD, False);
    check("actor.name: Dana", POD, True);
    check("verb: [get, list]", POD, False);
    check("verb: [get, create]", POD, True);
    check("verb: [get, list, watch, patch, update, Create]", POD, True);
}

#[test]
fn wildcards() {
    for (pattern, expected) in [
        ("'kubectl/*'", True),
        ("'*/V1.30'", True),
        ("'*ctl/v*'", True),
        ("'kube*/v?.30'", True),
        ("'kubectl/v1.3?'", True),
        ("'kubectl/v1.30?'", False),
        ("'*'", True),
        (r"'kubectl\*'", False),
        (r"'kubectl/v1.30\*'", False),
    ] {
        check(&format!("userAgent: {pattern}"), POD, expected);
    }
    check(r"userAgent: '\*\?\\x'", r#"{"userAgent":"*?\\X"}"#, True);
    check(r"userAgent: 'C:\Windows\*'", r#"{"userAgent":"c:\\windows\\system"}"#, False);
    check(r"userAgent: 'C:\Windows\\*'", r#"{"userAgent":"c:\\windows\\system"}"#, True);
}

#[test]
fn parts_of_text() {
    check("userAgent|contains: CTL", POD, True);
    check("userAgent|startswith: [curl, KUBE]", POD, True);
    check("userAgent|endswith: '.30'", POD, True);
    check("userAgent|contains|all: [kube, v1]", POD, True);
    check("userAgent|contains|all: [kube, v2]", POD, False);
    check("userAgent|contains: [a, b9, c9, d9, e9, V1.]", POD, True);
    check("userAgent|contains: [a9, b9, c9, d9, e9, f9]", POD, False);
    check("userAgent|contains: 'k?be'", POD, True);
    check("userAgent|contains|cased: KUBE", POD, False);
    check("user.groups|contains|all: [dev, authent]", POD, True);
    check("responseStatus.code|startswith: 20", POD, True);
}

#[test]
fn what_is_there_and_what_is_not() {
    check("requestObject.spec.hostPID|exists: true", POD, True);
    check("requestObject.spec.hostIPC|exists: true", POD, False);
    check("requestObject.spec.hostIPC|exists: false", POD, True);
    check("requestObject.metadata.labels|exists: true", POD, True);
    check("requestObject.metadata.labels: '*'", POD, True);
    check("requestObject.metadata.none|exists: true", POD, False);
    check("responseObject.x|exists: true", POD, Unknown);
    check("responseObject.x|exists: false", POD, Unknown);
    check("requestObject.metadata.none: null", POD, True);
    check("requestObject.metadata.nothing: null", POD, True);
    check("requestObject.spec.n: null", POD, False);
    check("annotations.authorization.k8s.io/reason: ''", POD, True);
    check("annotations.authorization.k8s.io/absent: ''", POD, False);
    check("verb: ''", POD, False);
    check("impersonatedUser.username: null", POD, True);
}

#[test]
fn numbers_and_truth_values() {
    check("responseStatus.code: 201", POD, True);
    check("responseStatus.code: '201'", POD, True);
    check("responseStatus.code: '2*'", POD, True);
    check("requestObject.spec.n: 17", POD, True);
    check("requestObject.spec.f: 1.5", POD, True);
    check("requestObject.spec.hostPID: true", POD, True);
    check("requestObject.spec.hostPID: 'True'", POD, True);
    check("requestObject.spec.hostPID: false", POD, False);
    check("requestObject.spec.n|gt: 16", POD, True);
    check("requestObject.spec.n|gte: 17", POD, True);
    check("requestObject.spec.n|lt: '17'", POD, False);
    check("requestObject.spec.n|lte: 17.0", POD, True);
    check("requestObject.spec.containers.ports|gt: 400", POD, True);
    check("userAgent|gt: 1", POD, False);
    check("requestObject.spec.containers.ports: [22, 443]", POD, True);
}

#[test]
fn regular_expressions_are_cased_and_unanchored() {
    check(r"userAgent|re: 'ctl/v\d'", POD, True);
    check(r"userAgent|re: 'CTL'", POD, False);
    check(r"userAgent|re|i: 'CTL'", POD, True);
    check(r"userAgent|re: '^ctl'", POD, False);
    check(r"user.groups|re: '^system:'", POD, True);
    let lines = r#"{"userAgent":"a\nb"}"#;
    check("userAgent|re: '^b'", lines, False);
    check("userAgent|re|m: '^b'", lines, True);
    check("userAgent|re: 'a.b'", lines, False);
    check("userAgent|re|s: 'a.b'", lines, True);
}

#[test]
fn networks() {
    check("sourceIPs|cidr: 10.0.0.0/8", POD, True);
    check("sourceIPs|cidr: [192.168.0.0/16, 172.16.0.0/12]", POD, False);
    check("sourceIPs|cidr: 203.0.113.9", POD, True);
    check("sourceIPs|cidr: '10.0.0.0/8'", r#"{"sourceIPs":["::ffff:10.1.1.1"]}"#, True);
    check("sourceIPs|cidr: '2001:db8::/32'", r#"{"sourceIPs":["2001:DB8::1"]}"#, True);
    check("userAgent|cidr: 10.0.0.0/8", POD, False);
}

#[test]
fn encodings() {
    // "secret pods": in Base64, at three offsets, and as UTF-16.
    check("userAgent|base64: secret", r#"{"userAgent":"c2VjcmV0"}"#, True);
    check("userAgent|base64|contains: secret", r#"{"userAgent":"x c2VjcmV0 y"}"#, True);
    check("userAgent|base64: secret", r#"{"userAgent":"C2VJCMV0"}"#, False);
    for encoded in ["c2VjcmV0IHBvZHM=", "eHNlY3JldCBwb2Rz", "eHhzZWNyZXQgcG9kcw=="] {
        check("userAgent|base64offset|contains: secret", &format!(r#"{{"userAgent":"{encoded}"}}"#), True);
    }
    check("userAgent|wide|base64: ab", r#"{"userAgent":"YQBiAA=="}"#, True);
    check("userAgent|utf16le|base64: ab", r#"{"userAgent":"YQBiAA=="}"#, True);
    check("userAgent|utf16be|base64: ab", r#"{"userAgent":"AGEAYg=="}"#, True);
    check("userAgent|utf16|base64: ab", r#"{"userAgent":"//5hAGIA"}"#, True);
    check("userAgent|wide|contains: ab", r#"{"userAgent":"xa\u0000b\u0000"}"#, True);
}

#[test]
fn dashes() {
    let path = "requestObject.spec.containers.args";
    for (value, expected) in [("'-foo'", False), ("'--foo'", True), ("'-bar'", True), ("'\\-bar'", False)] {
        check(&format!("{path}|windash: {value}"), POD, expected);
    }
    check("userAgent|windash|contains: ' -a -b'", "{\"userAgent\":\"x –a /b\"}", True);
    check("userAgent|windash|contains: 'a-b'", "{\"userAgent\":\"a/b\"}", False);
}

#[test]
fn placeholders() {
    check("user.username|expand: '%gitops%'", r#"{"user":{"username":"argocd"}}"#, True);
    check("user.username|expand: '%gitops%'", r#"{"user":{"username":"flux-system"}}"#, True);
    check("user.username|expand: 'sa:%gitops%:x'", r#"{"user":{"username":"sa:argocd:x"}}"#, True);
    check("sourceIPs|expand|cidr: '%nets%'", POD, True);
    check(
        "objectRef.namespace|expand: '%platform_namespaces%'",
        r#"{"objectRef":{"namespace":"kube-system"}}"#,
        True,
    );
    check("user.username: '%gitops%'", r#"{"user":{"username":"argocd"}}"#, False);
}

#[test]
fn a_rule_without_its_list_is_silent() {
    for list in ["threat_intel", "none"] {
        let yaml =
            rule(&format!("s: {{verb|expand: '%{list}%'}}\nt: {{verb: create}}\ncondition: t or not s"));
        let rules = load(&yaml, Options::default());
        assert_eq!(rules.problems, []);
        assert_eq!(rules.detectors[0].silent, [list]);
    }
}

#[test]
fn other_fields() {
    let event = r#"{"user":{"username":"Bob"},"objectRef":{"name":"bob","namespace":"team-bob"},"sourceIPs":["a","b"],"tags":["B"]}"#;
    check("user.username|fieldref: objectRef.name", event, True);
    check("user.username|fieldref|cased: objectRef.name", event, False);
    check("user.username|fieldref: objectRef.namespace", event, False);
    check("objectRef.namespace|fieldref|endswith: user.username", event, True);
    check("objectRef.namespace|fieldref|contains: objectRef.name", event, True);
    check("objectRef.namespace|fieldref|startswith: objectRef.name", event, False);
    check("sourceIPs|fieldref: tags", event, True);
    check("user.username|fieldref: objectRef.uid", event, False);
    check("user.username|fieldref|neq: objectRef.name", event, False);
    check("user.username|fieldref: requestObject.spec.x", event, Unknown);
}

#[test]
fn inequality_is_the_negation_of_equality() {
    check("verb|neq: create", POD, False);
    check("verb|neq: get", POD, True);
    check("verb|neq: [get, create]", POD, False);
    check("user.groups|neq: devs", POD, False);
    check("objectRef.name|neq: x", POD, True);
    check("responseObject.x|neq: x", POD, Unknown);
}

#[test]
fn modifiers_join() {
    check("userAgent|contains|neq: curl", POD, True);
    check("userAgent|contains|neq: [curl, kube]", POD, False);
    check("userAgent|startswith|neq: kube", POD, False);
    check("userAgent|re|neq: '^kube'", POD, False);
    check("sourceIPs|cidr|neq: 10.0.0.0/8", POD, False);
    check("userAgent|endswith|cased: V1.30", POD, False);
    check("userAgent|startswith|cased: kubectl", POD, True);
    check("userAgent|contains|windash: ' -a'", r#"{"userAgent":"x /a"}"#, True);
    check("userAgent|startswith|windash: '-a'", r#"{"userAgent":"/abc"}"#, True);
    check("userAgent|endswith|windash: ' -a'", r#"{"userAgent":"x –a"}"#, True);
    check("userAgent|re|i|m|s: '^B.C$'", r#"{"userAgent":"a\nb\nc"}"#, True);
    check("responseStatus.code|re: '^2\\d\\d$'", POD, True);
    check("user.groups|re|all: ['^dev', 'authenticated$']", POD, True);
    check("user.groups|re|all: ['^dev', '^ops']", POD, False);
    check("sourceIPs|cidr|all: [10.0.0.0/8, 203.0.113.0/24]", POD, True);
    check("sourceIPs|cidr|all: [10.0.0.0/8, 192.0.2.0/24]", POD, False);
    check("user.username|contains|expand: '%gitops%'", r#"{"user":{"username":"x-argocd-y"}}"#, True);
    check("user.username|startswith|expand: '%gitops%'", r#"{"user":{"username":"x-argocd-y"}}"#, False);
    check("userAgent|wide|base64offset|contains: ab", r#"{"userAgent":"eGEAYgB4"}"#, True);
    check("userAgent|utf16be|base64offset|contains: ab", r#"{"userAgent":"eABhAGI="}"#, True);
    check("requestObject.metadata.none|exists: false", POD, True);
}

#[test]
fn null_and_nothing_among_other_values() {
    check("requestObject.metadata.none: [null, x]", POD, True);
    check("requestObject.metadata.nothing: [x, null]", POD, True);
    check("requestObject.spec.n: [null, '17']", POD, True);
    check("requestObject.spec.n: [null, '18']", POD, False);
    check("requestObject.spec.n|neq: null", POD, True);
    check("requestObject.metadata.none|neq: null", POD, False);
    check("annotations.authorization.k8s.io/reason: ['', x]", POD, True);
    check("annotations.authorization.k8s.io/reason: null", POD, False);
    check("annotations.authorization.k8s.io/reason: '*'", POD, True);
    check("annotations.authorization.k8s.io/reason: '?*'", POD, False);
    check("annotations.authorization.k8s.io/reason|exists: true", POD, True);
}

#[test]
fn parts_of_times_are_in_utc() {
    let time = "requestReceivedTimestamp";
    for (item, expected) in [
        ("minute: 7", True),
        ("hour: 22", True),
        ("hour|gte: 20", True),
        ("hour|lt: 6", False),
        ("day: 1", True),
        ("week: 9", True),
        ("month: [2, 3]", True),
        ("year: 2026", True),
    ] {
        check(&format!("{time}|{item}"), POD, expected);
    }
    check(&format!("{time}|hour: 21"), r#"{"requestReceivedTimestamp":"2026-03-01T22:07:00+01:00"}"#, True);
    check("verb|hour: 1", POD, False);
}

#[test]
fn keywords_look_everywhere() {
    let all = |selection: &str, expected| check(selection, POD, expected);
    all("reg/X", True);
    all("- nothing\n- '--foo'", True);
    all("- nothing", False);
    all("'|all': [dana, web]", True);
    all("'|all': [dana, nobody]", False);
    all("'|re': '^kubectl'", True);
    all("'|cased': dana", False);
    all("443", True);
    all("'d?na'", True);
    check("nothing", &POD[..300], Unknown);
    check("dana", &POD[..300], True);
}

#[test]
fn lists_match_by_any_member() {
    check("user.groups: devs", POD, True);
    check("user.groups: [ops, DEVS]", POD, True);
    check("actor.groups: [ops, devs]", POD, True);
    check("actor.groups|all: [devs, 'system:authenticated']", POD, True);
    check("actor.groups|all: [devs, ops]", POD, False);
    check("userAgent|base64offset|contains|all: [sec, pods]", r#"{"userAgent":"c2VjcmV0IHBvZHM="}"#, True);
    check("userAgent|base64offset|contains|all: [sec, nodes]", r#"{"userAgent":"c2VjcmV0IHBvZHM="}"#, False);
    check("requestObject.spec.containers.image: reg/x:1", POD, True);
    check("requestObject.spec.containers.ports: 443", POD, True);
    check("requestObject.spec.containers.args: '/bar'", POD, True);
    check("user.groups: ops", &POD.replace("\"system:authenticated\"]", "\"x\" ,"), Unknown);
}

#[test]
fn maps_and_lists_of_maps() {
    check("{verb: create, objectRef.resource: pods}", POD, True);
    check("{verb: create, objectRef.resource: secrets}", POD, False);
    check("- {verb: get}\n- {objectRef.resource: pods}", POD, True);
    check("- {verb: get}\n- dana", POD, True);
    check("{verb: create, responseObject.x: 1}", POD, Unknown);
    check("{verb: get, responseObject.x: 1}", POD, False);
}

#[test]
fn paths() {
    check("requestObject.metadata.labels.app.kubernetes.io/name: web", POD, True);
    check("requestObject.metadata.labels.app: x", POD, True);
    check("annotations.authorization.k8s.io/decision: allow", POD, True);
    check("annotations.authorization_k8s_io/decision: allow", POD, True);
    check("ANNOTATIONS.Authorization.K8s.io/Decision: allow", POD, True);
    check("RequestObject.Spec.HostPid: true", POD, True);
    check("objectRef.name: x", r#"{"objectRef":{"NAME":"y","name":"x"}}"#, True);
    check("objectRef.name: x", r#"{"objectRef":{"n\u0061me":"x"}}"#, True);
    check("objectRef.a.b.d: 2", r#"{"objectRef":{"a.b":{"c":1},"a":{"b":{"d":2}}}}"#, True);
    check("objectRef.name: x", r#"{"objectRef":{"name":"y","name":"x"}}"#, True);
    check("objectRef.a.x: 1", r#"{"objectRef":{"a":[[{"x":1}],{"x":2}]}}"#, True);
}

#[test]
fn positions_in_arrays_belong_to_version_3() {
    let yaml =
        |path: &str| format!("{}sigma-version: 3\n", rule(&format!("s: {{'{path}': '*'}}\ncondition: s\n")));
    for (path, expected) in [
        ("requestObject.spec.containers[0].image", True),
        ("requestObject.spec.containers[1].image", False),
        ("requestObject.spec.containers[-1].args[1]", True),
        ("requestObject.spec.containers[2].name", False),
        ("requestObject.spec.containers[-3].name", False),
    ] {
        assert_eq!(judge(&yaml(path), POD, Stream::Audit), expected, "{path}");
    }
    check("'requestObject.spec.containers[0].image': '*'", POD, False);
    check("'objectRef.a[0]': x", r#"{"objectRef":{"a[0]":"x"}}"#, True);
    assert_eq!(judge(&yaml(r"objectRef.a\[0\]"), r#"{"objectRef":{"a[0]":"x"}}"#, Stream::Audit), True);
}

#[test]
fn bodies_that_cannot_be_seen() {
    let metadata = r#"{"level":"Metadata","verb":"create"}"#;
    check("requestObject.a: 1", metadata, Unknown);
    check("requestObject.a: null", metadata, Unknown);
    check("user.username: x", metadata, False);
    let request = r#"{"level":"Request","verb":"create"}"#;
    check("requestObject.a: 1", request, False);
    check("responseObject.a: 1", request, Unknown);
    check("responseObject.a: 1", r#"{"level":"RequestResponse","verb":"create"}"#, False);
    check("requestObject.a: 1", r#"{"level":"Metadata","requestObject":{"b":1}}"#, False);
    check("requestObject.a: 1", r#"{"verb":"create"}"#, Unknown);
    let truncated = r#"{"level":"Request","annotations":{"audit.k8s.io/truncated":"true"}}"#;
    check("requestObject.a: 1", truncated, Unknown);
    check("verb: x", truncated, False);
}

#[test]
fn falco_alerts() {
    let alert = r#"{"rule":"Terminal shell","priority":"Notice","source":"syscall","output":"x","time":"2026-03-01T10:00:00Z",
        "tags":["shell","container"],"output_fields":{"proc.name":"bash","proc.tty":34816,"container.id":null,
        "k8s.pod.labels":{"app.kubernetes.io/name":"web"}}}"#;
    for (selection, expected) in [
        ("output_fields.proc.name: BASH", True),
        ("output_fields.proc_name: bash", True),
        ("output_fields.proc.tty|gt: 0", True),
        ("output_fields.container.id: null", True),
        ("output_fields.k8s.pod.labels.app.kubernetes.io/name: web", True),
        ("{rule: terminal shell, tags: container}", True),
        ("{rule|contains: terminal, priority: [Warning, Error]}", False),
        ("falco.rule: Terminal shell", True),
        ("verb: null", True),
    ] {
        let yaml = rule(&format!(
            "s: {}\ncondition: s",
            if selection.starts_with('{') { selection.into() } else { format!("{{{selection}}}") }
        ));
        let yaml = yaml.replace("product: kubernetes, service: audit", "product: falco");
        assert_eq!(judge(&yaml, alert, Stream::Falco), expected, "{selection}");
    }
}

#[test]
fn damaged_records() {
    check("objectRef.name: x", r#"{"verb":"create","objectRef":{"res"#, Unknown);
    check("userAgent: x", r#"{"verb":"create","objectRef":{"res"#, Unknown);
    check("verb: create", r#"{"verb":"create","objectRef":{"res"#, True);
    check("verb: get", r#"{"verb":"create","objectRef":{"res"#, False);
    check("objectRef.name: my", r#"{"verb":"create","objectRef":{"name":"my-po"#, Unknown);
    check("objectRef.name: x", r#"{"verb":"create","objectRef":{"resource" "pods"}}"#, Unknown);
    check("user.groups: devs", r#"{"user":{"groups":["devs", 7"#, True);
    check("user.groups: ops", r#"{"user":{"groups":["devs","op"#, Unknown);
}

#[test]
fn conditions() {
    let selections = "a: {verb: create}\nb: {verb: get}\nc: {responseObject.x: 1}\nfilter_x: {verb: get}\nfilter_y: {objectRef.resource: pods}\n_h: {verb: create}\n";
    for (condition, expected) in [
        ("a", True),
        ("not a", False),
        ("a and not b", True),
        ("a and b or a", True),
        ("b and (b or a)", False),
        ("a and c", Unknown),
        ("b and c", False),
        ("a or c", True),
        ("not c", Unknown),
        ("not (b or c)", Unknown),
        ("1 of filter_*", True),
        ("all of filter_*", False),
        ("any of filter_*", True),
        ("not 1 of filter_*", False),
        ("a and not all of filter_*", True),
        ("1 of them", True),
        ("all of them", False),
        ("not all of them", True),
        ("1 of *", True),
        ("2 of filter_*", False),
        ("1 of filter_* and 1 of _*", True),
        ("((a)) and ((not (b or (b and (a or c)))))", True),
        ("not (a and not (b or not (c or a)))", False),
        ("a or b and b", True),
        ("not b and a", True),
        ("2 of them", True),
        ("3 of them", Unknown),
        ("4 of them", False),
        ("all of _*", True),
        ("a and not 1 of filter_x", True),
        ("[b, a]", True),
        ("[b, b and c]", False),
    ] {
        let yaml = rule(&format!("{selections}condition: {condition}"));
        assert_eq!(judge(&yaml, POD, Stream::Audit), expected, "{condition}");
    }
}
