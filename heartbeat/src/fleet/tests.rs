use super::*;
use crate::record::tests::least;

fn fleet() -> Fleet {
    Fleet::new("redis://127.0.0.1".parse().expect("a URL"), least().cluster)
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

const ID: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_member_is_read_from_its_entry_and_its_scores() {
    let fleet = fleet();
    let parts = [bulk(ID), bulk("100000"), bulk("0"), bulk("30000\norders@web-3\nweb-3")];
    let member = fleet.member(112_000, &parts).expect("a member");
    assert_eq!((member.worker.as_str(), member.host.as_str()), ("orders@web-3", "web-3"));
    assert_eq!((member.age_ms, member.promise_ms, member.takes_work), (42_000, 30_000, false));
    let judgement = member.judge(None);
    assert_eq!(judgement.verdict, Verdict::Silent);
    assert_eq!(judgement.to_string(), "no beat for 42 s (promised within 30 s)");
    let parts = [bulk(ID), bulk("130000"), bulk("130000"), bulk("30000\nw\nh")];
    let member = fleet.member(112_000, &parts).expect("a member");
    assert_eq!((member.age_ms, member.takes_work), (12_000, true));
}

#[test]
fn what_is_no_entry_of_ours_is_no_member() {
    let good = [bulk(ID), bulk("100000"), bulk("0"), bulk("30000\nw\nh")];
    assert!(fleet().member(1, &good).is_some());
    let bad: [(usize, &[&str]); 3] = [
        (0, &["", "x", "0123456789ABCDEF0123456789abcdef", "../../etc"]),
        (1, &["", "nan", "inf", "-inf", "-1", "1e300", "x"]),
        (
            3,
            &[
                "",
                "30000",
                "30000\nw",
                "x\nw\nh",
                "30000\n\nh",
                "30000\nw\n",
                "30000\nw\nh\nq",
                "-1\nw\nh",
                "1\n\u{1b}[2J\nh",
            ],
        ),
    ];
    for (index, texts) in bad {
        for text in texts {
            let mut parts = good.clone();
            parts[index] = bulk(text);
            assert!(fleet().member(1, &parts).is_none(), "{text:?}");
        }
        let mut parts = good.clone();
        parts[index] = Value::Nil;
        assert!(fleet().member(1, &parts).is_none());
    }
}

#[test]
fn a_record_is_judged_on_the_servers_clock_whatever_the_workers_said() {
    let fleet = fleet();
    let record = least();
    let mut line = Vec::new();
    record.write(&mut line);
    let member = |age_ms, found| Member {
        id: record.id,
        worker: record.worker.clone(),
        host: record.host.clone(),
        age_ms,
        promise_ms: record.promise_ms,
        takes_work: true,
        found,
    };
    let found = || fleet.read(record.id, &line);
    assert_eq!(member(record.promise_ms, found()).judge(None).verdict, Verdict::Alive);
    assert_eq!(member(record.promise_ms + 1, found()).judge(None).verdict, Verdict::Silent);
    assert_eq!(member(60, found()).judge(Some(50)).verdict, Verdict::Silent);
    assert_eq!(member(u64::MAX, found()).judge(None).verdict, Verdict::Silent);
    assert_eq!(member(0, Found::Evicted).judge(None).verdict, Verdict::Unknown);
    let other = fleet.read(Id(record.id.0 ^ 1), &line);
    assert_eq!(member(0, other).judge(None).verdict, Verdict::Corrupt);
    let elsewhere = Fleet::new("redis://127.0.0.1".parse().expect("a URL"), "elsewhere");
    assert_eq!(member(0, elsewhere.read(record.id, &line)).judge(None).verdict, Verdict::Corrupt);
    assert_eq!(member(0, fleet.read(record.id, b"{}")).judge(None).verdict, Verdict::Corrupt);
    assert!(member(0, fleet.read(record.id, &[b'x'; MAX_BYTES + 1])).record().is_none());
}

#[test]
fn only_a_worker_that_is_well_and_neither_starting_nor_draining_takes_work() {
    for verdict in Verdict::ALL {
        for status in [Status::Starting, Status::Idle, Status::Busy, Status::Draining, Status::Stopped] {
            let mut record = least();
            record.status = status;
            let able = matches!(status, Status::Idle | Status::Busy)
                && matches!(verdict, Verdict::Alive | Verdict::CutOff);
            assert_eq!(takes_work(&record, verdict), able, "{status} {verdict}");
        }
    }
}
