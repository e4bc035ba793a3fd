//! After `fork()`: the child's copy of the handle does nothing in its parent's name, and hangs nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use heartbeat::record::Status;
use heartbeat::verdict::Verdict;
use heartbeat::{ErrorKind, Heartbeat};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use tempfile::TempDir;

use crate::worker::State;
use crate::{PATIENCE, Worker, next_beat, record, trial, until, verdict};

pub fn trials() -> Vec<Trial> {
    vec![
        trial!(a_forked_child_does_nothing_in_its_parents_name),
        trial!(a_forked_child_that_exits_with_the_handle_alive_removes_nothing),
        trial!(a_forked_child_that_lives_on_does_not_keep_its_parent_alive),
        trial!(a_forked_child_may_beat_for_itself_elsewhere),
        trial!(a_forked_child_may_not_take_its_parents_file),
        trial!(no_child_hangs_however_busy_the_moment_of_its_fork),
    ]
}

/// What the worker does for `fork HOW`.
pub fn fork(state: &mut State, how: &str) -> String {
    match how.split_once(':').unwrap_or((how, "")) {
        ("use", _) => outcome(child(state, use_everything)),
        ("exit", _) => outcome(child(state, |_| 5)),
        ("linger", end) => child(state, |_| wait_for(Path::new(end))).to_string(),
        ("take", path) => outcome(child(state, |_| take(Path::new(path)))),
        ("own", path) => child(state, |_| beat_for_itself(Path::new(path))).to_string(),
        ("storm", _) => storm(state),
        other => panic!("unknown way to fork {other:?}"),
    }
}

/// Forks; the child does its work and exits with its answer.
fn child(state: &mut State, work: impl FnOnce(&mut State) -> i32) -> Pid {
    // SAFETY: the child allocates and locks, which no rule of POSIX allows and glibc does; that it gets along with
    // this library's own locks is what is tested.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => std::process::exit(work(state)),
    }
}

/// How a child ended; killed where it did not.
fn outcome(pid: Pid) -> String {
    for _ in 0..PATIENCE.as_millis() / 2 {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => thread::sleep(Duration::from_millis(1)),
            WaitStatus::Exited(_, code) => return format!("exited {code}"),
            other => return format!("{other:?}"),
        }
    }
    kill(pid, Signal::SIGKILL).unwrap();
    waitpid(pid, None).unwrap();
    "hung".to_owned()
}

/// Everything that a handle can be used for; how many threads this process has.
fn use_everything(state: &mut State) -> i32 {
    let heartbeat = state.heartbeat();
    heartbeat.pulse();
    heartbeat.pulse_within(Duration::from_millis(1));
    heartbeat.task("the child's", Duration::from_millis(1)).fail();
    heartbeat.ready();
    heartbeat.drain(Duration::from_millis(1));
    assert_eq!(heartbeat.status(), Status::Stopped);
    assert_eq!(heartbeat.last_error(), None);
    heartbeat.stop().unwrap();
    state.end();
    i32::try_from(fs::read_dir("/proc/self/task").unwrap().count()).unwrap()
}

fn wait_for(end: &Path) -> i32 {
    until("the test lets it go", || end.exists().then_some(()));
    0
}

/// Tries to beat where the parent does. 0 where it is told that it may not.
fn take(path: &Path) -> i32 {
    let started = Heartbeat::builder().environment(|_| None).file(path).start();
    let parent = nix::unistd::getppid().as_raw().unsigned_abs();
    i32::from(started.map_err(|error| error.kind()).err() != Some(ErrorKind::Held { pid: parent }))
}

fn beat_for_itself(path: &Path) -> i32 {
    let heartbeat = Heartbeat::builder()
        .environment(|_| None)
        .file(path)
        .interval(Duration::from_millis(20))
        .start()
        .unwrap();
    let status = wait_for(&path.with_extension("end"));
    drop(heartbeat);
    status
}

