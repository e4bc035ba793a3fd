//! The `checker` command.

use std::process::ExitCode;

use checker::{cli, exit};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    exit::contained(|| cli::main(&arguments)).into()
}
