//! Selections: YAML maps and lists to conditions.
//!
//! A map is a conjunction of items, a list of maps a disjunction, a list of plain values keywords. An item is a field with
//! modifiers and values; it becomes one test.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rsigma_parser::fieldpath::escape_brackets;
use rsigma_parser::parse_field_spec;
use yaml_serde::{Mapping, Value};

use super::mapping;
use super::modifiers::{Operator, Plan};
use super::names::{self, Verdict};
use super::values;
use crate::event::Stream;
use crate::facts::{self, FactType};
use crate::program::{Expr, Field, Link, Matcher, Path, Pattern, Tests};
use crate::settings::Settings;
use crate::value::Tri;

/// Something to say about a place in a rule.
#[derive(Debug)]
pub(super) struct Note {
    /// The keys that lead to the place.
    pub(super) keys: Vec<String>,
    pub(super) reason: String,
    /// True if the rule cannot be used.
    pub(super) fatal: bool,
}

/// Compiles what one document says. What is wrong is noted, and stands for *unknown* so that the rest is read too.
pub(super) struct Compiler<'t> {
    pub(super) tests: &'t mut Tests,
    settings: &'t Settings,
    /// The stream that the rule watches; nothing for what may watch any.
    stream: Option<Stream>,
    /// Brackets in fields are positions (sigma-version 3).
    indexed: bool,
    strict: bool,
    /// Regular expressions are known to compile, and names to be right.
    trusted: bool,
    pub(super) notes: Vec<Note>,
    /// Lists that the rule needs and the config lacks.
    pub(super) missing: BTreeSet<String>,
    place: Vec<String>,
}

impl<'t> Compiler<'t> {
    pub(super) fn new(
        tests: &'t mut Tests,
        settings: &'t Settings,
        stream: Option<Stream>,
        strict: bool,
    ) -> Self {
        Compiler {
            tests,
            settings,
            stream,
            indexed: false,
            strict,
            trusted: false,
            notes: Vec::new(),
            missing: BTreeSet::new(),
            place: Vec::new(),
        }
    }

    /// Reads brackets in fields as positions.
    pub(super) fn indexed(mut self, indexed: bool) -> Self {
        self.indexed = indexed;
        self
    }

    /// Leaves regular expressions uncompiled and names unjudged.
    pub(super) fn trusting(mut self, trusted: bool) -> Self {
        self.trusted = trusted;
        self
    }

    /// Does something at a place within the present one.
    pub(super) fn at<T>(&mut self, key: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.place.push(key.to_owned());
        let out = work(self);
        self.place.pop();
        out
    }

    /// Notes what makes the rule unusable.
    pub(super) fn refuse(&mut self, reason: impl Into<String>) -> Expr {
        self.note(reason, true);
        Expr::Const(Tri::Unknown)
    }

    /// Notes what looks wrong.
    pub(super) fn warn(&mut self, reason: impl Into<String>) {
        self.note(reason, false);
    }

    fn note(&mut self, reason: impl Into<String>, fatal: bool) {
        self.notes.push(Note { keys: self.place.clone(), reason: reason.into(), fatal });
    }

    /// Notes what is unusable in our own catalogue, and only odd elsewhere.
    pub(super) fn lint(&mut self, reason: impl Into<String>) {
        self.note(reason, self.strict);
    }

    /// Notes an unknown key: unusable in our own catalogue; elsewhere anybody's, and odd only if it looks misspelt.
    pub(super) fn lint_key(&mut self, reason: String, misspelt: bool) {
        if self.strict || misspelt {
            self.lint(reason);
        }
    }

    /// A selection.
    pub(super) fn selection(&mut self, value: &Value) -> Expr {
        match value {
            Value::Mapping(map) => self.map(map),
            Value::Sequence(items) if items.is_empty() => self.refuse("an empty list selects nothing"),
            Value::Sequence(items) if items.iter().all(is_scalar) => self.item("", items),
            Value::Sequence(items) => {
                let any = items.iter().map(|item| match item {
                    Value::Sequence(_) => self.refuse("a list within a list"),
                    item => self.selection(item),
                });
                Expr::Or(any.collect())
            }
            scalar => self.item("", std::slice::from_ref(scalar)),
        }
    }

    fn map(&mut self, map: &Mapping) -> Expr {
        if map.is_empty() {
            return self.refuse("an empty map selects everything; name what it should select");
        }
        let mut all = Vec::with_capacity(map.len());
        for (key, value) in map {
            let Some(key) = key.as_str() else {
                all.push(self.refuse("a field's name must be text; quote it"));
                continue;
            };
            all.push(self.at(key, |this| this.entry(key, value, map)));
        }
        one_or(all, Expr::And)
    }

    fn entry(&mut self, key: &str, value: &Value, map: &Mapping) -> Expr {
        let values = match value {
            Value::Sequence(values) => values.as_slice(),
            scalar => std::slice::from_ref(scalar),
        };
        if key.is_empty() {
            return self.refuse("an empty field name");
        }
        if values.is_empty() {
            return self.refuse("an empty list of values matches nothing");
        }
        if let Some(odd) = values.iter().find(|value| !is_scalar(value)) {
            let what = if odd.is_mapping() { "a map" } else { "a list or a tagged value" };
            let advice = "a field takes one plain value or a list of them; write nested fields with dots";
            return self.refuse(format!("the value is {what}: {advice}"));
        }
        if self.stream != Some(Stream::Audit) {
            return self.item(key, values);
        }
        let any = mapping::adapt(key, values, map);
        let any = any.iter().map(|(key, values)| self.item(key, values)).collect();
        one_or(any, Expr::Or)
    }

