//! OpenTelemetry logs over HTTP, in JSON: one protocol that collectors and most vendors take.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>. Numbers of 64 bits are texts in this JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use detectors::event::time::{self, Nanos};
use detectors::level::Level;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::Payload;
use super::answer::{Answer, Setup, Verdict};
use crate::sink::encoding;
use crate::sink::transport::{Item, Outcome};
use crate::view;

pub(super) fn payload(items: &[Arc<Item>], now: Nanos) -> Payload {
    let mut clusters: BTreeMap<Option<&str>, Vec<Value>> = BTreeMap::new();
    for item in items {
        clusters.entry(item.alert.cluster.as_deref()).or_default().push(record(item, now));
    }
    let resources: Vec<_> = clusters
        .into_iter()
        .map(|(cluster, records)| {
            let mut attributes = vec![text("service.name", "lapwing")];
            attributes.extend(cluster.map(|cluster| text("k8s.cluster.name", cluster)));
            json!({
                "resource": {"attributes": attributes},
                "scopeLogs": [{
                    "scope": {"name": "lapwing", "version": env!("CARGO_PKG_VERSION")},
                    "logRecords": records,
                }],
            })
        })
        .collect();
    Payload::json(encoding::json(&json!({"resourceLogs": resources})))
}

fn record(item: &Item, now: Nanos) -> Value {
    let alert = &item.alert;
    let request = alert.k8s.as_ref();
    let (severity, name) = severity(alert.level);
    let uuid = alert.uuid.to_string();
    let resource = view::resource(alert);
    let mut attributes: Vec<_> = [
        ("event.name", "lapwing.alert"),
        ("lapwing.uuid", &uuid),
        ("lapwing.detector", &alert.detector),
        ("lapwing.rule", &alert.rule),
        ("lapwing.level", alert.level.name()),
        ("lapwing.source", &alert.source),
        ("k8s.namespace.name", view::namespace(alert)),
        ("k8s.object.name", view::name(alert)),
        ("k8s.object.resource", &resource),
        ("user.name", view::actor(alert)),
        ("client.address", view::address(alert)),
        ("user_agent.original", request.map_or("", |request| &request.user_agent)),
        ("k8s.audit.id", request.map_or("", |request| &request.audit_id)),
        ("k8s.audit.verb", request.map_or("", |request| &request.verb)),
        ("k8s.audit.outcome", request.map_or("", |request| &request.outcome)),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| text(key, value))
    .collect();
    attributes.extend(
        request.and_then(|request| request.code).map(|code| number("http.response.status_code", code)),
    );
    let count = item.alert.group.as_ref().map(|group| group.count).or(alert.count);
    attributes.extend(count.map(|count| number("lapwing.count", i64::try_from(count).unwrap_or(i64::MAX))));
    attributes
        .extend(alert.output_fields.iter().map(|(key, value)| text(&format!("falco.field.{key}"), value)));
    json!({
        "timeUnixNano": time::parse(alert.time.as_bytes()).unwrap_or(now).max(0).to_string(),
        "observedTimeUnixNano": now.to_string(),
        "severityNumber": severity,
        "severityText": name,
        "body": {"stringValue": view::message(alert)},
        "attributes": attributes,
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: i64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn severity(level: Level) -> (u8, &'static str) {
    match level {
        Level::Informational => (9, "INFO"),
        Level::Low => (10, "NOTICE"),
        Level::Medium => (13, "WARN"),
        Level::High => (17, "ERROR"),
        Level::Critical => (18, "CRITICAL"),
    }
}

/// Only four statuses may be tried again. Records that were rejected may not; and which ones they were is not said, so that all
/// of the request count as rejected: better a dead letter too many than one too few.
pub(super) fn verdict(answer: &Answer, items: usize) -> Verdict {
    match answer.status.as_u16() {
        200 => match rejected(&answer.body) {
            0 => Verdict::All(Outcome::Accepted),
            number => Verdict::All(Outcome::rejected(format!(
                "the receiver rejected {number} of {items} records without saying which"
            ))),
        },
        429 | 502..=504 => Verdict::All(answer.retry(&answer.alone())),
        201..=399 => answer.verdict_of(StatusCode::OK, Setup::Rejects, &answer.alone()),
        400 | 413 => Verdict::Spoilt(Outcome::rejected(answer.alone())),
        _ => Verdict::All(Outcome::rejected(answer.alone())),
    }
}

fn rejected(body: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    match &answer["partialSuccess"]["rejectedLogRecords"] {
        Value::String(number) => number.parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    }
}
