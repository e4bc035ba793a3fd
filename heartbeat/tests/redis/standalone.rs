//! One server: what a beat writes, what it costs, and how a worker comes and goes.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use heartbeat::fleet::Fleet;
use heartbeat::record::Record;

use crate::servers::{SOON, Server, soon, until};
use crate::worker::{INTERVAL, PROMISE, Worker, builder};

#[test]
fn a_beat_is_one_round_trip_and_writes_the_keys_of_the_contract() {
    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    let record = worker.record();
    let stat = format!("heartbeat:{{c}}:stat:{}", record.id);
    let mut keys = vec![stat.clone()];
    keys.extend(["names", "queue:mail", "ready", "workers"].map(|key| format!("heartbeat:{{c}}:{key}")));
    keys.sort();
    assert_eq!(redis.keys(), keys);
    let stored: Vec<u8> = redis.ask(&format!("GET {stat}"));
    let stored = Record::parse(&stored).expect("a record");
    assert_eq!((stored.id, &stored.worker), (record.id, &record.worker));
    let left: u64 = redis.ask(&format!("PTTL {stat}"));
    assert!(left <= PROMISE.as_millis().try_into().unwrap(), "{left}");
    for set in ["workers", "ready", "queue:mail"] {
        // By the server's own clock.
        let score: u64 = redis.ask(&format!("ZSCORE heartbeat:{{c}}:{set} {}", record.id));
        let time: (u64, u64) = redis.ask("TIME");
        let ahead = score.saturating_sub(time.0 * 1_000);
        let most = u64::try_from(PROMISE.as_millis()).unwrap() + 1_000;
        assert!((1..=most).contains(&ahead), "{set} is {ahead} ms ahead");
        let left: u64 = redis.ask(&format!("PTTL heartbeat:{{c}}:{set}"));
        assert!(left > 3_600_000, "{left}");
    }

    // From here on: one command a beat, whatever the number of queues, and no other.
    let (beats, commands) = (redis.calls("evalsha"), redis.calls("eval"));
    until("five more beats", SOON, || (redis.calls("evalsha") >= beats + 5).then_some(()));
    assert_eq!(redis.calls("eval"), commands);
    let sent: String = redis.ask("CLIENT LIST");
    let port = format!("laddr=127.0.0.1:{}", redis.port);
    let clients: Vec<_> = sent.lines().filter(|line| line.contains(&port)).collect();
    assert!(matches!(clients[..], [client] if client.contains("cmd=evalsha")), "{clients:?}");
    for command in ["scan", "script|load", "client|setname", "hello", "auth", "select"] {
        assert_eq!(redis.calls(command), 0, "{command}");
    }
}

#[test]
fn a_clean_stop_leaves_no_key_behind() {
    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    assert!(!redis.keys().is_empty());
    worker.heartbeat.stop().expect("a clean stop");
    assert_eq!(redis.keys(), Vec::<String>::new());
}

#[test]
fn a_unix_socket_and_another_database_do_as_well() {
    let redis = Server::start(&["--port", "0"]);
    let worker = Worker::start(&format!("unix://{}?db=3", redis.socket().display()));
    worker.wait_published();
    assert_eq!(redis.keys(), Vec::<String>::new());
    let url = format!("redis+unix://{}?db=3", redis.socket().display());
    let mut fleet = Fleet::new(url.parse().unwrap(), "c");
    assert_eq!(fleet.count(&["mail"], soon()).unwrap().queues, [1]);
}

#[test]
fn a_worker_that_can_take_no_work_leaves_the_queues_at_once_and_stays_in_the_cluster() {
    let redis = Server::start(&[]);
    let settings = builder().redis(redis.url()).queues(["mail"]).interval(Duration::from_secs(2));
    let worker = Worker::with(settings.start_deadline(Duration::from_mins(1)));
    let mut fleet = Fleet::new(redis.url().parse().unwrap(), "c");
    let mut counts = |expected: (u64, u64, u64)| {
        until(&format!("{expected:?} fresh, ready and for mail"), SOON, || {
            let counts = fleet.count(&["mail"], soon()).unwrap();
            ((counts.fresh, counts.ready, counts.queues[0]) == expected).then_some(())
        });
    };
    counts((1, 0, 0));
    let at_once = Duration::from_secs(1);
    let begun = Instant::now();
    worker.heartbeat.ready();
    counts((1, 1, 1));
    assert!(begun.elapsed() < at_once, "ready after {:?}", begun.elapsed());
    let task = worker.heartbeat.task("resize", Duration::from_millis(200));
    counts((1, 0, 0));
    task.done();
    counts((1, 1, 1));
    let begun = Instant::now();
    worker.heartbeat.drain(Duration::from_mins(1));
    counts((1, 0, 0));
    assert!(begun.elapsed() < at_once, "drained after {:?}", begun.elapsed());
}

