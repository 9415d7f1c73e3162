//! The made-up cluster and the endless stream of its audit events: what `corpus.rs` writes to a file and `engine.rs` measures
//! with. What it is like and what it flatters stands in `corpus.rs`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::ops::Range;

/// What kind of log it shall be.
pub(crate) struct Options {
    pub(crate) profile: Profile,
    /// Suspicious lines in a million: parts rather than a fraction, so that everything here is whole numbers.
    pub(crate) suspicious_ppm: u64,
    /// Same seed, same bytes.
    pub(crate) seed: u64,
    /// Time of the first event, in microseconds since 1970.
    pub(crate) start: u64,
}

impl Default for Options {
    /// Mixed, 0.2 % suspicious, from 2026-03-01T10:00:00Z on.
    fn default() -> Self {
        Self { profile: Profile::Mixed, suspicious_ppm: 2_000, seed: 1, start: 1_772_359_200_000_000 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Every event at level Metadata.
    Metadata,
    /// Bodies on writes.
    Mixed,
}

// -----------------------------------------------------------------------------------------------------------
// Random numbers

/// xoshiro256++, seeded through splitmix64 (Blackman and Vigna, public domain).
#[derive(Clone)]
pub(crate) struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub(crate) fn new(mut seed: u64) -> Self {
        let state = std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = seed;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        });
        Self { state }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `bound`; the bias of the multiplication is far below what anybody can see here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn index(&mut self, range: &Range<usize>) -> usize {
        range.start + self.below(range.len() as u64) as usize
    }
}

// -----------------------------------------------------------------------------------------------------------
// Templates: JSON text with `$(slot)` in it. A name that is no slot is a fragment, put in as it stands. A
// line break in a template and the blanks after it are layout and are left out; `&` becomes `\u0026`, as Go's
// encoder has it.

enum Part {
    Text(Vec<u8>),
    Slot(Slot),
    /// The fragment once for each pod of the scene's app, with commas between.
    EachPod(Vec<Part>),
}

#[derive(Clone, Copy)]
enum Slot {
    AuditId,
    Stage,
    Received,
    Staged,
    User,
    Source,
    Agent,
    Reason,
    ActorName,
    ActorNamespace,
    ActorPod,
    ActorUid,
    Lease,
    Path,
    Resource,
    Version,
    GroupField,
    ObjectName,
    Namespace,
    OtherNamespace,
    Team,
    App,
    AppUid,
    SetHash,
    SetUid,
    Digest,
    Created,
    Pod,
    PodUid,
    PodAddress,
    Node,
    NodeUid,
    NodeAddress,
    Revision,
    NextRevision,
    Now,
    NowMicro,
    Recent,
    Seconds,
    Timeout,
    Uuid,
    Hex8,
    Hex64,
    Letters5,
    Digit,
    Number,
}

const SLOTS: &[(&str, Slot)] = &[
    ("auditid", Slot::AuditId),
    ("stage", Slot::Stage),
    ("received", Slot::Received),
    ("staged", Slot::Staged),
    ("user", Slot::User),
    ("source", Slot::Source),
    ("agent", Slot::Agent),
    ("reason", Slot::Reason),
    // The service account that acts, and the pod it acts from.
    ("me", Slot::ActorName),
    ("myns", Slot::ActorNamespace),
    ("mypod", Slot::ActorPod),
    ("myuid", Slot::ActorUid),
    ("lease", Slot::Lease),
    // One of the resources that the identity works with.
    ("path", Slot::Path),
    ("resource", Slot::Resource),
    ("version", Slot::Version),
    ("groupfield", Slot::GroupField),
    ("object", Slot::ObjectName),
    // The pod that the event is about, and all that belongs to it.
    ("ns", Slot::Namespace),
    ("otherns", Slot::OtherNamespace),
    ("team", Slot::Team),
    ("app", Slot::App),
    ("appuid", Slot::AppUid),
    ("sethash", Slot::SetHash),
    ("setuid", Slot::SetUid),
    ("digest", Slot::Digest),
    ("created", Slot::Created),
    ("pod", Slot::Pod),
    ("poduid", Slot::PodUid),
    ("podip", Slot::PodAddress),
    ("node", Slot::Node),
    ("nodeuid", Slot::NodeUid),
    ("nodeip", Slot::NodeAddress),
    // What differs in every event. The uuid and the 64 digits differ each time they are asked for, so they do not
    // stand in kinds with two lines.
    ("rv", Slot::Revision),
    ("rvnext", Slot::NextRevision),
    ("now", Slot::Now),
    ("nowmicro", Slot::NowMicro),
    ("recent", Slot::Recent),
    ("seconds", Slot::Seconds),
    ("timeout", Slot::Timeout),
    ("uuid", Slot::Uuid),
    ("hex8", Slot::Hex8),
    ("hex64", Slot::Hex64),
    ("letters5", Slot::Letters5),
    ("digit", Slot::Digit),
    ("number", Slot::Number),
];

/// Panics on an unknown name: the templates are in this file.
fn compile(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    compile_into(template, &mut parts);
    parts
}

fn compile_into(template: &str, parts: &mut Vec<Part>) {
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("$(") {
        push_text(text, parts);
        let (name, tail) = after.split_once(')').expect("every $( of a template is closed");
        let slot = SLOTS.iter().find(|(known, _)| *known == name).map(|&(_, slot)| slot);
        let fragment = |table: &[(&str, &'static str)]| table.iter().find(|f| f.0 == name).map(|f| f.1);
        if let Some(slot) = slot {
            parts.push(Part::Slot(slot));
        } else if let Some(text) = fragment(PER_POD_FRAGMENTS) {
            parts.push(Part::EachPod(compile(text)));
        } else if let Some(text) = fragment(FRAGMENTS) {
            compile_into(text, parts);
        } else {
            panic!("neither a slot nor a fragment: {name}");
        }
        rest = tail;
    }
    push_text(rest, parts);
}

fn push_text(text: &str, parts: &mut Vec<Part>) {
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    let joined: String = std::iter::once(first).chain(lines.map(str::trim_start)).collect();
    let joined = joined.replace('&', r"\u0026");
    match parts.last_mut() {
        _ if joined.is_empty() => {}
        Some(Part::Text(last)) => last.extend_from_slice(joined.as_bytes()),
        _ => parts.push(Part::Text(joined.into_bytes())),
    }
}

// -----------------------------------------------------------------------------------------------------------
// Tables: who and what there is in the cluster

const NODES: usize = 200;
const PODS: usize = 2000;
const APPS_PER_NAMESPACE: usize = 8;
/// Every fourth app talks to the API with a service account of its own.
const APPS_PER_WORKLOAD: usize = 4;
const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "prod"];

/// With the 7 platform namespaces that the templates name, three namespaces a team make 40.
const TEAMS: [&str; 11] = [
    "payments",
    "checkout",
    "catalogue",
    "identity",
    "logistics",
    "search-relevance",
    "merchandising",
    "data-platform",
    "customer-care",
    "notifications",
    "pricing-engine",
];

const APPS: [&str; 24] = [
    "order-orchestrator",
    "settlement-reconciliation-worker",
    "invoice-renderer",
    "cart-api",
    "session-gateway",
    "stock-level-projector",
    "delivery-slot-planner",
    "query-understanding-api",
    "ranking-feature-store",
    "image-resizer",
    "campaign-scheduler",
    "clickstream-enricher",
    "ticket-router",
    "mail-dispatcher",
    "push-notification-sender",
    "price-rule-evaluator",
    "currency-rate-cache",
    "profile-preferences-api",
    "returns-portal-backend",
    "warehouse-event-bridge",
    "recommendation-batcher",
    "address-normaliser",
    "fraud-score-aggregator",
    "export-report-builder",
];

const PEOPLE: [&str; 25] = [
    "dana.keller",
    "amir.haddad",
    "sofia.lindqvist",
    "tomasz.wrona",
    "ines.carvalho",
    "kenji.mori",
    "laura.bianchi",
    "oluwaseun.ade",
    "petra.novak",
    "rafael.ortega",
    "maja.horvat",
    "niamh.doyle",
    "jonas.brandt",
    "priya.raman",
    "lucas.moreau",
    "elif.yildiz",
    "anton.petrov",
    "grace.mensah",
    "henrik.dahl",
    "yara.saleh",
    "mateo.silva",
    "freya.olsen",
    "david.roth",
    "lin.zhao",
    "carla.fuentes",
];

const PEOPLE_AGENTS: [&str; 6] = [
    "kubectl/v1.34.4 (darwin/arm64) kubernetes/7c1f0e2",
    "kubectl/v1.34.3 (linux/amd64) kubernetes/2b9d6a4",
    "kubectl/v1.35.1 (darwin/arm64) kubernetes/e05c8d1",
    "kubectl/v1.33.8 (windows/amd64) kubernetes/91ab37f",
    "k9s/v0.50.16 (darwin/arm64) kubernetes/$Format",
    "kubectl/v1.34.4 (linux/amd64) kubernetes/7c1f0e2",
];

const PEOPLE_RESOURCES: &[&str] = &["pods", "deployments", "services", "configmaps", "events", "ingresses"];

/// Plural name, group, version, and the template of an object's name.
type Resource = (&'static str, &'static str, &'static str, &'static str);

/// Namespaced ones only. Secrets, roles, bindings and service accounts are left out on purpose.
const RESOURCES: &[Resource] = &[
    ("pods", "", "v1", "$(pod)"),
    ("services", "", "v1", "$(app)"),
    ("configmaps", "", "v1", "$(app)-config"),
    ("events", "", "v1", "$(pod).18a$(hex8)"),
    ("persistentvolumeclaims", "", "v1", "data-$(app)-$(digit)"),
    ("deployments", "apps", "v1", "$(app)"),
    ("replicasets", "apps", "v1", "$(app)-$(sethash)"),
    ("statefulsets", "apps", "v1", "$(app)"),
    ("daemonsets", "apps", "v1", "$(app)"),
    ("jobs", "batch", "v1", "$(app)-migrate"),
    ("endpointslices", "discovery.k8s.io", "v1", "$(app)-x7k2p"),
    ("ingresses", "networking.k8s.io", "v1", "$(app)"),
    ("poddisruptionbudgets", "policy", "v1", "$(app)"),
    ("horizontalpodautoscalers", "autoscaling", "v2", "$(app)"),
    ("verticalpodautoscalers", "autoscaling.k8s.io", "v1", "$(app)"),
    ("certificates", "cert-manager.io", "v1", "$(app)-tls"),
    ("certificaterequests", "cert-manager.io", "v1", "$(app)-tls-$(digit)"),
    ("applications", "argoproj.io", "v1alpha1", "$(app)"),
    ("applicationsets", "argoproj.io", "v1alpha1", "$(team)"),
    ("rollouts", "argoproj.io", "v1alpha1", "$(app)"),
    ("prometheusrules", "monitoring.coreos.com", "v1", "$(app)-alerts"),
    ("servicemonitors", "monitoring.coreos.com", "v1", "$(app)"),
    ("podmonitors", "monitoring.coreos.com", "v1", "$(app)"),
    ("scaledobjects", "keda.sh", "v1alpha1", "$(app)"),
    ("ciliumendpoints", "cilium.io", "v2", "$(pod)"),
    ("ciliumnetworkpolicies", "cilium.io", "v2", "$(app)"),
    ("targetgroupbindings", "elbv2.k8s.aws", "v1beta1", "k8s-$(app)-$(sethash)"),
    ("httproutes", "gateway.networking.k8s.io", "v1", "$(app)"),
    ("gateways", "gateway.networking.k8s.io", "v1", "$(team)"),
    ("volumesnapshots", "snapshot.storage.k8s.io", "v1", "$(app)-$(sethash)"),
    ("policyreports", "wgpolicyk8s.io", "v1alpha2", "$(poduid)"),
    ("grafanadashboards", "grafana.integreatly.org", "v1beta1", "$(app)"),
];

/// Service accounts of the controller manager, by the informers that they read.
const CONTROLLERS: &[(&str, &[&str])] = &[
    ("replicaset-controller", &["replicasets", "pods"]),
    ("deployment-controller", &["deployments", "replicasets"]),
    ("daemon-set-controller", &["daemonsets", "pods"]),
    ("statefulset-controller", &["statefulsets", "pods"]),
    ("job-controller", &["jobs", "pods"]),
    ("cronjob-controller", &["jobs"]),
    ("endpointslice-controller", &["services", "pods", "endpointslices"]),
    ("endpoint-controller", &["services", "pods"]),
    ("endpointslicemirroring-controller", &["endpointslices"]),
    ("horizontal-pod-autoscaler", &["horizontalpodautoscalers", "pods"]),
    ("disruption-controller", &["poddisruptionbudgets", "pods"]),
    ("node-controller", &["pods"]),
    ("persistent-volume-binder", &["persistentvolumeclaims"]),
    ("pvc-protection-controller", &["persistentvolumeclaims", "pods"]),
    ("attachdetach-controller", &["persistentvolumeclaims", "pods"]),
    ("expand-controller", &["persistentvolumeclaims"]),
    ("resourcequota-controller", &["pods", "services", "configmaps"]),
    ("generic-garbage-collector", &["replicasets", "pods", "jobs"]),
    ("namespace-controller", &["configmaps", "services"]),
    ("ttl-after-finished-controller", &["jobs"]),
    ("pod-garbage-collector", &["pods"]),
    ("root-ca-cert-publisher", &["configmaps"]),
];

struct Operator {
    name: &'static str,
    namespace: &'static str,
    agent: &'static str,
    resources: &'static [&'static str],
}

const fn operator(
    name: &'static str,
    namespace: &'static str,
    agent: &'static str,
    resources: &'static [&'static str],
) -> Operator {
    Operator { name, namespace, agent, resources }
}

