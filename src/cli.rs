//! What was typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use detectors::event::time::Nanos;
use detectors::level::Level;

use crate::matches::Role;
use crate::source::file;
use crate::text;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  lapwing inspect evidence/                      what have I got, and what can it not show?
  lapwing replay evidence/                       alerts in time order, then a summary
  lapwing replay evidence/ --min-level high --since 2026-02-27 --until 2026-03-02
  zcat audit.log.gz | lapwing replay - | jq .    JSON lines when piped
  lapwing detectors show rbac/cluster-admin-binding

Exit status:
  0    it ran
  1    alerts at or above --fail-on; lint or test failures
  2    detectors can't be loaded
  3    usage or configuration
  4    an input can't be read, or nothing in it was recognised
  5    damaged input, with --strict
  130  interrupted (the summary is printed)";

/// Finds what a security engineer must know in Kubernetes audit logs and Falco events.
#[derive(Debug, Parser)]
#[command(name = "lapwing", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) look: Look,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the program looks while it works.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Look {
    /// Colours: NO_COLOR and CLICOLOR_FORCE are respected unless this says otherwise
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true, display_order = 100)]
    pub(crate) color: When,
    /// No progress, no summary, no warnings: alerts and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 101)]
    pub(crate) quiet: bool,
    /// Say more about what is going on, on standard error
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 102)]
    pub(crate) verbose: u8,
}

/// When something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    // On a terminal.
    Auto,
    // Always.
    Always,
    // Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Judge audit logs and Falco events that lie in files or in topics
    Replay(Box<Replay>),
    /// Watch live logs and forward alerts: tail files, take HTTP, lose nothing
    Run(Box<Run>),
    /// Say what files and topics hold, and which detectors they leave blind
    Inspect(Inspect),
    /// List, read, check and try out detectors
    Detectors(Catalogue),
    /// Check and show configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

const REPLAY_EXAMPLES: &str = "\
Examples:
  lapwing replay evidence/
  lapwing replay 'logs/audit-*.log.gz' --min-level medium --skip-detector 'recon/*'
  lapwing replay audit.log --user 'system:serviceaccount:ci:*' --output csv > ci.csv
  lapwing replay audit.log --fail-on high --summary json 2> summary.json
  lapwing replay 'kafka://broker:9092/k8s-audit?since=2026-03-01T10:00:00Z' -c lapwing.yaml

A topic is read from its first message, or the first written at `since` or later, to where
it ends now, or before `until`; `partition=0,3` reads these only. These times are of messages,
--since and --until are about events. No group is joined. Login and TLS are those of the
`kafka` input with the same brokers in the configuration.

Standard output carries alerts and nothing else; progress and summary go to standard error.
Times without a zone are UTC; --since is included, --until is not. -2h counts back from now.";

#[derive(Debug, Args)]
#[command(after_help = REPLAY_EXAMPLES)]
pub(crate) struct Replay {
    /// Files, directories (with all below), patterns, kafka://BROKER/TOPIC, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,
    /// Form of the alerts [default: pretty on a terminal, else jsonl]
    #[arg(long, value_name = "FORM")]
    pub(crate) output: Option<Output>,
    /// Order of the alerts: by event time when all is read, or as they are found
    #[arg(long, value_name = "ORDER", default_value = "time")]
    pub(crate) order: Order,
    /// Form of the summary on standard error
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) summary: Summary,
    /// Judge events from this time on (2026-03-01T10:00:00Z, 2026-03-01, "2026-03-01 10:00", -2h, epoch seconds)
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub(crate) since: Option<Nanos>,
    /// Judge events before this time
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub(crate) until: Option<Nanos>,
    /// Show alerts of this level and above: informational, low, medium, high, critical
    #[arg(long, value_name = "LEVEL")]
    pub(crate) min_level: Option<Level>,
    /// Show alerts of these detectors only (glob; repeatable)
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub(crate) detector: Vec<String>,
    /// Leave out alerts of these detectors (glob; repeatable)
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub(crate) skip_detector: Vec<String>,
    /// Show alerts about these users only, impersonated ones included (glob; repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) user: Vec<String>,
    /// Show alerts in these namespaces only (glob; repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) namespace: Vec<String>,
    #[command(flatten)]
    pub(crate) rules: Rules,
    /// Exit with status 1 if an alert of this level or above is shown
    #[arg(long, value_name = "LEVEL")]
    pub(crate) fail_on: Option<Level>,
    /// Exit with status 5 if anything was damaged or no JSON
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) work: Work,
}

