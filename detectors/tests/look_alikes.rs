//! Rules written as public ones for the audit log are: they load without a word and see what they mean to see.
#![allow(clippy::unwrap_used)] // a test may fail

use detectors::rules::{self, File, Tuning};
use detectors::settings::Settings;
use detectors::testing;

#[test]
fn rules_of_others_load_as_they_stand_and_fire() {
    let file = File {
        name: "look_alikes.yml".to_owned(),
        yaml: include_str!("look_alikes.yml").to_owned(),
        folder: None,
    };
    let settings = Settings::default();
    let whole = rules::read_whole(std::slice::from_ref(&file), &settings, false);
    assert_eq!(whole.problems, []);
    let engine = rules::assemble(rules::read(&[file], &settings), settings, &Tuning::default()).unwrap();
    let mut failed = Vec::new();
    for about in whole.detectors.iter().map(|rule| &rule.about) {
        let tests = testing::read(about.tests.as_ref().unwrap()).unwrap();
        assert!(tests.iter().any(|test| test.expect == testing::Expect::Alert(None)), "{}", about.title);
        for test in &tests {
            let failure = testing::run(&engine, &about.name, test).failure;
            failed.extend(failure.map(|failure| format!("{}: {}: {failure}", about.title, test.name)));
        }
    }
    assert_eq!(failed, [""; 0]);
}
