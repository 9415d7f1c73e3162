//! Raw paths: the value of `requestObject.spec.containers.image` in a record.
//!
//! A path is dotted. At an array it goes on in every item. A key may itself contain dots
//! (`annotations.authorization.k8s.io/decision`): at each object the longest literal key is tried first. Keys are compared
//! exactly at first; if that finds nothing, without regard to case, and with `_` in the path standing for `.` in the key,
//! because Elasticsearch writes such keys so.

use crate::event::{Damage, Event, Top};
use crate::facts::Parts;
use crate::scan::{Key, Kind, Node};
use crate::value::Value;

/// Members of one path's value that are gathered, and texts of one event that keywords look at.
const MAX_MEMBERS: usize = 1 << 16;
/// Arrays within arrays that are crossed.
const MAX_NESTING: u32 = 16;
/// What stands for an object where a scalar was expected: it is there, and nothing more is said of it.
const OBJECT: &str = "{...}";

/// The keys of audit events and Falco alerts.
pub const TOP_KEYS: &[(&str, Top)] = &[
    ("kind", Top::Kind),
    ("apiVersion", Top::ApiVersion),
    ("level", Top::Level),
    ("auditID", Top::AuditId),
    ("stage", Top::Stage),
    ("requestURI", Top::RequestUri),
    ("verb", Top::Verb),
    ("user", Top::User),
    ("impersonatedUser", Top::ImpersonatedUser),
    ("sourceIPs", Top::SourceIps),
    ("userAgent", Top::UserAgent),
    ("objectRef", Top::ObjectRef),
    ("responseStatus", Top::ResponseStatus),
    ("requestObject", Top::RequestObject),
    ("responseObject", Top::ResponseObject),
    ("requestReceivedTimestamp", Top::RequestReceivedTimestamp),
    ("stageTimestamp", Top::StageTimestamp),
    ("annotations", Top::Annotations),
    ("authenticationMetadata", Top::AuthenticationMetadata),
    ("metadata", Top::Metadata),
    ("timestamp", Top::Timestamp),
    ("rule", Top::Rule),
    ("priority", Top::Priority),
    ("output", Top::Output),
    ("output_fields", Top::OutputFields),
    ("time", Top::Time),
    ("hostname", Top::Hostname),
    ("tags", Top::Tags),
    ("source", Top::Source),
    ("uuid", Top::Uuid),
];

/// A raw path.
#[derive(Debug)]
pub struct Path {
    text: String,
    /// The path, cut where it names an item of an array by position.
    stretches: Vec<Stretch>,
    /// The top-level key that it begins with, and how much of the first stretch that is.
    top: Option<(Top, usize)>,
    parts: Parts,
    presence: Parts,
}

#[derive(Debug)]
struct Stretch {
    text: String,
    /// The position of the item to go on in; counted from the end if negative.
    index: Option<i64>,
}

/// What a walk gathers.
#[derive(Default)]
struct Found<'a> {
    members: Vec<Value<'a>>,
    /// An array was crossed.
    list: bool,
    /// Something could not be seen.
    partial: bool,
    /// For a bound.
    bound: bool,
}

impl Path {
    /// A path without positions. `\[` and `\]` are brackets in a key.
    pub fn new(text: &str) -> Path {
        Path::of(text, vec![Stretch { text: literal(text), index: None }])
    }

    /// A path that may name items of arrays by position: `containers[0].image`, `[-1]` for the last.
    ///
    /// # Errors
    /// A bracket that is no `[<whole number>]` at the end of a key.
    pub fn indexed(text: &str) -> Result<Path, String> {
        let bad = || {
            format!(
                "`{text}`: a bracket holds a position, such as [0] or [-1], at the end of a key; [any] and the like are not supported"
            )
        };
        let mut stretches = Vec::new();
        let mut rest = text;
        while let Some(open) = opening(rest) {
            let (position, after) = rest[open + 1..].split_once(']').ok_or_else(bad)?;
            let index = Some(position.parse().map_err(|_| bad())?);
            stretches.push(Stretch { text: literal(&rest[..open]), index });
            rest = match after.strip_prefix('.') {
                Some(after) if !after.is_empty() => after,
                _ if after.is_empty() || after.starts_with('[') => after,
                _ => return Err(bad()),
            };
        }
        if !rest.is_empty() {
            stretches.push(Stretch { text: literal(rest), index: None });
        }
        if stretches.first().is_none_or(|first| first.text.is_empty()) {
            return Err(bad());
        }
        Ok(Path::of(text, stretches))
    }

