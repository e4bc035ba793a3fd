//! The kind `tls`, with certificates of every sort, and with a real server.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};
use servers::{Nginx, Smtp, ask, ask_briefly, check};
use tempfile::TempDir;

type Authority = CertifiedIssuer<'static, KeyPair>;
type Chain = Vec<CertificateDer<'static>>;

/// Good for so many days from now, or ended so many days ago; and half a day more, because tests take time.
fn good_for(params: &mut CertificateParams, days: i64) {
    let hours = Duration::from_hours((days * 24 + 12).unsigned_abs());
    let now = SystemTime::now();
    let end = if days < 0 { now - hours } else { now + hours };
    params.not_before = (now - Duration::from_hours(24 * 365)).into();
    params.not_after = end.into();
}

fn authority_params(name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    good_for(&mut params, days);
    params
}

fn authority(name: &str, days: i64) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name, days), KeyPair::generate().unwrap()).unwrap()
}

fn signed(name: &str, days: i64, by: &Authority) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    good_for(&mut params, days);
    certified(&params, by)
}

fn certified(
    params: &CertificateParams,
    by: &Authority,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// A server that shows what it was given last.
struct Shower {
    port: u16,
    shown: Arc<Mutex<Option<Arc<ServerConfig>>>>,
    folder: TempDir,
}

impl Shower {
    fn trusted_by(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = Arc::<Mutex<Option<Arc<ServerConfig>>>>::default();
        let current = Arc::clone(&shown);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(config) = current.lock().unwrap().clone() else { continue };
                let mut connection = ServerConnection::new(config).unwrap();
                // Whether the other side likes it is the other side's concern.
                let _ = connection.complete_io(&mut stream.unwrap());
            }
        });
        Self { port, shown, folder }
    }

    fn show(&self, (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>), others: Chain) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = [vec![certificate], others].concat();
        let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        *self.shown.lock().unwrap() = Some(Arc::new(config));
    }

    fn settings(&self) -> Value {
        json!({ "address": format!("localhost:{}", self.port), "tls": { "ca": self.folder.path().join("ca.pem") } })
    }
}

async fn told(settings: &Value) -> String {
    let told = ask(&*check("tls", settings.clone())).await;
    told.err().map_or_else(String::new, |told| told.split(": ").next().unwrap().to_owned())
}

#[tokio::test]
async fn the_days_that_are_left_are_counted_and_a_renewed_certificate_is_noticed() {
    let ours = authority("ours", 900);
    let server = Shower::trusted_by(&ours);
    let settings = server.settings();
    let tls = check("tls", settings.clone());
    let shown = [
        (90, ""),
        (21, ""),
        (20, "the certificate is good for 20 days (limit 21)"),
        (7, "the certificate is good for 7 days (limit 21)"),
        (6, "the certificate is good for 6 days (limit 7)"),
        (0, "the certificate is good for 0 days (limit 7)"),
        (-1, "the certificate has expired"),
        (90, ""),
    ];
    for (days, expected) in shown {
        server.show(signed("localhost", days, &ours), Vec::new());
        let told = ask(&*tls).await.err().unwrap_or_default();
        assert_eq!(told.split(": ").next().unwrap(), expected, "{days} days");
    }
    server.show(signed("localhost", 20, &ours), Vec::new());
    let mut lax = settings;
    lax["days_left"] = json!({ "fail": 5 });
    assert_eq!(told(&lax).await, "");
}

#[tokio::test]
async fn another_name_or_another_authority_is_told() {
    let (ours, others) = (authority("ours", 900), authority("others", 900));
    let server = Shower::trusted_by(&ours);
    server.show(signed("shop.test", 90, &ours), Vec::new());
    let mut settings = server.settings();
    assert_eq!(told(&settings).await, "the certificate is for another name");
    settings["name"] = "shop.test".into();
    assert_eq!(told(&settings).await, "");
    server.show(signed("shop.test", 90, &others), Vec::new());
    assert_eq!(told(&settings).await, "the certificate's issuer is not trusted");
    settings.as_object_mut().unwrap().remove("tls");
    server.show(signed("shop.test", 90, &ours), Vec::new());
    assert_eq!(told(&settings).await, "the certificate's issuer is not trusted", "by the system");
    let mut early = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    early.not_before = (SystemTime::now() + Duration::from_hours(48)).into();
    server.show(certified(&early, &ours), Vec::new());
    assert_eq!(told(&server.settings()).await, "the certificate is not valid yet");
}

