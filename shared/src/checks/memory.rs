//! Whether there is memory left: within the limits of the control groups that this runs in, else on the machine.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::cgroup::{self, Groups};
use crate::node::limit::{Findings, Levels, Scope};
use crate::node::{Machine, human, percent, pressure};
use crate::settings::Size;

/// Whether there is memory left, by the limits of the container that this runs in, or of the machine where it has none.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// How much may be in use, in percent. What the kernel gives back first (inactive files) is not in use. A number warns,
    /// and `{ warn = 80, fail = 95 }` does both.
    #[serde(default = "ninety")]
    max_used: Levels<f64>,
    /// What must be available, such as `"100MiB"` or `{ warn = "200MiB", fail = "50MiB" }`.
    #[serde(default = "nothing")]
    min_available: Levels<Size>,
    /// How much of the swap space may be in use, in percent; no swap is none in use.
    #[serde(default = "no_level")]
    max_swap_used: Levels<f64>,
    /// The share of the last ten seconds, in percent, in which something waited for memory (the kernel's pressure, `some`).
    #[serde(default = "no_level")]
    max_pressure: Levels<f64>,
    /// `container`: the limits of this process's control groups, or the machine's memory where none is lower. `machine`:
    /// the machine's.
    #[serde(default)]
    scope: Scope,
}

fn ninety() -> Levels<f64> {
    Levels::warn(90.0)
}

fn nothing() -> Levels<Size> {
    Levels::NONE
}

fn no_level() -> Levels<f64> {
    Levels::NONE
}

impl Settings for Memory {
    const KIND: &'static str = "memory";
    const EXAMPLE: &'static str = "max_used = 90\nmin_available = { warn = \"100MiB\", fail = \"20MiB\" }";
    const CONTRACT: Contract = Contract::Local;
    type Check = MemoryCheck;

    fn build(self) -> Result<MemoryCheck, Vec<Mistake>> {
        let mut mistakes = self.max_used.percent_mistakes("max_used", true);
        let any = (Size(0), Size(u64::MAX));
        mistakes.extend(self.min_available.mistakes("min_available", false, any, ""));
        mistakes.extend(self.max_swap_used.percent_mistakes("max_swap_used", true));
        mistakes.extend(self.max_pressure.percent_mistakes("max_pressure", true));
        if mistakes.is_empty() {
            Ok(MemoryCheck { settings: self, machine: Machine::default() })
        } else {
            Err(mistakes)
        }
    }
}

/// Asks the kernel.
#[derive(Debug)]
pub struct MemoryCheck {
    settings: Memory,
    machine: Machine,
}

/// What there is, by the limit that leaves least.
#[derive(Clone, Copy, Debug)]
struct State {
    used: f64,
    available: u64,
    swap_used: f64,
}

#[async_trait::async_trait]
impl Check for MemoryCheck {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        let unknown = |error| Failure::unknown("the kernel does not tell of memory").because(error);
        let state = self.state().map_err(unknown)?;
        let settings = &self.settings;
        let mut findings = Findings::default();
        let available = human(state.available);
        findings.add(settings.max_used.above(state.used), |level| {
            format!("{:.1} % of the memory is in use, {available} available (limit {level} %)", state.used)
        });
        findings.add(settings.min_available.below(Size(state.available)), |level| {
            format!("{available} of memory is available (limit {level})")
        });
        findings.add(settings.max_swap_used.above(state.swap_used), |level| {
            format!("{:.1} % of the swap space is in use (limit {level} %)", state.swap_used)
        });
        pressure::judge(&self.machine, "memory", settings.scope, &settings.max_pressure, &mut findings)?;
        findings.answer()
    }
}

