//! The fault suite: the real binary is killed, starved, lied to and cut off while events flow, and must lose nothing, make
//! nothing up, and call every alert by the same id. `tests/README.md` says what is covered, how to run the long part, and
//! what came of it.
//!
//! Nothing here knows the inside of the program. Events are written as the API server writes them ([`events`], [`writer`]);
//! alerts are taken by a receiver that remembers what it has seen ([`receiver`]); what should have come is what one clean
//! `replay` of everything that was written says ([`oracle`]).
#![allow(clippy::unwrap_used)] // a test may fail

#[path = "faults/client.rs"]
mod client;
#[path = "faults/cluster.rs"]
mod cluster;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/events.rs"]
mod events;
#[path = "faults/fleet.rs"]
mod fleet;
#[path = "faults/house.rs"]
mod house;
#[path = "faults/intake.rs"]
mod intake;
#[path = "faults/kafka.rs"]
mod kafka;
#[path = "faults/kafka_replay.rs"]
mod kafka_replay;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/oracle.rs"]
mod oracle;
#[path = "faults/outage.rs"]
mod outage;
#[path = "faults/process.rs"]
mod process;
#[path = "faults/receiver.rs"]
mod receiver;
#[path = "faults/running.rs"]
mod running;
#[path = "faults/state.rs"]
mod state;
#[path = "faults/writer.rs"]
mod writer;
