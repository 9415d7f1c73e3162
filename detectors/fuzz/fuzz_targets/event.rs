//! Any lines through the judge: nothing panics, and the index loses no alert.
#![no_main]

use std::sync::OnceLock;

use detectors::engine::{Engine, Origin, Worker};
use detectors::rules::{self, Tuning};
use detectors::settings::Settings;
use detectors::testing;
use libfuzzer_sys::fuzz_target;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let settings = Settings::default();
        rules::assemble(rules::read(&[], &settings), settings, &Tuning::default())
            .expect("the catalogue is good")
    })
}

/// The ids of what a judge finds; three times, because the index learns what it has seen before.
fn found(mut worker: Worker<'static>, bytes: &[u8]) -> Vec<String> {
    let mut emitted = Vec::new();
    for _ in 0..3 {
        worker.lines(Origin { input: "fuzz", offset: 0 }, bytes, &mut emitted);
    }
    let found = testing::correlated(engine(), emitted);
    let mut ids: Vec<_> =
        found.iter().map(|one| format!("{} {}", one.alert.detector, one.alert.uuid)).collect();
    ids.sort_unstable();
    ids
}

fuzz_target!(|bytes: &[u8]| {
    let engine = engine();
    assert_eq!(found(engine.worker(), bytes), found(engine.worker().unindexed(), bytes));
});
