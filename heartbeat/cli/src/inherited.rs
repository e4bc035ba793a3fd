//! What this process was started with and must change for itself, so that the command can be started with it: the
//! signal mask, and whether SIGPIPE and SIGCHLD are ignored. All else that is inherited is left as it is.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal};

/// Rust's runtime ignores SIGPIPE before `main`, and has a spawned process start with the default. Who starts this
/// command (systemd, by default) may have it ignored, and the command is to find it so.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

#[used]
// SAFETY: the section holds pointers to functions without a result, which the C library calls before `main`.
#[unsafe(link_section = ".init_array")]
static BEFORE_THE_RUNTIME: extern "C" fn() = look_at_sigpipe;

extern "C" fn look_at_sigpipe() {
    SIGPIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

/// Whether this process ignores a signal. One that does not exist is not ignored.
pub fn is_ignored(number: i32) -> bool {
    // SAFETY: all zeros is a value of this plain struct.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and the answer goes to a struct that outlives the call.
    let asked = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// What the command is to be started with.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    mask: SigSet,
    sigpipe: SigHandler,
    sigchld: SigHandler,
}

impl Inherited {
    /// Takes over: blocks `signals`, and has ended children wait to be reaped.
    pub fn take(signals: &SigSet) -> nix::Result<Self> {
        let mask = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let sigpipe = handler(SIGPIPE_IGNORED.load(Ordering::Relaxed));
        let sigchld = handler(is_ignored(libc::SIGCHLD));
        // SAFETY: no handler is installed, so none can be unsafe.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl)? };
        Ok(Self { mask, sigpipe, sigchld })
    }

    /// Gives back, in the child between `fork` and `exec`: system calls only.
    pub fn give_back(&self) -> io::Result<()> {
        // SAFETY: no handler is installed, so none can be unsafe.
        unsafe {
            signal(Signal::SIGPIPE, self.sigpipe)?;
            signal(Signal::SIGCHLD, self.sigchld)?;
        }
        Ok(self.mask.thread_set_mask()?)
    }
}

fn handler(ignored: bool) -> SigHandler {
    if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl }
}
