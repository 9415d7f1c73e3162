//! The object that a request wrote, as far as the event shows it: whole, or what a patch mentions.
//!
//! A [`View`] is a place in that object. Walking it (`key`, `items`, `members`) works alike on a whole object, on a partial
//! one (merge patch, strategic merge patch, server-side apply) and on JSON Patch operations, whose paths are continued into
//! their values. A view knows whether everything below it can be seen ([`View::complete`]): what is then not found is
//! absent, otherwise unknown.
//!
//! JSON Patch is read without replaying it: a place that several operations wrote has all their values, so nothing that
//! was written can be hidden by a later operation of the same patch. Operations that fetch values from elsewhere (`move`,
//! `copy`) make the whole view incomplete.
//!
//! Each step is linear in the bytes of the view, the number of steps is fixed by the facts, and lists stop at [`LIMIT`]
//! items: that bounds the work by the size of the event.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::shape::{Shape, sees_rest, text};
use crate::event::{Event, Top};
use crate::scan::{Kind, Node};
use crate::value::{Tri, Value};

/// Items that are read of one list; behind them the list is incomplete.
pub(super) const LIMIT: usize = 4096;

/// Steps of an operation's path.
const DEEPEST: usize = 64;

/// The object that a request wrote.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    /// The request writes no object.
    Absent,
    /// It writes one, which the event does not show.
    Unknown,
    /// The whole object.
    Whole(Node<'a>),
    /// A partial object: merge patch, strategic merge patch or server-side apply. Nothing in the event tells them apart.
    Fragment(Node<'a>),
    /// JSON Patch operations.
    Ops(Node<'a>),
}

impl<'a> Body<'a> {
    /// The event's object.
    pub(super) fn of(event: &Event<'a>) -> Body<'a> {
        let shape = Shape::of(event);
        if !(shape.stores() || shape.deletes()) || shape.proxied().is_some() || shape.entry().is_some() {
            return Body::Absent;
        }
        if !sees_rest(event) {
            return Body::Unknown;
        }
        *event.views().body.get_or_init(|| select(event, shape))
    }
}

/// The object that the event wrote, or what its facts are without one.
pub(super) fn object<'e, 'a>(event: &'e Event<'a>) -> Result<&'e View<'a>, Value<'a>> {
    match Body::of(event) {
        Body::Absent => Err(Value::Absent),
        Body::Unknown => Err(Value::Unknown),
        body => event.views().object.get_or_init(|| View::root(body)).as_ref().ok_or(Value::Unknown),
    }
}

/// `responseObject`, unless it is no such object; else `requestObject` of a create or update; else the patch.
fn select<'a>(event: &Event<'a>, shape: &Shape<'_>) -> Body<'a> {
    if event.truncated() || event.damage.oversize {
        return Body::Unknown;
    }
    let stored = event.node(Top::ResponseObject).filter(|node| node.kind() == Kind::Object);
    if let Some(object) = stored.filter(|node| is_the_object(*node)) {
        return Body::Whole(object);
    }
    let Some(request) = event.node(Top::RequestObject) else { return Body::Unknown };
    // Server-side apply creates with verb patch and code 201; then the patch is all there is.
    let created = super::shape::code(event) == Some(201);
    match (&*shape.verb, request.kind()) {
        ("create" | "update", Kind::Object) => Body::Whole(request),
        ("patch", Kind::Object) if created => Body::Whole(request),
        ("patch", Kind::Object) => Body::Fragment(request),
        ("patch", Kind::Array) => Body::Ops(request),
        _ => Body::Unknown, // a delete sends DeleteOptions
    }
}

/// False for what a response may hold instead of the stored object.
fn is_the_object(response: Node<'_>) -> bool {
    match text(response.get("kind")).as_deref() {
        Some("Status" | "Table" | "PartialObjectMetadata") => false,
        Some(kind) => !(kind.ends_with("List") && response.get("items").is_some()),
        None => true,
    }
}

/// How patches treat a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// By key: a partial object mentions some items, and of them some fields (containers, volumes, env).
    ByKey,
    /// Not at all: a partial object that mentions the list gives all of it (rules, subjects, scalars).
    Atomic,
}

/// How the object is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Fragment,
    /// `moved`: some operation's value can't be seen.
    Ops {
        moved: bool,
    },
}

