//! A topic as it is typed among paths: `kafka://broker-1:9092,broker-2:9092/k8s-audit?since=-2h`.
//!
//! It says what is to be read and nothing of how one logs in: command lines are seen by others and kept by shells.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::Range;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use detectors::event::time::{Nanos, SECOND};
use detectors::{names, percent};

use crate::kafka::place;
use crate::text;

/// What an address begins with.
const SCHEME: &str = "kafka://";
/// What may stand behind the question mark.
const KEYS: [&str; 3] = ["since", "until", "partition"];
/// What to write instead.
const FORM: &str =
    "write kafka://broker:9092/topic, or kafka://broker-1,broker-2/topic?since=2026-03-01T10:00:00Z";

/// A topic that was typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// As it was typed.
    pub(crate) typed: String,
    /// Brokers to begin with: host and port of each, in order.
    pub(crate) servers: BTreeSet<String>,
    /// The topic's name.
    pub(crate) topic: String,
    /// The first message of this time or later is the first to be read, in milliseconds since 1970.
    pub(crate) since: Option<i64>,
    /// And the last is the one before the first of this time or later.
    pub(crate) until: Option<i64>,
    /// The partitions to be read; none are all.
    pub(crate) partitions: BTreeSet<i32>,
}

impl Address {
    /// Reads what was typed at the time `now`. `None` if it is no address, but a path.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead. A password that stands in it is not repeated.
    pub(crate) fn parse(typed: &OsStr, now: Nanos) -> Result<Option<Address>> {
        let scheme = typed.as_encoded_bytes().get(..SCHEME.len());
        if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME.as_bytes())) {
            return Ok(None);
        }
        let Some(typed) = typed.to_str() else { bail!("{SCHEME}...: not UTF-8: {FORM}") };
        // Neither hosts nor topics nor times have one.
        ensure!(
            !typed.contains('@'),
            "{SCHEME}...@...: who logs in is not told here, where others see it: name a configuration with -c FILE, whose \
             `inputs` has a `kafka` input of the same `bootstrap_servers` with `sasl` or `tls`"
        );
        let address = Address::read(typed, now).with_context(|| typed.to_owned())?;
        Ok(Some(address))
    }

    fn read(typed: &str, now: Nanos) -> Result<Address> {
        let rest = &typed[SCHEME.len()..];
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (servers, topic) =
            place.split_once('/').ok_or_else(|| anyhow!("the topic is missing: {FORM}"))?;
        let servers = servers.split(',').map(server).collect::<Result<_>>()?;
        let topic = topic_name(topic)?;
        let mut address = Address {
            typed: typed.to_owned(),
            servers,
            topic,
            since: None,
            until: None,
            partitions: BTreeSet::new(),
        };
        let mut seen = BTreeSet::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            ensure!(seen.insert(key), "`{key}` stands there twice");
            let (value, valid) = percent::decode(value, false);
            ensure!(valid, "{key}: `{value}` has a percent sign with no two hexadecimal digits behind it");
            address.set(key, &value, now)?;
        }
        if let (Some(since), Some(until)) = (address.since, address.until) {
            ensure!(since < until, "`since` is not before `until`");
        }
        Ok(address)
    }

    fn set(&mut self, key: &str, value: &str, now: Nanos) -> Result<()> {
        match key {
            "since" => self.since = Some(millis(key, value, now)?),
            "until" => self.until = Some(millis(key, value, now)?),
            "partition" => {
                for number in value.split(',') {
                    let number: Option<u32> = number.parse().ok();
                    let number = number.and_then(|number| i32::try_from(number).ok());
                    let number = number.with_context(|| {
                        format!("partition: `{value}` is no number: write partition=0 or partition=0,3")
                    })?;
                    self.partitions.insert(number);
                }
            }
            _ => bail!(
                "unknown key `{key}`, known are {}{}",
                KEYS.map(|key| format!("`{key}`")).join(", "),
                names::did_you_mean(key, KEYS)
            ),
        }
        Ok(())
    }

    /// The brokers, as librdkafka takes them.
    pub(crate) fn bootstrap(&self) -> String {
        let servers: Vec<&str> = self.servers.iter().map(String::as_str).collect();
        servers.join(",")
    }

    /// True if all brokers of the address are among these, which are written as a configuration has them.
    pub(crate) fn is_of(&self, bootstrap_servers: &str) -> bool {
        let theirs: BTreeSet<String> =
            bootstrap_servers.split(',').filter_map(|one| server(one.trim()).ok()).collect();
        self.servers.is_subset(&theirs)
    }

    /// The partitions of these that are wanted, and those that are wanted and are not among them.
    pub(crate) fn choose(&self, there: Range<i32>) -> (Vec<i32>, Vec<i32>) {
        if self.partitions.is_empty() {
            return (there.collect(), Vec::new());
        }
        self.partitions.iter().partition(|number| there.contains(number))
    }
}

