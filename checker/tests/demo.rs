//! `checker demo` as a whole: the right verdicts, a wrong one, and that it leaves nothing behind, however it ends.

#[expect(dead_code, reason = "shared with other tests, which use other parts")]
mod screen;

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use screen::Screen;
use tempfile::TempDir;

/// A demo whose temporary files are in a folder of the test's own.
struct Demo {
    folder: TempDir,
    process: Child,
    output: BufReader<ChildStdout>,
}

fn command(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
    command.arg("demo").env("TMPDIR", folder.path()).stdin(Stdio::null());
    command
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut process = command(&folder).stdout(Stdio::piped()).spawn().expect("the demo starts");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { folder, process, output }
    }

    /// Reads up to the first line that begins with `text`.
    fn read_to(&mut self, text: &str) {
        let mut all = String::new();
        while !all.lines().last().is_some_and(|line| line.starts_with(text)) {
            assert!(self.output.read_line(&mut all).expect("output") > 0, "no {text:?} in:\n{all}");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the demo is there");
    }

    fn finish(mut self) -> Ended {
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("output");
        let status = self.process.wait().expect("its status");
        Ended { status, text, folder: self.folder }
    }
}

struct Ended {
    status: ExitStatus,
    text: String,
    folder: TempDir,
}

impl Ended {
    fn left_nothing(&self) {
        no_process_is_left(self.folder.path());
        no_file_is_left(self.folder.path());
    }
}

fn no_file_is_left(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder).expect("the folder").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn no_process_is_left(folder: &Path) {
    let begun = Instant::now();
    while !processes(folder, "").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "left behind: {:?}", processes(folder, ""));
        thread::sleep(Duration::from_millis(10));
    }
}

/// The living processes whose command line names `folder` and has the argument `word`.
fn processes(folder: &Path, word: &str) -> Vec<Pid> {
    let folder = folder.to_str().expect("a folder's name");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let named = |pid: &i32| {
        // A process that ends meanwhile is not there.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(folder) && line.split('\0').any(|argument| word.is_empty() || argument == word)
    };
    pids.filter(named).map(Pid::from_raw).collect()
}

#[test]
fn the_demo_tells_every_verdict_within_30_s_and_leaves_nothing_behind() {
    let begun = Instant::now();
    let ended = Demo::start().finish();
    assert!(ended.status.success(), "{}", ended.text);
    assert!(begun.elapsed() < Duration::from_secs(30));
    for verdict in ["gone", "silent", "wedged", "overdue", "corrupt", "draining", "missing", "alive"] {
        assert!(ended.text.contains(&format!(" {verdict} ")), "no {verdict} in:\n{}", ended.text);
    }
    assert!(ended.text.contains("10 of 10 verdicts right"), "{}", ended.text);
    assert!(!ended.text.contains('\x1b'), "no terminal, no colours");
    ended.left_nothing();
}

#[test]
fn the_demo_fails_where_the_control_worker_is_called_dead() {
    let mut demo = Demo::start();
    demo.read_to("✓ killed");
    let control = processes(demo.folder.path(), "control");
    assert_eq!(control.len(), 1);
    kill(control[0], Signal::SIGKILL).expect("the control worker is there");
    let ended = demo.finish();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.text);
    assert!(ended.text.contains("control was called gone, wrongly"), "{}", ended.text);
    assert!(ended.text.contains("9 of 10 verdicts right"), "{}", ended.text);
    ended.left_nothing();
}

#[test]
fn an_interrupted_demo_cleans_up_and_ends_by_the_same_signal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut demo = Demo::start();
        demo.read_to("✓ killed");
        demo.signal(signal);
        let ended = demo.finish();
        assert_eq!(ended.status.signal(), Some(signal as i32));
        ended.left_nothing();
    }
}

#[test]
fn a_demo_that_is_killed_takes_its_workers_with_it() {
    let mut demo = Demo::start();
    demo.read_to("✓ killed");
    assert!(processes(demo.folder.path(), "").len() >= 7);
    demo.signal(Signal::SIGKILL);
    let ended = demo.finish();
    no_process_is_left(ended.folder.path());
}

#[test]
fn a_demo_that_nobody_reads_ends_quietly_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let output = command(&folder).stdout(writer).stderr(Stdio::piped()).output().expect("the demo starts");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    no_process_is_left(folder.path());
    no_file_is_left(folder.path());
}

#[test]
fn the_terminal_shows_one_table_that_is_drawn_in_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut screen = Screen::start(&mut command_in_terminal(&folder), 80, 24);
    screen.wait_for(&["stopped", "told to stop", "alive", "yes"]);
    screen.wait_for(&["›", "frozen", "kill -STOP", "alive"]);
    assert!(screen.wait().success(), "{}", screen.text());
    assert!(screen.is_restored());
    screen.wait_for(&["✓ 10 of 10 verdicts right"]);
    let text = screen.text();
    assert_eq!(text.lines().filter(|line| line.contains("kill -9")).count(), 1, "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with('✓')).count(), 11, "{text}");
    assert!(screen.is_coloured());
}

#[test]
fn in_a_terminal_too_an_interrupted_demo_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut screen = Screen::start(&mut command_in_terminal(&folder), 80, 24);
    screen.wait_for(&["✓ killed"]);
    assert!(screen.look(vt100::Screen::hide_cursor));
    screen.signal(Signal::SIGINT);
    assert_eq!(screen.wait().signal(), Some(Signal::SIGINT as i32));
    assert!(screen.is_restored());
    no_process_is_left(folder.path());
    no_file_is_left(folder.path());
}

#[test]
fn a_terminal_without_colours_or_room_gets_plain_lines() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut screen = Screen::start(command_in_terminal(&folder).env("NO_COLOR", "1"), 80, 10);
    assert!(screen.wait().success(), "{}", screen.text());
    screen.wait_for(&["10 of 10 verdicts right"]);
    assert!(!screen.is_coloured());
}

fn command_in_terminal(folder: &TempDir) -> Command {
    let mut command = command(folder);
    command.env_remove("NO_COLOR");
    command
}
