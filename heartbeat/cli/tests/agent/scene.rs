//! A Redis, a folder of beat files, agents and workers; and what a checker would see in that Redis.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heartbeat::fleet::{Counts, Cursor, Fleet, Lost, Member};
use heartbeat::record::Record;
use heartbeat::{Builder, Heartbeat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{FromRedisValue, cmd};
use tempfile::TempDir;

use crate::bench::{Bench, HEARTBEAT, Program, some, start, until};

/// How often the agents publish.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// One `redis-server`, ended by its own process id.
pub struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = TempDir::new().unwrap();
        let server = Self { child: run(port, &folder), port, folder };
        server.wait();
        server
    }

    fn wait(&self) {
        until("a Redis that answers", || self.try_ask::<String>("PING").is_ok());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs one command, over the socket: what the test does is not on the port.
    pub fn try_ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("unix://{}", self.folder.path().join("socket").display()))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let mut words = command.split(' ');
        let mut packed = cmd(words.next().unwrap_or_default());
        for word in words {
            packed.arg(word);
        }
        packed.query(&mut connection)
    }

    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap()
    }

    /// A number of `INFO`.
    pub fn info(&self, section: &str, name: &str) -> u64 {
        let text: String = self.ask(&format!("INFO {section}"));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let digits = |line: &str| line.trim_start_matches("calls=").split(',').next().unwrap().trim().parse();
        line.map_or(0, |line| digits(line).unwrap())
    }

    /// How many beats and farewells it was told.
    pub fn errands(&self) -> u64 {
        self.info("commandstats", "cmdstat_evalsha") + self.info("commandstats", "cmdstat_eval")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
        fs::remove_file(self.folder.path().join("socket")).unwrap();
    }

    /// Starts again, on the same port and with nothing in it.
    pub fn restart(&mut self) {
        self.child = run(self.port, &self.folder);
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(port: u16, folder: &TempDir) -> Child {
    let port = port.to_string();
    Command::new("redis-server")
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--unixsocket",
            "socket",
        ])
        .arg("--dir")
        .arg(folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server (Debian: redis-server)")
}

/// A folder in a bench, and a Redis.
pub struct Scene {
    pub bench: Bench,
    pub redis: Server,
}

impl Scene {
    pub fn new() -> Self {
        let bench = Bench::new();
        fs::create_dir(bench.path("beats")).unwrap();
        Self { bench, redis: Server::start() }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.bench.path("beats").join(name)
    }

    /// An agent of the folder, with these options more.
    pub fn agent_command(&self, options: &[&str]) -> Command {
        let mut command = self.bench.command(HEARTBEAT);
        command.env("HEARTBEAT_REDIS_URL", self.redis.url());
        command.args(["agent", "--dir", "beats", "--interval", "200ms"]).args(options);
        command
    }

    pub fn agent(&self) -> Program {
        start(&mut self.agent_command(&[]))
    }

    /// The settings of a worker that beats from within this process, at a file in the folder.
    pub fn worker(&self, name: &str) -> Builder {
        let builder = Heartbeat::builder().environment(|_| None).cluster("c").worker(name).queues(["mail"]);
        builder.file(self.file(name)).interval(Duration::from_millis(100))
    }

    /// `heartbeat run` of a command that only waits.
    pub fn process(&self, name: &str) -> Process {
        let mut command = self.bench.command(HEARTBEAT);
        let options = ["--cluster", "c", "--worker", name, "--queue", "mail", "--interval", "100ms"];
        command.arg("run").arg("--file").arg(self.file(name)).args(options).args(["--", "sleep", "600"]);
        let program = start(&mut command);
        let own = program.pid().as_raw().unsigned_abs();
        let pid = some("a record of the command", || {
            let record = self.record(name)?;
            (record.pid != own).then_some(record.pid)
        });
        Process { program, pid: Pid::from_raw(pid.cast_signed()) }
    }

    pub fn record(&self, name: &str) -> Option<Record> {
        Record::parse(&fs::read(self.file(name)).ok()?).ok()
    }

    pub fn fleet(&self) -> Fleet {
        Fleet::new(self.redis.url().parse().unwrap(), "c")
    }

    /// How many are fresh, ready, and ready for the queue `mail`.
    pub fn counts(&self) -> (u64, u64, u64) {
        let counts: Counts = self.fleet().count(&["mail"], soon()).unwrap();
        (counts.fresh, counts.ready, counts.queues[0])
    }

    #[track_caller]
    pub fn until_counts(&self, fresh: u64, ready: u64) {
        crate::bench::equal(&(fresh, ready, ready), || self.counts());
    }

    pub fn lost(&self) -> Vec<Lost> {
        self.fleet().lost(100, soon()).unwrap().lost
    }

    pub fn members(&self) -> Vec<Member> {
        self.fleet().members(&Cursor::default(), 1_000, soon()).unwrap().members
    }
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A worker that is a process of its own.
pub struct Process {
    program: Program,
    pid: Pid,
}

impl Process {
    /// Without a farewell, as the kernel does where memory is short: first who would tell of the end.
    pub fn kill(self) {
        self.program.signal(Signal::SIGKILL);
        self.program.exit();
        kill(self.pid, Signal::SIGKILL).unwrap();
    }

    pub fn stop(self) {
        self.program.signal(Signal::SIGTERM);
        self.program.exit();
    }
}
