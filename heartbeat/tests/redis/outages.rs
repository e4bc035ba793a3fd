//! Redis killed, frozen, emptied, slow, full, read-only, or something else altogether: the file's beats stay on time, the
//! worker says itself that it is cut off, and once Redis is back, so is the worker, within two intervals.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Cursor, Fleet};
use heartbeat::record::Record;
use heartbeat::verdict::{Evidence, Machine, Verdict, judge};

use crate::servers::{SOON, Server, soon, until};
use crate::worker::{INTERVAL, PROMISE, Worker, builder};

fn verdict(record: &Record) -> Verdict {
    judge(Evidence::Record(record), &Machine::of(record), None).verdict
}

/// Beats through an outage that lasts for longer than the promise, and after it.
fn through(
    worker: &Worker,
    redis: &mut Server,
    begin: impl FnOnce(&mut Server),
    end: impl FnOnce(&mut Server),
) {
    worker.wait_published();
    let witness = worker.witness();
    assert_eq!(verdict(&worker.record()), Verdict::Alive);
    begin(redis);
    // The worker's own account: live throughout, and ready until its promise has passed.
    let record = until("the worker is cut off", PROMISE * 4, || {
        let record = worker.record();
        let verdict = verdict(&record);
        assert_eq!(verdict.live(), Some(true), "{verdict}");
        (verdict == Verdict::CutOff).then_some(record)
    });
    assert!(record.stat.expect("a stat key").failures > 0);
    assert!(worker.heartbeat.counters().redis_failures > 0);
    assert!(worker.heartbeat.last_error().is_some());
    let ok_before = record.stat.expect("a stat key").ok_mono_ms;
    end(redis);
    let returned = Instant::now();
    let mut fleet = Fleet::new(redis.url().parse().unwrap(), "c");
    until("the worker is back", SOON, || {
        let calls = Instant::now() + Duration::from_secs(2);
        fleet.count(&["mail"], calls).is_ok_and(|counts| counts.queues == [1]).then_some(())
    });
    let took = returned.elapsed();
    assert!(took <= INTERVAL * 2, "back after {took:?}");
    let record = until("the record says so", SOON, || {
        let record = worker.record();
        record.stat.filter(|stat| stat.ok_mono_ms > ok_before && stat.failures == 0).map(|_| record)
    });
    assert_eq!(verdict(&record), Verdict::Alive);
    witness.assert_on_time();
    worker.heartbeat.stop().expect("a clean stop");
    assert_eq!(redis.keys(), Vec::<String>::new());
}

fn through_of(begin: impl FnOnce(&mut Server), end: impl FnOnce(&mut Server)) {
    let mut redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    through(&worker, &mut redis, begin, end);
}

#[test]
fn killed_and_started_again_with_nothing_in_it() {
    through_of(Server::kill, Server::restart);
}

#[test]
fn frozen_and_thawed() {
    through_of(|redis| redis.freeze(), |redis| redis.thaw());
}

#[test]
fn out_of_memory_with_noeviction() {
    through_of(
        |redis| redis.ask("CONFIG SET maxmemory 1 maxmemory-policy noeviction"),
        |redis| redis.ask("CONFIG SET maxmemory 0"),
    );
}

#[test]
fn demoted_to_a_replica_of_nobody() {
    through_of(|redis| redis.ask("REPLICAOF 127.0.0.1 1"), |redis| redis.ask("REPLICAOF NO ONE"));
}

#[test]
fn answering_later_than_anyone_waits() {
    // While it pauses it does not even take back the pause.
    let answers = |redis: &mut Server| until("an answer", SOON, || redis.try_ask::<()>("PING").ok());
    through_of(|redis| redis.ask("CLIENT PAUSE 5500 ALL"), answers);
}

#[test]
fn denying_what_it_allowed_before() {
    through_of(
        |redis| redis.ask("ACL SETUSER default -evalsha -eval"),
        |redis| redis.ask("ACL SETUSER default +@all"),
    );
}

#[test]
fn a_redis_that_answers_slowly_is_still_beaten_to() {
    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    let witness = worker.witness();
    for _ in 0..3 {
        redis.ask::<()>("CLIENT PAUSE 700 ALL");
        let before = worker.record().stat.expect("a stat key").ok_mono_ms;
        until("a beat that waited", SOON, || (worker.record().stat?.ok_mono_ms > before).then_some(()));
    }
    assert_eq!(worker.heartbeat.counters().redis_failures, 0);
    witness.assert_on_time();
}

#[test]
fn emptied_under_the_worker() {
    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    let keys = redis.keys();
    let begun = Instant::now();
    redis.ask::<()>("FLUSHALL");
    until("its keys again", SOON, || (redis.keys() == keys).then_some(()));
    assert!(begun.elapsed() <= INTERVAL * 2, "back after {:?}", begun.elapsed());
    redis.ask::<()>("SCRIPT FLUSH");
    let before = worker.record().stat.expect("a stat key").ok_mono_ms;
    until("another beat", SOON, || (worker.record().stat?.ok_mono_ms > before).then_some(()));
    assert_eq!(worker.heartbeat.counters().redis_failures, 0);
}

