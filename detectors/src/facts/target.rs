//! `target.*`: what a request was about.

use std::borrow::Cow;

use super::FactType::{Bool, Text};
use super::query::{Query, path};
use super::shape::{Shape, missing, sees_rest, text, text_or_missing};
use super::{BOTH, Fact, Parts, falco, object};
use crate::event::{Event, Stream, Top};
use crate::value::Value;

const SHAPE: Parts = Parts::SHAPE;
const NAME: Parts = Parts::NAME.with(Parts::SHAPE);
const REST: Parts = Parts::REST;

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::audit("target.group", Text, SHAPE, group)
        .doc("API group of the resource; empty for the core group, absent without a resource."),
    Fact::audit("target.resource", Text, SHAPE, resource).doc("The resource, in plural and lower case."),
    Fact::audit("target.subresource", Text, SHAPE, subresource)
        .doc("The subresource, absent if the request is about the object itself."),
    Fact::audit("target.type", Text, SHAPE, kind).doc("`resource`, or `resource/subresource`."),
    Fact::audit("target.namespace", Text, SHAPE, namespace)
        .of(BOTH)
        .doc("The namespace; absent when cluster-wide. Falco: `k8s.ns.name`."),
    Fact::audit("target.name", Text, SHAPE, name).of(BOTH).doc(
        "The object's name, also when the server generated it (level RequestResponse). Falco: the pod \
        (`k8s.pod.name`).",
    ),
    Fact::audit("target.named", Bool, SHAPE, named).doc(
        "True if the request names its object. A list or watch with field selector `metadata.name` does.",
    ),
    Fact::audit("target.namespaced", Bool, SHAPE, namespaced).doc("True if the request has a namespace."),
    Fact::audit("target.platform", Bool, SHAPE, platform)
        .of(BOTH)
        .doc("True if the namespace is one of `lists.platform_namespaces`."),
    Fact::audit("target.cluster", Text, NOTHING, cluster)
        .of(BOTH)
        .doc("The cluster's name, from the settings."),
    Fact::audit("target.uri", Text, REST, uri).doc("`requestURI` as it is logged."),
    Fact::audit("target.path", Text, NAME, request_path)
        .doc("The URI's path, percent-decoded once, without the query."),
    Fact::audit("target.health", Bool, NAME, health)
        .doc("True for `/healthz`, `/livez` and `/readyz` with what lies below them, and `/version`."),
    Fact::audit("target.dump", Bool, SHAPE, dump).doc(
        "True for a watch that first returns everything: `sendInitialEvents=true`, no `resourceVersion`, or \
        version 0.",
    ),
    Fact::audit("target.field-selector", Text, REST, field_selector)
        .doc("`fieldSelector` of the query, decoded."),
    Fact::audit("target.label-selector", Text, REST, label_selector)
        .doc("`labelSelector` of the query, decoded."),
    Fact::audit("target.field-manager", Text, REST, field_manager)
        .doc("`fieldManager` of the query, decoded."),
];

/// Parts of a fact that the event has no say in.
const NOTHING: Parts = Parts(0);

fn group<'a>(event: &Event<'a>) -> Value<'a> {
    let shape = Shape::of(event);
    if shape.resource.is_empty() { missing(event) } else { Value::Text(shape.group.clone()) }
}

fn resource<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, Some(Shape::of(event).resource.clone()))
}

fn subresource<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, Some(Shape::of(event).subresource.clone()))
}

fn kind<'a>(event: &Event<'a>) -> Value<'a> {
    let shape = Shape::of(event);
    if shape.subresource.is_empty() {
        return resource(event);
    }
    Value::Text(Cow::Owned(format!("{}/{}", shape.resource, shape.subresource)))
}

/// A name that is not empty. Its presence is part of the shape, its text is not.
fn named_text<'a>(event: &Event<'a>, name: Option<Cow<'a, str>>) -> Value<'a> {
    if name.is_some() && !event.sees(Parts::NAME) {
        return Value::Unknown;
    }
    text_or_missing(event, name)
}

