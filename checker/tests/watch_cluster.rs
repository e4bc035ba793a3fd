//! `checker watch --cluster` as a whole: workers in a real Redis, told as lines and shown in a real terminal.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

#[expect(dead_code, reason = "only part of it is needed here")]
mod screen;
mod servers;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use screen::Screen;
use servers::{SOON, Server, beat, checker, record, worker};

fn watch(server: &Server) -> Command {
    let mut command = checker("watch --cluster orders");
    command.env("HEARTBEAT_REDIS_URL", server.url_of("default:S3cret@"));
    command
}

fn guarded() -> Server {
    let server = Server::start(&[]);
    assert_eq!(server.ask("ACL SETUSER default on nopass ~* +@all"), "+OK");
    server
}

struct Lines {
    process: Child,
    output: Receiver<String>,
    all: Vec<String>,
}

impl Lines {
    fn of(server: &Server) -> Self {
        let mut process = watch(server).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, output: lines, all: Vec::new() }
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let until = Instant::now() + SOON;
        loop {
            let line = self.output.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("no {text:?}: {error}: {:#?}", self.all));
            self.all.push(line.clone());
            if line.split_once("  ").unwrap().1.contains(text) {
                return;
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn workers_that_come_stop_and_go_silent_are_told_and_so_is_a_redis_that_is_away() {
    let mut server = guarded();
    let mut lines = Lines::of(&server);
    let first = worker(&server, "first", &["mail"]);
    lines.expect("first is alive: ");
    beat(&server, &[record(7, "second", "web-2", &["pdf"], 2_000)]);
    lines.expect("second is alive: ");
    lines.expect("second is silent: no beat for ");
    first.stop().unwrap();
    lines.expect("first is missing: ");
    let _first = worker(&server, "first", &["mail"]);
    lines.expect("first is alive: ");
    server.kill();
    lines.expect("orders at redis://127.0.0.1:");
    lines.expect("first is unknown: Redis cannot be reached");
    server.restart();
    lines.expect("as it should be again");
    lines.expect("first is alive: ");
    assert!(!lines.all.iter().any(|line| line.contains("S3cret")), "{:#?}", lines.all);
}

#[test]
fn the_terminal_shows_a_cluster_live_and_stays_usable_while_redis_is_frozen() {
    let server = guarded();
    let _first = worker(&server, "first", &["mail"]);
    beat(&server, &[record(7, "second", "web-2", &["pdf"], 600_000)]);
    let mut screen = Screen::start(&mut watch(&server), 100, 24);
    screen.wait_for(&["first", "alive", "idle"]);
    screen.wait_for(&["second", "alive", "busy"]);
    screen.wait_for(&["orders at redis://127.0.0.1:"]);
    screen.wait_for(&["2 workers   2 alive"]);
    server.signal(Signal::SIGSTOP);
    screen.wait_for(&["orders at redis://", "Redis did not answer in time"]);
    screen.wait_for(&["second", "unknown"]);
    screen.press("\x1b[F");
    screen.wait_for(&["› second"]);
    screen.wait_for(&["cluster orders, queues pdf, host web-2, pid 17"]);
    server.signal(Signal::SIGCONT);
    screen.wait_for(&["2 workers   2 alive"]);
    assert!(!screen.text().contains("S3cret"));
    screen.press("q");
    assert!(screen.wait().success());
    assert!(screen.is_restored());
}
