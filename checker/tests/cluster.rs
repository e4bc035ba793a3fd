//! `checker cluster` as a process, on real Redis servers: every policy, every format, and whatever a Redis can do
//! to who asks it.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::gethostname;
use serde_json::{Value, json};
use servers::{Server, beat, beat_as, checker, record, until, worker};

#[derive(Debug)]
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

fn told(command: &mut Command) -> Told {
    let begun = Instant::now();
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Told {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        took: begun.elapsed(),
    }
}

fn ask_at(url: &str, words: &str) -> Told {
    told(checker(&format!("cluster orders {words}")).env("HEARTBEAT_REDIS_URL", url))
}

fn ask(server: &Server, words: &str) -> Told {
    ask_at(&server.url(), words)
}

fn json(told: &Told) -> Value {
    assert_eq!(told.stdout.matches('\n').count(), 1, "{told:?}");
    serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"))
}

const LONG: u64 = 600_000;

/// Three workers that take work, on two hosts and two queues, and one that is fresh and takes none.
fn four_workers() -> Server {
    let server = Server::start(&[]);
    beat(
        &server,
        &[
            record(1, "w1", "web-1", &["mail"], LONG),
            record(2, "w2", "web-1", &["mail", "pdf"], LONG),
            record(3, "w3", "web-2", &["mail"], LONG),
        ],
    );
    beat_as(&server, &[record(4, "w4", "web-2", &["pdf"], LONG)], false);
    server
}

/// A worker that beat once and never again.
fn lose(server: &Server, number: u128, name: &str) {
    beat(server, &[record(number, name, "web-3", &["mail"], 20)]);
    let gone = |told: Told| told.stdout.contains(&format!("orders@{name} silent for ")).then_some(());
    until("it is lost", || gone(ask(server, "--min 0")));
}

// --- policies ---------------------------------------------------------------------------------------------------

#[test]
fn each_policy_passes_and_fails_where_its_border_is() {
    let server = four_workers();
    for (words, fails) in [
        ("", ""),
        ("--min 3", ""),
        ("--min 4", "min 4: 3 workers take work"),
        ("--min 4 --for live", ""),
        ("--min-percent 75 --expected 4", ""),
        ("--min-percent 76 --expected 4", "76 % of 4 is 4: 3 workers take work"),
        ("--queue mail", ""),
        ("--queue mail:3", ""),
        ("--queue mail:4", "queue mail needs 4: 3 workers take work"),
        ("--queue pdf:2", "queue pdf needs 2: 1 worker takes work"),
        ("--queue pdf:2 --for live", ""),
        ("--queue pdf:3 --for live", "queue pdf needs 3: 2 workers beat"),
        ("--queue none", "queue none needs 1: no workers take work"),
        ("--expect w1 --expect w3", ""),
        ("--expect w9", "w9 is not there"),
        ("--expect w4 --for live", ""),
        ("--expect w4", "w4 takes no work (alive: "),
        ("--max-lost 0", ""),
        ("--min 3 --queue mail:3 --queue pdf --expect w2 --max-lost 0 --min-percent 50 --expected 6", ""),
    ] {
        let told = ask(&server, words);
        assert_eq!(
            (told.code, told.stderr.as_str()),
            (Some(i32::from(!fails.is_empty())), ""),
            "{words}: {told:?}"
        );
        let begin = if fails.is_empty() { "pass: " } else { "fail: " };
        assert!(told.stdout.starts_with(&format!("{begin}{fails}")), "{words}: {told:?}");
        assert!(told.stdout.ends_with(&format!("(orders at {})\n", server.url())), "{told:?}");
    }
}

#[test]
fn every_policy_that_fails_is_named_and_the_lost_are_too() {
    let server = four_workers();
    lose(&server, 9, "w9");
    let told = ask(
        &server,
        "--min 9 --min-percent 100 --expected 8 --queue pdf:7 --expect w8 --expect w9 --max-lost 0",
    );
    for named in [
        "min 9: ",
        "100 % of 8 is 8: ",
        "queue pdf needs 7: ",
        "w8 is not there",
        "w9 silent for ",
        "max lost 0: 1 lost",
        "lost: orders@w9 silent for ",
    ] {
        assert!(told.stdout.contains(named), "{named}: {told:?}");
    }
    assert_eq!(told.code, Some(1));
    let told = ask(&server, "--max-lost 1");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("lost: orders@w9 silent for "), "{told:?}");
}

