//! What systemd is told, where it started this worker: READY, STATUS, STOPPING, and WATCHDOG only while the
//! worker is live by its own account, so that systemd restarts a wedged one.
//!
//! The words are `sd-notify`'s. The socket is this file's own: the environment is read once and not from the
//! publisher's thread, and a manager that does not take its messages must not make a beat wait.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

use crate::record::{Record, Status};
use crate::verdict::Verdict;

/// Between two status lines that differ in nothing but idle, busy and a number.
const STATUS_EVERY_MS: u64 = 5_000;

/// Between two attempts at the watchdog, at least.
const LEAST_WAIT_MS: u64 = 10;

/// One worker's service manager.
#[derive(Debug)]
pub struct Systemd {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Watchdog>,
    ready_told: bool,
    stopping_told: bool,
    status: Option<Told>,
    line: String,
    failures: u64,
    failing: bool,
}

#[derive(Debug)]
struct Watchdog {
    period_ms: u64,
    /// `None` while the worker is not live.
    due_ms: Option<u64>,
}

/// The status line that systemd has.
#[derive(Debug)]
struct Told {
    verdict: Verdict,
    line: String,
    at_ms: u64,
}

impl Systemd {
    /// `None` where `NOTIFY_SOCKET` is not set, or names no socket that can be reached from here.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let address = address(&lookup("NOTIFY_SOCKET")?)?;
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self {
            socket,
            address,
            watchdog: watchdog_ms(lookup).map(|ms| Watchdog {
                // Half of what systemd allows, so that one late message is no reason to be killed.
                period_ms: (ms / 2).max(LEAST_WAIT_MS),
                due_ms: Some(0),
            }),
            ready_told: false,
            stopping_told: false,
            status: None,
            line: String::new(),
            failures: 0,
            failing: false,
        })
    }

    /// Tells what has changed, in one message, and nothing where nothing has.
    pub fn attend(&mut self, record: &Record, verdict: Verdict, now_ms: u64) {
        let live = verdict.live() == Some(true);
        let ready = !self.ready_told && matches!(record.status, Status::Idle | Status::Busy);
        let stopping = !self.stopping_told && matches!(record.status, Status::Draining | Status::Stopped);
        let ping = self.is_ping_due(live, now_ms);
        describe(&mut self.line, record, verdict);
        let status = self.status.as_ref().is_none_or(|told| {
            told.verdict != verdict
                || told.line != self.line && now_ms.saturating_sub(told.at_ms) >= STATUS_EVERY_MS
        });
        if !(ready || stopping || ping || status) {
            return;
        }
        let facts = [
            (ready, NotifyState::Ready),
            (stopping, NotifyState::Stopping),
            (status, NotifyState::Status(&self.line)),
            (ping, NotifyState::Watchdog),
        ];
        let mut message = String::new();
        for (_, fact) in facts.iter().filter(|(is_due, _)| *is_due) {
            // Writing into a string does not fail.
            let _ = writeln!(message, "{fact}");
        }
        let sent = self.send(&message);
        if sent {
            self.ready_told |= ready;
            self.stopping_told |= stopping;
            if status {
                self.status = Some(Told { verdict, line: self.line.clone(), at_ms: now_ms });
            }
        }
        if let Some(watchdog) = self.watchdog.as_mut().filter(|_| ping) {
            // What was not taken is tried again soon.
            let wait_ms = if sent { watchdog.period_ms } else { watchdog.period_ms / 8 };
            watchdog.due_ms = Some(now_ms + wait_ms.max(LEAST_WAIT_MS));
        }
    }

    /// When the watchdog is due; `None` where nobody waits for it or it is to stay silent.
    pub fn due_ms(&self) -> Option<u64> {
        self.watchdog.as_ref().and_then(|watchdog| watchdog.due_ms)
    }

    /// Messages that were not taken.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    fn is_ping_due(&mut self, live: bool, now_ms: u64) -> bool {
        let Some(watchdog) = &mut self.watchdog else { return false };
        if !live {
            watchdog.due_ms = None;
            return false;
        }
        now_ms >= *watchdog.due_ms.get_or_insert(now_ms)
    }

    fn send(&mut self, message: &str) -> bool {
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Ok(_) => {
                self.failing = false;
                true
            }
            Err(error) => {
                self.failures += 1;
                if !std::mem::replace(&mut self.failing, true) {
                    told!(warn, "heartbeat: systemd cannot be told: {error}; it goes on trying");
                }
                false
            }
        }
    }
}

/// A path, or after an `@` a name in the abstract namespace. Others (`vsock:`) are for virtual machines.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

/// How often systemd wants to hear from this process; `None` where it does not, or waits for another one.
fn watchdog_ms(lookup: impl Fn(&str) -> Option<OsString>) -> Option<u64> {
    let number = |name| lookup(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
    if lookup("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(std::process::id().into()) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|usec| *usec > 0).map(|usec| usec / 1_000)
}

/// One line for people, without a number that changes by itself.
fn describe(line: &mut String, record: &Record, verdict: Verdict) {
    line.clear();
    line.push_str(if verdict == Verdict::Alive { record.status.as_str() } else { verdict.as_str() });
    // Writing into a string does not fail.
    let _ = match record.tasks.running {
        0 => Ok(()),
        1 => write!(line, ", 1 task running"),
        running => write!(line, ", {running} tasks running"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog(variables: &[(&str, &str)]) -> Option<u64> {
        watchdog_ms(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names() {
        let own = std::process::id().to_string();
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000")]), Some(3_000));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &own)]), Some(3_000));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "me")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "soon")]), None);
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname(), Some(std::path::Path::new("/run/systemd/notify")));
        let name = address(OsStr::new("@notify")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(b"notify".as_slice()));
        for other in ["", "notify", "vsock:2:1234"] {
            assert!(address(OsStr::new(other)).is_none(), "{other:?}");
        }
    }
}
