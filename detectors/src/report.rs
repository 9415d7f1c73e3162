//! From a match to an alert: the allow-list of what an alert says, scrubbed and bounded.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use crate::alert::{Alert, Evidence, Request, SCHEMA};
use crate::event::time::{self, Nanos};
use crate::event::{Event, Stream, Top};
use crate::facts;
use crate::level::Level;
use crate::redact;
use crate::scan::Node;
use crate::value::Value;

/// Longest value of an output field, in characters.
pub(crate) const LONGEST_FIELD: usize = 1024;

/// The namespace of alert ids: the UUIDv5 of `lapwing` in the DNS namespace.
pub(crate) const NAMESPACE: Uuid = Uuid::from_u128(0x9b00_5375_f7ce_5117_a0e2_87b8_ae0e_e51a);

/// The id of an alert: UUIDv5 of detector, logic and what it is about.
pub(crate) fn uuid(detector: &str, logic: &[u8; 32], about: &[u8]) -> Uuid {
    let mut name = Vec::with_capacity(detector.len() + 34 + about.len());
    name.extend_from_slice(detector.as_bytes());
    name.push(0);
    name.extend_from_slice(logic);
    name.push(0);
    name.extend_from_slice(about);
    Uuid::new_v5(&NAMESPACE, &name)
}

/// What the alert takes from the detector.
pub(crate) struct Verdict<'d> {
    /// The alert's id.
    pub(crate) uuid: Uuid,
    /// `family/name`.
    pub(crate) detector: &'d str,
    /// The title.
    pub(crate) title: &'d str,
    /// The level, after grades and overrides.
    pub(crate) level: Level,
    /// Sigma tags.
    pub(crate) tags: &'d [String],
    /// The message, rendered and scrubbed.
    pub(crate) message: String,
    /// Further facts to show, by name.
    pub(crate) facts: Vec<(String, String)>,
}

/// Builds the alert for one event. One without a time has the epoch's, and is partial.
pub(crate) fn alert(
    event: &Event<'_>,
    verdict: Verdict<'_>,
    time: Option<Nanos>,
    evidence: Evidence,
) -> Alert {
    let partial = event.damage.any() || time.is_none();
    let time = time.unwrap_or_default();
    let falco = event.stream == Stream::Falco;
    let request = (!falco).then(|| request(event));
    let mut fields = match &request {
        Some(request) => audit_fields(event, request),
        None => falco_fields(event),
    };
    fields.extend(verdict.facts);
    fields.retain(|_, value| !value.is_empty());
    if let Some(cluster) = &event.settings.cluster {
        fields.insert("k8s.cluster.name".to_owned(), cluster.clone());
    }
    if fields.is_empty() {
        fields.insert("rule".to_owned(), verdict.title.to_owned());
    }
    let mut tags = verdict.tags.to_vec();
    if falco {
        tags.extend(texts(event.node(Top::Tags)).take(64).map(|tag| named(&tag)));
        tags.sort_unstable();
        tags.dedup();
    }
    Alert {
        uuid: verdict.uuid,
        time: time::format(time),
        rule: verdict.title.to_owned(),
        priority: verdict.level.priority().to_owned(),
        level: verdict.level,
        source: source(event),
        output: output(time, verdict.level, &verdict.message),
        output_fields: fields,
        tags,
        schema: SCHEMA.to_owned(),
        detector: verdict.detector.to_owned(),
        cluster: event.settings.cluster.clone(),
        k8s: request,
        evidence: vec![evidence],
        hostname: falco.then(|| event.text(Top::Hostname).map(|h| named(&h))).flatten(),
        partial: partial.then_some(true),
        approximate: None,
        steps: None,
        count: None,
        group: None,
    }
}

/// The sentence in Falco's form: time of day, priority, message.
pub(crate) fn output(time: Nanos, level: Level, message: &str) -> String {
    let stamp = time::format(time);
    let clock = stamp.get(11..stamp.len() - 1).unwrap_or_default();
    format!("{clock}: {} {message}", level.priority())
}

fn source(event: &Event<'_>) -> String {
    match event.stream {
        Stream::Audit => "k8s_audit".to_owned(),
        Stream::Falco => match event.text(Top::Source).as_deref() {
            None | Some("" | "syscalls") => "syscall".to_owned(),
            Some(source) => named(source),
        },
    }
}

/// A fact's value as text; nothing if it is absent or unknown.
pub(crate) fn shown(event: &Event<'_>, fact: &str) -> String {
    let value = facts::find(fact).map_or(Value::Absent, |id| facts::get(id).value(event));
    cleaned(event, fact, &value)
}

