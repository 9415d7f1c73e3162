//! Writes a made-up but lifelike Kubernetes audit log, the same on every machine, for measuring.
//!
//! ```text
//! cargo run --release --example corpus -- --profile mixed --size 1GB --out /tmp/mixed.log
//! ```
//!
//! The cluster has 200 nodes, 40 namespaces, 2000 pods, 120 service accounts and 25 people. About half of the
//! requests are leases and status writes; the rest are watches, lists, gets, events, endpoint slices,
//! reviews, health checks and a little of everything else. `--suspicious` is the share of *lines* that
//! somebody should be told about, spread evenly over the kinds in `generator::SUSPICIOUS`; with 0 the file holds daily
//! work only. Profile `metadata` (1.27 KB an event) has every event at level Metadata. Profile `mixed` (2.95
//! KB) adds request objects to the writes and response objects to most of them. What was written, kind by
//! kind, is printed to stderr: it is the truth that a count can be held against.
//!
//! Field order, stages and the escaping of `&` as `\u0026` follow `audit.k8s.io/v1` as the API server writes
//! it under a policy with `omitStages: [RequestReceived]`: one line a request, two for watches, logs, exec
//! and the like. As in a log that was rotated, the first minutes also have completions whose start is not in
//! the file.
//!
//! What the corpus flatters:
//! - Caches. There are about 80 user agents and 350 identities, each with one address and one reason, and
//!   none is new after the first minute. A cluster with build runners, short-lived pods or scanners has many
//!   more.
//! - Branch prediction and compression. Bodies of one kind differ in names, ids and times, not in shape.
//! - Line length. No line is longer than about 14 KB; real ones (lists, Helm releases, custom resources)
//!   reach 1 MB.
//! - Order. Neighbours are out of order by some milliseconds; shippers and several API servers make minutes
//!   of it.
//! - Damage. There are no torn lines, no truncation marks, no invalid UTF-8, and no text beyond ASCII.
//!
//! What it does not flatter: field order, nesting, key sets and the number of escapes are those of a real
//! log; audit ids and resource versions never repeat; neighbouring events belong to different identities and
//! kinds.

mod generator;

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;

use generator::{Cluster, Options, Profile, Rng, Stream, civil_from_days};

// -----------------------------------------------------------------------------------------------------------
// Command line

const USAGE: &str = "\
usage: corpus [--profile metadata|mixed] [--size N[KB|MB|GB]] [--suspicious FRACTION] [--seed N]
              [--start RFC3339] [--out FILE]

  --profile     metadata: every event at level Metadata; mixed: bodies on writes (default mixed)
  --size        stop at the first event boundary at or past it, decimal units (default 100MB)
  --suspicious  share of suspicious lines, 0 to 1 (default 0.002)
  --seed        same seed, same bytes (default 1)
  --start       time of the first event, in UTC (default 2026-03-01T10:00:00Z)
  --out         file to write (default stdout)";

struct Order {
    options: Options,
    size: u64,
    out: Option<String>,
}

fn parse_order(mut args: impl Iterator<Item = String>) -> Result<Order, String> {
    let mut order = Order { options: Options::default(), size: 100_000_000, out: None };
    let options = &mut order.options;
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--profile" => options.profile = parse_profile(&value()?)?,
            "--size" => order.size = parse_size(&value()?)?,
            "--suspicious" => options.suspicious_ppm = parse_fraction(&value()?)?,
            "--seed" => {
                let text = value()?;
                options.seed = text.parse().map_err(|_| format!("--seed {text}: not a whole number"))?;
            }
            "--start" => options.start = parse_start(&value()?)?,
            "--out" => order.out = Some(value()?),
            _ => return Err(format!("unknown option {flag}")),
        }
    }
    Ok(order)
}

fn parse_profile(text: &str) -> Result<Profile, String> {
    match text {
        "metadata" => Ok(Profile::Metadata),
        "mixed" => Ok(Profile::Mixed),
        _ => Err(format!("--profile {text}: neither metadata nor mixed")),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000), ("", 1)];
    units
        .iter()
        .find_map(|&(unit, bytes)| text.strip_suffix(unit).map(|number| (number, bytes)))
        .and_then(|(number, bytes)| number.parse::<u64>().ok()?.checked_mul(bytes))
        .ok_or_else(|| format!("--size {text}: not a whole number followed by nothing, KB, MB or GB"))
}

/// Parts per million.
fn parse_fraction(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok((fraction * 1e6).round() as u64),
        _ => Err(format!("--suspicious {text}: not a number between 0 and 1")),
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ` as microseconds since 1970.
fn parse_start(text: &str) -> Result<u64, String> {
    let wrong = || format!("--start {text}: not a time like 2026-03-01T10:00:00Z between 1971 and 9998");
    let shape = b"0000-00-00T00:00:00Z";
    let fits = text.len() == shape.len()
        && text.bytes().zip(shape).all(
            |(byte, &model)| {
                if model == b'0' { byte.is_ascii_digit() } else { byte == model }
            },
        );
    if !fits {
        return Err(wrong());
    }
    let field = |range: Range<usize>| text[range].parse::<u64>().map_err(|_| wrong());
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let days = days_from_civil(year, month, day);
    let exists =
        (1971..=9998).contains(&year) && (1..=12).contains(&month) && hour < 24 && minute < 60 && second < 60;
    if !exists || day == 0 || civil_from_days(days) != (year, month, day) {
        return Err(wrong());
    }
    Ok(((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000)
}

/// Days since 1970-01-01: the inverse of [`civil_from_days`].
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let shifted = if month > 2 { year } else { year.saturating_sub(1) };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day;
    (shifted * 365 + shifted / 4 + shifted / 400 + day_of_year).saturating_sub(shifted / 100 + 719_469)
}

const BLOCK: usize = 1 << 20;

fn generate(order: &Order, mut output: impl Write) -> io::Result<()> {
    let mut rng = Rng::new(order.options.seed);
    let cluster = Cluster::new(&mut rng);
    let mut stream = Stream::new(&order.options, &cluster, rng);
    let mut block = Vec::with_capacity(2 * BLOCK);
    let mut written = 0;
    while written + (block.len() as u64) < order.size {
        stream.write_line(&mut block);
        if block.len() >= BLOCK {
            output.write_all(&block)?;
            written += block.len() as u64;
            block.clear();
        }
    }
    output.write_all(&block)?;
    output.flush()?;
    eprint!("{stream}");
    Ok(())
}

fn run(order: &Order) -> Result<(), String> {
    let Some(path) = &order.out else {
        return match generate(order, io::stdout().lock()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
            _ => Ok(()),
        };
    };
    File::create(path).and_then(|file| generate(order, file)).map_err(|error| format!("{path}: {error}"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (status, message) = match parse_order(args.into_iter()) {
        Err(message) => (3, format!("{message}\n{USAGE}")),
        Ok(order) => match run(&order) {
            Err(message) => (1, message),
            Ok(()) => return ExitCode::SUCCESS,
        },
    };
    eprintln!("corpus: {message}");
    ExitCode::from(status)
}
