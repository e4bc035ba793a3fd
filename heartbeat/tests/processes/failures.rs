//! A sink that fails: survived, counted, told, and healed by itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use heartbeat::observe::{Owner, observe};
use heartbeat::verdict::Verdict;
use libtest_mimic::Trial;
use nix::unistd::Uid;
use tempfile::TempDir;

use crate::files::unprivileged_command;
use crate::{Worker, judged, record, trial, until, verdict};

pub fn trials() -> Vec<Trial> {
    let root = Uid::effective().is_root();
    let mounts = root && Worker::spawn().answer("unshare") == "done";
    vec![
        trial!(a_folder_that_is_not_there_yet_is_no_error_and_beats_come_once_it_is),
        trial!(a_deleted_folder_is_survived_counted_and_healed),
        trial!(a_folder_that_may_not_be_written_to_is_survived_counted_and_healed).with_ignored_flag(!root),
        trial!(a_full_disk_is_survived_without_silence_counted_and_healed).with_ignored_flag(!mounts),
        trial!(a_disk_that_is_full_from_the_start_is_no_error_and_healed).with_ignored_flag(!mounts),
        trial!(a_file_system_that_turns_read_only_is_survived_counted_and_healed).with_ignored_flag(!mounts),
        trial!(a_failure_to_remove_the_file_is_told_by_the_stop).with_ignored_flag(!mounts),
        trial!(a_panic_in_the_publishers_thread_is_contained_and_counted)
            .with_ignored_flag(!cfg!(feature = "tracing")),
    ]
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    (folder, path)
}

/// Waits until some more beats have been made, and asserts that each of them failed to become a file.
#[track_caller]
fn assert_failing(worker: &mut Worker, error: &str) {
    let before = until("the first failure", || Some(worker.counters()).filter(|counters| counters[1] > 0));
    let after =
        until("more failures", || Some(worker.counters()).filter(|counters| counters[1] >= before[1] + 5));
    assert!(
        after[0] - before[0] <= after[1] - before[1] + 1,
        "some beats did not fail: {before:?}, {after:?}"
    );
    assert_eq!(after[2], 0, "panics");
    let told = worker.answer("error");
    assert!(told.contains(error), "{told}");
}

#[track_caller]
fn assert_healed(worker: &mut Worker, path: &Path) {
    until("it is alive again", || (verdict(path) == Verdict::Alive).then_some(()));
    let before = worker.counters();
    let after =
        until("more beats", || Some(worker.counters()).filter(|counters| counters[0] >= before[0] + 5));
    assert_eq!(after[1..], before[1..], "it still fails");
}

fn a_folder_that_is_not_there_yet_is_no_error_and_beats_come_once_it_is() {
    let (folder, _) = place();
    let path = folder.path().join("later/beat");
    let mut worker = Worker::beating(&path);
    worker.make("pulse");
    assert_failing(&mut worker, "No such file or directory");
    assert_eq!(verdict(&path), Verdict::Missing);
    fs::create_dir(path.parent().unwrap()).unwrap();
    assert_healed(&mut worker, &path);
    // Claimed late, it is held all the same.
    let answer = Worker::spawn().answer(&format!("start file={}", path.display()));
    assert!(answer.starts_with(&format!("held {}: ", worker.pid())), "{answer}");
    worker.make("stop");
    assert!(!path.exists());
}

fn a_deleted_folder_is_survived_counted_and_healed() {
    let (folder, _) = place();
    let path = folder.path().join("deleted/beat");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let mut worker = Worker::beating(&path);
    // A beat that is being made may stand in the way of one attempt.
    until("the folder is deleted", || fs::remove_dir_all(path.parent().unwrap()).ok());
    assert_failing(&mut worker, "No such file or directory");
    assert_eq!(verdict(&path), Verdict::Missing);
    fs::create_dir(path.parent().unwrap()).unwrap();
    assert_healed(&mut worker, &path);
    worker.make("stop");
    assert!(!path.exists());
}

fn a_folder_that_may_not_be_written_to_is_survived_counted_and_healed() {
    let (home, _) = place();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let folder = home.path().join("closed");
    let path = folder.join("beat");
    fs::create_dir(&folder).unwrap();
    let allow = |mode| fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let mut worker = Worker::of(unprivileged_command(home.path()));
    worker.start(&path, "promise=200");
    assert_failing(&mut worker, "Permission denied");
    assert_eq!(verdict(&path), Verdict::Missing);
    allow(0o777);
    until("the first beat", || path.exists().then_some(()));
    let look = || observe(&path, Owner::User(65_534));
    assert_eq!(look().judge(None).verdict, Verdict::Alive);
    // Closed again: no new file can be had, so the last one is written over, and nobody takes it for silent.
    allow(0o555);
    let failed = worker.counters()[1];
    until("beats fail again", || (worker.counters()[1] > failed + 20).then_some(()));
    assert_eq!(look().judge(None).verdict, Verdict::Alive);
    allow(0o777);
    let inode = fs::metadata(&path).unwrap().ino();
    until("there is a new file", || (fs::metadata(&path).unwrap().ino() != inode).then_some(()));
}

