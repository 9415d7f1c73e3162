//! `rbac.*`: what a role grants, and to whom a binding gives it.
//!
//! Rules and subjects are lists without merge keys, so a patch that mentions them gives all of them. A role's rules are read
//! one by one, however many there are, and what each lets do is noted; only `rbac.grants` keeps some of them.

use std::borrow::Cow;
use std::collections::HashSet;

use super::FactType::{Bool, List, Text};
use super::actor::{actor, actor_groups, split_service_account};
use super::object::{self, LIMIT, Merge, View, Words};
use super::shape::{RBAC_GROUP, Shape, text, texts};
use super::{Fact, Parts, target};
use crate::event::Event;
use crate::value::{Tri, Value};

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::body("rbac.role", Text, role)
        .doc("Name of the role that a binding refers to. A patch can't change it and rarely mentions it."),
    Fact::body("rbac.role-kind", Text, role_kind)
        .doc("ClusterRole or Role, of the role that a binding refers to."),
    Fact::body("rbac.subjects", List, subjects)
        .doc("Subjects of a binding: `User:dana`, `Group:devs`, `ServiceAccount:ns/name`."),
    Fact::body("rbac.subject-users", List, subject_users).doc("Names of a binding's User subjects."),
    Fact::body("rbac.subject-groups", List, subject_groups).doc("Names of a binding's Group subjects."),
    Fact::body("rbac.subject-service-accounts", List, subject_service_accounts)
        .doc("`namespace/name` of a binding's ServiceAccount subjects."),
    Fact::body("rbac.self-grant", Bool, self_grant).doc(
        "True if a binding's subject is the actor or the user behind it, one of their groups (but \
        `system:authenticated` and `system:serviceaccounts*`), or the service account that they are.",
    ),
    Fact::body("rbac.rules", Bool, has_rules).doc("True if a role carries at least one rule."),
    Fact::body("rbac.wildcards", List, wildcards)
        .doc("Which of verbs, resources, apiGroups, nonResourceURLs hold `*` in some rule of a role."),
    Fact::body("rbac.full-wildcard", Bool, full_wildcard)
        .doc("True if one rule has `*` in verbs and in resources."),
    Fact::body("rbac.grants", List, grants).doc(
        "A role's rules expanded to `verb:group/resource`, at most 2048, those with a `*` first; the core \
        group is empty (`get:/secrets`).",
    ),
    Fact::body("rbac.escalates", List, escalates).doc(
        "Which of bind, escalate, impersonate a role grants: the verbs bind and escalate on roles, \
        impersonate (or a constrained form of it) on identities. The verb `*` counts where the resource is \
        named.",
    ),
    Fact::body("rbac.secret-read", Text, secret_read).doc(
        "`all` if a rule lets read Secrets (get, list, watch, `*`; also through resource `*`), `named` if \
        all such rules name the Secrets.",
    ),
    Fact::body("rbac.pod-entry", List, pod_entry).doc(
        "Which of pods/exec, pods/attach, pods/portforward, pods/ephemeralcontainers a rule names together \
        with a verb that opens them.",
    ),
    Fact::body("rbac.node-proxy", Bool, node_proxy)
        .doc("True if a rule names nodes/proxy with get, create or `*`: commands in any pod of the node."),
    Fact::body("rbac.levers", List, levers).doc(
        "Other levers that rules name: token-mint, csr-approve, csr-sign, webhook-write, \
        admission-policy-write, node-write, pv-create, pod-bind, namespace-patch, apiservice-write, \
        rbac-write, crd-write.",
    ),
    Fact::body("rbac.write-verbs", Bool, write_verbs)
        .doc("True if a rule has create, update, patch, delete, deletecollection or `*`."),
    Fact::body("rbac.dangerous", Bool, dangerous).doc(
        "True if any of full-wildcard, escalates, secret-read `all`, pod-entry, node-proxy, levers holds.",
    ),
    Fact::body("rbac.custom-groups-only", Bool, custom_groups_only).doc(
        "True if every rule on resources names only API groups that Kubernetes does not own (its own: the \
        core group, names without a dot, names under `.k8s.io`).",
    ),
    Fact::body("rbac.aggregates-to", List, aggregates_to)
        .doc("X of every label `rbac.authorization.k8s.io/aggregate-to-X: \"true\"` of a ClusterRole."),
    Fact::audit("rbac.builtin", Bool, Parts::SHAPE, builtin).doc(
        "True if a role or binding is built in: its name starts with `system:` or is cluster-admin, admin, \
        edit or view.",
    ),
];

const READ_SECRETS: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// How many grants are listed.
const GRANTS: usize = 2048;
/// How many combinations are tried for them: duplicates are dropped.
const COMBINATIONS: usize = 1 << 16;

/// A rule of a role.
#[derive(Debug)]
struct Rule<'a> {
    verbs: Words<'a>,
    groups: Words<'a>,
    resources: Words<'a>,
    urls: Words<'a>,
    /// True if it is limited to objects of certain names.
    named: bool,
}

/// Names, each with what a rule must grant to be called so.
type Classes = [(&'static str, fn(&Rule<'_>) -> bool)];

