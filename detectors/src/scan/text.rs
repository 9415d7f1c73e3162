//! Strings and numbers: what stands between two quotes, decoded, and what a JSON number looks like.

use std::borrow::Cow;

/// Decodes the inside of a JSON string literal; borrowed when there is nothing to decode.
///
/// Never fails: invalid UTF-8 becomes U+FFFD as in [`String::from_utf8_lossy`], so does half of a surrogate pair, and an
/// escape that JSON does not know stays as it is written.
pub fn unescape(raw: &[u8]) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', raw) else {
        return std::str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Borrowed);
    };
    let mut decoded = Vec::with_capacity(raw.len());
    let (mut from, mut at) = (0, first);
    loop {
        decoded.extend_from_slice(&raw[from..at]);
        // A backslash is followed by at least its own bytes again when the escape is unknown, so `at` always moves on.
        let (char, length) = escape(&raw[at..]);
        match char {
            Some(char) => decoded.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            None => decoded.extend_from_slice(&raw[at..at + length]),
        }
        from = at + length;
        match memchr::memchr(b'\\', &raw[from..]) {
            Some(next) => at = from + next,
            None => break,
        }
    }
    decoded.extend_from_slice(&raw[from..]);
    // An escape gives a whole character, which neither completes nor continues the bytes around it; so decoding the
    // escapes first changes nothing in what is invalid.
    match String::from_utf8_lossy(&decoded) {
        Cow::Owned(mended) => Cow::Owned(mended),
        Cow::Borrowed(_) => Cow::Owned(String::from_utf8(decoded).unwrap_or_default()),
    }
}

/// The character of the escape that `raw` begins with, if JSON knows it, and the length of its spelling.
fn escape(raw: &[u8]) -> (Option<char>, usize) {
    let char = match raw.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(raw),
        _ => return (None, 1),
    };
    (Some(char), 2)
}

fn unicode_escape(raw: &[u8]) -> (Option<char>, usize) {
    let Some(unit) = code_unit(raw) else { return (None, 1) };
    if let Some(char) = char::from_u32(unit) {
        return (Some(char), 6);
    }
    if unit < 0xdc00
        && let Some(second @ 0xdc00..=0xdfff) = code_unit(&raw[6..])
    {
        let code = 0x1_0000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code), 12);
    }
    (Some(char::REPLACEMENT_CHARACTER), 6)
}

/// The value of `\uXXXX` at the beginning of `raw`.
fn code_unit(raw: &[u8]) -> Option<u32> {
    let digits = raw.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
}

/// True if `raw` is a number as JSON spells it: no leading zeros, no plus sign, digits on both sides of the point.
pub(super) fn is_number(raw: &[u8]) -> bool {
    let digits = |raw: &[u8]| raw.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let raw = raw.strip_prefix(b"-").unwrap_or(raw);
    let whole = digits(raw);
    if whole == 0 || (whole > 1 && raw[0] == b'0') {
        return false;
    }
    let mut rest = &raw[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length != 0 && length == exponent.len();
    }
    rest.is_empty()
}
