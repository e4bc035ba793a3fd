//! All orders in which the worker, the publisher and the thread that writes the beat file may meet, tried one by one by loom: the
//! state that worker and publisher share, the publisher's wake-up, and how that thread is handed its work. The modules are those of
//! `heartbeat/src`, and the file is a real one; only locks, the kernel's counter and channels are others (`sync.rs`), and the clock
//! stands still.
//!
//! A wake-up that is lost is a thread that waits for ever, and loom says so. Most of these have too many orders to try all: `preemptions`.
//! Where one fails, `LOOM_LOG=1 LOOM_LOCATION=1` tells each step.

#![allow(dead_code, reason = "the modules are those of the library, whole")]

use std::fs;
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use loom::thread;
use tempfile::TempDir;

use extras::{Extras, Told};
use file::{BeatFile, DEFAULT_MODE, Failure};
use observe::{Owner, observe};
use publisher::{Phase, Publisher, Shared, Subject};
use record::{Id, Record, Status, Tasks};
use sink::Sink;
use sync::patience;

/// The library's own, without the feature `tracing`.
macro_rules! told {
    ($level:ident, $($message:tt)+) => {{
        let _ = format_args!($($message)+);
    }};
}

#[path = "../../heartbeat/src/apart.rs"]
mod apart;
#[path = "../../heartbeat/src/duration.rs"]
mod duration;
#[path = "../../heartbeat/src/file.rs"]
mod file;
#[path = "../../heartbeat/src/json.rs"]
mod json;
#[path = "../../heartbeat/src/mark.rs"]
mod mark;
#[path = "../../heartbeat/src/observe.rs"]
mod observe;
#[path = "../../heartbeat/src/publisher.rs"]
mod publisher;
#[path = "../../heartbeat/src/record.rs"]
mod record;
#[path = "../../heartbeat/src/sink.rs"]
mod sink;
mod sync;
#[path = "../../heartbeat/src/tasks.rs"]
mod tasks;
#[path = "../../heartbeat/src/verdict.rs"]
mod verdict;

/// So nothing is due by itself: what is not woken sleeps for ever.
mod clock {
    pub fn mono_ms() -> u64 {
        1_000_000
    }

    pub fn boot_ms() -> u64 {
        1_000_000
    }

    pub fn unix_ms() -> u64 {
        1_000_000
    }
}

/// A model forks no process, and its threads are loom's.
mod process {
    use std::cell::RefCell;
    use std::io;

    use loom::thread::{Builder, JoinHandle};

    use crate::record::Id;

    /// Loom's own is of 32 KiB, less than reading and writing a record may take.
    const STACK: usize = 256 * 1024;

    thread_local!(static STARTED: RefCell<Vec<JoinHandle<()>>> = RefCell::default());

    pub fn generation() -> u32 {
        0
    }

    pub fn has_started(_: Id) -> bool {
        false
    }

    pub fn spawn_undisturbed(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = Builder::new().name(name.to_owned()).stack_size(STACK).spawn(run)?;
        STARTED.with_borrow_mut(|started| started.push(thread));
        Ok(())
    }

    /// Waits until all have ended.
    pub fn join_all() {
        for thread in STARTED.take() {
            thread.join().unwrap();
        }
    }
}

/// In the place of the endpoint and systemd somebody who is told with each turn, and whom a model can wait for.
mod extras {
    use std::sync::Arc;

    use nix::poll::PollTimeout;

    use crate::record::Record;
    use crate::sync::EventFd;
    use crate::verdict::Judgement;

    #[derive(Debug, Default)]
    pub struct Extras {
        last: Option<Record>,
        pub told: Arc<Told>,
    }

    /// What the publisher knew when it last had nothing more to do.
    #[derive(Debug, Default)]
    pub struct Told {
        record: loom::sync::Mutex<Option<Record>>,
        changed: loom::sync::Condvar,
    }

    impl Told {
        pub fn until(&self, is_so: impl Fn(&Record) -> bool) -> Record {
            let mut record = self.record.lock().unwrap();
            loop {
                match record.as_ref().filter(|record| is_so(record)) {
                    Some(record) => return record.clone(),
                    None => record = self.changed.wait(record).unwrap(),
                }
            }
        }
    }