/// A role's rules.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // a set of independent findings
pub(super) struct Rules<'a> {
    /// True if there is one at all.
    any: bool,
    partial: bool,
    /// `*` in verbs, resources, apiGroups, nonResourceURLs of any rule.
    stars: [bool; 4],
    full_wildcard: bool,
    /// Of [`ESCALATIONS`], [`POD_ENTRIES`], [`LEVERS`] those that some rule is called.
    escalates: Vec<&'static str>,
    pod_entry: Vec<&'static str>,
    levers: Vec<&'static str>,
    reads_secrets: bool,
    /// Without naming them.
    reads_all_secrets: bool,
    node_proxy: bool,
    writes: bool,
    /// True if some rule is on resources, and if all such are on custom groups.
    on_resources: bool,
    only_custom: bool,
    /// Rules that grant something: those with a `*`, and the others.
    list: [Vec<Rule<'a>>; 2],
    /// Words that either may yet hold.
    room: [usize; 2],
}

/// Words of rules that are kept for `rbac.grants`, which come to more grants than it lists.
const ROOM: usize = 1 << 14;

impl<'a> Rule<'a> {
    /// The rule, unless it has no verb and so grants nothing.
    fn of(view: &View<'a>) -> Option<Rule<'a>> {
        let verbs = view.key("verbs").words();
        (verbs.partial || !verbs.items.is_empty()).then(|| Rule {
            verbs,
            groups: view.key("apiGroups").words(),
            resources: view.key("resources").words(),
            urls: view.key("nonResourceURLs").words(),
            named: !view.key("resourceNames").words().items.is_empty(),
        })
    }

    fn partial(&self) -> bool {
        [&self.verbs, &self.groups, &self.resources, &self.urls].iter().any(|words| words.partial)
    }

    fn stars(&self) -> [bool; 4] {
        [&self.verbs, &self.resources, &self.groups, &self.urls].map(|words| words.has("*"))
    }

    /// True if the rule has one of these verbs, or all.
    fn may(&self, verbs: &[&str]) -> bool {
        self.verbs.has("*") || verbs.iter().any(|verb| self.verbs.has(verb))
    }

    fn in_group(&self, groups: &[&str]) -> bool {
        self.groups.has("*") || groups.iter().any(|group| self.groups.has(group))
    }

    /// True if Kubernetes owns none of its API groups.
    fn only_custom_groups(&self) -> bool {
        let custom = |group: &Cow<'_, str>| group.contains('.') && !group.ends_with(".k8s.io");
        let groups = &self.groups;
        groups.items.iter().all(custom) && (groups.partial || !groups.items.is_empty())
    }

    /// True if the rule names the resource, other than by `*`. RBAC knows `*/sub`; `resource/*` has no effect there, but
    /// whoever writes it means all subresources, and other authorizers read it so.
    fn names(&self, resource: &str) -> bool {
        let Some((parent, sub)) = resource.split_once('/') else { return self.resources.has(resource) };
        self.resources.items.iter().any(|name| match name.split_once('/') {
            Some(("*", named)) => named == sub,
            Some((named, "*")) => named == parent,
            Some((named, named_sub)) => named == parent && named_sub == sub,
            None => false,
        })
    }

    /// True if the rule names one of the resources of that group together with one of the verbs.
    fn grants(&self, group: &str, resources: &[&str], verbs: &[&str]) -> bool {
        self.may(verbs) && self.in_group(&[group]) && resources.iter().any(|resource| self.names(resource))
    }
}

impl<'a> Rules<'a> {
    fn of(object: &View<'a>) -> Rules<'a> {
        let mut rules = Rules {
            any: false,
            partial: false,
            stars: [false; 4],
            full_wildcard: false,
            escalates: Vec::new(),
            pod_entry: Vec::new(),
            levers: Vec::new(),
            reads_secrets: false,
            reads_all_secrets: false,
            node_proxy: false,
            writes: false,
            on_resources: false,
            only_custom: true,
            list: [Vec::new(), Vec::new()],
            room: [ROOM; 2],
        };
        let more = object.key("rules").each(Merge::Atomic, |view| match Rule::of(&view) {
            Some(rule) => rules.note(rule),
            None => rules.any = true,
        });
        rules.partial |= more;
        rules
    }

    fn note(&mut self, rule: Rule<'a>) {
        let stars = rule.stars();
        for (all, star) in self.stars.iter_mut().zip(stars) {
            *all |= star;
        }
        self.any = true;
        self.partial |= rule.partial();
        self.full_wildcard |= stars[0] && stars[1];
        for (names, classes) in [
            (&mut self.escalates, ESCALATIONS),
            (&mut self.pod_entry, POD_ENTRIES),
            (&mut self.levers, LEVERS),
        ] {
            let new =
                |(name, test): &&(&'static str, fn(&Rule<'_>) -> bool)| !names.contains(name) && test(&rule);
            let new: Vec<_> = classes.iter().filter(new).map(|(name, _)| *name).collect();
            names.extend(new);
        }
        let reads = reads_secrets(&rule);
        self.reads_secrets |= reads;
        self.reads_all_secrets |= reads && !rule.named;
        self.node_proxy |= rule.grants("", &["nodes/proxy"], &["get", "create"]);
        self.writes |= rule.may(WRITE);
        if !rule.resources.items.is_empty() {
            self.on_resources = true;
            self.only_custom &= rule.only_custom_groups();
        }
        self.keep(rule);
    }