#[test]
fn a_worker_that_started_anew_is_not_lost() {
    let server = four_workers();
    lose(&server, 9, "w9");
    beat(&server, &[record(10, "w9", "web-3", &["mail"], LONG)]);
    let told = ask(&server, "--max-lost 0 --expect w9 --format json");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!((&json(&told)["lost"], &json(&told)["lost_count"]), (&json!([]), &json!(0)));
    let list = json(&ask(&server, "--list --format json"));
    assert_eq!(list["workers"].as_array().unwrap().len(), 5, "{list}");
}

#[test]
fn an_empty_cluster_fails_and_says_that_it_is_empty() {
    let server = Server::start(&[]);
    for words in ["", "--for live", "--max-lost 0", "--unknown pass"] {
        let told = ask(&server, words);
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(told.stdout.contains("the cluster is empty"), "{told:?}");
    }
    assert_eq!(ask(&server, "--min 0").code, Some(0));
}

#[test]
fn only_workers_of_a_host_count_where_one_is_named() {
    let server = four_workers();
    for (words, code) in [
        ("--host web-1 --min 2 --queue mail:2 --queue pdf:1", 0),
        ("--host web-1 --min 3", 1),
        ("--host web-2 --min 1", 0),
        ("--host web-2 --min 2", 1),
        ("--host web-2 --min 2 --for live --queue pdf", 0),
        ("--host web-2 --queue pdf", 1),
        ("--host web-1 --expect w3", 1),
        ("--host nowhere", 1),
        ("--host self", 1),
    ] {
        let told = ask(&server, words);
        assert_eq!(told.code, Some(code), "{words}: {told:?}");
    }
    let own = gethostname().unwrap().into_string().unwrap();
    beat(&server, &[record(5, "w5", &own, &["mail"], LONG)]);
    assert_eq!(ask(&server, "--host self --expect w5").code, Some(0));
    assert_eq!(ask(&server, "--host self --min 2").code, Some(1));
}

#[test]
fn whose_record_was_evicted_still_counts_for_its_host_and_its_queues() {
    let server = four_workers();
    server.ask(&format!("DEL heartbeat:{{orders}}:stat:{:032x}", 2));
    for (words, code) in [
        ("--host web-1 --min 2 --queue mail:2 --queue pdf:1", 0),
        ("--host web-1 --queue pdf:2", 1),
        ("--for live --queue mail:3", 0),
        ("--for live --queue mail:4", 1),
    ] {
        let told = ask(&server, words);
        assert_eq!(told.code, Some(code), "{words}: {told:?}");
    }
}

#[test]
fn whose_name_was_evicted_is_listed_all_the_same() {
    let server = four_workers();
    lose(&server, 9, "w9");
    server.ask("DEL heartbeat:{orders}:names");
    // The lost one's may have a millisecond left.
    for evicted in [2, 9] {
        server.ask(&format!("DEL heartbeat:{{orders}}:stat:{evicted:032x}"));
    }
    let read = json(&ask(&server, "--list --format json"));
    assert_eq!((&read["fresh"], &read["ready"], &read["lost_count"]), (&json!(4), &json!(3), &json!(1)));
    let name = |number: u128| format!("{number:032x}");
    let told = |worker: &Value| {
        let text = |key: &str| worker[key].as_str().unwrap_or("null").to_owned();
        (text("worker"), text("verdict"), text("host"), worker["age_ms"].is_null())
    };
    let mut workers: Vec<_> = read["workers"].as_array().unwrap().iter().map(told).collect();
    workers.sort();
    let expected = [
        (name(2), "unknown", "null", true),
        (name(9), "silent", "null", false),
        ("w1".to_owned(), "alive", "web-1", false),
        ("w3".to_owned(), "alive", "web-2", false),
        ("w4".to_owned(), "alive", "web-2", false),
    ];
    let expected = expected
        .map(|(worker, verdict, host, unknown)| (worker, verdict.to_owned(), host.to_owned(), unknown));
    assert_eq!(workers, expected, "{read}");
    assert_eq!(&read["lost"][0]["worker"], &json!(name(9)), "{read}");
    let table = ask(&server, "--list");
    let line = table.stdout.lines().find(|line| line.starts_with(&name(2))).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), [&name(2), "unknown", "-", "-"], "{table:?}");
    let metrics = ask(&server, "--list --format openmetrics").stdout;
    assert_eq!(metrics.matches("heartbeat_cluster_worker_verdict{").count(), 5, "{metrics}");
    assert_eq!(ask(&server, "--max-lost 0").code, Some(1), "whether it has started anew, nobody knows");
    // Of which host it is, nobody knows.
    for (words, code) in [("--host web-1 --min 1", 0), ("--host web-1 --min 2", 1), ("--expect w1", 1)] {
        assert_eq!(ask(&server, words).code, Some(code), "{words}");
    }
}

