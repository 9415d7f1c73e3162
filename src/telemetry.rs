//! Every counter of a live run, and the log line that goes with it.
//!
//! Guarantees:
//!
//! - A counter has one method, which counts and, where an operator should know, logs; nobody else counts. Repeats of the same
//!   kind for the same input or output are logged once a minute, with their number; the counter is always exact.
//! - The number of series is bounded whatever the events say: labels hold names from the configuration, names of detectors and
//!   words of closed sets, never the text of an event, and each kind of name has a limit ([`labels::Names`]) past which
//!   everything counts as `other`.
//! - What depends on the clock (lag, the age of a spool) is computed when the metrics are asked for, so that it grows while
//!   nothing moves.
//!
//! ERROR says that data is lost or that an operator must act, WARN that something odd was recovered from, INFO what the process
//! does with itself. `docs/metrics.md` is made from the registry by the tests here.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use detectors::correlate::Stats;
use detectors::engine::Detector;
use detectors::event::time::{Nanos, SECOND};
use detectors::level::Level;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::source::{Notice, What};
use crate::text::{clipped, for_terminal};
use labels::{
    ByClass, ByCode, ByDetector, ByFile, ByFormat, ByHash, ByInput, ByIntake, ByKind, ByLevel, ByMatch,
    ByOperation, ByOrigin, ByOutput, ByReason, BySuppression, Name, Names,
};
use metrics::{Groups, Inputs, Judging, Outputs, Run};
use repeats::Repeats;

mod groups;
mod labels;
mod metrics;
mod process;
mod repeats;

#[cfg(test)]
mod tests;

/// Media type of what [`Telemetry::encode`] returns.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Characters of a foreign text (an error of a receiver, a path) that a line of log shows.
const SHOWN: usize = 300;

/// Kinds of possible loss. Each has a counter of its own too; this is the one number to look at.
#[derive(Debug, Clone, Copy)]
enum Loss {
    InputGap,
    InputSilent,
    IntakeRefused,
    DeadLetter,
    AlertDropped,
    StatePressure,
    LateEvent,
    RecordDropped,
}

impl Loss {
    const ALL: [Loss; 8] = [
        Loss::InputGap,
        Loss::InputSilent,
        Loss::IntakeRefused,
        Loss::DeadLetter,
        Loss::AlertDropped,
        Loss::StatePressure,
        Loss::LateEvent,
        Loss::RecordDropped,
    ];

    fn name(self) -> &'static str {
        match self {
            Loss::InputGap => "input_gap",
            Loss::InputSilent => "input_silent",
            Loss::IntakeRefused => "intake_refused",
            Loss::DeadLetter => "dead_letter",
            Loss::AlertDropped => "alert_dropped",
            Loss::StatePressure => "state_pressure",
            Loss::LateEvent => "late_event",
            Loss::RecordDropped => "record_dropped",
        }
    }
}

/// The label of a notice.
fn reason(what: What) -> &'static str {
    match what {
        What::Gap => "input_gap",
        What::Truncated => "input_truncated",
        What::Unreadable => "input_unreadable",
        What::Silent => "input_silent",
    }
}

const NOTICES: [What; 4] = [What::Gap, What::Truncated, What::Unreadable, What::Silent];

/// The counters.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Registry,
    run: Run,
    inputs: Inputs,
    groups: Groups,
    judging: Judging,
    outputs: Outputs,
    names: Known,
    clocks: Mutex<Clocks>,
    repeats: Repeats,
}

/// The names that labels may have.
#[derive(Debug)]
struct Known {
    inputs: Names,
    paths: Names,
    partitions: Names,
    detectors: Names,
    outputs: Names,
    codes: Names,
}

/// What is told against the clock when the metrics are asked for.
#[derive(Debug, Default)]
struct Clocks {
    /// Time of the last event, by input.
    events: HashMap<Name, Nanos>,
    /// Since when the oldest alert has waited, by output.
    oldest: HashMap<Name, Nanos>,
    /// Since when an output has been failing.
    failing: HashMap<Name, Instant>,
}

