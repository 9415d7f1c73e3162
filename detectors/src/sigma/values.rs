//! Values of items: wildcards, encodings, placeholders; to patterns.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rsigma_parser::{SigmaString, SpecialChar, StringPart};
use yaml_serde::Value;

use super::modifiers::{Encoding, Operator, Plan};
use crate::program::{Compare, Expression, Glob, Pattern, Piece, fold};
use crate::settings::{Settings, parse_network};

/// Alternatives that `windash` or `expand` may make of one value.
const MAX_ALTERNATIVES: usize = 10_000;
/// What may stand for a dash on a command line.
const DASHES: [&str; 5] = ["-", "/", "\u{2013}", "\u{2014}", "\u{2015}"];

/// The patterns of one value, any of which may match. Regular expressions that are `trusted` are not compiled yet.
pub(super) fn patterns(
    plan: &Plan,
    value: &Value,
    cased: bool,
    trusted: bool,
) -> Result<Vec<Pattern>, String> {
    if let Some(part) = plan.time {
        let compare = if let Operator::Number(compare) = plan.operator { compare } else { Compare::Eq };
        return Ok(vec![Pattern::Time(part, compare, number(value)?)]);
    }
    match plan.operator {
        Operator::Number(compare) => Ok(vec![Pattern::Number(compare, number(value)?)]),
        Operator::Regex => regex(plan, value, trusted).map(|p| vec![p]),
        Operator::Cidr => match value {
            Value::String(text) => Ok(vec![Pattern::Cidr(parse_network(text)?)]),
            _ => Err("`cidr` takes an address or a block, as text".into()),
        },
        _ => texts(plan, value, cased),
    }
}

fn number(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n| n.is_finite()).ok_or_else(|| format!("{} is no number", scalar_text(value)))
}

fn regex(plan: &Plan, value: &Value, trusted: bool) -> Result<Pattern, String> {
    let Value::String(text) = value else { return Err("`re` takes a regular expression, as text".into()) };
    if trusted {
        return Ok(Pattern::Regex(Box::new(Expression::trusted(text, plan.flags))));
    }
    match Expression::new(text, plan.flags) {
        Ok(expression) => Ok(Pattern::Regex(Box::new(expression))),
        Err(regex::Error::CompiledTooBig(_)) => Err("the regular expression is too large".into()),
        Err(error) => {
            // The last line of the parser's drawing is the reason.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(format!("`{text}` is no regular expression: {reason}"))
        }
    }
}

/// Patterns of a value that is compared as text, or as what it is if nothing but equality is asked for.
fn texts(plan: &Plan, value: &Value, cased: bool) -> Result<Vec<Pattern>, String> {
    let as_it_is = plan.operator == Operator::Equals && plan.encodings.is_empty();
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null if as_it_is => return Ok(vec![Pattern::Null]),
        Value::Bool(b) if as_it_is => return Ok(vec![Pattern::Bool(*b)]),
        Value::Number(number) if as_it_is => {
            let float = || number.as_f64().map(Pattern::Float);
            return number
                .as_i64()
                .map(Pattern::Int)
                .or_else(float)
                .map(|p| vec![p])
                .ok_or("no number".into());
        }
        Value::Number(_) | Value::Bool(_) => scalar_text(value),
        _ => return Err("null can only be compared for equality".into()),
    };
    let mut alternatives = if plan.windash { windash(&text)? } else { vec![text] };
    let encoded = !plan.encodings.is_empty();
    if encoded {
        let mut out = Vec::new();
        for text in alternatives {
            out.extend(encode(&text, &plan.encodings)?);
        }
        alternatives = out;
    }
    let pieces = |text: String| if encoded { vec![Piece::Literal(text)] } else { pieces(&text) };
    Ok(alternatives.into_iter().map(|text| pattern(plan.operator, pieces(text), cased)).collect())
}

/// The pieces of a text with wildcards.
fn pieces(text: &str) -> Vec<Piece> {
    let parts = SigmaString::new(text).parts.into_iter();
    parts
        .map(|part| match part {
            StringPart::Plain(text) => Piece::Literal(text),
            StringPart::Special(SpecialChar::WildcardSingle) => Piece::One,
            StringPart::Special(SpecialChar::WildcardMulti) => Piece::Many,
        })
        .collect()
}

/// The simplest pattern for a text with wildcards under an operator.
fn pattern(operator: Operator, mut pieces: Vec<Piece>, cased: bool) -> Pattern {
    if matches!(operator, Operator::Contains | Operator::EndsWith) {
        pieces.insert(0, Piece::Many);
    }
    if matches!(operator, Operator::Contains | Operator::StartsWith) {
        pieces.push(Piece::Many);
    }
    pieces.dedup_by(|a, b| *a == Piece::Many && *b == Piece::Many);
    if !cased {
        for piece in &mut pieces {
            if let Piece::Literal(text) = piece {
                *text = fold(text);
            }
        }
    }
    match pieces.as_mut_slice() {
        [] => Pattern::Exact(String::new()),
        [Piece::Many] => Pattern::Anything,
        [Piece::Literal(text)] => Pattern::Exact(std::mem::take(text)),
        [Piece::Literal(text), Piece::Many] => Pattern::Prefix(std::mem::take(text)),
        [Piece::Many, Piece::Literal(text)] => Pattern::Suffix(std::mem::take(text)),
        [Piece::Many, Piece::Literal(text), Piece::Many] => Pattern::contains(text),
        pieces => Pattern::Glob(Glob::new(pieces)),
    }
}

