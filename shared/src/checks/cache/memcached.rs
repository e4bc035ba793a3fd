//! A cache that is a memcached, asked in its text protocol.
//!
//! Over TLS it is the same protocol, from the first byte on.
//!
//! Five commands are all that is needed, so they are written here: then they go out in one round trip, a value that was not
//! stored is told, and an answer of any length takes no more memory than a right one.

#[cfg(feature = "tls")]
mod encrypted;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

#[cfg(feature = "tls")]
use self::encrypted::Encrypted;
use super::{Entry, Expiry, Found, Read};
use crate::check::Failure;
use crate::hidden::without_secrets;
use crate::net::{Address, Net};
#[cfg(feature = "tls")]
use crate::tls;

const PORT: u16 = 11_211;

/// The longest line of an answer that is one: a key of 250 bytes and some numbers, or an error.
const LONGEST_LINE: u64 = 1_024;

/// A memcached, and the connection to it that is kept.
#[derive(Debug)]
pub struct Memcached {
    place: Place,
    net: Net,
    kept: Mutex<Option<Link>>,
}

#[derive(Debug)]
enum Place {
    Host(Address),
    #[cfg(feature = "tls")]
    Encrypted(Box<Encrypted>),
    Socket(PathBuf),
}

/// Either kind of socket.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Link(BufReader<Box<dyn Stream>>);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(…)")
    }
}

/// Why a question has no answer.
#[derive(Debug)]
enum Trouble {
    Lost(io::Error),
    /// It is none that a memcached gives.
    Garbled,
    /// The value is not taken, in the server's words.
    Refused(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            #[cfg(feature = "tls")]
            Trouble::Lost(error) if tls::is_of_tls(&error) => tls::unencrypted(error),
            Trouble::Lost(error) => Self::failed("the connection to memcached was lost").because(error),
            Trouble::Garbled => Self::failed("memcached gave no proper answer"),
            Trouble::Refused(words) => Self::failed(reason(&words)).because(format!("it answered: {words}")),
        }
    }
}

/// Why a value was not taken.
fn reason(words: &str) -> &'static str {
    let lower = words.to_ascii_lowercase();
    if lower.contains("out of memory") {
        "memcached is full, and takes no values"
    } else if lower.contains("authenticat") {
        "memcached wants a user and a password, which this check has not"
    } else {
        "memcached takes no value"
    }
}

impl Memcached {
    /// By its URL.
    pub fn read(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let place = match scheme {
            "memcached" => host(rest).map(Place::Host),
            #[cfg(feature = "tls")]
            "memcacheds" => Encrypted::read(rest).map(|server| Place::Encrypted(Box::new(server))),
            #[cfg(not(feature = "tls"))]
            "memcacheds" => Err("this build has no TLS for memcacheds://"),
            "memcached+unix" if rest.starts_with('/') => Ok(Place::Socket(rest.into())),
            _ => Err("a socket is memcached+unix:///PATH"),
        };
        place.map(|place| Self { place, net: Net::default(), kept: Mutex::default() })
    }

    /// Sets, reads, looks for the expiry, deletes, and reads once more. What is not answered over the kept connection in half of
    /// the time is asked again over a new one.
    pub async fn ask(&self, entry: &Entry, deadline: Instant) -> Result<Found, Failure> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        loop {
            let was_kept = kept.is_some();
            let mut link = match kept.take() {
                Some(link) => link,
                None => self.connect(deadline).await?,
            };
            let told = if was_kept {
                let share = deadline.saturating_duration_since(Instant::now()) / 2;
                let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
                timeout(share, link.ask(entry)).await.unwrap_or_else(late)
            } else {
                link.ask(entry).await
            };
            match told {
                Ok(found) => {
                    *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
                    return Ok(found);
                }
                // It died while nobody used it.
                Err(Trouble::Lost(_)) if was_kept => {}
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Link, Failure> {
        let stream: Box<dyn Stream> = match &self.place {
            Place::Host(address) => Box::new(self.reach(address, deadline).await?),
            #[cfg(feature = "tls")]
            Place::Encrypted(server) => {
                Box::new(server.encrypt(self.reach(server.address(), deadline).await?).await?)
            }
            Place::Socket(path) => {
                let connected = UnixStream::connect(path).await;
                Box::new(
                    connected.map_err(|error| Failure::failed("no connection is accepted").because(error))?,
                )
            }
        };
        Ok(Link(BufReader::new(stream)))
    }

    async fn reach(&self, address: &Address, deadline: Instant) -> Result<TcpStream, Failure> {
        let stream = self.net.connect(address, deadline).await?;
        // A question is one packet, and no other follows that it could wait for.
        stream.set_nodelay(true).map_err(Trouble::Lost)?;
        Ok(stream)
    }
}

fn host(rest: &str) -> Result<Address, &'static str> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("memcached is asked without user and password");
    }
    if rest.contains('?') {
        return Err("nothing is said after a question mark but of TLS, which is memcacheds://");
    }
    let with_port = || Address::parse(&format!("{rest}:{PORT}"));
    Address::parse(rest).or_else(with_port).ok_or("what follows its scheme is not HOST or HOST:PORT")
}