impl Telemetry {
    /// All counters at their beginnings.
    pub(crate) fn new() -> Arc<Telemetry> {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("lapwing");
        let run = Run::register(ours);
        let inputs = Inputs::register(ours);
        let groups = Groups::register(ours);
        let judging = Judging::register(ours);
        let outputs = Outputs::register(ours);
        registry.register_collector(Box::new(process::Process));
        for loss in Loss::ALL {
            run.losses.get_or_create(&ByClass { class: loss.name() }).inc_by(0);
        }
        Arc::new(Telemetry {
            registry,
            run,
            inputs,
            groups,
            judging,
            outputs,
            names: Known {
                inputs: Names::new(256),
                paths: Names::new(256),
                partitions: Names::new(4096),
                detectors: Names::new(4096),
                outputs: Names::new(256),
                codes: Names::new(64),
            },
            clocks: Mutex::default(),
            repeats: Repeats::default(),
        })
    }

    /// The metrics as text of type [`MEDIA_TYPE`], as they stand at `now`.
    pub(crate) fn encode(&self, now: SystemTime) -> String {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as Nanos;
        let since = |time: Nanos| now.saturating_sub(time).max(0) as f64 / SECOND as f64;
        {
            let clocks = self.clocks();
            for (input, time) in &clocks.events {
                self.inputs.lag.get_or_create(&ByInput { input: input.clone() }).set(since(*time));
            }
            for (output, time) in &clocks.oldest {
                self.outputs.oldest.get_or_create(&ByOutput { output: output.clone() }).set(since(*time));
            }
        }
        let mut out = String::with_capacity(32 << 10);
        text::encode(&mut out, &self.registry).expect("writing to a string cannot fail");
        out
    }

    /// Held for the time of a few assignments. What a panic left behind is whole, since each is one.
    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(&self, name: &str) -> ByInput {
        ByInput { input: self.names.inputs.name(name) }
    }

    fn output(&self, name: &str) -> ByOutput {
        ByOutput { output: self.names.outputs.name(name) }
    }

    /// Dead letters that had to go to make room for others, since the run began.
    pub(crate) fn dead_letters_fallen(&self, all: u64) {
        self.outputs.fallen.inc_by(all.saturating_sub(self.outputs.fallen.get()));
    }

    fn lost(&self, loss: Loss, count: u64) {
        self.run.losses.get_or_create(&ByClass { class: loss.name() }).inc_by(count);
    }
}

/// What the process does with itself.
impl Telemetry {
    /// The configuration that holds, by the SHA-256 of its text: said at start and after a reload.
    pub(crate) fn configured(&self, sha256: &str) {
        // The old value is no series any more, so that there is always one.
        self.run.hash.clear();
        self.run.hash.get_or_create(&ByHash { sha256: sha256.to_owned() }).set(1);
        self.run.reloaded_at.set(seconds_now());
    }

    /// A reload: what changed, or why everything stays as it was.
    pub(crate) fn reloaded(&self, result: Result<&str, &str>) {
        match result {
            Ok(what) => {
                self.run.reloaded.set(1);
                self.run.reloaded_at.set(seconds_now());
                tracing::info!("reloaded: {}", shown(what));
            }
            Err(why) => {
                self.run.reloaded.set(0);
                let why = shown(why);
                tracing::error!(%why, "the reload failed and everything stays as it was: correct it and reload again");
            }
        }
    }

    /// The detectors that judge from now on.
    pub(crate) fn detectors(&self, all: &[Detector]) {
        let loaded = &self.judging.loaded;
        loaded.clear();
        for origin in ["native", "sigma"] {
            for state in ["enabled", "silent"] {
                loaded.get_or_create(&ByOrigin { origin, state }).set(0);
            }
        }
        for detector in all.iter().filter(|detector| !detector.hidden) {
            let origin = if detector.origin.starts_with("builtin") { "native" } else { "sigma" };
            let state = if detector.silent.is_empty() { "enabled" } else { "silent" };
            loaded.get_or_create(&ByOrigin { origin, state }).inc();
        }
    }

