//! What every kind of check keeps, whatever its peer does: it ends at its deadline, does not pass, does not panic, tells no
//! secret, holds on to nothing, and does not fill the memory.
//!
//! The suite walks the list of kinds, so that a new one takes part by itself; one that takes a secret says which server knows
//! it. What else only its real server can show (one that freezes behind a kept connection) stands in the tests of the kind. One
//! test after another, because memory, threads and descriptors are those of the whole process.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

#[path = "contract/credentials.rs"]
mod credentials;
#[path = "contract/memory.rs"]
mod memory;
#[path = "contract/peers.rs"]
mod peers;
mod servers;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use credentials::Servers;
use libtest_mimic::{Failed, Trial};
use peers::{Manner, Peer};
use shared::Status;
use shared::check::{Check, Failure};
use shared::checks::KINDS;
use shared::config::{Configuration, Surroundings};
use shared::kind::{Contract, Kind};
use shared::runner::{Named, Outcome, TIMED_OUT, ask};
use tokio::runtime::{Builder, Runtime};

const DEADLINE: Duration = Duration::from_millis(1_200);

/// How long after its deadline an answer may come.
const LATE: Duration = Duration::from_millis(50);

/// What is told of a process that has grown.
const HAS_GROWN: &str = "the process has grown";

/// How much the process may grow by while peers talk without end: a tenth of what one says in that time.
const MEMORY_KIB: usize = 48 * 1024;

/// How a check is asked again and again.
struct Runs {
    /// How often, before it is measured what it leaves behind.
    warm_up: usize,
    /// And then.
    measured: usize,
    deadline: Duration,
    passes: bool,
    /// How many tasks may be left, because they sleep for a while and then end.
    asleep: usize,
}

/// Of whom there is nobody, or nobody who answers.
const IN_VAIN: Runs =
    Runs { warm_up: 200, measured: 300, deadline: Duration::from_millis(500), passes: false, asleep: 0 };

/// Of this machine.
const LOCAL: Runs = Runs { deadline: Duration::from_secs(5), ..IN_VAIN };

/// Of real servers, which take their time.
const PASSING: Runs =
    Runs { warm_up: 50, measured: 100, deadline: credentials::PATIENCE, passes: true, asleep: 0 };

/// How many bytes more may be in use for each of them.
const LEAK: usize = 1_024;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let peers = KINDS.iter().filter(|kind| !matches!(kind.contract, Contract::Local));
    // Ended before the process, which waits for nothing.
    let servers = Arc::<Servers>::default();
    let mut trials: Vec<_> = peers
        .map(|kind| {
            trial(&format!("{}_keeps_the_contract_whatever_its_peer_does", kind.name), move || keeps(kind))
        })
        .collect();
    trials.push(trial("an_expired_deadline_is_a_time_out_for_every_kind", expired_deadlines));
    trials.push(trial(
        "a_thousand_runs_leave_no_connection_task_thread_descriptor_or_memory_behind",
        leaves_nothing,
    ));
    trials.push(trial("questions_to_this_machine_leave_nothing_behind_either", leaves_nothing_here));
    let known = Arc::clone(&servers);
    trials.push(trial("runs_that_pass_leave_nothing_behind_either", move || {
        leaves_nothing_where_it_passes(&known)
    }));
    let known = Arc::clone(&servers);
    trials.push(trial("a_wrong_secret_fails_by_a_fixed_sentence_and_no_part_of_it_is_told", move || {
        wrong_secrets(&known)
    }));
    trials.push(trial("the_suite_tells_a_check_that_breaks_the_contract", tells_what_is_wrong));
    let one_by_one = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    let conclusion = libtest_mimic::run(&one_by_one, trials);
    drop(servers);
    conclusion.exit()
}

fn trial(name: &str, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(Failed::from))
}

/// One whose threads for blocking work end soon, so that those that stay are seen.
fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).thread_keep_alive(Duration::from_secs(1)).enable_all().build().unwrap()
}

/// All settings of a kind that ask a peer.
fn contracts(kind: &Kind) -> impl Iterator<Item = &'static str> {
    kind.contract.settings().into_iter().chain(kind.more_contracts.iter().copied())
}

