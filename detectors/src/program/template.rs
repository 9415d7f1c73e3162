//! Message templates: `{actor.name} bound {rbac.subjects}`.

use super::{Field, Memo, Tests};
use crate::event::Event;
use crate::value::Value;

/// Characters of one value that a message shows.
const MAX_VALUE: usize = 512;

/// A message with holes.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Field(Field),
}

impl Template {
    /// Reads a template. `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// A brace without its partner, or an empty name.
    pub fn new(text: &str, tests: &mut Tests) -> Result<Template, String> {
        let mut pieces = Vec::new();
        for hole in holes(text)? {
            pieces.push(match hole {
                Hole::Text(text) => Piece::Text(text),
                Hole::Name(name) => Piece::Field(tests.field(&name)),
            });
        }
        Ok(Template { text: text.to_owned(), pieces })
    }

    /// The names in a template, in order.
    ///
    /// # Errors
    /// As [`Template::new`].
    pub fn names(text: &str) -> Result<Vec<String>, String> {
        let holes = holes(text)?.into_iter();
        Ok(holes
            .filter_map(|hole| match hole {
                Hole::Name(name) => Some(name),
                Hole::Text(_) => None,
            })
            .collect())
    }

    /// The template as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fields that it shows, in order.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Field(field) => Some(*field),
        })
    }

    /// Fills the holes from an event.
    pub fn render<'a>(&self, tests: &Tests, event: &Event<'a>, memo: &mut Memo<'a>) -> String {
        self.fill(|field| {
            let value = tests.value(field, event, memo);
            in_message(value, &value.display())
        })
    }

    /// Fills the holes with what `show` says.
    pub fn fill(&self, mut show: impl FnMut(Field) -> String) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(field) => out.push_str(&show(*field)),
            }
        }
        out
    }
}

/// A value as messages show it, given the text that may be shown of it: `-` if it is not there, `?` if the event cannot
/// tell.
pub fn in_message(value: &Value<'_>, text: &str) -> String {
    match value {
        Value::Absent | Value::Null => "-".into(),
        Value::Unknown => "?".into(),
        _ => match text.char_indices().nth(MAX_VALUE) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None if text.is_empty() => "-".into(),
            None => text.to_owned(),
        },
    }
}

/// A stretch of a template.
pub(crate) enum Hole {
    /// Text as it is shown.
    Text(String),
    /// The name of what is shown here.
    Name(String),
}

/// The stretches of a template.
///
/// # Errors
/// As [`Template::new`].
pub(crate) fn holes(text: &str) -> Result<Vec<Hole>, String> {
    let mut holes = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
        } else if brace == "}" {
            return Err("a `}` without `{`; write `}}` for a brace".into());
        } else {
            let (name, after) = rest.split_once('}').ok_or("a `{` without `}`; write `{{` for a brace")?;
            if name.trim().is_empty() || name.contains('{') {
                return Err(format!("`{{{name}}}` names no field; write `{{{{` for a brace"));
            }
            if !plain.is_empty() {
                holes.push(Hole::Text(std::mem::take(&mut plain)));
            }
            holes.push(Hole::Name(name.trim().to_owned()));
            rest = after;
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        holes.push(Hole::Text(plain));
    }
    Ok(holes)
}
