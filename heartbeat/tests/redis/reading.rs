//! Reading a cluster back: counts, pages, names, the lost, and what somebody else may have written there.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Beat, Cursor, Fleet, Fleets, Member, News};
use heartbeat::record::{Id, Record};
use heartbeat::verdict::Verdict;

use crate::servers::{SOON, Server, soon, until};

fn record(number: u128, worker: &str, promise_ms: u64) -> (Record, Vec<u8>) {
    let line = format!(
        "{{\"v\":1,\"id\":\"{number:032x}\",\"cluster\":\"c\",\"worker\":\"{worker}\",\"host\":\"h\",\
         \"queues\":[\"mail\"],\"pid\":7,\"pid_start\":1,\"pid_ns\":1,\"boot\":\"b\",\"seq\":1,\
         \"at_mono_ms\":5000,\"at_unix_ms\":5000,\"interval_ms\":10,\"promise_ms\":{promise_ms},\
         \"status\":\"idle\",\"tasks\":{{\"running\":0,\"done\":0,\"failed\":0}}}}\n"
    )
    .into_bytes();
    (Record::parse(&line).expect("a record"), line)
}

fn fleet(redis: &Server) -> Fleet {
    Fleet::new(redis.url().parse().unwrap(), "c")
}

fn publish(fleet: &mut Fleet, workers: &[(Record, Vec<u8>)]) {
    let beats: Vec<_> =
        workers.iter().map(|(record, line)| Beat { record, line, takes_work: true, age_ms: 0 }).collect();
    for outcome in fleet.publish(&beats, soon()).unwrap() {
        outcome.unwrap();
    }
}

fn all(fleet: &mut Fleet, size: usize) -> HashMap<String, Member> {
    let mut found = HashMap::new();
    let mut cursor = Cursor::default();
    loop {
        let page = fleet.members(&cursor, size, soon()).unwrap();
        found.extend(page.members.into_iter().map(|member| (member.worker.clone(), member)));
        match page.next {
            Some(next) => cursor = next,
            None => return found,
        }
    }
}

#[test]
fn many_are_published_counted_and_listed_in_pages() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let workers: Vec<_> = (0..2_500).map(|n| record(n, &format!("w{n}"), 30_000)).collect();
    publish(&mut fleet, &workers);
    assert_eq!(redis.calls("eval"), 1, "the script is sent whole once, and not with each beat");
    publish(&mut fleet, &workers);
    assert_eq!(redis.calls("eval"), 1);
    redis.ask::<()>("SCRIPT FLUSH");
    publish(&mut fleet, &workers);
    assert_eq!(redis.calls("eval"), 2, "nor where the server has forgotten it");

    let count = redis.calls("evalsha");
    let counts = fleet.count(&["mail", "none"], soon()).unwrap();
    assert_eq!((counts.fresh, counts.ready, counts.queues, counts.lost), (2_500, 2_500, vec![2_500, 0], 0));
    fleet.count(&["mail", "none"], soon()).unwrap();
    assert_eq!(redis.calls("evalsha"), count + 2, "one round trip each");

    for size in [1, 100, 1_000, usize::MAX] {
        let found = all(&mut fleet, size);
        assert_eq!(found.len(), 2_500);
        let judged = found.values().all(|member| member.judge(None).verdict == Verdict::Alive);
        assert!(judged && found.values().all(|member| member.takes_work));
        if size == 1_000 {
            assert!(fleet.members(&Cursor::default(), 100, soon()).unwrap().members.len() < 300);
        }
    }
    let named = fleet.named(&["w7", "nobody", "w2499"], soon()).unwrap();
    assert_eq!(named.iter().map(|member| member.worker.as_str()).collect::<Vec<_>>(), ["w7", "w2499"]);
    for (records, left) in [(&workers[..2_000], 500), (&workers[2_000..], 0)] {
        let records: Vec<_> = records.iter().map(|(record, _)| record).collect();
        let asked = redis.calls("evalsha") + redis.calls("eval");
        assert!(fleet.withdraw(&records, soon()).unwrap().iter().all(Result::is_ok));
        // By the hundreds, and so at a small part of the cost of a beat each. New scripts are asked for twice.
        assert!(redis.calls("evalsha") + redis.calls("eval") <= asked + 2 * 4);
        assert_eq!(fleet.count(&["mail"], soon()).unwrap().queues, [left]);
    }
    assert_eq!(redis.keys(), Vec::<String>::new());
}

