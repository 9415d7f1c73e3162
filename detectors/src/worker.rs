//! One thread's judge: from bytes to alerts and steps.
//!
//! A record is skimmed, told by its content, looked up in the index by its routing keys, and only the programs that are
//! left standing are evaluated. Everything here is reused from record to record; nothing is shared with other threads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memmem;

use crate::engine::{Emitted, Engine, Extent, Origin};
use crate::event::frame::Frame;
use crate::event::pieces::{self, Piece};
use crate::event::record::{self, Nature};
use crate::event::time::{self, Clock, Nanos, SECOND};
use crate::event::{Damage, Event, Stream, Top};
use crate::facts::{self, Parts};
use crate::index::{self, Decided, Lookup, Mask, Table};
use crate::judge::{self, Case, Digests};
use crate::program::Memo;
use crate::scan::{Doc, Health, Kind, Marks, Node, unescape};
use crate::tally::{AUDIT_LEVELS, Dimension, Format, MAX_SAMPLES, Sample, Tally};

/// One thread's judge: buffers, memo tables and counters.
pub struct Worker<'e> {
    engine: &'e Engine,
    marks: Marks,
    /// What is being judged stands by itself, and is not to be judged if it is a list or more than one value.
    alone: bool,
    /// NULs between records are records that are no events.
    nuls_are_bad: bool,
    carried: Marks,
    routes: Routes,
    counts: Counts,
    memo: Memo<'static>,
    clock: Clock,
    digests: Digests,
    indexed: bool,
}

/// The index tables and the scratch that lookups use.
struct Routes {
    shapes: Table<()>,
    clients: Table<Client>,
    notes: Table<()>,
    names: Table<()>,
    /// The entries of the present event's shape and client.
    shape: Option<u32>,
    client: Option<u32>,
    rules: Table<()>,
    key: Vec<u8>,
    live: Mask,
}

/// What is kept with a client: whom its events count for, and how many came since the last drain.
#[derive(Debug)]
struct Client {
    actor: String,
    source: String,
    events: u64,
}

/// Counters since they were last taken.
#[derive(Default)]
struct Counts {
    tally: Tally,
    /// How many records that are no events are shown.
    samples: usize,
    /// True if it is not counted who was busy.
    unprofiled: bool,
    formats: [u64; FORMATS.len()],
    minute: Option<(i64, Nanos, Nanos)>,
    /// Clients with events since the last drain.
    active: Vec<u32>,
    profile: BTreeMap<(Dimension, String), u64>,
    namespaces: hashbrown::HashMap<Box<[u8]>, u64, foldhash::fast::RandomState>,
}

const FORMATS: [Format; 7] = [
    Format::Audit,
    Format::AuditList,
    Format::AuditCarried,
    Format::Falco,
    Format::FalcoCarried,
    Format::LapwingAlert,
    Format::Unrecognized,
];

/// How a record reached us. Two lists and one carrier are looked into, in any order, and no more: depth is the sender's. (The
/// outer list may be one that was never closed, with whole lists in the lines below it.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Via {
    lists: u8,
    carried: bool,
}

impl Via {
    const ITSELF: Via = Via { lists: 0, carried: false };

    fn listed(self) -> Via {
        Via { lists: self.lists + 1, ..self }
    }

    fn carried(self) -> Via {
        Via { carried: true, ..self }
    }
}

/// A record's place: what evidence says of it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'i> {
    pub(crate) input: &'i str,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The record's bytes as they stand in the input.
    pub(crate) bytes: &'i [u8],
}

impl<'e> Worker<'e> {
    pub(crate) fn new(engine: &'e Engine) -> Self {
        Worker {
            engine,
            marks: Marks::new(),
            alone: false,
            nuls_are_bad: false,
            carried: Marks::new(),
            routes: Routes {
                shapes: Table::default(),
                clients: Table::default(),
                notes: Table::default(),
                names: Table::default(),
                shape: None,
                client: None,
                rules: Table::default(),
                key: Vec::with_capacity(1024),
                live: index::empty(engine.programs()),
            },
            counts: Counts { samples: MAX_SAMPLES, ..Counts::default() },
            memo: Memo::default(),
            clock: Clock::default(),
            digests: Digests::default(),
            indexed: true,
        }
    }

    /// A judge that puts every event to every program: what the index is compared with.
    #[must_use]
    pub fn unindexed(mut self) -> Self {
        self.indexed = false;
        self
    }

    /// A judge whose tallies show up to so many of the records that are no events.
    #[must_use]
    pub fn with_samples(mut self, most: usize) -> Self {
        self.counts.samples = most;
        self
    }

    /// A judge that does not count who was busy: a live run does not tell that.
    #[must_use]
    pub fn without_profile(mut self) -> Self {
        self.counts.unprofiled = true;
        self
    }

