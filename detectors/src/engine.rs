//! Events in, alerts out: the engine joins skim, index, programs and alerts.

use crate::alert::Alert;
use crate::event::time::Nanos;
use crate::tally::{Dimension, Tally};

/// The compiled detectors. Immutable and shared by all workers.
pub struct Engine {}

/// One thread's judge: buffers, memo tables and counters.
pub struct Worker<'e> {
    engine: &'e Engine,
}

/// Where the first byte of a piece of input lies.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'i> {
    /// The input's name.
    pub input: &'i str,
    /// Byte offset in the (decompressed) input.
    pub offset: u64,
}

/// How much of a record the bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// It was cut off, or was ended by the start of another record: judged on what is there, counted as bad.
    Fragment,
    /// The bytes are its head and, from `tail` on, its tail; the record's true length is `length`.
    Oversize {
        /// Where in the bytes the tail begins.
        tail: usize,
        /// Length of the record in the input.
        length: u64,
    },
}

/// An alert and what the shell needs to sort and filter it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Event time.
    pub time: Nanos,
    /// Index into [`Engine::detectors`].
    pub detector: u32,
    /// The alert.
    pub alert: Alert,
}

/// A match that a correlation waits for, packed so that it can be sorted and spilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Event time.
    pub time: Nanos,
    /// The packed step.
    pub bytes: Vec<u8>,
}

/// What judging yields.
#[derive(Debug, Clone)]
pub enum Emitted {
    /// An alert.
    Alert(Box<Found>),
    /// A step of a correlation.
    Step(Step),
}

impl Engine {
    /// A judge for one thread.
    pub fn worker(&self) -> Worker<'_> {
        Worker { engine: self }
    }
}

impl Worker<'_> {
    /// Judges whole lines of JSON. Stops before a line that opens a value and does not close it, and returns where it begins:
    /// from there on the input is not JSON lines and must be framed ([`crate::event::frame`]).
    pub fn lines(&mut self, origin: Origin<'_>, bytes: &[u8], out: &mut Vec<Emitted>) -> Option<usize> {
        let _ = (self.engine, origin, bytes, out);
        None
    }

    /// Judges one record that the caller has framed.
    pub fn record(&mut self, origin: Origin<'_>, bytes: &[u8], extent: Extent, out: &mut Vec<Emitted>) {
        let _ = (origin, bytes, extent, out);
    }

    /// The counters since they were last taken.
    pub fn take_tally(&mut self) -> Tally {
        Tally::default()
    }

    /// Hands the activity since the last call to `add`: dimension, name, events.
    pub fn drain_profile(&mut self, add: &mut dyn FnMut(Dimension, &str, u64)) {
        let _ = add;
    }
}
