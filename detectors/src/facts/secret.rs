//! `secret.*`, `configmap.*`, `token.*`, `psa.*` and `truncated`: credentials, and what admission said about pods.
//!
//! Nothing here yields a secret's value; of what looks like one, facts give the key and the class.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::FactType::{Bool, Int, List, Text};
use super::object::{self, LIMIT, View};
use super::shape::{Shape, code, has_message, message, missing, sees_rest, text, text_or_missing};
use super::{Fact, Parts, credential};
use crate::event::Event;
use crate::event::time;
use crate::value::{Tri, Value};

const NOTES: Parts = Parts::NOTES;

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::body("secret.type", Text, secret_type).doc("A Secret's type; `Opaque` if the object names none."),
    Fact::body("secret.token-for", Text, secret_token_for).doc(
        "The service account that a token Secret is for (annotation `kubernetes.io/service-account.name`).",
    ),
    Fact::body("secret.bootstrap-authentication", Bool, bootstrap_authentication)
        .doc("True if a bootstrap token may be used to authenticate (`usage-bootstrap-authentication`)."),
    Fact::body("secret.bootstrap-expiration", Text, bootstrap_expiration)
        .doc("When a bootstrap token expires; absent if never."),
    Fact::body("configmap.credentials", List, configmap_credentials).doc(
        "`key: class` of every value of a ConfigMap that looks like a private-key, cloud-key, jwt, \
        connection-string, kubeconfig-token or password; never the value.",
    ),
    Fact::body("token.expiration-seconds", Int, token_expiration)
        .doc("`spec.expirationSeconds` of a TokenRequest."),
    Fact::body("token.bound", Bool, token_bound)
        .doc("True if a requested token is bound to an object (`spec.boundObjectRef`)."),
    Fact::body("token.audiences", List, token_audiences).doc("`spec.audiences` of a TokenRequest."),
    Fact::audit("token.legacy", Text, NOTES, token_legacy)
        .doc("The Secret of the legacy token that the request was made with; `yes` if it is not named."),
    Fact::audit("token.legacy-invalidated", Bool, NOTES, token_legacy_invalidated)
        .doc("True if the request was made with a legacy token that the server had invalidated."),
    Fact::audit("psa.violations", Text, NOTES, psa_violations)
        .doc("What Pod Security Admission's audit mode objects to (annotation `audit-violations`)."),
    Fact::audit("psa.enforce-denied", Bool, Parts::SHAPE, psa_enforce_denied)
        .doc("True if Pod Security Admission refused the request."),
    Fact::audit("psa.level", Text, NOTES.with(Parts::SHAPE), psa_level)
        .doc("The level (baseline or restricted) that the refusal or the violation names."),
    Fact::audit("truncated", Bool, NOTES, truncated).doc(
        "True if the API server took the bodies out because the event was too large for the audit backend.",
    ),
];

/// The object, if the request writes one of that kind.
fn object_on<'e, 'a>(
    event: &'e Event<'a>,
    resource: &str,
    subresource: &str,
) -> Result<&'e View<'a>, Value<'a>> {
    let shape = Shape::of(event);
    let wanted =
        if subresource.is_empty() { shape.on("", resource) } else { shape.on_sub(resource, subresource) };
    if wanted { object::object(event) } else { Err(Value::Absent) }
}

fn of_object<'a>(
    event: &Event<'a>,
    resource: &str,
    subresource: &str,
    fact: impl FnOnce(&View<'a>) -> Value<'a>,
) -> Value<'a> {
    object_on(event, resource, subresource).map_or_else(|without| without, fact)
}

fn secret_type<'a>(event: &Event<'a>) -> Value<'a> {
    of_object(event, "secrets", "", |secret| match secret.key("type").text() {
        Value::Absent => Value::text("Opaque"),
        other => other,
    })
}

fn secret_token_for<'a>(event: &Event<'a>) -> Value<'a> {
    of_object(event, "secrets", "", |secret| {
        secret.path(&["metadata", "annotations", "kubernetes.io/service-account.name"]).text()
    })
}