/// A broker with its port.
fn server(text: &str) -> Result<String> {
    place::broker(text).map_err(|why| anyhow!("{why}: {FORM}"))
}

fn topic_name(text: &str) -> Result<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    ensure!(!text.is_empty(), "the topic is missing: {FORM}");
    place::topic(text).map_err(|why| {
        anyhow!("{why}: an address names one topic; several addresses may stand beside each other")
    })?;
    Ok(text.to_owned())
}

/// A moment as `--since` takes it; a span alone goes back from now too.
fn millis(key: &str, value: &str, now: Nanos) -> Result<i64> {
    let moment =
        text::moment(value, now).or_else(|why| text::moment(&format!("-{value}"), now).map_err(|_| why));
    moment.map(|moment| moment.div_euclid(SECOND / 1000)).map_err(|why| anyhow!("{key}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = 1_772_366_400 * SECOND; // 2026-03-01T12:00:00Z

    fn parse(typed: &str) -> Result<Option<Address>> {
        Address::parse(OsStr::new(typed), NOW)
    }

    #[test]
    fn addresses_are_read() {
        let check =
            |typed: &str, servers: &str, since: Option<i64>, until: Option<i64>, partitions: &[i32]| {
                let address = parse(typed).unwrap().unwrap();
                assert_eq!(address.bootstrap(), servers, "{typed}");
                assert_eq!(address.topic, "k8s-audit.v1_x", "{typed}");
                assert_eq!((address.since, address.until), (since, until), "{typed}");
                assert!(address.partitions.iter().eq(partitions), "{typed}");
            };
        let ten = Some(1_772_359_200_000);
        check("kafka://broker/k8s-audit.v1_x", "broker:9092", None, None, &[]);
        check("KAFKA://Broker:19092/k8s-audit.v1_x/?", "broker:19092", None, None, &[]);
        check(
            "kafka://b,a:1,[::1],[FE80::2]:3/k8s-audit.v1_x",
            "[::1]:9092,[fe80::2]:3,a:1,b:9092",
            None,
            None,
            &[],
        );
        check("kafka://b/k8s-audit.v1_x?since=2026-03-01T10:00:00Z", "b:9092", ten, None, &[]);
        check("kafka://b/k8s-audit.v1_x?since=2026-03-01T11:00:00+01:00", "b:9092", ten, None, &[]);
        check("kafka://b/k8s-audit.v1_x?since=2026-03-01T11%3A00%3A00%2B01%3A00", "b:9092", ten, None, &[]);
        check("kafka://b/k8s-audit.v1_x?since=2h", "b:9092", ten, None, &[]);
        check("kafka://b/k8s-audit.v1_x?since=-2h&until=now", "b:9092", ten, Some(NOW / 1_000_000), &[]);
        check("kafka://b/k8s-audit.v1_x?&until=1772359200&partition=7,0,7", "b:9092", None, ten, &[0, 7]);
    }

    #[test]
    fn paths_are_no_addresses() {
        for typed in ["", "-", "kafka", "kafka:/b/t", "./kafka://b/t", "kafka.log", "http://b/t"] {
            assert_eq!(parse(typed).unwrap(), None, "{typed}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (typed, expected) in [
            ("kafka://", "the topic is missing"),
            ("kafka:///t", "`` is no broker"),
            ("kafka://b", "the topic is missing"),
            ("kafka://b/", "the topic is missing"),
            ("kafka://b?since=2h", "the topic is missing"),
            ("kafka://b,/t", "`` is no broker"),
            ("kafka://b:/t", "`` is no port"),
            ("kafka://b:0/t", "`0` is no port"),
            ("kafka://b:+1/t", "`+1` is no port"),
            ("kafka://b:65536/t", "`65536` is no port"),
            ("kafka://b:1:2/t", "`1:2` is no port"),
            ("kafka://[::1/t", "`[::1` is no broker"),
            ("kafka://[::1]9092/t", "`[::1]9092` is no broker"),
            ("kafka://[::g]/t", "is no IPv6 address"),
            ("kafka://b c/t", "`b c` is no broker"),
            ("kafka://SASL_SSL://b/t", "`` is no port"),
            ("kafka://b/t/u", "an address names one topic"),
            ("kafka://b/t,u", "an address names one topic"),
            ("kafka://b/^k8s-.*", "an address names one topic"),
            ("kafka://b/%2e%2e", "an address names one topic"),
            ("kafka://b/..", "an address names one topic"),
            ("kafka://b/t#x", "an address names one topic"),
            ("kafka://b/t\n", "an address names one topic"),
            ("kafka://b/\u{202e}t", "an address names one topic"),
            ("kafka://b/t?from=start", "unknown key `from`, known are `since`, `until`, `partition`"),
            ("kafka://b/t?sinc=2h", "`partition`; did you mean `since`?"),
            ("kafka://b/t?since", "since: `` is no time"),
            ("kafka://b/t?since=yesterday", "since: `yesterday` is no time"),
            ("kafka://b/t?since=%zz", "percent sign"),
            ("kafka://b/t?since=%ff", "is no time"),
            ("kafka://b/t?since=1h&since=2h", "`since` stands there twice"),
            ("kafka://b/t?since=1h&until=2h", "`since` is not before `until`"),
            ("kafka://b/t?since=99999999999999999999d", "is no time"),
            ("kafka://b/t?partition=", "partition: `` is no number"),
            ("kafka://b/t?partition=-1", "partition: `-1` is no number"),
            ("kafka://b/t?partition=4294967295", "partition: `4294967295` is no number"),
            ("kafka://b/t?partition=0,", "partition: `0,` is no number"),
        ] {
            let error = format!("{:#}", parse(typed).unwrap_err());
            assert!(error.contains(expected), "{typed}: {error}");
        }
        let long = format!("kafka://b/{}", "t".repeat(250));
        assert!(parse(&long).is_err());
    }

    #[test]
    fn passwords_are_refused_and_not_repeated() {
        for typed in [
            "kafka://u:hunter2@b/t",
            "kafka://u:hunt/er2?@b/t",
            "kafka://b/t?password=hunter2@",
            "kafka://@b/hunter2",
        ] {
            let error = format!("{:#}", parse(typed).unwrap_err());
            assert!(error.contains("-c FILE") && !error.contains("hunt"), "{error}");
        }
    }

    #[test]
    fn the_same_brokers_are_known_again() {
        let address = parse("kafka://broker-2:9092,Broker-1/t").unwrap().unwrap();
        for (theirs, same) in [
            ("broker-1:9092,broker-2:9092", true),
            ("broker-1, broker-2:9092 ,broker-3", true),
            ("broker-1", false),
            ("broker-1:9093,broker-2", false),
            ("", false),
        ] {
            assert_eq!(address.is_of(theirs), same, "{theirs}");
        }
    }

    #[test]
    fn partitions_are_chosen() {
        let check = |typed: &str, wanted: &[i32], missing: &[i32]| {
            let (chosen, rest) = parse(typed).unwrap().unwrap().choose(0..3);
            assert_eq!((&chosen[..], &rest[..]), (wanted, missing), "{typed}");
        };
        check("kafka://b/t", &[0, 1, 2], &[]);
        check("kafka://b/t?partition=2,0", &[0, 2], &[]);
        check("kafka://b/t?partition=1,3", &[1], &[3]);
    }
}
