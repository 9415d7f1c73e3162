//! What the configuration says about an output.

use anyhow::{Context as _, Result};
use detectors::alert::Alert;
use detectors::level::Level;
use detectors::names;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::encoding::Encoding;
use super::file::FileOutput;
use super::http::HttpOutput;
use super::kafka::KafkaOutput;
use super::stdout::StdoutOutput;
use super::syslog::SyslogOutput;
use crate::units::Span;

/// Where alerts are to go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", expecting = "a map with the `type` of the output")]
pub(crate) enum Output {
    /// Standard output, one JSON object a line.
    Stdout(StdoutOutput),
    /// A file, one JSON object a line.
    File(FileOutput),
    /// A receiver of HTTP requests; `preset` says which kind.
    Http(Box<HttpOutput>),
    /// A syslog receiver.
    Syslog(SyslogOutput),
    /// A topic of a Kafka cluster.
    Kafka(Box<KafkaOutput>),
}

/// At most so many alerts in so much time; the others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `per` and `alerts`")]
pub(crate) struct RateLimit {
    /// The time.
    pub(crate) per: Span,
    /// The number of alerts.
    #[schemars(range(min = 1))]
    pub(crate) alerts: u32,
}

/// What every output says: its name, which alerts it takes, how fast and in which form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Common {
    /// The name, if one is given.
    pub(crate) name: Option<String>,
    /// Alerts below this level are not for this output.
    pub(crate) min_level: Option<Level>,
    /// Globs over detector names: only these, if there are any.
    pub(crate) detectors: Vec<String>,
    /// Globs over detector names: not these.
    pub(crate) skip_detectors: Vec<String>,
    /// How many alerts in which time.
    pub(crate) rate_limit: Option<RateLimit>,
    /// Repeats of the same detector, actor and target within this time become one alert.
    pub(crate) repeat_after: Option<Span>,
    /// The form of the alerts.
    pub(crate) encoding: Encoding,
}

impl Common {
    /// True if an alert of this detector and level is for this output.
    pub(crate) fn wants(&self, alert: &Alert) -> bool {
        let named = |globs: &[String]| globs.iter().any(|glob| names::matches(glob, &alert.detector));
        self.min_level.is_none_or(|least| alert.level >= least)
            && (self.detectors.is_empty() || named(&self.detectors))
            && !named(&self.skip_detectors)
    }
}

/// A transport's struct of settings: its own fields, and those that every output has. They are written out, not flattened,
/// because only then does serde name the keys that would have been possible when it refuses one.
macro_rules! output {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, expecting = "a map of settings")]
        pub(crate) struct $name {
            /// The output's name, in logs, in metrics and on disk: letters, digits, `.`, `_` and `-`, at most 64. By default
            /// its type or preset. No two outputs have the same.
            pub(crate) name: Option<String>,
            /// Alerts below this level are not sent.
            #[serde(default)]
            #[schemars(schema_with = "crate::sink::output::level_schema")]
            pub(crate) min_level: Option<detectors::level::Level>,
            /// Globs over detector names: if there are any, only alerts of these are sent.
            #[serde(default)]
            pub(crate) detectors: Vec<String>,
            /// Globs over detector names: alerts of these are not sent.
            #[serde(default)]
            pub(crate) skip_detectors: Vec<String>,
            /// At most so many alerts in so much time; the others wait in the spool.
            pub(crate) rate_limit: Option<crate::sink::RateLimit>,
            /// Repeats of the same detector, actor and target within this time become one alert with a count. The time is that
            /// of the events: on a quiet stream the count waits for a later event.
            pub(crate) repeat_after: Option<crate::units::Span>,
            /// The form of the alerts: `native`, `ocsf` or `ecs`.
            #[serde(default)]
            pub(crate) encoding: crate::sink::Encoding,
            $($(#[$field_meta])* pub(crate) $field: $type,)*
        }

        impl $name {
            fn common(&self) -> crate::sink::Common {
                crate::sink::Common {
                    name: self.name.clone(),
                    min_level: self.min_level,
                    detectors: self.detectors.clone(),
                    skip_detectors: self.skip_detectors.clone(),
                    rate_limit: self.rate_limit,
                    repeat_after: self.repeat_after,
                    encoding: self.encoding,
                }
            }
        }

        impl From<&$name> for crate::sink::Common {
            fn from(output: &$name) -> crate::sink::Common {
                output.common()
            }
        }
    };
}
pub(super) use output;

impl Output {
    /// What every output says.
    pub(crate) fn common(&self) -> Common {
        match self {
            Output::Stdout(output) => output.into(),
            Output::File(output) => output.into(),
            Output::Http(output) => (&**output).into(),
            Output::Syslog(output) => output.into(),
            Output::Kafka(output) => (&**output).into(),
        }
    }

