//! What systemd is told, where it started this agent: READY, STATUS, STOPPING, and WATCHDOG while the agent's loop turns.
//! Elsewhere this does nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Between two status lines, at least.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The service manager.
#[derive(Debug)]
pub struct Service {
    present: bool,
    /// Half of what systemd allows.
    watchdog: Option<Duration>,
    pinged: Option<Instant>,
    looked: Option<Instant>,
    status: String,
}

impl Service {
    pub fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let own = std::env::var_os("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(std::process::id().into());
        let period = number("WATCHDOG_USEC").filter(|usec| own && *usec > 0);
        let present = std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
        Self {
            present,
            watchdog: period.filter(|_| present).map(|usec| Duration::from_micros(usec / 2)),
            pinged: None,
            looked: None,
            status: String::new(),
        }
    }

    pub fn ready(&self) {
        self.notify(&[NotifyState::Ready]);
    }

    pub fn stopping(&self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// Goes with every turn of the loop.
    pub fn attend(&mut self, now: Instant, status: impl FnOnce() -> String) {
        if !self.present {
            return;
        }
        let is_due = |last: Option<Instant>, period| last.is_none_or(|last| now >= last + period);
        if self.watchdog.is_some_and(|period| is_due(self.pinged, period)) {
            self.pinged = Some(now);
            self.notify(&[NotifyState::Watchdog]);
        }
        if is_due(self.looked, STATUS_EVERY) {
            self.looked = Some(now);
            let status = status();
            if status != self.status {
                self.notify(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
    }

    /// When the next turn must come.
    pub fn due(&self) -> Option<Instant> {
        let period = self.watchdog?;
        Some(self.pinged.map_or_else(Instant::now, |pinged| pinged + period))
    }

    fn notify(&self, states: &[NotifyState<'_>]) {
        if self.present {
            // Where the manager does not listen there is nobody to tell that to; its watchdog is the answer.
            let _ = sd_notify::notify(states);
        }
    }
}
