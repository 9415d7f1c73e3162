//! `pod.*` and `pv.*`: what pods, pod templates and persistent volumes ask of the node.
//!
//! One view serves every kind that has a pod spec, over containers, init containers and ephemeral containers alike. What
//! needs two things of the same container or volume is put together here, because a detector could not.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::FactType::{Bool, List, Text};
use super::action::pod_path;
use super::object::{self, LIMIT, Merge, View, truth};
use super::shape::Shape;
use super::{Fact, credential, query};
use crate::event::Event;
use crate::value::{Tri, Value};

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::body("pod.privileged", Bool, privileged).doc("True if some container is privileged."),
    Fact::body("pod.privileged-containers", List, privileged_containers)
        .doc("Names of the privileged containers; `?` for one whose name a patch does not mention."),
    Fact::body("pod.host-network", Bool, host_network)
        .doc("True if the pod shares the node's network namespace."),
    Fact::body("pod.host-pid", Bool, host_pid).doc("True if the pod shares the node's process namespace."),
    Fact::body("pod.host-ipc", Bool, host_ipc).doc("True if the pod shares the node's IPC namespace."),
    Fact::body("pod.host-namespaces", List, host_namespaces)
        .doc("Which of network, pid, ipc the pod shares with the node."),
    Fact::body("pod.host-paths", List, host_paths).doc("Paths of hostPath volumes, cleaned."),
    Fact::body("pod.host-paths-sensitive", List, host_paths_sensitive).doc(
        "Those that equal, contain or lie under a directory that gives away the node: `/`, /etc, /root, \
        /home, /proc, /sys, /dev, /boot, /run, /var/run, /usr, /bin, /sbin, /lib, /lib64, /opt/cni, \
        /var/log, /var/spool/cron, and the data of kubelet, etcd and container runtimes under /var/lib.",
    ),
    Fact::body("pod.host-paths-writable", List, host_paths_writable)
        .doc("Those of them that some container mounts without `readOnly: true`."),
    Fact::body("pod.host-root", Bool, host_root).doc("True if the node's `/` is mounted."),
    Fact::body("pod.capabilities", List, capabilities)
        .doc("Capabilities that containers add, sorted, in upper case and without `CAP_`."),
    Fact::body("pod.unconfined", List, unconfined).doc(
        "Which of seccomp, apparmor, selinux, proc-mount is switched off, or for selinux replaced by what \
        the Baseline standard forbids.",
    ),
    Fact::body("pod.images", List, images).doc("Images of the containers."),
    Fact::body("pod.containers", List, containers).doc("Names of the containers."),
    Fact::body("pod.command", List, commands)
        .doc("Command and arguments of each container, joined by spaces."),
    Fact::body("pod.env-credentials", List, env_credentials)
        .doc("Names of environment variables whose literal value looks like a credential."),
    Fact::body("pod.service-account", Text, service_account)
        .doc("The service account; `default` if the object names none."),
    Fact::body("pod.node-name", Text, node_name)
        .doc("The node that the pod forces itself onto (`spec.nodeName`)."),
    Fact::body("pod.tolerates-all", Bool, tolerates_all)
        .doc("True if a toleration has operator Exists and no key."),
    Fact::body("pod.owner-kind", Text, owner_kind).doc("Kind of the object's controlling owner."),
    Fact::body("pod.mirror", Bool, mirror)
        .doc("True for the mirror of a static pod (annotation `kubernetes.io/config.mirror`)."),
    Fact::body("pod.kubectl-debug", Bool, kubectl_debug)
        .doc("True for a pod made by `kubectl debug` (label `app.kubernetes.io/managed-by: kubectl-debug`)."),
    Fact::body("pv.host-path", Text, pv_host_path)
        .doc("Path on the node of a PersistentVolume (`hostPath` or `local`), cleaned."),
    Fact::body("pv.host-path-sensitive", Bool, pv_host_path_sensitive)
        .doc("True if that path is sensitive in the sense of `pod.host-paths-sensitive`."),
];

/// Directories of a node that give it away to whoever can read or write them.
const SENSITIVE: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt/cni",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/crio",
    "/var/lib/docker",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/log",
    "/var/run",
    "/var/spool/cron",
];