    /// Says what NULs between records are: by default a hole that a crash has left in a file, which is counted and otherwise
    /// nothing; where there can be no such hole, a record that is no event.
    pub fn nuls_are_bad(&mut self, yes: bool) {
        self.nuls_are_bad = yes;
    }

    /// Judges whole lines of JSON. Stops before a value that is not closed in its line, or a line that goes on in another, and
    /// returns where that begins: from there on the input is not JSON lines and must be framed ([`crate::event::frame`]).
    pub fn lines(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> Option<usize> {
        let mut marks = std::mem::take(&mut self.marks);
        self.alone = false; // it may have died
        let mut start = 0;
        let mut open = None;
        while start < bytes.len() {
            let (end, health) = marks.mark_line(bytes, start);
            self.digests.forget();
            let place = Place {
                input: origin.input,
                offset: origin.offset + start as u64,
                length: (end - start) as u64,
                bytes: &bytes[start..end],
            };
            if let Some(leaves) = self.document(&marks, health, place, None, Via::ITSELF, out) {
                open = Some(start + leaves);
                break;
            }
            start = end + 1;
        }
        self.marks = marks;
        open
    }

    /// Judges what stands by itself and is usually one object in one line. False, and nothing was judged, if it is anything
    /// else, or a list: then it is to be judged as a stream is.
    pub fn line(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> bool {
        let mut marks = std::mem::take(&mut self.marks);
        let (end, health) = marks.mark_line(bytes, 0);
        let alone = bytes.starts_with(b"{") && end + 1 >= bytes.len();
        let mut leaves = None;
        if alone {
            self.digests.forget();
            let Origin { input, offset } = origin;
            let place = Place { input, offset, length: end as u64, bytes: &bytes[..end] };
            self.alone = true;
            leaves = self.document(&marks, health, place, None, Via::ITSELF, out);
            self.alone = false;
        }
        self.marks = marks;
        alone && leaves.is_none()
    }

    /// Judges one record of an input that was framed.
    ///
    /// A writer that was stopped in the middle of a line leaves a torn record with the next one behind it on the same line:
    /// what begins as the API server begins its lines is a record of its own.
    pub fn record(&mut self, input: &str, frame: Frame<'_>, out: &mut Vec<Emitted>) {
        let part = |start: usize, end: usize| {
            let past = if frame.joined { 0 } else { start as u64 };
            Frame { offset: frame.offset + past, bytes: &frame.bytes[start..end], ..frame }
        };
        let mut start = 0;
        if frame.extent == Extent::Fragment {
            for next in memmem::find_iter(frame.bytes, LINE_START).filter(|next| *next > 0) {
                self.one_record(input, part(start, next), out);
                start = next;
            }
        }
        self.one_record(input, part(start, frame.bytes.len()), out);
    }

    fn one_record(&mut self, input: &str, frame: Frame<'_>, out: &mut Vec<Emitted>) {
        let Frame { offset, bytes, mut extent, listed, joined } = frame;
        self.alone = false; // it may have died
        let length = match extent {
            Extent::Oversize { length, .. } => length,
            Extent::Whole | Extent::Fragment => bytes.len() as u64,
        };
        let place = Place { input, offset, length, bytes };
        self.digests.forget();
        let via = Via { lists: u8::from(listed), carried: false };
        let mut marks = std::mem::take(&mut self.marks);
        let health = marks.mark(bytes);
        if extent == Extent::Fragment && is_whole(bytes, &marks) {
            extent = Extent::Whole;
        }
        if bytes.is_empty() {
            self.counts.tally.bad += 1; // a list that was cut off between two items
        }
        if joined {
            self.prefixed(place, damage_of(bytes, health, Some(extent)), out);
        } else {
            self.document(&marks, health, place, Some(extent), via, out);
        }
        self.marks = marks;
    }

    /// Judges the values of one marked document: a line, or what the caller has framed to some extent. Stops before a value
    /// of a line that is not closed in it, or goes on in another line, and returns where that begins.
    fn document(
        &mut self,
        marks: &Marks,
        health: Health,
        place: Place<'_>,
        framed: Option<Extent>,
        via: Via,
        out: &mut Vec<Emitted>,
    ) -> Option<usize> {
        let Some(mut start) = place.bytes.iter().position(|b| !blank(*b)) else {
            self.nuls(place);
            return None;
        };
        if start > 0 {
            self.nuls(place.range(0, start).at_hand());
        }
        if place.bytes[start..].starts_with(b"\xEF\xBB\xBF") {
            start += 3;
        }
        let doc = Doc::new(place.bytes, marks);
        let damage = damage_of(place.bytes, health, framed);
        if !matches!(place.bytes.get(start), Some(b'{' | b'[')) {
            if framed.is_none() && self.goes_on(Piece::of_cri(&place.bytes[start..])) {
                return Some(start);
            }
            self.prefixed(place, damage, out);
            return None;
        }
        let engine = self.engine;
        let mut at = start as u32;
        while let Some(value) = doc.value_from(at) {
            let mut event = Event::skim(value, &engine.settings);
            let object = value.kind() == Kind::Object;
            let end = if object { event.end() } else { value.complete().then(|| value.end()) };
            let log = event.raw(Top::Log).filter(|log| pieces::may_go_on(log));
            if framed.is_none() && (end.is_none() || self.goes_on(log.and_then(|_| Piece::of_docker(value))))
            {
                return Some(value.start() as usize);
            }
            at = end.unwrap_or(place.bytes.len() as u32);
            let more = || place.bytes[at as usize..].iter().any(|b| *b == 0 || !blank(*b));
            if self.alone && (event.has(Top::Items) || more()) {
                return Some(value.start() as usize);
            }
            let own = place.range(value.start() as usize, at as usize);
            let damage = Damage { cut: damage.cut | end.is_none(), ..damage };
            if object {
                self.object(&mut event, own, damage, via, out);
            } else {
                self.value(value, own, damage, via, out);
            }
            let rest = &place.bytes[at as usize..];
            let passed = rest.iter().take_while(|b| blank(**b) || **b == b',').count();
            if passed > 0 {
                self.nuls(place.range(at as usize, at as usize + passed).at_hand());
            }
            match rest.get(passed) {
                None => break,
                Some(b'{' | b'[') => at += passed as u32,
                Some(_) => {
                    self.bad(place.range(at as usize + passed, place.bytes.len())); // text after the value
                    break;
                }
            }
        }
        None
    }

    /// True for a piece that cannot be judged without those that follow.
    fn goes_on(&mut self, piece: Option<Piece<'_>>) -> bool {
        piece.is_some_and(|piece| piece.begins(&mut self.carried))
    }

    /// A line that begins with no bracket, or a joined text: a CRI prefix or none, and a value, or no JSON at all.
    fn prefixed(&mut self, place: Place<'_>, damage: Damage, out: &mut Vec<Emitted>) {
        let Some(inner) = record::payload(place.bytes) else { return self.bad(place) };
        let seam = damage.seam.saturating_sub(offset_in(place.bytes, inner) as u32);
        self.carry(inner, place, Damage { seam, ..damage }, Via::ITSELF.carried(), out);
    }

    /// Judges the values inside a carrier. The evidence is the whole carrier.
    fn carry(
        &mut self,
        inner: &[u8],
        place: Place<'_>,
        mut damage: Damage,
        via: Via,
        out: &mut Vec<Emitted>,
    ) {
        let mut marks = std::mem::take(&mut self.carried);
        let health = marks.mark(inner);
        damage.control |= health.control;
        let doc = Doc::new(inner, &marks);
        let mut at = 0;
        while let Some(value) = doc.value_from(at) {
            let damage = Damage { cut: damage.cut | !value.complete(), ..damage };
            self.value(value, place, damage, via, out);
            let rest = &inner[value.end() as usize..];
            let gap = rest.iter().take_while(|b| blank(**b) || **b == b',').count();
            if !matches!(rest.get(gap), Some(b'{' | b'[')) {
                break;
            }
            at = value.end() + gap as u32;
        }
        self.carried = marks;
    }

    /// Judges one value: an event, a list of them, or what carries one.
    fn value(&mut self, value: Node<'_>, place: Place<'_>, damage: Damage, via: Via, out: &mut Vec<Emitted>) {
        match value.kind() {
            Kind::Object => {
                self.object(&mut Event::skim(value, &self.engine.settings), place, damage, via, out);
            }
            Kind::Array if via.lists < 2 => self.items(value, place, damage, via, out),
            _ => self.unrecognized(value, place, damage),
        }
    }

    fn items(&mut self, list: Node<'_>, place: Place<'_>, damage: Damage, via: Via, out: &mut Vec<Emitted>) {
        let mut cut = false;
        for item in list.items().take_while(|item| !damage.oversize || item.start() < damage.seam) {
            // What is whole is whole, wherever the list around it ends. The item that reaches past the head of an oversize
            // record stands for all behind it.
            let oversize = damage.oversize && item.end() > damage.seam;
            cut = oversize || !item.complete();
            let seam = if oversize { damage.seam } else { 0 };
            let damage = Damage { cut, oversize, seam, ..damage };
            // What was carried has no place of its own: the whole carrier is the evidence.
            let own = if via.carried { place } else { place.part(item) };
            self.value(item, own, damage, via.listed(), out);
        }
        if !cut && (damage.oversize || !list.complete()) {
            self.counts.tally.bad += 1; // cut off between two items
        }
    }

    fn object(
        &mut self,
        event: &mut Event<'_>,
        place: Place<'_>,
        damage: Damage,
        via: Via,
        out: &mut Vec<Emitted>,
    ) {
        event.damage = event.damage.with(damage);
        match (record::nature(event), via) {
            (Nature::Audit, via) => {
                self.counts.count(match via {
                    Via { carried: true, .. } => Format::AuditCarried,
                    Via { lists: 1.., .. } => Format::AuditList,
                    Via::ITSELF => Format::Audit,
                });
                event.discard_wrong_types();
                self.audit(event, place, via, out);
            }
            (Nature::Falco, via) => {
                self.counts.count(if via == Via::ITSELF { Format::Falco } else { Format::FalcoCarried });
                event.stream = Stream::Falco;
                event.discard_wrong_types();
                self.falco(event, place, out);
            }
            (Nature::LapwingAlert, _) if !event.damage.cut => self.counts.count(Format::LapwingAlert),
            (Nature::List, Via { lists: 0 | 1, .. }) => {
                for items in record::lists(event) {
                    self.items(items, place, damage, via, out);
                }
            }
            (Nature::Carrier, Via { carried: false, .. }) => {
                self.unwrap(event, place, damage, via.carried(), out);
            }
            _ => self.unrecognized(event.root(), place, event.damage),
        }
    }

    /// Judges what a carrier carries; a carrier whose text turns out to be no JSON is an unrecognised record.
    fn unwrap(
        &mut self,
        event: &Event<'_>,
        place: Place<'_>,
        damage: Damage,
        via: Via,
        out: &mut Vec<Emitted>,
    ) {
        let mut carriers = record::carriers(event);
        let mut node = carriers.next().expect("a carrier has what it carries");
        for next in carriers {
            if self.holds_record(node) {
                break;
            }
            node = next;
        }
        if node.kind() == Kind::Object {
            return self.object(&mut Event::skim(node, event.settings), place, damage, via, out);
        }
        let text = node.text_so_far().unwrap_or_default();
        let Some(inner) = record::payload(text.as_bytes()) else {
            return self.unrecognized(event.root(), place, damage);
        };
        let head = node.raw().get(1..damage.seam.saturating_sub(node.start()) as usize);
        let head = head.map_or(0, |head| unescape(head).len());
        let seam = head.saturating_sub(offset_in(text.as_bytes(), inner)) as u32;
        self.carry(inner, place, Damage { seam, ..damage }, via, out);
    }

    /// True if what a member carries turns out to be a record.
    fn holds_record(&mut self, node: Node<'_>) -> bool {
        let engine = self.engine;
        let is_record = |node: Node<'_>| {
            node.kind() == Kind::Object && record::nature(&Event::skim(node, &engine.settings)).is_record()
        };
        if node.kind() == Kind::Object {
            return is_record(node);
        }
        let text = node.text_so_far().unwrap_or_default();
        record::payload(text.as_bytes()).is_some_and(|inner| {
            self.carried.mark(inner);
            let root = Doc::new(inner, &self.carried).root();
            root.is_some_and(|root| is_record(root) || root.items().next().is_some_and(is_record))
        })
    }

    fn audit(&mut self, event: &Event<'_>, place: Place<'_>, via: Via, out: &mut Vec<Emitted>) {
        self.counts.audit(event, via);
        let time = event_time(event, &mut self.clock);
        self.counts.time(time);
        self.route_audit(event);
        self.judge(event, time, place, out);
    }

    fn falco(&mut self, event: &Event<'_>, place: Place<'_>, out: &mut Vec<Emitted>) {
        let time = event_time(event, &mut self.clock);
        self.counts.time(time);
        self.counts.tally.partial += u64::from(event.damage.any());
        if event.raw(Top::Source) == Some(b"internal") {
            self.counts.tally.falco_internal += 1;
            return;
        }
        self.route_falco(event);
        self.judge(event, time, place, out);
    }

    fn judge(&mut self, event: &Event<'_>, time: Option<Nanos>, place: Place<'_>, out: &mut Vec<Emitted>) {
        if let Some(literals) = self.engine.literals.as_ref().filter(|_| self.indexed) {
            literals.refute(event, &mut self.routes.live);
        }
        let asked = any(&self.routes.live) || event.damage.repeats_key();
        if !asked || !self.engine.in_range(time) {
            return;
        }
        let mut memo = std::mem::take(&mut self.memo).renew();
        self.routes.recall(&mut memo);
        let case = Case { engine: self.engine, event, time, place, digests: &self.digests };
        case.judge(&self.routes.live, &mut memo, &mut self.counts.tally, out);
        self.memo = memo.renew();
    }

    /// Leaves in `routes.live` the programs that may match.
    fn route_audit(&mut self, event: &Event<'_>) {
        let Worker { engine, routes, counts, .. } = self;
        routes.live.copy_from_slice(&engine.audit_programs);
        (routes.shape, routes.client) = (None, None);
        if !self.indexed || !is_plain(event) || !routes.by_shape(engine, event) {
            counts.client(event);
            return routes.restrict(engine, event);
        }
        routes.by_client(engine, event, counts);
        if any(&routes.live) {
            routes.by_notes(engine, event);
        }
        if any(&routes.live) {
            routes.by_name(engine, event);
        }
    }

    fn route_falco(&mut self, event: &Event<'_>) {
        let Worker { engine, routes, .. } = self;
        routes.live.copy_from_slice(&engine.falco_programs);
        (routes.shape, routes.client) = (None, None);
        if !self.indexed || event.damage.hides_keys() {
            return;
        }
        begin(&mut routes.key, event);
        for top in [Top::Rule, Top::Priority, Top::Source] {
            push(&mut routes.key, event.raw(top));
        }
        let Routes { rules, key, live, .. } = routes;
        narrow(rules, key, live, |_| engine.decided(event, Parts::FALCO, &engine.falco_programs));
    }

    /// Counts the NULs among bytes that are passed over, and those of a longer run that are not at hand.
    fn nuls(&mut self, passed: Place<'_>) {
        let nuls = memchr::memchr_iter(0, passed.bytes).count() as u64;
        if nuls == 0 {
            return;
        }
        self.counts.tally.nuls += nuls + passed.length.saturating_sub(passed.bytes.len() as u64);
        if self.nuls_are_bad {
            self.bad(passed);
        }
    }

    fn bad(&mut self, place: Place<'_>) {
        self.counts.tally.bad += 1;
        self.counts.sample(place, Vec::new);
    }

    /// Counts JSON that is none of ours; a fragment of it is just bad.
    fn unrecognized(&mut self, value: Node<'_>, place: Place<'_>, damage: Damage) {
        if damage.cut {
            self.counts.tally.bad += 1;
        } else {
            self.counts.count(Format::Unrecognized);
        }
        let engine = self.engine;
        self.counts.sample(place, || record::key_names(&Event::skim(value, &engine.settings)));
    }

    /// The counters since they were last taken.
    pub fn take_tally(&mut self) -> Tally {
        self.counts.take()
    }

    /// The samples of the counters, which have none any more then.
    pub fn take_samples(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.counts.tally.samples)
    }

