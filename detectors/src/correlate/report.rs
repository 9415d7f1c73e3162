//! A firing as an alert.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::rule::{Plan, Rule};
use super::step;
use super::window;
use crate::alert::{self, Alert};
use crate::bytes::hex;
use crate::engine::Found;
use crate::event::time::{self, Nanos, SECOND};
use crate::program::{Hole, holes};
use crate::report::NAMESPACE;

/// Events that an alert points to.
const EVIDENCE: usize = 20;

/// Distinct values of a shown field that an alert names.
const VALUES: usize = 10;

/// The id of a firing: a UUIDv5 of detector name, logic hash, group key (the digests of its values) and bucket, and of nothing
/// else.
pub(super) fn uuid(rule: &Rule, group: &[u8], bucket: i64) -> Uuid {
    let group = step::digests(group);
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&(rule.name.len() as u64).to_le_bytes());
    bytes.extend_from_slice(rule.name.as_bytes());
    bytes.extend_from_slice(&rule.logic_hash);
    bytes.extend_from_slice(&(group.len() as u64).to_le_bytes());
    bytes.extend_from_slice(group.as_bytes());
    bytes.extend_from_slice(&bucket.to_le_bytes());
    Uuid::new_v5(&NAMESPACE, &bytes)
}

/// A rule that has fired for a group and a bucket.
pub(super) struct Firing<'a> {
    pub(super) plan: &'a Plan,
    pub(super) uuid: Uuid,
    /// The packed group-by values.
    pub(super) group: &'a [u8],
    /// The completing event's time.
    pub(super) time: Nanos,
    /// Distinct events or values, for the counting kinds.
    pub(super) count: Option<u64>,
    /// The earliest and the latest event.
    pub(super) span: (Nanos, Nanos),
    /// Time and member, for the temporal kinds.
    pub(super) steps: Vec<(Nanos, u8)>,
    /// What is kept of the events in the window, in order of time.
    pub(super) notes: Vec<&'a window::Note>,
    pub(super) approximate: bool,
}

impl Firing<'_> {
    /// The alert.
    pub(super) fn found(&self, cluster: Option<&str>) -> Found {
        let rule = &self.plan.rule;
        let (fields, level) = (self.fields(), rule.level(self.count));
        let alert = Alert {
            uuid: self.uuid,
            time: time::format(self.time),
            rule: rule.title.clone(),
            priority: level.priority().to_owned(),
            level,
            source: "lapwing".to_owned(),
            output: self.output(&fields),
            output_fields: fields,
            tags: rule.tags.clone(),
            schema: alert::SCHEMA.to_owned(),
            detector: rule.name.clone(),
            cluster: cluster.map(str::to_owned),
            k8s: None,
            evidence: self.evidence(),
            hostname: None,
            partial: None,
            approximate: self.approximate.then_some(true),
            steps: (!self.steps.is_empty()).then(|| self.step_lines()),
            count: self.count,
            group: None,
        };
        Found { time: self.time, detector: rule.index, alert }
    }

    fn fields(&self) -> BTreeMap<String, String> {
        let rule = &self.plan.rule;
        let mut fields = BTreeMap::new();
        for (i, name) in rule.shown().into_iter().enumerate() {
            let values = self.shown_values(i);
            if !values.is_empty() {
                fields.insert(name.to_owned(), values);
            }
        }
        for (name, value) in rule.group_by.iter().zip(step::group_values(self.group)) {
            fields.insert(name.clone(), step::visible(value).to_owned());
        }
        fields.extend(self.count.map(|n| ("count".to_owned(), n.to_string())));
        fields.insert("window".to_owned(), duration(rule.timespan));
        fields.insert("first_seen".to_owned(), time::format(self.span.0));
        fields.insert("last_seen".to_owned(), time::format(self.span.1));
        fields
    }

    /// The distinct values of a shown field, in order of time, of the events that are kept of the window.
    fn shown_values(&self, field: usize) -> String {
        let mut values: Vec<&str> = Vec::new();
        for note in self.notes.iter().filter_map(|n| step::Note::read(&n.bytes)) {
            if let Some(Some(value)) = note.shown.get(field)
                && !values.contains(&step::visible(value))
            {
                values.push(step::visible(value));
            }
        }
        let more = if values.len() > VALUES { ",..." } else { "" };
        values.truncate(VALUES);
        values.join(",") + more
    }

    /// The value of a shown field in the latest event that has one: what the sentence says of the last event, and, for the
    /// temporal kinds, of the last one of the step that has the field.
    fn latest_value(&self, name: &str) -> Option<&str> {
        let field = self.plan.rule.shown().iter().position(|shown| *shown == name)?;
        self.notes
            .iter()
            .rev()
            .find_map(|n| *step::Note::read(&n.bytes)?.shown.get(field)?)
            .map(step::visible)
    }

    fn output(&self, fields: &BTreeMap<String, String>) -> String {
        let rule = &self.plan.rule;
        let Some(template) = &rule.message else {
            let names = rule.group_by.iter().map(String::as_str).chain(["count", "window"]);
            let about = names.filter_map(|name| Some(format!("{name}={}", fields.get(name)?)));
            return format!("{} ({})", rule.title, about.collect::<Vec<_>>().join(" "));
        };
        // The loader has read the template.
        let holes = holes(template).unwrap_or_default();
        let stretches = holes.into_iter().map(|hole| match hole {
            Hole::Text(text) => text,
            Hole::Name(name) => {
                let value = self.latest_value(&name).or_else(|| fields.get(&name).map(String::as_str));
                value.unwrap_or("unknown").to_owned()
            }
        });
        stretches.collect()
    }

    fn step_lines(&self) -> Vec<String> {
        let title = |m: u8| self.plan.rule.members[usize::from(m)].title.as_str();
        self.steps.iter().map(|(t, m)| format!("{} {}", time::format(*t), title(*m))).collect()
    }

    /// The events of the steps, then the first and the last ones, by time.
    fn evidence(&self) -> Vec<alert::Evidence> {
        let (steps, mut others): (Vec<&window::Note>, Vec<_>) =
            self.notes.iter().copied().partition(|n| self.steps.contains(&(n.time, n.member)));
        let room = EVIDENCE.saturating_sub(steps.len());
        if others.len() > room {
            let first = room / 2;
            others.drain(first..others.len() - (room - first));
        }
        let mut notes: Vec<&window::Note> = steps.into_iter().take(EVIDENCE).chain(others).collect();
        notes.sort_by_key(|n| n.time);
        notes.into_iter().filter_map(evidence).collect()
    }
}

fn evidence(note: &window::Note) -> Option<alert::Evidence> {
    let place = step::Note::read(&note.bytes)?.place;
    Some(alert::Evidence {
        input: place.input.to_owned(),
        offset: place.offset,
        length: place.length,
        sha256: hex(&place.sha256),
        time: time::format(note.time),
        audit_id: place.audit_id.map(str::to_owned),
    })
}

/// A timespan as Sigma writes it: in the largest unit that divides it.
fn duration(span: Nanos) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let whole = units.into_iter().find(|(seconds, _)| span % (seconds * SECOND) == 0);
    whole
        .map_or_else(|| format!("{span}ns"), |(seconds, unit)| format!("{}{unit}", span / (seconds * SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (span, text) in [(90, "90s"), (300, "5m"), (3600, "1h"), (86_400 * 7, "7d"), (1, "1s")] {
            assert_eq!(duration(span * SECOND), text);
        }
        assert_eq!(duration(1_500_000_000), "1500000000ns");
    }
}
