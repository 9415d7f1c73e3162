//! `action` and `outcome`: what was asked, and what came of it.
//!
//! Neither trusts the authorization decision: a request that RBAC allowed may still be refused by admission, or fail.

use std::sync::LazyLock;

use memchr::memmem;

use super::FactType::{Int, List, Text};
use super::shape::{RBAC_GROUP, Shape, code, has_message, message, missing, sees_rest, text, texts};
use super::{Fact, Parts, actor, query};
use crate::event::{Event, Top};
use crate::scan::unescape;
use crate::value::Value;

const SHAPE: Parts = Parts::SHAPE;

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::audit("action", List, SHAPE, action).doc(
        "Every class that holds: read (get, list, watch); write (create, update, patch, delete, \
        deletecollection); connect, pod.exec, pod.attach, pod.port-forward, pod.proxy, service.proxy, \
        node.proxy; rbac.write (any write), rbac.bind and rbac.define (create, update, patch of bindings \
        or roles); secret.read, secret.list (list, watch), secret.write; configmap.write; pod.create (also \
        by server-side apply), pod.debug (ephemeral containers), workload.write (create, update, patch of \
        pods and all that has a pod template, and pod.debug); volume.write; service-account.create; \
        token.create.",
    ),
    Fact::audit("outcome", Text, SHAPE, outcome).doc(
        "allowed (2xx or 101), denied (401, 403, or another 4xx by which admission refused), failed (any \
        other error, panic), dry-run (would be allowed, changed nothing), or unknown (no status, a \
        redirect, or a connection that the client closed early).",
    ),
    Fact::audit("outcome.cause", Text, SHAPE, cause).doc(
        "Who refused a denied request: authentication, rbac (any authorizer), impersonation, escalation, \
        pod-security, webhook, policy, quota, node-restriction, websocket-create (the check of 1.35) or \
        other.",
    ),
    Fact::audit("outcome.message", Text, SHAPE, outcome_message).doc("`responseStatus.message`."),
    Fact::audit("outcome.code", Int, SHAPE, outcome_code).doc("`responseStatus.code`."),
];

fn action<'a>(event: &Event<'a>) -> Value<'a> {
    let shape = Shape::of(event);
    if shape.verb.is_empty() {
        return missing(event);
    }
    let mut classes = Vec::new();
    let mut add = |holds: bool, class: &'static str| {
        if holds {
            classes.push(Value::text(class));
        }
    };
    let (reads, stores) = (shape.reads(), shape.stores());
    let writes = stores || shape.deletes();
    let creates = shape.verb == "create";
    add(reads, "read");
    add(writes, "write");
    if let Some(entry) = connection(shape) {
        add(true, "connect");
        add(true, entry);
    }
    let binding = shape.on(RBAC_GROUP, "rolebindings") || shape.on(RBAC_GROUP, "clusterrolebindings");
    let role = shape.on(RBAC_GROUP, "roles") || shape.on(RBAC_GROUP, "clusterroles");
    add(writes && (binding || role), "rbac.write");
    add(stores && binding, "rbac.bind");
    add(stores && role, "rbac.define");
    let secret = shape.on("", "secrets");
    add(reads && secret, "secret.read");
    add(secret && matches!(&*shape.verb, "list" | "watch"), "secret.list");
    add(writes && secret, "secret.write");
    add(stores && shape.on("", "configmaps"), "configmap.write");
    let debugs = shape.on_sub("pods", "ephemeralcontainers") && stores && !creates;
    add(debugs, "pod.debug");
    let applied = || shape.verb == "patch" && code(event) == Some(201);
    add(shape.on("", "pods") && (creates || applied()), "pod.create");
    let workload = shape.subresource.is_empty() && pod_path(shape).is_some();
    add(debugs || stores && workload, "workload.write");
    add(stores && shape.on("", "persistentvolumes"), "volume.write");
    add(creates && shape.on("", "serviceaccounts"), "service-account.create");
    add(creates && shape.on_sub("serviceaccounts", "token"), "token.create");
    Value::list_of(classes, false)
}

