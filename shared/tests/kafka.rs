//! The kind `kafka`, asked of librdkafka's mock brokers; and of a broker of our own where it is about encryption and logins, of which
//! those know nothing.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rcgen::generate_simple_self_signed;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use servers::{DUPE, Kafka, KafkaPeer, SOON, ask, ask_briefly, ask_within, check, free_port};
use shared::check::Check;

fn asked(kafka: &Kafka, mut settings: Value) -> Box<dyn Check> {
    settings["bootstrap_servers"] = json!(kafka.servers);
    check("kafka", settings)
}

fn told(reason: &str) -> Result<(), String> {
    Err(reason.to_owned())
}

#[tokio::test]
async fn a_cluster_has_its_brokers_topics_leaders_and_replicas() {
    let kafka = Kafka::start(3);
    let any = asked(&kafka, json!({}));
    assert_eq!(ask(&*any).await, told("the brokers know of no topic, or of none for this user"));
    kafka.tell("topic orders 4 2");
    kafka.tell("topic mail 1 3");
    assert_eq!(ask(&*any).await, Ok(()));

    let all = asked(&kafka, json!({ "min_brokers": { "fail": 3 }, "topics": ["orders", "mail"] }));
    assert_eq!(ask(&*all).await, Ok(()));
    let more = asked(&kafka, json!({ "min_brokers": { "fail": 4 }, "topics": ["orders", "gone"] }));
    let reason = "3 brokers are there (at least 4 are wanted); topic gone is not there";
    assert_eq!(ask(&*more).await, told(reason));
    assert_eq!(ask(&*more).await, told(reason), "a topic is not made by asking for it");
    let synced =
        asked(&kafka, json!({ "topics": ["orders", "mail"], "min_in_sync": { "warn": 3, "fail": 2 } }));
    let reason =
        "topic orders: 4 of 4 partitions have too few replicas in sync, 2 at worst (at least 3 are wanted)";
    let failure = synced.run(Instant::now() + SOON).await.unwrap_err();
    assert_eq!((failure.status(), failure.reason()), (shared::Status::Warn, reason));

    kafka.tell("leader orders 1 -1");
    kafka.tell("leader orders 3 -1");
    assert_eq!(ask(&*all).await, told("topic orders: 2 of 4 partitions have no leader"));
    kafka.tell("leader orders 1 1");
    kafka.tell("leader orders 3 2");
    assert_eq!(ask(&*all).await, Ok(()));
    kafka.tell("refuse mail 29");
    assert_eq!(ask(&*all).await, told("topic mail is not for this user"));
}

#[tokio::test]
async fn a_groups_lag_rises_with_what_is_written_and_falls_with_what_is_committed() {
    let kafka = Kafka::start(3);
    kafka.tell("topic orders 3 3");
    kafka.tell("topic mail 1 3");
    for (partition, leader) in [(0, 1), (1, 2), (2, 3)] {
        kafka.tell(&format!("leader orders {partition} {leader}"));
    }
    let group =
        json!({ "topics": ["orders", "mail"], "group": "billing", "max_lag": { "warn": 5, "fail": 10 } });
    let lag = asked(&kafka, group.clone());
    let patient = asked(&kafka, {
        let mut group = group;
        group["uncommitted"] = "ignore".into();
        group
    });
    assert_eq!(ask(&*lag).await, Ok(()), "there is nothing to be read");
    kafka.tell("produce orders 0 4");
    for check in [&lag, &patient] {
        assert_eq!(ask(&**check).await, told("the group billing has committed nothing"));
    }
    kafka.tell("commit billing orders 0 4");
    assert_eq!(ask(&*lag).await, Ok(()));
    for partition in 0..3 {
        kafka.tell(&format!("produce orders {partition} 3"));
    }
    kafka.tell("produce mail 0 1");
    // 3 behind what it has committed; and 3, 3 and 1 in partitions of which it has committed nothing.
    assert_eq!(ask(&*lag).await, told("the group billing is 10 messages behind (limit 10)"));
    assert_eq!(ask(&*patient).await, Ok(()));
    kafka.tell("commit billing orders 0 7");
    let failure = lag.run(Instant::now() + SOON).await.unwrap_err();
    assert_eq!(failure.reason(), "the group billing is 7 messages behind (limit 5)");
    assert_eq!(failure.status(), shared::Status::Warn);
    kafka.tell("commit billing orders 1 3");
    assert_eq!(ask(&*lag).await, Ok(()));
    kafka.tell("produce orders 1 10");
    for check in [&lag, &patient] {
        assert!(ask(&**check).await.unwrap_err().ends_with("messages behind (limit 10)"));
    }
    kafka.tell("commit billing orders 1 13");
    for check in [&lag, &patient] {
        assert_eq!(ask(&**check).await, Ok(()));
    }
}

