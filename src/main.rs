//! Lapwing: finds what a security engineer must know in Kubernetes audit logs and Falco events.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tracing::level_filters::LevelFilter;

mod cli;
mod commands;
mod config;
mod delivery;
mod exit;
mod interrupt;
mod kafka;
mod lane;
mod live;
mod matches;
mod outputs;
mod pulse;
mod recent;
mod replay;
mod rules;
mod server;
mod sink;
mod source;
mod stream;
mod telemetry;
mod terminal;
mod text;
mod tls;
mod units;
mod view;
mod watch;

use cli::{Cli, Command, Look};
use exit::{Exit, Failure};

/// Also librdkafka's: messages and alerts are made in one thread and dropped in another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and a closed pipe is none either.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Fine }.into();
        }
    };
    log(cli.look, matches!(cli.command, Command::Run(_)));
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_closed_pipe() => Exit::Fine.into(),
        Err(failure) => {
            report(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Replay(replay) => commands::replay::run(&replay, cli.look),
        Command::Run(run) => commands::run::run(&run),
        Command::Inspect(inspect) => commands::inspect::run(&inspect, cli.look),
        Command::Detectors(catalogue) => commands::detectors::run(catalogue.command, cli.look),
        Command::Config(command) => commands::config::run(command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lapwing", &mut script);
            Ok(io::stdout().write_all(&script).map(|()| Exit::Fine)?)
        }
        Command::Version => {
            Ok(writeln!(io::stdout(), "lapwing {}", env!("CARGO_PKG_VERSION")).map(|()| Exit::Fine)?)
        }
    }
}

/// Says on standard error what went wrong. Names in it come from outside.
fn report(failure: &Failure) {
    let mut lines = String::from("error: ");
    for line in failure.to_string().lines() {
        lines.push_str(&text::for_terminal(line));
        lines.push('\n');
    }
    // If nobody listens on standard error, the exit code has to do.
    let _ = io::stderr().write_all(lines.as_bytes());
}

/// Diagnostics go to standard error: warnings, or with `-v` more. A live run also tells of its life, with times.
fn log(look: Look, live: bool) {
    let level = match look {
        Look { quiet: true, .. } => LevelFilter::ERROR,
        Look { verbose: 0, .. } if live => LevelFilter::INFO,
        Look { verbose: 0, .. } => LevelFilter::WARN,
        Look { verbose: 1, .. } => LevelFilter::DEBUG,
        Look { .. } => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        // It would panic where standard error is closed.
        .log_internal_errors(false)
        .init();
}
