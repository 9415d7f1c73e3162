//! Text: case folding without allocation where it can be had, and wildcards.

use memchr::memmem;

/// Buffers for the forms of one value, kept from value to value.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// A number or truth value as text.
    pub(super) shown: String,
    /// A text in lower case.
    pub(super) folded: String,
}

/// One character's simple lower-case form: one character for one.
fn lower(c: char) -> char {
    let mut forms = c.to_lowercase();
    match (forms.next(), forms.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// A text in lower case, character by character.
pub fn fold(text: &str) -> String {
    text.chars().map(lower).collect()
}

/// `text` in lower case: itself if it is so already, else in `buffer`.
pub(super) fn folded<'t>(text: &'t str, buffer: &'t mut String) -> &'t str {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return text;
    }
    buffer.clear();
    buffer.extend(text.chars().map(lower));
    buffer
}

/// A text with wildcards. `*` separates the runs; within a run every place is a literal or one character.
#[derive(Debug, Clone)]
pub struct Glob {
    runs: Vec<Run>,
    /// The text must begin with the first run.
    from_start: bool,
    /// The text must end with the last run.
    to_end: bool,
}

#[derive(Debug, Clone)]
struct Run {
    atoms: Vec<Atom>,
    chars: usize,
}

#[derive(Debug, Clone)]
enum Atom {
    Literal(String),
    One,
}

/// A piece of a wildcard text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Literal text.
    Literal(String),
    /// `?`
    One,
    /// `*`
    Many,
}

impl Glob {
    /// From its pieces.
    pub fn new(pieces: &[Piece]) -> Glob {
        let runs = pieces
            .split(|p| *p == Piece::Many)
            .filter(|run| !run.is_empty())
            .map(|run| Run {
                atoms: run.iter().filter_map(Atom::of).collect(),
                chars: run.iter().map(Piece::chars).sum(),
            })
            .collect();
        Glob {
            runs,
            from_start: pieces.first() != Some(&Piece::Many),
            to_end: pieces.last() != Some(&Piece::Many),
        }
    }

    /// The texts between the wildcards.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &str> {
        self.runs.iter().flat_map(|run| &run.atoms).filter_map(|atom| match atom {
            Atom::Literal(text) => Some(text.as_str()),
            Atom::One => None,
        })
    }

    /// True if the whole of `text` has this form. Time is at most the product of both lengths.
    pub fn matches(&self, text: &str) -> bool {
        let mut runs = self.runs.as_slice();
        let mut rest = text;
        if self.from_start {
            let Some((first, others)) = runs.split_first() else { return text.is_empty() };
            let Some(end) = first.end_at(rest) else { return false };
            rest = &rest[end..];
            runs = others;
            if runs.is_empty() && self.to_end {
                return rest.is_empty();
            }
        }
        let mut last = None;
        if self.to_end
            && let Some((final_run, others)) = runs.split_last()
        {
            last = Some(final_run);
            runs = others;
        }
        for run in runs {
            let Some(end) = run.find(rest) else { return false };
            rest = &rest[end..];
        }
        last.is_none_or(|run| run.ends(rest))
    }
}

impl Piece {
    fn chars(&self) -> usize {
        match self {
            Piece::Literal(text) => text.chars().count(),
            Piece::One | Piece::Many => 1,
        }
    }
}

impl Atom {
    fn of(piece: &Piece) -> Option<Atom> {
        match piece {
            Piece::Literal(text) => Some(Atom::Literal(text.clone())),
            Piece::One => Some(Atom::One),
            Piece::Many => None,
        }
    }
}

impl Run {
    /// Where the run ends if `text` begins with it.
    fn end_at(&self, text: &str) -> Option<usize> {
        let mut rest = text;
        for atom in &self.atoms {
            rest = match atom {
                Atom::Literal(literal) => rest.strip_prefix(literal.as_str())?,
                Atom::One => {
                    let mut chars = rest.chars();
                    chars.next()?;
                    chars.as_str()
                }
            };
        }
        Some(text.len() - rest.len())
    }

    /// Where the first occurrence in `text` ends.
    fn find(&self, text: &str) -> Option<usize> {
        let first = match self.atoms.first() {
            Some(Atom::Literal(literal)) => literal.as_bytes(),
            _ => b"",
        };
        let mut from = 0;
        loop {
            let at = from + memmem::find(&text.as_bytes()[from..], first)?;
            if let Some(end) = self.end_at(&text[at..]) {
                return Some(at + end);
            }
            from = at + text[at..].chars().next()?.len_utf8();
        }
    }

    /// True if `text` ends with the run.
    fn ends(&self, text: &str) -> bool {
        if self.chars == 0 {
            return true;
        }
        let start = text.char_indices().rev().nth(self.chars - 1);
        start.is_some_and(|(at, _)| self.end_at(&text[at..]) == Some(text.len() - at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(pattern: &str) -> Vec<Piece> {
        let mut out: Vec<Piece> = Vec::new();
        for c in pattern.chars() {
            match (c, out.last_mut()) {
                ('*', _) => out.push(Piece::Many),
                ('?', _) => out.push(Piece::One),
                (c, Some(Piece::Literal(text))) => text.push(c),
                (c, _) => out.push(Piece::Literal(c.into())),
            }
        }
        out
    }

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some(('?', rest)) => !text.is_empty() && naive(rest, &text[1..]),
            Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_the_definition(pattern in "[ab?*é]{0,6}", text in "[abé]{0,8}") {
            let expected = naive(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(Glob::new(&pieces(&pattern)).matches(&text), expected, "{} {}", pattern, text);
        }
    }

    #[test]
    fn folding_keeps_the_number_of_characters() {
        for text in ["", "abc", "ABC", "ÄÖÜ", "İstanbul", "ΣΑΣ", "\u{212A}elvin"] {
            assert_eq!(fold(text).chars().count(), text.chars().count(), "{text}");
        }
        let mut buffer = String::new();
        assert_eq!(folded("Kube-System", &mut buffer), "kube-system");
    }
}
