//! The engine against plainer versions of itself, on the events of all detectors' tests: with and without the index, in one
//! piece and in many, itself, in lists and in carriers.
#![allow(clippy::unwrap_used)] // a test may fail

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use detectors::alert::Alert;
use detectors::engine::{Emitted, Engine, Extent, Origin, Worker};
use detectors::event::frame::{Frame, Framer};
use detectors::redact::paths::Hidden;
use detectors::rules::{self, Tuning};
use detectors::settings::Settings;
use detectors::tally::{Format, Tally};
use detectors::testing;
use proptest::prelude::*;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let lists =
        [("known_cidrs", "10.0.0.0/8"), ("threat_intel", "198.51.100.7"), ("trusted_proxies", "10.9.0.1")];
    let lists = lists.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).into();
    let settings = Settings::new(Some("test".to_owned()), lists).unwrap();
    rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap()
});

/// The events of all tests of the catalogue.
static EVENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let whole = rules::read_whole(&rules::catalogue(), &Settings::default(), true);
    let abouts = whole.detectors.iter().map(|rule| &rule.about);
    let abouts = abouts.chain(whole.correlations.iter().map(|rule| &rule.about));
    let tests = abouts.filter_map(|about| testing::read(about.tests.as_ref()?).ok());
    tests.flatten().flat_map(|test| test.events).collect()
});

/// What judging said, without where it was said: alerts by uuid, and steps.
#[derive(Debug, PartialEq, Eq, Default)]
struct Verdict {
    alerts: BTreeMap<String, usize>,
    steps: usize,
    blind: BTreeMap<u32, u64>,
}

fn verdict(worker: &mut Worker<'_>, emitted: Vec<Emitted>) -> Verdict {
    let mut verdict = Verdict { blind: worker.take_tally().blind, ..Verdict::default() };
    for one in emitted {
        match one {
            Emitted::Alert(found) => {
                let alert = found.alert;
                *verdict
                    .alerts
                    .entry(format!("{} {} {}", alert.detector, alert.level, alert.uuid))
                    .or_default() += 1;
            }
            Emitted::Step(_) => verdict.steps += 1,
        }
    }
    verdict
}

fn judge(mut worker: Worker<'_>, lines: &str, cuts: &[usize]) -> Verdict {
    let mut emitted = Vec::new();
    let mut start = 0;
    for cut in cuts.iter().copied().chain([lines.len()]) {
        let cut = lines[..cut].rfind('\n').map_or(0, |newline| newline + 1).max(start);
        assert_eq!(
            worker.lines(
                Origin { input: "x", offset: start as u64 },
                &lines.as_bytes()[start..cut],
                &mut emitted
            ),
            None
        );
        start = cut;
    }
    verdict(&mut worker, emitted)
}

#[test]
fn the_index_loses_and_invents_nothing() {
    // Three times over, so that classes are seen for the first, the second and the third time.
    let lines: String = (0..3).flat_map(|_| EVENTS.iter()).flat_map(|event| [event.as_str(), "\n"]).collect();
    let indexed = judge(ENGINE.worker(), &lines, &[]);
    let plain = judge(ENGINE.worker().unindexed(), &lines, &[]);
    assert!(indexed.alerts.len() > 500);
    assert_eq!(indexed, plain);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Events spliced from two others: every combination of verb, target, user, code and body must be routed right.
    #[test]
    fn the_index_agrees_on_mixtures(picks in prop::collection::vec((0..10_000_usize, 0..10_000_usize, any::<u16>()), 200)) {
        let lines: String = picks.iter().map(|(a, b, mask)| mixture(*a, *b, *mask) + "\n").collect();
        prop_assert_eq!(judge(ENGINE.worker(), &lines, &[]), judge(ENGINE.worker().unindexed(), &lines, &[]));
    }

    #[test]
    fn cuts_do_not_matter(mut cuts in prop::collection::vec(0..200_000_usize, 0..20)) {
        let lines: String = EVENTS.iter().take(200).flat_map(|event| [event.as_str(), "\n"]).collect();
        for cut in &mut cuts {
            *cut %= lines.len();
        }
        cuts.sort_unstable();
        let lines: String = lines.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        prop_assert_eq!(judge(ENGINE.worker(), &lines, &cuts), judge(ENGINE.worker(), &lines, &[]));
    }

    /// No bytes whatever stop the worker, and what stands before and after them is judged.
    #[test]
    fn garbage_hurts_nobody_else(garbage in prop::collection::vec(any::<u8>(), 0..400)) {
        let event = &EVENTS[0];
        let mut bytes = event.clone().into_bytes();
        bytes.push(b'\n');
        bytes.extend(garbage.iter().filter(|b| !matches!(b, b'\n' | b'{' | b'[')));
        bytes.push(b'\n');
        bytes.extend_from_slice(event.as_bytes());
        let mut worker = ENGINE.worker();
        let mut emitted = Vec::new();
        prop_assert_eq!(worker.lines(Origin { input: "x", offset: 0 }, &bytes, &mut emitted), None);
        prop_assert_eq!(worker.take_tally().formats.values().sum::<u64>(), 2);
    }

    /// Events cut short or with bytes changed are judged without a panic.
    #[test]
    fn damaged_events_are_survived(pick in 0..10_000_usize, cut in 0..3000_usize, at in 0..3000_usize, byte in any::<u8>()) {
        let mut bytes = EVENTS[pick % EVENTS.len()].clone().into_bytes();
        let end = bytes.len();
        bytes[at % end] = byte;
        bytes.truncate(cut % end + 1);
        let mut emitted = Vec::new();
        let frame = Frame { offset: 0, bytes: &bytes, extent: Extent::Fragment, listed: false, joined: false };
        ENGINE.worker().record("x", frame, &mut emitted);
    }
}

/// Rules on raw paths: each of those that routing keys decide, asked in every way.
static RAW_ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let paths = [
        ("verb", "get"),
        ("stage", "ResponseComplete"),
        ("level", "Metadata"),
        ("responseStatus.code", "403"),
        ("responseStatus.message", "zz"),
        ("objectRef.apiGroup", "apps"),
        ("objectRef.resource", "secrets"),
        ("objectRef.subresource", "exec"),
        ("objectRef.namespace", "zz"),
        ("objectRef.name", "zz"),
        ("user.username", "system:anonymous"),
        ("user.groups", "system:masters"),
        ("user.extra.zz", "zz"),
        ("impersonatedUser.username", "zz"),
        ("userAgent", "zz"),
        ("sourceIPs", "10.0.0.1"),
        ("requestURI", "/zz"),
        ("annotations.zz", "zz"),
        ("annotations.authorization.k8s.io/decision", "allow"),
    ];
    let mut rules = String::new();
    for (at, (path, value)) in paths.iter().enumerate() {
        let forms = [
            format!("{path}|exists: true"),
            format!("{path}|exists: false"),
            format!("{path}: null"),
            format!("{path}: '{value}'"),
            format!("{path}|neq: '{value}'"),
            format!("{path}: '*'"),
        ];
        for (form, selection) in forms.iter().enumerate() {
            let _ = writeln!(
                rules,
                "title: r\nname: raw/r{at}-{form}\nlogsource: {{product: kubernetes}}\ndetection:\n  s: {{{selection}}}\n  \
                 condition: {}s\n---",
                if form % 2 == 0 { "" } else { "not " }
            );
        }
    }
    let yaml = rules.trim_end_matches("---\n").to_owned();
    let settings = Settings::default();
    let rules = rules::read_whole(
        &[rules::File { name: "raw.yml".to_owned(), yaml, folder: None }],
        &settings,
        false,
    );
    rules::assemble(rules, settings, &Tuning::default()).unwrap()
});