    fn of(text: &str, stretches: Vec<Stretch>) -> Path {
        let first = stretches.first().map_or("", |s| s.text.as_str());
        let key = first.split('.').next().unwrap_or_default();
        let top = TOP_KEYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        let (parts, presence) = parts_of(&text.to_ascii_lowercase());
        Path { text: text.to_owned(), top: top.map(|(_, top)| (*top, key.len())), stretches, parts, presence }
    }

    /// The path as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What its value depends on.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// What its being there depends on.
    pub fn presence(&self) -> Parts {
        self.presence
    }

    /// Its value on an event.
    pub fn value<'a>(&self, event: &Event<'a>) -> Value<'a> {
        let mut found = Found::default();
        let Some(first) = self.stretches.first() else { return Value::Absent };
        match self.top {
            Some((top, length)) => {
                if let Some(node) = event.node(top) {
                    let rest = first.text[length..].strip_prefix('.').unwrap_or_default();
                    self.walk(node, 0, rest, &mut found, 0);
                }
            }
            None => self.walk(event.root(), 0, &first.text, &mut found, 0),
        }
        let Found { mut members, list, partial, bound } = found;
        if bound {
            event.views().hit_bound();
        }
        if members.is_empty() {
            return if partial { Value::Unknown } else { self.missing(event) };
        }
        if list || partial {
            return Value::list_of(members, partial || self.may_lack_middle(event));
        }
        members.swap_remove(0)
    }

    /// Goes on from `node` with `rest` of the stretch.
    fn walk<'a>(&self, node: Node<'a>, stretch: usize, rest: &str, found: &mut Found<'a>, nesting: u32) {
        if rest.is_empty() {
            return self.step(node, stretch, found, nesting);
        }
        match node.kind() {
            Kind::Array => {
                found.list = true;
                each_item(node, nesting, found, |item, found| {
                    self.walk(item, stretch, rest, found, nesting + 1);
                });
            }
            Kind::Object => {
                let here = (node, stretch, rest);
                let missed =
                    !self.descend(here, true, found, nesting) && !self.descend(here, false, found, nesting);
                found.partial |= missed && damaged(node);
            }
            Kind::Invalid => found.partial = true,
            _ => {}
        }
    }

    /// The stretch is at its end: goes to an item, into the next stretch, or takes the value.
    fn step<'a>(&self, node: Node<'a>, stretch: usize, found: &mut Found<'a>, nesting: u32) {
        let target = match self.stretches.get(stretch).and_then(|s| s.index) {
            None => Some(node),
            Some(index) if index < 0 => {
                let place = node.items().count().checked_sub(index.unsigned_abs() as usize);
                place.and_then(|place| node.items().nth(place))
            }
            Some(index) => node.items().nth(index as usize),
        };
        match (target, self.stretches.get(stretch + 1)) {
            (Some(node), Some(next)) => self.walk(node, stretch + 1, &next.text, found, nesting),
            (Some(node), None) => take(node, found, nesting),
            (None, _) => found.partial |= !node.complete(),
        }
    }

    /// Goes into the member with the longest key that `rest` begins with; if nothing is there, into that with the next
    /// longest. True if something was found.
    fn descend<'a>(
        &self,
        (node, stretch, rest): (Node<'a>, usize, &str),
        exact: bool,
        found: &mut Found<'a>,
        nesting: u32,
    ) -> bool {
        let mut limit = rest.len();
        while let Some((length, member)) = longest(node, rest, exact, limit) {
            let before = found.members.len();
            let after = rest[length..].strip_prefix('.').unwrap_or_default();
            self.walk(member, stretch, after, found, nesting);
            if found.members.len() > before || length == 0 {
                return true;
            }
            limit = length - 1;
        }
        false
    }

    /// The value when nothing was found.
    fn missing<'a>(&self, event: &Event<'a>) -> Value<'a> {
        if self.may_hide(event) { Value::Unknown } else { Value::Absent }
    }

    /// True if something may be missing between head and tail of an oversize record: anything, outside a value that lies
    /// whole in the head.
    fn may_lack_middle(&self, event: &Event<'_>) -> bool {
        let Damage { oversize, seam, .. } = event.damage;
        let top = || self.top.and_then(|(top, _)| event.node(top));
        oversize && top().is_none_or(|node| node.end() > seam)
    }

    /// True if the event may have held more than it shows.
    fn may_hide(&self, event: &Event<'_>) -> bool {
        let damage = event.damage;
        if damage.cut || damage.types || self.may_lack_middle(event) {
            return true;
        }
        let levels: &[&[u8]] = match self.top {
            Some((Top::RequestObject, _)) => &[b"Request", b"RequestResponse"],
            Some((Top::ResponseObject, _)) => &[b"RequestResponse"],
            _ => return false,
        };
        let there = self.top.is_some_and(|(top, _)| event.has(top));
        let logged = there || event.raw(Top::Level).is_some_and(|level| levels.contains(&level));
        !logged || damage.syntax || event.truncated()
    }
}