#[test]
fn of_other_hosts_than_the_one_that_is_asked_for_no_record_is_read() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let here = |(mut record, _): (Record, Vec<u8>)| {
        record.host = "here".to_owned();
        let mut line = Vec::new();
        record.write(&mut line);
        (record, line)
    };
    let mut workers: Vec<_> = (0..700).map(|n| record(n, &format!("w{n}"), 30_000)).collect();
    workers.extend((700..730).map(|n| here(record(n, &format!("w{n}"), 30_000))));
    publish(&mut fleet, &workers);
    let evicted = workers[729].0.id;
    redis.ask::<()>(&format!("DEL heartbeat:{{c}}:stat:{evicted}"));

    let mut names = HashSet::new();
    let all_on = |fleet: &mut Fleet, host, each: &mut dyn FnMut(Member)| {
        let each = |member| {
            each(member);
            ControlFlow::<()>::Continue(())
        };
        fleet.each_member(Some(host), soon(), each).unwrap();
    };
    all_on(&mut fleet, "here", &mut |member| {
        assert_eq!((member.host.as_str(), member.record().is_some()), ("here", member.id != evicted));
        names.insert(member.worker);
    });
    assert_eq!(names, (700..730).map(|n| format!("w{n}")).collect());
    assert!(redis.calls("mget") <= 30, "one for each of them at the most");
    all_on(&mut fleet, "nowhere", &mut |member| panic!("{member:?}"));
    let mut asked_for = 3;
    let each = |_| {
        asked_for -= 1;
        if asked_for == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    fleet.each_member(None, soon(), each).unwrap();
    assert_eq!(asked_for, 0, "it ends where it is told to");

    // Whoever has no record is still in the index of its queue.
    let stranger = Id(9_999);
    assert_eq!(fleet.take_from("mail", &[evicted, stranger], soon()).unwrap(), [true, false]);
    assert_eq!(fleet.take_from("none", &[evicted], soon()).unwrap(), [false]);
    assert!(fleet.take_from("mail", &[], soon()).unwrap().is_empty());
}

#[test]
fn the_lost_are_named_until_they_return_or_are_forgotten() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let (lost, back) = (record(1, "orders@web-3", 120), record(2, "orders@web-4", 120));
    publish(&mut fleet, &[lost, back, record(3, "well", 60_000)]);
    let begun = Instant::now();
    until("two lost", SOON, || (fleet.count(&[], soon()).unwrap().lost == 2).then_some(()));
    assert!(begun.elapsed() >= Duration::from_millis(100), "not before their promise");
    let counts = fleet.count(&["mail"], soon()).unwrap();
    assert_eq!((counts.fresh, counts.ready, counts.queues), (1, 1, vec![1]));

    // A new incarnation of the same name takes its place.
    publish(&mut fleet, &[record(4, "orders@web-4", 60_000)]);
    let losses = fleet.lost(10, soon()).unwrap();
    assert!(!losses.more);
    let [lost] = &losses.lost[..] else { panic!("{losses:?}") };
    assert_eq!((lost.worker.as_str(), lost.host.as_str(), lost.promise_ms), ("orders@web-3", "h", Some(120)));
    let elapsed = u64::try_from(begun.elapsed().as_millis()).unwrap();
    assert!((120..=elapsed + 100).contains(&lost.silent_ms), "{lost:?}");
    let mut named = fleet.named(&["orders@web-3", "orders@web-4"], soon()).unwrap();
    named.sort_by(|one, other| one.worker.cmp(&other.worker));
    let verdicts: Vec<_> = named.iter().map(|member| member.judge(None).verdict).collect();
    assert_eq!(verdicts, [Verdict::Silent, Verdict::Alive]);
    assert!(named[0].judge(None).to_string().starts_with("no beat for "));
    assert!(fleet.lost(1, soon()).unwrap().more);

    // For who forgets at once there is none, and the next beat clears up.
    let mut forgetful = self::fleet(&redis).forget_ms(1);
    // All of the above may have taken less than that millisecond.
    until("nobody lost of late", SOON, || (forgetful.count(&[], soon()).unwrap().lost == 0).then_some(()));
    assert!(forgetful.lost(10, soon()).unwrap().lost.is_empty());
    until("one of the next beats has cleared up", SOON, || {
        publish(&mut forgetful, &[record(3, "well", 60_000)]);
        (redis.ask::<u64>("ZCARD heartbeat:{c}:workers") == 2).then_some(())
    });
    assert_eq!(redis.ask::<u64>("HLEN heartbeat:{c}:names"), 4);
    assert_eq!(redis.ask::<u64>("ZCARD heartbeat:{c}:queue:mail"), 2);
}

