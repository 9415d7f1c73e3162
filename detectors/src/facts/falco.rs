//! `falco.*` and `hostname`: what a Falco alert says.
//!
//! Falco writes what it does not know as `null`, `<NA>` or an empty text; all three are absent. Without `output_fields`
//! (an operator can switch them off) everything they would hold is unknown.

use std::borrow::Cow;

use super::FactType::{Bool, List, Text};
use super::object::LIMIT;
use super::shape::{missing, sees_rest, text_or_missing, texts};
use super::{Fact, Parts};
use crate::event::{Event, Top};
use crate::scan::{Kind, Node};
use crate::value::Value;

const FALCO: Parts = Parts::FALCO;
const REST: Parts = Parts::REST;

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::falco("falco.rule", Text, FALCO, rule).doc("The Falco rule's name."),
    Fact::falco("falco.priority", Text, FALCO, priority).doc(
        "Emergency, Alert, Critical, Error, Warning, Notice, Informational or Debug, however it was \
        written.",
    ),
    Fact::falco("falco.source", Text, FALCO, source)
        .doc("The event source; `syscall` if it is missing or written `syscalls`."),
    Fact::falco("falco.tags", List, REST, tags).doc("The rule's tags."),
    Fact::falco("falco.output", Text, REST, output)
        .doc("The rendered sentence: for people, not for parsing."),
    Fact::falco("falco.internal", Bool, FALCO, internal)
        .doc("True for Falco's own notices (drops, metrics)."),
    Fact::falco("falco.container", Text, REST, container).doc("`container.id`; absent on the host."),
    Fact::falco("falco.container-name", Text, REST, container_name)
        .doc("`container.name`; absent on the host."),
    Fact::falco("falco.image", Text, REST, image).doc("`container.image.repository`, without the tag."),
    Fact::falco("falco.proc", Text, REST, proc_name).doc("`proc.name`."),
    Fact::falco("falco.cmdline", Text, REST, cmdline).doc("`proc.cmdline`."),
    Fact::falco("falco.file", Text, REST, file).doc("`fd.name`: a file, or the ends of a connection."),
    Fact::falco("falco.tty", Bool, REST, tty)
        .doc("True if the process has a terminal (`proc.tty` is not 0)."),
    Fact::falco("falco.mapped", Bool, FALCO, mapped)
        .doc("True if the rule is one of the public rules, which a runtime detector names."),
    Fact::falco("falco.k8s-audit", Bool, FALCO, k8s_audit)
        .doc("True if the alert is about an API request, which the audit log has too."),
    Fact::falco("hostname", Text, REST, hostname)
        .doc("Where Falco ran: a node or a pod, depending on how it was installed."),
];

/// An output field as text.
pub(super) fn field<'a>(event: &Event<'a>, key: &str) -> Value<'a> {
    if !sees_rest(event) {
        return Value::Unknown;
    }
    let Some(fields) = event.node(Top::OutputFields).filter(|fields| fields.kind() == Kind::Object) else {
        return Value::Unknown;
    };
    let between = if key.starts_with("proc.") { " " } else { "," };
    fields.get(key).and_then(|node| field_text(node, between)).map_or_else(|| missing(event), Value::Text)
}

/// A field's value as text. The words of a command are joined by blanks, as a command is read; other items by commas.
fn field_text<'a>(node: Node<'a>, between: &str) -> Option<Cow<'a, str>> {
    let text = match node.kind() {
        Kind::String => node.text()?,
        Kind::Number | Kind::True | Kind::False => String::from_utf8_lossy(node.raw()),
        Kind::Array => {
            let items = node.items().take(LIMIT).filter_map(|item| item.text().or(scalar(item)));
            Cow::Owned(items.collect::<Vec<_>>().join(between))
        }
        _ => return None,
    };
    (!text.is_empty() && text != "<NA>").then_some(text)
}

fn scalar(node: Node<'_>) -> Option<Cow<'_, str>> {
    (node.kind() == Kind::Number).then(|| String::from_utf8_lossy(node.raw()))
}

fn rule<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, event.text(Top::Rule))
}

fn priority<'a>(event: &Event<'a>) -> Value<'a> {
    const NAMES: [&str; 8] =
        ["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"];
    let Some(written) = event.text(Top::Priority) else { return missing(event) };
    if written.eq_ignore_ascii_case("info") {
        return Value::text("Informational");
    }
    match NAMES.into_iter().find(|name| written.eq_ignore_ascii_case(name)) {
        Some(name) => Value::text(name),
        None => text_or_missing(event, Some(written)),
    }
}

