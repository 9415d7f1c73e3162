//! Every detector's own tests, and what holds for the catalogue as a whole.
#![allow(clippy::unwrap_used)] // a test may fail

use std::collections::{BTreeMap, BTreeSet};

use detectors::level::Level;
use detectors::program::Template;
use detectors::rules::{self, Tuning};
use detectors::settings::Settings;
use detectors::sigma::{About, Rules};
use detectors::testing::{self, Expect};

/// Name and tests of every rule of the catalogue.
fn all_tests() -> Vec<(String, Vec<testing::Test>)> {
    let whole = rules::read_whole(&rules::catalogue(), &Settings::default(), true);
    let abouts = whole.detectors.iter().map(|rule| &rule.about);
    let abouts = abouts.chain(whole.correlations.iter().map(|rule| &rule.about));
    abouts
        .filter_map(|about| {
            let tests =
                testing::read(about.tests.as_ref()?).unwrap_or_else(|e| panic!("{}: {e}", about.name));
            Some((about.name.clone(), tests))
        })
        .collect()
}

#[test]
fn the_catalogue_has_no_problems() {
    let whole = rules::read_whole(&rules::catalogue(), &Settings::default(), true);
    let problems: Vec<String> = whole.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is compiled in is what the files say.
#[test]
fn the_build_changes_nothing() {
    let settings = Settings::default();
    let all = |rules: Rules| -> Vec<String> {
        let single = rules.detectors.iter().map(|rule| {
            let grades: Vec<_> = rule.grades.iter().map(|grade| (&grade.when, grade.level)).collect();
            let fields = &rule.fields;
            (&rule.about, format!("{:?} {:?} {fields:?} {grades:?}", rule.condition, rule.selections))
        });
        let counted = rules.correlations.iter().map(|rule| (&rule.about, format!("{:?}", rule.rules)));
        let one = |(about, rest): (&About, String)| {
            let About { name, title, id, level, status, tags, author, message, logic, hidden, .. } = about;
            format!(
                "{name} {title} {id:?} {level} {status:?} {tags:?} {author:?} {message:?} {logic:?} {hidden} {rest}"
            )
        };
        single.chain(counted).map(one).collect()
    };
    let compiled = all(rules::read(&[], &settings));
    let whole = all(rules::read_whole(&rules::catalogue(), &settings, false));
    assert!(!compiled.is_empty());
    assert_eq!(compiled, whole);
}

/// Runs tests of detectors; what failed.
fn failures(tests: &[(String, testing::Test)]) -> Vec<String> {
    let mut engines = BTreeMap::new();
    let mut failed = Vec::new();
    for (name, test) in tests {
        let engine = engines.entry(format!("{:?}", test.lists)).or_insert_with(|| {
            let settings = Settings::new(None, test.lists.clone()).unwrap();
            rules::assemble(rules::read(&[], &settings), settings, &Tuning::default()).unwrap()
        });
        if let Some(failure) = testing::run(engine, name, test).failure {
            failed.push(format!("{name}: {}: {failure}", test.name));
        }
    }
    failed
}

#[test]
fn every_detector_passes_its_tests() {
    let tests: Vec<_> = all_tests()
        .into_iter()
        .flat_map(|(name, tests)| tests.into_iter().map(move |test| (name.clone(), test)))
        .collect();
    let failed = failures(&tests);
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), tests.len(), failed.join("\n"));
}

/// What the audit log means, whatever a detector looks for.
#[test]
fn the_audit_log_is_read_as_it_is_meant() {
    let yaml: yaml_serde::Value = {
        let mut value: yaml_serde::Value = yaml_serde::from_str(include_str!("semantics.yml")).unwrap();
        value.apply_merge().unwrap();
        value
    };
    let names = yaml.as_sequence().unwrap().iter().map(|test| test["detector"].as_str().unwrap().to_owned());
    let tests: Vec<_> = names.zip(testing::read(&yaml).unwrap()).collect();
    let known: BTreeSet<String> = abouts().into_iter().map(|about| about.name).collect();
    assert!(tests.iter().all(|(name, _)| known.contains(name)));
    let failed = failures(&tests);
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), tests.len(), failed.join("\n"));
}

