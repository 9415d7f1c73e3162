//! Audit events as an API server writes them, from a seed: mostly noise of all sizes, and now and then what must be found.
//!
//! Fields and their order follow `k8s.io/apiserver/pkg/apis/audit/v1/types.go`. Every request has an auditID of its own, and
//! times that go up by microseconds. Some of what must be found is spread over minutes of event time, so that it is under
//! way when something breaks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat};

/// 2026-03-05T00:00:00Z, in microseconds.
const BEGIN: i64 = 1_772_668_800_000_000;
/// A second, in microseconds.
pub(crate) const SECOND: i64 = 1_000_000;

/// A source of events.
pub(crate) struct Events {
    rng: fastrand::Rng,
    now: i64,
    /// What comes later: the ends of long requests, and what is spread over time. Ordered by when it comes.
    later: BTreeMap<(i64, u64), Request>,
    /// How many requests in a thousand must be found, about.
    alerting: u32,
    /// How many people there are.
    people: u32,
}

/// What of a request matters here.
#[derive(Clone)]
struct Request {
    received: Option<i64>,
    id: Option<String>,
    stage: &'static str,
    level: &'static str,
    verb: &'static str,
    uri: String,
    user: String,
    groups: &'static str,
    ip: String,
    agent: &'static str,
    object: String,
    code: u16,
    body: Option<String>,
}

const KUBECTL: &str = "kubectl/v1.34.1 (linux/amd64) kubernetes/93248f9";

impl Events {
    /// The events of a seed, of which about so many in a thousand must be found.
    pub(crate) fn new(seed: u64, alerting: u32) -> Events {
        Events {
            rng: fastrand::Rng::with_seed(seed),
            now: BEGIN,
            later: BTreeMap::new(),
            alerting,
            people: 100_000,
        }
    }

    /// The same, of so few people that much of what they do belongs together.
    pub(crate) fn of_few(seed: u64, alerting: u32, people: u32) -> Events {
        Events { people, ..Events::new(seed, alerting) }
    }

    /// The clock of the API server has come to this time, in microseconds since 1970.
    pub(crate) fn begin(&mut self, microseconds: i64) {
        self.now = microseconds;
    }

    /// The clock of the API server jumps.
    pub(crate) fn jump(&mut self, microseconds: i64) {
        self.now += microseconds;
    }

    /// The next event, as a line with its newline.
    pub(crate) fn next(&mut self) -> String {
        self.now += self.rng.i64(20_000..180_000);
        if let Some(entry) = self.later.first_entry()
            && entry.key().0 <= self.now
        {
            let request = entry.remove();
            return self.line(request);
        }
        let request = if self.rng.u32(0..1000) < self.alerting { self.finding() } else { self.noise() };
        self.line(request)
    }

