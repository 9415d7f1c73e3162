//! What a test asks of a value.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};
use chrono::{DateTime, Datelike, Timelike, Utc};
use ipnet::IpNet;
use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};

use super::literal::Required;
use super::text::{self, Buffers, Glob};
use super::{Field, members};
use crate::event::time;
use crate::value::{Tri, Value};

/// A test's question.
#[derive(Debug)]
pub enum Matcher {
    /// Is the field there (or not)? JSON `null` is not there, as in Kubernetes.
    Exists(bool),
    /// Does some member of the field match?
    Values {
        /// What to match.
        patterns: Vec<Pattern>,
        /// Whether one pattern is enough.
        link: Link,
        /// Whether text is compared as it is or in lower case. Literals of the patterns are in lower case if it is.
        cased: bool,
        /// Negates the answer.
        negate: bool,
    },
    /// Does the field have a member in common with another?
    Same {
        /// The other field.
        other: Field,
        /// How a member of the field relates to a member of the other.
        relation: Relation,
        /// Whether text is compared as it is.
        cased: bool,
        /// Negates the answer.
        negate: bool,
    },
}

/// How the values of one item are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// One is enough.
    Any,
    /// Each must be matched, though by different members.
    All,
}

/// How one text relates to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is the same.
    Equals,
    /// It contains it.
    Contains,
    /// It begins with it.
    StartsWith,
    /// It ends with it.
    EndsWith,
}

/// A comparison of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named like Sigma's modifiers
pub enum Compare {
    Eq,
    Gt,
    Gte,
    Lt,
    Lte,
}

/// A part of a time, in UTC; `Week` is the ISO week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named like Sigma's modifiers
pub enum TimePart {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// What one member is compared with.
#[derive(Debug)]
pub enum Pattern {
    /// Absent or `null`.
    Null,
    /// Any value at all (`*`).
    Anything,
    /// A whole number, or its text.
    Int(i64),
    /// A number, or its text.
    Float(f64),
    /// A truth value, or its text.
    Bool(bool),
    /// The whole text.
    Exact(String),
    /// One of many whole texts.
    ExactAny(HashSet<String>),
    /// How the text begins.
    Prefix(String),
    /// How the text ends.
    Suffix(String),
    /// What the text contains.
    Contains(Box<memmem::Finder<'static>>),
    /// The text contains one of many.
    ContainsAny(Box<AhoCorasick>, Vec<String>),
    /// The text's form.
    Glob(Glob),
    /// A regular expression, which need not match the whole text.
    Regex(Box<Expression>),
    /// An address in this network.
    Cidr(IpNet),
    /// A number, or its text, compared.
    Number(Compare, f64),
    /// A part of a time, compared.
    Time(TimePart, Compare, f64),
    /// Any of these.
    OneOf(Vec<Pattern>),
}

/// A regular expression that is compiled when it is first needed: compiling those of the catalogue would take a third of
/// the time of start-up, and a few megabytes, for the sake of requests that most clusters seldom see.
#[derive(Debug)]
pub struct Expression {
    text: String,
    flags: Flags,
    /// Whether its classes know all of Unicode, or ASCII alone: those take a fifth of the time to compile.
    unicode: bool,
    /// A text that tells most of what it does not match before it is compiled.
    required: Option<Required>,
    compiled: OnceLock<Regex>,
}

/// How a regular expression is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the names of the regex crate
pub struct Flags {
    pub case_insensitive: bool,
    pub multi_line: bool,
    pub dot_matches_new_line: bool,
}

/// Bytes that a compiled regular expression may take.
const EXPRESSION_SIZE: usize = 1 << 20;

impl Expression {
    /// An expression that is known to compile. Of ASCII, its classes are those of ASCII.
    pub fn trusted(text: &str, flags: Flags) -> Expression {
        let unicode = !text.is_ascii();
        let required = if unicode { None } else { Required::of(text, flags.case_insensitive) };
        Expression { text: text.to_owned(), flags, unicode, required, compiled: OnceLock::new() }
    }

    /// An expression, compiled at once.
    ///
    /// # Errors
    /// Why it cannot be compiled.
    pub fn new(text: &str, flags: Flags) -> Result<Expression, regex::Error> {
        let expression = Expression {
            unicode: true,
            required: None,
            text: text.to_owned(),
            flags,
            compiled: OnceLock::new(),
        };
        let compiled = expression.compile()?;
        Ok(Expression { compiled: OnceLock::from(compiled), ..expression })
    }

    fn compile(&self) -> Result<Regex, regex::Error> {
        RegexBuilder::new(&self.text)
            .unicode(self.unicode)
            .case_insensitive(self.flags.case_insensitive)
            .multi_line(self.flags.multi_line)
            .dot_matches_new_line(self.flags.dot_matches_new_line)
            .size_limit(EXPRESSION_SIZE)
            .build()
    }