fn namespace<'a>(event: &Event<'a>) -> Value<'a> {
    match event.stream {
        Stream::Falco => falco::field(event, "k8s.ns.name"),
        Stream::Audit => named_text(event, text(event.object_ref().namespace())),
    }
}

pub(super) fn name<'a>(event: &Event<'a>) -> Value<'a> {
    if event.stream == Stream::Falco {
        return falco::field(event, "k8s.pod.name");
    }
    let name = text(event.object_ref().name());
    let shape = Shape::of(event);
    if name.is_some() || shape.verb != "create" || shape.resource.is_empty() {
        return named_text(event, name);
    }
    if !sees_rest(event) {
        return Value::Unknown;
    }
    let object = object::object(event).ok();
    text_or_missing(event, object.and_then(|object| object.path(&["metadata", "name"]).str()))
}

fn named<'a>(event: &Event<'a>) -> Value<'a> {
    presence(event, text(event.object_ref().name()).is_some())
}

fn namespaced<'a>(event: &Event<'a>) -> Value<'a> {
    presence(event, text(event.object_ref().namespace()).is_some())
}

fn presence<'a>(event: &Event<'a>, present: bool) -> Value<'a> {
    if !present && missing(event) == Value::Unknown { Value::Unknown } else { Value::Bool(present) }
}

fn platform<'a>(event: &Event<'a>) -> Value<'a> {
    match namespace(event) {
        Value::Text(namespace) => {
            Value::Bool(event.settings.platform_namespaces.iter().any(|platform| *platform == namespace))
        }
        Value::Absent => Value::Bool(false),
        _ => Value::Unknown,
    }
}

fn cluster<'a>(event: &Event<'a>) -> Value<'a> {
    event.settings.cluster.as_deref().map_or(Value::Absent, Value::text)
}

fn uri<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, event.text(Top::RequestUri))
}

fn request_path<'a>(event: &Event<'a>) -> Value<'a> {
    if hides_path(event) {
        return Value::Unknown;
    }
    text_or_missing(event, path(event))
}

/// Of a request for a resource the path is no routing key.
fn hides_path(event: &Event<'_>) -> bool {
    !Shape::of(event).resource.is_empty() && !sees_rest(event)
}

fn health<'a>(event: &Event<'a>) -> Value<'a> {
    if hides_path(event) {
        return Value::Unknown;
    }
    let Some(path) = path(event) else { return missing(event) };
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let health = matches!(&*path, "/version" | "/version/")
        || ["/healthz", "/livez", "/readyz"].into_iter().any(below);
    Value::Bool(health && Shape::of(event).resource.is_empty())
}

fn dump<'a>(event: &Event<'a>) -> Value<'a> {
    if Shape::of(event).verb != "watch" {
        return Value::Bool(false);
    }
    if !sees_rest(event) {
        return Value::Unknown;
    }
    if !event.has(Top::RequestUri) {
        return missing(event);
    }
    let query = Query::of(event);
    let version = query.first("resourceVersion").unwrap_or_default();
    Value::Bool(query.flag("sendInitialEvents") || matches!(version, "" | "0"))
}

fn parameter<'a>(event: &Event<'a>, name: &str) -> Value<'a> {
    let query = Query::of(event);
    match query.first(name) {
        None if query.partial => Value::Unknown,
        value => text_or_missing(event, value.map(|value| Cow::Owned(value.to_owned()))),
    }
}

fn field_selector<'a>(event: &Event<'a>) -> Value<'a> {
    parameter(event, "fieldSelector")
}

fn label_selector<'a>(event: &Event<'a>) -> Value<'a> {
    parameter(event, "labelSelector")
}

fn field_manager<'a>(event: &Event<'a>) -> Value<'a> {
    parameter(event, "fieldManager")
}

#[cfg(test)]
mod tests {
    use crate::facts::tests::check;

