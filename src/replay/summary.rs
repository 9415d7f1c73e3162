//! What a replay saw, for people and for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::Style;
use detectors::engine::{Detector, Engine};
use detectors::event::time::{self, Nanos};
use detectors::level::Level;
use detectors::tally::{AUDIT_LEVELS, Format, Sample};
use serde::Serialize;
use serde_json::{Value, json};
use textwrap::{Options, WordSplitter};

use super::profile::Top;
use super::{Notes, Report};
use crate::sink::{Page, level_style};
use crate::text;

/// Width of the labels.
const LABEL: usize = 13;
/// Names and notes of a kind that people are shown; programs get all.
const SHOWN: usize = 5;
/// Notes of a kind that people are shown.
const NOTES: usize = 20;
/// Characters of a name.
const LONGEST: usize = 80;

/// A report with what its numbers refer to.
#[derive(Clone, Copy)]
pub(crate) struct Summary<'s> {
    /// What was done.
    pub(crate) report: &'s Report,
    /// The detectors that did it.
    pub(crate) engine: &'s Engine,
    /// False if nobody asked for alerts.
    pub(crate) alerts: bool,
}

/// The keys of the summary for programs, in this order.
#[derive(Serialize)]
struct Keys {
    files: u64,
    records: u64,
    bytes: u64,
    formats: BTreeMap<&'static str, u64>,
    bad: u64,
    partial: u64,
    duplicates: u64,
    late: u64,
    future: u64,
    time: Option<Value>,
    gaps: Vec<Value>,
    levels: BTreeMap<&'static str, u64>,
    blind: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<Value>,
    actors: Value,
    sources: Value,
    namespaces: Value,
    elapsed_s: f64,
}