    /// Keeps the rule for its grants, if it has any and there is room.
    fn keep(&mut self, rule: Rule<'a>) {
        let words = [&rule.verbs, &rule.groups, &rule.resources].map(|words| words.items.len());
        let place = usize::from(!rule.stars()[..3].contains(&true));
        if self.room[place] == 0 || words.contains(&0) {
            return;
        }
        // The rule that takes the last of it is still kept, so that nothing is missing as long as there is room.
        self.room[place] = self.room[place].saturating_sub(words.iter().sum());
        self.list[place].push(rule);
    }

    /// What was seen holds; what was not seen holds not, unless something was hidden.
    fn seen(&self, seen: bool) -> Tri {
        match (seen, self.partial) {
            (true, _) => Tri::True,
            (false, true) => Tri::Unknown,
            (false, false) => Tri::False,
        }
    }

    /// The names in the order of their table.
    fn named(&self, names: &[&'static str], classes: &Classes) -> Value<'a> {
        let names = classes.iter().map(|(name, _)| *name).filter(|name| names.contains(name));
        Value::list_of(names.map(Value::text).collect(), self.partial)
    }
}

/// The role's rules, or what its facts are without.
fn rules<'e, 'a>(event: &'e Event<'a>) -> Result<&'e Rules<'a>, Value<'a>> {
    let shape = Shape::of(event);
    if !shape.on(RBAC_GROUP, "roles") && !shape.on(RBAC_GROUP, "clusterroles") {
        return Err(Value::Absent);
    }
    let object = object::object(event)?;
    Ok(event.views().rules.get_or_init(|| Rules::of(object)))
}

fn bool_of<'a>(event: &Event<'a>, test: impl Fn(&Rules<'a>) -> Tri) -> Value<'a> {
    rules(event).map_or_else(|without| without, |rules| object::truth(test(rules)))
}

fn of_rules<'a>(event: &Event<'a>, fact: impl Fn(&Rules<'a>) -> Value<'a>) -> Value<'a> {
    rules(event).map_or_else(|without| without, fact)
}

fn has_rules<'a>(event: &Event<'a>) -> Value<'a> {
    bool_of(event, |rules| rules.seen(rules.any))
}

fn wildcards<'a>(event: &Event<'a>) -> Value<'a> {
    of_rules(event, |rules| {
        let names = ["verbs", "resources", "apiGroups", "nonResourceURLs"];
        let starred = names.into_iter().zip(rules.stars).filter_map(|(name, star)| star.then_some(name));
        Value::list_of(starred.map(Value::text).collect(), rules.partial)
    })
}

fn full_wildcard<'a>(event: &Event<'a>) -> Value<'a> {
    bool_of(event, |rules| rules.seen(rules.full_wildcard))
}

fn grants<'a>(event: &Event<'a>) -> Value<'a> {
    let rules = match rules(event) {
        Ok(rules) => rules,
        Err(without) => return without,
    };
    let mut grants = Grants { partial: rules.room.contains(&0), ..Grants::default() };
    let [starred, _] = &rules.list;
    for rule in starred {
        grants.add(rule, true);
    }
    for rule in rules.list.iter().flatten() {
        grants.add(rule, false);
    }
    if grants.partial {
        event.views().hit_bound();
    }
    Value::list_of(grants.list, rules.partial || grants.partial)
}

/// Rules expanded, each grant once.
#[derive(Default)]
struct Grants<'a> {
    seen: HashSet<String>,
    list: Vec<Value<'a>>,
    tried: usize,
    partial: bool,
}

impl Grants<'_> {
    /// Adds a rule's grants, either those with a `*` or the others, until a bound is hit.
    fn add(&mut self, rule: &Rule<'_>, only_stars: bool) {
        let stars = rule.stars();
        if only_stars && !stars[..3].contains(&true) {
            return;
        }
        for verb in &rule.verbs.items {
            for group in &rule.groups.items {
                let star = verb == "*" || group == "*";
                if only_stars && !star && stars[1] {
                    self.push(verb, group, "*");
                } else if only_stars == star {
                    let named = |name: &&Cow<'_, str>| only_stars || *name != "*";
                    rule.resources.items.iter().filter(named).for_each(|name| self.push(verb, group, name));
                }
                self.tried += 1;
                if self.full() {
                    self.partial = true;
                    return;
                }
            }
        }
    }

    fn full(&self) -> bool {
        self.list.len() >= GRANTS || self.tried >= COMBINATIONS
    }

    fn push(&mut self, verb: &str, group: &str, resource: &str) {
        if self.full() {
            self.partial = true;
            return;
        }
        self.tried += 1;
        let grant = format!("{verb}:{group}/{resource}");
        if self.seen.insert(grant.clone()) {
            self.list.push(Value::Text(Cow::Owned(grant)));
        }
    }
}

fn escalates<'a>(event: &Event<'a>) -> Value<'a> {
    of_rules(event, |rules| rules.named(&rules.escalates, ESCALATIONS))
}

const ESCALATIONS: &Classes = &[
    ("bind", |rule| on_roles(rule, "bind")),
    ("escalate", |rule| on_roles(rule, "escalate")),
    ("impersonate", on_identities),
];

/// The verb itself reaches all resources that `reached` names; `*` counts only where they are spelled out.
fn verb_on(rule: &Rule<'_>, verb: &str, named: bool, reached: bool) -> bool {
    (rule.verbs.has(verb) && (named || (reached && rule.resources.has("*"))))
        || (rule.verbs.has("*") && named)
}

