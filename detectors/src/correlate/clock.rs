//! What time it is, by the events alone.

use super::rule::LATENESS;
use crate::event::time::{Nanos, SECOND};

/// A time further ahead than this is believed only when others agree.
const LEAP: Nanos = 300 * SECOND;

/// How many times are remembered; more than half of them must agree on a leap.
const RECENT: usize = 16;

/// The largest event time that can be believed.
///
/// It follows the largest time seen, in steps of at most five minutes. Further it leaps only when most of the last 16 times
/// are that far ahead: a forged event, or a node whose clock is wrong, doesn't carry it away, while a gap in a log does. That
/// it sometimes lags is harmless: windows are then closed later, with the same result.
#[derive(Debug, Default)]
pub(super) struct Clock {
    now: Option<Nanos>,
    recent: [Nanos; RECENT],
    seen: usize,
    /// No later than this, if set.
    bound: Option<Nanos>,
    /// Times that were ahead of the clock and that no others came to confirm.
    pub(super) future: u64,
}

impl Clock {
    /// The time, once enough events were seen.
    pub(super) fn now(&self) -> Option<Nanos> {
        self.now
    }

    /// Before this time nothing is waited for any more.
    pub(super) fn watermark(&self) -> Option<Nanos> {
        self.now.map(|now| now.saturating_sub(LATENESS))
    }

    /// Times are taken for no later than `bound` from now on: somebody is not further yet.
    pub(super) fn hold(&mut self, bound: Option<Nanos>) {
        self.bound = bound;
    }

    /// Takes note of an event's time.
    pub(super) fn observe(&mut self, time: Nanos) {
        let time = self.bound.map_or(time, |bound| time.min(bound));
        let oldest = std::mem::replace(&mut self.recent[self.seen % RECENT], time);
        self.seen += 1;
        let limit = self.now.map(|now| now.saturating_add(LEAP));
        self.future += u64::from(limit.is_some_and(|limit| oldest > limit));
        if limit.is_some_and(|limit| time <= limit) {
            self.now = self.now.max(Some(time));
        } else if self.seen >= RECENT {
            self.leap(limit);
        }
    }

    /// Starts from the middle of the recent times, or leaps to those ahead if they are the majority.
    fn leap(&mut self, limit: Option<Nanos>) {
        let mut sorted = self.recent;
        sorted.sort_unstable();
        let middle = sorted[RECENT / 2 - 1];
        match limit {
            None => self.now = Some(follow(&sorted, middle)),
            Some(limit) if middle > limit => {
                let first = sorted.partition_point(|t| *t <= limit);
                self.now = Some(follow(&sorted, sorted[first]));
            }
            Some(_) => {}
        }
    }
}

/// The last of the times that can be reached from one in small steps.
fn follow(sorted: &[Nanos], from: Nanos) -> Nanos {
    sorted.iter().fold(from, |now, t| if *t <= now.saturating_add(LEAP) { now.max(*t) } else { now })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(times: impl IntoIterator<Item = Nanos>, now: Option<Nanos>, future: u64) {
        let mut clock = Clock::default();
        times.into_iter().for_each(|t| clock.observe(t * SECOND));
        assert_eq!((clock.now(), clock.future), (now.map(|t| t * SECOND), future));
    }

    #[test]
    fn follows_the_largest_time() {
        check(0..15, None, 0);
        check(0..16, Some(15), 0);
        check(0..1000, Some(999), 0);
        check((0..1000).chain([5]), Some(999), 0);
        check((0..1000).map(|t| t * 299), Some(999 * 299), 0);
    }

    #[test]
    fn a_gap_is_believed_after_a_few_events() {
        check((0..100).chain(90_000..90_005), Some(99), 0);
        check((0..100).chain(90_000..90_100), Some(90_099), 0);
    }

    #[test]
    fn who_is_behind_holds_it() {
        let mut clock = Clock::default();
        (0..100).for_each(|t| clock.observe(t * SECOND));
        clock.hold(Some(110 * SECOND));
        (100..1000).for_each(|t| clock.observe(t * SECOND));
        assert_eq!((clock.now(), clock.future), (Some(110 * SECOND), 0));
        clock.hold(Some(50 * SECOND));
        clock.observe(1000 * SECOND);
        assert_eq!(clock.now(), Some(110 * SECOND), "it never goes back");
    }

    #[test]
    fn forged_times_are_not() {
        check((0..1000).flat_map(|t| [t, 4_000_000_000]), Some(999), 992);
        check([4_000_000_000].into_iter().chain(0..1000), Some(999), 1);
    }
}