impl Summary<'_> {
    /// For programs: one line of JSON. Contents of records are not in it.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let report = self.report;
        let levels = AUDIT_LEVELS.iter().copied().zip(report.tally.levels);
        let gap = |(from, to): &(Nanos, Nanos)| json!({"from": time::format(*from), "to": time::format(*to), "seconds": (to - from) / time::SECOND});
        let range = |(first, last)| json!({"first": time::format(first), "last": time::format(last)});
        let json = serde_json::to_string(&Keys {
            files: report.files,
            records: report.records,
            bytes: report.bytes,
            formats: report.tally.formats.iter().map(|(format, n)| (format.name(), *n)).collect(),
            bad: report.tally.bad,
            partial: report.tally.partial,
            duplicates: report.duplicates,
            late: report.correlation.late,
            future: report.correlation.future,
            time: report.range.map(range),
            gaps: report.gaps.iter().map(gap).collect(),
            levels: levels.collect(),
            blind: self.blind_json(),
            alerts: self.alerts.then(|| self.alerts_json()),
            actors: top_json(&report.actors),
            sources: top_json(&report.sources),
            namespaces: top_json(&report.namespaces),
            elapsed_s: report.elapsed.as_secs_f64(),
        })?;
        Ok(text::for_json(&json).into_owned())
    }

    fn alerts_json(&self) -> Value {
        let report = self.report;
        let count = |level: &Level| report.by_level.get(level).copied().unwrap_or_default();
        let by_level: BTreeMap<_, _> = Level::ALL.iter().map(|level| (level.name(), count(level))).collect();
        let mut by_detector: BTreeMap<&str, u64> = BTreeMap::new();
        for ((index, _), n) in &report.by_detector {
            *by_detector.entry(self.detector(*index).name.as_str()).or_default() += n;
        }
        json!({
            "total": report.by_level.values().sum::<u64>(),
            "by_level": by_level,
            "by_detector": by_detector,
            "approximate": report.correlation.approximate,
            "evicted": report.correlation.evicted,
        })
    }

    /// What could not be seen: by detectors, in files, in records.
    fn blind_json(&self) -> Value {
        let silent: BTreeMap<_, _> = self.silent().map(|d| (d.name.as_str(), &d.silent)).collect();
        let notes = |notes: &Notes| {
            let list = notes.list.iter().map(|note| json!({"input": note.input, "reason": note.reason}));
            json!({"count": notes.total, "list": list.collect::<Vec<_>>()})
        };
        let sample = |sample: &Sample| {
            let Sample { input, offset, length, keys, sha256 } = sample;
            json!({"input": input, "offset": offset, "length": length, "keys": keys, "sha256": sha256})
        };
        let report = self.report;
        json!({
            "detectors": self.blind(),
            "silent": silent,
            "skipped": notes(&report.skipped),
            "unreadable": notes(&report.unreadable),
            "damaged": notes(&report.damaged),
            "nul_bytes": report.tally.nuls,
            "empty_messages": report.empty,
            "unrecognized": report.tally.samples.iter().map(sample).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub(crate) fn text(&self, page: Page, out: &mut impl Write) -> io::Result<()> {
        let mut rows = Rows { page, out };
        self.input(&mut rows)?;
        self.coverage(&mut rows)?;
        if self.alerts {
            self.found(&mut rows)?;
        }
        let report = self.report;
        for (label, top) in
            [("Actors", &report.actors), ("Addresses", &report.sources), ("Namespaces", &report.namespaces)]
        {
            rows.top(label, top)?;
        }
        self.trouble(&mut rows)?;
        let seconds = report.elapsed.as_secs_f64().max(1e-9);
        rows.row(
            "Took",
            &format!(
                "{:.2} s, {}/s, {} records/s",
                report.elapsed.as_secs_f64(),
                text::bytes((report.bytes as f64 / seconds) as u64),
                text::thousands((report.records as f64 / seconds) as u64)
            ),
        )?;
        if report.interrupted {
            rows.row("Interrupted", "the input was not read to its end")?;
        }
        Ok(())
    }

    fn input<W: Write>(&self, rows: &mut Rows<'_, W>) -> io::Result<()> {
        let report = self.report;
        let files = report.files - report.partitions;
        let (label, mut files) = match report.partitions {
            0 => ("Files", vec![format!("{} read", text::thousands(files))]),
            partitions => {
                let some = [(files, "file"), (partitions, "partition")];
                let some = some.into_iter().filter(|(count, _)| *count > 0);
                let some: Vec<_> = some.map(|(count, noun)| text::counted(count, noun)).collect();
                ("Inputs", vec![format!("{} read", some.join(" and "))])
            }
        };
        for (notes, what) in
            [(&report.skipped, "skipped"), (&report.unreadable, "unreadable"), (&report.damaged, "damaged")]
        {
            if notes.total > 0 {
                files.push(format!("{} {what}", text::thousands(notes.total)));
            }
        }
        rows.row(label, &files.join(", "))?;
        let mut records =
            vec![format!("{} in {}", text::thousands(report.records), text::bytes(report.bytes))];
        for (count, what) in [
            (report.tally.bad, "bad"),
            (report.tally.partial, "damaged but judged"),
            (report.tally.falco_internal, "of Falco about itself"),
            (report.tally.missing_stage, "without stage"),
            (report.tally.missing_version, "without apiVersion"),
            (report.tally.missing_time, "without time"),
        ] {
            if count > 0 {
                records.push(format!("{} {what}", text::thousands(count)));
            }
        }
        if report.empty > 0 {
            records.push(format!("{} without payload", text::counted(report.empty, "message")));
        }
        if report.tally.nuls > 0 {
            records.push(format!("{} of NULs where records may have stood", text::bytes(report.tally.nuls)));
        }
        rows.row("Records", &records.join(", "))?;
        let formats = report.tally.formats.iter();
        let formats = formats.map(|(format, n)| format!("{} {}", words(*format), text::thousands(*n)));
        rows.row("Formats", &formats.collect::<Vec<_>>().join(", "))
    }

    /// What time and which levels the events cover, and what follows for the detectors.
    fn coverage<W: Write>(&self, rows: &mut Rows<'_, W>) -> io::Result<()> {
        let report = self.report;
        if let Some((first, last)) = report.range {
            let (from, to, span) = (text::clock(first), text::clock(last), text::span(last - first));
            rows.row("Time", &format!("{from} to {to} UTC ({span})"))?;
        }
        if !report.gaps.is_empty() {
            let about = if report.gaps_approximate { " (not all may be real)" } else { "" };
            let count = text::counted(report.gaps.len() as u64, "silence");
            rows.row("Gaps", &format!("{count} of more than 5 minutes{about}"))?;
            let mut longest: Vec<_> = report.gaps.iter().collect();
            longest.sort_by_key(|(from, to)| (from - to, *from));
            longest.truncate(SHOWN);
            longest.sort_unstable();
            for (from, to) in longest {
                let (after, until, span) = (text::clock(*from), text::clock(*to), text::span(to - from));
                rows.item(&format!("{after} to {until} ({span})"))?;
            }
            rows.more(report.gaps.len() as u64)?;
        }
        let total: u64 = report.tally.levels.iter().sum();
        let levels = AUDIT_LEVELS.iter().zip(report.tally.levels).filter(|(_, n)| *n > 0);
        let levels: Vec<_> = levels.map(|(name, n)| format!("{name} {}", share(n, total))).collect();
        rows.row("Audit levels", &levels.join(", "))?;
        self.blindness(rows)
    }

    fn blindness<W: Write>(&self, rows: &mut Rows<'_, W>) -> io::Result<()> {
        let blind = self.blind();
        if !blind.is_empty() {
            let count = text::counted(blind.len() as u64, "detector");
            rows.row("Blind", &format!("{count} met events that did not show enough to be judged:"))?;
            let mut families: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for (name, events) in &blind {
                let (family, rest) = name.split_once('/').unwrap_or(("", name));
                families.entry(family).or_default().push(format!("{rest} {}", text::thousands(*events)));
            }
            for (family, names) in families {
                rows.item(&format!("{family}: {}", names.join(", ")))?;
            }
        }
        let silent = self.silent().map(|d| format!("{} ({})", d.name, d.silent.join(", ")));
        let silent: Vec<_> = silent.collect();
        if !silent.is_empty() {
            rows.row("Silent", &format!("for want of a list in the config: {}", silent.join(", ")))?;
        }
        Ok(())
    }

    fn found<W: Write>(&self, rows: &mut Rows<'_, W>) -> io::Result<()> {
        let report = self.report;
        let total: u64 = report.by_level.values().sum();
        let levels = report.by_level.iter().rev().filter(|(_, n)| **n > 0);
        let levels: Vec<_> = levels
            .map(|(level, n)| {
                rows.page.painted(&format!("{} {}", text::thousands(*n), level.name()), level_style(*level))
            })
            .collect();
        let mut notes = Vec::new();
        for (count, what) in [
            (report.duplicates, "found again and not repeated"),
            (report.correlation.late, "too late for their window"),
            (report.correlation.future, "from the future"),
            (report.correlation.evicted, "windows dropped for want of memory"),
        ] {
            if count > 0 {
                notes.push(format!("{} {what}", text::thousands(count)));
            }
        }
        let levels = if levels.is_empty() { String::new() } else { format!(": {}", levels.join(", ")) };
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        rows.raw("Alerts", &format!("{}{levels}{notes}", text::thousands(total)))?;
        // A detector whose alerts have several levels has a row for each.
        let rows_of = report.by_detector.iter();
        let mut detectors: Vec<_> =
            rows_of.map(|((index, level), n)| (self.detector(*index), *level, *n)).collect();
        detectors.sort_by_key(|(detector, level, n)| {
            (std::cmp::Reverse(*level), std::cmp::Reverse(*n), detector.name.clone())
        });
        let width = detectors.iter().map(|(.., n)| text::thousands(*n).len()).max().unwrap_or_default();
        let names = detectors.iter().map(|(detector, ..)| detector.name.chars().count());
        let names_width = names.max().unwrap_or_default().min(40);
        for (Detector { name, title, .. }, level, n) in detectors {
            let n = text::thousands(n);
            rows.listed(&format!("{n:>width$}  {name:<names_width$}  {title}"), level)?;
        }
        Ok(())
    }

    /// Files and records that something is wrong with.
    fn trouble<W: Write>(&self, rows: &mut Rows<'_, W>) -> io::Result<()> {
        let report = self.report;
        for (label, notes) in
            [("Skipped", &report.skipped), ("Unreadable", &report.unreadable), ("Damaged", &report.damaged)]
        {
            if notes.total == 0 {
                continue;
            }
            rows.row(label, &text::counted(notes.total, "input"))?;
            for note in notes.list.iter().take(NOTES) {
                rows.item(&format!("{}: {}", note.input, note.reason))?;
            }
            rows.beyond(notes.total, NOTES)?;
        }
        let unknown = report.tally.formats.get(&Format::Unrecognized).copied().unwrap_or_default();
        if report.tally.bad + unknown > 0 {
            let (bad, unknown) = (text::thousands(report.tally.bad), text::thousands(unknown));
            rows.row(
                "Not judged",
                &format!("{bad} broken or no JSON, {unknown} of another kind, for example"),
            )?;
            for sample in report.tally.samples.iter().take(SHOWN) {
                let Sample { input, offset, length, keys, sha256 } = sample;
                let keys =
                    if keys.is_empty() { "no object".to_owned() } else { format!("keys {}", keys.join(" ")) };
                let hash = sha256.get(..16).unwrap_or(sha256);
                rows.item(&format!("{input}@{offset}, {length} bytes, {keys}, sha256 {hash}"))?;
            }
        }
        Ok(())
    }

    fn detector(&self, index: u32) -> &Detector {
        &self.engine.detectors()[index as usize]
    }

    /// Detectors that could not tell, with the number of events. What only feeds a correlation goes by the correlation's name.
    fn blind(&self) -> BTreeMap<&str, u64> {
        let mut blind = BTreeMap::new();
        for (index, events) in &self.report.tally.blind {
            let detector = self.detector(*index);
            let mut others = self.engine.detectors().iter();
            let public = others.find(|other| {
                detector.hidden && !other.hidden && other.correlation && other.origin == detector.origin
            });
            *blind.entry(public.unwrap_or(detector).name.as_str()).or_default() += *events;
        }
        blind
    }

    /// Detectors that wait for a list.
    fn silent(&self) -> impl Iterator<Item = &Detector> {
        self.engine.detectors().iter().filter(|detector| !detector.silent.is_empty() && !detector.hidden)
    }
}

fn top_json(top: &Top) -> Value {
    let mut names = Vec::new();
    for (name, events) in &top.names {
        let mut entry = json!({"name": name, "events": events});
        if top.approximate {
            entry["approximate"] = json!(true);
        }
        names.push(entry);
    }
    Value::Array(names)
}

/// The format in words.
fn words(format: Format) -> &'static str {
    match format {
        Format::Audit => "audit events",
        Format::AuditList => "audit events in lists",
        Format::AuditCarried => "audit events in log lines",
        Format::Falco => "Falco alerts",
        Format::FalcoCarried => "Falco alerts in lists or log lines",
        Format::LapwingAlert => "own alerts (not judged)",
        Format::Unrecognized => "unrecognised",
    }
}

/// `71 %`, or `0.3 %` where a whole number would say nothing.
fn share(part: u64, total: u64) -> String {
    let percent = part as f64 * 100.0 / total.max(1) as f64;
    if percent >= 1.0 || part == 0 { format!("{percent:.0} %") } else { format!("{percent:.2} %") }
}

/// Lines of label and text, wrapped to the page.
struct Rows<'o, W> {
    page: Page,
    out: &'o mut W,
}