    /// Hands the activity since the last call to `add`: dimension, name, events.
    pub fn drain_profile(&mut self, add: &mut dyn FnMut(Dimension, &str, u64)) {
        for id in self.counts.active.drain(..) {
            let client = &mut self.routes.clients.entry(id).extra;
            add(Dimension::Actor, &client.actor, client.events);
            add(Dimension::Source, &client.source, client.events);
            client.events = 0;
        }
        for (name, events) in self.counts.namespaces.drain() {
            add(Dimension::Namespace, &unescape(&name), events);
        }
        for ((dimension, name), events) in std::mem::take(&mut self.counts.profile) {
            add(dimension, &name, events);
        }
    }
}

impl<'i> Place<'i> {
    /// The place of some of this place's bytes.
    fn range(self, start: usize, end: usize) -> Place<'i> {
        let rest = self.length.saturating_sub(self.bytes.len() as u64); // what an oversize record has beyond its bytes
        Place {
            offset: self.offset + start as u64,
            length: (end - start) as u64 + rest,
            bytes: &self.bytes[start..end],
            ..self
        }
    }

    /// Without what an oversize record has beyond its bytes.
    fn at_hand(self) -> Place<'i> {
        Place { length: self.bytes.len() as u64, ..self }
    }

    /// The place of a value inside this place's bytes.
    fn part(self, value: Node<'_>) -> Place<'i> {
        let (start, end) = (value.start() as usize, value.end() as usize);
        match self.bytes.get(start..end) {
            Some(bytes) if bytes == value.raw() => {
                Place { offset: self.offset + start as u64, length: bytes.len() as u64, bytes, ..self }
            }
            _ => self, // the value was unescaped from the place: the whole carrier is the evidence
        }
    }
}

