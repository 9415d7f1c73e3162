//! What looks like a credential. The answer is a class, never the value.
//!
//! Two kinds of evidence: a value whose form gives it away (a private key, a key with a known prefix, a JWT, a URL with a
//! password, a kubeconfig), and a name that promises a credential together with a value that could be one. The second is
//! guesswork; what keeps it quiet is the list of what is no credential: references to variables and to secret stores,
//! paths, booleans, short numbers, and for names like `token` or `secret` anything that does not look random, because
//! those names mostly hold the names of other objects. A weak default password (`changeme`) is a password.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use memchr::{memchr, memrchr};
use regex::bytes::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// A PEM private key with content, or a file of one as base64.
const PRIVATE_KEY: &str = "private-key";
/// A key or token with the prefix of a cloud or service provider.
const CLOUD_KEY: &str = "cloud-key";
/// A JSON Web Token.
const JWT: &str = "jwt";
/// A URL or connection string that holds a password.
const CONNECTION_STRING: &str = "connection-string";
/// A kubeconfig whose user has a token or a key.
const KUBECONFIG_TOKEN: &str = "kubeconfig-token";
/// A value whose name says that it is a secret.
const PASSWORD: &str = "password";

/// Bytes of one value that are looked at: as many as an object may have where Kubernetes stores it.
pub(super) const LONGEST: usize = 3 << 19;

/// Nothing shorter has one of the forms: `ab://:c@d`.
const SHORTEST_FORM: usize = 9;

/// Values that their form gives away, the most telling first.
const FORMS: &[(&str, &str)] = &[
    (
        PRIVATE_KEY,
        r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\\+[rn]|\s){1,8}[A-Za-z0-9+/]{4}",
    ),
    (
        PRIVATE_KEY,
        r"LS0tLS1CRUdJTi(?:BQUklWQVRFIEtFWS|BSU0EgUFJJVkFURSBLRV|BFQyBQUklWQVRFIEtFWS|BPUEVOU1NIIFBSSVZBVEUgS0VZ)",
    ),
    (PRIVATE_KEY, r"\bAGE-SECRET-KEY-1[0-9A-Z]{20}"),
    (CLOUD_KEY, r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    (CLOUD_KEY, r#"(?i)aws_?secret_?access_?key["']?\s{0,4}[=:]\s{0,4}["']?[a-z0-9/+]{40}"#),
    (CLOUD_KEY, r"\bAIza[0-9A-Za-z_-]{35}"),
    (CLOUD_KEY, r"(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40}"),
    (CLOUD_KEY, r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22}|glpat-[A-Za-z0-9_-]{20})"),
    (CLOUD_KEY, r"\bxox[abprs]-[A-Za-z0-9-]{10}|\b[rs]k_live_[A-Za-z0-9]{16}|\bdop_v1_[a-f0-9]{64}"),
    (CLOUD_KEY, r"\bhvs\.[A-Za-z0-9_-]{20}|\bnpm_[A-Za-z0-9]{36}|\bsk-(?:ant|proj)-[A-Za-z0-9_-]{20}"),
    (CLOUD_KEY, r"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}"),
    (JWT, r"\beyJ[A-Za-z0-9_-]{5,}\.eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{4}"),
];

static FORM_SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSetBuilder::new(FORMS.iter().map(|(_, pattern)| pattern))
        .unicode(false)
        .build()
        .expect("the patterns are constants, which tests compile")
});

static URL_PASSWORD: LazyLock<Regex> = LazyLock::new(|| {
    compile(r#"\b[a-zA-Z][a-zA-Z0-9+.-]{1,30}://[^\s:/@'"]{0,128}:([^\s@/'"]{1,256})@[^\s]"#)
});

/// A password among the settings of a connection string, which names a server too.
static KEYWORD_PASSWORD: LazyLock<Regex> =
    LazyLock::new(|| compile(r#"(?i);\s?(?:password|pwd)\s?=\s?([^;\s"']{1,256})"#));

static KEYWORD_SERVER: LazyLock<Regex> =
    LazyLock::new(|| compile(r"(?i)(?:^|[;\s])(?:server|host|data source)\s?="));

static KUBECONFIG_USER: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r#"(?m)(?:^|[{,\s])["']?(?:token|client-key-data|password)["']?\s{0,4}:\s{0,4}["']?([^\s"'{}\[\],]{8,})"#,
    )
});

/// A setting within a file: `name: value`, `name=value`, `"name": "value"`.
static SETTING: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r#"(?:^|[{,\s])["']?([A-Za-z][A-Za-z0-9_.-]{1,63})["']?\s{0,16}(?:=|:\s|:["'])\s{0,16}["']?([^\s"'#,;{\[][^\s"'#,;]{0,255})"#,
    )
});

