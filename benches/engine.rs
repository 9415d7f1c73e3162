//! What the steps of the engine cost, by themselves and in memory: skim, route, evaluate, next to the newline count below them
//! and `serde_json::Value` above.
//!
//! ```text
//! cargo bench --bench engine
//! cargo bench --bench engine -- route/mixed
//! ```
//!
//! Each step is measured over the lines of both profiles of the made-up log (`generator.rs`), and its throughput counts their
//! bytes. Some hundred lines lie in the cache and are read over and over, so that branch prediction, caches and the index are as
//! warm as they get: these figures are for comparing one version with the next. `compare.sh` measures whole files.

mod generator;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use detectors::engine::{Engine, Origin};
use detectors::event::{Event, Top};
use detectors::rules::{self, Tuning};
use detectors::scan::{Doc, Marks};
use detectors::settings::Settings;
use generator::{Cluster, Options, Profile, Rng, Stream};
use memchr::memchr_iter;
use serde_json::Value;

const LINES: usize = 500;
const PROFILES: [(&str, Profile); 2] = [("metadata", Profile::Metadata), ("mixed", Profile::Mixed)];
const ORIGIN: Origin<'_> = Origin { input: "corpus", offset: 0 };

/// Lines of daily work, or lines that somebody should be told about.
fn lines(profile: Profile, suspicious: bool) -> Vec<u8> {
    let options = Options { profile, suspicious_ppm: 500_000, ..Options::default() };
    let mut rng = Rng::new(options.seed);
    let cluster = Cluster::new(&mut rng);
    let mut stream = Stream::new(&options, &cluster, rng);
    let mut out = Vec::new();
    let mut kept = 0;
    while kept < LINES {
        let before = out.len();
        if stream.write_line(&mut out) == suspicious {
            kept += 1;
        } else {
            out.truncate(before);
        }
    }
    out
}

/// The engine as `lapwing replay` has it without a configuration.
fn engine() -> Engine {
    let settings = Settings::default();
    let rules = rules::read(&[], &settings);
    rules::assemble(rules, settings, &Tuning::default()).expect("the catalogue makes an engine")
}

/// One measurement for each profile, of `measured` over lines of daily work or suspicious ones.
fn each_profile<F: FnMut(&[u8]) -> usize>(
    criterion: &mut Criterion,
    name: &str,
    suspicious: bool,
    mut measured: impl FnMut() -> F,
) {
    let mut group: BenchmarkGroup<'_, WallTime> = criterion.benchmark_group(name);
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    for (name, profile) in PROFILES {
        let lines = lines(profile, suspicious);
        let mut measured = measured();
        group.throughput(Throughput::Bytes(lines.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| measured(black_box(&lines))));
    }
    group.finish();
}

/// The floor: no line can be judged without its end being found.
fn newlines(criterion: &mut Criterion) {
    each_profile(criterion, "newlines", false, || |lines: &[u8]| memchr_iter(b'\n', lines).count());
}

/// Marks quotes and brackets and finds the members of each event.
fn skim(criterion: &mut Criterion) {
    let settings = Settings::default();
    each_profile(criterion, "skim", false, || {
        let mut marks = Marks::new();
        let settings = &settings;
        move |lines: &[u8]| {
            let (mut start, mut found) = (0, 0);
            while start < lines.len() {
                let (end, _) = marks.mark_line(lines, start);
                let root = Doc::new(&lines[start..end], &marks).root();
                let event = Event::skim(root.expect("no line is blank"), settings);
                found += usize::from(event.has(Top::Verb));
                start = end + 1;
            }
            found
        }
    });
}

/// Skims and looks up in the index; next to nothing is left to evaluate.
fn route(criterion: &mut Criterion) {
    let engine = engine();
    each_profile(criterion, "route", false, || judge(&engine));
}

/// All of it, to the finished alert.
fn evaluate(criterion: &mut Criterion) {
    let engine = engine();
    each_profile(criterion, "evaluate", true, || judge(&engine));
}

fn judge(engine: &Engine) -> impl FnMut(&[u8]) -> usize {
    let mut worker = engine.worker();
    let mut emitted = Vec::new();
    move |lines: &[u8]| {
        emitted.clear();
        worker.lines(ORIGIN, lines, &mut emitted);
        emitted.len()
    }
}

/// A tree for each event.
fn value(criterion: &mut Criterion) {
    each_profile(criterion, "value", false, || {
        |lines: &[u8]| {
            let parse = |line| serde_json::from_slice::<Value>(line).expect("every line is JSON");
            lines
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(parse)
                .map(black_box)
                .count()
        }
    });
}

criterion_group!(benches, newlines, skim, route, evaluate, value);
criterion_main!(benches);
