//! How far the outputs are behind, for those who wait for them.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Entry;
use crate::units::Size;

/// What the log holds for one output.
#[derive(Debug)]
pub(crate) struct Spool {
    /// The output's name.
    pub(crate) output: String,
    limits: Limits,
    /// Bytes and number of alerts that the output has not done with.
    /// For a moment below zero when the output was faster than whoever counts what came.
    bytes: AtomicI64,
    alerts: AtomicI64,
    /// Every record up to this one is done with.
    passed: AtomicU64,
    /// An alert about its being full has been raised.
    told: AtomicBool,
    /// The output's receiver will never be there again.
    gone: AtomicBool,
}

/// The section `spool`: what the log may hold for each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of `max_bytes` and `on_full`")]
pub(crate) struct Limits {
    /// Bytes of alerts that may wait for one output.
    pub(crate) max_bytes: Size,
    /// What happens when that is reached: `block` stops reading the inputs, `drop_oldest` gives up the oldest alerts, which
    /// are counted.
    pub(crate) on_full: OnFull,
}

/// What happens when a spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnFull {
    /// Inputs are not read until there is room.
    Block,
    /// The oldest alerts are dropped, counted and told of.
    DropOldest,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_bytes: Size(2 << 30), on_full: OnFull::Block }
    }
}

impl Spool {
    /// A spool in which so much waits already.
    pub(crate) fn new(output: &str, limits: Limits, bytes: u64, alerts: u64, passed: u64) -> Arc<Spool> {
        Arc::new(Spool {
            output: output.to_owned(),
            limits,
            bytes: AtomicI64::new(bytes as i64),
            alerts: AtomicI64::new(alerts as i64),
            passed: AtomicU64::new(passed),
            told: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        })
    }

    /// Alerts have come.
    fn grown(&self, bytes: u64, alerts: u64) {
        self.bytes.fetch_add(bytes as i64, Ordering::Relaxed);
        self.alerts.fetch_add(alerts as i64, Ordering::Relaxed);
    }

    /// The output has done with alerts, and with every record up to one.
    pub(crate) fn done(&self, bytes: u64, alerts: u64, passed: u64) {
        self.bytes.fetch_sub(bytes as i64, Ordering::Relaxed);
        self.alerts.fetch_sub(alerts as i64, Ordering::Relaxed);
        self.passed.fetch_max(passed, Ordering::Relaxed);
    }

    /// Every record up to this one is done with.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Bytes and number of alerts that wait.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed).max(0) as u64, self.alerts.load(Ordering::Relaxed).max(0) as u64)
    }

    /// Bytes of the oldest alerts that the output is to give up.
    pub(crate) fn excess(&self) -> u64 {
        match self.limits.on_full {
            OnFull::Block => 0,
            OnFull::DropOldest => self.waiting().0.saturating_sub(self.limits.max_bytes.0),
        }
    }

    /// True if the output's receiver will never be there again.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// A spool that nobody will empty is not waited for.
    fn is_full(&self) -> bool {
        !self.is_gone() && self.limits.on_full == OnFull::Block && self.waiting().0 >= self.limits.max_bytes.0
    }

    /// True, once, if nine tenths are full.
    fn fills_up(&self) -> bool {
        let nearly = self.waiting().0 >= self.limits.max_bytes.0 / 10 * 9;
        if !nearly {
            self.told.store(false, Ordering::Relaxed);
        }
        nearly && !self.told.swap(true, Ordering::Relaxed)
    }
}

/// The spools of all outputs. Outputs may come and go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spools {
    all: Arc<RwLock<Vec<Arc<Spool>>>>,
    /// Told when an output's receiver is gone.
    gone: Arc<Notify>,
}

impl Spools {
    fn each<T>(&self, of: impl FnOnce(&[Arc<Spool>]) -> T) -> T {
        of(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another output comes.
    pub(crate) fn add(&self, spool: Arc<Spool>) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).push(spool);
    }

    /// Puts others in their place.
    pub(crate) fn replace(&self, spools: Vec<Arc<Spool>>) {
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = spools;
    }

