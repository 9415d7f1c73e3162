//! The hash of what a rule says, which does not depend on how its file is written.

use sha2::{Digest, Sha256};
use yaml_serde::Value;

/// The hash of a rule's logic.
pub type LogicHash = [u8; 32];

/// Collects pieces, each with its length, so that no two different sequences of pieces hash alike.
pub(super) struct Logic(Vec<u8>);

impl Logic {
    pub(super) fn new(kind: &str) -> Logic {
        let mut logic = Logic(Vec::with_capacity(1024));
        logic.text(kind);
        logic
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// A YAML value: members of maps in the order of their keys, a list of one like its only item.
    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.text("null"),
            Value::Bool(b) => self.text(if *b { "true" } else { "false" }),
            Value::Number(number) => {
                self.text("number");
                self.text(&number.to_string());
            }
            Value::String(text) => {
                self.text("text");
                self.text(text);
            }
            Value::Sequence(items) => match items.as_slice() {
                [item] => self.value(item),
                items => {
                    self.text("list");
                    self.number(items.len() as u64);
                    for item in items {
                        self.value(item);
                    }
                }
            },
            Value::Mapping(map) => {
                let mut members: Vec<_> =
                    map.iter().map(|(key, value)| (super::document::plain(key), value)).collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                self.text("map");
                self.number(members.len() as u64);
                for (key, value) in members {
                    self.text(&key.unwrap_or_default());
                    self.value(value);
                }
            }
            Value::Tagged(tagged) => {
                self.text("tagged");
                self.value(&tagged.value);
            }
        }
    }

    pub(super) fn finish(self) -> LogicHash {
        Sha256::digest(&self.0).into()
    }
}
