//! Writing to a topic: what is accepted is there once in its order, on all replicas in sync.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::statistics::Statistics;

use super::{Cluster, Sasl, refusal, try_producer};
use crate::text::for_terminal;

/// So many bytes of records for a partition are one batch, unless the configuration says otherwise or the topic takes less.
const BATCH: usize = 1_000_000;

/// As Java's clients do it.
const PARTITIONER: &str = "murmur2_random";
/// So many records are given to the client at once: its queue takes twice as many.
const AT_ONCE: usize = 10_000;

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

/// A record on its way to a topic.
pub(crate) struct Record<'r> {
    pub(crate) key: Cow<'r, [u8]>,
    pub(crate) payload: Cow<'r, [u8]>,
    pub(crate) headers: Option<OwnedHeaders>,
}

/// What a producer is made of, at first and whenever it is made anew.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What logs call it.
    pub(crate) of: Arc<str>,
    pub(crate) cluster: Cluster,
    /// The topic it writes to.
    pub(crate) topic: String,
    /// What the brokers have not accepted after this time has failed.
    pub(crate) timeout: Duration,
    /// Unless the options name another.
    pub(crate) compression: String,
    /// Records of a key have to come to one partition, whoever of several writes them: no option names another partitioner.
    pub(crate) together: bool,
}

/// An idempotent producer (`acks=all`).
pub(crate) struct Producer {
    settings: Settings,
    /// So many bytes are a batch.
    batch: usize,
    inner: FutureProducer<Context>,
}

impl Settings {
    /// Says what is wrong with them. Nothing is connected.
    ///
    /// # Errors
    /// A setting is missing or wrong, or a file cannot be read.
    pub(crate) fn check(&self) -> Result<()> {
        try_producer(&self.client(self.batch())?)
    }

    /// So many bytes are a batch at first. What is no number, librdkafka refuses.
    fn batch(&self) -> usize {
        self.cluster.options.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(BATCH)
    }

    /// What librdkafka has to know. Passwords, keys and certificates are read anew.
    fn client(&self, batch: usize) -> Result<ClientConfig> {
        let mut ours = vec![
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("message.timeout.ms", self.timeout.as_millis().max(1).to_string()),
        ];
        if self.together {
            ours.push(("partitioner", PARTITIONER.to_owned()));
        }
        let mut client = self.cluster.client(&ours)?;
        for (key, value) in [
            ("compression.type", &*self.compression),
            ("linger.ms", "5"),
            ("batch.size", &*BATCH.to_string()),
            ("queue.buffering.max.messages", "20000"),
            ("queue.buffering.max.kbytes", "65536"),
            ("partitioner", PARTITIONER),
        ] {
            if self.cluster.options.get(key).is_none() {
                client.set(key, value);
            }
        }
        if batch != self.batch() {
            client.set("batch.size", batch.to_string());
        }
        Ok(client)
    }

    fn make(&self, batch: usize) -> Result<FutureProducer<Context>> {
        let context = Context { of: Arc::clone(&self.of), sasl: self.cluster.sasl.clone() };
        self.client(batch)?.create_with_context(context).map_err(refusal)
    }
}

impl Producer {
    /// A producer that connects by itself.
    ///
    /// # Errors
    /// A setting is missing or wrong, or a file cannot be read.
    pub(crate) fn new(settings: Settings) -> Result<Producer> {
        let batch = settings.batch();
        let inner = settings.make(batch)?;
        Ok(Producer { settings, batch, inner })
    }

    /// Connects anew, with passwords, certificates and keys that are read anew.
    pub(crate) fn reopen(&mut self) {
        if let Err(error) = self.make_anew() {
            tracing::warn!(of = %self.settings.of, "the connection to Kafka is kept as it was: {error:#}");
        }
    }

    fn make_anew(&mut self) -> Result<()> {
        self.inner = self.settings.make(self.batch)?;
        Ok(())
    }

    /// Makes a producer anew that cannot go on. Some errors are final for librdkafka, and all that it is given afterwards fails;
    /// to us a topic whose owner corrects an ACL is an outage like any other. Yields what a person is told, if that was so.
    pub(crate) fn revive(&mut self) -> Option<String> {
        let (code, reason) = self.inner.client().fatal_error()?;
        Some(match self.make_anew() {
            Ok(()) => format!("the producer could not go on, and is made anew: {code}: {reason}"),
            Err(error) => format!("the producer cannot go on, nor be made anew: {code}: {reason}; {error:#}"),
        })
    }

