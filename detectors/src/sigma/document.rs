//! A file of rules as YAML documents that know their lines.
//!
//! The text is cut at `---` before it is parsed, so that every document has a line and a broken one does not take the
//! others with it. Keys whose values nobody will read (tests, prose) are cut out as text first: reading them would take most
//! of the time of start-up.

use yaml_serde::{Mapping, Value};

/// Top-level keys that only people read.
pub(super) const PROSE: &[&str] = &["description", "references", "falsepositives"];
/// Top-level keys that only `detectors test` reads.
pub(super) const TESTS: &[&str] = &["tests"];

/// One document.
pub(super) struct Document<'y> {
    /// Empty for what was compiled in, where nothing is said of lines.
    text: &'y str,
    /// The line of its first line in the file; the first is 1.
    first_line: u32,
    /// What it says, with the `action: global` documents before it merged in.
    pub(super) root: Mapping,
}

/// What is wrong with a document that cannot be read.
pub(super) struct Unreadable {
    pub(super) line: u32,
    pub(super) reason: String,
}

impl Document<'_> {
    /// A document that was read before: its lines are not known, and all are the first.
    pub(super) fn compiled(root: Mapping) -> Document<'static> {
        Document { text: "", first_line: 1, root }
    }

    /// The line of a key: the path of keys that leads to it, each within the one before. The best guess, if the text is
    /// written in an unusual way, is the line of the last key that was found.
    pub(super) fn line(&self, keys: &[&str]) -> u32 {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut at = 0;
        for (depth, key) in keys.iter().enumerate() {
            let margin = lines
                .iter()
                .position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
            let within = || lines.iter().skip(at).position(|line| has_key(line, key));
            let found = if depth == 0 { margin.or_else(within) } else { within() };
            match found {
                Some(distance) => at += distance,
                None => break,
            }
        }
        self.first_line + at as u32
    }

    /// The keys of a mapping member in the order of the file. `None` if the member is no mapping.
    pub(super) fn mapping(&self, key: &str) -> Option<&Mapping> {
        self.root.get(key)?.as_mapping()
    }

    /// A text member; numbers and truth values are read as written.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        plain(self.root.get(key)?)
    }

    /// A list of texts; a single text is a list of one.
    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        match self.root.get(key) {
            Some(Value::Sequence(items)) => items.iter().filter_map(plain).collect(),
            Some(value) => plain(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// A scalar as text.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// True if the line holds `key:`, at its beginning or in a flow mapping.
fn has_key(line: &str, key: &str) -> bool {
    line.match_indices(key).any(|(at, _)| {
        let before = line[..at].trim_end_matches(['"', '\'']);
        let after = line[at + key.len()..].trim_start_matches(['"', '\'']);
        let opens = before.trim_start_matches([' ', '-']).is_empty() || before.ends_with(['{', ',', ' ']);
        opens && !before.contains('#') && after.trim_start().starts_with(':')
    })
}

/// Reads all documents of a file; empty ones are passed over. Top-level keys named in `skip` are not read.
pub(super) fn read<'y>(yaml: &'y str, skip: &[&str]) -> Vec<Result<Document<'y>, Unreadable>> {
    let yaml = yaml.strip_prefix('\u{feff}').unwrap_or(yaml); // editors of another world begin files so
    let mut out = Vec::new();
    let mut global = Mapping::new();
    let mut previous = Mapping::new();
    // Few files repeat, and copying every document would take a fifth of the time.
    let repeats = yaml.contains("repeat");
    for (first_line, text) in split(yaml) {
        match parse(text, first_line, skip) {
            Ok(None) => {}
            Ok(Some(mut root)) => match root.remove("action").as_ref().and_then(Value::as_str) {
                Some("global") => global = root,
                Some("reset") => global = Mapping::new(),
                action => {
                    let base = if action == Some("repeat") { &previous } else { &global };
                    let root = merged(base, root);
                    if repeats {
                        previous.clone_from(&root);
                    }
                    out.push(Ok(Document { text, first_line, root }));
                }
            },
            Err(problem) => out.push(Err(problem)),
        }
    }
    out
}