impl Routes {
    /// What shape and client decide of single tests is not asked again.
    fn recall(&mut self, memo: &mut Memo<'_>) {
        if let Some(shape) = self.shape {
            memo.preset(&self.shapes.entry(shape).decided.answers);
        }
        if let Some(client) = self.client {
            memo.preset(&self.clients.entry(client).decided.answers);
        }
    }

    /// Clears the programs that the request's shape refutes, and on records that are not judged all but those that name
    /// `stage`. False, and nothing cleared, if the shape is not plain to see.
    fn by_shape(&mut self, engine: &Engine, event: &Event<'_>) -> bool {
        if !shape_key(&mut self.key, event) {
            return false;
        }
        let Routes { shapes, shape, key, live, .. } = self;
        let found = shapes.find(key);
        if let Lookup::Known(id) = found {
            *shape = Some(id);
            and(live, &shapes.entry(id).decided.mask);
            return true;
        }
        // Even for a shape that does not come again, asking the shape alone is cheaper than asking every program everything.
        let mut decided = engine.decided(event, Parts::SHAPE, &engine.audit_programs);
        if !judge::is_judged(event) {
            and(&mut decided.mask, &engine.stage_programs);
        }
        and(live, &decided.mask);
        if let Lookup::Again(hash) = found {
            shapes.insert(hash, key, decided, (), &mut |()| {});
        }
        true
    }

