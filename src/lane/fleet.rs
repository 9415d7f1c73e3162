//! The two halves of a lane, where they are two processes: matches that go to others, and those that come from them.

use std::time::Duration;

use detectors::correlate::Correlator;
use detectors::correlate::record::{Record as Match, Stray};

use super::{DEAD_LETTERS, Judging, Lane, Of, PATIENCE, Parts, SHORTEST, Yield, stopped};
use crate::delivery::dead::Rejected;
use crate::server::Readiness;
use crate::source::Handled;
use crate::source::kafka::Gathered;
use crate::text::clipped;

#[cfg(test)]
mod tests;

/// What is told of a name that another process wrote.
const NAME: usize = 100;
/// A lane that waits for the brokers still lives.
const ALIVE: Duration = Duration::from_secs(1);

impl Lane {
    /// Counts matches, each of which is a message. Those that were handled before fill the windows and raise nothing.
    pub(super) fn correlate(
        &mut self,
        judging: &Judging,
        correlator: &mut Correlator,
        of: &Of<'_>,
        gathered: &Gathered,
        done: &mut Yield,
    ) -> Handled {
        let Gathered { bytes, messages } = gathered;
        let (mut alerts, mut latest, mut bad) = (Vec::new(), None, 0);
        // What another partition still holds is not late because this one is ahead.
        correlator.hold(self.behind());
        for message in messages {
            match self.codec.unpack(&bytes[message.range()]) {
                Ok(step) => {
                    latest = latest.max(Some(step.time));
                    let raised = alerts.len();
                    correlator.push(&step, &mut alerts);
                    let derived = correlator.take_derived();
                    if message.again {
                        derived.for_each(drop);
                        alerts.truncate(raised);
                    } else {
                        done.matches.extend(derived.filter_map(|step| self.codec.pack(&step)));
                    }
                }
                Err(_) if message.again => {}
                Err(stray) => {
                    bad += 1;
                    let telemetry = &self.parts.telemetry;
                    if bad > DEAD_LETTERS as u64 {
                        telemetry.input_dead_letters_dropped(of.input, 1);
                        continue;
                    }
                    done.rejected.push(rejected(of, message.offset, &bytes[message.range()], stray));
                }
            }
        }
        let records = messages.iter().filter(|message| !message.again).count() as u64;
        self.heard(of, records, latest);
        let telemetry = &self.parts.telemetry;
        telemetry.records(of.input, "match", records - bad);
        telemetry.bad(of.input, bad);
        telemetry.bytes(of.input, bytes.len() as u64);
        for found in &alerts {
            self.keep(judging, found, &mut done.record);
        }
        Handled { records: records - bad, bad }
    }

    /// Writes matches for those who count them, however long that takes. False if the run ends first.
    pub(super) async fn write(&mut self, mut matches: Vec<Match>) -> bool {
        let Parts { matches: Some(topic), telemetry, heartbeat, readiness, stop, .. } = &mut self.parts
        else {
            return true;
        };
        let (mut pause, mut stop, written) = (SHORTEST, stop.clone(), matches.len() as u64);
        while !matches.is_empty() {
            let mut alive = tokio::time::interval(ALIVE);
            let mut putting = std::pin::pin!(topic.put(std::mem::take(&mut matches)));
            let refused = loop {
                tokio::select! {
                    refused = &mut putting => break refused,
                    _ = alive.tick() => heartbeat.touch(),
                    () = stopped(&mut stop) => {
                        self.given_up = true;
                        return false;
                    }
                }
            };
            readiness.set(Readiness::MATCHES, refused.is_none());
            if let Some((left, reason)) = refused {
                telemetry.matches_refused(&reason);
                telemetry.backpressure(pause);
                matches = left;
                tokio::select! {
                    () = stopped(&mut stop) => {
                        self.given_up = true;
                        return false;
                    }
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(PATIENCE),
                }
            }
        }
        telemetry.matches_written(written);
        true
    }
}

/// A message that is no match of ours.
fn rejected(of: &Of<'_>, offset: u64, bytes: &[u8], stray: Stray) -> Rejected {
    let reason = match stray {
        Stray::Damaged => "not a match".into(),
        Stray::Unknown(name) => {
            let name = clipped(&name, NAME);
            format!("a match of {name}, which this member lacks, or of which it has another logic").into()
        }
    };
    Rejected {
        input: of.input.to_string(),
        stream: of.clock.to_string(),
        offset,
        length: bytes.len() as u64,
        reason,
        sha256: None,
        bytes: bytes.to_vec(),
    }
}
