//! TLS: a private CA, a client certificate, and what is refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use heartbeat::fleet::{ErrorKind, Fleet};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::servers::{SOON, Server, free_port, soon, until};
use crate::worker::{Worker, builder};

/// A CA, and what it has signed for the server and for a client.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certificates = Self(folder);
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "a private CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = CertifiedIssuer::self_signed(ca, key).unwrap();
        fs::write(certificates.path("ca.pem"), ca.pem()).unwrap();
        for name in ["server", "client"] {
            certificates.sign(name, &ca);
        }
        certificates
    }

    fn sign(&self, name: &str, ca: &CertifiedIssuer<'_, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut certificate = CertificateParams::new(names).unwrap();
        certificate.distinguished_name.push(DnType::CommonName, name);
        let certificate = certificate.signed_by(&key, ca).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.0.path()).join(name).display().to_string()
    }

    fn serve(&self, clients: &str) -> Server {
        self.serve_with(clients, &[])
    }

    fn serve_with(&self, clients: &str, more: &[&str]) -> Server {
        let port = free_port();
        let (certificate, key, ca) = (self.path("server.pem"), self.path("server.key"), self.path("ca.pem"));
        let tls = [
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            clients,
        ];
        Server::start_on(port, &[&tls, more].concat())
    }
}

#[test]
fn a_private_ca_and_a_client_certificate() {
    let files = Certificates::new();
    let redis = files.serve("yes");
    let (ca, certificate, key) = (files.path("ca.pem"), files.path("client.pem"), files.path("client.key"));
    let full = format!("?ca={ca}&cert={certificate}&key={key}");
    for host in ["localhost", "127.0.0.1"] {
        let worker = Worker::start(&format!("rediss://{host}:{}{full}", redis.port));
        worker.wait_published();
        worker.heartbeat.stop().unwrap();
        assert_eq!(redis.keys(), Vec::<String>::new());
    }
    // Without a client certificate, the server ends it.
    let mut fleet = Fleet::new(format!("rediss://localhost:{}?ca={ca}", redis.port).parse().unwrap(), "c");
    let error = fleet.count(&[], soon()).expect_err("no certificate");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[test]
fn sentinel_and_cluster_over_tls() {
    let files = Certificates::new();
    let ca = files.path("ca.pem");
    let redis = files.serve("no");
    let port = free_port();
    let (certificate, key) = (files.path("server.pem"), files.path("server.key"));
    let listening = format!(
        "port 0\ntls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {ca}\n\
         tls-auth-clients no\ntls-replication yes\n"
    );
    let sentinel = Server::sentinel_on(port, redis.port, &listening);
    let node = files.serve_with("no", &["--cluster-enabled", "yes", "--tls-cluster", "yes"]);
    node.ask::<()>("CLUSTER ADDSLOTSRANGE 0 16383");
    until("the node has all slots", SOON, || {
        node.ask::<String>("CLUSTER INFO").contains("cluster_state:ok").then_some(())
    });
    let urls = [
        (&redis, format!("rediss+sentinel://localhost:{}/orders?ca={ca}", sentinel.port)),
        (&node, format!("rediss+cluster://localhost:{}?ca={ca}", node.port)),
    ];
    for (server, url) in urls {
        let worker = Worker::start(&url);
        worker.wait_published();
        assert_eq!(Fleet::new(url.parse().unwrap(), "c").count(&["mail"], soon()).unwrap().queues, [1]);
        worker.heartbeat.stop().unwrap();
        assert_eq!(server.keys(), Vec::<String>::new());
    }
}

#[test]
fn what_the_ca_has_not_signed_is_not_spoken_to() {
    let (files, others) = (Certificates::new(), Certificates::new());
    let redis = files.serve("no");
    let port = redis.port;
    let refused = [
        format!("rediss://localhost:{port}?ca={}", others.path("ca.pem")),
        // By the system's certificates.
        format!("rediss://localhost:{port}"),
    ];
    for url in refused {
        let error = Fleet::new(url.parse().unwrap(), "c").count(&[], soon()).expect_err(&url);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    // A name that the certificate is not for: this host's other address.
    let url = format!("rediss://[::ffff:127.0.0.1]:{port}?ca={}", files.path("ca.pem"));
    let error = Fleet::new(url.parse().unwrap(), "c").count(&[], soon()).expect_err(&url);
    assert!(error.to_string().contains("certificate"), "{error}");
    // And plain text at a TLS port ends, soon.
    let mut plain = Fleet::new(format!("redis://localhost:{port}").parse().unwrap(), "c");
    plain.count(&[], soon()).expect_err("no TLS");
}

#[test]
fn renewed_certificates_are_read_at_the_next_connection() {
    let files = Certificates::new();
    let redis = files.serve("yes");
    let renewed = Certificates::new();
    let url = format!(
        "rediss://localhost:{}?ca={}&cert={}&key={}",
        redis.port,
        files.path("ca.pem"),
        renewed.path("client.pem"),
        renewed.path("client.key")
    );
    let worker = Worker::with(builder().redis(url).interval(Duration::from_millis(50)));
    worker.wait_failing();
    for name in ["client.key", "client.pem"] {
        fs::copy(files.path(name), renewed.path(name)).unwrap();
    }
    worker.wait_published();
    until("a key", SOON, || (!redis.keys().is_empty()).then_some(()));
}