/// Facts that are free text, in which a credential may stand by accident. All others are names and numbers.
const FREE: [&str; 13] = [
    "exec.command",
    "exec.argv",
    "exec.words",
    "target.uri",
    "target.path",
    "proxy.path",
    "actor.agent",
    "outcome.message",
    "falco.cmdline",
    "falco.output",
    "falco.file",
    "pod.command",
    "psa.violations",
];

/// What may be shown of a fact's or path's value: names lose nothing but what is a credential by its own form.
fn clean(field: &str, value: &str) -> String {
    match facts::find(field) {
        Some(_) if !FREE.contains(&field) => named(value),
        None if redact::is_secret_path(field) && !value.is_empty() => redact::REDACTED.to_owned(),
        _ if field == "target.uri" || field.eq_ignore_ascii_case("requestURI") => address(value),
        _ => bounded(value),
    }
}

/// What may be shown of a fact or path: as [`clean`], with lists of words read as the sentence that they are.
pub(crate) fn cleaned(event: &Event<'_>, field: &str, value: &Value<'_>) -> String {
    if let Some(field) = field.strip_prefix("output_fields.").filter(|field| field.starts_with("proc.")) {
        return match value {
            Value::List(list) => {
                let words: Vec<_> = list.items.iter().map(Value::display).collect();
                falco_field(event, field, &words.join(" "))
            }
            _ => falco_field(event, field, &value.display()),
        };
    }
    match value {
        // Without what stands between them, words do not tell which of them is a credential: the command does.
        Value::List(list) if field == "exec.words" => {
            let command = shown(event, "exec.command");
            let words = list.items.iter().map(Value::display);
            let words: Vec<_> = words
                .map(|word| if command.contains(&*word) { word } else { Cow::Borrowed(redact::REDACTED) })
                .collect();
            cut(&words.join(" "))
        }
        Value::List(list) if field == "exec.argv" => {
            let words: Vec<_> = list.items.iter().map(Value::display).collect();
            cut(&redact::scrub_words(head(&words.join(" "))))
        }
        Value::List(list) if FREE.contains(&field) => {
            let shown: Vec<_> = list.items.iter().map(|item| bounded(&item.display())).collect();
            cut(&shown.join(","))
        }
        _ => clean(field, &value.display()),
    }
}

/// Bytes of a text that are scrubbed: many times what is shown of it.
const SCRUBBED: usize = 1 << 16;

/// Scrubs and bounds a request URI.
fn address(raw: &str) -> String {
    cut(&redact::uri(head(raw)))
}

/// Bounds a name. Words in it that look like `token:` mean nothing.
pub(crate) fn named(text: &str) -> String {
    cut(&redact::tokens(head(text)))
}

/// Scrubs and bounds free text.
pub(crate) fn bounded(text: &str) -> String {
    cut(&redact::scrub(head(text)))
}

fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(SCRUBBED)]
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_FIELD) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn text(node: Option<Node<'_>>) -> String {
    node.and_then(Node::text).map(|t| named(&t)).unwrap_or_default()
}

fn texts(list: Option<Node<'_>>) -> impl Iterator<Item = Cow<'_, str>> {
    list.into_iter().flat_map(Node::items).filter_map(Node::text)
}

/// Source addresses that an alert shows.
const SOURCE_IPS: usize = 32;

/// The last source addresses, the trusted hop among them; a client may have put any number before.
fn source_ips<'a>(event: &Event<'a>) -> Vec<Cow<'a, str>> {
    let mut last = VecDeque::new();
    for ip in texts(event.node(Top::SourceIps)) {
        if last.len() == SOURCE_IPS {
            last.pop_front();
        }
        last.push_back(ip);
    }
    last.into()
}

fn request(event: &Event<'_>) -> Request {
    let object = event.object_ref();
    let ips: Vec<String> = source_ips(event).iter().map(|ip| named(ip)).collect();
    let client = shown(event, "actor.ip");
    let forwarded = ips.iter().rposition(|ip| *ip == client).unwrap_or(0);
    let group = text(object.group());
    Request {
        verb: text(event.node(Top::Verb)),
        group: if group == "core" { String::new() } else { group },
        resource: text(object.resource()),
        subresource: text(object.subresource()),
        namespace: text(object.namespace()),
        name: shown(event, "target.name"),
        user: text(event.user().username),
        groups: texts(event.user().groups).take(64).map(|g| named(&g)).collect(),
        impersonated: event.impersonated().map(|user| text(user.username)),
        client_ip: (!client.is_empty()).then_some(client),
        forwarded_ips: ips[..forwarded].to_vec(),
        user_agent: event.text(Top::UserAgent).map(|agent| bounded(&agent)).unwrap_or_default(),
        code: event.status("code").and_then(code),
        decision: event.annotation("authorization.k8s.io/decision").map(|d| text(Some(d))),
        outcome: match shown(event, "outcome").as_str() {
            known @ ("allowed" | "denied" | "failed") => known.to_owned(),
            _ => "unknown".to_owned(),
        },
        stage: text(event.node(Top::Stage)),
        audit_id: text(event.node(Top::AuditId)),
    }
}

