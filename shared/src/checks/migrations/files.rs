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

/// The most bytes of all files together.
const MOST_TOGETHER: u64 = 256 << 20;

/// Why files say nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Not there, or not to be read.
    Io(PathBuf, io::Error),
    /// There are none.
    Nothing(PathBuf),
    /// Its meaning cannot be told without the tool itself.
    Unreadable(PathBuf),
    /// More than anybody has.
    TooMuch(PathBuf),
    /// What follows what makes no sense.
    Broken(String),
    /// The time is up.
    Late,
}

impl Trouble {
    /// The public reason.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Nothing(_) => "no migration files are found",
            Self::Unreadable(_) => "a migration file cannot be understood",
            Self::Broken(_) => "the migration files do not fit together",
            Self::Io(..) | Self::TooMuch(_) | Self::Late => "the migration files cannot be read",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Nothing(path) => write!(f, "{}: nothing is there", path.display()),
            Self::Unreadable(path) => {
                write!(f, "{}: what it means cannot be told without its tool", path.display())
            }
            Self::TooMuch(path) => write!(f, "{}: too large, or too many", path.display()),
            Self::Broken(what) => f.write_str(what),
            Self::Late => f.write_str("the time is up"),
        }
    }
}

impl std::error::Error for Trouble {}

/// What may still be read.
#[derive(Debug)]
pub(super) struct Files {
    names: usize,
    bytes: u64,
    until: Instant,
}

impl Files {
    pub(super) fn new(until: Instant) -> Self {
        Self { names: 0, bytes: 0, until }
    }

    /// The names in a folder.
    pub(super) fn names(&mut self, folder: &Path) -> Result<BTreeSet<String>, Trouble> {
        let fails = |error| Trouble::Io(folder.to_owned(), error);
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(fails)? {
            self.in_time()?;
            self.names += 1;
            if self.names > MOST_NAMES {
                return Err(Trouble::TooMuch(folder.to_owned()));
            }
            let name = entry.map_err(fails)?.file_name();
            names.insert(name.into_string().map_err(|name| Trouble::Unreadable(folder.join(name)))?);
        }
        Ok(names)
    }

    /// The text of a regular file.
    pub(super) fn text(&mut self, path: &Path) -> Result<String, Trouble> {
        String::from_utf8(self.bytes(path)?)
            .map_err(|_| Trouble::Io(path.to_owned(), io::Error::other("it is not UTF-8")))
    }

    /// What is in a regular file.
    pub(super) fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, Trouble> {
        self.in_time()?;
        let fails = |error| Trouble::Io(path.to_owned(), error);
        // A pipe of that name would wait for a writer.
        let file =
            File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(fails)?;
        if !file.metadata().map_err(fails)?.is_file() {
            return Err(fails(io::Error::other("it is not a regular file")));
        }
        let mut bytes = Vec::new();
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(fails)? as u64;
        self.bytes += read;
        if read > MOST_BYTES || self.bytes > MOST_TOGETHER {
            return Err(Trouble::TooMuch(path.to_owned()));
        }
        Ok(bytes)
    }

    /// Whether a folder is there. What cannot be looked at may be one.
    pub(super) fn is_folder(&self, path: &Path) -> Result<bool, Trouble> {
        Ok(self.look(path)?.is_some_and(|found| found.is_dir()))
    }

    /// The same of a regular file.
    pub(super) fn is_file(&self, path: &Path) -> Result<bool, Trouble> {
        Ok(self.look(path)?.is_some_and(|found| found.is_file()))
    }

    fn look(&self, path: &Path) -> Result<Option<fs::Metadata>, Trouble> {
        self.in_time()?;
        match fs::metadata(path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(Trouble::Io(path.to_owned(), error)),
        }
    }

    fn in_time(&self) -> Result<(), Trouble> {
        if Instant::now() < self.until { Ok(()) } else { Err(Trouble::Late) }
    }

    /// The folders that a pattern means, of which there must be one. In it, `*` stands for any part of a name, but not for the dot
    /// that a name begins with.
    pub(super) fn folders(&mut self, pattern: &str) -> Result<Vec<PathBuf>, Trouble> {
        let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "." })];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for path in found {
                if !part.contains('*') {
                    next.push(path.join(part));
                } else if self.is_folder(&path)? {
                    let names = self.names(&path)?;
                    next.extend(names.iter().filter(|name| is_meant(part, name)).map(|name| path.join(name)));
                }
            }
            found = next;
        }
        let mut folders = Vec::new();
        for path in found {
            if self.is_folder(&path)? {
                folders.push(path);
            }
        }
        if folders.is_empty() { Err(Trouble::Nothing(pattern.into())) } else { Ok(folders) }
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
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn files() -> Files {
        Files::new(Instant::now() + Duration::from_mins(1))
    }

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
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert!(matches!(files().bytes(&large), Err(Trouble::TooMuch(_))));
        let (mut many, most) = (files(), folder.path().join("most"));
        File::create(&most).unwrap().set_len(MOST_BYTES).unwrap();
        let read = (0..=MOST_TOGETHER / MOST_BYTES).flat_map(|_| many.bytes(&most)).count();
        assert_eq!(read as u64, MOST_TOGETHER / MOST_BYTES);
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(files().text(&pipe), Err(Trouble::Io(..))));
        let latin = folder.path().join("latin");
        fs::write(&latin, b"caf\xe9").unwrap();
        assert!(matches!(files().text(&latin), Err(Trouble::Io(..))));
        assert!(matches!(Files::new(Instant::now()).names(folder.path()), Err(Trouble::Late)));
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_and_so_is_one_that_cannot_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let pattern = |rest: &str| format!("{}/{rest}", folder.path().display());
        assert!(matches!(files().folders(&pattern("*/x")), Err(Trouble::Nothing(_))));
        fs::create_dir_all(folder.path().join("a/x")).unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        assert_eq!(files().folders(&pattern("*/x")).unwrap(), [folder.path().join("a/x")]);
        // To root nothing is closed, but a circle of links cannot be looked at by anybody.
        symlink("x", folder.path().join("b/x")).unwrap();
        assert!(matches!(files().folders(&pattern("*/x")), Err(Trouble::Io(..))));
        fs::write(folder.path().join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
        assert!(matches!(files().folders(&pattern("*/x")), Err(Trouble::Unreadable(_))));
    }
}
