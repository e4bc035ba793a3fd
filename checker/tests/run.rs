//! `checker run`: a subset's checks side by side, in every format, to the deadline and not beyond.

#![cfg(feature = "run")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use servers::{Nginx, Postgres};
use shared::checks::KINDS;
use tempfile::TempDir;

mod servers;

struct Bench {
    folder: TempDir,
}

#[derive(Debug)]
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Bench {
    fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("checker.toml"), configuration).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, words: &str) -> Told {
        self.run_with(words, &[])
    }

    fn run_with(&self, words: &str, environment: &[(&str, &Path)]) -> Told {
        let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
        command
            .arg("run")
            .args(words.split_whitespace())
            .current_dir(self.folder.path())
            .env_remove("CHECKER_CONFIG")
            .envs(environment.iter().copied());
        let begun = Instant::now();
        let output = command.output().unwrap();
        Told {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            took: begun.elapsed(),
        }
    }

    fn json(&self, words: &str) -> Value {
        self.json_with(words, &[])
    }

    fn json_with(&self, words: &str, environment: &[(&str, &Path)]) -> Value {
        let told = self.run_with(&format!("{words} --format json"), environment);
        serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"))
    }
}

fn shell(name: &str, script: &str, more: &str) -> String {
    format!("[checks.{name}]\ntype = 'command'\ncommand = ['sh', '-c', '{script}']\n{more}\n")
}

fn mixed() -> Bench {
    let mut text = String::from(
        "[subsets]\ngood = ['good']\nwarns = ['good', 'warns']\nfails = ['fails', '@warns']\nunsure = ['good', 'unsure']\nall = ['@fails', '@unsure']\n",
    );
    text += &shell("good", "exit 0", "");
    text += &shell("warns", "echo disk is full; exit 1", "critical = false\nexpose_output = true");
    text += &shell("fails", "echo hidden words >&2; exit 3", "");
    text += &shell("unsure", "exit 3", "plugin = true");
    Bench::new(&text)
}

