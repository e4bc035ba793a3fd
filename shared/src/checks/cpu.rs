//! Whether the processors keep up: their use between two looks, the load, the pressure, and how often the quota stops work.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::cgroup::{Groups, Quota};
use crate::node::limit::{Findings, Levels, Scope};
use crate::node::{Machine, percent, pressure};
use crate::settings::Span;

/// An earlier look that is older tells of a time that nobody asks about.
const TOO_OLD: Duration = Duration::from_mins(5);

/// Whether the processors keep up, by the quota of the container that this runs in, or on the machine where it has none.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// How much of the processor time may be in use, in percent, since the last run or over `sample`. A number warns, and
    /// `{ warn = 80, fail = 99 }` does both.
    #[serde(default = "eighty")]
    max_used: Levels<f64>,
    /// How long to look where no run of the last five minutes can be compared with; from `10ms` to `1m`, and shorter than
    /// the check's `timeout`.
    #[serde(default = "sample")]
    sample: Span,
    /// The load of the last minute for each processor of the machine, such as `1.5`.
    #[serde(default = "no_level")]
    max_load: Levels<f64>,
    /// The share of the last ten seconds, in percent, in which something waited for a processor (the kernel's pressure,
    /// `some`).
    #[serde(default = "no_level")]
    max_pressure: Levels<f64>,
    /// The share of the quota's periods, in percent, in which it was used up early and everything had to wait.
    #[serde(default = "no_level")]
    max_throttled: Levels<f64>,
    /// `container`: the quotas of this process's control groups, or the machine's processors where there is none.
    /// `machine`: the machine's.
    #[serde(default)]
    scope: Scope,
}

fn eighty() -> Levels<f64> {
    Levels::warn(80.0)
}

fn sample() -> Span {
    Span(Duration::from_millis(200))
}

fn no_level() -> Levels<f64> {
    Levels::NONE
}

impl Settings for Cpu {
    const KIND: &'static str = "cpu";
    const EXAMPLE: &'static str = "max_used = { warn = 80, fail = 99 }\nmax_load = 2";
    const CONTRACT: Contract = Contract::Local;
    type Check = CpuCheck;

    fn build(self) -> Result<CpuCheck, Vec<Mistake>> {
        let mut mistakes = self.max_used.percent_mistakes("max_used", true);
        if !(Duration::from_millis(10)..=Duration::from_mins(1)).contains(&self.sample.0) {
            mistakes.push(Mistake::of("sample", "it goes from 10ms to 1m"));
        }
        let positive = (0.0, f64::MAX);
        mistakes.extend(self.max_load.mistakes("max_load", true, positive, "a load is not below 0"));
        mistakes.extend(self.max_pressure.percent_mistakes("max_pressure", true));
        mistakes.extend(self.max_throttled.percent_mistakes("max_throttled", true));
        if mistakes.is_empty() {
            Ok(CpuCheck { settings: self, machine: Machine::default(), last: Mutex::new(None) })
        } else {
            Err(mistakes)
        }
    }
}

/// Asks the kernel, and keeps what it said last.
#[derive(Debug)]
pub struct CpuCheck {
    settings: Cpu,
    machine: Machine,
    last: Mutex<Option<Look>>,
}

/// What the counters say at one time.
#[derive(Clone, Debug, PartialEq)]
struct Look {
    at: Instant,
    /// This process's quotas, by their groups from the inside out.
    quotas: Vec<Quota>,
    machine: Ticks,
}

/// The machine's processor time since its start, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// What happened between two looks, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Use {
    used: f64,
    throttled: f64,
}

#[async_trait::async_trait]
impl Check for CpuCheck {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        let unknown = |error| Failure::unknown("the kernel does not tell of its processors").because(error);
        let settings = &self.settings;
        let mut findings = Findings::default();
        let done = self.since_the_last_look().await.map_err(unknown)?;
        findings.add(settings.max_used.above(done.used), |level| {
            format!("{:.1} % of the processor time is in use (limit {level} %)", done.used)
        });
        findings.add(settings.max_throttled.above(done.throttled), |level| {
            format!("the quota was used up in {:.1} % of its periods (limit {level} %)", done.throttled)
        });
        if !settings.max_load.is_none() {
            let load = self.load().map_err(unknown)?;
            findings.add(settings.max_load.above(load), |level| {
                format!("the load is {load:.2} for each processor (limit {level})")
            });
        }
        pressure::judge(&self.machine, "cpu", settings.scope, &settings.max_pressure, &mut findings)?;
        findings.answer()
    }
}

