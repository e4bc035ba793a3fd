//! TLS with the settings that all kinds share: rustls with ring, whatever provider the rest of the program uses.
//!
//! Who connects, and what a certificate must be besides trusted, is the concern of the kind that asks.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::check::Failure;
use crate::kind::Mistake;
use crate::settings::TlsFiles;

/// What no file of certificates or keys is as large as. The system's own bundles have a quarter of it.
const TOO_LARGE: u64 = 1 << 20;

/// How to encrypt connections, by [`TlsFiles`] that may be renewed at any time: they are read at the first use, and again
/// once they have changed.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    read: Mutex<Option<(Stamps, Arc<ClientConfig>)>>,
}

/// What changes with a file: inode, size, and its last change to the nanosecond.
type Stamps = Vec<Option<(u64, u64, i64, i64)>>;

impl Tls {
    /// Reads nothing yet.
    pub fn new(files: TlsFiles) -> Self {
        Self { files, read: Mutex::new(None) }
    }

    /// What is wrong with the settings, before any file is looked at: a chain without its key, or a key without its chain.
    pub fn mistakes(files: &TlsFiles) -> Vec<Mistake> {
        match (&files.cert, &files.key) {
            (Some(_), None) => vec![Mistake::of("tls", "`cert` needs the `key` that belongs to it")],
            (None, Some(_)) => vec![Mistake::of("tls", "`key` needs the `cert` that it belongs to")],
            _ => Vec::new(),
        }
    }

    /// How to encrypt the next connection: the same one, as long as no file has changed. It reads small local files, and
    /// of anything but a regular file nothing.
    pub fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let stamps = self.stamps();
        // A panic elsewhere leaves nothing half-made here.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, config)) = &*read
            && *then == stamps
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(client(&self.files)?);
        *read = Some((stamps, Arc::clone(&config)));
        Ok(config)
    }

    /// The certificates that are trusted, for who judges a peer's otherwise than by connecting.
    pub fn roots(&self) -> Result<Arc<RootCertStore>, Failure> {
        roots(&self.files)
    }

    fn stamps(&self) -> Stamps {
        let files = [&self.files.ca, &self.files.cert, &self.files.key];
        let stamp = |path: &std::path::PathBuf| {
            let of = path.metadata().ok()?;
            Some((of.ino(), of.len(), of.mtime(), of.mtime_nsec()))
        };
        files.into_iter().flatten().map(stamp).collect()
    }
}

/// Whether TLS itself found what ended a connection, such as a certificate that one side does not accept. An I/O error does not
/// tell what it holds as its source, and may hold another one.
pub fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inside.is_some_and(|inside| is_of_tls(inside))
}

/// A connection that could not be encrypted: by what TLS found, or because it ended before.
pub fn unencrypted(error: io::Error) -> Failure {
    let reason = if is_of_tls(&error) {
        "the connection could not be encrypted"
    } else {
        "the connection was closed before it was encrypted"
    };
    Failure::failed(reason).because(error)
}

/// The cryptography that every connection of ours uses.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// How to encrypt a connection, by what the files hold now.
pub fn client(files: &TlsFiles) -> Result<ClientConfig, Failure> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::unknown("TLS cannot be set up").because(error))?
        .with_root_certificates(roots(files)?);
    let (Some(chain), Some(key)) = (&files.cert, &files.key) else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates("cert", chain)?;
    let pem = contents("key", key)?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable("key", key, "no private key in it"))?;
    config
        .with_client_auth_cert(chain, key)
        .map_err(|error| Failure::unknown("the client certificate and its key cannot be used").because(error))
}

fn roots(files: &TlsFiles) -> Result<Arc<RootCertStore>, Failure> {
    let Some(path) = &files.ca else { return system_roots() };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", path)? {
        roots.add(certificate).map_err(|error| unusable("ca", path, error))?;
    }
    Ok(Arc::new(roots))
}

