//! Why a detector alerts on an event, or does not: every node of its condition with what it was judged on.

use serde::Serialize;

use crate::correlate::Source;
use crate::engine::{Engine, Program, names_stage};
use crate::event::record::{self, Nature};
use crate::event::time::Clock;
use crate::event::{Event, Stream, Top};
use crate::judge::{self, Case, Digests};
use crate::level::Level;
use crate::program::{Memo, Trace};
use crate::redact::paths;
use crate::scan::{Doc, Kind, Marks, Node};
use crate::value::Tri;
use crate::worker::{self, Place};

/// How one detector of single events judges one event.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The detector; a member of the correlation that was asked for, if it was one.
    pub detector: String,
    /// True if the event is a match: an alert, or what a correlation counts.
    pub matched: bool,
    /// The level of the alert, if the match is one.
    pub alert: Option<Level>,
    /// Why there is no match although the condition may hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The condition.
    pub condition: Trace,
    /// The conditions of its grades, with their levels, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grades: Vec<(Level, Trace)>,
    /// The operator's exceptions for events of this time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Trace>,
}

impl Engine {
    /// Explains how the detector `name` judges the first event in `bytes` (a record of any form: an event, a list or carrier
    /// of events). A correlation is explained by its members.
    ///
    /// # Errors
    /// There is no such detector, it has no condition, or there is no event.
    pub fn explain(&self, name: &str, bytes: &[u8]) -> Result<Vec<Explanation>, String> {
        let programs = self.explained(name)?;
        let mut explanations = Vec::new();
        let see = &mut |event: &Event<'_>| {
            explanations =
                programs.iter().map(|index| self.explain_one(&self.programs[*index], event)).collect();
        };
        if !first_event(self, record::payload(bytes).unwrap_or(bytes), 0, see) {
            return Err("no audit event and no Falco alert in it".to_owned());
        }
        Ok(explanations)
    }

    /// The programs behind a detector.
    fn explained(&self, name: &str) -> Result<Vec<usize>, String> {
        if let Some(index) = self.programs.iter().position(|program| program.rule.about.name == name) {
            return Ok(vec![index]);
        }
        let Some(correlation) = self.correlations.iter().find(|rule| rule.name == name) else {
            return Err(match self.detectors().iter().find(|detector| detector.name == name) {
                Some(detector) if !detector.silent.is_empty() => {
                    format!("`{name}` is silent: the config lacks the list {}", detector.silent.join(", "))
                }
                Some(_) => format!("`{name}` has no condition on events"),
                None => format!("there is no detector `{name}`"),
            });
        };
        Ok(correlation
            .members
            .iter()
            .filter_map(|member| match member.source {
                Source::Detector(index) => Some(index as usize),
                Source::Correlation(_) => None,
            })
            .collect())
    }

    fn explain_one(&self, program: &Program, event: &Event<'_>) -> Explanation {
        let mut memo = Memo::default();
        let mut traces = self.traces(program, event, &mut memo);
        // It is judged as it is, and shown without what the operator does not want to see.
        if let Some(bytes) = paths::without(event, &event.settings.hidden) {
            let veiled =
                paths::read(&bytes, event, |event| self.traces(program, event, &mut Memo::default()));
            traces.show(veiled);
        }
        let Traces { condition, grades, exceptions } = traces;
        let time = worker::event_time(event, &mut Clock::default());
        let mut because = self.obstacles(program, event);
        if exceptions.iter().any(|exception| exception.result == Tri::True) {
            because.push("an exception of the config holds".to_owned());
        }
        let case = Case {
            engine: self,
            event,
            time,
            place: Place { input: "", offset: 0, length: 0, bytes: event.root().raw() },
            digests: &Digests::default(),
        };
        let matched = condition.result == Tri::True && because.is_empty();
        Explanation {
            detector: program.rule.about.name.clone(),
            matched,
            alert: (matched && program.alerts).then(|| case.level(program, &mut memo)),
            because,
            condition,
            grades,
            exceptions,
        }
    }

    /// Every condition of a program, evaluated.
    fn traces<'a>(&self, program: &Program, event: &Event<'a>, memo: &mut Memo<'a>) -> Traces {
        let time = worker::event_time(event, &mut Clock::default());
        let exempt = program.exceptions.iter().filter(|exempt| exempt.covers(time));
        let grades = program.rule.grades.iter();
        Traces {
            condition: self.tests.explain(&program.rule.condition, event, memo),
            exceptions: exempt.map(|exempt| self.tests.explain(&exempt.when, event, memo)).collect(),
            grades: grades.map(|g| (g.level, self.tests.explain(&g.when, event, memo))).collect(),
        }
    }

    /// Why a detector is not asked at all, or keeps silent.
    fn obstacles(&self, program: &Program, event: &Event<'_>) -> Vec<String> {
        let rule = &program.rule;
        let mut because = Vec::new();
        if rule.stream != event.stream {
            because.push(match rule.stream {
                Stream::Audit => "it judges audit events, and this is a Falco alert".to_owned(),
                Stream::Falco => "it judges Falco alerts, and this is an audit event".to_owned(),
            });
        }
        if !rule.silent.is_empty() {
            because.push(format!("it is silent: the config lacks the list {}", rule.silent.join(", ")));
        }
        let all_stages = names_stage(&self.tests, &rule.condition);
        if event.stream == Stream::Audit && !all_stages && !judge::is_judged(event) {
            let stage = event.text(Top::Stage).unwrap_or_default();
            because
                .push(format!("a record of stage {stage} is not judged: a later one of the same request is"));
        }
        if event.raw(Top::Source) == Some(b"internal") && event.stream == Stream::Falco {
            because.push("it is a notice of Falco about itself".to_owned());
        }
        if !program.alerts {
            because
                .push("it makes no alerts by itself: hidden, disabled or below the lowest level".to_owned());
        }
        because
    }
}

