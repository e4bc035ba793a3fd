//! The worker: a process that does one command a line, and answers each with one line.
//!
//! | command | does |
//! |---|---|
//! | `start KEY=VALUE…` | starts a heartbeat: `file`, `interval`, `promise`, `budget`, `start`, `mode` (octal) |
//! | `pulse [MS]` | a pulse, with its own budget |
//! | `turn MS` | from now on a thread pulses every MS |
//! | `task NAME [MS]`, `end`, `fail` | starts a task, ends the last one |
//! | `held PID` | another process does the last task's work |
//! | `lost`, `back` | the broker is |
//! | `ready`, `drain [MS]`, `stop`, `drop`, `leak` | the handle's own |
//! | `counters`, `error`, `status`, `pid` | tells |
//! | `umask OCTAL`, `unshare`, `mount DIR`, `remount DIR ro\|rw` | prepares |
//! | `subscribe` | every event of `tracing` panics from now on |
//! | `fork HOW`, `measure WHAT` | see [`crate::forks`] and [`crate::cost`] |
//! | `exec` | becomes a new program, in the same process |
//! | `exit CODE`, `return`, `panic`, `await-term` | ends the process, one way or another |

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use heartbeat::{ErrorKind, Heartbeat, Task};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// A worker process, as its test sees it. Killed where the test lets it go.
pub struct Worker {
    pub child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub fn spawn() -> Self {
        Self::spawn_as(|_| {})
    }

    /// A worker whose process is prepared somehow: another user, another environment.
    pub fn spawn_as(prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Self::command();
        prepare(&mut command);
        Self::of(command)
    }

    /// What a worker is started with.
    pub fn command() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--worker");
        command
    }

    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// A worker that beats at `path` every 20 ms, with a promise of 30 s.
    pub fn beating(path: &Path) -> Self {
        Self::beating_with(path, "")
    }

    pub fn beating_with(path: &Path, settings: &str) -> Self {
        let mut worker = Self::spawn();
        worker.start(path, settings);
        worker
    }

    #[track_caller]
    pub fn start(&mut self, path: &Path, settings: &str) {
        self.ask(&format!("start file={} {settings}", path.display()), "started");
    }

    /// Gives a command; does not wait.
    pub fn tell(&mut self, command: &str) {
        // At once: a worker that reads it in two pieces makes one system call more.
        self.input.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    /// The next answer; empty where the worker has ended.
    pub fn hear(&mut self) -> String {
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    pub fn answer(&mut self, command: &str) -> String {
        self.tell(command);
        self.hear()
    }

    #[track_caller]
    pub fn ask(&mut self, command: &str, expected: &str) {
        assert_eq!(self.answer(command), expected, "{command}");
    }

    /// Gives a command, and is content with its having been done.
    #[track_caller]
    pub fn make(&mut self, command: &str) {
        self.ask(command, "done");
    }

    /// `beats`, `file_failures` and `panics`.
    pub fn counters(&mut self) -> [u64; 3] {
        let answer = self.answer("counters");
        let numbers: Vec<_> = answer.split(' ').map(|number| number.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the kernel tells of the publisher's thread.
    pub fn publisher(&self) -> PathBuf {
        publisher_of(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.nix_pid(), signal).unwrap();
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid()).unwrap())
    }

    /// Kills the process and waits until it is a zombie.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        waitid(Id::Pid(self.nix_pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    }

    /// Waits until the process is stopped by a signal.
    pub fn wait_stopped(&self) {
        waitid(Id::Pid(self.nix_pid()), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT).unwrap();
    }

    /// Gives a last command, and waits for the end.
    pub fn finish(&mut self, command: &str) -> ExitStatus {
        self.tell(command);
        self.child.wait().unwrap()
    }
}

/// The folder in `/proc` of a process's publisher's thread.
pub fn publisher_of(pid: u32) -> PathBuf {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let mut publishers =
        tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "heartbeat\n"));
    publishers.next().expect("no publisher's thread")
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's own side.
pub fn run() -> ExitCode {
    let mut state = State::default();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        if words == ["return"] {
            return ExitCode::from(7);
        }
        println!("{}", state.obey(&words));
    }
    // The test is no more.
    std::process::abort()
}

#[derive(Default)]
pub struct State {
    heartbeat: Option<Arc<Heartbeat>>,
    tasks: Vec<Task>,
}

impl State {
    pub fn heartbeat(&self) -> &Heartbeat {
        self.heartbeat.as_ref().unwrap()
    }

    pub fn shared(&self) -> Arc<Heartbeat> {
        Arc::clone(self.heartbeat.as_ref().unwrap())
    }

    /// Lets go of the handle, which nobody else may hold.
    pub fn end(&mut self) {
        let heartbeat = Arc::into_inner(self.heartbeat.take().unwrap());
        drop(heartbeat.unwrap());
    }

