//! What a configuration takes from outside of its file: environment variables and secret files.
//!
//! `${NAME}` and `${NAME:-default}` stand for a variable in any text, `$${` for the two characters `${` themselves; all other
//! `$` are as they are.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc;

use super::problem::Code;

/// The most that a secret file may hold.
const LARGEST_SECRET: u64 = 64 * 1024;

/// Where variables and files are looked for.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The value of an environment variable: nothing where it is not set, an error where it is not text.
    pub variable: &'a dyn Fn(&str) -> Option<Result<String, ()>>,
    /// The folder of the configuration file, from which paths of secret files are meant.
    pub folder: &'a Path,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// This process's own environment.
pub fn variable(name: &str) -> Option<Result<String, ()>> {
    std::env::var_os(name).map(|value| value.into_string().map_err(|_| ()))
}

/// Whether a text holds a placeholder, or what looks like one.
pub fn has_placeholder(text: &str) -> bool {
    text.contains("${")
}

impl Surroundings<'_> {
    /// The text with what its placeholders stand for; else every mistake in them.
    pub fn fill(&self, text: &str) -> Result<String, Vec<(Code, String)>> {
        let mut filled = String::new();
        let mut wrong = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, tail) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = tail;
                continue;
            }
            filled.push_str(before);
            let Some((inside, tail)) = tail.split_once('}') else {
                wrong.push((
                    Code::BadPlaceholder,
                    "a `${` is not closed; write `$${` for the characters themselves".to_owned(),
                ));
                break;
            };
            match self.value(inside) {
                Ok(value) => filled.push_str(&value),
                Err(mistake) => wrong.push(mistake),
            }
            rest = tail;
        }
        filled.push_str(rest);
        if wrong.is_empty() { Ok(filled) } else { Err(wrong) }
    }

    /// What stands for `NAME` or `NAME:-default`. As in a shell, the default also stands for an empty variable.
    fn value(&self, inside: &str) -> Result<String, (Code, String)> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            let what =
                "a placeholder is `${NAME}` or `${NAME:-default}`; write `$${` for the characters themselves";
            return Err((Code::BadPlaceholder, what.to_owned()));
        }
        match ((self.variable)(name), default) {
            (Some(Err(())), _) => {
                Err((Code::UnsetVariable, format!("the environment variable `{name}` is not text")))
            }
            (Some(Ok(value)), None) => Ok(value),
            (Some(Ok(value)), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err((
                Code::UnsetVariable,
                format!("the environment variable `{name}` is not set; `${{{name}:-}}` may stand for none"),
            )),
        }
    }

    /// What a secret file holds, without the newline at its end.
    pub fn secret(&self, path: &str) -> Result<String, String> {
        secret_file(&self.folder.join(path))
    }
}

/// What a secret file holds, without the newline at its end; else why it cannot be used. One that holds nothing is no secret: it
/// would open what it is meant to close.
pub fn secret_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut text = read_bounded(path, LARGEST_SECRET)
        .map_err(|unreadable| format!("the secret file `{shown}` {unreadable}"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(format!("the secret file `{shown}` is empty")) } else { Ok(text) }
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Why a file cannot be used, as the end of a sentence that begins with it.
#[derive(Debug)]
pub enum Unreadable {
    NotAFile,
    TooLarge(u64),
    NotText,
    Error(io::Error),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::TooLarge(largest) => write!(f, "is larger than {} KiB", largest / 1024),
            Self::NotText => f.write_str("is not UTF-8 text"),
            Self::Error(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

/// Reads a regular file of bounded size. Whatever else has that name, a pipe that nobody writes to, is not waited for.
pub fn read_bounded(path: &Path, largest: u64) -> Result<String, Unreadable> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Unreadable::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > largest {
        return Err(Unreadable::TooLarge(largest));
    }
    String::from_utf8(bytes).map_err(|_| Unreadable::NotText)
}

#[cfg(test)]
mod tests {
    use super::Code::{BadPlaceholder, UnsetVariable};
    use super::*;

    fn set(name: &str) -> Option<Result<String, ()>> {
        match name {
            "HOST" => Some(Ok("db".to_owned())),
            "EMPTY" => Some(Ok(String::new())),
            "BYTES" => Some(Err(())),
            _ => None,
        }
    }

    fn here(folder: &Path) -> Surroundings<'_> {
        Surroundings { variable: &set, folder }
    }

    #[test]
    fn placeholders_stand_for_variables_and_all_else_for_itself() {
        for (text, filled) in [
            ("", ""),
            ("plain $5 $HOST {HOST} $", "plain $5 $HOST {HOST} $"),
            ("${HOST}", "db"),
            ("a${HOST}b${HOST}", "adbbdb"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${UNSET:-}", ""),
            ("${UNSET:-a:-b $ c}", "a:-b $ c"),
            ("${HOST:-x}", "db"),
            ("$${HOST}", "${HOST}"),
            ("$${", "${"),
            ("€${HOST}€", "€db€"),
        ] {
            assert_eq!(here(Path::new("/")).fill(text), Ok(filled.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_stands_for_nothing_is_told_each_time() {
        let codes = |text: &str| -> Vec<_> {
            here(Path::new("/")).fill(text).unwrap_err().into_iter().map(|(code, _)| code).collect()
        };
        for (text, expected) in [
            ("${UNSET}", vec![UnsetVariable]),
            ("${UNSET} ${HOST} ${OTHER}", vec![UnsetVariable, UnsetVariable]),
            ("${BYTES:-x}", vec![UnsetVariable]),
            ("${}", vec![BadPlaceholder]),
            ("${1A}", vec![BadPlaceholder]),
            ("${HOST", vec![BadPlaceholder]),
            ("${A B} ${UNSET}", vec![BadPlaceholder, UnsetVariable]),
        ] {
            assert_eq!(codes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_file_is_read_without_its_last_newline_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("unix", b"S3cret\n");
        write("dos", b"S3cret\r\n");
        write("two", b"S3cret\n\n");
        write("empty", b"");
        write("newline", b"\n");
        write("bytes", b"\xff");
        write("large", &vec![b'a'; 65 * 1024]);
        nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let read = |name: &str| here(folder.path()).secret(name);
        assert_eq!(read("unix").unwrap(), "S3cret");
        assert_eq!(read("dos").unwrap(), "S3cret");
        assert_eq!(read("two").unwrap(), "S3cret\n");
        for (name, why) in [
            ("empty", "is empty"),
            ("newline", "is empty"),
            ("bytes", "is not UTF-8 text"),
            ("large", "is larger than 64 KiB"),
            ("pipe", "is not a regular file"),
            (".", "is not a regular file"),
            ("missing", "No such file or directory"),
        ] {
            let told = read(name).unwrap_err();
            assert!(told.contains(why), "{name}: {told}");
        }
    }
}
