//! The time between a worker's beats, measured: its beat file is read more often than it beats, and the beats say themselves
//! when they were made.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::observe::{Observation, Owner, observe};
use heartbeat::record::Record;

/// What was measured of a worker's beats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// How often it means to beat.
    pub interval_ms: u64,
    /// How long its silence may last.
    pub promise_ms: u64,
    /// How many times between two beats were seen.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// Their standard deviation.
    pub deviation_ms: f64,
    /// The longest of them.
    pub longest_ms: u64,
    /// Beats that were made and not seen: the times around them are left out.
    pub unseen: u64,
}

/// Reads the beat file for `time`; says what is wrong where it cannot.
pub fn measure(file: &Path, owner: Owner, time: Duration) -> Result<Measured, String> {
    let begun = Instant::now();
    let mut last = read(file, owner)?;
    let pause = Duration::from_millis((last.interval_ms / 20).clamp(1, 50));
    let mut gaps = Gaps::default();
    while begun.elapsed() < time {
        thread::sleep(pause.min(time.saturating_sub(begun.elapsed())));
        let next = read(file, owner)?;
        if next.id != last.id {
            return Err("the worker was started anew while it was measured".to_owned());
        }
        gaps.add(&last, &next);
        last = next;
    }
    let last = *last;
    gaps.measured(&last).ok_or_else(|| {
        "it has not beaten twice in that time: it may be wedged, or the time too short".to_owned()
    })
}

fn read(file: &Path, owner: Owner) -> Result<Box<Record>, String> {
    match observe(file, owner) {
        Observation::Record(record) => Ok(record),
        Observation::Missing(_) => Err("there is no beat file, or none that can be read".to_owned()),
        Observation::Unsafe(why) => Err(why.to_string()),
        Observation::Corrupt(why) => Err(why.to_string()),
        Observation::Bare(_) => Err("it is empty, so it does not tell of each beat".to_owned()),
        _ => Err("it cannot be read now".to_owned()),
    }
}

/// The times between beats: their number, sum, sum of squares and maximum.
#[derive(Debug, Default)]
struct Gaps {
    count: u64,
    sum_ms: f64,
    squares: f64,
    longest_ms: u64,
    unseen: u64,
}

impl Gaps {
    #[expect(clippy::cast_precision_loss, reason = "a time between two beats is far below 2^53 ms")]
    fn add(&mut self, last: &Record, next: &Record) {
        match next.seq.saturating_sub(last.seq) {
            0 => {}
            1 => {
                let gap_ms = next.at_mono_ms.saturating_sub(last.at_mono_ms);
                self.count += 1;
                self.sum_ms += gap_ms as f64;
                self.squares += gap_ms as f64 * gap_ms as f64;
                self.longest_ms = self.longest_ms.max(gap_ms);
            }
            more => self.unseen += more - 1,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody measures 2^53 beats")]
    fn measured(&self, record: &Record) -> Option<Measured> {
        let count = (self.count > 0).then_some(self.count as f64)?;
        let mean_ms = self.sum_ms / count;
        Some(Measured {
            interval_ms: record.interval_ms,
            promise_ms: record.promise_ms,
            count: self.count,
            mean_ms,
            deviation_ms: (self.squares / count - mean_ms * mean_ms).max(0.0).sqrt(),
            longest_ms: self.longest_ms,
            unseen: self.unseen,
        })
    }
}
