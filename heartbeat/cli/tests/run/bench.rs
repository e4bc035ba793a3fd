//! Starts the programs that the tests are about, waits for facts, and leaves no process behind. It knows how to run
//! things, not what is right.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::observe::{Owner, observe};
use heartbeat::record::Record;
use heartbeat::verdict::Verdict;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub const HEARTBEAT: &str = env!("CARGO_BIN_EXE_heartbeat");

const PATIENCE: Duration = Duration::from_secs(20);

/// By this variable, which every descendant inherits, a bench finds its processes again.
const MARK: &str = "HEARTBEAT_TEST_BENCH";

/// A scratch folder, and all processes that were started in it.
pub struct Bench {
    folder: TempDir,
}

/// A started program.
pub struct Program {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that runs in the folder, without this process's own configuration, and that ends with the bench.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"HEARTBEAT_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).env(MARK, self.folder.path()).stdin(Stdio::null());
        command.stdout(fs::File::create(self.path("out")).unwrap());
        command.stderr(fs::File::create(self.path("err")).unwrap());
        command
    }

    /// `heartbeat run OPTIONS -- sh -c SCRIPT`, beating at `beat` where no option says otherwise.
    pub fn run(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.command(HEARTBEAT);
        command.env("HEARTBEAT_FILE", "beat").env("HEARTBEAT_INTERVAL", "20ms");
        command.arg("run").args(options).args(["--", "sh", "-c", script]);
        command
    }

    /// Starts it and waits until the script says so by `touch ready`.
    pub fn ready(&self, command: &mut Command) -> Program {
        let program = start(command);
        until("the command is ready", || self.path("ready").exists());
        program
    }

    pub fn stdout(&self) -> String {
        self.read("out")
    }

    pub fn stderr(&self) -> String {
        self.read("err")
    }

    /// What a file holds; nothing where there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A pid that a script has written to a file.
    pub fn pid(&self, name: &str) -> Pid {
        Pid::from_raw(some("a pid", || self.read(name).strip_suffix('\n').and_then(|pid| pid.parse().ok())))
    }

    pub fn record(&self) -> Option<Record> {
        observe(&self.path("beat"), Owner::Own).record().cloned()
    }

    pub fn verdict(&self) -> Verdict {
        observe(&self.path("beat"), Owner::Own).judge(None).verdict
    }

    pub fn until_verdict(&self, verdict: Verdict) {
        until(&format!("the verdict is {verdict}"), || self.verdict() == verdict);
    }

    fn processes(&self) -> Vec<Pid> {
        let mark = [MARK.as_bytes(), b"=", self.folder.path().as_os_str().as_encoded_bytes(), b"\0"].concat();
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let marked = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        };
        pids.filter(marked).map(Pid::from_raw).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let processes = self.processes();
            if processes.is_empty() || Instant::now() > end {
                return;
            }
            for pid in processes {
                // It may have ended by itself meanwhile.
                let _ = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn start(command: &mut Command) -> Program {
    Program { child: command.spawn().unwrap(), ended: None }
}

impl Program {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Its exit status once it has ended, or 1000 and the number of the signal that ended it itself.
    pub fn exit(mut self) -> i32 {
        let status = some("the program has ended", || self.child.try_wait().unwrap());
        self.ended = Some(status);
        status.code().unwrap_or_else(|| 1000 + status.signal().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end.
pub fn exit(command: &mut Command) -> i32 {
    start(command).exit()
}

/// Waits until something is so.
pub fn until(what: &str, fact: impl FnMut() -> bool) {
    let mut fact = fact;
    some(what, || fact().then_some(()));
}

/// Waits until there is something.
pub fn some<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a look shows what is wanted; tells what was last seen.
pub fn equal<T: Debug + PartialEq>(wanted: &T, mut look: impl FnMut() -> T) {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if seen == *wanted {
            return;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {wanted:?}; last seen: {seen:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Field `name` of `/proc/PID/status`; nothing where there is no such process.
pub fn proc_status(pid: Pid, name: &str) -> Option<String> {
    let mut text = String::new();
    fs::File::open(format!("/proc/{pid}/status")).ok()?.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The letter of a process's state; nothing where there is no such process.
pub fn state(pid: Pid) -> Option<char> {
    proc_status(pid, "State")?.chars().next()
}
