//! The vocabulary that detectors are written in.
//!
//! A fact is one row of its family's table: a name, what it means, what it needs, and a function from the event to a value.
//! The rows are plain data; `docs/facts.md` is generated from them.

use crate::event::{Event, Stream};
use crate::value::Value;

pub mod views;

/// What kind of value a fact yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactType {
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// A truth value.
    Bool,
    /// A list of texts.
    List,
}

/// The lowest audit level at which a fact can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// `Metadata`: always there.
    Metadata,
    /// `Request`: read from `requestObject` (or from `responseObject` where that is there).
    Request,
    /// `RequestResponse`: read from `responseObject` only.
    RequestResponse,
}

/// Which of the event's routing keys a fact or path depends on, as bits. A fact whose parts are all among the keys that an
/// index table is keyed on can be evaluated for a whole class of events at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts(pub u8);

impl Parts {
    /// verb, objectRef's group, resource and subresource, whether namespace and name are there, the response code and whether
    /// it has a message, stage, level, whether it was impersonated, whether it is a dry run.
    pub const SHAPE: Parts = Parts(1);
    /// `user.username`, `user.groups` and `impersonatedUser`.
    pub const USER: Parts = Parts(2);
    /// `userAgent`.
    pub const AGENT: Parts = Parts(4);
    /// `sourceIPs`.
    pub const ADDRESS: Parts = Parts(8);
    /// The names of the annotations that are there (not their values).
    pub const NOTES: Parts = Parts(16);
    /// Falco's rule, priority and source.
    pub const FALCO: Parts = Parts(32);
    /// Anything else.
    pub const REST: Parts = Parts(128);
    /// All of the event.
    pub const ALL: Parts = Parts(255);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Parts) -> Parts {
        Parts(self.0 | other.0)
    }

    /// True if `self` needs nothing outside `visible`.
    pub const fn within(self, visible: Parts) -> bool {
        self.0 & !visible.0 == 0
    }
}

/// One fact.
pub struct Fact {
    /// `family.name`.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub doc: &'static str,
    /// The value's type.
    pub kind: FactType,
    /// The streams that know it.
    pub streams: &'static [Stream],
    /// The audit level it needs (Falco facts: [`Needs::Metadata`]).
    pub needs: Needs,
    /// What it must see. A fact that can answer some events from its parts alone and needs more for others declares only the
    /// parts, and yields [`Value::Unknown`] when [`Event::sees`] denies it the rest.
    pub parts: Parts,
    /// Computes it.
    pub get: for<'a> fn(&Event<'a>) -> Value<'a>,
}

/// A fact's place in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FactId(pub u16);
