//! Lapwing's pure core: bytes in, alerts out. No files, no network, no clock.

pub mod scan;