/// The class of a connect request. What enters a pod is a get (WebSocket) or a create; what is proxied may be anything.
fn connection(shape: &Shape<'_>) -> Option<&'static str> {
    match (shape.entry(), shape.proxied()) {
        (Some("exec"), _) => Some("pod.exec"),
        (Some("attach"), _) => Some("pod.attach"),
        (Some(_), _) => Some("pod.port-forward"),
        (None, Some("pods")) => Some("pod.proxy"),
        (None, Some("services")) => Some("service.proxy"),
        (None, Some(_)) => Some("node.proxy"),
        (None, None) => None,
    }
}

/// Where the pod's spec lies in an object of the target's kind; `None` if it has none.
pub(super) fn pod_path(shape: &Shape<'_>) -> Option<&'static [&'static str]> {
    let template: &[&str] = &["spec", "template", "spec"];
    let path = match (&*shape.group, &*shape.resource, &*shape.subresource) {
        ("", "pods", "" | "ephemeralcontainers") => &["spec"],
        ("", "replicationcontrollers", "")
        | ("batch", "jobs", "")
        | ("apps" | "extensions", "deployments" | "daemonsets" | "replicasets", "")
        | ("apps", "statefulsets", "") => template,
        ("batch", "cronjobs", "") => &["spec", "jobTemplate", "spec", "template", "spec"],
        ("", "podtemplates", "") => &["template", "spec"],
        _ => return None,
    };
    Some(path)
}

/// What `dryRun` begins with in a query and in delete options.
static DRY: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("dry"));

/// True if the request may be a dry run, as far as routing keys tell: an event's class is no finer than this.
pub(crate) fn may_be_dry_run(event: &Event<'_>) -> bool {
    let says = |key| event.node(key).is_some_and(|node| DRY.find(node.raw()).is_some());
    let verb = event.raw(Top::Verb).unwrap_or_default();
    let decoded = verb.contains(&b'\\').then(|| unescape(verb));
    match decoded.as_deref().map_or(verb, str::as_bytes) {
        b"create" | b"update" | b"patch" => says(Top::RequestUri),
        b"delete" | b"deletecollection" => says(Top::RequestUri) || says(Top::RequestObject),
        _ => false,
    }
}

/// True if the request asks for a dry run: `dryRun=All` in the query, or in the options that a delete sends as its body
/// (which level Metadata does not show). Only where it is spelled without escapes: clients do, and an escaped spelling may
/// not pass one class of events off as another.
pub fn dry_run(event: &Event<'_>) -> bool {
    if !may_be_dry_run(event) {
        return false;
    }
    let options = || event.node(Top::RequestObject)?.get("dryRun");
    let deletes = Shape::of(event).deletes();
    if deletes && options().is_some_and(|all| texts(all, 16).0.iter().any(|text| text == "All")) {
        return true;
    }
    query::Query::of(event).first("dryRun") == Some("All")
}

/// What the API server reports in place of a status when the connection ended before there was one.
const CLOSED_EARLY: &str = "Connection closed early";

fn outcome<'a>(event: &Event<'a>) -> Value<'a> {
    if event.text(Top::Stage).is_some_and(|stage| stage == "Panic") {
        return Value::text("failed");
    }
    let Some(code) = code(event) else {
        return match missing(event) {
            Value::Unknown => Value::Unknown,
            _ => Value::text("unknown"),
        };
    };
    let judged_by_message = matches!(code, 101 | 200..=299 | 400 | 402 | 404..=499);
    let judged_by_query = matches!(code, 101 | 200..=299) && may_be_dry_run(event);
    if (judged_by_message && has_message(event) || judged_by_query) && !sees_rest(event) {
        return Value::Unknown;
    }
    let message = || message(event).unwrap_or_default();
    Value::text(match code {
        101 | 200..=299 if message() == CLOSED_EARLY => "unknown",
        101 | 200..=299 if dry_run(event) => "dry-run",
        101 | 200..=299 => "allowed",
        401 | 403 => "denied",
        400..=499 if refused_by(&message()).is_some() => "denied",
        400.. => "failed",
        _ => "unknown",
    })
}

