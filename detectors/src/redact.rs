//! What must not leave: credentials in commands, URIs and Falco's fields.
//!
//! Facts that could hold a secret whole (a Secret's data, a token response, `env[].value`, `last-applied-configuration`) have
//! no way into an alert; this scrub is for text that may hold one by accident. It reads a text once, without regular
//! expressions: compiling those took a third of a short run's time.

mod forms;
mod names;
pub mod paths;
mod phrases;
mod programs;

use std::borrow::Cow;
use std::ops::Range;

use crate::percent;

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// What is to be cut out of a text, in no order.
type Cuts = Vec<Range<usize>>;

/// True if a raw path leads to where secrets are kept: a Secret's data, tokens, values of environment variables, what
/// kubectl last applied.
pub fn is_secret_path(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let body = path.starts_with("requestobject") || path.starts_with("responseobject");
    let held = ["data", "stringdata", "token", "value", "env"];
    body && (path.contains("last-applied") || path.split(['.', '[']).any(|part| held.contains(&part)))
}

/// Replaces what is a credential by its own form. For names: words in them mean nothing.
pub fn tokens(text: &str) -> Cow<'_, str> {
    let mut cuts = Cuts::new();
    forms::find(text, &mut cuts);
    without(text, cuts)
}

/// Replaces credentials in free text by [`REDACTED`].
pub fn scrub(text: &str) -> Cow<'_, str> {
    scrub_with(text, false)
}

/// Replaces credentials among words that were split apart: there, a name may stand next to its value.
pub fn scrub_words(text: &str) -> Cow<'_, str> {
    scrub_with(text, true)
}

/// Replaces credentials in the arguments of a program, which its name is not among.
pub fn scrub_arguments(program: &str, arguments: &str) -> String {
    let whole = format!("{program} {arguments}");
    let scrubbed = scrub(&whole);
    match scrubbed.strip_prefix(program).and_then(|rest| rest.strip_prefix(' ')) {
        Some(rest) => rest.to_owned(),
        None => scrub(arguments).into_owned(),
    }
}

fn scrub_with(text: &str, apart: bool) -> Cow<'_, str> {
    let mut cuts = Cuts::new();
    forms::find(text, &mut cuts);
    phrases::find(text, apart, &mut cuts);
    without(text, cuts)
}

/// The text without the cuts, which may overlap.
fn without(text: &str, mut cuts: Cuts) -> Cow<'_, str> {
    cuts.retain(|cut| !cut.is_empty() && !text[cut.start..].starts_with(REDACTED));
    if cuts.is_empty() {
        return Cow::Borrowed(text);
    }
    cuts.sort_unstable_by_key(|cut| cut.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for cut in cuts {
        if cut.start >= at {
            out.push_str(&text[at..cut.start]);
            out.push_str(REDACTED);
        }
        at = at.max(cut.end);
    }
    out.push_str(&text[at..]);
    Cow::Owned(out)
}

/// Parameters of a request URI that are read.
const PARAMETERS: usize = 1024;

/// A request URI for showing: commands joined and scrubbed, other query values scrubbed, the path scrubbed.
pub fn uri(raw: &str) -> String {
    let (path, query) = raw.split_once('?').unwrap_or((raw, ""));
    let mut shown = scrub_decoded(path);
    let mut commands = Vec::new();
    let mut kept = Vec::new();
    for pair in query.split('&').take(PARAMETERS).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match &*percent_decode(name) {
            "command" | "cmd" => commands.push(percent_decode(value)),
            // Selectors name objects.
            "fieldSelector" | "labelSelector" => kept.push(tokens(pair).into_owned()),
            _ => kept.push(scrub_pair(pair)),
        }
    }
    if !commands.is_empty() {
        kept.insert(0, format!("command={}", scrub(&commands.join(" "))));
    }
    if !kept.is_empty() {
        shown.push('?');
        shown.push_str(&kept.join("&"));
    }
    shown
}

/// The text as it is if nothing is to be scrubbed from its decoded form, else that form scrubbed.
fn scrub_decoded(text: &str) -> String {
    match scrub(&percent_decode(text)) {
        Cow::Borrowed(_) => text.to_owned(),
        Cow::Owned(scrubbed) => scrubbed,
    }
}

/// A parameter of a query.
fn scrub_pair(pair: &str) -> String {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let decoded = percent_decode(name);
    let secret = names::promise(decoded.as_bytes()).is_some() || names::is_query_secret(decoded.as_bytes());
    if secret && !value.is_empty() {
        return format!("{decoded}={REDACTED}");
    }
    match scrub(&percent_decode(value)) {
        Cow::Borrowed(_) => pair.to_owned(),
        Cow::Owned(scrubbed) => format!("{name}={scrubbed}"),
    }
}

fn percent_decode(text: &str) -> Cow<'_, str> {
    percent::decode(text, true).0
}

#[cfg(test)]
mod tests;
