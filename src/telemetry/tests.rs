//! The counters through their methods, and the reference page that is made from them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// A run in which everything happened, so that every metric has a series.
fn everything() -> Arc<Telemetry> {
    let telemetry = Telemetry::new();
    let t = &telemetry;
    t.configured("00ff");
    t.reloaded(Ok("2 detectors"));
    t.detectors(&[]);
    t.durability_error("the log", &io::Error::other("no"));
    t.backpressure(Duration::from_millis(1500));
    t.certificate("audit", UNIX_EPOCH + Duration::from_secs(7));
    t.steps_dropped(3);
    t.dead_letters_fallen(2);
    t.input_opened("audit");
    t.records("audit", "audit", 2);
    t.bytes("audit", 100);
    t.bad("audit", 1);
    t.partial("audit", 1);
    t.input_dead_letter("audit");
    t.input_dead_letters_dropped("audit", 1);
    t.handshake_failed("audit", [10, 0, 0, 1].into(), &io::Error::from(io::ErrorKind::UnexpectedEof));
    t.last_event("audit", 1_000 * SECOND);
    t.notice(&notice(What::Gap));
    t.intake("audit", 503, Duration::from_millis(2));
    t.file("audit", "/var/log/audit.log", 10, 20);
    t.rotated("audit");
    t.member("kafka");
    t.partition_lag("kafka", "k8s-audit/0", 5);
    t.rebalanced("kafka", 3);
    t.scope("kafka", true);
    t.committed("kafka", true);
    t.processed(Duration::from_millis(3));
    t.alert("rbac/cluster-admin-binding", Level::High);
    t.blind("rbac/cluster-admin-binding", 1);
    t.suppressed("grouped", 1);
    t.correlation(&Stats::default(), &Stats { evicted: 1, late: 2, future: 3, ..Stats::default() });
    t.output_opened("sidekick", 2 << 30);
    t.sent("sidekick", 5, Duration::from_millis(40));
    t.failed("sidekick", "503 Service Unavailable");
    t.retried("sidekick");
    t.dropped("sidekick", "spool_overflow", 1);
    t.dead_letter("sidekick", "400 Bad Request");
    t.spool("sidekick", 7, 700);
    t.spool_oldest("sidekick", Some(990 * SECOND));
    telemetry
}

fn notice(what: What) -> Notice {
    Notice { input: "audit".into(), part: None, what, message: "1 to 2".to_owned(), identity: "x".to_owned() }
}

/// The metrics at second 1,060.
fn text_of(telemetry: &Telemetry) -> String {
    telemetry.encode(UNIX_EPOCH + Duration::from_secs(1060))
}

/// Does something and looks for a line in the metrics.
fn check(happened: impl FnOnce(&Telemetry), line: &str) {
    let telemetry = Telemetry::new();
    happened(&telemetry);
    let text = text_of(&telemetry);
    assert!(text.lines().any(|got| got == line), "no line `{line}` in:\n{text}");
}