/// Which admission check a message speaks of.
fn refused_by(message: &str) -> Option<&'static str> {
    let has = |text: &str| message.contains(text);
    if has("admission webhook ") && has(" denied the request") {
        Some("webhook")
    } else if has("ValidatingAdmissionPolicy ") && has(" denied request") {
        Some("policy")
    } else if has("violates PodSecurity ")
        || has("PodSecurityPolicy: ")
        || has("unable to validate against any security context constraint")
    {
        Some("pod-security")
    } else if has("exceeded quota") || has("failed quota") {
        Some("quota")
    } else if has("attempting to grant") && has("not currently held") {
        Some("escalation")
    } else {
        None
    }
}

fn cause<'a>(event: &Event<'a>) -> Value<'a> {
    match outcome(event) {
        Value::Unknown => return Value::Unknown,
        Value::Text(outcome) if outcome == "denied" => {}
        _ => return Value::Absent,
    }
    if code(event) == Some(401) {
        return Value::text("authentication");
    }
    if !sees_rest(event) {
        return Value::Unknown;
    }
    let message = message(event).unwrap_or_default();
    let decision = text(event.annotation("authorization.k8s.io/decision"));
    Value::text(match decision.as_deref() {
        Some("forbid") => "rbac",
        _ if refused_by(&message).is_some() => refused_by(&message).unwrap_or_default(),
        // A refused impersonation has no decision, and is not logged as an impersonation.
        None if message.contains("cannot impersonate") => "impersonation",
        // Some exporters drop the annotations.
        None if message.contains(" cannot ") => "rbac",
        _ if is_node(event) => "node-restriction",
        Some("allow") if Shape::of(event).entry().is_some() && Shape::of(event).verb == "get" => {
            "websocket-create"
        }
        _ => "other",
    })
}

/// True if the actor is a kubelet, the only identity that the NodeRestriction admission plugin restricts.
fn is_node(event: &Event<'_>) -> bool {
    let named = actor::actor(event).is_some_and(|name| name.starts_with("system:node:"));
    named && actor::actor_groups(event).0.iter().any(|group| group == "system:nodes")
}

fn outcome_message<'a>(event: &Event<'a>) -> Value<'a> {
    match (has_message(event), sees_rest(event)) {
        (true, false) => Value::Unknown,
        _ => message(event).map_or_else(|| missing(event), Value::Text),
    }
}

fn outcome_code<'a>(event: &Event<'a>) -> Value<'a> {
    code(event).map_or_else(|| missing(event), Value::Int)
}

#[cfg(test)]
mod tests {
    use crate::facts::tests::{check, check_raw};

