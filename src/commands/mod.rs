//! The commands.

use std::ffi::OsString;
use std::io::{BufWriter, Stdout, Write, stdout};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::exit::Failure;
use crate::live;
use crate::source::kafka::address::Address;
use crate::source::kafka::history::Wanted;
use crate::source::plan::Named;
use crate::text;

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

/// What was typed as inputs. How one logs in where topics are, the configuration says.
fn named<'p>(paths: &'p [OsString], config: Option<&Path>) -> Result<Vec<Named<'p>>, Failure> {
    let now = text::now();
    let one = |path: &'p OsString| match Address::parse(path, now)? {
        None => Ok(Named::Path(path)),
        Some(address) => Ok(Named::Topic(Box::new(wanted(address, config)?))),
    };
    paths.iter().map(one).collect::<anyhow::Result<_>>().map_err(Failure::usage)
}

fn wanted(address: Address, config: Option<&Path>) -> anyhow::Result<Wanted> {
    let found = config.map(|path| live::kafka_input(path, &address)).transpose()?.flatten();
    let typed = address.typed.clone();
    if let (Some(path), None) = (config, &found) {
        let path = path.display();
        tracing::warn!(
            "{path} has no kafka input with the brokers of {typed}: neither a login nor TLS is used"
        );
    }
    Wanted::new(address, found).context(typed)
}

/// Writes one line of JSON.
fn json_line(value: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(std::io::Error::from)?;
    writeln!(out, "{}", text::for_json(&json))?;
    Ok(())
}
