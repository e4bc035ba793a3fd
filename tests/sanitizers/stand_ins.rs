//! What Miri lacks of the C library, for the tests under Miri alone: without it not one heartbeat could start there. Each does no
//! more than these tests need; the real ones are called by all other tests.

use libc::{c_int, pid_t, sigset_t};

/// Nothing is left to be done at the end of these tests.
#[unsafe(no_mangle)]
extern "C" fn atexit(_: extern "C" fn()) -> c_int {
    0
}

/// There are no signals.
#[unsafe(no_mangle)]
unsafe extern "C" fn sigfillset(set: *mut sigset_t) -> c_int {
    // SAFETY: the caller's own. All zeros is a value of it.
    unsafe { set.write(std::mem::zeroed()) };
    0
}

/// There are no signals.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_sigmask(_: c_int, _: *const sigset_t, before: *mut sigset_t) -> c_int {
    if !before.is_null() {
        // SAFETY: the caller's own.
        unsafe { sigfillset(before) };
    }
    0
}

/// Nobody is there but this process, and it gets no signals.
#[unsafe(no_mangle)]
unsafe extern "C" fn kill(pid: pid_t, signal: c_int) -> c_int {
    assert_eq!(signal, 0);
    if pid.cast_unsigned() == std::process::id() {
        return 0;
    }
    // SAFETY: this thread's own.
    unsafe { libc::__errno_location().write(libc::ESRCH) };
    -1
}
