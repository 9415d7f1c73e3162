//! The configuration file: parsed once, checked once, handed on as typed values.
//!
//! The same file serves the live run, so the sections of that are accepted here, unread. Anything else that is not understood
//! is an error with its place in the file: a misspelt key must not silently mean its default.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use detectors::event::time::{self, Nanos};
use detectors::level::Level;
use detectors::names;
use detectors::redact::paths::Hidden;
use detectors::settings::parse_network;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, IgnoredAny};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::sink::level_schema;
use crate::text;
use crate::units::{Scalar, Text};

/// Lists of networks: every entry is an address or a CIDR block.
const NETWORKS: [&str; 3] = ["trusted_proxies", "known_cidrs", "threat_intel"];
/// Lists that detectors and facts of ours read. Rules of the user's own may read others.
const LISTS: [&str; 5] = ["trusted_proxies", "known_cidrs", "threat_intel", "gitops", "platform_namespaces"];

/// What a configuration file says.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of settings")]
pub(crate) struct Config {
    /// The cluster's name.
    pub(crate) cluster: Option<Text>,
    /// What is to be changed about the detectors.
    pub(crate) detectors: Detectors,
    /// Lists of values that detectors use, by name.
    #[schemars(with = "BTreeMap<String, Vec<serde_json::Value>>")]
    pub(crate) lists: BTreeMap<String, Vec<Scalar>>,
    #[serde(rename = "state_dir", skip_serializing)]
    #[schemars(skip)]
    _state_dir: Option<IgnoredAny>,
    #[serde(rename = "role", skip_serializing)]
    #[schemars(skip)]
    _role: Option<IgnoredAny>,
    #[serde(rename = "matches", skip_serializing)]
    #[schemars(skip)]
    _matches: Option<IgnoredAny>,
    #[serde(rename = "inputs", skip_serializing)]
    #[schemars(skip)]
    _inputs: Option<IgnoredAny>,
    #[serde(rename = "outputs", skip_serializing)]
    #[schemars(skip)]
    _outputs: Option<IgnoredAny>,
    #[serde(rename = "spool", skip_serializing)]
    #[schemars(skip)]
    _spool: Option<IgnoredAny>,
    #[serde(rename = "server", skip_serializing)]
    #[schemars(skip)]
    _server: Option<IgnoredAny>,
    #[serde(rename = "shutdown_grace", skip_serializing)]
    #[schemars(skip)]
    _shutdown_grace: Option<IgnoredAny>,
    /// What no alert shows.
    pub(crate) redact: Redact,
}

/// The section `redact`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of settings")]
pub(crate) struct Redact {
    /// Paths into events.
    pub(crate) paths: Vec<String>,
}

/// The section `detectors`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of settings")]
pub(crate) struct Detectors {
    /// Files and folders of rules; relative ones are below the folder of the configuration file.
    pub(crate) paths: Vec<PathBuf>,
    /// Alerts below this level are not wanted.
    #[schemars(schema_with = "level_schema")]
    pub(crate) min_level: Option<Level>,
    /// Globs over detector names: these do not alert.
    pub(crate) disable: Vec<String>,
    /// Events that are to be passed over.
    pub(crate) exceptions: Vec<Exception>,
    /// Levels that replace the detectors' own.
    pub(crate) overrides: Vec<Override>,
}

/// Events that are no alerts although a detector matches them.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `detector` and `when`")]
pub(crate) struct Exception {
    /// A glob over detector names.
    pub(crate) detector: String,
    /// Facts and the values that they must have, as in a Sigma selection.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub(crate) when: yaml_serde::Value,
    /// Why; for whoever reads the file next.
    #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
    _reason: Option<String>,
    /// Events from this moment on are alerts again.
    #[serde(
        default,
        deserialize_with = "moment",
        serialize_with = "day",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<String>")]
    pub(crate) until: Option<Nanos>,
}