const OPERATORS: &[Operator] = &[
    operator(
        "argocd-application-controller",
        "argocd",
        "argocd-application-controller/v3.2.1 (linux/amd64) kubernetes/$Format",
        &["deployments", "services", "configmaps", "ingresses", "statefulsets", "applications"],
    ),
    operator(
        "argocd-applicationset-controller",
        "argocd",
        "argocd-applicationset-controller/v3.2.1 (linux/amd64) kubernetes/$Format",
        &["applications", "applicationsets"],
    ),
    operator(
        "argocd-server",
        "argocd",
        "argocd-server/v3.2.1 (linux/amd64) kubernetes/$Format",
        &["applications"],
    ),
    operator(
        "argocd-notifications-controller",
        "argocd",
        "argocd-notifications/v3.2.1 (linux/amd64) kubernetes/$Format",
        &["applications", "configmaps"],
    ),
    operator(
        "argo-rollouts",
        "argocd",
        "rollouts-controller/v1.8.3 (linux/amd64) kubernetes/$Format",
        &["rollouts", "replicasets", "services", "ingresses"],
    ),
    operator(
        "cert-manager",
        "cert-manager",
        "cert-manager-certificates-trigger/v1.19.2 (linux/amd64) cert-manager/4a7c02e9d1b85f3360c7d1e24bb09f5a8e6d3c71",
        &["certificates", "certificaterequests", "ingresses"],
    ),
    operator(
        "cert-manager-cainjector",
        "cert-manager",
        "cainjector/v1.19.2 (linux/amd64) cert-manager/4a7c02e9d1b85f3360c7d1e24bb09f5a8e6d3c71",
        &["certificates"],
    ),
    operator(
        "cert-manager-webhook",
        "cert-manager",
        "webhook/v1.19.2 (linux/amd64) cert-manager/4a7c02e9d1b85f3360c7d1e24bb09f5a8e6d3c71",
        &["configmaps"],
    ),
    operator(
        "external-dns",
        "external-dns",
        "external-dns/v0.20.0 (linux/amd64) kubernetes/$Format",
        &["services", "ingresses", "endpointslices", "httproutes"],
    ),
    operator(
        "ingress-nginx",
        "ingress-nginx",
        "nginx-ingress-controller/v1.14.0 (linux/amd64) ingress-nginx/3d8f1c6a5be2904d7c30b1f98a64e7d205c9bb13",
        &["ingresses", "services", "endpointslices", "configmaps"],
    ),
    operator(
        "gateway-controller",
        "ingress-nginx",
        "gateway-controller/v0.0.0 (linux/amd64) kubernetes/$Format",
        &["gateways", "httproutes", "services"],
    ),
    operator(
        "prometheus-k8s",
        "monitoring",
        "Prometheus/3.8.1",
        &["pods", "services", "endpointslices", "ingresses"],
    ),
    operator(
        "prometheus-operator",
        "monitoring",
        "PrometheusOperator/0.87.0",
        &["prometheusrules", "servicemonitors", "podmonitors", "statefulsets"],
    ),
    operator(
        "kube-state-metrics",
        "monitoring",
        "v2.17.0 (linux/amd64) kube-state-metrics/6be1f04 (kubernetes/$Format)",
        &["deployments", "pods", "statefulsets", "jobs", "horizontalpodautoscalers"],
    ),
    operator(
        "metrics-gateway",
        "monitoring",
        "kube-rbac-proxy/v0.20.1 (linux/amd64) kubernetes/$Format",
        &["services"],
    ),
    operator(
        "keda-operator",
        "monitoring",
        "keda/v2.18.2 (linux/amd64) kubernetes/$Format",
        &["scaledobjects", "deployments", "horizontalpodautoscalers"],
    ),
    operator(
        "grafana-operator",
        "monitoring",
        "grafana-operator/v5.20.0 (linux/amd64) kubernetes/$Format",
        &["grafanadashboards", "configmaps"],
    ),
    operator(
        "opentelemetry-collector",
        "monitoring",
        "otelcol-contrib/v0.142.0 (linux/amd64) kubernetes/$Format",
        &["pods", "replicasets"],
    ),
    operator("fluent-bit", "monitoring", "Fluent-Bit", &["pods"]),
    operator(
        "configmap-reloader",
        "monitoring",
        "reloader/v1.4.12 (linux/amd64) kubernetes/$Format",
        &["configmaps", "deployments"],
    ),
    operator(
        "policy-reporter",
        "monitoring",
        "policyreporter/v3.6.0 (linux/amd64) kubernetes/$Format",
        &["policyreports"],
    ),
    operator(
        "metrics-server",
        "kube-system",
        "metrics-server/v0.8.0 (linux/amd64) kubernetes/e0f39d7",
        &["pods"],
    ),
    operator(
        "coredns",
        "kube-system",
        "coredns/v0.0.0 (linux/amd64) kubernetes/$Format",
        &["services", "endpointslices"],
    ),
    operator(
        "cluster-autoscaler",
        "kube-system",
        "cluster-autoscaler/v1.34.2 (linux/amd64) kubernetes/$Format",
        &["pods", "poddisruptionbudgets", "replicasets", "statefulsets"],
    ),
    operator(
        "cilium",
        "kube-system",
        "cilium-agent/1.18.5 0d41c8a2 2026-01-14T09:31:07+00:00 go version go1.24.11 linux/amd64",
        &["ciliumnetworkpolicies", "ciliumendpoints", "endpointslices"],
    ),
    operator(
        "cilium-operator",
        "kube-system",
        "cilium-operator-aws/1.18.5 0d41c8a2 2026-01-14T09:31:07+00:00 go version go1.24.11 linux/amd64",
        &["ciliumendpoints", "services"],
    ),
    operator(
        "ebs-csi-controller-sa",
        "kube-system",
        "csi-provisioner/v5.3.0 (linux/amd64) kubernetes/$Format",
        &["persistentvolumeclaims"],
    ),
    operator(
        "snapshot-controller",
        "kube-system",
        "snapshot-controller/v8.4.0 (linux/amd64) kubernetes/$Format",
        &["volumesnapshots", "persistentvolumeclaims"],
    ),
    operator(
        "aws-load-balancer-controller",
        "kube-system",
        "controller/v2.16.0 (linux/amd64) elbv2.k8s.aws/7b02d65ce184fa90",
        &["ingresses", "services", "endpointslices", "targetgroupbindings"],
    ),
    operator(
        "vpa-recommender",
        "kube-system",
        "recommender/v1.5.1 (linux/amd64) kubernetes/$Format",
        &["verticalpodautoscalers", "pods"],
    ),
    operator(
        "vpa-updater",
        "kube-system",
        "updater/v1.5.1 (linux/amd64) kubernetes/$Format",
        &["verticalpodautoscalers", "pods"],
    ),
    operator(
        "descheduler",
        "kube-system",
        "descheduler/v0.34.0 (linux/amd64) kubernetes/$Format",
        &["pods", "poddisruptionbudgets"],
    ),
];

/// Control-plane processes: user name, its part of the user agent, lease and source address.
const COMPONENTS: &[(&str, &str, &str, &str)] = &[
    ("system:kube-controller-manager", "kube-controller-manager", "leader-election", "10.4.0.11"),
    ("system:kube-scheduler", "kube-scheduler", "scheduler", "10.4.0.12"),
    ("system:cloud-controller-manager", "cloud-controller-manager", "leader-election", "10.4.0.13"),
];

/// Callers from outside without a credential.
const STRANGERS: &[(&str, &str)] = &[
    ("203.0.113.77", "curl/8.14.1"),
    ("198.51.100.23", "python-requests/2.32.5"),
    ("203.0.113.140", "Go-http-client/2.0"),
    ("192.0.2.91", "Mozilla/5.0 zgrab/0.x"),
];

const CONTROL_PLANE_AGENT: &str = "v1.34.4 (linux/amd64) kubernetes/7c1f0e2";

// -----------------------------------------------------------------------------------------------------------
// Tables: bodies of requests and responses

/// Repeated once for each pod of the app.
const PER_POD_FRAGMENTS: &[(&str, &str)] = &[(
    "endpoints",
    r#"{"addresses":["$(podip)"],"conditions":{"ready":true,"serving":true,"terminating":false},
    "targetRef":{"kind":"Pod","namespace":"$(ns)","name":"$(pod)","uid":"$(poduid)"},"nodeName":"$(node)",
    "zone":"eu-west-1b","hints":{"forZones":[{"name":"eu-west-1b"}]}}"#,
)];

