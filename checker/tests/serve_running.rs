//! `checker serve` while it runs: one run of a check at a time, deadlines, its own starvation, limits; and its life, from the first
//! answer over other configurations to the last.

#![cfg(feature = "serve")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

#[cfg(feature = "redis")]
mod servers;
mod serving;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "redis")]
use nix::sys::resource::getrlimit;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use serde_json::json;
use serving::{SOON, Server, Told, shell, until};

fn lines(server: &Server, name: &str) -> usize {
    fs::read_to_string(server.path(name)).unwrap_or_default().lines().count()
}

fn all_at_once(server: &Server, number: usize, path: &str) -> Vec<Told> {
    thread::scope(|scope| {
        let askers: Vec<_> = (0..number).map(|_| scope.spawn(|| server.get(path))).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    })
}

// --- running ----------------------------------------------------------------------------------------------------

#[test]
fn however_many_ask_a_check_is_asked_once_at_a_time_and_once_a_cache_time() {
    let text = format!(
        "[server]\ncache = '1m'\n[subsets]\nreadiness = ['it']\nother = ['@readiness']\n{}",
        shell("it", "echo run >>runs; sleep 0.5", "")
    );
    let server = Server::start(&text);
    let told = all_at_once(&server, 100, "/readyz");
    assert!(told.iter().all(|told| told.status == 200));
    assert_eq!(server.get("/healthcheck/other").status, 200);
    assert_eq!(lines(&server, "runs"), 1);
}

#[test]
fn a_pass_does_not_outlive_its_cache_time() {
    let text = format!(
        "[server]\ncache = '500ms'\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "test -e good", "")
    );
    let server = Server::start(&text);
    fs::write(server.path("good"), "").unwrap();
    assert_eq!(server.get("/readyz").status, 200);
    fs::remove_file(server.path("good")).unwrap();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(server.get("/readyz").status, 503);
}

#[test]
fn a_pass_does_not_outlive_its_cache_time_beside_a_slow_check() {
    let text = format!(
        "[server]\ncache = '1s'\n[subsets]\nreadiness = ['it', 'slow']\nquick = ['it']\n{}{}",
        shell("it", "echo run >>runs; test -e good", ""),
        shell("slow", "echo run >>slow; sleep 4", "")
    );
    let server = Server::start(&text);
    fs::write(server.path("good"), "").unwrap();
    assert_eq!(server.get("/healthcheck/quick").status, 200);
    thread::scope(|scope| {
        let asked = scope.spawn(|| server.get("/readyz"));
        until("both are asked", || (lines(&server, "slow") == 1).then_some(()));
        fs::remove_file(server.path("good")).unwrap();
        let told = asked.join().unwrap();
        assert_eq!((told.status, &told.json()["checks"]), (503, &json!({"it": "fail", "slow": "ok"})));
    });
    // An answer that came since the question is as good as any.
    assert_eq!(lines(&server, "runs"), 2);
}

#[test]
fn a_check_that_was_asked_again_beside_a_slow_one_is_well_however_long_it_takes_itself() {
    let text = format!(
        "[server]\ncache = '500ms'\ntimeout = '3s'\ndetail = 'safe'\n[subsets]\nreadiness = ['it', 'slow']\nquick = ['it']\n{}{}",
        shell("it", "sleep 0.6", ""),
        shell("slow", "echo run >>slow; sleep 100", "timeout = '9s'\ncritical = false")
    );
    let server = Server::start(&text);
    assert_eq!(server.get("/healthcheck/quick").status, 200);
    let told = server.get("/readyz");
    let checks = &told.json()["checks"];
    assert_eq!(
        (&checks["it"]["status"], &checks["slow"]["status"]),
        (&json!("ok"), &json!("warning")),
        "{told:?}"
    );
}

#[test]
fn no_pass_is_refreshed_where_nothing_is_kept() {
    let text = format!(
        "[server]\ncache = '0s'\n[subsets]\nreadiness = ['it', 'slow']\n{}{}",
        shell("it", "echo run >>runs", ""),
        shell("slow", "sleep 1", "")
    );
    let server = Server::start(&text);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(lines(&server, "runs"), 1);
}

