//! What `heartbeat run` was started with is what the command is started with.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

use crate::bench::{Bench, HEARTBEAT, exit, start, until};

/// Starts it as somebody would who ignores some signals and blocks others.
fn started_with<'c>(
    command: &'c mut Command,
    ignored: &'static [Signal],
    blocked: &'static [Signal],
) -> &'c mut Command {
    let before_exec = move || {
        for name in ignored {
            // SAFETY: no handler is installed, so none can be unsafe.
            unsafe { signal(*name, SigHandler::SigIgn)? };
        }
        let mut mask = SigSet::empty();
        for name in blocked {
            mask.add(*name);
        }
        Ok(mask.thread_set_mask()?)
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(before_exec) }
}

#[test]
fn the_command_starts_with_the_signal_mask_and_the_ignored_signals_that_heartbeat_run_was_started_with() {
    const SHOW: [&str; 3] = ["-E", "^(SigBlk|SigIgn):", "/proc/self/status"];
    let cases: [(&[Signal], &[Signal]); 3] = [
        (&[], &[]),
        (
            &[Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGCHLD, Signal::SIGINT],
            &[Signal::SIGTERM, Signal::SIGTTOU],
        ),
        (&[Signal::SIGCHLD], &[Signal::SIGCHLD, Signal::SIGUSR1]),
    ];
    for (ignored, blocked) in cases {
        let bench = Bench::new();
        let status = exit(started_with(bench.command("grep").args(SHOW), ignored, blocked));
        let alone = bench.stdout();
        assert_eq!((status, alone.lines().count()), (0, 2), "{alone}");
        let mut under = bench.command(HEARTBEAT);
        under.args(["run", "--file", "beat", "--", "grep"]).args(SHOW);
        assert_eq!(exit(started_with(&mut under, ignored, blocked)), 0);
        assert_eq!(bench.stdout(), alone);
    }
}

#[test]
fn an_exit_status_is_told_also_where_ended_children_are_ignored() {
    let bench = Bench::new();
    assert_eq!(exit(started_with(&mut bench.run(&[], "exit 7"), &[Signal::SIGCHLD], &[])), 7);
    assert_eq!(exit(started_with(&mut bench.run(&["--file", "beat"], "exit 7"), &[], &[Signal::SIGCHLD])), 7);
}

#[test]
fn a_blocked_request_to_end_is_passed_on_and_waits_for_the_command_to_unblock_it() {
    let bench = Bench::new();
    // Without a handler, and blocked: only the stop timeout ends it. No shell here, which would unblock it.
    let mut command = bench.command(HEARTBEAT);
    command.args(["run", "--file", "beat", "--stop-timeout", "100ms", "--", "sleep", "60"]);
    let program = start(started_with(&mut command, &[], &[Signal::SIGTERM]));
    let own = program.pid().as_raw().unsigned_abs();
    until("the command runs", || bench.record().is_some_and(|record| record.pid != own));
    program.signal(Signal::SIGTERM);
    assert_eq!(program.exit(), 137);
}

#[test]
fn an_ignored_signal_is_passed_on_and_starts_no_drain() {
    let bench = Bench::new();
    let mut command = bench
        .run(&["--stop-timeout", "0ms"], "trap 'exit 3' USR1; touch ready; while :; do sleep 0.01; done");
    let program = start(started_with(&mut command, &[Signal::SIGHUP, Signal::SIGINT], &[]));
    until("the command is ready", || bench.path("ready").exists());
    program.signal(Signal::SIGHUP);
    program.signal(Signal::SIGINT);
    // The kernel hands signals over by number, so this one comes last.
    program.signal(Signal::SIGUSR1);
    assert_eq!(program.exit(), 3);
}

#[test]
fn closed_standard_input_and_output_do_no_harm() {
    let bench = Bench::new();
    let script =
        format!("exec {HEARTBEAT} run --file beat -- sh -c 'cat; echo $? > told; exit 4' <&- >&- 2>&-");
    assert_eq!(exit(bench.command("sh").args(["-c", &script])), 4);
    assert_eq!(bench.read("told"), "0\n");
    assert!(!bench.path("beat").exists());
}

#[test]
fn children_that_were_there_before_are_reaped_and_not_taken_for_the_command() {
    let bench = Bench::new();
    let script = format!("(exit 9) & exec {HEARTBEAT} run --file beat -- sh -c 'sleep 0.05; exit 4'");
    assert_eq!(exit(bench.command("sh").args(["-c", &script]).stdin(Stdio::null())), 4);
}
