//! The types that settings are made of, besides numbers, words and lists: secrets, URLs, durations, networks, TLS files.
//!
//! What may hold a secret shows none, whatever prints it. What a schema cannot say of a text stands there as its shape
//! ([`SHAPE`]), by which mistakes are found and described.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use heartbeat::duration;
use ipnet::{IpNet, Ipv4Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// The key of a JSON Schema that says which [`Shape`] a text has.
pub const SHAPE: &str = "x-shape";

/// What a text stands for, where it is more than a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A [`Span`].
    Duration,
    /// A [`Url`].
    Url,
    /// A [`Network`].
    Network,
    /// A [`Listen`].
    Listen,
    /// A [`Secret`].
    Secret,
    /// A [`Size`].
    Size,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Duration, Self::Url, Self::Network, Self::Listen, Self::Secret, Self::Size];

    /// Its word, in a schema and in lists of settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Url => "URL",
            Self::Network => "network",
            Self::Listen => "address",
            Self::Secret => "secret",
            Self::Size => "size",
        }
    }

    /// What is expected, for the end of a sentence.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Duration => "a duration, such as 500ms, 30s, 5m or 1m30s",
            Self::Url => "a URL",
            Self::Network => "a network, such as 10.0.0.0/8 or ::1/128",
            Self::Listen => {
                "an address with a port, such as 127.0.0.1:8080 or [::]:8080, or a Unix socket, such as unix:/run/it.sock"
            }
            Self::Secret => "a text",
            Self::Size => "a size, such as 512KiB, 100MiB or 2GB",
        }
    }

    /// Why a text has not this shape. Nothing of the text is repeated.
    pub fn refuses(self, text: &str) -> Option<String> {
        match self {
            Self::Duration => duration::parse(text).err().map(|invalid| invalid.to_string()),
            Self::Url => url::Url::parse(text).err().map(|invalid| format!("it is not a URL: {invalid}")),
            Self::Network => network(text).is_none().then(|| format!("it is not {}", self.expected())),
            Self::Listen => text.parse::<Listen>().err().map(|_| format!("it is not {}", self.expected())),
            Self::Secret => None,
            Self::Size => Size::parse(text).is_none().then(|| format!("it is not {}", self.expected())),
        }
    }

    fn schema(self) -> Schema {
        json_schema!({ "type": "string", SHAPE: self.as_str() })
    }
}

/// Writes `JsonSchema` for a type that is a text of this shape.
macro_rules! shaped {
    ($type:ident) => {
        shaped!($type, $type, |schema: Schema| schema);
    };
    ($type:ident, $shape:ident, $more:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $more(Shape::$shape.schema())
            }
        }
    };
}

/// A text that nobody is shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

shaped!(Secret);

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

/// The key of a JSON Schema that says that a text is a [`Word`].
pub const WORD: &str = "x-word";

/// A text that nobody is shown, for another program, and mostly an ordinary word: only what it takes from outside of the file is
/// left out of the log, the credentials of a URL in it, and all of it where its name says that it is a secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Word(Secret);

shaped!(Word, Secret, |mut schema: Schema| {
    schema.insert(WORD.to_owned(), true.into());
    schema
});

impl Word {
    /// The text itself, for the program that it is meant for.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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

impl From<url::Url> for Url {
    fn from(url: url::Url) -> Self {
        Self(url)
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

shaped!(Url, Url, |mut schema: Schema| {
    schema.insert("format".to_owned(), "uri".into());
    schema
});

/// A length of time: a whole number with a unit, such as `500ms`, `30s`, `5m`, `2h`, `1d` or `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        duration::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

/// As it is read, so that a default can be shown: in the largest unit in which it is whole.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = self.0.as_millis();
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let whole = units.into_iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
        let (unit, factor) = whole.unwrap_or(("ms", 1));
        serializer.collect_str(&format_args!("{}{unit}", ms / factor))
    }
}

shaped!(Span, Duration, |mut schema: Schema| {
    schema.insert("pattern".to_owned(), "^([0-9]+(ms|s|m|h|d))+$".into());
    schema
});

/// A range of IP addresses in CIDR notation, such as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse().ok().map(|one: IpAddr| one.into()));
    network.map(canonical)
}

/// A network of IPv4-mapped addresses (`::ffff:10.0.0.0/104`) as the IPv4 network that it is.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(six) = network else { return network };
    let four = six.network().to_ipv4_mapped().zip(six.prefix_len().checked_sub(96));
    four.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        network(&text).map(Self).ok_or_else(|| D::Error::custom("not a network"))
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

shaped!(Network);

/// Where to listen: an IP address with a port, or the path of a Unix socket after `unix:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address with a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| format!("it is not {}", Shape::Listen.expected())),
        }
    }
}

/// As it is read.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

shaped!(Listen);

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

shaped!(Size, Size, |mut schema: Schema| {
    schema.insert("pattern".to_owned(), "^[0-9]+(B|kB|KiB|MB|MiB|GB|GiB|TB|TiB)$".into());
    schema
});

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
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_the_ipv4_network_that_it_means() {
        for (text, meant) in [
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:0:0/95", "::ffff:0.0.0.0/95"),
            ("::1", "::1/128"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            assert_eq!(to_value(from_value::<Network>(json!(text)).unwrap()).unwrap(), meant);
        }
    }

    #[test]
    fn a_span_is_shown_as_it_is_read() {
        for text in ["0ms", "500ms", "1500ms", "5s", "90s", "5m", "2h", "1d"] {
            let span: Span = from_value(json!(text)).unwrap();
            assert_eq!(to_value(span).unwrap(), text);
        }
        assert_eq!(to_value(from_value::<Span>(json!("1m30s")).unwrap()).unwrap(), "90s");
    }

    type Reads = fn(&str) -> bool;

    #[test]
    fn a_shape_refuses_what_its_type_cannot_be_read_from_and_repeats_none_of_it() {
        let reads: [(Shape, Reads); 5] = [
            (Shape::Size, |text| from_value::<Size>(json!(text)).is_ok()),
            (Shape::Duration, |text| from_value::<Span>(json!(text)).is_ok()),
            (Shape::Url, |text| from_value::<Url>(json!(text)).is_ok()),
            (Shape::Network, |text| from_value::<Network>(json!(text)).is_ok()),
            (Shape::Listen, |text| from_value::<Listen>(json!(text)).is_ok()),
        ];
        for text in [
            "",
            "5s",
            "5MiB",
            "S3cret",
            "http://S3cret:x:y",
            "redis://h",
            "10.0.0.0/8",
            "10.0.0.0/33",
            "::1",
            "1.2.3.4:80",
            "unix:",
            "unix:/a",
        ] {
            for (shape, reads) in reads {
                let refused = shape.refuses(text);
                assert_eq!(refused.is_none(), reads(text), "{shape:?} {text}");
                assert!(!refused.unwrap_or_default().contains("S3cret"));
            }
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secret: Secret = from_value(json!("S3cret")).unwrap();
        let url: Url = from_value(json!("redis://S3cret:S3cret@h:1/S3cret?S3cret#S3cret")).unwrap();
        assert_eq!(format!("{secret:?} {url:?} {url}"), "Secret(…) redis://h:1 redis://h:1");
    }

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
