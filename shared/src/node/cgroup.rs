//! The control groups that this process is in, from its own up to the outermost that can be seen from here.
//!
//! Version 2 first; where a controller is still one of version 1, that one.

use std::io;
use std::path::{Path, PathBuf};

use super::{Machine, field, number, read};

/// Where version 1 says "no limit": near the largest number, less a page or more.
const NO_LIMIT: u64 = 1 << 60;

/// Which interface a group's files have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Version {
    #[default]
    Unified,
    Legacy,
}

/// The folders of one controller's groups, this process's own first.
#[derive(Debug, Default)]
pub struct Groups {
    version: Version,
    folders: Vec<PathBuf>,
}

/// A limit of memory, and what counts towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub limit: u64,
    /// Bytes, without what the kernel drops first when it needs room.
    pub used: u64,
}

/// A limit of processor time, and what was used of it so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Processors' worth of time.
    pub cores: f64,
    /// Time used since the group was made.
    pub used_us: u64,
    /// Periods in which the group ran, since it was made.
    pub periods: u64,
    /// Those of them in which it had to stop because its quota was used up.
    pub throttled: u64,
}

impl Groups {
    /// The groups that this controller (`memory`, `cpu`) has this process in; none where there are no such groups.
    pub fn of(machine: &Machine, controller: &str) -> Self {
        Self::legacy(machine, controller).or_else(|| Self::unified(machine)).unwrap_or_default()
    }

    /// This process's own group of version 2, which tells of pressure whatever the controllers are.
    pub fn own(machine: &Machine) -> Option<PathBuf> {
        Self::unified(machine)?.folders.into_iter().next()
    }

    fn unified(machine: &Machine) -> Option<Self> {
        let path = own_path(machine, str::is_empty)?;
        let mount = mount(machine, |kind, _| kind == "cgroup2")?;
        Some(Self { version: Version::Unified, folders: mount.folders(machine, &path) })
    }

    fn legacy(machine: &Machine, controller: &str) -> Option<Self> {
        let path = own_path(machine, |controllers| controllers.split(',').any(|name| name == controller))?;
        let mount = mount(machine, |kind, options| {
            kind == "cgroup" && options.split(',').any(|name| name == controller)
        })?;
        Some(Self { version: Version::Legacy, folders: mount.folders(machine, &path) })
    }

    /// Every limit of memory on the way up.
    pub fn memory(&self) -> Vec<Memory> {
        let of = match self.version {
            Version::Unified => {
                |folder: &Path| memory(folder, "memory.max", "memory.current", "inactive_file")
            }
            Version::Legacy => |folder: &Path| {
                memory(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            },
        };
        self.folders.iter().filter_map(|folder| of(folder)).collect()
    }

    /// Every limit of swap on the way up, of those that allow any. Version 1 counts memory and swap together, and is
    /// not asked.
    pub fn swap(&self) -> Vec<Memory> {
        let of = |folder: &PathBuf| {
            let limit = limit(&folder.join("memory.swap.max"))?;
            Some(Memory { limit, used: number(&folder.join("memory.swap.current"))? })
        };
        self.folders.iter().filter_map(of).filter(|swap| swap.limit > 0).collect()
    }

    /// Every limit of processor time on the way up, this process's own group first.
    pub fn quotas(&self, machine: &Machine) -> Vec<Quota> {
        match self.version {
            Version::Unified => self.folders.iter().filter_map(|folder| quota(folder)).collect(),
            Version::Legacy => {
                let accounts =
                    Self::legacy(machine, "cpuacct").map(|groups| groups.folders).unwrap_or_default();
                self.folders
                    .iter()
                    .zip(&accounts)
                    .filter_map(|(folder, account)| legacy_quota(folder, account))
                    .collect()
            }
        }
    }
}

fn memory(folder: &Path, max: &str, current: &str, droppable: &str) -> Option<Memory> {
    let limit = limit(&folder.join(max))?;
    let current: u64 = number(&folder.join(current))?;
    let stat = read(&folder.join("memory.stat")).unwrap_or_default();
    Some(Memory { limit, used: current.saturating_sub(field(&stat, droppable).unwrap_or(0)) })
}

/// A number that limits something; `max` does not.
fn limit(file: &Path) -> Option<u64> {
    number(file).filter(|limit| *limit < NO_LIMIT)
}

fn quota(folder: &Path) -> Option<Quota> {
    let max = read(&folder.join("cpu.max")).ok()?;
    let mut words = max.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(quota)), Some(Ok(period))) = (words.next(), words.next()) else { return None };
    let stat = read(&folder.join("cpu.stat")).ok()?;
    Some(Quota {
        cores: cores(quota, period)?,
        used_us: field(&stat, "usage_usec")?,
        periods: field(&stat, "nr_periods").unwrap_or(0),
        throttled: field(&stat, "nr_throttled").unwrap_or(0),
    })
}

fn legacy_quota(folder: &Path, account: &Path) -> Option<Quota> {
    let stat = read(&folder.join("cpu.stat")).unwrap_or_default();
    Some(Quota {
        cores: cores(number(&folder.join("cpu.cfs_quota_us"))?, number(&folder.join("cpu.cfs_period_us"))?)?,
        used_us: number::<u64>(&account.join("cpuacct.usage"))? / 1_000,
        periods: field(&stat, "nr_periods").unwrap_or(0),
        throttled: field(&stat, "nr_throttled").unwrap_or(0),
    })
}