const FRAGMENTS: &[(&str, &str)] = &[
    (
        "podlabels",
        r#""app.kubernetes.io/component":"backend","app.kubernetes.io/instance":"$(app)",
        "app.kubernetes.io/managed-by":"Helm","app.kubernetes.io/name":"$(app)",
        "app.kubernetes.io/part-of":"$(team)","app.kubernetes.io/version":"2026.2.$(digit)",
        "cost-centre":"$(team)","helm.sh/chart":"service-3.14.2""#,
    ),
    (
        "container",
        r#"{"name":"$(app)","image":"registry.example.com/$(team)/$(app)@sha256:$(digest)",
        "args":["--config=/etc/$(app)/config.yaml","--listen=:8080","--metrics-listen=:9090","--log-format=json"],
        "ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},
        {"name":"metrics","containerPort":9090,"protocol":"TCP"}],
        "env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},
        {"name":"POD_NAMESPACE","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}},
        {"name":"NODE_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"spec.nodeName"}}},
        {"name":"GOMEMLIMIT","valueFrom":{"resourceFieldRef":{"resource":"limits.memory","divisor":"0"}}},
        {"name":"OTEL_EXPORTER_OTLP_ENDPOINT","value":"http://otel-collector.monitoring.svc.cluster.local:4317"},
        {"name":"OTEL_RESOURCE_ATTRIBUTES","value":"service.name=$(app),service.namespace=$(ns)"},
        {"name":"LOG_LEVEL","value":"info"}],
        "resources":{"limits":{"memory":"768Mi"},"requests":{"cpu":"250m","memory":"512Mi"}},
        "volumeMounts":[{"name":"config","readOnly":true,"mountPath":"/etc/$(app)"},
        {"name":"tls","readOnly":true,"mountPath":"/etc/tls"},{"name":"tmp","mountPath":"/tmp"},
        {"name":"identity","readOnly":true,"mountPath":"/etc/identity"}],
        "livenessProbe":{"httpGet":{"path":"/internal/live","port":"http","scheme":"HTTP"},"initialDelaySeconds":10,
        "timeoutSeconds":2,"periodSeconds":10,"successThreshold":1,"failureThreshold":6},
        "readinessProbe":{"httpGet":{"path":"/internal/ready","port":"http","scheme":"HTTP"},
        "timeoutSeconds":2,"periodSeconds":5,"successThreshold":1,"failureThreshold":3},
        "lifecycle":{"preStop":{"sleep":{"seconds":15}}},
        "terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File",
        "imagePullPolicy":"IfNotPresent","securityContext":{"capabilities":{"drop":["ALL"]},"runAsNonRoot":true,
        "readOnlyRootFilesystem":true,"allowPrivilegeEscalation":false}}"#,
    ),
    (
        "podspec",
        r#""volumes":[{"name":"config","configMap":{"name":"$(app)-config","defaultMode":420}},
        {"name":"tls","secret":{"secretName":"$(app)-tls","defaultMode":288}},
        {"name":"tmp","emptyDir":{"sizeLimit":"256Mi"}},
        {"name":"identity","projected":{"sources":[{"serviceAccountToken":{"audience":"https://vault.example.com",
        "expirationSeconds":3600,"path":"token"}}],"defaultMode":420}}],
        "containers":[$(container)],"restartPolicy":"Always","terminationGracePeriodSeconds":45,
        "dnsPolicy":"ClusterFirst","serviceAccountName":"$(app)","serviceAccount":"$(app)",
        "automountServiceAccountToken":false,"securityContext":{"runAsUser":10001,"runAsGroup":10001,
        "runAsNonRoot":true,"fsGroup":10001,"seccompProfile":{"type":"RuntimeDefault"}},
        "schedulerName":"default-scheduler","topologySpreadConstraints":[{"maxSkew":1,
        "topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"ScheduleAnyway",
        "labelSelector":{"matchLabels":{"app.kubernetes.io/name":"$(app)"}}}]"#,
    ),
    (
        "podmeta",
        r#""labels":{$(podlabels),"pod-template-hash":"$(sethash)"},
        "annotations":{"checksum/config":"$(digest)","prometheus.io/path":"/metrics","prometheus.io/port":"9090",
        "prometheus.io/scrape":"true"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",
        "name":"$(app)-$(sethash)","uid":"$(setuid)","controller":true,"blockOwnerDeletion":true}]"#,
    ),
    (
        "podfields",
        r#"{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"$(now)",
        "fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:checksum/config":{},
        "f:prometheus.io/path":{},"f:prometheus.io/port":{},"f:prometheus.io/scrape":{}},"f:generateName":{},
        "f:labels":{".":{},"f:app.kubernetes.io/component":{},"f:app.kubernetes.io/instance":{},
        "f:app.kubernetes.io/managed-by":{},"f:app.kubernetes.io/name":{},"f:app.kubernetes.io/part-of":{},
        "f:app.kubernetes.io/version":{},"f:cost-centre":{},"f:helm.sh/chart":{},"f:pod-template-hash":{}},
        "f:ownerReferences":{".":{},"k:{\"uid\":\"$(setuid)\"}":{}}},
        "f:spec":{"f:automountServiceAccountToken":{},"f:containers":{"k:{\"name\":\"$(app)\"}":{".":{},"f:args":{},
        "f:env":{".":{},"k:{\"name\":\"GOMEMLIMIT\"}":{".":{},"f:name":{},"f:valueFrom":{".":{},
        "f:resourceFieldRef":{}}},"k:{\"name\":\"LOG_LEVEL\"}":{".":{},"f:name":{},"f:value":{}},
        "k:{\"name\":\"NODE_NAME\"}":{".":{},"f:name":{},"f:valueFrom":{".":{},"f:fieldRef":{}}},
        "k:{\"name\":\"OTEL_EXPORTER_OTLP_ENDPOINT\"}":{".":{},"f:name":{},"f:value":{}},
        "k:{\"name\":\"OTEL_RESOURCE_ATTRIBUTES\"}":{".":{},"f:name":{},"f:value":{}}},
        "f:image":{},"f:imagePullPolicy":{},"f:lifecycle":{".":{},"f:preStop":{".":{},"f:sleep":{".":{},
        "f:seconds":{}}}},"f:livenessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},
        "f:port":{},"f:scheme":{}},"f:initialDelaySeconds":{},"f:periodSeconds":{},"f:successThreshold":{},
        "f:timeoutSeconds":{}},"f:name":{},"f:ports":{".":{},
        "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:name":{},"f:protocol":{}},
        "k:{\"containerPort\":9090,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:name":{},"f:protocol":{}}},
        "f:readinessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},"f:port":{},
        "f:scheme":{}},"f:periodSeconds":{},"f:successThreshold":{},"f:timeoutSeconds":{}},
        "f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},
        "f:securityContext":{".":{},"f:allowPrivilegeEscalation":{},"f:capabilities":{".":{},"f:drop":{}},
        "f:readOnlyRootFilesystem":{},"f:runAsNonRoot":{}},"f:terminationMessagePath":{},
        "f:terminationMessagePolicy":{},"f:volumeMounts":{".":{},"k:{\"mountPath\":\"/tmp\"}":{".":{},
        "f:mountPath":{},"f:name":{}}}}},"f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{},
        "f:securityContext":{},"f:serviceAccount":{},"f:serviceAccountName":{},
        "f:terminationGracePeriodSeconds":{},"f:topologySpreadConstraints":{},"f:volumes":{}}}}"#,
    ),
    (
        "podobject",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"$(pod)","generateName":"$(app)-$(sethash)-",
        "namespace":"$(ns)","uid":"$(poduid)","resourceVersion":"$(rvnext)","generation":1,
        "creationTimestamp":"$(now)",$(podmeta),"managedFields":[$(podfields)]},"spec":{$(podspec),
        "tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute",
        "tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute",
        "tolerationSeconds":300}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"},
        "status":{"phase":"Pending","qosClass":"Burstable"}}"#,
    ),
    (
        "nodelease",
        r#"{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"$(node)",
        "namespace":"kube-node-lease","uid":"$(nodeuid)","resourceVersion":"$(rv)",
        "creationTimestamp":"2025-11-18T07:12:44Z","ownerReferences":[{"apiVersion":"v1","kind":"Node",
        "name":"$(node)","uid":"$(nodeuid)"}],"managedFields":[{"manager":"kubelet","operation":"Update",
        "apiVersion":"coordination.k8s.io/v1","time":"$(now)","fieldsType":"FieldsV1",
        "fieldsV1":{"f:metadata":{"f:ownerReferences":{".":{},"k:{\"uid\":\"$(nodeuid)\"}":{}}},
        "f:spec":{"f:holderIdentity":{},"f:leaseDurationSeconds":{},"f:renewTime":{}}}}]},
        "spec":{"holderIdentity":"$(node)","leaseDurationSeconds":40,"renewTime":"$(nowmicro)"}}"#,
    ),
    (
        "leaderlease",
        r#"{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"$(lease)",
        "namespace":"$(myns)","uid":"$(myuid)","resourceVersion":"$(rv)","creationTimestamp":"2025-11-18T07:12:44Z",
        "managedFields":[{"manager":"$(lease)","operation":"Update","apiVersion":"coordination.k8s.io/v1",
        "time":"$(now)","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:acquireTime":{},"f:holderIdentity":{},
        "f:leaseDurationSeconds":{},"f:leaseTransitions":{},"f:renewTime":{}}}}]},
        "spec":{"holderIdentity":"$(mypod)_$(myuid)","leaseDurationSeconds":15,
        "acquireTime":"2026-02-26T03:41:09.512087Z","renewTime":"$(nowmicro)","leaseTransitions":41}}"#,
    ),
    (
        "deployment",
        r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"$(app)","namespace":"$(ns)",
        "uid":"$(appuid)","resourceVersion":"$(rv)","generation":$(number),"creationTimestamp":"$(created)",
        "labels":{$(podlabels)},"annotations":{"deployment.kubernetes.io/revision":"$(number)",
        "meta.helm.sh/release-name":"$(app)","meta.helm.sh/release-namespace":"$(ns)"},
        "managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"apps/v1",
        "time":"$(now)","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{
        "f:deployment.kubernetes.io/revision":{}}},"f:status":{"f:availableReplicas":{},"f:conditions":{".":{},
        "k:{\"type\":\"Available\"}":{".":{},"f:lastTransitionTime":{},"f:lastUpdateTime":{},"f:message":{},
        "f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Progressing\"}":{".":{},"f:lastTransitionTime":{},
        "f:lastUpdateTime":{},"f:message":{},"f:reason":{},"f:status":{},"f:type":{}}},"f:observedGeneration":{},
        "f:readyReplicas":{},"f:replicas":{},"f:updatedReplicas":{}}},"subresource":"status"}]},
        "spec":{"replicas":8,"selector":{"matchLabels":{"app.kubernetes.io/instance":"$(app)",
        "app.kubernetes.io/name":"$(app)"}},"template":{"metadata":{"labels":{$(podlabels)},
        "annotations":{"checksum/config":"$(digest)"}},"spec":{$(podspec)}},
        "strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":0,"maxSurge":"25%"}},
        "revisionHistoryLimit":5,"progressDeadlineSeconds":600},
        "status":{"observedGeneration":$(number),"replicas":8,"updatedReplicas":8,"readyReplicas":$(digit),
        "availableReplicas":$(digit),"conditions":[{"type":"Progressing","status":"True","lastUpdateTime":"$(now)",
        "lastTransitionTime":"$(created)","reason":"NewReplicaSetAvailable",
        "message":"ReplicaSet \"$(app)-$(sethash)\" has successfully progressed."},{"type":"Available",
        "status":"True","lastUpdateTime":"$(recent)","lastTransitionTime":"$(recent)",
        "reason":"MinimumReplicasAvailable","message":"Deployment has minimum availability."}]}}"#,
    ),
    (
        "replicaset",
        r#"{"kind":"ReplicaSet","apiVersion":"apps/v1","metadata":{"name":"$(app)-$(sethash)","namespace":"$(ns)",
        "uid":"$(setuid)","resourceVersion":"$(rv)","generation":$(digit),"creationTimestamp":"$(created)",
        "labels":{$(podlabels),"pod-template-hash":"$(sethash)"},
        "annotations":{"deployment.kubernetes.io/desired-replicas":"8","deployment.kubernetes.io/max-replicas":"10",
        "deployment.kubernetes.io/revision":"$(number)"},"ownerReferences":[{"apiVersion":"apps/v1",
        "kind":"Deployment","name":"$(app)","uid":"$(appuid)","controller":true,"blockOwnerDeletion":true}]},
        "spec":{"replicas":8,"selector":{"matchLabels":{"app.kubernetes.io/name":"$(app)",
        "pod-template-hash":"$(sethash)"}},"template":{"metadata":{"labels":{$(podlabels),
        "pod-template-hash":"$(sethash)"}},"spec":{$(podspec)}}},
        "status":{"replicas":8,"fullyLabeledReplicas":8,"readyReplicas":$(digit),"availableReplicas":$(digit),
        "observedGeneration":$(digit)}}"#,
    ),
    (
        "autoscaler",
        r#"{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2","metadata":{"name":"$(app)",
        "namespace":"$(ns)","uid":"$(appuid)","resourceVersion":"$(rv)","creationTimestamp":"$(created)",
        "labels":{$(podlabels)}},"spec":{"scaleTargetRef":{"kind":"Deployment","name":"$(app)",
        "apiVersion":"apps/v1"},"minReplicas":4,"maxReplicas":24,"metrics":[{"type":"Resource",
        "resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":70}}}]},
        "status":{"lastScaleTime":"$(recent)","currentReplicas":8,"desiredReplicas":8,
        "currentMetrics":[{"type":"Resource","resource":{"name":"cpu","current":{"averageValue":"$(number)m",
        "averageUtilization":5$(digit)}}}],"conditions":[{"type":"AbleToScale","status":"True",
        "lastTransitionTime":"$(created)","reason":"ReadyForNewScale",
        "message":"recommended size matches current size"},{"type":"ScalingActive","status":"True",
        "lastTransitionTime":"$(created)","reason":"ValidMetricFound","message":"the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)"},
        {"type":"ScalingLimited","status":"False","lastTransitionTime":"$(recent)",
        "reason":"DesiredWithinRange","message":"the desired count is within the acceptable range"}]}}"#,
    ),
    (
        "budget",
        r#"{"kind":"PodDisruptionBudget","apiVersion":"policy/v1","metadata":{"name":"$(app)","namespace":"$(ns)",
        "uid":"$(appuid)","resourceVersion":"$(rv)","generation":1,"creationTimestamp":"$(created)",
        "labels":{$(podlabels)}},"spec":{"minAvailable":"75%",
        "selector":{"matchLabels":{"app.kubernetes.io/name":"$(app)"}}},"status":{"observedGeneration":1,
        "disruptionsAllowed":2,"currentHealthy":8,"desiredHealthy":6,"expectedPods":8,
        "conditions":[{"type":"DisruptionAllowed","status":"True","observedGeneration":1,
        "lastTransitionTime":"$(recent)","reason":"SufficientPods","message":""}]}}"#,
    ),
    (
        "slice",
        r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"$(app)-x7k2p",
        "generateName":"$(app)-","namespace":"$(ns)","uid":"$(appuid)","resourceVersion":"$(rv)",
        "generation":$(number),"creationTimestamp":"$(created)","labels":{$(podlabels),
        "endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io",
        "kubernetes.io/service-name":"$(app)"},
        "annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"$(now)"},
        "ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"$(app)","uid":"$(appuid)",
        "controller":true,"blockOwnerDeletion":true}]},"addressType":"IPv4","endpoints":[$(endpoints)],
        "ports":[{"name":"http","protocol":"TCP","port":8080},{"name":"metrics","protocol":"TCP","port":9090}]}"#,
    ),
    (
        "podevent",
        r#"{"kind":"Event","apiVersion":"v1","metadata":{"name":"$(pod).18a$(hex8)","namespace":"$(ns)",
        "creationTimestamp":null},"involvedObject":{"kind":"Pod","namespace":"$(ns)","name":"$(pod)",
        "uid":"$(poduid)","apiVersion":"v1","resourceVersion":"$(rv)","fieldPath":"spec.containers{$(app)}"},
        "reason":"Unhealthy","message":"Readiness probe failed: Get \"http://$(podip):8080/internal/ready\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        "source":{"component":"kubelet","host":"$(node)"},"firstTimestamp":"$(now)","lastTimestamp":"$(now)",
        "count":1,"type":"Warning","eventTime":null,"reportingComponent":"kubelet","reportingInstance":"$(node)"}"#,
    ),
    (
        "scheduledevent",
        r#"{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{"name":"$(pod).18a$(hex8)",
        "namespace":"$(ns)","creationTimestamp":null},"eventTime":"$(nowmicro)",
        "reportingController":"default-scheduler","reportingInstance":"default-scheduler-ip-10-4-0-12",
        "action":"Binding","reason":"Scheduled","regarding":{"kind":"Pod","namespace":"$(ns)","name":"$(pod)",
        "uid":"$(poduid)","apiVersion":"v1","resourceVersion":"$(rv)"},
        "note":"Successfully assigned $(ns)/$(pod) to $(node)","type":"Normal"}"#,
    ),
    (
        "certificate",
        r#"{"kind":"Certificate","apiVersion":"cert-manager.io/v1","metadata":{"name":"$(app)-tls",
        "namespace":"$(ns)","uid":"$(appuid)","resourceVersion":"$(rv)","generation":1,
        "creationTimestamp":"$(created)","labels":{$(podlabels)}},"spec":{"secretName":"$(app)-tls",
        "duration":"2160h0m0s","renewBefore":"720h0m0s","dnsNames":["$(app).$(ns).svc.cluster.local",
        "$(app).$(ns).svc"],"issuerRef":{"name":"internal-ca","kind":"ClusterIssuer","group":"cert-manager.io"},
        "privateKey":{"algorithm":"ECDSA","size":256,"rotationPolicy":"Always"}},
        "status":{"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"$(recent)",
        "observedGeneration":1,"reason":"Ready","message":"Certificate is up to date and has not expired"}],
        "notBefore":"$(created)","revision":$(digit)}}"#,
    ),
    (
        "configmap",
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"$(app)-dashboards","namespace":"$(ns)",
        "uid":"$(appuid)","resourceVersion":"$(rv)","creationTimestamp":"$(created)","labels":{$(podlabels),
        "grafana.com/folder":"$(team)"}},"data":{"overview.json":"{\"title\":\"$(app)\",\"refresh\":\"30s\",\"panels\":[{\"id\":1,\"type\":\"timeseries\",\"title\":\"Requests by code\",\"targets\":[{\"expr\":\"sum by (code) (rate(http_requests_total{namespace=\\\"$(ns)\\\",app=\\\"$(app)\\\"}[5m]))\"}]},{\"id\":2,\"type\":\"timeseries\",\"title\":\"Latency p99\",\"targets\":[{\"expr\":\"histogram_quantile(0.99, sum by (le) (rate(http_request_seconds_bucket{namespace=\\\"$(ns)\\\",app=\\\"$(app)\\\"}[5m])))\"}]}]}\n"}}"#,
    ),
    (
        "privilegedspec",
        r#""volumes":[{"name":"host","hostPath":{"path":"/","type":""}}],"containers":[{"name":"toolbox",
        "image":"docker.io/library/alpine:3.22","command":["sleep","86400"],"resources":{},
        "volumeMounts":[{"name":"host","mountPath":"/host"}],"terminationMessagePath":"/dev/termination-log",
        "terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","securityContext":{"privileged":true}}],
        "restartPolicy":"Never","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","hostPID":true,
        "hostNetwork":true,"securityContext":{},"schedulerName":"default-scheduler""#,
    ),
    (
        "accessreview",
        r#"{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1",
        "metadata":{"creationTimestamp":null},"spec":{"nonResourceAttributes":{"path":"/metrics","verb":"get"},
        "user":"system:serviceaccount:monitoring:prometheus-k8s","groups":["system:serviceaccounts",
        "system:serviceaccounts:monitoring","system:authenticated"]}"#,
    ),
];