#[test]
fn a_fleet_that_starts_together_does_not_beat_together() {
    let redis = Server::start(&[]);
    let start =
        |n: usize| builder().worker(format!("w{n}")).redis(redis.url()).promise(PROMISE).start().unwrap();
    let workers: Vec<_> = (0..30).map(start).collect();
    until("a beat of each", SOON, || (redis.ask::<u64>("ZCARD heartbeat:{c}:workers") == 30).then_some(()));
    let scores: Vec<(String, u64)> = redis.ask("ZRANGE heartbeat:{c}:workers 0 -1 WITHSCORES");
    // Which tenth of its second each arrived in.
    let tenths: HashSet<u64> = scores.iter().map(|(_, score)| score % 1_000 / 100).collect();
    assert!(tenths.len() >= 5, "all beats came within {} tenths of a second: {scores:?}", tenths.len());
    drop(workers);
}

#[test]
fn the_record_says_when_redis_was_last_reached() {
    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    let interval = u64::try_from(INTERVAL.as_millis()).unwrap();
    until("a fresh success", SOON, || {
        let record = worker.record();
        let stat = record.stat?;
        (record.at_mono_ms - stat.ok_mono_ms <= interval && stat.failures == 0).then_some(())
    });
    assert_eq!(worker.heartbeat.counters().redis_failures, 0);
    assert_eq!(worker.heartbeat.last_error(), None);
    let plain = Worker::with(builder());
    assert_eq!(plain.record().stat, None);
}

#[test]
fn a_forked_child_neither_beats_nor_withdraws() {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    let keys = redis.keys();
    // SAFETY: the child touches the handle alone, which is what is tested, and leaves without its parent's clean-up.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let stopped = worker.heartbeat.stop().is_ok();
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(i32::from(!stopped)) }
        }
        ForkResult::Parent { child } => {
            assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))));
        }
    }
    let beats = redis.calls("evalsha");
    until("beats of the parent", SOON, || (redis.calls("evalsha") > beats + 2).then_some(()));
    assert_eq!(redis.keys(), keys);
}

#[test]
fn a_bad_url_and_a_missing_certificate_are_refused_at_the_start_without_the_password() {
    for url in
        ["redis://me:S3cret@", "redis://me:S3cret@h?x=1", "rediss://me:S3cret@h?ca=/no/such/file", "S3cret"]
    {
        let error = builder().redis(url).start().expect_err(url);
        assert_eq!(error.kind(), heartbeat::ErrorKind::Configuration, "{url}");
        let told = format!("{error} {error:?} {:?}", builder().redis(url));
        assert!(!told.contains("S3cret"), "{told}");
    }
    let from_environment =
        builder().environment(|name| (name == "HEARTBEAT_REDIS_URL").then(|| "redis://:S3cret@".into()));
    let error = from_environment.start().expect_err("a bad URL");
    assert_eq!(error.kind(), heartbeat::ErrorKind::Configuration);
    assert!(!format!("{error}").contains("S3cret"));
}

#[test]
fn the_largest_record_has_room_for_its_stat() {
    let names = |bytes: usize| vec!["q".repeat(bytes)];
    let start = |bytes: usize, redis: bool| {
        let builder = builder().queues(names(bytes));
        if redis { builder.redis("redis://127.0.0.1:1").start() } else { builder.start() }
    };
    let most = (1..4_096).rev().find(|bytes| start(*bytes, false).is_ok()).expect("a size that fits");
    assert!(start(most, true).is_err());
    assert!(start(most - 100, true).is_ok());
}

#[test]
fn the_thread_for_redis_takes_no_signal_of_the_programs() {
    let redis = Server::start(&[]);
    let worker = Worker::start(&redis.url());
    worker.wait_published();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let threads: Vec<_> = tasks
        // One may end meanwhile.
        .filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() == "heartbeat-redis")
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .collect();
    assert!(!threads.is_empty());
    for status in threads {
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).expect("a mask");
        let blocked = u64::from_str_radix(blocked, 16).expect("a mask");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGCHLD] {
            assert_ne!(blocked & (1 << (signal - 1)), 0, "signal {signal}");
        }
    }
}

#[test]
fn a_program_that_exits_without_a_stop_withdraws_all_the_same() {
    // This test is that program too.
    if let Ok(url) = std::env::var("REDIS_OF_THE_TEST") {
        exit_without_a_stop(&url);
    }
    let redis = Server::start(&[]);
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "standalone::a_program_that_exits_without_a_stop_withdraws_all_the_same"])
        .env("REDIS_OF_THE_TEST", redis.url())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(ended.code(), Some(7));
    // A beat in two steps, because its script was new there, and the withdrawal.
    assert!(redis.calls("evalsha") + redis.calls("eval") >= 3);
    assert_eq!(redis.keys(), Vec::<String>::new());
}

fn exit_without_a_stop(url: &str) -> ! {
    let worker = Worker::with(builder().redis(url).interval(Duration::from_secs(2)));
    worker.wait_published();
    std::mem::forget(worker);
    std::process::exit(7);
}
