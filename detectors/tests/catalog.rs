//! Every detector's own tests, and what holds for the catalogue as a whole.
#![allow(clippy::unwrap_used)] // a test may fail

use std::collections::BTreeMap;

use detectors::rules::{self, Tuning};
use detectors::settings::Settings;
use detectors::testing;

/// Name and tests of every rule of the catalogue.
fn all_tests() -> Vec<(String, Vec<testing::Test>)> {
    let whole = rules::read_whole(&rules::catalogue(), &Settings::default(), true);
    let abouts = whole.detectors.iter().map(|rule| &rule.about);
    let abouts = abouts.chain(whole.correlations.iter().map(|rule| &rule.about));
    abouts
        .filter_map(|about| {
            let tests =
                testing::read(about.tests.as_ref()?).unwrap_or_else(|e| panic!("{}: {e}", about.name));
            Some((about.name.clone(), tests))
        })
        .collect()
}

#[test]
fn the_catalogue_has_no_problems() {
    let whole = rules::read_whole(&rules::catalogue(), &Settings::default(), true);
    let problems: Vec<String> = whole.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_detector_passes_its_tests() {
    let mut engines = BTreeMap::new();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, tests) in all_tests() {
        for test in &tests {
            let engine = engines.entry(format!("{:?}", test.lists)).or_insert_with(|| {
                let settings = Settings::new(None, test.lists.clone()).unwrap();
                rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap()
            });
            match testing::run(engine, &name, test).failure {
                None => passed += 1,
                Some(failure) => failed.push(format!("{name}: {}: {failure}", test.name)),
            }
        }
    }
    assert!(failed.is_empty(), "{passed} passed, {} failed:\n{}", failed.len(), failed.join("\n"));
}