    /// The state directory could not be used. `doing` says for what, in words of a closed set: `the log`, `a cursor`.
    pub(crate) fn durability_error(&self, doing: &'static str, error: &io::Error) {
        self.run.durability.get_or_create(&ByOperation { operation: doing }).inc();
        if let Some(due) = self.repeats.due("durability", doing, Instant::now()) {
            tracing::error!(
                doing,
                %error,
                repeats = due.repeats,
                "the state directory cannot be used; what is not durable is not acknowledged: check its disk and its rights"
            );
        }
    }

    /// The state directory is gone from its place, or is there again.
    pub(crate) fn state_in_place(&self, in_place: bool) {
        if in_place {
            tracing::info!("the state directory is in its place again");
            return;
        }
        self.run.durability.get_or_create(&ByOperation { operation: "the state directory" }).inc();
        tracing::error!(
            "the state directory was removed or replaced: positions and waiting alerts end with this process; put it back, \
             or let the outputs catch up and restart"
        );
    }

    /// The certificate of a listener, and when it ends.
    pub(crate) fn certificate(&self, input: &str, expires: SystemTime) {
        let by = ByInput { input: self.names.inputs.name(input) };
        let since = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.run.certificates.get_or_create(&by).set(since.as_secs_f64());
    }

    /// Reading stood still so long because what was read could not be passed on.
    pub(crate) fn backpressure(&self, waited: Duration) {
        self.run.backpressure.inc_by(waited.as_secs_f64());
    }
}

/// Inputs.
impl Telemetry {
    /// An input is there. Its series begin at zero, so that the first of each kind is seen as an increase.
    pub(crate) fn input_opened(&self, input: &str) {
        let by = self.input(input);
        self.inputs.bytes.get_or_create(&by).inc_by(0);
        self.inputs.truncated.get_or_create(&by).inc_by(0);
        self.inputs.dead_letters.get_or_create(&by).inc_by(0);
        self.inputs.dead_letters_dropped.get_or_create(&by).inc_by(0);
        self.input_errors(&by, "unparseable", 0);
        for what in NOTICES {
            self.input_notices(&by, reason(what), 0);
        }
    }

    /// Records of a format ([`detectors::tally::Format::name`]).
    pub(crate) fn records(&self, input: &str, format: &'static str, records: u64) {
        let input = self.names.inputs.name(input);
        self.inputs.records.get_or_create(&ByFormat { input, format }).inc_by(records);
    }

    /// Bytes that were read.
    pub(crate) fn bytes(&self, input: &str, bytes: u64) {
        self.inputs.bytes.get_or_create(&self.input(input)).inc_by(bytes);
    }

    /// Records that are no events.
    pub(crate) fn bad(&self, input: &str, records: u64) {
        if records == 0 {
            return;
        }
        self.input_errors(&self.input(input), "unparseable", records);
        if let Some(due) = self.repeats.due("bad", input, Instant::now()) {
            let repeats = due.repeats;
            tracing::warn!(input, records, repeats, "records that are no events: see the dead letters");
        }
    }

    /// Events that were judged although they were damaged or truncated.
    pub(crate) fn partial(&self, input: &str, records: u64) {
        if records == 0 {
            return;
        }
        self.inputs.truncated.get_or_create(&self.input(input)).inc_by(records);
        if let Some(due) = self.repeats.due("partial", input, Instant::now()) {
            let repeats = due.repeats;
            tracing::warn!(
                input,
                records,
                repeats,
                "damaged or truncated events, judged on what is left of them"
            );
        }
    }

    /// A record of the input went to the dead letters.
    pub(crate) fn input_dead_letter(&self, input: &str) {
        self.inputs.dead_letters.get_or_create(&self.input(input)).inc();
        self.lost(Loss::DeadLetter, 1);
    }

