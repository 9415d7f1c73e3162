//! What `deploy/` promises: manifests that Kubernetes takes, pods without privileges, rules and a dashboard that ask for metrics
//! which exist, a unit that systemd takes.
//!
//! `systemd-analyze` (Debian's package `systemd`) and `promtool` (`prometheus`) are used where they are installed. Each check
//! is shown to fail on something that is wrong.
#![allow(clippy::unwrap_used)] // a test may fail

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize as _;
use serde_json::{Value, json};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &str) -> String {
    let path = deploy().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML file.
fn documents(yaml: &str) -> Vec<Value> {
    yaml_serde::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap()).collect()
}

/// What is wrong with something; nothing, one hopes.
type Faults = Vec<String>;

/// The check passes on the text as it is, and fails on the text with `from` replaced by `to`.
fn check(text: &str, faults: impl Fn(&str) -> Faults, broken: &[(&str, &str)]) {
    let found = faults(text);
    assert!(found.is_empty(), "{found:#?}");
    for (from, to) in broken {
        let worse = text.replacen(from, to, 1);
        assert_ne!(worse, text, "`{from}` is not there to be broken");
        assert!(!faults(&worse).is_empty(), "with `{to}` in the place of `{from}` nothing was found wrong");
    }
}

const MANIFESTS: [&str; 2] = ["kubernetes/daemonset.yaml", "kubernetes/sidecar.yaml"];

/// The objects against the schemas of Kubernetes.
fn against_schemas(yaml: &str) -> Faults {
    let schemas: Value = serde_json::from_str(include_str!("schemas/kubernetes-1.34.json")).unwrap();
    let mut faults = Faults::new();
    for document in documents(yaml) {
        let kind = document["kind"].as_str().unwrap_or_default();
        let Some(definition) =
            schemas["$defs"].as_object().unwrap().keys().find(|name| name.ends_with(&format!(".{kind}")))
        else {
            faults.push(format!("no schema for a `{kind}`"));
            continue;
        };
        let mut schema = schemas.clone();
        schema["$ref"] = json!(format!("#/$defs/{definition}"));
        schema["required"] = json!(["apiVersion", "kind", "metadata"]);
        let validator = jsonschema::validator_for(&schema).unwrap();
        faults.extend(
            validator.iter_errors(&document).map(|error| format!("{kind}{}: {error}", error.instance_path())),
        );
    }
    faults
}

