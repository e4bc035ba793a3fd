//! The kind `dns`, of a real server.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::net::UdpSocket;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use servers::{Dnsmasq, ask, ask_briefly, check};

async fn told(server: &Dnsmasq, mut settings: Value) -> Result<(), String> {
    settings["servers"] = json!([server.address()]);
    let told = ask(&*check("dns", settings)).await;
    // What happened is for the log; here it is the reason that counts.
    told.map_err(|told| told.split(": ").next().unwrap().to_owned())
}

#[tokio::test]
async fn every_type_of_record_is_found_and_compared() {
    let server = Dnsmasq::start();
    let found = [
        ("A", "db.shop.test", json!(["10.0.0.7", "10.0.0.8"])),
        ("AAAA", "db.shop.test.", json!(["FD00:0::7"])),
        ("A", "www.shop.test", json!(["10.0.0.7"])),
        ("CNAME", "www.shop.test", json!(["db.shop.test"])),
        ("MX", "shop.test", json!(["10 Mail.shop.test."])),
        ("TXT", "shop.test", json!(["v=spf1 -all"])),
        ("SRV", "_sip._udp.shop.test", json!(["1 5 5060 sip.shop.test"])),
        ("PTR", "7.0.0.10.in-addr.arpa", json!(["db.shop.test"])),
    ];
    for transport in ["udp", "tcp"] {
        for (record, name, expect) in &found {
            let mut settings =
                json!({ "name": name, "record": record, "expect": expect, "transport": transport });
            assert_eq!(told(&server, settings.clone()).await, Ok(()), "{settings}");
            settings["expect"] = json!(["10.9.9.9"]);
            let other = Err("10.9.9.9 is not among the answers".to_owned());
            assert_eq!(told(&server, settings).await, other, "{record}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_into_a_packet_is_asked_for_again_over_tcp() {
    let server = Dnsmasq::start();
    let last = format!("19 {}", "x".repeat(200));
    let settings = json!({ "name": "large.shop.test", "record": "TXT", "expect": [last] });
    assert_eq!(told(&server, settings).await, Ok(()));
}

#[tokio::test]
async fn a_name_or_record_that_is_missing_and_a_server_with_an_error_are_told_apart() {
    let server = Dnsmasq::start();
    let of = |name: &str, record: &str| json!({ "name": name, "record": record });
    let missing = [
        (of("none.shop.test", "A"), "there is no such name"),
        (of("shop.test", "SRV"), "there is no such record"),
        (of("www.broken.test", "A"), "the name server answers with an error"),
        (of("www.example.org", "A"), "the name server answers with an error"),
    ];
    for (settings, reason) in missing {
        assert_eq!(told(&server, settings.clone()).await, Err(reason.to_owned()), "{settings}");
    }
}

#[tokio::test]
async fn a_server_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Dnsmasq::start();
    for transport in ["udp", "tcp"] {
        let settings =
            json!({ "name": "db.shop.test", "servers": [server.address()], "transport": transport });
        let check = check("dns", settings);
        assert_eq!(ask(&*check).await, Ok(()));
        server.program.freeze();
        let begun = Instant::now();
        let told = ask_briefly(&*check).await.unwrap_err();
        assert!(told.starts_with("no name server answers"), "{transport}: {told}");
        assert!(begun.elapsed().as_millis() < 600, "{transport}: {:?}", begun.elapsed());
        server.program.signal(Signal::SIGCONT);
        assert_eq!(ask(&*check).await, Ok(()), "{transport}");
        server.program.kill();
        let told = ask_briefly(&*check).await.unwrap_err();
        assert!(told.starts_with("no name server "), "{transport}: {told}");
        server.program.restart();
        server.wait();
        assert_eq!(ask(&*check).await, Ok(()), "{transport}");
    }
}

#[tokio::test]
async fn one_server_of_several_is_enough() {
    let server = Dnsmasq::start();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = silent.local_addr().unwrap().to_string();
    let settings = json!({ "name": "db.shop.test", "servers": [dead, server.address()] });
    assert_eq!(ask(&*check("dns", settings)).await, Ok(()));
}