fn source<'a>(event: &Event<'a>) -> Value<'a> {
    match event.text(Top::Source).filter(|source| !source.is_empty()) {
        Some(source) if source != "syscalls" => Value::Text(source),
        None if missing(event) == Value::Unknown => Value::Unknown,
        _ => Value::text("syscall"),
    }
}

fn source_is<'a>(event: &Event<'a>, wanted: &str) -> Value<'a> {
    match source(event) {
        Value::Text(source) => Value::Bool(source == wanted),
        other => other,
    }
}

fn internal<'a>(event: &Event<'a>) -> Value<'a> {
    source_is(event, "internal")
}

fn k8s_audit<'a>(event: &Event<'a>) -> Value<'a> {
    source_is(event, "k8s_audit")
}

fn tags<'a>(event: &Event<'a>) -> Value<'a> {
    let Some(tags) = event.node(Top::Tags) else { return missing(event) };
    let (tags, partial) = texts(tags, LIMIT);
    Value::list_of(tags.into_iter().map(Value::Text).collect(), partial)
}

fn output<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, event.text(Top::Output))
}

fn hostname<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, event.text(Top::Hostname))
}

fn container<'a>(event: &Event<'a>) -> Value<'a> {
    in_container(field(event, "container.id"))
}

fn container_name<'a>(event: &Event<'a>) -> Value<'a> {
    in_container(field(event, "container.name"))
}

/// Falco calls the host a container of that name.
fn in_container(name: Value<'_>) -> Value<'_> {
    if name == Value::text("host") { Value::Absent } else { name }
}

fn image<'a>(event: &Event<'a>) -> Value<'a> {
    field(event, "container.image.repository")
}

fn proc_name<'a>(event: &Event<'a>) -> Value<'a> {
    field(event, "proc.name")
}

fn cmdline<'a>(event: &Event<'a>) -> Value<'a> {
    field(event, "proc.cmdline")
}

fn file<'a>(event: &Event<'a>) -> Value<'a> {
    field(event, "fd.name")
}

fn tty<'a>(event: &Event<'a>) -> Value<'a> {
    match field(event, "proc.tty") {
        Value::Text(tty) => Value::Bool(tty != "0" && tty != "false"),
        other => other,
    }
}

fn mapped<'a>(event: &Event<'a>) -> Value<'a> {
    match rule(event) {
        Value::Text(rule) => Value::Bool(PUBLIC_RULES.binary_search(&&*rule).is_ok()),
        other => other,
    }
}

/// Every rule of the public rule files (stable, incubating and sandbox), sorted.
/// Source: github.com/falcosecurity/rules.
static PUBLIC_RULES: &[&str] = &[
    "Adding ssh keys to authorized_keys",
    "BPF Program Not Profiled",
    "Backdoored library loaded into SSHD (CVE-2024-3094)",
    "Basic Interactive Reconnaissance",
    "Change namespace privileges via unshare",
    "Change thread namespace",
    "Clear Log Activities",
    "Contact EC2 Instance Metadata Service From Container",
    "Contact K8S API Server From Container",
    "Contact cloud metadata service from container",
    "Container Access to Host Sensitive Paths",
    "Container Drift Detected (chmod)",
    "Container Drift Detected (open+create)",
    "Container Run as Root User",
    "Create Hardlink Over Sensitive Files",
    "Create Hidden Files or Directories",
    "Create Symlink Over Sensitive Files",
    "Create files below dev",
    "DB program spawned process",
    "Debugfs Launched in Privileged Container",
    "Decoding Payload in Container",
    "Delete or rename shell history",
    "Detect crypto miners using the Stratum protocol",
    "Detect outbound connections to common miner pool ports",
    "Detect release_agent File Container Escapes",
    "Directory traversal monitored file read",
    "Disallowed SSH Connection Non Standard Port",
    "Drop and execute new binary in container",
    "Execution from /dev/shm",
    "Exfiltrating Artifacts via Kubernetes Control Plane",
    "Fileless execution via memfd_create",
    "Find AWS Credentials",
    "Interpreted procs inbound network activity",
    "Interpreted procs outbound network activity",
    "Java Process Class File Download",
    "Known Cryptominer Process Executed",
    "Kubernetes Client Tool Launched in Container",
    "Launch Disallowed Container",
    "Launch Excessively Capable Container",
    "Launch Ingress Remote File Copy Tools in Container",
    "Launch Package Management Process in Container",
    "Launch Privileged Container",
    "Launch Remote File Copy Tools in Container",
    "Launch Sensitive Mount Container",
    "Launch Suspicious Network Tool in Container",
    "Launch Suspicious Network Tool on Host",
    "Linux Kernel Module Injection Detected",
    "Mkdir binary dirs",
    "Modify Container Entrypoint",
    "Modify Shell Configuration File",
    "Modify binary dirs",
    "Mount Launched in Privileged Container",
    "Netcat Remote Code Execution in Container",
    "Netcat/Socat Remote Code Execution on Host",
    "Network Connection outside Local Subnet",
    "Network Tool Executed During NPM Package Install",
    "Non sudo setuid",
    "PTRACE anti-debug attempt",
    "PTRACE attached to process",
    "Packet socket created in container",
    "Polkit Local Privilege Escalation Vulnerability (CVE-2021-4034)",
    "Potential Local Privilege Escalation via Environment Variables Misuse",
    "Privileged Container Device Access",
    "Program run with disallowed http proxy env",
    "Read Shell Configuration File",
    "Read environment variable from /proc files",
    "Read sensitive file trusted after startup",
    "Read sensitive file untrusted",
    "Read ssh information",
    "Redirect STDOUT/STDIN to Network Connection in Container",
    "Remove Bulk Data from Disk",
    "Reverse Shell from Web Server",
    "Run shell untrusted",
    "Schedule Cron Jobs",
    "Search Private Keys or Passwords",
    "Set Setuid or Setgid bit",
    "Sudo Potential Privilege Escalation",
    "System procs network activity",
    "System user interactive",
    "Terminal shell in container",
    "Unexpected K8s NodePort Connection",
    "Unexpected UDP Traffic",
    "Unexpected inbound connection source",
    "Unprivileged Delegation of Page Faults Handling to a Userspace Process",
    "Update Package Repository",
    "User mgmt binaries",
    "Web Server Spawned Shell",
    "Web Server Spawned Suspicious Child Process",
    "Write below binary dir",
    "Write below etc",
    "Write below monitored dir",
    "Write below root",
    "Write below rpm database",
];

