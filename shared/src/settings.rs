//! The types that settings are made of, besides numbers, words and lists: secrets, URLs, durations, TLS files.
//!
//! What may hold a secret shows none, whatever prints it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use heartbeat::duration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// A text that nobody is shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the peer that it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A URL, which may hold a user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(url::Url);

impl Url {
    /// The URL itself, with its secrets: for the client that connects.
    pub fn expose(&self) -> &url::Url {
        &self.0
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The scheme, the host and the port: what may be shown.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        // The text stays out of the error, because it may hold a password.
        url::Url::parse(&text).map(Self).map_err(|error| D::Error::custom(format_args!("not a URL: {error}")))
    }
}

impl JsonSchema for Url {
    fn schema_name() -> Cow<'static, str> {
        "Url".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri" })
    }
}

/// A length of time: a whole number with a unit, such as `500ms`, `30s`, `5m`, `2h`, `1d` or `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        duration::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" })
    }
}

/// An amount of data: a whole number with a unit, such as `512KiB`, `100MiB` or `2GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    const UNITS: [(&str, u64); 9] = [
        ("B", 1),
        ("kB", 1_000),
        ("KiB", 1 << 10),
        ("MB", 1_000_000),
        ("MiB", 1 << 20),
        ("GB", 1_000_000_000),
        ("GiB", 1 << 30),
        ("TB", 1_000_000_000_000),
        ("TiB", 1 << 40),
    ];

    /// The amount that a text says.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, factor) = Self::UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

/// As it would be written, in the largest unit that gives a whole number.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*factor);
        let (unit, factor) = Self::UNITS.into_iter().rev().find(whole).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("a size is a whole number with a unit, such as 100MiB"))
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(B|kB|KiB|MB|MiB|GB|GiB|TB|TiB)$" })
    }
}

/// How a connection is encrypted, beyond what its URL says. The certificates that the system trusts are trusted where
/// no `ca` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    pub ca: Option<PathBuf>,
    /// This side's certificate chain (PEM), for servers that ask for one; with `key`.
    pub cert: Option<PathBuf>,
    /// The private key (PEM) to `cert`.
    pub key: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_as_people_write_them() {
        let good = [
            ("0B", 0),
            ("7B", 7),
            ("2kB", 2_000),
            ("100MiB", 104_857_600),
            ("3GB", 3_000_000_000),
            ("1TiB", 1 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), text);
        }
        for text in ["", "1", "MiB", "1.5GiB", "-1B", "1 MiB", "1mib", "99999999TiB", "99999999999999999999B"]
        {
            assert_eq!(Size::parse(text), None, "{text:?}");
        }
    }
}