// --- real workers -----------------------------------------------------------------------------------------------

#[test]
fn a_real_worker_is_counted_and_a_clean_stop_takes_it_away_at_once() {
    let server = Server::start(&[]);
    let first = worker(&server, "w1", &["mail"]);
    let _second = worker(&server, "w2", &["pdf"]);
    until("both are there", || {
        (ask(&server, "--min 2 --queue mail --queue pdf").code == Some(0)).then_some(())
    });
    first.stop().unwrap();
    // A queue loses its only worker.
    let told = until("it is away", || {
        let told = ask(&server, "--queue mail --queue pdf --max-lost 0");
        (told.code == Some(1)).then_some(told)
    });
    assert!(told.stdout.starts_with("fail: queue mail needs 1: no workers take work ("), "{told:?}");
}

#[test]
fn a_killed_worker_is_counted_out_after_its_promise_and_named() {
    if let Ok(url) = std::env::var("VICTIM_OF") {
        return be_the_victim(url);
    }
    let server = Server::start(&[]);
    let _other = worker(&server, "w1", &["mail"]);
    let mut victim = Victim::start(&server);
    until("both are there", || (ask(&server, "--min 2").code == Some(0)).then_some(()));
    victim.kill();
    let told = until("it is counted out", || {
        let told = ask(&server, "--min 2 --format json");
        (told.code == Some(1)).then_some(told)
    });
    let read = json(&told);
    assert_eq!(read["lost"][0]["worker"], "victim", "{read}");
    assert!(read["lost"][0]["silent_ms"].as_u64().unwrap() >= 1_000, "{read}");
    assert!(ask(&server, "--min 2").stdout.contains("; lost: orders@victim silent for "));
}

/// This very program, as a worker that a signal can end without a word.
struct Victim(std::process::Child);

impl Victim {
    fn start(server: &Server) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args([VICTIM, "--exact"]).env("VICTIM_OF", server.url());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Its process is that test's own program, started once more.
const VICTIM: &str = "a_killed_worker_is_counted_out_after_its_promise_and_named";

fn be_the_victim(url: String) {
    let builder = heartbeat::Heartbeat::builder().environment(|_| None).no_file().redis(url);
    let builder = builder.cluster("orders").worker("victim").queues(["mail"]);
    let _beats =
        builder.interval(Duration::from_millis(100)).promise(Duration::from_secs(1)).start().unwrap();
    thread::sleep(Duration::from_mins(1));
}

// --- what cannot be told ----------------------------------------------------------------------------------------

fn is_unknown(url: &str, says: &str) {
    for (words, code, begin) in [
        ("", 1, "unknown: Redis "),
        ("--unknown pass", 0, "unknown: Redis "),
        ("--unknown pass --list --host self --expect w1", 0, "unknown: Redis "),
        ("--format nagios --unknown pass", 3, "HEARTBEAT UNKNOWN - unknown: Redis "),
        ("--format json", 1, r#"{"status":"unknown","reason":"Redis "#),
        ("--format health+json", 1, "{"),
        ("--format openmetrics", 1, "# TYPE"),
    ] {
        let told = ask_at(url, &format!("--timeout 1s {words}"));
        assert_eq!((told.code, told.stderr.as_str()), (Some(code), ""), "{words}: {told:?}");
        assert!(told.stdout.starts_with(begin) && told.stdout.ends_with('\n'), "{words}: {told:?}");
        assert!(told.took < Duration::from_millis(1_400), "{told:?}");
        assert!(!told.stdout.contains("S3cret"), "{told:?}");
        if begin.contains("Redis") {
            assert!(told.stdout.contains(says), "{says}: {told:?}");
        }
    }
    assert_eq!(json(&ask_at(url, "--timeout 1s --format json"))["fresh"], Value::Null);
}

#[test]
fn a_redis_that_is_down_is_unknown() {
    let mut server = four_workers();
    server.kill();
    is_unknown(&server.url_of("me:S3cret@"), "Redis cannot be reached");
}

#[test]
fn a_frozen_redis_is_unknown_within_the_timeout() {
    let server = four_workers();
    server.signal(Signal::SIGSTOP);
    is_unknown(&server.url_of(":S3cret@"), "Redis did not answer in time");
}

#[test]
fn a_wrong_password_is_unknown_and_never_shown() {
    let server = Server::start(&["--requirepass", "right"]);
    is_unknown(&server.url_of(":S3cret@"), "Redis denied access");
    is_unknown(&server.url(), "Redis denied access");
    assert!(ask_at(&server.url_of(":right@"), "").stdout.contains("empty"));
}

#[test]
fn a_user_who_may_not_ask_is_unknown() {
    let server = four_workers();
    assert_eq!(server.ask("ACL SETUSER me on >S3cret ~* +get"), "+OK");
    is_unknown(&server.url_of("me:S3cret@"), "Redis denied access");
}

#[test]
fn what_is_no_redis_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://:S3cret@{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Whoever asked may have gone: that is for the test to see.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    is_unknown(&url, "Redis ");
}

#[test]
fn a_tls_handshake_that_never_answers_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rediss://:S3cret@{}", listener.local_addr().unwrap());
    is_unknown(&url, "Redis did not answer in time");
}

