//! How values on the command line are read that more than one command takes.

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
