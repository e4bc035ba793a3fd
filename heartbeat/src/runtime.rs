//! For workers on tokio: a pulse from the runtime itself, and a stop that can be awaited.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::heartbeat::{Heartbeat, STOP_WAIT};
use crate::mark::{Budget, Mark};
use crate::publisher::Shared;

/// The longest time between two pulses.
const LONGEST_PERIOD: Duration = Duration::from_secs(1);

/// Pulses from a tokio runtime, until it is dropped: from [`Heartbeat::pulse_from_runtime`].
#[must_use = "the pulses end when this is dropped"]
pub struct RuntimePulse {
    // Forgotten when it is dropped.
    _watched: Watched,
    task: AbortHandle,
}

impl fmt::Debug for RuntimePulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimePulse").finish_non_exhaustive()
    }
}

impl Drop for RuntimePulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heartbeat {
    /// Pulses from the current tokio runtime, by a small task on it, so that a runtime that is blocked shows as
    /// `wedged` once the loop budget is over. Every quarter of the loop budget, from 1 ms to 1 s.
    ///
    /// It is judged beside what [`Heartbeat::pulse`] marks, and so is every other runtime: whichever is due first
    /// decides, and none hides another. On a multi-threaded runtime a blocked thread of several is not wedged: it
    /// is when no thread is left to run the pulse. Keep the guard for as long as the runtime is to be judged.
    ///
    /// An error where no runtime is entered.
    ///
    /// # Panics
    ///
    /// As tokio's own timers do, where the runtime was built without them (`enable_time`).
    pub fn pulse_from_runtime(&self) -> Result<RuntimePulse, Error> {
        let runtime = Handle::try_current()
            .map_err(|error| Error::new(ErrorKind::Configuration, format!("heartbeat: {error}")))?;
        let budget = self.shared.loop_budget();
        let mut ticks = ticks(budget);
        let watched = Watched::by(&self.shared, budget);
        let mark = Arc::clone(&watched.mark);
        let task = runtime.spawn(async move {
            loop {
                ticks.tick().await;
                pulse(&mark, budget);
            }
        });
        Ok(RuntimePulse { _watched: watched, task: task.abort_handle() })
    }

    /// Runs `work`, and pulses from the very task that runs it, so that it shows as `wedged` where its own poll does not come
    /// back, however many threads the runtime has. As often as [`Heartbeat::pulse_from_runtime`], and judged beside all other
    /// pulses, until the future has ended or was dropped.
    ///
    /// For a loop that one future drives, as a queue's worker that runs its jobs within itself. Jobs that it spawns are other
    /// tasks of the runtime. It proves that `work` is polled, and not that it gets on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), heartbeat::Error> {
    /// # let heartbeat = heartbeat::Heartbeat::builder().no_file().start()?;
    /// let answer = heartbeat.pulse_while(async { 42 }).await;
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As tokio's own timers do: outside a runtime, or where it was built without them (`enable_time`).
    pub async fn pulse_while<F: Future>(&self, work: F) -> F::Output {
        let budget = self.shared.loop_budget();
        let mut ticks = ticks(budget);
        let watched = Watched::by(&self.shared, budget);
        let mut work = pin!(work);
        poll_fn(|context| {
            // One that is ready is asked again, so that it wakes this task at the next.
            while ticks.poll_tick(context).is_ready() {
                pulse(&watched.mark, budget);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// [`Heartbeat::stop`] for a task: waits, 2 s at most, without blocking the runtime. Errors are the same.
    ///
    /// Dropped before its end, it has asked for the stop all the same, where it was polled once.
    ///
    /// # Panics
    ///
    /// As tokio's own timers do, where the runtime was built without them (`enable_time`).
    pub async fn stop_async(&self) -> Result<(), Error> {
        self.shared.request_stop();
        let stopped = timeout(STOP_WAIT, poll_fn(|context| self.shared.poll_stopped(context))).await;
        stopped
            .unwrap_or_else(|_| Err("the publisher did not end in time".to_owned()))
            .map_err(|text| Error::new(ErrorKind::System, format!("heartbeat: {text}")))
    }
}

/// A mark that the publisher judges, from its first pulse until it is dropped.
struct Watched {
    shared: Arc<Shared>,
    mark: Arc<Mark>,
}

impl Watched {
    fn by(shared: &Arc<Shared>, budget: Budget) -> Self {
        let mark = Arc::new(Mark::default());
        pulse(&mark, budget);
        shared.watch(Arc::clone(&mark));
        Self { shared: Arc::clone(shared), mark }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.forget(&self.mark);
    }
}

/// A quarter of the budget apart.
fn ticks(budget: Budget) -> Interval {
    let period = Duration::from_millis(budget.millis() / 4);
    let mut ticks = interval(period.clamp(Duration::from_millis(1), LONGEST_PERIOD));
    // One late pulse is one pulse.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn pulse(mark: &Mark, budget: Budget) {
    mark.set(clock::mono_ms(), budget);
}
