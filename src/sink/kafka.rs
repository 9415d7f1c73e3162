//! A topic of a Kafka cluster.
//!
//! An alert counts as accepted once all replicas in sync have it (`acks=all`, idempotent producer). Its key is its detector and
//! its actor, so that what one actor does stays in order within a partition. While the brokers are away, alerts wait in the
//! log like those of every output.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use detectors::alert::Alert;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::producer::future_producer::DeliveryFuture;

use super::encoding::Encoding;
use super::native;
use super::output::output;
use super::transport::{Item, Outcome};
use crate::kafka::options::Options;
use crate::kafka::producer::{Producer, accepted, is_too_large};
use crate::kafka::{Cluster, Sasl, Tls};
use crate::text::clipped;
use crate::units::{Span, Text};
use crate::view;

/// How long the brokers may take to accept an alert before that counts as a failure, and it is sent again.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is left of each text of an alert that is too large for the topic.
const SHRUNK: usize = 256;
/// And of each list.
const FEW: usize = 16;

output! {
    /// A topic of a Kafka cluster. The key of a message is the alert's detector and actor.
    KafkaOutput {
        /// Brokers to begin with: `host:port`, several with commas between.
        bootstrap_servers: Text,
        /// The topic.
        topic: Text,
        /// Who we are, to the broker.
        sasl: Option<Sasl>,
        /// TLS to the broker.
        tls: Option<Tls>,
        /// `none`, `gzip`, `lz4`, `snappy` or `zstd`. Default: `lz4`.
        compression: Option<Text>,
        /// How long the brokers may take to accept an alert before it is sent again, by default 30s.
        timeout: Option<Span>,
        /// Options of librdkafka, passed through.
        #[serde(default)]
        librdkafka_options: Options,
    }
}

/// A topic.
pub(crate) struct KafkaSink {
    encoding: Encoding,
    topic: String,
    producer: Producer,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaSink {
    pub(super) fn new(output: &KafkaOutput, name: &str) -> Result<KafkaSink> {
        ensure!(!output.topic.0.is_empty(), "topic is empty: write `topic: k8s-alerts`");
        let timeout = output.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        let cluster = Cluster {
            bootstrap_servers: &output.bootstrap_servers,
            sasl: output.sasl.as_ref(),
            tls: output.tls.as_ref(),
            options: &output.librdkafka_options,
        };
        let compression = output.compression.as_ref().map_or("lz4", |compression| &*compression.0);
        let producer = Producer::new(name, &cluster, timeout, compression)?;
        Ok(KafkaSink { encoding: output.encoding, topic: output.topic.0.clone(), producer })
    }

    /// Connects anew, with certificates and keys that are read anew.
    pub(super) fn reopen(&mut self) {
        self.producer.reopen();
    }

    pub(super) async fn send(&mut self, items: &[Arc<Item>]) -> Vec<Outcome> {
        let sent = self.producer.send(items, |item| self.hand_over(item)).await;
        let mut outcomes = Vec::with_capacity(items.len());
        for (item, outcome) in items.iter().zip(sent) {
            let outcome = match outcome {
                Err(error) if is_too_large(&error) => self.send_shrunk(item).await,
                outcome => outcome,
            };
            outcomes.push(outcome.map_or_else(|error| self.failed(&error), |()| Outcome::Accepted));
        }
        outcomes
    }

    /// Gives an alert to the client, which sends it as soon as it can.
    fn hand_over(&self, item: &Item) -> Result<DeliveryFuture, KafkaError> {
        let alert = &item.alert;
        let key = format!("{}\u{1f}{}", alert.detector, view::actor(alert));
        let payload = self.encoding.line(item);
        let header = |key, value| Header { key, value: Some(value) };
        let uuid = item.uuid.to_string();
        let headers = OwnedHeaders::new()
            .insert(header("content-type", "application/json"))
            .insert(header("schema", alert.schema.as_str()))
            .insert(header("detector", &alert.detector))
            .insert(header("level", alert.level.name()))
            .insert(header("uuid", &uuid));
        let record = FutureRecord::to(&self.topic).key(&key).payload(payload.as_bytes()).headers(headers);
        self.producer.hand_over(record)
    }

    /// An alert that is too large for the topic, without most of what its texts say.
    async fn send_shrunk(&self, item: &Item) -> Result<(), KafkaError> {
        let alert = shrunk(&item.alert);
        let small = Item { uuid: item.uuid, line: native(&alert), alert };
        accepted(self.hand_over(&small)).await
    }

    fn failed(&self, error: &KafkaError) -> Outcome {
        if is_too_large(error) {
            return Outcome::rejected("too large for the topic, even without most of its texts");
        }
        if let Some((code, reason)) = self.producer.fatal() {
            return Outcome::retry(format!("the producer cannot go on: {code}: {reason}"));
        }
        Outcome::retry(error.to_string())
    }
}

/// The same alert with short texts and short lists: who did what to what is left.
fn shrunk(alert: &Alert) -> Alert {
    let mut small = alert.clone();
    let cut = |text: &mut String| *text = clipped(text, SHRUNK).into_owned();
    cut(&mut small.output);
    small.evidence.truncate(FEW);
    let fields = std::mem::take(&mut small.output_fields);
    small.output_fields = fields.into_iter().take(FEW).collect();
    small.output_fields.values_mut().for_each(cut);
    if let Some(request) = &mut small.k8s {
        request.groups.truncate(FEW);
        request.forwarded_ips.truncate(FEW);
        request.groups.iter_mut().chain(&mut request.forwarded_ips).for_each(cut);
        cut(&mut request.user_agent);
    }
    small
}
