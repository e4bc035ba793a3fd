//! A broker that speaks AMQP 0-9-1: where it is, by its URL.
//!
//! How bytes get there stands in `wire`; what is asked is the concern of who asks. A URL may hold a password, so nothing of
//! its text ever goes into an error, a log or a `Debug`; [`Url`] shows itself by its host alone.

pub(crate) mod wire;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// An AMQP broker, such as RabbitMQ.
///
/// | form | is |
/// |---|---|
/// | `amqp://[USER:PASSWORD@]HOST[:5672][/VHOST]`, `pyamqp://…` | a broker |
/// | `amqps://…[:5671]…`, `pyamqps://…` | the same over TLS |
///
/// The virtual host is `/` where none is named, user and password are `guest`. TLS goes by the system's certificates, or by
/// `?ca=FILE` alone; with `&cert=FILE&key=FILE` for a client certificate. Celery's `ssl_ca_certs`, `ssl_certfile` and
/// `ssl_keyfile` mean the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    user: String,
    password: String,
    vhost: String,
    tls: Option<Files>,
}

/// The PEM files of a connection over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The only certificates to trust; without it, the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What is wrong with a URL. Holds and shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// No scheme, or none of those that are known.
    Scheme,
    /// Several URLs in one.
    Several,
    /// A certificate that is not to be looked at.
    Unverified,
    /// No host, an empty one, or a port that is none.
    Host,
    /// A part is not text once its `%` are resolved.
    Encoding,
    /// An option that is not known, or not for this kind of URL, or given twice.
    Option,
    /// A client certificate without a key, or a key without a certificate.
    Certificate,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "it begins with none of amqp://, amqps://, pyamqp://, pyamqps://",
            Self::Several => "it names several brokers (name one)",
            Self::Unverified => "it wants the broker's certificate not to be verified; give ca=FILE",
            Self::Host => "it has no host, or a port that is none (write @, /, ? and # in a password as %40, %2F, %3F, %23)",
            Self::Encoding => "a part of it is not text",
            Self::Option => "it has an option that is not known there, or twice: ca, cert and key are for TLS",
            Self::Certificate => "a client certificate needs both cert and key",
        })
    }
}

impl std::error::Error for Invalid {}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let vhost = self.vhost.trim_start_matches('/');
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}/{vhost}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}/{vhost}", self.host, self.port)
        }
    }
}

impl Url {
    /// The host and the port.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The certificates to encrypt by, where it is to be encrypted.
    pub fn tls(&self) -> Option<&Files> {
        self.tls.as_ref()
    }
}

impl FromStr for Url {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (scheme, rest) = text.split_once("://").ok_or(Invalid::Scheme)?;
        let tls = match scheme {
            "amqp" | "pyamqp" => false,
            "amqps" | "pyamqps" => true,
            _ => return Err(Invalid::Scheme),
        };
        if names_several(rest) { Err(Invalid::Several) } else { Self::read(rest, tls) }
    }
}

/// Whether other URLs follow in it. A password may hold a `;` too, and no scheme can follow it there: `/` is written as %2F.
pub(crate) fn names_several(rest: &str) -> bool {
    rest.contains(';') && rest.contains("://")
}

impl Url {
    fn read(rest: &str, tls: bool) -> Result<Self, Invalid> {
        let url = url::Url::parse(&format!("amqp://{rest}")).map_err(|_| Invalid::Host)?;
        let host = match url.host() {
            Some(url::Host::Domain(name)) if !name.is_empty() => decode(name)?,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            _ => return Err(Invalid::Host),
        };
        // An @ there is the end of a password with a / that should have been escaped.
        if url.fragment().is_some() || url.port() == Some(0) || url.path().contains('@') {
            return Err(Invalid::Host);
        }
        let port = url.port().unwrap_or(if tls { 5_671 } else { 5_672 });
        let or_guest = |text: String| if text.is_empty() { "guest".to_owned() } else { text };
        let vhost = decode(url.path().strip_prefix('/').unwrap_or_default())?;
        Ok(Self {
            host,
            port,
            user: or_guest(decode(url.username())?),
            password: or_guest(decode(url.password().unwrap_or_default())?),
            vhost: if vhost.is_empty() { "/".to_owned() } else { vhost },
            tls: files(url.query().unwrap_or_default(), tls)?,
        })
    }
}

