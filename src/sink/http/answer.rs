//! What a receiver answered, and what that means.

use std::time::Duration;

use chrono::DateTime;
use detectors::event::time::{Nanos, SECOND};
use reqwest::StatusCode;
use reqwest::header::HeaderValue;

use crate::sink::transport::Outcome;
use crate::text;

/// The longest pause that a receiver may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Characters of an answer that are shown.
const SHOWN: usize = 120;

/// A receiver's answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long it asks to be left alone.
    pub(super) after: Option<Duration>,
    /// Its body, cut.
    pub(super) body: Vec<u8>,
}

/// What an answer means for the alerts of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// The same for all.
    All(Outcome),
    /// The receiver cannot take the request because of what is in it. If that is more than one alert, one of them may be to
    /// blame alone.
    Spoilt(Outcome),
    /// One for each.
    Each(Vec<Outcome>),
}

/// What a client's error (4xx) means that is not about the alert but about how the receiver was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    /// Somebody will put it right, and the alerts wait.
    Waits,
    /// As for any other error of the client.
    Rejects,
}

impl Verdict {
    /// How good it is: that one of several receivers has the alerts is better than that they may get them later.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Verdict::All(Outcome::Accepted) => 3,
            Verdict::Each(_) => 2,
            Verdict::All(Outcome::Retry { .. }) => 1,
            Verdict::All(Outcome::Rejected { .. }) | Verdict::Spoilt(_) => 0,
        }
    }
}

impl Answer {
    /// Not now.
    pub(super) fn retry(&self, reason: &str) -> Outcome {
        match Outcome::retry(reason) {
            Outcome::Retry { reason, .. } => Outcome::Retry { after: self.after, reason },
            other => other,
        }
    }

    /// The status and, if it is fit to be shown, the beginning of the body. Only for receivers whose answers are known not to
    /// repeat what they were sent.
    pub(super) fn with_body(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let body = body.trim();
        if body.is_empty() {
            self.alone()
        } else {
            format!("{}: {}", self.alone(), text::clipped(body, SHOWN))
        }
    }

    /// The status.
    pub(super) fn alone(&self) -> String {
        self.status.to_string()
    }

    /// True for what passes by itself.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 425 | 429) || self.status.is_server_error()
    }

    /// The same where one status alone says that the alerts were taken. Another success comes from something else that
    /// listens there, and so proves nothing.
    pub(super) fn verdict_of(&self, accepts: StatusCode, setup: Setup, reason: &str) -> Verdict {
        if self.status.is_success() && self.status != accepts {
            let why = format!("{} is not how this receiver accepts: does the URL lead to it?", self.alone());
            return Verdict::All(self.retry(&why));
        }
        self.verdict(setup, reason)
    }

    /// What most receivers mean by a status.
    pub(super) fn verdict(&self, setup: Setup, reason: &str) -> Verdict {
        let status = self.status;
        if status.is_success() {
            return Verdict::All(Outcome::Accepted);
        }
        if status.is_redirection() {
            return Verdict::All(self.retry(&format!(
                "{} is a redirect, which is not followed: configure where it leads",
                self.alone()
            )));
        }
        match status.as_u16() {
            _ if self.is_temporary() || status.is_informational() => Verdict::All(self.retry(reason)),
            401 | 403 | 404 | 405 | 407 if setup == Setup::Waits => Verdict::All(self.retry(reason)),
            400 | 413 | 422 => Verdict::Spoilt(Outcome::rejected(reason)),
            _ => Verdict::All(Outcome::rejected(reason)),
        }
    }
}

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn pause(value: &HeaderValue, now: Nanos) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let pause = if text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().ok()?)
    } else {
        let date = DateTime::parse_from_rfc2822(text).ok()?.timestamp();
        Duration::from_secs(u64::try_from(date - now / SECOND).unwrap_or(0))
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let now = 1_772_359_200 * SECOND; // Sun, 01 Mar 2026 10:00:00 GMT
        for (text, expected) in [
            ("0", Some(0)),
            ("17", Some(17)),
            (" 17 ", Some(17)),
            ("86400", Some(300)),
            ("99999999999999999999999", None),
            ("Sun, 01 Mar 2026 10:00:30 GMT", Some(30)),
            ("Sun, 01 Mar 2026 09:00:00 GMT", Some(0)),
            ("Sat, 01 Mar 2036 10:00:00 GMT", Some(300)),
            ("-5", None),
            ("soon", None),
        ] {
            let value = HeaderValue::from_str(text).unwrap();
            assert_eq!(pause(&value, now).map(|pause| pause.as_secs()), expected, "{text}");
        }
    }
}