/// What every detector that alerts says of itself.
fn abouts() -> Vec<About> {
    let whole = rules::read_whole(&rules::catalogue(), &Settings::default(), true);
    let single = whole.detectors.into_iter().map(|rule| rule.about);
    let all = single.chain(whole.correlations.into_iter().map(|rule| rule.about));
    all.filter(|about| !about.hidden).collect()
}

/// What is missing in what a detector says to the person whom it wakes.
fn gaps(about: &About) -> Vec<&'static str> {
    let description = about.description.as_str();
    let says = |words: &[&str]| words.iter().any(|word| description.contains(word));
    let tagged = |prefix: &str| about.tags.iter().any(|tag| tag.starts_with(prefix));
    let message = about.message.as_ref().map(Template::text).unwrap_or_default();
    let shows = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let tests = about.tests.as_ref().and_then(|tests| testing::read(tests).ok()).unwrap_or_default();
    let silent = |expect: &Expect| matches!(expect, Expect::None | Expect::Unknown | Expect::Count(0));
    let quiet = tests.iter().filter(|test| silent(&test.expect)).count();
    let other = about.name == "runtime/unmapped-rule"; // its techniques are those of the rules that it passes on
    let parts = [
        (
            description.split(". ").count() + description.matches(".\n").count() >= 4,
            "a description of four sentences",
        ),
        (says(&["misses", "missed", "does not know", "has not learned", "can't tell"]), "what it misses"),
        (says(&["Check first"]), "what to check first"),
        (tagged("attack.t") || other, "a technique"),
        (tagged("checklist.cl"), "an item of the checklist"),
        (!about.falsepositives.is_empty(), "false positives"),
        (about.references.iter().all(|url| url.starts_with("https://")), "references by https"),
        (shows(&["{actor.", "{falco.rule}", "Anonymous"]), "who, in the message"),
        (
            shows(&["{target.", "{actor.ip}", "{falco.", "{actor.impersonating}", "refused"]),
            "where, in the message",
        ),
        (quiet < tests.len(), "a test that fires"),
        (quiet >= 2, "two tests that stay silent: a near miss, a benign look-alike"),
    ];
    parts.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
}

#[test]
fn every_detector_says_what_it_must() {
    let abouts = abouts();
    let lacking: Vec<String> = abouts
        .iter()
        .map(|about| (about, gaps(about)))
        .filter(|(_, gaps)| !gaps.is_empty())
        .map(|(about, gaps)| format!("{} lacks {}", about.name, gaps.join(", ")))
        .collect();
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    let ids: BTreeSet<_> = abouts.iter().map(|about| about.id.clone()).collect();
    assert_eq!(ids.len(), abouts.len(), "an id stands twice");
}

