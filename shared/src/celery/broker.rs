//! Where Celery's broker is: the URL as Celery itself takes it, as far as it can be asked.
//!
//! A URL may hold a password, so nothing of its text ever goes into an error, a log or a `Debug`; [`Broker`] shows itself by
//! its host alone.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use heartbeat::fleet::tls::Files;
use heartbeat::fleet::{self, Url as RedisUrl};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::Error;

/// Celery's broker.
///
/// | form | is |
/// |---|---|
/// | `redis://…`, `rediss://…`, `redis+socket:///PATH?virtual_host=DB`, `redis+sentinel://…` | a Redis: see [`heartbeat::fleet::Url`] |
/// | `sentinel://[[USER]:PASSWORD@]HOST[:26379][/DB];sentinel://HOST…` | the master that Sentinel names, whose name stands beside the URL: [`Broker::read`] |
/// | `amqp://[USER:PASSWORD@]HOST[:5672][/VHOST]`, `pyamqp://…` | an AMQP broker, such as RabbitMQ |
/// | `amqps://…[:5671]…` | the same over TLS |
///
/// TLS goes by the system's certificates, or by `?ca=FILE` alone; with `&cert=FILE&key=FILE` for a client certificate. Celery's
/// `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` mean the same. The virtual host is `/` where none is named.
#[derive(Clone, PartialEq, Eq)]
pub enum Broker {
    /// A Redis.
    Redis(RedisUrl),
    /// An AMQP broker.
    Amqp(Amqp),
}

/// An AMQP broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Amqp {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
    pub(super) tls: Option<Files>,
}

/// What is wrong with a broker's URL. Holds and shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// No scheme that is known.
    Scheme,
    /// Several URLs in one.
    Several,
    /// Celery's own form for Sentinel, without the name of the master beside it.
    Sentinel,
    /// The name of a master beside a URL of another form, or an empty one.
    Master,
    /// A Redis Cluster, on which Celery's remote control is none.
    Cluster,
    /// A certificate that is not to be looked at.
    Unverified,
    /// Something about a URL of Redis.
    Redis(fleet::Invalid),
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
            Self::Scheme => "it begins with none of amqp://, amqps://, pyamqp://, redis://, rediss://, redis+socket://, sentinel://, redis+sentinel://",
            Self::Several => "it names several brokers (name one)",
            Self::Sentinel => {
                "Celery's sentinel:// does not name the service; give its master_name, or write redis+sentinel://HOST,HOST/SERVICE/DB"
            }
            Self::Master => "a master_name is for sentinel://, and not empty",
            Self::Cluster => "a Redis Cluster cannot be asked about Celery",
            Self::Unverified => "it wants the broker's certificate not to be verified; give ca=FILE",
            Self::Redis(invalid) => return invalid.fmt(f),
            Self::Host => "it has no host, or a port that is none (write @, /, ? and # in a password as %40, %2F, %3F, %23)",
            Self::Encoding => "a part of it is not text",
            Self::Option => "it has an option that is not known there, or twice: ca, cert and key are for TLS",
            Self::Certificate => "a client certificate needs both cert and key",
        })
    }
}

impl std::error::Error for Invalid {}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({self})")
    }
}

/// Without user, password and options.
impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(url) => url.fmt(f),
            Self::Amqp(amqp) => amqp.fmt(f),
        }
    }
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amqp({self})")
    }
}

impl fmt::Display for Amqp {
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

impl Amqp {
    /// The host and the port.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The certificates to encrypt by, where it is to be encrypted.
    pub fn tls(&self) -> Option<&Files> {
        self.tls.as_ref()
    }
}

impl Broker {
    /// Whether the certificates that it names can be used.
    pub fn check_files(&self) -> Result<(), Error> {
        match self {
            Self::Redis(url) => Ok(url.check_files()?),
            Self::Amqp(Amqp { tls: Some(files), .. }) => Ok(files.client_config().map(drop)?),
            Self::Amqp(_) => Ok(()),
        }
    }
}

impl FromStr for Broker {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::read(text, None)
    }
}

