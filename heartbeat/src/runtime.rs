//! For workers on tokio: a pulse from the runtime itself, and a stop that can be awaited.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

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
    shared: Arc<Shared>,
    mark: Arc<Mark>,
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
        self.shared.forget(&self.mark);
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
        let period = Duration::from_millis(budget.millis() / 4);
        let mut ticks = interval(period.clamp(Duration::from_millis(1), LONGEST_PERIOD));
        // One late pulse is one pulse.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mark = Arc::new(Mark::default());
        pulse(&mark, budget);
        self.shared.watch(Arc::clone(&mark));
        let pulsed = Arc::clone(&mark);
        let task = runtime.spawn(async move {
            loop {
                ticks.tick().await;
                pulse(&pulsed, budget);
            }
        });
        Ok(RuntimePulse { shared: Arc::clone(&self.shared), mark, task: task.abort_handle() })
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

fn pulse(mark: &Mark, budget: Budget) {
    mark.set(clock::mono_ms(), budget);
}
