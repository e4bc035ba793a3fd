//! What is told of a real worker, and when.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use heartbeat::observe::{Owner, observe};
use heartbeat::record::{Record, Status};
use heartbeat::verdict::Verdict;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Worker, judged, next_beat, record, trial, until, verdict};

pub fn trials() -> Vec<Trial> {
    // Some kernels tell nobody which system call a thread is in.
    let calls_are_told = fs::read("/proc/self/syscall").is_ok();
    vec![
        trial!(a_killed_worker_is_gone_at_the_very_next_look_zombie_or_reaped),
        trial!(a_worker_stopped_in_the_middle_of_a_beat_is_silent_after_its_promise_and_then_without_blame),
        trial!(a_worker_stopped_between_two_beats_is_silent_after_its_promise_and_then_without_blame)
            .with_ignored_flag(!calls_are_told),
        trial!(a_wedged_loop_is_told_within_its_budget_while_the_beats_go_on),
        trial!(while_wedged_the_mtime_stays_behind_and_after_it_the_mtime_is_fresh),
        trial!(a_pulse_with_a_budget_of_its_own_covers_a_long_task_in_the_loop),
        trial!(a_task_within_its_deadline_is_never_called_dead),
        trial!(a_task_past_its_deadline_is_told_within_100_ms),
        trial!(the_task_whose_deadline_is_nearest_is_named),
        trial!(a_task_is_overdue_once_the_process_that_does_it_is_stopped_and_no_more_once_it_goes_on),
        trial!(a_worker_without_its_broker_is_never_wedged_and_cut_off_once_its_promise_has_passed),
        trial!(a_start_past_its_deadline_is_overdue_until_it_is_ready),
        trial!(a_drain_past_its_deadline_is_overdue_and_one_without_never),
        trial!(a_worker_without_loop_and_tasks_is_idle_and_alive),
        trial!(another_process_with_the_same_pid_is_not_the_worker),
        trial!(a_record_of_another_boot_is_gone),
        trial!(a_record_from_another_pid_namespace_is_judged_by_its_silence_alone),
        trial!(a_bare_file_is_judged_by_its_mtime_and_the_future_is_not_fresh),
        trial!(the_mtime_of_a_healthy_worker_is_the_moment_of_its_beat),
    ]
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    (folder, path)
}

fn until_verdict(path: &Path, wanted: Verdict) {
    until(&format!("it is {wanted}"), || (verdict(path) == wanted).then_some(()));
}

fn age(path: &Path) -> Duration {
    fs::metadata(path).unwrap().modified().unwrap().elapsed().unwrap_or_default()
}

/// Looks without a pause until it is over; every verdict that was seen, in order.
fn watched(path: &Path, mut over: impl FnMut(&Record) -> bool) -> Vec<Verdict> {
    let mut seen = Vec::new();
    until("it is over", || {
        let observation = observe(path, Owner::Own);
        let verdict = observation.judge(None).verdict;
        if seen.last() != Some(&verdict) {
            seen.push(verdict);
        }
        over(observation.record()?).then_some(())
    });
    seen
}

/// By the record's own deadline, which is put off by the time in which the machine did not let the worker run.
fn is_past_its_state(record: &Record) -> bool {
    record.until_mono_ms.is_some_and(|until| record.at_mono_ms > until)
}

fn a_killed_worker_is_gone_at_the_very_next_look_zombie_or_reaped() {
    let (_folder, path) = place();
    // With the promise of an hour, so that it cannot be silence that tells.
    let mut worker = Worker::beating_with(&path, "promise=3600000");
    assert_eq!(verdict(&path), Verdict::Alive);
    worker.kill();
    let reason = format!("its process {} is no more", worker.pid());
    assert_eq!(judged(&path), (Verdict::Gone, reason.clone()));
    worker.child.wait().unwrap();
    assert_eq!(judged(&path), (Verdict::Gone, reason));
}