    fn is_match(&self, text: &str) -> bool {
        let possible = self.required.as_ref().is_none_or(|required| required.in_text(text));
        possible && self.get().is_match(text.as_bytes())
    }

    fn get(&self) -> &Regex {
        self.compiled
            .get_or_init(|| self.compile().expect("the tests compile every expression of the catalogue"))
    }
}

/// From how many whole texts on a set pays.
const MANY_EXACT: usize = 5;
/// From how many contained texts on an automaton pays. Building one takes longer than most rules are ever evaluated for.
const MANY_CONTAINED: usize = 17;

impl Pattern {
    /// Merges whole texts and contained texts of an `Any` list where there are many.
    pub fn merge(patterns: Vec<Pattern>) -> Vec<Pattern> {
        let exact = patterns.iter().filter(|p| matches!(p, Pattern::Exact(_))).count();
        let contained = patterns.iter().filter(|p| matches!(p, Pattern::Contains(_))).count();
        let (mut set, mut parts, mut rest) = (HashSet::new(), Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                Pattern::Exact(text) if exact >= MANY_EXACT => {
                    set.insert(text);
                }
                Pattern::Contains(finder) if contained >= MANY_CONTAINED => {
                    parts.push(String::from_utf8_lossy(finder.needle()).into_owned());
                }
                other => rest.push(other),
            }
        }
        if !set.is_empty() {
            rest.push(Pattern::ExactAny(set));
        }
        rest.extend(contains_any(parts));
        rest
    }

    /// Text that contains `part`.
    pub fn contains(part: impl AsRef<str>) -> Pattern {
        Pattern::Contains(Box::new(memmem::Finder::new(part.as_ref().as_bytes()).into_owned()))
    }

    fn matches(&self, subject: &Subject<'_, '_>) -> bool {
        let text = subject.text;
        match self {
            Pattern::Null => *subject.value == Value::Null,
            Pattern::Anything => true,
            Pattern::Int(number) => subject.int() == Some(*number),
            Pattern::Float(number) => subject.number() == Some(*number),
            Pattern::Bool(expected) => match subject.value {
                Value::Bool(b) => b == expected,
                _ => text.eq_ignore_ascii_case(if *expected { "true" } else { "false" }),
            },
            Pattern::Exact(whole) => text == whole,
            Pattern::ExactAny(set) => set.contains(text),
            Pattern::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Pattern::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Pattern::Contains(finder) => finder.find(text.as_bytes()).is_some(),
            Pattern::ContainsAny(automaton, _) => automaton.is_match(text),
            Pattern::Glob(glob) => glob.matches(text),
            Pattern::Regex(regex) => regex.is_match(subject.original),
            Pattern::Cidr(network) => {
                subject.original.parse::<IpAddr>().is_ok_and(|ip| network.contains(&ip.to_canonical()))
            }
            Pattern::OneOf(patterns) => patterns.iter().any(|pattern| pattern.matches(subject)),
            Pattern::Number(compare, bound) => subject.number().is_some_and(|n| compare.holds(n, *bound)),
            Pattern::Time(part, compare, bound) => {
                subject.time().is_some_and(|t| compare.holds(part.of(t), *bound))
            }
        }
    }
}

/// Text that contains one of `parts`.
fn contains_any(parts: Vec<String>) -> Vec<Pattern> {
    if parts.is_empty() {
        return Vec::new();
    }
    // This kind is built several times faster than the others.
    match AhoCorasickBuilder::new().kind(Some(AhoCorasickKind::ContiguousNFA)).build(&parts) {
        Ok(automaton) => vec![Pattern::ContainsAny(Box::new(automaton), parts)],
        Err(_) => parts.into_iter().map(Pattern::contains).collect(),
    }
}

impl Compare {
    fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            Compare::Eq => number.partial_cmp(&bound) == Some(Ordering::Equal),
            Compare::Gt => number > bound,
            Compare::Gte => number >= bound,
            Compare::Lt => number < bound,
            Compare::Lte => number <= bound,
        }
    }
}

impl TimePart {
    fn of(self, time: DateTime<Utc>) -> f64 {
        match self {
            TimePart::Minute => time.minute().into(),
            TimePart::Hour => time.hour().into(),
            TimePart::Day => time.day().into(),
            TimePart::Week => time.iso_week().week().into(),
            TimePart::Month => time.month().into(),
            TimePart::Year => time.year().into(),
        }
    }
}

/// One member in the forms that patterns look at.
struct Subject<'v, 'a> {
    value: &'v Value<'a>,
    /// Its text as it is.
    original: &'v str,
    /// Its text as it is compared.
    text: &'v str,
}