    #[test]
    fn the_core_group_is_empty_and_there_is_none_without_a_resource() {
        check(r#"{"objectRef": {"resource": "pods"}}"#, "target.group", "");
        check(r#"{"objectRef": {"resource": "pods", "apiGroup": "core"}}"#, "target.group", "");
        check(r#"{"objectRef": {"resource": "jobs", "apiGroup": "batch"}}"#, "target.group", "batch");
        check("{}", "target.group", "-");
        check(r#"{"objectRef": {"resource": "pods", "subresource": "exec"}}"#, "target.type", "pods/exec");
        check(r#"{"objectRef": {"resource": "pods"}}"#, "target.type", "pods");
    }

    #[test]
    fn a_generated_name_stands_in_the_response() {
        let event = |response: &str| {
            format!(
                r#"{{"verb": "create", "objectRef": {{"resource": "pods"}}, "requestObject": {{"metadata":
                {{"generateName": "web-"}}}}, "responseObject": {response}}}"#
            )
        };
        check(&event(r#"{"kind": "Pod", "metadata": {"name": "web-x1"}}"#), "target.name", "web-x1");
        check(&event(r#"{"kind": "Status", "metadata": {}}"#), "target.name", "-");
        check(&event("null"), "target.name", "-");
        check(&event("null"), "target.named", "false");
        check(r#"{"objectRef": {"resource": "pods", "name": "a"}}"#, "target.name", "a");
    }

    #[test]
    fn namespaces_of_the_platform() {
        check(
            r#"{"objectRef": {"resource": "pods", "namespace": "kube-system"}}"#,
            "target.platform",
            "true",
        );
        check(
            r#"{"objectRef": {"resource": "pods", "namespace": "kube-system2"}}"#,
            "target.platform",
            "false",
        );
        check(r#"{"objectRef": {"resource": "nodes"}}"#, "target.platform", "false");
        check(r#"{"rule": "x", "output_fields": {"k8s.ns.name": "kube-system"}}"#, "target.platform", "true");
        check(r#"{"rule": "x", "output_fields": {"k8s.pod.name": "web"}}"#, "target.name", "web");
        check(r#"{"rule": "x"}"#, "target.cluster", "east");
    }

    #[track_caller]
    fn check_uri(uri: &str, fact: &str, expected: &str) {
        check(&format!(r#"{{"verb": "watch", "requestURI": "{uri}"}}"#), fact, expected);
    }

    #[test]
    fn uris_are_decoded_once() {
        check_uri("/api/v1/namespaces/a%2Fb?x=1", "target.path", "/api/v1/namespaces/a/b");
        check_uri("/a%2525", "target.path", "/a%25");
        check_uri("/a%zz", "target.path", "/a%zz");
        check_uri(
            "/x?fieldSelector=metadata.name%3Da\\u0026fieldManager=kubectl-run",
            "target.field-selector",
            "metadata.name=a",
        );
        check_uri(
            "/x?fieldSelector=metadata.name%3Da\\u0026fieldManager=kubectl-run",
            "target.field-manager",
            "kubectl-run",
        );
        check_uri("/x?labelSelector=a+in+(b)", "target.label-selector", "a in (b)");
    }

    #[test]
    fn health_checks_are_paths_without_a_resource() {
        for path in ["/healthz", "/livez/etcd?verbose", "/readyz", "/version"] {
            check_uri(path, "target.health", "true");
        }
        for path in ["/healthzz", "/api/v1/healthz", "/versions"] {
            check_uri(path, "target.health", "false");
        }
        check(r#"{"requestURI": "/healthz", "objectRef": {"resource": "pods"}}"#, "target.health", "false");
    }

    #[test]
    fn a_watch_from_the_beginning_is_a_dump() {
        check_uri("/api/v1/secrets?watch=true", "target.dump", "true");
        check_uri("/api/v1/secrets?watch=true&resourceVersion=0", "target.dump", "true");
        check_uri("/api/v1/secrets?resourceVersion=17&sendInitialEvents=true", "target.dump", "true");
        check_uri("/api/v1/secrets?watch=true&resourceVersion=17", "target.dump", "false");
        check(r#"{"verb": "list", "requestURI": "/api/v1/secrets"}"#, "target.dump", "false");
    }
}
