//! What this machine, or the container on it, tells of its own resources: `/proc`, `/sys` and the control groups.
//!
//! Which of it is too much is the concern of the kinds that ask: [`crate::checks::memory`] and its neighbours.

pub mod cgroup;
#[cfg(feature = "run")]
pub mod limit;
#[cfg(feature = "run")]
pub mod pressure;
pub mod solo;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// No file that is read here is as large as this, except by mistake.
const TOO_LARGE: u64 = 1 << 20;

/// Where `/proc` and `/sys` are.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl Machine {
    /// One whose files lie in a folder, for tests.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a file lies that has this absolute path on the machine.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        read(&self.path(path))
    }
}

/// A file's text, where it is not too much.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TOO_LARGE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TOO_LARGE { Err(io::Error::other("too large")) } else { Ok(text) }
}

/// A file that holds one number.
pub fn number<N: std::str::FromStr>(path: &Path) -> Option<N> {
    read(path).ok()?.trim().parse().ok()
}

/// The number that follows a word, in a file of one pair a line: `inactive_file 4096` or `MemTotal:  4096 kB`.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let mut pairs = text.lines().map(str::split_whitespace);
    let mut pair = pairs.find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    pair.next()?.parse().ok()
}

/// Bytes as people say them: `812 B`, `1.5 GiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let mut amount = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while amount >= 1_000.0 && unit + 1 < UNITS.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// How much of `whole` a part is, in percent.
#[expect(clippy::cast_precision_loss, reason = "a share, which nobody reads to its 15th digit")]
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A machine as a test wants it.

    use std::fs;

    use super::Machine;

    /// Files of a machine, by their paths.
    #[derive(Debug)]
    pub struct Fixture(tempfile::TempDir);

    impl Fixture {
        pub fn new(files: &[(&str, &str)]) -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                fixture.write(path, text);
            }
            fixture
        }

        pub fn write(&self, path: &str, text: &str) {
            let path = self.machine().path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        pub fn add(&self, files: &[(&str, String)]) {
            for (path, text) in files {
                self.write(path, text);
            }
        }

        pub fn machine(&self) -> Machine {
            Machine::at(self.0.path())
        }
    }

    /// Control groups of version 2, with this process in `path`.
    pub fn unified(path: &str) -> Vec<(&'static str, String)> {
        let mount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        vec![("/proc/self/cgroup", format!("0::{path}\n")), ("/proc/self/mountinfo", mount.to_owned())]
    }

    /// Control groups of version 1 as Docker mounts them: the host's path outside, its folder alone inside.
    pub fn legacy() -> Vec<(&'static str, String)> {
        let line = |name: &str| {
            format!("40 31 0:31 /docker/abc /sys/fs/cgroup/{name} ro - cgroup cgroup rw,{name}\n")
        };
        let mounts = ["memory", "cpu,cpuacct"].map(line).concat();
        let groups = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/system.slice\n";
        vec![("/proc/self/cgroup", groups.to_owned()), ("/proc/self/mountinfo", mounts)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_people_say_them() {
        let shown = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (104_857_600, "100.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
        ];
        for (bytes, text) in shown {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_word() {
        let text = "total_inactive_file 7\ninactive_file 4096\nMemTotal:       24684 kB\nempty\n";
        assert_eq!(field(text, "inactive_file"), Some(4_096));
        assert_eq!(field(text, "MemTotal:"), Some(24_684));
        assert_eq!((field(text, "empty"), field(text, "file")), (None, None));
    }
}