#[test]
fn a_check_that_hangs_costs_its_timeout_once_and_the_process_answers_at_once_meanwhile() {
    let text = format!(
        "[server]\ncache = '1s'\ndetail = 'safe'\n[subsets]\nreadiness = ['good', 'it']\n{}{}",
        shell("good", "exit 0", ""),
        shell("it", "test -e good && exit 0; echo run >>runs; sleep 100", "timeout = '1s'")
    );
    let server = Server::start(&text);
    fs::write(server.path("good"), "").unwrap();
    assert_eq!(server.get("/readyz").status, 200);
    fs::remove_file(server.path("good")).unwrap();
    // What stood before is too old from then on, and is told to nobody.
    thread::sleep(Duration::from_secs(1));
    let (told, healthz) = thread::scope(|scope| {
        let askers = scope.spawn(|| all_at_once(&server, 50, "/readyz"));
        until("the check is asked", || (lines(&server, "runs") == 1).then_some(()));
        let healthz = server.get("/healthz");
        (askers.join().unwrap(), healthz)
    });
    assert_eq!(lines(&server, "runs"), 1);
    assert!(healthz.status == 200 && healthz.took < Duration::from_millis(500), "{healthz:?}");
    for told in told {
        let checks = &told.json()["checks"];
        assert_eq!((told.status, &checks["it"]["reason"]), (503, &json!("timed out")), "{told:?}");
        assert_eq!(checks["good"]["status"], "ok");
        assert!(told.took < Duration::from_secs(5), "{told:?}");
    }
}

#[test]
fn a_check_ends_with_the_answer_that_cannot_wait_for_it_and_that_counts_as_any_failure() {
    for timeout in ["500ms", "20s"] {
        let text = format!(
            "[server]\ntimeout = '500ms'\ncache = '0ms'\ndetail = 'safe'\n[subsets]\nreadiness = ['it']\n{}",
            shell(
                "it",
                "test -e good && exit 0; sleep 10",
                &format!("timeout = '{timeout}'\nfall = 3\nrise = 2")
            )
        );
        let server = Server::start(&text);
        fs::write(server.path("good"), "").unwrap();
        assert_eq!(server.get("/readyz").status, 200);
        fs::remove_file(server.path("good")).unwrap();
        let told: Vec<_> = (0..3).map(|_| server.get("/readyz")).collect();
        let statuses: Vec<_> = told.iter().map(|told| told.status).collect();
        assert_eq!(statuses, [200, 200, 503], "{told:?}");
        assert_eq!(told[2].json()["checks"]["it"]["reason"], "timed out");
        assert!(told.iter().all(|told| told.took < Duration::from_secs(5)), "{told:?}");
        fs::write(server.path("good"), "").unwrap();
        assert_eq!([server.get("/readyz").status, server.get("/readyz").status], [503, 200]);
    }
}

#[test]
fn who_was_kept_from_running_itself_does_not_call_others_late() {
    let text = format!(
        "[server]\ndetail = 'safe'\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "echo run >>runs; exec sleep 1.5", "timeout = '1s'")
    );
    let server = Server::start(&text);
    let told = thread::scope(|scope| {
        let asker = scope.spawn(|| server.get("/readyz"));
        until("the check is asked", || (lines(&server, "runs") == 1).then_some(()));
        server.signal(Signal::SIGSTOP);
        // The deadline passes while nothing of the server runs, and its child would have answered too late for it.
        thread::sleep(Duration::from_millis(1_200));
        server.signal(Signal::SIGCONT);
        asker.join().unwrap()
    });
    let check = &told.json()["checks"]["it"];
    assert_eq!(told.status, 503);
    assert_eq!(
        (&check["status"], &check["reason"]),
        (&json!("unknown"), &json!("the checker itself was kept from running"))
    );
}

#[test]
fn so_many_failures_count_and_so_many_passes_end_it() {
    let text = format!(
        "[server]\ncache = '0ms'\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "test -e good", "fall = 3\nrise = 2")
    );
    let server = Server::start(&text);
    let asked = |good: bool, statuses: &[u16]| {
        if good {
            fs::write(server.path("good"), "").unwrap();
        } else {
            fs::remove_file(server.path("good")).unwrap();
        }
        let told: Vec<_> = statuses.iter().map(|_| server.get("/readyz").status).collect();
        assert_eq!(told, statuses);
    };
    asked(true, &[200, 200]);
    asked(false, &[200, 200, 503, 503]);
    asked(true, &[503, 200]);
    let changes = || server.log().matches("check changed").count();
    // A thread of its own writes the log.
    until("its changes are told", || (changes() >= 3).then_some(()));
    assert_eq!(changes(), 3, "{}", server.log());
}

