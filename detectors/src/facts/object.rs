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
//! Each step is linear in the bytes of the view and the number of steps is fixed by the facts: that bounds the work by the
//! size of the event. Lists are visited item by item; what is kept of them is bounded ([`LIMIT`]), far above what the API
//! server stores, and a bound that is hit is noted ([`Bounds`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::shape::{Shape, sees_rest, text};
use super::views::Bounds;
use crate::event::{Event, Top};
use crate::scan::{Kind, Node};
use crate::value::{Tri, Value};

/// Items that are kept of one list; what would be more is unknown.
pub(super) const LIMIT: usize = 1 << 16;

/// From how many words on a set pays.
const MANY: usize = 16;

/// Operations of a patch. The API server refuses more than 10000.
const OPERATIONS: usize = 10_000;

/// Steps of an operation's path.
const DEEPEST: usize = 64;

/// Steps of all of them.
const STEPS: usize = 1 << 17;

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
        body => {
            let views = event.views();
            let object = views.object.get_or_init(|| View::root(body, views.bounds()));
            object.as_ref().ok_or(Value::Unknown)
        }
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
    pub(super) bounds: Bounds,
}

/// The items of a list.
#[derive(Debug, Clone)]
pub(super) struct Items<'a> {
    pub(super) views: Vec<View<'a>>,
    /// True if the list may have items that can't be seen.
    pub(super) partial: bool,
}

/// Different texts, some of which may be missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Words<'a> {
    pub(super) items: Vec<Cow<'a, str>>,
    pub(super) partial: bool,
    /// The same as `items`, of many.
    set: Option<HashSet<Cow<'a, str>, RandomState>>,
}

