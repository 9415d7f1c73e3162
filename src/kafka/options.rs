//! Options of librdkafka that are passed through, each under one name; and which of them nobody may see.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::units::{Scalar, Secret, Text};

/// Other names of options, and the name by which all code here knows them. librdkafka takes either, and of two names of one
/// option the one that it is told last, which differs from start to start.
///
/// Source: librdkafka's CONFIGURATION.md ("Alias for ..."), without what needs libcurl, which is not built in. `auto.commit.enable`
/// is of another kind of consumer, and who writes it means the same.
const NAMES: [(&str, &str); 10] = [
    ("auto.commit.enable", "enable.auto.commit"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

/// Options about logins and TLS that tell nothing: the others are secrets, misspelt ones among them. After librdkafka's
/// CONFIGURATION.md, and what its `rdkafka_conf.c` calls sensitive.
const HARMLESS: [&str; 38] = [
    "sasl.kerberos.keytab",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.username",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.keystore.type",
    "ssl.providers",
    "ssl.sigalgs.list",
];

/// True if nobody may see the value of an option.
fn is_secret(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    let about = option.starts_with("sasl") || option.starts_with("ssl");
    let words = ["password", "passphrase", "secret", "credential", "jaas", ".pem"];
    !HARMLESS.contains(&&*option) && (about || words.iter().any(|word| option.contains(word)))
}

/// Options as a configuration has them, under the names of [`NAMES`]'s right side whatever was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options(BTreeMap<String, Value>);

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A text.
    Open(Text),
    /// A text that nobody may see.
    Hidden(Secret),
}

impl Options {
    /// The value of an option, if it is there and no secret.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Value::Open(text) => Some(&text.0),
            Value::Hidden(_) => None,
        }
    }

    /// True if it is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl Value {
    /// What librdkafka is told.
    ///
    /// # Errors
    /// A secret is not where it should be. The error does not show it.
    pub(crate) fn reveal(&self) -> Result<Cow<'_, str>> {
        match self {
            Value::Open(text) => Ok(Cow::Borrowed(&text.0)),
            Value::Hidden(secret) => secret.reveal().map(Cow::Owned),
        }
    }
}

struct Map;

impl<'de> Visitor<'de> for Map {
    type Value = Options;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of options and their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options, A::Error> {
        let mut options = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = if is_secret(&key) {
                map.next_value().map(Value::Hidden)
            } else {
                let text = map.next_value::<Scalar>();
                text.and_then(|text| Text::expanded(&text.0).map_err(A::Error::custom)).map(Value::Open)
            };
            // serde does not say of which option that is, if the map stands in one that has a `type`.
            let value =
                value.map_err(|why| A::Error::custom(format_args!("librdkafka_options.{key}: {why}")))?;
            let name = NAMES.iter().find(|(other, _)| *other == key).map_or(&*key, |(_, name)| name);
            if options.insert(name.to_owned(), value).is_some() {
                let name = named(name);
                return Err(A::Error::custom(format_args!(
                    "librdkafka_options has {name} twice: write it once"
                )));
            }
        }
        Ok(Options(options))
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Options, D::Error> {
        from.deserialize_map(Map)
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(&self.0)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Open(text) => text.serialize(to),
            Value::Hidden(secret) => secret.serialize(to),
        }
    }
}

impl JsonSchema for Options {
    fn schema_name() -> Cow<'static, str> {
        "LibrdkafkaOptions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Options of librdkafka and their values. Secrets are texts: as they are, ${NAME}, or file:/path.",
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        })
    }
}

/// An option for a person, who may have written its other name.
pub(crate) fn named(name: &str) -> String {
    match NAMES.iter().find(|(_, same)| *same == name) {
        Some((other, _)) => format!("{name} (or {other})"),
        None => name.to_owned(),
    }
}

