//! One event: borrowed views over the bytes of an audit event or a Falco alert.
//!
//! Nothing is parsed before it is asked for. The skim ([`Event::skim`]) walks the members of the event's object once and
//! notes where each known key's value lies; everything else is a [`Node`] into the same bytes.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};

use crate::facts::Parts;
use crate::facts::views::Views;
use crate::scan::{Key, Node};
use crate::settings::Settings;

pub mod frame;
pub mod identity;
pub mod pieces;
pub mod record;
pub mod time;

/// Which sensor an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The API server's audit log.
    Audit,
    /// Falco.
    Falco,
}

/// The top-level keys that Lapwing knows, of audit events, Falco alerts, lists and string carriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // each is the JSON key of the same name
pub enum Top {
    Kind,
    ApiVersion,
    Level,
    AuditId,
    Stage,
    RequestUri,
    Verb,
    User,
    ImpersonatedUser,
    SourceIps,
    UserAgent,
    ObjectRef,
    ResponseStatus,
    RequestObject,
    ResponseObject,
    RequestReceivedTimestamp,
    StageTimestamp,
    Annotations,
    AuthenticationMetadata,
    Timestamp,
    Metadata,
    Items,
    Rule,
    Priority,
    Output,
    OutputFields,
    Time,
    Hostname,
    Tags,
    Source,
    Uuid,
    Schema,
    Log,
    Message,
    Raw,
    Line,
    EventText,
}

const TOP_COUNT: usize = Top::EventText as usize + 1;

/// Key spellings, in [`Top`] order.
const TOP_NAMES: [&str; TOP_COUNT] = [
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
    "authenticationMetadata",
    "timestamp",
    "metadata",
    "items",
    "rule",
    "priority",
    "output",
    "output_fields",
    "time",
    "hostname",
    "tags",
    "source",
    "uuid",
    "schema",
    "log",
    "message",
    "_raw",
    "line",
    "event",
];

/// What is wrong with a record. Any of these marks alerts `partial` and lets unknown results raise an integrity alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // a set of independent findings
pub struct Damage {
    /// A known top-level key stands twice; the last value counts, as in Go.
    pub duplicate_key: bool,
    /// Bytes that are not UTF-8, read as U+FFFD.
    pub encoding: bool,
    /// Unescaped control bytes inside strings.
    pub control: bool,
    /// The record ends inside a value.
    pub cut: bool,
    /// Missing or surplus punctuation.
    pub syntax: bool,
    /// Values of a type that their keys do not have (`"verb": 5`), which are left out.
    pub types: bool,
    /// Longer than the limit of one event; only its head and tail were read.
    pub oversize: bool,
    /// Where in the document the head of an oversize record ends.
    pub seam: u32,
}

impl Damage {
    /// True if anything is wrong.
    pub fn any(self) -> bool {
        self != Damage::default()
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Damage) -> Damage {
        Damage {
            duplicate_key: self.duplicate_key | other.duplicate_key,
            encoding: self.encoding | other.encoding,
            control: self.control | other.control,
            cut: self.cut | other.cut,
            syntax: self.syntax | other.syntax,
            types: self.types | other.types,
            oversize: self.oversize | other.oversize,
            seam: self.seam.max(other.seam),
        }
    }

    /// True if the writer wrote a key twice; what was cut may have run into the next record.
    pub fn repeats_key(self) -> bool {
        self.duplicate_key && !self.cut && !self.oversize
    }

    /// The damage that loses nothing, as bits.
    pub(crate) fn harmless(self) -> u8 {
        u8::from(self.duplicate_key) | u8::from(self.encoding) << 1 | u8::from(self.control) << 2
    }

    /// True if a key that is not there may have been.
    pub fn hides_keys(self) -> bool {
        self.cut || self.oversize || self.syntax || self.types
    }

    /// Short names of what is wrong, for integrity alerts and the summary.
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.duplicate_key, "duplicate key"),
            (self.encoding, "invalid UTF-8"),
            (self.control, "control bytes"),
            (self.cut, "cut short"),
            (self.syntax, "broken syntax"),
            (self.types, "wrong type"),
            (self.oversize, "oversize"),
        ]
        .into_iter()
        .filter_map(|(is, name)| is.then_some(name))
        .collect()
    }
}