impl<'a> View<'a> {
    /// The object itself; `None` if there is none or none can be seen.
    fn root(body: Body<'a>, bounds: &Bounds) -> Option<View<'a>> {
        let of = |node, form, complete| View {
            pieces: vec![Piece::at(node)],
            form,
            complete,
            bounds: bounds.clone(),
        };
        match body {
            Body::Absent | Body::Unknown => None,
            Body::Whole(node) => Some(of(node, Form::Whole, node.complete())),
            Body::Fragment(node) => Some(of(node, Form::Fragment, false)),
            Body::Ops(node) => Some(View::of_operations(node, bounds)),
        }
    }

    fn of_operations(ops: Node<'a>, bounds: &Bounds) -> View<'a> {
        let (mut pieces, mut moved, mut left) = (Vec::new(), false, STEPS);
        for (place, op) in ops.items().enumerate() {
            if place == OPERATIONS {
                bounds.hit();
                moved = true;
                break;
            }
            let name = text(op.get("op")).unwrap_or_default();
            match (&*name, op.get("path").and_then(Node::text), op.get("value")) {
                // The API server finds no place for a path without a slash, and refuses the patch.
                ("add" | "replace", Some(path), _) if !path.is_empty() && !path.contains('/') => {}
                ("add" | "replace", Some(path), Some(node)) => {
                    let Some(steps) = pointer(&path, left.min(DEEPEST)) else {
                        bounds.hit();
                        moved = true;
                        continue;
                    };
                    left -= steps.len();
                    pieces.push(Piece { node, path: Some(steps), depth: 0 });
                }
                ("test" | "remove", ..) => {}
                _ => moved = true,
            }
        }
        let complete = !moved && pieces.iter().any(|piece| piece.next().is_none());
        View { pieces, form: Form::Ops { moved }, complete, bounds: bounds.clone() }
    }

    /// A view of the same object.
    fn with(&self, pieces: Vec<Piece<'a>>, complete: bool) -> View<'a> {
        View { pieces, form: self.form, complete, bounds: self.bounds.clone() }
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
        self.with(pieces, complete)
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

    /// The items of the list at this place, at most [`LIMIT`]. They are objects: anything else says nothing.
    pub(super) fn items(&self, merge: Merge) -> Items<'a> {
        let (mut views, mut cut) = (Vec::new(), false);
        let partial = self.each(merge, |view| {
            if views.len() < LIMIT {
                views.push(view);
            } else {
                cut = true;
            }
        });
        if cut {
            self.bounds.hit();
        }
        Items { views, partial: partial || cut }
    }

    /// Visits the items of the list at this place, however many; true if there may be more.
    pub(super) fn each(&self, merge: Merge, mut visit: impl FnMut(View<'a>)) -> bool {
        let mut grouped: BTreeMap<&str, Vec<Piece<'a>>> = BTreeMap::new();
        let mut complete = self.complete;
        for piece in &self.pieces {
            match piece.next() {
                None if piece.node.kind() == Kind::Array => {
                    complete = self.each_in(piece.node, merge, &mut visit);
                }
                None => {}
                // An operation on the item itself: `add` inserts, so two at one index are two items.
                Some(_) if piece.step().next().is_none() => {
                    visit(self.with(vec![Piece::at(piece.node)], self.all_of(piece.node)));
                }
                Some(index) => grouped.entry(index).or_default().push(piece.step()),
            }
        }
        for pieces in grouped.into_values() {
            visit(self.with(pieces, false));
        }
        !complete
    }

    /// Visits the items of an array; true if they are all that the list has.
    fn each_in(&self, array: Node<'a>, merge: Merge, visit: &mut impl FnMut(View<'a>)) -> bool {
        let fragment = self.form == Form::Fragment;
        let atomic = merge == Merge::Atomic || self.complete;
        let mut items = array.items();
        for item in items.by_ref() {
            // Millions of brackets with nothing between them are quickly passed.
            if item.raw().len() <= "{}".len() || item.kind() != Kind::Object {
                continue;
            }
            if fragment && is_directive(item) {
                continue;
            }
            let complete = if fragment { atomic && item.complete() } else { self.all_of(item) };
            visit(self.with(vec![Piece::at(item)], complete));
        }
        let whole = if fragment { atomic } else { self.form != Form::Ops { moved: true } };
        whole && array.complete() && !items.damaged()
    }

    /// Visits the members of the object at this place, however many; true if there may be more. Members that a patch
    /// deletes are left out.
    pub(super) fn each_member(&self, mut visit: impl FnMut(Cow<'a, str>, View<'a>)) -> bool {
        let mut partial = !self.complete;
        for piece in &self.pieces {
            if let Some(name) = piece.next() {
                let step = piece.step();
                let complete = step.next().is_none() && self.all_of(step.node);
                visit(Cow::Owned(name.to_owned()), self.with(vec![step], complete));
                continue;
            }
            let mut members = piece.node.members();
            for (key, node) in members.by_ref().filter(|(_, node)| !node.is_null()) {
                visit(key.text(), self.with(vec![Piece::at(node)], self.all_of(node)));
            }
            partial |= members.damaged();
        }
        partial
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
        self.here().filter_map(Node::as_whole).last().map_or_else(|| self.nothing(), Value::Int)
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

    /// The different texts of a list of scalars, at most [`LIMIT`], and a `*` in any case.
    pub(super) fn words(&self) -> Words<'a> {
        let (mut words, mut cut) = (Words::default(), false);
        let partial = self.each_text(|text| cut |= !words.add(text));
        words.partial = partial || cut;
        if cut {
            self.bounds.hit();
        }
        words
    }

    /// Adds the texts of a list of scalars to a line, joined by spaces; true if there may be more.
    pub(super) fn join_onto(&self, line: &mut Option<String>) -> bool {
        self.each_text(|text| match line {
            Some(line) => {
                line.push(' ');
                line.push_str(&text);
            }
            None => *line = Some(text.into_owned()),
        })
    }

    /// Visits the texts of a list of scalars; true if there may be more.
    fn each_text(&self, mut visit: impl FnMut(Cow<'a, str>)) -> bool {
        let mut partial = !self.complete;
        for piece in &self.pieces {
            if piece.next().is_some() {
                // An operation on one item; what lies deeper is no text.
                let text = piece.node.text().filter(|_| piece.step().next().is_none());
                text.into_iter().for_each(&mut visit);
                continue;
            }
            let mut items = piece.node.items();
            items.by_ref().filter_map(Node::text).for_each(&mut visit);
            if piece.node.kind() == Kind::Array {
                let seen = self.form != Form::Ops { moved: true } && !items.damaged();
                partial = !seen || !piece.node.complete();
            }
        }
        partial
    }
}

impl<'a> Words<'a> {
    /// Adds a text unless it is there; false if there is no room for it.
    pub(super) fn add(&mut self, word: Cow<'a, str>) -> bool {
        if self.has(&word) {
            return true;
        }
        if self.items.len() >= LIMIT && word != "*" {
            return false;
        }
        if self.items.len() == MANY {
            self.set = Some(self.items.iter().cloned().collect());
        }
        if let Some(set) = &mut self.set {
            set.insert(word.clone());
        }
        self.items.push(word);
        true
    }

    /// True if one of the texts is `wanted`.
    pub(super) fn has(&self, wanted: &str) -> bool {
        match &self.set {
            Some(set) => set.contains(wanted),
            None => self.items.iter().any(|item| item == wanted),
        }
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

/// The steps of a JSON pointer (RFC 6901); `None` if there are more than `limit`. What stands before the first slash is
/// passed over, as github.com/evanphx/json-patch does for the API server: `x/subjects` writes where `/subjects` does.
fn pointer(path: &str, limit: usize) -> Option<Rc<[String]>> {
    let steps = || path.split('/').skip(1);
    let shallow = steps().nth(limit).is_none();
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
