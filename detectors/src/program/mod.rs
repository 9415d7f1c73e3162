//! Compiled predicates over one event: three-valued, memoised, explained.
//!
//! An [`Expr`] is a condition in Kleene's logic over *tests*. A [`Test`] asks one question of one field (a fact, a raw
//! path, or any text in the event); equal tests of all rules are one entry of the table [`Tests`], so that each is answered
//! once for an event. What was answered is kept in a [`Memo`].
//!
//! Guarantees:
//!
//! - evaluation cannot fail, loop or recurse deeper than the condition was written;
//! - *unknown* is never mistaken for *false*: a test whose field the event cannot show is unknown, and stays so under `not`;
//! - with part of the event hidden ([`Event::lens`]) no answer is given that the rest of the event could overturn: what would
//!   need the hidden part is unknown. An index can therefore evaluate a condition for a whole class of events, and `False`
//!   refutes it for all of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::Event;
use crate::facts::{self, FactId, Parts};
use crate::value::{List, Tri, Value};

mod explain;
mod literal;
mod matcher;
mod path;
mod template;
mod text;

pub use explain::Trace;
pub use matcher::{Compare, Expression, Flags, Link, Matcher, Pattern, Relation, TimePart};
pub use path::{Path, TOP_KEYS};
pub(crate) use template::{Hole, holes};
pub use template::{Template, in_message};
pub use text::{Glob, Piece, fold};

/// A test's place in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TestId(u32);

/// A test and what it answers, true or false, in one number: tables keep many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer(u32);

/// A raw path's place in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(u32);

/// What a test looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// A registered fact.
    Fact(FactId),
    /// A raw path into the record.
    Path(PathId),
    /// Every text, number and truth value of the record.
    Keywords,
}

/// One question of one field.
#[derive(Debug)]
pub struct Test {
    /// What it looks at.
    pub field: Field,
    /// What it asks.
    pub matcher: Matcher,
    /// What it must see of the event.
    pub parts: Parts,
    /// The question as a rule writes it: `field|modifiers: values`.
    pub text: String,
}

/// A condition.
#[derive(Debug, Clone)]
pub enum Expr {
    /// Always the same.
    Const(Tri),
    /// A test.
    Test(TestId),
    /// Negation.
    Not(Box<Expr>),
    /// Conjunction.
    And(Vec<Expr>),
    /// Disjunction.
    Or(Vec<Expr>),
    /// True if at least so many hold.
    AtLeast(u32, Vec<Expr>),
    /// A named selection of the rule.
    Named(Arc<Selection>),
}

/// A named part of a rule.
#[derive(Debug)]
pub struct Selection {
    /// Its name in the rule.
    pub name: String,
    /// What it says.
    pub expr: Expr,
}

/// All tests and raw paths of a set of rules.
#[derive(Debug, Default)]
pub struct Tests {
    all: Vec<Test>,
    ids: HashMap<Field, HashMap<String, TestId>>,
    paths: Vec<Path>,
    path_ids: HashMap<String, PathId>,
}

/// What has been answered about one event.
///
/// The answers hold for the lens under which they were given: after changing [`Event::lens`], or for another event,
/// [`Memo::reset`] or [`Memo::renew`] it.
#[derive(Debug)]
pub struct Memo<'a> {
    /// Answers of another generation are void; so a reset touches no table.
    generation: u32,
    results: Vec<(u32, Tri)>,
    facts: Vec<(u32, u32)>,
    paths: Vec<(u32, u32)>,
    keywords: (u32, u32),
    values: Vec<Value<'a>>,
    buffers: text::Buffers,
}

impl Default for Memo<'_> {
    fn default() -> Self {
        Memo {
            generation: 1,
            results: Vec::new(),
            facts: Vec::new(),
            paths: Vec::new(),
            keywords: (0, 0),
            values: Vec::new(),
            buffers: text::Buffers::default(),
        }
    }
}

