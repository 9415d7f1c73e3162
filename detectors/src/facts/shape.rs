//! The routing keys of an audit event, and the small readers that every family shares.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::event::{Event, Top};
use crate::facts::Parts;
use crate::scan::Node;
use crate::value::Value;

/// Verb and target of a request. The verb is empty when the event has none; the core group is `""`.
#[derive(Debug)]
pub(super) struct Shape<'a> {
    pub(super) verb: Cow<'a, str>,
    pub(super) group: Cow<'a, str>,
    pub(super) resource: Cow<'a, str>,
    pub(super) subresource: Cow<'a, str>,
}

/// The group of roles and bindings.
pub(super) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

impl<'a> Shape<'a> {
    /// The event's shape, decoded once.
    pub(super) fn of<'e>(event: &'e Event<'a>) -> &'e Shape<'a> {
        event.views().shape.get_or_init(|| {
            let object = event.object_ref();
            // Some converters write the core group's usual name.
            let group = text(object.group()).filter(|group| group != "core");
            Shape {
                verb: event.text(Top::Verb).unwrap_or_default(),
                group: group.unwrap_or_default(),
                resource: text(object.resource()).unwrap_or_default(),
                subresource: text(object.subresource()).unwrap_or_default(),
            }
        })
    }

    /// True if the target is this resource (without subresource) of this group.
    pub(super) fn on(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.resource == resource && self.group == group
    }

    /// True if the target is this subresource in the core group.
    pub(super) fn on_sub(&self, resource: &str, subresource: &str) -> bool {
        self.subresource == subresource && self.resource == resource && self.group.is_empty()
    }

    /// get, list or watch.
    pub(super) fn reads(&self) -> bool {
        matches!(&*self.verb, "get" | "list" | "watch")
    }

    /// create, update or patch.
    pub(super) fn stores(&self) -> bool {
        matches!(&*self.verb, "create" | "update" | "patch")
    }

    /// delete or deletecollection.
    pub(super) fn deletes(&self) -> bool {
        matches!(&*self.verb, "delete" | "deletecollection")
    }

    /// The proxied resource (`pods`, `services` or `nodes`) of a request that the API server passes on. Before 1.10 such
    /// requests also had paths beginning with `/api/v1/proxy/`, which are logged with verb `proxy` and no subresource.
    pub(super) fn proxied(&self) -> Option<&str> {
        let known = self.group.is_empty() && matches!(&*self.resource, "pods" | "services" | "nodes");
        let proxied = self.subresource == "proxy" || (self.verb == "proxy" && self.subresource.is_empty());
        (known && proxied).then_some(&*self.resource)
    }

    /// The subresource (`exec`, `attach` or `portforward`) of a request that enters a pod. WebSocket clients send GET.
    pub(super) fn entry(&self) -> Option<&str> {
        let entry = self.group.is_empty()
            && self.resource == "pods"
            && matches!(&*self.subresource, "exec" | "attach" | "portforward")
            && matches!(&*self.verb, "get" | "create");
        entry.then_some(&*self.subresource)
    }
}

/// The decoded text of a string that is not empty.
pub(super) fn text(node: Option<Node<'_>>) -> Option<Cow<'_, str>> {
    node?.text().filter(|text| !text.is_empty())
}

/// What a missing top-level key means: that it is not there, or, on a record that was cut or garbled, nothing. Of damage
/// the routing keys tell only that there is some.
pub(super) fn missing<'a>(event: &Event<'a>) -> Value<'a> {
    let damage = event.damage;
    let lost = damage.hides_keys() || (damage.any() && !sees_rest(event));
    if lost { Value::Unknown } else { Value::Absent }
}

/// A text that is not empty, or what its absence means.
pub(super) fn text_or_missing<'a>(event: &Event<'a>, text: Option<Cow<'a, str>>) -> Value<'a> {
    text.filter(|text| !text.is_empty()).map_or_else(|| missing(event), Value::Text)
}

/// True if facts may look at everything, not only at routing keys.
pub(super) fn sees_rest(event: &Event<'_>) -> bool {
    event.sees(Parts::REST)
}

/// The texts of an array, at most `limit`; a lone string counts as an array of one, as some exporters write it.
pub(super) fn texts(node: Node<'_>, limit: usize) -> (Vec<Cow<'_, str>>, bool) {
    if let Some(one) = node.text() {
        return (vec![one], false);
    }
    let mut items = node.items();
    let mut texts = Vec::new();
    for item in items.by_ref() {
        if texts.len() == limit {
            return (texts, true);
        }
        texts.extend(item.text());
    }
    (texts, items.damaged() || !node.complete())
}

/// The last texts of an array, at most `limit`; whether there are more before them, and whether the array's end is seen.
pub(super) fn last_texts(node: Node<'_>, limit: usize) -> (VecDeque<Cow<'_, str>>, bool, bool) {
    if let Some(one) = node.text() {
        return (VecDeque::from([one]), false, true);
    }
    let (mut last, mut items, mut more) = (VecDeque::new(), node.items(), false);
    for item in items.by_ref().filter(|item| item.str_raw().is_some()) {
        if last.len() == limit {
            last.pop_front();
            more = true;
        }
        last.push_back(item);
    }
    let whole = node.complete() && !items.damaged();
    (last.into_iter().filter_map(Node::text).collect(), more, whole)
}

/// The HTTP status code; some exporters write it as a string.
pub(super) fn code(event: &Event<'_>) -> Option<i64> {
    let code = event.status("code")?;
    code.as_whole().or_else(|| code.text()?.parse().ok()).filter(|code| *code != 0)
}

/// `responseStatus.message`, if it is not empty.
pub(super) fn message<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    text(event.status("message"))
}

/// True if the response has a message, even an empty one, which is all that the routing keys tell of it.
pub(super) fn has_message(event: &Event<'_>) -> bool {
    event.status("message").is_some()
}
