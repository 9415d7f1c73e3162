//! `lapwing replay`: what was typed becomes a replay; what comes back becomes alerts, a summary and an exit code.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::anyhow;
use detectors::engine::{Engine, Found};
use detectors::event::time::Nanos;
use detectors::level::Level;
use detectors::names;
use detectors::tally::Format;

use super::named;
use crate::cli::{self, Look, Output};
use crate::exit::{Exit, Failure};
use crate::replay::progress::Line;
use crate::replay::summary::Summary;
use crate::replay::{self, Options, Order, Progress, Report};
use crate::rules::{Wanted, unmatched};
use crate::sink::{Form, Sink};
use crate::source::plan;
use crate::{interrupt, terminal, text, view};

/// Runs the command.
pub(crate) fn run(typed: &cli::Replay, look: Look) -> Result<Exit, Failure> {
    if let (Some(since), Some(until)) = (typed.since, typed.until)
        && since >= until
    {
        let (since, until) = (text::clock(since), text::clock(until));
        return Err(Failure::usage(anyhow!("--since {since} is not before --until {until} (UTC)")));
    }
    let named = named(&typed.paths, typed.rules.config.as_deref())?;
    let wanted = Wanted::read(&typed.rules)?;
    let mut filter = Filter::new(typed, wanted.min_level());
    let ending = wanted.ending_exceptions();
    let engine = wanted.engine()?.between(typed.since, typed.until);
    filter.resolve(typed, &engine)?;
    let interrupted = interrupt::flag();
    let plan = plan::plan(named, interrupted);
    let options = Options {
        threads: threads(typed.work),
        order: match typed.order {
            cli::Order::Time => Order::Time,
            cli::Order::Input => Order::Input,
        },
    };
    let mut printer = Printer::new(typed, look)?;
    let report = {
        let progress = Arc::clone(&printer.progress);
        let keep = |found: &Found| filter.keeps(found);
        let mut emit = |found: &Found| printer.print(found);
        replay::run(plan, &engine, &options, &keep, &progress, interrupted, &mut emit)
    };
    let highest = printer.finish();
    let report = report.map_err(Failure::input)?;
    let highest = highest?;
    tell_of_ended(&ending, &report);
    tell(&Summary { report: &report, engine: &engine, alerts: true }, typed.summary, look);
    Ok(exit(&report, typed, highest))
}

/// Warns of exceptions that were over before the first event, and so passed over nothing.
fn tell_of_ended(ending: &[(String, Nanos)], report: &Report) {
    let Some((first, _)) = report.range else { return };
    for (detector, until) in ending.iter().filter(|(_, until)| *until <= first) {
        let until = text::clock(*until);
        tracing::warn!(
            "the exception for `{detector}` ended at {until}, before the first event: nothing was passed over"
        );
    }
}

/// Threads to judge with.
pub(super) fn threads(work: cli::Work) -> usize {
    work.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from)
}

/// How a replay ends. Interruption says that nothing else is known for sure.
fn exit(report: &Report, typed: &cli::Replay, highest: Option<Level>) -> Exit {
    let tally = &report.tally;
    let damaged = report.damaged.total + tally.bad + tally.partial + tally.nuls > 0;
    match typed {
        _ if report.interrupted => Exit::Interrupted,
        _ if report.unreadable.total > 0 || !recognized(report) => Exit::Input,
        cli::Replay { fail_on: Some(level), .. } if highest >= Some(*level) => Exit::Alerts,
        cli::Replay { strict: true, .. } if damaged => Exit::Damage,
        _ => Exit::Fine,
    }
}

/// True if anything was an event, or one of our own alerts.
pub(super) fn recognized(report: &Report) -> bool {
    report.tally.formats.iter().any(|(format, n)| *format != Format::Unrecognized && *n > 0)
}

/// Why nothing was recognised. That there was nothing is no question of its format.
fn unrecognized(report: &Report) -> &'static str {
    let topics = report.partitions > 0 && report.partitions == report.files;
    match report.records == 0 && report.damaged.total == 0 && topics {
        true if report.empty > 0 => "no message has a payload: there is nothing to judge",
        true => "there were no messages: the topic is empty, or none was written in the range of the address",
        false => "nothing in the input was recognised as an audit event or a Falco alert",
    }
}

/// Writes the summary to standard error, and what else must be said there. If nobody listens, so be it.
fn tell(summary: &Summary<'_>, form: cli::Summary, look: Look) {
    let mut out = BufWriter::new(io::stderr());
    let report = summary.report;
    match form {
        cli::Summary::Json => {
            let _ = summary.json().map(|json| writeln!(out, "{json}"));
        }
        cli::Summary::Text if !look.quiet => {
            if io::stdout().is_terminal() {
                let _ = writeln!(out);
            }
            let _ = summary.text(terminal::stderr(look.color), &mut out);
        }
        cli::Summary::Text | cli::Summary::None => {
            let damaged = if look.quiet { &[][..] } else { &report.damaged.list };
            let unreadable = report.unreadable.list.iter().map(|note| ("error: cannot read ", note));
            for (what, note) in unreadable.chain(damaged.iter().map(|note| ("warning: damaged: ", note))) {
                let (input, reason) = (text::for_terminal(&note.input), text::for_terminal(&note.reason));
                let _ = writeln!(out, "{what}{input}: {reason}");
            }
        }
    }
    if !recognized(report) && !report.interrupted && form != cli::Summary::Json {
        let _ = writeln!(out, "error: {}", unrecognized(report));
    }
    let _ = out.flush();
}

