//! Sentinel: the worker follows its master.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heartbeat::fleet::{ErrorKind, Fleet};

use crate::access::rights;
use crate::servers::{SOON, Server, soon, until};
use crate::signed::{OLD, keys};
use crate::worker::{INTERVAL, Witness, Worker, builder};

/// A master, its replica, and a Sentinel that knows both.
fn group() -> (Server, Server, Server) {
    let master = Server::start(&[]);
    let replica = Server::start(&[
        "--replicaof",
        &format!("127.0.0.1 {}", master.port),
        "--repl-diskless-sync-delay",
        "0",
    ]);
    until("the replica is up to date", SOON, || {
        let state: String = replica.ask("INFO replication");
        state.contains("master_link_status:up").then_some(())
    });
    let sentinel = Server::sentinel(master.port);
    until("the Sentinel knows the replica", SOON, || {
        let replicas: Vec<redis::Value> = sentinel.ask("SENTINEL REPLICAS orders");
        (replicas.len() == 1).then_some(())
    });
    (master, replica, sentinel)
}

fn url(sentinel: &Server) -> String {
    // The first one is not there, and costs nothing but its refusal.
    format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/orders", sentinel.port)
}

#[test]
fn a_worker_follows_a_failover_from_a_dead_master() {
    let (mut master, replica, sentinel) = group();
    let worker = Worker::start_signed(&url(&sentinel));
    worker.wait_published();
    until("the beat at the master", SOON, || (!master.keys().is_empty()).then_some(()));
    let witness = worker.witness();
    master.kill();
    until("the replica is the master", SOON, || {
        replica.try_ask::<String>("INFO replication").ok()?.contains("role:master").then_some(())
    });
    worker_is_at(&worker, &sentinel);
    let mut fleet = Fleet::new(url(&sentinel).parse().unwrap(), "c").signed(keys(OLD));
    let member = fleet.named(&["w"], soon()).unwrap().pop().unwrap();
    assert!(member.is_trusted() && member.takes_work, "{member:?}");
    witness.assert_on_time();
    worker.heartbeat.stop().unwrap();
    assert_eq!(replica.keys(), Vec::<String>::new());
}

#[test]
fn a_worker_follows_a_failover_from_a_frozen_master() {
    let (master, replica, sentinel) = group();
    let worker = Worker::start(&url(&sentinel));
    worker.wait_published();
    let witness = worker.witness();
    master.freeze();
    until("the replica is the master", SOON, || {
        replica.try_ask::<String>("INFO replication").ok()?.contains("role:master").then_some(())
    });
    worker_is_at(&worker, &sentinel);
    witness.assert_on_time();
    master.thaw();
}

#[test]
fn a_worker_follows_a_failover_that_was_asked_for() {
    let (master, replica, sentinel) = group();
    let worker = Worker::start(&url(&sentinel));
    worker.wait_published();
    let witness = worker.witness();
    until("the failover begins", SOON, || sentinel.try_ask::<()>("SENTINEL FAILOVER orders").ok());
    until("the roles are exchanged", SOON, || {
        // Whose role changes hangs up on everyone.
        let is =
            |server: &Server, role| Some(server.try_ask::<String>("INFO replication").ok()?.contains(role));
        (is(&master, "role:slave")? && is(&replica, "role:master")?).then_some(())
    });
    worker_is_at(&worker, &sentinel);
    witness.assert_on_time();
}

const FLEET: usize = 20;

/// Longer than a failover takes here: 0.5 s until the Sentinel acts, 1 s at most until it begins, and 1 s until it names the
/// new master.
const PATIENT: Duration = Duration::from_secs(15);

/// How long a checker waits that only looks by.
const GLANCE: Duration = Duration::from_millis(200);

/// What was seen of a failover from a master that was killed.
#[derive(Debug)]
struct Failover {
    /// Beats that the old master had accepted and that the new one has never heard of.
    beats_lost: u64,
    /// From the kill until the Sentinel names the new master, and until the last worker has beaten to it.
    named: Duration,
    back: Duration,
}

/// Kills the master under a fleet; for so long before that, its replica hears nothing from it.
fn failover(unheard: Duration) -> Failover {
    let (mut master, replica, sentinel) = group();
    let settings = |n: usize| builder().worker(format!("w{n}")).redis(url(&sentinel)).interval(INTERVAL);
    let workers: Vec<_> = (0..FLEET).map(|n| Worker::with(settings(n).promise(PATIENT))).collect();
    workers.iter().for_each(Worker::wait_published);
    let witnesses: Vec<_> = workers.iter().map(Worker::witness).collect();
    if !unheard.is_zero() {
        master.ask::<()>("ACL SETUSER default -psync -sync");
        master.ask::<()>("CLIENT KILL TYPE replica");
        thread::sleep(unheard);
    }
    // Each beat writes one record.
    let accepted = master.calls("set");
    master.kill();
    let (killed, killed_at) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    let beats_lost = accepted.saturating_sub(replica.calls("set"));
    let later = format!("ZCOUNT heartbeat:{{c}}:ready ({} +inf", (killed_at + PATIENT).as_millis());
    let mut named = None;
    let mut checkers = [url(&sentinel), replica.url()].map(|url| Fleet::new(url.parse().unwrap(), "c"));
    let back = until("all are back", SOON, || {
        for checker in &mut checkers {
            // Who gets an answer is never told that anybody is lost.
            if let Ok(counts) = checker.count(&[], Instant::now() + GLANCE) {
                assert_eq!((counts.fresh, counts.lost), (FLEET as u64, 0), "after {:?}", killed.elapsed());
            }
        }
        let master: Vec<String> = sentinel.ask("SENTINEL GET-MASTER-ADDR-BY-NAME orders");
        if master[1] == replica.port.to_string() {
            named.get_or_insert(killed.elapsed());
        }
        (replica.try_ask::<usize>(&later).ok()? == FLEET).then_some(killed.elapsed())
    });
    witnesses.into_iter().for_each(Witness::assert_on_time);
    Failover { beats_lost, named: named.expect("the name of the new master"), back }
}

