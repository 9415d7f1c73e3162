//! The metrics: their names, which are frozen, and what they mean.
//!
//! Units are base units and stand in the name. A counter is registered without `_total`, which the text form adds.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::labels::{
    ByBuild, ByClass, ByCode, ByCommit, ByDetector, ByDrop, ByFile, ByFormat, ByHash, ByInput, ByIntake,
    ByKind, ByLevel, ByMatch, ByOperation, ByOrigin, ByOutput, ByPartition, ByReason, BySuppression,
};

/// A gauge with a fraction.
type Real = Gauge<f64, AtomicU64>;
/// Histograms by label.
type Timed<L> = Family<L, Histogram, fn() -> Histogram>;

/// Seconds: from what a local disk needs to what a receiver is given.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Registers a metric and keeps a handle to it.
fn plain<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a metric that has labels.
fn family<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
    M: Default + std::fmt::Debug + Send + Sync + 'static,
    Family<L, M>: Metric,
{
    plain(registry, name, help, Family::default())
}

/// Registers a histogram of seconds that has labels.
fn timed<L>(registry: &mut Registry, name: &str, help: &str) -> Timed<L>
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
{
    plain(registry, name, help, Family::new_with_constructor(histogram as fn() -> Histogram))
}

/// The process and its configuration.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) reloaded: Gauge,
    pub(super) reloaded_at: Real,
    pub(super) hash: Family<ByHash, Gauge>,
    pub(super) losses: Family<ByClass, Counter>,
    pub(super) durability: Family<ByOperation, Counter>,
    pub(super) backpressure: Counter<f64, AtomicU64>,
    pub(super) certificates: Family<ByInput, Real>,
}

impl Run {
    pub(super) fn register(r: &mut Registry) -> Run {
        let build: Family<ByBuild, Gauge> =
            family(r, "build_info", "Always 1; the labels say which build this is");
        let version = env!("CARGO_PKG_VERSION");
        let (revision, rustc) = (env!("LAPWING_REVISION"), env!("LAPWING_RUSTC"));
        build.get_or_create(&ByBuild { version, revision, rustc }).set(1);
        let started: Real =
            plain(r, "start_time_seconds", "When this run began, since the epoch", Gauge::default());
        started.set(super::seconds_now());
        let run = Run {
            reloaded: plain(
                r,
                "config_last_reload_successful",
                "1 if the last reload worked, 0 if the configuration before it still holds",
                Gauge::default(),
            ),
            reloaded_at: plain(
                r,
                "config_last_reload_success_timestamp_seconds",
                "When the configuration that holds was loaded, since the epoch",
                Gauge::default(),
            ),
            hash: family(
                r,
                "config_hash_info",
                "Always 1; the label is the SHA-256 of the configuration that holds",
            ),
            losses: family(
                r,
                "loss",
                "Possible losses, by kind: each is counted in detail by another metric",
            ),
            durability: family(
                r,
                "durability_errors",
                "Failures to read or write the state directory; what is not durable is not acknowledged",
            ),
            certificates: family(
                r,
                "tls_certificate_expiry_timestamp_seconds",
                "When the certificate of a listener ends, since the epoch",
            ),
            backpressure: plain(
                r,
                "backpressure_seconds",
                "Time for which nothing was read because what had been read could not be passed on",
                Counter::default(),
            ),
        };
        run.reloaded.set(1);
        run
    }
}

/// Inputs.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) records: Family<ByFormat, Counter>,
    pub(super) bytes: Family<ByInput, Counter>,
    pub(super) errors: Family<ByReason, Counter>,
    pub(super) notices: Family<ByReason, Counter>,
    pub(super) truncated: Family<ByInput, Counter>,
    pub(super) dead_letters: Family<ByInput, Counter>,
    pub(super) dead_letters_dropped: Family<ByInput, Counter>,
    pub(super) lag: Family<ByInput, Real>,
    pub(super) last_event: Family<ByInput, Real>,
    pub(super) position: Family<ByFile, Gauge>,
    pub(super) size: Family<ByFile, Gauge>,
    pub(super) open: Family<ByFile, Gauge>,
    pub(super) rotations: Family<ByInput, Counter>,
    pub(super) requests: Family<ByIntake, Counter>,
    pub(super) request_seconds: Timed<ByInput>,
    pub(super) handshakes_failed: Family<ByInput, Counter>,
}