/// A value of a bootstrap token Secret, decoded; `Err` if there is none, or if it can't be seen.
fn bootstrap_value<'a>(event: &Event<'a>, key: &str) -> Result<String, Value<'a>> {
    let secret = object_on(event, "secrets", "")?;
    let kind = secret.key("type");
    match kind.str() {
        Some(kind) if kind == "bootstrap.kubernetes.io/token" => {}
        None if !kind.complete => return Err(Value::Unknown),
        _ => return Err(Value::Absent),
    }
    // The server writes stringData over data.
    let (plain, coded) = (secret.path(&["stringData", key]), secret.path(&["data", key]));
    if let Some(plain) = plain.str() {
        return Ok(plain.into_owned());
    }
    let coded = coded.str().ok_or_else(|| if plain.complete { coded.nothing() } else { Value::Unknown })?;
    let bytes = STANDARD.decode(coded.as_bytes()).map_err(|_| Value::Absent)?;
    String::from_utf8(bytes).map_err(|_| Value::Absent)
}

fn bootstrap_authentication<'a>(event: &Event<'a>) -> Value<'a> {
    of_object(event, "secrets", "", |_| match bootstrap_value(event, "usage-bootstrap-authentication") {
        Ok(value) => Value::Bool(value == "true"),
        Err(Value::Absent) => Value::Bool(false),
        Err(without) => without,
    })
}

fn bootstrap_expiration<'a>(event: &Event<'a>) -> Value<'a> {
    match bootstrap_value(event, "expiration") {
        // Anything but a time is not shown: it could be part of the secret.
        Ok(value) if time::parse(value.as_bytes()).is_some() => Value::Text(Cow::Owned(value)),
        Ok(_) => Value::Absent,
        Err(without) => without,
    }
}

fn configmap_credentials<'a>(event: &Event<'a>) -> Value<'a> {
    of_object(event, "configmaps", "", |map| {
        let (mut found, mut partial) = (Vec::new(), false);
        for (section, coded) in [("data", false), ("binaryData", true)] {
            let more = map.key(section).each_member(|key, value| {
                let Some(text) = value.str() else { return };
                match configmap_class(&key, &text, coded) {
                    Some(class) if found.len() < LIMIT => {
                        found.push(Value::Text(Cow::Owned(format!("{key}: {class}"))));
                    }
                    None if text.len() <= credential::LONGEST => {}
                    _ => {
                        value.bounds.hit();
                        partial = true;
                    }
                }
            });
            partial |= more;
        }
        Value::list_of(found, partial)
    })
}

fn configmap_class(key: &str, text: &str, coded: bool) -> Option<&'static str> {
    if !coded {
        return credential::class_of_file(key, text);
    }
    // Four characters make three bytes.
    let head = text.as_bytes().get(..credential::LONGEST).unwrap_or(text.as_bytes());
    let bytes = STANDARD.decode(&head[..head.len() / 4 * 4]).ok()?;
    credential::class_of_file(key, &String::from_utf8_lossy(&bytes))
}

fn token_expiration<'a>(event: &Event<'a>) -> Value<'a> {
    of_object(event, "serviceaccounts", "token", |token| token.path(&["spec", "expirationSeconds"]).int())
}

fn token_bound<'a>(event: &Event<'a>) -> Value<'a> {
    of_object(event, "serviceaccounts", "token", |token| {
        object::truth(token.path(&["spec", "boundObjectRef"]).exists())
    })
}

fn token_audiences<'a>(event: &Event<'a>) -> Value<'a> {
    of_object(event, "serviceaccounts", "token", |token| token.path(&["spec", "audiences"]).words().value())
}

/// True if the annotation is there, whatever it says.
fn noted(event: &Event<'_>, key: &str) -> Tri {
    match (event.annotation(key).is_some(), missing(event)) {
        (true, _) => Tri::True,
        (false, Value::Unknown) => Tri::Unknown,
        (false, _) => Tri::False,
    }
}

/// An annotation's text. Its presence is among the routing keys, its text is not.
fn note<'a>(event: &Event<'a>, key: &str) -> Value<'a> {
    let node = event.annotation(key);
    if node.is_some() && !sees_rest(event) {
        return Value::Unknown;
    }
    text_or_missing(event, text(node))
}

