//! `lapwing detectors test`: the tests that stand in the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use anstyle::AnsiColor;
use anyhow::anyhow;
use detectors::engine::Engine;
use detectors::rules::{self, File, Tuning};
use detectors::settings::Settings;
use detectors::sigma::About;
use detectors::testing::{self, Test};
use serde_json::json;

use super::{explain, json_line};
use crate::cli::Listing;
use crate::exit::{Exit, Failure};
use crate::sink::Page;
use crate::text;

/// Events of a failed test that are explained.
const EXPLAINED: usize = 3;

/// Runs the tests of the rules in `paths`, or of the catalogue.
pub(super) fn run(
    paths: &[PathBuf],
    output: Listing,
    page: Page,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let files = crate::rules::files(paths).map_err(Failure::detectors)?;
    let mut run = Run { files, engines: BTreeMap::new(), output, page, passed: 0, failed: 0 };
    for about in wanted(&run.files)? {
        let Some(tests) = &about.tests else { continue };
        let place = format!("{}:{}", about.source, about.line);
        let tests = testing::read(tests).map_err(|why| Failure::detectors(anyhow!("{place}: {why}")))?;
        for test in &tests {
            run.one(&about.name, test, out)?;
        }
    }
    if output == Listing::Pretty {
        writeln!(out, "{} passed, {} failed", run.passed, run.failed)?;
    }
    Ok(if run.failed == 0 { Exit::Fine } else { Exit::Alerts })
}

/// The rules whose tests are to be run: those of the user if there are any.
fn wanted(files: &[File]) -> Result<Vec<About>, Failure> {
    let mut all = rules::catalogue();
    let own: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    all.extend(files.iter().cloned());
    let read = rules::read_whole(&all, &Settings::default(), false);
    let errors = rules::errors(&read);
    if !errors.is_empty() {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        return Err(Failure::detectors(anyhow!("detectors cannot be loaded\n{}", lines.join("\n"))));
    }
    let single = read.detectors.into_iter().map(|rule| rule.about);
    let abouts = single.chain(read.correlations.into_iter().map(|rule| rule.about));
    Ok(abouts.filter(|about| own.is_empty() || own.contains(&*about.source)).collect())
}

/// Tests under way.
struct Run {
    files: Vec<File>,
    /// Engines by the lists that tests give.
    engines: BTreeMap<BTreeMap<String, Vec<String>>, Engine>,
    output: Listing,
    page: Page,
    passed: u64,
    failed: u64,
}

impl Run {
    fn one(&mut self, detector: &str, test: &Test, out: &mut impl Write) -> Result<(), Failure> {
        if !self.engines.contains_key(&test.lists) {
            let engine = engine(&self.files, test)
                .map_err(|why| Failure::detectors(anyhow!("{detector}: test `{}`: {why}", test.name)))?;
            self.engines.insert(test.lists.clone(), engine);
        }
        let engine = &self.engines[&test.lists];
        let outcome = testing::run(engine, detector, test);
        match &outcome.failure {
            None => self.passed += 1,
            Some(_) => self.failed += 1,
        }
        if self.output == Listing::Jsonl {
            let (name, failure) = (&outcome.name, &outcome.failure);
            return json_line(
                &json!({"detector": detector, "test": name, "passed": failure.is_none(), "failure": failure}),
                out,
            );
        }
        let Some(failure) = &outcome.failure else { return Ok(()) };
        let label = self.page.painted("FAILED", AnsiColor::Red.on_default().bold());
        let (detector_, name) = (text::for_terminal(detector), text::for_terminal(&outcome.name));
        writeln!(out, "{label} {detector_}: {name}: {}", text::for_terminal(failure))?;
        for event in test.events.iter().take(EXPLAINED) {
            if let Ok(explanations) = engine.explain(detector, event.as_bytes()) {
                for explanation in &explanations {
                    explain::write(explanation, 4, self.page, out)?;
                }
            }
        }
        if test.events.len() > EXPLAINED {
            writeln!(out, "    and {} more events", test.events.len() - EXPLAINED)?;
        }
        Ok(())
    }
}

fn engine(files: &[File], test: &Test) -> Result<Engine, String> {
    let settings = Settings::new(None, test.lists.clone())?;
    rules::assemble(rules::read(files, &settings), settings, &Tuning::default())
}