/// The memory that is this process's own, in KiB.
#[cfg(feature = "redis")]
fn own_memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(feature = "redis")]
#[test]
fn a_thousand_who_ask_after_a_frozen_server_are_answered_at_the_deadline_and_well_once_it_is_back() {
    // A thousand connections of this very process.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(4_096), most).unwrap();
    let redis = servers::Server::start(&[]);
    let text = format!(
        "[server]\ncache = '1s'\ndetail = 'safe'\n[subsets]\nreadiness = ['it']\n[checks.it]\ntype = 'redis'\nurl = '{}'\ntimeout = '1s'\n",
        redis.url()
    );
    let server = Server::start(&text);
    assert_eq!(server.get("/readyz").status, 200);
    redis.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(1));
    let (told, healthz) = thread::scope(|scope| {
        let askers = scope.spawn(|| all_at_once(&server, 1_000, "/readyz"));
        until("they ask", || (server.get("/metrics").status == 200).then_some(()));
        let healthz: Vec<_> = (0..20).map(|_| server.get("/healthz")).collect();
        (askers.join().unwrap(), healthz)
    });
    assert!(own_memory(&server) < 64 * 1_024, "{} KiB", own_memory(&server));
    redis.signal(Signal::SIGCONT);
    assert!(
        healthz.iter().all(|told| told.status == 200 && told.took < Duration::from_millis(500)),
        "{healthz:?}"
    );
    for told in told {
        assert_eq!((told.status, &told.json()["checks"]["it"]["status"]), (503, &json!("fail")), "{told:?}");
        assert!(told.took < Duration::from_secs(5), "{told:?}");
    }
    let begun = Instant::now();
    until("it passes again", || (server.get("/readyz").status == 200).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

// --- limits -----------------------------------------------------------------------------------------------------

#[test]
fn a_crowd_that_says_nothing_or_says_it_slowly_holds_up_nobody() {
    let server = Server::start(&format!(
        "[server]\nconnections = 20\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "exit 0", "")
    ));
    let mut crowd: Vec<TcpStream> = Vec::new();
    for number in 0..200 {
        let mut stream = server.connect();
        if number % 2 == 0 {
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: ").unwrap();
        }
        crowd.push(stream);
        if number % 20 == 0 {
            assert_eq!(server.get("/readyz").status, 200);
        }
    }
    let closed = crowd.iter().filter(|stream| {
        let mut stream: &TcpStream = stream;
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        match stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    });
    assert!(closed.count() >= 170);
}

#[test]
fn a_crowd_that_waits_for_a_check_that_hangs_leaves_places_for_what_needs_no_check() {
    let server = Server::start(&format!(
        "[server]\nconnections = 40\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "sleep 60", "timeout = '4s'")
    ));
    thread::scope(|scope| {
        let crowd = scope.spawn(|| all_at_once(&server, 36, "/readyz"));
        while !crowd.is_finished() {
            for path in ["/healthz", "/healthcheck/liveness"] {
                let told = server.get(path);
                assert_eq!(told.status, 200, "{path}");
                assert!(told.took < Duration::from_secs(1), "{told:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        let told = crowd.join().unwrap();
        assert!(told.iter().all(|told| told.status == 503), "{told:?}");
        let sent_away = told.iter().filter(|told| told.header("retry-after") == Some("1"));
        assert_eq!(sent_away.count(), 6);
    });
}

#[test]
fn where_few_files_may_be_open_there_are_fewer_connections_and_idle_ones_hold_up_nobody() {
    let server = Server::start_with("", &["--listen", "127.0.0.1:0"], |command| {
        // SAFETY: one system call, before the child has any other thread.
        unsafe { command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NOFILE, 300, 300)?)) };
    });
    assert!(server.wait_for_log("too low").contains("possible=150"));
    let idle: Vec<_> = (0..300).map(|_| server.connect()).collect();
    assert_eq!(server.get("/healthz").status, 200);
    drop(idle);
}

#[test]
fn too_much_and_what_is_no_question_is_refused_and_the_next_one_is_answered() {
    let server = Server::start("");
    let large = format!("GET /healthz HTTP/1.1\r\nHost: it\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    for (bytes, status) in [
        (large.as_bytes(), Some("431")),
        (many.as_bytes(), Some("431")),
        (b"\x16\x03\x01\x02\x00garbage\r\n\r\n", Some("400")),
        (b"\0\0\0\0", Some("400")),
        (b"GET\r\n\r\n", Some("400")),
        (b"GET /healthz HTTP/1.0\r\n\r\n", Some("200")),
        (b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n", Some("200")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    ] {
        let mut stream = server.connect();
        // It may answer and close before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let told = String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        // Where the client still writes when the connection is closed, its system may drop the answer.
        assert!(
            told.as_deref() == status || told.is_none() && bytes.len() > 100_000 || status.is_none(),
            "{shown}: {told:?}"
        );
        assert_eq!(server.get("/healthz").status, 200);
    }
}

#[test]
fn questions_that_come_together_are_answered_in_their_order() {
    let server = Server::start("");
    let mut stream = server.connect();
    let one = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: it\r\n{more}\r\n");
    let all = one("/healthz", "") + &one("/nothing", "") + &one("/version", "Connection: close\r\n");
    stream.write_all(all.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let statuses: Vec<_> =
        answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

// --- where it listens -------------------------------------------------------------------------------------------

fn ask_at(path: &std::path::Path, endpoint: &str) -> Told {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {endpoint} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    serving::parse(&answer, Duration::ZERO)
}

#[test]
fn a_unix_socket_counts_as_this_machine_is_taken_over_from_the_dead_and_removed_at_the_end() {
    let text = format!(
        "[server]\nlisten = 'unix:it.sock'\ndrain = '0ms'\n[server.access]\nnetworks = ['127.0.0.1']\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "exit 0", "")
    );
    let left = |command: &mut Command| {
        let folder = command.get_current_dir().unwrap().to_owned();
        drop(UnixListener::bind(folder.join("it.sock")).unwrap());
    };
    let mut server = Server::start_with(&text, &[], left);
    let path = server.path("it.sock");
    assert_eq!(ask_at(&path, "/readyz").status, 200);
    let mut second = Command::new(env!("CARGO_BIN_EXE_checker"));
    let second = second.args(["serve"]).current_dir(server.folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    assert_eq!(ask_at(&path, "/readyz").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn at_the_end_a_successor_s_socket_stays_where_it_is() {
    let mut server = Server::start_with("[server]\nlisten = 'unix:it.sock'\ndrain = '0ms'\n", &[], |_| {});
    let path = server.path("it.sock");
    fs::remove_file(&path).unwrap();
    let _successor = UnixListener::bind(&path).unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    UnixStream::connect(&path).unwrap();
}

/// `checker serve` with descriptors of this process as those that a service manager hands over.
fn handed(descriptors: &[i32], folder: &std::path::Path) -> Command {
    let mut command = Command::new("sh");
    // Only the process itself knows its number.
    let script = format!("LISTEN_FDS={} LISTEN_PID=$$ exec \"$0\" serve", descriptors.len());
    command.args(["-c", &script, env!("CARGO_BIN_EXE_checker")]).current_dir(folder);
    let descriptors = descriptors.to_vec();
    // SAFETY: system calls, before the child has any other thread.
    unsafe {
        command.pre_exec(move || {
            // One may be where another one goes.
            let mut away = [-1; 4];
            for (away, descriptor) in away.iter_mut().zip(&descriptors) {
                *away = nix::libc::fcntl(*descriptor, nix::libc::F_DUPFD_CLOEXEC, 20);
            }
            for (number, descriptor) in (3..).zip(&away[..descriptors.len()]) {
                if nix::libc::dup2(*descriptor, number) != number {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        })
    };
    command
}

#[test]
fn several_sockets_are_handed_over_and_one_that_accepts_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("checker.toml"), "").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(folder.path().join("it.sock")).unwrap();
    let mut child = handed(&[tcp.as_raw_fd(), unix.as_raw_fd()], folder.path()).spawn().unwrap();
    assert_eq!(ask_at(&folder.path().join("it.sock"), "/healthz").status, 200);
    let mut stream = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(folder.path().join("it.sock").exists(), "it belongs to the service manager");

    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let log = folder.path().join("log");
    let mut command = handed(&[udp.as_raw_fd()], folder.path());
    let mut refused = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < SOON && refused.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    // It has ended by itself.
    drop(refused.kill());
    let (ended, log) = (refused.wait().unwrap(), fs::read_to_string(&log).unwrap());
    assert!(ended.code() == Some(3) && log.contains("none that accepts connections"), "{ended} {log}");
}

#[test]
fn where_no_file_can_be_opened_any_more_that_is_told_and_passes() {
    let server = Server::start("");
    let limit = |soft: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &server.child.id().to_string(), &format!("--nofile={soft}:")]);
        assert!(prlimit.status().expect("prlimit (Debian: util-linux)").success());
    };
    assert_eq!(server.get("/healthz").status, 200);
    limit("3");
    let waiting = server.connect();
    server.wait_for_log("no connection can be accepted");
    limit("1024");
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.log().matches("no connection can be accepted").count(), 1, "{}", server.log());
    drop(waiting);
}

#[test]
fn a_service_manager_hands_over_the_socket_and_is_told_of_each_turn() {
    let manager = tempfile::tempdir().unwrap();
    let path = manager.path().join("notify");
    let notified = UnixDatagram::bind(&path).unwrap();
    notified.set_read_timeout(Some(SOON)).unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("checker.toml"), "[server]\ndrain = '0ms'\n").unwrap();
    let mut command = handed(&[socket.as_raw_fd()], folder.path());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let mut child = command.spawn().unwrap();
    let told = || {
        let mut bytes = [0; 1_024];
        let length = notified.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let wait = |what: &str| until(what, || told().contains(what).then_some(()));
    wait("READY=1");
    wait("WATCHDOG=1");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let signal = |signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    };
    signal(Signal::SIGHUP);
    wait("RELOADING=1");
    wait("READY=1");
    // `systemctl reload` waits for the end of a reload that is refused, too.
    fs::write(folder.path().join("checker.toml"), "[server]\ndrain = 1").unwrap();
    signal(Signal::SIGHUP);
    wait("RELOADING=1");
    wait("READY=1");
    signal(Signal::SIGTERM);
    wait("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checker.toml");
    fs::write(&file, "[server]\nlisten = 'unix:it.sock'\ndrain = '0ms'\n").unwrap();
    let (unread, log) = std::io::pipe().unwrap();
    // SAFETY: one system call on a descriptor that is open.
    let size = unsafe { nix::libc::fcntl(log.as_raw_fd(), nix::libc::F_SETPIPE_SZ, 4_096) };
    assert_eq!(size, 4_096);
    let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
    let mut child = command.arg("serve").current_dir(folder.path()).stderr(log).spawn().unwrap();
    let path = folder.path().join("it.sock");
    until("it listens", || path.exists().then_some(()));
    let signal = |signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    };
    fs::write(&file, "[server]\ndrain = 1").unwrap();
    for _ in 0..60 {
        signal(Signal::SIGHUP);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ask_at(&path, "/healthz").status, 200);
    signal(Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(unread);
}

#[test]
fn https_is_served_and_a_renewed_certificate_needs_no_start() {
    let certified = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let text = "[server]\ntls = { cert = 'cert.pem', key = 'key.pem' }\n";
    let mut ca = std::path::PathBuf::new();
    let write = |folder: &std::path::Path| {
        let own = certified();
        fs::write(folder.join("cert.pem"), own.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), own.signing_key.serialize_pem()).unwrap();
    };
    let server = Server::start_with(text, &["--listen", "127.0.0.1:0"], |command| {
        ca = command.get_current_dir().unwrap().join("cert.pem");
        write(command.get_current_dir().unwrap());
    });
    assert!(server.wait_for_log("listening").contains("https://127.0.0.1:"));
    let ask = |ca: &std::path::Path, path: &str| {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--max-time",
            "10",
            "--resolve",
            &format!("localhost:{}:127.0.0.1", server.port),
            "--cacert",
        ]);
        let output = curl
            .arg(ca)
            .arg(format!("https://localhost:{}{path}", server.port))
            .output()
            .expect("curl (Debian: curl)");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask(&ca, "/healthz"), "{\"status\":\"ok\",\"checks\":{}}\n");
    // Nobody who speaks no TLS is answered, and holds nobody up.
    let mut plain = server.connect();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: it\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let before = server.path("before.pem");
    fs::copy(&ca, &before).unwrap();
    write(server.folder.path());
    server.wait_for_log("the certificate was renewed");
    assert_eq!(ask(&ca, "/healthz"), "{\"status\":\"ok\",\"checks\":{}}\n");
    assert_eq!(ask(&before, "/healthz"), "");
    // Links are those of the connection, whatever another configuration has for the next start.
    let link = format!("href=\"https://localhost:{}/healthz?format=atom\"", server.port);
    assert!(ask(&ca, "/healthz?format=atom").contains(&link));
    server.configure("");
    server.wait_for_log("another configuration is in force");
    assert!(ask(&ca, "/healthz?format=atom").contains(&link));
}