    /// On records that are not judged, clears all programs but those that name `stage`.
    fn restrict(&mut self, engine: &Engine, event: &Event<'_>) {
        if !judge::is_judged(event) {
            and(&mut self.live, &engine.stage_programs);
        }
    }

    /// Clears the programs that the client refutes, and counts the event for the client.
    fn by_client(&mut self, engine: &Engine, event: &Event<'_>, counts: &mut Counts) {
        let Routes { clients, client: present, key, live, .. } = self;
        let key = client_key(key, event);
        match clients.find(key) {
            Lookup::Known(id) => {
                *present = Some(id);
                let entry = clients.entry(id);
                and(live, &entry.decided.mask);
                counts.busy(id, &mut entry.extra);
            }
            Lookup::Again(hash) => {
                let decided = engine.decided(event, CLIENT, &engine.audit_programs);
                and(live, &decided.mask);
                let (actor, source) = judge::client_names(event);
                let client = Client { actor, source, events: 0 };
                let id = clients.insert(hash, key, decided, client, &mut |client| counts.keep(client));
                if id == 0 {
                    counts.active.clear(); // ids before an emptied table mean nothing any more
                }
                counts.busy(id, &mut clients.entry(id).extra);
            }
            Lookup::New => return counts.client(event),
        }
        counts.namespace(event);
    }

