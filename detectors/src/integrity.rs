//! Alerts about the evidence itself.

use crate::alert::Evidence;
use crate::engine::Found;
use crate::event::identity::Identity;
use crate::judge::Case;
use crate::level::Level;
use crate::report::{self, Verdict};

/// The detector behind [`partial_event`].
pub(crate) const PARTIAL_EVENT: &str = "integrity/partial-event";
/// Its title.
pub(crate) const PARTIAL_EVENT_TITLE: &str = "Event could not be judged in full";
/// Its level.
pub(crate) const PARTIAL_EVENT_LEVEL: Level = Level::Medium;
/// Its tags.
pub(crate) const PARTIAL_EVENT_TAGS: [&str; 3] =
    ["attack.defense-evasion", "attack.t1685.002", "checklist.cl38"];

/// Names of detectors that the message shows; the rest is counted.
const SHOWN: usize = 8;

/// A damaged or truncated event on which detectors could not decide: padding or breaking an event must not hide it.
pub(crate) fn partial_event(
    case: &Case<'_, '_>,
    unknown: &[u32],
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
    if case.truncated() {
        causes.push("truncated by the API server");
    }
    let more = match hidden {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = report::shown(case.event, "target.type");
    let who = report::shown(case.event, "actor.name");
    let message = format!("{who} on {what}: {}; not judged by {}{more}", causes.join(", "), names.join(", "));
    let tags: Vec<String> = PARTIAL_EVENT_TAGS.iter().map(ToString::to_string).collect();
    let verdict = Verdict {
        uuid: report::uuid(PARTIAL_EVENT, &[0; 32], &identity),
        detector: PARTIAL_EVENT,
        title: PARTIAL_EVENT_TITLE,
        level: engine.detectors()[engine.partial_event() as usize].level,
        tags: &tags,
        message,
        facts: vec![("damage".to_owned(), causes.join(",")), ("detectors".to_owned(), names.join(","))],
    };
    let mut alert = report::alert(case.event, verdict, case.time, evidence);
    "lapwing".clone_into(&mut alert.source);
    Found { time: case.time.unwrap_or_default(), detector: engine.partial_event(), alert }
}