/// Writes alerts beside the progress line.
struct Printer {
    sink: Sink<BufWriter<io::Stdout>>,
    progress: Arc<Progress>,
    line: Line,
    /// Alerts and progress meet on one terminal: neither may stand in the other's line.
    shared: bool,
    at_end: bool,
    highest: Option<Level>,
    /// Nobody reads our output any more.
    closed: bool,
}

impl Printer {
    fn new(typed: &cli::Replay, look: Look) -> io::Result<Printer> {
        let terminal = io::stdout().is_terminal();
        let form = match typed.output {
            Some(Output::Pretty) => Form::Pretty(terminal::stdout(look.color)),
            None if terminal => Form::Pretty(terminal::stdout(look.color)),
            Some(Output::Jsonl) | None => Form::Jsonl,
            Some(Output::Csv) => Form::Csv,
        };
        let sink = Sink::new(form, BufWriter::with_capacity(64 << 10, io::stdout()))?;
        let progress = Arc::new(Progress::default());
        let line = Line::draw(&progress, !typed.work.no_progress && !look.quiet);
        let shared = terminal && !line.is_hidden();
        let at_end = typed.order == cli::Order::Time;
        Ok(Printer { sink, progress, line, shared, at_end, highest: None, closed: false })
    }

    fn print(&mut self, found: &Found) -> io::Result<()> {
        self.highest = self.highest.max(Some(found.alert.level));
        let sink = &mut self.sink;
        let written = if self.at_end {
            if self.shared {
                self.line.clear();
                self.shared = false;
            }
            sink.write(&found.alert)
        } else {
            // Whoever asked for alerts as they are found, from a pipe perhaps, waits for them.
            let mut write = || sink.write(&found.alert).and_then(|()| sink.flush());
            if self.shared { self.line.aside(write) } else { write() }
        };
        self.closed |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    /// Ends the output; tells the highest level that was written.
    fn finish(&mut self) -> Result<Option<Level>, Failure> {
        self.line.clear();
        if self.closed {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
        self.sink.flush()?;
        Ok(self.highest)
    }
}

/// Which alerts are shown. What is filtered out was found all the same: ids and correlations do not depend on it.
struct Filter {
    min_level: Option<Level>,
    /// By detector; empty until resolved.
    detectors: Vec<bool>,
    users: Vec<String>,
    namespaces: Vec<String>,
}

impl Filter {
    fn new(typed: &cli::Replay, configured: Option<Level>) -> Filter {
        Filter {
            min_level: typed.min_level.max(configured),
            detectors: Vec::new(),
            users: typed.user.clone(),
            namespaces: typed.namespace.clone(),
        }
    }

    /// Looks the globs over detector names up. One that names nothing is a mistake.
    fn resolve(&mut self, typed: &cli::Replay, engine: &Engine) -> Result<(), Failure> {
        for (flag, globs) in [("--detector", &typed.detector), ("--skip-detector", &typed.skip_detector)] {
            if let Some(problem) = globs.iter().find_map(|glob| unmatched(glob, engine)) {
                return Err(Failure::usage(anyhow!("{flag}: {problem}")));
            }
        }
        let any = |globs: &[String], name: &str| globs.iter().any(|glob| names::matches(glob, name));
        let shown = |name: &str| {
            (typed.detector.is_empty() || any(&typed.detector, name)) && !any(&typed.skip_detector, name)
        };
        self.detectors = engine.detectors().iter().map(|detector| shown(&detector.name)).collect();
        Ok(())
    }

    fn keeps(&self, found: &Found) -> bool {
        let alert = &found.alert;
        let any = |globs: &[String], names: &[&str]| {
            let named =
                |glob: &String| names.iter().any(|name| !name.is_empty() && names::matches(glob, name));
            globs.is_empty() || globs.iter().any(named)
        };
        self.min_level.is_none_or(|least| alert.level >= least)
            && self.detectors.get(found.detector as usize).copied().unwrap_or(true)
            && any(&self.users, &[view::actor(alert), view::impersonated(alert)])
            && any(&self.namespaces, &[view::namespace(alert)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_was_nothing_is_said_of_formats() {
        let check = |(files, partitions, records, empty, damaged): (u64, u64, u64, u64, u64),
                     expected: &str| {
            let mut report = Report { files, partitions, records, empty, ..Report::default() };
            report.damaged.total = damaged;
            assert!(unrecognized(&report).starts_with(expected), "{}", unrecognized(&report));
        };
        check((3, 3, 0, 0, 0), "there were no messages: ");
        check((3, 3, 0, 7, 0), "no message has a payload");
        for seen in [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (4, 3, 0, 0, 0), (3, 3, 1, 0, 0), (3, 3, 0, 0, 1)] {
            check(seen, "nothing in the input was recognised");
        }
    }
}