    /// Sends everything at once, and says how each ended.
    ///
    /// A topic limits what the client gathers into one batch, not each record. So what is refused as too large is sent again in
    /// its order in batches of half the size, until what is left was in a batch of its own. Batches stay so small, so that this
    /// happens once and not at every sending; that once, what is sent again comes behind what was accepted meanwhile.
    pub(crate) async fn send<T>(
        &mut self,
        items: &[T],
        record: impl Fn(&T) -> Record<'_>,
    ) -> Vec<Result<(), KafkaError>> {
        let mut outcomes = Vec::with_capacity(items.len());
        for items in items.chunks(AT_ONCE) {
            outcomes.extend(self.send_once(items.iter().map(&record)).await);
        }
        loop {
            let is_refused = |nth: &usize| outcomes[*nth].as_ref().is_err_and(is_too_large);
            let refused: Vec<usize> = (0..items.len()).filter(is_refused).collect();
            let stood_alone = |nth: &usize| record(&items[*nth]).size() >= self.batch;
            if refused.len() < 2 || refused.iter().all(stood_alone) {
                return outcomes;
            }
            let again = match self.halve() {
                Ok(()) => self.send_once(refused.iter().map(|nth| record(&items[*nth]))).await,
                // They are not too large, as far as anybody knows.
                Err(error) => {
                    let error = KafkaError::ClientCreation(format!("{error:#}"));
                    vec![Err(error); refused.len()]
                }
            };
            for (nth, outcome) in refused.into_iter().zip(again) {
                outcomes[nth] = outcome;
            }
        }
    }

    /// Goes on with batches of half the size.
    fn halve(&mut self) -> Result<()> {
        self.batch = (self.batch / 2).max(1);
        let (of, bytes) = (&self.settings.of, self.batch);
        tracing::info!(%of, bytes, "the topic takes no batches as large as before: they are halved");
        self.make_anew()
    }

    /// Gives records to the client, which sends them as soon as it can, and waits until the brokers have accepted them or have
    /// not.
    async fn send_once(&self, records: impl Iterator<Item = Record<'_>>) -> Vec<Result<(), KafkaError>> {
        let hand_over = |record: Record<'_>| {
            let mut to = FutureRecord::to(&self.settings.topic).key(&*record.key).payload(&*record.payload);
            to.headers = record.headers;
            self.inner.send_result(to).map_err(|(error, _)| error)
        };
        let sending: Vec<_> = records.map(hand_over).collect();
        let accepted = |delivered: OwnedDeliveryResult| delivered.map(|_| ()).map_err(|(error, _)| error);
        let mut outcomes = Vec::with_capacity(sending.len());
        for sending in sending {
            outcomes.push(match sending {
                Ok(delivery) => delivery.await.map_or(Err(KafkaError::Canceled), accepted),
                Err(error) => Err(error),
            });
        }
        outcomes
    }
}

impl Record<'_> {
    /// Its bytes, as far as they are its own; at least one.
    fn size(&self) -> usize {
        (self.key.len() + self.payload.len()).max(1)
    }
}

