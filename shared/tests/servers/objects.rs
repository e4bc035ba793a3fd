//! Servers that store objects: `s3rver` speaks S3, and `azurite` is Microsoft's own stand-in for Azure.

use std::net::TcpStream;

use super::{Program, free_port, node_program, until};

pub struct S3 {
    pub program: Program,
    pub port: u16,
}

impl S3 {
    /// With a bucket `media`.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = node_program("s3rver");
        command.args(["--address", "127.0.0.1", "--port", &port.to_string(), "--directory"]);
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
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = node_program("azurite-blob");
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]);
        command.arg(folder.path()).args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
        let server = Self { program: Program::start(command, folder), port };
        until("an Azure server", || TcpStream::connect(("127.0.0.1", port)).ok());
        server
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
