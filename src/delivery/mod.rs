//! Between judging and forwarding: what must survive.
//!
//! Guarantees, and what each rests on:
//!
//! - *Nothing is acknowledged before it is handled.* One append to the log makes a batch's alerts, the steps of its
//!   correlations and the positions of its inputs durable together, all or none ([`log`]). An input's position is what the log
//!   says; an HTTP request is answered, and a Kafka offset committed, after the append returned.
//! - *One dead sink delays no other.* Every sink reads the same log at a pace of its own ([`courier`]) and remembers how far
//!   it is ([`cursor`]). What lies between that and the end of the log is the sink's spool.
//! - *Nothing is skipped.* An alert that a receiver will never accept goes to the dead letters ([`dead`]) before the cursor
//!   passes it.
//! - *Duplicates are few and have the same uuid.* A crash loses at most the cursor's last steps.

use std::collections::BTreeMap;

use detectors::engine::Step;
use uuid::Uuid;

pub(crate) mod courier;
pub(crate) mod cursor;
pub(crate) mod dead;
pub(crate) mod fs;
pub(crate) mod group;
pub(crate) mod log;
pub(crate) mod spool;

/// What one append makes durable, all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Positions that have changed: an input's name, and the JSON that only its source understands.
    pub(crate) positions: BTreeMap<String, String>,
    /// Steps that correlations have taken.
    pub(crate) steps: Vec<Step>,
    /// Alerts to be forwarded.
    pub(crate) alerts: Vec<Entry>,
}

/// Begins the names of positions that are no input's: what the run itself has to remember.
pub(crate) const OF_THE_RUN: char = '\u{1}';

/// An alert in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The alert's id.
    pub(crate) uuid: Uuid,
    /// The alert as one line of JSON, without a newline.
    pub(crate) json: String,
}