/// SELinux types that the Baseline Pod Security Standard allows.
const SELINUX_TYPES: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// A volume that is a directory of the node.
#[derive(Debug)]
struct HostVolume<'a> {
    name: Option<Cow<'a, str>>,
    /// Cleaned.
    path: String,
}

/// A pod or pod template.
#[derive(Debug)]
pub(super) struct Pod<'a> {
    /// The object that holds it.
    object: View<'a>,
    /// The pod's own metadata: of a template, the template's.
    metadata: View<'a>,
    spec: View<'a>,
    containers: Vec<View<'a>>,
    /// True if there may be more containers.
    partial: bool,
}

impl<'a> Pod<'a> {
    fn of(object: &View<'a>, path: &[&str]) -> Pod<'a> {
        let (_, template) = path.split_last().unwrap_or((&"", &[]));
        let metadata = object.path(template).key("metadata");
        let spec = object.path(path);
        let (mut containers, mut partial) = (Vec::new(), false);
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            let items = spec.key(list).items(Merge::ByKey);
            containers.extend(items.views);
            partial |= items.partial;
        }
        Pod { object: object.clone(), metadata, spec, containers, partial }
    }

    /// True if `test` holds for some container.
    fn any(&self, test: impl Fn(&View<'a>) -> Tri) -> Tri {
        let seen = self.containers.iter().map(test).max().unwrap_or(Tri::False);
        seen.or(if self.partial { Tri::Unknown } else { Tri::False })
    }

    /// True if `test` holds for the security context of the pod or of some container.
    fn any_context(&self, test: impl Fn(View<'a>) -> Tri) -> Tri {
        let own = test(self.spec.key("securityContext"));
        own.or(self.any(|container| test(container.key("securityContext"))))
    }

    /// A text of each container.
    fn each(&self, key: &str) -> Value<'a> {
        let (mut texts, mut partial) = (Vec::new(), self.partial);
        for container in &self.containers {
            match container.key(key).text() {
                Value::Unknown => partial = true,
                Value::Absent => {}
                text => texts.push(text),
            }
        }
        Value::list_of(texts, partial)
    }

    /// The hostPath volumes, and whether there may be more.
    fn host_volumes(&self) -> (Vec<HostVolume<'a>>, bool) {
        let (mut volumes, mut hidden) = (Vec::new(), false);
        let more = self.spec.key("volumes").each(Merge::ByKey, |volume| {
            let path = volume.path(&["hostPath", "path"]);
            match path.str() {
                Some(_) if volumes.len() == LIMIT => {
                    volume.bounds.hit();
                    hidden = true;
                }
                Some(path) => {
                    volumes.push(HostVolume { name: volume.key("name").str(), path: query::clean(&path) });
                }
                None => hidden |= !path.complete,
            }
        });
        (volumes, hidden || more)
    }

    /// Whether each mounted volume is mounted for writing by some container, by the volume's name.
    fn mounts(&self) -> (HashMap<Cow<'a, str>, Tri>, bool) {
        let (mut mounts, mut partial) = (HashMap::new(), self.partial);
        for container in &self.containers {
            let more = container.key("volumeMounts").each(Merge::ByKey, |mount| {
                let Some(name) = mount.key("name").str() else {
                    partial |= !mount.complete;
                    return;
                };
                if mounts.len() == LIMIT && !mounts.contains_key(&name) {
                    mount.bounds.hit();
                    partial = true;
                    return;
                }
                let writable = !mount.key("readOnly").truth();
                let seen = mounts.entry(name).or_insert(writable);
                *seen = seen.or(writable);
            });
            partial |= more;
        }
        (mounts, partial)
    }
}

/// The pod, or what its facts are without one.
fn pod<'e, 'a>(event: &'e Event<'a>) -> Result<&'e Pod<'a>, Value<'a>> {
    let path = pod_path(Shape::of(event)).ok_or(Value::Absent)?;
    let object = object::object(event)?;
    Ok(event.views().pod.get_or_init(|| Pod::of(object, path)))
}

fn of_pod<'a>(event: &Event<'a>, fact: impl Fn(&Pod<'a>) -> Value<'a>) -> Value<'a> {
    pod(event).map_or_else(|without| without, fact)
}

fn privileged<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| truth(pod.any(is_privileged)))
}

fn is_privileged(container: &View<'_>) -> Tri {
    container.path(&["securityContext", "privileged"]).truth()
}