const NODE_CONDITIONS: &str = r#"{"metadata":{"uid":"$(nodeuid)"},"status":{
    "$setElementOrder/conditions":[{"type":"MemoryPressure"},{"type":"DiskPressure"},{"type":"PIDPressure"},
    {"type":"Ready"}],"allocatable":{"cpu":"15890m","ephemeral-storage":"95551679124","hugepages-1Gi":"0",
    "hugepages-2Mi":"0","memory":"62148$(number)Ki","pods":"110"},
    "conditions":[{"lastHeartbeatTime":"$(now)","lastTransitionTime":"2025-11-18T07:12:41Z",
    "message":"kubelet has sufficient memory available","reason":"KubeletHasSufficientMemory","status":"False",
    "type":"MemoryPressure"},{"lastHeartbeatTime":"$(now)","lastTransitionTime":"2025-11-18T07:12:41Z",
    "message":"kubelet has no disk pressure","reason":"KubeletHasNoDiskPressure","status":"False",
    "type":"DiskPressure"},{"lastHeartbeatTime":"$(now)","lastTransitionTime":"2025-11-18T07:12:41Z",
    "message":"kubelet has sufficient PID available","reason":"KubeletHasSufficientPID","status":"False",
    "type":"PIDPressure"},{"lastHeartbeatTime":"$(now)","lastTransitionTime":"2025-11-18T07:13:02Z",
    "message":"kubelet is posting ready status","reason":"KubeletReady","status":"True","type":"Ready"}],
    "nodeInfo":{"kubeletVersion":"v1.34.4"}}}"#;

const POD_CONDITIONS: &str = r#"{"metadata":{"uid":"$(poduid)"},"status":{
    "$setElementOrder/conditions":[{"type":"PodReadyToStartContainers"},{"type":"Initialized"},{"type":"Ready"},
    {"type":"ContainersReady"},{"type":"PodScheduled"}],
    "conditions":[{"lastTransitionTime":"$(now)","observedGeneration":1,"status":"True",
    "type":"PodReadyToStartContainers"},{"lastTransitionTime":"$(now)","message":null,"observedGeneration":1,
    "reason":null,"status":"True","type":"Ready"},{"lastTransitionTime":"$(now)","message":null,
    "observedGeneration":1,"reason":null,"status":"True","type":"ContainersReady"}],
    "containerStatuses":[{"allocatedResources":{"cpu":"250m","memory":"512Mi"},
    "containerID":"containerd://$(hex64)","image":"registry.example.com/$(team)/$(app)@sha256:$(digest)",
    "imageID":"registry.example.com/$(team)/$(app)@sha256:$(digest)","lastState":{},"name":"$(app)","ready":true,
    "resources":{"limits":{"memory":"768Mi"},"requests":{"cpu":"250m","memory":"512Mi"}},"restartCount":0,
    "started":true,"state":{"running":{"startedAt":"$(recent)"}},"volumeMounts":[{"mountPath":"/etc/$(app)",
    "name":"config","readOnly":true,"recursiveReadOnly":"Disabled"},{"mountPath":"/tmp","name":"tmp"}]}],
    "hostIP":"$(nodeip)","hostIPs":[{"ip":"$(nodeip)"}],"observedGeneration":1,"phase":"Running",
    "podIP":"$(podip)","podIPs":[{"ip":"$(podip)"}],"startTime":"$(recent)"}}"#;

const RUNNING_POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"$(pod)",
    "generateName":"$(app)-$(sethash)-","namespace":"$(ns)","uid":"$(poduid)","resourceVersion":"$(rvnext)",
    "generation":1,"creationTimestamp":"$(recent)",$(podmeta)},"spec":{$(podspec),"nodeName":"$(node)","priority":0,
    "enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"},"status":{"observedGeneration":1,
    "phase":"Running","conditions":[{"type":"Initialized","status":"True","lastTransitionTime":"$(recent)"},
    {"type":"Ready","status":"True","lastTransitionTime":"$(now)"},{"type":"PodScheduled","status":"True",
    "lastTransitionTime":"$(recent)"}],"hostIP":"$(nodeip)","podIP":"$(podip)","podIPs":[{"ip":"$(podip)"}],
    "startTime":"$(recent)","qosClass":"Burstable"}}"#;

const POD_AS_SENT: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"generateName":"$(app)-$(sethash)-",
    "creationTimestamp":null,$(podmeta)},"spec":{$(podspec)},"status":{}}"#;

const TOKEN_REQUEST: &str = r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1",
    "metadata":{"creationTimestamp":null},"spec":{"audiences":["https://vault.example.com"],
    "expirationSeconds":3600,"boundObjectRef":{"kind":"Pod","apiVersion":"v1","name":"$(pod)",
    "uid":"$(poduid)"}},"status":{"token":"","expirationTimestamp":null}}"#;

const BINDING: &str = r#"{"kind":"Binding","apiVersion":"v1","metadata":{"name":"$(pod)","namespace":"$(ns)",
    "uid":"$(poduid)","creationTimestamp":null},"target":{"kind":"Node","name":"$(node)"}}"#;

const SUCCESS: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}"#;

const SCALE: &str = r#"{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"$(app)",
    "namespace":"$(ns)","uid":"$(appuid)","resourceVersion":"$(rv)","creationTimestamp":"$(created)"},
    "spec":{"replicas":9},"status":{"replicas":8,"selector":"app.kubernetes.io/name=$(app)"}}"#;

// -----------------------------------------------------------------------------------------------------------
// Tables: the kinds of requests

