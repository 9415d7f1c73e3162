//! CSV (RFC 4180) for spreadsheets, which must not take a cell for a formula.

use std::io::{self, Write};

use detectors::alert::Alert;

use crate::{text, view};

/// The columns.
const COLUMNS: [&str; 18] = [
    "time",
    "level",
    "detector",
    "rule",
    "user",
    "impersonated",
    "client_ip",
    "verb",
    "resource",
    "namespace",
    "name",
    "outcome",
    "code",
    "message",
    "cluster",
    "uuid",
    "input",
    "offset",
];

/// Writes the header.
pub(super) fn header(out: &mut impl Write) -> io::Result<()> {
    row(&COLUMNS, out)
}

/// Writes an alert.
pub(super) fn write(alert: &Alert, out: &mut impl Write) -> io::Result<()> {
    let request = alert.k8s.as_ref();
    let code = request.and_then(|request| request.code).map_or_else(String::new, |code| code.to_string());
    let first = alert.evidence.first();
    row(
        &[
            &alert.time,
            alert.level.name(),
            &alert.detector,
            &alert.rule,
            view::actor(alert),
            view::impersonated(alert),
            view::address(alert),
            request.map_or("", |request| &request.verb),
            &view::resource(alert),
            view::namespace(alert),
            view::name(alert),
            request.map_or("", |request| &request.outcome),
            &code,
            view::message(alert),
            alert.cluster.as_deref().unwrap_or_default(),
            &alert.uuid.to_string(),
            first.map_or("", |evidence| &evidence.input),
            &first.map_or_else(String::new, |evidence| evidence.offset.to_string()),
        ],
        out,
    )
}

fn row(cells: &[&str; COLUMNS.len()], out: &mut impl Write) -> io::Result<()> {
    let mut line = String::with_capacity(512);
    for (place, text) in cells.iter().enumerate() {
        if place > 0 {
            line.push(',');
        }
        cell(text, &mut line);
    }
    line.push_str("\r\n");
    out.write_all(line.as_bytes())
}

/// A cell, always quoted. A spreadsheet takes what begins with one of `= + - @`, a tab or a carriage return for a formula,
/// some after skipping blanks; an apostrophe makes it text. Line breaks and invisible characters are spelt out.
fn cell(text: &str, line: &mut String) {
    line.push('"');
    let first = text.trim_start_matches(' ').chars().next();
    if matches!(
        first,
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\u{FF1D}' | '\u{FF0B}' | '\u{FF0D}' | '\u{FF20}')
    ) {
        line.push('\'');
    }
    for c in text::for_terminal(text).chars() {
        if c == '"' {
            line.push('"');
        }
        line.push(c);
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::alert;

    fn celled(text: &str) -> String {
        let mut line = String::new();
        cell(text, &mut line);
        line
    }

    #[test]
    fn cells() {
        for (text, expected) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            (r#"say "hi", twice"#, r#""say ""hi"", twice""#),
            ("=cmd|' /C calc'!A0", r#""'=cmd|' /C calc'!A0""#),
            ("+1", r#""'+1""#),
            ("-1", r#""'-1""#),
            ("@SUM(A1)", r#""'@SUM(A1)""#),
            ("\t=1", r#""'\t=1""#),
            ("\r=1", r#""'\r=1""#),
            ("  =1", r#""'  =1""#),
            ("\u{FF1D}1", "\"'\u{FF1D}1\""),
            ("two\nlines", r#""two\nlines""#),
            ("a\u{202e}b\x1b", r#""a\u{202e}b\u{1b}""#),
            ("system:node", r#""system:node""#),
        ] {
            assert_eq!(celled(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_row_has_every_column() {
        let mut out = Vec::new();
        header(&mut out).unwrap();
        write(&alert(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0]
                .starts_with(r#""time","level","detector","rule","user","impersonated","client_ip","verb","#)
        );
        assert_eq!(
            lines[1],
            "\"2026-03-01T10:00:00.010002000Z\",\"high\",\"rbac/cluster-admin-binding\",\"Binding to cluster-admin\",\
             \"mirel@corp.example\",\"\",\"203.0.113.9\",\"create\",\"rbac.authorization.k8s.io/clusterrolebindings\",\"\",\
             \"night-shift\",\"allowed\",\"201\",\"mirel@corp.example bound User tariq@corp.example to cluster-admin\",\
             \"prod\",\"6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a\",\"evidence/audit.log\",\"18231\""
        );
    }

    #[test]
    fn without_a_request_the_fields_say_who_and_where() {
        let mut falco = alert();
        falco.k8s = None;
        falco.output_fields = [("user.name", "root"), ("k8s.ns.name", "shop"), ("k8s.pod.name", "web-1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let mut out = Vec::new();
        write(&falco, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#","root","","","","","shop","web-1","","","#), "{text}");
    }
}
