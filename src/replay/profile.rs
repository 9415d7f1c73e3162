//! Who was active: events by actor, source and namespace, counted by all threads in one bounded map.
//!
//! A thread counts on its own and adds its counts once a batch is known to stand, so that the shared map is touched a few
//! hundred times for thousands of events. While no bound was hit, the result does not depend on who added what when.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use detectors::tally::Dimension;

/// Names kept for each dimension. An authenticated actor can't invent names without end, but nobody else is trusted.
const MAX_NAMES: usize = 65_536;

/// Bytes of names kept for each dimension.
const MAX_BYTES: usize = 4 << 20;

/// The busiest names of a dimension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Top {
    /// Names with their numbers of events, most first, then by name.
    pub(crate) names: Vec<(String, u64)>,
    /// True if a bound was hit, so that names may be missing and numbers too low.
    pub(crate) approximate: bool,
}

/// The shared counts.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    actors: Names,
    sources: Names,
    namespaces: Names,
}

#[derive(Debug, Default)]
struct Names {
    events: DashMap<Box<str>, u64, foldhash::fast::RandomState>,
    kept: AtomicUsize,
    bytes: AtomicUsize,
    /// Events of names that there was no more room for.
    other: AtomicU64,
}

impl Profile {
    /// The `n` busiest names of a dimension.
    pub(crate) fn top(&self, dimension: Dimension, n: usize) -> Top {
        let names = self.names(dimension);
        let mut all: Vec<_> =
            names.events.iter().map(|entry| (entry.key().to_string(), *entry.value())).collect();
        all.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        all.truncate(n);
        Top { names: all, approximate: names.other.load(Ordering::Relaxed) > 0 }
    }

    fn names(&self, dimension: Dimension) -> &Names {
        match dimension {
            Dimension::Actor => &self.actors,
            Dimension::Source => &self.sources,
            Dimension::Namespace => &self.namespaces,
        }
    }
}

impl Names {
    fn add(&self, name: &str, events: u64) {
        if let Some(mut known) = self.events.get_mut(name) {
            *known += events;
            return;
        }
        let full = self.kept.fetch_add(1, Ordering::Relaxed) >= MAX_NAMES;
        if full || self.bytes.fetch_add(name.len(), Ordering::Relaxed) + name.len() > MAX_BYTES {
            self.kept.fetch_sub(1, Ordering::Relaxed);
            if !full {
                self.bytes.fetch_sub(name.len(), Ordering::Relaxed);
            }
            self.other.fetch_add(events, Ordering::Relaxed);
            return;
        }
        match self.events.entry(name.into()) {
            Entry::Vacant(vacant) => {
                vacant.insert(events);
            }
            Entry::Occupied(mut occupied) => {
                // Another thread was faster: the room that was taken is free again.
                self.kept.fetch_sub(1, Ordering::Relaxed);
                self.bytes.fetch_sub(name.len(), Ordering::Relaxed);
                *occupied.get_mut() += events;
            }
        }
    }
}

/// One thread's counts of one batch.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    text: String,
    /// Dimension, where the name ends in `text`, events.
    entries: Vec<(Dimension, usize, u64)>,
}

impl Counts {
    /// Counts events of a name.
    pub(crate) fn add(&mut self, dimension: Dimension, name: &str, events: u64) {
        self.text.push_str(name);
        self.entries.push((dimension, self.text.len(), events));
    }

    /// Adds the counts to the shared ones.
    pub(crate) fn merge_into(&self, profile: &Profile) {
        let mut start = 0;
        for (dimension, end, events) in &self.entries {
            profile.names(*dimension).add(&self.text[start..*end], *events);
            start = *end;
        }
    }

    /// Bytes of memory, roughly.
    pub(crate) fn size(&self) -> usize {
        self.text.len() + self.entries.len() * size_of::<(Dimension, usize, u64)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(profile: &Profile, names: &[(&str, u64)]) {
        let mut counts = Counts::default();
        for (name, events) in names {
            counts.add(Dimension::Actor, name, *events);
        }
        counts.merge_into(profile);
    }

    #[test]
    fn sums_are_ordered_by_events_then_name() {
        let profile = Profile::default();
        add(&profile, &[("b", 1), ("a", 1), ("c", 2), ("", 1)]);
        add(&profile, &[("d", 5), ("c", 2), ("e", 0)]);
        let expected = [("d", 5), ("c", 4), ("", 1), ("a", 1)].map(|(name, n)| (name.to_string(), n));
        assert_eq!(profile.top(Dimension::Actor, 4), Top { names: expected.to_vec(), approximate: false });
        assert_eq!(profile.top(Dimension::Source, 4), Top::default());
    }

    #[test]
    fn bounds_make_it_approximate() {
        let profile = Profile::default();
        for n in 0..=MAX_NAMES {
            add(&profile, &[(&n.to_string(), 1)]);
        }
        add(&profile, &[("0", 5)]);
        let top = profile.top(Dimension::Actor, 1);
        assert_eq!(top, Top { names: vec![("0".to_string(), 6)], approximate: true });
        let profile = Profile::default();
        add(&profile, &[(&"x".repeat(MAX_BYTES), 1), ("y", 1)]);
        assert!(profile.top(Dimension::Actor, 1).approximate);
    }

    #[test]
    fn threads_agree() {
        let profile = Profile::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..1000 {
                        add(&profile, &[(&(n % 100).to_string(), 1)]);
                    }
                });
            }
        });
        let top = profile.top(Dimension::Actor, 1000);
        assert_eq!(top.names.len(), 100);
        assert!(top.names.iter().all(|(_, events)| *events == 40));
        assert_eq!(profile.actors.kept.load(Ordering::Relaxed), 100);
    }
}
