//! The helper that every family's tests go through, and what holds for all facts.

use serde_json::{Map, Value as Json, json};

use super::{FAMILIES, Fact, Parts, all, find, get, reference};
use crate::event::{Event, Stream};
use crate::scan::{Doc, Marks};
use crate::settings::{Settings, parse_network};
use crate::value::Value;

/// Settings of all tests: proxies in 10.0.0.0/8.
fn settings() -> Settings {
    Settings {
        cluster: Some("east".to_owned()),
        trusted_proxies: vec![parse_network("10.0.0.0/8").unwrap()],
        ..Settings::default()
    }
}

/// An event from what is special about it: members that it does not have are a harmless default's; `null` leaves one out.
fn complete(special: &str) -> String {
    let special: Map<String, Json> = serde_json::from_str(special).expect("the test's event is JSON");
    let mut event = if special.contains_key("rule") {
        json!({"priority": "Notice", "source": "syscall", "hostname": "node-1", "output": "x", "output_fields": {}})
    } else {
        json!({
            "level": "RequestResponse", "auditID": "1", "stage": "ResponseComplete", "verb": "get",
            "requestURI": "/api/v1/pods",
            "user": {"username": "dana", "groups": ["devs", "system:authenticated"]},
            "sourceIPs": ["203.0.113.9"], "userAgent": "kubectl/v1.34.0 (linux/amd64) kubernetes/abcdef0",
            "responseStatus": {"metadata": {}, "code": 200},
        })
    };
    let members = event.as_object_mut().unwrap();
    members.extend(special);
    members.retain(|_, value| !value.is_null());
    event.to_string()
}

/// A fact's value on an event, as text: `-` absent, `?` unknown, lists in brackets, with `..` where they are partial.
fn value_of(event: &str, fact: &Fact, lens: Parts) -> String {
    let mut marks = Marks::new();
    marks.mark(event.as_bytes());
    let settings = settings();
    let mut event = Event::skim(Doc::new(event.as_bytes(), &marks).root().unwrap(), &settings);
    if event.has(crate::event::Top::Rule) {
        event.stream = Stream::Falco;
    }
    event.lens.set(lens);
    show(&fact.value(&event))
}

fn show(value: &Value<'_>) -> String {
    match value {
        Value::Absent => "-".to_owned(),
        Value::Unknown => "?".to_owned(),
        Value::List(list) => {
            let mut items: Vec<_> = list.items.iter().map(|item| item.display().into_owned()).collect();
            items.extend(list.partial.then(|| "..".to_owned()));
            format!("[{}]", items.join(", "))
        }
        other => other.display().into_owned(),
    }
}

/// Checks a fact on the event that `special` describes (see [`complete`]).
#[track_caller]
pub(super) fn check(special: &str, fact: &str, expected: &str) {
    check_raw(&complete(special), fact, expected);
}

/// Checks a fact on exactly these bytes.
#[track_caller]
pub(super) fn check_raw(event: &str, fact: &str, expected: &str) {
    let id = find(fact).unwrap_or_else(|| panic!("no fact {fact}"));
    assert_eq!(value_of(event, get(id), Parts::ALL), expected, "{fact} of {event:.1000}");
}

#[test]
fn names_are_unique_and_documented() {
    let mut seen = std::collections::HashSet::new();
    for (place, fact) in all().enumerate() {
        assert!(seen.insert(fact.name), "{} stands twice", fact.name);
        assert!(fact.doc.ends_with('.'), "{} has no full sentence", fact.name);
        assert_eq!(find(fact.name).map(|id| usize::from(id.0)), Some(place));
    }
    assert!(find("actor.nobody").is_none());
}

#[test]
fn the_reference_page_has_every_fact() {
    let page = reference();
    for (family, facts) in FAMILIES {
        assert!(page.contains(&format!("\n## {family}\n")));
        for fact in *facts {
            assert!(page.contains(&format!("\n| `{}` | {} |", fact.name, fact.kind.name())), "{}", fact.name);
        }
    }
}

