//! `lapwing detectors lint`: what is wrong with rules.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use detectors::rules;
use detectors::settings::Settings;
use detectors::sigma::{About, Problem, Rules, Severity};
use detectors::testing;
use serde_json::json;
use uuid::Uuid;

use super::json_line;
use crate::cli::Listing;
use crate::exit::{Exit, Failure};
use crate::sink::Page;
use crate::text;

/// Tests that a detector of the catalogue has at least: it fires, a near miss, a benign look-alike.
const TESTS: usize = 3;

/// Checks the catalogue, and the rules in `paths` beside it.
pub(super) fn run(
    paths: &[PathBuf],
    output: Listing,
    page: Page,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let settings = Settings::default();
    let files = crate::rules::files(paths).map_err(Failure::detectors)?;
    let catalogue = rules::read_whole(&rules::catalogue(), &settings, true);
    let mut problems = house_rules(&catalogue);
    let mut count = catalogue.detectors.len() + catalogue.correlations.len();
    problems.extend(catalogue.problems);
    let mut skipped = 0;
    if !files.is_empty() {
        // Rules of the user may refer to those of the catalogue, and are not held to its strictness.
        let mut all = rules::catalogue();
        let own: BTreeSet<String> = files.iter().map(|file| file.name.clone()).collect();
        all.extend(files);
        let read = rules::read_whole(&all, &settings, false);
        let is_own = |source: &str| own.contains(source);
        count += abouts(&read).filter(|about| is_own(&about.source)).count();
        skipped = read.skipped.len();
        problems.extend(own_tests(&read, &is_own));
        problems.extend(read.problems.into_iter().filter(|problem| is_own(&problem.source)));
    }
    problems.sort_by(|a, b| (&a.source, a.line, &a.reason).cmp(&(&b.source, b.line, &b.reason)));
    for problem in &problems {
        write(problem, output, page, out)?;
    }
    if output == Listing::Pretty {
        let skipped = match skipped {
            0 => String::new(),
            rules => format!(", {} for other products skipped", text::counted(rules as u64, "rule")),
        };
        let (count, wrong) =
            (text::counted(count as u64, "detector"), text::counted(problems.len() as u64, "problem"));
        writeln!(out, "{count}, {wrong}{skipped}")?;
    }
    Ok(if problems.is_empty() { Exit::Fine } else { Exit::Alerts })
}

fn write(problem: &Problem, output: Listing, page: Page, out: &mut impl Write) -> Result<(), Failure> {
    let (severity, style) = match problem.severity {
        Severity::Error => ("error", AnsiColor::Red.on_default().bold()),
        Severity::Warning => ("warning", AnsiColor::Yellow.on_default()),
    };
    if output == Listing::Jsonl {
        let Problem { source, line, reason, .. } = problem;
        return json_line(
            &json!({"file": **source, "line": line, "severity": severity, "reason": reason}),
            out,
        );
    }
    let place = format!("{}:{}:", text::for_terminal(&problem.source), problem.line);
    let reason = text::for_terminal(&problem.reason);
    let (place, severity) = (page.painted(&place, Style::new().bold()), page.painted(severity, style));
    writeln!(out, "{place} {severity}: {reason}")?;
    Ok(())
}

fn abouts(rules: &Rules) -> impl Iterator<Item = &About> {
    rules.detectors.iter().map(|rule| &rule.about).chain(rules.correlations.iter().map(|rule| &rule.about))
}

/// What the catalogue asks of its detectors beyond Sigma. (That names are known is the loader's business.)
fn house_rules(rules: &Rules) -> Vec<Problem> {
    let mut problems = Vec::new();
    for about in abouts(rules) {
        let mut wrong = Vec::new();
        if rules::origin(&about.name) != *about.source && !about.hidden {
            wrong.push(format!("the name `{}` is not the path of the file", about.name));
        }
        match about.id.as_deref().map(Uuid::parse_str) {
            Some(Ok(_)) => {}
            Some(Err(_)) => wrong.push("the `id` is no UUID".to_owned()),
            None => wrong.push("there is no `id`".to_owned()),
        }
        for (key, missing) in [
            ("description", about.description.trim().is_empty()),
            ("falsepositives", about.falsepositives.is_empty()),
            ("tags", about.tags.is_empty()),
            ("message", about.message.is_none()),
            ("status", about.status.is_none()),
        ] {
            if missing && !about.hidden {
                wrong.push(format!("there is no `{key}`"));
            }
        }
        match tests(about) {
            Ok(count) if count < TESTS && !about.hidden => {
                wrong.push(format!("{}, and {TESTS} are wanted", text::counted(count as u64, "test")));
            }
            Ok(_) => {}
            Err(reason) => wrong.push(reason),
        }
        problems.extend(wrong.into_iter().map(|reason| problem(about, reason)));
    }
    problems
}

/// Tests of the user's rules that cannot be read.
fn own_tests(rules: &Rules, is_own: &impl Fn(&str) -> bool) -> Vec<Problem> {
    let own = abouts(rules).filter(|about| is_own(&about.source));
    own.filter_map(|about| tests(about).err().map(|reason| problem(about, reason))).collect()
}

fn tests(about: &About) -> Result<usize, String> {
    about.tests.as_ref().map_or(Ok(0), |tests| testing::read(tests).map(|tests| tests.len()))
}

fn problem(about: &About, reason: String) -> Problem {
    Problem { source: about.source.clone(), line: about.line, reason, severity: Severity::Error }
}