impl Broker {
    /// A URL and, for one of `sentinel://`, what stands beside it in Celery's `broker_transport_options`: `master_name`.
    pub fn read(text: &str, master_name: Option<&str>) -> Result<Self, Invalid> {
        let (scheme, rest) = text.split_once("://").ok_or(Invalid::Scheme)?;
        match (scheme, master_name) {
            ("sentinel", None) => return Err(Invalid::Sentinel),
            (_, Some("")) => return Err(Invalid::Master),
            ("sentinel", Some(name)) => return sentinel(text, name),
            (_, Some(_)) => return Err(Invalid::Master),
            (_, None) => {}
        }
        // A password may hold one too, and no scheme can follow it there: `/` is written as %2F.
        if rest.contains(';') && rest.contains("://") {
            return Err(Invalid::Several);
        }
        match scheme {
            "amqp" | "pyamqp" => Amqp::read(rest, false).map(Self::Amqp),
            "amqps" | "pyamqps" => Amqp::read(rest, true).map(Self::Amqp),
            _ => redis(scheme, rest),
        }
    }
}

/// Celery's URLs of Sentinels, parted by `;`: user, password and database are those of the first.
fn sentinel(text: &str, name: &str) -> Result<Broker, Invalid> {
    let urls = text.split(';').filter(|url| !url.is_empty());
    let rests: Vec<_> =
        urls.map(|url| url.strip_prefix("sentinel://").ok_or(Invalid::Several)).collect::<Result<_, _>>()?;
    let (first, query) = rests
        .first()
        .and_then(|rest| rest.split_once('?'))
        .unwrap_or((rests.first().copied().unwrap_or_default(), ""));
    let (authority, db) = first.split_once('/').unwrap_or((first, ""));
    let login = authority.rsplit_once('@').map_or(String::new(), |(login, _)| format!("{login}@"));
    let host = |rest: &&str| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned()
    };
    let hosts: Vec<_> = rests.iter().map(host).collect();
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    redis("redis+sentinel", &format!("{login}{}/{name}/{db}?{query}", hosts.join(",")))
}

/// A URL of Redis, with the words that Celery has for parts of it.
fn redis(scheme: &str, rest: &str) -> Result<Broker, Invalid> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let scheme = if scheme == "redis+socket" { "unix" } else { scheme };
    let mut options = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').ok_or(Invalid::Option)?;
        match (name, scheme) {
            ("virtual_host", "unix") => options.push(format!("db={value}")),
            _ => options.extend(tls_name(name, value)?.map(|name| format!("{name}={value}"))),
        }
    }
    let mark = if options.is_empty() { "" } else { "?" };
    let text = format!("{scheme}://{rest}{mark}{}", options.join("&"));
    let url: RedisUrl = text.parse().map_err(|invalid| match invalid {
        fleet::Invalid::Scheme => Invalid::Scheme,
        invalid => Invalid::Redis(invalid),
    })?;
    if url.is_cluster() { Err(Invalid::Cluster) } else { Ok(Broker::Redis(url)) }
}

/// An option by our name for it; nothing for one that says what holds anyway.
fn tls_name<'a>(name: &'a str, value: &str) -> Result<Option<&'a str>, Invalid> {
    Ok(Some(match name {
        "ssl_ca_certs" => "ca",
        "ssl_certfile" => "cert",
        "ssl_keyfile" => "key",
        "ssl_cert_reqs" if matches!(value, "required" | "CERT_REQUIRED") => return Ok(None),
        "ssl_cert_reqs" => return Err(Invalid::Unverified),
        other => other,
    }))
}

