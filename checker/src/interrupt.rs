//! The signals that ask a command to end which has something to clean up first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// From its making on, these signals end nothing any more: they are noted here.
#[derive(Debug)]
pub struct Interrupt(Arc<AtomicUsize>);

/// A signal that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    pub fn catch() -> io::Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&caught), number)?;
        }
        Ok(Self(caught))
    }

    /// The signal that came, if one did.
    pub fn caught(&self) -> Option<Signal> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            number => Some(Signal(i32::try_from(number).unwrap_or(SIGTERM))),
        }
    }
}

impl Signal {
    /// Ends the process as the signal would have, so that whoever waits for it sees why it ended. Returns only
    /// where that fails.
    pub fn end(self) {
        // There is nothing to do about a failure: the caller goes on to its own end.
        let _ = signal_hook::low_level::emulate_default_handler(self.0);
    }
}
