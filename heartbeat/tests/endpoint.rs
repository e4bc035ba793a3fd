//! `/livez` and `/readyz` over real sockets: what is answered, when, and that no client makes a beat late.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use heartbeat::observe::{Owner, observe};
use heartbeat::{Builder, ErrorKind as Kind, Heartbeat};
use serde_json::Value;

/// Longer than anything here takes on a starved machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn builder() -> Builder {
    Heartbeat::builder()
        .environment(|_| None)
        .no_file()
        .worker("resize@web-3")
        .cluster("images")
        .endpoint(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn address(heartbeat: &Heartbeat) -> SocketAddr {
    heartbeat.endpoint_address().expect("an endpoint was asked for")
}

fn connect(heartbeat: &Heartbeat) -> TcpStream {
    let stream = TcpStream::connect(address(heartbeat)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes back until the server ends.
fn exchange(heartbeat: &Heartbeat, request: &[u8]) -> String {
    let mut stream = connect(heartbeat);
    stream.write_all(request).unwrap();
    rest(&mut stream)
}

fn rest(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(heartbeat: &Heartbeat, path: &str) -> (u16, Value) {
    let answer = exchange(heartbeat, format!("GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n").as_bytes());
    (code(&answer), body(&answer))
}

fn code(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect(answer).parse().unwrap()
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").expect(answer).1).expect(answer)
}

fn wait_for<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_that_is_alive_is_live_and_ready() {
    let heartbeat = builder().start().unwrap();
    for path in ["/livez", "/readyz", "/livez/", "/readyz/?verbose=1"] {
        let (code, body) = get(&heartbeat, path);
        assert_eq!(code, 200, "{path}");
        assert_eq!(body["status"], "pass");
        assert_eq!(body["verdict"], "alive");
        assert_eq!(body["worker"], "resize@web-3");
        assert_eq!(body["cluster"], "images");
        assert_eq!(body["reason"], "idle, beat 0 ms ago");
        assert_eq!(body["age_ms"], 0);
    }
}

#[test]
fn the_answer_is_of_this_moment_and_not_of_the_last_beat() {
    let heartbeat =
        builder().interval(Duration::from_hours(1)).promise(Duration::from_hours(2)).start().unwrap();
    let beats = heartbeat.counters().beats;
    let task = heartbeat.task("resize", None);
    assert_eq!(get(&heartbeat, "/livez").1["reason"], "busy, beat 0 ms ago, 1 task running");
    task.done();
    assert_eq!(get(&heartbeat, "/livez").1["reason"], "idle, beat 0 ms ago");
    assert_eq!(heartbeat.counters().beats, beats);
}

#[test]
fn a_wedged_loop_is_told_while_the_main_thread_is_blocked() {
    let heartbeat = builder().loop_budget(Duration::from_millis(200)).start().unwrap();
    heartbeat.pulse();
    std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            let wedged = |path: &str| {
                let (code, body) = get(&heartbeat, path);
                (code == 503).then_some(body)
            };
            (wait_for("503", || wedged("/livez")), wait_for("503", || wedged("/readyz")))
        });
        // The loop turns no more: its thread is here.
        let (live, ready) = told.join().unwrap();
        for body in [live, ready] {
            assert_eq!(body["status"], "fail");
            assert_eq!(body["verdict"], "wedged");
            assert!(body["reason"].as_str().unwrap().ends_with("(budget 200 ms)"), "{body}");
        }
    });
    heartbeat.pulse_within(Duration::from_mins(1));
    assert_eq!(get(&heartbeat, "/livez").0, 200);
}

#[test]
fn a_worker_that_starts_or_drains_is_live_and_not_ready() {
    let heartbeat = builder().start_deadline(Duration::from_mins(1)).start().unwrap();
    assert_eq!((get(&heartbeat, "/livez").0, get(&heartbeat, "/readyz").0), (200, 503));
    heartbeat.ready();
    assert_eq!((get(&heartbeat, "/livez").0, get(&heartbeat, "/readyz").0), (200, 200));
    heartbeat.drain(Duration::from_mins(1));
    assert_eq!((get(&heartbeat, "/livez").0, get(&heartbeat, "/readyz").0), (200, 503));
    assert_eq!(get(&heartbeat, "/readyz").1["verdict"], "draining");
}

