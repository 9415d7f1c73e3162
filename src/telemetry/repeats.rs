//! Lines of log that come again and again: one a minute says how many there were.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same kind for the same name is logged once in this time.
const PAUSE: Duration = Duration::from_mins(1);
/// Pairs of kind and name that are remembered. Past it the table begins anew, which costs a line too many.
const LIMIT: usize = 4096;

/// When what was logged last.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: Mutex<HashMap<(&'static str, String), Last>>,
}

#[derive(Debug)]
struct Last {
    at: Instant,
    unsaid: u64,
}

/// A line is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// How often it happened since the last line without one, if it did.
    pub(super) repeats: Option<u64>,
}

impl Repeats {
    /// Whether a line of this kind about this name is due at `now`; if not, it is counted.
    pub(super) fn due(&self, kind: &'static str, name: &str, now: Instant) -> Option<Due> {
        let mut table = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = table.get_mut(&(kind, name.to_owned())) {
            if now.saturating_duration_since(last.at) < PAUSE {
                last.unsaid += 1;
                return None;
            }
            let unsaid = std::mem::take(&mut last.unsaid);
            last.at = now;
            return Some(Due { repeats: (unsaid > 0).then_some(unsaid) });
        }
        if table.len() >= LIMIT {
            table.clear();
        }
        table.insert((kind, name.to_owned()), Last { at: now, unsaid: 0 });
        Some(Due { repeats: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line at second 0, then at these seconds; what is said: nothing, a line, or a line with a number.
    fn check(seconds: &[u64], expected: &[&str]) {
        let (repeats, start) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.due("kind", "a", start), Some(Due { repeats: None }));
        let said = |second: &u64| match repeats.due("kind", "a", start + Duration::from_secs(*second)) {
            None => String::new(),
            Some(Due { repeats: None }) => "line".to_owned(),
            Some(Due { repeats: Some(number) }) => format!("line, {number} more"),
        };
        assert_eq!(seconds.iter().map(said).collect::<Vec<_>>(), expected, "{seconds:?}");
    }

    #[test]
    fn one_line_a_minute_says_how_many_there_were() {
        check(&[1, 2, 59], &["", "", ""]);
        check(&[60], &["line"]);
        check(&[1, 2, 61, 62, 121], &["", "", "line, 2 more", "", "line, 1 more"]);
    }

    #[test]
    fn names_and_kinds_are_told_apart_and_bounded() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        assert!(repeats.due("kind", "a", now).is_some());
        assert!(repeats.due("kind", "b", now).is_some());
        assert!(repeats.due("other", "a", now).is_some());
        assert!(repeats.due("kind", "a", now).is_none());
        for n in 0..3 * LIMIT {
            repeats.due("kind", &n.to_string(), now);
        }
        assert!(repeats.last.lock().unwrap().len() <= LIMIT);
    }
}