#[test]
fn kubernetes_takes_the_manifests() {
    for manifest in MANIFESTS {
        check(
            &read(manifest),
            against_schemas,
            &[
                ("securityContext:", "securityContxt:"),
                ("containerPort: 9468", "containerPort: metrics"),
                ("matchLabels:", "labels:"),
                ("apiVersion: apps/v1", "apiVersion: apps/v2"),
                ("metadata:", "meta:"),
                ("kind: ConfigMap", "kind: ConfigMapp"),
            ],
        );
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    value[key].as_array().into_iter().flatten().collect()
}

/// What a manifest promises beyond its schema: that a pod has no privileges and that its parts fit each other.
fn promises(yaml: &str) -> Faults {
    let documents = documents(yaml);
    let maps: BTreeMap<&str, &Value> = documents
        .iter()
        .filter(|document| document["kind"] == "ConfigMap")
        .map(|document| (document["metadata"]["name"].as_str().unwrap(), &document["data"]))
        .collect();
    let mut faults = Faults::new();
    let mut workloads = 0;
    for workload in documents.iter().filter(|document| document["spec"]["template"].is_object()) {
        workloads += 1;
        let template = &workload["spec"]["template"];
        if workload["spec"]["selector"]["matchLabels"] != template["metadata"]["labels"] {
            faults.push("the selector does not select the pods".to_owned());
        }
        pod(&template["spec"], &maps, workload["kind"] == "DaemonSet", &mut faults);
    }
    if workloads != 1 {
        faults.push(format!("{workloads} workloads"));
    }
    faults
}

fn pod(pod: &Value, maps: &BTreeMap<&str, &Value>, node: bool, faults: &mut Faults) {
    let mut fault = |wrong: bool, what: &str| {
        if wrong {
            faults.push(what.to_owned());
        }
    };
    let context = &pod["securityContext"];
    fault(pod["automountServiceAccountToken"] != false, "the pod has a token");
    fault(context["seccompProfile"]["type"] != "RuntimeDefault", "no seccomp profile");
    fault(pod["terminationGracePeriodSeconds"].as_u64() < Some(25), "no time to deliver what is left");
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        fault(pod[shared] == true, "a namespace of the node is shared");
    }
    if node {
        fault(context["runAsUser"] != 0, "only user 0 can read the log without a capability");
        fault(pod["nodeSelector"]["node-role.kubernetes.io/control-plane"] != "", "not on the control plane");
        fault(list(pod, "tolerations").is_empty(), "the control plane's taint is not tolerated");
    } else {
        fault(context["runAsNonRoot"] != true || context["runAsUser"] != 65532, "the pod is root's");
    }
    let volumes: BTreeMap<&str, &Value> =
        list(pod, "volumes").into_iter().map(|volume| (volume["name"].as_str().unwrap(), volume)).collect();
    for volume in volumes.values() {
        let map = volume["configMap"]["name"].as_str();
        fault(map.is_some_and(|map| !maps.contains_key(map)), "a ConfigMap is not there");
        let path = &volume["hostPath"];
        fault(path.is_object() && !node, "a sidecar mounts a folder of the node");
        fault(
            path["path"] == "/var/log/kubernetes/audit" && path["type"] != "Directory",
            "the folder is mounted, not the file",
        );
    }
    for one in list(pod, "initContainers").into_iter().chain(list(pod, "containers")) {
        container(one, &volumes, &mut fault);
    }
}

fn container(container: &Value, volumes: &BTreeMap<&str, &Value>, fault: &mut impl FnMut(bool, &str)) {
    let context = &container["securityContext"];
    fault(context["allowPrivilegeEscalation"] != false, "privileges can be escalated");
    fault(context["readOnlyRootFilesystem"] != true, "the root file system can be written");
    fault(context["capabilities"]["drop"] != json!(["ALL"]), "capabilities are not dropped");
    fault(!context["capabilities"]["add"].is_null() || context["privileged"] == true, "privileged");
    fault(container["resources"]["limits"]["memory"].is_null(), "no limit of memory");
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    fault(tag.is_empty() || tag == "latest", "the image has no version");
    let ports: Vec<&Value> = list(container, "ports").into_iter().map(|port| &port["name"]).collect();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let asked = &container[probe]["httpGet"];
        fault(asked.is_object() && !ports.contains(&&asked["port"]), "a probe asks a port that is not there");
        let known = ["/healthz", "/readyz"].map(Value::from);
        fault(asked.is_object() && !known.contains(&asked["path"]), "a probe asks a path that is not there");
    }
    for mount in list(container, "volumeMounts") {
        let volume = mount["name"].as_str().and_then(|name| volumes.get(name));
        fault(volume.is_none(), "a mount has no volume");
        let audit = volume.is_some_and(|volume| volume["hostPath"]["type"] == "Directory");
        fault(audit && mount["readOnly"] != true, "the audit log can be written");
    }
}