/// An event as something on its way may have left it: keys in another case, twice, or of other values, bytes that do not
/// belong there, its end cut off.
fn bent(event: &str, seed: u32) -> (String, Extent) {
    let at = |salt: u32| (seed.wrapping_mul(2_654_435_761).rotate_left(salt) as usize) % event.len();
    let put = |find: &str, by: &str| event.replacen(find, by, 1);
    let whole = match seed % 20 {
        0 => put("\"resource\":", "\"rEsource\":"),
        1 => put("\"namespace\":", "\"Namespace\":"),
        2 => put("\"namespace\":", "\"namespace\":\"zz\",\"Namespace\":"),
        3 => put("\"name\":", "\"name\":\"zz\",\"name\":"),
        4 => put("\"code\":", "\"reason\":\"NotAPlainStatus\",\"Code\":"),
        5 => put("\"code\":", "\"code\":403,\"message\":\"long enough to be no plain status\",\"code\":"),
        6 => put("\"annotations\":{", "\"annotations\":{\"zz\":null,"),
        7 => put("\"annotations\":{", "\"annotations\":{\"zz\":\"zz\","),
        8 => put("\"annotations\":{", "\"annotations\":{\"zz\":[],"),
        9 => put(
            "\"annotations\":{",
            "\"annotations\":{\"authorization\":{\"k8s\":{\"io/decision\":\"allow\"}},",
        ),
        10 => put("\"verb\":", "\"Verb\":"),
        11 => put("\"verb\":\"", "\"verb\":\"\t"),
        12 => put("\"userAgent\":\"", "\"userAgent\":\"\t"),
        13 => put("\"objectRef\":{", "\"objectRef\":5,\"x\":{"),
        14 => put("\"resource\":\"", "\"resource\":\"\\u0073"),
        15 => put("\"code\":", "\"\\u0063ode\":"),
        16 | 17 => {
            let mut cut = at(7).max(1);
            while !event.is_char_boundary(cut) {
                cut += 1;
            }
            return (event[..cut].to_owned(), Extent::Fragment);
        }
        _ => event.to_owned(),
    };
    (whole, Extent::Whole)
}

