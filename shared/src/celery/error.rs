//! What can go wrong with a broker, told without its secrets.

use std::fmt;
use std::io;

use super::Printable;

/// A question to a broker that failed. [`Self::reason`] is for everyone; the text is for who asked and for logs, names the
/// server, and holds no secret.
#[derive(Clone, Debug)]
pub struct Error {
    reason: String,
    text: String,
}

impl Error {
    pub(super) fn new(reason: &str, place: impl fmt::Display, what: impl fmt::Display) -> Self {
        let text = format!("{place}: {}", Printable(&what.to_string()));
        Self { reason: reason.to_owned(), text }
    }

    pub(super) fn timed_out(place: impl fmt::Display) -> Self {
        Self::new("the broker did not answer in time", place, "no answer in time")
    }

    pub(super) fn unreachable(place: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::new("the broker cannot be reached", place, what)
    }

    pub(super) fn denied(place: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::new("the broker denied access", place, what)
    }

    pub(super) fn garbled(place: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::new("the broker gave no proper answer", place, what)
    }

    pub(super) fn flooded(place: impl fmt::Display) -> Self {
        Self::new("the broker sent too much", place, "more than it may in answer to one question")
    }

    pub(super) fn refused(place: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::new("the broker answered with an error", place, what)
    }

    pub(super) fn local(reason: &str, what: impl fmt::Display) -> Self {
        Self::new(reason, "here", what)
    }

    pub(super) fn io(place: impl fmt::Display, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::timed_out(place),
            io::ErrorKind::QuotaExceeded => Self::flooded(place),
            _ => Self::unreachable(place, error),
        }
    }

    /// The same, told in another sentence.
    pub(super) fn about(self, reason: String) -> Self {
        Self { reason, ..self }
    }

    /// Why, as a fixed sentence.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<heartbeat::fleet::Error> for Error {
    fn from(error: heartbeat::fleet::Error) -> Self {
        Self { reason: error.kind().to_string(), text: error.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

#[cfg(all(test, feature = "run"))]
mod tests {
    use super::*;
    use crate::check::chain;
    use crate::hidden::hide;

    #[test]
    fn no_part_of_a_secret_is_left_where_a_brokers_words_are_cut_off() {
        const SECRET: &str = "Qw7\nZw9-Vw";
        let _hidden = hide([SECRET].into_iter());
        for before in (0..=300).chain(1_900..=2_100) {
            let hostile = format!("{}{SECRET} and more", "x".repeat(before));
            let told = chain(&Error::refused("h:1", &hostile));
            assert!(!told.contains("Qw") && !told.contains("Vw"), "{told}");
        }
    }
}
