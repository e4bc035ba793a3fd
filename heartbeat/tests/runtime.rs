//! The pulse of a real tokio runtime, and the stop that does not block it.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use heartbeat::observe::{Observation, Owner, observe};
use heartbeat::record::Status;
use heartbeat::verdict::Verdict;
use heartbeat::{Builder, Heartbeat};
use tempfile::TempDir;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};

const PATIENCE: Duration = Duration::from_secs(20);

struct Worker {
    heartbeat: Heartbeat,
    folder: TempDir,
}

impl Worker {
    fn start(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builder = Heartbeat::builder()
            .environment(|_| None)
            .file(folder.path().join("beat"))
            .interval(Duration::from_millis(20))
            .loop_budget(Duration::from_millis(500));
        Self { heartbeat: settings(builder).start().unwrap(), folder }
    }

    fn observe(&self) -> Observation {
        observe(&self.folder.path().join("beat"), Owner::Own)
    }

    fn wait_for(&self, verdict: Verdict) {
        wait_for(|| self.observe().judge(None).verdict == verdict, verdict.as_str());
    }

    fn is_pulsed(&self) -> bool {
        self.observe().record().expect("a record").pulse.is_some()
    }
}

fn wait_for(mut fact: impl FnMut() -> bool, what: &str) {
    let end = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn current_thread() -> Runtime {
    RuntimeBuilder::new_current_thread().enable_time().build().unwrap()
}

fn two_threads() -> Runtime {
    RuntimeBuilder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// Blocks so many of a runtime's threads until they are let go.
fn a_blocked_runtime_is_wedged_until_it_is_free(runtime: &Runtime, threads: usize) {
    let worker = Worker::start(|builder| builder);
    let _pulse = {
        let _entered = runtime.enter();
        worker.heartbeat.pulse_from_runtime().unwrap()
    };
    let (block, blocked) = channel();
    let mut doors = Vec::new();
    for _ in 0..threads {
        let (door, opened) = channel::<()>();
        doors.push(door);
        let block = block.clone();
        runtime.spawn(async move {
            block.send(()).unwrap();
            // What nobody should do in a runtime.
            opened.recv().unwrap_err();
        });
    }
    for _ in 0..threads {
        blocked.recv_timeout(PATIENCE).unwrap();
    }
    worker.wait_for(Verdict::Wedged);
    drop(doors);
    worker.wait_for(Verdict::Alive);
}

#[test]
fn a_current_thread_runtime_that_is_blocked_is_wedged() {
    let runtime = current_thread();
    std::thread::scope(|scope| {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let runtime = &runtime;
        let driver = scope.spawn(move || runtime.block_on(ended));
        a_blocked_runtime_is_wedged_until_it_is_free(runtime, 1);
        drop(end);
        assert!(driver.join().unwrap().is_err());
    });
}

#[test]
fn a_multi_thread_runtime_with_all_threads_blocked_is_wedged() {
    a_blocked_runtime_is_wedged_until_it_is_free(&two_threads(), 2);
}

#[test]
fn a_runtime_that_waits_for_long_is_not_wedged() {
    let worker = Worker::start(|builder| builder.loop_budget(Duration::from_millis(400)));
    current_thread().block_on(async {
        let _pulse = worker.heartbeat.pulse_from_runtime().unwrap();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            assert_eq!(worker.observe().judge(None).verdict, Verdict::Alive);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_runtime_that_pulses_hides_no_wedged_loop() {
    let worker = Worker::start(|builder| builder);
    current_thread().block_on(async {
        let _pulse = worker.heartbeat.pulse_from_runtime().unwrap();
        worker.heartbeat.pulse();
        let end = Instant::now() + PATIENCE;
        while worker.observe().judge(None).verdict != Verdict::Wedged {
            assert!(Instant::now() < end, "the loop that turned once is not wedged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_loop_that_pulses_hides_no_wedged_runtime() {
    let worker = Worker::start(|builder| builder);
    let runtime = current_thread();
    let _entered = runtime.enter();
    // Nobody drives this runtime.
    let _pulse = worker.heartbeat.pulse_from_runtime().unwrap();
    let pulsed = || {
        worker.heartbeat.pulse();
        worker.observe().judge(None).verdict == Verdict::Wedged
    };
    wait_for(pulsed, "wedged");
}

#[test]
fn without_its_guard_a_runtime_is_judged_no_more() {
    let worker = Worker::start(|builder| builder);
    current_thread().block_on(async {
        let pulse = worker.heartbeat.pulse_from_runtime().unwrap();
        wait_for(|| worker.is_pulsed(), "the pulse");
        drop(pulse);
        wait_for(|| !worker.is_pulsed(), "a record without a loop");
    });
    assert_eq!(worker.observe().judge(None).verdict, Verdict::Alive);
}

#[test]
fn a_future_that_blocks_its_own_task_is_wedged_though_other_threads_turn() {
    let worker = Worker::start(|builder| builder);
    let runtime = two_threads();
    let _pulse = {
        let _entered = runtime.enter();
        worker.heartbeat.pulse_from_runtime().unwrap()
    };
    let (door, opened) = channel::<()>();
    let (block, blocked) = channel();
    std::thread::scope(|scope| {
        let driven = scope.spawn(|| {
            runtime.block_on(worker.heartbeat.pulse_while(async move {
                block.send(()).unwrap();
                // What nobody should do in a runtime.
                opened.recv().unwrap_err();
                // Not blocked any more, and for longer than the budget.
                tokio::time::sleep(Duration::from_secs(2)).await;
                "the end"
            }))
        });
        blocked.recv_timeout(PATIENCE).unwrap();
        worker.wait_for(Verdict::Wedged);
        drop(door);
        worker.wait_for(Verdict::Alive);
        while !driven.is_finished() {
            assert_eq!(worker.observe().judge(None).verdict, Verdict::Alive);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(driven.join().unwrap(), "the end");
    });
}

#[test]
fn a_future_is_judged_no_more_once_it_has_ended_or_was_dropped() {
    let worker = Worker::start(|builder| builder);
    current_thread().block_on(async {
        worker.heartbeat.pulse_while(std::future::ready(())).await;
        let cancelled = worker.heartbeat.pulse_while(std::future::pending::<()>());
        tokio::time::timeout(Duration::from_millis(1), cancelled).await.unwrap_err();
        wait_for(|| !worker.is_pulsed(), "a record without a loop");
    });
    assert_eq!(worker.observe().judge(None).verdict, Verdict::Alive);
}

#[test]
fn outside_a_runtime_there_is_an_error_and_no_pulse() {
    let worker = Worker::start(|builder| builder);
    let error = worker.heartbeat.pulse_from_runtime().unwrap_err();
    assert!(error.to_string().starts_with("heartbeat: "), "{error}");
    assert!(!worker.is_pulsed());
}

#[test]
fn stop_async_removes_the_file_and_can_be_awaited_by_many() {
    let worker = Worker::start(|builder| builder);
    current_thread().block_on(async {
        let (one, two) = tokio::join!(worker.heartbeat.stop_async(), worker.heartbeat.stop_async());
        one.unwrap();
        two.unwrap();
        worker.heartbeat.stop_async().await.unwrap();
    });
    assert_eq!(worker.heartbeat.status(), Status::Stopped);
    assert_eq!(worker.observe().judge(None).verdict, Verdict::Missing);
}

#[test]
fn stop_async_lets_the_runtime_turn() {
    let worker = Worker::start(|builder| builder);
    current_thread().block_on(async {
        let other = tokio::spawn(async { tokio::task::yield_now().await });
        tokio::select! {
            biased;
            stopped = worker.heartbeat.stop_async() => stopped.unwrap(),
            // Polled first, it asked for the stop and did not wait for it on this thread.
            _ = other => worker.heartbeat.stop_async().await.unwrap(),
        }
    });
    assert_eq!(worker.observe().judge(None).verdict, Verdict::Missing);
}
