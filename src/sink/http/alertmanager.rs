//! Prometheus Alertmanager, API v2.
//!
//! Its labels are what identifies an alert, so that only what groups belongs there: who did it from where stands in the
//! annotations, or every user would be an alert of its own. Without an end it would take the alert for resolved after its
//! `resolve_timeout` of five minutes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use detectors::event::time::{self, Nanos};
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Setup, Verdict};
use super::config::HttpOutput;
use super::{Payload, severity};
use crate::sink::encoding;
use crate::sink::transport::Item;
use crate::{text, view};

/// How long an alert lasts unless it is repeated.
const HOLD: Duration = Duration::from_hours(1);
/// Characters of an annotation.
const LONGEST: usize = 2_000;

/// An Alertmanager, or a cluster of them.
#[derive(Debug, Clone)]
pub(super) struct Alertmanager {
    hold: Nanos,
}

impl Alertmanager {
    pub(super) fn new(output: &HttpOutput) -> Result<Alertmanager> {
        let hold = output.hold.map_or(HOLD, |hold| hold.0);
        match Nanos::try_from(hold.as_nanos()) {
            Ok(hold) if hold > 0 => Ok(Alertmanager { hold }),
            _ => bail!("`hold` is how long an alert lasts: write for instance 1h"),
        }
    }

    pub(super) fn payload(&self, items: &[Arc<Item>], now: Nanos) -> Payload {
        let alerts: Value = items.iter().map(|item| self.alert(item, now)).collect();
        Payload::json(encoding::json(&alerts))
    }

    fn alert(&self, item: &Item, now: Nanos) -> Value {
        let alert = &item.alert;
        let request = alert.k8s.as_ref();
        let labels = [
            ("alertname", alert.rule.as_str()),
            ("severity", severity(alert.level)),
            ("level", alert.level.name()),
            ("detector", &alert.detector),
            ("source", &alert.source),
            ("cluster", alert.cluster.as_deref().unwrap_or_default()),
            ("namespace", view::namespace(alert)),
        ];
        let message = view::message(alert);
        let resource = view::resource(alert);
        let uuid = alert.uuid.to_string();
        let count = item.alert.group.as_ref().map(|group| group.count.to_string()).unwrap_or_default();
        let annotations = [
            ("summary", message),
            ("description", &alert.output),
            ("user", view::actor(alert)),
            ("client_ip", view::address(alert)),
            ("verb", request.map_or("", |request| &request.verb)),
            ("resource", &resource),
            ("name", view::name(alert)),
            ("outcome", request.map_or("", |request| &request.outcome)),
            ("audit_id", request.map_or("", |request| &request.audit_id)),
            ("uuid", &uuid),
            ("time", &alert.time),
            ("count", &count),
        ];
        // An alert may not end before it starts; clocks of others may be ahead.
        let start = time::parse(alert.time.as_bytes()).unwrap_or(now).min(now);
        json!({
            "labels": texts(&labels),
            "annotations": texts(&annotations),
            "startsAt": time::format(start),
            "endsAt": time::format(now.saturating_add(self.hold)),
        })
    }
}

/// Names and what stands under them; an empty label is none.
fn texts(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| {
            let shown = text::for_terminal(text);
            ((*name).to_owned(), Value::from(text::clipped(&shown, LONGEST)))
        })
        .collect()
}

pub(super) fn verdict(answer: &Answer) -> Verdict {
    answer.verdict_of(StatusCode::OK, Setup::Rejects, &answer.with_body())
}