    /// So many events.
    pub(crate) fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next()).collect()
    }

    fn after(&mut self, microseconds: i64, request: Request) {
        let tie = self.rng.u64(..);
        self.later.insert((self.now + microseconds, tie), request);
    }

    fn id(&mut self) -> String {
        let id = self.rng.u128(..);
        let hex = format!("{id:032x}");
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }

    fn noise(&mut self) -> Request {
        let n = self.rng.u32(1..40);
        match self.rng.u8(0..10) {
            0..4 => lease(n),
            4..6 => Request {
                uri: format!("/api/v1/namespaces/shop/configmaps/settings-{n}"),
                object: object("configmaps", "shop", &format!("settings-{n}"), "", ""),
                ..controller("get")
            },
            6 => {
                let watch = Request {
                    id: Some(self.id()),
                    received: Some(self.now - 4_000),
                    stage: "ResponseStarted",
                    uri: "/api/v1/pods?allowWatchBookmarks=true&watch=true".to_owned(),
                    object: object("pods", "", "", "", ""),
                    ..controller("watch")
                };
                let end = Request { stage: "ResponseComplete", ..watch.clone() };
                let length = self.rng.i64(SECOND..50 * SECOND);
                self.after(length, end);
                watch
            }
            7 => Request {
                uri: "/api/v1/namespaces/shop/pods?limit=500".to_owned(),
                object: object("pods", "shop", "", "", ""),
                ..controller("list")
            },
            _ => {
                // Sizes are spread over orders of magnitude: most are small, few are up to 200 KB.
                let most = if self.rng.u8(0..20) == 0 { 18 } else { 11 };
                let size = 1usize << self.rng.u32(6..most);
                let mut body = String::from(r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"text":""#);
                while body.len() < size.min(200 << 10) {
                    let _ = write!(body, r#"line {:x} of \"many\" \\ {{[ \u00e9 "#, self.rng.u32(..));
                }
                body.push_str(r#""}}"#);
                Request {
                    level: "RequestResponse",
                    uri: format!("/api/v1/namespaces/shop/configmaps/site-{n}"),
                    object: object("configmaps", "shop", &format!("site-{n}"), "", ""),
                    body: Some(body),
                    ..controller("update")
                }
            }
        }
    }

    fn finding(&mut self) -> Request {
        let who = format!("user-{}@example.com", self.rng.u32(0..self.people));
        match self.rng.u8(0..12) {
            0..3 => admin(&who, self.rng.u32(..)),
            3..5 => Request {
                uri: "/api/v1/namespaces/shop/pods".to_owned(),
                object: object("pods", "shop", "", "", ""),
                groups: r#""system:unauthenticated""#,
                ip: format!("203.0.113.{}", self.rng.u8(1..255)),
                ..person("list", "system:anonymous")
            },
            5..8 => secret(&who, "argocd-initial-admin-secret"),
            8..10 => self.session(&who),
            10 => self.refusals(&who),
            _ => self.walk(&who),
        }
    }

    /// `kubectl exec`: one record when it starts and one when it ends.
    fn session(&mut self, who: &str) -> Request {
        let pod = format!("web-{:x}", self.rng.u32(..));
        let started = Request {
            id: Some(self.id()),
            received: Some(self.now - 4_000),
            stage: "ResponseStarted",
            uri: format!(
                "/api/v1/namespaces/shop/pods/{pod}/exec?command=sh&container=app&stdin=true&stdout=true&tty=true"
            ),
            object: object("pods", "shop", &pod, "", "exec"),
            code: 101,
            ..person("get", who)
        };
        let ended = Request { stage: "ResponseComplete", ..started.clone() };
        let length = self.rng.i64(SECOND..40 * SECOND);
        self.after(length, ended);
        started
    }

    /// Somebody tries what a credential opens, over some minutes.
    fn refusals(&mut self, who: &str) -> Request {
        let tried = ["secrets", "pods", "nodes", "configmaps", "services", "serviceaccounts", "endpoints"];
        let requests = tried.map(|resource| Request {
            uri: format!("/api/v1/{resource}"),
            object: object(resource, "", "", "", ""),
            code: 403,
            ..person("list", who)
        });
        self.spread(240 * SECOND, requests.to_vec())
    }

    /// Somebody reads one Secret after another, over ten minutes.
    fn walk(&mut self, who: &str) -> Request {
        let requests = (0..18).map(|n| secret(who, &format!("app-{n}"))).collect();
        self.spread(600 * SECOND, requests)
    }

    fn spread(&mut self, over: i64, mut requests: Vec<Request>) -> Request {
        let first = requests.pop().unwrap();
        let step = over / requests.len() as i64;
        for (n, request) in requests.into_iter().enumerate() {
            let jitter = self.rng.i64(0..step / 2);
            self.after(n as i64 * step + jitter, request);
        }
        first
    }

    fn line(&mut self, request: Request) -> String {
        let Request { stage, level, verb, uri, user, groups, ip, agent, object, code, body, .. } = request;
        let id = request.id.unwrap_or_else(|| self.id());
        let received = time(request.received.unwrap_or(self.now - 4_000));
        let staged = time(self.now);
        let decision = if code == 403 { "forbid" } else { "allow" };
        let status = match code {
            403 => r#"{"metadata":{},"status":"Failure","reason":"Forbidden","code":403}"#.to_owned(),
            _ => format!(r#"{{"metadata":{{}},"code":{code}}}"#),
        };
        let body = body
            .map_or_else(String::new, |body| format!(r#""requestObject":{body},"responseObject":{body},"#));
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"{id}","stage":"{stage}","requestURI":"{uri}","verb":"{verb}","user":{{"username":"{user}","groups":[{groups}]}},"sourceIPs":["{ip}"],"userAgent":"{agent}","objectRef":{object},"responseStatus":{status},{body}"requestReceivedTimestamp":"{received}","stageTimestamp":"{staged}","annotations":{{"authorization.k8s.io/decision":"{decision}","authorization.k8s.io/reason":""}}}}"#,
        ) + "\n"
    }
}

fn time(microseconds: i64) -> String {
    DateTime::from_timestamp_micros(microseconds).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn object(resource: &str, namespace: &str, name: &str, group: &str, subresource: &str) -> String {
    let mut json = format!(r#"{{"resource":"{resource}""#);
    let fields =
        [("namespace", namespace), ("name", name), ("apiGroup", group), ("subresource", subresource)];
    for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(json, r#","{key}":"{value}""#);
    }
    json + r#","apiVersion":"v1"}"#
}

fn person(verb: &'static str, who: &str) -> Request {
    Request {
        received: None,
        id: None,
        stage: "ResponseComplete",
        level: "Metadata",
        verb,
        uri: String::new(),
        user: who.to_owned(),
        groups: r#""developers","system:authenticated""#,
        ip: "10.0.8.31".to_owned(),
        agent: KUBECTL,
        object: String::new(),
        code: 200,
        body: None,
    }
}

fn controller(verb: &'static str) -> Request {
    Request {
        groups: r#""system:authenticated""#,
        agent: "kube-controller-manager/v1.34.1 (linux/amd64) kubernetes/93248f9/leader-election",
        ip: "10.0.1.2".to_owned(),
        ..person(verb, "system:kube-controller-manager")
    }
}

fn lease(node: u32) -> Request {
    let name = format!("node-{node}");
    Request {
        uri: format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}?timeout=10s"),
        user: format!("system:node:{name}"),
        groups: r#""system:nodes","system:authenticated""#,
        agent: "kubelet/v1.34.1 (linux/amd64) kubernetes/93248f9",
        object: object("leases", "kube-node-lease", &name, "coordination.k8s.io", ""),
        ..controller("update")
    }
}

fn secret(who: &str, name: &str) -> Request {
    Request {
        uri: format!("/api/v1/namespaces/shop/secrets/{name}"),
        object: object("secrets", "shop", name, "", ""),
        ..person("get", who)
    }
}

fn admin(who: &str, number: u32) -> Request {
    let name = format!("admin-{number:08x}");
    Request {
        level: "RequestResponse",
        uri: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned(),
        object: object("clusterrolebindings", "", &name, "rbac.authorization.k8s.io", ""),
        code: 201,
        body: Some(format!(
            r#"{{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{{"name":"{name}"}},"subjects":[{{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"{who}"}}],"roleRef":{{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}}}"#
        )),
        ..person("create", who)
    }
}
