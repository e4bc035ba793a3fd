//! A worker of the demo: to be written.

use crate::exit::Exit;

/// Settings of one worker.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Works until it is told to stop.
pub fn run(_args: &Args) -> Exit {
    Exit::Unexpected
}
