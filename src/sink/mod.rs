//! Where alerts go: one writer a form.

use std::io::{self, Write};

use detectors::alert::Alert;

mod csv;
mod jsonl;
mod pretty;

pub(crate) use pretty::{Page, style as level_style};

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
mod tests {
    use detectors::alert::Alert;

    /// An alert with everything in it.
    pub(super) fn alert() -> Alert {
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
