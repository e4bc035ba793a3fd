//! The kind `http`, of a real server; and of peers as no server is.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use servers::{Nginx, Proxy, ask, ask_briefly, ask_within, check};

/// The reason alone, and that nothing told a secret.
async fn told(settings: Value) -> Result<(), String> {
    let told = ask(&*check("http", settings)).await;
    told.map_err(|told| {
        assert!(!told.contains("S3cret"), "{told}");
        told.split(": ").next().unwrap().to_owned()
    })
}

fn failed(reason: &str) -> Result<(), String> {
    Err(reason.to_owned())
}

#[tokio::test]
async fn status_headers_and_body_are_as_they_should_be_or_that_is_told() {
    let server = Nginx::start();
    let passing = [
        json!({ "url": server.url("/ok") }),
        json!({ "url": server.url("/made") }),
        json!({ "url": server.url("/broken"), "status": [404, "500-599"] }),
        json!({ "url": server.url("/ok"), "method": "HEAD" }),
        json!({ "url": server.url("/endless"), "max_size": "64KiB" }),
        json!({ "url": server.url("/ok"), "contains": "is well", "matches": "(?m)^all .* [0-9]{2}$" }),
        json!({ "url": server.url("/ok"), "expect_headers": { "x-role": "primary" } }),
    ];
    for settings in passing {
        assert_eq!(told(settings.clone()).await, Ok(()), "{settings}");
    }
    let failing = [
        (json!({ "url": server.url("/broken") }), "the status is 500"),
        (json!({ "url": server.url("/ok"), "status": [204] }), "the status is 200"),
        (
            json!({ "url": server.url("/ok"), "contains": "is ill" }),
            "the body does not contain what it should",
        ),
        (json!({ "url": server.url("/ok"), "matches": "^[0-9]" }), "the body does not match what it should"),
        (
            json!({ "url": server.url("/ok"), "expect_headers": { "x-role": "replica" } }),
            "the header x-role is missing or another",
        ),
        (
            json!({ "url": server.url("/endless"), "max_size": "64KiB", "contains": "x" }),
            "the answer is larger than 64KiB",
        ),
    ];
    for (settings, reason) in failing {
        assert_eq!(told(settings.clone()).await, failed(reason), "{settings}");
    }
}

#[tokio::test]
async fn who_asks_is_told_by_token_password_or_header() {
    let server = Nginx::start();
    let with_login = server.url("/basic").replace("://", "://user:S3cret@");
    let passing = [
        json!({ "url": server.url("/bearer"), "token": "S3cret" }),
        json!({ "url": with_login }),
        json!({ "url": server.url("/key"), "headers": { "x-key": "S3cret" } }),
    ];
    for settings in passing {
        assert_eq!(told(settings.clone()).await, Ok(()), "{settings}");
    }
    assert_eq!(told(json!({ "url": server.url("/bearer") })).await, failed("the status is 401"));
    let wrong = json!({ "url": server.url("/bearer"), "token": "S3cret and more" });
    assert_eq!(told(wrong).await, failed("the status is 401"));
}

#[tokio::test]
async fn redirects_are_followed_by_the_rules() {
    let server = Nginx::start();
    let tls = json!({ "ca": server.ca });
    let to = |url: String| json!({ "url": url, "tls": tls });
    assert_eq!(told(to(server.url("/hop"))).await, Ok(()));
    assert_eq!(told(to(server.url("/up"))).await, Ok(()), "to https");
    assert_eq!(told(to(server.url("/elsewhere"))).await, Ok(()));
    let unencrypted = failed("redirected to where nothing is encrypted");
    assert_eq!(told(to(server.tls_url("/down"))).await, unencrypted);
    assert_eq!(told(to(server.url("/loop"))).await, failed("redirected more than 5 times"));
    let none = json!({ "url": server.url("/hop"), "redirects": 0, "expect_headers": {} });
    assert_eq!(told(none).await, failed("the status is 302"));
    let secret = json!({ "url": server.url("/elsewhere"), "headers": { "x-key": "S3cret" } });
    assert_eq!(told(secret).await, failed("redirected to another host, which would be told the headers"));
}

