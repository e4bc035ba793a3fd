//! Whether a mail server takes this service's mail: connect, encrypt, EHLO, AUTH, and good bye. Nothing is sent.
//!
//! Each question is a connection of its own: mail servers close idle ones, and only a new one shows that the password is
//! still good. Connecting and encrypting is this project's own, as in all kinds; what is spoken then is the client's.

mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::stream::Bounded;
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::net::{Address, Net};
use crate::settings::{TlsFiles, Url};
use crate::starttls::Starttls;
use crate::tls::Tls;

/// What a mail server says where its own greeting came before the connection was encrypted: after that there is none.
const GREETED: &[u8] = b"220 greeted before TLS\r\n";

/// How long a good bye may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// Whether a mail server (SMTP) can be reached and accepts the login. Nothing is sent. Mail that is given to a provider over HTTP is
/// the matter of `http`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// `smtp://HOST[:PORT]` (port 587 with `starttls`, else 25), or `smtps://HOST[:PORT]` (port 465) for a connection that is
    /// encrypted from its first byte; with `USER:PASSWORD@` before the host to log in.
    url: Url,
    /// How an `smtp` connection is encrypted. Default: `starttls` where there is a password, else `none`.
    encryption: Option<Encryption>,
    /// The name that this side greets with. Default: the address that it connects from.
    hello: Option<String>,
    /// Whom to trust, and who this side is.
    #[serde(default)]
    tls: TlsFiles,
}

/// How a connection that begins in plain text is encrypted.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Encryption {
    /// By STARTTLS; a server that does not offer it fails the check.
    Starttls,
    /// Not at all. A password is then readable on the way.
    None,
}

impl Settings for Mail {
    const KIND: &'static str = "mail";
    const EXAMPLE: &'static str = r#"url = "smtp://shop:S3cret@mail.internal:587""#;
    const CONTRACT: Contract = Contract::Peer("url = \"smtp://me:S3cret@{peer}\"\nencryption = \"none\"");
    const MORE_CONTRACTS: &'static [&'static str] =
        &["url = \"smtp://me:S3cret@{peer}\"", "url = \"smtps://me:S3cret@{peer}\""];
    type Check = Server;

    fn build(self) -> Result<Server, Vec<Mistake>> {
        let mut mistakes = Tls::mistakes(&self.tls);
        let security = self.security().map_err(|mistake| mistakes.push(mistake)).unwrap_or(Security::None);
        let mut wrong = |key, what: &'static str| mistakes.push(Mistake::of(key, what));
        let url = self.url.expose();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned());
        if host.is_empty() {
            wrong("url", "there is no host in it");
        } else if name.is_err() {
            wrong("url", "no host can have this name");
        }
        if !matches!((url.path(), url.query(), url.fragment()), ("" | "/", None, None)) {
            wrong("url", "nothing may follow the host and port");
        }
        if self.hello.as_deref().is_some_and(|hello| !is_name(hello)) {
            wrong("hello", "it is a name or an address in brackets, without spaces");
        }
        match name {
            Ok(name) if mistakes.is_empty() => Ok(Server {
                address: Address { host: host.to_owned(), port: url.port().unwrap_or(security.port()) },
                name,
                security,
                login: login(url),
                hello: self.hello.map(ClientId::Domain),
                tls: Tls::new(self.tls),
                net: Net::default(),
            }),
            _ => Err(mistakes),
        }
    }
}

impl Mail {
    fn security(&self) -> Result<Security, Mistake> {
        let url = self.url.expose();
        match (url.scheme(), self.encryption) {
            ("smtps", None) => Ok(Security::Tls),
            ("smtps", Some(_)) => {
                Err(Mistake::of("encryption", "smtps is encrypted from its first byte; this is for smtp"))
            }
            ("smtp", Some(Encryption::Starttls)) => Ok(Security::Starttls),
            ("smtp", None) if login(url).is_some() => Ok(Security::Starttls),
            ("smtp", _) => Ok(Security::None),
            _ => Err(Mistake::of("url", "the URL of a mail server is smtp://HOST or smtps://HOST")),
        }
    }
}