    /// Records that are no events and are not in the dead letters either, because one batch held too many.
    pub(crate) fn input_dead_letters_dropped(&self, input: &str, records: u64) {
        if records == 0 {
            return;
        }
        self.inputs.dead_letters_dropped.get_or_create(&self.input(input)).inc_by(records);
        self.lost(Loss::RecordDropped, records);
        if let Some(due) = self.repeats.due("dead_letters_dropped", input, Instant::now()) {
            let repeats = due.repeats;
            tracing::error!(
                input,
                records,
                repeats,
                "too many records at once are no events: these are not in the dead letters"
            );
        }
    }

    /// The time of the event that was judged last.
    pub(crate) fn last_event(&self, input: &str, time: Nanos) {
        let by = self.input(input);
        self.inputs.last_event.get_or_create(&by).set(time as f64 / SECOND as f64);
        self.clocks().events.insert(by.input, time);
    }

    /// Something about an input that an operator must know.
    pub(crate) fn notice(&self, notice: &Notice) {
        let Notice { input, what, message, .. } = notice;
        self.input_notices(&self.input(input), reason(*what), 1);
        match what {
            What::Gap => self.lost(Loss::InputGap, 1),
            What::Silent => self.lost(Loss::InputSilent, 1),
            What::Truncated | What::Unreadable => {}
        }
        let Some(due) = self.repeats.due(reason(*what), input, Instant::now()) else { return };
        let (input, message, repeats) = (&**input, shown(message), due.repeats);
        match what {
            What::Gap => tracing::error!(input, repeats, "a part of the input is lost: {message}"),
            What::Unreadable => tracing::error!(input, repeats, "the input cannot be read: {message}"),
            What::Truncated => tracing::warn!(input, repeats, "the input was truncated: {message}"),
            What::Silent => tracing::warn!(input, repeats, "the input has fallen silent: {message}"),
        }
    }

    /// A request to the intake was answered.
    pub(crate) fn intake(&self, input: &str, code: u16, elapsed: Duration) {
        let by = self.input(input);
        self.inputs.requests.get_or_create(&ByIntake { input: by.input.clone(), code }).inc();
        self.inputs.request_seconds.get_or_create(&by).observe(elapsed.as_secs_f64());
        if !matches!(code, 413 | 429 | 503) {
            return;
        }
        self.lost(Loss::IntakeRefused, 1);
        if let Some(due) = self.repeats.due("intake", input, Instant::now()) {
            tracing::warn!(
                input,
                code,
                repeats = due.repeats,
                "a request was refused; its sender may give it up"
            );
        }
    }

    /// A client and we did not agree on TLS. Probes and scanners that only connect do this all day, so it is no warning.
    pub(crate) fn handshake_failed(&self, input: &str, peer: IpAddr, error: &io::Error) {
        self.inputs.handshakes_failed.get_or_create(&self.input(input)).inc();
        tracing::debug!(input, %peer, %error, "a TLS handshake failed");
    }

    /// How far a file is read, and how long it is. `path` is as the configuration calls it: rotated files come and go.
    pub(crate) fn file(&self, input: &str, path: &str, position: u64, size: u64) {
        let by = self.file_labels(input, path);
        self.inputs.position.get_or_create(&by).set(position as i64);
        self.inputs.size.get_or_create(&by).set(size as i64);
        self.inputs.open.get_or_create(&by).set(1);
    }

    /// A file was rotated.
    pub(crate) fn rotated(&self, input: &str) {
        self.inputs.rotations.get_or_create(&self.input(input)).inc();
    }

    fn file_labels(&self, input: &str, path: &str) -> ByFile {
        ByFile { input: self.names.inputs.name(input), path: self.names.paths.name(path) }
    }

    fn input_errors(&self, by: &ByInput, reason: &'static str, count: u64) {
        self.inputs.errors.get_or_create(&ByReason { input: by.input.clone(), reason }).inc_by(count);
    }

    fn input_notices(&self, by: &ByInput, reason: &'static str, count: u64) {
        self.inputs.notices.get_or_create(&ByReason { input: by.input.clone(), reason }).inc_by(count);
    }
}