/// Who sends a request; it also says which pods the request can be about.
#[derive(Clone, Copy)]
enum Actor {
    Kubelet,
    /// A service account of the controller manager, by name, or any of them.
    Controller(&'static str),
    AnyController,
    /// A control-plane process, by user name, or any of them.
    Component(&'static str),
    AnyComponent,
    /// A platform service account, by name, or any of them.
    Operator(&'static str),
    AnyOperator,
    /// An app's own service account, in its own namespace.
    Workload,
    Person,
    HealthProbe,
    Stranger,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Metadata,
    Request,
    RequestResponse,
}

/// Whether a request has two lines, and how far apart they are.
#[derive(Clone, Copy)]
enum Span {
    Single,
    /// As long as the request's own `timeoutSeconds`.
    Watch,
    /// Between so many milliseconds.
    Session(u64, u64),
}

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Among the daily work; the others take turns.
    weight: u64,
    actor: Actor,
    /// In profile `mixed`; the other one has Metadata only.
    level: Level,
    verb: &'static str,
    uri: &'static str,
    /// The inside of `objectRef`; none when empty.
    object: &'static str,
    impersonated: &'static str,
    status: &'static str,
    request: &'static str,
    response: &'static str,
    annotations: &'static str,
    /// Microseconds, typical.
    latency: u64,
    span: Span,
    /// Only its body makes it what it is, so profile `metadata` leaves it out.
    needs_body: bool,
}

const ALLOW: &str = r#""authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"$(reason)""#;
const ALLOW_SUPERUSER: &str = r#""authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"""#;
const ALLOW_ON_CALL: &str = r#""authorization.k8s.io/decision":"allow",
    "authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"platform-on-call\" of ClusterRole \"platform-on-call\" to Group \"oidc:engineering\"""#;
const ALLOW_EXPOSED: &str = r#""authorization.k8s.io/decision":"allow",
    "authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"status-page-view\" of ClusterRole \"view\" to Group \"system:unauthenticated\"""#;
const FORBID: &str = r#""authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":"""#;

const GET: Kind = Kind {
    name: "",
    weight: 1,
    actor: Actor::AnyOperator,
    level: Level::Metadata,
    verb: "get",
    uri: "",
    object: "",
    impersonated: "",
    status: r#""code":200"#,
    request: "",
    response: "",
    annotations: ALLOW,
    latency: 900,
    span: Span::Single,
    needs_body: false,
};

const LIST: Kind = Kind { verb: "list", latency: 6_000, ..GET };
const WATCH: Kind = Kind { verb: "watch", span: Span::Watch, ..GET };
const UPDATE: Kind = Kind { verb: "update", level: Level::RequestResponse, latency: 4_000, ..GET };
const PATCH: Kind = Kind { verb: "patch", level: Level::RequestResponse, latency: 5_000, ..GET };
const CREATE: Kind =
    Kind { verb: "create", level: Level::RequestResponse, status: r#""code":201"#, latency: 5_000, ..GET };
/// Exec and its like: a WebSocket since kubectl 1.31, therefore `get`.
const CONNECT: Kind = Kind { status: r#""code":101"#, actor: Actor::Person, latency: 30_000, ..GET };

const LEASE_OBJECT: &str = r#""resource":"leases","namespace":"$(myns)","name":"$(lease)","uid":"$(myuid)",
    "apiGroup":"coordination.k8s.io","apiVersion":"v1","resourceVersion":"$(rv)""#;
const LEASE_READ: &str = r#""resource":"leases","namespace":"$(myns)","name":"$(lease)",
    "apiGroup":"coordination.k8s.io","apiVersion":"v1""#;
const LEASE_URI: &str = "/apis/coordination.k8s.io/v1/namespaces/$(myns)/leases/$(lease)?timeout=5s";
const ALL_OF_A_KIND: &str = r#""resource":"$(resource)",$(groupfield)"apiVersion":"$(version)""#;
const ALL_IN_NAMESPACE: &str =
    r#""resource":"$(resource)","namespace":"$(ns)",$(groupfield)"apiVersion":"$(version)""#;
const ONE_OBJECT: &str = r#""resource":"$(resource)","namespace":"$(ns)","name":"$(object)",
    $(groupfield)"apiVersion":"$(version)""#;
const ONE_POD: &str = r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","apiVersion":"v1""#;

/// Daily work. The weights are shares of all requests.
const BENIGN: &[Kind] = &[
    // Leases: a third of the requests.
    Kind {
        name: "kubelet renews its lease",
        weight: 1900,
        actor: Actor::Kubelet,
        uri: "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/$(node)?timeout=10s",
        object: r#""resource":"leases","namespace":"kube-node-lease","name":"$(node)","uid":"$(nodeuid)",
        "apiGroup":"coordination.k8s.io","apiVersion":"v1","resourceVersion":"$(rv)""#,
        request: "$(nodelease)",
        response: "$(nodelease)",
        ..UPDATE
    },
    Kind {
        name: "control-plane process renews its lease",
        weight: 90,
        actor: Actor::AnyComponent,
        uri: LEASE_URI,
        object: LEASE_OBJECT,
        request: "$(leaderlease)",
        response: "$(leaderlease)",
        ..UPDATE
    },
    Kind {
        name: "operator renews its lease",
        weight: 500,
        actor: Actor::AnyOperator,
        uri: LEASE_URI,
        object: LEASE_OBJECT,
        request: "$(leaderlease)",
        response: "$(leaderlease)",
        ..UPDATE
    },
    Kind {
        name: "workload renews its lease",
        weight: 260,
        actor: Actor::Workload,
        uri: LEASE_URI,
        object: LEASE_OBJECT,
        request: "$(leaderlease)",
        response: "$(leaderlease)",
        ..UPDATE
    },
    Kind {
        name: "operator reads its lease",
        weight: 430,
        actor: Actor::AnyOperator,
        uri: LEASE_URI,
        object: LEASE_READ,
        ..GET
    },
    Kind {
        name: "workload reads its lease",
        weight: 180,
        actor: Actor::Workload,
        uri: LEASE_URI,
        object: LEASE_READ,
        ..GET
    },
    Kind {
        name: "lease renewal loses a race",
        weight: 30,
        actor: Actor::AnyOperator,
        uri: LEASE_URI,
        object: LEASE_OBJECT,
        status: r#""status":"Failure","message":"Operation cannot be fulfilled on leases.coordination.k8s.io \"$(lease)\": the object has been modified; please apply your changes to the latest version and try again",
        "reason":"Conflict","details":{"name":"$(lease)","group":"coordination.k8s.io","kind":"leases"},"code":409"#,
        request: "$(leaderlease)",
        level: Level::Request,
        ..UPDATE
    },
    // Status: a fifth.
    Kind {
        name: "kubelet patches its node's status",
        weight: 420,
        actor: Actor::Kubelet,
        level: Level::Request,
        uri: "/api/v1/nodes/$(node)/status?timeout=10s",
        object: r#""resource":"nodes","name":"$(node)","uid":"$(nodeuid)","apiVersion":"v1","subresource":"status""#,
        request: NODE_CONDITIONS,
        ..PATCH
    },
    Kind {
        name: "kubelet patches a pod's status",
        weight: 660,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/status",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","uid":"$(poduid)","apiVersion":"v1",
        "subresource":"status""#,
        request: POD_CONDITIONS,
        response: RUNNING_POD,
        ..PATCH
    },
    Kind {
        name: "deployment status",
        weight: 160,
        actor: Actor::Controller("deployment-controller"),
        uri: "/apis/apps/v1/namespaces/$(ns)/deployments/$(app)/status",
        object: r#""resource":"deployments","namespace":"$(ns)","name":"$(app)","uid":"$(appuid)","apiGroup":"apps",
        "apiVersion":"v1","resourceVersion":"$(rv)","subresource":"status""#,
        request: "$(deployment)",
        response: "$(deployment)",
        ..UPDATE
    },
    Kind {
        name: "replica set status",
        weight: 170,
        actor: Actor::Controller("replicaset-controller"),
        level: Level::Request,
        uri: "/apis/apps/v1/namespaces/$(ns)/replicasets/$(app)-$(sethash)/status",
        object: r#""resource":"replicasets","namespace":"$(ns)","name":"$(app)-$(sethash)","uid":"$(setuid)",
        "apiGroup":"apps","apiVersion":"v1","resourceVersion":"$(rv)","subresource":"status""#,
        request: "$(replicaset)",
        ..UPDATE
    },
    Kind {
        name: "autoscaler status",
        weight: 180,
        actor: Actor::Controller("horizontal-pod-autoscaler"),
        uri: "/apis/autoscaling/v2/namespaces/$(ns)/horizontalpodautoscalers/$(app)/status",
        object: r#""resource":"horizontalpodautoscalers","namespace":"$(ns)","name":"$(app)","uid":"$(appuid)",
        "apiGroup":"autoscaling","apiVersion":"v2","resourceVersion":"$(rv)","subresource":"status""#,
        request: "$(autoscaler)",
        response: "$(autoscaler)",
        ..UPDATE
    },
    Kind {
        name: "disruption budget status",
        weight: 80,
        actor: Actor::Controller("disruption-controller"),
        uri: "/apis/policy/v1/namespaces/$(ns)/poddisruptionbudgets/$(app)/status",
        object: r#""resource":"poddisruptionbudgets","namespace":"$(ns)","name":"$(app)","uid":"$(appuid)",
        "apiGroup":"policy","apiVersion":"v1","resourceVersion":"$(rv)","subresource":"status""#,
        request: "$(budget)",
        response: "$(budget)",
        ..UPDATE
    },
    Kind {
        name: "certificate status",
        weight: 60,
        actor: Actor::Operator("cert-manager"),
        uri: "/apis/cert-manager.io/v1/namespaces/$(ns)/certificates/$(app)-tls/status?fieldManager=cert-manager-certificates-trigger&force=true",
        object: r#""resource":"certificates","namespace":"$(ns)","name":"$(app)-tls","uid":"$(appuid)",
        "apiGroup":"cert-manager.io","apiVersion":"v1","resourceVersion":"$(rv)","subresource":"status""#,
        request: "$(certificate)",
        response: "$(certificate)",
        ..PATCH
    },
    Kind {
        name: "application status",
        weight: 160,
        actor: Actor::Operator("argocd-application-controller"),
        level: Level::Request,
        uri: "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/$(ns)-$(app)",
        object: r#""resource":"applications","namespace":"argocd","name":"$(ns)-$(app)","apiGroup":"argoproj.io",
        "apiVersion":"v1alpha1""#,
        request: r#"{"status":{"reconciledAt":"$(now)","sync":{"comparedTo":{"source":{
        "repoURL":"https://git.example.com/deploy/$(team).git","path":"apps/$(app)","targetRevision":"main"}},
        "revision":"$(hex64)"}}}"#,
        ..PATCH
    },
    // Watches: two lines each.
    Kind {
        name: "operator watches a kind",
        weight: 160,
        actor: Actor::AnyOperator,
        uri: "$(path)/$(resource)?allowWatchBookmarks=true&resourceVersion=$(rv)&timeout=$(timeout)&timeoutSeconds=$(seconds)&watch=true",
        object: ALL_OF_A_KIND,
        ..WATCH
    },
    Kind {
        name: "controller manager watches a kind",
        weight: 50,
        actor: Actor::AnyController,
        uri: "$(path)/$(resource)?allowWatchBookmarks=true&resourceVersion=$(rv)&timeout=$(timeout)&timeoutSeconds=$(seconds)&watch=true",
        object: ALL_OF_A_KIND,
        ..WATCH
    },
    Kind {
        name: "workload watches its namespace",
        weight: 40,
        actor: Actor::Workload,
        uri: "$(path)/namespaces/$(ns)/$(resource)?allowWatchBookmarks=true&labelSelector=app.kubernetes.io%2Fpart-of%3D$(team)&resourceVersion=$(rv)&timeout=$(timeout)&timeoutSeconds=$(seconds)&watch=true",
        object: ALL_IN_NAMESPACE,
        ..WATCH
    },
    Kind {
        name: "kubelet watches its pods",
        weight: 30,
        actor: Actor::Kubelet,
        uri: "/api/v1/pods?allowWatchBookmarks=true&fieldSelector=spec.nodeName%3D$(node)&resourceVersion=$(rv)&timeoutSeconds=$(seconds)&watch=true",
        object: r#""resource":"pods","apiVersion":"v1""#,
        ..WATCH
    },
    Kind {
        name: "kubelet watches a config map",
        weight: 40,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/configmaps?allowWatchBookmarks=true&fieldSelector=metadata.name%3D$(app)-config&resourceVersion=$(rv)&timeout=$(timeout)&timeoutSeconds=$(seconds)&watch=true",
        object: r#""resource":"configmaps","namespace":"$(ns)","name":"$(app)-config","apiVersion":"v1""#,
        ..WATCH
    },
    Kind {
        name: "kubelet watches a secret",
        weight: 30,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/secrets?allowWatchBookmarks=true&fieldSelector=metadata.name%3D$(app)-tls&resourceVersion=$(rv)&timeout=$(timeout)&timeoutSeconds=$(seconds)&watch=true",
        object: r#""resource":"secrets","namespace":"$(ns)","name":"$(app)-tls","apiVersion":"v1""#,
        ..WATCH
    },
    // Lists and gets.
    Kind {
        name: "operator lists a kind",
        weight: 250,
        actor: Actor::AnyOperator,
        uri: "$(path)/$(resource)?labelSelector=app.kubernetes.io%2Fmanaged-by%3DHelm&limit=500&resourceVersion=0&resourceVersionMatch=NotOlderThan&timeout=$(timeout)",
        object: ALL_OF_A_KIND,
        ..LIST
    },
    Kind {
        name: "controller manager lists a kind",
        weight: 60,
        actor: Actor::AnyController,
        uri: "$(path)/$(resource)?limit=500&resourceVersion=0",
        object: ALL_OF_A_KIND,
        ..LIST
    },
    Kind {
        name: "workload lists its namespace",
        weight: 150,
        actor: Actor::Workload,
        uri: "$(path)/namespaces/$(ns)/$(resource)?labelSelector=app.kubernetes.io%2Fpart-of%3D$(team)%2Capp.kubernetes.io%2Fcomponent+in+%28backend%2Cfrontend%29&limit=500",
        object: ALL_IN_NAMESPACE,
        ..LIST
    },
    Kind {
        name: "operator gets an object",
        weight: 400,
        actor: Actor::AnyOperator,
        uri: "$(path)/namespaces/$(ns)/$(resource)/$(object)?resourceVersion=$(rv)",
        object: ONE_OBJECT,
        ..GET
    },
    Kind {
        name: "controller gets an object",
        weight: 110,
        actor: Actor::AnyController,
        uri: "$(path)/namespaces/$(ns)/$(resource)/$(object)",
        object: ONE_OBJECT,
        ..GET
    },
    Kind {
        name: "workload gets an object",
        weight: 220,
        actor: Actor::Workload,
        uri: "$(path)/namespaces/$(ns)/$(resource)/$(object)",
        object: ONE_OBJECT,
        ..GET
    },
    Kind {
        name: "operator gets what is gone",
        weight: 20,
        actor: Actor::Operator("vpa-updater"),
        uri: "/apis/autoscaling.k8s.io/v1/namespaces/$(ns)/verticalpodautoscalers/$(app)",
        object: r#""resource":"verticalpodautoscalers","namespace":"$(ns)","name":"$(app)",
        "apiGroup":"autoscaling.k8s.io","apiVersion":"v1""#,
        status: r#""status":"Failure","message":"verticalpodautoscalers.autoscaling.k8s.io \"$(app)\" not found",
        "reason":"NotFound","details":{"name":"$(app)","group":"autoscaling.k8s.io","kind":"verticalpodautoscalers"},
        "code":404"#,
        ..GET
    },
    // Kubelets.
    Kind {
        name: "kubelet gets its node",
        weight: 180,
        actor: Actor::Kubelet,
        uri: "/api/v1/nodes/$(node)?resourceVersion=0&timeout=10s",
        object: r#""resource":"nodes","name":"$(node)","apiVersion":"v1""#,
        ..GET
    },
    Kind {
        name: "kubelet gets a pod",
        weight: 240,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)",
        object: ONE_POD,
        ..GET
    },
    Kind {
        name: "kubelet gets a pod that is gone",
        weight: 15,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)",
        object: ONE_POD,
        status: r#""status":"Failure","message":"pods \"$(pod)\" not found","reason":"NotFound",
        "details":{"name":"$(pod)","kind":"pods"},"code":404"#,
        ..GET
    },
    Kind {
        name: "kubelet lists one config map",
        weight: 180,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/configmaps?fieldSelector=metadata.name%3D$(app)-config&limit=500&resourceVersion=0",
        object: r#""resource":"configmaps","namespace":"$(ns)","name":"$(app)-config","apiVersion":"v1""#,
        ..LIST
    },
    Kind {
        name: "kubelet lists one secret",
        weight: 110,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/secrets?fieldSelector=metadata.name%3D$(app)-tls&limit=500&resourceVersion=0",
        object: r#""resource":"secrets","namespace":"$(ns)","name":"$(app)-tls","apiVersion":"v1""#,
        ..LIST
    },
    Kind {
        name: "kubelet gets a secret",
        weight: 60,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/secrets/$(app)-tls",
        object: r#""resource":"secrets","namespace":"$(ns)","name":"$(app)-tls","apiVersion":"v1""#,
        ..GET
    },
    Kind {
        name: "kubelet requests a pod's token",
        weight: 180,
        actor: Actor::Kubelet,
        level: Level::Request,
        uri: "/api/v1/namespaces/$(ns)/serviceaccounts/$(app)/token",
        object: r#""resource":"serviceaccounts","namespace":"$(ns)","name":"$(app)","apiVersion":"v1",
        "subresource":"token""#,
        request: TOKEN_REQUEST,
        annotations: r#""authentication.kubernetes.io/issued-credential-id":"JTI=$(uuid)",
        "authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"$(reason)""#,
        ..CREATE
    },
    Kind {
        name: "kubelet deletes a finished pod",
        weight: 60,
        actor: Actor::Kubelet,
        level: Level::Request,
        verb: "delete",
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)",
        object: ONE_POD,
        request: r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,
        "preconditions":{"uid":"$(poduid)"}}"#,
        ..UPDATE
    },
    // Endpoint slices and events.
    Kind {
        name: "endpoint slice update",
        weight: 210,
        actor: Actor::Controller("endpointslice-controller"),
        uri: "/apis/discovery.k8s.io/v1/namespaces/$(ns)/endpointslices/$(app)-x7k2p",
        object: r#""resource":"endpointslices","namespace":"$(ns)","name":"$(app)-x7k2p","uid":"$(appuid)",
        "apiGroup":"discovery.k8s.io","apiVersion":"v1","resourceVersion":"$(rv)""#,
        request: "$(slice)",
        response: "$(slice)",
        ..UPDATE
    },
    Kind {
        name: "kubelet writes an event",
        weight: 260,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/events",
        object: r#""resource":"events","namespace":"$(ns)","name":"$(pod).18a$(hex8)","apiVersion":"v1""#,
        request: "$(podevent)",
        response: "$(podevent)",
        ..CREATE
    },
    Kind {
        name: "kubelet counts an event up",
        weight: 200,
        actor: Actor::Kubelet,
        uri: "/api/v1/namespaces/$(ns)/events/$(pod).18a$(hex8)",
        object: r#""resource":"events","namespace":"$(ns)","name":"$(pod).18a$(hex8)","apiVersion":"v1""#,
        request: r#"{"count":$(number),"lastTimestamp":"$(now)"}"#,
        response: "$(podevent)",
        ..PATCH
    },
    Kind {
        name: "scheduler writes an event",
        weight: 70,
        actor: Actor::Component("system:kube-scheduler"),
        uri: "/apis/events.k8s.io/v1/namespaces/$(ns)/events",
        object: r#""resource":"events","namespace":"$(ns)","name":"$(pod).18a$(hex8)","apiGroup":"events.k8s.io",
        "apiVersion":"v1""#,
        request: "$(scheduledevent)",
        response: "$(scheduledevent)",
        ..CREATE
    },
    // Pods come and go, by controllers only.
    Kind {
        name: "replica set creates a pod",
        weight: 65,
        actor: Actor::Controller("replicaset-controller"),
        uri: "/api/v1/namespaces/$(ns)/pods",
        object: r#""resource":"pods","namespace":"$(ns)","apiVersion":"v1""#,
        request: POD_AS_SENT,
        response: "$(podobject)",
        annotations: r#""authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"$(reason)",
        "pod-security.kubernetes.io/enforce-policy":"restricted:latest""#,
        latency: 18_000,
        ..CREATE
    },
    Kind {
        name: "scheduler binds a pod",
        weight: 65,
        actor: Actor::Component("system:kube-scheduler"),
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/binding",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","uid":"$(poduid)","apiVersion":"v1",
        "subresource":"binding""#,
        request: BINDING,
        response: SUCCESS,
        ..CREATE
    },
    Kind {
        name: "autoscaler scales a deployment",
        weight: 15,
        actor: Actor::Controller("horizontal-pod-autoscaler"),
        uri: "/apis/apps/v1/namespaces/$(ns)/deployments/$(app)/scale",
        object: r#""resource":"deployments","namespace":"$(ns)","name":"$(app)","uid":"$(appuid)","apiGroup":"apps",
        "apiVersion":"v1","resourceVersion":"$(rv)","subresource":"scale""#,
        request: SCALE,
        response: SCALE,
        ..UPDATE
    },
    Kind {
        name: "operator writes a config map",
        weight: 80,
        actor: Actor::Operator("grafana-operator"),
        uri: "/api/v1/namespaces/$(ns)/configmaps/$(app)-dashboards?fieldManager=grafana-operator&fieldValidation=Strict",
        object: r#""resource":"configmaps","namespace":"$(ns)","name":"$(app)-dashboards","uid":"$(appuid)",
        "apiVersion":"v1","resourceVersion":"$(rv)""#,
        request: "$(configmap)",
        response: "$(configmap)",
        ..UPDATE
    },
    // Reviews, health, metrics, discovery.
    Kind {
        name: "token review",
        weight: 150,
        actor: Actor::Operator("metrics-gateway"),
        level: Level::Metadata,
        uri: "/apis/authentication.k8s.io/v1/tokenreviews?timeout=10s",
        object: r#""resource":"tokenreviews","apiGroup":"authentication.k8s.io","apiVersion":"v1""#,
        ..CREATE
    },
    Kind {
        name: "subject access review",
        weight: 150,
        actor: Actor::Operator("metrics-gateway"),
        uri: "/apis/authorization.k8s.io/v1/subjectaccessreviews?timeout=10s",
        object: r#""resource":"subjectaccessreviews","apiGroup":"authorization.k8s.io","apiVersion":"v1""#,
        request: r#"$(accessreview),"status":{"allowed":false}}"#,
        response: r#"$(accessreview),"status":{"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"prometheus-k8s\" of ClusterRole \"prometheus-k8s\" to ServiceAccount \"prometheus-k8s/monitoring\""}}"#,
        ..CREATE
    },
    Kind {
        name: "liveness check",
        weight: 100,
        actor: Actor::HealthProbe,
        uri: "/livez?exclude=etcd&exclude=kms-provider-0",
        ..GET
    },
    Kind { name: "readiness check", weight: 110, actor: Actor::HealthProbe, uri: "/readyz", ..GET },
    Kind {
        name: "metrics scrape",
        weight: 90,
        actor: Actor::Operator("prometheus-k8s"),
        uri: "/metrics",
        latency: 60_000,
        ..GET
    },
    Kind {
        name: "controller manager discovers the API",
        weight: 30,
        actor: Actor::Controller("generic-garbage-collector"),
        uri: "/apis",
        ..GET
    },
    Kind {
        name: "person's client discovers the API",
        weight: 25,
        actor: Actor::Person,
        uri: "/openapi/v3?timeout=32s",
        ..GET
    },
    // People read what is theirs.
    Kind {
        name: "person lists objects",
        weight: 60,
        actor: Actor::Person,
        uri: "$(path)/namespaces/$(ns)/$(resource)?limit=500",
        object: ALL_IN_NAMESPACE,
        ..LIST
    },
    Kind {
        name: "person lists an app's pods",
        weight: 15,
        actor: Actor::Person,
        uri: "/api/v1/namespaces/$(ns)/pods?labelSelector=app.kubernetes.io%2Fname%3D$(app)&limit=500",
        object: r#""resource":"pods","namespace":"$(ns)","apiVersion":"v1""#,
        ..LIST
    },
    Kind {
        name: "person gets an object",
        weight: 45,
        actor: Actor::Person,
        uri: "$(path)/namespaces/$(ns)/$(resource)/$(object)",
        object: ONE_OBJECT,
        ..GET
    },
    Kind {
        name: "person watches pods",
        weight: 6,
        actor: Actor::Person,
        uri: "/api/v1/namespaces/$(ns)/pods?allowWatchBookmarks=true&resourceVersion=$(rv)&timeoutSeconds=$(seconds)&watch=true",
        object: r#""resource":"pods","namespace":"$(ns)","apiVersion":"v1""#,
        ..WATCH
    },
    Kind {
        name: "person reads a log",
        weight: 5,
        actor: Actor::Person,
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/log?container=$(app)&tailLines=200&timestamps=true",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","apiVersion":"v1","subresource":"log""#,
        span: Span::Session(40, 900),
        ..GET
    },
    Kind {
        name: "person is refused a neighbour's pods",
        weight: 2,
        actor: Actor::Person,
        uri: "/api/v1/namespaces/$(otherns)/pods?limit=500",
        object: r#""resource":"pods","namespace":"$(otherns)","apiVersion":"v1""#,
        status: r#""status":"Failure","message":"pods is forbidden: User \"$(me)\" cannot list resource \"pods\" in API group \"\" in the namespace \"$(otherns)\"",
        "reason":"Forbidden","details":{"kind":"pods"},"code":403"#,
        annotations: FORBID,
        ..LIST
    },
];