/// Where the first `[` stands that no backslash makes part of a key.
fn opening(text: &str) -> Option<usize> {
    text.match_indices('[').map(|(at, _)| at).find(|at| !text[..*at].ends_with('\\'))
}

/// A part of a path with its escaped brackets as they are in the key.
fn literal(text: &str) -> String {
    text.replace("\\[", "[").replace("\\]", "]")
}

/// True if an object may have held members that a walk does not show.
fn damaged(object: Node<'_>) -> bool {
    let mut members = object.members();
    members.by_ref().for_each(drop);
    members.damaged() || !object.complete()
}

/// The last member among those with the longest key that `rest` begins with, no longer than `limit`.
fn longest<'a>(node: Node<'a>, rest: &str, exact: bool, limit: usize) -> Option<(usize, Node<'a>)> {
    let mut best: Option<(usize, Node<'a>)> = None;
    for (key, value) in node.members() {
        let least = best.map_or(0, |(length, _)| length);
        if let Some(length) = begins(rest, key, exact)
            && (least..=limit).contains(&length)
        {
            best = Some((length, value));
        }
    }
    best
}

/// How much of `rest` the key covers, if it covers whole names of it.
fn begins(rest: &str, key: Key<'_>, exact: bool) -> Option<usize> {
    let raw = key.raw();
    let decoded;
    let key = if memchr::memchr(b'\\', raw).is_some() {
        decoded = key.text();
        decoded.as_bytes()
    } else {
        raw
    };
    let head = rest.as_bytes().get(..key.len())?;
    let ends = matches!(rest.as_bytes().get(key.len()), None | Some(b'.'));
    let alike = |(path, key): (&u8, &u8)| path.eq_ignore_ascii_case(key) || (*path == b'_' && *key == b'.');
    let same = if exact { head == key } else { head.iter().zip(key).all(alike) };
    (ends && same && !key.is_empty()).then_some(key.len())
}

fn each_item<'a>(
    array: Node<'a>,
    nesting: u32,
    found: &mut Found<'a>,
    mut go: impl FnMut(Node<'a>, &mut Found<'a>),
) {
    if nesting >= MAX_NESTING {
        (found.partial, found.bound) = (true, true);
        return;
    }
    let mut items = array.items();
    for item in items.by_ref() {
        if found.members.len() >= MAX_MEMBERS {
            (found.partial, found.bound) = (true, true);
            return;
        }
        go(item, found);
    }
    found.partial |= items.damaged();
}

/// Takes a value: an array's items one by one.
fn take<'a>(node: Node<'a>, found: &mut Found<'a>, nesting: u32) {
    if node.kind() == Kind::Array {
        found.list = true;
        each_item(node, nesting, found, |item, found| take(item, found, nesting + 1));
        return;
    }
    match scalar(node) {
        Some(value) => found.members.push(value),
        None => found.partial = true,
    }
}