/// One event.
pub struct Event<'a> {
    /// The sensor.
    pub stream: Stream,
    /// What is wrong with the record.
    pub damage: Damage,
    /// The operator's settings.
    pub settings: &'a Settings,
    root: Node<'a>,
    end: Option<u32>,
    /// Some value is not of the type that its key has in an event.
    odd: bool,
    spans: [(u32, u32); TOP_COUNT],
    object_ref: OnceCell<ObjectSpans>,
    user: OnceCell<User<'a>>,
    views: OnceCell<Box<Views<'a>>>,
    /// What facts may look at; everything, unless the index asks what the routing keys alone decide.
    pub lens: Cell<Parts>,
}

/// Where the values of `objectRef`'s members lie: start and end, or zeros.
#[derive(Debug, Clone, Copy)]
struct ObjectSpans {
    spans: [(u32, u32); OBJECT_NAMES.len()],
    /// Each stands once at most, and none in another spelling.
    plain: bool,
}

/// The members of `objectRef` that count, in [`ObjectSpans`] order.
const OBJECT_NAMES: [&str; 5] = ["apiGroup", "resource", "subresource", "namespace", "name"];

/// `objectRef`, undecoded.
#[derive(Clone, Copy)]
pub struct ObjectRef<'e, 'a> {
    event: &'e Event<'a>,
    spans: &'e ObjectSpans,
}

/// `user` or `impersonatedUser`, undecoded.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)] // the audit API's field names
pub struct User<'a> {
    pub username: Option<Node<'a>>,
    pub groups: Option<Node<'a>>,
    pub extra: Option<Node<'a>>,
}

impl<'a> User<'a> {
    fn of(node: Option<Node<'a>>) -> User<'a> {
        let mut user = User::default();
        let Some(node) = node else { return user };
        for (key, value) in node.members() {
            let field = match key.raw() {
                b"username" => 0,
                b"groups" => 1,
                b"extra" => 2,
                b"uid" => continue,
                _ => unusual(key, &["username", "groups", "extra"]).unwrap_or(usize::MAX),
            };
            match field {
                0 => user.username = Some(value),
                1 => user.groups = Some(value),
                2 => user.extra = Some(value),
                _ => {}
            }
        }
        user
    }
}

impl ObjectSpans {
    /// The order is that of the audit API's Go type.
    fn of(node: Option<Node<'_>>) -> ObjectSpans {
        let mut spans = [(0, 0); OBJECT_NAMES.len()];
        let Some(node) = node else { return ObjectSpans { spans, plain: true } };
        let mut expected = node.expected();
        let mut note = |field: usize, span: Option<(u32, u32)>| spans[field] = span.unwrap_or_default();
        note(1, expected.text(b"{\"resource\":\""));
        note(3, expected.text(b",\"namespace\":\""));
        note(4, expected.text(b",\"name\":\""));
        expected.text(b",\"uid\":\"");
        note(0, expected.text(b",\"apiGroup\":\""));
        expected.text(b",\"apiVersion\":\"");
        expected.text(b",\"resourceVersion\":\"");
        note(2, expected.text(b",\"subresource\":\""));
        let mut object = ObjectSpans { spans, plain: true };
        if expected.end().is_none() {
            expected.rest().for_each(|(key, value)| object.note(key, value));
        }
        object
    }

    fn note(&mut self, key: Key<'_>, value: Node<'_>) {
        let exact = OBJECT_NAMES.iter().position(|name| name.as_bytes() == key.raw());
        self.plain &= exact.is_some() || !is_spelling(key, &OBJECT_NAMES);
        if let Some(field) = exact.or_else(|| unusual(key, &OBJECT_NAMES)) {
            self.plain &= self.spans[field] == (0, 0);
            self.spans[field] = (value.start(), value.end());
        }
    }
}

#[allow(missing_docs)] // the audit API's field names
impl<'a> ObjectRef<'_, 'a> {
    #[inline]
    fn node(self, field: usize) -> Option<Node<'a>> {
        self.event.at(self.spans.spans[field])
    }

    /// True if its members are spelled as the API server spells them, so that every reader finds the same.
    pub fn is_plain(self) -> bool {
        self.spans.plain
    }

    #[inline]
    pub fn group(self) -> Option<Node<'a>> {
        self.node(0)
    }

    #[inline]
    pub fn resource(self) -> Option<Node<'a>> {
        self.node(1)
    }

    #[inline]
    pub fn subresource(self) -> Option<Node<'a>> {
        self.node(2)
    }

    #[inline]
    pub fn namespace(self) -> Option<Node<'a>> {
        self.node(3)
    }

    #[inline]
    pub fn name(self) -> Option<Node<'a>> {
        self.node(4)
    }
}

