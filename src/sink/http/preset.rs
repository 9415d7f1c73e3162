//! Kinds of receivers: what each is sent, and what its answers mean. One file each; this is the table of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use detectors::event::time::Nanos;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alertmanager::Alertmanager;
use super::answer::{Answer, Verdict};
use super::config::{Credentials, HttpOutput};
use super::loki::Loki;
use super::opensearch::Opensearch;
use super::webhook::Webhook;
use super::{Payload, falcosidekick, opensearch, otlp, pagerduty, slack, webhook};
use crate::sink::transport::{Batch, Item};

/// A message in a chat that comes later than this helps nobody.
const CHAT: Duration = Duration::from_mins(15);

/// A kind of receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Preset {
    /// Falcosidekick, which forwards to some seventy services.
    Falcosidekick,
    /// Prometheus Alertmanager, API v2.
    Alertmanager,
    /// An incoming webhook of Slack.
    Slack,
    /// PagerDuty's Events API v2.
    Pagerduty,
    /// OpenSearch or Elasticsearch, by the bulk API.
    Opensearch,
    /// Grafana Loki.
    Loki,
    /// OpenTelemetry logs over HTTP, as JSON.
    Otlp,
    /// Any receiver: the alert as it is, or a body of your own.
    Webhook,
}

/// A receiver, ready to be sent to.
#[derive(Debug, Clone)]
pub(super) enum Receiver {
    Falcosidekick,
    Alertmanager(Alertmanager),
    Slack,
    Pagerduty,
    Opensearch(Opensearch),
    Loki(Loki),
    Otlp,
    Webhook(Box<Webhook>),
}

impl Preset {
    /// Its name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Preset::Falcosidekick => "falcosidekick",
            Preset::Alertmanager => "alertmanager",
            Preset::Slack => "slack",
            Preset::Pagerduty => "pagerduty",
            Preset::Opensearch => "opensearch",
            Preset::Loki => "loki",
            Preset::Otlp => "otlp",
            Preset::Webhook => "webhook",
        }
    }

    /// Where it is for everybody.
    pub(super) fn usual_url(self) -> Option<&'static str> {
        (self == Preset::Pagerduty).then_some("https://events.pagerduty.com")
    }

    /// The path of a URL that names none.
    pub(super) fn usual_path(self) -> &'static str {
        match self {
            Preset::Falcosidekick | Preset::Slack | Preset::Webhook => "/",
            Preset::Alertmanager => "/api/v2/alerts",
            Preset::Pagerduty => "/v2/enqueue",
            Preset::Opensearch => "/_bulk",
            Preset::Loki => "/loki/api/v1/push",
            Preset::Otlp => "/v1/logs",
        }
    }

    /// What is added to the URL.
    pub(super) fn query(self) -> Option<&'static [(&'static str, &'static str)]> {
        (self == Preset::Opensearch).then_some(&opensearch::QUERY)
    }

    /// What it likes to get at once. Several alerts a call save time also where each is a request of its own.
    pub(super) fn batch(self) -> Batch {
        let (max_items, max_bytes) = match self {
            Preset::Falcosidekick | Preset::Webhook | Preset::Alertmanager => (64, 1 << 20),
            Preset::Slack => (slack::MOST, 1 << 20),
            Preset::Pagerduty => (8, 512 << 10),
            Preset::Opensearch => (500, 2 << 20),
            Preset::Loki => (500, 1 << 20),
            Preset::Otlp => (512, 1 << 20),
        };
        Batch { max_items, max_bytes, concurrency: 1 }
    }

    /// How many alerts a request holds.
    pub(super) fn alerts_a_request(self) -> usize {
        match self {
            Preset::Falcosidekick | Preset::Webhook | Preset::Pagerduty => 1,
            _ => self.batch().max_items,
        }
    }

    /// True if several requests at a time are possible.
    pub(super) fn is_concurrent(self) -> bool {
        matches!(self, Preset::Falcosidekick | Preset::Webhook)
    }

    /// The least time between requests that the service itself asks for.
    pub(super) fn apart(self) -> Option<Duration> {
        match self {
            // About one message a second for a hook.
            Preset::Slack => Some(Duration::from_secs(1)),
            // About 120 events a minute for a key.
            Preset::Pagerduty => Some(Duration::from_millis(500)),
            _ => None,
        }
    }

    /// How long the receiver may be down before its alerts go to the dead letters.
    pub(super) fn gives_up_after(self) -> Option<Duration> {
        (self == Preset::Slack).then_some(CHAT)
    }

    /// True if the alerts may be in a form of the operator's choice.
    pub(super) fn takes_encodings(self) -> bool {
        matches!(self, Preset::Opensearch | Preset::Loki | Preset::Webhook)
    }
}

impl Receiver {
    pub(super) fn new(output: &HttpOutput) -> Result<Receiver> {
        output.check()?;
        Ok(match output.preset {
            Preset::Falcosidekick => Receiver::Falcosidekick,
            Preset::Alertmanager => Receiver::Alertmanager(Alertmanager::new(output)?),
            Preset::Slack => Receiver::Slack,
            Preset::Pagerduty => {
                pagerduty::check(output)?;
                Receiver::Pagerduty
            }
            Preset::Opensearch => Receiver::Opensearch(Opensearch::new(output)?),
            Preset::Loki => Receiver::Loki(Loki::new(output)?),
            Preset::Otlp => Receiver::Otlp,
            Preset::Webhook => Receiver::Webhook(Box::new(Webhook::new(output)?)),
        })
    }

    /// What is sent. There is at least one alert, and only one where a request holds one.
    pub(super) fn payload(
        &self,
        items: &[Arc<Item>],
        credentials: &Credentials,
        now: Nanos,
    ) -> Result<Payload> {
        match self {
            Receiver::Falcosidekick => Ok(falcosidekick::payload(&items[0])),
            Receiver::Alertmanager(alertmanager) => Ok(alertmanager.payload(items, now)),
            Receiver::Slack => Ok(slack::payload(items)),
            Receiver::Pagerduty => pagerduty::payload(&items[0], credentials),
            Receiver::Opensearch(opensearch) => Ok(opensearch.payload(items)),
            Receiver::Loki(loki) => Ok(loki.payload(items, now)),
            Receiver::Otlp => Ok(otlp::payload(items, now)),
            Receiver::Webhook(webhook) => webhook.payload(&items[0], credentials, now),
        }
    }

    /// What the answer to a request with so many alerts means.
    pub(super) fn verdict(&self, answer: &Answer, items: usize) -> Verdict {
        match self {
            Receiver::Falcosidekick => falcosidekick::verdict(answer),
            Receiver::Alertmanager(_) => super::alertmanager::verdict(answer),
            Receiver::Slack => slack::verdict(answer),
            Receiver::Pagerduty => pagerduty::verdict(answer),
            Receiver::Opensearch(_) => opensearch::verdict(answer, items),
            Receiver::Loki(_) => super::loki::verdict(answer),
            Receiver::Otlp => otlp::verdict(answer, items),
            Receiver::Webhook(_) => webhook::verdict(answer),
        }
    }
}