    /// Clears the programs that need an annotation which is not there.
    fn by_notes(&mut self, engine: &Engine, event: &Event<'_>) {
        begin(&mut self.key, event);
        if let Some(notes) = event.node(Top::Annotations) {
            for (name, value) in notes.members() {
                push(&mut self.key, Some(name.raw()));
                // A text is there, whatever it says; what else stands for an annotation is a class of its own.
                let text = value.str_raw().is_some_and(|text| !text.is_empty());
                push(&mut self.key, (!text).then_some(value.raw()));
            }
        }
        let Routes { notes, key, live, .. } = self;
        narrow(notes, key, live, |_| engine.decided(event, Parts::NOTES, &engine.audit_programs));
    }

    /// Clears the programs that the name of the object, or the path that names no object, refutes.
    fn by_name(&mut self, engine: &Engine, event: &Event<'_>) {
        shape_key(&mut self.key, event); // plain, or we would not be here
        let object = event.object_ref();
        push(&mut self.key, object.namespace().map(Node::raw));
        push(&mut self.key, object.name().map(Node::raw));
        if text_of(object.resource()).is_empty() {
            let uri = event.node(Top::RequestUri).map(Node::raw);
            push(&mut self.key, uri.map(|uri| uri.split(|byte| *byte == b'?').next().unwrap_or(uri)));
        }
        let Routes { names, key, live, .. } = self;
        narrow(names, key, live, |live| engine.decided(event, Parts::SHAPE.with(Parts::NAME), live));
    }
}

/// Clears the programs that a key refutes, which `decide` finds out when the key has earned an entry; of a key of many
/// values only for those that are still live.
fn narrow(table: &mut Table<()>, key: &[u8], live: &mut Mask, decide: impl FnOnce(&Mask) -> Decided) {
    match table.find(key) {
        Lookup::Known(id) => and(live, &table.entry(id).decided.mask),
        Lookup::Again(hash) => {
            let Decided { mask, .. } = decide(live);
            and(live, &mask);
            table.insert(hash, key, Decided { mask, answers: Box::default() }, (), &mut |()| {});
        }
        Lookup::New => {}
    }
}

/// How the API server begins every line of its log.
const LINE_START: &[u8] = b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/";

/// True if what was taken for a fragment is a whole value after all.
fn is_whole(bytes: &[u8], marks: &Marks) -> bool {
    Doc::new(bytes, marks).root().is_some_and(Node::complete)
}

/// What a client's key decides.
const CLIENT: Parts = Parts::USER.with(Parts::AGENT).with(Parts::ADDRESS);

/// True if nothing of the event is lost and its objects are spelled as the API server spells them. What is not plain is put to
/// every program: it is rare, and what its keys decide depends on the rest of it.
fn is_plain(event: &Event<'_>) -> bool {
    !event.damage.hides_keys() && event.object_ref().is_plain()
}

