//! How values on the command line are read that more than one command takes.

#[cfg(any(feature = "redis", feature = "run"))]
use std::fmt;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use heartbeat::duration;

/// Reads a timeout: a duration that is not zero.
pub fn timeout(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("a timeout is 1ms at least".to_owned()),
        Ok(timeout) => Ok(timeout),
        Err(invalid) => Err(invalid.to_string()),
    }
}

/// Reads one of a few choices by its word; help and completions list them.
pub fn one_of<T, const N: usize>(all: [T; N], word: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(word))
        .try_map(move |chosen| all.into_iter().find(|choice| word(*choice) == chosen).ok_or("no such choice"))
}

/// A text that may hold a secret, such as a URL with a password. Reading it is not the parser's work: a parser shows what it
/// cannot read.
#[cfg(any(feature = "redis", feature = "run"))]
#[derive(Clone)]
pub struct Unread(String);

#[cfg(any(feature = "redis", feature = "run"))]
impl Unread {
    /// For who reads it, and never for showing.
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(any(feature = "redis", feature = "run"))]
impl From<String> for Unread {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(any(feature = "redis", feature = "run"))]
impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unread(…)")
    }
}
