//! What systemd is told, over a real datagram socket in systemd's place.
//!
//! Its own `main`: the same program is also the service, in the tests that need a process with systemd's
//! environment. The others hand that environment to the builder.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use heartbeat::{Builder, Heartbeat};
use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const SERVICE: &str = "HEARTBEAT_TEST_IS_THE_SERVICE";

fn main() -> ExitCode {
    if std::env::var_os(SERVICE).is_some() {
        service();
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 11] = [
        ("a_service_is_ready_at_its_first_beat", a_service_is_ready_at_its_first_beat),
        ("a_service_that_starts_is_ready_when_it_says_so", a_service_that_starts_is_ready_when_it_says_so),
        ("a_drain_is_told_as_stopping_once", a_drain_is_told_as_stopping_once),
        ("a_status_is_told_when_it_changes_and_not_on_every_beat", a_status_is_told_when_it_changes),
        ("the_watchdog_is_fed_between_rare_beats", the_watchdog_is_fed_between_rare_beats),
        ("the_watchdog_starves_while_the_loop_is_wedged", the_watchdog_starves_while_the_loop_is_wedged),
        ("another_process_s_watchdog_is_not_fed", another_process_s_watchdog_is_not_fed),
        ("a_manager_that_takes_nothing_delays_no_beat", a_manager_that_takes_nothing_delays_no_beat),
        ("a_manager_that_comes_back_is_told_everything", a_manager_that_comes_back_is_told_everything),
        ("an_abstract_socket_is_reached_too", an_abstract_socket_is_reached_too),
        ("a_process_takes_it_all_from_its_environment", a_process_takes_it_all_from_its_environment),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
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
        Self::with(socket, folder)
    }

    fn with(socket: UnixDatagram, folder: TempDir) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    fn builder(&self, variables: &[(&'static str, String)]) -> Builder {
        let path = self.path();
        let mut variables = variables.to_vec();
        variables.push(("NOTIFY_SOCKET", path.to_str().unwrap().to_owned()));
        builder(variables)
    }

    /// The next message, in lines.
    fn message(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(text.ends_with('\n'), "{text:?}");
        text.lines().map(str::to_owned).collect()
    }

    /// Reads on until a message has this line; answers all lines until then.
    fn wait_for(&self, line: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while !lines.iter().any(|told| told == line) {
            assert!(Instant::now() < end, "{line} did not come: {lines:?}");
            lines.extend(self.message());
        }
        lines
    }

    /// Everything that comes within a time.
    fn listen(&self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let mut lines = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 4096];
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    lines.extend(std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned));
                }
                Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
            }
        }
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        lines
    }
}

fn builder(variables: Vec<(&'static str, String)>) -> Builder {
    let lookup = move |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    };
    Heartbeat::builder().environment(lookup).no_file().interval(Duration::from_millis(20))
}