/// Everything that facts with [`Parts::SHAPE`] may look at, as one key. False if the status is not plain.
fn shape_key(key: &mut Vec<u8>, event: &Event<'_>) -> bool {
    begin(key, event);
    let object = event.object_ref();
    let filled =
        |node: Option<Node<'_>>| u8::from(node.and_then(Node::str_raw).is_some_and(|text| !text.is_empty()));
    let flags = filled(object.namespace())
        | filled(object.name()) << 1
        | u8::from(event.impersonated().is_some()) << 2
        | u8::from(may_be_dry_run(event)) << 3;
    key.push(flags);
    for node in [event.node(Top::Verb), event.node(Top::Stage), event.node(Top::Level)] {
        push_text(key, node);
    }
    for node in [object.group(), object.resource(), object.subresource()] {
        push_text(key, node);
    }
    push_status(key, event)
}

/// Appends the status code and whether there is a message; false if that is not plain. The status of a request that
/// succeeded says nothing else, and stands for itself.
fn push_status(key: &mut Vec<u8>, event: &Event<'_>) -> bool {
    let raw = event.node(Top::ResponseStatus).map(Node::raw);
    if let Some(raw) = raw.filter(|raw| raw.len() <= PLAIN_STATUS) {
        key.push(u8::MAX);
        push(key, Some(raw));
        return true;
    }
    let status = judge::status(event);
    key.push(u8::from(status.message));
    push(key, status.code);
    status.plain
}

/// The length of a status that has nothing but a code.
const PLAIN_STATUS: usize = br#"{"metadata":{},"code":200}"#.len();

/// Appends a value that should be a text. Its quotes tell where it ends; what has none gets its length.
fn push_text(key: &mut Vec<u8>, node: Option<Node<'_>>) {
    match node {
        None => key.push(0),
        Some(node) if node.raw().starts_with(b"\"") && node.complete() => key.extend_from_slice(node.raw()),
        Some(node) => {
            key.push(1);
            push(key, Some(node.raw()));
        }
    }
}

/// As facts see it: their class is no finer than this. The usual reads need no second look.
fn may_be_dry_run(event: &Event<'_>) -> bool {
    let reads = matches!(event.raw(Top::Verb), Some(b"get" | b"list" | b"watch"));
    !reads && facts::action::may_be_dry_run(event)
}

/// User, impersonated user, user agent and addresses, as one key.
///
/// In a sound event as the API server writes it they stand side by side, and the stretch from the first to the last is the
/// key as it is. It begins with a bracket, unlike a key that is put together.
fn client_key<'k, 'a: 'k>(key: &'k mut Vec<u8>, event: &Event<'a>) -> &'k [u8] {
    if let Some(stretch) = client_stretch(event) {
        return stretch;
    }
    begin(key, event);
    for top in [Top::User, Top::UserAgent, Top::SourceIps, Top::ImpersonatedUser] {
        push(key, event.node(top).map(Node::raw));
    }
    key
}

/// The bytes from `user` to `userAgent` of an undamaged event that has `sourceIPs`, and `impersonatedUser` if at all, in
/// between.
fn client_stretch<'a>(event: &Event<'a>) -> Option<&'a [u8]> {
    let (user, addresses, agent) =
        (event.node(Top::User)?, event.node(Top::SourceIps)?, event.node(Top::UserAgent)?);
    let between = |node: Node<'_>| node.start() > user.start() && node.end() < agent.start();
    let beside = between(addresses)
        && event.node(Top::ImpersonatedUser).is_none_or(between)
        && user.kind() == Kind::Object
        && !event.damage.any();
    let doc = event.root().doc();
    if beside { doc.bytes().get(user.start() as usize..agent.end() as usize) } else { None }
}

/// Begins a key. What is odd about an event may make unknown what would be absent, so that it is of another class.
fn begin(key: &mut Vec<u8>, event: &Event<'_>) {
    key.clear();
    key.push(event.damage.harmless());
}

/// Appends a field and its length, so that no two lists of fields give the same key. A missing field differs from an empty
/// one.
fn push(key: &mut Vec<u8>, field: Option<&[u8]>) {
    let length = field.map_or(u32::MAX, |field| field.len() as u32);
    key.extend_from_slice(&length.to_le_bytes());
    key.extend_from_slice(field.unwrap_or_default());
}

fn and(live: &mut Mask, mask: &Mask) {
    for (word, other) in live.iter_mut().zip(mask.iter()) {
        *word &= other;
    }
}

fn any(mask: &Mask) -> bool {
    mask.iter().any(|word| *word != 0)
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x1E | 0)
}

/// Where in `outer` the bytes `inner` of it begin.
fn offset_in(outer: &[u8], inner: &[u8]) -> usize {
    inner.as_ptr().addr() - outer.as_ptr().addr()
}

pub(crate) fn damage_of(bytes: &[u8], health: Health, framed: Option<Extent>) -> Damage {
    Damage {
        encoding: health.non_ascii && std::str::from_utf8(bytes).is_err(),
        control: health.control,
        oversize: matches!(framed, Some(Extent::Oversize { .. })),
        seam: if let Some(Extent::Oversize { tail, .. }) = framed { tail as u32 } else { 0 },
        ..Damage::default()
    }
}

