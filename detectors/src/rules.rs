//! From rules to an engine: the catalogue, the user's own rules, and what the operator decided about both.

use std::collections::HashMap;

use yaml_serde::Value;

use crate::catalog;
use crate::correlate::{self, Condition, Member, Op, Source, StepBuilder};
use crate::engine::{Assembly, Detector, Engine, Exempt, Feed, Program};
use crate::event::time::{Nanos, SECOND};
use crate::integrity;
use crate::level::Level;
use crate::names;
use crate::settings::Settings;
use crate::sigma::{
    self, ConditionOperator, CorrelationRule, Kind, Loader, Options, Presence, Problem, Referred, Rules,
    Threshold,
};

/// What the operator decided.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// Detectors below this level do not alert.
    pub min_level: Option<Level>,
    /// Globs over names: these do not alert.
    pub disable: Vec<String>,
    /// Globs over names and the level that they get.
    pub overrides: Vec<(String, Level)>,
    /// Globs over names and what an event must be like to be passed over.
    pub exceptions: Vec<Exception>,
}

impl Tuning {
    /// The globs over detector names in it.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let disabled = self.disable.iter();
        let overridden = self.overrides.iter().map(|(glob, _)| glob);
        let excepted = self.exceptions.iter().map(|exception| &exception.detector);
        disabled.chain(overridden).chain(excepted).map(String::as_str)
    }
}

/// Matches that are no alerts.
#[derive(Debug, Clone)]
pub struct Exception {
    /// A glob over detector names.
    pub detector: String,
    /// Facts (with Sigma's modifiers) and their values, as in a selection.
    pub when: Value,
    /// Events from this time on are alerts again.
    pub until: Option<Nanos>,
}

/// A file of the user's rules.
#[derive(Debug, Clone)]
pub struct File {
    /// What problems call it.
    pub name: String,
    /// Its text.
    pub yaml: String,
    /// The folder of the user's below which it was found. There no two files take the same name.
    pub folder: Option<String>,
}

/// Reads the catalogue (without tests and prose) and the user's files.
pub fn read(files: &[File], settings: &Settings) -> Rules {
    let mut loader = Loader::new(settings, Options::default());
    for source in catalog::SOURCES {
        loader.add_builtin(&origin(source.name), source.json);
    }
    for file in files {
        add(&mut loader, file);
    }
    loader.finish()
}

fn add(loader: &mut Loader<'_>, file: &File) {
    match &file.folder {
        Some(folder) => loader.add_below(folder, &file.name, &file.yaml),
        None => loader.add(&file.name, &file.yaml),
    }
}

/// What problems in the catalogue call a file, and listings its origin.
pub fn origin(name: &str) -> String {
    format!("builtin:{name}.yml")
}

/// Reads rules whole, tests and prose included: for listings, lint and tests.
pub fn read_whole(files: &[File], settings: &Settings, strict: bool) -> Rules {
    let mut loader = Loader::new(settings, Options { strict, prose: true, tests: true });
    for file in files {
        add(&mut loader, file);
    }
    loader.finish()
}

/// The catalogue as files.
pub fn catalogue() -> Vec<File> {
    let file = |source: &catalog::Source| File {
        name: origin(source.name),
        yaml: source.text.to_owned(),
        folder: None,
    };
    catalog::SOURCES.iter().map(file).collect()
}