    fn obey(&mut self, words: &[&str]) -> String {
        match *words {
            ["start", ref settings @ ..] => return self.start(settings),
            ["pulse"] => self.heartbeat().pulse(),
            ["pulse", ms] => self.heartbeat().pulse_within(millis(ms)),
            ["turn", ms] => self.turn(millis(ms)),
            ["task", name] => self.tasks.push(self.heartbeat().task(name, None)),
            ["task", name, ms] => self.tasks.push(self.heartbeat().task(name, millis(ms))),
            ["end"] => self.tasks.pop().unwrap().done(),
            ["fail"] => self.tasks.pop().unwrap().fail(),
            ["held", pid] => self.tasks.last().unwrap().held_by(pid.parse().unwrap()),
            ["lost"] => self.heartbeat().broker_lost(),
            ["back"] => self.heartbeat().broker_back(),
            ["ready"] => self.heartbeat().ready(),
            ["drain"] => self.heartbeat().drain(None),
            ["drain", ms] => self.heartbeat().drain(millis(ms)),
            ["stop"] => {
                return self.heartbeat().stop().map_or_else(|error| error.to_string(), |()| "done".into());
            }
            ["drop"] => self.end(),
            ["leak"] => std::mem::forget(self.heartbeat.take()),
            ["counters"] => {
                let counters = self.heartbeat().counters();
                return format!("{} {} {}", counters.beats, counters.file_failures, counters.panics);
            }
            ["error"] => return self.heartbeat().last_error().unwrap_or_default(),
            ["status"] => return self.heartbeat().status().to_string(),
            #[cfg(feature = "endpoint")]
            ["endpoint"] => return self.heartbeat().endpoint_address().unwrap().to_string(),
            ["pid"] => return std::process::id().to_string(),
            ["umask", mode] => drop(umask(Mode::from_bits_retain(octal(mode)))),
            ["unshare"] => {
                return unshare_mounts().map_or_else(|errno| errno.to_string(), |()| "done".into());
            }
            ["mount", folder] => mount_small(folder, MsFlags::empty()),
            ["remount", folder, "ro"] => mount_small(folder, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY),
            ["remount", folder, "rw"] => mount_small(folder, MsFlags::MS_REMOUNT),
            ["subscribe"] => subscribe(),
            ["fork", how] => return crate::forks::fork(self, how),
            ["measure", what] => return crate::cost::measure(self, what),
            ["exec"] => {
                use std::os::unix::process::CommandExt;
                // Before the next command can come: what is read ahead would be lost.
                println!("done");
                return Worker::command().exec().to_string();
            }
            ["exit", code] => std::process::exit(code.parse().unwrap()),
            ["panic"] => {
                let _heartbeat = Arc::into_inner(self.heartbeat.take().unwrap());
                std::panic::set_hook(Box::new(|_| {}));
                panic!("on purpose");
            }
            ["await-term"] => return self.await_term(),
            _ => panic!("unknown command {words:?}"),
        }
        "done".to_owned()
    }

    fn start(&mut self, settings: &[&str]) -> String {
        let mut builder = Heartbeat::builder()
            // What a test has given it alone, whatever this test runs in.
            .environment(|name| std::env::var_os(format!("TEST_{name}")))
            .interval(Duration::from_millis(20))
            .promise(Duration::from_secs(30));
        for setting in settings {
            builder = match setting.split_once('=').unwrap() {
                ("file", path) => builder.file(path),
                ("interval", ms) => builder.interval(millis(ms)),
                ("promise", ms) => builder.promise(millis(ms)),
                ("budget", ms) => builder.loop_budget(millis(ms)),
                ("start", ms) => builder.start_deadline(millis(ms)),
                #[cfg(feature = "endpoint")]
                ("endpoint", address) => builder.endpoint(address.parse().unwrap()),
                ("mode", mode) => builder.file_mode(octal(mode)),
                other => panic!("unknown setting {other:?}"),
            };
        }
        match builder.start() {
            Ok(heartbeat) => {
                self.heartbeat = Some(Arc::new(heartbeat));
                "started".to_owned()
            }
            Err(error) => match error.kind() {
                ErrorKind::Held { pid } => format!("held {pid}: {error}"),
                ErrorKind::Unsafe => format!("unsafe: {error}"),
                kind => format!("{kind:?}: {error}"),
            },
        }
    }

    fn turn(&self, every: Duration) {
        let heartbeat = self.shared();
        heartbeat.pulse();
        thread::spawn(move || {
            loop {
                heartbeat.pulse();
                thread::sleep(every);
            }
        });
    }

    /// What a worker does that ends well on SIGTERM: the handler sets a flag, and the loop sees it.
    fn await_term(&mut self) -> String {
        static ASKED: AtomicBool = AtomicBool::new(false);
        extern "C" fn ask(_: libc::c_int) {
            ASKED.store(true, Ordering::SeqCst);
        }
        let action = SigAction::new(SigHandler::Handler(ask), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { sigaction(Signal::SIGTERM, &action) }.unwrap();
        println!("waiting");
        while !ASKED.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(5));
        }
        self.end();
        std::process::exit(0)
    }
}

pub fn millis(ms: &str) -> Duration {
    Duration::from_millis(ms.parse().unwrap())
}

fn octal(mode: &str) -> u32 {
    u32::from_str_radix(mode, 8).unwrap()
}

/// From now on this process's mounts are its own. Before it has a second thread.
fn unshare_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// A file system with room for two files of a page each.
fn mount_small(folder: &str, flags: MsFlags) {
    mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some("size=8k")).unwrap();
}

#[cfg(feature = "tracing")]
fn subscribe() {
    std::panic::set_hook(Box::new(|_| {}));
    tracing_subscriber::fmt().with_writer(|| -> std::io::Stderr { panic!("a broken subscriber") }).init();
}

#[cfg(not(feature = "tracing"))]
fn subscribe() {
    unreachable!("only asked for where there is something to subscribe to");
}
