//! `checker demo`: to be written.

pub mod worker;

use crate::exit::Exit;

/// Settings of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the demo.
pub fn run(_args: &Args) -> Exit {
    Exit::Unexpected
}