/// Judging.
impl Telemetry {
    /// From the moment that a stretch of input was there to the moment that what it caused was durable.
    pub(crate) fn processed(&self, elapsed: Duration) {
        self.judging.seconds.observe(elapsed.as_secs_f64());
    }

    /// A detector has fired.
    pub(crate) fn alert(&self, detector: &str, level: Level) {
        let detector = self.names.detectors.name(detector);
        self.judging.matches.get_or_create(&ByMatch { detector, level: level.name() }).inc();
        self.judging.alerts.get_or_create(&ByLevel { level: level.name() }).inc();
    }

    /// So many events did not show what a detector had to know.
    pub(crate) fn blind(&self, detector: &str, events: u64) {
        let detector = self.names.detectors.name(detector);
        self.judging.blind.get_or_create(&ByDetector { detector }).inc_by(events);
    }

    /// Alerts that were not forwarded, for a reason of a closed set: `repeat`, `duplicate`, `rate_limit`,
    /// `min_level`.
    pub(crate) fn suppressed(&self, reason: &'static str, alerts: u64) {
        self.judging.suppressed.get_or_create(&BySuppression { reason }).inc_by(alerts);
    }

    /// Steps of correlations that the log had to drop before their time, for want of room, since the run began.
    pub(crate) fn steps_dropped(&self, all: u64) {
        let dropped = self.judging.evictions.get_or_create(&ByKind { kind: "steps" });
        dropped.inc_by(all.saturating_sub(dropped.get()));
    }

    /// What the same correlator went through between two looks at it.
    pub(crate) fn correlation(&self, before: &Stats, now: &Stats) {
        let evicted = now.evicted.saturating_sub(before.evicted);
        let late = now.late.saturating_sub(before.late);
        let groups = ByKind { kind: "groups" };
        self.judging.entries.get_or_create(&groups).set(now.groups as i64);
        self.judging.state_bytes.get_or_create(&groups).set(now.bytes as i64);
        self.judging.evictions.get_or_create(&groups).inc_by(evicted);
        self.judging.late.inc_by(late);
        self.judging.future.inc_by(now.future.saturating_sub(before.future));
        self.lost(Loss::StatePressure, evicted);
        self.lost(Loss::LateEvent, late);
        if evicted == 0 {
            return;
        }
        if let Some(due) = self.repeats.due("evicted", "", Instant::now()) {
            let repeats = due.repeats;
            tracing::warn!(
                evicted,
                repeats,
                "correlations hold too many groups; counts are approximate for a while"
            );
        }
    }
}

/// Outputs.
impl Telemetry {
    /// An output is there, and may hold so many bytes on disk. Its series begin at zero.
    pub(crate) fn output_opened(&self, output: &str, spool_limit: u64) {
        let by = self.output(output);
        self.outputs.sent.get_or_create(&by).inc_by(0);
        self.outputs.retries.get_or_create(&by).inc_by(0);
        self.outputs.dead_letters.get_or_create(&by).inc_by(0);
        self.outputs.spool_limit.get_or_create(&by).set(spool_limit as i64);
        self.spool(output, 0, 0);
    }

    /// The receiver has acknowledged alerts.
    pub(crate) fn sent(&self, output: &str, alerts: u64, elapsed: Duration) {
        let by = self.output(output);
        self.outputs.sent.get_or_create(&by).inc_by(alerts);
        self.outputs.seconds.get_or_create(&by).observe(elapsed.as_secs_f64());
        self.outputs.succeeded.get_or_create(&by).set(seconds_now());
        let since = self.clocks().failing.remove(&by.output);
        if let Some(since) = since {
            tracing::info!(output, failed_for = ?since.elapsed(), "the output works again");
        }
    }

