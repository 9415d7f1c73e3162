//! What a live run is told: the sections of the configuration that `replay` does not read, and the flags that stand for them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use detectors::engine::Engine;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::cli;
use crate::config::explained;
use crate::delivery::spool::Limits;
use crate::matches::{self, Matches, Role};
use crate::server::Server;
use crate::sink::Output;
use crate::source::http::HttpConfig;
use crate::source::kafka::address::Address;
use crate::source::{file, kafka, stdin};
use crate::units::Span;

/// Where positions, windows and alerts are kept.
pub(crate) const STATE_DIR: &str = "/var/lib/lapwing";

/// Where events come from.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", expecting = "a map with the `type` of the input")]
pub(crate) enum Input {
    /// Files that are written to: the API server's audit log, Falco's file output.
    File(file::Config),
    /// Standard input, to its end.
    Stdin(stdin::Config),
    /// A listener: the API server's audit webhook, log shippers, Falco, falcosidekick.
    Http(HttpConfig),
    /// Topics of a Kafka cluster.
    Kafka(Box<kafka::Config>),
}

/// The sections of a configuration file that are about a live run.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of settings")]
pub(crate) struct Live {
    /// Where positions, windows and alerts are kept over a restart. One process at a time uses it.
    pub(crate) state_dir: PathBuf,
    /// Which part of the work this process does: `all`, or one of the two roles of a fleet, `detect` or `correlate`.
    pub(crate) role: Role,
    /// The topic by which the two roles work together.
    pub(crate) matches: Option<matches::Config>,
    /// Where events come from.
    pub(crate) inputs: Vec<Input>,
    /// Where alerts go. Without any, they go to standard output.
    pub(crate) outputs: Vec<Output>,
    /// What may wait for an output that is down.
    pub(crate) spool: Limits,
    /// The listener for health, readiness and metrics.
    pub(crate) server: Server,
    /// How long outputs have to deliver what is left when the run is asked to end.
    pub(crate) shutdown_grace: Span,
    #[serde(rename = "cluster", skip_serializing)]
    #[schemars(skip)]
    _cluster: Ignored,
    #[serde(rename = "detectors", skip_serializing)]
    #[schemars(skip)]
    _detectors: Ignored,
    #[serde(rename = "lists", skip_serializing)]
    #[schemars(skip)]
    _lists: Ignored,
    #[serde(rename = "redact", skip_serializing)]
    #[schemars(skip)]
    _redact: Ignored,
}

/// A section that [`crate::config::Config`] reads.
#[derive(Debug, Clone, Default, PartialEq)]
struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Ignored, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Ignored)
    }
}

impl Default for Live {
    fn default() -> Live {
        Live {
            state_dir: PathBuf::from(STATE_DIR),
            role: Role::All,
            matches: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            spool: Limits::default(),
            server: Server::default(),
            shutdown_grace: Span(std::time::Duration::from_secs(20)),
            _cluster: Ignored,
            _detectors: Ignored,
            _lists: Ignored,
            _redact: Ignored,
        }
    }
}

impl Input {
    /// The name, given or by default.
    pub(crate) fn name(&self) -> String {
        match self {
            Input::File(file) => file.name().to_owned(),
            Input::Stdin(stdin) => stdin.name.clone(),
            Input::Http(http) => http.name.clone(),
            Input::Kafka(kafka) => kafka.name.clone(),
        }
    }
}

impl Input {
    /// One line for a person.
    pub(crate) fn describe(&self) -> String {
        let name = self.name();
        match self {
            Input::File(file) => {
                let paths: Vec<&str> = file.paths.iter().map(|path| path.0.as_str()).collect();
                format!("{name}: file {}", paths.join(", "))
            }
            Input::Stdin(_) => format!("{name}: standard input"),
            Input::Http(http) => format!("{name}: http {}{}", http.listen.0, http.path),
            Input::Kafka(kafka) => {
                let topics: Vec<&str> = kafka.topics.iter().map(|topic| topic.0.as_str()).collect();
                format!("{name}: kafka {}, {}", kafka.bootstrap_servers.0, topics.join(", "))
            }
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Input::File(file) => file.check(),
            Input::Stdin(_) => Ok(()),
            Input::Http(http) => http.check().map(|_| ()),
            Input::Kafka(kafka) => kafka.check(),
        }
    }
}