fn on_roles(rule: &Rule<'_>, verb: &str) -> bool {
    let reached = rule.in_group(&[RBAC_GROUP]);
    verb_on(rule, verb, reached && (rule.names("roles") || rule.names("clusterroles")), reached)
}

fn on_identities(rule: &Rule<'_>) -> bool {
    let core =
        rule.in_group(&[""]) && ["users", "groups", "serviceaccounts"].iter().any(|name| rule.names(name));
    let extra =
        |name: &Cow<'_, str>| name == "uids" || name == "userextras" || name.starts_with("userextras/");
    let extras = rule.in_group(&["authentication.k8s.io"]) && rule.resources.items.iter().any(extra);
    let constrained =
        |verb: &Cow<'_, str>| verb.starts_with("impersonate:") || verb.starts_with("impersonate-on:");
    let reached = rule.in_group(&["", "authentication.k8s.io"]);
    verb_on(rule, "impersonate", core || extras, reached) || rule.verbs.items.iter().any(constrained)
}

fn secret_read<'a>(event: &Event<'a>) -> Value<'a> {
    let rules = match rules(event) {
        Ok(rules) => rules,
        Err(without) => return without,
    };
    match (rules.seen(rules.reads_all_secrets), rules.seen(rules.reads_secrets)) {
        (Tri::True, _) => Value::text("all"),
        (Tri::Unknown, _) => Value::Unknown,
        (Tri::False, Tri::True) => Value::text("named"),
        (Tri::False, _) => Value::Absent,
    }
}

fn reads_secrets(rule: &Rule<'_>) -> bool {
    rule.may(READ_SECRETS) && rule.in_group(&[""]) && (rule.resources.has("*") || rule.names("secrets"))
}

fn pod_entry<'a>(event: &Event<'a>) -> Value<'a> {
    of_rules(event, |rules| rules.named(&rules.pod_entry, POD_ENTRIES))
}

/// A get opens a WebSocket; of an ephemeral container it shows the pod, no more.
const OPEN: &[&str] = &["create", "update", "patch", "get"];

const POD_ENTRIES: &Classes = &[
    ("pods/exec", |rule| rule.grants("", &["pods/exec"], OPEN)),
    ("pods/attach", |rule| rule.grants("", &["pods/attach"], OPEN)),
    ("pods/portforward", |rule| rule.grants("", &["pods/portforward"], OPEN)),
    ("pods/ephemeralcontainers", |rule| {
        rule.grants("", &["pods/ephemeralcontainers"], &["create", "update", "patch"])
    }),
];

fn node_proxy<'a>(event: &Event<'a>) -> Value<'a> {
    bool_of(event, |rules| rules.seen(rules.node_proxy))
}

fn levers<'a>(event: &Event<'a>) -> Value<'a> {
    of_rules(event, |rules| rules.named(&rules.levers, LEVERS))
}

const CHANGE: &[&str] = &["update", "patch"];
const CREATE: &[&str] = &["create"];
const HOOKS: &[&str] = &["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
const POLICIES: &[&str] = &[
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];
const RBAC: &[&str] = &["roles", "clusterroles", "rolebindings", "clusterrolebindings"];
const ADMISSION: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";

const LEVERS: &Classes = &[
    ("token-mint", |rule| rule.grants("", &["serviceaccounts/token"], CREATE)),
    ("csr-approve", |rule| {
        rule.grants(CERTIFICATES, &["certificatesigningrequests/approval"], CHANGE)
            || rule.grants(CERTIFICATES, &["signers"], &["approve"])
    }),
    ("csr-sign", |rule| rule.grants(CERTIFICATES, &["signers"], &["sign"])),
    ("webhook-write", |rule| rule.grants(ADMISSION, HOOKS, WRITE)),
    ("admission-policy-write", |rule| rule.grants(ADMISSION, POLICIES, WRITE)),
    ("node-write", |rule| rule.grants("", &["nodes", "nodes/status"], WRITE)),
    ("pv-create", |rule| rule.grants("", &["persistentvolumes"], CREATE)),
    ("pod-bind", |rule| rule.grants("", &["pods/binding", "bindings"], CREATE)),
    ("namespace-patch", |rule| rule.grants("", &["namespaces"], CHANGE)),
    ("apiservice-write", |rule| rule.grants("apiregistration.k8s.io", &["apiservices"], WRITE)),
    ("rbac-write", |rule| rule.grants(RBAC_GROUP, RBAC, WRITE)),
    ("crd-write", |rule| rule.grants("apiextensions.k8s.io", &["customresourcedefinitions"], WRITE)),
];

fn write_verbs<'a>(event: &Event<'a>) -> Value<'a> {
    bool_of(event, |rules| rules.seen(rules.writes))
}

fn dangerous<'a>(event: &Event<'a>) -> Value<'a> {
    bool_of(event, |rules| {
        let classes = [&rules.escalates, &rules.pod_entry, &rules.levers];
        let named = classes.iter().any(|names| !names.is_empty());
        rules.seen(rules.full_wildcard || named || rules.reads_all_secrets || rules.node_proxy)
    })
}

fn custom_groups_only<'a>(event: &Event<'a>) -> Value<'a> {
    bool_of(event, |rules| match (rules.only_custom, rules.partial) {
        (false, _) => Tri::False,
        (true, true) => Tri::Unknown,
        (true, false) => Tri::from(rules.on_resources),
    })
}