#[test]
fn who_begins_to_encrypt_and_says_no_more_does_not_hold_up_the_end() {
    let text = "[server]\ntimeout = '30s'\ntls = { cert = 'cert.pem', key = 'key.pem' }\n";
    let mut server = Server::start_with(text, &["--listen", "127.0.0.1:0"], |command| {
        let folder = command.get_current_dir().unwrap();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("cert.pem"), own.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), own.signing_key.serialize_pem()).unwrap();
    });
    let _silent = server.connect();
    // Who comes later was sent away: the one before was accepted.
    let mut plain = server.connect();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: it\r\n\r\n").unwrap();
    plain.read_to_end(&mut Vec::new()).unwrap();
    ends_soon(&mut server);
}

#[cfg(feature = "grpc")]
#[test]
fn a_question_of_grpc_that_does_not_come_whole_does_not_hold_up_the_end() {
    let mut server = Server::start("[server]\ngrpc = '127.0.0.1:0'\ntimeout = '30s'\n");
    let line = server.wait_for_log("grpc://127.0.0.1:");
    let port: u16 = line.rsplit(':').next().unwrap().trim_matches('"').parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let frame = |kind: u8, flags: u8, stream: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], content].concat()
    };
    let path = b"/grpc.health.v1.Health/Check";
    // POST, http, the path, an authority and the type of content, in words of HPACK.
    let head = [&[0x83, 0x86, 0x04, 28][..], path, b"\x01\x02it", b"\x0f\x10\x10application/grpc"].concat();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    for said in [frame(4, 0, 0, b""), frame(1, 4, 1, &head), frame(6, 0, 0, b"whatever")] {
        stream.write_all(&said).unwrap();
    }
    let mut told = Vec::new();
    until("the ping is answered", || {
        let mut piece = [0; 1_024];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "it is closed: {told:?}");
        told.extend_from_slice(&piece[..read]);
        told.windows(8).any(|window| window == b"whatever").then_some(())
    });
    server.signal(Signal::SIGINT);
    told.clear();
    // As any client does, it answers a ping; nothing else.
    until("it is closed", || {
        let mut piece = [0; 1_024];
        let read = stream.read(&mut piece).unwrap_or_default();
        told.extend_from_slice(&piece[..read]);
        let asked = told.windows(9).position(|window| window == [0, 0, 8, 6, 0, 0, 0, 0, 0]);
        if let Some(content) = asked.and_then(|at| told.get(at + 9..at + 17)) {
            // It may be closed by now.
            drop(stream.write_all(&frame(6, 1, 0, content)));
            told.clear();
        }
        (read == 0).then_some(())
    });
    ends_soon(&mut server);
}

