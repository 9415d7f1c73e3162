//! ArcSight's Common Event Format.
//!
//! `\` and `|` are escaped in the header, `\` and `=` in the values, and neither holds a line break.

use std::net::IpAddr;

use detectors::event::time;
use detectors::level::Level;

use crate::sink::transport::Item;
use crate::{text, view};

/// Characters of a header's field, and of a value: most of the format's own limits are higher.
const FIELD: usize = 200;
const VALUE: usize = 1_000;
/// Nanoseconds in a millisecond.
const MILLI: i64 = 1_000_000;

/// The alert in at most so many bytes: a value that no longer fits is left out with all that follow it.
pub(super) fn event(item: &Item, limit: usize) -> String {
    let alert = &item.alert;
    let mut out = format!(
        "CEF:0|Lapwing|lapwing|{}|{}|{}|{}|",
        env!("CARGO_PKG_VERSION"),
        header(&alert.detector),
        header(&alert.rule),
        severity(alert.level)
    );
    let mut separator = "";
    for (key, value) in values(item) {
        if value.is_empty() {
            continue;
        }
        let pair = format!("{separator}{key}={}", escaped(&value));
        if out.len() + pair.len() > limit {
            break;
        }
        out.push_str(&pair);
        separator = " ";
    }
    out
}

fn values(item: &Item) -> Vec<(&'static str, String)> {
    let alert = &item.alert;
    let request = alert.k8s.as_ref();
    let of = |pick: fn(&detectors::alert::Request) -> &str| request.map(pick).unwrap_or_default().to_owned();
    // The format knows addresses only.
    let address = view::address(alert);
    let source = if address.parse::<IpAddr>().is_ok() { address } else { "" };
    let millis = time::parse(alert.time.as_bytes()).unwrap_or_default().div_euclid(MILLI);
    let labelled = |label: &str, value: &str| if value.is_empty() { String::new() } else { label.to_owned() };
    let (namespace, resource) = (view::namespace(alert).to_owned(), view::resource(alert));
    let name = view::name(alert).to_owned();
    let count = item.alert.group.as_ref().map(|group| group.count).or(alert.count);
    vec![
        ("rt", millis.to_string()),
        ("externalId", alert.uuid.to_string()),
        ("suser", view::actor(alert).to_owned()),
        ("src", source.to_owned()),
        ("requestMethod", of(|request| &request.verb)),
        ("act", of(|request| &request.verb)),
        (
            "outcome",
            request.and_then(|request| request.code).map_or_else(String::new, |code| code.to_string()),
        ),
        ("dhost", alert.cluster.clone().unwrap_or_default()),
        ("cs1Label", labelled("namespace", &namespace)),
        ("cs1", namespace),
        ("cs2Label", labelled("resource", &resource)),
        ("cs2", resource),
        ("cs3Label", labelled("name", &name)),
        ("cs3", name),
        ("cnt", count.map_or_else(String::new, |count| count.to_string())),
        ("request", alert.output_fields.get("ka.uri").cloned().unwrap_or_default()),
        ("requestClientApplication", of(|request| &request.user_agent)),
        ("msg", view::message(alert).to_owned()),
    ]
}

fn header(text: &str) -> String {
    escape(text, FIELD, '|')
}

fn escaped(text: &str) -> String {
    escape(text, VALUE, '=')
}

fn escape(text: &str, limit: usize, special: char) -> String {
    let visible = text::for_terminal(text);
    let mut out = String::with_capacity(visible.len());
    for c in text::clipped(&visible, limit).chars() {
        if c == '\\' || c == special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Informational => 3,
        Level::Low => 4,
        Level::Medium => 6,
        Level::High => 7,
        Level::Critical => 8,
    }
}
