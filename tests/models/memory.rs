//! All orders in which worker and publisher may meet at what they share, tried one by one by loom: the pulse mark and the tasks,
//! as they are in `heartbeat/src`, with loom's atomics and locks in the place of `std`'s.
//!
//! Every model is tried to its end, without a bound on preemptions. Where one fails, `LOOM_LOG=1 LOOM_LOCATION=1` tells each
//! step.

#![allow(dead_code, reason = "the modules are those of the library, whole")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heartbeat::{record, verdict};
use loom::thread;

use mark::{Budget, Mark};
use record::{Pulse, Tasks};
use tasks::Board;
use verdict::Process;

#[path = "../../heartbeat/src/clock.rs"]
mod clock;
#[path = "../../heartbeat/src/duration.rs"]
mod duration;
#[path = "../../heartbeat/src/mark.rs"]
mod mark;
mod sync;
#[path = "../../heartbeat/src/tasks.rs"]
mod tasks;

/// A model forks no process.
mod process {
    pub fn generation() -> u32 {
        0
    }
}

fn main() {
    let models: [(&str, fn()); 6] = [
        ("a pulse is read whole, and never an older one than before", pulse_and_reader),
        ("a pulse wins over an excuse, whenever that is made", pulse_and_excuse),
        ("a pulse wins over what a lost broker gives back", pulse_and_broker),
        ("tasks of two threads are counted once each, at any moment", two_threads_and_publisher),
        ("a deadline is moved once, and not that of an earlier task", excuse_and_tasks),
        ("what was seen of a holder is not held against the next task", holder_and_next_task),
    ];
    for (name, model) in models {
        let orders = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&orders);
        println!("{name} ...");
        loom::model(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        println!("    holds in all of {} orders", orders.load(Ordering::Relaxed));
    }
}

fn pulse(pulsed_mono_ms: u64, due_mono_ms: u64) -> Option<Pulse> {
    Some(Pulse { pulsed_mono_ms, due_mono_ms })
}

fn marked_at_1000() -> Arc<Mark> {
    let mark = Arc::new(Mark::default());
    mark.set(1_000, Budget::from_millis(100));
    mark
}

fn pulse_and_reader() {
    let mark = marked_at_1000();
    let worker = {
        let mark = Arc::clone(&mark);
        thread::spawn(move || {
            mark.set(2_000, Budget::from_millis(300));
            mark.set(3_000, Budget::from_millis(500));
        })
    };
    let all = [pulse(1_000, 1_100), pulse(2_000, 2_300), pulse(3_000, 3_500)];
    let seen = [mark.get(), mark.get()].map(|pulse| all.iter().position(|one| *one == pulse));
    assert!(seen[0].is_some() && seen[0] <= seen[1], "{seen:?}");
    worker.join().unwrap();
    assert_eq!(mark.get(), all[2]);
}

fn pulse_and_excuse() {
    let mark = marked_at_1000();
    let publisher = {
        let mark = Arc::clone(&mark);
        thread::spawn(move || {
            mark.extend(500);
            mark.get()
        })
    };
    mark.set(2_000, Budget::from_millis(100));
    let seen = publisher.join().unwrap();
    assert!([pulse(1_000, 1_600), pulse(2_000, 2_100), pulse(2_000, 2_600)].contains(&seen), "{seen:?}");
    let last = mark.get();
    assert!([pulse(2_000, 2_100), pulse(2_000, 2_600)].contains(&last), "the pulse is lost: {last:?}");
}

/// The worker's own thread gives back, the publisher excuses, and the loop's thread pulses.
fn pulse_and_broker() {
    let mark = marked_at_1000();
    let others = [
        {
            let mark = Arc::clone(&mark);
            thread::spawn(move || mark.give_back(1_050, 1_850))
        },
        {
            let mark = Arc::clone(&mark);
            thread::spawn(move || mark.extend(500))
        },
    ];
    mark.set(2_000, Budget::from_millis(100));
    for other in others {
        other.join().unwrap();
    }
    // Nothing was lost after the new pulse, so nothing of that is given back to it.
    let last = mark.get();
    assert!([pulse(2_000, 2_100), pulse(2_000, 2_600)].contains(&last), "{last:?}");
}

fn snapshot(board: &Board, now_ms: u64) -> Tasks {
    let mut tasks = Tasks::default();
    board.snapshot(&mut tasks, &mut String::new(), now_ms);
    tasks
}

/// All threads of a model are of one shard, for they are one thread of the system.
fn two_threads_and_publisher() {
    let board = Arc::new(Board::new());
    let workers = [1_u64, 2].map(|number| {
        let board = Arc::clone(&board);
        thread::spawn(move || {
            let task = board.start("job", number, Some(number * 1_000));
            if number == 1 { task.done() } else { task.fail() }
        })
    });
    let seen = [snapshot(&board, 10), snapshot(&board, 10)];
    for tasks in &seen {
        let nearest = tasks
            .nearest
            .as_ref()
            .map(|task| (task.name.as_str(), task.since_mono_ms * 1_000, task.due_mono_ms));
        match nearest {
            None => assert_eq!(tasks.running, 0),
            Some((name, since, due)) => {
                assert!(tasks.running > 0);
                assert_eq!((name, Some(since)), ("job", due), "of two tasks");
            }
        }
        assert!(
            tasks.running + tasks.done + tasks.failed <= 2 && tasks.done <= 1 && tasks.failed <= 1,
            "{tasks:?}"
        );
    }
    let begun = |tasks: &Tasks| tasks.running + tasks.done + tasks.failed;
    assert!(begun(&seen[0]) <= begun(&seen[1]) && seen[0].done <= seen[1].done, "{seen:?}");
    for worker in workers {
        worker.join().unwrap();
    }
    let last = snapshot(&board, 10);
    assert_eq!((last.running, last.done, last.failed), (0, 1, 1));
    assert!(!board.busy());
}

fn excuse_and_tasks() {
    let board = Arc::new(Board::new());
    let first = board.start("first", 1, Some(1_000));
    let publisher = {
        let board = Arc::clone(&board);
        thread::spawn(move || board.extend(500))
    };
    first.done();
    let second = board.start("second", 2, Some(2_000));
    publisher.join().unwrap();
    let nearest = snapshot(&board, 10).nearest.unwrap();
    assert_eq!(nearest.name, "second");
    assert!([Some(2_000), Some(2_500)].contains(&nearest.due_mono_ms), "{nearest:?}");
    second.done();
}

fn holder_and_next_task() {
    const GONE: u32 = 1;
    const RUNS: u32 = 2;
    let board = Arc::new(Board::new());
    let first = board.start("first", 1, None);
    first.held_by(GONE);
    let publisher = {
        let board = Arc::clone(&board);
        thread::spawn(move || {
            let look = |pid| if pid == GONE { Process::Absent } else { Process::Unknown };
            board.look_at_holders(&mut Vec::new(), look);
        })
    };
    first.done();
    // It has the slot of the first one.
    let second = board.start("second", 2, None);
    second.held_by(RUNS);
    publisher.join().unwrap();
    let nearest = snapshot(&board, u64::MAX).nearest.unwrap();
    assert_eq!((nearest.name.as_str(), nearest.due_mono_ms), ("second", None), "its process runs");
    second.done();
}
