//! `lapwing detectors explain`: how a detector judges an event, step by step.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, anyhow};
use detectors::explain::Explanation;
use detectors::program::Trace;
use detectors::value::Tri;

use super::json_line;
use crate::cli::{self, Listing};
use crate::exit::{Exit, Failure};
use crate::rules::{Wanted, unmatched};
use crate::sink::{Page, level_style};
use crate::text;

/// The longest event.
const LONGEST: u64 = 16 << 20;

/// Explains how the detector `name` judges the event in a file.
pub(super) fn run(
    name: &str,
    event: &Path,
    output: Listing,
    typed: &cli::Rules,
    page: Page,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let engine = Wanted::read(typed)?.engine()?;
    if !engine.detectors().iter().any(|detector| detector.name == name) {
        let problem = unmatched(name, &engine).unwrap_or_else(|| format!("no detector is called `{name}`"));
        return Err(Failure::usage(anyhow!(problem)));
    }
    let bytes = read(event).map_err(Failure::input)?;
    let explanations = engine
        .explain(name, &bytes)
        .map_err(|reason| Failure::input(anyhow!("{}: {reason}", event.display())))?;
    let correlation = explanations.iter().all(|explanation| explanation.detector != name);
    if correlation && output == Listing::Pretty {
        writeln!(out, "{name} counts what these detectors match:\n")?;
    }
    for explanation in &explanations {
        match output {
            Listing::Jsonl => json_line(explanation, out)?,
            Listing::Pretty => write(explanation, 0, page, out)?,
        }
    }
    Ok(Exit::Fine)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(LONGEST).read_to_end(&mut bytes)
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(LONGEST).read_to_end(&mut bytes)
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// Writes an explanation, `indent` columns to the right.
pub(super) fn write(
    explanation: &Explanation,
    indent: usize,
    page: Page,
    out: &mut impl Write,
) -> io::Result<()> {
    let verdict = match (explanation.alert, explanation.condition.result) {
        (Some(level), _) => page.painted(&format!("alert, {level}"), level_style(level)),
        (None, Tri::False) => "no alert: the condition does not hold".to_owned(),
        (None, Tri::Unknown) => "no alert: the event cannot tell (blind)".to_owned(),
        (None, Tri::True) if explanation.matched => "a match, but no alert by itself".to_owned(),
        (None, Tri::True) => "no alert, although the condition holds".to_owned(),
    };
    let name = page.painted(&text::for_terminal(&explanation.detector), Style::new().bold());
    writeln!(out, "{:indent$}{name}: {verdict}", "")?;
    for reason in &explanation.because {
        writeln!(out, "{:indent$}  because {}", "", text::for_terminal(reason))?;
    }
    tree(&explanation.condition, "", indent + 2, page, out)?;
    for (level, grade) in &explanation.grades {
        tree(grade, &format!("level {level} when "), indent + 2, page, out)?;
    }
    for exception in &explanation.exceptions {
        tree(exception, "exception ", indent + 2, page, out)?;
    }
    Ok(())
}

fn tree(trace: &Trace, label: &str, indent: usize, page: Page, out: &mut impl Write) -> io::Result<()> {
    let (mark, style) = match trace.result {
        Tri::True => ("pass   ", AnsiColor::Green.on_default()),
        Tri::False => ("fail   ", AnsiColor::Red.on_default()),
        Tri::Unknown => ("unknown", AnsiColor::Yellow.on_default()),
    };
    let mark = page.painted(mark, style);
    write!(out, "{:indent$}{mark} {label}{}", "", text::for_terminal(&trace.text))?;
    if let Some(actual) = &trace.actual {
        let actual = page.painted(&text::for_terminal(actual), Style::new().bold());
        write!(out, "   is {actual}")?;
    }
    writeln!(out)?;
    trace.children.iter().try_for_each(|child| tree(child, "", indent + 2, page, out))
}
