//! Standard output, for the answer, and standard error, for everything else.

use std::io::{self, ErrorKind, Write};
#[cfg(feature = "run")]
use std::sync::{PoisonError, RwLock};

use crate::exit::Exit;
#[cfg(feature = "run")]
use crate::format::plain::Plain;

/// What standard error never shows, the longest first.
#[cfg(feature = "run")]
static HIDDEN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Shorter ones are parts of ordinary words; nothing could be told any more.
#[cfg(feature = "run")]
const SHORTEST_HIDDEN: usize = 4;

/// From now on, standard error shows none of these either, as they are and as JSON writes them: the last line of defence
/// against a library whose error repeats what it was given.
#[cfg(feature = "run")]
pub fn hide<'s>(secrets: impl Iterator<Item = &'s str>) {
    let mut hidden = HIDDEN.write().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets.filter(|secret| secret.len() >= SHORTEST_HIDDEN) {
        let quoted = serde_json::Value::from(secret).to_string();
        hidden.extend([secret.to_owned(), quoted.trim_matches('"').to_owned()]);
    }
    hidden.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    hidden.dedup();
}

/// The lock is not held while anybody writes: standard error may be a pipe that nobody reads.
#[cfg(feature = "run")]
fn without_secrets(text: &str) -> String {
    let hidden = HIDDEN.read().unwrap_or_else(PoisonError::into_inner);
    hidden.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

/// Tells something in one line, whatever it holds.
#[cfg(feature = "run")]
pub fn log(what: &str) {
    complain(&Plain(what).to_string());
}

/// Writes the answer, whole, and gives the exit status that goes with it.
///
/// A reader that has gone is no failure: the status is an answer too. Any other error is.
pub fn answer(text: &str, exit: Exit) -> Exit {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("the answer could not be written: {error}"));
            Exit::Unexpected
        }
        _ => exit,
    }
}

/// Tells what is wrong, in one line.
pub fn complain(what: &str) {
    complain_at_length(&format!("checker: {what}\n"));
}

/// Tells what is wrong, in lines of its own.
pub fn complain_at_length(text: &str) {
    #[cfg(feature = "run")]
    let text = &without_secrets(text);
    // There is nowhere left to tell that nothing can be told.
    let _ = io::stderr().write_all(text.as_bytes());
}
