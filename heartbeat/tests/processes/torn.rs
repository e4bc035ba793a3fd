//! Readers beside writers that are killed at any moment.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::record::Record;
use libtest_mimic::Trial;

use crate::{Worker, record, trial, until};

const WRITERS: usize = 3;
const KILLS: usize = 200;
const READS: u64 = 1_000_000;

pub fn trials() -> Vec<Trial> {
    vec![trial!(no_reader_ever_sees_a_torn_record_though_writers_are_killed_at_random)]
}

fn no_reader_ever_sees_a_torn_record_though_writers_are_killed_at_random() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..WRITERS).map(|number| folder.path().join(format!("beat-{number}"))).collect();
    let over = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    let mut writers: Vec<_> = paths.iter().map(|path| Worker::beating_with(path, "interval=10")).collect();
    let begun = Instant::now();
    let kills = thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read_until(&over, &reads, &paths))).collect();
        let mut kills = 0;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let enough = |kills| kills >= KILLS && reads.load(Ordering::Relaxed) >= READS;
        while !enough(kills) && !readers.iter().any(thread::ScopedJoinHandle::is_finished) {
            // Any moment of an interval is as good as another: this wait is for no fact.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            thread::sleep(Duration::from_micros(random % 12_000));
            let victim = usize::try_from(random >> 32).unwrap() % WRITERS;
            writers[victim] = replaced(&mut writers[victim], &paths[victim]);
            kills += 1;
        }
        over.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
        kills
    });
    let reads = reads.into_inner();
    assert!(kills >= KILLS && reads >= READS, "only {reads} reads and {kills} kills");
    drop(writers);
    let drafts = fs::read_dir(folder.path()).unwrap().count() - WRITERS;
    println!(
        "{reads} whole records read during {kills} kills in {:.1?}; {drafts} drafts left",
        begun.elapsed()
    );
    // Each incarnation removes what its predecessor left, so at most those of the last ones are there.
    assert!(drafts <= WRITERS, "{drafts} drafts are left");
}

/// Kills a writer and starts its next incarnation, which has its first beat made.
fn replaced(writer: &mut Worker, path: &Path) -> Worker {
    writer.kill();
    let last = record(path);
    let next = Worker::beating_with(path, "interval=10");
    let now = until("the next incarnation's beat", || Some(record(path)).filter(|now| now.id != last.id));
    assert_eq!(now.pid, next.pid());
    next
}

/// Reads as anybody could, until it is over, and counts the whole records.
fn read_until(over: &AtomicBool, reads: &AtomicU64, paths: &[PathBuf]) {
    while !over.load(Ordering::SeqCst) {
        for path in paths {
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => panic!("a moment without a file"),
                Err(error) => panic!("{error}"),
            };
            if let Err(why) = Record::parse(&bytes) {
                panic!("torn: {why}: {:?}", String::from_utf8_lossy(&bytes));
            }
            reads.fetch_add(1, Ordering::Relaxed);
        }
    }
}
