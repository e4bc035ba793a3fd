//! The kind `mail`, of a real server.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use servers::{Smtp, ask, ask_briefly, check};

fn url(scheme: &str, login: &str, server: &Smtp) -> String {
    format!("{scheme}://{login}localhost:{}", server.port)
}

#[tokio::test]
async fn a_login_is_accepted_with_the_right_password_alone_and_no_mail_is_sent() {
    let server = Smtp::start("starttls");
    let login = |login: &str| json!({ "url": url("smtp", login, &server), "tls": { "ca": server.ca } });
    assert_eq!(ask(&*check("mail", login("shop:S3cret@"))).await, Ok(()));
    assert_eq!(
        ask(&*check("mail", login("shop:Wr0ng@"))).await,
        Err("the login was not accepted: the server answered 535".to_owned())
    );
    let log = server.program.log();
    assert!(log.contains("good bye") && !log.contains("A MAIL CAME"), "{log}");
}

#[tokio::test]
async fn an_encrypted_connection_takes_a_certificate_that_is_trusted() {
    for (mode, scheme) in [("starttls", "smtp"), ("tls", "smtps")] {
        let server = Smtp::start(mode);
        let mut settings = json!({ "url": url(scheme, "", &server), "tls": { "ca": server.ca } });
        if scheme == "smtp" {
            settings["encryption"] = "starttls".into();
        }
        assert_eq!(ask(&*check("mail", settings.clone())).await, Ok(()), "{mode}");
        // The system does not know this authority.
        settings.as_object_mut().unwrap().remove("tls");
        let told = ask(&*check("mail", settings)).await.expect_err(mode);
        assert!(told.contains("UnknownIssuer") || told.contains("certificate"), "{told}");
    }
}

#[tokio::test]
async fn a_certificate_of_this_side_is_shown_to_who_asks_for_one() {
    let server = Smtp::start_for_the_certified("starttls");
    let asked = |tls: Value| {
        let settings = json!({ "url": url("smtp", "", &server), "encryption": "starttls", "tls": tls });
        check("mail", settings)
    };
    let known = asked(json!({ "ca": server.ca, "cert": server.ca, "key": server.key }));
    assert_eq!(ask(&*known).await, Ok(()));
    ask(&*asked(json!({ "ca": server.ca }))).await.unwrap_err();
}

#[tokio::test]
async fn a_password_never_goes_over_a_connection_that_the_server_does_not_encrypt() {
    let server = Smtp::start("plain");
    let told = ask(&*check("mail", json!({ "url": url("smtp", "shop:S3cret@", &server) }))).await;
    assert_eq!(told, Err("the mail server does not offer encryption".to_owned()));
    let asked_for = json!({ "url": url("smtp", "shop:S3cret@", &server), "encryption": "none" });
    assert_eq!(ask(&*check("mail", asked_for)).await, Ok(()));
}

#[tokio::test]
async fn a_server_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Smtp::start("plain");
    let mail = check("mail", json!({ "url": url("smtp", "", &server) }));
    assert_eq!(ask(&*mail).await, Ok(()));
    server.program.freeze();
    assert_eq!(ask_briefly(&*mail).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*mail).await, Ok(()));
    server.program.kill();
    let told = ask(&*mail).await.unwrap_err();
    assert!(told.starts_with("no connection is accepted: "), "{told}");
    server.restart();
    assert_eq!(ask(&*mail).await, Ok(()));
}

/// A peer of a few lines: no real server can be made to keep silent after QUIT alone.
#[tokio::test]
async fn a_server_that_is_silent_after_quit_has_answered_all_that_was_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 peer\r\n").unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            if line.starts_with("EHLO") {
                stream.write_all(b"250 peer\r\n").unwrap();
            }
            said.push(line);
        }
        said
    });
    let mail = check("mail", json!({ "url": url }));
    assert_eq!(ask_briefly(&*mail).await, Ok(()));
    let said = peer.join().unwrap();
    assert_eq!(said.last().unwrap(), "QUIT", "{said:?}");
}