/// A watchdog for this process.
fn watchdog(time: Duration) -> [(&'static str, String); 2] {
    [("WATCHDOG_USEC", time.as_micros().to_string()), ("WATCHDOG_PID", std::process::id().to_string())]
}

fn wait_for_beats(heartbeat: &Heartbeat, more: u64) {
    let wanted = heartbeat.counters().beats + more;
    let end = Instant::now() + PATIENCE;
    while heartbeat.counters().beats < wanted {
        assert!(Instant::now() < end, "the beats have stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn count(lines: &[String], line: &str) -> usize {
    lines.iter().filter(|told| *told == line).count()
}

fn a_service_is_ready_at_its_first_beat() {
    let manager = Manager::new();
    let _heartbeat =
        manager.builder(&[]).interval(Duration::from_mins(1)).promise(Duration::from_hours(1)).start();
    assert_eq!(manager.message(), ["READY=1", "STATUS=idle"]);
}

fn a_service_that_starts_is_ready_when_it_says_so() {
    let manager = Manager::new();
    let heartbeat = manager.builder(&[]).start_deadline(Duration::from_mins(1)).start().unwrap();
    assert_eq!(manager.message(), ["STATUS=starting"]);
    wait_for_beats(&heartbeat, 5);
    heartbeat.ready();
    assert_eq!(manager.message(), ["READY=1", "STATUS=idle"]);
}

fn a_drain_is_told_as_stopping_once() {
    let manager = Manager::new();
    let heartbeat = manager.builder(&[]).start().unwrap();
    let task = heartbeat.task("resize", None);
    heartbeat.drain(Duration::from_mins(1));
    let lines = manager.wait_for("STOPPING=1");
    assert!(lines.contains(&"STATUS=draining, 1 task running".to_owned()), "{lines:?}");
    task.done();
    wait_for_beats(&heartbeat, 3);
    heartbeat.stop().unwrap();
    let rest = manager.wait_for("STATUS=stopped");
    assert_eq!(count(&rest, "STOPPING=1"), 0, "{rest:?}");
}

fn a_status_is_told_when_it_changes() {
    let manager = Manager::new();
    let heartbeat = manager.builder(&[]).loop_budget(Duration::from_millis(500)).start().unwrap();
    manager.wait_for("STATUS=idle");
    let tasks = [heartbeat.task("resize", None), heartbeat.task("resize", None)];
    let lines = manager.wait_for("STATUS=busy, 2 tasks running");
    assert!(lines.len() <= 2, "{lines:?}");
    let begun = heartbeat.counters().beats;
    assert_eq!(manager.listen(Duration::from_millis(500)), [""; 0]);
    assert!(heartbeat.counters().beats > begun);
    // Another verdict is told at once.
    heartbeat.pulse();
    assert_eq!(manager.message(), ["STATUS=wedged, 2 tasks running"]);
    drop(tasks);
}

fn the_watchdog_is_fed_between_rare_beats() {
    let manager = Manager::new();
    let heartbeat = manager
        .builder(&watchdog(Duration::from_millis(400)))
        .interval(Duration::from_mins(1))
        .promise(Duration::from_hours(1))
        .start()
        .unwrap();
    let begun = Instant::now();
    let lines: Vec<_> = (0..6).flat_map(|_| manager.message()).collect();
    assert_eq!(count(&lines, "WATCHDOG=1"), 6, "{lines:?}");
    // The first comes at once, each other one half of the watchdog's time later, and not more often.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(heartbeat.counters().beats, 1);
}

fn the_watchdog_starves_while_the_loop_is_wedged() {
    let manager = Manager::new();
    let heartbeat = manager
        .builder(&watchdog(Duration::from_millis(100)))
        .loop_budget(Duration::from_millis(300))
        .start()
        .unwrap();
    heartbeat.pulse();
    let told = manager.wait_for("STATUS=wedged");
    assert!(count(&told, "WATCHDOG=1") >= 2, "{told:?}");
    let silence = manager.listen(Duration::from_millis(500));
    assert_eq!(silence, [""; 0]);
    heartbeat.pulse();
    let healed = manager.wait_for("STATUS=idle");
    assert_eq!(healed, ["STATUS=idle", "WATCHDOG=1"]);
}

fn another_process_s_watchdog_is_not_fed() {
    let manager = Manager::new();
    let variables = [("WATCHDOG_USEC", "20000".to_owned()), ("WATCHDOG_PID", "1".to_owned())];
    let heartbeat = manager.builder(&variables).start().unwrap();
    wait_for_beats(&heartbeat, 10);
    heartbeat.stop().unwrap();
    assert_eq!(count(&manager.wait_for("STOPPING=1"), "WATCHDOG=1"), 0);
}

fn a_manager_that_takes_nothing_delays_no_beat() {
    let manager = Manager::new();
    let heartbeat = manager.builder(&watchdog(Duration::from_millis(40))).start().unwrap();
    // Nobody reads until the kernel's queue is full and messages are refused.
    let end = Instant::now() + PATIENCE;
    while heartbeat.counters().systemd_failures < 3 {
        assert!(Instant::now() < end, "the queue does not fill");
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_for_beats(&heartbeat, 5);
    heartbeat.stop().unwrap();
    assert_eq!(heartbeat.counters().panics, 0);
}

fn a_manager_that_comes_back_is_told_everything() {
    let Manager { socket, folder } = Manager::new();
    let path = folder.path().join("notify");
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    let heartbeat = builder(vec![("NOTIFY_SOCKET", path.to_str().unwrap().to_owned())]).start().unwrap();
    wait_for_beats(&heartbeat, 3);
    assert!(heartbeat.counters().systemd_failures > 0);
    let manager = Manager::with(UnixDatagram::bind(&path).unwrap(), folder);
    assert_eq!(manager.message(), ["READY=1", "STATUS=idle"]);
}

fn an_abstract_socket_is_reached_too() {
    let name = format!("heartbeat-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::with(UnixDatagram::bind_addr(&address).unwrap(), tempfile::tempdir().unwrap());
    let _heartbeat = builder(vec![("NOTIFY_SOCKET", format!("@{name}"))]).start().unwrap();
    assert_eq!(manager.message(), ["READY=1", "STATUS=idle"]);
}

/// A worker like any other: it takes everything from its environment, and ends with its input.
fn service() {
    let heartbeat = Heartbeat::builder().no_file().start().unwrap();
    let mut end = Vec::new();
    std::io::stdin().read_to_end(&mut end).unwrap();
    heartbeat.stop().unwrap();
}

fn a_process_takes_it_all_from_its_environment() {
    let manager = Manager::new();
    let mut service = Command::new(std::env::current_exe().unwrap())
        .env(SERVICE, "1")
        .env("NOTIFY_SOCKET", manager.path())
        .env("WATCHDOG_USEC", "200000")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(manager.message(), ["READY=1", "STATUS=idle", "WATCHDOG=1"]);
    for _ in 0..3 {
        assert_eq!(manager.message(), ["WATCHDOG=1"]);
    }
    drop(service.stdin.take());
    assert_eq!(manager.wait_for("STATUS=stopped").iter().filter(|line| *line == "STOPPING=1").count(), 1);
    assert!(service.wait().unwrap().success());
}
