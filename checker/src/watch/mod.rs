//! `checker watch`: to be written.

use crate::exit::Exit;

/// Settings of the table.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Shows the table until it is interrupted.
pub fn run(_args: &Args) -> Exit {
    Exit::Unexpected
}
