//! The kind `cache`, of real servers, and of some that only seem to be one.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
#[cfg(feature = "database")]
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
#[cfg(feature = "database")]
use servers::{Mariadb, Postgres};
use servers::{Memcached, Proxy, Redis, ask, ask_briefly, ask_within, check};
use shared::check::Check;

fn cache(url: &str) -> Box<dyn Check> {
    check("cache", json!({ "url": url }))
}

/// The reason alone, without what happened.
async fn reason(check: &dyn Check) -> Result<(), String> {
    let deadline = Instant::now() + servers::SOON;
    check.run(deadline).await.map_err(|failure| failure.reason().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Redis::start(&[]);
    let redis = cache(&server.url());
    assert_eq!(ask(&*redis).await, Ok(()));
    assert_eq!(server.ask("DBSIZE"), ":0");
    server.program.freeze();
    assert_eq!(
        ask_briefly(&*redis).await.unwrap_err().split(':').next(),
        Some("Redis did not answer in time")
    );
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*redis).await, Ok(()));
    server.program.kill();
    assert_eq!(reason(&*redis).await, Err("Redis cannot be reached".to_owned()));
    server.restart();
    assert_eq!(ask(&*redis).await, Ok(()));
    // What was kept is dead, and nobody has noticed yet.
    server.program.kill();
    server.restart();
    assert_eq!(ask(&*redis).await, Ok(()));
    assert_eq!(server.ask("DBSIZE"), ":0");
}

