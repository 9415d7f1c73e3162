//! `actor.*`: who asked, from where, with what.
//!
//! The actor is the impersonated user of an impersonated request, because that is who was authorised; `actor.user` is who
//! did it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::FactType::{Bool, List, Text};
use super::object::LIMIT;
use super::shape::{last_texts, missing, text, text_or_missing, texts};
use super::{BOTH, Fact, Parts, falco};
use crate::event::{Event, Stream, Top};
use crate::value::Value;

const USER: Parts = Parts::USER;

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::audit("actor.name", Text, USER, name).of(BOTH).doc(
        "The impersonated user if the request was impersonated, else the authenticated one. Falco: \
        `user.name`.",
    ),
    Fact::audit("actor.user", Text, USER, user)
        .doc("The authenticated user (`user.username`), also when it impersonated another."),
    Fact::audit("actor.kind", Text, USER, kind).doc(
        "What `actor.name` is: anonymous, unauthenticated (a 401 has no user), service-account, node \
        (`system:node:` and in group `system:nodes`), control-plane, bootstrap, system (any other \
        `system:` name: no mark of trust) or human.",
    ),
    Fact::audit("actor.builtin", Bool, USER, builtin).doc(
        "True for the control plane's own users and the named controllers of kube-system, by exact name; \
        not for namespace-controller, generic-garbage-collector and clusterrole-aggregation-controller, \
        whose work detectors except by itself.",
    ),
    Fact::audit("actor.namespace", Text, USER, namespace)
        .doc("Namespace of an actor that is a service account."),
    Fact::audit("actor.service-account", Text, USER, service_account)
        .doc("`namespace/name` of an actor that is a service account."),
    Fact::audit("actor.groups", List, USER, groups).doc("Groups of the actor."),
    Fact::audit("actor.ip", Text, Parts::ADDRESS, ip).doc(
        "The trusted hop: the last of `sourceIPs`, or the one before the trailing `trusted_proxies`. The \
        only address that a client can't forge.",
    ),
    Fact::audit("actor.ip-public", Bool, Parts::ADDRESS, ip_public).doc(
        "True if the trusted hop is globally routable: not private, loopback, link-local, carrier-grade \
        NAT, unique local or multicast.",
    ),
    Fact::audit("actor.forwarded", List, Parts::ADDRESS, forwarded)
        .doc("Addresses before the trusted hop: whatever the client claimed."),
    Fact::audit("actor.forwarded-untrusted", Bool, Parts::ADDRESS, forwarded_untrusted).doc(
        "True if `trusted_proxies` are configured and the request claims a forwarded address but did not \
        come through one of them.",
    ),
    Fact::audit("actor.agent", Text, Parts::AGENT, agent).doc("`userAgent`: the client's own words."),
    Fact::audit("actor.tool", Text, Parts::AGENT, tool)
        .doc("The first word of the user agent, up to `/` or a space, in lower case."),
    Fact::audit("actor.impersonating", Text, USER, impersonating)
        .doc("`impersonatedUser.username`. A refused impersonation has none."),
    Fact::audit("actor.impersonating-groups", List, USER, impersonating_groups)
        .doc("`impersonatedUser.groups`."),
    Fact::audit("actor.pod", Text, USER, pod).doc("The pod that a service account's token is bound to."),
    Fact::audit("actor.node", Text, USER, node).doc("The node that a service account's token is bound to."),
    Fact::audit("actor.credential-id", Text, USER, credential_id)
        .doc("`JTI=...` of a token or `X509SHA256=...` of a certificate."),
];

/// Source addresses that are kept of one event: the last ones, because a client may put any number before them.
const HOPS: usize = 4096;

/// User names of the control plane.
const CONTROL_PLANE: &[&str] = &[
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:cloud-controller-manager",
];