/// The key that these bytes spell exactly. By length first, so that each comparison is one or two of whole words.
#[rustfmt::skip]
fn top_named(raw: &[u8]) -> Option<Top> {
    Some(match raw.len() {
        3 => match raw {
            b"log" => Top::Log,
            _ => return None,
        },
        4 => match raw {
            b"kind" => Top::Kind,
            b"verb" => Top::Verb,
            b"user" => Top::User,
            b"rule" => Top::Rule,
            b"time" => Top::Time,
            b"tags" => Top::Tags,
            b"uuid" => Top::Uuid,
            b"_raw" => Top::Raw,
            b"line" => Top::Line,
            _ => return None,
        },
        5 => match raw {
            b"level" => Top::Level,
            b"stage" => Top::Stage,
            b"items" => Top::Items,
            b"event" => Top::EventText,
            _ => return None,
        },
        6 => match raw {
            b"output" => Top::Output,
            b"source" => Top::Source,
            b"schema" => Top::Schema,
            _ => return None,
        },
        7 => match raw {
            b"auditID" => Top::AuditId,
            b"message" => Top::Message,
            _ => return None,
        },
        8 => match raw {
            b"metadata" => Top::Metadata,
            b"priority" => Top::Priority,
            b"hostname" => Top::Hostname,
            _ => return None,
        },
        9 => match raw {
            b"sourceIPs" => Top::SourceIps,
            b"userAgent" => Top::UserAgent,
            b"objectRef" => Top::ObjectRef,
            b"timestamp" => Top::Timestamp,
            _ => return None,
        },
        10 => match raw {
            b"apiVersion" => Top::ApiVersion,
            b"requestURI" => Top::RequestUri,
            _ => return None,
        },
        11 => match raw {
            b"annotations" => Top::Annotations,
            _ => return None,
        },
        13 => match raw {
            b"requestObject" => Top::RequestObject,
            b"output_fields" => Top::OutputFields,
            _ => return None,
        },
        14 => match raw {
            b"responseStatus" => Top::ResponseStatus,
            b"responseObject" => Top::ResponseObject,
            b"stageTimestamp" => Top::StageTimestamp,
            _ => return None,
        },
        16 => match raw {
            b"impersonatedUser" => Top::ImpersonatedUser,
            _ => return None,
        },
        22 => match raw {
            b"authenticationMetadata" => Top::AuthenticationMetadata,
            _ => return None,
        },
        24 => match raw {
            b"requestReceivedTimestamp" => Top::RequestReceivedTimestamp,
            _ => return None,
        },
        _ => return None,
    })
}

/// True if a key spells one of `names` in some case, or may do so with escapes.
pub(crate) fn is_spelling(key: Key<'_>, names: &[&str]) -> bool {
    let raw = key.raw();
    raw.contains(&b'\\') || names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(raw))
}

/// Which of `names` a key spells with JSON escapes, or capitalised as Go's untagged structs are.
pub(crate) fn unusual(key: Key<'_>, names: &[&str]) -> Option<usize> {
    let raw = key.raw();
    let unusual = raw.first().is_some_and(u8::is_ascii_uppercase) || raw.contains(&b'\\');
    unusual.then(|| names.iter().position(|name| key.text().eq_ignore_ascii_case(name))).flatten()
}

/// What the values of an audit event's routing keys begin with. `null` stands for none.
const AUDIT_TYPES: &[(Top, u8)] = &[
    (Top::Level, b'"'),
    (Top::AuditId, b'"'),
    (Top::Stage, b'"'),
    (Top::RequestUri, b'"'),
    (Top::Verb, b'"'),
    (Top::User, b'{'),
    (Top::ImpersonatedUser, b'{'),
    (Top::UserAgent, b'"'),
    (Top::ObjectRef, b'{'),
    (Top::ResponseStatus, b'{'),
    (Top::Annotations, b'{'),
];

