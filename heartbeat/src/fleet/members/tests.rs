use super::*;
use crate::fleet::keys::FORGET_MS;
use crate::record::tests::least;
use crate::verdict::Verdict;

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// As the index tells of it.
fn member(now_ms: u64, score: &str, entry: &str) -> Option<Member> {
    let fleet = Fleet::new("redis://127.0.0.1".parse().expect("a URL"), "c");
    let time = [bulk(&(now_ms / 1_000).to_string()), bulk(&(now_ms % 1_000 * 1_000).to_string())];
    let (now_ms, scores) = fleet.scores(&time, &[bulk(&Id(7).to_string()), bulk(score)]).expect("a time");
    let (id, lost_at_ms) = scores.first()?;
    Member::bare(*id, now_ms, *lost_at_ms, false).by_entry(Some(entry))
}

#[test]
fn a_member_without_a_record_is_read_from_its_entry_and_its_score() {
    let lost = member(112_000, "100000", "30000\norders@web-3\nweb-3").expect("a member");
    assert_eq!((lost.worker.as_str(), lost.host.as_str()), ("orders@web-3", "web-3"));
    assert_eq!((lost.age_ms, lost.promise_ms, lost.takes_work), (Some(42_000), Some(30_000), false));
    let judgement = lost.judge(None);
    assert_eq!(judgement.verdict, Verdict::Silent);
    assert_eq!(judgement.to_string(), "no beat for 42 s (promised within 30 s)");
    let fresh = member(112_000, "130000", "30000\nw\nh").expect("a member");
    assert_eq!(fresh.age_ms, Some(12_000));
    assert_eq!(fresh.judge(None).verdict, Verdict::Unknown, "its record was evicted");
    let at_the_end = member(130_000, "130000", "30000\nw\nh").expect("a member");
    assert!(!at_the_end.is_fresh());
    assert_eq!(at_the_end.judge(None).verdict, Verdict::Silent, "as it is counted");
    let gone = member(100_500, "100000", "30000 700\norders@web-3\nweb-3").expect("a member");
    assert_eq!((gone.age_ms, gone.promise_ms, gone.is_fresh()), (Some(1_200), Some(30_000), false));
    assert_eq!(gone.judge(None).verdict, Verdict::Gone);
    assert!(member(100_000 + FORGET_MS, "100000", "30000\nw\nh").is_some());
    assert!(member(100_001 + FORGET_MS, "100000", "30000\nw\nh").is_none(), "forgotten");
}

#[test]
fn of_a_member_whose_name_was_evicted_too_it_is_known_until_when_it_is_there() {
    let bare = |now_ms| Member::bare(Id(7), now_ms, 130_000, true).by_entry(None).expect("a member");
    let fresh = bare(112_000);
    assert_eq!((fresh.worker, fresh.host), (Id(7).to_string(), String::new()));
    assert_eq!((fresh.age_ms, fresh.promise_ms, fresh.takes_work), (None, None, true));
    assert_eq!(bare(129_999).judge(None).verdict, Verdict::Unknown);
    assert_eq!(bare(130_000).judge(None).verdict, Verdict::Silent, "as it is counted");
    assert_eq!(bare(172_000).age_ms, Some(42_000));
    assert_eq!(bare(172_000).judge(None).to_string(), "its promise ended 42 s ago");
}

#[test]
fn what_is_no_entry_of_ours_is_no_member() {
    assert!(member(1, "100000", "30000\nw\nh").is_some());
    for score in ["", "nan", "inf", "-inf", "-1", "1e300", "x"] {
        assert!(member(1, score, "30000\nw\nh").is_none(), "{score}");
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
        assert!(member(1, "100000", entry).is_none(), "{entry:?}");
    }
    assert!(member(1, "100000", &format!("1\nw\n{}", "h".repeat(5_000))).is_none());
    assert_eq!((entry(&Value::Nil), entry(&Value::Int(1))), (None, Some(String::new())));
}

#[test]
fn a_record_is_judged_on_the_servers_clock_whatever_the_workers_said() {
    let record = least();
    let mut line = Vec::new();
    record.write(&mut line);
    let line = Value::BulkString(line);
    let aged = |age_ms: u64, found| {
        // Its promise ends so long after its last beat; one that is fresh is so by the index.
        let lost_at_ms = u64::MAX / 2;
        let member = Member::bare(record.id, lost_at_ms - 1, lost_at_ms, true);
        Member { age_ms: Some(age_ms), found, ..member }
    };
    let verdict = |age_ms, found, max_age_ms| aged(age_ms, found).judge(max_age_ms).verdict;
    let found = || Found::of((record.id, &record.cluster), &line, None, 0);
    assert_eq!(verdict(record.promise_ms, found(), None), Verdict::Alive);
    assert_eq!(verdict(record.promise_ms + 1, found(), None), Verdict::Silent);
    assert_eq!(verdict(60, found(), Some(50)), Verdict::Silent);
    assert_eq!(verdict(u64::MAX, found(), None), Verdict::Silent);
    assert_eq!(verdict(0, Found::Nothing, None), Verdict::Unknown);
    let other = Found::of((Id(record.id.0 ^ 1), &record.cluster), &line, None, 0);
    assert_eq!(verdict(0, other, None), Verdict::Corrupt);
    assert_eq!(verdict(0, Found::of((record.id, "elsewhere"), &line, None, 0), None), Verdict::Corrupt);
    let none = Found::of((record.id, &record.cluster), &bulk("{}"), None, 0);
    assert_eq!(verdict(0, none, None), Verdict::Corrupt);
    let large = Value::BulkString(vec![b'x'; MAX_BYTES + 1]);
    assert!(aged(0, Found::of((record.id, &record.cluster), &large, None, 0)).record().is_none());
}

#[test]
fn a_member_with_a_record_is_what_the_record_says() {
    let record = least();
    let found = Found::Record(Box::new(record.clone()));
    let member = Member::found(record.id, 100_000, 100_000 + record.promise_ms - 700, false, found);
    assert_eq!((&member.worker, &member.host), (&record.worker, &record.host));
    assert_eq!((member.age_ms, member.promise_ms), (Some(700), Some(record.promise_ms)));
    assert_eq!(member.judge(None).verdict, Verdict::Alive);
}