/// An engine of these rules.
///
/// # Errors
/// Exceptions that cannot be compiled, and correlations that the correlator refuses.
pub fn assemble(mut rules: Rules, settings: Settings, tuning: &Tuning) -> Result<Engine, String> {
    let globs = Globs(tuning);
    let mut exceptions = Vec::new();
    for exception in &tuning.exceptions {
        let compiled = sigma::exception(&exception.when, &mut rules.tests, &settings);
        let expr = compiled.map_err(|why| format!("exception for `{}`: {why}", exception.detector))?;
        exceptions.push((exception.detector.as_str(), Exempt { when: expr, until: exception.until }));
    }
    let mut detectors: Vec<Detector> = rules
        .detectors
        .iter()
        .map(|rule| Detector::of(&rule.about, globs.level(&rule.about.name), false, rule.silent.clone()))
        .collect();
    let correlations = correlations(&rules, &mut detectors, &globs);
    let mut programs: Vec<Program> = Vec::new();
    for rule in std::mem::take(&mut rules.detectors) {
        let name = rule.about.name.clone();
        let level = globs.level(&name);
        let levels = rule.grades.iter().map(|grade| grade.level);
        programs.push(Program {
            alerts: !rule.about.hidden
                && globs.alerts(&name, levels.chain([level.unwrap_or(rule.about.level)])),
            level,
            exceptions: exempt(&exceptions, &name),
            feeds: Vec::new(),
            needs: Engine::needs(&rules.tests, &rule.condition),
            rule,
        });
    }
    feed(&correlations, &mut programs, &mut rules, &exceptions);
    let integrity = integrity::CHECKS.map(|check| {
        let detector = integrity_detector(&check, globs.level(check.name));
        let alerts = globs.alerts(&detector.name, [detector.level].into_iter());
        detectors.push(detector);
        alerts
    });
    correlate::Correlator::new(correlations.clone(), correlate::BUDGET)?;
    let tests = rules.tests;
    Ok(Engine::new(Assembly { settings, tests, programs, correlations, detectors, integrity }))
}

fn integrity_detector(check: &integrity::Check, level: Option<Level>) -> Detector {
    Detector {
        name: check.name.to_owned(),
        title: check.title.to_owned(),
        level: level.unwrap_or(check.level),
        tags: integrity::TAGS.iter().map(ToString::to_string).collect(),
        origin: "builtin".to_owned(),
        correlation: false,
        hidden: false,
        silent: Vec::new(),
    }
}

/// The operator's globs.
struct Globs<'t>(&'t Tuning);

impl Globs<'_> {
    /// The level that the operator gave; the last override that names the detector counts.
    fn level(&self, name: &str) -> Option<Level> {
        self.0.overrides.iter().rev().find(|(glob, _)| names::matches(glob, name)).map(|(_, level)| *level)
    }

    /// True if the detector can alert: it is not disabled, and one of its levels reaches the lowest wanted.
    fn alerts(&self, name: &str, levels: impl Iterator<Item = Level>) -> bool {
        let highest =
            levels.map(|level| if name.starts_with("runtime/") { level.raised() } else { level }).max();
        !self.0.disable.iter().any(|glob| names::matches(glob, name))
            && self.0.min_level.is_none_or(|min| highest >= Some(min))
    }
}

/// The correlator's form of the correlation rules. Their detector indices follow those of the programs. Rules that lack a
/// list are silent, and so are those built on them.
fn correlations(rules: &Rules, detectors: &mut Vec<Detector>, globs: &Globs<'_>) -> Vec<correlate::Rule> {
    let mut out = Vec::new();
    let mut places = Vec::new();
    for rule in &rules.correlations {
        let level = globs.level(&rule.about.name);
        let index = detectors.len() as u32;
        detectors.push(Detector::of(&rule.about, level, true, rule.silent.clone()));
        let members = if rule.silent.is_empty() { members(rule, rules, &places) } else { None };
        places.push(members.is_some().then_some(out.len() as u32));
        let Some(members) = members else { continue };
        let grades = if level.is_some() { Vec::new() } else { grades(rule) };
        let levels = grades.iter().map(|(_, level)| *level);
        let level = level.unwrap_or(rule.about.level);
        let alerts = globs.alerts(&rule.about.name, levels.chain([level]));
        out.push(correlate::Rule {
            name: rule.about.name.clone(),
            index,
            title: rule.about.title.clone(),
            kind: kind(rule),
            members,
            group_by: rule.group_by.iter().map(|key| key.name.clone()).collect(),
            timespan: (rule.timespan as i64).saturating_mul(SECOND),
            condition: condition(rule),
            fields: rule.shown.iter().map(|key| key.name.clone()).collect(),
            silent: rule.about.hidden || !alerts,
            logic_hash: rule.about.logic,
            level,
            grades,
            tags: rule.about.tags.clone(),
            message: rule.about.message.as_ref().map(|message| message.text().to_owned()),
        });
    }
    out
}