const RUN_EXAMPLES: &str = "\
Examples:
  lapwing run -c /etc/lapwing/lapwing.yaml
  lapwing run --file /var/log/kubernetes/audit/audit.log --forward http://falcosidekick:2801
  lapwing run --listen 127.0.0.1:9765 --stateless
  kubectl logs -f kube-apiserver | lapwing run --file - --stateless

Without --forward or outputs in the configuration, alerts go to standard output, one JSON object a line.

Exit status:
  0  it ended in order: after SIGTERM or SIGINT, or at the end of standard input
  2  detectors can't be loaded
  3  usage or configuration; the state directory is in use
  6  alerts were left undelivered and are lost, because there is no state directory";

#[derive(Debug, Clone, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Follow this file through its rotations; - for standard input (repeatable)
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<String>,
    /// Take audit webhooks and log shippers' posts at this address, such as 127.0.0.1:9765 (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Post alerts one by one to falcosidekick or any webhook (repeatable)
    #[arg(long, value_name = "URL")]
    pub(crate) forward: Vec<String>,
    /// Write alerts to standard output too
    #[arg(long)]
    pub(crate) stdout: bool,
    /// Where a file without a checkpoint begins: checkpoint (at its end), start or end
    #[arg(long, value_name = "WHERE", default_value = "checkpoint")]
    pub(crate) from: From,
    /// Which part of the work this process does; detect and correlate need `matches` in the configuration [default: all]
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<Role>,
    /// Keep positions, windows and alerts here [default: /var/lib/lapwing]
    #[arg(long, value_name = "DIR", conflicts_with = "stateless")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep nothing on disk: what is under way when the process ends is lost
    #[arg(long)]
    pub(crate) stateless: bool,
    /// Listen beyond loopback without TLS and authentication
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Load everything, connect to nothing, say what would run, and end
    #[arg(long)]
    #[allow(clippy::struct_field_names)] // the flag's name
    pub(crate) dry_run: bool,
    /// Add the Sigma rules in this file or folder; the same name replaces (repeatable)
    #[arg(long, value_name = "PATH")]
    pub(crate) detectors: Vec<PathBuf>,
    /// The cluster's name, to be stamped on alerts
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

/// Where a file begins that has no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    // Where the last run ended, else at its end
    Checkpoint,
    // At its start
    Start,
    // At its end
    End,
}

impl std::convert::From<From> for file::From {
    fn from(typed: From) -> file::From {
        match typed {
            From::Checkpoint => file::From::Checkpoint,
            From::Start => file::From::Start,
            From::End => file::From::End,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file, its detectors and its secrets, and say what is wrong
    Check {
        /// The file
        #[arg(value_name = "FILE", default_value = "/etc/lapwing/lapwing.yaml")]
        file: PathBuf,
    },
    /// Print the configuration that is in force: what the file says, and the defaults. Secrets are not shown
    Show {
        /// The file
        #[arg(value_name = "FILE", default_value = "/etc/lapwing/lapwing.yaml")]
        file: PathBuf,
    },
    /// Print the JSON Schema of configuration files
    Schema,
}

/// Which detectors, and what they are told.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Rules {
    /// Add the Sigma rules in this file or folder; the same name replaces (repeatable)
    #[arg(long, value_name = "PATH")]
    pub(crate) detectors: Vec<PathBuf>,
    /// Read exceptions, levels and lists from this file, and how to log in to the brokers of topics
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cluster's name, to be stamped on alerts
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

/// How the work is done.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Work {
    /// Threads that judge [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) threads: Option<u16>,
    /// No progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// Form of the alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    // For a person
    Pretty,
    // One JSON object a line
    Jsonl,
    // For a spreadsheet
    Csv,
}

/// Order of the alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    // By event time, printed when all is read
    Time,
    // As they are found
    Input,
}

