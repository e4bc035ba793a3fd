//! Real control groups with limits, of version 2 or 1, whichever this machine's controllers are in. What is asked runs in
//! a process of its own, which is put there.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::{check, told};

/// Names the folders (with blanks between) that the child enters, after what it does there.
pub const CHILD: &str = "SHARED_TEST_CHILD";

const LIMIT: usize = 64 << 20;

/// Whether groups of this controller can be made.
pub fn exist(controller: &str) -> bool {
    parent(controller).is_some_and(|parent| {
        let probe = parent.join(format!("probe-{}", std::process::id()));
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
    })
}

/// Where a group of this controller can be made below.
fn parent(controller: &str) -> Option<PathBuf> {
    let legacy = Path::new("/sys/fs/cgroup").join(controller);
    if legacy.join("cgroup.procs").exists() {
        return Some(legacy);
    }
    let unified = Path::new("/sys/fs/cgroup");
    let delegated = fs::read_to_string(unified.join("cgroup.subtree_control")).ok()?;
    delegated.split_whitespace().any(|name| name == controller).then(|| unified.to_owned())
}

/// A group of the test's own, removed with it.
struct Group(PathBuf);

impl Group {
    fn new(controller: &str, purpose: &str) -> Self {
        let folder = parent(controller).unwrap().join(format!("{purpose}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Writes the first of these files that there is.
    fn set(&self, files: &[(&str, &str)]) {
        let (file, text) = files.iter().find(|(file, _)| self.0.join(file).exists()).unwrap();
        fs::write(self.0.join(file), text).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets go of an ended child a moment later than its parent hears of it.
        let begun = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
    }
}

fn run(what: &str, groups: &[&Group]) {
    let folders: Vec<_> = groups.iter().map(|group| group.0.display().to_string()).collect();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.env(CHILD, format!("{what} {}", folders.join(" "))).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn memory() {
    let group = Group::new("memory", "memory");
    let limit = LIMIT.to_string();
    group.set(&[("memory.max", &limit), ("memory.limit_in_bytes", &limit)]);
    run("memory", &[&group]);
}

pub fn cpu() {
    let group = Group::new("cpu", "cpu");
    group.set(&[("cpu.max", "20000 100000"), ("cpu.cfs_quota_us", "20000")]);
    if Path::new("/sys/fs/cgroup/cpuacct/cgroup.procs").exists() && !group.0.join("cpuacct.usage").exists() {
        let account = Group::new("cpuacct", "cpu");
        run("cpu", &[&group, &account]);
    } else {
        run("cpu", &[&group]);
    }
}

/// In the child: enters the groups and asks there.
pub fn child(what: &str) {
    let mut words = what.split(' ');
    let test = words.next().unwrap();
    for folder in words {
        fs::write(Path::new(folder).join("cgroup.procs"), "0").unwrap();
    }
    match test {
        "memory" => memory_inside(),
        _ => cpu_inside(),
    }
}

fn memory_inside() {
    let check_of = |settings| check("memory", settings);
    let check = check_of(json!({ "max_used": { "warn": 50, "fail": 75 }, "min_available": "8MiB" }));
    assert_eq!(told(&*check), "");
    let filler = black_box(vec![7_u8; LIMIT * 8 / 10]);
    let full = told(&*check);
    assert!(full.starts_with("fail: 8") && full.contains("% of the memory is in use, "), "{full}");
    drop(filler);
    assert_eq!(told(&*check), "");
    // More than the limit cannot be available here, whatever the machine has.
    let of = |scope: &str| check_of(json!({ "min_available": "65MiB", "max_used": {}, "scope": scope }));
    let little = told(&*of("container"));
    assert!(little.starts_with("warn: 6") && little.contains("MiB of memory is available"), "{little}");
    assert_eq!(told(&*of("machine")), "");
}

fn cpu_inside() {
    let settings = json!({ "max_used": { "fail": 75 }, "max_throttled": 50, "sample": "100ms" });
    let check = check("cpu", settings);
    assert_eq!(told(&*check), "");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        black_box(0);
    }
    let busy = told(&*check);
    assert!(busy.starts_with("fail: ") && busy.contains("% of the processor time is in use"), "{busy}");
    assert!(busy.contains("the quota was used up in "), "{busy}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(told(&*check), "");
}