#[cfg(test)]
mod tests {
    use super::PUBLIC_RULES;
    use crate::facts::tests::check;

    #[track_caller]
    fn check_fields(fields: &str, fact: &str, expected: &str) {
        check(&format!(r#"{{"rule": "x", "output_fields": {fields}}}"#), fact, expected);
    }

    #[test]
    fn names_are_normalised() {
        check(r#"{"rule": "x", "priority": "WARNING"}"#, "falco.priority", "Warning");
        check(r#"{"rule": "x", "priority": "info"}"#, "falco.priority", "Informational");
        check(r#"{"rule": "x", "source": "syscalls"}"#, "falco.source", "syscall");
        check(r#"{"rule": "x", "source": null}"#, "falco.source", "syscall");
        check(r#"{"rule": "x", "source": "internal"}"#, "falco.internal", "true");
        check(r#"{"rule": "x", "source": "k8s_audit"}"#, "falco.k8s-audit", "true");
        check(r#"{"rule": "x", "tags": ["a", "b"]}"#, "falco.tags", "[a, b]");
        check(r#"{"rule": "x"}"#, "hostname", "node-1");
    }

    #[test]
    fn fields_may_be_of_any_type_or_say_nothing() {
        check_fields(r#"{"proc.name": "cat"}"#, "falco.proc", "cat");
        for nothing in [r#""<NA>""#, "\"\"", "null", "{}"] {
            check_fields(&format!(r#"{{"proc.name": {nothing}}}"#), "falco.proc", "-");
        }
        check_fields(r#"{"fd.name": ["a", "b"]}"#, "falco.file", "a,b");
        check_fields(r#"{"proc.cmdline": ["mysql", "-px"]}"#, "falco.cmdline", "mysql -px");
        check_fields(r#"{"proc.cmdline": 7}"#, "falco.cmdline", "7");
        check_fields(r#"{"proc.tty": 34816}"#, "falco.tty", "true");
        check_fields(r#"{"proc.tty": "0"}"#, "falco.tty", "false");
        check_fields("{}", "falco.tty", "-");
        check(r#"{"rule": "x", "output_fields": null}"#, "falco.proc", "?");
    }

    #[test]
    fn the_host_is_no_container() {
        check_fields(r#"{"container.id": "host", "container.name": "host"}"#, "falco.container", "-");
        check_fields(r#"{"container.id": "3f1c"}"#, "falco.container", "3f1c");
        check_fields(
            r#"{"container.image.repository": "docker.io/x", "container.image.tag": "1"}"#,
            "falco.image",
            "docker.io/x",
        );
    }

    #[test]
    fn public_rules_are_mapped() {
        assert!(PUBLIC_RULES.is_sorted());
        check(r#"{"rule": "Terminal shell in container"}"#, "falco.mapped", "true");
        check(r#"{"rule": "Our own rule"}"#, "falco.mapped", "false");
    }
}