#[tokio::test]
async fn a_cluster_that_loses_brokers_freezes_or_dies_is_told_and_one_that_is_back_passes_without_a_restart()
{
    let mut kafka = Kafka::start(3);
    kafka.tell("topic orders 3 3");
    for (partition, leader) in [(0, 1), (1, 2), (2, 3)] {
        kafka.tell(&format!("leader orders {partition} {leader}"));
    }
    kafka.tell("coordinator billing 3");
    kafka.tell("produce orders 2 1");
    kafka.tell("commit billing orders 2 1");
    let group = json!({ "topics": ["orders"], "group": "billing", "max_lag": { "fail": 10 } });
    let lag = asked(&kafka, group);
    let topics = asked(&kafka, json!({ "topics": ["orders"] }));
    for check in [&lag, &topics] {
        assert_eq!(ask(&**check).await, Ok(()));
    }

    // One of three: the first server, then the group's coordinator.
    kafka.tell("down 1");
    assert_eq!(ask(&*topics).await, Ok(()), "the others answer");
    kafka.tell("up 1");
    kafka.tell("down 3");
    let reason = ask(&*lag).await.unwrap_err();
    assert!(reason.starts_with("broker 3: "), "{reason}");
    kafka.tell("up 3");
    assert_eq!(ask(&*lag).await, Ok(()));

    // All of them.
    kafka.tell("down -1");
    for check in [&lag, &topics] {
        let reason = ask(&**check).await.unwrap_err();
        assert!(reason.starts_with("no server answers as it should, the last one: "), "{reason}");
    }
    kafka.tell("up -1");
    for check in [&lag, &topics] {
        assert_eq!(ask(&**check).await, Ok(()));
    }

    kafka.program.freeze();
    for check in [&lag, &topics] {
        let reason = ask_briefly(&**check).await.unwrap_err();
        assert!(reason.contains("no answer comes in time"), "{reason}");
    }
    kafka.program.signal(Signal::SIGCONT);
    for check in [&lag, &topics] {
        assert_eq!(ask(&**check).await, Ok(()));
    }

    kafka.program.kill();
    let reason = ask(&*topics).await.unwrap_err();
    let expected = "no server answers as it should, the last one: no connection is accepted";
    assert!(reason.starts_with(expected), "{reason}");
}

