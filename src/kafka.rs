//! How a Kafka cluster is reached: the settings that the input and the output share, under the names that people paste.
//!
//! What only librdkafka knows is passed through as `librdkafka_options`, but for those on which guarantees rest.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Error as Wrong, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::for_terminal;
use crate::units::{Secret, Text};
use options::{Options, named};

pub(crate) mod options;
pub(crate) mod place;
pub(crate) mod producer;

/// How long a token is used that does not say when it ends.
const TOKEN: Duration = Duration::from_secs(300);
/// How often it is looked whether a consumer that nobody needs is closed.
const SOON: Duration = Duration::from_millis(1);

/// Options that nobody can pass through, whatever the client is for, and why.
const REFUSED: [(&str, &str); 2] = [
    ("bootstrap.servers", "write `bootstrap_servers` beside librdkafka_options instead"),
    (
        "transactional.id",
        "Lapwing begins no transactions, and without one nothing would be sent: leave it out",
    ),
];
/// Options that only tell who logs in.
const LOGIN: [&str; 3] = ["sasl.mechanism", "sasl.username", "sasl.password"];
/// Options that name a private key which a passphrase could open.
const KEYS: [&str; 2] = ["ssl.key.location", "ssl.key.pem"];
/// Whether the broker's certificate is checked.
const VERIFICATION: &str = "enable.ssl.certificate.verification";