/// Service accounts in kube-system under which kube-controller-manager runs its controllers.
/// Source: kubernetes `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/controller_policy.go`.
const CONTROLLERS: &[&str] = &[
    "attachdetach-controller",
    "bootstrap-signer",
    "certificate-controller",
    "cloud-node-lifecycle-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "device-taint-eviction-controller",
    "disruption-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "endpointslicemirroring-controller",
    "ephemeral-volume-controller",
    "expand-controller",
    "horizontal-pod-autoscaler",
    "job-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher",
    "legacy-service-account-token-cleaner",
    "node-controller",
    "persistent-volume-binder",
    "pod-garbage-collector",
    "podcertificaterequest-cleaner",
    "pv-protection-controller",
    "pvc-protection-controller",
    "replicaset-controller",
    "replication-controller",
    "resource-claim-controller",
    "resourcequota-controller",
    "root-ca-cert-publisher",
    "route-controller",
    "selinux-warning-controller",
    "service-account-controller",
    "service-cidrs-controller",
    "service-controller",
    "statefulset-controller",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector",
    "taint-eviction-controller",
    "token-cleaner",
    "ttl-after-finished-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
    "volumeattributesclass-protection-controller",
];

/// The actor's name, if the request has a user.
pub(super) fn actor<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    let impersonated = event.impersonated().and_then(|user| text(user.username));
    impersonated.or_else(|| text(event.user().username))
}

/// The actor's groups, and whether there may be more.
pub(super) fn actor_groups<'a>(event: &Event<'a>) -> (Vec<Cow<'a, str>>, bool) {
    let user = event.impersonated().filter(|user| text(user.username).is_some());
    let groups = user.map_or(event.user().groups, |user| user.groups);
    let (groups, partial) = groups.map_or((Vec::new(), false), |groups| texts(groups, LIMIT));
    if partial && groups.len() == LIMIT {
        event.views().hit_bound();
    }
    (groups, partial)
}

/// Namespace and name in the user name of a service account.
pub(super) fn split_service_account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn name<'a>(event: &Event<'a>) -> Value<'a> {
    match event.stream {
        Stream::Falco => falco::field(event, "user.name"),
        Stream::Audit => text_or_missing(event, actor(event)),
    }
}

fn user<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, text(event.user().username))
}

fn kind<'a>(event: &Event<'a>) -> Value<'a> {
    let Some(name) = actor(event) else {
        return match missing(event) {
            Value::Unknown => Value::Unknown,
            _ => Value::text("unauthenticated"),
        };
    };
    let (groups, more) = actor_groups(event);
    let in_group = |wanted| groups.iter().any(|group| group == wanted);
    Value::text(match &*name {
        "system:anonymous" => "anonymous",
        _ if in_group("system:unauthenticated") => "anonymous",
        _ if more => return Value::Unknown,
        name if split_service_account(name).is_some() => "service-account",
        name if name.starts_with("system:node:") && in_group("system:nodes") => "node",
        name if CONTROL_PLANE.contains(&name) => "control-plane",
        name if name.starts_with("system:bootstrap:") || name == "gcp:kube-bootstrap" => "bootstrap",
        name if name.starts_with("system:") => "system",
        _ => "human",
    })
}

fn builtin<'a>(event: &Event<'a>) -> Value<'a> {
    let Some(name) = actor(event) else { return missing(event) };
    let controller = || match split_service_account(&name) {
        Some(("kube-system", account)) => CONTROLLERS.contains(&account),
        _ => false,
    };
    Value::Bool(CONTROL_PLANE.contains(&&*name) || controller())
}

fn namespace<'a>(event: &Event<'a>) -> Value<'a> {
    let Some(name) = actor(event) else { return missing(event) };
    match split_service_account(&name) {
        Some((namespace, _)) => Value::Text(Cow::Owned(namespace.to_owned())),
        None => Value::Absent,
    }
}

fn service_account<'a>(event: &Event<'a>) -> Value<'a> {
    let Some(name) = actor(event) else { return missing(event) };
    match split_service_account(&name) {
        Some((namespace, name)) => Value::Text(Cow::Owned(format!("{namespace}/{name}"))),
        None => Value::Absent,
    }
}

fn groups<'a>(event: &Event<'a>) -> Value<'a> {
    let (groups, partial) = actor_groups(event);
    let partial = partial || missing(event) == Value::Unknown && groups.is_empty();
    Value::list_of(groups.into_iter().map(Value::Text).collect(), partial)
}

