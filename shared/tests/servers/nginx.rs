//! nginx: one process, with and without TLS.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use super::{Program, free_port, until};

/// What it answers by path; `PORT` and `TLS` stand for its ports, and what follows `S3cret` is for who has it.
const ANSWERS: &str = r#"
    location = /ok { add_header X-Role primary; return 200 "all is well 17\n"; }
    location = /made { return 204; }
    location = /broken { return 500 "S3cret"; }
    location = /hop { return 302 /ok; }
    location = /loop { return 302 /loop; }
    location = /down { return 302 http://127.0.0.1:PORT/ok; }
    location = /up { return 302 https://localhost:TLS/ok; }
    location = /elsewhere { return 302 http://localhost:PORT/ok; }
    location = /bearer { if ($http_authorization != "Bearer S3cret") { return 401; } return 200; }
    location = /basic { if ($http_authorization != "Basic dXNlcjpTM2NyZXQ=") { return 401; } return 200; }
    location = /certified { if ($ssl_client_verify != SUCCESS) { return 403; } return 200; }
    location = /key { if ($http_x_key != "S3cret") { return 403; } return 200; }
    location = /endless { root FOLDER; }
    location /published/ { root FOLDER; }
"#;

pub struct Nginx {
    pub program: Program,
    pub port: u16,
    pub tls: u16,
    /// The certificate of its TLS port, which is its own authority, and that of who is let in at `/certified`.
    pub ca: String,
    /// The key to it.
    pub key: String,
}

impl Nginx {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("cert.pem"), cert.pem()).unwrap();
        fs::write(path("key.pem"), signing_key.serialize_pem()).unwrap();
        // As large as the file system lets a file be, and without a byte on the disk.
        fs::File::create(path("endless")).unwrap().set_len(1 << 40).unwrap();
        let (port, tls) = (free_port(), free_port());
        let listen = format!("listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl;");
        fs::write(path("nginx.conf"), configuration(&folder, &listen, port, tls)).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-p", &path(""), "-c", &path("nginx.conf"), "-e", &path("error.log")]);
        let (ca, key) = (path("cert.pem"), path("key.pem"));
        let nginx = Self { program: Program::start(command, folder), port, tls, ca, key };
        nginx.wait();
        nginx
    }

    pub fn wait(&self) {
        until("nginx accepts connections", || TcpStream::connect(("127.0.0.1", self.tls)).ok());
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn tls_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls)
    }

    /// Makes this text what it answers at `/published/NAME`, from one moment to the next. It tells a change by second and size
    /// alone, so one of the same size gets a blank more.
    pub fn publish(&self, name: &str, text: &str) {
        let folder = self.program.folder.path();
        let path = folder.join("published").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let same = path.metadata().is_ok_and(|before| before.len() == text.len() as u64);
        let text = if same { format!("{text}\n") } else { text.to_owned() };
        fs::write(folder.join("next"), text).unwrap();
        fs::rename(folder.join("next"), path).unwrap();
    }

    /// Of each request: its status and path.
    pub fn answers(&self) -> Vec<String> {
        let log = fs::read_to_string(self.program.folder.path().join("answers.log")).unwrap();
        log.lines().map(ToOwned::to_owned).collect()
    }

    /// Of each request: its number on its connection.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.program.folder.path().join("access.log")).unwrap();
        log.lines().map(ToOwned::to_owned).collect()
    }
}

fn configuration(folder: &TempDir, listen: &str, port: u16, tls: u16) -> String {
    let here = folder.path().display().to_string();
    let answers = ANSWERS.replace("PORT", &port.to_string()).replace("TLS", &tls.to_string());
    let answers = answers.replace("FOLDER", &here);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
        .concat();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {here}/pid;\n\
         events {{ }}\n\
         http {{ {temporary} log_format plain '$connection_requests'; access_log {here}/access.log plain;\n\
         log_format answers '$status $uri'; access_log {here}/answers.log answers;\n\
         server {{ {listen} ssl_certificate {here}/cert.pem; ssl_certificate_key {here}/key.pem;\n\
         ssl_client_certificate {here}/cert.pem; ssl_verify_client optional; {answers} }} }}\n"
    )
}