/// Long before an answer may take.
fn ends_soon(server: &mut Server) {
    server.signal(Signal::SIGINT);
    until("it ends", || server.child.try_wait().unwrap());
}

// --- life -------------------------------------------------------------------------------------------------------

#[test]
fn readiness_fails_first_then_the_drain_passes_and_then_it_ends() {
    let text = format!(
        "[server]\ndrain = '2s'\n[subsets]\nreadiness = ['it']\nother = ['it']\n{}",
        shell("it", "exit 0", "")
    );
    let mut server = Server::start(&text);
    assert_eq!(server.get("/readyz").status, 200);
    server.signal(Signal::SIGTERM);
    let told = until("readiness fails", || Some(server.get("/readyz")).filter(|told| told.status == 503));
    assert_eq!(told.json(), json!({"status": "not_ready", "checks": {"it": "ok"}}));
    let statuses =
        ["/healthz", "/healthcheck/other", "/healthcheck/readiness"].map(|path| server.get(path).status);
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
}

#[test]
fn an_answer_that_is_on_its_way_is_given_before_the_end() {
    let text = format!(
        "[server]\ndrain = '1m'\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "echo run >>runs; sleep 1", "")
    );
    let mut server = Server::start(&text);
    let asker = thread::scope(|scope| {
        let asker = scope.spawn(|| server.get("/readyz"));
        until("the check is asked", || (lines(&server, "runs") == 1).then_some(()));
        server.signal(Signal::SIGINT);
        asker.join().unwrap()
    });
    assert_eq!(asker.json()["checks"]["it"], "ok");
    let begun = Instant::now();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "SIGINT waits for no drain");
}

