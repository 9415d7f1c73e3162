//! How the program ends.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It ran.
    Fine,
    /// Alerts at or above `--fail-on`, or lint or test failures.
    Alerts,
    /// Detectors can't be loaded.
    Detectors,
    /// Usage or configuration.
    Usage,
    /// An input can't be read, nothing was recognised, or the output can't be written.
    Input,
    /// Damaged input, with `--strict`.
    Damage,
    /// A live run ended with alerts that no output took and that are not kept.
    Undelivered,
    /// Interrupted.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Alerts => 1,
            Exit::Detectors => 2,
            Exit::Usage => 3,
            Exit::Input => 4,
            Exit::Damage => 5,
            Exit::Undelivered => 6,
            Exit::Interrupted => 130,
        })
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How to end.
    pub(crate) exit: Exit,
    /// What to say.
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// Wrong usage or configuration.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Usage, error: error.into() }
    }

    /// Detectors that can't be loaded.
    pub(crate) fn detectors(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Detectors, error: error.into() }
    }

    /// Input that can't be read.
    pub(crate) fn input(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Input, error: error.into() }
    }

    /// True if nobody reads our output any more: no failure of ours.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        let errors = self.error.chain().filter_map(|error| error.downcast_ref::<io::Error>());
        errors.into_iter().any(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Writing to standard output is the one thing that commands do and that can fail with an I/O error of its own.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure {
            exit: Exit::Input,
            error: anyhow::Error::new(error).context("cannot write to standard output"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_told_from_a_full_disk() {
        for (kind, closed) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            assert_eq!(Failure::from(io::Error::from(kind)).is_closed_pipe(), closed);
        }
    }
}
