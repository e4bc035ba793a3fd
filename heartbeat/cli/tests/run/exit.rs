//! The exit status, and the beat file's end.

use crate::bench::{Bench, HEARTBEAT, exit};

use nix::sys::signal::{Signal, kill};

#[test]
fn the_commands_own_exit_status_is_passed_on_and_the_file_is_gone() {
    for (script, status) in
        [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -37 $$", 165)]
    {
        let bench = Bench::new();
        assert_eq!(exit(&mut bench.run(&[], script)), status, "{script}");
        assert!(!bench.path("beat").exists(), "{script}");
        assert_eq!(bench.stderr(), "", "{script}");
    }
}

#[test]
fn a_command_that_ends_at_once_has_its_status_passed_on_every_time() {
    let bench = Bench::new();
    for _ in 0..50 {
        let mut command = bench.command(HEARTBEAT);
        assert_eq!(exit(command.args(["run", "--file", "beat", "--", "false"])), 1);
        assert_eq!(bench.stderr(), "");
        assert!(!bench.path("beat").exists());
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_126() {
    let bench = Bench::new();
    std::fs::write(bench.path("plain"), "no program").unwrap();
    for (program, status, line) in [
        ("no-such-command", 127, "heartbeat: no-such-command: not found\n"),
        ("./nowhere/command", 127, "heartbeat: ./nowhere/command: not found\n"),
        ("./plain", 126, "heartbeat: ./plain: cannot be executed: Permission denied (os error 13)\n"),
        ("./", 126, "heartbeat: ./: cannot be executed: Permission denied (os error 13)\n"),
    ] {
        let mut command = bench.command(HEARTBEAT);
        // Where a folder in PATH may not be searched, nobody can know that a command is not there.
        command.env("PATH", "/usr/bin:/bin").args(["run", "--file", "beat", "--", program]);
        assert_eq!(exit(&mut command), status);
        assert_eq!(bench.stderr(), line);
        assert!(!bench.path("beat").exists(), "{program}");
    }
}

#[test]
fn a_command_killed_outright_is_told_by_status_and_file() {
    let bench = Bench::new();
    let program = bench.ready(&mut bench.run(&[], "echo $$ > pid; touch ready; exec sleep 60"));
    kill(bench.pid("pid"), Signal::SIGKILL).unwrap();
    assert_eq!(program.exit(), 137);
    assert!(!bench.path("beat").exists());
}

#[test]
fn the_commands_output_and_input_are_its_own() {
    let bench = Bench::new();
    std::fs::write(bench.path("in"), "given").unwrap();
    let mut command = bench.run(&[], "cat; echo told >&2");
    command.stdin(std::fs::File::open(bench.path("in")).unwrap());
    assert_eq!(exit(&mut command), 0);
    assert_eq!((bench.stdout(), bench.stderr()), ("given".to_owned(), "told\n".to_owned()));
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_keeps_no_command_from_its_work() {
    let bench = Bench::new();
    let script = "touch ready; until [ -e later/beat ]; do sleep 0.01; done";
    let program = bench.ready(&mut bench.run(&["--file", "later/beat"], script));
    assert!(bench.stderr().contains("later/beat: No such file or directory"), "{}", bench.stderr());
    std::fs::create_dir(bench.path("later")).unwrap();
    assert_eq!(program.exit(), 0);
    assert!(bench.stderr().contains("beats could not be written as a new file"), "{}", bench.stderr());
    assert!(!bench.path("later/beat").exists());
}