/// When the event happened: the stage's time, else the request's, else what older versions and Falco call it, else what
/// Falco's fields say.
pub(crate) fn event_time(event: &Event<'_>, clock: &mut Clock) -> Option<Nanos> {
    let keys = [Top::StageTimestamp, Top::RequestReceivedTimestamp, Top::Time, Top::Timestamp];
    let mut of = |node: Node<'_>| node.str_raw().and_then(|text| clock.parse(text));
    keys.into_iter()
        .find_map(|key| event.node(key).and_then(&mut of))
        .or_else(|| event.node(Top::Metadata)?.get("creationTimestamp").and_then(of))
        .or_else(|| falco_time(event))
}

/// When a Falco alert's event happened by its fields: nanoseconds since the epoch, or RFC 3339 if Falco was told so.
fn falco_time(event: &Event<'_>) -> Option<Nanos> {
    let fields = event.node(Top::OutputFields).filter(|_| event.stream == Stream::Falco)?;
    ["evt.time", "evt.time.iso8601"].into_iter().find_map(|name| {
        let time = fields.get(name)?;
        let text = time.text();
        let number = || text.as_ref()?.parse().ok();
        time.as_i64().or_else(number).or_else(|| time::parse(text.as_ref()?.as_bytes()))
    })
}

impl Counts {
    fn count(&mut self, format: Format) {
        self.formats[format as usize] += 1;
    }

    fn audit(&mut self, event: &Event<'_>, via: Via) {
        let level = event.raw(Top::Level).unwrap_or_default();
        let known = AUDIT_LEVELS.iter().position(|name| name.as_bytes() == level);
        self.tally.levels[known.unwrap_or(AUDIT_LEVELS.len() - 1)] += 1;
        self.tally.partial += u64::from(event.damage.any());
        self.tally.missing_stage += u64::from(!event.has(Top::Stage));
        self.tally.missing_version += u64::from(via.lists == 0 && !event.has(Top::ApiVersion));
    }

    fn time(&mut self, time: Option<Nanos>) {
        let Some(time) = time else {
            self.tally.missing_time += 1;
            return;
        };
        let minute = time.div_euclid(60 * SECOND);
        match &mut self.minute {
            Some((current, first, last)) if *current == minute => {
                *first = time.min(*first);
                *last = time.max(*last);
            }
            _ => {
                self.flush_minute();
                self.minute = Some((minute, time, time));
            }
        }
    }

    fn flush_minute(&mut self) {
        if let Some((minute, first, last)) = self.minute.take() {
            let entry = self.tally.minutes.entry(minute).or_insert((first, last));
            *entry = (entry.0.min(first), entry.1.max(last));
        }
    }

    /// Counts an event for a client that has a number.
    fn busy(&mut self, id: u32, client: &mut Client) {
        if self.unprofiled {
            return;
        }
        if client.events == 0 {
            self.active.push(id);
        }
        client.events += 1;
    }

    /// Counts the event for its client and its namespace.
    fn client(&mut self, event: &Event<'_>) {
        if self.unprofiled {
            return;
        }
        let (actor, source) = judge::client_names(event);
        self.keep(Client { actor, source, events: 1 });
        self.namespace(event);
    }

    fn namespace(&mut self, event: &Event<'_>) {
        if self.unprofiled {
            return;
        }
        let Some(name) = event.object_ref().namespace().and_then(Node::str_raw) else { return };
        match self.namespaces.get_mut(name) {
            Some(events) => *events += 1,
            None => {
                self.namespaces.insert(name.into(), 1);
            }
        }
    }

    fn keep(&mut self, client: Client) {
        if client.events > 0 {
            *self.profile.entry((Dimension::Actor, client.actor)).or_default() += client.events;
            *self.profile.entry((Dimension::Source, client.source)).or_default() += client.events;
        }
    }

    fn sample(&mut self, place: Place<'_>, keys: impl FnOnce() -> Vec<String>) {
        if self.tally.samples.len() < self.samples {
            self.tally.samples.push(Sample {
                input: place.input.to_owned(),
                offset: place.offset,
                length: place.length,
                keys: keys(),
                sha256: judge::sha256(place.bytes),
            });
        }
    }

    fn take(&mut self) -> Tally {
        self.flush_minute();
        for (format, n) in FORMATS.into_iter().zip(std::mem::take(&mut self.formats)) {
            if n > 0 {
                *self.tally.formats.entry(format).or_default() += n;
            }
        }
        std::mem::take(&mut self.tally)
    }
}

/// Decodes a node's text, or nothing.
pub(crate) fn text_of(node: Option<Node<'_>>) -> Cow<'_, str> {
    node.and_then(Node::text).unwrap_or_default()
}