impl Amqp {
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

fn decode(text: &str) -> Result<String, Invalid> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| Invalid::Encoding)?.into_owned();
    if text.chars().any(char::is_control) { Err(Invalid::Encoding) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amqp(text: &str) -> Amqp {
        match text.parse() {
            Ok(Broker::Amqp(amqp)) => amqp,
            other => panic!("{text}: {other:?}"),
        }
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
            let read = amqp(text);
            assert_eq!((read.vhost.as_str(), read.to_string().as_str()), (vhost, shown), "{text}");
            assert!(!format!("{read:?}").contains("S3cret"));
        }
        let read = amqp("amqp://h");
        assert_eq!((read.user.as_str(), read.password.as_str()), ("guest", "guest"));
        let read = amqp("amqp://m%40e:a%2Fb%3A%25@h");
        assert_eq!((read.user.as_str(), read.password.as_str()), ("m@e", "a/b:%"));
    }

    #[test]
    fn certificates_are_named_in_our_words_or_in_celerys() {
        for text in [
            "amqps://h//?ca=/a&cert=/c&key=/k",
            "amqps://h//?ssl_ca_certs=/a&ssl_certfile=/c&ssl_keyfile=/k&ssl_cert_reqs=CERT_REQUIRED",
        ] {
            let files = amqp(text).tls.unwrap();
            assert_eq!(files.ca, Some(PathBuf::from("/a")));
            assert_eq!(files.client, Some((PathBuf::from("/c"), PathBuf::from("/k"))));
        }
        let ours: Broker = "rediss://h/1?ca=/a".parse().unwrap();
        assert_eq!(Ok(ours), "rediss://h/1?ssl_cert_reqs=required&ssl_ca_certs=/a".parse());
        let ours: Broker = "unix:///run/redis?db=3".parse().unwrap();
        assert_eq!(Ok(ours), "redis+socket:///run/redis?virtual_host=3".parse());
    }

    #[test]
    fn celerys_own_form_for_sentinel_names_its_master_beside_the_url() {
        for (text, ours) in [
            ("sentinel://h", "redis+sentinel://h/ma%20in"),
            ("sentinel://h:26380;sentinel://i;", "redis+sentinel://h:26380,i:26379/ma%20in/0"),
            (
                "sentinel://:S3%2Fcret@h/3?sentinel_password=o;sentinel://:S3%2Fcret@i:7/3",
                "redis+sentinel://:S3%2Fcret@h,i:7/ma%20in/3?sentinel_password=o",
            ),
            (
                "sentinel://me:S3cret@h;sentinel://me:S3cret@[::1]:7",
                "redis+sentinel://me:S3cret@h,[::1]:7/ma%20in",
            ),
        ] {
            assert_eq!(Broker::read(text, Some("ma in")), ours.parse(), "{text}");
        }
        for (text, name, wrong) in [
            ("sentinel://h", None, Invalid::Sentinel),
            ("sentinel://h", Some(""), Invalid::Master),
            ("redis://:S3cret@h", Some("main"), Invalid::Master),
            ("sentinel://h;redis://:S3cret@h", Some("main"), Invalid::Several),
            ("sentinel://h/x", Some("main"), Invalid::Redis(fleet::Invalid::Database)),
            ("sentinel://", Some("main"), Invalid::Redis(fleet::Invalid::Host)),
            ("sentinel://h?ssl_ca_certs=/a", Some("main"), Invalid::Redis(fleet::Invalid::Option)),
        ] {
            assert_eq!(Broker::read(text, name), Err(wrong), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_without_a_word_of_the_url() {
        for (text, wrong) in [
            ("", Invalid::Scheme),
            ("S3cret", Invalid::Scheme),
            ("sqs://:S3cret@h", Invalid::Scheme),
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
            ("sentinel://:S3cret@h:26379", Invalid::Sentinel),
            ("redis+cluster://:S3cret@h", Invalid::Cluster),
            ("redis://:S3cret@h/x", Invalid::Redis(fleet::Invalid::Database)),
            ("rediss://:S3cret@h/0?ssl_cert_reqs=none", Invalid::Unverified),
        ] {
            let refused = text.parse::<Broker>().unwrap_err();
            assert_eq!(refused, wrong, "{text}");
            assert!(!format!("{refused} {refused:?}").contains("S3cret"));
        }
    }
}