/// Kinds that ask this machine, with settings.
fn local() -> impl Iterator<Item = (&'static Kind, &'static str)> {
    let local = KINDS.iter().filter(|kind| matches!(kind.contract, Contract::Local));
    let settings = |kind: &'static Kind| match kind.name {
        // The program of its example need not be there.
        "command" => vec![kind.example, "command = ['true']"],
        // Where it is asked again at once, it looks for so long.
        "cpu" => vec!["sample = '10ms'"],
        _ => vec![kind.example],
    };
    local.flat_map(move |kind| settings(kind).into_iter().map(move |one| (kind, one)))
}

/// The kind's check of this peer, as a configuration makes it.
fn check(kind: &Kind, settings: &str, address: SocketAddr) -> Named {
    let settings = settings.replace("{peer}", &address.to_string());
    let text =
        format!("[subsets]\nall = ['it']\n[checks.it]\ntype = '{}'\ntimeout = '1m'\n{settings}\n", kind.name);
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("/nonexistent") };
    let reading = Configuration::parse(&text, surroundings);
    let configuration =
        reading.configuration.unwrap_or_else(|| panic!("{}: {:?}", kind.name, reading.problems));
    let named = configuration.subset("all").unwrap().remove(0);
    drop(configuration);
    Arc::into_inner(named).unwrap()
}

/// All peers side by side, because it is waiting that takes the time.
fn keeps(kind: &'static Kind) -> Result<(), String> {
    contracts(kind).try_for_each(|settings| {
        thread::scope(|scope| {
            let asked = Manner::ALL.map(|manner| scope.spawn(move || keeps_with(kind, settings, manner)));
            asked.into_iter().try_for_each(|one| one.join().unwrap())
        })
    })
}

fn keeps_with(kind: &'static Kind, settings: &str, manner: Manner) -> Result<(), String> {
    let may_pass = matches!(kind.contract, Contract::AnyAnswer(_)) && manner != Manner::Refused;
    let peer = Peer::start(manner);
    let held = holds(check(kind, settings, peer.address), &peer, may_pass);
    held.map_err(|why| format!("{settings}: {manner:?}: {why}"))
}

/// Asks a check of a peer that does not do what it should, and says which part of the contract does not hold.
fn holds(named: Named, peer: &Peer, may_pass: bool) -> Result<(), String> {
    let runtime = runtime();
    let (outcome, grown_kib) = in_time(&runtime, &named)?;
    if outcome.status == Status::Pass && !may_pass {
        return Err("it passes".to_owned());
    }
    if outcome.reason.as_deref() == Some("the check itself failed unexpectedly") {
        return Err("it panics".to_owned());
    }
    if format!("{outcome:?}").contains("S3cret") {
        return Err(format!("it tells a secret: {outcome:?}"));
    }
    if grown_kib > MEMORY_KIB {
        return Err(format!("{HAS_GROWN} by {grown_kib} KiB"));
    }
    drop(named);
    soon("a task", || runtime.metrics().num_alive_tasks())?;
    soon("a connection", || peer.held())
}

/// Asks up to three times, until the answer comes in time: on a busy machine all waits end late, so what counts is how late
/// another one ends that has the same deadline.
fn in_time(runtime: &Runtime, named: &Named) -> Result<(Outcome, usize), String> {
    let mut late = String::new();
    for _ in 0..3 {
        reset_peak()?;
        let before = memory_kib("VmHWM:")?;
        let (outcome, control) = runtime.block_on(async {
            let until = Instant::now() + DEADLINE;
            let control = tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                until.elapsed()
            });
            let outcome = ask(named, until).await;
            (outcome, control.await.unwrap())
        });
        let grown = memory_kib("VmHWM:")?.saturating_sub(before);
        if outcome.took <= DEADLINE + control + LATE {
            return Ok((outcome, grown));
        }
        late = format!("it took {:?} of {DEADLINE:?}, where another wait was {control:?} late", outcome.took);
    }
    Err(late)
}

