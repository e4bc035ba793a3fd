//! What systemd is told where it has started the server with `Type=notify`: nothing at all elsewhere.
//!
//! The words are `sd-notify`'s. The socket is this file's own, for a manager that does not take its messages must not hold up
//! an answer, nor the end.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time;

/// Tells it. A manager that does not listen is no reason not to serve.
pub fn tell(states: &[NotifyState<'_>]) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&name, states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

fn send(name: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let message = states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

/// Another configuration is about to be put in force (`Type=notify-reload`).
pub fn tell_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// Tells it again and again that questions are answered, where it wants to know (`WatchdogSec`). Runs on the thread that
/// answers them.
pub async fn keep_watchdog() {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut often = time::interval((patience / 3).max(Duration::from_millis(1)));
    loop {
        often.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