/// What somebody should be told about, all equally frequent.
const SUSPICIOUS: &[Kind] = &[
    Kind {
        name: "cluster-admin is bound",
        actor: Actor::Person,
        uri: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings?fieldManager=kubectl-create&fieldValidation=Strict",
        object: r#""resource":"clusterrolebindings","name":"$(app)-debug-$(letters5)",
        "apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1""#,
        request: CLUSTER_ADMIN_BINDING,
        response: CLUSTER_ADMIN_BINDING,
        annotations: ALLOW_ON_CALL,
        ..CREATE
    },
    Kind {
        name: "anonymous read succeeds",
        actor: Actor::Stranger,
        uri: "/api/v1/namespaces/$(ns)/configmaps/$(app)-config",
        object: r#""resource":"configmaps","namespace":"$(ns)","name":"$(app)-config","apiVersion":"v1""#,
        annotations: ALLOW_EXPOSED,
        ..GET
    },
    Kind {
        name: "anonymous read is refused",
        actor: Actor::Stranger,
        uri: "/api/v1/namespaces/$(ns)/secrets?limit=500",
        object: r#""resource":"secrets","namespace":"$(ns)","apiVersion":"v1""#,
        status: r#""status":"Failure","message":"secrets is forbidden: User \"system:anonymous\" cannot list resource \"secrets\" in API group \"\" in the namespace \"$(ns)\"",
        "reason":"Forbidden","details":{"kind":"secrets"},"code":403"#,
        annotations: FORBID,
        ..LIST
    },
    Kind {
        name: "secrets of all namespaces are listed",
        actor: Actor::Person,
        uri: "/api/v1/secrets?limit=500",
        object: r#""resource":"secrets","apiVersion":"v1""#,
        annotations: ALLOW_ON_CALL,
        ..LIST
    },
    Kind {
        name: "secret of kube-system is read",
        actor: Actor::Person,
        uri: "/api/v1/namespaces/kube-system/secrets/bootstrap-token-$(letters5)$(digit)",
        object: r#""resource":"secrets","namespace":"kube-system","name":"bootstrap-token-$(letters5)$(digit)",
        "apiVersion":"v1""#,
        annotations: ALLOW_ON_CALL,
        ..GET
    },
    Kind {
        name: "exec reads a service account token",
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/exec?command=sh&command=-c&command=cat+%2Fvar%2Frun%2Fsecrets%2Fkubernetes.io%2Fserviceaccount%2Ftoken&container=$(app)&stderr=true&stdout=true",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","apiVersion":"v1","subresource":"exec""#,
        annotations: ALLOW_ON_CALL,
        span: Span::Session(80, 900),
        ..CONNECT
    },
    Kind {
        name: "exec opens a shell",
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/exec?command=%2Fbin%2Fbash&command=-l&container=$(app)&stdin=true&stdout=true&tty=true",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","apiVersion":"v1","subresource":"exec""#,
        annotations: ALLOW_ON_CALL,
        span: Span::Session(4_000, 90_000),
        ..CONNECT
    },
    Kind {
        name: "attach",
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/attach?container=$(app)&stdin=true&stdout=true&tty=true",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","apiVersion":"v1","subresource":"attach""#,
        annotations: ALLOW_ON_CALL,
        span: Span::Session(4_000, 60_000),
        ..CONNECT
    },
    Kind {
        name: "port-forward",
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/portforward",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","apiVersion":"v1",
        "subresource":"portforward""#,
        annotations: ALLOW_ON_CALL,
        span: Span::Session(10_000, 90_000),
        ..CONNECT
    },
    Kind {
        name: "kubelet runs a command through the node proxy",
        uri: "/api/v1/nodes/$(node)/proxy/exec/$(ns)/$(pod)/$(app)?command=id&command=-a&error=1&output=1",
        object: r#""resource":"nodes","name":"$(node)","apiVersion":"v1","subresource":"proxy""#,
        annotations: ALLOW_ON_CALL,
        span: Span::Session(80, 900),
        ..CONNECT
    },
    Kind {
        name: "privileged pod is created",
        actor: Actor::Person,
        uri: "/api/v1/namespaces/$(ns)/pods?fieldManager=kubectl-run",
        object: r#""resource":"pods","namespace":"$(ns)","name":"toolbox-$(letters5)","apiVersion":"v1""#,
        request: r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"toolbox-$(letters5)","namespace":"$(ns)",
        "creationTimestamp":null,"labels":{"run":"toolbox"}},"spec":{$(privilegedspec)},"status":{}}"#,
        response: r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"toolbox-$(letters5)","namespace":"$(ns)",
        "uid":"$(uuid)","resourceVersion":"$(rvnext)","creationTimestamp":"$(now)","labels":{"run":"toolbox"}},
        "spec":{$(privilegedspec)},"status":{"phase":"Pending","qosClass":"BestEffort"}}"#,
        annotations: r#""authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"$(reason)",
        "pod-security.kubernetes.io/enforce-policy":"privileged:latest""#,
        needs_body: true,
        ..CREATE
    },
    Kind {
        name: "person requests a service account's token",
        actor: Actor::Person,
        level: Level::Request,
        uri: "/api/v1/namespaces/kube-system/serviceaccounts/cluster-autoscaler/token",
        object: r#""resource":"serviceaccounts","namespace":"kube-system","name":"cluster-autoscaler",
        "apiVersion":"v1","subresource":"token""#,
        request: r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1",
        "metadata":{"creationTimestamp":null},"spec":{"audiences":null,"expirationSeconds":2592000,
        "boundObjectRef":null},"status":{"token":"","expirationTimestamp":null}}"#,
        annotations: r#""authentication.kubernetes.io/issued-credential-id":"JTI=$(uuid)",
        "authorization.k8s.io/decision":"allow",
        "authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"platform-on-call\" of ClusterRole \"platform-on-call\" to Group \"oidc:engineering\"""#,
        ..CREATE
    },
    Kind {
        name: "wildcard cluster role is created",
        actor: Actor::Person,
        uri: "/apis/rbac.authorization.k8s.io/v1/clusterroles?fieldManager=kubectl-create&fieldValidation=Strict",
        object: r#""resource":"clusterroles","name":"$(team)-all","apiGroup":"rbac.authorization.k8s.io",
        "apiVersion":"v1""#,
        request: WILDCARD_ROLE,
        response: WILDCARD_ROLE,
        annotations: ALLOW_ON_CALL,
        needs_body: true,
        ..CREATE
    },
    Kind {
        name: "system:masters is impersonated",
        actor: Actor::Person,
        impersonated: r#"{"username":"break-glass","groups":["system:masters","system:authenticated"]}"#,
        uri: "/api/v1/namespaces/kube-system/pods?limit=500",
        object: r#""resource":"pods","namespace":"kube-system","apiVersion":"v1""#,
        annotations: ALLOW_SUPERUSER,
        ..LIST
    },
    Kind {
        name: "grant beyond one's own rights is refused",
        actor: Actor::Person,
        level: Level::Request,
        uri: "/apis/rbac.authorization.k8s.io/v1/namespaces/$(ns)/roles?fieldManager=kubectl-create&fieldValidation=Strict",
        object: r#""resource":"roles","namespace":"$(ns)","name":"$(app)-reader",
        "apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1""#,
        status: r#""status":"Failure","message":"roles.rbac.authorization.k8s.io \"$(app)-reader\" is forbidden: user \"$(me)\" (groups=[\"oidc:engineering\" \"oidc:team-$(team)\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\" \"watch\"]}",
        "reason":"Forbidden","details":{"name":"$(app)-reader","group":"rbac.authorization.k8s.io","kind":"roles"},
        "code":403"#,
        request: r#"{"kind":"Role","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"$(app)-reader",
        "namespace":"$(ns)","creationTimestamp":null},"rules":[{"verbs":["get","list","watch"],"apiGroups":[""],
        "resources":["secrets"]}]}"#,
        ..CREATE
    },
    Kind {
        name: "ephemeral container is added",
        actor: Actor::Person,
        uri: "/api/v1/namespaces/$(ns)/pods/$(pod)/ephemeralcontainers",
        object: r#""resource":"pods","namespace":"$(ns)","name":"$(pod)","apiVersion":"v1",
        "subresource":"ephemeralcontainers""#,
        request: r#"{"spec":{"$setElementOrder/ephemeralContainers":[{"name":"debugger-$(letters5)"}],
        "ephemeralContainers":[{"image":"docker.io/library/busybox:1.37","imagePullPolicy":"IfNotPresent",
        "name":"debugger-$(letters5)","resources":{},"stdin":true,"targetContainerName":"$(app)",
        "terminationMessagePolicy":"File","tty":true}]}}"#,
        response: r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"$(pod)","namespace":"$(ns)",
        "uid":"$(poduid)","resourceVersion":"$(rvnext)","creationTimestamp":"$(created)",$(podmeta)},
        "spec":{$(podspec),"nodeName":"$(node)","ephemeralContainers":[{"name":"debugger-$(letters5)",
        "image":"docker.io/library/busybox:1.37","resources":{},"terminationMessagePath":"/dev/termination-log",
        "terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","stdin":true,"tty":true,
        "targetContainerName":"$(app)"}]},"status":{"phase":"Running","podIP":"$(podip)"}}"#,
        annotations: ALLOW_ON_CALL,
        ..PATCH
    },
];

const CLUSTER_ADMIN_BINDING: &str = r#"{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1",
    "metadata":{"name":"$(app)-debug-$(letters5)","creationTimestamp":null},"subjects":[{"kind":"ServiceAccount",
    "name":"$(app)","namespace":"$(ns)"}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole",
    "name":"cluster-admin"}}"#;

const WILDCARD_ROLE: &str = r#"{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1",
    "metadata":{"name":"$(team)-all","creationTimestamp":null},"rules":[{"verbs":["*"],"apiGroups":["*"],
    "resources":["*"]}]}"#;

// -----------------------------------------------------------------------------------------------------------
// The cluster

struct Node {
    name: String,
    uid: String,
    address: String,
    pods: Vec<usize>,
}

struct App {
    name: &'static str,
    namespace: String,
    team: &'static str,
    uid: String,
    set_hash: String,
    set_uid: String,
    digest: String,
    /// Seconds before the start of the log.
    age: u64,
    pods: Range<usize>,
}

struct Pod {
    app: usize,
    node: usize,
    name: String,
    uid: String,
    address: String,
}

/// Which pods an identity has to do with.
#[derive(Default)]
enum Home {
    Node(usize),
    Pod(usize),
    Team(usize),
    #[default]
    Anywhere,
}

/// What does not apply is empty.
#[derive(Default)]
struct Identity {
    name: String,
    namespace: String,
    /// The pod that it acts from.
    pod: String,
    uid: String,
    /// Name of the lease that it holds as a leader.
    lease: String,
    /// The `user` object.
    user: String,
    source: String,
    agent: String,
    reason: Vec<Part>,
    home: Home,
    resources: Vec<usize>,
}

/// The identities are one list; who may play an actor is a range of it.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    apps: Vec<App>,
    pods: Vec<Pod>,
    /// For each of [`RESOURCES`].
    object_names: Vec<Vec<Part>>,
    identities: Vec<Identity>,
    kubelets: Range<usize>,
    controllers: Range<usize>,
    operators: Range<usize>,
    workloads: Range<usize>,
    components: Range<usize>,
    people: Range<usize>,
    probes: Range<usize>,
    strangers: Range<usize>,
}