fn judge_records(mut worker: Worker<'_>, records: &[(String, Extent)]) -> Verdict {
    let mut emitted = Vec::new();
    for (text, extent) in records {
        let frame =
            Frame { offset: 0, bytes: text.as_bytes(), extent: *extent, listed: false, joined: false };
        worker.record("x", frame, &mut emitted);
    }
    verdict(&mut worker, emitted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever an event looks like, the index judges it as a full scan does: also when others of its kind came before.
    #[test]
    fn the_index_agrees_on_bent_events(
        picks in prop::collection::vec((0..10_000_usize, 0..10_000_usize, any::<u16>(), any::<u32>()), 24),
        order in prop::collection::vec(0..96_usize, 300)
    ) {
        // Four times each: as it is, and bent in three ways.
        let records: Vec<_> = picks
            .iter()
            .flat_map(|(a, b, mask, seed)| {
                let event = mixture(*a, *b, *mask);
                [18, *seed, seed.rotate_left(11), seed.rotate_left(21)].map(|seed| bent(&event, seed))
            })
            .collect();
        let records: Vec<_> = order.iter().map(|at| records[*at].clone()).collect();
        for engine in [&*ENGINE, &*RAW_ENGINE] {
            let (indexed, plain) = (engine.worker(), engine.worker().unindexed());
            prop_assert_eq!(judge_records(indexed, &records), judge_records(plain, &records));
        }
    }
}

/// After a list that was never closed, whole lists are what they are, not items without a meaning.
#[test]
fn a_list_in_a_torn_list_is_judged() {
    let event = &EVENTS[0];
    for list in [format!("[{event}]"), format!(r#"{{"kind":"EventList","items":[{event}]}}"#)] {
        let mut worker = ENGINE.worker();
        let (bytes, mut emitted) = (list.as_bytes(), Vec::new());
        let frame = Frame { offset: 0, bytes, extent: Extent::Whole, listed: true, joined: false };
        worker.record("x", frame, &mut emitted);
        assert_eq!(worker.take_tally().formats, [(Format::AuditList, 1)].into(), "{list}");
    }
}

/// Words without what stood between them hide nothing that the command's own scrub would not show.
#[test]
fn words_show_no_more_than_their_command() {
    let yaml = "title: w\nname: own/words\nlogsource: {product: kubernetes}\nlevel: low\nmessage: 'W {exec.words}'\n\
                detection: {s: {exec.words: curl}, condition: s}\nfields: [exec.words]\n";
    let settings = Settings::default();
    let file = rules::File { name: "own.yml".to_owned(), yaml: yaml.to_owned(), folder: None };
    let rules = rules::read_whole(&[file], &settings, false);
    let engine = rules::assemble(rules, settings, &Tuning::default()).unwrap();
    let uri = "/api/v1/namespaces/a/pods/b/exec?command=sh&command=-c&command=curl+https%3A%2F%2Fh%2Fx%3Fsig%3DZq1abcdefghij%3B+echo+token%3DZq2abcdefghij";
    let event = format!(
        r#"{{"kind":"Event","auditID":"1","level":"Metadata","stage":"ResponseComplete","requestURI":"{uri}","verb":"get","objectRef":{{"resource":"pods","subresource":"exec","namespace":"a","name":"b"}},"responseStatus":{{"code":101.0}}}}"#
    );
    let mut emitted = Vec::new();
    engine.worker().lines(Origin { input: "x", offset: 0 }, event.as_bytes(), &mut emitted);
    let [Emitted::Alert(found)] = &emitted[..] else { panic!("{emitted:?}") };
    let alert = format!("{:?}", found.alert);
    assert!(alert.contains("W sh -c curl") && !alert.contains("abcdefghij"), "{alert}");
    assert_eq!(found.alert.k8s.as_ref().unwrap().outcome, "allowed");
}

/// A buffer that is used again holds other evidence.
#[test]
fn evidence_is_that_of_its_own_record() {
    let event = EVENTS
        .iter()
        .find(|event| !judge(ENGINE.worker(), &format!("{event}\n"), &[]).alerts.is_empty())
        .unwrap();
    for joined in [false, true] {
        let (mut worker, mut buffer) = (ENGINE.worker(), format!("{event} ").into_bytes());
        let mut digests = BTreeSet::new();
        for blank in [b' ', b'\t'] {
            *buffer.last_mut().unwrap() = blank;
            let mut emitted = Vec::new();
            let frame = Frame { offset: 0, bytes: &buffer, extent: Extent::Whole, listed: false, joined };
            worker.record("x", frame, &mut emitted);
            let found = emitted
                .iter()
                .find_map(|one| if let Emitted::Alert(found) = one { Some(found) } else { None });
            digests.insert(found.unwrap().alert.evidence[0].sha256.clone());
        }
        // Alone, a record's evidence ends with its bracket; joined, all that was joined is the evidence.
        assert_eq!(digests.len(), if joined { 2 } else { 1 });
    }
}

/// What spells a routing key in its own way is no class of its own.
#[test]
fn odd_spellings_share_no_class() {
    let event = |status: &str, object: &str| {
        format!(
            r#"{{"kind":"Event","auditID":"1","stage":"ResponseComplete","verb":"get","objectRef":{{"resource":"pods",{object}}},"responseStatus":{{"metadata":{{}},"status":"Failure",{status}}}}}"#
        )
    };
    let pairs = [
        (event(r#""Code":200"#, r#""name":"a""#), event(r#""Code":403"#, r#""name":"a""#)),
        (event(r#""code":200"#, r#""nAme":"a""#), event(r#""code":200"#, r#""nAme":"zz""#)),
        (event(r#""code":200"#, r#""sUbresource":"a""#), event(r#""code":200"#, r#""sUbresource":"exec""#)),
    ];
    for (usual, other) in pairs {
        let records = [&usual, &usual, &usual, &other].map(|text| (text.clone(), Extent::Whole));
        let engine = &*RAW_ENGINE;
        assert_eq!(
            judge_records(engine.worker(), &records),
            judge_records(engine.worker().unindexed(), &records)
        );
        assert_ne!(
            judge_records(engine.worker(), &records[..3]),
            judge_records(engine.worker(), &records[1..])
        );
    }
}

/// Rules that no routing key can gate, and some that one can for a part.
const UNROUTED: &str = r"
title: keywords
name: own/keywords
logsource: {product: kubernetes}
detection: {s: [kubectl, '%2Fbin%2F', curl, cluster-admin, '?dmin', 443], condition: s}
---
title: keywords that mostly are not there
name: own/rare
logsource: {product: kubernetes}
detection: {s: [nsenter, 'sh -c', xmrig], t: {'|all': [system, masters]}, u: {verb: create}, condition: s or (t and u)}
---
title: URIs
name: own/uris
logsource: {product: kubernetes}
detection: {s: {requestURI|contains: ['%2fsh', command=, 'stdin=true&', watch=true]}, t: {requestURI: '/api/*/secrets?*'}, condition: 1 of them}
---
title: agents or annotations
name: own/agents
logsource: {product: kubernetes}
detection: {s: {userAgent|contains: [curl, python, kubectl]}, t: {annotations.authorization.k8s.io/reason|contains: admin}, condition: s or t}
---
title: times and no keyword
name: own/times
logsource: {product: kubernetes}
detection: {s: {requestURI|startswith: /apis/apps, stageTimestamp|contains: '01T10:0'}, f: [kubelet], condition: s and not f}
---
title: two of three
name: own/two
logsource: {product: kubernetes}
detection: {a: [secrets], b: {requestURI|contains: kube-system}, c: [dana, omar], condition: 2 of them}
---
title: decisions
name: own/decisions
logsource: {product: kubernetes}
detection: {s: {annotations.authorization.k8s.io/decision: forbid, requestURI|contains: api}, condition: s}
---
title: of Falco
name: own/falco
logsource: {product: falco}
detection: {s: [bash, nsenter, '/etc/shadow'], t: {output|contains: shell}, condition: s or t}
";

/// An engine of all these rules, and one of each.
static UNROUTED_ENGINES: LazyLock<Vec<Engine>> = LazyLock::new(|| {
    let engine = |yaml: &str| {
        let file = rules::File { name: "own.yml".to_owned(), yaml: yaml.to_owned(), folder: None };
        let settings = Settings::default();
        let rules = rules::read_whole(&[file], &settings, false);
        assert_eq!(rules.problems, []);
        rules::assemble(rules, settings, &Tuning::default()).unwrap()
    };
    [UNROUTED].into_iter().chain(UNROUTED.split("---\n")).map(engine).collect()
});

/// The same JSON, with some characters of its strings written in other ways: as `\uXXXX`, in the other case, as the Kelvin sign.
fn respelt(line: &str, seed: u32) -> String {
    let (mut out, mut inside, mut escaped, mut state) = (String::new(), false, false, seed | 1);
    for c in line.chars() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let chosen = if inside && !escaped && !seed.is_multiple_of(4) { state >> 24 } else { u32::MAX };
        match c {
            'k' | 'K' if chosen < 24 && seed % 4 == 1 => out.push('\u{212A}'),
            c if chosen < 4 && c.is_alphanumeric() && seed % 4 == 2 => {
                write!(out, "\\u{:04x}", u32::from(c)).unwrap();
            }
            '&' if chosen < 128 => out += "\\u0026",
            '/' if chosen < 64 => out += "\\/",
            c if chosen < 8 => out.push(c.to_ascii_uppercase()),
            c => out.push(c),
        }
        inside ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    out
}

#[test]
fn literals_gate_what_no_key_routes() {
    let lines: String = EVENTS.iter().flat_map(|event| [event.as_str(), "\n"]).collect();
    let gated = judge(UNROUTED_ENGINES[0].worker(), &lines, &[]);
    for name in ["keywords", "rare", "uris", "agents", "times", "two", "decisions", "falco"] {
        let start = format!("own/{name} ");
        assert!(gated.alerts.keys().any(|alert| alert.starts_with(&start)), "own/{name} never matches");
    }
    for engine in UNROUTED_ENGINES.iter() {
        assert_eq!(judge(engine.worker(), &lines, &[]), judge(engine.worker().unindexed(), &lines, &[]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn literals_agree_on_mixtures_however_they_are_spelt(
        picks in prop::collection::vec((0..10_000_usize, 0..10_000_usize, any::<u16>(), any::<u32>()), 200)
    ) {
        let spelt = |(a, b, mask, seed): &(usize, usize, u16, u32)| respelt(&mixture(*a, *b, *mask), *seed) + "\n";
        let lines: String = picks.iter().map(spelt).collect();
        for engine in UNROUTED_ENGINES.iter() {
            prop_assert_eq!(judge(engine.worker(), &lines, &[]), judge(engine.worker().unindexed(), &lines, &[]));
        }
    }
}

fn mixture(a: usize, b: usize, mask: u16) -> String {
    let parse = |pick: usize| -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(&EVENTS[pick % EVENTS.len()]).unwrap()
    };
    let (mut event, other) = (parse(a), parse(b));
    for (place, (key, value)) in other.into_iter().enumerate() {
        if mask >> (place % 16) & 1 == 1 {
            event.insert(key, value);
        }
    }
    // Nulls and values of the wrong type, where a careless reader sees something.
    let path = [
        ["objectRef", "namespace"],
        ["objectRef", "name"],
        ["responseStatus", "message"],
        ["user", "groups"],
    ];
    let [outer, inner] = path[usize::from(mask % 4)];
    let odd =
        [serde_json::Value::Null, 5.into(), "".into(), serde_json::json!([null]), serde_json::json!({})];
    if mask >> 8 & 3 == 3
        && let Some(object) = event.get_mut(outer).and_then(serde_json::Value::as_object_mut)
    {
        object.insert(inner.to_owned(), odd[usize::from(mask >> 10) % odd.len()].clone());
    }
    if mask >> 4 & 15 == 15 {
        let keys = [
            "impersonatedUser",
            "sourceIPs",
            "annotations",
            "userAgent",
            "requestURI",
            "level",
            "stage",
            "verb",
        ];
        event.insert(
            keys[usize::from(mask >> 12) % keys.len()].to_owned(),
            odd[usize::from(mask >> 9) % odd.len()].clone(),
        );
    }
    serde_json::Value::Object(event).to_string()
}

/// Depth is the sender's to choose, and never ours to follow.
#[test]
fn nesting_is_survived() {
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let falco = format!(
        r#"{{"rule":"Terminal shell in container","priority":"Notice","output_fields":{{"proc.args":{}}}}}"#,
        deep("[", "]", 100_000)
    );
    for text in [
        deep(r#"{"event":{"items":["#, "]}}", 50_000),
        deep(r#"{"event":"#, "}", 50_000),
        deep(r#"{"items":["#, "]}", 50_000),
        deep("[", "]", 1_000_000),
        falco,
    ] {
        let mut emitted = Vec::new();
        ENGINE.worker().lines(Origin { input: "x", offset: 0 }, text.as_bytes(), &mut emitted);
    }
}

/// The alerts of one event, however it is wrapped.
fn uuids(text: &str) -> BTreeSet<String> {
    uuids_of(text, Extent::Whole)
}

fn uuids_of(text: &str, extent: Extent) -> BTreeSet<String> {
    let mut worker = ENGINE.worker();
    let mut emitted = Vec::new();
    let frame = Frame { offset: 0, bytes: text.as_bytes(), extent, listed: false, joined: false };
    worker.record("x", frame, &mut emitted);
    verdict(&mut worker, emitted).alerts.into_keys().collect()
}

#[test]
fn wrapping_does_not_change_ids() {
    let text = |value: &serde_json::Value| value.to_string();
    let mut alerting = 0;
    for line in EVENTS.iter().step_by(7) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let expected = uuids(line);
        alerting += usize::from(!expected.is_empty());
        let mut item = event.clone();
        if let Some(item) = item.as_object_mut() {
            item.remove("kind");
            item.remove("apiVersion");
        }
        for wrapped in [
            serde_json::to_string_pretty(&event).unwrap(),
            text(&serde_json::json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [item]})),
            text(&serde_json::json!([event])),
            text(&serde_json::json!({"log": format!("{line}\n"), "stream": "stdout"})),
            text(&serde_json::json!({"message": line, "host": "cp-1"})),
            text(&serde_json::json!({"_raw": line})),
            text(&serde_json::json!({"line": line, "labels": {}})),
            text(&serde_json::json!({"event": event, "time": 1})),
            format!("2026-03-01T10:00:00.1Z stdout F {line}"),
        ] {
            assert_eq!(uuids(&wrapped), expected, "{wrapped}");
        }
    }
    assert!(alerting > 50);
}

/// The alerts of an input, read as the shell reads it: by lines, and from where it is not JSON lines through the framer.
fn read(input: &str) -> (BTreeSet<String>, Tally) {
    let mut worker = ENGINE.worker();
    let mut emitted = Vec::new();
    let origin = Origin { input: "x", offset: 0 };
    if let Some(leaves) = worker.lines(origin, input.as_bytes(), &mut emitted) {
        let mut framer = Framer::new(leaves as u64);
        let mut judge = |frame: Frame<'_>| worker.record("x", frame, &mut emitted);
        assert_eq!(framer.feed(&input.as_bytes()[leaves..], &mut judge), None);
        framer.finish(&mut judge);
    }
    let tally = worker.take_tally();
    (verdict(&mut worker, emitted).alerts.into_keys().collect(), tally)
}

/// One event over several lines, as container runtimes write what is too long for them.
#[test]
fn what_a_runtime_split_is_one_event() {
    for line in EVENTS.iter().step_by(11) {
        let pieces: Vec<_> =
            line.as_bytes().chunks(line.len().div_ceil(3)).map(String::from_utf8_lossy).collect();
        let cri = |(place, piece)| {
            format!(
                "2026-03-01T10:00:00.1Z stdout {} {piece}\n",
                if place + 1 < pieces.len() { "P" } else { "F" }
            )
        };
        let docker = |(place, piece)| {
            let end = if place + 1 < pieces.len() { "" } else { "\n" };
            serde_json::json!({"log": format!("{piece}{end}"), "stream": "stdout"}).to_string() + "\n"
        };
        let split: [String; 2] =
            [pieces.iter().enumerate().map(cri).collect(), pieces.iter().enumerate().map(docker).collect()];
        for split in split {
            let before = "2026-03-01T10:00:00.1Z stderr F E0301 a text\n";
            let (found, tally) = read(&[before, &split, &format!("{line}\n"), &split].concat());
            assert_eq!(found, uuids(line), "{split}");
            assert_eq!((tally.bad, tally.partial, tally.records()), (1, 0, 4), "{split}");
        }
    }
}

#[test]
fn a_line_that_is_never_ended_is_judged_as_what_there_is() {
    let cut = GOOD.find("responseStatus").unwrap();
    let line = format!("2026-03-01T10:00:00.1Z stdout P {}\n", &GOOD[..cut]);
    let (found, tally) = read(&line);
    assert!(found.iter().any(|alert| alert.starts_with("integrity/partial-event")), "{found:?}");
    assert_eq!((tally.partial, tally.formats.get(&Format::AuditCarried)), (1, Some(&1)));
    // A writer that was stopped in the midst of a line and started again.
    let (found, _) =
        read(&format!("{line}2026-03-01T10:00:00.1Z stdout P {GOOD}\n2026-03-01T10:00:00.1Z stdout F  \n"));
    assert!(uuids(GOOD).is_subset(&found), "{found:?}");
}

/// Records, bad ones, and those judged although damaged.
fn counts(input: &str) -> (u64, u64, u64) {
    let (_, tally) = read(input);
    (tally.records(), tally.bad, tally.partial)
}

#[test]
fn a_record_counts_once() {
    let torn = &GOOD[..GOOD.len() - 20];
    assert_eq!(counts(&format!("{torn}\n{GOOD}\n")), (2, 0, 1));
    assert_eq!(counts(&format!("{GOOD} {torn}\n{GOOD}\n")), (3, 0, 1));
    assert_eq!(counts(&format!("{{\"x\":\n{GOOD}\n")), (2, 1, 0));
    assert_eq!(counts(&format!("{{\"schema\":\"lapwing/v1\",\n{GOOD}\n")), (2, 1, 0));
    // A list that ends in an item, and one that ends between two.
    assert_eq!(counts(&format!("{{\"items\":[{GOOD},{torn}")), (2, 0, 1));
    assert_eq!(counts(&format!("{{\"items\":[{GOOD},")), (2, 1, 0));
    assert_eq!(counts(&format!("[{GOOD}")), (2, 1, 0));
    assert_eq!(counts("["), (1, 1, 0));
    let carried = serde_json::json!({"message": format!("[{GOOD},")});
    assert_eq!(counts(&carried.to_string()), (2, 1, 0));
    // Items in the first column of an indented list are no damage.
    let list = format!("{{\n  \"kind\": \"EventList\",\n  \"items\": [\n{GOOD},\n{GOOD}\n  ]\n}}\n");
    assert_eq!(counts(&list), (2, 0, 0));
}

/// A stray bracket is one bad record, whatever follows: all of it is judged.
#[test]
fn a_stray_bracket_is_one_bad_record() {
    let pretty = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    let layouts: [&dyn Fn(&str) -> String; 6] = [
        &|line| line.to_owned(),
        &pretty,
        &|line| format!("[{line}]"),
        &|line| format!("2026-03-01T10:00:00.1Z stdout F {line}"),
        &|line| format!("\u{1e}{line}"),
        &|line| format!("\u{1e}{}", pretty(line)),
    ];
    let cut = &GOOD[..GOOD.len() / 2];
    for layout in layouts {
        for torn in ["{", "[", cut, &format!("[{cut}"), &format!("[{GOOD},{cut}"), "{\"kind\":"] {
            let input = format!("{torn}\n{}", format!("{}\n", layout(GOOD)).repeat(100));
            let (found, tally) = read(&input);
            assert!(uuids(GOOD).is_subset(&found), "{input}");
            // A torn event is no bad record if enough of it is left.
            let whole = tally.records() - tally.bad - tally.partial - u64::from(torn.contains(GOOD));
            assert!(tally.bad <= 1, "{} bad: {input}", tally.bad);
            assert_eq!(whole, 100, "{input}");
        }
    }
}

/// JSON text sequences (RFC 7464) are records, not records in a carrier.
#[test]
fn json_text_sequences_are_read() {
    let (found, tally) = read(&format!("\u{1e}{GOOD}\n").repeat(3));
    assert_eq!(found, uuids(GOOD));
    assert_eq!((tally.bad, tally.formats.get(&Format::Audit)), (0, Some(&3)));
}

/// NULs are what a crash leaves of a file: nobody knows what stood there.
#[test]
fn holes_are_counted() {
    let nuls = |count: usize| "\0".repeat(count);
    for (input, expected) in [
        (format!("{GOOD}\n{GOOD}\n"), 0),
        (format!("{}{GOOD}\n", nuls(100)), 100),
        (format!("{GOOD}{}\n{GOOD}\n", nuls(3)), 3),
        (format!("{GOOD}\n{}", nuls(4096)), 4096),
        (format!("{}{}{GOOD}\n", &GOOD[..100], nuls(4096)), 4096),
        (format!("{{\n{}", nuls(20 << 20)), 20 << 20),
    ] {
        assert_eq!(read(&input).1.nuls, expected);
    }
}

/// The first alert on a record.
fn first_alert(record: &str) -> Alert {
    let mut emitted = Vec::new();
    let mut worker = ENGINE.worker();
    assert_eq!(worker.lines(Origin { input: "x", offset: 0 }, record.as_bytes(), &mut emitted), None);
    let alert = emitted.into_iter().find_map(|one| match one {
        Emitted::Alert(found) => Some(found.alert),
        Emitted::Step(_) => None,
    });
    alert.unwrap_or_else(|| panic!("no alert on {record}"))
}

#[test]
fn falco_says_the_time_in_two_places() {
    let alert = |time: &str, fields: &str| {
        first_alert(&format!(
            r#"{{"rule":"Terminal shell in container","priority":"Notice",{time}"output_fields":{{{fields}}}}}"#
        ))
    };
    let expected = "2026-03-01T10:00:00.123456789Z";
    for (time, fields) in [
        (r#""time":"2026-03-01T10:00:00.123456789Z","#, r#""evt.time":1"#),
        ("", r#""evt.time":1772359200123456789"#),
        (r#""time":"10:00","#, r#""evt.time":"1772359200123456789""#),
        (r#""time":null,"#, r#""evt.time.iso8601":"2026-03-01T10:00:00.123456789+0000","evt.time":null"#),
        ("", r#""evt.time.iso8601":1772359200123456789"#),
    ] {
        let alert = alert(time, fields);
        assert_eq!((alert.time.as_str(), alert.partial), (expected, None), "{time} {fields}");
    }
    let alert = alert("", r#""evt.time":"10:00:00.123456789""#);
    assert_eq!((alert.time.as_str(), alert.partial), ("1970-01-01T00:00:00.000000000Z", Some(true)));
}

#[test]
fn an_event_without_a_time_is_partial_and_covers_none() {
    let untimed = GOOD.replace("Timestamp\"", "Stamp\"");
    assert_eq!(first_alert(&untimed).partial, Some(true));
    assert_eq!(first_alert(GOOD).partial, None);
    let (_, tally) = read(&untimed);
    assert_eq!((tally.missing_time, tally.minutes.len()), (1, 0));
}

/// What is of a wrong type is unknown, not absent.
#[test]
fn values_of_a_wrong_type_are_damage() {
    for (value, odd) in [
        ("\"verb\":\"list\"", "\"verb\":5"),
        ("\"user\":{\"username\":\"dana\",\"groups\":[\"system:authenticated\"]}", "\"user\":[]"),
        ("\"resource\":\"secrets\"", "\"resource\":[\"secrets\"]"),
        ("\"responseStatus\":{\"code\":200}", "\"responseStatus\":200"),
    ] {
        let event = GOOD.replace(value, odd);
        assert_ne!(event, GOOD);
        let (found, tally) = read(&event);
        assert!(found.iter().any(|alert| alert.starts_with("integrity/partial-event")), "{odd}: {found:?}");
        assert_eq!((tally.records(), tally.partial), (1, 1), "{odd}");
    }
    let null = GOOD.replace("\"sourceIPs\"", "\"impersonatedUser\":null,\"sourceIPs\"");
    assert_eq!((uuids(&null), counts(&null)), (uuids(GOOD), (1, 0, 0)));
    let falco = r#"{"rule":"Terminal shell in container","priority":2,"output_fields":{},"time":"2026-03-01T10:00:00Z"}"#;
    assert_eq!(counts(falco), (1, 0, 1));
}

/// One reader takes the first value, the next the last.
#[test]
fn a_key_that_stands_twice_is_told() {
    for (twice, keys) in [
        (GOOD.replace("\"verb\":", "\"verb\":\"get\",\"verb\":"), "verb"),
        (
            GOOD.replace("\"user\":", "\"User\":{},\"\\u0075ser\":")
                .replace("\"kind\"", "\"level\":1,\"kind\""),
            "level, user",
        ),
        // Not judged for its stage, but told all the same.
        (GOOD.replace("\"ResponseComplete\"", "\"RequestReceived\",\"verb\":\"x\""), "verb"),
    ] {
        let mut emitted = Vec::new();
        ENGINE.worker().lines(Origin { input: "x", offset: 0 }, twice.as_bytes(), &mut emitted);
        let told: Vec<_> = emitted
            .iter()
            .filter_map(|one| match one {
                Emitted::Alert(found) if found.alert.detector == "integrity/duplicate-key" => {
                    Some(&found.alert)
                }
                _ => None,
            })
            .collect();
        assert_eq!(told.len(), 1, "{twice}");
        assert_eq!(told[0].output_fields["keys"], keys);
        assert_eq!(ENGINE.detectors().iter().filter(|d| d.name == told[0].detector).count(), 1);
    }
    assert!(!uuids(GOOD).iter().any(|alert| alert.starts_with("integrity/")));
}

/// Which of them another reader takes is not known, so none may hide.
#[test]
fn all_items_of_a_list_are_judged() {
    let other = GOOD.replace("secrets", "nodes");
    for (first, second) in [("items", "Items"), ("Items", "items"), ("items", "items"), ("ITEMS", "items")] {
        let list = format!("{{\"{first}\":[{GOOD},{other}],\"{second}\":[{other}],\"items\":0}}");
        assert_eq!(counts(&list), (3, 0, 0), "{list}");
        assert_eq!(counts(&list.replace("],", "],\n ")), (3, 0, 0), "{list}");
    }
}

#[test]
fn the_member_that_holds_a_record_is_the_carrier() {
    let expected = uuids(GOOD);
    for log in ["{}", "{\"ts\":1}", "[]", "2 pods", "\\u0020text"] {
        let both = serde_json::json!({"log": log, "message": GOOD, "event": {"kind": "event"}});
        assert_eq!(uuids(&both.to_string()), expected, "{log}");
        assert_eq!(counts(&both.to_string()), (1, 0, 0), "{log}");
    }
    // The first one counts if several do.
    let both = serde_json::json!({"log": GOOD, "message": GOOD});
    assert_eq!(counts(&both.to_string()), (1, 0, 0));
    let escaped = serde_json::to_string(GOOD).unwrap().replace('{', "\\u007b");
    assert_eq!(uuids(&format!("{{\"message\":{escaped}}}")), expected, "{escaped}");
    assert_eq!(uuids(&format!("{{\"message\":\"\\n{}}}", &escaped[1..])), expected);
}

/// What lies whole in the head of an oversize carrier is whole; one alert says that the rest is lost.
#[test]
fn a_list_in_an_oversize_carrier_loses_its_end_once() {
    let items = vec![GOOD.replace("\"stage\"", "\"requestObject\":{},\"stage\""); 6].join(",");
    for line in [
        serde_json::json!({"message": format!("{{\"items\":[{items}]}}")}).to_string(),
        format!("2026-03-01T10:00:00Z stdout F [{items}]"),
    ] {
        let tail = line.len() / 2;
        let bytes = [&line[..tail], &line[line.len() - 100..]].concat();
        let mut worker = ENGINE.worker();
        let mut emitted = Vec::new();
        let extent = Extent::Oversize { tail, length: 20 << 20 };
        let frame = Frame { offset: 0, bytes: bytes.as_bytes(), extent, listed: false, joined: false };
        worker.record("x", frame, &mut emitted);
        let tally = worker.take_tally();
        let alerts = verdict(&mut worker, emitted).alerts;
        let partial = alerts.iter().filter(|(alert, _)| alert.starts_with("integrity/")).map(|(_, n)| n);
        let found =
            alerts.iter().filter(|(alert, _)| alert.starts_with("secret/cluster-wide-list")).map(|(_, n)| n);
        assert_eq!((partial.sum::<usize>(), found.sum::<usize>()), (1, 2), "{alerts:?}");
        assert_eq!((tally.records(), tally.partial + tally.bad), (3, 1));
    }
}

/// An event as the API server writes it.
const GOOD: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"b","stage":"ResponseComplete","requestURI":"/api/v1/secrets","verb":"list","user":{"username":"dana","groups":["system:authenticated"]},"sourceIPs":["10.0.0.9"],"userAgent":"kubectl/v1.34.1","objectRef":{"resource":"secrets","apiVersion":"v1"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-03-01T10:00:00.000000Z","stageTimestamp":"2026-03-01T10:00:00.000000Z"}"#;

/// A successful create of this object, or a patch by JSON Patch if it is a list.
fn written(group: &str, resource: &str, object: &str) -> String {
    let verb = if object.starts_with('[') { "patch" } else { "create" };
    GOOD.replace("\"verb\":\"list\"", &format!("\"verb\":\"{verb}\""))
        .replace("Metadata", "Request")
        .replace(
            "{\"resource\":\"secrets\"",
            &format!("{{\"resource\":\"{resource}\",\"apiGroup\":\"{group}\""),
        )
        .replace("\"responseStatus\"", &format!("\"requestObject\":{object},\"responseStatus\""))
}

/// A piece of padding, by its number.
type Padding = fn(usize) -> String;

/// Objects that alert, with a place `@` for padding: group, resource, object.
const PADDED: &[(&str, &str, &str, Padding)] = &[
    (
        RBAC,
        "clusterroles",
        r#"{"rules":[{"verbs":[@"escalate","bind"],"apiGroups":["*"],"resources":["clusterroles"]}]}"#,
        word,
    ),
    (
        RBAC,
        "clusterroles",
        r#"{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":[@"secrets"]}]}"#,
        word,
    ),
    (
        RBAC,
        "clusterroles",
        r#"{"rules":[{"verbs":["get"],"apiGroups":[@""],"resources":["secrets"]}]}"#,
        word,
    ),
    (
        RBAC,
        "clusterroles",
        r#"{"rules":[@{"verbs":["create"],"apiGroups":[""],"resources":["pods/exec"]}]}"#,
        |_| r#"{"verbs":["get"],"apiGroups":[""],"resources":["pods"]},"#.to_owned(),
    ),
    (
        RBAC,
        "clusterrolebindings",
        r#"{"roleRef":{"kind":"ClusterRole","name":"view"},"subjects":[@{"kind":"User","name":"system:anonymous"}]}"#,
        |n| format!(r#"{{"kind":"User","name":"u{n}"}},"#),
    ),
    (
        "",
        "pods",
        r#"{"spec":{"containers":[{"securityContext":{"capabilities":{"add":[@"SYS_ADMIN"]}}}]}}"#,
        word,
    ),
    ("", "pods", r#"{"spec":{"containers":[@{"name":"x","securityContext":{"privileged":true}}]}}"#, named),
    (
        "",
        "pods",
        r#"{"spec":{"containers":[{"name":"x","volumeMounts":[{"name":"h"}]}],"volumes":[@{"name":"h","hostPath":{"path":"/"}}]}}"#,
        named,
    ),
    ("", "configmaps", r#"{"data":{@"key":"AKIAIOSFODNN7REALKEY"}}"#, |n| format!(r#""k{n}":"","#)),
    ("", "configmaps", r#"[@{"op":"add","path":"/data/key","value":"AKIAIOSFODNN7REALKEY"}]"#, |n| {
        format!(r#"{{"op":"add","path":"/data/k{n}","value":"v"}},"#)
    }),
];

const RBAC: &str = "rbac.authorization.k8s.io";

fn word(n: usize) -> String {
    format!("\"W{n}\",")
}

fn named(n: usize) -> String {
    format!(r#"{{"name":"n{n}","emptyDir":{{}}}},"#)
}

/// What nobody would write by hand is written to get past bounds.
#[test]
fn padding_hides_nothing() {
    for (group, resource, object, padding) in PADDED {
        let bare = uuids(&written(group, resource, &object.replace('@', "")));
        assert!(bare.iter().any(|alert| !alert.contains("rbac/activity")), "{object}: {bare:?}");
        for padding in [(0..5000).map(padding).collect::<String>(), padding(0).repeat(5000)] {
            let padded = uuids(&written(group, resource, &object.replace('@', &padding)));
            assert!(bare.is_subset(&padded), "{object}: {bare:?} but {padded:?}");
        }
    }
}

/// Where a bound is hit all the same, that itself is told; where it decides nothing, it is not.
#[test]
fn a_bound_that_is_hit_is_told() {
    let partial = |event: &str| uuids(event).iter().any(|alert| alert.starts_with("integrity/partial-event"));
    let words: String = (0..70_000).map(word).collect();
    let role = |verbs: &str| {
        let rules =
            format!(r#"{{"rules":[{{"verbs":[{verbs}],"apiGroups":["*"],"resources":["clusterroles"]}}]}}"#);
        written(RBAC, "clusterroles", &rules)
    };
    assert!(partial(&role(&format!(r#"{words}"escalate""#))));
    assert!(!partial(&role(&format!("{}\"get\"", word(1)))));
    let containers: String = (0..70_000).map(named).collect();
    let pod = written("", "pods", &format!(r#"{{"spec":{{"containers":[{containers}{{"name":"x"}}]}}}}"#));
    assert!(partial(&pod));
    assert_eq!(uuids(&pod), verdict_of_both(&pod));
}

/// The alerts of an event whose class the index knows by now.
fn verdict_of_both(event: &str) -> BTreeSet<String> {
    let lines = format!("{event}\n").repeat(3);
    let (indexed, plain) =
        (judge(ENGINE.worker(), &lines, &[]), judge(ENGINE.worker().unindexed(), &lines, &[]));
    assert_eq!(indexed, plain);
    indexed.alerts.into_keys().collect()
}

/// Docker's lines as shippers leave them, without the newlines at their ends.
#[test]
fn text_in_brackets_swallows_no_events() {
    let docker = |text: &str| {
        let line = serde_json::json!({"log": text, "stream": "stdout", "time": "2026-03-01T10:00:00.1Z"});
        format!("{line}\n")
    };
    for length in [1 << 10, 16 << 10, 17 << 10] {
        let one = GOOD.replace("kubectl/v1.34.1", &"k".repeat(length + 15 - GOOD.len()));
        let two = one.replace("\"dana\"", "\"rosa\"");
        assert_eq!((one.len(), two.len()), (length, length));
        let expected: BTreeSet<_> = uuids(&one).union(&uuids(&two)).cloned().collect();
        for first in ["[\u{1b}[31mERR\u{1b}[0m starting", "{\"torn\":"] {
            let (found, tally) = read(&[docker(first), docker(&one), docker(&two)].concat());
            assert!(expected.is_subset(&found), "{first} {length}: {found:?}");
            assert_eq!(
                (tally.formats.get(&Format::AuditCarried), tally.bad),
                (Some(&2), 1),
                "{first} {length}"
            );
        }
    }
}

/// A torn record with a good one behind it on the same line, as a writer leaves it that was stopped and started again.
#[test]
fn what_follows_a_torn_record_is_judged() {
    let line = format!("{}{GOOD}", &GOOD[..150]);
    let expected = uuids(GOOD);
    assert!(expected.iter().any(|alert| alert.starts_with("secret/cluster-wide-list")));
    let found = uuids_of(&line, Extent::Fragment);
    assert!(expected.is_subset(&found), "{found:?}");
}

/// What `fields` names is in the alert, scrubbed as all that leaves: of one event, and of those that a correlation counts.
#[test]
fn an_alert_shows_the_fields_that_its_rule_names() {
    let rule = "title: r\nname: own/r\nlogsource: {product: kubernetes}\ndetection: {s: {verb: create, objectRef.resource: configmaps}, condition: s}\nfields: [actor.agent, requestObject.data.key, requestObject.metadata.uid, objectRef.uid]\n---\n\
        title: c\nname: own/c\ncorrelation: {type: event_count, rules: [own/r], group-by: [actor.name], timespan: 1m, condition: {gte: 2}, generate: true, aliases: {which: {own/r: target.name}}}\nfields: [which, outcome, requestObject.data.key]\n";
    let file = rules::File { name: "own.yml".to_owned(), yaml: rule.to_owned(), folder: None };
    let settings = Settings::default();
    let engine = rules::assemble(rules::read(&[file], &settings), settings, &Tuning::default()).unwrap();
    let mut emitted = Vec::new();
    for n in 0..2 {
        let event = format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"{n}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/configmaps","verb":"create","user":{{"username":"dana"}},"userAgent":"curl/8","objectRef":{{"resource":"configmaps","namespace":"a","name":"m{n}"}},"responseStatus":{{"code":201}},"requestObject":{{"data":{{"key":"hunter2"}},"metadata":{{"uid":"77"}}}},"stageTimestamp":"2026-03-01T10:00:0{n}.000000Z"}}"#
        );
        engine.worker().lines(Origin { input: "x", offset: 0 }, event.as_bytes(), &mut emitted);
    }
    let (mut correlator, mut found) = (engine.correlator(1 << 20), Vec::new());
    for one in emitted {
        match one {
            Emitted::Alert(alert) => found.push(*alert),
            Emitted::Step(step) => correlator.push(&step, &mut found),
        }
    }
    let shown = |name: &str| {
        let alert = &found.iter().find(|found| found.alert.detector == name).unwrap().alert;
        let names = [
            "actor.agent",
            "requestObject.data.key",
            "requestObject.metadata.uid",
            "objectRef.uid",
            "which",
            "outcome",
        ];
        names.map(|name| alert.output_fields.get(name).map_or("-", String::as_str))
    };
    assert_eq!(shown("own/r"), ["curl/8", "[redacted]", "77", "-", "-", "-"]);
    assert_eq!(shown("own/c"), ["-", "[redacted]", "-", "-", "m0,m1", "allowed"]);
}

/// What `redact.paths` names is in no alert, under no name; what is found and counted does not change.
#[test]
fn what_lies_at_hidden_paths_is_in_no_alert() {
    let rule = "title: r\nname: own/r\nlogsource: {product: kubernetes}\ndetection: {s: {verb: create, objectRef.resource: pods, user.username: 'dana*'}, condition: s}\nfields: [pod.images, pod.command, requestObject.spec.note, requestObject.spec.containers.image, target.uri]\nmessage: '{actor.name} with {pod.images}'\n---\n\
        title: c\nname: own/c\ncorrelation: {type: value_count, rules: [own/r], group-by: [actor.name], timespan: 1m, condition: {field: requestObject.spec.note, gte: 2}, generate: true}\nfields: [pod.images]\n---\n\
        title: d\nname: own/d\ncorrelation: {type: event_count, rules: [own/c], group-by: [actor.name], timespan: 1m, condition: {gte: 1}, generate: true}\nfields: [actor.name]\nmessage: '{actor.name} again'\n";
    let found = |hidden: &[&str]| {
        let file = rules::File { name: "own.yml".to_owned(), yaml: rule.to_owned(), folder: None };
        let hidden = hidden.iter().map(|path| Hidden::new(path).unwrap()).collect();
        let settings = Settings { hidden, ..Settings::default() };
        let engine = rules::assemble(rules::read(&[file], &settings), settings, &Tuning::default()).unwrap();
        let mut emitted = Vec::new();
        for n in 0..4 {
            let event = format!(
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"{n}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods?x=n0te","verb":"create","user":{{"username":"dana{0}"}},"userAgent":"curl/8","objectRef":{{"resource":"pods","namespace":"a","name":"p"}},"responseStatus":{{"code":201}},"requestObject":{{"spec":{{"note":"n0te{1}","containers":[{{"name":"c","image":"s3cret/app{n}"}},{{"name":"d","image":"s3cret/x"}}]}}}},"stageTimestamp":"2026-03-01T10:00:0{n}.000000Z"}}"#,
                n / 2,
                n % 2
            );
            engine.worker().lines(Origin { input: "x", offset: 0 }, event.as_bytes(), &mut emitted);
        }
        let (mut correlator, mut found) = (engine.correlator(1 << 20), Vec::new());
        for one in emitted {
            match one {
                Emitted::Alert(alert) => found.push(alert.alert),
                Emitted::Step(step) => {
                    let mut fired = Vec::new();
                    correlator.push(&step, &mut fired);
                    found.extend(fired.into_iter().map(|one| one.alert));
                }
            }
        }
        found
    };
    let uuids = |found: &[Alert]| found.iter().map(|alert| alert.uuid).collect::<BTreeSet<_>>();
    let plain = found(&[]);
    let own = |found: &[Alert], name| found.iter().filter(|alert| alert.detector == name).count();
    assert_eq!(["own/r", "own/c", "own/d"].map(|name| own(&plain, name)), [4, 2, 2]);
    for (path, text) in [
        ("requestObject.spec.containers.image", "s3cret"),
        ("REQUESTOBJECT.spec", "s3cret"),
        ("user.username", "dana"),
        ("user", "dana"),
        ("requestObject.spec.note", "n0te0"),
        ("requestURI", "?x="),
        ("userAgent", "curl"),
        ("auditID", "\"audit_id\":\"0\""),
    ] {
        let says = |found: &[Alert]| serde_json::to_string(found).unwrap().contains(text);
        let veiled = found(&[path]);
        assert!(says(&plain) && !says(&veiled), "{path}");
        assert_eq!(uuids(&plain), uuids(&veiled), "{path}");
        assert_eq!(plain.len(), veiled.len(), "{path}");
    }
    let veiled = found(&["user.username"]);
    let again = veiled.iter().find(|alert| alert.detector == "own/d").unwrap();
    assert!(again.output.ends_with("[redacted] again"), "{}", again.output);
    assert_eq!(again.output_fields["actor.name"], "[redacted]");
}

#[test]
fn hidden_fields_of_falco_are_in_no_alert() {
    let hidden = vec![Hidden::new("proc.cmdline").unwrap(), Hidden::new("hostname").unwrap()];
    let settings = Settings { hidden, ..Settings::default() };
    let engine = rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap();
    let mut emitted = Vec::new();
    let record = r#"{"rule":"Terminal shell in container","priority":"Notice","hostname":"n0de","time":"2026-03-01T10:00:00Z","output_fields":{"proc.cmdline":"sh -c plan9","proc.name":"sh"}}"#;
    engine.worker().lines(Origin { input: "x", offset: 0 }, record.as_bytes(), &mut emitted);
    let Some(Emitted::Alert(found)) = emitted.into_iter().find(|one| matches!(one, Emitted::Alert(_))) else {
        panic!("no alert")
    };
    let json = serde_json::to_string(&found.alert).unwrap();
    assert!(json.contains("\"proc.name\":\"sh\"") && json.contains("[redacted]"), "{json}");
    assert!(!json.contains("plan9") && !json.contains("n0de"), "{json}");
}

#[test]
fn an_explanation_shows_no_password() {
    let event = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"b","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods/b/exec?command=mysql&command=-phunter2&container=c","verb":"get","user":{"username":"dana"},"objectRef":{"resource":"pods","subresource":"exec","namespace":"a","name":"b"},"responseStatus":{"code":101},"stageTimestamp":"2026-03-01T10:00:00.000000Z"}"#;
    let explained = format!("{:?}", ENGINE.explain("exec/sensitive-file-read", event.as_bytes()));
    assert!(explained.contains("mysql"), "{explained}");
    assert!(!explained.contains("hunter2"), "{explained}");
}

#[test]
fn only_an_object_by_itself_is_judged_as_one() {
    let event = EVENTS.iter().find(|event| !event.contains('\n')).unwrap();
    for (text, alone) in [
        (event.clone(), true),
        (format!("{event}\n"), true),
        (format!("{event} "), true),
        (format!("{event}{event}"), false),
        (format!("{event}\n{event}\n"), false),
        (format!("{event},{event}"), false),
        (format!("{event}{{\"kind\":"), false),
        (format!("[{event}]"), false),
        (format!(" {event}"), false),
        (format!("{{\"kind\":\"EventList\",\"items\":[{event}]}}"), false),
        (format!("{{\"items\" : [{event}]}}"), false),
        (format!("{{\"message\":{}}}", serde_json::to_string(event).unwrap()), true),
        (event[..event.len() - 1].to_owned(), false),
        (String::new(), false),
    ] {
        let (mut worker, mut out) = (ENGINE.worker(), Vec::new());
        let origin = Origin { input: "topic/0", offset: 7 };
        assert_eq!(worker.line(origin, text.as_bytes(), &mut out), alone, "{text}");
        assert_eq!(worker.take_tally().records(), u64::from(alone), "{text}");
    }
}