#[test]
fn text_is_a_line_for_each_check_in_their_order_and_the_whole_in_the_last() {
    let told = mixed().run("all");
    assert_eq!(told.code, Some(1));
    let lines: Vec<_> = told.stdout.lines().collect();
    let begins = [
        "fail: fails: the program ended with status 3 (",
        "ok: good (",
        "warning: warns: disk is full (",
        "unknown: unsure: the program ended with status 3 (",
        "fail: all: 1 ok, 1 warning, 1 fail, 1 unknown",
    ];
    assert_eq!(lines.len(), begins.len(), "{told:?}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
    let log: Vec<_> = told.stderr.lines().collect();
    assert_eq!(log[0], "checker: fails: the program ended with status 3: it said: hidden words");
}

#[test]
fn json_is_the_object_that_is_promised() {
    let told = mixed().run("fails --format json");
    assert!(
        told.stdout
            .starts_with(r#"{"status":"fail","checks":{"fails":{"status":"fail","reason":"the program"#),
        "{told:?}"
    );
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(report["checks"].as_object().unwrap().len(), 3);
    assert_eq!(report["checks"]["good"]["status"], "ok");
    assert_eq!(
        (&report["checks"]["good"]["reason"], &report["checks"]["warns"]["reason"]),
        (&Value::Null, &"disk is full".into())
    );
    assert!(report["checks"]["good"]["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(told.stdout.matches('\n').count(), 1);
}

#[test]
fn the_exit_status_is_that_of_the_whole_in_each_format() {
    let bench = mixed();
    for (subset, status, plugin) in
        [("good", 0, 0), ("warns", 0, 1), ("fails", 1, 2), ("unsure", 1, 3), ("all", 1, 2)]
    {
        for format in ["text", "json", "health+json", "openmetrics"] {
            assert_eq!(
                bench.run(&format!("{subset} --format {format}")).code,
                Some(status),
                "{subset} {format}"
            );
        }
        assert_eq!(bench.run(&format!("{subset} --format nagios")).code, Some(plugin), "{subset}");
    }
    assert_eq!(bench.run("warns --warnings fail").code, Some(1));
    assert_eq!(bench.run("good --warnings fail").code, Some(0));
}

#[test]
fn each_format_keeps_its_form() {
    let bench = mixed();
    let nagios = bench.run("warns --format nagios").stdout;
    let first = nagios.lines().next().unwrap();
    assert!(first.starts_with("CHECKS WARNING - warns: 1 ok, 1 warning | 'good'=0."), "{first}");
    assert_eq!((nagios.lines().count(), nagios.matches('|').count()), (3, 1), "{nagios}");
    let health: Value = serde_json::from_str(&bench.run("warns --format health+json").stdout).unwrap();
    assert_eq!((&health["status"], &health["output"]), (&"warn".into(), &"warns: 1 ok, 1 warning".into()));
    assert_eq!(health["checks"]["warns:responseTime"][0]["status"], "warn");
    assert_eq!(health["checks"]["warns:responseTime"][0]["output"], "disk is full");
    let metrics = bench.run("warns --format openmetrics").stdout;
    for line in [
        "checker_subset_up{subset=\"warns\"} 1",
        "checker_check_status{subset=\"warns\",check=\"good\",status=\"ok\"} 1",
        "checker_check_status{subset=\"warns\",check=\"warns\",status=\"ok\"} 0",
        "checker_check_status{subset=\"warns\",check=\"warns\",status=\"warning\"} 1",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}\n{metrics}");
    }
    assert!(metrics.ends_with("\n# EOF\n"));
    let wrong = bench.run("wrns --format nagios");
    assert_eq!(wrong.code, Some(3));
    assert!(
        wrong.stdout.contains("UNKNOWN - checker.toml: there is no subset `wrns`; did you mean `warns`?"),
        "{wrong:?}"
    );
}

#[test]
fn of_twenty_checks_one_that_hangs_is_timed_out_and_the_others_are_told() {
    let mut text = String::from("[subsets]\nall = [");
    for number in 0..20 {
        write!(text, "'c{number}', ").unwrap();
    }
    text += "]\n";
    for number in 0..20 {
        let script = if number == 7 { "sleep 100" } else { "exit 0" };
        text += &shell(&format!("c{number}"), script, "timeout = \"1m\"");
    }
    let bench = Bench::new(&text);
    let begun = Instant::now();
    let report = bench.json("all --timeout 4s");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let checks = report["checks"].as_object().unwrap();
    assert_eq!(checks.values().filter(|check| check["status"] == "ok").count(), 19, "{report}");
    assert_eq!((&checks["c7"]["status"], &checks["c7"]["reason"]), (&"fail".into(), &"timed out".into()));
    assert_eq!(report["status"], "fail");
}

#[test]
fn a_subset_takes_as_long_as_its_slowest_check() {
    let mut text =
        String::from("[subsets]\nall = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']\nnone = ['fast']\n");
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        text += &shell(name, "sleep 1", "");
    }
    text += &shell("fast", "exit 0", "");
    let bench = Bench::new(&text);
    let told = bench.run("all --timeout 30s");
    assert_eq!(told.code, Some(0), "{told:?}");
    // One after another, it would be eight seconds.
    assert!(told.took >= Duration::from_secs(1) && told.took < Duration::from_secs(4), "{told:?}");
}

#[test]
fn at_its_deadline_it_leaves_no_child() {
    let bench = Bench::new("");
    let pids = bench.path("pids");
    let script = format!(
        "echo $$ >>{0}; setsid sh -c \"echo \\$\\$ >>{0}; exec sleep 100\" & sleep 100",
        pids.display()
    );
    let text = format!(
        "[subsets]\nall = ['it']\n[checks.it]\ntype = 'command'\ncommand = ['sh', '-c', '''{script}''']\n"
    );
    fs::write(bench.path("checker.toml"), text).unwrap();
    let told = bench.run("all --timeout 2s");
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.starts_with("fail: it: timed out ("), "{told:?}");
    assert!(told.took < Duration::from_secs(2), "{told:?}");
    let pids = fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    let living = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let begun = Instant::now();
    while pids.lines().any(living) {
        assert!(begun.elapsed() < Duration::from_secs(5), "a child is left");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Where everybody who comes is treated so.
fn peer(treat: fn(TcpStream) -> io::Result<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asks may have gone already.
            thread::spawn(move || drop(treat(stream)));
        }
    });
    address
}

fn talk_garbage(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"S3c\xff\r\n\r\n")
}

/// Refuses in the words of whoever asks, and repeats what it was told.
fn refuse_and_repeat(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut bytes = [0; 16 * 1024];
    let mut is_greeted = false;
    loop {
        let read = match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            // It is for a mail server to speak first.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_greeted => {
                stream.write_all(b"220 it\r\n")?;
                is_greeted = true;
                continue;
            }
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&bytes[..read]);
        let said = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if said.starts_with("EHLO") {
            stream.write_all(b"250-it\r\n250 AUTH PLAIN LOGIN\r\n")?;
        } else if said.starts_with("AUTH") {
            stream.write_all(format!("535 {said}\r\n").as_bytes())?;
        } else if said.starts_with('*') {
            stream.write_all(format!("-ERR {said}\r\n").as_bytes())?;
        } else if said.contains(" HTTP/1.1 ") {
            let head = format!("HTTP/1.1 403 No\r\ncontent-length: {}", said.len());
            stream.write_all(format!("{head}\r\n\r\n{said}").as_bytes())?;
        } else {
            return stream.write_all(&bytes[..read]);
        }
    }
}