/// A level that replaces a detector's own.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `detector` and `level`")]
pub(crate) struct Override {
    /// A glob over detector names.
    pub(crate) detector: String,
    /// The level.
    #[schemars(schema_with = "level_schema")]
    pub(crate) level: Level,
}

fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Nanos>, D::Error> {
    let Some(typed) = Option::<String>::deserialize(from)? else { return Ok(None) };
    if typed.starts_with('-') || typed == "now" {
        return Err(D::Error::custom(format!("`until: {typed}` depends on when it is read: write a date")));
    }
    text::moment(&typed, 0).map(Some).map_err(|why| D::Error::custom(format!("`until`: {why}")))
}

#[allow(clippy::ref_option)] // the form that serde calls
fn day<S: Serializer>(moment: &Option<Nanos>, to: S) -> Result<S::Ok, S::Error> {
    moment.map(time::format).serialize(to)
}

impl Config {
    /// Reads a file.
    pub(crate) fn load(path: &Path) -> Result<Config> {
        let yaml = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Config::parse(&path.display().to_string(), &yaml)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for rules in &mut config.detectors.paths {
            *rules = folder.join(&rules);
        }
        Ok(config)
    }

    /// Reads the text of a file, which errors call `name`.
    fn parse(name: &str, yaml: &str) -> Result<Config> {
        let config: Config = yaml_serde::from_str(yaml).map_err(|error| anyhow!(explained(name, &error)))?;
        for list in NETWORKS {
            for entry in config.lists.get(list).into_iter().flatten() {
                if let Err(reason) = parse_network(&entry.0) {
                    bail!("{name}: lists.{list}: {reason}");
                }
            }
        }
        for path in &config.redact.paths {
            if let Err(reason) = Hidden::new(path) {
                bail!("{name}: redact.paths: {reason}");
            }
        }
        for list in config.lists.keys().filter(|list| !LISTS.contains(&list.as_str())) {
            if let Some(near) = names::nearest(list, LISTS) {
                tracing::warn!(list, "no detector of ours reads this list; did you mean `{near}`?");
            }
        }
        Ok(config)
    }
}

