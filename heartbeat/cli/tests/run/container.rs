//! `heartbeat run` as the first process of a container: of a PID namespace, made in a user namespace where this
//! is not root.

use heartbeat::verdict::Verdict;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, HEARTBEAT, Program, some, until};

impl Bench {
    /// Starts it as the first process of a new PID namespace, and gives its pid out here.
    fn contained(&self, options: &[&str], script: &str) -> (Program, Pid) {
        let mut command = self.command("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", HEARTBEAT, "run"]);
        command.args(["--file", "beat", "--interval", "20ms"]).args(options).args(["--", "sh", "-c", script]);
        let program = self.ready(&mut command);
        let unshare = program.pid();
        let first = some("the first process", || {
            std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))
                .ok()?
                .trim()
                .parse()
                .ok()
        });
        (program, Pid::from_raw(first))
    }
}

#[test]
fn the_first_process_passes_signals_from_outside_on_and_says_draining() {
    let bench = Bench::new();
    let script = "trap 'touch asked' TERM; touch ready; until [ -e finish ]; do sleep 0.01; done; exit 5";
    let (program, first) = bench.contained(&[], script);
    let record = some("a record of the command", || bench.record().filter(|record| record.pid != 1));
    assert_eq!(record.worker, format!("{}:1", record.host));
    assert_eq!(bench.verdict(), Verdict::Alive);
    kill(first, Signal::SIGTERM).unwrap();
    until("the command was asked", || bench.path("asked").exists());
    bench.until_verdict(Verdict::Draining);
    std::fs::write(bench.path("finish"), "").unwrap();
    assert_eq!(program.exit(), 5);
    assert!(!bench.path("beat").exists());
}

#[test]
fn the_first_process_takes_signals_from_inside_too() {
    let bench = Bench::new();
    let (program, _) = bench
        .contained(&[], "touch ready; until [ -e go ]; do sleep 0.01; done; kill -TERM 1; exec sleep 60");
    std::fs::write(bench.path("go"), "").unwrap();
    assert_eq!(program.exit(), 143);
}

#[test]
fn the_first_process_reaps_any_number_of_orphans_and_still_hears_its_supervisor() {
    let bench = Bench::new();
    // Orphans without end, and the zombies counted while they come.
    let script = "trap 'exit 6' TERM
        (while [ ! -e enough ]; do (true &) & (sleep 0.001 &) ; done) &
        for turn in 1 2 3 4 5; do sleep 0.1; done
        touch enough
        wait
        touch ready
        while :; do sleep 0.01; done";
    let (program, first) = bench.contained(&[], script);
    until("no zombie is left", || {
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        children.split_whitespace().count() == 1
    });
    bench.until_verdict(Verdict::Alive);
    kill(first, Signal::SIGTERM).unwrap();
    assert_eq!(program.exit(), 6);
}

#[test]
fn a_flood_of_orphans_does_not_keep_a_request_to_end_from_the_command() {
    let bench = Bench::new();
    let script = "trap 'exit 6' TERM; touch ready; while :; do (true &); done";
    let (program, first) = bench.contained(&[], script);
    kill(first, Signal::SIGTERM).unwrap();
    assert_eq!(program.exit(), 6);
    assert!(!bench.path("beat").exists());
}

#[test]
fn all_that_is_left_in_a_container_ends_with_the_stop_timeout() {
    let bench = Bench::new();
    let script =
        "trap '' TERM; setsid sh -c 'echo up > far; exec sleep 60' & until [ -e far ]; do sleep 0.01; done
        touch ready; while :; do sleep 0.01; done";
    let (program, first) = bench.contained(&["--stop-timeout", "100ms"], script);
    let namespace = std::fs::read_link(format!("/proc/{first}/ns/pid")).unwrap();
    kill(first, Signal::SIGTERM).unwrap();
    assert_eq!(program.exit(), 137);
    let left = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| std::fs::read_link(entry.path().join("ns/pid")).is_ok_and(|ns| ns == namespace))
            .count()
    };
    until("nobody is left", || left() == 0);
}