impl Inputs {
    pub(super) fn register(r: &mut Registry) -> Inputs {
        Inputs {
            records: family(r, "input_records", "Records that were recognised, by format"),
            bytes: family(r, "input_bytes", "Bytes that were read, after decompression"),
            errors: family(r, "input_errors", "Records that are no events"),
            notices: family(
                r,
                "input_notices",
                "What happened to the input itself: gaps, truncations, silence, files that cannot be read",
            ),
            truncated: family(
                r,
                "input_events_truncated",
                "Events that were damaged or truncated, and judged on what was left of them",
            ),
            dead_letters: family(r, "input_dlq_records", "Records that are kept in the dead letters"),
            dead_letters_dropped: family(
                r,
                "input_dlq_dropped",
                "Records that are no events and that one batch held too many of to keep them in the dead letters",
            ),
            lag: family(r, "input_lag_seconds", "Now less the time of the event that was judged last"),
            last_event: family(
                r,
                "input_last_event_timestamp_seconds",
                "Time of the event that was judged last, since the epoch",
            ),
            position: family(
                r,
                "file_position_bytes",
                "How far the file is read; what is read may still wait to be handled",
            ),
            size: family(r, "file_size_bytes", "How long the file is"),
            open: family(r, "file_open", "1 if the file is open, 0 if it does not exist or cannot be read"),
            rotations: family(r, "file_rotations", "Rotations that were followed"),
            requests: family(r, "http_requests", "Requests to the intake, by status code of the answer"),
            request_seconds: timed(
                r,
                "http_request_duration_seconds",
                "From the head of a request to the intake to the end of the answer",
            ),
            handshakes_failed: family(
                r,
                "tls_handshakes_failed",
                "Connections to the intake that ended before TLS was agreed on; `-v` shows each",
            ),
        }
    }
}

/// Consumer groups that inputs are members of.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) lag: Family<ByPartition, Gauge>,
    pub(super) assigned: Family<ByInput, Gauge>,
    pub(super) scope: Family<ByInput, Gauge>,
    pub(super) rebalances: Family<ByInput, Counter>,
    pub(super) commits: Family<ByCommit, Counter>,
    pub(super) gap: Family<ByInput, Counter>,
    pub(super) nulls: Family<ByInput, Counter>,
    pub(super) errors: Family<ByInput, Counter>,
    pub(super) again: Family<ByInput, Counter>,
    pub(super) matches: Counter,
    pub(super) refused: Counter,
}

impl Groups {
    pub(super) fn register(r: &mut Registry) -> Groups {
        Groups {
            lag: family(
                r,
                "kafka_lag_messages",
                "Messages of a partition that have not been read yet, as the client told last",
            ),
            assigned: family(r, "kafka_assigned_partitions", "Partitions that this member has"),
            scope: family(
                r,
                "correlation_scope_partial",
                "1 while other members of the group read a part of the topics, so that correlations count only a part",
            ),
            rebalances: family(
                r,
                "kafka_rebalances",
                "How often partitions were given to this member or taken from it",
            ),
            commits: family(r, "kafka_commits", "Commits of offsets, by how they ended"),
            gap: family(
                r,
                "kafka_gap_messages",
                "Offsets that were deleted before they were read, or whose messages are damaged; each gap is an alert",
            ),
            nulls: family(r, "kafka_null_messages", "Messages without a payload, which were passed over"),
            errors: family(r, "kafka_errors", "Errors that the client told of; it goes on by itself"),
            again: family(
                r,
                "kafka_messages_read_again",
                "Messages that were handled before and read again for the windows that reach back to them",
            ),
            matches: plain(
                r,
                "matches_written",
                "Matches that were written to the topic for correlations",
                Counter::default(),
            ),
            refused: plain(
                r,
                "matches_write_errors",
                "How often matches could not be written; they are written again",
                Counter::default(),
            ),
        }
    }
}

