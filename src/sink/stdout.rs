//! Standard output: one alert a line.
//!
//! A pipe whose reader is slow blocks the writing thread, not the others. Standard output is at-least-once up to the pipe: what
//! the reader makes of it cannot be known.

use std::io::{self, Write as _};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::encoding::Encoding;
use super::output::output;
use super::transport::{Item, Outcome};

output! {
    /// Standard output, one JSON object a line.
    StdoutOutput {}
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct StdoutSink {
    encoding: Encoding,
    /// The reader has closed the pipe; no other will come.
    gone: bool,
}

impl StdoutSink {
    pub(super) fn new(output: &StdoutOutput) -> StdoutSink {
        StdoutSink { encoding: output.encoding, gone: false }
    }

    /// True if nobody will read standard output again.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) async fn send(&mut self, items: &[Arc<Item>]) -> Vec<Outcome> {
        let lines = self.encoding.lines(items);
        let written = spawn_blocking(move || {
            let mut out = io::stdout().lock();
            out.write_all(&lines).and_then(|()| out.flush())
        });
        match written.await {
            Ok(Ok(())) => Outcome::Accepted,
            Ok(Err(error)) => {
                self.gone |= error.kind() == io::ErrorKind::BrokenPipe;
                Outcome::retry(format!("cannot write to standard output: {error}"))
            }
            Err(error) => Outcome::retry(format!("writing to standard output failed: {error}")),
        }
        .of_all(items.len())
    }
}
