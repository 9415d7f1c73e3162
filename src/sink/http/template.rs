//! A body with places for an alert's values. There is no logic in it, and a value is never read as a part of the template.
//!
//! `${PATH}` is a value of the alert: `${rule}`, `${k8s.user}`, `${output_fields.ka.verb}`, `${evidence.0.offset}`. In JSON its
//! place decides how it is written: between quotes as a part of that string, elsewhere as a value with its own quotes.
//! `${json:PATH}` is its JSON, wherever it stands. `$${` is `${`. What the alert does not have is an empty text or `null`.

use anyhow::{Result, anyhow, bail};
use detectors::names;
use serde_json::Value;

use crate::text;

/// Bytes of a template.
const LONGEST: usize = 64 << 10;
/// The keys of an alert.
const KEYS: [&str; 20] = [
    "uuid",
    "time",
    "rule",
    "priority",
    "level",
    "source",
    "output",
    "output_fields",
    "tags",
    "schema",
    "detector",
    "cluster",
    "k8s",
    "evidence",
    "hostname",
    "partial",
    "approximate",
    "steps",
    "count",
    "group",
];

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    Json,
    Text,
}

/// A body with places.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(String),
    Place { path: String, form: Form },
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As JSON.
    Value,
    /// As a part of a JSON string.
    Quoted,
    /// The JSON of it as a part of a JSON string.
    QuotedJson,
    /// As one line of text.
    Plain,
    /// The JSON of it as one line of text.
    PlainJson,
}

impl Template {
    /// Reads a template, and tries it.
    pub(super) fn parse(text: &str, context: Context) -> Result<Template> {
        if text.len() > LONGEST {
            bail!("a template has at most {} KiB", LONGEST >> 10);
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut quotes = Quotes::default();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let before = &rest[..start];
            if let Some(before) = before.strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                quotes.pass(before);
                rest = &rest[start + 2..];
                continue;
            }
            literal.push_str(before);
            quotes.pass(before);
            let inner = &rest[start + 2..];
            let end = inner
                .find('}')
                .ok_or_else(|| anyhow!("`${{` without its `}}`; a `${{` that is meant so is `$${{`"))?;
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(place(&inner[..end], context, quotes.are_open)?);
            rest = &inner[end + 1..];
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        let template = Template { parts };
        if context == Context::Json {
            serde_json::from_str::<serde::de::IgnoredAny>(&template.render(&Value::Null))
                .map_err(|error| anyhow!("with the values in their places this is no JSON: {error}"))?;
        }
        Ok(template)
    }

    /// The body for an alert.
    pub(super) fn render(&self, alert: &Value) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Place { path, form } => {
                    let value = find(alert, path).unwrap_or(&Value::Null);
                    out.push_str(&written(value, *form));
                }
            }
        }
        out
    }
}

fn place(inner: &str, context: Context, is_quoted: bool) -> Result<Part> {
    let (path, is_json) = match inner.trim().strip_prefix("json:") {
        Some(path) => (path.trim(), true),
        None => (inner.trim(), false),
    };
    let root = path.split('.').next().unwrap_or_default();
    if !KEYS.contains(&root) {
        bail!(
            "`${{{}}}`: an alert has no `{root}`{}; its keys are {}",
            inner,
            names::did_you_mean(root, KEYS),
            KEYS.join(", ")
        );
    }
    let form = match (context, is_quoted, is_json) {
        (Context::Json, false, _) => Form::Value,
        (Context::Json, true, false) => Form::Quoted,
        (Context::Json, true, true) => Form::QuotedJson,
        (Context::Text, _, false) => Form::Plain,
        (Context::Text, _, true) => Form::PlainJson,
    };
    Ok(Part::Place { path: path.to_owned(), form })
}

/// Whether the place after some JSON is inside a string.
#[derive(Debug, Default)]
struct Quotes {
    are_open: bool,
    is_escaped: bool,
}

impl Quotes {
    fn pass(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.are_open => self.is_escaped = true,
                b'"' => self.are_open = !self.are_open,
                _ => {}
            }
        }
    }
}