fn token_legacy<'a>(event: &Event<'a>) -> Value<'a> {
    const SECRETS: [&str; 3] = [
        "authentication.k8s.io/legacy-token-autogenerated-secret",
        "authentication.k8s.io/legacy-token-manual-secret",
        "authentication.k8s.io/legacy-token-invalidated",
    ];
    if let Some(key) = SECRETS.into_iter().find(|key| noted(event, key) == Tri::True) {
        return note(event, key);
    }
    match noted(event, "authentication.k8s.io/legacy-token") {
        Tri::True => Value::text("yes"),
        Tri::Unknown => Value::Unknown,
        Tri::False => Value::Absent,
    }
}

fn token_legacy_invalidated<'a>(event: &Event<'a>) -> Value<'a> {
    object::truth(noted(event, "authentication.k8s.io/legacy-token-invalidated"))
}

const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

fn psa_violations<'a>(event: &Event<'a>) -> Value<'a> {
    note(event, VIOLATIONS)
}

/// What every refusal and violation of Pod Security Admission says before it names the level: `violates PodSecurity
/// "restricted:latest"` or `would violate PodSecurity "baseline:v1.30"`.
const STANDARD_NAME: &str = "PodSecurity \"";

fn psa_enforce_denied<'a>(event: &Event<'a>) -> Value<'a> {
    match code(event) {
        None => return if missing(event) == Value::Unknown { Value::Unknown } else { Value::Bool(false) },
        Some(403) if has_message(event) => {}
        Some(_) => return Value::Bool(false),
    }
    if !sees_rest(event) {
        return Value::Unknown;
    }
    let violates = |message: Cow<'_, str>| message.contains("violates PodSecurity ");
    Value::Bool(message(event).is_some_and(violates))
}

fn psa_level<'a>(event: &Event<'a>) -> Value<'a> {
    let source = match psa_enforce_denied(event) {
        Value::Bool(true) => message(event).map_or(Value::Absent, Value::Text),
        Value::Unknown => Value::Unknown,
        _ => psa_violations(event),
    };
    let Value::Text(source) = source else { return source };
    let level = source.split_once(STANDARD_NAME).and_then(|(_, rest)| rest.split([':', '"']).next());
    level.map_or(Value::Absent, |level| Value::Text(Cow::Owned(level.to_owned())))
}

fn truncated<'a>(event: &Event<'a>) -> Value<'a> {
    match noted(event, "audit.k8s.io/truncated") {
        Tri::True if sees_rest(event) => Value::Bool(event.truncated()),
        Tri::True | Tri::Unknown => Value::Unknown,
        Tri::False => Value::Bool(false),
    }
}

#[cfg(test)]
mod tests {
    use crate::facts::tests::check;

    /// A create of an object of this kind.
    #[track_caller]
    fn check_create(resource: &str, object: &str, fact: &str, expected: &str) {
        let event = format!(
            r#"{{"verb": "create", "objectRef": {{"resource": "{resource}"}}, "requestObject": {object}}}"#
        );
        check(&event, fact, expected);
    }

