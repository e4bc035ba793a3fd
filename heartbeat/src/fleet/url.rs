//! Where Redis is: every form of URL, in one place.
//!
//! A URL may hold passwords, so nothing of its text ever goes into an error, a log or a `Debug`: an error says what
//! kind of thing is wrong, and [`Url`] shows itself by its hosts alone.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::Error;
use super::tls::{Files, Tls};

/// A Redis, or several that act as one.
///
/// | form | is |
/// |---|---|
/// | `redis://[[USER]:PASSWORD@]HOST[:6379][/DB]` | one server |
/// | `unix://[[USER]:PASSWORD@]/PATH[?db=DB]` | one server, by its socket |
/// | `redis+sentinel://[[USER]:PASSWORD@]HOST[:26379],HOST…/SERVICE[/DB]` | the master that Sentinel names |
/// | `redis+cluster://[[USER]:PASSWORD@]HOST[:6379],HOST…` | a Redis Cluster, by some of its nodes |
///
/// With `rediss` instead of `redis`, TLS: by the system's certificates, or by `?ca=FILE` alone; with `&cert=FILE&key=FILE`
/// for a client certificate. The credentials are the server's; Sentinel's own are `?sentinel_user=…&sentinel_password=…`.
/// `valkey`, `valkeys` and `redis+unix` are understood too. What has another meaning in a URL is written with `%`.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    pub(super) servers: Servers,
    pub(super) tls: Option<Files>,
    pub(super) login: Option<Login>,
    pub(super) sentinel_login: Option<Login>,
    pub(super) db: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Servers {
    One(Host),
    Unix(PathBuf),
    Sentinel { sentinels: Vec<Host>, service: String },
    Cluster(Vec<Host>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub name: String,
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub user: Option<String>,
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What is wrong with a URL. Holds and shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// No scheme, or none of those that are known.
    Scheme,
    /// A part is not UTF-8 once its `%` are resolved, or a `%` is not followed by two hexadecimal digits, or there is a
    /// control character.
    Encoding,
    /// A user without a password, or what stands before the `@` is nothing.
    Credentials,
    /// No host, an empty one, or a port that is not one.
    Host,
    /// Several hosts where there can be one.
    Hosts,
    /// What stands after the host is not the number of a database.
    Database,
    /// Sentinel without the name of the service.
    Service,
    /// An option that is not known, or not for this kind of URL, or given twice.
    Option,
    /// A client certificate without a key, or a key without a certificate.
    Certificate,
    /// A `#`.
    Fragment,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => {
                "it begins with none of redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, \
                 redis+cluster://, rediss+cluster://"
            }
            Self::Encoding => "a part of it is not text (a % stands before two hexadecimal digits; write % as %25)",
            Self::Credentials => "its credentials are not USER:PASSWORD@ or :PASSWORD@",
            Self::Host => "it has no host, or a port that is none (write @, /, ? and # in a password as %40, %2F, %3F, %23)",
            Self::Hosts => "it has several hosts, which are for redis+sentinel:// and redis+cluster://",
            Self::Database => "what follows the host is not the number of a database",
            Self::Service => "it names no service: redis+sentinel://HOST,HOST/SERVICE",
            Self::Option => {
                "it has an option that is not known there, or twice: ca, cert and key are for TLS, \
                 sentinel_user and sentinel_password for Sentinel, db, user and pass for unix:// \
                 (write ? in a password as %3F)"
            }
            Self::Certificate => "a client certificate needs both cert and key",
            Self::Fragment => "it has a # (write # in a password as %23)",
        })
    }
}

impl std::error::Error for Invalid {}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Without user, password and options.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        match &self.servers {
            Servers::Unix(path) => return write!(f, "unix://{}", path.display()),
            Servers::One(host) => write!(f, "{scheme}://{host}")?,
            Servers::Sentinel { sentinels, service } => {
                write!(f, "{scheme}+sentinel://{}/{service}", List(sentinels))?;
            }
            Servers::Cluster(nodes) => write!(f, "{scheme}+cluster://{}", List(nodes))?,
        }
        if self.db == 0 { Ok(()) } else { write!(f, "/{}", self.db) }
    }
}

struct List<'a>(&'a [Host]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{host}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Unix,
    Sentinel,
    Cluster,
}

impl Url {
    /// Whether the certificates that it names can be used.
    pub fn check_files(&self) -> Result<(), Error> {
        self.tls.as_ref().map_or(Ok(()), |files| Tls::load(files).map(drop))
    }

    /// The number of the database; 0 where the URL names none.
    pub fn db(&self) -> u32 {
        self.db
    }

    /// Whether it is a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }
}