impl Memo<'_> {
    /// Forgets everything.
    fn reset(&mut self) {
        self.values.clear();
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.results.clear();
            self.facts.clear();
            self.paths.clear();
            self.keywords = (0, 0);
            self.generation = 1;
        }
    }

    /// Takes over what is known of a class of events that the present one belongs to.
    pub fn preset(&mut self, answers: &[Answer]) {
        for Answer(packed) in answers {
            let result = (self.generation, Tri::from(packed & 1 == 1));
            *slot(&mut self.results, (packed >> 1) as usize, (0, Tri::Unknown)) = result;
        }
    }

    /// What has been answered, and not with unknown.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        self.results.iter().enumerate().filter_map(|(test, (generation, answer))| match answer {
            Tri::Unknown => None,
            known => (*generation == self.generation)
                .then_some(Answer((test as u32) << 1 | u32::from(*known == Tri::True))),
        })
    }

    /// Forgets everything and keeps the memory, for an event that lives elsewhere.
    #[must_use]
    pub fn renew<'b>(mut self) -> Memo<'b> {
        self.reset();
        // Collecting an emptied vector into one of the same layout reuses its allocation.
        let values = self.values.into_iter().map(|_| Value::Absent).collect();
        Memo {
            generation: self.generation,
            results: self.results,
            facts: self.facts,
            paths: self.paths,
            keywords: self.keywords,
            values,
            buffers: self.buffers,
        }
    }
}

/// The entry of a table that grows on demand.
fn slot<T: Copy>(table: &mut Vec<T>, index: usize, fresh: T) -> &mut T {
    if index >= table.len() {
        table.resize(index + 1, fresh);
    }
    &mut table[index]
}

impl Tests {
    /// The field of this name: the fact if there is one, else a raw path.
    pub fn field(&mut self, name: &str) -> Field {
        match facts::find(name) {
            Some(fact) => Field::Fact(fact),
            None => self.path(Path::new(name)),
        }
    }

    /// A raw path as a field.
    pub fn path(&mut self, path: Path) -> Field {
        if let Some(id) = self.path_ids.get(path.text()) {
            return Field::Path(*id);
        }
        let id = PathId(self.paths.len() as u32);
        self.path_ids.insert(path.text().to_owned(), id);
        self.paths.push(path);
        Field::Path(id)
    }

    /// A field's name, as rules write it.
    pub fn name(&self, field: Field) -> &str {
        match field {
            Field::Fact(id) => facts::get(id).name,
            Field::Path(id) => self.paths[id.0 as usize].text(),
            Field::Keywords => "",
        }
    }

    /// What a field must see of an event.
    pub fn field_parts(&self, field: Field) -> Parts {
        match field {
            Field::Fact(id) => facts::get(id).parts,
            Field::Path(id) => self.paths[id.0 as usize].parts(),
            Field::Keywords => Parts::ALL,
        }
    }

    /// The test of this field with this text, made by `matcher` if it is new. The text must say everything that the matcher
    /// depends on.
    pub fn intern(&mut self, field: Field, text: String, matcher: impl FnOnce() -> Matcher) -> TestId {
        if let Some(id) = self.known(field, &text) {
            return id;
        }
        let matcher = matcher();
        let parts = self.test_parts(field, &matcher);
        let id = TestId(self.all.len() as u32);
        self.ids.entry(field).or_default().insert(text.clone(), id);
        self.all.push(Test { field, matcher, parts, text });
        id
    }

    /// The test of this field with this text, if there is one.
    pub fn known(&self, field: Field, text: &str) -> Option<TestId> {
        self.ids.get(&field)?.get(text).copied()
    }

    fn test_parts(&self, field: Field, matcher: &Matcher) -> Parts {
        match (matcher, field) {
            (Matcher::Exists(_), Field::Path(id)) => self.paths[id.0 as usize].presence(),
            (Matcher::Same { other, .. }, _) => self.field_parts(field).with(self.field_parts(*other)),
            _ => self.field_parts(field),
        }
    }

    /// A test.
    pub fn get(&self, id: TestId) -> &Test {
        &self.all[id.0 as usize]
    }

    /// How many tests there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What a condition may have to see of an event.
    pub fn parts(&self, expr: &Expr) -> Parts {
        let mut parts = Parts(0);
        self.visit(expr, &mut |test| parts = parts.with(test.parts));
        parts
    }

    /// Calls `see` for every test of a condition.
    pub fn visit(&self, expr: &Expr, see: &mut dyn FnMut(&Test)) {
        match expr {
            Expr::Const(_) => {}
            Expr::Test(id) => see(self.get(*id)),
            Expr::Not(inner) => self.visit(inner, see),
            Expr::Named(selection) => self.visit(&selection.expr, see),
            Expr::And(all) | Expr::Or(all) | Expr::AtLeast(_, all) => {
                for inner in all {
                    self.visit(inner, see);
                }
            }
        }
    }

