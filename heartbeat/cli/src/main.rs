//! The `heartbeat` command: what it is asked for on its command line, handed to the file that does it.

#[cfg(feature = "redis")]
mod agent;
mod child;
mod cli;
mod exit;
mod generate;
mod inherited;
mod run;
mod signals;
mod terminal;

use std::fmt::Display;
use std::io::{Write, stderr};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    // What it knows of passwords is in no core dump, and for no other process of this user to read. Where a sandbox refuses
    // that, it is as with any other program. The command that it runs is not concerned: that ends with `exec`.
    let _ = nix::sys::prctl::set_dumpable(false);
    let exit = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        #[cfg(feature = "redis")]
        Command::Agent(arguments) => agent::agent(&arguments),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { dir } => generate::man(dir.as_deref()),
    };
    exit.into()
}

/// Whether standard error takes a line at once: nobody may be reading there, and a full pipe would hold this process up.
fn can_tell() -> bool {
    let stderr = stderr();
    let mut descriptors = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// One line for people, on standard error.
fn tell(line: impl Display) {
    // Where nobody listens there is nobody to tell that either.
    let _ = writeln!(stderr().lock(), "{line}");
}