fn a_worker_stopped_in_the_middle_of_a_beat_is_silent_after_its_promise_and_then_without_blame() {
    // As soon as a beat is seen: often the publisher is still about it.
    stop_and_go_on(|_| {});
}

fn a_worker_stopped_between_two_beats_is_silent_after_its_promise_and_then_without_blame() {
    stop_and_go_on(|worker| {
        let publisher = worker.publisher();
        until("the publisher waits", || {
            let call = fs::read_to_string(publisher.join("syscall")).unwrap();
            let number = call.split(' ').next()?.parse::<libc::c_long>();
            (number == Ok(POLL)).then_some(())
        });
    });
}

#[cfg(target_arch = "x86_64")]
const POLL: libc::c_long = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: libc::c_long = libc::SYS_ppoll;

/// Stops a worker just after a beat, once `ready` says so, for longer than all its deadlines.
fn stop_and_go_on(ready: impl Fn(&Worker)) {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "interval=200 promise=600 budget=1000");
    worker.make("turn 10");
    worker.make("task job 2000");
    let due = until("the task is published", || record(&path).tasks.nearest).due_mono_ms.unwrap();
    next_beat(&path);
    ready(&worker);
    worker.signal(Signal::SIGSTOP);
    worker.wait_stopped();
    let last = record(&path);
    let seen = watched(&path, |record| observe(&path, Owner::Own).age_ms() > Some(record.promise_ms + 50));
    assert_eq!(seen, [Verdict::Alive, Verdict::Silent]);
    let reason = judged(&path).1;
    assert!(reason.starts_with("no beat for ") && reason.ends_with("; its process is stopped"), "{reason}");
    // Stopped until all that was due is long past.
    until("all is past", || {
        let late = observe(&path, Owner::Own).age_ms()? + last.at_mono_ms > due + 500;
        late.then_some(())
    });
    assert_eq!(record(&path), last);
    worker.signal(Signal::SIGCONT);
    let seen = watched(&path, |record| record.seq > last.seq + 6);
    // The first look may have come before the first beat.
    assert!(seen == [Verdict::Silent, Verdict::Alive] || seen == [Verdict::Alive], "{seen:?}");
    worker.make("end");
    assert_eq!(watched(&path, |record| record.tasks.done == 1), [Verdict::Alive]);
}

/// A busy machine may delay any one beat, so of five attempts one must be in time: a delay of the publisher's own
/// would be there each time.
#[track_caller]
fn assert_told_within_100_ms(mut late: impl FnMut() -> u64) {
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(late());
        if all.last() <= Some(&100) {
            println!("told {} ms after it was due", all[all.len() - 1]);
            return;
        }
    }
    panic!("told {all:?} ms after it was due");
}

fn a_wedged_loop_is_told_within_its_budget_while_the_beats_go_on() {
    let (_folder, path) = place();
    // Told because a deadline passed, not because a beat was due anyway.
    let mut worker = Worker::beating_with(&path, "interval=2000 budget=250");
    assert_told_within_100_ms(|| {
        worker.make("pulse");
        // The publisher hears of a pulse with its next beat, or its next look at a deadline.
        worker.make("ready");
        until_verdict(&path, Verdict::Wedged);
        let told = record(&path);
        let pulse = told.pulse.unwrap();
        assert_eq!(pulse.due_mono_ms - pulse.pulsed_mono_ms, 250);
        told.at_mono_ms - pulse.due_mono_ms
    });
    drop(worker);
    fs::remove_file(&path).unwrap();
    let mut worker = Worker::beating_with(&path, "budget=100");
    worker.make("pulse");
    until_verdict(&path, Verdict::Wedged);
    let told = record(&path);
    assert_eq!(watched(&path, |record| record.seq > told.seq + 20), [Verdict::Wedged]);
    assert_eq!(record(&path).pulse, told.pulse);
    let reason = judged(&path).1;
    assert!(reason.starts_with("its loop was due ") && reason.ends_with(" ago (budget 100 ms)"), "{reason}");
    worker.make("pulse 60000");
    until_verdict(&path, Verdict::Alive);
}

