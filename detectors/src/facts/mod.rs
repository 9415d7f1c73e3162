//! The vocabulary that detectors are written in.
//!
//! A fact is one row of its family's table: a name, what it means, what it needs, and a function from the event to a value.
//! The rows are plain data; `docs/facts.md` is generated from them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::event::{Event, Stream};
use crate::value::Value;

pub mod action;
mod actor;
mod credential;
mod exec;
mod falco;
mod object;
mod pod;
mod query;
mod rbac;
mod secret;
mod shape;
mod target;
pub mod views;

#[cfg(test)]
mod tests;

/// Every family with its table, in the order of the reference page.
pub static FAMILIES: &[(&str, &[Fact])] = &[
    ("actor", actor::FACTS),
    ("action", action::FACTS),
    ("target", target::FACTS),
    ("rbac", rbac::FACTS),
    ("pod", pod::FACTS),
    ("exec", exec::FACTS),
    ("secret", secret::FACTS),
    ("falco", falco::FACTS),
];

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
    /// `user` and `impersonatedUser`.
    pub const USER: Parts = Parts(2);
    /// `userAgent`.
    pub const AGENT: Parts = Parts(4);
    /// `sourceIPs`.
    pub const ADDRESS: Parts = Parts(8);
    /// The names of the annotations that are there (not their values).
    pub const NOTES: Parts = Parts(16);
    /// Falco's rule, priority and source.
    pub const FALCO: Parts = Parts(32);
    /// objectRef's namespace and name; of a request for no resource, the path of `requestURI`.
    pub const NAME: Parts = Parts(64);
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

/// Streams of a fact that only the audit log knows.
const AUDIT: &[Stream] = &[Stream::Audit];
/// Streams of a fact that only Falco knows.
const FALCO: &[Stream] = &[Stream::Falco];
/// Streams of a fact that both know.
const BOTH: &[Stream] = &[Stream::Audit, Stream::Falco];

impl Fact {
    /// A row of an audit family that every audit level can fill.
    const fn audit(
        name: &'static str,
        kind: FactType,
        parts: Parts,
        get: for<'a> fn(&Event<'a>) -> Value<'a>,
    ) -> Fact {
        Fact { name, doc: "", kind, streams: AUDIT, needs: Needs::Metadata, parts, get }
    }

    /// A row about the object that the request wrote. The event's shape tells whether there is such an object at all.
    const fn body(name: &'static str, kind: FactType, get: for<'a> fn(&Event<'a>) -> Value<'a>) -> Fact {
        Fact { name, doc: "", kind, streams: AUDIT, needs: Needs::Request, parts: Parts::SHAPE, get }
    }

    /// A row of a Falco family.
    const fn falco(
        name: &'static str,
        kind: FactType,
        parts: Parts,
        get: for<'a> fn(&Event<'a>) -> Value<'a>,
    ) -> Fact {
        Fact { name, doc: "", kind, streams: FALCO, needs: Needs::Metadata, parts, get }
    }

    /// What the row means.
    const fn doc(mut self, doc: &'static str) -> Fact {
        self.doc = doc;
        self
    }

    /// The same row for other streams.
    const fn of(mut self, streams: &'static [Stream]) -> Fact {
        self.streams = streams;
        self
    }

    /// The fact's value. On a stream that does not know the fact it is absent.
    pub fn value<'a>(&self, event: &Event<'a>) -> Value<'a> {
        if self.streams.contains(&event.stream) { (self.get)(event) } else { Value::Absent }
    }
}

/// A fact's place in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FactId(pub u16);

static ALL: LazyLock<Vec<&'static Fact>> =
    LazyLock::new(|| FAMILIES.iter().flat_map(|(_, facts)| facts.iter()).collect());

/// Every fact, in the order of [`FAMILIES`]: the fact at place `n` has the id `n`.
pub fn all() -> impl Iterator<Item = &'static Fact> {
    ALL.iter().copied()
}

/// The fact of that name. Linear in the number of facts: for compiling detectors, not for judging events.
pub fn find(name: &str) -> Option<FactId> {
    ALL.iter().position(|fact| fact.name == name).map(|place| FactId(place as u16))
}

/// The fact with that id.
///
/// # Panics
/// If the id is not from [`find`].
pub fn get(id: FactId) -> &'static Fact {
    ALL[usize::from(id.0)]
}

/// The reference page `docs/facts.md`, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    for (family, facts) in FAMILIES {
        let _ = write!(
            page,
            "\n## {family}\n\n| name | type | streams | level | meaning |\n|---|---|---|---|---|\n"
        );
        for fact in *facts {
            let streams: Vec<_> = fact.streams.iter().map(|stream| stream_name(*stream)).collect();
            let (kind, streams, level) = (fact.kind.name(), streams.join(", "), fact.needs.name());
            // A bar would end the table's cell.
            let doc = fact.doc.replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | {kind} | {streams} | {level} | {doc} |", fact.name);
        }
    }
    page
}

const INTRODUCTION: &str = "# Facts

Generated from the tables in `detectors/src/facts/`; edit those, not this page.

A fact is *absent* when the event shows that it is not there, and *unknown* when the event cannot show it: the audit level
is too low, the body was truncated or damaged, a patch does not mention it, or a bound was hit. Facts compare
case-sensitively; a list matches by any of its members. *Level* is the lowest audit level at which the fact can be read.

Facts about *the object* read what the request wrote: `responseObject` unless that is a `Status`, else `requestObject` of a
create or update, else what a patch mentions. They are absent on reads.
";

fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Audit => "audit",
        Stream::Falco => "falco",
    }
}

impl FactType {
    /// The type's name on the reference page.
    pub const fn name(self) -> &'static str {
        match self {
            FactType::Text => "text",
            FactType::Int => "int",
            FactType::Bool => "bool",
            FactType::List => "list",
        }
    }
}

impl Needs {
    /// The audit level's name.
    pub const fn name(self) -> &'static str {
        match self {
            Needs::Metadata => "Metadata",
            Needs::Request => "Request",
            Needs::RequestResponse => "RequestResponse",
        }
    }
}