    /// Evaluates a condition.
    pub fn eval<'a>(&self, expr: &Expr, event: &Event<'a>, memo: &mut Memo<'a>) -> Tri {
        match expr {
            Expr::Const(value) => *value,
            Expr::Test(id) => self.eval_test(*id, event, memo),
            Expr::Not(inner) => !self.eval(inner, event, memo),
            Expr::Named(selection) => self.eval(&selection.expr, event, memo),
            Expr::And(all) => self.eval_until(all, Tri::False, event, memo),
            Expr::Or(any) => self.eval_until(any, Tri::True, event, memo),
            Expr::AtLeast(count, of) => self.eval_count(*count as usize, of, event, memo),
        }
    }

    /// Conjunction (`stop` is false) or disjunction (`stop` is true).
    fn eval_until<'a>(&self, of: &[Expr], stop: Tri, event: &Event<'a>, memo: &mut Memo<'a>) -> Tri {
        let mut result = !stop;
        for inner in of {
            let value = self.eval(inner, event, memo);
            if value == stop {
                return stop;
            }
            if value == Tri::Unknown {
                result = Tri::Unknown;
            }
        }
        result
    }

    fn eval_count<'a>(&self, count: usize, of: &[Expr], event: &Event<'a>, memo: &mut Memo<'a>) -> Tri {
        let (mut hold, mut may) = (0, of.len());
        for inner in of {
            match self.eval(inner, event, memo) {
                Tri::True => hold += 1,
                Tri::False => may -= 1,
                Tri::Unknown => {}
            }
            if hold >= count || may < count {
                break;
            }
        }
        threshold(count, hold, may)
    }

    fn eval_test<'a>(&self, id: TestId, event: &Event<'a>, memo: &mut Memo<'a>) -> Tri {
        let known = *slot(&mut memo.results, id.0 as usize, (0, Tri::Unknown));
        if known.0 == memo.generation {
            return known.1;
        }
        let test = self.get(id);
        let result = if event.sees(test.parts) { self.ask(test, event, memo) } else { Tri::Unknown };
        memo.results[id.0 as usize] = (memo.generation, result);
        result
    }

    fn ask<'a>(&self, test: &Test, event: &Event<'a>, memo: &mut Memo<'a>) -> Tri {
        let at = self.load(test.field, event, memo);
        if let Matcher::Same { other, relation, cased, negate } = &test.matcher {
            let other = self.load(*other, event, memo);
            let holds = relation.holds(&memo.values[at], &memo.values[other], *cased);
            return if *negate { !holds } else { holds };
        }
        test.matcher.matches(&memo.values[at], &mut memo.buffers)
    }

    /// The value of a field. Unknown if the event's lens hides it.
    pub fn value<'m, 'a>(&self, field: Field, event: &Event<'a>, memo: &'m mut Memo<'a>) -> &'m Value<'a> {
        let at = self.load(field, event, memo);
        &memo.values[at]
    }

    /// Where in the memo's values the value of a field lies.
    fn load<'a>(&self, field: Field, event: &Event<'a>, memo: &mut Memo<'a>) -> usize {
        let place = match field {
            Field::Fact(id) => slot(&mut memo.facts, id.0 as usize, (0, 0)),
            Field::Path(id) => slot(&mut memo.paths, id.0 as usize, (0, 0)),
            Field::Keywords => &mut memo.keywords,
        };
        if place.0 == memo.generation {
            return place.1 as usize;
        }
        let at = memo.values.len();
        *place = (memo.generation, at as u32);
        let value = match field {
            Field::Fact(id) => {
                let fact = facts::get(id);
                if event.sees(fact.parts) { fact.value(event) } else { Value::Unknown }
            }
            Field::Path(id) => self.paths[id.0 as usize].value(event),
            Field::Keywords => path::keywords(event),
        };
        memo.values.push(value);
        at
    }
}

/// Kleene's "at least `count`", when `hold` do hold and `may` can.
fn threshold(count: usize, hold: usize, may: usize) -> Tri {
    if hold >= count {
        Tri::True
    } else if may < count {
        Tri::False
    } else {
        Tri::Unknown
    }
}

/// The members of a value: those of a list, nothing of what is not there, else the value itself.
fn members<'v, 'a>(value: &'v Value<'a>) -> (&'v [Value<'a>], bool) {
    match value {
        Value::Absent => (&[], false),
        Value::Unknown => (&[], true),
        Value::List(List { items, partial }) => (items, *partial),
        scalar => (std::slice::from_ref(scalar), false),
    }
}
