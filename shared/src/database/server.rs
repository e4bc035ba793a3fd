//! A database that is a server: how it is reached, and what its URL says to any driver.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use percent_encoding::percent_decode_str;
use sqlx::Error;
use tokio::net::UnixStream;

use super::relay::{Relay, Stream};
use super::trouble::{Trouble, What, contained};
use crate::check::chain;
use crate::net::{Address, Net};

/// The URL's parameters that mean something here. All others are the service's own driver's.
const KNOWN: [&str; 20] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "socket",
    "charset",
];

/// What reaches one server.
#[derive(Clone)]
pub struct Way {
    secrets: Secrets,
    net: Net,
}

impl Way {
    pub fn new(url: &url::Url) -> Self {
        Self { secrets: secrets(url), net: Net::default() }
    }

    /// A connection to the server, of which the driver knows nothing.
    pub async fn reach(
        &self,
        socket: Option<PathBuf>,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Box<dyn Stream>, Trouble> {
        if let Some(socket) = socket {
            let server = UnixStream::connect(socket).await.map_err(unreachable)?;
            return Ok(Box::new(server));
        }
        let address = Address { host: host.to_owned(), port };
        Ok(Box::new(self.net.connect(&address, deadline).await.map_err(unreachable)?))
    }

    /// The way to it, and the socket that leads there.
    pub fn line(&self, relay: io::Result<Relay>) -> Result<(Line, String), Trouble> {
        let relay = relay.map_err(unreachable)?;
        let socket = relay.socket();
        Ok((Line { relay, secrets: self.secrets.clone() }, socket))
    }
}

fn unreachable(error: impl std::error::Error + 'static) -> Trouble {
    Trouble::new(What::Unreachable, chain(&error))
}

/// What no error may repeat.
#[derive(Clone, Default)]
struct Secrets(std::sync::Arc<[String]>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// The way to a server, and what no error on it may repeat.
#[derive(Debug)]
pub struct Line {
    relay: Relay,
    secrets: Secrets,
}

impl Line {
    /// What the driver does over it.
    pub(crate) async fn contained<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
        connecting: bool,
    ) -> Result<T, Trouble> {
        let done = self.relay.beside(contained(work, connecting, &self.secrets.0)).await;
        if done.is_err() && self.relay.has_overflowed() {
            return Err(Trouble::new(What::Nonsense, "more came than was asked for"));
        }
        done
    }

    /// The same for what the driver does last.
    pub async fn ended(self, work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        self.relay.beside_the_last(work).await
    }
}

/// The URL with the parameters that mean something here. What is misspelt of TLS is a mistake, as it would leave the
/// connection open to all.
pub fn known(url: &url::Url) -> Result<url::Url, String> {
    let mut kept = url.clone();
    kept.set_query(None);
    for (name, value) in url.query_pairs() {
        if KNOWN.contains(&&*name) || name.starts_with("options[") {
            kept.query_pairs_mut().append_pair(&name, &value);
        } else if name.to_ascii_lowercase().contains("ssl") || name.to_ascii_lowercase().contains("tls") {
            let name: String = name
                .chars()
                .filter(|char| char.is_ascii_alphanumeric() || "-_".contains(*char))
                .take(30)
                .collect();
            return Err(format!(
                "`{name}` is no parameter here; those of TLS are sslmode, sslrootcert, sslcert and sslkey (for MySQL ssl-mode, ssl-ca, ssl-cert and ssl-key)"
            ));
        }
    }
    Ok(kept)
}

pub fn wrong_parameter() -> String {
    "a parameter after the question mark has a value that it cannot have".to_owned()
}

/// An address in brackets, without them.
pub fn ipv6(url: &url::Url) -> Option<String> {
    Some(url.host_str()?.strip_prefix('[')?.strip_suffix(']')?.to_owned())
}

/// Passwords, as they stand there and as they are meant.
fn secrets(url: &url::Url) -> Secrets {
    let written = url.password().unwrap_or_default();
    let meant = percent_decode_str(written).decode_utf8_lossy().into_owned();
    let parameter =
        url.query_pairs().filter(|(name, _)| name == "password").map(|(_, value)| value.into_owned());
    Secrets(
        [written.to_owned(), meant]
            .into_iter()
            .chain(parameter)
            .filter(|secret| !secret.is_empty())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_password_is_a_secret_and_is_not_shown() {
        let url = url::Url::parse("postgres://u:S3cret%21@db/shop?password=S3cret2").unwrap();
        let secrets = secrets(&url);
        assert_eq!(&*secrets.0, ["S3cret%21", "S3cret!", "S3cret2"]);
        assert!(!format!("{secrets:?}").contains("S3cret"));
    }
}
