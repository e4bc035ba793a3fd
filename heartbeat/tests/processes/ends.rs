//! How a worker ends, and what becomes of its file.

use std::fs;
use std::path::{Path, PathBuf};

use heartbeat::verdict::Verdict;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Worker, record, trial, verdict};

pub fn trials() -> Vec<Trial> {
    vec![
        trial!(the_file_is_removed_by_a_stop_and_the_worker_stays_stopped),
        trial!(the_file_is_removed_when_the_handle_is_dropped),
        trial!(the_file_is_removed_at_exit_with_the_handle_alive),
        trial!(the_file_is_removed_at_exit_with_the_handle_leaked),
        trial!(the_file_is_removed_when_main_returns_with_the_handle_leaked),
        trial!(the_file_is_removed_when_main_panics),
        trial!(the_file_is_removed_on_sigterm_with_a_handler),
        trial!(the_file_of_a_killed_worker_stays),
        trial!(a_file_that_another_worker_took_over_is_not_removed),
        trial!(a_file_that_is_gone_already_is_no_error_at_the_stop),
        trial!(a_stop_during_a_task_and_a_drain_is_a_stop),
    ]
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    (folder, path)
}

#[track_caller]
fn assert_nothing_left(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?} is left");
}

fn the_file_is_removed_by_a_stop_and_the_worker_stays_stopped() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.ask("status", "idle");
    worker.make("stop");
    assert_nothing_left(folder.path());
    assert_eq!(verdict(&path), Verdict::Missing);
    for command in ["ready", "drain 1000", "pulse", "task job 1000", "end", "stop"] {
        worker.make(command);
        worker.ask("status", "stopped");
    }
    assert_nothing_left(folder.path());
    worker.make("drop");
    // The same process may begin anew.
    worker.start(&path, "");
    assert_eq!(verdict(&path), Verdict::Alive);
}

fn the_file_is_removed_when_the_handle_is_dropped() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.make("drop");
    assert_nothing_left(folder.path());
}

fn the_file_is_removed_at_exit_with_the_handle_alive() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    assert_eq!(worker.finish("exit 3").code(), Some(3));
    assert_nothing_left(folder.path());
}

fn the_file_is_removed_at_exit_with_the_handle_leaked() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.make("leak");
    assert_eq!(verdict(&path), Verdict::Alive);
    assert_eq!(worker.finish("exit 4").code(), Some(4));
    assert_nothing_left(folder.path());
}

fn the_file_is_removed_when_main_returns_with_the_handle_leaked() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.make("leak");
    assert_eq!(worker.finish("return").code(), Some(7));
    assert_nothing_left(folder.path());
}

fn the_file_is_removed_when_main_panics() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    assert_eq!(worker.finish("panic").code(), Some(101));
    assert_nothing_left(folder.path());
}

fn the_file_is_removed_on_sigterm_with_a_handler() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.ask("await-term", "waiting");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.child.wait().unwrap().code(), Some(0));
    assert_nothing_left(folder.path());
}

fn the_file_of_a_killed_worker_stays() {
    let (_folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.kill();
    worker.child.wait().unwrap();
    assert_eq!(record(&path).pid, worker.pid());
    assert_eq!(verdict(&path), Verdict::Gone);
}

fn a_file_that_another_worker_took_over_is_not_removed() {
    let (folder, path) = place();
    let elsewhere = folder.path().join("elsewhere");
    let _other = Worker::beating(&elsewhere);
    for end in ["stop", "drop"] {
        // No beat comes between the taking and the end.
        let mut worker = Worker::beating_with(&path, "interval=600000 promise=1200000");
        let taken = record(&elsewhere).id;
        fs::copy(&elsewhere, &path).unwrap();
        worker.make(end);
        assert_eq!(record(&path).id, taken, "{end}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "no record at all").unwrap();
        drop(worker);
        assert_eq!(fs::read_to_string(&path).unwrap(), "no record at all");
        fs::remove_file(&path).unwrap();
    }
}

fn a_file_that_is_gone_already_is_no_error_at_the_stop() {
    let (folder, path) = place();
    let mut worker = Worker::beating_with(&path, "interval=600000 promise=1200000");
    fs::remove_file(&path).unwrap();
    worker.make("stop");
    assert_nothing_left(folder.path());
}

fn a_stop_during_a_task_and_a_drain_is_a_stop() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    worker.make("task job 60000");
    worker.ask("status", "busy");
    worker.make("drain 60000");
    worker.ask("status", "draining");
    worker.make("stop");
    worker.ask("status", "stopped");
    worker.make("end");
    assert_nothing_left(folder.path());
}
