//! The samples through the real program: what it finds is what is written beside them.
//!
//! `UPDATE_GOLDEN=1 cargo test --test samples` writes the alerts anew; the diff is for a person to read.
#![allow(clippy::unwrap_used)] // a test may fail

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-logs")
}

/// Runs `lapwing replay` in the folder of the samples, so that inputs have the same names everywhere.
fn replay(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_lapwing"))
        .arg("replay")
        .args(arguments)
        .current_dir(samples())
        .output()
        .unwrap();
    assert!(output.status.code().is_some(), "killed by a signal");
    output
}

fn alerts(arguments: &[&str]) -> String {
    let output = replay(&[&["--summary", "none", "--output", "jsonl"], arguments].concat());
    String::from_utf8(output.stdout).unwrap()
}

/// Every scenario: the name without its endings, and what to replay.
fn scenarios() -> Vec<(String, String)> {
    let mut names: Vec<(String, String)> = std::fs::read_dir(samples())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some((name.strip_suffix(".events.jsonl")?.to_owned(), name.clone()))
        })
        .collect();
    names.push(("evidence".to_owned(), "evidence".to_owned()));
    names.sort();
    names
}

#[test]
fn scenarios_raise_the_recorded_alerts() {
    assert!(scenarios().len() >= 6);
    for (name, input) in scenarios() {
        let found = alerts(&[&input]);
        let golden = samples().join(format!("{name}.alerts.jsonl"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &found).unwrap();
        }
        let recorded = std::fs::read_to_string(&golden).unwrap_or_default();
        for (number, (found, recorded)) in found.lines().zip(recorded.lines()).enumerate() {
            assert_eq!(found, recorded, "{name}: alert {}", number + 1);
        }
        assert_eq!(found.lines().count(), recorded.lines().count(), "{name}: number of alerts");
    }
}

#[test]
fn benign_work_is_silent_at_medium_and_above() {
    for sample in ["benign-hour.events.jsonl", "benign-controllers.events.jsonl"] {
        assert_eq!(alerts(&["--min-level", "medium", sample]), "", "{sample}");
    }
}

#[test]
fn every_alert_matches_the_schema() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alert.schema.json");
    let schema: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let found = alerts(&["."]);
    assert!(found.lines().count() > 100);
    for line in found.lines() {
        let alert: serde_json::Value = serde_json::from_str(line).unwrap();
        let faults: Vec<String> =
            validator.iter_errors(&alert).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{faults:?}\n{line}");
    }
}

#[test]
fn threads_do_not_matter() {
    let one = alerts(&["--threads", "1", "."]);
    for threads in ["2", "5"] {
        assert!(alerts(&["--threads", threads, "."]) == one, "{threads} threads");
    }
}

#[test]
fn the_order_of_files_does_not_matter() {
    let uuids = |arguments: &[&str]| {
        let mut uuids: Vec<String> = alerts(arguments)
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["uuid"].to_string())
            .collect();
        uuids.sort();
        uuids
    };
    let files =
        ["exec-then-shell.events.jsonl", "secret-sweep.events.jsonl", "anonymous-probing.events.jsonl"];
    let backwards: Vec<&str> = files.into_iter().rev().collect();
    assert_eq!(uuids(&files), uuids(&backwards));
    let by_input = [&["--order", "input"][..], &files[..]].concat();
    assert_eq!(uuids(&files), uuids(&by_input));
}

#[test]
fn our_own_alerts_are_never_judged() {
    assert_eq!(alerts(&["token-theft-to-cluster-admin.alerts.jsonl"]), "");
}

#[test]
fn no_secret_leaves() {
    let found = replay(&["--output", "jsonl", "."]);
    let pretty = replay(&["--output", "pretty", "--color", "always", "."]);
    let csv = replay(&["--output", "csv", "."]);
    for output in [found, pretty, csv] {
        for text in [output.stdout, output.stderr] {
            let text = String::from_utf8_lossy(&text).into_owned();
            for secret in ["Tr0ub4dor", "b3BlbnNzaC1rZXk", "BEGIN OPENSSH"] {
                assert!(!text.contains(secret), "{secret} left");
            }
        }
    }
}