/// A value by its path. Names of fields have dots in them, so the longest name that is there wins.
fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => {
            if let Some(found) = map.get(path) {
                return Some(found);
            }
            // The names get shorter and the rest with them, so this ends.
            let mut dots = path.rmatch_indices('.');
            dots.find_map(|(at, _)| map.get(&path[..at]).and_then(|inner| find(inner, &path[at + 1..])))
        }
        Value::Array(items) => {
            let (index, rest) =
                path.split_once('.').map_or((path, None), |(index, rest)| (index, Some(rest)));
            let item = items.get(index.parse::<usize>().ok()?)?;
            rest.map_or(Some(item), |rest| find(item, rest))
        }
        _ => None,
    }
}

fn written(value: &Value, form: Form) -> String {
    let bare = || match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let quoted = |text: String| {
        let json = Value::String(text).to_string();
        text::for_json(&json[1..json.len() - 1]).into_owned()
    };
    match form {
        Form::Quoted => quoted(bare()),
        Form::QuotedJson => quoted(value.to_string()),
        Form::Plain => text::for_terminal(&bare()).into_owned(),
        Form::Value | Form::PlainJson => text::for_json(&value.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sink::tests::{NASTY, nasty};

    fn check(template: &str, context: Context, expected: &str) {
        let alert = json!({
            "rule": "a \"b\"\n", "k8s": {"user": "dana", "code": 201, "groups": ["x", "y"]}, "cluster": null,
            "output_fields": {"ka.verb": "get", "ka": {"verb": "no"}},
        });
        assert_eq!(Template::parse(template, context).unwrap().render(&alert), expected, "{template}");
    }

    #[test]
    fn values_are_written_as_their_place_needs() {
        use Context::{Json, Text};
        check(r#"{"t": "by ${k8s.user}"}"#, Json, r#"{"t": "by dana"}"#);
        check(r#"{"t": ${rule}}"#, Json, r#"{"t": "a \"b\"\n"}"#);
        check(r#"{"t": "x ${rule}"}"#, Json, r#"{"t": "x a \"b\"\n"}"#);
        check(r#"{"t": "\"${rule}"}"#, Json, r#"{"t": "\"a \"b\"\n"}"#);
        check(r#"{"c": ${k8s.code}, "g": ${k8s.groups}}"#, Json, r#"{"c": 201, "g": ["x","y"]}"#);
        check(
            r#"{"c": "${k8s.code}", "g": "${json:k8s.groups}"}"#,
            Json,
            r#"{"c": "201", "g": "[\"x\",\"y\"]"}"#,
        );
        check(
            r#"{"n": ${cluster}, "e": "${cluster}", "m": "${steps}"}"#,
            Json,
            r#"{"n": null, "e": "", "m": ""}"#,
        );
        check(
            r#"{"v": "${output_fields.ka.verb}", "g": "${k8s.groups.1}"}"#,
            Json,
            r#"{"v": "get", "g": "y"}"#,
        );
        check(r#"{"v": "$${rule}"}"#, Json, r#"{"v": "${rule}"}"#);
        check("${rule} by ${ k8s.user }", Text, "a \"b\"\\n by dana");
        check("${json:k8s.groups}", Text, r#"["x","y"]"#);
    }

    #[test]
    fn a_value_is_never_a_template() {
        let alert = serde_json::to_value(nasty()).unwrap();
        let json = Template::parse(r#"{"a": "${k8s.user}", "b": ${k8s.user}}"#, Context::Json).unwrap();
        let back: Value = serde_json::from_str(&json.render(&alert)).unwrap();
        assert_eq!((back["a"].as_str(), back["b"].as_str()), (Some(NASTY), Some(NASTY)));
        let plain = Template::parse("user: ${k8s.user}", Context::Text).unwrap().render(&alert);
        assert!(!plain.chars().any(text::is_hostile), "{plain}");
    }

    #[test]
    fn mistakes_are_told() {
        for (template, expected) in [
            (
                r#"{"t": "${rle}"}"#,
                "`${rle}`: an alert has no `rle`; did you mean `rule`?; its keys are uuid, time",
            ),
            (r#"{"t": "${rule"}"#, "`${rule\"}`: an alert has no `rule\"`; did you mean `rule`?"),
            (r#"{"t": ${rule}"#, "with the values in their places this is no JSON: EOF"),
            (r#"{"t": "${rule"#, "`${` without its `}`"),
        ] {
            let error = Template::parse(template, Context::Json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
