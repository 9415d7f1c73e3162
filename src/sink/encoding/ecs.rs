//! Elastic Common Schema. <https://www.elastic.co/guide/en/ecs/current/>

use detectors::level::Level;
use serde_json::{Value, json};

use super::{technique, without_nothing};
use crate::sink::transport::Item;
use crate::view;

/// The version of the schema whose field names are used.
const VERSION: &str = "8.17.0";

/// The alert as a document.
pub(super) fn document(item: &Item) -> Value {
    let alert = &item.alert;
    let request = alert.k8s.as_ref();
    let techniques: Vec<_> = alert.tags.iter().filter_map(|tag| technique(tag)).collect();
    let outcome = request.map(|request| match request.outcome.as_str() {
        "allowed" => "success",
        "denied" | "failed" => "failure",
        _ => "unknown",
    });
    let field = |name: &str| alert.output_fields.get(name);
    without_nothing(json!({
        "@timestamp": alert.time,
        "ecs": {"version": VERSION},
        "message": view::message(alert),
        "tags": alert.tags,
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection"],
            "type": ["info"],
            "module": "lapwing",
            "dataset": alert.source,
            "action": request.map(|request| &request.verb),
            "outcome": outcome,
            "severity": severity(alert.level),
            "id": alert.uuid,
            "code": alert.detector,
            "start": item.alert.group.as_ref().map(|group| &group.first_seen),
            "end": item.alert.group.as_ref().map(|group| &group.last_seen),
        },
        "rule": {"id": alert.detector, "name": alert.rule},
        "log": {"level": alert.level.name()},
        "host": {"hostname": alert.hostname},
        "user": {"name": view::actor(alert), "effective": {"name": view::impersonated(alert)}},
        "source": {"ip": view::address(alert)},
        "user_agent": {"original": request.map(|request| &request.user_agent)},
        "url": {"original": field("ka.uri")},
        "http": {"response": {"status_code": request.and_then(|request| request.code)}},
        "orchestrator": {
            "type": "kubernetes",
            "cluster": {"name": alert.cluster},
            "namespace": view::namespace(alert),
            "resource": {"type": request.map(|request| &request.resource), "name": view::name(alert)},
        },
        "threat": {"framework": (!techniques.is_empty()).then_some("MITRE ATT&CK"), "technique": {"id": techniques}},
        "kubernetes": {"audit": {
            "id": request.map(|request| &request.audit_id),
            "stage": request.map(|request| &request.stage),
            "decision": request.and_then(|request| request.decision.as_deref()),
        }},
        "lapwing": {
            "schema": alert.schema,
            "priority": alert.priority,
            "output_fields": underscored(item),
            "evidence": alert.evidence,
            "partial": alert.partial,
            "approximate": alert.approximate,
            "steps": alert.steps,
            "count": item.alert.group.as_ref().map(|group| group.count).or(alert.count),
        },
    }))
}

/// The fields, with `_` for the dots in their names: a store that takes dots for objects cannot hold both `proc` and `proc.name`.
pub(in crate::sink) fn underscored(item: &Item) -> Value {
    let fields = item.alert.output_fields.iter();
    fields.map(|(name, value)| (name.replace('.', "_"), Value::from(value.as_str()))).collect()
}

/// Numbers as Elastic's own detections have them.
fn severity(level: Level) -> u8 {
    match level {
        Level::Informational => 1,
        Level::Low => 21,
        Level::Medium => 47,
        Level::High => 73,
        Level::Critical => 99,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Encoding;
    use crate::sink::tests::{alert, item, nasty};
    use crate::text;

    #[test]
    fn a_document_has_its_fields() {
        let document = document(&item(&alert()));
        for (pointer, expected) in [
            ("/@timestamp", json!("2026-03-01T10:00:00.010002000Z")),
            ("/event/kind", json!("alert")),
            ("/event/category", json!(["intrusion_detection"])),
            ("/event/action", json!("create")),
            ("/event/outcome", json!("success")),
            ("/event/id", json!("6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a")),
            ("/event/code", json!("rbac/cluster-admin-binding")),
            ("/rule/name", json!("Binding to cluster-admin")),
            ("/user/name", json!("mirel@corp.example")),
            ("/source/ip", json!("203.0.113.9")),
            ("/orchestrator/cluster/name", json!("prod")),
            ("/orchestrator/resource/name", json!("night-shift")),
            ("/threat/technique/id", json!(["T1098.006"])),
            ("/lapwing/output_fields/ka_user_name", json!("mirel@corp.example")),
        ] {
            assert_eq!(document.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(document.pointer("/user/effective"), None);
    }

    #[test]
    fn hostile_text_stays_text() {
        let item = item(&nasty());
        let line = Encoding::Ecs.line(&item);
        assert!(!line.chars().any(text::is_hostile));
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["user"]["name"], nasty().k8s.unwrap().user);
    }
}
