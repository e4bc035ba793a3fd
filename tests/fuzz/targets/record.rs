#![no_main]

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use heartbeat::record::Record;
use heartbeat::verdict::{Evidence, Machine, Process, judge};
use libfuzzer_sys::fuzz_target;

/// This machine's boot id, which the bytes cannot name: the fuzzer sees what they are compared with, but this is another one for
/// other bytes.
fn boot(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:032x}", hasher.finish())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes) else { return };
    let mut line = Vec::new();
    record.write(&mut line);
    assert_eq!(Record::parse(&line).as_ref(), Ok(&record), "what is understood is written and read alike");
    // Who does not know its boot says so, and is believed.
    if record.boot.is_empty() {
        return;
    }
    let boot = boot(bytes);
    for process in [Process::Absent, Process::Present { start: 7, stopped: false }] {
        let machine = Machine { now_mono_ms: record.at_mono_ms, boot: &boot, pid_ns: 7, process };
        let verdict = judge(Evidence::Record(&record), &machine, None).verdict;
        assert_ne!(verdict.live(), Some(true), "no worker of this machine wrote it");
    }
});