fn privileged_containers<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (mut names, mut partial) = (Vec::new(), pod.partial);
        for container in &pod.containers {
            match is_privileged(container) {
                Tri::True => names.push(Value::Text(container.key("name").str().unwrap_or("?".into()))),
                Tri::Unknown => partial = true,
                Tri::False => {}
            }
        }
        Value::list_of(names, partial)
    })
}

fn host_network<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| truth(pod.spec.key("hostNetwork").truth()))
}

fn host_pid<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| truth(pod.spec.key("hostPID").truth()))
}

fn host_ipc<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| truth(pod.spec.key("hostIPC").truth()))
}

fn host_namespaces<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let names = [("hostNetwork", "network"), ("hostPID", "pid"), ("hostIPC", "ipc")];
        which(names.map(|(key, name)| (name, pod.spec.key(key).truth())))
    })
}

/// The names that hold; partial if one may.
fn which<'a>(names: impl IntoIterator<Item = (&'static str, Tri)>) -> Value<'a> {
    let (mut holding, mut partial) = (Vec::new(), false);
    for (name, holds) in names {
        match holds {
            Tri::True => holding.push(Value::text(name)),
            Tri::Unknown => partial = true,
            Tri::False => {}
        }
    }
    Value::list_of(holding, partial)
}

fn paths<'a>(paths: impl IntoIterator<Item = String>, partial: bool) -> Value<'a> {
    Value::list_of(paths.into_iter().map(|path| Value::Text(Cow::Owned(path))).collect(), partial)
}

fn host_paths<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (volumes, partial) = pod.host_volumes();
        paths(volumes.into_iter().map(|volume| volume.path), partial)
    })
}

fn host_paths_sensitive<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (volumes, partial) = pod.host_volumes();
        paths(volumes.into_iter().map(|volume| volume.path).filter(|path| is_sensitive(path)), partial)
    })
}

/// True if the cleaned path equals, contains or lies under a sensitive directory.
fn is_sensitive(path: &str) -> bool {
    let under = |path: &str, root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    path == "/" || SENSITIVE.iter().any(|root| path == *root || under(path, root) || under(root, path))
}

fn host_paths_writable<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (volumes, mut partial) = pod.host_volumes();
        let (mounts, more_mounts) = pod.mounts();
        let mut writable = Vec::new();
        for HostVolume { name, path } in volumes.into_iter().filter(|volume| is_sensitive(&volume.path)) {
            match name.and_then(|name| mounts.get(&name)).copied() {
                Some(Tri::True) => writable.push(path),
                Some(Tri::Unknown) => partial = true,
                Some(Tri::False) | None => partial |= more_mounts,
            }
        }
        paths(writable, partial)
    })
}

fn host_root<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (volumes, partial) = pod.host_volumes();
        match (volumes.iter().any(|volume| volume.path == "/"), partial) {
            (true, _) => Value::Bool(true),
            (false, true) => Value::Unknown,
            (false, false) => Value::Bool(false),
        }
    })
}

fn capabilities<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (mut names, mut partial) = (BTreeSet::new(), pod.partial);
        for container in &pod.containers {
            let words = container.path(&["securityContext", "capabilities", "add"]).words();
            partial |= words.partial;
            for name in words.items.iter().map(|word| word.to_uppercase()) {
                let name = name.strip_prefix("CAP_").map_or(name.clone(), str::to_owned);
                if names.len() < LIMIT || name == "ALL" {
                    names.insert(name);
                } else if !names.contains(&name) {
                    container.bounds.hit();
                    partial = true;
                }
            }
        }
        Value::list_of(names.into_iter().map(|name| Value::Text(Cow::Owned(name))).collect(), partial)
    })
}

