//! Event times: RFC 3339 text to nanoseconds since the epoch, and back.

use chrono::{DateTime, SecondsFormat, Utc};

/// Nanoseconds since 1970-01-01T00:00:00Z. Holds 1677 to 2262.
pub type Nanos = i64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// Reads an RFC 3339 time. The form that the API server and Falco write (`2026-03-01T10:00:00.000001Z`) is read without
/// the calendar library; every other form goes through it.
pub fn parse(text: &[u8]) -> Option<Nanos> {
    Clock::default().parse(text)
}

/// Reads times that are close to each other: the minute of the last one is kept.
#[derive(Debug, Default)]
pub struct Clock {
    minute: [u8; MINUTE],
    starts: Nanos,
}

/// The length of `2026-03-01T10:00:`.
const MINUTE: usize = 17;

impl Clock {
    /// As [`parse`].
    pub fn parse(&mut self, text: &[u8]) -> Option<Nanos> {
        self.parse_utc(text).or_else(|| {
            let text = std::str::from_utf8(text).ok()?;
            // Falco's form of ISO 8601 has no colon in the zone.
            let utc = text.strip_suffix("+0000").map(|local| format!("{local}Z"));
            DateTime::parse_from_rfc3339(utc.as_deref().unwrap_or(text)).ok()?.timestamp_nanos_opt()
        })
    }

    fn parse_utc(&mut self, text: &[u8]) -> Option<Nanos> {
        let (minute, rest) = text.split_first_chunk::<MINUTE>()?;
        if *minute != self.minute {
            self.starts = start_of(minute)?;
            self.minute = *minute;
        }
        Some(self.starts + nanos(rest)?)
    }
}

/// When a minute (`2026-03-01T10:00:`) starts, in UTC. The last days of a month and nonsense are for the library to decide.
fn start_of(t: &[u8; MINUTE]) -> Option<Nanos> {
    let fixed = t[4] == b'-' && t[7] == b'-' && t[10] == b'T' && t[13] == b':' && t[16] == b':';
    if !fixed {
        return None;
    }
    let two = |at: usize| digits(&t[at..at + 2]);
    let (year, month, day) = (digits(&t[..4])?, two(5)?, two(8)?);
    let (hour, minute) = (two(11)?, two(14)?);
    let plain = (1700..2200).contains(&year)
        && (1..=12).contains(&month)
        && (1..=28).contains(&day)
        && hour < 24
        && minute < 60;
    plain.then(|| ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 * SECOND)
}

/// The rest of a time in UTC, from the seconds on. Leap seconds are for the library.
fn nanos(rest: &[u8]) -> Option<Nanos> {
    let (seconds, [fraction @ .., b'Z']) = rest.split_first_chunk::<2>()? else { return None };
    let seconds = digits(seconds).filter(|seconds| *seconds < 60)?;
    let fraction = match fraction {
        [] => 0,
        [b'.', rest @ ..] if (1..=9).contains(&rest.len()) => {
            digits(rest)? * 10_i64.pow(9 - rest.len() as u32)
        }
        _ => return None,
    };
    Some(seconds * SECOND + fraction)
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0_i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

/// Days from the epoch to a date of the proleptic Gregorian calendar (Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Writes a time as Falco does: UTC with nine digits (`2026-03-01T10:00:00.000001000Z`).
pub fn format(nanos: Nanos) -> String {
    DateTime::<Utc>::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fast_path_agrees_with_the_library(nanos in -7_000_000_000_000_000_000_i64..7_000_000_000_000_000_000) {
            let text = format(nanos);
            prop_assert_eq!(parse(text.as_bytes()), Some(nanos));
        }
    }

    #[test]
    fn odd_forms() {
        for (text, expected) in [
            ("2026-03-01T10:00:00Z", Some(1_772_359_200 * SECOND)),
            ("2026-03-01T10:00:00.5Z", Some(1_772_359_200 * SECOND + SECOND / 2)),
            ("2026-03-01T11:00:00+01:00", Some(1_772_359_200 * SECOND)),
            ("2026-03-01T10:00:00.5+0000", Some(1_772_359_200 * SECOND + SECOND / 2)),
            ("2026-02-30T10:00:00Z", None),
            ("2026-02-29T10:00:00Z", None),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800 * SECOND)),
            ("2026-13-01T10:00:00Z", None),
            ("", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }
}
