//! What the record says of the command, and when it says nothing.

use std::fs;

use heartbeat::record::Status;
use heartbeat::verdict::Verdict;
use nix::sys::signal::{Signal, kill};

use crate::bench::{Bench, HEARTBEAT, exit, some, start, until};

#[test]
fn the_records_process_is_the_command_and_its_name_is_that_of_heartbeat_run() {
    let bench = Bench::new();
    let options =
        ["--cluster", "mail", "--queue", "in", "--queue", "out", "--promise", "5s", "--interval", "50ms"];
    let program = bench.ready(&mut bench.run(&options, "echo $$ > pid; touch ready; exec sleep 60"));
    let command = bench.pid("pid").as_raw().unsigned_abs();
    let record = some("a record of the command", || bench.record().filter(|record| record.pid == command));
    assert_eq!(record.worker, format!("{}:{}", record.host, program.pid()));
    assert_eq!((record.cluster.as_str(), record.status), ("mail", Status::Idle));
    assert_eq!(record.queues, ["in", "out"]);
    assert_eq!((record.promise_ms, record.interval_ms), (5_000, 50));
    bench.until_verdict(Verdict::Alive);
}

#[test]
fn the_environment_is_respected_and_flags_win() {
    let bench = Bench::new();
    let script = "cat env.beat > of-env; cat flag.beat > of-flag; true";
    let environment = [("FILE", "env.beat"), ("WORKER", "from-env"), ("CLUSTER", "c"), ("QUEUES", "a,b")];
    for (options, shown) in
        [(&[][..], "of-env"), (&["--file", "flag.beat", "--worker", "from-flag", "--queue", "q"], "of-flag")]
    {
        let mut command = bench.run(options, script);
        command.envs(environment.map(|(name, value)| (format!("HEARTBEAT_{name}"), value)));
        assert_eq!(exit(&mut command), 0);
        let record = heartbeat::record::Record::parse(&fs::read(bench.path(shown)).unwrap()).unwrap();
        if shown == "of-env" {
            assert_eq!(
                (record.worker.as_str(), record.queues),
                ("from-env", vec!["a".to_owned(), "b".to_owned()])
            );
        } else {
            assert_eq!((record.worker.as_str(), record.queues), ("from-flag", vec!["q".to_owned()]));
        }
        assert_eq!(record.cluster, "c");
    }
    assert_eq!(bench.stderr(), "cat: env.beat: No such file or directory\n");
}

#[test]
fn a_stopped_command_goes_silent_and_is_alive_again_once_continued() {
    let bench = Bench::new();
    let options = ["--promise", "200ms"];
    let _program = bench.ready(&mut bench.run(&options, "echo $$ > pid; touch ready; exec sleep 60"));
    let command = bench.pid("pid");
    bench.until_verdict(Verdict::Alive);
    for _ in 0..2 {
        kill(command, Signal::SIGSTOP).unwrap();
        bench.until_verdict(Verdict::Silent);
        let beats = bench.record().unwrap().seq;
        kill(command, Signal::SIGCONT).unwrap();
        bench.until_verdict(Verdict::Alive);
        assert!(bench.record().unwrap().seq > beats);
    }
}

#[test]
fn the_command_lives_on_in_silence_where_heartbeat_run_is_killed_outright() {
    let bench = Bench::new();
    let options = ["--promise", "200ms"];
    let program = bench.ready(&mut bench.run(&options, "echo $$ > pid; touch ready; exec sleep 60"));
    let command = bench.pid("pid");
    until("the record is the command's", || {
        bench.record().is_some_and(|record| record.pid == command.as_raw().unsigned_abs())
    });
    program.signal(Signal::SIGKILL);
    assert_eq!(program.exit(), 1009);
    bench.until_verdict(Verdict::Silent);
    kill(command, None).unwrap();
    kill(command, Signal::SIGKILL).unwrap();
    bench.until_verdict(Verdict::Gone);
    // And the next start replaces what was left.
    let next = start(bench.command(HEARTBEAT).args(["run", "--file", "beat", "--", "true"]));
    assert_eq!(next.exit(), 0);
    assert!(!bench.path("beat").exists());
}
