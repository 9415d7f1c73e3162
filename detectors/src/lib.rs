//! Lapwing's pure core: bytes in, alerts out. No files, no network, no clock.

pub mod alert;
pub mod correlate;
pub mod engine;
pub mod event;
pub mod facts;
pub mod level;
pub mod program;
pub mod scan;
pub mod settings;
pub mod sigma;
pub mod tally;
pub mod value;