/// Credentials are ASCII, and so are the classes of the patterns.
fn compile(pattern: &str) -> Regex {
    RegexBuilder::new(pattern).unicode(false).build().expect("the pattern is a constant, which tests compile")
}

/// The class of a value by its name and its form.
pub(super) fn class(name: &str, value: &str) -> Option<&'static str> {
    let value = head(value);
    form(value).or_else(|| named(name, value.trim()))
}

/// The class of a file's content: as [`class`], or by the settings that it holds.
pub(super) fn class_of_file(name: &str, content: &str) -> Option<&'static str> {
    let content = head(content);
    class(name, content).or_else(|| settings(content))
}

/// At most [`LONGEST`] bytes, to the end of a character.
fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

fn form(value: &str) -> Option<&'static str> {
    if value.len() < SHORTEST_FORM {
        return None;
    }
    if let Some(first) = FORM_SET.matches(value.as_bytes()).iter().next() {
        return FORMS.get(first).map(|(class, _)| *class);
    }
    let kubeconfig = value.contains("clusters") && value.contains("users") && value.contains("contexts");
    if kubeconfig && captured(&KUBECONFIG_USER, value) {
        return Some(KUBECONFIG_TOKEN);
    }
    let url = || value.contains("://") && captured(&URL_PASSWORD, value);
    let keywords = || {
        value.contains(';') && KEYWORD_SERVER.is_match(value.as_bytes()) && captured(&KEYWORD_PASSWORD, value)
    };
    let connects = url() || keywords();
    connects.then_some(CONNECTION_STRING)
}

/// True if the pattern captures something that is no placeholder.
fn captured(pattern: &Regex, value: &str) -> bool {
    let mut found = pattern.captures_iter(value.as_bytes());
    found.any(|captures| !is_placeholder(&group(&captures, 1)))
}

/// What a group captured. A pattern may begin or end within a character that is not ASCII.
fn group<'t>(captures: &Captures<'t>, index: usize) -> Cow<'t, str> {
    captures.get(index).map_or(Cow::Borrowed(""), |group| String::from_utf8_lossy(group.as_bytes()))
}

/// What a name promises.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// A password: any plausible value is one.
    Password,
    /// A token, key or secret: only a value that looks random is one.
    Random(&'static str),
}

/// One of these is in every name that promises a credential.
static PROMISING: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(["pass", "pwd", "key", "token", "credential", "secret"])
        .expect("the words are few constants")
});

fn promise(name: &str) -> Option<Promise> {
    const PASSWORDS: &[&str] = &["password", "passwd", "passphrase", "pwd"];
    const SECRETS: &[&str] = &[
        "accesskey",
        "accesstoken",
        "apikey",
        "authkey",
        "credential",
        "credentials",
        "encryptionkey",
        "privatekey",
        "secret",
        "secretkey",
        "signingkey",
        "token",
    ];
    if !PROMISING.is_match(name) {
        return None;
    }
    let lower = name.to_lowercase();
    let bare: String = lower.chars().filter(|c| !matches!(c, '_' | '-' | '.' | ' ')).collect();
    let ends = |endings: &[&str]| endings.iter().any(|ending| bare.ends_with(ending));
    // "pass" ends other words too.
    let pass = lower == "pass" || ["_pass", "-pass", ".pass"].iter().any(|ending| lower.ends_with(ending));
    if pass || ends(PASSWORDS) {
        Some(Promise::Password)
    } else if bare.ends_with("secretaccesskey") {
        Some(Promise::Random(CLOUD_KEY))
    } else {
        ends(SECRETS).then_some(Promise::Random(PASSWORD))
    }
}

fn named(name: &str, value: &str) -> Option<&'static str> {
    let promise = promise(name)?;
    if value.contains('\n') || is_placeholder(value) {
        return None;
    }
    match promise {
        Promise::Password => (value.chars().count() >= 4).then_some(PASSWORD),
        Promise::Random(class) => looks_random(value).then_some(class),
    }
}

/// Looks for settings in the lines that hold a promising word, but not in comments.
fn settings(content: &str) -> Option<&'static str> {
    let mut at = 0;
    while let Some(word) = PROMISING.find(&content[at..]) {
        let word = at + word.start();
        let start = memrchr(b'\n', &content.as_bytes()[at..word]).map_or(at, |newline| at + newline + 1);
        let end = memchr(b'\n', &content.as_bytes()[word..]).map_or(content.len(), |newline| word + newline);
        if let Some(class) = settings_of(content[start..end].trim_start()) {
            return Some(class);
        }
        at = end;
    }
    None
}

