//! Alerts about the evidence itself.

use crate::alert::Evidence;
use crate::engine::Found;
use crate::event::identity::Identity;
use crate::judge::Case;
use crate::level::Level;
use crate::report::{self, Verdict};

/// A detector that looks at the record rather than at what it says.
pub(crate) struct Check {
    /// `integrity/<what>`.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
}

/// These detectors, as they stand at the end of [`Engine::detectors`].
pub(crate) const CHECKS: [Check; 2] = [
    Check { name: "integrity/duplicate-key", title: "Event with a key that stands twice" },
    Check { name: "integrity/partial-event", title: "Event could not be judged in full" },
];

/// The place of `integrity/duplicate-key` in [`CHECKS`].
pub(crate) const DUPLICATE_KEY: usize = 0;
/// The place of `integrity/partial-event` in [`CHECKS`].
pub(crate) const PARTIAL_EVENT: usize = 1;

/// The level of them all.
pub(crate) const LEVEL: Level = Level::Medium;
/// The tags of them all.
pub(crate) const TAGS: [&str; 3] = ["attack.defense-evasion", "attack.t1685.002", "checklist.cl38"];

/// Names of detectors that the message shows; the rest is counted.
const SHOWN: usize = 8;

/// A damaged or truncated event, or one that hit a bound, on which detectors could not decide: padding or breaking an event
/// must not hide it.
pub(crate) fn partial_event(
    case: &Case<'_, '_>,
    unknown: &[u32],
    bound_hit: bool,
    identity: Identity,
    evidence: Evidence,
) -> Found {
    let engine = case.engine;
    let named = |hidden: bool| -> Vec<&str> {
        let detectors = unknown.iter().map(|index| &engine.detectors()[*index as usize]);
        detectors
            .filter(|detector| hidden || !detector.hidden)
            .map(|detector| detector.name.as_str())
            .collect()
    };
    let mut names = named(false);
    if names.is_empty() {
        names = named(true); // only what correlations count
    }
    let hidden = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let mut causes = case.event.damage.names();
    if case.event.truncated() {
        causes.push("truncated by the API server");
    }
    if bound_hit {
        causes.push("bound hit");
    }
    let more = match hidden {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("{}; not judged by {}{more}", causes.join(", "), names.join(", "));
    let facts = vec![("damage".to_owned(), causes.join(",")), ("detectors".to_owned(), names.join(","))];
    found(case, PARTIAL_EVENT, &message, facts, identity, evidence)
}

/// An event in which a key stands twice. The API server writes none; readers differ in which value they take, so that one
/// of them can be shown one thing and the next another.
pub(crate) fn duplicate_key(case: &Case<'_, '_>, identity: Identity, evidence: Evidence) -> Found {
    let keys = case.event.repeated().join(", ");
    let message = format!("{keys} more than once; the last value was judged");
    found(case, DUPLICATE_KEY, &message, vec![("keys".to_owned(), keys)], identity, evidence)
}

fn found(
    case: &Case<'_, '_>,
    check: usize,
    message: &str,
    facts: Vec<(String, String)>,
    identity: Identity,
    evidence: Evidence,
) -> Found {
    let what = report::shown(case.event, "target.type");
    let who = report::shown(case.event, "actor.name");
    let index = case.engine.integrity_detector(check);
    let Check { name, title } = CHECKS[check];
    let tags: Vec<String> = TAGS.iter().map(ToString::to_string).collect();
    let verdict = Verdict {
        uuid: report::uuid(name, &[0; 32], &identity),
        detector: name,
        title,
        level: case.engine.detectors()[index as usize].level,
        tags: &tags,
        message: format!("{who} on {what}: {message}"),
        facts,
    };
    let mut alert = report::alert(case.event, verdict, case.time, evidence);
    "lapwing".clone_into(&mut alert.source);
    Found { time: case.time.unwrap_or_default(), detector: index, alert }
}
