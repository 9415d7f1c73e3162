//! Names of fields: which exist, and what a wrong one was probably meant to be.

use crate::event::Stream;
use crate::facts;
use crate::names::did_you_mean;
use crate::program::TOP_KEYS;

/// What is to be said of a field's name.
pub(super) enum Verdict {
    Fine,
    /// It can never have a value.
    Odd(String),
}

/// Judges the name of a field in a rule for a stream.
pub(super) fn judge(name: &str, stream: Option<Stream>) -> Verdict {
    if let Some(id) = facts::find(name) {
        let known = stream.is_none_or(|stream| facts::get(id).streams.contains(&stream));
        let other = if stream == Some(Stream::Falco) { "Falco alerts" } else { "audit events" };
        return if known { Verdict::Fine } else { Verdict::Odd(format!("`{name}` is not known of {other}")) };
    }
    let first = name.split(['.', '[']).next().unwrap_or_default();
    let family = |fact: &str| fact.split('.').next() == Some(first);
    if facts::all().any(|fact| family(fact.name)) {
        return Verdict::Odd(format!("there is no fact `{name}`{}", suggestion(name)));
    }
    if TOP_KEYS.iter().any(|(key, _)| key.eq_ignore_ascii_case(first)) {
        return Verdict::Fine;
    }
    let hint = match stream {
        Some(Stream::Falco) => "; Falco's fields are below `output_fields`".to_owned(),
        _ => suggestion(name),
    };
    Verdict::Odd(format!("`{name}` is neither a fact nor a path from a key of the event{hint}"))
}

fn suggestion(name: &str) -> String {
    let facts = facts::all().map(|fact| fact.name);
    did_you_mean(name, facts)
}
