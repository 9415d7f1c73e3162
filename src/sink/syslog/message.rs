//! Messages of RFC 5424.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;

use detectors::level::Level;

use super::cef;
use crate::sink::transport::Item;
use crate::{text, view};

/// Characters of a value in the structured data.
const VALUE: usize = 200;
/// The number that IANA keeps for examples: we have none of our own.
const ENTERPRISE: u32 = 32_473;

/// What all messages begin with.
#[derive(Debug, Clone)]
pub(super) struct Header {
    facility: u8,
    hostname: String,
    process: u32,
}

impl Header {
    pub(super) fn new(facility: u8, hostname: Option<&str>) -> Header {
        let own = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = hostname.map_or_else(own, str::to_owned);
        Header { facility, hostname: word(hostname.trim(), 255), process: std::process::id() }
    }

    /// The same header wherever a test runs.
    #[cfg(test)]
    pub(super) fn pin(&mut self, process: u32) {
        self.process = process;
    }

    fn start(&self, item: &Item) -> String {
        let alert = &item.alert;
        let priority = u16::from(self.facility) * 8 + severity(alert.level);
        format!("<{priority}>1 {} {} lapwing {} ALERT ", moment(&alert.time), self.hostname, self.process)
    }
}

/// The sentence, with the values as structured data.
pub(super) fn plain(header: &Header, item: &Item, limit: usize) -> Vec<u8> {
    let alert = &item.alert;
    let mut message = header.start(item);
    let uuid = alert.uuid.to_string();
    let resource = view::resource(alert);
    let count =
        item.alert.group.as_ref().map(|group| group.count).or(alert.count).map(|count| count.to_string());
    // Writing to a string cannot fail, here and below.
    let _ = write!(message, "[lapwing@{ENTERPRISE}");
    for (name, value) in [
        ("uuid", uuid.as_str()),
        ("detector", &alert.detector),
        ("level", alert.level.name()),
        ("rule", &alert.rule),
        ("cluster", alert.cluster.as_deref().unwrap_or_default()),
        ("user", view::actor(alert)),
        ("ip", view::address(alert)),
        ("verb", alert.k8s.as_ref().map_or("", |request| &request.verb)),
        ("resource", &resource),
        ("namespace", view::namespace(alert)),
        ("name", view::name(alert)),
        ("outcome", alert.k8s.as_ref().map_or("", |request| &request.outcome)),
        ("count", count.as_deref().unwrap_or_default()),
    ] {
        // A value is never cut in the middle of an escape, and all of them together stay far below the limit.
        if !value.is_empty() && message.len() + 6 * VALUE < limit {
            let _ = write!(message, " {name}=\"{}\"", parameter(value));
        }
    }
    message.push_str("] ");
    message.push_str(&text::for_terminal(view::message(alert)));
    cut(message, limit)
}

/// The same header, and the alert in CEF.
pub(super) fn cef(header: &Header, item: &Item, limit: usize) -> Vec<u8> {
    let mut message = header.start(item);
    message.push_str("- ");
    let room = limit.saturating_sub(message.len());
    message.push_str(&cef::event(item, room));
    message.into_bytes()
}

/// A value of structured data: `"`, `\` and `]` are escaped, and nothing in it ends a line.
fn parameter(value: &str) -> String {
    let visible = text::for_terminal(value);
    let mut out = String::with_capacity(visible.len());
    for c in text::clipped(&visible, VALUE).chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A word of the header: visible ASCII, or a dash.
fn word(text: &str, limit: usize) -> String {
    let word: String = text.chars().filter(char::is_ascii_graphic).take(limit).collect();
    if word.is_empty() { "-".to_owned() } else { word }
}

/// The time with the six digits that syslog has.
fn moment(time: &str) -> Cow<'_, str> {
    match time.split_once('.') {
        Some((seconds, rest)) if time.is_ascii() => {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).take(6).collect();
            let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            Cow::Owned(format!("{}.{digits}{}", word(seconds, 32), word(zone, 6)))
        }
        _ => Cow::Owned(word(time, 32)),
    }
}

/// At most so many bytes, and whole characters.
fn cut(mut message: String, limit: usize) -> Vec<u8> {
    message.truncate(message.floor_char_boundary(limit));
    message.into_bytes()
}

/// Syslog's numbers for Falco's priorities.
fn severity(level: Level) -> u16 {
    match level {
        Level::Informational => 6,
        Level::Low => 5,
        Level::Medium => 4,
        Level::High => 3,
        Level::Critical => 2,
    }
}
