//! JSON lines: one alert, one line, at most 64 KiB, ASCII where a character could do harm.

use std::borrow::Cow;
use std::io::{self, Write};

use detectors::alert::Alert;

use crate::text;

/// The longest line, with its end.
const LONGEST: usize = 64 << 10;

/// Writes an alert.
pub(super) fn write(alert: &Alert, out: &mut impl Write) -> io::Result<()> {
    let mut line = line(alert)?;
    // Falco's fields may be hundreds, and each is bounded by itself: shorten all alike until the whole fits.
    for limit in [512, 128, 32, 8] {
        if line.len() <= LONGEST {
            break;
        }
        line = self::line(&shortened(alert, limit))?;
    }
    out.write_all(line.as_bytes())
}

fn line(alert: &Alert) -> io::Result<String> {
    let json = serde_json::to_string(alert)?;
    let escaped = match text::for_json(&json) {
        Cow::Borrowed(_) => None,
        Cow::Owned(escaped) => Some(escaped),
    };
    let mut line = escaped.unwrap_or(json);
    line.push('\n');
    Ok(line)
}

/// The alert with texts of at most `limit` characters (twice that for what identifies it) and lists of at most `limit` items.
fn shortened(alert: &Alert, limit: usize) -> Alert {
    let mut alert = alert.clone();
    let clip = |text: &mut String, limit: usize| {
        if let Cow::Owned(short) = text::clipped(text, limit) {
            *text = short;
        }
    };
    for long in [&mut alert.rule, &mut alert.output, &mut alert.source] {
        clip(long, limit * 2);
    }
    alert.output_fields = alert.output_fields.into_iter().take(limit).collect();
    alert.output_fields.values_mut().for_each(|value| clip(value, limit));
    for list in [Some(&mut alert.tags), alert.steps.as_mut()].into_iter().flatten() {
        list.truncate(limit);
        for item in list.iter_mut() {
            clip(item, limit * 2);
        }
    }
    alert.evidence.truncate(limit);
    alert.evidence.iter_mut().for_each(|evidence| {
        evidence.audit_id.iter_mut().for_each(|id| clip(id, limit * 2));
    });
    if let Some(request) = &mut alert.k8s {
        let texts = [
            &mut request.verb,
            &mut request.group,
            &mut request.resource,
            &mut request.subresource,
            &mut request.namespace,
            &mut request.name,
            &mut request.user,
            &mut request.user_agent,
            &mut request.audit_id,
        ];
        let optional = [&mut request.impersonated, &mut request.client_ip, &mut request.decision];
        for text in texts.into_iter().chain(optional.into_iter().filter_map(Option::as_mut)) {
            clip(text, limit * 2);
        }
        for list in [&mut request.groups, &mut request.forwarded_ips] {
            list.truncate(limit);
            for item in list.iter_mut() {
                clip(item, limit * 2);
            }
        }
    }
    alert
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::alert;

    fn written(alert: &Alert) -> String {
        let mut out = Vec::new();
        write(alert, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_alert_comes_back_as_it_was() {
        let line = written(&alert());
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.starts_with(r#"{"uuid":"6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a","time":"#));
        assert_eq!(serde_json::from_str::<Alert>(&line).unwrap(), alert());
    }

    #[test]
    fn hostile_text_is_spelt_out_and_still_the_same_text() {
        let mut hostile = alert();
        hostile
            .output_fields
            .insert("ka.useragent".into(), "a\u{9b}31m\u{202e}\u{2028}\u{200b}\x7f\x1b\n".into());
        let line = written(&hostile);
        assert!(line.trim_end().chars().all(|c| !text::is_hostile(c)));
        assert_eq!(serde_json::from_str::<Alert>(&line).unwrap(), hostile);
    }

    #[test]
    fn a_line_has_a_limit() {
        let mut huge = alert();
        for n in 0..256 {
            huge.output_fields.insert(format!("{}{n}", "k".repeat(120)), "\u{202e}".repeat(1024));
        }
        huge.evidence = vec![huge.evidence[0].clone(); 5_000];
        huge.k8s.as_mut().unwrap().groups = vec!["\u{202e}".repeat(1024); 64];
        let line = written(&huge);
        assert!(line.len() <= LONGEST, "{}", line.len());
        let back: Alert = serde_json::from_str(&line).unwrap();
        assert_eq!((back.uuid, back.evidence[0].offset), (huge.uuid, 18231));
    }

    #[test]
    fn long_values_are_shortened_no_further_than_needed() {
        let mut long = alert();
        for n in 0..100 {
            long.output_fields.insert(format!("field{n}"), "x".repeat(1024));
        }
        let back: Alert = serde_json::from_str(&written(&long)).unwrap();
        assert_eq!(back.output_fields["field7"].chars().count(), 512);
        assert_eq!(back.output_fields.len(), 102);
    }
}