impl<W: Write> Rows<'_, W> {
    fn row(&mut self, label: &str, text: &str) -> io::Result<()> {
        let text = text::for_terminal(text);
        let label = format!("{label:<LABEL$}");
        let indent = " ".repeat(LABEL);
        for (number, line) in self.wrapped(&text, LABEL).enumerate() {
            let head =
                if number == 0 { self.page.painted(&label, Style::new().bold()) } else { indent.clone() };
            writeln!(self.out, "{head}{line}")?;
        }
        Ok(())
    }

    /// A row whose text is ours, colours included.
    fn raw(&mut self, label: &str, text: &str) -> io::Result<()> {
        let label = self.page.painted(&format!("{label:<LABEL$}"), Style::new().bold());
        writeln!(self.out, "{label}{text}")
    }

    fn item(&mut self, text: &str) -> io::Result<()> {
        let text = text::for_terminal(text).into_owned();
        for (number, line) in self.wrapped(&text, LABEL + 2).enumerate() {
            let indent = if number == 0 { LABEL } else { LABEL + 2 };
            writeln!(self.out, "{:indent$}{line}", "")?;
        }
        Ok(())
    }

    /// An item that begins with a level.
    fn listed(&mut self, text: &str, level: Level) -> io::Result<()> {
        let label = self.page.painted(&format!("{:<14}", level.name()), level_style(level));
        let text = text::for_terminal(text);
        let room = self.page.width.map_or(usize::MAX, |width| width.max(50) - LABEL - 14);
        writeln!(self.out, "{:LABEL$}{label}{}", "", text::clipped(&text, room))
    }

    fn wrapped(&self, text: &str, indent: usize) -> impl Iterator<Item = String> + use<W> {
        let width = self.page.width.map_or(usize::MAX, |width| width.max(50) - indent);
        let options = Options::new(width).word_splitter(WordSplitter::NoHyphenation);
        let lines: Vec<_> =
            textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect();
        lines.into_iter()
    }

    fn more(&mut self, total: u64) -> io::Result<()> {
        self.beyond(total, SHOWN)
    }

    fn beyond(&mut self, total: u64, shown: usize) -> io::Result<()> {
        match total.saturating_sub(shown as u64) {
            0 => Ok(()),
            rest => self.item(&format!("and {} more", text::thousands(rest))),
        }
    }

    /// The busiest names with their numbers of events.
    fn top(&mut self, label: &str, top: &Top) -> io::Result<()> {
        if top.names.is_empty() {
            return Ok(());
        }
        let name = |name: &str| {
            if name.is_empty() { "(none)".to_owned() } else { text::clipped(name, LONGEST).into_owned() }
        };
        let names = top.names.iter().take(SHOWN);
        let names: Vec<_> =
            names.map(|(n, events)| format!("{} {}", name(n), text::thousands(*events))).collect();
        let approximate = if top.approximate { " (approximate)" } else { "" };
        self.row(label, &format!("{}{approximate}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use detectors::rules::{self, Tuning};
    use detectors::settings::Settings;
    use detectors::tally::Tally;

    use super::*;
    use crate::source::plan::Note;

    fn engine() -> Engine {
        let settings = Settings::default();
        rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap()
    }

    fn note(input: &str, reason: &str) -> Notes {
        Notes { list: vec![Note { input: input.into(), reason: reason.into() }], total: 1 }
    }

    fn index(engine: &Engine, name: &str) -> u32 {
        engine.detectors().iter().position(|detector| detector.name == name).unwrap() as u32
    }

    fn report(engine: &Engine, name: &str) -> Report {
        let sample = Sample {
            input: name.into(),
            offset: 7,
            length: 12,
            keys: vec![name.into()],
            sha256: "ab".repeat(32),
        };
        let activity = index(engine, "rbac/activity");
        Report {
            files: 2,
            records: 1_005,
            bytes: 2_000_000,
            skipped: note(name, "a copy"),
            damaged: note(name, "truncated"),
            tally: Tally {
                formats: [(Format::Audit, 1_000), (Format::Unrecognized, 2)].into(),
                bad: 3,
                levels: [0, 750, 0, 250, 0],
                blind: [(activity, 5), (index(engine, "secret/_named-read"), 2)].into(),
                samples: vec![sample],
                ..Tally::default()
            },
            range: Some((0, 3_600 * time::SECOND)),
            gaps: vec![(60 * time::SECOND, 960 * time::SECOND)],
            actors: Top { names: vec![(name.into(), 900), (String::new(), 1)], approximate: true },
            by_level: [(Level::High, 2)].into(),
            by_detector: [((activity, Level::Informational), 2)].into(),
            elapsed: std::time::Duration::from_millis(500),
            ..Report::default()
        }
    }

    fn text(engine: &Engine, report: &Report, width: Option<usize>) -> String {
        let mut out = Vec::new();
        let summary = Summary { report, engine, alerts: true };
        summary.text(Page { color: false, width }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_reads_well() {
        let engine = engine();
        let text = text(&engine, &report(&engine, "eve"), None);
        for line in [
            "Files        2 read, 1 skipped, 1 damaged\n",
            "Records      1,005 in 2.0 MB, 3 bad\n",
            "Formats      audit events 1,000, unrecognised 2\n",
            "Time         1970-01-01 00:00:00 to 1970-01-01 01:00:00 UTC (1 h)\n",
            "Gaps         1 silence of more than 5 minutes\n",
            "             1970-01-01 00:01:00 to 1970-01-01 00:16:00 (15 min)\n",
            "Audit levels Metadata 75 %, RequestResponse 25 %\n",
            "             rbac: activity 5\n",
            "             secret: mass-get 2\n",
            "Alerts       2: 2 high\n",
            "Actors       eve 900, (none) 1 (approximate)\n",
            "Damaged      1 input\n             eve: truncated\n",
            "Not judged   3 broken or no JSON, 2 of another kind, for example\n",
            "             eve@7, 12 bytes, keys eve, sha256 abababababababab\n",
            "Took         0.50 s, 4.0 MB/s, 2,010 records/s\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn names_cannot_harm_a_terminal_or_a_line() {
        let engine = engine();
        let report = report(&engine, "e\x1b[2Jve\u{202e}\n\u{9b}x");
        for width in [None, Some(60)] {
            let text = text(&engine, &report, width);
            assert!(text.chars().all(|c| c == '\n' || !text::is_hostile(c)), "{text:?}");
        }
        let json = Summary { report: &report, engine: &engine, alerts: true }.json().unwrap();
        assert!(json.chars().all(|c| !text::is_hostile(c)));
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["actors"][0]["name"], "e\x1b[2Jve\u{202e}\n\u{9b}x");
        assert_eq!(value["blind"]["detectors"]["secret/mass-get"], 2);
    }

    #[test]
    fn lines_fit_the_page() {
        let engine = engine();
        let text =
            text(&engine, &report(&engine, "system:serviceaccount:monitoring:metrics-gateway"), Some(72));
        assert!(text.lines().all(|line| line.chars().count() <= 72), "{text}");
    }
}
