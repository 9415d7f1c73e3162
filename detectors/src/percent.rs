//! Percent-encoding of URIs.

use std::borrow::Cow;

/// Decodes once; with `plus`, a plus sign is a space. What is no valid escape stays as it is, and the second value is false.
/// Bytes that are not UTF-8 become U+FFFD.
pub fn decode(text: &str, plus: bool) -> (Cow<'_, str>, bool) {
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
    // What is UTF-8 is not copied again.
    let decoded = String::from_utf8(decoded);
    let decoded = decoded.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    (Cow::Owned(decoded), valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        for (text, plus, decoded, valid) in [
            ("plain", true, "plain", true),
            ("a%2Fb%2fc+d", false, "a/b/c+d", true),
            ("a+%2B", true, "a +", true),
            ("%252F", true, "%2F", true),
            ("%ff", true, "\u{fffd}", true),
            ("50% off+%4", true, "50% off %4", false),
            ("%g1%41", false, "%g1A", false),
        ] {
            assert_eq!(decode(text, plus), (Cow::Borrowed(decoded), valid), "{text}");
        }
    }
}
