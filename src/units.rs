//! Values of the configuration with a unit or a source of their own: spans of time, sizes, texts from the environment,
//! secrets.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// A span of time as Prometheus writes it: `500ms`, `5s`, `1h30m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// A number of bytes: `2GiB`, `64MiB`, `512KiB`, `10MB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// A text in which `${NAME}` and `${NAME:-otherwise}` stand for variables of the environment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Text(pub(crate) String);

/// A text as it was typed. YAML reads `443` and `true` as other things than text; a list of values means what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar(pub(crate) String);

/// A text that nobody may see: written as it is, as `${NAME}`, or as `file:/path`, which is read when it is needed, so that
/// it can be renewed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Span {
    /// Reads a span.
    pub(crate) fn parse(text: &str) -> Result<Span, String> {
        let wrong = || format!("`{text}` is no span of time: write 500ms, 30s, 5m, 1h30m or 7d");
        let mut rest = text;
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = match &rest[..end] {
                "ms" => Duration::from_millis(1),
                "s" => Duration::from_secs(1),
                "m" => Duration::from_secs(60),
                "h" => Duration::from_secs(3600),
                "d" => Duration::from_secs(86_400),
                _ => return Err(wrong()),
            };
            let part = u32::try_from(number).ok().and_then(|number| unit.checked_mul(number));
            total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            rest = &rest[end..];
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Span(total)) }
    }
}

impl Size {
    /// Reads a size.
    pub(crate) fn parse(text: &str) -> Result<Size, String> {
        let wrong = || format!("`{text}` is no size: write 64MiB, 2GiB, 512KiB, 10MB or a number of bytes");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit: u64 = match text[digits..].trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(Size).ok_or_else(wrong)
    }
}

/// Puts variables of the environment in their places.
fn expand(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let end = inner.find('}').ok_or_else(|| anyhow!("`${{` without its `}}`"))?;
        let (name, otherwise) = match inner[..end].split_once(":-") {
            Some((name, otherwise)) => (name, Some(otherwise)),
            None => (&inner[..end], None),
        };
        match (std::env::var(name), otherwise) {
            (Ok(value), _) if !value.is_empty() => out.push_str(&value),
            (_, Some(otherwise)) => out.push_str(otherwise),
            (Ok(value), None) => out.push_str(&value),
            (Err(_), None) => bail!("the environment has no variable `{name}`"),
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

impl Text {
    /// Puts variables of the environment in their places.
    ///
    /// # Errors
    /// There is no such variable.
    pub(crate) fn expanded(text: &str) -> Result<Text> {
        expand(text).map(Text)
    }
}

impl Secret {
    /// The secret itself: the file is read anew, without the newline at its end.
    ///
    /// # Errors
    /// The variable is not set or the file cannot be read. The error does not show the secret.
    pub(crate) fn reveal(&self) -> Result<String> {
        match self.0.strip_prefix("file:") {
            Some(path) => {
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read the secret in {path}"))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => expand(&self.0),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        Span::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a size such as 64MiB")]
        enum Raw {
            Bytes(u64),
            Text(String),
        }
        match Raw::deserialize(from)? {
            Raw::Bytes(bytes) => Ok(Size(bytes)),
            Raw::Text(text) => Size::parse(&text).map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        Text::expanded(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Scalar, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a text, a number or a truth value")]
        enum Raw {
            Bool(bool),
            Int(i64),
            Float(f64),
            Text(String),
        }
        Ok(Scalar(match Raw::deserialize(from)? {
            Raw::Bool(value) => value.to_string(),
            Raw::Int(value) => value.to_string(),
            Raw::Float(value) => value.to_string(),
            Raw::Text(value) => value,
        }))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        // serde would repeat what stands there.
        let wrong = |_| D::Error::custom("a secret is a text: put it in quotes");
        String::deserialize(from).map(Secret).map_err(wrong)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let whole = units.iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
        to.collect_str(&match whole {
            Some((name, unit)) => format!("{}{name}", millis / unit),
            None => format!("{millis}ms"),
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => to.collect_str(&format_args!("{}{name}", self.0 / unit)),
            None => to.serialize_u64(self.0),
        }
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl Serialize for Secret {
    /// Where it comes from may be shown; one that stands there itself may not.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let elsewhere = self.0.starts_with("file:") || self.0.starts_with("${") && self.0.ends_with('}');
        to.serialize_str(if elsewhere { &self.0 } else { "[redacted]" })
    }
}

macro_rules! schema {
    ($type:ty, $name:literal, $description:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($schema);
                schema.insert("description".to_owned(), $description.into());
                schema
            }
        }
    };
}

schema!(Span, "Span", "A span of time: 500ms, 5s, 1h30m, 7d.", {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"});
schema!(Size, "Size", "A size: 2GiB, 64MiB, 10MB, or a number of bytes.", {"type": ["string", "integer"], "minimum": 0});
schema!(Text, "Text", "A text; ${NAME} and ${NAME:-otherwise} stand for variables of the environment.", {"type": "string"});
schema!(Secret, "Secret", "A secret: ${NAME} for a variable of the environment, or file:/path.", {"type": "string"});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(Span::parse(text), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "5x", "99999999999999999999s", "99999999999d"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("2GiB", 2 << 30), ("64 MiB", 64 << 20), ("10MB", 10_000_000), ("7", 7), ("7B", 7)]
        {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "99999999999999999999", "99999999999TiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_stand_for_their_values() {
        assert_eq!(expand("a ${LAPWING_NO_SUCH:-b} c").unwrap(), "a b c");
        assert_eq!(expand("${PATH}").unwrap(), std::env::var("PATH").unwrap());
        let missing = expand("x${LAPWING_NO_SUCH}").unwrap_err().to_string();
        assert_eq!(missing, "the environment has no variable `LAPWING_NO_SUCH`");
        assert!(expand("${PATH").is_err());
    }

    #[test]
    fn secrets_are_not_shown_and_files_are_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "first\n").unwrap();
        let secret = Secret(format!("file:{}", path.display()));
        assert_eq!(secret.reveal().unwrap(), "first");
        fs::write(&path, "second").unwrap();
        assert_eq!(secret.reveal().unwrap(), "second");
        assert_eq!(format!("{secret:?}"), "[redacted]");
    }
}
