//! For a person at three in the morning: what happened, how bad it is, who did it, and where to look.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use detectors::alert::Alert;
use detectors::level::Level;
use textwrap::{Options, WordSplitter};

use crate::{text, view};

/// Characters of a message that are shown; the whole is in the other forms.
const LONGEST: usize = 1_000;
const INDENT: &str = "    ";
/// Stands between the parts of the last line. The space that cannot break keeps the dot from beginning a line.
const SEPARATOR: &str = "\u{A0}· ";

/// What is known of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// Colours are wanted.
    pub(crate) color: bool,
    /// Columns; without a number lines are as long as they are.
    pub(crate) width: Option<usize>,
}

impl Page {
    /// Writes an alert: time, level and title; the sentence; then, dimmed, who, what, which detector, and the evidence.
    pub(crate) fn write(self, alert: &Alert, out: &mut impl Write) -> io::Result<()> {
        let title = text::for_terminal(&alert.rule);
        let level = self.painted(&format!("{:<8}", label(alert.level)), style(alert.level));
        writeln!(out, "{}  {level}  {}", clock(&alert.time), self.painted(&title, Style::new().bold()))?;
        let message = text::for_terminal(view::message(alert));
        let message = text::clipped(&message, LONGEST);
        if !message.is_empty() && message != title {
            self.paragraph(&message, Style::new(), out)?;
        }
        self.paragraph(&context(alert), Style::new().dimmed(), out)
    }

    fn paragraph(self, text: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
        let width = self.width.map_or(usize::MAX, |width| width.max(40) - INDENT.len());
        for line in textwrap::wrap(text, Options::new(width).word_splitter(WordSplitter::NoHyphenation)) {
            writeln!(out, "{INDENT}{}", self.painted(&line.replace('\u{A0}', " "), style))?;
        }
        Ok(())
    }

    /// Text in a style, if colours are wanted.
    pub(crate) fn painted(self, text: &str, style: Style) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// The level's colour.
pub(crate) fn style(level: Level) -> Style {
    match level {
        Level::Critical => AnsiColor::BrightWhite.on(AnsiColor::Red).bold(),
        Level::High => AnsiColor::Red.on_default().bold(),
        Level::Medium => AnsiColor::Yellow.on_default(),
        Level::Low => AnsiColor::Cyan.on_default(),
        Level::Informational => Style::new().dimmed(),
    }
}

fn label(level: Level) -> &'static str {
    match level {
        Level::Critical => "CRITICAL",
        Level::High => "HIGH",
        Level::Medium => "MEDIUM",
        Level::Low => "LOW",
        Level::Informational => "INFO",
    }
}

/// `2026-03-01 10:00:00Z`. An event without any time has the epoch's.
fn clock(time: &str) -> String {
    if time == "1970-01-01T00:00:00.000000000Z" {
        return format!("{:<20}", "time unknown");
    }
    match (time.get(..10), time.get(11..19)) {
        (Some(date), Some(clock)) => format!("{date} {clock}Z"),
        _ => text::for_terminal(time).into_owned(),
    }
}

/// Who from where, what and how it ended, which detector, and where it stands in the evidence. What the sentence names
/// already is not named again.
fn context(alert: &Alert) -> String {
    let mut parts = vec![who(alert)];
    if let Some(request) = &alert.k8s {
        parts.push(format!("{} {}", request.verb, object(alert)));
        let code = request.code.map_or_else(String::new, |code| format!(" ({code})"));
        parts.push(format!("{}{code}", request.outcome));
    } else {
        parts.push(object(alert));
        parts.push(alert.hostname.as_ref().map_or_else(String::new, |host| format!("on host {host}")));
    }
    parts.push(alert.count.map_or_else(String::new, |count| format!("count {count}")));
    let cluster = alert.cluster.as_ref();
    parts.push(cluster.map_or_else(String::new, |cluster| format!("cluster {cluster}")));
    if alert.partial == Some(true) {
        parts.push("incomplete record".to_owned());
    }
    if alert.approximate == Some(true) {
        parts.push("approximate".to_owned());
    }
    parts.push(alert.detector.clone());
    if let Some(first) = alert.evidence.first() {
        let more = alert.evidence.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        parts.push(format!("{}@{}{more}", first.input, first.offset));
    }
    parts.retain(|part| !part.trim().is_empty());
    let parts: Vec<_> = parts.iter().map(|part| text::for_terminal(part)).collect();
    parts.join(SEPARATOR)
}

