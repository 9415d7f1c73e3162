//! What an operator does not want to see in alerts: paths into events. Nothing that an alert shows is read from what lies there.
//!
//! Events are judged as they are, and shown from a copy in which `[redacted]` stands at these paths: so whatever a fact reads
//! there, and whatever it is called in the alert, is gone. The same value in another place is another path.

use super::REDACTED;
use crate::event::{Event, Top};
use crate::names;
use crate::program::TOP_KEYS;
use crate::report;
use crate::scan::{Doc, Key, Kind, Marks, Node};

/// Arrays within arrays that are crossed.
const MAX_NESTING: u32 = 16;

/// A path whose values are not shown. It goes on in every item of an array.
#[derive(Debug, Clone)]
pub struct Hidden {
    top: Top,
    /// The path below the top-level key; empty for all of it.
    rest: String,
}

impl Hidden {
    /// Reads a path: of the event (`requestObject.spec.x`, `annotations.a/b`, `output_fields.proc.cmdline`), or one of Falco's
    /// output fields by its name.
    ///
    /// # Errors
    /// What begins with no key of an event and is no field of Falco's.
    pub fn new(path: &str) -> Result<Hidden, String> {
        let key = path.split('.').next().unwrap_or_default();
        let known = TOP_KEYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        let (top, rest) = match known {
            Some((_, top)) => (*top, path[key.len()..].strip_prefix('.').unwrap_or_default()),
            None if report::is_falco_field(path) => (Top::OutputFields, path),
            None => {
                let hint = names::did_you_mean(key, TOP_KEYS.iter().map(|(name, _)| *name));
                return Err(format!(
                    "`{path}` begins with no key of an event and is no field of Falco's{hint}"
                ));
            }
        };
        let bad = path.ends_with('.') || path.contains("..");
        if bad || (top != Top::OutputFields && rest.contains('[')) {
            return Err(format!(
                "`{path}`: names of keys, with dots between them, make a path; every item of an array is meant"
            ));
        }
        Ok(Hidden { top, rest: rest.to_owned() })
    }
}

/// The event's bytes with `[redacted]` at these paths; none if nothing is there.
pub(crate) fn without(event: &Event<'_>, paths: &[Hidden]) -> Option<Vec<u8>> {
    let mut spans = Vec::new();
    for path in paths {
        for node in event.every(path.top) {
            walk(node, &path.rest, 0, &mut spans);
        }
    }
    if spans.is_empty() {
        return None;
    }
    spans.sort_unstable();
    let root = event.root();
    let bytes = root.doc().bytes();
    let mut out = Vec::with_capacity(bytes.len().min(1 << 16));
    let mut at = root.start() as usize;
    for (start, end) in spans {
        // What lies within a span that is gone is gone.
        if start as usize >= at {
            out.extend_from_slice(&bytes[at..start as usize]);
            out.push(b'"');
            out.extend_from_slice(REDACTED.as_bytes());
            out.push(b'"');
            at = end as usize;
        }
    }
    let end = event.end().map_or(bytes.len(), |end| end as usize);
    out.extend_from_slice(&bytes[at.min(end)..end]);
    Some(out)
}

/// Reads what [`without`] made of an event.
pub(crate) fn read<T>(bytes: &[u8], of: &Event<'_>, see: impl FnOnce(&Event<'_>) -> T) -> T {
    let mut marks = Marks::new();
    marks.mark(bytes);
    let root = Doc::new(bytes, &marks).root().expect("the event's brace is still there");
    let mut event = Event::skim(root, of.settings);
    event.stream = of.stream;
    event.discard_wrong_types();
    event.damage = of.damage;
    see(&event)
}

/// Notes where the values lie. As deep as the path is long, but for arrays in arrays.
fn walk(node: Node<'_>, rest: &str, nesting: u32, spans: &mut Vec<(u32, u32)>) {
    match node.kind() {
        _ if rest.is_empty() || nesting > MAX_NESTING => spans.push((node.start(), node.end())),
        Kind::Array => node.items().for_each(|item| walk(item, rest, nesting + 1, spans)),
        Kind::Object => {
            for (key, value) in node.members() {
                if let Some(length) = begins(rest, key) {
                    walk(value, rest[length..].strip_prefix('.').unwrap_or_default(), nesting, spans);
                }
            }
        }
        _ => {}
    }
}

/// How much of a path the key covers, in any case, if it covers whole names of it.
fn begins(rest: &str, key: Key<'_>) -> Option<usize> {
    let key = key.text();
    let head = rest.as_bytes().get(..key.len())?;
    let ends = matches!(rest.as_bytes().get(key.len()), None | Some(b'.'));
    (ends && !key.is_empty() && head.eq_ignore_ascii_case(key.as_bytes())).then_some(key.len())
}