    #[test]
    fn secrets_have_a_type() {
        check_create("secrets", r#"{"type": "kubernetes.io/tls"}"#, "secret.type", "kubernetes.io/tls");
        check_create("secrets", "{}", "secret.type", "Opaque");
        check_create("configmaps", "{}", "secret.type", "-");
        check(
            r#"{"verb": "get", "objectRef": {"resource": "secrets"}, "responseObject": {"type": "x"}}"#,
            "secret.type",
            "-",
        );
        check(
            r#"{"verb": "create", "level": "Metadata", "objectRef": {"resource": "secrets"}}"#,
            "secret.type",
            "?",
        );
        let token = r#"{"metadata": {"annotations": {"kubernetes.io/service-account.name": "web"}}}"#;
        check_create("secrets", token, "secret.token-for", "web");
    }

    #[test]
    fn bootstrap_tokens_show_their_use_and_their_end() {
        let secret = |data: &str| format!(r#"{{"type": "bootstrap.kubernetes.io/token", {data}}}"#);
        let coded = secret(
            r#""data": {"usage-bootstrap-authentication": "dHJ1ZQ==", "expiration": "MjAyNi0wMy0wMVQxMDowMDowMFo="}"#,
        );
        check_create("secrets", &coded, "secret.bootstrap-authentication", "true");
        check_create("secrets", &coded, "secret.bootstrap-expiration", "2026-03-01T10:00:00Z");
        let plain = secret(r#""stringData": {"usage-bootstrap-authentication": "true"}"#);
        check_create("secrets", &plain, "secret.bootstrap-authentication", "true");
        check_create("secrets", &plain, "secret.bootstrap-expiration", "-");
        check_create(
            "secrets",
            r#"{"data": {"expiration": "c2VjcmV0"}}"#,
            "secret.bootstrap-expiration",
            "-",
        );
        let odd = secret(r#""data": {"expiration": "c2VjcmV0"}"#);
        check_create("secrets", &odd, "secret.bootstrap-expiration", "-");
    }

    #[test]
    fn config_maps_name_keys_and_classes() {
        let map = r#"{"data": {"db.password": "hunter2", "ca.crt": "-----BEGIN CERTIFICATE-----\nMIID", "mode": "x"},
            "binaryData": {"key.pem": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1JSUV2UQ=="}}"#;
        check_create(
            "configmaps",
            map,
            "configmap.credentials",
            "[db.password: password, key.pem: private-key]",
        );
        check_create("configmaps", r#"{"data": {"a": "b"}}"#, "configmap.credentials", "-");
        let patch = r#"{"verb": "patch", "objectRef": {"resource": "configmaps"}, "requestObject":
            [{"op": "add", "path": "/data/password", "value": "hunter2"}]}"#;
        check(patch, "configmap.credentials", "[password: password, ..]");
    }

    #[track_caller]
    fn check_token(spec: &str, fact: &str, expected: &str) {
        let event = format!(
            r#"{{"verb": "create", "objectRef": {{"resource": "serviceaccounts", "subresource": "token", "name": "a"}},
                "requestObject": {{"spec": {spec}}}, "responseObject": {{"kind": "Status"}}}}"#
        );
        check(&event, fact, expected);
    }

    #[test]
    fn token_requests() {
        check_token(r#"{"expirationSeconds": 604800}"#, "token.expiration-seconds", "604800");
        check_token("{}", "token.expiration-seconds", "-");
        check_token(r#"{"boundObjectRef": {"kind": "Pod"}}"#, "token.bound", "true");
        check_token(r#"{"boundObjectRef": null}"#, "token.bound", "false");
        check_token(r#"{"audiences": ["vault"]}"#, "token.audiences", "[vault]");
    }

    #[track_caller]
    fn check_note(name: &str, value: &str, fact: &str, expected: &str) {
        check(&format!(r#"{{"annotations": {{"{name}": "{value}"}}}}"#), fact, expected);
    }

    #[test]
    fn legacy_tokens() {
        check_note("authentication.k8s.io/legacy-token", "system:serviceaccount:a:b", "token.legacy", "yes");
        check_note("authentication.k8s.io/legacy-token-manual-secret", "old", "token.legacy", "old");
        check_note(
            "authentication.k8s.io/legacy-token-invalidated",
            "old/shop",
            "token.legacy-invalidated",
            "true",
        );
        check("{}", "token.legacy", "-");
        check("{}", "token.legacy-invalidated", "false");
    }

    #[test]
    fn pod_security() {
        let note = "pod-security.kubernetes.io/audit-violations";
        let text = r#"would violate PodSecurity \"restricted:latest\": x"#;
        check_note(note, text, "psa.level", "restricted");
        check_note(note, text, "psa.enforce-denied", "false");
        check_note(note, "x", "psa.violations", "x");
        let denied = r#"{"responseStatus": {"code": 403, "message": "x is forbidden: violates PodSecurity \"baseline:v1.30\": y"}}"#;
        check(denied, "psa.enforce-denied", "true");
        check(denied, "psa.level", "baseline");
        check_note("audit.k8s.io/truncated", "true", "truncated", "true");
        check("{}", "truncated", "false");
    }
}
