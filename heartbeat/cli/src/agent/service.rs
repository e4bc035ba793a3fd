//! What systemd is told, where it started this agent: READY, STATUS, STOPPING, and WATCHDOG while the agent's loop turns.
//! Elsewhere this does nothing. A manager that takes no message now is not waited for.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Between two status lines, at least.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The service manager.
#[derive(Debug)]
pub struct Service {
    /// Where it listens, and by what it is told.
    socket: Option<(UnixDatagram, SocketAddr)>,
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
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| socket(&name));
        Self {
            watchdog: period.filter(|_| socket.is_some()).map(|usec| Duration::from_micros(usec / 2)),
            socket,
            pinged: None,
            looked: None,
            status: String::new(),
        }
    }

    /// Whether it was taken, or there is nobody to take it.
    pub fn ready(&self) -> bool {
        self.notify(&NotifyState::Ready)
    }

    pub fn stopping(&self) {
        self.notify(&NotifyState::Stopping);
    }

    /// Goes with every turn of the loop.
    pub fn attend(&mut self, now: Instant, status: impl FnOnce() -> String) {
        if self.socket.is_none() {
            return;
        }
        let is_due = |last: Option<Instant>, period| last.is_none_or(|last| now >= last + period);
        if self.watchdog.is_some_and(|period| is_due(self.pinged, period)) {
            // What was not taken is tried again soon.
            let taken = self.notify(&NotifyState::Watchdog);
            let wait = if taken { Duration::ZERO } else { self.watchdog.unwrap_or_default() * 7 / 8 };
            self.pinged = now.checked_sub(wait);
        }
        if is_due(self.looked, STATUS_EVERY) {
            self.looked = Some(now);
            let status = status();
            if status != self.status && self.notify(&NotifyState::Status(&status)) {
                self.status = status;
            }
        }
    }

    /// When the next turn must come.
    pub fn due(&self) -> Option<Instant> {
        let period = self.watchdog?;
        Some(self.pinged.map_or_else(Instant::now, |pinged| pinged + period))
    }

    /// Whether it was taken, or there is nobody to take it.
    fn notify(&self, state: &NotifyState<'_>) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let mut message = String::new();
        // Writing into a string does not fail.
        let _ = writeln!(message, "{state}");
        socket.send_to_addr(message.as_bytes(), address).is_ok()
    }
}

/// A path, or after an `@` a name in the abstract namespace.
fn socket(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        [b'/', ..] => SocketAddr::from_pathname(name).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}
