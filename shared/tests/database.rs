//! The kind `database`, of real servers and files.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use servers::{Mariadb, Postgres, ask, ask_briefly, check, until};
use shared::check::Check;

fn database(settings: Value) -> Box<dyn Check> {
    check("database", settings)
}

/// What is wrong, without what was said of it.
async fn reason(check: &dyn Check) -> Option<String> {
    ask(check).await.err().map(|told| told.split(": ").next().unwrap().to_owned())
}

/// Asks until the answer is this one.
async fn comes_to(check: &dyn Check, wanted: Option<&str>) {
    let begun = Instant::now();
    loop {
        let told = reason(check).await;
        if told.as_deref() == wanted {
            return;
        }
        assert!(begun.elapsed() < servers::SOON, "{told:?} where {wanted:?} is wanted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_postgresql_that_dies_or_freezes_fails_and_one_that_comes_back_passes() {
    let mut server = Postgres::start(&[]);
    let check = database(json!({ "url": server.url() }));
    assert_eq!(ask(&*check).await, Ok(()));
    server.signal_all(Signal::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(ask_briefly(&*check).await, Err("timed out".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(2));
    server.signal_all(Signal::SIGCONT);
    assert_eq!(ask(&*check).await, Ok(()));
    server.program.kill();
    comes_to(&*check, Some("no connection can be made")).await;
    server.restart();
    assert_eq!(ask(&*check).await, Ok(()));
}

#[tokio::test]
async fn one_connection_is_kept_and_a_dead_one_is_replaced_within_the_same_question() {
    let server = Postgres::start(&[]);
    let check = database(json!({ "url": server.url() }));
    let mine = "SELECT count(*), max(pid) FROM pg_stat_activity WHERE application_name = 'checker'";
    assert_eq!(ask(&*check).await, Ok(()));
    let first = server.sql(mine);
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..300 {
        assert_eq!(ask(&*check).await, Ok(()));
    }
    assert_eq!(server.sql(mine), first);
    // Other tests of this program come and go.
    assert!(open() < before + 100, "{} open files, of {before} before", open());
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'checker'");
    assert_eq!(ask(&*check).await, Ok(()));
    assert_ne!(server.sql(mine), first);
    // A question that was given up leaves nothing half-read behind.
    for _ in 0..20 {
        let _ = tokio::time::timeout(
            Duration::from_micros(300),
            check.run(Instant::now() + Duration::from_secs(1)),
        )
        .await;
    }
    assert_eq!(ask(&*check).await, Ok(()));
}

#[tokio::test]
async fn postgresql_says_no_to_a_wrong_password_or_name_and_yes_again_without_a_restart() {
    let server = Postgres::start(&[]);
    let check = database(json!({ "url": server.url() }));
    assert_eq!(ask(&*check).await, Ok(()));
    let out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'probe'";
    server.sql("ALTER ROLE probe PASSWORD 'changed'");
    server.sql(out);
    let told = ask(&*check).await.expect_err("a wrong password");
    assert!(told.starts_with("access is denied: ") && !told.contains("S3cret"), "{told}");
    server.sql("ALTER ROLE probe PASSWORD 'S3cret'");
    assert_eq!(ask(&*check).await, Ok(()));
    let elsewhere = database(json!({ "url": server.url().replace("/shop", "/nowhere") }));
    assert_eq!(reason(&*elsewhere).await.as_deref(), Some("there is no such database"));
}

#[tokio::test]
async fn free_connections_of_postgresql_are_those_that_are_left_for_this_role() {
    let server =
        Postgres::start(&["max_connections=10", "superuser_reserved_connections=3", "max_wal_senders=0"]);
    let check = database(json!({ "url": server.url(), "min_free": 2 }));
    assert_eq!(ask(&*check).await, Ok(()));
    let others: Vec<_> = (0..5).map(|_| database(json!({ "url": server.url() }))).collect();
    for other in &others {
        assert_eq!(ask(&**other).await, Ok(()));
    }
    // Seven for who is no superuser: the check's own, five others, one that is free. A check that fails gives its own back.
    comes_to(&*check, Some("1 connections are free, where 2 are needed")).await;
    let last = [(); 2].map(|()| database(json!({ "url": server.url() })));
    for last in &last {
        comes_to(&**last, None).await;
    }
    comes_to(&*database(json!({ "url": server.url() })), Some("no connection is free")).await;
    drop((others, last));
    comes_to(&*check, None).await;
    server.sql("ALTER ROLE probe CONNECTION LIMIT 2");
    comes_to(&*check, Some("1 connections are free, where 2 are needed")).await;
    server.sql("ALTER ROLE probe CONNECTION LIMIT -1");
    server.sql("ALTER DATABASE shop CONNECTION LIMIT 2");
    comes_to(&*check, Some("1 connections are free, where 2 are needed")).await;
}

#[tokio::test]
async fn a_write_to_postgresql_leaves_nothing_and_fails_where_writes_do() {
    let server = Postgres::start(&[]);
    let check = database(json!({ "url": server.url(), "write": true }));
    let tables = "SELECT count(*) FROM pg_class";
    let before = server.sql(tables);
    for _ in 0..3 {
        assert_eq!(ask(&*check).await, Ok(()));
    }
    assert_eq!(server.sql(tables), before);
    server.sql("ALTER DATABASE shop SET default_transaction_read_only = on");
    let out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'probe'";
    server.sql_from_outside(out);
    assert_eq!(reason(&*check).await.as_deref(), Some("the database takes no writes"));
    server.sql_from_outside("ALTER DATABASE shop RESET default_transaction_read_only");
    comes_to(&*check, None).await;
    server.sql("REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC");
    assert_eq!(reason(&*check).await.as_deref(), Some("the role lacks a right"));
}

#[tokio::test]
async fn a_replica_of_postgresql_is_told_from_its_primary_and_its_lag_while_replay_is_paused() {
    let mut primary = Postgres::start(&[]);
    let replica = primary.replica();
    let of = |server: &Postgres, role: &str| database(json!({ "url": server.url(), "role": role }));
    assert_eq!(ask(&*of(&primary, "primary")).await, Ok(()));
    assert_eq!(ask(&*of(&replica, "replica")).await, Ok(()));
    assert_eq!(ask(&*of(&primary, "replica")).await, Err("it is the primary, not a replica".to_owned()));
    assert_eq!(ask(&*of(&replica, "primary")).await, Err("it is a replica, not the primary".to_owned()));
    let write = database(json!({ "url": replica.url(), "write": true }));
    assert_eq!(reason(&*write).await.as_deref(), Some("the database takes no writes"));

    let lag = database(json!({ "url": replica.url(), "role": "replica", "max_lag": "2s" }));
    comes_to(&*lag, None).await;
    // The primary writes nothing for longer than that: no lag.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(ask(&*lag).await, Ok(()));
    primary.sql("CREATE TABLE goods (id int)");
    until("the table", || (replica.sql("SELECT to_regclass('goods') IS NOT NULL") == "t").then_some(()));
    assert_eq!(ask(&*lag).await, Ok(()));
    replica.sql("SELECT pg_wal_replay_pause()");
    primary.sql("INSERT INTO goods VALUES (1)");
    until("a lag", || {
        (replica.sql("SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()") == "t").then_some(())
    });
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let told = ask(&*lag).await.expect_err("a lag");
    assert!(told.starts_with("the replica is ") && told.ends_with(" behind, where 2 s is allowed"), "{told}");
    replica.sql("SELECT pg_wal_replay_resume()");
    comes_to(&*lag, None).await;
    primary.program.kill();
    comes_to(&*lag, Some("replication is stopped")).await;
    primary.restart();
    comes_to(&*lag, None).await;
}

/// A certificate authority, the server's certificate, and one for the user `certified`.
struct Certificates {
    ca: String,
    server: (String, String),
    client: (String, String),
}

fn certificates() -> Certificates {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let server = issue(CertificateParams::new(["localhost".to_owned()]).unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "certified");
    Certificates { ca: issuer.pem(), server, client: issue(params) }
}

#[tokio::test]
async fn postgresql_over_tls_is_believed_by_its_authority_and_name_and_believes_a_clients_certificate() {
    let mut server = Postgres::start(&[]);
    let of = certificates();
    for (name, text) in [("ca.pem", &of.ca), ("server.pem", &of.server.0), ("server.key", &of.server.1)] {
        server.write(name, text);
    }
    server.sql("ALTER SYSTEM SET ssl_ca_file = 'ca.pem'");
    server.sql("ALTER SYSTEM SET ssl_cert_file = 'server.pem'");
    server.sql("ALTER SYSTEM SET ssl_key_file = 'server.key'");
    server.sql("ALTER SYSTEM SET ssl = on");
    server.sql("CREATE ROLE encrypted LOGIN PASSWORD 'S3cret'");
    server.sql("CREATE ROLE certified LOGIN");
    server.program.end(Signal::SIGINT);
    server.restart();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, other) = (file("ca.pem", &of.ca), file("other.pem", &certificates().ca));
    let (cert, key) = (file("cert.pem", &of.client.0), file("key.pem", &of.client.1));
    let url = |login: &str, host: &str, rest: &str| json!({ "url": format!("postgresql://{login}@{host}:{}/shop?sslmode={rest}", server.port) });
    let encrypted = "encrypted:S3cret";
    assert_eq!(
        ask(&*database(url(encrypted, "localhost", &format!("verify-full&sslrootcert={ca}")))).await,
        Ok(())
    );
    for (host, rest, told) in [
        ("localhost", "disable".to_owned(), "access is denied"),
        ("localhost", format!("verify-full&sslrootcert={other}"), "no secure connection can be made"),
        ("localhost", "verify-full".to_owned(), "no secure connection can be made"),
        ("127.0.0.1", format!("verify-full&sslrootcert={ca}"), "no secure connection can be made"),
    ] {
        assert_eq!(
            reason(&*database(url(encrypted, host, &rest))).await.as_deref(),
            Some(told),
            "{host} {rest}"
        );
    }
    let own = format!("verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}");
    assert_eq!(ask(&*database(url("certified", "localhost", &own))).await, Ok(()));
    let none = database(url("certified", "localhost", &format!("verify-full&sslrootcert={ca}")));
    assert_eq!(reason(&*none).await.as_deref(), Some("access is denied"));
}

#[tokio::test]
async fn mariadb_over_tls_is_believed_by_its_authority_and_name_and_believes_a_clients_certificate() {
    let of = certificates();
    let folder = tempfile::tempdir().unwrap();
    // The server's own user reads them.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, other) = (file("ca.pem", &of.ca), file("other.pem", &certificates().ca));
    let (cert, key) = (file("cert.pem", &of.client.0), file("key.pem", &of.client.1));
    let server = Mariadb::start(&[
        &format!("--ssl-ca={ca}"),
        &format!("--ssl-cert={}", file("server.pem", &of.server.0)),
        &format!("--ssl-key={}", file("server.key", &of.server.1)),
    ]);
    server.sql("CREATE USER encrypted@'127.0.0.1' IDENTIFIED BY 'S3cret' REQUIRE SSL");
    server.sql("CREATE USER certified@'127.0.0.1' REQUIRE X509");
    server.sql(
        "GRANT SELECT ON shop.* TO encrypted@'127.0.0.1'; GRANT SELECT ON shop.* TO certified@'127.0.0.1'",
    );
    let url = |login: &str, host: &str, rest: &str| json!({ "url": format!("mysql://{login}@{host}:{}/shop?ssl-mode={rest}", server.port) });
    let encrypted = "encrypted:S3cret";
    for (host, rest, told) in [
        ("localhost", format!("VERIFY_IDENTITY&ssl-ca={ca}"), None),
        ("127.0.0.1", format!("VERIFY_CA&ssl-ca={ca}"), None),
        ("localhost", "DISABLED".to_owned(), Some("access is denied")),
        ("localhost", format!("VERIFY_IDENTITY&ssl-ca={other}"), Some("no secure connection can be made")),
        ("localhost", "VERIFY_IDENTITY".to_owned(), Some("no secure connection can be made")),
        ("127.0.0.1", format!("VERIFY_IDENTITY&ssl-ca={ca}"), Some("no secure connection can be made")),
    ] {
        assert_eq!(reason(&*database(url(encrypted, host, &rest))).await.as_deref(), told, "{host} {rest}");
    }
    let own = format!("VERIFY_IDENTITY&ssl-ca={ca}&ssl-cert={cert}&ssl-key={key}");
    assert_eq!(ask(&*database(url("certified", "localhost", &own))).await, Ok(()));
    let none = database(url("certified", "localhost", &format!("VERIFY_IDENTITY&ssl-ca={ca}")));
    assert_eq!(reason(&*none).await.as_deref(), Some("access is denied"));
}

#[tokio::test]
async fn mariadb_passes_fails_and_comes_back_without_a_restart_of_the_check() {
    let mut server = Mariadb::start(&["--max-connections=10"]);
    let check = database(json!({ "url": server.url(), "min_free": 2 }));
    assert_eq!(ask(&*check).await, Ok(()));
    // A connection that the server has ended is replaced within the same question.
    let mine = "SELECT group_concat(id) FROM information_schema.processlist WHERE user = 'probe'";
    let first = server.sql(mine);
    server.sql(&format!("KILL {first}"));
    assert_eq!(ask(&*check).await, Ok(()));
    assert_ne!(server.sql(mine), first);

    server.program.freeze();
    assert_eq!(ask_briefly(&*check).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    comes_to(&*check, None).await;

    let others: Vec<_> = (0..9).map(|_| database(json!({ "url": server.url() }))).collect();
    for other in &others {
        comes_to(&**other, None).await;
    }
    comes_to(&*database(json!({ "url": server.url() })), Some("no connection is free")).await;
    assert!(reason(&*check).await.is_some());
    drop(others);
    comes_to(&*check, None).await;
    server.sql("ALTER USER probe@'127.0.0.1' WITH MAX_USER_CONNECTIONS 2");
    server.sql(&format!("KILL {}", server.sql(mine)));
    comes_to(&*check, Some("1 connections are free, where 2 are needed")).await;
    server.sql("ALTER USER probe@'127.0.0.1' WITH MAX_USER_CONNECTIONS 0");
    comes_to(&*check, None).await;

    server.sql("ALTER USER probe@'127.0.0.1' IDENTIFIED BY 'changed'");
    server.sql(&format!("KILL {}", server.sql(mine)));
    let told = ask(&*check).await.expect_err("a wrong password");
    assert!(told.starts_with("access is denied: ") && !told.contains("S3cret"), "{told}");
    server.sql("ALTER USER probe@'127.0.0.1' IDENTIFIED BY 'S3cret'");
    comes_to(&*check, None).await;
    let elsewhere = database(json!({ "url": server.url().replace("/shop", "/nowhere") }));
    assert_eq!(reason(&*elsewhere).await.as_deref(), Some("access is denied"));

    server.program.kill();
    comes_to(&*check, Some("no connection can be made")).await;
    server.restart();
    comes_to(&*check, None).await;
}

#[tokio::test]
async fn a_mariadb_that_takes_no_writes_is_no_primary_and_one_that_follows_another_is_a_replica() {
    let primary = Mariadb::start(&["--server-id=1"]);
    let replica = Mariadb::start(&["--server-id=2"]);
    let check = database(json!({ "url": primary.url(), "write": true, "role": "primary" }));
    for _ in 0..3 {
        assert_eq!(ask(&*check).await, Ok(()));
    }
    primary.sql("SET GLOBAL read_only = 1");
    assert_eq!(reason(&*check).await.as_deref(), Some("it is a replica, not the primary"));
    let write = database(json!({ "url": primary.url(), "write": true }));
    assert_eq!(reason(&*write).await.as_deref(), Some("the database takes no writes"));
    primary.sql("SET GLOBAL read_only = 0");
    assert_eq!(ask(&*check).await, Ok(()));

    let lag = database(json!({ "url": replica.url(), "role": "replica", "max_lag": "1s" }));
    assert_eq!(reason(&*lag).await.as_deref(), Some("the role lacks a right"));
    replica.sql("GRANT SLAVE MONITOR ON *.* TO probe@'127.0.0.1'");
    comes_to(&*lag, Some("it is the primary, not a replica")).await;
    primary.sql("CREATE USER copy@'127.0.0.1' IDENTIFIED BY 'copy'; GRANT REPLICATION SLAVE ON *.* TO copy@'127.0.0.1'");
    // It has all that there is, but by its own hand.
    let position = primary.sql("SELECT @@gtid_binlog_pos");
    replica.sql(&format!(
        "RESET MASTER; SET GLOBAL gtid_slave_pos = '{position}'; CHANGE MASTER TO master_host = '127.0.0.1', \
         master_port = {}, master_user = 'copy', master_password = 'copy', master_use_gtid = slave_pos; START SLAVE",
        primary.port
    ));
    comes_to(&*lag, None).await;
    replica.sql("STOP SLAVE SQL_THREAD");
    comes_to(&*lag, Some("replication is stopped")).await;
    replica.sql("START SLAVE");
    comes_to(&*lag, None).await;
    // Something that the replica has to wait for, on a table that somebody holds there.
    primary.sql("CREATE TABLE shop.goods (id INT)");
    until("the table", || (!replica.sql("SHOW TABLES FROM shop LIKE 'goods'").is_empty()).then_some(()));
    let socket = format!("--socket={}", replica.program.folder.path().join("socket").display());
    let mut holder = Command::new("mariadb")
        .args([
            "--no-defaults",
            "-u",
            "root",
            &socket,
            "-e",
            "LOCK TABLES shop.goods WRITE; SELECT sleep(600)",
        ])
        .spawn()
        .unwrap();
    until("the lock", || {
        (!replica.sql("SHOW OPEN TABLES FROM shop WHERE In_use > 0").is_empty()).then_some(())
    });
    primary.sql("INSERT INTO shop.goods VALUES (1)");
    let begun = Instant::now();
    loop {
        match ask(&*lag).await {
            Err(told) if told.ends_with(" behind, where 1 s is allowed") => break,
            told => assert!(begun.elapsed() < servers::SOON, "{told:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    replica.sql(&format!(
        "KILL {}",
        replica.sql("SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT sleep%' LIMIT 1")
    ));
    comes_to(&*lag, None).await;
}

fn sqlite(path: &std::path::Path, statements: &str) {
    let output =
        Command::new("sqlite3").arg(path).arg(statements).output().expect("Debian's package `sqlite3`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_file_of_sqlite_is_asked_and_never_made_changed_or_left_with_others_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let url = format!("sqlite://{}", path.display());
    let (read, write) = (database(json!({ "url": url })), database(json!({ "url": url, "write": true })));
    for check in [&read, &write] {
        assert_eq!(reason(&**check).await.as_deref(), Some("the file cannot be opened"));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    for journal in ["delete", "wal"] {
        sqlite(&path, &format!("PRAGMA journal_mode = {journal}; CREATE TABLE goods (id)"));
        let before = fs::read(&path).unwrap();
        for check in [&read, &write] {
            assert_eq!(ask(&**check).await, Ok(()), "{journal}");
        }
        assert_eq!(fs::read(&path).unwrap(), before, "{journal}");
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["shop.db"], "{journal}");
        fs::remove_file(&path).unwrap();
        assert_eq!(reason(&*read).await.as_deref(), Some("the file cannot be opened"));
    }
    // A format that this SQLite reads and does not write.
    sqlite(&path, "CREATE TABLE goods (id)");
    let mut bytes = fs::read(&path).unwrap();
    bytes[18] = 9;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(ask(&*read).await, Ok(()));
    assert_eq!(reason(&*write).await.as_deref(), Some("the database takes no writes"));
    fs::write(&path, "no database, but long enough to be taken for one".repeat(100)).unwrap();
    assert_eq!(reason(&*read).await.as_deref(), Some("the file is not a database"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(reason(&*read).await.as_deref(), Some("the file is not a database"));
}

#[tokio::test]
async fn a_file_of_sqlite_that_somebody_else_holds_is_told_before_the_time_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    sqlite(&path, "CREATE TABLE goods (id)");
    let url = format!("sqlite://{}", path.display());
    let (read, write) = (database(json!({ "url": url })), database(json!({ "url": url, "write": true })));
    let mut holder = Command::new("sqlite3");
    let mut holder = holder
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut hand = holder.stdin.take().unwrap();
    hand.write_all(b"BEGIN IMMEDIATE; SELECT 'held';\n").unwrap();
    let mut held = [0; 4];
    holder.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
    assert_eq!(ask(&*read).await, Ok(()));
    let told = ask_briefly(&*write).await.expect_err("a lock");
    assert!(told.starts_with("the database is locked"), "{told}");
    drop(hand);
    holder.wait().unwrap();
    assert_eq!(ask(&*write).await, Ok(()));
}

/// What servers might say that mean harm, or are something else.
#[tokio::test]
async fn nothing_that_a_peer_says_is_taken_for_an_answer_or_costs_more_than_the_question() {
    let greeting = b"\x4a\0\0\0\x0a5.5.5\0\x01\0\0\0AAAAAAAA\0\xff\xff\x21\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0AAAAAAAAAAAA\0mysql_native_password\0";
    let says: [&'static [u8]; 12] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R\0\0\0\0",
        b"R\0\0\0\x03",
        b"R\xff\xff\xff\xff",
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I",
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05ID\0\0\0\x04",
        b"E\0\0\0\x04",
        b"\0\0\0\0",
        b"\xff\xff\xff\0",
        greeting,
        b"\x01\0\0\0\x0a",
    ];
    for scheme in ["postgresql", "mysql"] {
        for said in says {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let peer = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // Who asked may have gone.
                let _ = stream.write_all(said);
                let _ = stream.read(&mut [0; 1024]);
            });
            let off = if scheme == "mysql" { "ssl-mode=DISABLED" } else { "sslmode=disable" };
            let check =
                database(json!({ "url": format!("{scheme}://probe:S3cret@127.0.0.1:{port}/shop?{off}") }));
            let told = ask_briefly(&*check).await.expect_err("no answer of a database");
            assert!(!told.contains("S3cret"), "{told}");
            peer.join().unwrap();
        }
    }
}
