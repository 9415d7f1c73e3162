//! Fields that public rules for the audit log use although no event has them, and verbs that have changed.
//!
//! SigmaHQ's rules were written against fields of a backend, or against kubectl before it used websockets. As written, they
//! would load and never match. (What a process monitor calls `file_path`, the program that ran, is for the audit log the
//! command of an exec.)

use std::borrow::Cow;

use yaml_serde::{Mapping, Value};

/// The authorizer's decision.
const DECISION: &str = "annotations.authorization.k8s.io/decision";
/// Requests that take over a connection; current clients open them with `get`.
const CONNECT: [&str; 3] = ["exec", "attach", "portforward"];

/// An item: a key and its values.
type Item<'r> = (Cow<'r, str>, Cow<'r, [Value]>);

/// What an item of an audit rule's map stands for: any one of these items.
pub(super) fn adapt<'r>(key: &'r str, values: &'r [Value], map: &Mapping) -> Vec<Item<'r>> {
    let (name, modifiers) = key.split_at(key.find('|').unwrap_or(key.len()));
    let renamed = |to: &str| vec![(Cow::Owned(format!("{to}{modifiers}")), Cow::Borrowed(values))];
    match name.to_ascii_lowercase().as_str() {
        "apigroup" => renamed("objectRef.apiGroup"),
        "hostpath" => renamed("pod.host-paths"),
        "capabilities" => renamed("pod.capabilities"),
        "file_path" => renamed("exec.command"),
        "responsestatus.code" if modifiers.is_empty() => split(key, DECISION, values, decision),
        "objectref.resource" if modifiers.is_empty() => split(key, "target.type", values, with_subresource),
        "verb" if modifiers.is_empty() && connects(map) => vec![(Cow::Borrowed(key), with_get(values))],
        _ => vec![(Cow::Borrowed(key), Cow::Borrowed(values))],
    }
}

/// The values that stay under `key`, and those that belong under `other`.
fn split<'r>(
    key: &'r str,
    other: &'static str,
    values: &'r [Value],
    belongs: impl Fn(&Value) -> Option<Value>,
) -> Vec<Item<'r>> {
    let moved: Vec<Value> = values.iter().filter_map(&belongs).collect();
    if moved.is_empty() {
        return vec![(Cow::Borrowed(key), Cow::Borrowed(values))];
    }
    let stay: Vec<Value> = values.iter().filter(|value| belongs(value).is_none()).cloned().collect();
    let mut items = vec![(Cow::Borrowed(other), Cow::Owned(moved))];
    if !stay.is_empty() {
        items.insert(0, (Cow::Borrowed(key), Cow::Owned(stay)));
    }
    items
}

/// A decision where a status code was expected.
fn decision(value: &Value) -> Option<Value> {
    let text = value.as_str()?.to_ascii_lowercase();
    matches!(text.as_str(), "allow" | "forbid").then_some(Value::String(text))
}

/// `pods/exec` where a resource was expected.
fn with_subresource(value: &Value) -> Option<Value> {
    value.as_str()?.contains('/').then(|| value.clone())
}

/// True if a map selects connect requests.
fn connects(map: &Mapping) -> bool {
    let names = |key: &str| match map.get(key) {
        Some(Value::Sequence(values)) => values.clone(),
        Some(value) => vec![value.clone()],
        None => Vec::new(),
    };
    let subresource = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        CONNECT.iter().any(|name| text.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(name)))
    };
    names("objectRef.subresource").iter().chain(&names("objectRef.resource")).any(subresource)
}

/// The verbs, with `get` if `create` is among them.
fn with_get(values: &[Value]) -> Cow<'_, [Value]> {
    let has = |verb: &str| values.iter().any(|v| v.as_str().is_some_and(|v| v.eq_ignore_ascii_case(verb)));
    if !has("create") || has("get") {
        return Cow::Borrowed(values);
    }
    let mut verbs = values.to_vec();
    verbs.push(Value::String("get".into()));
    Cow::Owned(verbs)
}