#[test]
fn one_that_is_seen_to_be_gone_is_lost_at_once_with_its_true_silence_and_back_with_its_next_beat() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let workers = [record(1, "gone", 30_000), record(2, "well", 30_000)];
    publish(&mut fleet, &workers);
    let call_lost = |fleet: &mut Fleet, silent_ms| {
        fleet.lose(&[(&workers[0].0, silent_ms)], soon()).unwrap().remove(0).unwrap();
    };
    let begun = Instant::now();
    call_lost(&mut fleet, 1_200);
    let counts = fleet.count(&["mail"], soon()).unwrap();
    assert_eq!((counts.fresh, counts.ready, counts.queues, counts.lost), (1, 1, vec![1], 1));
    let silence = |fleet: &mut Fleet| {
        let losses = fleet.lost(10, soon()).unwrap().lost;
        let [lost] = &losses[..] else { panic!("{losses:?}") };
        assert_eq!((lost.worker.as_str(), lost.promise_ms), ("gone", Some(30_000)));
        let most = 1_200 + u64::try_from(begun.elapsed().as_millis()).unwrap() + 1;
        assert!((1_200..=most).contains(&lost.silent_ms), "{lost:?}, {most}");
        lost.silent_ms
    };
    let first = silence(&mut fleet);
    let named = fleet.named(&["gone"], soon()).unwrap().remove(0);
    assert!(!named.is_fresh() && !named.takes_work);
    let judgement = named.judge(None);
    assert_eq!(judgement.verdict, Verdict::Gone);
    assert!(judgement.to_string().starts_with("its process is no more, last beat 1.2 s ago"), "{judgement}");

    // Who says it once more, later, says the same.
    until("a longer silence", SOON, || (silence(&mut fleet) > first + 50).then_some(()));
    let lost_at = || redis.ask::<u64>(&format!("ZSCORE heartbeat:{{c}}:workers {}", workers[0].0.id));
    let before = lost_at();
    call_lost(&mut fleet, 1_200 + u64::try_from(begun.elapsed().as_millis()).unwrap());
    assert_eq!(lost_at(), before);
    silence(&mut fleet);

    publish(&mut fleet, &workers);
    assert_eq!(fleet.count(&["mail"], soon()).unwrap().queues, [2]);
    assert_eq!(fleet.named(&["gone"], soon()).unwrap()[0].judge(None).verdict, Verdict::Alive);
}

