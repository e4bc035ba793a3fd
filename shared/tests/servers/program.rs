//! A server's processes, on a port and in a folder of their own, ended by their process id; and waiting for what it does.
//!
//! Other crates' tests use this file, too.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

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

/// A port of 127.0.0.1 that nobody listened on just now, and that no connection takes by chance.
pub fn free_port() -> u16 {
    // Below the ports that the kernel gives to connections; nodes of a Redis Cluster talk to each other 10,000 above, where no server
    // is, or one would be met there by who only tries the port.
    static TRIED: AtomicU32 = AtomicU32::new(0);
    until("a free port", || {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from((std::process::id() * 131 + tried) % 10_000).unwrap();
        [port, port + 10_000]
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .then_some(port)
    })
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
