//! The handle that a worker holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::builder::{Builder, check_queues};
use crate::duration::millis;
use crate::error::{Error, ErrorKind};
use crate::observe::process;
use crate::publisher::{Counters, Shared, Subject};
use crate::record::{Record, Status};
use crate::tasks::Task;
use crate::verdict::Process;

/// How long [`Heartbeat::stop`] waits for the publisher to clean up.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(2);

/// A worker's heartbeat: beats from its start until [`Heartbeat::stop`] or its end.
///
/// Share it by reference or in an [`Arc`]. After `fork()` the child's copy does nothing: it neither beats nor
/// cleans up in its parent's name, and a child that is a worker itself starts a heartbeat of its own.
pub struct Heartbeat {
    pub(crate) shared: Arc<Shared>,
    /// As it was at the start.
    pub(crate) record: Box<Record>,
    pub(crate) signature: usize,
    #[cfg(feature = "endpoint")]
    pub(crate) endpoint: Option<std::net::SocketAddr>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// Settings to start from.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Leaves `starting`. Does nothing in any other state.
    pub fn ready(&self) {
        self.shared.ready();
    }

    /// Marks the worker's loop alive for the default loop budget.
    ///
    /// One clock read and one atomic store: no lock, no allocation, no system call; safe in a signal handler.
    pub fn pulse(&self) {
        self.shared.pulse();
    }

    /// Marks the worker's loop alive, and says that its next pulse may take up to `budget`: the loop is about to
    /// run a long task itself. Costs what [`Heartbeat::pulse`] costs. 97 days at most; above 2.3 hours, whole seconds.
    pub fn pulse_within(&self, budget: Duration) {
        self.shared.pulse_within(millis(budget));
    }

    /// Starts a task: one unit of work that ends when the guard is dropped, and that is `overdue` where it has
    /// not ended within its deadline. `None`: it may take as long as it takes.
    ///
    /// The name is cut to 64 bytes. It goes into the record, so it carries no arguments and no secrets.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let heartbeat = heartbeat::Heartbeat::builder().no_file().start()?;
    /// let task = heartbeat.task("resize", Duration::from_secs(60));
    /// // … the work …
    /// task.done();
    /// # Ok::<(), heartbeat::Error>(())
    /// ```
    pub fn task(&self, name: &str, deadline: impl Into<Option<Duration>>) -> Task {
        self.shared.task(name, deadline.into().map(millis))
    }

    /// The worker finishes what it has and takes no more. It is `drain overdue` where that takes longer than
    /// `deadline`; `None`: the builder's drain deadline, and without one it may take as long as it takes.
    pub fn drain(&self, deadline: impl Into<Option<Duration>>) {
        self.shared.drain(deadline.into().map(millis));
    }

    /// The queues that the worker takes work from, from now on. An error where one cannot be a name, or where the record
    /// would not fit: then it keeps those that it has.
    ///
    /// In Redis (feature `redis`) the worker stays among those of a queue that it left until its promise has passed.
    pub fn set_queues(&self, queues: impl IntoIterator<Item = impl Into<String>>) -> Result<(), Error> {
        let mut record = self.record.clone();
        record.queues = queues.into_iter().map(Into::into).collect();
        check_queues(&record, self.signature)?;
        self.shared.set_queues(record.queues);
        Ok(())
    }

    /// The worker does not reach where its work comes from, from now on; said again, the first moment counts. Until
    /// [`Heartbeat::broker_back`] the loop is not judged, because it waits, nor is the deadline of a start; tasks are, as
    /// ever. Once that has lasted for longer than the promise, the worker is `cut off`: live, and not ready.
    pub fn broker_lost(&self) {
        self.shared.broker_lost();
    }

    /// The worker reaches where its work comes from again. The loop and the start have the time back that it took.
    pub fn broker_back(&self) {
        self.shared.broker_back();
    }

    /// What the next beat will say.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// From now on the record speaks of another process, as its supervisor sees it: `pid` is in this process's
    /// PID namespace. While that process is stopped or gone, no beat is made.
    pub fn beat_for(&self, pid: u32) -> Result<(), Error> {
        match process(pid) {
            Process::Present { start, .. } => {
                self.shared.beat_for(Subject { pid, start });
                Ok(())
            }
            Process::Absent | Process::Unknown => {
                Err(Error::new(ErrorKind::System, format!("heartbeat: process {pid} cannot be seen")))
            }
        }
    }

    /// Where [`Builder::endpoint`] listens, with the port that the system chose where 0 was asked for.
    #[cfg(feature = "endpoint")]
    pub fn endpoint_address(&self) -> Option<std::net::SocketAddr> {
        self.endpoint
    }

    /// How the publisher itself has fared.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// The last thing that went wrong in a sink, or with the stop, as a sentence.
    pub fn last_error(&self) -> Option<String> {
        self.shared.last_error()
    }

    /// What keeps the beat file from being a new one, as a sentence; `None` where the last beat that was made became one. For
    /// who would tell of it without the feature `tracing`.
    pub fn file_failure(&self) -> Option<String> {
        self.shared.file_failure()
    }

    /// Ends the beats and removes the beat file; waits for that, 2 s at most. Once stopped, a heartbeat stays so.
    ///
    /// An error says that the file could not be removed; its record then says `stopped` where it can.
    pub fn stop(&self) -> Result<(), Error> {
        self.shared.request_stop();
        self.shared
            .wait_stopped(STOP_WAIT)
            .map_err(|text| Error::new(ErrorKind::System, format!("heartbeat: {text}")))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.request_stop();
        // There is nobody left to tell.
        drop(self.shared.wait_stopped(STOP_WAIT));
    }
}
