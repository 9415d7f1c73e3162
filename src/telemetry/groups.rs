//! What is counted of consumer groups.

use std::time::Instant;

use super::labels::{ByCommit, ByPartition};
use super::{Telemetry, shown};

impl Telemetry {
    /// An input is a member of a group: what it counts begins at 0.
    pub(crate) fn member(&self, input: &str) {
        let by = self.input(input);
        let groups = &self.groups;
        for counter in [&groups.rebalances, &groups.gap, &groups.nulls, &groups.errors, &groups.again] {
            counter.get_or_create(&by).inc_by(0);
        }
        for result in ["ok", "error"] {
            self.groups.commits.get_or_create(&ByCommit { input: by.input.clone(), result }).inc_by(0);
        }
    }

    /// How many messages of a partition, `topic/number`, have not been read.
    pub(crate) fn partition_lag(&self, input: &str, partition: &str, messages: i64) {
        let (input, partition) = (self.names.inputs.name(input), self.names.partitions.name(partition));
        self.groups.lag.get_or_create(&ByPartition { input, partition }).set(messages);
    }

    /// A partition is no longer this member's.
    pub(crate) fn partition_gone(&self, input: &str, partition: &str) {
        let (input, partition) = (self.names.inputs.name(input), self.names.partitions.name(partition));
        self.groups.lag.remove(&ByPartition { input, partition });
    }

    /// Partitions were given to the member or taken from it; it has so many now.
    pub(crate) fn rebalanced(&self, input: &str, partitions: usize) {
        let by = self.input(input);
        self.groups.rebalances.get_or_create(&by).inc();
        self.groups.assigned.get_or_create(&by).set(partitions as i64);
        tracing::info!(input, partitions, "the partitions of the group were distributed anew");
    }

    /// Whether others read partitions of the same topics, so that correlations see only a part.
    pub(crate) fn scope(&self, input: &str, partial: bool) {
        let scope = self.groups.scope.get_or_create(&self.input(input));
        if scope.set(i64::from(partial)) == 0 && partial {
            tracing::warn!(
                input,
                "other members read partitions of these topics: correlations count only what this member reads"
            );
        }
    }

    /// Offsets were committed, or not.
    pub(crate) fn committed(&self, input: &str, ok: bool) {
        let (input, result) = (self.names.inputs.name(input), if ok { "ok" } else { "error" });
        self.groups.commits.get_or_create(&ByCommit { input, result }).inc();
    }

    /// Messages were deleted before they were read. The notice of it is told and counted as every other.
    pub(crate) fn retention_gap(&self, input: &str, messages: u64) {
        self.groups.gap.get_or_create(&self.input(input)).inc_by(messages);
    }

    /// A message without a payload.
    pub(crate) fn null_message(&self, input: &str) {
        self.groups.nulls.get_or_create(&self.input(input)).inc();
    }

    /// A message was read again for the windows that reach back to it.
    pub(crate) fn message_again(&self, input: &str) {
        self.groups.again.get_or_create(&self.input(input)).inc();
    }

    /// Matches were written to the topic.
    pub(crate) fn matches_written(&self, matches: u64) {
        self.groups.matches.inc_by(matches);
    }

    /// Matches could not be written to the topic; they are written again.
    pub(crate) fn matches_refused(&self, error: &str) {
        self.groups.refused.inc();
        if let Some(due) = self.repeats.due("matches", "", Instant::now()) {
            let (error, repeats) = (shown(error), due.repeats);
            tracing::error!(repeats, "matches cannot be written, and nothing more is read: {error}");
        }
    }

    /// The client told of an error from which it recovers by itself.
    pub(crate) fn broker_error(&self, input: &str, error: &str) {
        self.groups.errors.get_or_create(&self.input(input)).inc();
        if let Some(due) = self.repeats.due("kafka", input, Instant::now()) {
            let (error, repeats) = (shown(error), due.repeats);
            tracing::warn!(input, repeats, "Kafka: {error}");
        }
    }
}