/// The text with each dash that begins a word written in every way.
fn windash(text: &str) -> Result<Vec<String>, String> {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut alternatives = vec![String::new()];
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if matches!(c, '-' | '/') && !word(before) && word(chars.peek().copied()) {
            alternatives =
                alternatives.iter().flat_map(|a| DASHES.map(|dash| format!("{a}{dash}"))).collect();
            if alternatives.len() > MAX_ALTERNATIVES {
                return Err("too many dashes for `windash`".into());
            }
        } else {
            for alternative in &mut alternatives {
                alternative.push(c);
            }
        }
        before = Some(c);
    }
    Ok(alternatives)
}

/// A text without wildcards, encoded step by step.
fn encode(text: &str, encodings: &[Encoding]) -> Result<Vec<String>, String> {
    let parsed = SigmaString::new(text);
    let plain = parsed.as_plain().ok_or("a text with wildcards cannot be encoded; escape them with `\\`")?;
    let mut bytes = plain.into_bytes();
    for encoding in encodings {
        let text = String::from_utf8_lossy(&bytes);
        bytes = match encoding {
            Encoding::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            Encoding::Utf16 => {
                let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
                units.flat_map(u16::to_le_bytes).collect()
            }
            Encoding::Base64 => return Ok(vec![STANDARD.encode(&bytes)]),
            Encoding::Base64Offset => return Ok((0..3).map(|offset| base64_at(&bytes, offset)).collect()),
        };
    }
    let text =
        String::from_utf8(bytes).map_err(|_| "this UTF-16 is no text; add `base64` or `base64offset`")?;
    Ok(vec![text])
}

/// What of the Base64 form of `bytes` does not depend on what stands before and after it, `offset` bytes into a group.
fn base64_at(bytes: &[u8], offset: usize) -> String {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(bytes);
    let text = STANDARD_NO_PAD.encode(&padded);
    let from = [0, 2, 3][offset];
    let to = text.len() - usize::from(!padded.len().is_multiple_of(3));
    text.get(from..to).unwrap_or_default().to_owned()
}

/// The text with each `%name%` replaced by each entry of that list. Names of lists that the config lacks go to `missing`.
pub(super) fn expand(
    text: &str,
    settings: &Settings,
    missing: &mut BTreeSet<String>,
) -> Result<Vec<String>, String> {
    let mut alternatives = vec![String::new()];
    let mut rest = text;
    let mut replaced = false;
    while let Some((before, name, after)) = placeholder(rest) {
        let Some(entries) = list(settings, name) else {
            missing.insert(name.to_owned());
            return Ok(Vec::new());
        };
        alternatives = alternatives
            .iter()
            .flat_map(|a| entries.iter().map(move |entry| format!("{a}{before}{entry}")))
            .collect();
        if alternatives.len() > MAX_ALTERNATIVES {
            return Err(format!("`{text}` expands to more than {MAX_ALTERNATIVES} values"));
        }
        rest = after;
        replaced = true;
    }
    if !replaced {
        return Err(format!("`expand` finds no %name% in `{text}`"));
    }
    for alternative in &mut alternatives {
        alternative.push_str(rest);
    }
    Ok(alternatives)
}

/// A list that is configured and not empty, or has a default.
fn list<'s>(settings: &'s Settings, name: &str) -> Option<&'s [String]> {
    let entries = match settings.lists.get(name) {
        Some(entries) => entries,
        None if name == "platform_namespaces" => &settings.platform_namespaces,
        None => return None,
    };
    (!entries.is_empty()).then_some(entries)
}

/// The first `%name%` of a text, and what stands before and after it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('%')?;
    let (name, after) = rest.split_once('%')?;
    let named =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    named.then_some((before, name, after))
}

/// An item as a rule writes it. Different items have different texts.
pub(super) fn item_text(key: &str, values: &[Value]) -> String {
    let key = if key.is_empty() { "keywords" } else { key };
    match values {
        [value] => format!("{key}: {}", scalar_text(value)),
        values => {
            let values: Vec<_> = values.iter().map(scalar_text).collect();
            format!("{key}: [{}]", values.join(", "))
        }
    }
}

/// A scalar, in quotes if it is text that would read as something else.
fn scalar_text(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let bare = |c: char| c.is_alphanumeric() || "-_./*?%\\@".contains(c);
            let inner = |c: char| bare(c) || c == ':' || c == ' ';
            let odd = text.is_empty()
                || !text.chars().all(inner)
                || text.starts_with([' ', ':'])
                || text.ends_with([' ', ':'])
                || text.contains(": ")
                || text.parse::<f64>().is_ok()
                || ["null", "true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word));
            if odd { format!("'{}'", text.replace('\'', "''")) } else { text.clone() }
        }
        _ => "?".into(),
    }
}
