//! `checker watch` as a whole: real workers in a folder, told as lines and shown in a real terminal.

mod screen;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use screen::Screen;
use tempfile::TempDir;

/// What a busy machine may take for itself, beside a verdict's own budget.
const GRACE: Duration = Duration::from_secs(3);

const CHECKER: &str = env!("CARGO_BIN_EXE_checker");

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn watch(folder: &Path) -> Command {
    let mut command = Command::new(CHECKER);
    command.args(["watch", "--dir"]).arg(folder).env_remove("NO_COLOR");
    command
}

/// A worker that beats every 100 ms, with a loop budget of 300 ms.
struct Worker {
    process: Child,
    file: PathBuf,
}

impl Worker {
    fn start(folder: &Path, name: &str) -> Self {
        let file = folder.join(name);
        let mut command = Command::new(CHECKER);
        command.args(["demo-worker", "--cluster", "tests", "--worker", name, "--file"]).arg(&file);
        command.args(["--interval", "100ms", "--loop-budget", "300ms"]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a worker");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("its first line");
        assert!(line.starts_with("beating "), "{line}");
        Self { process, file }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().expect("a pipe"), "{line}").expect("it listens");
    }

    fn kill(&self) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only where it has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `checker watch` without a terminal.
struct Lines {
    process: Child,
    output: Receiver<String>,
    all: Vec<String>,
}

impl Lines {
    fn of(folder: &Path) -> Self {
        let mut process = watch(folder).stdout(Stdio::piped()).spawn().expect("it starts");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, output: lines, all: Vec::new() }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it is there");
    }