/// A value at or below a view's place: at the end of `path[depth..]`.
#[derive(Debug, Clone)]
struct Piece<'a> {
    node: Node<'a>,
    path: Option<Rc<[String]>>,
    depth: usize,
}

impl<'a> Piece<'a> {
    /// A value at the view's place itself.
    fn at(node: Node<'a>) -> Piece<'a> {
        Piece { node, path: None, depth: 0 }
    }

    /// The next step from the view's place towards the value; `None` if it lies there.
    fn next(&self) -> Option<&str> {
        self.path.as_ref()?.get(self.depth).map(String::as_str)
    }

    fn step(&self) -> Piece<'a> {
        Piece { depth: self.depth + 1, ..self.clone() }
    }
}

/// A place in the object.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    pieces: Vec<Piece<'a>>,
    form: Form,
    /// True if everything at and below this place can be seen.
    pub(super) complete: bool,
}

/// The items of a list.
#[derive(Debug, Clone)]
pub(super) struct Items<'a> {
    pub(super) views: Vec<View<'a>>,
    /// True if the list may have items that can't be seen.
    pub(super) partial: bool,
}

/// Texts, some of which may be missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Words<'a> {
    pub(super) items: Vec<Cow<'a, str>>,
    pub(super) partial: bool,
}

impl<'a> View<'a> {
    /// The object itself; `None` if there is none or none can be seen.
    fn root(body: Body<'a>) -> Option<View<'a>> {
        match body {
            Body::Absent | Body::Unknown => None,
            Body::Whole(node) => {
                Some(View { pieces: vec![Piece::at(node)], form: Form::Whole, complete: node.complete() })
            }
            Body::Fragment(node) => {
                Some(View { pieces: vec![Piece::at(node)], form: Form::Fragment, complete: false })
            }
            Body::Ops(node) => Some(View::of_operations(node)),
        }
    }

    fn of_operations(ops: Node<'a>) -> View<'a> {
        let (mut pieces, mut moved) = (Vec::new(), false);
        for (place, op) in ops.items().enumerate() {
            if place == LIMIT {
                moved = true;
                break;
            }
            let name = text(op.get("op")).unwrap_or_default();
            match (&*name, op.get("path").and_then(Node::text), op.get("value")) {
                ("add" | "replace", Some(path), Some(node)) => match pointer(&path) {
                    Some(steps) => pieces.push(Piece { node, path: Some(steps), depth: 0 }),
                    None => moved = true,
                },
                ("test" | "remove", ..) => {}
                _ => moved = true,
            }
        }
        let complete = !moved && pieces.iter().any(|piece| piece.next().is_none());
        View { pieces, form: Form::Ops { moved }, complete }
    }

    /// The values that lie at this place itself.
    fn here(&self) -> impl Iterator<Item = Node<'a>> + '_ {
        self.pieces.iter().filter(|piece| piece.next().is_none()).map(|piece| piece.node)
    }

    /// The member of that name.
    pub(super) fn key(&self, name: &str) -> View<'a> {
        let mut pieces = Vec::new();
        let mut complete = self.complete;
        for piece in &self.pieces {
            let found = match piece.next() {
                Some(step) if step == name => piece.step(),
                Some(_) => continue,
                None => {
                    let (member, damaged) = member(piece.node, name);
                    complete &= !damaged;
                    let Some(node) = member else { continue };
                    Piece::at(node)
                }
            };
            if found.next().is_none() {
                complete = self.all_of(found.node);
                // A null takes the value away (in a patch) or never was one.
                if found.node.is_null() {
                    continue;
                }
            }
            pieces.push(found);
        }
        View { pieces, form: self.form, complete }
    }

    /// The place at the end of these keys.
    pub(super) fn path(&self, keys: &[&str]) -> View<'a> {
        let Some((first, rest)) = keys.split_first() else { return self.clone() };
        rest.iter().fold(self.key(first), |view, key| view.key(key))
    }