    /// One field with modifiers and values; keywords if the key is empty or only modifiers.
    fn item(&mut self, key: &str, values: &[Value]) -> Expr {
        let spec = match parse_field_spec(key) {
            Ok(spec) => spec,
            Err(error) => return self.refuse(error.to_string()),
        };
        let keywords = spec.name.is_none();
        if keywords && key.starts_with('.') {
            return self.refuse("`.` stands for an item of an array, which is not supported");
        }
        let plan = match Plan::new(&spec.modifiers, keywords) {
            Ok(plan) => plan,
            Err(reason) => return self.refuse(reason),
        };
        let field = match spec.name.as_deref() {
            None => Field::Keywords,
            Some(name) => match self.field(name) {
                Ok(field) => field,
                Err(reason) => return self.refuse(reason),
            },
        };
        if plan.all && values.len() == 1 && !plan.expand {
            self.warn("`all` needs a list of values");
        }
        let expanded = match self.expand(&plan, values) {
            Ok(Some(values)) => values,
            Ok(None) => return Expr::Const(Tri::False),
            Err(reason) => return self.refuse(reason),
        };
        self.lint_types(field, &plan, &expanded);
        let text = values::item_text(key, values);
        if let Some(id) = self.tests.known(field, &text) {
            return Expr::Test(id);
        }
        match self.matcher(field, &plan, &expanded) {
            Ok(matcher) => Expr::Test(self.tests.intern(field, text, || matcher)),
            Err(reason) => self.refuse(reason),
        }
    }

    /// A field by name, with what looks wrong about the name noted.
    pub(super) fn field(&mut self, name: &str) -> Result<Field, String> {
        if !self.trusted
            && let Verdict::Odd(reason) = names::judge(name, self.stream)
        {
            self.lint(reason);
        }
        if !name.contains(['[', ']']) {
            return Ok(self.tests.field(name));
        }
        if self.indexed {
            return Path::indexed(name).map(|path| self.tests.path(path));
        }
        Ok(self.tests.path(Path::new(&escape_brackets(name))))
    }

    /// The values with placeholders replaced. Nothing if a list is missing.
    fn expand<'v>(&mut self, plan: &Plan, values: &'v [Value]) -> Result<Option<Cow<'v, [Value]>>, String> {
        if !plan.expand {
            return Ok(Some(Cow::Borrowed(values)));
        }
        let mut out = Vec::new();
        let known = self.missing.len();
        for value in values {
            let Value::String(text) = value else {
                return Err("`expand` takes text with %name% in it".into());
            };
            let expanded = values::expand(text, self.settings, &mut self.missing)?;
            out.extend(expanded.into_iter().map(Value::String));
        }
        let complete = self.missing.len() == known && !out.is_empty();
        Ok(complete.then_some(Cow::Owned(out)))
    }

    fn matcher(&mut self, field: Field, plan: &Plan, values: &[Value]) -> Result<Matcher, String> {
        let cased = plan.cased || matches!(field, Field::Fact(_));
        let negate = plan.negate;
        match plan.operator {
            Operator::Exists => match values {
                [Value::Bool(expected)] => Ok(Matcher::Exists(*expected)),
                _ => Err("`exists` takes true or false".into()),
            },
            Operator::Field(relation) => {
                let [Value::String(other)] = values else {
                    return Err("`fieldref` takes the name of one field".into());
                };
                if other.contains(['[', ']']) {
                    return Err("`fieldref` takes no positions".into());
                }
                let other = self.field(other)?;
                let cased = plan.cased || matches!((field, other), (Field::Fact(_), Field::Fact(_)));
                Ok(Matcher::Same { other, relation, cased, negate })
            }
            _ => {
                let cased = cased || plan.is_base64();
                let link = if plan.all { Link::All } else { Link::Any };
                let mut patterns = Vec::with_capacity(values.len());
                for value in values {
                    let mut alternatives = values::patterns(plan, value, cased, self.trusted)?;
                    match link {
                        Link::All if alternatives.len() > 1 => patterns.push(Pattern::OneOf(alternatives)),
                        _ => patterns.append(&mut alternatives),
                    }
                }
                let patterns = if link == Link::Any { Pattern::merge(patterns) } else { patterns };
                Ok(Matcher::Values { patterns, link, cased, negate })
            }
        }
    }

    /// Values that a fact of this type can never have.
    fn lint_types(&mut self, field: Field, plan: &Plan, values: &[Value]) {
        let Field::Fact(id) = field else { return };
        if plan.operator != Operator::Equals || plan.time.is_some() {
            return;
        }
        let fact = facts::get(id);
        let number = |value: &Value| {
            value.is_number() || value.as_str().is_some_and(|text| text.parse::<f64>().is_ok())
        };
        let fits = |value: &Value| match fact.kind {
            _ if value.is_null() => true,
            FactType::Bool => value.is_bool(),
            FactType::Int => number(value),
            FactType::Text | FactType::List => !value.is_bool(),
        };
        if !values.iter().all(fits) {
            let kind = match fact.kind {
                FactType::Bool => "true or false",
                FactType::Int => "a whole number",
                FactType::Text => "text",
                FactType::List => "a list of texts",
            };
            self.lint(format!("{} is {kind}: this value can never match", fact.name));
        }
    }
}

/// One condition as it is, several joined.
pub(super) fn one_or(mut all: Vec<Expr>, join: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match all.len() {
        1 => all.remove(0),
        _ => join(all),
    }
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Mapping(_) | Value::Sequence(_) | Value::Tagged(_))
}
