//! What the publisher makes of time in which it could not run. No thread, and nothing is waited for: stalls are
//! told to it by setting the moments that it remembers.

use super::*;
use crate::record::tests::least;

const PROMISE_MS: u64 = 60_000;

/// A publisher of this process, without a file, that has just made its first beat.
fn publisher(phase: Phase) -> Publisher {
    let pid = std::process::id();
    let Process::Present { start, .. } = observe::process(pid) else { panic!("no process of our own") };
    let shared = Shared::new(phase, Subject { pid, start }, 500, None).unwrap();
    let record = Record { pid, pid_start: start, interval_ms: 10, promise_ms: PROMISE_MS, ..least() };
    let mut publisher = Publisher::new(Arc::new(shared), record, None, Extras::default());
    publisher.begin().unwrap();
    publisher
}

impl Publisher {
    /// Makes all that the publisher remembers `ms` older, as if it had not run since.
    fn stall(&mut self, ms: u64) {
        self.record.at_mono_ms -= ms;
        self.next_beat_ms -= ms;
        self.live_mono_ms -= ms;
    }

    fn verdict_after_a_turn(&mut self) -> Verdict {
        assert!(self.turn());
        self.verdict
    }
}

/// Marks a pulse with a budget of 500 ms, `ago_ms` ago.
fn pulsed(publisher: &Publisher, ago_ms: u64) {
    publisher.shared.mark.set(clock::mono_ms() - ago_ms, Budget::from_millis(500));
}

#[test]
fn a_process_that_was_stopped_in_the_middle_of_a_beat_is_not_blamed_for_it() {
    let mut publisher = publisher(Phase::Running);
    pulsed(&publisher, 2_000);
    let _task = publisher.shared.tasks.start("job", clock::mono_ms() - 2_000, Some(clock::mono_ms() - 1_500));
    publisher.stall(2_000);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
    let due = publisher.record.pulse.unwrap().due_mono_ms;
    assert!(due > publisher.record.at_mono_ms, "the loop has what it had left before the stop");
}

#[test]
#[cfg_attr(miri, ignore = "Miri is slower than what it measures, and its clock begins with the program")]
fn a_start_and_a_drain_have_their_time_back_too() {
    for phase in [
        Phase::Starting { until_ms: clock::mono_ms() - 1_500 },
        Phase::Draining { until_ms: Some(clock::mono_ms() - 1_500) },
    ] {
        let mut publisher = publisher(phase);
        publisher.stall(2_000);
        let verdict = publisher.verdict_after_a_turn();
        assert!(matches!(verdict, Verdict::Starting | Verdict::Draining), "{verdict}");
    }
}

#[test]
fn a_sink_that_hangs_again_and_again_is_no_excuse_for_a_loop_that_stands() {
    let mut publisher = publisher(Phase::Running);
    pulsed(&publisher, 2_000);
    publisher.stall(2_000);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
    pulsed(&publisher, 2_000);
    publisher.stall(2_000);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Wedged);
    // A promise later it may be a stop again.
    publisher.next_excuse_ms -= PROMISE_MS;
    pulsed(&publisher, 2_000);
    publisher.stall(2_000);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
}

#[test]
fn a_short_stall_moves_no_deadline() {
    let mut publisher = publisher(Phase::Running);
    pulsed(&publisher, 0);
    let due = publisher.shared.mark.get().unwrap().due_mono_ms;
    publisher.stall(50);
    publisher.excuse_stall(publisher.record.at_mono_ms + 100);
    assert_eq!(publisher.shared.mark.get().unwrap().due_mono_ms, due);
    publisher.excuse_stall(publisher.record.at_mono_ms + 101);
    assert_eq!(publisher.shared.mark.get().unwrap().due_mono_ms, due + 101);
}

#[test]
#[cfg_attr(miri, ignore = "Miri is slower than what it measures, and its clock begins with the program")]
fn a_loop_that_stands_is_wedged_with_the_first_look_after_its_budget() {
    let mut publisher = publisher(Phase::Running);
    pulsed(&publisher, 501);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Wedged);
    assert_eq!(publisher.record.status, Status::Idle);
    // The mtime that goes with such a beat is left behind.
    assert!(publisher.record.at_mono_ms >= publisher.live_mono_ms);
    pulsed(&publisher, 0);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
    assert_eq!(publisher.live_mono_ms, publisher.record.at_mono_ms);
}

#[test]
#[cfg_attr(miri, ignore = "Miri is slower than what it measures, and its clock begins with the program")]
fn a_loop_is_not_judged_while_the_broker_is_lost_and_has_that_time_back() {
    let mut publisher = publisher(Phase::Running);
    pulsed(&publisher, 501);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Wedged);
    publisher.shared.broker_lost();
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
    assert_eq!(publisher.record.pulse, None);
    assert_eq!(publisher.live_mono_ms, publisher.record.at_mono_ms);
    let first = publisher.record.broker;
    std::thread::sleep(Duration::from_millis(2));
    publisher.shared.broker_lost();
    publisher.look();
    assert_eq!(publisher.record.broker, first, "the first moment counts");
    // As if it had been lost for a minute, 100 ms after the last pulse.
    pulsed(&publisher, 60_100);
    let lost_ms = clock::mono_ms() - 60_000;
    publisher.shared.state().broker_lost_ms = Some(lost_ms);
    publisher.shared.broker_back();
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
    assert_eq!(publisher.record.broker, None);
    let left = publisher.record.pulse.unwrap().due_mono_ms.saturating_sub(clock::mono_ms());
    assert!((200..=402).contains(&left), "{left} ms are left of 400");
    // It counts from then on.
    publisher.shared.broker_back();
    pulsed(&publisher, 501);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Wedged);
}

