//! A topic of a Kafka cluster.
//!
//! An alert counts as accepted once all replicas in sync have it (`acks=all`, idempotent producer). Its key is its detector and
//! its actor, so that what one actor does stays in order within a partition. While the brokers are away, alerts wait in the
//! log like those of every output.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use detectors::alert::Alert;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};

use super::encoding::Encoding;
use super::native;
use super::output::output;
use super::transport::{Item, Outcome};
use crate::kafka::options::Options;
use crate::kafka::producer::{Producer, Record, Settings, is_too_large};
use crate::kafka::{Cluster, Sasl, Tls, place};
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
        #[serde(deserialize_with = "place::servers")]
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
    producer: Producer,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

impl KafkaSink {
    pub(super) fn new(output: &KafkaOutput, name: &str) -> Result<KafkaSink> {
        ensure!(!output.topic.0.is_empty(), "topic is empty: write `topic: k8s-alerts`");
        place::topic(&output.topic.0).context("topic")?;
        let timeout = output.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        let cluster = Cluster {
            bootstrap_servers: output.bootstrap_servers.clone(),
            sasl: output.sasl.clone(),
            tls: output.tls.clone(),
            options: output.librdkafka_options.clone(),
        };
        let compression = output.compression.as_ref().map_or("lz4", |compression| &*compression.0).to_owned();
        let topic = output.topic.0.clone();
        let producer = Producer::new(Settings {
            of: name.into(),
            cluster,
            topic,
            timeout,
            compression,
            together: false,
        })?;
        Ok(KafkaSink { encoding: output.encoding, producer })
    }

    /// Connects anew, with passwords, certificates and keys that are read anew.
    pub(super) fn reopen(&mut self) {
        self.producer.reopen();
    }

    pub(super) async fn send(&mut self, items: &[Arc<Item>]) -> Vec<Outcome> {
        let encoding = self.encoding;
        let mut sent = self.producer.send(items, |item| record(encoding, item)).await;
        for (item, outcome) in items.iter().zip(&mut sent) {
            if outcome.as_ref().is_err_and(is_too_large) {
                *outcome = self.send_shrunk(item).await;
            }
        }
        let fatal = self.producer.revive();
        let failed = |error: KafkaError| {
            if is_too_large(&error) {
                return Outcome::rejected("too large for the topic, even without most of its texts");
            }
            Outcome::retry(fatal.clone().unwrap_or_else(|| error.to_string()))
        };
        sent.into_iter().map(|outcome| outcome.map_or_else(failed, |()| Outcome::Accepted)).collect()
    }

    /// An alert that is too large for the topic, without most of what its texts say.
    async fn send_shrunk(&mut self, item: &Item) -> Result<(), KafkaError> {
        let (encoding, alert) = (self.encoding, shrunk(&item.alert));
        let small = Item { uuid: item.uuid, line: native(&alert), alert };
        let mut sent = self.producer.send(&[small], |item| record(encoding, item)).await;
        sent.pop().unwrap_or(Err(KafkaError::Canceled))
    }
}

/// An alert as a record.
fn record(encoding: Encoding, item: &Item) -> Record<'_> {
    let alert = &item.alert;
    let key = format!("{}\u{1f}{}", alert.detector, view::actor(alert));
    let header = |key, value| Header { key, value: Some(value) };
    let uuid = item.uuid.to_string();
    let headers = OwnedHeaders::new()
        .insert(header("content-type", "application/json"))
        .insert(header("schema", alert.schema.as_str()))
        .insert(header("detector", &alert.detector))
        .insert(header("level", alert.level.name()))
        .insert(header("uuid", &uuid));
    let payload = match encoding.line(item) {
        Cow::Borrowed(line) => Cow::Borrowed(line.as_bytes()),
        Cow::Owned(line) => Cow::Owned(line.into_bytes()),
    };
    Record { key: key.into_bytes().into(), payload, headers: Some(headers) }
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

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};

    use super::*;
    use crate::sink::tests::{alert, item};

    #[tokio::test]
    async fn mistakes_are_told() {
        let check = |settings: &str, expected: &str| {
            let read = yaml_serde::from_str(&format!("{{{settings}}}")).map_err(Into::into);
            let sink = read.and_then(|output: KafkaOutput| KafkaSink::new(&output, "k"));
            let error = format!("{:#}", sink.unwrap_err());
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        };
        check(
            "bootstrap_servers: 'SASL_SSL://u:hunter2@a', topic: t",
            "bootstrap_servers: `@` has no place there",
        );
        check("bootstrap_servers: 'a:99999', topic: t", "bootstrap_servers: `a:99999`: `99999` is no port");
        check("bootstrap_servers: a, topic: ''", "topic is empty");
        check("bootstrap_servers: a, topic: 'k8s-.*'", "topic: `k8s-.*` is no name of a topic");
        check(
            "bootstrap_servers: a, topic: t, librdkafka_options: {transactional.id: x}",
            "librdkafka_options.transactional.id: Lapwing begins no transactions",
        );
    }

    #[tokio::test]
    async fn an_acl_that_is_corrected_ends_the_outage() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let denied = Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        mock.request_errors(RDKafkaApiKey::InitProducerId, &[denied; 2]);
        let servers = mock.bootstrap_servers();
        let output = format!("{{name: k, bootstrap_servers: '{servers}', topic: t, timeout: 1s}}");
        let mut sink = KafkaSink::new(&yaml_serde::from_str(&output).unwrap(), "k").unwrap();
        let mut reasons = Vec::new();
        while let Outcome::Retry { reason, .. } = sink.send(&[item(&alert())]).await.remove(0) {
            reasons.push(reason);
        }
        let anew = |reason: &&String| reason.starts_with("the producer could not go on, and is made anew");
        assert_eq!(reasons.iter().filter(anew).count(), 2, "{reasons:?}");
    }
}
