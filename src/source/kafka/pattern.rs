//! Patterns over names of topics.
//!
//! librdkafka gives them to the system's `regcomp` (its `rdregex.c`), which reads POSIX extended regular expressions (IEEE Std
//! 1003.1, chapter 9.4). What only other dialects have means something else there, and a pattern that matches nothing is no
//! error: so it is refused here. Names of topics are letters, digits, `.`, `_` and `-`.

use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use regex::Regex;

use crate::kafka::place;

/// The topics of an input.
#[derive(Debug)]
pub(super) struct Topics {
    names: Vec<String>,
    patterns: Vec<Regex>,
}

impl Topics {
    /// From names and patterns. A pattern that is sound ([`check`]) means the same here as to librdkafka.
    pub(super) fn new<'n>(all: impl Iterator<Item = &'n str>) -> Topics {
        let (patterns, names): (Vec<_>, Vec<_>) = all.partition(|name| name.starts_with('^'));
        Topics {
            names: names.into_iter().map(str::to_owned).collect(),
            patterns: patterns.into_iter().filter_map(|pattern| Regex::new(pattern).ok()).collect(),
        }
    }

    /// True if a topic is one of them.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.is_named(topic) || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }

    /// True if it is one only because a pattern fits.
    pub(super) fn is_by_pattern(&self, topic: &str) -> bool {
        !self.is_named(topic) && self.has(topic)
    }

    fn is_named(&self, topic: &str) -> bool {
        self.names.iter().any(|name| name == topic)
    }
}

/// What only patterns have.
const SIGNS: [char; 13] = ['*', '+', '?', '[', ']', '(', ')', '{', '}', '|', '\\', '$', '^'];

/// Says what is wrong with one of the `topics`: a pattern begins with `^`, and all else is a name.
///
/// # Errors
/// What, and what to write instead.
pub(super) fn check_topic(text: &str) -> Result<()> {
    if text.starts_with('^') {
        return check(text);
    }
    ensure!(!text.is_empty(), "one is empty: write `topics: [k8s-audit]`");
    let named = place::topic(text);
    if text.contains(SIGNS) {
        return named.map_err(|why| anyhow!("{why}: if it is a pattern, write `^{text}`"));
    }
    named
}

/// Says what is wrong with a pattern: it is malformed, or means something else than what is written.
fn check(pattern: &str) -> Result<()> {
    Regex::new(pattern).with_context(|| format!("`{pattern}`"))?;
    posix(pattern).with_context(|| {
        format!(
            "`{pattern}`: patterns of topics are POSIX extended regular expressions, which librdkafka uses"
        )
    })
}

fn posix(pattern: &str) -> Result<()> {
    let mut rest = pattern.chars().peekable();
    let mut before = None;
    while let Some(char) = rest.next() {
        match char {
            '\\' => {
                escape(rest.next())?;
                // It stands for itself, and is no quantifier.
                before = None;
                continue;
            }
            '[' => bracket(&mut rest)?,
            '(' if rest.peek() == Some(&'?') => {
                bail!(
                    "groups with `(?` are not known there: write (...), and [Aa] for both cases of a letter"
                )
            }
            '?' if matches!(before, Some('*' | '+' | '?' | '}')) => {
                bail!("a quantifier with `?` behind it is not known there: leave the `?` out")
            }
            _ => {}
        }
        before = Some(char);
    }
    Ok(())
}

/// What stands behind a backslash.
fn escape(char: Option<char>) -> Result<()> {
    let Some(char) = char else { return Ok(()) };
    let instead = match char {
        'd' => "write [0-9]",
        'D' => "write [^0-9]",
        'w' => "write [A-Za-z0-9_]",
        'W' => "write [.-]",
        _ => "only signs have a backslash before them, such as \\.",
    };
    let fits = char.is_ascii_punctuation() && !"<>`'".contains(char);
    ensure!(fits, "`\\{char}` is not known there: {instead}");
    Ok(())
}

/// What stands behind an opening bracket, to the closing one.
fn bracket(rest: &mut Peekable<Chars<'_>>) -> Result<()> {
    rest.next_if_eq(&'^');
    let mut empty = true;
    while let Some(char) = rest.next() {
        match char {
            ']' if !empty => break,
            '[' if rest.next_if_eq(&':').is_some() => {
                rest.find(|char| *char == ']');
            }
            '-' if rest.peek() != Some(&'-') => {}
            '.' | '_' => {}
            _ if char.is_ascii_alphanumeric() => {}
            _ => bail!(
                "`{char}` in brackets: only letters, digits, `.`, `_`, `-` and classes such as [:digit:] stand there, and a \
                 backslash would mean itself: write [0-9._-]"
            ),
        }
        empty = false;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_or_fit_a_pattern() {
        let topics = Topics::new(["audit", "^k8s-[a-z]+$"].into_iter());
        assert!(topics.has("audit") && !topics.is_by_pattern("audit"));
        assert!(topics.has("k8s-prod") && topics.is_by_pattern("k8s-prod"));
        assert!(!topics.has("k8s-1") && !topics.has("audit-2"));
    }

    #[test]
    fn what_means_the_same_is_taken() {
        for pattern in [
            "^k8s-.*",
            "^audit-[0-9]+$",
            "^(audit|events)\\.[a-z0-9._-]{2,9}\\-?$",
            "^[^_][[:alpha:]]*[[:digit:]_]?$",
            "^a\\+?\\\\?$",
        ] {
            check_topic(pattern).unwrap();
        }
    }

    #[test]
    fn what_means_something_else_is_refused() {
        for (pattern, expected) in [
            ("^(", "unclosed group"),
            (
                "^audit-\\d+",
                "POSIX extended regular expressions, which librdkafka uses: `\\d` is not known there: write [0-9]",
            ),
            ("^a\\D", "write [^0-9]"),
            ("^\\w+-x", "write [A-Za-z0-9_]"),
            ("^a\\b", "`\\b` is not known there: only signs"),
            ("^\\x61", "`\\x` is not known there"),
            ("^a\\<b", "`\\<` is not known there"),
            ("^(?i)audit", "write (...), and [Aa]"),
            ("^(?:a|b)", "groups with `(?`"),
            ("^a.*?-b", "leave the `?` out"),
            ("^a[0-9]{2}?", "leave the `?` out"),
            ("^a[\\d]", "`\\` in brackets"),
            ("^a[\\.\\-]b", "`\\` in brackets"),
            ("^[a-z&&[^x]]", "`&` in brackets"),
            ("^[a-z--x]", "`-` in brackets"),
            ("^[]a]", "`]` in brackets"),
        ] {
            let error = format!("{:#}", check_topic(pattern).unwrap_err());
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }

    #[test]
    fn all_else_is_a_name() {
        check_topic("k8s-audit.v1_x").unwrap();
        for (topic, expected) in [
            ("", "one is empty: write `topics: [k8s-audit]`"),
            (
                "k8s-.*",
                "`k8s-.*` is no name of a topic, which has letters, digits, `.`, `_` and `-`: if it is a pattern, write `^k8s-.*`",
            ),
            ("k8s audit", "`k8s audit` is no name of a topic, which has letters, digits, `.`, `_` and `-`"),
        ] {
            assert_eq!(check_topic(topic).unwrap_err().to_string(), expected);
        }
    }
}