impl FromStr for Url {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (scheme, rest) = text.split_once("://").ok_or(Invalid::Scheme)?;
        let (form, tls) = match scheme {
            "redis" | "valkey" => (Form::One, false),
            "rediss" | "valkeys" => (Form::One, true),
            "unix" | "redis+unix" => (Form::Unix, false),
            "redis+sentinel" => (Form::Sentinel, false),
            "rediss+sentinel" => (Form::Sentinel, true),
            "redis+cluster" => (Form::Cluster, false),
            "rediss+cluster" => (Form::Cluster, true),
            _ => return Err(Invalid::Scheme),
        };
        if rest.contains('#') {
            return Err(Invalid::Fragment);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(credentials(login)?), hosts),
            None => (None, authority),
        };
        let mut options = Options::read(query, form, tls)?;
        let (servers, db) = match form {
            Form::Unix => {
                let path = decode(path)?;
                if !hosts.is_empty() || path.len() < 2 {
                    return Err(Invalid::Host);
                }
                (Servers::Unix(path.into()), options.db.unwrap_or(0))
            }
            Form::One => (Servers::One(one_host(hosts)?), database(path.trim_start_matches('/'))?),
            Form::Sentinel => {
                let mut path = path.trim_start_matches('/').split('/');
                let service = decode(path.next().unwrap_or_default())?;
                if service.is_empty() {
                    return Err(Invalid::Service);
                }
                let db = database(path.next().unwrap_or_default())?;
                if path.next().is_some() {
                    return Err(Invalid::Database);
                }
                (Servers::Sentinel { sentinels: host_list(hosts, 26_379)?, service }, db)
            }
            Form::Cluster => {
                if database(path.trim_start_matches('/'))? != 0 {
                    return Err(Invalid::Database);
                }
                (Servers::Cluster(host_list(hosts, 6_379)?), 0)
            }
        };
        let login = login.or(options.login.take());
        let tls = tls.then_some(options.files);
        Ok(Self { servers, tls, login, sentinel_login: options.sentinel_login, db })
    }
}

#[derive(Default)]
struct Options {
    files: Files,
    login: Option<Login>,
    sentinel_login: Option<Login>,
    db: Option<u32>,
}

impl Options {
    fn read(query: &str, form: Form, tls: bool) -> Result<Self, Invalid> {
        let names = ["ca", "cert", "key", "sentinel_user", "sentinel_password", "db", "user", "pass"];
        let mut values: [Option<String>; 8] = Default::default();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').ok_or(Invalid::Option)?;
            let index = names.iter().position(|known| *known == name).ok_or(Invalid::Option)?;
            let allowed = match index {
                0..3 => tls,
                3..5 => form == Form::Sentinel,
                _ => form == Form::Unix,
            };
            let value = decode(value)?;
            if !allowed || value.is_empty() || values[index].replace(value).is_some() {
                return Err(Invalid::Option);
            }
        }
        let [ca, cert, key, sentinel_user, sentinel_password, db, user, password] = values;
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err(Invalid::Certificate),
        };
        Ok(Self {
            files: Files { ca: ca.map(PathBuf::from), client },
            login: login(user, password)?,
            sentinel_login: login(sentinel_user, sentinel_password)?,
            db: db.map(|db| database(&db)).transpose()?,
        })
    }
}

fn login(user: Option<String>, password: Option<String>) -> Result<Option<Login>, Invalid> {
    match (user, password) {
        (None, None) => Ok(None),
        (user, Some(password)) => Ok(Some(Login { user, password })),
        (Some(_), None) => Err(Invalid::Credentials),
    }
}

fn credentials(text: &str) -> Result<Login, Invalid> {
    let (user, password) = text.split_once(':').ok_or(Invalid::Credentials)?;
    if password.is_empty() {
        return Err(Invalid::Credentials);
    }
    let user = if user.is_empty() { None } else { Some(decode(user)?) };
    Ok(Login { user, password: decode(password)? })
}

fn database(text: &str) -> Result<u32, Invalid> {
    if text.is_empty() {
        return Ok(0);
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().map_err(|_| Invalid::Database) } else { Err(Invalid::Database) }
}

fn one_host(text: &str) -> Result<Host, Invalid> {
    let mut hosts = host_list(text, 6_379)?;
    match (hosts.pop(), hosts.is_empty()) {
        (Some(host), true) => Ok(host),
        _ => Err(Invalid::Hosts),
    }
}

fn host_list(text: &str, default_port: u16) -> Result<Vec<Host>, Invalid> {
    text.split(',').map(|host| self::host(host, default_port)).collect()
}

fn host(text: &str, default_port: u16) -> Result<Host, Invalid> {
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (name, port) = rest.split_once(']').ok_or(Invalid::Host)?;
        name.parse::<std::net::Ipv6Addr>().map_err(|_| Invalid::Host)?;
        (name.to_owned(), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (decode(name)?, port)
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(Invalid::Host)?,
        None if port.is_empty() => default_port,
        None => return Err(Invalid::Host),
    };
    let possible = !name.is_empty() && !name.contains([' ', '/', '@', ',']);
    if possible { Ok(Host { name, port }) } else { Err(Invalid::Host) }
}

fn decode(text: &str) -> Result<String, Invalid> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit(rest.next()), digit(rest.next()));
            let (Some(high), Some(low)) = (high, low) else { return Err(Invalid::Encoding) };
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| Invalid::Encoding)?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| Invalid::Encoding)?;
    if text.chars().any(char::is_control) { Err(Invalid::Encoding) } else { Ok(text) }
}

#[cfg(test)]
mod tests;