impl Live {
    /// What the configuration file and the flags say together: flags add inputs and outputs, and replace single values.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    pub(crate) fn read(typed: &cli::Run) -> Result<Live> {
        let mut live = match &typed.config {
            Some(path) => Live::load(path)?,
            None => Live::default(),
        };
        for path in &typed.file {
            live.inputs.push(if path == "-" {
                Input::Stdin(stdin::Config::default())
            } else {
                Input::File(file::Config { from: typed.from.into(), ..file::Config::of(path) })
            });
        }
        for address in &typed.listen {
            let name = format!("http-{address}");
            live.inputs.push(Input::Http(HttpConfig {
                insecure: typed.insecure,
                ..HttpConfig::new(&name, address)
            }));
        }
        for (nth, url) in typed.forward.iter().enumerate() {
            live.outputs.push(Output::forward(url, nth)?);
        }
        if let Some(role) = typed.role {
            live.role = role;
        }
        if let Some(directory) = &typed.state_dir {
            live.state_dir.clone_from(directory);
        }
        if live.outputs.is_empty() || typed.stdout {
            live.outputs.push(Output::stdout());
        }
        live.check()?;
        if let (Role::Correlate, Some(matches)) = (live.role, &live.matches) {
            live.inputs = vec![Input::Kafka(Box::new(matches.input()))];
        }
        Ok(live)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or says what is not understood: where, and what was probably meant.
    pub(crate) fn load(path: &Path) -> Result<Live> {
        let yaml =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.display().to_string();
        yaml_serde::from_str(&yaml).map_err(|error| anyhow!(explained(&name, &error)))
    }

    /// What is wrong with it as a whole.
    ///
    /// # Errors
    /// What, and what to write instead.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(matches) = &self.matches {
            matches.check()?;
        }
        if self.role != Role::All && self.matches.is_none() {
            bail!(
                "role {} needs the topic of matches: write `matches: {{bootstrap_servers: broker-1:9092, topic: lapwing-matches}}`",
                self.role.name()
            );
        }
        if self.inputs.is_empty() && self.role != Role::Correlate {
            bail!("no input is named: use --file PATH, --listen ADDRESS or `inputs` in a configuration file");
        }
        self.check_paths()?;
        unique("inputs", self.inputs.iter().map(Input::name))?;
        unique("outputs", self.outputs.iter().map(Output::name))?;
        self.inputs.iter().try_for_each(Input::check)?;
        let stdin = |input: &&Input| matches!(input, Input::Stdin(_));
        if self.inputs.iter().filter(stdin).count() > 1 {
            bail!("standard input can be read by one input only");
        }
        if self.outputs.iter().filter(|output| matches!(output, Output::Stdout(_))).count() > 1 {
            bail!("standard output can be written by one output only");
        }
        Ok(())
    }
}

impl Live {
    /// What a reload cannot change.
    pub(crate) fn fixed(&self) -> Live {
        Live { outputs: Vec::new(), shutdown_grace: Live::default().shutdown_grace, ..self.clone() }
    }

    /// The way into the topic of matches, if this process does not do everything by itself.
    ///
    /// # Errors
    /// A setting is wrong, or a file cannot be read.
    pub(crate) fn way_of_matches(&self) -> Result<Option<Matches>> {
        self.matches.as_ref().filter(|_| self.role != Role::All).map(Matches::new).transpose()
    }

    /// In the two roles, no process sees all events, so none knows a time before which nothing can come any more.
    ///
    /// # Errors
    /// A correlation waits for that, and this is a file of such roles.
    pub(crate) fn check_detectors(&self, engine: &Engine) -> Result<()> {
        let waiting: Vec<&str> = if self.matches.is_some() { engine.waiting().collect() } else { Vec::new() };
        let Some(first) = waiting.first() else { return Ok(()) };
        let (more, also) = match waiting.len() - 1 {
            0 => (String::new(), ""),
            more => (format!(", and {more} more"), " each of them"),
        };
        bail!(
            "`{first}`{more}: a condition that can become false again (lt, lte, eq, neq, not) needs one process that sees all \
             events, and `matches` names the topic of several: disable{also} under `detectors.disable`, or run it in a process \
             with role all and without `matches`"
        )
    }

    /// Reads the certificates, keys and tokens of the inputs, as the start does. Those of outputs are read where outputs are
    /// built.
    ///
    /// # Errors
    /// What cannot be used, and the key that names it.
    pub(crate) fn check_keys(&self) -> Result<()> {
        let intakes = self.inputs.iter().filter_map(|input| match input {
            Input::Http(intake) => Some(intake),
            Input::File(_) | Input::Stdin(_) | Input::Kafka(_) => None,
        });
        intakes.into_iter().try_for_each(HttpConfig::check_keys)
    }

