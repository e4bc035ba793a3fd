//! Signals that `heartbeat run` is sent, and what the command and the record make of them.

use heartbeat::record::Status;
use heartbeat::verdict::Verdict;
use nix::libc;
use nix::sys::signal::{Signal, kill};

use crate::bench::{Bench, equal, some, state, until};

/// A worker that finishes its work when asked to end: until `finish` is there.
const GRACEFUL: &str =
    "trap 'touch asked' TERM INT QUIT; touch ready; until [ -e finish ]; do sleep 0.01; done; exit 5";

/// One that does not listen, and says what it is.
const STUBBORN: &str = "trap '' TERM INT QUIT; echo $$ > pid; touch ready; while :; do sleep 0.05; done";

#[test]
fn a_request_to_end_reaches_the_command_and_the_record_says_draining_until_it_has_ended() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let bench = Bench::new();
        let program = bench.ready(&mut bench.run(&[], GRACEFUL));
        program.signal(signal);
        until("the command was asked", || bench.path("asked").exists());
        let record = some("draining", || bench.record().filter(|record| record.status == Status::Draining));
        assert_eq!(record.until_mono_ms, None);
        assert_eq!(bench.verdict(), Verdict::Draining);
        std::fs::write(bench.path("finish"), "").unwrap();
        assert_eq!(program.exit(), 5, "{signal}");
        assert!(!bench.path("beat").exists());
    }
}

#[test]
fn a_drain_has_the_stop_timeout_as_its_deadline_which_a_second_request_does_not_move() {
    let bench = Bench::new();
    let program = bench.ready(&mut bench.run(&["--stop-timeout", "60s"], GRACEFUL));
    program.signal(Signal::SIGTERM);
    let until_mono_ms = some("a deadline", || bench.record()?.until_mono_ms);
    let left = until_mono_ms.saturating_sub(bench.record().unwrap().at_mono_ms);
    assert!((30_000..=60_000).contains(&left), "{left}");
    program.signal(Signal::SIGINT);
    let beats = bench.record().unwrap().seq;
    until("two more beats", || bench.record().is_some_and(|record| record.seq > beats + 1));
    assert_eq!(bench.record().unwrap().until_mono_ms, Some(until_mono_ms));
    std::fs::write(bench.path("finish"), "").unwrap();
    assert_eq!(program.exit(), 5);
    assert_eq!(bench.stderr(), "");
}

#[test]
fn a_command_that_does_not_end_in_time_is_killed_with_its_process_group() {
    let bench = Bench::new();
    let script = format!("sh -c 'echo $$ > grandchild; exec sleep 60' & {STUBBORN}");
    let program = bench.ready(&mut bench.run(&["--stop-timeout", "200ms"], &script));
    let grandchild = bench.pid("grandchild");
    program.signal(Signal::SIGTERM);
    assert_eq!(program.exit(), 137);
    assert_eq!(bench.stderr(), "heartbeat: the command did not end within 200 ms and was killed\n");
    assert!(!bench.path("beat").exists());
    // Nobody here reaps it where this machine's first process does not, so a zombie will do.
    until("its child is killed too", || matches!(state(grandchild), None | Some('Z')));
}

#[test]
fn a_stopped_command_is_killed_at_the_stop_timeout_too() {
    let bench = Bench::new();
    let program = bench.ready(&mut bench.run(&["--stop-timeout", "100ms"], STUBBORN));
    kill(bench.pid("pid"), Signal::SIGSTOP).unwrap();
    program.signal(Signal::SIGTERM);
    assert_eq!(program.exit(), 137);
}

#[test]
fn without_a_stop_timeout_a_command_that_ignores_requests_is_not_killed() {
    let bench = Bench::new();
    let program = bench.ready(&mut bench.run(&[], STUBBORN));
    program.signal(Signal::SIGTERM);
    bench.until_verdict(Verdict::Draining);
    let beats = bench.record().unwrap().seq;
    until("ten more beats", || bench.record().is_some_and(|record| record.seq > beats + 10));
    kill(bench.pid("pid"), Signal::SIGKILL).unwrap();
    assert_eq!(program.exit(), 137);
}

#[test]
fn every_other_signal_is_passed_on_once_and_starts_no_drain() {
    let bench = Bench::new();
    let names = ["HUP", "USR1", "USR2", "WINCH", "ALRM", "PWR", "URG", "IO", "VTALRM", "PROF"];
    let traps = names.map(|name| format!("trap 'echo {name}' {name};")).concat();
    let script = format!("{traps} touch ready; until [ -e finish ]; do sleep 0.01; done; exit 0");
    let program = bench.ready(&mut bench.run(&[], &script));
    let mut passed_on = String::new();
    for name in names {
        let signal: Signal = format!("SIG{name}").parse().unwrap();
        program.signal(signal);
        passed_on += name;
        passed_on += "\n";
        equal(&passed_on, || bench.stdout());
    }
    assert_eq!(bench.record().unwrap().status, Status::Idle);
    std::fs::write(bench.path("finish"), "").unwrap();
    assert_eq!(program.exit(), 0);
    assert_eq!(bench.stdout(), passed_on);
}

#[test]
fn a_real_time_signal_is_passed_on() {
    let bench = Bench::new();
    let program =
        bench.ready(&mut bench.run(&[], "trap 'exit 9' 37; touch ready; while :; do sleep 0.01; done"));
    // SAFETY: a system call on two numbers; nix knows no real-time signals.
    assert_eq!(unsafe { libc::kill(program.pid().as_raw(), 37) }, 0);
    assert_eq!(program.exit(), 9);
}

#[test]
fn a_request_to_suspend_and_to_continue_reaches_the_command_and_not_its_parent() {
    let bench = Bench::new();
    let program =
        bench.ready(&mut bench.run(&["--promise", "200ms"], "echo $$ > pid; touch ready; exec sleep 60"));
    let command = bench.pid("pid");
    program.signal(Signal::SIGTSTP);
    equal(&Some('T'), || state(command));
    bench.until_verdict(Verdict::Silent);
    assert_eq!(state(program.pid()), Some('S'));
    program.signal(Signal::SIGCONT);
    bench.until_verdict(Verdict::Alive);
    assert_ne!(state(command), Some('T'));
}

#[test]
fn a_command_in_a_session_of_its_own_is_asked_and_killed_all_the_same() {
    let bench = Bench::new();
    // A leader of a process group cannot begin a session, so `setsid` begins it in a child and waits for that.
    let script = format!("exec setsid --wait sh -c \"{STUBBORN}\"").replace("$$", "\\$\\$");
    let program = bench.ready(&mut bench.run(&["--stop-timeout", "100ms"], &script));
    program.signal(Signal::SIGTERM);
    assert!(matches!(program.exit(), 137 | 143));
    assert!(!bench.path("beat").exists());
}

#[test]
fn what_a_process_sends_is_for_the_command_alone_and_not_for_its_children() {
    let bench = Bench::new();
    let script = "sh -c 'trap \"touch reached\" TERM; touch child; while :; do sleep 0.01; done' &
        trap 'touch asked' TERM; until [ -e child ]; do sleep 0.01; done; touch ready
        until [ -e finish ]; do sleep 0.01; done; kill -KILL $!; exit 5";
    let program = bench.ready(&mut bench.run(&[], script));
    program.signal(Signal::SIGTERM);
    until("the command was asked", || bench.path("asked").exists());
    std::fs::write(bench.path("finish"), "").unwrap();
    assert_eq!(program.exit(), 5);
    assert!(!bench.path("reached").exists());
}