/// Who we are, to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `mechanism`, `username` and `password`")]
pub(crate) struct Sasl {
    /// False to leave these settings out of use.
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`.
    pub(crate) mechanism: Mechanism,
    /// The user. Event Hubs wants `$ConnectionString`.
    pub(crate) username: Option<Text>,
    /// The password: as it is, `${NAME}`, or `file:/path`.
    pub(crate) password: Option<Secret>,
    /// For `OAUTHBEARER`: the token, best as `file:/path`, which is read anew whenever a token is needed.
    pub(crate) token: Option<Secret>,
}

/// How the broker is told who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum Mechanism {
    /// User and password as they are: only over TLS.
    #[serde(rename = "PLAIN", alias = "plain")]
    Plain,
    /// RFC 5802 with SHA-256.
    #[serde(rename = "SCRAM-SHA-256", alias = "scram-sha-256")]
    ScramSha256,
    /// RFC 5802 with SHA-512.
    #[serde(rename = "SCRAM-SHA-512", alias = "scram-sha-512")]
    ScramSha512,
    /// A bearer token (RFC 7628).
    #[serde(rename = "OAUTHBEARER", alias = "oauthbearer")]
    OauthBearer,
}

/// TLS to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of settings")]
pub(crate) struct Tls {
    /// False to leave these settings out of use.
    pub(crate) enabled: bool,
    /// Certificates of the authorities that are believed, PEM. By default those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// The certificate that is shown to the broker, PEM.
    pub(crate) crt_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub(crate) key_file: Option<PathBuf>,
    /// The key's passphrase.
    pub(crate) key_pass: Option<Secret>,
    /// False to believe any certificate: who is in between reads and writes everything.
    pub(crate) verify_certificate: bool,
    /// False to take a certificate of another host.
    pub(crate) verify_hostname: bool,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            enabled: true,
            ca_file: None,
            crt_file: None,
            key_file: None,
            key_pass: None,
            verify_certificate: true,
            verify_hostname: true,
        }
    }
}

fn yes() -> bool {
    true
}

/// A cluster, as an input or output names it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// `host:port`, several with commas between, as [`place::servers`] reads them.
    pub(crate) bootstrap_servers: Text,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) tls: Option<Tls>,
    /// Passed through.
    pub(crate) options: Options,
}

impl Cluster {
    /// What librdkafka has to know. `ours` are the options that cannot be passed through, because guarantees rest on them.
    ///
    /// # Errors
    /// A setting is missing or wrong, or a file cannot be read: which, and what to write instead.
    pub(crate) fn client(&self, ours: &[(&str, String)]) -> Result<ClientConfig> {
        let mut client = ClientConfig::new();
        client.set_log_level(RDKafkaLogLevel::Info);
        client.set("bootstrap.servers", &self.bootstrap_servers.0);
        client.set("client.id", "lapwing");
        // A broker that hangs is given up for another one.
        client.set("socket.timeout.ms", "10000");
        client.set("socket.connection.setup.timeout.ms", "5000");
        client.set("socket.keepalive.enable", "true");
        client.set("reconnect.backoff.max.ms", "5000");
        let sasl = self.sasl.as_ref().filter(|sasl| sasl.enabled);
        let tls = self.tls.as_ref().filter(|tls| tls.enabled);
        client.set(
            "security.protocol",
            match (sasl, tls) {
                (None, None) => "plaintext",
                (None, Some(_)) => "ssl",
                (Some(_), None) => "sasl_plaintext",
                (Some(_), Some(_)) => "sasl_ssl",
            },
        );
        if let Some(sasl) = sasl {
            sasl.put(&mut client)?;
        }
        if let Some(tls) = tls {
            tls.put(&mut client)?;
        }
        for (key, value) in self.options.iter() {
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
                bail!("librdkafka_options.{}: {why}", named(key));
            }
            ensure!(
                ours.iter().all(|(of_ours, _)| *of_ours != key),
                "librdkafka_options.{}: Lapwing sets this itself, its guarantees rest on it",
                named(key)
            );
            let value = value.reveal().with_context(|| format!("librdkafka_options.{}", named(key)))?;
            client.set(key, value);
        }
        for (key, value) in ours {
            client.set(*key, value);
        }
        for (key, value) in client.config_map() {
            options::check_number(key, value)?;
        }
        self.check_use(&client)?;
        Ok(client)
    }

    /// What is written and would do nothing, somebody relies on.
    fn check_use(&self, client: &ClientConfig) -> Result<()> {
        let protocol = client.get("security.protocol").unwrap_or_default();
        let logs_in = protocol.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("sasl_"));
        let idle = LOGIN.iter().find(|key| !logs_in && self.options.has(key));
        if let Some(key) = idle {
            bail!(
                "librdkafka_options.{} does nothing, since nobody logs in: write `sasl: {{mechanism: SCRAM-SHA-512, username: ..., \
                 password: ...}}` beside librdkafka_options instead",
                named(key)
            );
        }
        if logs_in && client.get("sasl.mechanism").is_none() {
            bail!(
                "librdkafka_options.security.protocol asks for a login, and nothing says which: write `sasl: {{mechanism: \
                 SCRAM-SHA-512, username: ..., password: ...}}` beside librdkafka_options"
            );
        }
        let has_key = KEYS.iter().any(|key| client.get(key).is_some());
        if client.get("ssl.key.password").is_some() && !has_key {
            let place = if self.options.has("ssl.key.password") {
                "librdkafka_options.ssl.key.password"
            } else {
                "tls.key_pass"
            };
            bail!(
                "{place} opens no key: write `tls: {{crt_file: ..., key_file: ..., key_pass: ...}}`, or leave it out"
            );
        }
        let encrypts = protocol.to_ascii_lowercase().ends_with("ssl");
        let of_tls = |key: &&str| key.starts_with("ssl.") || *key == VERIFICATION;
        if let Some(key) = self.options.iter().map(|(key, _)| key).find(|key| !encrypts && of_tls(key)) {
            bail!(
                "librdkafka_options.{} does nothing, since nothing is encrypted: write `tls: {{}}` beside librdkafka_options",
                named(key)
            );
        }
        Ok(())
    }
}

impl Sasl {
    fn put(&self, client: &mut ClientConfig) -> Result<()> {
        let mechanism = match self.mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::OauthBearer => "OAUTHBEARER",
        };
        client.set("sasl.mechanism", mechanism);
        if self.mechanism == Mechanism::OauthBearer {
            let token = self.token.as_ref().with_context(
                || "sasl: OAUTHBEARER needs a token: write `token: file:/var/run/secrets/kafka/token`",
            )?;
            token.reveal().context("sasl.token")?;
            return Ok(());
        }
        let (Some(username), Some(password)) = (&self.username, &self.password) else {
            bail!("sasl: {mechanism} needs `username` and `password`");
        };
        client.set("sasl.username", &username.0);
        client.set("sasl.password", password.reveal().context("sasl.password")?);
        Ok(())
    }

    /// A token for the broker, read anew. Its subject and its end are taken from it if it is a JWT (RFC 7519).
    pub(crate) fn oauth_token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let secret = self.token.as_ref().ok_or("no token is configured")?;
        let token = secret.reveal().map_err(|error| format!("{error:#}"))?;
        let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
        let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
        let claims = claims.unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ends = claims.exp.map_or(now + TOKEN, Duration::from_secs_f64);
        Ok(OAuthToken {
            token,
            principal_name: claims.sub.unwrap_or_else(|| "lapwing".to_owned()),
            lifetime_ms: ends.as_millis() as i64,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
struct Claims {
    sub: Option<String>,
    #[serde(deserialize_with = "seconds", default)]
    exp: Option<f64>,
}

/// Seconds since 1970, if they are such.
fn seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let seconds = Option::<f64>::deserialize(from)?;
    Ok(seconds.filter(|seconds| (0.0..1e11).contains(seconds)))
}

impl Tls {
    fn put(&self, client: &mut ClientConfig) -> Result<()> {
        for (key, path, option) in [
            ("tls.ca_file", &self.ca_file, "ssl.ca.location"),
            ("tls.crt_file", &self.crt_file, "ssl.certificate.location"),
            ("tls.key_file", &self.key_file, "ssl.key.location"),
        ] {
            if let Some(path) = path {
                std::fs::File::open(path)
                    .with_context(|| format!("{key}: cannot read {}", path.display()))?;
                client.set(option, path.to_string_lossy());
            }
        }
        ensure!(
            self.crt_file.is_some() == self.key_file.is_some(),
            "tls: `crt_file` and `key_file` need each other"
        );
        if self.ca_file.is_none() {
            // Where distributions keep their authorities: a library that is linked in does not know.
            client.set("ssl.ca.location", "probe");
        }
        if let Some(pass) = &self.key_pass {
            client.set("ssl.key.password", pass.reveal().context("tls.key_pass")?);
        }
        if !self.verify_certificate {
            client.set(VERIFICATION, "false");
        }
        let algorithm = if self.verify_hostname { "https" } else { "none" };
        client.set("ssl.endpoint.identification.algorithm", algorithm);
        Ok(())
    }
}

/// Makes a consumer, and has it subscribe to topics, without any brokers: what librdkafka refuses is known then, and nothing is
/// connected.
///
/// # Errors
/// What it refuses, and what to do about it.
pub(crate) fn try_consumer(client: &ClientConfig, topics: &[&str]) -> Result<()> {
    let consumer: BaseConsumer<Mute> =
        client.clone().remove("bootstrap.servers").create_with_context(Mute).map_err(refusal)?;
    let subscribed = consumer.subscribe(topics);
    // Dropped as it is, it would be waited for by tenths of a second, and the start would take so long.
    if consumer.close_queue().is_ok() {
        while !consumer.closed() {
            consumer.poll(SOON);
        }
    }
    let names = || {
        format!(
            "librdkafka refuses the topics {}: is one empty, named twice, or a pattern that `regcomp` does not take?",
            topics.join(", ")
        )
    };
    subscribed.with_context(names)
}

/// The same of a producer.
///
/// # Errors
/// What it refuses, and what to do about it.
pub(crate) fn try_producer(client: &ClientConfig) -> Result<()> {
    let producer = client.clone().remove("bootstrap.servers").create_with_context(Mute);
    producer.map(drop::<BaseProducer<Mute>>).map_err(refusal)
}

/// What librdkafka has against a configuration. Values are not repeated: some are secrets.
pub(crate) fn refusal(error: KafkaError) -> Wrong {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => anyhow!(
            "librdkafka refuses the option {}: {why}; its CONFIGURATION.md has all options and what they can be",
            named(&key)
        ),
        KafkaError::ClientCreation(why) => anyhow!("librdkafka refuses the configuration: {why}"),
        error => Wrong::new(error).context("librdkafka refuses the configuration"),
    }
}

/// Who tries a configuration has nothing to say, and does not log in.
struct Mute;

impl ClientContext for Mute {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Mute {}

impl ProducerContext for Mute {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// What librdkafka has to say. It retries by itself, so that little of it is worth more than a warning.
pub(crate) fn log(of: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    let message = for_terminal(message);
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::warn!(of, facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(of, facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(of, facility, "librdkafka: {message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Section {
        sasl: Option<Sasl>,
        tls: Option<Tls>,
        #[serde(default)]
        librdkafka_options: Options,
    }

    fn client(yaml: &str) -> Result<ClientConfig> {
        let section: Section = yaml_serde::from_str(yaml)?;
        Cluster {
            bootstrap_servers: Text("a:9092".to_owned()),
            sasl: section.sasl,
            tls: section.tls,
            options: section.librdkafka_options,
        }
        .client(&[("enable.auto.commit", "false".to_owned())])
    }

    #[test]
    fn settings_become_options() {
        let check = |yaml: &str, expected: &[(&str, &str)]| {
            let client = client(yaml).unwrap();
            for (key, value) in expected {
                assert_eq!(client.get(key), Some(*value), "{yaml}: {key}");
            }
        };
        check("{}", &[("security.protocol", "plaintext"), ("enable.auto.commit", "false")]);
        check("{tls: {}}", &[("security.protocol", "ssl"), ("ssl.ca.location", "probe")]);
        check("{tls: {enabled: false}}", &[("security.protocol", "plaintext")]);
        check("{tls: {verify_hostname: false}}", &[("ssl.endpoint.identification.algorithm", "none")]);
        check(
            "{tls: {}, sasl: {mechanism: PLAIN, username: $ConnectionString, password: s}}",
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", "$ConnectionString"),
            ],
        );
        check(
            "{sasl: {mechanism: scram-sha-512, username: u, password: s}}",
            &[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "SCRAM-SHA-512")],
        );
        check("{librdkafka_options: {client.rack: a}}", &[("client.rack", "a")]);
        check(
            "{librdkafka_options: {security.protocol: SASL_SSL, sasl.mechanisms: PLAIN, sasl.password: s}}",
            &[("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN"), ("sasl.password", "s")],
        );
        check(
            "{tls: {key_pass: s}, librdkafka_options: {ssl.key.pem: k}}",
            &[("ssl.key.password", "s"), ("ssl.key.pem", "k")],
        );
    }

    #[test]
    fn mistakes_are_told() {
        let check = |yaml: &str, expected: &str| {
            let error = format!("{:#}", client(yaml).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check("{sasl: {mechanism: PLAIN, username: u}}", "sasl: PLAIN needs `username` and `password`");
        check("{sasl: {mechanism: OAUTHBEARER}}", "OAUTHBEARER needs a token");
        check("{sasl: {mechanism: GSSAPI}}", "unknown variant `GSSAPI`");
        check("{tls: {ca_file: /nowhere/ca.pem}}", "tls.ca_file: cannot read /nowhere/ca.pem");
        check("{tls: {crt_file: /dev/null}}", "`crt_file` and `key_file` need each other");
        check("{librdkafka_options: {enable.auto.commit: 'true'}}", "librdkafka_options.enable.auto.commit");
        check(
            "{librdkafka_options: {auto.commit.enable: 'true'}}",
            "(or auto.commit.enable): Lapwing sets this",
        );
        check("{librdkafka_options: {metadata.broker.list: b}}", "write `bootstrap_servers` beside");
        check(
            "{librdkafka_options: {transactional.id: x}}",
            "transactional.id: Lapwing begins no transactions",
        );
    }

    #[test]
    fn what_would_do_nothing_is_told() {
        let check = |yaml: &str, expected: &str| {
            let error = format!("{:#}", client(yaml).unwrap_err());
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        };
        let login = "does nothing, since nobody logs in: write `sasl: {mechanism: ";
        for (options, option) in [
            ("sasl.username: hunter2", "sasl.username "),
            ("sasl.password: hunter2", "sasl.password "),
            ("sasl.mechanisms: PLAIN", "sasl.mechanism (or sasl.mechanisms) "),
            ("security.protocol: ssl, sasl.password: hunter2", "sasl.password "),
        ] {
            let expected = format!("librdkafka_options.{option}{login}");
            check(&format!("{{tls: {{}}, librdkafka_options: {{{options}}}}}"), &expected);
        }
        check(
            "{librdkafka_options: {security.protocol: sasl_ssl, sasl.password: hunter2}}",
            "security.protocol asks for a login, and nothing says which: write `sasl: {mechanism: ",
        );
        let off = "{mechanism: PLAIN, username: u, password: s, enabled: false}";
        check(&format!("{{sasl: {off}, librdkafka_options: {{sasl.password: hunter2}}}}"), login);
        check("{tls: {key_pass: hunter2}}", "tls.key_pass opens no key: write");
        check(
            "{librdkafka_options: {ssl.key.password: hunter2}}",
            "librdkafka_options.ssl.key.password opens no key",
        );
        let plain = "does nothing, since nothing is encrypted: write `tls: {}`";
        check("{librdkafka_options: {ssl.ca.location: /ca.pem}}", &format!("ssl.ca.location {plain}"));
        check(
            "{tls: {enabled: false}, librdkafka_options: {enable.ssl.certificate.verification: false}}",
            plain,
        );
        assert!(client("{librdkafka_options: {security.protocol: SSL, ssl.ca.location: /ca.pem}}").is_ok());
    }