    /// True if `node`, a value below this place, is all that there is at its own place.
    fn all_of(&self, node: Node<'a>) -> bool {
        let whole = || match self.form {
            Form::Whole | Form::Ops { moved: false } => true,
            Form::Ops { moved: true } => false,
            Form::Fragment => match node.kind() {
                Kind::Object => self.complete || text(node.get("$patch")).is_some_and(|how| how == "replace"),
                Kind::Array => self.complete,
                _ => true,
            },
        };
        node.complete() && whole()
    }

    /// The items of the list at this place that stand behind [`LIMIT`] and may hold a `*`.
    pub(super) fn stars_behind_limit(&self) -> impl Iterator<Item = View<'a>> + '_ {
        let behind = self.here().flat_map(|node| node.items().skip(LIMIT));
        // A patch may spell it as an escape.
        let starred = behind.filter(|node| memchr::memchr2(b'*', b'\\', node.raw()).is_some());
        starred.map(|node| View { pieces: vec![Piece::at(node)], form: self.form, complete: true })
    }

    /// The items of the list at this place.
    pub(super) fn items(&self, merge: Merge) -> Items<'a> {
        let mut views = Vec::new();
        let mut grouped: BTreeMap<&str, Vec<Piece<'a>>> = BTreeMap::new();
        let mut complete = self.complete;
        for piece in &self.pieces {
            match piece.next() {
                None if piece.node.kind() == Kind::Array => {
                    complete = self.array_items(piece.node, merge, &mut views);
                }
                None => {}
                // An operation on the item itself: `add` inserts, so two at one index are two items.
                Some(_) if piece.step().next().is_none() => {
                    let node = piece.node;
                    let complete = self.all_of(node);
                    views.push(View { pieces: vec![Piece::at(node)], form: self.form, complete });
                }
                Some(index) => grouped.entry(index).or_default().push(piece.step()),
            }
        }
        let parts = grouped.into_values();
        views.extend(parts.map(|pieces| View { pieces, form: self.form, complete: false }));
        Items { views, partial: !complete }
    }

    /// Adds the items of an array; true if they are all that the list has.
    fn array_items(&self, array: Node<'a>, merge: Merge, views: &mut Vec<View<'a>>) -> bool {
        let fragment = self.form == Form::Fragment;
        let atomic = merge == Merge::Atomic || self.complete;
        let mut items = array.items();
        for item in items.by_ref() {
            if views.len() >= LIMIT {
                return false;
            }
            if fragment && is_directive(item) {
                continue;
            }
            let complete = if fragment { atomic && item.complete() } else { self.all_of(item) };
            views.push(View { pieces: vec![Piece::at(item)], form: self.form, complete });
        }
        let whole = if fragment { atomic } else { self.form != Form::Ops { moved: true } };
        whole && array.complete() && !items.damaged()
    }

    /// The members of the object at this place, and whether there may be more. Members that a patch deletes are left out.
    pub(super) fn members(&self) -> (Vec<(Cow<'a, str>, View<'a>)>, bool) {
        let mut found = Vec::new();
        let mut partial = !self.complete;
        for piece in &self.pieces {
            if let Some(name) = piece.next() {
                let step = piece.step();
                let complete = step.next().is_none() && self.all_of(step.node);
                let name = Cow::Owned(name.to_owned());
                found.push((name, View { pieces: vec![step], form: self.form, complete }));
                continue;
            }
            let mut members = piece.node.members();
            for (key, node) in members.by_ref().filter(|(_, node)| !node.is_null()) {
                if found.len() == LIMIT {
                    partial = true;
                    break;
                }
                let complete = self.all_of(node);
                let view = View { pieces: vec![Piece::at(node)], form: self.form, complete };
                found.push((key.text(), view));
            }
            partial |= members.damaged();
        }
        (found, partial)
    }

    /// True if something is here or below; unknown if nothing is seen but might be there.
    pub(super) fn exists(&self) -> Tri {
        match (self.pieces.iter().any(|piece| !piece.node.is_null()), self.complete) {
            (true, _) => Tri::True,
            (false, true) => Tri::False,
            (false, false) => Tri::Unknown,
        }
    }

    /// True if the value here is `true`; false if it is anything else or absent.
    pub(super) fn truth(&self) -> Tri {
        match (self.here().any(|node| node.as_bool() == Some(true)), self.complete) {
            (true, _) => Tri::True,
            (false, true) => Tri::False,
            (false, false) => Tri::Unknown,
        }
    }

    /// The text here, the last one if several operations wrote it.
    pub(super) fn str(&self) -> Option<Cow<'a, str>> {
        self.here().filter_map(|node| text(Some(node))).last()
    }

    /// The text here as a fact's value.
    pub(super) fn text(&self) -> Value<'a> {
        self.str().map_or_else(|| self.nothing(), Value::Text)
    }

    /// The whole number here.
    pub(super) fn int(&self) -> Value<'a> {
        self.here().filter_map(Node::as_i64).last().map_or_else(|| self.nothing(), Value::Int)
    }

    /// What it means that nothing was found here.
    pub(super) fn nothing(&self) -> Value<'a> {
        if self.complete { Value::Absent } else { Value::Unknown }
    }

    /// True if some text here is `wanted`.
    pub(super) fn is(&self, wanted: &str) -> Tri {
        match (self.here().any(|node| node.text().is_some_and(|text| text == wanted)), self.complete) {
            (true, _) => Tri::True,
            (false, true) => Tri::False,
            (false, false) => Tri::Unknown,
        }
    }

    /// The texts of a list of scalars. An item `*` behind the limit is still found.
    pub(super) fn words(&self) -> Words<'a> {
        let mut words = Words { items: Vec::new(), partial: !self.complete };
        let (mut starred, mut overflow) = (false, false);
        for piece in &self.pieces {
            if piece.next().is_some() {
                // An operation on one item; what lies deeper is no text.
                words.items.extend(piece.node.text().filter(|_| piece.step().next().is_none()));
                continue;
            }
            let mut items = piece.node.items();
            for word in items.by_ref().filter_map(Node::text) {
                let star = word == "*";
                if words.items.len() < LIMIT || (star && !starred) {
                    words.items.push(word);
                } else {
                    overflow = true;
                }
                starred |= star;
            }
            if piece.node.kind() == Kind::Array {
                let seen = self.form != Form::Ops { moved: true } && !items.damaged();
                words.partial = !seen || !piece.node.complete();
            }
        }
        words.partial |= overflow;
        words
    }
}