/// Where a request came through.
struct Hops<'a> {
    /// The last [`HOPS`] of the source addresses.
    addresses: VecDeque<Cow<'a, str>>,
    /// The place of the trusted hop among them.
    trusted: usize,
    /// True if there are addresses before them.
    more: bool,
}

/// The source addresses, unless there are none, or none that a client could not have put there.
fn hops<'a>(event: &Event<'a>) -> Result<Hops<'a>, Value<'a>> {
    let node = event.node(Top::SourceIps).ok_or_else(|| missing(event))?;
    let seam = event.damage.oversize && node.end() > event.damage.seam;
    let (addresses, more, whole) = last_texts(node, HOPS);
    let mut trusted = match addresses.len().checked_sub(1) {
        _ if seam || !whole => return Err(Value::Unknown),
        Some(last) => last,
        None => return Err(missing(event)),
    };
    while trusted > 0 && is_proxy(event, &addresses[trusted]) {
        trusted -= 1;
    }
    if trusted == 0 && more {
        event.views().hit_bound();
        return Err(Value::Unknown);
    }
    Ok(Hops { addresses, trusted, more })
}

fn is_proxy(event: &Event<'_>, address: &str) -> bool {
    parse_address(address)
        .is_some_and(|ip| event.settings.trusted_proxies.iter().any(|net| net.contains(&ip)))
}

/// An address, with or without port; an IPv4 address inside an IPv6 one comes out as IPv4.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    Some(ip.ok()?.to_canonical())
}

/// An address as facts show it: normalised if it is one, else as it is written.
fn show(address: Cow<'_, str>) -> Cow<'_, str> {
    match parse_address(&address) {
        Some(ip) => Cow::Owned(ip.to_string()),
        None => address,
    }
}

fn ip<'a>(event: &Event<'a>) -> Value<'a> {
    hops(event).map_or_else(
        |without| without,
        |mut hops| {
            hops.addresses.swap_remove_back(hops.trusted).map_or(Value::Absent, |ip| Value::Text(show(ip)))
        },
    )
}

fn ip_public<'a>(event: &Event<'a>) -> Value<'a> {
    hops(event).map_or_else(
        |without| without,
        |hops| {
            let ip = parse_address(&hops.addresses[hops.trusted]);
            ip.map_or(Value::Absent, |ip| Value::Bool(is_public(ip)))
        },
    )
}

/// Documentation ranges count as public: they stand for public addresses in samples and tests.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let carrier_nat = first == 100 && (64..128).contains(&second);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || carrier_nat;
            !special && first != 0 && first < 224
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            let local = first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80;
            !local && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
        }
    }
}

fn forwarded<'a>(event: &Event<'a>) -> Value<'a> {
    hops(event).map_or_else(
        |without| without,
        |hops| {
            if hops.more {
                event.views().hit_bound();
            }
            let claimed = hops.addresses.into_iter().take(hops.trusted);
            Value::list_of(claimed.map(|address| Value::Text(show(address))).collect(), hops.more)
        },
    )
}

fn forwarded_untrusted<'a>(event: &Event<'a>) -> Value<'a> {
    hops(event).map_or_else(
        |without| without,
        |hops| {
            let last_is_proxy = hops.addresses.back().is_some_and(|last| is_proxy(event, last));
            let configured = !event.settings.trusted_proxies.is_empty();
            Value::Bool(configured && hops.addresses.len() > 1 && !last_is_proxy)
        },
    )
}

fn agent<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, event.text(Top::UserAgent))
}

fn tool<'a>(event: &Event<'a>) -> Value<'a> {
    let Some(agent) = event.text(Top::UserAgent) else { return missing(event) };
    let tool = agent.split(['/', ' ']).next().unwrap_or_default();
    if tool.is_empty() { Value::Absent } else { Value::Text(Cow::Owned(tool.to_lowercase())) }
}

fn impersonating<'a>(event: &Event<'a>) -> Value<'a> {
    text_or_missing(event, event.impersonated().and_then(|user| text(user.username)))
}

fn impersonating_groups<'a>(event: &Event<'a>) -> Value<'a> {
    let Some(user) = event.impersonated() else { return missing(event) };
    let (groups, partial) =
        user.groups.map_or((Vec::new(), false), |groups| texts(groups, super::object::LIMIT));
    Value::list_of(groups.into_iter().map(Value::Text).collect(), partial)
}