/// Waits until there are none left.
fn soon(what: &str, count: impl Fn() -> usize) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match count() {
            0 => return Ok(()),
            left if begun.elapsed() > Duration::from_secs(5) => {
                return Err(format!("{what} is left behind: {left}"));
            }
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn expired_deadlines() -> Result<(), String> {
    thread::scope(|scope| {
        let asked: Vec<_> = KINDS.iter().map(|kind| scope.spawn(move || expires(kind))).collect();
        asked.into_iter().try_for_each(|one| one.join().unwrap())
    })
}

fn expires(kind: &Kind) -> Result<(), String> {
    let runtime = runtime();
    let of_this_machine = local().filter(|(local, _)| local.name == kind.name).map(|(_, settings)| settings);
    for settings in contracts(kind).chain(of_this_machine) {
        let peer = Peer::start(Manner::BlackHole);
        let named = check(kind, settings, peer.address);
        let expired = Instant::now().checked_sub(Duration::from_secs(1)).ok_or("no past")?;
        let outcome = runtime.block_on(ask(&named, expired));
        if outcome.reason.as_deref() != Some(TIMED_OUT) {
            return Err(format!("{}: {settings}: {outcome:?}", kind.name));
        }
        // Asked by somebody who does not look at the clock first, it must not panic either.
        let asked =
            async { tokio::time::timeout(Duration::from_millis(300), named.check.run(expired)).await };
        drop(runtime.block_on(asked));
    }
    Ok(())
}

/// All side by side, because it is servers that start that take the time.
fn wrong_secrets(servers: &Servers) -> Result<(), String> {
    thread::scope(|scope| {
        let asked: Vec<_> =
            KINDS.iter().map(|kind| scope.spawn(|| credentials::keeps(kind, servers))).collect();
        let wrong: Vec<_> = asked.into_iter().filter_map(|one| one.join().unwrap().err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    })
}

/// Each check asked a thousand times, as a server does: half of them where there is nobody.
fn leaves_nothing() -> Result<(), String> {
    for (kind, settings) in KINDS.iter().flat_map(|kind| contracts(kind).map(move |one| (kind, one))) {
        for manner in [Manner::Refused, Manner::Garbage] {
            let peer = Peer::start(manner);
            let left = leaves_nothing_with(check(kind, settings, peer.address), &IN_VAIN, |_| peer.held());
            left.map_err(|why| format!("{}: {settings}: {manner:?}: {why}", kind.name))?;
        }
    }
    Ok(())
}

/// The same of kinds that ask no peer.
fn leaves_nothing_here() -> Result<(), String> {
    local().try_for_each(|(kind, settings)| {
        let named = check(kind, settings, ([127, 0, 0, 1], 0).into());
        leaves_nothing_with(named, &LOCAL, |before| sockets().unwrap_or(usize::MAX).saturating_sub(before))
            .map_err(|why| format!("{}: {settings}: {why}", kind.name))
    })
}

/// The same of real servers that let it in.
fn leaves_nothing_where_it_passes(servers: &Servers) -> Result<(), String> {
    for kind in KINDS {
        for settings in credentials::right(kind, servers) {
            let named = check(kind, &settings, ([127, 0, 0, 1], 0).into());
            // The heartbeat of its client looks up every 30 s, as this broker would have it.
            let runs = Runs { asleep: usize::from(kind.name == "rabbitmq"), ..PASSING };
            let left = leaves_nothing_with(named, &runs, |before| {
                sockets().unwrap_or(usize::MAX).saturating_sub(before)
            });
            left.map_err(|why| format!("{}: {settings}: {why}", kind.name))?;
        }
    }
    Ok(())
}

/// `held` tells how many connections there still are, by how many sockets this process had before.
fn leaves_nothing_with(named: Named, runs: &Runs, held: impl Fn(usize) -> usize) -> Result<(), String> {
    let runtime = runtime();
    let sockets = sockets()?;
    let asked = |times: usize| {
        runtime.block_on(async {
            for _ in 0..times {
                let outcome = ask(&named, Instant::now() + runs.deadline).await;
                if runs.passes && outcome.status != Status::Pass {
                    return Err(format!("it does not pass: {outcome:?}"));
                }
            }
            Ok(())
        })
    };
    // What is made once and kept is there after a few.
    asked(runs.warm_up)?;
    thread::sleep(Duration::from_millis(20));
    let (files, threads) = (count("/proc/self/fd")?, count("/proc/self/task")?);
    grows_no_more(runs.measured, asked)?;
    let more = |path: &str, before: usize| {
        // The peer's own ends of connections are in this process too.
        held(sockets);
        count(path).unwrap_or(usize::MAX).saturating_sub(before + 4)
    };
    soon("a descriptor", || more("/proc/self/fd", files))?;
    soon("a thread", || more("/proc/self/task", threads))?;
    // Where a server drops it, too.
    let _entered = runtime.enter();
    drop(named);
    soon("a task", || runtime.metrics().num_alive_tasks().saturating_sub(runs.asleep))?;
    soon("a connection", || held(sockets))
}

/// Runs until the memory that is in use does not grow. What leaks, grows every time; what is still at work does not.
fn grows_no_more(times: usize, runs: impl Fn(usize) -> Result<(), String>) -> Result<(), String> {
    let mut grown = 0;
    for _ in 0..4 {
        let before = memory::in_use();
        runs(times)?;
        grown = memory::in_use().saturating_sub(before);
        if grown <= times * LEAK {
            return Ok(());
        }
    }
    Err(format!("{HAS_GROWN} by {grown} bytes in {times} runs"))
}

/// A check that breaks the contract in one way.
enum Broken {
    Passes,
    Panics,
    TellsASecret,
    BlocksItsThread,
    LeavesATask,
    HoldsOn,
    FillsTheMemory,
    LeaksALittle,
}

struct BrokenCheck(Broken, SocketAddr);

#[async_trait::async_trait]
impl Check for BrokenCheck {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        let address = self.1;
        match self.0 {
            Broken::Passes => return Ok(()),
            Broken::Panics => panic!("on purpose"),
            Broken::TellsASecret => return Err(Failure::failed("no").because("redis://:S3cret@h")),
            Broken::BlocksItsThread => thread::sleep(DEADLINE * 8),
            Broken::LeavesATask => drop(tokio::spawn(std::future::pending::<()>())),
            Broken::HoldsOn => std::mem::forget(std::net::TcpStream::connect(address)),
            Broken::FillsTheMemory => drop(std::hint::black_box(vec![1_u8; 2 * 1024 * MEMORY_KIB])),
            Broken::LeaksALittle => std::mem::forget(std::hint::black_box(vec![1_u8; 10 * 1024])),
        }
        Err(Failure::failed("no"))
    }
}

fn tells_what_is_wrong() -> Result<(), String> {
    let told = |broken: Broken, expected: &str| {
        let peer = Peer::start(Manner::BlackHole);
        match holds(breaks(broken, &peer), &peer, false) {
            Err(why) if why.contains(expected) => Ok(()),
            told => Err(format!("{expected} is not told, but {told:?}")),
        }
    };
    for (broken, expected) in [
        (Broken::Passes, "it passes"),
        (Broken::Panics, "it panics"),
        (Broken::TellsASecret, "it tells a secret"),
        (Broken::FillsTheMemory, HAS_GROWN),
    ] {
        told(broken, expected)?;
    }
    // What these do takes seconds to be sure of, and no memory.
    thread::scope(|scope| {
        let asked = [
            (Broken::BlocksItsThread, "a task is left behind"),
            (Broken::LeavesATask, "a task is left behind"),
            (Broken::HoldsOn, "a connection is left behind"),
        ]
        .map(|(broken, expected)| scope.spawn(move || told(broken, expected)));
        asked.into_iter().try_for_each(|one| one.join().unwrap())
    })?;
    let peer = Peer::start(Manner::Refused);
    match leaves_nothing_with(breaks(Broken::LeaksALittle, &peer), &IN_VAIN, |_| peer.held()) {
        Err(why) if why.contains(HAS_GROWN) => Ok(()),
        told => Err(format!("a leak of 10 KiB is not told, but {told:?}")),
    }
}

fn breaks(broken: Broken, peer: &Peer) -> Named {
    let check = Arc::new(BrokenCheck(broken, peer.address));
    Named { name: "it".to_owned(), timeout: Duration::from_mins(1), critical: true, check }
}

fn count(folder: &str) -> Result<usize, String> {
    Ok(std::fs::read_dir(folder).map_err(|error| error.to_string())?.count())
}

fn sockets() -> Result<usize, String> {
    let files = std::fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?;
    // What is closed meanwhile is none.
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
}

/// Makes the highest that the memory has been what it is now.
fn reset_peak() -> Result<(), String> {
    std::fs::write("/proc/self/clear_refs", "5").map_err(|error| error.to_string())
}

fn memory_kib(line: &str) -> Result<usize, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let number = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.ok_or_else(|| format!("no {line}"))
}
