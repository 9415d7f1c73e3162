//! What should have come, and how what came differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::receiver::Taken;

/// Alerts about the run itself, which a replay cannot know. A gap is one of these and is looked at apart.
const OF_THE_RUN: [&str; 9] = [
    "integrity/input-gap",
    "integrity/input-truncated",
    "integrity/input-unreadable",
    "integrity/input-silent",
    "integrity/dead-letter",
    "integrity/spool-full",
    "integrity/state-damaged",
    "integrity/state-pressure",
    "integrity/reload-failed",
];

/// Alerts by uuid.
pub(crate) type Alerts = BTreeMap<String, Value>;

/// The alerts of one clean replay.
pub(crate) fn replay(file: &Path, config: &Path) -> Alerts {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    command.args(["replay", "--output", "jsonl", "--summary", "none", "--threads", "1"]).arg(file);
    command.arg("--config").arg(config);
    let output = command.output().unwrap();
    assert!(output.status.success(), "replay: {}", String::from_utf8_lossy(&output.stderr));
    alerts(std::str::from_utf8(&output.stdout).unwrap())
}

/// Alerts that stand in JSON lines, without those about the run.
pub(crate) fn alerts(lines: &str) -> Alerts {
    let alerts = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let keyed =
        alerts.filter(|alert| !is_of_the_run(alert)).map(|alert| (text(&alert, "uuid").to_owned(), alert));
    keyed.collect()
}

/// True for alerts that only a live run can raise.
pub(crate) fn is_of_the_run(alert: &Value) -> bool {
    OF_THE_RUN.contains(&text(alert, "detector"))
}

fn text<'a>(alert: &'a Value, key: &str) -> &'a str {
    alert[key].as_str().unwrap_or_default()
}

/// How what came differs from what should have come.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Should have come and did not.
    pub(crate) missing: BTreeSet<String>,
    /// Came and should not have.
    pub(crate) spurious: BTreeSet<String>,
    /// The same finding under another id, or another finding under the same id.
    pub(crate) unstable: BTreeSet<String>,
    /// Came again.
    pub(crate) duplicates: usize,
    /// Reports that input was lost.
    pub(crate) gaps: usize,
}

/// Compares.
pub(crate) fn compare(expected: &Alerts, taken: &[Taken]) -> Verdict {
    let mut verdict = Verdict::default();
    let findings: BTreeSet<String> = expected.values().map(finding).collect();
    let mut seen = BTreeSet::new();
    for Taken { uuid, alert, .. } in taken {
        let again = !seen.insert(uuid.clone());
        verdict.duplicates += usize::from(again);
        if is_of_the_run(alert) {
            verdict.gaps += usize::from(text(alert, "detector") == "integrity/input-gap" && !again);
            continue;
        }
        match expected.get(uuid) {
            Some(known) if what(known) == what(alert) => {}
            Some(_) => _ = verdict.unstable.insert(uuid.clone()),
            None if findings.contains(&finding(alert)) => _ = verdict.unstable.insert(uuid.clone()),
            None => _ = verdict.spurious.insert(uuid.clone()),
        }
    }
    verdict.missing = expected.keys().filter(|uuid| !seen.contains(*uuid)).cloned().collect();
    verdict
}

/// What an alert is, apart from the evidence at hand: that may differ with the order of arrival.
fn what(alert: &Value) -> (&str, &str, &str) {
    (text(alert, "detector"), text(alert, "rule"), text(alert, "source"))
}

/// What tells a finding from others, but for its id.
fn finding(alert: &Value) -> String {
    format!("{}\0{}\0{}", text(alert, "detector"), text(alert, "time"), alert["output_fields"])
}

impl Verdict {
    /// Some words about what is wrong, for whoever has to find out why.
    pub(crate) fn examples(&self, expected: &Alerts, taken: &[Taken]) -> String {
        let mut told = String::new();
        let came: BTreeMap<&str, &Value> =
            taken.iter().map(|taken| (taken.uuid.as_str(), &taken.alert)).collect();
        for (kind, uuids) in
            [("missing", &self.missing), ("spurious", &self.spurious), ("unstable", &self.unstable)]
        {
            for uuid in uuids.iter().take(8) {
                let alert = expected.get(uuid).or_else(|| came.get(uuid.as_str()).copied());
                let Some(alert) = alert else { continue };
                let _ = writeln!(
                    told,
                    "{kind} {uuid} {} at {}: {} {}",
                    text(alert, "detector"),
                    text(alert, "time"),
                    text(alert, "output"),
                    alert["evidence"]
                );
            }
        }
        told
    }
}