#[tokio::test]
async fn a_dead_server_among_several_costs_its_share_of_the_time_and_once() {
    let kafka = Kafka::start(1);
    kafka.tell("topic orders 1 1");
    let refused = format!("127.0.0.1:{}", free_port());
    // It accepts, and never answers.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = hole.local_addr().unwrap().to_string();
    let servers = json!([format!("{refused}, {silent}"), kafka.servers[0]]);
    let several = check("kafka", json!({ "bootstrap_servers": servers, "topics": ["orders"] }));
    let within = Duration::from_secs(6);
    let begun = Instant::now();
    assert_eq!(ask_within(&*several, within).await, Ok(()));
    assert!(begun.elapsed() < within * 3 / 4, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(ask_within(&*several, within).await, Ok(()));
    assert!(begun.elapsed() < within / 4, "the one that answered comes first: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_slow_broker_is_named() {
    let kafka = Kafka::start(2);
    kafka.tell("topic orders 2 2");
    kafka.tell("leader orders 0 1");
    kafka.tell("leader orders 1 2");
    kafka.tell("coordinator billing 1");
    let settings = json!({
        "bootstrap_servers": [kafka.servers[0]], "topics": ["orders"], "group": "billing", "max_lag": { "fail": 1 },
    });
    let lag = check("kafka", settings);
    assert_eq!(ask(&*lag).await, Ok(()));
    kafka.tell("slow 2 20000");
    let reason = ask_within(&*lag, Duration::from_secs(2)).await.unwrap_err();
    assert!(reason.starts_with("broker 2: no answer comes in time"), "{reason}");
}

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

fn login(peer: &KafkaPeer, mechanism: &str, user: &str, password: &str) -> Box<dyn Check> {
    let sasl = json!({ "mechanism": mechanism, "user": user, "password": password });
    check("kafka", json!({ "bootstrap_servers": [peer.address.to_string()], "sasl": sasl }))
}

#[tokio::test]
async fn a_login_is_accepted_with_the_right_user_and_password_alone() {
    for mechanism in MECHANISMS {
        let peer = KafkaPeer::start(Some(mechanism), None);
        let right = login(&peer, mechanism, "sh,op=", "S3cret/ü");
        assert_eq!(ask(&*right).await, Ok(()), "{mechanism}");
        assert_eq!(ask(&*right).await, Ok(()), "{mechanism}");
        assert_eq!(peer.connections.load(Ordering::Relaxed), 1, "the connection is kept");
        peer.hang_up();
        assert_eq!(ask(&*right).await, Ok(()), "a dead connection is replaced in the same run");
        assert_eq!(peer.connections.load(Ordering::Relaxed), 2);
        for (user, password) in [("sh,op=", "Wr0ng"), ("shop", "S3cret/ü")] {
            let reason = ask(&*login(&peer, mechanism, user, password)).await;
            assert_eq!(reason, told("the user or the password is refused"), "{mechanism}");
        }
        let other = MECHANISMS.iter().find(|other| **other != mechanism).unwrap();
        let reason = ask(&*login(&peer, other, "sh,op=", "S3cret/ü")).await;
        assert_eq!(reason, told(&format!("the broker does not offer the mechanism {other}")));
        let anonymous = check("kafka", json!({ "bootstrap_servers": [peer.address.to_string()] }));
        let reason = ask(&*anonymous).await.unwrap_err();
        assert!(reason.starts_with("the broker closed the connection"), "{reason}");
    }
    let open = KafkaPeer::start(None, None);
    let reason = ask(&*login(&open, "PLAIN", "sh,op=", "S3cret/ü")).await;
    assert_eq!(reason, told("the broker takes no login here"));
}

#[tokio::test]
async fn a_broker_that_does_not_know_the_password_is_not_believed() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let peer = KafkaPeer::start(Some(mechanism), None);
        let reason = ask(&*login(&peer, mechanism, DUPE, "S3cret/ü")).await;
        assert_eq!(reason, told("the broker does not know the password itself"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_at_one_server_alone() {
    let [first, second] = [(); 2].map(|()| KafkaPeer::start(Some("SCRAM-SHA-256"), None));
    let sasl = json!({ "mechanism": "SCRAM-SHA-256", "user": "sh,op=", "password": "Wr0ng" });
    let servers = [first.address.to_string(), second.address.to_string()];
    let wrong = check("kafka", json!({ "bootstrap_servers": servers, "sasl": sasl }));
    assert_eq!(ask(&*wrong).await, told("the user or the password is refused"));
    let tried = [&first, &second].map(|peer| peer.connections.load(Ordering::Relaxed));
    assert_eq!(tried, [1, 0], "more would lock the user out the sooner");
}

#[tokio::test]
async fn an_encrypted_connection_takes_a_certificate_that_is_trusted() {
    let issued = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, issued.cert.pem()).unwrap();
    let shown = vec![issued.cert.der().clone()];
    let key = || PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let config = || {
        let config = ServerConfig::builder_with_provider(shared::tls::provider());
        config.with_safe_default_protocol_versions().unwrap()
    };
    let open = config().with_no_client_auth().with_single_cert(shown.clone(), key()).unwrap();
    let peer = KafkaPeer::start(Some("SCRAM-SHA-512"), Some(Arc::new(open)));
    let sasl = json!({ "mechanism": "SCRAM-SHA-512", "user": "sh,op=", "password": "S3cret/ü" });
    let server = |host: &str, mut settings: Value| {
        settings["bootstrap_servers"] = json!([format!("{host}:{}", peer.address.port())]);
        settings["sasl"] = sasl.clone();
        check("kafka", settings)
    };
    assert_eq!(
        ask(&*server("localhost", json!({ "tls": { "ca": ca }, "topics": ["orders"] }))).await,
        Ok(())
    );
    for (host, tls) in [("localhost", json!({})), ("127.0.0.1", json!({ "ca": ca }))] {
        let reason = ask(&*server(host, json!({ "tls": tls }))).await.unwrap_err();
        assert!(
            reason.starts_with("the connection could not be encrypted: invalid peer certificate"),
            "{reason}"
        );
    }
    let reason = ask(&*server("localhost", json!({}))).await.unwrap_err();
    assert!(reason.starts_with("the broker wants TLS"), "{reason}");
    let plain = KafkaPeer::start(None, None);
    let settings = json!({ "bootstrap_servers": [plain.address.to_string()], "tls": { "ca": ca } });
    assert!(ask(&*check("kafka", settings)).await.unwrap_err().contains("encrypted"));

    // One that lets in whose certificate it knows.
    let mut known = RootCertStore::empty();
    known.add(issued.cert.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(known), shared::tls::provider()).build();
    let closed =
        config().with_client_cert_verifier(verifier.unwrap()).with_single_cert(shown, key()).unwrap();
    let peer = KafkaPeer::start(None, Some(Arc::new(closed)));
    let own = folder.path().join("key.pem");
    std::fs::write(&own, issued.signing_key.serialize_pem()).unwrap();
    let asked = |tls: Value| {
        let servers = [format!("localhost:{}", peer.address.port())];
        check("kafka", json!({ "bootstrap_servers": servers, "tls": tls, "topics": ["orders"] }))
    };
    assert_eq!(ask(&*asked(json!({ "ca": ca, "cert": ca, "key": own }))).await, Ok(()));
    ask(&*asked(json!({ "ca": ca }))).await.unwrap_err();
}
