//! The kind `redis`, of real servers.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use servers::{Program, Proxy, Redis, SOON, ask, ask_briefly, ask_within, check, free_port, until};
use shared::check::Check;

async fn asked(settings: Value) -> Result<(), String> {
    ask(&*check("redis", settings)).await
}

/// The reason alone, without what happened.
async fn reason(check: &dyn Check) -> Result<(), String> {
    let deadline = Instant::now() + servers::SOON;
    check.run(deadline).await.map_err(|failure| failure.reason().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Redis::start(&[]);
    let redis = check("redis", json!({ "url": server.url() }));
    assert_eq!(ask(&*redis).await, Ok(()));
    server.program.freeze();
    let begun = Instant::now();
    let told = ask_briefly(&*redis).await.unwrap_err();
    assert!(told.starts_with("Redis did not answer in time: "), "{told}");
    assert!(begun.elapsed().as_millis() < 1_500, "{:?}", begun.elapsed());
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*redis).await, Ok(()));
    server.program.kill();
    let told = ask(&*redis).await.unwrap_err();
    assert!(told.starts_with("Redis cannot be reached: "), "{told}");
    server.restart();
    assert_eq!(ask(&*redis).await, Ok(()));
    // What was kept is dead, and nobody has noticed yet.
    server.program.kill();
    server.restart();
    assert_eq!(ask(&*redis).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_fails_while_its_server_is_frozen_or_gone_and_passes_once_it_is_back() {
    let mut server = Redis::start(&[]);
    let checks = every_kind(&server, || server.port);
    let all = async |within| {
        let asked = checks.iter().map(|check| ask_within(&**check, within));
        futures_util::future::join_all(asked).await
    };
    let passed: Vec<Result<(), String>> = vec![Ok(()); checks.len()];
    assert_eq!(all(SOON).await, passed);
    server.program.freeze();
    let told = all(Duration::from_millis(500)).await;
    assert!(told.iter().all(Result::is_err), "{told:?}");
    server.program.signal(Signal::SIGCONT);
    assert_eq!(all(SOON).await, passed);
    server.program.kill();
    let told = all(SOON).await;
    assert!(told.iter().all(Result::is_err), "{told:?}");
    server.restart();
    assert_eq!(all(SOON).await, passed);
}

/// Longer than a connection that has just answered is not doubted.
const IDLE: Duration = Duration::from_millis(700);

/// A check of every kind that asks a Redis, at this port, as it passes where nothing is in there.
fn every_kind(server: &Redis, port: impl Fn() -> u16) -> Vec<Box<dyn Check>> {
    let url = || format!("redis://127.0.0.1:{}", port());
    let settings = [
        ("redis", json!({ "url": url() })),
        ("cache", json!({ "url": url() })),
        ("cluster", json!({ "redis": url(), "cluster": "orders", "min": 0 })),
        #[cfg(feature = "celery")]
        ("celery", json!({ "broker": url(), "min": 0 })),
        #[cfg(feature = "celery")]
        ("celery", json!({ "broker": server.url(), "min": 0, "result_backend": url() })),
        #[cfg(feature = "django-q")]
        ("django-q", json!({ "redis": url(), "cluster": "shop", "secret_key": "S3cret", "min": 0 })),
    ];
    settings.into_iter().map(|(kind, settings)| check(kind, settings)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_was_forgotten_on_the_way_is_replaced_within_the_run() {
    let server = Redis::start(&[]);
    let proxies = Mutex::new(Vec::new());
    let checks = every_kind(&server, || {
        let proxy = Proxy::to(server.port);
        let port = proxy.port;
        proxies.lock().unwrap().push(proxy);
        port
    });
    let asked = checks.into_iter().zip(proxies.into_inner().unwrap()).map(|(check, proxy)| {
        tokio::spawn(async move {
            for taken in 1..=2 {
                for _ in 0..2 {
                    assert_eq!(ask_within(&*check, Duration::from_secs(4)).await, Ok(()));
                    assert_eq!(proxy.taken(), taken, "it is kept as long as it is good");
                }
                proxy.forget();
                tokio::time::sleep(IDLE).await;
            }
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_slow_is_waited_for() {
    let server = Redis::start(&[]);
    let checks = every_kind(&server, || server.port);
    for check in &checks {
        assert_eq!(ask(&**check).await, Ok(()));
    }
    tokio::time::sleep(IDLE).await;
    let begun = Instant::now();
    server.ask("CLIENT PAUSE 1500 ALL");
    let asked = checks
        .into_iter()
        .map(|check| tokio::spawn(async move { ask_within(&*check, Duration::from_secs(4)).await }));
    for asked in asked.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), Ok(()));
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_400), "it was slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_kept_and_only_lengths_cost_a_second_round_trip() {
    let server = Redis::start(&[]);
    server.ask("RPUSH jobs 1");
    let settings =
        json!({ "url": server.url(), "role": "primary", "exists": ["jobs"], "max_length": { "jobs": 1 } });
    let redis = check("redis", settings);
    assert_eq!(ask(&*redis).await, Ok(()));
    let connections = || server.number("stats", "total_connections_received");
    let own = {
        let before = connections();
        connections() - before
    };
    let before = connections();
    for _ in 0..10 {
        assert_eq!(ask(&*redis).await, Ok(()));
    }
    assert_eq!(connections() - before, own);
    assert!(!server.ask("INFO errorstats").contains("errorstat_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_url_is_asked() {
    let server = Redis::start(&[]);
    assert_eq!(asked(json!({ "url": format!("unix://{}?db=3", server.socket().display()) })).await, Ok(()));
    let sentinel = Sentinel::of(&server);
    let through = format!("redis+sentinel://127.0.0.1:{}/orders", sentinel.port);
    assert_eq!(asked(json!({ "url": through, "role": "primary" })).await, Ok(()));
}

/// The settings by which this URL is asked.
type Asked = fn(&str) -> Value;

/// The other kinds that ask a Redis, each content with an empty one.
const OTHERS: &[(&str, Asked)] = &[
    ("cache", |url| json!({ "url": url })),
    ("cluster", |url| json!({ "redis": url, "cluster": "orders", "min": 0 })),
    #[cfg(feature = "celery")]
    ("celery", |url| json!({ "broker": url, "min": 0, "result_backend": url })),
    #[cfg(feature = "django-q")]
    ("django-q", |url| json!({ "redis": url, "cluster": "shop", "secret_key": "S3cret", "min": 0 })),
];

// What the tests with Valkey leave out: the one that is to be had is built without TLS.
mod tls {
    use serde_json::json;

    use super::servers::{Redis, ask, check, free_port};
    use super::{OTHERS, asked};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_private_authority_is_trusted_where_it_is_named() {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("ca.pem"), issued.cert.pem()).unwrap();
        std::fs::write(path("key.pem"), issued.signing_key.serialize_pem()).unwrap();
        let port = free_port();
        let _server = Redis::start(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &path("ca.pem"),
            "--tls-key-file",
            &path("key.pem"),
            "--tls-auth-clients",
            "no",
        ]);
        let url = format!("rediss://localhost:{port}");
        assert_eq!(asked(json!({ "url": format!("{url}?ca={}", path("ca.pem")) })).await, Ok(()));
        let told = asked(json!({ "url": url })).await.unwrap_err();
        assert!(told.starts_with("Redis cannot be reached: ") && told.contains("ertificate"), "{told}");
        for (kind, asked) in OTHERS {
            assert_eq!(
                ask(&*check(kind, asked(&format!("{url}?ca={}", path("ca.pem"))))).await,
                Ok(()),
                "{kind}"
            );
            let told = ask(&*check(kind, asked(&url))).await.unwrap_err();
            assert!(
                told.contains("Redis cannot be reached") && told.contains("ertificate"),
                "{kind}: {told}"
            );
        }
    }
}

struct Sentinel {
    _program: Program,
    port: u16,
}

impl Sentinel {
    fn of(server: &Redis) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let path = folder.path().join("sentinel.conf");
        let monitored = format!("sentinel monitor orders 127.0.0.1 {} 1", server.port);
        std::fs::write(
            &path,
            format!("port {port}\nbind 127.0.0.1\ndir {}\n{monitored}\n", folder.path().display()),
        )
        .unwrap();
        let mut command = Command::new("redis-server");
        command.arg(path).arg("--sentinel");
        let sentinel = Self { _program: Program::start(command, folder), port };
        until("a Sentinel", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        sentinel
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_passes_while_it_is_whole() {
    let node = Redis::start(&["--cluster-enabled", "yes"]);
    let url = format!("redis+cluster://127.0.0.1:{}", node.port);
    let cluster = check("redis", json!({ "url": url }));
    let not_whole = Err("the Redis Cluster is not whole".to_owned());
    assert_eq!(ask(&*cluster).await, not_whole);
    node.ask("CLUSTER ADDSLOTSRANGE 0 16383");
    until("a cluster that is whole", || node.ask("CLUSTER INFO").contains("cluster_state:ok").then_some(()));
    node.ask("SET lock 1");
    assert_eq!(ask(&*cluster).await, Ok(()));
    assert_eq!(asked(json!({ "url": url, "exists": ["lock"] })).await, Ok(()));
    node.ask("CLUSTER DELSLOTS 5");
    until("a cluster that is not", || node.ask("CLUSTER INFO").contains("cluster_state:fail").then_some(()));
    assert_eq!(ask(&*cluster).await, not_whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_told_without_the_password() {
    let server = Redis::start(&[]);
    server.ask("ACL SETUSER probe on >S3cret +ping +exists ~lock");
    let lock = |login: &str| json!({ "url": server.url_of(login), "exists": ["lock"] });
    server.ask("SET lock 1");
    assert_eq!(asked(lock("probe:S3cret@")).await, Ok(()));
    let told = |settings| async {
        let redis = check("redis", settings);
        assert!(!ask(&*redis).await.unwrap_err().contains("S3cret"));
        reason(&*redis).await.unwrap_err()
    };
    assert_eq!(told(lock("probe:S3cretWr0ng@")).await, "Redis does not accept the user or password");
    let mut more = lock("probe:S3cret@");
    more["role"] = "primary".into();
    assert_eq!(told(more).await, "Redis does not let this user do what is asked: INFO");
    let other = json!({ "url": server.url_of("probe:S3cret@"), "exists": ["other"] });
    assert_eq!(told(other).await, "Redis does not let this user do what is asked: EXISTS other");
    server.ask("CONFIG SET requirepass S3cret");
    assert_eq!(told(json!({ "url": server.url() })).await, "Redis wants a password: PING");
    assert_eq!(asked(json!({ "url": server.url_of(":S3cret@") })).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_rights_that_the_documentation_names_suffice_for_everything() {
    let server = Redis::start(&["--maxmemory", "100mb"]);
    server.ask("ACL SETUSER probe on >S3cret ~* +ping +info +exists +type +llen +xlen +zcard +scard +hlen");
    server.ask("RPUSH list 1");
    server.ask("XADD stream * a b");
    server.ask("ZADD zset 1 a");
    server.ask("SADD set a");
    server.ask("HSET hash a b");
    let everything = json!({
        "url": server.url_of("probe:S3cret@"), "role": "primary", "min_replicas": 0, "max_memory": { "fail": 90 },
        "exists": ["list"], "max_length": { "list": 1, "stream": 1, "zset": 1, "set": 1, "hash": 1, "none": 0 },
    });
    assert_eq!(asked(everything).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_told_from_a_primary_and_must_have_its_link() {
    let mut primary = Redis::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Redis::replica_of(&primary, &[]);
    let is = |server: &Redis, role: &str| check("redis", json!({ "url": server.url(), "role": role }));
    let followed = check("redis", json!({ "url": primary.url(), "min_replicas": 1, "max_lag": "10s" }));
    let linked = is(&replica, "replica");
    assert_eq!(ask(&*is(&primary, "primary")).await, Ok(()));
    assert_eq!(ask(&*linked).await, Ok(()));
    until("a replica that is online", || {
        primary.ask("INFO replication").contains("state=online").then_some(())
    });
    assert_eq!(ask(&*followed).await, Ok(()));
    assert_eq!(
        ask(&*is(&primary, "replica")).await,
        Err("this Redis is a primary, and no replica".to_owned())
    );
    assert_eq!(
        ask(&*is(&replica, "primary")).await,
        Err("this Redis is a replica, and no primary".to_owned())
    );
    let two = json!({ "url": primary.url(), "min_replicas": 2 });
    assert_eq!(
        asked(two).await,
        Err("too few replicas follow this Redis: 1 (at least 2 are wanted)".to_owned())
    );

    primary.program.kill();
    until("a link that is down", || replica.has("replication", "master_link_status:down").then_some(()));
    assert_eq!(ask(&*linked).await, Err("the replica has no connection to its primary".to_owned()));
    replica.ask("CONFIG SET replica-serve-stale-data no");
    assert_eq!(
        reason(&*linked).await,
        Err("this Redis is a replica that has lost its primary: PING".to_owned())
    );
    primary.restart();
    until("a link that is up", || replica.has("replication", "master_link_status:up").then_some(()));
    assert_eq!(ask(&*linked).await, Ok(()));
    until("a replica that is online", || {
        primary.ask("INFO replication").contains("state=online").then_some(())
    });
    assert_eq!(ask(&*followed).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_measured_by_what_the_server_may_take() {
    let server = Redis::start(&[]);
    let memory = check("redis", json!({ "url": server.url(), "max_memory": { "warn": 50, "fail": 90 } }));
    assert_eq!(ask(&*memory).await, Err("Redis has no maxmemory that a share could be of".to_owned()));
    server.ask("CONFIG SET maxmemory 1gb");
    assert_eq!(ask(&*memory).await, Ok(()));
    let used = server.number("memory", "used_memory");
    for (share, level) in [(70, 50), (95, 90)] {
        server.ask(&format!("CONFIG SET maxmemory {}", used * 100 / share));
        let told = ask(&*memory).await.unwrap_err();
        assert!(told.ends_with(&format!("% of Redis' maxmemory is in use (limit {level} %)")), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_must_be_there_and_no_more_in_a_list_than_may_be() {
    let server = Redis::start(&[]);
    let settings = json!({
        "url": server.url(), "exists": ["crontask-lock"], "max_length": { "celery": 2, "events": 1 },
    });
    let redis = check("redis", settings);
    let gone = "the key crontask-lock is not there";
    assert_eq!(ask(&*redis).await, Err(gone.to_owned()));
    server.ask("SET crontask-lock 1 PX 60000");
    server.ask("RPUSH celery 1 2");
    server.ask("XADD events * a b");
    assert_eq!(ask(&*redis).await, Ok(()));
    server.ask("RPUSH celery 3");
    server.ask("XADD events * a b");
    server.ask("DEL crontask-lock");
    let long = "the key celery holds 3 elements (limit 2); the key events holds 2 elements (limit 1)";
    assert_eq!(ask(&*redis).await, Err(format!("{gone}; {long}")));
    server.ask("DEL celery events");
    server.ask("SET events 1");
    let text = "the key events holds nothing that could be counted";
    assert_eq!(ask(&*redis).await, Err(format!("{gone}; {text}")));
}