fn unconfined<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        const PREFIXES: [&str; 3] = [
            "seccomp.security.alpha.kubernetes.io/pod",
            "container.seccomp.security.alpha.kubernetes.io/",
            "container.apparmor.security.beta.kubernetes.io/",
        ];
        let mut annotated = [Tri::False; 3];
        let more = pod.metadata.key("annotations").each_member(|key, value| {
            for (prefix, seen) in PREFIXES.iter().zip(&mut annotated) {
                *seen = seen.or(Tri::from(key.starts_with(prefix) && value.is("unconfined") == Tri::True));
            }
        });
        let [pod_seccomp, seccomp, apparmor] =
            annotated.map(|seen| seen.or(if more { Tri::Unknown } else { Tri::False }));
        let profile = |key: &str| pod.any_context(|context| context.path(&[key, "type"]).is("Unconfined"));
        which([
            ("seccomp", profile("seccompProfile").or(pod_seccomp).or(seccomp)),
            ("apparmor", profile("appArmorProfile").or(apparmor)),
            ("selinux", pod.any_context(|context| weak_selinux(&context.key("seLinuxOptions")))),
            ("proc-mount", pod.any_context(|context| context.key("procMount").is("Unmasked"))),
        ])
    })
}

fn weak_selinux(options: &View<'_>) -> Tri {
    let set = |key: &str, allowed: &[&str]| {
        let view = options.key(key);
        match view.str() {
            Some(value) => Tri::from(!allowed.contains(&&*value)),
            None if view.complete => Tri::False,
            None => Tri::Unknown,
        }
    };
    set("type", SELINUX_TYPES).or(set("user", &[])).or(set("role", &[]))
}

fn images<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| pod.each("image"))
}

fn containers<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| pod.each("name"))
}

fn commands<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (mut commands, mut partial) = (Vec::new(), pod.partial);
        for container in &pod.containers {
            let mut line = None;
            for words in ["command", "args"] {
                partial |= container.key(words).join_onto(&mut line);
            }
            commands.extend(line.map(|line| Value::Text(Cow::Owned(line))));
        }
        Value::list_of(commands, partial)
    })
}

fn env_credentials<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let (mut names, mut partial) = (Vec::new(), pod.partial);
        for container in &pod.containers {
            let more = container.key("env").each(Merge::ByKey, |variable| {
                let value = variable.key("value");
                let Some(text) = value.str() else {
                    partial |= !value.complete;
                    return;
                };
                let name = variable.key("name").str().unwrap_or("?".into());
                let found = credential::class(&name, &text).is_some();
                if found && names.len() < LIMIT {
                    names.push(Value::Text(name));
                } else if found || text.len() > credential::LONGEST {
                    variable.bounds.hit();
                    partial = true;
                }
            });
            partial |= more;
        }
        Value::list_of(names, partial)
    })
}

fn service_account<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let name = pod.spec.key("serviceAccountName");
        match name.str().or_else(|| pod.spec.key("serviceAccount").str()) {
            Some(name) => Value::Text(name),
            // A field that was taken away falls back to the default, but only a whole spec shows the older field too.
            None if pod.spec.complete => Value::text("default"),
            None => Value::Unknown,
        }
    })
}

fn node_name<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| pod.spec.key("nodeName").text())
}

fn tolerates_all<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let all = |toleration: &View<'a>| {
            let key = toleration.key("key");
            let keyless = match (key.str(), key.complete) {
                (Some(_), _) => Tri::False,
                (None, true) => Tri::True,
                (None, false) => Tri::Unknown,
            };
            toleration.key("operator").is("Exists").and(keyless)
        };
        let mut seen = Tri::False;
        let tolerations = pod.spec.key("tolerations");
        let more = tolerations.each(Merge::Atomic, |toleration| seen = seen.or(all(&toleration)));
        truth(seen.or(if more { Tri::Unknown } else { Tri::False }))
    })
}

fn owner_kind<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let mut controller = None;
        let more = pod.object.path(&["metadata", "ownerReferences"]).each(Merge::ByKey, |owner| {
            if controller.is_none() && owner.key("controller").truth() == Tri::True {
                controller = Some(owner.key("kind").text());
            }
        });
        controller.unwrap_or(if more { Value::Unknown } else { Value::Absent })
    })
}

fn mirror<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        truth(pod.object.path(&["metadata", "annotations", "kubernetes.io/config.mirror"]).exists())
    })
}

fn kubectl_debug<'a>(event: &Event<'a>) -> Value<'a> {
    of_pod(event, |pod| {
        let label = pod.object.path(&["metadata", "labels", "app.kubernetes.io/managed-by"]);
        truth(label.is("kubectl-debug"))
    })
}

