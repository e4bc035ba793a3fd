//! `checker worker` where it takes root to show it: as another user, and on a file system that hangs.
//!
//! Who is not root sees these as ignored.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod bench;

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{fs, ptr};

use bench::{Answer, Bench, answer, checker};
use heartbeat::verdict::Verdict;
use libtest_mimic::{Arguments, Trial};
use nix::libc;
use nix::unistd::geteuid;

fn main() -> ExitCode {
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
        trial("a_foreign_file_is_trusted_only_where_its_owner_is_named", foreign_file, root),
        trial("a_folder_that_may_not_be_entered_is_one_clear_line", forbidden_folder, root),
        trial("a_file_that_may_not_be_read_is_one_clear_line", forbidden_file, root),
        trial("a_file_system_that_hangs_does_not_outlive_the_timeout", hung_file_system, fuse),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The same command as a user who may not even see the folder of the build.
fn as_nobody(command: &Command) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("checker");
    fs::hard_link(command.get_program(), &program)
        .or_else(|_| fs::copy(command.get_program(), &program).map(drop))
        .unwrap();
    let mut again = Command::new(program);
    again.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => again.env(name, value),
            None => again.env_remove(name),
        };
    }
    answer(again.uid(65_534).gid(65_534))
}

fn foreign_file() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    open_folder(&bench, 0o755);
    fs::set_permissions(&bench.file, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&bench.file, Some(4_242), None).unwrap();
    for (owner, expected) in [
        ("", "unsafe: "),
        ("--owner root", "unsafe: "),
        ("--owner 4242", "alive: "),
        ("--owner any", "alive: "),
    ] {
        let told = as_nobody(&bench.command(owner));
        assert!(told.stdout.starts_with(expected), "{owner}: {told:?}");
    }
    chown(&bench.file, Some(0), None).unwrap();
    assert_eq!(as_nobody(&bench.command("")).code, 0, "root's file is trusted");
    chown(&bench.file, Some(65_534), None).unwrap();
    assert_eq!(bench.ask("").code, 1, "nobody's file is not trusted by root");
    assert_eq!(bench.ask("--owner nobody").code, 0);
}

fn forbidden_folder() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    open_folder(&bench, 0o700);
    cannot_be_read(&as_nobody(bench.command("").env("RUST_BACKTRACE", "1")));
}

fn forbidden_file() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    open_folder(&bench, 0o755);
    cannot_be_read(&as_nobody(bench.command("").env("RUST_BACKTRACE", "1")));
}

fn open_folder(bench: &Bench, mode: u32) {
    fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(mode)).unwrap();
}

fn cannot_be_read(told: &Answer) {
    assert_eq!((told.code, told.stderr.as_str()), (1, ""));
    assert!(told.stdout.starts_with("missing: the beat file cannot be read: permission denied"), "{told:?}");
    assert_eq!(told.stdout.matches('\n').count(), 1);
}

/// A FUSE file system whose server is there and never answers. No signal handler interrupts that wait, so there is no
/// answer; but the command ends, and in time.
fn hung_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let target = CString::new(folder.path().to_str().unwrap()).unwrap();
    let mut command = checker();
    command.args(["worker", "--timeout", "600ms", "--file"]).arg(folder.path().join("beat"));
    // SAFETY: the closure makes system calls and formats a short text, before the child has any other thread.
    unsafe { command.pre_exec(move || mount_hung(&target)) };
    let start = Instant::now();
    let told = answer(&mut command);
    let took = start.elapsed();
    assert_eq!((told.code, told.stderr.as_str()), (128 + libc::SIGKILL, ""), "{told:?}");
    assert!(took >= Duration::from_millis(500) && took < Duration::from_millis(850), "{took:?}");
}

/// Mounts it in a mount namespace of this process's own: it goes with the process, which is its server too.
fn mount_hung(target: &CString) -> io::Result<()> {
    // SAFETY: every pointer is to a C string that lives through its call, or null where that is allowed.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(c"none".as_ptr(), c"/".as_ptr(), ptr::null(), private, ptr::null()))?;
        let server = check(libc::open(c"/dev/fuse".as_ptr(), libc::O_RDWR))?;
        let options = CString::new(format!("fd={server},rootmode=40000,user_id=0,group_id=0"))?;
        let (source, kind) = (c"hung".as_ptr(), c"fuse".as_ptr());
        check(libc::mount(source, target.as_ptr(), kind, 0, options.as_ptr().cast()))?;
    }
    Ok(())
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
