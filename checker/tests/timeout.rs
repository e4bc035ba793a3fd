//! `--timeout`: the command never outlives it, whatever hangs, and says what it can before it ends.
//!
//! What hangs here is real: system calls that the kernel hands to somebody who never answers (seccomp's user
//! notification, which any user may set up for a child), and a pipe that nobody reads. A file system that hangs
//! stands in `root.rs`.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod bench;

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::{Answer, Bench, answer};
use heartbeat::verdict::Verdict;
use nix::libc;

const PATIENCE: Duration = Duration::from_millis(600);

/// Has every look at a beat file hang, from the child's exec on: opens with `O_NOFOLLOW` are the checker's own.
fn looks_hang() -> io::Result<()> {
    const NUMBER: u32 = 0;
    const FLAGS: u32 = 32;
    let load = |at| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let give = |what| statement(libc::BPF_RET | libc::BPF_K, what);
    let mut look = [
        load(NUMBER),
        jump(libc::BPF_JEQ, u32::try_from(libc::SYS_openat).unwrap_or(0), 0, 2),
        load(FLAGS),
        jump(libc::BPF_JSET, libc::O_NOFOLLOW.cast_unsigned(), 1, 0),
        give(libc::SECCOMP_RET_ALLOW),
        give(libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog { len: 6, filter: look.as_mut_ptr() };
    // SAFETY: the program is valid for the call; the listener, who could answer, stays open and unused.
    unsafe {
        check(i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))?;
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = check(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        ))?;
        let listener = libc::c_int::try_from(listener).map_err(io::Error::other)?;
        check(i64::from(libc::fcntl(listener, libc::F_SETFD, 0)))?;
    }
    Ok(())
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k }
}

fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { jt, jf, ..statement(libc::BPF_JMP | kind | libc::BPF_K, k) }
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn hanging(mut command: Command) -> Command {
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(looks_hang) };
    command
}

fn within_patience(command: &mut Command) -> Answer {
    let start = Instant::now();
    let told = answer(command);
    let took = start.elapsed();
    assert!(took >= PATIENCE / 2, "it did not hang: {told:?}");
    assert!(took < PATIENCE + Duration::from_millis(250), "{took:?}: {told:?}");
    told
}

#[test]
fn a_look_that_hangs_ends_as_unknown_in_every_format() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    for (arguments, code, begin) in [
        ("", 0, "unknown: nothing could be read within 600 ms ("),
        ("--for ready", 1, "unknown: "),
        ("--unknown fail", 1, "unknown: "),
        ("--format json", 0, r#"{"status":"unknown","verdict":"unknown","reason":"nothing"#),
        ("--format nagios", 3, "HEARTBEAT UNKNOWN - unknown: nothing could be read within 600 ms"),
        ("--format health+json", 0, "{"),
        ("--format openmetrics", 0, "# TYPE"),
    ] {
        let command = bench.command(&format!("--timeout 600ms {arguments}"));
        let told = within_patience(&mut hanging(command));
        assert_eq!(told.code, code, "{arguments}: {told:?}");
        assert!(told.stdout.starts_with(begin) && told.stdout.ends_with('\n'), "{told:?}");
        assert_eq!(told.stderr, "");
    }
}

#[test]
fn a_blocked_signal_is_no_way_to_outlive_it() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    let mut command = hanging(bench.command("--timeout 600ms"));
    let block = || Ok(nix::sys::signal::SigSet::all().thread_block()?);
    // SAFETY: the closure makes one system call.
    unsafe { command.pre_exec(block) };
    assert_eq!(within_patience(&mut command).code, 0);
}

#[test]
fn an_answer_that_nobody_reads_keeps_its_status() {
    let mut bench = Bench::new();
    for (verdict, code) in [(Verdict::Missing, 1), (Verdict::Alive, 0)] {
        bench.prepare(verdict);
        let (reader, mut writer) = io::pipe().unwrap();
        fill(&mut writer);
        let told = within_patience(bench.command("--timeout 600ms").stdout(Stdio::from(writer)));
        assert_eq!(told.code, code, "{told:?}");
        drop(reader);
    }
}

/// Writes until not one more byte fits.
fn fill(writer: &mut io::PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(&*writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'.'; 4_096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl(&*writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

#[test]
fn in_time_it_changes_nothing() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    let start = Instant::now();
    let told = bench.ask("--timeout 30s");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