/// The system's certificates, read once: they are many, and rarely change.
fn system_roots() -> Result<Arc<RootCertStore>, Failure> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    // Some of them are of forms that rustls does not take; what matters is that there are any.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failure::unknown("the system has no certificates to trust"));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = contents(setting, path)?;
    let read = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = read.map_err(|error| unusable(setting, path, error))?;
    if certificates.is_empty() {
        Err(unusable(setting, path, "no certificate in it"))
    } else {
        Ok(certificates)
    }
}

/// The contents of the file that a setting names. A pipe would keep its reader for ever, so it is opened without waiting, and not
/// read.
pub(crate) fn contents(setting: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut contents = Vec::new();
        file.take(TOO_LARGE + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > TOO_LARGE { Err(io::Error::other("too large")) } else { Ok(contents) }
    };
    read().map_err(|error| unusable(setting, path, error))
}

fn unusable(setting: &str, path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::unknown(format!("the file of `{setting}` cannot be used"))
        .because(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs;
    use std::path::PathBuf;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn files() -> (tempfile::TempDir, TlsFiles) {
        let folder = tempfile::tempdir().unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("ca"), cert.pem()).unwrap();
        fs::write(path("cert"), cert.pem()).unwrap();
        fs::write(path("key"), signing_key.serialize_pem()).unwrap();
        let files = TlsFiles { ca: Some(path("ca")), cert: Some(path("cert")), key: Some(path("key")) };
        (folder, files)
    }

    #[test]
    fn files_are_read_again_only_once_they_have_changed() {
        let (_folder, files) = files();
        let tls = Tls::new(files.clone());
        let first = tls.config().unwrap();
        assert!(Arc::ptr_eq(&first, &tls.config().unwrap()));
        let renewed = generate_simple_self_signed(["renewed".to_owned()]).unwrap();
        fs::write(files.ca.as_ref().unwrap(), renewed.cert.pem()).unwrap();
        assert!(!Arc::ptr_eq(&first, &tls.config().unwrap()));
        fs::remove_file(files.ca.unwrap()).unwrap();
        assert_eq!(tls.config().unwrap_err().reason(), "the file of `ca` cannot be used");
    }

    #[test]
    fn what_is_no_certificate_is_told_by_its_setting_and_never_repeated() {
        let (folder, good) = files();
        let bad = folder.path().join("bad");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(TOO_LARGE + 1).unwrap();
        fs::write(&bad, "S3cret").unwrap();
        let refused = |files: TlsFiles| {
            let failure = client(&files).unwrap_err();
            let told = format!("{failure} {:?}", failure.source());
            assert!(!told.contains("S3cret"), "{told}");
            failure.reason().to_owned()
        };
        let with = |path: &PathBuf| Some(path.clone());
        for path in [&bad, &pipe, &large, &folder.path().to_owned(), &folder.path().join("missing")] {
            let ca = TlsFiles { ca: with(path), ..TlsFiles::default() };
            assert_eq!(refused(ca), "the file of `ca` cannot be used", "{}", path.display());
            let cert = TlsFiles { cert: with(path), ..good.clone() };
            assert_eq!(refused(cert), "the file of `cert` cannot be used");
            let key = TlsFiles { key: with(path), ..good.clone() };
            assert_eq!(refused(key), "the file of `key` cannot be used");
        }
        // A key that belongs to another certificate.
        let other = generate_simple_self_signed(["other".to_owned()]).unwrap();
        fs::write(&bad, other.signing_key.serialize_pem()).unwrap();
        let key = TlsFiles { key: with(&bad), ..good };
        assert_eq!(refused(key), "the client certificate and its key cannot be used");
    }

    #[test]
    fn a_chain_and_its_key_come_together() {
        let (_folder, files) = files();
        assert_eq!(Tls::mistakes(&files), []);
        assert_eq!(Tls::mistakes(&TlsFiles { key: None, ..files.clone() }).len(), 1);
        assert_eq!(Tls::mistakes(&TlsFiles { cert: None, ..files }).len(), 1);
    }
}
