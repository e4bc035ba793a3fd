//! The `checker` command.

mod arena;

use std::process::ExitCode;

use checker::{cli, exit};

#[global_allocator]
static ARENA: arena::Arena = arena::Arena::new();

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    exit::contained(|| cli::main(&arguments)).into()
}
