//! RabbitMQ, in plain text and over TLS to those who show a certificate. Node name, ports, folders, cookie and epmd are its own.
//!
//! Debian's own start script goes to the package's user and folders, so the one below it is run; and an epmd that Erlang
//! starts by itself would outlive the tests.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{Program, free_port};

/// How long a broker may take to start.
const PATIENCE: Duration = Duration::from_mins(3);

/// Two virtual hosts; in one of them two queues, and a user who may do nothing but enter.
const DEFINITIONS: &str = r#"{
    "vhosts": [{"name": "/"}, {"name": "shop"}],
    "users": [
        {"name": "guest", "password": "guest", "tags": "administrator"},
        {"name": "probe", "password": "S3cret/", "tags": ""}
    ],
    "permissions": [
        {"user": "guest", "vhost": "shop", "configure": ".*", "write": ".*", "read": ".*"},
        {"user": "probe", "vhost": "shop", "configure": "^$", "write": "^$", "read": "^$"}
    ],
    "queues": [
        {"name": "mail", "vhost": "shop", "durable": true, "auto_delete": false, "arguments": {}},
        {"name": "pdf", "vhost": "shop", "durable": true, "auto_delete": false, "arguments": {}}
    ]
}"#;

pub struct RabbitMq {
    pub program: Program,
    pub port: u16,
    pub tls: u16,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
    _epmd: Program,
}

impl RabbitMq {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (port, tls, epmd_port) = (free_port(), free_port(), free_port());
        certify(folder.path());
        fs::write(path("definitions.json"), DEFINITIONS).unwrap();
        fs::write(path("enabled_plugins"), "[].\n").unwrap();
        fs::write(path("rabbitmq.conf"), configuration(&path(""), port, tls)).unwrap();
        let cookie = path(".erlang.cookie");
        fs::write(&cookie, "tests").unwrap();
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).unwrap();
        let environment = vec![
            ("HOME", path("")),
            ("ERL_EPMD_PORT", epmd_port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", format!("tests-{port}@localhost")),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", path("no-such-file")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("log-of-the-broker")),
            ("RABBITMQ_PID_FILE", path("pid")),
            // One scheduler: other tests run beside it.
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none".to_owned()),
        ];
        let mut epmd = Command::new("epmd");
        epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let epmd = Program::start(epmd, tempfile::tempdir().unwrap());
        let mut server = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        server.envs(environment.clone()).current_dir(folder.path());
        let place = folder.path().to_owned();
        let program = Program::start(server, folder);
        let rabbit = Self { program, port, tls, environment, folder: place, _epmd: epmd };
        rabbit.wait();
        rabbit
    }

    /// Until a client is greeted: the listeners open last.
    pub fn wait(&self) {
        let begun = Instant::now();
        while !self.greets() {
            assert!(begun.elapsed() < PATIENCE, "RabbitMQ does not answer:\n{}", self.program.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut first = [0];
        stream.write_all(b"AMQP\0\0\x09\x01").is_ok() && stream.read(&mut first).is_ok() && first == [1]
    }

    /// What `rabbitmqctl` does, which takes seconds: an Erlang of its own.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        let command = command.arg("--quiet").args(arguments).envs(self.environment.clone());
        let done = command.current_dir(&self.folder).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// What it has written to its log.
    pub fn said(&self) -> String {
        let log = fs::read_dir(self.file("log-of-the-broker")).unwrap();
        log.map(|file| fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect()
    }

    /// Ends it and starts it again, with all that it keeps on disk.
    pub fn restart(&mut self) {
        self.program.kill();
        self.program.restart();
        self.wait();
    }

    pub fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    pub fn url(&self, user: &str, vhost: &str) -> String {
        format!("amqp://{user}@127.0.0.1:{}/{vhost}", self.port)
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn configuration(folder: &str, port: u16, tls: u16) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\n\
         listeners.ssl.1 = 127.0.0.1:{tls}\n\
         ssl_options.cacertfile = {folder}ca.pem\n\
         ssl_options.certfile = {folder}cert.pem\n\
         ssl_options.keyfile = {folder}key.pem\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = true\n\
         load_definitions = {folder}definitions.json\n"
    )
}

/// An authority, and a certificate of it for `localhost` that the tests' client shows too.
fn certify(folder: &Path) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the tests' authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}