#[tokio::test]
async fn a_kept_connection_that_was_forgotten_on_the_way_is_replaced_within_the_same_question() {
    let server = Memcached::start(&[]);
    let proxy = Proxy::to(server.port);
    let to = cache(&format!("memcached://127.0.0.1:{}", proxy.port));
    let within = Duration::from_secs(2);
    for taken in 1..=3 {
        for _ in 0..2 {
            assert_eq!(ask_within(&*to, within).await, Ok(()));
            assert_eq!(proxy.taken(), taken, "it is kept as long as it is good");
        }
        proxy.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes_says_why() {
    let mut primary = Redis::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Redis::replica_of(&primary, &[]);
    let to = cache(&replica.url());
    assert_eq!(reason(&*to).await, Err("this Redis is a replica that takes no writes: SET".to_owned()));
    // A failover: it is the primary now, and the connection stands.
    replica.ask("REPLICAOF NO ONE");
    assert_eq!(ask(&*to).await, Ok(()));
    primary.program.kill();

    let server = Redis::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let to = cache(&server.url());
    assert_eq!(reason(&*to).await, Err("Redis is full, and takes no writes: SET".to_owned()));
    server.ask("CONFIG SET maxmemory 0");
    assert_eq!(ask(&*to).await, Ok(()));
    server.ask("CONFIG SET min-replicas-to-write 1");
    assert_eq!(reason(&*to).await, Err("Redis has too few replicas, and takes no writes: SET".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_told_and_a_value_that_cannot_be_deleted_expires() {
    let server = Redis::start(&[]);
    server.ask("ACL SETUSER probe on >S3cret ~checker:* +set +get +pttl +del");
    let with = |login: &str| cache(&server.url_of(login));
    assert_eq!(ask(&*with("probe:S3cret@")).await, Ok(()));
    let told = ask(&*with("probe:S3cretWr0ng@")).await.unwrap_err();
    assert!(
        told.starts_with("Redis does not accept the user or password: ") && !told.contains("S3cret"),
        "{told}"
    );
    let elsewhere = json!({ "url": server.url_of("probe:S3cret@"), "prefix": "other:" });
    let denied = |name: &str| Err(format!("Redis does not let this user do what is asked: {name}"));
    assert_eq!(reason(&*check("cache", elsewhere)).await, denied("SET"));
    assert_eq!(server.ask("DBSIZE"), ":0");
    server.ask("ACL SETUSER probe -del");
    assert_eq!(reason(&*with("probe:S3cret@")).await, denied("DEL"));
    let left: u64 =
        server.ask("EVAL \"return redis.call('PTTL', redis.call('RANDOMKEY'))\" 0")[1..].parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_memcached_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Memcached::start(&[]);
    let to = cache(&server.url());
    assert_eq!(ask(&*to).await, Ok(()));
    let connections = server.number("total_connections");
    for _ in 0..10 {
        assert_eq!(ask(&*to).await, Ok(()));
    }
    assert_eq!(server.number("total_connections"), connections + 1, "one of them is the test's own");
    assert_eq!((server.number("curr_items"), server.number("cmd_set")), (0, 11));
    server.program.freeze();
    assert_eq!(ask_briefly(&*to).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*to).await, Ok(()));
    server.program.kill();
    assert_eq!(reason(&*to).await, Err("no connection is accepted".to_owned()));
    server.restart();
    assert_eq!(ask(&*to).await, Ok(()));
    // What was kept is dead, and nobody has noticed yet.
    server.program.kill();
    server.restart();
    assert_eq!(ask(&*to).await, Ok(()));
}

#[tokio::test]
async fn a_memcached_behind_a_socket_is_asked_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").to_str().unwrap().to_owned();
    let server = Memcached::start_at_socket(folder, &path);
    assert_eq!(ask(&*cache(&format!("memcached+unix://{path}"))).await, Ok(()));
    drop(server);
    assert_eq!(
        reason(&*cache(&format!("memcached+unix://{path}"))).await,
        Err("no connection is accepted".to_owned())
    );
}

#[tokio::test]
async fn a_memcached_that_takes_no_values_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users").to_str().unwrap().to_owned();
    std::fs::write(&users, "me:S3cret\n").unwrap();
    let server = Memcached::start_in(folder, &["-Y", &users]);
    let wants = "memcached wants a user and a password, which this check has not";
    assert_eq!(reason(&*cache(&server.url())).await, Err(wants.to_owned()));

    // Full, and told not to make room.
    let server = Memcached::start(&["-M", "-m", "3"]);
    let mut filled = String::new();
    for number in 0..100_000 {
        write!(filled, "set checker:{number:032} 0 0 32\r\n{number:032}\r\n").unwrap();
    }
    let answers = server.ask(&filled, &["SERVER_ERROR"]);
    assert!(answers.last().unwrap().contains("out of memory"), "{:?}", answers.last());
    let full = "memcached is full, and takes no values";
    let to = cache(&server.url());
    assert_eq!(reason(&*to).await, Err(full.to_owned()));
    assert_eq!(server.ask("flush_all\r\n", &["OK"]), ["OK"]);
    assert_eq!(ask(&*to).await, Ok(()));
}

/// What a server shows, and what a client does, each its own authority: `ca.pem`, `cert.pem`, `key.pem` and `other.pem`.
#[cfg(feature = "tls")]
fn certificates(folder: &std::path::Path) {
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (server, client) = (made(), made());
    for (name, pem) in [
        ("ca.pem", server.cert.pem()),
        ("server-key.pem", server.signing_key.serialize_pem()),
        ("cert.pem", client.cert.pem()),
        ("key.pem", client.signing_key.serialize_pem()),
        ("other.pem", made().cert.pem()),
    ] {
        std::fs::write(folder.join(name), pem).unwrap();
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_memcached_over_tls_is_believed_by_its_authority_and_name_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca, other) = (path("ca.pem"), path("other.pem"));
    let certificate = format!("ssl_chain_cert={ca},ssl_key={}", path("server-key.pem"));
    let mut server = Memcached::start_in(folder, &["-Z", "-o", &certificate]);
    let at = |host: &str, options: &str| cache(&format!("memcacheds://{host}:{}{options}", server.port));
    let trusted = at("localhost", &format!("?ca={ca}"));
    for _ in 0..2 {
        assert_eq!(ask(&*trusted).await, Ok(()));
    }
    for (host, options) in [
        ("localhost", format!("?ca={other}")),
        ("localhost", String::new()),
        ("127.0.0.1", format!("?ca={ca}")),
    ] {
        let told = ask(&*at(host, &options)).await.unwrap_err();
        let reason = "the connection could not be encrypted: invalid peer certificate: ";
        assert!(told.starts_with(reason), "{host}{options}: {told}");
    }
    let missing = at("localhost", &format!("?ca={other}.gone"));
    assert_eq!(reason(&*missing).await, Err("the file of `ca` cannot be used".to_owned()));
    // Without TLS, where there is TLS.
    let plain = cache(&server.url());
    assert_eq!(reason(&*plain).await, Err("the connection to memcached was lost".to_owned()));
    server.program.freeze();
    assert_eq!(ask_briefly(&*trusted).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*trusted).await, Ok(()));
    server.program.kill();
    assert_eq!(reason(&*trusted).await, Err("no connection is accepted".to_owned()));
    server.restart();
    assert_eq!(ask(&*trusted).await, Ok(()));
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_memcached_that_wants_a_certificate_gets_one_and_one_without_tls_is_told() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let wants = format!(
        "ssl_chain_cert={ca},ssl_key={},ssl_verify_mode=2,ssl_ca_cert={cert}",
        path("server-key.pem")
    );
    let server = Memcached::start_in(folder, &["-Z", "-o", &wants]);
    let at = |port: u16, options: &str| cache(&format!("memcacheds://localhost:{port}?ca={ca}{options}"));
    let known = at(server.port, &format!("&cert={cert}&key={key}"));
    assert_eq!(ask(&*known).await, Ok(()));
    // It may be told why it is refused, or find only that it is: the server does not wait for who it refuses.
    let told = reason(&*at(server.port, "")).await.unwrap_err();
    let refused = ["the connection could not be encrypted", "the connection to memcached was lost"];
    assert!(refused.contains(&&*told), "{told}");

    let plain = Memcached::start(&[]);
    let told = reason(&*at(plain.port, "")).await;
    assert_eq!(told, Err("the connection could not be encrypted".to_owned()));
}

/// A server that reads one question, with its key and value, and gives this answer to it; the first connection is the last.
fn peer(answer: impl FnOnce(&str, &str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("memcached://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let set = lines.next().unwrap();
        let (key, value) = (set.split(' ').nth(1).unwrap(), lines.next().unwrap());
        // The check may have heard enough before all is said; then it hangs up.
        let _ = (&stream).write_all(&answer(key, &value));
        lines.for_each(drop);
    });
    url
}

#[tokio::test]
async fn what_only_seems_to_be_a_cache_fails() {
    const GARBLED: &str = "memcached gave no proper answer";
    type Answer = fn(&str, &str) -> String;
    let answers: [(Answer, &str); 12] = [
        (|_, _| "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(), GARBLED),
        (|_, _| "STORED\n".to_owned(), GARBLED),
        (|_, _| "a".repeat(1 << 20), GARBLED),
        (|_, _| "ERROR\r\n".to_owned(), "memcached takes no value"),
        (|_, _| "SERVER_ERROR object too large for cache\r\n".to_owned(), "memcached takes no value"),
        (|key, _| format!("STORED\r\nVALUE {key} 0 99999999999\r\n"), GARBLED),
        (|_, value| format!("STORED\r\nVALUE other 0 32\r\n{value}\r\nEND\r\n"), GARBLED),
        (
            |key, _| {
                format!("STORED\r\nVALUE {key} 0 32\r\n{:032}\r\nEND\r\nHD t60\r\nDELETED\r\nEND\r\n", 0)
            },
            "another value came back than was set",
        ),
        (
            |key, value| {
                format!("STORED\r\nVALUE {key} 0 32\r\n{value}\r\nEND\r\nHD t-1\r\nDELETED\r\nEND\r\n")
            },
            "the cache lets a value that should expire live for ever",
        ),
        (
            |key, value| {
                format!("STORED\r\nVALUE {key} 0 32\r\n{value}\r\nEND\r\nHD t61\r\nDELETED\r\nEND\r\n")
            },
            "the cache lets a value live for longer than it should",
        ),
        (
            |key, value| {
                let read = format!("VALUE {key} 0 32\r\n{value}\r\nEND\r\n");
                format!("STORED\r\n{read}ERROR\r\nDELETED\r\n{read}")
            },
            "a value is still there after it was deleted",
        ),
        (|_, _| "STORED\r\nEND\r\nHD t\r\n".to_owned(), GARBLED),
    ];
    for (answer, says) in answers {
        let url = peer(move |key, value| answer(key, value).into_bytes());
        assert_eq!(reason(&*cache(&url)).await, Err(says.to_owned()));
    }
    // One before 1.6, which does not tell when a value is gone.
    let old = peer(|key, value| {
        format!("STORED\r\nVALUE {key} 0 32\r\n{value}\r\nEND\r\nERROR\r\nDELETED\r\nEND\r\n").into_bytes()
    });
    assert_eq!(ask(&*cache(&old)).await, Ok(()));
}

#[tokio::test]
async fn a_memcached_that_says_half_of_it_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = cache(&format!("memcached://{}", listener.local_addr().unwrap()));
    let holds = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"STOR").unwrap();
        BufReader::new(stream).lines().map_while(Result::ok).count()
    });
    assert_eq!(ask_briefly(&*to).await, Err("timed out".to_owned()));
    assert_eq!(holds.join().unwrap(), 6, "the connection was kept, or not all was asked");
}

