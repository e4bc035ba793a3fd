//! A file system that answers no more: `strace` holds every rename of the worker's but the first few.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::{PATIENCE, Worker, record, trial, until};

const RENAMES: u64 = 5;

pub fn trials() -> Vec<Trial> {
    let held = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "inject=renameat:delay_enter=1", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    vec![
        trial!(a_file_that_hangs_keeps_systemd_from_nothing).with_ignored_flag(!held),
        trial!(a_file_that_hangs_keeps_the_endpoint_from_nothing).with_ignored_flag(!held),
        trial!(a_file_that_hangs_from_the_first_beat_on_keeps_the_endpoint_from_nothing)
            .with_ignored_flag(!held),
        trial!(a_file_that_is_slow_is_no_failure_and_neither_is_its_end).with_ignored_flag(!held),
        trial!(a_file_is_removed_after_a_stop_that_has_waited_in_vain).with_ignored_flag(!held),
        trial!(a_beat_for_two_allocates_nothing_once_warm),
    ]
}

/// systemd's end of the socket.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    /// A worker that is a service of it, and what it is started with.
    fn service(&self, mut command: Command) -> Worker {
        command.env("TEST_NOTIFY_SOCKET", self.folder.path().join("notify"));
        Worker::of(command)
    }

    /// Waits for so many messages that the worker is well.
    #[track_caller]
    fn hears(&self, watchdogs: usize) {
        let mut told = 0;
        while told < watchdogs {
            let mut text = [0; 4_096];
            let length = self.socket.recv(&mut text).expect("a message");
            told += usize::from(text[..length].starts_with(b"WATCHDOG=1"));
        }
    }

    /// Throws away what has come until now.
    fn forget(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while !matches!(self.socket.recv(&mut [0; 4_096]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        {
        }
        self.socket.set_nonblocking(false).unwrap();
    }
}

/// A worker of which every rename from the sixth on takes so long.
fn slow(renames: Duration) -> Command {
    slow_from(RENAMES + 1, renames)
}

fn slow_from(first: u64, renames: Duration) -> Command {
    let program = Worker::command();
    let mut command = Command::new("strace");
    let inject = format!("inject=renameat:delay_enter={}:when={first}+", renames.as_micros());
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat", "-e", &inject]);
    command.arg(program.get_program()).args(program.get_args()).env("TEST_WATCHDOG_USEC", "100000");
    command
}

fn wait_for(path: &Path, seq: u64) {
    until("the beats before", || {
        fs::exists(path).unwrap().then(|| record(path)).filter(|record| record.seq >= seq)
    });
}

fn a_file_that_hangs_keeps_systemd_from_nothing() {
    let manager = Manager::new();
    let path = manager.folder.path().join("beat");
    let mut worker = manager.service(slow(Duration::from_hours(1)));
    worker.start(&path, "");
    wait_for(&path, RENAMES);
    manager.hears(1);
    until("beats are made that reach no file", || (worker.counters()[1] > 5).then_some(()));
    assert!(worker.answer("error").ends_with("the file system does not answer"));
    manager.forget();
    manager.hears(20);
    assert_eq!(record(&path).seq, RENAMES);
    let stopped = worker.answer("stop");
    assert!(stopped.ends_with("the file system does not answer"), "{stopped}");
    assert_eq!(worker.counters()[2], 0);
}

/// A worker's endpoint, asked as a kubelet asks.
struct Endpoint(String);

impl Endpoint {
    fn of(worker: &mut Worker) -> Self {
        Self(worker.answer("endpoint"))
    }

    /// The status, the verdict and the reason.
    #[track_caller]
    fn get(&self, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (head[9..12].parse().unwrap(), text("verdict"), text("reason"))
    }

    #[track_caller]
    fn tells(&self, path: &str, status: u16, verdict: &str) {
        let (told, name, reason) = self.get(path);
        assert_eq!((told, name.as_str()), (status, verdict), "{path}: {reason}");
    }
}

/// Each answer comes within seconds, where the file takes an hour; and each is of that moment.
fn a_file_that_hangs_keeps_the_endpoint_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let mut worker = Worker::of(slow(Duration::from_hours(1)));
    worker.start(&path, "endpoint=127.0.0.1:0");
    let endpoint = Endpoint::of(&mut worker);
    wait_for(&path, RENAMES);
    until("beats are made that reach no file", || (worker.counters()[1] > 5).then_some(()));
    endpoint.tells("/readyz", 200, "alive");
    assert_eq!(endpoint.get("/livez").2, "idle, beat 0 ms ago");
    worker.make("task job 600000");
    assert_eq!(endpoint.get("/livez").2, "busy, beat 0 ms ago, 1 task running");
    worker.make("end");
    worker.make("pulse 1");
    until("the loop is overdue", || (endpoint.get("/livez").1 == "wedged").then_some(()));
    endpoint.tells("/livez", 503, "wedged");
    worker.make("pulse 600000");
    endpoint.tells("/livez", 200, "alive");
    worker.make("drain 600000");
    endpoint.tells("/livez", 200, "draining");
    endpoint.tells("/readyz", 503, "draining");
    // The file knows nothing of all this.
    assert_eq!(record(&path).seq, RENAMES);
    let stopped = worker.answer("stop");
    assert!(stopped.ends_with("the file system does not answer"), "{stopped}");
    assert_eq!(TcpStream::connect(&endpoint.0).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(worker.counters()[2], 0);
}

fn a_file_that_hangs_from_the_first_beat_on_keeps_the_endpoint_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let mut worker = Worker::of(slow_from(1, Duration::from_hours(1)));
    worker.start(&path, "endpoint=127.0.0.1:0");
    let endpoint = Endpoint::of(&mut worker);
    endpoint.tells("/readyz", 200, "alive");
    until("it is told", || worker.answer("error").ends_with("the file system does not answer").then_some(()));
    endpoint.tells("/readyz", 200, "alive");
    assert!(!path.exists());
}

fn a_file_that_is_slow_is_no_failure_and_neither_is_its_end() {
    let manager = Manager::new();
    let path = manager.folder.path().join("beat");
    let mut worker = manager.service(slow(Duration::from_millis(100)));
    // So rarely that each has its time.
    worker.start(&path, "interval=600");
    wait_for(&path, RENAMES + 2);
    assert_eq!(worker.counters()[1..], [0, 0]);
    worker.make("task job 60000");
    worker.make("stop");
    assert!(!path.exists());
}

fn a_file_is_removed_after_a_stop_that_has_waited_in_vain() {
    let manager = Manager::new();
    let path = manager.folder.path().join("beat");
    let mut worker = manager.service(slow(Duration::from_secs(5)));
    worker.start(&path, "");
    wait_for(&path, RENAMES);
    until("a beat is under way", || (worker.counters()[1] > 0).then_some(()));
    let stopped = worker.answer("stop");
    assert!(stopped.ends_with("the file system does not answer"), "{stopped}");
    assert!(path.exists());
    until("the file is gone", || (!path.exists()).then_some(()));
}

fn a_beat_for_two_allocates_nothing_once_warm() {
    let manager = Manager::new();
    let mut worker = manager.service(Worker::command());
    worker.start(&manager.folder.path().join("beat"), "interval=10");
    worker.ask("measure beats", "0");
}
