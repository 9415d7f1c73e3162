//! Percent-encoding of URIs.

use std::borrow::Cow;

/// Decodes once; with `plus`, a plus sign is a space. What is no valid escape stays as it is, and the second value is false.
/// Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn decode(text: &str, plus: bool) -> (Cow<'_, str>, bool) {
    let coded = text.contains('%') || (plus && text.contains('+'));
    if !coded {
        return (Cow::Borrowed(text), true);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (mut decoded, mut valid) = (Vec::with_capacity(text.len()), true);
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let escape = after.split_first_chunk().filter(|_| *byte == b'%');
        let escaped =
            escape.and_then(|([high, low], after)| Some((digit(*high)? << 4 | digit(*low)?, after)));
        decoded.push(match (byte, escaped) {
            (_, Some((escaped, after))) => {
                rest = after;
                escaped as u8
            }
            (b'+', None) if plus => b' ',
            (byte, None) => {
                valid &= *byte != b'%';
                *byte
            }
        });
    }
    (Cow::Owned(String::from_utf8_lossy(&decoded).into_owned()), valid)
}