#[test]
fn invalid_arguments_are_one_clear_line_without_the_url() {
    for (words, says) in [
        ("cluster orders", "which Redis?"),
        ("cluster orders --redis http://:S3cret@h", "the URL in --redis cannot be used"),
        ("cluster orders --redis redis://:S3cret@h:0", "the URL in --redis cannot be used"),
        ("cluster orders redis://:S3cret@h", "unexpected argument"),
        ("cluster orders --min redis://:S3cret@h", "invalid value"),
        ("cluster orders --min-percent 50 --redis redis://h", "--expected"),
        ("cluster orders --min-percent 101 --expected 1 --redis redis://h", "101"),
        ("cluster orders --queue :1 --redis redis://h", "a queue is NAME"),
        ("cluster", "<NAME>"),
        ("cluster orders --redis rediss://:S3cret@h?ca=/nonexistent", "/nonexistent"),
        ("watch --cluster orders --redis http://:S3cret@h", "the URL in --redis cannot be used"),
        ("watch", "--dir"),
    ] {
        let told = told(&mut checker(words));
        assert_eq!((told.code, told.stdout.as_str()), (Some(2), ""), "{words}: {told:?}");
        assert!(told.stderr.contains(says) && !told.stderr.contains("S3cret"), "{words}: {told:?}");
    }
}

#[test]
#[cfg(feature = "django-q")]
fn invalid_arguments_about_django_q_are_one_clear_line_without_the_url() {
    for (words, says) in [
        ("", "where are Django-Q's stats?"),
        ("--redis redis://:S3cret@h", "belongs into DJANGO_SECRET_KEY"),
        ("--redis redis://h --queue mail", "--queue: Django-Q's stats do not tell"),
        ("--redis redis://h --max-lost 0", "--max-lost: Django-Q forgets"),
        ("--redis redis+cluster://:S3cret@h", "no stats in a Redis Cluster"),
        ("--redis redis://h --cache redis://:S3cret@h", "cannot be used with"),
        ("--redis redis://h --cache-prefix x", "--cache-prefix is for --cache"),
        ("--redis redis://h --unhealthy Angry", "invalid value"),
        ("--cache http://:S3cret@h", "it begins with none of redis://"),
        ("--cache redis://:S3cret@h --cache-table t", "for a cache in a database"),
        ("--cache postgres://me:S3cret@h/db", "needs --cache-table TABLE"),
        ("--cache postgres://me:S3cret@h:port/db --cache-table t", "what stands behind its scheme"),
        ("--cache sqlite:///db --cache-table a\"b", "is the name of a table"),
        ("--source heartbeat --redis redis://h --unhealthy Idle", "--unhealthy is for --source django-q"),
        #[cfg(feature = "celery")]
        (
            "--source celery --broker redis://:S3cret@h --cache-table t",
            "--cache-table is for --source django-q",
        ),
    ] {
        let source = if words.contains("--source") { "" } else { "--source django-q" };
        let told = told(&mut checker(&format!("cluster shop {source} {words}")));
        assert_eq!((told.code, told.stdout.as_str()), (Some(2), ""), "{words}: {told:?}");
        assert!(told.stderr.contains(says) && !told.stderr.contains("S3cret"), "{words}: {told:?}");
    }
}

// --- formats and lists ------------------------------------------------------------------------------------------

