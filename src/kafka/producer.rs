//! Writing to a topic: what is accepted is there once in its order, on all replicas in sync.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::future_producer::{DeliveryFuture, OwnedDeliveryResult};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::statistics::Statistics;

use super::{Cluster, Sasl, refusal};
use crate::text::for_terminal;

/// What librdkafka tells, and asks for.
#[derive(Debug, Clone)]
struct Context {
    of: Arc<str>,
    sasl: Option<Sasl>,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(&self.of, level, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(of = %self.of, %error, "Kafka: {}", for_terminal(reason));
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.sasl.as_ref().ok_or("no token is configured")?.oauth_token()
    }
}

/// An idempotent producer (`acks=all`).
pub(crate) struct Producer {
    client: ClientConfig,
    context: Context,
    inner: FutureProducer<Context>,
}

impl Producer {
    /// A producer of `of`, as logs call it. What the brokers have not accepted after `timeout` has failed.
    ///
    /// # Errors
    /// A setting is missing or wrong, or a file cannot be read.
    pub(crate) fn new(
        of: &str,
        cluster: &Cluster<'_>,
        timeout: Duration,
        compression: &str,
    ) -> Result<Producer> {
        let ours = [
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("message.timeout.ms", timeout.as_millis().max(1).to_string()),
        ];
        let mut client = cluster.client(&ours)?;
        for (key, value) in [
            ("compression.type", compression),
            ("linger.ms", "5"),
            ("batch.size", "1000000"),
            ("queue.buffering.max.messages", "20000"),
            ("queue.buffering.max.kbytes", "65536"),
            ("partitioner", "murmur2_random"),
        ] {
            if cluster.options.get(key).is_none() {
                client.set(key, value);
            }
        }
        let context = Context { of: of.into(), sasl: cluster.sasl.cloned() };
        let inner = client.create_with_context(context.clone()).map_err(refusal)?;
        Ok(Producer { client, context, inner })
    }

    /// Connects anew, with certificates and keys that are read anew.
    pub(crate) fn reopen(&mut self) {
        match self.client.create_with_context(self.context.clone()) {
            Ok(inner) => self.inner = inner,
            Err(error) => {
                tracing::warn!(of = %self.context.of, %error, "the connection to Kafka is kept as it was");
            }
        }
    }

    /// Gives a record to the client, which sends it as soon as it can.
    ///
    /// # Errors
    /// It cannot be sent, or the client has no room for more.
    pub(crate) fn hand_over<K: ToBytes + ?Sized>(
        &self,
        record: FutureRecord<'_, K, [u8]>,
    ) -> Result<DeliveryFuture, KafkaError> {
        self.inner.send_result(record).map_err(|(error, _)| error)
    }

    /// Sends everything at once, and what is too large together piece by piece: a topic limits what the client gathers into one
    /// batch, not each record. Yields how each ended.
    pub(crate) async fn send<T>(
        &self,
        items: &[T],
        hand_over: impl Fn(&T) -> Result<DeliveryFuture, KafkaError>,
    ) -> Vec<Result<(), KafkaError>> {
        let sending: Vec<_> = items.iter().map(&hand_over).collect();
        let mut outcomes = Vec::with_capacity(items.len());
        for sending in sending {
            outcomes.push(accepted(sending).await);
        }
        if items.len() > 1 {
            let too_large =
                |(outcome, _): &(&mut Result<(), KafkaError>, &T)| outcome.as_ref().is_err_and(is_too_large);
            for (outcome, item) in outcomes.iter_mut().zip(items).filter(too_large) {
                *outcome = accepted(hand_over(item)).await;
            }
        }
        outcomes
    }

    /// Why the producer cannot go on, if it cannot.
    pub(crate) fn fatal(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.inner.client().fatal_error()
    }
}

/// Waits until the brokers have accepted what was handed over.
///
/// # Errors
/// They have not, or it was not handed over.
pub(crate) async fn accepted(sending: Result<DeliveryFuture, KafkaError>) -> Result<(), KafkaError> {
    let accepted = |delivered: OwnedDeliveryResult| delivered.map(|_| ()).map_err(|(error, _)| error);
    sending?.await.map_or(Err(KafkaError::Canceled), accepted)
}

/// True if a record, or a batch of them, is larger than the topic or the client takes.
pub(crate) fn is_too_large(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize))
}
