//! The commands.

use std::io::{BufWriter, Stdout, Write, stdout};

use serde::Serialize;

use crate::exit::Failure;

pub(crate) mod config;
pub(crate) mod detectors;
mod explain;
pub(crate) mod inspect;
mod lint;
pub(crate) mod replay;
pub(crate) mod run;
mod test;

/// Standard output, buffered: flush it at the end.
fn out() -> BufWriter<Stdout> {
    BufWriter::with_capacity(64 << 10, stdout())
}

/// Writes one line of JSON.
fn json_line(value: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(std::io::Error::from)?;
    writeln!(out, "{}", crate::text::for_json(&json))?;
    Ok(())
}
