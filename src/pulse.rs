//! Whether an input has fallen silent: nothing has come for much longer than it ever took before.

use std::time::{Duration, Instant};

/// Shorter silences are none.
const SHORTEST: Duration = Duration::from_secs(300);
/// Longer ones always are, for an input that has a rhythm.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// So often something must have come before an input has a rhythm.
const RHYTHM: u32 = 20;
/// A silence is so many times as long as the longest pause before it.
const TIMES: u32 = 10;

/// When something came of an input.
#[derive(Debug)]
pub(crate) struct Pulse {
    last: Instant,
    longest: Duration,
    beats: u32,
    told: bool,
}

impl Pulse {
    /// An input of which something has come for the first time.
    pub(crate) fn new(now: Instant) -> Pulse {
        Pulse { last: now, longest: Duration::ZERO, beats: 1, told: false }
    }

    /// Something has come.
    pub(crate) fn beat(&mut self, now: Instant) {
        let pause = now.saturating_duration_since(self.last);
        // A silence that was told of is no part of the rhythm, or the next one would have to be longer still.
        if !self.told {
            self.longest = self.longest.max(pause);
        }
        (self.last, self.told) = (now, false);
        self.beats = self.beats.saturating_add(1);
    }

    /// Nobody was listening until now: that nothing was heard says nothing.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.last = now;
    }

    /// For how long nothing has come, once in a silence.
    pub(crate) fn silence(&mut self, now: Instant) -> Option<Duration> {
        let pause = now.saturating_duration_since(self.last);
        let limit = (self.longest * TIMES).clamp(SHORTEST, LONGEST);
        if self.told || self.beats < RHYTHM || pause < limit {
            return None;
        }
        self.told = true;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After beats at these seconds, the first second at which the input counts as silent.
    fn check(beats: impl IntoIterator<Item = u64>, silent_at: Option<u64>) {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (mut pulse, mut last) = (Pulse::new(start), 0);
        for beat in beats {
            pulse.beat(at(beat));
            last = beat;
        }
        let found = (last..last + 200_000).find(|second| pulse.silence(at(*second)).is_some());
        assert_eq!(found, silent_at);
        assert!(pulse.silence(at(last + 300_000)).is_none() || found.is_none(), "it is told of once");
    }

    #[test]
    fn a_silence_is_much_longer_than_any_pause() {
        check(0..100, Some(99 + 300));
        check((0..100).map(|n| n * 60), Some(99 * 60 + 600));
        check((0..100).map(|n| n * 10_000), Some(99 * 10_000 + 86_400));
    }

    #[test]
    fn what_has_no_rhythm_cannot_be_silent() {
        check([], None);
        check(0..10, None);
    }

    #[test]
    fn a_silence_does_not_become_the_rhythm() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(start);
        (1..50).for_each(|second| pulse.beat(at(second)));
        assert!(pulse.silence(at(1_000)).is_some());
        pulse.beat(at(1_001));
        assert!(pulse.silence(at(1_302)).is_some());
    }
}