fn aggregates_to<'a>(event: &Event<'a>) -> Value<'a> {
    if !Shape::of(event).on(RBAC_GROUP, "clusterroles") {
        return Value::Absent;
    }
    let object = match object::object(event) {
        Ok(object) => object,
        Err(without) => return without,
    };
    let (mut roles, mut cut) = (Vec::new(), false);
    let more = object.path(&["metadata", "labels"]).each_member(|label, value| {
        let Some(role) = label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-") else { return };
        if value.is("true") != Tri::True {
            return;
        }
        if roles.len() == LIMIT {
            value.bounds.hit();
            cut = true;
        } else {
            roles.push(Value::Text(Cow::Owned(role.to_owned())));
        }
    });
    Value::list_of(roles, more || cut)
}

fn builtin<'a>(event: &Event<'a>) -> Value<'a> {
    const KINDS: &[&str] = &["roles", "clusterroles", "rolebindings", "clusterrolebindings"];
    let shape = Shape::of(event);
    if !KINDS.iter().any(|kind| shape.on(RBAC_GROUP, kind)) {
        return Value::Absent;
    }
    match target::name(event) {
        Value::Text(name) => Value::Bool(
            name.starts_with("system:") || matches!(&*name, "cluster-admin" | "admin" | "edit" | "view"),
        ),
        Value::Absent => Value::Bool(false),
        _ => Value::Unknown,
    }
}

/// A role binding.
#[derive(Debug)]
pub(super) struct Binding<'a> {
    role: Value<'a>,
    role_kind: Value<'a>,
    subjects: Vec<Subject<'a>>,
    partial: bool,
}

/// A subject of a binding.
#[derive(Debug)]
struct Subject<'a> {
    kind: Cow<'a, str>,
    /// Of a service account: `namespace/name`.
    name: Cow<'a, str>,
}

impl<'a> Binding<'a> {
    fn of(object: &View<'a>) -> Binding<'a> {
        let (mut subjects, mut hidden) = (Vec::new(), false);
        let more = object.key("subjects").each(Merge::Atomic, |item| match Subject::of(&item) {
            Some(subject) if subjects.len() < LIMIT => subjects.push(subject),
            Some(_) => {
                item.bounds.hit();
                hidden = true;
            }
            None => hidden |= !item.complete,
        });
        let partial = hidden || more;
        let role = object.key("roleRef");
        Binding { role: role.key("name").text(), role_kind: role.key("kind").text(), subjects, partial }
    }

    fn names(&self, kind: &str) -> Value<'a> {
        let of_kind = self.subjects.iter().filter(|subject| subject.kind == kind);
        Value::list_of(of_kind.map(|subject| Value::Text(subject.name.clone())).collect(), self.partial)
    }
}

impl<'a> Subject<'a> {
    fn of(view: &View<'a>) -> Option<Subject<'a>> {
        let name = view.key("name").str()?;
        let kind = view.key("kind").str();
        // A patch of the name alone leaves the kind as it was.
        let kind = kind.or_else(|| Some(Cow::Borrowed(reserved_kind(&name).filter(|_| !view.complete)?)))?;
        if kind != "ServiceAccount" {
            return Some(Subject { kind, name });
        }
        let namespace = view.key("namespace").str().unwrap_or_default();
        Some(Subject { kind, name: Cow::Owned(format!("{namespace}/{name}")) })
    }
}

/// The kind of subject that a name of Kubernetes' own belongs to; nothing for names that a subject of any kind may have.
fn reserved_kind(name: &str) -> Option<&'static str> {
    let rest = name.strip_prefix("system:")?;
    let group = matches!(rest, "authenticated" | "unauthenticated" | "masters" | "nodes" | "monitoring")
        || rest.starts_with("serviceaccounts")
        || rest.starts_with("bootstrappers");
    let user = matches!(rest, "anonymous" | "admin" | "apiserver" | "kube-proxy")
        || rest == "kube-scheduler"
        || rest == "kube-controller-manager"
        || rest.starts_with("serviceaccount:")
        || rest.starts_with("node:");
    match (group, user) {
        (true, _) => Some("Group"),
        (false, true) => Some("User"),
        (false, false) => None,
    }
}

/// The binding, or what its facts are without.
fn binding<'e, 'a>(event: &'e Event<'a>) -> Result<&'e Binding<'a>, Value<'a>> {
    let shape = Shape::of(event);
    if !shape.on(RBAC_GROUP, "rolebindings") && !shape.on(RBAC_GROUP, "clusterrolebindings") {
        return Err(Value::Absent);
    }
    let object = object::object(event)?;
    Ok(event.views().binding.get_or_init(|| Binding::of(object)))
}

fn role<'a>(event: &Event<'a>) -> Value<'a> {
    binding(event).map_or_else(|without| without, |binding| binding.role.clone())
}

fn role_kind<'a>(event: &Event<'a>) -> Value<'a> {
    binding(event).map_or_else(|without| without, |binding| binding.role_kind.clone())
}

fn subjects<'a>(event: &Event<'a>) -> Value<'a> {
    let show = |subject: &Subject<'a>| Value::Text(Cow::Owned(format!("{}:{}", subject.kind, subject.name)));
    binding(event).map_or_else(
        |without| without,
        |binding| Value::list_of(binding.subjects.iter().map(show).collect(), binding.partial),
    )
}

