//! One rule: what it is called and says of itself, and its detection.

use std::sync::Arc;

use yaml_serde::{Mapping, Value};

use super::condition::Selections;
use super::document::Document;
use super::logic::{Logic, LogicHash};
use super::selection::{Compiler, one_or};
use crate::event::Stream;
use crate::level::Level;
use crate::names::did_you_mean;
use crate::program::{Expr, Field, Selection, Template};

/// Keys of Sigma's rules and our own.
const KEYS: &[&str] = &[
    "title",
    "id",
    "name",
    "related",
    "taxonomy",
    "status",
    "description",
    "license",
    "author",
    "references",
    "date",
    "modified",
    "logsource",
    "detection",
    "fields",
    "falsepositives",
    "level",
    "tags",
    "scope",
    "sigma-version",
    "custom_attributes",
    "correlation",
    "generate",
    "filter",
    "message",
    "grade",
    "tests",
];
const STATUSES: [&str; 5] = ["stable", "test", "experimental", "deprecated", "unsupported"];
/// The newest version of the specification that is understood.
const SIGMA_VERSION: u32 = 3;

/// What a rule says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// `family/name`; `sigma/<file stem>` if the file gives none.
    pub name: String,
    /// One line.
    pub title: String,
    /// A UUID, stable for ever.
    pub id: Option<String>,
    /// How severe an alert is, unless a grade says otherwise. Medium if the file does not say.
    pub level: Level,
    /// stable, test, experimental, deprecated or unsupported.
    pub status: Option<String>,
    /// What it sees, why it matters, what it misses, what to check.
    pub description: String,
    /// Where to read more.
    pub references: Vec<String>,
    /// ATT&CK techniques, checklist codes and the like.
    pub tags: Vec<String>,
    /// What it may mistake for an attack.
    pub falsepositives: Vec<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// The sentence of an alert.
    pub message: Option<Template>,
    /// The tests in the file, if they were asked for.
    pub tests: Option<Value>,
    /// The file.
    pub source: Arc<str>,
    /// Where in the file it begins.
    pub line: u32,
    /// The hash of what it says.
    pub logic: LogicHash,
    /// It never alerts by itself: the last part of its name begins with `_`, or a correlation in the same file counts it
    /// without `generate`.
    pub hidden: bool,
}

/// A detector of single events.
#[derive(Debug)]
pub struct DetectorRule {
    /// What it says of itself.
    pub about: About,
    /// The events it judges.
    pub stream: Stream,
    /// What must hold.
    pub condition: Expr,
    /// Its named selections, in the order of the file.
    pub selections: Vec<Arc<Selection>>,
    /// Sigma's `fields`: what an alert shows beside what every alert shows.
    pub fields: Vec<Field>,
    /// The first grade that holds gives the level.
    pub grades: Vec<Grade>,
    /// Lists that it needs and the config lacks: it is silent.
    pub silent: Vec<String>,
}

/// A level for some of a detector's alerts.
#[derive(Debug)]
pub struct Grade {
    /// When it applies.
    pub when: Expr,
    /// The level.
    pub level: Level,
}

/// Where a rule's events come from.
pub(super) enum Logsource {
    Ours(Stream),
    /// Somebody else's; in words.
    Foreign(String),
}

/// The common part of all rules. `condition` and `tests` are the parts that need a compiler.
pub(super) fn about(document: &Document<'_>, name: String, source: &Arc<str>, c: &mut Compiler<'_>) -> About {
    let title = document.text("title").unwrap_or_default();
    if title.trim().is_empty() {
        c.refuse("a rule needs a `title`");
    }
    unknown_keys(&document.root, KEYS, c);
    let status = document.text("status");
    if let Some(status) = status.as_ref().filter(|status| !STATUSES.contains(&status.as_str())) {
        c.at("status", |c| c.lint(format!("`{status}` is none of {}", STATUSES.join(", "))));
    }
    let message = document.root.get("message");
    // What the message of a correlation names may also be computed, or an alias: that is for the correlation to judge.
    let correlates = document.root.contains_key("correlation");
    let message = message.and_then(|message| c.at("message", |c| template(message, correlates, c)));
    let hidden = name.rsplit('/').next().is_some_and(|last| last.starts_with('_'));
    About {
        hidden,
        title,
        id: document.text("id"),
        level: level(document, c),
        status,
        description: document.text("description").unwrap_or_default(),
        references: document.texts("references"),
        tags: document.texts("tags"),
        falsepositives: document.texts("falsepositives"),
        author: document.text("author"),
        message,
        tests: document.root.get("tests").cloned(),
        source: source.clone(),
        line: document.line(&["title"]),
        logic: LogicHash::default(),
        name,
    }
}

/// Notes keys that nobody knows.
fn unknown_keys(map: &Mapping, known: &[&str], c: &mut Compiler<'_>) {
    for key in map.keys() {
        let key = key.as_str().unwrap_or_default();
        if !known.contains(&key) {
            let hint = did_you_mean(key, known.iter().copied());
            c.at(key, |c| c.lint_key(format!("unknown key `{key}`{hint}"), !hint.is_empty()));
        }
    }
}

fn level(document: &Document<'_>, c: &mut Compiler<'_>) -> Level {
    match document.root.get("level") {
        None => Level::Medium,
        Some(value) => c.at("level", |c| parse_level(value, c)),
    }
}

fn parse_level(value: &Value, c: &mut Compiler<'_>) -> Level {
    value.as_str().unwrap_or_default().parse().unwrap_or_else(|reason: String| {
        c.refuse(reason);
        Level::Medium
    })
}