fn pv_host_path<'a>(event: &Event<'a>) -> Value<'a> {
    if !Shape::of(event).on("", "persistentvolumes") {
        return Value::Absent;
    }
    let spec = match object::object(event) {
        Ok(object) => object.key("spec"),
        Err(without) => return without,
    };
    let places = [spec.path(&["hostPath", "path"]), spec.path(&["local", "path"])];
    match places.iter().find_map(View::str) {
        Some(path) => Value::Text(Cow::Owned(query::clean(&path))),
        None if places.iter().all(|place| place.complete) => Value::Absent,
        None => Value::Unknown,
    }
}

fn pv_host_path_sensitive<'a>(event: &Event<'a>) -> Value<'a> {
    if !Shape::of(event).on("", "persistentvolumes") {
        return Value::Absent;
    }
    match (pv_host_path(event), object::object(event)) {
        (Value::Text(path), _) => Value::Bool(is_sensitive(&path)),
        (Value::Absent, Ok(_)) => Value::Bool(false),
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use crate::facts::tests::check;

    /// A create of a pod with this spec.
    #[track_caller]
    fn check_spec(spec: &str, fact: &str, expected: &str) {
        let event = format!(
            r#"{{"verb": "create", "objectRef": {{"resource": "pods"}}, "requestObject": {{"kind": "Pod", "spec": {spec}}}}}"#
        );
        check(&event, fact, expected);
    }

    const PRIVILEGED: &str = r#"{"name": "c", "securityContext": {"privileged": true}}"#;

    #[test]
    fn every_kind_of_container_counts() {
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            check_spec(
                &format!(r#"{{"{list}": [{{"name": "a"}}, {PRIVILEGED}]}}"#),
                "pod.privileged",
                "true",
            );
            check_spec(&format!(r#"{{"{list}": [{PRIVILEGED}]}}"#), "pod.privileged-containers", "[c]");
        }
        check_spec(r#"{"containers": [{"name": "a"}]}"#, "pod.privileged", "false");
        check_spec(r#"{"containers": [{"name": "a"}]}"#, "pod.privileged-containers", "-");
        check_spec(
            r#"{"containers": [{"securityContext": {"privileged": "true"}}]}"#,
            "pod.privileged",
            "false",
        );
    }

    #[test]
    fn every_kind_of_workload_has_its_place() {
        let spec = format!(r#"{{"spec": {{"containers": [{PRIVILEGED}]}}}}"#);
        let check_kind = |group: &str, resource: &str, object: String, expected: &str| {
            let reference = format!(r#"{{"resource": "{resource}", "apiGroup": "{group}"}}"#);
            let event =
                format!(r#"{{"verb": "update", "objectRef": {reference}, "requestObject": {object}}}"#);
            check(&event, "pod.privileged", expected);
        };
        let template = format!(r#"{{"spec": {{"template": {spec}}}}}"#);
        check_kind("apps", "deployments", template.clone(), "true");
        check_kind("apps", "daemonsets", template.clone(), "true");
        check_kind("batch", "jobs", template.clone(), "true");
        check_kind("", "replicationcontrollers", template.clone(), "true");
        check_kind("batch", "cronjobs", format!(r#"{{"spec": {{"jobTemplate": {template}}}}}"#), "true");
        check_kind("", "podtemplates", format!(r#"{{"template": {spec}}}"#), "true");
        check_kind("", "pods", spec, "true");
        check_kind("example.com", "deployments", template, "-");
    }

    #[test]
    fn levels_truncation_and_reads() {
        let event =
            |rest: &str| format!(r#"{{"verb": "create", "objectRef": {{"resource": "pods"}}, {rest}}}"#);
        check(&event(r#""level": "Metadata""#), "pod.privileged", "?");
        check(&event(r#""level": "Request""#), "pod.privileged", "?");
        check(
            &event(r#""requestObject": {}, "annotations": {"audit.k8s.io/truncated": "true"}"#),
            "pod.privileged",
            "?",
        );
        check(
            r#"{"verb": "get", "objectRef": {"resource": "pods"}, "level": "Metadata"}"#,
            "pod.privileged",
            "-",
        );
        check(
            r#"{"verb": "create", "objectRef": {"resource": "secrets"}, "requestObject": {}}"#,
            "pod.privileged",
            "-",
        );
        check(
            r#"{"verb": "update", "objectRef": {"resource": "pods", "subresource": "status"}, "requestObject": {}}"#,
            "pod.privileged",
            "-",
        );
        let exec = r#"{"verb": "create", "objectRef": {"resource": "pods", "subresource": "exec"}}"#;
        check(exec, "pod.privileged", "-");
    }

    #[test]
    fn what_a_webhook_changed_stands_in_the_response() {
        let event = |response: &str| {
            format!(
                r#"{{"verb": "create", "objectRef": {{"resource": "pods"}}, "responseObject": {response},
                "requestObject": {{"spec": {{"hostPID": false}}}}}}"#
            )
        };
        check(&event(r#"{"kind": "Pod", "spec": {"hostPID": true}}"#), "pod.host-pid", "true");
        check(&event(r#"{"kind": "Status", "code": 403}"#), "pod.host-pid", "false");
        check(&event(r#"{"kind": "PartialObjectMetadata", "metadata": {}}"#), "pod.host-pid", "false");
    }

    #[test]
    fn host_namespaces_are_listed() {
        check_spec(r#"{"hostNetwork": true, "hostIPC": true}"#, "pod.host-namespaces", "[network, ipc]");
        check_spec(r#"{"hostNetwork": null}"#, "pod.host-network", "false");
        check_spec(r#"{"hostIPC": true}"#, "pod.host-ipc", "true");
    }

    fn volume(path: &str) -> String {
        format!(r#"{{"name": "v", "hostPath": {{"path": "{path}"}}}}"#)
    }

    #[test]
    fn host_paths_are_cleaned_and_compared_by_segments() {
        let sensitive = |path: &str, expected: &str| {
            check_spec(
                &format!(r#"{{"volumes": [{}]}}"#, volume(path)),
                "pod.host-paths-sensitive",
                expected,
            );
        };
        sensitive("/", "[/]");
        sensitive("/var//run/../run/docker.sock/", "[/var/run/docker.sock]");
        sensitive("/var/lib", "[/var/lib]");
        sensitive("/var", "[/var]");
        sensitive("/etc/kubernetes/pki", "[/etc/kubernetes/pki]");
        sensitive("/etcetera", "-");
        sensitive("/data", "-");
        sensitive("/var/lib/app", "-");
        check_spec(
            &format!(r#"{{"volumes": [{}, {{"emptyDir": {{}}}}]}}"#, volume("/data/")),
            "pod.host-paths",
            "[/data]",
        );
        check_spec(&format!(r#"{{"volumes": [{}]}}"#, volume("//.")), "pod.host-root", "true");
        check_spec("{}", "pod.host-root", "false");
    }

    #[test]
    fn a_volume_is_writable_if_some_container_may_write() {
        let spec = |mounts: &str| {
            format!(r#"{{"volumes": [{}], "containers": [{{"volumeMounts": [{mounts}]}}]}}"#, volume("/etc"))
        };
        check_spec(&spec(r#"{"name": "v", "readOnly": true}"#), "pod.host-paths-writable", "-");
        check_spec(&spec(r#"{"name": "v"}"#), "pod.host-paths-writable", "[/etc]");
        check_spec(
            &spec(r#"{"name": "v", "readOnly": true}, {"name": "v"}"#),
            "pod.host-paths-writable",
            "[/etc]",
        );
        check_spec(&spec(r#"{"name": "w"}"#), "pod.host-paths-writable", "-");
    }

    #[test]
    fn capabilities_are_normalised() {
        let spec = r#"{"containers": [{"securityContext": {"capabilities": {"add": ["cap_sys_admin", "NET_RAW"], "drop": ["ALL"]}}},
            {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}"#;
        check_spec(spec, "pod.capabilities", "[NET_RAW, SYS_ADMIN]");
    }

    #[test]
    fn confinement_switched_off() {
        check_spec(
            r#"{"securityContext": {"seccompProfile": {"type": "Unconfined"}}}"#,
            "pod.unconfined",
            "[seccomp]",
        );
        check_spec(
            r#"{"containers": [{"securityContext": {"procMount": "Unmasked"}}]}"#,
            "pod.unconfined",
            "[proc-mount]",
        );
        check_spec(
            r#"{"containers": [{"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}]}"#,
            "pod.unconfined",
            "[selinux]",
        );
        check_spec(
            r#"{"securityContext": {"seLinuxOptions": {"type": "container_t"}}}"#,
            "pod.unconfined",
            "-",
        );
        let annotated = r#"{"verb": "create", "objectRef": {"resource": "pods"}, "requestObject": {"metadata": {"annotations":
            {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}, "spec": {}}}"#;
        check(annotated, "pod.unconfined", "[apparmor]");
    }

    #[test]
    fn images_commands_and_accounts() {
        let spec = r#"{"containers": [{"name": "a", "image": "nginx", "command": ["sh", "-c"], "args": ["id"]}, {"name": "b", "image": "x"}],
            "serviceAccountName": "web", "nodeName": "n1"}"#;
        check_spec(spec, "pod.images", "[nginx, x]");
        check_spec(spec, "pod.containers", "[a, b]");
        check_spec(spec, "pod.command", "[sh -c id]");
        check_spec(spec, "pod.service-account", "web");
        check_spec(spec, "pod.node-name", "n1");
        check_spec("{}", "pod.service-account", "default");
        check_spec(r#"{"serviceAccount": "old"}"#, "pod.service-account", "old");
    }

    #[test]
    fn tolerating_everything() {
        check_spec(r#"{"tolerations": [{"operator": "Exists"}]}"#, "pod.tolerates-all", "true");
        check_spec(r#"{"tolerations": [{"operator": "Exists", "key": ""}]}"#, "pod.tolerates-all", "true");
        check_spec(r#"{"tolerations": [{"operator": "Exists", "key": "a"}]}"#, "pod.tolerates-all", "false");
    }

    #[test]
    fn owners_mirrors_and_debuggers() {
        let event = |metadata: &str| {
            format!(
                r#"{{"verb": "create", "objectRef": {{"resource": "pods"}}, "requestObject": {{"metadata": {metadata}, "spec": {{}}}}}}"#
            )
        };
        let owned = r#"{"ownerReferences": [{"kind": "Node"}, {"kind": "ReplicaSet", "controller": true}]}"#;
        check(&event(owned), "pod.owner-kind", "ReplicaSet");
        check(&event("{}"), "pod.owner-kind", "-");
        check(&event(r#"{"annotations": {"kubernetes.io/config.mirror": "x"}}"#), "pod.mirror", "true");
        check(&event("{}"), "pod.mirror", "false");
        check(
            &event(r#"{"labels": {"app.kubernetes.io/managed-by": "kubectl-debug"}}"#),
            "pod.kubectl-debug",
            "true",
        );
    }

    #[test]
    fn credentials_in_the_environment_are_named_and_not_shown() {
        let spec = r#"{"containers": [{"env": [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "MODE", "value": "dev"},
            {"name": "TOKEN", "valueFrom": {}}]}]}"#;
        check_spec(spec, "pod.env-credentials", "[DB_PASSWORD]");
    }

    #[track_caller]
    fn check_patch(patch: &str, fact: &str, expected: &str) {
        let object = r#"{"resource": "deployments", "apiGroup": "apps", "name": "web"}"#;
        check(
            &format!(r#"{{"verb": "patch", "objectRef": {object}, "requestObject": {patch}}}"#),
            fact,
            expected,
        );
    }

    #[test]
    fn json_patch_reaches_into_containers() {
        let op = |op: &str, path: &str, value: &str| {
            format!(r#"[{{"op": "{op}", "path": "/spec/template/spec{path}", "value": {value}}}]"#)
        };
        check_patch(&op("add", "/containers/0/securityContext/privileged", "true"), "pod.privileged", "true");
        check_patch(
            &op("add", "/containers/0/securityContext", r#"{"privileged": true}"#),
            "pod.privileged",
            "true",
        );
        check_patch(&op("add", "/containers/-", PRIVILEGED), "pod.privileged-containers", "[c, ..]");
        check_patch(&op("replace", "/containers/0/image", "\"evil\""), "pod.images", "[evil, ..]");
        check_patch(&op("replace", "/containers/0/image", "\"evil\""), "pod.privileged", "?");
        check_patch(&op("test", "/hostPID", "true"), "pod.host-pid", "?");
        check_patch(&op("add", "/hostPID", "false"), "pod.host-pid", "false");
        check_patch(&op("add", "", r#"{"containers": [], "hostPID": true}"#), "pod.host-namespaces", "[pid]");
        check_patch(&op("add", "/volumes/-", &volume("/etc")), "pod.host-paths-sensitive", "[/etc, ..]");
        check_patch(&op("replace", "", r#"{"containers": [{"name": "a"}]}"#), "pod.privileged", "false");
        let copied = op("add", "/hostPID", "true").replacen(
            '[',
            r#"[{"op": "copy", "from": "/a", "path": "/b"}, "#,
            1,
        );
        check_patch(&copied, "pod.host-pid", "true");
        check_patch(&copied, "pod.host-ipc", "?");
    }

    #[test]
    fn two_inserts_at_one_index_are_two_containers() {
        let insert = |container: &str| {
            format!(r#"{{"op": "add", "path": "/spec/template/spec/containers/0", "value": {container}}}"#)
        };
        let patch = format!("[{}, {}]", insert(PRIVILEGED), insert(r#"{"name": "harmless"}"#));
        check_patch(&patch, "pod.privileged", "true");
        check_patch(&patch, "pod.containers", "[c, harmless, ..]");
    }

    #[test]
    fn partial_objects_show_what_they_mention() {
        let template = |spec: &str| format!(r#"{{"spec": {{"template": {{"spec": {spec}}}}}}}"#);
        check_patch(&template(&format!(r#"{{"containers": [{PRIVILEGED}]}}"#)), "pod.privileged", "true");
        check_patch(&template(r#"{"containers": [{"name": "a", "image": "b"}]}"#), "pod.privileged", "?");
        check_patch(&template(r#"{"containers": [{"name": "a", "image": "b"}]}"#), "pod.images", "[b, ..]");
        check_patch(&template(r#"{"hostPID": null}"#), "pod.host-pid", "false");
        check_patch(&template("{}"), "pod.service-account", "?");
        check_patch(r#"{"spec": {"replicas": 3}}"#, "pod.privileged", "?");
        check_patch(&template(r#"{"tolerations": [{"operator": "Exists"}]}"#), "pod.tolerates-all", "true");
    }

    #[test]
    fn a_directive_deletes_only_where_it_stands_alone() {
        let list =
            |item: &str| format!(r#"{{"spec": {{"template": {{"spec": {{"containers": [{item}]}}}}}}}}"#);
        check_patch(&list(r#"{"$patch": "delete", "name": "a"}"#), "pod.containers", "?");
        let hidden = r#"{"$patch": "delete", "name": "a", "securityContext": {"privileged": true}}"#;
        check_patch(&list(hidden), "pod.privileged", "true");
    }

    #[test]
    fn apply_that_creates_is_a_whole_object() {
        let event = |code: u16| {
            format!(
                r#"{{"verb": "patch", "objectRef": {{"resource": "pods", "name": "a"}}, "responseStatus": {{"code": {code}}},
                "requestObject": {{"spec": {{"containers": [{{"name": "a"}}]}}}}}}"#
            )
        };
        check(&event(201), "pod.privileged", "false");
        check(&event(200), "pod.privileged", "?");
    }

    #[test]
    fn ephemeral_containers_are_pods() {
        let event = format!(
            r#"{{"verb": "patch", "objectRef": {{"resource": "pods", "subresource": "ephemeralcontainers", "name": "a"}},
                "requestObject": {{"spec": {{"ephemeralContainers": [{PRIVILEGED}]}}}}}}"#
        );
        check(&event, "pod.privileged", "true");
    }

    #[test]
    fn persistent_volumes_reach_the_node() {
        let event = |spec: &str| {
            format!(
                r#"{{"verb": "create", "objectRef": {{"resource": "persistentvolumes"}}, "requestObject": {{"spec": {spec}}}}}"#
            )
        };
        check(&event(r#"{"hostPath": {"path": "/etc/"}}"#), "pv.host-path", "/etc");
        check(&event(r#"{"local": {"path": "/mnt/disk"}}"#), "pv.host-path-sensitive", "false");
        check(&event(r#"{"hostPath": {"path": "/"}}"#), "pv.host-path-sensitive", "true");
        check(&event(r#"{"nfs": {}}"#), "pv.host-path", "-");
        check(&event(r#"{"nfs": {}}"#), "pv.host-path-sensitive", "false");
        check("{}", "pv.host-path-sensitive", "-");
    }
}