impl Cluster {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut nodes = make_nodes(rng);
        let apps = make_apps(rng);
        let pods = make_pods(rng, &apps, &mut nodes);
        let mut identities = Vec::new();
        let mut group = |members: Vec<Identity>| {
            let start = identities.len();
            identities.extend(members);
            start..identities.len()
        };
        let kubelets = group(make_kubelets(rng, &nodes));
        let controllers =
            group(CONTROLLERS.iter().map(|known| make_controller(rng, known.0, known.1)).collect());
        let operators = group(OPERATORS.iter().map(|known| make_operator(rng, known, &nodes)).collect());
        let workloads = (0..apps.len()).step_by(APPS_PER_WORKLOAD);
        let workloads = group(workloads.map(|app| make_workload(rng, &apps[app], &pods, &nodes)).collect());
        let components = group(COMPONENTS.iter().map(|known| make_component(rng, known)).collect());
        let people = group((0..PEOPLE.len()).map(|person| make_person(rng, person)).collect());
        let probes = group(vec![make_anonymous("10.4.0.1", "kube-probe/1.34")]);
        let strangers = group(STRANGERS.iter().map(|known| make_anonymous(known.0, known.1)).collect());
        Self {
            nodes,
            apps,
            pods,
            object_names: RESOURCES.iter().map(|resource| compile(resource.3)).collect(),
            identities,
            kubelets,
            controllers,
            operators,
            workloads,
            components,
            people,
            probes,
            strangers,
        }
    }

    fn who(&self, actor: Actor) -> Range<usize> {
        match actor {
            Actor::Kubelet => self.kubelets.clone(),
            Actor::Controller(name) => self.named(&self.controllers, name),
            Actor::AnyController => self.controllers.clone(),
            Actor::Component(name) => self.named(&self.components, name),
            Actor::AnyComponent => self.components.clone(),
            Actor::Operator(name) => self.named(&self.operators, name),
            Actor::AnyOperator => self.operators.clone(),
            Actor::Workload => self.workloads.clone(),
            Actor::Person => self.people.clone(),
            Actor::HealthProbe => self.probes.clone(),
            Actor::Stranger => self.strangers.clone(),
        }
    }

    fn named(&self, range: &Range<usize>, name: &str) -> Range<usize> {
        let index = range
            .clone()
            .find(|&index| self.identities[index].name == name)
            .expect("the kinds name identities that the tables have");
        index..index + 1
    }

    /// The pods of a team are neighbours, because those of an app and the apps of a namespace are.
    fn team_pods(&self, team: usize) -> Range<usize> {
        let apps = APPS_PER_NAMESPACE * ENVIRONMENTS.len();
        self.apps[team * apps].pods.start..self.apps[(team + 1) * apps - 1].pods.end
    }

    /// A third of the way round the list of pods is another team.
    fn foreign_namespace(&self, pod: usize) -> &str {
        &self.apps[self.pods[(pod + PODS / 3) % PODS].app].namespace
    }
}

fn make_nodes(rng: &mut Rng) -> Vec<Node> {
    (0..NODES)
        .map(|index| {
            let (subnet, host) = (16 + index / 50, 10 + index % 50 * 4);
            Node {
                name: format!("ip-10-4-{subnet}-{host}.eu-west-1.compute.internal"),
                uid: uuid(rng),
                address: format!("10.4.{subnet}.{host}"),
                pods: Vec::new(),
            }
        })
        .collect()
}

fn make_apps(rng: &mut Rng) -> Vec<App> {
    let count = TEAMS.len() * ENVIRONMENTS.len() * APPS_PER_NAMESPACE;
    let mut first_pod = 0;
    (0..count)
        .map(|index| {
            let (namespace, app) = (index / APPS_PER_NAMESPACE, index % APPS_PER_NAMESPACE);
            let (team, environment) = (namespace / ENVIRONMENTS.len(), namespace % ENVIRONMENTS.len());
            let pods = first_pod..first_pod + PODS / count + usize::from(index < PODS % count);
            first_pod = pods.end;
            App {
                name: APPS[(team * 5 + app) % APPS.len()],
                namespace: format!("{}-{}", TEAMS[team], ENVIRONMENTS[environment]),
                team: TEAMS[team],
                uid: uuid(rng),
                set_hash: letters(rng, 10),
                set_uid: uuid(rng),
                digest: hex64(rng),
                age: 3_600 + rng.below(90 * 86_400),
                pods,
            }
        })
        .collect()
}

fn make_pods(rng: &mut Rng, apps: &[App], nodes: &mut [Node]) -> Vec<Pod> {
    let mut pods = Vec::with_capacity(PODS);
    for (app_index, app) in apps.iter().enumerate() {
        for index in app.pods.clone() {
            let node = (index * 7 + index / NODES) % NODES;
            nodes[node].pods.push(index);
            pods.push(Pod {
                app: app_index,
                node,
                name: format!("{}-{}-{}", app.name, app.set_hash, letters(rng, 5)),
                uid: uuid(rng),
                address: format!("10.20.{}.{}", index / 200, 10 + index % 200),
            });
        }
    }
    pods
}

fn make_kubelets(rng: &mut Rng, nodes: &[Node]) -> Vec<Identity> {
    nodes
        .iter()
        .enumerate()
        .map(|(index, node)| Identity {
            name: format!("system:node:{}", node.name),
            user: format!(
                r#"{{"username":"system:node:{}","groups":["system:nodes","system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["X509SHA256={}"]}}}}"#,
                node.name,
                hex64(rng)
            ),
            source: node.address.clone(),
            agent: format!("kubelet/{CONTROL_PLANE_AGENT}"),
            home: Home::Node(index),
            ..Identity::default()
        })
        .collect()
}