/// The first value of an extra of the authenticated user. Extras are lists of texts.
fn extra<'a>(event: &Event<'a>, key: &str) -> Value<'a> {
    let node = event.user().extra.and_then(|extra| extra.get(key));
    let value = node.and_then(|node| texts(node, 1).0.into_iter().next());
    text_or_missing(event, value)
}

fn pod<'a>(event: &Event<'a>) -> Value<'a> {
    extra(event, "authentication.kubernetes.io/pod-name")
}

fn node<'a>(event: &Event<'a>) -> Value<'a> {
    extra(event, "authentication.kubernetes.io/node-name")
}

fn credential_id<'a>(event: &Event<'a>) -> Value<'a> {
    extra(event, "authentication.kubernetes.io/credential-id")
}

#[cfg(test)]
mod tests {
    use crate::facts::tests::{check, check_raw};

    fn user(name: &str, groups: &str) -> String {
        format!(r#"{{"user": {{"username": "{name}", "groups": [{groups}]}}}}"#)
    }

    #[track_caller]
    fn check_kind(name: &str, groups: &str, expected: &str) {
        check(&user(name, groups), "actor.kind", expected);
    }

    #[test]
    fn a_name_tells_the_kind_but_not_by_its_prefix() {
        check_kind("dana@example.com", "", "human");
        check_kind("system:anonymous", r#""system:unauthenticated""#, "anonymous");
        check_kind("system:serviceaccount:shop:web", "", "service-account");
        check_kind("system:serviceaccount:shop", "", "system");
        check_kind("system:node:n1", r#""system:nodes""#, "node");
        check_kind("system:node:n1", r#""system:masters""#, "system");
        check_kind("system:kube-scheduler", "", "control-plane");
        check_kind("system:kube-scheduler2", "", "system");
        check_kind("system:bootstrap:abcdef", "", "bootstrap");
        check(r#"{"user": {}, "responseStatus": {"code": 401}}"#, "actor.kind", "unauthenticated");
        check(r#"{"user": {"username": ""}}"#, "actor.name", "-");
    }

    #[test]
    fn builtin_is_an_exact_name() {
        check(&user("system:apiserver", ""), "actor.builtin", "true");
        check(&user("system:serviceaccount:kube-system:deployment-controller", ""), "actor.builtin", "true");
        check(&user("system:serviceaccount:evil:deployment-controller", ""), "actor.builtin", "false");
        check(&user("system:serviceaccount:kube-system:namespace-controller", ""), "actor.builtin", "false");
        check(&user("dana", ""), "actor.builtin", "false");
    }

    #[test]
    fn service_accounts_have_a_namespace() {
        check(&user("system:serviceaccount:shop:web", ""), "actor.namespace", "shop");
        check(&user("system:serviceaccount:shop:web", ""), "actor.service-account", "shop/web");
        check(&user("dana", ""), "actor.service-account", "-");
    }

    #[test]
    fn the_actor_is_the_impersonated_user() {
        let event = r#"{"impersonatedUser": {"username": "system:admin", "groups": ["system:masters"]}}"#;
        check(event, "actor.name", "system:admin");
        check(event, "actor.user", "dana");
        check(event, "actor.groups", "[system:masters]");
        check(event, "actor.impersonating", "system:admin");
        check(event, "actor.impersonating-groups", "[system:masters]");
        check(r#"{"impersonatedUser": null}"#, "actor.name", "dana");
        check("{}", "actor.impersonating", "-");
    }

    #[test]
    fn no_number_of_groups_hides_one() {
        let groups: Vec<_> = (0..5000).map(|n| format!("\"g{n}\", ")).collect();
        let groups = groups.concat();
        let user =
            format!(r#"{{"user": {{"username": "x", "groups": [{groups} "system:unauthenticated"]}}}}"#);
        check(&user, "actor.kind", "anonymous");
        let groups = groups.repeat(20);
        let user =
            format!(r#"{{"user": {{"username": "x", "groups": [{groups} "system:unauthenticated"]}}}}"#);
        check(&user, "actor.kind", "?");
    }

    #[track_caller]
    fn check_source(ips: &str, fact: &str, expected: &str) {
        check(&format!(r#"{{"sourceIPs": {ips}}}"#), fact, expected);
    }

    #[test]
    fn only_the_last_hop_is_trusted() {
        check_source(r#"["198.51.100.1", "203.0.113.9"]"#, "actor.ip", "203.0.113.9");
        check_source(r#"["198.51.100.1", "203.0.113.9"]"#, "actor.forwarded", "[198.51.100.1]");
        check_source(r#"["198.51.100.1", "203.0.113.9"]"#, "actor.forwarded-untrusted", "true");
        check_source(r#"["203.0.113.9"]"#, "actor.forwarded-untrusted", "false");
        check_source("[]", "actor.ip", "-");
    }

    #[test]
    fn configured_proxies_are_stepped_over() {
        check_source(r#"["1.1.1.1", "203.0.113.9", "10.0.0.3", "10.0.0.4"]"#, "actor.ip", "203.0.113.9");
        check_source(r#"["1.1.1.1", "203.0.113.9", "10.0.0.3"]"#, "actor.forwarded", "[1.1.1.1]");
        check_source(r#"["203.0.113.9", "10.0.0.3"]"#, "actor.forwarded-untrusted", "false");
        check_source(r#"["10.0.0.3", "10.0.0.4"]"#, "actor.ip", "10.0.0.3");
    }

    /// `X-Forwarded-For` may be as long as the client likes.
    #[test]
    fn no_number_of_claims_hides_the_trusted_hop() {
        let claimed = "\"10.0.0.1\", ".repeat(2 * super::HOPS);
        let source = format!(r#"[{claimed} "203.0.113.9"]"#);
        check_source(&source, "actor.ip", "203.0.113.9");
        check_source(&source, "actor.ip-public", "true");
        check_source(&source, "actor.forwarded-untrusted", "true");
        check_source(&format!(r#"[{claimed} "203.0.113.9", "10.0.0.3"]"#), "actor.ip", "203.0.113.9");
        // Which of so many proxies is the first cannot be told; nor the last hop where the end is lost.
        check_source(&format!(r#"["203.0.113.9", {claimed} "10.0.0.3"]"#), "actor.ip", "?");
        check_raw(r#"{"verb": "get", "sourceIPs": ["10.0.0.1", "203.0."#, "actor.ip", "?");
    }

    #[test]
    fn public_addresses_are_told_from_private_ones() {
        for public in
            ["203.0.113.9", "8.8.8.8", "::ffff:8.8.8.8", "2001:db8::1", "[2001:db8::1]:443", "8.8.8.8:443"]
        {
            check_source(&format!(r#"["{public}"]"#), "actor.ip-public", "true");
        }
        for private in [
            "10.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "fd00::1",
            "fe80::1",
            "::1",
            "::ffff:10.0.0.1",
        ] {
            check_source(&format!(r#"["{private}"]"#), "actor.ip-public", "false");
        }
        check_source(r#"["proxy.local"]"#, "actor.ip-public", "-");
        check_source(r#"["::ffff:8.8.8.8"]"#, "actor.ip", "8.8.8.8");
    }

    #[test]
    fn the_tool_is_the_first_word_of_the_agent() {
        check("{}", "actor.tool", "kubectl");
        check(r#"{"userAgent": "Mozilla/5.0"}"#, "actor.tool", "mozilla");
        check(r#"{"userAgent": ""}"#, "actor.tool", "-");
        check(r#"{"userAgent": null}"#, "actor.agent", "-");
    }

    #[test]
    fn extras_are_lists_of_the_authenticated_user() {
        let event = r#"{"user": {"username": "system:serviceaccount:a:b", "extra":
            {"authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/credential-id": ["JTI=1"]}}}"#;
        check(event, "actor.pod", "web-1");
        check(event, "actor.credential-id", "JTI=1");
        check(event, "actor.node", "-");
    }

    #[test]
    fn falco_knows_users_too() {
        check(r#"{"rule": "x", "output_fields": {"user.name": "root"}}"#, "actor.name", "root");
        check(r#"{"rule": "x", "output_fields": {"user.name": "<NA>"}}"#, "actor.name", "-");
    }
}
