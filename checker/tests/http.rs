//! `checker http`: of a real `checker serve`, over TCP, a Unix socket and TLS; and of peers as no server is.

#![cfg(feature = "serve")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod serving;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use serving::{SOON, Server, shell, until};

#[derive(Debug)]
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Told {
    /// The first line up to the time that it took, and the status.
    fn answer(&self) -> (String, Option<i32>) {
        let line = self.stdout.lines().next().unwrap_or_default();
        (line.split(" (").next().unwrap_or_default().to_owned(), self.code)
    }
}

fn http(words: &[&str]) -> Told {
    http_with(words, |_| {})
}

/// Whatever is asked, no output holds a secret.
fn http_with(words: &[&str], prepare: impl FnOnce(&mut Command)) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
    command.arg("http").args(words).env_remove("PROBE_TOKEN").stdin(Stdio::null());
    prepare(&mut command);
    let begun = Instant::now();
    let output = command.output().unwrap();
    let told = Told {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        took: begun.elapsed(),
    };
    assert!(!format!("{told:?}").contains("S3cret"), "{told:?}");
    told
}

fn passed() -> (String, Option<i32>) {
    ("ok: http".to_owned(), Some(0))
}

fn failed(reason: &str) -> (String, Option<i32>) {
    (format!("fail: http: {reason}"), Some(1))
}

/// A subset that passes, one that fails, and whatever more.
fn ready(more: &str) -> String {
    let text = format!("{more}\n[subsets]\nreadiness = ['good']\nstartup = ['fails']\n");
    text + &shell("good", "exit 0", "") + &shell("fails", "exit 1", "")
}

#[test]
fn it_passes_with_the_expected_status_and_fails_with_every_other() {
    let server = Server::start(&ready(""));
    let at = |path: &str| format!("http://127.0.0.1:{}{path}", server.port);
    assert_eq!(http(&[&at("/readyz")]).answer(), passed());
    assert_eq!(http(&[&at("/startupz")]).answer(), failed("the status is 503"));
    assert_eq!(http(&[&at("/startupz"), "--expect", "503"]).answer(), passed());
    assert_eq!(http(&[&at("/readyz"), "--expect", "503"]).answer(), failed("the status is 200"));
    assert_eq!(http(&[&at("/nothing")]).answer(), failed("the status is 404"));
    let told = http(&[&at("/readyz")]);
    assert_eq!(told.stdout.lines().nth(1).unwrap(), format!("ok: http://127.0.0.1:{}: 1 ok", server.port));
    assert_eq!(told.stderr, "");
}

#[test]
fn the_report_has_the_formats_and_statuses_of_every_run() {
    let server = Server::start(&ready(""));
    let (good, bad) = (
        format!("http://127.0.0.1:{}/readyz", server.port),
        format!("http://127.0.0.1:{}/startupz", server.port),
    );
    let json: Value = serde_json::from_str(&http(&[&bad, "--format", "json"]).stdout).unwrap();
    assert_eq!(
        (&json["status"], &json["checks"]["http"]["reason"]),
        (&"fail".into(), &"the status is 503".into())
    );
    for (url, status, plugin) in [(&good, 0, 0), (&bad, 1, 2)] {
        for format in ["json", "health+json", "openmetrics"] {
            assert_eq!(http(&[url, "--format", format]).code, Some(status), "{url} {format}");
        }
        assert_eq!(http(&[url, "--format", "nagios"]).code, Some(plugin), "{url}");
    }
    let nagios = http(&["http://127.0.0.1:1:x/", "--format", "nagios"]);
    assert!(nagios.stdout.starts_with("HEARTBEAT UNKNOWN - ") && nagios.code == Some(3), "{nagios:?}");
}

#[test]
fn a_token_comes_from_the_environment_a_file_or_an_argument_and_is_never_shown() {
    let server = Server::start(&ready("[server.access]\ntoken = 'Geh\u{e9}im-S3cret'\n"));
    let url = format!("http://127.0.0.1:{}/readyz", server.port);
    let file = server.path("token");
    fs::write(&file, "Geh\u{e9}im-S3cret\n").unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(http(&[&url]).answer(), failed("the status is 403"));
    assert_eq!(http(&[&url, "--token", "S3cret"]).answer(), failed("the status is 403"));
    assert_eq!(http(&[&url, "--token", "Geh\u{e9}im-S3cret"]).answer(), passed());
    assert_eq!(http(&[&url, "--token-file", file]).answer(), passed());
    let from_environment = |words: &[&str]| {
        let set = |command: &mut Command| {
            command.env("PROBE_TOKEN", "Geh\u{e9}im-S3cret");
        };
        http_with(words, set).answer()
    };
    assert_eq!(from_environment(&[&url]), passed());
    assert_eq!(from_environment(&[&url, "--token", "S3cret"]), failed("the status is 403"));
    let missing = http(&[&url, "--token-file", "/nonexistent"]);
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.starts_with("checker: the secret file `/nonexistent` cannot be read"),
        "{missing:?}"
    );
    assert_eq!(http(&[&url, "--token", "S3cret\n"]).code, Some(2));
    assert_eq!(http(&[&url, "--token", "S3cret", "--token-file", file]).code, Some(2));
}

