//! Detectors as the command line and the configuration want them: files found and read, problems told, an engine made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use detectors::engine::Engine;
use detectors::event::time::Nanos;
use detectors::level::Level;
use detectors::names;
use detectors::redact::paths::Hidden;
use detectors::rules::{self, Exception, Tuning};
use detectors::settings::Settings;
use detectors::sigma::Problem;

use crate::cli;
use crate::config::Config;
use crate::exit::Failure;
use crate::text;

/// The longest file of rules.
const LONGEST: u64 = 16 << 20;
/// Problems that are shown before the rest is only counted.
const SHOWN: usize = 20;

/// What the command line and the configuration say, and the rules that they name.
pub(crate) struct Wanted {
    /// What facts and programs are told.
    pub(crate) settings: Settings,
    /// What is changed about the detectors.
    tuning: Tuning,
    /// The user's rules.
    pub(crate) files: Vec<rules::File>,
}

impl Wanted {
    /// Reads the configuration and the user's rules.
    pub(crate) fn read(typed: &cli::Rules) -> Result<Wanted, Failure> {
        let config = match &typed.config {
            Some(path) => Config::load(path).map_err(Failure::usage)?,
            None => Config::default(),
        };
        let lists: BTreeMap<_, Vec<_>> = config
            .lists
            .into_iter()
            .map(|(name, entries)| (name, entries.into_iter().map(|entry| entry.0).collect()))
            .collect();
        let cluster = typed.cluster.clone().or(config.cluster.map(|name| name.0));
        let unusable = |reason| Failure::usage(anyhow!("{reason}"));
        let mut settings = Settings::new(cluster, lists).map_err(unusable)?;
        let hidden = config.redact.paths.iter().map(|path| Hidden::new(path));
        settings.hidden = hidden.collect::<Result<_, String>>().map_err(unusable)?;
        let paths: Vec<_> = config.detectors.paths.iter().chain(&typed.detectors).cloned().collect();
        let files = files(&paths).map_err(Failure::detectors)?;
        let exceptions = config.detectors.exceptions.into_iter();
        let tuning = Tuning {
            min_level: config.detectors.min_level,
            disable: config.detectors.disable,
            overrides: config.detectors.overrides.into_iter().map(|o| (o.detector, o.level)).collect(),
            exceptions: exceptions
                .map(|one| Exception { detector: one.detector, when: one.when, until: one.until })
                .collect(),
        };
        Ok(Wanted { settings, tuning, files })
    }

    /// The exceptions that end: globs over detectors, and when.
    pub(crate) fn ending_exceptions(&self) -> Vec<(String, Nanos)> {
        let ends = |one: &Exception| Some((one.detector.clone(), one.until?));
        self.tuning.exceptions.iter().filter_map(ends).collect()
    }

    /// The lowest level that the configuration wants.
    pub(crate) fn min_level(&self) -> Option<Level> {
        self.tuning.min_level
    }

    /// An engine of the catalogue and the user's rules.
    pub(crate) fn engine(self) -> Result<Engine, Failure> {
        let read = rules::read(&self.files, &self.settings);
        let errors = rules::errors(&read);
        if !errors.is_empty() {
            let lines = shown(errors.iter().map(ToString::to_string));
            return Err(Failure::detectors(anyhow!("detectors cannot be loaded\n{}", lines.join("\n"))));
        }
        let place = |problem: &Problem| format!("{}:{}: {}", problem.source, problem.line, problem.reason);
        for warning in shown(read.problems.iter().map(place)) {
            tracing::warn!("{warning}");
        }
        for skipped in &read.skipped {
            tracing::debug!(source = %skipped.source, logsource = skipped.logsource, "not for us");
        }
        for (name, source) in &read.replaced {
            tracing::debug!(name, %source, "replaced");
        }
        if !self.files.is_empty() && read.skipped.len() >= self.files.len() {
            tracing::warn!("none of the rules given are for Kubernetes audit logs or Falco");
        }
        let engine = rules::assemble(read, self.settings, &self.tuning)
            .map_err(|reason| Failure::usage(anyhow!("the configuration cannot be used: {reason}")))?;
        warn(&self.tuning, &engine);
        Ok(engine)
    }
}

/// The first few lines, and how many there are besides.
fn shown(lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = lines.len().saturating_sub(SHOWN);
    lines.take(SHOWN).chain((more > 0).then(|| format!("and {more} more"))).collect()
}

/// Warns of what a configuration says in vain.
fn warn(tuning: &Tuning, engine: &Engine) {
    for problem in tuning.named().filter_map(|glob| unmatched(glob, engine)) {
        tracing::warn!("the configuration says something about detectors, but {problem}");
    }
}

/// What is wrong with a glob over detector names that no name matches.
pub(crate) fn unmatched(glob: &str, engine: &Engine) -> Option<String> {
    let known = || engine.detectors().iter().map(|detector| detector.name.as_str());
    if known().any(|name| names::matches(glob, name)) {
        return None;
    }
    let families: Vec<String> =
        known().filter_map(|name| Some(format!("{}/*", name.split_once('/')?.0))).collect();
    let candidates = known().chain(families.iter().map(String::as_str));
    Some(format!("no detector is called `{glob}`{}", names::did_you_mean(glob, candidates)))
}

/// The rules in files and folders, in the order of the paths, then of the names. What is named twice is read once.
pub(crate) fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<rules::File>> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let metadata =
            fs::metadata(path).with_context(|| format!("cannot read rules from {}", path.display()))?;
        if !metadata.is_dir() {
            if seen.insert(path.clone()) {
                files.push(read(path, None)?);
            }
            continue;
        }
        let mut found = Vec::new();
        collect(path, 0, &mut found)?;
        if found.is_empty() {
            bail!("there is no .yml or .yaml file in {}", path.display());
        }
        found.sort();
        for found in found {
            if seen.insert(found.clone()) {
                files.push(read(&found, Some(path))?);
            }
        }
    }
    Ok(files)
}

/// The rules below a folder. What begins with a dot is not the user's: version control's, an editor's, or the copies that
/// Kubernetes keeps beside the files of a mounted ConfigMap.
fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if depth > 32 {
        bail!("{}: folders are nested too deeply (or a link leads back)", folder.display());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            collect(&path, depth + 1, found)?;
        } else if path.is_file() && path.extension().is_some_and(|end| end == "yml" || end == "yaml") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path, folder: Option<&Path>) -> anyhow::Result<rules::File> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut yaml = String::new();
    file.take(LONGEST + 1)
        .read_to_string(&mut yaml)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if yaml.len() as u64 > LONGEST {
        bail!("{} is longer than {}, which no file of rules is", path.display(), text::bytes(LONGEST));
    }
    let folder = folder.map(|folder| folder.display().to_string());
    Ok(rules::File { name: path.display().to_string(), yaml, folder })
}