fn make_controller(rng: &mut Rng, name: &str, resources: &[&str]) -> Identity {
    Identity {
        name: name.to_owned(),
        namespace: "kube-system".to_owned(),
        user: format!(
            r#"{{"username":"system:serviceaccount:kube-system:{name}","uid":"{}","groups":["system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["JTI={}"]}}}}"#,
            uuid(rng),
            uuid(rng)
        ),
        source: "10.4.0.11".to_owned(),
        agent: format!(
            "kube-controller-manager/{CONTROL_PLANE_AGENT}/system:serviceaccount:kube-system:{name}"
        ),
        reason: compile(&allowed_by_cluster_role(
            &format!("system:controller:{name}"),
            &format!(r#"ServiceAccount \"{name}/kube-system\""#),
        )),
        resources: resource_indices(resources),
        ..Identity::default()
    }
}

fn make_operator(rng: &mut Rng, known: &Operator, nodes: &[Node]) -> Identity {
    let Operator { name, namespace, agent, resources } = *known;
    let node = &nodes[rng.index(&(0..nodes.len()))];
    let pod = format!("{name}-{}-{}", letters(rng, 10), letters(rng, 5));
    let pod_uid = uuid(rng);
    let user = service_account_user(rng, namespace, name, (&pod, &pod_uid), node);
    Identity {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        uid: uuid(rng),
        lease: format!("{name}-leader"),
        user,
        pod,
        source: format!("10.20.{}.{}", 40 + rng.below(20), 10 + rng.below(200)),
        agent: agent.to_owned(),
        reason: compile(&allowed_by_cluster_role(name, &format!(r#"ServiceAccount \"{name}/{namespace}\""#))),
        resources: resource_indices(resources),
        ..Identity::default()
    }
}

fn make_workload(rng: &mut Rng, app: &App, pods: &[Pod], nodes: &[Node]) -> Identity {
    let pod = &pods[app.pods.start];
    let (name, namespace) = (app.name, &app.namespace);
    Identity {
        name: name.to_owned(),
        namespace: namespace.clone(),
        pod: pod.name.clone(),
        uid: uuid(rng),
        lease: format!("{name}-leader"),
        user: service_account_user(rng, namespace, name, (&pod.name, &pod.uid), &nodes[pod.node]),
        source: pod.address.clone(),
        agent: format!("{name}/v0.0.0 (linux/amd64) kubernetes/$Format"),
        reason: compile(&format!(
            r#"RBAC: allowed by RoleBinding \"{name}/{namespace}\" of Role \"{name}\" to ServiceAccount \"{name}/{namespace}\""#
        )),
        home: Home::Pod(app.pods.start),
        resources: resource_indices(&["pods", "configmaps", "endpointslices"]),
    }
}

fn make_component(rng: &mut Rng, known: &(&str, &str, &str, &str)) -> Identity {
    let (user, process, client, address) = *known;
    Identity {
        name: user.to_owned(),
        namespace: "kube-system".to_owned(),
        pod: format!("ip-{}", address.replace('.', "-")),
        uid: uuid(rng),
        lease: process.to_owned(),
        user: format!(
            r#"{{"username":"{user}","groups":["system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["X509SHA256={}"]}}}}"#,
            hex64(rng)
        ),
        source: address.to_owned(),
        agent: format!("{process}/{CONTROL_PLANE_AGENT}/{client}"),
        reason: compile(&allowed_by_cluster_role(user, &format!(r#"User \"{user}\""#))),
        ..Identity::default()
    }
}

fn make_person(rng: &mut Rng, index: usize) -> Identity {
    let team = index % TEAMS.len();
    let team_name = TEAMS[team];
    let name = format!("oidc:{}@example.com", PEOPLE[index]);
    Identity {
        user: format!(
            r#"{{"username":"{name}","groups":["oidc:engineering","oidc:team-{team_name}","system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["JTI={}"]}}}}"#,
            uuid(rng)
        ),
        name,
        source: format!("10.250.{}.{}", index % 4, 20 + index),
        agent: PEOPLE_AGENTS[index % PEOPLE_AGENTS.len()].to_owned(),
        reason: compile(&format!(
            r#"RBAC: allowed by RoleBinding \"team-view/$(ns)\" of ClusterRole \"view\" to Group \"oidc:team-{team_name}\""#
        )),
        home: Home::Team(team),
        resources: resource_indices(PEOPLE_RESOURCES),
        ..Identity::default()
    }
}

fn make_anonymous(source: &str, agent: &str) -> Identity {
    Identity {
        name: "system:anonymous".to_owned(),
        user: r#"{"username":"system:anonymous","groups":["system:unauthenticated"]}"#.to_owned(),
        source: source.to_owned(),
        agent: agent.to_owned(),
        reason: compile(&allowed_by_cluster_role(
            "system:public-info-viewer",
            r#"Group \"system:unauthenticated\""#,
        )),
        ..Identity::default()
    }
}

fn service_account_user(
    rng: &mut Rng,
    namespace: &str,
    name: &str,
    (pod, pod_uid): (&str, &str),
    node: &Node,
) -> String {
    format!(
        r#"{{"username":"system:serviceaccount:{namespace}:{name}","uid":"{}","groups":["system:serviceaccounts","system:serviceaccounts:{namespace}","system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["JTI={}"],"authentication.kubernetes.io/node-name":["{}"],"authentication.kubernetes.io/node-uid":["{}"],"authentication.kubernetes.io/pod-name":["{pod}"],"authentication.kubernetes.io/pod-uid":["{pod_uid}"]}}}}"#,
        uuid(rng),
        uuid(rng),
        node.name,
        node.uid
    )
}

fn allowed_by_cluster_role(role: &str, subject: &str) -> String {
    format!(r#"RBAC: allowed by ClusterRoleBinding \"{role}\" of ClusterRole \"{role}\" to {subject}"#)
}

fn resource_indices(names: &[&str]) -> Vec<usize> {
    let index = |name: &&str| RESOURCES.iter().position(|resource| resource.0 == *name);
    names.iter().map(|name| index(name).expect("the tables name resources that they have")).collect()
}

// -----------------------------------------------------------------------------------------------------------
// Writing

/// What one request is about. Small and copied freely.
#[derive(Clone, Copy)]
struct Scene {
    identity: usize,
    pod: usize,
    resource: usize,
    stage: &'static str,
    received: u64,
    staged: u64,
    /// Of a watch.
    seconds: u64,
    revision: u64,
    audit_id: [u64; 2],
    /// Random names and numbers that are the same wherever they stand in the event.
    dice: u64,
}

/// Fills templates in.
struct Pen<'a> {
    cluster: &'a Cluster,
    start: u64,
    rng: Rng,
}

impl Pen<'_> {
    fn write(&mut self, parts: &[Part], scene: &Scene, out: &mut Vec<u8>) {
        for part in parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Slot(slot) => self.write_slot(*slot, scene, out),
                Part::EachPod(parts) => {
                    let pods = self.cluster.apps[self.cluster.pods[scene.pod].app].pods.clone();
                    for pod in pods.clone() {
                        if pod > pods.start {
                            out.push(b',');
                        }
                        self.write(parts, &Scene { pod, ..*scene }, out);
                    }
                }
            }
        }
    }

    fn write_slot(&mut self, slot: Slot, scene: &Scene, out: &mut Vec<u8>) {
        let cluster = self.cluster;
        let identity = &cluster.identities[scene.identity];
        let (plural, group, version, _) = RESOURCES[scene.resource];
        let pod = &cluster.pods[scene.pod];
        let (app, node) = (&cluster.apps[pod.app], &cluster.nodes[pod.node]);
        let stored: &str = match slot {
            Slot::Stage => scene.stage,
            Slot::User => &identity.user,
            Slot::Source => &identity.source,
            Slot::Agent => &identity.agent,
            Slot::ActorName => &identity.name,
            Slot::ActorNamespace => &identity.namespace,
            Slot::ActorPod => &identity.pod,
            Slot::ActorUid => &identity.uid,
            Slot::Lease => &identity.lease,
            Slot::Resource => plural,
            Slot::Version => version,
            Slot::Namespace => &app.namespace,
            Slot::OtherNamespace => cluster.foreign_namespace(scene.pod),
            Slot::Team => app.team,
            Slot::App => app.name,
            Slot::AppUid => &app.uid,
            Slot::SetHash => &app.set_hash,
            Slot::SetUid => &app.set_uid,
            Slot::Digest => &app.digest,
            Slot::Pod => &pod.name,
            Slot::PodUid => &pod.uid,
            Slot::PodAddress => &pod.address,
            Slot::Node => &node.name,
            Slot::NodeUid => &node.uid,
            Slot::NodeAddress => &node.address,
            Slot::Reason => return self.write(&identity.reason, scene, out),
            Slot::ObjectName => return self.write(&cluster.object_names[scene.resource], scene, out),
            Slot::GroupField if group.is_empty() => "",
            Slot::GroupField => return push_all(out, &["\"apiGroup\":\"", group, "\","]),
            Slot::Path if group.is_empty() => "/api/v1",
            Slot::Path => return push_all(out, &["/apis/", group, "/", version]),
            Slot::AuditId => return push_uuid(out, scene.audit_id),
            Slot::Received => return push_micro_time(out, scene.received),
            Slot::Staged => return push_micro_time(out, scene.staged),
            Slot::Now => return push_time(out, scene.received),
            Slot::NowMicro => return push_micro_time(out, scene.received - 180),
            Slot::Recent => return push_time(out, scene.received - scene.dice % 3_600_000_000),
            Slot::Created => return push_time(out, self.start - app.age * 1_000_000),
            Slot::Revision => return push_number(out, scene.revision),
            Slot::NextRevision => return push_number(out, scene.revision + 3),
            Slot::Seconds => return push_number(out, scene.seconds),
            Slot::Timeout => return push_duration(out, scene.seconds),
            Slot::Digit => return push_number(out, scene.dice % 10),
            Slot::Number => return push_number(out, 100 + scene.dice % 900),
            Slot::Letters5 => return push_letters(out, scene.dice, 5),
            Slot::Hex8 => return push_hex(out, scene.dice, 8),
            Slot::Hex64 => return (0..4).for_each(|_| push_hex(out, self.rng.next(), 16)),
            Slot::Uuid => return push_uuid(out, [self.rng.next(), self.rng.next()]),
        };
        out.extend_from_slice(stored.as_bytes());
    }
}

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

fn push_padded(out: &mut Vec<u8>, value: u64, width: u32) {
    out.extend((0..width).rev().map(|place| b'0' + (value / 10_u64.pow(place) % 10) as u8));
}

fn push_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    out.extend((0..digits).rev().map(|place| b"0123456789abcdef"[(value >> (4 * place) & 15) as usize]));
}

/// The letters and digits that Kubernetes makes names of.
fn push_letters(out: &mut Vec<u8>, value: u64, count: u32) {
    let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
    let base = alphabet.len() as u64;
    out.extend((0..count).map(|place| alphabet[(value / base.pow(place) % base) as usize]));
}

/// Version 4.
fn push_uuid(out: &mut Vec<u8>, bits: [u64; 2]) {
    let high = bits[0] & !0xf000 | 0x4000;
    let low = bits[1] & (u64::MAX >> 2) | 1 << 63;
    for (value, digits) in [(high >> 32, 8), (high >> 16, 4), (high, 4), (low >> 48, 4), (low, 12)] {
        push_hex(out, value, digits);
        out.push(b'-');
    }
    out.pop();
}

fn push_seconds(out: &mut Vec<u8>, micros: u64) {
    let seconds = micros / 1_000_000;
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let time = seconds % 86_400;
    let fields = [(b'-', year, 4), (b'-', month, 2), (b'T', day, 2)];
    let clock = [(b':', time / 3_600, 2), (b':', time / 60 % 60, 2), (b'.', time % 60, 2)];
    for (after, value, width) in fields.into_iter().chain(clock) {
        push_padded(out, value, width);
        out.push(after);
    }
    out.pop();
}

fn push_time(out: &mut Vec<u8>, micros: u64) {
    push_seconds(out, micros);
    out.push(b'Z');
}

fn push_micro_time(out: &mut Vec<u8>, micros: u64) {
    push_seconds(out, micros);
    out.push(b'.');
    push_padded(out, micros % 1_000_000, 6);
    out.push(b'Z');
}

fn push_duration(out: &mut Vec<u8>, seconds: u64) {
    push_number(out, seconds / 60);
    out.push(b'm');
    push_number(out, seconds % 60);
    out.push(b's');
}

fn push_all(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// What one of the `push` functions writes, as text for the tables that are made once.
fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    push(&mut out);
    String::from_utf8(out).expect("only ASCII is pushed")
}

fn uuid(rng: &mut Rng) -> String {
    let bits = [rng.next(), rng.next()];
    text(|out| push_uuid(out, bits))
}

fn letters(rng: &mut Rng, count: u32) -> String {
    text(|out| push_letters(out, rng.next(), count))
}

fn hex64(rng: &mut Rng) -> String {
    text(|out| (0..4).for_each(|_| push_hex(out, rng.next(), 16)))
}

// -----------------------------------------------------------------------------------------------------------
// The stream of events

/// A kind made ready for one profile.
struct Recipe {
    name: &'static str,
    who: Range<usize>,
    template: Vec<Part>,
    latency: u64,
    span: Span,
    /// This weight and those of the recipes before it.
    cumulative: u64,
}

fn make_recipes(kinds: &[Kind], profile: Profile, cluster: &Cluster) -> Vec<Recipe> {
    let wanted = kinds.iter().filter(|kind| profile == Profile::Mixed || !kind.needs_body);
    let mut cumulative = 0;
    wanted
        .map(|kind| {
            cumulative += kind.weight;
            Recipe {
                name: kind.name,
                who: cluster.who(kind.actor),
                template: compile(&event_template(kind, profile)),
                latency: kind.latency,
                span: kind.span,
                cumulative,
            }
        })
        .collect()
}

fn event_template(kind: &Kind, profile: Profile) -> String {
    let level = if profile == Profile::Mixed { kind.level } else { Level::Metadata };
    let level_name = match level {
        Level::Metadata => "Metadata",
        Level::Request => "Request",
        Level::RequestResponse => "RequestResponse",
    };
    let optional = |before: &str, text: &str, after: &str, wanted: bool| {
        if wanted && !text.is_empty() { format!("{before}{text}{after}") } else { String::new() }
    };
    let impersonated = optional(r#""impersonatedUser":"#, kind.impersonated, ",", true);
    let object = optional(r#""objectRef":{"#, kind.object, "},", true);
    let request = optional(r#""requestObject":"#, kind.request, ",", level != Level::Metadata);
    let response = optional(r#""responseObject":"#, kind.response, ",", level == Level::RequestResponse);
    let Kind { uri, verb, status, annotations, .. } = kind;
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level_name}","auditID":"$(auditid)",
        "stage":"$(stage)","requestURI":"{uri}","verb":"{verb}","user":$(user),{impersonated}
        "sourceIPs":["$(source)"],"userAgent":"$(agent)",{object}"responseStatus":{{"metadata":{{}},{status}}},
        {request}{response}"requestReceivedTimestamp":"$(received)","stageTimestamp":"$(staged)",
        "annotations":{{{annotations}}}}}"#
    )
}

/// Microseconds between two requests: a fraction of a millisecond to some milliseconds.
fn pause(rng: &mut Rng) -> u64 {
    let lull = if rng.below(32) == 0 { rng.below(12_000) } else { 0 };
    200 + rng.below(2_200) + lull
}

/// What [`pause`] gives on average.
const MEAN_PAUSE: u64 = 1_490;
/// What a watch asks for, between five and ten minutes.
const WATCH_SECONDS: Range<usize> = 300..600;

#[derive(Clone, Default)]
struct Count {
    lines: u64,
    bytes: u64,
}

/// The second line of a request: when it is due, the request's revision so that the order is total, the
/// recipe, the line.
type Second = Reverse<(u64, u64, usize, Vec<u8>)>;

pub(crate) struct Stream<'a> {
    pen: Pen<'a>,
    /// Daily work, then from `first_suspicious` on what is not.
    recipes: Vec<Recipe>,
    first_suspicious: usize,
    suspicious_ppm: u64,
    now: u64,
    revision: u64,
    pending: BinaryHeap<Second>,
    suspicious_requests: u64,
    lines: u64,
    suspicious_lines: u64,
    counts: Vec<Count>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(options: &Options, cluster: &'a Cluster, rng: Rng) -> Self {
        let mut recipes = make_recipes(BENIGN, options.profile, cluster);
        let first_suspicious = recipes.len();
        recipes.extend(make_recipes(SUSPICIOUS, options.profile, cluster));
        let mut stream = Self {
            pen: Pen { cluster, start: options.start, rng },
            counts: vec![Count::default(); recipes.len()],
            recipes,
            first_suspicious,
            suspicious_ppm: options.suspicious_ppm,
            now: options.start + 10_000,
            revision: 918_200_417,
            pending: BinaryHeap::new(),
            suspicious_requests: 0,
            lines: 0,
            suspicious_lines: 0,
        };
        stream.begin_in_the_middle();
        stream
    }

    /// The watches that are open when the file begins.
    fn begin_in_the_middle(&mut self) {
        let total = self.recipes[self.first_suspicious - 1].cumulative;
        let mean_seconds = (WATCH_SECONDS.start + WATCH_SECONDS.end) as u64 / 2;
        let mut before = 0;
        for index in 0..self.first_suspicious {
            let weight = self.recipes[index].cumulative - before;
            before = self.recipes[index].cumulative;
            if matches!(self.recipes[index].span, Span::Watch) {
                for _ in 0..weight * mean_seconds * 1_000_000 / (total * MEAN_PAUSE) {
                    let age = self.pen.rng.below(WATCH_SECONDS.end as u64 * 1_000_000);
                    let scene = self.scene(index, self.now - age);
                    if scene.received + scene.seconds * 1_000_000 > self.now {
                        self.promise_completion(index, scene);
                    }
                }
            }
        }
    }

    /// Appends one line to `out` and says whether it is suspicious.
    pub(crate) fn write_line(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let index = if self.pending.peek().is_some_and(|next| next.0.0 <= self.now) {
            let (_, _, index, line) = self.pending.pop().expect("it was peeked at").0;
            out.extend_from_slice(&line);
            index
        } else {
            self.begin_request(out)
        };
        out.push(b'\n');
        self.lines += 1;
        let suspicious = index >= self.first_suspicious;
        self.suspicious_lines += u64::from(suspicious);
        self.counts[index].lines += 1;
        self.counts[index].bytes += (out.len() - before) as u64;
        suspicious
    }

    fn begin_request(&mut self, out: &mut Vec<u8>) -> usize {
        let index = self.pick();
        let jitter = if self.pen.rng.below(16) == 0 { 9_000 } else { 1_500 };
        let staged = self.now - self.pen.rng.below(jitter);
        let scene = self.scene(index, staged);
        let single = matches!(self.recipes[index].span, Span::Single);
        let stage = if single { "ResponseComplete" } else { "ResponseStarted" };
        self.pen.write(&self.recipes[index].template, &Scene { stage, ..scene }, out);
        if !single {
            self.promise_completion(index, scene);
        }
        self.now += pause(&mut self.pen.rng);
        index
    }

    /// Suspicious when the share of lines is behind, but not at once, so that the places are not regular; the
    /// kinds of suspicious requests take turns.
    fn pick(&mut self) -> usize {
        let ppm = self.suspicious_ppm;
        let behind = ppm * (self.lines + 1) > self.suspicious_lines * 1_000_000;
        if behind && self.pen.rng.below(1_000_000) < ppm * 2 {
            let kinds = self.recipes.len() - self.first_suspicious;
            self.suspicious_requests += 1;
            return self.first_suspicious + self.suspicious_requests as usize % kinds;
        }
        let benign = &self.recipes[..self.first_suspicious];
        let ticket = self.pen.rng.below(benign[benign.len() - 1].cumulative);
        benign.partition_point(|recipe| recipe.cumulative <= ticket)
    }

    fn promise_completion(&mut self, index: usize, scene: Scene) {
        let length = match self.recipes[index].span {
            Span::Single => 0,
            Span::Watch => scene.seconds * 1_000_000 + self.pen.rng.below(2_000),
            Span::Session(least, most) => (least + self.pen.rng.below(most - least)) * 1_000,
        };
        let staged = scene.staged + length;
        let mut line = Vec::new();
        let scene = Scene { staged, ..scene };
        self.pen.write(&self.recipes[index].template, &scene, &mut line);
        self.pending.push(Reverse((staged, scene.revision, index, line)));
    }

    fn scene(&mut self, index: usize, staged: u64) -> Scene {
        let recipe = &self.recipes[index];
        let (cluster, rng) = (self.pen.cluster, &mut self.pen.rng);
        let identity = rng.index(&recipe.who);
        let Identity { home, resources, .. } = &cluster.identities[identity];
        let pod = match *home {
            Home::Node(node) => cluster.nodes[node].pods[rng.index(&(0..cluster.nodes[node].pods.len()))],
            Home::Pod(pod) => pod,
            Home::Team(team) => rng.index(&cluster.team_pods(team)),
            Home::Anywhere => rng.index(&(0..cluster.pods.len())),
        };
        let resource = if resources.is_empty() { 0 } else { resources[rng.index(&(0..resources.len()))] };
        let slow = if rng.below(100) == 0 { 8 } else { 1 };
        let latency = (recipe.latency / 2 + rng.below(recipe.latency)) * slow;
        self.revision += 1 + rng.below(3);
        Scene {
            identity,
            pod,
            resource,
            stage: "ResponseComplete",
            received: staged - latency,
            staged,
            seconds: rng.index(&WATCH_SECONDS) as u64,
            revision: self.revision,
            audit_id: [rng.next(), rng.next()],
            dice: rng.next(),
        }
    }

    fn write_counts(&self, out: &mut fmt::Formatter<'_>, recipes: Range<usize>, title: &str) -> fmt::Result {
        let total = self.counts[recipes.clone()].iter().fold(Count::default(), |sum, count| Count {
            lines: sum.lines + count.lines,
            bytes: sum.bytes + count.bytes,
        });
        writeln!(out, "{total}  {title}")?;
        recipes.into_iter().try_for_each(|i| writeln!(out, "{}    {}", self.counts[i], self.recipes[i].name))
    }
}

/// What was written so far, kind by kind.
impl fmt::Display for Stream<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:>9} {:>12} {:>9}  kind", "lines", "bytes", "bytes/line")?;
        self.write_counts(out, 0..self.first_suspicious, "daily work")?;
        self.write_counts(out, self.first_suspicious..self.recipes.len(), "suspicious")
    }
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>9} {:>12} {:>9}", self.lines, self.bytes, self.bytes / self.lines.max(1))
    }
}

// -----------------------------------------------------------------------------------------------------------
// Dates: the usual count of years that begin in March

/// Year, month and day of a day counted from 1970-01-01.
pub(crate) fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}