fn kind(rule: &CorrelationRule) -> correlate::Kind {
    match rule.kind {
        Kind::EventCount => correlate::Kind::EventCount,
        Kind::ValueCount => {
            correlate::Kind::ValueCount { fields: rule.values.iter().map(|key| key.name.clone()).collect() }
        }
        Kind::Temporal => correlate::Kind::Temporal,
        Kind::TemporalOrdered => correlate::Kind::TemporalOrdered,
    }
}

fn condition(rule: &CorrelationRule) -> Condition {
    if let Some(presence) = &rule.presence {
        return Condition::Members(expression(presence));
    }
    if rule.condition.is_empty() {
        return Condition::AllMembers;
    }
    Condition::Count(comparisons(&rule.condition))
}

fn grades(rule: &CorrelationRule) -> Vec<(Vec<(Op, u64)>, Level)> {
    rule.grades.iter().map(|grade| (comparisons(&grade.when), grade.level)).collect()
}

fn comparisons(thresholds: &[Threshold]) -> Vec<(Op, u64)> {
    let op = |operator| match operator {
        ConditionOperator::Lt => Op::Lt,
        ConditionOperator::Lte => Op::Lte,
        ConditionOperator::Gt => Op::Gt,
        ConditionOperator::Gte => Op::Gte,
        ConditionOperator::Eq => Op::Eq,
        ConditionOperator::Neq => Op::Neq,
    };
    thresholds.iter().map(|t| (op(t.operator), t.count)).collect()
}

fn expression(presence: &Presence) -> correlate::Expr {
    let all = |parts: &[Presence]| parts.iter().map(expression).collect();
    match presence {
        Presence::Rule(place) => correlate::Expr::Member(*place as u8),
        Presence::All(parts) => correlate::Expr::All(all(parts)),
        Presence::Any(parts) => correlate::Expr::Any(all(parts)),
        Presence::Not(part) => correlate::Expr::Not(Box::new(expression(part))),
    }
}

fn members(rule: &CorrelationRule, rules: &Rules, places: &[Option<u32>]) -> Option<Vec<Member>> {
    let keys = || rule.group_by.iter().chain(&rule.values).chain(&rule.shown);
    let member = |(place, referred): (usize, &Referred)| {
        let (source, about) = match *referred {
            Referred::Detector(index) => (Source::Detector(index as u32), &rules.detectors[index].about),
            Referred::Correlation(index) => {
                (Source::Correlation((*places.get(index)?)?), &rules.correlations[index].about)
            }
        };
        let aliases = keys()
            .map(|key| (key.name.clone(), rules.tests.name(key.fields[place]).to_owned()))
            .filter(|(alias, field)| alias != field)
            .collect();
        Some(Member { source, title: about.title.clone(), aliases })
    };
    rule.rules.iter().enumerate().map(member).collect()
}

/// The exceptions that name a detector.
fn exempt(exceptions: &[(&str, Exempt)], name: &str) -> Vec<Exempt> {
    exceptions
        .iter()
        .filter(|(glob, _)| names::matches(glob, name))
        .map(|(_, exempt)| exempt.clone())
        .collect()
}

/// Tells each program what correlations take from its matches. An exception for a correlation is one for its events.
fn feed(
    correlations: &[correlate::Rule],
    programs: &mut [Program],
    rules: &mut Rules,
    exceptions: &[(&str, Exempt)],
) {
    let mut fields = HashMap::new();
    for (detector, uses) in correlate::subscriptions(correlations) {
        for (rule, member) in uses {
            let names = correlations[rule as usize].fields_for(usize::from(member));
            let resolve =
                |name: &&str| *fields.entry((*name).to_owned()).or_insert_with(|| rules.tests.field(name));
            programs[detector as usize].feeds.push(Feed {
                builder: StepBuilder::new(correlations, rule, member),
                fields: names.iter().map(resolve).collect(),
                exceptions: exempt(exceptions, &correlations[rule as usize].name),
            });
        }
    }
}

/// The problems that make rules unusable.
pub fn errors(rules: &Rules) -> Vec<&Problem> {
    rules.problems.iter().filter(|problem| problem.severity == sigma::Severity::Error).collect()
}
