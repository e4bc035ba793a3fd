//! Workers unlike each other, in any number: names, hosts, queues, states and tasks follow from a worker's number
//! alone. They beat by the library itself, many over one connection, as `heartbeat agent` does.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Beat, Fleet, Url, takes_work};
use heartbeat::record::Record;
use heartbeat::verdict::Verdict;
use nix::time::{ClockId, clock_gettime};

/// How many queues there are; a worker takes work from none to three of them.
const QUEUES: u64 = 40;

/// How many workers run on one host.
const PER_HOST: u32 = 200;

/// The queue that is asked for wherever one is.
pub const QUEUE: &str = "mail-6";

/// One that beats.
pub struct Worker {
    pub record: Record,
    takes_work: bool,
}

/// Some workers of one cluster.
pub struct Crew {
    pub cluster: String,
    pub workers: Vec<Worker>,
}

/// What came of beating.
#[derive(Debug, Default)]
pub struct Sent {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
}

/// How often, and in which portions.
#[derive(Clone, Copy)]
pub struct Pace {
    /// `None`: as often as the server can.
    pub a_second: Option<f64>,
    /// How many go in one round trip.
    pub together: usize,
}

impl Crew {
    pub fn of(cluster: &str, size: usize) -> Self {
        let numbers = 0..u32::try_from(size).expect("a number of workers");
        let workers = numbers.map(|number| Worker::new(cluster, number)).collect();
        Self { cluster: cluster.to_owned(), workers }
    }

    /// How many of them can take work, and how many from the queue that is asked for.
    pub fn ready(&self) -> (u64, u64) {
        let ready = || self.workers.iter().filter(|worker| worker.takes_work);
        let on = ready().filter(|worker| worker.record.queues.iter().any(|queue| queue == QUEUE));
        (ready().count() as u64, on.count() as u64)
    }

    /// How many run on that host.
    pub fn on_host(&self, host: &str) -> u64 {
        self.workers.iter().filter(|worker| worker.record.host == host).count() as u64
    }

    /// The mean size of a record's line.
    pub fn mean_line(&self) -> usize {
        let mut line = Vec::new();
        let length = |worker: &Worker| {
            worker.record.write(&mut line);
            line.len()
        };
        let some = self.workers.len().min(1_000);
        self.workers[..some].iter().map(length).sum::<usize>() / some.max(1)
    }

    /// Each of them once, as fast as it goes.
    pub fn beat_once(&mut self, url: &Url) {
        let sent = Sent::default();
        let mut fleet = Fleet::new(url.clone(), self.cluster.as_str());
        for workers in self.workers.chunks_mut(256) {
            beat_together(&mut fleet, workers, &sent);
        }
        assert_eq!(sent.refused.into_inner(), 0, "Redis refused beats");
    }

    /// Beats, each worker in its turn, over that many connections, until told to stop.
    pub fn beat<'scope>(
        &'scope mut self,
        scope: &'scope thread::Scope<'scope, '_>,
        url: &'scope Url,
        pace: Pace,
        connections: usize,
        stop: &'scope AtomicBool,
        sent: &'scope Sent,
    ) {
        let share = self.workers.len().div_ceil(connections).max(1);
        for (index, workers) in self.workers.chunks_mut(share).enumerate() {
            let fleet = Fleet::new(url.clone(), self.cluster.as_str());
            #[expect(clippy::cast_precision_loss, reason = "a few connections")]
            let pace = Pace { a_second: pace.a_second.map(|all| all / connections as f64), ..pace };
            // Apart from each other, as workers that started at different times are.
            let phase = Duration::from_millis(7 * index as u64);
            scope.spawn(move || keep_beating(fleet, workers, pace, phase, stop, sent));
        }
    }
}

fn keep_beating(
    mut fleet: Fleet,
    workers: &mut [Worker],
    pace: Pace,
    phase: Duration,
    stop: &AtomicBool,
    sent: &Sent,
) {
    let mut due = Instant::now() + phase;
    loop {
        for some in workers.chunks_mut(pace.together) {
            if let Some(a_second) = pace.a_second {
                #[expect(clippy::cast_precision_loss, reason = "a few workers")]
                let lasts = Duration::from_secs_f64(some.len() as f64 / a_second);
                let slice = Duration::from_millis(50);
                while let Some(left) = due.checked_duration_since(Instant::now()) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(left.min(slice));
                }
                due += lasts;
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
            beat_together(&mut fleet, some, sent);
        }
    }
}