/// Looks for settings in a line. Values that are code (calls, indexing, dotted names, types) are no credentials.
fn settings_of(line: &str) -> Option<&'static str> {
    const COMMENTS: &[&str] = &["#", ";", "//", "--", "*", "/*", "<!--"];
    let code = |value: &str| {
        let dotted =
            value.contains('.') && value.chars().all(|c| c.is_ascii_alphabetic() || c == '.' || c == '_');
        dotted || value.contains(['(', ')', '[', ']', '{', '}', '<', '>', '$', '`', '|'])
    };
    if line.len() < 8 || COMMENTS.iter().any(|mark| line.starts_with(mark)) {
        return None;
    }
    let settings = SETTING.captures_iter(line.as_bytes());
    settings
        .map(|setting| (group(&setting, 1), group(&setting, 2)))
        .filter(|(_, value)| !code(value))
        .find_map(|(name, value)| named(&name, &value))
}

/// True for what stands in for a credential, or is none by its form.
fn is_placeholder(value: &str) -> bool {
    let short_number = || value.len() < 6 && value.bytes().all(|byte| byte.is_ascii_digit());
    let masked = || value.chars().all(|c| value.starts_with(c));
    let path = || value.starts_with('/') && value[1..].contains('/') || value.starts_with("./");
    let bracketed = || value.starts_with('<') && value.ends_with('>');
    let templated = || ["${", "$(", "{{", "%("].iter().any(|mark| value.contains(mark));
    let variable = || {
        value.strip_prefix('$').is_some_and(|name| {
            name.chars().all(|c| {
                c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-' | '{' | '}' | '(' | ')')
            })
        })
    };
    short_number()
        || masked()
        || path()
        || bracketed()
        || variable()
        || templated()
        || value.contains("://")
        || is_word_or_reference(value)
}

/// True for a word that says that nothing is there, and for what points to where the credential is kept.
fn is_word_or_reference(value: &str) -> bool {
    const WORDS: &[&str] = &[
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "enabled",
        "disabled",
        "null",
        "none",
        "nil",
        "undefined",
        "string",
        "required",
        "optional",
        "redacted",
        "[redacted]",
        "<redacted>",
        "~",
    ];
    const REFERENCES: &[&str] = &[
        "vault:",
        "ref+",
        "arn:",
        "secretref:",
        "enc[",
        "file:",
        "env:",
        "@microsoft.keyvault(",
        "gcp:secretmanager:",
    ];
    let begins = |prefix: &&str| {
        value.get(..prefix.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(prefix))
    };
    WORDS.iter().any(|word| value.eq_ignore_ascii_case(word)) || REFERENCES.iter().any(begins)
}

/// True for a word of letters and digits, long and varied enough that nobody would make it up.
fn looks_random(value: &str) -> bool {
    let sample = &value.as_bytes()[..value.len().min(256)];
    let count = |test: fn(&u8) -> bool| sample.iter().filter(|byte| test(byte)).count();
    let digits = count(u8::is_ascii_digit);
    let mixed = count(u8::is_ascii_lowercase) > 0 && count(u8::is_ascii_uppercase) > 0;
    let letters = count(u8::is_ascii_alphabetic);
    let plain = count(u8::is_ascii_graphic) == sample.len();
    plain
        && sample.len() >= 12
        && letters > 0
        && (digits >= 3 || (digits >= 1 && mixed))
        && entropy(sample) >= 3.0
}

