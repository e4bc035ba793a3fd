//! HTTPS: the certificate and its key, which may be renewed at any time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use nix::libc;
use shared::config::Https;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// What no file of certificates or keys is as large as.
const TOO_LARGE: u64 = 1 << 20;

/// What changes with a file: inode, size, and its last change to the nanosecond.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What a server shows for itself.
pub struct Certificate {
    files: Https,
    current: RwLock<([Stamp; 2], TlsAcceptor)>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads the files.
    pub fn read(files: Https) -> io::Result<Self> {
        let stamps = stamps(&files);
        let current = RwLock::new((stamps, acceptor(&files)?));
        Ok(Self { files, current })
    }

    /// Reads the files again where they have changed; whether they had. Where they cannot be used, what they held before stays.
    pub fn renew(&self) -> io::Result<bool> {
        let stamps = stamps(&self.files);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamps {
            return Ok(false);
        }
        let acceptor = acceptor(&self.files);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Told once, and not at every look.
        current.0 = stamps;
        current.1 = acceptor?;
        Ok(true)
    }

    /// Encrypts a connection.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let acceptor = self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone();
        acceptor.accept(stream).await
    }
}

fn stamps(files: &Https) -> [Stamp; 2] {
    [&files.cert, &files.key].map(|path| {
        let of = path.metadata().ok()?;
        Some((of.ino(), of.len(), of.mtime(), of.mtime_nsec()))
    })
}

fn acceptor(files: &Https) -> io::Result<TlsAcceptor> {
    let Https { cert, key } = files;
    let chain = CertificateDer::pem_slice_iter(&contents(cert)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| unusable(cert, error))?;
    if chain.is_empty() {
        return Err(unusable(cert, "no certificate in it"));
    }
    let secret =
        PrivateKeyDer::from_pem_slice(&contents(key)?).map_err(|_| unusable(key, "no private key in it"))?;
    let config = ServerConfig::builder_with_provider(shared::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, secret);
    let mut config = config.map_err(|error| unusable(key, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The file's contents. A pipe would keep its reader for ever, so it is opened without waiting, and not read.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut contents = Vec::new();
        file.take(TOO_LARGE).read_to_end(&mut contents)?;
        Ok(contents)
    };
    read().map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{} cannot be used: {why}", path.display()))
}
