//! PagerDuty's Events API v2: one event a request.
//!
//! The key of deduplication is what repeats have in common, not the alert's id: the tenth denied attempt belongs to the
//! incident of the first.

use anyhow::{Context as _, Result, bail};
use reqwest::StatusCode;
use serde_json::json;

use super::answer::{Answer, Setup, Verdict};
use super::config::{Credentials, HttpOutput};
use super::{Payload, severity};
use crate::sink::encoding;
use crate::sink::transport::{Item, group_key};
use crate::{text, view};

/// Characters of a summary, and of the shorter texts.
const SUMMARY: usize = 1_024;
const SHORT: usize = 255;
/// Characters of a routing key.
const ROUTING_KEY: usize = 32;

pub(super) fn check(output: &HttpOutput) -> Result<()> {
    let Some(key) = &output.routing_key else {
        bail!("preset pagerduty needs a `routing_key`: the integration key of an Events API v2 integration");
    };
    if key.reveal().context("routing_key")?.len() != ROUTING_KEY {
        bail!("routing_key: the key of an Events API v2 integration has {ROUTING_KEY} characters");
    }
    Ok(())
}

pub(super) fn payload(item: &Item, credentials: &Credentials) -> Result<Payload> {
    let alert = &item.alert;
    let Some(routing_key) = &credentials.routing_key else { bail!("there is no routing key") };
    let short = |text: &str, limit: usize| text::clipped(&text::for_terminal(text), limit).into_owned();
    let source = [alert.cluster.as_deref(), alert.hostname.as_deref()]
        .into_iter()
        .flatten()
        .find(|text| !text.is_empty())
        .unwrap_or("kubernetes");
    let component = [view::resource(alert).as_str(), view::name(alert)].join(" ");
    let event = json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": group_key(alert),
        "client": "Lapwing",
        "payload": {
            "summary": short(&format!("{}: {}", alert.rule, view::message(alert)), SUMMARY),
            "source": short(source, SHORT),
            "severity": severity(alert.level),
            "timestamp": alert.time,
            "component": short(component.trim(), SHORT),
            "group": short(view::namespace(alert), SHORT),
            "class": alert.detector,
            "custom_details": {
                "uuid": alert.uuid,
                "level": alert.level.name(),
                "user": view::actor(alert),
                "client_ip": view::address(alert),
                "tags": alert.tags,
                "fields": alert.output_fields,
                "k8s": alert.k8s,
                "count": item.alert.group.as_ref().map(|group| group.count).or(alert.count),
            },
        },
    });
    Ok(Payload::json(encoding::json(&event)))
}

/// It accepts with 202 and nothing else. What it says of an error names fields, not their values.
pub(super) fn verdict(answer: &Answer) -> Verdict {
    answer.verdict_of(StatusCode::ACCEPTED, Setup::Waits, &answer.with_body())
}