impl<'a> Words<'a> {
    /// True if one of the texts is `wanted`.
    pub(super) fn has(&self, wanted: &str) -> bool {
        self.items.iter().any(|item| item == wanted)
    }

    /// The texts as a fact's value.
    pub(super) fn value(self) -> Value<'a> {
        Value::list_of(self.items.into_iter().map(Value::Text).collect(), self.partial)
    }
}

/// The last member of that name, and whether the object is too damaged to tell.
fn member<'a>(object: Node<'a>, name: &str) -> (Option<Node<'a>>, bool) {
    let mut members = object.members();
    let found = members.by_ref().filter(|(key, _)| key.is(name)).last();
    (found.map(|(_, value)| value), members.damaged())
}

/// True for a list item of a strategic merge patch that deletes an item or directs the merge. Such an item has nothing but
/// the directive and the item's key; one with more is taken for an item, because in other patches `$patch` means nothing.
fn is_directive(item: Node<'_>) -> bool {
    item.kind() == Kind::Object && item.get("$patch").is_some() && item.members().count() <= 2
}

/// The steps of a JSON pointer (RFC 6901); `None` if it is deeper than any field that facts look at.
fn pointer(path: &str) -> Option<Rc<[String]>> {
    let steps = || path.split('/').skip(1);
    let shallow = steps().nth(DEEPEST).is_none();
    shallow.then(|| steps().map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

/// A truth as a fact's value.
pub(super) fn truth<'a>(tri: Tri) -> Value<'a> {
    match tri {
        Tri::True => Value::Bool(true),
        Tri::False => Value::Bool(false),
        Tri::Unknown => Value::Unknown,
    }
}
