//! A worker that beats to a file and to Redis, and a witness of when its file beats came.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use heartbeat::record::Record;
use heartbeat::{Builder, Heartbeat};
use tempfile::TempDir;

use crate::servers::{SOON, until};
use crate::signed::{OLD, keys};

pub const INTERVAL: Duration = Duration::from_millis(500);
pub const PROMISE: Duration = Duration::from_secs(3);

/// Settings that no environment changes.
pub fn builder() -> Builder {
    Heartbeat::builder().environment(|_| None).cluster("c").worker("w").no_file()
}

pub struct Worker {
    pub heartbeat: Heartbeat,
    path: PathBuf,
    _folder: TempDir,
}

impl Worker {
    pub fn start(url: &str) -> Self {
        Self::with(builder().redis(url).queues(["mail"]).interval(INTERVAL).promise(PROMISE))
    }

    /// The same, with signed records.
    pub fn start_signed(url: &str) -> Self {
        let builder = builder().redis(url).queues(["mail"]).interval(INTERVAL).promise(PROMISE);
        Self::with(builder.signing_keys(keys(OLD)))
    }

    pub fn with(builder: Builder) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heartbeat");
        let heartbeat = builder.file(&path).start().expect("a start");
        Self { heartbeat, path, _folder: folder }
    }

    /// What its beat file says.
    pub fn record(&self) -> Record {
        read(&self.path).expect("a record")
    }

    pub fn wait_published(&self) {
        let first = self.record().stat.expect("a stat key").ok_mono_ms;
        until("a beat in Redis", SOON, || {
            let stat = self.record().stat.expect("a stat key");
            (stat.ok_mono_ms > first && stat.failures == 0).then_some(())
        });
    }

    pub fn wait_failing(&self) {
        until("a beat that failed", SOON, || (self.record().stat?.failures > 0).then_some(()));
    }

    /// Watches the file until it is asked how it was.
    pub fn witness(&self) -> Witness {
        let done: Arc<AtomicBool> = Arc::default();
        let (path, stop) = (self.path.clone(), Arc::clone(&done));
        let watching = thread::spawn(move || {
            let mut beats: Vec<(u64, u64)> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if let Some(record) = read(&path)
                    && beats.last().is_none_or(|(seq, _)| *seq < record.seq)
                {
                    beats.push((record.seq, record.at_mono_ms));
                }
                thread::sleep(Duration::from_millis(5));
            }
            beats
        });
        Witness { done, watching }
    }
}

pub struct Witness {
    done: Arc<AtomicBool>,
    watching: JoinHandle<Vec<(u64, u64)>>,
}

impl Witness {
    /// Fails where any beat of the file came more than one interval late.
    #[track_caller]
    pub fn assert_on_time(self) {
        self.done.store(true, Ordering::Relaxed);
        let beats = self.watching.join().expect("no panic");
        let gaps = beats.windows(2).map(|pair| pair[1].1 - pair[0].1);
        let longest = gaps.max().expect("beats");
        let most = 2 * u64::try_from(INTERVAL.as_millis()).expect("a number");
        assert!(longest <= most, "{longest} ms between two beats of {INTERVAL:?}: {beats:?}");
    }
}

fn read(path: &std::path::Path) -> Option<Record> {
    Record::parse(&std::fs::read(path).ok()?).ok()
}