impl Subject<'_, '_> {
    fn int(&self) -> Option<i64> {
        match self.value {
            Value::Int(i) => Some(*i),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 9e15 => Some(*f as i64),
            Value::Text(_) => self.original.trim().parse().ok(),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self.value {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            Value::Text(_) => self.original.trim().parse().ok().filter(|n: &f64| n.is_finite()),
            _ => None,
        }
    }

    fn time(&self) -> Option<DateTime<Utc>> {
        time::parse(self.original.as_bytes()).map(DateTime::from_timestamp_nanos)
    }
}

impl Matcher {
    /// The answer for a value. Of [`Matcher::Same`] it knows too little: [`Relation::holds`] answers that.
    pub(super) fn matches(&self, value: &Value<'_>, buffers: &mut Buffers) -> Tri {
        match self {
            Matcher::Exists(expected) => match value {
                Value::Unknown => Tri::Unknown,
                Value::Absent | Value::Null => Tri::from(!expected),
                _ => Tri::from(*expected),
            },
            Matcher::Values { patterns, link, cased, negate } => {
                let holds = match link {
                    Link::Any => any_member(patterns, value, *cased, buffers),
                    Link::All => patterns
                        .iter()
                        .map(|one| any_member(std::slice::from_ref(one), value, *cased, buffers))
                        .fold(Tri::True, Tri::and),
                };
                if *negate { !holds } else { holds }
            }
            Matcher::Same { .. } => Tri::Unknown,
        }
    }
}

/// Whether some member of `value` matches some pattern.
fn any_member(patterns: &[Pattern], value: &Value<'_>, cased: bool, buffers: &mut Buffers) -> Tri {
    if *value == Value::Absent {
        return Tri::from(patterns.iter().any(|p| matches!(p, Pattern::Null)));
    }
    let (members, partial) = members(value);
    let mut result = if partial { Tri::Unknown } else { Tri::False };
    for member in members {
        match matches_one(patterns, member, cased, buffers) {
            Tri::True => return Tri::True,
            Tri::Unknown => result = Tri::Unknown,
            Tri::False => {}
        }
    }
    result
}

fn matches_one(patterns: &[Pattern], member: &Value<'_>, cased: bool, buffers: &mut Buffers) -> Tri {
    let Buffers { shown, folded } = buffers;
    let original = match member {
        Value::Text(text) => text,
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
            shown.clear();
            // Writing to a string cannot fail.
            let _ = match member {
                Value::Int(i) => write!(shown, "{i}"),
                Value::Float(f) => write!(shown, "{f}"),
                other => write!(shown, "{}", other.display()),
            };
            shown.as_str()
        }
        Value::Null => return Tri::from(patterns.iter().any(|p| matches!(p, Pattern::Null))),
        Value::Unknown => return Tri::Unknown,
        Value::Absent | Value::List(_) => return Tri::False, // a list's members are scalars
    };
    let text = if cased { original } else { text::folded(original, folded) };
    let subject = Subject { value: member, original, text };
    Tri::from(patterns.iter().any(|p| p.matches(&subject)))
}

impl Relation {
    /// Whether some member of `one` relates so to some member of `other`.
    pub(super) fn holds(self, one: &Value<'_>, other: &Value<'_>, cased: bool) -> Tri {
        let ((ones, cut), (others, others_cut)) = (members(one), members(other));
        // A side that is known to be empty decides.
        if (ones.is_empty() && !cut) || (others.is_empty() && !others_cut) {
            return Tri::False;
        }
        let form = |value| shown(value).map(|text| if cased { text } else { Cow::Owned(text::fold(&text)) });
        let others_shown: Vec<_> = others.iter().filter_map(form).collect();
        let found = ones.iter().filter_map(form).any(|a| others_shown.iter().any(|b| self.relates(&a, b)));
        let hidden = |value: &Value<'_>| *value == Value::Unknown;
        if found {
            Tri::True
        } else if cut || others_cut || ones.iter().any(hidden) || others.iter().any(hidden) {
            Tri::Unknown
        } else {
            Tri::False
        }
    }

    fn relates(self, a: &str, b: &str) -> bool {
        match self {
            Relation::Equals => a == b,
            Relation::Contains => a.contains(b),
            Relation::StartsWith => a.starts_with(b),
            Relation::EndsWith => a.ends_with(b),
        }
    }
}

/// A scalar as text; nothing of what is not there.
fn shown<'v>(value: &'v Value<'_>) -> Option<Cow<'v, str>> {
    match value {
        Value::Absent | Value::Unknown | Value::Null | Value::List(_) => None,
        scalar => Some(scalar.display()),
    }
}
