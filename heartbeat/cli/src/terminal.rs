//! The terminal at standard input, where there is one: which process group is in its foreground, and so gets its keys.
//! Without a terminal, or with somebody else's, nothing here does anything.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc::STDIN_FILENO;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

fn stdin() -> BorrowedFd<'static> {
    // SAFETY: Rust's runtime sees to it that there is a standard input, and nothing here closes it.
    unsafe { BorrowedFd::borrow_raw(STDIN_FILENO) }
}

/// The foreground's process group; none without a terminal that this process belongs to.
fn foreground() -> Option<Pid> {
    tcgetpgrp(stdin()).ok()
}

/// Whether standard input is the terminal that this process belongs to.
pub fn is_ours() -> bool {
    foreground().is_some()
}

/// Whether this process's own group is in the foreground.
pub fn in_foreground() -> bool {
    foreground() == Some(getpgrp())
}

/// Puts `group` into the foreground, where that is this process's to give away; whether it did.
/// With SIGTTOU blocked, as it is here.
pub fn hand_over(group: Pid) -> bool {
    in_foreground() && tcsetpgrp(stdin(), group).is_ok()
}

/// Puts this process itself, which leads a group, into the foreground. System calls only.
pub fn enter_foreground() {
    // Where the terminal has gone away meanwhile, it has no foreground either.
    let _ = tcsetpgrp(stdin(), getpgrp());
}

/// Puts this process's group back into the foreground, where that is `group`'s, or nobody's any more.
pub fn take_back(group: Option<Pid>) {
    let ended = |foreground| killpg(foreground, None) == Err(Errno::ESRCH);
    if foreground().is_some_and(|foreground| group == Some(foreground) || ended(foreground)) {
        // Where the terminal has gone away meanwhile, there is none to take back.
        let _ = tcsetpgrp(stdin(), getpgrp());
    }
}
