//! What a record is: found by content, record by record, so that a file may mix everything freely.

use std::borrow::Cow;

use super::{Event, Top, pieces};
use crate::scan::{Kind, Node};

/// What a JSON object turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// An audit event.
    Audit,
    /// A Falco alert.
    Falco,
    /// A list whose `items` may be events. A decoder takes one of several `items`; we look at all, so that none is hidden.
    List,
    /// An object that may carry a record in one of its members ([`carriers`]), as text or as an object.
    Carrier,
    /// One of our own alerts.
    LapwingAlert,
    /// Something else.
    Unknown,
}

/// The names of members that carry a record.
const CARRIERS: [Top; 5] = [Top::Log, Top::Message, Top::Raw, Top::Line, Top::EventText];

/// Decides what a skimmed object is.
pub fn nature(event: &Event<'_>) -> Nature {
    if event.raw(Top::Schema).is_some_and(|schema| schema.starts_with(b"lapwing/")) {
        return Nature::LapwingAlert;
    }
    if is_audit(event) {
        return Nature::Audit;
    }
    if event.has(Top::Rule) && (event.has(Top::Priority) || event.has(Top::OutputFields)) {
        return Nature::Falco;
    }
    if lists(event).next().is_some() {
        return Nature::List;
    }
    if carriers(event).next().is_some() { Nature::Carrier } else { Nature::Unknown }
}

impl Nature {
    /// True for what is looked for inside a carrier.
    pub fn is_record(self) -> bool {
        !matches!(self, Nature::Carrier | Nature::Unknown)
    }
}

/// The lists of a list object.
pub fn lists<'a>(event: &Event<'a>) -> impl Iterator<Item = Node<'a>> {
    let there = event.has(Top::Items).then(|| event.every(Top::Items));
    there.into_iter().flatten().filter(|items| items.kind() == Kind::Array)
}

/// The members that may carry a record, in the order in which they are tried.
pub fn carriers<'a>(event: &Event<'a>) -> impl Iterator<Item = Node<'a>> {
    CARRIERS.into_iter().filter_map(|key| event.node(key).filter(|node| may_carry(*node, key)))
}

/// An audit event shows itself by its id or, when that was lost, by who did what.
fn is_audit(event: &Event<'_>) -> bool {
    event.has(Top::AuditId)
        || (event.has(Top::Verb)
            && (event.has(Top::RequestUri) || event.has(Top::ObjectRef) || event.has(Top::Stage)))
        || (event.has(Top::RequestUri) && event.has(Top::Stage))
}

fn may_carry(node: Node<'_>, key: Top) -> bool {
    match node.kind() {
        Kind::Object => key == Top::EventText,
        Kind::String => {
            let inside = node.raw().get(1..).unwrap_or_default();
            // An escape may stand for a blank or a bracket.
            matches!(trim(inside).first(), Some(b'{' | b'[' | b'\\' | b'0'..=b'9'))
        }
        _ => false,
    }
}

/// The JSON value inside a carried text: after blanks or a CRI prefix, an object or an array.
pub fn payload(text: &[u8]) -> Option<&[u8]> {
    let text = trim(text);
    match text.first()? {
        b'{' | b'[' => Some(text),
        b'0'..=b'9' => {
            pieces::cri_text(text).map(trim).filter(|text| matches!(text.first(), Some(b'{' | b'[')))
        }
        _ => None,
    }
}

/// Cuts blanks, NULs (holes left by truncation) and byte order marks from the ends.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = match bytes {
        [b' ' | b'\t' | b'\r' | b'\n' | 0, rest @ ..] | [0xEF, 0xBB, 0xBF, rest @ ..] => Some(rest),
        _ => None,
    } {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r' | b'\n' | 0] = bytes {
        bytes = rest;
    }
    bytes
}

/// The names of an object's first members, for showing what an unrecognised record looks like without its content.
pub fn key_names(event: &Event<'_>) -> Vec<String> {
    let name = |key: Cow<'_, str>| key.chars().take(64).collect();
    event.root().members().take(16).map(|(key, _)| name(key.text())).collect()
}
