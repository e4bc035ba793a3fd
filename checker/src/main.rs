//! The `checker` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    checker::cli::run(&checker::cli::Cli::parse()).into()
}
