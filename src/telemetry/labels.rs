//! Label sets, and the names that may stand in them.

use std::collections::HashSet;
use std::fmt::{Error, Write as _};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::text::{clipped, for_terminal};

/// Characters of a name that a label shows.
const LENGTH: usize = 200;

/// A name from the configuration or of a detector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(Arc<str>);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        encoder.write_str(&self.0)
    }
}

/// The names of one kind. There are as many as there are inputs, outputs or detectors; should a caller ever pass something
/// else, the limit keeps it from making series without end.
#[derive(Debug)]
pub(super) struct Names {
    known: RwLock<HashSet<Arc<str>>>,
    other: Name,
    limit: usize,
}

impl Names {
    /// Room for so many names.
    pub(super) fn new(limit: usize) -> Names {
        Names { known: RwLock::default(), other: Name("other".into()), limit }
    }

    /// The name, or `other` if there are too many. A set of names is whole even after a panic, so a poisoned lock is none.
    pub(super) fn name(&self, text: &str) -> Name {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Name(Arc::clone(known));
        }
        let clean = for_terminal(&clipped(text, LENGTH)).into_owned();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(clean.as_str()) {
            return Name(Arc::clone(known));
        }
        if known.len() >= self.limit {
            return self.other.clone();
        }
        let name: Arc<str> = clean.into();
        known.insert(Arc::clone(&name));
        Name(name)
    }
}

macro_rules! labels {
    ($($set:ident { $($label:ident: $type:ty),+ })+) => {
        $(
            #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
            pub(super) struct $set {
                $(pub(super) $label: $type),+
            }
        )+
    };
}

labels! {
    ByBuild { version: &'static str, revision: &'static str, rustc: &'static str }
    ByCommit { input: Name, result: &'static str }
    ByClass { class: &'static str }
    ByCode { output: Name, code: Name }
    ByDetector { detector: Name }
    ByDrop { output: Name, reason: &'static str }
    ByFile { input: Name, path: Name }
    ByFormat { input: Name, format: &'static str }
    ByHash { sha256: String }
    ByInput { input: Name }
    ByIntake { input: Name, code: u16 }
    ByKind { kind: &'static str }
    ByLevel { level: &'static str }
    ByMatch { detector: Name, level: &'static str }
    ByOperation { operation: &'static str }
    ByOrigin { origin: &'static str, state: &'static str }
    ByOutput { output: Name }
    ByPartition { input: Name, partition: Name }
    ByReason { input: Name, reason: &'static str }
    BySuppression { reason: &'static str }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_harmless() {
        let names = Names::new(2);
        assert_eq!(&*names.name("a").0, "a");
        assert_eq!(&*names.name("b\n\u{202e}").0, "b\\n\\u{202e}");
        assert_eq!(&*names.name("c").0, "other");
        assert_eq!(&*names.name("a").0, "a");
        assert!(Names::new(1).name(&"x".repeat(10_000)).0.len() < 2 * LENGTH);
    }
}