#[tokio::test]
async fn the_first_certificate_of_a_chain_to_end_counts_unless_nothing_rests_on_it() {
    let root = authority("root", 900);
    let server = Shower::trusted_by(&root);
    let between = |days| {
        let key = KeyPair::generate().unwrap();
        CertifiedIssuer::signed_by(authority_params("between", days), key, &root).unwrap()
    };
    let short = between(9);
    server.show(signed("localhost", 90, &short), vec![short.der().clone()]);
    assert_eq!(told(&server.settings()).await, "the certificate is good for 9 days (limit 21)");
    let long = between(60);
    let superfluous = authority("superfluous", -3);
    server.show(signed("localhost", 90, &long), vec![superfluous.der().clone(), long.der().clone()]);
    assert_eq!(told(&server.settings()).await, "");
    server.show(signed("localhost", 90, &long), Vec::new());
    assert_eq!(
        told(&server.settings()).await,
        "the certificate's issuer is not trusted",
        "without the one between"
    );
}

#[tokio::test]
async fn a_certificate_of_this_side_is_shown_to_who_asks_for_one() {
    let authority = authority("ours", 300);
    let server = Shower::trusted_by(&authority);
    let own = rcgen::generate_simple_self_signed(["checker".to_owned()]).unwrap();
    let file = |name: &str, pem: String| {
        let path = server.folder.path().join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    let files = [file("cert.pem", own.cert.pem()), file("key.pem", own.signing_key.serialize_pem())];
    let mut known = RootCertStore::empty();
    known.add(own.cert.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(known), shared::tls::provider());
    let (certificate, key) = signed("localhost", 200, &authority);
    // In later versions a client that is refused has shaken hands before it is.
    let config = ServerConfig::builder_with_provider(shared::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    *server.shown.lock().unwrap() = Some(Arc::new(config));
    let mut settings = server.settings();
    assert_eq!(told(&settings).await, "the handshake of TLS fails");
    settings["tls"]["cert"] = json!(files[0]);
    settings["tls"]["key"] = json!(files[1]);
    assert_eq!(told(&settings).await, "");
}

#[tokio::test]
async fn a_server_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Nginx::start();
    let address = format!("localhost:{}", server.tls);
    let tls = check("tls", json!({ "address": address, "tls": { "ca": server.ca } }));
    assert_eq!(ask(&*tls).await, Ok(()));
    server.program.freeze();
    assert_eq!(ask_briefly(&*tls).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*tls).await, Ok(()));
    server.program.kill();
    let told = ask(&*tls).await.unwrap_err();
    assert!(told.starts_with("no connection is accepted"), "{told}");
    server.program.restart();
    server.wait();
    assert_eq!(ask(&*tls).await, Ok(()));
    let plain = check("tls", json!({ "address": format!("127.0.0.1:{}", server.port) }));
    let told = ask(&*plain).await.unwrap_err();
    assert!(told.starts_with("the handshake of TLS fails"), "{told}");
}

#[tokio::test]
async fn a_mail_server_is_asked_to_begin_tls() {
    let server = Smtp::start("starttls");
    let of = |server: &Smtp| json!({ "address": format!("localhost:{}", server.port), "tls": { "ca": server.ca } });
    let mut settings = of(&server);
    settings["starttls"] = "smtp".into();
    assert_eq!(told(&settings).await, "");
    settings.as_object_mut().unwrap().remove("tls");
    assert_eq!(told(&settings).await, "the certificate's issuer is not trusted");
    assert_eq!(told(&of(&server)).await, "the handshake of TLS fails", "not asked to");
    let plain = Smtp::start("plain");
    let settings = json!({ "address": format!("localhost:{}", plain.port), "starttls": "smtp" });
    assert_eq!(told(&settings).await, "the server does not begin TLS");
}
