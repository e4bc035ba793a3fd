#![no_main]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use heartbeat::record::Record;
use heartbeat::verdict::{Evidence, Machine, Process, judge};
use libfuzzer_sys::fuzz_target;

/// This machine's, which no bytes can know.
static BOOT: LazyLock<String> = LazyLock::new(|| {
    let [high, low] = [1, 2].map(|number: u8| RandomState::new().hash_one(number));
    format!("{high:016x}{low:016x}")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes) else { return };
    let mut line = Vec::new();
    record.write(&mut line);
    assert_eq!(Record::parse(&line).as_ref(), Ok(&record), "what is understood is written and read alike");
    // Who does not know its boot says so, and is believed.
    if record.boot.is_empty() {
        return;
    }
    for process in [Process::Absent, Process::Present { start: 7, stopped: false }] {
        let machine = Machine { now_mono_ms: record.at_mono_ms, boot: &BOOT, pid_ns: 7, process };
        let verdict = judge(Evidence::Record(&record), &machine, None).verdict;
        assert_ne!(verdict.live(), Some(true), "no worker of this machine wrote it");
    }
});