/// Form of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Summary {
    // For a person
    Text,
    // One JSON object
    Json,
    // None
    None,
}

/// Form of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    // For a person
    Pretty,
    // One JSON object a line
    Jsonl,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Files, directories (with all below), patterns, kafka://BROKER/TOPIC, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,
    /// Form of the report
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    pub(crate) output: Listing,
    #[command(flatten)]
    pub(crate) rules: Rules,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Catalogue {
    #[command(subcommand)]
    pub(crate) command: CatalogueCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogueCommand {
    /// List the detectors
    List {
        /// Form of the listing
        #[arg(long, value_name = "FORM", default_value = "pretty")]
        output: Listing,
        #[command(flatten)]
        rules: Rules,
    },
    /// Say what a detector sees, why it matters, what it misses and what to check first
    Show {
        /// Its name (family/name)
        name: String,
        /// Form of the page
        #[arg(long, value_name = "FORM", default_value = "pretty", conflicts_with = "yaml")]
        output: Listing,
        /// Print the rule as it is written
        #[arg(long)]
        yaml: bool,
        #[command(flatten)]
        rules: Rules,
    },
    /// Check the built-in detectors and those in files and folders
    Lint {
        /// Files and folders of rules
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Form of the problems
        #[arg(long, value_name = "FORM", default_value = "pretty")]
        output: Listing,
    },
    /// Run the detectors' own tests
    Test {
        /// Files and folders of rules [default: the built-in detectors]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Form of the results
        #[arg(long, value_name = "FORM", default_value = "pretty")]
        output: Listing,
    },
    /// List the facts that detectors are written in
    Facts {
        /// Form of the listing
        #[arg(long, value_name = "FORM", default_value = "pretty")]
        output: Listing,
        /// Write the reference page
        #[arg(long, conflicts_with = "output")]
        markdown: bool,
    },
    /// Show how a detector judges an event, step by step
    Explain {
        /// The detector's name (family/name)
        name: String,
        /// The event: a file, or - for standard input
        #[arg(long, value_name = "FILE")]
        event: PathBuf,
        /// Form of the trace
        #[arg(long, value_name = "FORM", default_value = "pretty")]
        output: Listing,
        #[command(flatten)]
        rules: Rules,
    },
}

fn moment(typed: &str) -> Result<Nanos, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    text::moment(typed, now.as_nanos() as Nanos)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn replay_has_these_flags_and_no_other() {
        let mut command = Cli::command();
        command.build();
        let replay = command.find_subcommand("replay").unwrap();
        let mut flags: Vec<_> = replay.get_arguments().filter_map(clap::Arg::get_long).collect();
        flags.sort_unstable();
        let expected = [
            "cluster",
            "color",
            "config",
            "detector",
            "detectors",
            "fail-on",
            "help",
            "min-level",
            "namespace",
            "no-progress",
            "order",
            "output",
            "quiet",
            "since",
            "skip-detector",
            "strict",
            "summary",
            "threads",
            "until",
            "user",
            "verbose",
        ];
        assert_eq!(flags, expected);
    }

    #[test]
    fn spans_back_from_now_may_be_typed_without_an_equals_sign() {
        let cli =
            Cli::try_parse_from(["lapwing", "replay", "x", "--since", "-2h", "--until", "now"]).unwrap();
        let Command::Replay(replay) = cli.command else { panic!("not a replay") };
        assert_eq!((replay.until.unwrap() - replay.since.unwrap()) / 1_000_000_000 / 60, 120);
    }
}
