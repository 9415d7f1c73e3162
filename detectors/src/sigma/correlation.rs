//! Correlation rules, read and checked; `crate::correlate` runs them.

use rsigma_parser::{
    ConditionExpr, ConditionOperator, Quantifier, SelectorPattern, Timespan, parse_condition,
};
use yaml_serde::{Mapping, Value};

use super::document::{Document, plain};
use super::logic::{Logic, LogicHash};
use super::rule::About;
use super::selection::Compiler;
use crate::correlate::{COMPUTED, MAX_COUNT, MAX_MEMBERS, MAX_TIMESPAN};
use crate::event::time::SECOND;
use crate::level::Level;
use crate::names::did_you_mean;
use crate::program::{Field, Template};

const KEYS: &[&str] =
    &["type", "rules", "group-by", "timespan", "timeframe", "condition", "aliases", "generate", "window"];
const CONDITION_KEYS: &[&str] = &["field", "gte", "gt", "lte", "lt", "eq", "neq"];
/// What rules are called while a condition over them is read.
const RULE: &str = "rule-";

/// What a correlation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Events.
    EventCount,
    /// Different values of a field.
    ValueCount,
    /// Whether each rule has matched.
    Temporal,
    /// Whether each rule has matched, in the order in which they are listed.
    TemporalOrdered,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::EventCount, Kind::ValueCount, Kind::Temporal, Kind::TemporalOrdered];

    /// The name in rules.
    pub fn name(self) -> &'static str {
        match self {
            Kind::EventCount => "event_count",
            Kind::ValueCount => "value_count",
            Kind::Temporal => "temporal",
            Kind::TemporalOrdered => "temporal_ordered",
        }
    }

    fn is_temporal(self) -> bool {
        matches!(self, Kind::Temporal | Kind::TemporalOrdered)
    }
}

/// A comparison of a count with a number, which is at most [`MAX_COUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// How they are compared.
    pub operator: ConditionOperator,
    /// The number.
    pub count: u64,
}

/// A correlation of single events.
#[derive(Debug)]
pub struct CorrelationRule {
    /// What it says of itself.
    pub about: About,
    /// What it counts.
    pub kind: Kind,
    /// What it refers to, in the order of the file.
    pub rules: Vec<Referred>,
    /// What the events of a group have in common.
    pub group_by: Vec<Key>,
    /// Seconds.
    pub timespan: u64,
    /// All must hold, for the number of events, of values or (temporal kinds) of rules that matched. If it is empty and
    /// there is no `presence`, every rule must have matched.
    pub condition: Vec<Threshold>,
    /// Which rules must have matched ([`Kind::Temporal`] only).
    pub presence: Option<Presence>,
    /// The fields whose values are counted, together (for [`Kind::ValueCount`]).
    pub values: Vec<Key>,
    /// Further fields that an alert shows: those of its message, and Sigma's `fields`.
    pub shown: Vec<Key>,
    /// The first grade that holds gives the level. There are none unless the count is final when it is judged.
    pub grades: Vec<CountGrade>,
    /// What it refers to alerts too.
    pub generate: bool,
    /// Lists that something that it refers to needs and the config lacks: it is silent.
    pub silent: Vec<String>,
}

/// What a correlation refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referred {
    /// An index into [`super::Rules::detectors`].
    Detector(usize),
    /// An index into [`super::Rules::correlations`], lower than the correlation's own.
    Correlation(usize),
}

/// A condition over the rules of a correlation, by their places in its list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Sigma's words
pub enum Presence {
    Rule(usize),
    All(Vec<Presence>),
    Any(Vec<Presence>),
    Not(Box<Presence>),
}

/// A field of the events of a correlation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The field's name, or the alias.
    pub name: String,
    /// The field in the events of each rule, in the order of [`CorrelationRule::rules`].
    pub fields: Vec<Field>,
}

/// A level for some of a correlation's alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountGrade {
    /// When it applies: all must hold for the count.
    pub when: Vec<Threshold>,
    /// The level.
    pub level: Level,
}