/// Refuses a number of which librdkafka would take the low 32 bits, and so another number. What else is wrong, it says itself.
///
/// # Errors
/// The number as it was written, and which ones the option takes.
pub(crate) fn check_number(option: &str, value: &str) -> Result<()> {
    let value = value.trim();
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || value.parse::<i32>().is_ok() {
        return Ok(());
    }
    // An option that is a text takes this one too. One that is a number says what it takes: none goes so low.
    let refused = ClientConfig::new().set(option, i32::MIN.to_string()).create_native_config().err();
    if let Some(KafkaError::ClientConfig(_, why, _, _)) = refused
        && let Some((_, range)) = why.split_once("is outside allowed range ")
    {
        bail!("librdkafka refuses the option {}: {value} is outside of {}", named(option), range.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_has_one_name() {
        let check = |yaml: &str, expected: &[(&str, &str)]| {
            let options: Options = yaml_serde::from_str(yaml).unwrap();
            let told: Vec<_> = options.iter().map(|(name, value)| (name, value.reveal().unwrap())).collect();
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
            assert_eq!(told, expected, "{yaml}");
        };
        check("{client.rack: a, acks: all}", &[("acks", "all"), ("client.rack", "a")]);
        check("{max.partition.fetch.bytes: '9'}", &[("fetch.message.max.bytes", "9")]);
        check(
            "{a: 1000, b: true, c: -1, d: 0.5}",
            &[("a", "1000"), ("b", "true"), ("c", "-1"), ("d", "0.5")],
        );
        check("{a: '${LAPWING_NO_SUCH:-x}', sasl.password: '007'}", &[("a", "x"), ("sasl.password", "007")]);
        check("{queue.buffering.max.ms: '9', linger.ms.x: a}", &[("linger.ms", "9"), ("linger.ms.x", "a")]);
        let twice = yaml_serde::from_str::<Options>("{linger.ms: '5', queue.buffering.max.ms: '5'}");
        let error = twice.unwrap_err().to_string();
        assert!(error.contains("has linger.ms (or queue.buffering.max.ms) twice: write it once"), "{error}");
    }

    /// What is set under one name is read under the other.
    #[test]
    fn names_are_those_of_librdkafka() {
        // Two kinds of consumers have it, and the names are no synonyms to librdkafka.
        for (other, name) in NAMES.iter().filter(|(other, _)| *other != "auto.commit.enable") {
            let is_number = |value: &str| value.parse::<f64>().is_ok();
            // Options of topics are there once one is set.
            let mut client = ClientConfig::new();
            client.set("partitioner", "random");
            let default = client.create_native_config().unwrap().get(name).unwrap_or_default();
            let value = match *name {
                "compression.type" => "gzip",
                "acks" => "1",
                _ if is_number(&default) => "5000",
                _ => "PLAIN",
            };
            let set = client.set(*name, value).create_native_config().unwrap();
            assert_eq!(set.get(other).unwrap(), set.get(name).unwrap(), "{other} and {name}");
            assert_ne!(set.get(other).unwrap(), default, "{other}");
        }
    }

    #[test]
    fn what_librdkafka_calls_sensitive_is_secret_and_what_nobody_knows() {
        for option in [
            "ssl.key.password",
            "ssl.key.pem",
            "ssl_key",
            "ssl.ca.pem",
            "https.ca.pem",
            "ssl.keystore.password",
            "sasl.password",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.extensions",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.jaas.config",
            "sasl.pasword",
            "SASL.Password",
            "basic.auth.credentials",
        ] {
            assert!(is_secret(option), "{option}");
        }
        for option in ["client.rack", "fetch.min.bytes", "sasl.username", "ssl.key.location", "debug"] {
            assert!(!is_secret(option), "{option}");
        }
        assert!(HARMLESS.is_sorted());
    }

    #[test]
    fn mistakes_name_the_option_and_show_no_secret() {
        /// As inputs and outputs are read.
        #[derive(Debug, serde::Deserialize)]
        #[serde(tag = "type")]
        enum Tagged {
            #[serde(rename = "t")]
            T {
                #[serde(rename = "o")]
                _options: Options,
            },
        }
        let check = |yaml: &str, expected: &str| {
            let error =
                yaml_serde::from_str::<Tagged>(&format!("{{type: t, o: {yaml}}}")).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("1234"), "{error}");
        };
        check("{x: [1]}", "librdkafka_options.x: a text, a number or a truth value");
        check("{x: '${LAPWING_NO_SUCH}'}", "librdkafka_options.x: the environment has no variable");
        check(
            "{sasl.password: 1234}",
            "librdkafka_options.sasl.password: a secret is a text: put it in quotes",
        );
    }
}
