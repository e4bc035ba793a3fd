//! What a heartbeat costs its embedder: allocations, threads, system calls.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::allocations;
use crate::worker::{State, publisher_of};
use crate::{Worker, record, trial, until};

pub fn trials() -> Vec<Trial> {
    let strace = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    vec![
        trial!(a_pulse_allocates_nothing),
        trial!(a_task_allocates_nothing_once_warm),
        trial!(the_end_of_a_task_allocates_nothing_not_even_the_first_time),
        trial!(a_beat_allocates_nothing_once_warm),
        trial!(allocations_are_counted_at_all),
        trial!(there_is_one_thread_more_and_after_the_stop_none),
        trial!(a_beat_is_one_wait_and_five_system_calls).with_ignored_flag(!strace),
        trial!(a_pulse_and_a_task_are_no_system_call).with_ignored_flag(!strace),
    ]
}

/// What the worker does for `measure WHAT`: how many allocations that took, in all its threads.
pub fn measure(state: &State, what: &str) -> String {
    let heartbeat = state.heartbeat();
    let pulses = || {
        for _ in 0..10_000 {
            heartbeat.pulse();
            heartbeat.pulse_within(Duration::from_mins(1));
        }
    };
    let tasks = || {
        for deadline in [None, Some(Duration::from_mins(1))] {
            for _ in 0..2_500 {
                let outer = heartbeat.task("outer", deadline);
                outer.held_by(std::process::id());
                heartbeat
                    .task("inner, with a name that is longer than sixty-four bytes can be", deadline)
                    .fail();
            }
        }
    };
    let beats = |count| {
        let until = heartbeat.counters().beats + count;
        while heartbeat.counters().beats < until {
            thread::sleep(Duration::from_millis(1));
        }
    };
    let held = RefCell::new((0..50).map(|_| heartbeat.task("held", None)).collect::<Vec<_>>());
    let running = heartbeat.task("a task that runs all the while", Duration::from_hours(1));
    // So each beat looks at a process too.
    running.held_by(std::process::id());
    heartbeat.pulse();
    let work: &dyn Fn() = match what {
        "pulses" => &pulses,
        "tasks" => &tasks,
        "first-ends" => &|| held.borrow_mut().clear(),
        "beats" => &|| beats(200),
        "a-vector" => &|| drop(std::hint::black_box(vec![1])),
        other => panic!("unknown measure {other}"),
    };
    // Warm: the publisher has seen this task, and this thread has had its first ones.
    beats(10);
    drop((heartbeat.task("warm", None), heartbeat.task("warm", None)));
    let before = allocations::count();
    work();
    (allocations::count() - before).to_string()
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    (folder, path)
}

#[track_caller]
fn assert_allocations(what: &str, expected: &str) {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "interval=10");
    worker.ask(&format!("measure {what}"), expected);
}

fn a_pulse_allocates_nothing() {
    assert_allocations("pulses", "0");
}

fn a_task_allocates_nothing_once_warm() {
    assert_allocations("tasks", "0");
}

fn the_end_of_a_task_allocates_nothing_not_even_the_first_time() {
    assert_allocations("first-ends", "0");
}

fn a_beat_allocates_nothing_once_warm() {
    assert_allocations("beats", "0");
}

fn allocations_are_counted_at_all() {
    assert_allocations("a-vector", "1");
}

fn there_is_one_thread_more_and_after_the_stop_none() {
    let (_folder, path) = place();
    let mut worker = Worker::spawn();
    worker.ask("pid", &worker.pid().to_string());
    let pid = worker.pid();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert_eq!(threads(), 1);
    worker.start(&path, "");
    until("some beats are made", || (record(&path).seq > 5).then_some(()));
    worker.make("task job 60000");
    assert_eq!(threads(), 2);
    assert!(worker.publisher().exists());
    worker.make("stop");
    until("the thread has ended", || (threads() == 1).then_some(()));
}

/// A worker whose system calls are written down. The path of what is written comes with it.
fn traced(folder: &TempDir) -> (Worker, PathBuf) {
    let trace = folder.path().join("trace");
    let program = Worker::command();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(&trace).arg(program.get_program());
    command.args(program.get_args());
    (Worker::of(command), trace)
}

/// The names of one thread's system calls, in order.
fn calls(trace: &str, thread: &str) -> Vec<String> {
    trace
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(of, _)| *of == thread)
        // The rest of a call during which another thread made one stands on a line of its own.
        .filter(|(_, call)| !call.trim_start().starts_with("<..."))
        // Rust's own check in debug builds, when a descriptor is closed.
        .filter(|(_, call)| !(cfg!(debug_assertions) && call.contains("F_GETFD")))
        .filter_map(|(_, call)| Some(call.trim_start().split_once('(')?.0.to_owned()))
        .collect()
}

fn a_beat_is_one_wait_and_five_system_calls() {
    let (folder, path) = place();
    let (mut worker, trace) = traced(&folder);
    worker.start(&path, "interval=50 budget=60000");
    worker.make("pulse");
    worker.make("task job 60000");
    let pid = worker.answer("pid");
    let publisher = publisher_of(pid.parse().unwrap());
    let first = record(&path).seq;
    until("some beats are made", || (record(&path).seq >= first + 20).then_some(()));
    worker.finish("exit 0");
    let calls = calls(&fs::read_to_string(trace).unwrap(), publisher.file_name().unwrap().to_str().unwrap());
    let beats: Vec<_> = calls.split(|call| call == "poll").collect();
    assert!(beats.len() > 20, "{calls:?}");
    // Before the first wait stands the start, after the last one the end.
    for beat in &beats[1..beats.len() - 1] {
        assert_eq!(*beat, ["openat", "fallocate", "write", "close", "renameat"], "of {calls:?}");
    }
    println!("{} beats of one poll and {:?} each", beats.len() - 2, beats[1]);
}

fn a_pulse_and_a_task_are_no_system_call() {
    let (folder, path) = place();
    let (mut worker, trace) = traced(&folder);
    worker.start(&path, "interval=600000 promise=1200000");
    let pid = worker.answer("pid");
    for what in ["pulse", "pulse 60000", "task job 60000", "held 1", "end"] {
        worker.make(what);
    }
    worker.finish("exit 0");
    let calls = calls(&fs::read_to_string(trace).unwrap(), &pid);
    let reads = calls.iter().enumerate().filter(|(_, call)| *call == "read").map(|(index, _)| index);
    let reads: Vec<_> = reads.collect();
    // From the last six commands read: five are done, each with nothing between its reading and its answer.
    let last = &calls[reads[reads.len() - 6]..=reads[reads.len() - 1]];
    let expected =
        ["read", "write", "read", "write", "read", "write", "read", "write", "read", "write", "read"];
    assert_eq!(last, expected, "of {calls:?}");
}
