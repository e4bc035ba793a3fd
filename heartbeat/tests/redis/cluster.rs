//! A Redis Cluster of six nodes: a failover, and a slot that moves under a worker that beats.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};

use heartbeat::fleet::{Beat, Cursor, Fleet, Fleets, Member, News};
use heartbeat::record::Id;

use crate::access::rights;
use crate::servers::{SOON, Server, soon, until};
use crate::signed::{OLD, keys};
use crate::worker::Worker;

struct Cluster(Vec<Server>);

impl Cluster {
    fn start() -> Self {
        let settings =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
        let nodes: Vec<_> = (0..6).map(|_| Server::start(&settings)).collect();
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .stdout(Stdio::null())
            .status()
            .expect("redis-cli");
        assert!(created.success());
        let cluster = Self(nodes);
        until("the cluster is well", SOON, || {
            let well = |node: &Server| node.ask::<String>("CLUSTER INFO").contains("cluster_state:ok");
            cluster.0.iter().all(well).then_some(())
        });
        cluster
    }

    /// All nodes but the last as seeds; the first of them does not exist.
    fn url(&self) -> String {
        let seeds = self.0.iter().take(5).map(|node| format!("127.0.0.1:{}", node.port));
        format!("redis+cluster://127.0.0.1:1,{}", seeds.collect::<Vec<_>>().join(","))
    }

    fn is_master(node: &Server) -> bool {
        node.try_ask::<String>("INFO replication").is_ok_and(|state| state.contains("role:master"))
    }

    fn holds(node: &Server) -> bool {
        node.try_ask::<Vec<String>>("KEYS *").is_ok_and(|keys| !keys.is_empty())
    }

    /// The master that has the keys.
    fn owner(&self) -> usize {
        let holds = |node: &&Server| Self::is_master(node) && Self::holds(node);
        until("a master with the keys", SOON, || {
            let owner = self.0.iter().find(holds)?.port;
            self.0.iter().position(|node| node.port == owner)
        })
    }

    fn id(node: &Server) -> String {
        node.ask("CLUSTER MYID")
    }

    /// In which all keys lie.
    fn slot(node: &Server) -> u64 {
        node.ask("CLUSTER KEYSLOT heartbeat:{c}:workers")
    }

    /// Who hands the slot over, and who takes it; no key has moved yet.
    fn begin_to_move(&self) -> (&Server, &Server) {
        let from = self.owner();
        let to = (0..6).find(|to| *to != from && Self::is_master(&self.0[*to])).expect("another master");
        let (from, to) = (&self.0[from], &self.0[to]);
        let slot = Self::slot(from);
        to.ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", Self::id(from)));
        from.ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", Self::id(to)));
        (from, to)
    }
}

fn wait_beat(worker: &Worker) {
    let before = worker.record().at_mono_ms;
    until("a beat that arrives", SOON, || {
        let stat = worker.record().stat?;
        (stat.ok_mono_ms > before && stat.failures == 0).then_some(())
    });
}

