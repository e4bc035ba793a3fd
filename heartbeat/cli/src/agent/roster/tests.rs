//! Who is told of, and in which words, without a folder and without a Redis.

use super::*;

/// A record of a process that cannot be seen, made now, so that its verdict is by the record alone.
fn seen(id: u128, worker: &str, seq: u64, change: impl FnOnce(&mut Record)) -> Observation {
    let line = format!(
        "{{\"v\":1,\"id\":\"{id:032x}\",\"cluster\":\"c\",\"worker\":\"{worker}\",\"host\":\"h\",\
         \"queues\":[\"mail\"],\"pid\":1,\"pid_start\":0,\"pid_ns\":0,\"boot\":\"\",\"seq\":{seq},\
         \"at_mono_ms\":{},\"at_unix_ms\":5,\"interval_ms\":1000,\"promise_ms\":30000,\
         \"status\":\"idle\",\"tasks\":{{\"running\":0,\"done\":0,\"failed\":0}}}}\n",
        mono_ms(),
    );
    let mut record = Record::parse(line.as_bytes()).unwrap();
    change(&mut record);
    Observation::Record(Box::new(record))
}

fn mono_ms() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(now.tv_sec()).unwrap() * 1_000 + u64::try_from(now.tv_nsec()).unwrap() / 1_000_000
}

fn beat(roster: &mut Roster, name: &str, id: u128, seq: u64) {
    roster.note(OsStr::new(name), seen(id, name, seq, |_| {}), None);
}

/// Makes it a record of another boot, whose process is no more.
fn end(record: &mut Record) {
    "another".clone_into(&mut record.boot);
}

fn told(roster: &mut Roster, which: Which) -> Vec<(String, What)> {
    let errands = roster.errands(which, MOST_ERRANDS);
    roster.done(&errands);
    let mut told: Vec<_> = errands.into_iter().map(|errand| (errand.record.worker, errand.what)).collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    told
}

const WELL: What = What::Beat { takes_work: true };

#[test]
fn a_beat_is_told_once() {
    let mut roster = Roster::default();
    beat(&mut roster, "a", 1, 1);
    assert!(roster.has_errands(Which::All) && !roster.has_errands(Which::Urgent));
    assert_eq!(told(&mut roster, Which::Urgent), []);
    assert_eq!(told(&mut roster, Which::All), [("a".to_owned(), WELL)]);
    assert_eq!(told(&mut roster, Which::All), []);
    beat(&mut roster, "a", 1, 2);
    assert_eq!(told(&mut roster, Which::All), [("a".to_owned(), WELL)]);
}

#[test]
fn what_redis_did_not_take_is_told_again() {
    let mut roster = Roster::default();
    beat(&mut roster, "a", 1, 1);
    assert_eq!(roster.errands(Which::All, MOST_ERRANDS).len(), 1);
    roster.done(&[]);
    assert_eq!(told(&mut roster, Which::All).len(), 1);
}

#[test]
fn no_more_is_told_at_once_than_was_asked_for_and_all_in_the_end() {
    let mut roster = Roster::default();
    for id in 0..5 {
        beat(&mut roster, &format!("w{id}"), id, 1);
    }
    let mut told = HashSet::new();
    for _ in 0..3 {
        let errands = roster.errands(Which::All, 2);
        assert!(errands.len() <= 2);
        roster.done(&errands);
        told.extend(errands.into_iter().map(|errand| errand.record.id));
    }
    assert_eq!(told.len(), 5);
}

#[test]
fn one_that_can_take_no_more_work_or_has_ended_cannot_wait_for_the_interval() {
    let mut roster = Roster::default();
    for (id, name) in ["drains", "ends", "stays"].into_iter().enumerate() {
        beat(&mut roster, name, id as u128, 1);
    }
    told(&mut roster, Which::All);
    let drains = seen(0, "drains", 2, |record| record.status = heartbeat::record::Status::Draining);
    roster.note(OsStr::new("drains"), drains, None);
    roster.remove(OsStr::new("ends"));
    beat(&mut roster, "stays", 2, 2);
    let urgent =
        [("drains".to_owned(), What::Beat { takes_work: false }), ("ends".to_owned(), What::Withdrawal)];
    assert_eq!(told(&mut roster, Which::Urgent), urgent);
    assert_eq!(told(&mut roster, Which::All), [("stays".to_owned(), WELL)]);
}

#[test]
fn who_is_gone_is_lost_once_and_not_withdrawn_at_the_end() {
    let mut roster = Roster::default();
    beat(&mut roster, "a", 1, 1);
    told(&mut roster, Which::All);
    roster.note(OsStr::new("a"), seen(1, "a", 1, end), None);
    assert_eq!(told(&mut roster, Which::Urgent), [("a".to_owned(), What::Lost)]);
    assert_eq!(told(&mut roster, Which::All), []);
    assert_eq!(roster.tally(), Tally { workers: 0, take_work: 0 });
    assert_eq!(roster.farewell().len(), 0);
}

#[test]
fn who_is_gone_for_longer_than_its_promise_and_was_never_told_of_is_not_told_of() {
    let mut roster = Roster::default();
    let old = seen(1, "a", 1, |record| {
        end(record);
        record.promise_ms = 1;
        record.at_mono_ms -= 1_000;
    });
    roster.note(OsStr::new("a"), old, None);
    assert_eq!(told(&mut roster, Which::All), []);
}