    #[test]
    fn a_number_that_librdkafka_would_cut_is_told_as_it_was_written() {
        let check = |option: &str, value: &str, expected: &str| {
            let error = client(&format!("{{librdkafka_options: {{{option}: {value}}}}}")).unwrap_err();
            assert_eq!(format!("{error:#}"), expected);
        };
        let range =
            "librdkafka refuses the option fetch.min.bytes: 99999999999999 is outside of 1..100000000";
        check("fetch.min.bytes", "99999999999999", range);
        // It would be 1.
        check("fetch.min.bytes", "4294967297", &range.replace("99999999999999", "4294967297"));
        check("fetch.min.bytes", "' -4294967295'", &range.replace("99999999999999", "-4294967295"));
        let linger = "librdkafka refuses the option linger.ms (or queue.buffering.max.ms): 99999999999 is outside of 0..900000";
        check("queue.buffering.max.ms", "99999999999", linger);
        let longest = "999999999999999999999999";
        for option in ["client.rack", "client.id", "sasl.pasword"] {
            let text = client(&format!("{{librdkafka_options: {{{option}: '{longest}'}}}}")).unwrap();
            assert_eq!(text.get(option), Some(longest));
        }
        let highest = client("{librdkafka_options: {receive.message.max.bytes: 2147483647}}").unwrap();
        highest.create_native_config().unwrap();
    }

    #[test]
    fn what_librdkafka_refuses_is_told_without_values() {
        for option in ["sasl.oauthbearer.client.secret", "sasl.pasword", "fetch.min.bytes", "ssl.key.pem"] {
            let client =
                client(&format!("{{tls: {{}}, librdkafka_options: {{{option}: hunter2}}}}")).unwrap();
            let error = format!("{:?}", try_consumer(&client, &["t"]).unwrap_err());
            assert!(error.contains(option) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_tells_its_end() {
        let body = URL_SAFE_NO_PAD.encode(r#"{"sub":"watcher","exp":4102444800}"#);
        let yaml = format!("{{mechanism: OAUTHBEARER, token: 'e30.{body}.x'}}");
        let token = yaml_serde::from_str::<Sasl>(&yaml).unwrap().oauth_token().unwrap();
        assert_eq!((&*token.principal_name, token.lifetime_ms), ("watcher", 4_102_444_800_000));
        let opaque: Sasl = yaml_serde::from_str("{mechanism: OAUTHBEARER, token: opaque}").unwrap();
        let token = opaque.oauth_token().unwrap();
        assert_eq!((&*token.token, &*token.principal_name), ("opaque", "lapwing"));
    }
}
