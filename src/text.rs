//! Text on its way between people and the program: hostile characters out, times in.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use detectors::event::time::{Nanos, SECOND};

/// True if a character can move the cursor, reorder what follows, hide, or end a line for some reader: C0, DEL, C1, marks and
/// overrides of writing direction, zero-width and other invisible characters, Unicode's line and paragraph separators, tags.
pub(crate) fn is_hostile(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1F}' | '\u{7F}'..='\u{9F}'
        | '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180E}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E007F}')
}

/// True if some character of the text [`is_hostile`].
fn has_hostile(text: &str) -> bool {
    // Counting looks at all bytes without a branch: many at a time.
    let control = text.bytes().filter(u8::is_ascii_control).count();
    control > 0 || !text.is_ascii() && text.contains(is_hostile)
}

/// Text of an event, fit for a terminal and for one line of it.
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    if !has_hostile(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hostile(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c)); // writing to a string cannot fail
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// JSON whose hostile characters are spelt as `\uXXXX`. In valid JSON they can only stand inside strings.
pub(crate) fn for_json(json: &str) -> Cow<'_, str> {
    if !has_hostile(json) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 32);
    for c in json.chars() {
        if is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// At most `limit` characters, the last of which is `…` if something was left out.
pub(crate) fn clipped(text: &str, limit: usize) -> Cow<'_, str> {
    if text.chars().nth(limit).is_none() {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    Cow::Owned(short)
}

/// Reads a moment as people type it: RFC 3339, `2026-03-01`, `2026-03-01 10:00[:00]`, `-2h` (before `now`), `now`, or seconds
/// since the epoch. What names no zone is UTC.
///
/// # Errors
/// What can be typed instead.
pub(crate) fn moment(text: &str, now: Nanos) -> Result<Nanos, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Some(span) = text.strip_prefix('-') {
        return duration(span).and_then(|span| now.checked_sub(span)).ok_or_else(|| {
            format!("`{text}` is no span of time: write for instance -30m, -2h, -7d or -1d12h")
        });
    }
    let nanos = match text.parse::<i64>() {
        // Four digits are a year that somebody forgot to finish, not a moment in 1970.
        Ok(seconds) if text.len() > 4 => seconds.checked_mul(SECOND),
        Ok(_) => None,
        Err(_) => calendar(text),
    };
    nanos.ok_or_else(|| {
        format!(
            "`{text}` is no time: write 2026-03-01T10:00:00Z, 2026-03-01, \"2026-03-01 10:00\" (UTC), -2h, or seconds \
             since 1970"
        )
    })
}

fn calendar(text: &str) -> Option<Nanos> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt();
    }
    // `2026-03-01 10:00+01:00` and the like: somebody's zone without the seconds.
    for form in ["%Y-%m-%d %H:%M%:z", "%Y-%m-%dT%H:%M%:z"] {
        if let Ok(time) = DateTime::parse_from_str(text, form) {
            return time.timestamp_nanos_opt();
        }
    }
    let bare = text.strip_suffix(['Z', 'z']).unwrap_or(text).trim_end();
    for form in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(bare, form) {
            return time.and_utc().timestamp_nanos_opt();
        }
    }
    let midnight = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?;
    midnight.and_utc().timestamp_nanos_opt()
}

/// `90s`, `30m`, `2h`, `7d`, `1w`, and sums of them (`1h30m`).
fn duration(mut text: &str) -> Option<Nanos> {
    let mut total: Nanos = 0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = text[..digits].parse().ok()?;
        let unit = match text[digits..].chars().next()? {
            's' => SECOND,
            'm' => 60 * SECOND,
            'h' => 3_600 * SECOND,
            'd' => 86_400 * SECOND,
            'w' => 7 * 86_400 * SECOND,
            _ => return None,
        };
        total = total.checked_add(count.checked_mul(unit)?)?;
        text = &text[digits + 1..];
    }
    Some(total)
}