#[test]
fn no_kind_tells_a_part_of_a_secret_in_any_format_or_log() {
    let peers = ["127.0.0.1:1".parse().unwrap(), peer(talk_garbage), peer(refuse_and_repeat)];
    let mut names = Vec::new();
    let mut text = String::new();
    for kind in KINDS {
        for settings in kind.contract.settings().iter().chain(kind.more_contracts) {
            for peer in &peers {
                let name = format!("{}-{}", kind.name, names.len());
                let settings = settings.replace("{peer}", &peer.to_string());
                write!(text, "[checks.{name}]\ntype = '{}'\n{settings}\n", kind.name).unwrap();
                names.push(format!("'{name}'"));
            }
        }
    }
    let bench = Bench::new(&format!("[subsets]\nall = [{}]\n{text}", names.join(", ")));
    for format in ["text", "json", "health+json", "nagios", "openmetrics"] {
        let told = bench.run(&format!("all --timeout 4s --format {format}"));
        assert!(told.code.is_some_and(|code| code != 0 && (code != 3 || format == "nagios")), "{told:?}");
        let output = format!("{}{}", told.stdout, told.stderr);
        assert!(["S3cr", "3cre"].iter().all(|part| !output.contains(part)), "{told:?}");
        assert!(told.took < Duration::from_secs(4), "{told:?}");
    }
}

#[test]
fn a_secret_that_a_program_repeats_is_not_in_the_log() {
    let text = "[subsets]\nall = ['it']\n[checks.it]\ntype = 'command'\ncommand = ['sh', '-c', 'echo got $PASSWORD; exit 1']\nenvironment = { PASSWORD = 'S3cret' }\n";
    let told = Bench::new(text).run("all");
    assert_eq!(told.stderr, "checker: it: the program ended with status 1: it said: got …\n");
    let bench = Bench::new(&format!("{text}expose_output = true\n"));
    for format in ["text", "json", "health+json", "nagios", "openmetrics"] {
        let told = bench.run(&format!("all --format {format}"));
        assert_eq!(told.stderr, "checker: it: got …: it said: got …\n");
        assert!(!told.stdout.contains("S3cret"), "{told:?}");
        assert_eq!(told.stdout.contains("got …"), format != "openmetrics", "{told:?}");
    }
}

#[test]
fn an_ordinary_word_of_a_command_stays_in_the_log() {
    let other = shell("other", "echo the latest test >&2; exit 1", "");
    let text = format!(
        "[subsets]\nall = ['it', 'other']\n[checks.it]\ntype = 'command'\ncommand = ['test', '-e', '/nonexistent']\n{other}"
    );
    let told = Bench::new(&text).run("all");
    assert!(told.stderr.contains("it said: the latest test\n"), "{told:?}");
}

/// One kind for each client that reads the system's certificates by itself: HTTP's and whoever shares its TLS, Redis's, and
/// the databases'.
#[test]
fn whom_the_systems_authorities_vouch_for_is_trusted_without_a_word_of_configuration() {
    let nginx = Nginx::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (issued, other) = (made(), made());
    let (cert, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    fs::write(path("cert.pem"), &cert).unwrap();
    fs::write(path("key.pem"), &key).unwrap();
    fs::write(path("system.pem"), fs::read_to_string(&nginx.ca).unwrap() + &cert).unwrap();
    fs::write(path("other.pem"), other.cert.pem()).unwrap();

    let port = servers::free_port();
    let (cert_file, key_file) = (path("cert.pem"), path("key.pem"));
    let files =
        ["--tls-cert-file", cert_file.to_str().unwrap(), "--tls-key-file", key_file.to_str().unwrap()];
    let encrypts = ["--tls-auth-clients", "no", "--tls-port", &port.to_string()];
    let _redis = servers::Server::start(&[files, encrypts].concat());
    let postgres = Postgres::start(&[]);
    postgres.write("server.crt", &cert);
    postgres.write("server.key", &key);
    postgres.sql("ALTER SYSTEM SET ssl = on");
    postgres.sql("SELECT pg_reload_conf()");
    servers::until("a PostgreSQL with TLS", || (postgres.sql("SHOW ssl") == "on").then_some(()));

    let bench = Bench::new(&format!(
        "[subsets]\nall = ['http', 'redis', 'database']\n\
         [checks.http]\ntype = 'http'\nurl = '{}'\n\
         [checks.redis]\ntype = 'redis'\nurl = 'rediss://localhost:{port}'\n\
         [checks.database]\ntype = 'database'\n\
         url = 'postgresql://probe:S3cret@localhost:{}/shop?sslmode=verify-full'\n",
        nginx.tls_url("/ok"),
        postgres.port
    ));
    let told = |system: &str| bench.json_with("all", &[("SSL_CERT_FILE", &path(system))])["checks"].clone();
    let known = told("system.pem");
    let unknown = told("other.pem");
    for (kind, reason) in [
        ("http", "no encrypted connection can be made"),
        ("redis", "Redis cannot be reached"),
        ("database", "no secure connection can be made"),
    ] {
        assert_eq!(known[kind]["status"], "ok", "{known}");
        assert_eq!((&unknown[kind]["status"], &unknown[kind]["reason"]), (&"fail".into(), &reason.into()));
    }
}
