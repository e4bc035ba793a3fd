//! What the tests of the command share: a folder with a beat file in it, and the command run on it.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use heartbeat::Heartbeat;
use heartbeat::observe::{Owner, observe};
use heartbeat::record::{Nearest, Pulse, Record, Stat, Status};
use heartbeat::verdict::Verdict;
use tempfile::TempDir;

/// A folder with a beat file of this very process in it: seen, alive, and its record ours to change.
pub struct Bench {
    pub folder: TempDir,
    pub file: PathBuf,
    pub record: Record,
}

/// What the command answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("beat");
        let heartbeat = Heartbeat::builder()
            .environment(|_| None)
            .file(&file)
            .cluster("orders")
            .worker("web-3:17")
            .version("2.1.0")
            .start()
            .unwrap();
        let record = observe(&file, Owner::Own).record().unwrap().clone();
        heartbeat.stop().unwrap();
        Self { folder, file, record }
    }

    /// Makes the file what it is where `verdict` is the right one; not for `unknown`, which is no matter of the file.
    pub fn prepare(&mut self, verdict: Verdict) {
        let at = self.record.at_mono_ms;
        let record = &mut self.record;
        match verdict {
            Verdict::Missing => return,
            Verdict::Unsafe => return self.write_bytes(b"{}", 0o666),
            Verdict::Corrupt => return self.write_bytes(b"\x1b[2J not a record", 0o600),
            Verdict::Stopped => record.status = Status::Stopped,
            Verdict::Gone => record.pid_start += 1,
            Verdict::Silent => {
                record.at_mono_ms = at - 3_000;
                record.promise_ms = 1_000;
            }
            Verdict::Starting => self.enter(Status::Starting, at + 60_000),
            Verdict::StartOverdue => self.enter(Status::Starting, at - 1_000),
            Verdict::Draining => self.enter(Status::Draining, at + 60_000),
            Verdict::DrainOverdue => self.enter(Status::Draining, at - 1_000),
            Verdict::Wedged => {
                record.pulse = Some(Pulse { pulsed_mono_ms: at - 3_000, due_mono_ms: at - 2_000 });
            }
            Verdict::Overdue => self.run_a_task("resize"),
            Verdict::CutOff => {
                let ok_mono_ms = at - 2_001;
                (record.interval_ms, record.promise_ms) = (1_000, 2_000);
                record.stat = Some(Stat { ok_mono_ms, failures: 7 });
            }
            Verdict::Alive => {}
            Verdict::Unknown => unreachable!("no file makes it"),
        }
        self.write();
    }

    fn enter(&mut self, status: Status, until_mono_ms: u64) {
        self.record.status = status;
        self.record.until_mono_ms = Some(until_mono_ms);
    }

    /// A task past its deadline.
    pub fn run_a_task(&mut self, name: &str) {
        let at = self.record.at_mono_ms;
        self.record.status = Status::Busy;
        self.record.tasks.running = 1;
        self.record.tasks.nearest =
            Some(Nearest { name: name.to_owned(), since_mono_ms: at - 3_000, due_mono_ms: Some(at - 2_000) });
    }

    pub fn write(&self) {
        let mut line = Vec::new();
        self.record.write(&mut line);
        self.write_bytes(&line, 0o600);
    }

    pub fn write_bytes(&self, bytes: &[u8], mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(&self.file, bytes).unwrap();
        fs::set_permissions(&self.file, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `checker worker` on the file, to be run.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = checker();
        command.arg("worker").args(arguments.split_whitespace()).env("HEARTBEAT_FILE", &self.file);
        command
    }

    pub fn ask(&self, arguments: &str) -> Answer {
        answer(&mut self.command(arguments))
    }
}

/// The command, in an environment that configures nothing.
pub fn checker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTBEAT_"))
    {
        command.env_remove(name);
    }
    command
}

pub fn answer(command: &mut Command) -> Answer {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Answer {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap()),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}
