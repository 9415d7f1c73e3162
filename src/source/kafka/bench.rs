//! Messages are judged by the thread that polls, straight from where librdkafka has put them: on their way to another thread they
//! would be copied, and come from another core's cache.

use std::sync::Arc;

use detectors::engine::{Engine, Worker};

use super::{JUDGED, PACKED, unpack};
use crate::source::{Content, Engines};
use crate::stream::{DEAD_LETTERS, Judged, Stream};

/// So much that was found or rejected is handed over at once: less than are kept of what is rejected.
const AT_ONCE: usize = DEAD_LETTERS * 24 / 25;
/// So much memory is kept for the next message that is packed.
const KEPT: usize = 1 << 20;

/// Where messages are judged.
pub(super) struct Bench<'e> {
    engine: &'e Arc<Engine>,
    in_force: Engines,
    worker: Worker<'e>,
    /// The last message that was packed.
    unpacked: Vec<u8>,
}

impl<'e> Bench<'e> {
    /// One with these detectors, which are those that were in force when it was looked last.
    pub(super) fn new(engine: &'e Arc<Engine>, in_force: Engines) -> Bench<'e> {
        let worker = engine.worker().with_samples(DEAD_LETTERS).without_profile();
        Bench { engine, in_force, worker, unpacked: Vec::new() }
    }

    /// True if other detectors are in force by now. If nobody tells of others any more, there will be none.
    pub(super) fn is_old(&self) -> bool {
        self.in_force.has_changed().unwrap_or(false)
    }

    /// What nothing has been judged into yet.
    pub(super) fn content(&self) -> Content {
        Content::Judged(Arc::clone(self.engine), Box::default())
    }

    /// Judges the payload of a message of a partition. Returns how many bytes that were, and for how many it counts.
    pub(super) fn judge(
        &mut self,
        of: (&str, &str),
        offset: u64,
        payload: &[u8],
        judged: &mut Judged,
    ) -> (usize, usize) {
        let before = judged.emitted.len() + judged.rejected.len();
        let bytes = if payload.starts_with(PACKED) {
            self.unpacked.clear();
            self.unpacked.shrink_to(KEPT);
            unpack(payload, &mut self.unpacked);
            &self.unpacked
        } else {
            payload
        };
        Stream::whole_message(&mut self.worker, of, offset, bytes, judged);
        let found = judged.emitted.len() + judged.rejected.len() - before;
        (bytes.len(), bytes.len() + found * JUDGED.div_ceil(AT_ONCE))
    }

    /// Nothing more is judged into it: what was seen goes with it.
    pub(super) fn close(&mut self, content: &mut Content) {
        if let Content::Judged(_, judged) = content {
            judged.tally = self.worker.take_tally();
            // Of these the last is all that a live run wants to know.
            let last = judged.tally.minutes.pop_last();
            judged.tally.minutes = last.into_iter().collect();
        }
    }
}