impl MemoryCheck {
    fn state(&self) -> std::io::Result<State> {
        let whole = cgroup::machine_memory(&self.machine)?;
        let groups = match self.settings.scope {
            Scope::Container => Groups::of(&self.machine, "memory"),
            Scope::Machine => Groups::default(),
        };
        let tightest = |whole: cgroup::Memory, limits: Vec<cgroup::Memory>| {
            // A limit that is higher than what there is limits nothing.
            let mut limits: Vec<_> = limits.into_iter().filter(|of| of.limit < whole.limit).collect();
            if limits.is_empty() {
                limits.push(whole);
            }
            limits
        };
        let memory = tightest(whole.memory, groups.memory());
        let swap = tightest(whole.swap, groups.swap());
        let worst =
            |of: &[cgroup::Memory]| of.iter().map(|of| percent(of.used, of.limit)).fold(0.0, f64::max);
        Ok(State {
            used: worst(&memory),
            available: memory.iter().map(|of| of.limit.saturating_sub(of.used)).min().unwrap_or(0),
            swap_used: worst(&swap),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::node::fixture::{Fixture, legacy, unified};
    use crate::status::Status;

    const MACHINE: &str =
        "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 700 kB\nSwapTotal: 100 kB\nSwapFree: 40 kB\n";

    fn check(json: &str, fixture: &Fixture) -> MemoryCheck {
        let settings: Memory = serde_json::from_str(json).unwrap();
        MemoryCheck { machine: fixture.machine(), ..settings.build().unwrap() }
    }

    async fn ask(check: &MemoryCheck) -> Option<(Status, String)> {
        let failure = check.run(Instant::now()).await.err()?;
        Some((failure.status(), failure.reason().to_owned()))
    }

    fn machine() -> Fixture {
        Fixture::new(&[("/proc/meminfo", MACHINE)])
    }

    #[tokio::test]
    async fn without_limits_the_machine_counts() {
        let fixture = machine();
        assert_eq!(ask(&check("{}", &fixture)).await, None);
        let told = ask(&check(r#"{"max_used": {"warn": 20, "fail": 30}}"#, &fixture)).await;
        let reason = "30.0 % of the memory is in use, 700.0 KiB available (limit 30 %)".to_owned();
        assert_eq!(told, Some((Status::Fail, reason)));
        let told = ask(&check(r#"{"min_available": "701KiB"}"#, &fixture)).await;
        assert_eq!(told, Some((Status::Warn, "700.0 KiB of memory is available (limit 701KiB)".to_owned())));
        let told = ask(&check(r#"{"max_swap_used": 60}"#, &fixture)).await;
        assert_eq!(told, Some((Status::Warn, "60.0 % of the swap space is in use (limit 60 %)".to_owned())));
    }

    #[tokio::test]
    async fn a_containers_memory_is_its_limit() {
        let fixture = machine();
        fixture.add(&unified("/"));
        fixture.write("/sys/fs/cgroup/memory.max", "102400");
        fixture.write("/sys/fs/cgroup/memory.current", "100000");
        fixture.write("/sys/fs/cgroup/memory.stat", "inactive_file 1000");
        let (status, reason) = ask(&check("{}", &fixture)).await.unwrap();
        assert_eq!(reason, "96.7 % of the memory is in use, 3.3 KiB available (limit 90 %)");
        assert_eq!(status, Status::Warn);
        assert_eq!(ask(&check(r#"{"scope": "machine"}"#, &fixture)).await, None);
        // Most of it is files that nobody has used lately.
        fixture.write("/sys/fs/cgroup/memory.stat", "inactive_file 90000");
        assert_eq!(ask(&check("{}", &fixture)).await, None);
        // A limit above what the machine has is none.
        fixture.write("/sys/fs/cgroup/memory.max", "1024001");
        fixture.write("/sys/fs/cgroup/memory.current", "1024000");
        assert_eq!(ask(&check("{}", &fixture)).await, None);
    }

    #[tokio::test]
    async fn version_1_limits_count_too() {
        let fixture = machine();
        fixture.add(&legacy());
        fixture.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "100000");
        fixture.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "95000");
        assert_eq!(ask(&check("{}", &fixture)).await.unwrap().0, Status::Warn);
    }

    #[tokio::test]
    async fn pressure_counts_where_it_is_asked_for_and_its_absence_is_told() {
        let fixture = machine();
        let check = check(r#"{"max_pressure": {"warn": 10, "fail": 50}}"#, &fixture);
        let none = (Status::Unknown, "this kernel tells no pressure".to_owned());
        assert_eq!(ask(&check).await, Some(none));
        fixture.write("/proc/pressure/memory", "some avg10=9.99 avg60=0 avg300=0 total=0\n");
        assert_eq!(ask(&check).await, None);
        fixture.write("/proc/pressure/memory", "some avg10=50.00 avg60=0 avg300=0 total=0\n");
        let reason = "something waited for memory in 50.0 % of the last 10 s (limit 50 %)".to_owned();
        assert_eq!(ask(&check).await, Some((Status::Fail, reason)));
    }

    #[tokio::test]
    async fn a_kernel_that_tells_nothing_is_unknown() {
        let fixture = Fixture::new(&[]);
        for text in ["", "MemTotal: x kB", "MemTotal: 5 kB\n"] {
            fixture.write("/proc/meminfo", text);
            assert_eq!(ask(&check("{}", &fixture)).await.unwrap().0, Status::Unknown, "{text}");
        }
    }

    #[tokio::test]
    async fn it_counts_as_free_counts() {
        let free = Command::new("free").arg("-b").output().unwrap();
        let text = String::from_utf8(free.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("Mem:")).unwrap();
        let available: u64 = line.split_whitespace().nth(6).unwrap().parse().unwrap();
        let total: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let whole = cgroup::machine_memory(&Machine::default()).unwrap().memory;
        assert_eq!(whole.limit, total);
        // Others use it meanwhile.
        let ours = whole.limit - whole.used;
        assert!(ours.abs_diff(available) < total / 5, "{ours} {available}");
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        let json = r#"{"max_used": -1, "min_available": {"warn": "1B", "fail": "2B"}, "max_swap_used": 200, "max_pressure": 101}"#;
        let settings: Memory = serde_json::from_str(json).unwrap();
        assert_eq!(settings.build().unwrap_err().len(), 4);
    }
}
