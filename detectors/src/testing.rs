//! Detectors' own tests: events written in YAML, filled up with what a real event always has, judged by the real engine.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use yaml_serde::Value as Yaml;

use crate::engine::{Emitted, Engine, Found, Origin};
use crate::level::Level;
use crate::tally::Tally;

/// One test of one detector.
#[derive(Debug, Clone)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// The events, as JSON lines.
    pub events: Vec<String>,
    /// The lists that the config gives.
    pub lists: BTreeMap<String, Vec<String>>,
    /// What is expected.
    pub expect: Expect,
}

/// What a test expects of its detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// At least one alert, of this level if one is given.
    Alert(Option<Level>),
    /// No alert.
    None,
    /// No alert, because the events cannot tell.
    Unknown,
    /// So many alerts.
    Count(usize),
}

/// How a test went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The test's name.
    pub name: String,
    /// What went wrong, if anything did.
    pub failure: Option<String>,
}

/// Reads a detector's `tests`.
///
/// # Errors
/// What is wrong with which test.
pub fn read(tests: &Yaml) -> Result<Vec<Test>, String> {
    let items = tests.as_sequence().ok_or("`tests` is a list")?;
    items.iter().enumerate().map(|(place, item)| test(place, item)).collect()
}

fn test(place: usize, item: &Yaml) -> Result<Test, String> {
    let name = item.get("name").and_then(Yaml::as_str).ok_or(format!("test {} has no `name`", place + 1))?;
    let fault = |reason: &str| format!("test `{name}`: {reason}");
    let given = match (item.get("event"), item.get("events")) {
        (Some(event), None) => vec![event.clone()],
        (None, Some(events)) => events.as_sequence().ok_or(fault("`events` is a list"))?.clone(),
        _ => return Err(fault("give either `event` or `events`")),
    };
    let mut events = Vec::new();
    for event in &given {
        repeated(place, event, &mut events).map_err(|reason| fault(&reason))?;
    }
    let lists = match item.get("config") {
        Some(config) => yaml_serde::from_value(config.clone()).map_err(|e| fault(&e.to_string()))?,
        None => BTreeMap::new(),
    };
    let expect = item.get("expect").ok_or(fault("`expect` is missing"))?;
    Ok(Test { name: name.to_owned(), events, lists, expect: expectation(expect).map_err(|e| fault(&e))? })
}

fn expectation(value: &Yaml) -> Result<Expect, String> {
    if let Some(word) = value.as_str() {
        return match word {
            "alert" => Ok(Expect::Alert(None)),
            "none" => Ok(Expect::None),
            "unknown" => Ok(Expect::Unknown),
            _ => Err(format!("`expect: {word}` is none of alert, none, unknown, {{level: L}}, {{count: N}}")),
        };
    }
    match (value.get("level").and_then(Yaml::as_str), value.get("count").and_then(Yaml::as_u64)) {
        (Some(level), None) => Ok(Expect::Alert(Some(level.parse()?))),
        (None, Some(count)) => Ok(Expect::Count(count as usize)),
        _ => Err("`expect` is alert, none, unknown, {level: L} or {count: N}".to_owned()),
    }
}

/// Adds the event's lines: one, or with `repeat: N` so many, `{n}` replaced by their number.
fn repeated(place: usize, event: &Yaml, lines: &mut Vec<String>) -> Result<(), String> {
    let mut event: Json = serde_json::to_value(event).map_err(|e| e.to_string())?;
    let fields = event.as_object_mut().ok_or("an event is a mapping")?;
    let times = fields.remove("repeat").map_or(Some(1), |n| n.as_u64()).ok_or("`repeat` is a number")?;
    fields.retain(|_, value| !value.is_null());
    for n in 1..=times {
        let mut fields = fields.clone();
        fields.values_mut().for_each(|value| number(value, n));
        let at = lines.len();
        if fields.contains_key("rule") {
            fill_falco(&mut fields, at);
        } else {
            fill_audit(&mut fields, place, at);
        }
        lines.push(Json::Object(fields).to_string());
    }
    Ok(())
}

fn number(value: &mut Json, n: u64) {
    match value {
        Json::String(text) => *text = text.replace("{n}", &n.to_string()),
        Json::Array(items) => items.iter_mut().for_each(|item| number(item, n)),
        Json::Object(members) => members.values_mut().for_each(|member| number(member, n)),
        _ => {}
    }
}

fn stamp(at: usize) -> String {
    format!("2026-03-01T{:02}:{:02}:{:02}.000000Z", 10 + at / 3600, at / 60 % 60, at % 60)
}

fn fill_falco(fields: &mut Map<String, Json>, at: usize) {
    let mut fill = |key: &str, value: Json| {
        fields.entry(key).or_insert(value);
    };
    fill("priority", json!("Notice"));
    fill("source", json!("syscall"));
    fill("hostname", json!("node-1"));
    fill("output", json!("a test"));
    fill("time", json!(stamp(at)));
}