/// What a program's conditions came out as.
struct Traces {
    condition: Trace,
    grades: Vec<(Level, Trace)>,
    exceptions: Vec<Trace>,
}

impl Traces {
    /// Takes over the values that another evaluation of the same conditions was judged on, and nothing else of it.
    fn show(&mut self, other: Traces) {
        self.condition.show(other.condition);
        for ((_, own), (_, other)) in self.grades.iter_mut().zip(other.grades) {
            own.show(other);
        }
        // With the time hidden, an exception that ends may be missing there: then nothing of it is shown.
        let mut others =
            (self.exceptions.len() == other.exceptions.len()).then_some(other.exceptions.into_iter());
        for own in &mut self.exceptions {
            match others.as_mut().and_then(Iterator::next) {
                Some(other) => own.show(other),
                None => own.hide(),
            }
        }
    }
}

/// Shows the first event in `bytes` to `see`; false if there is none.
fn first_event(engine: &Engine, bytes: &[u8], depth: usize, see: &mut dyn FnMut(&Event<'_>)) -> bool {
    let mut marks = Marks::new();
    let health = marks.mark(bytes);
    let damage = worker::damage_of(bytes, health, None);
    let Some(mut value) = Doc::new(bytes, &marks).root() else { return false };
    // A list of lists is no list of events: two levels hold every form, and so does one carrier in each.
    for _ in 0..2 {
        let items = match value.kind() {
            Kind::Array => Some(value),
            Kind::Object => {
                let mut event = Event::skim(value, &engine.settings);
                event.damage = event.damage.with(damage);
                match record::nature(&event) {
                    Nature::Audit => {
                        event.discard_wrong_types();
                        return shown(&event, see);
                    }
                    Nature::Falco => {
                        event.stream = Stream::Falco;
                        event.discard_wrong_types();
                        return shown(&event, see);
                    }
                    Nature::List => record::lists(&event).next(),
                    Nature::Carrier if depth < 2 => {
                        return record::carriers(&event).any(|node| carried(engine, node, depth, see));
                    }
                    Nature::Carrier | Nature::LapwingAlert | Nature::Unknown => None,
                }
            }
            _ => None,
        };
        match items.and_then(|items| items.items().next()) {
            Some(item) => value = item,
            None => return false,
        }
    }
    false
}

fn shown(event: &Event<'_>, see: &mut dyn FnMut(&Event<'_>)) -> bool {
    see(event);
    true
}

