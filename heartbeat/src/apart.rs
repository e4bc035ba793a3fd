//! The beat file, written by a thread of its own: for a publisher that others are told by, too. A file system that answers no
//! more (a dead network mount, a frozen disk) then holds this thread alone, and Redis, the endpoint and systemd are told of
//! the worker as before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::file::{BeatFile, Failure, Written};
use crate::process::spawn_undisturbed;
use crate::record::MAX_BYTES;
use crate::sync::{Instant, Receiver, SyncSender, sync_channel};

/// How long the first beat is waited for, which claims the path, and may have to watch it: less than a start waits.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// How long any other is: less than what counts as starved. What has come of one that takes longer is told with the next.
const WAIT: Duration = Duration::from_millis(50);

/// How long one may be under way before that is an error: on a machine that is busy it waits as well, for its turn.
const SLOW: Duration = Duration::from_secs(1);

/// How long a removal is waited for: less than a stop waits.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What is to be done with a line.
enum What {
    Publish(Option<SystemTime>),
    Remove,
}

/// How it was written; `None` where the file was removed.
type Done = Result<Option<Written>, Failure>;

/// What has come of it, with the line, which goes there and back so that no beat allocates.
struct Outcome {
    line: Vec<u8>,
    done: thread::Result<Done>,
}

/// The publisher's side of the thread, which ends with this.
#[derive(Debug)]
pub struct Apart {
    path: PathBuf,
    orders: SyncSender<(Vec<u8>, What)>,
    outcomes: Receiver<Outcome>,
    /// `None` while an outcome is awaited.
    line: Option<Vec<u8>>,
    /// When the last line was handed over.
    ordered: Instant,
    wait: Duration,
}

impl Apart {
    pub fn start(mut file: BeatFile) -> io::Result<Self> {
        let path = file.path().to_owned();
        // One beat, and behind it the removal.
        let (orders, taken) = sync_channel::<(Vec<u8>, What)>(2);
        let (tell, outcomes) = sync_channel(2);
        spawn_undisturbed("heartbeat-file", move || {
            for (line, what) in taken {
                let done = catch_unwind(AssertUnwindSafe(|| match what {
                    What::Publish(mtime) => file.publish(&line, mtime).map(Some),
                    What::Remove => file.remove(&line).map(|()| None),
                }));
                // Who has waited in vain may be gone; a removal that is still to be done is done all the same.
                let _ = tell.send(Outcome { line, done });
            }
        })?;
        let line = Some(Vec::with_capacity(MAX_BYTES));
        Ok(Self { path, orders, outcomes, line, ordered: Instant::now(), wait: FIRST_WAIT })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// [`BeatFile::publish`]. `None` where this beat is still under way, or the last one, and then this one is not made: an error where
    /// that takes long.
    pub fn publish(&mut self, line: &[u8], mtime: Option<SystemTime>) -> Done {
        let late = match self.line {
            Some(_) => None,
            None => match self.outcomes.try_recv() {
                Ok(outcome) => Some(self.take(outcome)),
                Err(TryRecvError::Empty) if self.ordered.elapsed() < SLOW => return Ok(None),
                Err(TryRecvError::Empty) => return Err(stuck()),
                Err(TryRecvError::Disconnected) => return Err(ended()),
            },
        };
        self.order(line, What::Publish(mtime))?;
        let wait = std::mem::replace(&mut self.wait, WAIT);
        match self.outcomes.recv_timeout(wait) {
            Ok(outcome) => self.take(outcome),
            // What there is to tell by now.
            Err(RecvTimeoutError::Timeout) => late.unwrap_or(Ok(None)),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    /// [`BeatFile::remove`]. Where that takes too long, an error; it is removed as soon as it can be.
    pub fn remove(&mut self, farewell: &[u8]) -> Result<(), Failure> {
        let until = Instant::now() + LAST_WAIT;
        let is_late = self.line.is_none();
        self.order(farewell, What::Remove)?;
        // A beat that is still under way comes before.
        let mut outcome = self.wait_until(until)?;
        if is_late {
            outcome = self.wait_until(until)?;
        }
        outcome.map(drop)
    }

    fn order(&mut self, line: &[u8], what: What) -> Result<(), Failure> {
        let mut spare = self.line.take().unwrap_or_default();
        spare.clear();
        spare.extend_from_slice(line);
        self.ordered = Instant::now();
        self.orders.try_send((spare, what)).map_err(|_| ended())
    }

    fn wait_until(&mut self, until: Instant) -> Result<Done, Failure> {
        match self.outcomes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(outcome) => Ok(self.take(outcome)),
            Err(RecvTimeoutError::Timeout) => Err(stuck()),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    /// A panic there is one here, where it is contained and counted.
    fn take(&mut self, Outcome { line, done }: Outcome) -> Done {
        self.line = Some(line);
        done.unwrap_or_else(|payload| resume_unwind(payload))
    }
}

fn stuck() -> Failure {
    Failure::System(io::Error::new(io::ErrorKind::TimedOut, "the file system does not answer"))
}

fn ended() -> Failure {
    Failure::System(io::Error::other("the thread that writes it has ended"))
}