/// What can stand in a command without ending it.
fn is_name(hello: &str) -> bool {
    (1..=255).contains(&hello.len()) && hello.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The user and the password of a URL.
fn login(url: &url::Url) -> Option<Credentials> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let password = url.password().unwrap_or_default();
    (!url.username().is_empty()).then(|| Credentials::new(decoded(url.username()), decoded(password)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    None,
    Starttls,
    Tls,
}

impl Security {
    fn port(self) -> u16 {
        match self {
            Self::None => 25,
            Self::Starttls => 587,
            Self::Tls => 465,
        }
    }
}

/// A mail server, and how it is asked.
#[derive(Debug)]
pub struct Server {
    address: Address,
    name: ServerName<'static>,
    security: Security,
    login: Option<Credentials>,
    hello: Option<ClientId>,
    tls: Tls,
    net: Net,
}

#[async_trait::async_trait]
impl Check for Server {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let stream = self.net.connect(&self.address, deadline).await?;
        let gone = |error| Failure::failed("the connection was lost").because(error);
        let (here, peer) = (stream.local_addr().map_err(gone)?, stream.peer_addr().map_err(gone)?);
        let hello = self.hello.clone().unwrap_or_else(|| address(here));
        let stream = self.secured(stream, peer, &hello).await?;
        let mut connection = AsyncSmtpConnection::connect_with_transport(stream, &hello)
            .await
            .map_err(|error| because(NO_MAIL_SERVER, &error))?;
        if let Some(login) = &self.login {
            let accepted = connection.auth(&[Mechanism::Plain, Mechanism::Login], login).await;
            accepted.map_err(|error| because("the login was not accepted", &error))?;
        }
        // All is known by now: a server that does not say good bye, or not in time, has answered all the same.
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = timeout(FAREWELL.min(left / 2), connection.quit()).await;
        Ok(())
    }
}

const NO_MAIL_SERVER: &str = "the mail server does not answer as one";

impl Server {
    /// The connection that all is said over, encrypted where it has to be.
    async fn secured(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        hello: &ClientId,
    ) -> Result<Box<dyn AsyncTokioStream>, Failure> {
        Ok(match self.security {
            Security::None => Box::new(Bounded::new(stream, peer, b"")),
            Security::Tls => Box::new(Bounded::new(self.encrypted(stream).await?, peer, b"")),
            Security::Starttls => {
                Starttls::Smtp.begin(&mut stream, &hello.to_string()).await.map_err(not_begun)?;
                Box::new(Bounded::new(self.encrypted(stream).await?, peer, GREETED))
            }
        })
    }

    async fn encrypted(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
        let connector = TlsConnector::from(self.tls.config()?);
        connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(|error| Failure::failed("the connection could not be encrypted").because(error))
    }
}

/// This side, as a mail server is told an address.
fn address(here: SocketAddr) -> ClientId {
    match here {
        SocketAddr::V4(here) => ClientId::Ipv4(*here.ip()),
        SocketAddr::V6(here) => ClientId::Ipv6(*here.ip()),
    }
}

fn not_begun(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::Unsupported => Failure::failed("the mail server does not offer encryption"),
        _ => Failure::failed(NO_MAIL_SERVER).because(error),
    }
}

/// What happened without what the server said: one that means harm repeats the password.
fn because(reason: &'static str, error: &Error) -> Failure {
    let failure = Failure::failed(reason);
    match error.status() {
        Some(code) => failure.because(Refused(code.to_string())),
        None if error.is_response() => failure.because("not an answer that a mail server gives"),
        None => failure.because(chain(error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// A code that a mail server refused with.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.0)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(settings: &str) -> Result<Server, Vec<Mistake>> {
        serde_json::from_str::<Mail>(settings).expect(settings).build()
    }

    #[test]
    fn the_port_and_the_encryption_follow_from_the_url() {
        for (settings, port, security) in [
            (r#"{"url": "smtp://h"}"#, 25, Security::None),
            (r#"{"url": "smtp://h", "encryption": "starttls"}"#, 587, Security::Starttls),
            (r#"{"url": "smtp://me:S3cret@h"}"#, 587, Security::Starttls),
            (r#"{"url": "smtp://me:S3cret@h", "encryption": "none"}"#, 25, Security::None),
            (r#"{"url": "smtps://h"}"#, 465, Security::Tls),
            (r#"{"url": "smtps://h:2525/"}"#, 2525, Security::Tls),
        ] {
            let server = server(settings).expect(settings);
            assert_eq!((server.address.port, server.security), (port, security), "{settings}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        for (settings, mistakes) in [
            (r#"{"url": "http://h"}"#, 1),
            (r#"{"url": "smtp:///?a=b"}"#, 2),
            (r#"{"url": "smtps://h/path", "encryption": "none"}"#, 2),
            (r#"{"url": "smtp://h#part", "hello": "h\r\nQUIT", "tls": {"cert": "x"}}"#, 3),
            (r#"{"url": "smtp://a_%/"}"#, 1),
        ] {
            assert_eq!(server(settings).unwrap_err().len(), mistakes, "{settings}");
        }
    }

    #[test]
    fn user_and_password_are_decoded_and_shown_nowhere() {
        let server = server(r#"{"url": "smtp://me%40home:S3cret%2F@h"}"#).unwrap();
        assert_eq!(server.login, Some(Credentials::new("me@home".to_owned(), "S3cret/".to_owned())));
        assert!(!format!("{server:?}").contains("S3cret"));
    }
}
