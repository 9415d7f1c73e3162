//! Conditions over named selections.

use std::sync::Arc;

use rsigma_parser::{ConditionExpr, Quantifier, parse_condition};
use yaml_serde::Value;

use super::selection::{Compiler, one_or};
use crate::names::did_you_mean;
use crate::program::{Expr, Selection};

/// A detection's selections, in the order of the file, and which of them some condition uses.
pub(super) struct Selections {
    all: Vec<Arc<Selection>>,
    used: Vec<bool>,
    /// Some condition could not be read, and may have used any of them.
    unread: bool,
}

impl Selections {
    pub(super) fn new(all: Vec<Arc<Selection>>) -> Selections {
        let used = vec![false; all.len()];
        Selections { all, used, unread: false }
    }

    /// The selections that no condition uses.
    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        let unread = self.unread;
        self.all
            .iter()
            .zip(&self.used)
            .filter(move |(_, used)| !**used && !unread)
            .map(|(selection, _)| selection.name.as_str())
    }

    pub(super) fn into_all(self) -> Vec<Arc<Selection>> {
        self.all
    }

    fn take(&mut self, index: usize) -> Expr {
        self.used[index] = true;
        Expr::Named(self.all[index].clone())
    }

    /// A condition's value: a text, or a list of texts any of which may hold. Also gives its canonical form, which does not
    /// depend on blanks and superfluous parentheses.
    pub(super) fn condition(&mut self, value: Option<&Value>, compiler: &mut Compiler<'_>) -> (Expr, String) {
        let Some(value) = value else {
            self.unread = true;
            return (compiler.refuse("a `condition` is missing"), String::new());
        };
        let texts: Vec<&str> = match value {
            Value::String(text) => vec![text],
            Value::Sequence(items) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let given = value.as_sequence().map_or(1, Vec::len);
        if texts.is_empty() || texts.len() != given {
            self.unread = true;
            return (compiler.refuse("a condition is a text, or a list of texts"), String::new());
        }
        let (mut any, mut canonical) = (Vec::new(), Vec::new());
        for text in texts {
            match parse(text) {
                Ok(parsed) => {
                    canonical.push(parsed.to_string());
                    any.push(self.resolve(&parsed, compiler));
                }
                Err(reason) => {
                    self.unread = true;
                    any.push(compiler.refuse(reason));
                }
            }
        }
        (one_or(any, Expr::Or), canonical.join(" or "))
    }

    fn resolve(&mut self, parsed: &ConditionExpr, compiler: &mut Compiler<'_>) -> Expr {
        match parsed {
            ConditionExpr::And(all) => Expr::And(all.iter().map(|e| self.resolve(e, compiler)).collect()),
            ConditionExpr::Or(any) => Expr::Or(any.iter().map(|e| self.resolve(e, compiler)).collect()),
            ConditionExpr::Not(inner) => Expr::Not(Box::new(self.resolve(inner, compiler))),
            ConditionExpr::Identifier(name) => {
                if let Some(index) = self.all.iter().position(|s| s.name == *name) {
                    return self.take(index);
                }
                let hint = did_you_mean(name, self.all.iter().map(|s| s.name.as_str()));
                compiler.refuse(format!("there is no selection `{name}`{hint}"))
            }
            ConditionExpr::Selector { quantifier, pattern } => {
                let chosen: Vec<usize> = (0..self.all.len())
                    .filter(|i| pattern.matches_detection_name(&self.all[*i].name))
                    .collect();
                let of: Vec<Expr> = chosen.into_iter().map(|index| self.take(index)).collect();
                quantified(quantifier, of)
                    .unwrap_or_else(|reason| compiler.refuse(format!("`{parsed}`: {reason}")))
            }
        }
    }
}

fn quantified(quantifier: &Quantifier, of: Vec<Expr>) -> Result<Expr, String> {
    let there = of.len() as u64;
    match quantifier {
        _ if of.is_empty() => Err("no selection has such a name".into()),
        Quantifier::Any => Ok(one_or(of, Expr::Or)),
        Quantifier::All => Ok(one_or(of, Expr::And)),
        Quantifier::Count(0) => Err("this always holds".into()),
        Quantifier::Count(count) if *count > there => Err(format!("there are only {there} such selections")),
        Quantifier::Count(count) => Ok(Expr::AtLeast(*count as u32, of)),
    }
}

fn parse(text: &str) -> Result<ConditionExpr, String> {
    if text.contains('|') {
        return Err("aggregations in conditions are no longer Sigma; write a correlation rule".into());
    }
    parse_condition(text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!(" at column {}", at.col));
        format!("`{text}` is no condition{place}: it takes selections, `and`, `or`, `not`, `1 of`, `all of`, parentheses")
    })
}