#[test]
fn facts_of_the_other_stream_are_absent() {
    check(r#"{"rule": "x"}"#, "outcome", "-");
    check(r#"{"verb": "get"}"#, "falco.rule", "-");
}

/// Events of every kind that facts tell apart.
fn events() -> Vec<String> {
    let events = [
        r#"{"verb": "create", "objectRef": {"resource": "pods", "namespace": "shop"}, "responseStatus": {"code": 201},
            "requestObject": {"spec": {"hostPID": true, "containers": [{"image": "a"}]}}}"#,
        r#"{"verb": "patch", "requestURI": "/x?dryRun=All", "objectRef": {"resource": "configmaps", "namespace": "shop",
            "name": "a"}, "requestObject": {"data": {"password": "hunter2"}}}"#,
        r#"{"verb": "create", "objectRef": {"resource": "clusterroles", "apiGroup": "rbac.authorization.k8s.io"},
            "requestObject": {"rules": [{"verbs": ["*"], "resources": ["*"], "apiGroups": ["*"]}]}}"#,
        r#"{"verb": "update", "level": "Metadata", "objectRef": {"resource": "rolebindings", "namespace": "shop",
            "apiGroup": "rbac.authorization.k8s.io", "name": "system:x"}}"#,
        r#"{"verb": "create", "responseStatus": {"code": 403, "message": "pods \"a\" is forbidden: violates PodSecurity \"baseline:v1\""},
            "objectRef": {"resource": "pods", "namespace": "shop", "name": "a"},
            "annotations": {"authorization.k8s.io/decision": "allow"}}"#,
        r#"{"responseStatus": {"code": 422, "message": "admission webhook \"a\" denied the request"}, "verb": "update",
            "objectRef": {"resource": "secrets", "namespace": "shop", "name": "a"}}"#,
        r#"{"responseStatus": {"code": 200, "message": "Connection closed early"}, "verb": "watch",
            "requestURI": "/api/v1/secrets?watch=1", "objectRef": {"resource": "secrets"}}"#,
        r#"{"verb": "get", "requestURI": "/api/v1/namespaces/shop/pods/a/exec?command=sh&stdin=true&tty=true",
            "objectRef": {"resource": "pods", "subresource": "exec", "namespace": "shop", "name": "a"},
            "responseStatus": {"code": 101}}"#,
        r#"{"verb": "create", "requestURI": "/api/v1/nodes/n/proxy/run/shop/a/c?cmd=id", "objectRef": {"resource": "nodes",
            "subresource": "proxy", "name": "n"}}"#,
        r#"{"verb": "delete", "objectRef": {"resource": "secrets", "namespace": "kube-system", "name": "a"},
            "requestObject": {"dryRun": ["All"]}}"#,
        r#"{"stage": "ResponseStarted", "user": {}, "responseStatus": {"code": 401, "message": "Unauthorized"}}"#,
        r#"{"requestURI": "/healthz?verbose", "user": {"username": "system:anonymous", "groups": ["system:unauthenticated"]}}"#,
        r#"{"annotations": {"authentication.k8s.io/legacy-token": "x", "audit.k8s.io/truncated": "true",
            "pod-security.kubernetes.io/audit-violations": "would violate PodSecurity \"restricted:latest\""},
            "verb": "create", "objectRef": {"resource": "serviceaccounts", "subresource": "token", "namespace": "a", "name": "b"},
            "requestObject": {"spec": {"expirationSeconds": 9}},
            "user": {"username": "system:serviceaccount:a:b", "groups": [], "extra": {"authentication.kubernetes.io/pod-name": ["p"]}},
            "impersonatedUser": {"username": "system:node:n", "groups": ["system:nodes"]}, "sourceIPs": ["1.1.1.1", "10.0.0.1"]}"#,
        r#"{"rule": "Terminal shell in container", "output_fields": {"k8s.pod.name": "a", "proc.tty": 3}, "tags": ["t"]}"#,
    ];
    events.iter().map(|event| complete(event)).collect()
}

