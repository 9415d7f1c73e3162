//! Programs that no routing key can refute, gated by the literals that they need.
//!
//! Keywords, URIs and the like depend on all of an event, so that the index (`index.rs`) leaves such programs standing for every
//! one. Most of them need one of a few texts: if none stands in the record's bytes, in whatever case, the condition is false.
//! All texts of all such programs are looked for in one pass.
//!
//! Guarantee: a program is refuted only where its condition is false. Bytes are not text, so a literal is cut to what JSON
//! cannot write otherwise: what has a short escape (`"`, `\`, `/`, control characters), what Go escapes (`&`, `<`, `>`), what is
//! not ASCII, and `k`, which is also the lower case of the Kelvin sign, are no part of it. A record that spells any of the
//! rest as `\uXXXX` is not gated, nor is one that is damaged or that the API server truncated: there a condition may be
//! unknown. Numbers may be written in other ways than they are shown, so a literal holds more than digits. (What is no JSON
//! deep inside a record makes a field unknown; where even its bytes lack the literal, the answer here is no.)

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use memchr::memmem;

use crate::engine::Program;
use crate::event::{Event, Top};
use crate::facts::Parts;
use crate::index::{self, Mask};
use crate::program::{Expr, Field, Link, Matcher, Pattern, TOP_KEYS, Test, Tests};
use crate::scan::Node;

/// Shorter literals stand in every other record.
const SHORTEST: usize = 3;

/// The keys that the index looks events up by.
const KEYS: [Parts; 5] = [
    Parts::SHAPE.with(Parts::NAME),
    Parts::USER.with(Parts::AGENT).with(Parts::ADDRESS),
    Parts::NOTES,
    Parts::SHAPE,
    Parts::FALCO,
];

/// The literals of all gated programs.
pub(crate) struct Literals {
    automaton: AhoCorasick,
    /// By literal: the programs that it lets stand.
    programs: Vec<Vec<usize>>,
    gated: Mask,
    scope: Scope,
}

/// Where a literal may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// In the values of these keys.
    Keys(Vec<Top>),
    /// Anywhere in the record.
    Record,
}

impl Scope {
    fn and(self, other: Scope) -> Scope {
        match (self, other) {
            (Scope::Keys(mut keys), Scope::Keys(others)) => {
                for key in others {
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                Scope::Keys(keys)
            }
            _ => Scope::Record,
        }
    }
}

/// What a condition needs: one of these literals at least, somewhere in scope.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Needed {
    literals: Vec<String>,
    scope: Scope,
}

impl Needed {
    fn shortest(&self) -> usize {
        self.literals.iter().map(String::len).min().unwrap_or(usize::MAX)
    }
}

impl Literals {
    /// Looks for the programs that can be gated, and are worth it. Nothing if there are none.
    pub(crate) fn new(tests: &Tests, programs: &[Program]) -> Option<Literals> {
        let mut owners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let (mut gated, mut scope) = (index::empty(programs.len()), Scope::Keys(Vec::new()));
        for (program, condition) in programs.iter().map(|program| &program.rule.condition).enumerate() {
            let Some(needed) = needed(tests, condition) else { continue };
            // Keywords walk the whole event even where a key has already refuted it for the most part.
            if needed.scope != Scope::Record && KEYS.iter().any(|key| decided(tests, condition, *key, false))
            {
                continue;
            }
            index::set(&mut gated, program);
            scope = scope.and(needed.scope);
            for literal in needed.literals {
                owners.entry(literal).or_default().push(program);
            }
        }
        let mut builder = AhoCorasickBuilder::new();
        builder.match_kind(MatchKind::Standard).ascii_case_insensitive(true);
        let automaton = builder.build(owners.keys()).ok().filter(|_| !owners.is_empty())?;
        Some(Literals { automaton, programs: owners.into_values().collect(), gated, scope })
    }

    /// Clears the programs that need a literal which the event has not.
    pub(crate) fn refute(&self, event: &Event<'_>, live: &mut Mask) {
        let waiting = |live: &Mask, absent: &Mask| live.iter().zip(absent).any(|(a, b)| a & b != 0);
        if !waiting(live, &self.gated) || event.damage.any() || event.truncated() {
            return;
        }
        let mut absent = self.gated.clone();
        let whole = [Some(event.root().raw())];
        let (record, keys): (&[_], &[Top]) = match &self.scope {
            Scope::Record => (&whole, &[]),
            Scope::Keys(keys) => (&[], keys),
        };
        let values = keys.iter().map(|key| event.node(*key).map(Node::raw));
        for bytes in record.iter().copied().chain(values).flatten() {
            if hides(bytes) {
                return;
            }
            for found in self.automaton.find_overlapping_iter(bytes) {
                for program in &self.programs[found.pattern().as_usize()] {
                    absent[program / 64] &= !(1 << (program % 64));
                }
                if !waiting(live, &absent) {
                    return;
                }
            }
        }
        for (live, absent) in live.iter_mut().zip(&absent) {
            *live &= !absent;
        }
    }
}