/// A correlation whose references are not resolved yet.
pub(super) struct Draft {
    pub(super) about: About,
    kind: Kind,
    /// Names or ids.
    pub(super) rules: Vec<String>,
    group_by: Vec<DraftKey>,
    timespan: u64,
    condition: Condition,
    shown: Vec<DraftKey>,
    grades: Vec<CountGrade>,
    generate: bool,
    /// The line of its `rules`.
    pub(super) rules_line: u32,
}

/// What must hold.
#[derive(Default)]
struct Condition {
    thresholds: Vec<Threshold>,
    presence: Option<Presence>,
    values: Vec<DraftKey>,
}

/// A field, or an alias for a field of each rule.
struct DraftKey {
    name: String,
    /// For an alias: rule, the field's name, the field.
    aliased: Vec<(String, String, Field)>,
    field: Option<Field>,
}

/// Reads a correlation. What is wrong is noted.
pub(super) fn draft(document: &Document<'_>, about: About, c: &mut Compiler<'_>) -> Option<Draft> {
    let Some(map) = document.mapping("correlation") else {
        c.refuse("`correlation` is a map");
        return None;
    };
    let mut draft = c.at("correlation", |c| {
        unknown_correlation_keys(map, c);
        let kind = kind(map, c)?;
        let rules = members(map, kind, c);
        let group_by = names(map.get("group-by")).iter().map(|name| key(name, map, &rules, c)).collect();
        let timespan = c.at("timespan", |c| timespan(map, c));
        let condition = c.at("condition", |c| condition(map, kind, &rules, c));
        let root_generate = document.root.get("generate");
        let generate =
            root_generate.or_else(|| map.get("generate")).and_then(Value::as_bool).unwrap_or(false);
        let rules_line = document.line(&["correlation", "rules"]);
        let (shown, grades) = (Vec::new(), Vec::new());
        Some(Draft { about, kind, rules, group_by, timespan, condition, shown, grades, generate, rules_line })
    })?;
    draft.shown = shown(document, &draft, map, c);
    if let Some(value) = document.root.get("grade") {
        draft.grades = c.at("grade", |c| grades(value, &draft, c));
    }
    Some(draft)
}

/// The rules that it refers to, by name or id.
fn members(map: &Mapping, kind: Kind, c: &mut Compiler<'_>) -> Vec<String> {
    let rules = names(map.get("rules"));
    let least = if kind.is_temporal() { "two or more names" } else { "a name" };
    if rules.is_empty() || kind.is_temporal() && rules.len() < 2 {
        c.refuse(format!("`{}` needs {least} in `rules`", kind.name()));
    }
    if rules.len() > MAX_MEMBERS {
        c.at("rules", |c| {
            c.refuse(format!("it refers to {} rules; {MAX_MEMBERS} are possible", rules.len()))
        });
    }
    rules
}

/// The fields that its message and its `fields` name.
fn shown(document: &Document<'_>, draft: &Draft, map: &Mapping, c: &mut Compiler<'_>) -> Vec<DraftKey> {
    let message = draft.about.message.as_ref().map(|message| Template::names(message.text()));
    let message = message.and_then(Result::ok).unwrap_or_default();
    let mut shown: Vec<DraftKey> = Vec::new();
    for (place, names) in [("message", message), ("fields", document.texts("fields"))] {
        for name in names {
            if !COMPUTED.contains(&name.as_str()) && shown.iter().all(|key| key.name != name) {
                shown.push(c.at(place, |c| key(&name, map, &draft.rules, c)));
            }
        }
    }
    shown
}

/// Within a correlation every key means something: an unknown one is never passed over.
fn unknown_correlation_keys(map: &Mapping, c: &mut Compiler<'_>) {
    for key in map.keys().map(|key| key.as_str().unwrap_or_default()).filter(|key| !KEYS.contains(key)) {
        let hint = did_you_mean(key, KEYS.iter().copied());
        c.at(key, |c| c.refuse(format!("`{key}` is not supported in a correlation{hint}")));
    }
    if let Some(window) = map.get("window").filter(|window| window.as_str() != Some("sliding")) {
        let window = plain(window).unwrap_or_default();
        c.at("window", |c| c.refuse(format!("window `{window}` is not supported: windows are sliding")));
    }
}

