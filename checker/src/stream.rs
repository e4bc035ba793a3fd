//! Standard output, for the answer, and standard error, for everything else.

use std::io::{self, ErrorKind, Write};

#[cfg(feature = "run")]
use shared::hidden::without_secrets;

use crate::exit::Exit;
#[cfg(feature = "run")]
use crate::format::plain::Plain;

/// Tells something in one line, whatever it holds.
#[cfg(feature = "run")]
pub fn log(what: &str) {
    complain(&Plain(without_secrets(what)).to_string());
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

/// Tells what is wrong, in lines of its own, without the secrets of the configuration.
pub fn complain_at_length(text: &str) {
    #[cfg(feature = "run")]
    let text = &without_secrets(text);
    // There is nowhere left to tell that nothing can be told.
    let _ = io::stderr().write_all(text.as_bytes());
}
