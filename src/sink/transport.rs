//! What carries alerts out of the building, and what it says of each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use detectors::alert::Alert;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::file::FileSink;
use super::http::HttpSink;
use super::kafka::KafkaSink;
use super::output::Output;
use super::stdout::StdoutSink;
use super::syslog::SyslogSink;
use crate::{text, view};

/// Characters of a reason that are kept.
const REASON: usize = 200;
/// The longest name of an output.
const LONGEST_NAME: usize = 64;

/// An alert on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The alert's id.
    pub(crate) uuid: Uuid,
    /// The alert as one line of native JSON, without a newline.
    pub(crate) line: String,
    /// The same, parsed.
    pub(crate) alert: Alert,
}

/// What became of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver has it.
    Accepted,
    /// Not now. Whether the receiver has it is unknown.
    Retry {
        /// How long the receiver asks to be left alone.
        after: Option<Duration>,
        /// Why, for a person: a status and a short text, without secrets and without anything of the alert.
        reason: String,
    },
    /// Never: the same again would fail again.
    Rejected {
        /// Why, for a person.
        reason: String,
    },
}

/// How much a transport likes to get at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Alerts in one call of [`Transport::send`].
    pub(crate) max_items: usize,
    /// Bytes of their lines.
    pub(crate) max_bytes: usize,
    /// Requests that a call makes at the same time; more than one gives up the order within the call.
    pub(crate) concurrency: usize,
}

/// A way out.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Standard output.
    Stdout(StdoutSink),
    /// A file.
    File(FileSink),
    /// A receiver of HTTP requests.
    Http(Box<HttpSink>),
    /// A syslog receiver.
    Syslog(Box<SyslogSink>),
    /// A topic of a Kafka cluster.
    Kafka(Box<KafkaSink>),
}

impl Item {
    /// An alert from its line.
    pub(crate) fn parse(line: String) -> serde_json::Result<Item> {
        let alert: Alert = serde_json::from_str(&line)?;
        Ok(Item { uuid: alert.uuid, line, alert })
    }
}

impl Outcome {
    /// Not now, for this reason.
    pub(super) fn retry(reason: impl AsRef<str>) -> Outcome {
        Outcome::Retry { after: None, reason: presentable(reason.as_ref()) }
    }

    /// Never, for this reason.
    pub(super) fn rejected(reason: impl AsRef<str>) -> Outcome {
        Outcome::Rejected { reason: presentable(reason.as_ref()) }
    }

    /// The same for all.
    pub(super) fn of_all(self, items: usize) -> Vec<Outcome> {
        vec![self; items]
    }
}

/// A text of a receiver or of the system, fit for a log.
fn presentable(text: &str) -> String {
    text::clipped(&text::for_terminal(text.trim()), REASON).into_owned()
}

impl Transport {
    /// Builds what the configuration describes. Nothing is opened or connected yet, so that a receiver that is down at
    /// start-up is an outage like any other; certificates, keys and secrets are read, so that a mistake in the configuration is
    /// found at once.
    ///
    /// # Errors
    /// What is wrong with the configuration and what to write instead.
    pub(crate) fn new(output: &Output) -> Result<Transport> {
        let name = output.name();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(legal) || name.starts_with('.') {
            bail!(
                "outputs: `{}` is no name for an output: use up to {LONGEST_NAME} letters, digits, `.`, `_` and `-`, no dot first",
                presentable(&name)
            );
        }
        let common = output.common();
        if common.rate_limit.is_some_and(|limit| limit.alerts == 0 || limit.per.0.is_zero()) {
            bail!(
                "outputs.{name}: a `rate_limit` needs at least one alert and some time, such as {{per: 1m, alerts: 60}}"
            );
        }
        let transport = match output {
            Output::Stdout(output) => Ok(Transport::Stdout(StdoutSink::new(output))),
            Output::File(output) => FileSink::new(output).map(Transport::File),
            Output::Http(output) => HttpSink::new(output).map(Box::new).map(Transport::Http),
            Output::Syslog(output) => SyslogSink::new(output).map(Box::new).map(Transport::Syslog),
            Output::Kafka(output) => KafkaSink::new(output, &name).map(Box::new).map(Transport::Kafka),
        };
        transport.with_context(|| format!("outputs.{name}"))
    }