fn while_wedged_the_mtime_stays_behind_and_after_it_the_mtime_is_fresh() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "budget=100");
    worker.make("pulse");
    until_verdict(&path, Verdict::Wedged);
    let (first, touched) = (record(&path), fs::metadata(&path).unwrap().modified().unwrap());
    until("a second of beats", || (record(&path).at_mono_ms > first.at_mono_ms + 1_000).then_some(()));
    let moved = fs::metadata(&path).unwrap().modified().unwrap().duration_since(touched).unwrap_or_default();
    // The two clocks are read one after the other, so the last live moment is told with a little blur.
    assert!(moved < Duration::from_millis(200), "the mtime went {moved:?} ahead while the loop stood");
    assert!(age(&path) >= Duration::from_millis(800), "{:?}", age(&path));
    worker.make("pulse 60000");
    until_verdict(&path, Verdict::Alive);
    until("the mtime is fresh", || (age(&path) < Duration::from_millis(200)).then_some(()));
    // The same for a task.
    worker.make("task job 50");
    until_verdict(&path, Verdict::Overdue);
    until("the mtime is behind", || (age(&path) > Duration::from_millis(500)).then_some(()));
    worker.make("end");
    until("the mtime is fresh", || (age(&path) < Duration::from_millis(200)).then_some(()));
}

fn a_pulse_with_a_budget_of_its_own_covers_a_long_task_in_the_loop() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "budget=50");
    worker.make("pulse 600");
    until("the pulse is published", || record(&path).pulse);
    let seen =
        watched(&path, |record| record.pulse.is_some_and(|pulse| record.at_mono_ms > pulse.due_mono_ms));
    assert_eq!(seen, [Verdict::Alive, Verdict::Wedged]);
}

fn a_task_within_its_deadline_is_never_called_dead() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "promise=10000");
    worker.make("task long-job 1500");
    until("the task is published", || record(&path).tasks.nearest);
    assert_eq!(record(&path).status, Status::Busy);
    let seen = watched(&path, |record| {
        let due = record.tasks.nearest.as_ref().and_then(|task| task.due_mono_ms);
        due.is_some_and(|due| record.at_mono_ms > due)
    });
    assert_eq!(seen, [Verdict::Alive, Verdict::Overdue]);
    let reason = judged(&path).1;
    assert!(reason.starts_with("its task \"long-job\" was due "), "{reason}");
    worker.make("fail");
    until_verdict(&path, Verdict::Alive);
    assert_eq!((record(&path).tasks.failed, record(&path).status), (1, Status::Idle));
    // Without a deadline it takes as long as it takes.
    worker.make("task endless");
    let begun = next_beat(&path).at_mono_ms;
    assert_eq!(watched(&path, |record| record.at_mono_ms > begun + 500), [Verdict::Alive]);
}

fn a_task_past_its_deadline_is_told_within_100_ms() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "interval=2000");
    assert_told_within_100_ms(|| {
        worker.make("task job 250");
        // A wake-up, so that the publisher knows of the task before its next beat.
        worker.make("ready");
        until_verdict(&path, Verdict::Overdue);
        let told = record(&path);
        let late = told.at_mono_ms - told.tasks.nearest.unwrap().due_mono_ms.unwrap();
        worker.make("end");
        worker.make("ready");
        until_verdict(&path, Verdict::Alive);
        late
    });
}

