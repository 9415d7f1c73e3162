//! What the configuration says, and what a message becomes. How a member behaves is held by the fault suite, against a
//! cluster.

use super::*;

fn config(yaml: &str) -> Result<Config> {
    let config: Config = yaml_serde::from_str(yaml)?;
    config.check().map(|()| config)
}

#[test]
fn options_are_named_as_people_paste_them() {
    let config = config(
        "{bootstrap_servers: 'a:9092,b:9092', topics: ['^k8s-.*'], group_id: g, auto_offset_reset: earliest, \
         session_timeout_ms: 20000, commit_interval_ms: 1000, drain_timeout_ms: 500, \
         sasl: {enabled: true, mechanism: SCRAM-SHA-256, username: u, password: s}, \
         tls: {enabled: true, verify_certificate: false}, librdkafka_options: {fetch.min.bytes: '1000', \
         partition.assignment.strategy: range}}",
    )
    .unwrap();
    assert_eq!(config.from, From::Start);
    let client = config.client().unwrap();
    for (key, value) in [
        ("bootstrap.servers", "a:9092,b:9092"),
        ("group.id", "g"),
        ("session.timeout.ms", "20000"),
        ("heartbeat.interval.ms", "3000"),
        ("auto.offset.reset", "error"),
        ("enable.auto.commit", "false"),
        ("check.crcs", "true"),
        ("isolation.level", "read_committed"),
        ("security.protocol", "sasl_ssl"),
        ("fetch.min.bytes", "1000"),
        ("partition.assignment.strategy", "range"),
    ] {
        assert_eq!(client.get(key), Some(value), "{key}");
    }
}

#[test]
fn mistakes_are_told() {
    let check = |yaml: &str, expected: &str| {
        let error = format!("{:#}", config(yaml).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("{bootstrap_servers: 'a:1', topics: []}", "input `kafka` names no topic");
    check("{bootstrap_servers: '', topics: [t]}", "bootstrap_servers is empty");
    check("{bootstrap_servers: 'a:1', topics: ['^(']}", "input `kafka`: topics: `^(`");
    check("{bootstrap_servers: 'a:1', topics: [t], since: yesterday}", "since: `yesterday` is no time");
    check("{bootstrap_servers: 'a:1', topics: [t], from: middle}", "unknown variant `middle`");
    check(
        "{bootstrap_servers: 'a:1', topics: [t], librdkafka_options: {auto.offset.reset: latest}}",
        "librdkafka_options.auto.offset.reset: Lapwing sets this itself",
    );
    check("{bootstrap_servers: 'a:1', topics: [t], topic: t}", "unknown field `topic`");
}

#[test]
fn packed_payloads_are_unpacked_and_bombs_are_not() {
    use std::io::Write as _;
    let pack = |text: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    };
    let check = |payload: &[u8], expected: &[u8]| {
        let mut gathered = Gathered { bytes: b"before".to_vec(), ..Gathered::new("t/0".into()) };
        gathered.unpack(payload);
        assert_eq!(gathered.bytes, [b"before", expected].concat());
    };
    check(&pack(b"{}"), b"{}");
    check(&[pack(b"{}"), pack(b"[]")].concat(), b"{}[]");
    let torn = &pack(b"something longer")[..12];
    check(torn, torn);
    let bomb = pack(&vec![b' '; LARGEST as usize + 1]);
    check(&bomb, &bomb);
}