#[test]
fn a_failover_loses_beats_that_were_not_replicated_and_those_of_its_own_duration_and_no_worker() {
    for (unheard, least) in [(Duration::ZERO, 0), (INTERVAL * 3, 2 * FLEET as u64)] {
        let seen = failover(unheard);
        eprintln!(
            "{FLEET} workers, interval {INTERVAL:?}, replica deaf for {unheard:?} before the kill: {seen:.2?}"
        );
        assert!((least..=least + 2 * FLEET as u64).contains(&seen.beats_lost), "{seen:?}");
        // Between two looks both checkers may have waited in vain.
        assert!(seen.back <= seen.named + 2 * INTERVAL + 2 * GLANCE, "{seen:?}");
        assert!(seen.back + unheard <= PATIENT, "{seen:?}");
    }
}

/// That a beat made from now on has reached the master that the Sentinel names.
fn worker_is_at(worker: &Worker, sentinel: &Server) {
    let before = worker.record().at_mono_ms;
    until("a beat at the new master", SOON, || {
        let stat = worker.record().stat?;
        (stat.ok_mono_ms > before && stat.failures == 0).then_some(())
    });
    let mut fleet = Fleet::new(url(sentinel).parse().unwrap(), "c");
    until("the worker at the new master", SOON, || {
        fleet.count(&["mail"], soon()).is_ok_and(|counts| counts.queues == [1]).then_some(())
    });
}

#[test]
fn a_service_that_no_sentinel_knows_and_sentinels_that_are_not_there_are_told() {
    let (_master, _replica, sentinel) = group();
    let unknown = url(&sentinel).replace("orders", "other");
    let error = Fleet::new(unknown.parse().unwrap(), "c").count(&[], soon()).expect_err("no such service");
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.to_string().contains("knows no master of other"), "{error}");
    let mut nobody = Fleet::new("redis+sentinel://127.0.0.1:1/orders".parse().unwrap(), "c");
    assert_eq!(nobody.count(&[], soon()).expect_err("nobody").kind(), ErrorKind::Unreachable);
}

#[test]
fn the_least_rights_suffice_behind_a_sentinel_and_on_it() {
    let (mut master, replica, sentinel) = group();
    for (server, user) in
        [&master, &replica].into_iter().flat_map(|server| [(server, "publisher"), (server, "checker")])
    {
        server.ask::<()>(&format!("{} +role", rights(user)));
    }
    sentinel.ask::<()>(&rights("watcher"));
    sentinel.ask::<()>("ACL SETUSER default off");
    let url = |user: &str| {
        let port = sentinel.port;
        format!(
            "redis+sentinel://{user}:S3cret@127.0.0.1:{port}/orders?sentinel_user=watcher&sentinel_password=S3cret"
        )
    };
    let worker = Worker::start(&url("publisher"));
    worker.wait_published();
    master.kill();
    let before = worker.record().at_mono_ms;
    until("a beat at the new master", SOON, || {
        let stat = worker.record().stat?;
        (stat.ok_mono_ms > before + 500 && stat.failures == 0).then_some(())
    });
    let mut checker = Fleet::new(url("checker").parse().unwrap(), "c");
    assert_eq!(checker.count(&["mail"], soon()).unwrap().queues, [1]);
    assert_eq!(checker.place(), format!("127.0.0.1:{}", replica.port));
    let denied: Vec<redis::Value> = replica.ask("ACL LOG");
    assert!(denied.is_empty(), "{denied:?}");
}

#[test]
fn sentinel_and_servers_have_credentials_of_their_own() {
    let (master, _replica, sentinel) = group();
    sentinel.ask::<()>("ACL SETUSER watcher on >S3cret +@all");
    master.ask::<()>("ACL SETUSER me on >0ther ~* +@all");
    let url = |sentinel_password: &str| {
        let port = sentinel.port;
        let options = format!("sentinel_user=watcher&sentinel_password={sentinel_password}");
        format!("redis+sentinel://me:0ther@127.0.0.1:{port}/orders?{options}")
    };
    let mut fleet = Fleet::new(url("S3cret").parse().unwrap(), "c");
    assert_eq!(fleet.count(&[], soon()).unwrap().fresh, 0);
    let error = Fleet::new(url("S3cret-not").parse().unwrap(), "c").count(&[], soon()).expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!format!("{error:?}").contains("S3cret"), "{error:?}");
}
