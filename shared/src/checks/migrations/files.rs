//! The files that migrations stand in, read with a limit to everything: number, size, and time.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::OFlag;

/// The most names of all folders together.
const MOST_NAMES: usize = 50_000;

/// The most bytes of one file.
const MOST_BYTES: u64 = 4 << 20;

/// Why files say nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Not there, or not to be read.
    Io(PathBuf, io::Error),
    /// Its meaning cannot be told without the tool itself.
    Unreadable(PathBuf),
    /// More than anybody has.
    TooMuch(PathBuf),
    /// The time is up.
    Late,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Unreadable(path) => {
                write!(f, "{}: what it means cannot be told without its tool", path.display())
            }
            Self::TooMuch(path) => write!(f, "{}: too large, or too many", path.display()),
            Self::Late => f.write_str("the time is up"),
        }
    }
}

impl std::error::Error for Trouble {}

/// What may still be read.
#[derive(Debug)]
pub(super) struct Files {
    names: usize,
    until: Instant,
}

impl Files {
    pub(super) fn new(until: Instant) -> Self {
        Self { names: 0, until }
    }

    /// The names in a folder. Those that are not UTF-8 are no migration's.
    pub(super) fn names(&mut self, folder: &Path) -> Result<BTreeSet<String>, Trouble> {
        let fails = |error| Trouble::Io(folder.to_owned(), error);
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(fails)? {
            self.names += 1;
            if self.names > MOST_NAMES {
                return Err(Trouble::TooMuch(folder.to_owned()));
            }
            self.in_time()?;
            names.extend(entry.map_err(fails)?.file_name().into_string());
        }
        Ok(names)
    }

    /// The text of a regular file.
    pub(super) fn text(&self, path: &Path) -> Result<String, Trouble> {
        self.in_time()?;
        let fails = |error| Trouble::Io(path.to_owned(), error);
        // A pipe of that name would wait for a writer.
        let file =
            File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(fails)?;
        if !file.metadata().map_err(fails)?.is_file() {
            return Err(fails(io::Error::other("it is not a regular file")));
        }
        let mut text = String::new();
        let read = file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(fails)?;
        if read as u64 > MOST_BYTES { Err(Trouble::TooMuch(path.to_owned())) } else { Ok(text) }
    }

    fn in_time(&self) -> Result<(), Trouble> {
        if Instant::now() < self.until { Ok(()) } else { Err(Trouble::Late) }
    }

    /// The folders that a pattern means, in which `*` stands for any part of a name, but not for the dot that it begins with.
    pub(super) fn folders(&mut self, pattern: &str) -> Result<Vec<PathBuf>, Trouble> {
        let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            if !part.contains('*') {
                for path in &mut found {
                    path.push(part);
                }
                continue;
            }
            let mut next = Vec::new();
            for path in found {
                let folder = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
                let names = if folder.is_dir() { self.names(folder)? } else { BTreeSet::new() };
                next.extend(
                    names.into_iter().filter(|name| is_meant(part, name)).map(|name| path.join(name)),
                );
            }
            found = next;
        }
        found.retain(|path| path.is_dir());
        Ok(found)
    }
}

/// Whether a name is one that a pattern means.
fn is_meant(pattern: &str, name: &str) -> bool {
    let (first, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
    let Some(mut left) =
        name.strip_prefix(first).filter(|_| !name.starts_with('.') || pattern.starts_with('.'))
    else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_star_stands_for_any_part_of_a_name() {
        for (pattern, name, meant) in [
            ("*", "shop", true),
            ("*", ".git", false),
            ("s*p", "shop", true),
            ("s*o*p", "shop", true),
            ("s*p", "shops", false),
            ("*a*a", "a", false),
        ] {
            assert_eq!(is_meant(pattern, name), meant, "{pattern} {name}");
        }
    }

    #[test]
    fn nothing_is_read_past_a_limit_or_from_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(Instant::now() + Duration::from_mins(1));
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert!(matches!(files.text(&large), Err(Trouble::TooMuch(_))));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(files.text(&pipe), Err(Trouble::Io(..))));
        assert_eq!(
            files.folders(&format!("{}/*/x", folder.path().display())).unwrap(),
            [""; 0].map(PathBuf::from)
        );
        assert!(matches!(Files::new(Instant::now()).names(folder.path()), Err(Trouble::Late)));
    }
}
