//! Alerts and steps packed into bytes: what threads hand over and what is sorted.

use std::io;

use detectors::engine::{Found, Step};
use detectors::event::time::Nanos;
use uuid::Uuid;

use super::codec;

/// Length of [`first_key`].
pub(crate) const FIRST_KEY: usize = 36;

/// The key by which duplicates meet, the one to keep first: uuid, time, input, and the offset in it, of the message if there is
/// one.
pub(crate) fn first_key(found: &Found, input: usize, message: Option<u64>) -> [u8; FIRST_KEY] {
    let offset = || found.alert.evidence.first().map_or(0, |evidence| evidence.offset);
    let offset = message.unwrap_or_else(offset);
    let mut key = [0; FIRST_KEY];
    key[..16].copy_from_slice(found.alert.uuid.as_bytes());
    key[16..24].copy_from_slice(&time_key(found.time));
    key[24..28].copy_from_slice(&(input as u32).to_be_bytes());
    key[28..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The key of the output: time, uuid.
pub(crate) fn output_key(time: Nanos, uuid: &[u8]) -> Vec<u8> {
    let mut key = time_key(time).to_vec();
    key.extend_from_slice(uuid);
    key
}

/// The output's key made from the first one.
pub(crate) fn output_key_of(first: &[u8]) -> Vec<u8> {
    [&first[16..24], &first[..16]].concat()
}

/// A time as bytes that sort as times do.
pub(crate) fn time_key(time: Nanos) -> [u8; 8] {
    ((time as u64) ^ (1 << 63)).to_be_bytes()
}

/// The time in a key.
pub(crate) fn time_of(key: &[u8]) -> Nanos {
    (u64::from_be_bytes(key[..8].try_into().expect("a key begins with eight bytes of time")) ^ (1 << 63))
        as Nanos
}

/// An alert without its time, which is in the key.
pub(crate) fn pack(found: &Found, into: &mut Vec<u8>) {
    into.extend_from_slice(&found.detector.to_le_bytes());
    codec::write(&found.alert, into);
}

/// The alert that [`pack`] packed.
///
/// # Errors
/// The bytes are no packed alert: the temporary file was damaged.
pub(crate) fn unpack(time: Nanos, bytes: &[u8]) -> io::Result<Found> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a temporary file was damaged");
    let (detector, alert) = bytes.split_first_chunk().ok_or_else(damaged)?;
    let alert = codec::read(alert).map_err(|_| damaged())?;
    Ok(Found { time, detector: u32::from_le_bytes(*detector), alert })
}

/// Alerts and steps one after another.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    alerts: Vec<u8>,
    steps: Vec<u8>,
    /// How many alerts there are.
    pub(crate) count: u64,
}

impl Packed {
    /// Adds an alert from an input, of a message at that offset if it has messages.
    pub(crate) fn push_alert(&mut self, found: &Found, input: usize, message: Option<u64>) {
        self.alerts.extend_from_slice(&first_key(found, input, message));
        let start = self.alerts.len();
        self.alerts.extend_from_slice(&[0; 4]);
        pack(found, &mut self.alerts);
        let length = (self.alerts.len() - start - 4) as u32;
        self.alerts[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
    }

    /// Adds a step.
    pub(crate) fn push_step(&mut self, step: &Step) {
        self.steps.extend_from_slice(&time_key(step.time));
        self.steps.extend_from_slice(&(step.bytes.len() as u32).to_le_bytes());
        self.steps.extend_from_slice(&step.bytes);
    }

    /// The alerts in the order in which they were added: first key, packed alert.
    pub(crate) fn alerts(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        Split { rest: &self.alerts, key: FIRST_KEY }
    }

    /// The steps in the order in which they were added: time key, step.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        Split { rest: &self.steps, key: 8 }
    }

    /// Bytes of memory, roughly.
    pub(crate) fn size(&self) -> usize {
        self.alerts.len() + self.steps.len()
    }
}

/// Keys of fixed length, each followed by the length of its body and the body.
struct Split<'a> {
    rest: &'a [u8],
    key: usize,
}

impl<'a> Iterator for Split<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (key, rest) = self.rest.split_at(self.key);
        let (length, rest) = rest.split_first_chunk().expect("a length stands before each body");
        let (body, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.rest = rest;
        Some((key, body))
    }
}

/// The uuid in a first key.
pub(crate) fn uuid_of(first: &[u8]) -> Uuid {
    Uuid::from_slice(&first[..16]).expect("a key begins with a uuid")
}
