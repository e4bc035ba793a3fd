//! What the heartbeat costs inside a worker: `worker FOLDER...` prints a line a measure: its name, its number, its unit.
//! Each is measured in turns with what it is compared with, and the median of the turns is told.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use heartbeat::Heartbeat;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

const MONOTONIC: i32 = 1;
const TURNS: usize = 101;
const EACH: u32 = 20_000;

fn main() {
    let heartbeat = Heartbeat::builder().environment(|_| None).no_file().start().expect("a heartbeat");
    let store = AtomicU64::new(0);
    let bare = || {
        let mut time = Timespec { seconds: 0, nanoseconds: 0 };
        // SAFETY: the pointer is valid for the time of the call.
        unsafe { clock_gettime(MONOTONIC, &raw mut time) };
        black_box(&store).store(time.nanoseconds.cast_unsigned(), Ordering::Relaxed);
    };
    let task = || drop(black_box(heartbeat.task("resize", Duration::from_mins(1))));
    let [bare, pulse, task] = in_turns([&bare, &|| heartbeat.pulse(), &task]);
    println!("bare {bare:.2} ns\npulse {pulse:.2} ns\ntask {task:.2} ns");
    let (one, two) = (tasks_a_second(&heartbeat, 1), tasks_a_second(&heartbeat, 2));
    println!("tasks-1 {one:.0} /s\ntasks-2 {two:.0} /s");
    heartbeat.stop().expect("its end");
    for folder in env::args().skip(1) {
        let quick = beat(&folder, Duration::from_millis(10), Duration::from_secs(5));
        println!("beat {:.2} µs of processor time, {folder}", quick.0 * 1e6);
    }
    if let Some(folder) = env::args().nth(1) {
        let (each, share) = beat(&folder, Duration::from_secs(1), Duration::from_secs(20));
        println!("idle {:.5} % of a core, {:.1} µs a beat", share * 100.0, each * 1e6);
    }
}

/// Nanoseconds of one of each.
fn in_turns<const N: usize>(measures: [&dyn Fn(); N]) -> [f64; N] {
    let mut took = [const { Vec::new() }; N];
    for _ in 0..TURNS {
        for (measure, took) in measures.iter().zip(&mut took) {
            let begun = Instant::now();
            (0..EACH).for_each(|_| measure());
            took.push(begun.elapsed().as_secs_f64() * 1e9 / f64::from(EACH));
        }
    }
    took.map(|mut took| {
        took.sort_unstable_by(f64::total_cmp);
        took[TURNS / 2]
    })
}

/// Of so many threads together, for half a second.
fn tasks_a_second(heartbeat: &Heartbeat, threads: usize) -> f64 {
    let begun = Instant::now();
    let done: u32 = thread::scope(|scope| {
        let work = || {
            let mut done = 0;
            while begun.elapsed() < Duration::from_millis(500) {
                (0..1_000).for_each(|_| drop(black_box(heartbeat.task("resize", Duration::from_mins(1)))));
                done += 1_000;
            }
            done
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|each| each.join().expect("its number")).sum()
    });
    f64::from(done) / begun.elapsed().as_secs_f64()
}

/// Seconds of processor time of a beat, and of each second.
fn beat(folder: &str, interval: Duration, time: Duration) -> (f64, f64) {
    let file = format!("{folder}/beat");
    let heartbeat = Heartbeat::builder()
        .environment(|_| None)
        .file(&file)
        .interval(interval)
        .start()
        .expect("a heartbeat");
    thread::sleep(Duration::from_millis(200));
    let (beats, used, begun) = (heartbeat.counters().beats, used(), Instant::now());
    thread::sleep(time);
    let (used, took) = (self::used() - used, begun.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "some beats")]
    let beats = (heartbeat.counters().beats - beats) as f64;
    heartbeat.stop().expect("its end");
    (used / beats, used / took)
}

/// Seconds of processor time of all threads but this one, which sleeps.
fn used() -> f64 {
    let threads = fs::read_dir("/proc/self/task")
        .expect("/proc")
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok());
    threads
        .map(|of| of.split(' ').next().and_then(|number| number.parse::<f64>().ok()).expect("a number"))
        .sum::<f64>()
        / 1e9
}
