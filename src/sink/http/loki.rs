//! Grafana Loki's push API.
//!
//! Labels have few values each, because every combination is a stream of its own; what tells alerts apart stands in the line
//! and in its structured metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use detectors::event::time::{self, Nanos};
use reqwest::StatusCode;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Payload;
use super::answer::{Answer, Setup, Verdict};
use super::config::{HttpOutput, Timestamps};
use crate::sink::encoding::{self, Encoding};
use crate::sink::transport::Item;
use crate::{text, view};

/// Labels of the operator's own; five are ours, and Loki takes fifteen.
const MOST_LABELS: usize = 10;
const OURS: [&str; 5] = ["app", "cluster", "level", "priority", "source"];
/// Characters of a label's value, and of metadata.
const LONGEST: usize = 1_000;

/// A Loki.
#[derive(Debug, Clone)]
pub(super) struct Loki {
    encoding: Encoding,
    tenant: Option<HeaderValue>,
    labels: BTreeMap<String, String>,
    timestamps: Timestamps,
}

impl Loki {
    pub(super) fn new(output: &HttpOutput) -> Result<Loki> {
        if output.labels.len() > MOST_LABELS {
            bail!("`labels`: at most {MOST_LABELS} are possible, because Loki takes few");
        }
        for name in output.labels.keys() {
            if OURS.contains(&name.as_str()) {
                bail!("labels.{name}: this label is set by Lapwing itself: leave it out");
            }
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word) {
                bail!("labels: `{name}` is no name of a label: letters, digits and `_`, no digit first");
            }
        }
        let tenant = output.tenant.as_deref().map(HeaderValue::from_str).transpose();
        Ok(Loki {
            encoding: output.encoding,
            tenant: tenant.map_err(|_| anyhow!("`tenant` is no name of a tenant: it goes into a header"))?,
            labels: output.labels.clone(),
            timestamps: output.timestamps.unwrap_or_default(),
        })
    }

    pub(super) fn payload(&self, items: &[Arc<Item>], now: Nanos) -> Payload {
        let mut streams: BTreeMap<BTreeMap<&str, String>, Vec<(Nanos, Value)>> = BTreeMap::new();
        for item in items {
            let moment = match self.timestamps {
                Timestamps::Event => time::parse(item.alert.time.as_bytes()).unwrap_or(now),
                Timestamps::Now => now,
            };
            let entry = json!([moment.to_string(), self.encoding.line(item), metadata(item)]);
            streams.entry(self.stream(item)).or_default().push((moment, entry));
        }
        let streams: Vec<_> = streams
            .into_iter()
            .map(|(stream, mut entries)| {
                entries.sort_by_key(|(moment, _)| *moment);
                let values: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
                json!({"stream": stream, "values": values})
            })
            .collect();
        let mut payload = Payload::json(encoding::json(&json!({"streams": streams})));
        if let Some(tenant) = &self.tenant {
            payload.headers.push((HeaderName::from_static("x-scope-orgid"), tenant.clone()));
        }
        payload
    }

    fn stream<'s>(&'s self, item: &'s Item) -> BTreeMap<&'s str, String> {
        let alert = &item.alert;
        let mut stream: BTreeMap<_, _> =
            self.labels.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        stream.insert("app", "lapwing".to_owned());
        stream.insert("level", alert.level.name().to_owned());
        stream.insert("priority", alert.priority.to_ascii_lowercase());
        stream.insert("source", short(&alert.source));
        if let Some(cluster) = alert.cluster.as_deref().filter(|cluster| !cluster.is_empty()) {
            stream.insert("cluster", short(cluster));
        }
        stream
    }
}

/// Texts beside the line, by which can be searched.
fn metadata(item: &Item) -> BTreeMap<&'static str, String> {
    let alert = &item.alert;
    let uuid = alert.uuid.to_string();
    let texts = [
        ("detector", alert.detector.as_str()),
        ("uuid", &uuid),
        ("namespace", view::namespace(alert)),
        ("user", view::actor(alert)),
    ];
    texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, short(text))).collect()
}

fn short(text: &str) -> String {
    text::clipped(&text::for_terminal(text), LONGEST).into_owned()
}

/// Its errors name labels and times, not lines.
pub(super) fn verdict(answer: &Answer) -> Verdict {
    answer.verdict_of(StatusCode::NO_CONTENT, Setup::Waits, &answer.with_body())
}
