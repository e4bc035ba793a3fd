//! A Redis that is frozen, gone, or empty again.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bench::{equal, until};
use crate::scene::{INTERVAL, Scene};

#[test]
fn a_redis_that_is_frozen_for_5_s_is_told_once_and_everybody_is_back_after_it() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let _workers = ["a", "b"].map(|name| scene.worker(name).start().unwrap());
    let stopping = scene.process("stopping");
    scene.until_counts(3, 3);
    scene.redis.freeze();
    let begun = Instant::now();
    stopping.stop();
    std::thread::sleep(Duration::from_secs(5).saturating_sub(begun.elapsed()));
    let errands_before_thaw = Instant::now();
    scene.redis.thaw();
    scene.until_counts(2, 2);
    let seqs = || -> Vec<u64> { scene.members().iter().filter_map(|m| Some(m.record()?.seq)).collect() };
    let first = seqs();
    until("all beat on", || seqs().iter().zip(&first).all(|(now, then)| now > then));
    assert!(errands_before_thaw.elapsed() < Duration::from_secs(2), "{:?}", errands_before_thaw.elapsed());
    until("the return is told", || scene.bench.stderr().contains("is reached again"));
    let told = scene.bench.stderr();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.starts_with("heartbeat: cannot publish to Redis: 127.0.0.1:"), "{told}");
    assert!(scene.lost().is_empty());
}

#[test]
fn a_redis_that_is_killed_and_comes_back_empty_knows_all_workers_again() {
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let _workers = ["a", "b"].map(|name| scene.worker(name).start().unwrap());
    scene.until_counts(2, 2);
    scene.redis.kill();
    until("that is told", || scene.bench.stderr().lines().count() == 1);
    std::thread::sleep(INTERVAL * 5);
    scene.redis.restart();
    let begun = Instant::now();
    scene.until_counts(2, 2);
    assert!(begun.elapsed() < INTERVAL * 4, "{:?}", begun.elapsed());
    equal(&2, || scene.bench.stderr().lines().count());
}

#[test]
fn a_frozen_redis_does_not_hold_up_the_end() {
    let scene = Scene::new();
    let agent = scene.agent();
    let _worker = scene.worker("w").start().unwrap();
    scene.until_counts(1, 1);
    scene.redis.freeze();
    std::thread::sleep(INTERVAL * 2);
    let begun = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit(), 0);
    assert!(begun.elapsed() < Duration::from_millis(1_100), "{:?}", begun.elapsed());
    assert!(scene.bench.stderr().contains("cannot withdraw from Redis"), "{}", scene.bench.stderr());
}

#[test]
fn a_cluster_that_redis_refuses_holds_up_no_other_one() {
    // Whom an agent tells of first is chance.
    for _ in 0..3 {
        let scene = Scene::new();
        scene.redis.ask::<()>("ACL SETUSER agent on >S3cret ~heartbeat:{c}:* +@all");
        let url = scene.redis.url().replace("redis://", "redis://agent:S3cret@");
        let refused = ["x", "y", "z"].map(|name| scene.worker(name).cluster("d").start().unwrap());
        let _workers = ["a", "b"].map(|name| scene.worker(name).start().unwrap());
        let agent = crate::bench::start(scene.agent_command(&[]).env("HEARTBEAT_REDIS_URL", url));
        scene.until_counts(2, 2);
        until("the refusal is told", || scene.bench.stderr().contains("NOPERM"));
        refused[0].stop().unwrap();
        // Without a last word.
        std::fs::remove_file(scene.file("y")).unwrap();
        let third = scene.worker("third").start().unwrap();
        scene.until_counts(3, 3);
        third.stop().unwrap();
        scene.until_counts(2, 2);
        let seqs = || -> Vec<u64> { scene.members().iter().filter_map(|m| Some(m.record()?.seq)).collect() };
        for _ in 0..3 {
            let first = seqs();
            until("all beat on", || seqs().iter().zip(&first).all(|(now, then)| now > then));
            assert_eq!(scene.counts(), (2, 2, 2));
        }
        let told = scene.bench.stderr();
        assert_eq!(told.matches("cannot publish to Redis").count(), 1, "{told}");
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.exit(), 0);
        assert_eq!(scene.counts(), (0, 0, 0));
        assert!(!scene.bench.stderr().contains("S3cret"), "{}", scene.bench.stderr());
    }
}