/// Judging.
#[derive(Debug)]
pub(super) struct Judging {
    pub(super) loaded: Family<ByOrigin, Gauge>,
    pub(super) seconds: Histogram,
    pub(super) matches: Family<ByMatch, Counter>,
    pub(super) blind: Family<ByDetector, Counter>,
    pub(super) entries: Family<ByKind, Gauge>,
    pub(super) state_bytes: Family<ByKind, Gauge>,
    pub(super) evictions: Family<ByKind, Counter>,
    pub(super) late: Counter,
    pub(super) future: Counter,
    pub(super) alerts: Family<ByLevel, Counter>,
    pub(super) suppressed: Family<BySuppression, Counter>,
}

impl Judging {
    pub(super) fn register(r: &mut Registry) -> Judging {
        Judging {
            loaded: family(
                r,
                "detectors_loaded",
                "Detectors, by where they come from; a silent one needs a list that the configuration lacks",
            ),
            seconds: plain(
                r,
                "event_processing_seconds",
                "From the lane taking a stretch of input up, which a Kafka input has judged before, to what it caused being durable; one observation a stretch",
                histogram(),
            ),
            matches: family(r, "rule_matches", "How often each detector fired"),
            blind: family(
                r,
                "rule_blind",
                "Events that did not show what a detector had to know, mostly because the audit level is too low",
            ),
            entries: family(r, "state_entries", "What correlations hold in memory"),
            state_bytes: family(r, "state_bytes", "Estimate of the memory that this takes"),
            evictions: family(
                r,
                "state_evictions",
                "What correlations forgot for want of memory before its window was over; counts are approximate then",
            ),
            late: plain(
                r,
                "late_events",
                "Events that came too late for their windows and were judged singly",
                Counter::default(),
            ),
            future: plain(
                r,
                "future_events",
                "Events that claimed to be more than five minutes ahead",
                Counter::default(),
            ),
            alerts: family(r, "alerts", "Alerts, before grouping"),
            suppressed: family(r, "alerts_suppressed", "Alerts that were not forwarded on their own"),
        }
    }
}

/// Outputs.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) sent: Family<ByOutput, Counter>,
    pub(super) failed: Family<ByCode, Counter>,
    pub(super) retries: Family<ByOutput, Counter>,
    pub(super) dropped: Family<ByDrop, Counter>,
    pub(super) queue: Family<ByOutput, Gauge>,
    pub(super) seconds: Timed<ByOutput>,
    pub(super) succeeded: Family<ByOutput, Real>,
    pub(super) spool_bytes: Family<ByOutput, Gauge>,
    pub(super) spool_limit: Family<ByOutput, Gauge>,
    pub(super) oldest: Family<ByOutput, Real>,
    pub(super) dead_letters: Family<ByOutput, Counter>,
    pub(super) fallen: Counter,
}

impl Outputs {
    pub(super) fn register(r: &mut Registry) -> Outputs {
        Outputs {
            fallen: plain(
                r,
                "dlq_dropped",
                "Dead letters that had to go to make room for others",
                Counter::default(),
            ),
            sent: family(r, "output_sent", "Alerts that the receiver acknowledged"),
            failed: family(
                r,
                "output_failed",
                "Attempts that failed, by status code or kind of error; they are made again",
            ),
            retries: family(r, "output_retries", "Attempts that were made again"),
            dropped: family(r, "output_dropped", "Alerts that the output will not get"),
            queue: family(r, "output_queue_length", "Alerts that wait for the output"),
            seconds: timed(r, "output_duration_seconds", "From sending to the acknowledgement"),
            succeeded: family(
                r,
                "output_last_success_timestamp_seconds",
                "When the receiver last acknowledged something, since the epoch",
            ),
            spool_bytes: family(r, "spool_bytes", "Bytes that wait on disk for the output"),
            spool_limit: family(
                r,
                "spool_limit_bytes",
                "Bytes that may wait on disk for the output; past it reading stops",
            ),
            oldest: family(
                r,
                "spool_oldest_age_seconds",
                "How long the oldest alert has waited for the output: no longer than since its event, and since nothing waited last in this run",
            ),
            dead_letters: family(
                r,
                "dlq_records",
                "Alerts that the output will never accept and that are kept in the dead letters",
            ),
        }
    }
}
