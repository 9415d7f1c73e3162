//! `lapwing inspect`: what files and topics hold, and what they cannot show.

use std::io::Write;
use std::sync::Arc;

use super::{named, out, replay::recognized, replay::threads};
use crate::cli::{self, Listing, Look};
use crate::exit::{Exit, Failure};
use crate::replay::progress::Line;
use crate::replay::summary::Summary;
use crate::replay::{self, Options, Order, Progress};
use crate::rules::Wanted;
use crate::source::plan;
use crate::{interrupt, terminal};

/// Runs the command: a replay that shows no alerts.
pub(crate) fn run(typed: &cli::Inspect, look: Look) -> Result<Exit, Failure> {
    let named = named(&typed.paths, typed.rules.config.as_deref())?;
    let engine = Wanted::read(&typed.rules)?.engine()?;
    let interrupted = interrupt::flag();
    let plan = plan::plan(named, interrupted);
    let options = Options { threads: threads(typed.work), order: Order::Time };
    let progress = Arc::new(Progress::default());
    let mut line = Line::draw(&progress, !typed.work.no_progress && !look.quiet);
    let report = replay::run(plan, &engine, &options, &|_| false, &progress, interrupted, &mut |_| Ok(()));
    line.clear();
    let report = report.map_err(Failure::input)?;
    let summary = Summary { report: &report, engine: &engine, alerts: false };
    let mut out = out();
    match typed.output {
        Listing::Pretty => summary.text(terminal::stdout(look.color), &mut out)?,
        Listing::Jsonl => writeln!(out, "{}", summary.json().map_err(std::io::Error::from)?)?,
    }
    out.flush()?;
    Ok(match report.interrupted {
        true => Exit::Interrupted,
        false if report.unreadable.total > 0 || !recognized(&report) => Exit::Input,
        false => Exit::Fine,
    })
}