    /// True if the log may take more alerts.
    pub(crate) fn have_room(&self) -> bool {
        self.each(|spools| !spools.iter().any(|spool| spool.is_full()))
    }

    /// The receiver of one of the outputs will never be there again.
    pub(crate) fn lose(&self, spool: &Spool) {
        spool.gone.store(true, Ordering::Relaxed);
        self.gone.notify_waiters();
    }

    /// True if no output has a receiver any more.
    pub(crate) fn are_gone(&self) -> bool {
        self.each(|spools| !spools.is_empty() && spools.iter().all(|spool| spool.is_gone()))
    }

    /// Waits until no output has a receiver any more.
    pub(crate) async fn gone(&self) {
        loop {
            // It hears what is told after it is made, so nothing is missed between the look and the wait.
            let told = self.gone.notified();
            if self.are_gone() {
                return;
            }
            told.await;
        }
    }

    /// Alerts have been appended to the log.
    pub(crate) fn grown(&self, alerts: &[Entry]) {
        if !alerts.is_empty() {
            let bytes = alerts.iter().map(|alert| alert.json.len() as u64).sum();
            self.each(|spools| spools.iter().for_each(|spool| spool.grown(bytes, alerts.len() as u64)));
        }
    }

    /// Every output has done with the records up to this one. `None` without outputs.
    pub(crate) fn passed(&self) -> Option<u64> {
        self.each(|spools| spools.iter().map(|spool| spool.passed()).min())
    }

    /// What waits for each output: its name, bytes and number of alerts.
    pub(crate) fn waiting(&self) -> Vec<(String, u64, u64)> {
        let one = |spool: &Arc<Spool>| {
            let (bytes, alerts) = spool.waiting();
            (spool.output.clone(), bytes, alerts)
        };
        self.each(|spools| spools.iter().map(one).collect())
    }

    /// Outputs whose spools are full, so that nothing more is read.
    pub(crate) fn full(&self) -> Vec<String> {
        self.each(|spools| {
            spools.iter().filter(|spool| spool.is_full()).map(|spool| spool.output.clone()).collect()
        })
    }

    /// Outputs whose spools have become nearly full since the last call.
    pub(crate) fn filling(&self) -> Vec<Arc<Spool>> {
        self.each(|spools| spools.iter().filter(|spool| spool.fills_up()).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn check(on_full: OnFull, bytes: usize, room: bool, overflows: bool, tells: bool) {
        let spool = Spool::new("out", Limits { max_bytes: Size(100), on_full }, 0, 0, 0);
        let spools = Spools::default();
        spools.replace(vec![Arc::clone(&spool)]);
        spools.grown(&[Entry { uuid: Uuid::nil(), json: "x".repeat(bytes) }]);
        assert_eq!((spools.have_room(), spool.excess() > 0), (room, overflows), "{bytes}");
        assert_eq!((spools.filling().len(), spools.filling().len()), (usize::from(tells), 0));
        spool.done(bytes as u64, 1, 7);
        assert_eq!((spools.have_room(), spool.waiting(), spools.passed()), (true, (0, 0), Some(7)));
    }

    #[test]
    fn a_spool_that_nobody_empties_keeps_nobody_waiting() {
        let limits = Limits { max_bytes: Size(1), on_full: OnFull::Block };
        let (one, other) = (Spool::new("one", limits, 9, 1, 0), Spool::new("other", limits, 0, 0, 0));
        let spools = Spools::default();
        assert!(!spools.are_gone(), "there is none");
        spools.replace(vec![Arc::clone(&one), Arc::clone(&other)]);
        assert!(!spools.have_room());
        spools.lose(&one);
        assert!(spools.have_room() && !spools.are_gone(), "the other goes on");
        spools.lose(&other);
        assert!(spools.are_gone());
    }

    #[test]
    fn a_full_spool_blocks_or_overflows() {
        check(OnFull::Block, 50, true, false, false);
        check(OnFull::Block, 90, true, false, true);
        check(OnFull::Block, 100, false, false, true);
        check(OnFull::DropOldest, 100, true, false, true);
        check(OnFull::DropOldest, 101, true, true, true);
    }
}
