//! What is kept in a Secret, in a token and in a variable of a container is in no alert, whatever stands around it.
#![no_main]

use std::sync::OnceLock;

use detectors::engine::{Emitted, Engine, Origin};
use detectors::redact;
use detectors::rules::{self, File, Tuning};
use detectors::settings::Settings;
use libfuzzer_sys::fuzz_target;

/// A value, and the same in base64.
const CANARY: &str = "c4n4ry-0f-Th3-f1r5t-W4t3r";
const CODED: &str = "YzRuNHJ5LTBmLVRoMy1mMXI1dC1XNHQzcg==";

/// A rule that matches everything and shows all it can.
const RULE: &str = "
title: Everything
name: own/everything
logsource: {product: kubernetes, service: audit}
detection:
  seen: {auditID: '*'}
  condition: seen
fields: [requestObject.data, requestObject.stringData.k, requestObject.spec.containers.env.value, requestObject.metadata,
  responseObject.status.token, responseObject.data.k, requestObject, responseObject, pod.containers, token.audiences]
message: '{actor.name} {action} {target.name} {requestObject.data.k} {responseObject.status} {requestObject.kind}'
";

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let settings = Settings::default();
        let file = File { name: "rule.yml".to_owned(), yaml: RULE.to_owned(), folder: None };
        let rules = rules::read(&[file], &settings);
        assert!(rules::errors(&rules).is_empty(), "{:?}", rules.problems);
        rules::assemble(rules, settings, &Tuning::default()).expect("good rules")
    })
}

const VERBS: [&str; 6] = ["create", "update", "patch", "get", "list", "delete"];
const TARGETS: [&str; 5] = [
    r#""resource":"secrets""#,
    r#""resource":"pods""#,
    r#""resource":"configmaps""#,
    r#""resource":"serviceaccounts","subresource":"token""#,
    r#""resource":"clusterrolebindings","apiGroup":"rbac.authorization.k8s.io""#,
];

/// An event with the canary where secrets are kept; `metadata` and `annotations` stand beside it.
fn event(verb: &str, target: &str, metadata: &str, annotations: &str) -> String {
    let held = format!(
        r#""metadata":{metadata},"data":{{"k":"{CODED}","id_rsa":"{CODED}"}},"stringData":{{"k":"{CANARY}"}},
        "spec":{{"containers":[{{"name":"c","image":"x","env":[{{"name":"DB_PASSWORD","value":"{CANARY}"}}]}}]}},
        "status":{{"token":"{CANARY}"}}"#
    )
    .replace('\n', " ");
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"1","stage":"ResponseComplete","requestURI":"/api/v1/x","verb":"{verb}","user":{{"username":"dana"}},"sourceIPs":["203.0.113.9"],"userAgent":"curl/8","objectRef":{{{target},"namespace":"n","name":"o"}},"responseStatus":{{"code":200}},"requestObject":{{{held}}},"responseObject":{{{held}}},"stageTimestamp":"2026-03-01T10:00:00.000000Z","annotations":{annotations}}}"#
    )
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = (redact::scrub(&text), redact::scrub_words(&text), redact::tokens(&text), redact::uri(&text));
    let [verb, target, rest @ ..] = bytes else { return };
    let text = String::from_utf8_lossy(rest);
    let (metadata, annotations) = text.split_once('\n').unwrap_or((&text, "{}"));
    let object =
        |part: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(part).is_ok();
    if !object(metadata) || !object(annotations) || text.contains("c4n4ry") || text.contains("YzRuNH") {
        return;
    }
    let verb = VERBS[usize::from(*verb) % VERBS.len()];
    let target = TARGETS[usize::from(*target) % TARGETS.len()];
    let line = event(verb, target, &metadata.replace('\r', " "), &annotations.replace(['\r', '\n'], " "));
    let mut emitted = Vec::new();
    engine().worker().lines(Origin { input: "fuzz", offset: 0 }, line.as_bytes(), &mut emitted);
    let mut shown = 0;
    for one in emitted {
        if let Emitted::Alert(found) = one {
            let alert = serde_json::to_string(&found.alert).expect("an alert is JSON");
            assert!(!alert.contains("c4n4ry") && !alert.contains("YzRuNH"), "{alert}");
            shown += 1;
        }
    }
    assert!(shown > 0, "the event is judged: {line}");
});
