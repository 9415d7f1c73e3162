//! Why a condition came out as it did.

use std::fmt::Write as _;

use serde::Serialize;
use serde::ser::Serializer;

use super::{Expr, Field, Matcher, Memo, Test, Tests, threshold};
use crate::event::Event;
use crate::report;
use crate::value::{Tri, Value};

/// Characters of a value that are shown.
const SHOWN: usize = 200;

/// One node of a condition, its result, and what it was judged on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// The node as the rule writes it.
    pub text: String,
    /// What came out.
    #[serde(serialize_with = "tri")]
    pub result: Tri,
    /// The field's value, for a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// The nodes within it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Trace>,
}

impl Trace {
    /// Takes over the values of another evaluation of the same condition.
    pub(crate) fn show(&mut self, other: Trace) {
        self.actual = other.actual;
        for (own, other) in self.children.iter_mut().zip(other.children) {
            own.show(other);
        }
    }

    /// Drops all values.
    pub(crate) fn hide(&mut self) {
        self.actual = None;
        self.children.iter_mut().for_each(Trace::hide);
    }
}

/// The name of a result.
fn name(result: Tri) -> &'static str {
    match result {
        Tri::True => "true",
        Tri::False => "false",
        Tri::Unknown => "unknown",
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes references
fn tri<S: Serializer>(result: &Tri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*result))
}

impl Tests {
    /// Evaluates every node of a condition, and says what each was judged on.
    pub fn explain<'a>(&self, expr: &Expr, event: &Event<'a>, memo: &mut Memo<'a>) -> Trace {
        let node = |text: &str, result, children| Trace { text: text.into(), result, actual: None, children };
        match expr {
            Expr::Const(result) => node("constant", *result, Vec::new()),
            Expr::Test(id) => self.explain_test(self.get(*id), self.eval(expr, event, memo), event, memo),
            Expr::Not(inner) => {
                let inner = self.explain(inner, event, memo);
                node("not", !inner.result, vec![inner])
            }
            Expr::Named(selection) => {
                let inner = self.explain(&selection.expr, event, memo);
                let result = inner.result;
                // A conjunction of tests needs no line of its own under its name.
                let children = if inner.text == "all of" { inner.children } else { vec![inner] };
                node(&selection.name, result, children)
            }
            Expr::And(all) => {
                let children = self.explain_all(all, event, memo);
                node("all of", children.iter().fold(Tri::True, |so_far, c| so_far.and(c.result)), children)
            }
            Expr::Or(any) => {
                let children = self.explain_all(any, event, memo);
                node("any of", children.iter().fold(Tri::False, |so_far, c| so_far.or(c.result)), children)
            }
            Expr::AtLeast(count, of) => {
                let children = self.explain_all(of, event, memo);
                let hold = children.iter().filter(|c| c.result == Tri::True).count();
                let may = children.iter().filter(|c| c.result != Tri::False).count();
                node(&format!("{count} of"), threshold(*count as usize, hold, may), children)
            }
        }
    }

    fn explain_all<'a>(&self, all: &[Expr], event: &Event<'a>, memo: &mut Memo<'a>) -> Vec<Trace> {
        all.iter().map(|inner| self.explain(inner, event, memo)).collect()
    }

    fn explain_test<'a>(&self, test: &Test, result: Tri, event: &Event<'a>, memo: &mut Memo<'a>) -> Trace {
        let mut see = |field| shown(event, self.name(field), self.value(field, event, memo));
        let actual = match (test.field, &test.matcher) {
            (Field::Keywords, _) => None,
            (field, Matcher::Same { other, .. }) => {
                Some(format!("{}, the other {}", see(field), see(*other)))
            }
            (field, _) => Some(see(field)),
        };
        Trace { text: test.text.clone(), result, actual, children: Vec::new() }
    }
}

/// A value for people: scrubbed as in alerts, bounded, and saying so when there is none.
fn shown(event: &Event<'_>, field: &str, value: &Value<'_>) -> String {
    let note = match value {
        Value::Absent => return "(absent)".into(),
        Value::Unknown => return "(unknown)".into(),
        Value::Null => return "null".into(),
        Value::List(list) if list.partial => " (and maybe more)",
        _ => "",
    };
    let text = report::cleaned(event, field, value);
    // Line breaks and other control characters must not forge lines of a trace.
    let mut clean: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        clean.push('…');
    }
    format!("\"{clean}\"{note}")
}

impl Trace {
    /// As indented lines.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_at(0, &mut out);
        out
    }

    fn render_at(&self, depth: usize, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{:indent$}{:<8}{}", "", name(self.result), self.text, indent = depth * 2);
        if let Some(actual) = &self.actual {
            let _ = write!(out, "    is {actual}");
        }
        out.push('\n');
        for child in &self.children {
            child.render_at(depth + 1, out);
        }
    }
}