fn code(node: Node<'_>) -> Option<i64> {
    node.as_whole().or_else(|| node.text()?.parse().ok())
}

/// The fields of an audit alert, under the names that Falco's k8saudit plugin uses.
fn audit_fields(event: &Event<'_>, request: &Request) -> BTreeMap<String, String> {
    let ips = source_ips(event);
    let uri = event.text(Top::RequestUri).map(|uri| address(&uri)).unwrap_or_default();
    let reason = event.annotation("authorization.k8s.io/reason");
    let rows = [
        ("ka.user.name", request.user.clone()),
        ("ka.impuser.name", request.impersonated.clone().unwrap_or_default()),
        ("ka.verb", request.verb.clone()),
        ("ka.target.resource", request.resource.clone()),
        ("ka.target.subresource", request.subresource.clone()),
        ("ka.target.namespace", request.namespace.clone()),
        ("ka.target.name", request.name.clone()),
        ("ka.response.code", shown(event, "outcome.code")),
        ("ka.auth.decision", request.decision.clone().unwrap_or_default()),
        ("ka.auth.reason", reason.and_then(Node::text).map(|text| bounded(&text)).unwrap_or_default()),
        ("ka.sourceips", named(&ips.join(","))),
        ("ka.useragent", request.user_agent.clone()),
        ("ka.uri", uri),
        ("ka.auditid", request.audit_id.clone()),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Falco's fields that may leave: identification of process, container, file and connection. Environments and raw buffers
/// may not.
fn falco_fields(event: &Event<'_>) -> BTreeMap<String, String> {
    let members = event.node(Top::OutputFields).into_iter().flat_map(Node::members);
    let mut fields: BTreeMap<String, String> = members
        .take(256)
        .filter_map(|(key, value)| {
            let key = key.text().into_owned();
            may_leave(&key).then(|| {
                let text = falco_field(event, &key, &scalar(&key, value));
                (key, text)
            })
        })
        .collect();
    fields.insert("falco.rule".to_owned(), text(event.node(Top::Rule)));
    fields.insert("falco.priority".to_owned(), text(event.node(Top::Priority)));
    fields
}

/// A field of Falco's, scrubbed and bounded. What a program takes as a credential depends on the program.
fn falco_field(event: &Event<'_>, field: &str, text: &str) -> String {
    match field {
        "ka.uri" => address(text),
        "proc.args" => cut(&redact::scrub_arguments(&shown(event, "falco.proc"), head(text))),
        _ => bounded(text),
    }
}

/// True for the name of one of Falco's output fields.
pub(crate) fn is_falco_field(field: &str) -> bool {
    let families =
        ["container.", "k8s.", "k8smeta.", "proc.", "user.", "group.", "fd.", "evt.", "ka.", "thread."];
    families.iter().any(|family| field.starts_with(family))
}

fn may_leave(field: &str) -> bool {
    // Environments, raw buffers, bodies; and arguments of system calls, where Falco puts dots for what ends a word.
    let held = [
        "proc.env",
        "proc.aenv",
        "evt.args",
        "evt.arg.args",
        "evt.arg[args",
        "evt.arg.env",
        "evt.arg[env",
        "evt.info",
        "evt.buffer",
        "evt.arg.data",
        "evt.arg[data",
        "evt.rawarg",
        "ka.req.",
        "ka.resp.obj",
    ];
    field.len() <= 128 && is_falco_field(field) && !held.iter().any(|prefix| field.starts_with(prefix))
}

/// A field's value as text. The words of a command are joined by blanks, as a command is read.
fn scalar(field: &str, node: Node<'_>) -> String {
    let between = if field.starts_with("proc.") { " " } else { "," };
    match node.text() {
        Some(text) => text.into_owned(),
        None if node.is_null() => String::new(),
        None => match node.items().next() {
            Some(_) => node.items().take(64).map(plain).collect::<Vec<_>>().join(between),
            None => plain(node),
        },
    }
}

/// A value that is shown as it is written if it is no text: nothing is followed into its depth.
fn plain(node: Node<'_>) -> String {
    node.text().map_or_else(|| String::from_utf8_lossy(node.raw()).into_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_what_it_says() {
        assert_eq!(NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"lapwing"));
    }
}
