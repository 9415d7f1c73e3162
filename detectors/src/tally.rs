//! What was seen: the counters behind the summary, one set per worker, merged by addition.

use std::collections::BTreeMap;

use crate::event::time::Nanos;

/// Record formats, as the summary names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// An audit event on its own.
    Audit,
    /// An audit event inside an EventList or a JSON array.
    AuditList,
    /// An audit event inside a string carrier.
    AuditCarried,
    /// A Falco alert.
    Falco,
    /// A Falco alert inside a list or a string carrier.
    FalcoCarried,
    /// One of our own alerts, never judged.
    LapwingAlert,
    /// JSON that is none of these.
    Unrecognized,
}

impl Format {
    /// The name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Format::Audit => "audit",
            Format::AuditList => "audit-list",
            Format::AuditCarried => "audit-carried",
            Format::Falco => "falco",
            Format::FalcoCarried => "falco-carried",
            Format::LapwingAlert => "lapwing-alert",
            Format::Unrecognized => "unrecognized",
        }
    }
}

/// Audit levels as counted.
pub const AUDIT_LEVELS: [&str; 5] = ["None", "Metadata", "Request", "RequestResponse", "missing"];

/// Counters of one worker since they were last taken.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Records judged or recognised, by format.
    pub formats: BTreeMap<Format, u64>,
    /// Lines or values that are no JSON, or fragments of it that are no event; lists that were cut off between two items.
    pub bad: u64,
    /// Events judged although something was wrong with their bytes.
    pub partial: u64,
    /// NUL bytes between records: a hole that a crash or a truncation left, and nobody knows what stood there.
    pub nuls: u64,
    /// Events without `stage`, read as ResponseComplete.
    pub missing_stage: u64,
    /// Events without `apiVersion` (list items never carry one and are not counted).
    pub missing_version: u64,
    /// Events without any time that can be read.
    pub missing_time: u64,
    /// Audit events by level, in [`AUDIT_LEVELS`] order.
    pub levels: [u64; 5],
    /// How often each detector (by index) was unknown.
    pub blind: BTreeMap<u32, u64>,
    /// First and last event time of each minute that has events, by minute since the epoch.
    pub minutes: BTreeMap<i64, (Nanos, Nanos)>,
    /// Falco's internal notices (drops, metrics): health, not attacks.
    pub falco_internal: u64,
    /// The first few records that were not recognised.
    pub samples: Vec<Sample>,
}

/// How many samples of unrecognised records are kept.
pub const MAX_SAMPLES: usize = 10;

/// An unrecognised record, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The input's name.
    pub input: String,
    /// Byte offset in the (decompressed) input.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its top-level keys, at most 16 of at most 64 bytes, or nothing if it is no object.
    pub keys: Vec<String>,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

impl Tally {
    /// Adds `other`.
    pub fn merge(&mut self, other: Tally) {
        for (format, n) in other.formats {
            *self.formats.entry(format).or_default() += n;
        }
        self.bad += other.bad;
        self.partial += other.partial;
        self.nuls += other.nuls;
        self.missing_stage += other.missing_stage;
        self.missing_version += other.missing_version;
        self.missing_time += other.missing_time;
        self.falco_internal += other.falco_internal;
        for (mine, theirs) in self.levels.iter_mut().zip(other.levels) {
            *mine += theirs;
        }
        for (detector, n) in other.blind {
            *self.blind.entry(detector).or_default() += n;
        }
        for (minute, (first, last)) in other.minutes {
            let entry = self.minutes.entry(minute).or_insert((first, last));
            *entry = (entry.0.min(first), entry.1.max(last));
        }
        self.samples.extend(other.samples);
        self.samples.truncate(MAX_SAMPLES);
    }

    /// Records of every format and bad ones.
    pub fn records(&self) -> u64 {
        self.formats.values().sum::<u64>() + self.bad
    }
}

/// What an activity profile counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// Who asked (`user.username`).
    Actor,
    /// The trusted hop's address.
    Source,
    /// The target's namespace.
    Namespace,
}