fn files(query: &str, tls: bool) -> Result<Option<Files>, Invalid> {
    let (mut ca, mut cert, mut key) = (None, None, None);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').ok_or(Invalid::Option)?;
        let slot = match tls_name(name, value)? {
            Some("ca") => &mut ca,
            Some("cert") => &mut cert,
            Some("key") => &mut key,
            Some(_) => return Err(Invalid::Option),
            None => continue,
        };
        if !tls || value.is_empty() || slot.replace(PathBuf::from(decode(value)?)).is_some() {
            return Err(Invalid::Option);
        }
    }
    let client = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(Invalid::Certificate),
    };
    Ok(tls.then_some(Files { ca, client }))
}

/// An option by our name for it; nothing for one that says what holds anyway.
pub(crate) fn tls_name<'a>(name: &'a str, value: &str) -> Result<Option<&'a str>, Invalid> {
    Ok(Some(match name {
        "ssl_ca_certs" => "ca",
        "ssl_certfile" => "cert",
        "ssl_keyfile" => "key",
        "ssl_cert_reqs" if matches!(value, "required" | "CERT_REQUIRED") => return Ok(None),
        "ssl_cert_reqs" => return Err(Invalid::Unverified),
        other => other,
    }))
}

fn decode(text: &str) -> Result<String, Invalid> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| Invalid::Encoding)?.into_owned();
    if text.chars().any(char::is_control) { Err(Invalid::Encoding) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Url {
        text.parse().unwrap_or_else(|invalid| panic!("{text}: {invalid}"))
    }

    #[test]
    fn an_amqp_url_means_what_it_means_to_celery() {
        for (text, vhost, shown) in [
            ("amqp://h", "/", "amqp://h:5672/"),
            ("amqp://h/", "/", "amqp://h:5672/"),
            ("amqp://guest:guest@h:5673//", "/", "amqp://h:5673/"),
            ("pyamqp://me:S3cret@h/orders", "orders", "amqp://h:5672/orders"),
            ("amqp://me:S3cret@h/%2F", "/", "amqp://h:5672/"),
            ("amqps://me:S3cret@h/a%20b", "a b", "amqps://h:5671/a b"),
            ("amqp://[::1]:7//", "/", "amqp://[::1]:7/"),
        ] {
            let url = read(text);
            assert_eq!((url.vhost.as_str(), url.to_string().as_str()), (vhost, shown), "{text}");
            assert!(!format!("{url:?}").contains("S3cret"));
        }
        let url = read("amqp://h");
        assert_eq!((url.user.as_str(), url.password.as_str()), ("guest", "guest"));
        let url = read("amqp://m%40e:a%2Fb%3A%25@h");
        assert_eq!((url.user.as_str(), url.password.as_str()), ("m@e", "a/b:%"));
    }

    #[test]
    fn certificates_are_named_in_our_words_or_in_celerys() {
        for text in [
            "amqps://h//?ca=/a&cert=/c&key=/k",
            "amqps://h//?ssl_ca_certs=/a&ssl_certfile=/c&ssl_keyfile=/k&ssl_cert_reqs=CERT_REQUIRED",
        ] {
            let files = read(text).tls.unwrap();
            assert_eq!(files.ca, Some(PathBuf::from("/a")));
            assert_eq!(files.client, Some((PathBuf::from("/c"), PathBuf::from("/k"))));
        }
    }

    #[test]
    fn what_is_no_broker_is_refused_without_a_word_of_the_url() {
        for (text, wrong) in [
            ("", Invalid::Scheme),
            ("S3cret", Invalid::Scheme),
            ("redis://:S3cret@h", Invalid::Scheme),
            ("amqp://:S3cret@", Invalid::Host),
            ("amqp://:S3cret@h:0", Invalid::Host),
            ("amqp://:S3cret@h:99999", Invalid::Host),
            ("amqp://:S3cret@h/#", Invalid::Host),
            ("amqp://me:123/S3cret@h/orders", Invalid::Host),
            ("amqp://:S3cret@h/%ff", Invalid::Encoding),
            ("amqp://:S3cret@h/%0a", Invalid::Encoding),
            ("amqp://:S3cret@h//?ca=/a", Invalid::Option),
            ("amqps://:S3cret@h//?ca=/a&ca=/b", Invalid::Option),
            ("amqps://:S3cret@h//?cert=/a", Invalid::Certificate),
            ("amqps://:S3cret@h//?ssl_cert_reqs=CERT_NONE", Invalid::Unverified),
            ("amqp://:S3cret@h;amqp://:S3cret@i", Invalid::Several),
        ] {
            let refused = text.parse::<Url>().unwrap_err();
            assert_eq!(refused, wrong, "{text}");
            assert!(!format!("{refused} {refused:?}").contains("S3cret"));
        }
    }
}
