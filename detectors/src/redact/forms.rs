//! Credentials by their own form: keys, tokens and URLs that give themselves away wherever they stand.

use memchr::memmem;

use super::Cuts;

/// A credential that begins with a known prefix.
struct Form {
    prefix: &'static str,
    /// What may follow the prefix.
    alphabet: fn(u8) -> bool,
    /// How much of it must.
    least: usize,
    /// True if no letter or digit may follow.
    whole: bool,
}

const fn form(prefix: &'static str, alphabet: fn(u8) -> bool, least: usize) -> Form {
    Form { prefix, alphabet, least, whole: false }
}

const fn aws(prefix: &'static str) -> Form {
    Form { prefix, alphabet: upper, least: 12, whole: true }
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn url_safe(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    url_safe(byte) || byte == b'.'
}

fn dashed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// Keys of AWS, Google, GitHub, GitLab, Slack, Stripe, Anthropic, OpenAI, npm, Vault, SendGrid, DigitalOcean, age; and private
/// keys in PEM that were encoded once more. Shorter and looser than what `secret.*` facts take for a credential: a cut key must
/// not leave, but is nothing to raise an alarm for.
const FORMS: &[Form] = &[
    aws("AKIA"),
    aws("ASIA"),
    aws("AGPA"),
    aws("AROA"),
    aws("AIDA"),
    form("AIza", url_safe, 30),
    form("ya29.", url_safe, 10),
    form("ghp_", alphanumeric, 20),
    form("gho_", alphanumeric, 20),
    form("ghu_", alphanumeric, 20),
    form("ghs_", alphanumeric, 20),
    form("ghr_", alphanumeric, 20),
    form("github_pat_", word, 20),
    form("glpat-", url_safe, 16),
    form("xoxa-", dashed, 8),
    form("xoxb-", dashed, 8),
    form("xoxe-", dashed, 8),
    form("xoxo-", dashed, 8),
    form("xoxp-", dashed, 8),
    form("xoxr-", dashed, 8),
    form("xoxs-", dashed, 8),
    form("sk_live_", alphanumeric, 10),
    form("sk_test_", alphanumeric, 10),
    form("rk_live_", alphanumeric, 10),
    form("rk_test_", alphanumeric, 10),
    form("sk-ant-", url_safe, 20),
    form("sk-proj-", url_safe, 20),
    form("npm_", alphanumeric, 30),
    form("hvs.", url_safe, 16),
    form("hvb.", url_safe, 16),
    form("SG.", dotted, 16),
    form("dop_v1_", alphanumeric, 32),
    form("AGE-SECRET-KEY-1", upper, 20),
    form("LS0tLS1CRUdJTiBQUklWQVRFIEtFWS", base64, 0),
    form("LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRV", base64, 0),
    form("LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS", base64, 0),
    form("LS0tLS1CRUdJTiBPUEVOU1NIIFBSSVZBVEUgS0VZ", base64, 0),
];

/// Finds them all in one pass.
pub(super) fn find(text: &str, cuts: &mut Cuts) {
    let bytes = text.as_bytes();
    let mut at = 0;
    // Where the last run of characters that is no JSON web token ends: none begins within it.
    let mut no_jwt = 0;
    while at < bytes.len() {
        let begins = at == 0 || !word(bytes[at - 1]);
        let end = match bytes[at] {
            b':' if bytes[at..].starts_with(b"://") => url(bytes, at + 3, cuts),
            b'-' => pem(bytes, at),
            b'e' if begins && at >= no_jwt => jwt(bytes, at, &mut no_jwt),
            _ if begins && may_begin(&bytes[at..]) => FORMS.iter().find_map(|form| form.end(bytes, at)),
            _ => None,
        };
        if let Some(end) = end {
            cuts.push(at..end);
        }
        at = end.unwrap_or(at + 1);
    }
}

/// True for the first two letters of the forms.
fn may_begin(bytes: &[u8]) -> bool {
    let [first, second, ..] = bytes else { return false };
    match first {
        b'A' => matches!(second, b'G' | b'I' | b'K' | b'R' | b'S'),
        b'L' => *second == b'S',
        b'S' => *second == b'G',
        b'd' | b'x' => *second == b'o',
        b'g' => matches!(second, b'h' | b'i' | b'l'),
        b'h' => *second == b'v',
        b'n' => *second == b'p',
        b'r' | b's' => *second == b'k',
        b'y' => *second == b'a',
        _ => false,
    }
}

impl Form {
    /// The end of the credential that begins here, if one does.
    fn end(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let rest = bytes[at..].strip_prefix(self.prefix.as_bytes())?;
        let length = rest.iter().position(|byte| !(self.alphabet)(*byte)).unwrap_or(rest.len());
        let cut_short = self.whole && rest.get(length).is_some_and(|byte| word(*byte));
        (length >= self.least && !cut_short).then_some(at + self.prefix.len() + length)
    }
}

/// A JSON web token: the header, a dot, and what follows. Also a cut one.
fn jwt(bytes: &[u8], at: usize, no_jwt: &mut usize) -> Option<usize> {
    let run = |from: usize| from + bytes[from..].iter().take_while(|byte| url_safe(**byte)).count();
    if !bytes[at..].starts_with(b"eyJ") {
        return None;
    }
    let header = run(at);
    if header - at < 11 || bytes.get(header) != Some(&b'.') {
        *no_jwt = header;
        return None;
    }
    let payload = run(header + 1);
    Some(if bytes.get(payload) == Some(&b'.') { run(payload + 1) } else { payload })
}

/// A private key in PEM, also a cut one and one with escaped line breaks.
fn pem(bytes: &[u8], at: usize) -> Option<usize> {
    let label = bytes[at..].strip_prefix(b"-----BEGIN ")?;
    let label = &label[..label.len().min(64)];
    let length = label.iter().take_while(|byte| upper(**byte) || **byte == b' ').count();
    memmem::find(&label[..length], b"PRIVATE KEY")?;
    let end =
        |from: usize, what: &[u8]| memmem::find(&bytes[from..], what).map(|found| from + found + what.len());
    let closed = end(at + 11, b"-----END ").and_then(|label| end(label, b"-----"));
    Some(closed.unwrap_or(bytes.len()))
}

/// Cuts the password, or the token that stands for user and password, out of a URL whose authority begins here; what stands
/// around it stays.
fn url(bytes: &[u8], authority: usize, cuts: &mut Cuts) -> Option<usize> {
    let ends = |byte: &u8| {
        byte.is_ascii_whitespace() || matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>')
    };
    let length = bytes[authority..].iter().position(ends).unwrap_or(bytes.len() - authority);
    let user_info =
        &bytes[authority..authority + memchr::memrchr(b'@', &bytes[authority..authority + length])?];
    let end = authority + user_info.len();
    match memchr::memchr(b':', user_info) {
        Some(colon) => cuts.push(authority + colon + 1..end),
        None if is_token(user_info) => cuts.push(authority..end),
        None => {}
    }
    None
}

/// True if what stands for the user is more likely a token: Git's hosts take one there.
fn is_token(user: &[u8]) -> bool {
    let has = |what: fn(&u8) -> bool| user.iter().any(what);
    let varied = has(u8::is_ascii_digit) || (has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase));
    varied && (user.len() >= 20 || (user.len() >= 8 && user.iter().all(|byte| word(*byte))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_may_begin() {
        for form in FORMS {
            assert!(may_begin(form.prefix.as_bytes()), "{}", form.prefix);
        }
    }
}
