//! `checker schema`: what an editor completes a configuration from.

use crate::exit::Exit;
use crate::stream;

/// Print the configuration's JSON Schema (2020-12)
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints it.
pub fn run(_args: &Args) -> Exit {
    stream::answer(&format!("{:#}\n", shared::config::schema::file()), Exit::Passed)
}