fn subject_users<'a>(event: &Event<'a>) -> Value<'a> {
    binding(event).map_or_else(|without| without, |binding| binding.names("User"))
}

fn subject_groups<'a>(event: &Event<'a>) -> Value<'a> {
    binding(event).map_or_else(|without| without, |binding| binding.names("Group"))
}

fn subject_service_accounts<'a>(event: &Event<'a>) -> Value<'a> {
    binding(event).map_or_else(|without| without, |binding| binding.names("ServiceAccount"))
}

fn self_grant<'a>(event: &Event<'a>) -> Value<'a> {
    let binding = match binding(event) {
        Ok(binding) => binding,
        Err(without) => return without,
    };
    let names = [actor(event), text(event.user().username)];
    let own = names.iter().flatten().filter_map(|name| split_service_account(name));
    let accounts: Vec<_> = own.map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    let mut groups: HashSet<_> = actor_groups(event).0.into_iter().collect();
    groups.extend(event.user().groups.into_iter().flat_map(|groups| texts(groups, LIMIT).0));
    groups.retain(|group| group != "system:authenticated" && !group.starts_with("system:serviceaccounts"));
    let itself = |subject: &Subject<'_>| match &*subject.kind {
        "User" => names.iter().flatten().any(|name| *name == subject.name),
        "Group" => groups.contains(&subject.name),
        "ServiceAccount" => accounts.iter().any(|account| *account == subject.name),
        _ => false,
    };
    match (binding.subjects.iter().any(itself), binding.partial) {
        (true, _) => Value::Bool(true),
        (false, true) => Value::Unknown,
        (false, false) => Value::Bool(false),
    }
}

#[cfg(test)]
mod tests {
    use crate::facts::object::LIMIT;
    use crate::facts::tests::check;

    const GROUP: &str = r#""apiGroup": "rbac.authorization.k8s.io""#;

