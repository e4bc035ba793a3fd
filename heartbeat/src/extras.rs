//! What the publisher's thread does beside the beat, where a feature and a setting ask for it: the endpoint and
//! systemd. Without them this is one `poll` and nothing more.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

#[cfg(feature = "endpoint")]
use crate::endpoint::Endpoint;
use crate::record::Record;
#[cfg(feature = "systemd")]
use crate::systemd::Systemd;

/// The additional duties of one publisher.
#[derive(Debug, Default)]
pub struct Extras {
    #[cfg(feature = "endpoint")]
    pub endpoint: Option<Endpoint>,
    #[cfg(feature = "systemd")]
    pub systemd: Option<Systemd>,
}

#[cfg_attr(
    not(any(feature = "endpoint", feature = "systemd")),
    expect(clippy::unused_self, reason = "no extras are built in")
)]
impl Extras {
    /// Waits for a wake-up, a client or the time-out; whether it was a wake-up.
    pub fn wait(&mut self, wake: &EventFd, timeout: PollTimeout) -> bool {
        #[cfg(feature = "endpoint")]
        if let Some(endpoint) = &mut self.endpoint {
            return endpoint.wait(wake, timeout);
        }
        let mut descriptors = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        // An interrupted or failed wait is a time-out that came early.
        let woken = poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0);
        woken && wake.read().is_ok()
    }

    /// Answers the clients that wait, from this moment's record.
    pub fn answer(&mut self, record: &Record) {
        #[cfg(feature = "endpoint")]
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.answer(record);
        }
        let _ = record;
    }

    /// Goes with every beat. `live`: whether the worker is, by its own account.
    pub fn beat(&mut self, record: &Record, live: bool) {
        #[cfg(feature = "systemd")]
        if let Some(systemd) = &mut self.systemd {
            systemd.beat(record, live);
        }
        let _ = (record, live);
    }

    /// How often a beat must come at least, for who watches more closely than the interval.
    pub fn longest_wait_ms(&self) -> Option<u64> {
        #[cfg(feature = "systemd")]
        return self.systemd.as_ref().and_then(Systemd::longest_wait_ms);
        #[cfg(not(feature = "systemd"))]
        None
    }

    /// Goes with the end.
    pub fn end(&mut self) {
        #[cfg(feature = "systemd")]
        if let Some(systemd) = &mut self.systemd {
            systemd.end();
        }
    }
}
