//! Lapwing's pure core: bytes in, alerts out. No files, no network, no clock.

pub mod alert;
pub mod bytes;
pub mod catalog;
pub mod correlate;
pub mod engine;
pub mod event;
pub mod explain;
pub mod facts;
mod index;
pub mod integrity;
mod judge;
pub mod level;
mod literals;
pub mod names;
pub mod percent;
pub mod program;
pub mod redact;
mod report;
pub mod rules;
pub mod scan;
pub mod settings;
pub mod sigma;
pub mod tally;
pub mod testing;
pub mod value;
mod worker;
