//! Whether a file system has room, in bytes and in inodes, and can be written to.
//!
//! It is asked, never written to: whether a write succeeds is what the kind `storage` tells.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::cgroup::unescaped;
use crate::node::limit::{Findings, Levels, Scope};
use crate::node::solo::{Solo, Unanswered};
use crate::node::{Machine, human, percent, pressure};
use crate::settings::Size;

/// Whether a file system has room and can be written to. One that does not answer is told at the deadline.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// A path on the file system.
    #[serde(default = "root")]
    path: PathBuf,
    /// How full it may be, in percent, as `df` tells it: of what others than root can have. A number warns, and
    /// `{ warn = 80, fail = 95 }` does both; full is a failure unless told otherwise.
    #[serde(default = "nearly_full")]
    max_used: Levels<f64>,
    /// What must be free for others than root, such as `"2GiB"` or `{ warn = "5GiB", fail = "500MiB" }`.
    #[serde(default = "nothing")]
    min_free: Levels<Size>,
    /// How many of its inodes may be in use, in percent; file systems without a fixed number of them have room.
    #[serde(default = "nearly_full")]
    max_inodes_used: Levels<f64>,
    /// The share of the last ten seconds, in percent, in which something waited for a disk, whichever (the kernel's pressure,
    /// `some`).
    #[serde(default = "no_level")]
    max_pressure: Levels<f64>,
    /// Whose `max_pressure` counts: that of this process's own control group, or with `machine` the machine's.
    #[serde(default)]
    scope: Scope,
    /// Whether it may be mounted for reading only; else that is a failure.
    #[serde(default)]
    read_only: bool,
    /// Whether something must be mounted at exactly this path: a folder where a volume is missing is a failure.
    #[serde(default)]
    mounted: bool,
}

fn root() -> PathBuf {
    "/".into()
}

fn nearly_full() -> Levels<f64> {
    Levels { warn: Some(90.0), fail: Some(100.0) }
}

fn nothing() -> Levels<Size> {
    Levels::NONE
}

fn no_level() -> Levels<f64> {
    Levels::NONE
}

impl Settings for Disk {
    const KIND: &'static str = "disk";
    const EXAMPLE: &'static str = "path = \"/\"\nmax_used = { warn = 90, fail = 98 }";
    const CONTRACT: Contract = Contract::Local;
    type Check = DiskCheck;

    fn build(self) -> Result<DiskCheck, Vec<Mistake>> {
        let mut mistakes = self.max_used.percent_mistakes("max_used", true);
        mistakes.extend(self.max_inodes_used.percent_mistakes("max_inodes_used", true));
        mistakes.extend(self.max_pressure.percent_mistakes("max_pressure", true));
        let any = (Size(0), Size(u64::MAX));
        mistakes.extend(self.min_free.mistakes("min_free", false, any, ""));
        if !self.path.is_absolute() {
            mistakes.push(Mistake::of("path", "the path is not absolute"));
        }
        if mistakes.is_empty() {
            Ok(DiskCheck { settings: self, machine: Machine::default(), solo: Solo::default() })
        } else {
            Err(mistakes)
        }
    }
}

/// Asks a file system.
#[derive(Debug)]
pub struct DiskCheck {
    settings: Disk,
    machine: Machine,
    solo: Solo,
}

#[async_trait::async_trait]
impl Check for DiskCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let path = self.settings.path.clone();
        let mounted = self.settings.mounted;
        let question = move || -> io::Result<(Statvfs, bool)> {
            Ok((statvfs(&path)?, !mounted || is_mounted(&Machine::default(), &path)?))
        };
        let shown = self.settings.path.display();
        match self.solo.ask(deadline, question).await {
            Ok(Ok((_, false))) => Err(Failure::failed(format!("nothing is mounted at {shown}"))),
            Ok(Ok((told, true))) => self.settings.judge(&Room::of(&told), &self.machine),
            Ok(Err(error)) => Err(Failure::failed(format!("{shown} cannot be looked at")).because(error)),
            Err(Unanswered::Late) => Err(Failure::failed(format!("{shown} does not answer"))),
            Err(Unanswered::Still) => {
                Err(Failure::failed(format!("{shown} has not answered an earlier question yet")))
            }
            Err(Unanswered::Broken(error)) => {
                Err(Failure::unknown(format!("{shown} could not be asked")).because(error))
            }
        }
    }
}

