use super::*;
use crate::record::tests::least;

fn fleet() -> Fleet {
    Fleet::new("redis://127.0.0.1".parse().expect("a URL"), least().cluster)
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// As it is read back from these answers.
fn member(now_ms: u64, score: &str, ready: &str, entry: &str) -> Option<Member> {
    let answers = vec![
        Ok(Value::Array(vec![bulk(entry)])),
        Ok(Value::Array(vec![bulk(ready)])),
        Ok(Value::Array(vec![Value::Nil])),
    ];
    let mut members = Vec::new();
    let scores: Vec<_> = moment(&bulk(score)).map(|score| (Id(7), score)).into_iter().collect();
    fleet().make(now_ms, &scores, answers, &mut members).expect("proper answers");
    members.pop()
}

#[test]
fn a_member_is_read_from_its_entry_and_its_scores() {
    let lost = member(112_000, "100000", "0", "30000\norders@web-3\nweb-3").expect("a member");
    assert_eq!((lost.worker.as_str(), lost.host.as_str()), ("orders@web-3", "web-3"));
    assert_eq!((lost.age_ms, lost.promise_ms, lost.takes_work), (42_000, 30_000, false));
    let judgement = lost.judge(None);
    assert_eq!(judgement.verdict, Verdict::Silent);
    assert_eq!(judgement.to_string(), "no beat for 42 s (promised within 30 s)");
    let fresh = member(112_000, "130000", "130000", "30000\nw\nh").expect("a member");
    assert_eq!((fresh.age_ms, fresh.takes_work), (12_000, true));
    assert_eq!(fresh.judge(None).verdict, Verdict::Unknown, "its record was evicted");
    let at_the_end = member(130_000, "130000", "130000", "30000\nw\nh").expect("a member");
    assert!(!at_the_end.is_fresh() && !at_the_end.takes_work);
    assert_eq!(at_the_end.judge(None).verdict, Verdict::Silent, "as it is counted");
    let gone = member(100_500, "100000", "0", "30000 700\norders@web-3\nweb-3").expect("a member");
    assert_eq!((gone.age_ms, gone.promise_ms, gone.is_fresh()), (1_200, 30_000, false));
    assert_eq!(gone.judge(None).verdict, Verdict::Gone);
    assert!(member(4_000_000, "399999", "0", "30000\nw\nh").is_none(), "forgotten");
}

#[test]
fn what_is_no_entry_of_ours_is_no_member() {
    assert!(member(1, "100000", "0", "30000\nw\nh").is_some());
    for score in ["", "nan", "inf", "-inf", "-1", "1e300", "x"] {
        assert!(member(1, score, "0", "30000\nw\nh").is_none(), "{score}");
    }
    let entries = [
        "",
        "30000",
        "30000\nw",
        "30000 \nw\nh",
        "30000 x\nw\nh",
        "30000 1 2\nw\nh",
        "x\nw\nh",
        "1\n\nh",
        "1\nw\n",
        "1\nw\nh\nq",
        "-1\nw\nh",
        "1\n\u{1b}[2J\nh",
    ];
    for entry in entries {
        assert!(member(1, "100000", "0", entry).is_none(), "{entry:?}");
    }
    assert!(member(1, "100000", "0", &format!("1\nw\n{}", "h".repeat(5_000))).is_none());
    assert!(fleet().member(1, Id(7), 100_000, &Value::Nil).is_none());
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
        lost_at_ms: u64::MAX,
        now_ms: 0,
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
