//! The wall clock is stepped under a worker: nothing follows from it.
//!
//! No clock of the machine is touched. A few lines of C, loaded before the C library, add to the wall clock what
//! stands in a file; the worker asks the time through them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use heartbeat::verdict::Verdict;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::{Worker, judged, next_beat, record, trial, until, verdict};

const STEPPED_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    long status = syscall(SYS_clock_gettime, clock, time);
    if (status == 0 && clock == CLOCK_REALTIME) {
        char text[32] = {0};
        int file = open(getenv("WALL_CLOCK_STEP"), O_RDONLY | O_CLOEXEC);
        if (file >= 0 && read(file, text, sizeof text - 1) > 0) time->tv_sec += atol(text);
        if (file >= 0) close(file);
    }
    return (int)status;
}
"#;

pub fn trials() -> Vec<Trial> {
    let compiler = Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let none = !compiler.is_ok_and(|status| status.success());
    vec![
        trial!(a_stepped_wall_clock_makes_no_worker_silent_and_none_alive).with_ignored_flag(none),
        trial!(a_worker_behind_its_deadlines_stays_so_whatever_the_wall_clock_says).with_ignored_flag(none),
    ]
}

/// A worker whose wall clock is a file's content away from the machine's, in seconds.
fn worker_with_a_clock(folder: &TempDir) -> (Worker, PathBuf) {
    let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    fs::write(&source, STEPPED_CLOCK).unwrap();
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(made.success());
    let step = folder.path().join("step");
    fs::write(&step, "0").unwrap();
    let worker = Worker::spawn_as(|command| {
        command.env("LD_PRELOAD", &library).env("WALL_CLOCK_STEP", &step);
    });
    (worker, step)
}

/// Steps the wall clock, at once.
fn step_to(step: &Path, seconds: i64) {
    let draft = step.with_extension("draft");
    fs::write(&draft, seconds.to_string()).unwrap();
    fs::rename(draft, step).unwrap();
}

/// A year, a moment before 1970, and back.
const STEPS: [i64; 6] = [3_600, 31_536_000, -31_536_000, -3_000_000_000, -1, 0];

fn a_stepped_wall_clock_makes_no_worker_silent_and_none_alive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let (mut worker, step) = worker_with_a_clock(&folder);
    worker.start(&path, "promise=5000 interval=20 budget=60000");
    worker.make("pulse");
    worker.make("task job 60000");
    let mut last = next_beat(&path);
    for seconds in STEPS {
        let real = last.at_unix_ms;
        step_to(&step, seconds);
        let target = last.seq + 10;
        until("beats go on", || {
            assert_eq!(verdict(&path), Verdict::Alive, "{seconds}: {}", judged(&path).1);
            (record(&path).seq >= target).then_some(())
        });
        last = record(&path);
        let beats = last.seq - target + 10;
        assert!(beats < 1_000, "the beats ran wild");
        if seconds == 31_536_000 {
            assert!(last.at_unix_ms > real + 20_000_000_000, "the step did not reach the worker");
        }
    }
    step_to(&step, 31_536_000);
    worker.kill();
    assert_eq!(verdict(&path), Verdict::Gone);
}

fn a_worker_behind_its_deadlines_stays_so_whatever_the_wall_clock_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let (mut worker, step) = worker_with_a_clock(&folder);
    worker.start(&path, "budget=50");
    worker.make("pulse");
    until("it is wedged", || (verdict(&path) == Verdict::Wedged).then_some(()));
    for seconds in STEPS {
        step_to(&step, seconds);
        let last = next_beat(&path).seq;
        until("beats go on", || {
            assert_eq!(verdict(&path), Verdict::Wedged, "{seconds}");
            (record(&path).seq > last + 5).then_some(())
        });
    }
    // By the worker's clock, which stands right again, its file is as old as its health.
    let record = next_beat(&path);
    let behind = record.at_mono_ms - record.pulse.unwrap().due_mono_ms;
    let age = fs::metadata(&path).unwrap().modified().unwrap().elapsed().unwrap();
    assert!(age >= Duration::from_millis(behind), "touched {age:?} ago, due {behind} ms ago");
}