    /// The output's name: the given one, else its type or preset.
    pub(crate) fn name(&self) -> String {
        let otherwise = match self {
            Output::Stdout(_) => "stdout",
            Output::File(_) => "file",
            Output::Http(output) => output.preset.name(),
            Output::Syslog(_) => "syslog",
            Output::Kafka(_) => "kafka",
        };
        self.common().name.unwrap_or_else(|| otherwise.to_owned())
    }
}

impl Output {
    /// Posts alerts one by one to a webhook.
    ///
    /// # Errors
    /// The URL is none.
    pub(crate) fn forward(url: &str, nth: usize) -> Result<Output> {
        let name = if nth == 0 { "forward".to_owned() } else { format!("forward-{}", nth + 1) };
        let settings = serde_json::json!({"type": "http", "preset": "webhook", "name": name, "url": url});
        serde_json::from_value(settings).with_context(|| "--forward: not a URL".to_owned())
    }

    /// Writes alerts to standard output.
    pub(crate) fn stdout() -> Output {
        serde_json::from_value(serde_json::json!({"type": "stdout"}))
            .expect("it has no more settings that must be given")
    }

    /// One line for a person, without anything secret.
    pub(crate) fn describe(&self) -> String {
        let name = self.name();
        let common = self.common();
        let what = match self {
            Output::Stdout(_) => "standard output".to_owned(),
            Output::File(file) => format!("file {}", file.path.display()),
            Output::Http(http) => format!("http, {}", http.preset.name()),
            Output::Syslog(syslog) => format!("syslog {}", syslog.address.0),
            Output::Kafka(kafka) => format!("kafka {}, {}", kafka.bootstrap_servers.0, kafka.topic.0),
        };
        match common.min_level {
            Some(level) => format!("{name}: {what}, {} and above", level.name()),
            None => format!("{name}: {what}"),
        }
    }
}

/// The names of the levels.
pub(crate) fn level_schema(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = Level::ALL.iter().map(|level| level.name()).collect();
    json_schema!({"type": "string", "enum": names})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::alert;

    fn check(yaml: &str, wanted: bool) {
        let output: Output = yaml_serde::from_str(yaml).unwrap();
        assert_eq!(output.common().wants(&alert()), wanted, "{yaml}");
    }

    #[test]
    fn an_output_takes_what_it_wants() {
        check("{type: stdout}", true);
        check("{type: stdout, min_level: high}", true);
        check("{type: stdout, min_level: critical}", false);
        check("{type: stdout, detectors: ['rbac/*']}", true);
        check("{type: stdout, detectors: ['exec/*']}", false);
        check("{type: stdout, detectors: ['rbac/*'], skip_detectors: ['*/cluster-admin*']}", false);
    }

    #[test]
    fn names() {
        for (yaml, name) in [
            ("{type: stdout}", "stdout"),
            ("{type: stdout, name: log}", "log"),
            ("{type: http, preset: falcosidekick, url: 'http://a:2801'}", "falcosidekick"),
        ] {
            assert_eq!(yaml_serde::from_str::<Output>(yaml).unwrap().name(), name);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_those_that_are_known() {
        let error =
            yaml_serde::from_str::<Output>("{type: stdout, min_levle: high}").unwrap_err().to_string();
        assert!(error.contains("unknown field `min_levle`, expected one of `name`, `min_level`"), "{error}");
        let error = yaml_serde::from_str::<Output>("{type: stdot}").unwrap_err().to_string();
        assert!(error.contains("unknown variant `stdot`, expected one of `stdout`"), "{error}");
    }

    #[test]
    fn the_schema_accepts_what_is_accepted() {
        let schema = schemars::schema_for!(Output).to_value();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for (yaml, fine) in [
            ("{type: stdout}", true),
            ("{type: stdout, min_level: high, rate_limit: {per: 1m, alerts: 10}}", true),
            ("{type: file, path: /var/log/a.jsonl, rotate: {max_size: 10MiB, keep: 3}}", true),
            ("{type: http, preset: falcosidekick, url: 'http://a:2801'}", true),
            ("{type: syslog, address: 'a:514', facility: local3}", true),
            ("{type: stdout, min_levle: high}", false),
            ("{type: http, preset: falcosidekik, url: 'http://a:2801'}", false),
        ] {
            let value: serde_json::Value = yaml_serde::from_str(yaml).unwrap();
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert_eq!(errors.is_empty(), fine, "{yaml}: {errors:?}");
            assert_eq!(yaml_serde::from_str::<Output>(yaml).is_ok(), fine, "{yaml}");
        }
    }
}
