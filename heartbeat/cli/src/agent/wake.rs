//! What the agent's one loop waits for: a signal that asks for its end, or a word from one of its threads.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A bell that any thread may ring.
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    pub fn new() -> nix::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    pub fn wake(&self) {
        // It fails where it has rung 2^64 times unheard.
        let _ = self.0.write(1);
    }
}

/// SIGTERM and SIGINT, as something to wait for.
#[derive(Debug)]
pub struct End(SignalFd);

impl End {
    /// Before any other thread is there: they inherit what is blocked here.
    pub fn new() -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits for a signal or a ring, and no longer than `timeout`; whether the end was asked for.
    pub fn wait(&self, wake: &Wake, timeout: Duration) -> nix::Result<bool> {
        // Rounded up, so that the moment has come when the wait is over.
        let ms = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        let readable = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        match poll(&mut [readable(self.0.as_fd()), readable(wake.0.as_fd())], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        // Empty where nobody has rung.
        let _ = wake.0.read();
        Ok(self.0.read_signal()?.is_some())
    }
}