    #[track_caller]
    fn check_action(verb: &str, object: &str, expected: &str) {
        check(&format!(r#"{{"verb": "{verb}", "objectRef": {object}}}"#), "action", expected);
    }

    #[test]
    fn classes_need_the_exact_resource_and_subresource() {
        check_action("get", r#"{"resource": "secrets"}"#, "[read, secret.read]");
        check_action(
            "watch",
            r#"{"resource": "secrets", "apiGroup": "core"}"#,
            "[read, secret.read, secret.list]",
        );
        check_action("list", r#"{"resource": "secrets", "apiGroup": "example.com"}"#, "[read]");
        check_action("delete", r#"{"resource": "secrets"}"#, "[write, secret.write]");
        check_action("patch", r#"{"resource": "configmaps"}"#, "[write, configmap.write]");
        check_action("patch", r#"{"resource": "pods", "subresource": "status"}"#, "[write]");
        check_action(
            "update",
            r#"{"resource": "deployments", "apiGroup": "apps", "subresource": "scale"}"#,
            "[write]",
        );
        check_action("create", r#"{"resource": "serviceaccounts"}"#, "[write, service-account.create]");
        check_action(
            "create",
            r#"{"resource": "serviceaccounts", "subresource": "token"}"#,
            "[write, token.create]",
        );
        check_action("update", r#"{"resource": "persistentvolumes"}"#, "[write, volume.write]");
        check("{\"verb\": null}", "action", "-");
    }

    #[test]
    fn rbac_is_told_apart() {
        let group = r#""apiGroup": "rbac.authorization.k8s.io""#;
        let on = |resource: &str| format!(r#"{{"resource": "{resource}", {group}}}"#);
        check_action("create", &on("rolebindings"), "[write, rbac.write, rbac.bind]");
        check_action("patch", &on("clusterroles"), "[write, rbac.write, rbac.define]");
        check_action("delete", &on("clusterrolebindings"), "[write, rbac.write]");
        check_action("create", r#"{"resource": "roles"}"#, "[write]");
    }

    #[test]
    fn connections_are_get_or_create_and_proxies_any_verb() {
        check_action("get", r#"{"resource": "pods", "subresource": "exec"}"#, "[read, connect, pod.exec]");
        check_action(
            "create",
            r#"{"resource": "pods", "subresource": "exec"}"#,
            "[write, connect, pod.exec]",
        );
        check_action(
            "create",
            r#"{"resource": "pods", "subresource": "portforward"}"#,
            "[write, connect, pod.port-forward]",
        );
        check_action(
            "delete",
            r#"{"resource": "services", "subresource": "proxy"}"#,
            "[write, connect, service.proxy]",
        );
        check_action(
            "get",
            r#"{"resource": "nodes", "subresource": "proxy"}"#,
            "[read, connect, node.proxy]",
        );
        check_action("proxy", r#"{"resource": "nodes"}"#, "[connect, node.proxy]");
        check_action("get", r#"{"resource": "pods", "subresource": "log"}"#, "[read]");
    }

    #[test]
    fn all_that_has_a_pod_template_is_a_workload() {
        check_action("create", r#"{"resource": "pods"}"#, "[write, pod.create, workload.write]");
        for object in [
            r#"{"resource": "deployments", "apiGroup": "apps"}"#,
            r#"{"resource": "daemonsets", "apiGroup": "extensions"}"#,
            r#"{"resource": "statefulsets", "apiGroup": "apps"}"#,
            r#"{"resource": "cronjobs", "apiGroup": "batch"}"#,
            r#"{"resource": "jobs", "apiGroup": "batch"}"#,
            r#"{"resource": "replicationcontrollers"}"#,
            r#"{"resource": "podtemplates"}"#,
        ] {
            check_action("update", object, "[write, workload.write]");
        }
        check_action("create", r#"{"resource": "jobs", "apiGroup": "batch.volcano.sh"}"#, "[write]");
        check_action(
            "patch",
            r#"{"resource": "pods", "subresource": "ephemeralcontainers"}"#,
            "[write, pod.debug, workload.write]",
        );
    }

    #[test]
    fn server_side_apply_creates_pods_too() {
        let event = |code: u16| {
            format!(
                r#"{{"verb": "patch", "objectRef": {{"resource": "pods"}}, "responseStatus": {{"code": {code}}}}}"#
            )
        };
        check(&event(201), "action", "[write, pod.create, workload.write]");
        check(&event(200), "action", "[write, workload.write]");
    }

    #[track_caller]
    fn check_outcome(special: &str, outcome: &str, cause: &str) {
        check(special, "outcome", outcome);
        check(special, "outcome.cause", cause);
    }

    #[test]
    fn the_code_decides_and_not_the_decision() {
        check_outcome("{}", "allowed", "-");
        check_outcome(r#"{"responseStatus": {"code": 101}}"#, "allowed", "-");
        check_outcome(r#"{"responseStatus": {"code": "201"}}"#, "allowed", "-");
        check_outcome(r#"{"responseStatus": {"Code": 201}}"#, "allowed", "-");
        check_outcome(r#"{"responseStatus": {"code": 404, "message": "not found"}}"#, "failed", "-");
        check_outcome(r#"{"responseStatus": {"code": 302}}"#, "unknown", "-");
        check_outcome(r#"{"responseStatus": null, "stage": "RequestReceived"}"#, "unknown", "-");
        check_outcome(r#"{"responseStatus": {"code": 500}, "stage": "Panic"}"#, "failed", "-");
        check_outcome(
            r#"{"responseStatus": {"code": 200, "message": "Connection closed early"}}"#,
            "unknown",
            "-",
        );
        check_outcome(
            r#"{"responseStatus": {"code": 409}, "annotations": {"authorization.k8s.io/decision": "allow"}}"#,
            "failed",
            "-",
        );
    }

    #[test]
    fn an_event_that_was_cut_before_its_status_tells_nothing() {
        check_raw(r#"{"auditID": "1", "verb": "get", "objectRef": {"resource": "sec"#, "outcome", "?");
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let write = |uri: &str| {
            format!(r#"{{"verb": "create", "requestURI": "{uri}", "objectRef": {{"resource": "pods"}}}}"#)
        };
        check_outcome(&write("/x?fieldManager=a\\u0026dryRun=All"), "dry-run", "-");
        check_outcome(&write("/x?dryRun="), "allowed", "-");
        check_outcome(&write("/laundry"), "allowed", "-");
        check_outcome(r#"{"verb": "delete", "requestObject": {"dryRun": ["All"]}}"#, "dry-run", "-");
        check_outcome(r#"{"verb": "get", "requestURI": "/x?dryRun=All"}"#, "allowed", "-");
        check_outcome(
            r#"{"verb": "create", "requestURI": "/x?dryRun=All", "responseStatus": {"code": 403}}"#,
            "denied",
            "other",
        );
    }

    #[track_caller]
    fn check_refusal(code: u16, decision: &str, message: &str, cause: &str) {
        let event = format!(
            r#"{{"verb": "create", "objectRef": {{"resource": "pods"}},
                "annotations": {{"authorization.k8s.io/decision": "{decision}"}},
                "responseStatus": {{"code": {code}, "message": "{message}"}}}}"#
        );
        check_outcome(&event, "denied", cause);
    }

    #[test]
    fn refusals_have_causes() {
        check_refusal(403, "forbid", "pods is forbidden: User cannot create resource", "rbac");
        check_refusal(401, "", "Unauthorized", "authentication");
        check_refusal(403, "allow", "violates PodSecurity \\\"restricted:latest\\\": x", "pod-security");
        check_refusal(400, "allow", "admission webhook \\\"a.b\\\" denied the request: no", "webhook");
        check_refusal(
            422,
            "allow",
            "x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            "policy",
        );
        check_refusal(
            403,
            "allow",
            "pods \\\"a\\\" is forbidden: exceeded quota: q, requested: cpu=1",
            "quota",
        );
        check_refusal(
            403,
            "allow",
            "user \\\"d\\\" (groups=[]) is attempting to grant RBAC permissions not currently held:",
            "escalation",
        );
        check_refusal(403, "allow", "no service account", "other");
    }

    #[test]
    fn a_refused_impersonation_has_neither_decision_nor_impersonated_user() {
        let message = r#"users \"root\" is forbidden: User \"dana\" cannot impersonate resource \"users\" in API group \"\""#;
        let event = format!(r#"{{"responseStatus": {{"code": 403, "message": "{message}"}}}}"#);
        check_outcome(&event, "denied", "impersonation");
    }

    #[test]
    fn refusals_that_only_the_request_tells_apart() {
        let allowed =
            r#""annotations": {"authorization.k8s.io/decision": "allow"}, "responseStatus": {"code": 403}"#;
        let node = r#""user": {"username": "system:node:n", "groups": ["system:nodes"]}"#;
        check_outcome(&format!(r#"{{{allowed}, "verb": "update", {node}}}"#), "denied", "node-restriction");
        let exec = r#""verb": "get", "objectRef": {"resource": "pods", "subresource": "exec"}"#;
        check_outcome(&format!("{{{allowed}, {exec}}}"), "denied", "websocket-create");
    }
}
