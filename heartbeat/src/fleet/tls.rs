//! TLS by rustls with ring, whatever provider the rest of the program uses: to a Redis, and to whatever else takes the
//! same files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::error::{Error, ErrorKind};
use super::socket::Paced;

/// The PEM files of a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The only certificates to trust; without it, the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// The configuration of a client that uses these files, read now.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        Tls::load(self).map(|tls| tls.0)
    }
}

/// How to encrypt a connection.
#[derive(Clone, Debug)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the certificates: anew for each connection, because they are renewed under a worker that runs for long.
    pub(super) fn load(files: &Files) -> Result<Self, Error> {
        let roots = match &files.ca {
            Some(path) => Arc::new(private_roots(path)?),
            None => system_roots()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| configuration("TLS", error))?
            .with_root_certificates(roots);
        let config = match &files.client {
            Some((chain, key)) => {
                let certificates = certificates(chain)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
                config.with_client_auth_cert(certificates, key).map_err(|error| unusable(chain, error))?
            }
            None => config.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands at once, so that what goes wrong there is told as such.
    pub fn handshake(
        &self,
        name: &str,
        mut socket: Paced,
    ) -> io::Result<StreamOwned<ClientConnection, Paced>> {
        let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, "no certificate can be for this name");
        let name = ServerName::try_from(name.to_owned()).map_err(invalid)?;
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }
}

/// The system's certificates, read once: they are many, and rarely change.
fn system_roots() -> Result<Arc<RootCertStore>, Error> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    // Some of them are of forms that rustls does not take; what matters is that there are any.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::new(
            ErrorKind::Configuration,
            "the system has no certificates to trust: give ca=FILE",
        ));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

fn private_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(path, error))?;
    if certificates.is_empty() { Err(unusable(path, "no certificate in it")) } else { Ok(certificates) }
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    configuration(path.display(), why)
}

fn configuration(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Configuration, format!("{what} cannot be used: {why}"))
}