#[tokio::test]
async fn a_certificate_is_trusted_by_a_private_authority_alone() {
    let server = Nginx::start();
    let trusted = json!({ "url": server.tls_url("/ok"), "tls": { "ca": server.ca } });
    assert_eq!(told(trusted.clone()).await, Ok(()));
    let reason = failed("no encrypted connection can be made");
    assert_eq!(told(json!({ "url": server.tls_url("/ok") })).await, reason, "the system does not know it");
    let mut other_name = trusted;
    other_name["url"] = format!("https://127.0.0.1:{}/ok", server.tls).into();
    assert_eq!(told(other_name).await, reason, "it is for localhost");
}

#[tokio::test]
async fn a_certificate_of_this_side_is_shown_to_who_asks_for_one() {
    let server = Nginx::start();
    let asked = |tls: Value| told(json!({ "url": server.tls_url("/certified"), "tls": tls }));
    assert_eq!(asked(json!({ "ca": server.ca, "cert": server.ca, "key": server.key })).await, Ok(()));
    assert_eq!(asked(json!({ "ca": server.ca })).await, failed("the status is 403"));
}

#[tokio::test]
async fn it_asks_over_a_unix_socket_whatever_the_urls_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answers = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4_096];
        let read = stream.read(&mut asked).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        String::from_utf8_lossy(&asked[..read]).to_lowercase()
    });
    let over = |path: &Path| json!({ "url": "http://no-such-host.invalid/health", "unix_socket": path });
    assert_eq!(told(over(&path)).await, Ok(()));
    let asked = answers.join().unwrap();
    assert!(asked.contains("get /health ") && asked.contains("host: no-such-host.invalid\r\n"), "{asked}");
    assert_eq!(told(over(&folder.path().join("none"))).await, failed("no connection is accepted"));
}

#[tokio::test]
async fn a_connection_is_kept_and_one_that_died_is_replaced_within_the_run() {
    let mut server = Nginx::start();
    let http = check("http", json!({ "url": server.url("/ok") }));
    for _ in 0..3 {
        assert_eq!(ask(&*http).await, Ok(()));
    }
    assert_eq!(server.requests(), ["1", "2", "3"], "one connection");
    for _ in 0..5 {
        server.program.kill();
        server.program.restart();
        server.wait();
        assert_eq!(ask(&*http).await, Ok(()), "another one");
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_forgotten_on_the_way_is_replaced_within_the_run() {
    let server = Nginx::start();
    let proxy = Proxy::to(server.port);
    let http = check("http", json!({ "url": format!("http://127.0.0.1:{}/ok", proxy.port) }));
    for taken in 1..=3 {
        for _ in 0..2 {
            assert_eq!(ask_within(&*http, Duration::from_secs(3)).await, Ok(()));
            assert_eq!(proxy.taken(), taken, "it is kept as long as it is good");
        }
        proxy.forget();
    }
}

#[tokio::test]
async fn a_server_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Nginx::start();
    for (url, tls) in [(server.url("/ok"), json!({})), (server.tls_url("/ok"), json!({ "ca": server.ca }))] {
        let http = check("http", json!({ "url": url, "tls": tls }));
        assert_eq!(ask(&*http).await, Ok(()));
        server.program.freeze();
        assert_eq!(ask_briefly(&*http).await, failed("timed out"));
        server.program.signal(Signal::SIGCONT);
        assert_eq!(ask(&*http).await, Ok(()));
        server.program.kill();
        let told = ask(&*http).await.unwrap_err();
        assert!(told.starts_with("no connection is accepted"), "{told}");
        server.program.restart();
        server.wait();
        assert_eq!(ask(&*http).await, Ok(()));
    }
}

#[tokio::test]
async fn a_thousand_runs_leave_one_connection() {
    let server = Nginx::start();
    let http = check("http", json!({ "url": server.url("/ok") }));
    let sockets = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert_eq!(ask(&*http).await, Ok(()));
    let before = sockets();
    for _ in 0..1_000 {
        assert_eq!(ask(&*http).await, Ok(()));
    }
    // Tests beside this one open some too.
    assert!(sockets() < before + 100, "{before}, {}", sockets());
}

/// A peer that says this to everyone, a piece each time that this returns one.
fn peer(says: impl Fn(u32) -> Option<Vec<u8>> + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let says = says.clone();
            thread::spawn(move || speak(stream.unwrap(), says));
        }
    });
    format!("http://127.0.0.1:{port}/")
}