/// Many forks, while other threads are at all the locks.
fn storm(state: &mut State) -> String {
    static OVER: AtomicBool = AtomicBool::new(false);
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let heartbeat = state.shared();
            thread::spawn(move || {
                while !OVER.load(Ordering::SeqCst) {
                    drop(heartbeat.task("busy", Duration::from_mins(1)));
                    heartbeat.pulse();
                    heartbeat.ready();
                    heartbeat.status();
                }
            })
        })
        .collect();
    let mut answer = "done".to_owned();
    for _ in 0..200 {
        let child = child(state, |state| {
            let heartbeat = state.heartbeat();
            drop(heartbeat.task("the child's", None));
            heartbeat.pulse();
            i32::from(heartbeat.status() != Status::Stopped || heartbeat.stop().is_err())
        });
        let ended = outcome(child);
        if ended != "exited 0" {
            answer = ended;
            break;
        }
    }
    OVER.store(true, Ordering::SeqCst);
    for thread in busy {
        thread.join().unwrap();
    }
    answer
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    (folder, path)
}

fn a_forked_child_does_nothing_in_its_parents_name() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "budget=60000 interval=50");
    worker.make("pulse");
    worker.make("task the-parents 60000");
    let before = next_beat(&path);
    // Its exit code is the number of its threads.
    worker.ask("fork use", "exited 1");
    let after = next_beat(&path);
    assert_eq!((after.id, after.pid, after.status), (before.id, worker.pid(), Status::Busy));
    assert_eq!((after.pulse, &after.tasks), (before.pulse, &before.tasks));
    // As many beats as there is time for: nobody beats beside the parent.
    let most = (after.at_mono_ms - before.at_mono_ms) / after.interval_ms + 1;
    assert!(after.seq - before.seq <= most, "{} beats in {most} intervals", after.seq - before.seq);
    assert_eq!(verdict(&path), Verdict::Alive);
    worker.make("end");
    worker.make("drop");
    assert!(!path.exists());
}

fn a_forked_child_that_exits_with_the_handle_alive_removes_nothing() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "interval=600000 promise=1200000");
    let before = fs::read(&path).unwrap();
    worker.ask("fork exit", "exited 5");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(worker.finish("exit 0").code(), Some(0));
    assert!(!path.exists(), "the parent still cleans up");
}

fn a_forked_child_that_lives_on_does_not_keep_its_parent_alive() {
    let (folder, path) = place();
    let end = folder.path().join("end");
    let mut worker = Worker::beating(&path);
    let child: u32 = worker.answer(&format!("fork linger:{}", end.display())).parse().unwrap();
    worker.kill();
    assert_eq!(verdict(&path), Verdict::Gone);
    let last = record(&path);
    assert!(Path::new(&format!("/proc/{child}")).exists());
    fs::write(&end, "").unwrap();
    until("the child is gone", || (!Path::new(&format!("/proc/{child}")).exists()).then_some(()));
    assert_eq!(record(&path), last, "the child wrote or removed its parent's file");
}

fn a_forked_child_may_beat_for_itself_elsewhere() {
    let (folder, path) = place();
    let own = folder.path().join("child");
    let mut worker = Worker::beating(&path);
    let child: u32 = worker.answer(&format!("fork own:{}", own.display())).parse().unwrap();
    until("the child beats", || own.exists().then_some(()));
    let (parents, childs) = (next_beat(&path), next_beat(&own));
    assert_eq!((parents.pid, childs.pid), (worker.pid(), child));
    assert_ne!(parents.id, childs.id);
    assert_eq!((verdict(&path), verdict(&own)), (Verdict::Alive, Verdict::Alive));
    fs::write(own.with_extension("end"), "").unwrap();
    until("the child has cleaned up", || (!own.exists()).then_some(()));
    assert_eq!(next_beat(&path).id, parents.id);
}

fn a_forked_child_may_not_take_its_parents_file() {
    let (_folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.ask(&format!("fork take:{}", path.display()), "exited 0");
    assert_eq!(next_beat(&path).pid, worker.pid());
}

fn no_child_hangs_however_busy_the_moment_of_its_fork() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "interval=10");
    worker.make("fork storm");
    assert_eq!(next_beat(&path).pid, worker.pid());
    assert_eq!(verdict(&path), Verdict::Alive);
}
