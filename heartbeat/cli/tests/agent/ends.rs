//! How a worker ends, and when the fleet knows it.

use std::time::{Duration, Instant};

use heartbeat::verdict::Verdict;
use nix::sys::signal::Signal;

use crate::bench::{some, until};
use crate::scene::{INTERVAL, Process, Scene};

/// What a loaded machine may add to an interval.
const SLACK: Duration = Duration::from_millis(600);

#[test]
fn workers_that_know_nothing_of_redis_are_published_with_their_queues() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let _one = scene.worker("one").start().unwrap();
    let _other = scene.worker("other").start_deadline(Duration::from_mins(1)).start().unwrap();
    scene.until_counts(2, 1);
    let members = scene.members();
    let verdict = |name: &str| {
        members.iter().find(|member| member.worker == name).map(|member| member.judge(None).verdict)
    };
    assert_eq!(verdict("one"), Some(Verdict::Alive));
    assert_eq!(verdict("other"), Some(Verdict::Starting));
    assert_eq!(scene.bench.stderr(), "");
}

#[test]
fn a_killed_worker_leaves_the_queue_within_an_interval_and_is_named_as_lost() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let (killed, _other) = (scene.process("killed"), scene.process("other"));
    scene.until_counts(2, 2);
    assert_eq!(scene.record("killed").unwrap().promise_ms, 30_000);
    killed.kill();
    let begun = Instant::now();
    scene.until_counts(1, 1);
    let took = begun.elapsed();
    assert!(took < INTERVAL + SLACK, "{took:?}");
    let lost = scene.lost();
    assert_eq!(lost.iter().map(|lost| lost.worker.as_str()).collect::<Vec<_>>(), ["killed"]);
    // Its last beat was an interval before its end, at most; what it had promised is no part of that.
    let silent = Duration::from_millis(lost[0].silent_ms);
    assert!(silent < begun.elapsed() + Duration::from_millis(100) + SLACK, "{silent:?}");
    let named = scene.fleet().named(&["killed"], crate::scene::soon()).unwrap();
    assert_eq!(named[0].judge(None).verdict, Verdict::Gone);
    // It stays so, though its file is still there.
    assert!(scene.file("killed").exists());
    std::thread::sleep(INTERVAL * 3);
    assert_eq!(scene.counts(), (1, 1, 1));
    assert_eq!(scene.lost().len(), 1);
}

#[test]
fn a_worker_that_starts_anew_takes_the_place_of_the_one_that_was_killed() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let killed = scene.process("w");
    scene.until_counts(1, 1);
    killed.kill();
    scene.until_counts(0, 0);
    let _again = scene.process("w");
    scene.until_counts(1, 1);
    until("nobody is lost", || scene.lost().is_empty());
    let named = scene.fleet().named(&["w"], crate::scene::soon()).unwrap();
    assert_eq!(named[0].judge(None).verdict, Verdict::Alive);
}

#[test]
fn a_wedged_worker_leaves_the_queue_and_comes_back_with_its_next_pulse() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let worker = scene.worker("w").loop_budget(Duration::from_secs(1)).start().unwrap();
    worker.pulse();
    scene.until_counts(1, 1);
    scene.until_counts(1, 0);
    assert_eq!(scene.members()[0].judge(None).verdict, Verdict::Wedged);
    worker.pulse_within(Duration::from_mins(10));
    scene.until_counts(1, 1);
}

#[test]
fn a_frozen_worker_is_lost_once_its_promise_has_passed_and_not_later() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let mut command = scene.bench.command(crate::bench::HEARTBEAT);
    let options =
        ["--cluster", "c", "--queue", "mail", "--interval", "100ms", "--promise", "2s", "--worker", "w"];
    command.arg("run").arg("--file").arg(scene.file("w")).args(options).args(["--", "sleep", "600"]);
    let program = crate::bench::start(&mut command);
    scene.until_counts(1, 1);
    program.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    scene.until_counts(0, 0);
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(1_500) && took < Duration::from_secs(2) + INTERVAL + SLACK,
        "{took:?}"
    );
    assert_eq!(scene.lost().len(), 1);
    program.signal(Signal::SIGCONT);
    scene.until_counts(1, 1);
}

#[test]
fn a_clean_stop_withdraws_the_worker_at_once() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let worker = scene.process("w");
    let _other = scene.worker("other").start().unwrap();
    scene.until_counts(2, 2);
    worker.stop();
    let begun = Instant::now();
    until("the worker is not there", || scene.members().len() == 1);
    assert!(begun.elapsed() < INTERVAL + SLACK, "{:?}", begun.elapsed());
    assert!(scene.lost().is_empty());
}

#[test]
fn who_has_stopped_while_the_agent_saw_nothing_is_not_called_lost() {
    let scene = Scene::new();
    let agent = scene.agent();
    for _ in 0..10 {
        let workers = ["a", "b", "c"].map(|name| scene.process(name));
        scene.until_counts(3, 3);
        agent.signal(Signal::SIGSTOP);
        workers.into_iter().for_each(Process::stop);
        std::thread::sleep(INTERVAL * 2);
        agent.signal(Signal::SIGCONT);
        until("they are not there", || scene.members().is_empty());
    }
    // Nothing else asks for this than who calls a worker lost.
    assert_eq!(scene.redis.info("commandstats", "cmdstat_hsetnx"), 0);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit(), 0);
    assert_eq!(scene.redis.ask::<Vec<String>>("KEYS heartbeat:*"), Vec::<String>::new());
}

#[test]
fn who_stops_just_before_the_agent_does_leaves_nothing() {
    let scene = Scene::new();
    for _ in 0..10 {
        let agent = scene.agent();
        let workers = ["a", "b", "c"].map(|name| scene.process(name));
        scene.until_counts(3, 3);
        workers.into_iter().for_each(Process::stop);
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.exit(), 0);
        assert_eq!(scene.redis.ask::<Vec<String>>("KEYS heartbeat:*"), Vec::<String>::new());
    }
}

#[test]
fn sigterm_and_sigint_withdraw_all_within_a_second_and_exit_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scene = Scene::new();
        let agent = scene.agent();
        let workers: Vec<_> =
            ["a", "b", "c"].map(|name| scene.worker(name).start().unwrap()).into_iter().collect();
        scene.until_counts(3, 3);
        let begun = Instant::now();
        agent.signal(signal);
        assert_eq!(agent.exit(), 0);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(scene.members().len(), 0);
        assert!(scene.lost().is_empty());
        assert_eq!(scene.bench.stderr(), "");
        drop(workers);
    }
}

#[test]
fn who_was_lost_stays_named_where_the_agent_ends() {
    let scene = Scene::new();
    let agent = scene.agent();
    let worker = scene.process("w");
    scene.until_counts(1, 1);
    worker.kill();
    some("a loss", || scene.lost().pop());
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit(), 0);
    assert_eq!(scene.lost().len(), 1);
}
