//! A real Redis of a test's own, on a free port and ended by its process id; and workers in it.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::Heartbeat;
use heartbeat::fleet::{Beat, Fleet};
use heartbeat::record::Record;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take that comes as soon as the machine lets it.
pub const SOON: Duration = Duration::from_secs(20);

pub const CHECKER: &str = env!("CARGO_BIN_EXE_checker");

/// Waits for a fact, and fails with what it was that did not come to be.
#[track_caller]
pub fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(fact) = fact() {
            return fact;
        }
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A `redis-server` without persistence.
pub struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let own = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"];
        let mut all: Vec<_> = own.iter().map(ToString::to_string).collect();
        all.push(port.to_string());
        all.extend(arguments.iter().map(ToString::to_string));
        let child = run(&all, &folder);
        let server = Self { child, port, folder, arguments: all };
        server.wait();
        server
    }

    fn wait(&self) {
        // Whether with +PONG or with -NOAUTH: it answers.
        until("a Redis that answers", || {
            self.try_ask("PING").ok().filter(|answer| !answer.contains("LOADING"))
        });
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn url_of(&self, login: &str) -> String {
        format!("redis://{login}@127.0.0.1:{}", self.port)
    }

    /// Runs one command and gives its answer's first line, or the whole of a text.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }

    pub fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(SOON))?;
        writeln!(stream, "{command}\r")?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(length) = line.strip_prefix('$').and_then(|length| length.trim().parse::<usize>().ok()) {
            let mut text = vec![0; length];
            reader.read_exact(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        Ok(line.trim().to_owned())
    }

    /// How often each command has been called from outside, those of the test itself not counted.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.ask("INFO commandstats");
        let name = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Starts again, on the same port and with nothing in it.
    pub fn restart(&mut self) {
        self.child = run(&self.arguments, &self.folder);
        self.wait();
    }

    pub fn fleet(&self, cluster: &str) -> Fleet {
        Fleet::new(self.url().parse().unwrap(), cluster)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    // Below 55,536, because the nodes of a Redis Cluster talk to each other 10,000 above.
    until("a free port", || {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        TcpListener::bind(("127.0.0.1", port.checked_add(10_000)?)).is_ok().then_some(port)
    })
}

fn run(arguments: &[String], folder: &TempDir) -> Child {
    let log = File::options().append(true).create(true).open(folder.path().join("log")).unwrap();
    // Or what takes its settings.
    let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let mut command = Command::new(program);
    command.args(arguments).arg("--dir").arg(folder.path());
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().expect("redis-server (Debian: redis-server)")
}

/// A worker of this very process that beats by itself, every 100 ms, with a promise of 1 s.
pub fn worker(server: &Server, name: &str, queues: &[&str]) -> Heartbeat {
    let builder = Heartbeat::builder().environment(|_| None).no_file().redis(server.url());
    let builder = builder.cluster("orders").worker(name).queues(queues.iter().copied());
    builder.interval(Duration::from_millis(100)).promise(Duration::from_secs(1)).start().unwrap()
}

/// A record as a worker of that host would write it.
pub fn record(number: u128, name: &str, host: &str, queues: &[&str], promise_ms: u64) -> Record {
    let line = format!(
        r#"{{"v":1,"id":"{number:032x}","cluster":"orders","worker":"{name}","host":"{host}","queues":{queues:?},
        "pid":17,"pid_start":1,"pid_ns":1,"boot":"b","seq":9,"at_mono_ms":5000,"at_unix_ms":1,"interval_ms":10,
        "promise_ms":{promise_ms},"status":"busy","tasks":{{"running":1,"done":41,"failed":2}}}}"#
    );
    Record::parse(line.as_bytes()).unwrap()
}

/// Beats once for each of them.
pub fn beat(server: &Server, records: &[Record]) {
    beat_as(server, records, true);
}

pub fn beat_as(server: &Server, records: &[Record], takes_work: bool) {
    let lines: Vec<_> = records
        .iter()
        .map(|record| {
            let mut line = Vec::new();
            record.write(&mut line);
            line
        })
        .collect();
    let beats: Vec<_> = records
        .iter()
        .zip(&lines)
        .map(|(record, line)| Beat { record, line, takes_work, age_ms: 0 })
        .collect();
    for outcome in server.fleet("orders").publish(&beats, Instant::now() + SOON).unwrap() {
        outcome.unwrap();
    }
}

/// `checker` with these words, and nothing of this process's settings.
pub fn checker(words: &str) -> Command {
    let mut command = Command::new(CHECKER);
    command.args(words.split_whitespace()).env_remove("HEARTBEAT_REDIS_URL").env_remove("NO_COLOR");
    command
}