fn cores(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// This process's group, among those of the controllers that are wanted.
fn own_path(machine: &Machine, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let groups = machine.read("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        wanted(controllers).then(|| path.to_owned())
    })
}

/// A file system of groups: which group is at its top, and where that is.
struct Mount {
    top: String,
    at: PathBuf,
}

fn mount(machine: &Machine, wanted: impl Fn(&str, &str) -> bool) -> Option<Mount> {
    let mounts = machine.read("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let (kind, _, options) = (what.next()?, what.next()?, what.next()?);
        let mut place = place.split(' ').skip(3);
        let (top, at) = (place.next()?, place.next()?);
        wanted(kind, options).then(|| Mount { top: unescaped(top), at: unescaped(at).into() })
    })
}

impl Mount {
    /// The folders of a group and of all above it, as far as they can be seen. A group outside of what is mounted here is
    /// seen as its top.
    fn folders(&self, machine: &Machine, group: &str) -> Vec<PathBuf> {
        let below = Path::new(group).strip_prefix(&self.top).unwrap_or(Path::new(""));
        let inside = !below.components().any(|part| part == std::path::Component::ParentDir);
        let below = if inside { below } else { Path::new("") };
        let ups = below.ancestors().map(|part| machine.path(self.at.join(part)));
        ups.filter(|folder| folder.is_dir()).collect()
    }
}

/// A path of `mountinfo`, where blanks and the like are octal numbers.
pub fn unescaped(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            _ => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

/// The machine's own memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// All there is.
    pub memory: Memory,
    /// Of the swap space.
    pub swap: Memory,
}

/// What the machine as a whole has and uses. What the kernel calls available is not used.
pub fn machine_memory(machine: &Machine) -> io::Result<Whole> {
    let text = machine.read("/proc/meminfo")?;
    let bytes = |name: &str| {
        let kib =
            field(&text, name).ok_or_else(|| io::Error::other(format!("no {name} in /proc/meminfo")))?;
        Ok::<_, io::Error>(kib.saturating_mul(1_024))
    };
    let of = |total: u64, free: u64| Memory { limit: total, used: total.saturating_sub(free) };
    Ok(Whole {
        memory: of(bytes("MemTotal:")?, bytes("MemAvailable:")?),
        swap: of(bytes("SwapTotal:")?, bytes("SwapFree:")?),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, legacy, unified};
    use super::*;

    fn fixture(base: &[(&'static str, String)], files: &[(&str, &str)]) -> Fixture {
        let fixture = Fixture::new(files);
        fixture.add(base);
        fixture
    }

    #[test]
    fn every_limit_up_the_tree_counts_and_max_is_none() {
        let files = [
            ("/sys/fs/cgroup/pod/memory.max", "1000\n"),
            ("/sys/fs/cgroup/pod/memory.current", "900\n"),
            ("/sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 300\n"),
            ("/sys/fs/cgroup/pod/app/memory.max", "max\n"),
            ("/sys/fs/cgroup/pod/app/memory.current", "800\n"),
            ("/sys/fs/cgroup/pod/app/worker/memory.max", "2000\n"),
            ("/sys/fs/cgroup/pod/app/worker/memory.current", "500\n"),
        ];
        let fixture = fixture(&unified("/pod/app/worker"), &files);
        let limits = Groups::of(&fixture.machine(), "memory").memory();
        assert_eq!(limits, [Memory { limit: 2000, used: 500 }, Memory { limit: 1000, used: 600 }]);
    }

    #[test]
    fn a_containers_own_view_begins_at_its_own_group() {
        let files = [("/sys/fs/cgroup/memory.max", "4096"), ("/sys/fs/cgroup/memory.current", "1")];
        for path in ["/", "/../../outside"] {
            let fixture = fixture(&unified(path), &files);
            assert_eq!(Groups::of(&fixture.machine(), "memory").memory().len(), 1, "{path}");
        }
    }

    #[test]
    fn version_1_is_read_below_what_is_mounted() {
        let files = [
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "900"),
            ("/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 1"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "7000000"),
        ];
        let fixture = fixture(&legacy(), &files);
        let machine = fixture.machine();
        assert_eq!(Groups::of(&machine, "memory").memory(), [Memory { limit: 1000, used: 800 }]);
        let quota = Quota { cores: 1.5, used_us: 7_000, periods: 10, throttled: 4 };
        assert_eq!(Groups::of(&machine, "cpu").quotas(&machine), [quota]);
        fixture.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
        fixture.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
        assert_eq!(Groups::of(&machine, "memory").memory(), []);
        assert_eq!(Groups::of(&machine, "cpu").quotas(&machine), []);
    }

    #[test]
    fn garbage_is_no_limit() {
        for text in ["", "max", "-1", "x", "99999999999999999999999", "1 2"] {
            let files = [("/sys/fs/cgroup/memory.max", text), ("/sys/fs/cgroup/memory.current", "1")];
            let fixture = fixture(&unified("/"), &files);
            assert_eq!(Groups::of(&fixture.machine(), "memory").memory(), [], "{text:?}");
        }
        let empty = Fixture::new(&[]);
        assert_eq!(Groups::of(&empty.machine(), "memory").memory(), []);
    }

    #[test]
    fn blanks_in_paths_are_understood() {
        assert_eq!(unescaped(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescaped(r"/a\9z\"), r"/a\9z\");
    }
}
