//! One event before the programs that may match it: which record of a request counts, evaluation, and what a match yields.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::alert::{Alert, Evidence};
use crate::bytes::hex;
use crate::correlate;
use crate::engine::{Emitted, Engine, Exempt, Feed, Found, Program, Step};
use crate::event::identity::{self, Identity};
use crate::event::time::{self, Nanos};
use crate::event::{Event, Stream, Top, is_spelling, unusual};
use crate::facts::Needs;
use crate::index::{self, Mask};
use crate::integrity;
use crate::level::Level;
use crate::program::{Field, Memo, Template, in_message};
use crate::redact::paths;
use crate::report::{self, Verdict};
use crate::tally::Tally;
use crate::value::{Tri, Value};
use crate::worker::{Place, text_of};

/// `responseStatus`, as far as routing needs it.
pub(crate) struct Status<'a> {
    /// The code's digits.
    pub(crate) code: Option<&'a [u8]>,
    /// True if it has a message.
    pub(crate) message: bool,
    /// Each stands once at most, and none in another spelling.
    pub(crate) plain: bool,
}

/// Reads `responseStatus` in one pass.
pub(crate) fn status<'a>(event: &Event<'a>) -> Status<'a> {
    let mut status = Status { code: None, message: false, plain: true };
    let Some(node) = event.node(Top::ResponseStatus) else { return status };
    for (key, value) in node.members() {
        if matches!(key.raw(), b"metadata" | b"status" | b"reason" | b"details") {
            continue;
        }
        let exact = matches!(key.raw(), b"code" | b"message");
        status.plain &= exact || !is_spelling(key, &["code", "message"]);
        let is = |name| key.is(name) || unusual(key, &[name]).is_some();
        if is("code") {
            status.plain &= status.code.is_none();
            status.code = Some(value.str_raw().unwrap_or_else(|| value.raw()));
        } else if is("message") {
            status.plain &= !status.message;
            status.message = true;
        }
    }
    status
}

/// Subresources whose requests are long-lived connections.
const CONNECTS: [&str; 4] = ["exec", "attach", "portforward", "proxy"];

/// True if this is the record of its request that is judged: ResponseComplete and Panic; ResponseStarted where nothing
/// better need come (401s end there, watches and connections may stay open for hours). A missing stage counts as complete.
pub(crate) fn is_judged(event: &Event<'_>) -> bool {
    let Some(stage) = event.node(Top::Stage) else { return true };
    match &*text_of(Some(stage)) {
        "RequestReceived" => false,
        "ResponseStarted" => {
            let subresource = text_of(event.object_ref().subresource());
            status(event).code == Some(b"401")
                || event.text(Top::Verb).is_some_and(|verb| verb == "watch")
                || CONNECTS.contains(&&*subresource)
        }
        _ => true,
    }
}

/// Whom an event counts for in the activity profile: the authenticated user and the trusted hop.
pub(crate) fn client_names(event: &Event<'_>) -> (String, String) {
    let shown = |fact: &str| {
        let value = crate::facts::find(fact).map(|id| crate::facts::get(id).value(event));
        value.map_or(String::new(), |value| report::named(&value.display()))
    };
    (shown("actor.user"), shown("actor.ip"))
}

/// What the event's level lets facts see; a level that nobody knows lets them see all.
fn audit_level(event: &Event<'_>) -> Needs {
    match event.raw(Top::Level) {
        Some(b"None" | b"Metadata") => Needs::Metadata,
        Some(b"Request") => Needs::Request,
        _ => Needs::RequestResponse,
    }
}

/// One event on its way through the programs.
pub(crate) struct Case<'c, 'a> {
    pub(crate) engine: &'c Engine,
    pub(crate) event: &'c Event<'a>,
    pub(crate) time: Option<Nanos>,
    pub(crate) place: Place<'c>,
    pub(crate) digests: &'c Digests,
}

/// What the matches of one event share; made at the first match.
struct Shared {
    /// What may be shown of each field that was asked for: several detectors show the same, scrubbed once.
    shown: RefCell<Vec<(Field, Rc<str>)>>,
    identity: Identity,
    evidence: Evidence,
    digest: [u8; 32],
    /// What is shown instead, if the operator does not want to see all: the event's bytes without that, and what goes with them.
    veiled: Option<Box<(Vec<u8>, Shared)>>,
}

