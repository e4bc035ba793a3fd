//! `heartbeat run` at a real terminal: a pseudo-terminal whose keys are pressed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use heartbeat::record::Status;
use heartbeat::verdict::Verdict;
use nix::libc;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid, tcgetpgrp};

use crate::bench::{Bench, HEARTBEAT, Program, equal, start, state, until};

/// Tells each SIGINT that it gets, and ends when asked by a file. It waits without a child: bash forgets a SIGINT that comes
/// just as a child ends, and a shell that is in the middle of starting one by `vfork` cannot be stopped.
const TELLING: &str = "n=0; trap 'n=$((n+1)); echo interrupt $n' INT; mkfifo never; exec 3<> never
    echo $$ > pid; touch ready; until [ -e finish ]; do read -t 0.01 -u 3; done; exit 5";

const RUN_TELLING: &str = "exec bash ./script";

struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a command as the first one at a new terminal. Its standard input is the terminal, or as it was.
    fn start(bench: &Bench, command: &mut Command, input: Input) -> (Self, Program) {
        std::fs::write(bench.path("script"), TELLING).unwrap();
        let pair = openpty(None, None).unwrap();
        command.stdout(pair.slave.try_clone().unwrap()).stderr(pair.slave.try_clone().unwrap());
        if input == Input::Terminal {
            command.stdin(pair.slave.try_clone().unwrap());
        }
        let begin_session = || {
            setsid()?;
            // SAFETY: a system call on two numbers.
            match unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: system calls only.
        unsafe { command.pre_exec(begin_session) };
        let program = start(command);
        let keyboard = File::from(pair.master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut reader, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            // Ends with an error once nobody has the terminal open any more.
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        (Self { keyboard, screen }, program)
    }

    /// An interactive bash, which knows job control.
    fn bash(bench: &Bench) -> (Self, Program) {
        let mut command = bench.command("bash");
        command.args(["--norc", "--noprofile", "--noediting", "-i"]);
        command.env("PS1", "prompt> ").env("HEARTBEAT_FILE", "beat").env("HEARTBEAT_INTERVAL", "20ms");
        let (terminal, bash) = Self::start(bench, &mut command, Input::Terminal);
        terminal.until_shown("prompt>");
        (terminal, bash)
    }

    fn press(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).unwrap();
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    fn until_shown(&self, text: &str) {
        until(text, || self.shown().contains(text));
    }

    /// Waits until the shell knows that its job is stopped: `fg` continues no job that it takes for running. The shell tells
    /// before a prompt.
    fn until_told_stopped(&self) {
        let prompts = || self.shown().matches("prompt>").count();
        until("the shell tells that its job is stopped", || {
            let before = prompts();
            self.press("\n");
            until("the next prompt", || prompts() > before);
            self.shown().contains("Stopped")
        });
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.keyboard).ok()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Terminal,
    Nothing,
}

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

fn finish(bench: &Bench) {
    std::fs::write(bench.path("finish"), "").unwrap();
}

fn interrupts(terminal: &Terminal) -> Vec<String> {
    // The terminal shows the keys too.
    let shown = terminal.shown().replace("^C", "");
    shown.lines().filter(|line| line.starts_with("interrupt")).map(str::to_owned).collect()
}

#[test]
fn ctrl_c_reaches_the_command_once_and_directly() {
    let bench = Bench::new();
    let (terminal, program) = Terminal::start(&bench, &mut bench.run(&[], RUN_TELLING), Input::Terminal);
    let command = bench.pid("pid");
    until("the command is ready", || bench.path("ready").exists());
    assert_eq!(terminal.foreground(), Some(command));
    for times in 1..=3 {
        terminal.press(CTRL_C);
        terminal.until_shown(&format!("interrupt {times}"));
    }
    assert_eq!(bench.record().unwrap().status, Status::Idle);
    finish(&bench);
    assert_eq!(program.exit(), 5);
    assert_eq!(interrupts(&terminal), ["interrupt 1", "interrupt 2", "interrupt 3"]);
}

#[test]
fn ctrl_c_reaches_the_command_once_where_its_input_is_not_the_terminal() {
    let bench = Bench::new();
    let (terminal, program) = Terminal::start(&bench, &mut bench.run(&[], RUN_TELLING), Input::Nothing);
    until("the command is ready", || bench.path("ready").exists());
    for times in 1..=3 {
        terminal.press(CTRL_C);
        terminal.until_shown(&format!("interrupt {times}"));
    }
    bench.until_verdict(Verdict::Draining);
    finish(&bench);
    assert_eq!(program.exit(), 5);
    assert_eq!(interrupts(&terminal), ["interrupt 1", "interrupt 2", "interrupt 3"]);
}

#[test]
fn ctrl_c_reaches_the_commands_children_as_it_would_without_heartbeat_run() {
    for input in [Input::Terminal, Input::Nothing] {
        let bench = Bench::new();
        let script = "trap 'touch asked' INT
            sh -c 'trap \"touch reached\" INT; touch ready; until [ -e finish ]; do sleep 0.01; done'
            exit 5";
        let (terminal, program) = Terminal::start(&bench, &mut bench.run(&[], script), input);
        until("the command is ready", || bench.path("ready").exists());
        terminal.press(CTRL_C);
        until("the command's child is reached", || bench.path("reached").exists());
        finish(&bench);
        assert_eq!(program.exit(), 5);
        assert!(bench.path("asked").exists());
    }
}

#[test]
fn ctrl_z_suspends_nothing_where_no_shell_could_continue_it() {
    for input in [Input::Terminal, Input::Nothing] {
        let bench = Bench::new();
        let (terminal, program) = Terminal::start(&bench, &mut bench.run(&[], RUN_TELLING), input);
        let command = bench.pid("pid");
        until("the command is ready", || bench.path("ready").exists());
        terminal.press(CTRL_Z);
        terminal.press(CTRL_C);
        terminal.until_shown("interrupt 1");
        until("the command goes on", || state(command) == Some('S'));
        finish(&bench);
        assert_eq!(program.exit(), 5);
    }
}

#[test]
fn ctrl_z_suspends_both_and_the_shell_continues_both_in_foreground_and_background() {
    for input in ["", "< /dev/null"] {
        let bench = Bench::new();
        let (terminal, bash) = Terminal::bash(&bench);
        terminal.press(&format!("{HEARTBEAT} run -- bash ./script {input}\n"));
        let command = bench.pid("pid");
        until("the command is ready", || bench.path("ready").exists());
        let parent = parent(command);

        terminal.press(CTRL_Z);
        terminal.until_shown("Stopped");
        equal(&(Some('T'), Some('T')), || (state(command), state(parent)));
        equal(&Some(bash.pid()), || terminal.foreground());

        terminal.press("fg\n");
        equal(&(Some('S'), Some('S')), || (state(command), state(parent)));
        let foreground = if input.is_empty() { command } else { parent };
        equal(&Some(foreground), || terminal.foreground());
        bench.until_verdict(Verdict::Alive);
        terminal.press(CTRL_C);
        terminal.until_shown("interrupt 1");

        terminal.press(CTRL_Z);
        equal(&(Some('T'), Some('T')), || (state(command), state(parent)));
        equal(&Some(bash.pid()), || terminal.foreground());
        terminal.press("bg\n");
        equal(&(Some('S'), Some('S')), || (state(command), state(parent)));
        assert_eq!(terminal.foreground(), Some(bash.pid()));

        terminal.press("fg\n");
        equal(&Some(parent), || terminal.foreground());
        terminal.press(CTRL_C);
        terminal.until_shown("interrupt 2");
        finish(&bench);
        equal(&Some(bash.pid()), || terminal.foreground());
        terminal.press("echo status $?\n");
        terminal.until_shown("status 5\r");
        assert_eq!(interrupts(&terminal), ["interrupt 1", "interrupt 2"]);
    }
}

#[test]
fn a_command_stopped_by_a_process_is_continued_by_a_process_and_suspends_no_job() {
    let bench = Bench::new();
    let (terminal, _bash) = Terminal::bash(&bench);
    terminal.press(&format!("{HEARTBEAT} run --promise 200ms -- bash ./script\n"));
    let command = bench.pid("pid");
    until("the command is ready", || bench.path("ready").exists());
    kill(command, Signal::SIGSTOP).unwrap();
    bench.until_verdict(Verdict::Silent);
    assert_eq!(state(parent(command)), Some('S'));
    kill(command, Signal::SIGCONT).unwrap();
    bench.until_verdict(Verdict::Alive);
}

#[test]
fn the_command_is_in_the_foreground_again_where_heartbeat_run_alone_was_stopped() {
    let bench = Bench::new();
    let (terminal, bash) = Terminal::bash(&bench);
    terminal.press(&format!("{HEARTBEAT} run -- bash ./script\n"));
    let command = bench.pid("pid");
    until("the command is ready", || bench.path("ready").exists());
    kill(parent(command), Signal::SIGSTOP).unwrap();
    equal(&Some(bash.pid()), || terminal.foreground());
    terminal.press("fg\n");
    equal(&Some(command), || terminal.foreground());
}

#[test]
fn the_terminal_is_given_back_however_the_command_ends() {
    let bench = Bench::new();
    let (terminal, bash) = Terminal::bash(&bench);
    for (number, command) in
        ["true", "no-such-command", "/etc/passwd", "sh -c 'kill -9 $$'"].into_iter().enumerate()
    {
        terminal.press(&format!("({HEARTBEAT} run -- {command}; cat) && echo still h\\ere {number}\n"));
        // What runs next in the same job can read from the terminal only in the foreground.
        terminal.press("typed\n\x04");
        terminal.until_shown(&format!("still here {number}"));
        equal(&Some(bash.pid()), || terminal.foreground());
    }
    assert!(!bench.path("beat").exists());
}

#[test]
fn a_command_in_the_background_that_reads_from_the_terminal_waits_for_the_foreground() {
    let bench = Bench::new();
    let (terminal, _bash) = Terminal::bash(&bench);
    terminal.press(&format!("{HEARTBEAT} run -- sh -c 'echo $$ > pid; read line; echo got $line' &\n"));
    let command = bench.pid("pid");
    equal(&Some('T'), || state(command));
    equal(&Some('T'), || state(parent(command)));
    terminal.until_told_stopped();
    terminal.press("fg\n");
    equal(&Some(command), || terminal.foreground());
    terminal.press("words\n");
    terminal.until_shown("got words");
}

#[test]
fn a_command_that_is_brought_forward_while_it_runs_gets_the_terminal_when_it_reads() {
    let bench = Bench::new();
    let (terminal, _bash) = Terminal::bash(&bench);
    let script = "echo $$ > pid; until [ -e finish ]; do sleep 0.01; done; read line; echo got $line";
    terminal.press(&format!("{HEARTBEAT} run -- sh -c '{script}' &\n"));
    let parent = parent(bench.pid("pid"));
    terminal.press("fg\n");
    equal(&Some(parent), || terminal.foreground());
    finish(&bench);
    equal(&Some(bench.pid("pid")), || terminal.foreground());
    terminal.press("words\n");
    terminal.until_shown("got words");
}

fn parent(pid: Pid) -> Pid {
    Pid::from_raw(crate::bench::proc_status(pid, "PPid").unwrap().parse().unwrap())
}
