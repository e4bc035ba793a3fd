//! The beat file: what it may replace, who may hold it, and how it looks.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use heartbeat::verdict::Verdict;
use heartbeat::{ErrorKind, Heartbeat};
use libtest_mimic::Trial;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use tempfile::TempDir;

use crate::{Worker, next_beat, record, trial, until, verdict};

pub fn trials() -> Vec<Trial> {
    let root = Uid::effective().is_root();
    vec![
        trial!(what_is_no_regular_file_is_refused_and_left_as_it_was),
        trial!(a_file_of_another_user_is_refused).with_ignored_flag(!root),
        trial!(an_unprivileged_worker_is_refused_the_file_of_another_user).with_ignored_flag(!root),
        trial!(a_second_worker_is_refused_and_told_by_whom),
        trial!(a_worker_that_replaces_its_program_takes_its_own_file_over),
        trial!(a_stopped_holder_still_holds_its_file),
        trial!(of_two_that_start_at_the_same_instant_exactly_one_wins),
        trial!(the_file_of_a_dead_incarnation_is_replaced_and_its_draft_removed),
        trial!(leftovers_of_our_own_are_replaced_whatever_they_hold),
        trial!(a_file_that_others_may_write_to_is_replaced_by_one_that_they_may_not),
        trial!(the_mode_is_exact_whatever_the_umask),
        trial!(a_beat_leaves_nothing_beside_its_file),
    ]
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    (folder, path)
}