#[test]
#[cfg_attr(miri, ignore = "Miri is slower than what it measures, and its clock begins with the program")]
fn a_broker_that_is_lost_for_longer_than_the_promise_cuts_a_worker_off_at_that_moment() {
    let mut publisher = publisher(Phase::Running);
    publisher.shared.broker_lost();
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
    let lost_ms = publisher.record.broker.unwrap().lost_mono_ms;
    publisher.next_beat_ms = u64::MAX;
    assert_eq!(publisher.wake_at_ms(), lost_ms + PROMISE_MS + 1);
    publisher.shared.state().broker_lost_ms = Some(clock::mono_ms() - PROMISE_MS - 1);
    publisher.next_beat_ms = 0;
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::CutOff);
    // Live: an mtime tells so too. Tasks are judged as ever.
    assert_eq!(publisher.live_mono_ms, publisher.record.at_mono_ms);
    let now = clock::mono_ms();
    let _task = publisher.shared.tasks.start("job", now - 2, Some(now - 1));
    publisher.next_beat_ms = 0;
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Overdue);
}

#[test]
fn time_in_which_the_process_could_not_run_is_no_outage_of_the_broker() {
    let mut publisher = publisher(Phase::Running);
    let lost_ms = clock::mono_ms() - 2_001;
    publisher.shared.state().broker_lost_ms = Some(lost_ms);
    publisher.stall(2_000);
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Alive);
    assert!(publisher.record.broker.unwrap().lost_mono_ms >= lost_ms + 2_000);
}

#[test]
fn a_start_that_waits_for_its_broker_is_not_overdue_and_has_that_time_back() {
    let mut publisher = publisher(Phase::Starting { until_ms: clock::mono_ms() + 50 });
    publisher.shared.broker_lost();
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Starting);
    assert_eq!(publisher.record.until_mono_ms, None);
    publisher.shared.state().broker_lost_ms = Some(clock::mono_ms() - PROMISE_MS);
    publisher.next_beat_ms = 0;
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Starting);
    publisher.shared.broker_back();
    assert_eq!(publisher.verdict_after_a_turn(), Verdict::Starting);
    assert!(publisher.record.until_mono_ms.unwrap() > clock::mono_ms() + PROMISE_MS / 2);
}

#[test]
fn a_holder_that_is_no_more_is_looked_at_with_each_beat_and_at_the_moment_when_it_counts() {
    let mut publisher = publisher(Phase::Running);
    let task = publisher.shared.tasks.start("job", clock::mono_ms(), None);
    publisher.look();
    assert_eq!((publisher.next_holders_ms, publisher.holder_due_ms), (0, None));
    // More than any pid can be.
    task.held_by(0x7fff_fffe);
    publisher.look();
    let due = publisher.holder_due_ms.expect("a moment when it counts");
    assert!(publisher.next_holders_ms <= due);
    publisher.next_beat_ms = u64::MAX;
    assert_eq!(publisher.wake_at_ms(), due + 1);
    drop(task);
    publisher.look();
    assert_eq!(publisher.holder_due_ms, None);
}

#[test]
fn a_beat_that_is_not_made_is_no_word_of_a_file_that_can_be_written_again() {
    let mut publisher = publisher(Phase::Running);
    publisher.tell(Err(Failure::System(std::io::ErrorKind::StorageFull.into())));
    assert!(publisher.shared.file_failure().is_some());
    let own = Subject { pid: publisher.record.pid, start: publisher.record.pid_start };
    // Another process, that is no more.
    publisher.shared.beat_for(Subject { start: own.start + 1, pid: own.pid });
    publisher.own_pid = 0;
    publisher.look();
    let outcome = publisher.beat();
    assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    publisher.tell(outcome);
    assert!(publisher.shared.file_failure().is_some());
    publisher.shared.beat_for(own);
    publisher.look();
    let outcome = publisher.beat();
    publisher.tell(outcome);
    assert_eq!(publisher.shared.file_failure(), None);
}

#[cfg(feature = "redis")]
#[test]
fn a_stat_key_to_which_nothing_is_sent_is_not_out_of_reach() {
    let publisher = publisher(Phase::Running);
    let nowhere = "redis://127.0.0.1:1".parse().unwrap();
    let stat =
        StatKey::start(nowhere, None, publisher.record.clone(), Arc::clone(&publisher.shared)).unwrap();
    let mut publisher = publisher.with_stat(Some(stat));
    let own = Subject { pid: publisher.record.pid, start: publisher.record.pid_start };
    publisher.own_pid = 0;
    // Another process, that is no more, and then one that runs.
    for (subject, excused_ms) in [(Subject { start: own.start + 1, pid: own.pid }, 5_000), (own, 0)] {
        publisher.shared.beat_for(subject);
        publisher.look();
        publisher.posted_mono_ms = publisher.record.at_mono_ms - 5_000;
        let reached_ms = |publisher: &Publisher| publisher.stat.as_ref().unwrap().stat().ok_mono_ms;
        let before_ms = reached_ms(&publisher);
        assert_eq!(publisher.beat().unwrap().is_none(), excused_ms > 0);
        assert_eq!(reached_ms(&publisher) - before_ms, excused_ms);
    }
}