#[test]
fn pods_have_no_privileges_and_their_parts_fit() {
    let both = [
        ("automountServiceAccountToken: false", "automountServiceAccountToken: true"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
        ("drop: [ALL]", "drop: [KILL]"),
        ("lapwing:0.1.0", "lapwing:latest"),
        ("/healthz", "/health"),
        ("name: metrics, containerPort", "name: other, containerPort"),
        ("{name: state, mountPath", "{name: stat, mountPath"),
        ("limits: {memory", "limits: {cpu"),
    ];
    let sidecar = [
        ("runAsNonRoot: true", "runAsNonRoot: false"),
        ("configMap: {name: shipper}", "configMap: {name: no}"),
    ];
    let node = [
        ("runAsUser: 0", "runAsUser: 1"),
        ("type: Directory}", "type: File}"),
        ("audit, readOnly: true", "audit"),
        ("configMap: {name: lapwing}", "configMap: {name: no}"),
        ("node-role.kubernetes.io/control-plane: \"\"", "kubernetes.io/os: linux"),
    ];
    for (manifest, own) in
        [("kubernetes/daemonset.yaml", &node[..]), ("kubernetes/sidecar.yaml", &sidecar[..])]
    {
        let broken: Vec<_> = both.iter().chain(own).copied().collect();
        check(&read(manifest), promises, &broken);
    }
}

/// The metrics of docs/metrics.md: labels by name. A histogram is asked for by its parts.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    let page = include_str!("../docs/metrics.md");
    for row in page.lines().filter(|line| line.starts_with("| `lapwing_") || line.starts_with("| `process_"))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let labels: BTreeSet<String> =
            cells[3].split(',').map(|label| label.trim().trim_matches('`').to_owned()).collect();
        if cells[2] == "histogram" {
            for part in ["_bucket", "_sum", "_count"] {
                let le = (part == "_bucket").then(|| "le".to_owned());
                all.insert(format!("{name}{part}"), labels.iter().cloned().chain(le).collect());
            }
        } else {
            all.insert(name.to_owned(), labels);
        }
    }
    assert!(all.len() > 40, "docs/metrics.md has {} metrics", all.len());
    all
}

/// Metrics and labels in an expression that do not exist, and counters that are not asked for by their rate.
fn unknown_metrics(expression: &str) -> Faults {
    let known = metrics();
    let mut faults = Faults::new();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = expression;
    let mut found = 0;
    while let Some(start) = rest.find(|c: char| word(c) || c == '"') {
        rest = &rest[start..];
        if let Some(text) = rest.strip_prefix('"') {
            rest = text.split_once('"').map_or("", |(_, rest)| rest); // what stands in quotes is no metric
            continue;
        }
        let end = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if !name.starts_with("lapwing_") && !name.starts_with("process_") {
            continue;
        }
        found += 1;
        let Some(labels) = known.get(name) else {
            faults.push(format!("`{name}` is no metric, in `{expression}`"));
            continue;
        };
        let matchers =
            after.strip_prefix('{').and_then(|inner| inner.split_once('}')).map_or("", |(inner, _)| inner);
        for label in
            matchers.split(',').filter_map(|matcher| matcher.split_once(['=', '!'])).map(|(label, _)| label)
        {
            if !labels.contains(label) && label != "instance" {
                faults.push(format!("`{name}` has no label `{label}`"));
            }
        }
    }
    if found == 0 {
        faults.push(format!("no metric of ours in `{expression}`"));
    }
    faults
}

/// The groups of a file of rules: that they are whole, and that what they ask for exists.
fn rules(groups: &Value) -> Faults {
    let mut faults = Faults::new();
    let mut names = BTreeSet::new();
    for rule in groups.as_array().into_iter().flatten().flat_map(|group| list(group, "rules")) {
        let name = rule["alert"].as_str().unwrap_or_default();
        if !names.insert(name) || !name.starts_with("Lapwing") {
            faults.push(format!("`{name}` is not a name of its own"));
        }
        if !["critical", "warning", "info"].map(Value::from).contains(&rule["labels"]["severity"]) {
            faults.push(format!("{name} has no severity"));
        }
        for text in ["summary", "description"] {
            if rule["annotations"][text].as_str().unwrap_or_default().is_empty() {
                faults.push(format!("{name} has no {text}"));
            }
        }
        let known = ["alert", "expr", "for", "labels", "annotations"];
        faults.extend(
            rule.as_object()
                .unwrap()
                .keys()
                .filter(|key| !known.contains(&key.as_str()))
                .map(|key| format!("key `{key}`")),
        );
        faults.extend(unknown_metrics(rule["expr"].as_str().unwrap_or_default()));
    }
    // What has to be watched, whatever else is.
    for needed in [
        "LapwingInputSilent",
        "LapwingInputLag",
        "LapwingInputGap",
        "LapwingAlertsDropped",
        "LapwingReloadFailed",
        "LapwingOutputFailing",
        "LapwingSpoolFilling",
        "LapwingDeadLetters",
    ] {
        if !names.contains(needed) {
            faults.push(format!("{needed} is not watched"));
        }
    }
    faults
}

