//! A text that every match of a regular expression contains.
//!
//! Searching it is cheaper than compiling the expression, and hardly any text contains it. The reading is cautious: what it
//! does not know, it gives up on.

/// A text without which an expression cannot match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Required {
    text: String,
    /// True if the case of ASCII letters does not matter; the text is in lower case then.
    any_case: bool,
}

/// Letters whose escape stands for one character of a class.
const CLASSES: &str = "dDwWsSntr";

impl Required {
    /// The longest one of the expression's own run of characters, if that is easily told.
    pub(super) fn of(expression: &str, any_case: bool) -> Option<Required> {
        let (expression, any_case) = match expression.strip_prefix("(?i)") {
            Some(rest) => (rest, true),
            None => (expression, any_case),
        };
        let mut text = longest_run(expression)?;
        if any_case {
            text.make_ascii_lowercase();
        }
        Some(Required { text, any_case })
    }

    /// True if the text may match.
    pub(super) fn in_text(&self, text: &str) -> bool {
        if !self.any_case {
            return memchr::memmem::find(text.as_bytes(), self.text.as_bytes()).is_some();
        }
        let wanted = self.text.as_bytes();
        text.as_bytes().windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
    }
}

fn longest_run(expression: &str) -> Option<String> {
    let mut rest = expression.chars().peekable();
    let (mut longest, mut run) = (String::new(), String::new());
    while let Some(c) = rest.next() {
        // One character, or none: what a repetition that follows repeats.
        let unit = match c {
            '(' => {
                skip_group(&mut rest)?;
                None
            }
            '[' => {
                skip_class(&mut rest)?;
                None
            }
            '.' | '^' | '$' => None,
            '\\' => match rest.next()? {
                // A boundary has no width and stands between the characters of one run.
                'b' | 'B' if rest.peek() != Some(&'{') => continue,
                '<' | '>' => return None,
                escaped if escaped.is_ascii_punctuation() => Some(escaped),
                class if CLASSES.contains(class) => None,
                _ => return None,
            },
            // An alternative, or what the grammar does not allow here.
            '|' | '*' | '+' | '?' | '{' | '}' | ')' | ']' => return None,
            plain => Some(plain),
        };
        let (least, most) = repetition(&mut rest)?;
        match unit {
            Some(c) if least > 0 => {
                run.push(c);
                if most {
                    keep(&mut longest, &mut run);
                }
            }
            _ => keep(&mut longest, &mut run),
        }
    }
    keep(&mut longest, &mut run);
    (longest.len() > 1).then_some(longest)
}

fn keep(longest: &mut String, run: &mut String) {
    if run.len() > longest.len() {
        std::mem::swap(longest, run);
    }
    run.clear();
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// How often the unit before stands at least, and whether it may stand more often.
fn repetition(rest: &mut Chars<'_>) -> Option<(u32, bool)> {
    let (least, more) = match rest.peek() {
        Some('*' | '?') => (0, true),
        Some('+') => (1, true),
        Some('{') => {
            while *rest.peek()? != '}' {
                rest.next();
            }
            (0, true)
        }
        _ => return Some((1, false)),
    };
    rest.next();
    if rest.peek() == Some(&'?') {
        rest.next();
    }
    Some((least, more))
}

/// Passes over a group; gives up on one that sets flags, which may hold for what follows.
fn skip_group(rest: &mut Chars<'_>) -> Option<()> {
    if rest.peek() == Some(&'?') {
        rest.next();
        if rest.peek() != Some(&':') {
            return None;
        }
    }
    let mut depth = 1;
    while depth > 0 {
        match rest.next()? {
            '\\' => {
                rest.next()?;
            }
            '[' => skip_class(rest)?,
            '(' => depth += 1,
            ')' => depth -= 1,
            // Flags within end with their group.
            _ => {}
        }
    }
    Some(())
}

/// Passes over a class; gives up on one within another.
fn skip_class(rest: &mut Chars<'_>) -> Option<()> {
    if rest.peek() == Some(&'^') {
        rest.next();
    }
    if rest.peek() == Some(&']') {
        rest.next();
    }
    loop {
        match rest.next()? {
            '\\' => {
                rest.next()?;
            }
            '[' => return None,
            ']' => return Some(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: Option<&str>) {
        assert_eq!(Required::of(expression, false).map(|required| required.text).as_deref(), expected);
    }

    #[test]
    fn what_must_be_there() {
        check(r"169\.254\.169\.254", Some("169.254.169.254"));
        check(r"\bid_(?:rsa|dsa)\b", Some("id_"));
        check(r"/etc/[./]*g?shadow", Some("shadow"));
        check(r"run/+secrets/+kubernetes\.io", Some("kubernetes.io"));
        check(r"(?i)MetaData\.goog", Some("metadata.goog"));
        check(r"ab*cd?ef", Some("ef"));
        check(r"ab{0,2}c", None);
        check(r"(?:^|[\s;])tar\s+-c", Some("tar"));
        check(r"abc{2}", Some("ab"));
        check(r"abc??d", Some("ab"));
    }

    #[test]
    fn what_is_not_known_is_given_up() {
        for expression in [
            "a|bcd",
            "(?x)a b c",
            "(?:ab)?",
            "[[:alpha:]]abc",
            r"\x41bc",
            r"\pLabc",
            "(?i:abc)",
            "ab(?i)cd",
            "(?P<n>abc)d",
            "[^]]",
            "",
            "abc)",
            "*abc",
            r"abc\",
            "(abc",
            "[abc",
        ] {
            check(expression, None);
        }
    }

    proptest::proptest! {
        /// Never is a text kept from an expression that matches it.
        #[test]
        fn nothing_is_lost(
            pieces in proptest::collection::vec(r"[ab]{1,3}|[ab][*+?]|a\{1,2\}|\(\?:ab\|b\)[?*]?|\[ab\]\+?|\.|\\b|\\\.|\^|\$|\||\\s", 0..6),
            texts in proptest::collection::vec("[abAB. ]{0,8}", 8),
            any_case: bool,
        ) {
            let expression = pieces.concat();
            let build = regex::RegexBuilder::new(&expression).case_insensitive(any_case).build();
            if let (Ok(regex), Some(required)) = (build, Required::of(&expression, any_case)) {
                for text in &texts {
                    proptest::prop_assert!(!regex.is_match(text) || required.in_text(text), "{} on {}", expression, text);
                }
            }
        }
    }
}
