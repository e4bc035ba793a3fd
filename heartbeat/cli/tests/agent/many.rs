//! A folder of 10,000 beat files.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heartbeat::record::{Id, Record};
use nix::sys::signal::Signal;

use crate::bench::start;
use crate::scene::Scene;

const MANY: u64 = 10_000;

/// Seconds of processor time that a process has used.
fn processor_time(pid: nix::unistd::Pid) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    let ticks: u32 = [11, 12].map(|field: usize| fields[field].parse::<u32>().unwrap()).iter().sum();
    f64::from(ticks) / 100.0
}

/// One process that beats for many: every round, each file is replaced by a newer record.
fn beat_round(scene: &Scene, records: &mut [Record], made: &AtomicU64, stop: &AtomicBool, round: Duration) {
    let begun = Instant::now();
    let now_ms = || scene.record("clock").unwrap().at_mono_ms;
    let mut line = Vec::new();
    for (index, record) in records.iter_mut().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if index % 100 == 0 {
            record.at_mono_ms = now_ms();
        }
        record.seq += 1;
        // Before anybody can see it.
        made.fetch_add(1, Ordering::SeqCst);
        record.write(&mut line);
        fs::write(scene.file(&format!(".{index}")), &line).unwrap();
        fs::rename(scene.file(&format!(".{index}")), scene.file(&format!("w{index}"))).unwrap();
        let due = round.mul_f64(f64::from(u32::try_from(index).unwrap()) / 10_000.0);
        if index % 100 == 0 {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    std::thread::sleep(round.saturating_sub(begun.elapsed()));
}

/// Ends the beats, also where the test fails.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn ten_thousand_files_are_published_once_an_interval_over_one_connection() {
    let scene = Scene::new();
    // In memory: of the disk nothing is to be learned here.
    let memory = tempfile::TempDir::new_in("/dev/shm").unwrap();
    fs::remove_dir(scene.bench.path("beats")).unwrap();
    std::os::unix::fs::symlink(memory.path(), scene.bench.path("beats")).unwrap();
    let _clock = scene.worker("clock").start().unwrap();
    let model = scene.record("clock").unwrap();
    let mut records: Vec<_> = (0..MANY)
        .map(|number| {
            let mut record = model.clone();
            record.id = Id(u128::from(number) + 1);
            record.worker = format!("w{number}");
            record.interval_ms = 10_000;
            record
        })
        .collect();
    let stop = AtomicBool::new(false);
    let made = AtomicU64::new(0);
    // With those of the clock.
    let made_by_all = || made.load(Ordering::SeqCst) + scene.record("clock").unwrap().seq;
    beat_round(&scene, &mut records, &made, &stop, Duration::ZERO);
    let made_before = made_by_all();
    let begun = Instant::now();
    let agent = start(&mut scene.agent_command(&[]));
    std::thread::scope(|scope| {
        let _stopped = Stopped(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                beat_round(&scene, &mut records, &made, &stop, Duration::from_secs(10));
            }
        });
        scene.until_counts(MANY + 1, MANY + 1);
        eprintln!("all published {:.2?} after the start", begun.elapsed());
        let connections = scene.redis.info("stats", "total_connections_received");
        let made_at_first = made_by_all();
        let (errands, time, begun) = (scene.redis.errands(), processor_time(agent.pid()), Instant::now());
        std::thread::sleep(Duration::from_secs(6));
        let seconds = begun.elapsed().as_secs_f64();
        let beats = scene.redis.errands() - errands;
        let made_in_all = made_by_all();
        let share = (processor_time(agent.pid()) - time) / seconds;
        let connected = scene.redis.info("stats", "total_connections_received") - connections;
        let still = scene.counts();
        let memory = crate::bench::proc_status(agent.pid(), "VmHWM").unwrap();
        eprintln!("{beats} beats in {seconds:.1} s; {:.0} % of one processor; {memory}", share * 100.0);
        let most: u64 = memory.trim_end_matches(" kB").parse().unwrap();
        assert!(most < 128 << 10, "{memory}");
        assert_eq!(still, (MANY + 1, MANY + 1, MANY + 1));
        // Each beat once, 1,000 a second, however often the agent publishes: all have been told of by then, so what is told
        // later was made since the agent's start.
        let (most, least) = (made_in_all - made_before, (made_in_all - made_at_first) / 2);
        assert!((least..=most).contains(&beats), "{beats} beats, not {least} to {most}");
        // Those of this test's own questions.
        assert!(connected <= 6, "{connected} connections");
        assert!(share < 1.5, "{share}");
    });
    assert_eq!(scene.bench.stderr(), "");
    let begun = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit(), 0);
    let took = begun.elapsed();
    eprintln!("all withdrawn in {took:.2?}");
    assert_eq!(scene.bench.stderr(), "");
    assert_eq!(scene.counts(), (0, 0, 0));
    assert_eq!(scene.redis.ask::<u64>("DBSIZE"), 0);
    assert!(took < Duration::from_millis(1_500), "{took:?}");
}
