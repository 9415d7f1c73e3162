//! How brokers and topics are written, in a configuration and in an address that is typed.

use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::de::{Deserialize as _, Deserializer, Error as _};

use crate::units::Text;

/// The port of a broker that is named without one, as in librdkafka.
const PORT: u16 = 9092;
/// The longest name that Kafka gives a topic.
const LONGEST: usize = 249;
/// What to write instead.
const FORM: &str = "write `bootstrap_servers: broker-1:9092,broker-2:9092`";
/// What Java's brokers have before their addresses, and what says so here.
const LISTENERS: [(&str, &str); 4] = [
    ("PLAINTEXT", ""),
    ("SSL", ", and write `tls: {}` beside bootstrap_servers"),
    (
        "SASL_PLAINTEXT",
        ", and write `sasl: {mechanism: ..., username: ..., password: ...}` beside bootstrap_servers",
    ),
    (
        "SASL_SSL",
        ", and write `sasl: {mechanism: ..., username: ..., password: ...}` and `tls: {}` beside bootstrap_servers",
    ),
];

/// Reads `bootstrap_servers`: brokers with commas between, and perhaps spaces around. They are looked at when they are read, and
/// not when they are used, because much shows them: a password that somebody wrote among them is not even known.
pub(crate) fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
    let text = Text::deserialize(from)?;
    checked(&text.0).map(Text).map_err(|why| D::Error::custom(format_args!("bootstrap_servers: {why:#}")))
}

/// The brokers, without the spaces: librdkafka takes those for part of the names.
fn checked(text: &str) -> Result<String> {
    ensure!(!text.trim().is_empty(), "no broker is named: {FORM}");
    // What stands before it may be a password, with commas and all.
    ensure!(
        !text.contains('@'),
        "`@` has no place there: {FORM}, and beside it who logs in: `sasl: {{mechanism: SCRAM-SHA-512, username: ..., \
         password: ...}}`"
    );
    let brokers: Vec<&str> = text.split(',').map(str::trim).collect();
    for one in &brokers {
        if let Some((scheme, _)) = one.split_once("://") {
            let known = LISTENERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme));
            let (_, more) = known.with_context(|| format!("`{one}` is no broker: {FORM}"))?;
            bail!("`{one}`: leave `{scheme}://` out{more}");
        }
        broker(one).map_err(|why| anyhow!("{why}: {FORM}"))?;
    }
    Ok(brokers.join(","))
}

/// A broker with its port, in small letters.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn broker(text: &str) -> Result<String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            ensure!(host.parse::<Ipv6Addr>().is_ok(), "`[{host}]` is no IPv6 address");
            ensure!(rest.is_empty() || rest.starts_with(':'), "`{text}` is no broker");
            (format!("[{}]", host.to_ascii_lowercase()), rest.strip_prefix(':'))
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            ensure!(!host.is_empty() && host.bytes().all(fits), "`{text}` is no broker");
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port {
        None => PORT,
        Some(port) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|number| digits && *number != 0);
            number.with_context(|| format!("`{text}`: `{port}` is no port"))?
        }
    };
    Ok(format!("{host}:{port}"))
}

/// Says what is wrong with the name of a topic (Kafka's `Topic.validate`).
///
/// # Errors
/// What.
pub(crate) fn topic(text: &str) -> Result<()> {
    ensure!(
        !text.is_empty() && text.bytes().all(fits) && text != "." && text != "..",
        "`{text}` is no name of a topic, which has letters, digits, `.`, `_` and `-`"
    );
    ensure!(text.len() <= LONGEST, "`{text}` is no name of a topic, which has at most {LONGEST} characters");
    Ok(())
}

/// What stands in names of hosts and of topics.
fn fits(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_a_list() {
        for (written, expected) in [
            ("broker", "broker"),
            ("Broker-1.example:9093, b_2 ,10.0.0.1:65535", "Broker-1.example:9093,b_2,10.0.0.1:65535"),
            ("[::1],[fe80::1]:9092", "[::1],[fe80::1]:9092"),
        ] {
            assert_eq!(checked(written).unwrap(), expected);
        }
        for (written, expected) in [
            (" ", "no broker is named: write `bootstrap_servers: "),
            ("a,,b", "`` is no broker: write"),
            ("a:1,", "`` is no broker"),
            (":9092", "`:9092` is no broker"),
            ("a:", "`a:`: `` is no port"),
            ("a:0", "`0` is no port"),
            ("a:99999", "`a:99999`: `99999` is no port: write"),
            ("a:+1", "`+1` is no port"),
            ("a:1:2", "`1:2` is no port"),
            ("::1", "`::1` is no broker"),
            ("[::g]:1", "`[::g]` is no IPv6 address"),
            ("[::1]1", "`[::1]1` is no broker"),
            ("a b:1", "`a b:1` is no broker"),
            ("a:1 b:1", "`1 b:1` is no port"),
            ("a;b:1", "`a;b:1` is no broker"),
            ("http://a:1", "`http://a:1` is no broker"),
            ("a:1/t", "`1/t` is no port"),
            ("PLAINTEXT://a:1", "`PLAINTEXT://a:1`: leave `PLAINTEXT://` out"),
            ("a,ssl://b:1", "`ssl://b:1`: leave `ssl://` out, and write `tls: {}` beside"),
            ("SASL_SSL://b:1", "leave `SASL_SSL://` out, and write `sasl: {mechanism: ..., username: ..., "),
        ] {
            let error = checked(written).unwrap_err().to_string();
            assert!(error.contains(expected), "{written}: {error}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_repeated() {
        for written in ["SASL_SSL://u:hunter2@b:1", "a:1,u:hunt,er2@b", "hunter2@", "a,hunter2:@b,c"] {
            let error = checked(written).unwrap_err().to_string();
            assert!(error.contains("`@` has no place there") && !error.contains("hunt"), "{error}");
        }
    }

    #[test]
    fn a_topic_has_a_name() {
        let longest = "t".repeat(LONGEST);
        for name in ["t", "k8s-audit.v1_X", "...", &longest] {
            topic(name).unwrap();
        }
        for (name, expected) in [
            ("", "`` is no name of a topic"),
            (".", "`.` is no name"),
            ("..", "`..` is no name"),
            ("k8s audit", "letters, digits, `.`, `_` and `-`"),
            ("k8s-.*", "`k8s-.*` is no name"),
            ("t\u{e4}", "is no name"),
            (&format!("{longest}t"), "at most 249 characters"),
        ] {
            let error = topic(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