impl CpuCheck {
    async fn since_the_last_look(&self) -> io::Result<Use> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let usable = |look: &Look| (self.settings.sample.0..TOO_OLD).contains(&look.at.elapsed());
        let mut first = match last.filter(usable) {
            Some(look) => look,
            None => self.look_for_a_while().await?,
        };
        let mut second = self.look()?;
        if first.quotas.len() != second.quotas.len() {
            // The quotas are others now.
            first = self.look_for_a_while().await?;
            second = self.look()?;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(second.clone());
        Ok(between(&first, &second))
    }

    async fn look_for_a_while(&self) -> io::Result<Look> {
        let look = self.look()?;
        tokio::time::sleep(self.settings.sample.0).await;
        Ok(look)
    }

    fn look(&self) -> io::Result<Look> {
        let quotas = match self.settings.scope {
            Scope::Container => Groups::of(&self.machine, "cpu").quotas(&self.machine),
            Scope::Machine => Vec::new(),
        };
        let machine = ticks(&self.machine.read("/proc/stat")?);
        let machine = machine.ok_or_else(|| io::Error::other("no processors in /proc/stat"))?;
        Ok(Look { at: Instant::now(), quotas, machine })
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    fn load(&self) -> io::Result<f64> {
        let missing = || io::Error::other("no load in /proc/loadavg");
        let told = self.machine.read("/proc/loadavg")?;
        let load: f64 =
            told.split_whitespace().next().and_then(|word| word.parse().ok()).ok_or_else(missing)?;
        let is_one = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
        };
        let processors = self.machine.read("/proc/stat")?.lines().filter(is_one).count();
        Ok(load / processors.max(1) as f64)
    }
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two.
/// What the hypervisor took is in use: it is not there for anybody here.
fn ticks(stat: &str) -> Option<Ticks> {
    let numbers: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .map_while(|n| n.parse().ok())
        .collect();
    let all = numbers.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
    let idle = numbers.get(3)?.saturating_add(numbers.get(4).copied().unwrap_or(0));
    Some(Ticks { busy: all.saturating_sub(idle), all })
}

/// The quota that leaves least, or the machine where there is none.
#[expect(clippy::cast_precision_loss, reason = "a share, which nobody reads to its 15th digit")]
fn between(first: &Look, second: &Look) -> Use {
    let elapsed_us = second.at.duration_since(first.at).as_micros() as f64;
    let machine = Use {
        used: percent(
            second.machine.busy.saturating_sub(first.machine.busy),
            second.machine.all.saturating_sub(first.machine.all),
        ),
        throttled: 0.0,
    };
    let of = |(first, second): (&Quota, &Quota)| Use {
        used: second.used_us.saturating_sub(first.used_us) as f64 * 100.0
            / (elapsed_us * second.cores).max(1.0),
        throttled: percent(
            second.throttled.saturating_sub(first.throttled),
            second.periods.saturating_sub(first.periods),
        ),
    };
    let quotas = first.quotas.iter().zip(&second.quotas).map(of);
    let worst = |a: Use, b: Use| Use { used: a.used.max(b.used), throttled: a.throttled.max(b.throttled) };
    quotas.reduce(worst).unwrap_or(machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::fixture::{Fixture, unified};
    use crate::status::Status;

    const QUIET: &str = "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 50 0 50 400\ncpu1 50 0 50 400\nintr 1\n";

    fn check(json: &str, fixture: &Fixture) -> CpuCheck {
        let settings: Cpu = serde_json::from_str(json).unwrap();
        CpuCheck { machine: fixture.machine(), ..settings.build().unwrap() }
    }

    fn machine() -> Fixture {
        Fixture::new(&[("/proc/stat", QUIET), ("/proc/loadavg", "3.00 1.00 1.00 1/100 7\n")])
    }

    /// Looks, lets something happen and some seconds pass, and asks.
    async fn ask_after(check: &CpuCheck, happens: impl FnOnce()) -> Option<(Status, String)> {
        let mut look = check.look().unwrap();
        look.at -= Duration::from_secs(10);
        *check.last.lock().unwrap() = Some(look);
        happens();
        let failure = check.run(Instant::now()).await.err()?;
        Some((failure.status(), failure.reason().to_owned()))
    }

    #[tokio::test]
    async fn the_use_is_that_since_the_last_run() {
        let fixture = machine();
        let check = check(r#"{"max_used": {"warn": 70, "fail": 90}}"#, &fixture);
        assert_eq!(ask_after(&check, || {}).await, None);
        let busy = || fixture.write("/proc/stat", "cpu  190 10 100 820 5 0 0 0 90 0\n");
        let reason = "80.0 % of the processor time is in use (limit 70 %)".to_owned();
        assert_eq!(ask_after(&check, busy).await, Some((Status::Warn, reason)));
        // The next run looks at what came after.
        assert_eq!(ask_after(&check, || {}).await, None);
        let stolen = || fixture.write("/proc/stat", "cpu  190 10 100 820 5 0 0 100\n");
        assert_eq!(ask_after(&check, stolen).await.unwrap().0, Status::Fail);
    }

    #[tokio::test]
    async fn a_containers_processors_are_its_quota() {
        let fixture = machine();
        fixture.add(&unified("/pod/app"));
        let used = |pod: u64, app: u64| {
            let stat = |used| {
                format!("usage_usec {used}\nnr_periods {}\nnr_throttled {}\n", 100 + pod, 10 + pod / 4)
            };
            fixture.write("/sys/fs/cgroup/pod/cpu.stat", &stat(pod));
            fixture.write("/sys/fs/cgroup/pod/app/cpu.stat", &stat(app));
        };
        fixture.write("/sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
        fixture.write("/sys/fs/cgroup/pod/app/cpu.max", "max 100000\n");
        used(0, 0);
        let limited = check("{}", &fixture);
        // 4.9 of 5 seconds; the machine has been idle.
        let (status, reason) = ask_after(&limited, || used(4_900_000, 4_900_000)).await.unwrap();
        assert_eq!(status, Status::Warn);
        assert!(
            reason.starts_with("98.0 % of the processor time") || reason.starts_with("97.9 %"),
            "{reason}"
        );
        let whole = check(r#"{"scope": "machine"}"#, &fixture);
        assert_eq!(ask_after(&whole, || used(9_000_000, 0)).await, None);
        let throttled = check(r#"{"max_used": {}, "max_throttled": {"fail": 20}}"#, &fixture);
        let reason = "the quota was used up in 25.0 % of its periods (limit 20 %)".to_owned();
        assert_eq!(ask_after(&throttled, || used(9_000_400, 0)).await, Some((Status::Fail, reason)));
    }

    #[tokio::test]
    async fn load_and_pressure_count_where_they_are_asked_for() {
        let fixture = machine();
        fixture.write("/proc/pressure/cpu", "some avg10=12.00 avg60=0 avg300=0 total=0\n");
        let check = check(r#"{"max_load": 1.5, "max_pressure": 10}"#, &fixture);
        let (status, reason) = ask_after(&check, || {}).await.unwrap();
        let load = "the load is 1.50 for each processor (limit 1.5)";
        assert_eq!(
            reason,
            format!("{load}; something waited for cpu in 12.0 % of the last 10 s (limit 10 %)")
        );
        assert_eq!(status, Status::Warn);
    }

    #[tokio::test]
    async fn the_first_run_and_one_after_a_long_time_look_for_a_while() {
        let fixture = machine();
        let check = check(r#"{"sample": "20ms"}"#, &fixture);
        for last in [None, Instant::now().checked_sub(TOO_OLD * 2)] {
            if let Some(at) = last {
                check.last.lock().unwrap().as_mut().unwrap().at = at;
            }
            let start = Instant::now();
            check.run(start).await.unwrap();
            assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
        }
    }

    #[tokio::test]
    async fn this_machine_tells_and_a_busy_thread_is_in_use() {
        let settings: Cpu =
            serde_json::from_str(r#"{"max_used": {"fail": 0.1}, "scope": "machine"}"#).unwrap();
        let check = settings.build().unwrap();
        let running = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let still = std::sync::Arc::clone(&running);
        let busy = std::thread::spawn(move || {
            while still.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let told = check.run(Instant::now()).await;
        running.store(false, std::sync::atomic::Ordering::Relaxed);
        busy.join().unwrap();
        let told = told.unwrap_err();
        assert!(told.reason().contains("of the processor time is in use (limit 0.1 %)"), "{told}");
    }

    #[tokio::test]
    async fn a_kernel_that_tells_nothing_is_unknown() {
        let fixture = Fixture::new(&[]);
        for text in ["", "cpu ", "cpu  1 2 3", "intr 1"] {
            fixture.write("/proc/stat", text);
            let failure = check("{}", &fixture).run(Instant::now()).await.unwrap_err();
            assert_eq!(failure.status(), Status::Unknown, "{text}");
        }
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        let json =
            r#"{"max_used": 101, "sample": "2m", "max_load": -1, "max_pressure": 101, "max_throttled": -1}"#;
        let settings: Cpu = serde_json::from_str(json).unwrap();
        assert_eq!(settings.build().unwrap_err().len(), 5);
    }
}
