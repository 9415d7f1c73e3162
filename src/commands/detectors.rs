//! `lapwing detectors`: list and show what there is.

use std::io::Write;

use anstyle::Style;
use anyhow::anyhow;
use detectors::engine::Detector;
use detectors::rules::{self, File};
use detectors::sigma::{About, Rules};
use detectors::{facts, level::Level, names};
use serde::Deserialize as _;
use serde_json::{Value, json};
use textwrap::{Options, WordSplitter};

use super::{explain, json_line, lint, out, test};
use crate::cli::{self, CatalogueCommand, Listing, Look};
use crate::exit::{Exit, Failure};
use crate::rules::Wanted;
use crate::sink::{Page, level_style};
use crate::{terminal, text};

/// Columns of prose, where the terminal has them.
const PROSE: usize = 100;

/// Runs one of the commands.
pub(crate) fn run(command: CatalogueCommand, look: Look) -> Result<Exit, Failure> {
    let page = terminal::stdout(look.color);
    let mut out = out();
    let exit = match command {
        CatalogueCommand::List { output, rules } => list(output, &rules, page, &mut out)?,
        CatalogueCommand::Show { name, output, yaml, rules } => {
            let shown = Shown::find(&name, Wanted::read(&rules)?)?;
            match output {
                _ if yaml => write!(out, "{}", shown.file.yaml)?,
                Listing::Pretty => shown.page(page, &mut out)?,
                Listing::Jsonl => json_line(&shown.data()?, &mut out)?,
            }
            Exit::Fine
        }
        CatalogueCommand::Lint { paths, output } => lint::run(&paths, output, page, &mut out)?,
        CatalogueCommand::Test { paths, output } => test::run(&paths, output, page, &mut out)?,
        CatalogueCommand::Facts { output, markdown } => facts(output, markdown, page, &mut out)?,
        CatalogueCommand::Explain { name, event, output, rules } => {
            explain::run(&name, &event, output, &rules, page, &mut out)?
        }
    };
    out.flush()?;
    Ok(exit)
}

fn list(output: Listing, typed: &cli::Rules, page: Page, out: &mut impl Write) -> Result<Exit, Failure> {
    let engine = Wanted::read(typed)?.engine()?;
    // What only feeds a correlation is a part of that, not a detector of its own.
    let mut all: Vec<&Detector> = engine.detectors().iter().filter(|detector| !detector.hidden).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    if output == Listing::Jsonl {
        for detector in all {
            let Detector { name, title, level, tags, origin, correlation, silent, .. } = detector;
            json_line(
                &json!({
                    "name": name, "title": title, "level": level, "tags": tags, "origin": origin,
                    "correlation": correlation, "silent": silent,
                }),
                out,
            )?;
        }
        return Ok(Exit::Fine);
    }
    let width = all.iter().map(|detector| detector.name.chars().count()).max().unwrap_or_default().min(48);
    for detector in &all {
        let level = page.painted(&format!("{:<13}", detector.level), level_style(detector.level));
        let name = text::for_terminal(&detector.name);
        let mut notes = Vec::new();
        if !detector.silent.is_empty() {
            notes.push(format!("silent without the list {}", detector.silent.join(", ")));
        }
        if !detector.origin.starts_with("builtin") {
            notes.push(format!("from {}", detector.origin));
        }
        let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join("; ")) };
        let notes = page.painted(&text::for_terminal(&notes), Style::new().dimmed());
        writeln!(out, "{name:<width$}  {level}  {}{notes}", text::for_terminal(&detector.title))?;
    }
    writeln!(out, "\n{}", text::counted(all.len() as u64, "detector"))?;
    Ok(Exit::Fine)
}

/// A detector and the file that it stands in.
struct Shown {
    about: About,
    /// The levels that its alerts may have instead.
    grades: Vec<Level>,
    file: File,
}

impl Shown {
    fn find(name: &str, wanted: Wanted) -> Result<Shown, Failure> {
        let mut files = rules::catalogue();
        files.extend(wanted.files);
        let Rules { detectors, correlations, .. } = rules::read_whole(&files, &wanted.settings, false);
        let names: Vec<String> = detectors
            .iter()
            .map(|rule| rule.about.name.clone())
            .chain(correlations.iter().map(|rule| rule.about.name.clone()))
            .collect();
        let single = detectors.into_iter().find(|rule| rule.about.name == name);
        let single = single.map(|rule| (rule.about, rule.grades.iter().map(|grade| grade.level).collect()));
        let found = single.or_else(|| {
            let rule = correlations.into_iter().find(|rule| rule.about.name == name)?;
            Some((rule.about, rule.grades.iter().map(|grade| grade.level).collect()))
        });
        let Some((about, grades)) = found else {
            let hint = if name.starts_with("integrity/") {
                "; what is about the evidence itself is no rule (`detectors list` has its title)".to_owned()
            } else {
                names::did_you_mean(name, names.iter().map(String::as_str))
            };
            return Err(Failure::usage(anyhow!("no rule is called `{name}`{hint}")));
        };
        let file = files.into_iter().rfind(|file| *file.name == *about.source);
        let file = file.ok_or_else(|| Failure::usage(anyhow!("`{name}` has no file")))?;
        Ok(Shown { about, grades, file })
    }

