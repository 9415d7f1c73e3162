//! What must not leave: patterns of credentials in commands, URIs and Falco's fields.
//!
//! Facts that could hold a secret whole (a Secret's data, a token response, `env[].value`, `last-applied-configuration`) have
//! no way into an alert; this scrub is for text that may hold one by accident.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex, RegexSet};

use crate::percent;

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Credentials by their own form. Each pattern keeps its first group before, and its second group after, what is replaced.
const TOKENS: &[&str] = &[
    // PEM blocks, also cut ones and those with escaped newlines
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)",
    // JSON web tokens
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*",
    // cloud and vendor keys by prefix: AWS, Google, GitHub, GitLab, Slack, Stripe, npm, Vault
    r"\b(?:AKIA|ASIA|AGPA|AROA|AIDA)[A-Z0-9]{12,}\b",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\bya29\.[A-Za-z0-9_-]{10,}",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bglpat-[A-Za-z0-9_-]{16,}",
    r"\bxox[abeoprs]-[A-Za-z0-9-]{8,}",
    r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{10,}",
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\bhv[bs]\.[A-Za-z0-9_-]{16,}",
    r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(@)",
];

/// Credentials by what stands before them, in commands, URIs and other free text.
const PHRASES: &[&str] = &[
    r"\bsk-[A-Za-z0-9_-]{20,}",
    r"(?i)(\bsig=)[^&\s]{16,}",
    r"(?i)(\bBearer(?:\s|%20|\+)+)[A-Za-z0-9._~+/=-]{4,}",
    r#"(?i)(\bAuthorization["']?\s*[:=]\s*["']?(?:(?:Basic|Bearer|Digest|Token)\s+)?)[^\s"']+"#,
    r"(?i)(\bBasic\s+)[A-Za-z0-9+/]{8,}={1,2}",
    // name=value and name: value
    r#"(?i)([\w.-]*(?:pass|passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)s?["']?\s?(?:=|%3[dD]|:)\s?["']?)[^\s"'&;|]+"#,
    r#"(?i)([\w.-]*(?:secret|token|api|access|private)[\w.-]*(?:_?key|_id|_token)["']?\s?(?:=|%3[dD]|:|\s)\s?["']?)[^\s"'&;|]{8,}"#,
    // --name value, and names of secrets that need no dash
    r#"(?i)(--?(?:[\w-]*(?:password|passwd|passphrase|secret|token|api-?key|access-?key))\s+["']?)[^\s"'&;|-][^\s"'&;|]*"#,
    r"(--from-literal[= ][^=\s]+=)\S+",
    r"(\bvault\s+login\s+(?:-[\w-]+(?:=\S+)?\s+)*)[^\s-]\S*",
    r"(\bsshpass\s+-p\s+)\S+",
    r"(\bredis-cli\b[^|;&]*?\s-a\s+)\S+",
    r"(\bldap\w+\b[^|;&]*?\s-w\s+)\S+",
    // curl -u user:password
    r#"((?:^|\s)(?:-u|--user)[\s=]?["']?[^\s:"']+:)[^\s"']+"#,
    // mysql -pvalue
    r"((?:^|\s)-p)([^\s=/][^\s]*)",
];

/// Options of everyday programs that begin as `-pVALUE` does.
const NO_PASSWORDS: [&str; 16] = [
    "erm", "ass", "rint", "rint0", "rintf", "rune", "ath", "ort", "roto", "id", "idfile", "eer", "refix",
    "ipe", "od", "olicy",
];

/// Patterns, as a set and one by one.
struct Patterns {
    set: RegexSet,
    each: Vec<Regex>,
}

impl Patterns {
    fn new(patterns: &[&str]) -> Patterns {
        let one = |p: &&str| Regex::new(p).expect("the patterns are constants and tested");
        Patterns {
            set: RegexSet::new(patterns).expect("the patterns are constants and tested"),
            each: patterns.iter().map(one).collect(),
        }
    }

    fn replace<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = Cow::Borrowed(text);
        for pattern in self.set.matches(text) {
            let replaced = self.each[pattern].replace_all(&out, replacement);
            out = Cow::Owned(replaced.into_owned());
        }
        out
    }
}

fn replacement(found: &Captures<'_>) -> String {
    let kept = |group| found.get(group).map_or("", |kept| kept.as_str());
    match kept(2) {
        word if kept(1).ends_with("-p") && NO_PASSWORDS.contains(&word) => found[0].to_owned(),
        _ if kept(1).ends_with("-p") => format!("{}{REDACTED}", kept(1)),
        after => format!("{}{REDACTED}{after}", kept(1)),
    }
}

static BY_FORM: LazyLock<Patterns> = LazyLock::new(|| Patterns::new(TOKENS));
static BY_PHRASE: LazyLock<Patterns> = LazyLock::new(|| Patterns::new(PHRASES));