#[test]
fn each_method_counts() {
    check(|t| t.bytes("audit", 7), r#"lapwing_input_bytes_total{input="audit"} 7"#);
    check(
        |t| t.records("audit", "audit-list", 2),
        r#"lapwing_input_records_total{input="audit",format="audit-list"} 2"#,
    );
    check(|t| t.bad("a", 3), r#"lapwing_input_errors_total{input="a",reason="unparseable"} 3"#);
    check(|t| t.input_opened("a"), r#"lapwing_input_notices_total{input="a",reason="input_gap"} 0"#);
    check(
        |t| t.notice(&notice(What::Silent)),
        r#"lapwing_input_notices_total{input="audit",reason="input_silent"} 1"#,
    );
    check(
        |t| t.intake("hook", 200, Duration::ZERO),
        r#"lapwing_http_requests_total{input="hook",code="200"} 1"#,
    );
    check(|t| t.retention_gap("k", 7), r#"lapwing_kafka_gap_messages_total{input="k"} 7"#);
    check(|t| t.message_again("k"), r#"lapwing_kafka_messages_read_again_total{input="k"} 1"#);
    check(|t| t.matches_written(3), "lapwing_matches_written_total 3");
    check(|t| t.matches_refused("no room"), "lapwing_matches_write_errors_total 1");
    check(|t| t.null_message("k"), r#"lapwing_kafka_null_messages_total{input="k"} 1"#);
    check(|t| t.broker_error("k", "down"), r#"lapwing_kafka_errors_total{input="k"} 1"#);
    check(|t| t.committed("k", false), r#"lapwing_kafka_commits_total{input="k",result="error"} 1"#);
    check(|t| t.rebalanced("k", 2), r#"lapwing_kafka_assigned_partitions{input="k"} 2"#);
    check(
        |t| t.partition_lag("k", "topic/1", 9),
        r#"lapwing_kafka_lag_messages{input="k",partition="topic/1"} 9"#,
    );
    check(|t| t.alert("a/b", Level::Low), r#"lapwing_rule_matches_total{detector="a/b",level="low"} 1"#);
    check(|t| t.alert("a/b", Level::Low), r#"lapwing_alerts_total{level="low"} 1"#);
    check(|t| t.suppressed("grouped", 4), r#"lapwing_alerts_suppressed_total{reason="grouped"} 4"#);
    check(|t| t.sent("o", 9, Duration::ZERO), r#"lapwing_output_sent_total{output="o"} 9"#);
    check(|t| t.backpressure(Duration::from_millis(1500)), "lapwing_backpressure_seconds_total 1.5");
}

#[test]
fn a_failure_has_a_code_and_never_a_text() {
    for (reason, label) in [
        ("429 Too Many Requests", "429"),
        ("the receiver answered 503: <b>you</b>", "503"),
        ("connection timed out after 5000 ms", "timeout"),
        ("tcp connect error: Connection refused", "connection_refused"),
        ("anything \" that\na receiver says", "error"),
    ] {
        let line = format!(r#"lapwing_output_failed_total{{output="o",code="{label}"}} 1"#);
        check(|t| t.failed("o", reason), &line);
    }
}

#[test]
fn every_kind_of_loss_begins_at_zero_and_counts() {
    for loss in Loss::ALL {
        check(|_| (), &format!(r#"lapwing_loss_total{{class="{}"}} 0"#, loss.name()));
    }
    let class = |class: &str, count: u64| format!(r#"lapwing_loss_total{{class="{class}"}} {count}"#);
    check(|t| t.notice(&notice(What::Gap)), &class("input_gap", 1));
    check(|t| t.notice(&notice(What::Truncated)), &class("input_gap", 0));
    check(|t| t.intake("a", 503, Duration::ZERO), &class("intake_refused", 1));
    check(|t| t.intake("a", 400, Duration::ZERO), &class("intake_refused", 0));
    check(|t| t.dead_letter("a", "400"), &class("dead_letter", 1));
    check(|t| t.dropped("a", "spool_overflow", 3), &class("alert_dropped", 3));
    check(|t| t.input_dead_letters_dropped("a", 4), &class("record_dropped", 4));
    let late = Stats { late: 2, evicted: 1, ..Stats::default() };
    check(|t| t.correlation(&Stats::default(), &late), &class("late_event", 2));
    check(|t| t.correlation(&late, &late), &class("late_event", 0));
}

#[test]
fn what_depends_on_the_clock_is_computed_when_it_is_asked_for() {
    let telemetry = everything();
    for (second, lag, age) in [(1060, "60.0", "70.0"), (1061, "61.0", "71.0"), (900, "0.0", "0.0")] {
        let text = telemetry.encode(UNIX_EPOCH + Duration::from_secs(second));
        assert!(text.contains(&format!(r#"lapwing_input_lag_seconds{{input="audit"}} {lag}"#)), "{text}");
        assert!(
            text.contains(&format!(r#"lapwing_spool_oldest_age_seconds{{output="sidekick"}} {age}"#)),
            "{text}"
        );
    }
    telemetry.spool("sidekick", 0, 0);
    let text = text_of(&telemetry);
    assert!(text.contains(r#"lapwing_spool_oldest_age_seconds{output="sidekick"} 0.0"#), "{text}");
}

#[test]
fn a_reload_is_seen() {
    check(|_| (), "lapwing_config_last_reload_successful 1");
    check(|t| t.reloaded(Err("line 3: no such key")), "lapwing_config_last_reload_successful 0");
    let telemetry = everything();
    telemetry.reloaded(Err("no"));
    telemetry.reloaded(Ok("2 detectors"));
    telemetry.configured("1234");
    let text = text_of(&telemetry);
    let hashes: Vec<&str> =
        text.lines().filter(|line| line.starts_with("lapwing_config_hash_info{")).collect();
    assert_eq!(hashes, [r#"lapwing_config_hash_info{sha256="1234"} 1"#]);
    assert!(text.contains("lapwing_config_last_reload_successful 1"));
}

#[test]
fn a_hundred_thousand_different_alerts_make_no_more_than_a_fixed_number_of_series() {
    let telemetry = Telemetry::new();
    for n in 0..100_000 {
        let hostile = format!("family/{n}\"}} 1\n");
        telemetry.alert(&hostile, Level::ALL[n % 5]);
        telemetry.blind(&hostile, 1);
        telemetry.failed(&hostile, &hostile);
        telemetry.file(&hostile, &hostile, 1, 1);
        telemetry.dead_letter(&hostile, &hostile);
    }
    let text = text_of(&telemetry);
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    // 4,096 detectors at five levels and 4,096 blind, 256 inputs and outputs, 256 paths; `other` beside each.
    assert!(series < 30_000, "{series} series");
    let matches: u64 = text
        .lines()
        .filter(|line| line.starts_with("lapwing_rule_matches_total"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert_eq!(matches, 100_000, "what is not named is still counted");
}

/// What is logged: a level and a part of the text for each line.
fn logged(happened: impl FnOnce(&Telemetry), expected: &[(&str, &str)]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(Arc::new(file.reopen().unwrap()))
        .with_ansi(false)
        .without_time()
        .finish();
    tracing::subscriber::with_default(subscriber, || happened(&Telemetry::new()));
    let text = std::fs::read_to_string(file.path()).unwrap();
    let got: Vec<&str> = text.lines().collect();
    assert_eq!(got.len(), expected.len(), "{text}");
    for (line, (level, part)) in got.iter().zip(expected) {
        assert!(
            line.trim_start().starts_with(level) && line.contains(part),
            "no {level} with `{part}`: {line}"
        );
    }
}

#[test]
fn an_operator_is_told_once_a_minute() {
    logged(|t| (0..1000).for_each(|_| t.notice(&notice(What::Gap))), &[("ERROR", "1 to 2")]);
    logged(
        |t| {
            t.notice(&notice(What::Truncated));
            t.notice(&notice(What::Unreadable));
        },
        &[("WARN", "truncated"), ("ERROR", "cannot be read")],
    );
    logged(
        |t| {
            t.failed("a", "503");
            t.failed("a", "503");
            t.failed("b", "503");
            t.sent("a", 1, Duration::ZERO);
            t.sent("a", 1, Duration::ZERO);
        },
        &[("WARN", "output=\"a\""), ("WARN", "output=\"b\""), ("INFO", "works again")],
    );
    logged(
        |t| t.failed("a", "500 x\nERROR forged\u{1b}[31m\u{202e}"),
        &[("WARN", "x\\nERROR forged\\u{1b}")],
    );
    logged(|t| t.dead_letter("a", &"x".repeat(100_000)), &[("ERROR", "dead letters")]);
    logged(|t| t.reloaded(Err("line 3")), &[("ERROR", "line 3")]);
    // What happens all the time is counted only.
    logged(
        |t| {
            t.bytes("a", 1);
            t.bad("a", 0);
            t.partial("a", 0);
            t.alert("a/b", Level::Critical);
            t.intake("a", 200, Duration::ZERO);
            t.file("a", "/x", 1, 2);
            t.correlation(&Stats::default(), &Stats::default());
        },
        &[],
    );
}

#[test]
fn the_process_is_measured() {
    let text = text_of(&Telemetry::new());
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("{name}"));
        assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() >= 0.0, "{line}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// A row of the reference.
#[derive(Default)]
struct Row<'a> {
    kind: &'a str,
    help: &'a str,
    labels: Vec<&'a str>,
}

/// The families in the text form, by name.
fn families(text: &str) -> BTreeMap<&str, Row<'_>> {
    let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    let mut last = "";
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            rows.entry(name).or_default().help = help;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            rows.entry(name).or_default().kind = kind;
            last = name;
        } else if let Some((_, labels)) = line.split_once('{') {
            let row = rows.get_mut(last).expect("a type stands before its series");
            let names =
                labels.split_once('}').unwrap().0.split(',').map(|pair| pair.split_once('=').unwrap().0);
            row.labels = names.filter(|name| *name != "le").collect();
        }
    }
    rows
}

/// The reference page.
fn reference() -> String {
    let telemetry = everything();
    let text = text_of(&telemetry);
    let mut page = String::from(INTRODUCTION);
    for (name, row) in families(&text) {
        let total = if row.kind == "counter" { "_total" } else { "" };
        let labels: Vec<String> = row.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        writeln!(page, "| `{name}{total}` | {} | {labels} | {} |", row.kind, row.help.trim_end_matches('.'))
            .unwrap();
    }
    page
}

const INTRODUCTION: &str = "\
# Metrics

`lapwing run` serves these at `/metrics` on `server.listen` (127.0.0.1:9468 unless the configuration says otherwise), in the
OpenMetrics text format. This page is made from the registry; a test fails when it is stale.

Names and labels are frozen. Labels hold names from the configuration, names of detectors and words of closed sets; never the
text of an event. A histogram has `_bucket`, `_sum` and `_count`.

`lapwing_loss_total` is the one number to watch: each kind of possible loss that has a name counts there, and in detail
elsewhere.

| class | what happened | in detail |
|---|---|---|
| `input_gap` | a part of an input is gone that was never read | `lapwing_input_notices_total{reason=\"input_gap\"}` |
| `input_silent` | an input has fallen silent | `lapwing_input_notices_total{reason=\"input_silent\"}` |
| `intake_refused` | the HTTP intake turned a request away (413, 429, 503); its sender may give it up | `lapwing_http_requests_total` |
| `dead_letter` | a record that is no event, or an alert that its output will never accept, was put aside | `lapwing_input_dlq_records_total`, `lapwing_dlq_records_total` |
| `alert_dropped` | an output will not get an alert | `lapwing_output_dropped_total` |
| `state_pressure` | correlations forgot a group early; its count is approximate | `lapwing_state_evictions_total` |
| `late_event` | an event came too late for a window and was judged singly | `lapwing_late_events_total` |
| `record_dropped` | a record that is no event is not in the dead letters, because one batch held more than 1,000 | `lapwing_input_dlq_dropped_total` |

The first two, dead letters, alerts that a full spool drops and forgotten groups raise an alert of the family `integrity` as well.

| name | type | labels | what it is |
|---|---|---|---|
";

#[test]
fn every_registered_metric_is_in_the_reference() {
    // A family without a series is not written: one that `everything` forgets would be missing from the page.
    let source: String = include_str!("metrics.rs").split_whitespace().collect();
    let registered: Vec<String> = source
        .split("(r,\"")
        .skip(1)
        .map(|rest| format!("lapwing_{}", rest.split_once('"').unwrap().0))
        .collect();
    assert!(registered.len() > 40, "{registered:?}");
    let page = reference();
    for name in registered {
        assert!(page.contains(&format!("| `{name}")), "{name} is not counted in `everything`");
    }
}

#[test]
fn the_reference_of_metrics_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let fresh = "run `UPDATE_GOLDEN=1 cargo test --bin lapwing metrics_is_up`";
    assert!(written == reference(), "docs/metrics.md is stale: {fresh}");
}
