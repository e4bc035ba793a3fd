//! Real servers of a test's own, on free ports and ended by their process ids; and workers in a Redis.

#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

use std::process::Command;
use std::time::{Duration, Instant};

use heartbeat::Heartbeat;
use heartbeat::fleet::{Beat, Fleet};
use heartbeat::record::Record;
use nix::sys::signal::Signal;

#[path = "../../../shared/tests/servers/nginx.rs"]
mod nginx;
#[path = "../../../shared/tests/servers/postgres.rs"]
mod postgres;
#[path = "../../../shared/tests/servers/program.rs"]
mod program;
#[path = "../../../shared/tests/servers/redis.rs"]
mod redis;

pub use nginx::Nginx;
pub use postgres::Postgres;
pub use program::{Program, SOON, free_port, until};
pub use redis::Redis as Server;

pub const CHECKER: &str = env!("CARGO_BIN_EXE_checker");

impl Server {
    /// How often each command has been called from outside, those of the test itself not counted.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.ask("INFO commandstats");
        let name = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    pub fn kill(&mut self) {
        self.program.kill();
    }

    pub fn fleet(&self, cluster: &str) -> Fleet {
        Fleet::new(self.url().parse().unwrap(), cluster)
    }
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
