//! Options of librdkafka that are passed through, each under one name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Text;

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

/// Options as a configuration has them, under the names of [`NAMES`]'s right side whatever was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, Text>")]
#[schemars(with = "BTreeMap<String, Text>", inline)]
pub(crate) struct Options(BTreeMap<String, Text>);

impl TryFrom<BTreeMap<String, Text>> for Options {
    type Error = String;

    fn try_from(written: BTreeMap<String, Text>) -> Result<Options, String> {
        let mut options = BTreeMap::new();
        for (key, value) in written {
            let name = NAMES.iter().find(|(other, _)| *other == key).map_or(&*key, |(_, name)| name);
            if options.insert(name.to_owned(), value).is_some() {
                return Err(format!("librdkafka_options has {} twice: write it once", named(name)));
            }
        }
        Ok(Options(options))
    }
}

impl Options {
    /// The value of an option.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.0.as_str())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.0.as_str()))
    }
}

/// An option for a person, who may have written its other name.
pub(crate) fn named(name: &str) -> String {
    match NAMES.iter().find(|(_, same)| *same == name) {
        Some((other, _)) => format!("{name} (or {other})"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;

    #[test]
    fn an_option_has_one_name() {
        let check = |yaml: &str, expected: &[(&str, &str)]| {
            let options: Options = yaml_serde::from_str(yaml).unwrap();
            assert_eq!(options.iter().collect::<Vec<_>>(), expected, "{yaml}");
        };
        check("{client.rack: a, acks: all}", &[("acks", "all"), ("client.rack", "a")]);
        check("{max.partition.fetch.bytes: '9'}", &[("fetch.message.max.bytes", "9")]);
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
}