/// Whether a process is there, and no mere entry that its parent has not asked about.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Who is killed may have to wait for a processor to die on.
fn have_ended(pids: &[String]) {
    until(&format!("the end of {pids:?}"), || (!pids.iter().any(|pid| lives(pid))).then_some(()));
}

/// Checks whose programs each start another one, which leaves its group, tell both process ids in `pids`, and then hang.
fn hanging(number: usize) -> String {
    let names: Vec<_> = (0..number).map(|number| format!("'it-{number}'")).collect();
    let program = "setsid sleep 60 & echo $! $$ >>pids; sleep 60";
    let checks = (0..number).map(|number| shell(&format!("it-{number}"), program, "timeout = '29s'"));
    format!("[subsets]\nreadiness = [{}]\n{}", names.join(", "), checks.collect::<String>())
}

/// The process ids, once all of so many programs run.
fn running(server: &Server, number: usize) -> Vec<String> {
    let pids = until("the programs run", || {
        let pids = fs::read_to_string(server.path("pids")).ok()?;
        (pids.lines().count() == number && pids.ends_with('\n')).then_some(pids)
    });
    pids.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn no_program_of_a_check_outlives_the_server() {
    for (signal, drain) in [(Signal::SIGINT, "1m"), (Signal::SIGTERM, "0s")] {
        let number = 12;
        let mut server =
            Server::start(&format!("[server]\ndrain = '{drain}'\ntimeout = '30s'\n{}", hanging(number)));
        let mut asker = server.connect();
        asker.write_all(b"GET /readyz HTTP/1.1\r\nHost: it\r\n\r\n").unwrap();
        let pids = running(&server, number);
        assert!(pids.len() == 2 * number && pids.iter().all(|pid| lives(pid)), "{pids:?}");
        // Who asked has gone, so no answer is waited for.
        drop(asker);
        server.signal(signal);
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        have_ended(&pids);
    }
}

#[test]
fn a_manager_that_takes_no_message_holds_up_no_answer_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let deaf = UnixDatagram::bind(&path).unwrap();
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"READY=1", &path).is_ok() {}
    let mut server = Server::start_with("[server]\nlisten = '127.0.0.1:0'\ndrain = '0s'\n", &[], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    server.wait_for_log("systemd cannot be told");
    assert_eq!(server.get("/healthz").status, 200);
    server.signal(Signal::SIGTERM);
    assert!(until("the end of the server", || server.child.try_wait().unwrap()).success());
    drop(deaf);
}