/// True if the bytes spell a character as `\uXXXX` that a literal may hold.
fn hides(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, b"\\u").any(|at| {
        let digits = bytes.get(at + 2..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        code.and_then(char::from_u32).is_some_and(stands_as_it_is)
    })
}

/// True if JSON writes the character as itself, or as `\uXXXX` where somebody wants to hide it, and nothing else is compared
/// like it.
fn stands_as_it_is(c: char) -> bool {
    (' '..='~').contains(&c) && !"\"\\/&<>{}kK".contains(c)
}

/// The longest part of a text that is fit for a literal.
fn literal(text: &str) -> Option<String> {
    let parts = text.split(|c| !stands_as_it_is(c));
    let longest = parts.max_by_key(|part| part.len())?;
    let number = longest.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-');
    (longest.len() >= SHORTEST && !number).then(|| longest.to_ascii_lowercase())
}

/// What a condition needs to be anything but false.
fn needed(tests: &Tests, expr: &Expr) -> Option<Needed> {
    match expr {
        Expr::Const(_) | Expr::Not(_) | Expr::AtLeast(0, _) => None,
        Expr::Named(selection) => needed(tests, &selection.expr),
        Expr::Test(id) => needed_by(tests, tests.get(*id)),
        Expr::And(all) => {
            let each = all.iter().filter_map(|one| needed(tests, one));
            each.max_by_key(|needed| (needed.shortest(), std::cmp::Reverse(needed.literals.len())))
        }
        Expr::Or(any) | Expr::AtLeast(1.., any) => {
            let each: Option<Vec<Needed>> = any.iter().map(|one| needed(tests, one)).collect();
            each?.into_iter().reduce(|one, other| Needed {
                literals: [one.literals, other.literals].concat(),
                scope: one.scope.and(other.scope),
            })
        }
    }
}

fn needed_by(tests: &Tests, test: &Test) -> Option<Needed> {
    let Matcher::Values { patterns, link, negate: false, .. } = &test.matcher else { return None };
    let scope = match test.field {
        Field::Keywords => Scope::Record,
        Field::Path(_) => scope(tests.name(test.field))?,
        Field::Fact(_) => return None, // computed: its text need not stand in the record
    };
    let each = patterns.iter().map(of_pattern);
    let literals = match link {
        Link::Any => each.collect::<Option<Vec<_>>>()?.concat(),
        Link::All => each.flatten().max_by_key(|any| any.iter().map(String::len).min())?,
    };
    Some(Needed { literals, scope })
}

/// Where the values of a raw path stand. Nothing for a body, which may be there without being logged.
fn scope(path: &str) -> Option<Scope> {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    match TOP_KEYS.iter().find(|(key, _)| key.eq_ignore_ascii_case(first)) {
        Some((_, Top::RequestObject | Top::ResponseObject)) => None,
        Some((_, top)) => Some(Scope::Keys(vec![*top])),
        None => Some(Scope::Record),
    }
}

/// Literals of which one is in every text that matches. Nothing if there may be none.
fn of_pattern(pattern: &Pattern) -> Option<Vec<String>> {
    let of_all = |texts: &mut dyn Iterator<Item = &String>| texts.map(|text| literal(text)).collect();
    match pattern {
        Pattern::Exact(text) | Pattern::Prefix(text) | Pattern::Suffix(text) => Some(vec![literal(text)?]),
        Pattern::Contains(finder) => Some(vec![literal(std::str::from_utf8(finder.needle()).ok()?)?]),
        Pattern::ExactAny(set) => of_all(&mut set.iter()),
        Pattern::ContainsAny(_, texts) => of_all(&mut texts.iter()),
        Pattern::Glob(glob) => Some(vec![glob.literals().filter_map(literal).max_by_key(String::len)?]),
        Pattern::OneOf(patterns) => {
            let each: Option<Vec<_>> = patterns.iter().map(of_pattern).collect();
            Some(each?.concat())
        }
        Pattern::Null
        | Pattern::Anything
        | Pattern::Int(_)
        | Pattern::Float(_)
        | Pattern::Bool(_)
        | Pattern::Regex(_)
        | Pattern::Cidr(_)
        | Pattern::Number(..)
        | Pattern::Time(..) => None,
    }
}