#[test]
fn one_that_redis_has_never_heard_of_can_be_lost_and_takes_nobodys_name() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis).forget_ms(60_000);
    let (old, new) = (record(1, "w", 30_000), record(2, "w", 30_000));
    publish(&mut fleet, std::slice::from_ref(&new));
    redis.ask::<()>("PERSIST heartbeat:{c}:names");
    fleet.lose(&[(&old.0, 500)], soon()).unwrap().remove(0).unwrap();
    assert_eq!(fleet.named(&["w"], soon()).unwrap()[0].id, new.0.id);
    assert!(fleet.lost(10, soon()).unwrap().lost.is_empty(), "it has started anew");
    fleet.withdraw(&[&new.0], soon()).unwrap();
    assert_eq!(fleet.lost(10, soon()).unwrap().lost.len(), 1);
    for key in ["workers", "names"] {
        assert!(redis.ask::<i64>(&format!("PTTL heartbeat:{{c}}:{key}")) > 60_000, "{key} stays for ever");
    }
}

#[test]
fn a_beat_that_is_told_late_is_lost_no_later_and_its_silence_is_true() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let (record, line) = record(1, "w", 3_000);
    let beat = |age_ms| Beat { record: &record, line: &line, takes_work: true, age_ms };
    fleet.publish(&[beat(2_900)], soon()).unwrap().remove(0).unwrap();
    let begun = Instant::now();
    until("a loss", SOON, || (fleet.count(&[], soon()).unwrap().lost == 1).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let lost = fleet.lost(1, soon()).unwrap().lost.remove(0);
    assert!((3_000..6_000).contains(&lost.silent_ms) && lost.promise_ms == Some(3_000), "{lost:?}");
}

#[test]
fn the_news_of_many_clusters_go_over_one_connection_in_one_round_trip() {
    let redis = Server::start(&[]);
    let mut fleets = Fleets::new(redis.url().parse().unwrap());
    let workers: Vec<_> = (0..30)
        .map(|n| {
            let (mut record, mut line) = record(n, &format!("w{n}"), 30_000);
            record.cluster = format!("c{}", n % 10);
            record.write(&mut line);
            (record, line)
        })
        .collect();
    let beats: Vec<_> = workers
        .iter()
        .map(|(record, line)| News::Beat(Beat { record, line, takes_work: true, age_ms: 0 }))
        .collect();
    let connections = || redis.ask::<String>("INFO stats");
    let received = |info: String| -> u64 {
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        line.trim().parse().unwrap()
    };
    let before = received(connections());
    assert!(fleets.tell(&beats, soon()).iter().all(Result::is_ok));
    // The first answer tells that there is no such script; from then on there is.
    let first = redis.calls("evalsha");
    let mixed: Vec<_> = workers
        .iter()
        .enumerate()
        .map(|(n, (record, line))| match n {
            0..10 => News::Stopped(record),
            10..20 => News::Lost { record, silent_ms: 70 },
            _ => News::Beat(Beat { record, line, takes_work: false, age_ms: 0 }),
        })
        .collect();
    assert!(fleets.tell(&mixed, soon()).iter().all(Result::is_ok));
    // Of the ten that stop, one of each cluster. Two scripts were new: of ten each, one is sent whole, and nine follow.
    assert_eq!(redis.calls("evalsha"), first + 30 + 2 * 9);
    let other = received(connections());
    // One is theirs; each question of this test is another.
    assert!(other - before <= 1 + 4, "{before} {other}");
    for cluster in ["c0", "c7"] {
        let counts = Fleet::new(redis.url().parse().unwrap(), cluster).count(&[], soon()).unwrap();
        assert_eq!((counts.fresh, counts.ready, counts.lost), (1, 0, 1), "{cluster}");
    }
}

#[test]
fn an_abandoned_cluster_vanishes() {
    let redis = Server::start(&[]);
    publish(&mut fleet(&redis).forget_ms(50), &[record(1, "w", 50)]);
    assert_eq!(redis.keys().len(), 5);
    until("no key", SOON, || redis.keys().is_empty().then_some(()));
}