/// As Django makes it; that it does is what `tests/interop` shows.
#[cfg(feature = "database")]
const TABLE: &str = "CREATE TABLE shop_cache (cache_key varchar(255) NOT NULL PRIMARY KEY, value text NOT NULL, expires TIMESTAMP NOT NULL)";

#[cfg(feature = "database")]
fn table(url: &str) -> Box<dyn Check> {
    check("cache", json!({ "url": url, "table": "shop_cache", "expire": "30s" }))
}

#[cfg(feature = "database")]
#[tokio::test]
async fn a_table_of_postgresql_fails_for_want_of_a_right_an_answer_or_a_server_and_passes_again() {
    let mut server = Postgres::start(&[]);
    let cache = table(&server.url());
    assert_eq!(reason(&*cache).await, Err("a table is missing".to_owned()));
    server.sql(&TABLE.replace("TIMESTAMP", "timestamptz"));
    for (rights, lacks) in [
        ("", Err("the role lacks a right".to_owned())),
        ("SELECT, INSERT", Err("the role lacks a right".to_owned())),
        ("DELETE", Ok(())),
    ] {
        if !rights.is_empty() {
            server.sql(&format!("GRANT {rights} ON shop_cache TO probe"));
        }
        assert_eq!(reason(&*cache).await, lacks, "{rights}");
        assert_eq!(server.sql("SELECT count(*) FROM shop_cache"), "0");
    }
    server.signal_all(Signal::SIGSTOP);
    assert_eq!(ask_briefly(&*cache).await, Err("timed out".to_owned()));
    server.signal_all(Signal::SIGCONT);
    assert_eq!(ask(&*cache).await, Ok(()));
    let out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'probe'";
    for (read_only, told) in [("on", Err("the database takes no writes")), ("off", Ok(()))] {
        server.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}"));
        server.sql("SELECT pg_reload_conf()");
        server.sql(out);
        until_told(&*cache, told).await;
    }
    server.program.kill();
    assert_eq!(reason(&*cache).await, Err("no connection can be made".to_owned()));
    server.restart();
    assert_eq!(ask(&*cache).await, Ok(()));
    assert_eq!(server.sql("SELECT count(*) FROM shop_cache"), "0");
}