    /// Waits for a line that has `text` after its time.
    fn expect(&mut self, text: &str, within: Duration) -> String {
        let until = Instant::now() + within;
        loop {
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.all.push(line.clone());
                    let (time, rest) = line.split_once("  ").expect("a time and a sentence");
                    assert!(time.len() == 20 && time.ends_with('Z'), "{line}");
                    if rest.starts_with(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} within {within:?}: {:#?}", self.all),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended: {:#?}", self.all),
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Both fail only where it has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn workers_that_come_wedge_die_and_stop_are_told_in_time() {
    let folder = folder();
    let mut lines = Lines::of(folder.path());
    let mut first = Worker::start(folder.path(), "first");
    lines.expect("first is alive: ", GRACE);
    first.say("wedge");
    lines.expect("first is wedged: its loop was due ", Duration::from_millis(300) + GRACE);
    let second = Worker::start(folder.path(), "second");
    lines.expect("second is alive: ", GRACE);
    second.kill();
    lines.expect("second is gone: its process ", GRACE);
    let mut third = Worker::start(folder.path(), "third");
    lines.expect("third is alive: ", GRACE);
    third.say("drain 60s");
    lines.expect("third is draining: ", GRACE);
    third.say("stop");
    lines.expect("third is missing: ", GRACE);
    drop(third);
    let _third = Worker::start(folder.path(), "third");
    lines.expect("third is alive: ", GRACE);
    assert_eq!(lines.all.len(), 8, "{:#?}", lines.all);
}

#[test]
fn what_is_no_worker_is_told_by_its_name_and_drafts_are_not() {
    let folder = folder();
    let worker = Worker::start(folder.path(), "worker");
    fs::write(folder.path().join("garbage"), "no record").expect("written");
    symlink(&worker.file, folder.path().join("link")).expect("linked");
    fs::create_dir(folder.path().join("folder")).expect("made");
    fs::write(folder.path().join(".worker.0123"), "draft").expect("written");
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"bad\xff\x1b[2J")), "").expect("written");
    let mut lines = Lines::of(folder.path());
    lines.expect("worker is alive: ", GRACE);
    fs::write(folder.path().join("late"), "no record").expect("written");
    lines.expect("late is corrupt: there is no record in it: ", GRACE);
    let all = lines.all.join("\n");
    for told in ["  garbage is corrupt: ", "  link is unsafe: ", "bad\u{fffd}\\u{1b}[2J is corrupt: "] {
        assert!(all.contains(told), "no {told:?} in {all}");
    }
    assert_eq!(lines.all.len(), 5, "{all}");
}

#[test]
fn a_record_that_is_overwritten_is_corrupt_until_the_next_beat() {
    let folder = folder();
    let file = folder.path().join("copy");
    let worker = Worker::start(folder.path(), ".hidden");
    fs::copy(&worker.file, &file).expect("a record");
    let mut lines = Lines::of(folder.path());
    lines.expect(".hidden is alive: ", GRACE);
    fs::write(&file, "garbage").expect("written");
    lines.expect("copy is corrupt: ", GRACE);
    fs::copy(&worker.file, &file).expect("a record");
    lines.expect(".hidden is alive: ", GRACE);
}

#[test]
fn a_folder_that_vanishes_and_comes_back_is_watched_again() {
    let outside = folder();
    let folder = outside.path().join("beats");
    fs::create_dir(&folder).expect("made");
    let mut lines = Lines::of(&folder);
    let _old = Worker::start(&folder, "old");
    lines.expect("old is alive: ", GRACE);
    fs::rename(&folder, outside.path().join("away")).expect("moved");
    lines.expect("old is missing: ", GRACE);
    fs::create_dir(&folder).expect("made");
    let _new = Worker::start(&folder, "new");
    lines.expect("new is alive: ", GRACE);
    fs::remove_dir_all(&folder).expect("removed");
    lines.expect("new is missing: ", GRACE);
}

#[test]
fn thousands_of_files_are_told_and_a_change_among_them_is_found() {
    let folder = folder();
    let record = {
        let worker = Worker::start(folder.path(), "worker");
        fs::read(&worker.file).expect("a record")
    };
    for number in 0..3_000 {
        fs::write(folder.path().join(format!("f{number:04}")), &record).expect("written");
    }
    let mut lines = Lines::of(folder.path());
    for _ in 0..3_000 {
        lines.expect("worker is gone: ", GRACE * 5);
    }
    fs::write(folder.path().join("f1234"), "garbage").expect("written");
    lines.expect("f1234 is corrupt: ", GRACE);
}

/// Fills the queue in which the kernel keeps events for whoever watches the folder, and does not read them.
fn overflow(folder: &Path) {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let most: usize = most.trim().parse().expect("a number");
    let (here, there) = (folder.join(".here"), folder.join(".there"));
    fs::write(&here, "").expect("written");
    // Each way is two events, and none is like the one before it, so that the kernel keeps them all.
    for _ in 0..most / 4 + 500 {
        fs::rename(&here, &there).expect("renamed");
        fs::rename(&there, &here).expect("renamed");
    }
}

#[test]
fn events_that_the_kernel_has_lost_are_made_up_for() {
    let folder = folder();
    let worker = Worker::start(folder.path(), ".hidden");
    let (stays, stops) = (folder.path().join("stays"), folder.path().join("stops"));
    fs::copy(&worker.file, &stays).expect("a record");
    fs::copy(&worker.file, &stops).expect("a record");
    let mut lines = Lines::of(folder.path());
    lines.expect(".hidden is alive: ", GRACE);
    lines.expect(".hidden is alive: ", GRACE);
    lines.signal(Signal::SIGSTOP);
    overflow(folder.path());
    fs::remove_file(&stops).expect("removed");
    fs::write(&stays, "garbage").expect("written");
    fs::write(folder.path().join("late"), "garbage").expect("written");
    lines.signal(Signal::SIGCONT);
    // Before the folder is listed without any reason; in the order of their names.
    lines.expect("late is corrupt: ", GRACE);
    lines.expect("stays is corrupt: ", GRACE);
    lines.expect(".hidden is missing: ", GRACE);
}

#[test]
fn a_folder_that_is_not_there_is_one_clear_line_and_status_1() {
    let folder = folder();
    let output = watch(&folder.path().join("none")).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.lines().count() == 1 && told.contains("none cannot be watched: No such file"), "{told}");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    assert_eq!(watch(&file).output().expect("it starts").status.code(), Some(1));
    let output = watch(folder.path()).args(["--owner", "no-such-user"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn lines_that_nobody_reads_end_the_watch_quietly() {
    let folder = folder();
    let _worker = Worker::start(folder.path(), "worker");
    let mut process =
        watch(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
    output.read_line(&mut String::new()).expect("a line");
    drop(output);
    let mut told = String::new();
    process.stderr.take().expect("a pipe").read_to_string(&mut told).expect("read");
    assert_eq!((process.wait().expect("its status").code(), told.as_str()), (Some(0), ""));
}

#[test]
fn the_terminal_shows_workers_live_and_is_restored_by_q() {
    let folder = folder();
    let mut worker = Worker::start(folder.path(), "worker-1");
    let mut screen = Screen::start(&mut watch(folder.path()), 80, 24);
    let line = screen.wait_for(&["worker-1", "alive", "idle"]);
    assert!(line.starts_with("› "), "{line}");
    assert!(screen.look(|screen| screen.alternate_screen() && screen.hide_cursor()));
    worker.say("task 60s 120s");
    screen.wait_for(&["worker-1", "alive", "busy", "in 1m long job"]);
    worker.say("wedge");
    screen.wait_for(&["worker-1", "wedged"]);
    screen.wait_for(&["worker-1 is wedged: its loop was due"]);
    let _second = Worker::start(folder.path(), "worker-2");
    screen.wait_for(&["2 workers   1 wedged   1 alive"]);
    assert!(screen.is_coloured());
    screen.press("q");
    assert!(screen.wait().success());
    assert!(screen.is_restored());
}

#[test]
fn the_terminal_follows_its_size_and_its_keys() {
    let folder = folder();
    for number in 0..100 {
        fs::write(folder.path().join(format!("file{number:02}")), "").expect("written");
    }
    let mut screen = Screen::start(&mut watch(folder.path()), 80, 24);
    screen.wait_for(&["1-16 of 100"]);
    screen.press("\x1b[F");
    screen.wait_for(&["› file99"]);
    screen.wait_for(&["85-100 of 100"]);
    screen.resize(120, 40);
    screen.wait_for(&["69-100 of 100"]);
    screen.press("\x1b[5~");
    screen.wait_for(&["› file67"]);
    screen.resize(30, 8);
    screen.wait_for(&["› file67"]);
    screen.resize(80, 24);
    screen.wait_for(&["68-83 of 100"]);
    screen.press("\x1b[H");
    screen.wait_for(&["› file00"]);
    screen.press("\x03");
    assert!(screen.wait().success());
    assert!(screen.is_restored());
}

#[test]
fn a_signal_ends_the_watch_and_the_terminal_is_restored() {
    let folder = folder();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut screen = Screen::start(&mut watch(folder.path()), 80, 24);
        screen.wait_for(&["no beat files yet"]);
        screen.signal(signal);
        assert_eq!(screen.wait().signal(), Some(signal as i32));
        assert!(screen.is_restored());
    }
}

#[test]
fn no_colours_where_they_are_not_wanted() {
    let folder = folder();
    let _worker = Worker::start(folder.path(), "worker");
    let screen = Screen::start(watch(folder.path()).env("NO_COLOR", "1"), 80, 24);
    screen.wait_for(&["worker", "alive", "idle"]);
    assert!(!screen.is_coloured());
}
