//! The example, as a process of its own, against a real Redis: its jobs are done, and none is lost however it ends.
//!
//! Its own `main`: the same program is also the example that it starts and kills.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "all of this is a test")]

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use heartbeat::observe::{Owner, observe};
use heartbeat::record::Status;
use heartbeat::verdict::Verdict;
use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{Commands, Connection};
use tempfile::TempDir;

#[path = "../examples/worker.rs"]
mod worker;

const PATIENCE: Duration = Duration::from_secs(30);
const EXAMPLE: &str = "HEARTBEAT_TEST_IS_THE_EXAMPLE";

fn main() -> ExitCode {
    if std::env::var_os(EXAMPLE).is_some() {
        return match worker::main() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let tests: [(&str, fn()); 5] = [
        ("all_jobs_are_done_several_at_once", all_jobs_are_done_several_at_once),
        ("a_job_that_cannot_be_done_is_kept_apart", a_job_that_cannot_be_done_is_kept_apart),
        ("sigterm_drains_and_loses_nothing", sigterm_drains_and_loses_nothing),
        ("kill_9_loses_nothing", kill_9_loses_nothing),
        ("without_its_redis_it_ends_with_an_error", without_its_redis_it_ends_with_an_error),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn wait_for<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        // SAFETY: between fork and exec, one system call.
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        let name = command.get_program().to_string_lossy().into_owned();
        Self(command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}")))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for("its end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Redis {
    process: Process,
    url: String,
    connection: Connection,
    folder: TempDir,
}

impl Redis {
    /// A server of its own. Another process may take the free port first, so there are some tries.
    fn start() -> Self {
        (0..5).find_map(|_| Self::try_start()).expect("redis-server starts on none of five free ports")
    }

    fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.arg("--dir").arg(folder.path()).stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        let url = format!("redis://127.0.0.1:{port}/");
        let client = redis::Client::open(url.as_str()).unwrap();
        let connection = wait_for("redis-server", || match process.0.try_wait().unwrap() {
            Some(_) => Some(None),
            None => client.get_connection().ok().map(Some),
        })?;
        Some(Self { process, url, connection, folder })
    }

    fn push(&mut self, jobs: impl IntoIterator<Item = String>) {
        for job in jobs {
            let () = self.connection.lpush("jobs", job).unwrap();
        }
    }

    /// The jobs of a list, sorted.
    fn jobs(&mut self, list: &str) -> Vec<String> {
        let mut jobs: Vec<String> = self.connection.lrange(list, 0, -1).unwrap();
        jobs.sort();
        jobs
    }

    fn wait_for(&mut self, list: &str, jobs: usize) -> Vec<String> {
        wait_for(list, || Some(self.jobs(list)).filter(|found| found.len() >= jobs))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("beat")
    }

    fn worker(&self) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(EXAMPLE, "1").env("REDIS_URL", &self.url).env("HEARTBEAT_WORKER", "one");
        command.env("HEARTBEAT_FILE", self.file()).env("HEARTBEAT_INTERVAL", "20ms");
        Process::start(&mut command)
    }

    fn verdict(&self) -> Verdict {
        observe(&self.file(), Owner::Own).judge(None).verdict
    }
}

fn jobs(count: usize, milliseconds: u64) -> Vec<String> {
    (0..count).map(|number| format!("job-{number:03} {milliseconds}")).collect()
}

fn all_jobs_are_done_several_at_once() {
    let mut redis = Redis::start();
    redis.push(jobs(12, 300));
    let mut worker = redis.worker();
    let at_once = wait_for("four jobs at once", || {
        observe(&redis.file(), Owner::Own)
            .record()
            .map(|record| record.tasks.running)
            .filter(|running| *running >= 4)
    });
    assert_eq!(at_once, 4);
    assert_eq!(redis.verdict(), Verdict::Alive);
    assert_eq!(redis.wait_for("jobs:results", 12), jobs(12, 300));
    assert_eq!(redis.jobs("jobs:taken:one"), [""; 0]);
    let done = wait_for("twelve tasks in the record", || {
        let seen = observe(&redis.file(), Owner::Own);
        seen.record().filter(|record| record.tasks.done == 12).map(|record| record.status)
    });
    assert_eq!(done, Status::Idle);
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait().success());
    assert_eq!(redis.verdict(), Verdict::Missing);
}

fn a_job_that_cannot_be_done_is_kept_apart() {
    let mut redis = Redis::start();
    redis.push(["nonsense".to_owned(), "sense 1".to_owned()]);
    let _worker = redis.worker();
    assert_eq!(redis.wait_for("jobs:failed", 1), ["nonsense"]);
    assert_eq!(redis.wait_for("jobs:results", 1), ["sense 1"]);
    let failed = || observe(&redis.file(), Owner::Own).record().map(|record| record.tasks.failed);
    wait_for("one failed task", || failed().filter(|failed| *failed == 1));
}

fn sigterm_drains_and_loses_nothing() {
    let mut redis = Redis::start();
    redis.push(jobs(6, 1_500));
    let mut worker = redis.worker();
    let taken = redis.wait_for("jobs:taken:one", 4);
    worker.signal(Signal::SIGTERM);
    wait_for("draining", || (redis.verdict() == Verdict::Draining).then_some(()));
    assert!(worker.wait().success());
    assert_eq!(redis.jobs("jobs:results"), taken);
    assert_eq!(redis.jobs("jobs:taken:one"), [""; 0]);
    assert_eq!(redis.jobs("jobs").len(), 2);
    assert_eq!(redis.verdict(), Verdict::Missing);
}

fn kill_9_loses_nothing() {
    let mut redis = Redis::start();
    redis.push(jobs(40, 50));
    for done in [4, 12, 20] {
        let mut worker = redis.worker();
        redis.wait_for("jobs:results", done);
        redis.wait_for("jobs:taken:one", 1);
        worker.signal(Signal::SIGKILL);
        assert!(!worker.wait().success());
        assert_eq!(redis.verdict(), Verdict::Gone);
    }
    let _worker = redis.worker();
    assert_eq!(redis.wait_for("jobs:results", 40), jobs(40, 50));
    assert_eq!(redis.jobs("jobs:taken:one"), [""; 0]);
}

fn without_its_redis_it_ends_with_an_error() {
    let redis = Redis::start();
    let mut worker = redis.worker();
    wait_for("alive", || (redis.verdict() == Verdict::Alive).then_some(()));
    redis.process.signal(Signal::SIGKILL);
    assert_eq!(worker.wait().code(), Some(1));
    assert_eq!(redis.verdict(), Verdict::Missing);
}