#[test]
fn one_more_signal_ends_the_wait_for_answers() {
    for signals in [[Signal::SIGINT; 2], [Signal::SIGTERM; 2], [Signal::SIGTERM, Signal::SIGINT]] {
        let text =
            format!("[server]\nlisten = 'unix:it.sock'\ndrain = '0ms'\ntimeout = '30s'\n{}", hanging(1));
        let mut server = Server::start_with(&text, &[], |_| {});
        let mut asker = UnixStream::connect(server.path("it.sock")).unwrap();
        asker.write_all(b"GET /readyz HTTP/1.1\r\nHost: it\r\n\r\n").unwrap();
        let pids = running(&server, 1);
        let begun = Instant::now();
        server.signal(signals[0]);
        // Nothing is accepted any more: it waits for the answer alone.
        until("the socket is gone", || (!server.path("it.sock").exists()).then_some(()));
        assert!(server.child.try_wait().unwrap().is_none());
        server.signal(signals[1]);
        let ended = until("the end of the server", || server.child.try_wait().unwrap());
        assert!(
            ended.success() && begun.elapsed() < Duration::from_secs(10),
            "{ended} {:?}",
            begun.elapsed()
        );
        have_ended(&pids);
    }
}

fn with(status: u16, more: &str) -> String {
    format!(
        "[server]\nfailure_status = {status}\n[subsets]\nreadiness = ['it', 'same']\n{}{}",
        shell("it", "exit 1", more),
        shell("same", "echo run >>runs", "")
    )
}

