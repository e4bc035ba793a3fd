//! Every rule, the borders between neighbours, and what must hold of any record whatever.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::json::Syntax;
use crate::record::tests::{any_record, full, least};
use crate::record::{Broker, Nearest, Pulse, Stat};

const NOW: u64 = 1_000_000;
const BOOT: &str = "c0ffee00-0000-4000-8000-000000000001";

/// A worker in the best of health, whose beat is made at this moment.
fn healthy() -> Record {
    let mut record = Record { at_mono_ms: NOW, ..least() };
    assert_eq!(record.boot, BOOT);
    record.status = Status::Busy;
    record.pulse = Some(Pulse { pulsed_mono_ms: NOW - 10, due_mono_ms: NOW + 29_990 });
    record.tasks.running = 1;
    record.tasks.nearest =
        Some(Nearest { name: "resize".to_owned(), since_mono_ms: NOW - 500, due_mono_ms: Some(NOW + 9_500) });
    record.stat = Some(Stat { ok_mono_ms: NOW, failures: 0 });
    record
}

/// The machine on which that worker runs, at the same moment.
fn machine() -> Machine<'static> {
    Machine {
        now_mono_ms: NOW,
        boot: BOOT,
        pid_ns: full().pid_ns,
        process: Process::Present { start: full().pid_start, stopped: false },
    }
}

fn later(ms: u64) -> Machine<'static> {
    Machine { now_mono_ms: NOW + ms, ..machine() }
}

fn judged(record: &Record, machine: &Machine<'_>) -> (Verdict, String) {
    let judgement = judge(Evidence::Record(record), machine, None);
    (judgement.verdict, judgement.to_string())
}

fn verdict(record: &Record, machine: &Machine<'_>) -> Verdict {
    judged(record, machine).0
}

