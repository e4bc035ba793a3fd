//! What can go wrong with a Redis, told without its secrets.

use std::fmt;
use std::io;

/// A call to Redis that failed. Its text is for people and logs, and holds no secret; for a public answer there is
/// [`ErrorKind`], whose text is one of a few fixed sentences.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    code: Option<String>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL cannot be, or a file that it names cannot be used.
    Configuration,
    /// No connection, or it was lost.
    Unreachable,
    /// No answer before the deadline.
    TimedOut,
    /// Not with these credentials: who asks is not known, or may not do this.
    Denied,
    /// The server answered, with another error.
    Server,
    /// What answered does not speak as Redis does, or says more than it was asked.
    Garbled,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "the Redis settings cannot be used",
            Self::Unreachable => "Redis cannot be reached",
            Self::TimedOut => "Redis did not answer in time",
            Self::Denied => "Redis denied access",
            Self::Server => "Redis answered with an error",
            Self::Garbled => "Redis gave no proper answer",
        })
    }
}

impl Error {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), code: None }
    }

    /// The same, with the word that the server's own error began with.
    pub(super) fn with_code(self, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..self }
    }

    /// What went wrong between here and `place`.
    pub(super) fn io(place: impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Unreachable,
        };
        Self::new(kind, format!("{place}: {}", Printable(&error.to_string())))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The word that the server's error began with, such as `NOPERM` or `READONLY`, where a server answered with one. It is
    /// the server's own: to compare with those that are known, and not to be shown.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Somebody else's text: of bounded length, and nothing in it steers a terminal. Whoever writes a log cuts it shorter, once it has
/// left the secrets out.
pub(super) struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 4_096;
        for character in self.0.chars().take(LONGEST) {
            write!(f, "{}", if character.is_control() { '?' } else { character })?;
        }
        if self.0.chars().nth(LONGEST).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_text_is_bounded_and_steers_no_terminal() {
        let told = Printable(&"a\x1b\n".repeat(9_999)).to_string();
        assert_eq!(told, "a??".repeat(9_999)[..4_096].to_owned() + "…");
        assert_eq!(Printable(&"é".repeat(4_096)).to_string(), "é".repeat(4_096));
    }
}
