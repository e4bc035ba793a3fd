//! The command as a child process: its start, the signals that it is sent, and its end; and the end of all other
//! children that fall to this process.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::inherited::Inherited;
use crate::terminal;

/// How many children are reaped before signals are looked at again: orphans may come faster than that.
const REAPED_AT_ONCE: usize = 256;

/// The running command, in a process group of its own.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The command's process alone, which knows what to do about its own children.
    Process,
    /// Its whole process group.
    Group,
}

/// What has come of the children.
#[derive(Debug)]
pub enum Change {
    /// Nothing that matters here.
    None,
    /// Nothing yet, and there is more to reap.
    More,
    /// The command was stopped by this signal.
    Stopped(i32),
    /// The command ended.
    Ended(ExitStatus),
}

impl Child {
    /// Starts the command, with what this process was started with, and in the terminal's foreground where this
    /// process is.
    pub fn start(command: &[OsString], inherited: Inherited) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let foreground = terminal::in_foreground();
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        let before_exec = move || {
            if foreground {
                // Before the command can read from the terminal.
                terminal::enter_foreground();
            }
            inherited.give_back()
        };
        // SAFETY: it makes system calls only, on nothing that another thread of the parent could have locked.
        unsafe { command.pre_exec(before_exec) };
        let child = command.spawn()?;
        // Pids are below 2^22.
        Ok(Self { pid: Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)) })
    }

    /// The process, which leads its process group.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal. Until the command has been reaped its number is nobody else's.
    pub fn send(&self, number: i32, to: To) {
        let target = match to {
            To::Process => self.pid.as_raw(),
            To::Group => -self.pid.as_raw(),
        };
        // SAFETY: a system call on two numbers. It fails where there is nobody left, who then needs no signal.
        unsafe { libc::kill(target, number) };
    }

    /// Reaps whatever child has ended, up to a number, and tells what has come of the command.
    pub fn changes(&self) -> nix::Result<Change> {
        for _ in 0..REAPED_AT_ONCE {
            match wait_for_any()? {
                None => return Ok(Change::None),
                Some((pid, status)) if pid == self.pid => {
                    return Ok(status.stopped_signal().map_or(Change::Ended(status), Change::Stopped));
                }
                Some(_) => {}
            }
        }
        Ok(Change::More)
    }
}

/// A child that has ended, and is no more with this, or that was stopped.
fn wait_for_any() -> nix::Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: the status goes to an integer that outlives the call.
    // Not by nix, which knows no end by a real-time signal.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
    match Errno::result(pid) {
        Ok(0) | Err(Errno::ECHILD) => Ok(None),
        Ok(pid) => Ok(Some((Pid::from_raw(pid), ExitStatus::from_raw(status)))),
        Err(errno) => Err(errno),
    }
}
