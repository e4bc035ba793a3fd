//! Where Celery's broker is: the URL as Celery itself takes it, as far as it can be asked.
//!
//! A URL may hold a password, so nothing of its text ever goes into an error, a log or a `Debug`; [`Broker`] shows itself by
//! its host alone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use heartbeat::fleet::{self, Url as RedisUrl};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;

use super::Error;
use crate::amqp::{self, tls_name};

/// Celery's broker.
///
/// | form | is |
/// |---|---|
/// | `redis://…`, `rediss://…`, `redis+socket:///PATH?virtual_host=DB`, `redis+sentinel://…` | a Redis: see [`heartbeat::fleet::Url`] |
/// | `sentinel://[[USER]:PASSWORD@]HOST[:26379][/DB];sentinel://HOST…` | the master that Sentinel names, whose name stands beside the URL: [`Broker::read`] |
/// | `amqp://…`, `amqps://…`, `pyamqp://…`, `pyamqps://…` | an AMQP broker, such as RabbitMQ: see [`amqp::Url`] |
///
/// TLS goes by the system's certificates, or by `?ca=FILE` alone; with `&cert=FILE&key=FILE` for a client certificate. Celery's
/// `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` mean the same.
#[derive(Clone, PartialEq, Eq)]
pub enum Broker {
    /// A Redis.
    Redis(RedisUrl),
    /// An AMQP broker.
    Amqp(amqp::Url),
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
    /// Something about a URL of AMQP.
    Amqp(amqp::Invalid),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "it begins with none of amqp://, amqps://, pyamqp://, pyamqps://, redis://, rediss://, redis+socket://, sentinel://, redis+sentinel://",
            Self::Several => return amqp::Invalid::Several.fmt(f),
            Self::Sentinel => {
                "Celery's sentinel:// does not name the service; give its master_name, or write redis+sentinel://HOST,HOST/SERVICE/DB"
            }
            Self::Master => "a master_name is for sentinel://, and not empty",
            Self::Cluster => "a Redis Cluster cannot be asked about Celery",
            Self::Unverified => return amqp::Invalid::Unverified.fmt(f),
            Self::Redis(invalid) => return invalid.fmt(f),
            Self::Amqp(invalid) => return invalid.fmt(f),
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

impl Broker {
    /// Whether the certificates that it names can be used.
    pub fn check_files(&self) -> Result<(), Error> {
        match self {
            Self::Redis(url) => Ok(url.check_files()?),
            Self::Amqp(url) => Ok(url.tls().map_or(Ok(()), |files| tls(files).map(drop))?),
        }
    }
}

/// How to encrypt, by these files as they are now.
pub(super) fn tls(files: &amqp::Files) -> Result<Arc<ClientConfig>, fleet::Error> {
    let amqp::Files { ca, client } = files.clone();
    fleet::tls::Files { ca, client }.client_config()
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
        if amqp::names_several(rest) {
            return Err(Invalid::Several);
        }
        match scheme {
            "amqp" | "pyamqp" | "amqps" | "pyamqps" => text.parse().map(Self::Amqp).map_err(Invalid::Amqp),
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
        let (name, value) = option.split_once('=').ok_or(Invalid::Redis(fleet::Invalid::Option))?;
        match (name, scheme) {
            ("virtual_host", "unix") => options.push(format!("db={value}")),
            _ => options.extend(
                tls_name(name, value).map_err(|_| Invalid::Unverified)?.map(|name| format!("{name}={value}")),
            ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_named_in_our_words_or_in_celerys() {
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
            ("amqp://:S3cret@", Invalid::Amqp(amqp::Invalid::Host)),
            ("amqps://:S3cret@h//?ssl_cert_reqs=CERT_NONE", Invalid::Amqp(amqp::Invalid::Unverified)),
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