/// How severe each detector is, grades aside. A level is what people filter and page by: changing one is a decision, which
/// shows here.
const LEVELS: &[(Level, &str)] = &[
    (
        Level::Critical,
        "authn/anonymous-write authn/authn-config-tamper exec/kubelet-exec-via-node-proxy exec/reverse-shell \
         rbac/anonymous-subject-bound runtime/binary-drift runtime/container-escape runtime/crypto-mining \
         runtime/fileless-execution runtime/kernel-and-bpf runtime/reverse-shell sa-token/token-privileged-target",
    ),
    (
        Level::High,
        "authn/anonymous-allowed authn/bootstrap-identity-misuse authn/failed-then-success authn/outside-known-cidr \
         authn/system-principal-public-ip authn/threat-intel-source corr/exec-then-runtime-alert exec/cloud-metadata \
         exec/exec-system-namespace exec/multi-namespace-spray exec/multi-pod-spray exec/node-debug-pod \
         exec/recon-or-escape-command exec/sa-token-theft exec/same-command-spray exec/sensitive-file-read \
         impersonation/privileged-target pod-security/dangerous-capability pod-security/host-namespaces \
         pod-security/hostpath-pv pod-security/hostpath-sensitive pod-security/privileged \
         rbac/aggregation-label-injection rbac/broad-group-bound rbac/cluster-admin-binding \
         rbac/escalation-verbs-granted rbac/node-proxy-granted rbac/self-grant rbac/system-role-modified \
         rbac/wildcard-role runtime/app-spawned-shell runtime/cloud-credential-search runtime/credential-file-read \
         runtime/data-destruction runtime/host-persistence runtime/local-privilege-escalation runtime/log-tamper \
         runtime/packet-capture runtime/sensitive-host-path-access sa-token/token-long-lived \
         sa-token/token-secret-created secret/cluster-wide-list secret/mass-delete-one-by-one secret/mass-delete \
         secret/node-reads-secret secret/watchlist-dump",
    ),
    (
        Level::Medium,
        "authn/anonymous-probe-burst authn/anonymous-probe-paths authn/forwarded-for-spoofed \
         exec/api-proxy-to-service exec/download-tool exec/ephemeral-container exec/exec-by-service-account \
         exec/interactive-shell exec/kubectl-cp-drop exec/kubectl-cp-exfil exec/port-forward-sensitive \
         exec/websocket-create-denied impersonation/denied pod-security/psa-enforce-denied \
         pod-security/security-profile-weakened rbac/control-lever-granted rbac/default-sa-bound \
         rbac/escalation-denied rbac/pod-exec-granted rbac/privileged-builtin-binding rbac/sa-writes-rbac \
         rbac/secret-read-granted recon/denied-burst runtime/env-of-other-process runtime/file-copy-via-api \
         runtime/filesystem-change runtime/network-tool runtime/outbound-unexpected runtime/package-manager \
         runtime/ptrace runtime/risky-container-started runtime/shell-in-container \
         sa-token/created-in-system-namespace sa-token/human-tool-with-sa sa-token/token-requested \
         secret/bootstrap-token-created secret/credential-in-configmap secret/credential-in-env \
         secret/denied-probe-namespaces secret/denied-probe secret/high-value-name-read secret/impersonated-read \
         secret/mass-get-namespaces secret/mass-get secret/sa-reads-foreign-namespace secret/scripted-client-read \
         secret/secretproviderclass-tamper secret/sensitive-namespace-list",
    ),
    (
        Level::Low,
        "exec/attach exec/pod-exec exec/port-forward pod-security/psa-violation-audited runtime/api-server-contact \
         runtime/recon-or-decode sa-token/legacy-token-used secret/secret-changed",
    ),
    (Level::Informational, "rbac/activity rbac/write-role-created runtime/unmapped-rule"),
];

#[test]
fn levels_are_those_that_were_decided() {
    let decided: BTreeMap<&str, Level> = LEVELS
        .iter()
        .flat_map(|(level, names)| names.split_whitespace().map(|name| (name, *level)))
        .collect();
    let abouts = abouts();
    let found: BTreeMap<&str, Level> =
        abouts.iter().map(|about| (about.name.as_str(), about.level)).collect();
    assert_eq!(found, decided);
}

/// Selections of a document, each of the maps that it is made of.
fn selections(document: &yaml_serde::Value) -> Vec<(String, yaml_serde::Mapping)> {
    let detection = document.get("detection").and_then(yaml_serde::Value::as_mapping);
    let named =
        detection.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value)));
    let maps = named.flat_map(|(name, value)| {
        let many = value.as_sequence().cloned().unwrap_or_else(|| vec![value.clone()]);
        many.into_iter().filter_map(move |one| Some((name.clone(), one.as_mapping()?.clone())))
    });
    maps.collect()
}

/// An actor is who is impersonated: whoever may impersonate a controller must not be excused as one.
#[test]
fn nobody_is_excused_by_impersonation() {
    use serde::Deserialize;
    let mut open = Vec::new();
    for file in rules::catalogue() {
        for document in yaml_serde::Deserializer::from_str(&file.yaml) {
            let document = yaml_serde::Value::deserialize(document).unwrap();
            let condition =
                document.get("grade").is_some_and(|grade| format!("{grade:?}").contains("not borrowed"));
            for (name, selection) in selections(&document) {
                let excuses =
                    ["benign", "known", "routine", "operator"].iter().any(|word| name.starts_with(word));
                let by_name =
                    selection.get("actor.name").is_some_and(|actor| format!("{actor:?}").contains("system:"));
                if excuses && by_name && !condition && !selection.contains_key("actor.impersonating") {
                    open.push(format!("{}: {name}", file.name));
                }
            }
        }
    }
    assert!(open.is_empty(), "{}", open.join("\n"));
}
