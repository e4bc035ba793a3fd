//! Real servers of a test's own: each on a free loopback port, in a folder of its own, ended by its process id.

#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

mod dnsmasq;
mod mariadb;
mod memcached;
mod nginx;
#[cfg(feature = "storage")]
mod objects;
mod postgres;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod redis;
mod smtp;

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use shared::check::Check;
use shared::checks::KINDS;
use tempfile::TempDir;

pub use dnsmasq::Dnsmasq;
pub use mariadb::Mariadb;
pub use memcached::Memcached;
pub use nginx::Nginx;
#[cfg(feature = "storage")]
pub use objects::{Azurite, GoogleStorage, S3, SigningS3};
pub use postgres::Postgres;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
pub use smtp::Smtp;

/// How long anything may take that comes as soon as the machine lets it.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits for a fact, and fails with what it was that did not come to be.
#[track_caller]
pub fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(fact) = fact() {
            return fact;
        }
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A port of 127.0.0.1 that nobody listened on just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server's processes, and the folder that they work in.
pub struct Program {
    command: Command,
    child: Child,
    pub folder: TempDir,
}

impl Program {
    /// Starts `command` in a process group of its own, its words in the file `log` of its folder.
    pub fn start(mut command: Command, folder: TempDir) -> Self {
        let child = run(&mut command, folder.path());
        Self { command, child, folder }
    }

    pub fn signal(&self, signal: Signal) {
        killpg(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Stops it, and waits until all its threads stand.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        let tasks = format!("/proc/{}/task", self.child.id());
        until("a process that stands", || std::fs::read_dir(&tasks).unwrap().all(stands).then_some(()));
    }

    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    pub fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.child.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts it again, as it was started.
    pub fn restart(&mut self) {
        self.child = run(&mut self.command, self.folder.path());
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = killpg(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command, folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A program of the npm registry, which `tests/run` installs.
pub fn node_program(name: &str) -> Command {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tests-node");
    let program = installed.join("node_modules/.bin").join(name);
    assert!(program.exists(), "{} is missing: tests/run installs it", program.display());
    Command::new(program)
}

/// The Python of the packages in `tests/requirements.txt`, which `tests/run` installs.
pub fn python() -> Command {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tests-python/bin/python");
    assert!(python.exists(), "{} is missing: tests/run installs it", python.display());
    Command::new(python)
}

/// The check that a configuration would make of these settings.
#[track_caller]
pub fn check(kind: &str, settings: Value) -> Box<dyn Check> {
    let found = KINDS.iter().find(|known| known.name == kind).expect("a kind of this name");
    found.build(settings).unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// Asks, with a deadline: nothing, or the reason and the chain of what happened.
pub async fn ask_within(check: &dyn Check, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    match tokio::time::timeout_at(deadline.into(), check.run(deadline)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => {
            use std::error::Error as _;
            let mut told = failure.reason().to_owned();
            let mut source = failure.source();
            while let Some(error) = source {
                told = format!("{told}: {error}");
                source = error.source();
            }
            Err(told)
        }
        Err(_) => Err("timed out".to_owned()),
    }
}

/// Asks with time enough.
pub async fn ask(check: &dyn Check) -> Result<(), String> {
    ask_within(check, SOON).await
}

/// Asks with little time: of a server that does not answer.
pub async fn ask_briefly(check: &dyn Check) -> Result<(), String> {
    ask_within(check, Duration::from_millis(500)).await
}
