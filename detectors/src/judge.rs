//! One event before the programs that may match it: which record of a request counts, evaluation, and what a match yields.

use sha2::{Digest, Sha256};

use crate::alert::Evidence;
use crate::correlate::StepBuilder;
use crate::engine::{Emitted, Engine, Found};
use crate::event::identity::{self, Identity};
use crate::event::time::{self, Nanos};
use crate::event::{Event, Stream, Top};
use crate::index::Mask;
use crate::program::Memo;
use crate::tally::Tally;
use crate::value::Tri;
use crate::worker::{Place, text_of};

/// `responseStatus`, as far as routing needs it.
pub(crate) struct Status<'a> {
    /// The code's digits.
    pub(crate) code: Option<&'a [u8]>,
    /// True if it has a message.
    pub(crate) message: bool,
}

/// Reads `responseStatus` in one pass.
pub(crate) fn status<'a>(event: &Event<'a>) -> Status<'a> {
    let mut status = Status { code: None, message: false };
    for (key, value) in event.node(Top::ResponseStatus).into_iter().flat_map(crate::scan::Node::members) {
        match key.raw() {
            b"code" => status.code = Some(value.str_raw().unwrap_or_else(|| value.raw())),
            b"message" => status.message = true,
            _ if key.is("code") => status.code = Some(value.str_raw().unwrap_or_else(|| value.raw())),
            _ if key.is("message") => status.message = true,
            _ => {}
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
            let subresource = text_of(event.object_ref().subresource);
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
        let value = crate::facts::find(fact).map(|id| (crate::facts::get(id).get)(event));
        value.map_or(String::new(), |value| value.display().into_owned())
    };
    (shown("actor.user"), shown("actor.ip"))
}

/// SHA-256, hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

/// What the matches of one event share; made at the first match.
struct Shared {
    identity: Identity,
    evidence: Evidence,
}

impl Shared {
    fn of(event: &Event<'_>, time: Option<Nanos>, place: Place<'_>) -> Shared {
        let audit = event.stream == Stream::Audit;
        Shared {
            identity: identity::of(event),
            evidence: Evidence {
                input: place.input.to_owned(),
                offset: place.offset,
                length: place.length,
                sha256: sha256(place.bytes),
                time: time::format(time.unwrap_or_default()),
                audit_id: audit.then(|| event.text(Top::AuditId).map(std::borrow::Cow::into_owned)).flatten(),
            },
        }
    }
}

/// Evaluates the programs in `live` and emits what matches.
#[allow(clippy::too_many_arguments)] // one call site; a struct would only rename the arguments
pub(crate) fn run(
    engine: &Engine,
    event: &Event<'_>,
    live: &Mask,
    time: Option<Nanos>,
    place: Place<'_>,
    judged: bool,
    tally: &mut Tally,
    out: &mut Vec<Emitted>,
) {
    let mut memo = Memo::new(&engine.tests);
    let mut shared = None;
    let mut unknown = Vec::new();
    for index in members(live) {
        match memo.eval(&engine.detectors[index].condition, event) {
            Tri::False => {}
            Tri::Unknown => unknown.push(index as u32),
            Tri::True => {
                let shared = shared.get_or_insert_with(|| Shared::of(event, time, place));
                emit(engine, index, event, time, shared, &mut memo, out);
            }
        }
    }
    let _ = judged;
    for index in &unknown {
        *tally.blind.entry(*index).or_default() += 1;
    }
}

/// The programs in a set, in order.
fn members(mask: &Mask) -> impl Iterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(word, bits)| {
        let mut bits = *bits;
        std::iter::from_fn(move || {
            (bits != 0).then(|| {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                word * 64 + bit
            })
        })
    })
}

fn emit(
    engine: &Engine,
    index: usize,
    event: &Event<'_>,
    time: Option<Nanos>,
    shared: &Shared,
    memo: &mut Memo<'_>,
    out: &mut Vec<Emitted>,
) {
    let _ = (engine, index, event, time, shared, memo, out, Found::clone, StepBuilder::default);
}
