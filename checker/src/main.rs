//! The `checker` command.

mod arena;

use std::process::ExitCode;

use checker::{cli, exit};

#[global_allocator]
static ARENA: arena::Arena = arena::Arena::new();

fn main() -> ExitCode {
    // What it knows of passwords is in no core dump, and for no other process of this user to read. Where a sandbox refuses
    // that, it is as with any other program.
    let _ = nix::sys::prctl::set_dumpable(false);
    let arguments: Vec<_> = std::env::args_os().collect();
    exit::contained(|| cli::main(&arguments)).into()
}