fn kind(map: &Mapping, c: &mut Compiler<'_>) -> Option<Kind> {
    let name = map.get("type").and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    if kind.is_none() {
        let known = Kind::ALL.map(Kind::name).join(", ");
        c.at("type", |c| c.refuse(format!("correlation type `{name}` is not supported; use {known}")));
    }
    kind
}

/// A name or a list of names.
fn names(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Sequence(items)) => items.iter().filter_map(plain).collect(),
        Some(value) => plain(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn timespan(map: &Mapping, c: &mut Compiler<'_>) -> u64 {
    let text = map.get("timespan").or_else(|| map.get("timeframe")).and_then(plain).unwrap_or_default();
    match Timespan::parse(&text) {
        Ok(span) if span.seconds > (MAX_TIMESPAN / SECOND) as u64 => {
            c.refuse(format!("timespan `{text}` is longer than 18 years"));
            0
        }
        Ok(span) if span.seconds > 0 => span.seconds,
        _ => {
            c.refuse(format!("timespan `{text}` is no time such as 30s, 10m, 1h or 7d"));
            0
        }
    }
}

fn condition(map: &Mapping, kind: Kind, rules: &[String], c: &mut Compiler<'_>) -> Condition {
    let mut condition = Condition::default();
    let mut fields = Vec::new();
    match map.get("condition") {
        Some(Value::Mapping(bounds)) => {
            condition.thresholds = thresholds(bounds, c);
            decides(&condition.thresholds, kind.is_temporal().then_some(rules.len() as u64), c);
            fields = names(bounds.get("field"));
        }
        Some(Value::String(text)) => match presence(text, rules) {
            Ok(presence) => condition.presence = Some(presence),
            Err(reason) => {
                c.refuse(reason);
            }
        },
        None if kind.is_temporal() => {}
        _ => {
            c.refuse(format!("`{}` needs a condition such as {{gte: 10}}", kind.name()));
        }
    }
    if condition.presence.is_some() && kind != Kind::Temporal {
        c.refuse(format!("`{}` takes no condition over rules; `temporal` does", kind.name()));
    }
    let every = |t: &Threshold| t.operator == ConditionOperator::Gte && t.count == rules.len() as u64;
    if kind == Kind::TemporalOrdered && !condition.thresholds.iter().all(every) {
        c.refuse("`temporal_ordered` asks for every rule: leave the condition out");
    }
    if kind == Kind::ValueCount && fields.is_empty() {
        c.refuse("`value_count` needs the `field` whose values it counts");
    }
    if kind != Kind::ValueCount && !fields.is_empty() {
        c.refuse(format!("`{}` counts no values; `field` belongs to `value_count`", kind.name()));
    }
    condition.values = fields.iter().map(|name| key(name, map, rules, c)).collect();
    condition
}

/// A condition over rules. Their names may hold characters that Sigma's conditions do not know, so each stands behind a
/// plain name while the condition is read.
fn presence(text: &str, rules: &[String]) -> Result<Presence, String> {
    let wide = text.replace('(', " ( ").replace(')', " ) ");
    let plain: Vec<String> = wide
        .split_whitespace()
        .map(|word| match rules.iter().position(|rule| rule == word) {
            Some(place) => format!("{RULE}{place}"),
            None => word.to_owned(),
        })
        .collect();
    let parsed =
        parse_condition(&plain.join(" ")).map_err(|_| format!("`{text}` is no condition over the rules"))?;
    over_rules(&parsed, rules)
}

fn over_rules(parsed: &ConditionExpr, rules: &[String]) -> Result<Presence, String> {
    let each = |all: &[ConditionExpr]| all.iter().map(|one| over_rules(one, rules)).collect::<Result<_, _>>();
    let every = || (0..rules.len()).map(Presence::Rule).collect();
    match parsed {
        ConditionExpr::And(all) => Ok(Presence::All(each(all)?)),
        ConditionExpr::Or(any) => Ok(Presence::Any(each(any)?)),
        ConditionExpr::Not(one) => Ok(Presence::Not(Box::new(over_rules(one, rules)?))),
        ConditionExpr::Identifier(name) => match name.strip_prefix(RULE).and_then(|place| place.parse().ok())
        {
            Some(place) => Ok(Presence::Rule(place)),
            None => Err(format!("`{name}` is none of the correlation's rules")),
        },
        ConditionExpr::Selector { quantifier: Quantifier::Any, pattern: SelectorPattern::Them } => {
            Ok(Presence::Any(every()))
        }
        ConditionExpr::Selector { quantifier: Quantifier::All, pattern: SelectorPattern::Them } => {
            Ok(Presence::All(every()))
        }
        ConditionExpr::Selector { .. } => Err(format!("`{parsed}` is not supported over rules")),
    }
}

fn thresholds(map: &Mapping, c: &mut Compiler<'_>) -> Vec<Threshold> {
    let mut thresholds = Vec::new();
    for (key, value) in map {
        let key = key.as_str().unwrap_or_default();
        match (key.parse(), value.as_u64()) {
            _ if key == "field" => {}
            (Ok(_), Some(count)) if count > MAX_COUNT => {
                c.refuse(format!(
                    "`{key}` compares with more than {MAX_COUNT}; use a shorter timespan and a smaller number"
                ));
            }
            (Ok(operator), Some(count)) if CONDITION_KEYS.contains(&key) => {
                thresholds.push(Threshold { operator, count });
            }
            (Ok(_), None) => {
                c.refuse(format!("`{key}` takes a whole number"));
            }
            _ => {
                c.refuse(format!("`{key}` is not supported here; use {}", CONDITION_KEYS.join(", ")));
            }
        }
    }
    if thresholds.is_empty() {
        c.refuse("a condition needs a comparison such as {gte: 10}");
    }
    thresholds
}

/// Refuses comparisons that say nothing: those that hold for any count up to `most`, and those that hold for none. Nothing is
/// judged unless something happened, so that a count is at least one.
fn decides(thresholds: &[Threshold], most: Option<u64>, c: &mut Compiler<'_>) {
    let holds = |count: u64| thresholds.iter().all(|threshold| threshold.holds(count));
    let edges = thresholds.iter().flat_map(|t| [t.count.saturating_sub(1), t.count, t.count + 1]);
    let counts: Vec<u64> =
        edges.chain([0, 1]).filter(|count| most.is_none_or(|most| *count <= most)).collect();
    if thresholds.is_empty() {
        return;
    }
    if counts.iter().all(|count| holds(*count)) {
        c.refuse("this always holds: compare with a number that tells something");
    } else if !counts.iter().any(|count| *count > 0 && holds(*count)) {
        c.refuse("this never holds: what is counted happened at least once");
    }
}

impl Threshold {
    fn holds(self, count: u64) -> bool {
        match self.operator {
            ConditionOperator::Lt => count < self.count,
            ConditionOperator::Lte => count <= self.count,
            ConditionOperator::Gt => count > self.count,
            ConditionOperator::Gte => count >= self.count,
            ConditionOperator::Eq => count == self.count,
            ConditionOperator::Neq => count != self.count,
        }
    }

    /// True if more can never make it false.
    fn grows(self) -> bool {
        matches!(self.operator, ConditionOperator::Gt | ConditionOperator::Gte)
    }
}

/// The grades of a correlation compare its count. They need one that is final: a condition that only grows alerts as soon as it
/// holds, at the lowest count for which it does.
fn grades(value: &Value, draft: &Draft, c: &mut Compiler<'_>) -> Vec<CountGrade> {
    let shape = "`grade` of a correlation is a list of {when: {gte: COUNT}, level: LEVEL}";
    if draft.kind.is_temporal() {
        c.refuse(format!("`{}` has no count for `grade` to compare", draft.kind.name()));
        return Vec::new();
    }
    if draft.condition.thresholds.iter().all(|threshold| threshold.grows()) {
        c.refuse(
            "the alert is raised as soon as the condition holds, so that `grade` sees no higher count: write one more correlation for that, \
             or a condition with an upper bound (`lt`, `lte`, `eq`), which is judged when its timespan is over",
        );
        return Vec::new();
    }
    let items = value.as_sequence().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        c.refuse(shape);
    }
    let mut grades = Vec::new();
    for item in items {
        let level = item.get("level").and_then(Value::as_str).unwrap_or_default().parse();
        match (item.get("when").and_then(Value::as_mapping), level) {
            (Some(when), Ok(level)) => {
                let when = thresholds(when, c);
                decides(&when, None, c);
                grades.push(CountGrade { when, level });
            }
            _ => {
                c.refuse(shape);
            }
        }
    }
    grades
}