#[test]
fn what_others_have_written_there_is_corrupt_or_passed_over_and_the_rest_is_read() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let workers: Vec<_> = (0..7).map(|n| record(n, &format!("w{n}"), 30_000)).collect();
    publish(&mut fleet, &workers);
    let stat = |n: u128| format!("heartbeat:{{c}}:stat:{n:032x}");
    redis.ask::<()>(&format!("SET {} garbage", stat(0)));
    redis.ask::<()>(&format!("SETRANGE {} 50000000 x", stat(1)));
    redis.ask::<()>(&format!("DEL {}", stat(2)));
    redis.ask::<()>(&format!("LPUSH {} x", stat(2)));
    redis.ask::<()>(&format!("COPY {} {} REPLACE", stat(4), stat(3)));
    redis.ask::<()>(&format!("DEL {}", stat(5)));
    redis.ask::<()>("HSET heartbeat:{c}:names x y = z 0123456789abcdef0123456789abcdef q");
    redis.ask::<()>("ZADD heartbeat:{c}:workers inf 0123456789abcdef0123456789abcdef 1e300 x -inf y");
    let found = all(&mut fleet, 100);
    assert_eq!(found.len(), 7);
    for n in [0, 1, 3] {
        assert_eq!(found[&format!("w{n}")].judge(None).verdict, Verdict::Corrupt, "w{n}");
    }
    assert_eq!(found["w2"].judge(None).verdict, Verdict::Unknown, "a list");
    assert_eq!(found["w4"].judge(None).verdict, Verdict::Alive);
    assert_eq!(found["w5"].judge(None).verdict, Verdict::Unknown, "evicted");
    assert_eq!(found["w6"].judge(None).verdict, Verdict::Alive);
    fleet.lost(10, soon()).unwrap();

    // And where the index itself is not one, that is an error, and no more.
    redis.ask::<()>("SET heartbeat:{c}:workers x");
    for failure in [fleet.count(&[], soon()).err(), fleet.lost(1, soon()).err()] {
        assert_eq!(failure.unwrap().kind(), heartbeat::fleet::ErrorKind::Server);
    }
    assert!(fleet.publish(&[], soon()).unwrap().is_empty());
}

#[test]
fn whose_name_was_evicted_is_a_member_all_the_same() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let workers: Vec<_> = (0..4).map(|n| record(n, &format!("w{n}"), 60_000)).collect();
    publish(&mut fleet, &workers);
    publish(&mut fleet, &[record(4, "w4", 50)]);
    until("one lost", SOON, || (fleet.count(&[], soon()).unwrap().lost == 1).then_some(()));
    redis.ask::<()>("DEL heartbeat:{c}:names");
    // That of the lost one may have a millisecond left.
    for evicted in [1, 4] {
        redis.ask::<()>(&format!("DEL heartbeat:{{c}}:stat:{evicted:032x}"));
    }
    redis.ask::<()>(&format!("SET heartbeat:{{c}}:stat:{:032x} garbage", 2));

    let found = all(&mut fleet, 100);
    let name = |n: u128| format!("{n:032x}");
    let verdict = |name: &str| found[name].judge(None).verdict;
    assert_eq!(found.len(), 5);
    // Its record tells its name.
    assert_eq!((verdict("w0"), found["w0"].host.as_str()), (Verdict::Alive, "h"));
    assert_eq!(verdict("w3"), Verdict::Alive);
    assert_eq!((verdict(&name(1)), verdict(&name(2))), (Verdict::Unknown, Verdict::Corrupt));
    let bare = &found[&name(1)];
    assert_eq!((bare.host.as_str(), bare.age_ms, bare.promise_ms, bare.takes_work), ("", None, None, true));
    let lost = &found[&name(4)];
    assert_eq!((verdict(&name(4)), lost.promise_ms, lost.is_fresh()), (Verdict::Silent, None, false));
    assert!(lost.age_ms.is_some_and(|age_ms| age_ms < 60_000), "{lost:?}");
    let counts = fleet.count(&[], soon()).unwrap();
    assert_eq!((counts.fresh, counts.lost), (4, 1), "as many as are members");
    let losses = fleet.lost(10, soon()).unwrap().lost;
    assert_eq!((losses.len(), &losses[0].worker, losses[0].promise_ms), (1, &name(4), None));
    let mut here = HashSet::new();
    let each = |member: Member| {
        here.insert(member.worker);
        ControlFlow::Continue(())
    };
    fleet.each_member(Some("h"), soon(), each).unwrap();
    assert_eq!(here, HashSet::from(["w0".to_owned(), "w3".to_owned()]), "of the others nobody knows");

    publish(&mut fleet, &workers);
    let names: HashSet<_> = all(&mut fleet, 100).into_keys().collect();
    let expected = (0..4).map(|n| format!("w{n}")).chain([name(4)]);
    assert_eq!(names, expected.collect(), "the next beats bring back all but who is lost");
}

