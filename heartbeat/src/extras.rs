//! What the publisher's thread does beside the beat, where a feature and a setting ask for it: the endpoint and
//! systemd. Without them this is one `poll` and nothing more.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

#[cfg(feature = "endpoint")]
use crate::endpoint::Endpoint;
use crate::record::Record;
#[cfg(feature = "systemd")]
use crate::systemd::Systemd;
use crate::verdict::Judgement;

/// Waits; whether anything happened. A failed wait is a time-out that came early, but never so early that the thread
/// would spin (a sandbox may deny `poll` for good).
pub fn poll_any(descriptors: &mut [PollFd<'_>], timeout: PollTimeout) -> bool {
    const AFTER_FAILURE: Duration = Duration::from_millis(10);
    let ready = poll(descriptors, timeout);
    if ready.is_err() {
        thread::sleep(AFTER_FAILURE);
    }
    ready.is_ok_and(|ready| ready > 0)
}

/// The additional duties of one publisher.
#[derive(Debug, Default)]
pub struct Extras {
    #[cfg(feature = "endpoint")]
    pub endpoint: Option<Endpoint>,
    #[cfg(feature = "systemd")]
    pub systemd: Option<Systemd>,
}

#[allow(clippy::unused_self, reason = "which functions need it depends on the features")]
impl Extras {
    /// Whether there is nothing to attend to.
    pub fn are_none(&self) -> bool {
        #[cfg(feature = "endpoint")]
        if self.endpoint.is_some() {
            return false;
        }
        #[cfg(feature = "systemd")]
        if self.systemd.is_some() {
            return false;
        }
        true
    }

    /// Waits for a wake-up, a client or the time-out; whether it was a wake-up.
    pub fn wait(&mut self, wake: &EventFd, timeout: PollTimeout) -> bool {
        #[cfg(feature = "endpoint")]
        if let Some(endpoint) = &mut self.endpoint {
            return endpoint.wait(wake, timeout);
        }
        let mut descriptors = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        poll_any(&mut descriptors, timeout) && wake.read().is_ok()
    }

    /// Goes with every wake-up, whether a beat follows or not: this moment's record, and what it amounts to.
    pub fn attend(&mut self, record: &Record, judgement: &Judgement<'_>, now_ms: u64) {
        #[cfg(feature = "endpoint")]
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.answer(record, judgement, now_ms);
        }
        #[cfg(feature = "systemd")]
        if let Some(systemd) = &mut self.systemd {
            systemd.attend(record, judgement.verdict, now_ms);
        }
        let _ = (record, judgement, now_ms);
    }

    /// When [`Extras::attend`] must come again at the latest.
    pub fn due_ms(&self) -> Option<u64> {
        #[cfg(feature = "systemd")]
        return self.systemd.as_ref().and_then(Systemd::due_ms);
        #[cfg(not(feature = "systemd"))]
        None
    }

    /// How often the endpoint and systemd have failed since the start.
    pub fn failures(&self) -> (u64, u64) {
        #[cfg(feature = "endpoint")]
        let endpoint = self.endpoint.as_ref().map_or(0, Endpoint::failures);
        #[cfg(not(feature = "endpoint"))]
        let endpoint = 0;
        #[cfg(feature = "systemd")]
        let systemd = self.systemd.as_ref().map_or(0, Systemd::failures);
        #[cfg(not(feature = "systemd"))]
        let systemd = 0;
        (endpoint, systemd)
    }

    /// Goes with the end: clients that wait get this last record, and the port is free.
    pub fn end(&mut self, record: &Record, judgement: &Judgement<'_>) {
        self.attend(record, judgement, record.at_mono_ms);
        #[cfg(feature = "endpoint")]
        drop(self.endpoint.take());
    }
}