/// As [`AUDIT_TYPES`], of a Falco alert.
const FALCO_TYPES: &[(Top, u8)] =
    &[(Top::Rule, b'"'), (Top::Priority, b'"'), (Top::Source, b'"'), (Top::OutputFields, b'{')];

/// What the value of each key begins with, or zero, in [`Top`] order.
static OPENINGS: [u8; TOP_COUNT] = {
    let mut openings = [0; TOP_COUNT];
    let mut at = 0;
    while at < AUDIT_TYPES.len() {
        openings[AUDIT_TYPES[at].0 as usize] = AUDIT_TYPES[at].1;
        at += 1;
    }
    at = 0;
    while at < FALCO_TYPES.len() {
        openings[FALCO_TYPES[at].0 as usize] = FALCO_TYPES[at].1;
        at += 1;
    }
    openings
};

/// True if the value begins so, or if anything will do, or if the document ends before it.
#[inline]
fn begins_with(node: Node<'_>, opening: u8) -> bool {
    opening == 0 || node.doc().bytes().get(node.start() as usize).is_none_or(|first| *first == opening)
}

impl<'a> Event<'a> {
    /// Notes where the known members of `root` lie. The stream is audit until [`record`] says otherwise.
    pub fn skim(root: Node<'a>, settings: &'a Settings) -> Event<'a> {
        let mut event = Event::blank(root, settings);
        event.note_members();
        event
    }

    fn blank(root: Node<'a>, settings: &'a Settings) -> Event<'a> {
        Event {
            stream: Stream::Audit,
            damage: Damage::default(),
            settings,
            root,
            end: None,
            odd: false,
            spans: [(0, 0); TOP_COUNT],
            object_ref: OnceCell::new(),
            user: OnceCell::new(),
            views: OnceCell::new(),
            lens: Cell::new(Parts::ALL),
        }
    }

    /// Notes where the known members lie, once. They are expected in the order of the audit API's Go type.
    fn note_members(&mut self) {
        let mut expected = self.root.expected();
        let mut note =
            |top: Top, span: Option<(u32, u32)>| self.spans[top as usize] = span.unwrap_or_default();
        note(Top::Kind, expected.text(b"{\"kind\":\""));
        note(Top::ApiVersion, expected.text(b",\"apiVersion\":\""));
        note(Top::Level, expected.text(b",\"level\":\""));
        note(Top::AuditId, expected.text(b",\"auditID\":\""));
        note(Top::Stage, expected.text(b",\"stage\":\""));
        note(Top::RequestUri, expected.text(b",\"requestURI\":\""));
        note(Top::Verb, expected.text(b",\"verb\":\""));
        note(Top::User, expected.container(b",\"user\":{"));
        note(Top::ImpersonatedUser, expected.container(b",\"impersonatedUser\":{"));
        note(Top::SourceIps, expected.container(b",\"sourceIPs\":["));
        note(Top::UserAgent, expected.text(b",\"userAgent\":\""));
        note(Top::ObjectRef, expected.container(b",\"objectRef\":{"));
        note(Top::ResponseStatus, expected.container(b",\"responseStatus\":{"));
        note(Top::RequestObject, expected.container(b",\"requestObject\":{"));
        note(Top::ResponseObject, expected.container(b",\"responseObject\":{"));
        note(Top::RequestReceivedTimestamp, expected.text(b",\"requestReceivedTimestamp\":\""));
        note(Top::StageTimestamp, expected.text(b",\"stageTimestamp\":\""));
        note(Top::Annotations, expected.container(b",\"annotations\":{"));
        if let Some(end) = expected.end() {
            self.end = Some(end);
            return;
        }
        let mut members = expected.rest();
        for (key, value) in members.by_ref() {
            let index = match top_named(key.raw()) {
                Some(top) => top as usize,
                None => match unusual(key, &TOP_NAMES) {
                    Some(index) => index,
                    None => continue,
                },
            };
            self.damage.duplicate_key |= self.spans[index].1 != 0;
            self.odd |= !begins_with(value, OPENINGS[index]);
            self.spans[index] = (value.start(), value.end());
        }
        self.damage.syntax = members.damaged();
        self.end = members.end();
        self.damage.cut = self.end.is_none();
    }

    /// Leaves out values of a wrong type: what a key of the event's stream says in a foreign tongue is unknown, not absent.
    pub fn discard_wrong_types(&mut self) {
        if self.odd {
            self.discard_odd();
        }
        if self.stream == Stream::Audit {
            let mut object = ObjectSpans::of(self.node(Top::ObjectRef));
            for span in &mut object.spans {
                if self.at(*span).is_some_and(|node| !begins_with(node, b'"') && !node.is_null()) {
                    (*span, self.damage.types) = ((0, 0), true);
                }
            }
            self.object_ref = OnceCell::from(object);
        }
    }

    #[cold]
    fn discard_odd(&mut self) {
        let keys = match self.stream {
            Stream::Audit => AUDIT_TYPES,
            Stream::Falco => FALCO_TYPES,
        };
        for (key, opening) in keys {
            if self.node(*key).is_some_and(|node| !begins_with(node, *opening) && !node.is_null()) {
                (self.spans[*key as usize], self.damage.types) = ((0, 0), true);
            }
        }
    }

    /// The known keys that stand more than once.
    pub fn repeated(&self) -> Vec<&'static str> {
        let keys = (0..TOP_COUNT).filter(|index| self.spans[*index].1 != 0).map(|index| TOP_NAMES[index]);
        keys.filter(|name| {
            let named = |key: Key<'_>| key.is(name) || unusual(key, &[name]).is_some();
            self.root.members().filter(|(key, _)| named(*key)).count() > 1
        })
        .collect()
    }

    /// Parsed bodies and commands that several facts share.
    pub fn views(&self) -> &Views<'a> {
        self.views.get_or_init(Box::default)
    }

    /// True if a fact that was asked for is not known because a bound was hit.
    pub(crate) fn bound_hit(&self) -> bool {
        self.views.get().is_some_and(|views| views.bound_hit())
    }

    /// The same event, of which nobody has asked anything.
    pub(crate) fn unasked(&self) -> Event<'a> {
        Event {
            object_ref: self.object_ref.clone(),
            user: self.user.clone(),
            views: OnceCell::new(),
            lens: Cell::new(Parts::ALL),
            ..*self
        }
    }

    /// True if facts may look at all of `parts`.
    pub fn sees(&self, parts: Parts) -> bool {
        parts.within(self.lens.get())
    }

    /// The offset after the record's closing bracket; nothing if the document ends before it.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// The whole record.
    pub fn root(&self) -> Node<'a> {
        self.root
    }

    /// The value of a top-level key.
    #[inline]
    pub fn node(&self, key: Top) -> Option<Node<'a>> {
        self.at(self.spans[key as usize])
    }

    /// The value with this span, if it is none of zeros.
    #[inline]
    fn at(&self, (start, end): (u32, u32)) -> Option<Node<'a>> {
        (end != 0).then(|| self.root.doc().node_at(start, end))
    }

    /// All values of a top-level key, if it stands there more than once: as Go's decoder finds them, `Items` is one, too.
    pub fn every(&self, key: Top) -> impl Iterator<Item = Node<'a>> {
        let named = move |name: Key<'_>| match top_named(name.raw()) {
            Some(top) => top == key,
            None => unusual(name, &[TOP_NAMES[key as usize]]).is_some(),
        };
        self.root.members().filter(move |(name, _)| named(*name)).map(|(_, value)| value)
    }

    /// True if the key is there (even as `null`).
    #[inline]
    pub fn has(&self, key: Top) -> bool {
        self.spans[key as usize].1 != 0
    }

    /// The decoded text of a top-level string.
    pub fn text(&self, key: Top) -> Option<Cow<'a, str>> {
        self.node(key)?.text()
    }

    /// The undecoded bytes between the quotes of a top-level string.
    #[inline]
    pub fn raw(&self, key: Top) -> Option<&'a [u8]> {
        self.node(key)?.str_raw()
    }

    /// `objectRef`.
    pub fn object_ref(&self) -> ObjectRef<'_, 'a> {
        let spans = self.object_ref.get_or_init(|| ObjectSpans::of(self.node(Top::ObjectRef)));
        ObjectRef { event: self, spans }
    }

    /// `user`.
    pub fn user(&self) -> &User<'a> {
        self.user.get_or_init(|| User::of(self.node(Top::User)))
    }

    /// `impersonatedUser`, if the request was impersonated.
    pub fn impersonated(&self) -> Option<User<'a>> {
        let node = self.node(Top::ImpersonatedUser)?;
        (!node.is_null()).then(|| User::of(Some(node)))
    }

    /// A member of `responseStatus`: the last that is spelled so, or as Go's untagged structs are.
    pub fn status(&self, name: &str) -> Option<Node<'a>> {
        let named = |key: Key<'_>| key.is(name) || unusual(key, &[name]).is_some();
        self.node(Top::ResponseStatus)?
            .members()
            .filter(|(key, _)| named(*key))
            .last()
            .map(|(_, value)| value)
    }

    /// True if the API server took the bodies out because the event was too large for its backend.
    pub fn truncated(&self) -> bool {
        self.annotation("audit.k8s.io/truncated").and_then(Node::text).is_some_and(|text| text == "true")
    }

    /// An annotation by its full key.
    pub fn annotation(&self, key: &str) -> Option<Node<'a>> {
        self.node(Top::Annotations)?.get(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::{Doc, Marks};

    /// Members in the usual order, some left out, some twice, some of another type or spelling, some bent.
    fn members(names: &'static [&'static str]) -> impl Strategy<Value = String> {
        let value = prop_oneof![
            4 => "[a-z{},:\\[\\]]{0,70}".prop_map(|text| format!("\"{text}\"")),
            1 => Just("null".to_owned()),
            1 => Just(r#""a\"b\\""#.to_owned()),
            2 => Just(r#"{"kind":"x"}"#.to_owned()),
            2 => Just(r#"["a",{"b":"}]"}]"#.to_owned()),
            1 => Just("{}".to_owned()),
            1 => Just("17".to_owned()),
        ];
        let comma = prop_oneof![12 => Just(","), 1 => Just(", "), 1 => Just(",,"), 1 => Just("")];
        let member = move |name: &'static str| {
            let value = value.clone();
            let spelled = prop_oneof![
                12 => Just(format!("\"{name}\":")),
                1 => Just(format!("\"{name}\" : ")),
                1 => Just(format!("\"{}{}\":", name[..1].to_uppercase(), &name[1..])),
                1 => Just("\"other\":".to_owned()),
            ];
            (spelled, value, comma.clone(), 0..8_u8).prop_map(|(name, value, comma, times)| match times {
                0 => String::new(),
                1 => format!("{name}{value}{comma}{name}{value}{comma}"),
                _ => format!("{name}{value}{comma}"),
            })
        };
        let all: Vec<_> = names.iter().map(|name| member(name)).collect();
        (all, any::<prop::sample::Index>(), 0..3_u8).prop_map(|(members, cut, whole)| {
            let mut text = format!("{{{}", members.concat());
            if text.ends_with(',') {
                text.pop();
            }
            text.push('}');
            text.truncate(if whole == 0 { cut.index(text.len()) + 1 } else { text.len() });
            text
        })
    }

    /// The spans of the last members of these names, as the walk without expectations finds them.
    fn walked<const N: usize>(node: Node<'_>, names: [&str; N]) -> [(u32, u32); N] {
        names.map(|name| {
            let is = |key: &Key<'_>| key.raw() == name.as_bytes() || unusual(*key, &[name]).is_some();
            let last = node.members().filter(|(key, _)| is(key)).last();
            last.map_or((0, 0), |(_, value)| (value.start(), value.end()))
        })
    }

    proptest! {
        #[test]
        fn what_is_expected_is_found_as_what_is_not(text in members(&TOP_NAMES[..=Top::Annotations as usize])) {
            let mut marks = Marks::new();
            marks.mark(text.as_bytes());
            let root = Doc::new(text.as_bytes(), &marks).root().unwrap();
            let settings = Settings::default();
            let event = Event::skim(root, &settings);
            prop_assert_eq!(event.spans, walked(root, TOP_NAMES));
            let mut all = root.members();
            all.by_ref().for_each(drop);
            prop_assert_eq!((event.damage.syntax, event.end), (all.damaged(), all.end()));
        }

        #[test]
        fn members_of_an_object_reference_are_found_in_any_order(
            text in members(&["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"])
        ) {
            let mut marks = Marks::new();
            marks.mark(text.as_bytes());
            let root = Doc::new(text.as_bytes(), &marks).root().unwrap();
            prop_assert_eq!(ObjectSpans::of(Some(root)).spans, walked(root, OBJECT_NAMES));
        }
    }
}
