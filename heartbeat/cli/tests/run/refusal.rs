//! What is refused, and that nothing was run then.

use std::os::unix::fs::symlink;

use crate::bench::{Bench, HEARTBEAT, exit, some};

#[test]
fn a_held_file_is_refused_with_its_holders_pid_before_the_command_runs() {
    let bench = Bench::new();
    let holder = bench.ready(&mut bench.run(&[], "echo $$ > pid; touch ready; exec sleep 60"));
    let pid = bench.pid("pid");
    some("a record of the holder", || {
        bench.record().filter(|record| record.pid == pid.as_raw().unsigned_abs())
    });
    assert_eq!(exit(&mut bench.run(&[], "touch ran")), 1);
    let held = format!("is refused: it is held by another living worker, pid {pid}\n");
    assert!(bench.stderr().ends_with(&held), "{}", bench.stderr());
    assert_eq!(bench.stderr().lines().count(), 1);
    assert!(!bench.path("ran").exists());
    assert!(bench.record().is_some(), "the holder's file stays");
    holder.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(holder.exit(), 143);
}

#[test]
fn a_file_that_fails_in_the_middle_is_told_then_and_once_and_so_is_its_return() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("beats")).unwrap();
    let mut command = bench.command(HEARTBEAT);
    command.args(["run", "--file", "beats/beat", "--interval", "50ms", "--", "sleep", "600"]);
    let program = crate::bench::start(&mut command);
    crate::bench::until("a beat", || bench.path("beats/beat").exists());
    std::fs::rename(bench.path("beats"), bench.path("away")).unwrap();
    crate::bench::until("the failure is told", || bench.stderr().contains("; it goes on trying\n"));
    assert!(bench.stderr().starts_with("heartbeat: cannot write "), "{}", bench.stderr());
    std::fs::rename(bench.path("away"), bench.path("beats")).unwrap();
    crate::bench::until("the return is told", || bench.stderr().contains("is written again\n"));
    assert_eq!(bench.stderr().lines().count(), 2, "{}", bench.stderr());
    program.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(program.exit(), 143);
}

#[test]
fn a_link_a_folder_and_a_fifo_are_refused_before_the_command_runs() {
    let bench = Bench::new();
    symlink("elsewhere", bench.path("link")).unwrap();
    std::fs::create_dir(bench.path("folder")).unwrap();
    nix::unistd::mkfifo(&bench.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for file in ["link", "folder", "fifo"] {
        assert_eq!(exit(&mut bench.run(&["--file", file], "touch ran")), 1, "{file}");
        assert!(bench.stderr().contains(" is refused: it is "), "{}", bench.stderr());
        assert!(!bench.path("ran").exists() && !bench.path("elsewhere").exists());
    }
}

#[test]
fn what_cannot_be_configured_is_2_and_nothing_runs() {
    let bench = Bench::new();
    let long = "q".repeat(4_096);
    for (options, word) in [
        (&["--interval", "5"][..], "a duration is a whole number with a unit"),
        (&["--promise", "1h1h"], "a duration is a whole number with a unit"),
        (&["--stop-timeout", "366d"], "365 days at most"),
        (&["--interval", "10s", "--promise", "10s"], "the promise is two intervals at least"),
        (&["--interval", "1ms"], "10 ms at least"),
        (&["--worker", ""], "cannot be a worker's name"),
        (&["--queue", &long], "name fewer queues"),
        #[cfg(feature = "redis")]
        (&["--redis", "http://localhost"], "it begins with none of redis://"),
        (&["stray"], "unexpected argument 'stray'"),
    ] {
        assert_eq!(exit(&mut bench.run(options, "touch ran")), 2, "{options:?}");
        assert!(bench.stderr().contains(word), "{options:?}: {}", bench.stderr());
        assert!(!bench.path("ran").exists() && !bench.path("beat").exists());
    }
    let mut command = bench.run(&[], "touch ran");
    assert_eq!(exit(command.env("HEARTBEAT_INTERVAL", "soon")), 2);
    assert!(bench.stderr().starts_with("heartbeat: HEARTBEAT_INTERVAL is \"soon\""), "{}", bench.stderr());
    assert_eq!(exit(bench.command(HEARTBEAT).arg("run")), 2);
    assert_eq!(exit(&mut bench.command(HEARTBEAT)), 2);
}
