//! Checks of this machine's resources where it takes root to bring them about: file systems that are full, read-only or
//! hung, and control groups with limits.
//!
//! Who is not root, or has no such control groups, sees these as ignored.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod disk;
mod groups;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nix::unistd::geteuid;
use serde_json::Value;
use shared::check::{Check, Failure};
use shared::checks::KINDS;

fn main() -> ExitCode {
    if let Some(what) = std::env::var_os(groups::CHILD) {
        groups::child(what.to_str().unwrap());
        return ExitCode::SUCCESS;
    }
    let root = geteuid().is_root();
    let fuse = root && Path::new("/dev/fuse").exists();
    let trial = |name: &str, test: fn(), possible: bool| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!possible)
    };
    let trials = vec![
        trial("a_full_file_system_fails_until_there_is_room_again", disk::full, root),
        trial("a_file_system_without_a_free_inode_fails_until_there_is_one", disk::inodes, root),
        trial("a_file_system_remounted_for_reading_fails_until_it_is_writable", disk::read_only, root),
        trial("a_volume_that_is_missing_is_told_until_it_is_mounted", disk::missing, root),
        trial("a_hung_file_system_costs_one_thread_and_is_noticed_when_it_is_back", disk::hung, fuse),
        trial("memory_is_that_of_the_real_control_group", groups::memory, root && groups::exist("memory")),
        trial("processor_time_is_that_of_the_real_control_group", groups::cpu, root && groups::exist("cpu")),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A check, as a configuration would make it.
fn check(kind: &str, settings: Value) -> Box<dyn Check> {
    KINDS.iter().find(|known| known.name == kind).unwrap().build(settings).unwrap()
}

fn ask(check: &dyn Check, timeout: Duration) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check.run(Instant::now() + timeout))
}

/// What it says to everyone; nothing where it passes.
fn told(check: &dyn Check) -> String {
    ask(check, Duration::from_secs(20))
        .err()
        .map_or_else(String::new, |failure| format!("{}: {failure}", failure.status()))
}
