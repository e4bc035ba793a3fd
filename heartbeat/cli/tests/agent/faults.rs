//! A Redis that is frozen, gone, empty again, or late.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
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

#[test]
fn a_loss_that_redis_refuses_is_told_once() {
    let scene = Scene::new();
    scene.redis.ask::<()>("ACL SETUSER agent on >S3cret ~heartbeat:{c}:* +@all");
    let url = scene.redis.url().replace("redis://", "redis://agent:S3cret@");
    let refused = scene.process_of("d", "refused");
    let _worker = scene.worker("w").start().unwrap();
    let _agent = crate::bench::start(scene.agent_command(&[]).env("HEARTBEAT_REDIS_URL", url));
    scene.until_counts(1, 1);
    let refusals = || scene.redis.info("errorstats", "errorstat_NOPERM");
    let before = refusals();
    until("its beats are refused", || refusals() > before + 2);
    refused.kill();
    until("nothing is refused any more", || {
        let before = refusals();
        thread::sleep(INTERVAL * 4);
        refusals() == before
    });
    assert_eq!(scene.counts(), (1, 1, 1));
}

/// The URL of something that carries bytes to a Redis and back, the answers by so many milliseconds late.
fn late(redis: &str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (server, late_by_ms) = (redis.replace("redis://", ""), Arc::<AtomicU64>::default());
    let by = Arc::clone(&late_by_ms);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&server) else { continue };
            let (from, to, by) = (server.try_clone().unwrap(), client.try_clone().unwrap(), Arc::clone(&by));
            let wait = move || thread::sleep(Duration::from_millis(by.load(Ordering::Relaxed)));
            thread::spawn(move || carry(from, to, wait));
            thread::spawn(move || carry(client, server, || {}));
        }
    });
    (url, late_by_ms)
}

fn carry(mut from: TcpStream, mut to: TcpStream, before_each: impl Fn()) {
    let mut bytes = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        before_each();
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // It may be closed already.
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_redis_whose_answers_come_too_late_still_hears_of_all_workers() {
    let scene = Scene::new();
    let (url, late_by_ms) = late(&scene.redis.url());
    let promise = Duration::from_secs(3);
    let _workers: Vec<_> =
        (0..20).map(|number| scene.worker(&format!("w{number}")).promise(promise).start().unwrap()).collect();
    let _agent = crate::bench::start(scene.agent_command(&[]).env("HEARTBEAT_REDIS_URL", url));
    scene.until_counts(20, 20);
    // Longer than an agent of this interval waits.
    late_by_ms.store(2_000, Ordering::Relaxed);
    let end = Instant::now() + promise * 3;
    while Instant::now() < end {
        assert_eq!(scene.counts(), (20, 20, 20));
        thread::sleep(INTERVAL / 10);
    }
    let told = scene.bench.stderr();
    assert!(told.lines().count() == 1 && told.contains("no answer in time"), "{told}");
    late_by_ms.store(0, Ordering::Relaxed);
    until("the return is told", || scene.bench.stderr().contains("is reached again"));
}

#[test]
fn a_redis_that_is_late_from_the_first_contact_on_hears_of_more_workers_than_go_at_once() {
    let scene = Scene::new();
    let (url, late_by_ms) = late(&scene.redis.url());
    late_by_ms.store(2_000, Ordering::Relaxed);
    let promise = Duration::from_secs(10);
    let worker = |number| scene.worker(&format!("w{number}")).interval(INTERVAL * 5).promise(promise);
    let _workers: Vec<_> = (0..450).map(|number| worker(number).start().unwrap()).collect();
    let _agent = crate::bench::start(scene.agent_command(&[]).env("HEARTBEAT_REDIS_URL", url));
    scene.until_counts(450, 450);
    let end = Instant::now() + promise;
    while Instant::now() < end {
        assert_eq!(scene.counts(), (450, 450, 450));
        thread::sleep(INTERVAL / 10);
    }
    let told = scene.bench.stderr();
    assert!(told.lines().count() == 1 && told.contains("no answer in time"), "{told}");
}

#[test]
fn a_worker_is_known_to_a_redis_that_is_late_from_the_first_contact_on() {
    let scene = Scene::new();
    let (url, late_by_ms) = late(&scene.redis.url());
    late_by_ms.store(2_000, Ordering::Relaxed);
    let _worker = scene.worker("w").redis(url).start().unwrap();
    scene.until_counts(1, 1);
}
