//! Steps on their way from one process to another: one record for every match and correlation.
//!
//! The processes may have been started with other detectors, or be of another version: a record names its correlation and the
//! logic of it, and who has another logic under that name does not take it.
//!
//! ```text
//! "lapwing/step" 0 time[8] logic[32] name(n text) step, without its rule
//! ```

use std::collections::HashMap;

use super::step::{self, Packed};
use crate::bytes::{put_number, take_number};
use crate::engine::{RuleTag, Step};
use crate::event::time::Nanos;

/// What a record begins with.
const MAGIC: &[u8] = b"lapwing/step\0";

/// A step for another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The correlation and the group: records with the same key belong to the same correlator. It holds no value that must
    /// not be shown.
    pub key: Vec<u8>,
    /// The step.
    pub value: Vec<u8>,
}

/// Why a record is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stray {
    /// It is none.
    Damaged,
    /// Its correlation is not one of ours, or has another logic here.
    Unknown(String),
}

/// Writes and reads records.
#[derive(Debug)]
pub struct Codec {
    tags: Vec<RuleTag>,
    rules: HashMap<String, u32>,
}

impl Codec {
    /// For the correlations of an engine ([`crate::engine::Engine::correlations`]).
    pub fn new(tags: impl Iterator<Item = RuleTag>) -> Codec {
        let tags: Vec<RuleTag> = tags.collect();
        let rules = tags.iter().zip(0..).map(|(tag, at)| (tag.name.clone(), at)).collect();
        Codec { tags, rules }
    }

    /// The record of a step. None if it is no step of these correlations.
    pub fn pack(&self, step: &Step) -> Option<Record> {
        let packed = Packed::read(&step.bytes)?;
        let tag = self.tags.get(packed.rule as usize)?;
        let mut rest = &step.bytes[..];
        take_number(&mut rest)?;
        let mut value = Vec::with_capacity(MAGIC.len() + 48 + tag.name.len() + rest.len());
        value.extend_from_slice(MAGIC);
        value.extend_from_slice(&step.time.to_le_bytes());
        value.extend_from_slice(&tag.logic);
        put_number(&mut value, tag.name.len() as u64);
        value.extend_from_slice(tag.name.as_bytes());
        value.extend_from_slice(rest);
        let values = step::group_values(packed.group).into_iter();
        let key = std::iter::once(&*tag.name).chain(values).collect::<Vec<_>>().join("\u{1f}");
        Some(Record { key: key.into_bytes(), value })
    }

    /// The step in a record.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub fn unpack(&self, value: &[u8]) -> Result<Step, Stray> {
        let (time, logic, name, rest) = parts(value).ok_or(Stray::Damaged)?;
        let known = self.rules.get(name).filter(|at| self.tags[**at as usize].logic == logic);
        let rule = known.ok_or_else(|| Stray::Unknown(name.to_owned()))?;
        let mut bytes = Vec::with_capacity(rest.len() + 2);
        put_number(&mut bytes, u64::from(*rule));
        bytes.extend_from_slice(rest);
        Packed::read(&bytes).ok_or(Stray::Damaged)?;
        Ok(Step { time, bytes })
    }
}

/// The event time of the step in a record.
pub fn time_of(value: &[u8]) -> Option<Nanos> {
    parts(value).map(|(time, ..)| time)
}

fn parts(value: &[u8]) -> Option<(Nanos, &[u8], &str, &[u8])> {
    let (time, rest) = value.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (logic, mut rest) = rest.split_at_checked(32)?;
    let length = usize::try_from(take_number(&mut rest)?).ok()?;
    let (name, rest) = rest.split_at_checked(length)?;
    Some((Nanos::from_le_bytes(*time), logic, std::str::from_utf8(name).ok()?, rest))
}
