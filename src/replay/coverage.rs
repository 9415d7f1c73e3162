//! What time the events cover, and where they are silent.

use std::collections::BTreeMap;

use detectors::event::time::{Nanos, SECOND};

/// A silence that is longer is a gap.
const GAP: Nanos = 5 * 60 * SECOND;

/// Stretches kept. Only forged times can make more.
const MAX_STRETCHES: usize = 16_384;

/// The time covered: stretches of events without a gap between them.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    /// The last event of each stretch by its first.
    stretches: BTreeMap<Nanos, Nanos>,
    range: Option<(Nanos, Nanos)>,
    full: bool,
}

impl Coverage {
    /// Adds events of which the first and last times are known, and that lie without a gap between them.
    pub(crate) fn add(&mut self, first: Nanos, last: Nanos) {
        let range = self.range.get_or_insert((first, last));
        *range = (range.0.min(first), range.1.max(last));
        let (mut start, mut end) = (first, last);
        // The stretch that begins before, then all that begin within reach.
        if let Some((&before, &until)) = self.stretches.range(..=first).next_back()
            && first.saturating_sub(until) <= GAP
        {
            (start, end) = (before, end.max(until));
        }
        while let Some((&next, &until)) =
            self.stretches.range(start..).next().filter(|(next, _)| next.saturating_sub(end) <= GAP)
        {
            end = end.max(until);
            self.stretches.remove(&next);
        }
        if self.stretches.len() < MAX_STRETCHES {
            self.stretches.insert(start, end);
        } else {
            self.full = true;
        }
    }

    /// The first and last times.
    pub(crate) fn range(&self) -> Option<(Nanos, Nanos)> {
        self.range
    }

    /// The gaps in order: the last event before and the first after each.
    pub(crate) fn gaps(&self) -> Vec<(Nanos, Nanos)> {
        let ends = self.stretches.values();
        ends.zip(self.stretches.keys().skip(1)).map(|(before, after)| (*before, *after)).collect()
    }

    /// True if there were too many stretches to keep, so that some gaps are not real.
    pub(crate) fn approximate(&self) -> bool {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Nanos = 60 * SECOND;

    #[test]
    fn exactly_five_minutes_are_no_gap() {
        let mut coverage = Coverage::default();
        for (first, last) in [(20 * MINUTE, 20 * MINUTE), (0, 3 * MINUTE), (8 * MINUTE, 9 * MINUTE)] {
            coverage.add(first, last);
        }
        assert_eq!(coverage.gaps(), [(9 * MINUTE, 20 * MINUTE)]);
        assert_eq!(coverage.range(), Some((0, 20 * MINUTE)));
        coverage.add(14 * MINUTE, 16 * MINUTE);
        assert_eq!(coverage.gaps(), []);
        coverage.add(Nanos::MIN, Nanos::MIN);
        coverage.add(Nanos::MAX, Nanos::MAX);
        assert_eq!(coverage.gaps().len(), 2);
    }

    proptest! {
        #[test]
        fn agrees_with_sorting(times in prop::collection::vec(0..200_i64, 1..40)) {
            let mut coverage = Coverage::default();
            for time in &times {
                coverage.add(time * MINUTE, time * MINUTE);
            }
            let mut times = times;
            times.sort_unstable();
            let pairs = times.windows(2).filter(|pair| pair[1] - pair[0] > 5);
            let gaps: Vec<_> = pairs.map(|pair| (pair[0] * MINUTE, pair[1] * MINUTE)).collect();
            prop_assert_eq!(coverage.gaps(), gaps);
            prop_assert!(!coverage.approximate());
        }
    }
}