#[test]
fn the_json_object_is_the_one_that_is_promised() {
    let server = four_workers();
    lose(&server, 9, "w9");
    let read = json(&ask(&server, "--queue mail --queue pdf:0 --expect w8 --format json"));
    assert_eq!(read["status"], "fail");
    assert_eq!((&read["fresh"], &read["ready"], &read["cluster"]), (&json!(4), &json!(3), &json!("orders")));
    assert_eq!((&read["queues"], &read["missing"]), (&json!({ "mail": 3, "pdf": 1 }), &json!(["w8"])));
    assert_eq!(read["lost"].as_array().unwrap().len(), 1);
    assert!(read["lost"][0]["silent_ms"].is_u64() && read["reason"].is_string() && read["workers"].is_null());
    let read = json(&ask(&server, "--list --format json"));
    let workers = read["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 5);
    assert_eq!((&workers[0]["worker"], &workers[0]["verdict"]), (&json!("w9"), &json!("silent")));
    assert_eq!((&workers[1]["verdict"], &workers[1]["queues"]), (&json!("alive"), &json!(["mail"])));
    assert!(workers[1]["age_ms"].is_u64());
}

#[test]
fn every_format_tells_the_same() {
    let server = four_workers();
    for (words, code, status, word) in [("--min 1", 0, "pass", "OK"), ("--min 9", 1, "fail", "CRITICAL")] {
        let health: Value = json(&ask(&server, &format!("{words} --format health+json --list")));
        assert_eq!(health["status"], status);
        assert_eq!(health["checks"]["cluster:workers"].as_array().unwrap().len(), 4);
        let nagios = ask(&server, &format!("{words} --format nagios --queue mail:2"));
        assert_eq!(nagios.code, Some(code * 2));
        assert!(nagios.stdout.starts_with(&format!("HEARTBEAT {word} - {status}: ")), "{nagios:?}");
        assert!(
            nagios.stdout.ends_with(" | fresh=4;;;0 ready=3;;;0 lost=0;;;0 'queue mail'=3;;2:;0\n"),
            "{nagios:?}"
        );
        let metrics = ask(&server, &format!("{words} --format openmetrics --queue mail --list"));
        for line in [
            &format!("heartbeat_cluster_up{{cluster=\"orders\",for=\"ready\"}} {}", 1 - code),
            &format!("heartbeat_cluster_status{{cluster=\"orders\",status=\"{status}\"}} 1"),
            "heartbeat_cluster_workers{cluster=\"orders\",state=\"fresh\"} 4",
            "heartbeat_cluster_queue_workers{cluster=\"orders\",queue=\"mail\"} 3",
        ] {
            assert!(metrics.stdout.lines().any(|shown| shown == line), "{line} is not in {metrics:?}");
        }
        assert_eq!(metrics.stdout.matches("heartbeat_cluster_worker_verdict{").count(), 4);
        assert!(metrics.stdout.ends_with("\n# EOF\n"));
    }
}

#[test]
fn a_thousand_workers_are_listed_each_once() {
    let server = Server::start(&[]);
    let records: Vec<_> =
        (0..1_000).map(|at| record(at + 1, &format!("w{at:04}"), "web", &["mail"], LONG)).collect();
    beat(&server, &records);
    let told = ask(&server, "--min 1000 --list");
    assert_eq!(told.code, Some(0), "{told:?}");
    let lines: Vec<_> = told.stdout.lines().collect();
    assert_eq!(lines.len(), 1_002);
    assert!(
        lines[1].starts_with("WORKER  VERDICT ") && lines[2].starts_with("w0000   alive  "),
        "{:?}",
        &lines[..3]
    );
    let read = json(&ask(&server, "--list --format json"));
    let mut names: Vec<_> =
        read["workers"].as_array().unwrap().iter().map(|worker| &worker["worker"]).collect();
    names.dedup();
    assert_eq!((names.len(), &read["more_workers"]), (1_000, &json!(false)));
    assert_eq!(ask(&server, "--host web --min 1000").code, Some(0));
}

#[test]
fn counts_cost_one_command() {
    let server = four_workers();
    // The server knows the script from now on.
    ask(&server, "");
    let names = [
        "evalsha",
        "eval",
        "hscan",
        "hget",
        "getrange",
        "zrevrangebyscore",
        "auth",
        "hello",
        "client",
        "select",
    ];
    let calls = || names.map(|name| server.calls(name));
    let before = calls();
    assert_eq!(ask(&server, "--min 3 --queue mail --queue pdf --max-lost 0").code, Some(0));
    let mut expected = before;
    expected[0] += 1;
    assert_eq!(calls(), expected, "{names:?}");
}

#[test]
fn monitor_sees_one_command_for_counts() {
    let server = four_workers();
    ask(&server, "");
    let stream = std::net::TcpStream::connect(server.url().trim_start_matches("redis://")).unwrap();
    stream.set_read_timeout(Some(servers::SOON)).unwrap();
    (&stream).write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    ask(&server, "--queue mail");
    server.ask("ECHO end");
    let seen: Vec<_> = lines.take_while(|line| !line.contains("ECHO")).collect();
    let from_outside: Vec<_> = seen.iter().filter(|line| !line.contains(" lua] ")).collect();
    assert_eq!(from_outside.len(), 1, "{seen:#?}");
}