/// A worker on a file system of its own with room for two pages, and the path to its beat file from here.
fn on_a_small_disk(folder: &TempDir) -> (Worker, PathBuf, PathBuf) {
    let mut worker = Worker::spawn();
    worker.make("unshare");
    worker.make(&format!("mount {}", folder.path().display()));
    let inside = folder.path().join("beat");
    let outside = PathBuf::from(format!("/proc/{}/root{}", worker.pid(), inside.display()));
    (worker, inside, outside)
}

/// Takes all the room that is left.
fn fill(path: &Path) -> PathBuf {
    let filler = path.with_file_name("filler");
    let full = until("the disk is full", || {
        let taken = fs::metadata(&filler).map_or(0, |metadata| metadata.len());
        fs::write(&filler, vec![b'x'; usize::try_from(taken).unwrap() + 4096]).err()
    });
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    filler
}

fn a_full_disk_is_survived_without_silence_counted_and_healed() {
    let (folder, _) = place();
    let (mut worker, inside, path) = on_a_small_disk(&folder);
    worker.start(&inside, "promise=1000");
    assert_eq!(verdict(&path), Verdict::Alive);
    let filler = fill(&path);
    assert_failing(&mut worker, "No space left on device");
    let last = record(&path);
    let now = until("the beats go on in place", || Some(record(&path)).filter(|now| now.seq > last.seq + 5));
    assert_eq!(now.id, last.id);
    assert_eq!(verdict(&path), Verdict::Alive);
    fs::remove_file(filler).unwrap();
    assert_healed(&mut worker, &path);
    worker.make("stop");
    assert_eq!(verdict(&path), Verdict::Missing);
}

fn a_disk_that_is_full_from_the_start_is_no_error_and_healed() {
    let (folder, _) = place();
    let (mut worker, inside, path) = on_a_small_disk(&folder);
    let filler = fill(&path);
    worker.start(&inside, "");
    assert_failing(&mut worker, "No space left on device");
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert!(left.len() <= 2, "drafts pile up: {left:?}");
    fs::remove_file(filler).unwrap();
    assert_healed(&mut worker, &path);
}

fn a_file_system_that_turns_read_only_is_survived_counted_and_healed() {
    let (folder, _) = place();
    let (mut worker, inside, path) = on_a_small_disk(&folder);
    worker.start(&inside, "promise=300");
    let turn =
        |worker: &mut Worker, how| worker.answer(&format!("remount {} {how}", folder.path().display()));
    // Refused while a beat is being written.
    until("it is read-only", || (turn(&mut worker, "ro") == "done").then_some(()));
    assert_failing(&mut worker, "Read-only file system");
    until("it is silent", || (verdict(&path) == Verdict::Silent).then_some(()));
    assert_eq!(turn(&mut worker, "rw"), "done");
    assert_healed(&mut worker, &path);
    worker.make("stop");
    assert_eq!(verdict(&path), Verdict::Missing);
}

fn a_failure_to_remove_the_file_is_told_by_the_stop() {
    let (folder, _) = place();
    let (mut worker, inside, path) = on_a_small_disk(&folder);
    worker.start(&inside, "");
    let remount = format!("remount {} ro", folder.path().display());
    until("it is read-only", || (worker.answer(&remount) == "done").then_some(()));
    let told = worker.answer("stop");
    assert!(told.starts_with(&format!("heartbeat: cannot remove {}: ", inside.display())), "{told}");
    assert!(told.contains("Read-only file system"), "{told}");
    assert!(path.exists());
}

fn a_panic_in_the_publishers_thread_is_contained_and_counted() {
    let (folder, _) = place();
    let path = folder.path().join("later/beat");
    let mut worker = Worker::spawn();
    worker.make("subscribe");
    // The first failure is told, and telling panics.
    worker.start(&path, "");
    let counters = until("the first panic", || Some(worker.counters()).filter(|counters| counters[2] > 0));
    assert_eq!(counters[2], 1);
    until("beats go on", || (worker.counters()[0] > counters[0] + 5).then_some(()));
    fs::create_dir(path.parent().unwrap()).unwrap();
    until("it is alive", || (verdict(&path) == Verdict::Alive).then_some(()));
    until("the news that it is written again panics too", || (worker.counters()[2] == 2).then_some(()));
    let last = record(&path).seq;
    until("beats go on", || (record(&path).seq > last + 5).then_some(()));
    assert_eq!(judged(&path).0, Verdict::Alive);
    worker.make("stop");
    assert!(!path.exists());
}