fn beat_together(fleet: &mut Fleet, workers: &mut [Worker], sent: &Sent) {
    let now = mono_ms();
    let lines: Vec<_> = workers.iter_mut().map(|worker| worker.line(now)).collect();
    let beats: Vec<_> = workers.iter().zip(&lines).map(|(worker, line)| worker.beat(line)).collect();
    match fleet.publish(&beats, Instant::now() + Duration::from_secs(20)) {
        Ok(each) => {
            let refused = each.iter().filter(|outcome| outcome.is_err()).count();
            sent.accepted.fetch_add((each.len() - refused) as u64, Ordering::Relaxed);
            sent.refused.fetch_add(refused as u64, Ordering::Relaxed);
        }
        Err(error) => {
            sent.refused.fetch_add(beats.len() as u64, Ordering::Relaxed);
            // Every refusal fails the run; why, is said here.
            let _ = writeln!(io::stderr(), "a beat failed: {error}");
        }
    }
}

impl Worker {
    fn new(cluster: &str, number: u32) -> Self {
        let record = record(cluster, number);
        let takes_work = takes_work(&record, Verdict::Alive);
        Self { record, takes_work }
    }

    fn beat<'a>(&'a self, line: &'a [u8]) -> Beat<'a> {
        Beat { record: &self.record, line, takes_work: self.takes_work, age_ms: 0 }
    }

    /// What it says now.
    fn line(&mut self, now: u64) -> Vec<u8> {
        let record = &mut self.record;
        let since = now - record.at_mono_ms;
        record.seq += 1;
        record.at_mono_ms = now;
        record.at_unix_ms += since;
        if let Some(pulse) = &mut record.pulse {
            pulse.pulsed_mono_ms += since;
            pulse.due_mono_ms += since;
        }
        if let Some(stat) = &mut record.stat {
            stat.ok_mono_ms += since;
        }
        let mut line = Vec::with_capacity(1_024);
        record.write(&mut line);
        line
    }
}

/// The host of the worker of that number.
pub fn host(number: u32) -> String {
    let host = number / PER_HOST;
    let kind = one_of(["web", "batch", "gpu-a100", "edge-eu-central-1"], host.into());
    format!("{kind}-{host}.example.net")
}

/// The name of the worker of that number.
pub fn name(number: u32) -> String {
    let dice = mix(number.into());
    match dice % 3 {
        0 => format!("{}:{}", host(number), 1_000 + number),
        1 => format!("orders-worker-{:08x}-{number}", dice >> 32),
        _ => format!("w{number}"),
    }
}

fn record(cluster: &str, number: u32) -> Record {
    let dice = mix(number.into());
    let other = mix(dice);
    let queues: BTreeSet<_> = (0..dice % 4)
        .map(|turn| mix(dice + turn) % QUEUES)
        .map(|queue| format!("{}-{queue}", one_of(["mail", "reports", "thumbnails.high"], queue)))
        .collect();
    let queues = Vec::from_iter(queues);
    let now = mono_ms();
    let far = now + 3_600_000;
    let state = match dice % 32 {
        0 => format!(r#""status":"starting","until_mono_ms":{far},"#),
        1 => format!(r#""status":"draining","until_mono_ms":{far},"#),
        2..16 => r#""status":"busy","#.to_owned(),
        _ => r#""status":"idle","#.to_owned(),
    };
    let pulse = match dice % 3 {
        0 => String::new(),
        _ => format!(r#""loop":{{"pulsed_mono_ms":{},"due_mono_ms":{far}}},"#, now - other % 9_000),
    };
    let tasks = match dice % 32 {
        2..16 => format!(
            r#""running":{},"done":{},"failed":{},"name":"{}.tasks.resize","since_mono_ms":{},"due_mono_ms":{far}"#,
            1 + other % 8,
            other % 1_000_000,
            other % 97,
            one_of(["shop", "orders", "mailing"], other),
            now - other % 9_000,
        ),
        _ => format!(r#""running":0,"done":{},"failed":{}"#, other % 1_000_000, other % 97),
    };
    let version = if other.is_multiple_of(2) { r#","version":"2026.11.3+8f2c1ab""# } else { "" };
    let line = format!(
        r#"{{"v":1,"id":"{dice:016x}{other:016x}","cluster":"{cluster}","worker":"{}","host":"{}","queues":{queues:?},
        "pid":{},"pid_start":{},"pid_ns":4026531836,"boot":"{:08x}-3a5f-4bd1-9c1e-0242ac120002","seq":{},
        "at_mono_ms":{now},"at_unix_ms":1763700000000,"interval_ms":15000,"promise_ms":600000,{state}{pulse}
        "tasks":{{{tasks}}},"stat":{{"ok_mono_ms":{},"failures":0}}{version}}}"#,
        name(number),
        host(number),
        1 + other % 4_000_000,
        other % 100_000_000,
        mix(u64::from(number / PER_HOST)) >> 32,
        1 + other % 100_000,
        now - 1,
    );
    Record::parse(line.as_bytes()).unwrap_or_else(|corrupt| panic!("{corrupt}: {line}"))
}

fn one_of<const N: usize>(names: [&'static str; N], dice: u64) -> &'static str {
    names[usize::try_from(dice % N as u64).expect("an index")]
}

fn mono_ms() -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
    u64::try_from(now.as_millis()).expect("a time")
}

/// The last step of `SplitMix64`: every number its own bits.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