/// A value that is no array; nothing if it is cut off or no JSON.
fn scalar(node: Node<'_>) -> Option<Value<'_>> {
    if node.kind() == Kind::Object {
        return Some(Value::text(OBJECT));
    }
    if !node.complete() {
        return None;
    }
    match node.kind() {
        Kind::String => node.text().map(Value::Text),
        Kind::True => Some(Value::Bool(true)),
        Kind::False => Some(Value::Bool(false)),
        Kind::Null => Some(Value::Null),
        Kind::Number => {
            let float = || node.as_f64().map(Value::Float);
            let spelt = || std::str::from_utf8(node.raw()).ok().map(Value::text);
            node.as_i64().map(Value::Int).or_else(float).or_else(spelt)
        }
        Kind::Object | Kind::Array | Kind::Invalid => None,
    }
}

/// Every text, number and truth value of the record, in no order. A level that is too low hides nothing here: keywords
/// look at what was logged.
pub(super) fn keywords<'a>(event: &Event<'a>) -> Value<'a> {
    let mut members = Vec::new();
    let mut partial = event.damage.cut || event.damage.oversize || event.damage.syntax || event.truncated();
    let mut open = vec![event.root()];
    while let Some(node) = open.pop() {
        match node.kind() {
            Kind::Object => open.extend(node.members().map(|(_, value)| value).take(MAX_MEMBERS + 1)),
            Kind::Array => open.extend(node.items().take(MAX_MEMBERS + 1)),
            Kind::Null => {}
            _ => match scalar(node) {
                Some(value) => members.push(value),
                None => partial = true,
            },
        }
        if members.len() + open.len() > MAX_MEMBERS {
            event.views().hit_bound();
            return Value::list_of(members, true);
        }
    }
    Value::list_of(members, partial)
}

/// What the value of a path (in lower case) depends on, and what its being there depends on.
fn parts_of(path: &str) -> (Parts, Parts) {
    let one = |parts: Parts| (parts, parts);
    match path {
        "verb"
        | "stage"
        | "level"
        | "responsestatus.code"
        | "objectref.apigroup"
        | "objectref.resource"
        | "objectref.subresource" => one(Parts::SHAPE),
        "objectref.namespace" | "objectref.name" => one(Parts::NAME),
        "user" | "impersonateduser" => one(Parts::USER),
        "useragent" => one(Parts::AGENT),
        "sourceips" => one(Parts::ADDRESS),
        "rule" | "priority" | "source" => one(Parts::FALCO),
        _ if path.starts_with("user.") || path.starts_with("impersonateduser.") => one(Parts::USER),
        _ if path.starts_with("annotations.") => (Parts::REST, Parts::NOTES),
        _ => one(Parts::REST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Doc, Marks};
    use crate::settings::Settings;

    #[test]
    fn what_lies_whole_in_the_head_of_an_oversize_record_is_whole() {
        let head = r#"{"user":{"groups":["a","b"]},"objectRef":{"name":"x"},"requestObject":{"l":["c","#;
        let record = format!(r#"{head}"d"]}},"annotations":{{"k":"v"}}}}"#);
        let (settings, mut marks) = (Settings::default(), Marks::new());
        marks.mark(record.as_bytes());
        let mut event = Event::skim(Doc::new(record.as_bytes(), &marks).root().unwrap(), &settings);
        (event.damage.oversize, event.damage.seam) = (true, head.len() as u32);
        let value = |path: &str| Path::new(path).value(&event);
        let list = |members: [&'static str; 2], partial| {
            Value::list_of(members.into_iter().map(Value::text).collect(), partial)
        };
        assert_eq!(value("user.groups"), list(["a", "b"], false));
        assert_eq!(value("requestObject.l"), list(["c", "d"], true));
        assert_eq!(value("objectRef.namespace"), Value::Absent);
        for unknown in ["requestObject.x", "annotations.x", "sourceIPs"] {
            assert_eq!(value(unknown), Value::Unknown, "{unknown}");
        }
    }
}