/// A name, unless the sentence has it, as a word of its own.
fn unless_said<'a>(name: &'a str, alert: &Alert) -> &'a str {
    let sentence = view::message(alert);
    let mut places = sentence.match_indices(name);
    let alone = |at: usize| {
        let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !joined(sentence[..at].chars().next_back()) && !joined(sentence[at + name.len()..].chars().next())
    };
    if places.any(|(at, _)| alone(at)) { "" } else { name }
}

fn who(alert: &Alert) -> String {
    let mut who = unless_said(view::actor(alert), alert).to_owned();
    let impersonated = unless_said(view::impersonated(alert), alert);
    if !impersonated.is_empty() {
        who = format!("{who} as {impersonated}");
    }
    match unless_said(view::address(alert), alert) {
        "" => who.trim_start().to_owned(),
        address => format!("{who} from {address}").trim_start().to_owned(),
    }
}

/// `pods/exec shop/web-1`.
fn object(alert: &Alert) -> String {
    let place = match (unless_said(view::namespace(alert), alert), unless_said(view::name(alert), alert)) {
        ("", name) => name.to_owned(),
        (namespace, "") => format!("in {namespace}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    format!("{} {place}", view::resource(alert)).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::alert;

    fn check(alert: &Alert, page: Page, expected: &str) {
        let mut out = Vec::new();
        page.write(alert, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    const PLAIN: Page = Page { color: false, width: None };

    #[test]
    fn an_alert_is_three_lines() {
        check(
            &alert(),
            PLAIN,
            "2026-03-01 10:00:00Z  HIGH      Binding to cluster-admin\n    \
             mirel@corp.example bound User tariq@corp.example to cluster-admin\n    \
             from 203.0.113.9 · create rbac.authorization.k8s.io/clusterrolebindings night-shift · allowed (201) · \
             cluster prod · rbac/cluster-admin-binding · evidence/audit.log@18231\n",
        );
    }

    #[test]
    fn lines_fit_the_page() {
        check(
            &alert(),
            Page { color: false, width: Some(72) },
            "2026-03-01 10:00:00Z  HIGH      Binding to cluster-admin\n    \
             mirel@corp.example bound User tariq@corp.example to cluster-admin\n    \
             from 203.0.113.9 · create\n    \
             rbac.authorization.k8s.io/clusterrolebindings night-shift · allowed\n    \
             (201) · cluster prod · rbac/cluster-admin-binding ·\n    \
             evidence/audit.log@18231\n",
        );
    }

    #[test]
    fn a_correlation_says_what_it_counted() {
        let mut correlated = alert();
        correlated.k8s = None;
        correlated.output = "10:00:00.010002000: Error 12 secrets read".into();
        correlated.output_fields =
            [("actor.name", "eve"), ("actor.ip", "198.51.100.7"), ("target.namespace", "shop")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        correlated.count = Some(12);
        correlated.evidence = vec![correlated.evidence[0].clone(); 12];
        correlated.cluster = None;
        check(
            &correlated,
            PLAIN,
            "2026-03-01 10:00:00Z  HIGH      Binding to cluster-admin\n    12 secrets read\n    \
             eve from 198.51.100.7 · in shop · count 12 · rbac/cluster-admin-binding · \
             evidence/audit.log@18231 and 11 more\n",
        );
    }

    #[test]
    fn text_of_events_cannot_reach_the_terminal() {
        let mut hostile = alert();
        let bad = "x\x1b[2J\u{9b}31m\u{202e}\r\nFORGED\u{200b}";
        hostile.rule = bad.into();
        hostile.output = bad.into();
        hostile.detector = bad.into();
        hostile.time = bad.into();
        hostile.cluster = Some(bad.into());
        hostile.evidence[0].input = bad.into();
        let request = hostile.k8s.as_mut().unwrap();
        for text in [
            &mut request.user,
            &mut request.verb,
            &mut request.name,
            &mut request.resource,
            &mut request.outcome,
        ] {
            *text = bad.into();
        }
        request.client_ip = Some(bad.into());
        request.impersonated = Some(bad.into());
        for width in [None, Some(80)] {
            let mut out = Vec::new();
            Page { color: false, width }.write(&hostile, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.chars().all(|c| c == '\n' || !text::is_hostile(c)), "{text:?}");
            assert!(text.lines().skip(1).all(|line| line.starts_with(INDENT)), "{text}");
        }
    }

    #[test]
    fn colours_are_closed_on_each_line() {
        let mut out = Vec::new();
        Page { color: true, width: Some(60) }.write(&alert(), &mut out).unwrap();
        for line in String::from_utf8(out).unwrap().lines().skip(1) {
            assert!(!line.contains('\x1b') || line.ends_with("\x1b[0m"), "{line:?}");
        }
    }
}