    /// A create of a ClusterRole with these rules.
    #[track_caller]
    fn check_rules(rules: &str, fact: &str, expected: &str) {
        let role = format!(r#"{{"resource": "clusterroles", {GROUP}}}"#);
        let event =
            format!(r#"{{"verb": "create", "objectRef": {role}, "requestObject": {{"rules": {rules}}}}}"#);
        check(&event, fact, expected);
    }

    fn rule(verbs: &str, groups: &str, resources: &str) -> String {
        let list = |words: &str| format!("\"{}\"", words.replace(' ', "\",\""));
        let (verbs, groups, resources) = (list(verbs), list(groups).replace("core", ""), list(resources));
        format!(r#"[{{"verbs": [{verbs}], "apiGroups": [{groups}], "resources": [{resources}]}}]"#)
    }

    #[test]
    fn wildcards_are_found_where_they_stand() {
        check_rules(&rule("*", "*", "*"), "rbac.wildcards", "[verbs, resources, apiGroups]");
        check_rules(&rule("*", "*", "*"), "rbac.full-wildcard", "true");
        check_rules(&rule("get", "*", "pods"), "rbac.wildcards", "[apiGroups]");
        check_rules(r#"[{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]"#, "rbac.wildcards", "-");
        check_rules(
            r#"[{"verbs": ["get"], "nonResourceURLs": ["*"]}]"#,
            "rbac.wildcards",
            "[nonResourceURLs]",
        );
        let two = r#"[{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}]"#;
        check_rules(two, "rbac.full-wildcard", "false");
    }

    #[test]
    fn grants_are_expanded() {
        check_rules(&rule("get list", "core", "secrets"), "rbac.grants", "[get:/secrets, list:/secrets]");
        check_rules(&rule("get", "core apps", "pods"), "rbac.grants", "[get:/pods, get:apps/pods]");
        check_rules("[]", "rbac.grants", "-");
        check_rules("[]", "rbac.rules", "false");
    }

    #[test]
    fn a_wildcard_survives_every_bound() {
        let names: Vec<_> = (0..=LIMIT).map(|n| format!("\"r{n}\"")).collect();
        let rule = |resources: &str| {
            format!(r#"{{"verbs": ["get"], "apiGroups": [""], "resources": [{resources}]}}"#)
        };
        let behind = format!("[{}]", rule(&format!(r#"{}, "*""#, names.join(","))));
        check_rules(&behind, "rbac.wildcards", "[resources, ..]");
        let rules: Vec<_> = (0..5000).map(|_| rule("\"pods\"")).collect();
        let last = r#"{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}"#;
        let many = format!("[{}, {last}]", rules.join(","));
        check_rules(&many, "rbac.full-wildcard", "true");
        check_rules(&many, "rbac.grants", "[*:*/*, get:/pods]");
        check_rules(&format!("[{}]", rules.join(",")), "rbac.full-wildcard", "false");
        let many = format!("[{}, {}, {last}]", rules.join(","), rules.join(","));
        check_rules(&many, "rbac.grants", "[*:*/*, get:/pods, ..]");
    }

    #[test]
    fn escalation_needs_the_verb_or_the_resource_by_name() {
        check_rules(&rule("bind", "rbac.authorization.k8s.io", "clusterroles"), "rbac.escalates", "[bind]");
        check_rules(&rule("escalate", "*", "*"), "rbac.escalates", "[escalate]");
        check_rules(&rule("*", "rbac.authorization.k8s.io", "roles"), "rbac.escalates", "[bind, escalate]");
        check_rules(&rule("*", "*", "*"), "rbac.escalates", "-");
        check_rules(&rule("bind", "core", "pods"), "rbac.escalates", "-");
        check_rules(&rule("impersonate", "core", "users groups"), "rbac.escalates", "[impersonate]");
        check_rules(
            &rule("impersonate", "authentication.k8s.io", "userextras/scopes"),
            "rbac.escalates",
            "[impersonate]",
        );
        check_rules(
            &rule("impersonate:user-info", "authentication.k8s.io", "users"),
            "rbac.escalates",
            "[impersonate]",
        );
        check_rules(&rule("get", "core", "users"), "rbac.escalates", "-");
    }

    #[test]
    fn secrets_are_read_by_name_or_all() {
        check_rules(&rule("watch", "core", "secrets"), "rbac.secret-read", "all");
        check_rules(&rule("get", "*", "*"), "rbac.secret-read", "all");
        check_rules(&rule("create", "core", "secrets"), "rbac.secret-read", "-");
        check_rules(&rule("get", "apps", "*"), "rbac.secret-read", "-");
        let named =
            r#"[{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}]"#;
        check_rules(named, "rbac.secret-read", "named");
    }

    #[test]
    fn ways_into_pods_and_nodes() {
        check_rules(&rule("get", "core", "pods/exec"), "rbac.pod-entry", "[pods/exec]");
        check_rules(&rule("get", "core", "pods/ephemeralcontainers"), "rbac.pod-entry", "-");
        check_rules(&rule("create", "core", "*/attach"), "rbac.pod-entry", "[pods/attach]");
        check_rules(&rule("get", "core", "pods/log pods"), "rbac.pod-entry", "-");
        check_rules(&rule("*", "*", "*"), "rbac.pod-entry", "-");
        check_rules(&rule("get", "core", "nodes/proxy"), "rbac.node-proxy", "true");
        check_rules(&rule("get", "core", "nodes/metrics"), "rbac.node-proxy", "false");
    }

    #[test]
    fn levers_are_named_resources_with_the_right_verb() {
        check_rules(&rule("create", "core", "serviceaccounts/token"), "rbac.levers", "[token-mint]");
        check_rules(
            &rule("approve sign", "certificates.k8s.io", "signers"),
            "rbac.levers",
            "[csr-approve, csr-sign]",
        );
        check_rules(&rule("patch", "core", "namespaces"), "rbac.levers", "[namespace-patch]");
        check_rules(&rule("get", "core", "namespaces"), "rbac.levers", "-");
        check_rules(&rule("update", "core", "nodes/status"), "rbac.levers", "[node-write]");
        check_rules(
            &rule("create", "core", "persistentvolumes pods/binding"),
            "rbac.levers",
            "[pv-create, pod-bind]",
        );
        check_rules(
            &rule("*", "rbac.authorization.k8s.io", "clusterrolebindings"),
            "rbac.levers",
            "[rbac-write]",
        );
        check_rules(
            &rule("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
            "rbac.levers",
            "[webhook-write]",
        );
        check_rules(&rule("*", "*", "*"), "rbac.levers", "-");
    }

    #[test]
    fn danger_is_the_sum_of_the_others() {
        check_rules(&rule("*", "*", "*"), "rbac.dangerous", "true");
        check_rules(&rule("get", "core", "nodes/proxy"), "rbac.dangerous", "true");
        check_rules(&rule("get list", "core", "pods"), "rbac.dangerous", "false");
        check_rules(&rule("*", "example.com", "widgets"), "rbac.dangerous", "false");
        check_rules(&rule("*", "example.com", "widgets"), "rbac.custom-groups-only", "true");
        check_rules(
            &rule("*", "example.com gateway.networking.k8s.io", "widgets"),
            "rbac.custom-groups-only",
            "false",
        );
        check_rules(&rule("get", "core", "pods"), "rbac.write-verbs", "false");
        check_rules(&rule("deletecollection", "core", "pods"), "rbac.write-verbs", "true");
    }

    #[track_caller]
    fn check_role_patch(patch: &str, fact: &str, expected: &str) {
        let role = format!(r#"{{"resource": "clusterroles", "name": "system:x", {GROUP}}}"#);
        let event = format!(r#"{{"verb": "patch", "objectRef": {role}, "requestObject": {patch}}}"#);
        check(&event, fact, expected);
    }

    #[test]
    fn patches_show_what_they_mention() {
        let all = rule("*", "*", "*");
        check_role_patch(&format!(r#"{{"rules": {all}}}"#), "rbac.full-wildcard", "true");
        check_role_patch(
            &format!(r#"{{"rules": {}}}"#, rule("get", "core", "pods")),
            "rbac.dangerous",
            "false",
        );
        check_role_patch(r#"{"metadata": {"labels": {"a": "b"}}}"#, "rbac.full-wildcard", "?");
        check_role_patch(r#"{"rules": null}"#, "rbac.rules", "false");
        let added = all.trim_matches(['[', ']']);
        check_role_patch(
            &format!(r#"[{{"op": "add", "path": "/rules/-", "value": {added}}}]"#),
            "rbac.full-wildcard",
            "true",
        );
        check_role_patch(
            &format!(r#"[{{"op": "replace", "path": "/rules", "value": {all}}}]"#),
            "rbac.wildcards",
            "[verbs, resources, apiGroups]",
        );
        check_role_patch(
            r#"[{"op": "add", "path": "/rules/0/verbs/-", "value": "*"}]"#,
            "rbac.wildcards",
            "[verbs, ..]",
        );
        check_role_patch(
            r#"[{"op": "replace", "path": "/rules/0/verbs", "value": ["*"]}]"#,
            "rbac.full-wildcard",
            "?",
        );
        check_role_patch(
            r#"[{"op": "test", "path": "/rules/0/verbs", "value": ["*"]}]"#,
            "rbac.wildcards",
            "?",
        );
    }

    #[test]
    fn aggregation_is_a_label_however_it_is_set() {
        let labels = r#"{"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-admin": "true",
            "rbac.authorization.k8s.io/aggregate-to-view": "false"}}}"#;
        check_role_patch(labels, "rbac.aggregates-to", "[admin, ..]");
        let path = "/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-edit";
        check_role_patch(
            &format!(r#"[{{"op": "add", "path": "{path}", "value": "true"}}]"#),
            "rbac.aggregates-to",
            "[edit, ..]",
        );
        check_role_patch("{}", "rbac.builtin", "true");
    }

    #[track_caller]
    fn check_binding(binding: &str, fact: &str, expected: &str) {
        let object = format!(r#"{{"resource": "clusterrolebindings", {GROUP}}}"#);
        let special = format!(r#"{{"verb": "create", "objectRef": {object}, "requestObject": {binding}}}"#);
        check(&special, fact, expected);
    }

    #[test]
    fn bindings_name_role_and_subjects() {
        let binding = r#"{"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [
            {"kind": "User", "name": "eve"}, {"kind": "Group", "name": "ops"},
            {"kind": "ServiceAccount", "name": "web", "namespace": "shop"}]}"#;
        check_binding(binding, "rbac.role", "cluster-admin");
        check_binding(binding, "rbac.role-kind", "ClusterRole");
        check_binding(binding, "rbac.subjects", "[User:eve, Group:ops, ServiceAccount:shop/web]");
        check_binding(binding, "rbac.subject-groups", "[ops]");
        check_binding(binding, "rbac.subject-users", "[eve]");
        check_binding(binding, "rbac.subject-service-accounts", "[shop/web]");
        check_binding(binding, "rbac.self-grant", "false");
        check_binding(binding, "rbac.rules", "-");
        check_binding(r#"{"roleRef": {"name": "view"}}"#, "rbac.subjects", "-");
    }

    #[test]
    fn granting_to_oneself() {
        check_binding(r#"{"subjects": [{"kind": "User", "name": "dana"}]}"#, "rbac.self-grant", "true");
        check_binding(r#"{"subjects": [{"kind": "Group", "name": "devs"}]}"#, "rbac.self-grant", "true");
        check_binding(
            r#"{"subjects": [{"kind": "Group", "name": "system:authenticated"}]}"#,
            "rbac.self-grant",
            "false",
        );
        let account = |name: &str| {
            format!(
                r#"{{"verb": "create", "objectRef": {{"resource": "rolebindings", {GROUP}}},
                "user": {{"username": "system:serviceaccount:shop:web"}},
                "requestObject": {{"subjects": [{{"kind": "ServiceAccount", "namespace": "shop", "name": "{name}"}}]}}}}"#
            )
        };
        check(&account("web"), "rbac.self-grant", "true");
        check(&account("db"), "rbac.self-grant", "false");
    }

    #[test]
    fn a_patch_of_subjects_leaves_the_role_unknown() {
        let event = |body: &str| {
            format!(
                r#"{{"verb": "patch", "objectRef": {{"resource": "rolebindings", "name": "b", {GROUP}}}, {body}}}"#
            )
        };
        let add = r#"[{"op": "add", "path": "/subjects/-", "value": {"kind": "User", "name": "dana"}}]"#;
        let request = event(&format!(r#""requestObject": {add}"#));
        check(&request, "rbac.role", "?");
        check(&request, "rbac.subjects", "[User:dana, ..]");
        check(&request, "rbac.self-grant", "true");
        let name = |index: &str, name: &str| {
            let op = format!(r#"{{"op": "replace", "path": "{index}/name", "value": "{name}"}}"#);
            event(&format!(r#""requestObject": [{op}]"#))
        };
        check(&name("/subjects/0", "system:anonymous"), "rbac.subjects", "[User:system:anonymous, ..]");
        check(&name("/subjects/7", "system:masters"), "rbac.subject-groups", "[system:masters, ..]");
        check(&name("/subjects/0", "dana"), "rbac.subjects", "?");
        check(&name("/subjects/0", "system:ours"), "rbac.subject-users", "?");
        check(&name("subjects/0", "system:anonymous"), "rbac.subjects", "?");
        check(&name("x/subjects/0", "system:anonymous"), "rbac.subject-users", "[system:anonymous, ..]");
        let response = r#"{"roleRef": {"name": "view"}, "subjects": [{"kind": "User", "name": "dana"}]}"#;
        check(
            &event(&format!(r#""requestObject": {add}, "responseObject": {response}"#)),
            "rbac.role",
            "view",
        );
    }
}