fn is_mounted(machine: &Machine, path: &Path) -> io::Result<bool> {
    let path = path.canonicalize()?;
    let mounts = machine.read("/proc/thread-self/mountinfo")?;
    Ok(mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| Path::new(&unescaped(at)) == path))
}

/// What a file system has, as those who are not root see it.
#[derive(Clone, Copy, Debug)]
struct Room {
    used: u64,
    free: u64,
    inodes_used: u64,
    inodes_free: u64,
    read_only: bool,
}

impl Room {
    /// By the rules of `df`: what is kept for root is neither used nor free.
    fn of(told: &Statvfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(told.fragment_size());
        Self {
            used: bytes(told.blocks().saturating_sub(told.blocks_free())),
            free: bytes(told.blocks_available()),
            inodes_used: told.files().saturating_sub(told.files_free()),
            inodes_free: told.files_available(),
            read_only: told.flags().contains(FsFlags::ST_RDONLY),
        }
    }

    fn used_percent(&self) -> f64 {
        percent(self.used, self.used.saturating_add(self.free))
    }

    fn inodes_percent(&self) -> f64 {
        percent(self.inodes_used, self.inodes_used.saturating_add(self.inodes_free))
    }
}

impl Disk {
    fn judge(&self, room: &Room, machine: &Machine) -> Result<(), Failure> {
        let path = self.path.display();
        let (used, inodes, free) = (room.used_percent(), room.inodes_percent(), room.free);
        if room.read_only && !self.read_only {
            return Err(Failure::failed(format!("{path} is mounted for reading only")));
        }
        let mut findings = Findings::default();
        let is_free = human(free);
        findings.add(self.max_used.above(used), |level| {
            format!("{path} is {used:.1} % full, {is_free} free (limit {level} %)")
        });
        findings.add(self.min_free.below(Size(free)), |level| {
            format!("{path} has {is_free} free (limit {level})")
        });
        findings.add(self.max_inodes_used.above(inodes), |level| {
            format!("{inodes:.1} % of the inodes of {path} are in use (limit {level} %)")
        });
        pressure::judge(machine, "io", self.scope, &self.max_pressure, &mut findings)?;
        findings.answer()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::node::fixture::{Fixture, unified};
    use crate::status::Status;

    fn settings(toml: &str) -> Disk {
        serde_json::from_str(toml).unwrap()
    }

    const ROOM: Room = Room { used: 900, free: 100, inodes_used: 5, inodes_free: 95, read_only: false };

    #[track_caller]
    fn judged(json: &str, room: &Room) -> Option<(Status, String)> {
        judged_on(&Fixture::new(&[]), json, room)
    }

    fn judged_on(fixture: &Fixture, json: &str, room: &Room) -> Option<(Status, String)> {
        let failure = settings(json).judge(room, &fixture.machine()).err();
        failure.map(|failure| (failure.status(), failure.reason().to_owned()))
    }

    #[test]
    fn nearly_full_warns_and_full_fails() {
        let told = judged("{}", &ROOM);
        assert_eq!(told, Some((Status::Warn, "/ is 90.0 % full, 100 B free (limit 90 %)".to_owned())));
        assert_eq!(judged("{}", &Room { free: 101, ..ROOM }), None);
        let (status, _) = judged("{}", &Room { free: 0, ..ROOM }).unwrap();
        assert_eq!(status, Status::Fail);
        let (status, reason) = judged("{}", &Room { free: 9_000, inodes_free: 0, ..ROOM }).unwrap();
        assert_eq!(
            (status, reason.as_str()),
            (Status::Fail, "100.0 % of the inodes of / are in use (limit 100 %)")
        );
    }

    #[test]
    fn what_is_free_is_a_limit_of_its_own() {
        let json = r#"{"max_used": {}, "min_free": {"warn": "1kB", "fail": "100B"}}"#;
        let (status, reason) = judged(json, &ROOM).unwrap();
        assert_eq!((status, reason.as_str()), (Status::Warn, "/ has 100 B free (limit 1kB)"));
        assert_eq!(judged(json, &Room { free: 99, ..ROOM }).unwrap().0, Status::Fail);
        assert_eq!(judged(json, &Room { free: 1_000, ..ROOM }), None);
    }

    #[test]
    fn reading_only_fails_unless_it_is_meant() {
        let room = Room { used: 0, read_only: true, ..ROOM };
        let told = judged("{}", &room);
        assert_eq!(told, Some((Status::Fail, "/ is mounted for reading only".to_owned())));
        assert_eq!(judged(r#"{"read_only": true}"#, &room), None);
    }

    #[test]
    fn pressure_counts_where_it_is_asked_for_and_its_absence_is_told() {
        let fixture = Fixture::new(&[]);
        let json = r#"{"max_used": {}, "max_pressure": {"warn": 10, "fail": 50}}"#;
        let none = (Status::Unknown, "this kernel tells no pressure".to_owned());
        assert_eq!(judged_on(&fixture, json, &ROOM), Some(none));
        fixture.write("/proc/pressure/io", "some avg10=9.99 avg60=0 avg300=0 total=0\n");
        assert_eq!(judged_on(&fixture, json, &ROOM), None);
        fixture.add(&unified("/app"));
        fixture.write("/sys/fs/cgroup/app/io.pressure", "some avg10=50.00 avg60=0 avg300=0 total=0\n");
        let reason = "something waited for io in 50.0 % of the last 10 s (limit 50 %)".to_owned();
        assert_eq!(judged_on(&fixture, json, &ROOM), Some((Status::Fail, reason)));
        let whole = r#"{"max_used": {}, "max_pressure": 10, "scope": "machine"}"#;
        assert_eq!(judged_on(&fixture, whole, &ROOM), None);
    }

    #[test]
    fn a_file_system_without_inodes_or_size_has_room() {
        let room = Room { used: 0, free: 0, inodes_used: 0, inodes_free: 0, read_only: false };
        assert_eq!(judged("{}", &room), None);
    }

    #[test]
    fn it_counts_as_df_counts() {
        let df = Command::new("df").args(["--output=used,avail,iused,iavail", "-B1", "/"]).output().unwrap();
        let text = String::from_utf8(df.stdout).unwrap();
        let numbers: Vec<u64> =
            text.lines().nth(1).unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
        let room = Room::of(&statvfs("/").unwrap());
        // Others write to it meanwhile.
        let near = |a: u64, b: u64| a.abs_diff(b) <= (1 << 30).min(a.max(b) / 10 + 4_096);
        assert!(near(room.used, numbers[0]) && near(room.free, numbers[1]), "{room:?} {numbers:?}");
        assert!(
            near(room.inodes_used, numbers[2]) && near(room.inodes_free, numbers[3]),
            "{room:?} {numbers:?}"
        );
    }

    async fn ask(check: &DiskCheck) -> Result<(), String> {
        check.run(Instant::now() + Duration::from_secs(20)).await.map_err(|failure| failure.to_string())
    }

    #[tokio::test]
    async fn it_asks_a_real_one() {
        let lax = r#"{"path": "/proc", "max_used": {}, "mounted": true}"#;
        assert_eq!(ask(&settings(lax).build().unwrap()).await, Ok(()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        let json =
            serde_json::json!({ "path": path, "max_used": {}, "max_inodes_used": {}, "mounted": true });
        let check = serde_json::from_value::<Disk>(json).unwrap().build().unwrap();
        assert_eq!(ask(&check).await, Err(format!("{} cannot be looked at", path.display())));
        std::fs::create_dir(&path).unwrap();
        assert_eq!(ask(&check).await, Err(format!("nothing is mounted at {}", path.display())));
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        let json = r#"{"path": "data", "max_used": 101, "max_inodes_used": {"warn": 9, "fail": 8}, "min_free": {"warn": "1B", "fail": "2B"}, "max_pressure": 101}"#;
        let keys: Vec<_> =
            settings(json).build().unwrap_err().into_iter().filter_map(|mistake| mistake.key).collect();
        assert_eq!(keys, ["max_used", "max_inodes_used", "max_pressure", "min_free", "path"]);
    }
}
