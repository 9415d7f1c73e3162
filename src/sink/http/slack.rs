//! An incoming webhook of Slack.
//!
//! Text of events stands only in objects of type `plain_text`, in which nothing is formatted, linked or mentioned; `&`, `<` and
//! `>` are escaped besides, and nothing is unfurled. A few alerts are shown one by one; many become a digest, because a hook
//! takes about one message a second and a person reads fewer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use detectors::level::Level;
use serde_json::{Value, json};

use super::Payload;
use super::answer::{Answer, Verdict};
use crate::sink::encoding;
use crate::sink::transport::{Item, Outcome};
use crate::{text, view};

/// Alerts of a message.
pub(super) const MOST: usize = 100;
/// Alerts that are shown one by one.
const SINGLY: usize = 5;
/// Detectors of a digest that are shown.
const DETECTORS: usize = 20;
/// Characters: of a text in a block (Slack allows 3000), of a header (150), of a line.
const TEXT: usize = 2_900;
const HEADER: usize = 150;
const LINE: usize = 300;

pub(super) fn payload(items: &[Arc<Item>]) -> Payload {
    let (fallback, blocks) = if items.len() <= SINGLY { singly(items) } else { digest(items) };
    let message = json!({
        "text": fallback,
        "mrkdwn": false,
        "blocks": blocks,
        "unfurl_links": false,
        "unfurl_media": false,
    });
    Payload::json(encoding::json(&message))
}

fn singly(items: &[Arc<Item>]) -> (String, Vec<Value>) {
    let mut blocks = Vec::new();
    let mut titles = Vec::new();
    for item in items {
        let alert = &item.alert;
        let title = format!("{}: {}", alert.level.name(), alert.rule);
        blocks.push(json!({"type": "header", "text": plain(&title, HEADER)}));
        blocks.push(json!({"type": "section", "text": plain(view::message(alert), TEXT)}));
        let mut context = Vec::new();
        let resource = view::resource(alert);
        let count = item.alert.group.as_ref().map(|group| group.count.to_string()).unwrap_or_default();
        for (name, value) in [
            ("cluster", alert.cluster.as_deref().unwrap_or_default()),
            ("user", view::actor(alert)),
            ("from", view::address(alert)),
            ("resource", &resource),
            ("namespace", view::namespace(alert)),
            ("name", view::name(alert)),
            ("detector", &alert.detector),
            ("repeated", &count),
            ("time", &alert.time),
        ] {
            if !value.is_empty() {
                context.push(plain(&format!("{name}: {value}"), LINE));
            }
        }
        blocks.push(json!({"type": "context", "elements": context}));
        titles.push(escaped(&title, HEADER));
    }
    (titles.join("\n"), blocks)
}

fn digest(items: &[Arc<Item>]) -> (String, Vec<Value>) {
    // By level, the worst first, then by detector.
    let mut detectors: BTreeMap<(std::cmp::Reverse<Level>, &str), (usize, &Item)> = BTreeMap::new();
    for item in items {
        let key = (std::cmp::Reverse(item.alert.level), item.alert.detector.as_str());
        detectors.entry(key).or_insert((0, item)).0 += 1;
    }
    let worst = items.iter().map(|item| item.alert.level).max().unwrap_or(Level::Informational);
    let title = format!("{} alerts, the worst is {}", items.len(), worst.name());
    let mut blocks = vec![json!({"type": "header", "text": plain(&title, HEADER)})];
    let shown = detectors.iter().take(DETECTORS);
    for ((level, detector), (count, first)) in shown {
        let message = text::clipped(view::message(&first.alert), LINE);
        let mut line = format!("{} × {} ({detector}): {message}", count, level.0.name());
        if *count > 1 {
            let _ = write!(line, ", and {} more", count - 1); // writing to a string cannot fail
        }
        blocks.push(json!({"type": "section", "text": plain(&line, TEXT)}));
    }
    if detectors.len() > DETECTORS {
        let line = format!("and {} more detectors", detectors.len() - DETECTORS);
        blocks.push(json!({"type": "section", "text": plain(&line, TEXT)}));
    }
    (escaped(&title, HEADER), blocks)
}

fn plain(text: &str, limit: usize) -> Value {
    json!({"type": "plain_text", "emoji": false, "text": escaped(text, limit)})
}

/// At most so many characters, entities counted whole: half of one would be shown as it stands.
fn escaped(text: &str, limit: usize) -> String {
    let visible = text::for_terminal(text);
    let mut out = String::new();
    let mut length = 0;
    for c in visible.chars() {
        let (entity, taken) = match c {
            '&' => ("&amp;", 5),
            '<' => ("&lt;", 4),
            '>' => ("&gt;", 4),
            _ => ("", 1),
        };
        length += taken;
        if length > limit - 1 {
            out.push('…');
            break;
        }
        if entity.is_empty() {
            out.push(c);
        } else {
            out.push_str(entity);
        }
    }
    if out.is_empty() { "-".to_owned() } else { out }
}

/// Slack's errors are short words, such as `invalid_payload` or `no_service`.
pub(super) fn verdict(answer: &Answer) -> Verdict {
    let reason = answer.with_body();
    let says_ok = answer.body.trim_ascii() == b"ok";
    match answer.status.as_u16() {
        200 if says_ok => Verdict::All(Outcome::Accepted),
        400 => Verdict::Spoilt(Outcome::rejected(reason)),
        200 | 401..=407 | 409..=424 | 426..=428 | 430..=499 => Verdict::All(Outcome::rejected(reason)),
        _ => Verdict::All(answer.retry(&reason)),
    }
}