/// True if a raw path leads to where secrets are kept: a Secret's data, tokens, values of environment variables, what
/// kubectl last applied.
pub fn is_secret_path(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let body = path.starts_with("requestobject") || path.starts_with("responseobject");
    let held = ["data", "stringdata", "token", "value", "env"];
    body && (path.contains("last-applied") || path.split(['.', '[']).any(|part| held.contains(&part)))
}

/// Replaces what is a credential by its own form. For names: words in them mean nothing.
pub fn tokens(text: &str) -> Cow<'_, str> {
    BY_FORM.replace(text)
}

/// Replaces credentials in free text by [`REDACTED`].
pub fn scrub(text: &str) -> Cow<'_, str> {
    match BY_FORM.replace(text) {
        Cow::Borrowed(text) => BY_PHRASE.replace(text),
        Cow::Owned(text) => Cow::Owned(BY_PHRASE.replace(&text).into_owned()),
    }
}

/// A request URI for showing: commands joined and scrubbed, other query values scrubbed, the path scrubbed.
pub fn uri(raw: &str) -> String {
    let Some((path, query)) = raw.split_once('?') else { return scrub(raw).into_owned() };
    let mut commands = Vec::new();
    let mut kept = Vec::new();
    for pair in query.split('&').take(1024) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if matches!(name, "command" | "cmd") {
            commands.push(percent::decode(value, true).0);
        } else {
            kept.push(scrub_pair(name, value));
        }
    }
    if !commands.is_empty() {
        kept.insert(0, format!("command={}", scrub(&commands.join(" "))));
    }
    format!("{}?{}", scrub(path), kept.join("&"))
}

fn scrub_pair(name: &str, value: &str) -> String {
    let pair = format!("{name}={}", percent::decode(value, true).0);
    match scrub(&pair) {
        Cow::Borrowed(_) => format!("{name}={value}"),
        Cow::Owned(scrubbed) => scrubbed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_replaced() {
        for (text, expected) in [
            ("mysql -uroot -phunter2 shop", "mysql -uroot -p[redacted] shop"),
            ("curl -H Authorization: Bearer abc.def", "curl -H Authorization: Bearer [redacted]"),
            ("psql postgres://app:s3cret@db/shop", "psql postgres://app:[redacted]@db/shop"),
            ("export AWS_SECRET_ACCESS_KEY=abcd1234", "export AWS_SECRET_ACCESS_KEY=[redacted]"),
            ("vault login --token s.12345", "vault login --token [redacted]"),
            ("x AKIAABCDEFGHIJKLMNOP y", "x [redacted] y"),
            ("t=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln end", "t=[redacted] end"),
            ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a [redacted] b"),
            ("curl -u dana:pw https://x/", "curl -u dana:[redacted] https://x/"),
            ("sshpass -p hunter2 ssh db", "sshpass -p [redacted] ssh db"),
            ("DB_PASS=hunter2 ./run", "DB_PASS=[redacted] ./run"),
            (
                "kubectl create secret generic x --from-literal=k=v",
                "kubectl create secret generic x --from-literal=k=[redacted]",
            ),
            (
                "aws configure set aws_secret_access_key abcdefgh12345",
                "aws configure set aws_secret_access_key [redacted]",
            ),
            ("redis-cli -h db -a hunter2 ping", "redis-cli -h db -a [redacted] ping"),
            ("vault login s.abc", "vault login [redacted]"),
            ("curl -H 'Authorization: Basic aGk6aG8=' x", "curl -H 'Authorization: Basic [redacted]' x"),
        ] {
            assert_eq!(scrub(text), expected);
        }
    }

    #[test]
    fn names_digests_and_ids_are_kept() {
        for text in [
            "0b7c6a2e-6a53-4f0e-9d0a-5e1f0a5b2c11",
            "registry.example.com/app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "system:serviceaccount:kube-system:token-cleaner",
            "/api/v1/namespaces/shop/serviceaccounts/ci/token",
            "cat /var/run/secrets/kubernetes.io/serviceaccount/token",
            "kubectl/v1.34.0 (linux/amd64) kubernetes/abcdef0",
            "Basic Interactive Reconnaissance",
            "find / -perm -4000 -print",
        ] {
            assert_eq!(scrub(text), text);
        }
    }

    #[test]
    fn uris_show_commands_scrubbed() {
        let raw = "/api/v1/namespaces/a/pods/b/exec?command=mysql&command=-phunter2&container=c&stdin=true";
        assert_eq!(
            uri(raw),
            "/api/v1/namespaces/a/pods/b/exec?command=mysql -p[redacted]&container=c&stdin=true"
        );
        assert_eq!(uri("/x?access_token=abc&limit=5"), "/x?access_token=[redacted]&limit=5");
    }
}
