//! Alerts about the evidence itself, and about the run that reads it.

use crate::alert::{Alert, Evidence, SCHEMA};
use crate::engine::{Engine, Found};
use crate::event::identity::Identity;
use crate::event::time::{self, Nanos};
use crate::judge::Case;
use crate::level::Level;
use crate::report::{self, Verdict};

/// A detector that looks at the record rather than at what it says, or at the run.
pub(crate) struct Check {
    /// `integrity/<what>`.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) level: Level,
}

const fn check(name: &'static str, title: &'static str, level: Level) -> Check {
    Check { name, title, level }
}

/// These detectors, as they stand at the end of [`Engine::detectors`]. Those from the third on see the run and not the event:
/// only a live run raises them.
pub(crate) const CHECKS: [Check; 11] = [
    check("integrity/duplicate-key", "Event with a key that stands twice", Level::Medium),
    check("integrity/partial-event", "Event could not be judged in full", Level::Medium),
    check("integrity/dead-letter", "Record or alert could not be handled and was put aside", Level::Medium),
    check("integrity/input-gap", "Part of an input is gone unread", Level::High),
    check("integrity/input-silent", "Input has fallen silent", Level::High),
    check("integrity/input-truncated", "Input was truncated", Level::Medium),
    check("integrity/input-unreadable", "Input cannot be read", Level::High),
    check("integrity/reload-failed", "New configuration was refused", Level::Medium),
    check("integrity/spool-full", "Spool of an output is full", Level::High),
    check("integrity/state-damaged", "Own state was damaged and set aside", Level::High),
    check("integrity/state-pressure", "Correlations forgot groups for want of memory", Level::Medium),
];

/// The place of `integrity/duplicate-key` in [`CHECKS`].
pub(crate) const DUPLICATE_KEY: usize = 0;
/// The place of `integrity/partial-event` in [`CHECKS`].
pub(crate) const PARTIAL_EVENT: usize = 1;

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

/// What a live run has to say of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident<'a> {
    /// The detector: one of `integrity/<what>`.
    pub detector: &'a str,
    /// One sentence for a person.
    pub message: &'a str,
    /// What the sentence is about, by name; never empty.
    pub facts: &'a [(&'a str, &'a str)],
    /// What tells this from others of its kind, the same after a restart.
    pub identity: &'a str,
    /// When it happened.
    pub time: Nanos,
}

/// The alert about an incident. None if the operator has switched its detector off, or there is none of that name.
pub fn incident(engine: &Engine, incident: &Incident<'_>) -> Option<Found> {
    let check = CHECKS.iter().position(|check| check.name == incident.detector)?;
    if !engine.integrity[check] {
        return None;
    }
    let index = engine.integrity_detector(check);
    let level = engine.detectors()[index as usize].level;
    let alert = Alert {
        uuid: report::uuid(incident.detector, &[0; 32], incident.identity.as_bytes()),
        output: report::output(incident.time, level, incident.message),
        time: time::format(incident.time),
        rule: CHECKS[check].title.to_owned(),
        priority: level.priority().to_owned(),
        level,
        source: "lapwing".to_owned(),
        output_fields: incident.facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        tags: TAGS.map(str::to_owned).to_vec(),
        schema: SCHEMA.to_owned(),
        detector: incident.detector.to_owned(),
        cluster: engine.settings.cluster.clone(),
        k8s: None,
        evidence: Vec::new(),
        hostname: None,
        partial: None,
        approximate: None,
        steps: None,
        count: None,
        group: None,
    };
    Some(Found { time: incident.time, detector: index, alert })
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
    let Check { name, title, .. } = CHECKS[check];
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