fn fill_audit(fields: &mut Map<String, Json>, place: usize, at: usize) {
    let level = match (fields.contains_key("responseObject"), fields.contains_key("requestObject")) {
        (true, _) => "RequestResponse",
        (false, true) => "Request",
        (false, false) => "Metadata",
    };
    let uri = derived_uri(fields);
    let mut fill = |key: &str, value: Json| {
        fields.entry(key).or_insert(value);
    };
    fill("kind", json!("Event"));
    fill("apiVersion", json!("audit.k8s.io/v1"));
    fill("level", json!(level));
    fill("auditID", json!(format!("00000000-0000-4000-8000-{place:04x}{at:08x}")));
    fill("stage", json!("ResponseComplete"));
    fill("requestURI", json!(uri));
    fill("requestReceivedTimestamp", json!(stamp(at)));
    fill("stageTimestamp", json!(stamp(at)));
    if let Some(user) = fields.get_mut("user").and_then(Json::as_object_mut) {
        fill_groups(user);
    }
}

/// The groups that authentication adds by itself.
fn fill_groups(user: &mut Map<String, Json>) {
    let Some(name) = user.get("username").and_then(Json::as_str) else { return };
    let groups = match name.split(':').collect::<Vec<_>>().as_slice() {
        ["system", "serviceaccount", namespace, _] => {
            json!([
                "system:serviceaccounts",
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated"
            ])
        }
        ["system", "node", _] => json!(["system:nodes", "system:authenticated"]),
        ["system", "anonymous"] => json!(["system:unauthenticated"]),
        _ => json!(["system:authenticated"]),
    };
    user.entry("groups").or_insert(groups);
}

fn derived_uri(fields: &Map<String, Json>) -> String {
    let object = fields.get("objectRef").and_then(Json::as_object);
    let get = |key: &str| object.and_then(|o| o.get(key)).and_then(Json::as_str).unwrap_or_default();
    let version = match get("apiVersion") {
        "" => "v1",
        version => version,
    };
    let mut uri = match get("apiGroup") {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    if !get("namespace").is_empty() {
        uri = format!("{uri}/namespaces/{}", get("namespace"));
    }
    for part in ["resource", "name", "subresource"] {
        if !get(part).is_empty() {
            uri = format!("{uri}/{}", get(part));
        }
    }
    uri
}

/// The alerts of a whole input: those that a judge emitted, and those of the correlations that its steps belong to.
pub fn correlated(engine: &Engine, emitted: Vec<Emitted>) -> Vec<Found> {
    let mut correlator = engine.correlator(crate::correlate::BUDGET);
    let mut found = Vec::new();
    for one in emitted {
        match one {
            Emitted::Alert(alert) => found.push(*alert),
            Emitted::Step(step) => correlator.push(&step, &mut found),
        }
    }
    correlator.finish(&mut found);
    found
}

/// Runs a test of `detector` on an engine whose settings have the test's lists.
pub fn run(engine: &Engine, detector: &str, test: &Test) -> Outcome {
    let mut worker = engine.worker();
    let mut emitted = Vec::new();
    for line in &test.events {
        worker.lines(Origin { input: "test", offset: 0 }, line.as_bytes(), &mut emitted);
    }
    let found = correlated(engine, emitted);
    let mut levels: BTreeMap<uuid::Uuid, Level> = BTreeMap::new();
    for one in found.iter().filter(|one| one.alert.detector == detector) {
        levels.entry(one.alert.uuid).or_insert(one.alert.level);
    }
    let levels: Vec<Level> = levels.into_values().collect();
    let failure = judge(&test.expect, &levels, blind(engine, detector, &worker.take_tally()));
    Outcome { name: test.name.clone(), failure }
}

fn blind(engine: &Engine, detector: &str, tally: &Tally) -> bool {
    tally.blind.keys().any(|index| engine.detectors()[*index as usize].name == detector)
}

fn judge(expect: &Expect, levels: &[Level], blind: bool) -> Option<String> {
    let got = || match (levels, blind) {
        ([], true) => "the condition was unknown".to_owned(),
        ([], false) => "no alert".to_owned(),
        (levels, _) => {
            let names: Vec<_> = levels.iter().map(|level| level.name()).collect();
            format!("{} alert(s): {}", levels.len(), names.join(", "))
        }
    };
    let (right, wanted) = match expect {
        Expect::Alert(None) => (!levels.is_empty(), "an alert".to_owned()),
        Expect::Alert(Some(level)) => (levels.contains(level), format!("an alert of level {level}")),
        Expect::None => (levels.is_empty() && !blind, "no alert".to_owned()),
        Expect::Unknown => (levels.is_empty() && blind, "an unknown condition".to_owned()),
        Expect::Count(count) => (levels.len() == *count, format!("{count} alert(s)")),
    };
    (!right).then(|| format!("expected {wanted}, got {}", got()))
}
