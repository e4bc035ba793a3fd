//! Servers that store objects: `s3rver` speaks S3, `moto` does too and looks at signatures, `azurite` is Microsoft's own
//! stand-in for Azure; for Google's see `objects.py`.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{Program, free_port, node_program, python, until};

/// What a server on `localhost` shows, which is its own authority.
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), issued.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
        Self { folder }
    }

    pub fn ca(&self) -> String {
        self.folder.path().join("cert.pem").display().to_string()
    }

    pub fn key(&self) -> String {
        self.folder.path().join("key.pem").display().to_string()
    }

    fn arguments(&self) -> [String; 4] {
        ["--cert".to_owned(), self.ca(), "--key".to_owned(), self.key()]
    }
}

pub struct S3 {
    pub program: Program,
    pub port: u16,
}

impl S3 {
    /// With a bucket `media`.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with_tls(tls: &Certificate) -> Self {
        Self::start_with(&tls.arguments())
    }

    fn start_with(arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = node_program("s3rver");
        command.args(arguments).args(["--address", "127.0.0.1", "--port", &port.to_string(), "--directory"]);
        command.arg(folder.path()).args(["--no-vhost-buckets", "--configure-bucket", "media"]);
        let server = Self { program: Program::start(command, folder), port };
        server.wait();
        server
    }

    pub fn wait(&self) {
        until("an S3 server", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// The files that hold the bucket's objects.
    pub fn files(&self) -> Vec<String> {
        let bucket = self.program.folder.path().join("media");
        let mut folders = vec![bucket];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        files
    }
}

/// One that looks at who asks, and at the signature.
pub struct SigningS3 {
    pub program: Program,
    pub port: u16,
}

impl SigningS3 {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = objects("aws", port);
        command.arg(folder.path());
        Self { program: Program::start(command, folder), port }
    }

    /// The account and the secret of `shop`, who may do everything, or of `reader`.
    pub fn user(&self, name: &str) -> (String, String) {
        let users = self.program.folder.path().join("users.json");
        let users = until("an S3 server", || std::fs::read(&users).ok());
        let users: Value = serde_json::from_slice(&users).unwrap();
        let text = |what: &str| users[name][what].as_str().unwrap().to_owned();
        (text("account"), text("secret"))
    }
}

/// What Google Cloud Storage is to who has a service account.
pub struct GoogleStorage {
    pub program: Program,
    pub port: u16,
}

impl GoogleStorage {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Over TLS alone, with who shows this certificate too.
    pub fn start_for_the_certified(tls: &Certificate) -> Self {
        Self::start_with(&[tls.ca(), tls.key()])
    }

    fn start_with(arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let key = folder.path().join("key.pem");
        openssl(&["genrsa", "-out", key.to_str().unwrap(), "2048"]);
        let public = folder.path().join("public.pem");
        openssl(&["rsa", "-in", key.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
        let mut command = objects("google", port);
        command.arg(folder.path()).args(arguments);
        let server = Self { program: Program::start(command, folder), port };
        server.wait();
        server
    }

    pub fn wait(&self) {
        until("a storage like Google's", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// The file of a service account with its own key, or with another one.
    pub fn account(&self, own: bool) -> PathBuf {
        let place = self.program.folder.path();
        if !own {
            openssl(&["genrsa", "-out", place.join("other.pem").to_str().unwrap(), "2048"]);
        }
        let name = if own { "key" } else { "other" };
        let account = serde_json::json!({
            "type": "service_account",
            "client_email": "shop@example.test",
            "private_key_id": "1",
            "private_key": std::fs::read_to_string(place.join(name).with_extension("pem")).unwrap(),
        });
        let file = place.join(name).with_extension("json");
        std::fs::write(&file, account.to_string()).unwrap();
        file
    }
}

fn objects(which: &str, port: u16) -> Command {
    let mut command = python();
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/objects.py"));
    command.args([which, &port.to_string()]);
    command
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("Debian's package `openssl`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub struct Azurite {
    pub program: Program,
    pub port: u16,
}

impl Azurite {
    /// The account that it always has, with the key that everybody knows.
    pub const ACCOUNT: &str = "devstoreaccount1";
    pub const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with_tls(tls: &Certificate) -> Self {
        Self::start_with(&tls.arguments())
    }

    fn start_with(arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = node_program("azurite-blob");
        command.args(arguments).args([
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port.to_string(),
            "--location",
        ]);
        command.arg(folder.path()).args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
        let server = Self { program: Program::start(command, folder), port };
        server.wait();
        server
    }

    pub fn wait(&self) {
        until("an Azure server", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.port, Self::ACCOUNT)
    }

    pub async fn make_container(&self, name: &str) {
        use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
        let url = format!("{}/{name}?restype=container", self.endpoint());
        let request = http::Request::put(&url).header("content-length", "0");
        let mut request = request.body(object_store::client::HttpRequestBody::empty()).unwrap();
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(Self::KEY).unwrap());
        AzureAuthorizer::new(&credential, Self::ACCOUNT).try_authorize(&mut request).unwrap();
        let tls = shared::tls::client(&shared::settings::TlsFiles::default()).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let answer = client.put(&url).headers(request.headers().clone()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201);
    }
}
