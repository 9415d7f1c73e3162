//! The form of an alert where a receiver takes more than one.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::transport::Item;
use crate::text;

pub(super) mod ecs;
mod ocsf;

/// The form of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Lapwing's own, a superset of Falco's (`docs/alerts.md`).
    #[default]
    Native,
    /// Detection Finding of the Open Cybersecurity Schema Framework, 1.1.0.
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
}

impl Encoding {
    /// The alert as one line, without a newline.
    pub(super) fn line(self, item: &Item) -> Cow<'_, str> {
        match self {
            Encoding::Native => Cow::Borrowed(&item.line),
            Encoding::Ocsf => Cow::Owned(json(&ocsf::finding(item))),
            Encoding::Ecs => Cow::Owned(json(&ecs::document(item))),
        }
    }

    /// The alerts as lines.
    pub(super) fn lines(self, items: &[Arc<Item>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(items.iter().map(|item| item.line.len() + 1).sum());
        for item in items {
            out.extend_from_slice(self.line(item).as_bytes());
            out.push(b'\n');
        }
        out
    }
}

/// A value as JSON in which no character can do harm.
pub(super) fn json(value: &Value) -> String {
    let plain = value.to_string();
    match text::for_json(&plain) {
        Cow::Borrowed(_) => plain,
        Cow::Owned(escaped) => escaped,
    }
}

/// The tag's ATT&CK technique (`T1098.006`), if it names one.
fn technique(tag: &str) -> Option<String> {
    let id = tag.strip_prefix("attack.").unwrap_or(tag);
    let digits = id.strip_prefix(['t', 'T'])?;
    let (main, sub) = digits.split_once('.').unwrap_or((digits, "000"));
    let numeric = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    (numeric(main, 4) && numeric(sub, 3)).then(|| id.to_ascii_uppercase())
}

/// The values that say something: what is null or an empty text is left out, in all objects.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, without_nothing(value)))
                .filter(|(_, value)| match value {
                    Value::Null => false,
                    Value::String(text) => !text.is_empty(),
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(fields) => !fields.is_empty(),
                    _ => true,
                })
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn techniques() {
        for (tag, expected) in [
            ("attack.t1098.006", Some("T1098.006")),
            ("attack.t1610", Some("T1610")),
            ("T1610", Some("T1610")),
            ("attack.privilege-escalation", None),
            ("attack.t16100", None),
            ("checklist.rbac", None),
            ("t", None),
        ] {
            assert_eq!(technique(tag).as_deref(), expected, "{tag}");
        }
    }
}
