//! Sentinel: the worker follows its master.

use heartbeat::fleet::{ErrorKind, Fleet};

use crate::servers::{SOON, Server, soon, until};
use crate::worker::Worker;

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
    let worker = Worker::start(&url(&sentinel));
    worker.wait_published();
    until("the beat at the master", SOON, || (!master.keys().is_empty()).then_some(()));
    let witness = worker.witness();
    master.kill();
    until("the replica is the master", SOON, || {
        replica.try_ask::<String>("INFO replication").ok()?.contains("role:master").then_some(())
    });
    worker_is_at(&worker, &sentinel);
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
