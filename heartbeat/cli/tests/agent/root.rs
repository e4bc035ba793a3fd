//! `heartbeat agent` where it takes root to show it: another user's file. Who is not root sees this as ignored.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../run/bench.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod bench;
#[expect(dead_code, reason = "the other tests use more of it")]
mod scene;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::ExitCode;

use bench::{start, until};
use libtest_mimic::{Arguments, Trial};
use nix::unistd::geteuid;
use scene::Scene;

fn main() -> ExitCode {
    let run = || {
        another_users_file_counts_only_where_that_user_is_named();
        Ok(())
    };
    let trial = Trial::test("another_users_file_counts_only_where_that_user_is_named", run);
    let trial = trial.with_ignored_flag(!geteuid().is_root());
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn another_users_file_counts_only_where_that_user_is_named() {
    let scene = Scene::new();
    let _worker = scene
        .worker("w")
        .interval(std::time::Duration::from_mins(1))
        .promise(std::time::Duration::from_mins(5))
        .start()
        .unwrap();
    // Root may own any file for anybody, so the agent is somebody else.
    fs::set_permissions(scene.bench.path("beats"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(scene.file("w"), fs::Permissions::from_mode(0o644)).unwrap();
    chown(scene.file("w"), Some(4_242), Some(4_242)).unwrap();
    let stranger = start(&mut scene.agent_command(&[]));
    until("the stranger is named", || scene.bench.stderr().contains("it belongs to user 4242"));
    assert_eq!(scene.counts(), (0, 0, 0));
    drop(stranger);
    for owner in ["4242", "any"] {
        let agent = start(&mut scene.agent_command(&["--owner", owner]));
        scene.until_counts(1, 1);
        agent.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(agent.exit(), 0);
        scene.until_counts(0, 0);
    }
}