    /// An attempt has failed and will be made again.
    pub(crate) fn failed(&self, output: &str, reason: &str) {
        let output_name = self.names.outputs.name(output);
        let code = self.names.codes.name(&code(reason));
        self.outputs.failed.get_or_create(&ByCode { output: output_name.clone(), code }).inc();
        self.clocks().failing.entry(output_name).or_insert_with(Instant::now);
        if let Some(due) = self.repeats.due("failed", output, Instant::now()) {
            let (reason, repeats) = (shown(reason), due.repeats);
            tracing::warn!(output, %reason, repeats, "the output does not accept alerts; they wait and are sent again");
        }
    }

    /// An attempt was made again.
    pub(crate) fn retried(&self, output: &str) {
        self.outputs.retries.get_or_create(&self.output(output)).inc();
    }

    /// Alerts that the output will not get, for a reason of a closed set.
    pub(crate) fn dropped(&self, output: &str, reason: &'static str, alerts: u64) {
        let by = self.output(output);
        self.outputs.dropped.get_or_create(&labels::ByDrop { output: by.output, reason }).inc_by(alerts);
        self.lost(Loss::AlertDropped, alerts);
        if let Some(due) = self.repeats.due("dropped", output, Instant::now()) {
            tracing::error!(output, reason, alerts, repeats = due.repeats, "alerts were dropped");
        }
    }

    /// An alert that the output will never accept went to the dead letters.
    pub(crate) fn dead_letter(&self, output: &str, reason: &str) {
        self.outputs.dead_letters.get_or_create(&self.output(output)).inc();
        self.lost(Loss::DeadLetter, 1);
        if let Some(due) = self.repeats.due("dead_letter", output, Instant::now()) {
            let (reason, repeats) = (shown(reason), due.repeats);
            tracing::error!(output, %reason, repeats, "an alert cannot be delivered and is kept in the dead letters");
        }
    }

    /// What waits for an output: alerts and their bytes.
    pub(crate) fn spool(&self, output: &str, alerts: u64, bytes: u64) {
        let by = self.output(output);
        self.outputs.queue.get_or_create(&by).set(alerts as i64);
        self.outputs.spool_bytes.get_or_create(&by).set(bytes as i64);
        if alerts == 0 {
            self.spool_oldest(output, None);
        }
    }

    /// The spool of an output is full, and nothing more is read.
    pub(crate) fn spool_full(&self, output: &str) {
        if let Some(due) = self.repeats.due("spool_full", output, Instant::now()) {
            let repeats = due.repeats;
            tracing::error!(
                output,
                repeats,
                "the spool is full: nothing more is read until its receiver takes alerts"
            );
        }
    }

    /// Since when the oldest alert that waits for an output has waited, at the earliest, if one waits.
    pub(crate) fn spool_oldest(&self, output: &str, since: Option<Nanos>) {
        let by = self.output(output);
        if let Some(time) = since {
            self.clocks().oldest.insert(by.output, time);
            return;
        }
        self.clocks().oldest.remove(&by.output);
        self.outputs.oldest.get_or_create(&by).set(0.0);
    }
}

/// The time, as Prometheus wants it.
fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A text from outside, as far as a line of log shows it.
fn shown(text: &str) -> String {
    for_terminal(&clipped(text, SHOWN)).into_owned()
}

/// The label for the reason of a failure, which may quote a receiver: a status code, or a word for what went wrong.
fn code(reason: &str) -> String {
    let status = reason
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.len() == 3 && word.parse::<u16>().is_ok_and(|code| (100..600).contains(&code)));
    if let Some(status) = status {
        return status.to_owned();
    }
    let lower = reason.to_ascii_lowercase();
    let known = [
        ("timed out", "timeout"),
        ("timeout", "timeout"),
        ("refused", "connection_refused"),
        ("reset", "connection_reset"),
        ("broken pipe", "connection_reset"),
        ("certificate", "tls"),
        ("tls", "tls"),
        ("dns", "dns"),
        ("resolve", "dns"),
        ("no space", "no_space"),
    ];
    known.iter().find(|(sign, _)| lower.contains(sign)).map_or("error", |(_, word)| word).to_owned()
}