fn refusal(path: &Path) -> (ErrorKind, String) {
    let error = Heartbeat::builder().environment(|_| None).file(path).start().expect_err("not refused");
    (error.kind(), error.to_string())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

type Make<'a> = &'a dyn Fn(&Path);

fn what_is_no_regular_file_is_refused_and_left_as_it_was() {
    let (folder, path) = place();
    let target = folder.path().join("target");
    let nowhere = folder.path().join("nowhere");
    fs::write(&target, "precious").unwrap();
    let kinds: [(&str, Make<'_>, &str); 6] = [
        ("a link", &|path| symlink(&target, path).unwrap(), "it is a symbolic link"),
        ("a dangling link", &|path| symlink(&nowhere, path).unwrap(), "it is a symbolic link"),
        ("a link to a device", &|path| symlink("/dev/null", path).unwrap(), "it is a symbolic link"),
        ("a FIFO", &|path| mkfifo(path, Mode::S_IRWXU).unwrap(), "it is not a regular file"),
        ("a folder", &|path| fs::create_dir(path).unwrap(), "it is not a regular file"),
        ("a socket", &|path| drop(UnixListener::bind(path).unwrap()), "it is not a regular file"),
    ];
    for (kind, make, reason) in kinds {
        make(&path);
        let before = fs::symlink_metadata(&path).unwrap();
        let (error, text) = refusal(&path);
        assert_eq!(error, ErrorKind::Unsafe, "{kind}: {text}");
        assert_eq!(text, format!("heartbeat: {} is refused: {reason}", path.display()), "{kind}");
        let after = fs::symlink_metadata(&path).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "{kind}");
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    }
    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
    assert!(!nowhere.exists(), "a dangling link was followed");
}

fn a_file_of_another_user_is_refused() {
    let (_folder, path) = place();
    fs::write(&path, "").unwrap();
    chown(&path, Some(65_534), None).unwrap();
    let (kind, text) = refusal(&path);
    assert_eq!(kind, ErrorKind::Unsafe);
    assert!(text.ends_with("it belongs to user 65534"), "{text}");
    assert!(path.exists());
}

fn an_unprivileged_worker_is_refused_the_file_of_another_user() {
    let (folder, path) = place();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    // Written by its owner, read by nobody else.
    File::create(&path).unwrap().set_permissions(Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(65_533), None).unwrap();
    let mut worker = Worker::of(unprivileged_command(folder.path()));
    let answer = worker.answer(&format!("start file={}", path.display()));
    assert!(answer.starts_with("unsafe: ") && answer.ends_with("it belongs to user 65533"), "{answer}");
    chown(&path, Some(65_534), None).unwrap();
    worker.start(&path, "");
    assert_eq!(fs::metadata(&path).unwrap().uid(), 65_534);
}

/// A worker of the user 65534, from a copy of this program that this user can reach.
pub fn unprivileged_command(folder: &Path) -> std::process::Command {
    let program = folder.join("worker");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = std::process::Command::new(program);
    command.arg("--worker").uid(65_534).gid(65_534);
    command
}

fn a_second_worker_is_refused_and_told_by_whom() {
    let (_folder, path) = place();
    let mut first = Worker::beating(&path);
    let id = record(&path).id;
    let mut second = Worker::spawn();
    let answer = second.answer(&format!("start file={}", path.display()));
    let pid = first.pid();
    let expected = format!(
        "held {pid}: heartbeat: {} is refused: it is held by another living worker, pid {pid}",
        path.display()
    );
    assert_eq!(answer, expected);
    assert_eq!(next_beat(&path).id, id, "the first one beats on");
    // Also within one process.
    let again = first.answer(&format!("start file={}", path.display()));
    assert!(again.starts_with(&format!("held {pid}: ")), "{again}");
    assert_eq!(next_beat(&path).id, id);
}

fn a_worker_that_replaces_its_program_takes_its_own_file_over() {
    let (_folder, path) = place();
    let mut worker = Worker::beating(&path);
    let before = record(&path);
    worker.make("exec");
    worker.start(&path, "");
    let now = record(&path);
    assert_eq!((now.pid, now.pid_start), (before.pid, before.pid_start), "it is the same process");
    assert!(now.id != before.id && verdict(&path) == Verdict::Alive);
    worker.make("stop");
    assert!(!path.exists());
}

fn a_stopped_holder_still_holds_its_file() {
    let (_folder, path) = place();
    let holder = Worker::beating_with(&path, "promise=100");
    holder.signal(nix::sys::signal::Signal::SIGSTOP);
    holder.wait_stopped();
    until("the holder is silent", || (verdict(&path) == Verdict::Silent).then_some(()));
    let answer = Worker::spawn().answer(&format!("start file={}", path.display()));
    assert!(answer.starts_with(&format!("held {}: ", holder.pid())), "{answer}");
}

fn of_two_that_start_at_the_same_instant_exactly_one_wins() {
    let (_folder, path) = place();
    let mut workers = [Worker::spawn(), Worker::spawn()];
    let start = format!("start file={}", path.display());
    let mut won = [0, 0];
    for round in 0..50 {
        if round % 2 == 1 {
            let dead = Worker::beating(&path);
            dead.kill();
        }
        for worker in &mut workers {
            worker.tell(&start);
        }
        let answers = [workers[0].hear(), workers[1].hear()];
        let winner = answers.iter().position(|answer| answer == "started").expect("nobody won");
        let pid = workers[winner].pid();
        assert!(answers[1 - winner].starts_with(&format!("held {pid}: ")), "round {round}: {answers:?}");
        assert_eq!(record(&path).pid, pid);
        workers[winner].make("drop");
        assert!(!path.exists());
        won[winner] += 1;
    }
    println!("50 starts at the same instant, won {won:?}");
}

fn the_file_of_a_dead_incarnation_is_replaced_and_its_draft_removed() {
    let (folder, path) = place();
    let dead = Worker::beating(&path);
    dead.kill();
    let id = record(&path).id;
    let draft = folder.path().join(format!(".beat.{id}"));
    fs::write(&draft, "half a rec").unwrap();
    let other = folder.path().join(".beat.0123");
    fs::write(&other, "somebody else's").unwrap();
    let _worker = Worker::beating(&path);
    let now = record(&path);
    assert!(now.id != id && verdict(&path) == Verdict::Alive);
    assert!(!draft.exists(), "the dead one's draft is still there");
    assert!(other.exists(), "what is not the dead one's was removed");
}

fn leftovers_of_our_own_are_replaced_whatever_they_hold() {
    let (_folder, path) = place();
    for leftover in [&b""[..], b"garbage", b"{\"v\":1}", b"{\"v\":2}", &[0xff; 10_000]] {
        fs::write(&path, leftover).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let mut worker = Worker::beating(&path);
        assert_eq!(verdict(&path), Verdict::Alive);
        worker.make("stop");
    }
}

fn a_file_that_others_may_write_to_is_replaced_by_one_that_they_may_not() {
    let (_folder, path) = place();
    for loose in [0o660, 0o602, 0o666, 0o777] {
        fs::write(&path, "anybody's").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
        assert_eq!(verdict(&path), Verdict::Unsafe);
        let mut worker = Worker::beating(&path);
        assert_eq!(mode(&path), 0o600);
        // Loosened under a living worker, it is tight again with the next beat.
        fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
        until("the mode is tight again", || (mode(&path) == 0o600).then_some(()));
        worker.make("stop");
    }
}

fn the_mode_is_exact_whatever_the_umask() {
    let (_folder, path) = place();
    for umask in ["000", "022", "077"] {
        for (setting, expected) in
            [("", 0o600), ("mode=600", 0o600), ("mode=644", 0o644), ("mode=400", 0o400)]
        {
            let mut worker = Worker::spawn();
            worker.make(&format!("umask {umask}"));
            worker.start(&path, setting);
            assert_eq!(mode(&path), expected, "umask {umask}, {setting}");
            next_beat(&path);
            assert_eq!(mode(&path), expected, "umask {umask}, {setting}");
            worker.make("stop");
        }
    }
}

fn a_beat_leaves_nothing_beside_its_file() {
    let (folder, path) = place();
    let mut worker = Worker::beating(&path);
    until("some beats are made", || (record(&path).seq > 20).then_some(()));
    worker.make("stop");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