/// True if a condition may come out as `result` with nothing but `parts` of the event in sight.
fn decided(tests: &Tests, expr: &Expr, parts: Parts, result: bool) -> bool {
    let one = |expr: &Expr| decided(tests, expr, parts, result);
    match (expr, result) {
        (Expr::Const(value), _) => *value == result.into(),
        (Expr::Named(selection), _) => one(&selection.expr),
        (Expr::Test(id), _) => tests.get(*id).parts.within(parts),
        (Expr::Not(inner), _) => decided(tests, inner, parts, !result),
        (Expr::And(all), false) | (Expr::Or(all), true) => all.iter().any(one),
        (Expr::And(all) | Expr::AtLeast(_, all), _) | (Expr::Or(all), false) => all.iter().all(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{self, File, Tuning};
    use crate::scan::{Doc, Marks};
    use crate::settings::Settings;

    /// True if the only program of a rule stands before the event; its literals otherwise do not let it.
    fn stands(selection: &str, event: &str) -> bool {
        let yaml = format!(
            "title: t\nname: own/t\nlogsource: {{product: kubernetes}}\ndetection:\n  s:\n    {selection}\n  condition: s\n"
        );
        let settings = Settings::default();
        let rules =
            rules::read_whole(&[File { name: "t.yml".to_owned(), yaml, folder: None }], &settings, false);
        let engine = rules::assemble(rules, settings, &Tuning::default()).expect("a good rule");
        let mut live: Mask = vec![1].into_boxed_slice();
        let mut marks = Marks::new();
        marks.mark(event.as_bytes());
        let root = Doc::new(event.as_bytes(), &marks).root().expect("an event");
        let event = Event::skim(root, &engine.settings);
        if let Some(literals) = &engine.literals {
            literals.refute(&event, &mut live);
        }
        live[0] == 1
    }

    const EVENT: &str = r#"{"verb":"get","requestURI":"/api?a=1\u0026command=%2Fbin%2Fbash","n":1e2,"objectRef":{"name":"Kepler"}}"#;

    #[test]
    fn a_program_without_its_literal_does_not_stand() {
        for (selection, stands_) in [
            ("requestURI|contains: '%2fbin%2fbash'", true),
            ("requestURI|contains: '%2fbin%2fzsh'", false),
            ("requestURI|contains: ['%2fbin%2fzsh', 'ND=%2F']", true),
            ("requestURI|endswith: zsh", false),
            ("requestURI: '*?a=*zsh'", false),
            ("requestURI|contains|all: ['bash', 'nsenter']", false),
            ("{requestURI|contains: bash, userAgent|contains: firefox}", true), // the client's key refutes it
            ("{requestURI|contains: bash, annotations.x: firefox}", false),
            ("- {requestURI|contains: zsh}\n    - {auditID: seventeen}", false),
            ("- {requestURI|contains: zsh}\n    - {auditID: '*'}", true),
            ("objectRef.uid: galilei", false),
            ("objectRef.uid: [galilei, kepler]", true), // some text of the object is it
            ("- nowhere\n    - neither", false),
            ("- nowhere\n    - EPLER", true),
            ("- verb", true), // a key is no value, but its text stands there
            // What literals cannot say.
            ("- '100'", true),
            ("- 'ab'", true),
            ("- 'k\"k'", true),
            ("'|re': nowhere", true),
            ("requestURI|re: nowhere", true),
            ("requestURI|contains|neq: nowhere", true),
            ("requestObject.x|contains: nowhere", true),
            ("objectRef.name|contains: nowhere", true), // the key of names refutes it
            ("actor.agent: nowhere", true),
            ("requestURI|exists: false", true),
        ] {
            assert_eq!(stands(selection, EVENT), stands_, "{selection}");
        }
    }

    #[test]
    fn what_bytes_may_hide_is_not_gated() {
        let keyword = "- nowhere";
        assert!(!stands(keyword, r#"{"verb":"get","x":"a\u0026b\u003c\u000a\u00e4\n\"\/"}"#));
        for event in [
            r#"{"verb":"get","x":"n\u006fwhere"}"#,
            r#"{"verb":"get","x":"\u004e"}"#,
            r#"{"verb":"get","x":"cut off"#,
            r#"{"verb":"get","annotations":{"audit.k8s.io/truncated":"true"}}"#,
        ] {
            assert!(stands(keyword, event), "{event}");
        }
    }

    #[test]
    fn nothing_else_is_compared_like_what_stands_as_it_is() {
        for c in ('\0'..=char::MAX).filter(|c| !c.is_ascii()) {
            let folded = crate::program::fold(c.encode_utf8(&mut [0; 4]));
            assert!(!folded.chars().any(stands_as_it_is), "{c:?}");
        }
    }
}