impl Link {
    async fn ask(&mut self, entry: &Entry) -> Result<Found, Trouble> {
        let Entry { key, value, expire } = entry;
        let seconds = expire.as_millis().div_ceil(1_000);
        let asked = format!(
            "set {key} 0 {seconds} {}\r\n{value}\r\nget {key}\r\nmg {key} t\r\ndelete {key}\r\nget {key}\r\n",
            value.len()
        );
        self.0.write_all(asked.as_bytes()).await?;
        self.0.flush().await?;
        let stored = self.line().await?;
        if stored != "STORED" {
            return Err(Trouble::refusal(&stored));
        }
        let read = self.value(entry).await?;
        let expiry = expiry(&self.line().await?, seconds)?;
        let deleted = match self.line().await?.as_str() {
            "DELETED" => true,
            "NOT_FOUND" => false,
            _ => return Err(Trouble::Garbled),
        };
        Ok(Found { read, expiry, deleted, after: self.value(entry).await? })
    }

    /// One line, without its end.
    async fn line(&mut self) -> Result<String, Trouble> {
        let mut line = Vec::new();
        (&mut self.0).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => String::from_utf8(line.to_vec()).map_err(|_| Trouble::Garbled),
            None if line.len() as u64 == LONGEST_LINE || line.ends_with(b"\n") => Err(Trouble::Garbled),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// What `get` answers.
    async fn value(&mut self, entry: &Entry) -> Result<Read, Trouble> {
        let line = self.line().await?;
        if line == "END" {
            return Ok(Read::Nothing);
        }
        // One value of another length can only be another one; how much of it there is, is of no interest.
        let head = line.strip_prefix("VALUE ").and_then(|rest| rest.strip_prefix(entry.key.as_str()));
        let length =
            head.and_then(|head| head.rsplit_once(' ')).and_then(|(_, length)| length.parse::<usize>().ok());
        if length != Some(entry.value.len()) {
            return Err(Trouble::Garbled);
        }
        let mut value = vec![0; entry.value.len() + b"\r\nEND\r\n".len()];
        self.0.read_exact(&mut value).await?;
        match value.strip_suffix(b"\r\nEND\r\n") {
            Some(value) if value == entry.value.as_bytes() => Ok(Read::Same),
            Some(_) => Ok(Read::Other),
            None => Err(Trouble::Garbled),
        }
    }
}

impl Trouble {
    fn refusal(line: &str) -> Self {
        let is_one =
            ["SERVER_ERROR", "CLIENT_ERROR", "ERROR", "NOT_STORED"].iter().any(|word| line.starts_with(word));
        if !is_one {
            return Self::Garbled;
        }
        let line = without_secrets(line);
        Self::Refused(line.chars().take(200).map(|char| if char.is_control() { '?' } else { char }).collect())
    }
}

/// What `mg KEY t` answers. Servers before 1.6 and some proxies do not know it.
fn expiry(line: &str, seconds: u128) -> Result<Expiry, Trouble> {
    if line == "EN" {
        return Ok(Expiry::Gone);
    }
    if line.contains("ERROR") {
        return Ok(Expiry::Untold);
    }
    let left = line.strip_prefix("HD t").or_else(|| line.strip_prefix("OK t")).ok_or(Trouble::Garbled)?;
    match left.parse::<u128>() {
        _ if left == "-1" => Ok(Expiry::Never),
        Ok(left) if left <= seconds => Ok(Expiry::Set),
        Ok(_) => Ok(Expiry::Late),
        Err(_) => Err(Trouble::Garbled),
    }
}