    /// The rule as data: the document as it is written, with where it stands.
    fn data(&self) -> Result<Value, Failure> {
        let documents = yaml_serde::Deserializer::from_str(&self.file.yaml);
        let documents = documents.filter_map(|document| {
            let mut document = yaml_serde::Value::deserialize(document).ok()?;
            document.apply_merge().ok()?;
            serde_json::to_value(document).ok()
        });
        let is_it = |document: &Value| {
            let named = document.get("name").and_then(Value::as_str) == Some(&self.about.name);
            named || document.get("title").and_then(Value::as_str) == Some(&self.about.title)
        };
        let mut data = documents
            .into_iter()
            .find(is_it)
            .ok_or_else(|| Failure::detectors(anyhow!("{} is not YAML of one rule", self.file.name)))?;
        data["name"] = json!(self.about.name);
        data["level"] = json!(self.about.level);
        data["origin"] = json!(self.file.name);
        Ok(data)
    }

    fn page(&self, page: Page, out: &mut impl Write) -> Result<(), Failure> {
        let about = &self.about;
        let bold = |text: &str| page.painted(&text::for_terminal(text), Style::new().bold());
        let level = page.painted(about.level.name(), level_style(about.level));
        writeln!(out, "{}  {level}", bold(&about.name))?;
        writeln!(out, "{}\n", text::for_terminal(&about.title))?;
        let width = page.width.unwrap_or(PROSE).clamp(40, PROSE);
        let wrapped = |text: &str, first: &str, rest: &str, out: &mut dyn Write| -> std::io::Result<()> {
            let options = Options::new(width).initial_indent(first).subsequent_indent(rest);
            let safe = text::for_terminal(text);
            for line in textwrap::wrap(&safe, options.word_splitter(WordSplitter::NoHyphenation)) {
                writeln!(out, "{line}")?;
            }
            Ok(())
        };
        for paragraph in about.description.split("\n\n") {
            let words: Vec<_> = paragraph.split_whitespace().collect();
            wrapped(&words.join(" "), "  ", "  ", out)?;
            writeln!(out)?;
        }
        let mut line = |label: &str, text: &str| -> std::io::Result<()> {
            if text.is_empty() {
                return Ok(());
            }
            wrapped(text, &format!("{label:<16}"), &" ".repeat(16), out)
        };
        let grades: Vec<_> = self.grades.iter().map(|level| level.name()).collect();
        line("Also at level", &grades.join(", "))?;
        line("Message", about.message.as_ref().map_or("", |message| message.text()))?;
        line("Tags", &about.tags.join(", "))?;
        line("Status", about.status.as_deref().unwrap_or_default())?;
        line("Author", about.author.as_deref().unwrap_or_default())?;
        line("Id", about.id.as_deref().unwrap_or_default())?;
        line("Origin", &self.file.name)?;
        let tests = about.tests.as_ref().and_then(yaml_serde::Value::as_sequence).map_or(0, Vec::len);
        line("Tests", &tests.to_string())?;
        for (label, items) in [("False positives", &about.falsepositives), ("References", &about.references)]
        {
            if !items.is_empty() {
                writeln!(out, "\n{}", bold(label))?;
                items.iter().try_for_each(|item| wrapped(item.trim(), "  - ", "    ", out))?;
            }
        }
        Ok(())
    }
}

fn facts(output: Listing, markdown: bool, page: Page, out: &mut impl Write) -> Result<Exit, Failure> {
    if markdown {
        write!(out, "{}", facts::reference())?;
        return Ok(Exit::Fine);
    }
    let streams = |fact: &facts::Fact| -> Vec<&str> {
        let name = |stream: &detectors::event::Stream| match stream {
            detectors::event::Stream::Audit => "audit",
            detectors::event::Stream::Falco => "falco",
        };
        fact.streams.iter().map(name).collect()
    };
    if output == Listing::Jsonl {
        for fact in facts::all() {
            json_line(
                &json!({
                    "name": fact.name, "type": fact.kind.name(), "streams": streams(fact),
                    "level": fact.needs.name(), "meaning": fact.doc,
                }),
                out,
            )?;
        }
        return Ok(Exit::Fine);
    }
    let width = facts::all().map(|fact| fact.name.len()).max().unwrap_or_default();
    for (family, of_family) in facts::FAMILIES {
        writeln!(out, "{}", page.painted(family, Style::new().bold()))?;
        for fact in *of_family {
            let head = format!("  {:<width$}  {:<5} {:<16} ", fact.name, fact.kind.name(), fact.needs.name());
            let indent = " ".repeat(head.len());
            let columns = page.width.unwrap_or(usize::MAX).max(head.len() + 40);
            let options = Options::new(columns).initial_indent(&head).subsequent_indent(&indent);
            for line in textwrap::wrap(fact.doc, options.word_splitter(WordSplitter::NoHyphenation)) {
                writeln!(out, "{line}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(Exit::Fine)
}