#[test]
fn rules_ask_for_metrics_that_exist() {
    check(
        &read("prometheus/lapwing.rules.yaml"),
        |text| rules(&documents(text)[0]["groups"]),
        &[
            ("lapwing_input_bytes_total", "lapwing_input_byte_total"),
            ("lapwing_input_bytes_total", "lapwing_input_bytes"),
            ("{reason=", "{cause="),
            ("severity: critical", "severity: bad"),
            ("alert: LapwingReloadFailed", "alert: LapwingReload"),
            ("summary:", "summry:"),
            ("for: 5m", "after: 5m"),
        ],
    );
}

#[test]
fn the_operators_rules_are_the_same() {
    let plain = read("prometheus/lapwing.rules.yaml");
    check(
        &read("prometheus/lapwing.prometheusrule.yaml"),
        |text| {
            let object = &documents(text)[0];
            let mut faults = Faults::new();
            if object["spec"]["groups"] != documents(&plain)[0]["groups"] {
                faults.push("other rules than in lapwing.rules.yaml".to_owned());
            }
            let head = json!([object["apiVersion"], object["kind"], object["metadata"]["name"]]);
            if head != json!(["monitoring.coreos.com/v1", "PrometheusRule", "lapwing"]) {
                faults.push(format!("{head} is no PrometheusRule"));
            }
            faults
        },
        &[("> 60", "> 61"), ("monitoring.coreos.com/v1", "monitoring.coreos.com/v2")],
    );
}

#[test]
fn the_pod_monitor_finds_the_pods() {
    let monitor = &documents(&read("prometheus/lapwing.podmonitor.yaml"))[0];
    let (label, value) =
        monitor["spec"]["selector"]["matchLabels"].as_object().unwrap().iter().next().unwrap();
    let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
    for manifest in MANIFESTS {
        let documents = documents(&read(manifest));
        let template = &documents.last().unwrap()["spec"]["template"];
        assert_eq!(&template["metadata"]["labels"][label], value, "{manifest}");
        let containers = list(&template["spec"], "initContainers")
            .into_iter()
            .chain(list(&template["spec"], "containers"));
        let ports: Vec<&Value> =
            containers.flat_map(|one| list(one, "ports")).map(|port| &port["name"]).collect();
        assert!(ports.contains(&port), "{manifest}");
    }
}

/// The panels of the dashboard.
fn dashboard(text: &str) -> Faults {
    let board: Value = match serde_json::from_str(text) {
        Ok(board) => board,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Faults::new();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&board, "panels") {
        let title = panel["title"].as_str().unwrap_or_default();
        if title.is_empty() || !ids.insert(panel["id"].as_u64()) {
            faults.push(format!("panel `{title}` has no title or id of its own"));
        }
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(u64::from(u8::MAX));
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                if x >= 24 || !cells.insert((x, y)) {
                    faults.push(format!("panel `{title}` lies over another or beyond the edge at {x},{y}"));
                }
            }
        }
        let targets = list(panel, "targets");
        if panel["type"] != "row" && targets.is_empty() {
            faults.push(format!("panel `{title}` shows nothing"));
        }
        for target in targets {
            faults.extend(unknown_metrics(target["expr"].as_str().unwrap_or_default()));
        }
    }
    // The board's own, and those of its data sources.
    let uids = text.matches("\"uid\": ").count();
    if uids != 1 + text.matches("\"uid\": \"${datasource}\"").count() {
        faults.push("a data source is named that is not the chosen one".to_owned());
    }
    if ids.len() < 20 {
        faults.push(format!("{} panels", ids.len()));
    }
    faults
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    check(
        &read("grafana/lapwing.json"),
        dashboard,
        &[
            ("lapwing_alerts_total", "lapwing_alert_total"),
            ("lapwing_event_processing_seconds_bucket", "lapwing_event_processing_seconds"),
            ("state=\\\"enabled\\\"", "status=\\\"enabled\\\""),
            ("\"x\": 4", "\"x\": 3"),
            ("\"id\": 3", "\"id\": 2"),
            ("${datasource}", "prometheus"),
            ("{", "["),
        ],
    );
}