fn parse(text: &str, first_line: u32, skip: &[&str]) -> Result<Option<Mapping>, Unreadable> {
    let unreadable = |line, reason| Unreadable { line, reason };
    let broken = |error: yaml_serde::Error| {
        let line = error.location().map_or(0, |place| place.line().saturating_sub(1) as u32);
        unreadable(first_line + line, format!("not YAML: {error}"))
    };
    let mut value: Value = yaml_serde::from_str(&without(text, skip)).map_err(broken)?;
    if text.contains("<<") {
        value.apply_merge().map_err(broken)?;
    }
    match value {
        Value::Null => Ok(None),
        Value::Mapping(root) => Ok(Some(root)),
        _ => Err(unreadable(first_line, "a rule is a mapping of keys to values".into())),
    }
}

/// The text with the values of some top-level keys blanked, line for line.
fn without<'y>(text: &'y str, skip: &[&str]) -> std::borrow::Cow<'y, str> {
    let starts =
        |line: &str| skip.iter().any(|key| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
    if !text.lines().any(starts) {
        return text.into();
    }
    let mut kept = String::with_capacity(text.len());
    let mut skipping = false;
    for line in text.split_inclusive('\n') {
        if starts(line) {
            skipping = true;
        } else if skipping {
            // Values are indented; a list may also stand at the margin.
            skipping = line.starts_with([' ', '\t', '-', '#', ']', '}', '\r', '\n']);
        }
        kept.push_str(if skipping { "\n" } else { line });
    }
    kept.into()
}

/// Cuts the text at `---`; gives the documents' first lines and texts.
fn split(yaml: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (number, line) in yaml.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        if marker == "---" || marker == "..." || line.starts_with("--- ") {
            documents.push((first, &yaml[start..at]));
            first = number as u32 + 2;
            start = at + line.len();
            if line.starts_with("--- ") && !marker[3..].trim_start().starts_with('#') {
                (start, first) = (at + 4, number as u32 + 1);
            }
        }
        at += line.len();
    }
    documents.push((first, &yaml[start..]));
    documents
}

/// `over` laid over `base`: mappings are merged, everything else is replaced.
fn merged(base: &Mapping, over: Mapping) -> Mapping {
    if base.is_empty() {
        return over;
    }
    let mut out = base.clone();
    for (key, value) in over {
        let value = match (out.remove(&key), value) {
            (Some(Value::Mapping(base)), Value::Mapping(over)) => Value::Mapping(merged(&base, over)),
            (_, value) => value,
        };
        out.insert(key, value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_their_lines() {
        let yaml = "# head\ntitle: one\ntests:\n- a: 1\n  b: 2\ndetection:\n  a:\n    verb: get\n  b: {verb: list}\n---\n\ntitle: two\n";
        let documents: Vec<_> = read(yaml, &["tests"]).into_iter().filter_map(Result::ok).collect();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].line(&["detection", "b", "verb"]), 9);
        assert_eq!(documents[0].root.get("tests"), Some(&Value::Null).filter(|_| false));
        assert_eq!(documents[1].line(&["title"]), 12);
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let documents: Vec<_> =
            read("\u{feff}title: one\n", &[]).into_iter().filter_map(Result::ok).collect();
        assert_eq!(documents[0].text("title").as_deref(), Some("one"));
        assert_eq!(documents[0].line(&["title"]), 1);
    }

    #[test]
    fn a_broken_document_leaves_the_others() {
        let read = read("title: one\n---\ntitle: [\n---\ntitle: three\n", &[]);
        let lines: Vec<_> = read.iter().map(|d| d.as_ref().map_err(|e| e.line).err()).collect();
        assert_eq!(lines, [None, Some(4), None]);
    }

    #[test]
    fn a_global_document_is_merged_into_those_after_it() {
        let yaml = "action: global\nlevel: high\ndetection: {c: {verb: get}}\n---\ndetection: {d: {verb: list}}\n---\naction: reset\n---\nlevel: low\n";
        let documents: Vec<_> = read(yaml, &[]).into_iter().filter_map(Result::ok).collect();
        assert_eq!(documents[0].text("level").as_deref(), Some("high"));
        assert_eq!(documents[0].mapping("detection").map(Mapping::len), Some(2));
        assert_eq!(documents[1].text("level").as_deref(), Some("low"));
    }
}