#[test]
fn who_stops_while_the_members_are_read_is_never_a_member_that_nobody_knows() {
    let redis = Server::start(&[]);
    let (end, url) = (AtomicBool::new(false), redis.url());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut fleet = Fleet::new(url.parse().unwrap(), "c");
            // Nobody starts twice as the same incarnation.
            for start in (0..).step_by(20).take_while(|_| !end.load(Ordering::Relaxed)) {
                let workers: Vec<_> = (start..start + 20).map(|n| record(n, "w", 60_000)).collect();
                publish(&mut fleet, &workers);
                let records: Vec<_> = workers.iter().map(|(record, _)| record).collect();
                fleet.withdraw(&records, soon()).unwrap().into_iter().for_each(Result::unwrap);
            }
        });
        let mut fleet = fleet(&redis);
        let mut seen = 0;
        let unknown = until("a thousand members", SOON, || {
            let page = fleet.members(&Cursor::default(), 100, soon()).unwrap();
            seen += page.members.len();
            let unknown =
                page.members.into_iter().find(|member| member.judge(None).verdict != Verdict::Alive);
            (unknown.is_some() || seen > 1_000).then_some(unknown)
        });
        end.store(true, Ordering::Relaxed);
        assert!(unknown.is_none(), "{unknown:?}");
    });
}

#[test]
fn an_index_that_was_evicted_is_whole_again_after_one_beat_of_each() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    let workers: Vec<_> = (0..3).map(|n| record(n, &format!("w{n}"), 30_000)).collect();
    publish(&mut fleet, &workers);
    for key in ["workers", "names", "ready", "queue:mail"] {
        redis.ask::<()>(&format!("DEL heartbeat:{{c}}:{key}"));
        publish(&mut fleet, &workers);
        assert_eq!(fleet.count(&["mail"], soon()).unwrap().queues, [3], "{key}");
        assert_eq!(all(&mut fleet, 10).len(), 3, "{key}");
        assert_eq!(fleet.named(&["w0", "w1", "w2"], soon()).unwrap().len(), 3, "{key}");
    }
    // Names whose owners went with the index do not stay for ever.
    redis.ask::<()>("DEL heartbeat:{c}:workers");
    publish(&mut fleet, &workers[..1]);
    assert_eq!(redis.ask::<u64>("HLEN heartbeat:{c}:names"), 2);
}

#[test]
fn a_connection_that_died_between_two_questions_is_replaced_within_the_second() {
    let mut redis = Server::start(&[]);
    let mut fleet = fleet(&redis);
    publish(&mut fleet, &[record(1, "w", 30_000)]);
    redis.ask::<()>("CLIENT KILL TYPE normal SKIPME yes");
    assert_eq!(fleet.count(&[], soon()).unwrap().fresh, 1);
    redis.kill();
    let error = fleet.count(&[], soon()).expect_err("nobody there");
    assert_eq!(error.kind(), heartbeat::fleet::ErrorKind::Unreachable);
    redis.restart();
    assert_eq!(fleet.count(&[], soon()).unwrap().fresh, 0);
    redis.freeze();
    let begun = Instant::now();
    let error = fleet.count(&[], begun + Duration::from_millis(300)).expect_err("nobody answers");
    assert_eq!(error.kind(), heartbeat::fleet::ErrorKind::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    redis.thaw();
    assert_eq!(fleet.count(&[], soon()).unwrap().fresh, 0);
}