/// Keys of the unit, and their values.
fn service(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            keys.entry(key).or_default().push(value);
        }
    }
    keys
}

#[test]
fn the_unit_is_confined() {
    let confined = |text: &str| {
        let keys = service(text);
        let mut faults = Faults::new();
        for (key, value) in [
            ("CapabilityBoundingSet", "CAP_DAC_READ_SEARCH"),
            ("AmbientCapabilities", "CAP_DAC_READ_SEARCH"),
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("PrivateTmp", "yes"),
            ("MemoryDenyWriteExecute", "yes"),
            ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
            ("StateDirectory", "lapwing"),
            ("ExecReload", "/bin/kill -HUP $MAINPID"),
            ("ExecStartPre", "/usr/bin/lapwing config check /etc/lapwing/lapwing.yaml"),
            ("Restart", "always"),
        ] {
            if keys.get(key).and_then(|values| values.last()) != Some(&value) {
                faults.push(format!("{key} is not {value}"));
            }
        }
        faults
    };
    check(
        &read("systemd/lapwing.service"),
        confined,
        &[("ProtectSystem=strict", "ProtectSystem=no"), ("NoNewPrivileges=yes", "#")],
    );
}

/// Runs a tool; what it finds wrong. Nothing if it is not installed.
fn tool(command: &mut Command) -> Option<Faults> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{} is not installed: not checked", command.get_program().display());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Some(if output.status.success() { Faults::new() } else { vec![said] })
}

#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lapwing.service");
    let verified = |text: &str| {
        // It looks for the programs, and the one that is meant is not installed.
        std::fs::write(&path, text.replace("/usr/bin/lapwing", env!("CARGO_BIN_EXE_lapwing"))).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&path);
        tool(&mut verify)
    };
    let text = read("systemd/lapwing.service");
    if verified(&text).is_none() {
        return;
    }
    check(
        &text,
        |text| verified(text).unwrap(),
        &[
            ("NoNewPrivileges=yes", "NoNewPrivilege=yes"),
            ("ExecStart=/usr/bin", "ExecStart=/nowhere"),
            ("Type=exec", "Type=daemon"),
        ],
    );
}

#[test]
fn systemd_finds_the_unit_little_exposed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lapwing.service");
    let secure = |text: &str| {
        std::fs::write(&path, text).unwrap();
        // 2.0 of 10; what is left of it is the network and the one capability.
        tool(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
                .arg(&path),
        )
    };
    let text = read("systemd/lapwing.service");
    if secure(&text).is_none() {
        return;
    }
    check(&text, |text| secure(text).unwrap(), &[("CapabilityBoundingSet=CAP_DAC_READ_SEARCH", "#")]);
}

#[test]
fn prometheus_takes_the_rules_and_they_fire() {
    let folder = tempfile::tempdir().unwrap();
    let rules_file = folder.path().join("lapwing.rules.yaml");
    let tests_file = folder.path().join("lapwing.rules.test.yaml");
    std::fs::write(&tests_file, read("prometheus/lapwing.rules.test.yaml")).unwrap();
    let judged = |text: &str| {
        std::fs::write(&rules_file, text).unwrap();
        let mut faults = tool(Command::new("promtool").args(["check", "rules"]).arg(&rules_file))?;
        faults.extend(tool(Command::new("promtool").args(["test", "rules"]).arg(&tests_file))?);
        Some(faults)
    };
    let text = read("prometheus/lapwing.rules.yaml");
    if judged(&text).is_none() {
        return;
    }
    check(
        &text,
        |text| judged(text).unwrap(),
        &[
            ("rate(lapwing_input_bytes_total[15m]) == 0", "rate(lapwing_input_bytes_total[15m]) = 0"),
            (" and rate(lapwing_input_bytes_total[5m]) > 0", ""),
            ("> 0.8", "> 8"),
            (" unless rate(lapwing_output_sent_total[10m]) > 0", ""),
            ("successful == 0", "successful == 1"),
        ],
    );
}