/// Shannon entropy in bits per byte.
fn entropy(sample: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let total = sample.len() as f64;
    let share = |count: u32| f64::from(count) / total;
    counts.iter().filter(|count| **count > 0).map(|count| -share(*count) * share(*count).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact;

    #[track_caller]
    fn check(name: &str, value: &str, expected: Option<&str>) {
        assert_eq!(class_of_file(name, value), expected, "{name}: {value}");
    }

    #[test]
    fn forms_give_values_away() {
        check("k", "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n", Some(PRIVATE_KEY));
        check("sa.json", r#"{"private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQ"}"#, Some(PRIVATE_KEY));
        check("k", "AKIAIOSFODNN7EXAMPLE", Some(CLOUD_KEY));
        check("k", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkYW5hIn0.c2lnbmF0dXJl", Some(JWT));
        check("url", "postgres://app:s3cret@db:5432/app", Some(CONNECTION_STRING));
        check("c", "Server=db;Database=x;User Id=sa;Password=hunter2;", Some(CONNECTION_STRING));
        let config = "clusters:\ncontexts:\nusers:\n- name: a\n  user:\n    token: abcdefgh12345678\n";
        check("config", config, Some(KUBECONFIG_TOKEN));
    }

    #[test]
    fn names_and_values_together_make_a_password() {
        check("DB_PASSWORD", "changeme", Some(PASSWORD));
        check("password", "hunter2", Some(PASSWORD));
        check("API_TOKEN", "9f86d081884c7d659a2f", Some(PASSWORD));
        check("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Some(CLOUD_KEY));
        check(
            "app.properties",
            "spring.datasource.url=x\nspring.datasource.password=hunter22\n",
            Some(PASSWORD),
        );
        check("app.json", r#"{"db": {"password": "hunter22"}}"#, Some(PASSWORD));
        check("app.json", r#"{"db":{"password":"hunter22"}}"#, Some(PASSWORD));
        check("values.yaml", "db:\n  password: hunter22\n", Some(PASSWORD));
        check("env.sh", "export DB_PASSWORD=hunter22", Some(PASSWORD));
    }

    #[test]
    fn what_stands_for_a_credential_is_none() {
        check(
            "ca.crt",
            "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIE\n-----END CERTIFICATE-----\n",
            None,
        );
        check("run.sh", "grep -- '-----BEGIN PRIVATE KEY-----' /etc/x", None);
        for value in
            ["", "${DB_PASSWORD}", "$(DB_PASSWORD)", "$DB_PASSWORD", "{{ .Values.pw }}", "<password>"]
        {
            check("DB_PASSWORD", value, None);
        }
        for value in ["true", "yes", "12345", "****", "vault:secret/data/db#pw", "/run/secrets/db/password"] {
            check("DB_PASSWORD", value, None);
        }
        check("DB_PASSWORD_FILE", "hunter2", None);
        check("PASSWORD_MIN_LENGTH", "12", None);
        check("url", "postgres://app:$(DB_PASSWORD)@db/app", None);
        check("url", "https://example.com:8443/a@b", None);
    }

    #[test]
    fn names_of_other_objects_are_no_tokens() {
        check("imagePullSecret", "regcred", None);
        check("existingSecret", "prod-database-secret", None);
        check("TOKEN", "/var/run/secrets/kubernetes.io/serviceaccount/token", None);
        check("Corefile", ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n}\n", None);
        check("a.py", "password = os.environ['PASSWORD']\ntoken = settings.auth.token\n", None);
        check("redis.conf", "# requirepass foobared\n; password = admin\n", None);
        check("kubelet", "authentication:\n  webhook:\n    enabled: true\n", None);
    }

    /// What is worth an alert must not stand in one. The scrub takes more for a credential than this does, and never less.
    #[test]
    fn what_is_a_credential_here_is_scrubbed_from_alerts() {
        let run = "a1B2".repeat(10);
        let upper = "A1B2C3D4E5F6G7H8I9J0";
        let forms = [
            format!("-----BEGIN RSA PRIVATE KEY-----\n{run}"),
            format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n{run}"),
            format!("LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS{run}"),
            format!("AGE-SECRET-KEY-1{upper}"),
            format!("AKIA{}", &upper[..16]),
            format!("ASIA{}", &upper[..16]),
            format!("aws_secret_access_key={run}"),
            format!("AIza{}", &run[..35]),
            format!("AccountKey={run}"),
            format!("SharedAccessKey={run}"),
            format!("ghp_{run}"),
            format!("ghu_{run}"),
            format!("github_pat_{run}"),
            format!("glpat-{run}"),
            format!("xoxb-{run}"),
            format!("sk_live_{run}"),
            format!("dop_v1_{}", "0a".repeat(32)),
            format!("hvs.{run}"),
            format!("npm_{run}"),
            format!("sk-ant-{run}"),
            format!("sk-proj-{run}"),
            format!("SG.{}.{run}", &run[..20]),
            format!("eyJ{run}.eyJ{run}.{run}"),
            format!("postgres://app:{run}@db/app"),
            format!("Server=db;Database=x;Password={run};"),
        ];
        for text in &forms {
            assert!(class("k", text).is_some(), "{text}");
            let shown = redact::scrub(text);
            assert!(!shown.contains(&run[..16]) && !shown.contains(&upper[..16]), "{shown}");
        }
        for name in
            ["password", "passwd", "passphrase", "pwd", "DB_PASS", "accesstoken", "apiKey", "auth-key"]
                .into_iter()
                .chain([
                    "credentials",
                    "encryption_key",
                    "private_key",
                    "client_secret",
                    "signing.key",
                    "TOKEN",
                ])
        {
            let random = "9f86d081884c7d659a2f";
            assert!(class(name, random).is_some(), "{name}");
            assert_eq!(redact::scrub(&format!("{name}={random}")), format!("{name}={}", redact::REDACTED));
        }
    }

    #[test]
    fn all_patterns_compile() {
        assert_eq!(FORM_SET.len(), FORMS.len());
        for pattern in [&URL_PASSWORD, &KEYWORD_PASSWORD, &KUBECONFIG_USER] {
            assert_eq!(pattern.captures_len(), 2);
        }
        assert_eq!(SETTING.captures_len(), 3);
        assert_eq!(KEYWORD_SERVER.captures_len(), 1);
    }
}