#[test]
fn a_worker_beats_through_a_migration_and_a_failover() {
    let mut cluster = Cluster::start();
    // With the least rights.
    for (node, user) in cluster.0.iter().flat_map(|node| [(node, "publisher"), (node, "checker")]) {
        node.ask::<()>(&format!("{} +asking", rights(user)));
    }
    let url = |user: &str| cluster.url().replace("://", &format!("://{user}:S3cret@"));
    let worker = Worker::start_signed(&url("publisher"));
    worker.wait_published();
    let mut fleet = Fleet::new(url("checker").parse().unwrap(), "c").signed(keys(OLD));
    assert_eq!(fleet.count(&["mail"], soon()).unwrap().queues, [1]);
    assert_eq!(fleet.members(&Cursor::default(), 10, soon()).unwrap().members.len(), 1);
    let witness = worker.witness();

    // The slot moves: first all keys are here, then some, then none.
    let (from, to) = cluster.begin_to_move();
    wait_beat(&worker);
    let migrate = |key: &str| {
        from.ask::<redis::Value>(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
    };
    // One of the keys that a list is made of, and the records not yet.
    migrate("heartbeat:{c}:ready");
    let members = fleet.members(&Cursor::default(), 10, soon()).unwrap().members;
    assert!(members.len() == 1 && members[0].takes_work && members[0].is_trusted(), "{members:?}");
    for key in from.keys() {
        migrate(&key);
        // A half-moved set of keys is refused; that is a failure among others.
    }
    until("the keys have gone", SOON, || {
        from.keys().iter().for_each(|key| migrate(key));
        from.keys().is_empty().then_some(())
    });
    // Nothing is there any more, so the old owner sends the beat on.
    wait_beat(&worker);
    let slot = Cluster::slot(to);
    for node in [to, from] {
        node.ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {}", Cluster::id(to)));
    }
    wait_beat(&worker);
    assert!(Cluster::holds(to) && !Cluster::holds(from));
    assert_eq!(fleet.count(&["mail"], soon()).unwrap().queues, [1]);

    // Its owner dies, and a replica takes over. Where it has none left, another master's.
    let owner = cluster.owner();
    cluster.0[owner].kill();
    until("the worker is counted at the new master", SOON * 2, || {
        fleet.count(&["mail"], soon()).is_ok_and(|counts| counts.queues == [1]).then_some(())
    });
    wait_beat(&worker);
    assert!(fleet.named(&["w"], soon()).unwrap()[0].takes_work, "by the new master's clock, and signed");
    witness.assert_on_time();
    worker.heartbeat.stop().unwrap();
    until("no key anywhere", SOON, || {
        let holds = |node: &Server| {
            node.port != cluster.0[owner].port && Cluster::is_master(node) && Cluster::holds(node)
        };
        (!cluster.0.iter().any(holds)).then_some(())
    });
}

#[test]
fn a_list_is_whole_whatever_part_of_the_keys_has_moved() {
    let cluster = Cluster::start();
    let worker = Worker::start(&cluster.url());
    let mut record = worker.record();
    worker.heartbeat.stop().unwrap();
    let beats: Vec<_> = (0..250)
        .map(|n| {
            let mut line = Vec::new();
            (record.id, record.worker, record.promise_ms) = (Id(n), format!("w{n}"), 60_000);
            record.write(&mut line);
            (record.clone(), line, n % 3 == 0)
        })
        .collect();
    let news = beats.iter().map(|(record, line, takes_work)| {
        News::Beat(Beat { record, line, takes_work: *takes_work, age_ms: 0 })
    });
    let news: Vec<_> = news.collect();
    let told = Fleets::new(cluster.url().parse().unwrap()).tell(&news, soon());
    assert!(told.iter().all(Result::is_ok), "{told:?}");

    let mut fleet = Fleet::new(cluster.url().parse().unwrap(), "c");
    let mut assert_whole = |when: &str| {
        let (mut records, mut take_work) = (HashSet::new(), HashSet::new());
        let each = |member: Member| {
            records.extend(member.record().map(|record| record.id));
            take_work.extend(member.takes_work.then_some(member.id));
            ControlFlow::Continue(())
        };
        fleet.each_member(Some(&record.host), soon(), each).unwrap();
        assert_eq!((records.len(), take_work.len()), (250, 84), "{when}");
        assert!(take_work.iter().all(|id| id.0 % 3 == 0), "{when}");
    };
    assert_whole("nothing has moved");
    let (from, to) = cluster.begin_to_move();
    let (stats, others): (Vec<_>, Vec<_>) = from.keys().into_iter().partition(|key| key.contains("}:stat:"));
    let migrate = |key: &String| {
        from.ask::<redis::Value>(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
    };
    stats[..100].iter().for_each(migrate);
    assert_whole("some records have moved");
    stats[100..].iter().for_each(migrate);
    assert_whole("all records have moved, and nothing else");
    others.iter().for_each(migrate);
    assert_whole("all has moved");
}

#[test]
fn the_news_of_many_clusters_reach_the_nodes_that_hold_them() {
    let cluster = Cluster::start();
    let worker = Worker::start(&cluster.url());
    let mut record = worker.record();
    let mut fleets = Fleets::new(cluster.url().parse().unwrap());
    let workers: Vec<_> = (0..6)
        .map(|n| {
            let mut line = Vec::new();
            record.cluster = format!("orders-{n}");
            record.write(&mut line);
            (record.clone(), line)
        })
        .collect();
    let beats = workers
        .iter()
        .map(|(record, line)| News::Beat(Beat { record, line, takes_work: true, age_ms: 0 }))
        .collect::<Vec<_>>();
    let told = fleets.tell(&beats, soon());
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    let holding = cluster.0.iter().filter(|node| Cluster::is_master(node) && Cluster::holds(node)).count();
    assert!(holding > 1, "all lie on one node, which shows nothing");
    for (record, _) in &workers {
        let counts = Fleet::new(cluster.url().parse().unwrap(), record.cluster.as_str()).count(&[], soon());
        assert_eq!(counts.unwrap().ready, 1, "{}", record.cluster);
    }
    let stopped: Vec<_> = workers.iter().map(|(record, _)| News::Stopped(record)).collect();
    assert!(fleets.tell(&stopped, soon()).iter().all(Result::is_ok));
}

#[test]
fn the_news_of_very_many_clusters_keep_no_more_than_64_connections() {
    let cluster = Cluster::start();
    let mut record = Worker::start(&cluster.url()).record();
    let records: Vec<_> = (0..100)
        .map(|n| {
            record.cluster = format!("orders-{n}");
            record.clone()
        })
        .collect();
    let connected = || -> usize {
        let clients = |node: &Server| node.ask::<String>("CLIENT LIST TYPE normal").lines().count();
        cluster.0.iter().map(clients).sum()
    };
    let before = connected();
    let mut fleets = Fleets::new(cluster.url().parse().unwrap());
    let lost: Vec<_> = records.iter().map(|record| News::Lost { record, silent_ms: 1 }).collect();
    for _ in 0..2 {
        let told = fleets.tell(&lost, soon() + SOON);
        assert!(told.iter().all(Result::is_ok), "{told:?}");
        until("no more than 64 connections", SOON, || (connected() <= before + 64).then_some(()));
    }
    assert!(connected() > before + 32, "hardly any is kept, which shows nothing");
}

#[test]
fn a_plain_url_to_a_cluster_says_what_to_write() {
    let cluster = Cluster::start();
    let errors: Vec<_> = cluster
        .0
        .iter()
        .filter_map(|node| Fleet::new(node.url().parse().unwrap(), "c").count(&[], soon()).err())
        .collect();
    assert!(errors.len() >= 3, "{errors:?}");
    assert!(errors.iter().all(|error| error.to_string().contains("redis+cluster://")), "{errors:?}");
}
