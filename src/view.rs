//! What an alert is about, whichever stream it came from: the names under which its fields say who and where.

use detectors::alert::Alert;

const ACTOR: &[&str] = &["actor.name", "ka.user.name", "user.name"];
const ADDRESS: &[&str] = &["actor.ip"];
const NAMESPACE: &[&str] = &["target.namespace", "k8s.ns.name", "ka.target.namespace"];
const NAME: &[&str] = &["target.name", "k8s.pod.name", "ka.target.name"];

/// Who: the user of the request, else the actor that the fields name. Empty if nobody is named.
pub(crate) fn actor(alert: &Alert) -> &str {
    known(alert.k8s.as_ref().map(|request| request.user.as_str())).unwrap_or_else(|| field(alert, ACTOR))
}

/// Whom the actor impersonated.
pub(crate) fn impersonated(alert: &Alert) -> &str {
    known(alert.k8s.as_ref().and_then(|request| request.impersonated.as_deref())).unwrap_or_default()
}

/// The trusted hop's address.
pub(crate) fn address(alert: &Alert) -> &str {
    known(alert.k8s.as_ref().and_then(|request| request.client_ip.as_deref()))
        .unwrap_or_else(|| field(alert, ADDRESS))
}

/// The namespace.
pub(crate) fn namespace(alert: &Alert) -> &str {
    known(alert.k8s.as_ref().map(|request| request.namespace.as_str()))
        .unwrap_or_else(|| field(alert, NAMESPACE))
}

/// The object's name.
pub(crate) fn name(alert: &Alert) -> &str {
    known(alert.k8s.as_ref().map(|request| request.name.as_str())).unwrap_or_else(|| field(alert, NAME))
}

/// `group/resource/subresource`, without what is empty.
pub(crate) fn resource(alert: &Alert) -> String {
    let Some(request) = alert.k8s.as_ref().filter(|request| !request.resource.is_empty()) else {
        return String::new();
    };
    let parts = [request.group.as_str(), &request.resource, &request.subresource];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// The sentence without the time of day and priority that stand before it in Falco's form.
pub(crate) fn message(alert: &Alert) -> &str {
    let stamped = || {
        let clock = alert.time.get(11..)?.strip_suffix('Z')?;
        let rest = alert.output.strip_prefix(clock)?.strip_prefix(": ")?;
        rest.strip_prefix(alert.priority.as_str())?.strip_prefix(' ')
    };
    stamped().unwrap_or(&alert.output)
}

fn known(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn field<'a>(alert: &'a Alert, names: &[&str]) -> &'a str {
    names
        .iter()
        .find_map(|name| known(alert.output_fields.get(*name).map(String::as_str)))
        .unwrap_or_default()
}
