//! Whether a mail server takes this service's mail: connect, encrypt, EHLO, AUTH, and good bye. Nothing is sent.
//!
//! Each question is a connection of its own: mail servers close idle ones, and only a new one shows that the password is
//! still good.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::extension::ClientId;
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::Url;

/// How many bytes of certificates are read at most.
const MAX_CA: u64 = 1 << 20;

/// Whether a mail server (SMTP) can be reached and accepts the login. Nothing is sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// `smtp://HOST[:PORT]` (port 587 with `starttls`, else 25), or `smtps://HOST[:PORT]` (port 465) for a connection that is
    /// encrypted from its first byte; with `USER:PASSWORD@` before the host to log in.
    url: Url,
    /// How an `smtp` connection is encrypted. Default: `starttls` where there is a password, else `none`.
    encryption: Option<Encryption>,
    /// Certificates (PEM) of the authorities to trust. Default: the system's.
    ca: Option<PathBuf>,
    /// The name that this side greets with. Default: the address that it connects from.
    hello: Option<String>,
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
    type Check = Server;

    fn build(self) -> Result<Server, Vec<Mistake>> {
        let url = self.url.expose();
        let login = login(url);
        let security = match (url.scheme(), self.encryption) {
            ("smtps", None) => Ok(Security::Tls),
            ("smtps", Some(_)) => {
                Err(Mistake::of("encryption", "smtps is encrypted from its first byte; this is for smtp"))
            }
            ("smtp", Some(Encryption::Starttls)) => Ok(Security::Starttls),
            ("smtp", None) if login.is_some() => Ok(Security::Starttls),
            ("smtp", _) => Ok(Security::None),
            _ => Err(Mistake::of("url", "the URL of a mail server is smtp://HOST or smtps://HOST")),
        };
        let host = match url.host_str() {
            Some(host) if !host.is_empty() => Ok(host.to_owned()),
            _ => Err(Mistake::of("url", "there is no host in it")),
        };
        let rest = match (url.path(), url.query(), url.fragment()) {
            ("" | "/", None, None) => Ok(()),
            _ => Err(Mistake::of("url", "nothing may follow the host and port")),
        };
        match (security, host, rest) {
            (Ok(security), Ok(host), Ok(())) => Ok(Server {
                port: url.port().unwrap_or(security.port()),
                host,
                security,
                login,
                ca: self.ca,
                hello: self.hello.map_or_else(ClientId::default, ClientId::Domain),
            }),
            (security, host, rest) => {
                Err([security.err(), host.err(), rest.err()].into_iter().flatten().collect())
            }
        }
    }
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
    host: String,
    port: u16,
    security: Security,
    login: Option<Credentials>,
    ca: Option<PathBuf>,
    hello: ClientId,
}

#[async_trait::async_trait]
impl Check for Server {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        let mut connection = self.connect().await?;
        if self.security == Security::Starttls {
            if !connection.can_starttls() {
                return Err(Failure::failed("the mail server does not offer encryption"));
            }
            let encrypted = connection.starttls(self.tls().await?, &self.hello).await;
            encrypted.map_err(|error| because("the connection could not be encrypted", &error))?;
        }
        if let Some(login) = &self.login {
            let accepted = connection.auth(&[Mechanism::Plain, Mechanism::Login], login).await;
            accepted.map_err(|error| because("the login was not accepted", &error))?;
        }
        // All is known by now: a server that does not say good bye has answered all the same.
        let _ = connection.quit().await;
        Ok(())
    }
}

impl Server {
    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let tls = if self.security == Security::Tls { Some(self.tls().await?) } else { None };
        let address = (self.host.trim_matches(['[', ']']), self.port);
        AsyncSmtpConnection::connect_tokio1(address, None, &self.hello, tls, None)
            .await
            .map_err(|error| because("the mail server does not answer as one", &error))
    }

    /// Read anew for each question, because certificates are renewed while a check goes on.
    async fn tls(&self) -> Result<TlsParameters, Failure> {
        let (host, ca) = (self.host.clone(), self.ca.clone());
        let built = tokio::task::spawn_blocking(move || parameters(host, ca.as_deref())).await;
        built
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|error| Failure::unknown("the certificates to trust cannot be read").because(error))
    }
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

fn parameters(host: String, ca: Option<&Path>) -> Result<TlsParameters, Unreadable> {
    let builder = TlsParametersBuilder::new(host);
    let builder = match ca {
        Some(path) => builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(Certificate::from_pem(&read(path)?)?),
        None => builder,
    };
    Ok(builder.build()?)
}

fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_CA).read_to_end(&mut text)?;
    Ok(text)
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
            assert_eq!((server.port, server.security), (port, security), "{settings}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        for (settings, mistakes) in [
            (r#"{"url": "http://h"}"#, 1),
            (r#"{"url": "smtp:///?a=b"}"#, 2),
            (r#"{"url": "smtps://h/path", "encryption": "none"}"#, 2),
            (r#"{"url": "smtp://h#part"}"#, 1),
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
