//! Names of fields: which exist, and what a wrong one was probably meant to be.

use crate::event::Stream;
use crate::facts;
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
    nearest(name, facts).map_or_else(String::new, |best| format!("; did you mean `{best}`?"))
}

/// The candidate that is nearest to a misspelt name, if one is near.
pub(super) fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let limit = (name.chars().count() / 3).clamp(1, 4);
    candidates.map(|c| (distance(name, c), c)).filter(|(d, _)| *d <= limit).min().map(|(_, c)| c)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested() {
        let names = || ["actor.name", "actor.namespace", "pod.images"].into_iter();
        assert_eq!(nearest("actor.nmae", names()), Some("actor.name"));
        assert_eq!(nearest("pod.image", names()), Some("pod.images"));
        assert_eq!(nearest("secret.type", names()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