#[test]
fn who_is_gone_and_has_started_anew_under_its_name_is_withdrawn() {
    let mut roster = Roster::default();
    beat(&mut roster, "old", 1, 1);
    told(&mut roster, Which::All);
    roster.note(OsStr::new("old"), seen(1, "old", 1, end), None);
    roster.note(OsStr::new("new"), seen(2, "old", 1, |_| {}), None);
    let mut what: Vec<_> = told(&mut roster, Which::All).into_iter().map(|(_, what)| what).collect();
    what.sort_by_key(|what| *what == WELL);
    assert_eq!(what, [What::Withdrawal, WELL]);
    assert_eq!(told(&mut roster, Which::All), []);
}

#[test]
fn another_incarnation_in_the_same_file_withdraws_the_first() {
    let mut roster = Roster::default();
    beat(&mut roster, "a", 1, 1);
    told(&mut roster, Which::All);
    beat(&mut roster, "a", 2, 1);
    let told = told(&mut roster, Which::All);
    assert_eq!(told.iter().map(|(_, what)| *what).collect::<Vec<_>>(), [What::Withdrawal, WELL]);
}

#[test]
fn a_copy_is_no_second_worker_and_removing_one_of_the_two_withdraws_nobody() {
    let mut roster = Roster::default();
    for file in ["a", "copy"] {
        roster.note(OsStr::new(file), seen(1, "a", 1, |_| {}), None);
    }
    assert_eq!(told(&mut roster, Which::All), [("a".to_owned(), WELL)]);
    roster.remove(OsStr::new("copy"));
    assert_eq!(told(&mut roster, Which::All), []);
    roster.remove(OsStr::new("a"));
    assert_eq!(told(&mut roster, Which::All), [("a".to_owned(), What::Withdrawal)]);
}

#[test]
fn a_folder_that_goes_away_says_nothing_of_its_workers() {
    let mut roster = Roster::default();
    beat(&mut roster, "a", 1, 1);
    told(&mut roster, Which::All);
    roster.orphan_all();
    roster.recheck();
    assert_eq!(roster.unlisted(&HashSet::new()), Vec::<OsString>::new());
    assert_eq!(told(&mut roster, Which::All), []);
    assert_eq!(roster.tally(), Tally { workers: 1, take_work: 1 });
    // Back again, and then it counts that a file is not there.
    beat(&mut roster, "a", 1, 2);
    assert_eq!(roster.unlisted(&HashSet::new()), [OsString::from("a")]);
}

#[test]
fn the_farewell_is_to_whoever_redis_may_know_but_not_to_who_tells_of_itself() {
    let mut roster = Roster::default();
    beat(&mut roster, "told", 1, 1);
    let by_itself = seen(2, "by itself", 1, |record| {
        record.stat = Some(heartbeat::record::Stat { ok_mono_ms: record.at_mono_ms, failures: 0 });
    });
    roster.note(OsStr::new("by itself"), by_itself, None);
    told(&mut roster, Which::All);
    beat(&mut roster, "never told", 3, 1);
    let farewell = roster.farewell();
    assert_eq!(farewell.iter().map(|errand| errand.record.worker.as_str()).collect::<Vec<_>>(), ["told"]);
}

#[test]
fn the_probe_is_another_part_of_them_each_time_and_only_that_is_attempted() {
    let mut roster = Roster::default();
    assert!(roster.probe(Which::All, 2, 3).is_empty());
    for (id, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")] {
        beat(&mut roster, name, id, 1);
    }
    let ids = |errands: Vec<Errand>| errands.into_iter().map(|errand| errand.record.id.0).collect::<Vec<_>>();
    let all = ids(roster.wanted(Which::All, 5));
    assert_eq!(ids(roster.probe(Which::All, 2, 4)), all[..2]);
    assert_eq!(ids(roster.probe(Which::All, 2, 7)), [all[3], all[4]]);
    assert_eq!(roster.farewell().len(), 4);
}

#[test]
fn after_four_probes_all_were_told_of_however_many() {
    for many in [1, 4, 5, 399, 401, 1_000, 1_003] {
        let mut roster = Roster::default();
        for id in 0..many {
            beat(&mut roster, &format!("w{id}"), id, 1);
        }
        let mut told = HashSet::new();
        for turn in usize::MAX - 1..=usize::MAX {
            told.extend(roster.probe(Which::All, 100, turn).into_iter().map(|errand| errand.record.id));
        }
        for turn in 0..2 {
            told.extend(roster.probe(Which::All, 100, turn).into_iter().map(|errand| errand.record.id));
        }
        assert_eq!(told.len() as u128, many);
    }
}

#[test]
fn who_has_stopped_is_not_remembered_for_longer_than_redis_would() {
    let mut roster = Roster::default();
    for (id, name) in [(1, "forgotten"), (2, "known")] {
        beat(&mut roster, name, id, 1);
    }
    told(&mut roster, Which::All);
    for name in ["forgotten", "known"] {
        roster.remove(OsStr::new(name));
    }
    roster.recheck();
    assert_eq!(roster.leaving.len(), 2);
    // Its promise is 30 s; a machine need not have run for so long.
    roster.keep_leaving(|seen| Some(3_630_000 + u64::from(seen.record()?.worker == "forgotten")));
    assert_eq!(told(&mut roster, Which::Urgent), [("known".to_owned(), What::Withdrawal)]);
}

#[test]
fn where_few_are_wanted_all_are_the_probe_and_the_most_urgent_goes_first() {
    let mut roster = Roster::default();
    beat(&mut roster, "a", 1, 1);
    beat(&mut roster, "b", 2, 1);
    let all = roster.errands(Which::All, 2);
    roster.done(&all);
    beat(&mut roster, "a", 1, 2);
    beat(&mut roster, "b", 2, 2);
    roster.remove(OsStr::new("b"));
    let probe = roster.probe(Which::All, 2, 3);
    assert_eq!(probe.iter().map(|errand| errand.what).next(), Some(What::Withdrawal));
    assert_eq!(probe.len(), 2);
}