    impl Extras {
        pub fn are_none(&self) -> bool {
            false
        }

        pub fn wait(&mut self, wake: &EventFd, _: PollTimeout) -> bool {
            *self.told.record.lock().unwrap() = self.last.clone();
            self.told.changed.notify_all();
            wake.poll();
            wake.read().is_ok()
        }

        pub fn attend(&mut self, record: &Record, _: &Judgement<'_>, _: u64) {
            self.last = Some(record.clone());
        }

        pub fn due_ms(&self) -> Option<u64> {
            None
        }

        pub fn failures(&self) -> (u64, u64) {
            (0, 0)
        }

        pub fn end(&mut self, _: &Record, _: &Judgement<'_>) {}
    }
}

/// What is tried, and how many of the waits for the file's thread may end in vain there: each in all ways.
struct Model {
    name: &'static str,
    waits: u32,
    /// How often a thread may be held up where it could go on, beyond which there are too many orders to try all: so many times,
    /// and once more with `--whole`.
    preemptions: Option<usize>,
    run: fn(),
}

const MODELS: &[Model] = &[
    Model {
        name: "a stop at any moment is seen, and the file is gone",
        waits: 0,
        preemptions: None,
        run: || stop(here),
    },
    Model {
        name: "so it is where a thread of its own writes the file, however slowly",
        waits: 3,
        preemptions: Some(2),
        run: || stop(apart),
    },
    Model {
        name: "two that stop are both told of the end",
        waits: 0,
        preemptions: Some(2),
        run: || two_stop(here),
    },
    Model {
        name: "what two say at once is in the record, and the record in the file",
        waits: 0,
        preemptions: Some(2),
        run: || two_say(here),
    },
    Model {
        name: "so it is where a thread of its own writes the file",
        waits: 0,
        preemptions: Some(1),
        run: || two_say(apart),
    },
    Model {
        name: "a beat that the file's thread has taken is written, or a later one is",
        waits: 3,
        preemptions: Some(2),
        run: beats_apart,
    },
    Model {
        name: "a removal that it has taken is made, whoever waits for it",
        waits: 5,
        preemptions: Some(2),
        run: removal_apart,
    },
];

fn main() {
    // The library contains panics, but here each of them, loom's own too, is what was looked for.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        exit(1);
    }));
    let whole = std::env::args().any(|argument| argument == "--whole");
    for model in MODELS {
        let orders = Arc::new(AtomicU64::new(0));
        println!("{} ...", model.name);
        let mut all = loom::model::Builder::new();
        all.preemption_bound = model.preemptions.map(|most| most + usize::from(whole));
        for in_vain in 0..1 << model.waits {
            let (orders, run) = (Arc::clone(&orders), model.run);
            all.check(move || {
                orders.fetch_add(1, Ordering::Relaxed);
                patience::set(in_vain);
                run();
            });
        }
        println!("    holds in all of {} orders", orders.load(Ordering::Relaxed));
    }
    fs::remove_dir_all(FOLDER.path()).unwrap();
}

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    // In memory where that can be: what the file system does is not what is tried here.
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
});

fn path() -> PathBuf {
    FOLDER.path().join("beat")
}

fn beat_file() -> BeatFile {
    BeatFile::new(path(), Id(7), DEFAULT_MODE).unwrap()
}

fn here() -> Sink {
    Sink::Here(beat_file())
}

fn apart() -> Sink {
    Sink::apart(beat_file()).unwrap()
}

fn record() -> Record {
    Record {
        id: Id(7),
        cluster: "c".to_owned(),
        worker: "w".to_owned(),
        host: "h".to_owned(),
        queues: Vec::new(),
        pid: std::process::id(),
        pid_start: 7,
        pid_ns: 1,
        boot: "b".to_owned(),
        seq: 0,
        at_mono_ms: clock::mono_ms(),
        at_unix_ms: clock::unix_ms(),
        interval_ms: 1_000,
        promise_ms: 30_000,
        status: Status::Idle,
        until_mono_ms: None,
        pulse: None,
        tasks: Tasks::default(),
        stat: None,
        broker: None,
        version: None,
    }
}