fn speak(mut stream: TcpStream, says: impl Fn(u32) -> Option<Vec<u8>>) {
    let _ = stream.read(&mut [0; 4_096]);
    let mut pieces = (0..).map_while(says);
    while pieces.next().is_some_and(|piece| stream.write_all(&piece).is_ok()) {}
}

#[tokio::test]
async fn an_endless_body_is_read_to_the_limit_alone() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    let url = peer(move |n| Some(if n == 0 { head.clone() } else { chunk.clone() }));
    for judged in [json!({ "url": url, "contains": "y" }), json!({ "url": url, "matches": "y" })] {
        assert_eq!(told(judged).await, failed("the answer is larger than 1MiB"));
    }
}

#[tokio::test]
async fn a_body_that_nobody_judges_may_be_large_endless_or_silent() {
    let large = peer(|n| {
        let head = || b"HTTP/1.1 200 OK\r\ncontent-length: 2097152\r\n\r\n".to_vec();
        (n <= 32).then(|| if n == 0 { head() } else { vec![b'x'; 0x10000] })
    });
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    let endless = {
        let head = head.clone();
        peer(move |n| Some(if n == 0 { head.clone() } else { chunk.clone() }))
    };
    let silent = peer(move |n| {
        if n > 0 {
            thread::sleep(Duration::from_mins(1));
        }
        (n == 0).then(|| head.clone())
    });
    for url in [large, endless, silent] {
        let http = check("http", json!({ "url": url }));
        for _ in 0..2 {
            assert_eq!(ask(&*http).await, Ok(()), "{url}");
        }
    }
}

#[tokio::test]
async fn slow_or_endless_headers_end_with_the_deadline_or_before() {
    let slow = peer(|n| {
        thread::sleep(Duration::from_millis(50));
        Some(if n == 0 { b"HTTP/1.1 200 OK\r\n".to_vec() } else { format!("x-{n}: y\r\n").into_bytes() })
    });
    let begun = Instant::now();
    assert_eq!(ask_briefly(&*check("http", json!({ "url": slow }))).await, failed("timed out"));
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    let endless =
        peer(|n| Some(if n == 0 { b"HTTP/1.1 200 OK\r\nx: ".to_vec() } else { vec![b'x'; 65_536] }));
    assert_eq!(told(json!({ "url": endless })).await, failed("no answer of HTTP came"));
}

#[tokio::test]
async fn what_is_not_http_or_breaks_off_is_told() {
    let garbage = peer(|n| (n == 0).then(|| vec![7; 1_000]));
    assert_eq!(told(json!({ "url": garbage })).await, failed("no answer of HTTP came"));
    let cut = peer(|n| (n == 0).then(|| b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec()));
    assert_eq!(told(json!({ "url": cut, "contains": "half" })).await, failed("the answer broke off"));
    assert_eq!(told(json!({ "url": cut })).await, Ok(()), "nobody wants its body");
    let nothing = peer(|_| None);
    assert_eq!(told(json!({ "url": nothing })).await, failed("no answer of HTTP came"));
}

#[tokio::test]
async fn a_proxy_is_used_where_it_is_asked_for() {
    // nginx is no proxy for other hosts, but it sees what it is asked.
    let server = Nginx::start();
    let through = json!({ "url": "http://no-such-host.invalid/ok", "proxy": server.url("") });
    assert_eq!(told(through).await, Ok(()));
    let straight = told(json!({ "url": "http://no-such-host.invalid/ok" })).await.unwrap_err();
    assert!(straight.starts_with("the host's name"), "{straight}");
}
