//! A worker of which several tell: one record, and no back and forth.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bench::{some, until};
use crate::scene::{INTERVAL, Scene};

/// Looks all the time whether the counts stay what they are.
fn assert_steady(scene: &Scene, counts: (u64, u64, u64)) {
    let end = Instant::now() + INTERVAL * 15;
    let mut fleet = scene.fleet();
    while Instant::now() < end {
        let now = fleet.count(&["mail"], crate::scene::soon()).unwrap();
        assert_eq!((now.fresh, now.ready, now.queues[0]), counts);
        assert_eq!(now.lost, 0);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_agents_on_one_folder_are_one_record_for_each_worker() {
    let scene = Scene::new();
    let (_first, second) = (scene.agent(), scene.agent());
    let _workers = ["a", "b", "c"].map(|name| scene.worker(name).start().unwrap());
    scene.until_counts(3, 3);
    assert_steady(&scene, (3, 3, 3));
    assert_eq!(scene.members().len(), 3);
    let killed = scene.process("killed");
    scene.until_counts(4, 4);
    killed.kill();
    scene.until_counts(3, 3);
    assert_eq!(scene.lost().len(), 1);
    // The one that stays publishes what the other has withdrawn.
    second.signal(Signal::SIGTERM);
    assert_eq!(second.exit(), 0);
    scene.until_counts(3, 3);
}

#[test]
fn a_worker_that_beats_by_itself_too_is_one_record_and_outlives_the_agent() {
    let scene = Scene::new();
    let agent = scene.agent();
    let _worker = scene.worker("w").redis(scene.redis.url()).start().unwrap();
    scene.until_counts(1, 1);
    some("a beat of its own", || scene.record("w")?.stat.filter(|stat| stat.failures == 0));
    assert_steady(&scene, (1, 1, 1));
    assert_eq!(scene.members().len(), 1);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit(), 0);
    assert_steady(&scene, (1, 1, 1));
}

#[test]
fn workers_of_several_clusters_share_a_folder() {
    let scene = Scene::new();
    let agent = scene.agent();
    let _one = scene.worker("one").start().unwrap();
    let _other = scene.worker("other").cluster("d").start().unwrap();
    scene.until_counts(1, 1);
    until("a worker of the other cluster", || scene.redis.ask::<u64>("ZCARD heartbeat:{d}:workers") == 1);
    // The test's own questions come and go.
    until("one connection for both", || {
        let clients: String = scene.redis.ask("CLIENT LIST");
        clients.lines().filter(|client| client.contains(" laddr=127.0.0.1:")).count() == 1
    });
    let mut fleet = heartbeat::fleet::Fleet::new(scene.redis.url().parse().unwrap(), "d");
    some("a worker of the other cluster", || {
        (fleet.count(&[], crate::scene::soon()).unwrap().ready == 1).then_some(())
    });
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit(), 0);
    assert_eq!(fleet.count(&[], crate::scene::soon()).unwrap().fresh, 0);
    assert_eq!(scene.counts(), (0, 0, 0));
}

#[test]
fn a_copied_file_is_no_second_worker_and_removing_it_withdraws_nobody() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let _worker = scene.worker("w").start().unwrap();
    scene.until_counts(1, 1);
    std::fs::copy(scene.file("w"), scene.file("copy")).unwrap();
    assert_steady(&scene, (1, 1, 1));
    std::fs::remove_file(scene.file("copy")).unwrap();
    assert_steady(&scene, (1, 1, 1));
}

#[test]
fn heartbeat_run_beats_to_redis_by_flag_and_by_environment() {
    for by_flag in [true, false] {
        let scene = Scene::new();
        let mut command = scene.bench.command(crate::bench::HEARTBEAT);
        command.args(["run", "--file", "beat", "--cluster", "c", "--queue", "mail", "--interval", "100ms"]);
        if by_flag {
            command.args(["--redis", &scene.redis.url()]);
        } else {
            command.env("HEARTBEAT_REDIS_URL", scene.redis.url());
        }
        let program = crate::bench::start(command.args(["--", "sleep", "600"]));
        scene.until_counts(1, 1);
        program.signal(Signal::SIGTERM);
        assert_eq!(program.exit(), 143);
        assert!(scene.members().is_empty());
    }
}