/// What stands in the file.
fn found() -> Record {
    observe(&path(), Owner::Own).record().expect("a record").clone()
}

fn line(seq: u64) -> Vec<u8> {
    let mut line = Vec::new();
    Record { seq, ..record() }.write(&mut line);
    line
}

/// A publisher that begins.
struct Scene {
    shared: Arc<Shared>,
    told: Arc<Told>,
}

impl Scene {
    fn start(sink: fn() -> Sink, phase: Phase) -> Self {
        let subject = Subject { pid: std::process::id(), start: 7 };
        let shared = Arc::new(Shared::new(phase, subject, 30_000, None).unwrap());
        let extras = Extras::default();
        let told = Arc::clone(&extras.told);
        let publisher = Publisher::new(Arc::clone(&shared), record(), Some(sink()), extras);
        // Nobody waits for the start.
        let (first, _) = std::sync::mpsc::sync_channel(1);
        process::spawn_undisturbed("heartbeat", move || publisher.run(&first)).unwrap();
        Self { shared, told }
    }

    fn stop(&self) -> Result<(), String> {
        self.shared.request_stop();
        self.wait_stopped()
    }

    fn wait_stopped(&self) -> Result<(), String> {
        let stopped = self.shared.wait_stopped(Duration::ZERO);
        match &stopped {
            Ok(()) => assert!(!path().exists(), "the file was to be gone"),
            Err(text) => assert!(text.ends_with("the file system does not answer"), "{text}"),
        }
        stopped
    }

    fn is_over(&self) {
        process::join_all();
        assert!(!path().exists(), "the file stays");
        assert_eq!(self.shared.status(), Status::Stopped);
    }
}

fn stop(sink: fn() -> Sink) {
    let scene = Scene::start(sink, Phase::Running);
    let stopped = scene.stop();
    assert_eq!(scene.wait_stopped(), stopped);
    scene.is_over();
}

fn two_stop(sink: fn() -> Sink) {
    let scene = Arc::new(Scene::start(sink, Phase::Running));
    let other = {
        let scene = Arc::clone(&scene);
        thread::spawn(move || scene.stop())
    };
    let stopped = scene.stop();
    assert_eq!(other.join().unwrap(), stopped);
    scene.is_over();
}

fn two_say(sink: fn() -> Sink) {
    let scene = Scene::start(sink, Phase::Starting { until_ms: u64::MAX });
    let other = {
        let shared = Arc::clone(&scene.shared);
        thread::spawn(move || {
            shared.set_queues(vec!["mail".to_owned()]);
            shared.ready();
        })
    };
    scene.shared.drain(None);
    let told = scene.told.until(|record| record.status == Status::Draining && record.queues == ["mail"]);
    let found = found();
    assert_eq!((found.status, found.queues), (told.status, told.queues));
    other.join().unwrap();
    assert_eq!(scene.shared.status(), Status::Draining, "a worker that is ready still drains");
    assert_eq!(scene.stop(), Ok(()));
    scene.is_over();
}

/// Hands a beat over; whether the thread has taken it.
fn publish(sink: &mut Sink, seq: u64) -> bool {
    match sink.publish(&line(seq), None) {
        Ok(_) => true,
        Err(Failure::System(error)) if error.kind() == std::io::ErrorKind::TimedOut => false,
        Err(failure) => panic!("{failure}"),
    }
}

fn beats_apart() {
    let mut sink = apart();
    let taken = (1..=3).filter(|seq| publish(&mut sink, *seq)).last().unwrap();
    drop(sink);
    process::join_all();
    assert_eq!(found().seq, taken);
    fs::remove_file(path()).unwrap();
}

fn removal_apart() {
    let mut sink = apart();
    for seq in 1..=2 {
        publish(&mut sink, seq);
    }
    if sink.remove(&line(3)).is_ok() {
        assert!(!path().exists(), "the file was to be gone");
    }
    drop(sink);
    process::join_all();
    assert!(!path().exists(), "the file stays");
}
