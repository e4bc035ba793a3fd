//! A memcached that is asked over TLS: `memcacheds://HOST[:11211]`, with certificates as a `rediss://` names them.

use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::host;
use crate::check::Failure;
use crate::net::Address;
use crate::settings::TlsFiles;
use crate::tls::{Tls, unencrypted};

/// Where it is, whom to trust, and who this side is.
#[derive(Debug)]
pub struct Encrypted {
    address: Address,
    name: ServerName<'static>,
    tls: Tls,
}

impl Encrypted {
    /// By what follows the scheme: `HOST`, `HOST:PORT`, with `?ca=FILE` and `&cert=FILE&key=FILE`.
    pub fn read(rest: &str) -> Result<Self, &'static str> {
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let address = host(place)?;
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| "no certificate can be for a host of this name")?;
        Ok(Self { address, name, tls: Tls::new(files(options)?) })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What goes over this connection from now on is encrypted.
    pub async fn encrypt(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
        let connector = TlsConnector::from(self.tls.config()?);
        connector.connect(self.name.clone(), stream).await.map_err(unencrypted)
    }
}

fn files(options: &str) -> Result<TlsFiles, &'static str> {
    const OTHER: &str = "after the question mark there is ca=FILE or cert=FILE&key=FILE or both, each once";
    let mut files = TlsFiles::default();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, path) = option.split_once('=').ok_or(OTHER)?;
        let file = match name {
            "ca" => &mut files.ca,
            "cert" => &mut files.cert,
            "key" => &mut files.key,
            _ => return Err(OTHER),
        };
        let path = percent_decode_str(path).decode_utf8().map_err(|_| OTHER)?;
        if path.is_empty() || file.replace(path.into_owned().into()).is_some() {
            return Err(OTHER);
        }
    }
    if files.cert.is_some() == files.key.is_some() {
        Ok(files)
    } else {
        Err("a client certificate needs both cert and key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_named_each_once_and_a_chain_with_its_key() {
        let read = |options: &str| files(options).map(|files| [files.ca, files.cert, files.key]);
        let path = |path: &str| Some(path.into());
        assert_eq!(read(""), Ok([None, None, None]));
        assert_eq!(read("ca=/a%20b/c+d.pem"), Ok([path("/a b/c+d.pem"), None, None]));
        assert_eq!(read("cert=c&key=k&ca=a"), Ok([path("a"), path("c"), path("k")]));
        for wrong in ["ca", "ca=", "ca=a&ca=b", "CA=a", "cert=c", "ca=a&key=k", "verify=no", "ca=%ff"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_what_a_certificate_can_be_for() {
        for (good, port) in [("cache.internal", 11_211), ("[::1]:7/?ca=a", 7), ("127.0.0.1:8?", 8)] {
            assert_eq!(Encrypted::read(good).unwrap().address().port, port, "{good}");
        }
        for wrong in ["", "?ca=a", "a_b:0", "me:S3cret@h", "h/1", "a b"] {
            assert!(Encrypted::read(wrong).is_err(), "{wrong}");
        }
    }
}