impl<'a> Case<'_, 'a> {
    /// Evaluates the programs in `live`, emits what matches and counts what cannot be told.
    pub(crate) fn judge(&self, live: &Mask, memo: &mut Memo<'a>, tally: &mut Tally, out: &mut Vec<Emitted>) {
        let engine = self.engine;
        let mut shared = None;
        let mut unknown = Vec::new();
        for index in index::members(live) {
            match engine.tests.eval(&engine.programs[index].rule.condition, self.event, memo) {
                Tri::False => {}
                Tri::Unknown => unknown.push(index as u32),
                Tri::True => {
                    let shared = shared.get_or_insert_with(|| self.share());
                    self.matched(&engine.programs[index], index as u32, shared, memo, out);
                }
            }
        }
        for index in &unknown {
            *tally.blind.entry(*index).or_default() += 1;
        }
        if self.event.damage.repeats_key() && engine.integrity[integrity::DUPLICATE_KEY] {
            let shared = shared.get_or_insert_with(|| self.share());
            let found = self.veiled(shared, memo, |case, shared, _| {
                integrity::duplicate_key(case, shared.identity, shared.evidence.clone())
            });
            out.push(Emitted::Alert(Box::new(found)));
        }
        let damaged = self.event.damage.any() || self.event.truncated();
        if engine.integrity[integrity::PARTIAL_EVENT] && (damaged || self.event.bound_hit()) {
            // What the level alone makes unknown is no damage.
            let level = audit_level(self.event);
            unknown.retain(|index| engine.programs[*index as usize].needs <= level);
            let bound = self.bound_hides(&unknown);
            if !unknown.is_empty() && (damaged || bound) {
                let shared = shared.get_or_insert_with(|| self.share());
                let found = self.veiled(shared, memo, |case, shared, _| {
                    integrity::partial_event(case, &unknown, bound, shared.identity, shared.evidence.clone())
                });
                out.push(Emitted::Alert(Box::new(found)));
            }
        }
    }

    /// True if a bound was hit by what these programs ask for. That is asked again, because which programs have asked before
    /// depends on how much of the event's class the index happens to know.
    fn bound_hides(&self, unknown: &[u32]) -> bool {
        if unknown.is_empty() || !self.event.bound_hit() {
            return false;
        }
        let (event, mut memo) = (self.event.unasked(), Memo::default());
        for index in unknown {
            let condition = &self.engine.programs[*index as usize].rule.condition;
            self.engine.tests.eval(condition, &event, &mut memo);
        }
        event.bound_hit()
    }

    fn share(&self) -> Shared {
        let audit = self.event.stream == Stream::Audit;
        let digest = self.digests.of(self.place.bytes);
        let audit_id = |event: &Event<'_>| event.text(Top::AuditId).map(|id| report::named(&id));
        let identity = identity::of(self.event);
        let share = |audit_id, veiled| Shared {
            shown: RefCell::default(),
            identity,
            evidence: Evidence {
                input: self.place.input.to_owned(),
                offset: self.place.offset,
                length: self.place.length,
                sha256: hex(&digest),
                time: time::format(self.time.unwrap_or_default()),
                audit_id,
            },
            digest,
            veiled,
        };
        let veiled = paths::without(self.event, &self.event.settings.hidden).map(|bytes| {
            let id = audit.then(|| paths::read(&bytes, self.event, audit_id)).flatten();
            Box::new((bytes, share(id, None)))
        });
        share(audit.then(|| audit_id(self.event)).flatten(), veiled)
    }

    /// Makes something of what may be shown: of the event itself, or of it without what the operator does not want to see.
    fn veiled<T>(
        &self,
        shared: &Shared,
        memo: &mut Memo<'a>,
        make: impl for<'e> FnOnce(&Case<'_, 'e>, &Shared, &mut Memo<'e>) -> T,
    ) -> T {
        let Some(veiled) = &shared.veiled else { return make(self, shared, memo) };
        let (bytes, shared) = &**veiled;
        paths::read(bytes, self.event, |event| make(&Case { event, ..*self }, shared, &mut Memo::default()))
    }

    fn matched(
        &self,
        program: &Program,
        index: u32,
        shared: &Shared,
        memo: &mut Memo<'a>,
        out: &mut Vec<Emitted>,
    ) {
        if self.is_exempt(&program.exceptions, memo) {
            return;
        }
        for feed in &program.feeds {
            if !self.is_exempt(&feed.exceptions, memo) {
                out.extend(self.step(feed, shared, memo).map(Emitted::Step));
            }
        }
        if program.alerts {
            let level = self.level(program, memo);
            let alert =
                self.veiled(shared, memo, |case, shared, memo| case.alert(program, level, shared, memo));
            let time = self.time.unwrap_or_default();
            out.push(Emitted::Alert(Box::new(Found { time, detector: index, alert })));
        }
    }

    fn is_exempt(&self, exceptions: &[Exempt], memo: &mut Memo<'a>) -> bool {
        let mut exempt = exceptions.iter().filter(|exempt| exempt.covers(self.time));
        exempt.any(|exempt| self.engine.tests.eval(&exempt.when, self.event, memo) == Tri::True)
    }

    fn step(&self, feed: &Feed, shared: &Shared, memo: &mut Memo<'a>) -> Option<Step> {
        let place = correlate::Place {
            input: self.place.input,
            offset: self.place.offset,
            length: self.place.length,
            sha256: shared.digest,
            audit_id: shared.veiled.as_ref().map_or(shared, |veiled| &veiled.1).evidence.audit_id.as_deref(),
        };
        // What is counted is what is there; what is shown is another thing.
        let veiled = shared.veiled.is_some().then(|| {
            self.veiled(shared, memo, |case, shared, memo| {
                feed.fields.iter().map(|field| case.shown(*field, shared, memo)).collect::<Vec<_>>()
            })
        });
        feed.builder.build(self.time.unwrap_or_default(), &shared.identity, &place, |field| {
            let text = self.shown(feed.fields[field], shared, memo);
            let text = match veiled.as_ref().map(|veiled| &veiled[field]) {
                Some(veiled) if *veiled != text => feed.builder.veiled(field, &text, veiled),
                _ => text.to_string(),
            };
            if text.is_empty() { Value::Absent } else { Value::Text(Cow::Owned(text)) }
        })
    }

    fn alert(&self, program: &Program, level: Level, shared: &Shared, memo: &mut Memo<'a>) -> Alert {
        let about = &program.rule.about;
        let (message, mut facts) = match &about.message {
            Some(template) => self.message(template, shared, memo),
            None => (self.plain_message(&about.title), Vec::new()),
        };
        facts.extend(program.rule.fields.iter().map(|field| {
            let name = self.engine.tests.name(*field);
            (name.to_owned(), self.shown(*field, shared, memo).to_string())
        }));
        let verdict = Verdict {
            uuid: report::uuid(&about.name, &about.logic, &shared.identity),
            detector: &about.name,
            title: &about.title,
            level,
            tags: &about.tags,
            message,
            facts,
        };
        report::alert(self.event, verdict, self.time, shared.evidence.clone())
    }

    /// What may be shown of a field, read and scrubbed once an event.
    fn shown(&self, field: Field, shared: &Shared, memo: &mut Memo<'a>) -> Rc<str> {
        let seen =
            shared.shown.borrow().iter().find(|(seen, _)| *seen == field).map(|(_, text)| text.clone());
        seen.unwrap_or_else(|| {
            let tests = &self.engine.tests;
            let text: Rc<str> =
                report::cleaned(self.event, tests.name(field), tests.value(field, self.event, memo)).into();
            shared.shown.borrow_mut().push((field, text.clone()));
            text
        })
    }

    /// The message, and the facts that it shows.
    fn message(
        &self,
        template: &Template,
        shared: &Shared,
        memo: &mut Memo<'a>,
    ) -> (String, Vec<(String, String)>) {
        let tests = &self.engine.tests;
        let mut facts = Vec::new();
        let message = template.fill(|field| {
            let text = self.shown(field, shared, memo);
            facts.push((tests.name(field).to_owned(), text.to_string()));
            in_message(tests.value(field, self.event, memo), &text)
        });
        (message, facts)
    }

    /// What a rule without a message says: its title, who, what and where.
    fn plain_message(&self, title: &str) -> String {
        let shown = |fact| report::shown(self.event, fact);
        match self.event.stream {
            Stream::Falco => format!(
                "{title} (rule={} ns={} pod={})",
                shown("falco.rule"),
                shown("target.namespace"),
                shown("target.name")
            ),
            Stream::Audit => {
                let verb = text_of(self.event.node(Top::Verb));
                format!(
                    "{title} (user={} verb={} resource={} ns={} name={})",
                    shown("actor.name"),
                    report::bounded(&verb),
                    shown("target.type"),
                    shown("target.namespace"),
                    shown("target.name")
                )
            }
        }
    }

    /// The operator's level, else the first grade that holds, else the detector's; a Falco alert of priority Critical or worse
    /// raises a mapped runtime detector by one step.
    pub(crate) fn level(&self, program: &Program, memo: &mut Memo<'a>) -> Level {
        let rule = &program.rule;
        if let Some(level) = program.level {
            return level;
        }
        let mut holds = |when| self.engine.tests.eval(when, self.event, memo) == Tri::True;
        let graded = rule.grades.iter().find(|grade| holds(&grade.when));
        let level = graded.map_or(rule.about.level, |grade| grade.level);
        let runtime = rule.about.name.starts_with("runtime/") && rule.about.name != "runtime/unmapped-rule";
        let grave = || {
            let priority = text_of(self.event.node(Top::Priority)).to_ascii_lowercase();
            matches!(&*priority, "critical" | "alert" | "emergency")
        };
        if runtime && rule.stream == Stream::Falco && grave() { level.raised() } else { level }
    }
}

/// The digest of the last evidence: that of the many events that one carrier may hold.
#[derive(Debug, Default)]
pub(crate) struct Digests(Cell<Option<(usize, usize, [u8; 32])>>);

impl Digests {
    /// Forgets it, before a buffer is used for other bytes.
    pub(crate) fn forget(&self) {
        self.0.set(None);
    }

    fn of(&self, bytes: &[u8]) -> [u8; 32] {
        match self.0.get() {
            Some((start, length, digest)) if (start, length) == (bytes.as_ptr().addr(), bytes.len()) => {
                digest
            }
            _ => {
                let digest = Sha256::digest(bytes).into();
                self.0.set(Some((bytes.as_ptr().addr(), bytes.len(), digest)));
                digest
            }
        }
    }
}

/// SHA-256, hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
