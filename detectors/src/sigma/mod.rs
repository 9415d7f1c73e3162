//! Sigma rules: YAML to detectors and correlations.
//!
//! `rsigma-parser` reads Sigma's small languages (conditions, field specifications, wildcards, time spans). The documents
//! are read here, because every problem should name its line, because nothing may be passed over in silence (a map where a
//! value belongs, a key that nobody knows), and because the catalogue comes as JSON: to read its YAML took half of start-up.
//!
//! What is not supported is refused, never half applied. Rules for other products are skipped and counted.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use yaml_serde::{Mapping, Value};

use crate::event::Stream;
use crate::names::did_you_mean;
use crate::program::{Expr, Selection, Tests};
use crate::settings::Settings;

mod condition;
mod correlation;
mod document;
mod logic;
mod mapping;
mod modifiers;
mod names;
mod rule;
mod selection;
mod values;

pub use correlation::{CorrelationRule, CountGrade, Key, Kind, Presence, Referred, Threshold};
pub use logic::LogicHash;
pub use rsigma_parser::ConditionOperator;
pub use rule::{About, DetectorRule, Grade};

use correlation::Draft;
use document::Document;
use rule::Logsource;
use selection::Compiler;

/// How rules are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Names that can have no value and unknown keys are errors: for our own catalogue.
    pub strict: bool,
    /// Keeps descriptions, references and false positives.
    pub prose: bool,
    /// Keeps the tests.
    pub tests: bool,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The rule works, though perhaps not as meant.
    Warning,
    /// The rule cannot be used.
    Error,
}

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub source: Arc<str>,
    /// The line, as well as it can be told.
    pub line: u32,
    /// What is wrong.
    pub reason: String,
    /// How bad it is.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{}:{}: {severity}: {}", self.source, self.line, self.reason)
    }
}

/// A rule that is not for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub source: Arc<str>,
    /// The rule's title.
    pub title: String,
    /// Its logsource, in words.
    pub logsource: String,
}

/// The rules of all files.
#[derive(Debug, Default)]
pub struct Rules {
    /// Every question that they ask.
    pub tests: Tests,
    /// Detectors of single events, each name once.
    pub detectors: Vec<DetectorRule>,
    /// Correlations, each name once.
    pub correlations: Vec<CorrelationRule>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is not for us.
    pub skipped: Vec<Skipped>,
    /// Names that a later file has taken over, and the file that lost them.
    pub replaced: Vec<(String, Arc<str>)>,
}

/// Reads files of rules, one after the other. The same name replaces.
pub struct Loader<'s> {
    settings: &'s Settings,
    options: Options,
    rules: Rules,
    items: Vec<Item>,
    filters: Vec<Filter>,
    /// Ids and names of skipped rules, which correlations may refer to.
    foreign: BTreeSet<String>,
    /// Files that were found below a folder, by their names: the folder, and the hash of what they say.
    found: HashMap<Arc<str>, (String, LogicHash)>,
}

/// Where a document comes from.
struct File {
    source: Arc<str>,
    /// Its place in the file.
    number: usize,
    trusted: bool,
}

enum Item {
    Detector(DetectorRule),
    Correlation(Draft),
}

impl Item {
    fn about(&self) -> &About {
        match self {
            Item::Detector(rule) => &rule.about,
            Item::Correlation(draft) => &draft.about,
        }
    }
}

/// A Sigma filter: what the rules that it names must fulfil as well.
struct Filter {
    source: Arc<str>,
    line: u32,
    stream: Stream,
    /// Names or ids; nothing means every rule.
    rules: Vec<String>,
    condition: Expr,
    logic: LogicHash,
    missing: Vec<String>,
}