/// One thing that is wrong with a worker, and the rule that says so.
struct Fault {
    verdict: Verdict,
    reason: &'static str,
    worker: fn(&mut Record),
    machine: fn(&mut Machine<'static>),
}

fn as_it_is(_: &mut Machine<'static>) {}

fn fine(_: &mut Record) {}

const FROM_AHEAD: &str = "there is no record in it: it was made 2.1 s from now";
const OTHER_BOOT: &str = "it is a record of another boot";

/// All faults that a record can have, in the order of the rules.
const FAULTS: [Fault; 16] = [
    Fault {
        verdict: Verdict::Corrupt,
        reason: FROM_AHEAD,
        worker: fine,
        machine: |machine| machine.now_mono_ms = NOW - 2_100,
    },
    Fault {
        verdict: Verdict::Stopped,
        reason: "it said that it stopped",
        worker: |record| record.status = Status::Stopped,
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::Gone,
        reason: OTHER_BOOT,
        worker: fine,
        machine: |machine| machine.boot = "another",
    },
    Fault {
        verdict: Verdict::Gone,
        reason: "its process 4242 is no more",
        worker: fine,
        machine: |machine| machine.process = Process::Absent,
    },
    Fault {
        verdict: Verdict::Gone,
        reason: "its pid 4242 belongs to another process now",
        worker: fine,
        machine: |machine| machine.process = Process::Present { start: 1, stopped: false },
    },
    Fault {
        verdict: Verdict::Silent,
        reason: "no beat for 42 s (promised within 30 s); its process is stopped",
        worker: fine,
        machine: |machine| {
            machine.now_mono_ms = NOW + 42_000;
            machine.process = Process::Present { start: 867_530, stopped: true };
        },
    },
    Fault {
        verdict: Verdict::Silent,
        reason: "no beat for 42 s (promised within 30 s)",
        worker: fine,
        machine: |machine| machine.now_mono_ms = NOW + 42_000,
    },
    Fault {
        verdict: Verdict::StartOverdue,
        reason: "its start was due 1.5 s ago",
        worker: |record| (record.status, record.until_mono_ms) = (Status::Starting, Some(NOW - 1_500)),
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::Starting,
        reason: "its start is due in 1.5 s",
        worker: |record| (record.status, record.until_mono_ms) = (Status::Starting, Some(NOW + 1_500)),
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::DrainOverdue,
        reason: "its drain was due 1.5 s ago",
        worker: |record| (record.status, record.until_mono_ms) = (Status::Draining, Some(NOW - 1_500)),
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::Draining,
        reason: "its drain is due in 1.5 s",
        worker: |record| (record.status, record.until_mono_ms) = (Status::Draining, Some(NOW + 1_500)),
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::Draining,
        reason: "its drain has no deadline",
        worker: |record| (record.status, record.until_mono_ms) = (Status::Draining, None),
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::Wedged,
        reason: "its loop was due 12.3 s ago (budget 30 s)",
        worker: |record| {
            record.pulse = Some(Pulse { pulsed_mono_ms: NOW - 42_300, due_mono_ms: NOW - 12_300 });
        },
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::Overdue,
        reason: "its task \"resize\" was due 2 s ago (budget 10 s)",
        worker: |record| {
            let task = record.tasks.nearest.as_mut().unwrap();
            (task.since_mono_ms, task.due_mono_ms) = (NOW - 12_000, Some(NOW - 2_000));
        },
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::CutOff,
        reason: "it has not reached its broker for 31 s",
        worker: |record| record.broker = Some(Broker { lost_mono_ms: NOW - 31_000 }),
        machine: as_it_is,
    },
    Fault {
        verdict: Verdict::CutOff,
        reason: "it has not reached its stat key for 31 s (7 failures)",
        worker: |record| record.stat = Some(Stat { ok_mono_ms: NOW - 31_000, failures: 7 }),
        machine: as_it_is,
    },
];

#[test]
fn a_healthy_worker_is_alive() {
    let alive = (Verdict::Alive, "busy, beat 0 ms ago, 1 task running".to_owned());
    assert_eq!(judged(&healthy(), &machine()), alive);
    let mut idle = least();
    assert_eq!(judged(&idle, &later(812)), (Verdict::Alive, "idle, beat 812 ms ago".to_owned()));
    idle.tasks.running = 3;
    assert_eq!(judged(&idle, &machine()).1, "idle, beat 0 ms ago, 3 tasks running");
}

#[test]
fn each_fault_has_its_verdict_and_its_reason() {
    for fault in &FAULTS {
        let (mut record, mut machine) = (healthy(), machine());
        (fault.worker)(&mut record);
        (fault.machine)(&mut machine);
        assert_eq!(judged(&record, &machine), (fault.verdict, fault.reason.to_owned()));
    }
}

#[test]
fn of_any_two_faults_the_earlier_rule_decides() {
    let mut pairs = 0;
    for (first, earlier) in FAULTS.iter().enumerate() {
        for later in &FAULTS[first + 1..] {
            let (mut record, mut machine) = (healthy(), machine());
            if matches!((earlier.reason, later.reason), (FROM_AHEAD, OTHER_BOOT)) {
                // No pair: only within one boot can two moments be compared.
                continue;
            }
            // Where both change the same thing, the earlier one's change is the one that stands.
            (later.worker)(&mut record);
            (later.machine)(&mut machine);
            (earlier.worker)(&mut record);
            (earlier.machine)(&mut machine);
            let judged = judged(&record, &machine);
            assert!(earlier.verdict != Verdict::CutOff || judged.1 == earlier.reason, "{}", judged.1);
            assert_eq!(
                judged.0, earlier.verdict,
                "{} before {}: {}",
                earlier.verdict, later.verdict, judged.1
            );
            pairs += 1;
        }
    }
    assert_eq!(pairs, 119);
}

#[test]
fn without_a_record_the_evidence_itself_decides() {
    let corrupt = Corrupt::Syntax(Syntax { at: 7, what: "no value" });
    let rows = [
        (Evidence::Missing(io::ErrorKind::NotFound), Verdict::Missing, "there is no beat file"),
        (
            Evidence::Missing(io::ErrorKind::PermissionDenied),
            Verdict::Missing,
            "the beat file cannot be read: permission denied",
        ),
        (
            Evidence::Unsafe(Unsafe::Link),
            Verdict::Unsafe,
            "the beat file is not to be trusted: it is a symbolic link",
        ),
        (
            Evidence::Unsafe(Unsafe::NotRegular),
            Verdict::Unsafe,
            "the beat file is not to be trusted: it is not a regular file",
        ),
        (
            Evidence::Unsafe(Unsafe::Owner(1000)),
            Verdict::Unsafe,
            "the beat file is not to be trusted: it belongs to user 1000",
        ),
        (
            Evidence::Unsafe(Unsafe::Writable(0o664)),
            Verdict::Unsafe,
            "the beat file is not to be trusted: others than its owner may write to it (mode 0664; umask 022, or chmod go-w, mends it)",
        ),
        (
            Evidence::Corrupt(&corrupt),
            Verdict::Corrupt,
            "there is no record in it: it is not JSON: no value at byte 7",
        ),
        (Evidence::Lost { age_ms: 42_000 }, Verdict::Gone, "its process is no more, last beat 42 s ago"),
        (
            Evidence::Expired { age_ms: 42_000, promise_ms: Some(30_000) },
            Verdict::Silent,
            "no beat for 42 s (promised within 30 s)",
        ),
        (
            Evidence::Expired { age_ms: 12_000, promise_ms: None },
            Verdict::Silent,
            "its promise ended 12 s ago",
        ),
        (
            Evidence::Unreadable(io::ErrorKind::OutOfMemory),
            Verdict::Unknown,
            "the checker cannot tell: out of memory",
        ),
    ];
    for (evidence, verdict, reason) in rows {
        for max_age in [None, Some(60_000)] {
            let judgement = judge(evidence, &machine(), max_age);
            assert_eq!((judgement.verdict, judgement.to_string().as_str()), (verdict, reason));
        }
    }
}

#[test]
fn each_verdict_means_for_liveness_and_readiness_what_the_table_says() {
    let table = [
        ("missing", Some(false), Some(false)),
        ("unsafe", Some(false), Some(false)),
        ("corrupt", Some(false), Some(false)),
        ("stopped", Some(false), Some(false)),
        ("gone", Some(false), Some(false)),
        ("silent", Some(false), Some(false)),
        ("starting", Some(true), Some(false)),
        ("start overdue", Some(false), Some(false)),
        ("draining", Some(true), Some(false)),
        ("drain overdue", Some(false), Some(false)),
        ("wedged", Some(false), Some(false)),
        ("overdue", Some(false), Some(false)),
        ("cut off", Some(true), Some(false)),
        ("alive", Some(true), Some(true)),
        ("unknown", None, None),
    ];
    let ours = Verdict::ALL.map(|verdict| (verdict.as_str(), verdict.live(), verdict.ready()));
    assert_eq!(ours, table);
    assert_eq!(Verdict::ALL.map(|verdict| verdict.to_string()), table.map(|(word, ..)| word));
    assert_eq!(format!("{:>9}", Verdict::CutOff), "  cut off");
}

#[test]
fn silence_may_last_as_long_as_the_promise_and_no_millisecond_more() {
    assert_eq!(verdict(&healthy(), &later(30_000)), Verdict::Alive);
    assert_eq!(verdict(&healthy(), &later(30_001)), Verdict::Silent);
}

#[test]
fn a_maximal_age_replaces_the_promise_in_both_directions() {
    let with = |age, max_age| judge(Evidence::Record(&healthy()), &later(age), Some(max_age)).verdict;
    assert_eq!(with(5_000, 5_000), Verdict::Alive);
    assert_eq!(with(5_001, 5_000), Verdict::Silent);
    assert_eq!(with(60_000, 60_000), Verdict::Alive);
    assert_eq!(with(60_001, 60_000), Verdict::Silent);
    assert_eq!(with(0, 0), Verdict::Alive);
    assert_eq!(with(1, 0), Verdict::Silent);
    let record = healthy();
    let judgement = judge(Evidence::Record(&record), &later(5_001), Some(5_000));
    assert_eq!(judgement.to_string(), "no beat for 5 s (at most 5 s)");
}

#[test]
fn a_beat_may_come_from_two_seconds_ahead_and_no_millisecond_more() {
    let ahead = |ms| Machine { now_mono_ms: NOW - ms, ..machine() };
    assert_eq!(verdict(&healthy(), &ahead(1)), Verdict::Alive);
    assert_eq!(verdict(&healthy(), &ahead(2_000)), Verdict::Alive);
    assert_eq!(verdict(&healthy(), &ahead(2_001)), Verdict::Corrupt);
    // Before a reboot the clock stood higher: that is another boot's record, not an impossible one.
    let rebooted = Machine { boot: "another", ..ahead(900_000) };
    assert_eq!(verdict(&healthy(), &rebooted), Verdict::Gone);
}

#[test]
fn an_empty_file_is_a_heartbeat_only_where_a_maximal_age_says_so() {
    let bare = |age_ms, max_age| {
        let judgement = judge(Evidence::Bare { age_ms }, &machine(), max_age);
        (judgement.verdict, judgement.to_string())
    };
    assert_eq!(bare(0, None), (Verdict::Corrupt, "there is no record in it: it is empty".to_owned()));
    for (age, expected) in [
        (0, Verdict::Alive),
        (60_000, Verdict::Alive),
        (60_001, Verdict::Silent),
        (i64::MAX, Verdict::Silent),
        (-1, Verdict::Alive),
        (-2_000, Verdict::Alive),
        (-2_001, Verdict::Silent),
        (i64::MIN, Verdict::Silent),
    ] {
        assert_eq!(bare(age, Some(60_000)).0, expected, "{age}");
    }
    assert_eq!(bare(1_500, Some(60_000)).1, "touched 1.5 s ago");
    assert_eq!(bare(60_001, Some(60_000)).1, "not touched for 60 s (at most 60 s)");
    assert_eq!(bare(-3_600_000, Some(60_000)).1, "last touched 60 min from now");
}

#[test]
fn deadlines_are_met_up_to_their_last_millisecond() {
    type Set = fn(&mut Record, u64);
    let rows: [(Set, Verdict, Verdict); 4] = [
        (
            |record, due| (record.status, record.until_mono_ms) = (Status::Starting, Some(due)),
            Verdict::Starting,
            Verdict::StartOverdue,
        ),
        (
            |record, due| (record.status, record.until_mono_ms) = (Status::Draining, Some(due)),
            Verdict::Draining,
            Verdict::DrainOverdue,
        ),
        (|record, due| record.pulse.as_mut().unwrap().due_mono_ms = due, Verdict::Alive, Verdict::Wedged),
        (
            |record, due| record.tasks.nearest.as_mut().unwrap().due_mono_ms = Some(due),
            Verdict::Alive,
            Verdict::Overdue,
        ),
    ];
    for (set, met, missed) in rows {
        for (due, expected) in [(NOW - 1, missed), (NOW, met), (NOW + 1, met)] {
            let mut record = healthy();
            set(&mut record, due);
            assert_eq!(verdict(&record, &machine()), expected, "due at {due}");
            // What has passed since the beat may have been met since: only the next beat can tell.
            assert_eq!(verdict(&record, &later(30_000)), expected, "due at {due}, looked at later");
            assert_eq!(verdict(&record, &later(30_001)), Verdict::Silent);
        }
    }
}

#[test]
fn a_worker_is_cut_off_only_after_its_whole_promise() {
    let mut record = healthy();
    record.stat = Some(Stat { ok_mono_ms: NOW - 30_000, failures: 29 });
    assert_eq!(verdict(&record, &machine()), Verdict::Alive);
    record.stat = Some(Stat { ok_mono_ms: NOW - 30_001, failures: 30 });
    assert_eq!(verdict(&record, &machine()), Verdict::CutOff);
    record.stat = None;
    assert_eq!(verdict(&record, &machine()), Verdict::Alive);
    record.broker = Some(Broker { lost_mono_ms: NOW - 30_000 });
    assert_eq!(verdict(&record, &machine()), Verdict::Alive);
    // What has passed since the beat may have been mended since.
    assert_eq!(verdict(&record, &later(30_000)), Verdict::Alive);
    record.broker = Some(Broker { lost_mono_ms: NOW - 30_001 });
    assert_eq!(verdict(&record, &machine()), Verdict::CutOff);
    let machine = later(5_000);
    assert_eq!(judged(&record, &machine).1, "it has not reached its broker for 35 s");
}

#[test]
fn states_and_tasks_without_a_deadline_are_never_overdue() {
    let mut record = healthy();
    record.status = Status::Draining;
    assert_eq!(verdict(&record, &machine()), Verdict::Draining);
    record.status = Status::Starting;
    assert_eq!(verdict(&record, &machine()), Verdict::Starting);
    record.status = Status::Busy;
    let task = record.tasks.nearest.as_mut().unwrap();
    (task.since_mono_ms, task.due_mono_ms) = (0, None);
    assert_eq!(verdict(&record, &machine()), Verdict::Alive);
}

#[test]
fn a_deadline_beside_a_status_that_has_none_is_passed_over() {
    let mut record = healthy();
    record.until_mono_ms = Some(1);
    assert_eq!(verdict(&record, &machine()), Verdict::Alive);
}

#[test]
fn while_starting_or_draining_neither_loop_nor_tasks_are_judged() {
    for (status, expected) in [(Status::Starting, Verdict::Starting), (Status::Draining, Verdict::Draining)] {
        let mut record = healthy();
        (FAULTS[12].worker)(&mut record);
        (FAULTS[13].worker)(&mut record);
        (record.status, record.until_mono_ms) = (status, Some(NOW));
        assert_eq!(verdict(&record, &machine()), expected);
    }
}

#[test]
fn from_another_pid_namespace_processes_say_nothing() {
    let processes = [
        Process::Absent,
        Process::Unknown,
        Process::Present { start: 1, stopped: false },
        Process::Present { start: 1, stopped: true },
    ];
    for process in processes {
        for pid_ns in [full().pid_ns + 1, 0] {
            let elsewhere = Machine { pid_ns, process, ..machine() };
            assert_eq!(verdict(&healthy(), &elsewhere), Verdict::Alive, "{process:?}");
            let silent = Machine { now_mono_ms: NOW + 42_000, ..elsewhere };
            let reason = "no beat for 42 s (promised within 30 s)".to_owned();
            assert_eq!(judged(&healthy(), &silent), (Verdict::Silent, reason), "{process:?}");
        }
    }
    // Where nobody knows a namespace, none of them is the same.
    let unknown = Machine { pid_ns: 0, process: Process::Absent, ..machine() };
    assert_eq!(verdict(&Record { pid_ns: 0, ..healthy() }, &unknown), Verdict::Alive);
}

#[test]
fn a_process_that_cannot_be_seen_is_not_gone() {
    assert_eq!(verdict(&healthy(), &Machine { process: Process::Unknown, ..machine() }), Verdict::Alive);
}

#[test]
fn an_unknown_boot_is_no_other_boot() {
    assert_eq!(verdict(&healthy(), &Machine { boot: "", ..machine() }), Verdict::Alive);
    let nameless = Record { boot: String::new(), ..healthy() };
    assert_eq!(verdict(&nameless, &machine()), Verdict::Alive);
    assert_eq!(verdict(&nameless, &Machine { boot: "", ..machine() }), Verdict::Alive);
    assert_eq!(verdict(&healthy(), &Machine { boot: "another", ..machine() }), Verdict::Gone);
}

#[test]
fn a_stopped_process_is_silent_only_after_its_promise() {
    let stopped = Process::Present { start: full().pid_start, stopped: true };
    assert_eq!(verdict(&healthy(), &Machine { process: stopped, ..later(30_000) }), Verdict::Alive);
    assert_eq!(verdict(&healthy(), &Machine { process: stopped, ..later(30_001) }), Verdict::Silent);
}

#[test]
fn a_file_that_says_stopped_is_stopped_also_after_its_process_and_its_boot() {
    let record = Record { status: Status::Stopped, ..healthy() };
    for machine in [
        Machine { process: Process::Absent, ..later(900_000) },
        Machine { boot: "another", ..machine() },
        Machine { pid_ns: 1, ..later(900_000) },
    ] {
        assert_eq!(verdict(&record, &machine), Verdict::Stopped);
    }
}

#[test]
fn the_publisher_judges_itself_by_what_it_says_alone() {
    let mut record = healthy();
    assert_eq!(verdict(&record, &Machine::of(&record)), Verdict::Alive);
    (FAULTS[12].worker)(&mut record);
    assert_eq!(verdict(&record, &Machine::of(&record)), Verdict::Wedged);
}

/// Any process, often the right one.
fn any_process(start: u64) -> BoxedStrategy<Process> {
    let starts = prop_oneof![Just(start), any::<u64>()];
    prop_oneof![
        Just(Process::Unknown),
        Just(Process::Absent),
        (starts, any::<bool>()).prop_map(|(start, stopped)| Process::Present { start, stopped }),
    ]
    .boxed()
}

/// Any record, on a machine that may be its own, at a time that may be near.
fn any_case() -> BoxedStrategy<(Record, u64, String, u64, Process)> {
    any_record()
        .prop_flat_map(|record| {
            let at = record.at_mono_ms;
            let near = at.saturating_sub(5_000)..=at.saturating_add(200_000);
            let now = prop_oneof![any::<u64>(), near, Just(at)];
            let boot = select(vec![record.boot.clone(), String::new(), "another".to_owned()]);
            let pid_ns = prop_oneof![Just(record.pid_ns), any::<u64>(), Just(0)];
            let process = any_process(record.pid_start);
            (Just(record), now, boot, pid_ns, process)
        })
        .boxed()
}

/// Whether anything that the record says of itself was past its deadline when the record was made.
fn by_its_own_account_late(record: &Record) -> bool {
    let late = |due: Option<u64>| due.is_some_and(|due| due < record.at_mono_ms);
    match record.status {
        Status::Starting | Status::Draining => late(record.until_mono_ms),
        _ => {
            late(record.pulse.map(|pulse| pulse.due_mono_ms))
                || late(record.tasks.nearest.as_ref().and_then(|task| task.due_mono_ms))
        }
    }
}

/// The same worker, with every deadline that it has passed met in its last millisecond.
fn well(mut record: Record) -> Record {
    let at = record.at_mono_ms;
    if record.status == Status::Stopped {
        record.status = Status::Idle;
    }
    record.until_mono_ms = record.until_mono_ms.map(|until| until.max(at));
    if let Some(pulse) = &mut record.pulse {
        pulse.due_mono_ms = pulse.due_mono_ms.max(at);
    }
    if let Some(nearest) = &mut record.tasks.nearest {
        nearest.due_mono_ms = nearest.due_mono_ms.map(|due| due.max(at));
    }
    assert!(!by_its_own_account_late(&record));
    record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 1_000 }))]

    #[test]
    fn nobody_is_live_past_a_budget(
        (record, now, boot, pid_ns, process) in any_case(),
        max_age in any::<Option<u64>>(),
    ) {
        let machine = Machine { now_mono_ms: now, boot: &boot, pid_ns, process };
        let verdict = judge(Evidence::Record(&record), &machine, max_age).verdict;
        let silence = now.saturating_sub(record.at_mono_ms);
        let budget = max_age.unwrap_or(record.promise_ms);
        let visible = pid_ns != 0 && pid_ns == record.pid_ns;
        let gone = visible && match process {
            Process::Absent => true,
            Process::Present { start, .. } => start != record.pid_start,
            Process::Unknown => false,
        };
        if silence > budget || gone || record.status == Status::Stopped || by_its_own_account_late(&record) {
            prop_assert_eq!(verdict.live(), Some(false), "{}", verdict);
        }
    }

    #[test]
    fn a_worker_that_was_well_when_it_beat_is_not_dead_before_its_promise_ends(
        record in any_record(),
        share in 0.0..=1.0_f64,
        process in select(vec![None, Some(false), Some(true)]),
        elsewhere: bool,
    ) {
        let record = well(record);
        // Not exact, and need not be: any moment within the promise.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "a share of the promise, rounded down")]
        let age = ((record.promise_ms as f64 * share) as u64).min(record.promise_ms);
        let process = match process {
            None => Process::Unknown,
            Some(stopped) => Process::Present { start: record.pid_start, stopped },
        };
        let pid_ns = if elsewhere { record.pid_ns ^ 1 } else { record.pid_ns };
        let now_mono_ms = record.at_mono_ms.saturating_add(age);
        let machine = Machine { now_mono_ms, boot: &record.boot, pid_ns, process };
        let verdict = judge(Evidence::Record(&record), &machine, None).verdict;
        prop_assert_eq!(verdict.live(), Some(true), "{}", verdict);
        if matches!(record.status, Status::Idle | Status::Busy) && record.stat.is_none() {
            let reached = record.broker.is_none_or(|broker| record.at_mono_ms - broker.lost_mono_ms <= record.promise_ms);
            prop_assert_eq!(verdict, if reached { Verdict::Alive } else { Verdict::CutOff });
        }
    }

    #[test]
    fn no_record_and_no_machine_make_a_verdict_panic_or_a_reason_steer_a_terminal(
        (record, now, boot, pid_ns, process) in any_case(),
        wild in any::<[u64; 8]>(),
        max_age in any::<Option<u64>>(),
    ) {
        // Also what no reader would have let through.
        let mut impossible = record.clone();
        [impossible.at_mono_ms, impossible.promise_ms, impossible.interval_ms, impossible.seq] =
            [wild[0], wild[1], wild[2], wild[3]];
        impossible.pulse = Some(Pulse { pulsed_mono_ms: wild[4], due_mono_ms: wild[5] });
        impossible.stat = Some(Stat { ok_mono_ms: wild[6], failures: wild[7] });
        impossible.broker = Some(Broker { lost_mono_ms: wild[6] });
        for record in [&record, &impossible] {
            let machine = Machine { now_mono_ms: now, boot: &boot, pid_ns, process };
            let judgement = judge(Evidence::Record(record), &machine, max_age);
            let reason = judgement.to_string();
            prop_assert!(!reason.is_empty() && !reason.chars().any(char::is_control), "{:?}", reason);
        }
    }

    #[test]
    fn an_empty_file_of_any_age_is_alive_exactly_within_its_limits(age_ms: i64, near in -70_000..70_000_i64, max_age: u32) {
        for age_ms in [age_ms, near] {
            let judgement = judge(Evidence::Bare { age_ms }, &machine(), Some(max_age.into()));
            let fresh = (-2_000..=i64::from(max_age)).contains(&age_ms);
            prop_assert_eq!(judgement.verdict, if fresh { Verdict::Alive } else { Verdict::Silent });
            prop_assert!(!judgement.to_string().chars().any(char::is_control));
        }
    }
}