/// A message, the names in which are fields unless it `correlates`.
fn template(value: &Value, correlates: bool, c: &mut Compiler<'_>) -> Option<Template> {
    let Some(text) = value.as_str() else {
        c.refuse("a message is a text");
        return None;
    };
    match Template::names(text) {
        Ok(names) => {
            for name in names.into_iter().filter(|_| !correlates) {
                // The template itself asks for the field again; this is for what is to be said of the name.
                if let Err(reason) = c.field(&name) {
                    c.refuse(reason);
                }
            }
        }
        Err(reason) => {
            c.refuse(reason);
            return None;
        }
    }
    Template::new(text, c.tests).ok()
}

/// The `sigma-version`; nothing if there is none.
pub(super) fn version(document: &Document<'_>, c: &mut Compiler<'_>) -> u32 {
    let Some(value) = document.root.get("sigma-version") else { return 2 };
    match rsigma_parser::version::major_from_value(value) {
        Some(major) if major <= SIGMA_VERSION => major,
        _ => {
            c.at("sigma-version", |c| {
                c.refuse(format!("only versions up to {SIGMA_VERSION} are understood"))
            });
            2
        }
    }
}

pub(super) fn logsource(document: &Document<'_>) -> Result<Logsource, String> {
    let Some(source) = document.mapping("logsource") else {
        return Err(
            "a rule needs a `logsource`: {product: kubernetes, service: audit} or {product: falco}".into()
        );
    };
    let get = |key: &str| source.get(key).and_then(Value::as_str).map(str::to_ascii_lowercase);
    let (product, service, category) = (get("product"), get("service"), get("category"));
    let application = category.as_deref().is_none_or(|c| c == "application" || c == "audit");
    Ok(match (product.as_deref(), service.as_deref()) {
        (Some("kubernetes"), None | Some("audit")) | (None, Some("audit")) if application => {
            Logsource::Ours(Stream::Audit)
        }
        (Some("falco"), _) => Logsource::Ours(Stream::Falco),
        _ => {
            let words = [product, service, category].into_iter().flatten();
            Logsource::Foreign(words.collect::<Vec<_>>().join("/"))
        }
    })
}

/// The selections and the condition of a `detection` or `filter`, and the hash of both.
pub(super) fn detection(map: &Mapping, apart: &[&str], c: &mut Compiler<'_>) -> (Expr, Selections, Logic) {
    let mut logic = Logic::new("detection");
    let mut named = Vec::new();
    let mut members: Vec<(&str, &Value)> = Vec::new();
    for (key, value) in map {
        match key.as_str() {
            Some("condition") => {}
            Some("timeframe") => {
                c.at("timeframe", |c| c.refuse("`timeframe` is no longer Sigma; write a correlation rule"));
            }
            Some(name) if apart.contains(&name) => {}
            Some(name) => {
                let expr = c.at(name, |c| c.selection(value));
                named.push(Arc::new(Selection { name: name.to_owned(), expr }));
                members.push((name, value));
            }
            None => {
                c.refuse("a selection's name must be text; quote it");
            }
        }
    }
    let mut selections = Selections::new(named);
    let (condition, canonical) = c.at("condition", |c| selections.condition(map.get("condition"), c));
    logic.text(&canonical);
    members.sort_by_key(|(name, _)| *name);
    for (name, value) in members {
        logic.text(name);
        logic.value(value);
    }
    (condition, selections, logic)
}

/// A detector.
pub(super) fn detector(
    document: &Document<'_>,
    about: About,
    stream: Stream,
    c: &mut Compiler<'_>,
) -> DetectorRule {
    let mut about = about;
    let empty = Mapping::new();
    let map = document.mapping("detection").unwrap_or_else(|| {
        c.refuse("a rule needs a `detection` with selections and a `condition`");
        &empty
    });
    let (condition, mut selections, logic) = c.at("detection", |c| detection(map, &[], c));
    about.logic = logic.finish();
    let grades = match document.root.get("grade") {
        Some(grades) => c.at("grade", |c| self::grades(grades, &mut selections, c)),
        None => Vec::new(),
    };
    for name in selections.unused().map(str::to_owned).collect::<Vec<_>>() {
        c.at("detection", |c| c.at(&name, |c| c.warn(format!("no condition uses the selection `{name}`"))));
    }
    let fields = c.at("fields", |c| fields(document, c));
    DetectorRule {
        about,
        stream,
        condition,
        fields,
        selections: selections.into_all(),
        grades,
        silent: c.missing.iter().cloned().collect(),
    }
}

/// The fields that an alert is to show.
fn fields(document: &Document<'_>, c: &mut Compiler<'_>) -> Vec<Field> {
    let mut fields = Vec::new();
    for name in document.texts("fields") {
        match c.field(&name) {
            Ok(field) => fields.push(field),
            Err(reason) => {
                c.refuse(reason);
            }
        }
    }
    fields
}

fn grades(value: &Value, selections: &mut Selections, c: &mut Compiler<'_>) -> Vec<Grade> {
    let shape = "`grade` is a list of {when: CONDITION, level: LEVEL}";
    let Some(items) = value.as_sequence() else {
        c.refuse(shape);
        return Vec::new();
    };
    let mut grades = Vec::new();
    for item in items {
        let (when, level) = (item.get("when"), item.get("level"));
        match (when, level, item.as_mapping().map(Mapping::len)) {
            (Some(when), Some(level), Some(2)) => {
                let (when, _) = selections.condition(Some(when), c);
                grades.push(Grade { when, level: parse_level(level, c) });
            }
            _ => {
                c.refuse(shape);
            }
        }
    }
    grades
}

/// `expr` and what a filter says.
pub(super) fn filtered(expr: Expr, filter: &Expr) -> Expr {
    one_or(vec![expr, filter.clone()], Expr::And)
}
