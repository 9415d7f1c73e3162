//! Names that promise a credential, and values that are none.

/// What a name promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// A password: any value is one.
    Password,
    /// A key or a token.
    Random,
    /// The header `Authorization`: a scheme, then the credential.
    Authorization,
    /// The header `Cookie`: pairs, separated by semicolons.
    Cookie,
}

/// Bytes of a name that are looked at, from its end.
const LONGEST: usize = 64;

const PASSWORDS: [&str; 7] = ["password", "passwords", "passwd", "passphrase", "passcode", "pwd", "pass"];
/// Words that end as a password's name does.
const NO_PASSWORDS: [&str; 4] = ["bypass", "compass", "trespass", "encompass"];
const RANDOM: [&str; 28] = [
    "accesskey",
    "accesskeyid",
    "accountkey",
    "apikey",
    "authkey",
    "bearer",
    "connectionstring",
    "credential",
    "credentials",
    "encryptionkey",
    "githubpat",
    "jwt",
    "masterkey",
    "privatekey",
    "secret",
    "secretid",
    "secretkey",
    "secretkeybase",
    "sessionkey",
    "sharedkey",
    "signature",
    "signingkey",
    "storagekey",
    "token",
    "masterauth",
    "rediscliauth",
    "functionskey",
    "subscriptionkey",
];

/// What a name promises: by its end, in any case, whatever separates its words.
pub(super) fn promise(name: &[u8]) -> Option<Promise> {
    let mut buffer = [0; LONGEST];
    let mut length = 0;
    for byte in name[name.len().saturating_sub(LONGEST)..].iter().filter(|byte| byte.is_ascii_alphanumeric())
    {
        buffer[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let plain = &buffer[..length];
    // Most names end in none of the letters that these end in.
    if !matches!(plain.last()?, b'd' | b'e' | b'g' | b'h' | b'l' | b'n' | b'r' | b's' | b't' | b'y') {
        return None;
    }
    let ends = |endings: &[&str]| endings.iter().any(|ending| plain.ends_with(ending.as_bytes()));
    if ends(&PASSWORDS) && !ends(&NO_PASSWORDS) {
        return Some(Promise::Password);
    }
    match plain {
        b"authorization" | b"proxyauthorization" => Some(Promise::Authorization),
        b"cookie" | b"setcookie" => Some(Promise::Cookie),
        _ => ends(&RANDOM).then_some(Promise::Random),
    }
}

/// Parameters of a URL's query that hold a credential under a name that promises none elsewhere.
pub(super) fn is_query_secret(name: &[u8]) -> bool {
    ["key", "sig", "code", "auth"].iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

/// True for `PWD=/app` and `OLDPWD`, where the working directory stands.
pub(super) fn is_directory(name: &[u8], value: &[u8]) -> bool {
    value.starts_with(b"/") && (name.eq_ignore_ascii_case(b"pwd") || name.eq_ignore_ascii_case(b"oldpwd"))
}

/// True for what stands in a credential's place and is none: references to variables and commands, and plain words.
pub(super) fn is_placeholder(value: &str) -> bool {
    const PLAIN: [&str; 8] = ["true", "false", "null", "nil", "none", "yes", "no", "-"];
    let variable = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    value.is_empty()
        || value.starts_with(super::REDACTED)
        || value.starts_with("$(")
        || value.starts_with("${")
        || value.strip_prefix('$').is_some_and(variable)
        || PLAIN.contains(&value)
}

/// True if a word is more likely a key or a token than a word of a sentence.
pub(super) fn is_random(value: &str) -> bool {
    let value = value.trim_end_matches(['.', ',', ':']);
    let has = |what: fn(&u8) -> bool| value.bytes().any(|byte| what(&byte));
    let mixed = has(u8::is_ascii_lowercase) && value.bytes().skip(1).any(|byte| byte.is_ascii_uppercase());
    value.len() >= 4 && (has(u8::is_ascii_digit) || mixed || value.len() >= 20 || value.contains('.'))
}

/// True for the port numbers that follow `-p`: `8080`, `22,80`, `8080:80`, `1-1024`.
pub(super) fn is_ports(value: &str) -> bool {
    let parts = value.split([',', ':', '-', '/']);
    parts.into_iter().all(|part| part.len() <= 5 && part.bytes().all(|byte| byte.is_ascii_digit()))
}
