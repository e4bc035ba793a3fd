//! Who may do what: the least rights of a publisher and of a checker, and what is told where they do not suffice.

use std::ops::ControlFlow;
use std::time::Duration;

use heartbeat::fleet::{Cursor, ErrorKind, Fleet};

use crate::servers::{SOON, Server, soon, until};
use crate::worker::{Worker, builder};

/// As in the README, where `orders` stands for the cluster.
pub fn rights(of: &str) -> String {
    let readme = include_str!("../../README.md");
    let line =
        readme.lines().find(|line| line.starts_with(&format!("ACL SETUSER {of} "))).expect("an ACL line");
    line.replace("orders", "c").replace(">PASSWORD", ">S3cret")
}

fn url(redis: &Server, user: &str, password: &str) -> String {
    format!("redis://{user}:{password}@127.0.0.1:{}", redis.port)
}

#[test]
fn a_publisher_and_a_checker_do_with_the_least_rights() {
    let redis = Server::start(&[]);
    redis.ask::<()>(&rights("publisher"));
    redis.ask::<()>(&rights("checker"));
    let worker = Worker::start(&url(&redis, "publisher", "S3cret"));
    worker.wait_published();
    assert_eq!(worker.heartbeat.counters().redis_failures, 0);

    let mut checker = Fleet::new(url(&redis, "checker", "S3cret").parse().unwrap(), "c");
    assert_eq!(checker.count(&["mail"], soon()).unwrap().ready, 1);
    assert_eq!(checker.members(&Cursor::default(), 10, soon()).unwrap().members.len(), 1);
    assert_eq!(checker.named(&["w"], soon()).unwrap().len(), 1);
    assert!(checker.lost(10, soon()).unwrap().lost.is_empty());
    let record = worker.record();
    let mut here = 0;
    let each = |_| {
        here += 1;
        ControlFlow::Continue(())
    };
    checker.each_member(Some(&record.host), soon(), each).unwrap();
    assert_eq!(here, 1);
    assert_eq!(checker.take_from("mail", &[record.id], soon()).unwrap(), [true]);
    // What is too large for a record is read in part.
    redis.ask::<()>(&format!("SETRANGE heartbeat:{{c}}:stat:{} 9000000 x", record.id));
    assert_eq!(checker.members(&Cursor::default(), 10, soon()).unwrap().members.len(), 1);

    // A checker cannot write, and neither sees another cluster.
    let error = checker.withdraw(&[&worker.record()], soon()).unwrap().remove(0).expect_err("a denial");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    for user in ["checker", "publisher"] {
        let mut fleet = Fleet::new(url(&redis, user, "S3cret").parse().unwrap(), "other");
        let error = fleet.count(&[], soon()).expect_err("a denial");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    let mut publisher = Fleet::new(url(&redis, "publisher", "S3cret").parse().unwrap(), "c");
    publisher.lose(&[(&worker.record(), 1)], soon()).unwrap().remove(0).expect("the right to");
    worker.heartbeat.stop().unwrap();
    assert_eq!(redis.keys(), Vec::<String>::new());
    let denied: Vec<redis::Value> = redis.ask("ACL LOG");
    assert_eq!(denied.len(), 3, "nothing else was denied: {denied:?}");
}

#[test]
fn forgotten_workers_are_pruned_with_the_least_rights_too() {
    let redis = Server::start(&[]);
    redis.ask::<()>(&rights("publisher"));
    let id = "0123456789abcdef0123456789abcdef";
    for set in ["workers", "ready", "queue:mail"] {
        redis.ask::<()>(&format!("ZADD heartbeat:{{c}}:{set} 1000 {id}"));
    }
    redis.ask::<()>(&format!("HSET heartbeat:{{c}}:names {id} 30000\nold\nhost =old {id}"));
    let worker = Worker::start(&url(&redis, "publisher", "S3cret"));
    worker.wait_published();
    let id = worker.record().id.to_string();
    for set in ["workers", "ready", "queue:mail"] {
        let members: Vec<String> = redis.ask(&format!("ZRANGE heartbeat:{{c}}:{set} 0 -1"));
        assert!(matches!(&members[..], [member] if *member == id), "{set}: {members:?}");
    }
    let mut expected = ["=w".to_owned(), id];
    let mut names: Vec<String> = redis.ask("HKEYS heartbeat:{c}:names");
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn another_database_than_0_asks_for_one_right_more() {
    let redis = Server::start(&[]);
    redis.ask::<()>(&rights("publisher"));
    redis.ask::<()>(&rights("checker"));
    let url = |user| format!("{}/3", url(&redis, user, "S3cret"));
    let count =
        |user| Fleet::new(url(user).parse().unwrap(), "c").count(&[], soon()).map(|counts| counts.ready);
    let worker = Worker::with(builder().redis(url("publisher")).interval(Duration::from_millis(50)));
    worker.wait_failing();
    assert_eq!(count("checker").expect_err("a denial").kind(), ErrorKind::Denied);
    redis.ask::<()>("ACL SETUSER publisher +select");
    redis.ask::<()>("ACL SETUSER checker +select");
    worker.wait_published();
    assert_eq!(count("checker").unwrap(), 1);
}

#[test]
fn a_denial_is_counted_and_told_without_the_password_and_the_file_goes_on() {
    let redis = Server::start(&[]);
    redis.ask::<()>("ACL SETUSER me on >S3cret ~* +ping");
    for (password, expected) in [("S3cret", "NOPERM"), ("S3cret-but-wrong", "WRONGPASS")] {
        let worker =
            Worker::with(builder().redis(url(&redis, "me", password)).interval(Duration::from_millis(50)));
        until("failures", SOON, || (worker.heartbeat.counters().redis_failures > 3).then_some(()));
        let text = worker.heartbeat.last_error().expect("an error");
        assert!(text.contains(expected) && !text.contains("S3cret"), "{text}");
        let beats = worker.record().seq;
        until("beats of the file", SOON, || (worker.record().seq > beats + 3).then_some(()));
    }
    // Once it is allowed, it goes on by itself.
    let worker =
        Worker::with(builder().redis(url(&redis, "me", "S3cret")).interval(Duration::from_millis(50)));
    worker.wait_failing();
    redis.ask::<()>("ACL SETUSER me +@all");
    worker.wait_published();
}
