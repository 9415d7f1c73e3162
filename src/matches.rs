//! The topic by which the two roles of a fleet work together: members that detect write one record to it for every match that a
//! correlation waits for, and members that correlate share its partitions.
//!
//! The key of a record is the correlation and the group, so that whatever must be counted together comes to one member. A
//! chained correlation writes what it fires back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use detectors::correlate::record::Record;
use detectors::event::time::Nanos;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kafka::options::Options;
use crate::kafka::producer::{self, Producer, Settings, is_too_large};
use crate::kafka::{Cluster, Sasl, Tls, place};
use crate::source::kafka;
use crate::units::Text;

/// How long the brokers may take to accept a record before it is sent again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What part of the work a process does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Everything.
    #[default]
    All,
    /// Judges single events, and writes matches that correlations wait for to the topic.
    Detect,
    /// Reads the topic instead of the inputs, and raises the alerts of correlations.
    Correlate,
}

impl Role {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Detect => "detect",
            Role::Correlate => "correlate",
        }
    }
}

/// The topic of matches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `bootstrap_servers`")]
pub(crate) struct Config {
    /// Brokers to begin with: `host:port`, several with commas between.
    #[serde(deserialize_with = "place::servers")]
    pub(crate) bootstrap_servers: Text,
    /// The topic. It must be there; a member that correlates has whole partitions of it.
    #[serde(default = "topic")]
    pub(crate) topic: Text,
    /// The consumer group of those that correlate.
    #[serde(default = "group_id")]
    pub(crate) group_id: Text,
    /// Static membership of one that correlates: a name that no other member has at the same time.
    #[serde(default)]
    pub(crate) group_instance_id: Option<Text>,
    /// A member of which the broker has heard nothing for so long, in milliseconds, loses its partitions.
    #[serde(default)]
    pub(crate) session_timeout_ms: Option<u64>,
    /// Offsets are committed this often, in milliseconds.
    #[serde(default)]
    pub(crate) commit_interval_ms: Option<u64>,
    /// Who we are, to the broker.
    #[serde(default)]
    pub(crate) sasl: Option<Sasl>,
    /// TLS to the broker.
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
    /// Options of librdkafka, passed through.
    #[serde(default)]
    pub(crate) librdkafka_options: Options,
}

fn topic() -> Text {
    Text("lapwing-matches".to_owned())
}

fn group_id() -> Text {
    Text("lapwing-correlate".to_owned())
}

impl Config {
    /// The input of a member that correlates.
    pub(crate) fn input(&self) -> kafka::Config {
        let mut input = kafka::Config::new("matches", &self.bootstrap_servers, &self.topic, &self.group_id);
        // Matches that nobody has read yet are not to be lost.
        input.from = kafka::From::Start;
        input.group_instance_id.clone_from(&self.group_instance_id);
        input.session_timeout_ms = self.session_timeout_ms.unwrap_or(input.session_timeout_ms);
        input.commit_interval_ms = self.commit_interval_ms.unwrap_or(input.commit_interval_ms);
        input.sasl.clone_from(&self.sasl);
        input.tls.clone_from(&self.tls);
        input.librdkafka_options.clone_from(&self.librdkafka_options);
        input
    }

    /// Says what is wrong with it. Files that it names are read.
    ///
    /// # Errors
    /// What, and what to write instead.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.topic.0.is_empty(), "matches.topic is empty: write `topic: lapwing-matches`");
        ensure!(
            !self.topic.0.starts_with('^'),
            "matches.topic: {} is a pattern, and matches go to one topic",
            self.topic.0
        );
        place::topic(&self.topic.0).context("matches.topic")?;
        self.input().check().context("matches")?;
        self.settings().check().context("matches")
    }

    /// What writes to the topic.
    fn settings(&self) -> Settings {
        let cluster = Cluster {
            bootstrap_servers: self.bootstrap_servers.clone(),
            sasl: self.sasl.clone(),
            tls: self.tls.clone(),
            options: self.librdkafka_options.clone(),
        };
        let (topic, compression) = (self.topic.0.clone(), "lz4".to_owned());
        Settings { of: "matches".into(), cluster, topic, timeout: TIMEOUT, compression, together: true }
    }
}

/// Whatever windows of correlations need is read again when a partition of the topic is given to a member.
pub(crate) fn look_back(reach: Nanos) -> kafka::LookBack {
    kafka::LookBack { reach, time_of: detectors::correlate::record::time_of }
}

/// The way into the topic.
pub(crate) struct Matches {
    producer: Producer,
    topic: String,
}

impl Matches {
    /// Connects when the first record is written.
    ///
    /// # Errors
    /// A setting is wrong, or a file cannot be read.
    pub(crate) fn new(config: &Config) -> Result<Matches> {
        let producer = Producer::new(config.settings()).context("matches")?;
        Ok(Matches { producer, topic: config.topic.0.clone() })
    }

    /// Writes records, until all replicas in sync have them. Yields those that are not accepted, and why.
    pub(crate) async fn put(&mut self, records: Vec<Record>) -> Option<(Vec<Record>, String)> {
        let sent = self.producer.send(&records, outgoing).await;
        let fatal = self.producer.revive();
        let (mut left, mut reason) = (Vec::new(), None);
        for (record, outcome) in records.into_iter().zip(sent) {
            if let Err(error) = outcome {
                left.push(record);
                reason = Some(error);
            }
        }
        let reason = reason.map(|error| fatal.unwrap_or_else(|| self.explained(&error)));
        reason.map(|reason| (left, reason))
    }

    fn explained(&self, error: &KafkaError) -> String {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                format!("{error}: make the topic {} first", self.topic)
            }
            _ if is_too_large(error) => {
                format!("{error}: raise max.message.bytes of the topic {}", self.topic)
            }
            _ => error.to_string(),
        }
    }
}

fn outgoing(record: &Record) -> producer::Record<'_> {
    producer::Record { key: (&record.key[..]).into(), payload: (&record.value[..]).into(), headers: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told() {
        let check = |yaml: &str, expected: &str| {
            let read = yaml_serde::from_str::<Config>(yaml).map_err(Into::into);
            let error = format!("{:#}", read.and_then(|config| config.check()).unwrap_err());
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        };
        check("{bootstrap_servers: 'SASL_SSL://u:hunter2@a'}", "bootstrap_servers: `@` has no place there");
        check("{bootstrap_servers: a, topic: ''}", "matches.topic is empty");
        check("{bootstrap_servers: a, topic: '^m'}", "^m is a pattern, and matches go to one topic");
        check("{bootstrap_servers: a, topic: 'm m'}", "matches.topic: `m m` is no name of a topic");
        check("{bootstrap_servers: a, group_id: ''}", "matches: input `matches`: group_id is empty");
        check("{bootstrap_servers: a, librdkafka_options: {transactional.id: m}}", "begins no transactions");
    }
}
