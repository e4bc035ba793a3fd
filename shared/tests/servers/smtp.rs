//! An SMTP server: aiosmtpd, of Debian's packages, run by Debian's Python.

use std::net::TcpStream;
use std::process::Command;

use super::{Program, free_port, until};

pub struct Smtp {
    pub program: Program,
    pub port: u16,
    /// The certificate of its authority.
    pub ca: String,
    /// The key to it.
    pub key: String,
}

impl Smtp {
    /// `mode` is `plain`, `starttls` or `tls`.
    pub fn start(mode: &str) -> Self {
        Self::start_with(mode, &[])
    }

    /// One that lets in who shows its own certificate.
    pub fn start_for_the_certified(mode: &str) -> Self {
        Self::start_with(mode, &["ca.pem"])
    }

    fn start_with(mode: &str, clients: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let port = free_port();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/smtp.py"));
        command.args([&port.to_string(), mode]);
        if mode != "plain" {
            let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(path("ca.pem"), issued.cert.pem()).unwrap();
            std::fs::write(path("key.pem"), issued.signing_key.serialize_pem()).unwrap();
            command.args(["ca.pem", "key.pem"].iter().chain(clients).map(|name| path(name)));
        }
        let (ca, key) = (path("ca.pem"), path("key.pem"));
        let server = Self { program: Program::start(command, folder), port, ca, key };
        server.wait();
        server
    }

    pub fn restart(&mut self) {
        self.program.restart();
        self.wait();
    }

    fn wait(&self) {
        until("a mail server", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }
}