#[test]
fn it_asks_over_a_unix_socket_and_over_ipv6() {
    let server = Server::start_with(&ready(""), &["--listen", "unix:http.sock"], |_| {});
    let socket = server.path("http.sock");
    let asked = |socket: &Path, url: &str| http(&["--unix-socket", socket.to_str().unwrap(), url]);
    assert_eq!(asked(&socket, "http://localhost/readyz").answer(), passed());
    assert_eq!(asked(&socket, "http://no-such-host.invalid/startupz").answer(), failed("the status is 503"));
    let told = asked(&server.path("none.sock"), "http://localhost/readyz");
    assert_eq!(told.answer(), failed("no connection is accepted"));
    assert!(told.stdout.contains("none.sock: 1 fail\n"), "{told:?}");
    let six = Server::start_with(&ready(""), &["--listen", "[::1]:0"], |_| {});
    let place = six.wait_for_log("listening");
    let port = place.rsplit(':').next().unwrap().trim_matches('"');
    let told = http(&[&format!("http://[::1]:{port}/readyz")]);
    assert_eq!((told.answer(), told.stdout.contains("ok: http://[::1]:")), (passed(), true), "{told:?}");
}

/// A private authority, and a certificate of it for `localhost`.
fn write_certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    fs::write(folder.join("cert.pem"), own.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let text = ready("[server]\ntls = { cert = 'cert.pem', key = 'key.pem' }\n");
    let server = Server::start_with(&text, &["--listen", "127.0.0.1:0"], |command| {
        write_certificates(command.get_current_dir().unwrap());
    });
    let path = |name: &str| server.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let url = format!("https://localhost:{}/readyz", server.port);
    assert_eq!(http(&[&url, "--ca", &ca]).answer(), passed());
    assert_eq!(http(&[&url, "--ca", &ca, "--cert", &cert, "--key", &key]).answer(), passed());
    let untrusted = failed("no encrypted connection can be made");
    assert_eq!(http(&[&url]).answer(), untrusted);
    let by_address = format!("https://127.0.0.1:{}/readyz", server.port);
    assert_eq!(http(&[&by_address, "--ca", &ca]).answer(), untrusted);
    let unreadable = http(&[&url, "--ca", &key]).answer();
    assert_eq!(unreadable, ("unknown: http: the file of `ca` cannot be used".to_owned(), Some(1)));
    assert_eq!(http(&[&url, "--cert", &cert]).code, Some(2), "a certificate without its key");
    let plain = format!("http://localhost:{}/readyz", server.port);
    assert_eq!(http(&[&plain]).answer(), failed("no answer of HTTP came"));
}

#[test]
fn a_server_that_freezes_costs_the_timeout_and_no_more() {
    let server = Server::start(&ready(""));
    let url = format!("http://127.0.0.1:{}/readyz", server.port);
    assert_eq!(http(&[&url]).answer(), passed());
    server.signal(Signal::SIGSTOP);
    let told = http(&[&url, "--timeout", "1s"]);
    server.signal(Signal::SIGCONT);
    assert_eq!(told.answer(), failed("timed out"));
    assert!(told.took >= Duration::from_millis(600) && told.took < SOON, "{told:?}");
    assert_eq!(http(&[&url]).answer(), passed());
}

/// A peer that answers every question so; what it was asked.
fn peer(answer: &'static [u8]) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/S3cret?S3cret", listener.local_addr().unwrap());
    let (tell, asked) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut question = Vec::new();
            until("the whole question", || {
                let mut piece = [0; 4_096];
                let read = stream.read(&mut piece).unwrap();
                question.extend_from_slice(&piece[..read]);
                question.ends_with(b"\r\n\r\n").then_some(())
            });
            // Who asked may have gone in the middle of the answer, and who wants to know of it too.
            drop(stream.write_all(answer));
            drop(tell.send(String::from_utf8(question).unwrap()));
        }
    });
    (url, asked)
}

#[test]
fn a_peer_is_told_who_was_asked_and_no_redirect_is_followed() {
    let elsewhere = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/S3cret\r\nContent-Length: 0\r\n\r\n";
    let (url, asked) = peer(elsewhere);
    let told =
        http(&[&url, "--forwarded-host", "example.org", "--forwarded-proto", "https", "--expect", "302"]);
    assert_eq!(told.answer(), passed());
    let asked = asked.recv_timeout(SOON).unwrap().to_lowercase();
    assert!(asked.starts_with("get /s3cret?s3cret http/1.1\r\n"), "{asked}");
    for line in ["x-forwarded-host: example.org\r\n", "x-forwarded-proto: https\r\n"] {
        assert!(asked.contains(line), "{asked}");
    }
    assert!(!asked.contains("x-probe-token"), "{asked}");
    let (url, _asked) = peer(elsewhere);
    assert_eq!(http(&[&url]).answer(), failed("the status is 302"));
}

#[test]
fn garbage_is_a_failure_and_never_shown() {
    for answer in [
        &b"S3cret garbage\r\n\r\n"[..],
        b"\x00\xff\xfe\x16\x03S3cret",
        b"",
        b"HTTP/1.1 S3cret OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nS3cret",
    ] {
        let (url, _asked) = peer(answer);
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(http(&[&url]).answer(), failed("no answer of HTTP came"), "{shown}");
    }
    // Nobody wants the body, so it does not matter how it ends.
    let (url, _asked) = peer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nS3cret");
    assert_eq!(http(&[&url]).answer(), passed());
    assert_eq!(http(&["http://127.0.0.1:1/"]).answer(), failed("no connection is accepted"));
}

#[test]
fn arguments_that_make_no_question_are_invalid_and_not_repeated() {
    for words in [
        &["me:S3cret@h/readyz"][..],
        &["/S3cret"],
        &["ftp://me:S3cret@h/"],
        &["http://me:S3cret@h:x/"],
        &["http://"],
        &["http://h/", "--expect", "99"],
        &["http://h/", "--forwarded-host", "a\nb"],
        &["http://h/", "--timeout", "0s"],
        &[],
    ] {
        let told = http(words);
        assert_eq!((told.code, &*told.stdout), (Some(2), ""), "{words:?} {told:?}");
        assert!(!told.stderr.is_empty(), "{words:?}");
    }
}