#[test]
fn another_configuration_is_taken_and_a_broken_one_refused_and_checks_that_stay_go_on() {
    let text = |status, more: &str| {
        format!("{}\n", with(status, more)).replace("[server]\n", "[server]\ncache = '1m'\n")
    };
    let server = Server::start(&text(501, ""));
    assert_eq!(server.get("/readyz").status, 501);
    server.configure(&text(502, "timeout = '3s'"));
    server.wait_for_log("another configuration is in force");
    assert_eq!((server.get("/readyz").status, lines(&server, "runs")), (502, 1));
    server.configure("[server]\nfailure_stats = 503\n");
    server.wait_for_log("the configuration is refused");
    server.wait_for_log("C004: `server.failure_stats` is no known key");
    assert_eq!(server.get("/readyz").status, 502);
    // As Kubernetes does it: another file comes in the place of the one before.
    fs::write(server.path("next"), text(503, "timeout = '3s'")).unwrap();
    fs::rename(server.path("next"), server.path("checker.toml")).unwrap();
    until("the new file is in force", || (server.get("/readyz").status == 503).then_some(()));
    assert_eq!(lines(&server, "runs"), 1);
    let before = server.log().matches("another configuration is in force").count();
    server.signal(Signal::SIGHUP);
    until("SIGHUP reads it again", || {
        (server.log().matches("another configuration is in force").count() > before).then_some(())
    });
}

/// What an answer says of the configuration that it is made of: each of these alike, if it is one.
fn told_of_itself(told: &Told, path: &str) -> Vec<String> {
    let document = told.json();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    match path {
        "/version" => vec![document["version"].as_str().unwrap().to_owned()],
        "/openapi.json" => {
            let asked = &document["paths"]["/healthcheck/{subset}"];
            let subsets = asked["parameters"].as_array().unwrap().iter().find(|one| one["name"] == "subset");
            let subset = subsets.unwrap()["schema"]["enum"][0].as_str().unwrap();
            let statuses = keys(&asked["get"]["responses"]);
            let statuses = statuses.iter().filter(|status| ["501", "502", "504"].contains(&&***status));
            statuses.map(|status| format!("at-{status}")).chain([subset.to_owned()]).collect()
        }
        _ => {
            let mut names = keys(&document["checks"]);
            names.push(format!("at-{}", told.status));
            names
        }
    }
}

#[test]
fn under_load_no_connection_is_refused_and_no_answer_is_of_two_configurations_or_of_a_broken_one() {
    // All of it changes together.
    let text = |status: u16| {
        let name = format!("at-{status}");
        format!(
            "[service]\nversion = '{name}'\n[server]\ndetail = 'safe'\nfailure_status = {status}\n[subsets]\n{name} = ['{name}']\nreadiness = ['{name}']\n{}",
            shell(&name, "exit 1", "")
        )
    };
    let server = Server::start(&text(501));
    let refused = || server.log().matches("the configuration is refused").count();
    let put = |text: &str| {
        fs::write(server.path("next"), text).unwrap();
        fs::rename(server.path("next"), server.path("checker.toml")).unwrap();
        server.signal(Signal::SIGHUP);
    };
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for path in ["/readyz", "/readyz", "/version", "/openapi.json"] {
            let (server, stop, asked) = (&server, &stop, &asked);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let told = server.get(path);
                    let mut names = told_of_itself(&told, path);
                    assert!(names.len() > usize::from(path != "/version"), "{path}: {names:?}");
                    names.dedup();
                    assert_eq!(names.len(), 1, "{path}: {names:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut statuses = [501, 502, 504].into_iter().cycle().peekable();
        for _ in 0..10 {
            let status = statuses.next().unwrap();
            put(&text(status));
            until("it is in force", || (server.get("/readyz").status == status).then_some(()));
            let before = refused();
            // All but a mistake at its end would be another configuration.
            put(&format!("{}no_such_key = 1\n", text(*statuses.peek().unwrap())));
            until("it is refused", || (refused() > before).then_some(()));
            assert_eq!(server.get("/readyz").status, status);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 50, "{asked:?}");
}

#[test]
fn the_log_is_json_where_that_is_wanted_and_holds_no_secret() {
    let text = format!(
        "[server.access]\ntoken = 'S3cret-token'\n[subsets]\nreadiness = ['it']\n{}",
        shell("it", "echo S3cret-token >&2; exit 1", "")
    );
    let server = Server::start_with(&text, &["--listen", "127.0.0.1:0", "--log", "json"], |_| {});
    assert_eq!(server.ask("GET", "/readyz", "X-Probe-Token: S3cret-token\r\n").status, 503);
    let line = server.wait_for_log("check changed");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["level"], &line["check"], &line["to"]),
        (&json!("ERROR"), &json!("it"), &json!("fail"))
    );
    assert!(line["source"].as_str().unwrap().contains('…'), "{line}");
    assert!(!server.log().contains("S3cret"), "{}", server.log());
}