fn the_task_whose_deadline_is_nearest_is_named() {
    let (_folder, path) = place();
    let mut worker = Worker::beating(&path);
    for task in ["task endless", "task late 90000", "task soon 30000", "task later 60000"] {
        worker.make(task);
    }
    let tasks = until("all are published", || Some(record(&path).tasks).filter(|tasks| tasks.running == 4));
    assert_eq!(tasks.nearest.unwrap().name, "soon");
    assert_eq!(record(&path).tasks.done, 0);
    for left in (0..4).rev() {
        worker.make("end");
        until("one less", || (record(&path).tasks.running == left).then_some(()));
    }
    let tasks = record(&path).tasks;
    assert_eq!((tasks.done, tasks.failed, tasks.nearest), (4, 0, None));
}

fn a_task_is_overdue_once_the_process_that_does_it_is_stopped_and_no_more_once_it_goes_on() {
    let (_folder, path) = place();
    let mut worker = Worker::beating(&path);
    let holder = Worker::spawn();
    worker.make("task resize 3600000");
    worker.make(&format!("held {}", holder.pid()));
    let due = |path: &Path| until("the task is published", || record(path).tasks.nearest?.due_mono_ms);
    let declared = due(&path);
    holder.signal(Signal::SIGSTOP);
    holder.wait_stopped();
    let stopped_from = next_beat(&path).at_mono_ms;
    let seen = watched(&path, |record| record.tasks.nearest.as_ref().unwrap().due_mono_ms < Some(declared));
    assert_eq!(seen.first(), Some(&Verdict::Alive), "only after its grace");
    let (told, since) = (record(&path).at_mono_ms, due(&path));
    assert!(since.abs_diff(stopped_from) < 1_000, "due at {since}, stopped by {stopped_from}");
    assert!(told > since + 5_000, "due since {since}, told at {told}");
    until_verdict(&path, Verdict::Overdue);
    holder.signal(Signal::SIGCONT);
    until_verdict(&path, Verdict::Alive);
    assert_eq!(due(&path), declared);
    worker.make("end");
}

fn a_worker_without_its_broker_is_never_wedged_and_cut_off_once_its_promise_has_passed() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "promise=400 budget=100");
    worker.make("pulse");
    worker.make("lost");
    let seen = watched(&path, |record| {
        record.broker.is_some_and(|lost| record.at_mono_ms > lost.lost_mono_ms + 600)
    });
    assert_eq!(seen, [Verdict::Alive, Verdict::CutOff]);
    assert!(judged(&path).1.starts_with("it has not reached its broker for "), "{}", judged(&path).1);
    // Its mtime tells that it is live.
    let beat = next_beat(&path).at_unix_ms;
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    assert!(modified + 1_000 > beat.into(), "{modified} and {beat}");
    worker.make("back");
    until_verdict(&path, Verdict::Alive);
    // From now on the loop counts.
    until_verdict(&path, Verdict::Wedged);
}

fn a_start_past_its_deadline_is_overdue_until_it_is_ready() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "start=600");
    worker.ask("status", "starting");
    let seen = watched(&path, is_past_its_state);
    assert_eq!(seen, [Verdict::Starting, Verdict::StartOverdue]);
    worker.make("ready");
    until_verdict(&path, Verdict::Alive);
    let now = record(&path);
    assert_eq!((now.status, now.until_mono_ms), (Status::Idle, None));
}

fn a_drain_past_its_deadline_is_overdue_and_one_without_never() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "budget=50");
    worker.make("pulse");
    worker.make("drain");
    // While draining nobody asks for the loop.
    until_verdict(&path, Verdict::Draining);
    let begun = record(&path).at_mono_ms;
    assert_eq!(watched(&path, |record| record.at_mono_ms > begun + 300), [Verdict::Draining]);
    worker.make("drain 2000");
    until("the deadline is published", || record(&path).until_mono_ms);
    let seen = watched(&path, is_past_its_state);
    assert_eq!(seen, [Verdict::Draining, Verdict::DrainOverdue]);
    worker.make("ready");
    worker.ask("status", "draining");
}