/// True if a record, or a batch of them, is larger than the topic or the client takes.
pub(crate) fn is_too_large(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize))
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
    use rdkafka::{Message as _, Offset, TopicPartitionList};

    use super::*;
    use crate::kafka::options::Options;
    use crate::units::Text;

    type Mock = MockCluster<'static, DefaultProducerContext>;

    fn settings(servers: &str, options: &str) -> Settings {
        let options: Options = yaml_serde::from_str(options).unwrap();
        let cluster = Cluster { bootstrap_servers: Text(servers.to_owned()), sasl: None, tls: None, options };
        let (of, topic, timeout) = ("out".into(), "t".to_owned(), Duration::from_secs(20));
        Settings { of, cluster, topic, timeout, compression: "none".to_owned(), together: false }
    }

    /// A producer to a topic of one partition.
    fn producer(options: &str) -> (Mock, Producer) {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let producer = Producer::new(settings(&mock.bootstrap_servers(), options)).unwrap();
        (mock, producer)
    }

    async fn send(producer: &mut Producer, items: &[String]) -> Vec<bool> {
        let sent = producer.send(items, |item| Record {
            key: b"k"[..].into(),
            payload: item.as_bytes().into(),
            headers: None,
        });
        sent.await.iter().map(Result::is_ok).collect()
    }

    fn read(mock: &Mock, number: usize) -> Vec<String> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("group.id", "g")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset("t", 0, Offset::Beginning).unwrap();
        client.assign(&all).unwrap();
        let mut read = Vec::new();
        while read.len() < number {
            let message = client.poll(Duration::from_secs(20)).unwrap().unwrap();
            read.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
        }
        read
    }

    fn items(number: usize, bytes: usize) -> Vec<String> {
        (0..number).map(|nth| format!("{nth:0bytes$}")).collect()
    }

    #[tokio::test]
    async fn what_is_too_large_together_comes_in_order_and_is_not_tried_again() {
        let (mock, mut producer) = producer("{}");
        let items = items(60, 5_000);
        mock.request_errors(RDKafkaApiKey::Produce, &[Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        assert_eq!(send(&mut producer, &items).await, [true; 60]);
        assert_eq!(producer.batch, BATCH / 2);
        assert_eq!(read(&mock, 60), items);
        assert_eq!(producer.settings.client(producer.batch).unwrap().get("batch.size"), Some("500000"));
        assert_eq!(send(&mut producer, &items).await, [true; 60]);
        assert_eq!(producer.batch, BATCH / 2);
    }

    /// Batches are halved no further than to the size of what is too large by itself.
    #[tokio::test]
    async fn what_is_too_large_alone_makes_no_small_batches() {
        let (mock, mut producer) = producer("{batch.size: '40000'}");
        mock.request_errors(RDKafkaApiKey::Produce, &[Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 50]);
        assert_eq!(send(&mut producer, &items(1, 30_000)).await, [false]);
        assert_eq!(producer.batch, 40_000);
        assert_eq!(send(&mut producer, &items(4, 30_000)).await, [false; 4]);
        assert_eq!(producer.batch, 20_000);
        mock.clear_request_errors(RDKafkaApiKey::Produce);
        assert_eq!(send(&mut producer, &items(4, 30_000)).await, [true; 4]);
    }

    #[tokio::test]
    async fn more_than_the_client_takes_at_once_is_sent_all_the_same() {
        let (mock, mut producer) = producer("{}");
        let items = items(25_000, 9);
        assert!(send(&mut producer, &items).await.into_iter().all(|sent| sent));
        assert_eq!(read(&mock, items.len()), items);
    }

    #[tokio::test]
    async fn a_producer_that_cannot_go_on_is_made_anew() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let denied = Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        mock.request_errors(RDKafkaApiKey::InitProducerId, &[denied]);
        let mut producer = Producer::new(settings(&mock.bootstrap_servers(), "{}")).unwrap();
        while producer.inner.client().fatal_error().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(send(&mut producer, &items(2, 9)).await, [false; 2]);
        let told = producer.revive().unwrap();
        assert!(told.starts_with("the producer could not go on, and is made anew: ClusterAuth"), "{told}");
        assert_eq!(producer.revive(), None);
        assert_eq!(send(&mut producer, &items(2, 9)).await, [true; 2]);
    }

    #[test]
    fn what_is_refused_is_told_without_a_connection() {
        let check = |options: &str, expected: &str| {
            let error = format!("{:#}", settings("a:1", options).check().unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        settings("a:1", "{queue.buffering.max.ms: '7'}").check().unwrap();
        check("{linger: '7'}", "refuses the option linger: No such configuration property");
        check("{batch.size: many}", "refuses the option batch.size: ");
        check(
            "{delivery.timeout.ms: '7'}",
            "message.timeout.ms (or delivery.timeout.ms): Lapwing sets this itself",
        );
        check("{request.required.acks: '1'}", "acks (or request.required.acks): Lapwing sets this itself");
        check("{max.in.flight: '7'}", "`max.in.flight` must be set <= 5");
    }

    #[test]
    fn a_password_is_read_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut settings = settings("a:1", "{}");
        let sasl = format!("{{mechanism: PLAIN, username: u, password: 'file:{}'}}", file.path().display());
        settings.cluster.sasl = Some(yaml_serde::from_str(&sasl).unwrap());
        std::fs::write(file.path(), "one").unwrap();
        let mut producer = Producer::new(settings).unwrap();
        std::fs::write(file.path(), "two").unwrap();
        producer.make_anew().unwrap();
        assert_eq!(producer.settings.client(BATCH).unwrap().get("sasl.password"), Some("two"));
        file.close().unwrap();
        let error = format!("{:#}", producer.make_anew().unwrap_err());
        assert!(error.contains("sasl.password: cannot read the secret"), "{error}");
    }
}
