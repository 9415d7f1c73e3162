//! Where alerts go.
//!
//! For `replay`, one writer a form ([`Sink`]). For `run`, one [`Transport`] an output, which sends alerts in one of a few
//! encodings to where the configuration ([`Output`]) says, and tells of each whether it has been accepted. A transport sends,
//! and nothing else: retrying, order, limits of rate and dead letters are the delivery's.

use std::io::{self, Write};

use detectors::alert::Alert;

mod csv;
mod encoding;
mod file;
mod guard;
mod http;
mod jsonl;
mod kafka;
mod output;
mod pretty;
#[cfg(test)]
mod real;
mod stdout;
mod syslog;
mod tls;
mod transport;

pub(crate) use encoding::Encoding;
pub(crate) use output::{Common, Output, RateLimit, level_schema};
pub(crate) use pretty::{Page, style as level_style};
pub(crate) use transport::{Batch, Item, Outcome, Transport, group_key};

/// The alert as the line that `run` keeps and forwards: native JSON, without a newline.
pub(crate) fn native(alert: &Alert) -> String {
    let mut line = Vec::new();
    jsonl::write(alert, &mut line).expect("an alert is texts and numbers, and memory takes what is written");
    while line.last() == Some(&b'\n') {
        line.pop();
    }
    String::from_utf8(line).expect("JSON of texts is text")
}

/// How alerts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One JSON object a line.
    Jsonl,
    /// RFC 4180, with a header.
    Csv,
    /// For a person.
    Pretty(Page),
}

/// Writes alerts in one form.
#[derive(Debug)]
pub(crate) struct Sink<W> {
    form: Form,
    out: W,
}

impl<W: Write> Sink<W> {
    /// A sink. What a form begins with is written at once.
    pub(crate) fn new(form: Form, mut out: W) -> io::Result<Self> {
        if form == Form::Csv {
            csv::header(&mut out)?;
        }
        Ok(Sink { form, out })
    }

    /// Writes an alert.
    pub(crate) fn write(&mut self, alert: &Alert) -> io::Result<()> {
        match self.form {
            Form::Jsonl => jsonl::write(alert, &mut self.out),
            Form::Csv => csv::write(alert, &mut self.out),
            Form::Pretty(page) => page.write(alert, &mut self.out),
        }
    }

    /// Hands on what is still in a buffer.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use detectors::alert::Alert;

    use super::Item;

    /// What an attacker can write into names: everything that means something to some receiver.
    pub(super) const NASTY: &str = "\"}]'|=\\<b>&amp;*_~`@channel <!here> ${jndi:ldap://x} {{.}} %0a\r\nX-Injected: 1\n\u{202e}\u{1b}[2J\u{0}é";

    /// An alert, ready to be sent.
    pub(super) fn item(alert: &Alert) -> Arc<Item> {
        Arc::new(Item::parse(super::native(alert)).unwrap())
    }

    /// An alert whose every text from outside is hostile.
    pub(super) fn nasty() -> Alert {
        let mut alert = alert();
        alert.rule = format!("Rule {NASTY}");
        alert.output = format!("10:00:00.010002000: Error {NASTY}");
        alert.output_fields.insert("ka.useragent".into(), NASTY.into());
        alert.output_fields.insert(format!("falco.{NASTY}"), NASTY.into());
        alert.cluster = Some(NASTY.into());
        let request = alert.k8s.as_mut().unwrap();
        for text in [&mut request.user, &mut request.namespace, &mut request.name, &mut request.user_agent] {
            *text = NASTY.into();
        }
        request.client_ip = Some("2001:db8::1".into());
        alert
    }

    /// An alert with everything in it.
    pub(crate) fn alert() -> Alert {
        serde_json::from_value(serde_json::json!({
            "uuid": "6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a",
            "time": "2026-03-01T10:00:00.010002000Z",
            "rule": "Binding to cluster-admin",
            "priority": "Error",
            "level": "high",
            "source": "k8s_audit",
            "output": "10:00:00.010002000: Error mirel@corp.example bound User tariq@corp.example to cluster-admin",
            "output_fields": {"ka.user.name": "mirel@corp.example", "ka.verb": "create"},
            "tags": ["attack.t1098.006"],
            "schema": "lapwing/v1",
            "detector": "rbac/cluster-admin-binding",
            "cluster": "prod",
            "k8s": {
                "verb": "create", "group": "rbac.authorization.k8s.io", "resource": "clusterrolebindings",
                "subresource": "", "namespace": "", "name": "night-shift", "user": "mirel@corp.example",
                "groups": ["system:authenticated"], "impersonated": null, "client_ip": "203.0.113.9",
                "forwarded_ips": [], "user_agent": "kubectl/v1.33.1", "code": 201, "decision": "allow",
                "outcome": "allowed", "stage": "ResponseComplete", "audit_id": "0b7c"
            },
            "evidence": [{
                "input": "evidence/audit.log", "offset": 18231, "length": 912, "sha256": "ab",
                "time": "2026-03-01T10:00:00.010002000Z", "audit_id": "0b7c"
            }]
        }))
        .unwrap()
    }
}