/// Another event of the same class: of the same names or not.
fn sibling(event: &str, same_names: bool) -> String {
    let mut event: Map<String, Json> = serde_json::from_str(event).unwrap();
    for body in ["requestObject", "responseObject", "output", "hostname", "tags"] {
        event.remove(body);
    }
    let dry = event.get("requestURI").is_some_and(|uri| uri.as_str().unwrap().contains("dry"));
    // A delete's dry run is part of its shape.
    if event.get("verb").is_some_and(|verb| verb == "delete") {
        event.insert("requestObject".to_owned(), json!({"laundry": 1}));
    }
    let uri = event.get("requestURI").and_then(Json::as_str).unwrap_or_default();
    let path = if same_names { uri.split('?').next().unwrap_or_default() } else { "/other" };
    event.insert("requestURI".to_owned(), json!(format!("{path}?{}", if dry { "laundry" } else { "other" })));
    let mut set = |path: [&str; 2], value: Json| {
        if let Some(old) = event.get_mut(path[0]).and_then(|object| object.get_mut(path[1])) {
            *old = value;
        }
    };
    if !same_names {
        set(["objectRef", "name"], json!("other"));
        set(["objectRef", "namespace"], json!("other"));
    }
    set(["responseStatus", "message"], json!("other"));
    if let Some(Json::Object(fields)) = event.get_mut("output_fields") {
        fields.clear();
    }
    for (_, value) in event.get_mut("annotations").and_then(Json::as_object_mut).into_iter().flatten() {
        *value = json!("other");
    }
    Json::Object(event).to_string()
}

#[test]
fn what_parts_decide_is_true_of_the_event() {
    for event in events() {
        for fact in all() {
            let seen = value_of(&event, fact, fact.parts);
            let full = value_of(&event, fact, Parts::ALL);
            assert!(seen == "?" || seen == full, "{} is {full} but {seen} by its parts: {event}", fact.name);
        }
    }
}

#[test]
fn what_parts_decide_is_the_same_for_all_that_agree_on_them() {
    let named = |fact: &Fact| fact.parts.0 & Parts::NAME.0 != 0;
    for (event, same_names) in events().into_iter().flat_map(|event| [(event.clone(), true), (event, false)])
    {
        let sibling = sibling(&event, same_names);
        let decided = all().filter(|fact| fact.parts.0 & Parts::REST.0 == 0 && (same_names || !named(fact)));
        for fact in decided {
            let (one, other) = (value_of(&event, fact, fact.parts), value_of(&sibling, fact, fact.parts));
            assert_eq!(one, other, "{} of {event} and {sibling}", fact.name);
        }
    }
}

#[test]
fn shape_alone_decides_what_has_no_object() {
    let read = complete(
        r#"{"verb": "list", "objectRef": {"resource": "leases", "apiGroup": "coordination.k8s.io"}}"#,
    );
    for name in
        ["pod.privileged", "rbac.grants", "secret.type", "exec.command", "kubelet.action", "token.bound"]
    {
        assert_eq!(value_of(&read, get(find(name).unwrap()), Parts::SHAPE), "-", "{name}");
    }
}

/// Every prefix of an event, and every event with a type confused, is judged without panic.
#[test]
fn no_event_panics() {
    for event in events() {
        for end in (1..event.len()).filter(|end| event.is_char_boundary(*end)).step_by(7) {
            all().for_each(|fact| drop(value_of(&event[..end], fact, Parts::ALL)));
        }
        let event: Map<String, Json> = serde_json::from_str(&event).unwrap();
        for key in event.keys() {
            for wrong in [json!(7), json!("x"), json!([1, "a", {}]), json!({"a": 1}), json!(true)] {
                let mut event = event.clone();
                event.insert(key.clone(), wrong);
                let event = Json::Object(event).to_string();
                all().for_each(|fact| drop(value_of(&event, fact, Parts::ALL)));
            }
        }
    }
}