    /// Sends alerts, and says of each what became of it. If the call is dropped before it ends, some may have been sent.
    pub(crate) async fn send(&mut self, items: &[Arc<Item>]) -> Vec<Outcome> {
        if items.is_empty() {
            return Vec::new();
        }
        let outcomes = match self {
            Transport::Stdout(sink) => sink.send(items).await,
            Transport::File(sink) => sink.send(items).await,
            Transport::Http(sink) => sink.send(items).await,
            Transport::Syslog(sink) => sink.send(items).await,
            Transport::Kafka(sink) => sink.send(items).await,
        };
        assert_eq!(outcomes.len(), items.len(), "every alert has an outcome");
        outcomes
    }

    /// How much to hand over at once.
    pub(crate) fn batch(&self) -> Batch {
        match self {
            Transport::Stdout(_) | Transport::File(_) => {
                Batch { max_items: 1024, max_bytes: 1 << 20, concurrency: 1 }
            }
            Transport::Http(sink) => sink.batch(),
            Transport::Syslog(_) => Batch { max_items: 64, max_bytes: 256 << 10, concurrency: 1 },
            Transport::Kafka(_) => Batch { max_items: 8192, max_bytes: 8 << 20, concurrency: 1 },
        }
    }

    /// How long a receiver may be down before its alerts go to the dead letters: a chat message that comes hours late helps
    /// nobody. `None` means for ever.
    pub(crate) fn gives_up_after(&self) -> Option<Duration> {
        match self {
            Transport::Http(sink) => sink.gives_up_after(),
            Transport::Stdout(_) | Transport::File(_) | Transport::Syslog(_) | Transport::Kafka(_) => None,
        }
    }

    /// True if the receiver will never be there again, so that sending anew is in vain.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Transport::Stdout(sink) => sink.is_gone(),
            Transport::File(_) | Transport::Http(_) | Transport::Syslog(_) | Transport::Kafka(_) => false,
        }
    }

    /// Opens files anew and reads certificates anew (SIGHUP). What cannot be read leaves the old in use.
    pub(crate) async fn reopen(&mut self) {
        match self {
            Transport::Stdout(_) => {}
            Transport::File(sink) => sink.reopen().await,
            Transport::Http(sink) => sink.reopen(),
            Transport::Syslog(sink) => sink.reopen(),
            Transport::Kafka(sink) => sink.reopen(),
        }
    }

    /// Ends in order. What was accepted is already out, so there is nothing left to be written.
    pub(crate) async fn close(self) {
        if let Transport::Syslog(mut sink) = self {
            sink.close().await;
        }
    }
}

/// What repeats of an alert have in common: detector, actor and target. The same after a restart; 64 hexadecimal digits.
pub(crate) fn group_key(alert: &Alert) -> String {
    let resource = view::resource(alert);
    let parts = [
        alert.detector.as_str(),
        alert.cluster.as_deref().unwrap_or_default(),
        view::actor(alert),
        &resource,
        view::namespace(alert),
        view::name(alert),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        // With its length before each, no two lists of parts read alike.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(u32::from(digit), 16).expect("four bits are a hexadecimal digit"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::{NASTY, alert};

    fn check(yaml: &str, expected: &str) {
        let output: Output = yaml_serde::from_str(yaml).unwrap();
        let error = format!("{:#}", Transport::new(&output).unwrap_err());
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }

    #[test]
    fn mistakes_are_told_with_what_to_do() {
        check("{type: stdout, name: ''}", "outputs: `` is no name for an output: use up to 64 letters");
        check("{type: stdout, name: ../x}", "outputs: `../x` is no name for an output");
        check(
            "{type: stdout, rate_limit: {per: 0s, alerts: 1}}",
            "outputs.stdout: a `rate_limit` needs at least one alert and some time",
        );
    }

    #[test]
    fn repeats_have_the_same_key() {
        let key = group_key(&alert());
        assert_eq!(key.len(), 64);
        let mut later = alert();
        later.time = "2026-03-01T11:00:00.000000000Z".into();
        assert_eq!(group_key(&later), key);
        let mut other = alert();
        other.k8s.as_mut().unwrap().user = NASTY.into();
        assert_ne!(group_key(&other), key);
    }

    #[test]
    fn reasons_are_fit_for_a_log() {
        let Outcome::Rejected { reason } = Outcome::rejected(format!("{NASTY}{}", "x".repeat(1_000))) else {
            panic!()
        };
        assert_eq!(reason.chars().count(), REASON);
        assert!(!reason.chars().any(text::is_hostile), "{reason}");
    }
}