/// A field of the events, or an alias.
fn key(name: &str, map: &Mapping, rules: &[String], c: &mut Compiler<'_>) -> DraftKey {
    let alias = map.get("aliases").and_then(|aliases| aliases.get(name)).and_then(Value::as_mapping);
    let mut key = DraftKey { name: name.to_owned(), aliased: Vec::new(), field: None };
    let Some(alias) = alias else {
        match c.field(name) {
            Ok(field) => key.field = Some(field),
            Err(reason) => {
                c.refuse(reason);
            }
        }
        return key;
    };
    for rule in rules {
        let Some(name) = alias.get(rule.as_str()).and_then(Value::as_str) else {
            c.at("aliases", |c| c.refuse(format!("alias `{name}` names no field for the rule `{rule}`")));
            continue;
        };
        match c.field(name) {
            Ok(field) => key.aliased.push((rule.clone(), name.to_owned(), field)),
            Err(reason) => {
                c.refuse(reason);
            }
        }
    }
    key
}

impl Draft {
    /// The correlation, with what it refers to, the logic of that, and the lists that it lacks.
    pub(super) fn resolve(
        mut self,
        rules: Vec<Referred>,
        logics: &[LogicHash],
        silent: Vec<String>,
    ) -> CorrelationRule {
        self.about.logic = self.logic(logics);
        let resolved = |keys: Vec<DraftKey>| keys.into_iter().map(|key| key.resolve(rules.len())).collect();
        CorrelationRule {
            about: self.about,
            kind: self.kind,
            group_by: resolved(self.group_by),
            timespan: self.timespan,
            condition: self.condition.thresholds,
            presence: self.condition.presence,
            values: resolved(self.condition.values),
            shown: resolved(self.shown),
            grades: self.grades,
            generate: self.generate,
            silent,
            rules,
        }
    }

    fn logic(&self, logics: &[LogicHash]) -> LogicHash {
        let mut logic = Logic::new(self.kind.name());
        logic.number(logics.len() as u64);
        for rule in logics {
            logic.bytes(rule);
        }
        logic.number(self.timespan);
        for keys in [&self.group_by, &self.condition.values] {
            logic.number(keys.len() as u64);
            for key in keys {
                match key.field {
                    Some(_) => logic.text(&key.name),
                    None => key.aliased.iter().for_each(|(_, name, _)| logic.text(name)),
                }
            }
        }
        for threshold in &self.condition.thresholds {
            logic.text(&format!("{:?}", threshold.operator));
            logic.number(threshold.count);
        }
        if let Some(presence) = &self.condition.presence {
            logic.text(&format!("{presence:?}"));
        }
        logic.finish()
    }
}

impl DraftKey {
    fn resolve(self, rules: usize) -> Key {
        let fields = match self.field {
            Some(field) => vec![field; rules],
            None => self.aliased.into_iter().map(|(_, _, field)| field).collect(),
        };
        Key { name: self.name, fields }
    }
}
