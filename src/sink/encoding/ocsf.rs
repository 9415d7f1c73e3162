//! OCSF 1.1.0, class Detection Finding (2004).
//!
//! <https://schema.ocsf.io/1.1.0/classes/detection_finding>. What the class has no place for stands under `unmapped`. The time
//! is the event's: when it was noticed matters to nobody.

use detectors::event::time;
use detectors::level::Level;
use serde_json::{Value, json};

use super::{technique, without_nothing};
use crate::sink::transport::Item;
use crate::view;

/// Nanoseconds in a millisecond.
const MILLI: i64 = 1_000_000;

/// The alert as a finding.
pub(super) fn finding(item: &Item) -> Value {
    let alert = &item.alert;
    let (severity, severity_id) = severity(alert.level);
    // A follow-up updates the finding that its group began with.
    let (activity, activity_id) = if item.alert.group.is_some() { ("Update", 2) } else { ("Create", 1) };
    let moment = millis(&alert.time);
    let attacks: Vec<_> = alert
        .tags
        .iter()
        .filter_map(|tag| technique(tag))
        .map(|id| json!({"technique": {"uid": id}, "version": "14.1"}))
        .collect();
    let related = item.alert.group.as_ref();
    without_nothing(json!({
        "activity_id": activity_id,
        "activity_name": activity,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200_400 + activity_id,
        "type_name": format!("Detection Finding: {activity}"),
        "time": moment,
        "severity": severity,
        "severity_id": severity_id,
        "status": "New",
        "status_id": 1,
        "message": view::message(alert),
        "metadata": {
            "version": "1.1.0",
            "uid": alert.uuid,
            "product": {"name": "Lapwing", "vendor_name": "Lapwing", "version": env!("CARGO_PKG_VERSION")},
            "log_name": alert.source,
        },
        "finding_info": {
            "uid": alert.uuid,
            "title": alert.rule,
            "desc": view::message(alert),
            "created_time": moment,
            "analytic": {"type_id": 1, "type": "Rule", "name": alert.rule, "uid": alert.detector},
            "attacks": attacks,
        },
        "evidences": evidences(item),
        "resources": resources(item),
        "count": related.map(|group| group.count).or(alert.count),
        "start_time": related.map(|group| millis(&group.first_seen)),
        "end_time": related.map(|group| millis(&group.last_seen)),
        "unmapped": serde_json::from_str::<Value>(&item.line).unwrap_or_default(),
    }))
}

/// Who did what from where.
fn evidences(item: &Item) -> Vec<Value> {
    let alert = &item.alert;
    let user = view::actor(alert);
    let api = alert.k8s.as_ref().map(|request| {
        json!({
            "operation": request.verb,
            "request": {"uid": request.audit_id},
            "response": {"code": request.code},
            "service": {"name": "kubernetes"},
        })
    });
    let evidence = without_nothing(json!({
        "api": api,
        "actor": {"user": {"name": user, "groups": alert.k8s.as_ref().map(|request| {
            request.groups.iter().map(|group| json!({"name": group})).collect::<Vec<_>>()
        })}},
        "src_endpoint": {"ip": view::address(alert)},
    }));
    if evidence.as_object().is_none_or(serde_json::Map::is_empty) { Vec::new() } else { vec![evidence] }
}

/// What it was done to.
fn resources(item: &Item) -> Vec<Value> {
    let alert = &item.alert;
    let resource = without_nothing(json!({
        "type": view::resource(alert),
        "name": view::name(alert),
        "namespace": view::namespace(alert),
        "labels": alert.cluster.as_ref().map(|cluster| vec![format!("cluster={cluster}")]),
    }));
    if resource.get("name").is_none() && resource.get("type").is_none() { Vec::new() } else { vec![resource] }
}

fn severity(level: Level) -> (&'static str, u8) {
    match level {
        Level::Informational => ("Informational", 1),
        Level::Low => ("Low", 2),
        Level::Medium => ("Medium", 3),
        Level::High => ("High", 4),
        Level::Critical => ("Critical", 5),
    }
}

fn millis(moment: &str) -> i64 {
    time::parse(moment.as_bytes()).unwrap_or_default().div_euclid(MILLI)
}

#[cfg(test)]
mod tests {
    use detectors::alert::Group;

    use super::*;
    use crate::sink::Encoding;
    use crate::sink::tests::{alert, item, nasty};
    use crate::text;

    #[test]
    fn a_finding_has_what_the_class_requires() {
        let finding = finding(&item(&alert()));
        for (pointer, expected) in [
            ("/activity_id", json!(1)),
            ("/category_uid", json!(2)),
            ("/class_uid", json!(2004)),
            ("/type_uid", json!(200_401)),
            ("/time", json!(1_772_359_200_010_i64)),
            ("/severity_id", json!(4)),
            ("/metadata/version", json!("1.1.0")),
            ("/metadata/product/name", json!("Lapwing")),
            ("/finding_info/uid", json!("6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a")),
            ("/finding_info/title", json!("Binding to cluster-admin")),
            ("/finding_info/analytic/uid", json!("rbac/cluster-admin-binding")),
            ("/finding_info/attacks/0/technique/uid", json!("T1098.006")),
            ("/evidences/0/api/operation", json!("create")),
            ("/evidences/0/actor/user/name", json!("mirel@corp.example")),
            ("/evidences/0/src_endpoint/ip", json!("203.0.113.9")),
            ("/resources/0/name", json!("night-shift")),
            ("/unmapped/evidence/0/offset", json!(18231)),
        ] {
            assert_eq!(finding.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(finding.get("count"), None);
    }

    #[test]
    fn a_follow_up_updates() {
        let mut followed = (*item(&alert())).clone();
        followed.alert.group = Some(Group {
            count: 7,
            first_seen: "2026-03-01T10:00:00Z".into(),
            last_seen: "2026-03-01T10:30:00Z".into(),
        });
        let finding = finding(&followed);
        assert_eq!(finding["type_uid"], 200_402);
        assert_eq!(finding["count"], 7);
        assert_eq!(finding["end_time"], 1_772_361_000_000_i64);
    }

    #[test]
    fn hostile_text_stays_text() {
        let item = item(&nasty());
        let line = Encoding::Ocsf.line(&item);
        assert!(!line.chars().any(text::is_hostile));
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["resources"][0]["name"], nasty().k8s.unwrap().name);
    }
}