fn carried(engine: &Engine, node: Node<'_>, depth: usize, see: &mut dyn FnMut(&Event<'_>)) -> bool {
    if node.kind() == Kind::Object {
        return first_event(engine, node.raw(), depth + 1, see);
    }
    let text = node.text().unwrap_or_default();
    record::payload(text.as_bytes()).is_some_and(|inner| first_event(engine, inner, depth + 1, see))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{self, File, Tuning};
    use crate::settings::Settings;

    const RULES: &str = "
title: Secret read
name: test/read
logsource: {product: kubernetes, service: audit}
detection:
  read: {verb: get, objectRef.resource: secrets}
  wide: {verb: list}
  condition: read or wide
level: low
grade: [{when: wide, level: high}]
";

    fn check(event: &str, alert: Option<Level>, because: &str) {
        let settings = Settings::default();
        let file = File { name: "test.yml".into(), yaml: RULES.into(), folder: None };
        let rules = rules::read(&[file], &settings);
        assert!(rules.problems.is_empty(), "{:?}", rules.problems);
        let engine = rules::assemble(rules, settings, &Tuning::default()).unwrap();
        let explanations = engine.explain("test/read", event.as_bytes()).unwrap();
        assert_eq!(
            (explanations[0].alert, explanations[0].because.join("; ").as_str()),
            (alert, because),
            "{event}"
        );
    }

    #[test]
    fn every_form_of_record_is_explained() {
        let event =
            r#"{"auditID":"1","verb":"list","objectRef":{"resource":"secrets"},"stage":"ResponseComplete"}"#;
        check(event, Some(Level::High), "");
        check(&format!("[{event}]"), Some(Level::High), "");
        check(&format!(r#"{{"kind":"EventList","items":[{event}]}}"#), Some(Level::High), "");
        check(&format!("2026-03-01T10:00:00Z stdout F {event}"), Some(Level::High), "");
        check(&serde_json::json!({ "log": event }).to_string(), Some(Level::High), "");
        check(&format!(r#"{{"event":{event}}}"#), Some(Level::High), "");
        check(&event.replace("list", "get"), Some(Level::Low), "");
        check(&event.replace("list", "watch"), None, "");
    }

    #[test]
    fn what_is_not_judged_says_why() {
        check(
            r#"{"auditID":"1","verb":"list","stage":"RequestReceived"}"#,
            None,
            "a record of stage RequestReceived is not judged: a later one of the same request is",
        );
        check(
            r#"{"rule":"x","priority":"Notice","verb":"list"}"#,
            None,
            "it judges audit events, and this is a Falco alert",
        );
    }

    #[test]
    fn what_is_hidden_from_alerts_is_hidden_here() {
        let hidden = vec![paths::Hidden::new("objectRef.resource").unwrap()];
        let settings = Settings { hidden, ..Settings::default() };
        let file = File { name: "test.yml".into(), yaml: RULES.into(), folder: None };
        let engine = rules::assemble(rules::read(&[file], &settings), settings, &Tuning::default()).unwrap();
        let event =
            r#"{"auditID":"1","verb":"get","objectRef":{"resource":"secrets"},"stage":"ResponseComplete"}"#;
        let one = &engine.explain("test/read", event.as_bytes()).unwrap()[0];
        let shown = serde_json::to_string(one).unwrap();
        assert_eq!((one.alert, one.matched), (Some(Level::Low), true));
        assert!(shown.contains("\"text\":\"objectRef.resource: secrets\",\"result\":\"true\",\"actual\":\"\\\"[redacted]\\\"\""), "{shown}");
        assert!(shown.contains("\\\"get\\\"") && !shown.contains("\\\"secrets"), "{shown}");
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let settings = Settings::default();
        let engine = rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap();
        for nonsense in ["", "[]", "{}", "hello", r#"{"items":[]}"#, r#"{"log":"{}"}"#] {
            assert!(engine.explain("rbac/cluster-admin-binding", nonsense.as_bytes()).is_err(), "{nonsense}");
        }
        assert!(engine.explain("no/such", b"{}").unwrap_err().contains("there is no detector"));
    }
}
