//! What systemd is told where it has started the server with `Type=notify`: nothing at all elsewhere.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time;

/// Tells it. A manager that does not listen is no reason not to serve.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
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