#[test]
fn the_head_of_an_answer_says_what_a_probe_and_a_proxy_need() {
    let heartbeat = builder().start().unwrap();
    let answer = exchange(&heartbeat, b"GET /livez HTTP/1.0\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(lines[0], "HTTP/1.1 200 OK");
    for line in ["Content-Type: application/json", "Cache-Control: no-store", "Connection: close"] {
        assert!(lines.contains(&line), "{head}");
    }
    let length = format!("Content-Length: {}", body.len());
    assert!(lines.contains(&length.as_str()), "{head}");
    let to_head = exchange(&heartbeat, b"HEAD /livez HTTP/1.0\r\n\r\n");
    assert_eq!(to_head, format!("{head}\r\n\r\n"));
}

#[test]
fn what_is_not_asked_rightly_is_refused_in_http() {
    let heartbeat = builder().start().unwrap();
    let post = exchange(&heartbeat, b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(code(&post), 405);
    assert!(post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
    assert_eq!(code(&exchange(&heartbeat, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")), 404);
    assert!(exchange(&heartbeat, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("\r\n\r\n"));
    assert_eq!(code(&exchange(&heartbeat, b"GET /livez HTTP/1.1\r\n\r\n")), 400);
    assert_eq!(
        code(&exchange(&heartbeat, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n")),
        400
    );
}

#[test]
fn a_request_that_is_too_large_is_told_so_even_while_it_still_comes() {
    let heartbeat = builder().start().unwrap();
    let mut stream = connect(&heartbeat);
    let request = format!("GET /livez HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "a".repeat(100_000));
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(code(&rest(&mut stream)), 431);
}

#[test]
fn a_request_in_single_bytes_is_answered_like_any_other() {
    let heartbeat = builder().start().unwrap();
    let mut stream = connect(&heartbeat);
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(code(&rest(&mut stream)), 200);
}

#[test]
fn requests_one_after_another_on_one_connection_get_one_answer() {
    let heartbeat = builder().start().unwrap();
    let answer = exchange(&heartbeat, &b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1);
}

#[test]
fn a_silent_client_is_hung_up_on_in_time() {
    let heartbeat = builder().start().unwrap();
    let begun = Instant::now();
    let mut stream = connect(&heartbeat);
    stream.write_all(b"GET /livez").unwrap();
    assert_eq!(rest(&mut stream), "");
    assert!(begun.elapsed() >= Duration::from_millis(1_900), "{:?}", begun.elapsed());
}

#[test]
fn a_client_that_never_hangs_up_after_its_answer_is_hung_up_on() {
    let heartbeat = builder().start().unwrap();
    let mut stream = connect(&heartbeat);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(code(&rest(&mut stream)), 200);
    // Only once its side of the connection is closed does the server's kernel refuse what comes.
    wait_for("the end", || stream.write_all(b"x").err());
}

#[test]
fn a_hundred_idle_clients_keep_no_probe_out_and_make_no_beat_late() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let heartbeat = builder().file(&path).interval(Duration::from_millis(50)).start().unwrap();
    let before = record(&path);
    let mut idle = Vec::new();
    while heartbeat.counters().beats < 60 {
        idle.clear();
        idle.resize_with(100, || TcpStream::connect(address(&heartbeat)).unwrap());
        // As a kubelet waits: 1 s.
        let asked = Instant::now();
        assert_eq!(get(&heartbeat, "/livez").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    let after = record(&path);
    let beats = after.seq - before.seq;
    let mean_ms = (after.at_mono_ms - before.at_mono_ms) / beats;
    // Half of the machine's time may be somebody else's, so the worst of many gaps is not judged here.
    assert!((45..100).contains(&mean_ms), "{beats} beats, {mean_ms} ms each");
    assert_eq!(heartbeat.counters().endpoint_failures, 0);
}

fn record(path: &Path) -> heartbeat::record::Record {
    observe(path, Owner::Own).record().expect("a record").clone()
}

#[test]
fn many_probes_at_once_are_all_answered() {
    let heartbeat = builder().start().unwrap();
    std::thread::scope(|scope| {
        let probes: Vec<_> = (0..60).map(|_| scope.spawn(|| get(&heartbeat, "/livez").0)).collect();
        for probe in probes {
            assert_eq!(probe.join().unwrap(), 200);
        }
    });
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = builder().endpoint(address).start().unwrap_err();
    assert_eq!(error.kind(), Kind::System);
    assert!(error.to_string().starts_with(&format!("heartbeat: cannot listen on {address}: ")), "{error}");
}

#[test]
fn the_port_is_free_when_the_worker_has_stopped() {
    let heartbeat = builder().start().unwrap();
    let address = address(&heartbeat);
    assert_eq!(get(&heartbeat, "/livez").0, 200);
    heartbeat.stop().unwrap();
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let next = builder().endpoint(address).start().unwrap();
    assert_eq!(get(&next, "/livez").0, 200);
}

#[test]
fn a_forked_child_holds_no_port() {
    let heartbeat = builder().start().unwrap();
    let listener = format!("socket:[{}]", listening_inode(address(&heartbeat).port()));
    // SAFETY: the child makes nothing but system calls.
    let child = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
            loop {
                nix::unistd::pause();
            }
        }
    };
    let holds = |pid: String| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut links = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.any(|link| link == Path::new(&listener))
    };
    assert!(holds("self".to_owned()));
    wait_for("the child's closing of it", || (!holds(child.to_string())).then_some(()));
    assert_eq!(get(&heartbeat, "/livez").0, 200);
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(child, None).unwrap();
}

/// The inode of the socket that listens on a port, from `/proc/net/tcp`.
fn listening_inode(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = |line: &&str| line.contains(&format!("0100007F:{port:04X} 00000000:0000 0A"));
    let line = table.lines().find(ours).expect("a listening socket");
    line.split_ascii_whitespace().nth(9).unwrap().parse().unwrap()
}

#[test]
fn of_a_process_that_is_gone_nothing_good_is_told() {
    let heartbeat = builder().start().unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    heartbeat.beat_for(child.id()).unwrap();
    assert_eq!(get(&heartbeat, "/livez").0, 200);
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, body) = get(&heartbeat, "/livez");
    assert_eq!((code, &body["verdict"]), (503, &Value::from("gone")));
}

#[test]
fn without_an_address_there_is_no_endpoint() {
    let heartbeat = Heartbeat::builder().environment(|_| None).no_file().start().unwrap();
    assert_eq!(heartbeat.endpoint_address(), None);
}