/// A moment for people: `2026-03-01 10:00:00`, in UTC.
pub(crate) fn clock(time: Nanos) -> String {
    DateTime::from_timestamp_nanos(time).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A span for people: `45 s`, `32 min`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn span(nanos: Nanos) -> String {
    let seconds = nanos / SECOND;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, other: &str| match small {
        0 => format!("{big} {unit}"),
        small => format!("{big} {unit} {small} {other}"),
    };
    match () {
        () if days > 0 => two(days, "d", hours % 24, "h"),
        () if hours > 0 => two(hours, "h", minutes % 60, "min"),
        () if minutes > 0 => two(minutes, "min", seconds % 60, "s"),
        () => format!("{seconds} s"),
    }
}

/// A number with its thousands apart: `88,120,443`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes for people, in powers of ten as disks count them: `1.2 GB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB"];
    let mut value = count as f64;
    let mut unit = "B";
    for larger in units {
        if value < 999.5 {
            break;
        }
        value /= 1_000.0;
        unit = larger;
    }
    if unit == "B" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A count and its noun: `1 file`, `12 files`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// The wall clock, for what happens to the run itself.
pub(crate) fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_spelt_out() {
        for (text, terminal, json) in [
            ("plain ünïcode 日本語 🦀", "plain ünïcode 日本語 🦀", "plain ünïcode 日本語 🦀"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb", "a\\u001b[2Jb"),
            ("bell\x07del\x7f", "bell\\u{7}del\\u{7f}", "bell\\u0007del\\u007f"),
            ("c1\u{9b}31m", "c1\\u{9b}31m", "c1\\u009b31m"),
            ("two\nlines\r\ttab", "two\\nlines\\r\\ttab", "two\\u000alines\\u000d\\u0009tab"),
            ("x\u{202e}gpj.exe", "x\\u{202e}gpj.exe", "x\\u202egpj.exe"),
            ("\u{2066}iso\u{2069}", "\\u{2066}iso\\u{2069}", "\\u2066iso\\u2069"),
            ("ad\u{200b}min\u{feff}", "ad\\u{200b}min\\u{feff}", "ad\\u200bmin\\ufeff"),
            ("a\u{2028}b\u{2029}c", "a\\u{2028}b\\u{2029}c", "a\\u2028b\\u2029c"),
            ("tag\u{e0041}", "tag\\u{e0041}", "tag\\udb40\\udc41"),
        ] {
            assert_eq!(for_terminal(text), terminal);
            assert_eq!(for_json(text), json);
        }
    }

    #[test]
    fn escaped_json_says_the_same() {
        let value = serde_json::json!({"k\u{202e}": "a\u{9b}\u{e0041}\u{2028}\x7f\x1b"});
        let json = value.to_string();
        let escaped = for_json(&json).into_owned();
        assert!(escaped.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn moments() {
        let now = 1_772_366_400 * SECOND; // 2026-03-01T12:00:00Z
        let at = |hour: i64, minute: i64| (1_772_323_200 + hour * 3_600 + minute * 60) * SECOND;
        for (text, expected) in [
            ("2026-03-01T10:00:00Z", Some(at(10, 0))),
            ("2026-03-01T10:00:00.5Z", Some(at(10, 0) + SECOND / 2)),
            ("2026-03-01T11:00:00+01:00", Some(at(10, 0))),
            ("2026-03-01 11:00:00+01:00", Some(at(10, 0))),
            ("2026-03-01 11:00+01:00", Some(at(10, 0))),
            ("2026-03-01", Some(at(0, 0))),
            ("2026-03-01 10:00", Some(at(10, 0))),
            ("2026-03-01T10:00", Some(at(10, 0))),
            ("2026-03-01 10:00:30", Some(at(10, 0) + 30 * SECOND)),
            ("2026-03-01 10:00Z", Some(at(10, 0))),
            (" 2026-03-01 ", Some(at(0, 0))),
            ("-2h", Some(at(10, 0))),
            ("-30m", Some(at(11, 30))),
            ("-7d", Some(now - 7 * 86_400 * SECOND)),
            ("-1w", Some(now - 7 * 86_400 * SECOND)),
            ("-1h30m", Some(at(10, 30))),
            ("-90s", Some(now - 90 * SECOND)),
            ("now", Some(now)),
            ("1772359200", Some(at(10, 0))),
            ("0", None),
            ("2026", None),
            ("2026-02-30", None),
            ("2026-13-01", None),
            ("01.03.2026", None),
            ("2h", None),
            ("-", None),
            ("-h", None),
            ("-2", None),
            ("-2y", None),
            ("-99999999999d", None),
            ("99999999999999", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(moment(text, now).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(88_120_443), "88,120,443");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234), "1.2 kB");
        assert_eq!(bytes(30_100_000_000), "30.1 GB");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(1_200, "file"), "1,200 files");
        for (seconds, text) in
            [(45, "45 s"), (1_920, "32 min"), (7_500, "2 h 5 min"), (273_600, "3 d 4 h"), (7_200, "2 h")]
        {
            assert_eq!(span(seconds * SECOND), text);
        }
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clipped("abc", 3), "abc");
        assert_eq!(clipped("äöüß", 3), "äö…");
    }
}