    /// No file is read twice, which would judge every event twice, none written by two, and none read that is written.
    fn check_paths(&self) -> Result<()> {
        let mut seen: HashMap<PathBuf, String> = HashMap::new();
        for (place, path) in self.files() {
            if let Some(other) = seen.insert(real(path), place.clone()) {
                bail!(
                    "{place}: {} is the file of {other} as well: name it in one place only",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// The files that are read and written, and where the configuration names them. The paths of one input are its own to
    /// compare.
    fn files(&self) -> impl Iterator<Item = (String, &Path)> {
        let read = self.inputs.iter().enumerate().flat_map(|(nth, input)| {
            let paths = if let Input::File(file) = input { file.paths.as_slice() } else { &[] };
            let place = move |at| format!("inputs[{nth}].paths[{at}]");
            paths.iter().enumerate().map(move |(at, path)| (place(at), Path::new(&path.0)))
        });
        let written = self.outputs.iter().enumerate().filter_map(|(nth, output)| match output {
            Output::File(file) => Some((format!("outputs[{nth}].path"), file.path.as_path())),
            _ => None,
        });
        read.chain(written)
    }
}

/// Where a path leads, as far as it is there yet.
fn real(path: &Path) -> PathBuf {
    let whole = path.canonicalize().ok();
    let beside = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    whole.or_else(beside).or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

/// The section of a configuration file that a replay of topics reads. What else stands there is not looked at: variables of the
/// environment that outputs want need not be set.
#[derive(Deserialize)]
struct Inputs {
    #[serde(default)]
    inputs: Vec<Input>,
}

/// The Kafka input of a configuration file that has these brokers, best with this topic: it says how one logs in there.
///
/// # Errors
/// The file cannot be read, or says what is not understood.
pub(crate) fn kafka_input(path: &Path, address: &Address) -> Result<Option<kafka::Config>> {
    let yaml = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.display().to_string();
    let all: Inputs = yaml_serde::from_str(&yaml).map_err(|error| anyhow!(explained(&name, &error)))?;
    let mut same = Vec::new();
    for input in all.inputs {
        if let Input::Kafka(kafka) = input
            && address.is_of(&kafka.bootstrap_servers.0)
        {
            same.push(*kafka);
        }
    }
    let reads = |kafka: &kafka::Config| kafka.topics.iter().any(|topic| topic.0 == address.topic);
    let best = same.iter().position(reads).unwrap_or(0);
    Ok(same.into_iter().nth(best))
}

fn unique(section: &str, names: impl Iterator<Item = String>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            bail!("{section}: two are called `{name}`: give each a `name` of its own");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is said of inputs and outputs that name files in a folder, which stands for `DIR`. Nothing: all is well.
    fn check(yaml: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("there.log"), "").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        let shown = folder.path().display().to_string();
        let live: Live = yaml_serde::from_str(&yaml.replace("DIR", &shown)).unwrap();
        let said = live.check().err().map(|error| error.to_string().replace(&shown, "DIR"));
        assert_eq!(said.as_deref().unwrap_or_default(), expected, "{yaml}");
    }

    #[test]
    fn a_file_has_one_place() {
        check(
            "inputs: [{type: file, paths: [DIR/a.log]}, {type: file, paths: [DIR/b.log, DIR/a.log]}]",
            "inputs[1].paths[1]: DIR/a.log is the file of inputs[0].paths[0] as well: name it in one place only",
        );
        check(
            "inputs: [{type: stdin}, {type: file, paths: [DIR/there.log]}]\n\
             outputs: [{type: stdout}, {type: file, path: DIR/link/there.log}]",
            "outputs[1].path: DIR/link/there.log is the file of inputs[1].paths[0] as well: name it in one place only",
        );
        check(
            "inputs: [{type: stdin}]\n\
             outputs: [{type: file, name: a, path: DIR/a.jsonl}, {type: file, name: b, path: DIR/link/../a.jsonl}]",
            "",
        );
        check(
            "inputs: [{type: stdin}]\n\
             outputs: [{type: file, name: a, path: DIR/a.jsonl}, {type: file, name: b, path: DIR/link/a.jsonl}]",
            "outputs[1].path: DIR/link/a.jsonl is the file of outputs[0].path as well: name it in one place only",
        );
        check(
            "inputs: [{type: file, paths: [DIR/a.log, DIR/b.log]}]\noutputs: [{type: file, path: DIR/a.jsonl}]",
            "",
        );
    }

    #[test]
    fn a_topic_is_read_as_the_input_with_its_brokers_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lapwing.yaml");
        let check = |yaml: &str, typed: &str, expected: Result<Option<&str>, &str>| {
            fs::write(&path, yaml).unwrap();
            let address = Address::parse(std::ffi::OsStr::new(typed), 0).unwrap().unwrap();
            match (kafka_input(&path, &address), expected) {
                (Ok(found), Ok(name)) => {
                    assert_eq!(found.map(|input| input.name).as_deref(), name, "{typed}");
                }
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{error}"),
                (found, _) => panic!("{typed}: {found:?}"),
            }
        };
        let yaml = "cluster: prod\noutputs: [{type: http, url: '${LAPWING_NO_SUCH}'}]\ninputs:\n\
            - {type: stdin}\n\
            - {type: kafka, name: one, bootstrap_servers: 'a:1,b:1', topics: [t]}\n\
            - {type: kafka, name: two, bootstrap_servers: 'A:1, b:1', topics: [u, v]}\n";
        check(yaml, "kafka://a:1/t", Ok(Some("one")));
        check(yaml, "kafka://b:1,a:1/v", Ok(Some("two")));
        check(yaml, "kafka://b:1/w", Ok(Some("one")));
        check(yaml, "kafka://a:1,c:1/t", Ok(None));
        check(yaml, "kafka://a/t", Ok(None));
        check("cluster: prod", "kafka://a/t", Ok(None));
        check("inputs: [{type: kafka, bootstrap_server: a}]", "kafka://a/t", Err("unknown field"));
        check(
            "inputs: [{type: kafka, bootstrap_servers: '${LAPWING_NO_SUCH}', topics: [t]}]",
            "kafka://a/t",
            Err("no variable"),
        );
    }
}