/// An error with its place, and the key that was probably meant.
pub(crate) fn explained(name: &str, error: &yaml_serde::Error) -> String {
    let full = error.to_string();
    let Some(place) = error.location() else { return format!("{name}: {full}") };
    let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message);
    // `unknown field `x`, expected one of `a`, `b``: the words between backquotes are the key and what is possible.
    let hint = match message.split_once("unknown ") {
        Some((_, rest)) => {
            let mut words = rest.split('`').skip(1).step_by(2);
            words.next().map_or_else(String::new, |wrong| names::did_you_mean(wrong, words))
        }
        None => String::new(),
    };
    format!("{name}:{}:{}: {message}{hint}", place.line(), place.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: &str) {
        let error = Config::parse("lapwing.yaml", yaml).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }

    #[test]
    fn all_sections_are_read() {
        let yaml = r#"
cluster: prod
state_dir: /var/lib/lapwing
inputs: [{type: file, paths: [/var/log/audit.log]}]
outputs: [{type: stdout}]
spool: {max_bytes: 2GiB, on_full: block}
server: {listen: "127.0.0.1:9468"}
redact: {paths: [requestObject.spec.note, proc.cmdline]}
detectors:
  paths: [rules, /etc/lapwing/detectors.d]
  min_level: low
  disable: ["recon/*"]
  exceptions:
    - detector: exec/pod-exec
      when: {actor.name: ops@corp.example, target.namespace|startswith: dev-}
      reason: they debug there every day
      until: 2026-04-01
  overrides:
    - {detector: "secret/*", level: critical}
lists:
  trusted_proxies: [10.0.0.1, 10.1.0.0/16]
  ports: [443, 6443]
"#;
        let config = Config::parse("lapwing.yaml", yaml).unwrap();
        assert_eq!(config.cluster, Some(Text("prod".into())));
        assert_eq!(config.detectors.min_level, Some(Level::Low));
        assert_eq!(config.detectors.exceptions[0].until, Some(1_775_001_600_000_000_000));
        assert_eq!(config.detectors.overrides[0].level, Level::Critical);
        assert_eq!(config.lists["ports"], [Scalar("443".into()), Scalar("6443".into())]);
    }

    #[test]
    fn the_cluster_may_come_from_the_environment() {
        let config =
            Config::parse("lapwing.yaml", "cluster: '${LAPWING_NO_SUCH_VARIABLE:-prod}-1'\n").unwrap();
        assert_eq!(config.cluster, Some(Text("prod-1".into())));
        check(
            "cluster: ${LAPWING_NO_SUCH_VARIABLE}\n",
            "lapwing.yaml:1:1: the environment has no variable `LAPWING_NO_SUCH_VARIABLE`",
        );
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert!(Config::parse("lapwing.yaml", "").unwrap().cluster.is_none());
        assert!(Config::parse("lapwing.yaml", "# only a comment\n").unwrap().lists.is_empty());
        assert!(Config::parse("lapwing.yaml", "detectors:\nlists:\n").is_ok());
    }

    #[test]
    fn unknown_keys_are_errors_with_a_place_and_a_suggestion() {
        check(
            "cluster: a\ndetectrs: {}\n",
            "lapwing.yaml:2:1: unknown field `detectrs`, expected one of `cluster`, `detectors`, `lists`, ",
        );
        check(
            "detectors:\n  min_levle: high\n",
            "lapwing.yaml:2:3: detectors: unknown field `min_levle`, expected one of `paths`, `min_level`, `disable`, \
             `exceptions`, `overrides`; did you mean `min_level`?",
        );
        check(
            "detectors:\n  exceptions:\n    - {detector: a, wen: {verb: get}}\n",
            "lapwing.yaml:3:21: detectors.exceptions[0]: unknown field `wen`, expected one of `detector`, `when`, \
             `reason`, `until`; did you mean `when`?",
        );
        check(
            "detectors:\n  overrides:\n    - {detector: a, level: hgh}\n",
            "lapwing.yaml:3:28: detectors.overrides[0].level: unknown variant `hgh`, expected one of `informational`, \
             `low`, `medium`, `high`, `critical`; did you mean `high`?",
        );
    }

    #[test]
    fn wrong_values_are_errors() {
        check(
            "detectors:\n  exceptions:\n    - {detector: a}\n",
            "lapwing.yaml:3:7: detectors.exceptions[0]: missing field `when`",
        );
        check(
            "detectors:\n  exceptions:\n    - {detector: a, when: {verb: get}, until: -2d}\n",
            "lapwing.yaml:3:7: detectors.exceptions[0]: `until: -2d` depends on when it is read: write a date",
        );
        check(
            "detectors: 3\n",
            "lapwing.yaml:1:12: detectors: invalid type: integer `3`, expected a map of settings",
        );
        check(
            "redact: {paths: [requestObjct.spec]}",
            "lapwing.yaml: redact.paths: `requestObjct.spec` begins with no key of an event and is no field of Falco's; \
             did you mean `requestObject`?",
        );
        check(
            "redact: {paths: ['requestObject.a[0]']}",
            "lapwing.yaml: redact.paths: `requestObject.a[0]`: names of keys, with dots between them, make a path; \
             every item of an array is meant",
        );
        check("redact: {path: []}", "lapwing.yaml:1:10: redact: unknown field `path`, expected `paths`");
        check("- a\n", "lapwing.yaml:1:1: invalid type: sequence, expected a map of settings");
        check("cluster: a\ncluster: b\n", "lapwing.yaml:1:1: duplicate field `cluster`");
        check(
            "lists: {trusted_proxies: [10.0.0.0/33]}",
            "lapwing.yaml: lists.trusted_proxies: `10.0.0.0/33` is neither an IP address nor a CIDR block",
        );
    }
}