#[cfg(feature = "database")]
async fn until_told(check: &dyn Check, wanted: Result<(), &str>) {
    let begun = Instant::now();
    loop {
        let told = reason(check).await;
        if told.as_ref().copied().map_err(String::as_str) == wanted {
            return;
        }
        assert!(begun.elapsed() < servers::SOON, "{told:?} where {wanted:?} is wanted");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Asks up to the point where it waits for the so-manieth time; whether it came to that.
#[cfg(feature = "database")]
async fn is_given_up_at(stage: usize, check: &dyn Check) -> bool {
    let mut waited = 0;
    let mut run = check.run(Instant::now() + servers::SOON);
    std::future::poll_fn(|context| match run.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(false),
        Poll::Pending if waited + 1 == stage => Poll::Ready(true),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}

#[cfg(feature = "database")]
#[tokio::test]
async fn whatever_is_given_up_in_the_middle_leaves_nothing_in_a_table() {
    let server = Mariadb::start(&[]);
    server.sql(&format!(
        "USE shop; {}; GRANT SELECT, INSERT, DELETE ON shop.shop_cache TO probe@'127.0.0.1'",
        TABLE.replace("TIMESTAMP", "DATETIME(6)")
    ));
    let cache = table(&server.url());
    assert_eq!(ask(&*cache).await, Ok(()));
    // At every stage: over a connection that is kept, and then over a new one.
    let mut stages = 0;
    loop {
        stages += 1;
        assert_eq!(ask(&*cache).await, Ok(()));
        is_given_up_at(stages, &*cache).await;
        // One that was kept all the same is not kept any more.
        is_given_up_at(1, &*cache).await;
        if !is_given_up_at(stages, &*cache).await {
            break;
        }
    }
    assert!(stages > 5, "{stages}");
    servers::until("all that was given up has ended", || {
        let under_way = "SELECT count(*) FROM information_schema.innodb_trx";
        (server.sql(under_way) == "0").then_some(())
    });
    assert_eq!(server.sql("SELECT count(*) FROM shop.shop_cache"), "0");
}

#[cfg(feature = "database")]
#[tokio::test]
async fn a_table_that_does_not_keep_what_it_is_given_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.db");
    let sql = |statement: &str| {
        let done = std::process::Command::new("sqlite3").arg(&file).arg(statement).status().unwrap();
        assert!(done.success(), "{statement}");
    };
    sql(TABLE);
    let cache = table(&format!("sqlite://{}", file.display()));
    assert_eq!(ask(&*cache).await, Ok(()));
    let on_insert = "CREATE TRIGGER breaks AFTER INSERT ON shop_cache BEGIN";
    for (breaks, told) in [
        ("DELETE FROM shop_cache;", "a value that was just set is not there"),
        ("UPDATE shop_cache SET value = 'other';", "another value came back than was set"),
        (
            "UPDATE shop_cache SET expires = datetime('now', '+1 hour');",
            "the cache lets a value live for longer than it should",
        ),
        ("UPDATE shop_cache SET expires = '2001-01-01';", "a value that was just set is not there"),
    ] {
        sql(&format!("{on_insert} {breaks} END"));
        assert_eq!(reason(&*cache).await, Err(told.to_owned()), "{breaks}");
        sql("DROP TRIGGER breaks");
    }
    sql("CREATE TRIGGER breaks BEFORE DELETE ON shop_cache BEGIN SELECT RAISE(IGNORE); END");
    assert_eq!(reason(&*cache).await, Err("a value that was just set could not be deleted".to_owned()));
    sql(
        "DROP TRIGGER breaks; CREATE TRIGGER empty BEFORE INSERT ON shop_cache WHEN (SELECT count(*) FROM shop_cache) > 0 BEGIN SELECT RAISE(FAIL, 'not empty'); END",
    );
    assert_eq!(ask(&*cache).await, Ok(()), "the value is still there");
}