impl<'s> Loader<'s> {
    /// A loader. `settings` give the lists for `expand`.
    pub fn new(settings: &'s Settings, options: Options) -> Loader<'s> {
        Loader {
            settings,
            options,
            rules: Rules::default(),
            items: Vec::new(),
            filters: Vec::new(),
            foreign: BTreeSet::new(),
            found: HashMap::new(),
        }
    }

    /// Reads a file that was found below a folder of the user's. Two files there that take the same name are a mistake, unless
    /// they say the same.
    pub fn add_below(&mut self, folder: &str, source: &str, yaml: &str) {
        let mut said = logic::Logic::new("file");
        said.text(yaml);
        self.found.insert(source.into(), (folder.to_owned(), said.finish()));
        self.add(source, yaml);
    }

    /// Reads a file. `source` is what problems call it.
    pub fn add(&mut self, source: &str, yaml: &str) {
        let mut skip = Vec::new();
        if !self.options.tests {
            skip.extend(document::TESTS);
        }
        if !self.options.prose {
            skip.extend(document::PROSE);
        }
        let source: Arc<str> = source.into();
        for (number, document) in document::read(yaml, &skip).into_iter().enumerate() {
            match document {
                Ok(document) => {
                    self.document(&document, &File { source: source.clone(), number, trusted: false });
                }
                Err(problem) => self.problem(&source, problem.line, problem.reason, Severity::Error),
            }
        }
    }

    /// Reads a file of our own catalogue: the JSON that the build made of it. Our tests have compiled its regular
    /// expressions and judged its names, so that this need not.
    pub fn add_builtin(&mut self, source: &str, json: &str) {
        let documents: Vec<Mapping> = serde_json::from_str(json).expect("the build wrote it");
        let source: Arc<str> = source.into();
        for (number, root) in documents.into_iter().enumerate() {
            self.document(&Document::compiled(root), &File { source: source.clone(), number, trusted: true });
        }
    }

    fn document(&mut self, document: &Document<'_>, file: &File) {
        let correlates = document.root.contains_key("correlation");
        let stream = match rule::logsource(document) {
            _ if correlates => None,
            Ok(Logsource::Ours(stream)) => Some(stream),
            Ok(Logsource::Foreign(logsource)) => return self.skip(document, &file.source, logsource),
            Err(reason) => {
                return self.problem(&file.source, document.line(&["logsource"]), reason, Severity::Error);
            }
        };
        let mut tests = std::mem::take(&mut self.rules.tests);
        let compiler =
            Compiler::new(&mut tests, self.settings, stream, self.options.strict).trusting(file.trusted);
        self.compile(document, file, compiler, stream);
        self.rules.tests = tests;
    }

    fn compile(&mut self, document: &Document<'_>, file: &File, mut c: Compiler<'_>, stream: Option<Stream>) {
        let version = rule::version(document, &mut c);
        let mut c = c.indexed(version >= rsigma_parser::SPEC_VERSION_ARRAY_MATCHING);
        let about = rule::about(document, name(document, file), &file.source, &mut c);
        let (mut item, mut filter) = (None, None);
        match stream {
            Some(stream) if document.root.contains_key("filter") => {
                filter = self::filter(document, &about, stream, &mut c);
            }
            Some(stream) => item = Some(Item::Detector(rule::detector(document, about, stream, &mut c))),
            None => item = correlation::draft(document, about, &mut c).map(Item::Correlation),
        }
        let notes = std::mem::take(&mut c.notes);
        let fatal = notes.iter().any(|note| note.fatal);
        for note in notes {
            let keys: Vec<&str> = note.keys.iter().map(String::as_str).collect();
            let severity = if note.fatal { Severity::Error } else { Severity::Warning };
            self.problem(&file.source, document.line(&keys), note.reason, severity);
        }
        if !fatal {
            self.items.extend(item);
            self.filters.extend(filter);
        }
    }

    fn skip(&mut self, document: &Document<'_>, source: &Arc<str>, logsource: String) {
        self.foreign.extend([document.text("id"), document.text("name")].into_iter().flatten());
        let title = document.text("title").unwrap_or_default();
        self.rules.skipped.push(Skipped { source: source.clone(), title, logsource });
    }

    fn problem(&mut self, source: &Arc<str>, line: u32, reason: String, severity: Severity) {
        self.rules.problems.push(Problem { source: source.clone(), line, reason, severity });
    }

    /// The rules, with names settled, filters applied and references resolved.
    pub fn finish(mut self) -> Rules {
        let (detectors, drafts) = self.settle();
        self.rules.detectors = detectors;
        self.filter();
        self.resolve(drafts);
        self.rules
    }

    /// Lets the last rule of each name stand, in the place of the first.
    fn settle(&mut self) -> (Vec<DetectorRule>, Vec<Draft>) {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut kept: Vec<Item> = Vec::new();
        for item in std::mem::take(&mut self.items) {
            let name = item.about().name.clone();
            let Some(&place) = places.get(&name) else {
                places.insert(name, kept.len());
                kept.push(item);
                continue;
            };
            let (earlier, later) = (kept[place].about(), item.about());
            let clash = if earlier.source == later.source {
                Some(format!("the name `{name}` is used twice in this file"))
            } else {
                let (first, line) = (&earlier.source, earlier.line);
                self.beside(earlier, later)
                    .then(|| format!("the name `{name}` is used in {first}:{line} too, in the same folder"))
            };
            if let Some(reason) = clash {
                let (source, line) = (later.source.clone(), later.line);
                self.problem(&source, line, reason, Severity::Error);
            } else {
                self.rules.replaced.push((name, earlier.source.clone()));
                kept[place] = item;
            }
        }
        self.same_ids(&kept);
        let (mut detectors, mut drafts) = (Vec::new(), Vec::new());
        for item in kept {
            match item {
                Item::Detector(rule) => detectors.push(rule),
                Item::Correlation(draft) => drafts.push(draft),
            }
        }
        (detectors, drafts)
    }

    /// True if two files were found below one folder and do not say the same.
    fn beside(&self, one: &About, other: &About) -> bool {
        match (self.found.get(&one.source), self.found.get(&other.source)) {
            (Some((here, says)), Some((there, said))) => here == there && says != said,
            _ => false,
        }
    }

    fn same_ids(&mut self, items: &[Item]) {
        let mut owners: HashMap<&str, &About> = HashMap::new();
        for about in items.iter().map(Item::about) {
            let Some(id) = about.id.as_deref() else { continue };
            if let Some(owner) = owners.insert(id, about) {
                let reason = format!("`{}` has the same id", owner.name);
                let severity = if self.options.strict { Severity::Error } else { Severity::Warning };
                self.problem(&about.source, about.line, reason, severity);
            }
        }
    }

    fn filter(&mut self) {
        for filter in std::mem::take(&mut self.filters) {
            let mut applied = 0;
            for rule in &mut self.rules.detectors {
                let named =
                    filter.rules.is_empty() || filter.rules.iter().any(|name| is_called(&rule.about, name));
                if !named || rule.stream != filter.stream {
                    continue;
                }
                applied += 1;
                let condition = std::mem::replace(&mut rule.condition, Expr::And(Vec::new()));
                rule.condition = rule::filtered(condition, &filter.condition);
                let mut logic = logic::Logic::new("filtered");
                logic.bytes(&rule.about.logic);
                logic.bytes(&filter.logic);
                rule.about.logic = logic.finish();
                rule.silent.extend(filter.missing.iter().cloned());
            }
            if applied == 0 && !filter.rules.iter().any(|name| self.foreign.contains(name)) {
                let reason = "no rule is called as this filter says".into();
                self.problem(&filter.source, filter.line, reason, Severity::Warning);
            }
        }
    }

    /// Resolves what correlations refer to, each after those that it refers to.
    fn resolve(&mut self, mut drafts: Vec<Draft>) {
        while !drafts.is_empty() {
            let names: BTreeSet<String> = drafts.iter().map(|draft| draft.about.name.clone()).collect();
            let ids: BTreeSet<String> = drafts.iter().filter_map(|draft| draft.about.id.clone()).collect();
            let waits =
                |draft: &Draft| draft.rules.iter().any(|name| names.contains(name) || ids.contains(name));
            let (waiting, ready): (Vec<_>, Vec<_>) = drafts.into_iter().partition(waits);
            if ready.is_empty() {
                for draft in waiting {
                    let reason = "correlations refer to each other in a circle".into();
                    self.problem(&draft.about.source, draft.rules_line, reason, Severity::Error);
                }
                return;
            }
            for draft in ready {
                self.resolve_one(draft);
            }
            drafts = waiting;
        }
    }

    fn resolve_one(&mut self, draft: Draft) {
        let rules = match self.referred(&draft) {
            Ok(Some(rules)) => rules,
            Ok(None) => {
                let About { source, title, name, id, .. } = draft.about;
                self.foreign.extend([Some(name), id].into_iter().flatten());
                let logsource = "correlation of skipped rules".into();
                return self.rules.skipped.push(Skipped { source, title, logsource });
            }
            Err(reason) => {
                return self.problem(&draft.about.source, draft.rules_line, reason, Severity::Error);
            }
        };
        let (source, line) = (draft.about.source.clone(), draft.rules_line);
        let (mut logics, mut silent) = (Vec::new(), BTreeSet::new());
        for rule in &rules {
            let (about, lists) = match *rule {
                Referred::Detector(index) => {
                    (&self.rules.detectors[index].about, &self.rules.detectors[index].silent)
                }
                Referred::Correlation(index) => {
                    (&self.rules.correlations[index].about, &self.rules.correlations[index].silent)
                }
            };
            logics.push(about.logic);
            silent.extend(lists.iter().cloned());
        }
        let rule = draft.resolve(rules, &logics, silent.into_iter().collect());
        if let Err(reason) = self.chained(&rule) {
            return self.problem(&source, line, reason, Severity::Error);
        }
        self.hide(&rule);
        self.rules.correlations.push(rule);
    }

    /// What a correlation refers to; nothing if some of it was skipped.
    fn referred(&self, draft: &Draft) -> Result<Option<Vec<Referred>>, String> {
        let (detectors, correlations) = (&self.rules.detectors, &self.rules.correlations);
        let mut rules = Vec::new();
        for name in &draft.rules {
            if let Some(index) = detectors.iter().position(|rule| is_called(&rule.about, name)) {
                rules.push(Referred::Detector(index));
            } else if let Some(index) = correlations.iter().position(|rule| is_called(&rule.about, name)) {
                rules.push(Referred::Correlation(index));
            } else if self.foreign.contains(name) {
                return Ok(None);
            } else {
                let known = detectors.iter().map(|rule| rule.about.name.as_str());
                let hint = did_you_mean(name, known);
                return Err(format!("there is no rule `{name}`, or it cannot be used{hint}"));
            }
        }
        Ok(Some(rules))
    }

    /// An alert of a correlation, as an event of another, has no fields to group or to count by but those that it is grouped by.
    fn chained(&self, rule: &CorrelationRule) -> Result<(), String> {
        for (place, referred) in rule.rules.iter().enumerate() {
            let Referred::Correlation(inner) = *referred else { continue };
            let inner = &self.rules.correlations[inner];
            for key in rule.group_by.iter().chain(&rule.values) {
                let field = self.rules.tests.name(key.fields[place]);
                if inner.group_by.iter().all(|key| key.name != field) {
                    let name = &inner.about.name;
                    return Err(format!(
                        "`{field}` is not among the group-by fields of the correlation `{name}`"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Sigma's base rules do not alert by themselves, unless the correlation says `generate`. That holds within one file; a
    /// detector elsewhere is not silenced because somebody counts it.
    fn hide(&mut self, correlation: &CorrelationRule) {
        if correlation.generate {
            return;
        }
        for rule in &correlation.rules {
            let about = match *rule {
                Referred::Detector(index) => &mut self.rules.detectors[index].about,
                Referred::Correlation(index) => &mut self.rules.correlations[index].about,
            };
            about.hidden |= about.source == correlation.about.source;
        }
    }
}

fn is_called(about: &About, name: &str) -> bool {
    about.name == name || about.id.as_deref() == Some(name)
}

/// The name that a document gives, else one made of the file's.
fn name(document: &Document<'_>, file: &File) -> String {
    if let Some(name) = document.text("name").filter(|name| !name.trim().is_empty()) {
        return name.trim().to_owned();
    }
    let last = file.source.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = last.strip_suffix(".yml").or_else(|| last.strip_suffix(".yaml")).unwrap_or(last);
    if file.number == 0 { format!("sigma/{stem}") } else { format!("sigma/{stem}-{}", file.number + 1) }
}

fn filter(document: &Document<'_>, about: &About, stream: Stream, c: &mut Compiler<'_>) -> Option<Filter> {
    let Some(map) = document.mapping("filter") else {
        c.refuse("`filter` is a map");
        return None;
    };
    let rules = match map.get("rules") {
        Some(Value::Sequence(names)) => names.iter().filter_map(document::plain).collect(),
        Some(name) => {
            document::plain(name).into_iter().filter(|name| !name.eq_ignore_ascii_case("any")).collect()
        }
        None => Vec::new(),
    };
    let (condition, _, logic) = c.at("filter", |c| rule::detection(map, &["rules"], c));
    let selection = Selection { name: format!("filter: {}", about.title), expr: condition };
    Some(Filter {
        source: about.source.clone(),
        line: document.line(&["filter", "rules"]),
        stream,
        rules,
        condition: Expr::Named(Arc::new(selection)),
        logic: logic.finish(),
        missing: c.missing.iter().cloned().collect(),
    })
}

/// Compiles the `when` of an exception: a map of fields to values (or a list of such maps), as in a selection.
///
/// # Errors
/// What is wrong with it: unknown names, lists that are not configured, and all that is wrong in a selection.
pub fn exception(when: &Value, tests: &mut Tests, settings: &Settings) -> Result<Expr, String> {
    let mut compiler = Compiler::new(tests, settings, None, true);
    let expr = match when {
        Value::Mapping(_) => compiler.selection(when),
        Value::Sequence(items) if items.iter().all(Value::is_mapping) => compiler.selection(when),
        _ => compiler.refuse("`when` is a map of fields to values"),
    };
    let lists = compiler.missing.iter().map(|name| format!("the list `{name}` is not configured"));
    let notes = compiler.notes.iter().filter(|note| note.fatal).map(|note| match note.keys.last() {
        Some(key) => format!("`{key}`: {}", note.reason),
        None => note.reason.clone(),
    });
    let problems: Vec<String> = notes.chain(lists).collect();
    if problems.is_empty() { Ok(expr) } else { Err(problems.join("; ")) }
}

#[cfg(test)]
mod tests;
