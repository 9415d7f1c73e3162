//! The command line as users and scripts meet it: streams, exit codes, messages.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn lapwing(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-logs"));
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    lapwing(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs `lapwing` and compares its exit code; what it says must contain `says`.
fn check(arguments: &[&str], code: i32, says: &str) {
    let output = run(arguments);
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{said}");
    assert!(said.contains(says), "{arguments:?} does not say {says:?}:\n{said}");
}

/// A directory with files.
fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn path(directory: &tempfile::TempDir, name: &str) -> String {
    PathBuf::from(directory.path()).join(name).to_str().unwrap().to_owned()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const THEFT: &str = "token-theft-to-cluster-admin.events.jsonl";
const BENIGN: &str = "benign-hour.events.jsonl";

const RULE: &str = "
title: Any list of pods
name: own/pod-list
id: 0b8f1e0c-7d0e-4a55-9a34-0d6f0a0c7e11
logsource: {product: kubernetes, service: audit}
detection:
  list: {verb: list, objectRef.resource: pods}
  condition: list
level: low
";

const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/api/v1/pods","verb":"list","user":{"username":"eve","groups":["system:authenticated"]},"sourceIPs":["10.0.0.1"],"objectRef":{"resource":"pods","apiVersion":"v1"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-03-01T10:00:00.000000Z","stageTimestamp":"2026-03-01T10:00:00.000001Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#;

#[test]
fn it_ran() {
    check(&["replay", THEFT], 0, "rbac/cluster-admin-binding");
    check(&["replay", BENIGN, "--fail-on", "medium"], 0, "Took");
    check(&["--help"], 0, "Examples:");
    check(&["replay", "--help"], 0, "Examples:");
    check(&["version"], 0, "lapwing ");
    check(&["--version"], 0, "lapwing ");
    check(&["completions", "bash"], 0, "_lapwing()");
    check(&["detectors", "facts"], 0, "actor.name");
    check(&["detectors", "list"], 0, "rbac/cluster-admin-binding");
}

#[test]
fn alerts_at_or_above_a_level() {
    check(&["replay", THEFT, "--fail-on", "high"], 1, "");
    check(&["replay", THEFT, "--fail-on", "info"], 1, "");
    // The level is looked at after the filters.
    check(&["replay", THEFT, "--fail-on", "high", "--user", "nobody"], 0, "");
}

#[test]
fn detectors_that_cannot_be_loaded() {
    let folder =
        files(&[("bad.yml", "title: x\nlogsource: {product: kubernetes, service: audit}\ndetection: {}\n")]);
    check(&["replay", THEFT, "--detectors", folder.path().to_str().unwrap()], 2, "bad.yml:");
    check(&["replay", THEFT, "--detectors", "/nowhere/at/all"], 2, "/nowhere/at/all");
    let endless = "title: c\ncorrelation:\n  type: event_count\n  rules: [exec/pod-exec]\n  timespan: 600y\n  condition: {gte: 2}\n";
    let folder = files(&[("c.yml", endless)]);
    let rule = path(&folder, "c.yml");
    check(
        &["replay", THEFT, "--detectors", &rule],
        2,
        "c.yml:5: error: timespan `600y` is longer than 18 years",
    );
    check(&["detectors", "lint", &rule], 1, "c.yml:5: error: timespan `600y` is longer than 18 years");
}

#[test]
fn wrong_usage() {
    check(&["replay"], 3, "<PATH>");
    check(&["frobnicate"], 3, "unrecognized subcommand");
    check(&["replay", THEFT, "--order", "size"], 3, "time, input");
    check(&["replay", THEFT, "--min-level", "loud"], 3, "unknown level `loud`");
    check(&["replay", THEFT, "--since", "yesterday"], 3, "`yesterday` is no time");
    check(&["replay", THEFT, "--since", "2026-03-02", "--until", "2026-03-01"], 3, "is not before");
    let suggestion =
        "no detector is called `rbac/cluster-admin-bindin`; did you mean `rbac/cluster-admin-binding`?";
    check(&["replay", THEFT, "--detector", "rbac/cluster-admin-bindin"], 3, suggestion);
    check(&["replay", THEFT, "--skip-detector", "nothing/*"], 3, "no detector is called `nothing/*`");
    check(&["replay", THEFT, "--threads", "0"], 3, "--threads");
    check(&["detectors", "show", "rbac/cluster-admin-bindin"], 3, "did you mean");
}

#[test]
fn wrong_configuration() {
    let folder = files(&[("lapwing.yaml", "cluster: prod\ndetectors:\n  min_levle: high\n")]);
    let config = path(&folder, "lapwing.yaml");
    check(&["replay", THEFT, "--config", &config], 3, "lapwing.yaml:3:3: ");
    check(&["replay", THEFT, "--config", &config], 3, "did you mean `min_level`?");
    check(&["replay", THEFT, "--config", "/nowhere.yaml"], 3, "/nowhere.yaml");
    let folder =
        files(&[("a.yaml", "detectors: {exceptions: [{detector: x/y, when: {actor.nmae: eve}}]}\n")]);
    check(&["replay", THEFT, "--config", &path(&folder, "a.yaml")], 3, "did you mean `actor.name`?");
}

#[test]
fn input_that_cannot_be_read() {
    let output = run(&["replay", "no-such-file", THEFT, "--fail-on", "low"]);
    assert_eq!(output.status.code(), Some(4), "it is graver than alerts");
    assert!(stdout(&output).contains("rbac/cluster-admin-binding"), "the other input is read");
    assert!(stderr(&output).contains("no-such-file: no such file"));
    check(&["replay", "-q", "no-such-file", THEFT], 4, "error: cannot read no-such-file");
    let folder = files(&[("audit.log", EVENT)]);
    std::os::unix::fs::symlink("nowhere", folder.path().join("old.log")).unwrap();
    check(&["replay", folder.path().to_str().unwrap()], 0, "old.log: a link to something that is not there");
    check(&["replay", &path(&folder, "old.log"), THEFT], 4, "old.log: no such file");
    let twice = path(&folder, "audit.log.gz");
    std::fs::write(&twice, gzip(&gzip(EVENT.as_bytes()))).unwrap();
    check(
        &["replay", &twice, THEFT],
        4,
        "audit.log.gz: an archive inside an archive, unpack the outer one first",
    );
    let folder =
        files(&[("notes.txt", "these are not the logs\nthat you are looking for\n"), ("empty.log", "")]);
    check(&["replay", folder.path().to_str().unwrap()], 4, "nothing in the input was recognised");
    check(&["inspect", folder.path().to_str().unwrap()], 4, "");
}

#[test]
fn damage_counts_if_it_is_to() {
    let folder = files(&[("audit.log", &format!("{EVENT}\n{}\n", &EVENT[..300]))]);
    let log = path(&folder, "audit.log");
    check(&["replay", &log], 0, "");
    check(&["replay", &log, "--strict"], 5, "");
    check(&["replay", &log, "--strict", "--fail-on", "informational"], 1, "");
    check(&["replay", THEFT, "--strict"], 0, "");
    let folder = files(&[("audit.log", &format!("{EVENT}\n{}\n{EVENT}\n", "\0".repeat(2048)))]);
    check(&["replay", &path(&folder, "audit.log"), "--strict"], 5, "2.0 kB of NULs");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for order in ["time", "input"] {
        let mut child = lapwing(&["replay", ".", "--order", order])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "--order {order}");
    }
}

/// A live run whose standard output nobody reads, and which is told of a theft. It has to end, or not, with its input still
/// open.
fn deaf(config: &str) -> (std::process::Child, std::process::ChildStdin) {
    let mut child = lapwing(&["run", "-q", "--stateless", "--config", config, "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut events = child.stdin.take().unwrap();
    let theft = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-logs").join(THEFT);
    events.write_all(&std::fs::read(theft).unwrap()).unwrap();
    (child, events)
}

#[test]
fn a_live_run_ends_when_nobody_reads_its_alerts() {
    let folder = files(&[("lapwing.yaml", "server: {listen: '127.0.0.1:0'}\n")]);
    let (child, events) = deaf(&path(&folder, "lapwing.yaml"));
    let output = child.wait_with_output().unwrap();
    drop(events);
    let said = stderr(&output);
    assert!(output.status.code() == Some(0) && !said.contains("ERROR") && !said.contains("WARN"), "{said}");
}

#[test]
fn other_outputs_go_on_when_nobody_reads_standard_output() {
    let folder = files(&[("alerts.jsonl", "")]);
    let (config, alerts) = (path(&folder, "lapwing.yaml"), path(&folder, "alerts.jsonl"));
    let outputs = format!("outputs: [{{type: stdout}}, {{type: file, path: '{alerts}'}}]");
    std::fs::write(&config, format!("server: {{listen: '127.0.0.1:0'}}\n{outputs}\n")).unwrap();
    let (child, events) = deaf(&config);
    drop(events);
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("receiver_gone").count(), 1, "{said}");
    let written = std::fs::read_to_string(alerts).unwrap().lines().count();
    let replayed = run(&["replay", THEFT, "--output", "jsonl", "--summary", "none"]);
    assert_eq!(written, stdout(&replayed).lines().count());
}

#[test]
fn an_interrupted_replay_shows_what_it_has() {
    for signal in ["-INT", "-TERM"] {
        interrupt(signal);
    }
}

fn interrupt(signal: &str) {
    let mut child = lapwing(&["replay", "-", "--detector", "rbac/*", "--order", "input"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let theft = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-logs").join(THEFT);
    let mut input = child.stdin.take().unwrap();
    input.write_all(&std::fs::read(theft).unwrap()).unwrap();
    // The pipe stays open: only the interruption can end this. It has begun when the first alert comes out.
    let mut alerts = BufReader::new(child.stdout.take().unwrap());
    let mut alert = String::new();
    alerts.read_line(&mut alert).unwrap();
    assert!(alert.contains(r#""detector":"rbac/"#), "{alert}");
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let (mut rest, mut said) = (String::new(), String::new());
    alerts.read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
    assert!(said.contains("Interrupted"), "{said}");
    drop(input);
}

#[test]
fn standard_output_carries_alerts_and_nothing_else() {
    let output = run(&["replay", "."]);
    assert!(stdout(&output).lines().count() > 50);
    for line in stdout(&output).lines() {
        let alert: Value = serde_json::from_str(line).unwrap();
        assert_eq!(alert["schema"], "lapwing/v1");
    }
    assert!(stderr(&output).contains("Records"));
    let output = run(&["replay", BENIGN, "--min-level", "critical"]);
    assert_eq!(stdout(&output), "");
    let output = run(&["replay", "-q", "."]);
    assert_eq!(stderr(&output), "");
}

#[test]
fn csv_has_a_header_and_quotes_every_cell() {
    let output = run(&["replay", THEFT, "--output", "csv", "--summary", "none"]);
    let lines: Vec<_> = stdout(&output).split_terminator("\r\n").collect();
    assert!(lines[0].starts_with(r#""time","level","detector","rule","user","#));
    assert!(lines.len() > 3);
    assert!(lines.iter().all(|line| line.starts_with('"') && line.ends_with('"')));
}

#[test]
fn colours_come_when_they_are_wanted() {
    for (arguments, variable, colored) in [
        (&["--color", "always"][..], None, true),
        (&["--color", "never"], Some(("CLICOLOR_FORCE", "1")), false),
        (&[], None, false),
        (&[], Some(("CLICOLOR_FORCE", "1")), true),
        (&["--color", "always"], Some(("NO_COLOR", "1")), true),
    ] {
        let arguments = [&["replay", THEFT, "--output", "pretty", "--summary", "none"], arguments].concat();
        let output = lapwing(&arguments).envs(variable).output().unwrap();
        assert_eq!(stdout(&output).contains('\x1b'), colored, "{arguments:?} {variable:?}");
        assert!(stdout(&output).contains("Binding to cluster-admin"));
    }
}

#[test]
fn the_summary_for_programs_has_the_documented_keys() {
    let output = run(&["replay", ".", "--summary", "json"]);
    let summary: Value = serde_json::from_str(stderr(&output)).unwrap();
    let keys: BTreeSet<_> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "files records bytes formats bad partial duplicates late future time gaps levels blind alerts actors \
                    sources namespaces elapsed_s";
    assert_eq!(keys, expected.split_whitespace().collect());
    let alerts = stdout(&output).lines().count() as u64;
    let sum = |key: &str| {
        summary["alerts"][key].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((sum("by_level"), sum("by_detector")), (alerts, alerts));
    let formats: u64 = summary["formats"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(summary["records"].as_u64().unwrap(), formats + summary["bad"].as_u64().unwrap());
    assert!(summary["blind"]["damaged"]["list"][0]["input"].as_str().unwrap().ends_with(".log.gz"));
}

fn uuids(arguments: &[&str]) -> BTreeSet<String> {
    let output = run(&[&["replay", ".", "--summary", "none"], arguments].concat());
    let uuid = |line: &str| serde_json::from_str::<Value>(line).unwrap()["uuid"].as_str().unwrap().to_owned();
    stdout(&output).lines().map(uuid).collect()
}

#[test]
fn filters_choose_and_change_nothing() {
    let all = uuids(&[]);
    for filter in [
        &["--min-level", "high"][..],
        &["--detector", "rbac/*,secret/*"],
        &["--detector", "rbac/*", "--detector", "secret/*", "--skip-detector", "*/activity"],
        &["--user", "dana@*"],
        &["--user", "system:serviceaccount:*", "--user", "root"],
        &["--namespace", "ci"],
        &["--cluster", "prod"],
        &["--since", "2026-03-03", "--until", "2026-03-04"],
    ] {
        let some = uuids(filter);
        assert!(!some.is_empty() && some.is_subset(&all), "{filter:?}: {}", some.len());
        assert!(some.len() < all.len() || filter[0] == "--cluster", "{filter:?}");
    }
    assert_eq!(uuids(&["--cluster", "prod"]), all);
}

#[test]
fn own_rules_add_and_replace() {
    let folder = files(&[("pod-list.yml", RULE), ("audit.log", EVENT)]);
    let (rule, log) = (path(&folder, "pod-list.yml"), path(&folder, "audit.log"));
    check(&["replay", &log, "--detectors", &rule], 0, r#""detector":"own/pod-list""#);
    let replaced = files(&[("x.yml", &RULE.replace("own/pod-list", "rbac/activity"))]);
    check(
        &["replay", &log, "--detectors", replaced.path().to_str().unwrap()],
        0,
        r#""rule":"Any list of pods","priority":"Notice","level":"low""#,
    );
    let marked = files(&[("x.yml", &format!("\u{feff}{RULE}"))]);
    check(&["replay", &log, "--detectors", &path(&marked, "x.yml")], 0, r#""detector":"own/pod-list""#);
}

#[test]
fn a_folder_of_rules_gives_a_name_once() {
    let other = RULE.replace("Any list", "Some list");
    let folder = files(&[("a.yml", RULE), ("b.yml", &other)]);
    let clash = "b.yml:2: error: the name `own/pod-list` is used in ";
    check(&["replay", THEFT, "--detectors", folder.path().to_str().unwrap()], 2, clash);
    check(&["detectors", "lint", folder.path().to_str().unwrap()], 1, clash);
    check(
        &["replay", THEFT, "--detectors", &path(&folder, "a.yml"), "--detectors", &path(&folder, "b.yml")],
        0,
        "",
    );
    let folder = files(&[("a.yml", RULE), ("b.yml", RULE), (".c.yml", &other)]);
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    std::fs::write(folder.path().join(".git/d.yml"), &other).unwrap();
    let named = folder.path().to_str().unwrap();
    check(&["replay", THEFT, "--detectors", named, "--detectors", named], 0, "");
}

#[test]
fn the_configuration_decides() {
    let config = "
cluster: prod
state_dir: /var/lib/lapwing
detectors:
  paths: [.]
  overrides: [{detector: own/*, level: critical}]
  exceptions: [{detector: own/pod-list, when: {actor.name: EVE}, reason: a test, until: 2026-03-01 UNTIL}]
";
    let with = |user: &str, until: &str| {
        let config = config.replace("EVE", user).replace("UNTIL", until);
        let folder = files(&[("pod-list.yml", RULE), ("audit.log", EVENT), ("lapwing.conf", &config)]);
        let output =
            run(&["replay", &path(&folder, "audit.log"), "--config", &path(&folder, "lapwing.conf")]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).to_owned()
    };
    let alert = with("mallory", "12:00");
    assert!(alert.contains(r#""level":"critical""#) && alert.contains(r#""cluster":"prod""#), "{alert}");
    assert_eq!(with("eve", "12:00"), "", "the exception holds");
    assert_ne!(with("eve", "09:00"), "", "the exception is over");
}

#[test]
fn what_a_configuration_says_in_vain_is_told() {
    let warned = |detectors: &str| {
        let folder = files(&[("lapwing.yaml", &format!("detectors: {detectors}\n")), ("audit.log", EVENT)]);
        let output = run(&[
            "replay",
            &path(&folder, "audit.log"),
            "--config",
            &path(&folder, "lapwing.yaml"),
            "--summary",
            "none",
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output).to_owned()
    };
    for (detectors, expected) in [
        ("{disable: [rbac/cluster-admin-bindin]}", "did you mean `rbac/cluster-admin-binding`?"),
        ("{disable: [rbca/*]}", "no detector is called `rbca/*`; did you mean `rbac/*`?"),
        ("{overrides: [{detector: exec/pod-exce, level: low}]}", "did you mean `exec/pod-exec`?"),
        ("{exceptions: [{detector: exec/pod-exce, when: {verb: get}}]}", "did you mean `exec/pod-exec`?"),
        (
            "{exceptions: [{detector: exec/*, when: {verb: get}, until: 2026-02-01}]}",
            "the exception for `exec/*` ended at 2026-02-01 00:00:00, before the first event",
        ),
    ] {
        let said = warned(detectors);
        assert!(said.contains(expected), "{detectors}\n{said}");
    }
    assert_eq!(
        warned("{disable: [rbac/*], exceptions: [{detector: exec/*, when: {verb: get}, until: 2026-04-01}]}"),
        ""
    );
}

#[test]
fn config_check_finds_what_a_run_would() {
    let checked = |yaml: &str, code: i32, says: &str| {
        let folder = files(&[("lapwing.yaml", yaml), ("empty", "")]);
        let config = path(&folder, "lapwing.yaml");
        std::fs::write(&config, yaml.replace("DIR", folder.path().to_str().unwrap())).unwrap();
        check(&["config", "check", &config], code, says);
    };
    let with = |line: &str| format!("inputs: [{{type: file, paths: [DIR/a.log]}}]\n{line}\n");
    checked(&with(""), 0, "1 inputs");
    checked(&with("cluster: '${LAPWING_NO_SUCH_VARIABLE}'"), 3, "no variable `LAPWING_NO_SUCH_VARIABLE`");
    checked(&with("cluster: '${LAPWING_NO_SUCH_VARIABLE:-prod}'"), 0, "1 inputs");
    checked(&with("outputs: [{type: file, path: DIR/a.log}]"), 3, "outputs[0].path: ");
    checked(
        &with(
            "outputs: [{type: stdout, detectors: [rbac/cluster-admin-bindin], skip_detectors: ['exec/*']}]",
        ),
        0,
        "outputs.stdout.detectors: no detector is called `rbac/cluster-admin-bindin`; did you mean `rbac/cluster-admin-binding`?",
    );
    checked(
        &with("outputs: [{type: stdout, skip_detectors: ['rbca/*']}]"),
        0,
        "outputs.stdout.skip_detectors: no ",
    );
    let https = "outputs: [{type: http, preset: webhook, url: 'https://h.example', ";
    for (more, says) in [
        ("tls: {ca: DIR/none}", "outputs.webhook: tls.ca: cannot read"),
        ("tls: {ca: DIR/empty}", "outputs.webhook: tls.ca: DIR/empty holds no certificate"),
        ("auth: {bearer: 'file:DIR/none'}", "outputs.webhook: auth.bearer: cannot read the secret in"),
        ("headers: {x-key: 'file:DIR/none'}", "outputs.webhook: headers.x-key: cannot read the secret in"),
        ("sign: {secret: 'file:DIR/none'}", "outputs.webhook: sign.secret: cannot read the secret in"),
    ] {
        checked(&with(&format!("{https}{more}}}]")), 3, says.split("DIR").next().unwrap());
    }
    let intake = |more: &str| format!("inputs: [{{type: http, name: hook, {more}}}]\n");
    checked(&intake("tls: {cert: DIR/none}"), 3, "input `hook`: tls.cert: cannot read ");
    checked(&intake("tokens: ['file:DIR/none']"), 3, "input `hook`: tokens[0]: cannot read the secret in ");
    let misspelt = "{type: kafka, name: k, bootstrap_servers: '127.0.0.1:9', topics: [t], librdkafka_options: {fetch.wait: '9'}}";
    checked(&format!("inputs: [{misspelt}]\n"), 3, "input `k`: librdkafka refuses the option fetch.wait: ");
    let misspelt = misspelt.replace("topics: [t]", "topic: t");
    checked(
        &with(&format!("outputs: [{misspelt}]")),
        3,
        "outputs.k: librdkafka refuses the option fetch.wait: ",
    );
    let writing = "matches: {bootstrap_servers: '127.0.0.1:9', librdkafka_options: {max.in.flight: '9'}}";
    checked(&with(writing), 3, "matches: librdkafka refuses the configuration: `max.in.flight` must be");
}

#[test]
fn bad_records_past_the_dead_letters_are_counted() {
    let folder = files(&[("lapwing.yaml", "server: {listen: '127.0.0.1:0'}\n")]);
    let mut child =
        lapwing(&["run", "--stateless", "--config", &path(&folder, "lapwing.yaml"), "--file", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    // So few bytes go through a pipe in one piece.
    child.stdin.take().unwrap().write_all("{}\n".repeat(1_300).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("not in the dead letters input=\"stdin\" records=300"), "{said}");
}

#[test]
fn an_exception_may_name_a_correlation_and_anything_may_be_disabled() {
    let with = |config: &str| -> Vec<Value> {
        let folder = files(&[("lapwing.yaml", config)]);
        let output = run(&["replay", ".", "--config", &path(&folder, "lapwing.yaml")]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let by = |alerts: &[Value], name: &str| {
        alerts.iter().filter(|alert| alert["detector"] == name).cloned().collect::<Vec<_>>()
    };
    let before = with("");
    let actor = by(&before, "secret/mass-get")[0]["output_fields"]["actor.name"].as_str().unwrap().to_owned();
    let exception = format!("{{detector: secret/mass-get, when: {{actor.name: '{actor}'}}}}");
    let after =
        with(&format!("detectors: {{disable: [integrity/*, exec/pod-exec], exceptions: [{exception}]}}"));
    for name in ["secret/mass-get", "integrity/partial-event", "exec/pod-exec"] {
        assert!(!by(&before, name).is_empty() && by(&after, name).is_empty(), "{name}");
    }
    assert_eq!(by(&before, "exec/multi-pod-spray"), by(&after, "exec/multi-pod-spray"));
    let rest = before.iter().filter(|alert| {
        let name = alert["detector"].as_str().unwrap();
        !["secret/mass-get", "exec/pod-exec"].contains(&name) && !name.starts_with("integrity/")
    });
    assert_eq!(rest.count(), after.len());
}

#[test]
fn listings_are_json_lines_too() {
    let rows = |arguments: &[&str]| -> Vec<Value> {
        let output = run(&[&["detectors"], arguments, &["--output", "jsonl"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let list = rows(&["list"]);
    assert!(list.len() > 80);
    for detector in &list {
        for key in ["name", "title", "level", "tags", "origin"] {
            assert!(!detector[key].is_null(), "{detector} has no {key}");
        }
    }
    let show = &rows(&["show", "rbac/cluster-admin-binding"])[0];
    assert_eq!(show["name"], "rbac/cluster-admin-binding");
    assert!(show["detection"]["condition"].is_string() && show["tests"].is_array());
    assert!(rows(&["facts"]).iter().any(|fact| fact["name"] == "actor.name" && fact["type"] == "text"));
}

#[test]
fn lint_and_test_tell_what_is_wrong() {
    let good = "tests:\n  - {name: fires, event: {verb: list, objectRef: {resource: pods}}, expect: alert}\n";
    let folder = files(&[("rule.yml", &format!("{RULE}{good}"))]);
    let rule = path(&folder, "rule.yml");
    check(&["detectors", "test", &rule], 0, "1 passed, 0 failed");
    let bad = files(&[("rule.yml", &format!("{RULE}{}", good.replace("expect: alert", "expect: none")))]);
    let rule = path(&bad, "rule.yml");
    check(
        &["detectors", "test", &rule],
        1,
        "FAILED own/pod-list: fires: expected no alert, got 1 alert(s): low",
    );
    check(&["detectors", "test", &rule], 1, "pass    verb: list");
    let misspelt = files(&[("rule.yml", &RULE.replace("verb: list,", "actor.nmae: eve,"))]);
    check(&["detectors", "lint", &path(&misspelt, "rule.yml")], 1, "did you mean `actor.name`?");
    check(&["replay", THEFT, "--detectors", &path(&misspelt, "rule.yml")], 0, "did you mean `actor.name`?");
    check(&["detectors", "lint", "/nowhere"], 2, "/nowhere");
}

#[test]
fn explain_shows_the_condition_with_the_values() {
    let folder = files(&[("rule.yml", RULE), ("event.json", EVENT), ("text", "hello")]);
    let (rule, event, text) = (path(&folder, "rule.yml"), path(&folder, "event.json"), path(&folder, "text"));
    let explain = ["detectors", "explain", "own/pod-list", "--detectors", &rule, "--event"];
    check(&[&explain[..], &[&event]].concat(), 0, "own/pod-list: alert, low");
    check(&[&explain[..], &[&event]].concat(), 0, "pass    objectRef.resource: pods   is \"pods\"");
    check(&[&explain[..], &[&event, "--output", "jsonl"]].concat(), 0, r#""matched":true,"alert":"low""#);
    check(&[&explain[..], &[&text]].concat(), 4, "no audit event");
    check(&[&explain[..], &["/nowhere"]].concat(), 4, "/nowhere");
    check(
        &["detectors", "explain", "own/pod-lst", "--detectors", &rule, "--event", &event],
        3,
        "own/pod-list",
    );
    check(
        &["detectors", "explain", "secret/mass-get", "--event", &event],
        0,
        "counts what these detectors match",
    );
}

#[test]
fn inspect_says_what_there_is() {
    check(&["inspect", "."], 0, "Audit levels");
    let output = run(&["inspect", ".", "--output", "jsonl"]);
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert!(report["levels"]["Metadata"].as_u64().unwrap() > 0);
    assert!(report.get("alerts").is_none());
}

/// An exec of this command, which the alert shows.
fn exec_of(query: &str) -> String {
    EVENT
        .replace("/api/v1/pods", &format!("/api/v1/namespaces/shop/pods/web/exec?{query}&container=app"))
        .replace(r#""verb":"list""#, r#""verb":"create""#)
        .replace(
            r#"{"resource":"pods","apiVersion":"v1"}"#,
            r#"{"resource":"pods","subresource":"exec","namespace":"shop","name":"web","apiVersion":"v1"}"#,
        )
        .replace(r#""code":200"#, r#""code":101"#)
}

/// An alert of Falco's with these fields.
fn falco_of(fields: &str) -> String {
    format!(
        r#"{{"time":"2026-03-01T10:00:00.000000000Z","rule":"Terminal shell in container","priority":"Notice","source":"syscall","hostname":"n","tags":["T1059"],"output":"x mysql -pSWORDFISH9 (cmd=--password SWORDFISH9)","output_fields":{{{fields}}}}}"#
    )
}

/// No credential of a command, a URI or Falco's fields leaves in any output; what identifies does.
#[test]
fn credentials_leave_in_no_output() {
    let queries = [
        "command=mysql&command=-pSWORDFISH9",
        "command=docker&command=login&command=-p&command=SWORDFISH9",
        "command=sh&command=-c&command=echo+root%3ASWORDFISH9+%7C+chpasswd",
        "command=curl&command=-u&command=dana%3ASWORDFISH9&command=https%3A%2F%2Fx",
        "command=openssl&command=enc&command=-k&command=SWORDFISH9",
        "command=openssl&command=rsa&command=-passin&command=pass%3ASWORDFISH9",
        "command=sshpass&command=-p&command=SWORDFISH9&command=ssh&command=db",
        "command=redis-cli&command=-a&command=SWORDFISH9",
        "command=sh&command=-c&command=PGPASSWORD%3DSWORDFISH9+psql",
        "command=env&command=AWS_SECRET_ACCESS_KEY%3DSWORDFISH9&command=aws",
        "command=kubectl&command=create&command=secret&command=generic&command=x&command=--from-literal%3Dk%3DSWORDFISH9",
        "command=htpasswd&command=-b&command=f&command=u&command=SWORDFISH9",
        "command=curl&command=-H&command=Authorization%3A+Basic+SWORDFISH9&command=https%3A%2F%2Fx",
        "comm%61nd=mysql&comm%61nd=-pSWORDFISH9",
        "command=id&pass%77ord=SWORDFISH9&key=SWORDFISH9&sig=SWORDFISH9&X-Amz-Signature=SWORDFISH9",
    ];
    let fields = [
        r#""proc.args":["--password","SWORDFISH9"],"proc.name":"tool","k8s.ns.name":"shop","k8s.pod.name":"web""#,
        r#""proc.cmdline":"mysql -pSWORDFISH9","proc.env":"A=SWORDFISH9","evt.args":"args=--password.SWORDFISH9.""#,
        r#""proc.pcmdline":"sh -c echo root:SWORDFISH9|chpasswd","proc.aname[2]":"x""#,
        r#""proc.cmdline":["mysql","-pSWORDFISH9"],"proc.pcmdline":["tool","--password","SWORDFISH9"]"#,
        r#""proc.args":"-a SWORDFISH9 ping","proc.name":"redis-cli""#,
        r#""proc.args":["-a","SWORDFISH9","ping"],"proc.name":"redis-cli""#,
        r#""ka.uri":"/x/exec?command=docker&command=login&command=-p&command=SWORDFISH9""#,
    ];
    let reason = exec_of("command=id").replace(
        r#""auditID""#,
        r#""annotations":{"authorization.k8s.io/reason":"password=SWORDFISH9"},"auditID""#,
    );
    let execs = queries
        .iter()
        .map(|query| exec_of(query))
        .chain(fields.iter().map(|fields| falco_of(fields)))
        .chain([reason]);
    let lines: Vec<_> = execs
        .enumerate()
        .map(|(n, line)| {
            line.replace(
                r#""auditID":"1""#,
                &format!(r#""auditID":"0b7c6a2e-6a53-4f0e-9d0a-5e1f0a5b2c{n:02}""#),
            )
        })
        .collect();
    let directory = files(&[("x.jsonl", &(lines.join("\n") + "\n"))]);
    for output in ["jsonl", "csv", "pretty"] {
        let output = run(&["replay", &path(&directory, "x.jsonl"), "--output", output, "--summary", "none"]);
        let said = stdout(&output);
        assert!(said.contains("[redacted]") && said.contains("web"));
        if let Some(line) = said.lines().find(|line| line.contains("SWORDFISH")) {
            panic!("{line}");
        }
    }
    let jsonl = run(&["replay", &path(&directory, "x.jsonl"), "--output", "jsonl", "--summary", "none"]);
    for n in 0..queries.len() {
        assert!(stdout(&jsonl).contains(&format!("0b7c6a2e-6a53-4f0e-9d0a-5e1f0a5b2c{n:02}")), "{n}");
    }
}