fn a_worker_without_loop_and_tasks_is_idle_and_alive() {
    let (_folder, path) = place();
    let _worker = Worker::beating(&path);
    let first = record(&path);
    assert_eq!((first.status, first.pulse), (Status::Idle, None));
    assert_eq!(watched(&path, |record| record.seq > 30), [Verdict::Alive]);
}

/// The worker's file with some fields changed, as a file of its own.
fn edited(path: &Path, changes: &[(&str, Value)]) -> PathBuf {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (key, change) in changes {
        assert_ne!(value[key], *change, "{key} is so already");
        value[key] = change.clone();
    }
    let edited = path.with_extension("edited");
    fs::write(&edited, value.to_string()).unwrap();
    edited
}

fn another_process_with_the_same_pid_is_not_the_worker() {
    let (_folder, path) = place();
    let worker = Worker::beating(&path);
    let start = record(&path).pid_start;
    let edited = edited(&path, &[("pid_start", (start - 1).into())]);
    let reason = format!("its pid {} belongs to another process now", worker.pid());
    assert_eq!(judged(&edited), (Verdict::Gone, reason));
}

fn a_record_of_another_boot_is_gone() {
    let (_folder, path) = place();
    let _worker = Worker::beating(&path);
    let edited = edited(&path, &[("boot", "00000000-0000-4000-8000-000000000000".into())]);
    assert_eq!(judged(&edited), (Verdict::Gone, "it is a record of another boot".to_owned()));
    // The clock of a boot that lasted longer stood higher.
    let later = crate::verdicts::edited(&edited, &[("at_mono_ms", 900_000_000_000_u64.into())]);
    assert_eq!(verdict(&later), Verdict::Gone);
}

fn a_record_from_another_pid_namespace_is_judged_by_its_silence_alone() {
    let (_folder, path) = place();
    let worker = Worker::beating_with(&path, "promise=500");
    worker.kill();
    assert_eq!(verdict(&path), Verdict::Gone);
    let edited = edited(&path, &[("pid_ns", 1.into())]);
    // It may have been silent before the look, on a busy machine; gone it is not.
    assert!(matches!(verdict(&edited), Verdict::Alive | Verdict::Silent));
    until_verdict(&edited, Verdict::Silent);
}

fn a_bare_file_is_judged_by_its_mtime_and_the_future_is_not_fresh() {
    let (_folder, path) = place();
    let file = File::create(&path).unwrap();
    let touch = |time: SystemTime| file.set_times(FileTimes::new().set_modified(time)).unwrap();
    let judged = |max_age| observe(&path, Owner::Own).judge(max_age).verdict;
    let now = SystemTime::now();
    assert_eq!((judged(None), judged(Some(60_000))), (Verdict::Corrupt, Verdict::Alive));
    touch(now - Duration::from_secs(50));
    assert_eq!(judged(Some(60_000)), Verdict::Alive);
    touch(now - Duration::from_secs(61));
    assert_eq!(judged(Some(60_000)), Verdict::Silent);
    touch(SystemTime::now() + Duration::from_millis(1_900));
    assert_eq!(judged(Some(60_000)), Verdict::Alive);
    touch(SystemTime::now() + Duration::from_hours(1));
    assert_eq!(judged(Some(60_000)), Verdict::Silent);
    touch(SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000));
    assert_eq!(judged(Some(60_000)), Verdict::Silent);
}

fn the_mtime_of_a_healthy_worker_is_the_moment_of_its_beat() {
    let (_folder, path) = place();
    let mut worker = Worker::beating_with(&path, "interval=600000 promise=1200000");
    let at = record(&path).at_unix_ms;
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    // A file's time is that of the kernel's last tick.
    assert!(modified.abs_diff(at.into()) < 1_000, "{modified} and {at}");
    // A change of state is published at once, not with the next beat.
    worker.make("drain");
    until_verdict(&path, Verdict::Draining);
    thread::yield_now();
    assert_eq!(record(&path).seq, 2);
}
