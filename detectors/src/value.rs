//! What a fact or a raw path yields, and three-valued truth.

use std::borrow::Cow;

/// The value of a fact or of a raw path on one event.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// The event shows that it is not there.
    Absent,
    /// The event cannot show it: level too low, body truncated or damaged, a bound was hit.
    Unknown,
    /// JSON `null` (raw paths only).
    Null,
    /// Text, decoded.
    Text(Cow<'a, str>),
    /// A whole number that fits 64 bits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Any number of scalars.
    List(List<'a>),
}

/// A list of scalars. A condition holds for a list when it holds for any member.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct List<'a> {
    /// The members seen.
    pub items: Vec<Value<'a>>,
    /// True when members may exist that could not be seen: a condition that no seen member satisfies is then unknown.
    pub partial: bool,
}

impl<'a> Value<'a> {
    /// Borrowed text.
    pub fn text(s: &'a str) -> Self {
        Value::Text(Cow::Borrowed(s))
    }

    /// A complete list of texts; an empty one is [`Value::Absent`].
    pub fn list(items: impl IntoIterator<Item = Cow<'a, str>>) -> Self {
        Self::list_of(items.into_iter().map(Value::Text).collect(), false)
    }

    /// A list; an empty complete one is [`Value::Absent`], an empty partial one [`Value::Unknown`].
    pub fn list_of(items: Vec<Value<'a>>, partial: bool) -> Self {
        match (items.is_empty(), partial) {
            (true, true) => Value::Unknown,
            (true, false) => Value::Absent,
            _ => Value::List(List { items, partial }),
        }
    }

    /// `Some` becomes text, `None` absent.
    pub fn maybe(text: Option<Cow<'a, str>>) -> Self {
        text.map_or(Value::Absent, Value::Text)
    }

    /// The value as shown to people: lists joined by commas, nothing for absent, null and unknown.
    pub fn display(&self) -> Cow<'_, str> {
        match self {
            Value::Absent | Value::Unknown | Value::Null => Cow::Borrowed(""),
            Value::Text(t) => Cow::Borrowed(t),
            Value::Int(i) => Cow::Owned(i.to_string()),
            Value::Float(f) => Cow::Owned(f.to_string()),
            Value::Bool(b) => Cow::Borrowed(if *b { "true" } else { "false" }),
            Value::List(list) => {
                let parts: Vec<_> = list.items.iter().map(|v| v.display().into_owned()).collect();
                Cow::Owned(parts.join(","))
            }
        }
    }
}

/// Kleene's three truth values; the order is `False < Unknown < True`, so that `and` is min and `or` is max.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tri {
    /// It does not hold.
    False,
    /// The event cannot tell.
    Unknown,
    /// It holds.
    True,
}

impl Tri {
    /// Kleene conjunction.
    #[must_use]
    pub fn and(self, other: Tri) -> Tri {
        self.min(other)
    }

    /// Kleene disjunction.
    #[must_use]
    pub fn or(self, other: Tri) -> Tri {
        self.max(other)
    }
}

impl std::ops::Not for Tri {
    type Output = Tri;

    fn not(self) -> Tri {
        match self {
            Tri::False => Tri::True,
            Tri::Unknown => Tri::Unknown,
            Tri::True => Tri::False,
        }
    }
}

impl From<bool> for Tri {
    fn from(b: bool) -> Tri {
        if b { Tri::True } else { Tri::False }
    }
}
