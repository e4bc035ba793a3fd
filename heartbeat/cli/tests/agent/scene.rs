//! A Redis, a folder of beat files, agents and workers; and what a checker would see in that Redis.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Counts, Cursor, Fleet, Lost, Member};
use heartbeat::record::Record;
use heartbeat::{Builder, Heartbeat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::servers::Server;
use crate::bench::{Bench, HEARTBEAT, Program, some, start};

#[path = "../../../tests/redis/servers.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod servers;

/// How often the agents publish.
pub const INTERVAL: Duration = Duration::from_millis(200);

impl Server {
    /// A number of `INFO`.
    pub fn info(&self, section: &str, name: &str) -> u64 {
        let text: String = self.ask(&format!("INFO {section}"));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let first =
            |line: &str| line.split(',').next().and_then(|part| part.trim().rsplit('=').next()?.parse().ok());
        line.map_or(0, |line| first(line).unwrap())
    }

    /// How many beats and farewells it was told.
    pub fn errands(&self) -> u64 {
        self.info("commandstats", "cmdstat_evalsha") + self.info("commandstats", "cmdstat_eval")
    }
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
        Self { bench, redis: Server::start(&[]) }
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
        self.process_of("c", name)
    }

    /// The same, in this cluster.
    pub fn process_of(&self, cluster: &str, name: &str) -> Process {
        let mut command = self.bench.command(HEARTBEAT);
        let options = ["--cluster", cluster, "--worker", name, "--queue", "mail", "--interval", "100ms"];
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