/// A Dockerfile: two stages, a static binary, nobody's root.
fn image(text: &str) -> Faults {
    let mut faults = Faults::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let all = |word: &str| -> Vec<&str> { lines.iter().filter_map(|line| line.strip_prefix(word)).collect() };
    let from = all("FROM ");
    let rust = format!("rust:{}-alpine AS build", env!("CARGO_PKG_RUST_VERSION"));
    if from.len() != 2 || from[0] != rust {
        faults.push(format!("does not begin with `FROM {rust}` and one stage more"));
    }
    if !from
        .last()
        .is_some_and(|base| base.starts_with("gcr.io/distroless/static-") && base.ends_with(":nonroot"))
    {
        faults.push("the image has more in it than the binary needs".to_owned());
    }
    if all("USER ") != ["65532:65532"] {
        faults.push("the user is not 65532".to_owned());
    }
    for key in ["ENTRYPOINT ", "CMD "] {
        if all(key).last().is_none_or(|list| serde_json::from_str::<Vec<String>>(list).is_err()) {
            faults.push(format!("{key}needs a shell"));
        }
    }
    if !text.contains("--locked") || text.contains("ADD http") || text.contains("curl ") {
        faults.push("what is built is not what is locked".to_owned());
    }
    faults
}

#[test]
fn the_image_is_small_and_nobodys_root() {
    check(
        &read("Dockerfile"),
        image,
        &[
            ("USER 65532:65532", "USER 0"),
            ("rust:1", "rust:0"),
            ("--locked", ""),
            ("ENTRYPOINT [\"/usr/bin/lapwing\"]", "ENTRYPOINT /usr/bin/lapwing"),
            (":nonroot", ":latest"),
        ],
    );
    // Everything that the build reads is let in.
    let ignored = read("Dockerfile.dockerignore");
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "src", "detectors", "benches"] {
        assert!(
            ignored.lines().any(|line| line == format!("!{needed}")),
            "{needed} is kept out of the build"
        );
    }
}

/// The configurations here: by themselves and inside of manifests.
fn configurations() -> Vec<(String, String)> {
    let mut all = vec![("lapwing.example.yaml".to_owned(), read("lapwing.example.yaml"))];
    for manifest in MANIFESTS {
        for document in documents(&read(manifest)) {
            if let Some(text) = document["data"]["lapwing.yaml"].as_str() {
                all.push((manifest.to_owned(), text.to_owned()));
            }
        }
    }
    assert_eq!(all.len(), 3);
    all
}

#[test]
fn configurations_have_the_documented_keys() {
    let known =
        ["cluster", "state_dir", "inputs", "detectors", "lists", "outputs", "spool", "server", "redact"];
    for (name, text) in configurations() {
        let config = &documents(&text)[0];
        for key in config.as_object().unwrap().keys() {
            assert!(known.contains(&key.as_str()), "{name}: {key}");
        }
        assert!(!list(config, "inputs").is_empty() && !list(config, "outputs").is_empty(), "{name}");
    }
}

#[test]
fn lapwing_takes_the_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lapwing.yaml");
    let judged = |text: &str| {
        // The folder that the pod mounts is one of this machine's here.
        let text = text.replace("path: /alerts/", &format!("path: {}/", folder.path().display()));
        std::fs::write(&path, text).unwrap();
        tool(Command::new(env!("CARGO_BIN_EXE_lapwing")).args(["config", "check"]).arg(&path)).unwrap()
    };
    for (name, text) in configurations() {
        let faults = judged(&text);
        assert!(faults.is_empty(), "{name}: {faults:#?}");
        check(
            &text,
            judged,
            &[("type: file", "type: flie"), ("max_bytes", "max_byte"), ("outputs:", "output:")],
        );
    }
}
