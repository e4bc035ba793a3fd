//! The end of a command's time, without a thread and without a runtime.
//!
//! Nothing bounds how long a file system may take over one system call. So the kernel is told beforehand when to
//! come back: shortly before the deadline it interrupts whatever hangs, and the last words, prepared and in
//! memory since the start, are written by a signal handler. There are waits that no handler interrupts and only
//! the end of the process does (a lookup that a FUSE or NFS server never answers): at the deadline itself the
//! kernel ends the process.

use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::exit::Exit;

/// How long before the deadline the last words are said, at most: then they are out before it, on a busy machine too.
const MARGIN: Duration = Duration::from_millis(500);

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// The exit status of the answer that is being written; [`NOT_YET`] before.
static ANSWERED: AtomicU8 = AtomicU8::new(NOT_YET);
const NOT_YET: u8 = u8::MAX;

struct LastWords {
    text: String,
    code: u8,
}

/// From now on this process ends within `timeout`, with `text` on standard output and the status of `exit` where
/// it has not answered by then. Once a process; a handful of system calls.
pub fn set(timeout: Duration, text: String, exit: Exit) -> io::Result<()> {
    LAST_WORDS.set(LastWords { text, code: exit.code() }).map_err(|_| io::ErrorKind::AlreadyExists)?;
    let expire = SigAction::new(SigHandler::Handler(expire), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls only what is safe in one.
    unsafe { sigaction(Signal::SIGALRM, &expire)? };
    // Who started this process may have blocked it, and a mask is inherited.
    SigSet::from(Signal::SIGALRM).thread_unblock()?;
    // A user at the limit of pending signals gets no timer for the end, and a deadline for most hangs only.
    let _ = end_after(timeout);
    interrupt_after(timeout.saturating_sub(MARGIN.min(timeout / 5)))
}

/// The answer is about to be written. Where that takes too long, for want of a reader, nothing is added to it, and
/// its status stands.
pub fn answered(exit: Exit) {
    ANSWERED.store(exit.code(), Ordering::Relaxed);
}

/// Has the kernel end this process.
fn end_after(time: Duration) -> io::Result<()> {
    let kill = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, kill)?;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(time)), TimerSetTimeFlags::empty())?;
    // Dropped, it would be taken back.
    mem::forget(timer);
    Ok(())
}

/// Has the kernel send `SIGALRM`, by the one timer that every process has already.
fn interrupt_after(time: Duration) -> io::Result<()> {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // 68 years are as good as more, and fit whatever the system's number of seconds is.
    let seconds = i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    let it_value = libc::timeval { tv_sec: seconds.into(), tv_usec: time.subsec_micros().into() };
    let once = libc::itimerval { it_interval: zero, it_value };
    // SAFETY: the new value is valid for the time of the call, and the old one is not asked for.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs in a signal handler: two atomic loads and three system calls, nothing else.
extern "C" fn expire(_: libc::c_int) {
    let answered = ANSWERED.load(Ordering::Relaxed);
    let code = match (answered, LAST_WORDS.get()) {
        (NOT_YET, Some(words)) => {
            say(words.text.as_bytes());
            words.code
        }
        (NOT_YET, None) => Exit::Unexpected.code(),
        (code, _) => code,
    };
    // SAFETY: it ends the process, and nothing of it runs on.
    unsafe { libc::_exit(code.into()) }
}

/// Writes where that does not block: a pipe that nobody reads must not hold up the end.
fn say(text: &[u8]) {
    let mut output = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `output` is one valid `pollfd`, and `text` is valid for its length.
    unsafe {
        if libc::poll(&raw mut output, 1, 0) == 1 && output.revents == libc::POLLOUT {
            libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len());
        }
    }
}
