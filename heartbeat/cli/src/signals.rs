//! The signals that reach this process: which are taken, how they are waited for, and what each one means. They are
//! blocked and read from a descriptor, so that nothing is lost, nothing is interrupted, and the first process of a
//! container gets them too.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::inherited::is_ignored;

/// Those that speak of this process itself: a fault of its own, or a limit that it met.
const OWN: [Signal; 10] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
];

/// All others, the real-time ones among them.
pub fn taken() -> SigSet {
    let mut signals = SigSet::all();
    for signal in OWN {
        signals.remove(signal);
    }
    signals
}

/// Those that the terminal sends to the whole foreground group: for its keys, its size and its hang-up.
const OF_TERMINALS: [i32; 5] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGWINCH, libc::SIGHUP];

/// A signal that was sent to this process.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub number: i32,
    /// Sent by the terminal to the whole foreground group; otherwise by a process, to this one.
    pub from_terminal: bool,
}

/// What is to be done about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A child changed; all turns look for that.
    ChildChanged,
    /// The command is asked to end.
    End,
    /// The command, and with it this job, is to be suspended from the terminal.
    Suspend,
    /// This job goes on.
    Continue,
    /// The command's own affair.
    Other,
}

impl Received {
    /// Its meaning to this process. What it was told to ignore, it passes on and thinks nothing of.
    pub fn meaning(self) -> Meaning {
        self.meaning_where(is_ignored(self.number))
    }

    fn meaning_where(self, ignored: bool) -> Meaning {
        match self.number {
            libc::SIGCHLD => Meaning::ChildChanged,
            libc::SIGCONT => Meaning::Continue,
            _ if ignored => Meaning::Other,
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => Meaning::End,
            libc::SIGTSTP if self.from_terminal => Meaning::Suspend,
            _ => Meaning::Other,
        }
    }
}

/// The signals that wait to be dealt with.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Of the signals that [`taken`] names, once they are blocked.
    pub fn new() -> nix::Result<Self> {
        Ok(Self(SignalFd::with_flags(&taken(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits until there is a signal, and no longer than `timeout`.
    pub fn wait(&self, timeout: Duration) -> nix::Result<()> {
        // Rounded up, so that the moment has come when the wait is over.
        let ms = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The next one that waits.
    pub fn next(&self) -> nix::Result<Option<Received>> {
        Ok(self.0.read_signal()?.map(|signal| {
            let number = signal.ssi_signo.cast_signed();
            let from_terminal = signal.ssi_code == libc::SI_KERNEL && OF_TERMINALS.contains(&number);
            Received { number, from_terminal }
        }))
    }
}

/// Suspends this job, as the terminal's key would: this process and its process group. Returns once it is continued:
/// true; or at once where nobody could continue it, because no shell with job control started it: false.
pub fn suspend_job() -> nix::Result<bool> {
    let one = |signal| {
        let mut set = SigSet::empty();
        set.add(signal);
        set
    };
    let stop = one(Signal::SIGTSTP);
    kill(Pid::from_raw(0), Signal::SIGTSTP)?;
    // Here it stops. The kernel lets that happen only where a shell is there to continue it.
    stop.thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?;
    stop.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let continued =
        SignalFd::with_flags(&one(Signal::SIGCONT), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok(continued.read_signal()?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_means_what_its_sender_can_expect() {
        let cases = [
            (libc::SIGTERM, false, Meaning::End),
            (libc::SIGINT, true, Meaning::End),
            (libc::SIGQUIT, true, Meaning::End),
            (libc::SIGTSTP, true, Meaning::Suspend),
            (libc::SIGTSTP, false, Meaning::Other),
            (libc::SIGCONT, false, Meaning::Continue),
            (libc::SIGCHLD, false, Meaning::ChildChanged),
            (libc::SIGHUP, true, Meaning::Other),
            (libc::SIGUSR1, false, Meaning::Other),
            (libc::SIGRTMIN() + 3, false, Meaning::Other),
        ];
        for (number, from_terminal, meaning) in cases {
            let received = Received { number, from_terminal };
            assert_eq!(received.meaning_where(false), meaning, "{number} {from_terminal}");
        }
    }

    #[test]
    fn what_this_process_was_told_to_ignore_means_nothing_but_that_a_child_changed_or_the_job_goes_on() {
        for (number, meaning) in [
            (libc::SIGINT, Meaning::Other),
            (libc::SIGTSTP, Meaning::Other),
            (libc::SIGCHLD, Meaning::ChildChanged),
            (libc::SIGCONT, Meaning::Continue),
        ] {
            assert_eq!(Received { number, from_terminal: true }.meaning_where(true), meaning, "{number}");
        }
        // Rust's runtime has it ignored.
        assert_eq!(Received { number: libc::SIGPIPE, from_terminal: false }.meaning(), Meaning::Other);
    }

    #[test]
    fn faults_of_this_process_are_never_taken() {
        let taken = taken();
        assert!(OWN.iter().all(|signal| !taken.contains(*signal)));
        assert!(taken.contains(Signal::SIGTERM) && taken.contains(Signal::SIGCHLD));
    }
}