/// A Redis that has room for some foreign keys beside the beats, and evicts by this policy.
fn evicting(policy: &str) -> Server {
    let redis = Server::start(&[]);
    let used: String = redis.ask("INFO memory");
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().to_owned();
    let most = used.parse::<u64>().unwrap() + 3_000_000;
    redis.ask::<()>(&format!("CONFIG SET maxmemory {most} maxmemory-policy {policy}"));
    redis
}

/// Writes some foreign keys; refused where there is nothing left to evict.
fn fill(redis: &Server) {
    let filling = "x".repeat(20_000);
    for n in 0..20 {
        drop(redis.try_ask::<()>(&format!("SET filler:{}:{n} {filling} EX 1000", redis.calls("set"))));
    }
}

#[test]
fn evicting_with_volatile_lru_takes_records_and_no_beat() {
    let redis = evicting("volatile-lru");
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    until("evictions", SOON, || {
        fill(&redis);
        let stats: String = redis.ask("INFO stats");
        (!stats.contains("evicted_keys:0\r")).then_some(())
    });
    let before = worker.record().stat.expect("a stat key").ok_mono_ms;
    until("another beat", SOON, || (worker.record().stat?.ok_mono_ms > before).then_some(()));
    let mut fleet = Fleet::new(redis.url().parse().unwrap(), "c");
    until("the worker is counted", SOON, || {
        (fleet.count(&["mail"], soon()).ok()?.queues == [1]).then_some(())
    });
}

#[test]
fn evicting_with_volatile_ttl_takes_the_records_first_and_all_are_counted() {
    let redis = evicting("volatile-ttl");
    let worker = Worker::with(builder().redis(redis.url()).queues(["mail"]).interval(INTERVAL * 4));
    worker.wait_published();
    let mut fleet = Fleet::new(redis.url().parse().unwrap(), "c");
    let verdict = until("its record is evicted", SOON, || {
        fill(&redis);
        let members = fleet.members(&Cursor::default(), 10, soon()).unwrap().members;
        let verdict = members[0].judge(None).verdict;
        (verdict != Verdict::Alive).then_some(verdict)
    });
    assert_eq!(verdict, Verdict::Unknown);
    assert!(redis.keys().iter().filter(|key| key.starts_with("filler:")).count() > 100, "others live longer");
    assert_eq!(fleet.count(&["mail"], soon()).unwrap().queues, [1]);
    assert!(fleet.lost(10, soon()).unwrap().lost.is_empty());
    assert_eq!(worker.heartbeat.counters().redis_failures, 0);
}

#[test]
fn not_there_at_the_start_and_there_later() {
    let mut redis = Server::start(&[]);
    redis.kill();
    let begun = Instant::now();
    let worker = Worker::start(&redis.url());
    assert!(begun.elapsed() < Duration::from_secs(2), "the start took {:?}", begun.elapsed());
    worker.wait_failing();
    redis.restart();
    worker.wait_published();
}

/// A listener that treats whoever connects so.
fn peer(treat: impl Fn(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            treat(stream);
        }
    });
    format!("{address}")
}

#[test]
fn what_is_no_redis_at_all_is_a_failure_and_no_more() {
    let silent = peer(std::mem::forget);
    let hanging_up = peer(drop);
    let web = peer(|mut stream| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    for (scheme, address) in [
        ("redis", &silent),
        ("rediss", &silent),
        ("redis+cluster", &silent),
        ("redis", &hanging_up),
        ("rediss", &hanging_up),
        ("redis", &web),
        ("rediss", &web),
        ("redis+cluster", &web),
    ] {
        let settings = builder().redis(format!("{scheme}://me:S3cret@{address}"));
        let worker = Worker::with(settings.interval(INTERVAL).promise(PROMISE));
        let witness = worker.witness();
        worker.wait_failing();
        until("some beats", SOON, || (worker.heartbeat.counters().beats > 4).then_some(()));
        let text = worker.heartbeat.last_error().expect("an error");
        assert!(!text.contains("S3cret") && text.contains(address), "{scheme}: {text}");
        witness.assert_on_time();
        let begun = Instant::now();
        worker.heartbeat.stop().expect("a clean stop");
        assert!(
            begun.elapsed() < Duration::from_millis(1_500),
            "{scheme}: stopped after {:?}",
            begun.elapsed()
        );
        assert_eq!(worker.heartbeat.counters().panics, 0);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_redis_that_hangs() {
    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    redis.freeze();
    let begun = Instant::now();
    worker.heartbeat.stop().expect("a clean stop");
    assert!(begun.elapsed() < Duration::from_millis(1_600), "stopped after {:?}", begun.elapsed());
    // What was sent before it hung, arrives.
    redis.thaw();
    until("no key", SOON, || redis.keys().is_empty().then_some(()));
}
